"""Verifying: recomputing every digest, checking every object, on request reading every byte.

A live registry is verified without blocking writers: the catalog is read in one snapshot, the store is listed before
the catalog is queried about the listed objects, and objects that seem missing are checked again.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from dataset_registry.access import Access, administer
from dataset_registry.catalog import Transaction, checks, collection, file_checks, files
from dataset_registry.catalog.checks import Problem
from dataset_registry.content.source import local_file, opened
from dataset_registry.errors import CorruptionError, InputError, RegistryError
from dataset_registry.model.maintenance import GRACE
from dataset_registry.model.parts import TABLE
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.records import FileRecord, StoredObject
from dataset_registry.model.schema import ColumnStatistics, ComponentSchema, is_current
from dataset_registry.model.verification import Finding, Verification
from dataset_registry.operations import audit
from dataset_registry.operations.repair import repair as repair_findings
from dataset_registry.operations.repair import stored_now
from dataset_registry.operations.sweep import plan_sweep
from dataset_registry.store.checked import content_digest
from dataset_registry.tabular import formats

_BATCH = 5000
_BLOCK = 1 << 20
_CAPTURED_AT_ONCE = 200


@dataclass(slots=True)
class _Store:
    """The results of the pass over the store."""

    findings: list[Finding] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    files: int = 0
    bytes_read: int = 0


def parse_share(text: str) -> tuple[int, int]:
    """A share like `2/7`: the second of seven. Raises `InputError`."""
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit()):
        raise InputError(f"Invalid share {text!r}: expected one like 2/7, the second of seven.")
    return _checked_share(int(number), int(of))


def _checked_share(number: int, of: int) -> tuple[int, int]:
    if not 1 <= number <= of:
        raise InputError(f"Invalid share {number}/{of}: expected one like 2/7, the second of seven.")
    return number, of


def verify(
    access: Access,
    *,
    share: tuple[int, int] | None = None,
    repair: bool = False,
    older_than: timedelta = GRACE,
    progress: Progress = silent,
) -> Verification:
    """Verify the catalog and the store. `share` (n, t) reads the bytes of every t-th file from the n-th on; (1, 1)
    reads all.

    Unknown objects count if they are older than `older_than`. `repair` applies the safe repairs, and quarantines files
    whose bytes are missing or wrong.
    """
    share = _checked_share(*share) if share is not None else None
    with access.catalog.read() as tx:
        administer(access, tx)
    findings = [Finding(p.kind, p.what, rows=p.rows) for p in _catalog_problems(access, progress)]
    if any(finding.kind == "database" for finding in findings):
        return Verification(tuple(findings), 0, 0)  # what cannot be read says nothing of the store
    store = _look_at_store(access, older_than, progress)
    _look_for_missing(access, store, progress)
    _look_for_forged(access, store)
    if share is not None:
        _read_content(access, share, store, progress)
        _capture_again(access, share, store, progress)
    with access.catalog.read() as tx:
        waiting = file_checks.waiting_count(tx)
    found = [*findings, *store.findings, *_leftovers(access)]
    if repair:
        found = repair_findings(access, found)
        repaired = sum(finding.repaired for finding in found)
        access.catalog.write(lambda tx: audit.note(access, tx, "repair", findings=len(found), repaired=repaired))
    return Verification(tuple(found), store.files, store.bytes_read, waiting)


def _catalog_problems(access: Access, progress: Progress) -> list[Problem]:
    parts: Sequence[tuple[str, Callable[[Transaction], Iterator[Problem]]]] = (
        ("database", checks.database),
        ("keys and triggers", checks.structure_of),
        ("schemas", checks.schema_digests),
        ("pages", checks.pages),
        ("index pages", checks.index_pages),
        ("versions", checks.versions),
        ("history and pointers", checks.graph),
        ("tables", checks.tables),
        ("recipes", checks.recipes),
        ("forms", checks.forms),
    )
    found: list[Problem] = []
    try:
        with access.catalog.snapshot() as tx:
            for done, (what, look) in enumerate(parts):
                progress(f"checking {what}", done, len(parts))
                found += look(tx)
    except CorruptionError as error:  # what the database itself cannot read; nothing more can be said of the rest
        found.append(Problem("database", str(error)))
    return found


def _look_at_store(access: Access, older_than: timedelta, progress: Progress) -> _Store:
    """List the store once, and check the sizes and the unknown objects with the catalog."""
    store = _Store()

    def look(batch: Sequence[StoredObject]) -> None:
        sizes = {found.key: found.size for found in batch}
        with access.catalog.read() as tx:
            known = file_checks.by_keys(tx, list(sizes))
        for key, file in known.items():
            store.seen.add(file.id)
            if file.damage is None and sizes[key] != file.stored_size:
                what = f"{_called(access, file)} has {sizes[key]} bytes instead of {file.stored_size}"
                store.findings.append(Finding("size", what, file=file))

    plan = plan_sweep(access, older_than, progress=progress, healing=True, each=look)
    if plan.suspicion is not None:
        with access.catalog.read() as tx:
            known = files.find_many(tx, sorted({found.content_hash for found in plan.objects}))
        kind, what = "unknown-objects", plan.suspicion
        if all(found.content_hash in known for found in plan.objects):
            kind, what = "surplus-objects", f"{what}; it has the content of all of them under keys of its own"
        store.findings.append(Finding(kind, what, objects=plan.objects))
    return store


def _look_for_missing(access: Access, store: _Store, progress: Progress) -> None:
    """Check every object that was not listed, and report quarantined files."""
    for batch in _all_files(access):
        store.files += len(batch)
        progress("looking for objects", store.files, None)
        for file in batch:
            if file.damage is not None:
                what = f"{_called(access, file)} is in quarantine: {file.damage}"
                store.findings.append(Finding("quarantined", what, file=file))
            elif (
                file.id not in store.seen
                and file.object_key is not None
                and access.store.size(file.object_key) is None
                and _is_there(access, file)
            ):
                store.findings.append(Finding("missing", f"{_called(access, file)} has lost its object", file=file))


def _look_for_forged(access: Access, store: _Store) -> None:
    """Find table components whose file is not Parquet, which a forged list of parts leaves behind."""
    with access.catalog.read() as tx:
        suspects = file_checks.posing_as(tx, TABLE)
    for file in suspects:
        with suppress(RegistryError, OSError), opened(access, file) as stream:  # unreadable bytes are found elsewhere
            if formats.format_of(None, None, stream.read(4)) != TABLE:
                what = f"{_called(access, file)} is read as a table, but is not a Parquet file"
                store.findings.append(Finding("form", what))


def _read_content(access: Access, share: tuple[int, int], store: _Store, progress: Progress) -> None:
    number, of = share
    bad = {finding.file.id for finding in store.findings if finding.file is not None}
    with access.catalog.read() as tx:
        total = file_checks.stored_count(tx)
    done = 0
    with ThreadPoolExecutor(max(2, access.store.transfers // 2), "dataset-registry-verify") as pool:
        for batch in _all_files(access):
            wanted = [f for f in batch if f.id not in bad and int((f.content_hash or "0")[:8], 16) % of == number - 1]
            for size, finding in pool.map(partial(_hash, access), wanted):
                store.bytes_read += size
                if finding is not None:
                    store.findings.append(finding)
            done += len(batch)
            progress("reading content", done, max(total, done))


def _capture_again(access: Access, share: tuple[int, int], store: _Store, progress: Progress) -> None:
    """Capture files again and compare: nothing else detects edited schemas and statistics."""
    number, of = share
    bad = {finding.file.id for finding in store.findings if finding.file is not None}
    after, done = 0, 0
    while True:
        with access.catalog.read() as tx:
            batch = file_checks.captured_after(tx, after, _CAPTURED_AT_ONCE)
        if not batch:
            return
        for file, known in batch:
            chosen = int((file.content_hash or "0")[:8], 16) % of == number - 1
            if chosen and file.id not in bad and is_current(known) and not _is_as_captured(access, file, known, bad):
                what = f"{_called(access, file)} has other columns or statistics than its capture"
                store.findings.append(Finding("capture", what))
        after, done = batch[-1][0].id, done + len(batch)
        progress("capturing again", done, None)


def _is_as_captured(access: Access, file: FileRecord, known: ComponentSchema, bad: Set[int]) -> bool:
    """Whether a file has the columns and statistics that were captured of it, as far as it can be read; a table with a `bad` part
    is not judged."""
    from dataset_registry.tabular import capture, column_digests, isolated, parquet

    try:
        with access.catalog.read() as tx:
            stored = files.objects_of(tx, [file.id]).get(file.id, [])
        paths = [local_file(access, part) for part in stored]
        if not paths or any(part.id in bad for part in stored):
            return True
        if file.form == "parts":
            read_table = isolated.capture_table if access.is_guarded else parquet.capture_table
            found: ComponentSchema | None = read_table(paths, known.tables[0].user_types)[0]
        else:
            read = isolated.capture if access.is_guarded else capture.capture
            found = read(paths[0], known.format)
        digests = {name: facts.digest for name, facts in known.tables[0].statistics.items() if facts.digest is not None}
        now = (
            column_digests.digests_of_stream(parquet.scan([*map(parquet.Source, paths)]), list(digests))
            if digests
            else {}
        )
    except (RegistryError, OSError):
        return True  # what is wrong with its bytes was found when they were hashed
    return found is not None and _measured(found) == _measured(known) and now == digests


def _measured(schema: ComponentSchema) -> list[object]:
    """The parts of a schema that follow from the footer of the file."""
    nothing = ColumnStatistics()
    return [
        (t.name, [c.to_json() for c in t.columns], t.rows, {n: s for n, s in t.statistics.items() if s != nothing})
        for t in schema.tables
    ]


def _hash(access: Access, file: FileRecord) -> tuple[int, Finding | None]:
    """Read a whole file. Returns its size and a finding, if any."""
    try:
        digest, size = content_digest(opened(access, file))
        if digest != file.content_hash:  # once more: the bytes may have changed on the way here
            digest, size = content_digest(opened(access, file))
    except CorruptionError as error:
        if not _is_there(access, file):
            return 0, None
        return 0, Finding("content", f"{_called(access, file)} cannot be read: {error}", file=file)
    except (RegistryError, OSError) as error:
        if not _is_there(access, file):
            return 0, None
        return 0, Finding("unreadable", f"{_called(access, file)} could not be read: {error}", file=file)
    if digest != file.content_hash and _is_there(access, file):
        return size, Finding("content", f"{_called(access, file)} has other content, SHA-256 {digest[:12]}…", file=file)
    return size, None


def _all_files(access: Access) -> Iterator[list[FileRecord]]:
    after = 0
    while True:
        with access.catalog.read() as tx:
            batch = file_checks.stored_after(tx, after, _BATCH)
        if not batch:
            return
        yield batch
        after = batch[-1].id


def _is_there(access: Access, file: FileRecord) -> bool:
    """Whether the catalog still has the file at this key: it may have been collected or repaired in the meantime."""
    now = stored_now(access, file)
    return now is not None and (now.object_key, now.extents) == (file.object_key, file.extents)


def _called(access: Access, file: FileRecord) -> str:
    with access.catalog.read() as tx:
        users = file_checks.users_of(tx, file.id)
    return f"the file {(file.content_hash or '?')[:12]} ({', '.join(users) or 'of no version'})"


def _leftovers(access: Access) -> list[Finding]:
    with access.catalog.read() as tx:
        holds, trashed = collection.expired_holds(tx), collection.trash_count(tx)
    found = []
    if holds:
        found.append(Finding("expired-hold", f"{holds} holds of dead writers"))
    if trashed:
        found.append(Finding("trash", f"{trashed} objects whose bytes are still to be deleted"))
    return found


# --- repairing -----------------------------------------------------------------------------------------------------
