"""Rows about recipes: their ranges, and the assembled objects for other engines."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import bindparam, exists, insert, select, update

from dataset_registry.catalog import holds
from dataset_registry.catalog.rows import Transaction, batches, insert_rows
from dataset_registry.catalog.tables import assembled_files, file_ranges, files
from dataset_registry.catalog.types import utc_now
from dataset_registry.model.records import Extent, FileRecord


def with_extents(tx: Transaction, records: Sequence[FileRecord]) -> list[FileRecord]:
    """Files, the recipes among them with their extents."""
    ids = [record.id for record in records if record.form == "ranges"]
    if not ids:
        return list(records)
    holder = files.alias("holder")
    query = (
        select(
            file_ranges.c.file_id,
            holder.c.id,
            holder.c.content_hash,
            holder.c.object_key,
            file_ranges.c.object_offset,
            file_ranges.c.byte_count,
        )
        .join(holder, holder.c.id == file_ranges.c.object_id)
        .order_by(file_ranges.c.file_id, file_ranges.c.position)
    )
    found: dict[int, list[Extent]] = defaultdict(list)
    for chunk in batches(ids):
        for file_id, *extent in tx.execute(query.where(file_ranges.c.file_id.in_(chunk))):
            found[file_id].append(Extent(*extent))
    return [replace(r, extents=tuple(found[r.id])) if r.form == "ranges" else r for r in records]


def add_ranges(tx: Transaction, ranges: Iterable[tuple[int, int, int, int, int]]) -> None:
    """Insert the ranges of recipes: file id, position, the object's id, offset, length."""
    columns = ("file_id", "position", "object_id", "object_offset", "byte_count")
    insert_rows(tx, file_ranges, columns, list(ranges))


def release(tx: Transaction, ids: Sequence[int]) -> None:
    """Take recipes that reference these objects out of quarantine if all of their objects are undamaged."""
    if not ids:
        return
    holder = files.alias("holder")
    damaged = (
        exists()
        .where(file_ranges.c.file_id == files.c.id, holder.c.id == file_ranges.c.object_id)
        .where(holder.c.damage.is_not(None))
    )
    theirs = select(file_ranges.c.file_id).where(file_ranges.c.object_id.in_(ids))
    tx.execute(update(files).where(files.c.id.in_(theirs), files.c.form == "ranges", ~damaged).values(damage=None))


# --- assembled recipes ---------------------------------------------------------------------------------------------

LEASE_SECONDS = 24 * 3600
"""Minimum time that an assembled recipe is kept after its last use."""


def assembled(tx: Transaction, file_id: int) -> str | None:
    """The key of the assembled object of a recipe, if enough of its lease is left."""
    fresh = assembled_files.c.expires_at > utc_now(LEASE_SECONDS // 2)
    return tx.execute(select(assembled_files.c.object_key).where(assembled_files.c.file_id == file_id, fresh)).scalar()


def renew_lease(tx: Transaction, file_id: int) -> str | None:
    """Renew the lease of an assembled recipe. Returns its key, None if there is none."""
    renewed = update(assembled_files).where(assembled_files.c.file_id == file_id)
    until = renewed.values(expires_at=utc_now(LEASE_SECONDS)).returning(assembled_files.c.object_key)
    return tx.execute(until).scalar()


def lease(tx: Transaction, file_id: int, key: str) -> str | None:
    """Record the assembled object of a recipe.

    Returns its key, or that of a concurrent assembly; None if the file was deleted.
    """
    if tx.execute(_LOCKED, {"file": file_id}).first() is None:
        holds.discard(tx, [key])
        return None
    there = renew_lease(tx, file_id)
    if there is not None:
        holds.discard(tx, [key])
        return there
    tx.execute(insert(assembled_files).values(file_id=file_id, object_key=key, expires_at=utc_now(LEASE_SECONDS)))
    return key


_LOCKED = select(files.c.id).where(files.c.id == bindparam("file")).with_for_update()
