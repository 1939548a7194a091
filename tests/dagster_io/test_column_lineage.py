"""The lineage of columns: declared, and derived from SQL and DuckDB relations; in the event and on the version."""

from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

from tests.dagster_io.conftest import World, materialized, shown


@dg.asset(key_prefix="raw")
def orders():
    return pa.table({"id": [1, 2], "price": [3, 4], "customer": [1, 1]})


@dg.asset(key_prefix="raw")
def customers():
    return pa.table({"id": [1], "name": ["a"]})


INPUTS = {"orders": dg.AssetIn(["raw", "orders"]), "customers": dg.AssetIn(["raw", "customers"])}
EXPECTED = {"total": (("raw/orders", "price"),), "name": (("raw/customers", "name"),)}


def lineage(world: World, sink: Any) -> dict[str, Any]:
    """The lineage on the version, which that of the event equals."""
    result = world.materialize([orders, customers, sink])
    found = world.version("sink").column_lineage
    event = shown(result, "sink")["dagster/column_lineage"]
    assert {
        column: tuple(("/".join(dep.asset_key.path), dep.column_name) for dep in deps)
        for column, deps in event.deps_by_column.items()
    } == found
    return found


SQL = "SELECT sum(price) AS total, c.name FROM orders o JOIN customers c ON o.customer = c.id GROUP BY ALL"


@pytest.mark.parametrize("kind", [duckdb.DuckDBPyRelation, pa.Table])
def test_relations_over_inputs_are_traced(world: World, kind: Any) -> None:
    def sink(orders, customers):  # type: ignore[no-untyped-def]
        return duckdb.sql(SQL)

    sink.__annotations__ = {"orders": kind, "customers": kind}
    assert lineage(world, dg.asset(ins=INPUTS)(sink)) == EXPECTED


def test_the_methods_of_relations_are_traced(world: World) -> None:
    @dg.asset(ins=INPUTS)
    def sink(orders: duckdb.DuckDBPyRelation, customers: duckdb.DuckDBPyRelation):
        joined = orders.set_alias("o").join(customers.set_alias("c"), "o.customer = c.id")
        return joined.aggregate("sum(price) AS total, c.name")

    assert lineage(world, sink) == EXPECTED


def test_a_query_in_the_metadata_is_traced(world: World) -> None:
    @dg.asset(ins=INPUTS)
    def sink(orders: pa.Table, customers: pa.Table):
        return dg.Output(duckdb.sql(SQL).to_arrow_table(), metadata={"registry/sql": SQL})

    assert lineage(world, sink) == EXPECTED


def test_a_declared_lineage_is_taken_as_it_is(world: World) -> None:
    deps = {"total": [dg.TableColumnDep(dg.AssetKey(["raw", "orders"]), "price")]}

    @dg.asset(ins=INPUTS)
    def sink(orders: pa.Table, customers: pa.Table):
        declared = dg.TableColumnLineage(deps_by_column=deps)
        return dg.Output(pa.table({"total": [1]}), metadata={"dagster/column_lineage": declared})

    assert lineage(world, sink) == {"total": (("raw/orders", "price"),)}


def test_an_output_without_sql_has_none_and_sql_that_is_not_understood_does_no_harm(world: World) -> None:
    @dg.asset(ins=INPUTS)
    def sink(orders: pa.Table, customers: pa.Table):
        return dg.Output(orders, metadata={"registry/sql": "SELECT ("})

    result = world.materialize([orders, customers, sink])
    assert world.version("sink").column_lineage == world.version("raw/orders").column_lineage == {}
    assert "dagster/column_lineage" not in materialized(result, "sink").metadata
