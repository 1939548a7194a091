"""The rows of stored tables, addressed by position: read as streams, or taken one by one.

A position is `part << 32 | row`: the index of a part in its table, and of a row in the part.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataset_registry.errors import InputError
from dataset_registry.model.schema import ComponentSchema
from dataset_registry.tabular import capture, convert
from dataset_registry.tabular.comparable import comparable
from dataset_registry.tabular.parquet import INT96_UNIT

Positions = NDArray[np.int64]
"""Positions of rows; -1 for none."""

_BATCH = 1 << 17
"""Rows of a batch."""
_CACHED_PARTS = 4
"""Parts that are kept in memory while rows are taken."""


@dataclass(frozen=True, slots=True)
class TablePart:
    """A stored file with a run of rows. Parts with the same id have the same rows.

    `load` returns a local path. `schema` and `sheet` are those of a delivered file (CSV, JSON, Excel), None for Parquet.
    """

    id: str
    rows: int
    load: Callable[[], Path]
    schema: ComponentSchema | None = None
    sheet: str | None = None

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows with these columns, in batches."""
        if self.schema is not None:
            table = self.table(columns)
            for start in range(0, table.num_rows, _BATCH):
                yield table.slice(start, _BATCH)
            return
        with pq.ParquetFile(self.load(), memory_map=True, coerce_int96_timestamp_unit=INT96_UNIT) as file:
            for batch in file.iter_batches(_BATCH, columns=list(columns)):
                yield pa.Table.from_batches([batch]).select(list(columns))

    def table(self, columns: Sequence[str]) -> pa.Table:
        """All rows with these columns."""
        if self.schema is not None:
            return capture.read(self.load(), self.schema, self.sheet).select(list(columns))
        with pq.ParquetFile(self.load(), memory_map=True, coerce_int96_timestamp_unit=INT96_UNIT) as file:
            return file.read(columns=list(columns)).select(list(columns))


@dataclass(slots=True)
class Rows:
    """The rows of a table, with the columns of `schema`.

    `names` maps columns of the schema to the columns of the parts; a column without one is null.
    """

    parts: Sequence[TablePart]
    schema: pa.Schema
    names: Mapping[str, str]
    _cache: "OrderedDict[tuple[int, tuple[str, ...]], pa.Table]" = field(default_factory=OrderedDict)

    @property
    def count(self) -> int:
        """The number of rows."""
        return sum(part.rows for part in self.parts)

    def batches(self, columns: Sequence[str], only: Collection[int] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """The rows in order, in batches with the position of the first row; with `only`, of these parts."""
        for at, part in enumerate(self.parts):
            if only is not None and at not in only:
                continue
            start = at << 32
            for table in part.batches(self._own(columns)):
                yield start, self._aligned(table, columns)
                start += table.num_rows

    def part(self, at: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one part."""
        wanted = self.schema.names if columns is None else list(columns)
        return self._aligned(self.parts[at].table(self._own(wanted)), wanted)

    def take(self, positions: Positions, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows at these positions, in their order; a row of nulls for -1."""
        wanted = self.schema.names if columns is None else list(columns)
        fields = [self.schema.field(name).with_nullable(True) for name in wanted]
        schema = pa.schema(fields)
        order = np.argsort(positions, kind="stable")
        ordered = positions[order]
        pieces = []
        start = int(np.searchsorted(ordered, 0))
        if start:
            pieces.append(pa.table([pa.nulls(start, f.type) for f in fields], schema=schema))
        while start < len(ordered):
            at = int(ordered[start]) >> 32
            end = int(np.searchsorted(ordered, (at + 1) << 32))
            rows = ordered[start:end] - (at << 32)
            pieces.append(self._cached(at, wanted).take(pa.array(rows)).cast(schema))
            start = end
        found = pa.concat_tables([schema.empty_table(), *pieces])
        if len(pieces) <= 1 and (np.diff(order) == 1).all():
            return found
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return found.take(pa.array(back))

    def _cached(self, at: int, columns: Sequence[str]) -> pa.Table:
        key = (at, tuple(columns))
        if key not in self._cache:
            self._cache[key] = self.part(at, columns)
            while len(self._cache) > _CACHED_PARTS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _own(self, columns: Sequence[str]) -> list[str]:
        return [self.names[name] for name in columns if name in self.names]

    def _aligned(self, table: pa.Table, columns: Sequence[str]) -> pa.Table:
        found = []
        for name in columns:
            field = self.schema.field(name)
            if name not in self.names:
                found.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
                continue
            try:
                found.append(exactly(table.column(self.names[name]), field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
                raise InputError(
                    f"Column {name!r} has values that are not of the type {field.type}: {error}. Convert it first.",
                    column=name,
                ) from error
        fields = [self.schema.field(name) for name in columns]
        return pa.Table.from_arrays(found, schema=pa.schema([f.with_nullable(True) for f in fields]))


def exactly(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """A column as another type, if that holds the same values of the same kind: a number for a number, an instant for an instant.

    Raises `ValueError` or `pyarrow.ArrowInvalid` where a value would change.
    """
    have = values.type
    if have == kind or pa.types.is_null(have):
        return convert.column(values, kind)
    if not _is_alike(have, kind):
        raise ValueError(f"it is {have}")
    found = convert.column(values, kind)
    if _sort(have) in ("text", "bytes"):
        return found
    plain = values.cast(have.value_type) if pa.types.is_dictionary(have) else values
    back = convert.column(found, plain.type)
    if not all(comparable(one).equals(comparable(other)) for one, other in zip(back.chunks, plain.chunks, strict=True)):
        raise ValueError(f"a value of {have} would change")
    return found


def _sort(kind: pa.DataType) -> str:
    """What values of a type are."""
    if pa.types.is_dictionary(kind):
        return _sort(kind.value_type)
    for sort, tests in _SORTS.items():
        if any(test(kind) for test in tests):
            return sort
    if pa.types.is_timestamp(kind):
        return "moment" if kind.tz is None else "instant"
    return str(kind)


_SORTS = {
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "bytes": (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    ),
    "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    "boolean": (pa.types.is_boolean,),
    "moment": (pa.types.is_date,),
    "time": (pa.types.is_time,),
    "duration": (pa.types.is_duration,),
}


def _is_alike(have: pa.DataType, kind: pa.DataType) -> bool:
    """Whether values of one type are of the same kind as those of another, in nested types field by field."""
    if pa.types.is_null(have):
        return True
    if pa.types.is_struct(have) and pa.types.is_struct(kind):
        at = [(field, kind.get_field_index(field.name)) for field in have]
        return all(i >= 0 and _is_alike(field.type, kind.field(i).type) for field, i in at)
    if pa.types.is_map(have) and pa.types.is_map(kind):
        return _is_alike(have.key_type, kind.key_type) and _is_alike(have.item_type, kind.item_type)
    if convert.is_list(have) and convert.is_list(kind):
        return _is_alike(have.value_type, kind.value_type)
    return _sort(have) == _sort(kind)
