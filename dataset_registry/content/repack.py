"""Repacking: the referenced bytes of mostly unused objects are copied to a new pack, and the objects become garbage.

Only objects that are referenced by nothing but recipes can be mostly unused. Their ranges are copied, then one
transaction points the ranges at the copy. Readers with the old ranges look them up again if the object was deleted.
Objects with a hold of a writer are skipped.
"""

from collections.abc import Sequence
from functools import partial
from shutil import copyfileobj
from typing import BinaryIO

from dataset_registry.access import Access
from dataset_registry.catalog import Transaction, collection
from dataset_registry.catalog.collection import Sparse
from dataset_registry.content.pack import pack_head
from dataset_registry.content.upload import add_pack
from dataset_registry.errors import CorruptionError
from dataset_registry.store import Ranges, Spool

_TOGETHER = 512 << 20
"""Approximate size of a new pack in bytes."""


def repack(access: Access) -> int:
    """Copy the referenced bytes of mostly unused objects into new packs. Returns the number of objects to collect.

    Unreadable objects are skipped: `verify` finds and repairs them.
    """
    with access.catalog.read() as tx:
        sparse = collection.sparse(tx)
    freed = size = 0
    batch: list[Sparse] = []
    for found in sparse:
        batch.append(found)
        size += found.living
        if size >= _TOGETHER:
            freed += _repack(access, batch)
            batch, size = [], 0
    return freed + (_repack(access, batch) if batch else 0)


def _repack(access: Access, batch: Sequence[Sparse]) -> int:
    head = pack_head()
    broken: list[Sparse] = []

    def copy(target: BinaryIO) -> None:
        target.write(head)
        for found in batch:
            try:
                copyfileobj(Ranges(access.store, [(found.key, *run) for run in found.runs]), target, 1 << 20)
            except CorruptionError:
                broken.append(found)
                raise

    with Spool(access.store.scratch) as spool:
        try:
            pack = spool.write(copy)
        except CorruptionError:
            rest = [found for found in batch if found not in broken]
            return _repack(access, rest) if rest else 0
        return add_pack(access, pack, partial(_name, batch, len(head)))


def _name(batch: Sequence[Sparse], at: int, tx: Transaction, pack_id: int) -> int:
    freed = 0
    for found in batch:
        freed += collection.move_ranges(tx, found, pack_id, at)
        at += found.living
    return freed
