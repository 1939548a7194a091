"""Rows about datasets."""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, and_, bindparam, delete, func, select, update

from dataset_registry.catalog import reviews
from dataset_registry.catalog.grants import Readable, forget_resource
from dataset_registry.catalog.prepared import Prepared
from dataset_registry.catalog.rows import Transaction, batches, insert_row
from dataset_registry.catalog.tables import dataset_versions, datasets, retired_tags, users
from dataset_registry.catalog.types import utc_now
from dataset_registry.errors import NotFound
from dataset_registry.model.records import DatasetRecord

_SELECT = select(
    datasets.c.id, datasets.c.name, datasets.c.description, datasets.c.created_at, users.c.username
).select_from(datasets.outerjoin(users, users.c.id == datasets.c.created_by))
_LAST = "\U0010ffff"
"""The last character: no name has it, and all that begin with a prefix come before the prefix with it."""
_BY_NAME = _SELECT.where(datasets.c.name == bindparam("name"))
_BY_ID = _SELECT.where(datasets.c.id == bindparam("id"))


def find(tx: Transaction, name: str) -> DatasetRecord | None:
    """The dataset of this name, None when there is none."""
    if "\0" in name:  # PostgreSQL fails to look for it
        return None
    row = tx.execute(_BY_NAME, {"name": name}).one_or_none()
    return _record(row) if row else None


def get(tx: Transaction, dataset_id: int) -> DatasetRecord:
    """The dataset with this id. Raises `NotFound` when it was deleted."""
    found = by_id(tx, dataset_id)
    if found is None:
        raise _deleted()
    return found


def by_id(tx: Transaction, dataset_id: int) -> DatasetRecord | None:
    """The dataset with this id, None when there is none."""
    row = tx.execute(_BY_ID, {"id": dataset_id}).one_or_none()
    return _record(row) if row else None


def all_of(tx: Transaction, prefix: str, among: Readable = None) -> Iterator[DatasetRecord]:
    """Datasets whose name starts with `prefix`, by name; only those `among` these."""
    query = _SELECT.where(under(tx, prefix)) if prefix else _SELECT
    query = query if among is None else query.where(datasets.c.id.in_(among))
    return iter(sorted(map(_record, tx.execute(query)), key=lambda record: record.name))


def readable_names(tx: Transaction, names: Collection[str], among: Readable) -> set[str]:
    """Those of these names that are of datasets `among` these."""
    query = select(datasets.c.name).where(datasets.c.name.in_(bindparam("names", expanding=True)))
    query = query if among is None else query.where(datasets.c.id.in_(among))
    return {name for chunk in batches(sorted(names)) for name in tx.execute(query, {"names": chunk}).scalars()}


def names_under(tx: Transaction, prefix: str) -> list[str]:
    """The names of the datasets under a prefix, for any actor."""
    return list(tx.execute(select(datasets.c.name).where(under(tx, prefix))).scalars())


def under(tx: Transaction, prefix: str) -> ColumnElement[bool]:
    """The condition that the name of a dataset starts with a prefix.

    SQLite finds them in its index. That of PostgreSQL has the order of a language, which says nothing about prefixes.
    """
    name = datasets.c.name
    starts = func.substr(name, 1, len(prefix)) == prefix
    return and_(name >= prefix, name < prefix + _LAST, starts) if tx.dialect.name == "sqlite" else starts


def create(tx: Transaction, name: str, description: str | None, user_id: int) -> int:
    """Insert a dataset. Returns its id. The caller has checked that the name is free."""
    return insert_row(tx, datasets, {"name": name, "description": description, "created_by": user_id})


def change(tx: Transaction, dataset_id: int, *, name: str, description: str | None) -> None:
    """Set a dataset's name and description."""
    tx.execute(update(datasets).where(datasets.c.id == dataset_id).values(name=name, description=description))


def lock(tx: Transaction, dataset_id: int) -> None:
    """Block other commits and deletions in this dataset until the transaction ends."""
    tx.execute(select(datasets.c.id).where(datasets.c.id == dataset_id).with_for_update())


def remove(tx: Transaction, dataset_id: int) -> None:
    """Delete the row of a dataset that has no versions any more."""
    forget_resource(tx, "dataset", [dataset_id])
    reviews.forget_datasets(tx, [dataset_id])
    tx.execute(delete(retired_tags).where(retired_tags.c.dataset_id == dataset_id))
    tx.execute(delete(datasets).where(datasets.c.id == dataset_id))


class NextVersion(NamedTuple):
    """What a new version gets from the catalog: its number, its date, and on PostgreSQL its id."""

    number: int
    created_at: datetime
    id: int | None = None


_NEXT = (
    update(datasets)
    .where(datasets.c.id == bindparam("dataset"))
    .values(last_version_number=datasets.c.last_version_number + 1)
    .returning(datasets.c.last_version_number, utc_now())
)
_NEXT_ID = func.nextval(func.pg_get_serial_sequence(dataset_versions.name, "id"))
_NEXT_ON_SQLITE, _NEXT_ON_POSTGRESQL = Prepared(_NEXT), Prepared(_NEXT.returning(_NEXT_ID))


def next_version(tx: Transaction, dataset_id: int) -> NextVersion:
    """Take the next version number. Holds the dataset's row until the end: call it just before the version row.

    Raises `NotFound` when the dataset was deleted.
    """
    row = (_NEXT_ON_SQLITE if tx.dialect.name == "sqlite" else _NEXT_ON_POSTGRESQL).first(tx, {"dataset": dataset_id})
    if row is None:
        raise _deleted()
    return NextVersion(*row)


def take_number(tx: Transaction, dataset_id: int, number: int, created_at: datetime | None = None) -> NextVersion:
    """Ensure that this number is not reused. Its date is now, if none is given. Locks the dataset's row until the end of the
    transaction."""
    lock(tx, dataset_id)
    statement = update(datasets).where(datasets.c.id == dataset_id, datasets.c.last_version_number < number)
    tx.execute(statement.values(last_version_number=number))
    return NextVersion(number, created_at or tx.execute(select(utc_now())).scalar_one())


_COUNT = Prepared(
    select(func.count()).select_from(dataset_versions).where(dataset_versions.c.dataset_id == bindparam("dataset"))
)


def version_count(tx: Transaction, dataset_id: int) -> int:
    """The current number of versions of a dataset."""
    return int(_COUNT.one(tx, {"dataset": dataset_id})[0])


def _deleted() -> NotFound:
    return NotFound("This dataset was deleted. Open it again by name, if it was created again.")


def _record(row: Row[Any]) -> DatasetRecord:
    return DatasetRecord(*row)
