"""The audit log."""

from datetime import timedelta

from dataset_registry import Dataset, Provenance
from dataset_registry.errors import (
    NotFound,
)
from tests.contracts.scenarios import (
    Way,
    error_of,
    everywhere,
)


@everywhere
def test_what_was_done_is_in_the_audit_log_with_its_door(flights: Dataset, way: Way) -> None:
    flights.commit({"data": b"1"}, provenance=Provenance(run_id="run-1"))
    flights.create_branch("dev", "main")
    flights.commit({"data": b"2"}, branch="dev")
    flights.move_branch("main", "dev")
    flights.create_tag("first", "v1")
    flights.delete_tag("first")
    flights.update(description="about")
    found = way.registry.audit(dataset=flights.name)
    assert [(e.action, e.ref, e.before, e.after) for e in found] == [
        ("dataset.update", None, None, "about"),
        ("tag.delete", "first", "v1", None),
        ("tag.create", "first", None, "v1"),
        ("branch.move", "main", "v1", "v2"),
        ("commit", "dev", "v1", "v2"),
        ("branch.create", "dev", None, "v1"),
        ("commit", "main", None, "v1"),
        ("dataset.create", None, None, None),
    ]
    assert {(e.actor, e.interface, e.dataset, e.dataset_id) for e in found} == {
        ("admin", way.interface, flights.name, flights.id)
    }
    assert {e.token_id is not None for e in found} == {way.is_rest}
    assert found[-2].details["run"] == "run-1"
    assert found[0].at.utcoffset() == timedelta(0)
    assert found == way.owner.audit(dataset=flights.name), "an entry says the same to everybody"


def test_the_audit_log_is_filtered_and_read_page_by_page(flights: Dataset, way: Way) -> None:
    for number in range(5):
        flights.commit({"data": b"%d" % number})
    everything = way.registry.audit(dataset=flights.name)
    assert len(everything) == 6
    assert way.registry.audit(dataset=flights.name, limit=2) == everything[:2]
    assert way.registry.audit(dataset=flights.name, action="commit") == everything[:5]
    assert way.registry.audit(dataset=flights.name, actor="nobody") == []
    assert way.registry.audit(dataset=flights.name, limit=0) == []
    assert way.registry.audit(dataset=flights.name, before=everything[1].id) == everything[2:]
    assert type(error_of(lambda: way.registry.audit(dataset="not there"))) is NotFound


def test_the_page_of_the_audit_log_after_an_entry_is_as_long_as_asked(flights: Dataset, way: Way) -> None:
    for number in range(5):
        flights.commit({"data": b"%d" % number})
    everything = way.registry.audit(dataset=flights.name)
    assert way.registry.audit(dataset=flights.name, before=everything[1].id, limit=2) == everything[2:4]


def test_the_audit_log_is_exported_sealed_and_checked(alone: Way) -> None:
    alone.registry.create_dataset("raw/flights").commit({"data": b"1"})
    exported = list(alone.registry.export_audit())
    assert [entry.action for entry, _ in exported][-2:] == ["dataset.create", "commit"]
    assert all(entry.hash() == carried for entry, carried in exported)
    assert [entry.id for entry, _ in exported] == sorted(entry.id for entry, _ in exported)
    assert alone.registry.seal_audit() == len(exported)
    assert alone.registry.seal_audit() == 0
    found = alone.registry.check_audit()
    assert (found.entries, found.sealed, found.problems) == (len(exported), len(exported), ())
