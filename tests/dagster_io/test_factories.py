"""Assets from SQL, observable assets, and the sensor that follows wipes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.data_version import StaleStatus
from dagster._core.events import AssetWipedData, DagsterEvent
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID

from dataset_registry.dagster_io import (
    build_observable_assets,
    build_observation_job,
    build_sql_asset,
    build_wipe_sensor,
    describe_assets,
)
from dataset_registry.errors import InputError
from tests.dagster_io.conftest import World, shown
from tests.dagster_io.test_side_runs import statuses


@dg.asset(key_prefix="raw")
def orders():
    return pa.table({"id": [1, 2], "price": [3, 4], "customer": [1, 1]})


@dg.asset(key_prefix="raw")
def customers(tmp_csv: dg.ResourceParam[str]):
    return Path(tmp_csv)


SQL = """
WITH big AS (SELECT * FROM raw.orders WHERE price > 1)
SELECT c.name, sum(price) AS total FROM big AS o JOIN people c ON o.customer = c.id GROUP BY ALL
"""


def test_a_query_is_an_asset_with_its_inputs_code_version_and_lineage(world: World, tmp_path: Path) -> None:
    csv = tmp_path / "customers.csv"
    csv.write_text("id,name\n1,a\n")
    totals = build_sql_asset("totals", SQL, ins={"people": "raw/customers"})
    assert {key.to_user_string() for key in totals.dependency_keys} == {"raw/orders", "raw/customers"}
    result = dg.materialize(
        [orders, customers, totals], instance=world.instance, resources={**world.resources(), "tmp_csv": str(csv)}
    )
    version = world.version("totals")
    assert version.to_arrow().to_pylist() == [{"name": "a", "total": 7}]
    assert version.column_lineage == {"name": (("raw/customers", "name"),), "total": (("raw/orders", "price"),)}
    assert version.provenance.code_version == totals.specs_by_key[dg.AssetKey("totals")].code_version
    assert "dagster/column_lineage" in shown(result, "totals")
    other = build_sql_asset("totals", SQL.replace("> 1", "> 2"), ins={"people": "raw/customers"})
    assert other.specs_by_key[dg.AssetKey("totals")].code_version != version.provenance.code_version


def test_a_query_may_be_memoized(fresh: World) -> None:
    totals = build_sql_asset(
        "totals", "SELECT sum(price) AS total FROM raw.orders", metadata={"registry/memoize": True}
    )
    assets = describe_assets([orders, totals], registry=fresh.resource)
    fresh.materialize(assets)
    assert "registry/reused" in shown(fresh.materialize(assets), "totals")


def test_sql_that_is_no_query_or_reads_other_tables_is_refused() -> None:
    with pytest.raises(InputError, match="no query: DROP"):
        build_sql_asset("x", "DROP TABLE orders")
    with pytest.raises(InputError, match="not a query"):
        build_sql_asset("x", "SELECT (")
    with pytest.raises(InputError, match="does not read 'people'"):
        build_sql_asset("x", "SELECT * FROM orders", ins={"people": "raw/customers"})


def test_a_dataset_that_others_write_is_observed_and_makes_what_is_built_on_it_stale(fresh: World) -> None:
    dataset = fresh.registry.create_dataset("outside/rates")
    dataset.commit({"data": pa.table({"rate": [1.5]})})
    rates = build_observable_assets("outside/rates", group_name="outside")

    @dg.asset(ins={"rates": dg.AssetIn(["outside", "rates"])})
    def sink(rates: pa.Table):
        return rates

    job = build_observation_job(rates, name="observe")
    definitions = dg.Definitions(assets=[*rates, sink], jobs=[job], resources=fresh.resources())

    def observe() -> dg.ExecuteInProcessResult:
        return definitions.resolve_job_def("observe").execute_in_process(instance=fresh.instance)

    observe()
    fresh.materialize([*rates, sink], "sink")
    assert statuses(fresh.instance, definitions, ["sink"]) == [StaleStatus.FRESH]
    dataset.commit({"data": pa.table({"rate": [1.5]})})  # the same
    dataset.commit({"data": pa.table({"rate": [2.5]})}, branch="exp", fallback="main")
    observe()
    assert statuses(fresh.instance, definitions, ["sink"]) == [StaleStatus.FRESH]
    dataset.commit({"data": pa.table({"rate": [3.5]})})
    observe()
    assert statuses(fresh.instance, definitions, ["sink"]) == [StaleStatus.STALE]


# --- wiping ------------------------------------------------------------------------------------------------------------

DAYS = dg.StaticPartitionsDefinition(["mon", "tue"])


@dg.asset(partitions_def=DAYS)
def daily(context: dg.AssetExecutionContext):
    return pa.table({"day": [context.partition_key]})


@dg.asset
def plain():
    return pa.table({"n": [1]})


@dg.asset
def kept():
    return pa.table({"n": [1]})


class Wipes:
    """Ticks of the sensor, for these datasets of a code location."""

    def __init__(self, world: World, *assets: Any, datasets: Sequence[str] = ("*",)) -> None:
        self.world = world
        self.assets = assets
        self.cursor: str | None = None
        self.sensor = build_wipe_sensor(datasets=datasets)

    def __call__(self) -> str:
        resources = {**self.world.resources(), "elsewhere": dg.mem_io_manager}
        definitions = dg.Definitions(assets=list(self.assets), sensors=[self.sensor], resources=resources)
        with dg.build_sensor_context(
            instance=self.world.instance,
            cursor=self.cursor,
            definitions=definitions,
            resources={"registry": self.world.resource},
        ) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor
        return str(data.skip_message)


@pytest.fixture
def wipes(fresh: World) -> Any:
    for day in ("mon", "tue"):
        fresh.materialize([daily], partition=day)
    fresh.materialize([plain, kept])
    found = Wipes(fresh, daily, plain, kept, datasets=["plain", "daily"])
    assert found() == "Nothing was wiped."
    return found


def test_a_wiped_asset_loses_its_data_on_the_branch_and_history_keeps_it(fresh: World, wipes: Wipes) -> None:
    fresh.instance.wipe_assets([dg.AssetKey("plain"), dg.AssetKey("kept")])
    assert wipes() == "Wiped: plain"
    assert fresh.version("plain").components == ()
    assert fresh.version("plain").message == "Wiped in Dagster: all content"
    assert fresh.version("plain@v1").to_arrow().num_rows == 1
    assert fresh.version("kept").to_arrow().num_rows == 1
    assert wipes() == "Nothing was wiped."


def test_a_wiped_partition_takes_only_its_own_data(fresh: World, wipes: Wipes) -> None:
    event = DagsterEvent(  # wiping a partition is not in open-source Dagster, its event is
        event_type_value=dg.DagsterEventType.ASSET_WIPED.value,
        event_specific_data=AssetWipedData(asset_key=dg.AssetKey("daily"), partition_keys=["mon"]),
        job_name=RUNLESS_JOB_NAME,
    )
    fresh.instance.report_dagster_event(event, run_id=RUNLESS_RUN_ID)
    assert wipes() == "Wiped: daily"
    assert [c.name for c in fresh.version("daily").components] == ["tue"]


def test_what_was_materialized_again_since_is_left_alone(fresh: World, wipes: Wipes) -> None:
    fresh.instance.wipe_assets([dg.AssetKey("plain")])
    fresh.materialize([plain])
    assert wipes() == "Nothing was wiped."
    assert fresh.version("plain").to_arrow().num_rows == 1
