"""Adopting a legacy catalog: copying inline bytes and files under paths into the store, hashed and deduplicated.

Migrations change only the catalog; this step fills the store. It uses one transaction per file, so it can be stopped
and repeated at any time, and everything stays readable in the meantime.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path

from dataset_registry.access import Access, administer
from dataset_registry.catalog import Transaction, file_checks, files, legacy
from dataset_registry.content import legacy as sources
from dataset_registry.content.upload import BytesGone, SpooledContent, Upload, upload
from dataset_registry.errors import CorruptionError, NotFound, PermissionDenied, RegistryError, RetryLater
from dataset_registry.model.maintenance import Adoption, AdoptionPlan
from dataset_registry.model.manifest import build
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.schema import ComponentSchema
from dataset_registry.operations import audit
from dataset_registry.store import Spool, Spooled
from dataset_registry.tabular import formats


def plan(access: Access) -> AdoptionPlan:
    """Plan an adoption. Changes nothing."""
    with access.catalog.read() as tx:
        administer(access, tx)
        waiting = legacy.waiting(tx)
    paths = [file for file in waiting if not sources.is_inline(file)]
    unreadable = {}
    for file in (file for file in paths if not sources.is_object(file)):
        try:
            found = sources.path_of(file).stat().st_size
            if found != file.size >= 0:
                raise _other_size(file, found)
        except RegistryError as error:
            unreadable[file.id] = _failure(access, file, error)
    return AdoptionPlan(len(waiting) - len(paths), len(paths), sum(max(file.size, 0) for file in waiting), unreadable)


def adopt(
    access: Access,
    progress: Progress = silent,
    *,
    any_size: bool = False,
    give_up: Collection[int] = (),
) -> Adoption:
    """Adopt every legacy file, then give every version whose files are all adopted its digest.

    A file on the store's own file system is cloned if that is supported, or linked if it is read-only for everyone;
    other files are copied. A file whose size differs from the catalog is not adopted, unless `any_size`. Unreadable
    files are left unchanged, except those in `give_up` (their ids): these are declared lost, so that their datasets can
    be committed to and expire. Raises `NotFound` for an id that does not wait for adoption.
    """
    adopted = duplicates = size = lost = 0
    failed: dict[int, str] = {}
    differences: dict[int, str] = {}
    with access.catalog.read() as tx:
        administer(access, tx)
        waiting = legacy.waiting(tx)
        foreign = legacy.foreign_references(tx)
    if unknown := sorted(set(give_up) - {file.id for file in waiting}):
        raise NotFound(
            f"No legacy file {', '.join(map(str, unknown))} waits for adoption. List those that do with: dataset-registry adopt "
            "--dry-run",
            files=unknown,
        )
    for position, file in enumerate(waiting, 1):
        with Spool(access.store.scratch) as spool:
            try:
                spooled, other = _spool(access, spool, file)
                if spooled.size != file.size >= 0 and not any_size:
                    raise _other_size(file, spooled.size)
                duplicate = _adopt_file(access, spool, file, spooled, foreign, keep_inline=other is not None)
            except (RetryLater, PermissionDenied):
                raise
            except (OSError, RegistryError) as error:
                if file.id in give_up:
                    lost += access.catalog.write(partial(_give_up, access, file, str(error)))
                elif _is_waiting(access, file):  # another adoption may have been first
                    failed[file.id] = _failure(access, file, error)
                continue
            if duplicate is None:
                continue
            if other is not None:
                differences[file.id] = f"{_users(access, file)} (file {file.id}): {other}"
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
    if versions:
        access.catalog.analyze()
    return Adoption(adopted, duplicates, size, versions, failed, differences, lost)


def _spool(access: Access, spool: Spool, file: legacy.LegacyFile) -> tuple[Spooled, str | None]:
    """Spool a file's bytes according to its row. Also returns a description of other bytes in the row that differ."""

    def inline() -> Spooled:
        with access.catalog.read() as tx:
            return spool.copy(BytesIO(files.legacy_bytes(tx, file.id)))

    if sources.is_object(file):
        with access.store.open(str(file.path)) as stream:
            return spool.copy(stream), None
    if not sources.is_inline(file):
        spooled = spool.share(sources.path_of(file))
        if file.inline_size is None or inline().content_hash == spooled.content_hash:
            return spooled, None
        return spooled, f"adopted from {file.path}; its row also has {file.inline_size:,} other bytes, which stay there"
    spooled = inline()
    if file.path is None:
        return spooled, None
    try:
        there = sources.path_of(file)
    except RegistryError:
        return spooled, None  # what an upload was called
    if spool.share(there).content_hash == spooled.content_hash:
        return spooled, None
    return spooled, f"adopted from the catalog; {Path(str(file.path)).absolute()} has other bytes, and was left alone"


def _is_waiting(access: Access, file: legacy.LegacyFile) -> bool:
    with access.catalog.read() as tx:
        return legacy.find(tx, file.id) is not None


def _other_size(file: legacy.LegacyFile, found: int) -> CorruptionError:
    return CorruptionError(
        f"it has {found:,} bytes; the catalog says {file.size:,}. Restore it, or adopt it as it is with --any-size",
        file=file.id,
    )


def _failure(access: Access, file: legacy.LegacyFile, error: Exception) -> str:
    """The reason why a file was not adopted, with its versions and the next step."""
    where = "inline in the catalog" if sources.is_inline(file) else str(Path(str(file.path)).absolute())
    return (
        f"{_users(access, file)} (file {file.id}, {where}): {str(error).rstrip('.')}. If it is lost for good: "
        f"dataset-registry adopt --give-up {file.id}"
    )


def _users(access: Access, file: legacy.LegacyFile) -> str:
    with access.catalog.read() as tx:
        return ", ".join(file_checks.users_of(tx, file.id)[:5]) or "no version"


def _give_up(access: Access, file: legacy.LegacyFile, reason: str, tx: Transaction) -> bool:
    """Declare a file lost.

    Returns whether it was waiting. Its hash cannot be that of any content (docs/design/digests.md).
    """
    administer(access, tx)
    if not legacy.is_waiting(tx, file.id):  # another adoption could read it
        return False
    facts = f"{file.id}\n{file.path}\n{file.size}".encode(errors="surrogatepass")
    content_hash = hashlib.blake2b(facts, digest_size=32, person=b"lost/1").hexdigest()
    said = f"given up by {access.actor.name} on {datetime.now(UTC):%Y-%m-%d}: {reason}"
    legacy.give_up(tx, file.id, content_hash, said)
    audit.note(access, tx, "adopt.give-up", file=file.id, path=file.path, hash=content_hash, reason=reason)
    return True


def _adopt_file(
    access: Access,
    spool: Spool,
    file: legacy.LegacyFile,
    spooled: Spooled,
    foreign: Sequence[tuple[str, str]],
    *,
    keep_inline: bool,
) -> bool | None:
    """Store one legacy file under the write protocol. Returns whether its content was known and its row was merged,
    None if another adoption was first."""
    from dataset_registry.tabular import capture

    format = _format(file, spool.start(spooled))
    try:
        schema = capture.capture(spool.path(spooled), format)
    except RegistryError:
        format, schema = formats.BINARY, None  # it is what it is: kept as bytes, not refused
    for _ in range(4):
        with access.catalog.read() as tx:
            administer(access, tx)
            known, _ = files.look_up(tx, [spooled.content_hash])
        held = upload(access, {spooled.content_hash: SpooledContent(spooled, format, spool)}, known)
        try:
            return access.catalog.write(partial(_name, file, spooled, format, schema, held, keep_inline, foreign))
        except BytesGone:
            continue
    raise RetryLater("The bytes of a legacy file were collected repeatedly during the adoption. Try again.")


def _name(
    file: legacy.LegacyFile,
    spooled: Spooled,
    format: str,
    schema: ComponentSchema | None,
    held: Upload,
    keep_inline: bool,
    foreign: Sequence[tuple[str, str]],
    tx: Transaction,
) -> bool | None:
    """The transaction that points a legacy row at the stored bytes, or merges it with the file that has them."""
    held.release(tx)
    if not legacy.is_waiting(tx, file.id):  # another adoption was first, and reports it
        held.discard(tx)
        return None
    known = files.find(tx, spooled.content_hash)
    if known is None and spooled.content_hash not in held.stored:
        raise BytesGone
    if known is not None:
        held.discard(tx)
    kept = known.id if known else files.heal(tx, held.stored).get(spooled.content_hash)
    if kept is not None and keep_inline and file.inline_size is not None:
        raise CorruptionError(
            "another file has the same content, and this row has other bytes beside it, which would be lost. "
            "Clear its file_data or its file_path, and adopt again"
        )
    if kept is None:
        stored = held.stored[spooled.content_hash]
        drop_inline = file.inline_size is not None and not keep_inline
        legacy.adopt(tx, file.id, spooled.content_hash, spooled.size, stored, drop_inline=drop_inline)
        legacy.describe(tx, file.id, format, schema, capture_of=file.id)
        return False
    legacy.describe(tx, file.id, format, schema, capture_of=kept)
    legacy.collapse(tx, file.id, kept, foreign)
    return True


def _format(file: legacy.LegacyFile, start: bytes) -> str:
    """The format of a legacy file: by its path, its declared type (`csv`, `text/csv; charset=utf-8`) or its bytes."""
    declared = (file.format or "").partition(";")[0].strip().lower().rpartition("/")[2]
    for name in (file.path, f"file.{declared}" if declared else None):
        if name and (found := formats.format_of(None, name, start)) != formats.BINARY:
            return found
    return formats.format_of(None, None, start)


def _digest_versions(tx: Transaction) -> Iterator[int]:
    for version_id, entries in legacy.undigested(tx):
        legacy.set_manifest(tx, version_id, build(entries))
        yield version_id
