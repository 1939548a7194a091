"""The resource in ops and in bodies of assets: reads and writes with recorded lineage."""

from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource
from dataset_registry.errors import NotFound
from tests.dagster_io.conftest import BRANCH, World, refused


def ran(world: World, op: Any, *, branch: str | None = None, **options: Any) -> dg.ExecuteInProcessResult:
    @dg.job(resource_defs={"registry": world.resource})
    def job() -> None:
        op()

    return job.execute_in_process(instance=world.instance, tags={BRANCH: branch} if branch else {}, **options)


@pytest.fixture
def orders(world: World) -> World:
    world.registry.create_dataset("raw/orders").commit({"data": pa.table({"n": [1, 2]}), "notes": b"x"})
    return world


def test_an_op_reads_and_writes_with_lineage(orders: World) -> None:
    @dg.op
    def doubles(context: dg.OpExecutionContext, registry: DatasetRegistryResource) -> None:
        frame = registry.load(context, "raw/orders", pl.DataFrame, component="data", columns=["n"])
        registry.commit(context, "clean/orders", {"data": frame, "copy": frame}, key="n")

    result = ran(orders, doubles)
    version = orders.version("clean/orders")
    assert version.to_arrow("copy")["n"].to_pylist() == [1, 2]
    made = version.provenance
    assert (made.run_id, made.step, made.metadata) == (result.run_id, "doubles", {"job": "job"})
    (read,) = made.inputs
    assert (read.dataset, read.version, read.ref, read.components) == ("raw/orders", 1, "main", ("data",))
    assert orders.version("raw/orders").consumers == [("clean/orders", 1)]
    assert version.schema.tables()["data"].key == ("n",)


def test_an_op_works_on_the_branch_of_its_run(orders: World) -> None:
    dataset = orders.registry.dataset("raw/orders")
    dataset.commit({"data": pa.table({"n": [7]})})
    dataset.commit({"notes": b"only a table"}, branch="exp", fallback="main")
    dataset.move_branch("exp", "v2")

    @dg.op
    def copy(context: dg.OpExecutionContext, registry: DatasetRegistryResource) -> None:
        registry.commit(context, "clean/orders", registry.load(context, "raw/orders", component="data"))
        pinned = registry.load(context, "raw/orders", pa.Table, ref="v1", component="data")
        registry.commit(context, "clean/first", pinned)

    ran(orders, copy, branch="exp")
    assert [b.name for b in orders.registry.dataset("clean/orders").branches()] == ["exp"]
    assert orders.version("clean/orders@exp").to_arrow()["n"].to_pylist() == [7]
    assert [read.ref for read in orders.version("clean/first@exp").provenance.inputs] == ["exp", "v1"]


def test_a_dataset_without_the_branch_is_read_from_the_tracked_one(orders: World) -> None:
    @dg.op
    def reads(context: dg.OpExecutionContext, registry: DatasetRegistryResource) -> None:
        registry.commit(context, "clean/orders", registry.load(context, "raw/orders", component="data"))

    ran(orders, reads, branch="other")
    (read,) = orders.version("clean/orders@other").provenance.inputs
    assert (read.ref, read.fallback) == ("other", "main")


def test_what_is_not_there_is_an_error(orders: World) -> None:
    @dg.op
    def reads(context: dg.OpExecutionContext, registry: DatasetRegistryResource) -> None:
        registry.load(context, "raw/nothing")

    with refused(NotFound, "raw/nothing"):
        ran(orders, reads)


def test_what_the_body_of_an_asset_reads_is_an_input_of_its_output(orders: World) -> None:
    @dg.asset
    def total(context: dg.AssetExecutionContext, registry: DatasetRegistryResource) -> pa.Table:
        frame = registry.load(context, "raw/orders", pl.DataFrame, component="data")
        return pa.table({"total": [int(frame["n"].sum())]})

    orders.materialize([total])
    version = orders.version("total")
    assert version.to_arrow().to_pylist() == [{"total": 3}]
    assert [read.dataset for read in version.provenance.inputs] == ["raw/orders"]


def test_an_input_with_a_manager_of_its_own_has_lineage(orders: World) -> None:
    @dg.asset
    def source() -> pa.Table:
        return pa.table({"n": [1]})

    @dg.asset(ins={"source": dg.AssetIn(input_manager_key="reader")}, io_manager_key="io_manager")
    def sink(source: pl.DataFrame) -> pa.Table:
        return source.to_arrow()

    resources = {**orders.resources(), "reader": DatasetRegistryIOManager(registry=orders.resource)}
    dg.materialize([source, sink], resources=resources, instance=orders.instance)
    (read,) = orders.version("sink").provenance.inputs
    assert (read.dataset, read.version, read.label) == ("source", 1, "source")


def test_an_input_of_an_input_manager_is_recorded_as_any_other(orders: World) -> None:
    """`input_manager_key` is how an asset that is stored elsewhere has inputs of the registry."""
    source = dg.AssetSpec(["raw", "orders"])
    orders.registry.dataset("raw/orders").commit({"data": pa.table({"n": [3, 4, 5], "m": [1, 1, 1]})})
    rows_in = dg.AssetIn(["raw", "orders"], input_manager_key="inputs", metadata={"columns": ["n"]})

    @dg.asset(ins={"rows": rows_in}, io_manager_key="elsewhere")
    def sink(context: dg.AssetExecutionContext, registry: DatasetRegistryResource, rows: dict[str, pa.Table]) -> int:
        registry.commit(context, "clean/orders", rows["data"])
        return rows["data"].num_rows

    with orders.registry.dataset("raw/orders").draft() as draft:
        draft.remove("notes")
    resources = {
        "inputs": DatasetRegistryIOManager(registry=orders.resource),
        "registry": orders.resource,
        "elsewhere": dg.mem_io_manager,
    }
    dg.materialize([source, sink], instance=orders.instance, resources=resources)
    version = orders.version("clean/orders")
    assert version.to_arrow().to_pydict() == {"n": [3, 4, 5]}
    assert [(read.dataset, read.version, read.label) for read in version.provenance.inputs] == [
        ("raw/orders", 3, "rows")
    ]
