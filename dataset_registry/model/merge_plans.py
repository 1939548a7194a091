"""Plans and options of merges."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dataset_registry.model.merge import Conflict
from dataset_registry.model.records import Head, VersionRecord
from dataset_registry.model.strategies import ROW_CONFLICTS, Strategy

Outcome = Literal["up to date", "fast-forward", "merge", "conflicts"]
"""The outcome of a merge: nothing to do; the branch moves to a descendant; a new version; conflicts to resolve."""

MergeKind = Literal["merge", "cherry-pick", "revert"]
"""A merge of two histories; the changes of one version on another branch; or those changes undone."""
Action = Literal["added", "replaced", "removed", "merged"]
"""How a merge changes a component of ours."""


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """Options of a merge.

    `resolutions` are tables of resolved row conflicts by the label of their component; `plan` is the id of the plan whose
    conflicts they resolve. Without `fast_forward`, a version with two parents is made where the branch could move.
    """

    strategies: Sequence[Strategy] = ()
    resolutions: Mapping[str, Any] = field(default_factory=dict)
    plan: str | None = None
    fast_forward: bool = True
    message: str | None = None


@dataclass(frozen=True, slots=True)
class MergedComponent:
    """A component that a merge changes in ours: taken from theirs (`added`, `replaced`, `removed`), or merged row by row
    (`merged`); of those the rows that are added, removed and changed."""

    name: str
    index: int
    action: Action
    rows_added: int = 0
    rows_removed: int = 0
    rows_changed: int = 0
    dropped: tuple[str, ...] = ()
    """Columns of ours that the result lacks."""
    retyped: tuple[str, ...] = ()
    """Columns of ours whose values the result has in a type that does not hold them all."""


@dataclass(frozen=True, slots=True)
class Impact:
    """A head of the branch that was built from the dataset, and may read columns that a merge drops or retypes, or a component
    that it removes."""

    dataset: str
    version: int
    component: str
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = (
            f"columns {', '.join(self.columns)} of {self.component!r}"
            if self.columns
            else f"component {self.component!r}"
        )
        return f"{self.dataset}@v{self.version} may read the {what}"


@dataclass(frozen=True, slots=True)
class MergePlan:
    """The plan of a merge of `theirs` into a branch at `ours` (None for a branch that is new).

    `bases` are the numbers of the best common ancestors. `id` identifies the three versions: resolutions name it, so that those
    for a branch that moved in between are checked again.
    """

    dataset: str
    branch: str
    ours: Head | None
    theirs: VersionRecord
    bases: tuple[int, ...]
    outcome: Outcome
    components: tuple[MergedComponent, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    impact: tuple[Impact, ...] = ()
    """The heads of the branch that may read what the merge drops or retypes."""

    @property
    def id(self) -> str:
        """The identity of the plan, 16 hexadecimal digits."""
        versions = [*self.bases, self.ours.number if self.ours else 0, self.theirs.number]
        text = f"{self.theirs.dataset_id} {' '.join(map(str, versions))} {self.theirs.uuid}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def has_rows(self) -> bool:
        """Whether rows are in conflict."""
        return any(conflict.rows and conflict.kind in ROW_CONFLICTS for conflict in self.conflicts)

    @property
    def rows(self) -> tuple[int, int, int]:
        """The numbers of rows that are added, removed and changed in merged tables."""
        return (
            sum(c.rows_added for c in self.components),
            sum(c.rows_removed for c in self.components),
            sum(c.rows_changed for c in self.components),
        )
