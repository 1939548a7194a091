"""Content-defined chunking of tables: where a part ends depends only on nearby rows, not on their position in the
table.

So an inserted, replaced or removed row changes its own part, and the other parts keep their bytes. The row hash has the
format `cut/1`, pinned by test vectors (tests/tabular/test_cutting.py). It reads values, not representations, so that a
wider type of the same numbers, or the text type of another library, moves no border.

The hash of a row is a sum over its columns, each mixed with splitmix64's finalizer (Steele, Lea and Flood 2014) and odd
constants of its own. Of a text it takes the length and the first and last eight bytes; of a list the sum of its elements.
It spreads rows evenly and says nothing about equality.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.model.parts import ChunkingRule

_Hashes = Any  # numpy.ndarray of uint64: the library's own types say less than they cost

Positions = Any
"""Positions between the rows of a table: an ascending numpy array of int64."""

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_NULL = np.uint64(0x6E756C6C6E756C6C)
_BLOCK = 1 << 15
"""Rows that are hashed at a time, so that intermediate values fit into the processor cache."""

PART_BYTES = 12 << 20
"""Approximate size of a part in memory in bytes; 3 to 5 MB as Parquet."""
_FINER = 8
"""A table with fewer than `_FEW` parts is split this many times finer."""
_FEW = 16
MANY = 2 * _FEW * _FINER
"""A finer split table with more parts than this is split again at the normal size, once."""
LEAST_ROWS, _MOST_ROWS = 1 << 10, 1 << 20
_WIDEST = 16 * PART_BYTES
"""Maximum size of a part in memory in bytes, unless a single row is larger."""


def rule(head: pa.Table, *, is_whole: bool, columns: Sequence[str]) -> ChunkingRule:
    """The chunking rule of a new table with the first rows `head` (all of them, or `enough`)."""
    rows = _rows_of(head)
    if is_whole and head.num_rows < rows * _FEW:
        rows = max(LEAST_ROWS, rows // _FINER)
    return ChunkingRule(tuple(columns), rows)


def enough(head: pa.Table) -> bool:
    """Whether these rows suffice to determine the rule."""
    return bool(head.num_rows >= _rows_of(head) * _FEW)


def kept(cut: ChunkingRule, columns: Sequence[str]) -> ChunkingRule | None:
    """The rule of the previous version, restricted to these columns; None if none of its columns is left."""
    there = tuple(name for name in cut.columns if name in columns)
    return replace(cut, columns=there) if there else None


def _rows_of(head: pa.Table) -> int:
    """A power of two: the rows that take `PART_BYTES`, judged by the first 65,536 of them at most."""
    sample = head.slice(0, 1 << 16)
    width = _table_width(sample) / max(1, sample.num_rows)
    rows = int(PART_BYTES / max(width, 1))
    return min(_MOST_ROWS, max(LEAST_ROWS, 1 << max(0, rows.bit_length() - 1)))


def _table_width(table: pa.Table) -> int:
    return sum(_width(column) for column in table.columns)


def _width(column: pa.ChunkedArray | pa.Array) -> int:
    """The size of values in memory, computed from their types and lengths, independent of their actual buffers."""
    kind, rows = column.type, len(column)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return rows * 4 + (pc.sum(pc.binary_length(column)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(_width(pc.struct_field(column, i)) for i in range(kind.num_fields))
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return rows * 4 + _width(pc.list_flatten(column))
    if pa.types.is_map(kind):
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return rows * 4 + sum(
            _width(inner) for chunk in chunks for inner in (_slice(chunk, "keys"), _slice(chunk, "items"))
        )
    return 0 if pa.types.is_null(kind) else rows * max(1, kind.bit_width // 8)


def split(tables: Iterable[tuple[pa.Table, Positions]], cut: ChunkingRule) -> Iterator[pa.Table]:
    """Split a stream (tables, each with its `cut_points`) into the parts to write, each a table of one combined chunk.

    A row whose hash is 0 modulo `cut.rows` ends a part, of between an eighth of that and four times it, or of less where the
    rows turn out to be wide. (FastCDC's normalised chunking was tried: parts of more equal sizes, and more of them new.)
    """
    splitter = Splitter(cut)
    for table, ends in tables:
        yield from splitter.push(table, ends)
    yield from splitter.rest()


class Splitter:
    """Splits a stream into parts, table by table; see `split`. `pending` are the rows of the part that has not ended yet."""

    def __init__(self, cut: ChunkingRule) -> None:
        self._rows = cut.rows
        self.pending: list[pa.Table] = []
        self._count = self._size = 0

    def push(self, table: pa.Table, ends: Positions) -> Iterator[pa.Table]:
        """Add the next table, with its `cut_points`. Yields the parts that end in it."""
        start = 0
        while start < table.num_rows:
            rest = table.slice(start)
            end = _end(ends, start, self._count, self._rows, _rows_that_fit(rest, _WIDEST - self._size))
            if end > table.num_rows:
                self.pending.append(rest)
                self._count, self._size = self._count + rest.num_rows, self._size + _table_width(rest)
                break
            part = pa.concat_tables([*self.pending, rest.slice(0, end - start)]).combine_chunks()
            self.pending, self._count, self._size, start = [], 0, 0, end
            yield part

    def rest(self) -> Iterator[pa.Table]:
        """The last part, which ends with the stream; none if the stream ended with a part."""
        if self.pending:
            yield pa.concat_tables(self.pending).combine_chunks()


def _end(cut_points: Positions, start: int, count: int, target: int, fitting: int | None) -> int:
    """The end of the part that has `count` rows before a table and continues at its row `start`; an end after the table
    means that the part continues.

    `fitting` is the number of rows from `start` on that fit into the part, None for all.
    """
    begin = start - count
    latest = begin + target * 4
    if fitting is not None:
        latest = min(latest, start + max(fitting, 0 if count else 1))
    at = int(np.searchsorted(cut_points, max(start + 1, begin + target // 8)))
    return min(int(cut_points[at]), latest) if at < len(cut_points) else latest


def _rows_that_fit(table: pa.Table, size: int) -> int | None:
    """The number of rows of a table that fit into this many bytes, None for all."""
    if _table_width(table) < size:
        return None
    low, high = 0, table.num_rows
    while low < high:
        middle = (low + high + 1) // 2
        if _table_width(table.slice(0, middle)) <= size:
            low = middle
        else:
            high = middle - 1
    return low


def cut_points(table: pa.Table, cut: ChunkingRule) -> Positions:
    """The positions behind the rows that may end a part, ascending."""
    found = []
    mask = np.uint64(cut.rows - 1)
    for start in range(0, table.num_rows, _BLOCK):
        hashes = row_hashes(table.slice(start, _BLOCK), cut.columns)
        found.append(np.flatnonzero(hashes & mask == 0) + (start + 1))
    return np.concatenate(found) if found else np.empty(0, np.int64)


def row_hashes(table: pa.Table, columns: Sequence[str]) -> _Hashes:
    """The hash of each row over these columns, in their order."""
    total = np.zeros(table.num_rows, np.uint64)
    for position, name in enumerate(columns):
        values = table.column(name).combine_chunks()
        if isinstance(values, pa.ChunkedArray):  # no rows
            continue
        total += _mixed(_hashed(values), position)
    return _mixed(total, len(columns))


def _mixed(values: _Hashes, seed: int) -> _Hashes:
    """splitmix64's finalizer over values and a seed."""
    mixed = values + np.uint64((seed + 1) * _GOLDEN & _MASK)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _hashed(values: pa.Array) -> _Hashes:
    """One hash per value: equal values have equal hashes, and nulls have their own."""
    numbers = _numbers(values)
    if values.null_count:
        valid = pc.is_valid(values).to_numpy(zero_copy_only=False)
        numbers = np.where(valid, numbers, _NULL)
    return numbers


def _numbers(values: pa.Array) -> _Hashes:
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _texts(values)
    if pa.types.is_boolean(kind):
        return values.cast(pa.uint8()).fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64)
    if pa.types.is_null(kind):
        return np.full(len(values), _NULL)
    if pa.types.is_struct(kind):
        total = np.zeros(len(values), np.uint64)
        for position in range(kind.num_fields):
            total += _mixed(_hashed(values.field(position).slice(0)), position)
        return total
    if pa.types.is_map(kind):
        total = _sums(values, _mixed(_hashed(_slice(values, "keys")), 1))
        return total + _sums(values, _mixed(_hashed(_slice(values, "items")), 2))
    if pa.types.is_list(kind):
        return _sums(values, _mixed(_hashed(_slice(values, "values")), 1))
    if pa.types.is_fixed_size_list(kind):
        inner = values.values.slice(values.offset * kind.list_size, len(values) * kind.list_size)
        return _mixed(_hashed(inner), 1).reshape(len(values), kind.list_size).sum(axis=1, dtype=np.uint64)
    return _fixed(values)


def _fixed(values: pa.Array) -> _Hashes:
    """Numbers and moments: their bits, of the widest type of their kind. Wider ones (decimals) a word at a time."""
    kind = values.type
    width = kind.bit_width // 8
    data = values.buffers()[1]
    if pa.types.is_fixed_size_binary(kind) or width > 8:
        raw = np.frombuffer(data, np.uint8)[values.offset * width : (values.offset + len(values)) * width]
        padded = np.zeros((len(values), -(-width // 8) * 8), np.uint8)
        padded[:, :width] = raw.reshape(len(values), width)
        words = padded.view(np.uint64)
        total = np.zeros(len(values), np.uint64)
        for position in range(words.shape[1]):
            total += _mixed(np.ascontiguousarray(words[:, position]), position)
        return total
    if pa.types.is_floating(kind):
        floats = np.frombuffer(data, f"<f{width}")[values.offset : values.offset + len(values)]
        return floats.astype(np.float64, copy=False).view(np.uint64)
    sign = "u" if pa.types.is_unsigned_integer(kind) else "i"
    numbers = np.frombuffer(data, f"<{sign}{width}")[values.offset : values.offset + len(values)]
    return numbers.astype(np.int64 if sign == "i" else np.uint64, copy=False).view(np.uint64)


def _texts(values: pa.Array) -> _Hashes:
    """Texts and bytes: the length, the first and the last eight bytes, each read as one little-endian word."""
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, "<i4")[values.offset : values.offset + len(values) + 1].astype(np.int64)
    low, high = (int(ends[0]), int(ends[-1])) if len(ends) else (0, 0)
    ends -= low
    starts, lengths = ends[:-1], np.diff(ends)
    if values.null_count:  # what lies under a null is anybody's
        lengths = np.where(pc.is_valid(values).to_numpy(zero_copy_only=False), lengths, 0)
    # Eight bytes more on either side: the words at the very beginning and end are read whole too.
    padded = np.zeros(high - low + 16, np.uint8)
    if data is not None:
        padded[8 : high - low + 8] = np.frombuffer(data, np.uint8)[low:high]
    words = np.ndarray((high - low + 9,), "<u8", padded.data, strides=(1,))
    shortest, longest = (int(lengths.min()), int(lengths.max())) if len(lengths) else (0, 0)
    numbers = words[starts + 8]
    if shortest == longest:
        numbers &= _FIRST[min(longest, 8)]
    elif shortest < 8:
        numbers &= _FIRST[np.minimum(lengths, 8)]
    numbers += lengths.view(np.uint64) * _LENGTH
    if longest > 8:
        last = words[starts + lengths] * _LAST  # the eight bytes before the end
        if shortest <= 8:
            last[lengths <= 8] = 0
        numbers += last
    return numbers


_LENGTH, _LAST = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F)
_FIRST = np.array([(1 << (8 * count)) - 1 for count in range(9)], np.uint64)
"""Masks for the first bytes of a word."""


def _sums(lists: pa.Array, inner: _Hashes) -> _Hashes:
    """The sum of the hashes of each list's elements, and their number."""
    ends = lists.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    ends = ends - ends[0]
    running = np.zeros(len(inner) + 1, np.uint64)
    np.cumsum(inner, out=running[1:])
    lengths = np.diff(ends).view(np.uint64)
    return running[ends[1:]] - running[ends[:-1]] + _mixed(lengths, 3)


def _slice(lists: pa.Array, what: str) -> pa.Array:
    """The elements of the lists of a slice."""
    offsets = lists.offsets
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    return getattr(lists, what).slice(first, last - first)
