"""Streams of rows as bytes, Arrow, Parquet, CSV or JSON lines; and tables from what people hand in."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from dataset_registry.errors import InputError
from dataset_registry.tabular import capture, formats
from dataset_registry.tabular.arrow import counted, plain_table

STREAMS = {
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv; charset=utf-8",
    "json": "application/x-ndjson",
}
"""The formats of a stream of rows, with their media types."""


def encoded(reader: pa.RecordBatchReader, format: str) -> Iterator[bytes]:
    """The bytes of a stream of rows, piece by piece. Raises `InputError` for an unknown format."""
    if format not in STREAMS:
        raise InputError(f"Unknown format {format!r}. Use one of: {', '.join(STREAMS)}.", format=format)
    return _json_lines(reader) if format == "json" else _written(reader, format)


def _written(reader: pa.RecordBatchReader, format: str) -> Iterator[bytes]:
    sink = BytesIO()
    schema = reader.schema if format != "csv" else pa.schema([_flat(field) for field in reader.schema])
    with _writer(sink, schema, format) as writer:
        for batch in reader:
            table = pa.Table.from_batches([batch])
            writer.write_table(table if format != "csv" else _as_texts(table, schema))
            yield _taken(sink)
    yield _taken(sink)


def _writer(sink: BytesIO, schema: pa.Schema, format: str) -> Any:
    if format == "arrow":
        return pa.ipc.new_stream(sink, schema)
    return pq.ParquetWriter(_Appended(sink), schema) if format == "parquet" else pa.csv.CSVWriter(sink, schema)


class _Appended(BytesIO):
    """A sink that counts its position, although what was written is taken from it."""

    def __init__(self, sink: BytesIO) -> None:
        super().__init__()
        self._sink, self._at = sink, 0

    def write(self, data: Any) -> int:
        self._at += self._sink.write(data)
        return len(data)

    def tell(self) -> int:
        return self._at


def _taken(sink: BytesIO) -> bytes:
    data = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return data


def _flat(field: pa.Field) -> pa.Field:
    """A field of a CSV: nested values and bytes become texts."""
    kind = field.type
    is_text = pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return pa.field(field.name, pa.string()) if is_text or pa.types.is_decimal256(kind) else field


def _as_texts(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        values if values.type == field.type else pa.chunked_array([pa.array(_texts(values), pa.string())])
        for values, field in zip(table.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _texts(values: pa.ChunkedArray) -> list[str | None]:
    plain = (json_value(value) for value in _pylist(values))
    return [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in plain]


def _json_lines(reader: pa.RecordBatchReader) -> Iterator[bytes]:
    for batch in reader:
        columns = [_pylist(pa.chunked_array([values])) for values in batch.columns]
        lines = (
            json.dumps(
                {name: json_value(v) for name, v in zip(batch.schema.names, row, strict=True)}, ensure_ascii=False
            )
            for row in zip(*columns, strict=True)
        )
        yield "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")


def _pylist(values: pa.ChunkedArray) -> list[Any]:
    """The values as Python's; moments and times of nanoseconds as texts, since Python has none."""
    kind = values.type
    if (pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind)) and kind.unit == "ns":
        counts = (count for chunk in values.chunks for count in chunk.view(pa.int64()).to_pylist())
        return [None if count is None else counted(count, kind) for count in counts]
    found: list[Any] = values.to_pylist()
    return found


def json_value(value: Any) -> Any:
    """A value as JSON: moments in ISO 8601, decimals and numbers that JSON lacks as texts, bytes in base64."""
    match value:
        case float():
            return value if isfinite(value) else str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case timedelta():
            return counted(round(value / timedelta(microseconds=1)), pa.duration("us"))
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {str(name): json_value(item) for name, item in value.items()}
        case list() | tuple():
            return [json_value(item) for item in value]
        case _:
            return value


def table_from(value: Any) -> pa.Table:
    """A table from any library's, from rows as dicts, or from the path of a file. Raises `InputError`, `UnsupportedType`."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if wrong := [row for row in value if not isinstance(row, Mapping)]:
            raise InputError(f"Rows are objects with the columns as names, not {wrong[0]!r}.")
        return pa.Table.from_pylist([dict(row) for row in value]) if value else pa.table({})
    if isinstance(value, str | Path):
        path = Path(value).expanduser()
        if not path.is_file():
            raise InputError(f"{path} does not exist: check the path.", path=str(path))
        with path.open("rb") as stream:
            kind = formats.format_of(None, path.name, stream.read(32))
        found = capture.capture(path, kind)
        if found is None:
            raise InputError(f"{path} is no table: pass a CSV, JSON, Excel or Parquet file.", path=str(path))
        return pq.read_table(path) if kind == "parquet" else capture.read(path, found)
    return plain_table(value)


def with_takes(conflicts: pa.Table, takes: Mapping[int, str]) -> pa.Table:
    """A table of conflicts with the column `take` filled in, by the positions of the rows; without the other rows."""
    rows = sorted(position for position in takes if 0 <= position < conflicts.num_rows)
    chosen = conflicts.take(pa.array(rows, pa.int64()))
    at = chosen.column_names.index("take")
    return chosen.set_column(at, "take", pa.array([takes[position] for position in rows], pa.string()))
