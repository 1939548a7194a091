"""Values in a form that compares as a diff does, whatever engine compares them.

Null equals null, NaN equals NaN, 0.0 and -0.0 differ, and nested values compare as a whole (docs/design/merging.md). Numbers
become their bits, moments their counts, texts their bytes: so an engine that has no nanoseconds or no decimals of 76 digits
compares them exactly.
"""

import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.tabular import convert


def comparable(values: pa.Array) -> pa.Array:
    """An array of plain types in a form where equal values are equal bytes; nulls stay null."""
    kind = values.type
    if pa.types.is_float16(kind):
        values, kind = values.cast(pa.float32()), pa.float32()
    if pa.types.is_floating(kind):
        one = pc.if_else(pc.is_nan(values), pa.scalar(float("nan"), kind), values)
        return one.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    if pa.types.is_string(kind):
        return values.view(pa.binary())
    if pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return values.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    if pa.types.is_decimal(kind):
        return values.view(pa.binary(kind.bit_width // 8))
    if pa.types.is_null(kind):
        return pa.nulls(len(values), pa.int32())
    if pa.types.is_struct(kind):
        return _struct(values)
    if pa.types.is_map(kind):
        offsets = values.offsets.cast(pa.int64())
        return _list(values, pc.subtract(offsets[1:], offsets[:-1]), _entries(values))
    if convert.is_list(kind):
        listed = convert.array(values, pa.list_(kind.value_type))
        return _list(listed, pc.list_value_length(listed).cast(pa.int64()), listed.flatten())
    return values


def is_flat(kind: pa.DataType) -> bool:
    """Whether Arrow can compare the comparable form of a type by itself."""
    return not pa.types.is_nested(kind)


def differ(before: pa.Array, after: pa.Array) -> pa.Array:
    """Where two arrays of one flat type differ: booleans without nulls."""
    left, right = comparable(before), comparable(after)
    unequal = pc.fill_null(pc.not_equal(left, right), False)
    if not left.null_count and not right.null_count:
        return unequal
    return pc.or_(unequal, pc.xor(pc.is_null(left), pc.is_null(right)))


def _struct(values: pa.Array) -> pa.Array:
    count = values.type.num_fields
    if not count:
        return pc.if_else(pc.is_null(values), pa.scalar(None, pa.bool_()), pa.scalar(True))
    children = [comparable(child) for child in values.flatten()]
    mask = values.is_null() if values.null_count else None
    return pa.StructArray.from_arrays(children, names=[f"f{i}" for i in range(count)], mask=mask)


def _list(values: pa.Array, lengths: pa.Array, elements: pa.Array) -> pa.Array:
    """Lists of these lengths, whose elements are those of the lists that are not null."""
    mask = values.is_null() if values.null_count else None
    if mask is not None:
        lengths = pc.if_else(mask, 0, lengths)
    ends = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
    inner = comparable(elements)
    return pa.LargeListArray.from_arrays(ends, inner, type=pa.large_list(inner.type), mask=mask)


def _entries(values: pa.Array) -> pa.Array:
    """The entries of maps that are not null, as structs."""
    plain = values.filter(values.is_valid()) if values.null_count else values
    offsets = plain.offsets
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    keys, items = plain.keys.slice(first, last - first), plain.items.slice(first, last - first)
    return pa.StructArray.from_arrays([keys, items], names=["key", "value"])
