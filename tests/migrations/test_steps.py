"""Every revision up and down, with rows in the tables, on both databases."""

import re
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.catalog.engine import HEAD, REVISION_TABLE
from dataset_registry.catalog.tables import metadata
from dataset_registry.errors import CatalogOutdated, DowngradeRefused, MigrationRefused
from tests.migrations import support
from tests.migrations.conftest import Small

# What original-ddl.sql adds, by the revision that adds it: table, columns, indexes.
ORIGINAL_DDL = {
    "0001": [
        ("users", {"id", "username"}, set()),
        ("datasets", {"id", "name"}, set()),
        (
            "files",
            {"id", "storage_type", "file_type", "mime_type", "file_data", "file_path", "file_size", "created_at"},
            set(),
        ),
        (
            "dataset_versions",
            {"id", "dataset_id", "version_number", "ingestion_timestamp", "last_updated_timestamp", "uploaded_by"},
            set(),
        ),
    ],
    "0002": [
        ("files", {"content_hash", "reference_count", "compression_type", "metadata"}, {"idx_files_content_hash"})
    ],
    "0003": [
        ("dataset_versions", {"parent_version_id", "message", "overlay_file_id"}, {"idx_dataset_versions_parent"})
    ],
    "0004": [
        (
            "dataset_schema_versions",
            {"id", "dataset_version_id", "schema_json", "created_at"},
            {"idx_schema_versions_dataset"},
        )
    ],
    "0005": [
        (
            "dataset_version_files",
            {"version_id", "file_id", "component_type", "component_name", "component_index", "metadata"},
            {"idx_version_files_version"},
        )
    ],
    "0006": [
        (
            "dataset_pointers",
            {"id", "dataset_id", "pointer_name", "dataset_version_id", "is_tag", "created_at", "updated_at"},
            {"idx_pointers_dataset"},
        )
    ],
    "0007": [
        (
            "permissions",
            {"id", "resource_type", "resource_id", "user_id", "permission_type", "granted_at", "granted_by"},
            {"idx_permissions_lookup"},
        )
    ],
}
VIEWS = {"dataset_version_files", "dataset_schema_versions"}


def test_the_head_that_opening_compares_with_is_the_newest_script() -> None:
    assert support.REVISIONS[-1] == HEAD
    assert len(support.REVISIONS) >= 10


def test_names_of_the_original_design_exist_from_their_step_on(catalog: Catalog) -> None:
    wanted: dict[str, tuple[set[str], set[str]]] = {}
    for revision in support.REVISIONS:
        migrate.upgrade(catalog, revision)
        for table, columns, indexes in ORIGINAL_DDL.get(revision, ()):
            before = wanted.get(table, (set(), set()))
            wanted[table] = (before[0] | columns, before[1] | indexes)
        if revision == "0008":
            wanted["files"][0].remove("reference_count")
        if revision == "0016":
            wanted["files"][0].remove("metadata")

        for table, (columns, indexes) in wanted.items():
            assert support.columns(catalog, table) >= columns, (revision, table)
            if revision >= "0008" and table in VIEWS:
                assert table in support.views(catalog)
            else:
                assert table in support.tables(catalog)
                assert support.indexes(catalog, table).keys() >= indexes, (revision, table)
        if revision >= "0002":
            assert support.indexes(catalog, "files")["idx_files_content_hash"] is True
    assert "reference_count" not in support.columns(catalog, "files")
    assert support.columns(catalog, "file_info") >= {"id", "content_hash", "reference_count"}
    assert "file_id" not in support.columns(catalog, "dataset_versions")


def test_a_catalog_at_head_has_the_tables_that_the_package_describes(catalog: Catalog) -> None:
    migrate.upgrade(catalog)

    migrate.check(catalog)
    assert support.tables(catalog) - {REVISION_TABLE} == set(metadata.tables)


def test_a_difference_between_the_catalog_and_the_package_is_found(catalog: Catalog) -> None:
    migrate.upgrade(catalog)
    support.execute(catalog, "ALTER TABLE users ADD COLUMN nickname TEXT")  # of others: what we write does not need it
    migrate.check(catalog)
    support.execute(catalog, "ALTER TABLE users DROP COLUMN email")
    with pytest.raises(CatalogOutdated, match="the table users has lost its column email"):
        migrate.check(catalog)


def test_a_catalog_that_went_down_to_the_baseline_and_up_again_is_as_at_first(catalog: Catalog) -> None:
    migrate.upgrade(catalog)
    support.go_down(catalog, "0001")
    assert support.tables(catalog) - {REVISION_TABLE} == {
        "users",
        "datasets",
        "files",
        "dataset_versions",
    }
    assert support.views(catalog) == set()
    if not catalog.is_sqlite:
        assert support.query(catalog, "SELECT proname FROM pg_proc WHERE proname = 'guard_tags'") == []
    migrate.upgrade(catalog)

    migrate.check(catalog)
    assert catalog.revision() == HEAD


def test_an_empty_catalog_goes_down_to_nothing_and_comes_back(catalog: Catalog) -> None:
    migrate.upgrade(catalog)
    support.go_down(catalog, "base")
    assert support.tables(catalog) == {REVISION_TABLE}
    assert catalog.revision() is None
    migrate.upgrade(catalog)

    migrate.check(catalog)


@pytest.mark.parametrize("revision", support.REVISIONS[1:])
def test_every_revision_goes_up_and_down_and_up_with_rows_in_all_tables(
    catalog: Catalog, tmp_path: Path, revision: str
) -> None:
    before_it = support.REVISIONS[support.REVISIONS.index(revision) - 1]
    support.create_baseline(catalog)
    support.fill_baseline(catalog, tmp_path / "files", datasets=4)
    for step in support.REVISIONS[1 : support.REVISIONS.index(revision)]:
        migrate.upgrade(catalog, step)
        support.populate(catalog, step)
    migrate.upgrade(catalog, before_it)
    before = support.snapshot(catalog)
    empty = {name for name, rows in before.items() if not rows}
    left_out = {
        "file_parts",
        "version_parents",
        "protected_branches",
        "protected_branch_users",
        "registry_settings",
    }  # downgrades refuse these, or leave them
    assert empty <= left_out | {"audit_log", "audit_seals"}, "rows everywhere"

    migrate.upgrade(catalog, revision)
    up = support.snapshot(catalog)
    _assert_kept(
        before,
        up,
        dropped={"0005": {"file_id"}, "0008": {"reference_count"}, "0016": {"metadata"}}.get(revision, set()),
    )
    support.go_down(catalog, before_it)
    assert catalog.revision() == before_it
    down = support.snapshot(catalog)
    assert down.keys() == before.keys()
    assert _comparable(down) == _comparable(before)
    migrate.upgrade(catalog, revision)
    assert support.snapshot(catalog) == up

    support.populate(catalog, revision)
    if revision not in (
        "0005",
        "0014",
        "0015",
        "0016",
    ):  # whose rows come from the migration itself, or which adds no place for rows
        assert support.snapshot(catalog) != up
    support.go_down(catalog, before_it)
    expected = _comparable(before)
    assert _comparable(support.snapshot(catalog)) == expected
    migrate.upgrade(catalog, revision)
    assert support.snapshot(catalog) == up
    if revision == HEAD:
        migrate.check(catalog)


def _assert_kept(before: support.Rows, after: support.Rows, dropped: set[str]) -> None:
    """Every row of every table is there still; a view took the place of two tables at 0008."""
    for table, rows in before.items():
        if table not in after:
            assert table in VIEWS
            continue
        assert len(rows) == len(after[table]), table
        remaining = [{k: v for k, v in row.items() if k not in dropped} for row in rows]
        if table != "files" or "reference_count" not in dropped:
            assert support.kept({table: remaining}, after)[table] == sorted(remaining, key=repr), table


def _comparable(rows: support.Rows) -> support.Rows:
    """Schema snapshots are rows again after a downgrade, with other ids and with the components they are of."""
    if not rows.get("dataset_schema_versions"):
        return rows
    snapshots = []
    for row in rows["dataset_schema_versions"]:
        schema = re.sub(r", .components.: \[\[.data., 0(, [^]]*)?\]\]", "", str(row["schema_json"]).replace('"', "'"))
        snapshots.append({"version": row["dataset_version_id"], "schema": sorted(re.findall(r"\w+", schema))})
    return {**rows, "dataset_schema_versions": sorted(snapshots, key=repr)}


def test_upgrading_everything_at_once_gives_what_the_steps_one_by_one_give(catalog: Catalog, tmp_path: Path) -> None:
    support.create_baseline(catalog)
    support.fill_baseline(catalog, tmp_path / "files", datasets=4)
    migrate.upgrade(catalog)
    at_once = support.snapshot(catalog)
    support.go_down(catalog, "0001")
    for revision in support.REVISIONS[1:]:
        migrate.upgrade(catalog, revision)

    assert support.snapshot(catalog) == at_once


def test_counts_are_those_of_the_versions_that_name_a_file_at_every_revision(catalog: Catalog, tmp_path: Path) -> None:
    support.create_baseline(catalog)
    support.fill_baseline(catalog, tmp_path / "files", datasets=6)
    expected = support.query(
        catalog,
        "SELECT f.id, count(v.id) FROM files f LEFT JOIN dataset_versions v ON v.file_id = f.id GROUP BY f.id ORDER BY f.id",
    )
    assert {count for _, count in expected} >= {1, 2}
    for revision in support.REVISIONS[1:]:
        migrate.upgrade(catalog, revision)
        table = "files" if revision < "0008" else "file_info"
        assert support.query(catalog, f"SELECT id, reference_count FROM {table} ORDER BY id") == expected, revision
    support.go_down(catalog, "0007")
    assert support.query(catalog, "SELECT id, reference_count FROM files ORDER BY id") == expected


def test_ids_are_never_given_again_after_a_table_was_rebuilt(catalog: Catalog) -> None:
    """Batch migrations make a new table on SQLite: it must keep AUTOINCREMENT, as catalog/tables.py declares it."""
    migrate.upgrade(catalog)
    if not catalog.is_sqlite:
        for table in ("datasets", "files", "dataset_versions"):
            assert support.query(catalog, f"SELECT pg_get_serial_sequence('{table}', 'id')")[0][0] is not None
        return
    declared = {
        table.name for table in metadata.tables.values() if table.dialect_options["sqlite"]["autoincrement"] is True
    }
    assert {"datasets", "files", "dataset_versions"} <= declared
    for direction in ("up", "down and up"):
        if direction != "up":
            support.go_down(catalog, "0001")
            migrate.upgrade(catalog)
        made = dict(support.query(catalog, "SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        assert [name for name in sorted(declared) if "AUTOINCREMENT" not in made[name].upper()] == [], direction


def test_the_id_of_a_deleted_dataset_is_not_given_to_a_new_one_after_an_upgrade(small: Small) -> None:
    """Names of deleted tags are kept by dataset id: a second dataset of that id would inherit them."""
    file = support.add_file(small.catalog, support.File(b"x", "binary"))
    support.insert(small.catalog, "datasets", name="a")
    deleted = support.add_dataset(small.catalog, "b", {1: file})
    support.execute(small.catalog, "DELETE FROM dataset_versions")
    support.execute(small.catalog, "DELETE FROM files")
    support.execute(small.catalog, "DELETE FROM datasets WHERE name = 'b'")
    with small.upgrade() as registry:
        assert registry.create_dataset("d").id > deleted
        registry.dataset("d").commit({"data": b"y"})
    for table in ("dataset_versions", "files"):
        assert support.query(small.catalog, f"SELECT min(id) FROM {table}")[0][0] > 1, table


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
def test_rows_that_name_rows_which_do_not_exist_stop_an_upgrade_and_nothing_changes(
    small: Small,
) -> None:
    """SQLite checks no references unless it is asked to: existing catalogs may have dangling ones."""
    catalog = small.catalog
    support.add_dataset(catalog, "a", {1: support.add_file(catalog, support.File(b"x", "binary"))})
    with catalog.writer.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("PRAGMA foreign_keys=OFF")
        raw.execute("UPDATE dataset_versions SET uploaded_by = 77")
        raw.execute("PRAGMA foreign_keys=ON")
    before = support.snapshot(catalog)

    with pytest.raises(MigrationRefused, match=r"dataset_versions whose uploaded_by is not a row of users: \(1, 77\)"):
        migrate.upgrade(catalog)
    assert support.snapshot(catalog) == before
    assert support.tables(catalog) == {"users", "datasets", "files", "dataset_versions"}
    assert support.query(catalog, "PRAGMA foreign_keys") == [(1,)]


# --- what users made at head, down and up --------------------------------------------------------------------------


def test_versions_made_at_head_survive_a_downgrade_to_0005_and_an_upgrade(registry: Registry, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(support.csv_bytes(3))
    dataset = registry.create_dataset("raw/flights")
    dataset.commit({"data": table}, message="first")
    with dataset.draft(message="second") as draft:
        draft.add("notes", b"some notes", metadata={"kind": "note", "float": -0.0, "big": 1e22})
        draft.add("data", table, index=1)
    dataset.create_branch("dev", "v1")
    dataset.commit({"more": b"on dev"}, branch="dev", message="third")
    catalog = registry.access.catalog
    facts = [(v.number, v.digest, v.parents, v.depth, v.message, v.component_count) for v in dataset.tree()]
    schemas = {v.number: v.schema.distinct() for v in dataset.tree()}
    assert schemas[1]
    for revision in ("0007", "0005"):
        support.go_down(catalog, revision)
        migrate.upgrade(catalog)
        migrate.check(catalog)

        dataset = registry.dataset("raw/flights")
        tree = dataset.tree()
        assert [(v.number, v.digest, v.parents, v.depth, v.message, v.component_count) for v in tree] == facts
        assert {v.number: v.schema.distinct() for v in tree} == schemas
        assert support.content(dataset.version("v2"), "notes") == b"some notes"
        assert support.content(dataset.version("v2"), "data", 1) == support.csv_bytes(3)
        assert next(c for c in dataset.version("v2").components if c.name == "notes").metadata["kind"] == "note"
    assert dataset.commit({"data": b"new"}).number == 4


def test_statistics_survive_a_downgrade_below_0008_and_an_upgrade_or_it_refuses(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_bytes(support.csv_bytes(3))
    version = registry.create_dataset("a").commit({"data": tmp_path / "table.csv"})
    before = version.schema
    with suppress(DowngradeRefused):
        migrate.downgrade(registry.access.catalog, "0007")
    migrate.upgrade(registry.access.catalog)

    assert registry.dataset("a").version("v1").schema == before


def test_one_content_read_as_two_formats_keeps_both_over_a_downgrade_or_it_refuses(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_bytes(support.csv_bytes(3))
    table = registry.create_dataset("table").commit({"data": tmp_path / "table.csv"})
    plain = registry.create_dataset("plain").commit({"data": support.csv_bytes(3)})
    assert table.components[0].content_hash == plain.components[0].content_hash
    assert table.digest != plain.digest
    with suppress(DowngradeRefused):
        migrate.downgrade(registry.access.catalog, "0007")
    migrate.upgrade(registry.access.catalog)

    for name, before in (("table", table), ("plain", plain)):
        after = registry.dataset(name).version("v1")
        assert (after.components[0].format, after.digest) == (before.components[0].format, before.digest), name


def test_a_table_whose_versions_are_deleted_can_be_committed_again_after_a_downgrade(registry: Registry) -> None:
    rows = pa.table({"x": [1, 2, 3]})
    dataset = registry.create_dataset("a")
    dataset.commit({"data": rows})
    dataset.delete()
    catalog = registry.access.catalog
    support.go_down(catalog, "0007")
    migrate.upgrade(catalog)

    version = registry.create_dataset("b").commit({"data": rows})
    assert version.to_arrow().equals(rows)
