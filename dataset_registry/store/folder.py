"""A store in a folder: durable, atomic, shared by any number of processes of one machine."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dataset_registry.errors import CorruptionError, StorageError
from dataset_registry.store.protocol import KEY, StoredObject
from dataset_registry.store.spool import storage_error


class FolderStore:
    """Objects under `objects/<first two digits>/<key>`, read-only, spooled beside them under `spool/`."""

    def __init__(self, location: str | Path) -> None:
        self._root = Path(location).expanduser().absolute()
        self.location = str(self._root)
        self.spool_folder = self._root / "spool"
        self._objects = self._root / "objects"
        self._durable: set[Path] = set()

    def put(self, key: str, source: Path | bytes) -> None:
        target = self._path(key)
        try:
            self._make_durable(target.parent)
            if isinstance(source, bytes):
                self._write(source, target)
            else:
                self._link(source, target)
            _sync(target.parent)
        except FileExistsError as error:
            raise StorageError(f"The key {key} exists already; keys are never reused. Try again.", key=key) from error
        except OSError as error:
            raise storage_error(error, f"The store at {self._root} refused to write") from error

    def _make_durable(self, shard: Path) -> None:
        """Make the folder of an object, and sync the folders above it, once in the life of this store.

        Also when it exists already: who made it may not have come to syncing it.
        """
        if shard in self._durable:
            return
        shard.mkdir(parents=True, exist_ok=True)
        _sync(self._objects)
        _sync(self._root)
        self._durable.add(shard)

    def _write(self, data: bytes, target: Path) -> None:
        """A small object: written aside, synced, then linked into place whole."""
        self.spool_folder.mkdir(exist_ok=True)
        aside = self.spool_folder / target.name
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as stream:
                rest = memoryview(data)
                while rest:  # a disk that is nearly full takes a part of it
                    rest = rest[stream.write(rest) :]
                os.fsync(descriptor)
            if target.exists():
                raise FileExistsError(target)
            aside.rename(target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    def _link(self, source: Path, target: Path) -> None:
        """A spooled file: a link makes the object appear whole or not at all, refuses a key that exists, and leaves the
        file in place for a retry without a second copy of the bytes."""
        source.chmod(0o444)
        _sync(source)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            _copy(source, target)

    def fetch(self, key: str) -> Path:
        path = self._path(key)
        if not path.exists():
            raise _missing(key, self.location)
        return path

    def open(self, key: str) -> BinaryIO:
        return self.fetch(key).open("rb")

    def size(self, key: str) -> int | None:
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return None

    def uri(self, key: str) -> str:
        return self._path(key).as_uri()

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def list(self) -> Iterator[StoredObject]:
        for shard in sorted(self._objects.glob("[0-9a-f][0-9a-f]")):
            for entry in os.scandir(shard):
                if KEY.fullmatch(entry.name):
                    try:
                        facts = entry.stat()
                    except FileNotFoundError:
                        continue
                    yield StoredObject(entry.name, facts.st_size, facts.st_mtime)

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise CorruptionError(f"{key!r} is not a key of this store.", key=key)
        return self._objects / key[:2] / key


def _copy(source: Path, target: Path) -> None:
    """A link's work where links do not exist: copy beside the target, sync, rename."""
    partial = target.with_name(f"{target.name}.partial")
    if target.exists():
        raise FileExistsError(target)
    shutil.copyfile(source, partial)
    partial.chmod(0o444)
    _sync(partial)
    partial.rename(target)


def _sync(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _missing(key: str, location: str) -> CorruptionError:
    return CorruptionError(
        f"The object {key} is missing from the store at {location}, though the catalog names it. "
        "Restore it from a backup of the store.",
        key=key,
    )
