"""Catalogs that others made by hand: each is taken over with every byte and row, or refused by the name of what stands in the
way, before anything is changed."""

import hashlib
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.catalog.engine import HEAD
from dataset_registry.errors import MigrationRefused, RegistryError
from tests.migrations import support
from tests.waiting import SAFETY

_ROWS = """
INSERT INTO users (username) VALUES ('ada');
INSERT INTO datasets (name) VALUES ('raw/a');
INSERT INTO datasets (name) VALUES ('raw/b');
INSERT INTO files (storage_type, file_data, file_size) VALUES ('database', {ab}, 2);
INSERT INTO files (storage_type, file_type, file_path, file_size) VALUES ('filesystem', 'csv', '{folder}/x.csv', 8);
INSERT INTO dataset_versions (dataset_id, version_number, file_id, uploaded_by) VALUES (1, 1, 1, 1);
INSERT INTO dataset_versions (dataset_id, version_number, file_id) VALUES (1, 4, 2);
INSERT INTO dataset_versions (dataset_id, version_number, file_id) VALUES (2, 1, 2);
"""
CONTENT = {("raw/a", 1): b"ab", ("raw/a", 4): b"id,n\n1,2", ("raw/b", 1): b"id,n\n1,2"}

# What makes a baseline awkward: statements after its tables and before its rows, or after its rows. Each is taken over.
TAKEN = {
    "as it is": "",
    "an index on a column that goes": "CREATE INDEX mine ON dataset_versions (file_id)",
    "an index on columns that stay": "CREATE INDEX mine ON dataset_versions (dataset_id, version_number)",
    "a unique index of its own": "CREATE UNIQUE INDEX mine ON users (email)",
    "a table that references ours": "CREATE TABLE notes (id INT, version INT REFERENCES dataset_versions(id))",
    "a table of others": "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
    "a column of its own": "ALTER TABLE files ADD COLUMN checksum VARCHAR(32) DEFAULT 'x'",
    "a column of its own on versions": "ALTER TABLE dataset_versions ADD COLUMN reviewed_by TEXT",
    "a column of its own on datasets": "ALTER TABLE datasets ADD COLUMN owner TEXT",
    "a column of its own on users": "ALTER TABLE users ADD COLUMN password TEXT",
    "a view on users": "CREATE VIEW report AS SELECT username FROM users",
    "a view on versions": "CREATE VIEW report AS SELECT dataset_id, count(*) AS n FROM dataset_versions GROUP BY dataset_id",
    "rows of others beside them": "CREATE TABLE runs (id INT); INSERT INTO runs VALUES (1)",
    "a path and inline bytes": "UPDATE files SET file_path = 'upload.bin' WHERE id = 1",
    "sizes that are not known": "UPDATE files SET file_size = NULL WHERE id = 1",
    "empty texts": "UPDATE files SET file_type = '', mime_type = ''",
    "a message of its own": "ALTER TABLE dataset_versions ADD COLUMN comment TEXT",
    "moments in the past": "UPDATE dataset_versions SET ingestion_timestamp = '1970-01-01 00:00:00'",
    "moments in the future": "UPDATE dataset_versions SET ingestion_timestamp = '2999-01-01 00:00:00'",
    "an uploader of none": "UPDATE dataset_versions SET uploaded_by = NULL",
    "a dataset without versions": "INSERT INTO datasets (name) VALUES ('empty')",
    "a file of no version": "INSERT INTO files (storage_type, file_data, file_size) VALUES ('database', {ab}, 2)",
    "an unknown storage type": "UPDATE files SET storage_type = 'S3 (old)'",
    "a storage type called as ours": "UPDATE files SET storage_type = 'store' WHERE id = 2",
    "types in capitals": "UPDATE files SET file_type = 'CSV' WHERE id = 2",
    "a type that is wrong": "UPDATE files SET file_type = 'parquet' WHERE id = 2",
    "long texts": "UPDATE files SET mime_type = 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet'",
    "descriptions of many lines": "UPDATE datasets SET description = 'one{newline}two'",
    "numbers far apart": "UPDATE dataset_versions SET version_number = 2000000000 WHERE version_number = 4",
    "a second user": "INSERT INTO users (username) VALUES ('Bob Smith (ext.)')",
    "an email twice": "UPDATE users SET email = 'x'; INSERT INTO users (username, email) VALUES ('eve', 'x')",
}
TAKEN_SQLITE = {
    "a trigger": "CREATE TRIGGER mine AFTER INSERT ON dataset_versions BEGIN UPDATE users SET email = 'x'; END",
    "a trigger on datasets": "CREATE TRIGGER mine AFTER DELETE ON datasets BEGIN SELECT 1; END",
    "a partial index": "CREATE INDEX mine ON files (file_path) WHERE file_path IS NOT NULL",
}
TAKEN_POSTGRESQL = {
    "moments with a zone": "ALTER TABLE dataset_versions ALTER ingestion_timestamp TYPE TIMESTAMPTZ",
    "no reference to files": "ALTER TABLE dataset_versions DROP CONSTRAINT dataset_versions_file_id_fkey",
    "no unique names": "ALTER TABLE datasets DROP CONSTRAINT datasets_name_key",
    "large ids": "ALTER TABLE files ALTER id TYPE BIGINT",
}
REFUSED = {
    "a name twice": (
        "ALTER TABLE datasets RENAME TO old; CREATE TABLE datasets (id INT PRIMARY KEY, name TEXT, description TEXT, "
        "created_at TIMESTAMP); INSERT INTO datasets SELECT id, 'same', NULL, created_at FROM old",
        "datasets with the same name: ('same', 2)",
    ),
    "a number twice": (
        "UPDATE dataset_versions SET version_number = 1",
        "dataset_versions with the same dataset_id, version_number: (1, 1, 2)",
    ),
}
REFUSED_POSTGRESQL = {
    "a view on a column that goes": ("CREATE VIEW report AS SELECT file_id FROM dataset_versions", "view report"),
    "a view on names": ("CREATE VIEW report AS SELECT username FROM users", "view or rule"),
}


@pytest.fixture
def made(catalog: Catalog, tmp_path: Path) -> Catalog:
    """A baseline made by hand, in the schema of the catalog, with rows."""
    support.create_hand_made_tables(catalog)
    support.run_script(catalog, _ROWS, tmp_path)
    (tmp_path / "x.csv").write_bytes(CONTENT["raw/b", 1])
    return catalog


def opened(catalog: Catalog, folder: Path) -> Registry:
    return Registry.open(
        catalog=catalog.url.render_as_string(hide_password=False), store=str(folder / "store"), actor="ada"
    )


def contents(registry: Registry) -> dict[tuple[str, int], bytes]:
    versions = (version for dataset in registry.datasets() for version in dataset.tree())
    return {(version.dataset, version.number): support.content(version) for version in versions}


def foreign(catalog: Catalog) -> list[Any]:
    """What is not ours, as the database describes it."""
    if catalog.is_sqlite:
        named = "name IN ('mine', 'report', 'notes', 'runs', 'alembic_version')"
        return support.query(catalog, f"SELECT type, name, sql FROM sqlite_master WHERE {named} ORDER BY name")
    named = "relname IN ('mine', 'report', 'notes', 'runs', 'alembic_version')"
    return support.query(catalog, f"SELECT relkind, relname FROM pg_class WHERE {named} ORDER BY relname")


def applies(kind: str, catalog: Catalog) -> str:
    only = TAKEN_SQLITE if catalog.is_sqlite else TAKEN_POSTGRESQL
    found = {**TAKEN, **only}.get(kind)
    if found is None or (kind.startswith("a view") and not catalog.is_sqlite and "users" in kind):
        pytest.skip("of the other database, or refused there")
    return found


class Stopped(BaseException):
    """The end of an adoption in its middle."""


def stop(what: str, done: int, total: int | None) -> None:
    raise Stopped


STEPS = {"at once": (support.REVISIONS[0], support.REVISIONS[-1]), "step by step": support.REVISIONS}
STEP_BY_STEP = ("as it is", "an index on a column that goes", "a view on versions", "a trigger", "moments with a zone")
"""What goes through every revision in a migration of its own in the short run too; the others do in the long one."""


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        pytest.param(kind, steps, id=f"{kind}, {steps}", marks=[pytest.mark.long] if is_long else [])
        for kind in (*TAKEN, *TAKEN_SQLITE, *TAKEN_POSTGRESQL)
        for steps in STEPS
        for is_long in [(steps == "step by step") != (kind in STEP_BY_STEP)]
    ],
)
def test_an_awkward_baseline_is_taken_over_with_every_byte(
    made: Catalog, kind: str, steps: str, tmp_path: Path
) -> None:
    support.run_script(made, applies(kind, made), tmp_path)
    before = foreign(made)
    for revision in STEPS[steps]:
        migrate.upgrade(made, revision)
    migrate.check(made)
    far = 2_000_000_000 if kind == "numbers far apart" else 4
    content = {(name, far if number == 4 else number): data for (name, number), data in CONTENT.items()}
    with opened(made, tmp_path) as registry:
        assert contents(registry) == content
    for revision in reversed(STEPS[steps][:-1]):
        support.go_down(made, revision)
    migrate.upgrade(made)
    with opened(made, tmp_path) as registry:
        with pytest.raises(Stopped):
            registry.adopt(progress=stop)
        assert contents(registry) == content
        assert registry.adopt().failed == {}
        assert registry.adopt().files == 0
        assert contents(registry) == content
        assert registry.verify(deep=True).findings == ()
        hashes = {c.content_hash for d in registry.datasets() for v in d.tree() for c in v.components}
        assert hashes == {hashlib.sha256(data).hexdigest() for data in CONTENT.values()}
        assert registry.dataset("raw/b").commit({"data": b"new"}).number == 2
    kept = [found for found in before if "column that goes" not in kind or found[1] != "mine"]
    assert foreign(made) == kept
    migrate.check(made)


@pytest.mark.parametrize("kind", [*REFUSED, *REFUSED_POSTGRESQL])
def test_what_stands_in_the_way_is_named_and_nothing_is_changed(made: Catalog, kind: str, tmp_path: Path) -> None:
    if made.is_sqlite and kind in REFUSED_POSTGRESQL:
        pytest.skip("a view is no obstacle there")
    if kind == "a name twice" and not made.is_sqlite:
        pytest.skip("the old table keeps its references there")
    script, words = {**REFUSED, **REFUSED_POSTGRESQL}[kind]
    support.run_script(made, script, tmp_path)
    before = support.snapshot(made)
    with pytest.raises(MigrationRefused) as refusal:
        migrate.upgrade(made)
    assert words in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    assert support.snapshot(made) == before
    assert made.revision() is None


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
def test_a_trigger_that_the_new_tables_cannot_have_is_named(made: Catalog, tmp_path: Path) -> None:
    support.execute(
        made, "CREATE TRIGGER mine AFTER UPDATE OF file_id ON dataset_versions BEGIN SELECT OLD.file_id; END"
    )
    with suppress(RegistryError):
        migrate.upgrade(made)
        pytest.skip("this SQLite keeps it")
    assert made.revision() is None
    assert [row[1] for row in foreign(made)] == ["mine"]


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_a_baseline_in_public_is_named_and_taken_over_where_it_is(catalog: Catalog, tmp_path: Path) -> None:
    url = catalog.url.render_as_string(hide_password=False)
    public = Catalog(f"{url}?schema=public")
    support.run_script(public, support.HAND_MADE_TABLES, tmp_path)
    support.run_script(public, _ROWS, tmp_path)
    (tmp_path / "x.csv").write_bytes(CONTENT["raw/b", 1])
    support.execute(public, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    with pytest.raises(MigrationRefused, match=r"'public'.*\?schema=public"):
        migrate.upgrade(catalog)
    assert catalog.revision() is None
    migrate.upgrade(public)
    migrate.check(public)
    with Registry.open(catalog=f"{url}?schema=public", store=str(tmp_path / "store")) as registry:
        assert contents(registry) == CONTENT
    migrate.upgrade(catalog, beside=True)
    with Registry.open(catalog=url, store=str(tmp_path / "other")) as registry:
        assert registry.datasets() == []
    public.close()


# --- for those who look first, and those who use Alembic -------------------------------------------------------------


def test_the_statements_of_an_upgrade_are_printed_and_nothing_is_changed(made: Catalog) -> None:
    before = support.snapshot(made)
    printed = migrate.statements(made)
    assert made.revision() is None
    assert support.snapshot(made) == before
    script = "\n".join(printed)
    for words in ("CREATE TABLE manifest_pages", "ALTER TABLE" if not made.is_sqlite else "DROP TABLE", "rows"):
        assert words in script
    assert not any(line.startswith(("SELECT", "PRAGMA")) for line in printed)
    migrate.upgrade(made)
    assert migrate.statements(made) == []


def test_a_long_step_says_how_far_it_is(made: Catalog) -> None:
    said: list[tuple[object, ...]] = []
    migrate.upgrade(made, "0007")
    versions = [{"dataset_id": 1, "version_number": 100 + number, "parent_version_id": 1} for number in range(6000)]
    insert = "INSERT INTO dataset_versions (dataset_id, version_number, parent_version_id) VALUES "
    support.execute(made, f"{insert} (:dataset_id, :version_number, :parent_version_id)", versions)
    migrate.upgrade(made, progress=lambda *values: said.append(values))
    assert said == [("revision 0008: versions", 5000, 6003)]


def alembic(catalog: Catalog, *arguments: str) -> str:
    """What Alembic itself prints, as a user starts it."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "alembic", "-c", str(migrate.scripts() / "alembic.ini")),
            *("-x", f"catalog={catalog.url.render_as_string(hide_password=False)}", *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=SAFETY,
        check=False,
    )
    return done.stdout + done.stderr


def test_alembic_itself_works_on_a_catalog(catalog: Catalog) -> None:
    assert HEAD not in alembic(catalog, "current")
    alembic(catalog, "upgrade", "0014")
    assert catalog.revision() == "0014"
    alembic(catalog, "upgrade", "head")
    assert f"{HEAD} (head)" in alembic(catalog, "current")
    assert "No new upgrade operations detected" in alembic(catalog, "check")
    assert "0001 -> 0002" in alembic(catalog, "history")
    assert "db upgrade --sql" in alembic(catalog, "upgrade", "head", "--sql").replace("\n", " ")
    migrate.check(catalog)


def test_alembic_itself_makes_no_second_baseline(made: Catalog) -> None:
    assert "Take it over with: dataset-registry db upgrade" in alembic(made, "upgrade", "head")
    assert made.revision() is None


# --- the documentation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_the_session_of_the_documentation_takes_over_a_baseline_in_public(catalog: Catalog, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    session = page.partition("## Taking over an existing catalog")[2].partition("```sh\n")[2].partition("```")[0]
    url = catalog.url.render_as_string(hide_password=False)
    public = Catalog(f"{url}?schema=public")
    support.run_script(public, support.HAND_MADE_TABLES, tmp_path)
    support.run_script(public, _ROWS, tmp_path)
    public.close()
    (tmp_path / "x.csv").write_bytes(CONTENT["raw/b", 1])
    done = subprocess.run(
        ["sh", "-ec", session.replace("/srv/registry", str(tmp_path))],
        env={**os.environ, "BASELINE": url, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SAFETY,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "CREATE TABLE manifest_pages" in (tmp_path / "review.sql").read_text()
    for words in ("no tables -> ", "as this package expects it", "2 files adopted", "raw/a", "raw/b"):
        assert words in done.stdout
    with Registry.open(catalog=f"{url}?schema=public", store=str(tmp_path / "store")) as registry:
        assert contents(registry) == CONTENT


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "query",
    [
        "dataset_version_files WHERE version_id = 1",
        "dataset_version_files WHERE file_id = 1",
        "dataset_schema_versions WHERE dataset_version_id = 1",
        "file_info WHERE id = 1",
    ],
)
def test_the_views_answer_by_index(made: Catalog, query: str) -> None:
    migrate.upgrade(made)
    plan = [row[3] for row in support.query(made, f"EXPLAIN QUERY PLAN SELECT * FROM {query}")]
    assert not [step for step in plan if step.startswith("SCAN") and step not in ("SCAN d", "SCAN (subquery-4)")]
