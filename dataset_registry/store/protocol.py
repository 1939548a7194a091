"""The interface of stores, and their keys."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import uuid4

from dataset_registry.errors import CorruptionError
from dataset_registry.model.records import StoredObject
from dataset_registry.store.named import NamedObjects

KEY = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}")


def new_key(content_hash: str) -> str:
    """Create a key: `<sha256>.<uuid>`. Keys are never reused, so a process that was suspended during a collection can
    only write to a deleted key. The hash is that of the uncompressed content."""
    return f"{content_hash}.{uuid4().hex}"


def checked_key(key: str) -> str:
    """Check a key from the catalog before it becomes part of a path. Raises `CorruptionError`."""
    if not KEY.fullmatch(key):
        raise CorruptionError(f"{key!r} is not a key of this store.", key=key)
    return key


def missing(key: str, location: str) -> CorruptionError:
    """The error for a key that the store does not have."""
    return CorruptionError(
        f"The object {key} is missing from the store at {location}, though the catalog references it. Restore it from a backup "
        "of the store, or run: dataset-registry verify",
        key=key,
    )


def cut_short(key: str, location: str) -> CorruptionError:
    """The error for an object that is shorter than the catalog says."""
    return CorruptionError(
        f"The object {key} of the store at {location} is shorter than the catalog says. Run: dataset-registry verify",
        key=key,
    )


IDENTITY = "registry-id"
"""The name of the object with the id of the store."""


class Store(Protocol):
    """Immutable objects under keys of the form `<sha256>.<uuid>`."""

    location: str
    scratch: Path
    """A folder for spools and local copies, on the store's own file system if it has one."""
    transfers: int
    """Maximum number of objects to transfer concurrently."""

    def put(self, key: str, source: Path | bytes) -> int:
        """Store the bytes of `source` (a file, or the bytes themselves) durably. Returns the stored size.

        A source file stays in place and must not be changed afterwards. The object appears atomically; a crash leaves
        none. Every put uses a new key (`new_key`). Raises `StorageError` if the store refuses, or notices that the key
        exists, `RetryLater` if it does not answer.
        """

    def take(self, key: str, source: "Store", source_key: str) -> bool:
        """Copy an object of another store on the server side. Returns False if the two stores do not support that."""

    def path(self, key: str) -> Path | None:
        """The object as a local, read-only file, None for a store that has no such files.

        Raises `CorruptionError` when the key is absent.
        """

    def open(self, key: str) -> BinaryIO:
        """A stream over the object's bytes. Raises `CorruptionError` when the key is absent."""

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Read exactly this range of an object.

        Raises `CorruptionError` if the key is absent or the object is shorter.
        """

    def size(self, key: str) -> int | None:
        """The object's size in bytes, None when the key is absent."""

    def uri(self, key: str) -> str:
        """The address under which another engine can read the object."""

    def upload_url(self, key: str, size: int, lasts: timedelta) -> str | None:
        """A signed URL for a PUT of this many bytes, valid for `lasts`; None if the store has none."""

    def delete(self, key: str) -> None:
        """Remove an object. An absent key is not an error: deletions are repeated after a crash."""

    def list(self) -> Iterator[StoredObject]:
        """Every object, unordered. Concurrent puts and deletions may or may not be visible."""

    def named(self, folder: str) -> NamedObjects | None:
        """Small named objects beside those of the store; None for a store that is a folder, which has `scratch` for them."""

    def identity(self) -> str | None:
        """The id of the store, None without one. Raises `StorageError`, `RetryLater`."""

    def claim(self, identity: str) -> str:
        """Set the id of the store if it has none. Returns its id, which may be that of a concurrent call."""

    def tidy(self, older_than: float) -> int:
        """Remove leftovers of dead writers outside of the objects that are at least this many seconds old.

        Returns their size in bytes.
        """
