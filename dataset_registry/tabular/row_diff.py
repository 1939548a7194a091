"""Comparing the rows of two tables, at the cost of what differs.

Parts that both tables have are never read. Parts whose key columns have the same bytes are compared by position, and only
in the columns whose bytes differ. The other rows are joined by key in DuckDB, out of core; without a key, rows are a multiset.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataset_registry.errors import InputError
from dataset_registry.tabular import convert
from dataset_registry.tabular.comparable import comparable, differ, is_flat
from dataset_registry.tabular.engine import Engine
from dataset_registry.tabular.rows import Positions, Rows
from dataset_registry.tabular.sandbox import identifier

_TOGETHER = 1 << 16
"""Rows whose values are compared at a time."""

Cells = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Changes:
    """The rows that differ between two tables, as positions; -1 where a table lacks the row.

    `cells` has for each column that is not of the key where its values differ, in rows that both tables have.
    """

    before: Positions
    after: Positions
    cells: Mapping[str, Cells]

    def __len__(self) -> int:
        return len(self.before)

    @property
    def added(self) -> Cells:
        """Which rows only the second table has."""
        return self.before < 0

    @property
    def removed(self) -> Cells:
        """Which rows only the first table has."""
        return self.after < 0

    @property
    def changed(self) -> Cells:
        """Which rows both tables have, with other values."""
        return (self.before >= 0) & (self.after >= 0)

    @classmethod
    def of(cls, pieces: "Sequence[Changes]", columns: Sequence[str]) -> "Changes":
        """All of these changes, in the order of their positions."""
        if not pieces:
            empty = np.empty(0, np.int64)
            return cls(empty, empty, {name: np.empty(0, bool) for name in columns})
        before = np.concatenate([piece.before for piece in pieces])
        after = np.concatenate([piece.after for piece in pieces])
        order = np.argsort(np.where(before >= 0, before, after), kind="stable")
        cells = {name: np.concatenate([piece.cells[name] for piece in pieces])[order] for name in columns}
        return cls(before[order], after[order], cells)


def differing_parts(before: Rows, after: Rows) -> tuple[list[int], list[int]]:
    """The indexes of the parts of each table that the other one lacks. Equal parts cancel one by one."""
    left, right = Counter(p.id for p in before.parts), Counter(p.id for p in after.parts)
    return _beyond(before, left - right), _beyond(after, right - left)


def _beyond(rows: Rows, more: Counter[str]) -> list[int]:
    """The indexes of as many parts with these ids, the last of each."""
    found = []
    for at in range(len(rows.parts) - 1, -1, -1):
        if more[rows.parts[at].id] > 0:
            more[rows.parts[at].id] -= 1
            found.append(at)
    return found[::-1]


def row_changes(
    before: Rows,
    after: Rows,
    key: Sequence[str],
    engine: Engine,
    parts: tuple[Collection[int], Collection[int]] | None = None,
    fresh: Collection[str] = (),
) -> Changes:
    """The rows that differ between two tables that are seen with columns of the same names.

    Without a `key`, rows are a multiset: they are added and removed. `parts` are the parts to compare, those that differ by
    default. Columns whose types differ have other values wherever they are not null, and `fresh` columns in every row. Raises
    `InputError` for a key that is not unique among the rows that are compared.
    """
    left, right = map(list, parts or differing_parts(before, after))
    columns = [name for name in before.schema.names if name not in key]
    if not left or not right:
        return Changes.of([_one_sided(before, left, columns, 0), _one_sided(after, right, columns, 1)], columns)
    pieces = []
    if key:
        pairs = _pairs(before, after, key, columns, left, right)
        pieces = [_by_position(before, after, pair, columns, fresh) for pair in pairs]
        paired = {pair.before for pair in pairs}, {pair.after for pair in pairs}
        left = [at for at in left if at not in paired[0]]
        right = [at for at in right if at not in paired[1]]
    if left or right:
        pieces.append(_joined(before, after, key, columns, left, right, engine, fresh))
    return Changes.of(pieces, columns)


def _one_sided(rows: Rows, parts: Sequence[int], columns: Sequence[str], side: int) -> Changes:
    """All rows of some parts, which the other table does not have."""
    there = [np.arange(rows.parts[at].rows, dtype=np.int64) + (at << 32) for at in parts]
    positions = np.concatenate(there) if there else np.empty(0, np.int64)
    none = np.full(len(positions), -1, np.int64)
    cells = dict.fromkeys(columns, np.zeros(len(positions), bool))
    return Changes(positions, none, cells) if side == 0 else Changes(none, positions, cells)


# --- by position -------------------------------------------------------------------------------------------------------


class _Pair(NamedTuple):
    """Two parts with the same keys, row by row, and the columns whose bytes differ."""

    before: int
    after: int
    columns: Sequence[str]


def _pairs(
    before: Rows, after: Rows, key: Sequence[str], columns: Sequence[str], left: Sequence[int], right: Sequence[int]
) -> list[_Pair]:
    if not _comparable_by_bytes(before, after, key):
        return []
    waiting: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for at in left:
        if (mark := _key_mark(before, at, key)) is not None:
            waiting[mark].append(at)
    found = []
    for at in right:
        mark = _key_mark(after, at, key) if waiting else None
        if mark is None or not waiting.get(mark):
            continue
        other = waiting[mark].pop(0)
        differing = _differing_columns(before, other, after, at, columns)
        if all(is_flat(before.schema.field(name).type) for name in differing):
            found.append(_Pair(other, at, differing))
    return found


def _comparable_by_bytes(before: Rows, after: Rows, key: Sequence[str]) -> bool:
    """Whether equal bytes of the key columns mean equal keys, row by row."""
    return all(
        before.schema.field(name).type == after.schema.field(name).type
        and before.names.get(name) == after.names.get(name)
        for name in key
    ) and not any(part.schema for part in (*before.parts, *after.parts))


def _key_mark(rows: Rows, at: int, key: Sequence[str]) -> tuple[int, bytes] | None:
    """The rows of a part, and a digest of the bytes of its key columns."""
    part = rows.parts[at]
    chunks = _chunks_of(part.load())
    if chunks is None:
        return None
    digest = hashlib.sha256()
    for name in key:
        digest.update(chunks.get(rows.names[name], b""))
    return part.rows, digest.digest()


def _differing_columns(before: Rows, left: int, after: Rows, right: int, columns: Sequence[str]) -> list[str]:
    """The columns whose bytes differ between two parts."""
    ours, theirs = _chunks_of(before.parts[left].load()) or {}, _chunks_of(after.parts[right].load()) or {}
    found = []
    for name in columns:
        one, other = ours.get(before.names.get(name, "")), theirs.get(after.names.get(name, ""))
        if one is None and other is None:
            continue
        is_same_type = before.schema.field(name).type == after.schema.field(name).type
        if one != other or not is_same_type:
            found.append(name)
    return found


def _chunks_of(path: Path) -> dict[str, bytes] | None:
    """The type and the bytes of each top-level column of a Parquet file of one row group, None for other files."""
    footer = pq.read_metadata(path)
    if footer.num_row_groups != 1:
        return None
    found: dict[str, bytes] = {}
    types = footer.schema.to_arrow_schema()
    names = [field.name for field in types for _ in range(_leaves(field.type))]
    group = footer.row_group(0)
    with path.open("rb", buffering=0) as file:
        for index, name in enumerate(names):
            chunk = group.column(index)
            first = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                first = min(first, chunk.dictionary_page_offset)
            file.seek(first)
            data = file.read(chunk.total_compressed_size)
            found[name] = found.get(name, str(types.field(name).type).encode()) + data
    return found


def _leaves(kind: pa.DataType) -> int:
    """The number of columns that a type takes in a Parquet file."""
    if pa.types.is_struct(kind):
        return sum(_leaves(field.type) for field in kind)
    if pa.types.is_map(kind):
        return _leaves(kind.key_type) + _leaves(kind.item_type)
    return _leaves(kind.value_type) if convert.is_list(kind) else 1


def _by_position(before: Rows, after: Rows, pair: _Pair, columns: Sequence[str], fresh: Collection[str]) -> Changes:
    """The changes of two parts with the same keys, row by row."""
    count = before.parts[pair.before].rows
    cells = {name: np.full(count, name in fresh) for name in columns}
    if pair.columns:
        left, right = before.part(pair.before, pair.columns), after.part(pair.after, pair.columns)
        for name in pair.columns:
            one, other = left.column(name).combine_chunks(), right.column(name).combine_chunks()
            cells[name] |= unequal(one, other)
    changed = np.flatnonzero(np.logical_or.reduce(list(cells.values()))) if cells else np.empty(0, np.int64)
    cells = {name: mask[changed] for name, mask in cells.items()}
    return Changes(changed + (pair.before << 32), changed + (pair.after << 32), cells)


def unequal(one: pa.Array, other: pa.Array) -> Cells:
    """Where two flat columns differ; values of two types differ wherever one is not null."""
    is_same = one.type == other.type
    found = differ(one, other) if is_same else pc.or_(pc.is_valid(one), pc.is_valid(other))
    values: Cells = found.to_numpy(zero_copy_only=False)
    return values


def differing_cells(
    before: Rows, at: Positions, after: Rows, there: Positions, columns: Sequence[str]
) -> dict[str, Cells]:
    """Where rows of two tables have different values, by column."""
    found: dict[str, list[Cells]] = {name: [np.zeros(0, bool)] for name in columns}
    for start in range(0, len(at) if columns else 0, _TOGETHER):
        left = before.take(at[start : start + _TOGETHER], columns)
        right = after.take(there[start : start + _TOGETHER], columns)
        for name, pieces in found.items():
            one, other = left.column(name).combine_chunks(), right.column(name).combine_chunks()
            pieces.append(unequal(one, other) if is_flat(one.type) else _unequal_nested(one, other))
    return {name: np.concatenate(pieces) for name, pieces in found.items()}


def has_same_values(before: Rows, after: Rows, column: str, other: str) -> bool:
    """Whether a column of one table has the values of a column of another, row by row."""
    pieces = (
        (table.column(0).combine_chunks() for _, table in rows.batches([name]))
        for rows, name in ((before, column), (after, other))
    )
    left, right = (comparable(pa.chunked_array(list(piece)).combine_chunks()) for piece in pieces)
    return bool(left.equals(right))


def _unequal_nested(one: pa.Array, other: pa.Array) -> Cells:
    """Where two nested columns differ."""
    left, right = comparable(one).to_pylist(), comparable(other).to_pylist()
    return np.array([a != b for a, b in zip(left, right, strict=True)], bool)


def sortable(values: pa.Array) -> pa.Array | None:
    """Values in a form that sorts as they do, None for types that have no order."""
    kind = values.type
    if pa.types.is_floating(kind) or pa.types.is_decimal128(kind):
        return values
    return comparable(values) if is_flat(kind) and not pa.types.is_decimal(kind) else None


# --- by key ------------------------------------------------------------------------------------------------------------


def _joined(
    before: Rows,
    after: Rows,
    key: Sequence[str],
    columns: Sequence[str],
    left: Sequence[int],
    right: Sequence[int],
    engine: Engine,
    fresh: Collection[str] = (),
) -> Changes:
    for name in key:
        one, other = before.schema.field(name).type, after.schema.field(name).type
        if one != other:
            raise InputError(f"The key column {name!r} is {one} on one side and {other} on the other.", column=name)
    is_same = {name: before.schema.field(name).type == after.schema.field(name).type for name in columns}
    if not key and not all(is_same.values()):
        return Changes.of([_one_sided(before, left, columns, 0), _one_sided(after, right, columns, 1)], columns)
    order = [*key, *columns]
    names = {name: f"c{i}" for i, name in enumerate(order)}
    if key:
        tests = {
            name: "true"
            if name in fresh
            else f"b.{names[name]} IS DISTINCT FROM a.{names[name]}"
            if is_same[name]
            else f"(b.{names[name]} IS NOT NULL OR a.{names[name]} IS NOT NULL)"
            for name in columns
        }
        sql = _join([names[name] for name in key], tests)
    else:
        sql = _multiset([names[name] for name in order])
    checks = Increasing(len(key)), Increasing(len(key))
    found = engine.query(
        sql,
        before=comparable_stream(before, order, left, checks[0]),
        after=comparable_stream(after, order, right, checks[1]),
    )
    for check, rows, parts in zip(checks, (before, after), (left, right), strict=True):
        if key and not check.holds:
            refuse_duplicates(engine, rows, key, parts)
    positions = [found.column(i).fill_null(-1).to_numpy() for i in (0, 1)]
    cells = {
        name: found.column(2 + i).to_numpy().astype(bool) if key else np.zeros(found.num_rows, bool)
        for i, name in enumerate(columns)
    }
    return Changes(positions[0], positions[1], cells)


def _join(key: Sequence[str], tests: Mapping[str, str]) -> str:
    """The rows that only one table has, or that have the same key and other values."""
    on = " AND ".join(f"b.{name} IS NOT DISTINCT FROM a.{name}" for name in key)
    both = "b.pos IS NOT NULL AND a.pos IS NOT NULL"
    flags = "".join(f", {both} AND {test} AS {identifier(f't{i}')}" for i, test in enumerate(tests.values()))
    where = " OR ".join(["b.pos IS NULL", "a.pos IS NULL", *tests.values()])
    return f"SELECT b.pos, a.pos{flags} FROM before b FULL OUTER JOIN after a ON {on} WHERE {where}"


def _multiset(columns: Sequence[str]) -> str:
    """The rows that one table has more often than the other: of equal rows the last ones."""
    on = " AND ".join(["b.occurrence = a.occurrence", *(f"b.{name} IS NOT DISTINCT FROM a.{name}" for name in columns)])
    return (
        f"SELECT b.pos, a.pos FROM ({counted('before', columns)}) b FULL OUTER JOIN ({counted('after', columns)}) a ON {on} "
        "WHERE b.pos IS NULL OR a.pos IS NULL"
    )


def counted(table: str, columns: Sequence[str]) -> str:
    """The query of a table's rows, each with its `occurrence`: 1 for the first of equal rows, 2 for the next."""
    return f"SELECT *, row_number() OVER (PARTITION BY {', '.join(columns)} ORDER BY pos) AS occurrence FROM {table}"


class Increasing:
    """Notices whether keys come in strictly increasing order, which proves that they are unique."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._last: list[pa.Scalar] = []
        self.holds = width > 0

    def look(self, columns: Sequence[pa.Array]) -> None:
        """Look at the next rows, in the order of their keys' columns."""
        if not self.holds or not len(columns[0]):
            return
        keys = columns[: self._width]
        if any(key.null_count or not is_flat(key.type) for key in keys):
            self.holds = False
            return
        try:
            if self._last:
                keys = [
                    pa.concat_arrays([pa.array([last], key.type), key])
                    for last, key in zip(self._last, keys, strict=True)
                ]
            rising = pa.array(np.zeros(max(len(keys[0]) - 1, 0), bool))
            for key in reversed(keys):
                rising = pc.or_(pc.less(key[:-1], key[1:]), pc.and_(pc.equal(key[:-1], key[1:]), rising))
            self.holds = bool(pc.all(rising, min_count=0).as_py())
        except pa.ArrowNotImplementedError:
            self.holds = False
        self._last = [key[-1].as_py() for key in keys]


def comparable_stream(
    rows: Rows, columns: Sequence[str], parts: Sequence[int], check: Increasing | None = None
) -> pa.RecordBatchReader:
    """Rows in their comparable form, as columns c0, c1, … and their position `pos`."""
    empty = [comparable(pa.array([], rows.schema.field(name).type)) for name in columns]
    schema = pa.schema([*((f"c{i}", values.type) for i, values in enumerate(empty)), ("pos", pa.int64())])

    def batches() -> Iterator[pa.RecordBatch]:
        for start, table in rows.batches(columns, set(parts)):
            values = [comparable(column.combine_chunks()) for column in table.columns]
            if check is not None:
                check.look(values)
            position = pa.array(np.arange(start, start + table.num_rows, dtype=np.int64))
            yield pa.RecordBatch.from_arrays([*values, position], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def refuse_duplicates(engine: Engine, rows: Rows, key: Sequence[str], parts: Sequence[int]) -> None:
    """Raise `InputError` if two rows of these parts have the same key."""
    listed = ", ".join(f"c{i}" for i in range(len(key)))
    found = engine.query(
        f"SELECT min(pos) FROM keys GROUP BY {listed} HAVING count(*) > 1 ORDER BY 1 LIMIT 3",
        keys=comparable_stream(rows, key, parts),
    )
    if found.num_rows:
        first = rows.take(found.column(0).to_numpy(), key).to_pylist()
        shown = "; ".join(", ".join(f"{name}={row[name]!r}" for name in key) for row in first)
        raise InputError(
            f"The key ({', '.join(key)}) is not unique: several rows have {shown}. Remove the duplicates, or commit the table "
            "with another key.",
            key=list(key),
        )
