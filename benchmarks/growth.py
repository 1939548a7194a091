"""`python -m benchmarks.growth`: what hot operations cost in catalogs of 10^4 to 10^7 entries, on both databases, the fitted
exponents, the bytes of a row of each table, and what these say of 10^9 files.

A small registry is made as users make one; then its rows are copied with new ids until the catalog is large enough, so that
pages, versions and files are shared as they were. Everything that is measured is one call of the public surface, on a dataset of
its own.
"""

import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import log
from pathlib import Path
from statistics import linear_regression
from typing import Any
from uuid import uuid4

import matplotlib as mpl
import pyarrow as pa
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, func, select, text
from sqlalchemy.sql.schema import Table as Rows

from benchmarks.__main__ import _machine, _registries, _timed
from benchmarks.charts import OURS, SETTINGS
from dataset_registry import Dataset, Registry
from dataset_registry.catalog.tables import metadata
from dataset_registry.operations import collect, overview
from tests.servers import postgresql

SEED_DATASETS, SEED_VERSIONS, COMPONENTS = 64, 10, 16
LEVELS = (1, 4, 16, 64, 256, 1024)
"""How many times the rows of the seed are there."""
ROUNDS = 25
COPIED = (
    "files",
    "file_captures",
    "manifest_pages",
    "manifest_entries",
    "manifest_index_pages",
    "manifest_index_entries",
    "datasets",
    "dataset_versions",
    "version_parents",
    "version_index_pages",
    "dataset_pointers",
    "productions",
    "audit_log",
)
"""The tables that grow with datasets, versions and contents."""
console = Console(width=150)


def main(levels: Sequence[int] = LEVELS) -> None:
    """Measure, print, draw, and write `benchmarks/results/<date>-growth.json`."""
    folder = Path(tempfile.mkdtemp(prefix="registry-growth-"))
    rows: list[dict[str, Any]] = []
    bytes_of: dict[str, dict[str, float]] = {}
    try:
        with postgresql(durable=True) as url:
            for name, registry in _registries(folder, url):
                _seed(registry)
                mine = _mine(registry)
                done = 1
                for level in levels:
                    _grow(registry, done, level)
                    done = level
                    rows.append({"catalog": name, **_sizes(registry), "ms": _costs(registry, mine)})
                    _print(rows[-1:])
                if name == "PostgreSQL":
                    bytes_of = _bytes_of_rows(registry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "levels": rows,
        "exponents": {name: _exponents(rows, name) for name in ("SQLite", "PostgreSQL")},
        "bytes of a row": bytes_of,
    }
    target = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-growth.json"
    target.write_text(json.dumps(found, indent=1) + "\n")
    draw(found, Path(__file__).parent.parent / "docs" / "charts")
    console.print(found["exponents"], bytes_of)


# --- catalogs ------------------------------------------------------------------------------------------------------


def _seed(registry: Registry) -> None:
    """Datasets with versions that change one component each, and a branch each."""
    for n in range(SEED_DATASETS):
        dataset = registry.create_dataset(f"growth/{n:03}")
        with dataset.draft(message="all") as draft:
            for at in range(COMPONENTS):
                draft.add(f"component-{at:02}", f"{n} {at}".encode())
        for turn in range(1, SEED_VERSIONS):
            dataset.commit({f"component-{turn:02}": f"{n} {turn} again".encode()}, message=f"turn {turn}")
        dataset.create_branch("dev", "v5")


def _mine(registry: Registry) -> Dataset:
    """The dataset that is measured, with a table and a history."""
    dataset = registry.create_dataset("measured/one")
    for turn in range(120):
        dataset.commit({"data": pa.table({"n": [turn]}), f"component-{turn % COMPONENTS}": uuid4().bytes})
    return dataset


def _grow(registry: Registry, there: int, wanted: int) -> None:
    """Copy the rows of the seed, doubling them, until they are there so many times; then let the database gather statistics."""
    with registry.access.catalog.writer.begin() as connection:  # type: ignore[attr-defined]
        while there < wanted:
            _double(connection, there)
            there *= 2
        if connection.dialect.name != "sqlite":  # ids that were given do not move the sequences
            for name in COPIED:
                if "id" in metadata.tables[name].c:
                    rows = f"dataset_registry.{name}"
                    connection.execute(
                        text(f"SELECT setval(pg_get_serial_sequence('{rows}', 'id'), max(id)) FROM {rows}")
                    )
        connection.execute(text("ANALYZE"))


def _double(connection: Connection, turn: int) -> None:
    tables = [metadata.tables[name] for name in COPIED]
    most = {
        t.name: connection.execute(select(func.coalesce(func.max(t.c.id), 0))).scalar_one()
        for t in tables
        if "id" in t.c
    }
    is_sqlite = connection.dialect.name == "sqlite"
    for table in tables:
        columns = [column.name for column in table.c]
        values = ", ".join(_value(table, name, most, turn, is_sqlite) for name in columns)
        names = ", ".join(f'"{name}"' for name in columns)
        schema = "" if is_sqlite else '"dataset_registry".'
        connection.execute(
            text(f'INSERT INTO {schema}"{table.name}" ({names}) SELECT {values} FROM {schema}"{table.name}"')
        )


def _value(table: Rows, name: str, most: Mapping[str, int], turn: int, is_sqlite: bool) -> str:
    """The column of a copied row: ids are shifted, what is unique is generated."""
    column = table.c[name]
    quoted = f'"{name}"'
    target = next((key.column.table.name for key in column.foreign_keys), None)
    if name == "id":
        return f"{quoted} + {most[table.name]}"
    if (target in most and target in COPIED) or (table.name == "audit_log" and name == "dataset_id"):
        return f"{quoted} + {most[target or 'datasets']}"
    if (table.name, name) == ("datasets", "name"):
        return f"'c{turn}/' || {quoted}"
    if (table.name, name) == ("dataset_versions", "uuid"):
        return "lower(hex(randomblob(16)))" if is_sqlite else "gen_random_uuid()"
    if (table.name, name) in (("files", "content_hash"), ("files", "object_key")):
        made = "lower(hex(randomblob(32)))" if is_sqlite else "encode(sha256(gen_random_uuid()::text::bytea), 'hex')"
        made = f"{made} || '.' || substr({quoted}, 66)" if name == "object_key" else made
        return f"CASE WHEN {quoted} IS NULL THEN NULL ELSE {made} END"
    return quoted


def _sizes(registry: Registry) -> dict[str, int]:
    with registry.access.catalog.reader.connect() as connection:  # type: ignore[attr-defined]

        def count(name: str) -> int:
            return int(connection.execute(select(func.count()).select_from(metadata.tables[name])).scalar_one())

        is_sqlite = connection.dialect.name == "sqlite"
        size = (
            "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            if is_sqlite
            else "SELECT pg_database_size(current_database())"
        )
        return {
            "datasets": count("datasets"),
            "versions": count("dataset_versions"),
            "entries": count("manifest_entries"),
            "files": count("files"),
            "bytes": int(connection.execute(text(size)).scalar_one()),
        }


def _bytes_of_rows(registry: Registry) -> dict[str, dict[str, float]]:
    """Of PostgreSQL: rows, and bytes of a row with its share of the indexes, of each table that grows."""
    found = {}
    with registry.access.catalog.reader.connect() as connection:  # type: ignore[attr-defined]
        for name in COPIED:
            rows = int(connection.execute(select(func.count()).select_from(metadata.tables[name])).scalar_one())
            query = text(f"SELECT pg_total_relation_size('dataset_registry.{name}')")
            size = int(connection.execute(query).scalar_one())
            found[name] = {"rows": rows, "bytes": round(size / max(1, rows), 1)}
    return found


# --- what is measured ----------------------------------------------------------------------------------------------


def _works(registry: Registry, dataset: Dataset) -> dict[str, Callable[[int], object]]:
    access = registry.access  # type: ignore[attr-defined]
    some_file = dataset.version("v1").components[0].content_hash
    turns = itertools.count()
    return {
        "commit": lambda i: dataset.commit({f"component-{next(turns) % COMPONENTS}": uuid4().bytes}),
        "branch": lambda i: dataset.create_branch(uuid4().hex[:6] + "-branch"),
        "tag": lambda i: dataset.create_tag(uuid4().hex[:6] + "-tag"),
        "look up a ref": lambda i: registry.version("measured/one@main~3"),
        "log of 100": lambda i: dataset.log(limit=100),
        "read a table": lambda i: dataset.version("v60").to_arrow(),
        "diff": lambda i: dataset.diff("v10", "v100"),
        "file by hash": lambda i: registry.file(some_file),
        "datasets under a prefix": lambda i: registry.datasets(prefix="measured/"),
        "page of datasets": lambda i: overview.dataset_summaries(access, limit=50),
        "search": lambda i: overview.search(access, "measured"),
        "audit log of 50": lambda i: registry.audit(limit=50),
    }


def _whole_works(registry: Registry) -> dict[str, Callable[[int], object]]:
    """Work that looks at everything by its nature."""
    return {
        "all datasets": lambda i: registry.datasets(),
        "plan a collection": lambda i: collect.plan(registry.access, timedelta(hours=1)),  # type: ignore[attr-defined]
    }


def _costs(registry: Registry, dataset: Dataset) -> dict[str, float]:
    found = {name: _timed(work, ROUNDS) for name, work in _works(registry, dataset).items()}
    return found | {name: _timed(work, 2) for name, work in _whole_works(registry).items()}


def _exponents(rows: Sequence[Mapping[str, Any]], catalog: str) -> dict[str, float]:
    """The slope of log(ms) over log(entries): 0 is flat, 1 grows with the catalog."""
    mine = [row for row in rows if row["catalog"] == catalog]
    if len(mine) < 2:
        return {}
    sizes = [log(row["entries"]) for row in mine]
    return {
        name: round(linear_regression(sizes, [log(row["ms"][name]) for row in mine]).slope, 3) for name in mine[0]["ms"]
    }


# --- printing ------------------------------------------------------------------------------------------------------


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=None)
    for name in ("catalog", "datasets", "versions", "entries", "MB", *rows[0]["ms"]):
        table.add_column(name, justify="right")
    for row in rows:
        sizes = (f"{row[name]:,}" for name in ("datasets", "versions", "entries"))
        table.add_row(row["catalog"], *sizes, f"{row['bytes'] / 1e6:,.0f}", *(f"{ms:.2f}" for ms in row["ms"].values()))
    console.print(table)


def draw(found: Mapping[str, Any], folder: Path) -> Path:
    """`growth.svg`: milliseconds over entries, one line for each operation, one panel for each database."""
    names = list(found["levels"][0]["ms"])
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, catalog in zip(panels, ("SQLite", "PostgreSQL"), strict=True):
            mine = [row for row in found["levels"] if row["catalog"] == catalog]
            for name in names:
                is_whole = name in ("all datasets", "plan a collection")
                color = "#b91c1c" if is_whole else OURS
                ms = [row["ms"][name] for row in mine]
                axes.plot([row["entries"] for row in mine], ms, marker="o", markersize=3, linewidth=1.2, color=color)
                if catalog == "PostgreSQL":
                    axes.annotate(
                        name, (mine[-1]["entries"], ms[-1]), xytext=(4, -3), textcoords="offset points", fontsize=7
                    )
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(f"{catalog}: milliseconds by entries of the catalog", loc="left")
        panels[1].set_xlim(right=panels[1].get_xlim()[1] * 30)
        target = folder / "growth.svg"
        figure.savefig(target, metadata={"Date": None})
    return target


if __name__ == "__main__":
    main(tuple(int(word) for word in sys.argv[1:]) or LEVELS)
