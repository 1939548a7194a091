"""Rows about the registry itself: which store it has, whether it is frozen."""

from sqlalchemy import delete, insert, select, update

from dataset_registry.catalog.rows import Transaction
from dataset_registry.catalog.tables import registry_settings
from dataset_registry.catalog.types import utc_now

STORE_ID = "store_id"
"""The id of the store that the catalog's files are in, as the store itself carries it."""
FROZEN = "frozen"
"""Why nothing may be written, with who said so and when, as JSON; no such row where everything may."""

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
