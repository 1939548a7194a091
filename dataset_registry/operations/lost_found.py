"""Rescuing: content in the store that is unknown to the catalog is added to the dataset `lost+found`.

For a catalog that was restored from an older backup: a version of `lost+found` references the content, so that it is
not collected, and can be read and committed to its dataset without being stored again.
"""

import hashlib
from collections.abc import Mapping, Sequence
from uuid import UUID, uuid4

from dataset_registry.access import Access
from dataset_registry.catalog import Transaction, file_checks, files, grants, holds
from dataset_registry.content.change import Change, staged_component
from dataset_registry.content.pack import PackPlan
from dataset_registry.content.stage import Staged
from dataset_registry.content.upload import Upload
from dataset_registry.errors import CorruptionError
from dataset_registry.model.commits import CommitOptions
from dataset_registry.model.names import LOST_AND_FOUND
from dataset_registry.model.records import DatasetRecord, StoredBytes, StoredObject
from dataset_registry.operations import audit, commit, datasets
from dataset_registry.store import Spool, Spooled, new_key
from dataset_registry.tabular import formats

_BLOCK = 1 << 20


def rescue(access: Access, objects: Sequence[StoredObject]) -> bool:
    """Add the content of unknown objects to `lost+found`, named by its hash.

    The content is copied to new objects (linked, in a folder): the originals may belong to another registry with the
    same store, and stay until a sweep. Objects whose content is already stored, or that do not match their hash, are
    skipped. Returns whether the content of all other objects is in `lost+found` now.
    """
    found: dict[str, tuple[StoredBytes, int, str]] = {}
    for candidate in objects:
        content = _content(access, candidate)
        if content is not None:
            found.setdefault(candidate.content_hash, content)
    if not found:
        return not objects

    heal(access, objects)

    change_to = datasets.find_or_new(access, LOST_AND_FOUND, None)
    with access.catalog.read() as tx:
        known, _ = files.look_up(tx, list(found))
    hold_ids, own = _copies(access, {h: stored for h, (stored, _, _) in found.items() if h not in known})

    def take(tx: Transaction) -> None:
        held = Upload(hold_ids, own)
        held.release(tx)
        known, damaged = files.look_up(tx, list(own))
        held.discard(tx, known.keys())
        new = sorted(content_hash for content_hash in own if content_hash not in known)
        if not new:
            return
        # In one transaction with the version that references them: unreferenced rows would be collected.
        files.add(tx, [files.NewFile(h, found[h][1], found[h][2], own[h]) for h in new], damaged)
        change = Change()
        for content_hash in new:
            _, size, format = found[content_hash]
            nowhere = Spooled(content_hash, size, access.store.scratch / "nowhere")  # known by now: nothing is read
            change.add(
                content_hash, 0, staged_component(Staged(content_hash, size, format, None, (nowhere,)), "data", {})
            )
        if isinstance(change_to, DatasetRecord):  # earlier grants do not extend to what is rescued now
            for grant in grants.grants(tx, resource=("dataset", change_to.id)):
                where, before = (change_to.id, change_to.name), f"{grant.permission} for {grant.user}"
                audit.note(access, tx, "revoke", where, before=before)
            grants.forget_grants(tx, "dataset", [change_to.id])
        options = CommitOptions(message=f"{len(new)} objects that were unknown to the catalog", overwrite=True)
        commit.commit_in(access, change_to, change, options, uuid4(), PackPlan(), Upload(), tx)

    access.catalog.write(take)
    return True


def heal(access: Access, objects: Sequence[StoredObject]) -> int:
    """Repair quarantined files from unknown objects with their content. Returns the number of repaired files."""
    with access.catalog.read() as tx:
        wanted = file_checks.damaged_hashes(tx)
    found = {
        o.content_hash: content[0] for o in objects if o.content_hash in wanted and (content := _content(access, o))
    }

    if not found:
        return 0
    hold_ids, own = _copies(access, found)

    def work(tx: Transaction) -> int:
        held = Upload(hold_ids, own)
        held.release(tx)
        healed = files.heal(tx, own)
        held.discard(tx, own.keys() - healed.keys())
        return len(healed)

    return access.catalog.write(work)


def _copies(access: Access, wanted: Mapping[str, StoredBytes]) -> tuple[list[UUID], dict[str, StoredBytes]]:
    """Copy objects to new keys, by content hash. Also returns the holds that protect them. Raises `StorageError`."""
    keys = {content_hash: new_key(content_hash) for content_hash in wanted}
    if not keys:
        return [], {}
    held = access.catalog.write(lambda tx: list(holds.hold(tx, keys).values()))
    for content_hash, stored in wanted.items():
        if not access.store.take(keys[content_hash], access.store, stored.key):
            with Spool(access.store.scratch) as spool, access.store.open(stored.key) as stream:
                access.store.put(keys[content_hash], spool.copy(stream).source)
    return held, {h: StoredBytes(keys[h], stored.size, stored.compression) for h, stored in wanted.items()}


def _content(access: Access, candidate: StoredObject) -> tuple[StoredBytes, int, str] | None:
    """The storage of an object's content, plain or compressed, with the content's size and format. None if it does not
    match its hash."""
    for compression in (None, "zstd"):
        hasher, size, start = hashlib.sha256(), 0, b""
        try:
            with access.copies.open(candidate.key, compression) as stream:
                while block := stream.read(_BLOCK):
                    start = start or block[:16]
                    hasher.update(block)
                    size += len(block)
        except CorruptionError:
            continue
        if hasher.hexdigest() == candidate.content_hash:
            stored = StoredBytes(candidate.key, candidate.size, "zstd" if compression else None)
            return stored, size, formats.format_of(None, None, start)
    return None
