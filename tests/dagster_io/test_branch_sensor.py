"""The sensor that follows the tracked branch: what moves outside of Dagster is reported, once."""

import json
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dataset_registry.dagster_io import build_branch_sensor
from tests.dagster_io.conftest import World
from tests.dagster_io.test_side_runs import FRESH, STALE, statuses

COLORS = dg.StaticPartitionsDefinition(["red", "green"])


@dg.asset
def source() -> pa.Table:
    return pa.table({"n": [1]})


@dg.asset
def sink(source: pa.Table) -> pa.Table:
    return source


@dg.asset(metadata={"registry/dataset": "elsewhere/named"})
def named() -> pa.Table:
    return pa.table({"n": [1]})


@dg.asset(partitions_def=COLORS)
def colored(context: dg.AssetExecutionContext) -> pa.Table:
    return pa.table({"key": [context.partition_key]})


ASSETS = [source, sink, named, colored]


class Follower:
    """A sensor with its cursor; what it reports is stored, as the daemon does."""

    def __init__(self, world: World, **options: Any) -> None:
        self.world = world
        self.sensor = build_branch_sensor(**options)
        self.cursor: str | None = None
        self.requests: list[str | None] = []

    def tick(self, *, stored: bool = True) -> list[tuple[str, str | None]]:
        """The assets and partitions that a tick reports. With `stored=False` the daemon dies before it stores anything."""
        defs = dg.Definitions(assets=ASSETS, sensors=[self.sensor])
        with dg.build_sensor_context(
            instance=self.world.instance,
            cursor=self.cursor,
            definitions=defs,
            resources={"registry": self.world.resource},
        ) as context:
            data = self.sensor.evaluate_tick(context)
        if stored:
            self.cursor = data.cursor
            for event in data.asset_events:
                self.world.instance.report_runless_asset_event(event)
            self.requests += [request.run_key for request in data.run_requests or []]
        return sorted((e.asset_key.to_user_string(), e.partition) for e in data.asset_events)  # type: ignore[union-attr]


@pytest.fixture
def follower(fresh: World) -> Follower:
    fresh.materialize([source, sink, named])
    for key in COLORS.get_partition_keys():
        fresh.materialize([colored], partition=key)
    made = Follower(fresh)
    assert made.tick() == [], "Dagster knows all of it"
    return made


def put(world: World, name: str, value: int, component: str = "data", branch: str = "main") -> None:
    with world.registry.draft(name, branch) as draft:
        draft.add(component, pa.table({"n": [value]}))


def test_a_commit_from_outside_is_reported_once_and_makes_downstream_stale(follower: Follower) -> None:
    put(follower.world, "source", 2)
    put(follower.world, "elsewhere/named", 2)
    assert follower.tick() == [("named", None), ("source", None)]
    assert follower.tick() == []
    assert statuses(follower.world.instance, ASSETS, ["source", "sink"]) == [FRESH, STALE]
    event = follower.world.instance.get_latest_materialization_event(dg.AssetKey("source"))
    assert event is not None
    assert (event.tags or {})["dagster/data_version"] == follower.world.version("source").digest


def test_runs_of_dagster_and_other_branches_are_not_reported(follower: Follower) -> None:
    follower.world.materialize([source, sink])
    put(follower.world, "source", 5, branch="main")
    assert len(follower.tick()) == 1
    follower.world.registry.dataset("source").create_branch("dev")
    put(follower.world, "source", 6, branch="dev")
    put(follower.world, "unknown/dataset", 1)
    follower.world.materialize([source, sink], branch="exp")
    assert follower.tick() == []


def test_only_the_partition_that_changed_is_reported(follower: Follower) -> None:
    put(follower.world, "colored", 7, "green")
    assert follower.tick() == [("colored", "green")]
    assert follower.tick() == []


def test_a_daemon_that_dies_in_a_tick_loses_nothing_and_repeats_nothing(follower: Follower) -> None:
    counts: dict[str, int] = {}
    for value in range(10, 30):
        name = "source" if value % 2 else "elsewhere/named"
        put(follower.world, name, value)
        if value % 3 == 0:
            follower.tick(stored=False)
        for key, _ in follower.tick():
            counts[key] = counts.get(key, 0) + 1
    assert counts == {"source": 10, "named": 10}


def test_a_cursor_that_was_reset_reports_nothing_that_is_known(follower: Follower) -> None:
    put(follower.world, "source", 2)
    follower.tick()
    follower.cursor = None
    assert follower.tick() == []


def test_a_job_is_requested_for_each_change(fresh: World) -> None:
    fresh.materialize([source, sink, named])
    follower = Follower(fresh, job=dg.define_asset_job("all", selection="*"), datasets="s*")
    follower.tick()
    put(fresh, "source", 2)
    put(fresh, "elsewhere/named", 2)
    assert follower.tick() == [("source", None)]
    assert follower.requests == ["registry_branch_sensor:source@v2"]
    assert json.loads(follower.cursor or "")["source"] == 2
