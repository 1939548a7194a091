"""Cutting tables for tests: into parts of a size that they can count on."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa


def every(rows: int) -> Callable[[Iterator[tuple[pa.Table, Any]], Any], Iterator[pa.Table]]:
    """What takes the place of `chunking.split` to cut a table after this many rows each."""

    def split(tables: Iterator[tuple[pa.Table, Any]], cut: Any) -> Iterator[pa.Table]:
        whole = pa.concat_tables([table for table, _ in tables]).combine_chunks()
        for start in range(0, whole.num_rows, rows):
            yield whole.slice(start, rows).combine_chunks()

    return split
