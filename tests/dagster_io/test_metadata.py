"""What the Dagster UI shows: on each materialization, and on the assets' definitions. And use without a run."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource, describe_assets
from dataset_registry.dagster_io.metadata import SIDE_RUN, label, of_side_run
from dataset_registry.errors import NotFound, UnsupportedType
from tests.dagster_io.conftest import World, materialized, shown

COLORS = dg.StaticPartitionsDefinition(["red", "green", "blue"])
TABLE = pa.table({"id": [1, 2, 3], "name": ["ann", None, "eve"]})


def test_a_materialization_shows_the_version_its_costs_and_its_columns(world: World) -> None:
    @dg.asset(description="People we know", code_version="4")
    def people():
        return TABLE

    result = world.materialize([people])
    version = world.version("people")
    facts = shown(result, "people")
    (stored,) = version.paths()
    assert facts["registry/version"] == f"**v1** · `{(version.digest or '')[:8]}` on `main` · the first version"
    assert facts["registry/version_number"] == 1
    assert facts["registry/branch"] == "main"
    assert facts["registry/new_bytes"] == facts["dagster/size_bytes"] == stored.stat().st_size
    assert "registry/schema_changes" not in facts
    assert facts["dagster/row_count"] == 3
    assert "dagster/partition_row_count" not in facts
    assert "registry/inputs" not in facts
    assert [
        (c.name, c.type, c.constraints.nullable, c.description) for c in facts["dagster/column_schema"].columns
    ] == [
        ("id", "int64", True, "from 1 to 3"),
        ("name", "string", True, "from ann to eve; 1 nulls"),
    ]
    assert version.message == "Materialize people"
    assert version.provenance.code_version == "4"
    assert world.registry.dataset("people").description == "People we know"


def test_the_values_have_the_types_that_the_ui_renders(world: World) -> None:
    @dg.asset
    def source():
        return TABLE

    @dg.asset
    def sink(source: pa.Table) -> pa.Table:
        return source

    result = world.materialize([source, sink])
    types = {name: type(value) for name, value in materialized(result, "sink").metadata.items()}
    assert types == {
        "registry/version": dg.MarkdownMetadataValue,
        "registry/version_number": dg.IntMetadataValue,
        "registry/branch": dg.TextMetadataValue,
        "registry/new_bytes": dg.IntMetadataValue,
        "registry/inputs": dg.TableMetadataValue,
        "dagster/size_bytes": dg.IntMetadataValue,
        "dagster/row_count": dg.IntMetadataValue,
        "dagster/column_schema": dg.TableSchemaMetadataValue,
        "dagster/table_name": dg.TextMetadataValue,
        "dagster/uri": dg.TextMetadataValue,
    }


def test_parents_and_schema_changes_are_those_of_the_step_from_the_version_before(world: World) -> None:
    other = pa.table({"x": list(range(500))})
    values = iter([{"a": TABLE, "b": other}, {"a": TABLE.rename_columns(["id", "label"]), "b": other}])

    @dg.asset
    def source():
        return next(values)

    world.materialize([source])
    facts = shown(world.materialize([source]), "source")
    assert facts["registry/version"].endswith(" on `main` · from v1 · `dataset-registry diff source v1 v2`")
    assert "label" in facts["registry/schema_changes"]
    assert "name" in facts["registry/schema_changes"]
    new, total = facts["registry/new_bytes"], facts["dagster/size_bytes"]
    assert 0 < new < total == sum(c.size for c in world.version("source").components)
    assert "dagster/row_count" not in facts, "two tables with different columns are not one of 503 rows"
    assert "dagster/column_schema" not in facts


def test_the_version_links_to_the_pages_of_the_server_if_there_is_one(world: World) -> None:
    version = world.registry.create_dataset("a/source").commit({"x": b"1"})
    other = world.registry.dataset("a/source").commit({"x": b"2"})
    pages = DatasetRegistryResource(path="https://registry.example.com/").pages
    assert pages == "https://registry.example.com"
    assert DatasetRegistryResource(path="x", pages_url="http://localhost:8601").pages == "http://localhost:8601"
    assert world.resource.pages is None
    assert label(version, "main", pages=pages) == (
        f"**[v1]({pages}/datasets/a/source@v1)** · `{str(version.digest)[:8]}` on `main` · the first version"
        f" · [lineage]({pages}/datasets/a/source@v1/-/lineage)"
    )
    assert f"[diff]({pages}/datasets/a/source/compare/v1...v2)" in label(other, "main", pages=pages)
    side = of_side_run("pr/7", "main", None, pages)[SIDE_RUN].value
    assert f"[review]({pages}/reviews/new?branch=pr%2F7&target=main)" in side


def test_the_inputs_are_a_table_of_exact_versions(world: World) -> None:
    @dg.asset(partitions_def=COLORS)
    def source(context: dg.AssetExecutionContext):
        return pa.table({"key": [context.partition_key]})

    @dg.asset
    def sink(source: pa.Table) -> pa.Table:
        return source

    for key in COLORS.get_partition_keys():
        world.materialize([source], partition=key)
    result = world.materialize([source, sink], "sink")
    (row,) = shown(result, "sink")["registry/inputs"]
    assert row.data == {
        "input": "source@v3",
        "digest": (world.version("source").digest or "")[:12],
        "ref": "main",
        "partitions": "red, green, blue",
    }


def test_one_partition_shows_its_own_rows_and_bytes(world: World) -> None:
    @dg.asset(partitions_def=COLORS)
    def source(context: dg.AssetExecutionContext):
        return TABLE if context.partition_key == "red" else TABLE.slice(0, 1)

    world.materialize([source], partition="red")
    facts = shown(world.materialize([source], partition="green"), "source")
    assert facts["dagster/partition_row_count"] == 1
    assert "dagster/row_count" not in facts
    assert facts["dagster/size_bytes"] == world.version("source").paths("green")[0].stat().st_size
    assert facts["registry/version_number"] == 2


def test_each_partition_of_a_single_run_shows_its_own_rows_and_nothing_claims_to_be_the_whole_table(
    world: World,
) -> None:
    @dg.asset(partitions_def=COLORS, backfill_policy=dg.BackfillPolicy.single_run())
    def source():
        return {"red": TABLE, "green": TABLE.slice(0, 1)}

    result = world.materialize([source], span=("red", "green"))
    facts = {key: shown(result, "source", key) for key in ("red", "green")}
    assert {key: f.get("dagster/partition_row_count") for key, f in facts.items()} == {"red": 3, "green": 1}
    assert all("dagster/row_count" not in f for f in facts.values())


def test_the_version_is_markdown_short_enough_to_be_shown_inline(world: World) -> None:
    @dg.asset
    def source():
        return TABLE

    facts = shown(world.materialize([source], branch="b" * 255), "source")
    assert len(facts["registry/version"]) < 1000
    assert "b" * 255 in facts["registry/version"]


def test_values_of_a_column_are_not_markup_in_its_description(world: World) -> None:
    @dg.asset
    def people():
        return pa.table({"<b>|`x": ["<img src=https://e.example/x.png>", "[click](https://e.example)\n\n# big"]})

    facts = shown(world.materialize([people]), "people")
    (column,) = facts["dagster/column_schema"].columns
    assert column.name == "<b>|`x"  # the UI shows names and types as they are
    assert column.description == r"from `<img src=https://e.example/x.png>` to `[click](https://e.example)\n\n# big`"


def test_metadata_that_an_asset_adds_itself_stays_and_what_was_measured_is_shown(world: World) -> None:
    @dg.asset
    def added(context: dg.AssetExecutionContext):
        context.add_output_metadata({"mine": 1, "dagster/row_count": 42})
        return TABLE

    @dg.asset
    def yielded():
        return dg.Output(TABLE, metadata={"mine": 2, "dagster/row_count": 43})

    result = world.materialize([added, yielded])
    for name, mine in (("added", 1), ("yielded", 2)):
        facts = shown(result, name)
        assert facts["mine"] == mine
        assert facts["dagster/row_count"] == 3
        assert facts["registry/version_number"] == 1


def test_a_plain_file_shows_its_size_and_no_rows(world: World, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")

    @dg.asset
    def model() -> Path:
        return tmp_path / "model.bin"

    facts = shown(world.materialize([model]), "model")
    assert facts["dagster/size_bytes"] == 7
    assert "dagster/row_count" not in facts
    assert "dagster/column_schema" not in facts


def test_an_op_output_carries_the_registrys_facts_too(world: World) -> None:
    @dg.op
    def extract():
        return TABLE

    @dg.job(resource_defs=world.resources())
    def etl():
        extract()

    result = etl.execute_in_process(instance=world.instance)
    (handled,) = [e for e in result.all_node_events if e.event_type_value == "HANDLED_OUTPUT"]
    assert handled.event_specific_data.metadata["registry/version_number"].value == 1
    assert result.success


# --- definitions ---------------------------------------------------------------------------------------------------


def test_describe_assets_puts_the_place_on_definitions_and_keeps_the_rest() -> None:
    @dg.asset(key_prefix="raw", metadata={"owner": "me"})
    def people():
        return TABLE

    @dg.asset(metadata={"registry/dataset": "elsewhere/towns"})
    def towns(): ...

    spec = dg.AssetSpec("outside")
    described = describe_assets([people, towns, spec], registry=DatasetRegistryResource(path="/data/registry/"))
    metadata = {
        key.to_user_string(): dict(spec.metadata)
        for asset in described
        for key, spec in (
            asset.specs_by_key.items() if isinstance(asset, dg.AssetsDefinition) else [(asset.key, asset)]
        )
    }
    assert metadata["raw/people"]["owner"] == "me"
    assert {name: (m["dagster/table_name"], m["dagster/uri"]) for name, m in metadata.items()} == {
        "raw/people": ("raw/people", "/data/registry#raw/people"),
        "towns": ("elsewhere/towns", "/data/registry#elsewhere/towns"),
        "outside": ("outside", "/data/registry#outside"),
    }
    dg.Definitions(assets=described).resolve_asset_graph()


def test_described_assets_run_like_the_others(world: World) -> None:
    @dg.asset
    def source():
        return TABLE

    @dg.asset
    def sink(source: pl.DataFrame) -> pl.DataFrame:
        return source

    described = describe_assets([source, sink], registry=world.resource)
    world.materialize(described)
    assert world.version("sink").to_arrow().num_rows == 3


def test_the_place_is_the_store_when_the_registry_is_on_a_server() -> None:
    @dg.asset
    def source():
        return TABLE

    registry = DatasetRegistryResource(catalog="postgresql+psycopg://u:secret@h/db", store="file:///data/store")
    (described,) = describe_assets([source], registry=registry)
    assert described.metadata_by_key[source.key]["dagster/uri"] == "file:///data/store#source"


def test_a_place_given_by_an_environment_variable_is_its_value_not_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE_THE_REGISTRY_IS", "/data/registry")

    @dg.asset
    def source():
        return TABLE

    registry = DatasetRegistryResource(path=dg.EnvVar("WHERE_THE_REGISTRY_IS"))
    (described,) = describe_assets([source], registry=registry)
    assert described.metadata_by_key[source.key]["dagster/uri"] == "/data/registry#source"


# --- without a run -------------------------------------------------------------------------------------------------


@pytest.fixture
def manager(world: World) -> DatasetRegistryIOManager:
    return DatasetRegistryIOManager(registry=world.resource)


def _typed(kind: Any) -> dg.DagsterType:
    return dg.PythonObjectDagsterType(kind)


def test_the_io_manager_works_with_built_contexts(world: World, manager: DatasetRegistryIOManager) -> None:
    key = dg.AssetKey(["raw", "people"])
    written = dg.build_output_context(asset_key=key)
    manager.handle_output(written, TABLE)
    assert written.get_logged_metadata()["registry/version_number"].value == 1
    assert world.version("raw/people").to_arrow().equals(TABLE)
    read = dg.build_input_context(asset_key=key, dagster_type=_typed(pl.DataFrame))
    assert manager.load_input(read)["id"].to_list() == [1, 2, 3]


def test_an_input_context_may_go_without_a_type(manager: DatasetRegistryIOManager) -> None:
    key = dg.AssetKey("people")
    manager.handle_output(dg.build_output_context(asset_key=key), TABLE)
    assert manager.load_input(dg.build_input_context(asset_key=key)).equals(TABLE)


def test_an_input_context_may_name_the_upstream_output(manager: DatasetRegistryIOManager) -> None:
    written = dg.build_output_context(
        asset_key=dg.AssetKey("people"), definition_metadata={"registry/dataset": "elsewhere"}
    )
    manager.handle_output(written, TABLE)
    read = dg.build_input_context(
        asset_key=dg.AssetKey("people"), upstream_output=written, dagster_type=_typed(pa.Table)
    )
    assert manager.load_input(read).equals(TABLE)


def test_built_contexts_may_have_a_ref_and_a_partition(world: World, manager: DatasetRegistryIOManager) -> None:
    key = dg.AssetKey("people")
    for rows in (1, 2):
        context = dg.build_output_context(asset_key=key, partition_key="red", asset_partitions_def=COLORS)
        manager.handle_output(context, TABLE.slice(0, rows))
    assert [c.name for c in world.version("people").components] == ["red"]

    def load(**options: Any) -> int:
        context = dg.build_input_context(
            asset_key=key,
            asset_partitions_def=COLORS,
            asset_partition_key_range=dg.PartitionKeyRange("red", "red"),
            partition_key="red",
            dagster_type=_typed(pa.Table),
            **options,
        )
        return manager.load_input(context).num_rows

    assert load() == 2
    assert load(definition_metadata={"registry/ref": "v1"}) == 1
    with pytest.raises(NotFound, match="v9"):
        load(definition_metadata={"registry/ref": "v9"})


def test_an_output_that_is_no_asset_works_with_a_built_context(world: World, manager: DatasetRegistryIOManager) -> None:
    context = dg.build_output_context(step_key="extract", name="result", run_id="12ab")
    manager.handle_output(context, TABLE)
    read = dg.build_input_context(upstream_output=context, dagster_type=_typed(pa.Table))
    assert manager.load_input(read).equals(TABLE)
    assert [d.name for d in world.registry.datasets()] == ["runs/12ab/extract/result"]


def test_none_is_an_error_without_a_run_as_well(manager: DatasetRegistryIOManager) -> None:
    with pytest.raises(UnsupportedType, match="people returned None"):
        manager.handle_output(dg.build_output_context(asset_key=dg.AssetKey("people")), None)


def test_an_asset_function_can_use_the_resource_itself(world: World) -> None:
    @dg.asset
    def newest(registry: DatasetRegistryResource) -> None:
        registry.registry.create_dataset("by/hand").commit({"data": TABLE})

    world.materialize([newest])
    assert world.version("by/hand").to_arrow().equals(TABLE)
