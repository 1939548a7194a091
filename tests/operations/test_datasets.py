"""Datasets as wholes, deletion of versions and their pages, files by hash."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from dataset_registry import Dataset, InputVersion, Provenance, Registry
from dataset_registry.errors import AlreadyExists, InUse, InvalidName, InvalidRef, NotFound

Rows = Callable[[], SimpleNamespace]


def test_datasets_are_created_listed_and_found(registry: Registry) -> None:
    for name in ("raw/flights", "raw/weather", "clean/flights", "rawer"):
        registry.create_dataset(name, description=f"about {name}")
    assert [d.name for d in registry.datasets()] == ["clean/flights", "raw/flights", "raw/weather", "rawer"]
    assert [d.name for d in registry.datasets(prefix="raw/")] == ["raw/flights", "raw/weather"]
    assert registry.dataset("raw/flights").description == "about raw/flights"
    with pytest.raises(AlreadyExists, match=r"registry\.dataset\('raw/flights'\)"):
        registry.create_dataset("raw/flights")
    with pytest.raises(NotFound, match="create_dataset"):
        registry.dataset("nope")
    with pytest.raises(InvalidName):
        registry.create_dataset("../etc")


def test_a_prefix_is_taken_literally(registry: Registry) -> None:
    registry.create_dataset("a_b/x")
    registry.create_dataset("aXb/x")
    assert [d.name for d in registry.datasets(prefix="a_b/")] == ["a_b/x"]


def test_a_prefix_knows_capital_letters(registry: Registry) -> None:
    for name in ("raw/x", "RAW/y", "Raw"):
        registry.create_dataset(name)
    assert [d.name for d in registry.datasets(prefix="raw/")] == ["raw/x"]
    assert [d.name for d in registry.datasets()] == ["RAW/y", "Raw", "raw/x"]


def test_lineage_is_not_taken_over_by_another_dataset_of_the_same_name(registry: Registry) -> None:
    source = registry.create_dataset("in")
    source.commit({"a": b"1"})
    read = InputVersion("in", 1, source.version().digest, "main")
    source.rename("renamed")
    other = registry.create_dataset("in")
    other.commit({"a": b"other"})
    registry.create_dataset("out").commit({"b": b"2"}, provenance=Provenance(inputs=(read,)))
    assert other.version().consumers == []


def test_a_dataset_is_described_and_renamed(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"1"})
    flights.create_tag("release")
    flights.update(description="new words")
    flights.rename("raw/departures")
    assert (flights.name, flights.description) == ("raw/departures", "new words")
    assert registry.version("raw/departures@release").number == 1
    with pytest.raises(NotFound):
        registry.dataset("raw/flights")
    registry.create_dataset("raw/flights")
    with pytest.raises(AlreadyExists):
        flights.rename("raw/flights")


def test_a_deleted_dataset_takes_everything_of_its_own_with_it(registry: Registry, rows: Rows) -> None:
    before = rows()
    dataset = registry.create_dataset("gone")
    dataset.commit({"a": b"1", "b": b"2"})
    dataset.create_branch("dev")
    dataset.commit({"c": b"3"}, branch="dev")
    dataset.commit({}, parents=["main", "dev"])
    dataset.create_tag("release")
    dataset.create_tag("old", "v1")
    dataset.delete_tag("old")
    assert dataset.delete() == 3
    after = rows()
    after.files, after.inline_contents = (
        before.files,
        before.inline_contents,
    )  # bytes and their rows go with a collection
    after.uploads, after.users = before.uploads, before.users
    after.audit_log = before.audit_log  # it outlives what it is about
    assert after == before
    assert {file.reference_count for file in registry.files()} == {0}
    with pytest.raises(NotFound):
        dataset.commit({"a": b"1"})
    registry.create_dataset("gone")


def test_a_version_that_something_points_at_is_not_deleted(flights: Dataset) -> None:
    for i in range(3):
        flights.commit({"a": str(i).encode()})
    flights.create_tag("release", "v2")
    flights.create_branch("dev", "v3")
    for ref, reason in (("v1", "child v2"), ("v2", "tag release, child v3"), ("v3", "branch dev, branch main")):
        with pytest.raises(InUse, match=reason):
            flights.delete_version(ref)
    assert len(flights.tree()) == 3


def test_a_version_is_deleted_with_the_pages_that_only_it_names(flights: Dataset, rows: Rows) -> None:
    flights.commit({f"c{i}": f"{i}".encode() for i in range(300)})
    before = rows()
    flights.commit({"c7": b"changed"})
    flights.move_branch("main", "v1")
    flights.delete_version("v2")
    after = rows()
    for table in (
        "manifest_pages",
        "manifest_entries",
        "manifest_index_pages",
        "manifest_index_entries",
        "dataset_versions",
    ):
        assert getattr(after, table) == getattr(before, table), table
    assert after.productions == before.productions
    assert len(flights.version("v1").components) == 300


def test_a_deleted_version_keeps_pages_that_another_one_shares(flights: Dataset) -> None:
    flights.commit({f"c{i}": b"same" for i in range(300)})
    flights.commit({"c7": b"changed"})
    flights.create_branch("dev", "v1")
    flights.commit({"c8": b"dev"}, branch="dev")
    flights.move_branch("dev", "v1")
    flights.delete_version("v3")
    assert len(flights.version("v1").components) == len(flights.version("v2").components) == 300


def test_a_version_of_three_files_deleted_lowers_each_count(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"1", "b": b"2", "c": b"3"})
    flights.commit({"a": b"1", "b": b"changed", "c": b"3", "d": b"3"})
    flights.move_branch("main", "v1")
    counts = {
        c.content_hash: registry.file(str(c.content_hash)).reference_count for c in flights.version("v2").components
    }
    assert sorted(counts.values()) == [1, 2, 3]  # `changed`, `a` twice, `3` in c twice and in d
    flights.delete_version("v2")
    assert sorted(f.reference_count or 0 for f in registry.files()) == [0, 1, 1, 1]


def test_lineage_outlives_the_version_it_names(registry: Registry) -> None:
    source = registry.create_dataset("source")
    source.commit({"a": b"1"})
    made_from = InputVersion("source", 1, source.version().digest, "main")
    target = registry.create_dataset("target")
    target.commit({"b": b"2"}, provenance=Provenance(run_id="r", inputs=(made_from,)))
    assert source.version("v1").consumers == [("target", 1)]
    source.commit({"a": b"2"})
    source.delete()
    assert target.version().provenance.inputs == (made_from,)


def test_a_file_is_found_by_the_beginning_of_its_hash(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"1"})
    digest = str(flights.version().components[0].content_hash)
    assert registry.file(digest[:8].upper()).content_hash == digest
    for bad in ("", "abc", "xyz1", "../x"):
        with pytest.raises(InvalidRef):
            registry.file(bad)
    with pytest.raises(NotFound):
        registry.file("0" * 64)
