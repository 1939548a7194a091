"""Where the ways differ."""

import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import httpx
import pyarrow as pa
import pytest

from dataset_registry import Dataset, InputVersion, Policy, Provenance, Registry, Rule
from dataset_registry.errors import (
    InputError,
    InvalidName,
    InvalidRef,
    NotFound,
    PermissionDenied,
    RegistryError,
)
from dataset_registry.remote.registry import _rule as sent_rule
from dataset_registry.server.routes.maintenance import _rule as received_rule
from dataset_registry.store import new_key
from dataset_registry.wire.maintenance import RuleRequest
from tests.contracts.scenarios import (
    Way,
    error_of,
    everywhere,
    sha256,
)
from tests.contracts.scenarios_wire import Between
from tests.operations.support import age

NOW = timedelta(0)
LAST = Policy((Rule(last=1),))


def test_what_overwrites_does_not_care_for_what_it_began_from(flights: Dataset) -> None:
    flights.commit({"data": b"1"})
    flights.commit({"data": b"2"})
    with flights.draft(overwrite=True) as draft:
        flights.move_branch("main", "v1")
        flights.delete_version("v2")
        draft.add("data", b"3")
    assert draft.version.parents == (1,)


def test_a_draft_that_cannot_be_committed_is_refused_before_anything_is_read(
    flights: Dataset, way: Way, prefix: str
) -> None:
    flights.commit({"data": b"1"})
    flights.create_tag("july")
    reader = way.user(f"{prefix[:-1]}-reader", role="guest")
    way.registry.grant(reader.actor, "read", flights.name)
    assert type(error_of(lambda: flights.draft("nowhere"))) is NotFound
    assert type(error_of(lambda: flights.draft("july"))) is InputError
    assert type(error_of(lambda: reader.dataset(flights.name).draft())) is PermissionDenied
    assert type(error_of(lambda: reader.draft(f"{prefix}new"))) is PermissionDenied


def test_a_limit_is_zero_or_more_and_the_ref_is_looked_up_all_the_same(flights: Dataset, way: Way) -> None:
    flights.commit({"data": b"1"})
    assert flights.log(limit=0) == []
    assert type(error_of(lambda: flights.log(limit=-1))) is InputError
    assert type(error_of(lambda: flights.log("nowhere", limit=0))) is NotFound
    assert type(error_of(lambda: way.registry.audit(limit=-1))) is InputError


_ODD_NAMES: dict[str, tuple[Callable[[Registry, Dataset], object], type[RegistryError]]] = {
    "empty ref": (lambda r, d: d.version(""), InvalidRef),
    "empty ref of an address": (lambda r, d: r.version(f"{d.name}@"), InvalidRef),
    "long ref": (lambda r, d: d.version("x" * 2000), InvalidRef),
    "empty branch": (lambda r, d: d.create_branch(""), InvalidName),
    "branch with NUL": (lambda r, d: d.create_branch("a\0"), InvalidName),
    "empty dataset": (lambda r, d: r.create_dataset(""), InvalidName),
    "long dataset": (lambda r, d: r.dataset("x" * 2000), InvalidName),
    "half a character": (lambda r, d: r.create_dataset("\ud800"), InvalidName),
    "ref of half a character": (lambda r, d: d.version("\ud800"), InvalidRef),
    "empty user": (lambda r, d: r.create_user(""), InvalidName),
    "id 0": (lambda r, d: r.dataset(0), NotFound),
    "long hash": (lambda r, d: r.file("a" * 70), NotFound),
    "empty parent": (lambda r, d: d.commit({"x": b"1"}, parents=[""]), InvalidRef),
    "empty rename": (lambda r, d: d.rename(""), InvalidName),
}


def test_odd_names_are_refused_alike(flights: Dataset, way: Way) -> None:
    flights.commit({"data": b"1"})
    refused = {
        what: type(error_of(lambda call=call: call(way.registry, flights))) for what, (call, _) in _ODD_NAMES.items()
    }
    assert refused == {what: kind for what, (_, kind) in _ODD_NAMES.items()}


def test_a_long_message_and_a_long_run_id_are_kept_or_refused_with_an_error_of_ours(flights: Dataset) -> None:
    for options in (
        {"message": "m" * 100_001},
        {"provenance": Provenance(run_id="r" * 256)},
        {"provenance": Provenance(inputs=(InputVersion("a", 0, None, "main"),))},
    ):
        with suppress(InputError):
            flights.commit({"data": os.urandom(5)}, **options)


def test_many_components_with_long_names_are_read(flights: Dataset) -> None:
    long = [f"{'データ' * 50}-{number:02}" for number in range(50)]
    version = flights.commit({name: b"%d" % number for number, name in enumerate(long)})
    assert [c.name for c in version.components_named(long)] == long


def test_a_collection_leaves_what_is_younger_by_a_fraction_of_a_second(embedded: Registry) -> None:
    dataset = embedded.create_dataset("raw/flights")
    dataset.commit({"data": b"1"})
    dataset.delete()
    age(embedded, 30.0 / 3600, "files.created_at")
    assert embedded.collect(older_than=timedelta(seconds=30.99), dry_run=True).files == ()


def test_durations_are_never_shortened_on_their_way(rest: Way) -> None:
    asked: list[float] = []

    def look(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        asked.append(body["older_than_seconds"] if "rules" not in body else body["rules"][0]["younger_than_seconds"])
        return httpx.Response(422, json={"title": "", "status": 422, "detail": "Enough.", "code": "invalid_input"})

    moment = timedelta(seconds=29.5)
    with Between(rest.registry, look), suppress(InputError):
        rest.registry.expire(Policy((Rule(younger_than=moment),)), dry_run=True)
    for upkeep in (rest.registry.collect, rest.registry.sweep, rest.registry.verify):
        with Between(rest.registry, look), suppress(InputError):
            upkeep(older_than=moment)
    assert len(asked) == 4
    assert all(seconds >= 29.5 for seconds in asked), asked


def test_every_setting_of_a_retention_rule_reaches_the_server() -> None:
    rule = Rule("raw/*", "main", 1, timedelta(hours=2), hourly=3, daily=4, weekly=5, monthly=6, yearly=7, heads=True)
    assert received_rule(RuleRequest.model_validate(sent_rule(rule))) == rule


@pytest.mark.objects
def test_a_file_says_what_is_wrong_with_it(alone: Way) -> None:
    alone.registry.create_dataset("raw/flights").commit({"lost": b"lost", "table": pa.table({"n": [1]})})
    alone.objects().delete(str(alone.owner.file(sha256(b"lost")).object_key))
    alone.registry.verify(repair=True)
    assert alone.registry.file(sha256(b"lost")).damage
    assert [f.stored_size for f in alone.registry.files()] == [f.stored_size for f in alone.owner.files()]


def test_records_can_be_pickled_and_what_is_connected_cannot(flights: Dataset, any_registry: Registry) -> None:
    version = flights.commit({"data": pa.table({"n": [1]})}, provenance=Provenance(run_id="r"))
    for record in (flights.record, version.record, version.components, version.productions, flights.branches()):
        assert pickle.loads(pickle.dumps(record)) == record
    for connected in (any_registry, flights, version):
        with pytest.raises(TypeError):
            pickle.dumps(connected)


def test_plans_and_findings_are_the_same_through_every_door(alone: Way) -> None:
    dataset = alone.registry.create_dataset("raw/flights")
    for number in range(3):
        dataset.commit({"data": b"%d" % number, "t": pa.table({"n": [number]})})
    gone = alone.registry.create_dataset("gone")
    gone.commit({"data": b"gone"})
    gone.delete()
    alone.objects().put(new_key(sha256(b"unknown")), b"unknown")
    here, there = alone.owner, alone.registry
    plan = there.expire(LAST, dry_run=True, live_runs=())
    assert there.collect(older_than=NOW, dry_run=True) == here.collect(older_than=NOW, dry_run=True)
    assert there.sweep(older_than=NOW, dry_run=True) == here.sweep(older_than=NOW, dry_run=True)
    theirs, ours = there.verify(deep=True, older_than=NOW), here.verify(deep=True, older_than=NOW)
    assert [(f.kind, f.what, f.repaired, f.repair) for f in theirs.findings] == [
        (f.kind, f.what, f.repaired, f.repair) for f in ours.findings
    ]
    assert (theirs.files, theirs.bytes_read, theirs.clean) == (ours.files, ours.bytes_read, ours.clean)
    assert there.branches() == here.branches()
    assert there.users() == here.users()
    assert there.grants() == here.grants()
    assert plan == here.expire(LAST, dry_run=True, live_runs=())


@everywhere
def test_a_stream_can_be_sought_as_a_file_can(flights: Dataset) -> None:
    data = bytes(range(256)) * 40
    with flights.commit({"data": data}).open() as stream:
        assert (stream.readable(), stream.seekable(), stream.tell()) == (True, True, 0)
        assert stream.read(5) == data[:5]
        assert stream.seek(-6, os.SEEK_END) == len(data) - 6
        assert stream.read(3) == data[-6:-3]
        assert stream.seek(2, os.SEEK_CUR) == len(data) - 1
        assert stream.read(10) == data[-1:]
        assert stream.seek(len(data) + 100) == len(data) + 100
        assert stream.read(1) == b""
        stream.seek(0)
        assert b"".join(iter(lambda: stream.read(1000), b"")) == data
    with pytest.raises(ValueError, match="closed"):
        stream.read()
