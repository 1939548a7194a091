"""Stored content that is committed again without its bytes.

A hash is not a capability: a caller who may not read a file gets the error for an unknown hash.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dataset_registry.access import Access, readable_files
from dataset_registry.catalog import files, recipes
from dataset_registry.content.source import CatalogContents
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.records import FileRecord
from dataset_registry.store import RemoteBytes, Spooled


def known(access: Access, hashes: Sequence[str]) -> set[str]:
    """The stored contents among these that the actor may read."""
    return set(_known(access, hashes))


def _known(access: Access, hashes: Sequence[str]) -> dict[str, FileRecord]:
    with access.catalog.read() as tx:
        found = files.find_many(tx, hashes)
        visible = readable_files(access, tx, [file.id for file in found.values()])
        seen = recipes.with_extents(tx, [file for file in found.values() if file.id in visible])
        return {str(file.content_hash): file for file in seen}


def spooled(access: Access, content_hash: str) -> Spooled:
    """A stored content that the actor may read, to be committed again without its bytes. Raises `NotFound`."""
    return next(iter(spooled_many(access, [content_hash]).values()))


def spooled_many(access: Access, hashes: Sequence[str]) -> dict[str, Spooled]:
    """As `spooled`, of many contents in one transaction."""
    known = _known(access, hashes)
    return {content_hash: _elsewhere(access, content_hash, known.get(content_hash)) for content_hash in hashes}


def _elsewhere(access: Access, content_hash: str, found: FileRecord | None) -> Spooled:
    if found is None:
        raise unknown_file(content_hash)
    if found.form in ("parts", "pack"):
        what = "a table in several Parquet files: name these" if found.form == "parts" else "a pack, not a file"
        raise InputError(f"{content_hash!r} is {what}.", hash=content_hash)
    return stored_file(access, found)


def stored_file(access: Access, found: FileRecord) -> Spooled:
    """A stored file, to be committed again without its bytes."""
    content_hash, contents = str(found.content_hash), CatalogContents(access)

    def fetch() -> Path:
        with _still_known(content_hash):
            return contents.fetch(None, found)

    def tail(count: int) -> bytes:
        with _still_known(content_hash):
            return contents.tail(found, count)

    return Spooled(content_hash, found.size, RemoteBytes(fetch, tail))


@contextmanager
def _still_known(content_hash: str) -> Iterator[None]:
    """Raise the error for an unknown hash if content was collected in the meantime, so that the sender uploads it."""
    try:
        yield
    except NotFound:
        raise unknown_file(content_hash) from None


def unknown_file(content_hash: str) -> NotFound:
    """The error for a hash that no file has that the caller may read."""
    return NotFound(f"No stored file has a hash that starts with {content_hash!r}.", hash=content_hash)
