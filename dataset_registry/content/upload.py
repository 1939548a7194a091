"""Uploads: bytes are stored under holds before the transaction that references them.

Steps 2 and 3 of docs/design/write-protocol.md. A hold protects a content that is about to be referenced from
collection. Long transfers renew their holds; those of a dead process expire.
"""

import threading
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID

from dataset_registry.access import Access
from dataset_registry.catalog import Transaction, files, holds
from dataset_registry.errors import RegistryError, RetryLater, StorageError
from dataset_registry.model.reading import kind_of
from dataset_registry.model.records import StoredBytes
from dataset_registry.store import Spool, Spooled, compress, new_key
from dataset_registry.tabular import formats

_LARGE = 8 << 20
"""Files above this many bytes are transferred few at a time, each with several concurrent parts."""
_LARGE_AT_ONCE = 4
_LONG = 64 << 20
"""Transfers of at least this many bytes renew their holds."""


class BytesGone(Exception):
    """A hold expired, or known content was collected before it was held. The bytes must be stored again."""


class Content(Protocol):
    """Bytes that can be stored."""

    @property
    def size(self) -> int:
        """Bytes."""

    def store(self, access: Access, key: str) -> StoredBytes:
        """Store them as the object of a key. Raises `StorageError`."""


@dataclass(frozen=True, slots=True)
class SpooledContent:
    """A spooled file of a format.

    With a `spool`, it is compressed if the registry compresses this format and it saves enough.
    """

    spooled: Spooled
    format: str = formats.BINARY
    spool: Spool | None = None

    @property
    def size(self) -> int:
        return self.spooled.size

    def store(self, access: Access, key: str) -> StoredBytes:
        content, spool = self.spooled, self.spool
        if content.borrowed and spool and isinstance(content.source, Path):
            content = spool.copy(content.source)
            if content.content_hash != self.spooled.content_hash:
                raise RetryLater("A file changed while it was committed. Commit it again.")
        wanted = access.compression if kind_of(self.format) in formats.COMPRESSIBLE else None
        packed = compress(spool, content) if wanted and spool else None
        given = packed or content
        written = access.store.put(key, given.source)
        if written != given.size:
            raise StorageError(
                f"{access.store.location} stored {written} bytes of an object of {given.size}. Nothing was committed; try again.",
                key=key,
            )
        return StoredBytes(key, given.size, wanted if packed else None)


@dataclass(frozen=True, slots=True)
class Upload:
    """The holds of a transaction, the objects that were stored for it, by content hash, and the bytes that it stores itself."""

    holds: Sequence[UUID] = ()
    stored: Mapping[str, StoredBytes] = field(default_factory=dict)
    inline: Mapping[str, bytes] = field(default_factory=dict)

    def release(self, tx: Transaction) -> None:
        """Release the holds, in the transaction that references their contents. Raises `BytesGone` if one expired."""
        if self.holds and not holds.release(tx, self.holds):
            raise BytesGone

    def discard(self, tx: Transaction, hashes: Collection[str] | None = None) -> None:
        """Discard what was stored, all of it or these contents: another commit has stored the same."""
        holds.discard(
            tx, [s.key for content_hash, s in self.stored.items() if hashes is None or content_hash in hashes]
        )


def upload(
    access: Access, contents: Mapping[str, Content], known: Container[str] = (), *, referenced: Iterable[str] = ()
) -> Upload:
    """Hold contents (by hash) and store those that are not `known` to be stored; hold what is `referenced` beside them."""
    keys = {content_hash: new_key(content_hash) for content_hash in contents if content_hash not in known}
    wanted = {content_hash: keys.get(content_hash) for content_hash in (*contents, *referenced)}
    if not wanted:
        return Upload()
    # After a crash of the machine the hold may be gone: the commit checks it, and a sweep deletes what is unreferenced.
    held = access.catalog.write(lambda tx: list(holds.hold(tx, wanted).values()), durable=False)
    stored: dict[str, StoredBytes] = {}

    def store(content_hash: str) -> None:
        stored[content_hash] = contents[content_hash].store(access, keys[content_hash])

    sizes = {content_hash: contents[content_hash].size for content_hash in keys}
    with _kept_alive(access, held, sum(sizes.values())):
        small = [content_hash for content_hash, size in sizes.items() if size <= _LARGE]
        large = [content_hash for content_hash, size in sizes.items() if size > _LARGE]
        for hashes, at_once in ((small, access.store.transfers), (large, _LARGE_AT_ONCE)):
            _each(store, hashes, min(at_once, access.store.transfers))
    return Upload(held, stored)


def add_pack(access: Access, pack: Spooled, name: Callable[[Transaction, int], int]) -> int:
    """Store a spooled pack. The transaction that inserts its file calls `name` with the file's id, which points at it whatever
    the pack is for. Returns its result, 0 if the hold expired: the next collection tries again."""
    held = upload(access, {pack.content_hash: SpooledContent(pack)})

    def work(tx: Transaction) -> int:
        held.release(tx)
        stored = held.stored[pack.content_hash]
        new = files.NewFile(pack.content_hash, pack.size, formats.BINARY, stored, form="pack")
        return name(tx, files.add(tx, [new])[pack.content_hash])

    try:
        return access.catalog.write(work)
    except BytesGone:
        return 0


def hold_for_upload(access: Access, content_hash: str) -> str:
    """A new key for a direct upload. Its hold is never released: after it expires, collections delete the object,
    repeatedly for as long as the sender could still write it."""
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
            with suppress(RegistryError):  # the commit detects an expired hold
                access.catalog.write(lambda tx: holds.renew(tx, held))

    heart = threading.Thread(target=beat, name="dataset-registry-holds", daemon=True)
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()
