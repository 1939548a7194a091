"""A preview of the rows of a table as texts: a page of them, filtered by one column and sorted by another, in bounded time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset_registry.errors import InputError
from dataset_registry.model.names import suggestion
from dataset_registry.model.schema import ComponentSchema
from dataset_registry.tabular import capture
from dataset_registry.tabular.parquet import INT96_UNIT

OPERATORS = ("=", "≠", "<", "≤", ">", "≥", "contains", "is null", "is not null")
MOST_ROWS = 10_000
"""The last row that a sorted or filtered preview can show."""
_SECONDS = 4.0
"""Seconds of looking at rows; a preview of the rows looked at until then says so."""
_LONGEST = 200
"""Characters of a cell."""
_SAMPLE = 1 << 16
"""Rows of a sample."""
BINS = 16
"""Bars of a histogram."""


@dataclass(frozen=True, slots=True)
class PreviewQuery:
    """What to show: columns (all if empty), a filter, an order, and which rows of what that gives."""

    columns: Sequence[str] = ()
    filter_column: str | None = None
    operator: str = "="
    value: str = ""
    sort: str | None = None
    is_descending: bool = False
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Preview:
    """Rows as texts, None for null. `types` are those of the columns; `looked_at` is the number of rows that were looked at, and
    `is_partial` says that there are more. `has_more` says that another page follows. `distributions` has the histogram of each
    column of numbers, dates or times, over `sampled` rows from the first of the page on; None for other columns."""

    columns: Sequence[str]
    types: Sequence[str]
    rows: Sequence[Sequence[str | None]]
    looked_at: int
    is_partial: bool = False
    has_more: bool = False
    distributions: Sequence[Sequence[int] | None] = field(default_factory=list)
    sampled: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PreviewSource:
    """The files of a table in order, each with the number of its rows; `schema` and `sheet` are those of a delivered file."""

    paths: Sequence[Path]
    counts: Sequence[int]
    schema: ComponentSchema | None = None
    sheet: str | None = None
    tables: dict[int, pa.Table] = field(default_factory=dict)

    def schema_of_rows(self) -> pa.Schema:
        """The Arrow schema of the rows."""
        if self.schema is not None:
            return self._delivered().schema
        return pq.read_schema(self.paths[0])

    def _delivered(self) -> pa.Table:
        assert self.schema is not None
        if 0 not in self.tables:
            self.tables[0] = capture.read(self.paths[0], self.schema, self.sheet)
        return self.tables[0]

    def groups(self) -> Iterator[tuple[int, Callable[[Sequence[str]], pa.Table]]]:
        """The row groups in order: the number of rows, and a function that reads columns of them."""
        if self.schema is not None:
            table = self._delivered()
            yield table.num_rows, lambda columns: table.select(list(columns))
            return
        for path in self.paths:
            file = pq.ParquetFile(path, memory_map=True, coerce_int96_timestamp_unit=INT96_UNIT)
            for group in range(file.num_row_groups):

                def read(columns: Sequence[str], file: pq.ParquetFile = file, group: int = group) -> pa.Table:
                    return file.read_row_group(group, columns=list(columns)).select(list(columns))

                yield file.metadata.row_group(group).num_rows, read


def preview(source: PreviewSource, query: PreviewQuery) -> Preview:
    """A page of a table. Raises `InputError` for unknown columns and values that the column cannot have."""
    schema = source.schema_of_rows()
    wanted = list(query.columns) or schema.names
    for name in [*wanted, *filter(None, (query.filter_column, query.sort))]:
        if name not in schema.names:
            raise InputError(f"The table has no column {name!r}. {suggestion(name, schema.names)}", column=name)
    if query.filter_column is None and query.sort is None:
        table, looked_at, has_more, sample = _slice(source, wanted, query.offset, query.limit, schema)
        found = _shown(table, looked_at, is_partial=False, has_more=has_more)
        return replace(found, distributions=[histogram(column) for column in sample.columns], sampled=sample.num_rows)
    if query.offset + query.limit > MOST_ROWS:
        raise InputError(f"A sorted or filtered preview shows the first {MOST_ROWS:,} rows. Narrow the filter.")
    return _searched(source, wanted, query, schema)


def _slice(
    source: PreviewSource, wanted: Sequence[str], offset: int, limit: int, schema: pa.Schema
) -> tuple[pa.Table, int, bool, pa.Table]:
    """The rows, the number of rows looked at, whether others follow, and a sample from the row groups that were read."""
    empty = pa.schema([schema.field(name) for name in wanted]).empty_table()
    found, sample = [empty], empty
    start, missing = offset, limit
    for count, read in source.groups():
        if start >= count:
            start -= count
            continue
        if not missing:
            return pa.concat_tables(found), offset + limit, True, sample
        rows = read(wanted)
        sample = sample if sample.num_rows else rows.slice(start, _SAMPLE)
        piece = rows.slice(start, missing)
        found.append(piece)
        missing -= piece.num_rows
        has_more_here = start + piece.num_rows < count
        start = 0
        if has_more_here:
            return pa.concat_tables(found), offset + limit, True, sample
    return pa.concat_tables(found), offset + limit - missing, False, sample


def histogram(column: pa.ChunkedArray) -> list[int] | None:
    """The number of values in each of `BINS` ranges of equal width; None for columns without numbers, dates or times, and for
    values that are all equal."""
    kind = column.type
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        column = column.cast(width)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    values = column.drop_null().to_numpy().astype(np.float64)
    values = values[np.isfinite(values)]
    if not len(values) or values.min() == values.max():
        return None
    scale = max(abs(values.min()), abs(values.max()))
    counts, _ = np.histogram(values / scale, bins=BINS)
    return [int(count) for count in counts]


def _searched(source: PreviewSource, wanted: Sequence[str], query: PreviewQuery, schema: pa.Schema) -> Preview:
    """The rows that a filter selects, or the first ones of an order: first their places, then the rows themselves."""
    needed = list(dict.fromkeys(filter(None, (query.filter_column, query.sort))))
    test = _test(query, schema)
    last = query.offset + query.limit + 1
    deadline, looked_at, is_partial = monotonic() + _SECONDS, 0, False
    best: pa.Table | None = None
    groups = list(source.groups())
    for at, (count, read) in enumerate(groups):
        if monotonic() > deadline:
            is_partial = True
            break
        table = read(needed)
        places = pa.array(np.arange(count, dtype=np.int64) + (at << 32))
        found = pa.table({"place": places})
        if query.sort is not None:
            found = found.append_column("value", _orderable(table[query.sort]))
        if test is not None:
            found = found.filter(test(table[query.filter_column]))
        looked_at += count
        best = found if best is None else pa.concat_tables([best, found])
        if query.sort is not None and best.num_rows > last:
            best = _first(best, last, is_descending=query.is_descending)
        elif query.sort is None and best.num_rows >= last:
            best = best.slice(0, last)
            break
    if best is None:
        best = pa.table({"place": pa.array([], pa.int64())})
    if query.sort is not None:
        best = _first(best, last, is_descending=query.is_descending)
    places = best["place"].to_numpy()[query.offset : query.offset + query.limit]
    has_more = best.num_rows > query.offset + query.limit
    pieces: dict[int, pa.Table] = {}
    for at in sorted({int(place) >> 32 for place in places}):
        rows = [int(place) & 0xFFFFFFFF for place in places if int(place) >> 32 == at]
        taken = groups[at][1](wanted).take(pa.array(rows))
        pieces |= {(at << 32) + row: taken.slice(i, 1) for i, row in enumerate(rows)}
    ordered = [pieces[int(place)] for place in places]
    empty = pa.schema([schema.field(name) for name in wanted]).empty_table()
    return _shown(pa.concat_tables([empty, *ordered]), looked_at, is_partial=is_partial, has_more=has_more)


def _first(found: pa.Table, count: int, *, is_descending: bool) -> pa.Table:
    """The first rows by value, nulls last, equal values by place."""
    order = [("value", "descending" if is_descending else "ascending"), ("place", "ascending")]
    return found.take(pc.sort_indices(found, sort_keys=order)[:count])


def _orderable(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_nested(values.type) or pa.types.is_null(values.type):
        raise InputError("Columns of this type have no order. Sort by another column.")
    return values


def _test(query: PreviewQuery, schema: pa.Schema) -> Callable[[pa.ChunkedArray], pa.ChunkedArray] | None:
    if query.filter_column is None:
        return None
    if query.operator not in OPERATORS:
        raise InputError(f"Unknown operator {query.operator!r}. Use one of: {', '.join(OPERATORS)}.")
    if query.operator in ("is null", "is not null"):
        is_wanted: Callable[[pa.ChunkedArray], pa.ChunkedArray] = (
            pc.is_null if query.operator == "is null" else pc.is_valid
        )
        return is_wanted
    kind = schema.field(query.filter_column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if query.operator == "contains":
        return lambda values: pc.match_substring(_as_text(values), query.value, ignore_case=True)
    try:
        value = pa.scalar(query.value).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{query.value!r} is not a value of the column {query.filter_column!r}, which has the type {kind}.",
            column=query.filter_column,
        ) from error
    compare = {
        "=": pc.equal,
        "≠": pc.not_equal,
        "<": pc.less,
        "≤": pc.less_equal,
        ">": pc.greater,
        "≥": pc.greater_equal,
    }
    return lambda values: compare[query.operator](
        values.cast(kind) if pa.types.is_dictionary(values.type) else values, value
    )


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_large_string(values.type) or pa.types.is_string(values.type):
        return values
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError("Values of this type cannot be searched for a text. Use another operator.") from error


def texts_of(column: pa.ChunkedArray | pa.Array) -> list[str | None]:
    """The values of a column as texts of any length; None for null. Dates and times that Python does not have are numbers."""
    plain = _plain(column)
    try:
        values = plain.to_pylist()
    except (OverflowError, ValueError, pa.ArrowInvalid):
        values = _as_numbers(plain).to_pylist()
    return [None if value is None else value if isinstance(value, str) else _spelled(value) for value in values]


def _as_numbers(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Dates and times as the numbers that are stored; of nested values, the whole value as a text."""
    if pa.types.is_nested(column.type):
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        return pa.array([None if not value.is_valid else "(dates or times out of range)" for value in array])
    narrow = pa.types.is_date32(column.type) or pa.types.is_time32(column.type)
    return column.cast(pa.int32() if narrow else pa.int64())


def _shown(table: pa.Table, looked_at: int, *, is_partial: bool, has_more: bool) -> Preview:
    columns = [[shortened(text) for text in texts_of(column)] for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)] if columns else []
    types = [str(column.type) for column in table.columns]
    return Preview(table.column_names, types, rows, looked_at, is_partial, has_more)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Nanoseconds as texts: Python's times have microseconds."""
    kind = column.type
    if (pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time64(kind)) and kind.unit == "ns":
        return column.cast(pa.string()) if not pa.types.is_duration(kind) else column.cast(pa.int64())
    return column


def shortened(text: str | None) -> str | None:
    """A text of at most `_LONGEST` characters."""
    return text if text is None or len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _spelled(value: Any) -> str:
    match value:
        case bytes():
            return "0x" + value[: _LONGEST // 2].hex()
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.isoformat(sep=" ")
        case date() | time():
            return value.isoformat()
        case timedelta() | int() | float() | Decimal():
            return str(value)
        case Mapping():
            inner = ", ".join(f"{name}: {_part(part)}" for name, part in list(value.items())[:20])
            return "{" + inner + "}"
        case list() | tuple():
            return "[" + ", ".join(_part(part) for part in value[:20]) + (", …]" if len(value) > 20 else "]")
        case _:
            return str(value)


def _part(value: Any) -> str:
    return "null" if value is None else repr(value) if isinstance(value, str) else _spelled(value)
