"""Foreign Parquet files in tables of Iceberg: each is read with its values, or refused with the column and the way out.

The cases are those that other projects check where a file is added to a table as it is. Not applicable are:

| Case | Reason |
| --- | --- |
| Partition values from file names, statistics or transforms | Tables are unpartitioned; a folder is not committed. |
| Partition values that do not match, parse, or are null | No value comes from the name of a file. |
| Columns that only the file or the table has, unless allowed | A version has the columns of all its files. |
| A required column of the table that a file lacks | Columns of a published table are optional. |
| A file added to a branch of a table | A version is one branch's; the server's catalog has the branches. |
| A check for duplicates that can be turned off | Files are named by content, and an export compares versions. |
| Several threads that add files | An export describes files from captured statistics and opens few. |
| Format version 1 | Tables are made with version 2. |
| The size of the footer, the settings of S3, patterns of file names | Not part of what is published. |
| Lists of two levels | pyarrow does not write them. |
| A null list or map of structs, which is read as an empty one | pyiceberg does so with tables that it wrote. |
"""

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from shutil import copy
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import RESTError
from pyiceberg.io.pyarrow import UnsupportedPyArrowTypeException
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import IntegerType

from dataset_registry import Dataset, Version
from dataset_registry.errors import InputError, InUse, NotFound, RegistryError
from dataset_registry.table_formats.iceberg_export import Exported, export_iceberg
from tests import serving
from tests.table_formats.test_readers import assert_equal

MOMENT = dt.datetime(2026, 3, 29, 0, 30, 7)
STRUCT = pa.struct([("x", pa.int64())])
IDENTIFIER = bytes(range(16))
Content = pa.Table | Path | list[Path]


@dataclass
class Place:
    """A server's registry, its Iceberg catalog, and a catalog of the user; tests have datasets of their own."""

    served: serving.Served
    rest: RestCatalog
    catalog: SqlCatalog
    folder: Path
    numbers: Iterator[int] = field(default_factory=count)

    def file(self, table: pa.Table, **options: Any) -> Path:
        """A Parquet file of another writer."""
        path = self.folder / f"{next(self.numbers)}.parquet"
        pq.write_table(table, path, **options)
        return path

    def dataset(self) -> Dataset:
        """A new dataset."""
        return self.served.owner.create_dataset(f"raw/d{next(self.numbers)}")

    def export(self, version: Version) -> Exported:
        """Export a version to the user's table of the dataset."""
        return export_iceberg(version, self.catalog, version.dataset.replace("/", "."))

    def exported(self, version: Version) -> Table:
        """The user's table of a dataset."""
        return self.catalog.load_table(version.dataset.replace("/", "."))

    def listed(self, version: Version) -> Table:
        """The server's table of a dataset."""
        table: Table = self.rest.load_table(version.dataset.replace("/", "."))
        return table

    def read(self, version: Version, way: str) -> pa.Table:
        """The rows of a version, exported or from the server."""
        if way == "export":
            snapshot = self.export(version).snapshot_id
            return self.exported(version).scan(snapshot_id=snapshot).to_arrow()
        return self.listed(version).scan(snapshot_id=version.number).to_arrow()


@pytest.fixture(scope="module")
def place(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for all tests."""
    folder = tmp_path_factory.mktemp("add_files")
    copy(sqlite_template, folder / "catalog.sqlite")
    (folder / "warehouse").mkdir()
    mine = SqlCatalog("mine", uri="sqlite:///:memory:", warehouse=f"file://{folder}/warehouse")
    with serving.in_thread(catalog=f"sqlite:///{folder / 'catalog.sqlite'}", store=str(folder / "store")) as served:
        served.owner.create_user("admin", role="administrator")
        rest = RestCatalog("registry", uri=f"{served.url}/iceberg", token=served.token("admin"))
        yield Place(served, rest, mine, folder)


def _columns(values: pa.Array, name: str = "a", start: int = 0) -> pa.Table:
    return pa.table({"id": pa.array(range(start, start + len(values)), pa.int64()), name: values})


def _files(place: Place, *columns: pa.Array, **options: Any) -> list[Path]:
    """A file of each array, which are the column `a`; rows are numbered across them."""
    starts = [sum(map(len, columns[:at])) for at in range(len(columns))]
    return [place.file(_columns(values, start=at), **options) for values, at in zip(columns, starts, strict=True)]


def _structs(place: Place, *kinds: pa.DataType, values: Sequence[Any]) -> list[Path]:
    return _files(place, *(pa.array([value], kind) for kind, value in zip(kinds, values, strict=True)))


def _expected(version: Version) -> pa.Table:
    return version.to_arrow().sort_by("id")


def _read_or_refused(read: Callable[[], pa.Table | Exported]) -> pa.Table | Exported | str:
    """What was read, or the message of the refusal."""
    try:
        return read()
    except (InputError, RESTError) as error:
        return str(error)


def _assert_equal_or_refused(place: Place, version: Version, way: str, column: str = "a") -> None:
    """Whether a version is read with its values, or refused with the column and the way out."""
    found = _read_or_refused(partial(place.read, version, way))
    if isinstance(found, str):
        assert repr(column) in found
        assert any(word in found for word in ("ommit ", "Rename ", "Give it a type"))
    else:
        assert_equal(found, _expected(version))


WAYS = ["export", "server"]

# --- one file ----------------------------------------------------------------------------------------------------

DECIMALS = [Decimal("-999.9"), None, Decimal("999.9")]
TYPES: Mapping[str, pa.Array] = {
    "int8": pa.array([-128, None, 127], pa.int8()),
    "int16": pa.array([-(1 << 15), None, 1], pa.int16()),
    "int32": pa.array([-(1 << 31), None, 1], pa.int32()),
    "int64": pa.array([-(1 << 63), None, (1 << 63) - 1], pa.int64()),
    "uint8": pa.array([0, None, 255], pa.uint8()),
    "uint16": pa.array([0, None, 65_535], pa.uint16()),
    "float": pa.array([1.5, None, float("-inf")], pa.float32()),
    "double": pa.array([float("nan"), None, -0.0], pa.float64()),
    "boolean": pa.array([True, None, False]),
    "date": pa.array([dt.date(1, 1, 1), None, dt.date(9999, 12, 31)]),
    "date64": pa.array([dt.date(1969, 12, 31), None], pa.date64()),
    "time": pa.array([dt.time(20, 12, 24, 5), None], pa.time64("us")),
    "seconds": pa.array([MOMENT, None], pa.timestamp("s")),
    "milliseconds": pa.array([dt.datetime(1, 1, 1), None, MOMENT], pa.timestamp("ms")),
    "microseconds": pa.array([dt.datetime(1969, 12, 31, 23, 59, 59, 999_999), None], pa.timestamp("us")),
    "seconds in UTC": pa.array([MOMENT, None], pa.timestamp("s", "UTC")),
    "milliseconds in UTC": pa.array([MOMENT, None], pa.timestamp("ms", "UTC")),
    "microseconds in UTC": pa.array([MOMENT, None], pa.timestamp("us", "UTC")),
    "decimal": pa.array(DECIMALS, pa.decimal128(4, 1)),
    "decimal of 38 digits": pa.array([Decimal(-1), Decimal("9" * 38)], pa.decimal128(38, 0)),
    "text": pa.array(["", None, "日本", "\U0010ffff" * 100]),
    "large text": pa.array(["x", None], pa.large_string()),
    "bytes": pa.array([b"\x80", None]),
    "large bytes": pa.array([b"\x80", None], pa.large_binary()),
    "fixed bytes": pa.array([b"ab", None], pa.binary(2)),
    "category": pa.array(["x", None, "y"]).dictionary_encode(),
    "category of numbers": pa.array([3, None, 4], pa.int32()).dictionary_encode(),
    "list": pa.array([[1, None], None, []], pa.list_(pa.int32())),
    "large list": pa.array([["x", None], None, []], pa.large_list(pa.large_string())),
    "fixed list": pa.array([[1, 2], None], pa.list_(pa.int32(), 2)),
    "list of lists": pa.array([[[1, 2], None, []], None, [[3]]]),
    "struct": pa.array([{"x": 1, "in": {"y": [1], "z": "k"}}, {"x": 2, "in": None}, None]),
    "struct with fields named as parts of lists": pa.array([{"list": 1, "element": {"element": 2}, "key": 3}]),
    "list of structs": pa.array([[{"x": 1}, {"x": None}, None], []], pa.list_(STRUCT)),
    "map": pa.array([[("k", 1), ("l", None)], None, []], pa.map_(pa.string(), pa.int64())),
    "map of numbers to structs": pa.array([[(42, {"x": 84})], [(1, None)]], pa.map_(pa.int32(), STRUCT)),
    "nulls only": pa.array([None, None], pa.int64()),
}
WRITTEN: Mapping[str, tuple[pa.Array, Mapping[str, Any]]] = {
    "uint8 without the writer's schema": (pa.array([0, None, 255], pa.uint8()), {"store_schema": False}),
    "uint32 as Parquet 1 stores it": (pa.array([0, None, (1 << 32) - 1], pa.uint32()), {"version": "1.0"}),
    "milliseconds without the writer's schema": (pa.array([MOMENT], pa.timestamp("ms")), {"store_schema": False}),
    "nanoseconds stored as microseconds": (pa.array([1_000], pa.timestamp("ns")), {"coerce_timestamps": "us"}),
    "decimal in 32 bits": (pa.array(DECIMALS, pa.decimal128(9, 3)), {"store_decimal_as_integer": True}),
    "decimal in 64 bits": (pa.array(DECIMALS, pa.decimal128(18, 7)), {"store_decimal_as_integer": True}),
    "bytes without the writer's schema": (pa.array([b"\x80", None]), {"store_schema": False}),
    "list whose items are not named element": (pa.array([[1], None, []]), {"use_compliant_nested_type": False}),
    "no statistics": (pa.array([1, None]), {"write_statistics": False}),
    "many row groups": (pa.array(range(50)), {"row_group_size": 7}),
    "brotli": (pa.array([1, 2]), {"compression": "brotli"}),
    "data pages of version 2": (pa.array([1, None]), {"data_page_version": "2.0"}),
    "delta encoding": (
        pa.array(["x", "xy", None]),
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
    ),
    "bytes apart": (pa.array([1.5, None]), {"use_dictionary": False, "column_encoding": "BYTE_STREAM_SPLIT"}),
}


def test_a_delivered_file_with_columns_of_all_types_is_read_with_its_values(place: Place) -> None:
    rows = 6
    columns = {name: values.take(pa.array(n % len(values) for n in range(rows))) for name, values in TYPES.items()}
    version = place.dataset().commit({"data": place.file(pa.table({"id": range(rows), **columns}))})
    for way in WAYS:
        assert_equal(place.read(version, way), _expected(version))


def test_files_of_other_writers_are_read_with_their_values(place: Place) -> None:
    """Each file has a column of its own, which is null in the others."""
    paths = [
        place.file(_columns(values, case, at * 100), **_named(options, case))
        for at, (case, (values, options)) in enumerate(WRITTEN.items())
    ]
    version = place.dataset().commit({"data": paths})
    for way in WAYS:
        assert_equal(place.read(version, way), _expected(version))


def _named(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options of a writer for a column of this name."""
    encodings = options.get("column_encoding")
    named = {"column_encoding": {"id": "DELTA_BINARY_PACKED", name: encodings}} if encodings else {}
    return {**options, **named}


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()], ids=str)
def test_a_view_of_texts_is_read_with_its_values(kind: pa.DataType, place: Place) -> None:
    version = place.dataset().commit({"data": place.file(_columns(pa.array(["x", None], kind)))})
    for way in WAYS:
        assert place.read(version, way).to_pylist() == version.to_arrow().to_pylist()


def test_a_file_with_required_columns_is_read(place: Place) -> None:
    inner = pa.struct([pa.field("x", pa.int64(), nullable=False)])
    items = pa.list_(pa.field("element", pa.int64(), nullable=False))
    kinds = {"id": pa.int64(), "s": inner, "l": items}
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])
    table = pa.table({"id": [1, 9], "s": [{"x": 1}, {"x": 2}], "l": [[1], []]}, schema)
    version = place.dataset().commit({"data": place.file(table)})
    assert_equal(place.read(version, "export"), _expected(version))
    assert not any(column.required for column in place.exported(version).schema().fields)


ODD: Mapping[str, tuple[pa.Array, Mapping[str, Any]]] = {
    "96 bits out of the range of nanoseconds": (
        pa.array([dt.datetime(9999, 2, 3), dt.datetime(1, 1, 1)], pa.timestamp("us")),
        {"use_deprecated_int96_timestamps": True},
    ),
    "decimal32": (pa.array([Decimal("-3.1")], pa.decimal32(9, 1)), {}),
    "decimal64": (pa.array([Decimal("-3.1")], pa.decimal64(18, 1)), {}),
    "decimal256 of few digits": (pa.array([Decimal("-3.1")], pa.decimal256(20, 1)), {}),
    "list view": (pa.array([[1, 2], []], pa.list_view(pa.int64())), {}),
    "UUID": (pa.array([IDENTIFIER], pa.uuid()), {}),
    "UUID without the writer's schema": (pa.array([IDENTIFIER, None], pa.uuid()), {"store_schema": False}),
    "JSON": (pa.array(['{"hello": "world"}'], pa.json_()), {}),
    "boolean of 8 bits": (pa.array([1, 0], pa.bool8()), {}),
}


@pytest.mark.parametrize("case", ODD)
def test_a_delivered_file_with_an_odd_type_is_read_or_refused(case: str, place: Place) -> None:
    values, options = ODD[case]
    version = place.dataset().commit({"data": place.file(_columns(values), **options)})
    for way in WAYS:
        _assert_equal_or_refused(place, version, way)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "+02:00"])
def test_pyiceberg_refuses_another_zone_than_utc_with_the_column(zone: str, place: Place) -> None:
    """DuckDB, Trino and Spark read these as instants, so they are published."""
    table = _columns(pa.array([MOMENT, None], pa.timestamp("us", zone)))
    for content in (
        place.file(table),
        *([table] if "/" in zone else []),
    ):  # a table keeps the instants of an offset in UTC
        version = place.dataset().commit({"data": content})
        for way in WAYS:
            with pytest.raises(UnsupportedPyArrowTypeException, match="'a' has an unsupported type"):
                place.read(version, way)


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        (pa.array([MOMENT], pa.timestamp("ns")), "microseconds"),
        (pa.array([MOMENT], pa.timestamp("ns", "UTC")), "microseconds"),
        (pa.array([dt.time(1)], pa.time32("ms")), "microseconds"),
        (pa.array([dt.time(1)], pa.time64("ns")), "microseconds"),
        (pa.array([1], pa.uint32()), "as int64"),
        (pa.array([1], pa.uint64()), "as int64 or decimal"),
        (pa.array([[1]], pa.list_(pa.uint64())), "as int64 or decimal"),
        (pa.array([dt.timedelta(1)]), "another type"),
        (pa.array([1.5], pa.float16()), "another type"),
        (pa.array([Decimal(1)], pa.decimal256(50, 1)), "another type"),
        (pa.nulls(1), "a type"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_type_that_iceberg_lacks_is_refused_with_the_column_and_the_way_out(
    values: pa.Array, advice: str, place: Place
) -> None:
    version = place.dataset().commit({"data": place.file(_columns(values))})
    wanted = rf"Column 'a.*' has the type .*, which Iceberg does not have\. .*{advice}"
    with pytest.raises(InputError, match=wanted):
        place.export(version)
    with pytest.raises(RESTError, match=wanted):
        place.listed(version)


# --- several files of a table --------------------------------------------------------------------------------------


def test_files_that_lack_a_column_or_have_one_more_are_one_table_with_nulls(place: Place) -> None:
    tables = [
        pa.table({"id": [0], "text": ["x"]}),
        pa.table({"id": [1]}),
        pa.table({"more": [100], "text": ["y"], "id": [2]}),
    ]
    version = place.dataset().commit({"data": [place.file(table) for table in tables]})
    for way in WAYS:
        assert_equal(place.read(version, way), _expected(version))
    found = place.exported(version).scan(row_filter="text is null").to_arrow().to_pylist()
    assert found == [{"id": 1, "text": None, "more": None}]
    assert place.listed(version).scan(row_filter="more = 100").to_arrow()["id"].to_pylist() == [2]


def test_components_of_other_names_with_other_columns_are_tables_of_their_own(place: Place) -> None:
    one, other = place.file(pa.table({"id": [0], "x": [1]})), place.file(pa.table({"id": [1]}))
    version = place.dataset().commit({"one": one, "other": other})
    with pytest.raises(InputError, match="several tables, with different columns: 'one', 'other'"):
        place.export(version)
    export_iceberg(version, place.catalog, "parts.other", component="other")
    assert place.catalog.load_table("parts.other").scan().to_arrow().to_pylist() == [{"id": 1}]


def test_columns_in_another_order_are_read_by_name(place: Place) -> None:
    one, other = pa.table({"id": [200], "col": ["world"]}), pa.table({"col": ["abcd"], "id": [300]})
    version = place.dataset().commit({"one": place.file(one), "other": place.file(other)})
    for way in WAYS:
        assert_equal(place.read(version, way), _expected(version))


WIDENED: Sequence[tuple[pa.Array, pa.Array]] = [
    (pa.array([1], pa.int8()), pa.array([-300], pa.int16())),
    (pa.array([1], pa.int32()), pa.array([1 << 40])),
    (pa.array([1 << 40]), pa.array([1], pa.int32())),
    (pa.array([1.5], pa.float32()), pa.array([2.1])),
    (pa.array([Decimal("999.9")], pa.decimal128(4, 1)), pa.array([Decimal("99999999.9")], pa.decimal128(9, 1))),
    (pa.array(["x"], pa.large_string()), pa.array(["y"])),
    (pa.array([b"x"], pa.large_binary()), pa.array([b"y"])),
    (pa.array([[1]], pa.large_list(pa.int64())), pa.array([[2]])),
    (pa.array([None], pa.int64()), pa.array([1])),
]


def test_files_with_types_that_readers_widen_are_one_table(place: Place) -> None:
    tables = []
    for at in (0, 1):
        tables.append(pa.table({"id": [at], **{f"a{number}": pair[at] for number, pair in enumerate(WIDENED)}}))
    version = place.dataset().commit({"data": [place.file(table) for table in tables]})
    for way in WAYS:
        assert_equal(place.read(version, way), _expected(version))


@pytest.mark.parametrize(
    "columns",
    [
        (pa.array([True]), pa.array([1], pa.int32())),
        (pa.array([1], pa.int32()), pa.array([1.5])),
        (pa.array([1]), pa.array(["x"])),
        (pa.array([200], pa.uint8()), pa.array([-1], pa.int32())),
        (pa.array([60_000], pa.uint16()), pa.array([-1])),
        (pa.array([1], pa.uint32()), pa.array([-1])),
        (pa.array([1.5]), pa.array([True])),
        (pa.array(["x"]), pa.array([b"\x80"])),
        (pa.array([b"ab"], pa.binary(2)), pa.array([b"abc"])),
        (pa.array([Decimal("999.9")], pa.decimal128(4, 1)), pa.array([Decimal("1.234")], pa.decimal128(9, 3))),
        (pa.array([dt.date(2026, 1, 1)]), pa.array([MOMENT])),
        (pa.array([dt.time(1)], pa.time64("us")), pa.array([MOMENT])),
        (pa.array([MOMENT], pa.timestamp("ms")), pa.array([MOMENT.replace(microsecond=5)])),
        (pa.array([MOMENT], pa.timestamp("us", "UTC")), pa.array([MOMENT])),
        (pa.array([MOMENT], pa.timestamp("us", "UTC")), pa.array([MOMENT], pa.timestamp("us", "Europe/Berlin"))),
        (pa.array([[True]]), pa.array([[42]])),
        (pa.array([[42]]), pa.array([{"list": 42}])),
        (pa.array([[42]], pa.list_(pa.int32())), pa.array([[1 << 40]])),
        (pa.array([{"list": True}]), pa.array([{"list": 42}])),
        (pa.array([{"i": 1, "j": 2}]), pa.array([{"j": 84}])),
        (pa.array([{"i": 1, "j": 2}]), pa.array([{"j": 20, "i": 10}], pa.struct([("j", "i8"), ("i", "i8")]))),
        (pa.array([[{"i": 1, "j": 2}]]), pa.array([[{"j": 84}]])),
        (pa.array([[(1, 2)]], pa.map_("i8", "i8")), pa.array([[(True, False)]], pa.map_("bool", "bool"))),
        (pa.nulls(1), pa.array([5])),
        (pa.array([], pa.string()), pa.array([1])),
        (pa.array(["x", "y"]).dictionary_encode(), pa.array(["z"])),
    ],
    ids=lambda columns: " and ".join(str(values.type) for values in columns) if isinstance(columns, tuple) else None,
)
def test_files_with_types_that_readers_do_not_widen_are_read_or_refused(
    columns: Sequence[pa.Array], place: Place
) -> None:
    version = place.dataset().commit({"data": _files(place, *columns)})
    for way in WAYS:
        _assert_equal_or_refused(place, version, way)


def test_the_same_file_twice_is_refused_by_an_export_and_read_twice_from_the_server(place: Place) -> None:
    path = place.file(pa.table({"id": [1, 2]}))
    other = copy(path, path.with_name("equal.parquet"))
    version = place.dataset().commit({"data": [path, Path(other)]})
    with pytest.raises(InputError, match=r"the same rows twice.*from the server's catalog"):
        place.export(version)
    assert sorted(place.read(version, "server")["id"].to_pylist()) == [1, 1, 2, 2]


def test_an_empty_file_beside_others_adds_no_row(place: Place) -> None:
    paths = [place.file(pa.table({"id": pa.array(ids, pa.int64())})) for ids in ([], [100])]
    version = place.dataset().commit({"data": paths})
    for way in WAYS:
        assert place.read(version, way).to_pylist() == [{"id": 100}]


# --- names and field ids -------------------------------------------------------------------------------------------


def _numbered(name: str, kind: pa.DataType, number: int | None) -> pa.Field:
    return pa.field(name, kind, metadata=None if number is None else {"PARQUET:field_id": str(number)})


@pytest.mark.parametrize("numbers", [(1, 2), (2, 1), (7, None), (None, 1 << 20)])
def test_a_file_with_field_ids_is_refused(numbers: tuple[int | None, int | None], place: Place) -> None:
    schema = pa.schema([_numbered("id", pa.int64(), numbers[0]), _numbered("b", pa.int64(), numbers[1])])
    version = place.dataset().commit({"data": place.file(pa.table({"id": [1], "b": [2]}, schema))})
    for way in WAYS:
        with pytest.raises((InputError, RESTError), match=r"field ids of another table.*Commit it as a table"):
            place.read(version, way)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_with_field_ids_below_its_columns_only_is_read_or_refused(way: str, place: Place) -> None:
    inner = pa.struct([_numbered("x", pa.int64(), 2), _numbered("y", pa.int64(), 1)])
    items = pa.list_(_numbered("element", pa.int64(), 1))
    schema = pa.schema([("id", pa.int64()), ("s", inner), ("l", items)])
    table = pa.table({"id": [1], "s": [{"x": 1, "y": 2}], "l": [[3]]}, schema)
    version = place.dataset().commit({"data": place.file(table)})
    _assert_equal_or_refused(place, version, way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "columns",
    [
        {"array": [1], "element": [2], "key": [3], "value": [4], "list": [[1, 2, 3]]},
        {"Id": [1], "ID": [2], "s": [{"a": 1, "A": 2}]},
        {"a.b": [1], "c": [2]},
        {"a b": [1], "größe": [2], "a/b": [3], "1x": [4], 'a"b': [5], "a\\b": [6], "": [7]},
        {"first": [{"i": 1, "j": 2}], "second": [{"first": 100, "second": 200}]},
    ],
    ids=["parts of lists", "letter case", "a dot", "signs", "the same name at two levels"],
)
def test_columns_are_read_by_any_name(columns: Mapping[str, Any], way: str, place: Place) -> None:
    version = place.dataset().commit({"data": place.file(pa.table({"id": [1], **columns}))})
    assert_equal(place.read(version, way), _expected(version))


@pytest.mark.parametrize("way", WAYS)
def test_names_that_differ_in_letter_case_are_different_columns(way: str, place: Place) -> None:
    tables = [pa.table({"id": [1], "Name": ["x"]}), pa.table({"id": [2], "name": ["y"]})]
    version = place.dataset().commit({"data": [place.file(table) for table in tables]})
    assert_equal(place.read(version, way), _expected(version))


@pytest.mark.parametrize("way", WAYS)
def test_a_name_with_a_dot_beside_a_field_of_a_struct_is_read_or_refused(way: str, place: Place) -> None:
    table = pa.table({"id": [1], "a.b": [1], "a": [{"b": 2}]})
    _assert_equal_or_refused(place, place.dataset().commit({"data": place.file(table)}), way, "a.b")


# --- statistics ----------------------------------------------------------------------------------------------------


def _metrics(table: Table) -> list[dict[str, tuple[Any, Any, Any, Any]]]:
    """The numbers of values and of nulls, and the bounds, of each column of each file, in order of their ids."""
    names = ("value_count", "null_value_count", "lower_bound", "upper_bound")
    files = table.inspect.files().to_pylist()
    found = [{name: tuple(of[n] for n in names) for name, of in file["readable_metrics"].items()} for file in files]
    return sorted(found, key=lambda columns: columns["id"][2:] and str(columns["id"][2]))


@pytest.mark.parametrize("way", WAYS)
def test_counts_and_bounds_of_a_file_are_those_of_its_footer(way: str, place: Place) -> None:
    table = pa.table(
        {
            "id": [1, 2, 3, 4, 5],
            "a": ["x", "y", "z", None, None],
            "price": pa.array([None, Decimal("-1.5"), Decimal("2.0"), None, None], pa.decimal128(9, 1)),
            "day": pa.array([dt.date(1969, 12, 31), dt.date(2026, 1, 1), None, None, None]),
            "second": pa.array([MOMENT] * 5, pa.timestamp("s")),
            "small": pa.array([200, 7, None, 9, 9], pa.uint8()),
            "nothing": pa.array([None] * 5, pa.int64()),
            "real": pa.array([float("nan"), 1.5, None, 2.5, -0.0]),
            "long": ["a" * 300, "b" * 1000, None, "c", "d"],
        }
    )
    version = place.dataset().commit({"data": place.file(table, row_group_size=2)})
    place.export(version)
    (found,) = _metrics(place.exported(version) if way == "export" else place.listed(version))
    assert found == {
        "id": (5, 0, 1, 5),
        "a": (5, 2, "x", "z"),
        "price": (5, 3, Decimal("-1.5"), Decimal("2.0")),
        "day": (5, 3, dt.date(1969, 12, 31), dt.date(2026, 1, 1)),
        "second": (5, 0, MOMENT, MOMENT),
        "small": (5, 1, 7, 200),
        "nothing": (5, 5, None, None),
        "real": (5, 1, None, None),
        "long": (5, 1, None, None),
    }


def test_a_file_without_statistics_or_without_a_column_says_nothing_of_it(place: Place) -> None:
    known, unknown = pa.table({"id": [1], "a": [5]}), pa.table({"id": [2], "a": [6]})
    paths = [place.file(known), place.file(unknown, write_statistics=["id"]), place.file(pa.table({"id": [3]}))]
    version = place.dataset().commit({"data": paths})
    place.export(version)
    assert [columns["a"] for columns in _metrics(place.exported(version))] == [
        (1, 0, 5, 5),
        (None, None, None, None),
        (None, None, None, None),
    ]


def test_counts_of_nested_columns_are_left_out(place: Place) -> None:
    table = pa.table({"id": [1, 2], "s": [{"x": 1}, None], "l": [[1, 2, None], []]})
    version = place.dataset().commit({"data": place.file(table)})
    place.export(version)
    (file,) = place.exported(version).inspect.files().to_pylist()
    assert file["record_count"] == 2
    assert len(file["null_value_counts"]) == len(file["lower_bounds"]) == 1


@pytest.mark.parametrize(
    ("filter", "ids"),
    [
        ("a < 0", [0]),
        ("a = 200", [1]),
        ("a is null", [2, 5]),
        ("price < 0", [0]),
        ("price > 127", [1, 4]),
        ("moment < '1970-01-01T00:00:00'", [0]),
        ("real is nan", [1]),
        ("real > 1", [0, 3]),
        ("real = 0", [4]),
        ("text > 'b'", [1, 4]),
        ("text < 'b'", [0]),
        (f"text > '{'z' * 80}'", [4]),
        ("yes = false", [1, 4]),
        ("day = '2026-01-01'", [3]),
    ],
)
def test_a_filter_loses_no_row_of_delivered_files(filter: str, ids: list[int], filtered: Sequence[Table]) -> None:
    for table in filtered:
        assert sorted(table.scan(row_filter=filter).to_arrow()["id"].to_pylist()) == ids


@pytest.fixture(scope="module")
def filtered(place: Place) -> Sequence[Table]:
    """An exported table of two files, the second with wider types, and the server's."""
    days = [dt.date(2026, 1, 1), None]
    one = {
        "id": [0, 1, 2],
        "a": pa.array([-5, 200, None], pa.int32()),
        "price": pa.array([Decimal("-129"), Decimal("128"), None], pa.decimal128(5, 0)),
        "moment": pa.array([-1, 1, None], pa.timestamp("us")),
        "real": pa.array([1.5, float("nan"), None], pa.float32()),
        "text": ["a" * 300, "ba", None],
        "yes": [True, False, None],
        "day": pa.array([None, None, None], pa.date32()),
    }
    other = {
        "id": [3, 4, 5],
        "a": pa.array([1, 1 << 40, None], pa.int64()),
        "price": pa.array([Decimal("127"), Decimal("10") ** 8, None], pa.decimal128(9, 0)),
        "moment": pa.array([1, 2, None], pa.timestamp("us")),
        "real": pa.array([float("inf"), -0.0, None], pa.float64()),
        "text": ["b", "z" * 300, None],
        "yes": [True, False, None],
        "day": pa.array([*days, None], pa.date32()),
    }
    version = place.dataset().commit({"data": [place.file(pa.table(one)), place.file(pa.table(other))]})
    place.export(version)
    return place.exported(version), place.listed(version)


# --- versions ------------------------------------------------------------------------------------------------------

EVOLVING: Mapping[str, Sequence[pa.Array | None]] = {
    "a column more": [None, pa.array([5])],
    "a column less": [pa.array([5]), None],
    "wider integers": [pa.array([5], pa.int32()), pa.array([1 << 40])],
    "narrower integers": [pa.array([1 << 40]), pa.array([5], pa.int32())],
    "wider decimals": [
        pa.array([Decimal("9.9")], pa.decimal128(4, 1)),
        pa.array([Decimal("1234.9")], pa.decimal128(9, 1)),
    ],
    "other floats": [pa.array([1.5], pa.float32()), pa.array([2.1]), pa.array([2.5], pa.float32())],
    "unsigned and signed": [pa.array([200], pa.uint8()), pa.array([-1], pa.int32())],
    "wider items": [pa.array([[1]], pa.list_(pa.int32())), pa.array([[1 << 40]])],
    "a field more": [pa.array([{"i": 1}]), pa.array([{"i": 1, "j": 2}])],
    "a field less": [pa.array([{"i": 1, "j": 2}]), pa.array([{"i": 1}])],
    "other fields": [pa.array([{"i": 1}]), pa.array([{"k": 1}])],
    "a field of items more": [pa.array([[{"i": 1}]]), pa.array([[{"i": 1, "j": 2}]])],
    "text for nothing": [None, pa.array(["x"]), None],
}


def test_columns_that_are_added_removed_and_widened_are_read_as_each_version_had_them(place: Place) -> None:
    dataset = place.dataset()
    versions = []
    for at in range(max(map(len, EVOLVING.values()))):
        columns = {name: (*arrays, arrays[-1])[at] for name, arrays in EVOLVING.items()}
        known = {name: values for name, values in columns.items() if values is not None}
        version = dataset.commit({"data": place.file(pa.table({"id": [1], **known}))})
        versions.append((version, place.export(version).snapshot_id))
    exported, listed = place.exported(version), place.listed(version)
    for version, snapshot in versions:
        found = exported.scan(snapshot_id=snapshot).to_arrow()
        assert_equal(found.select(_expected(version).column_names), _expected(version))
        assert set(found.column_names) == set(_expected(version).column_names)
        assert_equal(listed.scan(snapshot_id=version.number).to_arrow(), _expected(version))


EVOLVED: Mapping[str, Sequence[pa.Array | None]] = {
    "a field of items less": [pa.array([[{"i": 1, "j": 2}]]), pa.array([[{"i": 1}]])],
    "a field of values less": [
        pa.array([[("k", {"i": 1, "j": 2})]], pa.map_(pa.string(), pa.struct([("i", "i8"), ("j", "i8")]))),
        pa.array([[("k", {"i": 1})]], pa.map_(pa.string(), pa.struct([("i", "i8")]))),
    ],
    "wider keys": [
        pa.array([[(1, 1)]], pa.map_(pa.int32(), pa.int64())),
        pa.array([[(1 << 40, 1)]], pa.map_(pa.int64(), pa.int64())),
    ],
    "a field that comes back": [pa.array([{"i": 1, "j": 9}]), pa.array([{"i": 1}]), pa.array([{"i": 2, "j": 20}])],
    "a column that comes back": [pa.array([1]), None, pa.array([2])],
    "narrower decimals": [
        pa.array([Decimal("9.9")], pa.decimal128(9, 1)),
        pa.array([Decimal("9.9")], pa.decimal128(4, 1)),
    ],
    "text for a number": [pa.array([1]), pa.array(["x"])],
    "a moment for a date": [pa.array([dt.date(2026, 1, 1)]), pa.array([MOMENT])],
    "a zone": [pa.array([MOMENT]), pa.array([MOMENT], pa.timestamp("us", "UTC"))],
    "bytes that are text for text": [pa.array(["x"]), pa.array([b"x"])],
    "bytes for text": [pa.array(["x"]), pa.array([b"\x80"])],
    "text for bytes": [pa.array([b"\x80"]), pa.array(["x"])],
    "a struct for a number": [pa.array([1]), pa.array([{"x": 1}])],
    "a list for a struct": [pa.array([{"x": 1}]), pa.array([[1]])],
    "a struct for a list": [pa.array([[1]]), pa.array([{"element": 1}])],
    "a map for a list of structs": [pa.array([[{"x": 1}]]), pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))],
}


def _evolved(place: Place, case: str) -> list[Version]:
    dataset = place.dataset()
    tables = [pa.table({"id": [1]}) if values is None else _columns(values) for values in EVOLVED[case]]
    return [dataset.commit({"data": place.file(table)}) for table in tables]


@pytest.mark.parametrize("case", EVOLVED)
def test_each_version_of_a_changing_column_is_exported_or_refused(case: str, place: Place) -> None:
    """A refused version changes nothing of the others, which are read with the columns that they had."""
    exported: list[tuple[Version, int]] = []
    for version in _evolved(place, case):
        found = _read_or_refused(partial(place.export, version))
        if isinstance(found, str):
            assert "Export to a new table" in found
        else:
            exported.append((version, found.snapshot_id))
    table = place.exported(version)
    for version, snapshot in exported:
        assert_equal(table.scan(snapshot_id=snapshot).to_arrow(), _expected(version))
    assert_equal(table.scan().to_arrow(), _expected(exported[-1][0]))


def _is_nested(arrays: Sequence[pa.Array | None]) -> bool:
    return any(values is not None and pa.types.is_nested(values.type) for values in arrays)


@pytest.mark.parametrize("case", [case for case, arrays in EVOLVED.items() if _is_nested(arrays)])
def test_each_version_of_a_changing_nested_column_is_read_from_the_server(case: str, place: Place) -> None:
    versions = _evolved(place, case)
    table = place.listed(versions[-1])
    for version in versions:
        assert_equal(table.scan(snapshot_id=version.number).to_arrow(), _expected(version))


def test_each_version_of_columns_with_other_types_is_read_from_the_server(place: Place) -> None:
    changed = {case: (*arrays, arrays[-1]) for case, arrays in EVOLVED.items() if not _is_nested(arrays)}
    dataset = place.dataset()
    versions = []
    for at in range(3):
        known = {case: arrays[at] for case, arrays in changed.items() if arrays[at] is not None}
        versions.append(dataset.commit({"data": place.file(pa.table({"id": [at], **known}))}))
    table = place.listed(versions[-1])
    for version in versions:
        assert_equal(table.scan(snapshot_id=version.number).to_arrow(), _expected(version))


def test_a_refused_export_leaves_the_table_as_it_was(place: Place) -> None:
    dataset = place.dataset()
    first = dataset.commit({"data": place.file(pa.table({"id": [1], "a": [5]}))})
    exported = place.export(first)
    before = place.exported(first).metadata
    refused = dataset.commit({"data": place.file(pa.table({"id": [1], "a": ["x"]}))})
    with pytest.raises(InputError, match="as long and as string"):
        place.export(refused)
    assert place.exported(first).metadata == before
    unknown = place.dataset().commit({"data": place.file(pa.table({"id": pa.array([1], pa.uint64())}))})
    with pytest.raises(InputError):
        place.export(unknown)
    assert not place.catalog.table_exists(unknown.dataset.replace("/", "."))
    assert [exported.tag] == [tag.name for tag in dataset.tags()]


def test_an_added_file_is_a_snapshot_with_what_it_added_and_its_version(place: Place) -> None:
    dataset = place.dataset()
    paths = [place.file(pa.table({"id": [n]})) for n in range(3)]
    for paths_of in (paths[:2], paths, paths[1:]):
        version = dataset.commit({"data": paths_of})
        place.export(version)
    facts = [snapshot.summary for snapshot in place.exported(version).snapshots()]
    told = [
        [
            summary.additional_properties.get(name)
            for name in ("added-data-files", "deleted-data-files", "total-records")
        ]
        for summary in facts
        if summary is not None
    ]
    assert told == [["2", None, "2"], ["1", None, "3"], [None, "1", "2"]]
    assert [summary["registry.version"] for summary in facts if summary is not None] == ["1", "2", "3"]
    assert facts[-1] is not None
    assert facts[-1]["registry.digest"] == version.digest


def test_a_file_that_the_table_has_already_is_not_added_again(place: Place) -> None:
    dataset = place.dataset()
    path = place.file(pa.table({"id": [1]}))
    first = place.export(dataset.commit({"data": path}))
    again = place.export(dataset.commit({"data": [path, place.file(pa.table({"id": [2]}))]}))
    assert (first.added, again.added, again.kept, again.removed) == (1, 1, 1, 0)
    assert place.export(dataset.version()).added == 0
    assert place.exported(dataset.version()).scan().to_arrow().num_rows == 2


def test_a_table_that_was_dropped_is_exported_again_from_the_same_files(place: Place) -> None:
    version = place.dataset().commit({"data": place.file(pa.table({"id": [100], "a": ["hello"]}))})
    place.export(version)
    place.catalog.drop_table(version.dataset.replace("/", "."))
    assert_equal(place.read(version, "export"), _expected(version))


def test_tables_of_one_name_in_two_namespaces_are_different(place: Place) -> None:
    for at, namespace in enumerate(("north", "south")):
        version = place.dataset().commit({"data": place.file(pa.table({"id": [at]}))})
        export_iceberg(version, place.catalog, f"{namespace}.same")
    assert place.catalog.load_table("north.same").scan().to_arrow().to_pylist() == [{"id": 0}]
    assert place.catalog.load_table("south.same").scan().to_arrow().to_pylist() == [{"id": 1}]


def test_a_file_of_a_branch_is_read_from_the_branch_only(place: Place) -> None:
    dataset = place.dataset()
    main = dataset.commit({"data": place.file(pa.table({"id": [1]}))})
    dataset.create_branch("dev")
    paths = [place.file(pa.table({"id": [n], "a": [n]})) for n in (1, 2)]
    dataset.commit({"data": paths}, branch="dev")
    assert place.listed(main).scan().to_arrow().to_pylist() == [{"id": 1}]
    dev = place.rest.load_table(f"{main.dataset.replace('/', '.')}@dev").scan().to_arrow()
    assert sorted(dev["a"].to_pylist()) == [1, 2]


def test_files_of_old_snapshots_outlive_a_collection(place: Place) -> None:
    dataset = place.dataset()
    paths = [place.file(pa.table({"id": [n]})) for n in range(4)]
    snapshots = [place.export(dataset.commit({"data": paths[: n + 1]})).snapshot_id for n in range(3)]
    snapshots.append(place.export(dataset.commit({"data": pa.table({"id": [0, 1, 2, 3]})})).snapshot_id)
    with pytest.raises(InUse):
        dataset.delete_version("v1")
    place.served.owner.collect()
    table = place.exported(dataset.version())
    for rows, snapshot in enumerate(snapshots, 1):
        found = table.scan(snapshot_id=snapshot).to_arrow()
        assert sorted(found["id"].to_pylist()) == list(range(rows))


# --- what users do with the table ----------------------------------------------------------------------------------


def _exported(place: Place) -> tuple[Dataset, Table]:
    dataset = place.dataset()
    version = dataset.commit({"data": place.file(pa.table({"id": [1], "a": [5]}))})
    place.export(version)
    return dataset, place.exported(version)


def test_a_column_that_was_renamed_in_the_table_is_read_and_an_export_refused(place: Place) -> None:
    dataset, table = _exported(place)
    with table.update_schema() as update:
        update.rename_column("a", "renamed")
    assert table.scan().to_arrow().to_pylist() == [{"id": 1, "renamed": 5}]
    version = dataset.commit({"data": place.file(pa.table({"id": [2], "a": [6]}))})
    with pytest.raises(InputError, match=r"had a column 'a' in an earlier snapshot.*Export to a new table"):
        place.export(version)
    assert table.refresh().scan().to_arrow().to_pylist() == [{"id": 1, "renamed": 5}]


def test_a_column_that_was_added_to_the_table_is_gone_after_the_next_export(place: Place) -> None:
    dataset, table = _exported(place)
    with table.update_schema() as update:
        update.add_column("more", IntegerType())
    assert table.scan().to_arrow().to_pylist() == [{"id": 1, "a": 5, "more": None}]
    version = dataset.commit({"data": place.file(pa.table({"id": [2], "a": [6]}))})
    assert_equal(place.read(version, "export"), _expected(version))


def test_a_table_that_was_partitioned_is_refused(place: Place) -> None:
    dataset, table = _exported(place)
    with table.update_spec() as update:
        update.add_field("id", BucketTransform(4), "bucket")
    version = dataset.commit({"data": place.file(pa.table({"id": [2], "a": [6]}))})
    with pytest.raises(InputError, match="was changed by others since the last export"):
        place.export(version)


def test_files_have_names_for_readers_that_know_no_field_ids(place: Place) -> None:
    _, table = _exported(place)
    mapping = json.loads(table.properties["schema.name-mapping.default"])
    ids = {column.name: column.field_id for column in table.schema().fields}
    assert {name: entry["field-id"] for entry in mapping for name in entry["names"]} == ids


# --- files that are none -------------------------------------------------------------------------------------------


def _folder(place: Place) -> Path:
    folder = place.folder / f"hive{next(place.numbers)}"
    for part, text in (("1", "hello"), ("2", "world")):
        (folder / f"part={part}").mkdir(parents=True)
        pq.write_table(pa.table({"id": [int(part)], "text": [text]}), folder / f"part={part}" / "file.parquet")
    return folder


def test_a_folder_of_partitions_is_refused_and_its_files_have_their_own_columns_only(place: Place) -> None:
    folder = _folder(place)
    dataset = place.dataset()
    with pytest.raises(InputError, match="is a folder, not a file: add its files one by one"):
        dataset.commit({"data": folder})
    version = dataset.commit({"data": sorted(folder.rglob("*.parquet"))})
    for way in WAYS:
        found = place.read(version, way).sort_by("id").to_pylist()
        assert found == [{"id": 1, "text": "hello"}, {"id": 2, "text": "world"}]


def test_a_file_that_does_not_exist_is_refused(place: Place) -> None:
    dataset = place.dataset()
    with pytest.raises(RegistryError, match=r"absent\.parquet"):
        dataset.commit({"data": [place.file(pa.table({"id": [1]})), place.folder / "absent.parquet"]})
    with pytest.raises(NotFound):
        dataset.version()
