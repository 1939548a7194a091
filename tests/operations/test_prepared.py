"""Statements that run on the driver say, see and raise what those do that run through SQLAlchemy."""

import sqlite3
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from sqlalchemy import bindparam, event, exc, insert, select, update

from dataset_registry import Provenance, Registry
from dataset_registry.catalog import engine, files, tables, versions
from dataset_registry.catalog.prepared import Prepared, inserting, on_driver
from dataset_registry.errors import RetryLater

TABLES = (
    tables.dataset_versions,
    tables.files,
    tables.schemas,
    tables.file_captures,
    tables.productions,
    tables.dataset_pointers,
    tables.inline_contents,
    tables.audit_log,
    tables.manifest_entries,
)


@pytest.fixture
def filled(registry: Registry) -> Registry:
    dataset = registry.create_dataset("raw/prices")
    with dataset.draft(provenance=Provenance(run_id="r", metadata={"a": [1, None]})) as draft:
        draft.add("data", b"\x00\xff", metadata={"n": 1})
        draft.add("t", pa.table({"x": [1, 2]}))
    dataset.create_tag("release")
    return registry


@pytest.mark.parametrize("table", TABLES, ids=lambda table: str(table.name))
def test_rows_are_those_of_sqlalchemy(table: Any, filled: Registry) -> None:
    query = select(table).order_by(*table.primary_key.columns)
    with filled.access.catalog.read() as tx:
        expected = [tuple(row) for row in tx.execute(query)]
        found = Prepared(query).all(tx, {})
    assert found == expected != []
    assert [list(map(type, row)) for row in found] == [list(map(type, row)) for row in expected]


def test_a_statement_may_be_the_first_of_its_transaction(filled: Registry) -> None:
    query = Prepared(select(tables.datasets.c.id).where(tables.datasets.c.name == bindparam("name")))
    with filled.access.catalog.read() as tx:
        assert query.first(tx, {"name": "raw/prices"}) == (1,)
        assert query.first(tx, {"name": "nowhere"}) is None
        with pytest.raises(ValueError, match="not enough values"):
            query.one(tx, {"name": "nowhere"})


def test_an_insert_returns_what_the_database_filled_in(filled: Registry) -> None:
    row = {"name": "other", "description": None, "created_by": 1}

    def work(tx: Any) -> tuple[Any, ...]:
        return inserting(tables.datasets, tuple(row), ("id", "created_at")).one(tx, row)

    made, moment = filled.access.catalog.write(work)
    assert made == 2
    assert moment.utcoffset().total_seconds() == 0


def test_errors_are_those_of_sqlalchemy(filled: Registry) -> None:
    twice = {"name": "raw/prices", "created_by": 1}
    catalog = filled.access.catalog

    def insert_twice(tx: Any) -> None:
        with pytest.raises(exc.IntegrityError, match=r"raw/prices|UNIQUE"):
            inserting(tables.datasets, tuple(twice)).run(tx, twice)
            versions.head(tx, 1, "main")  # on PostgreSQL changes wait until rows are asked for
        raise KeyError

    with pytest.raises(KeyError):
        catalog.write(insert_twice)
    with catalog.read() as tx, pytest.raises(exc.DBAPIError):
        on_driver(tx, "SELECT nothing FROM nowhere", ())


def test_a_change_that_fails_at_the_commit_is_undone_and_the_connection_used_again(filled: Registry) -> None:
    twice = {"name": "raw/prices", "created_by": 1}
    catalog = filled.access.catalog
    with pytest.raises(RetryLater, match="Conflicts"):
        catalog.write(lambda tx: inserting(tables.datasets, tuple(twice)).run(tx, twice))
    assert filled.create_dataset("other").commit({"data": b"1"}).number == 1
    assert [dataset.name for dataset in filled.datasets()] == ["other", "raw/prices"]


def test_a_connection_is_used_again_when_the_rows_of_its_last_question_were_not_taken(filled: Registry) -> None:
    row = {"name": "other", "created_by": 1}

    def work(tx: Any) -> None:
        inserting(tables.datasets, tuple(row), ("id",)).ask(tx, row)
        raise KeyError

    with pytest.raises(KeyError):
        filled.access.catalog.write(work)
    assert [dataset.name for dataset in filled.datasets()] == ["raw/prices"]
    assert filled.dataset("raw/prices").commit({"data": b"2"}).number == 2


def test_changes_see_each_other_in_the_order_in_which_they_were_made(filled: Registry) -> None:
    catalog = filled.access.catalog

    def work(tx: Any) -> None:
        for name in ("a", "b"):
            row = {"name": name, "created_by": 1}
            inserting(tables.datasets, tuple(row)).run(tx, row)
            rename = update(tables.datasets).where(tables.datasets.c.name == name).values(name=bindparam("new"))
            Prepared(rename).run(tx, {"new": f"{name}/1"})
            Prepared(rename).run(tx, {"new": f"{name}/2"})  # of no row

    catalog.write(work)
    assert [dataset.name for dataset in filled.datasets()] == ["a/1", "b/1", "raw/prices"]


def test_ids_come_from_the_database_where_a_sequence_is_not_its_columns(
    postgresql_catalog: str, tmp_path: Path
) -> None:
    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path / "store")) as registry:
        with registry.access.catalog.writer.begin() as connection:  # as in a catalog that was restored by hand
            for table in ("files", "dataset_versions", "manifest_pages", "manifest_index_pages"):
                connection.exec_driver_sql(f"ALTER SEQUENCE {table}_id_seq OWNED BY NONE")
        dataset = registry.create_dataset("raw/prices")
        assert [dataset.commit({"data": data}).id for data in (b"1", b"2")] == [1, 2]
        assert registry.verify(deep=True).clean


def test_errors_while_rows_are_read_are_those_of_sqlalchemy(embedded: Registry) -> None:
    def malformed(cursor: Any) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with embedded.access.catalog.read() as tx, pytest.raises(exc.DatabaseError, match="malformed"):
        on_driver(tx, "SELECT 1", (), malformed)


def test_a_catalog_that_another_program_locks_is_used_later(
    embedded: Registry, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.01)
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store")) as registry:
        dataset = registry.create_dataset("raw/prices")
        other = sqlite3.connect(registry.access.catalog.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RetryLater, match="locked"):
            dataset.commit({"data": b"1"})
        other.execute("ROLLBACK")
        other.close()
        assert dataset.commit({"data": b"1"}).number == 1


def test_a_connection_that_breaks_is_replaced(postgresql_catalog: str, tmp_path: Path) -> None:
    query = Prepared(select(tables.datasets.c.id))
    attempts = []
    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path / "store")) as registry:

        def work(tx: Any) -> list[tuple[Any, ...]]:
            attempts.append(tx)
            if len(attempts) == 1:
                with registry.access.catalog.read() as killer:
                    pid = tx.exec_driver_sql("SELECT pg_backend_pid()").scalar()
                    killer.exec_driver_sql("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            return query.all(tx, {})

        assert registry.access.catalog.write(work) == []
    assert len(attempts) == 2


def test_the_server_knows_that_a_transaction_waits_for_its_client(postgresql_catalog: str, tmp_path: Path) -> None:
    ours = "SELECT state FROM pg_stat_activity WHERE pid = %s"
    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path / "store")) as registry:

        def work(tx: Any) -> None:
            versions.head(tx, 1, "main")
            pid = tx.connection.driver_connection.info.backend_pid
            with registry.access.catalog.read() as watching:
                state = watching.exec_driver_sql(ours, (pid,)).scalar()
            assert state == "idle in transaction"  # else it would not end one that hangs

        registry.access.catalog.write(work)


def test_listeners_see_every_statement(filled: Registry) -> None:
    catalog, seen = filled.access.catalog, []
    event.listen(catalog.writer, "before_cursor_execute", lambda *given: seen.append(given[2]))
    catalog.write(lambda tx: versions.head(tx, 1, "main"))
    catalog.write(lambda tx: files.look_up(tx, ["a" * 64]))
    assert [text.split()[0] for text in seen if text.startswith("SELECT")] == ["SELECT", "SELECT"]


def test_bytes_and_ids_are_stored_as_they_are(filled: Registry) -> None:
    uuid = uuid4()
    insertion = Prepared(insert(tables.uploads), ("id", "content_hash", "object_key", "expires_at"))
    moment = filled.dataset("raw/prices").version("main").created_at

    def work(tx: Any) -> None:
        insertion.run(tx, {"id": uuid, "content_hash": "a" * 64, "object_key": None, "expires_at": moment})

    filled.access.catalog.write(work)
    with filled.access.catalog.read() as tx:
        assert tuple(tx.execute(select(tables.uploads)).one()) == (uuid, "a" * 64, None, moment)
