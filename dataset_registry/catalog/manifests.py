"""Manifest pages as rows: loading what an operation needs of them, storing what is new, dropping what is unreferenced."""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from dataset_registry.catalog.prepared import Prepared, is_pipelined
from dataset_registry.catalog.rows import Transaction, batches, insert_row, insert_rows, spare_id
from dataset_registry.catalog.tables import (
    dataset_version_files,
    file_captures,
    files,
    manifest_entries,
    manifest_index_entries,
    manifest_index_pages,
    manifest_pages,
    schemas,
    version_index_pages,
)
from dataset_registry.model.manifest import ComponentKey, Entry, IndexPage, Manifest, Page, sort_key
from dataset_registry.model.records import ComponentRecord
from dataset_registry.model.schema import ComponentSchema


def _columns(pages: Table) -> list[ColumnElement[Any]]:
    return [pages.c.id, pages.c.digest, pages.c.entry_count, pages.c.last_name, pages.c.last_index]


_INDEX = Prepared(
    select(*_columns(manifest_index_pages))
    .join(version_index_pages, version_index_pages.c.index_page_id == manifest_index_pages.c.id)
    .where(version_index_pages.c.version_id == bindparam("version"))
    .order_by(version_index_pages.c.position)
)
_PAGES = Prepared(
    select(*_columns(manifest_pages))
    .join(manifest_index_entries, manifest_index_entries.c.page_id == manifest_pages.c.id)
    .where(manifest_index_entries.c.index_page_id == bindparam("page"))
    .order_by(manifest_index_entries.c.position)
)
_ENTRY_COLUMNS = (
    manifest_entries.c.component_name,
    manifest_entries.c.component_index,
    manifest_entries.c.component_type,
    files.c.content_hash,
    manifest_entries.c.metadata,
    manifest_entries.c.file_id,
    manifest_entries.c.schema_id,
    manifest_entries.c.format,
)
_ENTRIES = Prepared(
    select(*_ENTRY_COLUMNS)
    .join(files, files.c.id == manifest_entries.c.file_id)
    .where(manifest_entries.c.page_id == bindparam("page"))
    .order_by(manifest_entries.c.component_name, manifest_entries.c.component_index)
)
_SMALL = 64
"""Entries up to which a manifest is loaded at once, where each statement would be a round trip."""
_SMALL_INDEX = (
    select(version_index_pages.c.index_page_id)
    .join(manifest_index_pages, manifest_index_pages.c.id == version_index_pages.c.index_page_id)
    .where(version_index_pages.c.version_id == bindparam("version"), version_index_pages.c.position == 0)
    .where(manifest_index_pages.c.entry_count <= _SMALL)
    .scalar_subquery()
)
_SMALL_PAGES = Prepared(
    select(*_columns(manifest_pages))
    .join(manifest_index_entries, manifest_index_entries.c.page_id == manifest_pages.c.id)
    .where(manifest_index_entries.c.index_page_id == _SMALL_INDEX)
    .order_by(manifest_index_entries.c.position)
)
_SMALL_ENTRIES = Prepared(
    select(*_ENTRY_COLUMNS)
    .join(files, files.c.id == manifest_entries.c.file_id)
    .where(
        manifest_entries.c.page_id
        == select(manifest_index_entries.c.page_id)
        .where(manifest_index_entries.c.index_page_id == _SMALL_INDEX, manifest_index_entries.c.position == 0)
        .scalar_subquery()
    )
    .order_by(manifest_entries.c.component_name, manifest_entries.c.component_index)
)


class StoredManifest:
    """A version's manifest, whose pages are loaded on first use and cached.

    Pages are found by their last key, so looking up a component costs three statements for any number of components.
    """

    def __init__(self, tx: Transaction, version_id: int) -> None:
        self._tx = tx
        self._pages: dict[int | None, tuple[Page, ...]] = {}
        self._entries: dict[int | None, tuple[Entry, ...]] = {}
        wanted = {"version": version_id}
        queries = (_INDEX, _SMALL_PAGES, _SMALL_ENTRIES) if is_pipelined(tx) else (_INDEX,)
        asked = [query.ask(tx, wanted) for query in queries]
        rows, *small = [answer() for answer in asked]
        self.manifest = Manifest(tuple(IndexPage(_last(row), row[1], row[2], row[0]) for row in rows))
        if small and small[0]:
            pages = self._pages[rows[0][0]] = tuple(map(_page, small[0]))
            self._entries[pages[0].id] = tuple(map(_entry, small[1]))

    def pages(self, index: IndexPage) -> tuple[Page, ...]:
        """The pages below an index page."""
        if index.id not in self._pages:
            self._pages[index.id] = tuple(map(_page, _PAGES.all(self._tx, {"page": index.id})))
        return self._pages[index.id]

    def entries(self, page: Page) -> tuple[Entry, ...]:
        """The entries of a page, in order."""
        if page.id not in self._entries:
            self._entries[page.id] = tuple(map(_entry, _ENTRIES.all(self._tx, {"page": page.id})))
        return self._entries[page.id]

    def named(self, name: str) -> Iterator[Entry]:
        """The entries of a component, of every index."""
        return takewhile(lambda entry: entry.name == name, self.since(name))

    def prefixed(self, prefix: str) -> Iterator[Entry]:
        """The entries whose names start with `prefix`."""
        return takewhile(lambda entry: entry.name.startswith(prefix), self.since(prefix))

    def slice(self, start: int, count: int) -> list[Entry]:
        """The entries from a position on, at most `count`. Only their pages are loaded."""
        found: list[Entry] = []
        for index in self.manifest.index:
            if start >= index.count:
                start -= index.count
                continue
            for page in self.pages(index):
                if start >= page.count:
                    start -= page.count
                    continue
                found += self.entries(page)[start : start + count - len(found)]
                start = 0
                if len(found) >= count:
                    return found
        return found

    def since(self, name: str) -> Iterator[Entry]:
        """The entries from this name on, in order; all of them from the empty name on."""
        first = sort_key((name, 0))
        for index in self.manifest.index[_reaching(self.manifest.index, first) :]:
            pages = self.pages(index)
            for page in pages[_reaching(pages, first) :]:
                yield from (entry for entry in self.entries(page) if sort_key(entry.key) >= first)


def _reaching(pages: Sequence[Page | IndexPage], key: tuple[bytes, int]) -> int:
    """The position of the first page whose last key is not before `key`."""
    return bisect_left(pages, key, key=lambda page: sort_key(page.last))


def store(tx: Transaction, version_id: int, manifest: Manifest) -> None:
    """Insert the new pages and link all pages to the version.

    Pages with an id belong to a version that this transaction has locked: they cannot be deleted in the meantime.
    """
    index_ids = []
    for index in manifest.index:
        if index.id is not None:
            index_ids.append(index.id)
            continue
        page_ids = [page.id if page.id is not None else _store_page(tx, page) for page in index.pages or ()]
        index_id = _insert_page(tx, manifest_index_pages, index)
        insert_rows(
            tx,
            manifest_index_entries,
            ("index_page_id", "position", "page_id"),
            [(index_id, i, page_id) for i, page_id in enumerate(page_ids)],
        )
        index_ids.append(index_id)
    insert_rows(
        tx,
        version_index_pages,
        ("version_id", "position", "index_page_id"),
        [(version_id, i, page_id) for i, page_id in enumerate(index_ids)],
    )


_ENTRY_FIELDS = (
    "page_id",
    "component_name",
    "component_index",
    "component_type",
    "file_id",
    "schema_id",
    "format",
    "metadata",
)


def _store_page(tx: Transaction, page: Page) -> int:
    page_id = _insert_page(tx, manifest_pages, page)
    rows = [
        (page_id, e.name, e.index, e.type, e.file_id, e.schema_id, e.format, e.metadata) for e in page.entries or ()
    ]
    insert_rows(tx, manifest_entries, _ENTRY_FIELDS, rows)
    return page_id


def _insert_page(tx: Transaction, table: Table, page: Page | IndexPage) -> int:
    row = {"digest": page.digest, "entry_count": page.count, "last_name": page.last[0], "last_index": page.last[1]}
    return insert_row(tx, table, row, spare_id(tx, table))


def drop(tx: Transaction, version_ids: Sequence[int]) -> None:
    """Delete the manifests of these versions, and the pages that no other version references.

    Pages are locked by id before they are checked: of two deletions that share a page, the second one then sees that
    the first is done, and deletes the page (without the lock, both would leave it permanently).
    """
    named = version_index_pages.c.version_id.in_(version_ids)
    index_ids = _lock(tx, manifest_index_pages, select(version_index_pages.c.index_page_id).where(named))
    tx.execute(delete(version_index_pages).where(named))
    _drop_pages(tx, index_ids)


def drop_unnamed(tx: Transaction, index_ids: Sequence[int], page_ids: Sequence[int]) -> None:
    """Drop those of these pages, and of the pages below them, that nothing references."""
    _drop_pages(
        tx,
        _lock(
            tx, manifest_index_pages, select(manifest_index_pages.c.id).where(manifest_index_pages.c.id.in_(index_ids))
        ),
    )
    _drop_entries(tx, _lock(tx, manifest_pages, select(manifest_pages.c.id).where(manifest_pages.c.id.in_(page_ids))))


def _drop_pages(tx: Transaction, index_ids: Sequence[int]) -> None:
    """Drop those of these locked unreferenced index pages, with the pages that only they name."""
    dead = _unnamed(tx, index_ids, version_index_pages.c.index_page_id)
    below = manifest_index_entries.c.index_page_id.in_(bindparam("ids", expanding=True))
    page_ids: list[int] = []
    for ids in batches(dead):
        page_ids += _lock(tx, manifest_pages, select(manifest_index_entries.c.page_id).where(below), {"ids": ids})
        tx.execute(delete(manifest_index_entries).where(below), {"ids": ids})
        tx.execute(delete(manifest_index_pages).where(manifest_index_pages.c.id.in_(ids)))
    _drop_entries(tx, page_ids)


def _drop_entries(tx: Transaction, page_ids: Sequence[int]) -> None:
    """Drop those of these locked unreferenced pages, with their entries."""
    for ids in batches(_unnamed(tx, page_ids, manifest_index_entries.c.page_id)):
        tx.execute(delete(manifest_entries).where(manifest_entries.c.page_id.in_(ids)))
        tx.execute(delete(manifest_pages).where(manifest_pages.c.id.in_(ids)))


def _lock(
    tx: Transaction, table: Table, ids: Select[tuple[int]], parameters: Mapping[str, object] | None = None
) -> list[int]:
    query = select(table.c.id).where(table.c.id.in_(ids)).order_by(table.c.id).with_for_update()
    return list(tx.execute(query, parameters or {}).scalars())


def _unnamed(tx: Transaction, ids: Iterable[int], reference: ColumnElement[int]) -> list[int]:
    dead: list[int] = []
    for chunk in batches(sorted(set(ids))):
        named = set(tx.execute(select(reference).where(reference.in_(chunk))).scalars())
        dead += [page_id for page_id in chunk if page_id not in named]
    return dead


# --- reading -------------------------------------------------------------------------------------------------------

_FILES = dataset_version_files


def components(tx: Transaction, version_id: int, names: Sequence[str] | None = None) -> Iterator[ComponentRecord]:
    """A version's components in order; only those of `names` when given."""
    query = (
        select(
            _FILES.c.component_name,
            _FILES.c.component_index,
            _FILES.c.component_type,
            files.c.content_hash,
            files.c.file_size,
            _FILES.c.format,
            _FILES.c.file_id,
            _FILES.c.metadata,
        )
        .join(files, files.c.id == _FILES.c.file_id)
        .where(_FILES.c.version_id == version_id, *_among(tx, names))
        .order_by(_FILES.c.component_name, _FILES.c.component_index)
    )
    return map(_component, tx.execute(query))


def changed_entries(tx: Transaction, before: int, after: int) -> tuple[list[Entry], list[Entry]]:
    """The entries of two versions on pages that the other one does not have, which include every difference."""

    def only(mine: int, other: int) -> list[Entry]:
        ours, theirs = version_index_pages.alias(), version_index_pages.alias()
        shared_index = exists().where(theirs.c.version_id == other, theirs.c.index_page_id == ours.c.index_page_id)
        index_ids = select(ours.c.index_page_id).where(ours.c.version_id == mine, ~shared_index)
        other_pages = (
            select(manifest_index_entries.c.page_id)
            .join(version_index_pages, version_index_pages.c.index_page_id == manifest_index_entries.c.index_page_id)
            .where(version_index_pages.c.version_id == other)
        )
        query = (
            select(*_ENTRY_COLUMNS)
            .select_from(manifest_index_entries)
            .join(manifest_entries, manifest_entries.c.page_id == manifest_index_entries.c.page_id)
            .join(files, files.c.id == manifest_entries.c.file_id)
            .where(manifest_index_entries.c.index_page_id.in_(index_ids))
            .where(manifest_index_entries.c.page_id.not_in(other_pages))
            .order_by(manifest_entries.c.component_name, manifest_entries.c.component_index)
        )
        return list(map(_entry, tx.execute(query)))

    return only(before, after), only(after, before)


def schemas_of(
    tx: Transaction, version_id: int, names: Sequence[str] | None = None
) -> Iterator[tuple[str, int, ComponentSchema]]:
    """Name, index and schema (with statistics) of every component that has one; only those of `names` when given."""
    query = (
        select(
            _FILES.c.component_name,
            _FILES.c.component_index,
            schemas.c.id,
            schemas.c.schema_json,
            file_captures.c.statistics_json,
        )
        .join(schemas, schemas.c.id == _FILES.c.schema_id)
        .outerjoin(
            file_captures,
            and_(
                file_captures.c.file_id == _FILES.c.file_id,
                file_captures.c.format == _FILES.c.format,
                file_captures.c.schema_id == _FILES.c.schema_id,
            ),
        )
        .where(_FILES.c.version_id == version_id, *_among(tx, names))
        .order_by(_FILES.c.component_name, _FILES.c.component_index)
    )
    for name, index, _, snapshot, statistics in tx.execute(query):
        yield name, index, ComponentSchema.from_json(snapshot, statistics or ())


def schema_count(tx: Transaction, version_id: int, names: Sequence[str]) -> int:
    """The number of different schemas of components."""
    query = select(func.count(_FILES.c.schema_id.distinct())).where(
        _FILES.c.version_id == version_id, *_among(tx, names)
    )
    return int(tx.execute(query).scalar_one())


def _among(tx: Transaction, names: Sequence[str] | None) -> list[ColumnElement[bool]]:
    """The condition that a component has one of these names; many are one parameter, as JSON."""
    if names is None:
        return []
    if len(names) <= _FEW:
        return [_FILES.c.component_name.in_(names)]
    listed = json.dumps(list(names))
    values = (
        func.json_each(listed).table_valued("value")
        if tx.dialect.name == "sqlite"
        else func.jsonb_array_elements_text(cast(literal(listed, Text), JSONB)).table_valued("value")
    )
    return [_FILES.c.component_name.in_(select(values.c.value))]


_FEW = 500


def _last(row: Sequence[Any]) -> ComponentKey:
    return (row[3], row[4])


def _page(row: Sequence[Any]) -> Page:
    return Page(_last(row), row[1], row[2], row[0])


def _entry(row: Sequence[Any]) -> Entry:
    name, index, kind, content_hash, metadata, file_id, schema_id, format = row
    return Entry(name, index, kind, content_hash or "", format, metadata, file_id, schema_id)


def _component(row: Row[Any]) -> ComponentRecord:
    name, index, kind, content_hash, size, format, file_id, metadata = row
    return ComponentRecord(
        name, index, kind, content_hash, size, format, file_id, json.loads(metadata) if metadata else {}
    )
