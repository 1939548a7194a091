"""Publishing what a run wrote to its branch: all of it when it succeeded and its checks are green, else nothing."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dataset_registry.dagster_io import (
    build_publish_job,
    build_publish_sensor,
    publish_run,
    report_moves,
    settle_run,
)
from dataset_registry.errors import ConflictError, MergeConflict, NotFound, Tainted
from tests.dagster_io.conftest import BRANCH, World, data_version, materialized
from tests.dagster_io.test_side_runs import FRESH, STALE, statuses

NAMES = ("a", "b", "c", "d", "e")


class Chain:
    """Five assets, each built from the one before, with a check of the last one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.value = 1
        self.passes = True
        self.blocking = True
        self.breaks: str | None = None

    @property
    def assets(self) -> list[Any]:
        def made(name: str, source: str | None) -> dg.AssetsDefinition:
            ins = {"source": dg.AssetIn(source)} if source else {}

            def body(**given: Any) -> pa.Table:
                if self.breaks == name:
                    raise RuntimeError(f"{name} breaks")
                return given["source"] if given else pa.table({"n": [self.value]})

            if source:
                body.__annotations__ = {"source": pa.Table}
                return dg.asset(name=name, ins=ins)(_with_source(body))
            return dg.asset(name=name)(_without_source(body))

        return [made(name, source) for name, source in zip(NAMES, (None, *NAMES), strict=False)]

    @property
    def checks(self) -> list[Any]:
        @dg.asset_check(asset="e", blocking=self.blocking)
        def positive(e: pa.Table) -> dg.AssetCheckResult:
            return dg.AssetCheckResult(
                passed=self.passes, description="looked at it", metadata={"expected": 1, "got": self.value}
            )

        return [positive]

    def run(self, *select: str, branch: str | None = "run/{run_id}", checked: bool = True) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [*self.assets, *(self.checks if checked else [])],
            selection=list(select) or None,
            instance=self.world.instance,
            tags={BRANCH: branch} if branch else {},
            resources=self.world.resources(),
            raise_on_error=False,
        )

    def publish(self, run_id: str, **options: Any) -> Any:
        return publish_run(run_id, instance=self.world.instance, registry=self.world.resource, **options)

    def heads(self) -> list[int]:
        return [self.world.version(name).number for name in NAMES]

    def statuses(self) -> list[Any]:
        return statuses(self.world.instance, self.assets, NAMES)


def _with_source(body: Any) -> Any:
    def wrapped(source: pa.Table) -> pa.Table:
        result: pa.Table = body(source=source)
        return result

    return wrapped


def _without_source(body: Any) -> Any:
    def wrapped() -> pa.Table:
        result: pa.Table = body()
        return result

    return wrapped


@pytest.fixture
def chain(fresh: World) -> Chain:
    made = Chain(fresh)
    assert made.run(branch=None).success
    return made


def test_a_green_run_is_published_whole_and_dagster_knows(chain: Chain) -> None:
    chain.value = 2
    result = chain.run()
    assert chain.heads() == [1] * 5
    assert chain.statuses() == [FRESH] * 5
    done = chain.publish(result.run_id)
    assert [head.dataset for head in done.heads] == list(NAMES)
    assert chain.heads() == [2] * 5
    assert [key.to_user_string() for key in done.reported] == list(NAMES)
    assert chain.statuses() == [FRESH] * 5
    for name in NAMES:
        event = chain.world.instance.get_latest_materialization_event(dg.AssetKey(name))
        assert event is not None
        assert (event.tags or {})["dagster/data_version"] == chain.world.version(name).digest
    (check,) = chain.world.version("e").checks
    assert (check.name, check.passed, check.is_blocking, check.run_id) == ("positive", True, True, result.run_id)
    assert (check.metadata, check.description) == ({"expected": 1, "got": 2}, "looked at it")


def test_what_is_reported_has_the_metadata_of_the_run_and_the_results_of_its_checks(chain: Chain) -> None:
    chain.value = 2
    result = chain.run()
    chain.publish(result.run_id)
    instance = chain.world.instance
    event = instance.get_latest_materialization_event(dg.AssetKey("e"))
    assert event is not None
    assert event.asset_materialization is not None
    facts = {key: value.value for key, value in event.asset_materialization.metadata.items()}
    assert (facts["dagster/row_count"], facts["registry/branch"], facts["registry/version_number"]) == (1, "main", 2)
    assert str(facts["registry/version"]).startswith("**v2** · `")
    assert {"dagster/column_schema", "registry/inputs", "dagster/table_name"} <= set(facts)
    assert not {"registry/side_run", "registry/tracked_version"} & set(facts)

    def evaluations() -> list[Any]:
        key = dg.AssetCheckKey(dg.AssetKey("e"), "positive")
        return list(instance.event_log_storage.get_asset_check_execution_history(key, limit=10))

    newest = evaluations()[0].evaluation
    latest = instance.get_latest_data_version_record(dg.AssetKey("e"))
    assert newest is not None
    assert latest is not None
    assert newest.target_materialization_data is not None
    assert newest.target_materialization_data.storage_id == latest.storage_id
    assert (newest.passed, newest.blocking, newest.description) == (True, True, "looked at it")
    count = len(evaluations())
    chain.publish(result.run_id)
    assert len(evaluations()) == count


def test_to_publish_again_changes_nothing_and_reports_nothing(chain: Chain) -> None:
    chain.value = 2
    result = chain.run()
    chain.publish(result.run_id)
    again = chain.publish(result.run_id)
    assert (again.heads, again.reported) == ([], [])
    assert len(chain.world.version("e").checks) == 1


def test_a_publication_that_was_interrupted_before_its_report_is_finished(chain: Chain) -> None:
    chain.value = 2
    result = chain.run()
    chain.world.registry.publish(f"run/{result.run_id}")
    assert chain.statuses() == [FRESH] * 5, "Dagster does not know yet"
    done = chain.publish(result.run_id)
    assert done.heads == []
    assert len(done.reported) == 5
    chain.value = 3
    chain.run("a", branch=None)
    assert chain.statuses() == [FRESH, STALE, FRESH, FRESH, FRESH]


@pytest.mark.parametrize("blocking", [True, False])
def test_a_red_check_keeps_everything_back_if_it_blocks(chain: Chain, blocking: bool) -> None:
    chain.value, chain.passes, chain.blocking = 2, False, blocking
    result = chain.run()
    assert result.success is not blocking
    if not blocking:
        assert len(chain.publish(result.run_id).heads) == 5
        return
    with pytest.raises(Tainted, match="did not succeed"):
        chain.publish(result.run_id)
    assert chain.heads() == [1] * 5
    version = chain.world.version(f"e@run/{result.run_id}")
    reasons = {taint.reason for taint in version.taints}
    assert reasons == {f"the run {result.run_id} failed", f"the check positive failed on v{version.number}"}
    with pytest.raises(Tainted):
        chain.world.registry.publish(f"run/{result.run_id}")


def test_a_failed_run_publishes_nothing_of_what_it_wrote(chain: Chain) -> None:
    chain.value, chain.breaks = 2, "c"
    result = chain.run()
    assert not result.success
    with pytest.raises(Tainted, match=r"did not succeed.*\(a, b\)"):
        chain.publish(result.run_id)
    assert chain.heads() == [1] * 5
    assert chain.world.version(f"a@run/{result.run_id}").taints
    assert chain.statuses() == [FRESH] * 5


def test_a_re_execution_that_succeeds_publishes_what_both_wrote(chain: Chain) -> None:
    chain.value, chain.breaks = 2, "c"
    first = chain.run()
    settle_run(first.run_id, instance=chain.world.instance, registry=chain.world.resource)
    chain.breaks = None
    again = dg.materialize(
        [*chain.assets, *chain.checks],
        selection=["c", "d", "e"],
        instance=chain.world.instance,
        tags={BRANCH: "run/{run_id}", "dagster/root_run_id": first.run_id, "dagster/parent_run_id": first.run_id},
        resources=chain.world.resources(),
    )
    done = chain.publish(again.run_id)
    assert {head.dataset for head in done.heads} == set(NAMES)
    assert chain.heads() == [2] * 5


def test_a_target_that_moved_under_an_input_is_refused_by_name(chain: Chain) -> None:
    result = chain.run("a", "b", checked=False)
    chain.value = 3
    chain.run("a", branch=None, checked=False)
    chain.value = 4
    other = chain.run("b", checked=False, branch="exp")
    chain.run("a", branch=None, checked=False)
    with pytest.raises(ConflictError, match=r"b@v\d was built from a@v2, which is at v3 now"):
        chain.publish(other.run_id)
    assert result.success


def test_a_run_on_the_tracked_branch_has_nothing_to_publish_but_its_checks_are_recorded(chain: Chain) -> None:
    chain.value = 2
    result = chain.run(branch=None)
    done = chain.publish(result.run_id)
    assert (done.heads, done.reported) == ([], [])
    assert [check.name for check in chain.world.version("e").checks] == ["positive"]


def test_a_check_that_runs_alone_is_recorded_on_the_version_that_it_read(chain: Chain) -> None:
    chain.value = 2
    chain.run(checked=False, branch="exp")
    chain.value, chain.passes = 3, False
    job = dg.Definitions(
        assets=chain.assets,
        asset_checks=chain.checks,
        resources=chain.world.resources(),
        jobs=[dg.define_asset_job("check", selection=dg.AssetSelection.all_asset_checks())],
    ).resolve_job_def("check")
    result = job.execute_in_process(instance=chain.world.instance, tags={BRANCH: "exp"}, raise_on_error=False)
    settled = settle_run(result.run_id, instance=chain.world.instance, registry=chain.world.resource)
    (check,) = settled.checks
    assert check.version == chain.world.version("e@exp").number == 2
    assert [c.name for c in chain.world.version("e@exp").checks] == ["positive"]
    assert chain.world.version("e@main").checks == []


def test_an_unknown_or_unfinished_run_is_refused(chain: Chain) -> None:
    with pytest.raises(NotFound, match="no run 'nothing'"):
        chain.publish("nothing")
    run = chain.world.instance.create_run_for_job(dg.job(name="later")(lambda: None))
    with pytest.raises(ConflictError, match="not finished"):
        chain.publish(run.run_id)


def test_partitions_are_published_and_only_those_that_changed_are_reported(fresh: World) -> None:
    colors = dg.StaticPartitionsDefinition(["red", "green"])
    values = iter(range(1, 10))

    @dg.asset(partitions_def=colors)
    def source():
        return pa.table({"n": [next(values)]})

    for key in ("red", "green"):
        fresh.materialize([source], partition=key)
    result = fresh.materialize([source], partition="green", branch="exp")
    assert data_version(result, "source") != fresh.version("source@exp").digest
    done = publish_run(result.run_id, instance=fresh.instance, registry=fresh.resource)
    assert len(done.reported) == 1
    reported = [
        record.asset_materialization.partition
        for record in fresh.instance.fetch_materializations(dg.AssetKey("source"), limit=10).records
        if record.asset_materialization and record.run_id == ""
    ]
    assert reported == ["green"]


def test_two_pull_requests_are_merged_one_after_the_other_with_a_conflict_between_them(fresh: World) -> None:
    def orders(**columns: Any) -> dg.AssetsDefinition:
        @dg.asset(metadata={"registry/key": "id"})
        def orders() -> pa.Table:
            return pa.table({"id": [1, 2], "n": [1, 2], **columns})

        return orders

    fresh.materialize([orders()])
    one = fresh.materialize([orders(size=[10, 20])], branch="pr-1")
    two = fresh.materialize([orders(size=["S", "M"])], branch="pr-2")
    publish_run(one.run_id, instance=fresh.instance, registry=fresh.resource)
    with pytest.raises(MergeConflict, match=r"orders: data.size: column type \(both added it"):
        publish_run(two.run_id, instance=fresh.instance, registry=fresh.resource)
    assert fresh.version("orders").number == 2
    assert fresh.registry.plan_publish("pr-2").conflicts[0].conflicts[0].column == "size"
    fresh.registry.publish("pr-2", strategy="theirs")
    assert [key.to_user_string() for key in report_moves(["orders"], instance=fresh.instance, registry=fresh.resource)]
    assert fresh.version("orders").to_arrow()["size"].to_pylist() == ["S", "M"]
    assert fresh.version("orders").parents == (2, 3)


# --- the job and the sensor ----------------------------------------------------------------------------------------


def _ticks(world: World, sensor: dg.SensorDefinition) -> Iterator[list[dg.RunRequest]]:
    cursor = None
    while True:
        with dg.build_sensor_context(
            instance=world.instance, cursor=cursor, resources={"registry": world.resource}
        ) as context:
            data = sensor.evaluate_tick(context)
        cursor = data.cursor
        yield list(data.run_requests or [])


def test_the_sensor_requests_each_green_run_once_and_the_job_publishes_it(chain: Chain) -> None:
    job = build_publish_job()
    sensor = build_publish_sensor(job=job)
    ticks = _ticks(chain.world, sensor)
    assert next(ticks) == [], "runs that ended before are not published"
    chain.value = 2
    green = chain.run()
    chain.value = 3
    other = chain.run(branch="exp")
    chain.passes = False
    red = chain.run()
    (request,) = next(ticks)
    assert request.run_key == f"registry_publish_sensor:{green.run_id}"
    assert next(ticks) == []
    assert chain.world.version(f"e@run/{red.run_id}").taints, "failed runs are settled, too"
    result = job.execute_in_process(
        run_config=request.run_config,
        instance=chain.world.instance,
        resources={"registry": chain.world.resource},
    )
    assert result.success
    assert chain.heads() == [2] * 5
    assert chain.world.version("e").to_arrow()["n"].to_pylist() == [2]
    assert other.success
    assert next(ticks) == [], "the run of the job itself wrote nothing"


def test_the_job_fails_for_a_run_that_may_not_be_published(chain: Chain) -> None:
    chain.value, chain.passes = 2, False
    red = chain.run()
    with pytest.raises(Tainted):
        build_publish_job().execute_in_process(
            run_config={"ops": {"registry_publish_op": {"config": {"run_id": red.run_id}}}},
            instance=chain.world.instance,
            resources={"registry": chain.world.resource},
        )
    assert chain.heads() == [1] * 5


def test_what_moved_outside_of_dagster_is_reported_once(chain: Chain) -> None:
    dataset = chain.world.registry.dataset("a")
    dataset.commit({"data": pa.table({"n": [8]})})
    report = lambda: report_moves(["a"], instance=chain.world.instance, registry=chain.world.resource)  # noqa: E731
    assert report() == [], "no asset made it: it is not known which one it is"
    chain.value = 9
    side = chain.run("a", branch="exp", checked=False)
    dataset.merge("exp", strategy="theirs")
    assert [key.to_user_string() for key in report()] == ["a"]
    assert report() == []
    assert chain.statuses() == [FRESH, STALE, FRESH, FRESH, FRESH]
    assert materialized(side, "a")
