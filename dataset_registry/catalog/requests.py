"""Rows of stored responses, so that a repeated request gets the same response and changes nothing."""

from sqlalchemy import delete, insert, select

from dataset_registry.catalog.rows import Transaction
from dataset_registry.catalog.tables import answered_requests
from dataset_registry.catalog.types import utc_now

KEPT_SECONDS = 24 * 3600
"""How long a response is stored."""

_A = answered_requests


def find(tx: Transaction, user_id: int, key: str) -> tuple[str, int, str] | None:
    """Fingerprint, status and body of the stored response to a user's request with this key."""
    query = select(_A.c.fingerprint, _A.c.status, _A.c.answer).where(
        _A.c.user_id == user_id, _A.c.request_key == key, _A.c.created_at > utc_now(-KEPT_SECONDS)
    )
    row = tx.execute(query).one_or_none()
    return (row[0], row[1], row[2]) if row else None


def remember(tx: Transaction, user_id: int, key: str, *, fingerprint: str, status: int, answer: str) -> None:
    """Store a response, and delete expired ones."""
    tx.execute(delete(_A).where(_A.c.created_at <= utc_now(-KEPT_SECONDS)))
    row = {"user_id": user_id, "request_key": key, "fingerprint": fingerprint, "status": status, "answer": answer}
    tx.execute(insert(_A), row)


def forget(tx: Transaction, user_id: int, key: str) -> None:
    """Delete the answer to a user's request with this key."""
    tx.execute(delete(_A).where(_A.c.user_id == user_id, _A.c.request_key == key))
