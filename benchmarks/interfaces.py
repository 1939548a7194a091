"""`python -m benchmarks.interfaces [audit] [load]`: what the audit log costs a commit, and what a server bears.

`audit`: commits a second with the audit log, without it, and with it sealed every second, on SQLite and on PostgreSQL with 8
clients. `load`: 50 clients for a minute (SECONDS), reads and commits mixed, over REST on PostgreSQL and S3: requests a second,
p50, p99, errors, and the server's memory while it goes on.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import quantiles
from time import monotonic, perf_counter, sleep
from typing import Any
from uuid import uuid4

import httpx
from rich.console import Console
from rich.table import Table

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.operations import audit as auditing
from tests import servers, serving

SECONDS = float(os.environ.get("SECONDS", "60"))
CLIENTS = int(os.environ.get("CLIENTS", "50"))
_CHILDREN = 2
console = Console(width=118)


def main(parts: list[str]) -> None:
    """Measure, print, and write `benchmarks/results/<date>-interfaces.json`."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="registry-bench-") as folder:
        for name, part in (("audit", audit), ("load", load)):
            if not parts or name in parts:
                results[name] = part(Path(folder) / name)
    target = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-interfaces.json"
    before = json.loads(target.read_text()) if target.exists() else {}
    target.write_text(json.dumps(before | results, indent=2) + "\n")


# --- what the audit log costs --------------------------------------------------------------------------------------


def audit(folder: Path) -> list[dict[str, Any]]:
    """Commits a second of 8 clients on branches of their own."""
    folder.mkdir(parents=True)
    results = []
    with servers.postgresql(durable=True) as url:
        postgresql = url.replace("postgresql://", "postgresql+psycopg://")
        catalog = Catalog(postgresql)
        migrate.upgrade(catalog)
        catalog.close()
        for name, place in (
            ("SQLite", {"folder": str(folder / "sqlite")}),
            ("PostgreSQL", {"catalog": postgresql, "store": str(folder / "postgresql")}),
        ):
            with Registry.open(**place) as registry:  # type: ignore[arg-type]  # all are texts
                _commits(registry, 2)
                rates: dict[str, list[float]] = {"without": [], "with": [], "sealed every second": []}
                for _ in range(3):
                    with _without():
                        rates["without"].append(_commits(registry, 5))
                    rates["with"].append(_commits(registry, 5))
                    with _sealing(registry):
                        rates["sealed every second"].append(_commits(registry, 5))
                assert registry.check_audit().problems == ()
            best = {how: max(found) for how, found in rates.items()}
            results.append({"catalog": name, **{how: round(rate, 1) for how, rate in best.items()}})
    table = Table(
        "catalog", *("without", "with", "sealed every second"), title="8 clients, commits/s (best of 3 × 5 s)"
    )
    for row in results:
        without = row["without"]
        table.add_row(
            row["catalog"],
            f"{without:,.0f}",
            *(f"{row[how]:,.0f}  ({row[how] / without:.2f} x)" for how in ("with", "sealed every second")),
        )
    console.print(table)
    return results


def _commits(registry: Registry, seconds: float) -> float:
    run = uuid4().hex[:8]
    datasets = [registry.create_dataset(f"bench/{run}-{client}") for client in range(8)]
    end = monotonic() + seconds

    def client(position: int) -> int:
        count = 0
        while monotonic() < end:
            datasets[position].commit({"data": f"{run} {position} {count}".encode()})
            count += 1
        return count

    begun = perf_counter()
    with ThreadPoolExecutor(8) as pool:
        total = sum(pool.map(client, range(8)))
    return total / (perf_counter() - begun)


@contextmanager
def _without() -> Iterator[None]:
    append = auditing.audit.append
    auditing.audit.append = lambda *arguments: None  # type: ignore[assignment]  # nothing is logged
    try:
        yield
    finally:
        auditing.audit.append = append


@contextmanager
def _sealing(registry: Registry) -> Iterator[None]:
    over = threading.Event()

    def seal() -> None:
        while not over.wait(1):
            registry.seal_audit()

    thread = threading.Thread(target=seal)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# --- what a server bears -------------------------------------------------------------------------------------------


def load(folder: Path) -> dict[str, Any]:
    """Clients in processes of their own, so that they do not wait for one another more than for the server."""
    folder.mkdir(parents=True)
    with servers.postgresql(durable=True) as url, servers.s3() as bucket:
        postgresql = url.replace("postgresql://", "postgresql+psycopg://")
        catalog = Catalog(postgresql)
        migrate.upgrade(catalog)
        catalog.close()
        store = bucket.replace("?", f"/bench-{uuid4().hex}?", 1) + f"&cache={folder / 'cache'}"
        with serving.in_process(catalog=postgresql, store=store, log=folder / "log") as served:
            served.owner.create_user("admin", role="administrator")
            token = served.token("admin")
            for number in range(10):
                dataset = served.owner.create_dataset(f"load/{number}")
                dataset.commit({"data": b"a,b\n1,2\n", "notes": os.urandom(20_000)})
            assert served.process is not None, "a process"
            memory: list[int] = []
            command = [sys.executable, "-m", "benchmarks.interfaces", "--client", served.url, token]
            clients = [
                subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(_CHILDREN)
            ]
            while any(client.poll() is None for client in clients):
                memory.append(_rss(served.process.pid))
                sleep(1)
            found = [json.loads(client.communicate()[0]) for client in clients]
            clean = served.owner.verify(deep=True).clean
            problems = served.owner.check_audit().problems
    times = sorted(t for part in found for t in part["ms"])
    statuses: Counter[str] = Counter()
    for part in found:
        statuses.update(part["statuses"])
    cuts = quantiles(times, n=100)
    tenth = max(len(memory) // 10, 1)
    result = {
        "clients": CLIENTS,
        "seconds": SECONDS,
        "requests/s": round(len(times) / SECONDS, 1),
        "p50 ms": round(cuts[49], 1),
        "p99 ms": round(cuts[98], 1),
        "commits": sum(part["commits"] for part in found),
        "statuses": dict(statuses),
        "commits given up": sum(part["given_up"] for part in found),
        "rss MB": [round(memory[i] / 1e6) for i in range(0, len(memory), tenth)],
        "verified clean": clean and not problems,
    }
    table = Table(
        "what", "figure", title=f"{CLIENTS} clients for {SECONDS:.0f} s over REST, PostgreSQL and S3, 2 cores for all"
    )
    for name, value in result.items():
        table.add_row(name, str(value))
    console.print(table)
    return result


def _rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def client(url: str, token: str, seed: str) -> None:
    """What one client process does; prints what it saw as JSON."""
    times: list[float] = []
    statuses: Counter[str] = Counter()
    done: Counter[str] = Counter()
    end = monotonic() + SECONDS

    def one(position: int) -> None:
        random = Random(f"{seed}-{position}")
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url + "/v1/", headers=headers, timeout=60) as http:

            def ask(method: str, path: str, **content: Any) -> httpx.Response:
                begun = perf_counter()
                answer = http.request(method, path, **content)
                times.append((perf_counter() - begun) * 1000)
                statuses[str(answer.status_code)] += 1
                return answer

            while monotonic() < end:
                dataset = random.randint(1, 10)
                if random.random() < 0.2:
                    _commit(ask, random, dataset, done)
                    continue
                head = ask("GET", f"datasets/{dataset}/resolve").json()
                path = f"datasets/{dataset}/versions/{head['id']}"
                what = random.choice(["components", "content?component=data", "content?component=notes", "productions"])
                ask("GET", f"{path}/{what}")
                ask("GET", f"datasets/{dataset}/log", params={"limit": 20})

    with ThreadPoolExecutor(CLIENTS // _CHILDREN) as pool:
        list(pool.map(one, range(CLIENTS // _CHILDREN)))
    print(json.dumps({"ms": times, "statuses": statuses, "commits": done["commits"], "given_up": done["given up"]}))


def _commit(ask: Any, random: Random, dataset: int, done: Counter[str]) -> None:
    """A commit that says what it was made from; when somebody was first it looks again."""
    data = f"a,b\n{random.random()},2\n".encode()
    for _ in range(20):
        base = ask("GET", f"datasets/{dataset}/resolve").json()["id"]
        body = {
            "base_version_id": base,
            "components": [{"component_name": "data", "content": {"part": "f"}, "format": "csv"}],
        }
        files = {"f": ("f.csv", data)}
        answer = ask("POST", f"datasets/{dataset}/versions", data={"commit": json.dumps(body)}, files=files)
        if answer.status_code == 201:
            done["commits"] += 1
            return
        if answer.status_code != 409:
            break
    done["given up"] += 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        client(*sys.argv[2:])
    else:
        main(sys.argv[1:])
