"""Spooling: copying bytes of any origin to a private file, and hashing them at the same time."""

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import chain
from pathlib import Path
from shutil import rmtree
from types import TracebackType
from typing import BinaryIO

from dataset_registry import modes
from dataset_registry.errors import StorageError
from dataset_registry.model.progress import Progress, silent
from dataset_registry.store.process_dirs import ProcessDir, abandoned

SPOOL = "spool"
"""The folder of spools in a store's scratch."""

_PREFIX = "spool-"
_BLOCK = 1 << 20
_START = 32
"""Number of first bytes from which the format of a file is detected."""
_MUCH = 1 << 18
"""Minimum size in bytes for hashing in a second thread."""
_SMALL = 1 << 16
"""Content up to this many bytes stays in memory: writing a file would cost more than the rest of a small commit."""
_HELD = 256 << 20
"""Maximum bytes that a spool holds in memory; beyond that, small content is written to files, too."""


@dataclass(frozen=True, slots=True)
class RemoteBytes:
    """Stored bytes, fetched when needed: all of them as a file, or the last ones."""

    fetch: Callable[[], Path]
    tail: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Spooled:
    """Spooled bytes: their SHA-256, their size, and their location (small ones are held in memory).

    A `borrowed` file is a user's file, which may change: it is copied before it is stored.
    """

    content_hash: str
    size: int
    place: Path | bytes | RemoteBytes
    borrowed: bool = False

    @property
    def source(self) -> Path | bytes:
        """The bytes, or a file with them; remote bytes are fetched now."""
        return self.place.fetch() if isinstance(self.place, RemoteBytes) else self.place


class Spool:
    """A private folder that exists until its commit is acknowledged, since a retry may need the bytes again."""

    def __init__(self, scratch: Path, progress: Progress = silent) -> None:
        self._parent = scratch / SPOOL
        self._progress = progress
        self._folder: ProcessDir | None = None
        self._count = 0
        self._held = 0
        self._lock = threading.Lock()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.close()

    def share(self, source: Path) -> Spooled:
        """Spool a file without copying it where that is safe: as a clone where the file system has clones, as a link when
        the file is read-only. Else as `copy` does. Raises `StorageError` when the disk refuses."""
        try:
            path = self._fresh()
            if not _clone(source, path):
                if source.stat().st_mode & 0o222:
                    return self.copy(source)
                os.link(source, path)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                return self.copy(source)
            raise storage_error(error, "The data could not be spooled") from error
        with path.open("rb", buffering=0) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return Spooled(digest, stream.tell(), path)

    def copy(self, source: str | Path | BinaryIO) -> Spooled:
        """Spool a file or a stream, hashing it on the way. Raises `StorageError` when the disk refuses."""
        if isinstance(source, str | Path):
            with FileIO(source) as file:
                return self._copy(file, os.path.basename(source), os.fstat(file.fileno()).st_size)
        return self._copy(source, "the stream", None)

    def _copy(self, source: BinaryIO | FileIO, name: str, total: int | None) -> Spooled:
        start = source.read(_SMALL + 1) or b""
        if len(start) <= _SMALL and (len(start) == total or not (rest := source.read(_SMALL))):
            return self.hold(start)

        def fill(target: BinaryIO) -> None:
            _pump((start, rest if len(start) <= _SMALL else b""), source, target, report)

        def report(done: int) -> None:
            self._progress(f"reading {name}", done, total)

        return self.write(fill)

    def hold(self, data: bytes) -> Spooled:
        """Spool bytes, in memory while there is room. Raises `StorageError` on a disk error."""
        if self._held + len(data) > _HELD:
            return self.write(lambda target: target.write(data))
        self._held += len(data)
        return Spooled(hashlib.sha256(data).hexdigest(), len(data), data)

    def keep(self, data: memoryview) -> Spooled:
        """Spool bytes in memory that belong to the caller. Raises `StorageError` when the disk refuses."""
        return self.hold(bytes(data)) if len(data) <= _SMALL else self.write(lambda target: target.write(data))

    def write(self, fill: Callable[[BinaryIO], object]) -> Spooled:
        """Spool what `fill` writes. Raises `StorageError` when the disk refuses."""
        with _spooling():
            path = self._fresh()
            with modes.new_file(path, buffering=0) as raw:
                target = _HashingWriter(raw)
                fill(target)  # type: ignore[arg-type]  # it has the part of BinaryIO that writers use
        return Spooled(target.digest(), target.written, path)

    def path(self, spooled: Spooled) -> Path:
        """A file with spooled bytes, for libraries that read only files. Its name is generated."""
        source = spooled.source
        if isinstance(source, Path):
            return source
        with _spooling():
            path = self._fresh()
            with modes.new_file(path) as file:
                file.write(source)
        return path

    def end(self, size: int, data: bytes) -> Path:
        """A sparse file of this size that contains only these last bytes."""
        with _spooling():
            path = self._fresh()
            with modes.new_file(path) as sparse:
                sparse.truncate(size)
                sparse.seek(size - len(data))
                sparse.write(data)
        return path

    def start(self, spooled: Spooled) -> bytes:
        """The first few bytes, from which a format can be told."""
        source = spooled.source
        if isinstance(source, bytes):
            return source[:_START]
        with source.open("rb") as stream:
            return stream.read(_START)

    @property
    def folder(self) -> Path:
        """The private folder, for libraries that write temporary files."""
        with self._lock:
            return self._made().path

    def _fresh(self) -> Path:
        with self._lock:
            self._count += 1
            return self._made().path / str(self._count)

    def _made(self) -> ProcessDir:
        if self._folder is None:
            self._folder = ProcessDir(self._parent, _PREFIX)
        return self._folder


def tidy(scratch: Path, older_than: float) -> int:
    """Remove the spools of dead processes that are at least `older_than` seconds old. Returns their size in bytes."""
    freed = 0
    for folder in abandoned(scratch / SPOOL, _PREFIX, older_than):
        freed += sum(path.stat().st_size for path in folder.iterdir())
        rmtree(folder, ignore_errors=True)
    return freed


class _HashingWriter:
    """A file writer that hashes its content, for large writes in a second thread, so that storing takes as long as hashing."""

    closed = False

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._hasher = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None
        self._hashing: Future[None] | None = None
        self.written = 0

    def write(self, data: bytes | memoryview) -> int:
        self._settle()
        view = memoryview(data).cast("B")
        if len(view) < _MUCH:
            self._hasher.update(view)
        else:
            self._thread = self._thread or ThreadPoolExecutor(1, "dataset-registry-hash")
            self._hashing = self._thread.submit(self._hasher.update, view)
        rest = view
        while rest:
            rest = rest[self._raw.write(rest) :]
        self.written += len(view)
        if not isinstance(data, bytes):  # the owner of the buffer may fill it again
            self._settle()
        return len(view)

    def _settle(self) -> None:
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None

    def digest(self) -> str:
        """The SHA-256 of all written bytes. Call it last."""
        self._settle()
        if self._thread is not None:
            self._thread.shutdown()
        return self._hasher.hexdigest()

    def tell(self) -> int:
        return self.written

    def flush(self) -> None:
        self._raw.flush()

    def close(self) -> None:
        """The spool closes the file; a format's writer that closes its sink must not."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def _clone(source: Path, target: Path) -> bool:
    """Make `target` a copy-on-write clone of `source` (Linux's FICLONE: btrfs, XFS); False where that does not exist."""
    try:
        from fcntl import ioctl
    except ImportError:
        return False
    with source.open("rb") as original, modes.new_file(target) as clone:
        try:
            ioctl(clone.fileno(), 0x40049409, original.fileno())
        except OSError:
            target.unlink()
            return False
    return True


def _pump(read: Iterable[bytes], source: BinaryIO | FileIO, target: BinaryIO, report: Callable[[int], object]) -> None:
    done = 0
    for block in chain(read, iter(lambda: source.read(_BLOCK) or b"", b"")):
        target.write(block)
        done += len(block)
        report(done)


@contextmanager
def _spooling() -> Iterator[None]:
    """Convert errors of the disk."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, "The data could not be spooled") from error


def storage_error(error: OSError, what: str) -> StorageError:
    """Convert an error of the operating system, with the next step."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(
        f"{what}: {reason}. Nothing was committed; free space or fix the permissions, then try again.", reason=reason
    )
