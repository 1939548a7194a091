"""Combining tables (partitions, lists of tables, components) by one rule for every reader.

Columns are matched by name; a missing one is null. Equal types stay. A table without rows, and a column of nulls, take
the type of the others. Numbers are widened if the captured statistics prove that no value changes. Everything else is
an error with both tables, the column and both types.
"""

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dataset_registry.errors import InputError
from dataset_registry.model.schema import ColumnStatistics, TableSchema
from dataset_registry.tabular import pandas_frames, writer
from dataset_registry.tabular.arrow import plain_schema, type_of

_log = logging.getLogger(__name__)

_EXACT = {pa.float64(): 1 << 53, pa.float32(): 1 << 24, pa.float16(): 1 << 11}
"""Integers up to here are floating-point numbers of a type."""
_INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
_FLOATS = (pa.float16(), pa.float32(), pa.float64())
_UNITS = ("s", "ms", "us", "ns")
_POLARS_ENUM = b"_PL_ENUM_VALUES2"
"""The categories of a polars Enum as it writes them in the metadata of a field: each with its length in bytes before it."""
_NANOSECONDS = ("1677-09-22", "2262-04-11")


@dataclass(frozen=True, slots=True)
class Combined:
    """A combined table: its stored columns, and the metadata of its writer."""

    plain: pa.Schema
    writer: pa.Schema | None


@dataclass(frozen=True, slots=True)
class _Side:
    """A column of one table: its type, whether it has values, and their bounds."""

    label: str
    field: pa.Field
    is_empty: bool
    facts: ColumnStatistics


def combine(tables: Sequence[tuple[str, TableSchema]]) -> Combined:
    """Combine tables, each with a label. Raises `InputError`."""
    schemas = [_full_schema(table) for _, table in tables]
    sides: dict[str, list[_Side]] = {}
    for (label, table), schema in zip(tables, schemas, strict=True):
        for field in schema:
            facts = table.statistics.get(field.name, ColumnStatistics())
            empty = table.rows == 0 or (facts.null_count is not None and facts.null_count == table.rows)
            sides.setdefault(field.name, []).append(_Side(label, field, empty, facts))
    fields = [_column(found, is_everywhere=len(found) == len(tables)) for found in sides.values()]
    target = pa.schema(fields, _metadata(schemas))
    return Combined(plain_schema(target), target)


def types_of_both(one: TableSchema, other: TableSchema) -> str | None:
    """The writer's types of a table that gets rows of another one: those of the first, with the categories of both."""
    if other.user_types is None or one.user_types in (None, other.user_types):
        return one.user_types
    try:
        found = combine([("the table", one), ("the rows", other)]).writer
    except InputError:
        return one.user_types
    assert found is not None, "of tables that have one"
    return writer.text_of(pa.schema([found.field(column.name) for column in one.columns], found.metadata))


def _full_schema(table: TableSchema) -> pa.Schema:
    """A captured table's columns with the types, and all else, that its writer had."""
    plain = pa.schema([pa.field(c.name, type_of(c), c.nullable) for c in table.columns])
    kept = writer.schema_of(table.user_types)
    if kept is None:
        return plain
    fields = [kept.field(f.name) if kept.get_field_index(f.name) >= 0 else f for f in plain]
    return pa.schema(fields, kept.metadata)


def _column(sides: Sequence[_Side], *, is_everywhere: bool) -> pa.Field:
    """The column that several are."""
    known = (
        [side for side in sides if not side.is_empty and not pa.types.is_null(side.field.type)]
        or [side for side in sides if not pa.types.is_null(side.field.type)][:1]
        or list(sides[:1])
    )
    found = known[0]
    for side in known[1:]:
        found = _both(found, side)
    nullable = not is_everywhere or any(side.field.nullable for side in sides)
    return found.field.with_nullable(nullable)


def _both(left: _Side, right: _Side) -> _Side:
    here, there = left.field, right.field
    theirs = {key: value for key, value in (there.metadata or {}).items() if not key.startswith(b"_PL_")}
    metadata = {**theirs, **(here.metadata or {})} or None
    if pa.types.is_dictionary(here.type) and pa.types.is_dictionary(there.type):
        field = _categories(here, there)
        if field is not None:
            return _Side(left.label, field, is_empty=False, facts=_bounds(left.facts, right.facts))
    kind = _common(here.type, there.type, left.facts, right.facts)
    if kind is None:
        raise InputError(
            f"{left.label} and {right.label} cannot be combined: the column {here.name!r} is {here.type} in the first and "
            f"{there.type} in the second. Read them one by one, or commit one of them again with the other's type.",
            column=here.name,
        )
    field = pa.field(here.name, kind, here.nullable or there.nullable, metadata if kind == here.type else None)
    return _Side(left.label, field, is_empty=False, facts=_bounds(left.facts, right.facts))


def _bounds(left: ColumnStatistics, right: ColumnStatistics) -> ColumnStatistics:
    """What is known of the values of both, where that can be told."""
    try:
        return ColumnStatistics(None, min(left.min, right.min), max(left.max, right.max))
    except TypeError:  # of one of them nothing is known
        return ColumnStatistics()


# --- types -------------------------------------------------------------------------------------------------------------


def _common(a: pa.DataType, b: pa.DataType, of_a: ColumnStatistics, of_b: ColumnStatistics) -> pa.DataType | None:
    """The type that has every value of both, None where there is none that is proven to."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    for x, y, of_x, of_y in ((a, b, of_a, of_b), (b, a, of_b, of_a)):
        if pa.types.is_dictionary(x) and not pa.types.is_dictionary(y):
            return _common(x.value_type, y, of_x, of_y)
        if (found := _wider(x, y, of_x, of_y)) is not None:
            return found
    if pa.types.is_dictionary(a) and pa.types.is_dictionary(b):
        values = _common(a.value_type, b.value_type, of_a, of_b)
        return None if values is None else pa.dictionary(pa.int32(), values)
    return _nested(a, b)


def _wider(x: pa.DataType, y: pa.DataType, of_x: ColumnStatistics, of_y: ColumnStatistics) -> pa.DataType | None:
    """The type for both, where `x` is the narrower one, or of the kind named first."""
    if _is_text(x) and _is_text(y):
        return pa.string()
    if _is_bytes(x) and _is_bytes(y):
        return pa.binary()
    for chain in (_INTEGERS, _UNSIGNED, _FLOATS):
        if x in chain and y in chain:
            return max(x, y, key=chain.index)
    if x in _UNSIGNED and y in _INTEGERS:
        return _signed(x, y, of_x, of_y)
    if (x in _INTEGERS or x in _UNSIGNED) and y in _FLOATS:
        return _floating(x, y, of_x)
    if pa.types.is_decimal(y) and (x in _INTEGERS or x in _UNSIGNED):
        return _decimal(len(str(1 << x.bit_width)), 0, y.precision, y.scale)
    if pa.types.is_decimal(x) and pa.types.is_decimal(y):
        widest = _decimal(x.precision, x.scale, y.precision, y.scale)
        if widest is not None and pa.types.is_decimal128(widest):
            return widest
        return _decimal(_digits(x, of_x), x.scale, _digits(y, of_y), y.scale)
    same_zone = pa.types.is_timestamp(x) and pa.types.is_timestamp(y) and x.tz == y.tz
    if same_zone and _UNITS.index(x.unit) < _UNITS.index(y.unit):
        fits = y.unit != "ns" or all(
            isinstance(bound, str) and _NANOSECONDS[0] < bound < _NANOSECONDS[1] for bound in (of_x.min, of_x.max)
        )
        return y if fits else None
    if pa.types.is_time(x) and pa.types.is_time(y):
        return max(x, y, key=lambda kind: _UNITS.index(kind.unit))
    if pa.types.is_duration(x) and pa.types.is_duration(y) and y.unit != "ns":
        return max(x, y, key=lambda kind: _UNITS.index(kind.unit))
    return None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _signed(x: pa.DataType, y: pa.DataType, of_x: ColumnStatistics, of_y: ColumnStatistics) -> pa.DataType | None:
    """The integers for unsigned `x` and signed `y`."""
    if x.bit_width < 64:
        return _INTEGERS[max(_UNSIGNED.index(x) + 1, _INTEGERS.index(y))]
    if isinstance(of_x.max, int) and of_x.max < 1 << 63:
        return pa.int64()
    return x if isinstance(of_y.min, int) and of_y.min >= 0 else None


def _floating(x: pa.DataType, y: pa.DataType, of_x: ColumnStatistics) -> pa.DataType | None:
    """Floating-point numbers for integers `x` and floats `y`, where the integers are exact in them."""
    if x.bit_width <= 32 and x not in (pa.int32(), pa.uint32()) and y == pa.float32():
        return y
    if x.bit_width <= 32:
        return pa.float64()
    limit = _EXACT[pa.float64()]
    fits = all(isinstance(bound, int) and abs(bound) <= limit for bound in (of_x.min, of_x.max))
    return pa.float64() if fits else None


def _digits(kind: pa.DataType, of: ColumnStatistics) -> int:
    """The digits that the values of a decimal column have: by their bounds, where these are known."""
    if not (isinstance(of.min, str) and isinstance(of.max, str)):
        return int(kind.precision)
    whole = max(len(bound.lstrip("-").partition(".")[0]) for bound in (of.min, of.max))
    return min(int(kind.precision), whole + int(kind.scale))


def _decimal(p: int, s: int, q: int, r: int) -> pa.DataType | None:
    scale = max(s, r)
    precision = max(p - s, q - r) + scale
    if precision > 76:
        return None
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _nested(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type for nested values: of what is inside them no bounds are known."""
    unknown = ColumnStatistics()
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        names = list(dict.fromkeys([f.name for f in (*a, *b)]))
        fields = []
        for name in names:
            found = [k.field(k.get_field_index(name)) for k in (a, b) if k.get_field_index(name) >= 0]
            kind = _common(found[0].type, found[-1].type, unknown, unknown)
            if kind is None:
                return None
            fields.append(pa.field(name, kind, len(found) < 2 or any(f.nullable for f in found)))
        return pa.struct(fields)
    is_lists = all(pa.types.is_list(k) or pa.types.is_large_list(k) for k in (a, b))
    is_sized = all(pa.types.is_fixed_size_list(k) for k in (a, b)) and a.list_size == b.list_size
    if is_lists or is_sized:
        kind = _common(a.value_type, b.value_type, unknown, unknown)
        if kind is None:
            return None
        inner = pa.field("element", kind, a.value_field.nullable or b.value_field.nullable)
        return pa.list_(inner, a.list_size) if is_sized else pa.list_(inner)
    if pa.types.is_map(a) and pa.types.is_map(b):
        key, item = (_common(x, y, unknown, unknown) for x, y in ((a.key_type, b.key_type), (a.item_type, b.item_type)))
        return None if key is None or item is None else pa.map_(key, item)
    return None


# --- categories --------------------------------------------------------------------------------------------------------


def _categories(here: pa.Field, there: pa.Field) -> pa.Field | None:
    """A dictionary with the values of both: ordered if the two orders are compatible, else unordered with a warning."""
    a, b = here.type, there.type
    if a.value_type != b.value_type:
        return None
    index = max(a.index_type, b.index_type, key=lambda kind: kind.bit_width)
    known, other = writer.categories_of(here), writer.categories_of(there)
    if known is None or other is None:
        return here.with_type(pa.dictionary(index, a.value_type, a.ordered and b.ordered))
    first, second = known.to_pylist(), other.to_pylist()
    merged = _one_order(first, second) if a.ordered and b.ordered else None
    ordered = merged is not None
    if merged is None:
        if a.ordered or b.ordered:
            _log.warning("Column %r: the orders of the categories conflict; they are read as unordered", here.name)
        merged = list(dict.fromkeys([*first, *second]))
    metadata = dict(here.metadata or {})
    is_enum = metadata.pop(_POLARS_ENUM, None) is not None and _POLARS_ENUM in (there.metadata or {})
    if is_enum and (ordered or not a.ordered):
        metadata[_POLARS_ENUM] = b"".join(b"%d;%b" % (len(text), text) for text in (str(v).encode() for v in merged))
    field = pa.field(here.name, pa.dictionary(index, a.value_type, ordered), here.nullable, metadata or None)
    return writer.with_values(field, pa.array(merged, known.type))


def _one_order(first: Sequence[Any], second: Sequence[Any]) -> list[Any] | None:
    """An order that has both orders in it, None where they contradict each other."""
    behind: dict[Any, set[Any]] = {value: set() for value in (*first, *second)}
    for order in (first, second):
        for before, after in itertools.pairwise(order):
            behind[after].add(before)
    merged: list[Any] = []
    left = dict.fromkeys((*first, *second))
    done: set[Any] = set()
    while left:
        free = next((value for value in left if behind[value] <= done), None)
        if free is None:
            return None
        merged.append(free)
        done.add(free)
        del left[free]
    return merged


# --- what a frame had ----------------------------------------------------------------------------------------------------


def _metadata(schemas: Sequence[pa.Schema]) -> dict[bytes, bytes] | None:
    """The metadata of the tables, those of pandas column by column: the same for one that lacks nulls or rows."""
    found: dict[bytes, bytes] = {}
    frames: list[Mapping[str, Any]] = []
    accounts: list[Mapping[str, Any]] = []
    for schema in schemas:
        metadata = schema.metadata or {}
        found = {**metadata, **found}
        if b"pandas" in metadata:
            frames.append(json.loads(metadata[b"pandas"]))
            accounts.append(json.loads(metadata.get(pandas_frames.FRAME, b"{}")))
    if len(frames) > 1:
        found[b"pandas"] = json.dumps(_one_frame(frames)).encode()
        found[pandas_frames.FRAME] = json.dumps(_one_account(accounts)).encode()
    return found or None


def _one_account(accounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is said of frames beside pandas' metadata: of columns all of it, of the whole frame what they have in common."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for account in accounts for key in account):
        given = [account.get(key) for account in accounts]
        if key == "dtypes":
            found[key] = {name: dtype for each in reversed(given) for name, dtype in (each or {}).items()}
        elif key in ("lists", "arrow"):
            found[key] = list(dict.fromkeys(name for each in given for name in each or ()))
        elif all(each == given[0] for each in given):
            found[key] = given[0]
    return found


def _one_frame(frames: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    labels = [frame["column_indexes"] for frame in frames if frame.get("columns") and frame.get("column_indexes")]
    if len({json.dumps([level.get("pandas_type") for level in levels]) for levels in labels}) > 1:
        raise InputError(
            "These frames cannot be combined: the column labels of one are texts and those of another are not. Read them "
            "one by one, or commit one of them again: frame.columns = frame.columns.astype(str)"
        )
    attributes: list[Mapping[str, Any]] = [frame.get("attributes") or {} for frame in frames]
    if any(other != attributes[0] for other in attributes):
        _log.warning("Frames with different attrs are combined: only the common attrs are kept")
    common = {
        key: value
        for key, value in attributes[0].items()
        if all(key in other and other[key] == value for other in attributes)
    }
    columns: dict[Any, Any] = {}
    for frame in frames:
        for column in frame.get("columns", []):
            known = columns.get(column["field_name"])
            if known is None or (not _is_nullable(known) and _is_nullable(column)):
                columns[column["field_name"]] = column
    indexes = [frame.get("index_columns", []) for frame in frames]
    index = indexes[0] if all(other == indexes[0] for other in indexes) else []
    if index != indexes[0]:
        _log.warning("Frames with different row labels are combined: the labels become columns")
    return {**frames[0], "columns": list(columns.values()), "index_columns": index, "attributes": common}


def _is_nullable(column: Mapping[str, Any]) -> bool:
    """Whether a pandas column has a dtype that knows nulls: those are written with a capital letter."""
    return str(column.get("numpy_type", ""))[:1].isupper() or column.get("numpy_type") == "boolean"
