"""Collecting: deleting the rows of unreferenced files, then their bytes.

Collections can run concurrently with each other and with writers; docs/design/collection.md describes the races. A
crash at any point leaves garbage for the next collection, never a file without its bytes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial

from dataset_registry.access import Access, administer
from dataset_registry.catalog import Transaction, collection
from dataset_registry.catalog.collection import CHUNK
from dataset_registry.content import inline
from dataset_registry.content.repack import repack
from dataset_registry.errors import RegistryError, RetryLater, StorageError
from dataset_registry.model.maintenance import GRACE, Collected, CollectPlan
from dataset_registry.model.progress import Progress, silent
from dataset_registry.operations import audit

_READS_KEPT = timedelta(days=7)


def plan(access: Access, older_than: timedelta = GRACE) -> CollectPlan:
    """Plan a collection. Changes nothing."""
    with access.catalog.read() as tx:
        administer(access, tx)
        return CollectPlan(
            tuple(collection.unreferenced(tx, older_than)), collection.expired_holds(tx), collection.trash_count(tx)
        )


def apply(access: Access, planned: CollectPlan, progress: Progress = silent) -> Collected:
    """Apply a plan, skipping files that are referenced by now. Raises the store's error if a deletion fails; the
    remaining keys stay in the trash."""
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
    inline.offload(access)
    repack(access)
    if taken:
        catalog.write(lambda tx: audit.note(access, tx, "collect", files=len(taken)))
    objects = _empty_trash(access, progress)
    leftovers = access.store.tidy(GRACE.total_seconds())
    freed = sum(file.bytes for file in planned.files if file.id in taken)
    return Collected(len(taken), len(planned.files) - len(taken), objects, freed + leftovers)


def _empty_trash(access: Access, progress: Progress) -> int:
    """Delete the objects in the trash, then their rows: after a crash between the two, a key is deleted twice."""
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
        deleted, error = delete_objects(access, keys)
        refused = refused or error
        if deleted:
            emptied += access.catalog.write(partial(collection.empty_trash, keys=deleted))
        progress("deleting objects", emptied, max(total, emptied))
    if refused is not None:
        raise refused
    return emptied


def delete_objects(access: Access, keys: Sequence[str]) -> tuple[list[str], RegistryError | None]:
    """Delete objects. Returns the deleted keys and the first error of the others."""

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
