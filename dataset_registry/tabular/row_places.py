"""Where rows of the base and of theirs are in ours: the positions of edits in a three-way merge."""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dataset_registry.tabular.comparable import comparable
from dataset_registry.tabular.edits import AT_START
from dataset_registry.tabular.engine import Engine
from dataset_registry.tabular.row_diff import comparable_stream, counted, differing_parts
from dataset_registry.tabular.rows import Positions, Rows


@dataclass(frozen=True, slots=True)
class Sides:
    """The three versions of a table, with the columns of the result.

    `unknown` are the keys of rows that the base has in no certain version (see `TableVersion`). `fresh` are columns that both
    sides added: their cells have no base, so different ones conflict, also if one is null.
    """

    base: Rows
    ours: Rows
    theirs: Rows
    key: Sequence[str]
    engine: Engine
    unknown: pa.Table | None = None
    fresh: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        """The columns that are not of the key."""
        return [name for name in self.ours.schema.names if name not in self.key]


class Places:
    """Finds rows in ours: by position in parts that are shared, else by key (without one, by all of their values)."""

    def __init__(self, sides: Sides) -> None:
        self._sides = sides
        self._columns = list(sides.key) or sides.ours.schema.names
        self._from_base = _shared(sides.base, sides.ours)
        from_theirs = _shared(sides.theirs, sides.base)
        self._from_theirs = {
            at: self._from_base[there] for at, there in from_theirs.items() if there in self._from_base
        }
        self._changed = differing_parts(sides.base, sides.ours)[1]
        unshared = set(range(len(sides.base.parts))) - set(from_theirs.values())
        candidates = {self._from_base[at] for at in unshared if at in self._from_base}
        self._candidates = sorted({*self._changed, *candidates})

    def of_base(self, positions: Positions) -> Positions:
        """The positions in ours of rows of the base that ours did not change."""
        found = _moved(positions, self._from_base)
        missing = np.flatnonzero(found < 0)
        if len(missing):
            wanted = self._sides.base.take(positions[missing], self._columns)
            found[missing] = self._locate(wanted, self._changed)
            assert (found >= 0).all(), "ours has every row of the base that it did not change"
        return found

    def after(self, inserted: Positions) -> Positions:
        """For rows of theirs that ours lacks, ascending: the row of ours that each comes behind.

        That is the row that it follows in theirs, or the nearest one before that which ours has.
        """
        wanted = {int(at) for at in np.unique(inserted >> 32)}
        while True:
            there, found = self._found(sorted(wanted), inserted)
            # The last row that was found before each: the positions in `there` are ascending.
            known = np.maximum.accumulate(np.where(found >= 0, np.arange(len(there)), -1))
            at = known[np.searchsorted(there, inserted)]
            # Only in a run of parts without a gap: rows between would come later.
            gaps = np.cumsum(np.diff(there >> 32, prepend=0) > 1) if len(there) else there
            at = np.where((at >= 0) & (gaps[at] == gaps[np.searchsorted(there, inserted)]), at, -1)
            earlier = {part - 1 for part in (inserted[at < 0] >> 32).tolist()}
            while earlier & wanted:
                earlier = {part - 1 if part in wanted else part for part in earlier}
            if not (earlier := {part for part in earlier if part >= 0}):
                return np.where(at >= 0, found[at], AT_START)
            wanted |= earlier

    def _found(self, parts: Sequence[int], inserted: Positions) -> tuple[Positions, Positions]:
        """The rows of some parts of theirs, and their positions in ours: -1 for those that ours lacks."""
        theirs = self._sides.theirs
        rows = [np.arange(theirs.parts[at].rows, dtype=np.int64) + (at << 32) for at in parts]
        there = np.concatenate([np.empty(0, np.int64), *rows])
        found = _moved(there, self._from_theirs)
        missing = np.flatnonzero((found < 0) & ~np.isin(there, inserted))
        if len(missing):
            keys = theirs.take(there[missing], self._columns)
            found[missing] = self._locate(keys, self._candidates)
        return there, found

    def _locate(self, wanted: pa.Table, parts: Sequence[int]) -> Positions:
        """The positions in ours of rows with these values, -1 for none. Equal rows are found one by one."""
        return locate(wanted, self._sides.ours, parts, self._sides.engine)


def _shared(one: Rows, other: Rows) -> dict[int, int]:
    """The parts that two tables share, by their indexes."""
    left, right = (set(found) for found in differing_parts(one, other))
    waiting: dict[str, deque[int]] = defaultdict(deque)
    for at, part in enumerate(other.parts):
        if at not in right:
            waiting[part.id].append(at)
    return {at: waiting[part.id].popleft() for at, part in enumerate(one.parts) if at not in left}


def _moved(positions: Positions, parts: dict[int, int]) -> Positions:
    """Positions in parts that another table shares, as positions there; -1 for the others."""
    found = np.full(len(positions), -1, np.int64)
    at = positions >> 32
    for part in np.unique(at).tolist():
        if part in parts:
            here = at == part
            found[here] = positions[here] + ((parts[part] - part) << 32)
    return found


def locate(wanted: pa.Table, rows: Rows, parts: Sequence[int], engine: Engine) -> Positions:
    """The positions of rows with these values in some parts of a table, -1 for none. Equal rows are found one by one."""
    found = np.full(wanted.num_rows, -1, np.int64)
    if not parts or not wanted.num_rows:
        return found
    names = wanted.column_names
    sql = _pairs_of("wanted", "there", len(names))
    pairs = engine.query(sql, wanted=_numbered(wanted), there=comparable_stream(rows, names, parts))
    found[pairs.column(0).to_numpy()] = pairs.column(1).to_numpy()
    return found


def equal_rows(one: pa.Table, other: pa.Table, engine: Engine) -> tuple[Positions, Positions]:
    """The rows that two tables with the same columns have in common, as row numbers."""
    pairs = engine.query(_pairs_of("one", "other", one.num_columns), one=_numbered(one), other=_numbered(other))
    order = np.argsort(pairs.column(0).to_numpy())
    return pairs.column(0).to_numpy()[order], pairs.column(1).to_numpy()[order]


def repeated(table: pa.Table, engine: Engine) -> Positions:
    """The row numbers of rows that equal an earlier one, in order."""
    columns = [f"c{i}" for i in range(table.num_columns)]
    query = f"SELECT pos FROM ({counted('one', columns)}) WHERE occurrence > 1 ORDER BY pos"
    found = engine.query(query, one=_numbered(table))
    positions: Positions = found.column(0).to_numpy()
    return positions


def every(row: pa.Table, rows: Rows, engine: Engine) -> Positions:
    """The positions of all rows that equal this one, in order."""
    names = row.column_names
    on = " AND ".join(f"a.c{i} IS NOT DISTINCT FROM b.c{i}" for i in range(len(names)))
    there = comparable_stream(rows, names, range(len(rows.parts)))
    found = engine.query(f"SELECT b.pos FROM one a JOIN there b ON {on} ORDER BY 1", one=_numbered(row), there=there)
    positions: Positions = found.column(0).to_numpy()
    return positions


def _pairs_of(one: str, other: str, width: int) -> str:
    columns = [f"c{i}" for i in range(width)]
    on = " AND ".join(["a.occurrence = b.occurrence", *(f"a.{c} IS NOT DISTINCT FROM b.{c}" for c in columns)])
    return f"SELECT a.pos, b.pos FROM ({counted(one, columns)}) a JOIN ({counted(other, columns)}) b ON {on}"


def _numbered(table: pa.Table) -> pa.Table:
    """A table in its comparable form, with the numbers of its rows."""
    columns = [comparable(column.combine_chunks()) for column in table.columns]
    names = [f"c{i}" for i in range(len(columns))]
    return pa.table([*columns, pa.array(np.arange(table.num_rows, dtype=np.int64))], names=[*names, "pos"])
