"""Sweeping: removing objects unknown to the catalog from the store.

Sweeps can run concurrently with each other and with writers; docs/design/collection.md describes the races.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from time import time

from dataset_registry.access import Access, administer
from dataset_registry.catalog import collection, file_checks
from dataset_registry.catalog.collection import CHUNK
from dataset_registry.errors import RegistryError, SweepRefused
from dataset_registry.model.maintenance import GRACE, SHARE, Collected, SweepPlan
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.records import StoredObject
from dataset_registry.operations import audit
from dataset_registry.operations.collect import delete_objects


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

    Objects with the content hash of a quarantined file are left out, unless `healing` requests them. `each` is called
    with the listed objects in batches, so that the store is listed once.

    The store is listed before the catalog is read: an object that is stored in between had a hold before its bytes.
    """
    unknown: list[StoredObject] = []
    batch: list[StoredObject] = []
    count = size = 0

    def look() -> None:
        with access.catalog.read() as tx:
            keys = collection.unknown(tx, [found.key for found in batch])
            lost = file_checks.damaged_hashes(
                tx
            )  # it may be what heals a file in quarantine: verify --repair finds out
        unknown.extend(found for found in batch if found.key in keys and (found.content_hash not in lost or healing))
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
        deleted, error = delete_objects(access, sorted(still))
        refused = refused or error
        removed += len(deleted)
        freed += sum(found.size for found in batch if found.key in set(deleted))
        progress("removing unknown objects", removed, len(planned.objects))
    if removed:
        access.catalog.write(lambda tx: audit.note(access, tx, "sweep", objects=removed))
    if refused is not None:
        raise refused
    return Collected(0, len(planned.objects) - removed, removed, freed)
