"""Merging the tables of three versions: their columns, then their rows; and the conflicts as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from dataset_registry.errors import InputError
from dataset_registry.model.manifest import ComponentKey, component_label
from dataset_registry.model.merge import Conflict, MergedColumn, MergedColumns, Unused, merge_columns
from dataset_registry.model.schema import Column, TableSchema
from dataset_registry.model.strategies import Choose, Side
from dataset_registry.tabular import writer
from dataset_registry.tabular.arrow import type_of
from dataset_registry.tabular.combine import types_of_both
from dataset_registry.tabular.conflicts import coalesced, free_name, resolver
from dataset_registry.tabular.edits import Edits
from dataset_registry.tabular.engine import Engine
from dataset_registry.tabular.row_diff import row_changes
from dataset_registry.tabular.row_merge import RowConflicts, merge_rows
from dataset_registry.tabular.row_places import Sides
from dataset_registry.tabular.rows import Rows, TablePart


@dataclass(frozen=True, slots=True)
class TableVersion:
    """One table of a version: the component that it is in, its parts, and its captured schema.

    `unknown` are the keys of rows of a virtual base whose ancestors are in conflict; the rows are not in it.
    """

    component: ComponentKey
    parts: Sequence[TablePart]
    schema: TableSchema
    unknown: pa.Table | None = None

    @property
    def label(self) -> str:
        """The label of its component."""
        return component_label(*self.component)

    def rows(self, schema: pa.Schema, names: Mapping[str, str]) -> Rows:
        """Its rows with other columns: `names` maps each to its own column; one that it lacks is null."""
        return Rows(self.parts, schema, names)

    def own_rows(self) -> Rows:
        """Its rows with its own columns."""
        fields = [pa.field(column.name, type_of(column), column.nullable) for column in self.schema.columns]
        return Rows(self.parts, pa.schema(fields), {column.name: column.name for column in self.schema.columns})


Tables = tuple[TableVersion | None, TableVersion, TableVersion]
"""The table of the base (None where it had none), of ours and of theirs."""


@dataclass(frozen=True, slots=True)
class TableMerge:
    """A merged table: edits of ours, or conflicts. `schema` is the captured schema of the result."""

    ours: TableVersion
    sides: Sides | None
    schema: TableSchema
    edits: Edits
    conflicts: Sequence[Conflict]
    rows: RowConflicts | None = None

    @property
    def is_rewritten(self) -> bool:
        """Whether the columns change, so that every part does."""
        return _shapes(self.schema.columns) != _shapes(self.ours.schema.columns)

    def without_conflicts(self) -> "TableMerge":
        """The result without the rows in conflict: what is known of a base with several ancestors."""
        assert self.rows is not None, "columns without conflicts"
        removed = np.union1d(self.edits.removed, self.rows.ours[self.rows.ours >= 0])
        return replace(self, edits=replace(self.edits, removed=removed))

    def unknown_keys(self) -> pa.Table | None:
        """The keys of the rows in conflict, None if there are none."""
        if self.sides is None or not self.sides.key or not self.rows:
            return None
        return coalesced(self.sides, self.rows, self.sides.key)


def _shapes(columns: Sequence[Column]) -> list[tuple[str, str, bool]]:
    return [(column.name, column.type, column.nullable) for column in columns]


def merge_tables(
    tables: Tables, choose: Choose, engine: Engine, resolutions: "pa.Table | None" = None, *, by_key: bool = True
) -> TableMerge:
    """Merge a table. `resolutions` is a table of conflicts that was handed back (see `conflict_table`); with `by_key`, rows
    without the values that they are about are matched by their key alone.

    Raises `InputError` for a key that is not unique, and for resolutions that do not fit the table.
    """
    base, ours, theirs = tables
    component = ours.component
    key = _key(base, ours, theirs)
    if key is None:
        return _refused(ours, "both changed", "the two sides have different keys: " + _keys(ours, theirs))
    columns = merge_columns(
        component, base.schema.columns if base else (), ours.schema.columns, theirs.schema.columns, choose
    )
    if retyped := next((u for u in columns.unused if u.kind == "column type" and u.id in key), None):
        return _refused(ours, "column type", "one side changed the type of a column of the key", retyped.name)
    if not columns.conflicts and base is not None and columns.unused:
        lost, kept = _values_lost(base, ours, theirs, columns, key, engine, choose)
        if lost:
            return TableMerge(ours, None, ours.schema, Edits(), lost)
        if kept:
            sides_of = (base.schema.columns, ours.schema.columns, theirs.schema.columns)
            columns = merge_columns(component, *sides_of, choose, kept)
    if columns.conflicts:
        return TableMerge(ours, None, ours.schema, Edits(), columns.conflicts)
    names = _renamed(key, columns)
    if not set(names) <= {merged.column.name for merged in columns.columns}:
        return _refused(ours, "drop/modify", f"a column of the key ({', '.join(key)}) was dropped")
    sides = _sides(tables, columns, names, engine)
    resolve = resolver(sides, resolutions, by_key=by_key)
    try:
        merged = merge_rows(sides, component[0], choose, resolve)
    except InputError as error:
        if error.fields.get("column") is None:
            raise
        return _refused(ours, "column type", str(error), str(error.fields["column"]))
    schema = _schema(tables, columns, names)
    conflicts = [*_row_conflicts(component, merged.conflicts), *_constraints(sides, merged.edits, columns, component)]
    return TableMerge(ours, sides, schema, merged.edits, conflicts, merged.conflicts)


def _refused(ours: TableVersion, kind: str, reason: str, column: str | None = None) -> TableMerge:
    conflict = Conflict(kind, *ours.component, column, reason=reason)  # type: ignore[arg-type]
    return TableMerge(ours, None, ours.schema, Edits(), [conflict])


def _key(base: TableVersion | None, ours: TableVersion, theirs: TableVersion) -> tuple[str, ...] | None:
    """The key of the result as ids of columns: that of both sides, or of the side that changed it; None if both did."""
    mine, other = _ids(ours), _ids(theirs)
    was = _ids(base) if base else None
    if other in (mine, was):
        return mine
    return other if mine == was else None


def _ids(table: TableVersion) -> tuple[str, ...]:
    ids = {column.name: column.id for column in table.schema.columns}
    return tuple(ids.get(name, name) for name in table.schema.key)


def _keys(ours: TableVersion, theirs: TableVersion) -> str:
    return " and ".join(f"({', '.join(side.schema.key) or 'none'})" for side in (ours, theirs))


def _renamed(key: Sequence[str], columns: MergedColumns) -> list[str]:
    names = {merged.column.id: merged.column.name for merged in columns.columns}
    return [names.get(column, column) for column in key]


def _sides(tables: Tables, columns: MergedColumns, key: Sequence[str], engine: Engine) -> Sides:
    """The three tables with the columns of the result."""
    schema = pa.schema([pa.field(m.column.name, type_of(m.column), m.column.nullable) for m in columns.columns])
    names = [
        {m.column.name: own for m in columns.columns if (own := getattr(m, side)) is not None}
        for side in ("base", "ours", "theirs")
    ]
    # A column that one side lacks is that of the other side: all of its values come from there, not only those that changed.
    names[0] = {name: own for name, own in names[0].items() if name in names[1] and name in names[2]}
    rows = [
        table.rows(schema, own) if table is not None else Rows([], schema, {})
        for table, own in zip(tables, names, strict=True)
    ]
    base = tables[0]
    unknown = None
    if base is not None and base.unknown is not None:
        by_own = {m.base: m.column.name for m in columns.columns}
        unknown = base.unknown.rename_columns([by_own.get(name, name) for name in base.unknown.column_names])
    fresh = [name for name in names[1] if name in names[2] and name not in names[0]] if base is not None else []
    return Sides(rows[0], rows[1], rows[2], key, engine, unknown, fresh)


def _values_lost(
    base: TableVersion,
    ours: TableVersion,
    theirs: TableVersion,
    columns: MergedColumns,
    key: Sequence[str],
    engine: Engine,
    choose: Choose,
) -> tuple[list[Conflict], dict[str, Side]]:
    """Columns whose unused values were changed: the conflicts, and those to take from the side with the values, by id."""
    merged = {m.column.id: m for m in columns.columns}
    conflicts: list[Conflict] = []
    kept: dict[str, Side] = {}
    if not set(key) <= merged.keys():
        return conflicts, kept
    for unused in columns.unused:
        side = unused.side
        other, winner = (ours, "theirs") if side == "ours" else (theirs, "ours")
        count = _changed_values(base, other, unused, merged, key, engine)
        choice = choose(unused.kind, ours.component[0], unused.name) if count else winner
        if choice == side or (choice == "union" and unused.kind == "drop/modify"):
            kept[unused.id] = side
        elif choice != winner:
            did = "dropped the column" if unused.kind == "drop/modify" else "gave the column another type"
            reason = f"{winner} {did}, {side} changed its values"
            conflicts.append(Conflict(unused.kind, *ours.component, unused.name, count, reason=reason))
    return conflicts, kept


def _changed_values(
    base: TableVersion,
    other: TableVersion,
    unused: Unused,
    merged: Mapping[str, MergedColumn],
    key: Sequence[str],
    engine: Engine,
) -> int:
    """How many values of an unused column one side changed. Without a key, how many of its rows: which values are whose is
    unknown then."""
    column = next(c for c in base.schema.columns if c.name == unused.base)
    if not key:
        there = {c.name for c in other.schema.columns}
        shared = [c for c in base.schema.columns if c.name in there]
        rows = pa.schema([pa.field(c.name, type_of(c)) for c in shared])
        own = {c.name: c.name for c in shared}
        return len(row_changes(base.rows(rows, own), other.rows(rows, own), (), engine))
    fields = [pa.field(k, type_of(merged[k].column)) for k in key]
    value = free_name("value", key)
    schema = pa.schema([*fields, pa.field(value, type_of(column))])
    before = base.rows(schema, {**{k: merged[k].base or k for k in key}, value: unused.base})
    after = other.rows(schema, {**{k: getattr(merged[k], unused.side) or k for k in key}, value: unused.name})
    changes = row_changes(before, after, key, engine)
    count = int(changes.changed.sum())
    if unused.kind == "column type":
        added = after.take(changes.after[changes.added], [value])
        count += added.num_rows - added.column(0).null_count
    return count


def _schema(tables: Tables, columns: MergedColumns, key: Sequence[str]) -> TableSchema:
    """The captured schema of the result, without facts of its rows."""
    base, ours, theirs = tables
    was = base.schema.user_types if base else None
    types = ours.schema.user_types
    if types != theirs.schema.user_types:
        both = None not in (types, theirs.schema.user_types)
        types = (
            types_of_both(ours.schema, theirs.schema) if both else theirs.schema.user_types if types == was else types
        )
    merged = tuple(m.column for m in columns.columns)
    if types is not None and _shapes(merged) != _shapes(ours.schema.columns):
        types = writer.types_of_columns(
            [column.name for column in merged],
            [
                (ours.schema.user_types, {m.ours: m.column.name for m in columns.columns if m.ours}),
                (theirs.schema.user_types, {m.theirs: m.column.name for m in columns.columns if m.theirs}),
            ],
        )
    cut = ours.schema.cut
    if cut is not None:
        renamed = {m.ours: m.column.name for m in columns.columns if m.ours}
        cut = replace(cut, columns=tuple(renamed[name] for name in cut.columns if name in renamed)) or None
    return TableSchema(
        None,
        merged,
        key=tuple(key),
        cut=cut if cut and cut.columns else None,
        user_types=types,
        library=ours.schema.library,
    )


def _row_conflicts(component: tuple[str, int], found: RowConflicts) -> list[Conflict]:
    """One conflict for each kind of conflict among rows."""
    conflicts = []
    for kind in np.unique(found.kind):
        here = found.kind == kind
        columns = [name for name, mask in found.cells.items() if mask[here].any()]
        reason = f"in {', '.join(columns)}" if columns else ""
        column = columns[0] if len(columns) == 1 else None
        conflicts.append(Conflict(str(kind), *component, column, int(here.sum()), reason=reason))  # type: ignore[arg-type]
    return conflicts


def _constraints(sides: Sides, edits: Edits, columns: MergedColumns, component: tuple[str, int]) -> list[Conflict]:
    """Conflicts of columns that one side made not null, and the other gave nulls."""
    found = []
    for merged in columns.columns:
        name = merged.column.name
        if merged.column.nullable:
            continue
        nulls = sum(
            insert.source.take(insert.rows, [name]).column(0).null_count for insert in edits.inserts if len(insert.rows)
        )
        for update in edits.updates:
            chosen = slice(None) if update.cells is None else update.cells.get(name)
            if chosen is not None and len(update.rows[chosen]):
                nulls += update.source.take(update.rows[chosen], [name]).column(0).null_count
        nulls += _nulls_kept(sides.ours, edits, name)
        if nulls:
            reason = "one side made the column not null, the other one has nulls in it"
            found.append(Conflict("constraint", *component, name, nulls, reason=reason))
    return found


def _nulls_kept(rows: Rows, edits: Edits, name: str) -> int:
    """The nulls of a column in the rows of ours that stay as they are."""
    nulls = 0
    changed = [update.at for update in edits.updates if update.cells is None or name in update.cells]
    gone = np.concatenate([edits.removed, *changed])
    for start, table in rows.batches([name]):
        if table.column(0).null_count:
            at = np.flatnonzero(table.column(0).is_null().to_numpy()) + start
            nulls += int((~np.isin(at, gone)).sum())
    return nulls
