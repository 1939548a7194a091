"""Content-defined chunking of tables: where a part ends depends only on nearby rows, not on their position in the table (see
`Splitter`).

So an inserted, replaced or removed row changes its own part, and the other parts keep their bytes. The row hash has the
format `cut/1`, pinned by test vectors (tests/tabular/test_chunking.py). It reads values, not representations, so that a
wider type of the same numbers, or the text type of another library, moves no border.

The hash of a row is a sum over its columns, each mixed with splitmix64's finalizer (Steele, Lea and Flood 2014) and odd
constants of its own. Of a text it takes the length and the first and last eight bytes; of a list the sum of its elements.
It spreads rows evenly and says nothing about equality.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.model.parts import ChunkingRule

_Hashes = Any  # numpy.ndarray of uint64: the library's own types say less than they cost

Positions = Any
"""Positions between the rows of a table: an ascending numpy array of int64."""


class CutPoints(NamedTuple):
    """The positions behind the rows of a table that may end a part, ascending, and the hashes of these rows."""

    ends: Positions
    hashes: _Hashes


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
LEAST_ROWS, _MOST_ROWS = 1 << 4, 1 << 20
_WIDEST = 16 * PART_BYTES
"""Maximum size of a part in memory in bytes, unless a single row is larger."""


def rule(head: pa.Table, *, is_whole: bool, columns: Sequence[str]) -> ChunkingRule:
    """The chunking rule of a new table with the first rows `head` (all of them, or `enough`)."""
    rows = _rows_of(head)
    if is_whole and is_split_finer(head.num_rows, rows):
        rows = max(LEAST_ROWS, rows // _FINER)
    return ChunkingRule(tuple(columns), rows)


def enough(head: pa.Table) -> bool:
    """Whether these rows suffice to determine the rule."""
    return bool(head.num_rows >= _rows_of(head) * _FEW)


def is_split_finer(count: int, rows: int) -> bool:
    """Whether a new table of `count` rows is split finer than a large one, whose parts have `rows` on average."""
    return count < rows * _FEW and rows > LEAST_ROWS


_TELLING = 1 << 36
"""The number of different rows that the cut columns of a table without a key could have, at least."""


def telling_columns(head: pa.Table) -> list[str]:
    """The columns to cut a table by that has no key, in its order: those that tell rows apart best in its first rows, narrow ones
    first, as few as do it. The fewer there are, the less is hashed, and the fewer changes of values move an end."""
    sample = head.slice(0, 1 << 13)
    found: list[tuple[float, int, str, int]] = []
    for name, column in zip(sample.schema.names, sample.columns, strict=True):
        different = different_values(column)
        found.append((-round(different / max(1, len(column)), 1), width(column), name, different))
    chosen: set[str] = set()
    combinations = 1
    for _, _, name, different in sorted(found):
        if combinations < _TELLING:
            chosen.add(name)
            combinations *= max(1, different)
    return [name for name in sample.schema.names if name in chosen]


def different_values(column: pa.ChunkedArray) -> int:
    """The number of different values of a column, 1 where Arrow does not count them: of nested types, and of nulls alone."""
    try:
        found: int = pc.count_distinct(column, "all").as_py()
    except pa.ArrowNotImplementedError:
        return 1
    return found


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
    return sum(width(column) for column in table.columns)


def width(column: pa.ChunkedArray | pa.Array) -> int:
    """The size of values in memory, computed from their types and lengths, independent of their actual buffers."""
    kind, rows = column.type, len(column)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return rows * 4 + (pc.sum(pc.binary_length(column)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(width(pc.struct_field(column, i)) for i in range(kind.num_fields))
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return rows * 4 + width(pc.list_flatten(column))
    if pa.types.is_map(kind):
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return rows * 4 + sum(
            width(inner) for chunk in chunks for inner in (_slice(chunk, "keys"), _slice(chunk, "items"))
        )
    return 0 if pa.types.is_null(kind) else rows * max(1, kind.bit_width // 8)


def split(tables: Iterable[tuple[pa.Table, CutPoints]], cut: ChunkingRule) -> Iterator[pa.Table]:
    """Split a stream (tables, each with its `cut_points`) into the parts to write, each a table of one combined chunk."""
    splitter = Splitter(cut)
    for table, points in tables:
        yield from splitter.push(table, points)
    yield from splitter.rest()


class Splitter:
    """Splits a stream into parts, table by table.

    Form 2 of a rule: a part ends behind a row whose hash is less than those of the `rows / 2` rows before it and not greater
    than those of as many rows after it, all of which are there. So parts have at least `rows / 2` rows and `rows` on average,
    and where one ends depends on the rows around alone, not on where others end. In form 1 a row ends a part if its hash is 0
    modulo `rows`, and the part has at least an eighth of that.

    A part also ends at four times `rows`, or before it takes `_WIDEST` bytes. A stream that begins where a part of a longer one
    begins is split as that one.
    """

    def __init__(self, cut: ChunkingRule) -> None:
        self._cut = cut
        self._reach = cut.rows // 2 if cut.form > 1 else 0
        self._pending: list[pa.Table] = []
        self._ends = np.empty(0, np.int64)  # in rows of the whole stream, as `start` and `_seen`
        self._hashes = np.empty(0, np.uint64)
        self._size = 0
        self.start = 0
        """The rows of the stream in the parts that have ended."""
        self._seen = 0

    def push(self, table: pa.Table, points: CutPoints) -> Iterator[pa.Table]:
        """Add the next table, with its `cut_points`. Yields the parts whose end is known now."""
        self._pending.append(table)
        self._ends = np.concatenate([self._ends, points.ends + self._seen])
        self._hashes = np.concatenate([self._hashes, points.hashes])
        self._seen += table.num_rows
        self._size += _table_width(table)
        while self.start < self._seen and (end := self._end()) is not None:
            yield self._part(end)

    def rest(self) -> Iterator[pa.Table]:
        """The parts whose end is that of the stream, or known now that it has ended."""
        while self.start < self._seen:
            yield self._part(self._end(is_last=True) or self._seen)

    def _part(self, end: int) -> pa.Table:
        rows = pa.concat_tables(self._pending)
        part, rest = rows.slice(0, end - self.start).combine_chunks(), rows.slice(end - self.start)
        self._pending, self._size, self.start = [rest] if rest.num_rows else [], _table_width(rest), end
        first = int(np.searchsorted(self._ends, end, "right"))
        self._ends, self._hashes = self._ends[first:], self._hashes[first:]
        return part

    def _end(self, *, is_last: bool = False) -> int | None:
        """The end of the part that begins at `start`, None where it depends on rows to come."""
        latest = self.start + self._cut.rows * 4
        fitting = _rows_that_fit(pa.concat_tables(self._pending), _WIDEST) if self._size >= _WIDEST else None
        known = self._seen
        if fitting is not None:
            known = min(known, self.start + max(fitting, 1))  # of rows that do not fit nothing is asked
            latest = min(latest, known)
        found = self._form_2(latest, known) if self._cut.form > 1 else self._form_1(latest, known)
        if found is not None:
            return found
        is_decided = is_last or fitting is not None or known - self._reach >= latest
        return latest if is_decided and latest <= known else None

    def _form_1(self, latest: int, known: int) -> int | None:
        at = int(np.searchsorted(self._ends, self.start + max(1, self._cut.rows // 8)))
        return int(self._ends[at]) if at < len(self._ends) and self._ends[at] <= min(latest, known) else None

    def _form_2(self, latest: int, known: int) -> int | None:
        ends, hashes, reach = self._ends, self._hashes, self._reach
        first = int(np.searchsorted(ends, self.start + reach + 1))
        last = int(np.searchsorted(ends, min(latest, known - reach), "right"))
        low, high = (
            np.searchsorted(ends, ends[first:last] - reach),
            np.searchsorted(ends, ends[first:last] + reach, "right"),
        )
        for at, a, b in zip(range(first, last), low, high, strict=True):
            own = hashes[at]
            if (hashes[a:at] > own).all() and (hashes[at + 1 : b] >= own).all():
                return int(ends[at])
        return None


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


_CANDIDATES = 16
"""In form 2 the rows that may end a part are those with the smallest hashes, on average this number of `rows`. (Where there is
none, once in 10^7 times, the part goes on.)"""


def cut_points(table: pa.Table, cut: ChunkingRule) -> CutPoints:
    """The rows of a table that may end a part."""
    ends, kept = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    limit = np.uint64(min(_MASK, (_CANDIDATES << 64) // cut.rows))
    for start in range(0, table.num_rows, _BLOCK):
        hashes = row_hashes(table.slice(start, _BLOCK), cut.columns)
        found = np.flatnonzero(hashes <= limit if cut.form > 1 else hashes & np.uint64(cut.rows - 1) == 0)
        ends.append(found + (start + 1))
        kept.append(hashes[found])
    return CutPoints(np.concatenate(ends), np.concatenate(kept))


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
