"""A store in memory, for tests and for trying things out: it ends with the process."""

import threading
import weakref
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import time
from typing import BinaryIO

from dataset_registry.errors import CorruptionError, StorageError
from dataset_registry.store.protocol import KEY, StoredObject


class MemoryStore:
    """Objects in a dictionary; `fetch` keeps its copies in a temporary folder that goes with the store."""

    def __init__(self) -> None:
        self.location = "memory"
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()
        self._scratch = Path(mkdtemp(prefix="dataset-registry-"))
        weakref.finalize(self, rmtree, self._scratch, ignore_errors=True)
        self.spool_folder = self._scratch / "spool"

    def put(self, key: str, source: Path | bytes) -> None:
        if not KEY.fullmatch(key):
            raise CorruptionError(f"{key!r} is not a key of this store.", key=key)
        data = source if isinstance(source, bytes) else source.read_bytes()
        with self._lock:
            if key in self._objects:
                raise StorageError(f"The key {key} exists already; keys are never reused. Try again.", key=key)
            self._objects[key] = (data, time())

    def fetch(self, key: str) -> Path:
        copy = self._scratch / key
        data = self._bytes(key)
        with self._lock:
            if not copy.exists():
                copy.write_bytes(data)
                copy.chmod(0o444)
        return copy

    def open(self, key: str) -> BinaryIO:
        return BytesIO(self._bytes(key))

    def size(self, key: str) -> int | None:
        found = self._objects.get(key)
        return len(found[0]) if found else None

    def uri(self, key: str) -> str:
        return self.fetch(key).as_uri()

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(key, None)
            (self._scratch / key).unlink(missing_ok=True)

    def list(self) -> Iterator[StoredObject]:
        for key, (data, modified) in list(self._objects.items()):
            yield StoredObject(key, len(data), modified)

    def _bytes(self, key: str) -> bytes:
        try:
            return self._objects[key][0]
        except KeyError:
            raise CorruptionError(f"The object {key} is missing from the store in memory.", key=key) from None
