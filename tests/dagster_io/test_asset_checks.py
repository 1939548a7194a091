"""Checks to use: schemas, row counts, keys and references, on the version that the run's branch has."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dataset_registry.dagster_io import (
    asset_checks,
    build_drift_checks,
    build_freshness_checks,
    build_key_checks,
    build_reference_checks,
    build_row_count_checks,
    build_schema_checks,
    settle_run,
)
from dataset_registry.errors import InputError
from tests.dagster_io.conftest import World

COLORS = dg.StaticPartitionsDefinition(["red", "green"])


def giving(*tables: pa.Table, name: str = "source", **options: Any) -> dg.AssetsDefinition:
    """An asset that returns these, one in each run."""
    given = iter(tables)
    return dg.asset(lambda: next(given), name=name, **options)


def evaluated(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = result.get_asset_check_evaluations()
    return found


def facts(found: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {key: value.value for key, value in found.metadata.items()}


N, M = pa.table({"n": pa.array([1], pa.int32())}), pa.table({"m": [1]})


def test_a_schema_is_compared_with_the_version_before_on_the_branch(world: World) -> None:
    wide = pa.table({"n": pa.array([1], pa.int64())})
    source = giving(N, wide, N)
    assets = [source, *build_schema_checks([source], blocking=False)]
    for passed, got in (
        (True, "backward compatible"),
        (True, "backward compatible"),
        (False, "n was int64 and is int32"),
    ):
        found = evaluated(world.materialize(assets))
        assert (found.passed, facts(found)["got"]) == (passed, got)
    assert facts(found)["registry/version"] == "source@v3"
    assert found.check_name == "schema_is_backward_compatible"


def test_another_policy_and_severity(world: World) -> None:
    source = giving(N, M)
    checks = build_schema_checks([source], policy="full", blocking=False, severity=dg.AssetCheckSeverity.WARN)
    world.materialize([source, *checks])
    found = evaluated(world.materialize([source, *checks]))
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "n was dropped" in facts(found)["got"]
    with pytest.raises(InputError, match="sideways"):
        build_schema_checks([source], policy="sideways")  # type: ignore[arg-type]


def test_a_row_count_is_compared_with_history(world: World) -> None:
    source = giving(*(pa.table({"n": range(size)}) for size in (100, 110, 95, 20, 104)))
    assets = [source, *build_row_count_checks([source], tolerance=0.2)]
    assert [evaluated(world.materialize(assets)).passed for _ in range(5)] == [True, True, True, False, True]


def test_a_table_without_rows_is_not_usual(world: World) -> None:
    source = giving(pa.table({"n": pa.array([], pa.int64())}))
    found = evaluated(world.materialize([source, *build_row_count_checks([source])]))
    assert (found.passed, facts(found)["expected"], facts(found)["got"]) == (False, "1 rows or more", 0)


def test_freshness_has_a_maximum_or_follows_history(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    source = giving(*[N] * 5)
    limited = [source, *build_freshness_checks([source], maximum_age=timedelta(hours=1))]
    assert evaluated(world.materialize(limited)).passed
    for _ in range(2):
        world.materialize([source])
    usual = [source, *build_freshness_checks([source])]
    later = datetime.now(UTC) + timedelta(hours=2)
    for assets, expected in ((limited, "not older than 1:00:00"), (usual, "not older than 0:00:")):
        monkeypatch.setattr(asset_checks, "_now", lambda: later)
        found = evaluated(world.materialize(assets))
        assert not found.passed
        assert facts(found)["got"].startswith(("2:00:0", "1:59:5")), "some seconds pass on a busy machine"
        assert facts(found)["expected"].startswith(expected)
    with pytest.raises(InputError, match="not negative"):
        build_freshness_checks([source], maximum_age=timedelta(-1))


def test_drift_is_seen_in_nulls_and_in_ranges(world: World) -> None:
    def table(*values: float | None) -> pa.Table:
        return pa.table({"n": pa.array(values, pa.float64()), "name": [str(value) for value in values]})

    tables = [
        table(*range(10)),
        table(*range(1, 11)),
        table(*range(9), 14.0),
        table(*range(9), 40.0),
        table(1, 5, None, 9),
    ]
    source = giving(*tables)
    assets = [source, *build_drift_checks([source])]
    found = [evaluated(world.materialize(assets)) for _ in tables]
    assert [f.passed for f in found] == [True, True, True, False, False]
    assert facts(found[3])["got"] == "n: 0 to 40, usually 0 to 14"
    assert facts(found[4])["got"] == "n: 25.0% nulls, usually 0.0%"


def test_drift_of_a_column_that_is_not_there_is_an_error(world: World) -> None:
    source = giving(N)
    with pytest.raises(InputError, match="no column 'm'"):
        world.materialize([source, *build_drift_checks([source], columns="m")])


def test_keys_that_are_not_unique_are_shown(world: World) -> None:
    source = giving(pa.table({"id": [1, 2, 3]}), pa.table({"id": [1, 1, 2, None]}))
    assets = [source, *build_key_checks([source], columns="id", blocking=False)]
    assert evaluated(world.materialize(assets)).passed
    found = evaluated(world.materialize(assets))
    assert not found.passed
    assert facts(found)["got"] == "1 keys with several rows, 1 nulls"
    assert facts(found)["rows"].splitlines() == ["| id | count_all |", "| --- | --- |", "| 1 | 2 |"]


def test_the_key_is_that_of_the_table(world: World) -> None:
    source = giving(pa.table({"a": [1, 1], "b": [1, 2]}), metadata={"registry/key": ["a", "b"]})
    found = evaluated(world.materialize([source, *build_key_checks([source])]))
    assert (found.passed, facts(found)["expected"]) == (True, "unique a, b")


def test_references_are_compared_with_another_dataset_on_the_branch(world: World) -> None:
    airports = giving(pa.table({"faa": ["JFK", "EWR"]}), pa.table({"faa": ["JFK", "EWR", "LGA"]}), name="airports")
    flights = giving(*[pa.table({"origin": ["JFK", "LGA", "LGA", None]})] * 3, name="flights")
    checks = build_reference_checks([flights], columns="origin", to="airports", to_columns="faa", blocking=False)
    assets = [airports, flights, *checks]
    world.materialize([airports])
    found = evaluated(world.materialize(assets, "flights"))
    assert not found.passed
    assert facts(found)["expected"] == "origin in airports@v1"
    assert "| LGA | 2 |" in facts(found)["rows"]
    world.materialize([airports], branch="exp")
    assert evaluated(world.materialize(assets, "flights", branch="exp")).passed
    pinned = build_reference_checks([flights], columns="origin", to="airports@v1", to_columns="faa", blocking=False)
    assert not evaluated(world.materialize([airports, flights, *pinned], "flights", branch="exp")).passed


def test_a_check_of_one_partition_reads_that_partition(world: World) -> None:
    source = giving(pa.table({"id": [1]}), pa.table({"id": [2, 2]}), partitions_def=COLORS)
    checks = build_key_checks([source], columns="id", blocking=False, partitions_def=COLORS)
    assert evaluated(world.materialize([source, *checks], partition="red")).passed
    result = world.materialize([source, *checks], partition="green")
    found = evaluated(result)
    assert (found.passed, found.partition) == (False, "green")
    (recorded,) = settle_run(result.run_id, instance=world.instance, registry=world.resource).checks
    assert (recorded.partition, recorded.version) == ("green", 2)


def test_a_blocking_check_that_fails_taints_what_it_judged(world: World) -> None:
    source = giving(pa.table({"id": [1, 1]}))
    checks = build_key_checks([source], columns="id")
    result = dg.materialize(
        [source, *checks], instance=world.instance, resources=world.resources(), raise_on_error=False
    )
    assert not result.success
    settle_run(result.run_id, instance=world.instance, registry=world.resource)
    assert "the check key_is_unique failed on v1" in {taint.reason for taint in world.version("source").taints}
