"""`python -m benchmarks.plans`: how both databases find what the hot paths ask for, by their own account.

Each statement of a piece of work that reads is explained, in a catalog of a few thousand versions and files. What is named is
the index that a table is searched by; a table that is read from end to end says so.
"""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table
from sqlalchemy import event

from benchmarks.__main__ import _machine, _registries
from benchmarks.scale import history
from dataset_registry import Dataset, Registry
from tests.servers import postgresql

VERSIONS, COMPONENTS, FILES = 3_000, 1_000, 5_000
console = Console(width=160)


def main() -> None:
    """Explain, print, and write `benchmarks/results/<date>-plans.json`."""
    folder = Path(tempfile.mkdtemp(prefix="registry-plans-"))
    rows: list[dict[str, str]] = []
    try:
        with postgresql(durable=False) as url:
            for name, registry in _registries(folder, url):
                registry.create_dataset("many/files").commit({f"file-{i}": uuid4().bytes for i in range(FILES)})
                dataset = history(registry, VERSIONS, COMPONENTS)
                if name == "PostgreSQL":  # its autovacuum would, in a while
                    registry.access.catalog.write(lambda tx: tx.exec_driver_sql("ANALYZE"))
                for work, do in _works(registry, dataset).items():
                    do()
                    rows += [{"catalog": name, "work": work, **found} for found in _explained(registry, do)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table = Table(box=None)
    for column in ("catalog", "work", "statement", "plan"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    found = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine(), "plans": rows}
    target = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-plans.json"
    target.write_text(json.dumps(found, indent=1) + "\n")


def _works(registry: Registry, dataset: Dataset) -> dict[str, Callable[[], object]]:
    def name() -> str:
        return f"at-{uuid4().hex}"

    return {
        "commit": lambda: dataset.commit({"component-5": uuid4().bytes}),
        "branch": lambda: dataset.create_branch(name()),
        "tag": lambda: dataset.create_tag(name()),
        "history": lambda: dataset.log(limit=100),
        "main~50": lambda: dataset.version("main~50"),
        "read a component": lambda: dataset.version("v7").open("component-5").read(),
        "diff": lambda: dataset.diff("main~1", "main"),
        "branch everywhere": lambda: registry.create_branch(name()),
    }


def _explained(registry: Registry, work: Callable[[], object]) -> Iterator[dict[str, str]]:
    """The statements of a piece of work that read, each with the plan that its database has for it."""
    seen: dict[str, Any] = {}

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if re.match("SELECT|UPDATE|DELETE|WITH|INSERT.* SELECT .* FROM [a-z]", statement, re.DOTALL):
            seen.setdefault(statement, parameters)

    catalog = registry.access.catalog
    engines = {id(engine): engine for engine in (catalog.reader, catalog.writer)}.values()
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    work()
    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN" if catalog.is_sqlite else "EXPLAIN"
    with catalog.reader.connect() as connection:
        for statement, parameters in seen.items():
            lines = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
            texts = [line[-1] for line in lines]
            yield {
                "statement": _short(statement),
                "plan": "; ".join(_searches(texts) if catalog.is_sqlite else _scans(texts)),
            }


def _short(statement: str) -> str:
    tables = re.findall(r"(?:FROM|JOIN|UPDATE|INTO) ([a-z_]+)", statement)
    return f"{statement.split(maxsplit=1)[0]} {', '.join(dict.fromkeys(tables))}"


def _searches(lines: list[str]) -> Iterator[str]:
    """Of SQLite's plan the tables that are looked into, and how."""
    return (line for line in dict.fromkeys(lines) if line.startswith(("SEARCH", "SCAN")))


def _scans(lines: list[str]) -> Iterator[str]:
    """Of PostgreSQL's plan the nodes that read a table or an index."""
    for line in lines:
        if found := re.search(r"((?:Seq|Index|Bitmap|Tid)[A-Za-z ]* Scan.*?)  \(cost", line):
            yield found[1]


if __name__ == "__main__":
    sys.exit(main())
