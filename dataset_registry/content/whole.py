"""Files as objects of their own: other systems that keep the address of a file need one that stays."""

from collections.abc import Sequence

from dataset_registry.access import Access
from dataset_registry.catalog import files
from dataset_registry.content.source import ASSEMBLED_FORMS, store_object
from dataset_registry.model.records import FileRecord


def as_objects(access: Access, found: Sequence[FileRecord]) -> int:
    """Store files that have no object of their own (ranges of other objects, bytes in the catalog) as objects.

    Returns the bytes that were written. It is done once: the files keep their objects for as long as a version references them.
    Raises `NotFound` if one was deleted in the meantime, `StorageError`.
    """
    return sum(_as_object(access, file) for file in found if file.form in ASSEMBLED_FORMS)


def _as_object(access: Access, file: FileRecord) -> int:
    is_new = store_object(access, file, lambda tx, key: files.make_whole(tx, file.id, key))
    return file.size if is_new else 0
