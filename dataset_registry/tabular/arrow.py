"""Arrow as the common tongue: every kind of table becomes a stream of record batches with plain types.

Plain types are those that every engine reads alike and that Parquet keeps: strings are `string` (not large, not a
view, not a dictionary), lists are `list`. So the same data from pandas, polars, DuckDB or Arrow is the same bytes.
What the writer's table had beyond that (categories, a pandas index) is kept beside the schema and given back (see `writer`).
"""

import json
import logging
import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa

from dataset_registry.errors import UnsupportedType
from dataset_registry.model.schema import Column
from dataset_registry.tabular.convert import column, is_list
from dataset_registry.tabular.formats import is_lazy_frame, library_of
from dataset_registry.tabular.writer import Categories

_log = logging.getLogger(__name__)


def reader_of(value: Any) -> tuple[pa.RecordBatchReader, pa.Schema]:
    """A stream over any table, pulled batch by batch, and the schema that its writer had. Raises `UnsupportedType`.

    Types that are only how a library keeps texts and lists in memory (views, large lists) are the writer's own where the
    table is Arrow's, and plain where another library made it.
    """
    library = library_of(value)
    try:
        if isinstance(value, pa.RecordBatchReader):
            return value, value.schema
        if library == "polars":
            return _polars_reader(value)
        reader = _pandas_table(value).to_reader() if library == "pandas" else pa.RecordBatchReader.from_stream(value)
    except (pa.ArrowException, ValueError, OverflowError, AttributeError, TypeError) as error:
        raise UnsupportedType(
            f"This {type(value).__name__} cannot become an Arrow table: {error}. Convert the column it names to one type."
        ) from error
    return reader, reader.schema if library == "pyarrow" else _usual_schema(reader.schema)


def _pandas_table(frame: Any) -> pa.Table:
    """A pandas frame with its row labels, where they are data.

    An unnamed integer index is not: a frame that was filtered or sorted has one by accident. It is dropped.
    """
    if type(frame).__name__ != "DataFrame":
        raise UnsupportedType(
            f"A pandas {type(frame).__name__} is not a table. Make it a frame of one column: value.to_frame('value')."
        )
    columns = frame.columns
    facts: dict[str, Any] = {}
    if type(columns).__name__ == "CategoricalIndex":
        facts = {"columns": {"categories": columns.categories.tolist(), "ordered": bool(columns.ordered)}}
        frame = frame.set_axis(columns.astype(columns.categories.dtype), axis="columns")
    table = pa.Table.from_pandas(frame, preserve_index=_keeps_index(frame))
    if not _keeps_labels(table, frame.columns):
        raise UnsupportedType(
            f"The column labels of this frame, a {type(columns).__name__}, cannot be stored. Make them texts first: "
            "frame.columns = frame.columns.astype(str)"
        )
    if facts:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), FRAME: json.dumps(facts)})
    return table


def _keeps_labels(table: pa.Table, columns: Any) -> bool:
    """Whether the column labels of a frame come back as they are."""
    if columns.nlevels == 1 and columns.inferred_type in ("string", "empty"):
        return True
    try:
        back = table.slice(0, 0).to_pandas().columns
    except (TypeError, ValueError, KeyError, pa.ArrowException):
        return False
    return type(back) is type(columns) and bool(back.equals(columns))


FRAME = b"dataset_registry:frame"
"""What a pandas frame has that Arrow's pandas metadata do not know, as schema metadata."""


def _keeps_index(frame: Any) -> bool | None:
    """Whether the row labels of a pandas frame are data; None for the plain 0, 1, 2 …, of which nothing need be kept."""
    index = frame.index
    if index.nlevels > 1 or index.name is not None:
        return True
    if type(index).__name__ == "RangeIndex" and (index.start, index.step) == (0, 1):
        return None
    if index.dtype.kind not in "iu" and len(index):
        return True
    if len(index):
        _log.info(
            "The unnamed integer index of a frame is not stored. Name it (frame.index.name = …) to keep it as a column."
        )
    return False


def _polars_reader(frame: Any) -> tuple[pa.RecordBatchReader, pa.Schema]:
    """A polars frame, or a LazyFrame computed in batches, which is never whole in memory."""
    import polars

    if isinstance(frame, polars.Series):
        raise UnsupportedType("A polars Series is not a table. Make it a frame of one column: value.to_frame('value').")
    is_lazy = is_lazy_frame(frame)
    wide = []
    for name, kind in (frame.collect_schema() if is_lazy else frame.schema).items():
        if "Object" in str(kind):
            raise UnsupportedType(
                f"Column {name!r} has Python objects (polars.Object), which have no value outside of this process. Convert it, "
                "to polars.String for example."
            )
        if kind in (polars.Int128, polars.UInt128):
            wide.append((name, str(kind)))
    if wide:  # Arrow has no such integers; decimals of 38 digits hold most of them, and the others are refused
        frame = frame.with_columns(polars.col([name for name, _ in wide]).cast(polars.Decimal(38, 0)))
    reader = _lazy_frame_reader(frame) if is_lazy else pa.RecordBatchReader.from_stream(frame)
    schema = _usual_schema(reader.schema)
    for name, kind in wide:
        at = schema.get_field_index(name)
        schema = schema.set(at, schema.field(at).with_metadata({POLARS_TYPE: kind.encode()}))
    return reader, schema


POLARS_TYPE = b"dataset_registry:polars"
"""The polars type of a column where Arrow has no such type, as field metadata."""


def _usual_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([_usual_field(field) for field in schema], schema.metadata)


def _usual_field(field: pa.Field) -> pa.Field:
    """The field without what is only how texts and lists lie in memory."""
    return field.with_type(_usual(field.type))


def _usual(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return kind
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _usual(kind.value_type), kind.ordered)
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


def _lazy_frame_reader(frame: Any) -> pa.RecordBatchReader:
    """A LazyFrame computed in batches: it is never whole in memory."""
    schema = frame.collect_schema().to_frame().to_arrow().schema
    batches = (batch for part in frame.collect_batches(maintain_order=True) for batch in part.to_arrow().to_batches())
    return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in batches))


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
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_item(kind), kind.list_size)
    if (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    ):
        return pa.list_(_item(kind))
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(kind.field(i)) for i in range(kind.num_fields)])
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
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
        raise UnsupportedType(f"{name!r} is not a time zone that is known here. Convert it to UTC first.") from error
    return name


def _item(kind: pa.DataType) -> pa.Field:
    return pa.field("element", plain_type(kind.value_type), kind.value_field.nullable)


def plain_batches(
    reader: pa.RecordBatchReader, schema: pa.Schema, categories: Categories | None = None
) -> Iterator[pa.Table]:
    """The stream with plain types. Raises `UnsupportedType` where a value does not fit, or an array is not sound.

    `categories` gathers the values of dictionaries, in their order, which plain types have no place for.
    """
    for batch in (piece for whole in reader for piece in _pieces(whole)):
        try:
            batch.validate(full=True)
            if categories is not None:
                categories.gather(batch)
            yield to_schema(pa.Table.from_batches([batch]), schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UnsupportedType(
                f"The table's values do not fit its types: {error}. Convert the column first."
            ) from error


_PIECE_ROWS = 1 << 18


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in pieces: polars hands over whole columns, and plain texts hold 2 GB each."""
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
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
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

    Infinities are texts (`inf`, `-inf`), durations are seconds. None for what has no such form (bytes).
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
            return value.total_seconds()
        case _:
            return None
