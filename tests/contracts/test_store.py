"""What every store promises, run over each of them."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, FileIO
from pathlib import Path

import pytest

from dataset_registry.errors import CorruptionError, InputError, StorageError
from dataset_registry.store import (
    Cache,
    FolderStore,
    MemoryStore,
    ObjectStore,
    Spool,
    Store,
    compress,
    new_key,
    open_store,
)
from dataset_registry.store.objects import SCHEMES


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        return ObjectStore(request.getfixturevalue("s3_url"))
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path / "s")


@pytest.fixture(params=["folder", "memory"])
def looking_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store that sees at no cost whether a key exists."""
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path / "s")


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
    copies = Cache(store)
    assert copies.fetch(KEY).read_bytes() == b"content"
    copies.close()
    assert store.size(KEY) == 7
    assert [(found.key, found.size) for found in store.list()] == [(KEY, 7)]
    assert store.uri(KEY).endswith(KEY)


def test_a_key_is_never_put_twice(looking_store: Store, source: Path | bytes) -> None:
    looking_store.put(KEY, source)
    with pytest.raises(StorageError, match="never reused"):
        looking_store.put(KEY, b"other")
    assert content(looking_store, KEY) == b"content"


def test_an_absent_key_says_that_the_object_is_missing(store: Store) -> None:
    assert store.size(KEY) is None
    copies = Cache(store)
    for read in (store.open, copies.fetch, copies.open):
        with pytest.raises(CorruptionError, match="missing"):
            read(KEY)


def test_a_stream_can_be_moved_about_in(store: Store, tmp_path: Path) -> None:
    data = os.urandom(20_000_000)  # S3: several parts going in, several pieces coming out
    (tmp_path / "large").write_bytes(data)
    key = new_key(hashlib.sha256(data).hexdigest())
    store.put(key, tmp_path / "large")
    with store.open(key) as stream:
        assert stream.read() == data
        stream.seek(-7, os.SEEK_END)
        assert stream.read() == data[-7:]
        stream.seek(9_999_990)
        assert stream.read(20) == data[9_999_990:10_000_010]
        assert stream.tell() == 10_000_010
        stream.seek(5, os.SEEK_CUR)
        assert stream.read(1) == data[10_000_015:10_000_016]


def test_an_object_moves_between_keys_of_like_stores_without_passing_through(store: Store) -> None:
    store.put(KEY, b"content")
    other = new_key(KEY[:64])
    assert store.take(other, store, KEY)
    store.delete(KEY)
    assert content(store, other) == b"content"


def test_an_object_of_another_kind_of_store_is_not_taken(store: Store, tmp_path: Path) -> None:
    foreign = MemoryStore() if not isinstance(store, MemoryStore) else FolderStore(tmp_path / "foreign")
    foreign.put(KEY, b"content")
    assert not store.take(KEY, foreign, KEY)
    assert list(store.list()) == []


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
    copies = Cache(store)
    assert copies.fetch(KEY).stat().st_mode & 0o222 == 0
    copies.close()


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
    assert isinstance(open_store("S3://bucket/prefix"), ObjectStore)
    assert open_store("s3.folder").location.endswith("s3.folder")


@pytest.mark.parametrize("location", ["ftp://host/path", "s4://bucket", "://", "s3:/bucket/prefix", "gs:bucket"])
def test_a_store_of_an_unknown_kind_is_refused_with_the_kinds_that_there_are(location: str) -> None:
    with pytest.raises(InputError, match=r"Give a folder, or .* file://, s3://, .*gs://, az://") as found:
        open_store(location)
    assert found.value.fields["schemes"] == ["file", *SCHEMES]
    assert found.value.code == "invalid_input"


@pytest.mark.parametrize("location", ["s3://key:s/e+c@bucket/p", "s3://key@bucket", "az://key:x@account/container"])
def test_a_user_in_the_address_of_a_bucket_is_refused_without_being_shown(location: str) -> None:
    with pytest.raises(InputError, match="credentials come from the environment") as found:
        open_store(location)
    assert "key" not in str(found.value.fields)
    assert "://***@" in str(found.value)


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
def test_spooling_gives_the_digest_and_the_bytes_of_any_stream(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    with Spool(tmp_path) as spool:
        spooled = spool.copy(BytesIO(content))
        assert (spooled.content_hash, spooled.size) == (hashlib.sha256(content).hexdigest(), size)
        assert spool.path(spooled).read_bytes() == content
        assert spool.start(spooled) == content[:32]
    assert list((tmp_path / "spool").glob("*")) == []


def test_a_stream_that_gives_little_at_a_time_is_spooled_whole(tmp_path: Path) -> None:
    class Drops(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 7, 7) if size != 0 else 0)

    content = os.urandom(200_000)
    with Spool(tmp_path) as spool:
        assert spool.copy(Drops(content)).content_hash == hashlib.sha256(content).hexdigest()


def test_small_contents_stay_in_memory_while_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataset_registry.store.spool._HELD", 250)
    with Spool(tmp_path) as spool:
        contents = [os.urandom(100) for _ in range(4)]
        spooled = [spool.copy(BytesIO(content)) for content in contents]
        assert [isinstance(one.source, bytes) for one in spooled] == [True, True, False, False]
        assert [spool.path(one).read_bytes() for one in spooled] == contents


# --- compression ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5_000, 3_000_000])
def test_compressed_content_reads_as_it_was_everywhere(store: Store, tmp_path: Path, size: int) -> None:
    text = b"".join(f"{i},carrier {i % 7},{i * i}\n".encode() for i in range(size // 15))
    copies = Cache(store)
    with Spool(tmp_path / "scratch") as spool:
        spooled = spool.copy(BytesIO(text))
        packed = compress(spool, spooled)
        assert packed is not None
        assert packed.size < spooled.size / 2
        key = new_key(spooled.content_hash)
        store.put(key, packed.source)
    assert store.size(key) == packed.size
    assert copies.fetch(key, "zstd").read_bytes() == text
    with copies.open(key, "zstd") as stream:
        assert stream.read() == text
        stream.seek(100)
        assert stream.read(50) == text[100:150]
    assert Path(copies.uri(key, "zstd").removeprefix("file://")).read_bytes() == text
    copies.close()


def test_what_does_not_get_smaller_is_not_compressed(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        assert compress(spool, spool.copy(BytesIO(os.urandom(100_000)))) is None
        assert compress(spool, spool.copy(BytesIO(b"a,b\n1,2\n"))) is None


def test_a_broken_frame_and_an_unknown_compression_are_damage(store: Store, tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        packed = compress(spool, spool.copy(BytesIO(b"all the same " * 1000)))
        assert packed is not None
        assert isinstance(packed.source, bytes)
        store.put(KEY, packed.source[:-9])
    copies = Cache(store)
    with pytest.raises(CorruptionError, match="damaged"), copies.open(KEY, "zstd") as stream:
        stream.read()
    with pytest.raises(CorruptionError):
        copies.fetch(KEY, "zstd")
    with pytest.raises(CorruptionError, match="lz4"):
        copies.open(KEY, "lz4")
    copies.close()
