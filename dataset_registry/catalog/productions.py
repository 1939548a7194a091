"""Rows about productions: runs, the versions that they produced, and their exact inputs."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, Select, bindparam, func, insert, select, update

from dataset_registry.catalog.grants import Readable
from dataset_registry.catalog.prepared import inserting
from dataset_registry.catalog.rows import Transaction, batches, insert_row
from dataset_registry.catalog.tables import (
    dataset_pointers,
    dataset_versions,
    datasets,
    production_inputs,
    productions,
    users,
)
from dataset_registry.model.records import InputVersion, Production, Provenance


def record(
    tx: Transaction,
    *,
    version_id: int,
    branch: str | None,
    unchanged: bool,
    user_id: int | None,
    provenance: Provenance,
    inputs: Sequence["LinkedInput | None"],
    created_at: datetime | None = None,
) -> None:
    """Insert a production of a version; `inputs` are the rows of its inputs (see `find_input`), None for those not found."""
    row = {
        "version_id": version_id,
        "branch": branch,
        "unchanged": unchanged,
        "run_id": provenance.run_id,
        "step": provenance.step,
        "asset_key": provenance.asset_key,
        "partition_key": provenance.partition,
        "code_version": provenance.code_version,
        "memo_digest": provenance.memo_digest,
        "metadata": dict(provenance.metadata) or None,
        "created_by": user_id,
        **({"created_at": created_at} if created_at is not None else {}),
    }
    if not provenance.inputs:
        inserting(productions, tuple(row)).run(tx, row)
    else:
        production_id = insert_row(tx, productions, row)
        tx.execute(
            insert(production_inputs),
            [
                {
                    "production_id": production_id,
                    "position": position,
                    "label": read.label,
                    "dataset_name": read.dataset,
                    "version_number": read.version,
                    "digest": read.digest,
                    "ref": read.ref,
                    "fallback": read.fallback,
                    "components": list(read.components),
                    "version_id": linked.version_id if linked else None,
                    "dataset_id": linked.dataset_id if linked else None,
                    "version_uuid": linked.uuid if linked else None,
                }
                for position, (read, linked) in enumerate(zip(provenance.inputs, inputs, strict=True))
            ],
        )


class LinkedInput(NamedTuple):
    """The ids of a version that was read; only the UUID if it is not copied yet."""

    version_id: int | None
    dataset_id: int | None
    uuid: UUID | None


def find_input(tx: Transaction, read: InputVersion, among: Readable = None) -> LinkedInput | None:
    """The version that was read, by its UUID, else by name, number and digest; None when it is gone, or not `among` these
    datasets."""
    query = select(dataset_versions.c.id, dataset_versions.c.dataset_id, dataset_versions.c.uuid)
    if read.uuid is not None:
        query = query.where(dataset_versions.c.uuid == read.uuid)
    else:
        query = query.join(datasets, datasets.c.id == dataset_versions.c.dataset_id)
        query = query.where(datasets.c.name == read.dataset, dataset_versions.c.version_number == read.version)
        query = query if read.digest is None else query.where(dataset_versions.c.digest == read.digest)
    if among is not None:
        query = query.where(dataset_versions.c.dataset_id.in_(among))
    row = tx.execute(query).one_or_none()
    return LinkedInput(*row) if row else None


def link_inputs(tx: Transaction, dataset_id: int) -> None:
    """Link inputs with only a UUID to the versions of a dataset that exist by now."""
    came = dataset_versions.alias("came")
    of_dataset = (
        select(came.c.id).where(came.c.uuid == production_inputs.c.version_uuid, came.c.dataset_id == dataset_id)
    ).scalar_subquery()
    unlinked = production_inputs.c.version_id.is_(None) & production_inputs.c.version_uuid.in_(
        select(dataset_versions.c.uuid).where(dataset_versions.c.dataset_id == dataset_id)
    )
    tx.execute(update(production_inputs).where(unlinked).values(version_id=of_dataset, dataset_id=dataset_id))


_SELECT = (
    select(productions, dataset_versions.c.version_number, users.c.username)
    .join(dataset_versions, dataset_versions.c.id == productions.c.version_id)
    .outerjoin(users, users.c.id == productions.c.created_by)
)


def of_version(tx: Transaction, version_id: int, among: Readable = None) -> list[Production]:
    """Every production of a version, oldest first: the first one created it, the others left it unchanged. Inputs have
    the current names of their datasets; only those of datasets in `among` are returned."""
    return _load(tx, _SELECT.where(productions.c.version_id == version_id).order_by(productions.c.id), among)


def consumers(tx: Transaction, version_id: int, among: Readable = None) -> list[tuple[str, int]]:
    """Name and number of every version that was produced from this one; only of datasets in `among`."""
    query = (
        select(datasets.c.name, dataset_versions.c.version_number)
        .distinct()
        .join(dataset_versions, dataset_versions.c.dataset_id == datasets.c.id)
        .join(productions, productions.c.version_id == dataset_versions.c.id)
        .join(production_inputs, production_inputs.c.production_id == productions.c.id)
        .where(production_inputs.c.version_id == version_id)
        .order_by(datasets.c.name, dataset_versions.c.version_number)
    )
    query = query if among is None else query.where(datasets.c.id.in_(among))
    return [(row[0], row[1]) for row in tx.execute(query)]


def heads_built_from(
    tx: Transaction, dataset_id: int, branch: str, among: Readable = None
) -> list[tuple[str, int, list[str]]]:
    """The heads of a branch that were produced from any version of a dataset: the name, the number, and the components that
    were read (none for all); only of datasets in `among`."""
    query = (
        select(datasets.c.name, dataset_versions.c.version_number, production_inputs.c.components)
        .join(dataset_versions, dataset_versions.c.dataset_id == datasets.c.id)
        .join(dataset_pointers, dataset_pointers.c.dataset_version_id == dataset_versions.c.id)
        .join(productions, productions.c.version_id == dataset_versions.c.id)
        .join(production_inputs, production_inputs.c.production_id == productions.c.id)
        .where(production_inputs.c.dataset_id == dataset_id, datasets.c.id != dataset_id)
        .where(dataset_pointers.c.pointer_name == branch)
        .order_by(datasets.c.name, dataset_versions.c.version_number)
    )
    query = query if among is None else query.where(datasets.c.id.in_(among))
    return [(row[0], row[1], list(row[2] or ())) for row in tx.execute(query)]


def of_run(tx: Transaction, run_id: str, among: Readable = None) -> list[tuple[int, int, Production]]:
    """The productions of a run, oldest first, each with the ids of its dataset and version; only of datasets in `among`."""
    query = (
        select(productions.c.id, dataset_versions.c.dataset_id, productions.c.version_id)
        .join(dataset_versions, dataset_versions.c.id == productions.c.version_id)
        .where(productions.c.run_id == run_id)
        .order_by(productions.c.id)
    )
    query = query if among is None else query.where(dataset_versions.c.dataset_id.in_(among))
    rows = tx.execute(query).all()
    made = _load(tx, _SELECT.where(productions.c.run_id == run_id), among)
    by_id = {production.id: production for production in made}
    return [(dataset_id, version_id, by_id[number]) for number, dataset_id, version_id in rows]


def with_memo(tx: Transaction, dataset_id: int, digest: str, limit: int, among: Readable = None) -> list[Production]:
    """The productions of a dataset with this memo digest, newest first."""
    query = _SELECT.where(productions.c.memo_digest == digest, dataset_versions.c.dataset_id == dataset_id)
    return _load(tx, query.order_by(productions.c.id.desc()).limit(limit), among)


class LinkedRead(NamedTuple):
    """A version that was read to produce another: the ids of its dataset and its own, None where it is gone; and how it is
    named."""

    dataset_id: int | None
    version_id: int | None
    dataset: str
    number: int


def reads_of(tx: Transaction, version_ids: Sequence[int]) -> dict[int, list[LinkedRead]]:
    """The inputs of the newest production of each version that recorded any, by the id of the version."""
    newest = (
        select(productions.c.version_id, func.max(productions.c.id).label("id"))
        .join(production_inputs, production_inputs.c.production_id == productions.c.id)
        .where(productions.c.version_id.in_(bindparam("ids", expanding=True)))
        .group_by(productions.c.version_id)
        .subquery()
    )
    query = (
        select(
            newest.c.version_id.label("made_id"),
            production_inputs.c.version_id.label("input_id"),
            production_inputs.c.dataset_id,
            production_inputs.c.dataset_name,
            production_inputs.c.version_number,
            datasets.c.name.label("name_now"),
        )
        .join(newest, newest.c.id == production_inputs.c.production_id)
        .outerjoin(datasets, datasets.c.id == production_inputs.c.dataset_id)
        .order_by(production_inputs.c.position)
    )
    found: dict[int, list[LinkedRead]] = defaultdict(list)
    for chunk in batches(version_ids):
        for row in tx.execute(query, {"ids": chunk}):
            read = LinkedRead(row.dataset_id, row.input_id, row.name_now or row.dataset_name, row.version_number)
            found[row.made_id].append(read)
    return found


_INPUTS = (
    select(production_inputs, datasets.c.name.label("name_now"))
    .outerjoin(datasets, datasets.c.id == production_inputs.c.dataset_id)
    .order_by(production_inputs.c.production_id, production_inputs.c.position)
)


def _load(tx: Transaction, query: Select, among: Readable) -> list[Production]:  # type: ignore[type-arg]
    rows = tx.execute(query).all()
    inputs: dict[int, list[InputVersion]] = defaultdict(list)
    if rows:
        wanted = _INPUTS.where(production_inputs.c.production_id.in_([row.id for row in rows]))
        # An input whose dataset is not known is told to those who may read everything: its name may be another's by now.
        wanted = wanted if among is None else wanted.where(production_inputs.c.dataset_id.in_(among))
        for row in tx.execute(wanted):
            inputs[row.production_id].append(_input(row))
    return [
        Production(
            id=row.id,
            version=row.version_number,
            branch=row.branch,
            unchanged=row.unchanged,
            created_at=row.created_at,
            created_by=row.username,
            provenance=Provenance(
                run_id=row.run_id,
                step=row.step,
                asset_key=row.asset_key,
                partition=row.partition_key,
                code_version=row.code_version,
                inputs=tuple(inputs[row.id]),
                metadata=row.metadata or {},
                memo_digest=row.memo_digest,
            ),
        )
        for row in rows
    ]


def _input(row: Row[Any]) -> InputVersion:
    return InputVersion(
        row.name_now or row.dataset_name,
        row.version_number,
        row.digest,
        row.ref,
        tuple(row.components),
        row.fallback,
        row.label,
        row.version_uuid,
    )
