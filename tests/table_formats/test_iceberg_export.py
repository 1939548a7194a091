"""Versions exported into a catalog of the user: snapshots over the stored files."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from dataset_registry import Dataset, Registry
from dataset_registry.errors import InputError, InUse, PermissionDenied
from dataset_registry.table_formats.iceberg_export import Exported, export_iceberg
from tests.serving import Served
from tests.table_formats.conftest import MANY, kinds
from tests.table_formats.test_readers import assert_equal


@pytest.fixture
def catalog(tmp_path: Path) -> SqlCatalog:
    """A catalog of the user, in a folder."""
    (tmp_path / "warehouse").mkdir()
    return SqlCatalog("mine", uri=f"sqlite:///{tmp_path}/iceberg.db", warehouse=f"file://{tmp_path}/warehouse")


def _many() -> pa.Table:
    return pa.table({"id": range(MANY), "text": [f"{n % 977:0200}" for n in range(MANY)]})


@pytest.fixture
def many(embedded: Registry) -> Dataset:
    """A dataset with a table in many parts."""
    found = embedded.create_dataset("raw/many")
    found.commit({"data": _many()}, key="id")
    return found


@pytest.mark.objects
def test_an_exported_version_is_read_from_the_store(embedded: Registry, catalog: SqlCatalog, tmp_path: Path) -> None:
    table = kinds(1000)
    version = embedded.create_dataset("raw/kinds").commit({"data": table}, key="id")
    export_iceberg(version, catalog, "raw.kinds")
    assert_equal(catalog.load_table("raw.kinds").scan().to_arrow(), table)
    assert not list((tmp_path / "warehouse").rglob("*.parquet"))


def test_a_change_of_a_part_is_a_snapshot_that_keeps_the_other_parts(
    many: Dataset, catalog: SqlCatalog, tmp_path: Path
) -> None:
    first = export_iceberg(many.version(), catalog, "raw.many")
    assert (first.removed, first.kept, first.tag) == (0, 0, "iceberg/raw.many/v1")
    many.delete_rows(where="id = 20000")
    second = export_iceberg(many.version(), catalog, "raw.many")
    assert (second.added, second.removed, second.kept) == (1, 1, first.added - 1)
    assert second.written <= max(file.size for file in many.version().files())
    assert not list((tmp_path / "warehouse").rglob("*.parquet"))
    table = catalog.load_table("raw.many")
    assert table.scan().to_arrow().num_rows == MANY - 1
    assert table.scan(snapshot_id=first.snapshot_id).to_arrow().num_rows == MANY
    summary = table.snapshots()[-1].summary
    assert summary is not None
    assert summary["registry.version"] == "2"
    assert summary["registry.digest"] == many.version().digest


def test_files_without_an_object_get_one_once(embedded: Registry, catalog: SqlCatalog) -> None:
    """A small table is in the catalog; a part that shares ranges with another one is a recipe."""
    small = embedded.create_dataset("raw/small").commit({"data": pa.table({"id": [1, 2]})})
    exported = export_iceberg(small, catalog, "raw.small")
    assert exported.written == sum(file.size for file in small.files()) > 0
    assert export_iceberg(small, catalog, "other.small").written == 0
    assert catalog.load_table("raw.small").scan().to_arrow().to_pydict() == {"id": [1, 2]}
    assert small.to_arrow().to_pydict() == {"id": [1, 2]}

    wide = pa.table({"id": range(MANY), "text": [f"{n * 7919 % MANY:0200}" for n in range(MANY)]})
    dataset = embedded.create_dataset("raw/wide")
    dataset.commit({"data": wide}, key="id")
    version = dataset.commit({"data": wide.append_column("more", pa.array(range(MANY)))}, key="id")
    assert "ranges" in {file.file.form for file in version.files()}
    assert export_iceberg(version, catalog, "raw.wide").written > 0
    assert {file.file.form for file in version.files()} == {"whole"}
    assert_equal(catalog.load_table("raw.wide").scan().to_arrow(), version.to_arrow().sort_by("id"))
    assert not embedded.verify(deep=True).findings
    embedded.collect()
    assert_equal(catalog.load_table("raw.wide").scan().to_arrow(), version.to_arrow().sort_by("id"))


def test_an_exported_version_is_kept_until_its_tag_is_deleted(many: Dataset, catalog: SqlCatalog) -> None:
    exported = export_iceberg(many.version(), catalog, "raw.many")
    many.commit({"data": _many().slice(0, 10)}, key="id")
    with pytest.raises(InUse):
        many.delete_version("v1")
    assert many.version(str(exported.tag)).number == 1


def test_an_export_twice_changes_nothing(many: Dataset, catalog: SqlCatalog) -> None:
    first = export_iceberg(many.version(), catalog, "raw.many")
    again = export_iceberg(many.version(), catalog, "raw.many")
    assert again == Exported(first.snapshot_id, 0, 0, first.added, 0, first.tag)
    assert len(catalog.load_table("raw.many").snapshots()) == 1


def test_an_older_version_can_be_exported_again(many: Dataset, catalog: SqlCatalog) -> None:
    for ref in ("v1", "v2", "v1"):
        if ref == "v2":
            many.delete_rows(where="id < 10")
        export_iceberg(many.version(ref), catalog, "raw.many")
    assert catalog.load_table("raw.many").scan().to_arrow().num_rows == MANY
    assert len(catalog.load_table("raw.many").snapshots()) == 3


def test_columns_are_added_removed_and_widened(embedded: Registry, catalog: SqlCatalog) -> None:
    dataset = embedded.create_dataset("raw/evolving")
    tables = (
        pa.table({"id": pa.array([1], pa.int32()), "gone": ["x"], "s": [{"a": 1}]}),
        pa.table({"id": pa.array([1 << 40], pa.int64()), "s": [{"a": 1, "b": "y"}], "new": [2.5]}),
    )
    found = []
    for table in tables:
        found.append(export_iceberg(dataset.commit({"data": table}), catalog, "raw.evolving"))
    exported = catalog.load_table("raw.evolving")
    for table, snapshot in zip(tables, found, strict=True):
        read = exported.scan(snapshot_id=snapshot.snapshot_id).to_arrow()
        assert read.to_pylist() == table.to_pylist()


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ([{"a": pa.array([1])}, {"a": pa.array(["x"])}], "as long and as string"),
        (
            [{"a": pa.array([1]), "b": pa.array([1])}, {"a": pa.array([1])}, {"a": pa.array([1]), "b": pa.array([2])}],
            "earlier",
        ),
        ([{"a": pa.array([1], pa.uint64())}], "which Iceberg does not have"),
    ],
    ids=["another type", "a column that comes back", "a type that Iceberg lacks"],
)
def test_what_readers_would_mix_up_is_refused(
    tables: list[dict[str, pa.Array]], reason: str, embedded: Registry, catalog: SqlCatalog
) -> None:
    dataset = embedded.create_dataset("raw/columns")
    *before, last = [dataset.commit({"data": pa.table(table)}) for table in tables]
    for version in before:
        export_iceberg(version, catalog, "raw.columns")
    with pytest.raises(InputError, match=reason):
        export_iceberg(last, catalog, "raw.columns")
    assert f"iceberg/raw.columns/v{last.number}" not in {tag.name for tag in dataset.tags()}


def test_a_table_of_others_is_not_touched(many: Dataset, catalog: SqlCatalog, embedded: Registry) -> None:
    catalog.create_namespace("raw")
    catalog.create_table("raw.theirs", pa.schema([("id", pa.int64())]))
    with pytest.raises(InputError, match="not made by an export"):
        export_iceberg(many.version(), catalog, "raw.theirs")
    export_iceberg(many.version(), catalog, "raw.many")
    other = embedded.create_dataset("raw/other").commit({"data": pa.table({"id": [1], "text": ["x"]})})
    with pytest.raises(InputError, match="not made by an export"):
        export_iceberg(other, catalog, "raw.many")
    catalog.load_table("raw.many").append(pa.table({"id": [-1], "text": ["theirs"]}))
    many.delete_rows(where="id < 10")
    with pytest.raises(InputError, match="changed by others"):
        export_iceberg(many.version(), catalog, "raw.many")
    assert catalog.load_table("raw.many").scan().to_arrow().num_rows == MANY + 1


def test_the_same_rows_in_two_files_are_refused_by_an_export_and_read_from_the_server(
    served: Served, catalog: SqlCatalog
) -> None:
    """A table of Iceberg has an address once."""
    from pyiceberg.catalog.rest import RestCatalog

    equal = pa.table({"id": [1, 2]})
    version = served.owner.create_dataset("raw/equal").commit({"one": equal, "two": equal})
    with pytest.raises(InputError, match="same rows twice"):
        export_iceberg(version, catalog, "raw.equal")
    served.owner.create_user("admin", role="administrator")
    rest = RestCatalog("registry", uri=f"{served.url}/iceberg", token=served.token("admin"))
    table = rest.load_table("raw.equal")
    assert sorted(table.scan().to_arrow()["id"].to_pylist()) == [1, 1, 2, 2]
    addresses = [task.file.file_path for task in table.scan().plan_files()]
    assert len(set(addresses)) == 2


def test_a_reader_exports_without_a_tag(many: Dataset, catalog: SqlCatalog, embedded: Registry, tmp_path: Path) -> None:
    embedded.create_user(embedded.actor, role="administrator")
    embedded.create_user("reader")
    embedded.grant("reader", "read", "raw/many")
    with Registry.open(
        catalog=embedded.access.catalog.address, store=str(tmp_path / "store"), actor="reader"
    ) as theirs:  # type: ignore[attr-defined]
        version = theirs.version("raw/many")
        with pytest.raises(PermissionDenied):
            export_iceberg(version, catalog, "raw.many")
        assert export_iceberg(version, catalog, "raw.many", keep=False).tag is None


def test_a_remote_registry_exports_nothing(served: Served, catalog: SqlCatalog) -> None:
    served.owner.create_dataset("raw/x").commit({"data": pa.table({"id": [1]})})
    with pytest.raises(InputError, match="opened with its store"):
        export_iceberg(served.registry().version("raw/x"), catalog, "raw.x")


def test_a_table_is_that_of_one_dataset_and_one_component(embedded: Registry, catalog: SqlCatalog) -> None:
    """A dataset that was deleted and created again begins with version 1 again."""
    dataset = embedded.create_dataset("raw/x")
    export_iceberg(dataset.commit({"data": pa.table({"id": [1]})}), catalog, "raw.x")
    dataset.delete()
    again = embedded.create_dataset("raw/x").commit({"data": pa.table({"id": [999]})})
    with pytest.raises(InputError, match="not made by an export"):
        export_iceberg(again, catalog, "raw.x")
    both = embedded.create_dataset("raw/both").commit({"a": pa.table({"id": [1]}), "b": pa.table({"id": [2]})})
    export_iceberg(both, catalog, "raw.a", component="a")
    for component in ("b", None):
        with pytest.raises(InputError, match="not made by an export"):
            export_iceberg(both, catalog, "raw.a", component=component)
    export_iceberg(both, catalog, "raw.both")
    assert sorted(catalog.load_table("raw.both").scan().to_arrow()["id"].to_pylist()) == [1, 2]


def test_a_version_is_exported_again_after_its_tag_was_deleted(many: Dataset, catalog: SqlCatalog) -> None:
    first = export_iceberg(many.version(), catalog, "raw.many")
    many.delete_tag(str(first.tag))
    again = export_iceberg(many.version(), catalog, "raw.many")
    assert again.tag == "iceberg/raw.many/v1-2"
    assert export_iceberg(many.version(), catalog, "raw.many").tag == "iceberg/raw.many/v1-2"


def test_any_name_of_a_table_is_part_of_a_tag(many: Dataset, catalog: SqlCatalog) -> None:
    assert export_iceberg(many.version(), catalog, ("raw", "my table")).tag == "iceberg/raw.my-table/v1"
