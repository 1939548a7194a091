"""`python -m benchmarks.engines`: reading a table that is kept as recipes, beside the raw file.

Ours whole and filtered, and then engines that know nothing of us on the addresses of the version. They live in an environment of
their own: `python -m benchmarks.peers install engines java`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks import data
from benchmarks.__main__ import _machine
from benchmarks.peers import ENVIRONMENTS, SCRIPTS
from dataset_registry import Registry, Version

ROUNDS = 7
JAVA = ENVIRONMENTS / "java" / "usr" / "lib" / "jvm" / "java-17-openjdk-amd64"
console = Console(width=118)


def main(scale: float = 1.0) -> None:
    """Measure, print, and write `benchmarks/results/<date>-engines.json`."""
    table = data.lineitem(scale)
    folder = Path(tempfile.mkdtemp(prefix="registry-engines-"))
    try:
        with Registry.open(folder) as registry:
            lineitem = registry.create_dataset("lineitem")
            versions = {
                "parts": lineitem.commit({"data": pq.read_table(table.path())}, key=list(table.keys)),
                "recipes": lineitem.commit({"data": pq.read_table(table.path("scatter"))}),
            }
            reads = _reads(table, versions)
            _print_reads(reads)
            engines = _engines(table, versions["recipes"])
            _print_engines(engines)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine(), "scale": scale}
    target = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-engines.json"
    target.write_text(json.dumps({**found, "reads": reads, "engines": engines}, indent=1) + "\n")


def _reads(table: data.Table, versions: dict[str, Version]) -> list[dict[str, Any]]:
    """Seconds and times the raw file, round by round."""
    name, above = table.filter
    columns, condition = list(table.columns), ds.field(name) > above
    key = table.keys[0]
    few = (ds.field(key) > 1_000_000) & (ds.field(key) < 1_050_000)
    works: dict[str, tuple[Callable[[Path], Any], Callable[[Version], Any]]] = {
        "whole": (pq.read_table, lambda version: version.to_arrow()),
        "2 columns, filtered": (
            lambda path: pq.read_table(path, columns=columns, filters=condition),
            lambda version: version.to_arrow(columns=columns, filter=condition),
        ),
        "2 columns, a range of keys": (
            lambda path: pq.read_table(path, columns=columns, filters=few),
            lambda version: version.to_arrow(columns=columns, filter=few),
        ),
    }
    found = []
    for what, (raw, ours) in works.items():
        for kept, version in versions.items():
            path = table.path("base" if kept == "parts" else "scatter")
            assert ours(version).num_rows == raw(path).num_rows
            pairs = [(_seconds(partial(raw, path)), _seconds(partial(ours, version))) for _ in range(ROUNDS)]
            seconds = [median(side) for side in zip(*pairs, strict=True)]
            found.append(
                {
                    "read": what,
                    "kept as": kept,
                    "raw s": round(seconds[0], 3),
                    "ours s": round(seconds[1], 3),
                    "x": round(median(b / a for a, b in pairs), 2),
                }
            )
    return found


def _seconds(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def _engines(table: data.Table, version: Version) -> list[dict[str, Any]]:
    question = {"uris": version.uris(), "raw": str(table.path("scatter")), "column": table.columns[1]}
    done = subprocess.run(
        [ENVIRONMENTS / "engines" / "bin" / "python", "-P", SCRIPTS / "engines.py"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"JAVA_HOME": str(JAVA)},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _print_reads(reads: list[dict[str, Any]]) -> None:
    table = Table(title="Reading beside pq.read_table on the raw file", title_justify="left", box=None)
    for name in reads[0]:
        table.add_column(name, justify="left" if name in ("read", "kept as") else "right")
    for read in reads:
        table.add_row(*(str(value) for value in read.values()))
    console.print(table)


def _print_engines(engines: list[dict[str, Any]]) -> None:
    table = Table(title="count(*), sum of a column, from uris() of the recipes", title_justify="left", box=None)
    for name in ("engine", "rows", "same as raw", "raw s", "ours s"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for answer in engines:
        if "error" in answer:
            table.add_row(answer["engine"], answer["error"])
            continue
        raw, ours = answer["raw"], answer["ours"]
        same = raw["rows"] == ours["rows"] and abs(raw["sum"] - ours["sum"]) <= abs(raw["sum"]) * 1e-9
        table.add_row(
            answer["engine"], f"{ours['rows']:,}", str(same), f"{raw['seconds']:.3f}", f"{ours['seconds']:.3f}"
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:])))
