"""Binding: a catalog and its store have the same id, so that a mismatch is refused before anything is written or swept.

The store has the id in an object of its own beside the files (`Store.identity`), the catalog among its settings.
"""

from functools import partial
from uuid import uuid4

from dataset_registry.access import Access, administer
from dataset_registry.catalog import Transaction, file_checks, settings
from dataset_registry.errors import RegistryFrozen, RetryLater, StorageError, StoreMismatch
from dataset_registry.operations import audit

_PENDING = "pending:"
"""The prefix of an id that the catalog has chosen but that the store may not have yet."""
_SAMPLES = 5
"""Number of files to check, since some may be damaged."""


def bind(access: Access) -> None:
    """Make sure that the catalog and the store belong together; a new pair is bound.

    A store that does not answer, or is read-only, is accepted: later operations will fail. Raises `StoreMismatch`.
    """
    try:
        # The catalog chooses the id before the store has it, as pending: a process that finds it in the store finds
        # it in the catalog afterwards, and after a crash in between the next one continues from there.
        theirs = access.store.identity()
        with access.catalog.read() as tx:
            ours = settings.get(tx, settings.STORE_ID)
        if theirs is None and ours is None:
            ours = access.catalog.write(_choose)
        if theirs is None and ours is not None and not ours.startswith(_PENDING):
            theirs = access.store.identity()  # another process may have bound them since the first look
        if ours is not None and ours.startswith(_PENDING):
            ours = ours.removeprefix(_PENDING)
            theirs = theirs or access.store.claim(ours)
            if ours == theirs:
                access.catalog.write(partial(_set, identity=ours))
        elif theirs is None and _has_our_files(access):  # the store was restored without its id
            theirs = access.store.claim(str(ours))
    except (RetryLater, StorageError, RegistryFrozen):
        return
    if ours != theirs:
        raise _mismatch(access, ours, theirs)


def _has_our_files(access: Access) -> bool:
    """Whether a file of the catalog is in the store. Keys are partly random, so no other registry has them."""
    with access.catalog.read() as tx:
        keys = [file.object_key for file in file_checks.stored_after(tx, 0, _SAMPLES) if file.object_key is not None]
    return any(access.store.size(key) is not None for key in keys)


def _choose(tx: Transaction) -> str:
    found = settings.get(tx, settings.STORE_ID)  # another process may have been first
    if found is None:
        found = _PENDING + uuid4().hex
        settings.put(tx, settings.STORE_ID, found)
    return found


def _set(tx: Transaction, identity: str) -> str:
    settings.put(tx, settings.STORE_ID, identity)
    return identity


def rebind(access: Access) -> str:
    """Bind the catalog to the store that it was opened with, replacing an earlier binding. Returns the id of the store.

    For operators, after a restore or when the store was moved without its id.
    """
    theirs = access.store.identity() or access.store.claim(uuid4().hex)

    def work(tx: Transaction) -> None:
        administer(access, tx)
        before = settings.get(tx, settings.STORE_ID)
        settings.put(tx, settings.STORE_ID, theirs)
        audit.note(access, tx, "store.bind", before=before, after=theirs)

    access.catalog.write(work)
    return theirs


def _mismatch(access: Access, ours: str | None, theirs: str | None) -> StoreMismatch:
    catalog, store = access.catalog.address, access.store.location
    unknown = (
        ""
        if ours
        else " Another catalog may have files in it: two cannot share a store, each would delete the other's."
    )
    return StoreMismatch(
        f"The catalog {catalog} and the store {store} do not belong together: the catalog's store is {ours or 'not known'}, "
        f"this one is {theirs or 'without an id'}.{unknown} Open the right pair. If they do belong together (after a restore, "
        f"say), run: dataset-registry db bind --catalog '{catalog}' --store '{store}'",
        catalog_store_id=ours,
        store_id=theirs,
    )
