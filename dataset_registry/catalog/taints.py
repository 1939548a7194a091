"""Rows about results of checks, taints, and what the content of a version was made from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Table, bindparam, delete, insert, select, union_all, update

from dataset_registry.catalog.manifests import changed_entries
from dataset_registry.catalog.prepared import Prepared
from dataset_registry.catalog.rows import Transaction
from dataset_registry.catalog.tables import (
    dataset_versions,
    datasets,
    users,
    version_checks,
    version_parents,
    version_sources,
    version_taints,
)
from dataset_registry.catalog.types import utc_now
from dataset_registry.model.checks import CheckResult, NewCheck, Taint
from dataset_registry.model.manifest import ComponentKey

_V, _T, _C = dataset_versions, version_taints, version_checks


# --- results of checks ---------------------------------------------------------------------------------------------------


def add_check(tx: Transaction, version_id: int, check: NewCheck, user_id: int | None) -> None:
    """Insert a result."""
    row = {
        "version_id": version_id,
        "name": check.name,
        "partition_key": check.partition,
        "passed": check.passed,
        "is_blocking": check.is_blocking,
        "severity": check.severity,
        "description": check.description,
        "metadata": dict(check.metadata) or None,
        "run_id": check.run_id,
        "created_by": user_id,
    }
    tx.execute(insert(_C), row)


def checks_of(tx: Transaction, version_id: int) -> list[CheckResult]:
    """The results on a version, oldest first."""
    query = (
        select(_C, _V.c.version_number, users.c.username)
        .join(_V, _V.c.id == _C.c.version_id)
        .outerjoin(users, users.c.id == _C.c.created_by)
        .where(_C.c.version_id == version_id)
        .order_by(_C.c.id)
    )
    return [
        CheckResult(
            row.name,
            row.passed,
            row.is_blocking,
            row.severity,
            row.description,
            row.metadata or {},
            row.partition_key,
            row.run_id,
            row.version_number,
            row.created_at,
            row.username,
        )
        for row in tx.execute(query)
    ]


# --- taints --------------------------------------------------------------------------------------------------------------


class OpenTaint(NamedTuple):
    """A taint that was not absolved: where it began, and in which partition (None for what that version changed)."""

    taint: Taint
    version_id: int
    partition: str | None


def add(
    tx: Transaction,
    *,
    version_id: int,
    dataset_id: int,
    source: str,
    reason: str,
    partition: str | None,
    user_id: int | None,
) -> None:
    """Insert a taint, or open it again. `source` identifies it: a run or a check."""
    mine = (_T.c.version_id == version_id, _T.c.source == source)
    found = tx.execute(select(_T.c.absolved_at).where(*mine)).one_or_none()
    if found is None:
        row = {
            "version_id": version_id,
            "dataset_id": dataset_id,
            "source": source,
            "reason": reason,
            "partition_key": partition,
            "created_by": user_id,
        }
        tx.execute(insert(_T), row)
    elif found[0] is not None:
        opened = {"absolved_at": None, "absolved_by": None, "absolved_because": None}
        tx.execute(update(_T).where(*mine).values(reason=reason, created_at=utc_now(), created_by=user_id, **opened))


_OPEN_IN = Prepared(
    select(
        _T.c.id,
        datasets.c.name,
        _V.c.version_number,
        _T.c.reason,
        _T.c.created_at,
        users.c.username,
        _T.c.version_id,
        _T.c.partition_key,
    )
    .join(_V, _V.c.id == _T.c.version_id)
    .join(datasets, datasets.c.id == _T.c.dataset_id)
    .outerjoin(users, users.c.id == _T.c.created_by)
    .where(_T.c.dataset_id == bindparam("dataset"), _T.c.absolved_at.is_(None))
    .order_by(_V.c.version_number, _T.c.id)
)


def open_in(tx: Transaction, dataset_id: int) -> list[OpenTaint]:
    """The taints of a dataset's versions that were not absolved, by version."""
    return [OpenTaint(Taint(*row[:6]), row[6], row[7]) for row in _OPEN_IN.all(tx, {"dataset": dataset_id})]


def datasets_with(tx: Transaction) -> list[int]:
    """The ids of the datasets with a taint that was not absolved."""
    return list(tx.execute(select(_T.c.dataset_id).where(_T.c.absolved_at.is_(None)).distinct()).scalars())


def absolve(tx: Transaction, taint_ids: Sequence[int], because: str, user_id: int | None) -> None:
    """Close taints."""
    _close(tx, _T.c.id.in_(taint_ids), because, user_id)


def lift(tx: Transaction, source: str, because: str, user_id: int | None, dataset_id: int) -> None:
    """Close the open taints of a run or a check in a dataset."""
    _close(tx, (_T.c.source == source) & (_T.c.dataset_id == dataset_id) & _T.c.absolved_at.is_(None), because, user_id)


def _close(tx: Transaction, which: ColumnElement[bool], because: str, user_id: int | None) -> None:
    values = {"absolved_at": utc_now(), "absolved_by": user_id, "absolved_because": because}
    tx.execute(update(_T).where(which).values(**values))


def remove(tx: Transaction, version_ids: Sequence[int]) -> None:
    """Delete what belongs to versions that are deleted."""
    for table in (version_checks, version_taints, version_sources):
        tx.execute(delete(table).where(table.c.version_id.in_(version_ids)))
    tx.execute(delete(version_sources).where(version_sources.c.source_id.in_(version_ids)))


# --- copies --------------------------------------------------------------------------------------------------------------

Rows = list[dict[str, Any]]


def rows_of(tx: Transaction, dataset_id: int) -> dict[str, Rows]:
    """What belongs to the versions of a dataset, by table, to be copied: `number` and `origin` are numbers of versions."""
    origin = dataset_versions.alias("origin")
    checks = select(_V.c.version_number.label("number"), *_own(version_checks)).join(_V, _V.c.id == _C.c.version_id)
    open_taints = (
        select(_V.c.version_number.label("number"), *_own(version_taints))
        .join(_V, _V.c.id == _T.c.version_id)
        .where(_T.c.absolved_at.is_(None))
    )
    made = (
        select(_V.c.version_number.label("number"), origin.c.version_number.label("origin"), version_sources.c.edited)
        .join(version_sources, version_sources.c.version_id == _V.c.id)
        .join(origin, origin.c.id == version_sources.c.source_id)
    )
    queries = {"checks": checks, "taints": open_taints, "sources": made}
    return {
        name: [dict(row._mapping) for row in tx.execute(query.where(_V.c.dataset_id == dataset_id))]
        for name, query in queries.items()
    }


def add_rows(tx: Transaction, dataset_id: int, rows: Mapping[str, Rows]) -> None:
    """Insert the rows of another registry whose versions are here, and that are not. A taint that was absolved here stays so."""
    numbers = tx.execute(select(_V.c.version_number, _V.c.id).where(_V.c.dataset_id == dataset_id))
    ids: dict[int, int] = {row[0]: row[1] for row in numbers}
    there = rows_of(tx, dataset_id)
    known = {(row["number"], row["name"], row["partition_key"], row["created_at"]) for row in there["checks"]}
    taints = {
        tuple(row) for row in tx.execute(select(_T.c.version_id, _T.c.source).where(_T.c.dataset_id == dataset_id))
    }
    made = {(row["number"], row["origin"]) for row in there["sources"]}
    for row in rows["checks"]:
        key = (row["number"], row["name"], row["partition_key"], row["created_at"])
        if row["number"] in ids and key not in known:
            tx.execute(insert(_C), {**_without_number(row), "version_id": ids[row["number"]]})
    for row in rows["taints"]:
        if row["number"] in ids and (ids[row["number"]], row["source"]) not in taints:
            own = {"version_id": ids[row["number"]], "dataset_id": dataset_id}
            tx.execute(insert(_T), {**_without_number(row), **own})
    for row in rows["sources"]:
        if {row["number"], row["origin"]} <= ids.keys() and (row["number"], row["origin"]) not in made:
            edge = {"version_id": ids[row["number"]], "source_id": ids[row["origin"]], "edited": row["edited"]}
            tx.execute(insert(version_sources), edge)


def _own(table: Table) -> list[Column[Any]]:
    """The columns of a table that another registry can have, too: no ids."""
    left_out = {"id", "version_id", "dataset_id", "created_by", "absolved_at", "absolved_by", "absolved_because"}
    return [column for column in table.c if column.name not in left_out]


def _without_number(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "number"}


# --- what content was made from --------------------------------------------------------------------------------------------


class Made(NamedTuple):
    """A version that was made from another: its id and number, the id of its first parent, whether that is the other one, and the
    components whose rows were edited."""

    version_id: int
    number: int
    first_parent: int | None
    is_first_parent: bool
    edited: frozenset[ComponentKey]


def add_source(tx: Transaction, version_id: int, source_id: int, edited: Sequence[ComponentKey] = ()) -> None:
    """Record that the content of a version was made from another one, which is no parent or whose rows were edited."""
    tx.execute(
        insert(version_sources),
        {"version_id": version_id, "source_id": source_id, "edited": [list(key) for key in edited]},
    )


def made_from(tx: Transaction, version_id: int) -> list[Made]:
    """The versions that were made from a version: its children, and those that took or restored its content."""
    children = union_all(
        select(_V.c.id).where(_V.c.parent_version_id == version_id),
        select(version_parents.c.version_id).where(version_parents.c.parent_id == version_id),
        select(version_sources.c.version_id).where(version_sources.c.source_id == version_id),
    )
    query = (
        select(_V.c.id, _V.c.version_number, _V.c.parent_version_id, version_sources.c.edited)
        .outerjoin(
            version_sources,
            (version_sources.c.version_id == _V.c.id) & (version_sources.c.source_id == version_id),
        )
        .where(_V.c.id.in_(children))
        .order_by(_V.c.version_number)
    )
    return [
        Made(row[0], row[1], row[2], row[2] == version_id, frozenset((name, index) for name, index in row[3] or ()))
        for row in tx.execute(query)
    ]


def changed(tx: Transaction, before: int, after: int) -> set[ComponentKey]:
    """The components in which two versions differ."""
    old, new = changed_entries(tx, before, after)
    left, right = ({entry.key: entry for entry in entries} for entries in (old, new))
    return {key for key in {*left, *right} if left.get(key) != right.get(key)}
