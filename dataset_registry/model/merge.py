"""The rules of a three-way merge, as pure functions and tables (docs/design/merging.md).

`base` is the best common ancestor, `ours` the version that is merged into, `theirs` the version that is merged. Components
are compared by content, columns by their ids, rows by their key, or as multisets where a table has none.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from dataset_registry.errors import InputError
from dataset_registry.model.manifest import ComponentKey, Entry, component_label
from dataset_registry.model.schema import Column, widens

Side = Literal["base", "ours", "theirs"]
ConflictKind = Literal[
    "both changed",
    "both added",
    "delete/modify",
    "drop/modify",
    "column type",
    "column name",
    "constraint",
    "row count",
]
CONFLICT_KINDS: tuple[ConflictKind, ...] = (
    "both changed",
    "both added",
    "delete/modify",
    "drop/modify",
    "column type",
    "column name",
    "constraint",
    "row count",
)
STRATEGIES = ("fail", "ours", "theirs", "union", "newest")


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


@dataclass(frozen=True, slots=True)
class Strategy:
    """How conflicts are resolved: those of a component (a pattern such as `part/*`), a column, a kind; None for all."""

    take: str
    component: str | None = None
    column: str | None = None
    kind: str | None = None

    def applies_to(self, kind: str, component: str, column: str | None) -> bool:
        """Whether it is for this conflict."""
        return (
            (self.component is None or fnmatchcase(component, self.component))
            and (self.column is None or self.column == column)
            and (self.kind is None or self.kind == kind)
        )


def strategies_of(value: "str | Strategy | Sequence[str | Strategy]") -> tuple[Strategy, ...]:
    """Strategies from their texts: `theirs`, or `theirs:component=part/*,column=price,kind=both changed`.

    Raises `InputError` for an unknown one.
    """
    found = []
    for item in [value] if isinstance(value, str | Strategy) else value:
        if isinstance(item, Strategy):
            parsed = item
        else:
            take, _, rest = item.partition(":")
            scope: dict[str, str] = {}
            for part in filter(None, rest.split(",")):
                name, has_value, text = part.partition("=")
                if name not in ("component", "column", "kind") or not has_value:
                    raise InputError(
                        f"Invalid strategy {item!r}. Write for example 'theirs' or 'theirs:component=part/*,column=price'.",
                        strategy=item,
                    )
                scope[name] = text
            parsed = Strategy(take, **scope)
        if parsed.take not in STRATEGIES:
            raise InputError(f"Unknown strategy {parsed.take!r}. Use one of: {', '.join(STRATEGIES)}.", strategy=item)
        if parsed.kind is not None and parsed.kind not in CONFLICT_KINDS:
            raise InputError(
                f"Unknown kind of conflict {parsed.kind!r}. Use one of: {', '.join(CONFLICT_KINDS)}.", kind=parsed.kind
            )
        found.append(parsed)
    return tuple(found)


Choose = Callable[[str, str, str | None], str | None]
"""How a conflict is resolved, by its kind, component and column: `ours`, `theirs`, `union`, or None for not."""


def chooser(strategies: Sequence[Strategy], newest: Side) -> Choose:
    """The choices of strategies, of which a later one wins. `newest` is the side that was committed last."""

    def choose(kind: str, component: str, column: str | None) -> str | None:
        for strategy in reversed(strategies):
            if strategy.applies_to(kind, component, column):
                return {"fail": None, "newest": newest}.get(strategy.take, strategy.take)
        return None

    return choose


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


@dataclass(frozen=True, slots=True)
class MergedColumns:
    """The columns of a merged table in order, the conflicts, and the columns that one side dropped and the other kept:
    as (column of the base, column of the other side, the other side). If values were changed there, that is a conflict."""

    columns: tuple[MergedColumn, ...]
    conflicts: tuple[Conflict, ...]
    dropped: tuple[tuple[str, str, Side], ...]


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
    keep: Collection[str] = (),
) -> MergedColumns:
    """Merge the columns of a table by their ids; those in `keep` stay, although one side dropped them."""
    sides = [{column.id: column for column in side} for side in (base, ours, theirs)]
    found: dict[str, MergedColumn] = {}
    conflicts: list[Conflict] = []
    dropped: list[tuple[str, str, Side]] = []
    for column_id in dict.fromkeys(column.id for side in (ours, theirs, base) for column in side):
        b, o, t = (side.get(column_id) for side in sides)
        try:
            merged = _merge_column(component, b, o, t, choose)
        except _Unresolved as error:
            conflicts.append(error.conflict)
            merged = _of_side("ours" if o else "theirs", b, o, t)
        if merged is None and (o or t) and column_id in keep:
            merged = _of_side("ours" if o else "theirs", b, o, t)
        if merged is not None:
            found[column_id] = merged
        elif b is not None and (o or t):
            kept: Side = "ours" if o else "theirs"
            dropped.append((b.name, (o or t or b).name, kept))
    conflicts += _name_conflicts(component, found)
    ordered = _ordered([c.id for c in base], [c.id for c in ours], [c.id for c in theirs], found)
    return MergedColumns(tuple(found[column_id] for column_id in ordered), tuple(conflicts), tuple(dropped))


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
        return _of_side(type_of, None, o if type_of == "ours" else None, t if type_of == "theirs" else None)
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
    if widens(b.type, o.type) and widens(b.type, t.type):
        return "ours" if widens(t.type, o.type) else "theirs" if widens(o.type, t.type) else None
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
