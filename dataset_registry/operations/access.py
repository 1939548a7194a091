"""Who asks, of which catalog and which store; and whether they may."""

from dataclasses import dataclass
from typing import Literal

from dataset_registry.catalog import Catalog, Transaction, datasets
from dataset_registry.store import Compression, LocalCopies, Store

Permission = Literal["read", "write", "admin"]


@dataclass(frozen=True, slots=True)
class Access:
    """An actor before a registry: what every operation takes first.

    `copies` are local files with what the store has; `compression` is what new CSV and JSON files are compressed with.
    """

    catalog: Catalog
    store: Store
    copies: LocalCopies
    actor: str
    compression: Compression | None = None

    def user_id(self, tx: Transaction) -> int:
        """The actor's row, made on first sight."""
        known = self.catalog.user_ids
        if self.actor not in known:
            found = datasets.find_user(tx, self.actor)
            if found is None:
                return datasets.create_user(tx, self.actor)  # not remembered: this transaction may still fail
            known[self.actor] = found
        return known[self.actor]


def authorize(access: Access, tx: Transaction, permission: Permission, dataset_id: int | None = None) -> None:
    """The first line of every operation, inside its transaction. `dataset_id` is None for the registry as a whole.

    An embedded registry has one owner, who may do everything; nobody else can reach this code.
    """
