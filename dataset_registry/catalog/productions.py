"""Rows about productions: which run made which version from exactly which others."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, insert, select, update

from dataset_registry.catalog.engine import Transaction, insert_row
from dataset_registry.catalog.grants import Readable
from dataset_registry.catalog.tables import dataset_versions, datasets, production_inputs, productions, users
from dataset_registry.model.records import InputVersion, Production, Provenance


def record(
    tx: Transaction,
    *,
    version_id: int,
    branch: str | None,
    unchanged: bool,
    user_id: int | None,
    provenance: Provenance,
    input_ids: Sequence[int | None],
    created_at: datetime | None = None,
) -> None:
    """Insert a production of a version; `input_ids` are the row ids of the inputs that still exist."""
    row = {
        "version_id": version_id,
        "branch": branch,
        "unchanged": unchanged,
        "run_id": provenance.run_id,
        "step": provenance.step,
        "asset_key": provenance.asset_key,
        "partition_key": provenance.partition,
        "code_version": provenance.code_version,
        "metadata": dict(provenance.metadata) or None,
        "created_by": user_id,
        **({"created_at": created_at} if created_at is not None else {}),
    }
    production_id = insert_row(tx, productions, row)
    if provenance.inputs:
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
                    "version_id": version_id,
                }
                for position, (read, version_id) in enumerate(zip(provenance.inputs, input_ids, strict=True))
            ],
        )


def input_id(tx: Transaction, dataset: str, number: int, digest: str | None, among: Readable = None) -> int | None:
    """The row id of a version that was read, None when it is gone (its dataset may be another one by now), or not `among`
    these datasets."""
    query = select(dataset_versions.c.id).join(datasets, datasets.c.id == dataset_versions.c.dataset_id)
    if digest is not None:
        query = query.where(dataset_versions.c.digest == digest)
    if among is not None:
        query = query.where(datasets.c.id.in_(among))
    return tx.execute(query.where(datasets.c.name == dataset, dataset_versions.c.version_number == number)).scalar()


def link_inputs(tx: Transaction, dataset: str) -> None:
    """Let inputs from a dataset that are known by their facts alone name its versions, where these have come by now."""
    made_from = (
        select(dataset_versions.c.id)
        .join(datasets, datasets.c.id == dataset_versions.c.dataset_id)
        .where(datasets.c.name == dataset)
        .where(dataset_versions.c.version_number == production_inputs.c.version_number)
        .where(dataset_versions.c.digest == production_inputs.c.digest)
        .scalar_subquery()
    )
    unlinked = production_inputs.c.version_id.is_(None) & (production_inputs.c.dataset_name == dataset)
    tx.execute(update(production_inputs).where(unlinked).values(version_id=made_from))


_SELECT = (
    select(productions, dataset_versions.c.version_number, users.c.username)
    .join(dataset_versions, dataset_versions.c.id == productions.c.version_id)
    .outerjoin(users, users.c.id == productions.c.created_by)
)


def of_version(tx: Transaction, version_id: int) -> list[Production]:
    """Every production of a version, oldest first: the first one made it, the others found it unchanged."""
    return _load(tx, _SELECT.where(productions.c.version_id == version_id).order_by(productions.c.id))


def consumers(tx: Transaction, version_id: int, among: Readable = None) -> list[tuple[str, int]]:
    """Name and number of every version that a production made from this one; only of datasets `among` these."""
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


def _load(tx: Transaction, query: Select) -> list[Production]:  # type: ignore[type-arg]
    rows = tx.execute(query).all()
    inputs: dict[int, list[InputVersion]] = defaultdict(list)
    if rows:
        wanted = select(production_inputs).where(production_inputs.c.production_id.in_([row.id for row in rows]))
        for row in tx.execute(wanted.order_by(production_inputs.c.production_id, production_inputs.c.position)):
            inputs[row.production_id].append(
                InputVersion(
                    row.dataset_name,
                    row.version_number,
                    row.digest,
                    row.ref,
                    tuple(row.components),
                    row.fallback,
                    row.label,
                )
            )
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
            ),
        )
        for row in rows
    ]
