"""The version that a commit starts from: the head of its branch, a parent, or the head of the fallback."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataset_registry.access import Access, authorize, authorize_commit
from dataset_registry.catalog import Transaction, datasets, manifests, pointers, versions
from dataset_registry.errors import BranchMoved, CommitConflict, InputError, NotFound, RetryLater
from dataset_registry.model.commits import CommitOptions
from dataset_registry.model.manifest import ComponentKey
from dataset_registry.model.names import MAIN
from dataset_registry.model.records import ComponentRecord, DatasetRecord, Head, NewDataset, VersionRecord
from dataset_registry.model.schema import ComponentSchema
from dataset_registry.operations import resolve

if TYPE_CHECKING:
    from dataset_registry.content.stage import Staged


def base_of(access: Access, dataset: DatasetRecord | NewDataset, version_id: int | None) -> Head | None:
    """The version that a writer has read, by its id. Raises `CommitConflict` if it was deleted."""
    if version_id is None or isinstance(dataset, NewDataset):
        return None
    with access.catalog.read() as tx:
        authorize(access, tx, "read", dataset.id)
        found = versions.by_id(tx, version_id)
    if found is None or found.dataset_id != dataset.id:
        raise CommitConflict(
            f"The base of this commit was deleted from {dataset.name} in the meantime. Read the new version and "
            "commit again.",
            dataset=dataset.name,
        )
    return found.as_head


def parent_of(
    access: Access, dataset: DatasetRecord | NewDataset, version_id: int, branch: str | None
) -> tuple[str, Head]:
    """The version that a commit starts from, by its id, and the branch: the given one, else one whose head it is.

    Raises `NotFound` if the dataset does not have the version, `BranchMoved` if it is the head of no branch.
    """
    if isinstance(dataset, NewDataset):
        raise NotFound(f"{dataset.name} has no version with the id {version_id}: it is created by this commit.")
    with access.catalog.read() as tx:
        authorize(access, tx, "read", dataset.id)
        found = versions.by_id(tx, version_id)
        if found is None or found.dataset_id != dataset.id:
            raise NotFound(f"{dataset.name} has no version with the id {version_id}. List versions with tree().")
        there = [p.name for p in pointers.all_of(tx, dataset.id, tags=False) if p.version_id == version_id]
    if branch is None and not there:
        raise BranchMoved(
            f"No branch of {dataset.name} is at v{found.number}. Give the name of a new branch with parent_version_id: it "
            "starts there.",
            dataset=dataset.name,
            version=found.number,
        )
    chosen = branch or (MAIN if MAIN in there else there[0])
    return chosen, found.as_head


def head(
    access: Access,
    dataset: DatasetRecord | NewDataset,
    branch: str,
    fallback: str | None = None,
    parent: Head | None = None,
) -> Head | None:
    """The version that a commit to the branch would start from now: the base of a draft."""
    if isinstance(dataset, NewDataset):
        return None
    with access.catalog.read() as tx:
        authorize_commit(access, tx, dataset, branch)
        return start_of(tx, dataset, branch, fallback, parent)[0]


def schemas_before(
    access: Access, dataset: DatasetRecord | NewDataset, base: Head | None, names: Sequence[str]
) -> dict[ComponentKey, ComponentSchema]:
    """The captured schemas of the components with these names in a version."""
    if base is None or isinstance(dataset, NewDataset):
        return {}
    with access.catalog.read() as tx:
        authorize(access, tx, "read", dataset.id)
        return {(name, index): schema for name, index, schema in manifests.schemas_of(tx, base.id, names)}


def start_of(
    tx: Transaction,
    dataset: DatasetRecord,
    branch: str,
    fallback: str | None,
    parent: Head | None = None,
    *,
    lock: bool = False,
) -> tuple[Head | None, bool]:
    """The version a commit to the branch starts from, and whether the branch exists.

    With `lock` the branch cannot move, and the version and its pages cannot be deleted, until the transaction ends. The
    first commit of a dataset creates its branch. Later, a new branch must be created first, or starts from `parent` or
    `fallback` (without a version if the dataset has neither). Raises `BranchMoved` for a branch that is not at `parent`.
    """
    for name in (branch, None if parent else fallback):
        if name is None:
            continue
        if lock:
            pointers.lock(tx, dataset.id, name)
        found = versions.head(tx, dataset.id, name, share=lock)
        if found is None:
            continue
        if found.is_tag:
            raise InputError(
                f"{name!r} is a tag of {dataset.name}, and tags do not move. Commit to a branch.", branch=name
            )
        if parent is not None and found.id != parent.id:
            raise BranchMoved(
                f"{dataset.name}@{branch} is at v{found.number}, not at v{parent.number}, the parent of this commit. "
                f"Pass the name of a new branch, which starts there, or commit to v{found.number}.",
                branch=branch,
                version=found.number,
            )
        return found, name == branch
    if parent is not None:
        if lock and not versions.share(tx, [parent.id]):
            raise NotFound(f"v{parent.number} of {dataset.name} was deleted in the meantime.", version=parent.number)
        return parent, False
    if fallback is not None or datasets.version_count(tx, dataset.id) == 0:
        return None, False
    names = [p.name for p in pointers.all_of(tx, dataset.id, tags=False)]
    newest = next(versions.below(tx, dataset.id, (1 << 31) - 1), None)
    start = names[0] if names and MAIN not in names else f"v{newest.number}" if newest and not names else MAIN
    raise NotFound(
        f"{dataset.name} has no branch {branch!r} (it has: {', '.join(names) or 'none'}). Create it first: "
        f"create_branch({branch!r}, {start!r}).",
        dataset=dataset.name,
        branch=branch,
    )


def parents_of(tx: Transaction, dataset: DatasetRecord, options: CommitOptions, start: Head | None) -> list[Head]:
    """The parents of a commit: those of the options, else its start; they cannot be deleted until the transaction ends.

    Raises `BranchMoved` if the first is not the start, `InputError`, `NotFound`, `RetryLater`.
    """
    if not options.parents:
        return [start] if start else []
    parents = [resolve.version(tx, dataset, ref).as_head for ref in options.parents]
    if start is None or parents[0].id != start.id:
        at = f"v{start.number}" if start else "nothing yet"
        raise BranchMoved(
            f"The first parent must be the head of {options.branch!r}, which is {at}, not v{parents[0].number}. "
            "Check what was committed since, then try again.",
            branch=options.branch,
        )
    if len({parent.id for parent in parents}) < len(parents):
        raise InputError("The parents of a version must be different versions.", parents=list(options.parents))
    if not versions.share(tx, [parent.id for parent in parents]):
        raise RetryLater("A parent was deleted while this commit began. Try again.")
    return parents


def restored(access: Access, dataset: DatasetRecord | NewDataset, version_ids: Sequence[int]) -> tuple[int, ...]:
    """The ids of versions whose content is set again. Raises `NotFound` for one that is not a version of the dataset."""
    if not version_ids:
        return ()
    with access.catalog.read() as tx:
        for version_id in version_ids:
            found = versions.by_id(tx, version_id)
            if found is None or isinstance(dataset, NewDataset) or found.dataset_id != dataset.id:
                raise NotFound(f"{dataset.name} has no version with the id {version_id}.")
    return tuple(version_ids)


def stored_content(access: Access, version: VersionRecord, component: ComponentRecord) -> "Staged":
    """The content of a component of a version, to be committed again without its bytes. Raises `NotFound`."""
    from dataset_registry.content.tables import staged_as_stored

    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", version.dataset_id)
        found = versions.by_id(tx, version.id)
        if found is None or (found.dataset_id, found.uuid) != (version.dataset_id, version.uuid):
            raise NotFound(f"{version.dataset} has no v{version.number} any more, or it is one of another registry.")
        if component.content_hash is None:
            raise InputError(f"v{version.number} of {version.dataset} is not adopted yet. Run: dataset-registry adopt")
        return staged_as_stored(access, tx, version.id, component)
