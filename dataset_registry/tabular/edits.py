"""Edits of a stored table: its parts are rewritten where an edit falls, and referenced where none does.

The result has the parts that a table with the same rows has if it is written as a whole with the same chunking rule: from a
changed part on, rows are written until a part ends where one ended before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    found: list[int | tuple[_Kept, PartFacts]] = []
    at, count = 0, len(rows.parts)
    schema = rows.schema
    while at < count:
        if at not in touched:
            found.append(at)
            at += 1
            continue
        splitter = chunking.Splitter(cut)

        def region(splitter: chunking.Splitter = splitter) -> Iterator[pa.Table]:
            nonlocal at
            while at < count:
                table = edited(rows, edits if at in touched else Edits(), at)
                at += 1
                yield from splitter.push(table, chunking.cut_points(table, cut))
                if not splitter.pending and at not in touched:
                    return
            yield from splitter.rest()

        found += parquet.write_each(region(), schema, keep)
    if not found:
        found += parquet.write_each(iter([schema.empty_table()]), schema, keep)
    return found, replace(cut, parts=len(found))


def stream_edited(rows: Rows, edits: Edits) -> pa.RecordBatchReader:
    """All rows of a table after the edits, as a stream."""

    def batches() -> Iterator[pa.RecordBatch]:
        for at in range(len(rows.parts)):
            yield from edited(rows, edits, at).to_batches()

    return pa.RecordBatchReader.from_batches(rows.schema, batches())
