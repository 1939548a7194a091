"""How the columns of a part are encoded as Parquet, chosen column by column from a sample of its rows.

All of it is in the Parquet format since version 2: dictionaries where they fit, DELTA_BINARY_PACKED for other whole numbers and
moments, plain values for the rest, each compressed by zstd. The choice is a function of the rows, so that the same rows are the
same bytes.
"""

import math
from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_registry.tabular import chunking

# Measured (docs/performance.md): against snappy a fifth smaller and as fast to write and read.
_DICTIONARY_BYTES = 1 << 17
_OPTIONS = {
    "version": "2.6",
    "compression": "zstd",
    "compression_level": 1,
    "dictionary_pagesize_limit": _DICTIONARY_BYTES,
}
_SAMPLE = 1 << 11
_BLOCK = 32
"""Values whose differences DELTA_BINARY_PACKED packs with the same number of bits."""
_BLOCKS = 64
_OVERHEAD_BITS = 0.75
"""What the headers of such blocks cost, for each value."""
_COMPRESSED_BITS = 8
"""Differences of more bits than this hardly repeat: zstd would cost time and save nothing."""


class _Choice(NamedTuple):
    """The Parquet columns of a part, by path, that have a dictionary, are packed differences, and are not compressed."""

    repeated: list[str]
    packed: list[str]
    plain: list[str]


def options(table: pa.Table, form: int) -> dict[str, Any]:
    """The options of `pq.ParquetWriter` for a part with these rows, in a form of the chunking rule: in form 1 dictionaries for
    all columns, since form 2 only where they fit, since form 3 packed differences of whole numbers and moments too."""
    if form == 1:
        return _OPTIONS
    found = _chosen(table, form)
    compressed = [path for path in _leaves(table.schema) if path not in found.plain]
    options = _OPTIONS | {"use_dictionary": found.repeated}
    if found.packed:
        options["column_encoding"] = dict.fromkeys(found.packed, "DELTA_BINARY_PACKED")
    if found.plain:
        options["compression"] = dict.fromkeys(found.plain, "NONE") | dict.fromkeys(compressed, "zstd")
        options["compression_level"] = dict.fromkeys(compressed, _OPTIONS["compression_level"])
    return options


def _chosen(table: pa.Table, form: int) -> _Choice:
    """How the columns of a part are encoded.

    A dictionary is for columns with so few different values that it fits into its page, judged by a sample of the rows; of
    nested columns all. One that does not fit is given up after a good part of the rows: it costs time, and is read slower.
    """
    every = max(1, table.num_rows // _SAMPLE)
    sample = table.take(pa.array(np.arange(0, table.num_rows, every))) if every > 1 else table
    found = _Choice([], [], [])
    leaves = iter(_leaves(table.schema))
    counts = Counter(_leaves(table.schema))  # a column `a.b` and a field b of a column `a` have the same path
    for column, whole in zip(sample.columns, table.columns, strict=True):
        if pa.types.is_nested(column.type):
            found.repeated.extend(next(leaves) for _ in range(_leaf_count(column.type)))
            continue
        path = next(leaves)
        different = chunking.different_values(column)
        # As many values as fit into the page, drawn at random, would have this share of different ones.
        drawn = max(len(column), chunking.width(column)) / _DICTIONARY_BYTES
        share = -math.expm1(-drawn) / drawn if drawn else 1.0
        fits = different <= share * len(column)
        is_judged = form > 2 and table.num_rows >= _BLOCKS * _BLOCK and counts[path] == 1
        if is_judged and (width := _integer_bits(column.type)) is not None:
            otherwise = _dictionary_bits(different, len(column), width, table.num_rows) if fits else 0.9 * width
            if (bits := _difference_bits(whole)) < otherwise:
                found.packed.append(path)
                if bits > _COMPRESSED_BITS:
                    found.plain.append(path)
                continue
        if fits:
            found.repeated.append(path)
        elif is_judged and pa.types.is_floating(column.type) and not _is_compressible(whole):
            found.plain.append(path)
    return found


def _integer_bits(kind: pa.DataType) -> int | None:
    """The bits of a plain value of a type that Parquet stores as integers, None for other types."""
    if pa.types.is_integer(kind) or pa.types.is_temporal(kind):
        return max(32, int(kind.bit_width))
    return None


def _dictionary_bits(different: int, rows: int, width: int, all_rows: int) -> float:
    """The approximate bits of a value in a column with a dictionary, its share of the dictionary included, when `different`
    values were seen in a sample of `rows` of `all_rows`."""
    total = float(max(1, different))
    for _ in range(8):  # of `total` equally frequent values, total * (1 - exp(-rows / total)) are seen
        total = min(different / -math.expm1(-rows / total), all_rows)
    return max(1, math.ceil(math.log2(max(total, 2)))) + total * width / all_rows


def _difference_bits(column: pa.ChunkedArray) -> float:
    """The approximate bits of a value among packed differences, judged by blocks of neighbours; infinite if they are few."""
    values = column.combine_chunks().drop_null()
    if len(values) < _BLOCKS * _BLOCK:
        return math.inf
    width = values.type.bit_width
    numbers = values.view(pa.int64() if width == 64 else pa.int32() if width == 32 else values.type).to_numpy()
    starts = np.linspace(0, len(values) - _BLOCK - 1, _BLOCKS).astype(np.int64)
    steps = np.diff(numbers[starts[:, None] + np.arange(_BLOCK + 1)].astype(np.int64), axis=1)
    ranges = (steps.max(axis=1) - steps.min(axis=1)).view(np.uint64)
    return float(np.frexp(ranges.astype(np.float64))[1].mean()) + _OVERHEAD_BITS


def _is_compressible(column: pa.ChunkedArray) -> bool:
    """Whether compressing floating-point numbers saves a tenth, judged by some in the middle."""
    count = _BLOCKS * _BLOCK
    values = column.slice((len(column) - count) // 2, count).combine_chunks().fill_null(0).to_numpy().tobytes()
    return len(pa.Codec("zstd", 1).compress(values)) < 0.9 * len(values)


@lru_cache(256)
def _leaves(schema: pa.Schema) -> tuple[str, ...]:
    """The paths of a schema's Parquet columns."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    columns = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    return tuple(columns.column(i).path for i in range(len(columns)))


def _leaf_count(kind: pa.DataType) -> int:
    """The number of Parquet columns of a type."""
    if not pa.types.is_nested(kind):
        return 1
    return sum(_leaf_count(kind.field(i).type) for i in range(kind.num_fields))
