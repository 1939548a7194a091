"""Runs on another branch than the tracked one: what Dagster believes of the tracked branch stays true."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from dataset_registry.dagster_io import DatasetRegistryResource
from dataset_registry.errors import InputError
from tests.dagster_io.conftest import BRANCH, World, data_version, refused, shown

COLORS = dg.StaticPartitionsDefinition(["red", "green", "blue"])
FRESH, STALE, MISSING = StaleStatus.FRESH, StaleStatus.STALE, StaleStatus.MISSING
CHANGED = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed()).since_last_handled()


class Pipeline:
    """source → middle → sink; the value and the code of each may change."""

    def __init__(self, world: World, **options: Any) -> None:
        self.world = world
        self.value = 1
        self.code = "1"
        self.options = options

    @property
    def assets(self) -> list[dg.AssetsDefinition]:
        options = {"code_version": self.code, **self.options}

        @dg.asset(**options)
        def source(context: dg.AssetExecutionContext):
            if not context.has_partition_key_range:
                return pa.table({"n": [self.value]})
            tables = {key: pa.table({"n": [self.value]}) for key in context.partition_keys}
            return tables if len(tables) > 1 else next(iter(tables.values()))

        def copied(value: Any) -> Any:
            return value if not isinstance(value, dict) or len(value) > 1 else next(iter(value.values()))

        @dg.asset(**options)
        def middle(source: dict[str, pa.Table] if self.options else pa.Table):  # type: ignore[valid-type]
            return copied(source)

        @dg.asset(automation_condition=CHANGED, **options)
        def sink(middle: dict[str, pa.Table] if self.options else pa.Table):  # type: ignore[valid-type]
            return copied(middle)

        return [source, middle, sink]

    def run(self, *select: str, **options: Any) -> dg.ExecuteInProcessResult:
        return self.world.materialize(self.assets, *select, **options)

    def statuses(self, partition: str | None = None) -> tuple[StaleStatus, ...]:
        return tuple(statuses(self.world.instance, self.assets, ("source", "middle", "sink"), partition))


def statuses(
    instance: dg.DagsterInstance,
    assets: Sequence[Any] | dg.Definitions,
    names: Sequence[str],
    partition: str | None = None,
) -> list[StaleStatus]:
    """Stale or not, as Dagster's own resolver sees it."""
    definitions = assets if isinstance(assets, dg.Definitions) else dg.Definitions(assets=assets)
    graph = definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return [resolver.get_status(dg.AssetKey(name), partition) for name in names]


@pytest.fixture
def pipeline(fresh: World) -> Pipeline:
    made = Pipeline(fresh)
    made.run()
    assert made.statuses() == (FRESH, FRESH, FRESH)
    return made


# --- stale and fresh -----------------------------------------------------------------------------------------------


def test_side_runs_leave_every_asset_of_the_tracked_branch_fresh(pipeline: Pipeline) -> None:
    for value, branch in enumerate(("exp1", "exp2", "exp1"), start=2):
        pipeline.value = value
        pipeline.run(branch=branch)
        assert pipeline.statuses() == (FRESH, FRESH, FRESH)
        pipeline.run("source", branch=branch)
        pipeline.run("sink", branch=branch)
        assert pipeline.statuses() == (FRESH, FRESH, FRESH)
    pipeline.value = 9
    pipeline.run("source")
    assert pipeline.statuses() == (FRESH, STALE, FRESH)
    pipeline.run()
    assert pipeline.statuses() == (FRESH, FRESH, FRESH)


def test_side_runs_leave_what_is_stale_stale(pipeline: Pipeline) -> None:
    pipeline.value = 2
    pipeline.run("source")
    assert pipeline.statuses() == (FRESH, STALE, FRESH)
    pipeline.run("middle", branch="exp")
    assert pipeline.statuses() == (FRESH, STALE, FRESH)
    pipeline.run(branch="exp")
    assert pipeline.statuses() == (FRESH, STALE, FRESH)
    pipeline.run("middle")
    assert pipeline.statuses() == (FRESH, FRESH, STALE)


def test_a_side_run_of_new_code_leaves_the_tracked_branch_stale(pipeline: Pipeline) -> None:
    pipeline.code = "2"
    assert pipeline.statuses()[1] is STALE
    pipeline.run(branch="exp")
    assert pipeline.statuses()[1:] == (STALE, STALE)
    pipeline.run()
    assert pipeline.statuses() == (FRESH, FRESH, FRESH)


def test_a_side_run_stamps_the_data_version_of_the_tracked_head(pipeline: Pipeline) -> None:
    pipeline.value = 2
    result = pipeline.run(branch="exp")
    for name in ("source", "middle", "sink"):
        assert data_version(result, name) == pipeline.world.version(f"{name}@main").digest
        assert pipeline.world.version(f"{name}@exp").digest != pipeline.world.version(f"{name}@main").digest
    pipeline.world.registry.dataset("source").commit({"data": pa.table({"n": [7]})})  # outside of Dagster
    result = pipeline.run("source", branch="exp")
    assert data_version(result, "source") == pipeline.world.version("source@main").digest
    assert pipeline.statuses() == (FRESH, STALE, FRESH), "the tracked branch moved"


def test_an_asset_that_the_tracked_branch_lacks_has_a_data_version_of_its_branch(fresh: World) -> None:
    pipeline = Pipeline(fresh)
    result = pipeline.run(branch="exp")
    assert data_version(result, "sink") == f"exp/{fresh.version('sink@exp').digest}"
    pipeline.run()
    assert pipeline.statuses() == (FRESH, FRESH, FRESH)
    assert data_version(pipeline.run("sink", branch="exp"), "sink") == fresh.version("sink@main").digest


def test_the_data_version_of_a_fast_forward_is_that_of_the_head(fresh: World) -> None:
    pipeline = Pipeline(fresh)
    pipeline.run("source", branch="exp")
    fresh.registry.dataset("source").create_branch("main", "exp")
    assert data_version(pipeline.run("source", branch="exp"), "source") == fresh.version("source@main").digest


@pytest.mark.parametrize("span", [None, ("red", "green")])
def test_side_runs_of_partitions_leave_their_status(fresh: World, span: tuple[str, str] | None) -> None:
    policy: Mapping[str, Any] = {"backfill_policy": dg.BackfillPolicy.single_run()} if span else {}
    pipeline = Pipeline(fresh, partitions_def=COLORS, **policy)
    if span:
        pipeline.run(span=("red", "blue"))
    else:
        for key in COLORS.get_partition_keys():
            pipeline.run(partition=key)
    pipeline.value = 2
    pipeline.run("middle", "sink", partition="red", branch="exp")
    pipeline.run(partition="green", branch="exp")
    if span:
        pipeline.run(span=("red", "blue"), branch="exp")
    for key in COLORS.get_partition_keys():
        assert pipeline.statuses(key) == (FRESH, FRESH, FRESH), key
    pipeline.run("source", partition="red")
    assert pipeline.statuses("red") == (FRESH, STALE, FRESH)
    pipeline.run("middle", partition="red", branch="exp")
    assert pipeline.statuses("red") == (FRESH, STALE, FRESH)
    assert pipeline.statuses("blue") == (FRESH, FRESH, FRESH)
    pipeline.run(partition="red")
    assert pipeline.statuses("red") == (FRESH, FRESH, FRESH)


# --- automation ----------------------------------------------------------------------------------------------------


def test_content_conditions_fire_for_the_tracked_branch_alone(pipeline: Pipeline) -> None:
    cursor: Any = None

    def fires() -> int:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(
            dg.Definitions(assets=pipeline.assets), pipeline.world.instance, cursor=cursor
        )
        cursor = result.cursor
        return result.total_requested

    fires()
    assert fires() == 0
    for value in (2, 3):
        pipeline.value = value
        pipeline.run("source", "middle", branch="exp")
        assert fires() == 0
    pipeline.value = 1
    pipeline.run("source", "middle")
    assert fires() == 0, "the same content"
    pipeline.value = 4
    pipeline.run("source", "middle")
    assert fires() == 1
    assert fires() == 0


# --- what is shown -------------------------------------------------------------------------------------------------


def test_materializations_of_side_runs_say_so_first(pipeline: Pipeline) -> None:
    facts = shown(pipeline.run(branch="exp"), "sink")
    assert next(iter(facts)) == "registry/side_run"
    assert facts["registry/side_run"] == "**on branch `exp`, not `main`**"
    assert facts["registry/tracked_version"] == 1
    assert "registry/side_run" not in shown(pipeline.run(), "sink")


# --- names of branches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "variables", "expected"),
    [
        ("pr-{env:PR_NUMBER}", {"PR_NUMBER": "12"}, "pr-12"),
        ("{git_branch}", {"GITHUB_HEAD_REF": "feature/Größe #3"}, "feature/Größe--3"),
        ("{git_branch}", {"DAGSTER_CLOUD_GIT_BRANCH": "one", "GITHUB_HEAD_REF": "two"}, "one"),
        ("try/{env:USER_NAME}-x", {"USER_NAME": "../a b/"}, "try/a-b-x"),
        ("plain", {}, "plain"),
    ],
)
def test_templates_name_a_branch_by_the_environment(
    template: str, variables: Mapping[str, str], expected: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DAGSTER_CLOUD_GIT_BRANCH", "GITHUB_HEAD_REF", "GITHUB_REF_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert DatasetRegistryResource(branch=template).tracked_branch == expected
    assert DatasetRegistryResource().branch_of({BRANCH: template}) == expected


def test_every_run_has_a_branch_of_its_own_and_a_re_execution_has_that_of_the_first(world: World) -> None:
    pipeline = Pipeline(world)
    pipeline.run()
    first = pipeline.run(branch="run/{run_id}")
    names = {branch.name for branch in world.registry.dataset("sink").branches()}
    assert names == {"main", f"run/{first.run_id}"}
    resource = DatasetRegistryResource(path=str(world.folder), branch="run/{run_id}")
    assert resource.tracked_branch == "main"
    assert resource.branch_of({}, "abc") == "run/abc"
    assert resource.branch_of({"dagster/root_run_id": "first"}, "second") == "run/first"
    assert resource.branch_of() == "main", "without a run, as when a value is loaded"


def test_several_assets_and_processes_of_a_run_share_its_branch(world: World) -> None:
    pipeline = Pipeline(world)
    result = pipeline.run(resource_branch="run/{run_id}")
    for name in ("source", "middle", "sink"):
        assert [b.name for b in world.registry.dataset(name).branches()] == [f"run/{result.run_id}"]
    assert world.version(f"sink@run/{result.run_id}").provenance.inputs[0].fallback is None


@pytest.mark.parametrize("template", ["run/{run}", "pr-{PR_NUMBER}", "{env:}", "{env:A B}", "{}"])
def test_an_unknown_placeholder_is_refused_when_definitions_load(template: str) -> None:
    with pytest.raises(InputError, match="unknown placeholder"):
        DatasetRegistryResource(branch=template)


def test_a_template_without_a_value_fails_the_run_and_names_the_variable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PR_NUMBER", raising=False)
    with refused(InputError, "PR_NUMBER is not set"):
        Pipeline(world).run(resource_branch="pr-{env:PR_NUMBER}")
    assert world.registry.datasets() == []


def test_a_branch_can_be_chosen_in_the_launchpad(world: World) -> None:
    pipeline = Pipeline(world)
    resources = world.resources()
    config: dict[str, Any] = {"resources": {"io_manager": {"config": {"branch": "chosen"}}}}
    defs = dg.Definitions(assets=pipeline.assets, resources=resources, jobs=[dg.define_asset_job("all")])
    result = defs.resolve_job_def("all").execute_in_process(run_config=config, instance=world.instance)
    assert [b.name for b in world.registry.dataset("sink").branches()] == ["chosen"]
    assert shown(result, "sink")["registry/side_run"] == "**on branch `chosen`, not `main`**"


# --- a tracked branch that is not main -----------------------------------------------------------------------------


def test_a_side_run_starts_from_the_tracked_branch_and_that_from_the_fallback(fresh: World) -> None:
    pipeline = Pipeline(fresh)
    pipeline.run()
    pipeline.value = 2
    pipeline.run("source", resource_branch="staging")
    pipeline.value = 3
    result = pipeline.run("middle", resource_branch="staging", branch="exp")
    assert fresh.version("middle@exp").to_arrow()["n"].to_pylist() == [2], "read from staging"
    assert fresh.version("middle@exp").provenance.inputs[0].fallback == "staging"
    assert shown(result, "middle")["registry/side_run"] == "**on branch `exp`, not `staging`**"
    pipeline.run("source", resource_branch="staging", branch="exp")
    assert fresh.version("source@exp").parents == (fresh.version("source@staging").number,)
