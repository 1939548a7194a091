"""Tags are immutable in the database itself, whoever writes to it: at revision 0006, which made them so, and at head."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from dataset_registry.catalog import Catalog, migrate
from dataset_registry.catalog.engine import HEAD
from tests.conftest import DATABASES
from tests.migrations import support


@dataclass(frozen=True)
class Tagged:
    """A dataset (1) with versions 1 and 2, the branches main and dev, the tag release, and gone, a tag no more."""

    catalog: Catalog
    connection: Connection
    revision: str

    def run(self, statement: str) -> int:
        return self.connection.execute(text(statement)).rowcount

    def refuses(self, statement: str, reason: str = "immutable|not reused") -> None:
        with pytest.raises(DBAPIError, match=reason), self.connection.begin_nested():
            self.run(statement)

    def pointers(self) -> list[tuple[str, int, bool]]:
        rows = self.connection.execute(
            text("SELECT pointer_name, dataset_version_id, is_tag FROM dataset_pointers ORDER BY pointer_name")
        )
        return [(row[0], row[1], bool(row[2])) for row in rows]

    def retired(self) -> list[str]:
        rows = self.connection.execute(text("SELECT pointer_name FROM retired_tags ORDER BY pointer_name"))
        return [row[0] for row in rows]


AT_FIRST = [("dev", 1, False), ("main", 2, False), ("release", 1, True)]


@pytest.fixture(scope="module", params=[(kind, revision) for kind in DATABASES for revision in ("0006", HEAD)], ids=str)
def tagged_catalog(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> Iterator[Catalog]:
    kind, revision = request.param
    catalog = Catalog(new_url(kind))
    migrate.upgrade(catalog, revision)
    support.execute(catalog, "INSERT INTO datasets (name) VALUES ('raw/flights'), ('raw/other')")
    support.execute(catalog, "INSERT INTO dataset_versions (dataset_id, version_number) VALUES (1, 1), (1, 2), (2, 1)")
    for name, version, is_tag in [*AT_FIRST, ("gone", 2, True)]:
        support.insert(
            catalog, "dataset_pointers", dataset_id=1, pointer_name=name, dataset_version_id=version, is_tag=is_tag
        )
    support.execute(catalog, "DELETE FROM dataset_pointers WHERE pointer_name = 'gone'")
    yield catalog
    catalog.close()


ON_POSTGRESQL = pytest.mark.parametrize(
    "tagged_catalog", [("postgresql", "0006"), ("postgresql", HEAD)], indirect=True, scope="module", ids=str
)


@pytest.fixture
def tagged(tagged_catalog: Catalog, request: pytest.FixtureRequest) -> Iterator[Tagged]:
    """Every test in a transaction that is rolled back."""
    with tagged_catalog.queued(), tagged_catalog.writer.connect() as connection:
        yield Tagged(tagged_catalog, connection, request.node.callspec.params["tagged_catalog"][1])
        connection.rollback()


@pytest.mark.parametrize(
    "change",
    [
        "dataset_version_id = 2",
        "pointer_name = 'other'",
        "dataset_id = 2",
        "is_tag = false",
        "id = 99",
        "updated_at = CURRENT_TIMESTAMP",
        "dataset_version_id = dataset_version_id",
    ],
)
def test_an_update_of_a_tag_fails(tagged: Tagged, change: str) -> None:
    tagged.refuses(f"UPDATE dataset_pointers SET {change} WHERE pointer_name = 'release'")
    tagged.refuses(f"UPDATE dataset_pointers SET {change} WHERE is_tag")
    assert tagged.pointers() == AT_FIRST


def test_an_update_of_everything_fails_because_a_tag_is_among_it(tagged: Tagged) -> None:
    tagged.refuses("UPDATE dataset_pointers SET dataset_version_id = 2")
    assert tagged.pointers() == AT_FIRST


def test_a_branch_does_not_become_a_tag(tagged: Tagged) -> None:
    tagged.refuses("UPDATE dataset_pointers SET is_tag = true WHERE pointer_name = 'dev'")
    tagged.refuses("UPDATE dataset_pointers SET is_tag = true, pointer_name = 'gone' WHERE pointer_name = 'dev'")
    assert tagged.pointers() == AT_FIRST


def test_branches_move_are_renamed_and_go_freely(tagged: Tagged) -> None:
    assert tagged.run("UPDATE dataset_pointers SET dataset_version_id = 1 WHERE pointer_name = 'main'") == 1
    assert tagged.run("UPDATE dataset_pointers SET pointer_name = 'work' WHERE pointer_name = 'dev'") == 1
    assert tagged.pointers() == [("main", 1, False), ("release", 1, True), ("work", 1, False)]
    assert tagged.run("DELETE FROM dataset_pointers WHERE pointer_name = 'work'") == 1
    assert tagged.retired() == ["gone"]
    tagged.run("INSERT INTO dataset_pointers (dataset_id, pointer_name, dataset_version_id) VALUES (1, 'work', 2)")
    assert ("work", 2, False) in tagged.pointers()


def test_a_deleted_tag_retires_its_name_in_its_dataset_only(tagged: Tagged) -> None:
    assert tagged.run("DELETE FROM dataset_pointers WHERE pointer_name = 'release'") == 1
    assert tagged.retired() == ["gone", "release"]
    for name in ("gone", "release"):
        tagged.refuses(
            "INSERT INTO dataset_pointers (dataset_id, pointer_name, dataset_version_id, is_tag) "
            f"VALUES (1, '{name}', 2, true)",
            "not reused",
        )
    tagged.run(
        "INSERT INTO dataset_pointers (dataset_id, pointer_name, dataset_version_id, is_tag) VALUES (2, 'gone', 3, true)"
    )
    assert ("gone", 3, True) in tagged.pointers()


def test_a_branch_of_a_retired_name_does_not_become_its_tag(tagged: Tagged) -> None:
    insert = "INSERT INTO dataset_pointers (dataset_id, pointer_name, dataset_version_id) VALUES (1, 'gone', 1)"
    if tagged.revision == HEAD:
        tagged.refuses(insert, "not reused")
    else:
        tagged.run(insert)
        tagged.refuses("UPDATE dataset_pointers SET is_tag = true WHERE pointer_name = 'gone'")


@pytest.mark.parametrize("is_tag", ["true", "false"])
def test_an_insert_that_replaces_a_tag_fails(tagged: Tagged, is_tag: str) -> None:
    row = f"(dataset_id, pointer_name, dataset_version_id, is_tag) VALUES (1, 'release', 2, {is_tag})"
    if tagged.catalog.is_sqlite:
        tagged.refuses(f"INSERT OR REPLACE INTO dataset_pointers {row}")
        tagged.refuses(f"REPLACE INTO dataset_pointers {row}")
    upsert = f"INSERT INTO dataset_pointers {row} ON CONFLICT (dataset_id, pointer_name) DO UPDATE SET "
    tagged.refuses(f"{upsert}dataset_version_id = excluded.dataset_version_id")
    tagged.refuses(f"{upsert}is_tag = false")
    assert tagged.pointers() == AT_FIRST


def test_an_insert_that_takes_the_id_of_a_tag_fails(tagged: Tagged) -> None:
    (number,) = tagged.connection.execute(text("SELECT id FROM dataset_pointers WHERE is_tag")).one()
    row = f"(id, dataset_id, pointer_name, dataset_version_id) VALUES ({number}, 1, 'new', 2)"
    if tagged.catalog.is_sqlite:
        tagged.refuses(f"INSERT OR REPLACE INTO dataset_pointers {row}")
    tagged.refuses(f"INSERT INTO dataset_pointers {row} ON CONFLICT (id) DO UPDATE SET dataset_version_id = 2")
    assert tagged.pointers() == AT_FIRST


def test_a_branch_that_takes_the_name_or_the_id_of_a_tag_fails(tagged: Tagged) -> None:
    """SQLite's UPDATE OR REPLACE deletes the row in the way, and asks no trigger unless it is told to."""
    replacing = "UPDATE OR REPLACE" if tagged.catalog.is_sqlite else "UPDATE"
    reason = "immutable|unique"
    tagged.refuses(f"{replacing} dataset_pointers SET pointer_name = 'release' WHERE pointer_name = 'dev'", reason)
    tagged.refuses(
        f"{replacing} dataset_pointers SET id = (SELECT id FROM dataset_pointers WHERE is_tag) WHERE pointer_name = 'dev'",
        reason,
    )
    assert tagged.pointers() == AT_FIRST
    assert tagged.retired() == ["gone"]


@pytest.mark.parametrize(
    "statement", ["TRUNCATE dataset_pointers", "TRUNCATE datasets CASCADE", "TRUNCATE users CASCADE"]
)
@ON_POSTGRESQL
def test_truncating_fails_on_postgresql(tagged: Tagged, statement: str) -> None:
    tagged.refuses(statement)
    tagged.refuses(f"{statement.replace(' CASCADE', '')} RESTART IDENTITY CASCADE")
    assert tagged.pointers() == AT_FIRST


def test_a_client_with_settings_of_its_own_gets_around_nothing(tagged_catalog: Catalog) -> None:
    """Another program: no recursive triggers and no foreign keys on SQLite; a replica's role on PostgreSQL."""
    update = "UPDATE {0}dataset_pointers SET dataset_version_id = 2 WHERE pointer_name = 'release'"
    if tagged_catalog.is_sqlite:
        connection = sqlite3.connect(tagged_catalog.path, isolation_level=None)
        try:
            for statement in (
                update.format(""),
                update.format("").replace("UPDATE", "UPDATE OR REPLACE"),
                update.format("").replace("UPDATE", "UPDATE OR IGNORE"),
                "INSERT OR REPLACE INTO dataset_pointers (dataset_id, pointer_name, dataset_version_id) "
                "VALUES (1, 'release', 2)",
                "INSERT OR REPLACE INTO dataset_pointers (dataset_id, pointer_name, dataset_version_id, is_tag) "
                "VALUES (1, 'gone', 2, 1)",
                "UPDATE OR REPLACE dataset_pointers SET pointer_name = 'release' WHERE pointer_name = 'dev'",
            ):
                connection.execute("BEGIN")
                with pytest.raises(sqlite3.IntegrityError, match=r"immutable|not reused"):
                    connection.execute(statement)
                connection.rollback()
        finally:
            connection.close()
        return
    url = tagged_catalog.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as session:
        session.execute("SET session_replication_role = replica")
        for statement in (update.format("dataset_registry."), "TRUNCATE dataset_registry.dataset_pointers"):
            with pytest.raises(psycopg.errors.RaiseException, match="immutable"), session.transaction():
                session.execute(statement)
        session.rollback()


@ON_POSTGRESQL
def test_the_triggers_work_whatever_the_search_path_of_a_session_is(tagged_catalog: Catalog) -> None:
    url = tagged_catalog.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as session:
        session.execute("CREATE TABLE public.retired_tags (dataset_id int, pointer_name text)")  # rolled back below
        session.execute("DELETE FROM dataset_registry.dataset_pointers WHERE pointer_name = 'release'")
        rows = session.execute(
            "SELECT pointer_name FROM dataset_registry.retired_tags ORDER BY pointer_name"
        ).fetchall()
        assert rows == [("gone",), ("release",)]
        with pytest.raises(psycopg.errors.RaiseException, match="not reused"), session.transaction():
            session.execute(
                "INSERT INTO dataset_registry.dataset_pointers (dataset_id, pointer_name, dataset_version_id, is_tag) "
                "VALUES (1, 'gone', 2, true)"
            )
        session.rollback()
