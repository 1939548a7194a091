"""A store in a folder: durable, atomic, shared by any number of processes of one machine."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from time import time
from typing import BinaryIO

from dataset_registry import modes
from dataset_registry.errors import StorageError
from dataset_registry.model.records import StoredObject
from dataset_registry.store.protocol import IDENTITY, KEY, Store, checked_key, cut_short, missing
from dataset_registry.store.spool import SPOOL, storage_error, tidy


class FolderStore:
    """Objects under `objects/<first two digits>/<key>`, read-only, spooled beside them under `spool/`.

    The mode of the folder determines who may read them (see `modes`).
    """

    transfers = 4

    def __init__(self, location: str | Path) -> None:
        self._root = Path(location).expanduser().absolute()
        self.location = str(self._root)
        self.scratch = self._root
        self._spool = self._root / SPOOL
        self._objects = self._root / "objects"
        self._durable: set[Path] = set()

    def put(self, key: str, source: Path | bytes) -> int:
        with self._placing(key) as target:
            if isinstance(source, bytes):
                self._write(source, target)
            else:
                self._link(source, target)
            return target.stat().st_size

    def take(self, key: str, source: Store, source_key: str) -> bool:
        if not isinstance(source, FolderStore):
            return False
        with self._placing(key) as target:
            try:
                os.link(source.path(source_key), target)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return False
        return True

    @contextmanager
    def _placing(self, key: str) -> Iterator[Path]:
        """Create the folder of an object before it is placed, sync it afterwards, and convert errors."""
        target = self._path(key)
        try:
            self._make_durable(target.parent)
            yield target
            _sync(target.parent)
        except FileExistsError as error:
            raise StorageError(f"The key {key} exists already; keys are never reused. Try again.", key=key) from error
        except OSError as error:
            raise storage_error(error, f"The store at {self._root} refused to write") from error

    def _make_durable(self, shard: Path) -> None:
        """Create the folder of an object and sync its parents, once per store instance.

        Also if it exists already: its creator may have died before syncing it.
        """
        if shard in self._durable:
            return
        modes.make_folder(shard, self._bits)
        _sync(self._objects)
        _sync(self._root)
        self._durable.add(shard)

    def _write(self, data: bytes, target: Path) -> None:
        """Write a small object to a temporary file, sync it, and link it into place atomically."""
        modes.make_folder(self._spool, self._bits)
        aside = self._spool / target.name
        stream = modes.new_file(aside, buffering=0)
        try:
            with stream:
                rest = memoryview(data)
                while rest:  # a disk that is nearly full takes a part of it
                    rest = rest[stream.write(rest) :]
                aside.chmod(self._mode)
                os.fsync(stream.fileno())
            if target.exists():
                raise FileExistsError(target)
            aside.rename(target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    def _link(self, source: Path, target: Path) -> None:
        """Link a spooled file into place. A link is atomic, fails for an existing key, and leaves the file in place for
        a retry without a second copy of the bytes."""
        mode = source.stat().st_mode
        if mode & 0o222:  # a read-only one is a link to a user's file, and stays as it is
            source.chmod(self._mode)
        elif self._mode & ~mode:  # not to be read by whom this store is shared with
            _copy(source, target, self._mode)
            return
        _sync(source)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _copy(source, target, self._mode)

    @cached_property
    def _bits(self) -> int:
        return modes.shared_bits(self._root)

    @property
    def _mode(self) -> int:
        return modes.read_only(self._bits)

    def path(self, key: str) -> Path:
        path = self._path(key)
        if not path.exists():
            raise missing(key, self.location)
        return path

    def open(self, key: str) -> BinaryIO:
        try:
            return self._path(key).open("rb")
        except FileNotFoundError as error:
            raise missing(key, self.location) from error
        except OSError as error:
            raise storage_error(error, f"The object {key} in {self._root} cannot be read") from error

    def read(self, key: str, offset: int, length: int) -> bytes:
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY)
        except FileNotFoundError as error:
            raise missing(key, self.location) from error
        try:
            data = os.pread(descriptor, length, offset)
        except OSError as error:
            raise storage_error(error, f"The object {key} in {self._root} cannot be read") from error
        finally:
            os.close(descriptor)
        if len(data) != length:
            raise cut_short(key, self.location)
        return data

    def size(self, key: str) -> int | None:
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return None

    def uri(self, key: str) -> str:
        return self._path(key).as_uri()

    def upload_url(self, key: str, size: int, lasts: timedelta) -> None:
        checked_key(key)

    def delete(self, key: str) -> None:
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, f"The store at {self._root} refused to delete") from error

    def list(self) -> Iterator[StoredObject]:
        for entry in self._entries():
            if KEY.fullmatch(entry.name):
                try:
                    facts = entry.stat()
                except FileNotFoundError:
                    continue
                yield StoredObject(entry.name, facts.st_size, facts.st_mtime)

    def named(self, folder: str) -> None:
        return None

    def identity(self) -> str | None:
        try:
            return (self._root / IDENTITY).read_text().strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, f"The store at {self._root} cannot be read") from error

    def claim(self, identity: str) -> str:
        aside = self._root / f"{IDENTITY}.{identity}"
        try:
            modes.make_folder(self._root, self._bits)
            aside.unlink(missing_ok=True)
            with modes.new_file(aside, self._bits) as file:
                file.write(f"{identity}\n".encode())
            _sync(aside)
            with suppress(FileExistsError):
                os.link(aside, self._root / IDENTITY)  # whole or not at all, and the first one stays
            _sync(self._root)
        except OSError as error:
            raise storage_error(error, f"The store at {self._root} refused to write") from error
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
        return self.identity() or identity

    def tidy(self, older_than: float) -> int:
        freed = tidy(self.scratch, older_than)
        loose = [Path(entry) for entry in self._entries() if entry.name.endswith(".partial")]
        loose += [path for path in self._spool.glob("*") if KEY.fullmatch(path.name)]
        for path in loose:
            try:
                facts = path.stat()
                if time() - facts.st_mtime >= older_than:
                    path.unlink()
                    freed += facts.st_size
            except FileNotFoundError:
                continue
        return freed

    def _entries(self) -> "Iterator[os.DirEntry[str]]":
        for shard in sorted(self._objects.glob("[0-9a-f][0-9a-f]")):
            yield from os.scandir(shard)

    def _path(self, key: str) -> Path:
        return self._objects / checked_key(key)[:2] / key


_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)


def _copy(source: Path, target: Path, mode: int) -> None:
    """Copy a file atomically where links are not supported: copy beside the target, sync, rename."""
    partial = target.with_name(f"{target.name}.partial")
    if target.exists():
        raise FileExistsError(target)
    try:
        with source.open("rb") as original, modes.new_file(partial) as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
        partial.chmod(mode)
        _sync(partial)
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
