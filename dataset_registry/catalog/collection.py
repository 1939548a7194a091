"""Rows that nothing names any more: finding them, taking them away in an order that is safe, and what is in the trash."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil

from sqlalchemy import ColumnElement, and_, delete, exists, func, insert, or_, select, true

from dataset_registry.catalog.engine import Transaction, chunks
from dataset_registry.catalog.files import discard
from dataset_registry.catalog.tables import (
    dataset_versions,
    file_captures,
    file_parts,
    files,
    manifest_entries,
    permissions,
    schemas,
    trash,
    uploads,
    version_reads,
)
from dataset_registry.catalog.types import utc_now

CHUNK = 500
"""Rows that one transaction takes: small enough that nobody waits long for it."""


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """A file that nothing names: its row, its content's hash, the bytes of its object (0 for a table of parts)."""

    id: int
    content_hash: str
    bytes: int
    is_table: bool


def _unnamed(hold: ColumnElement[bool]) -> ColumnElement[bool]:
    """That no version (entry, overlay) and no such hold names a file; parts of tables are another matter."""
    return and_(
        ~exists().where(manifest_entries.c.file_id == files.c.id),
        ~exists().where(dataset_versions.c.overlay_file_id == files.c.id),
        ~exists().where(uploads.c.content_hash == files.c.content_hash, hold),
        files.c.storage_type == "store",  # what was not adopted yet is not ours to delete
    )


def unreferenced(tx: Transaction, older_than: timedelta) -> list[Unreferenced]:
    """The files that nothing names and that are older than this, tables before the parts that only they name."""
    old = files.c.created_at <= utc_now(-ceil(older_than.total_seconds()))
    unnamed = _unnamed(uploads.c.expires_at >= utc_now())
    tables = select(files.c.id).where(files.c.form == "parts", old, unnamed).cte("tables")
    living_table = exists().where(file_parts.c.part_id == files.c.id, file_parts.c.file_id.not_in(select(tables.c.id)))
    size = func.coalesce(files.c.stored_size, files.c.file_size)
    query = select(files.c.id, files.c.content_hash, size, files.c.form).where(old, unnamed, ~living_table)
    rows = tx.execute(query.order_by(files.c.form != "parts", files.c.id))
    return [Unreferenced(i, h, 0 if form == "parts" else n, form == "parts") for i, h, n, form in rows]


def take(tx: Transaction, ids: Sequence[int]) -> list[int]:
    """Delete the rows of those of these files that nothing names still, and put their objects into the trash.

    Two statements on purpose: the first locks the rows (rows that somebody is about to name are locked, and skipped),
    the second looks whether anything names them. Whoever named one before our lock has committed by then, and is seen;
    one statement for both would look with a snapshot older than its locks.
    """
    locked = select(files.c.id).where(files.c.id.in_(ids)).order_by(files.c.id).with_for_update(skip_locked=True)
    mine = list(tx.execute(locked).scalars())
    part_of_a_table = exists().where(file_parts.c.part_id == files.c.id)
    free = select(files.c.id, files.c.object_key).where(files.c.id.in_(mine), _unnamed(true()), ~part_of_a_table)
    rows = tx.execute(free).all()
    gone = [row[0] for row in rows]
    if gone:
        tx.execute(delete(file_captures).where(file_captures.c.file_id.in_(gone)))
        tx.execute(delete(file_parts).where(file_parts.c.file_id.in_(gone)))
        granted = and_(permissions.c.resource_type == "file", permissions.c.resource_id.in_(gone))
        tx.execute(delete(permissions).where(granted))
        tx.execute(delete(files).where(files.c.id.in_(gone)))
        discard(tx, [row[1] for row in rows if row[1] is not None])
    return gone


def drop_unused_schemas(tx: Transaction) -> int:
    """Delete the schemas that no component and no capture names; how many those were."""
    named = or_(
        exists().where(manifest_entries.c.schema_id == schemas.c.id),
        exists().where(file_captures.c.schema_id == schemas.c.id),
    )
    return tx.execute(delete(schemas).where(~named)).rowcount


def forget_reads(tx: Transaction, older_than: timedelta) -> None:
    """Forget what runs read longer ago than this."""
    tx.execute(delete(version_reads).where(version_reads.c.read_at < utc_now(-ceil(older_than.total_seconds()))))


# --- holds ---------------------------------------------------------------------------------------------------------


def expired_holds(tx: Transaction) -> int:
    """How many holds ran out."""
    return int(
        tx.execute(select(func.count()).select_from(uploads).where(uploads.c.expires_at < utc_now())).scalar_one()
    )


_LATE_SECONDS = 7 * 24 * 3600
"""How long a writer may sleep through the end of its hold and still have what it puts then removed."""


def drop_expired_holds(tx: Transaction) -> int:
    """Delete the holds that ran out; the objects they announced go into the trash, whether they came or are still to come."""
    gone = tx.execute(delete(uploads).where(uploads.c.expires_at < utc_now()).returning(uploads.c.object_key)).all()
    if keys := [row[0] for row in gone if row[0] is not None]:
        tx.execute(insert(trash).values(keep_until=utc_now(_LATE_SECONDS)), [{"object_key": key} for key in keys])
    return len(gone)


# --- trash ---------------------------------------------------------------------------------------------------------

_DUE = or_(trash.c.keep_until.is_(None), trash.c.keep_until < utc_now())
"""Trash that is forgotten once its bytes are deleted."""


def trash_count(tx: Transaction) -> int:
    """How many objects are in the trash, without those that are only waited for."""
    return int(tx.execute(select(func.count()).select_from(trash).where(_DUE)).scalar_one())


def trashed(tx: Transaction, after: str, limit: int = CHUNK) -> list[str]:
    """The keys in the trash that come after this one, in order."""
    query = select(trash.c.object_key).where(trash.c.object_key > after).order_by(trash.c.object_key).limit(limit)
    return list(tx.execute(query).scalars())


def empty_trash(tx: Transaction, keys: Sequence[str]) -> int:
    """Forget objects whose bytes are deleted, except those that may still come; how many were forgotten."""
    return tx.execute(delete(trash).where(trash.c.object_key.in_(keys), _DUE)).rowcount


# --- sweeping ------------------------------------------------------------------------------------------------------


def unknown(tx: Transaction, keys: Sequence[str]) -> set[str]:
    """Those of these keys that no file, no hold and no trash has."""
    left = set(keys)
    # In the order in which a key moves: each statement may see a newer state than the one before.
    for column in (uploads.c.object_key, files.c.object_key, trash.c.object_key):
        for chunk in chunks(sorted(left)):
            left.difference_update(tx.execute(select(column).where(column.in_(chunk))).scalars())
    return left
