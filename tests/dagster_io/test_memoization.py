"""Memoized assets: the same code, inputs and configuration are computed once."""

import logging
from collections.abc import Callable
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

from dataset_registry.dagster_io import DatasetRegistryResource, describe_assets
from dataset_registry.errors import InputError
from tests.dagster_io.conftest import World, data_version, shown

MEMO = {"registry/memoize": True}
DAYS = dg.DailyPartitionsDefinition("2026-01-01")


class Limits(dg.Config):
    most: int = 10


class Pipeline:
    """source → sink; the value of the one, code and configuration of the other may change. `ran` counts runs of sink's body."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.value = 1
        self.code = "1"
        self.ran = 0

    @property
    def assets(self) -> list[Any]:
        @dg.asset
        def source():
            return pa.table({"n": [self.value, 20]})

        @dg.asset(code_version=self.code, metadata=MEMO)
        def sink(config: Limits, source: pl.DataFrame) -> pl.DataFrame:
            self.ran += 1
            return source.filter(pl.col("n") <= config.most)

        return describe_assets([source, sink], registry=self.world.resource)

    def run(self, *select: str, most: int = 10, **options: Any) -> dg.ExecuteInProcessResult:
        config = {"ops": {"sink": {"config": {"most": most}}}} if not select or "sink" in select else {}
        return dg.materialize(
            self.assets,
            selection=list(select) or None,
            instance=self.world.instance,
            resources=self.world.resources(),
            run_config=config,
            tags=options,
        )


@pytest.fixture
def pipeline(fresh: World) -> Pipeline:
    made = Pipeline(fresh)
    made.first = made.run()  # type: ignore[attr-defined]
    assert made.ran == 1
    return made


def test_a_body_with_the_same_code_inputs_and_configuration_does_not_run_again(pipeline: Pipeline) -> None:
    again = pipeline.run()
    assert pipeline.ran == 1
    facts = shown(again, "sink")
    first = pipeline.first.run_id  # type: ignore[attr-defined]
    assert facts["registry/reused"] == f"**v1** of run `{first}`: same code, inputs and configuration"
    assert data_version(again, "sink") == data_version(pipeline.first, "sink")  # type: ignore[attr-defined]
    # The reuse is recorded: a later run finds either production.
    version = pipeline.world.version("sink")
    assert [production.provenance.run_id for production in version.productions] == [first, again.run_id]
    assert len({production.provenance.memo_digest for production in version.productions}) == 1


@pytest.mark.parametrize("change", ["value", "code", "most"])
def test_another_input_code_or_configuration_is_computed(pipeline: Pipeline, change: str) -> None:
    if change == "most":
        pipeline.run(most=0)
    else:
        setattr(pipeline, change, "2" if change == "code" else 2)
        pipeline.run()
    assert pipeline.ran == 2


def test_what_was_computed_before_the_last_version_is_found_and_becomes_the_head(pipeline: Pipeline) -> None:
    pipeline.value = 2
    pipeline.run()
    assert pipeline.world.version("sink").to_arrow()["n"].to_pylist() == [2]
    pipeline.value = 1
    result = pipeline.run()
    assert pipeline.ran == 2
    version = pipeline.world.version("sink")
    assert (version.number, version.to_arrow()["n"].to_pylist()) == (3, [1])
    assert shown(result, "sink")["registry/new_bytes"] == 0
    assert version.parents == (2,)


def test_a_run_on_another_branch_takes_what_the_tracked_branch_has(pipeline: Pipeline) -> None:
    pipeline.run(**{"registry/branch": "exp"})
    assert pipeline.ran == 1
    assert pipeline.world.version("sink@exp").digest == pipeline.world.version("sink@main").digest
    pipeline.value = 5
    pipeline.run("source", **{"registry/branch": "exp"})
    pipeline.run("sink")  # on main, whose source is as it was
    assert pipeline.ran == 1
    pipeline.run("sink", **{"registry/branch": "exp"})
    assert pipeline.ran == 2


def test_a_tainted_version_is_not_reused(pipeline: Pipeline) -> None:
    pipeline.world.version("sink").record_check("rows", passed=False, blocking=True)
    pipeline.run()
    assert pipeline.ran == 2


def test_a_version_that_was_deleted_is_computed_again(pipeline: Pipeline) -> None:
    pipeline.world.registry.dataset("sink").delete()
    pipeline.run()
    assert pipeline.ran == 2


def test_partitions_are_memoized_one_by_one_and_in_ranges(fresh: World) -> None:
    ran: list[list[str]] = []

    @dg.asset(partitions_def=DAYS, code_version="1", metadata=MEMO)
    def daily(context: dg.AssetExecutionContext):
        ran.append(list(context.partition_keys))
        tables = {key: pa.table({"day": [key]}) for key in context.partition_keys}
        return tables if len(tables) > 1 else next(iter(tables.values()))

    assets = describe_assets([daily], registry=fresh.resource)
    for partition in ("2026-01-01", "2026-01-02", "2026-01-01", "2026-01-02"):
        fresh.materialize(assets, partition=partition)
    assert ran == [["2026-01-01"], ["2026-01-02"]]
    for _ in range(2):
        fresh.materialize(assets, span=("2026-01-01", "2026-01-03"))
    assert len(ran) == 3
    assert [c.name for c in fresh.version("daily").components] == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_inputs_that_the_body_loads_itself_count(fresh: World) -> None:
    ran = []
    value = [1]

    @dg.asset
    def source():
        return pa.table({"n": value})

    @dg.asset(deps=[source], code_version="1", metadata=MEMO)
    def sink(context: dg.AssetExecutionContext, registry: DatasetRegistryResource):
        ran.append(registry.load(context, "source")["n"].to_pylist())
        return pa.table({"n": ran[-1]})

    assets = describe_assets([source, sink], registry=fresh.resource)
    fresh.materialize(assets)
    fresh.materialize(assets)
    assert ran == [[1]]
    value[0] = 2
    fresh.materialize(assets)
    assert ran == [[1], [2]]


def test_several_assets_of_one_op_are_reused_together(fresh: World) -> None:
    ran = []

    @dg.multi_asset(outs={name: dg.AssetOut(code_version="1", metadata=MEMO) for name in ("a", "b")})
    def both():
        ran.append(1)
        yield dg.Output(pa.table({"n": [1]}), output_name="a")
        yield dg.Output(pa.table({"n": [2]}), output_name="b")

    @dg.asset
    def other(a: pa.Table, b: pa.Table):
        return pa.table({"n": [*a["n"].to_pylist(), *b["n"].to_pylist()]})

    assets = describe_assets([both, other], registry=fresh.resource)
    for _ in range(2):
        fresh.materialize(assets)
    assert len(ran) == 1
    assert fresh.version("other").to_arrow()["n"].to_pylist() == [1, 2]


def test_a_dependency_whose_version_is_not_known_is_no_reason_to_reuse(fresh: World) -> None:
    ran = []
    outside = dg.AssetSpec("outside")

    @dg.asset(deps=[outside], code_version="1", metadata=MEMO)
    def sink():
        ran.append(1)
        return pa.table({"n": [1]})

    assets = describe_assets([outside, sink], registry=fresh.resource)
    fresh.materialize(assets)
    fresh.materialize(assets)
    assert len(ran) == 2
    fresh.instance.report_runless_asset_event(dg.AssetObservation("outside", tags={"dagster/data_version": "7"}))
    for _ in range(2):
        fresh.materialize(assets)
    assert len(ran) == 3


def test_types_of_outputs_are_still_checked(fresh: World) -> None:
    @dg.asset(code_version="1", metadata=MEMO)
    def sink() -> pa.Table:
        return "no table"  # type: ignore[return-value]

    with pytest.raises(dg.DagsterTypeCheckDidNotPass):
        fresh.materialize(describe_assets([sink], registry=fresh.resource))


def test_a_run_says_where_the_metadata_has_no_effect(make_world: Callable[[dg.DagsterInstance], World]) -> None:
    @dg.asset(code_version="1", metadata=MEMO)
    def sink():
        return pa.table({"n": [1]})

    def warnings(assets: list[Any]) -> list[str]:
        logs = world.instance.all_logs(world.materialize(assets).run_id)
        return [entry.user_message for entry in logs if entry.level == logging.WARNING]

    with dg.DagsterInstance.ephemeral() as instance:
        world = make_world(instance)
        assert "describe_assets" in warnings([sink])[0]
        assert warnings(describe_assets([sink], registry=world.resource)) == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "no code_version"),
        ({"code_version": "1", "metadata": {**MEMO, "registry/write_mode": "append"}}, "'overwrite' only"),
        ({"code_version": "1", "check_specs": [dg.AssetCheckSpec("rows", asset="sink")]}, "yields results of checks"),
    ],
)
def test_what_cannot_be_memoized_is_refused_when_definitions_load(
    world: World, options: dict[str, Any], match: str
) -> None:
    @dg.asset(**{"metadata": MEMO, **options})
    def sink():
        return pa.table({"n": [1]})

    with pytest.raises(InputError, match=match):
        describe_assets([sink], registry=world.resource)
