"""What every store promises, and how its keys are made."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import uuid4

from dataset_registry.errors import CorruptionError
from dataset_registry.model.records import StoredObject

KEY = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}")


def new_key(content_hash: str) -> str:
    """A physical key for these bytes: `<sha256>.<uuid>`, never reused, so that a process that sleeps through a collection
    can only ever touch a key that is already dead. The hash is that of the content, also where it is compressed."""
    return f"{content_hash}.{uuid4().hex}"


def checked_key(key: str) -> str:
    """The key, if it is one. Raises `CorruptionError`: whatever else the catalog says must not become a path."""
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
    """The error for an object that ends before bytes that the catalog says it has."""
    return CorruptionError(
        f"The object {key} of the store at {location} is shorter than the catalog says. Run: dataset-registry verify",
        key=key,
    )


IDENTITY = "registry-id"
"""The name, beside the objects, under which a store carries its id."""


class Store(Protocol):
    """Immutable objects under keys of the form `<sha256>.<uuid>`."""

    location: str
    scratch: Path
    """A folder for spools and local copies: on the store's own file system where it has one."""
    transfers: int
    """How many objects are worth moving at once."""

    def put(self, key: str, source: Path | bytes) -> int:
        """Keep the bytes of `source` (a file, or the bytes themselves), durably; how many the store has of them.

        A file stays where it is and must not be written to afterwards. A reader sees the whole object or none; a
        crash leaves none. Keys are made up anew for every put (`new_key`): a store that sees at no cost that one exists
        raises `StorageError`. Raises `StorageError` when the store refuses, `RetryLater` when it does not answer.
        """

    def take(self, key: str, source: "Store", source_key: str) -> bool:
        """Keep an object of another store under a key of this one without its bytes passing through here.

        False, and nothing done, where that cannot be: the stores are of different kinds or in different places.
        """

    def path(self, key: str) -> Path | None:
        """The object as a local, read-only file, None for a store that has no such files.

        Raises `CorruptionError` when the key is absent.
        """

    def open(self, key: str) -> BinaryIO:
        """A stream over the object's bytes. Raises `CorruptionError` when the key is absent."""

    def read(self, key: str, offset: int, length: int) -> bytes:
        """A run of bytes of an object, all of it. Raises `CorruptionError` when the key is absent or the object ends before."""

    def size(self, key: str) -> int | None:
        """The object's size in bytes, None when the key is absent."""

    def uri(self, key: str) -> str:
        """The address under which another engine can read the object."""

    def upload_url(self, key: str, size: int, lasts: timedelta) -> str | None:
        """An address to which anybody who knows it may PUT an object of this many bytes for so long, None where there is none."""

    def delete(self, key: str) -> None:
        """Remove an object. An absent key is not an error: deletions are repeated after a crash."""

    def list(self) -> Iterator[StoredObject]:
        """Every object of ours, in no order. What was put or deleted in the meantime may or may not appear."""

    def identity(self) -> str | None:
        """The id that the store was given, None for one that has none. Raises `StorageError`, `RetryLater`."""

    def claim(self, identity: str) -> str:
        """Give the store an id where it has none; the one that it has now. Of several at once, one is first."""

    def tidy(self, older_than: float) -> int:
        """Remove what writers that died left behind outside the objects, when it is this many seconds old; how many
        bytes that was."""
