"""Captured schemas and their differences."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from dataset_registry import Dataset
from dataset_registry.errors import (
    RegistryError,
    UnreadableFile,
)
from tests.contracts.scenarios import (
    error_of,
    excel_bytes,
    parquet_bytes,
    read,
)

_ROWS = [("id", "name"), (1, "a"), (2, "b"), (3, None)]
_FILES = {
    "csv": (b"id,name\n1,a\n2,b\n3,\n", "csv"),
    "json": (b'[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": null}]', "json"),
    "json lines": (b'{"id": 1, "name": "a"}\n{"id": 2, "name": "b"}\n{"id": 3, "name": null}\n', "json"),
    "parquet": (parquet_bytes(id=[1, 2, 3], name=["a", "b", None]), "parquet"),
    "excel": (excel_bytes(sheet=_ROWS), "excel"),
}


@pytest.mark.parametrize("kind", list(_FILES))
def test_the_columns_and_statistics_of_a_file_are_captured(flights: Dataset, kind: str) -> None:
    data, format = _FILES[kind]
    with flights.draft() as draft:
        draft.add("data", data, format=format)
    version = flights.version()
    (table,) = version.schema.tables().values()
    assert [column.name for column in table.columns] == ["id", "name"]
    assert table.columns[1].type == "string"
    assert table.rows == 3
    assert (table.statistics["id"].min, table.statistics["id"].max) == (1, 3)
    assert table.statistics["name"].null_count == 1
    assert draft.result.schemas == {("data", 0): version.captured()[0][2]}
    assert version.captured("data") == version.captured()
    assert version.captured("other") == []
    assert version.components[0].format == format
    assert read(version) == data
    assert version.to_arrow().column("name").to_pylist() == ["a", "b", None]


def test_what_changed_in_the_columns_is_told_with_what_it_means_for_readers(flights: Dataset) -> None:
    def commit(**columns: object) -> None:
        flights.commit({"data": pa.table(columns)})

    commit(id=pa.array([1, 2], pa.int32()), name=["a", "b"], city=["x", "y"], old=[1.5, 2.5])
    commit(name=["a", "b"], id=pa.array([1, 2], pa.int64()), town=["x", "y"], new=pa.array([True, False]))
    found = flights.diff("v1", "v2")
    assert (found.before.number, found.after.number) == (1, 2)
    assert (found.components.added, found.components.removed, found.components.changed) == ((), (), (("data", 0),))
    (changes,) = found.schema.values()
    assert {(c.kind, c.column, c.before, c.after) for c in changes.changes} == {
        ("removed", "city", "string", None),
        ("removed", "old", "double", None),
        ("added", "town", None, "string"),
        ("added", "new", None, "bool"),
        ("type changed", "id", "int32", "int64"),
        ("reordered", "columns", "id, name", "name, id"),
        ("renamed", "city", "city", "town"),
    }
    assert (changes.backward, changes.forward) == (True, False)
    assert "+ new: bool" in map(str, changes.changes)
    back = flights.diff("v2", "v1").schema["data"]
    assert (back.backward, back.forward) == (False, True)
    assert flights.diff("v1", "v1").schema == {}


def test_components_that_came_went_and_changed_are_told_apart(flights: Dataset) -> None:
    flights.commit({"same": b"1", "gone": b"2", "other": [b"3", b"4"]})
    with flights.draft() as draft:
        draft.remove("gone")
        draft.add("other", b"5", index=1)
        draft.add("new", b"6")
    found = flights.diff("main~1", "main").components
    assert found.added == (("new", 0),)
    assert found.removed == (("gone", 0),)
    assert found.changed == (("other", 1),)


def test_types_and_values_of_all_kinds_come_back_as_they_were_captured(flights: Dataset) -> None:
    table = pa.table(
        {
            "small": pa.array([1, None], pa.uint8()),
            "money": pa.array([Decimal("1.50"), Decimal("2.25")], pa.decimal128(9, 2)),
            "day": pa.array([date(2024, 1, 31), None]),
            "at": pa.array([datetime(2024, 1, 31, 12, tzinfo=UTC), None], pa.timestamp("us", "Europe/Berlin")),
            "nested": pa.array([{"a": [1, 2]}, None], pa.struct([("a", pa.list_(pa.int64()))])),
            "raw": pa.array([b"\x00\xff", None]),
            "odd": [float("nan"), float("inf")],
            "none": pa.nulls(2),
        }
    )
    version = flights.commit({"data": table})
    captured = version.schema.components["data"].tables[0]
    assert {c.name: c.type for c in captured.columns} == {
        "small": "uint8",
        "money": "decimal128(9, 2)",
        "day": "date32[day]",
        "at": "timestamp[us, tz=Europe/Berlin]",
        "nested": captured.columns[4].type,
        "raw": "binary",
        "odd": "double",
        "none": "null",
    }
    assert captured.columns[4].fields[0].fields[0].type == "int64"
    assert captured.statistics["small"].null_count == 1
    assert str(captured.statistics["day"].max) == "2024-01-31"
    again = flights.version().to_arrow()
    assert again.schema.equals(table.schema)
    assert again.drop_columns("odd").equals(table.drop_columns("odd"))
    assert flights.version().captured() == version.captured()


def test_each_sheet_of_a_spreadsheet_is_a_table(flights: Dataset) -> None:
    with flights.draft() as draft:
        draft.add("book", excel_bytes(first=[("a",), (1,)], second=[("b",), ("x",), ("y",)]), format="excel")
    version = draft.version
    assert [(t.name, t.rows) for t in version.schema.components["book"].tables] == [("first", 1), ("second", 2)]
    assert version.to_arrow("book", sheet="second").to_pydict() == {"b": ["x", "y"]}
    assert isinstance(error_of(lambda: version.to_arrow("book", sheet="third")), RegistryError)


def test_a_csv_file_is_read_in_the_encoding_that_is_named(flights: Dataset) -> None:
    data = "name\nMünchen\n".encode("latin-1")
    with flights.draft() as draft:
        draft.add("data", data, format="csv", read={"encoding": "latin-1"})
    version = flights.version()
    assert version.components[0].format == "csv; charset=latin-1"
    assert version.to_arrow().to_pydict() == {"name": ["München"]}
    assert read(version) == data


@pytest.mark.parametrize("format", ["parquet", "excel", "csv"])
def test_a_file_that_is_not_what_it_says_is_refused_and_nothing_is_left(flights: Dataset, format: str) -> None:
    data = {"parquet": b"PAR1 and no more", "excel": b"no book", "csv": b""}[format]

    def commit() -> None:
        with flights.draft() as draft:
            draft.add("good", b"fine")
            draft.add("data", data, format=format)

    error = error_of(commit)
    assert (type(error), error.code) == (UnreadableFile, "unreadable_file")
    assert flights.tree() == []
    with flights.draft() as draft:
        draft.add("data", data, format="binary")
    assert read(draft.version) == data
    assert draft.version.schema.tables() == {}
