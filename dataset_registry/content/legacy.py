"""Legacy files: locating and opening the bytes of a baseline catalog, inline or under a path.

The `storage_type` of a baseline, in its own vocabulary, says where the bytes are; a row may have both inline bytes and
the path of the original upload. Only regular files are opened: a pipe or a device under a path would never end.
"""

import os
import stat
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from dataset_registry.access import Access
from dataset_registry.catalog import files, legacy
from dataset_registry.catalog.legacy import LegacyFile
from dataset_registry.errors import CorruptionError, StorageError
from dataset_registry.store.protocol import KEY

_INLINE = frozenset(
    (
        "database",
        "db",
        "inline",
        "blob",
        "bytea",
        "binary",
        "bytes",
        "embedded",
        "internal",
        "sql",
        "table",
        "postgres",
        "sqlite",
    )
)
_PATHS = frozenset(
    (
        "filesystem",
        "file_system",
        "file",
        "files",
        "fs",
        "local",
        "local disk",
        "disk",
        "path",
        "external",
        "nfs",
        "store",
    )
)


def is_inline(file: LegacyFile) -> bool:
    """Whether the bytes of a file are inline: it has no path, or its `storage_type` says so, or its `storage_type` is
    unknown and the inline bytes have its size."""
    if file.path is None or file.inline_size is None:
        return file.path is None
    word = file.storage_type.strip().lower()
    if word in _INLINE or word in _PATHS:
        return word in _INLINE
    return file.inline_size == file.size


def is_object(file: LegacyFile) -> bool:
    """Whether a path is the key of an object in the store, as after a downgrade to the baseline."""
    return file.storage_type == "store" and KEY.fullmatch(file.path or "") is not None


def path_of(file: LegacyFile) -> Path:
    """The path of a legacy file. Raises `StorageError` if it is missing or not a regular file."""
    path = Path(str(file.path))
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StorageError(f"The legacy file {path.absolute()} cannot be read: {reason}.", path=str(path)) from error
    if not stat.S_ISREG(kind):
        what = "a folder" if stat.S_ISDIR(kind) else "a pipe" if stat.S_ISFIFO(kind) else "a device or a socket"
        raise StorageError(f"The legacy file {path.absolute()} is {what}, not a file.", path=str(path))
    if not os.access(path, os.R_OK):
        raise StorageError(f"The legacy file {path.absolute()} cannot be read: Permission denied.", path=str(path))
    return path


def opened(access: Access, file_id: int) -> BinaryIO:
    """The bytes of a legacy file. Raises `StorageError`, `CorruptionError`."""
    with access.catalog.read() as tx:
        file = legacy.find(tx, file_id)
        if file is None:
            raise CorruptionError(
                f"The legacy file {file_id} was deleted from the catalog. Read it again.", file=file_id
            )
        if is_inline(file):
            return BytesIO(files.legacy_bytes(tx, file.id))
    if is_object(file):
        return access.store.open(str(file.path))
    path = path_of(file)
    try:
        return path.open("rb")
    except OSError as error:
        raise StorageError(
            f"The legacy file {path.absolute()} cannot be read: {error.strerror}.", path=str(path)
        ) from error
