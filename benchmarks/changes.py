"""`python -m benchmarks.changes`: what a change of 1 % of a table's rows stores anew, with a declared key and without one, as
whole parts and as recipes; and what the table takes in all, and to write, beside one default Parquet file.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks import data
from benchmarks.__main__ import _machine
from dataset_registry import Registry
from dataset_registry.content import pack

ROUNDS = 5
TARGETS = {"scatter": 25.0, "block": 3.0, "insert": 4.5, "append": 3.0, "addcol": 18.0}
console = Console(width=118)


def main(scale: float = 1.0) -> None:
    """Measure, print, and write `benchmarks/results/<date>-changes.json`."""
    rows = [
        {"table": name, **found}
        for name, table in (("lineitem", data.lineitem(scale)), ("flights", data.flights()), ("sales", data.sales()))
        for found in _measured(table)
    ]
    _print(rows)
    target = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-changes.json"
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "scale": scale,
        "rows": rows,
    }
    target.write_text(json.dumps(found, indent=1) + "\n")


def _measured(table: data.Table) -> Iterator[dict[str, Any]]:
    base = pq.read_table(table.path())
    for key in (list(table.keys), []):
        for recipes in (False, True):
            folder = Path(tempfile.mkdtemp(prefix="registry-changes-"))
            real = pack.pays
            pack.pays = real if recipes else lambda made, size: False
            try:
                yield {
                    "key": bool(key),
                    "stored as": "recipes" if recipes else "parts",
                    **_changes(folder, table, base, key),
                }
            finally:
                pack.pays = real
                shutil.rmtree(folder, ignore_errors=True)


def _changes(folder: Path, table: data.Table, base: Any, key: list[str]) -> dict[str, Any]:
    default = folder / "default.parquet"
    times = []
    for number in range(ROUNDS + 1):
        with Registry.open(folder / f"registry-{number}") as registry:
            started = perf_counter()
            pq.write_table(base, default)
            raw = perf_counter() - started
            started = perf_counter()
            registry.create_dataset("data").commit({"data": base}, key=key)
            times.append((perf_counter() - started, raw))
    with Registry.open(folder / f"registry-{ROUNDS}") as registry:
        dataset = registry.dataset("data")
        whole = dataset.version().components[0].size
        found: dict[str, Any] = {
            "parts": len(dataset.version().paths()),
            "size": round(whole / default.stat().st_size, 3),
            "write": round(median(ours / raw for ours, raw in times[1:]), 2),
        }
        for change in data.CHANGES:
            dataset.create_branch(change, "v1")
            with dataset.draft(change) as draft:
                draft.add("data", pq.read_table(table.path(change)))
            parts = dataset.diff("v1", change).parts["data"]
            found[change] = {
                "of a default file": round(100 * draft.result.new_bytes / table.path(change).stat().st_size, 1),
                "of ours": round(100 * draft.result.new_bytes / whole, 1),
                "parts touched": f"{parts.added} of {parts.added + parts.shared}",
            }
        column = table.path("addcol-rows").stat().st_size
        added = found["addcol"]["of a default file"] / 100 * table.path("addcol").stat().st_size
        found["addcol"]["over the column alone"] = round(added / column, 3)
    return found


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(
        title="New bytes, percent of one default file of the changed table (parts touched)",
        title_justify="left",
        box=None,
    )
    for name in ("table", "key", "stored as", "size x", "write x", *TARGETS):
        table.add_column(name, justify="left" if name in ("table", "key", "stored as") else "right")
    for row in rows:
        changes = (f"{row[name]['of a default file']} ({row[name]['parts touched']})" for name in TARGETS)
        table.add_row(
            row["table"],
            "declared" if row["key"] else "none",
            row["stored as"],
            str(row["size"]),
            str(row["write"]),
            *changes,
        )
    table.add_row("target", "", "", "1.05", "1.25", *(f"≤ {target:g}" for target in TARGETS.values()))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:])))
