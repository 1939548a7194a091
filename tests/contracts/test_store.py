"""What every store promises, run over each of them."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, FileIO
from pathlib import Path

import pytest

from dataset_registry.errors import CorruptionError, StorageError
from dataset_registry.store import FolderStore, MemoryStore, Spool, Store, new_key, open_store

STORES: dict[str, Callable[[Path], Store]] = {
    "folder": lambda path: FolderStore(path / "s"),
    "memory": lambda path: MemoryStore(),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return STORES[request.param](tmp_path)


@pytest.fixture(params=["bytes", "file"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path | bytes:
    if request.param == "bytes":
        return b"content"
    path = tmp_path / "source"
    path.write_bytes(b"content")
    return path


def content(store: Store, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()


KEY = new_key(hashlib.sha256(b"content").hexdigest())


def test_what_was_put_is_there_whole_in_every_way_to_read_it(store: Store, source: Path | bytes) -> None:
    store.put(KEY, source)
    assert content(store, KEY) == b"content"
    assert store.fetch(KEY).read_bytes() == b"content"
    assert store.size(KEY) == 7
    assert [(found.key, found.size) for found in store.list()] == [(KEY, 7)]
    assert Path(store.uri(KEY).removeprefix("file://")).read_bytes() == b"content"


def test_a_key_is_never_put_twice(store: Store, source: Path | bytes) -> None:
    store.put(KEY, source)
    with pytest.raises(StorageError, match="never reused"):
        store.put(KEY, b"other")
    assert content(store, KEY) == b"content"


def test_an_absent_key_says_that_the_object_is_missing(store: Store) -> None:
    assert store.size(KEY) is None
    for read in (store.open, store.fetch):
        with pytest.raises(CorruptionError, match="missing"):
            read(KEY)


def test_deleting_can_be_repeated(store: Store) -> None:
    store.put(KEY, b"content")
    store.delete(KEY)
    store.delete(KEY)
    assert list(store.list()) == []
    assert store.size(KEY) is None


@pytest.mark.parametrize("key", ["../escape", "a", "", "f" * 64, f"{'f' * 64}.{'0' * 31}/"])
def test_what_is_no_key_is_refused(store: Store, key: str) -> None:
    with pytest.raises(CorruptionError):
        store.put(key, b"x")


def test_stored_files_cannot_be_written_to(store: Store) -> None:
    store.put(KEY, b"content")
    assert store.fetch(KEY).stat().st_mode & 0o222 == 0


def test_many_threads_put_at_once_and_nothing_is_lost(store: Store) -> None:
    contents = [os.urandom(100 + i) for i in range(60)]
    keys = [new_key(hashlib.sha256(data).hexdigest()) for data in contents]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.put, keys, contents))
    assert {found.key for found in store.list()} == set(keys)
    assert all(content(store, key) == data for key, data in zip(keys, contents, strict=True))


def test_a_folder_store_ignores_what_is_not_its_own(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put(KEY, b"content")
    (tmp_path / "objects" / KEY[:2] / "notes.txt").write_text("mine")
    (tmp_path / "objects" / "README").write_text("mine")
    assert [found.key for found in store.list()] == [KEY]


def test_a_folder_store_without_hard_links_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    source = tmp_path / "source"
    source.write_bytes(b"content")
    store = FolderStore(tmp_path / "s")
    store.put(KEY, source)
    assert content(store, KEY) == b"content"
    with pytest.raises(StorageError, match="never reused"):
        store.put(KEY, source)


def test_a_store_that_cannot_be_written_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path / "s")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left.*free space"):
        store.put(KEY, b"content")
    monkeypatch.undo()
    assert list(store.list()) == []
    assert [path for path in (tmp_path / "s").rglob("*") if path.is_file()] == []
    store.put(KEY, b"content")


def test_a_disk_that_takes_a_part_at_a_time_gets_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(FileIO):
        def write(self, data: object) -> int:
            return super().write(memoryview(data)[:7])  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fdopen", lambda descriptor, *_, **__: Slow(descriptor, "wb"))
    store = FolderStore(tmp_path)
    store.put(KEY, b"content longer than seven bytes")
    assert content(store, KEY) == b"content longer than seven bytes"


def test_a_location_opens_its_kind_of_store(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path)), FolderStore)
    assert open_store(f"file://{tmp_path}").location == str(tmp_path)
    with pytest.raises(StorageError, match="folder"):
        open_store("ftp://host/path")


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
def test_spooling_gives_the_digest_and_the_bytes_of_any_stream(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    with Spool(tmp_path) as spool:
        spooled = spool.copy(BytesIO(content))
        assert (spooled.content_hash, spooled.size) == (hashlib.sha256(content).hexdigest(), size)
        assert spool.path(spooled).read_bytes() == content
        assert spool.start(spooled) == content[:16]
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_gives_little_at_a_time_is_spooled_whole(tmp_path: Path) -> None:
    class Drops(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 7, 7) if size != 0 else 0)

    content = os.urandom(200_000)
    with Spool(tmp_path) as spool:
        assert spool.copy(Drops(content)).content_hash == hashlib.sha256(content).hexdigest()
