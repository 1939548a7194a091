"""Rows of the audit log and its seals. Appended, never changed: the database refuses anything else."""

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Row, func, insert, select, text

from dataset_registry.catalog.prepared import inserting
from dataset_registry.catalog.rows import Transaction
from dataset_registry.catalog.tables import audit_log, audit_seals
from dataset_registry.model.audit import GENESIS, AuditEntry, Seal, seal_digest
from dataset_registry.model.manifest import canonical_json

_L = audit_log
_PAGE = 1000
_BEFORE_ALL = -(2**31)
"""Ids begin at 1; an entry inserted before them is found."""


def append(tx: Transaction, entry: AuditEntry) -> None:
    """Append an entry. The last statement of its transaction: sealing waits for those that have appended."""
    row = {
        "at": entry.at,
        "actor": entry.actor,
        "door": entry.interface,
        "token_id": entry.token_id,
        "action": entry.action,
        "dataset_id": entry.dataset_id,
        "dataset_name": entry.dataset,
        "ref_name": entry.ref,
        "before": entry.before,
        "after": entry.after,
        "details": canonical_json(dict(entry.details)) if entry.details else None,
        "entry_hash": entry.hash(),
    }
    inserting(_L, tuple(row)).run(tx, row)


_COLUMNS = (
    _L.c.id,
    _L.c.at,
    _L.c.actor,
    _L.c.door,
    _L.c.token_id,
    _L.c.action,
    _L.c.dataset_id,
    _L.c.dataset_name,
    _L.c.ref_name,
    _L.c.before,
    _L.c.after,
    _L.c.details,
    _L.c.entry_hash,
)


def entries(
    tx: Transaction,
    *,
    dataset_id: int | None = None,
    actor: str | None = None,
    action: str | None = None,
    before: int | None = None,
    limit: int | None = None,
) -> list[AuditEntry]:
    """Entries, newest first, filtered by dataset, actor and action, and older than the entry `before`."""
    query = select(*_COLUMNS).order_by(_L.c.id.desc())
    for column, value in ((_L.c.dataset_id, dataset_id), (_L.c.actor, actor), (_L.c.action, action)):
        query = query if value is None else query.where(column == value)
    query = query if before is None else query.where(_L.c.id < before)
    return [_entry(row) for row in tx.execute(query.limit(limit))]


def hashed(tx: Transaction, after: int = _BEFORE_ALL) -> Iterator[tuple[AuditEntry, str]]:
    """Every entry after this id in order, with its stored hash."""
    while found := page(tx, after):
        yield from found
        after = found[-1][0].id


def page(tx: Transaction, after: int = _BEFORE_ALL) -> list[tuple[AuditEntry, str]]:
    """The next page of entries after this id in order, with their stored hashes."""
    rows = tx.execute(select(*_COLUMNS).where(_L.c.id > after).order_by(_L.c.id).limit(_PAGE))
    return [(_entry(row), row.entry_hash) for row in rows]


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(
        actor=row.actor,
        interface=row.door,
        action=row.action,
        dataset_id=row.dataset_id,
        dataset=row.dataset_name,
        ref=row.ref_name,
        before=row.before,
        after=row.after,
        token_id=row.token_id,
        details=_details(row.details),
        at=row.at,
        id=row.id,
    )


def _details(text: str | None) -> dict[str, Any]:
    """Parse canonical JSON; other texts were not written by the registry and do not match their hash."""
    try:
        return dict(json.loads(text)) if text else {}
    except (ValueError, TypeError):
        return {"unreadable": text}


_SEAL_WAITS = 500
"""Milliseconds that a seal waits for running transactions, and that other writers wait for it."""


def settled(tx: Transaction) -> int:
    """The id of the last entry before which no other entry can appear.

    On PostgreSQL it waits for the transactions that have appended and not ended, and blocks other appends in the
    meantime. End the transaction at once. Raises `RetryLater` if that takes long. SQLite has only one writer.
    """
    if tx.dialect.name == "postgresql":
        # While this waits, every writer waits behind it: it gives way soon, and is tried again by the next seal.
        tx.execute(text(f"SET LOCAL lock_timeout = '{_SEAL_WAITS}ms'"))
        tx.execute(text(f"LOCK TABLE {_L.name} IN SHARE MODE"))
    return tx.execute(select(func.max(_L.c.id))).scalar() or 0


def seals(tx: Transaction) -> list[Seal]:
    """Every seal in order."""
    query = select(
        audit_seals.c.id,
        audit_seals.c.first_id,
        audit_seals.c.last_id,
        audit_seals.c.entry_count,
        audit_seals.c.digest,
        audit_seals.c.sealed_at,
    )
    return [Seal(*row) for row in tx.execute(query.order_by(audit_seals.c.id))]


def seal(tx: Transaction, upto: int) -> int:
    """Seal the entries up to a settled one.

    Returns their number. Of two concurrent seals, one fails and has nothing to do.
    """
    query = select(audit_seals.c.last_id, audit_seals.c.digest).order_by(audit_seals.c.id.desc()).limit(1)
    last = tx.execute(query).one_or_none() or (0, GENESIS)
    rows = tx.execute(
        select(_L.c.id, _L.c.entry_hash).where(_L.c.id > last[0], _L.c.id <= upto).order_by(_L.c.id)
    ).all()
    if not rows:
        return 0
    tx.execute(
        insert(audit_seals),
        {
            "first_id": last[0] + 1,
            "last_id": upto,
            "entry_count": len(rows),
            "digest": seal_digest(last[1], ((row[0], row[1]) for row in rows)),
        },
    )
    return len(rows)
