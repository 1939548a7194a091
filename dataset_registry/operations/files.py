"""Stored files by their hash. A hash is not a capability: an unreadable file gives the error for an unknown hash."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

from dataset_registry.access import Access, files_readable, level_on_file, readable, readable_files
from dataset_registry.catalog import Transaction, files
from dataset_registry.content.source import CatalogContents
from dataset_registry.content.stored import unknown_file
from dataset_registry.errors import InputError, InvalidRef, NotFound
from dataset_registry.model.actors import NOTHING
from dataset_registry.model.records import FileRecord

_PAGE = 500
_LOOKED_AT = 1000
"""Maximum number of files with one hash prefix that are checked."""


def file(access: Access, content_hash: str) -> FileRecord:
    """The file whose hash starts with these digits, with its reference count. Raises `NotFound`, `InvalidRef`."""
    with access.catalog.read() as tx:
        return find(access, tx, content_hash)


def find(access: Access, tx: Transaction, content_hash: str) -> FileRecord:
    """As `file`, within a transaction."""
    prefix = content_hash.lower()
    if len(prefix) < 4 or set(prefix) - set("0123456789abcdef"):
        raise InvalidRef(
            f"Invalid SHA-256 {content_hash!r}: expected at least its first 4 hexadecimal digits.", hash=content_hash
        )
    found = files.with_prefix(tx, prefix, limit=2 if readable(access, tx) is None else _LOOKED_AT)
    visible = readable_files(access, tx, [file.id for file in found])
    found = [file for file in found if file.id in visible]
    if not found:
        raise unknown_file(content_hash)
    if len(found) > 1:
        raise InvalidRef(
            f"Several files have a hash that starts with {content_hash!r}: give more digits.", hash=content_hash
        )
    return _counted(access, tx, found)[0]


def by_id(access: Access, file_id: int) -> FileRecord:
    """The file with this id, with its reference count. Raises `NotFound`."""
    with access.catalog.read() as tx:
        return _counted(access, tx, [_visible(access, tx, file_id)])[0]


def exactly(access: Access, content_hash: str) -> FileRecord:
    """The file with exactly this hash, without its reference count. Raises `NotFound`."""
    with access.catalog.read() as tx:
        found = files.find(tx, content_hash)
        if found is None or not readable_files(access, tx, [found.id]):
            raise unknown_file(content_hash)
        return files.get_many(tx, [found.id])[found.id]


def of_versions(access: Access, ids: Sequence[int]) -> dict[int, FileRecord]:
    """Files by id, of versions that the actor was found to read. Deleted ones are missing."""
    with access.catalog.read() as tx:
        return files.get_many(tx, ids)


def _visible(access: Access, tx: Transaction, file_id: int) -> FileRecord:
    found = files.get_many(tx, [file_id]).get(file_id)
    if found is None or level_on_file(access, tx, file_id) == NOTHING:
        raise NotFound(f"No file with the id {file_id}.", file_id=file_id)
    return found


def data_files(access: Access, file_id: int) -> list[FileRecord]:
    """The files to read for a file: itself, or the parts of a table in order. Raises `NotFound`."""
    with access.catalog.read() as tx:
        _visible(access, tx, file_id)
        return files.objects_of(tx, [file_id]).get(file_id, [])


def open_bytes(access: Access, content_hash: str) -> BinaryIO:
    """A stream over a file's content. Raises `NotFound`, `InvalidRef`, `InputError` (a table in several parts)."""
    found = data_files(access, file(access, content_hash).id)
    if len(found) != 1:
        raise InputError(f"{content_hash!r} is a table in {len(found)} Parquet files: read each by its own hash.")
    return CatalogContents(access).open(None, found[0])


def list_all(access: Access, after: int = 0, limit: int | None = None) -> Iterator[FileRecord]:
    """Every stored file that the actor may read with its reference count, oldest first, from the one after this id on."""
    left = limit
    while left is None or left > 0:
        with access.catalog.read() as tx:
            page = files.page(tx, after, _PAGE if left is None else min(left, _PAGE), files_readable(access, tx))
            found = _counted(access, tx, page)
        yield from found
        if not page:
            return
        after, left = page[-1].id, None if left is None else left - len(found)


def counts(access: Access, file_ids: Sequence[int]) -> dict[int, int]:
    """How many versions reference each of these files, of those that the actor may read."""
    with access.catalog.read() as tx:
        return files.reference_counts(tx, file_ids, readable(access, tx))


def _counted(access: Access, tx: Transaction, found: Sequence[FileRecord]) -> list[FileRecord]:
    """Files with their reference counts, counting only versions that the actor may read."""
    counts = files.reference_counts(tx, [file.id for file in found], readable(access, tx))
    return [replace(file, reference_count=counts.get(file.id, 0)) for file in found]
