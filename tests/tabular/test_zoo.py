"""What is given is what is read: a zoo of every type of every library, each read back by every reader.

A cell is a value and a reader. It is equal, or it was refused with an error of ours: at the commit, or by the reader of a library
that has no such type (DuckDB and polars know no decimals of 76 digits); everything else is a fault.
"""

import datetime as dt
import math
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import polars.testing
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dataset_registry import Dataset, Registry, Version
from dataset_registry.errors import InputError, RegistryError
from dataset_registry.model.schema import ColumnStatistics
from dataset_registry.tabular import chunking
from tests.waiting import SAFETY

# --- values of every library -----------------------------------------------------------------------------------------


class Moment(NamedTuple):
    """A point in time, a time of day or a span, in nanoseconds: `at` without a zone (dates too), `instant` with one."""

    kind: str
    ns: int


_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY = 86_400 * 10**9


def of_arrow(values: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of an Arrow array as Python's, exactly; moments as `Moment`, what wraps other types unwrapped."""
    if isinstance(values, pa.ChunkedArray):
        return [value for chunk in values.chunks for value in of_arrow(chunk)]
    kind, types = values.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return of_arrow(values.storage)
    if types.is_dictionary(kind):
        known = of_arrow(values.dictionary)
        return [None if index is None else known[index] for index in values.indices.to_pylist()]
    if types.is_run_end_encoded(kind):
        return of_arrow(pc.run_end_decode(values))
    if types.is_union(kind):
        children = [of_arrow(values.field(i)) for i in range(kind.num_fields)]
        places = values.offsets.to_pylist() if kind.mode == "dense" else range(len(values))
        codes = {code: i for i, code in enumerate(kind.type_codes)}
        return [children[codes[code]][at] for code, at in zip(values.type_codes.to_pylist(), places, strict=True)]
    if types.is_struct(kind):
        columns = [(kind.field(i).name, of_arrow(values.field(i))) for i in range(kind.num_fields)]
        valid = values.is_valid().to_pylist()
        return [{name: column[row] for name, column in columns} if there else None for row, there in enumerate(valid)]
    if types.is_map(kind):  # whatever its key and value are called
        offsets = values.offsets.to_pylist()
        pairs = zip(of_arrow(values.keys), of_arrow(values.items), strict=True)
        entries = [{"key": key, "value": value} for key, value in pairs]
        there = values.is_valid().to_pylist()
        return [entries[a:b] if valid else None for a, b, valid in zip(offsets, offsets[1:], there, strict=False)]
    if types.is_nested(kind):
        return [None if not value.is_valid else of_arrow(value.values) for value in values]
    if types.is_timestamp(kind):
        return _moments("instant" if kind.tz else "at", values.cast(pa.int64()).to_pylist(), _NS[kind.unit])
    if kind == pa.month_day_nano_interval():  # how DuckDB hands over what lasts
        return [
            None if v is None else Moment("lasts", v.days * _DAY + v.nanoseconds) if not v.months else v
            for v in values.to_pylist()
        ]
    if types.is_duration(kind):
        return _moments("lasts", values.cast(pa.int64()).to_pylist(), _NS[kind.unit])
    if types.is_time(kind):
        return _moments(
            "time", values.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist(), _NS[kind.unit]
        )
    if types.is_date32(kind):
        return _moments("at", values.cast(pa.int32()).to_pylist(), _DAY)
    if types.is_date64(kind):
        return _moments("at", values.cast(pa.int64()).to_pylist(), _NS["ms"])
    if types.is_floating(kind):
        return [None if value is None else float(value) for value in values.to_pylist()]
    return list(values.to_pylist())


def _moments(kind: str, counts: Sequence[int | None], unit: int) -> list[Moment | None]:
    return [None if count is None else Moment(kind, count * unit) for count in counts]


def of_pandas(series: pd.Series) -> list[Any]:
    """The values of a pandas column in the same terms."""
    kind = series.dtype
    if isinstance(kind, pd.CategoricalDtype):
        known = of_pandas(pd.Series(kind.categories))
        return [None if code < 0 else known[code] for code in series.cat.codes.tolist()]
    if isinstance(kind, pd.ArrowDtype):
        return of_arrow(pa.chunked_array(series.array.__arrow_array__()))
    if isinstance(kind, pd.SparseDtype):
        return of_pandas(series.sparse.to_dense())
    if isinstance(kind, pd.IntervalDtype):
        sides = zip(
            of_pandas(pd.Series(series.array.left)),
            of_pandas(pd.Series(series.array.right)),
            series.isna(),
            strict=True,
        )
        return [None if none else {"left": left, "right": right} for left, right, none in sides]
    if isinstance(kind, pd.PeriodDtype) or kind.kind in "mM":
        unit = 1 if isinstance(kind, pd.PeriodDtype) else _NS[series.array.unit]
        none = series.isna().tolist()
        counts = [None if n else int(count) for n, count in zip(none, series.array.asi8, strict=True)]
        if isinstance(kind, pd.PeriodDtype):
            return counts
        zone = getattr(kind, "tz", None)
        return _moments("lasts" if kind.kind == "m" else "instant" if zone else "at", counts, unit)
    return [of_python(value) for value in series.tolist()]


def of_python(value: Any) -> Any:
    """A Python or numpy value in the same terms."""
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    match value:
        case np.ndarray():
            return of_pandas(pd.Series(value)) if value.dtype.kind in "mM" else [of_python(v) for v in value.tolist()]
        case np.datetime64() | np.timedelta64():
            return of_pandas(pd.Series([value]))[0]
        case np.generic():
            return value.item()
        case pd.Timestamp() | pd.Timedelta():
            count = value._value * _NS[value.unit]
            return Moment("lasts" if isinstance(value, pd.Timedelta) else "instant" if value.tzinfo else "at", count)
        case dt.datetime():
            naive = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
            return Moment("instant" if value.tzinfo else "at", _ns(naive - dt.datetime(1970, 1, 1)))
        case dt.date():
            return Moment("at", (value.toordinal() - 719_163) * _DAY)
        case dt.time():
            since = dt.timedelta(
                hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
            )
            return Moment("time", _ns(since))
        case dt.timedelta():
            return Moment("lasts", _ns(value))
        case uuid.UUID():
            return value.bytes
        case dict():
            return {key: of_python(inner) for key, inner in value.items()}
        case tuple() if type(value) is not tuple:  # an interval of months, days and nanoseconds
            return value
        case list() | tuple() | pl.Series():
            return [of_python(inner) for inner in value]
        case _:
            return value


def _ns(span: dt.timedelta) -> int:
    return span // dt.timedelta(microseconds=1) * 1000


def same(given: Any, found: Any, *, nan_is_null: bool = False) -> bool:
    """Whether two values are one, of whatever types: a wider type is as good, another value is not."""
    if given is None or found is None:
        other = found if given is None else given
        return other is None or (nan_is_null and isinstance(other, float) and math.isnan(other))
    if isinstance(given, Moment) or isinstance(found, Moment):
        return bool(given == found)
    if isinstance(given, dict) and isinstance(found, (list, tuple)):
        given, found = found, given
    if isinstance(found, dict) and list(found) == ["key", "value"] and type(given) in (list, tuple):
        found = list(found.values())
    if isinstance(given, dict) and isinstance(found, dict):
        return list(given) == list(found) and all(same(given[k], found[k], nan_is_null=nan_is_null) for k in given)
    if type(given) in (list, tuple) and type(found) in (list, tuple):
        return len(given) == len(found) and all(
            same(a, b, nan_is_null=nan_is_null) for a, b in zip(given, found, strict=True)
        )
    if isinstance(given, float) and isinstance(found, float):
        if math.isnan(given) or math.isnan(found):
            return math.isnan(given) and math.isnan(found)
        return given == found and math.copysign(1, given) == math.copysign(1, found)
    for one, other in ((given, found), (found, given)):
        if isinstance(one, bytes) and isinstance(other, str):
            return len(one) == 16 and str(uuid.UUID(bytes=one)) == other
    return bool(given == found)


def differs(given: Sequence[Any], found: Sequence[Any], *, nan_is_null: bool = False) -> str | None:
    """The first value that is not the one that was given."""
    if len(given) != len(found):
        return f"{len(given)} rows came back as {len(found)}"
    for row, (one, other) in enumerate(zip(given, found, strict=True)):
        if not same(one, other, nan_is_null=nan_is_null):
            return f"row {row}: {_short(one)} came back as {_short(other)}"
    return None


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, BaseException) else f"{type(value).__name__}: {value}"
    return " ".join(text.split())[:160]


# --- statistics ----------------------------------------------------------------------------------------------------

_ISO = re.compile(
    r"([+-]?\d{4,})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d(?::\d\d)?)?)?"
)
_LASTS = re.compile(r"(-?)PT([\d.]+)S")
_CLOCK = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?")


def of_bound(bound: Any, like: Any) -> Any:
    """A bound of the statistics in the terms of the column's values."""
    if isinstance(like, Moment) and like.kind == "lasts" and (lasts := _LASTS.fullmatch(str(bound))):
        return Moment("lasts", int(Decimal(lasts[1] + lasts[2]) * 10**9))
    if isinstance(like, float) and bound in ("inf", "-inf"):
        return float(bound)
    if isinstance(like, Moment) and like.kind == "time" and (clock := _CLOCK.fullmatch(str(bound))):
        return Moment("time", _clock(*clock.groups()))
    if isinstance(like, Moment) and (found := _ISO.fullmatch(str(bound))):
        year, month, day, *clock, zone = found.groups()
        ns = (dt.date(int(year), int(month), int(day)).toordinal() - 719_163) * _DAY + _clock(*clock)
        if zone and zone != "Z":
            ns -= (1 if zone[0] == "+" else -1) * _clock(zone[1:3], zone[4:6], zone[7:9] or None, None)
        return Moment("instant" if zone else "at", ns)
    if isinstance(like, Decimal) or (isinstance(like, int) and isinstance(bound, str)):
        return Decimal(bound)
    if isinstance(like, bytes) and isinstance(bound, str) and len(like) == 16:
        return uuid.UUID(bound).bytes
    return bound


def _clock(hours: str | None, minutes: str | None, seconds: str | None, fraction: str | None) -> int:
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return whole * 10**9 + int((fraction or "0").ljust(9, "0"))


def wrong_statistics(
    values: Sequence[Any], known: ColumnStatistics | None, *, is_nested: bool, nan_is_null: bool = False
) -> str | None:
    """What the statistics of a column say that its values do not. What pandas has no null for may be NaN."""
    if known is None:
        return None if is_nested else "there are no statistics"
    nulls = sum(value is None for value in values)
    nans = sum(isinstance(value, float) and math.isnan(value) for value in values) if nan_is_null else 0
    if known.null_count not in (nulls, nulls + nans) and not (is_nested and known.null_count is None):
        return f"{nulls} nulls are {known.null_count} in the statistics"
    there = [v for v in values if v is not None and not (isinstance(v, float) and math.isnan(v))]
    for name, bound, choose in (("min", known.min, min), ("max", known.max, max)):
        if bound is None:
            continue
        if not there or isinstance(there[0], dict | list):
            return f"{name} is {bound!r} of no values that have one"
        true = choose(there)
        if of_bound(bound, true) != true or isinstance(bound, bool) is not isinstance(true, bool):
            return f"{name} is {bound!r} in the statistics, and {_short(true)} in the column"
    return None


# --- the keeper ----------------------------------------------------------------------------------------------------

Read = Callable[[Version], Any]
ARROW: dict[str, Read] = {
    "to_arrow": lambda v: v.to_arrow(),
    "scan": lambda v: v.scan().to_table(),
    "parquet": lambda v: pa.concat_tables([pq.read_table(path) for path in v.paths()]),
    "to_duckdb": lambda v: v.to_duckdb().to_arrow_table(),
}
POLARS: dict[str, Read] = {"to_polars": lambda v: v.to_polars(), "lazy": lambda v: v.lazy().collect()}
READERS: dict[str, Read] = {
    **ARROW,
    **POLARS,
    "to_pandas": lambda v: v.to_pandas(),
    "statistics": lambda v: v.schema.components["data"].tables[0].statistics,
}


def columns_of(table: Any) -> list[list[Any]]:
    """The values of each column of a table that a reader gave."""
    if isinstance(table, pd.DataFrame):
        return [of_pandas(table.iloc[:, i]) for i in range(table.shape[1])]
    if isinstance(table, pl.DataFrame):
        return [of_polars(column) for column in table.get_columns()]
    return [of_arrow(column) for column in table.columns]


def of_polars(column: pl.Series) -> list[Any]:
    if column.dtype in (pl.Int128, pl.UInt128):
        return column.to_list()
    return of_arrow(column.to_arrow())


class Keeper:
    """Commits the animals of a family and looks at each through every reader."""

    def __init__(self, registry: Registry, family: str) -> None:
        self.registry, self.family = registry, family
        self.equal = 0
        self.refused: list[str] = []
        self.faults: list[str] = []
        self._halves: dict[tuple[str, ...], Version] = {}

    def commit(self, value: Any, dataset: Dataset | None = None) -> Version:
        return (dataset or self.registry.create_dataset(f"zoo/{uuid.uuid4().hex}")).commit({"data": value})

    def count(self, name: str, reader: str, fault: str | None) -> None:
        if fault is None:
            self.equal += 1
        else:
            self.faults.append(f"{self.family}: {name}: {reader}: {fault}")

    def refuse(self, name: str) -> None:
        self.refused += [name] * len(READERS)

    def close(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Say what was found, and fail where it is not what was given."""
        cells = self.equal + len(self.refused) + len(self.faults)
        counts = f"{self.equal:,} equal, {len(self.refused):,} refused, {len(self.faults):,} others"
        said = f"zoo ({self.family}): {cells:,} cells, {counts}"
        with capsys.disabled():
            print(f"\n{said}")
        assert cells, "the zoo is not empty"
        if self.faults:
            pytest.fail("\n".join([said, *self.faults]), pytrace=False)

    # --- Arrow tables: many columns at a time, and each alone where that does not go

    def arrow(self, table: pa.Table, expected: pa.Table | None = None, dataset: Dataset | None = None) -> None:
        try:
            version = self.commit(table, dataset)
        except RegistryError as error:
            refused = error.fields.get("columns") or (table.column_names if table.num_columns == 1 else [])
            for name in refused:
                self.refuse(name)
            rest = [name for name in table.column_names if name not in refused]
            for part in [table.select(rest)] if refused else _halves(table):
                if part.num_columns:
                    self.arrow(part, dataset=dataset)
            return
        except Exception as error:
            if table.num_columns > 1:
                for half in _halves(table):
                    self.arrow(half, dataset=dataset)
            else:
                for reader in READERS:
                    self.count(table.column_names[0], reader, f"the commit raised {_short(error)}")
            return
        self._halves.clear()
        for reader in READERS:
            self._read_arrow(expected or table, version, reader)

    def _read_arrow(self, table: pa.Table, version: Version, reader: str) -> None:
        try:
            found = READERS[reader](version)
            columns = None if reader == "statistics" else columns_of(found)
        except BaseException as error:
            _raise_what_is_meant(error)
            refused = error.fields.get("column") if isinstance(error, RegistryError) else None
            if table.num_columns == 1 or refused in table.column_names:
                self.count_raised(str(refused or table.column_names[0]), reader, error)
                parts = [table.select([name for name in table.column_names if name != refused])] if refused else []
            else:
                parts = list(_halves(table))
            for part in (part for part in parts if part.num_columns):
                names = tuple(part.column_names)
                if names not in self._halves:
                    self._halves[names] = self.commit(part)
                self._read_arrow(part, self._halves[names], reader)
            return
        if reader == "to_arrow" and found.schema.metadata != table.schema.metadata:
            metadata = f"schema metadata {table.schema.metadata} came back as {found.schema.metadata}"
            self.count("the table", reader, metadata)
        for position, field in enumerate(table.schema):
            given = of_arrow(table.column(position))
            if columns is None:
                fault = wrong_statistics(given, found.get(field.name), is_nested=_is_nested(field.type))
            else:
                fault = differs(given, columns[position], nan_is_null=reader == "to_pandas")
            if fault is None and reader == "to_arrow":
                fault = _other_field(field, found.schema.field(position))
                fault = fault or _other_categories(table.column(position), found.column(position))
            self.count(field.name, reader, fault)

    def count_raised(self, name: str, reader: str, error: BaseException) -> None:
        if isinstance(error, InputError) and "has no" in str(error) and reader in ("to_duckdb", "to_polars", "lazy"):
            self.refused.append(name)
        else:
            self.count(name, reader, f"raised {_short(error)}")

    # --- tables of other libraries, one at a time

    def other(
        self,
        name: str,
        make: Callable[[], Any],
        expected: Sequence[Sequence[Any]],
        strict: Mapping[str, Any],
        same_as: Version | None = None,
    ) -> Version | None:
        """A table that is read with these values by all, and as `strict` says by its own library's readers; its version.

        One that was committed as what `same_as` holds, with the same schema, needs no reading.
        """
        try:
            version = self.commit(make())
        except RegistryError:
            self.refuse(name)
            return None
        except BaseException as error:
            _raise_what_is_meant(error)
            for reader in READERS:
                self.count(name, reader, f"the commit raised {_short(error)}")
            return None
        if same_as is not None and (version.digest, version.schema) == (same_as.digest, same_as.schema):
            self.equal += len(READERS)
            return version
        for reader, read in READERS.items():
            try:
                found = read(version)
                if reader == "statistics":
                    known = list(found.items())
                    schema = version.schema.components["data"].tables[0].columns
                    names = [column.name for column in schema]
                    fault = None
                    for given, column in zip(expected, names, strict=False):
                        is_nested = bool(schema[names.index(column)].fields)
                        fault = fault or wrong_statistics(
                            given, dict(known).get(column), is_nested=is_nested, nan_is_null="to_pandas" in strict
                        )
                elif reader in strict:
                    fault = strict[reader](found)
                else:
                    columns = columns_of(found)
                    fault = None if len(columns) >= len(expected) else f"{len(columns)} columns came back"
                    for given, column in zip(expected, columns, strict=False):
                        fault = fault or differs(
                            given, column, nan_is_null=reader == "to_pandas" or "to_pandas" in strict
                        )
            except BaseException as error:
                _raise_what_is_meant(error)
                self.count_raised(name, reader, error)
                continue
            self.count(name, reader, fault)
        return version


def _raise_what_is_meant(error: BaseException) -> None:
    """Raise what ends the test run. A panic of polars is recorded like an error, although it is no Exception."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def _halves(table: pa.Table) -> Iterator[pa.Table]:
    middle = table.num_columns // 2
    yield table.select(range(middle))
    yield table.select(range(middle, table.num_columns))


def _is_nested(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _is_nested(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _is_nested(kind.value_type)
    return bool(pa.types.is_nested(kind))


def _other_field(given: pa.Field, found: pa.Field) -> str | None:
    if given.equals(found, check_metadata=True):
        return None
    if given.type != found.type:
        return f"{_short(str(given.type))} came back as {_short(str(found.type))}"
    if given.nullable != found.nullable:
        return f"nullable={given.nullable} came back as nullable={found.nullable}"
    if given.metadata != found.metadata:
        return f"field metadata {given.metadata} came back as {found.metadata}"
    if "map<" in str(given.type):  # what their entries are called Arrow's own files do not keep
        return None
    return f"inner names or metadata of {_short(str(given.type))} came back as {_short(str(found.type))}"


def _other_categories(given: pa.ChunkedArray, found: pa.ChunkedArray) -> str | None:
    """Where a column has one dictionary, that is what is read, used or not."""
    if not pa.types.is_dictionary(given.type) or not given.num_chunks or not found.num_chunks:
        return None
    first = of_arrow(given.chunk(0).dictionary)
    if None in first or any(differs(first, of_arrow(chunk.dictionary)) for chunk in given.chunks):
        return None
    for chunk in found.chunks:
        if differs(first, categories := of_arrow(chunk.dictionary)):
            return (
                f"{len(first)} categories {_short(first[:4])} came back as {len(categories)}: {_short(categories[:4])}"
            )
    return None


@pytest.fixture
def keeper(embedded: Registry, request: pytest.FixtureRequest) -> Keeper:
    family = request.node.callspec.params.get("form", "") if hasattr(request.node, "callspec") else ""
    name = request.node.function.__name__.removeprefix("test_").replace("_", " ")
    return Keeper(embedded, f"{name}, {family}" if family else name)


# --- Arrow: the animals --------------------------------------------------------------------------------------------

ROWS = 6


class Secret(pa.ExtensionType):
    """A type that is not registered."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "zoo.secret")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"\xff parameters"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "Secret":
        return cls()


def _cycled(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Six rows of these values, the third of them null."""
    rows = [values[i % len(values)] for i in range(ROWS)]
    rows[2] = None
    return pa.array(rows, kind)


def _integers(kind: pa.DataType) -> pa.Array:
    bits = kind.bit_width
    low, high = (0, 2**bits - 1) if pa.types.is_unsigned_integer(kind) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return _cycled([low, high, None, high - 1, 0, 1], kind)


def _timestamps(unit: str, zone: str | None) -> pa.Array:
    second = 10**9 // _NS[unit]
    if unit == "ns":
        counts = [-9_223_372_036_854_775_807, 2**63 - 1, None, 1, -1, 1_700_000_000_123_456_789]
    else:
        counts = [-62_135_596_800 * second, 253_402_300_800 * second - 1, None, 1, -1, 1_711_846_800 * second + 1]
    return _cycled(counts, pa.timestamp(unit, zone))


def _decimals(kind: pa.DataType) -> pa.Array:
    most = 10**kind.precision - 1
    raw = b"".join(count.to_bytes(kind.byte_width, "little", signed=True) for count in (most, -most, 7, 1, 0, most))
    return pa.Array.from_buffers(kind, ROWS, [pa.py_buffer(b"\x3b"), pa.py_buffer(raw)])


def _plain_animals() -> dict[str, pa.Array]:
    found = {"null": pa.nulls(ROWS), "bool": _cycled([True, False], pa.bool_())}
    for bits in (8, 16, 32, 64):
        for kind in (pa.type_for_alias(f"int{bits}"), pa.type_for_alias(f"uint{bits}")):
            found[str(kind)] = _integers(kind)
    for kind in (pa.float16(), pa.float32(), pa.float64()):
        found[f"{kind} with NaN"] = _cycled([1.5, math.nan, None, math.inf, -0.0, -math.inf], kind)
        found[f"{kind} with -0.0"] = _cycled([-0.0, 0.0, None, -0.0], kind)
        found[f"{kind}"] = _cycled([0.0, -1.5, None, 2.25], kind)
    for make, precision in ((pa.decimal32, 9), (pa.decimal64, 18), (pa.decimal128, 38), (pa.decimal256, 76)):
        for scale in (0, 2, precision, -3):
            kind = make(precision, scale)
            found[str(kind)] = _decimals(kind)
        found[str(make(1, 0))] = _decimals(make(1, 0))
    texts = ["", "ümläut 🦓", None, "nul\0nul", "z" * 300, "a"]
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        found[str(kind)] = _cycled(texts, kind)
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        found[str(kind)] = _cycled([b"", b"\xff\x00", None, b"z" * 300], kind)
    found["fixed_size_binary"] = _cycled([b"\xff\x00\x01", b"abc"], pa.binary(3))
    days = [-719_162, 2_932_896, None, -1, 0, 19_000]
    found["date32"] = _cycled(days, pa.date32())
    found["date64"] = pa.array([None if day is None else day * 86_400_000 for day in days], pa.date64())
    for kind, second in (
        (pa.time32("s"), 1),
        (pa.time32("ms"), 10**3),
        (pa.time64("us"), 10**6),
        (pa.time64("ns"), 10**9),
    ):
        found[str(kind)] = _cycled([0, 86_400 * second - 1, None, 1], kind)
    for unit in _NS:
        for zone in (None, "UTC", "Europe/Berlin", "+05:30", "-03:00"):
            found[str(pa.timestamp(unit, zone))] = _timestamps(unit, zone)
        found[f"duration {unit}"] = _cycled([-(2**52), 2**52, None, 1, -1, 90_061], pa.duration(unit))
    found["month_day_nano_interval"] = _cycled([(1, 2, 3), (-1, 0, 86_400 * 10**9)], pa.month_day_nano_interval())
    return found


def _far_animals() -> dict[str, pa.Array]:
    """Moments that no calendar of Python's has."""
    far = [-(2**62), 2**62, None, 2**63 - 1, 0]
    found = {f"timestamp {unit} far": _cycled(far, pa.timestamp(unit)) for unit in _NS}
    found |= {f"timestamp {unit} UTC far": _cycled(far, pa.timestamp(unit, "UTC")) for unit in _NS}
    found |= {f"duration {unit} far": _cycled(far, pa.duration(unit)) for unit in _NS}
    found["date32 far"] = _cycled([-(2**31), 2**31 - 1], pa.date32())
    found["date64 far"] = _cycled([-(2**30) * 86_400_000, 2**30 * 86_400_000], pa.date64())
    return found


def _wrapping_animals() -> dict[str, pa.Array]:
    found: dict[str, pa.Array] = {}
    texts = _cycled(["b", "a", None, "c", "b", ""], pa.string())
    for bits in (8, 16, 32, 64):
        for sign in ("int", "uint"):
            indices = pa.array([1, 0, None, 2, 1, 1], pa.type_for_alias(f"{sign}{bits}"))
            dictionary = pa.array(["b", "a", "", "unused"])
            found[f"dictionary of {sign}{bits}"] = pa.DictionaryArray.from_arrays(indices, dictionary)
    indices = pa.array([1, 0, None, 2, 1, 1], pa.int32())
    dictionaries = {
        "strings, ordered": pa.array(["low", "high", "middle"]),
        "large strings": pa.array(["b", "a", "c"], pa.large_string()),
        "views": pa.array(["b", "a", "c"], pa.string_view()),
        "binaries": pa.array([b"b", b"\xff", b""]),
        "ints": pa.array([2**62 + 1, -5, 0]),
        "floats": pa.array([1.5, math.nan, -0.0]),
        "bools": pa.array([True, False, None]),
        "dates": pa.array([-1, 0, 5], pa.date32()),
        "timestamps": pa.array([1, -1, 2**60 + 1], pa.timestamp("ns", "Europe/Berlin")),
        "timestamps in s": pa.array([1, -1, 5], pa.timestamp("s")),
        "durations": pa.array([1, -1, 5], pa.duration("us")),
        "decimals": pa.array([Decimal("1.5"), Decimal("-2.5"), Decimal(0)], pa.decimal128(5, 2)),
        "strings with a null": pa.array(["b", None, "a"]),
        "structs": pa.array([{"x": 1}, {"x": None}, {"x": 3}]),
        "lists": pa.array([[1], [], [None]]),
    }
    for name, dictionary in dictionaries.items():
        ordered = "ordered" in name
        found[f"dictionary of {name}"] = pa.DictionaryArray.from_arrays(indices, dictionary, ordered=ordered)
    many = pa.array([f"category {i}" for i in range(1500)])
    found["dictionary of 1,500"] = pa.DictionaryArray.from_arrays(pa.array([1499, 0, None, 7, 1, 1], pa.int16()), many)
    found["dictionary of 1,500 ints"] = pa.DictionaryArray.from_arrays(indices, pa.array(range(1500, 0, -1)))
    repeats = pa.array([2, 3, 6], pa.int32())
    found["runs of strings"] = pa.RunEndEncodedArray.from_arrays(repeats, pa.array(["a", None, "b"]))
    found["runs of ints"] = pa.RunEndEncodedArray.from_arrays(repeats.cast(pa.int16()), pa.array([1, None, 2]))
    found["runs of large strings"] = pa.RunEndEncodedArray.from_arrays(
        repeats.cast(pa.int64()), pa.array(["a", None, "b"], pa.large_string())
    )
    raw = _cycled([bytes(range(16)), b"\xff" * 16], pa.binary(16))
    found["uuid"] = pa.ExtensionArray.from_storage(pa.uuid(), raw)
    json = _cycled(['{"a": 1}', "[]"], pa.string())
    found["json"] = pa.ExtensionArray.from_storage(pa.json_(), json)
    found["json of large strings"] = pa.ExtensionArray.from_storage(
        pa.json_(pa.large_string()), json.cast(pa.large_string())
    )
    found["opaque"] = pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "bits", "zoo"), json.cast(pa.binary()))
    found["bool8"] = pa.ExtensionArray.from_storage(pa.bool8(), _cycled([1, 0, None, 0], pa.int8()))
    tensor = pa.FixedSizeListArray.from_arrays(pa.array(range(ROWS * 4), pa.int32()), 4)
    found["tensor"] = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), [2, 2]), tensor)
    codes = pa.array([0, 1, 0, 1, 0, 1], pa.int8())
    found["sparse union"] = pa.UnionArray.from_sparse(codes, [_integers(pa.int64()), texts], ["number", "text"])
    offsets = pa.array([0, 0, 1, 1, 2, 2], pa.int32())
    found["dense union"] = pa.UnionArray.from_dense(codes, offsets, [pa.array([1, 2, 3]), pa.array(["x", None, "z"])])
    return found


def _nested_animals() -> dict[str, pa.Array]:
    numbers, texts = [[1, None], [], None, [3], [2**62 + 1]], [["b"], [None, ""], None, []]
    found = {"list": _cycled(numbers, pa.list_(pa.int64())), "list of strings": _cycled(texts, pa.list_(pa.string()))}
    found["list with a name"] = _cycled(numbers, pa.list_(pa.field("number", pa.int64(), metadata={"unit": "m"})))
    found["list without nulls"] = _cycled([[1], [], None], pa.list_(pa.field("item", pa.int64(), nullable=False)))
    found["large_list"] = _cycled(numbers, pa.large_list(pa.int64()))
    found["list_view"] = _cycled(numbers, pa.list_view(pa.int64()))
    found["large_list_view"] = _cycled(numbers, pa.large_list_view(pa.int64()))
    found["fixed_size_list"] = _cycled([[1, None], [3, 4], None], pa.list_(pa.int16(), 2))
    found["fixed_size_list of none"] = _cycled([[], [], None], pa.list_(pa.int16(), 0))
    found["list of list"] = _cycled([[[1], None, []], [], None], pa.list_(pa.list_(pa.int8())))
    both = pa.struct([pa.field("x", pa.int64(), metadata={"k": "v"}), pa.field("y", pa.large_string())])
    found["struct"] = _cycled([{"x": 1, "y": "a"}, {"x": None, "y": None}, None], both)
    found["struct without nulls"] = _cycled(
        [{"x": 1}, {"x": 2}], pa.struct([pa.field("x", pa.int64(), nullable=False)])
    )
    found["struct of none"] = _cycled([{}, {}], pa.struct([]))
    found["struct of struct"] = _cycled([{"a": {"b": 1}}, {"a": None}], pa.struct({"a": pa.struct({"b": pa.int8()})}))
    found["struct with a dot"] = _cycled([{"a.b": 1, "a": 2}], pa.struct({"a.b": pa.int8(), "a": pa.int8()}))
    found["map"] = _cycled([[("a", 1), ("b", None)], [], None], pa.map_(pa.string(), pa.int64()))
    found["map of ints"] = _cycled([[(2, "x"), (1, None)], []], pa.map_(pa.int32(), pa.large_string()))
    found["map, sorted"] = _cycled([[("a", 1), ("b", None)], []], pa.map_(pa.string(), pa.int64(), keys_sorted=True))
    found["map with equal keys"] = _cycled([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64()))
    named = pa.map_(pa.field("from", pa.string(), nullable=False), pa.field("to", pa.int64(), nullable=False))
    found["map with names"] = _cycled([[("a", 1), ("b", 3)], []], named)
    return found


@cache
def animals() -> dict[str, pa.Array]:
    """Six rows of every type."""
    return {**_plain_animals(), **_far_animals(), **_wrapping_animals(), **_nested_animals()}


# --- Arrow: the cages ----------------------------------------------------------------------------------------------


def _in_list(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, 2, None, 3, len(values)], pa.int32()), values)


def _in_large_list(values: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array([0, 2, None, 3, len(values)], pa.int64()), values)


def _in_fixed(values: pa.Array) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(values, 2)


def _in_struct(values: pa.Array) -> pa.Array:
    fields = [pa.field("it", values.type), pa.field("n", pa.int8())]
    mask = pa.array([False, True, False, False, False, False])
    return pa.StructArray.from_arrays([values, pa.array(range(ROWS), pa.int8())], fields=fields, mask=mask)


def _in_map(values: pa.Array) -> pa.Array:
    return pa.MapArray.from_arrays(
        pa.array([0, 2, None, 2, ROWS], pa.int32()), pa.array([f"k{i}" for i in range(ROWS)]), values
    )


def _chunk_stream(values: pa.Array) -> list[pa.Array]:
    """Several chunks, the middle one empty; of dictionaries, each with another one."""
    chunks = [values.slice(0, 2), values.slice(2, 0), values.slice(2)]
    if pa.types.is_dictionary(values.type) and not pa.types.is_nested(values.type.value_type):
        used = values.cast(values.type.value_type).slice(3).dictionary_encode()
        other = pa.DictionaryArray.from_arrays(
            used.indices.cast(values.type.index_type), used.dictionary, ordered=values.type.ordered
        )
        chunks[2] = other
    return chunks


FORMS: dict[str, Callable[[pa.Array], pa.Array | list[pa.Array]]] = {
    "whole": lambda values: values,
    "empty": lambda values: values.slice(0, 0),
    "without chunks": lambda values: [],
    "all null": lambda values: pa.nulls(ROWS, values.type),
    "sliced": lambda values: values.slice(1, 4),
    "chunked": _chunk_stream,
    "required": lambda values: values.filter(pc.is_valid(values)).slice(0, 2),
    "with metadata": lambda values: values,
    "in a list": _in_list,
    "in a large list": _in_large_list,
    "in a fixed list": _in_fixed,
    "in a struct": _in_struct,
    "in a map": _in_map,
    "in a struct in a list": lambda values: _in_list(_in_struct(values)),
    "in a list in a struct": lambda values: pa.StructArray.from_arrays([_in_list(values)], ["inner"]),
    "sliced in a list": lambda values: _in_list(values.slice(1, 4)).slice(1, 3),
    "in a list, sliced": lambda values: _in_list(values).slice(1, 2),
    "in a fixed list, sliced": lambda values: _in_fixed(values).slice(1, 2),
    "in a struct, sliced": lambda values: _in_struct(values).slice(1, 4),
    "in a map, sliced": lambda values: _in_map(values).slice(1, 3),
    "in a list, chunked": lambda values: [_in_list(chunk) for chunk in _chunk_stream(values) if len(chunk) > 2] * 2,
}
_REQUIRED = {"required"}


def _tables(form: str) -> Iterator[pa.Table]:
    """The animals in a form, those of as many rows as one table."""
    found: dict[int, list[tuple[pa.Field, pa.ChunkedArray]]] = {}
    for name, values in animals().items():
        try:
            formed = FORMS[form](values)
            kind = formed[0].type if isinstance(formed, list) and formed else getattr(formed, "type", values.type)
            column = pa.chunked_array(formed, kind) if isinstance(formed, list) else pa.chunked_array([formed])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowKeyError):
            continue  # Arrow itself has no such thing
        nullable = form not in _REQUIRED or bool(column.null_count) or pa.types.is_null(kind)
        metadata = {b"unit": b"m\xff", b"": name.encode()} if form == "with metadata" else None
        found.setdefault(len(column), []).append((pa.field(name, kind, nullable, metadata), column))
    for columns in found.values():
        schema = pa.schema([field for field, _ in columns], {b"who": b"\x00\xff"} if form == "with metadata" else None)
        yield pa.Table.from_arrays([column for _, column in columns], schema=schema)


@pytest.mark.parametrize("form", FORMS)
def test_an_arrow_table_is_read_as_it_was_given(keeper: Keeper, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    for table in _tables(form):
        for field, column in zip(table.schema, table.columns, strict=True):
            assert column.type == field.type
            column.validate(full=True)
        keeper.arrow(table)
    keeper.close(capsys)


def test_an_arrow_table_of_several_parts_is_read_as_it_was_given(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chunking, "LEAST_ROWS", 16)
    monkeypatch.setattr(chunking, "PART_BYTES", 1 << 10)
    columns = {name: pa.chunked_array([values] * 30) for name, values in animals().items()}
    keeper.arrow(pa.table({**columns, "row": pa.array(range(30 * ROWS))}))
    keeper.close(capsys)


def test_types_that_hold_the_same_values_are_told_apart_in_one_dataset(
    keeper: Keeper, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = pa.array(["b", None, "a"])
    kinds = [texts, texts.cast(pa.large_string()), texts.cast(pa.string_view()), texts.dictionary_encode(), texts]
    kinds.append(pa.DictionaryArray.from_arrays(pa.array([1, None, 0]), pa.array(["a", "b"])))
    kinds.append(pa.DictionaryArray.from_arrays(pa.array([1, None, 0]), pa.array(["a", "b"]), ordered=True))
    kinds.append(pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), pa.array(["a", "b", "unused"])))
    kinds += [pa.array([0, None], pa.timestamp("s")), pa.array([0, None], pa.timestamp("ms"))]
    kinds += [pa.array([0, None], pa.date32()), pa.array([0, None], pa.date64())]
    kinds += [pa.array([[1]], pa.list_(pa.int8())), pa.array([[1]], pa.large_list(pa.int8()))]
    kinds += [pa.array([b"x" * 16], pa.binary(16))]
    kinds += [pa.ExtensionArray.from_storage(pa.uuid(), kinds[-1])]
    dataset = keeper.registry.create_dataset("zoo/same")
    for values in kinds:
        keeper.arrow(pa.table({"x": values}), dataset=dataset)
    for metadata in ({b"a": b"1"}, {b"a": b"2"}, None):
        keeper.arrow(pa.table({"x": texts}, pa.schema([pa.field("x", pa.string())], metadata)), dataset=dataset)
        keeper.arrow(
            pa.table({"x": texts}, pa.schema([pa.field("x", pa.string(), metadata=metadata)])), dataset=dataset
        )
    keeper.close(capsys)


def test_an_extension_type_that_nobody_registered_is_read_as_any_stream_brings_it(
    keeper: Keeper, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = _integers(pa.int64())
    tagged = {b"ARROW:extension:name": b"zoo.unknown", b"ARROW:extension:metadata": b"\xff\x00"}
    keeper.arrow(pa.table([raw], pa.schema([pa.field("tagged", pa.int64(), metadata=tagged)])))
    secret = pa.ExtensionArray.from_storage(Secret(), raw)
    for name, values in (
        ("secret", secret),
        ("secret in a list", _in_list(secret)),
        ("secret in a struct", _in_struct(secret)),
        (
            "secret of uuid-like bytes",
            pa.ExtensionArray.from_storage(pa.opaque(pa.binary(16), "x", "y"), _cycled([b"x" * 16], pa.binary(16))),
        ),
    ):
        table = pa.table({name: values})
        keeper.arrow(table, pa.RecordBatchReader.from_stream(table).read_all())
    keeper.close(capsys)


def test_a_registered_extension_type_is_read_as_that_type(keeper: Keeper, capsys: pytest.CaptureFixture[str]) -> None:
    pa.register_extension_type(Secret())
    try:
        secret = pa.ExtensionArray.from_storage(Secret(), _integers(pa.int64()))
        for name, values in (("secret", secret), ("in a list", _in_list(secret)), ("in a struct", _in_struct(secret))):
            keeper.arrow(pa.table({name: values}))
    finally:
        pa.unregister_extension_type("zoo.secret")
    keeper.close(capsys)


def test_batches_and_readers_are_read_as_the_tables_that_they_are(
    keeper: Keeper, capsys: pytest.CaptureFixture[str]
) -> None:
    column = {"large": pa.array(["a", None, "b"], pa.large_string())}
    schema = pa.schema([pa.field("large", pa.large_string(), metadata={"k": "v"})], {"a": "b"})
    batch = pa.record_batch(column, schema)
    table = pa.Table.from_batches([batch])
    for value in (batch, table.to_reader(), pa.RecordBatchReader.from_batches(schema, [batch, batch.slice(0, 0)])):
        version = keeper.commit(value)
        keeper.count(
            type(value).__name__, "to_arrow", differs(of_arrow(table["large"]), of_arrow(version.to_arrow()["large"]))
        )
        keeper.count(
            type(value).__name__,
            "schema",
            None
            if version.to_arrow().schema.equals(schema, check_metadata=True)
            else f"{_short(str(version.to_arrow().schema))}",
        )
    for name in ("", "a.b", "a b", "ümläut", "x" * 300, 'quo"te', "a\nb", "tab\t", "A"):
        keeper.arrow(pa.table({name: [1, None]}))
    keeper.arrow(pa.table({"a": [1], "A": [2]}))
    keeper.arrow(pa.table({"a": [1], "a.b": [2], "a.list.element": [3]}))
    for table in (pa.table([[1], [2]], names=["x", "x"]), pa.table({}), pa.table({"x": pa.array([], pa.int8())})):
        try:
            found = keeper.commit(table).to_arrow()
            keeper.count(str(table.column_names), "to_arrow", None if found.equals(table) else _short(found))
        except RegistryError:
            keeper.refuse(str(table.column_names))
        except Exception as error:
            keeper.count(str(table.column_names), "commit", _short(error))
    keeper.close(capsys)


# --- Arrow: what is broken -----------------------------------------------------------------------------------------

BROKEN = """
import sys
import numpy as np
import pyarrow as pa
from dataset_registry import Registry
from dataset_registry.errors import InputError, RegistryError

def buffer(values, kind): return pa.py_buffer(np.array(values, kind).tobytes())
def text(offsets, data, kind=pa.string(), width="i4"):
    return pa.Array.from_buffers(kind, len(offsets) - 1, [None, buffer(offsets, width), pa.py_buffer(data)])
def listed(offsets, kind=pa.list_(pa.int8())):
    return pa.Array.from_buffers(kind, len(offsets) - 1, [None, buffer(offsets, "i4")], children=[pa.array([1, 2, 3], pa.int8())])
def coded(indices, words=("a", "b")):
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(words), safe=False)
def fixed(kind, values, width): return pa.Array.from_buffers(kind, len(values), [None, buffer(values, width)])
wrong = text([0, 1, 3], b"a\\xff\\xfe")
wrong_long = text([0, 20], b"\\xff" * 20)
def field(kind): return pa.schema([pa.field("x", kind, nullable=False)])

ANIMALS = {
    "invalid UTF-8": lambda: wrong,
    "invalid UTF-8 in a large string": lambda: text([0, 1, 3], b"a\\xff\\xfe", pa.large_string(), "i8"),
    "invalid UTF-8 in a string view": lambda: wrong_long.view(pa.binary()).cast(pa.binary_view()).view(pa.string_view()),
    "invalid UTF-8 in a list": lambda: pa.ListArray.from_arrays([0, 2], wrong),
    "invalid UTF-8 in a struct": lambda: pa.StructArray.from_arrays([wrong], ["inner"]),
    "invalid UTF-8 in a map": lambda: pa.MapArray.from_arrays([0, 2], pa.array(["a", "b"]), wrong),
    "invalid UTF-8 in keys": lambda: pa.MapArray.from_arrays([0, 2], wrong, pa.array(["a", "b"])),
    "invalid UTF-8 in a dictionary": lambda: pa.DictionaryArray.from_arrays(pa.array([0, 1]), wrong),
    "invalid UTF-8 in a run": lambda: pa.RunEndEncodedArray.from_arrays(pa.array([1, 2], pa.int32()), wrong),
    "invalid UTF-8 in JSON": lambda: pa.ExtensionArray.from_storage(pa.json_(), wrong),
    "a surrogate": lambda: text([0, 3], b"\\xed\\xa0\\x80"),
    "an index beyond the dictionary": lambda: coded([0, 2]),
    "an index before the dictionary": lambda: coded([0, -1]),
    "an index into nothing": lambda: coded([0], words=pa.array([], pa.string())),
    "a wrong index in a list": lambda: pa.ListArray.from_arrays([0, 2], coded([0, 9])),
    "a wrong index in a struct": lambda: pa.StructArray.from_arrays([coded([0, 9])], ["inner"]),
    "offsets beyond the text": lambda: text([0, 1, 9_000_000], b"ab"),
    "offsets that go back": lambda: text([0, 2, 1], b"ab"),
    "negative offsets": lambda: text([-5, 1, 2], b"ab"),
    "offsets beyond the list": lambda: listed([0, 1, 9_000_000]),
    "lists that go back": lambda: listed([0, 3, 1]),
    "negative lists": lambda: listed([-4, 1, 2]),
    "a short fixed list": lambda: pa.Array.from_buffers(pa.list_(pa.int8(), 2), 4, [None], children=[pa.array([1, 2], pa.int8())]),
    "a short struct": lambda: pa.Array.from_buffers(pa.struct({"a": pa.int8()}), 4, [None], children=[pa.array([1], pa.int8())]),
    "a short buffer": lambda: pa.Array.from_buffers(pa.int64(), 1000, [None, pa.py_buffer(b"12345678")]),
    "a short list view": lambda: pa.ListViewArray.from_arrays(pa.array([0, 2], pa.int32()), pa.array([1, 900], pa.int32()), pa.array([1, 2, 3])),
    "runs that go back": lambda: pa.Array.from_buffers(pa.run_end_encoded(pa.int32(), pa.int64()), 3, [None], children=[pa.array([3, 2], pa.int32()), pa.array([1, 2])]),
    "runs that are short": lambda: pa.Array.from_buffers(pa.run_end_encoded(pa.int32(), pa.int64()), 9, [None], children=[pa.array([1, 2], pa.int32()), pa.array([1, 2])]),
    "a decimal beyond its precision": lambda: fixed(pa.decimal128(3, 0), [123456, 0], "i8").slice(0, 1),
    "a time beyond the day": lambda: fixed(pa.time32("s"), [86_400 * 3], "i4"),
    "a negative time": lambda: fixed(pa.time64("us"), [-1], "i8"),
    "a date64 within a day": lambda: fixed(pa.date64(), [86_400_001], "i8"),
    "nulls where none may be": lambda: pa.table([pa.array([1, None])], field(pa.int64())),
    "null texts where none may be": lambda: pa.table([pa.array(["a", None])], field(pa.string())),
    "null keys of a map": lambda: pa.MapArray.from_arrays([0, 2], pa.array(["a", None]), pa.array([1, 2])),
    "null elements where none may be": lambda: pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), pa.array([1, None]), type=pa.list_(pa.field("item", pa.int64(), nullable=False))),
    "null members where none may be": lambda: pa.StructArray.from_arrays([pa.array([1, None])], fields=[pa.field("a", pa.int64(), nullable=False)]),
    "timestamps that overflow": lambda: pa.array([2**62], pa.timestamp("s")),
}
def views():
    return pa.ListViewArray.from_arrays(pa.array([4, 0, 0, 3], pa.int32()), pa.array([2, 3, 0, 2], pa.int32()), pa.array(range(6)))
SOUND = {
    "a list view out of order": views,
    "a list view out of order, sliced": lambda: views().slice(1, 2),
    "a list view out of order in a struct, sliced": lambda: pa.StructArray.from_arrays([views()], ["inner"]).slice(1, 2),
    "a list view out of order in a list, sliced": lambda: pa.ListArray.from_arrays([0, 1, 4], views()).slice(1, 1),
    "a wrong index under a null": lambda: pa.DictionaryArray.from_arrays(pa.Array.from_buffers(pa.int32(), 2, [pa.py_buffer(b"\\x01"), buffer([0, 9], "i4")]), pa.array(["a"]), safe=False),
    "invalid UTF-8 under a null": lambda: pa.Array.from_buffers(pa.string(), 2, [pa.py_buffer(b"\\x01"), buffer([0, 1, 2], "i4"), pa.py_buffer(b"a\\xff")]),
    "invalid UTF-8 outside of a slice": lambda: wrong.slice(0, 1),
}
names = [*ANIMALS, *SOUND]
with Registry.open(sys.argv[1]) as registry:
    for number, name in enumerate(names):
        if number < int(sys.argv[2]):
            continue
        made = None
        try:
            made = {**ANIMALS, **SOUND}[name]()
            table = made if isinstance(made, pa.Table) else pa.table({"x": made})
        except Exception as error:
            print(f"{name}\\tabsent\\t{type(error).__name__}: {error}".splitlines()[0], flush=True)
            continue
        try:
            version = registry.create_dataset(f"broken/{number}").commit({"data": table})
        except RegistryError as error:
            says = f"fault\\trefused: {error}" if name in SOUND else "refused"
        except BaseException as error:
            says = f"fault\\tthe commit raised {type(error).__name__}: {error}"
        else:
            says = "fault\\tcommitted"
            try:
                found = version.to_arrow().column("x")
                found.validate(full=True)
                says += f", and read as {found.to_pylist()!r}"
                if name in SOUND:
                    wanted = table.column("x").to_pylist()
                    says = "equal" if found.to_pylist() == wanted else f"{says}, not {wanted!r}"
            except BaseException as error:
                says += f", and reading raised {type(error).__name__}: {error}"
        print(f"{name}\\t" + " ".join(says.split("\\n"))[:250], flush=True)
print("done", flush=True)
"""  # noqa: E501
"""What no library makes and any may hand over, in a process that may be lost over it."""


def test_an_array_that_is_not_valid_is_refused_at_the_commit(
    tmp_path: Path, keeper: Keeper, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    while not lines or lines[-1] != "done":
        script = [sys.executable, "-c", BROKEN, str(tmp_path / "broken"), str(len(lines))]
        done = subprocess.run(script, capture_output=True, text=True, timeout=SAFETY, check=False)
        found = done.stdout.splitlines()
        lines += found
        if done.returncode != 0:
            assert done.returncode < 0, done.stderr
            lines.append(f"number {len(lines)}\tfault\tthe process ended with signal {-done.returncode}")
    for name, outcome, *more in (line.split("\t") for line in lines[:-1]):
        if outcome == "refused":
            keeper.refused.append(name)
        elif outcome != "absent":
            keeper.count(name, "commit", " ".join(more) if outcome == "fault" else None)
    keeper.close(capsys)


# --- pandas --------------------------------------------------------------------------------------------------------


def _pandas_animals() -> dict[str, Callable[[], pd.DataFrame]]:
    def column(values: Any, **options: Any) -> Callable[[], pd.DataFrame]:
        return lambda: pd.DataFrame({"x": pd.Series(values, **options)})

    big = 2**62 + 1
    moments = ["0001-01-01", "2024-03-31T01:30:00.123456", None, "1960-05-05", "9999-12-31T23:59:59.999999"]
    found: dict[str, Callable[[], pd.DataFrame]] = {}
    for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        info = np.iinfo(kind)
        found[kind] = column([info.min, info.max, 0], dtype=kind)
        nullable = ("UInt" if kind[0] == "u" else "Int") + kind.lstrip("uint")
        found[nullable] = column([info.min, None, info.max], dtype=nullable)
        found[f"{kind}[pyarrow]"] = column([info.min, None, info.max], dtype=f"{kind}[pyarrow]")
    for kind in ("float16", "float32", "float64"):
        found[kind] = column([1.5, np.nan, np.inf, -0.0], dtype=kind)
    for kind in ("Float32", "Float64"):
        found[kind] = column([1.5, None, -0.0], dtype=kind)
    found["Float64 with NaN"] = lambda: pd.DataFrame(
        {"x": pd.arrays.FloatingArray(np.array([1.5, np.nan, 2.0]), np.array([False, False, True]))}
    )
    found["bool"] = column([True, False])
    found["boolean"] = column([True, None, False], dtype="boolean")
    found["complex"] = column([1 + 2j])
    found["str"] = column(["a", None, "ümläut"], dtype="str")
    for storage in ("python", "pyarrow"):
        found[f"string[{storage}]"] = column(["a", None, "b"], dtype=pd.StringDtype(storage, na_value=pd.NA))
        found[f"string[{storage}] with NaN"] = column(["a", None, "b"], dtype=pd.StringDtype(storage, na_value=np.nan))
    found["string[pyarrow] of Arrow"] = column(["a", None, "b"], dtype=pd.ArrowDtype(pa.string()))
    found["large string of Arrow"] = column(["a", None, "b"], dtype=pd.ArrowDtype(pa.large_string()))
    for kind in (
        pa.decimal128(5, 2),
        pa.date32(),
        pa.timestamp("s", "UTC"),
        pa.list_(pa.int8()),
        pa.time64("us"),
        pa.duration("ms"),
        pa.dictionary(pa.int8(), pa.string()),
    ):
        values = {"decimal128(5, 2)": [Decimal("1.50"), None], "date32[day]": [dt.date(2020, 1, 1), None]}.get(
            str(kind)
        )
        values = values or of_sample(kind)
        found[f"{kind} of Arrow"] = lambda values=values, kind=kind: pd.DataFrame(
            {
                "x": pd.Series(
                    pd.array(
                        pa.array(values, kind).to_pylist() if not pa.types.is_dictionary(kind) else values,
                        dtype=pd.ArrowDtype(kind),
                    )
                )
            }
        )
    objects: dict[str, list[Any]] = {
        "str": ["a", None, "b"],
        "bytes": [b"a", None, b"\xff"],
        "Decimal": [Decimal("1.50"), None, Decimal("-22.125")],
        "date": [dt.date(2020, 1, 1), None],
        "time": [dt.time(12, 30, 1, 5), None],
        "datetime": [dt.datetime(2020, 1, 1, 5), None],
        "timedelta": [dt.timedelta(1), None],
        "dict": [{"a": 1}, None, {"a": 2}],
        "dicts of other keys": [{"a": 1}, {"b": 2}],
        "list": [[1, 2], None, []],
        "array": [np.array([1, 2]), None],
        "tuple": [(1, 2), None],
        "bool": [True, None, False],
        "int": [1, None, big],
        "int beyond 64 bits": [2**70],
        "float": [1.5, None],
        "int and float": [1, 2.5],
        "mixed": [1, "a"],
        "nothing": [None, None],
        "UUID": [uuid.UUID(int=5), None],
        "set": [{1}],
        "Timestamp": [pd.Timestamp("2020-01-01", tz="UTC"), pd.Timestamp("2020-01-01", tz="Europe/Berlin")],
    }
    for name, values in objects.items():
        found[f"object of {name}"] = lambda values=values: pd.DataFrame(
            {"x": pd.Series([*values, None], dtype=object)[: len(values)]}
        )
    found["category"] = column(["b", None, "a"], dtype=pd.CategoricalDtype(["b", "a", "unused"]))
    found["category, ordered"] = column(["b", "a"], dtype=pd.CategoricalDtype(["b", "a"], ordered=True))
    found["category of 1,500"] = column([f"c{i}" for i in range(1499, -1, -1)], dtype="category")
    found["category of 1,500 unused"] = column(
        ["c1", "c0"], dtype=pd.CategoricalDtype([f"c{i}" for i in range(1500)], ordered=True)
    )
    found["category of ints"] = column([3, 1, None], dtype=pd.CategoricalDtype([3, 1, 2]))
    found["category of floats"] = column([3.5, 1.5, None], dtype=pd.CategoricalDtype([3.5, 1.5]))
    found["category of timestamps"] = column(pd.to_datetime(["2020-01-01", "2019-01-01"]), dtype="category")
    found["category of zoned timestamps"] = column(
        pd.to_datetime(["2020-01-01", "2019-01-01"], utc=True).tz_convert("Europe/Berlin"), dtype="category"
    )
    found["category of bools"] = column([True, False, None], dtype="category")
    found["category of objects"] = column(pd.Series(["b", "a"], dtype=object), dtype="category")
    found["category of dates"] = column(
        pd.Series([dt.date(2020, 1, 1), dt.date(2019, 1, 1)], dtype=object), dtype="category"
    )
    found["category of intervals"] = column(pd.cut([1, 5, 9], 3))
    found["category of nothing"] = column([None, None], dtype=pd.CategoricalDtype(["a", "b"]))
    found["category, empty"] = column([], dtype=pd.CategoricalDtype(["a", "b"], ordered=True))
    for unit in ("s", "ms", "us", "ns"):
        texts = moments if unit != "ns" else ["1700-01-01", "2024-03-31T01:30:00.123456789", None]
        for zone in (None, "UTC", "Europe/Berlin", dt.timezone(dt.timedelta(hours=5, minutes=30)), "America/St_Johns"):
            kind = f"datetime64[{unit}]" if zone is None else pd.DatetimeTZDtype(unit, zone)
            naive = pd.Series(
                [None if t is None else np.datetime64(t).astype(f"M8[{unit}]") for t in texts],
                dtype=f"datetime64[{unit}]",
            )
            values = (
                naive
                if zone is None
                else naive.iloc[1:4].reset_index(drop=True).dt.tz_localize("UTC").dt.tz_convert(zone)
            )
            found[str(kind)] = column(values)
        found[f"timedelta64[{unit}]"] = column(np.array([1, -1, 2**40, "NaT"], f"m8[{unit}]"))
    for freq in ("D", "M", "h", "Y", "W", "Q"):
        found[f"Period {freq}"] = column(pd.period_range("2020-01-01", periods=3, freq=freq))
    found["Period with NaT"] = column(pd.PeriodIndex(["2020-01", None], freq="M"))
    found["Interval"] = column(pd.interval_range(0, 3))
    found["Interval, closed left"] = column(pd.interval_range(0.5, 3.5, closed="left"))
    found["Interval with null"] = column(pd.arrays.IntervalArray.from_tuples([(0, 1), None, (1, 2)]))
    found["Interval of moments"] = column(pd.interval_range(pd.Timestamp("2020"), periods=2))
    found["Sparse"] = column(pd.arrays.SparseArray([0, 0, 1]))
    found["Sparse float"] = column(pd.arrays.SparseArray([np.nan, 1.5]))
    found["Sparse bool"] = column(pd.arrays.SparseArray([True, False]))
    for name, make in list(found.items()):
        found[f"{name}, no rows"] = lambda make=make: make().iloc[:0].reset_index(drop=True)
    return found


def of_sample(kind: pa.DataType) -> list[Any]:
    return ["a", None, "b"] if pa.types.is_dictionary(kind) else [[1], None] if pa.types.is_list(kind) else [1, None]


def _pandas_shapes() -> dict[str, Callable[[], pd.DataFrame]]:
    def indexed(index: Any) -> Callable[[], pd.DataFrame]:
        return lambda: pd.DataFrame({"v": [1.5, 2.5, 3.5]}, index=index)

    def columned(columns: Any) -> Callable[[], pd.DataFrame]:
        return lambda: pd.DataFrame([[1, 2.5], [3, 4.5]], columns=columns)

    def with_attrs() -> pd.DataFrame:
        frame = pd.DataFrame({"v": [1]})
        frame.attrs = {"source": "zoo", "n": 1, "nested": {"a": [1]}}
        return frame

    def pivot() -> pd.DataFrame:
        frame = pd.DataFrame({"row": [1, 1, 2], "kind": pd.Categorical(["a", "b", "a"]), "v": [1, 2, 3]})
        return frame.pivot_table(index="row", columns="kind", values="v", observed=True)

    levels = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["left", "right"])
    moments = pd.date_range("2020-01-01", periods=3, freq="D")
    return {
        "index: default": indexed(None),
        "index: named default": indexed(pd.RangeIndex(3, name="id")),
        "index: range from 10": indexed(pd.RangeIndex(10, 13)),
        "index: range with steps": indexed(pd.RangeIndex(0, 6, 2)),
        "index: named range with steps": indexed(pd.RangeIndex(10, 40, 10, name="id")),
        "index: named int": indexed(pd.Index([5, 1, 9], name="id")),
        "index: unnamed int with gaps": indexed(pd.Index([0, 1, 3])),
        "index: named string": indexed(pd.Index(["x", "y", "z"], name="key")),
        "index: unnamed string": indexed(pd.Index(["x", "y", "z"])),
        "index: string object": indexed(pd.Index(["x", "y", None], dtype=object, name="key")),
        "index: named as a column": lambda: pd.DataFrame({"v": [1, 2]}, index=pd.Index([7, 8], name="v")),
        "index: name is an int": indexed(pd.Index([5, 1, 9], name=3)),
        "index: name is a tuple": indexed(pd.Index([5, 1, 9], name=("a", 1))),
        "index: float": indexed(pd.Index([0.5, np.nan, 2.5], name="f")),
        "index: bool": indexed(pd.Index([True, False, True], name="b")),
        "index: repeated": indexed(pd.Index(["x", "x", "y"], name="key")),
        "index: levels": indexed(levels),
        "index: levels without names": indexed(levels.set_names([None, None])),
        "index: levels with one name": indexed(levels.set_names(["left", None])),
        "index: levels with nulls": indexed(
            pd.MultiIndex.from_tuples([("a", 1.5), ("a", np.nan), ("b", 1.5)], names=["l", "r"])
        ),
        "index: moments with freq": indexed(moments.rename("at")),
        "index: unnamed moments with freq": indexed(moments),
        "index: moments without freq": indexed(pd.DatetimeIndex(["2020-01-01", "2020-01-05", "2020-01-02"], name="at")),
        "index: zoned moments": indexed(
            pd.date_range("2020-03-28", periods=3, freq="D", tz="Europe/Berlin", name="at")
        ),
        "index: months with freq": indexed(pd.date_range("2020-01-31", periods=3, freq="ME", name="at")),
        "index: spans": indexed(pd.timedelta_range("1h", periods=3, name="since")),
        "index: periods": indexed(pd.period_range("2020-01", periods=3, freq="M", name="month")),
        "index: intervals": indexed(pd.interval_range(0, 3, name="bin")),
        "index: categories": indexed(
            pd.CategoricalIndex(["b", "a", "b"], categories=["b", "a", "unused"], ordered=True, name="c")
        ),
        "index: Int64": indexed(pd.Index(pd.array([1, None, 2**62 + 1], dtype="Int64"), name="i")),
        "index: uint8": indexed(pd.Index(np.array([1, 2, 3], "uint8"), name="i")),
        "index only": lambda: pd.DataFrame(index=pd.Index(["x", "y"], name="key")),
        "rows only": lambda: pd.DataFrame(index=range(3)),
        "nothing": pd.DataFrame,
        "columns: ints": columned([0, 1]),
        "columns: other ints": columned([5, 3]),
        "columns: int and text": columned([0, "a"]),
        "columns: int and its text": columned([0, "0"]),
        "columns: floats": columned([0.5, 1.5]),
        "columns: moments": columned(pd.to_datetime(["2020-01-01", "2020-01-02"])),
        "columns: moments with freq": columned(pd.date_range("2020-01-01", periods=2)),
        "columns: bools": columned([True, False]),
        "columns: tuples": columned(pd.Index([("a", 1), ("b", 2)], tupleize_cols=False)),
        "columns: None": columned([None, "a"]),
        "columns: object": columned(pd.Index(["a", "b"], dtype=object)),
        "columns: levels": columned(pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])),
        "columns: named levels": columned(pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["top", "sub"])),
        "columns: named": columned(pd.Index(["a", "b"], name="kind")),
        "columns: categories": columned(pd.CategoricalIndex(["a", "b"])),
        "columns: a pivot": pivot,
        "columns: repeated": columned(["a", "a"]),
        "columns: a transposed frame": lambda: pd.DataFrame({"x": [1, 2]}, index=["r", "s"]).T,
        "columns: intervals": columned(pd.interval_range(0, 2)),
        "columns: periods": columned(pd.period_range("2020", periods=2, freq="M")),
        "attrs": with_attrs,
        "flags": lambda: pd.DataFrame({"v": [1]}).set_flags(allows_duplicate_labels=False),
        "a slice of rows": lambda: pd.DataFrame({"v": range(10)})[3:6],
        "a filtered frame": lambda: pd.DataFrame({"v": range(10)}).query("v % 3 == 1"),
        "a grouped frame": lambda: (
            pd.DataFrame({"k": ["a", "b", "a"], "v": [1, 2, 3]}).groupby("k").agg(["sum", "mean"])
        ),
        "a described frame": lambda: pd.DataFrame({"v": [1.0, 2.0]}).describe(),
        "int64 and null beyond 2**53": lambda: pd.DataFrame(
            {"i": pd.array([2**53 + 1, None], "Int64"), "j": [2**53 + 1, 0]}
        ),
    }


def _strict_pandas(given: pd.DataFrame) -> Callable[[pd.DataFrame], str | None]:
    def compare(found: pd.DataFrame) -> str | None:
        index = given.index
        is_plain = index.nlevels == 1 and index.name is None and index.dtype == "int64"
        wanted = given if not is_plain or found.index.equals(index) else given.reset_index(drop=True)
        pd.testing.assert_frame_equal(
            found, wanted, check_exact=True, check_freq=True, check_column_type=given.shape[1] > 0 or "equiv"
        )
        for name, one, other in zip(wanted.columns, wanted.dtypes, found.dtypes, strict=True):
            if isinstance(one, pd.CategoricalDtype) and one.categories.dtype != other.categories.dtype:
                return f"{name}: categories of {one.categories.dtype} came back as {other.categories.dtype}"
            if isinstance(one, pd.StringDtype) and (one.storage, repr(one.na_value)) != (
                other.storage,
                repr(other.na_value),
            ):
                return f"{name}: {one!r} came back as {other!r}"
        values = [differs(of_pandas(wanted.iloc[:, i]), of_pandas(found.iloc[:, i])) for i in range(wanted.shape[1])]
        fault = next((value for value in values if value), None)
        if fault is None and found.attrs != given.attrs:
            fault = f"attrs {given.attrs} came back as {found.attrs}"
        return fault

    return compare


@pytest.mark.parametrize("form", ["columns", "shapes"])
def test_a_pandas_frame_is_read_as_it_was_given(keeper: Keeper, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, make in (_pandas_animals() if form == "columns" else _pandas_shapes()).items():
        given = make()
        keeper.other(name, lambda given=given: given, columns_of(given), {"to_pandas": _strict_pandas(given.copy())})
    keeper.close(capsys)


# --- polars --------------------------------------------------------------------------------------------------------


def _polars_animals() -> dict[str, Callable[[], pl.Series]]:
    def series(values: Any, kind: Any, **options: Any) -> Callable[[], pl.Series]:
        return lambda: pl.Series("x", values, dtype=kind, **options)

    found: dict[str, Callable[[], pl.Series]] = {}
    for kind in (
        pl.Int8,
        pl.Int16,
        pl.Int32,
        pl.Int64,
        pl.Int128,
        pl.UInt8,
        pl.UInt16,
        pl.UInt32,
        pl.UInt64,
        pl.UInt128,
    ):
        bits = int(str(kind).removeprefix("U").removeprefix("Int"))
        low, high = (0, 2**bits - 1) if str(kind)[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        found[str(kind)] = series([low, None, high], kind)
    for kind in (pl.Float16, pl.Float32, pl.Float64):
        found[str(kind)] = series([1.5, math.nan, None, math.inf, -0.0], kind)
    found["Boolean"] = series([True, None, False], pl.Boolean)
    found["String"] = series(["a", None, "ümläut", "z" * 40], pl.String)
    found["Binary"] = series([b"a", None, b"\xff"], pl.Binary)
    found["Null"] = series([None, None], pl.Null)
    found["Date"] = series([dt.date(1, 1, 1), None, dt.date(9999, 12, 31)], pl.Date)
    found["Time"] = series([dt.time(0), None, dt.time(23, 59, 59, 999_999)], pl.Time)
    for unit in ("ms", "us", "ns"):
        for zone in (None, "UTC", "Europe/Berlin", "America/St_Johns"):
            found[f"Datetime {unit} {zone}"] = lambda unit=unit, zone=zone: pl.Series("x", [-1, None, 10**15 + 1]).cast(
                pl.Datetime(unit, zone)
            )
        found[f"Duration {unit}"] = lambda unit=unit: pl.Series("x", [-1, None, 10**15 + 1]).cast(pl.Duration(unit))
    for precision, scale in ((38, 0), (38, 38), (10, 2), (1, 0)):
        most, least = (Decimal((sign, (9,) * precision, -scale)) for sign in (0, 1))
        found[f"Decimal {precision} {scale}"] = series([most, None, least], pl.Decimal(precision, scale))
    found["Categorical"] = series(["b", None, "a", "b"], pl.Categorical)
    found["Categorical of its own"] = series(["b", None, "a"], pl.Categorical(pl.Categories("zoo", "here", pl.UInt8)))
    found["Categorical of 1,500"] = series([f"c{i}" for i in range(1500)], pl.Categorical)
    found["Enum"] = series(["b", None, "a"], pl.Enum(["unused", "b", "a"]))
    found["Enum of 1,500"] = series(["c7", "c3"], pl.Enum([f"c{i}" for i in range(1500)]))
    found["Enum of nothing"] = series([None], pl.Enum([]))
    found["Object"] = lambda: pl.Series("x", [object(), object()], dtype=pl.Object)
    found["Object of sets"] = lambda: pl.Series("x", [{1}, None], dtype=pl.Object)
    found["Array"] = series([[1, None], None, [3, 4]], pl.Array(pl.Int16, 2))
    found["Array 2D"] = series([[[1, 2], [3, 4]], None], pl.Array(pl.Int16, (2, 2)))
    found["Array of none"] = series([[], None], pl.Array(pl.Int16, 0))
    found["Array of Enum"] = series([["a", "b"]], pl.Array(pl.Enum(["b", "a"]), 2))
    inner = {"String": ["a", None], "Int64": [1, None], "Date": [dt.date(2020, 1, 1)], "Null": [None]}
    kinds = {
        **{name: getattr(pl, name) for name in inner},
        "Categorical": pl.Categorical,
        "Enum": pl.Enum(["b", "a"]),
        "Duration": pl.Duration("ms"),
        "Datetime": pl.Datetime("ns", "Europe/Berlin"),
        "Decimal": pl.Decimal(10, 2),
        "Binary": pl.Binary,
        "Time": pl.Time,
        "Int128": pl.Int128,
        "Float16": pl.Float16,
    }
    inner |= {"Categorical": ["a", "b"], "Enum": ["a", None], "Duration": [dt.timedelta(1)], "Binary": [b"a"]}
    inner |= {"Datetime": [dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], "Decimal": [Decimal("1.50")], "Time": [dt.time(1)]}
    inner |= {"Int128": [2**100], "Float16": [1.5]}
    for name, kind in kinds.items():
        found[f"List of {name}"] = series([inner[name], None, []], pl.List(kind))
        found[f"Struct of {name}"] = series([{"it": inner[name][0]}, None, {"it": None}], pl.Struct({"it": kind}))
        found[f"List of Struct of {name}"] = series([[{"it": inner[name][0]}, None]], pl.List(pl.Struct({"it": kind})))
    found["Struct of none"] = series([{}, {}], pl.Struct({}))
    if hasattr(pl, "Map"):
        found["Map"] = series([{"a": 1}, None], pl.Map(pl.String, pl.Int64))
    for name, make in list(found.items()):
        found[f"{name}, no rows"] = lambda make=make: make().clear()
        found[f"{name}, all null"] = lambda make=make: pl.Series("x", [None, None], dtype=make().dtype)
        found[f"{name}, sliced"] = lambda make=make: pl.concat([make(), make()], rechunk=False).slice(1, 3)
    return found


def _strict_polars(given: pl.DataFrame) -> Callable[[pl.DataFrame], str | None]:
    def compare(found: pl.DataFrame) -> str | None:
        if found.schema != given.schema:
            return f"{_short(given.schema)} came back as {_short(found.schema)}"
        polars.testing.assert_frame_equal(found, given, check_exact=True)
        return None

    return compare


def test_a_polars_frame_is_read_as_it_was_given(keeper: Keeper, capsys: pytest.CaptureFixture[str]) -> None:
    """A lazy frame becomes the version that its frame becomes: with the same values, types and schema, it reads the same."""
    for name, make in _polars_animals().items():
        try:
            series = make()
        except BaseException as error:
            _raise_what_is_meant(error)
            continue  # polars itself has no such thing
        given = series.to_frame()
        expected = [series.to_list() if series.dtype == pl.Object else _of_any_polars(series)]
        strict = {reader: _strict_polars(given) for reader in POLARS}
        version = keeper.other(name, lambda given=given: given, expected, strict)
        keeper.other(f"{name}, lazy", lambda given=given: given.lazy(), expected, strict, same_as=version)
    keeper.close(capsys)


def _of_any_polars(series: pl.Series) -> list[Any]:
    try:
        return of_polars(series)
    except pa.ArrowInvalid:  # 128 bits inside
        return of_python(series.to_list())


def test_polars_frames_of_other_shapes_are_read_as_they_were_given(
    keeper: Keeper, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = {
        "no columns": pl.DataFrame(),
        "no rows": pl.DataFrame(schema={"a": pl.Int64, "b": pl.Enum(["x"])}),
        "names": pl.DataFrame({"": [1], "a.b": [2], "ü": [3], "a b": [4]}),
        "many chunks": pl.concat(
            [pl.DataFrame({"a": [i], "c": pl.Series([str(i)], dtype=pl.Categorical)}) for i in range(5)], rechunk=False
        ),
        "joined": pl.DataFrame({"a": [1, 2]}).join(pl.DataFrame({"a": [2], "b": ["x"]}), on="a", how="left"),
    }
    for name, given in frames.items():
        for form, value in ((name, given), (f"{name}, lazy", given.lazy())):
            strict = {reader: _strict_polars(given) for reader in POLARS}
            keeper.other(form, lambda value=value: value, columns_of(given), strict)
    keeper.close(capsys)


# --- DuckDB --------------------------------------------------------------------------------------------------------

_DATE = Moment("at", 18_262 * _DAY)
RELATIONS: dict[str, tuple[str, list[Any]]] = {
    "boolean": ("true", [True, None]),
    "tinyint": ("(-128)::TINYINT", [-128, None]),
    "smallint": ("(-32768)::SMALLINT", [-32768, None]),
    "integer": ("(-2147483648)::INTEGER", [-(2**31), None]),
    "bigint": ("9223372036854775807::BIGINT", [2**63 - 1, None]),
    "utinyint": ("255::UTINYINT", [255, None]),
    "ubigint": ("18446744073709551615::UBIGINT", [2**64 - 1, None]),
    "hugeint": (f"{2**127 - 1}::HUGEINT", [2**127 - 1, None]),
    "small hugeint": (f"{2**70}::HUGEINT", [2**70, None]),
    "negative hugeint": (f"(-{2**127 - 1})::HUGEINT", [-(2**127 - 1), None]),
    "uhugeint": (f"{2**128 - 1}::UHUGEINT", [2**128 - 1, None]),
    "small uhugeint": (f"{2**70}::UHUGEINT", [2**70, None]),
    "float": ("1.5::FLOAT", [1.5, None]),
    "double": ("'nan'::DOUBLE", [math.nan, None]),
    "decimal": ("1.50::DECIMAL(4, 2)", [Decimal("1.50"), None]),
    "decimal 38": (f"{'9' * 38}::DECIMAL(38, 0)", [Decimal("9" * 38), None]),
    "varchar": ("'ümläut'", ["ümläut", None]),
    "blob": ("'\\xFF\\x00'::BLOB", [b"\xff\x00", None]),
    "bit": ("'0101'::BIT", ["0101", None]),
    "uuid": ("'00000000-0000-0000-0000-000000000005'::UUID", [uuid.UUID(int=5).bytes, None]),
    "json": ("'{\"a\": 1}'::JSON", ['{"a": 1}', None]),
    "enum": ("'b'::ENUM('b', 'a')", ["b", None]),
    "date": ("DATE '2020-01-01'", [_DATE, None]),
    "infinite date": ("'infinity'::DATE", [Moment("at", (2**31 - 1) * _DAY), None]),
    "time": ("TIME '12:00:00.000001'", [Moment("time", 43_200 * 10**9 + 1000), None]),
    "time_ns": ("'12:00:00.000000001'::TIME_NS", [Moment("time", 43_200 * 10**9 + 1), None]),
    "timetz": ("'12:00:00+02'::TIMETZ", ["12:00:00+02", None]),
    "timestamp": ("TIMESTAMP '2020-01-01'", [_DATE, None]),
    "timestamp_s": ("'2020-01-01'::TIMESTAMP_S", [_DATE, None]),
    "timestamp_ms": ("'2020-01-01'::TIMESTAMP_MS", [_DATE, None]),
    "timestamp_ns": ("'2020-01-01 00:00:00.000000001'::TIMESTAMP_NS", [Moment("at", _DATE.ns + 1), None]),
    "timestamptz": ("'2020-01-01 00:00:00+00'::TIMESTAMPTZ", [Moment("instant", _DATE.ns), None]),
    "infinite timestamp": ("'infinity'::TIMESTAMP", [Moment("at", (2**63 - 1) * 1000), None]),
    "interval": ("INTERVAL '1 month 2 days 3 seconds'", [(1, 2, 3 * 10**9), None]),
    "union": ("union_value(a := 1)", [1, None]),
    "bignum": (f"'{10**44}'::BIGNUM", [10**44, None]),
    "null": ("NULL", [None, None]),
    "list": ("[1, NULL]", [[1, None], None]),
    "array": ("[1, 2]::INTEGER[2]", [[1, 2], None]),
    "struct": ("{'a': 1, 'b': 'x'}", [{"a": 1, "b": "x"}, None]),
    "map": ("MAP {'k': 1}", [[{"key": "k", "value": 1}], None]),
    "geometry": ("'POINT(1 2)'::GEOMETRY", [bytes.fromhex("0101000000000000000000f03f0000000000000040"), None]),
    "variant": ("1::VARIANT", [1, None]),
    "list of hugeint": (f"[{2**70}::HUGEINT]", [[2**70], None]),
    "list of uhugeint": (f"[{2**128 - 1}::UHUGEINT]", [[2**128 - 1], None]),
    "list of enum": ("['b'::ENUM('b', 'a')]", [["b"], None]),
    "list of bit": ("['0101'::BIT]", [["0101"], None]),
    "list of timetz": ("['12:00:00+02'::TIMETZ]", [["12:00:00+02"], None]),
    "list of bignum": (f"['{10**44}'::BIGNUM]", [[10**44], None]),
    "list of uuid": ("['00000000-0000-0000-0000-000000000005'::UUID]", [[uuid.UUID(int=5).bytes], None]),
    "struct of enum": ("{'a': 'b'::ENUM('b', 'a')}", [{"a": "b"}, None]),
    "struct of timestamp_ns": ("{'a': '2020-01-01'::TIMESTAMP_NS}", [{"a": _DATE}, None]),
    "struct of uhugeint": (f"{{'a': {2**128 - 1}::UHUGEINT}}", [{"a": 2**128 - 1}, None]),
    "map of enum": ("MAP {'b'::ENUM('b', 'a'): 1}", [[{"key": "b", "value": 1}], None]),
    "list of interval": ("[INTERVAL '1 month']", [[(1, 0, 0)], None]),
}


def test_a_duckdb_relation_is_read_as_it_was_given(keeper: Keeper, capsys: pytest.CaptureFixture[str]) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, (expression, values) in RELATIONS.items():
            rows = f"SELECT {expression} AS x UNION ALL SELECT NULL"
            for form, query, expected in ((name, rows, values), (f"{name}, no rows", f"FROM ({rows}) LIMIT 0", [])):
                try:
                    relation = connection.sql(query)
                except duckdb.Error:
                    continue  # this DuckDB has no such type
                keeper.other(form, lambda relation=relation: relation, [expected], {})
    keeper.close(capsys)
