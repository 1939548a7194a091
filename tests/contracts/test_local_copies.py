"""The cache of remote files: right, bounded, shared by processes, never taken from under a reader."""

import hashlib
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from time import time

import pytest

from dataset_registry.errors import CorruptionError, InputError
from dataset_registry.store import Cache, FolderStore, MemoryStore, ObjectStore, Store, new_key
from dataset_registry.store.process_dirs import ProcessDir, abandoned
from tests.waiting import SAFETY


def put(store: Store, size: int = 1000) -> str:
    data = os.urandom(size)
    key = new_key(hashlib.sha256(data).hexdigest())
    store.put(key, data)
    return key


def cached(store: Store) -> set[str]:
    return {path.name for path in (store.scratch / "cache").glob("??/*")}


def test_an_object_travels_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    key = put(store)
    copies = Cache(store)
    path = copies.fetch(key)
    monkeypatch.setattr(store, "open", None)
    assert copies.fetch(key) == path
    copies.close()
    again = Cache(store)
    assert hashlib.sha256(again.fetch(key).read_bytes()).hexdigest() == key[:64]
    again.close()


def test_a_folder_is_read_where_it_is(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    key = put(store)
    assert Cache(store).fetch(key) == store.path(key)
    assert not (tmp_path / "cache").exists()


def test_the_cache_keeps_to_its_limit_and_lets_the_longest_unused_go() -> None:
    store = MemoryStore()
    copies = Cache(store, limit=10_000)
    keys = [put(store) for _ in range(25)]
    for key in keys:
        copies.fetch(key)
        copies.close()
        assert sum(path.stat().st_size for path in (store.scratch / "cache").glob("??/*")) <= 11_000
    assert keys[-1] in cached(store)
    assert keys[0] not in cached(store)


def test_what_somebody_reads_stays() -> None:
    store = MemoryStore()
    reader, other = Cache(store, limit=10_000), Cache(store, limit=10_000)
    path = reader.fetch(put(store))
    for _ in range(30):
        other.fetch(put(store))
        other.close()
    assert path.stat().st_size == 1000
    assert path.name in cached(store)
    reader.close()
    assert not path.exists()


def test_a_flipped_bit_never_gets_into_the_cache() -> None:
    store = MemoryStore()
    key = new_key(hashlib.sha256(b"content").hexdigest())
    store.put(key, b"kontent")
    copies = Cache(store)
    with pytest.raises(CorruptionError, match="does not match the hash in its key"):
        copies.fetch(key)
    assert cached(store) == set()
    assert [*(store.scratch / "cache").glob("*/*.partial")] == []
    copies.close()


def _fetch_all(location: str, keys: list[str], pipe: Connection) -> None:
    copies = Cache(ObjectStore(location))
    pipe.send([hashlib.sha256(copies.fetch(key).read_bytes()).hexdigest() == key[:64] for key in keys])
    pipe.recv()  # never comes: killed with its copies in use


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_share_a_cache_and_one_that_is_killed_leaves_nothing_for_ever(s3_url: str, method: str) -> None:
    location = f"{s3_url}&cache_bytes=60KB"
    store = ObjectStore(location)
    keys = [put(store) for _ in range(20)]
    context = multiprocessing.get_context(method)
    children = []
    for _ in range(3):
        ours, theirs = context.Pipe()
        child = context.Process(target=_fetch_all, args=(location, keys, theirs))
        child.start()
        children.append((child, ours))
    assert all(all(pipe.recv()) for _, pipe in children)
    assert cached(store) == set(keys)
    for child, _ in children:
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
    in_use = [*(store.scratch / "cache").glob("in-use-*")]
    assert len(in_use) == 3
    for folder in in_use:
        os.utime(folder, (time() - 100, time() - 100))
    copies = Cache(store)
    for _ in range(60):
        copies.fetch(put(store))
        copies.close()
    assert [*(store.scratch / "cache").glob("in-use-*")] == []
    assert len(cached(store)) <= 63


def test_a_forked_child_says_that_it_cannot_use_an_object_store(s3_url: str) -> None:
    store = ObjectStore(s3_url)
    key = put(store)
    ours, theirs = multiprocessing.Pipe()

    def child() -> None:
        try:
            store.size(key)
        except InputError as error:
            theirs.send(str(error))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert ours.poll(SAFETY)
    assert "spawn" in ours.recv()
    process.join()
    assert store.size(key) == 1000


def test_a_private_folder_is_abandoned_only_when_its_owner_is_gone(tmp_path: Path) -> None:
    folder = ProcessDir(tmp_path, "mine-")
    os.utime(folder.path, (time() - 100, time() - 100))
    assert list(abandoned(tmp_path, "mine-")) == []
    unlocked = tmp_path / "mine-unlocked"
    unlocked.mkdir()
    assert list(abandoned(tmp_path, "mine-")) == [], "it may be on its way to its lock"
    os.utime(unlocked, (time() - 100, time() - 100))
    assert list(abandoned(tmp_path, "mine-")) == [unlocked]
    folder.close()
    assert not folder.path.exists()


@pytest.mark.parametrize("text", ["s3:///prefix", "s3://bucket/p?cache_bytes=plenty"])
def test_a_location_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        ObjectStore(text)
