"""Copying a registry: everything arrives, nothing twice, and what is wrong at the source stays there."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from dataset_registry import Dataset, Provenance, Registry
from dataset_registry.errors import AlreadyExists, CorruptionError, InputError, NotFound, StoreMismatch
from dataset_registry.model.records import InputVersion
from dataset_registry.model.retention import Policy, Rule
from dataset_registry.operations import commit as commits
from dataset_registry.store import MemoryStore
from tests import fresh
from tests.operations.support import (
    LAST,
    NOW,
    age_runs,
    ask,
    assert_exact,
    content,
    digest_of,
    object_of,
    objects,
    rewrite,
    write,
)
from tests.waiting import SAFETY

pytestmark = pytest.mark.objects

CSV = b"a,b\n" + b"1,the same again and again\n" * 200


@pytest.fixture
def source(embedded: Registry) -> Registry:
    """A registry on SQLite with something of everything."""
    return fill(embedded)


@pytest.fixture
def target(catalog_url: str, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry, on each kind of database, beside the source."""
    url = fresh.catalog(tmp_path / "target.sqlite") if catalog_url.startswith("sqlite") else catalog_url
    with Registry.open(catalog=url, store=str(tmp_path / "target"), actor="carol") as opened:
        yield opened


def fill(registry: Registry) -> Registry:
    raw = registry.create_dataset("raw/flights", description="Flights")
    raw.commit({"data": CSV, "empty": b""}, message="July")
    with raw.draft(message="August") as draft:
        draft.add("data", CSV + b"2,x\n", format="csv", read={"encoding": "utf-8"})
        draft.add("readme", b"# Flights", type="metadata", metadata={"language": "en", "weight": 1e22})
        draft.add("delta", b"overlay", type="overlay", index=3)
    raw.create_branch("dev", "v1")
    raw.commit({"t": pa.table({"x": [1, 2, None], "s": ["a", "b", "c"]})}, branch="dev")
    raw.commit({"both": b"merged"}, parents=["main", "dev"])
    raw.create_tag("release", "v2")
    raw.create_tag("old", "v1")
    raw.delete_tag("old")
    clean = registry.create_dataset("clean/flights")
    inputs = (InputVersion("raw/flights", 2, raw.version("v2").digest, "release", ("data",), "main", "left"),)
    made = Provenance("run-1", "step", "clean/flights", "2026-07", "c0de", inputs, {"rows": 3})
    clean.commit({"data": CSV}, provenance=made)
    clean.commit({"data": CSV}, provenance=Provenance(run_id="run-2", inputs=inputs))
    clean.commit({"t": pa.table({"x": range(10)})})
    registry.create_branch("wide")
    clean.commit({"more": b"on wide"}, branch="wide")
    return registry


def facts(registry: Registry, *, deep: bool = True) -> dict[str, Any]:
    """Everything that a copy must have, without ids and keys."""
    found: dict[str, Any] = {}
    for dataset in registry.datasets():
        versions = {}
        for v in dataset.tree():
            versions[v.number] = (
                v.record.uuid,
                v.digest,
                v.parents,
                v.depth,
                v.message,
                v.created_at,
                v.created_by,
                v.component_count,
                v.record.overlay_file_id is None,
                [(c.name, c.index, c.type, c.content_hash, c.size, c.format, dict(c.metadata)) for c in v.components],
                v.schema,
                [(p.version, p.branch, p.unchanged, p.created_at, p.created_by, p.provenance) for p in v.productions],
            )
        pointers = [
            (p.name, p.is_tag, p.version_number, p.digest, p.base) for p in [*dataset.branches(), *dataset.tags()]
        ]
        found[dataset.name] = (dataset.description, versions, pointers)
        if deep:
            found[dataset.name + "!"] = {v.number: content(dataset, f"v{v.number}") for v in dataset.tree()}
    found["counts"] = {f.content_hash: (f.size, f.form, f.format, f.reference_count) for f in registry.files()}
    return found


def total(registry: Registry) -> int:
    return sum(objects(registry).values())


def test_a_copy_has_everything(source: Registry, target: Registry) -> None:
    done = source.copy_to(target)
    assert (done.datasets, done.versions, done.present, done.notes) == (2, 7, 0, [])
    assert (done.files, done.bytes) == (len(objects(source)), total(source))
    assert facts(target) == facts(source)
    assert_exact(target)
    assert target.verify(deep=True, older_than=NOW).findings == ()
    assert ask(target, "SELECT count(*) FROM uploads") == [0]
    before = objects(target)
    again = source.copy_to(target)
    assert (again.datasets, again.versions, again.present, again.files, again.bytes) == (2, 0, 7, 0, 0)
    assert objects(target) == before
    assert facts(target) == facts(source)
    made = target.dataset("raw/flights").commit({"data": b"goes on"})
    assert (made.number, made.created_by, made.parents) == (5, "carol", (4,))


def test_a_folder_is_copied_to_s3_and_from_there_to_s3_and_back(
    source: Registry, tmp_path: Path, s3_url: str, s3_server: str, beside: Callable[..., Registry]
) -> None:
    bucket, _, options = s3_server.partition("?")
    other_url = f"{bucket}/other-{uuid4().hex}?{options}&cache={tmp_path / 'other-cache'}"
    expected = facts(source)
    with (
        Registry.open(catalog=fresh.catalog(tmp_path / "s3.sqlite"), store=s3_url) as remote,
        Registry.open(catalog=fresh.catalog(tmp_path / "s3b.sqlite"), store=other_url) as second,
    ):
        assert source.copy_to(remote).bytes == total(source)
        assert facts(remote) == expected
        assert remote.copy_to(second).bytes == total(source)
        assert facts(second) == expected
        assert second.verify(deep=True, older_than=NOW).findings == ()
        back = beside()
        assert second.copy_to(back).bytes == total(source)
        assert facts(back) == expected
        assert source.copy_to(back).versions == 0
        with pytest.raises(InputError, match="store their files in s3://"):
            remote.copy_to(remote)


def test_damaged_bytes_are_not_copied_within_a_bucket(tmp_path: Path, s3_url: str, s3_server: str) -> None:
    import obstore

    bucket, _, options = s3_server.partition("?")
    other_url = f"{bucket}/other-{uuid4().hex}?{options}&cache={tmp_path / 'other-cache'}"
    with (
        Registry.open(catalog=fresh.catalog(tmp_path / "s3.sqlite"), store=s3_url) as remote,
        Registry.open(catalog=fresh.catalog(tmp_path / "s3b.sqlite"), store=other_url) as second,
    ):
        dataset = remote.create_dataset("d")
        dataset.commit({"a": b"good"})
        store: Any = remote.access.store
        (key,) = objects(remote)
        obstore.put(store.client, store._path(key), b"evil")
        with pytest.raises(CorruptionError):
            remote.copy_to(second)
        assert second.dataset("d").tree() == []


def test_after_many_rows_postgresql_knows_how_large_its_tables_are(
    source: Registry, postgresql_catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(registry: Registry) -> float:
        with registry.access.catalog.read() as tx:
            query = "SELECT reltuples FROM pg_class WHERE oid = 'manifest_entries'::regclass"
            return float(tx.exec_driver_sql(query).scalar_one())

    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path / "copied")) as target:
        assert rows(target) <= 0
        source.copy_to(target)
        copied = rows(target)
        assert copied > 0
        monkeypatch.setattr(commits, "_MANY", 100)
        target.create_dataset("many").commit({f"c/{i}": b"" for i in range(100)})
        assert rows(target) == copied + 100


def test_the_same_store_is_refused(source: Registry, tmp_path: Path) -> None:
    with pytest.raises(StoreMismatch):
        Registry.open(catalog=f"sqlite:///{tmp_path / 'other.sqlite'}", store=str(tmp_path / "store"))
    with pytest.raises(InputError, match="a folder or a prefix of its own"):
        source.copy_to(source)
    assert_exact(source)


def test_a_copy_that_stops_goes_on_where_it_was(source: Registry, target: Registry) -> None:
    class Stop(Exception):
        pass

    stops = 0
    moved = 0
    for stop_at in range(1, 20):
        steps = iter(range(stop_at))

        def progress(what: str, done: int, of: int | None, steps: Iterator[int] = steps) -> None:
            if next(steps, None) == stop_at - 1:  # noqa: B023
                raise Stop

        before = total(target)
        try:
            source.copy_to(target, progress=progress)
        except Stop:
            stops += 1
            moved += total(target) - before
            assert target.verify(deep=True, older_than=NOW).findings == ()
    done = source.copy_to(target)
    assert stops == 7
    assert (done.versions, done.bytes) == (0, 0)
    assert moved == total(target) == total(source)
    assert facts(target) == facts(source)
    assert_exact(target)


def test_patterns_choose_datasets(source: Registry, target: Registry) -> None:
    with pytest.raises(NotFound, match="No dataset matches nothing/\\*"):
        source.copy_to(target, datasets=["nothing/*"])
    assert target.datasets() == []
    source.copy_to(target, datasets=["raw/*"])
    assert [d.name for d in target.datasets()] == ["raw/flights"]
    assert_exact(target)
    source.copy_to(target, datasets=["cl*", "raw/*"])
    assert facts(target) == facts(source)


def test_named_refs_bring_what_they_reach(source: Registry, target: Registry) -> None:
    done = source.copy_to(target, refs=["dev"])
    assert done.notes == ["clean/flights has none of dev"]
    assert [d.name for d in target.datasets()] == ["raw/flights"]
    raw = target.dataset("raw/flights")
    assert {v.number: v.parents for v in raw.tree()} == {3: (1,), 1: ()}
    assert [b.name for b in raw.branches()] == ["dev"]
    assert raw.tags() == []
    assert_exact(target)
    made = raw.commit({"own": b"1"}, branch="dev")
    assert made.number == 4
    with pytest.raises(AlreadyExists, match="raw/flights@v4 of its own"):
        source.copy_to(target)


def test_a_tag_brings_its_history_and_everything_else_can_follow(source: Registry, target: Registry) -> None:
    source.copy_to(target, refs=["release"])
    raw = target.dataset("raw/flights")
    assert [v.number for v in raw.tree()] == [2, 1]
    assert [(t.name, t.version_number) for t in raw.tags()] == [("release", 2)]
    assert raw.branches() == []
    source.copy_to(target)
    assert facts(target) == facts(source)


def test_another_history_under_the_same_name_is_refused_and_stays_as_it_is(source: Registry, target: Registry) -> None:
    own = target.create_dataset("raw/flights")
    own.commit({"data": b"of the target"})
    before = facts(target)
    with pytest.raises(AlreadyExists, match="raw/flights@v1 of its own, which is another version"):
        source.copy_to(target, datasets=["raw/*"])
    assert facts(target) == before
    assert_exact(target)


def test_another_history_is_refused_before_anything_is_copied(source: Registry, target: Registry) -> None:
    source.copy_to(target, datasets=["raw/*"], refs=["release"])
    target.dataset("raw/flights").create_branch("own", "release")
    for i in (3, 4):
        target.dataset("raw/flights").commit({"data": f"own {i}".encode()}, branch="own")
    before = facts(target)
    with pytest.raises(AlreadyExists):
        source.copy_to(target)
    assert facts(target) == before


def test_a_branch_is_forwarded_and_a_diverged_one_noted(source: Registry, target: Registry) -> None:
    source.copy_to(target)
    raw, copied = source.dataset("raw/flights"), target.dataset("raw/flights")
    raw.commit({"data": b"v5"})
    raw.create_tag("late")
    copied.move_branch("dev", "v2")
    copied.delete_tag("release")
    copied.create_tag("mine", "v1")
    raw.create_tag("mine", "v2")
    done = source.copy_to(target)
    assert done.notes == [
        "the branch 'dev' of raw/flights is at v2 in the copy, and was left there",
        "the tag 'mine' of raw/flights is at v1 in the copy, and was left there",
        "the tag 'release' of raw/flights was deleted from the copy, and its name cannot be reused",
    ]
    assert copied.version().number == 5
    assert copied.version("late").number == 5
    assert copied.version("dev").number == 2


def test_a_branch_that_went_back_at_the_source_is_not_set_back(source: Registry, target: Registry) -> None:
    source.copy_to(target)
    source.dataset("raw/flights").move_branch("main", "v2")
    (note,) = source.copy_to(target).notes
    assert "'main' of raw/flights is at v4 in the copy" in note
    assert target.dataset("raw/flights").version().number == 4


def test_only_what_is_new_moves(source: Registry, target: Registry) -> None:
    source.copy_to(target)
    before = objects(target)
    raw = source.dataset("raw/flights")
    raw.commit({"data": b"0123456789", "readme": b"# Flights"})
    source.dataset("clean/flights").commit({"data": b"0123456789"})
    done = source.copy_to(target)
    assert (done.versions, done.present, done.files, done.bytes) == (2, 7, 1, 10)
    assert len(objects(target)) == len(before) + 1
    assert facts(target) == facts(source)


def test_content_that_the_target_has_already_does_not_travel(source: Registry, target: Registry) -> None:
    target.create_dataset("own").commit({"x": CSV})
    done = source.copy_to(target)
    assert done.bytes == total(source) - len(CSV)
    assert_exact(target)


def test_damaged_bytes_are_not_copied(source: Registry, target: Registry) -> None:
    digest = digest_of(source.dataset("raw/flights"), "both")
    rewrite(object_of(source, digest), b"MERGED")
    with pytest.raises(CorruptionError, match=f"{digest[:12]} of the registry that is copied does not match its hash"):
        source.copy_to(target)
    raw = target.dataset("raw/flights")
    assert [v.number for v in raw.tree()] == [3, 2, 1]
    assert digest not in {file.content_hash for file in target.files()}
    assert target.verify(deep=True).findings == ()
    rewrite(object_of(source, digest), b"merged")
    source.copy_to(target)
    assert facts(target) == facts(source)


def test_a_manifest_that_does_not_match_its_digest_is_not_copied(source: Registry, target: Registry) -> None:
    write(source, "UPDATE manifest_entries SET component_type = 'schema' WHERE component_name = 'both'")
    with pytest.raises(CorruptionError, match="raw/flights@v4 does not match its digest"):
        source.copy_to(target)
    assert [v.number for v in target.dataset("raw/flights").tree()] == [3, 2, 1]


def test_a_missing_object_and_a_file_in_quarantine_stop_a_copy(source: Registry, target: Registry) -> None:
    digest = digest_of(source.dataset("raw/flights"), "both")
    object_of(source, digest).unlink()
    for _ in range(2):
        with pytest.raises(CorruptionError):
            source.copy_to(target)
        source.verify(repair=True)
    assert target.dataset("raw/flights").tree()[0].number == 3


def test_a_file_in_quarantine_travels_no_more_when_the_target_has_its_content(
    source: Registry, target: Registry
) -> None:
    digest = digest_of(source.dataset("raw/flights"), "both")
    object_of(source, digest).unlink()
    source.verify(repair=True)
    target.create_dataset("own").commit({"x": b"merged"})
    source.copy_to(target)
    assert content(target.dataset("raw/flights"))["both.0"] == b"merged"


def test_a_copy_heals_a_file_that_the_target_has_in_quarantine(source: Registry, target: Registry) -> None:
    target.create_dataset("own").commit({"x": b"merged"})
    object_of(target, digest_of(target.dataset("own"), "x")).unlink()
    target.verify(repair=True)
    source.copy_to(target)
    assert content(target.dataset("own"))["x.0"] == b"merged"
    target.collect(older_than=NOW)
    assert target.verify(deep=True, older_than=NOW).findings == ()
    assert_exact(target)


def test_compressed_files_become_plain_and_plain_ones_compressed(beside: Callable[..., Registry]) -> None:
    packed, plain, again = beside(compression="zstd"), beside(), beside(compression="zstd")
    dataset = packed.create_dataset("d")
    with dataset.draft() as draft:
        draft.add("data", CSV, format="csv")
        draft.add("other", b"binary" * 1000)
    assert total(packed) < len(CSV) + 6000
    assert packed.copy_to(plain).bytes == total(plain) == len(CSV) + 6000
    assert {f.compression_type for f in plain.files()} == {None}
    # The frame of a file says its size, that of a stream does not.
    assert abs(plain.copy_to(again).bytes - total(packed)) < 10
    assert facts(plain) == facts(packed) == facts(again)
    for registry in (plain, again):
        assert registry.verify(deep=True, older_than=NOW).findings == ()
        assert content(registry.dataset("d"))["data.0"] == CSV


def test_a_damaged_compressed_file_is_not_copied(beside: Callable[..., Registry]) -> None:
    packed, plain = beside(compression="zstd"), beside()
    with packed.create_dataset("d").draft() as draft:
        draft.add("data", CSV, format="csv")
    path = object_of(packed, digest_of(packed.dataset("d"), "data"))
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0x10
    rewrite(path, bytes(whole))
    with pytest.raises(CorruptionError):
        packed.copy_to(plain)
    assert plain.dataset("d").tree() == []
    assert list(plain.files()) == []


def test_a_store_in_memory_is_copied(beside: Callable[..., Registry]) -> None:
    one, two, three = beside(store=MemoryStore()), beside(), beside(store=_named(MemoryStore(), "second"))
    fill(one)
    one.copy_to(two)
    one.copy_to(three)
    assert facts(one) == facts(two) == facts(three)


def _named(store: MemoryStore, name: str) -> MemoryStore:
    store.location = name
    return store


def spliced(registry: Registry) -> Dataset:
    """Histories out of which versions have gone, the first parent of a merge among them."""
    dataset = registry.create_dataset("spliced")
    for i in range(3):
        dataset.commit({"data": f"{i}".encode(), f"c{i}": b"own"})
    dataset.create_branch("dev", "v1")
    dataset.commit({"dev": b"dev"}, branch="dev")
    dataset.create_tag("kept", "v4")
    dataset.commit({"data": b"merge"}, parents=["main", "dev"])
    dataset.commit({"data": b"last"})
    return dataset


def test_histories_out_of_which_versions_have_gone_are_copied(embedded: Registry, target: Registry) -> None:
    dataset = spliced(embedded)
    embedded.expire(LAST)
    assert {v.number: v.parents for v in dataset.tree()} == {4: (), 6: (4,)}
    embedded.copy_to(target)
    assert {v.number: v.parents for v in target.dataset("spliced").tree()} == {4: (), 6: (4,)}
    assert {v.number: v.digest for v in target.dataset("spliced").tree()} == {
        v.number: v.digest for v in dataset.tree()
    }
    assert content(target.dataset("spliced")) == content(dataset)
    assert target.dataset("spliced").commit({"data": b"next"}).number == 7
    assert target.verify(deep=True, older_than=NOW).findings == ()
    assert_exact(target)


def test_a_copy_goes_on_after_versions_expired_on_either_side(embedded: Registry, target: Registry) -> None:
    dataset = spliced(embedded)
    embedded.copy_to(target)
    embedded.expire(Policy((Rule(last=2),)))
    dataset.commit({"data": b"more"})
    embedded.copy_to(target)
    assert [v.number for v in target.dataset("spliced").tree()] == [7, 6, 5, 4, 3, 2, 1]
    target.expire(LAST)
    assert [v.number for v in target.dataset("spliced").tree()] == [7, 4]
    dataset.commit({"data": b"and more"})
    embedded.expire(LAST)
    done = embedded.copy_to(target)
    assert done.versions == 1
    assert {v.number: v.parents for v in target.dataset("spliced").tree()} == {8: (4,), 7: (4,), 4: ()}
    target.collect(older_than=NOW)
    assert target.verify(deep=True, older_than=NOW).findings == ()
    assert_exact(target)


def test_versions_that_expired_in_a_copy_and_come_back_are_parents_again(embedded: Registry, target: Registry) -> None:
    dataset = spliced(embedded)
    embedded.copy_to(target)
    graph = {v.number: v.parents for v in dataset.tree()}
    target.expire(LAST)
    copied = target.dataset("spliced")
    assert {v.number: v.parents for v in copied.tree()} != graph
    embedded.copy_to(target)
    assert {v.number: v.parents for v in copied.tree()} == graph
    assert target.check_audit().problems == ()
    assert target.verify(deep=True).damage == ()


def test_a_branch_is_forwarded_although_its_old_head_expired_at_the_source(
    embedded: Registry, target: Registry
) -> None:
    dataset = embedded.create_dataset("d")
    for i in range(3):
        dataset.commit({"data": f"{i}".encode()})
    embedded.copy_to(target)
    for i in range(3):
        dataset.commit({"data": f"more {i}".encode()})
    embedded.expire(LAST)
    done = embedded.copy_to(target)
    assert (done.notes, target.dataset("d").version().number) == ([], 6)


def test_a_copy_beside_an_expiry_of_the_source(embedded: Registry, target: Registry) -> None:
    dataset = embedded.create_dataset("d")
    for i in range(5):
        with dataset.draft() as draft:
            draft.clear()
            draft.add(f"c{i}", f"{i}".encode())

    def progress(what: str, done: int, of: int | None) -> None:
        if done == 2:
            embedded.expire(LAST)

    embedded.copy_to(target, progress=progress)
    assert target.dataset("d").version().number == 5
    assert target.verify(deep=True, older_than=NOW).findings == ()


def test_lineage_between_datasets_arrives(source: Registry, target: Registry) -> None:
    source.copy_to(target)
    consumers = [("clean/flights", 1)]
    assert source.dataset("raw/flights").version("v2").consumers == consumers
    assert target.dataset("raw/flights").version("v2").consumers == consumers


def test_a_copy_keeps_what_keep_inputs_keeps(beside: Callable[..., Registry]) -> None:
    one, two = beside(), beside()
    b, a = one.create_dataset("b"), one.create_dataset("a")
    b.commit({"x": b"1"})
    a.commit({"y": b"1"}, provenance=Provenance(inputs=(InputVersion("b", 1, b.version().digest, "main"),)))
    b.commit({"x": b"2"})
    one.copy_to(two)
    policy = Policy((Rule(last=1),), keep_inputs=True)
    for registry in (one, two):
        age_runs(registry)
        assert registry.expire(policy, dry_run=True).versions == 0


def test_registry_wide_branches_arrive(source: Registry, target: Registry) -> None:
    source.copy_to(target)
    assert [b.name for b in target.branches()] == [b.name for b in source.branches()] == ["wide"]


def test_two_copies_at_once(source: Registry, target: Registry) -> None:
    errors, results = [], []
    start = threading.Barrier(2)

    def go() -> None:
        start.wait()
        try:
            results.append(source.copy_to(target))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SAFETY)
    assert errors == []
    assert sum(done.versions for done in results) == 7
    assert facts(target) == facts(source)
    assert ask(target, "SELECT count(*) FROM uploads") == [0]
    target.collect(older_than=NOW)
    assert_exact(target)
    assert target.verify(deep=True, older_than=NOW).findings == ()


def test_a_copy_beside_commits_and_collections(source: Registry, target: Registry) -> None:
    over = threading.Event()
    errors: list[BaseException] = []

    def loop(work: Callable[[int], object]) -> threading.Thread:
        def run() -> None:
            i = 0
            try:
                while not over.is_set():
                    work(i := i + 1)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    raw = source.dataset("raw/flights")
    threads = [
        loop(lambda i: sleep(0.03) or raw.commit({"data": f"{i}".encode(), "t": pa.table({"x": [i]})})),
        loop(lambda i: target.collect(older_than=NOW)),
    ]
    try:
        for _ in range(3):
            source.copy_to(target)
    finally:
        over.set()
        for thread in threads:
            thread.join(SAFETY)
    assert errors == []
    source.copy_to(target)
    assert facts(target, deep=False) == facts(source, deep=False)
    target.collect(older_than=NOW)
    assert_exact(target)


def test_an_empty_dataset_is_copied(embedded: Registry, target: Registry) -> None:
    embedded.create_dataset("empty", description="nothing yet")
    done = embedded.copy_to(target)
    assert (done.datasets, done.versions) == (1, 0)
    assert target.dataset("empty").description == "nothing yet"
