"""Rows of captures: schema snapshots with statistics, shared by versions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, insert, select

from dataset_registry.catalog.files import LIVE, OF_HASHES
from dataset_registry.catalog.rows import Transaction, batches, insert_row
from dataset_registry.catalog.tables import (
    file_captures,
    files,
    schemas,
)

_CAPTURES = (
    select(files.c.content_hash, file_captures.c.format, schemas.c.schema_json, file_captures.c.statistics_json)
    .join(file_captures, file_captures.c.file_id == files.c.id)
    .join(schemas, schemas.c.id == file_captures.c.schema_id)
    .where(OF_HASHES, LIVE)
    .order_by(file_captures.c.schema_id.desc())
)


_CAPTURED = select(file_captures.c.file_id, file_captures.c.format, file_captures.c.schema_id).where(
    file_captures.c.file_id.in_(bindparam("ids", expanding=True))
)


def captures_by_hash(
    tx: Transaction, hashes: Sequence[str]
) -> dict[tuple[str, str], list[tuple[Mapping[str, Any], Any]]]:
    """The captured schema snapshots and statistics of contents, by hash and format, newest first."""
    found: dict[tuple[str, str], list[tuple[Mapping[str, Any], Any]]] = defaultdict(list)
    for chunk in batches(hashes):
        for content_hash, format, schema, statistics in tx.execute(_CAPTURES, {"hashes": chunk}):
            found[content_hash, format].append((schema, statistics))
    return found


def captures_of(tx: Transaction, file_ids: Sequence[int]) -> list[tuple[int, str, int, Any]]:
    """The captures of files: file id, format, schema id, statistics."""
    query = select(file_captures).order_by(file_captures.c.file_id, file_captures.c.format, file_captures.c.schema_id)
    rows = (row for chunk in batches(file_ids) for row in tx.execute(query.where(file_captures.c.file_id.in_(chunk))))
    return [(row.file_id, row.format, row.schema_id, row.statistics_json) for row in rows]


def schemas_by_id(tx: Transaction, ids: Sequence[int]) -> dict[int, tuple[str, Mapping[str, Any]]]:
    """Digest and snapshot of schemas, by id."""
    found: dict[int, tuple[str, Mapping[str, Any]]] = {}
    for chunk in batches(ids):
        query = select(schemas.c.id, schemas.c.digest, schemas.c.schema_json)
        rows = tx.execute(query.where(schemas.c.id.in_(chunk)))
        found.update((row[0], (row[1], row[2])) for row in rows)
    return found


def record_captures(tx: Transaction, captures: Sequence[tuple[int, str, int, Any]]) -> None:
    """Insert captures of files (file id, format, schema id, statistics), unless they exist."""
    known: set[tuple[int, str, int]] = set()
    for chunk in batches(captures):
        ids = [capture[0] for capture in chunk]
        known.update((row[0], row[1], row[2]) for row in tx.execute(_CAPTURED, {"ids": ids}))
    new = {(file_id, format, schema): statistics for file_id, format, schema, statistics in captures}
    rows = [
        {"file_id": file_id, "format": format, "schema_id": schema, "statistics_json": statistics}
        for (file_id, format, schema), statistics in new.items()
        if (file_id, format, schema) not in known
    ]
    if rows:
        tx.execute(insert(file_captures), rows)


def schema_id(tx: Transaction, digest: str, snapshot: Mapping[str, Any]) -> tuple[int, bool]:
    """The id of a schema, and whether it is new: then it was inserted."""
    found = tx.execute(select(schemas.c.id).where(schemas.c.digest == digest)).scalar()
    if found is not None:
        return found, False
    return insert_row(tx, schemas, {"digest": digest, "schema_json": snapshot}), True
