"""Freezing: making a registry read-only, with a reason, until an administrator ends it."""

import json
from datetime import UTC, datetime

from dataset_registry.access import Access, administer, admit
from dataset_registry.catalog import Transaction, settings
from dataset_registry.errors import InputError
from dataset_registry.model.names import free_text
from dataset_registry.model.records import Freeze
from dataset_registry.operations import audit

_LONGEST = 1000


def freeze(access: Access, reason: str) -> Freeze:
    """Refuse all writes, in every process within `FROZEN_SECONDS`. Running writes still finish.

    Raises `InputError` for an empty reason, `PermissionDenied`.
    """
    reason = free_text(reason, "reason").strip()
    if not reason or len(reason) > _LONGEST:
        raise InputError(f"Give a reason of up to {_LONGEST} characters: it is shown on every write.")
    found = Freeze(reason, access.actor.name, datetime.now(UTC))

    def work(tx: Transaction) -> None:
        administer(access, tx)
        value = {"reason": found.reason, "by": found.by, "at": found.at.isoformat()}
        settings.put(tx, settings.FROZEN, json.dumps(value, ensure_ascii=False))
        audit.note(access, tx, "freeze", after=found.reason)

    access.catalog.write(work, while_frozen=True)
    return found


def unfreeze(access: Access) -> None:
    """End the read-only mode, if it is on. Raises `PermissionDenied`."""

    def work(tx: Transaction) -> None:
        administer(access, tx)
        value = settings.get(tx, settings.FROZEN)
        if value is not None:
            settings.remove(tx, settings.FROZEN)
            audit.note(access, tx, "unfreeze", before=_freeze(value).reason)

    access.catalog.write(work, while_frozen=True)


def frozen(access: Access) -> Freeze | None:
    """The reason of the read-only mode, None if it is off."""
    with access.catalog.read() as tx:
        admit(access, tx)
        value = settings.get(tx, settings.FROZEN)
    return _freeze(value) if value is not None else None


def is_frozen(access: Access) -> bool:
    """Whether the registry is frozen, without a permission check and without the reason."""
    with access.catalog.read() as tx:
        return settings.get(tx, settings.FROZEN) is not None


def _freeze(value: str) -> Freeze:
    found = json.loads(value)
    return Freeze(found["reason"], found["by"], datetime.fromisoformat(found["at"]))
