"""Unreferenced rows: finding them, deleting them in a safe order, and the trash."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, case, delete, exists, func, insert, or_, select, true, update

from dataset_registry.catalog.files import STORED_SIZE
from dataset_registry.catalog.holds import discard
from dataset_registry.catalog.rows import Transaction, batches
from dataset_registry.catalog.tables import (
    assembled_files,
    dataset_versions,
    file_captures,
    file_parts,
    file_ranges,
    files,
    inline_contents,
    manifest_entries,
    permissions,
    schemas,
    trash,
    uploads,
    version_reads,
)
from dataset_registry.catalog.types import utc_now
from dataset_registry.model.maintenance import Unreferenced

CHUNK = 500
"""Rows per transaction: few enough that other writers do not wait long."""


def _unnamed(hold: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition that no version (entry, overlay) and no such hold references a file; parts are checked separately."""
    return and_(
        ~exists().where(manifest_entries.c.file_id == files.c.id),
        ~exists().where(dataset_versions.c.overlay_file_id == files.c.id),
        ~exists().where(uploads.c.content_hash == files.c.content_hash, hold),
        files.c.content_hash.is_not(None),  # legacy files that are not adopted are not deleted
    )


def unreferenced(tx: Transaction, older_than: timedelta) -> list[Unreferenced]:
    """The unreferenced files that are older than this: tables, then recipes, then files that only these reference."""
    old = files.c.created_at <= utc_now(-ceil(older_than.total_seconds()))
    unnamed = _unnamed(uploads.c.expires_at >= utc_now())
    tables = select(files.c.id).where(files.c.form == "parts", old, unnamed).cte("tables")
    in_table = exists().where(file_parts.c.part_id == files.c.id, file_parts.c.file_id.not_in(select(tables.c.id)))
    recipes = select(files.c.id).where(files.c.form == "ranges", old, unnamed, ~in_table).cte("recipes")
    in_recipe = exists().where(
        file_ranges.c.object_id == files.c.id, file_ranges.c.file_id.not_in(select(recipes.c.id))
    )
    query = select(files.c.id, files.c.content_hash, STORED_SIZE, files.c.form).where(
        old, unnamed, ~in_table, ~in_recipe
    )
    wave = case({form: place for place, form in enumerate(WAVES)}, value=files.c.form, else_=len(WAVES))
    return [Unreferenced(*row) for row in tx.execute(query.order_by(wave, files.c.id))]


WAVES = ("parts", "ranges")
"""Forms of files that reference other files, in the order of deletion: each before the files that it references."""


def take(tx: Transaction, ids: Sequence[int]) -> list[int]:
    """Delete the rows of those of these files that are still unreferenced, and put their objects into the trash.

    Two statements on purpose: the first locks the rows (rows that are about to be referenced are locked, and skipped),
    the second checks their references. A transaction that referenced one before our lock has committed by then;
    one statement for both would look with a snapshot older than its locks.
    """
    locked = select(files.c.id).where(files.c.id.in_(ids)).order_by(files.c.id).with_for_update(skip_locked=True)
    mine = list(tx.execute(locked).scalars())
    part_of_a_table = exists().where(file_parts.c.part_id == files.c.id)
    in_a_recipe = exists().where(file_ranges.c.object_id == files.c.id)
    named = or_(part_of_a_table, in_a_recipe)
    free = select(files.c.id, files.c.object_key).where(files.c.id.in_(mine), _unnamed(true()), ~named)
    rows = tx.execute(free).all()
    gone = [row[0] for row in rows]
    if gone:
        tx.execute(delete(file_captures).where(file_captures.c.file_id.in_(gone)))
        tx.execute(delete(file_parts).where(file_parts.c.file_id.in_(gone)))
        tx.execute(delete(file_ranges).where(file_ranges.c.file_id.in_(gone)))
        tx.execute(delete(inline_contents).where(inline_contents.c.file_id.in_(gone)))
        _drop_assembled(tx, assembled_files.c.file_id.in_(gone))
        granted = and_(permissions.c.resource_type == "file", permissions.c.resource_id.in_(gone))
        tx.execute(delete(permissions).where(granted))
        tx.execute(delete(files).where(files.c.id.in_(gone)))
        discard(tx, [row[1] for row in rows if row[1] is not None])
    return gone


# --- objects of which little is left -------------------------------------------------------------------------------

_SPARSE = 0.5
"""Objects with at most this share of referenced bytes are repacked."""
_WORTHWHILE = 1 << 20
"""Minimum unreferenced bytes of an object to repack it."""


@dataclass(frozen=True, slots=True)
class Sparse:
    """A mostly unreferenced object: its file, its key, and the runs (offset, length) that recipes reference."""

    id: int
    key: str
    runs: tuple[tuple[int, int], ...]

    @property
    def living(self) -> int:
        """The number of its referenced bytes."""
        return sum(length for _, length in self.runs)


def sparse(tx: Transaction) -> list[Sparse]:
    """The objects that are worth repacking."""
    begin = file_ranges.c.object_offset
    end = (begin + file_ranges.c.byte_count).label("end_offset")
    spans = select(file_ranges.c.object_id, begin, end).distinct().subquery("spans")
    before = func.max(spans.c.end_offset).over(  # how far the spans reach that begin before this one
        partition_by=spans.c.object_id, order_by=(spans.c.object_offset, spans.c.end_offset), rows=(None, -1)
    )
    reached = select(spans, before.label("reached")).subquery("reached")
    start = case((reached.c.reached > reached.c.object_offset, reached.c.reached), else_=reached.c.object_offset)
    adds = case((reached.c.end_offset > start, reached.c.end_offset - start), else_=0)
    living = select(reached.c.object_id, func.sum(adds).label("bytes")).group_by(reached.c.object_id).subquery("living")
    query = (
        select(files.c.id, files.c.object_key)
        .join(living, living.c.object_id == files.c.id)
        .where(
            files.c.damage.is_(None),
            _unnamed(uploads.c.expires_at >= utc_now()),
            ~exists().where(file_parts.c.part_id == files.c.id),
            living.c.bytes <= files.c.file_size * _SPARSE,
            files.c.file_size - living.c.bytes >= _WORTHWHILE,
        )
        .order_by(files.c.id)
    )
    return [Sparse(file_id, key, _runs(tx, file_id)) for file_id, key in tx.execute(query).all()]


def _runs(tx: Transaction, file_id: int) -> tuple[tuple[int, int], ...]:
    """The runs of bytes of an object that recipes reference; adjacent ones are merged."""
    query = (
        select(file_ranges.c.object_offset, file_ranges.c.byte_count)
        .distinct()
        .where(file_ranges.c.object_id == file_id)
        .order_by(file_ranges.c.object_offset)
    )
    joined: list[tuple[int, int]] = []
    for offset, length in tx.execute(query):
        if joined and offset <= joined[-1][0] + joined[-1][1]:
            start = joined[-1][0]
            joined[-1] = (start, max(joined[-1][1], offset + length - start))
        else:
            joined.append((offset, length))
    return tuple(joined)


def move_ranges(tx: Transaction, found: Sparse, pack_id: int, at: int) -> int:
    """Point the ranges of an object at the copy of its runs in a pack, from `at` on. Returns 1, or 0 without a change
    if another transaction holds the object or references other bytes of it since."""
    locked = select(files.c.id).where(files.c.id == found.id, files.c.object_key == found.key).with_for_update()
    if tx.execute(locked).scalar() is None:
        return 0
    free = select(files.c.id).where(files.c.id == found.id, _unnamed(true()))
    if tx.execute(free).scalar() is None or _runs(tx, found.id) != found.runs:
        return 0
    for offset, length in found.runs:
        inside = and_(
            file_ranges.c.object_id == found.id, file_ranges.c.object_offset.between(offset, offset + length - 1)
        )
        moved = update(file_ranges).where(inside)
        tx.execute(moved.values(object_id=pack_id, object_offset=file_ranges.c.object_offset - offset + at))
        at += length
    return 1


# --- contents in the catalog ---------------------------------------------------------------------------------------


class InlineContent(NamedTuple):
    """The bytes of a file in the catalog."""

    id: int
    data: bytes


_INLINE = and_(files.c.form == "inline", files.c.damage.is_(None))


def inline_size(tx: Transaction) -> int:
    """The bytes of the undamaged contents in the catalog."""
    return int(tx.execute(select(func.coalesce(func.sum(files.c.file_size), 0)).where(_INLINE)).scalar_one())


def inline_after(tx: Transaction, after: int, limit: int) -> list[InlineContent]:
    """The undamaged contents in the catalog, from the file after this one on."""
    query = select(files.c.id, inline_contents.c.data).join(inline_contents, inline_contents.c.file_id == files.c.id)
    rows = tx.execute(query.where(_INLINE, files.c.id > after).order_by(files.c.id).limit(limit))
    return [InlineContent(file_id, bytes(data)) for file_id, data in rows]


def move_inline(tx: Transaction, pack_id: int, places: Mapping[int, tuple[int, int]]) -> int:
    """Make files in the catalog ranges (offset, length) of a pack; those that were changed or deleted since are skipped.
    Returns their number."""
    locked = select(files.c.id).where(files.c.id.in_(list(places)), _INLINE).order_by(files.c.id)
    mine = list(tx.execute(locked.with_for_update(key_share=True)).scalars())
    if mine:
        rows = [
            {"file_id": i, "position": 0, "object_id": pack_id, "object_offset": offset, "byte_count": length}
            for i in mine
            for offset, length in [places[i]]
            if length
        ]
        if rows:
            tx.execute(insert(file_ranges), rows)
        tx.execute(delete(inline_contents).where(inline_contents.c.file_id.in_(mine)))
        tx.execute(update(files).where(files.c.id.in_(mine)).values(form="ranges"))
    return len(mine)


def drop_unused_schemas(tx: Transaction) -> int:
    """Delete the unreferenced schemas. Returns their number."""
    named = or_(
        exists().where(manifest_entries.c.schema_id == schemas.c.id),
        exists().where(file_captures.c.schema_id == schemas.c.id),
    )
    return tx.execute(delete(schemas).where(~named)).rowcount


def forget_reads(tx: Transaction, older_than: timedelta) -> None:
    """Delete the records of reads that are older than this."""
    tx.execute(delete(version_reads).where(version_reads.c.read_at < utc_now(-ceil(older_than.total_seconds()))))


# --- holds ---------------------------------------------------------------------------------------------------------


def expired_holds(tx: Transaction) -> int:
    """The number of expired holds."""
    return int(
        tx.execute(select(func.count()).select_from(uploads).where(uploads.c.expires_at < utc_now())).scalar_one()
    )


_LATE_SECONDS = 7 * 24 * 3600
"""How long keys of expired holds stay in the trash, to delete objects of suspended writers."""


def drop_expired_holds(tx: Transaction) -> int:
    """Delete the expired holds, and move their keys to the trash, whether the objects exist or not."""
    gone = tx.execute(delete(uploads).where(uploads.c.expires_at < utc_now()).returning(uploads.c.object_key)).all()
    if keys := [row[0] for row in gone if row[0] is not None]:
        tx.execute(insert(trash).values(keep_until=utc_now(_LATE_SECONDS)), [{"object_key": key} for key in keys])
    return len(gone)


def drop_expired_leases(tx: Transaction) -> None:
    """Move assembled recipes with an expired lease to the trash."""
    _drop_assembled(tx, assembled_files.c.expires_at < utc_now())


def _drop_assembled(tx: Transaction, which: ColumnElement[bool]) -> None:
    keys = tx.execute(delete(assembled_files).where(which).returning(assembled_files.c.object_key)).scalars()
    discard(tx, list(keys))


# --- trash ---------------------------------------------------------------------------------------------------------

_DUE = or_(trash.c.keep_until.is_(None), trash.c.keep_until < utc_now())
"""Trash whose rows are deleted after its objects."""


def trash_count(tx: Transaction) -> int:
    """The number of objects in the trash, without keys that only wait for late writers."""
    return int(tx.execute(select(func.count()).select_from(trash).where(_DUE)).scalar_one())


def trashed(tx: Transaction, after: str, limit: int = CHUNK) -> list[str]:
    """The keys in the trash that come after this one, in order."""
    query = select(trash.c.object_key).where(trash.c.object_key > after).order_by(trash.c.object_key).limit(limit)
    return list(tx.execute(query).scalars())


def empty_trash(tx: Transaction, keys: Sequence[str]) -> int:
    """Delete the rows of deleted objects, except keys of possible late writers. Returns their number."""
    return tx.execute(delete(trash).where(trash.c.object_key.in_(keys), _DUE)).rowcount


# --- sweeping ------------------------------------------------------------------------------------------------------


def unknown(tx: Transaction, keys: Sequence[str]) -> set[str]:
    """The keys without a file, a hold or a row in the trash."""
    left = set(keys)
    # In the order in which a key moves: each statement may see a newer state than the one before.
    for column in (uploads.c.object_key, files.c.object_key, assembled_files.c.object_key, trash.c.object_key):
        for chunk in batches(sorted(left)):
            left.difference_update(tx.execute(select(column).where(column.in_(chunk))).scalars())
    return left
