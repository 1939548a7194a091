"""Data versions, staleness by Dagster's own resolver, unchanged reruns and recorded lineage."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from dataset_registry import Version
from dataset_registry.errors import NotFound
from dataset_registry.model.manifest import Entry, entries_digest
from dataset_registry.model.records import InputVersion
from tests.dagster_io.conftest import World, data_version, refused, shown

COLORS = dg.StaticPartitionsDefinition(["red", "green", "blue"])


class Cell:
    """What a source returns now."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def asset(self, **options: Any) -> dg.AssetsDefinition:
        @dg.asset(**options)
        def source(context: dg.AssetExecutionContext):
            if "partitions_def" not in options:
                return pa.table({"n": [self.value]})
            tables = {key: pa.table({"key": [key], "n": [self.value]}) for key in context.partition_keys}
            return tables if len(tables) > 1 else tables[context.partition_key]

        return source


def status(world: World, assets: Sequence[Any], key: str, partition: str | None = None) -> StaleStatus:
    """Stale or not, as the Dagster UI shows it."""
    graph = dg.Definitions(assets=assets).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(world.instance, graph, LoadingContextForTest(world.instance))
    return resolver.get_status(dg.AssetKey(key), partition)


def digest_of(version: Version, *names: str) -> str:
    """The digest that a version of just these components would have."""
    return entries_digest(
        Entry(c.name, c.index, c.type, c.content_hash or "", c.format, None)
        for c in version.components
        if c.name in names
    )


# --- the data version ----------------------------------------------------------------------------------------------


def test_the_data_version_of_an_unpartitioned_asset_is_the_versions_digest(world: World) -> None:
    result = world.materialize([Cell(1).asset()])
    assert data_version(result, "source") == world.version("source").digest


def test_the_data_version_of_a_partition_is_the_digest_of_its_entries_alone(world: World) -> None:
    source = Cell(1).asset(partitions_def=COLORS)
    alone = data_version(world.materialize([source], partition="red"), "source")
    world.materialize([source], partition="green")
    again = data_version(world.materialize([source], partition="red"), "source")
    version = world.version("source")
    assert alone == again == digest_of(version, "red") != version.digest


def test_the_data_version_of_a_single_run_is_the_digest_over_its_partitions(world: World) -> None:
    source = Cell(1).asset(partitions_def=COLORS, backfill_policy=dg.BackfillPolicy.single_run())
    world.materialize([source], partition="blue")
    result = world.materialize([source], span=("red", "green"))
    version = world.version("source")
    found = {data_version(result, "source", key) for key in ("red", "green")}
    assert found == {digest_of(version, "red", "green")}
    assert version.component_count == 3


@pytest.mark.filterwarnings("ignore:Parameter `data_version`")  # beta in Dagster, reported where it is used
def test_the_data_version_that_an_asset_gives_itself_wins(world: World) -> None:
    @dg.asset
    def source():
        return dg.Output(pa.table({"n": [1]}), data_version=dg.DataVersion("mine"))

    assert data_version(world.materialize([source]), "source") == "mine"
    assert world.version("source").number == 1


def test_every_output_of_a_multi_asset_has_the_data_version_of_its_own_content(world: World) -> None:
    @dg.multi_asset(outs={"left": dg.AssetOut(), "right": dg.AssetOut()})
    def pair():
        return pa.table({"n": [1]}), pa.table({"n": [2]})

    result = world.materialize([pair])
    assert data_version(result, "left") == world.version("left").digest
    assert data_version(result, "right") == world.version("right").digest != world.version("left").digest


# --- staleness -----------------------------------------------------------------------------------------------------


@dg.asset
def sink(source: pa.Table) -> pa.Table:
    return source


def test_downstream_is_stale_after_a_changed_rerun_and_not_after_an_identical_one(fresh: World) -> None:
    cell = Cell(1)
    assets = [cell.asset(), sink]
    assert status(fresh, assets, "sink") is StaleStatus.MISSING
    fresh.materialize(assets)
    assert status(fresh, assets, "sink") is StaleStatus.FRESH
    fresh.materialize(assets, "source")
    assert status(fresh, assets, "sink") is StaleStatus.FRESH
    cell.value = 2
    fresh.materialize(assets, "source")
    assert status(fresh, assets, "sink") is StaleStatus.STALE
    fresh.materialize(assets, "sink")
    assert status(fresh, assets, "sink") is StaleStatus.FRESH


def test_a_downstream_partition_is_not_stale_after_its_neighbour_changed_and_it_was_written_again(fresh: World) -> None:
    cell = Cell(1)

    @dg.asset(partitions_def=COLORS)
    def sink(source: pa.Table) -> pa.Table:
        return source

    assets = [cell.asset(partitions_def=COLORS), sink]
    fresh.materialize(assets, partition="red")
    fresh.materialize(assets, "source", partition="green")
    assert status(fresh, assets, "sink", "red") is StaleStatus.FRESH
    fresh.materialize(assets, "source", partition="red")
    assert status(fresh, assets, "sink", "red") is StaleStatus.FRESH, "identical content, in a version with a neighbour"
    cell.value = 2
    fresh.materialize(assets, "source", partition="red")
    assert status(fresh, assets, "sink", "red") is StaleStatus.STALE


def test_an_unpartitioned_downstream_is_stale_only_after_one_of_the_partitions_changed(fresh: World) -> None:
    cell = Cell(1)
    assets = [cell.asset(partitions_def=COLORS), sink]
    for key in COLORS.get_partition_keys():
        fresh.materialize(assets, "source", partition=key)
    fresh.materialize(assets, "sink")
    fresh.materialize(assets, "source", partition="red")
    assert status(fresh, assets, "sink") is StaleStatus.FRESH
    cell.value = 2
    fresh.materialize(assets, "source", partition="green")
    assert status(fresh, assets, "sink") is StaleStatus.STALE


# --- an unchanged rerun --------------------------------------------------------------------------------------------


def test_an_unchanged_rerun_makes_no_version_and_no_bytes_but_a_production_of_its_own(world: World) -> None:
    cell = Cell(1)
    source = cell.asset()

    @dg.asset(code_version="7")
    def constant(source: pa.Table) -> pa.Table:
        return pa.table({"always": ["the same"]})

    first = world.materialize([source, constant])
    cell.value = 2
    world.materialize([source])
    stored = {path for path in (world.folder / "objects").rglob("*") if path.is_file()}
    second = world.materialize([source, constant], "constant")
    assert {path for path in (world.folder / "objects").rglob("*") if path.is_file()} == stored
    version = world.version("constant")
    assert version.number == 1
    made, found = version.productions
    assert (made.unchanged, found.unchanged) == (False, True)
    assert (made.provenance.run_id, found.provenance.run_id) == (first.run_id, second.run_id)
    assert [p.provenance.inputs[0].version for p in (made, found)] == [1, 2]
    assert {p.provenance.code_version for p in (made, found)} == {"7"}
    facts = shown(second, "constant")
    assert facts["registry/new_bytes"] == 0
    assert facts["registry/version_number"] == 1
    assert "unchanged" in facts["registry/version"]
    assert data_version(first, "constant") == data_version(second, "constant")


def test_an_unchanged_partition_makes_no_version_but_a_production_of_its_own(world: World) -> None:
    source = Cell(1).asset(partitions_def=COLORS)
    for key in ("red", "green", "red"):
        world.materialize([source], partition=key)
    version = world.version("source")
    assert version.number == 2
    assert [(p.provenance.partition, p.unchanged) for p in version.productions] == [("green", False), ("red", True)]


# --- lineage -------------------------------------------------------------------------------------------------------


def test_the_exact_versions_that_were_read_are_recorded_with_refs_and_partitions(world: World) -> None:
    cell = Cell(1)
    source = cell.asset(partitions_def=COLORS)

    @dg.asset
    def plain():
        return pa.table({"n": [1]})

    @dg.asset(key=["deep", "joined"])
    def joined(source: pa.Table, plain: pa.Table) -> pa.Table:
        return source

    for key in COLORS.get_partition_keys():
        world.materialize([source], partition=key)
    result = world.materialize([source, plain, joined], "plain", "deep/joined")
    made = world.version("deep/joined").productions[0]
    upstream, other = world.version("source"), world.version("plain")
    assert sorted(made.provenance.inputs, key=lambda read: read.dataset) == [
        InputVersion("plain", 1, other.digest, "main", (), None, "plain"),
        InputVersion("source", 3, upstream.digest, "main", ("red", "green", "blue"), None, "source"),
    ]
    assert made.provenance.run_id == result.run_id
    assert made.provenance.step == "deep__joined"
    assert made.provenance.asset_key == "deep/joined"
    assert upstream.consumers == [("deep/joined", 1)]
    assert made.created_by == "alice"


def test_every_output_of_a_step_records_what_the_step_read_and_nothing_of_other_steps(world: World) -> None:
    @dg.asset
    def other(source: pa.Table) -> pa.Table:
        return source

    @dg.multi_asset(outs={"left": dg.AssetOut(), "right": dg.AssetOut()})
    def pair(source: pa.Table, other: pa.Table):
        return source, source

    world.materialize([Cell(1).asset(), other, pair])
    for name, expected in (("left", ["other", "source"]), ("right", ["other", "source"]), ("other", ["source"])):
        assert sorted(read.dataset for read in world.version(name).provenance.inputs) == expected
    assert world.version("source").provenance.inputs == ()


@pytest.fixture
def three_versions(world: World) -> dg.AssetsDefinition:
    cell = Cell(1)
    source = cell.asset()
    for cell.value in (1, 2, 3):
        world.materialize([source])
    world.registry.dataset("source").create_tag("release", "v2")
    return source


@pytest.mark.parametrize(("ref", "number"), [("v1", 1), ("release", 2), ("main~2", 1), ("main", 3)])
def test_a_pinned_input_has_the_old_value_and_is_recorded_as_that_version(
    world: World, three_versions: dg.AssetsDefinition, ref: str, number: int
) -> None:
    @dg.asset(ins={"source": dg.AssetIn(metadata={"registry/ref": ref})})
    def pinned(source: pa.Table) -> pa.Table:
        return source

    world.materialize([three_versions, pinned], "pinned")
    assert world.version("pinned").to_arrow()["n"].to_pylist() == [number]
    (read,) = world.version("pinned").provenance.inputs
    assert read == InputVersion("source", number, world.version(f"source@v{number}").digest, ref, (), None, "source")


def test_a_pinned_digest_has_the_old_value(world: World, three_versions: dg.AssetsDefinition) -> None:
    digest = world.version("source@v1").digest or ""

    @dg.asset(ins={"source": dg.AssetIn(metadata={"registry/ref": digest[:20]})})
    def pinned(source: pa.Table) -> pa.Table:
        return source

    world.materialize([three_versions, pinned], "pinned")
    assert world.version("pinned").to_arrow()["n"].to_pylist() == [1]


def test_a_pinned_ref_that_is_not_there_is_an_error_and_never_falls_back(
    world: World, three_versions: dg.AssetsDefinition
) -> None:
    @dg.asset(ins={"source": dg.AssetIn(metadata={"registry/ref": "gone"})})
    def pinned(source: pa.Table) -> None: ...

    with refused(NotFound, "no version 'gone', given by the metadata registry/ref"):
        world.materialize([three_versions, pinned], "pinned")


def test_an_asset_may_pin_what_it_reads_on_any_branch(world: World, three_versions: dg.AssetsDefinition) -> None:
    @dg.asset(ins={"source": dg.AssetIn(metadata={"registry/ref": "main"})})
    def pinned(source: pa.Table) -> pa.Table:
        return source

    world.materialize([three_versions], branch="dev")
    world.materialize([three_versions, pinned], "pinned", branch="dev")
    (read,) = world.version("pinned@dev").provenance.inputs
    assert (read.version, read.ref, read.fallback) == (3, "main", None)


def test_load_asset_value_reads_the_head_or_the_ref_in_its_metadata(fresh: World) -> None:
    cell = Cell(1)
    source = cell.asset()
    for cell.value in (1, 2):
        fresh.materialize([source])
    cell.value = 3
    fresh.materialize([source], branch="dev")
    definitions = dg.Definitions(assets=[source], resources=fresh.resources())

    def load(**metadata: str) -> list[int]:
        found = definitions.load_asset_value(
            "source", python_type=pa.Table, instance=fresh.instance, metadata=metadata or None
        )
        assert isinstance(found, pa.Table)
        return found["n"].to_pylist()

    assert load() == [2]
    assert load(**{"registry/ref": "v1"}) == [1]
    assert load(**{"registry/ref": "dev"}) == [3]
