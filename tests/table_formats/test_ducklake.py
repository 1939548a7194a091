"""Datasets as a DuckLake catalog, read by DuckDB's extension."""

import re
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import InputError, InUse, PermissionDenied, StorageError
from dataset_registry.table_formats import ducklake
from dataset_registry.table_formats.ducklake import export_ducklake
from tests.serving import Served
from tests.table_formats.conftest import MANY, Read, kinds
from tests.table_formats.test_readers import assert_equal


@pytest.fixture
def lake(embedded: Registry) -> Registry:
    """A registry with tables of many types, one of them in many parts, partitions, and what is no table."""
    first = kinds(500)
    unsigned = pa.table(
        {"u32": pa.array([(1 << 32) - 1] * 500, pa.uint32()), "u64": pa.array([(1 << 64) - 1] * 500, pa.uint64())}
    )
    for column in unsigned.schema:
        first = first.append_column(column, unsigned[column.name])
    found = embedded.create_dataset("raw/kinds")
    found.commit({"data": first}, key="id", message="first")
    changed = first.drop_columns(["tiny"]).append_column("later", pa.array([1.5] * 500))
    found.commit({"data": changed.slice(1)}, key="id")
    many = embedded.create_dataset("many")
    many.commit({"data": pa.table({"id": range(MANY), "text": [f"{n % 977:0200}" for n in range(MANY)]})}, key="id")
    many.delete_rows(where="id = 20000")
    many.commit({"data": pa.table({"id": range(MANY), "text": [f"{n % 977:0200}" for n in range(MANY)]})}, key="id")
    days = {f"2026-01-0{n}": pa.table({"id": [n], "day": [n]}) for n in range(1, 4)}
    embedded.create_dataset("raw/days").commit(days)
    embedded.create_dataset("raw/notes").commit({"notes.txt": b"hello"})
    return embedded


def test_every_version_of_every_table_is_read_equal(lake: Registry, read: Read, tmp_path: Path) -> None:
    exported = export_ducklake(lake, tmp_path / "lake.ducklake", versions=10)
    assert (exported.tables, exported.snapshots, list(exported.left_out)) == (3, 6, ["raw/notes"])
    path = str(tmp_path / "lake.ducklake")
    cells = [
        ("raw/kinds", path, "raw/kinds"),
        ("raw/kinds", f"{path}#1", "raw/kinds@v1"),
        ("raw/kinds", f"{path}#2", "raw/kinds@v2"),
        ("many", path, "many"),
        ("many", f"{path}#3", "many@v1"),
        ("many", f"{path}#4", "many@v2"),
        ("many", f"{path}#5", "many@v3"),
        ("raw/days", path, "raw/days"),
    ]
    answers = read([("ducklake", dataset, ref) for dataset, ref, _ in cells])
    for found, (_, _, address) in zip(answers, cells, strict=True):
        assert_equal(found, lake.version(address).to_arrow().sort_by("id"))


def test_snapshots_say_what_they_are_and_tables_where(lake: Registry, read: Read, tmp_path: Path) -> None:
    export_ducklake(lake, tmp_path / "lake.ducklake", versions=2)
    path = str(tmp_path / "lake.ducklake")
    snapshots, tables, absent = read(
        [("ducklake_snapshots", "", path), ("ducklake_tables", "", path), ("ducklake", "raw/days", f"{path}#1")]
    )
    assert isinstance(snapshots, pa.Table)
    assert isinstance(tables, pa.Table)
    told = [row["commit_extra_info"] for row in snapshots.to_pylist()]
    assert told == [None, "raw/kinds@v1", "raw/kinds@v2", "many@v2", "many@v3", "raw/days@v1"]
    assert snapshots["commit_message"][1].as_py() == "first"
    assert [tuple(row.values()) for row in tables.to_pylist()] == [("main", "many"), ("raw", "days"), ("raw", "kinds")]
    assert isinstance(absent, str)
    assert "does not exist" in absent


def _tags(dataset: Dataset) -> dict[str, int]:
    return {tag.name: tag.version_number for tag in dataset.tags()}


def test_the_versions_of_a_catalog_are_kept_until_it_is_written_without_them(lake: Registry, tmp_path: Path) -> None:
    target = tmp_path / "my lake.ducklake"
    export_ducklake(lake, target, prefix="many", versions=2)
    many = lake.dataset("many")
    assert sorted(_tags(many).values()) == [2, 3]
    assert all(re.fullmatch(r"ducklake/my-lake-[0-9a-f]{8}/v[23]", name) for name in _tags(many))
    with pytest.raises(InUse):
        many.delete_version("v2")
    again = export_ducklake(lake, target, prefix="many", versions=1)
    assert again.written == 0
    assert list(_tags(many).values()) == [3]
    export_ducklake(lake, target, prefix="many", versions=3)  # the names of deleted tags are not used again
    assert sorted(_tags(many).values()) == [1, 2, 3]
    export_ducklake(lake, target, prefix="raw/")
    assert _tags(many) == {}
    export_ducklake(lake, target, prefix="raw/", keep=False)
    assert _tags(lake.dataset("raw/days")) == {}
    assert not list(tmp_path.glob(".*.partial"))


def test_catalogs_of_one_name_do_not_share_their_tags(lake: Registry, tmp_path: Path) -> None:
    for folder, versions in (("a", 2), ("b", 1)):
        (tmp_path / folder).mkdir()
        export_ducklake(lake, tmp_path / folder / "l.ducklake", prefix="many", versions=versions)
    assert sorted(_tags(lake.dataset("many")).values()) == [2, 3, 3]


def test_tags_of_users_and_of_a_catalog_that_could_not_be_replaced_stay(
    lake: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "lake.ducklake"
    export_ducklake(lake, target, prefix="many", versions=2)
    many = lake.dataset("many")
    (name,) = {tag.rpartition("/")[0] for tag in _tags(many)}
    for mine in ("validated", "v1-signed-off", "v77"):
        many.create_tag(f"{name}/{mine}", "v1")
    before = _tags(many)

    def full(*_: object) -> None:
        raise StorageError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ducklake, "_write", full)
        with pytest.raises(StorageError):
            export_ducklake(lake, target, prefix="many", versions=1)
    assert _tags(many) == before
    export_ducklake(lake, target, prefix="many", versions=1)
    assert {tag.rpartition("/")[2] for tag in _tags(many)} == {"v3", "validated", "v1-signed-off", "v77"}


def test_a_file_that_is_no_catalog_of_a_registry_is_not_overwritten(lake: Registry, tmp_path: Path) -> None:
    target = tmp_path / "notes.txt"
    target.write_text("precious")
    with pytest.raises(InputError, match="not overwritten"):
        export_ducklake(lake, target)
    assert target.read_text() == "precious"


def test_what_duckdb_takes_for_one_name_is_left_out(embedded: Registry, read: Read, tmp_path: Path) -> None:
    """One such table would make the whole catalog unreadable, or be read in place of another one."""
    for name in ("q", "main/q", "cs/Q", "cs/q", "Main/x", "temp/x", "fine/x"):
        embedded.create_dataset(name).commit({"data": pa.table({"id": [len(name)]})})
    embedded.create_dataset("fine/columns").commit({"data": pa.table({"A": [1], "a": [2]})})
    target = tmp_path / "lake.ducklake"
    left = export_ducklake(embedded, target).left_out
    assert set(left) == {"q", "main/q", "cs/Q", "cs/q", "Main/x", "temp/x", "fine/columns"}
    tables, rows = read([("ducklake_tables", "", str(target)), ("ducklake", "fine/x", str(target))])
    assert isinstance(tables, pa.Table)
    assert isinstance(rows, pa.Table)
    assert tables["table_name"].to_pylist() == ["x"]
    assert rows.to_pydict() == {"id": [6]}


def test_versions_are_in_the_order_of_their_history_whatever_the_clocks_said(lake: Registry) -> None:
    many = lake.dataset("many")
    chain = [ducklake._State.of(many, version) for version in many.log()]  # type: ignore[arg-type]
    early = replace(chain[0], version=copy(chain[0].version))
    early.version.record = early.version.record._replace(created_at=datetime(2020, 1, 1, tzinfo=UTC))
    ordered = ducklake._in_order([[early, *chain[1:]]])
    assert [state.version.number for _, state in ordered] == [1, 2, 3]
    assert [moment for moment, _ in ordered] == sorted(moment for moment, _ in ordered)


def test_readers_write_a_catalog_without_tags(lake: Registry, read: Read, tmp_path: Path) -> None:
    lake.create_user(lake.actor, role="administrator")
    lake.create_user("reader")
    lake.grant("reader", "read", "many")
    catalog = lake.access.catalog.address  # type: ignore[attr-defined]
    target = tmp_path / "theirs.ducklake"
    with Registry.open(catalog=catalog, store=str(tmp_path / "store"), actor="reader") as theirs:
        with pytest.raises(PermissionDenied):
            export_ducklake(theirs, target)
        assert not target.exists()
        assert export_ducklake(theirs, target, keep=False).tables == 1
    (found,) = read([("ducklake_tables", "", str(target))])
    assert isinstance(found, pa.Table)
    assert found["table_name"].to_pylist() == ["many"]


def test_a_remote_registry_writes_no_catalog(served: Served, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="opened with its store"):
        export_ducklake(served.registry(), tmp_path / "lake.ducklake")


def test_rows_that_are_there_twice_are_read_twice(embedded: Registry, read: Read, tmp_path: Path) -> None:
    equal = pa.table({"id": [1, 2]})
    embedded.create_dataset("raw/equal").commit({"one": equal, "two": equal})
    export_ducklake(embedded, tmp_path / "lake.ducklake")
    (found,) = read([("ducklake", "raw/equal", str(tmp_path / "lake.ducklake"))])
    assert isinstance(found, pa.Table)
    assert sorted(found["id"].to_pylist()) == [1, 1, 2, 2]


def test_history_begins_after_a_version_that_is_no_table(embedded: Registry, tmp_path: Path) -> None:
    dataset = embedded.create_dataset("raw/x")
    dataset.commit({"notes.txt": b"hello"})
    with dataset.draft() as draft:
        draft.clear()
        draft.add("data", pa.table({"id": [1]}))
    dataset.append(pa.table({"id": [2]}))
    exported = export_ducklake(embedded, tmp_path / "lake.ducklake", versions=5)
    assert (exported.tables, exported.snapshots, dict(exported.left_out)) == (1, 2, {})
