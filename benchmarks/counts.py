"""`python -m benchmarks.counts`: what each small operation takes, counted: statements, round trips to PostgreSQL, syncs of the
process, calls of Python functions, and memory at its peak.

Counts do not depend on the machine, so runs of different versions can be compared: `python -m benchmarks.counts PATH` counts for
the source tree at another path. `benchmarks/results/<date>-counts.json` has what was counted. Syncs need `strace`.
"""

import cProfile
import json
import os
import pstats
import re
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any

HOME = Path(__file__).parent.parent
OPERATIONS = ("commit", "branch", "tag", "log of 100", "read")
TURNS = 20


def main(tree: Path = HOME) -> None:
    """Count, print, and write `benchmarks/results/<date>-counts.json`."""
    found = {}
    for database in ("SQLite", "PostgreSQL"):
        for operation in OPERATIONS:
            found[f"{operation}, {database}"] = _counted(tree, database, operation)
            print(f"{operation}, {database}: {found[f'{operation}, {database}']}", flush=True)
    name = f"{datetime.now(UTC):%Y-%m-%d}-counts{'' if tree == HOME else '-before'}.json"
    (Path(__file__).parent / "results" / name).write_text(json.dumps(found, indent=1) + "\n")


def _counted(tree: Path, database: str, operation: str) -> dict[str, float]:
    """The counts of an operation, each an average of some turns."""
    command = [sys.executable, "-W", "ignore", __file__, "--worker", database, operation]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    counted: dict[str, float] = json.loads(_output([*command, str(TURNS)], environment))
    if database == "SQLite" and which("strace"):  # PostgreSQL's are its server's
        few, many = (_syncs([*command, str(turns)], environment) for turns in (1, TURNS + 1))
        counted["syncs"] = round((many - few) / (2 * TURNS), 1)  # each turn is made twice
    return counted


def _output(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def _syncs(command: list[str], environment: dict[str, str]) -> int:
    """The syncs of a whole process."""
    traced = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", "/dev/stdout", *command]
    return len(re.findall(r"f(?:data)?sync\(\d+\) += 0|f(?:data)?sync resumed>\) += 0", _output(traced, environment)))


def _work(database: str, operation: str, turns: int) -> None:
    """Measure one operation in this process."""
    from sqlalchemy import Engine, event

    statements = count()
    event.listen(Engine, "before_cursor_execute", lambda *_: next(statements))
    with ExitStack() as until, TemporaryDirectory(dir=HOME / ".cache") as folder:
        from dataset_registry import Registry

        trips = _Trips()
        if database == "SQLite":
            registry = until.enter_context(Registry.open(folder))
        else:
            from dataset_registry.catalog import Catalog, migrate
            from tests.servers import postgresql

            url = until.enter_context(trips.through(until.enter_context(postgresql())))
            migrate.upgrade(Catalog(url))
            registry = until.enter_context(Registry.open(catalog=url, store=folder))
        dataset = registry.create_dataset("data")
        numbers = count(1000)
        for _ in range(120):
            dataset.commit({"data": b"content %d" % next(numbers)})
        work: dict[str, Callable[[], object]] = {
            "commit": lambda: dataset.commit({"data": b"content %d" % next(numbers)}),
            "branch": lambda: dataset.create_branch(f"branch-{next(numbers)}"),
            "tag": lambda: dataset.create_tag(f"tag-{next(numbers)}"),
            "log of 100": lambda: dataset.log(limit=100),
            "read": lambda: dataset.version().open("data").read(),
        }
        repeat = work[operation]
        for _ in range(10):
            repeat()
        before = next(statements), trips.made
        for _ in range(turns):
            repeat()
        after = next(statements) - 1, trips.made
        profile = cProfile.Profile()
        profile.runcall(lambda: [repeat() for _ in range(turns)])
        tracemalloc.start()
        repeat()
        tracemalloc.reset_peak()
        resting = tracemalloc.get_traced_memory()[0]
        repeat()
        peak = tracemalloc.get_traced_memory()[1] - resting
        calls = pstats.Stats(profile).total_calls / turns  # type: ignore[attr-defined]  # typeshed lacks it
        counts = {
            "statements": (after[0] - before[0]) / turns,
            "round trips": (after[1] - before[1]) / turns,
            "calls": round(calls),
            "peak kB": round(peak / 1000),
        }
        print(json.dumps(counts))


class _Trips:
    """Counts the round trips to a server, in a proxy before it."""

    def __init__(self) -> None:
        self.made = 0

    @contextmanager
    def through(self, url: str) -> Iterator[str]:
        """The URL of a server, by way of the proxy."""
        port = int(re.findall(r":(\d+)/", url)[-1])
        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=self._serve, args=(listening, port), daemon=True).start()
            yield url.replace(f":{port}/", f":{listening.getsockname()[1]}/")

    def _serve(self, listening: socket.socket, port: int) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            asked = [False]
            for source, target, asks in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=(source, target, asked, asks), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, asked: list[bool], asks: bool) -> None:
        while data := _received(source):
            if asks and not asked[0]:
                self.made += 1  # an answer was the last that passed: it asks again
            asked[0] = asks
            target.sendall(data)
        target.close()


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(1 << 16)
    except OSError:
        return b""


if __name__ == "__main__":
    given: list[Any] = sys.argv[1:]
    if given[:1] == ["--worker"]:
        _work(given[1], given[2], int(given[3]))
    else:
        main(*map(Path, given))
