"""Stored tables as parts that can be compared and edited, and edited tables as staged content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from dataset_registry.access import Access
from dataset_registry.catalog import Transaction, files, manifests
from dataset_registry.content.source import CatalogContents
from dataset_registry.content.stage import Staged, keep_part, staged_table
from dataset_registry.content.stored import stored_file
from dataset_registry.errors import InputError
from dataset_registry.model.chunks import FileFacts, PartFacts
from dataset_registry.model.manifest import ComponentKey, Entry, component_label
from dataset_registry.model.parts import TABLE, Part, parts_digest
from dataset_registry.model.reading import kind_of
from dataset_registry.model.records import ComponentRecord, FileRecord
from dataset_registry.model.schema import ComponentSchema, TableSchema
from dataset_registry.store import Spool, Spooled
from dataset_registry.tabular import formats
from dataset_registry.tabular.edits import Edits, stream_edited, write_edited
from dataset_registry.tabular.parquet import combined_statistics, write_parts
from dataset_registry.tabular.rows import Rows, TablePart
from dataset_registry.tabular.table_merge import TableMerge, TableVersion


@dataclass(frozen=True, slots=True)
class StoredTable(TableVersion):
    """One table of a version, with the files of its parts in order."""

    files: Sequence[FileRecord] = ()


def stored_table(
    access: Access, tx: Transaction, version_id: int, entry: Entry, sheet: str | None = None
) -> StoredTable | None:
    """The table in a component, None for a component without one. Raises `InputError` if a spreadsheet has several sheets."""
    found = stored_tables(access, tx, version_id, entry)
    if not found:
        return None
    return found[_sheet(list(found), entry.key, sheet)]


def stored_tables(access: Access, tx: Transaction, version_id: int, entry: Entry) -> dict[str | None, StoredTable]:
    """The tables in a component: those of a spreadsheet by sheet, another one by None; none for plain bytes."""
    captured = {(n, i): schema for n, i, schema in manifests.schemas_of(tx, version_id, [entry.name])}.get(entry.key)
    if captured is None or kind_of(entry.format) not in formats.TABULAR:
        return {}
    contents = CatalogContents(access)
    (stored,) = files.objects_of(tx, [entry.file_id]).values()
    if entry.format != TABLE:
        load, content_hash = partial(contents.fetch, None, stored[0]), str(stored[0].content_hash)
        return {
            table.name: StoredTable(
                entry.key, [TablePart(content_hash, table.rows or 0, load, captured, table.name)], table, files=stored
            )
            for table in captured.tables
        }
    (table,) = captured.tables
    listed = files.parts_of(tx, [entry.file_id]).get(entry.file_id)
    rows = [table.rows or 0] if listed is None else [count for _, count in listed]
    parts = [
        TablePart(str(file.content_hash), count, partial(contents.fetch, None, file))
        for file, count in zip(stored, rows, strict=True)
    ]
    return {None: StoredTable(entry.key, parts, table, files=stored)}


def _sheet(names: Sequence[str | None], component: ComponentKey, sheet: str | None) -> str | None:
    """The sheet to read: the named one, or the only one. Raises `InputError`."""
    if sheet in names:
        return sheet
    if sheet is None and len(names) == 1:
        return names[0]
    raise InputError(
        f"{component_label(*component)!r} has the sheets {', '.join(map(str, names))}. Name one: sheet={names[0]!r}.",
        component=component[0],
    )


def staged_as_stored(access: Access, tx: Transaction, version_id: int, entry: Entry | ComponentRecord) -> Staged:
    """The content of a component of a version, to be committed again without its bytes."""
    captured = {(n, i): schema for n, i, schema in manifests.schemas_of(tx, version_id, [entry.name])}.get(
        (entry.name, entry.index)
    )
    assert entry.content_hash is not None, "a version with a digest has the hash of every component"
    (stored,) = files.objects_of(tx, [entry.file_id]).values()
    spooled = tuple(stored_file(access, file) for file in stored)
    parts = None
    if tables := files.parts_of(tx, [entry.file_id]).get(entry.file_id):
        parts = tuple(Part(str(file.content_hash), file.size, rows) for file, rows in tables)
    return Staged(entry.content_hash, sum(file.size for file in stored), entry.format, captured, spooled, parts)


def stage_merged(
    access: Access, spool: Spool, ours: StoredTable, merge: TableMerge, facts: Mapping[int, FileFacts]
) -> Staged:
    """A merged table. `facts` are those of the files of ours."""
    assert merge.sides is not None, "without conflicts of columns"
    if merge.is_rewritten:
        return stage_rewritten(spool, merge.sides.ours, merge.edits, merge.schema)
    return stage_edited(access, spool, replace(ours, schema=merge.schema), merge.edits, facts)


def stage_edited(
    access: Access, spool: Spool, table: StoredTable, edits: Edits, facts: Mapping[int, FileFacts]
) -> Staged:
    """A table after edits that leave its columns alone. Parts that no edit falls in are referenced. `facts` are those of its
    files."""
    cut, rows = table.schema.cut, table.own_rows()
    if cut is None:
        return stage_rewritten(spool, rows, edits, table.schema)
    found, cut = write_edited(rows, edits, cut, partial(keep_part, spool))
    spooled: list[Spooled] = []
    parts: list[Part] = []
    known: list[PartFacts] = []
    new: dict[str, FileFacts] = {}
    for item in found:
        if isinstance(item, int):
            file, count = table.files[item], table.parts[item].rows
            there = facts.get(file.id, FileFacts())
            spooled.append(stored_file(access, file))
            known.append(PartFacts(count, there.statistics, ()))
        else:
            (made, chunks), part = item
            spooled.append(made)
            known.append(part)
            new[made.content_hash] = FileFacts(chunks, part.statistics)
        parts.append(Part(spooled[-1].content_hash, spooled[-1].size, known[-1].rows))
    statistics = combined_statistics(table.schema.columns, known)
    schema = replace(table.schema, rows=sum(part.rows for part in parts), statistics=statistics, cut=cut)
    return Staged(
        parts_digest(parts),
        sum(part.size for part in parts),
        TABLE,
        ComponentSchema(TABLE, (schema,)),
        tuple({file.content_hash: file for file in spooled}.values()),
        tuple(parts),
        new,
    )


def stage_rewritten(spool: Spool, rows: Rows, edits: Edits, schema: TableSchema) -> Staged:
    """A table after edits, written as a whole; `schema` has its columns, key, chunking rule and writer's types."""
    written, table = write_parts(
        stream_edited(rows, edits), rows.schema, partial(keep_part, spool), key=schema.key, previous=schema.cut
    )
    origins = {column.name: column.origin for column in schema.columns}
    columns = tuple(replace(column, origin=origins.get(column.name)) for column in table.columns)
    table = replace(table, columns=columns, user_types=schema.user_types, library=schema.library)
    return staged_table(ComponentSchema(TABLE, (table,)), [(made, facts, chunks) for (made, chunks), facts in written])


def of_staged(spool: Spool, component: ComponentKey, staged: Staged) -> StoredTable:
    """A table that is staged, but stored nowhere. Raises `InputError` for content that is no table."""
    if staged.schema is None or not staged.schema.tables:
        raise InputError(
            f"The rows for {component[0]!r} are no table: pass a table, or a CSV, JSON, Excel or Parquet file."
        )
    tables = {table.name: table for table in staged.schema.tables}
    table = tables[_sheet(list(tables), component, None)]
    files = {file.content_hash: file for file in staged.spooled}
    if staged.parts is not None:
        parts = [TablePart(p.content_hash, p.rows, partial(spool.path, files[p.content_hash])) for p in staged.parts]
        return StoredTable(component, parts, table)
    schema = None if kind_of(staged.format) == TABLE else staged.schema
    (file,) = staged.spooled
    part = TablePart(file.content_hash, table.rows or 0, partial(spool.path, file), schema, table.name)
    return StoredTable(component, [part], table)
