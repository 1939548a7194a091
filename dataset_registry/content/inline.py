"""Small contents, which are stored in the catalog in the transaction of their commit: without a hold, an object or a
second sync. A collection moves them into packs when they have become many."""

import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dataset_registry.access import Access
from dataset_registry.catalog import Transaction, collection
from dataset_registry.catalog.collection import InlineContent
from dataset_registry.content.pack import pack_head
from dataset_registry.content.upload import add_pack
from dataset_registry.errors import InputError
from dataset_registry.store import Spool, Spooled

LARGEST = 16 << 10
"""Bytes of the largest content that is stored in the catalog. Up to there a commit takes as long as one of a byte."""
MOST = 64 << 10
"""Bytes that one commit stores there; of more small files it makes a pack."""
MANY = 64 << 20
"""Bytes of contents in the catalog from which on a collection moves them into packs."""
_TOGETHER = 1000
"""Contents that are moved into one pack."""
_SETTING = "DATASET_REGISTRY_INLINE_BYTES"


def largest() -> int:
    """The largest content that this process stores in the catalog: `LARGEST`, or the bytes of the environment variable
    DATASET_REGISTRY_INLINE_BYTES; 0 is none. Raises `InputError`."""
    text = os.environ.get(_SETTING) or str(LARGEST)
    if not text.isascii() or not text.isdigit() or int(text) > MOST:
        raise InputError(f"{_SETTING} is {text!r}, which is no number of bytes from 0 to {MOST}.")
    return int(text)


def chosen(access: Access, contents: Mapping[str, Spooled], missing: Collection[str]) -> dict[str, bytes]:
    """The bytes of the new contents that are stored in the catalog: the small ones, if these are few."""
    if not access.inline_bytes:
        return {}
    small = {
        content_hash: contents[content_hash]
        for content_hash in missing
        if contents[content_hash].size <= access.inline_bytes and isinstance(contents[content_hash].place, bytes | Path)
    }
    if sum(file.size for file in small.values()) > MOST:
        return {}
    return {content_hash: _bytes(file) for content_hash, file in small.items() if not file.borrowed}


def _bytes(file: Spooled) -> bytes:
    source = file.source
    return source if isinstance(source, bytes) else source.read_bytes()


def offload(access: Access) -> int:
    """Move the contents in the catalog into packs if they have become many, or if the registry stores none there any more.
    Returns their number. Contents in quarantine stay."""
    with access.catalog.read() as tx:
        size = collection.inline_size(tx)
    if not size or (access.inline_bytes and size < MANY):
        return 0
    after = moved = 0
    while True:
        with access.catalog.read() as tx:
            batch = collection.inline_after(tx, after, _TOGETHER)
        if not batch:
            return moved
        after = batch[-1].id
        moved += _offload(access, batch)


def _offload(access: Access, batch: Sequence[InlineContent]) -> int:
    head = pack_head()

    def copy(target: BinaryIO) -> None:
        target.write(b"".join([head, *(found.data for found in batch)]))

    with Spool(access.store.scratch) as spool:
        pack = spool.write(copy)
        return add_pack(access, pack, partial(_move, batch, len(head)))


def _move(batch: Sequence[InlineContent], at: int, tx: Transaction, pack_id: int) -> int:
    places = {}
    for found in batch:
        places[found.id] = (at, len(found.data))
        at += len(found.data)
    return collection.move_inline(tx, pack_id, places)
