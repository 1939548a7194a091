"""The writer's schema of a table, beyond plain types: stored beside the schema, outside of the digest, restored on
reading.

It is an Arrow schema: its types, the metadata of its fields (extension types, polars' enums) and its own (pandas'
index, dtypes and `attrs`), and for each dictionary its values in their order. It is one Arrow IPC message, base64.
"""

import base64
import json
import logging
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.errors import UnsupportedType
from dataset_registry.tabular import convert

_log = logging.getLogger(__name__)

_CATEGORIES = b"dataset_registry:categories"
_OLD_CATEGORIES = b"categories"
"""The key under which earlier versions of the registry kept the values of a dictionary."""
_MOST_BYTES = 8 << 20
"""Maximum packed size of the values of a dictionary. Beyond it, unused values are dropped."""
_PANDAS = b"pandas"
_PANDAS_VERSION = "3.0.0"
"""The version of pandas that frames are kept as of."""

Place = tuple[int, ...]
"""Where a dictionary is: the position of its column, then those of the fields down to it."""


class Categories:
    """The values of dictionaries, gathered from the batches of a stream: in the order of the first, later ones behind."""

    def __init__(self, schema: pa.Schema) -> None:
        self._places = {place for i, field in enumerate(schema) for place in _places(field, (i,))}
        self.values: dict[Place, pa.Array] = {}

    def gather(self, batch: pa.RecordBatch) -> None:
        """Look at a batch."""
        if self._places:
            for i, values in enumerate(batch.columns):
                self._gather(values, (i,))

    def _gather(self, values: pa.Array, place: Place) -> None:
        if isinstance(values.type, pa.BaseExtensionType):
            values = values.storage
        kind = values.type
        if place in self._places:
            self._extend(place, values.dictionary)
        elif pa.types.is_struct(kind):
            for i in range(kind.num_fields):
                self._gather(values.field(i), (*place, i))
        elif convert.is_list(kind):
            self._gather(values.values, (*place, 0))
        elif pa.types.is_map(kind):
            self._gather(values.keys, (*place, 0))
            self._gather(values.items, (*place, 1))

    def _extend(self, place: Place, dictionary: pa.Array) -> None:
        plain = dictionary.drop_null()
        if pa.types.is_string_view(plain.type) or pa.types.is_large_string(plain.type):
            plain = plain.cast(pa.string())
        known = self.values.get(place)
        if known is None:
            self.values[place] = plain
        elif not known.equals(plain):
            self.values[place] = pa.concat_arrays([known, _others(plain, known)])


def _others(values: pa.Array, known: pa.Array) -> pa.Array:
    """The values that are not known yet, each once, in order."""
    return values.filter(pc.invert(pc.is_in(values, known))).unique()


def _places(field: pa.Field, place: Place) -> Iterator[Place]:
    """Where the dictionaries of a field are whose values have an order that is to be kept."""
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    if pa.types.is_dictionary(kind):
        if b"_PL_CATEGORICAL2" not in (field.metadata or {}):  # their values are those of a whole process, in no order
            yield place
        return
    for i, inner in enumerate(_fields(kind)):
        yield from _places(inner, (*place, i))


def _fields(kind: pa.DataType) -> list[pa.Field]:
    """The fields of a nested type that may have metadata of their own."""
    if pa.types.is_map(kind):
        return [kind.key_field, kind.item_field]
    return list(kind.fields) if pa.types.is_struct(kind) else [kind.value_field] if convert.is_list(kind) else []


def kept(schema: pa.Schema, plain: pa.Schema, categories: Categories) -> str | None:
    """What a writer's schema says beyond the plain one, as text; None when that is nothing."""
    fields = [_with_categories(field, (i,), categories.values) for i, field in enumerate(schema)]
    kept = pa.schema(fields, _without_rows(schema.metadata))
    if kept.equals(plain, check_metadata=True):
        return None
    return text_of(kept)


def _with_categories(field: pa.Field, place: Place, categories: Mapping[Place, pa.Array]) -> pa.Field:
    """The field, with the values of its dictionaries in the metadata of their fields."""
    kind = field.type
    if place in categories:
        packed = _packed(categories[place])
        if len(packed) > _MOST_BYTES:
            if kind.ordered:
                raise UnsupportedType(
                    f"Column {field.name!r} has {len(categories[place]):,} ordered categories, which take more than "
                    f"{_MOST_BYTES >> 20} MB. Store it as text, and the order as a table of its own."
                )
            _log.warning("Column %r: unused categories are dropped, as there are too many", field.name)
            return field
        return field.with_metadata({**(field.metadata or {}), _CATEGORIES: packed})
    fields = _fields(kind)
    if fields and any(known[: len(place)] == place for known in categories):
        inner = [_with_categories(inner, (*place, i), categories) for i, inner in enumerate(fields)]
        return field.with_type(_rebuilt(kind, inner))
    return field


def _rebuilt(kind: pa.DataType, inner: list[pa.Field]) -> pa.DataType:
    """A nested type with other fields."""
    if pa.types.is_struct(kind):
        return pa.struct(inner)
    if pa.types.is_map(kind):
        return pa.map_(inner[0], inner[1], kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner[0], kind.list_size)
    for is_kind, build in (
        (pa.types.is_large_list, pa.large_list),
        (pa.types.is_list_view, pa.list_view),
        (pa.types.is_large_list_view, pa.large_list_view),
    ):
        if is_kind(kind):
            return build(inner[0])
    return pa.list_(inner[0])


def _without_rows(metadata: Mapping[bytes, bytes] | None) -> Mapping[bytes, bytes] | None:
    """Schema metadata that say the same for any number of rows: a plain index 0, 1, 2 … needs no mention."""
    if not metadata or _PANDAS not in metadata:
        return metadata
    facts = json.loads(metadata[_PANDAS])
    facts["index_columns"] = [
        index for index in facts.get("index_columns", []) if not (isinstance(index, dict) and index.get("name") is None)
    ]
    facts.pop("creator", None)  # versions of libraries: the same frame is to be kept as the same
    facts["pandas_version"] = _PANDAS_VERSION
    return {**metadata, _PANDAS: json.dumps(facts).encode()}


def _packed(values: pa.Array) -> bytes:
    """An array as an Arrow stream of one column, base64."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([values], names=["categories"])
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_batch(batch)
    return base64.b64encode(sink.getvalue().to_pybytes())


def _unpacked(packed: bytes) -> pa.Array:
    found = pa.ipc.open_stream(base64.b64decode(packed)).read_all().column(0).combine_chunks()
    return found if isinstance(found, pa.Array) else pa.array([], found.type)


# --- giving it back ----------------------------------------------------------------------------------------------------


def schema_of(text: str | None) -> pa.Schema | None:
    """The writer's schema, as it was kept. (Earlier versions kept only fields with dictionaries.)"""
    return None if text is None else pa.ipc.read_schema(pa.BufferReader(base64.b64decode(text)))


def text_of(schema: pa.Schema) -> str:
    """A writer's schema as it is kept."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def types_of_columns(names: Sequence[str], sides: Sequence[tuple[str | None, Mapping[str, str]]]) -> str | None:
    """The writer's schema of a table whose columns come from others: of each, its kept schema and what its columns are now
    called. The first that has a column tells its type, and the first one the rest. None where nothing was kept."""
    schemas = [(schema_of(text), renamed) for text, renamed in sides]
    fields: dict[str, pa.Field] = {}
    for schema, renamed in schemas:
        for field in schema or ():
            if (name := renamed.get(field.name)) is not None:
                fields.setdefault(name, field.with_name(name))
    if not fields:
        return None
    metadata = next((schema.metadata for schema, _ in schemas if schema is not None), None)
    kept = pa.schema([fields[name] for name in names if name in fields], _without_columns(metadata, names))
    return text_of(kept)


def _without_columns(metadata: Mapping[bytes, bytes] | None, names: Sequence[str]) -> Mapping[bytes, bytes] | None:
    """Schema metadata for these columns: without what pandas says of others, and without an index that is not there."""
    if not metadata or _PANDAS not in metadata:
        return metadata
    facts = json.loads(metadata[_PANDAS])
    facts["columns"] = [column for column in facts.get("columns", []) if column.get("field_name") in names]
    indexes = facts.get("index_columns", [])
    if any(isinstance(index, str) and index not in names for index in indexes):
        facts["index_columns"] = []
    return {**metadata, _PANDAS: json.dumps(facts).encode()}


def categories_of(field: pa.Field) -> pa.Array | None:
    """The values of a field's dictionary, in order."""
    packed = (field.metadata or {}).get(_CATEGORIES) or (field.metadata or {}).get(_OLD_CATEGORIES)
    return None if packed is None else _unpacked(packed)


def with_values(field: pa.Field, values: pa.Array) -> pa.Field:
    """A field of a dictionary with these values in this order."""
    return field.with_metadata({**(field.metadata or {}), _CATEGORIES: _packed(values)})


def restored(table: pa.Table, writer: pa.Schema | None) -> pa.Table:
    """Restore the types and metadata of the writer for the columns of a table."""
    if writer is None:
        return table
    columns, fields = [], []
    for position, name in enumerate(table.column_names):
        values, field = table.column(position), table.schema.field(position)
        at = writer.get_field_index(name)
        if at >= 0:
            wanted = writer.field(at)
            values = _column(values, wanted)
            field = pa.field(name, values.type, wanted.nullable, _own(wanted.metadata))
        columns.append(values)
        fields.append(field)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, writer.metadata))


def _own(metadata: Mapping[bytes, bytes] | None) -> dict[bytes, bytes] | None:
    """A field's metadata without ours."""
    if not metadata:
        return None
    return {key: value for key, value in metadata.items() if key not in (_CATEGORIES, _OLD_CATEGORIES)} or None


def clean(field: pa.Field) -> pa.Field:
    """A field whose metadata, and those of the fields in it, are the writer's own."""
    kind = field.type
    if fields := _fields(kind):
        kind = _rebuilt(kind, [clean(inner) for inner in fields])
    return pa.field(field.name, kind, field.nullable, _own(field.metadata))


def _column(values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    known = categories_of(field)
    if known is None or not pa.types.is_dictionary(field.type):
        return _nested(values, field)
    return dictionary(values, field.type, known)


def dictionary(values: pa.ChunkedArray, kind: pa.DataType, known: pa.Array) -> pa.ChunkedArray:
    """A column as a dictionary of known values in their order, behind them those that it has besides."""
    plain = convert.column(values, known.type)
    found = plain.unique().drop_null()
    new = _others(found, known)
    categories = pa.concat_arrays([known, new]) if len(new) else known
    index_type = kind.index_type
    if len(categories) >= 1 << (index_type.bit_width - 1):  # later parts brought more than the writer had
        index_type = pa.int64() if len(categories) >= 1 << 31 else pa.int32()
    stored = convert.array(categories, kind.value_type)
    chunks = [
        pa.DictionaryArray.from_arrays(pc.index_in(chunk, categories).cast(index_type), stored, ordered=kind.ordered)
        for chunk in plain.chunks
    ]
    return pa.chunked_array(chunks, pa.dictionary(index_type, kind.value_type, kind.ordered))


def _nested(values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    wanted = clean(field)
    found = convert.column(values, wanted.type)
    known = dict(_known(field, ()))
    if not known:
        return found
    return pa.chunked_array([_ordered(chunk, (), known) for chunk in found.chunks], found.type)


def _known(field: pa.Field, place: Place) -> Iterator[tuple[Place, pa.Array]]:
    """The values of the dictionaries in a field, by where they are in it."""
    if pa.types.is_dictionary(field.type):
        if (values := categories_of(field)) is not None:
            yield place, values
        return
    for i, inner in enumerate(_fields(field.type)):
        yield from _known(inner, (*place, i))


def _ordered(values: pa.Array, place: Place, known: Mapping[Place, pa.Array]) -> pa.Array:
    """An array whose dictionaries have their known values in their order."""
    if not any(there[: len(place)] == place for there in known):
        return values
    kind = values.type
    if place in known:
        return dictionary(pa.chunked_array([values]), kind, known[place]).combine_chunks()
    mask = values.is_null() if values.null_count else None
    if pa.types.is_struct(kind):
        children = [_ordered(values.field(i), (*place, i), known) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=mask)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(_ordered(values.values, (*place, 0), known), type=kind, mask=mask)
    if pa.types.is_map(kind):
        keys, items = (_ordered(inner, (*place, i), known) for i, inner in enumerate((values.keys, values.items)))
        return pa.MapArray.from_arrays(values.offsets, keys, items, type=kind, mask=mask)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        inner = _ordered(values.values, (*place, 0), known)
        return type(values).from_arrays(values.offsets, values.sizes, inner, type=kind, mask=mask)
    inner = _ordered(values.values, (*place, 0), known)
    return type(values).from_arrays(values.offsets, inner, type=kind, mask=mask)
