"""Publishing the branches of many datasets, runs as units, and whether heads belong together."""

from collections.abc import Sequence

import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.errors import ConflictError, InputError, MergeConflict, NotFound
from dataset_registry.model.publishing import RunVersion
from dataset_registry.model.records import InputVersion, Provenance
from dataset_registry.version import Version
from tests.contracts.scenarios import error_of, everywhere


def put(
    registry: Registry,
    name: str,
    value: int,
    branch: str = "main",
    run: str | None = None,
    reads: Sequence[Version] = (),
) -> Version:
    """A version of a table whose only cell says where it came from, as a run makes it."""
    inputs = tuple(InputVersion(v.dataset, v.number, v.digest, branch, uuid=v.record.uuid) for v in reads)
    table = pa.table({"id": [1, 2], "v": [value, 0]})
    with registry.draft(name, branch, provenance=Provenance(run_id=run, inputs=inputs)) as draft:
        draft.add("data", table, key="id")
    return draft.version


@pytest.fixture
def names(any_registry: Registry, prefix: str) -> list[str]:
    """Three datasets, each built from the one before, with a branch `pr` of their own name."""
    names = [f"{prefix}{name}" for name in ("raw", "clean", "report")]
    last: list[Version] = []
    for name in names:
        last = [put(any_registry, name, 1, run=f"{prefix}first", reads=last)]
        any_registry.dataset(name).create_branch(branch_of(prefix))
    return names


def branch_of(prefix: str) -> str:
    return prefix.replace("/", "-pr")


@everywhere
def test_all_branches_move_in_one_publication(any_registry: Registry, prefix: str, names: list[str]) -> None:
    branch = branch_of(prefix)
    raw = put(any_registry, names[0], 2, branch, "second")
    clean = put(any_registry, names[1], 2, branch, "second", [raw])
    plan = any_registry.plan_publish(branch)
    assert [(p.dataset, p.outcome) for p in plan.merges] == [(names[0], "fast-forward"), (names[1], "fast-forward")]
    assert plan.moved == ()
    assert any_registry.publish(branch) == [raw, clean]
    assert [any_registry.dataset(name).version().number for name in names] == [2, 2, 1]
    assert any_registry.publish(branch) == []
    assert isinstance(error_of(lambda: any_registry.publish(f"{branch}-nothing")), NotFound)


@everywhere
def test_only_the_named_datasets_are_published(any_registry: Registry, prefix: str, names: list[str]) -> None:
    branch = branch_of(prefix)
    for name in names:
        put(any_registry, name, 2, branch)
    (head,) = any_registry.publish(branch, datasets=f"{prefix}rep*", message="only the report")
    assert head.dataset == names[2]
    assert any_registry.dataset(names[0]).version().number == 1


@everywhere
def test_a_target_that_moved_under_an_input_is_refused_with_its_name(
    any_registry: Registry, prefix: str, names: list[str]
) -> None:
    branch = branch_of(prefix)
    raw = any_registry.dataset(names[0]).version()
    put(any_registry, names[1], 2, branch, "second", [raw])
    put(any_registry, names[0], 9)
    error = error_of(lambda: any_registry.publish(branch))
    assert isinstance(error, ConflictError)
    assert f"{names[1]}@v2 was built from {names[0]}@v1, which is at v2 now" in str(error)
    assert any_registry.dataset(names[1]).version().number == 1
    (moved,) = any_registry.plan_publish(branch).moved
    assert (moved.input, moved.read, moved.head) == (names[0], 1, 2)
    assert [v.dataset for v in any_registry.publish(branch, allow_moved_inputs=True)] == [names[1]]


@everywhere
def test_a_conflict_in_one_dataset_publishes_none(any_registry: Registry, prefix: str, names: list[str]) -> None:
    branch = branch_of(prefix)
    put(any_registry, names[0], 2, branch)
    put(any_registry, names[1], 2, branch)
    put(any_registry, names[1], 3)
    error = error_of(lambda: any_registry.publish(branch))
    assert isinstance(error, MergeConflict)
    assert error.fields["datasets"] == [names[1]]
    assert any_registry.dataset(names[0]).version().number == 1
    heads = any_registry.publish(branch, strategy="theirs")
    assert [head.dataset for head in heads] == names[:2]
    assert heads[1].parents == (3, 2)
    assert heads[1].to_arrow().column("v").to_pylist() == [2, 0]


@everywhere
def test_a_run_is_listed_and_taken_out_in_all_of_its_datasets(
    any_registry: Registry, prefix: str, names: list[str]
) -> None:
    run = f"{prefix}bad"
    raw = put(any_registry, names[0], 5, run=run)
    put(any_registry, names[1], 5, run=run, reads=[raw])
    found = any_registry.run(run)
    assert found.wrote == (RunVersion(names[0], 2, "main"), RunVersion(names[1], 2, "main"))
    assert found.read == (RunVersion(names[0], 2),)
    plan = any_registry.plan_revert_run(run)
    assert [p.dataset for p in plan.merges] == names[:2]
    assert plan.built_on == ()
    heads = any_registry.revert_run(run)
    assert [(head.dataset, head.number) for head in heads] == [(names[0], 3), (names[1], 3)]
    assert all(head.to_arrow().column("v").to_pylist() == [1, 0] for head in heads)
    assert heads[0].message == f"Revert run {run}"
    assert isinstance(error_of(lambda: any_registry.run(f"{prefix}none")), NotFound)


@everywhere
def test_a_run_on_which_others_were_built_is_taken_out_by_force_only(
    any_registry: Registry, prefix: str, names: list[str]
) -> None:
    raw = put(any_registry, names[0], 5, run=f"{prefix}bad")
    put(any_registry, names[1], 5, run=f"{prefix}good", reads=[raw])
    error = error_of(lambda: any_registry.revert_run(f"{prefix}bad"))
    assert isinstance(error, ConflictError)
    assert f"{names[1]}@v2" in str(error)
    (head,) = any_registry.revert_run(f"{prefix}bad", force=True)
    assert head.to_arrow().column("v").to_pylist() == [1, 0]


@everywhere
def test_heads_that_no_sequence_of_runs_could_have_made_are_torn(
    any_registry: Registry, prefix: str, names: list[str]
) -> None:
    branch = f"{branch_of(prefix)}2"
    for name in names:
        any_registry.dataset(name).create_branch(branch)
    assert any_registry.consistent(branch)
    put(any_registry, names[0], 2, branch)
    assert any_registry.consistent(branch), "what comes next has not run yet"
    old, new = any_registry.dataset(names[0]).version(f"{branch}~1"), any_registry.dataset(names[0]).version(branch)
    clean = put(any_registry, names[1], 2, branch, reads=[new])
    assert any_registry.consistent(branch)
    put(any_registry, names[2], 2, branch, reads=[clean, old])
    found = any_registry.consistent(branch)
    assert not found
    assert (names[2], 2, names[0], 1) in {(t.dataset, t.version, t.input, t.read) for t in found.torn}


@everywhere
def test_an_input_that_is_not_in_the_history_of_the_branch_is_torn(
    any_registry: Registry, prefix: str, names: list[str]
) -> None:
    branch = branch_of(prefix)
    elsewhere = put(any_registry, names[0], 7)
    put(any_registry, names[1], 7, branch, reads=[elsewhere])
    (torn,) = any_registry.consistent(branch).torn
    assert torn.reason == "which is not in the history of v1, the head"


@everywhere
@pytest.mark.parametrize("run", [None, 5, b"run"])
def test_a_run_that_is_no_text_is_refused(any_registry: Registry, run: object) -> None:
    for verb in (
        any_registry.run,
        lambda it: any_registry.finish_run(it, succeeded=True),
        any_registry.plan_revert_run,
    ):
        assert isinstance(error_of(lambda verb=verb: verb(run)), InputError)  # type: ignore[misc]
