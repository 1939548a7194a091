"""Write modes: an output replaces the rows that are there, is added to them, or replaces those with the same key."""

from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from dataset_registry.dagster_io import describe_assets
from dataset_registry.errors import InputError
from tests.dagster_io.conftest import World, data_version, refused, shown

COLORS = dg.StaticPartitionsDefinition(["red", "green"])


def asset(outputs: list[Any], mode: str | None, key: str | None = "id", **options: Any) -> dg.AssetsDefinition:
    """An asset that returns these, one in each run."""
    given = iter(outputs)
    facts = {"registry/write_mode": mode} if mode else {}

    @dg.asset(metadata=facts | ({"registry/key": key} if key else {}), **options)
    def source():
        return next(given)

    return source


def rows(ids: list[int], values: list[int]) -> pa.Table:
    return pa.table({"id": ids, "v": values})


def held(world: World, component: str = "data") -> list[tuple[int, int]]:
    return [tuple(row.values()) for row in world.version("source").to_arrow(component).to_pylist()]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (None, [(2, 20), (3, 3)]),
        ("overwrite", [(2, 20), (3, 3)]),
        ("upsert", [(1, 1), (2, 20), (3, 3)]),
    ],
)
def test_rows_are_replaced_as_the_mode_says(world: World, mode: str | None, expected: list[tuple[int, int]]) -> None:
    source = asset([rows([1, 2], [1, 2]), rows([2, 3], [20, 3])], mode)
    world.materialize([source])
    result = world.materialize([source])
    assert held(world) == expected
    assert data_version(result, "source") == world.version("source").digest
    assert shown(result, "source")["dagster/row_count"] == len(expected)


@pytest.mark.parametrize("kind", [pa.Table.from_pylist, pl.DataFrame, pd.DataFrame])
def test_rows_are_appended_whatever_holds_them(world: World, kind: Any) -> None:
    source = asset([kind([{"id": 1, "v": 1}]), kind([{"id": 2, "v": 2}])], "append")
    for _ in range(2):
        world.materialize([source])
    assert held(world) == [(1, 1), (2, 2)]
    assert world.version("source").number == 2


def test_a_key_that_is_there_is_not_appended(world: World) -> None:
    source = asset([rows([1], [1]), rows([1], [2])], "append")
    world.materialize([source])
    with refused(InputError, "already"):
        world.materialize([source])
    assert held(world) == [(1, 1)]


def test_every_partition_is_written_by_the_mode(world: World) -> None:
    outputs = [rows([1], [1]), rows([1], [5]), rows([1, 2], [10, 2])]
    source = asset(outputs, "upsert", partitions_def=COLORS)
    for key in ("red", "green", "red"):
        world.materialize([source], partition=key)
    assert held(world, "red") == [(1, 10), (2, 2)]
    assert held(world, "green") == [(1, 5)]


def test_several_components_of_a_partition_are_not_edited(world: World) -> None:
    source = asset([{"a": rows([1], [1]), "b": rows([1], [1])}], "append", partitions_def=COLORS)
    with refused(InputError, "several components"):
        world.materialize([source], partition="red")


def test_no_rows_to_append_make_no_version(world: World) -> None:
    source = asset([rows([1], [1]), rows([], []).cast(rows([1], [1]).schema)], "append")
    world.materialize([source])
    assert "(unchanged)" in shown(world.materialize([source]), "source")["registry/version"]
    assert world.version("source").number == 1


def test_an_upsert_needs_a_key(world: World) -> None:
    with refused(InputError, "key"):
        world.materialize([asset([rows([1], [1])], "upsert", key=None)])
    assert world.registry.datasets() == []


def test_an_unknown_mode_is_an_error_in_the_run_and_when_definitions_load(world: World) -> None:
    source = asset([rows([1], [1])], "replace")
    with refused(InputError, "unknown registry/write_mode 'replace'.*overwrite, append, upsert"):
        world.materialize([source])
    with pytest.raises(InputError, match="replace"):
        describe_assets([source], registry=world.resource)
