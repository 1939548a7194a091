"""Kinds of conflicts, and the strategies that resolve them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from dataset_registry.errors import InputError

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
CONFLICT_KINDS: tuple[ConflictKind, ...] = get_args(ConflictKind)
ROW_CONFLICTS: tuple[ConflictKind, ...] = ("both changed", "both added", "delete/modify", "row count")
"""The kinds of conflicts among rows."""
STRATEGIES = ("fail", "ours", "theirs", "union", "newest")


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


def strategies_of(value: "str | Strategy | Sequence[str | Strategy] | None") -> tuple[Strategy, ...]:
    """Strategies from their texts: `theirs`, or `theirs:component=part/*,column=price,kind=both changed`.

    Raises `InputError` for an unknown one.
    """
    found = []
    if value is None:
        return ()
    for item in [value] if isinstance(value, str | Strategy) else value:
        if not isinstance(item, str | Strategy):
            raise InputError(f"A strategy is a text such as 'ours', not {item!r}.")
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
