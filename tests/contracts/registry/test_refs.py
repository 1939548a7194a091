"""Branches and tags."""

from datetime import timedelta

from dataset_registry import Dataset, Registry
from dataset_registry.errors import (
    AlreadyExists,
    BranchMoved,
    InputError,
    NotFound,
    TagImmutable,
)
from tests.contracts.scenarios import (
    Way,
    error_of,
    heads,
    names,
    numbers,
    read,
)


def test_a_branch_is_made_moved_and_deleted_and_versions_stay(flights: Dataset) -> None:
    for number in range(3):
        flights.commit({"data": b"%d" % number})
    made = flights.create_branch("dev", "v1")
    assert (made.name, made.is_tag, made.version_number, made.base) == ("dev", False, 1, None)
    assert made.version_id == flights.version("v1").id
    assert made.digest == flights.version("v1").digest
    assert made.updated_at.utcoffset() == timedelta(0)
    assert flights.branch("dev") == made
    assert names(flights.branches()) == ["dev", "main"]
    assert flights.move_branch("dev", "main").version_number == 3
    assert flights.delete_branch("dev") is None
    assert heads(flights) == {"main": 3}
    assert isinstance(error_of(lambda: flights.branch("dev")), NotFound)
    assert isinstance(error_of(lambda: flights.delete_branch("dev")), NotFound)
    assert isinstance(error_of(lambda: flights.create_branch("main", "v1")), AlreadyExists)
    assert isinstance(error_of(lambda: flights.create_branch("other", "v9")), NotFound)


def test_a_branch_moves_only_from_where_it_is_expected(flights: Dataset) -> None:
    for number in range(3):
        flights.commit({"data": b"%d" % number})
    error = error_of(lambda: flights.move_branch("main", "v1", expect="v2"))
    assert type(error) is BranchMoved
    assert error.fields == {"dataset": flights.name, "branch": "main", "expected": 2, "found": 3}
    assert heads(flights) == {"main": 3}
    assert flights.move_branch("main", "v1", expect="v3").version_number == 1
    assert flights.move_branch("main", "v3", expect="main").version_number == 3


def test_a_tag_never_moves_and_its_name_is_never_given_again(flights: Dataset) -> None:
    flights.commit({"data": b"1"})
    flights.commit({"data": b"2"})
    made = flights.create_tag("july", "v1")
    assert (made.name, made.is_tag, made.version_number) == ("july", True, 1)
    assert flights.branch("july") == made
    for call in (lambda: flights.create_tag("july", "v2"), lambda: flights.move_branch("july", "v2")):
        assert type(error_of(call)) is TagImmutable
    assert isinstance(error_of(lambda: flights.commit({"data": b"3"}, branch="july")), InputError)
    assert isinstance(error_of(lambda: flights.delete_branch("july")), NotFound)
    assert isinstance(error_of(lambda: flights.create_branch("july", "v2")), AlreadyExists)
    flights.create_tag("august", "v2")
    assert names(flights.tags()) == ["august", "july"]
    flights.delete_tag("july")
    assert names(flights.tags()) == ["august"]
    assert type(error_of(lambda: flights.create_tag("july", "v1"))) is TagImmutable
    assert isinstance(error_of(lambda: flights.delete_tag("july")), NotFound)


def test_names_may_have_slashes_and_letters_of_any_script(any_registry: Registry, prefix: str) -> None:
    dataset = any_registry.create_dataset(f"{prefix}größe/データ/v1.0+x=1-2")
    dataset.commit({"data": b"1"})
    for name in ("feature/größe", "日本/語", "a+b=c", "release-2026.11", "x/y/z"):
        assert dataset.create_branch(name, "main").name == name
        assert dataset.commit({"data": name.encode()}, branch=name).number > 1
        assert read(any_registry.version(f"{dataset.name}@{name}")) == name.encode()
        assert dataset.branch(name).version_number == dataset.version(f"{name}~0").number
        assert dataset.move_branch(name, "v1").version_number == 1
        dataset.create_tag(f"tag/{name}", name)
        dataset.delete_branch(name)
        dataset.delete_tag(f"tag/{name}")
    assert any_registry.dataset(dataset.name.replace("ö", "o\u0308")).id == dataset.id, "names are normalised"


def test_a_branch_over_all_datasets_is_made_and_deleted_at_once(alone: Way) -> None:
    registry = alone.registry
    one, two, other = (registry.create_dataset(name) for name in ("one", "two", "other"))
    for dataset in (one, two):
        dataset.commit({"data": b"1"})
    other.commit({"data": b"1"}, branch="else")
    assert registry.create_branch("pr/12", "main") == 2
    (found,) = registry.branches()
    assert (found.name, found.source, found.created_at.utcoffset()) == ("pr/12", "main", timedelta(0))
    assert one.branch("pr/12").base == 1
    two.commit({"data": b"2"}, branch="pr/12")
    assert (heads(two), heads(other)) == ({"main": 1, "pr/12": 2}, {"else": 1})
    assert type(error_of(lambda: registry.create_branch("pr/12"))) is AlreadyExists
    assert type(error_of(lambda: registry.create_branch("x", "nowhere"))) is NotFound
    assert registry.delete_branch("pr/12") == 2
    assert registry.branches() == []
    assert numbers(two.tree()) == [2, 1]
    assert type(error_of(lambda: registry.delete_branch("pr/12"))) is NotFound
