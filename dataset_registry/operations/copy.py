"""Copying: datasets with their histories into another registry, on any other database and store.

Versions keep their numbers and digests, in an administrator's copy also their authors and dates. Only missing data is
transferred. Each version is a transaction, each batch of files another one: a stopped copy resumes. Content is hashed
during the transfer, and the digest of each manifest is recomputed.
"""

from collections.abc import Container, Sequence
from fnmatch import fnmatchcase
from functools import partial

from dataset_registry.access import (
    Access,
    authorize,
    authorize_creation,
    authorize_move,
    is_administrator,
    readable,
    refuse_hidden,
)
from dataset_registry.catalog import (
    Transaction,
    datasets,
    pointers,
    productions,
    taints,
    versions,
)
from dataset_registry.errors import InputError, InvalidName, NotFound, PermissionDenied, Tainted
from dataset_registry.model.history import ancestors, reached_from
from dataset_registry.model.maintenance import Copied
from dataset_registry.model.names import new_pointer_name
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.records import (
    DatasetRecord,
    NewDataset,
    PointerRecord,
    VersionRecord,
)
from dataset_registry.operations import audit, gates
from dataset_registry.operations import datasets as dataset_operations
from dataset_registry.operations.shipment import copy_version, refuse_another


def copy(
    source: Access,
    target: Access,
    *,
    wanted: Sequence[str] = ("*",),
    refs: Sequence[str] | None = None,
    progress: Progress = silent,
) -> Copied:
    """Copy the datasets whose names match these patterns: all their versions, branches and tags, or what `refs` (names of
    branches and tags) reach. Can be repeated at any time; only missing data is transferred.

    Raises `InputError` when both registries have the same store, `AlreadyExists` when a dataset of the target has another
    history under the same numbers, `CorruptionError` if transferred content does not match its digest.
    """
    if source.store.location == target.store.location:
        raise InputError(
            f"Both registries would store their files in {source.store.location}, and each would delete the other's as "
            "unreferenced. Give the copy a folder or a prefix of its own; on one disk its files are linked, not "
            "copied."
        )
    with source.catalog.read() as tx:
        found = [
            d
            for d in datasets.all_of(tx, "", readable(source, tx))
            if any(fnmatchcase(d.name, pattern) for pattern in wanted)
        ]
    if not found:
        raise NotFound(f"No dataset matches {', '.join(wanted)}. List datasets with registry.datasets().")
    done = Copied()
    for record in found:
        _refuse_other_history(source, target, record)
    for record in found:
        _copy_dataset(source, target, record, refs, done, progress)
    keeps_authors = _administered(target)
    if keeps_authors:
        for record in found:  # what was made from a dataset may have arrived before it
            target.catalog.write(partial(_link_inputs, record.name))
    else:
        done.notes.append(
            f"authors and dates of the source are not kept: {target.actor.name} is not an administrator of the copy, and its "
            "versions are committed by that user, now"
        )
    if refs is None and keeps_authors and _administered(source):
        with source.catalog.read() as tx:
            everywhere = pointers.registry_branches_of(tx)
        target.catalog.write(lambda tx: pointers.add_registry_branches(tx, everywhere))
    if done.versions:
        target.catalog.analyze()
    return done


def _link_inputs(name: str, tx: Transaction) -> None:
    there = datasets.find(tx, name)
    if there is not None:
        productions.link_inputs(tx, there.id)


def _administered(access: Access) -> bool:
    with access.catalog.read() as tx:
        return is_administrator(access, tx)


def _copy_dataset(
    source: Access, target: Access, record: DatasetRecord, refs: Sequence[str] | None, done: Copied, progress: Progress
) -> None:
    with source.catalog.snapshot() as tx:
        named = [p for p in pointers.all_of(tx, record.id) if refs is None or p.name in refs]
        every = versions.all_of(tx, record.id)
        history = every[::-1] if refs is None else _reached(tx, record, named)
        retired = pointers.retired_names(tx, record.id)
    numbers = {version.number for version in every}
    if refs is not None and not named:
        done.notes.append(f"{record.name} has none of {', '.join(refs)}")
        return
    if any(version.digest is None for version in history):
        done.notes.append(f"{record.name} comes from a legacy catalog and was not adopted yet: adopt it first")
        return

    def begin(tx: Transaction) -> DatasetRecord:
        there = datasets.find(tx, record.name)
        if there is None:
            authorize_creation(target, tx, record.name)
            there = dataset_operations.make(target, tx, NewDataset(record.name, record.description))
        authorize(target, tx, "admin", there.id)
        return there

    copied = target.catalog.write(begin)
    with target.catalog.read() as tx:
        there = {version.number: version for version in versions.all_of(tx, copied.id)}
    for position, version in enumerate(history, 1):
        if (same := there.get(version.number)) is not None:
            refuse_another(record, version, same)
            done.present += 1
        else:
            copy_version(source, target, copied, version, done)
        progress(f"copying {record.name}", position, len(history))
    apart = [v for v in history if v.number in there and not {*v.parents} <= {*there[v.number].parents}]
    if apart:
        target.catalog.write(partial(_link_again, copied, apart))
    with source.catalog.read() as tx:
        gated = taints.rows_of(tx, record.id)
    if any(gated.values()):
        target.catalog.write(lambda tx: taints.add_rows(tx, copied.id, gated))
    target.catalog.write(lambda tx: pointers.retire(tx, copied.id, retired))
    for pointer in named:
        note = target.catalog.write(partial(_point, target, copied, pointer, numbers))
        if note is not None:
            done.notes.append(note)
    done.datasets += 1


def _link_again(dataset: DatasetRecord, apart: Sequence[VersionRecord], tx: Transaction) -> None:
    """Give versions of the copy, whose parents had expired there and are back, these parents again."""
    for version in apart:
        there = versions.by_number(tx, dataset.id, version.number)
        parents = versions.numbered(tx, dataset.id, version.parents)
        if there is None or len(parents) < len(version.parents):
            continue
        line = reached_from(version.parents, versions.below(tx, dataset.id, max(version.parents)))
        ids = {parent.number: parent.id for parent in parents}
        if {*there.parents} <= line.keys() and versions.lock(tx, there.id) and versions.share(tx, list(ids.values())):
            versions.link(tx, there.id, [ids[number] for number in version.parents])


def _reached(tx: Transaction, record: DatasetRecord, named: Sequence[PointerRecord]) -> list[VersionRecord]:
    """The versions that these pointers reach, oldest first."""
    numbers: set[int] = set()
    for number in sorted({pointer.version_number for pointer in named}, reverse=True):
        if number not in numbers:
            numbers.update(node.number for node in ancestors(number, versions.below(tx, record.id, number)))
    return versions.numbered(tx, record.id, sorted(numbers))[::-1]


def _refuse_other_history(source: Access, target: Access, record: DatasetRecord) -> None:
    """Raise `AlreadyExists`, before anything moves, when the target has another version under a number of the source's."""
    with target.catalog.read() as tx:
        found = datasets.find(tx, record.name)
        refuse_hidden(target, tx, found)
        there = {version.number: version for version in versions.all_of(tx, found.id)} if found else {}
    if there:
        with source.catalog.read() as tx:
            for version in versions.all_of(tx, record.id):
                if version.number in there:
                    refuse_another(record, version, there[version.number])


# --- a version -----------------------------------------------------------------------------------------------------


# --- branches and tags ---------------------------------------------------------------------------------------------


def _point(
    target: Access, dataset: DatasetRecord, pointer: PointerRecord, numbers: Container[int], tx: Transaction
) -> str | None:
    """Create or move a branch, or create a tag. Returns a note if that conflicts with the target.

    `numbers` are the versions of the source: a copied version that expired there is no conflict.
    """
    pointers.lock(tx, dataset.id, pointer.name)
    version = versions.by_number(tx, dataset.id, pointer.version_number)
    if version is None or not versions.share(tx, [version.id]):
        return f"{dataset.name}@v{pointer.version_number} was deleted from the copy: {pointer.name!r} was left out"
    there = pointers.find(tx, dataset.id, pointer.name)
    if there is None:
        if pointers.retired(tx, dataset.id, pointer.name):
            return (
                f"the tag {pointer.name!r} of {dataset.name} was deleted from the copy, and its name cannot be reused"
            )
        try:
            new_pointer_name(pointer.name)
        except InvalidName as error:
            return (
                f"the {'tag' if pointer.is_tag else 'branch'} {pointer.name!r} of {dataset.name} was left out: {error}"
            )
        base = versions.by_number(tx, dataset.id, pointer.base) if pointer.base is not None else None
        if not pointer.is_tag and (note := _refused(target, tx, dataset, pointer, version.id, None)):
            return note
        pointers.create(tx, dataset.id, pointer.name, version.id, is_tag=pointer.is_tag, base=base.id if base else None)
        _note_pointer(target, tx, dataset, pointer, version)
        return None
    if there.version_id == version.id and there.is_tag == pointer.is_tag:
        return None
    line = ancestors(version.number, versions.below(tx, dataset.id, version.number))
    expired = there.version_number not in numbers and versions.is_copy(tx, there.version_id)
    behind = expired or any(node.number == there.version_number for node in line)
    if not there.is_tag and not pointer.is_tag and behind:
        if note := _refused(target, tx, dataset, pointer, version.id, there.version_id):
            return note
        pointers.move(tx, dataset.id, pointer.name, version.id)
        _note_pointer(target, tx, dataset, pointer, version)
        return None
    kind = "tag" if there.is_tag else "branch"
    return (
        f"the {kind} {pointer.name!r} of {dataset.name} is at v{there.version_number} in the copy, and was left there"
    )


def _note_pointer(
    target: Access, tx: Transaction, dataset: DatasetRecord, pointer: PointerRecord, version: VersionRecord
) -> None:
    where = (dataset.id, dataset.name)
    audit.note(target, tx, "copy", where, ref=pointer.name, after=f"v{version.number}", tag=pointer.is_tag or None)


def _refused(
    target: Access,
    tx: Transaction,
    dataset: DatasetRecord,
    pointer: PointerRecord,
    version_id: int,
    before: int | None,
) -> str | None:
    """A note that a branch is protected in the copy: the actor may not move it, or it would get tainted content."""
    try:
        authorize_move(target, tx, dataset.id, pointer.name)
        gates.guard(tx, dataset, pointer.name, version_id, before)
    except (PermissionDenied, Tainted) as error:
        return str(error)
    return None
