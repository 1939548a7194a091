"""A store in memory, for tests and experiments; it is lost with the process."""

import threading
import weakref
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import time
from typing import BinaryIO

from dataset_registry.errors import StorageError
from dataset_registry.model.records import StoredObject
from dataset_registry.store.protocol import Store, checked_key, cut_short, missing


class MemoryStore:
    """Objects in a dictionary."""

    transfers = 1

    def __init__(self) -> None:
        self.location = "memory"
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._identity: str | None = None
        self._lock = threading.Lock()
        self.scratch = Path(mkdtemp(prefix="dataset-registry-"))
        weakref.finalize(self, rmtree, self.scratch, ignore_errors=True)

    def put(self, key: str, source: Path | bytes) -> int:
        data = source if isinstance(source, bytes) else source.read_bytes()
        self._keep(checked_key(key), data)
        return len(data)

    def take(self, key: str, source: Store, source_key: str) -> bool:
        if not isinstance(source, MemoryStore):
            return False
        self._keep(checked_key(key), source._bytes(source_key))
        return True

    def path(self, key: str) -> None:
        self._bytes(key)

    def open(self, key: str) -> BinaryIO:
        return BytesIO(self._bytes(key))

    def read(self, key: str, offset: int, length: int) -> bytes:
        data = self._bytes(key)[offset : offset + length]
        if len(data) != length:
            raise cut_short(key, self.location)
        return data

    def size(self, key: str) -> int | None:
        found = self._objects.get(key)
        return len(found[0]) if found else None

    def uri(self, key: str) -> str:
        return f"memory:///{key}"

    def upload_url(self, key: str, size: int, lasts: timedelta) -> None:
        checked_key(key)

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(key, None)

    def list(self) -> Iterator[StoredObject]:
        for key, (data, modified) in list(self._objects.items()):
            yield StoredObject(key, len(data), modified)

    def named(self, folder: str) -> None:
        return None

    def identity(self) -> str | None:
        return self._identity

    def claim(self, identity: str) -> str:
        with self._lock:
            self._identity = self._identity or identity
            return self._identity

    def tidy(self, older_than: float) -> int:
        return 0

    def _keep(self, key: str, data: bytes) -> None:
        with self._lock:
            if key in self._objects:
                raise StorageError(f"The key {key} exists already; keys are never reused. Try again.", key=key)
            self._objects[key] = (data, time())

    def _bytes(self, key: str) -> bytes:
        try:
            return self._objects[checked_key(key)][0]
        except KeyError:
            raise missing(key, self.location) from None
