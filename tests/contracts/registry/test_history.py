"""Versions in a tree: parents, refs, logs, merge bases."""

from datetime import UTC, datetime, timedelta

import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import (
    BranchMoved,
    InputError,
)
from tests.contracts.scenarios import (
    error_of,
    everywhere,
    heads,
    numbers,
)


@pytest.fixture
def tree(flights: Dataset) -> Dataset:
    """v1 - v2 - v3 on main, v2 - v4 - v5 on dev, and v6 made of v3 and v5."""
    for branch, data in (("main", b"1"), ("main", b"2"), ("main", b"3"), ("dev", b"4"), ("dev", b"5")):
        if (branch, data) == ("dev", b"4"):
            flights.create_branch("dev", "v2")
        flights.commit({f"{branch}-{data.decode()}": data}, branch=branch, message=f"{branch} {data.decode()}")
    flights.commit({"both": b"6"}, parents=["main", "dev"], message="Both")
    return flights


@everywhere
def test_versions_form_a_tree_that_can_be_walked_both_ways(tree: Dataset) -> None:
    assert {v.number: v.parents for v in tree.tree()} == {1: (), 2: (1,), 3: (2,), 4: (2,), 5: (4,), 6: (3, 5)}
    assert [(v.number, v.depth) for v in tree.tree()] == [(6, 4), (5, 3), (4, 2), (3, 2), (2, 1), (1, 0)]
    assert numbers(tree.children("v2")) == [3, 4]
    assert numbers(tree.children("v6")) == []
    assert numbers(tree.log("dev")) == [5, 4, 2, 1]
    assert numbers(tree.log("main")) == [6, 5, 4, 3, 2, 1]
    assert numbers(tree.log("main", limit=2)) == [6, 5]
    assert heads(tree) == {"dev": 5, "main": 6}


def test_merge_bases_are_the_best_common_ancestors(tree: Dataset) -> None:
    assert tree.merge_base("v3", "dev").number == 2
    assert tree.merge_base("v5", "v6").number == 5
    assert numbers(tree.merge_bases("main", "main")) == [6]
    with tree.draft("island", fallback="nowhere") as draft:
        draft.add("alone", b"no history")
    assert draft.version.parents == ()
    assert tree.merge_base("island", "main") is None
    assert tree.merge_bases("island", "main") == []


def test_a_merge_has_two_parents_and_carries_over_what_its_first_parent_has(tree: Dataset) -> None:
    merge = tree.version("main")
    assert (merge.parents, merge.depth, merge.record.parent_id) == ((3, 5), 4, tree.version("v3").id)
    assert [c.name for c in merge.components] == ["both", "main-1", "main-2", "main-3"]
    assert tree.version("main^2") == tree.version("dev")
    assert tree.version("main~3").number == 1
    error = error_of(lambda: tree.commit({"x": b""}, parents=["v3", "dev"]))
    assert isinstance(error, BranchMoved)
    assert isinstance(error_of(lambda: tree.commit({"x": b""}, parents=["main", "v6"])), InputError)


def test_every_form_of_a_ref_names_the_same_version(tree: Dataset, any_registry: Registry) -> None:
    tree.create_tag("july/2024", "v2")
    wanted = tree.version("v2")
    digest = str(wanted.digest)
    for ref in ("v2", "july/2024", "dev~2", "main~2", "v4^", "main^2~2", digest, digest[:12]):
        assert tree.version(ref) == wanted, ref
        assert any_registry.version(f"{tree.name}@{ref}") == wanted, ref
    assert any_registry.version(tree.name).number == 6
    assert tree.version().number == 6


def test_a_version_says_who_made_it_when_and_why(flights: Dataset) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    made = flights.commit({"data": b"1", "more": b"2"}, message="Größe: 100 %\n\nand more")
    for version in (made, flights.version(), *flights.tree(), *flights.log()):
        assert version.record == made.record
        assert str(version) == f"{flights.name}@v1"
        assert version.message == "Größe: 100 %\n\nand more"
        assert (version.created_by, version.component_count, version.depth, version.parents) == ("admin", 2, 0, ())
        assert before <= version.created_at <= datetime.now(UTC) + timedelta(seconds=2)
        assert version.created_at.utcoffset() == timedelta(0)
        assert version.created_at.isoformat().endswith("+00:00")
        assert (len(str(version.digest)), version.record.uuid.version) == (64, made.record.uuid.version)
        assert version == made
        assert hash(version) == hash(made)
        assert version != "v1"
    assert flights.commit({"data": b"2"}).message is None
