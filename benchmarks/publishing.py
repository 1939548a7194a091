"""What it costs to publish a branch of many datasets: `python -m benchmarks.publishing [DATASETS]` (50 by default).

Beside it, in the same run, as many commits one by one. `merge`: both branches moved, so that every table is merged.
"""

import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, event

from benchmarks.__main__ import _machine, _registries
from dataset_registry import Registry
from tests.servers import postgresql

ROUNDS = 5
ROWS = 1000


def table(value: int) -> pa.Table:
    """A table of a thousand rows, of which the last has this value."""
    return pa.table({"id": range(ROWS), "v": [*range(ROWS - 1), value]})


def counted(registry: Registry, work: Callable[[], object]) -> tuple[float, int, int]:
    """Seconds of a piece of work, its transactions that move branches, and its statements."""
    moves: set[Any] = set()
    sent = itertools.count()

    def note(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        next(sent)
        if "dataset_pointers" in statement and not statement.startswith(("SELECT", "WITH")):
            moves.add(connection.get_transaction())

    engines = {registry.access.catalog.writer, registry.access.catalog.reader}
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    start = perf_counter()
    work()
    seconds = perf_counter() - start
    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)
    return seconds, len(moves), next(sent)


def measured(name: str, registry: Registry, count: int) -> list[dict[str, Any]]:
    """Publish by fast-forward and by merge, several times."""
    datasets = [registry.create_dataset(f"d{i}") for i in range(count)]
    values = itertools.count(ROWS)
    found: dict[str, list[tuple[float, int, int]]] = {"commits, one by one": [], "fast-forward": [], "merge": []}
    for dataset in datasets:
        dataset.commit({"data": table(0)}, key="id")
        dataset.create_branch("pr")

    def commit(branch: str) -> None:
        for dataset in datasets:
            dataset.commit({"data": table(next(values))}, branch=branch)

    def touch_main() -> None:
        for dataset in datasets:
            dataset.upsert(pa.table({"id": [0], "v": [next(values)]}))

    for _ in range(ROUNDS):
        found["commits, one by one"].append(counted(registry, lambda: commit("pr")))
        found["fast-forward"].append(counted(registry, lambda: registry.publish("pr")))
        commit("pr")
        touch_main()
        found["merge"].append(counted(registry, lambda: registry.publish("pr")))
        for dataset in datasets:
            dataset.move_branch("pr", "main")
    return [
        {
            "registry": name,
            "case": case,
            "milliseconds": round(median(s for s, _, _ in runs) * 1000, 1),
            "transactions that move branches": max(t for _, t, _ in runs),
            "statements": max(n for _, _, n in runs),
        }
        for case, runs in found.items()
    ]


def main() -> None:
    """Measure, print, and keep the results."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    folder = Path(tempfile.mkdtemp(prefix="registry-publishing-"))
    try:
        with postgresql(durable=True) as url:
            found = [row for name, registry in _registries(folder, url) for row in measured(name, registry, count)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    shown = Table(*found[0], title=f"{count} datasets of {ROWS:,} rows")
    for row in found:
        shown.add_row(*map(str, row.values()))
    Console(width=118).print(shown)
    target = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-publishing.json"
    result = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine(), "datasets": count}
    target.write_text(json.dumps({**result, "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
