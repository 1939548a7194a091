"""Rows about stored files, the holds that keep them while a commit is under way, and the trash."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, and_, bindparam, delete, func, insert, or_, select, update

from dataset_registry.catalog.engine import Transaction, chunks, insert_row
from dataset_registry.catalog.grants import Readable
from dataset_registry.catalog.tables import (
    dataset_version_files,
    dataset_versions,
    datasets,
    file_captures,
    file_info,
    file_parts,
    files,
    schemas,
    trash,
    uploads,
)
from dataset_registry.catalog.types import utc_now
from dataset_registry.errors import CorruptionError
from dataset_registry.model.records import FileRecord, StoredBytes

HOLD_SECONDS = 3600
"""How long a hold lasts without a heartbeat."""

_COLUMNS = (
    files.c.id,
    files.c.content_hash,
    files.c.file_size,
    files.c.form,
    files.c.object_key,
    files.c.file_type,
    files.c.compression_type,
    files.c.created_at,
    files.c.stored_size,
    files.c.damage,
)
_LIVE = and_(files.c.damage.is_(None), or_(files.c.object_key.is_not(None), files.c.form == "parts"))
"""That a file's bytes are there, as far as anybody knows."""

_BY_HASH = select(*_COLUMNS).where(files.c.content_hash == bindparam("hash"), _LIVE)
_BY_IDS = select(*_COLUMNS, files.c.file_path, files.c.storage_type).where(
    files.c.id.in_(bindparam("ids", expanding=True))
)


def find(tx: Transaction, content_hash: str) -> FileRecord | None:
    """The file with this content, None when nothing has it undamaged."""
    row = tx.execute(_BY_HASH, {"hash": content_hash}).one_or_none()
    return _record(row) if row else None


_BY_HASHES = select(*_COLUMNS).where(files.c.content_hash.in_(bindparam("hashes", expanding=True)), _LIVE)


def find_many(tx: Transaction, hashes: Sequence[str]) -> dict[str, FileRecord]:
    """The files with these contents, by hash; those whose bytes are damaged are as good as absent."""
    found: dict[str, FileRecord] = {}
    for chunk in chunks(hashes):
        rows = tx.execute(_BY_HASHES, {"hashes": chunk})
        found.update((row.content_hash, _record(row)) for row in rows)
    return found


def get_many(tx: Transaction, ids: Iterable[int]) -> dict[int, FileRecord]:
    """Files by id, those that exist."""
    wanted = list(ids)
    found: dict[int, FileRecord] = {}
    for chunk in chunks(wanted):
        rows = tx.execute(_BY_IDS, {"ids": chunk})
        found.update((row.id, _record(row, row.file_path)) for row in rows)
    return found


def objects_of(tx: Transaction, ids: Sequence[int]) -> dict[int, list[FileRecord]]:
    """What to read for each file: itself, or the parts of a table in order. Files that are gone are missing."""
    found: dict[int, list[FileRecord]] = {}
    known = get_many(tx, ids)
    tables = parts_of(tx, [file.id for file in known.values() if file.form == "parts"])
    for file in known.values():
        found[file.id] = [part for part, _ in tables.get(file.id, ())] if file.form == "parts" else [file]
    return found


def parts_of(tx: Transaction, ids: Sequence[int]) -> dict[int, list[tuple[FileRecord, int]]]:
    """The parts of tables in order, each with its rows, by the table's id."""
    found: dict[int, list[tuple[FileRecord, int]]] = {}
    query = select(*_COLUMNS, file_parts.c.file_id, file_parts.c.row_count).join(
        file_parts, file_parts.c.part_id == files.c.id
    )
    for chunk in chunks(ids):
        rows = query.where(file_parts.c.file_id.in_(chunk))
        for row in tx.execute(rows.order_by(file_parts.c.file_id, file_parts.c.position)):
            found.setdefault(row.file_id, []).append((_record(row), row.row_count))
    return found


def legacy_bytes(tx: Transaction, file_id: int) -> bytes:
    """The inline bytes of a legacy file."""
    data = tx.execute(select(files.c.file_data).where(files.c.id == file_id)).scalar()
    if data is None:
        raise CorruptionError(f"The legacy file {file_id} has neither bytes in the catalog nor a path.", file=file_id)
    return bytes(data)


def with_prefix(tx: Transaction, prefix: str, limit: int = 2) -> list[FileRecord]:
    """Files whose hash starts with `prefix`."""
    upper = prefix + "g"  # the next text after every hexadecimal continuation
    query = select(*_COLUMNS).where(files.c.content_hash >= prefix, files.c.content_hash < upper)
    return [_record(row) for row in tx.execute(query.order_by(files.c.content_hash).limit(limit))]


def page(tx: Transaction, after: int, limit: int) -> list[FileRecord]:
    """Files from the one after this id on, oldest first."""
    query = select(*_COLUMNS).where(files.c.id > after).order_by(files.c.id).limit(limit)
    return [_record(row) for row in tx.execute(query)]


def reference_counts(tx: Transaction, ids: Sequence[int], among: Readable = None) -> dict[int, int]:
    """How often files are named: by components of versions, as overlays and as parts of tables; `among` these datasets'
    only. Files that nothing names may be left out."""
    found: dict[int, int] = defaultdict(int)
    if among is None:
        for chunk in chunks(ids):
            query = select(file_info.c.id, file_info.c.reference_count).where(file_info.c.id.in_(chunk))
            found.update((row[0], row[1]) for row in tx.execute(query))
        return found
    theirs = dataset_versions.c.dataset_id.in_(among)
    entry, overlay, part = dataset_version_files.c.file_id, dataset_versions.c.overlay_file_id, file_parts.c.part_id
    for chunk in chunks(ids):
        for query in (
            select(entry, func.count())
            .join(dataset_versions, dataset_versions.c.id == dataset_version_files.c.version_id)
            .where(entry.in_(chunk), theirs)
            .group_by(entry),
            select(overlay, func.count()).where(overlay.in_(chunk), theirs).group_by(overlay),
            select(part, func.count(func.distinct(file_parts.c.file_id)))
            .join(dataset_version_files, dataset_version_files.c.file_id == file_parts.c.file_id)
            .join(dataset_versions, dataset_versions.c.id == dataset_version_files.c.version_id)
            .where(part.in_(chunk), theirs)
            .group_by(part),
        ):
            for file_id, count in tx.execute(query):
                found[file_id] += count
    return found


# --- captures ------------------------------------------------------------------------------------------------------


def captured(tx: Transaction, file_id: int, format: str) -> tuple[Mapping[str, Any], Any] | None:
    """The schema snapshot and the statistics that were captured of a file under a format, if they were."""
    query = (
        select(schemas.c.schema_json, file_captures.c.statistics_json)
        .join(file_captures, file_captures.c.schema_id == schemas.c.id)
        .where(file_captures.c.file_id == file_id, file_captures.c.format == format)
    )
    row = tx.execute(query).one_or_none()
    return (row[0], row[1]) if row else None


def captures_of(tx: Transaction, file_ids: Sequence[int]) -> dict[tuple[int, str], tuple[int, Any]]:
    """What was captured of files: schema id and statistics, by file id and format."""
    found: dict[tuple[int, str], tuple[int, Any]] = {}
    for chunk in chunks(file_ids):
        query = select(file_captures).where(file_captures.c.file_id.in_(chunk))
        found.update(((r.file_id, r.format), (r.schema_id, r.statistics_json)) for r in tx.execute(query))
    return found


def schemas_by_id(tx: Transaction, ids: Sequence[int]) -> dict[int, tuple[str, Mapping[str, Any]]]:
    """Digest and snapshot of schemas, by id."""
    found: dict[int, tuple[str, Mapping[str, Any]]] = {}
    for chunk in chunks(ids):
        query = select(schemas.c.id, schemas.c.digest, schemas.c.schema_json)
        rows = tx.execute(query.where(schemas.c.id.in_(chunk)))
        found.update((row[0], (row[1], row[2])) for row in rows)
    return found


def record_captures(tx: Transaction, captures: Sequence[tuple[int, str, int, Any]]) -> None:
    """Keep what was captured of files (file id, format, schema id, statistics); the first capture of each stays."""
    known: set[tuple[int, str]] = set()
    query = select(file_captures.c.file_id, file_captures.c.format).where(
        file_captures.c.file_id.in_(bindparam("ids", expanding=True))
    )
    for chunk in chunks(captures):
        ids = [capture[0] for capture in chunk]
        known.update((row[0], row[1]) for row in tx.execute(query, {"ids": ids}))
    new = {(file_id, format): (schema, statistics) for file_id, format, schema, statistics in captures}
    rows = [
        {"file_id": file_id, "format": format, "schema_id": schema, "statistics_json": statistics}
        for (file_id, format), (schema, statistics) in new.items()
        if (file_id, format) not in known
    ]
    if rows:
        tx.execute(insert(file_captures), rows)


def schema_id(tx: Transaction, digest: str, snapshot: Mapping[str, Any]) -> int:
    """The id of a schema, inserted when it is new."""
    found = tx.execute(select(schemas.c.id).where(schemas.c.digest == digest)).scalar()
    return found or insert_row(tx, schemas, {"digest": digest, "schema_json": snapshot})


# --- the write protocol --------------------------------------------------------------------------------------------


_HOLD = insert(uploads).values(expires_at=utc_now(HOLD_SECONDS))


def hold(tx: Transaction, wanted: Mapping[str, str | None]) -> dict[str, UUID]:
    """Announce that these contents are about to be named, each with the key its bytes will have (None: stored already)."""
    holds = {content_hash: uuid4() for content_hash in wanted}
    tx.execute(
        _HOLD,
        [{"id": holds[h], "content_hash": h, "object_key": key} for h, key in wanted.items()],
    )
    return holds


_RELEASE = delete(uploads).where(uploads.c.id.in_(bindparam("ids", expanding=True)))


def release(tx: Transaction, holds: Sequence[UUID]) -> bool:
    """Drop holds; False when one was gone already, and so the bytes it held may be."""
    gone = (tx.execute(_RELEASE, {"ids": chunk}).rowcount for chunk in chunks(holds))
    return sum(gone) == len(holds)


_RENEW = update(uploads).where(uploads.c.id == bindparam("hold")).values(expires_at=utc_now(HOLD_SECONDS))


def renew(tx: Transaction, holds: Sequence[UUID]) -> None:
    """Let holds last as long again from now on."""
    tx.execute(_RENEW, [{"hold": hold} for hold in sorted(holds)])


def discard(tx: Transaction, keys: Sequence[str]) -> None:
    """Put objects that no row names into the trash; their bytes go with the next collection."""
    if keys:
        tx.execute(insert(trash), [{"object_key": key} for key in keys])


_ADD = insert(files).returning(files.c.id, sort_by_parameter_order=True)


def add_whole(tx: Transaction, rows: Sequence[tuple[str, int, str, StoredBytes]]) -> dict[str, int]:
    """Insert stored files (hash, size, format, what was put); their ids by hash. Damaged ones with these contents heal.

    The caller has seen, in this transaction, that nothing has these contents undamaged.
    """
    if not rows:
        return {}
    healed = heal(tx, {content_hash: stored for content_hash, _, _, stored in rows})
    values = [
        {
            "storage_type": "store",
            "file_type": format,
            "file_size": size,
            "content_hash": content_hash,
            "form": "whole",
            **_kept(stored, size),
        }
        for content_hash, size, format, stored in rows
        if content_hash not in healed
    ]
    if values:
        ids = tx.execute(_ADD, values).scalars()
        healed.update(zip((str(value["content_hash"]) for value in values), ids, strict=True))
    return healed


def _kept(stored: StoredBytes, size: int) -> dict[str, object]:
    return {
        "object_key": stored.key,
        "compression_type": stored.compression,
        "stored_size": stored.size if stored.size != size else None,
    }


_DAMAGED = (
    select(files.c.id, files.c.content_hash, files.c.object_key, files.c.file_size)
    .where(files.c.content_hash.in_(bindparam("hashes", expanding=True)), ~_LIVE)
    .order_by(files.c.id)
    .with_for_update()
)


def heal(tx: Transaction, stored: Mapping[str, StoredBytes]) -> dict[str, int]:
    """Give damaged files the bytes that were just stored; their ids by hash. What they had goes into the trash."""
    healed: dict[str, int] = {}
    hashes = list(stored)
    for chunk in chunks(hashes):
        for file_id, content_hash, key, size in tx.execute(_DAMAGED, {"hashes": chunk}).all():
            kept = _kept(stored[content_hash], size)
            tx.execute(update(files).where(files.c.id == file_id).values(damage=None, **kept))
            discard(tx, [key] if key else [])
            healed[content_hash] = file_id
    return healed


def add_table(tx: Transaction, content_hash: str, size: int, format: str, parts: Sequence[tuple[int, int]]) -> int:
    """Insert a table made of parts, given as (file id, rows) in order; its id."""
    row = {
        "storage_type": "store",
        "file_type": format,
        "file_size": size,
        "content_hash": content_hash,
        "object_key": None,
        "form": "parts",
    }
    file_id = insert_row(tx, files, row)
    tx.execute(
        insert(file_parts),
        [
            {"file_id": file_id, "position": position, "part_id": part, "row_count": rows}
            for position, (part, rows) in enumerate(parts)
        ],
    )
    return file_id


def _record(row: Row, legacy_path: str | None = None) -> FileRecord:  # type: ignore[type-arg]
    return FileRecord(
        id=row.id,
        content_hash=row.content_hash,
        size=row.file_size,
        form=row.form,
        object_key=row.object_key,
        format=row.file_type,
        compression_type=row.compression_type,
        created_at=row.created_at,
        stored_size=0 if row.form == "parts" else row.file_size if row.stored_size is None else row.stored_size,
        damage=row.damage,
        legacy_path=legacy_path,
    )


# --- verification --------------------------------------------------------------------------------------------------

_STORED = select(*_COLUMNS).where(files.c.object_key.is_not(None))


def by_keys(tx: Transaction, keys: Sequence[str]) -> dict[str, FileRecord]:
    """The files whose objects have these keys, by key."""
    found: dict[str, FileRecord] = {}
    for chunk in chunks(keys):
        rows = tx.execute(_STORED.where(files.c.object_key.in_(chunk)))
        found.update((row.object_key, _record(row)) for row in rows)
    return found


def stored_after(tx: Transaction, after: int, limit: int) -> list[FileRecord]:
    """The files that have an object, from the row after this one on."""
    rows = tx.execute(_STORED.where(files.c.id > after).order_by(files.c.id).limit(limit))
    return [_record(row) for row in rows]


def stored_count(tx: Transaction) -> int:
    """How many files have an object."""
    return int(tx.execute(select(func.count()).select_from(files).where(files.c.object_key.is_not(None))).scalar_one())


def waiting_count(tx: Transaction) -> int:
    """How many legacy files were not adopted yet."""
    return int(tx.execute(select(func.count()).select_from(files).where(files.c.content_hash.is_(None))).scalar_one())


def set_damage(tx: Transaction, file_id: int, key: str, damage: str | None) -> bool:
    """Put a file into quarantine, or take it out again; False when it has another object by now, or is gone."""
    statement = update(files).where(files.c.id == file_id, files.c.object_key == key).values(damage=damage)
    return bool(tx.execute(statement).rowcount)


def damaged_hashes(tx: Transaction) -> set[str]:
    """The content hashes of the files in quarantine."""
    return set(tx.execute(select(files.c.content_hash).where(files.c.damage.is_not(None))).scalars())


def users_of(tx: Transaction, file_id: int, limit: int = 5) -> list[str]:
    """Some of the versions that name a file, itself or as a part of a table, as `name@vN`; the newest first."""
    owners = select(file_parts.c.file_id).where(file_parts.c.part_id == file_id)
    query = (
        select(datasets.c.name, dataset_versions.c.version_number, dataset_versions.c.id)
        .distinct()
        .join(dataset_versions, dataset_versions.c.dataset_id == datasets.c.id)
        .join(dataset_version_files, dataset_version_files.c.version_id == dataset_versions.c.id)
        .where(or_(dataset_version_files.c.file_id == file_id, dataset_version_files.c.file_id.in_(owners)))
        .order_by(dataset_versions.c.id.desc())
        .limit(limit)
    )
    return [f"{name}@v{number}" for name, number, _ in tx.execute(query)]
