"""What the digests of columns cost a commit: the same table with them and without, in turns, and the digests alone.

Run with `python -m benchmarks.column_digests [rows]`.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from unittest.mock import patch

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.merges import table
from dataset_registry import Registry
from dataset_registry.tabular import column_digests

ROUNDS = 7


def commit(data: pa.Table) -> tuple[float, float]:
    """Commit a table to a new registry. Returns wall and processor seconds."""
    with tempfile.TemporaryDirectory(prefix="registry-digests-") as folder, Registry.open(Path(folder)) as registry:
        wall, busy = perf_counter(), process_time()
        registry.create_dataset("measures").commit({"data": data}, key="id")
        return perf_counter() - wall, process_time() - busy


def main() -> None:
    """Measure and print."""
    rows = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10_000_000
    data = table(rows)
    commit(data.slice(0, rows // 10))
    having: list[tuple[float, float]] = []
    lacking: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        having.append(commit(data))
        with patch.object(column_digests, "digests_of", lambda table: {}):
            lacking.append(commit(data))
    start = process_time()
    for batch in data.combine_chunks().to_batches(1 << 17):
        column_digests.digests_of(pa.Table.from_batches([batch]))
    alone = process_time() - start
    shown = Table("", "wall seconds", "processor seconds", title=f"{rows:,} rows, {data.num_columns} columns")
    for name, found in (("with column digests", having), ("without", lacking)):
        shown.add_row(name, *(f"{median(seconds):.2f}" for seconds in zip(*found, strict=True)))
    ratios = [median(a[i] / b[i] for a, b in zip(having, lacking, strict=True)) for i in range(2)]
    shown.add_row("ratio, median of pairs", *(f"{ratio:.3f}" for ratio in ratios))
    shown.add_row("the digests alone", "", f"{alone:.2f}")
    Console(width=100).print(shown)


if __name__ == "__main__":
    main()
