"""Consistency checks of the catalog: every digest recomputed, every rule checked. Reads only."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from sqlalchemy import and_, exists, func, or_, select, text, update

from dataset_registry.catalog import file_checks, manifests, structure
from dataset_registry.catalog.rows import Transaction
from dataset_registry.catalog.tables import (
    dataset_pointers,
    dataset_versions,
    datasets,
    file_parts,
    file_ranges,
    files,
    inline_contents,
    manifest_entries,
    manifest_index_entries,
    manifest_index_pages,
    manifest_pages,
    schemas,
    version_index_pages,
    version_parents,
)
from dataset_registry.model.manifest import Entry, index_digest, page_digest, schema_digest, sort_key, version_digest
from dataset_registry.model.parts import TABLE, Part, legacy_parts_digest, parts_digest

_RANGE = 2000
"""Row ids that are read together."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An inconsistency. `kind` is stable; `rows` are the ids that a repair needs."""

    kind: str
    what: str
    rows: tuple[int, ...] = ()


def database(tx: Transaction) -> Iterator[Problem]:
    """The integrity check of SQLite; PostgreSQL checks its pages itself."""
    if tx.dialect.name != "sqlite":
        return
    for (message,) in tx.execute(text("PRAGMA quick_check(20)")):
        if message != "ok":
            yield Problem("database", f"SQLite finds its file damaged: {message}")
    for table, row, parent, _ in tx.execute(text("PRAGMA foreign_key_check")):
        yield Problem("reference", f"row {row} of {table} references a missing row of {parent}")


def structure_of(tx: Transaction) -> Iterator[Problem]:
    """Missing keys, references, indexes, views and triggers."""
    yield from (Problem("structure", what) for what in structure.problems(tx))


def schema_digests(tx: Transaction) -> Iterator[Problem]:
    """Schema snapshots that do not match their digest."""
    for _, rows in _ranges(tx, select(schemas.c.id, schemas.c.digest, schemas.c.schema_json), schemas.c.id):
        for row in rows:
            if schema_digest(row.schema_json) != row.digest:
                yield Problem("schema", f"the schema {row.digest[:12]} was changed since it was captured", (row.id,))


def pages(tx: Transaction) -> Iterator[Problem]:
    """Pages whose digest, count or last key is not that of their entries, and unreferenced pages."""
    entries = (
        select(
            manifest_entries.c.page_id,
            manifest_entries.c.component_name,
            manifest_entries.c.component_index,
            manifest_entries.c.component_type,
            files.c.content_hash,
            manifest_entries.c.format,
            manifest_entries.c.metadata,
        )
        .join(files, files.c.id == manifest_entries.c.file_id)
        .order_by(manifest_entries.c.page_id, manifest_entries.c.component_name, manifest_entries.c.component_index)
    )
    named = exists().where(manifest_index_entries.c.page_id == manifest_pages.c.id)
    for first, rows in _ranges(tx, select(manifest_pages, named.label("named")), manifest_pages.c.id):
        within = entries.where(manifest_entries.c.page_id.between(first, rows[-1].id))
        held = {
            page_id: [Entry(row[1], row[2], row[3], row[4] or "", row[5], row[6]) for row in group]
            for page_id, group in groupby(tx.execute(within), key=lambda row: row[0])
        }
        for row in rows:
            if not row.named:
                yield Problem("unnamed-page", f"no version references page {row.id}", (row.id,))
                continue
            found = held.get(row.id, [])
            last = found[-1].key if found else None
            ordered = all(sort_key(a.key) < sort_key(b.key) for a, b in pairwise(found))
            right = row.digest is None or page_digest(found) == row.digest
            if not (right and ordered and len(found) == row.entry_count and last == (row.last_name, row.last_index)):
                index = select(manifest_index_entries.c.index_page_id).where(manifest_index_entries.c.page_id == row.id)
                what = f"page {row.id} ({_holders(tx, index)}) does not match its digest"
                yield Problem("page", what, (row.id,))


def index_pages(tx: Transaction) -> Iterator[Problem]:
    """Index pages whose digest or count is not that of their pages, and unreferenced index pages."""
    below = (
        select(manifest_index_entries.c.index_page_id, manifest_pages.c.digest, manifest_pages.c.entry_count)
        .join(manifest_pages, manifest_pages.c.id == manifest_index_entries.c.page_id)
        .order_by(manifest_index_entries.c.index_page_id, manifest_index_entries.c.position)
    )
    named = exists().where(version_index_pages.c.index_page_id == manifest_index_pages.c.id)
    for first, rows in _ranges(tx, select(manifest_index_pages, named.label("named")), manifest_index_pages.c.id):
        within = below.where(manifest_index_entries.c.index_page_id.between(first, rows[-1].id))
        held = _grouped(tx, within)
        for row in rows:
            found = held.get(row.id, [])
            if not row.named:
                yield Problem("unnamed-index-page", f"no version references index page {row.id}", (row.id,))
            elif not _agrees(row.digest, row.entry_count, found, index_digest):
                what = f"index page {row.id} ({_holders(tx, [row.id])}) does not match its digest"
                yield Problem("page", what, (row.id,))


def versions(tx: Transaction) -> Iterator[Problem]:
    """Versions whose digest or component count is not that of their pages, or that come before their parents."""
    below = (
        select(version_index_pages.c.version_id, manifest_index_pages.c.digest, manifest_index_pages.c.entry_count)
        .join(manifest_index_pages, manifest_index_pages.c.id == version_index_pages.c.index_page_id)
        .order_by(version_index_pages.c.version_id, version_index_pages.c.position)
    )
    every = select(
        dataset_versions.c.id,
        dataset_versions.c.version_number,
        dataset_versions.c.digest,
        dataset_versions.c.component_count,
        datasets.c.name,
    ).join(datasets, datasets.c.id == dataset_versions.c.dataset_id)
    for first, rows in _ranges(tx, every, dataset_versions.c.id):
        held = _grouped(tx, below.where(version_index_pages.c.version_id.between(first, rows[-1].id)))
        for row in rows:
            if not _agrees(row.digest, row.component_count, held.get(row.id, []), version_digest):
                yield Problem("manifest", f"{row.name}@v{row.version_number} does not match its digest", (row.id,))


def graph(tx: Transaction) -> Iterator[Problem]:
    """Parents that are not earlier versions of the same dataset, pointers out of their dataset, counters that lag."""
    parent = dataset_versions.alias("parent")
    wrong = or_(
        parent.c.dataset_id != dataset_versions.c.dataset_id,
        parent.c.version_number >= dataset_versions.c.version_number,
        parent.c.depth >= dataset_versions.c.depth,
    )
    named = select(dataset_versions.c.id, datasets.c.name, dataset_versions.c.version_number)
    first = named.join(parent, parent.c.id == dataset_versions.c.parent_version_id)
    further = named.join(version_parents, version_parents.c.version_id == dataset_versions.c.id).join(
        parent, parent.c.id == version_parents.c.parent_id
    )
    for query in (first, further):
        joined = query.join(datasets, datasets.c.id == dataset_versions.c.dataset_id)
        for version_id, name, number in tx.execute(joined.where(wrong)):
            yield Problem("graph", f"{name}@v{number} has a parent that does not come before it", (version_id,))
    stray = (
        select(datasets.c.name, dataset_pointers.c.pointer_name, dataset_pointers.c.id)
        .join(datasets, datasets.c.id == dataset_pointers.c.dataset_id)
        .join(dataset_versions, dataset_versions.c.id == dataset_pointers.c.dataset_version_id)
        .where(dataset_versions.c.dataset_id != dataset_pointers.c.dataset_id)
    )
    for name, pointer, pointer_id in tx.execute(stray):
        yield Problem("pointer", f"{pointer!r} of {name} references a version of another dataset", (pointer_id,))
    newest = (
        select(dataset_versions.c.dataset_id, func.max(dataset_versions.c.version_number).label("number"))
        .group_by(dataset_versions.c.dataset_id)
        .subquery()
    )
    lagging = select(datasets.c.id, datasets.c.name).join(newest, newest.c.dataset_id == datasets.c.id)
    for dataset_id, name in tx.execute(lagging.where(newest.c.number > datasets.c.last_version_number)):
        yield Problem("counter", f"{name} would assign a version number twice", (dataset_id,))


def tables(tx: Transaction) -> Iterator[Problem]:
    """Tables whose parts do not match their hash, and stored files without an object."""
    part = files.alias("part")
    query = (
        select(file_parts.c.file_id, part.c.content_hash, part.c.file_size, file_parts.c.row_count)
        .join(part, part.c.id == file_parts.c.part_id)
        .order_by(file_parts.c.file_id, file_parts.c.position)
    )
    every = select(files.c.id, files.c.content_hash, files.c.file_size).where(files.c.form == "parts")
    for first, rows in _ranges(tx, every, files.c.id):
        within = query.where(file_parts.c.file_id.between(first, rows[-1].id))
        held = {
            file_id: [Part(*row[1:]) for row in group]
            for file_id, group in groupby(tx.execute(within), key=lambda row: row[0])
        }
        for row in rows:
            found = held.get(row.id, [])
            if (
                row.content_hash not in (parts_digest(found), legacy_parts_digest(found))
                or sum(p.size for p in found) != row.file_size
            ):
                users = ", ".join(file_checks.users_of(tx, row.id)) or "of no version"
                yield Problem(
                    "table", f"the table {row.content_hash[:12]} ({users}) does not have its parts", (row.id,)
                )
    bare = and_(
        files.c.content_hash.is_not(None),
        files.c.damage.is_(None),
        files.c.form.in_(("whole", "pack")),
        files.c.object_key.is_(None),
    )
    for file_id, content_hash in tx.execute(select(files.c.id, files.c.content_hash).where(bare)):
        yield Problem("file", f"the file {(content_hash or '?')[:12]} has no object", (file_id,))


def forms(tx: Transaction) -> Iterator[Problem]:
    """Components whose format contradicts the form of their file: a plain file that is a list of parts or a pack; and
    parts of tables that are tables themselves."""
    named = (
        select(files.c.id, files.c.content_hash, files.c.form)
        .distinct()
        .join(manifest_entries, manifest_entries.c.file_id == files.c.id)
        .where(or_(files.c.form == "pack", and_(files.c.form == "parts", manifest_entries.c.format != TABLE)))
    )
    for file_id, content_hash, form in tx.execute(named):
        what = "the list of a table's parts" if form == "parts" else "a pack"
        users = ", ".join(file_checks.users_of(tx, file_id))
        yield Problem("form", f"the file {content_hash[:12]} ({users}) is a plain file and {what} at once", (file_id,))
    length = func.length(inline_contents.c.data)
    inline = select(files.c.id, files.c.content_hash, files.c.form == "inline")
    inline = inline.outerjoin(inline_contents, inline_contents.c.file_id == files.c.id)
    missing = and_(files.c.form == "inline", files.c.damage.is_(None), func.coalesce(length, -1) != files.c.file_size)
    surplus = and_(files.c.form != "inline", inline_contents.c.file_id.is_not(None))
    for file_id, content_hash, is_inline in tx.execute(inline.where(or_(missing, surplus))):
        what = "lacks its bytes, or some of them," if is_inline else "has an object, and bytes"
        yield Problem("form", f"the file {content_hash[:12]} {what} in the catalog", (file_id,))
    nested = select(files.c.id, files.c.content_hash, files.c.form).distinct()
    nested = nested.join(file_parts, file_parts.c.part_id == files.c.id).where(files.c.form.in_(("parts", "pack")))
    for file_id, content_hash, form in tx.execute(nested):
        yield Problem(
            "form", f"the file {content_hash[:12]} is a part of a table, and of form {form!r} itself", (file_id,)
        )


def recipes(tx: Transaction) -> Iterator[Problem]:
    """Recipes whose ranges are not as long as the file, or not inside of plain objects."""
    length = (
        select(func.coalesce(func.sum(file_ranges.c.byte_count), 0))
        .where(file_ranges.c.file_id == files.c.id)
        .scalar_subquery()
    )
    holder = files.alias("holder")
    outside = (
        exists()
        .where(file_ranges.c.file_id == files.c.id, holder.c.id == file_ranges.c.object_id)
        .where(
            or_(
                holder.c.object_key.is_(None),
                holder.c.compression_type.is_not(None),
                file_ranges.c.object_offset + file_ranges.c.byte_count > holder.c.file_size,
                file_ranges.c.object_offset < 0,
                file_ranges.c.byte_count <= 0,
            )
        )
    )
    wrong = and_(files.c.form == "ranges", or_(length != files.c.file_size, outside))
    for file_id, content_hash in tx.execute(select(files.c.id, files.c.content_hash).where(wrong)):
        users = ", ".join(file_checks.users_of(tx, file_id)) or "of no version"
        yield Problem("recipe", f"the file {content_hash[:12]} ({users}) does not match its ranges", (file_id,))


def _holders(tx: Transaction, index_pages: Any) -> str:
    """Some of the versions that reference index pages, newest first."""
    query = (
        select(datasets.c.name, dataset_versions.c.version_number, dataset_versions.c.id)
        .distinct()
        .join(dataset_versions, dataset_versions.c.dataset_id == datasets.c.id)
        .join(version_index_pages, version_index_pages.c.version_id == dataset_versions.c.id)
        .where(version_index_pages.c.index_page_id.in_(index_pages))
        .order_by(dataset_versions.c.id.desc())
        .limit(5)
    )
    return ", ".join(f"{name}@v{number}" for name, number, _ in tx.execute(query))


def _agrees(
    digest: str | None, count: int, below: Sequence[tuple[str | None, int]], hash: Callable[[Iterable[str]], str]
) -> bool:
    """Whether a digest and a count are those of what is below; what was not adopted yet has no digest."""
    if sum(held for _, held in below) != count:
        return False
    digests = [found for found, _ in below if found is not None]
    return digest is None or (len(digests) == len(below) and hash(digests) == digest)


def _grouped(tx: Transaction, query: Any) -> dict[int, list[tuple[str | None, int]]]:
    return {
        owner: [(row[1], row[2]) for row in group]
        for owner, group in groupby(tx.execute(query), key=lambda row: row[0])
    }


def _ranges(tx: Transaction, query: Any, key: Any) -> Iterator[tuple[int, Sequence[Any]]]:
    """The rows of a query in the order of their ids, some at a time, each time with the first id."""
    after = 0
    while rows := tx.execute(query.where(key > after).order_by(key).limit(_RANGE)).all():
        yield rows[0].id, rows
        after = rows[-1].id


def repair(tx: Transaction, kind: str, rows: Sequence[int]) -> None:
    """Repair findings of `pages`, `index_pages` and `graph` on which nothing depends."""
    if kind == "unnamed-page":
        manifests.drop_unnamed(tx, [], rows)
    elif kind == "unnamed-index-page":
        manifests.drop_unnamed(tx, rows, [])
    elif kind == "counter":
        newest = select(func.max(dataset_versions.c.version_number)).where(
            dataset_versions.c.dataset_id == datasets.c.id
        )
        lagging = datasets.c.last_version_number < newest.scalar_subquery()
        values = {"last_version_number": newest.scalar_subquery()}
        tx.execute(update(datasets).where(datasets.c.id.in_(rows), lagging).values(values))
