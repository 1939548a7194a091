"""Readers of other projects get from the server's Iceberg catalog, Delta tables and bucket what the registry itself reads."""

import math
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError, RESTError

from dataset_registry.table_formats import iceberg_tables
from tests import serving
from tests.serving import Served
from tests.table_formats.conftest import MANY, Read

OTHERS = (
    "duckdb_catalog",
    "duckdb_iceberg_scan",
    "duckdb_parquet",
    "duckdb_delta_scan",
    "deltalake",
    "polars_delta",
    "pyarrow",
)
_REFUSED = r"Method Not Allowed|not supported|not support endpoint"
REFS = ("main", "v1", "v2", "1.0", "dev")


def _plain(value: Any) -> Any:
    """A value as equality compares it: NaN is itself, -0.0 is not 0.0, the pairs of a map are a list."""
    if isinstance(value, float):
        return ("nan",) if math.isnan(value) else (value, math.copysign(1, value))
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def assert_equal(found: pa.Table | str, expected: pa.Table) -> None:
    """Whether a table has the columns and values of another, in types that may be wider, its rows in any order."""
    assert not isinstance(found, str), found
    assert found.column_names == expected.column_names
    found = found.sort_by("id")
    for name in expected.column_names:
        read = found[name]
        if pa.types.is_timestamp(expected[name].type) and expected[name].type.tz is not None:
            assert read.type.tz is not None, name
        values = _plain(read.to_pylist())
        assert values == _plain(expected[name].to_pylist()), name


def _expected(tables: Served, dataset: str, ref: str) -> pa.Table:
    return tables.owner.version(f"{dataset}@{ref}").to_arrow().sort_by("id")


@pytest.fixture(scope="module")
def catalog(tables: Served) -> RestCatalog:
    return RestCatalog("registry", uri=f"{tables.url}/iceberg", token=tables.token("reader", permission="read"))


@pytest.fixture(scope="module")
def answers(read: Read) -> dict[tuple[str, str, str], pa.Table | str]:
    """What the readers of the other environment read, in one process."""
    tasks = [(reader, "raw/kinds", ref) for reader in OTHERS for ref in REFS]
    tasks += [(reader, "raw/days", "main") for reader in OTHERS]
    tasks += [(reader, "raw/times", "main") for reader in OTHERS]
    tasks += [(reader, "plain", "main") for reader in OTHERS if reader != "duckdb_iceberg_scan"]
    tasks += [(reader, "secret/table", "main") for reader in OTHERS if reader != "duckdb_iceberg_scan"]
    return dict(zip(tasks, read(tasks), strict=True))


@pytest.mark.parametrize("ref", REFS)
@pytest.mark.parametrize("reader", OTHERS)
def test_a_reader_gets_every_type_of_a_branch_a_tag_and_an_old_version(
    reader: str, ref: str, tables: Served, answers: dict[tuple[str, str, str], pa.Table | str]
) -> None:
    assert_equal(answers[reader, "raw/kinds", ref], _expected(tables, "raw/kinds", ref))


@pytest.mark.parametrize("reader", OTHERS)
def test_partitions_are_one_table(
    reader: str, tables: Served, answers: dict[tuple[str, str, str], pa.Table | str]
) -> None:
    """The last partition has the ids in a narrower type."""
    found = answers[reader, "raw/days", "main"]
    assert_equal(found, _expected(tables, "raw/days", "main"))


@pytest.mark.parametrize("reader", OTHERS)
def test_times_and_zones_are_read_or_refused(
    reader: str, tables: Served, answers: dict[tuple[str, str, str], pa.Table | str]
) -> None:
    """Delta has no time of day."""
    found = answers[reader, "raw/times", "main"]
    if "delta" in reader:
        assert isinstance(found, str)
        assert "time64[us], which Delta does not have" in found
        return
    assert_equal(found, _expected(tables, "raw/times", "main"))


@pytest.mark.parametrize("reader", [reader for reader in OTHERS if reader != "duckdb_iceberg_scan"])
def test_a_reader_gets_what_its_token_may_read(
    reader: str, tables: Served, answers: dict[tuple[str, str, str], pa.Table | str]
) -> None:
    assert_equal(answers[reader, "plain", "main"], _expected(tables, "plain", "main"))
    assert isinstance(answers[reader, "secret/table", "main"], str)


@pytest.mark.parametrize("ref", REFS)
def test_pyiceberg_gets_every_type_of_a_branch_a_tag_and_an_old_version(
    ref: str, tables: Served, catalog: RestCatalog
) -> None:
    table = catalog.load_table("raw.kinds")
    if ref.startswith("v"):
        found = table.scan(snapshot_id=int(ref[1:])).to_arrow()
    elif ref == "dev":  # pyiceberg reads a branch with the columns of the table
        found = catalog.load_table("raw.kinds@dev").scan().to_arrow()
    else:
        found = table.scan().use_ref(ref).to_arrow()
    assert_equal(found, _expected(tables, "raw/kinds", ref))


def test_pyiceberg_skips_files_by_statistics(catalog: RestCatalog) -> None:
    table = catalog.load_table("raw.many")
    scan = table.scan(row_filter="id >= 10 and id < 20")
    assert scan.to_arrow()["id"].to_pylist() == list(range(10, 20))
    assert len(list(scan.plan_files())) < len(list(table.scan().plan_files()))


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("tiny is null", lambda row: row["tiny"] is None),
        ("day = '0001-01-01'", lambda row: row["id"] == 0),
        ("day > '9999-01-01'", lambda row: row["id"] == 1),
        ("u16 > 65530", lambda row: row["id"] < 5),
        ("int < -2147000000", lambda row: row["id"] == 0),
        ("text = ''", lambda row: row["text"] == ""),
        ("text >= 'Z'", lambda row: row["text"] is not None and row["text"].encode() >= b"Z"),
        ("instant >= '2026-06-20T07:30:00.123456+00:00'", lambda row: row["id"] >= 1999),
        ("price > 1997500000000", lambda row: row["id"] in (1998, 1999)),
        ("double > 1000.5", lambda row: row["double"] == float("inf")),
        ("yes = false", lambda row: row["yes"] is False),
    ],
)
def test_a_filter_of_pyiceberg_loses_no_row(filter: str, expected: Any, tables: Served, catalog: RestCatalog) -> None:
    """The bounds that the manifests give are true."""
    whole = _expected(tables, "raw/kinds", "main").to_pylist()
    found = catalog.load_table("raw.kinds").scan(row_filter=filter).to_arrow()["id"].to_pylist()
    assert sorted(found) == [row["id"] for row in whole if expected(row)]
    assert found


def test_snapshots_are_the_versions_with_their_parents_and_what_they_changed(catalog: RestCatalog) -> None:
    table = catalog.load_table("raw.kinds")
    assert [(s.snapshot_id, s.parent_snapshot_id) for s in table.snapshots()] == [(1, None), (2, 1), (3, 2), (4, 1)]
    assert {name: ref.snapshot_id for name, ref in table.refs().items()} == {"main": 3, "dev": 4, "1.0": 1}
    assert [entry.snapshot_id for entry in table.history()] == [1, 2, 3]
    (entries,) = [m for m in table.inspect.manifests().to_pylist() if m["existing_data_files_count"] == 0]
    assert entries["added_data_files_count"] > 0
    assert table.properties["gc.enabled"] == "false"
    assert table.properties["comment"] == "many types"


def test_a_change_of_a_row_adds_one_file_and_keeps_the_others(catalog: RestCatalog) -> None:
    """Version 2 lacks a row."""
    table = catalog.load_table("raw.many")
    current = table.current_snapshot()
    assert current is not None
    manifests = current.manifests(table.io)
    assert sum(manifest.added_files_count or 0 for manifest in manifests) == 1
    assert sum(manifest.deleted_files_count or 0 for manifest in manifests) == 1
    assert sum(manifest.existing_files_count or 0 for manifest in manifests) > 5
    rows = sum((m.added_rows_count or 0) + (m.existing_rows_count or 0) for m in manifests)
    assert rows == MANY - 1


def test_namespaces_are_the_folders_of_names_that_the_caller_may_read(catalog: RestCatalog) -> None:
    assert sorted(catalog.list_namespaces()) == [("default",), ("raw",)]
    names = ["csv", "days", "kinds", "many", "several", "times"]
    assert sorted(catalog.list_tables("raw")) == [("raw", name) for name in names]
    assert catalog.list_tables("default") == [("default", "plain")]
    assert catalog.table_exists("raw.kinds")
    for absent in ("raw.nothing", "secret.table", "nothing.at_all"):
        assert not catalog.table_exists(absent)
        with pytest.raises(NoSuchTableError):
            catalog.load_table(absent)


def test_a_dataset_of_several_tables_is_a_namespace_of_them(catalog: RestCatalog) -> None:
    assert catalog.load_table("raw.several.orders").scan().to_arrow().to_pydict() == {"id": [1, 2]}
    assert catalog.load_table("raw.several.lines").scan().to_arrow().to_pydict() == {"order": [1], "text": ["x"]}
    with pytest.raises(RESTError, match="several tables"):
        catalog.load_table("raw.several")


def test_what_iceberg_cannot_read_is_refused_with_the_way_out(tables: Served, catalog: RestCatalog) -> None:
    with pytest.raises(RESTError, match="stored as csv"):
        catalog.load_table("raw.csv")
    found = tables.owner.create_dataset("raw/large")
    tables.owner.grant("reader", "read", "raw/large")
    found.commit({"data": pa.table({"n": pa.array([1], pa.uint64())})})
    with pytest.raises(RESTError, match=r"'n' has the type uint64, which Iceberg does not have\. Commit it as int64"):
        catalog.load_table("raw.large")
    tables.owner.dataset("raw/large").delete()


def test_the_catalog_is_read_only(catalog: RestCatalog) -> None:
    with pytest.raises(Exception, match=_REFUSED):
        catalog.create_table("raw.new", pa.schema([("id", pa.int64())]))
    with pytest.raises(Exception, match=_REFUSED):
        catalog.drop_table("raw.kinds")
    with pytest.raises(Exception, match=_REFUSED):
        catalog.load_table("raw.kinds").append(pa.table({"id": [1]}))


def test_a_file_with_field_ids_of_another_table_is_refused(tables: Served, catalog: RestCatalog, tmp_path: Any) -> None:
    """Readers would take its ids for those of the table, and mix up its columns."""
    ids = [{b"PARQUET:field_id": b"2"}, {b"PARQUET:field_id": b"1"}]
    columns = [pa.field("a", pa.int64(), metadata=ids[0]), pa.field("b", pa.int64(), metadata=ids[1])]
    pq.write_table(pa.table({"a": [1], "b": [2]}, pa.schema(columns)), tmp_path / "ids.parquet")
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "plain.parquet")
    found = tables.owner.create_dataset("raw/delivered")
    tables.owner.grant("reader", "read", "raw/delivered")
    found.commit({"data": tmp_path / "ids.parquet"})
    with pytest.raises(RESTError, match="field ids of another table"):
        catalog.load_table("raw.delivered").scan().to_arrow()
    found.commit({"data": tmp_path / "plain.parquet"})
    assert catalog.load_table("raw.delivered").scan().to_arrow().to_pylist() == [{"a": 1, "b": 2}]
    found.delete()


def test_metadata_files_of_other_pairs_of_versions_are_not_made(tables: Served) -> None:
    """There are as many as versions, not as pairs of them."""
    token = tables.token("reader", permission="read")
    many = tables.owner.dataset("raw/many").id

    def status(name: str) -> int:
        url = f"{tables.url}/registry/iceberg/{many}/-/{name}"
        return httpx.get(url, headers={"X-Amz-Security-Token": token}).status_code

    assert [status(f"2-{parent}-list.avro") for parent in (0, 1, 2, 3)] == [200, 200, 404, 404]
    assert status("1-2-list.avro") == 404


def test_a_version_that_cannot_be_a_snapshot_is_looked_at_once(
    tables: Served, catalog: RestCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tables.owner.create_dataset("raw/odd")
    tables.owner.grant("reader", "read", "raw/odd")
    for n in range(3):
        found.commit({"data": pa.table({"n": pa.array([n], pa.uint64())})})
    found.commit({"data": pa.table({"n": [1]})})
    assert [snapshot.snapshot_id for snapshot in catalog.load_table("raw.odd").snapshots()] == [4]
    monkeypatch.setattr(iceberg_tables, "PublishedTable", None)  # not used again
    assert [snapshot.snapshot_id for snapshot in catalog.load_table("raw.odd").snapshots()] == [4]
    monkeypatch.undo()
    found.delete()


def test_the_answer_with_the_token_is_not_cached_and_has_the_public_address(sqlite_url: str, tmp_path: Path) -> None:
    with serving.in_thread(
        catalog=sqlite_url, store=str(tmp_path), public_url="https://registry.example.com/"
    ) as served:
        served.owner.create_dataset("raw/x").commit({"data": pa.table({"id": [1]})})
        served.owner.create_user("admin", role="administrator")
        headers = {"Authorization": f"Bearer {served.token('admin')}", "Host": "evil.example"}
        answer = httpx.get(f"{served.url}/iceberg/v1/namespaces/raw/tables/x", headers=headers)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["config"]["s3.endpoint"] == "https://registry.example.com"


@pytest.mark.parametrize("name", ["a b", "it's", "Größe"])
def test_a_component_with_an_odd_name_is_a_table(name: str, tables: Served, catalog: RestCatalog) -> None:
    found = tables.owner.create_dataset("raw/names")
    tables.owner.grant("reader", "read", "raw/names")
    found.commit({name: pa.table({"id": [1]}), "other": pa.table({"x": [2]})})
    assert catalog.load_table(("raw", "names", name)).scan().to_arrow().to_pydict() == {"id": [1]}
    found.delete()


def test_a_namespace_that_is_not_there_is_said_to_be_a_namespace(catalog: RestCatalog) -> None:
    with pytest.raises(NoSuchNamespaceError):
        catalog.list_tables("nothing")
