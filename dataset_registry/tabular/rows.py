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
            values = table.column(self.names[name])
            if _is_text(values.type) != _is_text(field.type) and not pa.types.is_null(values.type):
                raise InputError(f"Column {name!r} is {field.type}, not {values.type}. Convert it first.", column=name)
            try:
                found.append(convert.column(values, field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise InputError(
                    f"Column {name!r} has values that are not of the type {field.type}: {error}.", column=name
                ) from error
        fields = [self.schema.field(name) for name in columns]
        return pa.Table.from_arrays(found, schema=pa.schema([f.with_nullable(True) for f in fields]))


def _is_text(kind: pa.DataType) -> bool:
    """Whether values are texts, which become numbers and moments by parsing alone."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
