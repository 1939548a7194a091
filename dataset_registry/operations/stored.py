"""Stored files by their hash."""

from collections.abc import Iterator

from dataset_registry.catalog import files
from dataset_registry.errors import InvalidRef, NotFound
from dataset_registry.model.records import FileRecord
from dataset_registry.operations.access import Access, authorize


def file(access: Access, content_hash: str) -> FileRecord:
    """The file whose hash starts with these digits, with its reference count. Raises `NotFound`, `InvalidRef`."""
    prefix = content_hash.lower()
    if len(prefix) < 4 or set(prefix) - set("0123456789abcdef"):
        raise InvalidRef(
            f"{content_hash!r} is no SHA-256: give at least its first 4 hexadecimal digits.", hash=content_hash
        )
    with access.catalog.read() as tx:
        authorize(access, tx, "read")
        found = files.with_prefix(tx, prefix)
    if not found:
        raise NotFound(f"No stored file has a hash that starts with {content_hash!r}.", hash=content_hash)
    if len(found) > 1:
        raise InvalidRef(
            f"Several files have a hash that starts with {content_hash!r}: give more digits.", hash=content_hash
        )
    return found[0]


def list_all(access: Access) -> Iterator[FileRecord]:
    """Every stored file with its reference count, oldest first."""
    with access.catalog.read() as tx:
        authorize(access, tx, "read")
        yield from files.all_files(tx)
