"""Branches and tags: of one dataset, and branches over all of them."""

from dataset_registry.access import Access, administer, authorize, authorize_move
from dataset_registry.catalog import Transaction, datasets, grants, pointers, taints
from dataset_registry.errors import AlreadyExists, BranchMoved, NotFound, TagImmutable
from dataset_registry.model.names import new_pointer_name, pointer_name, single_line
from dataset_registry.model.records import DatasetRecord, PointerRecord, RegistryBranch
from dataset_registry.operations import audit, gates, resolve


def create(access: Access, dataset: DatasetRecord, name: str, ref: str, *, is_tag: bool) -> PointerRecord:
    """Create a branch or a tag at the version of `ref`.

    Raises `InvalidName`, `AlreadyExists`, `TagImmutable` (a deleted tag's name), `NotFound`.
    """
    name = pointer_name(name)
    kind = "tag" if is_tag else "branch"

    def work(tx: Transaction) -> PointerRecord:
        authorize_move(access, tx, dataset.id, name)
        find, is_retired = pointers.ask_for(tx, dataset.id, name)
        head = resolve.shared_head(tx, dataset, ref)
        if (taken := find()) is not None:
            raise (TagImmutable if taken.is_tag and is_tag else AlreadyExists)(
                f"{dataset.name} has a {'tag' if taken.is_tag else 'branch'} {name!r} already, at v{taken.version_number}. "
                + ("Tags never move; choose another name." if taken.is_tag else f"Choose another name for the {kind}."),
                dataset=dataset.name,
                name=name,
            )
        _check_new(dataset, name, is_retired=is_retired())
        made_at = pointers.create(tx, dataset.id, name, head.id, is_tag=is_tag)
        if not is_tag:
            gates.guard(tx, dataset, name, head.id, None)
        audit.note(access, tx, f"{kind}.create", (dataset.id, dataset.name), ref=name, after=f"v{head.number}")
        return PointerRecord(name, is_tag, head.id, head.number, head.digest, made_at())

    return access.catalog.write(work)


def check_new(tx: Transaction, dataset: DatasetRecord, name: str) -> None:
    """Check the name of a new branch or tag. Raises `InvalidName` for other forms of refs, `TagImmutable` for the name
    of a deleted tag."""
    _check_new(dataset, name, is_retired=pointers.retired(tx, dataset.id, name))


def _check_new(dataset: DatasetRecord, name: str, *, is_retired: bool) -> None:
    new_pointer_name(name)
    if is_retired:
        raise TagImmutable(
            f"{dataset.name} had a tag {name!r} that was deleted. The name of a tag is permanent and cannot be reused, neither "
            "by a tag nor by a branch. Choose another name.",
            dataset=dataset.name,
            name=name,
        )


def move(access: Access, dataset: DatasetRecord, name: str, ref: str, *, expect: str | None) -> PointerRecord:
    """Move a branch to another version; with `expect`, only if it is at that version (compare-and-swap).

    Raises `NotFound`, `TagImmutable`, `BranchMoved`.
    """
    name = pointer_name(name)

    def work(tx: Transaction) -> PointerRecord:
        authorize_move(access, tx, dataset.id, name)
        pointer = _get(tx, dataset, name, lock=True)
        if pointer.is_tag:
            raise TagImmutable(f"{name!r} is a tag of {dataset.name}; tags never move. Create another tag.", name=name)
        if expect is not None and (expected := resolve.shared_head(tx, dataset, expect)).id != pointer.version_id:
            raise BranchMoved(
                f"{dataset.name}@{name} is at v{pointer.version_number}, not at v{expected.number} as expected. Look at "
                f"what happened with log({name!r}), then try again with expect='v{pointer.version_number}'.",
                dataset=dataset.name,
                branch=name,
                expected=expected.number,
                found=pointer.version_number,
            )
        head = resolve.shared_head(tx, dataset, ref)
        pointers.move(tx, dataset.id, name, head.id)
        gates.guard(tx, dataset, name, head.id, pointer.version_id)
        moved = _get(tx, dataset, name)
        audit.note(
            access,
            tx,
            "branch.move",
            (dataset.id, dataset.name),
            ref=name,
            before=f"v{pointer.version_number}",
            after=f"v{moved.version_number}",
        )
        return moved

    return access.catalog.write(work)


def delete(access: Access, dataset: DatasetRecord, name: str, *, is_tag: bool) -> None:
    """Delete a branch or a tag; the versions stay. Raises `NotFound`."""
    name = pointer_name(name)

    def work(tx: Transaction) -> None:
        authorize_move(access, tx, dataset.id, name)
        pointer = _get(tx, dataset, name, lock=True)
        if pointer.is_tag != is_tag:
            other = "tag" if pointer.is_tag else "branch"
            raise NotFound(
                f"{name!r} is a {other} of {dataset.name}. Use delete_{other}({name!r}).",
                dataset=dataset.name,
                name=name,
            )
        pointers.remove(tx, dataset.id, name)
        action = "tag.delete" if is_tag else "branch.delete"
        audit.note(access, tx, action, (dataset.id, dataset.name), ref=name, before=f"v{pointer.version_number}")

    access.catalog.write(work)


def get(access: Access, dataset: DatasetRecord, name: str) -> PointerRecord:
    """A branch or tag. Raises `NotFound`."""
    name = pointer_name(name)
    with access.catalog.read() as tx:
        authorize(access, tx, "read", dataset.id)
        return _get(tx, dataset, name)


def list_all(access: Access, dataset: DatasetRecord, *, tags: bool) -> list[PointerRecord]:
    """The branches or the tags of a dataset, by name."""
    with access.catalog.read() as tx:
        authorize(access, tx, "read", dataset.id)
        return pointers.all_of(tx, dataset.id, tags=tags)


def _get(tx: Transaction, dataset: DatasetRecord, name: str, *, lock: bool = False) -> PointerRecord:
    if lock:
        pointers.lock(tx, dataset.id, name)
    found = pointers.find(tx, dataset.id, name)
    if found is None:
        raise NotFound(
            f"{dataset.name} has no branch or tag {name!r}. {resolve.what_there_is(tx, dataset, name)}", name=name
        )
    return found


# --- over the whole registry ---------------------------------------------------------------------------------------


def create_everywhere(access: Access, name: str, source: str) -> int:
    """Branch every dataset that has the branch `source`, in one statement; how many those are.

    Raises `InvalidName`, `AlreadyExists`, `NotFound` (no dataset has `source`).
    """
    name, source = new_pointer_name(name), pointer_name(source)

    def work(tx: Transaction) -> int:
        administer(access, tx)
        if pointers.registry_branch(tx, name) is not None:
            raise AlreadyExists(f"A registry-wide branch {name!r} exists already. Choose another name.", name=name)
        if taken := pointers.taken(tx, name):
            raise AlreadyExists(
                f"These datasets have a branch or tag {name!r} of their own: {', '.join(taken[:10])}. Choose another name.",
                name=name,
                datasets=taken,
            )
        if retired := pointers.retired_everywhere(tx, name):
            raise TagImmutable(
                f"These datasets had a tag {name!r} that was deleted, and its name cannot be reused: "
                f"{', '.join(retired[:10])}. Choose another name.",
                name=name,
                datasets=retired,
            )
        made = pointers.branch_everywhere(tx, name, source)
        _authorize_everywhere(access, tx, name)
        if not made:
            raise NotFound(f"No dataset has a branch {source!r} to start from.", branch=source)
        _guard_everywhere(tx, name)
        audit.note(access, tx, "registry-branch.create", ref=name, after=source, datasets=made)
        return made

    return access.catalog.write(work)


def _authorize_everywhere(access: Access, tx: Transaction, name: str) -> None:
    """Require that no dataset with a branch of this name lets it move by reviews only. Raises `PermissionDenied`."""
    if grants.any_takes_review(tx, name):
        for dataset_id in pointers.datasets_with(tx, name):
            authorize_move(access, tx, dataset_id, name)


def _guard_everywhere(tx: Transaction, name: str) -> None:
    """Refuse tainted content on a new registry-wide branch, in datasets that protect a branch of this name. Raises `Tainted`."""
    for dataset_id in taints.datasets_with(tx):
        pointer = pointers.find(tx, dataset_id, name)
        if pointer is not None:
            gates.guard(tx, datasets.get(tx, dataset_id), name, pointer.version_id, None)


def delete_everywhere(access: Access, name: str) -> int:
    """Delete a registry-wide branch in every dataset; versions stay. Returns the number of datasets. Raises `NotFound`."""
    single_line(name, "name")

    def work(tx: Transaction) -> int:
        administer(access, tx)
        if pointers.registry_branch(tx, name) is None:
            raise NotFound(f"No registry-wide branch {name!r}. List them with registry.branches().", name=name)
        _authorize_everywhere(access, tx, name)
        removed = pointers.remove_everywhere(tx, name)
        audit.note(access, tx, "registry-branch.delete", ref=name, datasets=removed)
        return removed

    return access.catalog.write(work)


def list_everywhere(access: Access) -> list[RegistryBranch]:
    """Every registry-wide branch, by name."""
    with access.catalog.read() as tx:
        administer(access, tx)
        return pointers.registry_branches_of(tx)
