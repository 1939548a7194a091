"""Committing: staged components become a version on a branch.

The order is that of docs/design/write-protocol.md: hold, upload, one transaction. A failure before the end of the
transaction leaves garbage for a collection, never a version with missing files.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import UUID, uuid4

from dataset_registry.access import Access, authorize, authorize_commit, readable, readable_files
from dataset_registry.catalog import Transaction, datasets, files, manifests, pointers, productions, taints, versions
from dataset_registry.catalog.productions import LinkedInput
from dataset_registry.content import inline
from dataset_registry.content.change import Change, edits_of, with_legacy_digests
from dataset_registry.content.gc_pause import gc_paused
from dataset_registry.content.pack import PackPlan, plan_packs
from dataset_registry.content.register import (
    RegisteredFiles,
    is_captured_anew,
    look_up,
    overlay_of,
    register_change,
    with_files,
    written_by,
)
from dataset_registry.content.upload import BytesGone, SpooledContent, Upload, upload
from dataset_registry.errors import CommitConflict, InputError, NotAdopted, NotFound, RetryLater
from dataset_registry.model.commits import CommitOptions, RequestKey
from dataset_registry.model.manifest import (
    ComponentKey,
    Entry,
    Manifest,
    build,
    is_nested_deeper,
    rewrite,
)
from dataset_registry.model.names import free_text, pointer_name, single_line
from dataset_registry.model.records import (
    CommitResult,
    ComponentRecord,
    DatasetRecord,
    Head,
    InputVersion,
    NewDataset,
    Provenance,
    VersionRecord,
)
from dataset_registry.operations import audit, commit_base, gates, refs, requests, rows
from dataset_registry.operations import datasets as dataset_operations
from dataset_registry.store import Spool

_MANY = 10_000
"""Components of a commit after which the database measures its tables."""
_ATTEMPTS = 8
"""How often rows are edited again if their table changes on the branch in the meantime."""


def commit(
    access: Access, spool: Spool, dataset: DatasetRecord | NewDataset, change: Change, options: CommitOptions
) -> CommitResult:
    """Commit `change`, whose content is in `spool`, to a branch, unless nothing changed.

    Raises `CommitConflict`, `BranchMoved`, `NotFound` (branch, removed component), `InputError` (nothing to commit).
    """
    pointer_name(options.branch)
    options = _checked(options)
    if not change and len(options.parents) < 2:
        raise InputError("There is nothing to commit: add, replace or remove a component first.", dataset=dataset.name)
    if any(component.staged.likely for component in change.put.values()):
        change = rows.with_renames(access, spool, dataset, change, options.base)
    if not change.edits:
        return _commit(access, spool, dataset, change, options)
    options = replace(options, edited=list(change.edits))
    for attempt in range(_ATTEMPTS):
        full = rows.applied(access, spool, dataset, change, options.base)
        try:
            return _commit(access, spool, dataset, full, options)
        except CommitConflict:
            if attempt == _ATTEMPTS - 1:
                raise
            options = replace(options, base=commit_base.head(access, dataset, options.branch, options.fallback))
    raise AssertionError("the last attempt returns or raises")


def _commit(
    access: Access, spool: Spool, dataset: DatasetRecord | NewDataset, change: Change, options: CommitOptions
) -> CommitResult:
    uuid = uuid4()
    for attempt in range(4):
        try:
            with gc_paused(len(change.put)):
                plan, stored = upload_contents(access, spool, dataset, change, options, is_careful=attempt > 0)
                done = access.catalog.write(partial(commit_in, access, dataset, change, options, uuid, plan, stored))
            if len(change.put) >= _MANY:
                access.catalog.analyze()
            return done
        except BytesGone:
            continue
        except CommitConflict:
            if options.request is None or (made := answered(access, options.request, change.put)) is None:
                raise
            return made  # the same commit, sent twice at once
        except RetryLater:
            # The connection may have broken after the commit: the version is there then, under our own id.
            if (made := _made_before(access, change, uuid)) is None:
                raise
            return made
    raise RetryLater("The bytes of this commit were collected repeatedly during the commit. Try again.")


def _checked(options: CommitOptions) -> CommitOptions:
    """Check the texts of the options."""
    if (provenance := options.provenance) is not None:
        _check_provenance(provenance)
    return options if options.message is None else replace(options, message=free_text(options.message, "message"))


def _check_provenance(provenance: Provenance) -> None:
    """Raise `InputError` for a text of a provenance with control characters, and for metadata that is nested too deeply."""
    if is_nested_deeper(dict(provenance.metadata)):
        raise InputError("The metadata of a provenance is nested too deeply. Flatten it.")
    for what in ("run_id", "step", "asset_key", "partition", "code_version"):
        if (text := getattr(provenance, what)) is not None:
            single_line(text, what)
    for read in provenance.inputs:
        for text in (read.dataset, read.ref, read.fallback, read.label, *read.components):
            single_line(text or "", "input")


def answered(access: Access, request: RequestKey, keys: Collection[ComponentKey]) -> CommitResult | None:
    """The stored result of a repeated request; `keys` are the components that it sets.

    Raises `ConflictError` if its key was used for another request, `NotFound` if the version was deleted since.
    """
    with access.catalog.read() as tx:
        return _answered(access, tx, request, keys)


def _answered(
    access: Access, tx: Transaction, request: RequestKey, keys: Collection[ComponentKey]
) -> CommitResult | None:
    found = requests.recall(access, tx, request)
    if found is None:
        return None
    answer = json.loads(found[1])
    version = versions.by_id(tx, answer["version_id"])
    if version is None:
        raise NotFound(
            f"This request created v{answer['version_number']}, which was deleted since. Commit again with a new "
            "Idempotency-Key.",
            version=answer["version_number"],
        )
    authorize(access, tx, "read", version.dataset_id)
    names = sorted({name for name, _ in keys})
    return CommitResult(
        version,
        answer["unchanged"],
        answer["new_bytes"],
        answer["total_bytes"],
        tuple(c for c in manifests.components(tx, version.id, names) if (c.name, c.index) in keys),
        {(name, at): schema for name, at, schema in manifests.schemas_of(tx, version.id, names) if (name, at) in keys},
    )


def _made_before(access: Access, change: Change, uuid: UUID) -> CommitResult | None:
    """The result of a commit with this UUID, if it was committed."""
    with access.catalog.read() as tx:
        made = versions.by_uuid(tx, uuid)
        if made is None:
            return None
        authorize(access, tx, "read", made.dataset_id)
        written = list(manifests.components(tx, made.id, sorted(change.names())))
    return _result(change, made, written, unchanged=False, new_bytes=0)


def upload_contents(
    access: Access,
    spool: Spool,
    dataset: DatasetRecord | NewDataset,
    change: Change,
    options: CommitOptions,
    *,
    is_careful: bool,
) -> tuple[PackPlan, Upload]:
    """Steps 2 and 3: hold every content, store what is not stored yet.

    If everything is stored already, or small enough for the catalog, nothing is held, unless `is_careful`: if a collection
    deletes it before the transaction, the transaction raises `BytesGone`, and the second, careful attempt stores the bytes
    again.
    """
    contents = change.contents()
    if not is_careful and len(small := inline.chosen(access, contents.files, contents.files)) == len(contents.files):
        return PackPlan(), Upload(inline=small)  # whatever is known already: the transaction finds out
    with access.catalog.read() as tx:
        authorize_commit(access, tx, dataset, options.branch)
        known, damaged = files.look_up(tx, contents.files, contents.tables)
    missing = contents.files.keys() - known.keys()
    small = inline.chosen(access, contents.files, missing - damaged)
    if not is_careful and missing == small.keys():
        return PackPlan(), Upload(inline=small)
    new = missing - damaged - small.keys()
    plan = plan_packs(access, spool, change, options.base, [h for h in contents.files if h in new])
    wanted = {
        content_hash: SpooledContent(file, contents.formats[content_hash], spool)
        for content_hash, file in contents.files.items()
        if content_hash not in plan.recipes and content_hash not in small
    }
    wanted |= {content_hash: SpooledContent(pack) for content_hash, pack in plan.packs.items()}
    held = upload(access, wanted, known, referenced=[*contents.tables, *plan.objects])
    return plan, replace(held, inline=small)


def commit_in(
    access: Access,
    target: DatasetRecord | NewDataset,
    change: Change,
    options: CommitOptions,
    uuid: UUID,
    plan: PackPlan,
    stored: Upload,
    tx: Transaction,
) -> CommitResult:
    """The transaction. The pointer row is locked first: the branch does not move until the transaction ends."""
    authorize_commit(access, tx, target, options.branch)
    user_id = access.user_id(tx)
    dataset = target
    if isinstance(dataset, NewDataset):
        dataset = dataset_operations.make(access, tx, dataset)
        authorize_commit(access, tx, dataset, options.branch)  # another commit may have created it
    start, has_branch = commit_base.start_of(tx, dataset, options.branch, options.fallback, options.parent, lock=True)
    if options.request is not None and (done := _answered(access, tx, options.request, change.put)) is not None:
        stored.release(tx)
        return done
    if start is not None and start.digest is None:
        raise NotAdopted(
            f"{dataset.name} comes from a legacy catalog, and its files are not in the store yet: it can be read, not "
            "written. Run: registry.adopt()",
            dataset=dataset.name,
        )
    if not has_branch:
        refs.check_new(tx, dataset, options.branch)
    parents = commit_base.parents_of(tx, dataset, options, start)
    asked = look_up(tx, change, plan)
    before = change
    change, after = _manifest_after(tx, dataset, change, options, start)
    asked = asked if change is before else look_up(tx, change, plan)
    stored.release(tx)
    if (
        start is not None
        and after.digest == start.digest
        and len(parents) < 2
        and not is_captured_anew(tx, change, start.id)
    ):
        result = _unchanged(tx, change, start, plan, stored, asked)
    else:
        result = _insert(access, tx, user_id, dataset, change, options, uuid, parents, after, plan, stored, asked)
    _set_pointer(tx, dataset, options.branch, start, result.version, has_branch=has_branch)
    if not result.result.unchanged:
        _record_sources(tx, result.version.id, start, options)
    if not has_branch or len(parents) > 1 or options.sources:  # else all it has is new, or the branch has it
        gates.guard(tx, dataset, options.branch, result.version.id, start.id if start and has_branch else None)
    _record(access, tx, user_id, dataset, options, start, result, has_branch=has_branch)
    return result.result


def _record_sources(
    tx: Transaction, version_id: int, start: VersionRecord | Head | None, options: CommitOptions
) -> None:
    """Record what the content of a version was made from besides its parents: a taint goes with it."""
    edited = start.id if start is not None and options.edited else None
    if edited is not None:
        taints.add_source(tx, version_id, edited, options.edited)
    for source in dict.fromkeys(options.sources):
        if source != edited:
            taints.add_source(tx, version_id, source)


@dataclass(frozen=True, slots=True)
class _Made:
    """The result of the transaction, with the digests of new schemas."""

    result: CommitResult
    new_schemas: Mapping[int, str] = field(default_factory=dict)

    @property
    def version(self) -> VersionRecord:
        return self.result.version


def _manifest_after(
    tx: Transaction, dataset: DatasetRecord, change: Change, options: CommitOptions, start: Head | None
) -> tuple[Change, Manifest]:
    """Apply the change to its base. Returns the change and the new manifest. Raises `CommitConflict`, `NotFound`."""
    where = f"{dataset.name}@{options.branch}"
    if start is None:
        return change, build(entry for entry in edits_of(change, None, where).values() if entry is not None)
    before = manifests.StoredManifest(tx, start.id)
    change = with_legacy_digests(change, before)
    edits = edits_of(change, before, where)
    if not options.overwrite and (options.base is None or options.base.id != start.id):
        _refuse_conflicts(tx, dataset, edits, options, start, before)
    return change, rewrite(before.manifest, edits, before.pages, before.entries)


def _unchanged(
    tx: Transaction, change: Change, start: Head, plan: PackPlan, stored: Upload, asked: files.LookUp
) -> _Made:
    """The existing version with the same contents."""
    if stored.stored:  # another commit stored it since, or the stored file is damaged: that one is repaired
        register_change(tx, change, plan, stored, asked)
    found = versions.by_id(tx, start.id)
    assert found is not None, "the head is locked"
    written = manifests.components(tx, start.id, sorted(change.names()))
    return _Made(_result(change, found, written, unchanged=True, new_bytes=0))


def _insert(
    access: Access,
    tx: Transaction,
    user_id: int,
    dataset: DatasetRecord,
    change: Change,
    options: CommitOptions,
    uuid: UUID,
    parents: Sequence[Head],
    after: Manifest,
    plan: PackPlan,
    stored: Upload,
    asked: files.LookUp,
) -> _Made:
    """A new version with its files, schemas and manifest."""
    registered, stored_bytes = register_change(tx, change, plan, stored, asked)
    new_bytes = _new_bytes(access, tx, change, registered, stored_bytes)  # before the version makes its files readable
    version = versions.insert_version(
        tx,
        uuid=uuid,
        dataset=dataset,
        place=datasets.next_version(tx, dataset.id),
        digest=after.digest,
        parents=parents,
        message=options.message,
        author=(user_id, access.actor.name),
        component_count=after.count,
        overlay_file_id=overlay_of(change, registered),
    )
    manifests.store(tx, version.id, with_files(after, registered))
    written = written_by(change, registered)
    return _Made(_result(change, version, written, unchanged=False, new_bytes=new_bytes), registered.new_schemas)


def _set_pointer(
    tx: Transaction,
    dataset: DatasetRecord,
    branch: str,
    start: Head | None,
    version: VersionRecord,
    *,
    has_branch: bool,
) -> None:
    """Move the branch to the version, or create it there."""
    if not has_branch:
        pointers.create(tx, dataset.id, branch, version.id, is_tag=False, base=start.id if start else None)
    elif start is None or version.id != start.id:
        pointers.move(tx, dataset.id, branch, version.id)


def _record(
    access: Access,
    tx: Transaction,
    user_id: int,
    dataset: DatasetRecord,
    options: CommitOptions,
    start: Head | None,
    made: _Made,
    *,
    has_branch: bool,
) -> None:
    """Record the production, the audit entry and the response for a repeated request."""
    result, version = made.result, made.version
    if options.provenance is not None or not result.unchanged:
        provenance = options.provenance or Provenance()
        productions.record(
            tx,
            version_id=version.id,
            branch=options.branch,
            unchanged=result.unchanged,
            user_id=user_id,
            provenance=provenance,
            inputs=_inputs(access, tx, provenance.inputs),
        )
    if not result.unchanged or not has_branch:
        audit.note(
            access,
            tx,
            "commit",
            (dataset.id, dataset.name),
            ref=options.branch,
            before=f"v{start.number}" if start and has_branch else None,
            after=f"v{version.number}",
            **({} if result.unchanged else audit.facts_of(version)),
            schemas={str(schema): digest for schema, digest in made.new_schemas.items()} or None,
            run=options.provenance.run_id if options.provenance else None,
        )
    if options.request is not None:
        answer = {
            "version_id": version.id,
            "version_number": version.number,
            "unchanged": result.unchanged,
            "new_bytes": result.new_bytes,
            "total_bytes": result.total_bytes,
        }
        requests.remember(access, tx, options.request, json.dumps(answer))


def _new_bytes(access: Access, tx: Transaction, change: Change, entered: RegisteredFiles, stored_bytes: int) -> int:
    """The `new_bytes` of a commit: the bytes that it stored. For an actor who may not read everything, the size of the
    contents that it could not read before, stored or not."""
    sizes = {entered.files[content_hash]: file.size for content_hash, file in change.contents().files.items()}
    if stored_bytes == sum(sizes.values()) or readable(access, tx) is None:
        return stored_bytes
    return sum(sizes[file_id] for file_id in sizes.keys() - readable_files(access, tx, list(sizes)))


def _inputs(access: Access, tx: Transaction, inputs: Sequence[InputVersion]) -> list[LinkedInput | None]:
    """Link the inputs to versions. An input that the actor may not read is stored as submitted, without a link."""
    if not inputs:
        return []
    among = readable(access, tx)
    return [productions.find_input(tx, read, among) for read in inputs]


def _result(
    change: Change, version: VersionRecord, written: Iterable[ComponentRecord], *, unchanged: bool, new_bytes: int
) -> CommitResult:
    return CommitResult(
        version,
        unchanged,
        new_bytes,
        _total(change),
        tuple(component for component in written if (component.name, component.index) in change.put),
        {key: component.staged.schema for key, component in change.put.items() if component.staged.schema},
    )


def _refuse_conflicts(
    tx: Transaction,
    dataset: DatasetRecord,
    edits: Mapping[ComponentKey, Entry | None],
    options: CommitOptions,
    start: Head,
    before: manifests.StoredManifest,
) -> None:
    """Raise `CommitConflict` if a component of this commit changed since its base."""
    base = None
    if options.base is not None:
        if not versions.share(tx, [options.base.id]) or versions.by_id(tx, options.base.id) is None:
            raise CommitConflict(
                f"The base of this commit, v{options.base.number} of {dataset.name}, was deleted in the meantime: "
                f"conflicts cannot be detected ({options.branch!r} is at v{start.number} now). Read the new version "
                "and commit again, or pass overwrite=True to replace its components.",
                dataset=dataset.name,
                branch=options.branch,
                head=start.number,
            )
        base = manifests.StoredManifest(tx, options.base.id)
    changed = [
        name
        for name in sorted({key[0] for key in edits})
        if list(before.named(name)) != (list(base.named(name)) if base else [])
    ]
    if changed:
        raise CommitConflict(
            f"{', '.join(map(repr, changed[:10]))} of {dataset.name} changed on {options.branch!r} since this commit began "
            f"(it is at v{start.number} now). Read the new version and commit again, or pass overwrite=True to replace it.",
            dataset=dataset.name,
            branch=options.branch,
            components=changed,
            head=start.number,
        )


def _total(change: Change) -> int:
    return sum(component.staged.size for component in change.put.values())
