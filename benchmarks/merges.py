"""What diffs, merges and row edits of a large table cost, beside a full outer join by hand in DuckDB.

`python -m benchmarks.merges [ROWS]` (10 million by default) measures each case a few times, with the join before and after it,
and writes `benchmarks/results/<date>-merges.json`. A case runs in a process of its own, for its peak memory.
"""

import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import _machine
from dataset_registry import Dataset, Registry

ROUNDS = 3
NAME = "big"


def table(rows: int) -> pa.Table:
    """17 columns: a sorted key, ten measures, four numbers, a text of 80,000 values, a timestamp."""
    random = np.random.default_rng(1)
    columns: dict[str, Any] = {"id": np.arange(rows, dtype=np.int64)}
    columns |= {f"f{i}": np.round(random.gamma(2, 100, rows), 2) for i in range(10)}
    columns |= {f"i{i}": random.integers(0, 100_000, rows) for i in range(4)}
    columns["text"] = pa.array([f"name-{i}" for i in range(80_000)]).take(pa.array(random.integers(0, 80_000, rows)))
    columns["at"] = pa.array(random.integers(0, 10**15, rows).astype("datetime64[us]"))
    return pa.table(columns)


def with_values(base: pa.Table, changes: dict[str, np.ndarray], step: float = 1) -> pa.Table:
    """The table with other values in some rows of some columns."""
    for name, rows in changes.items():
        values = base.column(name).to_numpy().copy()
        values[rows] += step
        base = base.set_column(base.schema.get_field_index(name), name, pa.array(values))
    return base


def fill(folder: Path, rows: int) -> None:
    """The versions that are compared and merged, each a branch that starts at the first."""
    random = np.random.default_rng(2)
    base = table(rows)
    few = random.choice(rows, rows // 100, replace=False)
    others = random.choice(rows, rows // 100, replace=False)
    block = np.arange(rows // 2, rows // 2 + 100)
    everything = np.arange(rows)
    branches = {
        "block": {"f3": block},
        "scatter": {"f3": few, "i1": few},
        "other": {"f5": others, "i2": others},
        "all": {name: everything for name in base.column_names if name[0] in "fi" and name != "id"},
    }
    with Registry.open(folder) as registry:
        dataset = registry.create_dataset(NAME)
        dataset.commit({"data": base}, key="id")
        for branch, changes in branches.items():
            dataset.create_branch(branch, "v1")
            changed = with_values(base, changes)
            dataset.commit({"data": changed.slice(1) if branch == "all" else changed}, branch=branch)


def by_hand(dataset: Dataset, before: str, after: str) -> float:
    """Seconds of a full outer join that counts the different cells of each column."""
    paths = [
        "[" + ", ".join(f"'{path}'" for path in dataset.version(ref).paths("data")) + "]" for ref in (before, after)
    ]
    names = [c.name for c in dataset.version(before).schema.columns if c.name != "id"]
    counts = ", ".join(f"sum((b.{name} IS DISTINCT FROM a.{name})::INT)" for name in names)
    differ = " OR ".join(f"b.{name} IS DISTINCT FROM a.{name}" for name in names)
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit = '4GB'")
        connection.execute("SET enable_progress_bar = false")
        start = perf_counter()
        connection.execute(
            f"SELECT count(*), {counts} FROM read_parquet({paths[0]}) b FULL OUTER JOIN read_parquet({paths[1]}) a "
            f"USING (id) WHERE b.id IS NULL OR a.id IS NULL OR {differ}"
        ).fetchall()
        return perf_counter() - start


def parts(dataset: Dataset, before: str, after: str) -> str:
    """How many parts a version shares with another, and how many are new."""
    found = dataset.diff(before, after).parts.get("data")
    return "" if found is None else f"{found.added} new of {found.shared + found.added}"


def diff(ref: str) -> Callable[[Dataset, int], str]:
    def run(dataset: Dataset, round: int) -> str:
        found = dataset.diff_summary("v1", ref)
        return ", ".join(f"+{s.added:,} −{s.removed:,} Δ{s.changed:,}" for s in found.values()) or "equal"

    return run


def stream(ref: str) -> Callable[[Dataset, int], str]:
    def run(dataset: Dataset, round: int) -> str:
        return f"{sum(batch.num_rows for batch in dataset.diff_rows('v1', ref)):,} rows"

    return run


def merge(dataset: Dataset, round: int) -> str:
    branch = f"merge-{round}"
    dataset.create_branch(branch, "scatter")
    dataset.merge("other", into=branch)
    return parts(dataset, "scatter", branch)


def upsert(scattered: bool) -> Callable[[Dataset, int], str]:
    def run(dataset: Dataset, round: int) -> str:
        rows = dataset.version("v1").schema.rows or 0
        ids = np.arange(1000) * (rows // 1000) if scattered else np.arange(1000) + rows // 3
        branch = f"upsert-{scattered}-{round}"
        dataset.create_branch(branch, "v1")
        given = pa.table({"id": np.sort(ids), "f3": np.full(1000, float(round) - 1)})
        dataset.upsert(given, branch=branch)
        return parts(dataset, "v1", branch)

    return run


CASES: dict[str, tuple[Callable[[Dataset, int], str], str | None]] = {
    "diff of equal versions": (diff("v1"), None),
    "diff, 100 rows in one part": (diff("block"), "block"),
    "diff, 1 % scattered in two columns": (diff("scatter"), "scatter"),
    "diff, everything differs": (diff("all"), "all"),
    "stream the rows of 1 %": (stream("scatter"), "scatter"),
    "merge 1 % with 1 %, written": (merge, "scatter"),
    "upsert 1,000 rows in one region": (upsert(False), None),
    "upsert 1,000 rows, scattered": (upsert(True), None),
}


def measured(folder: Path, case: str, results: "multiprocessing.Queue[dict[str, Any]]") -> None:
    """Measure one case."""
    run, joined = CASES[case]
    with Registry.open(folder) as registry:
        dataset = registry.dataset(NAME)
        seconds, ratios, shown = [], [], ""
        for round in range(ROUNDS):
            start = perf_counter()
            shown = run(dataset, round)
            seconds.append(perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if joined is not None:
            ratios = [own / by_hand(dataset, "v1", joined) for own in seconds]
    results.put(
        {
            "case": case,
            "seconds": median(seconds),
            "ratio to a join by hand": median(ratios) if ratios else None,
            "peak bytes": peak,
            "result": shown,
        }
    )


def main() -> None:
    """Measure, print, and keep the results."""
    rows = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10_000_000
    folder = Path(tempfile.mkdtemp(prefix="registry-merges-"))
    context = multiprocessing.get_context("spawn")
    found = []
    try:
        filling = context.Process(target=fill, args=(folder, rows))
        filling.start()
        filling.join()
        for case in CASES:
            queue: multiprocessing.Queue[dict[str, Any]] = context.Queue()
            process = context.Process(target=measured, args=(folder, case, queue))
            process.start()
            found.append(queue.get())
            process.join()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    shown = Table("case", "seconds", "x join by hand", "peak GB", "result", title=f"{rows:,} rows, 17 columns")
    for row in found:
        ratio = row["ratio to a join by hand"]
        shown.add_row(
            row["case"],
            f"{row['seconds']:.3f}",
            "" if ratio is None else f"{ratio:.2f}",
            f"{row['peak bytes'] / 1e9:.2f}",
            row["result"],
        )
    Console(width=118).print(shown)
    date = datetime.now(UTC)
    results = {"date": date.isoformat(timespec="seconds"), "machine": _machine(), "rows": rows, "cases": found}
    target = Path(__file__).parent / "results" / f"{date:%Y-%m-%d}-merges.json"
    target.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
