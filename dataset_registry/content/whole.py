"""Files as objects of their own: other systems that keep the address of a file need one that stays."""

from collections.abc import Sequence

from dataset_registry.access import Access
from dataset_registry.catalog import Transaction, files, holds
from dataset_registry.content.source import deleted, local_file
from dataset_registry.errors import RetryLater
from dataset_registry.model.records import FileRecord
from dataset_registry.store import new_key

_FORMS = ("ranges", "inline")


def as_objects(access: Access, found: Sequence[FileRecord]) -> int:
    """Store files that have no object of their own (ranges of other objects, bytes in the catalog) as objects.

    Returns the bytes that were written. It is done once: the files keep their objects for as long as a version references them.
    Raises `NotFound` if one was deleted in the meantime, `StorageError`.
    """
    written = 0
    for file in found:
        if file.form in _FORMS:
            written += _as_object(access, file)
    return written


def _as_object(access: Access, file: FileRecord) -> int:
    content_hash = str(file.content_hash)
    path = local_file(access, file)
    key = new_key(content_hash)
    held = list(access.catalog.write(lambda tx: holds.hold(tx, {content_hash: key})).values())
    access.store.put(key, path)

    def enter(tx: Transaction) -> bool | None:
        if not holds.release(tx, held):
            raise RetryLater(f"The file {content_hash[:12]} took too long to store. Try again.")
        return files.make_whole(tx, file.id, key)

    is_new = access.catalog.write(enter)
    if is_new is None:
        raise deleted(None)
    return file.size if is_new else 0
