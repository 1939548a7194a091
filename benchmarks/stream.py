"""`python -m benchmarks.stream [GB]`: a stream of record batches of any length, committed in bounded memory.

The stream is TPC-H lineitem over and over, each time with other order keys. Reading it takes memory too: a process of its own
finds out what that is. Memory is what the process has for itself (RssAnon): pages of files that it maps can be had back any time.
"""

import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, sleep

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import data
from benchmarks.__main__ import _machine
from dataset_registry import Registry

_ORDERS = 6_000_000


def main(gigabytes: float = 20.0) -> None:
    """Measure, print, and write `benchmarks/results/<date>-stream.json`."""
    path = data.lineitem(1.0).path()
    schema = pq.read_schema(path).remove_metadata()
    with get_context("spawn").Pool(1) as pool:
        alone = pool.apply(_reading_alone, (path,))
    folder = Path(tempfile.mkdtemp(prefix="registry-stream-"))
    sizes: list[int] = []
    peak = _Peak()
    try:
        with Registry.open(folder) as registry:
            batches = (batch for batch in _batches(path, schema, gigabytes * 1e9) if not sizes.append(batch.nbytes))
            started = perf_counter()
            reader = pa.RecordBatchReader.from_batches(schema, batches)
            version = registry.create_dataset("big").commit({"data": reader}, key=["l_orderkey", "l_linenumber"])
            seconds = perf_counter() - started
            found = {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": _machine(),
                "arrow_gb": round(sum(sizes) / 1e9, 2),
                "seconds": round(seconds, 1),
                "gb_per_second": round(sum(sizes) / 1e9 / seconds, 2),
                "rows": version.schema.rows,
                "parts": len(version.paths()),
                "stored_gb": round(version.components[0].size / 1e9, 2),
                "peak_rss_mb": round(peak.stop() / 1e6),
                "reading_alone_rss_mb": round(alone / 1e6),
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=1))
    target = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-stream.json"
    target.write_text(json.dumps(found, indent=1) + "\n")


def _batches(path: Path, schema: pa.Schema, size: float) -> Iterator[pa.RecordBatch]:
    done = turn = 0
    while done < size:
        with pq.ParquetFile(path, pre_buffer=False, memory_map=True) as file:
            for group in range(file.num_row_groups):
                for batch in file.read_row_group(group).to_batches(100_000):
                    keys = pc.add(batch.column(0), _ORDERS * turn)
                    yield batch.set_column(0, schema.field(0), keys).cast(schema)
                    done += batch.nbytes
                if done >= size:
                    return
        turn += 1


def _reading_alone(path: Path) -> int:
    peak = _Peak()
    for _ in _batches(path, pq.read_schema(path).remove_metadata(), 2e9):
        pass
    return peak.stop()


def _resident() -> int:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


class _Peak:
    """The most memory that this process had, looked at twenty times a second."""

    def __init__(self) -> None:
        self._most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.is_set():
            self._most = max(self._most, _resident())
            sleep(0.05)

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self._most


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:])))
