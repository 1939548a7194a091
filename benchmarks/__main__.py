"""`make bench`: what a commit costs for 10 and for 100,000 components, and how many commits a second 8 clients make.

Beside it, in the same run, the limits: one fdatasync, one durable insert into SQLite and into PostgreSQL. Absolute times do
not travel between machines; only ratios measured in one run count.
"""

import itertools
import json
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from dataset_registry import Dataset, Registry
from dataset_registry.catalog import Catalog, migrate, tables
from tests.servers import postgresql

ROUNDS = 100
COUNTED = (
    "dataset_versions",
    "version_index_pages",
    "manifest_index_pages",
    "manifest_index_entries",
    "manifest_pages",
    "manifest_entries",
    "productions",
    "files",
)
console = Console(width=118)


def main() -> None:
    """Measure, print, and write `benchmarks/results/<date>.json`."""
    folder = Path(tempfile.mkdtemp(prefix="registry-bench-"))
    try:
        with postgresql(durable=True) as url:
            results: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine()}
            results["limits"] = {
                "fdatasync": _fdatasync(folder),
                "sqlite insert": _sqlite(folder),
                "postgresql insert": _postgresql(url),
            }
            _print_limits(results["limits"])
            results["commits"] = [_commits(name, registry) for name, registry in _registries(folder, url)]
            _print_commits(results["commits"])
            results["clients"] = [_clients(name, registry) for name, registry in _registries(folder, url)]
            _print_clients(results["clients"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    target = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-commits.json"
    target.write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"\nkept in {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in ("dataset-registry", "sqlalchemy", "psycopg", "pyarrow", "duckdb")},
    }


# --- the limits ----------------------------------------------------------------------------------------------------


def _timed(work: Callable[[int], object], rounds: int = ROUNDS) -> float:
    """The median of the milliseconds that a call takes, after a warm-up."""
    for i in range(5):
        work(-i - 1)
    times = []
    for i in range(rounds):
        started = perf_counter()
        work(i)
        times.append(perf_counter() - started)
    return round(median(times) * 1000, 3)


def _fdatasync(folder: Path) -> float:
    descriptor = os.open(folder / "raw", os.O_CREAT | os.O_WRONLY)

    def write(_: int) -> None:
        os.write(descriptor, b"x" * 100)
        os.fdatasync(descriptor)

    found = _timed(write)
    os.close(descriptor)
    return found


def _sqlite(folder: Path) -> float:
    raw = sqlite3.connect(folder / "raw.sqlite", isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t (a)"):
        raw.execute(statement)

    def insert(i: int) -> None:
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("INSERT INTO t VALUES (?)", (i,))
        raw.execute("COMMIT")

    found = _timed(insert)
    raw.close()
    return found


def _postgresql(url: str) -> float:
    with psycopg.connect(url) as raw:
        raw.execute("CREATE TABLE bench (a int)")
        raw.commit()

        def insert(i: int) -> None:
            raw.execute("INSERT INTO bench VALUES (%s)", (i,))
            raw.commit()

        return _timed(insert)


# --- ours ----------------------------------------------------------------------------------------------------------


def _registries(folder: Path, url: str) -> Iterator[tuple[str, Registry]]:
    for name in ("SQLite", "PostgreSQL"):
        home = Path(tempfile.mkdtemp(dir=folder))
        catalog = f"sqlite:///{home / 'catalog.sqlite'}" if name == "SQLite" else url
        if name == "PostgreSQL":
            opened = Catalog(catalog)
            migrate.upgrade(opened)
            opened.close()
        with Registry.open(catalog=catalog, store=str(home)) as registry:
            yield name, registry


def _commits(name: str, registry: Registry) -> dict[str, Any]:
    """One component replaced by known content, in a dataset of 10 and of 100,000 that share content."""
    found: dict[str, Any] = {"catalog": name}
    for count in (10, 100_000):
        dataset = registry.create_dataset(f"components/{count}-{datetime.now(UTC):%H%M%S%f}")
        dataset.commit({f"component-{i}": b"one" for i in range(count)})
        dataset.commit({"extra": b"two"})
        turns = itertools.count()

        def replace(_: int, dataset: Dataset = dataset, turns: Iterator[int] = turns, count: int = count) -> None:
            turn = next(turns)
            dataset.commit({f"component-{turn * 37 % count}": b"two" if turn * 37 // count % 2 == 0 else b"one"})

        before = _rows(registry)
        milliseconds = _timed(replace)
        written = {table: (after - before[table]) / (ROUNDS + 5) for table, after in _rows(registry).items()}
        found[str(count)] = {
            "milliseconds": milliseconds,
            "rows": round(sum(written.values()), 1),
            "pages": round(written["manifest_pages"] + written["manifest_index_pages"], 2),
        }
    return found


def _rows(registry: Registry) -> dict[str, int]:
    with registry.access.catalog.read() as tx:
        return {
            name: int(tx.execute(select(func.count()).select_from(tables.metadata.tables[name])).scalar_one())
            for name in COUNTED
        }


def _clients(name: str, registry: Registry) -> dict[str, Any]:
    """8 threads committing to 8 branches of one dataset of 64 components, then all to one branch."""
    dataset = registry.create_dataset(f"clients/{datetime.now(UTC):%H%M%S%f}")
    dataset.commit({f"c{i}": b"one" for i in range(64)})
    dataset.commit({"c0": b"two"})
    for n in range(8):
        dataset.create_branch(f"b{n}")
    seconds = 5.0

    def client(n: int, branch: str) -> int:
        done, until = 0, perf_counter() + seconds
        while perf_counter() < until:
            dataset.commit({f"c{8 * n + 1 + done % 7}": b"one" if done // 7 % 2 else b"two"}, branch=branch)
            done += 1
        return done

    found: dict[str, Any] = {"catalog": name}
    with _pool() as pool:
        found["8 branches"] = round(sum(pool.map(lambda n: client(n, f"b{n}"), range(8))) / seconds)
        found["1 branch"] = round(sum(pool.map(lambda n: client(n, "main"), range(8))) / seconds)
    return found


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


# --- printing ------------------------------------------------------------------------------------------------------


def _print_limits(limits: dict[str, float]) -> None:
    table = Table(title="Limits, milliseconds (median)", title_justify="left", box=None)
    for name in limits:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.2f}" for value in limits.values()))
    console.print(table)


def _print_commits(results: list[dict[str, Any]]) -> None:
    table = Table(title="One component replaced, durable", title_justify="left", box=None)
    for name in ("catalog", "components", "ms (median)", "rows written", "pages written", "target ms", "met"):
        table.add_column(name, justify="left" if name == "catalog" else "right")
    for result in results:
        target = 3 if result["catalog"] == "SQLite" else 6
        for count in ("10", "100000"):
            ms = result[count]["milliseconds"]
            row = (f"{ms:.2f}", str(result[count]["rows"]), str(result[count]["pages"]), f"≤ {target}")
            table.add_row(
                result["catalog"], f"{int(count):,}", *row, "yes" if ms <= target else f"no, {ms / target:.2f} x"
            )
    console.print(table)


def _print_clients(results: list[dict[str, Any]]) -> None:
    table = Table(title="8 clients, one dataset of 64 components, commits/s", title_justify="left", box=None)
    for name in ("catalog", "8 branches", "1 branch"):
        table.add_column(name, justify="left" if name == "catalog" else "right")
    for result in results:
        table.add_row(result["catalog"], str(result["8 branches"]), str(result["1 branch"]))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
