"""Local files with the content of stored objects: the objects themselves where they are plain files, else cached copies.

The cache is shared by the processes of a machine. A copy is written to a temporary file, checked against the hash in
its key, and linked into place. Each process has its own links in a private folder, so that no other process can delete
its files. When the cache is full, files that only the cache links to are evicted, least recently used first.
"""

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir, mkdtemp
from typing import BinaryIO
from uuid import uuid4
from weakref import finalize

from dataset_registry import modes
from dataset_registry.errors import CorruptionError
from dataset_registry.model.records import content_hash_of
from dataset_registry.store.compression import decompressed
from dataset_registry.store.process_dirs import ProcessDir, abandoned, try_lock
from dataset_registry.store.protocol import Store, checked_key
from dataset_registry.store.spool import storage_error

CACHE_BYTES = 10 * 2**30
"""The default size limit of a cache in bytes, not counting files in use."""

_BLOCK = 1 << 20

Open = Callable[[], BinaryIO]
"""Opens a stream over some content, from its beginning."""


def cache_folder() -> Path:
    """The default folder for copies of remote files."""
    return Path("~/.cache/dataset-registry").expanduser()


class Cache:
    """The cache of one store in one process. Files from `fetch` stay valid until `close`."""

    def __init__(self, store: Store, limit: int | None = None) -> None:
        self._store = store
        self._limit = limit if limit is not None else getattr(store, "cache_bytes", CACHE_BYTES)
        self._folder = store.scratch / "cache"
        self._mine: ProcessDir | None = None
        self._owner = 0
        self._unseen = self._limit  # bytes added since the cache was last looked over: at first unknown
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}
        self._temporary: Path | None = None
        self._temporary_owner = 0

    def fetch(
        self, key: str, compression: str | None = None, opened: Open | None = None, *, is_small: bool = False
    ) -> Path:
        """A local, read-only file with the content of an object, or of the stream that `opened` opens, cached under the
        key. Small content is copied to the system's folder for temporary files where the cache cannot be written.

        Raises `CorruptionError` if the object is missing or its content does not match the hash in the key.
        """
        if opened is None and compression is None and (path := self._store.path(key)) is not None:
            return path
        shared = self._folder / checked_key(key)[:2] / key
        try:
            mine = self._private() / key
            with self._one_at_a_time(key):
                if mine.exists():
                    return mine
                try:
                    os.link(shared, mine)
                    os.utime(shared)
                except (FileNotFoundError, PermissionError):  # none, or the copy of another user
                    if not mine.exists():
                        self._make(key, opened or partial(self.open, key, compression), mine, shared)
        except OSError as error:
            if not is_small or error.errno not in _UNWRITABLE:
                raise storage_error(error, f"A copy for reading could not be written to {self._folder}") from error
            return self._elsewhere(key, opened or partial(self.open, key, compression))
        return mine

    def _elsewhere(self, key: str, opened: Open) -> Path:
        """A copy in the system's folder for temporary files: reads continue on a full or read-only disk."""
        try:
            with self._lock:
                if self._temporary is None or self._temporary_owner != os.getpid():
                    self._temporary, self._temporary_owner = Path(mkdtemp(prefix="dataset-registry-")), os.getpid()
                    finalize(self, _remove, self._temporary, os.getpid())
            path = self._temporary / key
            with self._one_at_a_time(key):
                if not path.exists():
                    aside = path.with_name(f"{uuid4().hex}.partial")
                    try:
                        self._copy(key, opened, aside)
                        aside.rename(path)
                    finally:
                        aside.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(
                error, f"A copy for reading could be written neither to {self._folder} nor to {gettempdir()}"
            ) from error
        return path

    def open(self, key: str, compression: str | None = None) -> BinaryIO:
        """A stream over the content of an object. Raises `CorruptionError` when it is missing."""
        return decompressed(self._store.open(key), compression)

    def uri(self, key: str, compression: str | None = None) -> str:
        """The URI of the content: that of the object, or of a local copy if the object is compressed."""
        return self._store.uri(key) if compression is None else self.fetch(key, compression).as_uri()

    def close(self) -> None:
        """Release the files from `fetch`."""
        with self._lock:
            if self._mine is not None:
                self._mine.close()
                self._mine = None

    def _private(self) -> Path:
        with self._lock:
            if self._mine is None or self._owner != os.getpid() or not self._mine.path.exists():
                self._mine, self._owner = ProcessDir(self._folder, "in-use-"), os.getpid()
            return self._mine.path

    @contextmanager
    def _one_at_a_time(self, key: str) -> Iterator[None]:
        with self._lock:
            lock = self._making.setdefault(key, threading.Lock())
        with lock:
            yield
        with self._lock:
            self._making.pop(key, None)

    def _make(self, key: str, opened: Open, mine: Path, shared: Path) -> None:
        aside = mine.with_name(f"{uuid4().hex}.partial")
        try:
            size = self._copy(key, opened, aside)
            bits = modes.shared_bits(self._folder.parent)
            aside.chmod(modes.read_only(bits))
            modes.make_folder(shared.parent, bits)
            with suppress(FileExistsError):  # another process was as fast
                os.link(aside, shared)
            aside.rename(mine)
        finally:
            aside.unlink(missing_ok=True)
        self._unseen += size
        if self._unseen * 20 > self._limit:
            self._make_room()

    def _copy(self, key: str, opened: Open, target: Path) -> int:
        """Write the content of a key to a new file, and check it. Returns its size."""
        hasher = hashlib.sha256()
        size = 0
        with opened() as stream, modes.new_file(target, buffering=0) as file:
            while block := stream.read(_BLOCK):
                hasher.update(block)
                rest = memoryview(block)
                while rest:
                    rest = rest[file.write(rest) :]
                size += len(block)
        if hasher.hexdigest() != content_hash_of(key):
            raise CorruptionError(
                f"The object {key} of the store at {self._store.location} does not match the hash in its key: "
                f"its SHA-256 is {hasher.hexdigest()}. Run: dataset-registry verify --deep",
                key=key,
            )
        return size

    def _make_room(self) -> None:
        """Evict unused copies, least recently used first, until the cache is at nine tenths of its limit."""
        self._unseen = 0
        bits = modes.shared_bits(self._folder.parent)
        with os.fdopen(modes.open_or_create(self._folder / ".lock", bits), "rb") as turn:
            if not try_lock(turn.fileno()):  # another process is at it
                return
            for folder in abandoned(self._folder, "in-use-"):
                rmtree(folder, ignore_errors=True)
            total, idle = 0, []
            for shard in self._folder.glob("[0-9a-f][0-9a-f]"):
                for entry in os.scandir(shard):
                    with suppress(FileNotFoundError):
                        facts = os.stat(entry.path)  # DirEntry.stat has no link count on every system
                        total += facts.st_size
                        if facts.st_nlink == 1:
                            idle.append((facts.st_mtime, facts.st_size, entry.path))
            if total <= self._limit:
                return
            for _, size, path in sorted(idle):
                if total <= self._limit * 0.9:
                    return
                Path(path).unlink(missing_ok=True)
                total -= size


_UNWRITABLE = (errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EPERM)
"""Errors of a folder that cannot be written to."""


def _remove(folder: Path, owner: int) -> None:
    """Remove a temporary folder, in the process that made it."""
    if os.getpid() == owner:
        rmtree(folder, ignore_errors=True)
