"""OpenLineage events of runs: what they say, and that the sensor emits each once."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
from openlineage.client import OpenLineageClient
from openlineage.client.serde import Serde
from openlineage.client.transport.file import FileConfig, FileTransport

from dataset_registry.dagster_io import build_openlineage_sensor, openlineage_events
from dataset_registry.errors import NotFound
from tests.dagster_io.conftest import World


@dg.asset(key_prefix="raw")
def orders():
    return pa.table({"id": [1, 2], "price": [3.5, None], "tags": [[{"k": "a"}], None]})


@dg.asset(ins={"orders": dg.AssetIn(["raw", "orders"])})
def totals(orders: duckdb.DuckDBPyRelation):
    return orders.aggregate("sum(price) AS total, count(*) AS n")


@dg.asset
def broken(totals: pa.Table):
    raise ValueError("no")


def run(world: World) -> list[dict[str, Any]]:
    """The events of a run of the two assets whose input has a result of a check."""
    world.materialize([orders, totals], "raw/orders")
    world.version("raw/orders").record_check("not_empty", passed=True, severity="warn")
    result = world.materialize([orders, totals], "totals")
    events = openlineage_events(result.run_id, registry=world.registry, dataset_namespace="file:///data")
    return [json.loads(Serde.to_json(event)) for event in events]


def test_a_step_has_a_start_and_a_complete_with_what_it_read_and_wrote(world: World) -> None:
    start, complete = run(world)
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert complete["job"]["name"].endswith(".totals")
    assert UUID(complete["run"]["facets"]["parent"]["run"]["runId"])
    assert start["inputs"] == start["outputs"] == []
    (read,), (wrote,) = complete["inputs"], complete["outputs"]
    assert (read["namespace"], read["name"]) == ("file:///data", "raw/orders")
    assert read["facets"]["version"]["datasetVersion"] == "v1"
    assert [(f["name"], f["type"]) for f in read["facets"]["schema"]["fields"]][:2] == [
        ("id", "int64"),
        ("price", "double"),
    ]
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 2
    (assertion,) = read["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert (assertion["assertion"], assertion["success"], assertion["severity"]) == ("not_empty", True, "warn")
    fields = wrote["facets"]["columnLineage"]["fields"]
    (source,) = fields["total"]["inputFields"]
    assert (source["namespace"], source["name"], source["field"]) == ("file:///data", "raw/orders", "price")
    assert wrote["outputFacets"]["outputStatistics"]["rowCount"] == 1
    assert wrote["facets"]["storage"]["fileFormat"] == "parquet"


def test_a_run_that_is_not_known_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        openlineage_events("nothing", registry=world.registry)


@pytest.fixture
def emitted(tmp_path: Path) -> tuple[OpenLineageClient, Path]:
    path = tmp_path / "events.jsonl"
    return OpenLineageClient(transport=FileTransport(FileConfig(str(path), append=True))), path


def test_the_sensor_emits_the_events_of_each_run_once(fresh: World, emitted: tuple[OpenLineageClient, Path]) -> None:
    client, path = emitted
    sensor = build_openlineage_sensor(client=client)
    cursor: str | None = None

    def tick() -> list[str]:
        nonlocal cursor
        before = len(path.read_text().splitlines()) if path.exists() else 0
        context = dg.build_sensor_context(
            fresh.instance, cursor=cursor, resources={"registry": fresh.resource}, sensor_name=sensor.name
        )
        sensor.evaluate_tick(context)
        cursor = context.cursor
        lines = path.read_text().splitlines()[before:] if path.exists() else []
        return [json.loads(line)["eventType"] for line in lines]

    assert tick() == []
    fresh.materialize([orders, totals])
    assert tick() == ["START", "COMPLETE", "START", "COMPLETE"]
    assert tick() == []
    with pytest.raises(ValueError, match="no"):
        fresh.materialize([orders, totals, broken])
    assert tick() == ["START", "FAIL", "START", "FAIL"]
    assert tick() == []
