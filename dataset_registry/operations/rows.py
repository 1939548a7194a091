"""Edits of rows in a commit: rows that are appended to a table, upserted into it, or deleted from it.

Before a commit stores anything, its edits become components to set, each a table that shares its unchanged parts with the
previous version. If the component changes on the branch in the meantime, the edits are applied to the new head.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dataset_registry.access import Access
from dataset_registry.catalog import Transaction, files, manifests
from dataset_registry.content.change import Change, RowEdit, StagedComponent
from dataset_registry.content.stage import Staged
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.chunks import FileFacts
from dataset_registry.model.manifest import ComponentKey, Entry, component_label
from dataset_registry.model.names import suggestion
from dataset_registry.model.parts import TABLE
from dataset_registry.model.records import DatasetRecord, Head, NewDataset
from dataset_registry.model.schema import has_fields_of, renamed
from dataset_registry.store import Spool

if TYPE_CHECKING:
    from dataset_registry.content.tables import StoredTable
    from dataset_registry.tabular.edits import Edits
    from dataset_registry.tabular.engine import Engine
    from dataset_registry.tabular.rows import Rows


def applied(
    access: Access, spool: Spool, dataset: DatasetRecord | NewDataset, change: Change, base: Head | None
) -> Change:
    """The change with its row edits as components to set. Raises `InputError`, `NotFound` for a table that is not there."""
    from dataset_registry.tabular.engine import Engine

    found = replace(change, put=dict(change.put), edits={})
    with Engine(spool.folder) as engine:
        for key, edit in change.edits.items():
            found.put[key] = _applied(access, spool, engine, dataset, base, key, edit)
    return found


def _applied(
    access: Access,
    spool: Spool,
    engine: "Engine",
    dataset: DatasetRecord | NewDataset,
    base: Head | None,
    key: ComponentKey,
    edit: RowEdit,
) -> StagedComponent:
    from dataset_registry.content.tables import of_staged, stage_edited
    from dataset_registry.tabular.combine import types_of_both

    with access.catalog.read() as tx:
        entry = _entry(tx, base, key)
        table = _table(access, tx, base, entry)
        facts = files.facts_of(tx, [file.id for file in table.files]) if table else {}
    given = of_staged(spool, key, edit.staged) if edit.staged is not None else None
    if entry is None or table is None:
        if given is None or edit.action == "delete":
            raise NotFound(
                f"{dataset.name} has no table {component_label(*key)!r} whose rows could be deleted.", component=key[0]
            )
        return StagedComponent(_new_table(spool, engine, given, edit))
    edits = _edits(engine, table, given, edit, facts)
    if given is not None and edit.action != "delete":
        table = replace(table, schema=replace(table.schema, user_types=types_of_both(table.schema, given.schema)))
    staged = stage_edited(access, spool, table, edits, facts)
    return StagedComponent(staged, entry.type, json.loads(entry.metadata or "{}"))


def with_renames(
    access: Access, spool: Spool, dataset: DatasetRecord | NewDataset, change: Change, base: Head | None
) -> Change:
    """The change with those of its likely renames whose columns have the same values as before."""
    from dataset_registry.content.tables import of_staged
    from dataset_registry.tabular.row_diff import has_same_values

    found = dict(change.put)
    for key, component in change.put.items():
        staged = component.staged
        if not staged.likely or staged.schema is None:
            continue
        with access.catalog.read() as tx:
            entry = _entry(tx, base, key)
            table = None if entry is None or entry.format != TABLE else _table(access, tx, base, entry)
        if table is None:
            continue
        before, after = table.own_rows(), of_staged(spool, key, staged).own_rows()
        same = tuple(pair for pair in staged.likely if has_same_values(before, after, *pair))
        (captured,) = staged.schema.tables
        columns = renamed(captured.columns, table.schema, same)
        schema = replace(staged.schema, tables=(replace(captured, columns=columns),))
        found[key] = replace(component, staged=replace(staged, schema=schema, likely=()))
    return replace(change, put=found)


def _entry(tx: Transaction, base: Head | None, key: ComponentKey) -> Entry | None:
    if base is None:
        return None
    return next((entry for entry in manifests.StoredManifest(tx, base.id).named(key[0]) if entry.key == key), None)


def _table(access: Access, tx: Transaction, base: Head | None, entry: Entry | None) -> "StoredTable | None":
    """The table to edit. Raises `InputError` for a component that is a file."""
    from dataset_registry.content.tables import stored_table

    if base is None or entry is None:
        return None
    if entry.format != TABLE or (found := stored_table(access, tx, base.id, entry)) is None:
        raise InputError(
            f"{component_label(*entry.key)!r} is a {entry.format} file, which is stored as it was delivered. Rows are edited in "
            "tables: commit it as a table first, for example version.to_arrow().",
            component=entry.name,
        )
    return found


def _new_table(spool: Spool, engine: "Engine", given: "StoredTable", edit: RowEdit) -> Staged:
    """The first rows of a table."""
    from dataset_registry.content.tables import stage_rewritten
    from dataset_registry.tabular import row_edits
    from dataset_registry.tabular.edits import Edits

    key = edit.key or given.schema.key
    if edit.action == "upsert" and not key:
        raise InputError("upsert needs a key: the columns that identify a row, for example key=['id'].")
    rows = given.own_rows()
    if key:
        row_edits.refuse_given_duplicates(rows, key, engine)
    schema = replace(given.schema, name=None, key=tuple(key), source=None, notes=(), cut=None)
    return stage_rewritten(spool, rows, Edits(), schema)


def _edits(
    engine: "Engine",
    table: "StoredTable",
    given: "StoredTable | None",
    edit: RowEdit,
    facts: Mapping[int, FileFacts],
) -> "Edits":
    from dataset_registry.tabular import row_edits

    rows = table.own_rows()
    if given is None:
        assert edit.where is not None, "an edit has rows or a condition"
        return row_edits.delete_where(rows, edit.where, engine)
    statistics = [facts.get(file.id, FileFacts()).statistics for file in table.files]
    columns = [column.name for column in given.schema.columns]
    there = rows.schema.names
    if unknown := [name for name in columns if name not in there]:
        raise InputError(
            f"The rows have a column {unknown[0]!r}, which {table.label!r} has not. {suggestion(unknown[0], there)} To add a "
            "column, commit the table with it.",
            column=unknown[0],
        )
    key = table.schema.key
    if edit.key and edit.key != key:
        raise InputError(
            f"The key of {table.label!r} is ({', '.join(key) or 'none'}), not ({', '.join(edit.key)}). To change it, commit "
            "the table with the other key.",
            key=list(edit.key),
        )
    _refuse_other_values(table, given)
    aligned = _aligned(rows, given, columns)
    if edit.action == "append":
        _refuse_missing(table, columns, [c.name for c in table.schema.columns if not c.nullable or c.name in key])
        return row_edits.append(rows, aligned, key, statistics, engine)
    if edit.action == "delete":
        return row_edits.delete(rows, aligned, columns, statistics, engine)
    if not key:
        raise InputError(
            f"{table.label!r} has no key, so rows cannot be replaced. Commit it once with key=[…], the columns that identify a "
            "row, or append.",
            component=table.component[0],
        )
    _refuse_missing(table, columns, key)
    return row_edits.upsert(rows, aligned, key, statistics, engine, columns)


def _refuse_other_values(table: "StoredTable", given: "StoredTable") -> None:
    """Refuse nulls where the table has none, and structs with other fields. Raises `InputError`."""
    columns = {column.name: column for column in table.schema.columns}
    for column in given.schema.columns:
        there, facts = columns[column.name], given.schema.statistics.get(column.name)
        if not there.nullable and facts is not None and facts.null_count:
            raise InputError(
                f"The rows have a null in {column.name!r}, which is not null in {table.label!r}.", column=column.name
            )
        if column.fields and not (has_fields_of(column, there) and has_fields_of(there, column)):
            raise InputError(
                f"{column.name!r} is {column.type} in the rows, and {there.type} in {table.label!r}. Give it the same fields.",
                column=column.name,
            )


def _aligned(rows: "Rows", given: "StoredTable", columns: Sequence[str]) -> "Rows":
    """The given rows with the columns and types of the table; a column that they lack is null."""
    return given.rows(rows.schema, {name: name for name in columns})


def _refuse_missing(table: "StoredTable", columns: Sequence[str], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in columns]:
        raise InputError(
            f"The rows have no column {missing[0]!r}, which {table.label!r} needs in every row. Add it.",
            column=missing[0],
        )
