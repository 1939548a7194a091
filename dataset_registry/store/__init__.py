"""Storage of bytes: spooling, hashing and storing objects. Knows digests and keys, never datasets or formats."""

import re
from urllib.parse import unquote

from dataset_registry.errors import InputError
from dataset_registry.model.addresses import redacted
from dataset_registry.model.records import StoredObject
from dataset_registry.store.cache import Cache, cache_folder
from dataset_registry.store.chunks import fastcdc_chunks
from dataset_registry.store.compression import Compression, compress, parse_compression
from dataset_registry.store.folder import FolderStore
from dataset_registry.store.memory import MemoryStore
from dataset_registry.store.objects import SCHEMES, ObjectStore
from dataset_registry.store.protocol import Store, new_key
from dataset_registry.store.ranges import Ranges
from dataset_registry.store.spool import RemoteBytes, Spool, Spooled
from dataset_registry.store.stat_cache import StatCache

__all__ = [
    "Cache",
    "Compression",
    "FolderStore",
    "MemoryStore",
    "ObjectStore",
    "Ranges",
    "RemoteBytes",
    "Spool",
    "Spooled",
    "StatCache",
    "Store",
    "StoredObject",
    "cache_folder",
    "compress",
    "fastcdc_chunks",
    "new_key",
    "open_store",
    "parse_compression",
]


_BUCKET = re.compile(rf"({'|'.join(SCHEMES)}):/?[^/]", re.IGNORECASE)


def open_store(location: str) -> Store:
    """Open the store at a location: a folder (a path or a `file://` URL), created on first use, or
    `s3://bucket/prefix`, `gs://…`, `az://…` with options after a `?` (see `ObjectStore`).

    Raises `InputError` for an unsupported kind of store.
    """
    scheme, separator, rest = location.partition("://")
    scheme = scheme.lower()
    if not separator and _BUCKET.match(location) is None:
        return FolderStore(location)
    if separator and scheme == "file":
        return FolderStore(unquote(rest))
    if separator and scheme in SCHEMES:
        return ObjectStore(location)
    shown = redacted(location) if separator else location.partition(":")[0] + ":"
    raise InputError(
        f"No store can be opened at {shown!r}. Give a folder, or an address that begins with file://, "
        f"{', '.join(f'{known}://' for known in SCHEMES)}: s3://bucket/prefix.",
        location=shown,
        schemes=["file", *SCHEMES],
    )
