"""Faults that an attack on memoization, conditions, lineage, Pipes and wiping found; each failed first."""

import sys
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pyarrow as pa
import pytest
from dagster._core.errors import DagsterPipesExecutionError

from dataset_registry import Registry, Version
from dataset_registry.dagster_io import (
    DatasetRegistryResource,
    build_drift_checks,
    build_observable_assets,
    build_sql_asset,
    describe_assets,
    inputs_changed,
    publish_run,
)
from dataset_registry.errors import Tainted
from tests.dagster_io.conftest import World
from tests.dagster_io.test_conditions import Ticks
from tests.dagster_io.test_factories import Wipes

MEMO = {"registry/memoize": True}
AB = dg.StaticPartitionsDefinition(["a", "b"])


def memo(world: World, *assets: Any) -> list[Any]:
    return describe_assets(assets, registry=world.resource)


# --- memoization -------------------------------------------------------------------------------------------------------


def test_what_the_body_reads_still_counts_after_a_reuse(fresh: World) -> None:
    ran = []
    source = fresh.registry.create_dataset("src")
    source.commit({"data": pa.table({"n": [1]})})

    @dg.asset(code_version="1", metadata=MEMO)
    def sink(context: dg.AssetExecutionContext, registry: DatasetRegistryResource):
        ran.append(registry.load(context, "src")["n"].to_pylist())
        return pa.table({"n": ran[-1]})

    assets = memo(fresh, sink)
    for _ in range(3):
        fresh.materialize(assets)
    assert ran == [[1]]
    assert [[read.dataset for read in made.provenance.inputs] for made in fresh.version("sink").productions] == [
        ["src"]
    ] * 3
    source.commit({"data": pa.table({"n": [2]})})
    fresh.materialize(assets)
    assert ran == [[1], [2]]


@pytest.mark.parametrize("change", ["pinned", "renamed", "appeared"])
def test_what_the_body_asks_for_is_asked_again_by_its_name_and_ref(fresh: World, change: str) -> None:
    ran: list[Any] = []
    registry = fresh.registry
    if change != "appeared":
        registry.create_dataset("src").commit({"data": pa.table({"n": [1]})})

    @dg.asset(code_version="1", metadata=MEMO)
    def sink(context: dg.AssetExecutionContext, registry: DatasetRegistryResource):
        try:
            ran.append(registry.load(context, "src", ref="main" if change == "pinned" else None)["n"].to_pylist())
        except Exception:
            ran.append(None)
        return pa.table({"n": [len(ran)]})

    assets = memo(fresh, sink)
    fresh.materialize(assets)
    if change == "pinned":
        registry.dataset("src").create_branch("exp")
        registry.dataset("src").commit({"data": pa.table({"n": [2]})})
        fresh.materialize(assets, branch="exp")
    else:
        if change == "renamed":
            registry.dataset("src").rename("old")
        registry.create_dataset("src").commit({"data": pa.table({"n": [2]})})
        fresh.materialize(assets)
    assert ran[1:] == [[2]]


def test_a_partition_of_another_dataset_of_the_same_name_is_another_input(fresh: World) -> None:
    value = [1]

    @dg.asset(partitions_def=AB)
    def src():
        return pa.table({"n": value})

    @dg.asset(partitions_def=AB, code_version="1", metadata=MEMO)
    def sink(src: pl.DataFrame) -> pl.DataFrame:
        return src

    assets = memo(fresh, src, sink)
    fresh.materialize(assets, partition="a")
    fresh.registry.dataset("src").delete()
    value[0] = 2
    fresh.materialize(assets, partition="a")
    assert fresh.version("sink").to_arrow("a")["n"].to_pylist() == [2]


def test_a_version_as_an_input_is_all_of_it(fresh: World) -> None:
    values, ran = {"a": 1, "b": 1}, []

    @dg.asset(partitions_def=AB)
    def src(context: dg.AssetExecutionContext):
        return pa.table({"n": [values[context.partition_key]]})

    @dg.asset(partitions_def=AB, code_version="1", metadata=MEMO)
    def sink(src: Version):
        ran.append(sorted(src.to_arrow()["n"].to_pylist()))
        return pa.table({"n": ran[-1]})

    assets = memo(fresh, src, sink)
    for key in "ab":
        fresh.materialize(assets, "src", partition=key)
    fresh.materialize(assets, "sink", partition="b")
    values["a"] = 9
    fresh.materialize(assets, "src", partition="a")
    fresh.materialize(assets, "sink", partition="b")
    assert ran == [[1, 1], [1, 9]]


def test_the_settings_of_inputs_and_nested_resources_are_part_of_the_configuration(fresh: World) -> None:
    ran = []

    class Inner(dg.ConfigurableResource):  # type: ignore[type-arg]
        url: str

    class Outer(dg.ConfigurableResource):  # type: ignore[type-arg]
        inner: Inner

    @dg.asset
    def src():
        return pa.table({"a": [1], "b": [2]})

    def run(columns: list[str], url: str) -> None:
        @dg.asset(ins={"src": dg.AssetIn(metadata={"columns": columns})}, code_version="1", metadata=MEMO)
        def sink(outer: Outer, src: pa.Table):
            ran.append((src.column_names, outer.inner.url))
            return src

        resources = {**fresh.resources(), "outer": Outer(inner=Inner(url=url))}
        dg.materialize(memo(fresh, src, sink), instance=fresh.instance, resources=resources)

    for columns, url in ((["a"], "x"), (["a"], "x"), (["b"], "x"), (["b"], "y")):
        run(columns, url)
    assert ran == [(["a"], "x"), (["b"], "x"), (["b"], "y")]


def test_a_run_may_ask_to_compute_again(fresh: World) -> None:
    ran = []

    @dg.asset(code_version="1", metadata=MEMO)
    def sink():
        ran.append(1)
        return pa.table({"n": [1]})

    for tags in ({}, {}, {"registry/recompute": "yes"}):
        dg.materialize(memo(fresh, sink), instance=fresh.instance, resources=fresh.resources(), tags=tags)
    assert len(ran) == 2


def test_a_version_that_is_tainted_later_taints_what_reused_it(fresh: World) -> None:
    @dg.asset(code_version="1", metadata=MEMO)
    def sink():
        return pa.table({"n": [1]})

    assets = memo(fresh, sink)
    fresh.materialize(assets, branch="run/1")
    fresh.registry.create_dataset("other")
    fresh.materialize(assets, branch="run/2")
    fresh.version("sink@run/1").record_check("rows", passed=False, blocking=True)
    fresh.registry.protect("sink", "main")
    with pytest.raises(Tainted):
        fresh.registry.publish("run/2")


# --- conditions --------------------------------------------------------------------------------------------------------


def test_a_parent_of_another_io_manager_and_the_asset_itself_do_not_keep_it_from_being_true(fresh: World) -> None:
    def assets() -> list[Any]:
        @dg.asset(io_manager_key="elsewhere")
        def foreign():
            return 1

        @dg.asset
        def src():
            return pa.table({"n": [1]})

        @dg.asset(automation_condition=inputs_changed(fresh.resource), deps=[foreign])
        def sink(src: pa.Table):
            return src

        return [foreign, src, sink]

    resources = {**fresh.resources(), "elsewhere": dg.mem_io_manager}
    dg.materialize(assets()[1:2], instance=fresh.instance, resources=resources)
    assert Ticks(fresh, assets, resources)() == {("sink", None)}


def test_partitions_that_were_never_computed_are_requested_in_the_first_tick(fresh: World) -> None:
    def assets() -> list[Any]:
        @dg.asset(partitions_def=AB)
        def src():
            return pa.table({"n": [1]})

        @dg.asset(partitions_def=AB, automation_condition=inputs_changed(fresh.resource))
        def sink(src: pa.Table):
            return src

        mapping = dg.SpecificPartitionsPartitionMapping(["b"])

        @dg.asset(
            ins={"src": dg.AssetIn(partition_mapping=mapping)}, automation_condition=inputs_changed(fresh.resource)
        )
        def last(src: pa.Table):
            return src

        return [src, sink, last]

    for key in "ab":
        fresh.materialize(assets(), "src", partition=key)
    fresh.materialize(assets(), "sink", partition="a")
    fresh.materialize(assets(), "last")
    ticks = Ticks(fresh, assets)
    assert ticks() == {("sink", "b")}
    fresh.registry.dataset("src").commit({"a": pa.table({"n": [2]})})
    assert ticks() == {("sink", "a")}, "last reads b only"


def test_a_check_is_requested_when_its_asset_changed(fresh: World) -> None:
    @dg.asset
    def src():
        return pa.table({"n": [1]})

    @dg.asset_check(asset=src, automation_condition=inputs_changed(fresh.resource))
    def rows() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    fresh.materialize([src])
    cursor = None
    found = []
    for value in (1, 1, 2):
        fresh.registry.dataset("src").commit({"data": pa.table({"n": [value]})})
        definitions = dg.Definitions(assets=[src], asset_checks=[rows])
        result = dg.evaluate_automation_conditions(definitions, fresh.instance, cursor=cursor)
        cursor = result.cursor
        found.append(result.total_requested)
    assert found[1:] == [0, 1]


# --- lineage, SQL, checks ----------------------------------------------------------------------------------------------


def test_a_relation_whose_sql_is_not_understood_is_stored_without_lineage(world: World) -> None:
    @dg.asset
    def src():
        return pa.table({"id": [1, 2]})

    @dg.asset
    def unpivoted(src: duckdb.DuckDBPyRelation):
        return duckdb.sql("UNPIVOT src ON id INTO NAME k VALUE v")

    world.materialize([src, unpivoted])
    assert world.version("unpivoted").column_lineage == {}


def test_the_names_of_columns_are_those_of_the_output_and_inputs_go_before_datasets(world: World) -> None:
    @dg.asset(key_prefix="raw")
    def orders():
        return pa.table({"orderId": [1], "Amount": [2]})

    @dg.asset(key_prefix="stage", name="orders")
    def staged():
        return pa.table({"orderId": [1], "Amount": [3]})

    ins = {"a": dg.AssetIn(["raw", "orders"]), "orders": dg.AssetIn(["stage", "orders"])}

    @dg.asset(ins=ins)
    def sink(a: duckdb.DuckDBPyRelation, orders: duckdb.DuckDBPyRelation):
        return duckdb.sql("SELECT orderId, sum(Amount) FROM orders GROUP BY ALL")

    world.materialize([orders, staged, sink])
    assert world.version("sink").column_lineage == {
        "orderId": (("stage/orders", "orderId"),),
        "sum(Amount)": (("stage/orders", "Amount"),),
    }


def test_a_query_of_partitions_reads_its_own(world: World) -> None:
    @dg.asset(partitions_def=AB)
    def src(context: dg.AssetExecutionContext):
        return pa.table({"k": [context.partition_key]})

    query = build_sql_asset("query", "SELECT k FROM src", partitions_def=AB)
    for key in "ab":
        world.materialize([src, query], partition=key)
    assert world.version("query").to_arrow("b")["k"].to_pylist() == ["b"]


def test_a_check_of_a_partition_is_published_as_often_as_one_likes(fresh: World) -> None:
    value = [0]

    @dg.asset(partitions_def=AB)
    def src():
        return pa.table({"n": value})

    @dg.asset_check(asset=src, partitions_def=AB)
    def check() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    for value[0] in (0, 1):
        result = fresh.materialize([src, check], partition="a", branch="run/{run_id}")
        for _ in range(2):
            publish_run(result.run_id, instance=fresh.instance, registry=fresh.resource)
    assert fresh.version("src").to_arrow("a")["n"].to_pylist() == [1]


def test_a_constant_that_becomes_a_little_more_has_not_drifted(world: World) -> None:
    given = iter((10.0, 10.5, 100.0))

    @dg.asset
    def src():
        return pa.table({"n": [next(given)]})

    assets = [src, *build_drift_checks([src])]
    found = [world.materialize(assets).get_asset_check_evaluations()[0].passed for _ in range(3)]
    assert found == [True, True, False]


# --- Pipes -------------------------------------------------------------------------------------------------------------


def piped(world: World, code: str, **options: Any) -> dg.AssetsDefinition:
    script = world.folder / "external.py"
    script.write_text(
        "import pyarrow as pa\nfrom dagster_pipes import open_dagster_pipes\n"
        "from dataset_registry.pipes import open_registry\n"
        f"with open_dagster_pipes() as pipes, open_registry(pipes) as registry:\n    {code}\n"
    )

    @dg.asset(**options)
    def out(context: dg.AssetExecutionContext, registry: DatasetRegistryResource):
        client = dg.PipesSubprocessClient()
        session = registry.for_pipes(context)
        return client.run(context=context, command=[sys.executable, str(script)], **session).get_results()

    return out


def test_an_external_process_writes_all_partitions_of_its_run_and_no_other(fresh: World) -> None:
    abc = dg.StaticPartitionsDefinition(["a", "b", "c"])
    options = {"partitions_def": abc, "backfill_policy": dg.BackfillPolicy.single_run()}
    for key in "abc":
        fresh.registry.draft("out")
        with fresh.registry.draft("out", overwrite=True) as draft:
            draft.add(key, pa.table({"k": ["old"]}))
    one = piped(fresh, 'registry.commit("out", pa.table({"k": ["new"]}))', **options)
    with pytest.raises(DagsterPipesExecutionError):
        fresh.materialize([one], span=("a", "b"))
    assert fresh.version("out").to_arrow("a")["k"].to_pylist() == ["old"]
    all_of_them = piped(fresh, 'registry.commit("out", {k: pa.table({"k": [k]}) for k in "ab"})', **options)
    fresh.materialize([all_of_them], span=("a", "b"))
    assert {key: fresh.version("out").to_arrow(key)["k"].to_pylist() for key in "abc"} == {
        "a": ["a"],
        "b": ["b"],
        "c": ["old"],
    }


def test_what_an_external_process_wrote_is_published_with_its_checks(fresh: World) -> None:
    @dg.asset_check(asset="out")
    def check() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    for value, branch in ((1, None), (2, "run/{run_id}")):
        out = piped(fresh, f'registry.commit("out", pa.table({{"n": [{value}]}}))')
        result = fresh.materialize([out, check], branch=branch)
    published = publish_run(result.run_id, instance=fresh.instance, registry=fresh.resource)
    assert [key.to_user_string() for key in published.reported] == ["out"]
    assert [found.name for found in fresh.version("out").checks] == ["check"]


def test_an_external_process_does_not_take_variables_that_the_resource_has_not_set(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASET_REGISTRY_CATALOG", "sqlite:////nowhere/catalog.sqlite")
    monkeypatch.setenv("DATASET_REGISTRY_STORE", "/nowhere")
    fresh.materialize([piped(fresh, 'registry.commit("out", pa.table({"n": [1]}))')])
    assert fresh.version("out").number == 1


# --- wiping ------------------------------------------------------------------------------------------------------------


@dg.asset
def plain():
    return pa.table({"n": [1]})


def test_data_of_others_is_not_wiped_and_neither_what_was_written_since(fresh: World) -> None:
    outside = fresh.registry.create_dataset("outside/rates")
    outside.commit({"data": pa.table({"n": [1]})})
    fresh.registry.create_dataset("foreign").commit({"data": pa.table({"n": [1]})})
    foreign = dg.asset(lambda: 1, name="foreign", io_manager_key="elsewhere")
    fresh.materialize([plain])
    wiping = Wipes(fresh, plain, foreign, *build_observable_assets("outside/rates"))
    wiping()
    keys = [dg.AssetKey(name.split("/")) for name in ("outside/rates", "foreign", "plain")]
    fresh.instance.wipe_assets(keys)
    fresh.registry.dataset("plain").commit({"data": pa.table({"n": [2]})})
    assert wiping() == "Nothing was wiped."
    fresh.instance.wipe_assets(keys[2:])
    fresh.materialize([plain], branch="exp")
    assert wiping() == "Wiped: plain"


def test_a_wipe_that_is_refused_does_not_keep_others_from_being_handled(fresh: World) -> None:
    other = dg.asset(lambda: pa.table({"n": [1]}), name="other")
    fresh.materialize([plain, other])
    with Registry.open(fresh.folder) as owner:
        owner.create_user("alice", role="member")
        for name in ("plain", "other"):
            owner.grant("alice", "write", name)
        owner.protect("plain", "main")
    wiping = Wipes(fresh, plain, other)
    wiping()
    fresh.instance.wipe_assets([dg.AssetKey("plain"), dg.AssetKey("other")])
    said = wiping()
    assert "plain was not wiped" in said
    assert "Wiped: other" in said
    assert wiping() == "Nothing was wiped."


def test_wipes_before_the_start_are_not_handled(fresh: World) -> None:
    fresh.materialize([plain])
    for _ in range(3):
        fresh.instance.wipe_assets([dg.AssetKey("plain")])
    wiping = Wipes(fresh, plain)
    assert [wiping(), wiping()] == ["Nothing was wiped."] * 2
    assert Path(fresh.folder).exists()
    assert fresh.version("plain").to_arrow().num_rows == 1
