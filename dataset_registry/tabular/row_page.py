"""The first rows of a row diff as texts, for people."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from dataset_registry.tabular.preview import shortened, texts_of
from dataset_registry.tabular.table_diff import SINGLE

MOST_COLUMNS = 60
"""Columns that are shown."""


@dataclass(frozen=True, slots=True)
class CellChange:
    """A value on both sides, None for null, and whether it differs."""

    before: str | None
    after: str | None
    differs: bool


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row that differs: `added`, `removed` or `changed`; its values that are the same on both sides, and the others."""

    change: str
    values: Sequence[str | None]
    cells: Sequence[CellChange]


@dataclass(frozen=True, slots=True)
class RowPage:
    """Rows that differ. `columns` are those of `values` (the key, or all columns of a table without one), `compared` those of
    `cells`. With `is_cut` there are more rows, with `is_narrowed` more columns."""

    columns: Sequence[str]
    compared: Sequence[str]
    rows: Sequence[RowChange]
    is_cut: bool
    is_narrowed: bool


def row_page(reader: pa.RecordBatchReader, *, changed: str | None, text: str | None, limit: int, most: int) -> RowPage:
    """The first rows of a stream of `TableDiff.reader`: those in which the column `changed` differs, and those with a text in a
    value of the key. At most `most` rows are looked at."""
    names = reader.schema.names
    single = int((reader.schema.metadata or {})[SINGLE])
    columns, pairs = names[1 : 1 + single], names[1 + single :: 2]
    compared = [name.removeprefix("before_") for name in pairs]
    shown = range(min(len(compared), MOST_COLUMNS))
    wanted = compared.index(changed) if changed in compared else None
    rows: list[RowChange] = []
    looked_at, is_cut = 0, False
    for batch in reader:
        kinds = batch.column(0).to_pylist()
        values = [texts_of(batch.column(1 + i)) for i in range(min(single, MOST_COLUMNS))]
        sides = {
            i: (texts_of(batch.column(1 + single + 2 * i)), texts_of(batch.column(2 + single + 2 * i)))
            for i in {*shown, *(() if wanted is None else (wanted,))}
        }
        types = {i: batch.column(1 + single + 2 * i).type == batch.column(2 + single + 2 * i).type for i in sides}
        for at, kind in enumerate(kinds):
            looked_at += 1
            own = [column[at] for column in values]
            if text is not None and not any(text.casefold() in (value or "").casefold() for value in own):
                continue
            differs = {i: before[at] != after[at] or not types[i] for i, (before, after) in sides.items()}
            if wanted is not None and not differs[wanted]:
                continue
            if len(rows) == limit:
                is_cut = True
                break
            cells = [
                CellChange(shortened(sides[i][0][at]), shortened(sides[i][1][at]), differs[i] and kind == "changed")
                for i in shown
            ]
            rows.append(RowChange(kind, [shortened(value) for value in own], cells))
        if is_cut or looked_at >= most:
            is_cut = is_cut or looked_at >= most
            break
    is_narrowed = single > MOST_COLUMNS or len(compared) > MOST_COLUMNS
    return RowPage(columns[:MOST_COLUMNS], compared[:MOST_COLUMNS], rows, is_cut, is_narrowed)
