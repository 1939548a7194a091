"""Rows about versions: the graph, and look-ups by number, digest or id."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, exists, insert, or_, select, update

from dataset_registry.catalog import taints
from dataset_registry.catalog.datasets import NextVersion
from dataset_registry.catalog.prepared import Prepared
from dataset_registry.catalog.rows import Transaction, batches, id_rows, insert_row
from dataset_registry.catalog.tables import (
    dataset_pointers,
    dataset_versions,
    datasets,
    production_inputs,
    productions,
    users,
    version_parents,
    version_reads,
)
from dataset_registry.model.history import Node
from dataset_registry.model.records import DatasetRecord, Head, VersionRecord

_V = dataset_versions
_parent = dataset_versions.alias("parent")

_SELECT = (
    select(
        _V.c.id,
        _V.c.uuid,
        _V.c.dataset_id,
        datasets.c.name,
        _V.c.version_number,
        _V.c.depth,
        _V.c.digest,
        _parent.c.version_number,
        _V.c.message,
        _V.c.ingestion_timestamp,
        users.c.username,
        _V.c.component_count,
        _V.c.overlay_file_id,
        _V.c.parent_version_id,
        # Most versions have one parent; only for the others is a second query due.
        exists().where(version_parents.c.version_id == _V.c.id).label("merge"),
    )
    .select_from(_V)
    .join(datasets, datasets.c.id == _V.c.dataset_id)
    .outerjoin(_parent, _parent.c.id == _V.c.parent_version_id)
    .outerjoin(users, users.c.id == _V.c.uploaded_by)
)
_BY_ID = Prepared(_SELECT.where(_V.c.id == bindparam("id")))
_BY_NUMBER = Prepared(
    _SELECT.where(_V.c.dataset_id == bindparam("dataset"), _V.c.version_number == bindparam("number"))
)
_BY_DIGEST = (
    _SELECT.where(
        _V.c.dataset_id == bindparam("dataset"), _V.c.digest >= bindparam("low"), _V.c.digest < bindparam("high")
    )
    .order_by(_V.c.version_number.desc())
    .limit(64)
)
_HEAD = (
    select(_V.c.id, _V.c.version_number, _V.c.depth, _V.c.digest, dataset_pointers.c.is_tag)
    .join(dataset_pointers, dataset_pointers.c.dataset_version_id == _V.c.id)
    .where(dataset_pointers.c.dataset_id == bindparam("dataset"), dataset_pointers.c.pointer_name == bindparam("name"))
)
_BY_UUID = Prepared(_SELECT.where(_V.c.uuid == bindparam("uuid")))


def by_id(tx: Transaction, version_id: int) -> VersionRecord | None:
    """The version with this id."""
    return _one(tx, _BY_ID, {"id": version_id})


_FREE_HEAD, _LOCKED_HEAD = Prepared(_HEAD), Prepared(_HEAD.with_for_update(read=True, key_share=True, of=_V))


def head(tx: Transaction, dataset_id: int, name: str, *, share: bool = False) -> Head | None:
    """The head of a branch or tag; with `share` it is locked against deletion, as by `share`."""
    row = (_LOCKED_HEAD if share else _FREE_HEAD).first(tx, {"dataset": dataset_id, "name": name})
    return Head(*row) if row else None


def by_number(tx: Transaction, dataset_id: int, number: int) -> VersionRecord | None:
    """The version of a dataset with this number."""
    return _one(tx, _BY_NUMBER, {"dataset": dataset_id, "number": number})


def by_uuid(tx: Transaction, uuid: UUID) -> VersionRecord | None:
    """The version with the UUID of a commit, if it was committed."""
    return _one(tx, _BY_UUID, {"uuid": uuid})


def by_digest(tx: Transaction, dataset_id: int, prefix: str) -> list[VersionRecord]:
    """The newest version of each digest that starts with `prefix`, newest first."""
    rows = tx.execute(_BY_DIGEST, {"dataset": dataset_id, "low": prefix, "high": prefix + "g"}).all()
    newest: dict[str, VersionRecord] = {}
    for record in _records(tx, rows):
        newest.setdefault(record.digest or "", record)
    return list(newest.values())


def is_copy(tx: Transaction, version_id: int) -> bool:
    """Whether a version was copied from another registry."""
    return tx.execute(select(_V.c.origin).where(_V.c.id == version_id)).scalar() is not None


def below(tx: Transaction, dataset_id: int, number: int, page: int = 512) -> Iterator[Node]:
    """The nodes of a dataset's graph from `number` downwards, in pages."""
    query = (
        select(_V.c.version_number, _parent.c.version_number, _V.c.id)
        .outerjoin(_parent, _parent.c.id == _V.c.parent_version_id)
        .where(_V.c.dataset_id == dataset_id, _V.c.version_number <= bindparam("from"))
        .order_by(_V.c.version_number.desc())
        .limit(bindparam("page"))
    )
    size, start = 16, number
    while rows := tx.execute(query, {"from": start, "page": size}).all():
        more = _further_parents(tx, [row[2] for row in rows])
        for at, first, version_id in rows:
            yield Node(at, (() if first is None else (first,)) + tuple(more[version_id]))
        start = rows[-1][0] - 1
        size = min(size * 4, page)


_DOWN = Prepared(
    _SELECT.where(_V.c.dataset_id == bindparam("dataset"), _V.c.version_number <= bindparam("from"))
    .order_by(_V.c.version_number.desc())
    .limit(bindparam("page"))
)


def down(tx: Transaction, dataset_id: int, number: int, page: int) -> Iterator[VersionRecord]:
    """The versions of a dataset from `number` downwards, at most `page` in one query."""
    while rows := _DOWN.all(tx, {"dataset": dataset_id, "from": number, "page": page}):
        yield from _records(tx, rows)
        if len(rows) < page:
            return
        number = rows[-1][4] - 1


def numbered(tx: Transaction, dataset_id: int, numbers: Sequence[int]) -> list[VersionRecord]:
    """The versions with these numbers, newest first."""
    found: list[VersionRecord] = []
    query = _SELECT.where(_V.c.dataset_id == dataset_id, _V.c.version_number.in_(bindparam("numbers", expanding=True)))
    for chunk in batches(numbers):
        found += _records(tx, tx.execute(query.order_by(_V.c.version_number.desc()), {"numbers": chunk}).all())
    return sorted(found, key=lambda version: -version.number)


def all_of(
    tx: Transaction, dataset_id: int, *, before: int | None = None, limit: int | None = None
) -> list[VersionRecord]:
    """Every version of a dataset, newest first, or at most `limit` with numbers below `before`."""
    query = _SELECT.where(_V.c.dataset_id == dataset_id).order_by(_V.c.version_number.desc()).limit(limit)
    query = query if before is None else query.where(_V.c.version_number < before)
    return _records(tx, tx.execute(query).all())


def with_ids(tx: Transaction, version_ids: Collection[int]) -> list[VersionRecord]:
    """The versions with these ids, in no particular order."""
    return _records(tx, tx.execute(_SELECT.where(_V.c.id.in_(id_rows(tx, version_ids)))).all())


def children(tx: Transaction, version_id: int) -> list[VersionRecord]:
    """The versions that have this one as a parent, oldest first."""
    merged = select(version_parents.c.version_id).where(version_parents.c.parent_id == version_id)
    query = _SELECT.where(or_(_V.c.parent_version_id == version_id, _V.c.id.in_(merged)))
    return _records(tx, tx.execute(query.order_by(_V.c.version_number)).all())


def insert_version(
    tx: Transaction,
    *,
    uuid: UUID | None,
    dataset: DatasetRecord,
    place: NextVersion,
    digest: str,
    parents: Sequence[Head],
    message: str | None,
    author: tuple[int | None, str | None],
    component_count: int,
    overlay_file_id: int | None,
    origin: str | None = None,
) -> VersionRecord:
    """Insert a version below its parents, which the caller has locked."""
    row: dict[str, Any] = {
        "uuid": uuid,
        "dataset_id": dataset.id,
        "version_number": place.number,
        "depth": max((parent.depth for parent in parents), default=-1) + 1,
        "digest": digest,
        "parent_version_id": parents[0].id if parents else None,
        "message": message,
        "ingestion_timestamp": place.created_at,
        "uploaded_by": author[0],
        "component_count": component_count,
        "overlay_file_id": overlay_file_id,
        "origin": origin,
    }
    version_id = insert_row(tx, _V, row, place.id)
    _add_further(tx, version_id, [parent.id for parent in parents])
    return VersionRecord(
        id=version_id,
        uuid=uuid,
        dataset_id=dataset.id,
        dataset=dataset.name,
        number=place.number,
        depth=row["depth"],
        digest=digest,
        parents=tuple(parent.number for parent in parents),
        message=message,
        created_at=place.created_at,
        created_by=author[1],
        component_count=component_count,
        overlay_file_id=overlay_file_id,
        parent_id=row["parent_version_id"],
    )


_SHARE = (
    select(_V.c.id)
    .where(_V.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(_V.c.id)
    .with_for_update(read=True, key_share=True)
)


def share(tx: Transaction, version_ids: Sequence[int]) -> bool:
    """Keep versions from being deleted until the transaction ends; False when one is gone already.

    SQLite has one writer, so the caller has the lock already; foreign keys do the rest.
    """
    if tx.dialect.name == "sqlite":
        return True
    return len(tx.execute(_SHARE, {"ids": version_ids}).all()) == len(set(version_ids))


def lock(tx: Transaction, version_id: int) -> bool:
    """Lock a version against new references until the transaction ends. Returns False if it was deleted."""
    return tx.execute(select(_V.c.id).where(_V.c.id == version_id).with_for_update()).first() is not None


def references(tx: Transaction, version_id: int) -> list[str]:
    """Describe the references to a version: branches, tags, children. Empty if it may be deleted."""
    pointers = select(
        dataset_pointers.c.pointer_name, dataset_pointers.c.is_tag, dataset_pointers.c.dataset_version_id
    ).where(or_(dataset_pointers.c.dataset_version_id == version_id, dataset_pointers.c.base_version_id == version_id))
    found = []
    for name, is_tag, target in tx.execute(pointers.order_by(dataset_pointers.c.pointer_name)):
        kind = "tag" if is_tag else "branch"
        found.append(f"{kind} {name}" if target == version_id else f"{kind} {name} (as its base)")
    return found + [f"child v{child.number}" for child in children(tx, version_id)]


def remove(tx: Transaction, version_ids: Sequence[int]) -> None:
    """Delete version rows and what belongs to them alone. Their pages are dropped before (`manifests.drop`)."""
    made = select(productions.c.id).where(productions.c.version_id.in_(version_ids))
    tx.execute(delete(production_inputs).where(production_inputs.c.production_id.in_(made)))
    tx.execute(delete(productions).where(productions.c.version_id.in_(version_ids)))
    tx.execute(update(production_inputs).where(production_inputs.c.version_id.in_(version_ids)).values(version_id=None))
    tx.execute(delete(version_parents).where(version_parents.c.version_id.in_(version_ids)))
    tx.execute(delete(version_reads).where(version_reads.c.version_id.in_(version_ids)))
    taints.remove(tx, version_ids)
    tx.execute(delete(_V).where(_V.c.id.in_(version_ids)))


def ids_of(tx: Transaction, dataset_id: int) -> list[int]:
    """The ids of all versions of a dataset."""
    return list(tx.execute(select(_V.c.id).where(_V.c.dataset_id == dataset_id).order_by(_V.c.id)).scalars())


def link(tx: Transaction, version_id: int, parent_ids: Sequence[int]) -> None:
    """Replace the parents of a version by others, which the caller has locked."""
    first = parent_ids[0] if parent_ids else None
    tx.execute(update(_V).where(_V.c.id == version_id).values(parent_version_id=first))
    tx.execute(delete(version_parents).where(version_parents.c.version_id == version_id))
    _add_further(tx, version_id, parent_ids)


def _add_further(tx: Transaction, version_id: int, parent_ids: Sequence[int]) -> None:
    """Insert the parents of a version but the first, which is in its own row."""
    rows = [{"version_id": version_id, "position": i, "parent_id": p} for i, p in enumerate(parent_ids) if i > 0]
    if rows:
        tx.execute(insert(version_parents), rows)


def unlink(tx: Transaction, dataset_id: int) -> None:
    """Remove the parent links of all versions of a dataset, so that they can be deleted in any order."""
    mine = select(_V.c.id).where(_V.c.dataset_id == dataset_id)
    tx.execute(delete(version_parents).where(version_parents.c.version_id.in_(mine)))
    tx.execute(update(_V).where(_V.c.dataset_id == dataset_id).values(parent_version_id=None))


def _one(tx: Transaction, query: Prepared, parameters: dict[str, object]) -> VersionRecord | None:
    rows = query.all(tx, parameters)
    return _records(tx, rows)[0] if rows else None


def _records(tx: Transaction, rows: Sequence[Sequence[Any]]) -> list[VersionRecord]:
    """The records of rows of `_SELECT`, whose columns are the fields of a record, but for the parents."""
    found = [VersionRecord._make([*row[:7], () if row[7] is None else (row[7],), *row[8:14]]) for row in rows]
    more = _further_parents(tx, [row[0] for row in rows if row[14]])
    return [record._replace(parents=(*record.parents, *more.get(record.id, ()))) for record in found] if more else found


def _further_parents(tx: Transaction, ids: Iterable[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    if wanted := list(ids):
        query = (
            select(version_parents.c.version_id, _V.c.version_number)
            .join(_V, _V.c.id == version_parents.c.parent_id)
            .where(version_parents.c.version_id.in_(bindparam("ids", expanding=True)))
            .order_by(version_parents.c.version_id, version_parents.c.position)
        )
        for version_id, number in tx.execute(query, {"ids": wanted}):
            found[version_id].append(number)
    return found
