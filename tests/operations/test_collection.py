"""Collecting what nothing names and sweeping what nobody knows: what goes, what stays, and what refuses."""

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.catalog import holds
from dataset_registry.content import stored
from dataset_registry.errors import CorruptionError, NotFound, StorageError, SweepRefused
from dataset_registry.model.records import StoredObject
from dataset_registry.store import FolderStore, RemoteBytes, new_key
from tests.chunking import every
from tests.operations.support import NOW, age, age_objects, ago, ask, assert_exact, digest_of, object_of, objects, write
from tests.waiting import SAFETY

pytestmark = pytest.mark.objects

DAY = timedelta(days=1)


def drop(dataset: Dataset) -> None:
    """Let nothing name what the dataset had, but keep the dataset."""
    dataset.commit({"keep": b"kept"}) if not dataset.tree() else None
    with dataset.draft() as draft:
        draft.clear()
        draft.add("keep", b"kept")
    dataset.create_tag("all-that-stays")
    for version in dataset.tree()[1:]:
        write_parentless(dataset)
        dataset.delete_version(f"v{version.number}")


def write_parentless(dataset: Dataset) -> None:
    from sqlalchemy import text

    dataset.access.catalog.write(lambda tx: tx.execute(text("UPDATE dataset_versions SET parent_version_id = NULL")))


def left_behind(registry: Registry, *contents: bytes) -> dict[str, int]:
    """Objects that the catalog does not know."""
    import hashlib

    keys = {}
    for data in contents:
        key = new_key(hashlib.sha256(data).hexdigest())
        registry.access.store.put(key, data)
        keys[key] = len(data)
    return keys


# --- collecting ----------------------------------------------------------------------------------------------------


def test_files_go_when_nothing_names_them_and_they_are_old_enough(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"gone", "b": b"gone too"})
    drop(flights)
    assert registry.collect() == registry.collect(older_than=timedelta(hours=1))
    assert registry.collect(dry_run=True).files == ()
    age(registry, 25, "files.created_at")
    plan = registry.collect(dry_run=True)
    assert (len(plan.files), plan.bytes, plan.expired_holds, plan.trashed) == (2, 12, 0, 0)
    assert len(objects(registry)) == 3
    done = registry.apply(plan)
    assert (done.files, done.kept, done.objects, done.bytes) == (2, 0, 2, 12)
    assert_exact(registry)
    again = registry.apply(plan)
    assert (again.files, again.kept, again.objects, again.bytes) == (0, 2, 0, 0)


def test_a_held_file_stays_until_its_hold_runs_out(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"held"})
    digest = digest_of(flights, "a")
    drop(flights)
    registry.access.catalog.write(lambda tx: holds.hold(tx, {digest: None}))
    assert registry.collect(older_than=NOW).files == 0
    age(registry, 1, "uploads.expires_at")
    plan = registry.collect(older_than=NOW, dry_run=True)
    assert (len(plan.files), plan.expired_holds) == (1, 1)
    assert registry.apply(plan).files == 1
    assert ask(registry, "SELECT count(*) FROM uploads") == [0]
    assert_exact(registry)


def test_a_file_that_is_held_after_the_plan_stays(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"held"})
    digest = digest_of(flights, "a")
    drop(flights)
    plan = registry.collect(older_than=NOW, dry_run=True)
    registry.access.catalog.write(lambda tx: holds.hold(tx, {digest: None}))
    assert (registry.apply(plan).files, registry.apply(plan).kept) == (0, 1)
    assert registry.file(digest).reference_count == 0


def test_a_file_that_is_named_after_the_plan_stays(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"gone", "b": b"wanted again", "t": pa.table({"x": [1, 2]})})
    table = flights.version().to_arrow("t")
    drop(flights)
    plan = registry.collect(older_than=NOW, dry_run=True)
    assert len(plan.files) == 4
    flights.commit({"b": b"wanted again", "t": table})
    done = registry.apply(plan)
    assert (done.files, done.kept) == (1, 3)
    assert flights.version().to_arrow("t") == table
    assert_exact(registry)


def test_the_object_of_a_dead_writer_s_hold_goes_whether_it_came_or_not(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"1"})
    (came, size), *_ = left_behind(registry, b"came").items()
    never = new_key("0" * 64)
    registry.access.catalog.write(lambda tx: holds.hold(tx, {came[:64]: came, never[:64]: never}))
    assert registry.collect(older_than=NOW).objects == 0
    assert came in objects(registry)
    age(registry, 1, "uploads.expires_at")
    registry.collect(older_than=NOW)
    assert_exact(registry)
    assert size == 4


def test_what_a_writer_puts_after_its_hold_ran_out_is_collected_for_a_week(
    flights: Dataset, registry: Registry
) -> None:
    flights.commit({"a": b"1"})
    late = new_key(hashlib.sha256(b"late").hexdigest())
    registry.access.catalog.write(lambda tx: holds.hold(tx, {late[:64]: late}))
    age(registry, 1, "uploads.expires_at")
    registry.collect(older_than=NOW)
    registry.access.store.put(late, b"late")  # the writer wakes up
    assert registry.sweep(older_than=NOW, dry_run=True).objects == (), "it is known"
    registry.collect(older_than=NOW)
    assert late not in objects(registry)
    assert ask(registry, "SELECT count(*) FROM trash") == [1]
    age(registry, 8 * 24, "trash.keep_until")
    assert registry.collect(older_than=NOW).objects == 1
    assert ask(registry, "SELECT count(*) FROM trash") == [0]


def test_tables_go_with_their_parts_in_one_collection(
    flights: Dataset, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset_registry.tabular.chunking.split", every(10))
    flights.commit({"t": pa.table({"x": range(35)}), "u": pa.table({"x": range(20)})})
    parts = [digest_of_path(path) for path in flights.version().paths("t")]
    flights.commit({"alone": flights.version().paths("t")[3]})
    flights.create_tag("all", "v2")
    assert ask(registry, "SELECT count(*) FROM files") == [2 + 4]
    with flights.draft() as draft:
        draft.remove("t")
    flights.delete_tag("all")
    write_parentless(flights)
    for ref in ("v1", "v2"):
        flights.delete_version(ref)
    plan = registry.collect(older_than=NOW, dry_run=True)
    assert [file.form == "parts" for file in plan.files] == [
        True,
        False,
    ]  # of `t` only its third part: `u` and `alone` have the rest
    assert plan.files[1].content_hash == parts[2]
    assert registry.apply(plan).files == 2
    assert_exact(registry)
    assert flights.version().to_arrow("u")["x"].to_pylist() == list(range(20))
    flights.delete()
    done = registry.collect(older_than=NOW)
    assert (done.files, done.objects) == (1 + 3, 3)
    assert objects(registry) == {}
    assert ask(registry, "SELECT count(*) FROM file_parts") == [0]


def digest_of_path(path: Path) -> str:
    return path.name.partition(".")[0]


def test_captures_schemas_and_grants_go_with_their_files(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": pa.table({"x": [1]}), "b": io.BytesIO(b"a,b\n1,2\n")})
    with flights.draft() as draft:
        draft.add("c", b"p,q\n1,2\n", format="csv")
    user = ask(registry, "SELECT min(id) FROM users")[0]
    for file_id in ask(registry, "SELECT id FROM files"):
        write(
            registry,
            "INSERT INTO permissions (resource_type, resource_id, user_id, permission_type, granted_by) "
            "VALUES ('file', :file, :user, 'read', :user), ('dataset', :file, :user, 'read', :user)",
            file=file_id,
            user=user,
        )
    assert ask(registry, "SELECT count(*) FROM schemas")[0] >= 2
    kept = ask(
        registry, "SELECT id FROM schemas WHERE id IN (SELECT schema_id FROM file_captures WHERE format = 'csv')"
    )
    with flights.draft() as draft:
        draft.remove("a")
    flights.create_tag("t", "v3")
    write_parentless(flights)
    for ref in ("v1", "v2"):
        flights.delete_version(ref)
    registry.collect(older_than=NOW)
    assert ask(registry, "SELECT id FROM schemas") == kept
    assert ask(registry, "SELECT count(*) FROM permissions WHERE resource_type = 'file'") == [2]  # `b` and `c`
    assert ask(registry, "SELECT count(*) FROM permissions WHERE resource_type = 'dataset'") == [5]  # its creator's
    flights.delete()
    registry.collect(older_than=NOW)
    assert ask(registry, "SELECT count(*) FROM schemas") == [0]
    assert ask(registry, "SELECT count(*) FROM file_captures") == [0]


def test_a_quarantined_file_goes_when_nothing_names_it(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"lost"})
    object_of(registry, digest_of(flights, "a")).unlink()
    registry.verify(repair=True)
    assert registry.collect(older_than=NOW).files == 0
    drop(flights)
    assert registry.collect(older_than=NOW).files == 1
    assert registry.verify(deep=True).clean
    flights.commit({"a": b"lost"})
    assert registry.verify(deep=True).clean


def test_what_runs_read_is_forgotten_after_a_week(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"1"})
    flights.version().note_read("r")
    for hours, reads in ((6 * 24, 1), (8 * 24, 0)):
        age(registry, hours, "version_reads.read_at")
        registry.collect()
        assert ask(registry, "SELECT count(*) FROM version_reads") == [reads]


class Stubborn(FolderStore):
    """A folder that refuses to delete some keys."""

    refused: frozenset[str] = frozenset()
    slow = 0.0

    def delete(self, key: str) -> None:
        if key in self.refused:
            raise StorageError(f"Nobody deletes {key}")
        super().delete(key)


@pytest.fixture
def stubborn(catalog_url: str, tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(catalog=catalog_url, store=Stubborn(tmp_path / "stubborn")) as opened:
        yield opened


def test_what_the_store_refuses_to_delete_waits_in_the_trash(stubborn: Registry) -> None:
    store = stubborn.access.store
    assert isinstance(store, Stubborn)
    dataset = stubborn.create_dataset("d")
    dataset.commit({f"c{i}": f"{i}".encode() for i in range(20)})
    dataset.delete()
    keys = sorted(objects(stubborn))
    store.refused = frozenset(keys[3:5])
    with pytest.raises(StorageError, match=f"Nobody deletes {keys[3]}"):
        stubborn.collect(older_than=NOW)
    assert sorted(objects(stubborn)) == keys[3:5]
    assert ask(stubborn, "SELECT object_key FROM trash ORDER BY object_key") == keys[3:5]
    assert ask(stubborn, "SELECT count(*) FROM files") == [0]
    plan = stubborn.collect(older_than=NOW, dry_run=True)
    assert (plan.files, plan.trashed, plan.bytes) == ((), 2, 0)
    (finding,) = stubborn.verify(deep=True).findings
    assert (finding.kind, finding.is_leftover) == ("trash", True)
    assert stubborn.sweep(older_than=NOW, max_share=1, dry_run=True).objects == ()
    store.refused = frozenset()
    assert stubborn.collect(older_than=NOW).objects == 2
    assert objects(stubborn) == {}
    assert stubborn.verify().clean


def test_a_sweep_that_the_store_refuses_takes_the_rest(stubborn: Registry) -> None:
    store = stubborn.access.store
    assert isinstance(store, Stubborn)
    keys = sorted(left_behind(stubborn, b"1", b"2", b"3"))
    store.refused = frozenset(keys[:1])
    with pytest.raises(StorageError, match="Nobody deletes"):
        stubborn.sweep(older_than=NOW, max_share=1)
    assert sorted(objects(stubborn)) == keys[:1]
    store.refused = frozenset()
    assert stubborn.sweep(older_than=NOW, max_share=1).objects == 1


def test_collections_at_the_same_time_share_the_work(flights: Dataset, registry: Registry) -> None:
    flights.commit({f"c{i}": f"{i}".encode() for i in range(1200)})
    flights.commit({"t": pa.table({"x": [1]})})
    drop(flights)
    plan = registry.collect(older_than=NOW, dry_run=True)
    assert len(plan.files) == 1202
    results, errors = [], []
    start = threading.Barrier(3)

    def go() -> None:
        start.wait()
        try:
            results.append(registry.apply(plan))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SAFETY)
    assert errors == []
    assert sum(done.files for done in results) == 1202
    assert all(done.files + done.kept == 1202 for done in results)
    assert sum(done.bytes for done in results) == plan.bytes
    registry.collect(older_than=NOW)
    assert_exact(registry)


def test_what_dead_writers_left_aside_goes_after_a_day(flights: Dataset, registry: Registry, tmp_path: Path) -> None:
    flights.commit({"a": b"1"})
    aside = tmp_path / "store" / "spool" / new_key("a" * 64)
    aside.write_bytes(b"half")
    loose = object_of(registry, digest_of(flights, "a")).with_name(f"{new_key('b' * 64)}.partial")
    loose.write_bytes(b"copied half")
    spool = tmp_path / "store" / "spool" / "spool-dead"
    spool.mkdir()
    (spool / "1").write_bytes(b"spooled")
    registry.collect(older_than=NOW)
    assert all(path.exists() for path in (aside, loose, spool))
    for path in (aside, loose, spool):
        os.utime(path, (0, 0))
    assert registry.collect(older_than=NOW).bytes == len(b"half") + len(b"copied half") + len(b"spooled")
    assert not any(path.exists() for path in (aside, loose, spool))
    assert_exact(registry)


# --- sweeping ------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(flights: Dataset) -> Dataset:
    """A dataset of 200 files."""
    flights.commit({f"c{i}": f"{i:03}".encode() for i in range(200)})
    return flights


def test_a_sweep_takes_unknown_objects_and_nothing_that_is_known(full: Dataset, registry: Registry) -> None:
    unknown, held, trashed = (left_behind(registry, data) for data in (b"unk", b"hel", b"tra"))
    write(registry, "INSERT INTO trash (object_key) VALUES (:key)", key=next(iter(trashed)))
    registry.access.catalog.write(lambda tx: holds.hold(tx, {key[:64]: key for key in held}))
    plan = registry.sweep(older_than=NOW, max_share=0.01, dry_run=True)
    assert [found.key for found in plan.objects] == list(unknown)
    assert (plan.listed, plan.listed_bytes, plan.bytes, plan.suspicion) == (203, 609, 3, None)
    assert objects(registry).keys() > unknown.keys()
    done = registry.sweep(older_than=NOW, max_share=0.01)
    assert (done.objects, done.bytes, done.files, done.kept) == (1, 3, 0, 0)
    assert objects(registry).keys() >= held.keys() | trashed.keys()
    assert len(objects(registry)) == 202


def test_a_sweep_leaves_young_objects_alone(full: Dataset, registry: Registry) -> None:
    unknown = left_behind(registry, b"young")
    assert registry.sweep(older_than=DAY).objects == 0
    age_objects(registry, 25, unknown)
    assert registry.sweep(older_than=DAY, max_share=1).objects == 1
    assert_exact(registry)


def test_a_sweep_of_much_of_the_store_is_refused(full: Dataset, registry: Registry) -> None:
    left_behind(registry, *(f"u{i}".encode() for i in range(6)))
    plan = registry.sweep(older_than=NOW, dry_run=True)
    assert plan.suspicion is not None
    assert "6 of 206 objects (2.9% of the store)" in plan.suspicion
    before = objects(registry)
    for sweep in (lambda: registry.sweep(older_than=NOW), lambda: registry.apply(plan)):
        with pytest.raises(SweepRefused, match="older backup") as refused:
            sweep()
        assert refused.value.fields == {"objects": 6, "bytes": 12}
    assert objects(registry) == before
    assert registry.sweep(older_than=NOW, max_share=0.05).objects == 6


def test_few_but_large_unknown_objects_are_much_of_the_store(full: Dataset, registry: Registry) -> None:
    left_behind(registry, b"x" * 1000)
    with pytest.raises(SweepRefused, match=r"62\.\d% of the store"):
        registry.sweep(older_than=NOW)
    assert registry.sweep(older_than=NOW, max_share=1).bytes == 1000


def test_a_single_unknown_object_is_not_swept_unless_somebody_says_so(full: Dataset, registry: Registry) -> None:
    unknown = left_behind(registry, b"new")
    age_objects(registry, 24 * 30, unknown)
    with pytest.raises(SweepRefused, match=r"1 of 201 objects"):
        registry.sweep()
    assert registry.sweep(max_share=0.01).objects == 1


def test_a_plan_of_a_sweep_is_looked_at_again_when_it_is_applied(full: Dataset, registry: Registry) -> None:
    one, two = left_behind(registry, b"one", b"two")
    plan = registry.sweep(older_than=NOW, max_share=1, dry_run=True)
    registry.access.catalog.write(lambda tx: holds.hold(tx, {one[:64]: one}))
    done = registry.apply(plan)
    assert (done.objects, done.kept) == (1, 1)
    assert one in objects(registry)
    assert two not in objects(registry)
    assert registry.apply(plan).objects == 1  # a key that is gone is no error
    assert one in objects(registry)


def test_foreign_files_in_the_store_are_not_objects(full: Dataset, registry: Registry, tmp_path: Path) -> None:
    folder = object_of(registry, digest_of(full, "c1")).parent
    for name in ("README", f"{'a' * 64}", ".nfs0001", f"{'A' * 64}.{'0' * 32}"):
        (folder / name).write_bytes(b"not ours")
    assert registry.sweep(older_than=NOW, max_share=1).objects == 0
    assert (folder / "README").exists()
    assert registry.verify(deep=True, older_than=NOW).clean


class Interrupted(FolderStore):
    """A folder whose listing does something in its middle or at its end."""

    then: Callable[[], object] | None = None

    def list(self) -> Iterator[StoredObject]:
        yield from list(super().list())
        if self.then is not None:
            then, self.then = self.then, None
            then()


@pytest.fixture
def interrupted(catalog_url: str, tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(catalog=catalog_url, store=Interrupted(tmp_path / "interrupted")) as opened:
        yield opened


def test_what_is_put_and_committed_while_the_store_is_listed_is_not_swept(interrupted: Registry) -> None:
    store = interrupted.access.store
    assert isinstance(store, Interrupted)
    dataset = interrupted.create_dataset("d")
    store.then = lambda: dataset.commit({"a": b"in the meantime"})
    assert interrupted.sweep(older_than=NOW, max_share=1).objects == 0
    assert_exact(interrupted)


def test_what_is_collected_while_the_store_is_listed_is_no_reason_to_suspect(interrupted: Registry) -> None:
    store = interrupted.access.store
    assert isinstance(store, Interrupted)
    dataset = interrupted.create_dataset("d")
    dataset.commit({f"c{i}": f"{i}".encode() for i in range(10)})
    drop(dataset)
    store.then = lambda: interrupted.collect(older_than=NOW)
    plan = interrupted.sweep(older_than=NOW, dry_run=True)
    assert (plan.objects, plan.suspicion) == ((), None)


def test_reading_what_a_collection_took_says_that_the_version_is_gone(flights: Dataset, registry: Registry) -> None:
    version = flights.commit({"a": b"1"})
    flights.delete()
    registry.collect(older_than=NOW)
    with pytest.raises((NotFound, CorruptionError)):
        version.open("a")


def test_ages_are_counted_by_the_clock_of_the_database(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"1"})
    flights.delete()
    write(registry, f"UPDATE files SET created_at = {ago(registry, -1)}")  # made in an hour: a clock that runs ahead
    assert registry.collect(older_than=NOW).files == 0


def test_content_that_is_gone_when_a_commit_needs_it_is_as_good_as_unknown(
    registry: Registry, flights: Dataset
) -> None:
    version = flights.commit({"a": b"content"})
    spooled = stored.spooled(registry.access, version.components[0].content_hash)
    assert isinstance(spooled.place, RemoteBytes)
    assert spooled.place.tail(3) == b"ent"
    flights.delete()
    registry.collect(older_than=NOW)
    for needed in (lambda: spooled.place.tail(3), lambda: spooled.source):
        with pytest.raises(NotFound) as caught:
            needed()
        assert caught.value.fields["hash"] == spooled.content_hash
