"""The automation condition on the content of inputs: ticks that request, and ticks that do not."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dataset_registry.dagster_io import inputs_changed
from tests.dagster_io.conftest import World

DAYS = dg.StaticPartitionsDefinition(["mon", "tue", "wed"])


class Ticks:
    """Evaluations of a code location, one after the other."""

    def __init__(self, world: World, assets: Callable[[], list[Any]], resources: Any = None) -> None:
        self.world = world
        self.assets = assets
        self.resources = resources
        self._cursor: Any = None

    def __call__(self) -> set[tuple[str, str | None]]:
        """What one more tick requests: assets and partitions."""
        definitions = dg.Definitions(assets=self.assets(), resources=self.resources)
        result = dg.evaluate_automation_conditions(definitions, self.world.instance, cursor=self._cursor)
        self._cursor = result.cursor
        found = set()
        for evaluated in result.results:
            subset = evaluated.true_subset
            keys = subset.expensively_compute_asset_partitions() if not subset.is_empty else ()
            found |= {(key.asset_key.to_user_string(), key.partition_key) for key in keys}
        return found


class Pipeline:
    """source → sink, which loads some columns of it."""

    def __init__(self, world: World, columns: list[str] | None = None) -> None:
        self.world = world
        self.columns = columns
        self.price, self.name = 1, "a"
        self.ticks = Ticks(world, lambda: self.assets)

    @property
    def assets(self) -> list[Any]:
        @dg.asset
        def source():
            return pa.table({"price": [self.price], "name": [self.name]})

        options = {"metadata": {"columns": self.columns}} if self.columns else {}

        @dg.asset(ins={"source": dg.AssetIn(**options)}, automation_condition=inputs_changed(self.world.resource))
        def sink(source: pa.Table):
            return source

        return [source, sink]

    def run(self, *select: str, **options: Any) -> None:
        self.world.materialize(self.assets, *select, **options)


SINK = {("sink", None)}


@pytest.fixture
def pipeline(fresh: World) -> Pipeline:
    made = Pipeline(fresh)
    made.run()
    return made


def test_a_change_requests_one_run_and_everything_else_none(pipeline: Pipeline) -> None:
    assert pipeline.ticks() == set()
    pipeline.run("source")  # the same content
    assert pipeline.ticks() == set()
    pipeline.price = 2
    pipeline.run("source", branch="exp")  # on another branch
    assert pipeline.ticks() == set()
    pipeline.run("source")
    assert pipeline.ticks() == SINK
    assert pipeline.ticks() == set()
    pipeline.run("sink")
    assert pipeline.ticks() == set()


def test_a_change_before_the_first_tick_is_seen(pipeline: Pipeline) -> None:
    pipeline.price = 2
    pipeline.run("source")
    assert pipeline.ticks() == SINK
    assert pipeline.ticks() == set()


def test_a_commit_outside_of_dagster_a_merge_and_a_moved_branch_are_changes(pipeline: Pipeline) -> None:
    assert pipeline.ticks() == set()
    dataset = pipeline.world.registry.dataset("source")
    dataset.commit({"data": pa.table({"price": [5], "name": ["a"]})})
    assert pipeline.ticks() == SINK
    dataset.create_branch("pr")
    dataset.commit({"data": pa.table({"price": [6], "name": ["a"]})}, branch="pr")
    assert pipeline.ticks() == set()
    dataset.merge("pr")
    assert pipeline.ticks() == SINK
    dataset.move_branch("main", "v1")
    assert pipeline.ticks() == SINK
    assert pipeline.ticks() == set()


def test_an_asset_that_was_never_computed_is_requested_when_its_inputs_are_there(fresh: World) -> None:
    pipeline = Pipeline(fresh)
    assert pipeline.ticks() == set()
    pipeline.run("source")
    assert pipeline.ticks() == SINK
    assert pipeline.ticks() == set()


def test_a_changed_column_that_is_not_loaded_wakes_nothing(fresh: World) -> None:
    pipeline = Pipeline(fresh, columns=["price"])
    pipeline.run()
    assert pipeline.ticks() == set()
    for name in ("b", "c"):
        pipeline.name = name
        pipeline.run("source")
        assert pipeline.ticks() == set()
    pipeline.price = 7
    pipeline.run("source")
    assert pipeline.ticks() == SINK
    pipeline.run("sink")
    pipeline.name = "d"
    pipeline.run("source")
    again = Ticks(fresh, lambda: pipeline.assets)  # another daemon, without a cursor
    assert pipeline.ticks() == again() == set()


def test_partitions_are_requested_whose_own_input_changed(fresh: World) -> None:
    values = {"mon": 1, "tue": 1, "wed": 1}

    def assets() -> list[Any]:
        @dg.asset(partitions_def=DAYS)
        def source(context: dg.AssetExecutionContext):
            return pa.table({"n": [values[context.partition_key]]})

        @dg.asset(partitions_def=DAYS, automation_condition=inputs_changed(fresh.resource))
        def sink(source: pa.Table):
            return source

        some = dg.AssetIn(metadata={"allow_missing_partitions": True})

        @dg.asset(ins={"source": some}, automation_condition=inputs_changed(fresh.resource))
        def total(source: dict[str, pa.Table]):
            return pa.concat_tables(source.values())

        return [source, sink, total]

    for day in ("mon", "tue"):
        fresh.materialize(assets(), "source", "sink", partition=day)
    fresh.materialize(assets(), "total")
    ticks = Ticks(fresh, assets)
    assert ticks() == set()
    values["tue"] = 2
    fresh.materialize(assets(), "source", partition="tue")
    assert ticks() == {("sink", "tue"), ("total", None)}
    assert ticks() == set()
    fresh.materialize(assets(), "source", partition="wed")
    assert ticks() == {("sink", "wed"), ("total", None)}


def test_an_input_at_a_ref_is_followed_at_that_ref(fresh: World) -> None:
    def assets() -> list[Any]:
        @dg.asset
        def source():
            return pa.table({"n": [1]})

        pinned = dg.AssetIn(metadata={"registry/ref": "released"})

        @dg.asset(ins={"source": pinned}, automation_condition=inputs_changed(fresh.resource))
        def sink(source: pa.Table):
            return source

        return [source, sink]

    fresh.materialize(assets(), "source")
    dataset = fresh.registry.dataset("source")
    dataset.create_branch("released")
    fresh.materialize(assets(), "sink")
    ticks = Ticks(fresh, assets)
    assert ticks() == set()
    dataset.commit({"data": pa.table({"n": [2]})})
    assert ticks() == set()
    dataset.move_branch("released", "main")
    assert ticks() == {("sink", None)}
