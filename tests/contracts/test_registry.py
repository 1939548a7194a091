"""What a registry promises, run over the ways to reach one: embedded, on PostgreSQL and S3, and over REST.

Most scenarios share one registry of each way and have datasets of their own in it; those that keep house have an empty one.
"""

import gc
import json
import os
import pickle
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from time import sleep
from uuid import uuid4

import duckdb
import httpx
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dataset_registry import Dataset, InputVersion, Policy, Provenance, Registry, Rule
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.errors import (
    AlreadyExists,
    BranchMoved,
    CommitConflict,
    CorruptionError,
    InputError,
    InUse,
    InvalidName,
    InvalidRef,
    NotAdopted,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    RegistryError,
    RetryLater,
    SweepRefused,
    TagImmutable,
    UnreadableFile,
    UnsupportedType,
)
from dataset_registry.model.partitions import component_of
from dataset_registry.remote import client as remote_client
from dataset_registry.remote import contents as remote_contents
from dataset_registry.remote.registry import _rule as sent_rule
from dataset_registry.server.routes.maintenance import _rule as received_rule
from dataset_registry.store import new_key
from dataset_registry.wire.datasets import DatasetResponse
from dataset_registry.wire.maintenance import RuleRequest
from tests import serving
from tests.conftest import _catalog, _database
from tests.contracts.scenarios import (
    REST_ON_SERVERS,
    WAYS,
    Way,
    error_of,
    excel_bytes,
    heads,
    keys,
    names,
    numbers,
    parquet_bytes,
    reached,
    read,
    s3_store,
    sha256,
)
from tests.contracts.scenarios_wire import Between, ChunkingRule, Wire, busy, full, once, wire
from tests.migrations import support
from tests.migrations.conftest import Legacy
from tests.operations.support import age, object_of, rewrite

NOW = timedelta(0)
LAST = Policy((Rule(last=1),))
_prefixes = count(1)

# Bugs that several scenarios find.


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of downloads that goes with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("downloads")
        patch.setattr(remote_contents, "cache_folder", lambda: folder)
        yield


def _place(request: pytest.FixtureRequest, kind: str, folder: Path) -> tuple[str, str]:
    on_servers = "postgresql" in kind
    catalog = _catalog(request, "postgresql" if on_servers else "sqlite", folder)
    return catalog, s3_store(request.getfixturevalue("s3_server"), folder) if on_servers else str(folder / "store")


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """A registry that the scenarios of a way share; `pytest_generate_tests` says which ways."""
    kind = request.param
    with reached(kind, *_place(request, kind, tmp_path_factory.mktemp("registry"))) as way:
        yield way


@pytest.fixture
def way(shared: Way, request: pytest.FixtureRequest) -> Way:
    """A registry that the scenarios of a way share."""
    return shared


@pytest.fixture
def any_registry(way: Way) -> Registry:
    """The same, as a registry: whoever asks is an administrator."""
    return way.registry


@pytest.fixture(params=WAYS)
def alone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    """An empty registry of this scenario alone."""
    with reached(request.param, *_place(request, request.param, tmp_path)) as way:
        yield way


@pytest.fixture
def prefix() -> str:
    """What the names of a scenario's datasets begin with."""
    return f"s{next(_prefixes)}/"


@pytest.fixture
def flights(any_registry: Registry, prefix: str) -> Dataset:
    """An empty dataset."""
    return any_registry.create_dataset(f"{prefix}flights")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All scenarios run over three ways; those that say so on REST over PostgreSQL and S3 too."""
    if "shared" in metafunc.fixturenames:
        everywhere = getattr(metafunc.function, "everywhere", False)
        metafunc.parametrize("shared", [*WAYS, REST_ON_SERVERS] if everywhere else WAYS, indirect=True, scope="module")


def everywhere(test: Callable[..., None]) -> Callable[..., None]:
    """A scenario that runs on REST over PostgreSQL and S3 too."""
    test.everywhere = True  # type: ignore[attr-defined]
    return test


# --- datasets ------------------------------------------------------------------------------------------------------


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


# --- versions in a tree --------------------------------------------------------------------------------------------


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


# --- files and counts ----------------------------------------------------------------------------------------------


def test_content_is_stored_once_counted_exactly_and_gone_when_nothing_names_it(alone: Way) -> None:
    registry, data = alone.registry, b"the same content"
    first, second = registry.create_dataset("first"), registry.create_dataset("second")
    one = first.commit({"data": data})
    with second.draft() as draft:
        draft.add("other", data)
    assert (draft.result.new_bytes, draft.result.total_bytes, draft.result.unchanged) == (0, len(data), False)
    assert registry.file(sha256(data)[:10]).reference_count == 2
    assert one.components[0].content_hash == draft.version.components[0].content_hash == sha256(data)
    assert [file.content_hash for file in registry.files()] == [sha256(data)]
    second.delete()
    assert registry.file(sha256(data)).reference_count == 1
    assert read(one) == data
    first.delete()
    assert registry.file(sha256(data)).reference_count == 0
    assert registry.collect().files == 0, "it is younger than a day"
    done = registry.collect(older_than=NOW)
    assert (done.files, done.objects, done.bytes) == (1, 1, len(data))
    assert list(registry.files()) == list(alone.objects().list()) == []
    assert isinstance(error_of(lambda: registry.file(sha256(data))), NotFound)


def test_a_file_of_two_components_counts_twice(flights: Dataset, any_registry: Registry) -> None:
    data = os.urandom(40)
    flights.commit({"one": data, "two": data})
    assert any_registry.file(sha256(data)).reference_count == 2
    flights.commit({"one": b"else"})
    assert any_registry.file(sha256(data)).reference_count == 3
    assert len({c.file_id for c in flights.version("v1").components}) == 1


@everywhere
def test_a_stored_file_is_opened_by_the_beginning_of_its_hash(flights: Dataset, any_registry: Registry) -> None:
    data = os.urandom(1000)
    flights.commit({"data": data})
    found = any_registry.file(sha256(data)[:16])
    assert (found.content_hash, found.size, found.form, found.format) == (sha256(data), 1000, "whole", "binary")
    assert found.created_at.utcoffset() == timedelta(0)
    assert found.compression_type is None
    with any_registry.open_file(sha256(data)[:16]) as stream:
        assert stream.read(10) == data[:10]
        assert stream.read() == data[10:]
        assert stream.read() == b""
    assert found.id in [file.id for file in any_registry.files()]
    for wrong, kind in (("ab", InvalidRef), ("not hex!", InvalidRef), ("0" * 64, NotFound)):
        assert type(error_of(lambda wrong=wrong: any_registry.file(wrong))) is kind
        assert type(error_of(lambda wrong=wrong: any_registry.open_file(wrong))) is kind


def test_files_are_listed_oldest_first(flights: Dataset, any_registry: Registry) -> None:
    for start in range(0, 30, 10):
        with flights.draft() as draft:
            for number in range(start, start + 10):
                draft.add(f"{number:02}", f"{flights.name} {number}".encode())
    found = list(any_registry.files())
    assert [file.id for file in found] == sorted(file.id for file in found)
    ours = {c.content_hash for c in draft.version.components}
    assert sorted(file.reference_count for file in found if file.content_hash in ours) == [1] * 10 + [2] * 10 + [3] * 10


# --- branches and tags ---------------------------------------------------------------------------------------------


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


# --- who may what --------------------------------------------------------------------------------------------------


@everywhere
def test_a_guest_sees_nothing_until_it_is_granted_and_nothing_after(flights: Dataset, way: Way, prefix: str) -> None:
    flights.commit({"data": b"secret"})
    guest = way.user(f"{prefix[:-1]}-guest", role="guest")
    file = flights.version().components[0].content_hash
    for call in (lambda: guest.dataset(flights.name), lambda: guest.dataset(flights.id), lambda: guest.file(file)):
        assert type(error_of(call)) is NotFound
    assert guest.datasets() == list(guest.files()) == []

    made = way.registry.grant(guest.actor, "read", flights.name)
    assert (made.user, made.permission, made.resource_type, made.resource, made.granted_by) == (
        *(guest.actor, "read", "dataset", flights.name),
        "admin",
    )
    seen = guest.dataset(flights.name)
    assert read(seen.version()) == b"secret"
    error = error_of(lambda: seen.commit({"data": b"mine"}))
    assert type(error) is PermissionDenied
    assert error.fields == {"dataset": flights.name, "permission": "write"}
    assert type(error_of(lambda: seen.create_tag("mine"))) is PermissionDenied

    way.registry.grant(guest.actor, "write", flights.name)
    assert seen.commit({"data": b"mine"}).created_by == guest.actor
    assert type(error_of(lambda: seen.rename("elsewhere"))) is PermissionDenied
    assert type(error_of(lambda: guest.grant(guest.actor, "admin", flights.name))) is PermissionDenied
    assert type(error_of(lambda: guest.create_dataset(f"{prefix}own"))) is PermissionDenied

    way.registry.revoke(guest.actor, flights.name)
    assert type(error_of(lambda: guest.dataset(flights.name))) is NotFound
    assert type(error_of(seen.version)) is NotFound
    assert type(error_of(lambda: way.registry.revoke(guest.actor, flights.name))) is NotFound


def test_grants_reach_groups_and_all_datasets_under_a_prefix_and_no_others(alone: Way) -> None:
    for name in ("raw/a", "raw/b", "clean/a"):
        alone.registry.create_dataset(name).commit({"data": name.encode()})
    member, other = (alone.user(name, role="guest") for name in ("member", "other"))
    group = alone.registry.create_user("team", kind="group", members=["member"])
    assert (group.kind, group.role, group.members) == ("group", None, ("member",))
    alone.registry.grant("team", "admin", "raw/")
    assert names(member.datasets()) == ["raw/a", "raw/b"]
    assert [file.content_hash for file in member.files()] == [sha256(b"raw/a"), sha256(b"raw/b")]
    assert [(g.user, g.resource, g.resource_type) for g in alone.registry.grants(user="member")] == [
        ("team", "raw/", "prefix")
    ]
    assert type(error_of(lambda: member.dataset("clean/a"))) is NotFound
    assert type(error_of(lambda: member.open_file(sha256(b"clean/a")))) is NotFound
    assert other.datasets() == list(other.files()) == []
    assert type(error_of(lambda: other.dataset("raw/a"))) is NotFound
    assert member.dataset("raw/a").delete() == 1
    alone.registry.update_user("team", members=[])
    assert member.datasets() == []


def test_a_protected_branch_is_moved_by_admins_and_those_who_are_allowed(
    way: Way, flights: Dataset, prefix: str
) -> None:
    alice, bob = (way.user(f"{prefix[:-1]}-{name}") for name in ("alice", "bob"))
    for user in (alice, bob):
        way.registry.grant(user.actor, "write", flights.name)
    flights.commit({"data": b"1"})
    made = way.registry.protect(flights.name, "main", allow=[alice.actor])
    assert (made.resource, made.branch, made.allowed) == (flights.name, "main", (alice.actor,))
    assert way.registry.protections(flights.name) == [made]
    assert alice.dataset(flights.name).commit({"data": b"2"}).number == 2
    theirs = bob.dataset(flights.name)
    for call in (
        lambda: theirs.commit({"data": b"3"}),
        lambda: theirs.move_branch("main", "v1"),
        lambda: theirs.delete_branch("main"),
    ):
        error = error_of(call)
        assert type(error) is PermissionDenied
        assert "protected" in str(error)
    theirs.create_branch("bob", "main")
    assert theirs.commit({"data": b"3"}, branch="bob").number == 3
    way.registry.unprotect(flights.name)
    assert theirs.commit({"data": b"4"}).number == 4
    assert type(error_of(lambda: way.registry.unprotect(flights.name))) is NotFound


def test_whoever_makes_a_dataset_is_its_admin(way: Way, prefix: str) -> None:
    alice, bob = (way.user(f"{prefix[:-1]}-{name}") for name in ("alice", "bob"))
    own = alice.create_dataset(f"{prefix}own")
    own.commit({"data": b"1"})
    alice.grant(bob.actor, "read", own.name)
    assert read(bob.version(own.name)) == b"1"
    assert {grant.user: grant.permission for grant in alice.grants(own.name)} == {
        alice.actor: "admin",
        bob.actor: "read",
    }
    assert type(error_of(lambda: alice.create_user("anybody"))) is PermissionDenied
    assert type(error_of(alice.collect)) is PermissionDenied


def test_who_is_locked_out_gets_nothing_and_comes_back_as_before(way: Way, flights: Dataset, prefix: str) -> None:
    alice = way.user(f"{prefix[:-1]}-alice")
    way.registry.grant(alice.actor, "read", flights.name)
    assert way.registry.update_user(alice.actor, disabled=True).disabled_at is not None
    assert isinstance(error_of(lambda: alice.dataset(flights.name)), RegistryError)
    assert way.registry.update_user(alice.actor, disabled=False).disabled_at is None
    assert alice.dataset(flights.name).id == flights.id
    changed = way.registry.update_user(alice.actor, role="administrator")
    assert (changed.role, changed.kind, changed.members) == ("administrator", "person", ())
    assert changed in way.registry.users()


def test_a_grant_on_a_file_lets_read_the_file_alone(way: Way, flights: Dataset, prefix: str) -> None:
    guest = way.user(f"{prefix[:-1]}-guest", role="guest")
    data = os.urandom(30)
    flights.commit({"data": data})
    made = way.registry.grant(guest.actor, "read", file=sha256(data))
    assert (made.resource_type, made.resource) == ("file", sha256(data))
    with guest.open_file(sha256(data)) as stream:
        assert stream.read() == data
    assert guest.file(sha256(data)).reference_count == 0, "which versions name it is not told"
    assert guest.datasets() == []
    way.registry.revoke(guest.actor, file=sha256(data))
    assert type(error_of(lambda: guest.open_file(sha256(data)))) is NotFound


def test_tokens_are_made_listed_and_revoked(way: Way, prefix: str) -> None:
    way.user(f"{prefix[:-1]}-alice")
    user = f"{prefix[:-1]}-alice"
    made = way.registry.create_token(user, name="nightly", permission="read", prefix="raw/", lasts=timedelta(days=2))
    assert made.secret not in repr(made)
    assert (made.token.user, made.token.name, made.token.permission, made.token.prefix) == (
        *(user, "nightly", "read"),
        "raw/",
    )
    assert made.token.expires_at - made.token.created_at == pytest.approx(timedelta(days=2), abs=timedelta(hours=1))
    assert made.token in way.registry.tokens(user)
    revoked = way.registry.revoke_token(made.token.id)
    assert revoked.revoked_at is not None
    assert type(error_of(lambda: way.registry.revoke_token(99_999_999))) is NotFound
    assert type(error_of(lambda: way.registry.create_token("nobody-here"))) is NotFound


def test_lineage_does_not_tell_of_datasets_that_the_reader_may_not_read(way: Way, prefix: str) -> None:
    guest = way.user(f"{prefix[:-1]}-guest", role="guest")
    secret, public = (way.registry.create_dataset(prefix + name) for name in ("secret", "public"))
    source = secret.commit({"data": b"1"})
    used = InputVersion(secret.name, source.number, source.digest, "main")
    public.commit({"data": b"2"}, provenance=Provenance(inputs=(used,)))
    way.registry.grant(guest.actor, "read", public.name)
    assert list(public.version().provenance.inputs) == [used]
    assert list(guest.version(public.name).provenance.inputs) == []
    assert source.consumers == [(public.name, 1)]


# --- schemas -------------------------------------------------------------------------------------------------------

_ROWS = [("id", "name"), (1, "a"), (2, "b"), (3, None)]
_FILES = {
    "csv": (b"id,name\n1,a\n2,b\n3,\n", "csv"),
    "json": (b'[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": null}]', "json"),
    "json lines": (b'{"id": 1, "name": "a"}\n{"id": 2, "name": "b"}\n{"id": 3, "name": null}\n', "json"),
    "parquet": (parquet_bytes(id=[1, 2, 3], name=["a", "b", None]), "parquet"),
    "excel": (excel_bytes(sheet=_ROWS), "excel"),
}


@pytest.mark.parametrize("kind", list(_FILES))
def test_the_columns_and_statistics_of_a_file_are_captured(flights: Dataset, kind: str) -> None:
    data, format = _FILES[kind]
    with flights.draft() as draft:
        draft.add("data", data, format=format)
    version = flights.version()
    (table,) = version.schema.tables().values()
    assert [column.name for column in table.columns] == ["id", "name"]
    assert table.columns[1].type == "string"
    assert table.rows == 3
    assert (table.statistics["id"].min, table.statistics["id"].max) == (1, 3)
    assert table.statistics["name"].null_count == 1
    assert draft.result.schemas == {("data", 0): version.captured()[0][2]}
    assert version.captured("data") == version.captured()
    assert version.captured("other") == []
    assert version.components[0].format == format
    assert read(version) == data
    assert version.to_arrow().column("name").to_pylist() == ["a", "b", None]


def test_what_changed_in_the_columns_is_told_with_what_it_means_for_readers(flights: Dataset) -> None:
    def commit(**columns: object) -> None:
        flights.commit({"data": pa.table(columns)})

    commit(id=pa.array([1, 2], pa.int32()), name=["a", "b"], city=["x", "y"], old=[1.5, 2.5])
    commit(name=["a", "b"], id=pa.array([1, 2], pa.int64()), town=["x", "y"], new=pa.array([True, False]))
    found = flights.diff("v1", "v2")
    assert (found.before.number, found.after.number) == (1, 2)
    assert (found.components.added, found.components.removed, found.components.changed) == ((), (), (("data", 0),))
    (changes,) = found.schema.values()
    assert {(c.kind, c.column, c.before, c.after) for c in changes.changes} == {
        ("removed", "city", "string", None),
        ("removed", "old", "double", None),
        ("added", "town", None, "string"),
        ("added", "new", None, "bool"),
        ("type changed", "id", "int32", "int64"),
        ("reordered", "columns", "id, name", "name, id"),
        ("renamed", "city", "city", "town"),
    }
    assert (changes.backward, changes.forward) == (True, False)
    assert "+ new: bool" in map(str, changes.changes)
    back = flights.diff("v2", "v1").schema["data"]
    assert (back.backward, back.forward) == (False, True)
    assert flights.diff("v1", "v1").schema == {}


def test_components_that_came_went_and_changed_are_told_apart(flights: Dataset) -> None:
    flights.commit({"same": b"1", "gone": b"2", "other": [b"3", b"4"]})
    with flights.draft() as draft:
        draft.remove("gone")
        draft.add("other", b"5", index=1)
        draft.add("new", b"6")
    found = flights.diff("main~1", "main").components
    assert found.added == (("new", 0),)
    assert found.removed == (("gone", 0),)
    assert found.changed == (("other", 1),)


def test_types_and_values_of_all_kinds_come_back_as_they_were_captured(flights: Dataset) -> None:
    table = pa.table(
        {
            "small": pa.array([1, None], pa.uint8()),
            "money": pa.array([Decimal("1.50"), Decimal("2.25")], pa.decimal128(9, 2)),
            "day": pa.array([date(2024, 1, 31), None]),
            "at": pa.array([datetime(2024, 1, 31, 12, tzinfo=UTC), None], pa.timestamp("us", "Europe/Berlin")),
            "nested": pa.array([{"a": [1, 2]}, None], pa.struct([("a", pa.list_(pa.int64()))])),
            "raw": pa.array([b"\x00\xff", None]),
            "odd": [float("nan"), float("inf")],
            "none": pa.nulls(2),
        }
    )
    version = flights.commit({"data": table})
    captured = version.schema.components["data"].tables[0]
    assert {c.name: c.type for c in captured.columns} == {
        "small": "uint8",
        "money": "decimal128(9, 2)",
        "day": "date32[day]",
        "at": "timestamp[us, tz=Europe/Berlin]",
        "nested": captured.columns[4].type,
        "raw": "binary",
        "odd": "double",
        "none": "null",
    }
    assert captured.columns[4].fields[0].fields[0].type == "int64"
    assert captured.statistics["small"].null_count == 1
    assert str(captured.statistics["day"].max) == "2024-01-31"
    again = flights.version().to_arrow()
    assert again.schema.equals(table.schema)
    assert again.drop_columns("odd").equals(table.drop_columns("odd"))
    assert flights.version().captured() == version.captured()


def test_each_sheet_of_a_spreadsheet_is_a_table(flights: Dataset) -> None:
    with flights.draft() as draft:
        draft.add("book", excel_bytes(first=[("a",), (1,)], second=[("b",), ("x",), ("y",)]), format="excel")
    version = draft.version
    assert [(t.name, t.rows) for t in version.schema.components["book"].tables] == [("first", 1), ("second", 2)]
    assert version.to_arrow("book", sheet="second").to_pydict() == {"b": ["x", "y"]}
    assert isinstance(error_of(lambda: version.to_arrow("book", sheet="third")), RegistryError)


def test_a_csv_file_is_read_in_the_encoding_that_is_named(flights: Dataset) -> None:
    data = "name\nMünchen\n".encode("latin-1")
    with flights.draft() as draft:
        draft.add("data", data, format="csv", read={"encoding": "latin-1"})
    version = flights.version()
    assert version.components[0].format == "csv; charset=latin-1"
    assert version.to_arrow().to_pydict() == {"name": ["München"]}
    assert read(version) == data


@pytest.mark.parametrize("format", ["parquet", "excel", "csv"])
def test_a_file_that_is_not_what_it_says_is_refused_and_nothing_is_left(flights: Dataset, format: str) -> None:
    data = {"parquet": b"PAR1 and no more", "excel": b"no book", "csv": b""}[format]

    def commit() -> None:
        with flights.draft() as draft:
            draft.add("good", b"fine")
            draft.add("data", data, format=format)

    error = error_of(commit)
    assert (type(error), error.code) == (UnreadableFile, "unreadable_file")
    assert flights.tree() == []
    with flights.draft() as draft:
        draft.add("data", data, format="binary")
    assert read(draft.version) == data
    assert draft.version.schema.tables() == {}


# --- several files in one version ----------------------------------------------------------------------------------


def test_a_version_has_components_with_names_indexes_types_and_metadata(flights: Dataset) -> None:
    facts = {"rows": 3, "nested": {"a": [1, 2.5, None, True]}, "größe": "100 %", "big": 2**53 + 1}
    with flights.draft(message="All kinds") as draft:
        draft.add("part", b"b", index=1)
        draft.add("part", b"a", index=0)
        draft.add("about", b"{}", type="metadata", format="json", metadata=facts)
        draft.add("shape", b"s", type="schema")
        draft.add("patch", b"o", type="overlay", index=7)
    expected = [
        *[("about", 0, "metadata"), ("part", 0, "data"), ("part", 1, "data"), ("patch", 7, "overlay")],
        ("shape", 0, "schema"),
    ]
    version = flights.version()
    assert keys(version) == keys(draft.version) == expected
    assert [(c.name, c.index, c.type) for c in draft.result.written] == expected
    assert draft.result.written == version.components
    assert [dict(c.metadata) for c in version.components] == [facts, {}, {}, {}, {}]
    assert [c.size for c in version.components] == [2, 1, 1, 1, 1]
    assert [c.index for c in version.components_named(["part"])] == [0, 1]
    assert version.components_named([]) == version.components_named(["other"]) == ()
    assert version.record.overlay_file_id == version.components[3].file_id
    assert (read(version, "part", 1), read(version, "patch", 7)) == (b"b", b"o")
    assert isinstance(error_of(lambda: read(version, "part", 2)), NotFound)
    assert isinstance(error_of(lambda: read(version)), InputError)


def test_what_a_commit_does_not_name_carries_over(flights: Dataset) -> None:
    flights.commit({"a": b"1", "b": b"2", "list": [b"x", b"y", b"z"]})
    second = flights.commit({"b": b"3"})
    assert [(c.name, c.index, read(second, c.name, c.index)) for c in second.components] == [
        *[("a", 0, b"1"), ("b", 0, b"3")],
        *[("list", 0, b"x"), ("list", 1, b"y"), ("list", 2, b"z")],
    ]
    third = flights.commit({"list": [b"only"]})
    assert keys(third) == [("a", 0, "data"), ("b", 0, "data"), ("list", 0, "data")]
    with flights.draft() as draft:
        draft.clear()
        draft.add("fresh", b"start")
    assert keys(draft.version) == [("fresh", 0, "data")]


def test_components_are_removed_whole_or_by_index(flights: Dataset) -> None:
    flights.commit({"list": [b"x", b"y", b"z"], "a": b"1"})
    with flights.draft() as draft:
        draft.remove("list", index=1)
    assert [c.index for c in draft.version.components_named(["list"])] == [0, 2]
    with flights.draft() as draft:
        draft.add("new", b"1")
        draft.remove("new")
        draft.remove("list")
    assert keys(draft.version) == [("a", 0, "data")]

    def remove(name: str, index: int | None = None) -> None:
        with flights.draft() as draft:
            draft.remove(name, index=index)

    for call in (lambda: remove("list"), lambda: remove("a", 3)):
        error = error_of(call)
        assert (type(error), error.fields["component"]) == (NotFound, "list" if "list" in str(error) else "a")
    assert flights.version().number == 3


@everywhere
def test_content_equal_to_the_head_makes_no_version(flights: Dataset) -> None:
    table = pa.table({"a": [1, 2]})
    with flights.draft() as draft:
        draft.add("data", table)
        draft.add("note", b"n", metadata={"k": 1})
    assert (draft.result.unchanged, draft.result.new_bytes) == (False, draft.result.total_bytes)
    first = draft.version
    with flights.draft(message="Again") as draft:
        draft.add("note", b"n", metadata={"k": 1})
        draft.add("data", table)
    assert (draft.result.unchanged, draft.result.new_bytes) == (True, 0)
    assert draft.result.total_bytes > 0
    assert draft.version == first
    assert draft.version.message is None
    assert [(c.name, c.index) for c in draft.result.written] == [("data", 0), ("note", 0)]
    assert set(draft.result.schemas) == {("data", 0)}
    with flights.draft() as draft:
        draft.add("note", b"n", metadata={"k": 2})
    assert draft.version.number == 2, "metadata is content"


_PRINTABLE = ["a/b/c", "größe.csv", "100%", "%2F..%2f", "with space", "a?b=c&d#e", "日本語", "[x];{y}|'\"", "..", "."]
_PRINTABLE += ["//", "+", "a\\b"]


@everywhere
def test_a_component_may_have_any_printable_name(flights: Dataset, tmp_path: Path) -> None:
    flights.commit({name: name.encode() for name in _PRINTABLE} | {"other": b"else"})
    version = flights.version()
    assert [c.name for c in version.components] == sorted([*_PRINTABLE, "other"])
    for number, name in enumerate(_PRINTABLE):
        assert [c.name for c in version.components_named([name])] == [name]
        assert read(version, name) == name.encode()
        (path,) = version.checkout(tmp_path / f"{number}", component=name)
        assert path.read_bytes() == name.encode()
        assert tmp_path / f"{number}" in path.parents
    assert len(version.checkout(tmp_path / "all")) == len(_PRINTABLE) + 1
    everything = [path for path in (tmp_path / "all").rglob("*") if path.is_file()]
    assert len(everything) == len(_PRINTABLE) + 1
    with flights.draft() as draft:
        for name in _PRINTABLE:
            draft.remove(name)
    assert keys(draft.version) == [("other", 0, "data")]


def test_names_that_could_be_taken_for_another_are_refused(flights: Dataset, any_registry: Registry) -> None:
    flights.commit({"data": b"1"})
    for call in (
        lambda: flights.commit({" x": b""}),
        lambda: flights.commit({"a\nb": b""}),
        lambda: flights.commit({"x" * 513: b""}),
        lambda: flights.create_branch("v7"),
        lambda: flights.create_branch("a b"),
        lambda: flights.create_tag("a..b"),
        lambda: any_registry.create_dataset("a//b"),
        lambda: any_registry.create_dataset("../x"),
        lambda: flights.rename("has space"),
    ):
        error = error_of(call)
        assert (type(error), error.code) == (InvalidName, "invalid_name"), error


@everywhere
def test_empty_files_and_tables_without_rows_are_kept_as_they_are(flights: Dataset, any_registry: Registry) -> None:
    empty = pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.string())})
    version = flights.commit({"nothing": b"", "data": empty})
    assert read(version, "nothing") == b""
    assert version.components_named(["nothing"])[0].size == 0
    assert version.paths("nothing")[0].read_bytes() == b""
    with any_registry.open_file(sha256(b"")) as stream:
        assert stream.read() == b""
    assert version.to_arrow().equals(empty)
    assert version.schema.components["data"].tables[0].rows == 0
    assert version.to_pandas().shape == (0, 2)
    assert version.lazy().collect().height == 0
    assert list(version.scan().to_batches()) == [] or version.scan().count_rows() == 0


@everywhere
def test_five_megabytes_arrive_whole_and_are_stored_once(
    flights: Dataset, any_registry: Registry, tmp_path: Path
) -> None:
    data = os.urandom(5 << 20)
    (tmp_path / "large.bin").write_bytes(data)
    with flights.draft() as draft:
        draft.add("large", tmp_path / "large.bin")
    assert (draft.result.new_bytes, draft.version.components[0].content_hash) == (len(data), sha256(data))
    with flights.draft() as draft:
        draft.add("copy", data)
    assert draft.result.new_bytes == 0
    with draft.version.open("copy") as stream:
        stream.seek(4 << 20)
        assert stream.read(100) == data[4 << 20 :][:100]
        stream.seek(-10, os.SEEK_END)
        assert stream.read() == data[-10:]
        stream.seek(0)
        assert stream.read() == data
    assert draft.version.paths("large")[0].read_bytes() == data
    assert any_registry.file(sha256(data)).reference_count == 3


def test_three_hundred_components_make_one_version(flights: Dataset) -> None:
    with flights.draft() as draft:
        for number in range(300):
            draft.add(f"part {number:03}", b"%d" % number, metadata={"n": number})
    version = flights.version()
    assert (version.component_count, len(version.components), draft.result.total_bytes) == (300, 300, 790)
    assert [c.metadata["n"] for c in version.components] == list(range(300))
    some = [f"part {number:03}" for number in range(0, 300, 3)]
    assert [c.name for c in version.components_named(some)] == some
    assert read(version, "part 217") == b"217"
    changed = flights.commit({"part 100": b"changed"})
    assert changed.component_count == 300
    assert flights.diff("v1", "v2").components.changed == (("part 100", 0),)


def test_content_comes_from_paths_bytes_and_streams(flights: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a,b\n1,2\n")
    with path.open("rb") as stream:
        version = flights.commit({"path": path, "text": str(path), "bytes": bytearray(b"x"), "stream": stream})
    assert {c.name: c.format for c in version.components} == {
        "bytes": "binary",
        "path": "csv",
        "stream": "binary",
        "text": "csv",
    }
    assert version.component_count == 4
    assert read(version, "stream") == read(version, "path") == path.read_bytes()
    for value, kind in (
        (object(), UnsupportedType),
        (None, UnsupportedType),
        ({"a": 1}, UnsupportedType),
        (tmp_path / "not there", InputError),
        (tmp_path, InputError),
    ):
        assert type(error_of(lambda value=value: flights.commit({"data": value}))) is kind
    assert numbers(flights.tree()) == [1]


# --- tables --------------------------------------------------------------------------------------------------------


@everywhere
def test_an_arrow_table_is_read_back_in_every_form(flights: Dataset, tmp_path: Path) -> None:
    table = pa.table({"id": list(range(100)), "name": [f"n{i % 7}" for i in range(100)]})
    flights.commit({"data": table})
    version = flights.version()
    assert version.components[0].format == "parquet"
    assert version.to_arrow().equals(table)
    assert version.to_arrow("data", columns=["name"]).equals(table.select(["name"]))
    wanted = (ds.field("id") >= 10) & (ds.field("id") < 13)
    assert version.to_arrow(filter=wanted, columns=["id"]).to_pydict() == {"id": [10, 11, 12]}
    assert version.to_pandas(columns=["id"], filter=wanted)["id"].tolist() == [10, 11, 12]
    assert version.to_polars().equals(pl.from_arrow(table))
    assert version.lazy().filter(pl.col("id") > 97).collect()["id"].to_list() == [98, 99]
    assert version.scan().count_rows() == 100
    assert version.scan().to_table(filter=wanted).num_rows == 3
    with duckdb.connect() as connection:
        assert version.to_duckdb(connection=connection).aggregate("sum(id)").fetchall() == [(4950,)]
    (path,) = version.paths()
    assert pq.read_table(path).equals(table)
    (uri,) = version.uris("data")
    assert uri.startswith(("file://", "s3://", "http"))
    (copy,) = version.checkout(tmp_path / "out")
    assert copy.name == "data.parquet"
    assert copy.read_bytes() == path.read_bytes() == read(version)


def test_a_pandas_frame_comes_back_with_its_categories_and_its_index(flights: Dataset) -> None:
    frame = pd.DataFrame(
        {"kind": pd.Categorical(["b", "a", "b"], categories=["b", "a", "c"]), "at": pd.date_range("2024", periods=3)},
        index=pd.Index([10, 20, 30], name="key"),
    )
    version = flights.commit({"data": frame})
    pd.testing.assert_frame_equal(version.to_pandas(), frame)
    pd.testing.assert_frame_equal(flights.version().to_pandas("data"), frame)
    assert list(version.to_pandas(columns=["kind"])["kind"].cat.categories) == ["b", "a", "c"]
    assert version.schema.components["data"].tables[0].user_types


def test_polars_frames_readers_and_relations_are_tables(flights: Dataset) -> None:
    frame = pl.DataFrame({"n": [1, 2, 3], "e": pl.Series(["x", "y", "x"], dtype=pl.Categorical)})
    table = pa.table({"n": [1, 2, 3]})
    with duckdb.connect() as connection:
        version = flights.commit(
            {
                "polars": frame,
                "lazy": frame.lazy().filter(pl.col("n") > 1),
                "reader": table.to_reader(max_chunksize=1),
                "relation": connection.sql("SELECT range AS n FROM range(5)"),
            }
        )
    assert version.to_polars("polars")["e"].cast(pl.String).to_list() == ["x", "y", "x"]
    assert version.to_polars("lazy")["n"].to_list() == [2, 3]
    assert version.to_arrow("reader").equals(table)
    assert version.to_arrow("relation").column("n").to_pylist() == [0, 1, 2, 3, 4]
    assert isinstance(error_of(version.to_arrow), InputError), "they have different columns"


def test_components_with_the_same_columns_are_one_table(flights: Dataset) -> None:
    parts = [pa.table({"day": [f"2024-01-0{day}"], "n": [day]}) for day in (1, 2, 3)]
    version = flights.commit({f"2024-01-0{day + 1}": part for day, part in enumerate(parts)})
    assert version.to_arrow().equals(pa.concat_tables(parts))
    assert version.to_arrow(["2024-01-01", "2024-01-03"]).column("n").to_pylist() == [1, 3]
    assert version.lazy().select(pl.col("n").sum()).collect().item() == 6
    assert len(version.paths()) == len(version.uris()) == 3
    assert isinstance(error_of(lambda: version.to_arrow("2024-01-09")), NotFound)
    csv = flights.commit({"list": [b"plain"], "2024-01-01": b"plain"})
    assert isinstance(error_of(lambda: csv.lazy("list")), InputError)


def test_a_checkout_never_overwrites(flights: Dataset, tmp_path: Path) -> None:
    version = flights.commit({"data": b"1", "b": b"2"})
    assert sorted(path.name for path in version.checkout(tmp_path)) == ["b", "data"]
    (tmp_path / "b").unlink()
    assert type(error_of(lambda: version.checkout(tmp_path))) is InputError
    assert not (tmp_path / "b").exists()


# --- drafts --------------------------------------------------------------------------------------------------------


@everywhere
def test_an_exception_leaves_nothing_behind(flights: Dataset, any_registry: Registry) -> None:
    data = os.urandom(2 << 20)
    with pytest.raises(ZeroDivisionError), flights.draft() as draft:
        draft.add("large", data)
        draft.add("data", pa.table({"a": [1]}))
        raise ZeroDivisionError
    assert flights.tree() == flights.branches() == []
    assert isinstance(error_of(lambda: any_registry.file(sha256(data))), NotFound)
    assert isinstance(error_of(lambda: draft.result), InputError)


def test_a_second_try_of_a_draft_starts_from_nothing(flights: Dataset) -> None:
    draft = flights.draft()
    with pytest.raises(ZeroDivisionError), draft:
        draft.add("first", b"try")
        raise ZeroDivisionError
    with draft:
        draft.add("second", b"try")
    assert keys(draft.version) == [("second", 0, "data")]


def test_a_draft_is_committed_once(flights: Dataset) -> None:
    with flights.draft() as draft:
        draft.add("data", b"1")
    assert type(error_of(draft.__enter__)) is InputError


def test_a_dataset_is_made_with_its_first_version_or_not_at_all(any_registry: Registry, prefix: str) -> None:
    name = f"{prefix}made/on/commit"
    with pytest.raises(ZeroDivisionError), any_registry.draft(name) as draft:
        draft.add("data", b"1")
        raise ZeroDivisionError

    def commit_nonsense() -> None:
        with any_registry.draft(name) as draft:
            draft.add("data", b"not a table", format="parquet")

    assert type(error_of(commit_nonsense)) is UnreadableFile
    assert isinstance(error_of(lambda: any_registry.dataset(name)), NotFound)
    with any_registry.draft(name, "dev", description="At last", message="First") as draft:
        draft.add("data", b"1")
    assert any_registry.dataset(name).description == "At last"
    assert heads(any_registry.dataset(name)) == {"dev": 1}
    with any_registry.draft(name, "dev") as draft:
        draft.add("data", b"2")
    assert draft.version.parents == (1,)


def test_a_component_that_changed_since_the_draft_began_is_a_conflict(flights: Dataset, way: Way) -> None:
    other = way.user("admin").dataset(flights.name)
    flights.commit({"a": b"1", "b": b"1"})

    def late(**options: object) -> object:
        with flights.draft(**options) as draft:
            other.commit({"a": os.urandom(8)})
            draft.add("a", b"mine")
        return draft.version

    error = error_of(late)
    assert (type(error), error.code) == (CommitConflict, "commit_conflict")
    assert (error.fields["components"], error.fields["branch"], error.fields["head"]) == (["a"], "main", 2)
    assert late(overwrite=True).parents == (3,)
    with flights.draft() as draft:
        other.commit({"b": b"theirs"})
        draft.add("a", b"ours")
    assert (read(draft.version, "a"), read(draft.version, "b")) == (b"ours", b"theirs")


def test_a_branch_that_a_dataset_lacks_starts_from_the_fallback(flights: Dataset) -> None:
    flights.commit({"a": b"1", "b": b"1"})
    made = flights.commit({"a": b"2"}, branch="run", fallback="main")
    assert (made.parents, keys(made)) == ((1,), [("a", 0, "data"), ("b", 0, "data")])
    assert heads(flights) == {"main": 1, "run": 2}
    same = flights.commit({"a": b"1"}, branch="other", fallback="main")
    assert same.number == 1
    assert heads(flights)["other"] == 1
    error = error_of(lambda: flights.commit({"a": b"3"}, branch="nowhere"))
    assert (type(error), error.fields["branch"]) == (NotFound, "nowhere")


def test_a_draft_takes_changes_inside_its_block_only_and_needs_some(flights: Dataset) -> None:
    draft = flights.draft()
    for call in (lambda: draft.add("a", b"1"), lambda: draft.result, lambda: draft.version):
        assert type(error_of(call)) is InputError

    def commit_nothing() -> None:
        with flights.draft():
            pass

    assert type(error_of(commit_nothing)) is InputError
    with draft:
        for wrong in (
            lambda: draft.add("a", b"", index=-1),
            lambda: draft.add("a", b"", type="nonsense"),
            lambda: draft.add("a", b"", format="nonsense"),
            lambda: draft.add("a", b"", read={"encoding": "latin-1"}),
            lambda: draft.add("a", b"", metadata={"a": object()}),
            lambda: draft.replace("a", []),
        ):
            assert type(error_of(wrong)) is InputError
        draft.add("good", b"1")
    assert keys(draft.version) == [("good", 0, "data")]


def test_a_partition_loses_what_it_is_not_given_again_and_no_other_does(flights: Dataset) -> None:
    def write(key: str, **parts: bytes) -> None:
        with flights.draft(overwrite=True) as draft:
            draft.clear_partition(key)
            for name, value in parts.items():
                component, facts = component_of(key, name)
                draft.add(component, value, metadata=facts)

    write("2024/01", a=b"1", b=b"2")
    write("2024/02", a=b"3")
    write("2024/01", c=b"4")
    assert {c.name: c.metadata["partition"] for c in flights.version().components} == {
        "2024/01//c": "2024/01",
        "2024/02//a": "2024/02",
    }
    error = error_of(lambda: flights.draft().clear_partition("a//b"))
    assert type(error) is InvalidName


# --- lineage -------------------------------------------------------------------------------------------------------


@everywhere
def test_a_version_knows_what_it_was_made_from_and_what_was_made_from_it(any_registry: Registry, prefix: str) -> None:
    source, result = (any_registry.create_dataset(prefix + name) for name in ("source", "result"))
    read_version = source.commit({"data": b"1"})
    used = InputVersion(
        *(source.name, 1, read_version.digest, "main"), components=("2024-01-01",), fallback="main", label="orders"
    )
    made = Provenance(
        run_id="run-1",
        step="load",
        asset_key="a/b",
        partition="2024-01-01",
        code_version="7",
        inputs=(used,),
        metadata={"job": "nightly", "rows": 3, "nested": {"größe": [None, 1.5]}},
    )
    version = result.commit({"data": b"2"}, provenance=made)
    assert version.provenance == made
    assert read_version.consumers == [(result.name, 1)]
    again = Provenance(run_id="run-2", inputs=(used,))
    result.commit({"data": b"2"}, provenance=again)
    found = result.version().productions
    assert [(p.version, p.branch, p.unchanged, p.created_by) for p in found] == [
        *[(1, "main", False, "admin"), (1, "main", True, "admin")]
    ]
    assert [p.provenance for p in found] == [made, again]
    assert found[0].created_at <= found[1].created_at
    assert found[0].created_at.utcoffset() == timedelta(0)
    plain = source.version()
    assert (plain.provenance, plain.productions[0].provenance) == (Provenance(), Provenance())
    assert version.consumers == []


# --- maintenance ---------------------------------------------------------------------------------------------------


def test_an_expiry_does_what_its_plan_says_and_keeps_what_is_needed(alone: Way) -> None:
    dataset = alone.registry.create_dataset("raw/flights")
    for number in range(6):
        dataset.commit({"data": b"%d" % number})
    dataset.create_tag("kept", "v1")
    dataset.version("v2").note_read("run-1")
    plan = alone.registry.expire(LAST, dry_run=True, live_runs=["run-1"])
    assert plan.versions == 3
    (found,) = plan.datasets
    assert [version.number for version in found.expiring] == [3, 4, 5]
    assert set(found.kept) == {1, 2, 6}
    assert [version.parents for version in found.expiring] == [(2,), (3,), (4,)]
    assert numbers(dataset.tree()) == [6, 5, 4, 3, 2, 1]
    assert plan.summary()[0][:3] == ("raw/flights", 3, 3)
    dataset.create_branch("needed", "v4")
    done = alone.registry.apply(plan, live_runs=["run-1"])
    assert (done.versions, done.kept) == (2, 1)
    assert numbers(dataset.tree()) == [6, 4, 2, 1]
    assert alone.registry.expire(Policy((Rule(datasets="other/*", last=1),)), live_runs=()).versions == 0
    dataset.delete_branch("needed")
    assert alone.registry.expire(LAST, live_runs=()).versions == 1
    assert [v.number for v in dataset.tree()] == [6, 2, 1]


def test_what_running_pipelines_read_is_kept(alone: Way) -> None:
    dataset = alone.registry.create_dataset("raw/flights")
    for number in range(3):
        dataset.commit({"data": b"%d" % number})
    dataset.version("v1").note_read("a long run")
    version = dataset.version("v2")
    assert set(alone.registry.expire(LAST, dry_run=True).datasets[0].kept) == {1, 3}
    age(alone.owner, 48, "version_reads.read_at")
    assert set(alone.registry.expire(LAST, dry_run=True).datasets[0].kept) == {3}
    assert set(alone.registry.expire(LAST, dry_run=True, live_runs={"a long run"}).datasets[0].kept) == {1, 3}
    assert alone.registry.expire(LAST, live_runs=["a long run"]).versions == 1
    assert type(error_of(lambda: version.note_read("too late"))) is NotFound


def test_a_collection_does_what_its_plan_says_but_for_what_came_to_be_needed(alone: Way) -> None:
    dataset = alone.registry.create_dataset("raw/flights")
    dataset.commit({"a": b"first", "data": pa.table({"n": [1]})})
    dataset.delete()
    plan = alone.registry.collect(older_than=NOW, dry_run=True)
    assert (len(plan.files), plan.expired_holds, plan.trashed) == (3, 0, 0)
    assert sorted(file.form == "parts" for file in plan.files) == [False, False, True]
    assert plan.bytes > 5
    assert len(list(alone.registry.files())) == 3
    alone.registry.create_dataset("other").commit({"again": b"first"})
    done = alone.registry.apply(plan)
    assert (done.files, done.kept) == (2, 1)
    assert read(alone.registry.version("other")) == b"first"
    assert alone.registry.collect(older_than=NOW).files == 0


def test_a_sweep_removes_objects_that_the_catalog_does_not_know(alone: Way) -> None:
    alone.registry.create_dataset("raw/flights").commit({"data": b"known"})
    unknown = new_key(sha256(b"unknown"))
    alone.objects().put(unknown, b"unknown")
    assert alone.registry.sweep(dry_run=True).objects == (), "it is younger than a day"
    error = error_of(lambda: alone.registry.sweep(older_than=NOW))
    assert (type(error), error.code) == (SweepRefused, "sweep_refused")
    plan = alone.registry.sweep(older_than=NOW, max_share=1, dry_run=True)
    assert ([o.key for o in plan.objects], plan.bytes, plan.listed, plan.suspicion) == ([unknown], 7, 2, None)
    done = alone.registry.apply(plan)
    assert (done.objects, done.bytes) == (1, 7)
    assert [o.key[:64] for o in alone.objects().list()] == [sha256(b"known")]


def test_a_verification_finds_what_was_lost_and_heals_when_the_content_comes_again(alone: Way) -> None:
    dataset = alone.registry.create_dataset("raw/flights")
    version = dataset.commit({"good": b"good", "lost": b"lost"})
    sound = alone.registry.verify(deep=True)
    assert (sound.clean, sound.findings, sound.files, sound.bytes_read) == (True, (), 2, 8)
    assert alone.registry.verify(deep=(1, 7)).bytes_read <= 8
    alone.objects().delete(str(alone.owner.file(sha256(b"lost")).object_key))
    found = alone.registry.verify()
    assert [(f.kind, f.repaired) for f in found.findings] == [("missing", False)]
    assert found.damage == found.findings
    assert "raw/flights@v1" in found.findings[0].what
    alone.registry.verify(repair=True)
    error = error_of(lambda: read(version, "lost"))
    assert (type(error), error.code) == (CorruptionError, "corruption")
    dataset.commit({"lost": b"lost"}, message="Heals")
    assert read(version, "lost") == b"lost"
    assert alone.registry.verify(deep=True).damage == ()


@pytest.fixture(scope="module")
def legacy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Legacy]:
    """The baseline of a few datasets, migrated and not adopted, on a kind of database: made once, and copied."""
    made: dict[str, Legacy] = {}
    folder = tmp_path_factory.mktemp("legacy")

    def copied(kind: str) -> Legacy:
        if kind not in made:
            postgresql = _database(request, _fresh(), "template1") if kind != "sqlite" else ""
            catalog = Catalog(postgresql or f"sqlite:///{folder / 'legacy.sqlite'}")
            support.create_baseline(catalog)
            baseline = support.fill_baseline(catalog, folder / kind, datasets=4)
            migrate.upgrade(catalog)
            catalog.close()
            made[kind] = Legacy(kind, catalog.url.render_as_string(hide_password=False), baseline)
        found = made[kind]
        if kind != "sqlite":
            template = found.url.rpartition("/")[2]
            return replace(found, url=_database(request, _fresh(), template))
        target = tmp_path_factory.mktemp("copied") / "legacy.sqlite"
        shutil.copy(found.url.removeprefix("sqlite:///"), target)
        return replace(found, url=f"sqlite:///{target}")

    return copied


def _fresh() -> str:
    return f"contract_{uuid4().hex}"


@pytest.mark.parametrize("kind", WAYS)
def test_a_legacy_catalog_is_read_adopted_and_then_written(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, legacy: Callable[[str], Legacy]
) -> None:
    on_servers = "postgresql" in kind
    found = legacy("postgresql" if on_servers else "sqlite")
    store = s3_store(request.getfixturevalue("s3_server"), tmp_path) if on_servers else str(tmp_path / "store")
    with reached(kind, found.url, store) as way:
        _adopt(way.registry, found.baseline, tmp_path)


def _adopt(registry: Registry, baseline: support.Baseline, folder: Path) -> None:
    assert len(registry.datasets(prefix="raw/set_")) == 4
    for name, number, file in baseline.every_version():
        version = registry.dataset(name).version(f"v{number}")
        assert (version.digest, read(version)) == (None, file.data)
        (path,) = version.checkout(folder / f"before {name}@{number}")
        assert path.read_bytes() == file.data
    dataset = registry.dataset("raw/set_00")
    assert type(error_of(lambda: dataset.commit({"data": b"new"}))) is NotAdopted
    plan = registry.adopt(dry_run=True)
    assert plan.inline + plan.paths == len(baseline.files)
    assert plan.unreadable == {}
    done = registry.adopt()
    assert (done.failed, done.versions) == ({}, len([*baseline.every_version()]))
    assert done.files == len(baseline.files)
    for name, number, file in baseline.every_version():
        version = registry.dataset(name).version(f"v{number}")
        assert len(str(version.digest)) == 64
        assert (read(version), version.components[0].format) == (file.data, file.format)
    head = dataset.version()
    made = dataset.commit({"more": pa.table({"n": [1]})})
    assert (made.parents, [c.name for c in made.components]) == ((head.number,), ["data", "more"])
    assert registry.verify(deep=True).clean


@pytest.mark.parametrize("kind", ["embedded", "rest"])
def test_the_bytes_of_a_legacy_version_are_no_local_file_before_adoption(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, legacy: Callable[[str], Legacy]
) -> None:
    with reached(kind, legacy("sqlite").url, str(tmp_path / "store")) as way:
        version = way.registry.version("raw/set_00@v1")
        for call in (version.paths, version.uris):
            error = error_of(call)
            assert type(error) is InputError
            assert "adopt" in str(error)


# --- who did what --------------------------------------------------------------------------------------------------


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


# --- the same errors -----------------------------------------------------------------------------------------------

_REFUSALS: dict[str, tuple[Callable[[Registry, Dataset], object], type[RegistryError], str]] = {
    "no dataset": (lambda r, d: r.dataset("nobody/has/this"), NotFound, "not_found"),
    "no dataset id": (lambda r, d: r.dataset(99_999_999), NotFound, "not_found"),
    "taken": (lambda r, d: r.create_dataset(d.name), AlreadyExists, "already_exists"),
    "no ref": (lambda r, d: d.version("nowhere"), NotFound, "not_found"),
    "no number": (lambda r, d: d.version("v99"), NotFound, "not_found"),
    "too far back": (lambda r, d: d.version("main~9"), NotFound, "not_found"),
    "no second parent": (lambda r, d: d.version("main^2"), NotFound, "not_found"),
    "bad ref": (lambda r, d: d.version("a b"), InvalidRef, "invalid_ref"),
    "bad steps": (lambda r, d: d.version("main~x"), InvalidRef, "invalid_ref"),
    "bad ref in a log": (lambda r, d: d.log("~1"), InvalidRef, "invalid_ref"),
    "no ref in a log": (lambda r, d: d.log("nowhere"), NotFound, "not_found"),
    "no ref of a child": (lambda r, d: d.children("nowhere"), NotFound, "not_found"),
    "no ref of a base": (lambda r, d: d.merge_base("main", "nowhere"), NotFound, "not_found"),
    "no ref of a difference": (lambda r, d: d.diff("main", "nowhere"), NotFound, "not_found"),
    "no expectation": (lambda r, d: d.move_branch("main", "v1", expect="nowhere"), NotFound, "not_found"),
    "bad address": (lambda r, d: r.version("a b@main"), InvalidName, "invalid_name"),
    "bad prefix": (lambda r, d: r.datasets(prefix="a b"), InvalidName, "invalid_name"),
    "no component": (lambda r, d: read(d.version(), "other"), NotFound, "not_found"),
    "no index": (lambda r, d: read(d.version(), "data", 3), NotFound, "not_found"),
    "no table": (lambda r, d: d.version().to_arrow(), InputError, "invalid_input"),
    "no table of a name": (lambda r, d: d.version().to_arrow("other"), NotFound, "not_found"),
    "no lazy table": (lambda r, d: d.version().lazy(), InputError, "invalid_input"),
    "no version to delete": (lambda r, d: d.delete_version("v99"), NotFound, "not_found"),
    "head": (lambda r, d: d.delete_version("main"), InUse, "in_use"),
    "no user": (lambda r, d: r.update_user("nobody", disabled=True), NotFound, "not_found"),
    "bad role": (lambda r, d: r.create_user("x", role="king"), InputError, "invalid_input"),
    "bad user": (lambda r, d: r.create_user("a b"), InvalidName, "invalid_name"),
    "no grantee": (lambda r, d: r.grant("nobody", "read", d.name), NotFound, "not_found"),
    "bad permission": (lambda r, d: r.grant("admin", "own", d.name), InputError, "invalid_input"),
    "no resource": (lambda r, d: r.grant("admin", "read", "no/such/dataset"), NotFound, "not_found"),
    "two resources": (lambda r, d: r.grant("admin", "read", d.name, file="0" * 64), InputError, "invalid_input"),
    "bad share": (lambda r, d: r.verify(deep=(6, 5)), InputError, "invalid_input"),
    "no parent": (lambda r, d: d.commit({"x": b""}, parents=["main", "nowhere"]), NotFound, "not_found"),
    "bad branch": (lambda r, d: d.commit({"x": b""}, branch="a b"), InvalidName, "invalid_name"),
    "bad fallback": (lambda r, d: d.commit({"x": b""}, branch="b", fallback="a b"), InvalidName, "invalid_name"),
    "two overlays": (lambda r, d: _two_overlays(d), InputError, "invalid_input"),
}


def _two_overlays(dataset: Dataset) -> None:
    with dataset.draft() as draft:
        draft.add("a", b"1", type="overlay")
        draft.add("b", b"2", type="overlay")


def test_what_is_refused_is_refused_alike_with_what_to_do_next(flights: Dataset, way: Way) -> None:
    flights.commit({"data": b"1"})
    theirs = way.owner.dataset(flights.name)
    for what, (call, kind, code) in _REFUSALS.items():
        error = error_of(lambda call=call: call(way.registry, flights))
        assert (type(error), error.code) == (kind, code), f"{what}: {error!r}"
        same = error_of(lambda call=call: call(way.owner, theirs))
        if "See /docs" not in str(error):
            assert (str(error), error.fields) == (str(same), same.fields), what
    assert numbers(flights.tree()) == [1]


# --- several at once, and the end ----------------------------------------------------------------------------------


@everywhere
def test_threads_share_one_registry(flights: Dataset, any_registry: Registry) -> None:
    flights.commit({"data": pa.table({"n": [1, 2, 3]})})
    barrier = threading.Barrier(6)

    def work(number: int) -> tuple[int, int]:
        barrier.wait()
        made = any_registry.dataset(flights.name).commit({f"part-{number}": b"%d" % number})
        assert read(made, f"part-{number}") == b"%d" % number
        return made.number, made.to_arrow("data").num_rows

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, range(6)))
    assert sorted(number for number, _ in found) == [2, 3, 4, 5, 6, 7]
    assert {rows for _, rows in found} == {3}
    assert flights.version().component_count == 7


def test_a_registry_says_where_it_is_and_who_asks(way: Way) -> None:
    assert way.registry.actor == "admin"
    assert repr(way.registry) == f"<Registry {way.registry.location} as admin>"
    if way.served is not None:
        assert way.registry.location == way.served.url
    assert "testsecret" not in way.registry.location


# --- over REST alone: what a wire can do ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Way]:
    """A server on SQLite and a folder, for what goes wrong on the way to it."""
    with reached("rest", *_place(request, "rest", tmp_path_factory.mktemp("wired"))) as way:
        yield way


@pytest.fixture
def wired(rest: Way) -> Iterator[tuple[Registry, Wire]]:
    """A client behind a wire that can be cut."""
    assert rest.served is not None
    with wire(rest.served.url) as between, Registry.open(between.url, token=rest.served.token("admin")) as registry:
        yield registry, between


@pytest.fixture
def sent(rest: Way, prefix: str) -> Dataset:
    """A dataset on that server."""
    return rest.registry.create_dataset(f"{prefix}flights")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not wait before it asks again."""
    monkeypatch.setattr(remote_client, "sleep", lambda _: None)


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What went wrong where nobody could be told: files that nobody closed."""
    found: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: found.append(repr(what.exc_value)))
    yield found
    sleep(0.1)  # the server notices that somebody has gone
    gc.collect()


@pytest.mark.parametrize("call", ["delete_branch", "delete_tag", "branch"])
@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_of_dots_is_no_other_path(sent: Dataset, rest: Way, call: str, name: str) -> None:
    sent.commit({"data": b"precious"})
    error = error_of(lambda: getattr(sent, call)(name))
    assert type(error) is InvalidName
    assert rest.owner.dataset(sent.name).version().number == 1


def test_files_that_travel_with_a_commit_are_closed(sent: Dataset, unraisable: list[str]) -> None:
    sent.commit({"data": os.urandom(100_000)})
    gc.collect()
    assert unraisable == []


def test_streams_that_nobody_reads_to_the_end_cost_nothing(sent: Dataset, unraisable: list[str]) -> None:
    with sent.draft() as draft:
        draft.add("data", os.urandom(3 << 20))
    for _ in range(40):
        draft.version.open("data").read(10)
    gc.collect()
    assert unraisable == []
    with draft.version.open("data") as stream:
        assert len(stream.read()) == 3 << 20


@pytest.mark.usefixtures("unraisable")
def test_what_is_gone_when_it_is_read_is_not_found(sent: Dataset, rest: Way) -> None:
    version = sent.commit({"data": os.urandom(50)})
    with pytest.raises(NotFound), version.open() as stream:
        sent.delete()
        rest.registry.collect(older_than=NOW)
        stream.read()


@pytest.mark.usefixtures("unraisable")
@pytest.mark.parametrize("damage", ["shorter", "other bytes"])
@pytest.mark.parametrize("how", ["open", "paths"])
def test_content_that_is_not_what_it_is_named_after_is_corruption(
    sent: Dataset, rest: Way, damage: str, how: str
) -> None:
    data = os.urandom(5000)
    version = sent.commit({"data": data})
    rewrite(object_of(rest.owner, sha256(data)), data[:100] if damage == "shorter" else data[::-1])
    ways = {
        "open": lambda: read(version),
        "paths": version.paths,
    }
    error = error_of(ways[how])
    assert type(error) is CorruptionError


@pytest.mark.usefixtures("unraisable")
@pytest.mark.parametrize("how", ["open", "paths"])
def test_a_download_goes_on_after_a_broken_connection(
    wired: tuple[Registry, Wire], prefix: str, how: str, tmp_path: Path
) -> None:
    registry, between = wired
    data = os.urandom(3 << 20)
    (tmp_path / "large").write_bytes(data)
    version = registry.create_dataset(f"{prefix}large").commit({"data": tmp_path / "large"})
    between.cuts += [ChunkingRule("down", 1 << 20), ChunkingRule("down", 1 << 20)]
    assert (read(version) if how == "open" else version.paths()[0].read_bytes()) == data
    assert between.broken == 2


@pytest.mark.usefixtures("hasty")
@pytest.mark.usefixtures("unraisable")
def test_a_download_that_never_arrives_whole_fails_as_an_error_of_ours(
    wired: tuple[Registry, Wire], prefix: str, tmp_path: Path
) -> None:
    registry, between = wired
    version = registry.create_dataset(f"{prefix}large").commit({"data": os.urandom(3 << 20)})
    between.cuts += [ChunkingRule("down", 10_000)] * 100
    assert type(error_of(lambda: read(version))) in (RetryLater, CorruptionError)
    assert type(error_of(lambda: version.checkout(tmp_path / "out"))) in (RetryLater, CorruptionError)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("unraisable")
def test_an_answer_that_says_less_than_the_file_is_corruption(sent: Dataset, rest: Way) -> None:
    version = sent.commit({"data": os.urandom(5000)})

    def shorter() -> httpx.Response:
        return httpx.Response(200, content=b"x" * 4000)

    with Between(rest.registry, once(shorter, "GET files/")):
        assert type(error_of(lambda: read(version))) is CorruptionError


@pytest.mark.usefixtures("unraisable")
def test_a_range_that_ends_early_is_corruption(sent: Dataset, rest: Way) -> None:
    version = sent.commit({"data": os.urandom(5000)})

    def shorter() -> httpx.Response:
        return httpx.Response(206, content=b"x" * 10)

    with Between(rest.registry, once(shorter, "GET files/")), version.open() as stream:
        stream.seek(4000)
        assert type(error_of(stream.read)) is CorruptionError


@pytest.mark.usefixtures("unraisable")
@pytest.mark.parametrize("cuts", [1, 3])
def test_an_upload_goes_on_where_it_stopped(wired: tuple[Registry, Wire], rest: Way, prefix: str, cuts: int) -> None:
    registry, between = wired
    dataset = registry.create_dataset(f"{prefix}large")
    data = os.urandom(8 << 20)
    between.cuts += [ChunkingRule("up", 2 << 20)] * cuts

    def settled(request: httpx.Request) -> None:
        """Let the server finish what it has received before it is asked where the upload stands."""
        if request.method != "GET" or "/uploads/" not in request.url.path:
            return
        folder = rest.owner.access.store.scratch / "uploads"
        sizes: list[int] = []
        while len(sizes) < 4 or len(set(sizes[-4:])) > 1:
            sizes.append(sum(path.stat().st_size for path in folder.glob("*.data")))
            sleep(0.1)

    with Between(registry, settled) as requests:
        version = dataset.commit({"data": data})
    assert between.broken == cuts
    assert requests.count("PATCH uploads/") == cuts + 1
    assert (requests.count("POST uploads"), dataset.version()) == (1, version)
    assert read(version) == data


@pytest.mark.usefixtures("unraisable")
def test_an_upload_goes_on_while_the_server_still_waits_for_the_broken_connection(
    wired: tuple[Registry, Wire], prefix: str
) -> None:
    registry, between = wired
    dataset = registry.create_dataset(f"{prefix}large")
    data = os.urandom(4 << 20)
    between.cuts.append(ChunkingRule("up", 2 << 20, half=True))
    released = threading.Timer(1.0, between.drop)
    released.start()
    try:
        assert read(dataset.commit({"data": data})) == data
    finally:
        released.join()


@pytest.mark.usefixtures("hasty")
def test_an_answer_that_was_lost_is_asked_for_again_and_the_work_done_once(sent: Dataset, rest: Way) -> None:
    def lost() -> httpx.Response:
        raise httpx.ReadError("the connection broke")

    with (
        Between(rest.registry, after=once(lost, f"POST datasets/{sent.id}/versions")) as requests,
        sent.draft() as draft,
    ):
        draft.add("data", os.urandom(100))
    assert requests.count(f"POST datasets/{sent.id}/versions") == 2
    assert (draft.result.unchanged, draft.version.number) == (False, 1)
    assert numbers(sent.tree()) == [1]
    with Between(rest.registry, after=once(lost, f"POST datasets/{sent.id}/tags")):
        assert sent.create_tag("once").version_number == 1
    with Between(rest.registry, after=once(lost, "POST datasets")):
        made = rest.registry.create_dataset(sent.name + "-2")
    assert rest.owner.dataset(made.id).name == sent.name + "-2"


@pytest.mark.usefixtures("hasty")
def test_what_a_busy_server_refused_is_asked_for_again(sent: Dataset, rest: Way) -> None:
    with Between(rest.registry, once(busy, "GET datasets")) as requests:
        assert rest.registry.dataset(sent.name).id == sent.id
    assert len(requests.seen) == 2
    with Between(rest.registry, once(busy, f"POST datasets/{sent.id}/versions")):
        assert sent.commit({"data": b"1", "small": b"2"}).number == 1
    with Between(rest.registry, lambda _: busy()) as requests:
        assert type(error_of(sent.version)) is RetryLater
    assert len(requests.seen) > 2
    assert sent.version().number == 1


def test_a_download_that_a_busy_server_refused_is_asked_for_again(sent: Dataset, rest: Way) -> None:
    version = sent.commit({"data": b"1" * 100})
    with Between(rest.registry, once(busy, "GET files/")):
        assert read(version) == b"1" * 100


def test_a_change_that_a_full_server_refused_is_asked_for_again(sent: Dataset, rest: Way) -> None:
    sent.commit({"data": b"1"})
    sent.commit({"data": b"2"})
    with Between(rest.registry, once(full, "PATCH datasets/")):
        assert sent.move_branch("main", "v1", expect="v2").version_number == 1
    with Between(rest.registry, once(full, "DELETE datasets/")):
        sent.delete_branch("main")


@pytest.mark.usefixtures("hasty")
def test_an_upkeep_that_takes_too_long_to_wait_for_is_not_begun_again(rest: Way) -> None:
    def slow(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("ten minutes have passed")

    with Between(rest.registry, slow) as requests:
        assert type(error_of(lambda: rest.registry.verify(deep=True))) is RetryLater
    assert requests.count("POST verify") == 1


@pytest.mark.usefixtures("unraisable")
def test_a_restarted_server_is_the_same_registry(rest: Way, prefix: str) -> None:
    catalog, store = rest.catalog, rest.store
    with (
        serving.in_thread(catalog=catalog, store=store) as first,
        wire(first.url) as between,
        Registry.open(between.url, token=first.token("admin")) as registry,
    ):
        dataset = registry.create_dataset(f"{prefix}flights")
        version = dataset.commit({"data": b"1"})
        with serving.in_thread(catalog=catalog, store=store) as second:
            between.lead_to(second.url)
            between.drop()
            assert dataset.move_branch("main", "v1").version_number == 1
            between.drop()
            assert read(version) == b"1"
            with dataset.draft() as draft:
                draft.add("data", os.urandom(2 << 20))
                between.drop()
            assert draft.version.number == 2


def test_a_closed_registry_connects_again(rest: Way) -> None:
    assert rest.served is not None
    registry = Registry.open(rest.served.url, token=rest.served.token("admin"))
    registry.datasets()
    registry.close()
    registry.close()
    try:
        registry.datasets()
    finally:
        registry.close()


@pytest.mark.usefixtures("hasty")
def test_a_server_that_is_not_there_is_named(rest: Way) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = error_of(lambda: Registry.open(f"http://127.0.0.1:{port}", token="dr_x"))
    assert type(error) is RetryLater
    assert f"127.0.0.1:{port}" in str(error)
    assert rest.served is not None
    assert type(error_of(lambda: Registry.open(rest.served.url, token="dr_unknown"))) is NotAuthenticated
    assert type(error_of(lambda: Registry.open(rest.served.url))) is InputError


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("token", ["dr_secret\n", "dr_secrét", ""])
def test_a_token_with_what_no_header_takes_is_refused_without_showing_it(rest: Way, token: str) -> None:
    assert rest.served is not None
    error = error_of(lambda: Registry.open(rest.served.url, token=token))
    assert isinstance(error, NotAuthenticated | InputError)
    assert "secr" not in str(error)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("url", ["http://localhost:abc", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    assert type(error_of(lambda: Registry.open(url, token="dr_x"))) is InputError


def test_an_address_may_be_in_capitals(rest: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rest.served is not None
    with Registry.open(rest.served.url.replace("http", "HTTP"), token=rest.served.token("admin")) as registry:
        assert registry.location.casefold() == rest.served.url


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("status", [200, 302])
def test_an_answer_that_is_no_registrys_is_an_error_of_ours(sent: Dataset, rest: Way, status: int) -> None:
    def page(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, html="<h1>Please log in</h1>", headers={"Location": "https://login.example.com"})

    with Between(rest.registry, page):
        for call in (sent.version, sent.branches, sent.tree, rest.registry.datasets, lambda: sent.create_tag("t")):
            assert isinstance(error_of(call), RegistryError)


def test_a_newer_server_may_say_more(sent: Dataset, rest: Way) -> None:
    def newer(request: httpx.Request) -> httpx.Response:
        shown = DatasetResponse.of(sent.record).model_dump(mode="json") | {"stars": 5}
        return httpx.Response(200, json=shown if request.url.path.endswith(str(sent.id)) else {"items": [shown]})

    with Between(rest.registry, newer):
        assert rest.registry.dataset(sent.id).record == sent.record
        assert rest.registry.dataset(sent.name).record == sent.record


def test_content_that_was_collected_while_it_was_committed_is_sent_after_all(
    sent: Dataset, rest: Way, prefix: str
) -> None:
    data = os.urandom(100)
    other = rest.registry.create_dataset(f"{prefix}other")
    other.commit({"data": data})
    other.delete()

    def collected(_: httpx.Request) -> None:
        rest.owner.collect(older_than=NOW)

    with Between(rest.registry, lambda r: collected(r) if r.url.path.endswith("/versions") else None):
        assert read(sent.commit({"data": data})) == data


def test_a_copy_into_a_server_is_refused_as_one_out_of_it(rest: Way) -> None:
    assert type(error_of(lambda: rest.registry.copy_to(rest.owner))) is InputError
    assert type(error_of(lambda: rest.owner.copy_to(rest.registry))) is InputError


def test_what_a_token_may_do_is_bounded_by_its_permission_its_prefix_and_its_revocation(rest: Way, prefix: str) -> None:
    assert rest.served is not None
    for name in ("raw/a", "clean/a"):
        rest.registry.create_dataset(prefix + name).commit({"data": b"1"})
    made = rest.registry.create_token(permission="read", prefix=f"{prefix}raw/")
    with Registry.open(rest.served.url, token=made.secret) as narrow:
        assert narrow.actor == "admin"
        assert names(narrow.datasets()) == [f"{prefix}raw/a"]
        assert type(error_of(lambda: narrow.dataset(f"{prefix}clean/a"))) is NotFound
        error = error_of(lambda: narrow.dataset(f"{prefix}raw/a").commit({"data": b"2"}))
        assert type(error) is PermissionDenied
        assert type(error_of(narrow.users)) is PermissionDenied
        rest.registry.revoke_token(made.token.id)
        assert type(error_of(narrow.datasets)) is NotAuthenticated


# --- where the ways differ -----------------------------------------------------------------------------------------


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
