"""Putting bytes into the store under holds: what every operation does before the transaction that names them.

Steps 2 and 3 of docs/design/write-protocol.md. A hold says "I am about to name this content"; a collection leaves what is
held alone. Long transfers renew their holds, and a process that dies leaves them to run out.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from dataset_registry.access import Access
from dataset_registry.catalog import Transaction, files, holds
from dataset_registry.content.pack import PackPlan
from dataset_registry.errors import RegistryError, RetryLater, StorageError
from dataset_registry.model.reading import kind_of
from dataset_registry.model.records import StoredBytes
from dataset_registry.store import Spool, Spooled, compress, new_key
from dataset_registry.tabular import formats

_LARGE = 8 << 20
"""Files above this many bytes move few at a time: each has several pieces of its own on the way."""
_LARGE_AT_ONCE = 4
_LONG = 64 << 20
"""Bytes to move from which on the holds need a heartbeat."""


class BytesGone(Exception):
    """A hold ran out, or known content was collected before it was held: store the bytes again."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What is held for a commit, and what of it was put into the store, by content hash."""

    holds: Sequence[UUID] = ()
    stored: Mapping[str, StoredBytes] = field(default_factory=dict)
    layout: PackPlan = field(default_factory=PackPlan)

    def release(self, tx: Transaction) -> None:
        """Drop the holds, in the transaction that names what they held. Raises `BytesGone` when one ran out."""
        if self.holds and not holds.release(tx, self.holds):
            raise BytesGone

    def discard(self, tx: Transaction, hashes: Collection[str] | None = None) -> None:
        """Give up what was put, all of it or these contents: somebody else has stored the same meanwhile."""
        holds.discard(
            tx, [s.key for content_hash, s in self.stored.items() if hashes is None or content_hash in hashes]
        )


def place(access: Access, spool: Spool | None, content: Spooled, format: str, key: str) -> StoredBytes:
    """Keep spooled content under a key, compressed where that is wanted and pays. Raises `StorageError`."""
    if content.borrowed and spool and isinstance(content.source, Path):
        content_hash, content = content.content_hash, spool.copy(content.source)
        if content.content_hash != content_hash:
            raise RetryLater("A file that was trusted to be unchanged is not what it was. Commit it again.")
    wanted = access.compression if kind_of(format) in formats.COMPRESSIBLE else None
    packed = compress(spool, content) if wanted and spool else None
    given = packed or content
    kept = access.store.put(key, given.source)
    if kept != given.size:
        raise StorageError(
            f"{access.store.location} kept {kept} bytes of an object of {given.size}. Nothing was committed; try again.",
            key=key,
        )
    return StoredBytes(key, given.size, wanted if packed else None)


def put(
    access: Access,
    wanted: Mapping[str, int],
    bring: Callable[[str, str], StoredBytes],
    authorized: Callable[[Transaction], object],
    *,
    tables: Collection[str] = (),
    careful: bool = True,
    arrange: Callable[[Sequence[str]], PackPlan] = lambda missing: PackPlan(),
) -> Upload:
    """Hold every content (by hash, with its size) and every table, and put what is not stored yet: `bring` puts a content
    under a key. `authorized` raises for who may not; `arrange` says how to keep contents that are missing, where not as
    objects of their own.

    When everything is stored already nothing is held, unless `careful`: should a collection take it before the
    transaction finds it, that transaction says so (`BytesGone`), and the second, careful time still has the bytes.
    """
    with access.catalog.read() as tx:
        authorized(tx)
        known, damaged = files.look_up(tx, wanted, tables)
    missing = [content_hash for content_hash in wanted if content_hash not in known]
    if not careful and not missing:
        return Upload()
    layout = arrange([content_hash for content_hash in missing if content_hash not in damaged])
    sizes = {content_hash: size for content_hash, size in wanted.items() if content_hash not in layout.recipes}
    sizes.update((content_hash, pack.size) for content_hash, pack in layout.packs.items())
    hashes = [*sizes, *tables, *layout.objects]
    if not hashes:
        return Upload()

    keys = {content_hash: new_key(content_hash) for content_hash in sizes if content_hash not in known}

    def hold(tx: Transaction) -> list[UUID]:
        authorized(tx)
        return list(holds.hold(tx, {content_hash: keys.get(content_hash) for content_hash in hashes}).values())

    # Should the machine stop now the hold may be gone: the commit asks for it, and what nobody names a sweep takes.
    held = access.catalog.write(hold, durable=False)
    stored: dict[str, StoredBytes] = {}

    def move(content_hash: str) -> None:
        pack, key = layout.packs.get(content_hash), keys[content_hash]
        stored[content_hash] = (
            place(access, None, pack, formats.BINARY, key) if pack is not None else bring(content_hash, key)
        )

    with _kept_alive(access, held, sum(sizes[content_hash] for content_hash in keys)):
        small = [content_hash for content_hash in keys if sizes[content_hash] <= _LARGE]
        large = [content_hash for content_hash in keys if sizes[content_hash] > _LARGE]
        for hashes_now, at_once in ((small, access.store.transfers), (large, _LARGE_AT_ONCE)):
            _each(move, hashes_now, min(at_once, access.store.transfers))
    return Upload(held, stored, layout)


def hold_for_upload(access: Access, content_hash: str) -> str:
    """A fresh key for content that its sender puts into the store itself. The hold is never released: when it runs out a
    collection takes whatever is under the key, and goes on doing so for as long as the sender could still be writing."""
    key = new_key(content_hash)
    access.catalog.write(lambda tx: holds.hold(tx, {content_hash: key}))
    return key


def _each(move: Callable[[str], None], hashes: Sequence[str], at_once: int) -> None:
    if min(len(hashes), at_once) <= 1:
        for content_hash in hashes:
            move(content_hash)
        return
    with ThreadPoolExecutor(min(at_once, len(hashes)), "dataset-registry-put") as pool:
        try:
            list(pool.map(move, hashes))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _kept_alive(access: Access, held: Sequence[UUID], size: int) -> Iterator[None]:
    """Renew the holds of a long transfer until it is over."""
    if size < _LONG:
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while not over.wait(holds.HOLD_SECONDS / 4):
            with suppress(RegistryError):  # a hold that did run out is found out by the commit
                access.catalog.write(lambda tx: holds.renew(tx, held))

    heart = threading.Thread(target=beat, name="dataset-registry-holds", daemon=True)
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()
