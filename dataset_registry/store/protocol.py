"""What every store promises, and how its keys are made."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import uuid4

KEY = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}")


def new_key(content_hash: str) -> str:
    """A physical key for these bytes: `<sha256>.<uuid>`, never reused, so that whoever sleeps through a collection
    can only ever touch a key that is already dead."""
    return f"{content_hash}.{uuid4().hex}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing knows of an object. `modified` is in seconds since 1970, by the store's clock."""

    key: str
    size: int
    modified: float


class Store(Protocol):
    """Immutable objects under keys of the form `<sha256>.<uuid>`."""

    location: str
    spool_folder: Path
    """Where files are spooled before they are put: on the store's own file system where it has one."""

    def put(self, key: str, source: Path | bytes) -> None:
        """Keep the bytes of `source` (a file, or the bytes themselves), durably, before returning.

        A file stays where it is and must not be written to afterwards. A reader sees the whole object or none; a
        crash leaves none. Raises `StorageError` when the key exists (keys are never reused) or the store refuses.
        """

    def fetch(self, key: str) -> Path:
        """A local, read-only file with the object's bytes: the object itself in a folder, else a cached copy.

        Raises `CorruptionError` when the key is absent.
        """

    def open(self, key: str) -> BinaryIO:
        """A stream over the object's bytes. Raises `CorruptionError` when the key is absent."""

    def size(self, key: str) -> int | None:
        """The object's size in bytes, None when the key is absent."""

    def uri(self, key: str) -> str:
        """The address under which another engine can read the object."""

    def delete(self, key: str) -> None:
        """Remove an object. An absent key is not an error: deletions are repeated after a crash."""

    def list(self) -> Iterator[StoredObject]:
        """Every object of ours, in no order. What was put or deleted meanwhile may or may not appear."""
