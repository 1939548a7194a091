"""Where bytes live: spools, hashes and keeps objects. Knows digests and keys, never datasets, versions or formats."""

from urllib.parse import unquote

from dataset_registry.errors import StorageError
from dataset_registry.store.folder import FolderStore
from dataset_registry.store.memory import MemoryStore
from dataset_registry.store.protocol import Store, StoredObject, new_key
from dataset_registry.store.spool import Spool, Spooled

__all__ = ["FolderStore", "MemoryStore", "Spool", "Spooled", "Store", "StoredObject", "new_key", "open_store"]


def open_store(location: str) -> Store:
    """The store at a location: a folder (a path or a `file://` URL), made on first use.

    Raises `StorageError` for a kind of store that this version does not have.
    """
    scheme, separator, rest = location.partition("://")
    if not separator:
        return FolderStore(location)
    if scheme == "file":
        return FolderStore(unquote(rest))
    raise StorageError(
        f"No store of the kind {scheme!r} can be opened: give a folder or a file:// URL.", location=location
    )
