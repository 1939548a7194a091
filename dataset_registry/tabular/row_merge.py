"""Three-way merge of the rows of a table, by the rules of `model.merge`.

Each side is compared with the base (`row_diff`), so parts that neither side changed are never read. The result is edits of
ours: what theirs did, and how conflicts were resolved. Rows stay positions until the edited parts are written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataset_registry.model.merge import ROW_RULES, merge_count
from dataset_registry.model.strategies import Choose
from dataset_registry.tabular.comparable import comparable
from dataset_registry.tabular.edits import AT_END, AT_START, Edits, Insert, Source, TableRows, Update
from dataset_registry.tabular.row_diff import Cells, Changes, Increasing, differing_cells, row_changes, sortable
from dataset_registry.tabular.row_places import Places, Sides, equal_rows, every
from dataset_registry.tabular.rows import Positions, Rows

_NONE: Positions = np.empty(0, np.int64)

Texts = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class RowConflicts:
    """Rows in conflict: their kinds, their positions on each side (-1 for none), and the cells with different values.

    Of a table without a key, `counts` has for each row how often it is in the base, ours and theirs.
    """

    kind: Texts
    base: Positions
    ours: Positions
    theirs: Positions
    cells: Mapping[str, Cells]
    counts: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.kind)

    def of(self, chosen: Cells) -> "RowConflicts":
        """Some of these conflicts."""
        cells = {name: mask[chosen] for name, mask in self.cells.items()}
        counts = None if self.counts is None else self.counts[chosen]
        return RowConflicts(self.kind[chosen], self.base[chosen], self.ours[chosen], self.theirs[chosen], cells, counts)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Resolutions that were handed back for conflicts: for each `ours`, `theirs`, `base`, `drop`, `row` or nothing.

    For `row`, the number of the row in `table`, and the columns that it sets; the others are as they merge.
    """

    take: Texts
    row: Positions
    table: pa.Table | None = None
    columns: Sequence[str] = ()


Resolve = Callable[[RowConflicts], Resolved]
"""Finds the resolutions of conflicts."""


def unresolved(conflicts: RowConflicts) -> Resolved:
    """No resolutions."""
    return Resolved(np.full(len(conflicts), "", dtype="<U8"), np.full(len(conflicts), -1, np.int64))


@dataclass(frozen=True, slots=True)
class MergedRows:
    """The result: edits of ours, and the conflicts that remain."""

    edits: Edits
    conflicts: RowConflicts


def merge_rows(sides: Sides, component: str, choose: Choose, resolve: Resolve = unresolved) -> MergedRows:
    """Merge the rows of a table. Raises `InputError` for a key that is not unique."""
    mine = row_changes(sides.base, sides.ours, sides.key, sides.engine, fresh=sides.fresh)
    other = row_changes(sides.base, sides.theirs, sides.key, sides.engine, fresh=sides.fresh)
    merge = _KeyedMerge if sides.key else _MultisetMerge
    return merge(sides, component, mine, other, choose).merged(resolve)


class _Merge:
    """The edits of ours, as they are collected."""

    def __init__(self, sides: Sides, component: str, mine: Changes, other: Changes, choose: Choose) -> None:
        self.sides, self.component, self.choose = sides, component, choose
        self.mine, self.other = mine, other
        self.places = Places(sides)
        self.removed: list[Positions] = []
        self.updates: list[Update] = []
        self.inserted: list[tuple[Positions, Source, Positions]] = []
        """Inserts: the rows of theirs that stand where they go, and where they come from."""
        self.at_end: list[Insert] = []
        self.only_ours = mine.after[mine.added]
        """Rows of ours that theirs lacks: inserted by ours, or removed by theirs."""

    def take(self, chosen: Positions) -> None:
        """Do to ours what theirs did to rows that ours left alone."""
        other = self.other
        updated, removed = chosen[other.changed[chosen]], chosen[other.removed[chosen]]
        places = self.places.of_base(other.before[np.concatenate([updated, removed])])
        if len(updated):
            cells = {name: mask[updated] for name, mask in other.cells.items()}
            self.updates.append(Update(places[: len(updated)], self.sides.theirs, other.after[updated], cells))
        self.removed.append(places[len(updated) :])
        self.only_ours = np.concatenate([self.only_ours, places[len(updated) :]])
        added = other.after[chosen[other.added[chosen]]]
        self.inserted.append((added, self.sides.theirs, added))

    def edits(self) -> Edits:
        """All edits that were collected."""
        inserts = list(self.at_end)
        where = np.unique(np.concatenate([_NONE, *(at for at, _, _ in self.inserted)]))
        if len(where):
            after = self._in_order(where, self.places.after(where))
            for at, source, rows in self.inserted:
                if len(at):
                    order = np.argsort(at, kind="stable")
                    inserts.append(Insert(after[np.searchsorted(where, at[order])], source, rows[order]))
        return Edits(np.sort(np.concatenate([_NONE, *self.removed])), self.updates, inserts)

    def _in_order(self, inserted: Positions, after: Positions) -> Positions:
        """The places of inserts among rows that only ours has at the same place, if both tables are sorted by their key."""
        mine = np.sort(self.only_ours)
        key, sides = list(self.sides.key), self.sides
        if not key or not len(mine):
            return after
        anchors = _anchors(sides.ours, mine)
        # Behind a row that only ours has is behind the row that this one came behind.
        at = np.minimum(np.searchsorted(mine, after), len(mine) - 1)
        start = np.where(mine[at] == after, anchors[at], after)
        near = np.isin(anchors, start)
        mine, anchors = mine[near], anchors[near]
        if not len(mine):
            return after
        places = np.concatenate([mine, after[(after >= 0) & (after < (1 << 62))]])
        if not (_is_sorted(sides.ours, places, key) and _is_sorted(sides.theirs, inserted, key)):
            return after
        ours, theirs = sides.ours.take(mine, key), sides.theirs.take(inserted, key)
        both = pa.concat_tables([ours, theirs])
        columns = [sortable(column.combine_chunks()) for column in both.columns]
        place = pa.array(np.concatenate([mine, np.full(len(inserted), -1, np.int64)]))
        table = pa.table(
            [pa.array(np.concatenate([anchors, start])), place, pa.array(np.arange(both.num_rows)), *columns],
            names=["anchor", "place", "number", *(f"c{i}" for i in range(len(columns)))],
        )
        by = ", ".join(f"c{i}" for i in range(len(columns)))
        window = f"PARTITION BY anchor ORDER BY {by} ROWS UNBOUNDED PRECEDING"
        found = sides.engine.query(f"SELECT number, max(place) OVER ({window}) AS behind FROM inserts", inserts=table)
        behind = np.empty(both.num_rows, np.int64)
        behind[found.column(0).to_numpy()] = found.column(1).to_numpy()
        behind = behind[len(mine) :]
        return np.where(behind >= 0, behind, after)


def _anchors(rows: Rows, inserted: Positions) -> Positions:
    """For some rows of a table, ascending: the last row before each that is not among them."""
    ends = np.cumsum([0, *(part.rows for part in rows.parts)])
    linear = ends[inserted >> 32] + (inserted & 0xFFFFFFFF)
    is_first = np.ones(len(linear), bool)
    is_first[1:] = np.diff(linear) != 1
    before = (linear[is_first] - 1)[np.cumsum(is_first) - 1]
    part = np.searchsorted(ends, before, side="right") - 1
    return np.where(before < 0, AT_START, (part << 32) + before - ends[part])


def _is_sorted(rows: Rows, positions: Positions, key: Sequence[str]) -> bool:
    """Whether the parts with these rows are sorted by the key."""
    check = Increasing(len(key))
    for _, table in rows.batches(key, {int(at) for at in np.unique(positions >> 32)}):
        values = [sortable(column.combine_chunks()) for column in table.columns]
        if any(each is None for each in values):
            return False
        check.look(values)
    return check.holds


# --- with a key --------------------------------------------------------------------------------------------------------


class _KeyedMerge(_Merge):
    """The merge of a table with a key."""

    def merged(self, resolve: Resolve) -> MergedRows:
        i, j = self._pairs()
        alone = np.ones(len(self.other), bool)
        alone[j] = False
        unknown = self._unknown(i, alone)
        self.take(np.flatnonzero(alone))
        conflicts = _together(self._both(i, j), unknown)
        given = resolve(conflicts) if len(conflicts) else unresolved(conflicts)
        self._hand_back(conflicts, given)
        is_open = (given.take == "") | ((given.take == "union") & (conflicts.kind != "delete/modify"))
        is_open &= ~self._choose(conflicts, is_open)
        return MergedRows(self.edits(), self._undecided(conflicts.of(is_open)))

    def _unknown(self, i: Positions, alone: Cells) -> RowConflicts:
        """Rows that only one side has, and that the base has in no certain version: whether the other side deleted them is
        unknown. Those of theirs are no longer `alone`."""
        mine, other, columns = self.mine, self.other, self.sides.columns
        pairs = []
        if self.sides.unknown is not None:
            new = np.flatnonzero(mine.added & ~np.isin(np.arange(len(mine)), i))
            new_too = np.flatnonzero(other.added & alone)
            for rows, there in ((self.sides.ours, mine.after[new]), (self.sides.theirs, other.after[new_too])):
                found, _ = equal_rows(rows.take(there, self.sides.key), self.sides.unknown, self.sides.engine)
                pairs.append(found)
            alone[new_too[pairs[1]]] = False
            ours, theirs = mine.after[new[pairs[0]]], other.after[new_too[pairs[1]]]
        else:
            ours = theirs = _NONE
        count = len(ours) + len(theirs)
        return RowConflicts(
            np.full(count, "delete/modify", dtype="<U16"),
            np.full(count, -1, np.int64),
            np.concatenate([ours, np.full(len(theirs), -1, np.int64)]),
            np.concatenate([np.full(len(ours), -1, np.int64), theirs]),
            {name: np.zeros(count, bool) for name in columns},
        )

    def _pairs(self) -> tuple[Positions, Positions]:
        """The changes of the same row on both sides, as indexes into each list."""
        mine, other = self.mine, self.other
        left, right = np.flatnonzero(~mine.added), np.flatnonzero(~other.added)
        _, i, j = np.intersect1d(mine.before[left], other.before[right], assume_unique=True, return_indices=True)
        new, new_too = np.flatnonzero(mine.added), np.flatnonzero(other.added)
        if not len(new) or not len(new_too):
            return left[i], right[j]
        ours = self.sides.ours.take(mine.after[new], self.sides.key)
        theirs = self.sides.theirs.take(other.after[new_too], self.sides.key)
        k, m = equal_rows(ours, theirs, self.sides.engine)
        return np.concatenate([left[i], new[k]]), np.concatenate([right[j], new_too[m]])

    def _both(self, i: Positions, j: Positions) -> RowConflicts:
        """Merge the rows that both sides changed. Returns those in conflict."""
        mine, other = self.mine, self.other
        rules = _rules(mine, i, other, j)
        is_insert, is_cells = rules == "equal", rules == "cells"
        there = is_insert | is_cells
        at, rows = mine.after[i[there]], other.after[j[there]]
        differing = differing_cells(self.sides.ours, at, self.sides.theirs, rows, self.sides.columns)
        conflict, take = {}, {}
        for name in self.sides.columns:
            differ = np.zeros(len(i), bool)
            differ[there] = differing[name]
            ours, theirs = mine.cells[name][i] | is_insert, other.cells[name][j] | is_insert
            conflict[name] = ours & theirs & differ
            take[name] = theirs & ~ours & there
        merged = np.flatnonzero(_any(take, len(i)))
        if len(merged):
            cells = {name: mask[merged] for name, mask in take.items()}
            self.updates.append(Update(mine.after[i[merged]], self.sides.theirs, other.after[j[merged]], cells))
        touched = rules == "conflict"
        if self.sides.fresh:
            touched &= self._is_touched(mine, i, self.sides.ours) | self._is_touched(other, j, self.sides.theirs)
            gone = (rules == "conflict") & ~touched & other.removed[j]
            self.removed.append(mine.after[i[gone]])
        rows = _any(conflict, len(i)) | touched
        kind = np.where(rules == "conflict", "delete/modify", np.where(is_insert, "both added", "both changed"))
        found = RowConflicts(kind, mine.before[i], mine.after[i], other.after[j], conflict).of(rows)
        self.only_ours = np.concatenate([self.only_ours, found.ours[found.theirs < 0]])
        return found

    def _is_touched(self, changes: Changes, chosen: Positions, rows: Rows) -> Cells:
        """Which of these rows were updated in more than that they got columns that are null."""
        fresh = self.sides.fresh
        known = _any({n: mask[chosen] for n, mask in changes.cells.items() if n not in fresh}, len(chosen))
        here = np.flatnonzero(changes.changed[chosen] & ~known)
        for column in rows.take(changes.after[chosen[here]], fresh).columns:
            known[here] |= column.is_valid().to_numpy()
        return known

    def _hand_back(self, found: RowConflicts, given: Resolved) -> None:
        """Apply resolutions that were handed back."""
        for choice, source, rows in (
            ("theirs", self.sides.theirs, found.theirs),
            ("base", self.sides.base, found.base),
            ("drop", self.sides.base, np.full(len(found), -1, np.int64)),
        ):
            self._replace(found, given.take == choice, source, rows)
        kept = (given.take == "union") & (found.kind == "delete/modify") & (found.ours < 0)
        self._replace(found, kept, self.sides.theirs, found.theirs)
        if given.table is not None:
            columns = {name: np.full(len(found), name in given.columns) for name in self.sides.ours.schema.names}
            self._replace(found, given.take == "row", TableRows(given.table), given.row, columns)

    def _replace(
        self,
        found: RowConflicts,
        chosen: Cells,
        source: Source,
        rows: Positions,
        cells: Mapping[str, Cells] | None = None,
    ) -> None:
        """Rows in conflict become other rows, or go where these are -1. `cells` are those to set: by default the cells in
        conflict, and all of a row that one side deleted."""
        ours = found.ours
        self.removed.append(ours[chosen & (rows < 0) & (ours >= 0)])
        is_whole = found.kind == "delete/modify"
        for here, which in (
            (chosen & is_whole, cells),
            (chosen & ~is_whole, cells or found.cells),
        ):
            updated = np.flatnonzero(here & (rows >= 0) & (ours >= 0))
            if len(updated):
                masks = None if which is None else {name: mask[updated] for name, mask in which.items()}
                self.updates.append(Update(ours[updated], source, rows[updated], masks))
        added = np.flatnonzero(chosen & (rows >= 0) & (ours < 0))
        self.inserted.append((found.theirs[added], source, rows[added]))

    def _choose(self, found: RowConflicts, is_open: Cells) -> Cells:
        """Apply strategies to the open conflicts. Returns which of them are resolved."""
        done = np.zeros(len(found), bool)
        choice = self.choose("delete/modify", self.component, None)
        if choice in ("ours", "theirs", "union"):
            chosen = is_open & (found.kind == "delete/modify")
            done |= chosen
            taken = chosen if choice == "theirs" else chosen & (found.ours < 0)
            if choice != "ours":
                self._replace(found, taken, self.sides.theirs, found.theirs)
        for kind in _CELLS:
            rows = is_open & (found.kind == kind)
            sides = {name: self.choose(kind, self.component, name) for name in found.cells}
            left = [found.cells[name] for name, side in sides.items() if side not in ("ours", "theirs")]
            rows &= ~np.logical_or.reduce(left) if left else rows
            done |= rows
            cells = {name: mask & rows for name, mask in found.cells.items() if sides[name] == "theirs"}
            chosen_rows = np.flatnonzero(_any(cells, len(found)))
            if len(chosen_rows):
                taken_cells = {name: mask[chosen_rows] for name, mask in cells.items()}
                at, source_rows = found.ours[chosen_rows], found.theirs[chosen_rows]
                self.updates.append(Update(at, self.sides.theirs, source_rows, taken_cells))
        return done

    def _undecided(self, found: RowConflicts) -> RowConflicts:
        """The conflicts with the cells that no strategy decides."""
        sides = ("ours", "theirs")
        cells = {
            name: mask & ~np.isin(found.kind, [k for k in _CELLS if self.choose(k, self.component, name) in sides])
            for name, mask in found.cells.items()
        }
        return replace(found, cells=cells)


_CELLS = ("both changed", "both added")
"""The kinds of conflicts that are about cells."""


def _together(one: RowConflicts, other: RowConflicts) -> RowConflicts:
    """Two lists of conflicts as one."""
    if not len(other):
        return one
    return RowConflicts(
        np.concatenate([one.kind, other.kind]),
        np.concatenate([one.base, other.base]),
        np.concatenate([one.ours, other.ours]),
        np.concatenate([one.theirs, other.theirs]),
        {name: np.concatenate([mask, other.cells[name]]) for name, mask in one.cells.items()},
    )


def _rules(mine: Changes, i: Positions, other: Changes, j: Positions) -> Texts:
    """The rule for each pair of changes of one row."""
    found = np.full(len(i), "ours", dtype="<U8")
    for (one, two), rule in ROW_RULES.items():
        if "none" not in (one, two):
            masks = {"insert": "added", "update": "changed", "delete": "removed"}
            found[getattr(mine, masks[one])[i] & getattr(other, masks[two])[j]] = rule
    return found


def _any(masks: Mapping[str, Cells], count: int) -> Cells:
    """Where any of the masks is true."""
    found: Cells = np.logical_or.reduce([np.zeros(count, bool), *masks.values()])
    return found


# --- without a key -----------------------------------------------------------------------------------------------------


class _MultisetMerge(_Merge):
    """The merge of a table without a key, whose rows are a multiset."""

    def merged(self, resolve: Resolve) -> MergedRows:
        alone, conflicts, deltas = self._compared()
        self.take(np.flatnonzero(alone))
        given = resolve(conflicts) if len(conflicts) else unresolved(conflicts)
        choice = self.choose("row count", self.component, None)
        take = np.where(given.take == "", choice if choice in ("ours", "theirs", "union") else "", given.take)
        wanted = np.select(
            [take == "theirs", take == "union", take == "base", take == "drop"],
            [deltas, np.maximum(deltas, 0), self._to_base(conflicts), self._to_nothing(conflicts)],
            0,
        )
        self._adjust(conflicts, wanted)
        return MergedRows(self.edits(), conflicts.of(take == ""))

    def _compared(self) -> tuple[Cells, RowConflicts, NDArray[np.int64]]:
        """Which changes of theirs are of rows that ours left alone; the rows that both changed differently; and for each of
        those, how many more of it theirs has than ours."""
        alone = np.ones(len(self.other), bool)
        none = RowConflicts(np.empty(0, "<U16"), _NONE, _NONE, _NONE, {}, np.empty((0, 3), np.int64))
        if not len(self.mine) or not len(self.other):
            return alone, none, _NONE
        changes = [self._values(self.mine, self.sides.ours), self._values(self.other, self.sides.theirs)]
        names = [f"c{i}" for i in range(len(self.sides.ours.schema))]
        listed = ", ".join(names)
        on = " AND ".join(f"m.{name} IS NOT DISTINCT FROM o.{name}" for name in names)
        both = self.sides.engine.query(
            f"WITH m AS (SELECT {listed}, sum(delta)::BIGINT AS delta, min(number) AS number FROM mine GROUP BY ALL), "
            f"o AS (SELECT {listed}, sum(delta)::BIGINT AS delta, list(number) AS numbers FROM other GROUP BY ALL) "
            f"SELECT m.number, m.delta AS mine, o.delta AS other, o.numbers FROM m JOIN o ON {on} ORDER BY 1",
            mine=changes[0],
            other=changes[1],
        ).to_pylist()
        found = []
        for number, mine, other, numbers in (row.values() for row in both):
            alone[numbers] = False
            count = self._counts(number, mine, other)
            if merge_count(*count) is None:
                found.append((number, *count))
        if not found:
            return alone, none, _NONE
        rows = np.array([number for number, *_ in found], np.int64)
        counts = np.array([count for _, *count in found], np.int64)
        ours, base = self.mine.after[rows], self.mine.before[rows]
        kind = np.full(len(rows), "row count", dtype="<U16")
        conflicts = RowConflicts(kind, base, ours, np.full(len(rows), -1, np.int64), {}, counts)
        return alone, conflicts, counts[:, 2] - counts[:, 1]

    def _values(self, changes: Changes, rows: Rows) -> pa.Table:
        """The rows that a side changed in their comparable form, each with +1 or -1 and its number."""
        table = _rows_of(changes.before, self.sides.base, changes.after, rows)
        columns = [comparable(column.combine_chunks()) for column in table.columns]
        delta = pa.array(np.where(changes.added, 1, -1))
        names = [f"c{i}" for i in range(len(columns))]
        return pa.table([*columns, delta, pa.array(np.arange(len(changes)))], names=[*names, "delta", "number"])

    def _counts(self, number: int, mine: int, other: int) -> tuple[int, int, int]:
        """How often a row is in the base, ours and theirs; `number` is one of its changes in ours."""
        at = np.array([number])
        row = _rows_of(self.mine.before[at], self.sides.base, self.mine.after[at], self.sides.ours)
        base = len(every(row, self.sides.base, self.sides.engine))
        return base, base + mine, base + other

    def _to_base(self, conflicts: RowConflicts) -> NDArray[np.int64]:
        assert conflicts.counts is not None, "of a multiset"
        return conflicts.counts[:, 0] - conflicts.counts[:, 1]

    def _to_nothing(self, conflicts: RowConflicts) -> NDArray[np.int64]:
        assert conflicts.counts is not None, "of a multiset"
        return -conflicts.counts[:, 1]

    def _adjust(self, conflicts: RowConflicts, wanted: NDArray[np.int64]) -> None:
        """Add or remove rows in conflict, as many as are wanted of each."""
        for at in np.flatnonzero(wanted).tolist():
            one = np.array([at])
            row = _rows_of(conflicts.base[one], self.sides.base, conflicts.ours[one], self.sides.ours)
            count = int(wanted[at])
            if count < 0:
                self.removed.append(every(row, self.sides.ours, self.sides.engine)[count:])
                continue
            self.at_end.append(Insert(np.full(count, AT_END), TableRows(row), np.zeros(count, np.int64)))


def _rows_of(before: Positions, base: Rows, after: Positions, rows: Rows) -> pa.Table:
    """The rows at these positions: of the base, or where that is -1 of the other table."""
    is_old = before >= 0
    found = pa.concat_tables([base.take(before[is_old]), rows.take(after[~is_old])])
    order = np.concatenate([np.flatnonzero(is_old), np.flatnonzero(~is_old)])
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return found.take(pa.array(back))
