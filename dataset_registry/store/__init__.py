"""Where bytes live: spools, hashes and keeps objects. Knows digests and keys, never datasets, versions or formats."""

from urllib.parse import unquote

from dataset_registry.errors import StorageError
from dataset_registry.store.chunks import chunks
from dataset_registry.store.compression import Compression, compress, parse_compression
from dataset_registry.store.folder import FolderStore
from dataset_registry.store.local import LocalCopies, cache_folder
from dataset_registry.store.memory import MemoryStore
from dataset_registry.store.objects import SCHEMES, ObjectStore
from dataset_registry.store.protocol import Store, StoredObject, new_key
from dataset_registry.store.ranges import Ranges
from dataset_registry.store.seen import SeenFiles
from dataset_registry.store.spool import Elsewhere, Spool, Spooled

__all__ = [
    "Compression",
    "Elsewhere",
    "FolderStore",
    "LocalCopies",
    "MemoryStore",
    "ObjectStore",
    "Ranges",
    "SeenFiles",
    "Spool",
    "Spooled",
    "Store",
    "StoredObject",
    "cache_folder",
    "chunks",
    "compress",
    "new_key",
    "open_store",
    "parse_compression",
]


def open_store(location: str) -> Store:
    """The store at a location: a folder (a path or a `file://` URL), made on first use, or `s3://bucket/prefix`, `gs://…`,
    `az://…` with options after a `?` (see `ObjectStore`).

    Raises `StorageError` for a kind of store that this version does not have.
    """
    scheme, separator, rest = location.partition("://")
    if not separator:
        return FolderStore(location)
    if scheme == "file":
        return FolderStore(unquote(rest))
    if scheme in SCHEMES:
        return ObjectStore(location)
    raise StorageError(
        f"No store of the kind {scheme!r} can be opened: give a folder, a file:// URL or s3://bucket/prefix.",
        location=location,
    )
