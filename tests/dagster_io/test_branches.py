"""Branches: where a run writes, what it reads, and what it reads instead."""

from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dataset_registry.errors import InputError, InvalidName, NotFound
from dataset_registry.model.records import InputVersion
from tests.dagster_io.conftest import World, refused, shown

COLORS = dg.StaticPartitionsDefinition(["red", "green"])


def counting() -> dg.AssetsDefinition:
    """An asset that is another one in every run."""
    count = iter(range(1, 100))

    @dg.asset
    def source():
        return pa.table({"n": [next(count)]})

    return source


@dg.asset
def sink(source: pa.Table) -> pa.Table:
    return source


def branches(world: World, name: str = "source") -> dict[str, int]:
    return {branch.name: branch.version_number for branch in world.registry.dataset(name).branches()}


# --- which branch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "configured", "variable", "expected"),
    [
        ("tagged", "configured", "variable", "tagged"),
        ("tagged", None, "variable", "tagged"),
        (None, "configured", "variable", "configured"),
        (None, None, "variable", "variable"),
        (None, None, None, "main"),
    ],
)
def test_the_run_tag_goes_before_the_resource_and_that_before_the_environment(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    tag: str | None,
    configured: str | None,
    variable: str | None,
    expected: str,
) -> None:
    monkeypatch.delenv("DATASET_REGISTRY_BRANCH", raising=False)
    if variable:
        monkeypatch.setenv("DATASET_REGISTRY_BRANCH", variable)
    source = counting()
    world.materialize([source, sink], branch=tag, resource_branch=configured)
    assert branches(world) == {expected: 1}
    assert branches(world, "sink") == {expected: 1}
    assert world.version(f"sink@{expected}").productions[0].branch == expected


def test_a_run_on_a_branch_reads_and_writes_there_and_leaves_main_alone(world: World) -> None:
    source = counting()
    world.materialize([source, sink])
    world.materialize([source, sink], branch="dev")
    assert branches(world) == branches(world, "sink") == {"main": 1, "dev": 2}
    assert world.version("sink@dev").to_arrow()["n"].to_pylist() == [2]
    assert world.version("sink@main").to_arrow()["n"].to_pylist() == [1]
    assert world.version("sink@dev").provenance.inputs[0].fallback is None


@pytest.mark.parametrize(("name", "error"), [("no such", InvalidName), ("v3", InvalidName)])
def test_a_branch_that_cannot_be_one_is_a_clear_error_and_leaves_nothing(
    world: World, name: str, error: type[Exception]
) -> None:
    with refused(error, "branch"):
        world.materialize([counting()], branch=name)
    assert world.registry.datasets() == []


def test_a_run_cannot_write_to_a_tag(world: World) -> None:
    source = counting()
    world.materialize([source])
    world.registry.dataset("source").create_tag("release", "v1")
    with refused(InputError, "'release' is a tag"):
        world.materialize([source], branch="release")


# --- falling back --------------------------------------------------------------------------------------------------


def test_a_dataset_without_the_branch_is_read_from_the_fallback_and_that_is_recorded(world: World) -> None:
    source = counting()
    world.materialize([source])
    result = world.materialize([source, sink], "sink", branch="dev")
    head = world.version("source")
    (read,) = world.version("sink@dev").provenance.inputs
    assert read == InputVersion("source", 1, head.digest, "dev", (), "main", "source")
    assert branches(world) == {"main": 1}, "reading makes no branch"
    (row,) = shown(result, "sink")["registry/inputs"]
    assert row.data["input"] == "source@v1"
    assert row.data["ref"] == "dev (read from main)"


def test_the_fallback_branch_may_be_another(world: World) -> None:
    source = counting()
    world.materialize([source], branch="production")
    world.materialize([source, sink], "sink", branch="dev", fallback_branch="production")
    assert world.version("sink@dev").provenance.inputs[0].fallback == "production"


def test_without_branch_and_fallback_the_error_names_both_the_dataset_and_what_it_has(world: World) -> None:
    source = counting()
    world.materialize([source], branch="other")
    with refused(NotFound, "source has no branch.*other"):
        world.materialize([source, sink], "sink", branch="dev")


def test_the_first_write_on_a_branch_starts_from_the_fallbacks_head(world: World) -> None:
    source = counting()
    world.materialize([source])
    world.materialize([source])
    world.materialize([source], branch="dev")
    version = world.version("source@dev")
    assert version.number == 3
    assert version.parents == (2,)
    assert world.registry.dataset("source").merge_base("dev", "main").number == 2


def test_a_partitioned_dataset_keeps_its_other_partitions_on_a_new_branch(world: World) -> None:
    values = iter([1, 2, 3])

    @dg.asset(partitions_def=COLORS)
    def source():
        return pa.table({"n": [next(values)]})

    for key in ("red", "green"):
        world.materialize([source], partition=key)
    world.materialize([source], partition="green", branch="dev")

    def held(ref: str) -> dict[str, Any]:
        version = world.version(f"source@{ref}")
        return {c.name: version.to_arrow(c.name)["n"][0].as_py() for c in version.components}

    assert held("dev") == {"green": 3, "red": 1}
    assert held("main") == {"green": 2, "red": 1}


def test_an_unchanged_first_write_on_a_branch_makes_the_branch_and_no_version(world: World) -> None:
    @dg.asset
    def source():
        return pa.table({"n": [1]})

    world.materialize([source])
    result = world.materialize([source], branch="dev")
    assert branches(world) == {"main": 1, "dev": 1}
    assert [(p.branch, p.unchanged) for p in world.version("source").productions] == [("main", False), ("dev", True)]
    assert shown(result, "source")["registry/branch"] == "dev"


@pytest.mark.parametrize("second", ["main", "pr-2"])
def test_an_asset_that_began_on_a_branch_can_be_materialized_on_main_and_on_others(world: World, second: str) -> None:
    """A new asset is tried on the branch of its pull request first; then that is merged."""
    source = counting()
    world.materialize([source], branch="pr-1")
    world.materialize([source], branch=second)
    assert branches(world) == {"pr-1": 1, second: 2}
    assert world.version(f"source@{second}").parents == ()
    assert world.version("source@pr-1").to_arrow()["n"].to_pylist() == [1]


def test_a_registry_wide_branch_is_written_to_like_any_other(world: World) -> None:
    source = counting()
    world.materialize([source, sink])
    world.registry.create_branch("release", "main")
    world.materialize([source], branch="release")
    world.materialize([source, sink], "sink", branch="release")
    (read,) = world.version("sink@release").provenance.inputs
    assert (read.version, read.ref, read.fallback) == (2, "release", None)
    assert branches(world) == {"main": 1, "release": 2}
