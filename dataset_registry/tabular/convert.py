"""Lossless conversion of values to another type, also for nested types that Arrow's own cast does not support
correctly.

Conversions go between types that hold the same values: from a dictionary to its values, from a view or a large list to a
list, from an extension type to its storage, to a wider number. Where a value would change, they raise.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def column(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """A column as another type that holds the same values.

    Raises `pyarrow.ArrowInvalid`, `pyarrow.ArrowNotImplementedError` where a value has no place in the type.
    """
    if _is_exactly(values.type, kind):
        return values
    return pa.chunked_array([array(chunk, kind) for chunk in values.chunks], kind)


def array(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """An array as another type that holds the same values."""
    have = values.type
    if _is_exactly(have, kind):
        return values
    if isinstance(have, pa.BaseExtensionType):
        return array(values.storage, kind)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, array(values, kind.storage_type))
    if pa.types.is_run_end_encoded(have):
        return array(pc.run_end_decode(values), kind)
    if pa.types.is_run_end_encoded(kind):
        return pc.run_end_encode(array(values, kind.value_type), run_end_type=kind.run_end_type)
    if pa.types.is_dictionary(have):
        return array(array(values.dictionary, _takeable(have.value_type)).take(values.indices), kind)
    if pa.types.is_dictionary(kind):
        return _encoded(values, kind)
    if pa.types.is_struct(have) and pa.types.is_struct(kind):
        return _struct(values, kind)
    if pa.types.is_map(have) and pa.types.is_map(kind):
        return _map(values, kind)
    if is_list(have) and is_list(kind):
        return _list(values, kind)
    found = values.cast(kind)
    if pa.types.is_date64(have) and pa.types.is_date32(kind) and not found.cast(have).equals(values):
        raise pa.ArrowInvalid("a date64 has a time of day, which date32 has not")
    return found


def _is_exactly(have: pa.DataType, kind: pa.DataType) -> bool:
    """Whether types are the same, down to what the elements of lists and the entries of maps are called."""
    return bool(have == kind and (not pa.types.is_nested(kind) or have.equals(kind, check_metadata=True)))


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's six kinds of lists, maps apart."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _takeable(kind: pa.DataType) -> pa.DataType:
    """A type of the same values that Arrow's functions know: they know no views."""
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def _encoded(values: pa.Array, kind: pa.DataType) -> pa.Array:
    found = array(values, _takeable(kind.value_type)).dictionary_encode()
    indices = found.indices.cast(kind.index_type)
    return pa.DictionaryArray.from_arrays(indices, array(found.dictionary, kind.value_type), ordered=kind.ordered)


def _nulls(values: pa.Array) -> pa.Array | None:
    return values.is_null() if values.null_count else None


def _struct(values: pa.Array, kind: pa.DataType) -> pa.Array:
    # Fields by position: names may differ in nothing, and a field of ours that the struct lacks is null.
    children = []
    for i in range(kind.num_fields):
        wanted = kind.field(i)
        at = values.type.get_field_index(wanted.name)
        if at < 0:
            children.append(pa.nulls(len(values), wanted.type))
        else:
            children.append(array(_child(values, at), wanted.type))
    if not children:
        return values
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=_nulls(values))


def _child(values: pa.Array, at: int) -> pa.Array:
    """The values of a struct's field, of its slice alone."""
    child = values.field(at)
    return child if len(child) == len(values) else child.slice(values.offset, len(values))


def _list(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind) and pa.types.is_fixed_size_list(values.type):
        size = kind.list_size
        inner = array(values.values.slice(values.offset * size, len(values) * size), kind.value_type)
        return pa.FixedSizeListArray.from_arrays(inner, type=kind, mask=_nulls(values))
    if pa.types.is_fixed_size_list(kind):
        # Nulls of a list have no elements, those of a list of fixed size do.
        taken = pc.list_flatten(values)
        inner = array(taken, kind.value_type)
        if values.null_count:
            places = np.full(len(values) * kind.list_size, -1, np.int64)
            valid = np.repeat(pc.is_valid(values).to_numpy(zero_copy_only=False), kind.list_size)
            places[valid] = np.arange(len(inner))
            inner = inner.take(pa.array(places, mask=~valid))
        return pa.FixedSizeListArray.from_arrays(inner, type=kind, mask=_nulls(values))
    lengths = pc.list_value_length(values).fill_null(0)
    ends = np.zeros(len(values) + 1, np.int64)
    np.cumsum(lengths.to_numpy(zero_copy_only=False), out=ends[1:])
    inner = array(values.flatten(), kind.value_type)  # of the lists that are not null
    large = pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind)
    offsets = pa.array(ends, pa.int64() if large else pa.int32())
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        build = pa.LargeListViewArray if large else pa.ListViewArray
        sizes = pc.subtract(offsets[1:], offsets[:-1])
        return build.from_arrays(offsets[:-1], sizes, inner, type=kind, mask=_nulls(values))
    build = pa.LargeListArray if large else pa.ListArray
    return build.from_arrays(offsets, inner, type=kind, mask=_nulls(values))


def _map(values: pa.Array, kind: pa.DataType) -> pa.Array:
    offsets = values.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    keys = array(values.keys.slice(first, last - first), kind.key_type)
    items = array(values.items.slice(first, last - first), kind.item_type)
    moved = pa.array(offsets - first, pa.int32())
    return pa.MapArray.from_arrays(moved, keys, items, type=kind, mask=_nulls(values))
