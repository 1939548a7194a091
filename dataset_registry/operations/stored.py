"""Stored files by their hash. A hash is not a capability: who may not read a file is told what an unknown hash is told."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from dataset_registry.catalog import Transaction, files, recipes
from dataset_registry.errors import InputError, InvalidRef, NotFound
from dataset_registry.model.actors import NOTHING
from dataset_registry.model.records import FileRecord
from dataset_registry.operations.access import Access, files_readable, level_on_file, readable, readable_files
from dataset_registry.operations.contents import CatalogContents
from dataset_registry.store import Elsewhere, Spooled

_PAGE = 500
_LOOKED_AT = 1000
"""Files with one beginning of a hash that are looked at: nobody has as many."""


def file(access: Access, content_hash: str) -> FileRecord:
    """The file whose hash starts with these digits, with its reference count. Raises `NotFound`, `InvalidRef`."""
    with access.catalog.read() as tx:
        return find(access, tx, content_hash)


def find(access: Access, tx: Transaction, content_hash: str) -> FileRecord:
    """As `file`, within a transaction."""
    prefix = content_hash.lower()
    if len(prefix) < 4 or set(prefix) - set("0123456789abcdef"):
        raise InvalidRef(
            f"{content_hash!r} is no SHA-256: give at least its first 4 hexadecimal digits.", hash=content_hash
        )
    found = files.with_prefix(tx, prefix, limit=2 if readable(access, tx) is None else _LOOKED_AT)
    visible = readable_files(access, tx, [file.id for file in found])
    found = [file for file in found if file.id in visible]
    if not found:
        raise _unknown(content_hash)
    if len(found) > 1:
        raise InvalidRef(
            f"Several files have a hash that starts with {content_hash!r}: give more digits.", hash=content_hash
        )
    return _counted(access, tx, found)[0]


def by_id(access: Access, file_id: int) -> FileRecord:
    """The file with this id, with its reference count. Raises `NotFound`."""
    with access.catalog.read() as tx:
        return _counted(access, tx, [_visible(access, tx, file_id)])[0]


def _visible(access: Access, tx: Transaction, file_id: int) -> FileRecord:
    found = files.get_many(tx, [file_id]).get(file_id)
    if found is None or level_on_file(access, tx, file_id) == NOTHING:
        raise NotFound(f"There is no file with the id {file_id} (any more).", file_id=file_id)
    return found


def objects(access: Access, file_id: int) -> list[FileRecord]:
    """What to read for a file: itself, or the parts of a table in order. Raises `NotFound`."""
    with access.catalog.read() as tx:
        _visible(access, tx, file_id)
        return files.objects_of(tx, [file_id]).get(file_id, [])


def open_bytes(access: Access, content_hash: str) -> BinaryIO:
    """A stream over a file's content. Raises `NotFound`, `InvalidRef`, `InputError` (a table in several parts)."""
    found = objects(access, file(access, content_hash).id)
    if len(found) != 1:
        raise InputError(f"{content_hash!r} is a table in {len(found)} Parquet files: read each by its own hash.")
    return CatalogContents(access).open(None, found[0])


def known(access: Access, hashes: Sequence[str]) -> set[str]:
    """Those of these contents that are stored and that the actor may read; of others it is not told that they are."""
    return set(_known(access, hashes))


def _known(access: Access, hashes: Sequence[str]) -> dict[str, FileRecord]:
    with access.catalog.read() as tx:
        found = files.find_many(tx, hashes)
        visible = readable_files(access, tx, [file.id for file in found.values()])
        seen = recipes.with_extents(tx, [file for file in found.values() if file.id in visible])
        return {str(file.content_hash): file for file in seen}


def spooled(access: Access, content_hash: str) -> Spooled:
    """A stored content that the actor may read, to be committed again: its bytes stay where they are. Raises `NotFound`."""
    return next(iter(spooled_many(access, [content_hash]).values()))


def spooled_many(access: Access, hashes: Sequence[str]) -> dict[str, Spooled]:
    """As `spooled`, of many contents in one transaction."""
    known = _known(access, hashes)
    return {content_hash: _elsewhere(access, content_hash, known.get(content_hash)) for content_hash in hashes}


def _elsewhere(access: Access, content_hash: str, found: FileRecord | None) -> Spooled:
    if found is None:
        raise _unknown(content_hash)
    if found.form in ("parts", "pack"):
        what = "a table in several Parquet files: name these" if found.form == "parts" else "a pack, not a file"
        raise InputError(f"{content_hash!r} is {what}.", hash=content_hash)
    contents = CatalogContents(access)

    def fetch() -> Path:
        with _still_known(content_hash):
            return contents.fetch(None, found)

    def tail(count: int) -> bytes:
        with _still_known(content_hash):
            return contents.tail(found, count)

    return Spooled(content_hash, found.size, Elsewhere(fetch, tail))


@contextmanager
def _still_known(content_hash: str) -> Iterator[None]:
    """Say of content that was collected meanwhile what is said of any that is unknown: its sender sends it, then."""
    try:
        yield
    except NotFound:
        raise _unknown(content_hash) from None


def _unknown(content_hash: str) -> NotFound:
    return NotFound(f"No stored file has a hash that starts with {content_hash!r}.", hash=content_hash)


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
    """Files with their reference counts, as far as the actor may see: that others have the same content is theirs to tell."""
    counts = files.reference_counts(tx, [file.id for file in found], readable(access, tx))
    return [replace(file, reference_count=counts.get(file.id, 0)) for file in found]
