"""Datasets: names, descriptions, renames, deletions."""

from datetime import timedelta

from dataset_registry import Dataset, Registry
from dataset_registry.errors import (
    AlreadyExists,
    InUse,
    NotFound,
)
from tests.contracts.scenarios import (
    Way,
    error_of,
    everywhere,
    names,
    numbers,
    read,
)


@everywhere
def test_a_dataset_is_found_by_its_name_by_its_id_and_in_the_list(any_registry: Registry, prefix: str) -> None:
    made = any_registry.create_dataset(f"{prefix}raw/flights", description="Departures, as delivered")
    any_registry.create_dataset(f"{prefix}raw/aircraft")
    any_registry.create_dataset(f"{prefix}rawer")
    for found in (any_registry.dataset(made.name), any_registry.dataset(made.id)):
        assert found.record == made.record
        assert (found.name, found.description) == (f"{prefix}raw/flights", "Departures, as delivered")
    assert made.record.created_by == "admin"
    assert made.record.created_at.utcoffset() == timedelta(0)
    assert names(any_registry.datasets(prefix=f"{prefix}raw/")) == [f"{prefix}raw/aircraft", f"{prefix}raw/flights"]
    assert any_registry.dataset(f"{prefix}rawer").description is None
    assert made.tree() == made.branches() == made.tags() == []


def test_a_renamed_dataset_keeps_its_versions_and_gives_its_old_name_back(flights: Dataset, way: Way) -> None:
    old, new = flights.name, flights.name + "-2024"
    flights.commit({"data": b"1"})
    flights.create_tag("first", "main")
    flights.rename(new)
    flights.update(description="of one year")
    found = way.registry.dataset(new)
    assert (found.id, found.description, found.version("first").dataset) == (flights.id, "of one year", new)
    assert isinstance(error_of(lambda: way.registry.dataset(old)), NotFound)
    assert way.registry.create_dataset(old).id != flights.id
    assert isinstance(error_of(lambda: flights.rename(old)), AlreadyExists)


def test_a_deleted_dataset_is_gone_with_all_its_versions(flights: Dataset, any_registry: Registry) -> None:
    for number in range(3):
        flights.commit({"data": b"%d" % number})
    version = flights.version()
    assert flights.delete() == 3
    for call in (flights.version, flights.tree, flights.log, flights.branches, flights.delete):
        assert isinstance(error_of(call), NotFound)
    assert isinstance(error_of(lambda: version.components), NotFound)
    assert flights.name not in names(any_registry.datasets())


def test_a_version_is_deleted_once_nothing_points_at_it_and_its_number_is_never_given_again(flights: Dataset) -> None:
    for number in range(3):
        flights.commit({"data": b"%d" % number})
    error = error_of(lambda: flights.delete_version("v3"))
    assert isinstance(error, InUse)
    assert error.fields["version"] == 3
    flights.move_branch("main", "v2")
    flights.delete_version("v3")
    assert numbers(flights.tree()) == [2, 1]
    assert flights.commit({"data": b"another"}).number == 4


def test_two_openings_of_one_registry_see_each_others_work(way: Way, flights: Dataset) -> None:
    other = way.user("admin").dataset(flights.name)
    assert other.commit({"data": b"from there"}).number == 1
    assert flights.commit({"data": b"from here"}).number == 2
    assert read(other.version()) == b"from here"
