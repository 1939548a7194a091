"""Rows that came from a baseline catalog and still wait for their bytes to be hashed and stored."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, delete, exists, func, inspect, select, text, update

from dataset_registry.catalog import captures, grants, manifests
from dataset_registry.catalog.rows import Transaction
from dataset_registry.catalog.tables import (
    dataset_version_files,
    dataset_versions,
    files,
    manifest_entries,
    manifest_index_pages,
    manifest_pages,
    metadata,
)
from dataset_registry.model.manifest import Entry, Manifest, canonical_json
from dataset_registry.model.records import StoredBytes
from dataset_registry.model.schema import ComponentSchema


@dataclass(frozen=True, slots=True)
class LegacyFile:
    """A file that is not in the store: under a path, inline in the catalog, or both, as `storage_type` says. `size` is
    that in the catalog (below 0: unknown), `inline_size` is the number of inline bytes (None: no inline bytes)."""

    id: int
    path: str | None
    format: str | None
    size: int
    storage_type: str
    inline_size: int | None


_FILES = select(
    files.c.id,
    files.c.file_path,
    files.c.file_type,
    files.c.file_size,
    files.c.storage_type,
    func.length(files.c.file_data),
).where(files.c.content_hash.is_(None))


def waiting(tx: Transaction) -> list[LegacyFile]:
    """The files that were not adopted yet, oldest first."""
    return [_file(row) for row in tx.execute(_FILES.order_by(files.c.id))]


def find(tx: Transaction, file_id: int) -> LegacyFile | None:
    """A file that was not adopted yet."""
    row = tx.execute(_FILES.where(files.c.id == file_id)).one_or_none()
    return _file(row) if row else None


def _file(row: Row[Any]) -> LegacyFile:
    """A row as it is: SQLite keeps a text in any column."""
    file_id, path, format, size, storage_type, inline_size = row
    known = size if isinstance(size, int) else -1
    return LegacyFile(file_id, path, format, known, str(storage_type or ""), inline_size)


def is_waiting(tx: Transaction, file_id: int) -> bool:
    """Whether a file still is to be adopted; if so, its row is locked until the transaction ends."""
    query = select(files.c.id).where(files.c.id == file_id, files.c.content_hash.is_(None)).with_for_update()
    return tx.execute(query).first() is not None


def adopt(
    tx: Transaction, file_id: int, content_hash: str, size: int, stored: StoredBytes, *, drop_inline: bool
) -> None:
    """Record that a file is in the store now. Its path and storage type are kept for a downgrade; its inline bytes are
    deleted if they are the stored ones."""
    inline = {"file_data": None, "storage_type": "store"} if drop_inline else {}
    tx.execute(
        update(files)
        .where(files.c.id == file_id)
        .values(
            content_hash=content_hash,
            file_size=size,
            object_key=stored.key,
            compression_type=stored.compression,
            stored_size=stored.size if stored.size != size else None,
            **inline,
        )
    )


def give_up(tx: Transaction, file_id: int, content_hash: str, reason: str) -> None:
    """Record that a file is lost: it gets a hash that no content has, and is marked as damaged."""
    waiting = and_(files.c.id == file_id, files.c.content_hash.is_(None))
    tx.execute(update(files).where(waiting).values(content_hash=content_hash, damage=reason))


def foreign_references(tx: Transaction) -> list[tuple[str, str]]:
    """Tables of others that reference files, and by which column."""
    found = inspect(tx)
    others = [name for name in found.get_table_names() if name not in metadata.tables]
    return [
        (name, key["constrained_columns"][0])
        for name in others
        for key in found.get_foreign_keys(name)
        if key["referred_table"] == "files" and len(key["constrained_columns"]) == 1
    ]


def collapse(tx: Transaction, duplicate: int, kept: int, foreign: Sequence[tuple[str, str]]) -> None:
    """Replace a file by another one with the same content in all references, also in `foreign` tables, and delete it."""
    quote = tx.dialect.identifier_preparer.quote
    for table, column in foreign:
        statement = f"UPDATE {quote(table)} SET {quote(column)} = :kept WHERE {quote(column)} = :duplicate"
        tx.execute(text(statement), {"kept": kept, "duplicate": duplicate})
    tx.execute(update(manifest_entries).where(manifest_entries.c.file_id == duplicate).values(file_id=kept))
    tx.execute(
        update(dataset_versions).where(dataset_versions.c.overlay_file_id == duplicate).values(overlay_file_id=kept)
    )
    grants.move_file_grants(tx, duplicate, kept)
    tx.execute(delete(files).where(files.c.id == duplicate))


def describe(tx: Transaction, file_id: int, format: str, schema: ComponentSchema | None, *, capture_of: int) -> None:
    """Let the components that name a legacy file know what it is; what was captured belongs to the file it becomes.

    Before `collapse`: components that named the other file already stay as they are, their digests cover their format.
    """
    schema_id = None
    if schema is not None:
        snapshot = schema.to_json()
        schema_id, _ = captures.schema_id(tx, hashlib.sha256(canonical_json(snapshot).encode()).hexdigest(), snapshot)
        captures.record_captures(tx, [(capture_of, format, schema_id, schema.statistics_to_json())])
    tx.execute(update(files).where(files.c.id == file_id).values(file_type=format))
    tx.execute(
        update(manifest_entries).where(manifest_entries.c.file_id == file_id).values(format=format, schema_id=schema_id)
    )


def undigested(tx: Transaction) -> Iterator[tuple[int, list[Entry]]]:
    """Versions without a digest whose files are all hashed, with their entries."""
    unhashed = (
        exists()
        .where(dataset_version_files.c.version_id == dataset_versions.c.id)
        .where(dataset_version_files.c.file_id == files.c.id, files.c.content_hash.is_(None))
    )
    query = select(dataset_versions.c.id).where(dataset_versions.c.digest.is_(None), ~unhashed)
    for version_id in list(tx.execute(query.order_by(dataset_versions.c.id)).scalars()):
        yield version_id, list(manifests.StoredManifest(tx, version_id).since(""))


def set_manifest(tx: Transaction, version_id: int, manifest: Manifest) -> None:
    """Fill in the digests of a version and its pages. The pages' borders depend on names alone: they stay."""
    before = manifests.StoredManifest(tx, version_id)
    for stored, computed in zip(before.manifest.index, manifest.index, strict=True):
        for page, filled in zip(before.pages(stored), computed.pages or (), strict=True):
            tx.execute(update(manifest_pages).where(manifest_pages.c.id == page.id).values(digest=filled.digest))
        tx.execute(
            update(manifest_index_pages).where(manifest_index_pages.c.id == stored.id).values(digest=computed.digest)
        )
    tx.execute(update(dataset_versions).where(dataset_versions.c.id == version_id).values(digest=manifest.digest))
