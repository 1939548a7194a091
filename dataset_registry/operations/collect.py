"""Collecting: unreferenced files lose their rows, then their bytes. Sweeping: objects that the catalog never heard of.

Any number of either may run at once, beside any number of writers; docs/design/collection.md has the races and what
closes each. A crash anywhere leaves something for the next one to do, never a file without its bytes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from time import time

from dataset_registry.access import Access, administer
from dataset_registry.catalog import Transaction, collection, files
from dataset_registry.catalog.collection import CHUNK
from dataset_registry.content.repack import repack
from dataset_registry.errors import RegistryError, RetryLater, StorageError, SweepRefused
from dataset_registry.model.maintenance import GRACE, SHARE, Collected, CollectPlan, SweepPlan
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.records import StoredObject
from dataset_registry.operations import audit

_READS_KEPT = timedelta(days=7)


def plan(access: Access, older_than: timedelta = GRACE) -> CollectPlan:
    """What a collection would take now. Changes nothing."""
    with access.catalog.read() as tx:
        administer(access, tx)
        return CollectPlan(
            tuple(collection.unreferenced(tx, older_than)), collection.expired_holds(tx), collection.trash_count(tx)
        )


def apply(access: Access, planned: CollectPlan, progress: Progress = silent) -> Collected:
    """Take what a plan names, each file only if nothing names it still. Raises the store's error when it refuses to delete:
    what is left waits in the trash."""
    try:
        return _apply(access, planned, progress)
    except StorageError:
        if not access.catalog.give_spare():  # on a full disk deleting takes room before it makes any
            raise
        return _apply(access, planned, progress)
    finally:
        access.catalog.keep_spare()


def _apply(access: Access, planned: CollectPlan, progress: Progress) -> Collected:
    catalog = access.catalog

    def begin(tx: Transaction) -> None:
        administer(access, tx)
        collection.drop_expired_holds(tx)
        collection.drop_expired_leases(tx)
        collection.forget_reads(tx, _READS_KEPT)

    catalog.write(begin)
    with suppress(RetryLater):  # the next one seals
        audit.seal_now(access)
    taken: set[int] = set()
    waves: dict[str, list[int]] = {form: [] for form in (*collection.WAVES, "whole")}
    for file in planned.files:
        waves[file.form if file.form in waves else "whole"].append(file.id)
    for ids in waves.values():  # while a table is there it names its parts, and a recipe its objects
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            taken.update(catalog.write(partial(collection.take, ids=chunk)))
            progress("collecting files", len(taken), len(planned.files))
    catalog.write(collection.drop_unused_schemas)
    repack(access)
    if taken:
        catalog.write(lambda tx: audit.note(access, tx, "collect", files=len(taken)))
    objects = _empty_trash(access, progress)
    leftovers = access.store.tidy(GRACE.total_seconds())
    freed = sum(file.bytes for file in planned.files if file.id in taken)
    return Collected(len(taken), len(planned.files) - len(taken), objects, freed + leftovers)


def _empty_trash(access: Access, progress: Progress) -> int:
    """Delete the bytes of what is in the trash, then forget it: after a crash between the two, a key is deleted twice."""
    emptied, after = 0, ""
    with access.catalog.read() as tx:
        total = collection.trash_count(tx)
    refused: RegistryError | None = None
    while True:
        with access.catalog.read() as tx:
            keys = collection.trashed(tx, after)
        if not keys:
            break
        after = keys[-1]
        deleted, error = _delete(access, keys)
        refused = refused or error
        if deleted:
            emptied += access.catalog.write(partial(collection.empty_trash, keys=deleted))
        progress("deleting objects", emptied, max(total, emptied))
    if refused is not None:
        raise refused
    return emptied


def _delete(access: Access, keys: Sequence[str]) -> tuple[list[str], RegistryError | None]:
    """Delete objects; those that are gone, and the first error of the others."""

    def delete(key: str) -> RegistryError | None:
        try:
            access.store.delete(key)
        except RegistryError as error:
            return error
        return None

    with ThreadPoolExecutor(access.store.transfers, "dataset-registry-delete") as pool:
        errors = list(pool.map(delete, keys))
    gone = [key for key, error in zip(keys, errors, strict=True) if error is None]
    return gone, next((error for error in errors if error is not None), None)


# --- sweeping ------------------------------------------------------------------------------------------------------


def plan_sweep(
    access: Access,
    older_than: timedelta = GRACE,
    max_share: float = SHARE,
    progress: Progress = silent,
    *,
    healing: bool = False,
    each: Callable[[Sequence[StoredObject]], object] | None = None,
) -> SweepPlan:
    """Which objects a sweep would remove: those unknown to the catalog and older than this. Changes nothing.

    Objects named after the content of a file in quarantine are left out, unless it is `healing` that they are wanted for.
    `each` is called with what was listed, some objects at a time, so that the store is listed once.

    The store is listed first and the catalog read after it: whatever was put in the meantime had a hold before it had bytes.
    """
    unknown: list[StoredObject] = []
    batch: list[StoredObject] = []
    count = size = 0

    def look() -> None:
        with access.catalog.read() as tx:
            keys = collection.unknown(tx, [found.key for found in batch])
            lost = files.damaged_hashes(tx)  # it may be what heals a file in quarantine: verify --repair finds out
        unknown.extend(found for found in batch if found.key in keys and (found.key[:64] not in lost or healing))
        if each is not None:
            each(batch)
        batch.clear()
        progress("comparing objects", count, None)

    with access.catalog.read() as tx:
        administer(access, tx)
    for found in access.store.list():
        count, size = count + 1, size + found.size
        batch.append(found)
        if len(batch) == 10_000:
            look()
    look()
    before = time() - older_than.total_seconds()
    dead = tuple(found for found in unknown if found.modified <= before)
    if dead:  # a collection may have taken some between the listing and our question
        there = {found.key for found in access.store.list()}
        dead = tuple(found for found in dead if found.key in there)
    share = max(len(dead) / max(count, 1), sum(found.size for found in dead) / max(size, 1))
    what = f"{len(dead)} of {count} objects ({share:.1%} of the store) are unknown to the catalog"
    return SweepPlan(dead, count, size, what if share > max_share else None)


def apply_sweep(access: Access, planned: SweepPlan, progress: Progress = silent) -> Collected:
    """Remove the objects of a plan that the catalog still does not know. Raises `SweepRefused` for a suspicious plan."""
    with access.catalog.read() as tx:
        administer(access, tx)
    if planned.suspicion is not None:
        raise SweepRefused(
            f"Nothing was swept: {planned.suspicion}. That is what a catalog restored from an older backup looks like, or a "
            "store that belongs to another catalog. `dataset-registry verify --repair` moves their content to lost+found "
            "(docs/operations.md); to delete them, sweep again with --max-share 1.",
            objects=len(planned.objects),
            bytes=planned.bytes,
        )
    removed = freed = 0
    refused: RegistryError | None = None
    for start in range(0, len(planned.objects), CHUNK):
        batch = planned.objects[start : start + CHUNK]
        with access.catalog.read() as tx:
            administer(access, tx)
            still = collection.unknown(tx, [found.key for found in batch])
        deleted, error = _delete(access, sorted(still))
        refused = refused or error
        removed += len(deleted)
        freed += sum(found.size for found in batch if found.key in set(deleted))
        progress("removing unknown objects", removed, len(planned.objects))
    if removed:
        access.catalog.write(lambda tx: audit.note(access, tx, "sweep", objects=removed))
    if refused is not None:
        raise refused
    return Collected(0, len(planned.objects) - removed, removed, freed)
