"""The audit log: appending entries in the transaction of each change, reading, sealing and checking."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from dataset_registry.access import Access, administer, level_on
from dataset_registry.catalog import Transaction, audit, datasets
from dataset_registry.errors import InputError
from dataset_registry.model.actors import level
from dataset_registry.model.audit import GENESIS, AuditCheck, AuditEntry, seal_digest
from dataset_registry.model.names import single_line
from dataset_registry.model.records import VersionRecord
from dataset_registry.operations import resolve
from dataset_registry.operations.replay import Replay, record_digest


def note(
    access: Access,
    tx: Transaction,
    action: str,
    dataset: tuple[int, str] | None = None,
    *,
    ref: str | None = None,
    before: object = None,
    after: object = None,
    **details: object,
) -> None:
    """Append an entry. Every operation that changes something calls this last, in its transaction.

    `dataset` is its id and name; `before` and `after` are the values of `ref`, or of what was changed.
    """
    actor = access.actor
    entry = AuditEntry(
        actor=actor.name,
        interface=actor.interface,
        action=action,
        dataset_id=dataset[0] if dataset else None,
        dataset=dataset[1] if dataset else None,
        ref=ref,
        before=None if before is None else str(before),
        after=None if after is None else str(after),
        token_id=actor.token.id if actor.token else None,
        details={name: value for name, value in details.items() if value is not None},
        at=datetime.now(UTC),
    )
    audit.append(tx, entry)


def facts_of(version: VersionRecord) -> dict[str, Any]:
    """The details of an entry about a new version: a digest over its record, and its parents (see `replay`)."""
    record = record_digest(version.uuid, version.number, version.digest, version.created_by, version.message)
    return {"record": record, "parents": list(version.parents)}


def entries(
    access: Access,
    *,
    dataset: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    before: int | None = None,
    limit: int | None = None,
) -> list[AuditEntry]:
    """Entries, the newest first; `before` is the id of one, for the page after it.

    An admin of a dataset sees its entries, an administrator all of them. Raises `PermissionDenied`, `NotFound`.
    """
    if limit is not None and limit < 0:
        raise InputError(f"A limit is 0 or more, not {limit}.", limit=limit)
    for what, text in (("actor", actor), ("action", action)):
        single_line(text or "", what)
    with access.catalog.read() as tx:
        dataset_id = None
        if dataset is not None:
            found = datasets.find(tx, dataset)
            if found is None or level_on(access, tx, found.id) < level("admin"):
                administer(access, tx)  # also for datasets that are gone
            dataset_id = found.id if found else None
            if found is None:
                raise resolve.no_dataset(access, tx, dataset)
        else:
            administer(access, tx)
        return audit.entries(tx, dataset_id=dataset_id, actor=actor, action=action, before=before, limit=limit)


def export(access: Access) -> Iterator[tuple[AuditEntry, str]]:
    """Export every entry in order with its stored hash."""
    with access.catalog.read() as tx:
        administer(access, tx)
        found = audit.page(tx)
    while (
        found
    ):  # a transaction a page: a caller who takes them slowly holds none open, and entries are only ever added
        yield from found
        with access.catalog.read() as tx:
            found = audit.page(tx, found[-1][0].id)


def seal(access: Access) -> int:
    """Seal the unsealed entries. Returns their number. Commits wait for it about as long as one commit takes.

    Raises `RetryLater` while a transaction does not end.
    """
    with access.catalog.read() as tx:
        administer(access, tx)
    return seal_now(access)


def seal_now(access: Access) -> int:
    """As `seal`, without a permission check, for maintenance."""
    upto = access.catalog.write(audit.settled)
    return access.catalog.write(lambda tx: audit.seal(tx, upto))


def check(access: Access) -> AuditCheck:
    """Recompute every hash and the chain of seals, and compare the log with the current state (see `replay`).

    Changes nothing.
    """
    problems: list[str] = []
    with access.catalog.snapshot() as tx:
        administer(access, tx)
        seals = audit.seals(tx)
        pending = list(reversed(seals))
        digest, previous, count, sealed = GENESIS, 0, 0, 0
        batch: list[tuple[int, str]] = []

        def close() -> None:
            """Compare the entries since the last seal with the next one."""
            nonlocal digest, sealed
            found = pending.pop()
            computed = seal_digest(digest, batch)
            if computed != found.digest or len(batch) != found.entries:
                missing = f", {found.entries - len(batch)} are missing" if len(batch) < found.entries else ""
                problems.append(
                    f"seal {found.id} does not fit the entries {found.first_id} to {found.last_id}: one of them, or the seal "
                    f"before it, was changed, removed or added since {found.sealed_at:%Y-%m-%d %H:%M}{missing}"
                )
            digest, sealed = found.digest, sealed + len(batch)
            batch.clear()

        replayed = Replay()
        for entry, carried in audit.hashed(tx):
            try:
                replayed.add(entry)
            except (AttributeError, KeyError, TypeError, ValueError):  # an entry that was tampered with
                problems.append(f"entry {entry.id} does not have the fields of {entry.action!r}: it was changed")
            while pending and entry.id > pending[-1].last_id:
                close()
            if entry.id < 1:
                problems.append(f"entry {entry.id} was inserted: ids begin at 1 ({entry.action} by {entry.actor})")
                continue
            if entry.hash() != carried:
                problems.append(
                    f"entry {entry.id} does not match its hash: it was changed ({entry.action} of "
                    f"{entry.dataset or 'the registry'} by {entry.actor})"
                )
            batch.append((entry.id, carried))
            count += 1
        while pending:
            close()
        for found in seals:
            if found.first_id != previous + 1:
                problems.append(f"seal {found.id} does not follow the one before it: a seal between them was removed")
            previous = found.last_id
        problems += replayed.problems(tx)
    return AuditCheck(count, sealed, digest, tuple(problems))
