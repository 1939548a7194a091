"""Binding: a catalog and its store carry the same id, so that the wrong pair is refused before anything is written or swept.

The store has the id in an object of its own beside the files (`Store.identity`), the catalog among its settings.
"""

from time import sleep
from uuid import uuid4

from dataset_registry.catalog import Transaction, files, settings
from dataset_registry.errors import RegistryFrozen, RetryLater, StorageError, StoreMismatch
from dataset_registry.operations import audit
from dataset_registry.operations.access import Access, administer

_LOOKS, _PAUSE = 20, 0.05
"""How often, and with which pause in seconds, to look for an id that another process is about to write."""


def bind(access: Access) -> None:
    """Make sure that the catalog and the store belong together; two that are new are bound to each other.

    A store that does not answer, or cannot be written to, is let pass: what needs it will say so. Raises `StoreMismatch`.
    """
    try:
        # The catalog knows the id before the store has it: whoever sees it in the store finds it in the catalog afterwards.
        theirs = access.store.identity()
        with access.catalog.read() as tx:
            ours = settings.get(tx, settings.STORE_ID)
        if theirs is None and ours is None:
            identity = uuid4().hex
            ours = access.catalog.write(lambda tx: _bound(tx, identity))
            theirs = access.store.claim(ours)
        elif theirs is None:
            theirs = _awaited(access)
            if theirs is None and ours is not None and _has_no_files(access):
                theirs = access.store.claim(ours)
    except (RetryLater, StorageError, RegistryFrozen):
        return
    if ours != theirs:
        raise _mismatch(access, ours, theirs)


def _awaited(access: Access) -> str | None:
    """The id of a store that another process may be about to claim for this catalog."""
    for _ in range(_LOOKS):
        if (theirs := access.store.identity()) is not None or _has_no_files(access):
            return theirs
        sleep(_PAUSE)
    return None


def _has_no_files(access: Access) -> bool:
    with access.catalog.read() as tx:
        return not files.page(tx, 0, 1)


def rebind(access: Access) -> str:
    """Bind the catalog to the store that it was opened with, whatever it was bound to; the id of the store.

    For an operator who knows that they belong together: after a restore, or when the store was moved without its id.
    """
    theirs = access.store.identity() or access.store.claim(uuid4().hex)

    def work(tx: Transaction) -> None:
        administer(access, tx)
        before = settings.get(tx, settings.STORE_ID)
        settings.put(tx, settings.STORE_ID, theirs)
        audit.note(access, tx, "store.bind", before=before, after=theirs)

    access.catalog.write(work)
    return theirs


def _bound(tx: Transaction, identity: str) -> str:
    found = settings.get(tx, settings.STORE_ID)  # another process may have been first
    if found is None:
        settings.put(tx, settings.STORE_ID, identity)
    return found or identity


def _mismatch(access: Access, ours: str | None, theirs: str | None) -> StoreMismatch:
    catalog, store = access.catalog.address, access.store.location
    return StoreMismatch(
        f"The catalog {catalog} and the store {store} do not belong together: the catalog's store is {ours or 'not known'}, "
        f"this one is {theirs or 'without an id'}. Open the right pair. If they do belong together (after a restore, say), "
        f"run: dataset-registry db bind --catalog '{catalog}' --store '{store}'",
        catalog_store_id=ours,
        store_id=theirs,
    )
