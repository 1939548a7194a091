"""Rows about the registry as a whole: the id of its store, the read-only mode."""

from sqlalchemy import delete, insert, select, update

from dataset_registry.catalog.rows import Transaction
from dataset_registry.catalog.tables import registry_settings
from dataset_registry.catalog.types import utc_now

STORE_ID = "store_id"
"""The id of the catalog's store, which is also in the store itself."""
FROZEN = "frozen"
"""The read-only mode as JSON (reason, user, time); no row if the registry is writable."""

_S = registry_settings


def get(tx: Transaction, name: str) -> str | None:
    """A setting, None where it is not set."""
    return tx.execute(select(_S.c.value).where(_S.c.name == name)).scalar()


def put(tx: Transaction, name: str, value: str) -> None:
    """Set a setting."""
    if not tx.execute(update(_S).where(_S.c.name == name).values(value=value, updated_at=utc_now())).rowcount:
        tx.execute(insert(_S), {"name": name, "value": value})


def remove(tx: Transaction, name: str) -> None:
    """Unset a setting."""
    tx.execute(delete(_S).where(_S.c.name == name))
