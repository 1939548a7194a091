"""The rules of a three-way merge, as pure functions and tables (docs/design/merging.md).

`base` is the best common ancestor, `ours` the version that is merged into, `theirs` the version that is merged. Components
are compared by content, columns by their ids, rows by their key, or as multisets where a table has none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from dataset_registry.model.manifest import ComponentKey, Entry, component_label
from dataset_registry.model.schema import Column, holds
from dataset_registry.model.strategies import Choose, ConflictKind, Side


@dataclass(frozen=True, slots=True)
class Conflict:
    """A conflict of a merge: of a component, of a column, or of rows of a table.

    `base`, `ours` and `theirs` describe the three states, None for absent. For rows, `rows` is their number, and the rows
    themselves are a table of the plan; `column` is then a column with different values.
    """

    kind: ConflictKind
    component: str
    index: int = 0
    column: str | None = None
    rows: int = 0
    base: str | None = None
    ours: str | None = None
    theirs: str | None = None
    reason: str = ""

    def __str__(self) -> str:
        label = component_label(self.component, self.index) + (f".{self.column}" if self.column else "")
        many = f" in {self.rows:,} row{'' if self.rows == 1 else 's'}" if self.rows else ""
        return f"{label}: {self.kind}{many}" + (f" ({self.reason})" if self.reason else "")


# --- components --------------------------------------------------------------------------------------------------------

Decision = Literal["ours", "theirs", "rows", "both changed", "delete/modify"]
"""The result for a component: that of a side, a merge of its rows, or a conflict."""


def merge_component(base: Entry | None, ours: Entry | None, theirs: Entry | None) -> Decision:
    """The rule for one component, by its content and how it was captured; None where a version lacks it."""
    if _same(ours, theirs) or _same(base, theirs):
        return "ours"
    if _same(base, ours):
        return "theirs"
    if ours is None or theirs is None:
        return "delete/modify"
    if ours == theirs:
        return "ours"  # the same content, captured in two ways
    return "rows" if ours.format == theirs.format == "parquet" else "both changed"


def merge_components(
    base: Mapping[ComponentKey, Entry], ours: Mapping[ComponentKey, Entry], theirs: Mapping[ComponentKey, Entry]
) -> dict[ComponentKey, Decision]:
    """The decisions for all components that theirs changed. The others stay as in ours."""
    keys = sorted({key for key in {*base, *theirs} if not _same(base.get(key), theirs.get(key))})
    found = {key: merge_component(base.get(key), ours.get(key), theirs.get(key)) for key in keys}
    return {key: decision for key, decision in found.items() if decision != "ours"}


def _same(one: Entry | None, other: Entry | None) -> bool:
    return one == other and (one is None or other is None or one.schema_id == other.schema_id)


# --- columns -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MergedColumn:
    """A column of the result, and what it is called on each side; None where a side lacks it. `type_of` is the side that
    has its type."""

    column: Column
    base: str | None
    ours: str | None
    theirs: str | None
    type_of: Side


class Unused(NamedTuple):
    """A column whose values on one side have no place in the result: the other side dropped it, or gave it a type that does not
    hold them. If they were changed, that is a conflict of this kind."""

    kind: ConflictKind
    id: str
    base: str
    name: str
    side: Side


@dataclass(frozen=True, slots=True)
class MergedColumns:
    """The columns of a merged table in order, the conflicts, and the columns whose values on one side are unused."""

    columns: tuple[MergedColumn, ...]
    conflicts: tuple[Conflict, ...]
    unused: tuple[Unused, ...]


class _Unresolved(Exception):
    """A conflict without a choice."""

    def __init__(self, conflict: Conflict) -> None:
        super().__init__(str(conflict))
        self.conflict = conflict


def merge_columns(
    component: ComponentKey,
    base: Sequence[Column],
    ours: Sequence[Column],
    theirs: Sequence[Column],
    choose: Choose = lambda kind, component, column: None,
    keep: Mapping[str, Side] | None = None,
) -> MergedColumns:
    """Merge the columns of a table by their ids. Those in `keep` are taken from that side, by id."""
    sides = [{column.id: column for column in side} for side in (base, ours, theirs)]
    found: dict[str, MergedColumn] = {}
    conflicts: list[Conflict] = []
    unused: list[Unused] = []
    for column_id in dict.fromkeys(column.id for side in (ours, theirs, base) for column in side):
        b, o, t = (side.get(column_id) for side in sides)
        try:
            if (side := (keep or {}).get(column_id)) is not None:
                found[column_id] = _alone(side, o, t)
                continue
            merged = _merge_column(component, b, o, t, choose)
        except _Unresolved as error:
            conflicts.append(error.conflict)
            merged = _of_side("ours" if o else "theirs", b, o, t)
        if merged is None and b is not None and (o or t):
            other: Side = "ours" if o else "theirs"
            unused.append(Unused("drop/modify", column_id, b.name, (o or t or b).name, other))
        elif merged is not None and b and o and t and merged.base is not None:
            rest, other = (t, "theirs") if merged.type_of == "ours" else (o, "ours")
            if not holds(rest, merged.column):
                unused.append(Unused("column type", column_id, b.name, rest.name, other))
                own = (o.name, None) if other == "theirs" else (None, t.name)
                merged = replace(merged, base=None, ours=own[0], theirs=own[1])
            elif o.type == t.type and not holds(b, o):
                merged = replace(
                    merged, base=None
                )  # both gave it the same type, which does not hold the values of the base
        if merged is not None:
            found[column_id] = merged
    conflicts += _name_conflicts(component, found)
    ordered = _ordered([c.id for c in base], [c.id for c in ours], [c.id for c in theirs], found)
    return MergedColumns(tuple(found[column_id] for column_id in ordered), tuple(conflicts), tuple(unused))


def _alone(side: Side, o: Column | None, t: Column | None) -> MergedColumn:
    """A column of one side alone, whatever the other side has under its id."""
    return _of_side(side, None, o if side == "ours" else None, t if side == "theirs" else None)


def _merge_column(
    component: ComponentKey, b: Column | None, o: Column | None, t: Column | None, choose: Choose
) -> MergedColumn | None:
    """The rule for one column. Raises `_Unresolved`."""

    def resolve(kind: ConflictKind, reason: str) -> Side:
        name = (o or t or b or Column("", "")).name
        choice = choose(kind, component[0], name)
        if choice == "union" and kind == "drop/modify":
            return "ours" if o else "theirs"
        if choice not in ("ours", "theirs"):
            was, mine, other = (None if side is None else f"{side.name}: {side.type}" for side in (b, o, t))
            raise _Unresolved(Conflict(kind, *component, name, 0, was, mine, other, reason))
        return "ours" if choice == "ours" else "theirs"

    if o is None and t is None:
        return None
    if o is None or t is None:
        there = o or t
        assert there is not None, "one side has it"
        side: Side = "ours" if o else "theirs"
        if b is None:
            return _of_side(side, b, o, t)
        if (there.type, there.name) == (b.type, b.name):
            return None
        other = "theirs" if o else "ours"
        chosen = resolve("drop/modify", f"{other} dropped it, {side} changed it")
        return _of_side(side, b, o, t) if chosen == side else None
    type_of: Side | None = "ours" if o.type == t.type else _type_of(b, o, t) if b else None
    if type_of is None:  # of the chosen side alone: the values of the other one have no place in its type
        type_of = resolve("column type", f"both {'changed its type' if b else 'added it, with different types'}")
        return _alone(type_of, o, t)
    if o.name == t.name:
        name = o.name
    elif b is None or b.name not in (o.name, t.name):
        name = o.name if resolve("column name", "both renamed it") == "ours" else t.name
    else:
        name = o.name if t.name == b.name else t.name
    was = b.nullable if b else o.nullable or t.nullable
    nullable = o.nullable if t.nullable == was else t.nullable
    shape = {"base": b, "ours": o, "theirs": t}[type_of] or o
    return MergedColumn(
        replace(shape, name=name, nullable=nullable, origin=o.id if o.id != name else None),
        b.name if b else None,
        o.name,
        t.name,
        type_of,
    )


def _type_of(b: Column, o: Column, t: Column) -> Side | None:
    """The side whose type is that of the result: the only one that changed it, or the wider one of two."""
    if o.type == b.type:
        return "theirs"
    if t.type == b.type:
        return "ours"
    if holds(b, o) and holds(b, t):
        return "ours" if holds(t, o) else "theirs" if holds(o, t) else None
    return None


def _of_side(side: Side, b: Column | None, o: Column | None, t: Column | None) -> MergedColumn:
    column = {"base": b, "ours": o, "theirs": t}[side]
    assert column is not None, "this side has it"
    return MergedColumn(column, b.name if b else None, o.name if o else None, t.name if t else None, side)


def _name_conflicts(component: ComponentKey, found: Mapping[str, MergedColumn]) -> list[Conflict]:
    """Conflicts of different columns that would have the same name."""
    by_name: dict[str, MergedColumn] = {}
    conflicts = []
    for merged in found.values():
        other = by_name.setdefault(merged.column.name, merged)
        if other is not merged:
            texts = (other.ours or merged.ours, other.theirs or merged.theirs)
            conflicts.append(
                Conflict(
                    "column name",
                    *component,
                    merged.column.name,
                    0,
                    other.base or merged.base,
                    *texts,
                    "two different columns would have this name: rename one of them",
                )
            )
    return conflicts


def _ordered(base: Sequence[str], ours: Sequence[str], theirs: Sequence[str], found: Mapping[str, object]) -> list[str]:
    """The order of the columns: that of ours, or of theirs if ours kept the base's; others behind their left neighbour."""
    shared = [c for c in base if c in found and c in ours and c in theirs]
    kept = [c for c in ours if c in shared] == shared
    first, second = (theirs, ours) if kept and [c for c in theirs if c in shared] != shared else (ours, theirs)
    order = [c for c in first if c in found]
    for at, column in enumerate(second):
        if column in found and column not in order:
            left = next((c for c in reversed(second[:at]) if c in order), None)
            order.insert(order.index(left) + 1 if left is not None else 0, column)
    return order


# --- rows --------------------------------------------------------------------------------------------------------------

RowChange = Literal["none", "insert", "update", "delete"]
RowRule = Literal["ours", "theirs", "equal", "cells", "conflict"]

ROW_RULES: Mapping[tuple[RowChange, RowChange], RowRule] = {
    ("none", "none"): "ours",
    ("none", "insert"): "theirs",
    ("none", "update"): "theirs",
    ("none", "delete"): "theirs",
    ("insert", "none"): "ours",
    ("update", "none"): "ours",
    ("delete", "none"): "ours",
    ("insert", "insert"): "equal",
    ("update", "update"): "cells",
    ("delete", "delete"): "ours",
    ("delete", "update"): "conflict",
    ("update", "delete"): "conflict",
}
"""The rule for a row with a key, by what ours and theirs did to it. `equal`: one row if all values are equal, else a
conflict. `cells`: each cell by `merge_cell`. A row that the base has cannot be inserted, and one that it lacks only that."""


def merge_cell(base: object, ours: object, theirs: object) -> Side | None:
    """The side that has the result of a cell, None for a conflict. Values are compared in their comparable form."""
    if theirs in (ours, base):
        return "ours"
    return "theirs" if ours == base else None


def merge_count(base: int, ours: int, theirs: int) -> int | None:
    """How often a row without a key is in the result, None for a conflict."""
    side = merge_cell(base, ours, theirs)
    return None if side is None else {"ours": ours, "theirs": theirs}[side]
