"""Branches, tags and every form of ref."""

import pytest
from sqlalchemy import exc, text

from dataset_registry import Dataset, Registry
from dataset_registry.errors import (
    AlreadyExists,
    BranchMoved,
    InvalidName,
    InvalidRef,
    NotFound,
    TagImmutable,
)


@pytest.fixture
def history(flights: Dataset) -> Dataset:
    for i in range(1, 5):
        flights.commit({"data": str(i).encode()}, message=f"number {i}")
    return flights


def test_every_form_of_ref_names_its_version(history: Dataset, registry: Registry) -> None:
    history.create_tag("nightly-2026-11-24", "v3")
    digest = str(history.version("v2").digest)
    for ref, number in {
        "main": 4,
        "v2": 2,
        "nightly-2026-11-24": 3,
        "main~2": 2,
        "main~": 3,
        "v4^": 3,
        "v4^0": 4,
        digest: 2,
        digest[:8]: 2,
        "nightly-2026-11-24~1": 2,
    }.items():
        assert history.version(ref).number == number, ref
    assert registry.version("raw/flights@main~3").number == 1
    assert registry.version("raw/flights").number == 4


def test_a_digest_that_several_versions_share_names_the_newest(flights: Dataset) -> None:
    flights.commit({"a": b"1"})
    digest = str(flights.version().digest)
    flights.commit({"a": b"2"})
    flights.commit({"a": b"1"})
    assert flights.version(digest[:10]).number == 3


def test_a_digest_that_is_too_short_for_one_answer_is_refused(flights: Dataset) -> None:
    # Contents with a chosen hash cannot be made: the two versions are given these digests in the catalog.
    flights.commit({"a": b"1"})
    flights.commit({"a": b"2"})
    with flights.access.catalog.writer.begin() as tx:
        for number, value in ((1, "abcd" + "0" * 60), (2, "abcd" + "1" * 60)):
            tx.execute(
                text("UPDATE dataset_versions SET digest = :value WHERE version_number = :number"),
                {"value": value, "number": number},
            )
    with pytest.raises(InvalidRef, match=r"several versions.*v2.*v1.*more digits"):
        flights.version("abcd")
    assert flights.version("abcd0").number == 1


@pytest.mark.parametrize("ref", ["v99", "nope", "main~9", "v4^2", "abcdef12", "main^3"])
def test_a_ref_that_names_nothing_says_what_there_is(history: Dataset, ref: str) -> None:
    with pytest.raises(NotFound) as caught:
        history.version(ref)
    assert "raw/flights" in str(caught.value)


def test_a_branch_moves_when_it_is_where_it_was_expected(history: Dataset) -> None:
    history.create_branch("dev", "v2")
    assert history.move_branch("dev", "v4", expect="v2").version_number == 4
    with pytest.raises(BranchMoved, match=r"at v4, not at v2.*expect='v4'"):
        history.move_branch("dev", "v1", expect="v2")
    assert history.move_branch("dev", "v1").version_number == 1


def test_branches_and_tags_share_their_names(history: Dataset) -> None:
    history.create_branch("dev")
    history.create_tag("release", "v2")
    for create, name in (
        (history.create_branch, "dev"),
        (history.create_branch, "release"),
        (history.create_tag, "dev"),
    ):
        with pytest.raises(AlreadyExists):
            create(name)
    with pytest.raises(TagImmutable, match="never move"):
        history.create_tag("release")
    assert [(b.name, b.version_number) for b in history.branches()] == [("dev", 4), ("main", 4)]
    assert [(t.name, t.version_number) for t in history.tags()] == [("release", 2)]


def test_a_tag_never_moves_and_its_name_is_never_given_again(history: Dataset) -> None:
    history.create_tag("release", "v2")
    with pytest.raises(TagImmutable):
        history.move_branch("release", "v3")
    with pytest.raises(NotFound, match="delete_tag"):
        history.delete_branch("release")
    history.delete_tag("release")
    with pytest.raises(TagImmutable, match="cannot be reused"):
        history.create_tag("release", "v2")
    with pytest.raises(TagImmutable, match="cannot be reused"):
        history.create_branch("release")


def test_the_database_itself_keeps_tags_where_they_are(history: Dataset) -> None:
    history.create_tag("release", "v2")
    for statement in (
        "UPDATE dataset_pointers SET dataset_version_id = dataset_version_id WHERE pointer_name = 'release'",
        "UPDATE dataset_pointers SET is_tag = false WHERE pointer_name = 'release'",
        "UPDATE dataset_pointers SET is_tag = true WHERE pointer_name = 'main'",
    ):
        with pytest.raises(exc.DBAPIError, match="immutable"), history.access.catalog.writer.begin() as tx:
            tx.execute(text(statement))


def test_deleting_a_branch_keeps_its_versions(history: Dataset) -> None:
    history.create_branch("dev", "v2")
    history.commit({"data": b"dev"}, branch="dev")
    history.delete_branch("dev")
    assert history.version("v5").message is None
    with pytest.raises(NotFound):
        history.delete_branch("dev")
    with pytest.raises(NotFound, match="delete_branch"):
        history.delete_tag("main")


@pytest.mark.parametrize("name", ["v7", "a b", "", "x..y", "f" * 64])
def test_bad_names_are_refused(history: Dataset, name: str) -> None:
    for create in (history.create_branch, history.create_tag):
        with pytest.raises(InvalidName):
            create(name)


def test_merge_bases_are_found_across_a_criss_cross(flights: Dataset) -> None:
    flights.commit({"a": b"0"})
    flights.create_branch("dev")
    flights.commit({"a": b"1"})
    flights.commit({"b": b"1"}, branch="dev")
    flights.create_branch("main-before")
    flights.commit({}, parents=["main", "dev"])
    flights.commit({}, branch="dev", parents=["dev", "main-before"])
    assert [v.number for v in flights.merge_bases("main", "dev")] == [3, 2]
    base = flights.merge_base("main", "v1")
    assert base is not None
    assert base.number == 1


def test_history_is_listed_newest_first_and_to_a_limit(history: Dataset) -> None:
    assert [v.number for v in history.log()] == [4, 3, 2, 1]
    assert [v.number for v in history.log("v3", limit=2)] == [3, 2]


def test_a_long_history_is_walked_in_pages(flights: Dataset) -> None:
    for i in range(120):
        flights.commit({"a": str(i).encode()})
    assert [v.number for v in flights.log()] == list(range(120, 0, -1))
    assert flights.version("main~119").number == 1


def test_a_registry_wide_branch_is_made_and_deleted_in_every_dataset(registry: Registry) -> None:
    for name in ("a", "b", "c"):
        registry.create_dataset(name).commit({"data": name.encode()})
    registry.create_dataset("empty")
    assert registry.create_branch("pr-12") == 3
    assert [(b.name, b.source) for b in registry.branches()] == [("pr-12", "main")]
    branch = next(b for b in registry.dataset("a").branches() if b.name == "pr-12")
    assert (branch.version_number, branch.base) == (1, 1)
    registry.dataset("a").commit({"data": b"changed"}, branch="pr-12")
    assert registry.dataset("a").version("main").number == 1
    with pytest.raises(AlreadyExists, match="already"):
        registry.create_branch("pr-12")
    assert registry.delete_branch("pr-12") == 3
    assert registry.branches() == []
    assert registry.dataset("a").version("v2").number == 2
    with pytest.raises(NotFound):
        registry.delete_branch("pr-12")


def test_a_registry_wide_branch_does_not_take_a_name_that_a_dataset_uses(registry: Registry) -> None:
    for name in ("a", "b"):
        registry.create_dataset(name).commit({"data": b"1"})
    registry.dataset("b").create_tag("pr-12")
    with pytest.raises(AlreadyExists, match="b"):
        registry.create_branch("pr-12")
    with pytest.raises(NotFound):
        registry.create_branch("pr-13", "nowhere")
    assert [b.name for b in registry.dataset("a").branches()] == ["main"]
    assert registry.branches() == []
