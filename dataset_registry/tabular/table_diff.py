"""The differences between two versions of a table: counted, or as rows side by side."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dataset_registry.errors import InputError
from dataset_registry.model.diff import RowSummary
from dataset_registry.model.schema import Column, widens
from dataset_registry.tabular.arrow import type_of
from dataset_registry.tabular.conflicts import free_name
from dataset_registry.tabular.engine import Engine
from dataset_registry.tabular.row_diff import Changes, row_changes
from dataset_registry.tabular.rows import Rows
from dataset_registry.tabular.table_merge import TableVersion

_TOGETHER = 1 << 15
"""Rows of a batch of a diff."""

SINGLE = b"registry.single_columns"
"""In the metadata of a stream of rows that differ: how many columns after the first are not pairs of before and after."""


@dataclass(frozen=True, slots=True)
class TableDiff:
    """The rows that differ between two tables; `columns` are those that are not of the key."""

    before: Rows
    after: Rows
    key: Sequence[str]
    changes: Changes

    @property
    def summary(self) -> RowSummary:
        """The counts."""
        found = self.changes
        removed, changed = int(found.removed.sum()), int(found.changed.sum())
        cells = {name: int(mask.sum()) for name, mask in found.cells.items()}
        return RowSummary(
            int(found.added.sum()),
            removed,
            changed,
            self.before.count - removed - changed,
            {name: count for name, count in cells.items() if count},
            tuple(self.key),
        )

    def reader(self, limit: int | None = None) -> pa.RecordBatchReader:
        """The rows, in the order of the tables: `change` (`added`, `removed`, `changed`), the key's columns, and of every other
        column the values `before_…` and `after_…`. Without a key, the columns of the rows."""
        schema = self._batch(np.empty(0, np.int64)).schema
        schema = schema.with_metadata({SINGLE: str(len(list(self.key) or self._same_columns()))})

        def batches() -> Iterator[pa.RecordBatch]:
            count = len(self.changes) if limit is None else min(limit, len(self.changes))
            for start in range(0, count, _TOGETHER):
                yield from self._batch(np.arange(start, min(start + _TOGETHER, count))).to_batches()

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _batch(self, chosen: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> pa.Table:
        found = self.changes
        before, after = found.before[chosen], found.after[chosen]
        kind = np.where(found.added[chosen], "added", np.where(found.removed[chosen], "removed", "changed"))
        old, new = self.before.take(before), self.after.take(after)
        is_new = pa.array(after >= 0)
        names: list[str] = []
        columns: list[pa.ChunkedArray | pa.Array] = []

        def add(name: str, values: pa.ChunkedArray | pa.Array) -> None:
            names.append(free_name(name, names))
            columns.append(values)

        add("change", pa.array(kind.tolist(), pa.string()))
        once = list(self.key) or self._same_columns()
        for name in once:
            add(name, pa.chunked_array([_chosen(is_new, new.column(name), old.column(name))]))
        rest = [name for name in self.after.schema.names if name not in once]
        for name in rest:
            add(f"before_{name}", old.column(name))
            add(f"after_{name}", new.column(name))
        return pa.table(columns, names=names)

    def _same_columns(self) -> list[str]:
        """The columns of a table without a key; none if their types differ."""
        return [f.name for f in self.after.schema if f.type == self.before.schema.field(f.name).type]


def _chosen(is_new: pa.Array, new: pa.ChunkedArray, old: pa.ChunkedArray) -> pa.Array:
    """The values of the new rows where there are any, else those of the old ones."""
    count = len(is_new)
    index = np.where(is_new.to_numpy(zero_copy_only=False), np.arange(count), np.arange(count) + count)
    both = pa.chunked_array([*new.chunks, *old.chunks], new.type)
    return both.take(pa.array(index)).combine_chunks()


def kept_open(reader: pa.RecordBatchReader, stack: ExitStack) -> pa.RecordBatchReader:
    """A stream that closes what it needs at its end."""

    def batches() -> Iterator[pa.RecordBatch]:
        with stack:
            yield from reader

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def compare_tables(
    before: TableVersion | None, after: TableVersion | None, engine: Engine, key: Sequence[str] = ()
) -> TableDiff:
    """The rows that differ between two versions of a table, of which one may be absent. `key` is used instead of the declared
    one. Columns are matched by their ids. Raises `InputError` for a key that is not unique, or not there."""
    there = after or before
    assert there is not None, "one of the two"
    old = {column.id: column for column in before.schema.columns} if before else {}
    new = {column.id: column for column in after.schema.columns} if after else {}
    fields: list[tuple[pa.Field, pa.Field]] = []
    names: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for column_id in dict.fromkeys([*new, *old]):
        was, now = old.get(column_id), new.get(column_id)
        shown = now or was
        assert shown is not None, "one of the two has it"
        name = free_name(shown.name, [f.name for f, _ in fields])
        kinds = _types(was or shown, now or shown)
        fields.append((pa.field(name, kinds[0]), pa.field(name, kinds[1])))
        if was is not None:
            names[0][name] = was.name
        if now is not None:
            names[1][name] = now.name
    left, right = (pa.schema([pair[i] for pair in fields]) for i in (0, 1))
    rows = [
        table.rows(schema, own) if table is not None else Rows([], schema, {})
        for table, schema, own in zip((before, after), (left, right), names, strict=True)
    ]
    chosen = _key(before, after, key, left.names)
    return TableDiff(rows[0], rows[1], chosen, row_changes(rows[0], rows[1], chosen, engine))


def _types(was: Column, now: Column) -> tuple[pa.DataType, pa.DataType]:
    """The types in which two columns are compared: the wider one, or each its own if neither holds the other's values."""
    if widens(was.type, now.type):
        return type_of(now), type_of(now)
    if widens(now.type, was.type):
        return type_of(was), type_of(was)
    return type_of(was), type_of(now)


def _key(
    before: TableVersion | None, after: TableVersion | None, given: Sequence[str], columns: Sequence[str]
) -> tuple[str, ...]:
    """The key to compare by: the given one, or the declared one if both tables have its columns."""
    if given:
        if missing := [name for name in given if name not in columns]:
            raise InputError(
                f"The key has the column {missing[0]!r}, which the tables have not. They have: {', '.join(columns)}.",
                column=missing[0],
            )
        return tuple(given)
    tables = [table for table in (after, before) if table is not None]
    for table in tables:
        key = table.schema.key
        if key and all(set(key) <= {column.name for column in other.schema.columns} for other in tables):
            return key
    return ()
