"""Creating, listing, changing and deleting datasets; deleting a version."""

from dataset_registry.access import (
    Access,
    absent,
    authorize,
    authorize_creation,
    authorize_rename,
    level_on,
    readable,
    refuse_hidden,
)
from dataset_registry.catalog import Transaction, datasets, grants, manifests, pointers, versions
from dataset_registry.errors import AlreadyExists, InUse, InvalidRef, NotFound
from dataset_registry.model import names
from dataset_registry.model.actors import NOTHING
from dataset_registry.model.records import DatasetRecord, NewDataset
from dataset_registry.operations import audit, gates, resolve
from dataset_registry.operations.lookalikes import refuse_lookalike


def create(access: Access, name: str, description: str | None) -> DatasetRecord:
    """Create a dataset. Raises `InvalidName`, `AlreadyExists`."""
    name, description = names.dataset_name(name), _checked(description)

    def work(tx: Transaction) -> DatasetRecord:
        authorize_creation(access, tx, name)
        _refuse_taken(access, tx, name)
        return _make(access, tx, NewDataset(name, description))

    return access.catalog.write(work)


def make(access: Access, tx: Transaction, wanted: NewDataset) -> DatasetRecord:
    """Get or create the dataset with this name. Raises `PermissionDenied`."""
    found = datasets.find(tx, wanted.name)
    refuse_hidden(access, tx, found)
    return found or _make(access, tx, wanted)


def _make(access: Access, tx: Transaction, wanted: NewDataset) -> DatasetRecord:
    """Create a dataset; the actor becomes its admin. A name taken since it was checked fails its unique key."""
    refuse_lookalike(tx, wanted.name)
    user_id = access.user_id(tx)
    made = datasets.get(tx, datasets.create(tx, wanted.name, wanted.description, user_id))
    if not access.actor.is_owner:
        grants.grant(tx, user_id, "admin", "dataset", made.id, user_id)
    audit.note(access, tx, "dataset.create", (made.id, made.name))
    return made


def find_or_new(access: Access, name: str, description: str | None) -> DatasetRecord | NewDataset:
    """The dataset with this name, or a new one that a first commit creates. The commit is refused if the name is taken
    by a dataset hidden from the actor. Raises `InvalidName`, `PermissionDenied`."""
    name, description = names.dataset_name(name), _checked(description)
    with access.catalog.read() as tx:
        found = datasets.find(tx, name)
        if found is not None and level_on(access, tx, found.id) != NOTHING:
            return found
        authorize_creation(access, tx, name)
        refuse_lookalike(tx, name)
        return NewDataset(name, description)


def get(access: Access, name: str) -> DatasetRecord:
    """The dataset of this name. Raises `NotFound`."""
    with access.catalog.read() as tx:
        found = datasets.find(tx, name)
        if found is None or level_on(access, tx, found.id) == NOTHING:
            # Only names of readable datasets may break the rules for names, as in legacy catalogs.
            return resolve.dataset(access, tx, names.dataset_name(name))
        return found


def addressed(access: Access, name: str, address: str) -> DatasetRecord:
    """The dataset with this name from an address. Raises `NotFound`, or `InvalidRef` if another dataset has the whole
    address as its name."""
    if not address.startswith('"') and "@" in address:
        with access.catalog.read() as tx:
            whole = datasets.find(tx, address)
            if whole is not None and level_on(access, tx, whole.id) != NOTHING:
                quoted = address.replace("\\", "\\\\").replace('"', '\\"')
                raise InvalidRef(
                    f'{address!r} is the name of a dataset, and could be a version of {name!r}. Write "{quoted}" for the '
                    f'dataset, "{name}"@{address.partition("@")[2]} for the version.',
                    ref=address,
                )
    return get(access, name)


def by_id(access: Access, dataset_id: int) -> DatasetRecord:
    """The dataset with this id. Raises `NotFound`."""
    with access.catalog.read() as tx:
        authorize(access, tx, "read", dataset_id)
        found = datasets.by_id(tx, dataset_id)
        if found is None:
            raise absent(dataset_id)
        return found


def list_all(access: Access, prefix: str) -> list[DatasetRecord]:
    """The datasets whose name starts with `prefix`, by name."""
    prefix = names.name_prefix(prefix)
    with access.catalog.read() as tx:
        return list(datasets.all_of(tx, prefix, readable(access, tx)))


def update(access: Access, dataset: DatasetRecord, *, name: str | None, description: str | None) -> DatasetRecord:
    """Change a dataset's description (requires write) or its name (requires admin), if not None.

    Raises `InvalidName`, `AlreadyExists`.
    """
    new_name = names.dataset_name(name) if name is not None else None
    description = _checked(description)

    def work(tx: Transaction) -> DatasetRecord:
        authorize(access, tx, "write" if new_name is None else "admin", dataset.id)
        now = datasets.get(tx, dataset.id)
        if new_name is not None and new_name != now.name:
            authorize_creation(access, tx, new_name)
            authorize_rename(access, tx, now, new_name, pointers.branches_of(tx, dataset.id))
            _refuse_taken(access, tx, new_name)
            refuse_lookalike(tx, new_name)
        datasets.change(
            tx,
            dataset.id,
            name=now.name if new_name is None else new_name,
            description=now.description if description is None else description,
        )
        changed = datasets.get(tx, dataset.id)
        if changed != now:
            renamed = changed.name != now.name
            audit.note(
                access,
                tx,
                "dataset.rename" if renamed else "dataset.update",
                (now.id, now.name),
                before=now.name if renamed else now.description,
                after=changed.name if renamed else changed.description,
                description=changed.description if renamed and changed.description != now.description else None,
            )
        return changed

    return access.catalog.write(work)


def delete(access: Access, dataset: DatasetRecord) -> int:
    """Delete a dataset with its branches, tags and versions. Returns the number of versions.

    The next collection removes the files that no other dataset references.
    """

    def work(tx: Transaction) -> int:
        authorize(access, tx, "admin", dataset.id)
        return remove(access, tx, dataset)

    return access.catalog.write_to_free(work)


def remove(access: Access, tx: Transaction, dataset: DatasetRecord) -> int:
    """Delete the rows of a dataset. The caller has checked that it may be deleted. Returns the number of versions."""
    now = datasets.get(tx, dataset.id)
    datasets.lock(tx, dataset.id)
    pointers.remove(tx, dataset.id)
    versions.unlink(tx, dataset.id)
    ids = versions.ids_of(tx, dataset.id)
    for start in range(0, len(ids), 500):
        manifests.drop(tx, ids[start : start + 500])
        versions.remove(tx, ids[start : start + 500])
    datasets.remove(tx, dataset.id)
    audit.note(access, tx, "dataset.delete", (now.id, now.name), versions=len(ids))
    return len(ids)


def delete_version(access: Access, dataset: DatasetRecord, ref: str) -> int:
    """Delete one version with the pages that only it references.

    Returns its number. Raises `InUse` while it is referenced.
    """

    def work(tx: Transaction) -> int:
        authorize(access, tx, "admin", dataset.id)
        version = resolve.version(tx, dataset, ref)
        if not versions.lock(tx, version.id):
            raise NotFound(f"v{version.number} of {dataset.name} was deleted in the meantime.", version=version.number)
        if pointing := versions.references(tx, version.id):
            raise InUse(
                f"v{version.number} of {dataset.name} cannot be deleted, these point at it: {', '.join(pointing[:10])}. "
                "Move or delete the branches and tags, delete the children first.",
                version=version.number,
                references=pointing,
            )
        if gates.needed(tx, dataset.id, [version.id]):
            raise InUse(
                f"v{version.number} of {dataset.name} cannot be deleted: it is tainted, and other versions have its content. "
                f"Delete those first, or absolve it.",
                version=version.number,
            )
        manifests.drop(tx, [version.id])
        versions.remove(tx, [version.id])
        audit.note(access, tx, "version.delete", (dataset.id, dataset.name), before=f"v{version.number}")
        return version.number

    return access.catalog.write_to_free(work)


def _checked(description: str | None) -> str | None:
    return None if description is None else names.free_text(description, "description")


def _refuse_taken(access: Access, tx: Transaction, name: str) -> None:
    taken = datasets.find(tx, name)
    refuse_hidden(access, tx, taken)
    if taken is not None:
        raise AlreadyExists(
            f"A dataset {name!r} exists already. Open it with registry.dataset({name!r}).", dataset=name
        )
