"""Adopting a legacy catalog: bytes kept inline or under paths come into the store, hashed, deduplicated and counted.

Migrations change the catalog only. This is the step that is given the store. It takes one file a transaction, so it
can be stopped and repeated at any time, and everything stays readable meanwhile.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from dataset_registry.catalog import Transaction, files, legacy
from dataset_registry.errors import RegistryError, RetryLater
from dataset_registry.model.manifest import build
from dataset_registry.model.schema import ComponentSchema
from dataset_registry.operations import audit
from dataset_registry.operations.access import Access, administer
from dataset_registry.operations.progress import Progress, silent
from dataset_registry.operations.put import BytesGone, Held, place, put
from dataset_registry.store import Spool, Spooled
from dataset_registry.tabular import formats


@dataclass(frozen=True, slots=True)
class Adoption:
    """What an adoption did. `failed` has the files that could not be read, by id, with the reason."""

    files: int
    duplicates: int
    bytes: int
    versions: int
    failed: dict[int, str]


@dataclass(frozen=True, slots=True)
class AdoptionPlan:
    """What waits for adoption, by what the catalog says. `unreadable` are paths that are not there or may not be read."""

    inline: int
    paths: int
    bytes: int
    unreadable: dict[int, str]


def plan(access: Access) -> AdoptionPlan:
    """What an adoption would take in. Changes nothing."""
    with access.catalog.read() as tx:
        administer(access, tx)
        waiting = legacy.waiting(tx)
    paths = [file for file in waiting if file.path is not None]
    unreadable = {file.id: str(file.path) for file in paths if not os.access(str(file.path), os.R_OK)}
    return AdoptionPlan(len(waiting) - len(paths), len(paths), sum(file.size for file in waiting), unreadable)


def adopt(access: Access, progress: Progress = silent) -> Adoption:
    """Adopt every legacy file, then give every version whose files are all adopted its digest.

    A file under a path is not copied where the store can do without: on its own file system, as a clone where that has
    clones, as a link where nobody may write to the file.
    """
    adopted = duplicates = size = 0
    failed: dict[int, str] = {}
    with access.catalog.read() as tx:
        administer(access, tx)
        waiting = legacy.waiting(tx)
    for position, file in enumerate(waiting, 1):
        with Spool(access.store.scratch) as spool:
            try:
                spooled = _spool(access, spool, file)
            except (OSError, RegistryError) as error:
                failed[file.id] = str(error)
                continue
            duplicate = _adopt_file(access, spool, file, spooled)
        adopted += 1
        duplicates += duplicate
        size += 0 if duplicate else spooled.size
        progress("adopting files", position, len(waiting))

    def finish(tx: Transaction) -> int:
        versions = sum(1 for _ in _digest_versions(tx))
        if adopted or versions:
            audit.note(access, tx, "adopt", files=adopted, versions=versions)
        return versions

    versions = access.catalog.write(finish)
    return Adoption(adopted, duplicates, size, versions, failed)


def _spool(access: Access, spool: Spool, file: legacy.LegacyFile) -> Spooled:
    if file.path is not None:
        return spool.share(Path(file.path))
    with access.catalog.read() as tx:
        return spool.copy(BytesIO(files.legacy_bytes(tx, file.id)))


def _adopt_file(access: Access, spool: Spool, file: legacy.LegacyFile, spooled: Spooled) -> bool:
    """Store one legacy file under the write protocol; True when its content was known, and the row is gone."""
    from dataset_registry.tabular import capture

    format = _format(file, spool.start(spooled))
    try:
        schema = capture.capture(spool.path(spooled), format)
    except RegistryError:
        format, schema = formats.BINARY, None  # it is what it is: kept as bytes, not refused
    for _ in range(4):
        held = put(
            access,
            {spooled.content_hash: spooled.size},
            lambda _, key: place(access, spool, spooled, format, key),
            partial(administer, access),
        )
        try:
            return access.catalog.write(partial(_name, file, spooled, format, schema, held))
        except BytesGone:
            continue
    raise RetryLater("The bytes of a legacy file were collected again and again while it was adopted. Try again.")


def _name(
    file: legacy.LegacyFile,
    spooled: Spooled,
    format: str,
    schema: ComponentSchema | None,
    held: Held,
    tx: Transaction,
) -> bool:
    """The transaction that lets a legacy row name the stored bytes, or the file that has them already."""
    held.release(tx)
    if not legacy.is_waiting(tx, file.id):  # somebody else adopted it meanwhile
        held.discard(tx)
        return True
    known = files.find(tx, spooled.content_hash)
    if known is None and spooled.content_hash not in held.stored:
        raise BytesGone
    if known is not None:
        held.discard(tx)
    kept = known.id if known else files.heal(tx, held.stored).get(spooled.content_hash)
    if kept is None:
        legacy.adopt(tx, file.id, spooled.content_hash, spooled.size, held.stored[spooled.content_hash])
        legacy.describe(tx, file.id, format, schema, capture_of=file.id)
        return False
    legacy.describe(tx, file.id, format, schema, capture_of=kept)
    legacy.collapse(tx, file.id, kept)
    return True


def _format(file: legacy.LegacyFile, start: bytes) -> str:
    """What a legacy file is: by its path, else by its declared type (`csv`, `text/csv; charset=utf-8`), else its bytes."""
    declared = (file.format or "").partition(";")[0].strip().lower().rpartition("/")[2]
    for name in (file.path, f"file.{declared}" if declared else None):
        if name and (found := formats.format_of(None, name, start)) != formats.BINARY:
            return found
    return formats.format_of(None, None, start)


def _digest_versions(tx: Transaction) -> Iterator[int]:
    for version_id, entries in legacy.undigested(tx):
        legacy.set_manifest(tx, version_id, build(entries))
        yield version_id
