"""Conversion of every kind of table to a stream of Arrow record batches with plain types.

Plain types are those that every engine reads alike and that Parquet keeps: strings are `string` (not large, not a
view, not a dictionary), lists are `list`. So the same data from pandas, polars, DuckDB or Arrow is the same bytes.
Categories, a pandas index and the like are stored beside the schema and restored on reading (see `writer`).
"""

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.errors import UnsupportedType
from dataset_registry.model.schema import Column
from dataset_registry.tabular.convert import column, is_list
from dataset_registry.tabular.formats import library_of
from dataset_registry.tabular.writer import Categories


def reader_of(value: Any) -> tuple[pa.RecordBatchReader, pa.Schema]:
    """A stream over any table, pulled batch by batch, and the schema that its writer had. Raises `UnsupportedType`.

    Types that are only a memory layout (views, large lists) are part of the writer's schema for Arrow tables, and plain
    for tables of other libraries.
    """
    library = library_of(value)
    try:
        if isinstance(value, pa.RecordBatchReader):
            return value, value.schema
        if library == "polars":
            from dataset_registry.tabular import polars_frames

            reader, types = polars_frames.reader(value)
            return reader, _with_types(usual_schema(reader.schema), polars_frames.POLARS_TYPE, types)
        if library in ("duckdb", "_duckdb"):
            from dataset_registry.tabular import duckdb_relations

            duckdb_relations.refuse_lossy_types(value)
        if library == "pandas":
            from dataset_registry.tabular import pandas_frames

            value = pandas_frames.to_table(value)
        reader = _table_reader(value) if isinstance(value, pa.Table) else pa.RecordBatchReader.from_stream(value)
    except (pa.ArrowException, ValueError, OverflowError, AttributeError, TypeError) as error:
        raise UnsupportedType(
            f"This {type(value).__name__} cannot become an Arrow table: {error}. Convert the column it names to one type."
        ) from error
    return reader, reader.schema if library == "pyarrow" else usual_schema(reader.schema)


def _table_reader(table: pa.Table) -> pa.RecordBatchReader:
    """A stream over a table; of one without rows, an empty batch, whose dictionaries have their values."""
    if table.num_rows:
        return table.to_reader()
    columns = [c.chunk(0) if c.num_chunks else pa.array([], c.type) for c in table.columns]
    return pa.RecordBatchReader.from_batches(table.schema, [pa.RecordBatch.from_arrays(columns, schema=table.schema)])


def _with_types(schema: pa.Schema, key: bytes, types: Mapping[str, str]) -> pa.Schema:
    """The schema with the names of types in the metadata of their fields."""
    for name, type in types.items():
        at = schema.get_field_index(name)
        schema = schema.set(at, schema.field(at).with_metadata({key: type.encode()}))
    return schema


def usual_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without types that are only a memory layout of texts and lists."""
    return pa.schema([_usual_field(field) for field in schema], schema.metadata)


def _usual_field(field: pa.Field) -> pa.Field:
    """The field without types that are only a memory layout of texts and lists."""
    return field.with_type(usual_type(field.type))


def usual_type(kind: pa.DataType) -> pa.DataType:
    """The type, or its plain equivalent if it is only a memory layout of texts or lists."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, usual_type(kind.value_type), kind.ordered)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([_usual_field(kind.field(i)) for i in range(kind.num_fields)])
    if pa.types.is_map(kind):
        return pa.map_(_usual_field(kind.key_field), _usual_field(kind.item_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_usual_field(kind.value_field), kind.list_size)
    if is_list(kind):
        return pa.list_(_usual_field(kind.value_field))
    return kind


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with plain types and without metadata. Raises `UnsupportedType` for what Parquet cannot hold."""
    names = schema.names
    if twice := {name for name in names if names.count(name) > 1}:
        raise UnsupportedType(f"Columns must have different names; {sorted(twice)} occur more than once. Rename them.")
    return pa.schema([_plain_field(field) for field in schema])


def _plain_field(field: pa.Field) -> pa.Field:
    try:
        return pa.field(field.name, plain_type(field.type), field.nullable)
    except UnsupportedType as error:
        raise UnsupportedType(f"Column {field.name!r}: {error}") from None


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The plain type for an Arrow type."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp("ms" if kind.unit == "s" else kind.unit, _plain_zone(kind.tz))
    if pa.types.is_dictionary(kind) and pa.types.is_nested(plain_type(kind.value_type)):
        raise UnsupportedType(f"A dictionary of nested values ({kind.value_type}) is not stored. Decode it first.")
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        if kind.list_size == 0:
            raise UnsupportedType("Lists of the fixed size 0 are not stored. Convert them to lists.")
        return pa.list_(_item(kind), kind.list_size)
    if is_list(kind):
        return pa.list_(_item(kind))
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(kind.field(i)) for i in range(kind.num_fields)])
    if pa.types.is_decimal(kind) and kind.precision <= 38:
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms")
    if pa.types.is_date64(kind):
        return pa.date32()
    if pa.types.is_time32(kind) and kind.unit == "s":
        return pa.time32("ms")
    if pa.types.is_interval(kind) or pa.types.is_union(kind):
        raise UnsupportedType(f"Parquet has no type for {kind}. Convert it, to a duration or a struct for example.")
    return kind


def _plain_zone(name: str) -> str:
    """A time zone that every engine knows: a fixed offset is stored as the instants that it means."""
    if re.fullmatch(r"[+-][0-9]{2}:?[0-9]{2}", name):
        return "UTC"
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise UnsupportedType(f"Unknown time zone {name!r}. Convert the column to UTC first.") from error
    return name


def _item(kind: pa.DataType) -> pa.Field:
    return pa.field("element", plain_type(kind.value_type), kind.value_field.nullable)


def plain_batches(
    reader: pa.RecordBatchReader, schema: pa.Schema, categories: Categories | None = None
) -> Iterator[pa.Table]:
    """The stream with plain types. Raises `UnsupportedType` where a value does not fit, or an array is not sound.

    `categories` collects the ordered values of dictionaries, which plain types do not contain.
    """
    try:
        for batch in (piece for whole in reader for piece in _chunks(whole)):
            batch.validate(full=True)
            if categories is not None:
                categories.gather(batch)
            if not batch.num_rows:
                continue
            for field, values in zip(batch.schema, batch.columns, strict=True):
                refuse_unreadable(values, field.name)
            yield to_schema(pa.Table.from_batches([batch]), schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowIndexError) as error:
        raise UnsupportedType(f"The table's values do not fit its types: {error}. Convert the column first.") from error


_PIECE_ROWS = 1 << 18
_DAY = 86_400
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def refuse_unreadable(values: pa.Array, name: str) -> None:
    """Raise `UnsupportedType` for values that are invalid for their type, or that a reader would change."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        values, kind = values.storage, kind.storage_type
    if pa.types.is_dictionary(kind):
        values, kind = values.dictionary, kind.value_type
    is_coarse = (pa.types.is_timestamp(kind) or pa.types.is_duration(kind)) and kind.unit in ("s", "ms")
    if pa.types.is_time(kind) or is_coarse:
        width = pa.int32() if pa.types.is_time32(kind) else pa.int64()
        bounds = pc.min_max(values.cast(width))
        low, high = (bound.as_py() for bound in bounds.values())
        if low is None:
            return
        limits = (0, _DAY * _PER_SECOND[kind.unit] - 1) if pa.types.is_time(kind) else _limits(kind.unit)
        if low < limits[0] or high > limits[1]:
            what = "is no time of day" if pa.types.is_time(kind) else "is out of the range of microseconds"
            raise UnsupportedType(
                f"Column {name!r}: a value of the type {kind} {what} ({low} to {high}). Fix it, or store numbers."
            )
    elif pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            refuse_unreadable(values.field(i), f"{name}.{kind.field(i).name}")
    elif pa.types.is_map(kind):
        _refuse_equal_keys(values, name)
        refuse_unreadable(values.keys, name)
        refuse_unreadable(values.items, name)
    elif is_list(kind):
        refuse_unreadable(values.values, name)


def _limits(unit: str) -> tuple[int, int]:
    """The range of a unit that also fits 64-bit microseconds, which several engines use."""
    most = ((1 << 63) - 1) // (10**6 // _PER_SECOND[unit])
    return -most, most


def _refuse_equal_keys(values: pa.Array, name: str) -> None:
    """Raise `UnsupportedType` for a map with duplicate keys, of which most readers return only one."""
    offsets = values.offsets.to_numpy(zero_copy_only=False)
    rows = pa.array(np.repeat(np.arange(len(values)), np.diff(offsets)))
    keys = values.keys.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    if pa.types.is_nested(keys.type) or pa.types.is_dictionary(keys.type) or not len(rows):
        return
    pairs = pa.table({"row": rows, "key": keys})
    if pairs.group_by(["row", "key"]).aggregate([]).num_rows < len(rows):
        raise UnsupportedType(f"Column {name!r}: a map has duplicate keys. Store it as a list of structs.")


def _chunks(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Split a batch: polars returns whole columns, but plain text arrays hold at most 2 GB."""
    for start in range(0, max(batch.num_rows, 1), _PIECE_ROWS):
        yield batch.slice(start, _PIECE_ROWS)


def plain_table(value: Any) -> pa.Table:
    """A whole table with plain types. Raises `UnsupportedType`."""
    reader, _ = reader_of(value)
    schema = plain_schema(reader.schema)
    return pa.concat_tables([schema.empty_table(), *plain_batches(reader, schema)])


def to_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the types of `schema`, column by column."""
    if table.schema.equals(schema):
        return table.replace_schema_metadata(None)
    columns = [column(values, field.type) for values, field in zip(table.columns, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema)


# --- schemas -------------------------------------------------------------------------------------------------------


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    """The columns of an Arrow schema as the model's, with plain types: what two files have in common looks alike."""
    return tuple(_column(_plain_field(field)) for field in schema)


def _column(field: pa.Field) -> Column:
    kind = field.type
    fields: tuple[Column, ...] = ()
    if pa.types.is_struct(kind):
        fields = tuple(_column(kind.field(i)) for i in range(kind.num_fields))
    elif pa.types.is_map(kind):
        fields = (_column(kind.key_field), _column(kind.item_field))
    elif is_list(kind):
        fields = (_column(kind.value_field),)
    return Column(field.name, str(kind), field.nullable, fields)


_SCALARS = {str(kind): kind for kind in (
    pa.null(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
    pa.float16(), pa.float32(), pa.float64(), pa.string(), pa.binary(), pa.date32(), pa.date64(), pa.large_string(),
    pa.large_binary(), *(pa.time32(u) for u in ("s", "ms")), *(pa.time64(u) for u in ("us", "ns")),
    *(pa.timestamp(u) for u in ("s", "ms", "us", "ns")), *(pa.duration(u) for u in ("s", "ms", "us", "ns")),
)}  # fmt: skip


def type_of(column: Column) -> pa.DataType:
    """The Arrow type of a captured column. Raises `ValueError` for a name that is none of a plain type."""
    if (found := _SCALARS.get(column.type)) is not None:
        return found
    inner = [pa.field(field.name, type_of(field), field.nullable) for field in column.fields]
    kind = column.type.partition("<")[0]
    if kind == "struct":
        return pa.struct(inner)
    if kind == "map":
        return pa.map_(inner[0], inner[1])
    if kind in ("list", "large_list"):
        return pa.list_(inner[0])
    if found := re.fullmatch(r"fixed_size_list<.*>\[(\d+)\]", column.type):
        return pa.list_(inner[0], int(found[1]))
    if found := re.fullmatch(r"decimal(\d+)\((\d+), (-?\d+)\)", column.type):
        build = {"128": pa.decimal128, "256": pa.decimal256, "32": pa.decimal32, "64": pa.decimal64}[found[1]]
        return build(int(found[2]), int(found[3]))
    if found := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", column.type):
        return pa.timestamp(found[1], found[2])
    if found := re.fullmatch(r"fixed_size_binary\[(\d+)\]", column.type):
        return pa.binary(int(found[1]))
    raise ValueError(f"{column.type!r} is not the name of a plain type")


_LONGEST_BOUND = 256


def scalar(value: Any) -> Any:
    """A value as a JSON scalar: numbers, texts and booleans as they are, moments in ISO 8601, decimals as text.

    Infinities are texts (`inf`, `-inf`), and so are durations (ISO 8601, `PT1.5S`). None for what has no such form (bytes).
    """
    match value:
        case bool() | int():
            return value
        case str():  # a bound that is a whole text says nothing, and PostgreSQL keeps no NUL
            return value if len(value) <= _LONGEST_BOUND and "\0" not in value else None
        case float():
            return value + 0.0 if isfinite(value) else str(value)  # Parquet's bounds say -0.0 for 0.0
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case timedelta():
            return counted(round(value / timedelta(microseconds=1)), pa.duration("us"))
        case _:
            return None


def counted(count: int, kind: pa.DataType) -> str:
    """A moment, a time of day or a duration, given as the count of its unit, in ISO 8601 with all of its digits."""
    per_second = _PER_SECOND[kind.unit]
    if pa.types.is_duration(kind):
        seconds, rest = divmod(abs(count), per_second)
        return f"{'-' if count < 0 else ''}PT{seconds}{_fraction(rest, per_second)}S"
    seconds, rest = divmod(count, per_second)
    if pa.types.is_time(kind):
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{_fraction(rest, per_second)}"
    moment = datetime(1970, 1, 1) + timedelta(seconds=seconds)
    return f"{moment.isoformat()}{_fraction(rest, per_second)}{'+00:00' if kind.tz else ''}"


def _fraction(rest: int, per_second: int) -> str:
    return f".{rest:0{len(str(per_second)) - 1}}".rstrip("0") if rest else ""
