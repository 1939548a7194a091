"""Rows about branches and tags, and branches over the whole registry."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from sqlalchemy import bindparam, delete, func, insert, literal, select, update

from dataset_registry.catalog.prepared import Prepared, inserting
from dataset_registry.catalog.rows import Transaction, id_rows
from dataset_registry.catalog.tables import (
    dataset_pointers,
    dataset_versions,
    datasets,
    registry_branches,
    retired_tags,
)
from dataset_registry.catalog.types import utc_now
from dataset_registry.model.records import PointerRecord, RegistryBranch

_P = dataset_pointers
_base = dataset_versions.alias("base")

_SELECT = (
    select(
        _P.c.pointer_name,
        _P.c.is_tag,
        _P.c.dataset_version_id,
        dataset_versions.c.version_number,
        dataset_versions.c.digest,
        _P.c.updated_at,
        _base.c.version_number,
    )
    .join(dataset_versions, dataset_versions.c.id == _P.c.dataset_version_id)
    .outerjoin(_base, _base.c.id == _P.c.base_version_id)
)
_ONE = Prepared(_SELECT.where(_P.c.dataset_id == bindparam("dataset"), _P.c.pointer_name == bindparam("name")))
_LOCK = Prepared(
    select(_P.c.id)
    .where(_P.c.dataset_id == bindparam("dataset"), _P.c.pointer_name == bindparam("name"))
    .with_for_update()
)


def find(tx: Transaction, dataset_id: int, name: str) -> PointerRecord | None:
    """The branch or tag of this name."""
    row = _ONE.first(tx, {"dataset": dataset_id, "name": name})
    return PointerRecord(*row) if row else None


def lock(tx: Transaction, dataset_id: int, name: str) -> None:
    """Lock a branch or tag against moves and deletion until the transaction ends.

    A separate statement, since only later reads are protected. SQLite has only one writer.
    """
    if tx.dialect.name != "sqlite":
        _LOCK.run(tx, {"dataset": dataset_id, "name": name})


def all_of(tx: Transaction, dataset_id: int, *, tags: bool | None = None) -> list[PointerRecord]:
    """The branches (`tags=False`), the tags (`tags=True`) or both, by name."""
    query = _SELECT.where(_P.c.dataset_id == dataset_id)
    if tags is not None:
        query = query.where(_P.c.is_tag == tags)
    return [PointerRecord(*row) for row in tx.execute(query.order_by(_P.c.is_tag, _P.c.pointer_name))]


def branches_of(tx: Transaction, dataset_id: int) -> list[str]:
    """The names of a dataset's branches."""
    query = select(_P.c.pointer_name).where(_P.c.dataset_id == dataset_id, ~_P.c.is_tag)
    return list(tx.execute(query.order_by(_P.c.pointer_name)).scalars())


def of_each(tx: Transaction, dataset_ids: Collection[int]) -> dict[int, list[PointerRecord]]:
    """The branches and then the tags of datasets that have any, by name, by dataset."""
    query = _SELECT.add_columns(_P.c.dataset_id).where(_P.c.dataset_id.in_(id_rows(tx, dataset_ids)))
    found: dict[int, list[PointerRecord]] = defaultdict(list)
    for *row, dataset_id in tx.execute(query.order_by(_P.c.is_tag, _P.c.pointer_name)):
        found[dataset_id].append(PointerRecord(*row))
    return found


_RETIRED = Prepared(
    select(retired_tags.c.pointer_name).where(
        retired_tags.c.dataset_id == bindparam("dataset"), retired_tags.c.pointer_name == bindparam("name")
    )
)


def retired(tx: Transaction, dataset_id: int, name: str) -> bool:
    """Whether a tag of this name existed and was deleted."""
    return _RETIRED.first(tx, {"dataset": dataset_id, "name": name}) is not None


def ask_for(
    tx: Transaction, dataset_id: int, name: str
) -> tuple[Callable[[], PointerRecord | None], Callable[[], bool]]:
    """Ask what `find` and `retired` say. Returns what waits for the answers."""
    wanted = {"dataset": dataset_id, "name": name}
    found, gone = _ONE.ask(tx, wanted), _RETIRED.ask(tx, wanted)
    return (lambda: PointerRecord(*rows[0]) if (rows := found()) else None), lambda: bool(gone())


def create(
    tx: Transaction, dataset_id: int, name: str, version_id: int, *, is_tag: bool, base: int | None = None
) -> Callable[[], datetime]:
    """Insert a branch or tag at a version that the caller share-locked. Returns what waits for its time."""
    row = {
        "dataset_id": dataset_id,
        "pointer_name": name,
        "dataset_version_id": version_id,
        "is_tag": is_tag,
        "base_version_id": base,
    }
    made = inserting(_P, tuple(row), ("updated_at",)).ask(tx, row)
    return lambda: made()[0][0]


_MOVE = Prepared(
    update(_P)
    .where(_P.c.dataset_id == bindparam("dataset"), _P.c.pointer_name == bindparam("name"))
    .values(dataset_version_id=bindparam("version"), updated_at=utc_now())
)


def move(tx: Transaction, dataset_id: int, name: str, version_id: int) -> None:
    """Move a locked branch to another version."""
    _MOVE.run(tx, {"dataset": dataset_id, "name": name, "version": version_id})


def remove(tx: Transaction, dataset_id: int, name: str | None = None) -> None:
    """Delete a branch or tag, or all of a dataset's. The database retires the names of tags."""
    statement = delete(_P).where(_P.c.dataset_id == dataset_id)
    tx.execute(statement if name is None else statement.where(_P.c.pointer_name == name))


# --- over the whole registry ---------------------------------------------------------------------------------------


def taken(tx: Transaction, name: str) -> list[str]:
    """The datasets that have a branch or tag of this name."""
    query = select(datasets.c.name).join(_P, _P.c.dataset_id == datasets.c.id).where(_P.c.pointer_name == name)
    return list(tx.execute(query.order_by(datasets.c.name)).scalars())


def named(tx: Transaction, dataset_ids: Collection[int], name: str) -> list[PointerRecord]:
    """The branches and tags of this name in datasets."""
    query = _SELECT.where(_P.c.pointer_name == name, _P.c.dataset_id.in_(id_rows(tx, dataset_ids)))
    return [PointerRecord(*row) for row in tx.execute(query)]


def datasets_with(tx: Transaction, name: str) -> list[int]:
    """The ids of the datasets with a branch of this name."""
    return list(tx.execute(select(_P.c.dataset_id).where(_P.c.pointer_name == name, ~_P.c.is_tag)).scalars())


def retired_names(tx: Transaction, dataset_id: int) -> list[str]:
    """The names of a dataset's deleted tags."""
    query = select(retired_tags.c.pointer_name).where(retired_tags.c.dataset_id == dataset_id)
    return list(tx.execute(query.order_by(retired_tags.c.pointer_name)).scalars())


def retire(tx: Transaction, dataset_id: int, names: Sequence[str]) -> None:
    """Record names of tags that were deleted in another registry, which cannot be reused. Names in use are skipped."""
    query = select(_P.c.pointer_name).where(_P.c.dataset_id == dataset_id)
    known = {*retired_names(tx, dataset_id), *tx.execute(query).scalars()}
    if new := [{"dataset_id": dataset_id, "pointer_name": name} for name in names if name not in known]:
        tx.execute(insert(retired_tags), new)


def retired_everywhere(tx: Transaction, name: str) -> list[str]:
    """The datasets that had a tag of this name."""
    query = select(datasets.c.name).join(retired_tags, retired_tags.c.dataset_id == datasets.c.id)
    return list(tx.execute(query.where(retired_tags.c.pointer_name == name).order_by(datasets.c.name)).scalars())


def branch_everywhere(tx: Transaction, name: str, source: str) -> int:
    """Give every dataset that has the branch `source` a branch `name` at the same version, in one statement.

    A version deleted in the meantime fails its foreign key, and the transaction runs again without it.
    """
    rows = select(
        _P.c.dataset_id, literal(name), _P.c.dataset_version_id, literal(False), _P.c.dataset_version_id
    ).where(_P.c.pointer_name == source, ~_P.c.is_tag)
    columns = ["dataset_id", "pointer_name", "dataset_version_id", "is_tag", "base_version_id"]
    tx.execute(insert(registry_branches), {"name": name, "source": source})
    tx.execute(insert(_P).from_select(columns, rows))
    return count(tx, name)


def registry_branch(tx: Transaction, name: str) -> RegistryBranch | None:
    """The registry-wide branch of this name."""
    query = select(registry_branches.c.name, registry_branches.c.source, registry_branches.c.created_at)
    row = tx.execute(query.where(registry_branches.c.name == name)).one_or_none()
    return RegistryBranch(*row) if row else None


def registry_branches_of(tx: Transaction) -> list[RegistryBranch]:
    """Every registry-wide branch, by name."""
    query = select(registry_branches.c.name, registry_branches.c.source, registry_branches.c.created_at)
    return [RegistryBranch(*row) for row in tx.execute(query.order_by(registry_branches.c.name))]


def add_registry_branches(tx: Transaction, wanted: Sequence[RegistryBranch]) -> None:
    """Insert the registry-wide branches that are not there and that some dataset has a branch for."""
    for branch in wanted:
        if registry_branch(tx, branch.name) is None and count(tx, branch.name):
            row = {"name": branch.name, "source": branch.source, "created_at": branch.created_at}
            tx.execute(insert(registry_branches), row)


def remove_everywhere(tx: Transaction, name: str) -> int:
    """Delete a registry-wide branch and its branch in every dataset. Returns the number of datasets."""
    tx.execute(delete(registry_branches).where(registry_branches.c.name == name))
    return tx.execute(delete(_P).where(_P.c.pointer_name == name, ~_P.c.is_tag)).rowcount


def count(tx: Transaction, name: str) -> int:
    """The number of datasets with a branch of this name."""
    query = select(func.count()).select_from(_P).where(_P.c.pointer_name == name, ~_P.c.is_tag)
    return int(tx.execute(query).scalar_one())
