"""What the pages cost on a large registry, beside a bare FastAPI application in the same run.

The registry has 1,000 datasets, one of 10,000 versions, one of 100,000 components, and a table of 10 M rows, or a share of it:
`python -m benchmarks.web_pages [SHARE]`. For each page: milliseconds until the first byte and until the last, the median of five
after a first request, and above those of the bare application.
"""

import json
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import httpx
import pyarrow as pa
import uvicorn
from fastapi import FastAPI

from benchmarks.merges import table as rows_of
from dataset_registry import InputVersion, Provenance, Registry
from dataset_registry.server.app import create_app
from dataset_registry.server.pages.sessions import LocalOwner
from dataset_registry.server.settings import Settings

ROUNDS = 5
RESULTS = Path(__file__).parent / "results"

PAGES = {
    "home": "/",
    "home, the last page": "/?after=many/00940",
    "search": "/search?q=many/0099",
    "branches": "/branches",
    "dataset of 10,000 versions": "/datasets/deep/history",
    "… its middle": "/datasets/deep/history?before=5000",
    "… its schema over time": "/datasets/deep/history/-/schema",
    "… a version": "/datasets/deep/history@main",
    "… two versions": "/datasets/deep/history/compare/v1...main",
    "version of 100,000 components": "/datasets/wide/folder@main",
    "… its components": "/datasets/wide/folder@main/-/components?start=50000",
    "… its changes": "/datasets/wide/folder/compare/v1...v2",
    "version of 10 M rows": "/datasets/large/table@main",
    "… its first rows": "/datasets/large/table@main/-/preview",
    "… its last rows": "/datasets/large/table@main/-/preview?row={last}",
    "… rows by a filter": "/datasets/large/table@main/-/preview?filter=i0&operator=%3D&value=7",
    "… the largest rows": "/datasets/large/table@main/-/preview?sort=f0&order=descending",
    "… rows that differ": "/datasets/large/table/compare/v1...v2/-/rows?component=data",
    "lineage": "/datasets/many/00500@main/-/lineage",
    "run": "/runs/run-500",
    "audit log": "/admin/audit",
    "plan of a collection": "/admin/storage?plan=collect",
}


def fill(registry: Registry, share: float) -> int:
    """Fill a registry; the number of rows of the large table."""
    before: InputVersion | None = None
    for number in range(round(1000 * share)):
        name = f"many/{number:05}"
        provenance = Provenance(run_id=f"run-{number}", inputs=() if before is None else (before,))
        with registry.draft(name, provenance=provenance) as draft:
            draft.add("data", pa.table({"id": [number], "v": [1]}), key="id")
        before = InputVersion(name, 1, draft.version.digest, "main")
    deep = registry.create_dataset("deep/history")
    for number in range(round(10_000 * share)):
        deep.commit({"data": str(number).encode()}, message=f"Step {number}")
    wide = registry.create_dataset("wide/folder")
    files = {f"part/{number:06}.bin": str(number).encode() for number in range(round(100_000 * share))}
    wide.commit(files, message="All")
    wide.commit({"part/000007.bin": b"changed"}, message="One")
    large = registry.create_dataset("large/table")
    rows = round(10_000_000 * share)
    table = rows_of(rows)
    large.commit({"data": table}, key="id", message="All")
    edited = table.slice(0, 100).set_column(table.column_names.index("f0"), "f0", pa.array([99.0] * 100))
    large.upsert(edited, message="A hundred rows")
    return rows


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of an application that runs in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def measured(client: httpx.Client, path: str) -> tuple[float, float, int]:
    """Milliseconds until the first byte and the last, and the bytes."""
    first, last, size = [], [], 0
    for _ in range(ROUNDS + 1):
        begun = perf_counter()
        with client.stream("GET", path) as response:
            assert response.status_code == 200, (path, response.read())
            first.append(perf_counter() - begun)
            size = sum(len(chunk) for chunk in response.iter_bytes())
        last.append(perf_counter() - begun)
    return 1000 * statistics.median(first[1:]), 1000 * statistics.median(last[1:]), size


def main() -> None:
    """Build the registry, ask for every page, and keep the figures."""
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    hello = FastAPI()

    @hello.get("/")
    def say() -> dict[str, str]:
        return {"hello": "world"}

    with TemporaryDirectory() as folder:
        with Registry.open(folder) as registry:
            begun = perf_counter()
            rows = fill(registry, share)
            print(f"filled in {perf_counter() - begun:.0f} s")
        owner = LocalOwner()
        with served(hello) as bare_url, served(create_app(Settings(folder=folder), owner)) as url:
            with httpx.Client(base_url=bare_url, timeout=120) as client:
                bare = measured(client, "/")
            with httpx.Client(base_url=url, timeout=120) as client:
                client.get("/sign-in", params={"key": owner.key})
                found = {name: measured(client, path.format(last=rows - 50)) for name, path in PAGES.items()}
    print(f"bare FastAPI: {bare[1]:.1f} ms")
    print(f"{'page':34} {'first byte':>10} {'complete':>10} {'above bare':>10} {'kB':>6}")
    for name, (first, last, size) in found.items():
        print(f"{name:34} {first:8.1f} ms {last:8.1f} ms {last - bare[1]:7.1f} ms {size / 1000:6.0f}")
    values = {
        name: {"first_ms": first, "complete_ms": last, "bytes": size} for name, (first, last, size) in found.items()
    }
    path = RESULTS / f"{date.today():%Y-%m-%d}-web-pages.json"
    path.write_text(json.dumps({"share": share, "bare_ms": bare[1], "pages": values}, indent=1) + "\n")


if __name__ == "__main__":
    main()
