"""Rows for an expiry: histories with dates, versions in use by runs, inputs; and removing versions from the middle of a
history."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from dataset_registry.catalog import versions
from dataset_registry.catalog.files import STORED_SIZE
from dataset_registry.catalog.rows import Transaction, id_rows
from dataset_registry.catalog.tables import (
    dataset_pointers,
    dataset_versions,
    file_parts,
    file_ranges,
    files,
    manifest_entries,
    manifest_index_entries,
    production_inputs,
    productions,
    version_index_pages,
    version_parents,
    version_reads,
)
from dataset_registry.catalog.types import utc_now
from dataset_registry.model import history
from dataset_registry.model.maintenance import Dated

_V = dataset_versions
_parent = dataset_versions.alias("parent")


def dated(tx: Transaction, dataset_ids: Collection[int]) -> dict[int, list[Dated]]:
    """Every version of datasets that have any, newest first, by dataset."""
    of_these = _V.c.dataset_id.in_(id_rows(tx, dataset_ids))
    query = (
        select(_V.c.dataset_id, _V.c.id, _V.c.version_number, _V.c.ingestion_timestamp, _parent.c.version_number)
        .outerjoin(_parent, _parent.c.id == _V.c.parent_version_id)
        .where(of_these)
        .order_by(_V.c.dataset_id, _V.c.version_number.desc())
    )
    further = (
        select(version_parents.c.version_id, _parent.c.version_number)
        .join(_parent, _parent.c.id == version_parents.c.parent_id)
        .join(_V, _V.c.id == version_parents.c.version_id)
        .where(of_these)
        .order_by(version_parents.c.version_id, version_parents.c.position)
    )
    more: dict[int, list[int]] = defaultdict(list)
    for version_id, parent in tx.execute(further):
        more[version_id].append(parent)
    found: dict[int, list[Dated]] = defaultdict(list)
    for dataset_id, version_id, number, created_at, first in tx.execute(query):
        parents = (() if first is None else (first,)) + tuple(more.get(version_id, ()))
        found[dataset_id].append(Dated(version_id, number, created_at, parents))
    return found


READER_SECONDS = 7 * 24 * 3600
"""How long the reads of an actor with read permission protect a version from expiry, since its first read."""


def in_use(tx: Transaction, runs: Collection[str] | None, seconds: int, just_now: int) -> set[int]:
    """The ids of versions that runs have read or written: these runs and any of the last `just_now` seconds (they may have
    started after the list was made), or without a list any of the last `seconds`."""
    since = utc_now(-(seconds if runs is None else just_now))
    lately = productions.c.created_at >= since
    read_lately = version_reads.c.read_at >= since
    if runs:
        lately |= productions.c.run_id.in_(runs)
        read_lately |= version_reads.c.run_id.in_(runs)
    by_run = productions.c.run_id.is_not(None) & lately
    before, at_first = productions.alias("before"), production_inputs.alias("at_first")
    held_for_long = exists().where(
        at_first.c.version_id == production_inputs.c.version_id,
        before.c.id == at_first.c.production_id,
        before.c.created_by == productions.c.created_by,
        before.c.created_at < utc_now(-READER_SECONDS),
    )
    inputs = (
        select(production_inputs.c.version_id)
        .join(productions, productions.c.id == production_inputs.c.production_id)
        .where(by_run, production_inputs.c.version_id.is_not(None), ~held_for_long)
    )
    by_writers = version_reads.c.first_read_at.is_(None)
    read_lately &= by_writers | (version_reads.c.first_read_at >= utc_now(-READER_SECONDS))
    queries = (
        select(productions.c.version_id).where(by_run),
        inputs,
        select(version_reads.c.version_id).where(read_lately),
    )
    return {version_id for query in queries for version_id in tx.execute(query.distinct()).scalars()}


def note_read(tx: Transaction, run_id: str, version_id: int, reader_id: int | None) -> None:
    """Record that a run reads a version, which is locked against deletion.

    `reader_id` is the user if it may only read.
    """
    key = {"run_id": run_id, "version_id": version_id}
    if tx.execute(update(version_reads).filter_by(**key).values(read_at=utc_now())).rowcount:
        return
    row: dict[str, object] = dict(key)
    if reader_id is not None:
        earlier = select(func.min(version_reads.c.first_read_at)).filter_by(version_id=version_id, reader_id=reader_id)
        row |= {"reader_id": reader_id, "first_read_at": tx.execute(earlier).scalar() or utc_now()}
    tx.execute(insert(version_reads).values(row))


def was_read_lately(tx: Transaction, run_id: str, version_id: int, seconds: int) -> bool:
    """Whether a run was noted to read a version within the last `seconds`."""
    query = select(version_reads.c.run_id).filter_by(run_id=run_id, version_id=version_id)
    return tx.execute(query.where(version_reads.c.read_at >= utc_now(-seconds))).first() is not None


def consumption(tx: Transaction) -> list[tuple[int, int]]:
    """Every pair of version ids of which the first was produced from the second."""
    query = (
        select(productions.c.version_id, production_inputs.c.version_id)
        .join(production_inputs, production_inputs.c.production_id == productions.c.id)
        .where(production_inputs.c.version_id.is_not(None))
    )
    return [(row[0], row[1]) for row in tx.execute(query.distinct())]


def needed_as_inputs(tx: Transaction, version_ids: Sequence[int], dying: Collection[int]) -> set[int]:
    """Those of these versions that are inputs of a version that is not deleted itself."""
    query = (
        select(production_inputs.c.version_id, productions.c.version_id)
        .join(productions, productions.c.id == production_inputs.c.production_id)
        .where(production_inputs.c.version_id.in_(version_ids))
    )
    return {made_from for made_from, made in tx.execute(query.distinct()) if made not in dying}


def lock(tx: Transaction, dataset_id: int, version_ids: Sequence[int]) -> list[int]:
    """Lock versions of a dataset against new references until the transaction ends.

    Returns those that still exist, in order.
    """
    query = (
        select(_V.c.id)
        .where(_V.c.dataset_id == dataset_id, _V.c.id.in_(version_ids))
        .order_by(_V.c.id)
        .with_for_update()
    )
    return list(tx.execute(query).scalars())


def pointed_at(tx: Transaction, version_ids: Sequence[int]) -> set[int]:
    """Those of these versions that are the head of a branch, a tag, or the base of a branch."""
    columns = (dataset_pointers.c.dataset_version_id, dataset_pointers.c.base_version_id)
    return {
        found for column in columns for found in tx.execute(select(column).where(column.in_(version_ids))).scalars()
    }


def splice_out(tx: Transaction, version_ids: Sequence[int]) -> None:
    """Replace locked versions, which are about to be deleted, by their parents in their children."""
    removed = set(version_ids)
    first = select(_V.c.id).where(_V.c.parent_version_id.in_(version_ids))
    further = select(version_parents.c.version_id).where(version_parents.c.parent_id.in_(version_ids))
    children = ({*tx.execute(first).scalars()} | {*tx.execute(further).scalars()}) - removed
    parents = _parent_ids(tx, [*children, *removed])
    for child in sorted(children):
        now = history.splice(child, parents, removed)
        versions.link(tx, child, now)
    tx.execute(delete(version_parents).where(version_parents.c.version_id.in_(version_ids)))


def _parent_ids(tx: Transaction, version_ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
    first = select(_V.c.id, _V.c.parent_version_id).where(_V.c.id.in_(version_ids))
    found: dict[int, tuple[int, ...]] = {row[0]: (() if row[1] is None else (row[1],)) for row in tx.execute(first)}
    further = select(version_parents.c.version_id, version_parents.c.parent_id).where(
        version_parents.c.version_id.in_(version_ids)
    )
    for version_id, parent in tx.execute(further.order_by(version_parents.c.version_id, version_parents.c.position)):
        found[version_id] = (*found[version_id], parent)
    return found


def bytes_only_in(tx: Transaction, version_ids: Collection[int]) -> int:
    """The size of the objects that only these versions reference, which is freed once they are deleted and collected.

    Goes top-down from versions to index pages to pages to files, so that the cost depends on the deleted pages only.
    """
    dying = id_rows(tx, version_ids).cte("dying")
    index_pages = _only_in(version_index_pages.c.index_page_id, version_index_pages.c.version_id, dying.c.id)
    index_cte = index_pages.cte("dead_index_pages")
    pages = _only_in(manifest_index_entries.c.page_id, manifest_index_entries.c.index_page_id, index_cte.c.id)
    page_cte = pages.cte("dead_pages")
    named = _only_in(manifest_entries.c.file_id, manifest_entries.c.page_id, page_cte.c.id).cte("named_by_dead_pages")
    tables = select(named.c.id).join(files, files.c.id == named.c.id).where(files.c.form == "parts").cte("dead_tables")
    parts = select(file_parts.c.part_id.label("id")).where(file_parts.c.file_id.in_(select(tables.c.id)))
    candidate = select(named.c.id).union(parts).cte("candidates")
    living = manifest_entries.c.page_id.not_in(select(page_cte.c.id))

    def unnamed(file: ColumnElement[int]) -> ColumnElement[bool]:
        return and_(
            ~exists().where(manifest_entries.c.file_id == file, living),
            ~exists().where(file_parts.c.part_id == file, file_parts.c.file_id.not_in(select(tables.c.id))),
            ~exists().where(_V.c.overlay_file_id == file, _V.c.id.not_in(select(dying.c.id))),
        )

    dead = select(candidate.c.id).where(unnamed(candidate.c.id)).cte("dead")
    ranges = select(file_ranges.c.object_id.label("id")).where(file_ranges.c.file_id.in_(select(dead.c.id)))
    objects = select(dead.c.id).union(ranges).cte("objects")
    in_a_recipe = exists().where(
        file_ranges.c.object_id == objects.c.id, file_ranges.c.file_id.not_in(select(dead.c.id))
    )
    freed = select(objects.c.id).where(unnamed(objects.c.id), ~in_a_recipe)
    query = select(func.coalesce(func.sum(STORED_SIZE), 0)).where(files.c.id.in_(freed))
    return int(tx.execute(query).scalar_one())


def _only_in(thing: Any, owner: Any, owners: ColumnElement[int]) -> Any:
    """The things of a table (column `thing`) whose every owner (column `owner`) is among `owners`."""
    every = thing.table.alias()
    mine = select(thing).where(owner.in_(select(owners)))
    outside = case((every.c[owner.name].in_(select(owners)), 0), else_=1)
    things = every.c[thing.name]
    return select(things.label("id")).where(things.in_(mine)).group_by(things).having(func.max(outside) == 0)
