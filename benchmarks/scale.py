"""`python -m benchmarks.scale`: what a commit, a branch, a tag, a look back and a read cost in datasets of 100, 10,000 and
100,000 versions and of 10, 1,000 and 100,000 components, on both databases: milliseconds, and what the database touches.

Of SQLite that is the instructions of its virtual machine, of PostgreSQL the rows that it read and wrote. Long histories are
made by the function that commits, many versions in a transaction; everything that is measured is one call of the public surface.
"""

import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import _machine, _registries
from dataset_registry import Dataset, Registry
from dataset_registry.catalog import Transaction
from dataset_registry.content.change import Change, staged_component
from dataset_registry.content.pack import PackPlan
from dataset_registry.content.stage import Staged
from dataset_registry.content.upload import Upload
from dataset_registry.model.commits import CommitOptions
from dataset_registry.operations import commit
from dataset_registry.store import Spooled
from tests.servers import postgresql

VERSIONS = (100, 10_000, 100_000)
COMPONENTS = (10, 1_000, 100_000)
ROUNDS = 60
console = Console(width=118)


def main(versions: tuple[int, ...] = VERSIONS, components: tuple[int, ...] = COMPONENTS) -> None:
    """Measure, print, and write `benchmarks/results/<date>-scale.json`."""
    folder = Path(tempfile.mkdtemp(prefix="registry-scale-"))
    rows: list[dict[str, Any]] = []
    try:
        with postgresql(durable=True) as url:
            for name, registry in _registries(folder, url):
                touched = _instructions(registry) if name == "SQLite" else _rows(registry)
                for count in versions:
                    dataset = history(registry, count, 10)
                    rows.append({"catalog": name, "versions": count, "components": 10, **_costs(dataset, touched)})
                    _print(rows[-1:])
                for count in components:
                    dataset = history(registry, 100, count)
                    rows.append({"catalog": name, "versions": 100, "components": count, **_costs(dataset, touched)})
                    _print(rows[-1:])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _print(rows)
    found = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine(), "costs": rows}
    target = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-scale.json"
    target.write_text(json.dumps(found, indent=1) + "\n")


# --- long histories ------------------------------------------------------------------------------------------------


def history(registry: Registry, versions: int, components: int) -> Dataset:
    """A dataset with this many versions of this many components, each version with one of them replaced."""
    dataset = registry.create_dataset(f"scale/{uuid4().hex}")
    with dataset.draft() as draft:
        for i in range(components):
            draft.add(f"component-{i}", b"one")
    dataset.commit({"extra": b"two"})
    contents = {c.name: c.content_hash for c in dataset.version().components_named(["component-0", "extra"])}
    turns = itertools.count()

    def some(count: int, tx: Transaction) -> None:
        for _ in range(count):
            turn = next(turns)
            content = contents["extra" if turn // components % 2 == 0 else "component-0"]
            change = Change()
            spooled = Spooled(str(content), 3, b"")
            staged = staged_component(Staged(str(content), 3, "binary", None, (spooled,)), "data", {})
            change.add(f"component-{turn % components}", 0, staged)
            options = CommitOptions(overwrite=True, message=f"turn {turn}")
            commit.commit_in(registry.access, dataset.record, change, options, uuid4(), PackPlan(), Upload(), tx)

    left = versions - 2
    while left > 0:
        registry.access.catalog.write(partial(some, min(left, 500)))
        left -= 500
    return dataset


# --- what is measured ----------------------------------------------------------------------------------------------


def _works(dataset: Dataset) -> dict[str, Callable[[int], object]]:
    count = dataset.version().component_count - 1
    newest = dataset.version().number
    turns = itertools.count(1)
    return {
        "commit": lambda i: dataset.commit({f"component-{next(turns) * 7 % count}": uuid4().bytes}),
        "branch": lambda i: dataset.create_branch(f"branch-{next(turns)}", "main"),
        "tag": lambda i: dataset.create_tag(f"tag-{next(turns)}", "main"),
        "log of 1,000": lambda i: dataset.log(limit=1000),
        "main~50": lambda i: dataset.version("main~50"),
        "read one": lambda i: dataset.version(f"v{newest // 2 + 1}").open("component-5").read(),
    }


def _costs(dataset: Dataset, touched: Callable[[Callable[[int], object]], float]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, work in _works(dataset).items():
        for i in range(3):
            work(i)
        times = []
        for i in range(ROUNDS):
            started = perf_counter()
            work(i)
            times.append(perf_counter() - started)
        found[name] = {"ms": round(median(times) * 1000, 2), "touched": round(touched(work))}
    return found


def _instructions(registry: Registry) -> Callable[[Callable[[int], object]], float]:
    """Counts the instructions of SQLite's virtual machine that a piece of work takes."""

    def count(work: Callable[[int], object]) -> float:
        seen = itertools.count()
        connections = list(registry.access.catalog._sqlite_connections)
        for connection in connections:
            connection.set_progress_handler(lambda: next(seen) and 0, 1)
        work(0)
        for connection in connections:
            connection.set_progress_handler(None, 1)
        return next(seen)

    return count


def _rows(registry: Registry) -> Callable[[Callable[[int], object]], float]:
    """Counts the rows that PostgreSQL reads and writes for a piece of work: a backend reports them when it is told to."""
    query = """
        SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0) + n_tup_ins + n_tup_upd + n_tup_del), 0)
        FROM pg_stat_user_tables
    """
    times = 20

    def now() -> int:
        with registry.access.catalog.reader.connect() as connection:  # the one that did the work: there is no other
            connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
            connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
            return int(connection.exec_driver_sql(query).scalar_one())

    def count(work: Callable[[int], object]) -> float:
        before = now()
        for i in range(times):
            work(i)
        return (now() - before) / times

    return count


# --- printing ------------------------------------------------------------------------------------------------------


def _print(rows: list[dict[str, Any]]) -> None:
    names = [name for name in rows[0] if isinstance(rows[0][name], dict)]
    table = Table(title="ms (instructions of SQLite, rows of PostgreSQL)", title_justify="left", box=None)
    for name in ("catalog", "versions", "components", *names):
        table.add_column(name, justify="left" if name == "catalog" else "right")
    for row in rows:
        costs = (f"{row[name]['ms']:.2f} ({row[name]['touched']:,})" for name in names)
        table.add_row(row["catalog"], f"{row['versions']:,}", f"{row['components']:,}", *costs)
    console.print(table)


if __name__ == "__main__":
    if sys.argv[1:] == ["--quick"]:
        main((100, 1_000), (10, 1_000))
    else:
        main()
