"""Edits of a stored table: its parts are rewritten where an edit falls, and referenced where none does.

The result has the parts that a table with the same rows has if it is written as a whole with the same chunking rule: from a
changed part on, rows are written until a part ends where one ended before.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa

from dataset_registry.model.chunks import PartFacts
from dataset_registry.model.parts import ChunkingRule
from dataset_registry.tabular import chunking, parquet
from dataset_registry.tabular.row_diff import Cells
from dataset_registry.tabular.rows import Positions, Rows

AT_START, AT_END = -1, (1 << 62)
"""Positions of inserts before the first row, and behind the last one."""

_Kept = TypeVar("_Kept")
_NO_POSITIONS: Positions = np.empty(0, np.int64)


class Source(Protocol):
    """Rows that can be taken by position."""

    def take(self, positions: Positions, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows at these positions, in their order."""


@dataclass(frozen=True, slots=True)
class TableRows:
    """The rows of a table in memory."""

    table: pa.Table

    def take(self, positions: Positions, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows with these numbers, in their order."""
        return (self.table if columns is None else self.table.select(columns)).take(pa.array(positions))


@dataclass(frozen=True, slots=True)
class Update:
    """Rows at `at` get cells of the rows of `source` at `rows`: those in `cells`, by column, or all of them (None)."""

    at: Positions
    source: Source
    rows: Positions
    cells: Mapping[str, Cells] | None = None

    def of(self, chosen: Cells) -> "Update":
        """Some of these updates."""
        cells = None if self.cells is None else {name: mask[chosen] for name, mask in self.cells.items()}
        return Update(self.at[chosen], self.source, self.rows[chosen], cells)


@dataclass(frozen=True, slots=True)
class Insert:
    """The rows of `source` at `rows`, each behind the row at `after`; several behind one row stay in their order."""

    after: Positions
    source: Source
    rows: Positions


@dataclass(frozen=True, slots=True)
class Edits:
    """Edits of a table, by the positions of its rows. No row is updated twice."""

    removed: Positions = field(default_factory=lambda: _NO_POSITIONS)
    updates: Sequence[Update] = ()
    inserts: Sequence[Insert] = ()

    def __bool__(self) -> bool:
        return bool(
            len(self.removed) or any(len(u.at) for u in self.updates) or any(len(i.after) for i in self.inserts)
        )

    @property
    def counts(self) -> tuple[int, int, int]:
        """The numbers of added, removed and changed rows."""
        return sum(len(i.after) for i in self.inserts), len(self.removed), sum(len(u.at) for u in self.updates)

    def parts(self, count: int) -> list[int]:
        """The indexes of the parts that an edit falls in, of a table of `count` parts."""
        places = [self.removed, *(u.at for u in self.updates), *(i.after for i in self.inserts)]
        at = np.unique(np.concatenate([np.clip(place >> 32, 0, count - 1) for place in places]))
        return [int(index) for index in at]


def edited(rows: Rows, edits: Edits, at: int) -> pa.Table:
    """The rows of one part after the edits."""
    return pa.Table.from_arrays(_edited(rows, edits, at).columns, schema=rows.schema)


def _edited(rows: Rows, edits: Edits, at: int) -> pa.Table:
    table = rows.part(at)
    for update in edits.updates:
        here = (update.at >> 32) == at
        if here.any():
            table = _updated(table, update.of(here), at << 32)
    last = at == len(rows.parts) - 1
    removed = edits.removed[(edits.removed >> 32) == at] - (at << 32)
    pieces, order = [], []
    kept = np.ones(table.num_rows, bool)
    kept[removed] = False
    pieces.append(table.filter(pa.array(kept)))
    order.append(np.flatnonzero(kept).astype(np.int64))
    for insert in edits.inserts:
        here = (insert.after >> 32) == at
        if at == 0:
            here |= insert.after == AT_START
        if last:
            here |= insert.after == AT_END
        if here.any():
            places = insert.after[here]
            pieces.append(insert.source.take(insert.rows[here], table.column_names).cast(table.schema))
            relative = np.where(places == AT_START, -1, np.where(places == AT_END, table.num_rows, places - (at << 32)))
            order.append(relative)
    if len(pieces) == 1:
        return pieces[0]
    whole = pa.concat_tables(pieces)
    # Behind the row with the same place: the sort is stable, and inserts come behind the rows of the part.
    return whole.take(pa.array(np.argsort(np.concatenate(order), kind="stable")))


def _updated(table: pa.Table, update: Update, start: int) -> pa.Table:
    """A part with these updates."""
    local = update.at - start
    for index, name in enumerate(table.column_names):
        chosen = None if update.cells is None else update.cells.get(name)
        if update.cells is not None and (chosen is None or not chosen.any()):
            continue
        places = local if chosen is None else local[chosen]
        taken = update.rows if chosen is None else update.rows[chosen]
        values = update.source.take(taken, [name]).column(0).cast(table.schema.field(index).type)
        table = table.set_column(index, table.schema.field(index), _scattered(table.column(index), places, values))
    return table


def _scattered(column: pa.ChunkedArray, places: Positions, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column with other values at some places."""
    indexes = np.arange(len(column), dtype=np.int64)
    indexes[places] = len(column) + np.arange(len(places))
    return pa.chunked_array([*column.chunks, *values.chunks], column.type).take(pa.array(indexes))


def write_edited(
    rows: Rows, edits: Edits, cut: ChunkingRule, keep: Callable[[memoryview, PartFacts], _Kept]
) -> tuple[list[int | tuple[_Kept, PartFacts]], ChunkingRule]:
    """Write the parts of a table that edits change. Returns all of its parts in order: the index of an unchanged one, or
    what `keep` made of a new one, with its facts."""
    touched = set(edits.parts(len(rows.parts))) if edits else set()
    return _written(rows, _regions(rows, edits, cut, touched), cut, keep)


def write_joined(
    rows: Rows, seams: Set[int], cut: ChunkingRule, keep: Callable[[memoryview, PartFacts], _Kept]
) -> tuple[list[int | tuple[_Kept, PartFacts]], ChunkingRule]:
    """As `write_edited`, of tables one behind the other, each split by this rule: the parts around `seams`, the indexes of those
    that begin a table, are written again where the whole table has others."""
    touched = {at for seam in seams for at in (seam - 1, seam)}
    return _written(rows, _moved(rows, Edits(), cut, touched), cut, keep)


def _written(
    rows: Rows, regions: Iterable[int | pa.Table], cut: ChunkingRule, keep: Callable[[memoryview, PartFacts], _Kept]
) -> tuple[list[int | tuple[_Kept, PartFacts]], ChunkingRule]:
    found = list(parquet.write_each(regions, rows.schema, keep, cut.form))
    if not found:
        found += parquet.write_each([rows.schema.empty_table()], rows.schema, keep, cut.form)
    return found, replace(cut, parts=len(found))


def _regions(rows: Rows, edits: Edits, cut: ChunkingRule, touched: Set[int]) -> Iterator[int | pa.Table]:
    """The parts of the edited table: the index of an unchanged one, or its rows."""
    if _moves_no_end(edits, cut):
        yield from (edited(rows, edits, at) if at in touched else at for at in range(len(rows.parts)))
    else:
        yield from _moved(rows, edits, cut, touched)


def _moved(rows: Rows, edits: Edits, cut: ChunkingRule, touched: Set[int]) -> Iterator[int | pa.Table]:
    """The parts of the edited table, whose ends may be others around touched parts."""
    at = 0
    for first in sorted(touched):
        if first < at:
            continue
        begin = first
        before = 0  # where the part before ends depends on the first rows of this one
        while begin > at and before < cut.rows // 2 and cut.form > 1:
            begin -= 1
            before += rows.parts[begin].rows
        yield from range(at, begin)
        at = yield from _region(rows, edits, cut, touched, begin, first)
    yield from range(at, len(rows.parts))


def _moves_no_end(edits: Edits, cut: ChunkingRule) -> bool:
    """Whether no row comes or goes, and none gets another value in a column that says where parts end."""
    return (
        not len(edits.removed)
        and not any(len(insert.after) for insert in edits.inserts)
        and all(
            update.cells is not None
            and not any(update.cells[name].any() for name in update.cells.keys() & {*cut.columns})
            for update in edits.updates
        )
    )


def _region(
    rows: Rows, edits: Edits, cut: ChunkingRule, touched: Set[int], begin: int, first: int
) -> Generator[int | pa.Table, None, int]:
    """The parts from `begin` on, until behind the touched part `first` one ends where an untouched one begins. Returns its
    index."""
    splitter = chunking.Splitter(cut)
    begins = {0: begin}  # the part that begins behind this number of rows of the region
    last = 0
    count = 0
    for at in range(begin, len(rows.parts)):
        table = edited(rows, edits if at in touched else Edits(), at)
        count += table.num_rows
        begins[count] = at + 1
        for part in splitter.push(table, chunking.cut_points(table, cut)):
            there = begins.get(last)
            is_there = there is not None and there not in touched and begins.get(splitter.start) == there + 1
            yield there if is_there else part
            last = splitter.start
            after = begins.get(last)
            if after is not None and after > first and after not in touched:
                return after
    yield from splitter.rest()
    return len(rows.parts)


def stream_edited(rows: Rows, edits: Edits) -> pa.RecordBatchReader:
    """All rows of a table after the edits, as a stream."""

    def batches() -> Iterator[pa.RecordBatch]:
        for at in range(len(rows.parts)):
            yield from edited(rows, edits, at).to_batches()

    return pa.RecordBatchReader.from_batches(rows.schema, batches())
