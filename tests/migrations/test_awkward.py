"""Existing catalogs with what others built around them: nothing of theirs is lost or changed by a migration or an adoption."""

from pathlib import Path

import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.catalog import legacy, migrate
from dataset_registry.errors import CorruptionError, DowngradeRefused, MigrationRefused
from dataset_registry.operations import adopt as adoption
from tests.migrations import support
from tests.migrations.conftest import Small

REBUILT = "DROP TABLE datasets; CREATE TABLE datasets (id INTEGER PRIMARY KEY, name TEXT {}, description TEXT, created_at TEXT)"

# --- names that are taken --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("ALTER TABLE dataset_versions ADD COLUMN message TEXT", "dataset_versions.message"),
        ("ALTER TABLE dataset_versions ADD COLUMN uuid TEXT", "dataset_versions.uuid"),
        ("ALTER TABLE datasets ADD COLUMN created_by TEXT", "datasets.created_by"),
        ("ALTER TABLE files ADD COLUMN metadata TEXT", "files.metadata"),
        ("ALTER TABLE users ADD COLUMN role TEXT", "users.role"),
        ("CREATE TABLE audit_log (id INT)", "audit_log"),
        ("CREATE TABLE registry_settings (id INT)", "registry_settings"),
        ("CREATE VIEW file_info AS SELECT 1 AS one", "file_info"),
    ],
)
def test_a_name_that_a_revision_needs_is_named_before_anything_is_changed(
    small: Small, statement: str, named: str
) -> None:
    support.execute(small.catalog, statement)
    before = support.snapshot(small.catalog)
    with pytest.raises(MigrationRefused, match=rf"names that the registry needs: {named}\. "):
        migrate.upgrade(small.catalog)
    assert support.snapshot(small.catalog) == before


# --- SQLite rebuilds tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE VIEW years AS SELECT strftime('%Y', created_at) AS y FROM datasets"],
        ["CREATE INDEX mine ON files (file_path) WHERE file_path LIKE 'a%'"],
        ['CREATE VIEW "a ""quoted"" one" AS SELECT id FROM users'],
        ["CREATE VIEW one AS SELECT id FROM users", "CREATE VIEW two AS SELECT id FROM one"],
        [
            "CREATE VIEW names AS SELECT id, name FROM datasets",
            "CREATE TRIGGER rename INSTEAD OF UPDATE ON names BEGIN SELECT 1; END",
        ],
        ["CREATE TRIGGER mine AFTER INSERT ON Dataset_Versions BEGIN SELECT NEW.version_number; END"],
        [
            "CREATE TABLE notes (t TEXT)",
            "CREATE TRIGGER mine AFTER INSERT ON notes BEGIN DELETE FROM files WHERE id = -1; END",
        ],
    ],
)
def test_views_triggers_and_indexes_of_others_stay_to_the_letter(small: Small, statements: list[str]) -> None:
    for statement in statements:
        support.execute(small.catalog, statement)
    query = "SELECT name, sql FROM sqlite_master WHERE type IN ('view', 'trigger', 'index') AND sql IN ({})"
    listed = ", ".join("'" + statement.replace("'", "''") + "'" for statement in statements)
    before = support.query(small.catalog, query.format(listed))
    assert before
    support.add_file_row(small.catalog, "a", file_data=b"data")
    with small.upgrade() as registry:
        assert support.query(small.catalog, query.format(listed)) == before
        registry.adopt()
        registry.dataset("a").commit({"data": b"new"})
    support.go_down(small.catalog, "0001")
    assert support.query(small.catalog, query.format(listed)) == before


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE TRIGGER mine AFTER INSERT ON dataset_versions BEGIN SELECT NEW.file_id; END", "mine"),
        ("CREATE TRIGGER mine AFTER UPDATE OF file_id ON dataset_versions BEGIN SELECT 1; END", "mine"),
        ("CREATE VIEW mine AS SELECT file_id FROM dataset_versions", "mine"),
        (REBUILT.format("CHECK (name <> '')"), "CHECK"),
        (REBUILT.format("COLLATE NOCASE"), "COLLATE"),
    ],
)
def test_what_the_new_tables_cannot_have_is_named(small: Small, statement: str, named: str) -> None:
    for part in [statement] if "BEGIN" in statement else statement.split("; "):
        support.execute(small.catalog, part)
    with pytest.raises(MigrationRefused, match=named):
        migrate.upgrade(small.catalog)
    assert small.catalog.revision() is None


# --- adoption --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["", " ON DELETE CASCADE", " ON DELETE SET NULL"])
def test_rows_of_others_follow_a_duplicate_to_the_file_that_stays(small: Small, action: str) -> None:
    kept = support.add_file_row(small.catalog, "a", file_data=b"same")
    gone = support.add_file_row(small.catalog, "b", file_data=b"same")
    support.execute(small.catalog, f"CREATE TABLE notes (id INT, file_id INT REFERENCES files(id){action})")
    support.execute(small.catalog, f"INSERT INTO notes VALUES (1, {gone})")
    with small.upgrade() as registry:
        assert registry.adopt().duplicates == 1
    assert support.query(small.catalog, "SELECT id, file_id FROM notes") == [(1, kept)]


def test_what_another_adoption_has_adopted_is_not_given_up(small: Small) -> None:
    number = support.add_file_row(
        small.catalog, "a", storage_type="file", file_path=str(small.folder / "gone"), file_data=b"data"
    )
    with small.upgrade() as registry:
        with registry.access.catalog.read() as tx:
            (waiting,) = legacy.waiting(tx)
        support.execute(small.catalog, "UPDATE files SET storage_type = 'database'")
        assert registry.adopt().files == 1
        registry.access.catalog.write(lambda tx: adoption._give_up(registry.access, waiting, "late", tx))
        assert support.content(registry.version("a")) == b"data"
        assert registry.verify(deep=True).findings == ()
        assert registry.adopt(dry_run=True).inline == 0
    assert number == 1


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
def test_rows_of_other_types_are_adopted_or_reported(small: Small) -> None:
    support.add_file_row(small.catalog, "text", file_data="text")
    support.add_file_row(small.catalog, "size", file_data=b"size", file_size="unknown")
    support.add_file_row(small.catalog, "negative", file_data=b"negative", file_size=-1)
    with small.upgrade() as registry:
        registry.adopt(dry_run=True)
        assert registry.adopt().failed == {}
        for name in ("text", "size", "negative"):
            assert support.content(registry.version(name)) == name.encode()


@pytest.mark.parametrize("storage_type", ["database", "store", "filesystem"])
def test_an_adopted_file_keeps_its_object_on_the_way_down_and_up(small: Small, storage_type: str) -> None:
    path = small.folder / "upload.bin"
    path.write_bytes(b"data")
    inline = {"file_data": b"data"} if storage_type == "database" else {}
    support.add_file_row(
        small.catalog, "a", storage_type=storage_type, file_path="upload.bin" if inline else str(path), **inline
    )
    support.add_file_row(small.catalog, "b", file_data=b"else")
    with small.upgrade() as registry:
        assert registry.adopt().failed == {}
        for revision in ("0007", "0005", "0002"):
            support.go_down(small.catalog, revision)
            migrate.upgrade(small.catalog)
            assert support.content(registry.version("a")) == b"data"
            assert support.content(registry.version("b")) == b"else"
            assert registry.verify(deep=True).damage == ()
        support.go_down(small.catalog, "0001")
        migrate.upgrade(small.catalog)
        assert support.content(registry.version("b")) == b"else", "what only the store has is read from there"
        assert registry.adopt().files >= 1
        assert support.content(registry.version("b")) == b"else"


# --- what goes with versions -----------------------------------------------------------------------------------------


def test_everything_that_goes_with_a_version_is_named_and_exported(registry: Registry) -> None:
    flights = registry.create_dataset("raw/flights")
    flights.commit({"data": b"1"})
    flights.create_branch("side")
    flights.commit({"data": pa.table({"x": [1, 2]}), "notes": b"notes"}, branch="side")
    flights.create_tag("final", "side")
    flights.commit({"data": b"3"})
    flights.commit({"data": b"4"}, parents=["main", "side"])
    with pytest.raises(DowngradeRefused) as refusal:
        migrate.downgrade(registry.access.catalog, "0007")
    losses = {loss["what"]: loss["rows"] for loss in refusal.value.fields["losses"]}  # type: ignore[attr-defined]
    assert losses["branches and tags of versions that go"] == 2
    assert losses["components of versions that go"] == 2
    assert losses["second parents that are others of versions that go"] == 1
    assert sum(rows for what, rows in losses.items() if what.startswith("productions of versions")) >= 1


def test_a_given_up_file_is_named_by_a_copy(small: Small, tmp_path: Path) -> None:
    number = support.add_file_row(small.catalog, "a", storage_type="filesystem", file_path=str(small.folder / "gone"))
    with small.upgrade() as registry:
        registry.adopt(give_up=[number])
        with Registry.open(tmp_path / "copy") as copy, pytest.raises(CorruptionError, match="given up by"):
            registry.copy_to(copy)
