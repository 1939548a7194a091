"""Row summaries, merges and their conflicts."""

from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from dataset_registry.model.diff import RowSummary
from dataset_registry.model.merge import Conflict
from dataset_registry.model.merge_plans import (
    Action,
    Impact,
    MergedComponent,
    MergeKind,
    MergeOptions,
    MergePlan,
    Outcome,
)
from dataset_registry.model.publishing import (
    Consistency,
    MovedInput,
    PublishPlan,
    RevertPlan,
    Run,
    RunVersion,
    Torn,
)
from dataset_registry.model.records import Head
from dataset_registry.model.strategies import Strategy
from dataset_registry.wire.base import Mapped, Name, RequestModel, ResponseModel, Text, Word
from dataset_registry.wire.datasets import VersionResponse


class RowSummaryResponse(Mapped[RowSummary]):
    """The rows that differ between two versions of a table; `cells` counts the different values by column."""

    added: int
    removed: int
    changed: int
    unchanged: int
    cells: dict[str, int]
    key: list[str]


class RowSummariesResponse(ResponseModel):
    """The rows that differ, by the label of their table."""

    tables: dict[str, RowSummaryResponse]


class StrategyRequest(Mapped[Strategy]):
    """How conflicts are resolved: those of a component (a pattern), a column, a kind; without one, all of them."""

    model_config = RequestModel.model_config

    take: Literal["fail", "ours", "theirs", "union", "newest"]
    component: Name | None = None
    column: Text | None = None
    kind: Word | None = None


class MergeRequest(RequestModel):
    """A merge of a ref into a branch; with `how`, the changes of one version, or those changes undone.

    `strategies` resolve conflicts; the last one that applies wins. `resolutions` are rows by the label of their component: the
    columns of the key, and `take` (`ours`, `theirs`, `base`, `drop`) or columns with the values to take. They resolve the
    conflicts of the plan with the id `plan`; if the branch moved since, those whose values `base_…`, `ours_…` and `theirs_…` are
    unchanged.
    """

    ref: Name
    branch: Name = "main"
    how: MergeKind = "merge"
    strategies: list[StrategyRequest] = Field(default_factory=list, max_length=1000)
    resolutions: dict[str, list[dict[str, Any]]] = Field(default_factory=dict, max_length=1000)
    plan: Word | None = None
    fast_forward: bool = True
    message: Text | None = None


class ConflictRowsRequest(MergeRequest):
    """A merge, and the component whose rows in conflict are wanted."""

    component: Name = "data"


class MergedComponentResponse(Mapped[MergedComponent]):
    """A component that a merge changes: `added`, `replaced` or `removed` as a whole, or `merged` by rows."""

    attributes: ClassVar = {"component_name": "name", "component_index": "index"}

    component_name: str
    component_index: int
    action: Action
    rows_added: int
    rows_removed: int
    rows_changed: int
    dropped: list[str] = Field(default_factory=list)
    retyped: list[str] = Field(default_factory=list)


class ImpactResponse(Mapped[Impact]):
    """A head of the branch that may read columns that a merge drops or retypes, or a component that it removes."""

    dataset: str
    version: int
    component: str
    columns: list[str]


class ConflictResponse(Mapped[Conflict]):
    """A conflict of a component, of a column, or of `rows` of a table."""

    attributes: ClassVar = {"component_name": "component", "component_index": "index"}

    kind: str
    component_name: str
    component_index: int
    column: str | None
    rows: int
    base: str | None
    ours: str | None
    theirs: str | None
    reason: str


class MergePlanResponse(ResponseModel):
    """The plan of a merge. `plan` is its id; `ours` is the number of the branch's head, null for a new branch."""

    plan: str
    dataset: str
    branch: str
    ours: int | None
    ours_version_id: int | None
    theirs: VersionResponse
    theirs_uuid: UUID | None
    bases: list[int]
    outcome: Outcome
    components: list[MergedComponentResponse]
    conflicts: list[ConflictResponse]
    impact: list[ImpactResponse] = Field(default_factory=list)

    @classmethod
    def of(cls, plan: MergePlan) -> "MergePlanResponse":
        """The JSON object of a plan."""
        return cls(
            plan=plan.id,
            dataset=plan.dataset,
            branch=plan.branch,
            ours=plan.ours.number if plan.ours else None,
            ours_version_id=plan.ours.id if plan.ours else None,
            theirs=VersionResponse.of(plan.theirs),
            theirs_uuid=plan.theirs.uuid,
            bases=list(plan.bases),
            outcome=plan.outcome,
            components=[MergedComponentResponse.of(component) for component in plan.components],
            conflicts=[ConflictResponse.of(conflict) for conflict in plan.conflicts],
            impact=[ImpactResponse.of(impact) for impact in plan.impact],
        )

    def value(self) -> MergePlan:
        """The plan."""
        ours = None
        if self.ours is not None and self.ours_version_id is not None:
            ours = Head(self.ours_version_id, self.ours, 0, None)
        return MergePlan(
            self.dataset,
            self.branch,
            ours,
            self.theirs.value(),
            tuple(self.bases),
            self.outcome,
            tuple(component.value() for component in self.components),
            tuple(conflict.value() for conflict in self.conflicts),
            tuple(impact.value() for impact in self.impact),
        )


class MergeResponse(ResponseModel):
    """A merge, and the new head of the branch."""

    merge: MergePlanResponse
    version: VersionResponse


def options_of(request: MergeRequest, tables: dict[str, Any]) -> MergeOptions:
    """The options of a request, with its resolutions as tables."""
    return MergeOptions(strategies_of(request.strategies), tables, request.plan, request.fast_forward, request.message)


# --- many datasets -----------------------------------------------------------------------------------------------------


class PublishRequest(RequestModel):
    """A publication of a branch: of all datasets that have it, or of those that match one of the patterns `datasets`."""

    branch: Name
    into: Name = "main"
    datasets: list[Name] | None = Field(default=None, max_length=10_000)
    strategies: list[StrategyRequest] = Field(default_factory=list, max_length=1000)
    allow_moved_inputs: bool = False
    message: Text | None = None


class MovedInputResponse(Mapped[MovedInput]):
    """A version that was built from a version `read`, where the target is at another one: `head`, or null if merged."""

    dataset: str
    version: int
    input: str
    read: int
    head: int | None


class PublishPlanResponse(ResponseModel):
    """The plan of a publication: a merge for each dataset, and the inputs under which the target moved."""

    branch: str
    into: str
    merges: list[MergePlanResponse]
    moved: list[MovedInputResponse]

    @classmethod
    def of(cls, plan: PublishPlan) -> "PublishPlanResponse":
        """The JSON object of a plan."""
        return cls(
            branch=plan.branch,
            into=plan.into,
            merges=[MergePlanResponse.of(merge) for merge in plan.merges],
            moved=[MovedInputResponse.of(moved) for moved in plan.moved],
        )

    def value(self) -> PublishPlan:
        """The plan."""
        return PublishPlan(
            self.branch,
            self.into,
            tuple(merge.value() for merge in self.merges),
            tuple(moved.value() for moved in self.moved),
        )


class HeadsResponse(ResponseModel):
    """The new heads of the branches, in the order of the merges."""

    versions: list[VersionResponse]


class RunVersionResponse(Mapped[RunVersion]):
    dataset: str
    version: int
    branch: str | None
    unchanged: bool


class RunResponse(Mapped[Run]):
    """A run: the versions that it wrote, and those that it read."""

    attributes: ClassVar = {"run_id": "id"}

    run_id: str
    wrote: list[RunVersionResponse]
    read: list[RunVersionResponse]


class RevertRunRequest(RequestModel):
    """A run to take out of a branch; with `force`, although versions there were built from its versions."""

    run_id: Word
    branch: Name = "main"
    strategies: list[StrategyRequest] = Field(default_factory=list, max_length=1000)
    force: bool = False
    message: Text | None = None


class BuiltOnResponse(ResponseModel):
    dataset: str
    version: int


class RevertPlanResponse(ResponseModel):
    """The plan of taking a run out of a branch, and the versions there that were built from its versions."""

    run_id: str
    branch: str
    merges: list[MergePlanResponse]
    built_on: list[BuiltOnResponse]

    @classmethod
    def of(cls, plan: RevertPlan) -> "RevertPlanResponse":
        """The JSON object of a plan."""
        return cls(
            run_id=plan.run,
            branch=plan.branch,
            merges=[MergePlanResponse.of(merge) for merge in plan.merges],
            built_on=[BuiltOnResponse(dataset=name, version=number) for name, number in plan.built_on],
        )

    def value(self) -> RevertPlan:
        """The plan."""
        built_on = tuple((found.dataset, found.version) for found in self.built_on)
        return RevertPlan(self.run_id, self.branch, tuple(merge.value() for merge in self.merges), built_on)


class TornResponse(Mapped[Torn]):
    dataset: str
    version: int
    input: str
    read: int
    reason: str


class ConsistencyResponse(Mapped[Consistency]):
    """Whether the heads of a branch belong together: `torn` has the ones that no sequence of runs could have made."""

    branch: str
    torn: list[TornResponse]


def strategies_of(requests: list[StrategyRequest]) -> tuple[Strategy, ...]:
    """The strategies of a request."""
    return tuple(strategy.value() for strategy in requests)
