"""Arrow as the common tongue: every kind of table becomes a stream of record batches with plain types.

Plain types are those that every engine reads alike and that Parquet keeps: strings are `string` (not large, not a
view, not a dictionary), lists are `list`. So the same data from pandas, polars, DuckDB or Arrow is the same bytes.
What the writer's table had beyond that (categories, a pandas index) is kept beside the schema and given back.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.errors import UnsupportedType
from dataset_registry.model.schema import Column, TableSchema
from dataset_registry.tabular.formats import is_lazy_frame, library_of


def reader_of(value: Any) -> pa.RecordBatchReader:
    """A stream over any table, pulled batch by batch. Raises `UnsupportedType`."""
    try:
        if isinstance(value, pa.RecordBatchReader):
            return value
        if is_lazy_frame(value):
            return _lazy_frame_reader(value)
        if library_of(value) == "pandas":
            return pa.Table.from_pandas(value, preserve_index=_keeps_index(value)).to_reader()
        return pa.RecordBatchReader.from_stream(value)
    except (pa.ArrowException, ValueError, OverflowError, AttributeError) as error:
        raise UnsupportedType(
            f"This {type(value).__name__} cannot become an Arrow table: {error}. Convert the column it names to one type."
        ) from error


def _keeps_index(frame: Any) -> bool | None:
    """Whether the index of a pandas frame is content: the plain 0, 1, 2 … without a name is none."""
    index: Any = getattr(frame, "index", None)
    if type(index).__name__ != "RangeIndex":
        return None
    return True if index.name is not None or (index.start, index.step) != (0, 1) else None


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
        return pa.timestamp("ms", kind.tz)
    if pa.types.is_date64(kind):
        return pa.date32()
    if pa.types.is_time32(kind) and kind.unit == "s":
        return pa.time32("ms")
    if pa.types.is_interval(kind) or pa.types.is_union(kind):
        raise UnsupportedType(f"Parquet has no type for {kind}. Convert it, to a duration or a struct for example.")
    return kind


def _item(kind: pa.DataType) -> pa.Field:
    return pa.field("element", plain_type(kind.value_type), kind.value_field.nullable)


def plain_batches(
    reader: pa.RecordBatchReader, schema: pa.Schema, categories: dict[str, pa.Array] | None = None
) -> Iterator[pa.Table]:
    """The stream with plain types. Raises `UnsupportedType` where a value does not fit.

    `categories` collects the values of dictionaries, in their order, which plain types have no place for.
    """
    for batch in (piece for whole in reader for piece in _pieces(whole)):
        if categories is not None:
            _collect_categories(batch, categories)
        try:
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


_MOST_CATEGORIES = 1000


def _collect_categories(batch: pa.RecordBatch, categories: dict[str, pa.Array]) -> None:
    """Remember the dictionaries of the first batch, small ones only."""
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_dictionary(field.type) and len(column.dictionary) <= _MOST_CATEGORIES:
            categories.setdefault(field.name, column.dictionary.cast(plain_type(field.type.value_type)))


def plain_table(value: Any) -> pa.Table:
    """A whole table with plain types. Raises `UnsupportedType`."""
    reader = reader_of(value)
    schema = plain_schema(reader.schema)
    return pa.concat_tables([schema.empty_table(), *plain_batches(reader, schema)])


def to_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the types of `schema`, column by column (nested dictionaries need their own decoding)."""
    if table.schema.equals(schema):
        return table.replace_schema_metadata(None)
    columns = [_to_type(column, field.type) for column, field in zip(table.columns, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema)


def _to_type(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    if pa.types.is_dictionary(column.type) and column.type.value_type != kind:
        # Arrow decodes a dictionary only into its own type of values: let that be the plain one first.
        chunks = [pa.DictionaryArray.from_arrays(c.indices, c.dictionary.cast(kind)) for c in column.chunks]
        column = pa.chunked_array(chunks, pa.dictionary(column.type.index_type, kind))
    return column if column.type == kind else column.cast(kind)


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


def user_types(schema: pa.Schema, categories: Mapping[str, pa.Array]) -> str | None:
    """What the writer's schema says beyond plain types, base64, to be given back on reading; None when nothing."""
    keeps_index = _has_index(schema.metadata)
    fields = [
        pa.field(field.name, _user_type(field.type), field.nullable, _packed(categories.get(field.name)))
        for field in schema
        if pa.types.is_dictionary(field.type)
    ]
    if not keeps_index and not fields:
        return None
    kept = pa.schema(fields, {b"pandas": schema.metadata[b"pandas"]} if keeps_index else None)
    return base64.b64encode(kept.serialize().to_pybytes()).decode()


def _user_type(kind: pa.DataType) -> pa.DataType:
    return pa.dictionary(kind.index_type, plain_type(kind.value_type), kind.ordered)


def _packed(values: pa.Array | None) -> dict[bytes, bytes] | None:
    """Categories as metadata of a field: an Arrow stream of one column."""
    if values is None:
        return None
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([values], names=["categories"])
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return {b"categories": base64.b64encode(sink.getvalue().to_pybytes())}


def _unpacked(field: pa.Field) -> pa.Array | None:
    packed = (field.metadata or {}).get(b"categories")
    if packed is None:
        return None
    return pa.ipc.open_stream(base64.b64decode(packed)).read_all().column(0).combine_chunks()


def _has_index(metadata: Mapping[bytes, bytes] | None) -> bool:
    """Whether pandas metadata speak of an index other than the plain 0, 1, 2 … one."""
    if not metadata or b"pandas" not in metadata:
        return False
    index = json.loads(metadata[b"pandas"]).get("index_columns", [])
    return any(not isinstance(column, dict) or column.get("name") for column in index)


def with_user_types(table: pa.Table, schema: TableSchema | None) -> pa.Table:
    """The table with the types its writer had."""
    if schema is None or schema.user_types is None:
        return table
    kept = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(schema.user_types)))
    for field in kept:
        position = table.schema.get_field_index(field.name)
        if position >= 0:
            column = _encoded(table.column(position), field)
            table = table.set_column(position, pa.field(field.name, column.type, field.nullable), column)
    return table.replace_schema_metadata(kept.metadata)


def _encoded(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """A column as the dictionary its writer had: the same categories in the same order, later ones behind them."""
    known = _unpacked(field)
    if known is None:
        return column.dictionary_encode()
    values = column.combine_chunks()
    new = values.filter(pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, known)))).unique()
    categories = pa.concat_arrays([known, new])
    indices = pc.index_in(values, categories)
    if len(categories) < 1 << (
        field.type.index_type.bit_width - 1
    ):  # else later parts brought more than the writer had
        indices = indices.cast(field.type.index_type)
    return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, categories, ordered=field.type.ordered)])


_LONGEST_BOUND = 256


def scalar(value: Any) -> Any:
    """A value as a JSON scalar: numbers, texts and booleans as they are, moments in ISO 8601, decimals as text.

    None for what has no such form (bytes, infinities).
    """
    match value:
        case bool() | int():
            return value
        case str():  # a bound that is a whole text says nothing, and PostgreSQL keeps no NUL
            return value if len(value) <= _LONGEST_BOUND and "\0" not in value else None
        case float():
            return value + 0.0 if isfinite(value) else None  # Parquet's bounds say -0.0 for 0.0
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case timedelta():
            return value.total_seconds()
        case _:
            return None
