"""Rows of the write protocol: the holds that keep contents while a commit is under way, and the trash.

docs/design/write-protocol.md has the order in which these are written.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID, uuid4

from sqlalchemy import bindparam, delete, insert, update

from dataset_registry.catalog.rows import Transaction, batches
from dataset_registry.catalog.tables import trash, uploads
from dataset_registry.catalog.types import utc_now

HOLD_SECONDS = 3600
"""How long a hold lasts without a heartbeat."""

_HOLD = insert(uploads).values(expires_at=utc_now(HOLD_SECONDS))


def hold(tx: Transaction, wanted: Mapping[str, str | None]) -> dict[str, UUID]:
    """Insert holds for contents that are about to be referenced, each with its new key (None: stored already)."""
    holds = {content_hash: uuid4() for content_hash in wanted}
    tx.execute(
        _HOLD,
        [{"id": holds[h], "content_hash": h, "object_key": key} for h, key in wanted.items()],
    )
    return holds


_RELEASE = delete(uploads).where(uploads.c.id.in_(bindparam("ids", expanding=True)))


def release(tx: Transaction, holds: Sequence[UUID]) -> bool:
    """Delete holds. Returns False if one had expired, so that its bytes may be deleted."""
    gone = (tx.execute(_RELEASE, {"ids": chunk}).rowcount for chunk in batches(holds))
    return sum(gone) == len(holds)


_RENEW = update(uploads).where(uploads.c.id == bindparam("hold")).values(expires_at=utc_now(HOLD_SECONDS))


def renew(tx: Transaction, holds: Sequence[UUID]) -> None:
    """Renew holds for their full duration."""
    tx.execute(_RENEW, [{"hold": hold} for hold in sorted(holds)])


def discard(tx: Transaction, keys: Sequence[str]) -> None:
    """Move unreferenced objects to the trash; the next collection deletes them."""
    if keys:
        tx.execute(insert(trash), [{"object_key": key} for key in keys])
