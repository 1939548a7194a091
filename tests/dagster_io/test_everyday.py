"""What Dagster users pass and ask for every day: words, types, partitions and names that mean one thing."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional, Union

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource, describe_assets
from dataset_registry.dagster_io.handlers import Wanted, understood
from dataset_registry.errors import InputError, InvalidName, NotFound, UnsupportedType
from tests.dagster_io.conftest import World, materialized, refused, shown

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-04")
COLORS = dg.StaticPartitionsDefinition(["red", "green", "blue"])
TABLE = pa.table({"id": [1, 2], "name": ["a", "b"]})


def by_day(kind: Any, seen: list[Any]) -> dg.AssetsDefinition:
    """An asset that reads its own partition of the day before, as `kind`."""

    def running(context: dg.AssetExecutionContext, running: Any) -> pa.Table:
        seen.append(running)
        return pa.table({"day": [context.partition_key]})

    running.__annotations__ = {"context": dg.AssetExecutionContext, "return": pa.Table} | (
        {} if kind is None else {"running": kind}
    )
    mapping = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
    return dg.asset(partitions_def=DAYS, ins={"running": dg.AssetIn("running", partition_mapping=mapping)})(running)


@pytest.mark.parametrize("kind", [None, Optional[pd.DataFrame], pd.DataFrame | None])  # noqa: UP045
def test_an_asset_that_reads_its_own_day_before_starts_with_none(world: World, kind: Any) -> None:
    seen: list[Any] = []
    asset = by_day(kind, seen)
    for day in ("2024-01-01", "2024-01-02"):
        world.materialize([asset], partition=day)
    assert seen[0] is None
    assert len(seen[1]) == 1


@pytest.mark.parametrize("kind", [pa.Table, pd.DataFrame, pl.DataFrame])
def test_an_asset_that_reads_its_own_day_before_starts_with_an_empty_table(world: World, kind: Any) -> None:
    seen: list[Any] = []
    asset = by_day(kind, seen)
    world.materialize([asset], partition="2024-01-01")
    world.materialize([asset], partition="2024-01-01")
    assert [type(frame) for frame in seen] == [kind, kind]
    assert [len(frame) for frame in seen] == [0, 0]
    assert list(seen[1].columns if kind is not pa.Table else seen[1].column_names) == ["day"], (
        "the columns are known now"
    )


class Orders(pd.DataFrame):
    """A frame of a project's own."""


def read_as(world: World, value: Any, kind: dg.DagsterType) -> Any:
    """What an asset gets whose input has this Dagster type. (A union in an annotation Dagster itself refuses.)"""
    seen: list[Any] = []

    @dg.asset
    def source():
        return value

    @dg.asset(ins={"source": dg.AssetIn(dagster_type=kind)})
    def sink(source) -> None:
        seen.append(source)

    world.materialize([source, sink])
    return seen[0]


def test_unions_and_subclasses_are_understood(world: World) -> None:
    either = dg.PythonObjectDagsterType((pl.DataFrame, pd.DataFrame))
    assert type(read_as(world, pd.DataFrame({"x": [1]}), either)) is pd.DataFrame
    assert type(read_as(world, pl.DataFrame({"x": [1]}), either)) is pl.DataFrame
    assert type(read_as(world, pa.table({"x": [1]}), either)) is pl.DataFrame, "neither: the first of them"
    assert type(world.received(pd.DataFrame({"x": [1]}), Orders)) is Orders


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (Optional[pl.DataFrame], Wanted((pl.DataFrame,), is_optional=True)),  # noqa: UP045
        (pl.DataFrame | None, Wanted((pl.DataFrame,), is_optional=True)),
        (Union[pl.DataFrame, pd.DataFrame], Wanted((pl.DataFrame, pd.DataFrame))),  # noqa: UP007
        (dict[str, pl.DataFrame | None], Wanted((pl.DataFrame,), is_optional=True, is_mapping=True)),
        (dict[str, pl.DataFrame | pd.DataFrame], Wanted((pl.DataFrame, pd.DataFrame), is_mapping=True)),
        (Optional[dict[str, pa.Table]], Wanted((pa.Table,), is_optional=True, is_mapping=True)),  # noqa: UP045
        (list[pa.Table], Wanted((pa.Table,))),
        (Any, Wanted()),
        (None, Wanted()),
    ],
)
def test_an_annotation_says_what_is_wanted(kind: Any, wanted: Wanted) -> None:
    assert understood(kind) == wanted


@pytest.mark.parametrize(
    ("default", "value", "expected"),
    [
        ("as stored", pd.DataFrame({"x": [1]}), pd.DataFrame),
        ("as stored", pl.DataFrame({"x": [1]}), pl.DataFrame),
        ("as stored", pa.table({"x": [1]}), pa.Table),
        ("pandas", pa.table({"x": [1]}), pd.DataFrame),
        ("pyarrow", pd.DataFrame({"x": [1]}), pa.Table),
    ],
)
def test_the_io_manager_says_what_inputs_without_annotation_are(
    world: World, default: str, value: Any, expected: type
) -> None:
    seen: list[Any] = []

    @dg.asset
    def source():
        return value

    @dg.asset
    def sink(source) -> None:
        seen.append(source)

    manager = DatasetRegistryIOManager(registry=world.resource, default_load_type=default)
    dg.materialize([source, sink], resources={"io_manager": manager}, instance=world.instance)
    assert type(seen[0]) is expected


def test_an_unknown_default_is_an_error_where_it_is_written(world: World) -> None:
    with pytest.raises(Exception, match=r"'panda' is not a default_load_type.*'as stored', 'pyarrow', 'pandas'"):
        DatasetRegistryIOManager(registry=world.resource, default_load_type="panda")


def test_a_mistyped_setting_is_an_error_where_it_is_written(world: World) -> None:
    with pytest.raises(ValueError, match=r"DatasetRegistryResource has no setting 'brnch'\. Did you mean 'branch'\?"):
        DatasetRegistryResource(path="reg", brnch="dev")
    with pytest.raises(ValueError, match="DatasetRegistryIOManager has no setting 'default_type'"):
        DatasetRegistryIOManager(registry=world.resource, default_type="pandas")


@pytest.mark.parametrize("settings", [{}, {"path": "reg"}, {"prefix": "raw/"}])
def test_an_io_manager_without_a_registry_is_an_error_where_it_is_written(settings: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"needs a registry: DatasetRegistryIOManager\(registry=DatasetRegistryResource"
    ):
        DatasetRegistryIOManager(**settings)


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (pd.Series([1]), 'value.to_frame("value")'),
        (pl.Series([1]), "pl.DataFrame"),
        (np.array([1, 2]), 'pa.table({"value": value})'),
        (np.zeros((2, 2)), "pd.DataFrame(value)"),
        (3.5, 'pa.table({"value": [value]})'),
    ],
    ids=["pandas", "polars", "array", "matrix", "number"],
)
def test_a_column_or_a_number_is_refused_with_the_lines_that_store_it(world: World, value: Any, lines: str) -> None:
    with pytest.raises(UnsupportedType) as caught:
        world.received(value)
    cause = caught.value
    assert lines in str(cause)
    shown_lines = [line.strip() for line in str(cause).splitlines()[1:]]
    assert len(shown_lines) == 3
    names: dict[str, Any] = {"value": value}
    exec("\n".join(["def f(value):", *(f"    {line}" for line in shown_lines)]), names)
    world.received(names["f"](value))


def test_columns_and_missing_partitions_are_asked_for_in_dagsters_words(world: World) -> None:
    seen: list[Any] = []

    @dg.asset(partitions_def=COLORS)
    def source(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return pl.DataFrame({"color": [context.partition_key], "n": [1], "unused": [2]})

    @dg.asset(ins={"source": dg.AssetIn(metadata={"columns": ["color", "n"], "allow_missing_partitions": True})})
    def sink(source: pl.LazyFrame) -> None:
        seen.append(source.collect())

    for color in ("red", "blue"):
        world.materialize([source], partition=color)
    world.materialize([source, sink], "sink")
    assert seen[0].to_dict(as_series=False) == {"color": ["red", "blue"], "n": [1, 1]}


def test_a_partition_expression_may_be_in_any_letter_case(world: World) -> None:
    @dg.asset(
        partitions_def=COLORS, metadata={"PARTITION_EXPR": "color"}, backfill_policy=dg.BackfillPolicy.single_run()
    )
    def source() -> pa.Table:
        return pa.table({"COLOR": ["red", "green", "blue"]})

    world.materialize([source], span=("red", "blue"))
    assert [c.name for c in world.version("source").components] == ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("registry/datset", "registry/dataset"),
        ("registry/Key", "registry/key"),
        ("dataset_registry/ref", "registry/ref"),
    ],
)
def test_a_misspelt_key_of_metadata_is_an_error_with_the_nearest_one(world: World, key: str, meant: str) -> None:
    @dg.asset(metadata={key: "x"})
    def source() -> pa.Table:
        return TABLE

    with refused(InputError, f"{key}.*Did you mean '{meant}'"):
        world.materialize([source])
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        describe_assets([source], registry=world.resource)
    assert world.registry.datasets() == []


def test_a_misspelt_run_tag_is_an_error(world: World) -> None:
    @dg.asset
    def source() -> pa.Table:
        return TABLE

    with refused(InputError, "dataset-registry/branch.*Did you mean 'registry/branch'"):
        dg.materialize(
            [source], resources=world.resources(), instance=world.instance, tags={"dataset-registry/branch": "dev"}
        )
    assert world.registry.datasets() == []


def test_an_asset_check_of_one_partition_gets_that_partition(world: World) -> None:
    seen: list[Any] = []

    @dg.asset(partitions_def=COLORS)
    def source(context: dg.AssetExecutionContext) -> pa.Table:
        return pa.table({"color": [context.partition_key]})

    @dg.asset_check(asset=source)
    def one_row(source: pa.Table) -> dg.AssetCheckResult:
        seen.append(source["color"].to_pylist())
        return dg.AssetCheckResult(passed=source.num_rows == 1)

    for color in ("red", "green"):
        defs = dg.Definitions(assets=[source], asset_checks=[one_row], resources=world.resources())
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=world.instance, partition_key=color
        )
        assert all(check.passed for check in result.get_asset_check_evaluations())
    assert seen == [["red"], ["green"]]


def test_partitions_load_in_the_order_of_their_definition(world: World) -> None:
    months = dg.TimeWindowPartitionsDefinition(start="01-2024", end="04-2024", fmt="%m-%Y", cron_schedule="0 0 1 * *")
    ordered = dg.StaticPartitionsDefinition(["small", "medium", "large"])
    seen: list[Any] = []
    for definition in (months, ordered):

        @dg.asset(name=f"source_{len(seen)}", partitions_def=definition)
        def source(context: dg.AssetExecutionContext) -> pa.Table:
            return pa.table({"key": [context.partition_key]})

        @dg.asset(name=f"sink_{len(seen)}", ins={"given": dg.AssetIn(source.key)})
        def sink(given: pa.Table) -> None:
            seen.append(given["key"].to_pylist())

        keys = definition.get_partition_keys()
        for key in reversed(keys):
            world.materialize([source], partition=key)
        world.materialize([source, sink], sink.key.to_user_string())
        assert seen[-1] == list(keys)


def test_metadata_of_a_partitions_event_are_of_that_partition(world: World) -> None:
    @dg.asset(partitions_def=COLORS, backfill_policy=dg.BackfillPolicy.single_run())
    def source() -> dict[str, pa.Table]:
        return {color: pa.table({"n": [len(color)] * rows}) for color, rows in (("red", 1), ("green", 2), ("blue", 3))}

    result = world.materialize([source], span=("red", "blue"))
    by_color = {}
    for event in result.get_asset_materialization_events():
        found = event.materialization.metadata
        by_color[event.partition] = (
            found["dagster/partition_row_count"].value,
            found["dagster/column_schema"].value.columns[0].description,  # type: ignore[union-attr]
        )
        assert 0 < found["dagster/size_bytes"].value < 2_000  # type: ignore[operator]
    assert by_color == {"red": (1, "from 3 to 3"), "green": (2, "from 5 to 5"), "blue": (3, "from 4 to 4")}


def test_two_sheets_are_not_one_table(world: World, tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "book.xlsx") as book:
        pd.DataFrame({"a": [1, 2]}).to_excel(book, sheet_name="one", index=False)
        pd.DataFrame({"b": [1, 2, 3]}).to_excel(book, sheet_name="two", index=False)

    @dg.asset
    def source() -> Path:
        return tmp_path / "book.xlsx"

    assert "dagster/row_count" not in shown(world.materialize([source]), "source")


def test_read_options_are_metadata_of_an_asset(world: World, tmp_path: Path) -> None:
    (tmp_path / "codes.csv").write_text("zip;n\n2134;1\n")

    @dg.asset(metadata={"registry/read": {"delimiter": ";", "types": {"zip": "string"}}})
    def source() -> Path:
        return tmp_path / "codes.csv"

    world.materialize([source])
    assert world.version("source").to_arrow().to_pylist() == [{"zip": "2134", "n": 1}]


def test_an_output_of_an_op_may_name_its_dataset(world: World) -> None:
    @dg.op(out=dg.Out(metadata={"registry/dataset": "from/op"}))
    def make() -> pa.Table:
        return TABLE

    @dg.op
    def use(table: pa.Table) -> None:
        assert table.equals(TABLE)

    @dg.job(resource_defs=dict(dg.Definitions(resources=world.resources()).resources or {}))
    def job() -> None:
        use(make())

    job.execute_in_process(instance=world.instance)
    assert [dataset.name for dataset in world.registry.datasets()] == ["from/op"]


def source_and_sink() -> tuple[dg.AssetsDefinition, dg.AssetsDefinition]:
    @dg.asset
    def source() -> pa.Table:
        return TABLE

    @dg.asset
    def sink(source: pa.Table) -> None:
        pass

    return source, sink


def test_where_a_dataset_is_shows_without_describing_assets(world: World) -> None:
    source, sink = source_and_sink()
    result = world.materialize([source, sink])
    found = materialized(result, "source").metadata
    assert found["dagster/table_name"].value == "source"
    assert str(found["dagster/uri"].value).endswith("#source")
    (loaded,) = [e for e in result.all_events if e.event_type_value == "LOADED_INPUT"]
    metadata = loaded.event_specific_data.metadata  # type: ignore[union-attr]
    assert metadata["registry/version"].value == "source@v1"
    assert metadata["registry/ref"].value == "main"


def test_a_missing_upstream_is_told_in_dagsters_words(world: World) -> None:
    source, sink = source_and_sink()
    with refused(NotFound, "The asset 'source' has not been materialized.*Optional"):
        world.materialize([source, sink], "sink")


# --- one name, one thing -------------------------------------------------------------------------------------------------


def made(key: list[str], metadata: dict[str, Any] | None = None) -> dg.AssetsDefinition:
    @dg.multi_asset(name=f"asset_{abs(hash(tuple(key)))}", outs={"out": dg.AssetOut(key=key, metadata=metadata)})
    def asset() -> pa.Table:
        return pa.table({"key": [repr(key)]})

    return asset


def test_a_slash_in_a_part_of_a_key_is_not_a_slash_between_parts(world: World) -> None:
    for key in (["x", "y"], ["x/y"], ["x=2Fy"], ["x=3D2Fy"], ["x=y"]):
        world.materialize([made(key)])
    assert [dataset.name for dataset in world.registry.datasets()] == ["x/y", "x=2Fy", "x=3D2Fy", "x=3D3D2Fy", "x=y"]
    assert all(len(dataset.tree()) == 1 for dataset in world.registry.datasets())


def test_two_assets_that_mean_one_dataset_are_an_error_that_names_both(world: World) -> None:
    assets = [made(["a"]), made(["b"], {"registry/dataset": "a"})]
    with refused(InputError, "The assets 'a' and 'b' are both the dataset 'a'"):
        world.materialize(assets)
    with pytest.raises(InputError, match="The assets 'a' and 'b'"):
        describe_assets(assets, registry=world.resource)
    assert world.registry.datasets() == []


def test_keys_that_meet_in_unicodes_normal_form_are_refused_when_definitions_load(world: World) -> None:
    with pytest.raises(InputError, match="are both the dataset"):
        describe_assets([made(["caf\u00e9"]), made(["cafe\u0301"])], registry=world.resource)

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["caf\u00e9", "cafe\u0301"]))
    def source() -> pa.Table:
        return TABLE

    with pytest.raises(InvalidName, match="the same text in Unicode"):
        describe_assets([source], registry=world.resource)


@pytest.mark.parametrize("key", [" outer", "a//b", "a\u200bb"])
def test_partition_keys_that_cannot_be_components_are_refused_when_definitions_load(world: World, key: str) -> None:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition([key]))
    def source() -> pa.Table:
        return TABLE

    with pytest.raises(InvalidName, match=r"The asset 'source' has the partition .*(Remove it|Rename it)"):
        describe_assets([source], registry=world.resource)


@pytest.mark.parametrize("key", ["می\u200cخواهم", "👩\u200d💻"])
def test_joiners_that_persian_and_emoji_need_are_part_of_a_partition(world: World, key: str) -> None:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition([key]))
    def source() -> pa.Table:
        return TABLE

    world.materialize([source], partition=key)
    assert [c.name for c in world.version("source").components] == [key]


def test_an_asset_that_becomes_partitioned_loses_what_it_held_as_a_whole(world: World) -> None:
    def asset(partitions: Any) -> dg.AssetsDefinition:
        @dg.asset(partitions_def=partitions)
        def source(context: dg.AssetExecutionContext) -> pa.Table:
            return pa.table({"color": [context.partition_key if context.has_partition_key else "all"]})

        return source

    world.materialize([asset(None)])
    partitioned = asset(dg.StaticPartitionsDefinition(["red", "data"]))
    world.materialize([partitioned], partition="red")
    assert [c.name for c in world.version("source").components] == ["red"]
    world.materialize([partitioned], partition="data")
    assert sorted(world.version("source").to_polars()["color"]) == ["data", "red"], "one called data hides no other"
    world.materialize([asset(None)])
    assert world.version("source").to_arrow()["color"].to_pylist() == ["all"]


def test_many_threads_create_one_new_registry(tmp_path: Path) -> None:
    start, errors = threading.Barrier(4), []

    def create() -> None:
        start.wait()
        try:
            with Registry.open(tmp_path / "registry") as registry:
                registry.datasets()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_resource_may_be_shared_by_threads_that_use_it_first(tmp_path: Path) -> None:
    found: list[Callable[[], Any]] = []

    def use() -> None:
        found.append(DatasetRegistryResource(path=str(tmp_path / "shared")).registry.datasets)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [datasets() for datasets in found] == [[], [], [], []]
