"""`python -m benchmarks.reliability [part …]`: large files, many files, large deletions, retention, compression.

Parts: `large` (5 GB in and out of a folder and of S3, with the peak memory of each process), `many` (2,000 files of 20 kB in
one commit to S3, beside plain obstore), `retention` (1,000 versions), `deletion` (the last holder of 100,000 components),
`compression` (CSV and JSON). Without arguments all of them.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from time import perf_counter
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from dataset_registry import Policy, Registry, Rule
from tests import servers

GIGABYTES = float(os.environ.get("GIGABYTES", "5"))
console = Console(width=118)


def main(parts: list[str]) -> None:
    """Measure, print, and write `benchmarks/results/<date>-reliability.json`."""
    folder = Path(tempfile.mkdtemp(prefix="registry-bench-"))
    results: dict[str, Any] = {}
    try:
        for name, part in PARTS.items():
            if not parts or name in parts:
                results[name] = part(folder / name)
                rmtree(folder / name, ignore_errors=True)
    finally:
        rmtree(folder, ignore_errors=True)
    target = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-reliability.json"
    before = json.loads(target.read_text()) if target.exists() else {}
    target.write_text(json.dumps(before | results, indent=2) + "\n")


# --- large files ---------------------------------------------------------------------------------------------------


def large(folder: Path) -> list[dict[str, Any]]:
    """A file of several gigabytes goes in and comes out, each in a process of its own."""
    folder.mkdir(parents=True)
    source = folder / "source"
    block = os.urandom(1 << 24)
    with source.open("wb") as target:
        for i in range(int(GIGABYTES * 1e9 / len(block))):
            target.write(i.to_bytes(8, "big") + block[8:])
    rows = []
    with servers.s3() as url:
        bucket, _, options = url.partition("?")
        stores = {"folder": str(folder / "store"), "S3": f"{bucket}/large?{options}&cache={folder / 'cache'}"}
        for store, location in stores.items():
            catalog = f"sqlite:///{folder / f'{store}.sqlite'}"
            for step in ("in", "out"):
                called = [sys.executable, "-m", "benchmarks.reliability", f"--{step}", catalog, location, str(source)]
                found = json.loads(subprocess.run(called, check=True, capture_output=True, text=True).stdout)
                rows.append({"store": store, "way": step, **found})
            rmtree(folder / "store", ignore_errors=True)
    _print(
        f"A file of {GIGABYTES:g} GB, one process each",
        ["store", "way", "seconds", "GB/s", "peak MB", "of which imports"],
        [[r["store"], r["way"], r["seconds"], r["rate"], r["peak_mb"], r["imports_mb"]] for r in rows],
    )
    return rows


def large_in(catalog: str, store: str, source: str) -> None:
    """Commit the file."""
    with Registry.open(catalog=catalog, store=store) as registry:
        _measured(lambda: _commit(registry, source), source)


def _commit(registry: Registry, source: str) -> None:
    with registry.draft("large") as draft:
        draft.add("file", source, format="binary")


def large_out(catalog: str, store: str, source: str) -> None:
    """Read the file as a stream."""

    def read() -> None:
        with Registry.open(catalog=catalog, store=store) as registry, registry.version("large").open("file") as stream:
            while stream.read(1 << 20):
                pass

    _measured(read, source)


def _measured(work: Callable[[], object], source: str) -> None:
    imports = _peak_mb()
    start = perf_counter()
    work()
    seconds = perf_counter() - start
    rate = Path(source).stat().st_size / seconds / 1e9
    facts = {"seconds": round(seconds, 1), "rate": round(rate, 2), "peak_mb": _peak_mb(), "imports_mb": imports}
    sys.stdout.write(json.dumps(facts))


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# --- many files ----------------------------------------------------------------------------------------------------


def many(folder: Path) -> dict[str, Any]:
    """2,000 files of 20 kB in one commit to S3, and what obstore alone takes for the same."""
    import obstore

    folder.mkdir(parents=True)
    count, size, rounds = 2000, 20_000, 3
    rates: dict[str, list[float]] = {"plain obstore, 1 at a time": [], "plain obstore, 16 threads": [], "commit": []}
    with servers.s3() as url:
        bucket, _, options = url.partition("?")
        for i in range(rounds):
            location = f"{bucket}/many-{uuid4().hex}?{options}&cache={folder / 'cache'}"
            catalog = f"sqlite:///{folder / f'{i}.sqlite'}"
            with Registry.open(catalog=catalog, store=location) as registry:
                client = registry.access.store.client
                for threads, name in ((1, "plain obstore, 1 at a time"), (16, "plain obstore, 16 threads")):
                    contents = [os.urandom(size) for _ in range(count)]

                    def put(content: bytes) -> None:
                        obstore.put(client, f"plain/{uuid4().hex}", content, use_multipart=False)  # noqa: B023

                    start = perf_counter()
                    with ThreadPoolExecutor(threads) as pool:
                        list(pool.map(put, contents))
                    rates[name].append(count / (perf_counter() - start))
                files = {f"file-{j}": os.urandom(size) for j in range(count)}
                dataset = registry.create_dataset("many")
                start = perf_counter()
                dataset.commit(files)
                rates["commit"].append(count / (perf_counter() - start))
    best = {name: max(found) for name, found in rates.items()}
    limit = best["plain obstore, 16 threads"]
    _print(
        f"{count:,} files of {size // 1000} kB to S3 (best of {rounds})",
        ["way", "files/s", "of the plain loop with 16 threads"],
        [[name, f"{rate:.0f}", f"{rate / limit:.2f}"] for name, rate in best.items()],
    )
    return {"files_per_second": best, "ratio": best["commit"] / limit}


# --- letting go ----------------------------------------------------------------------------------------------------


def retention(folder: Path) -> dict[str, Any]:
    """1,000 versions, of which a policy keeps the last 20: plan, expiry, collection, and the bytes before and after."""
    with Registry.open(folder) as registry:
        dataset = registry.create_dataset("kept")
        for i in range(1000):
            dataset.commit({"data": os.urandom(2000), "same": b"the same", f"part-{i % 50}": os.urandom(500)})
        stored = _stored(registry)
        facts: dict[str, Any] = {"versions": 1000, "stored": stored}
        plan, facts["plan_ms"] = _timed(lambda: registry.expire(Policy((Rule(last=20),)), dry_run=True))
        facts |= {"planned_versions": plan.versions, "planned_bytes": plan.bytes}
        expired, facts["expire_ms"] = _timed(lambda: registry.apply(plan))
        facts["expired"] = expired.versions
        collect, facts["collect_plan_ms"] = _timed(lambda: registry.collect(older_than=timedelta(0), dry_run=True))
        facts["collect_planned_bytes"] = collect.bytes
        done, facts["collect_ms"] = _timed(lambda: registry.apply(collect))
        live = {c.file_id: c.size for version in dataset.tree() for c in version.components}
        facts |= {"freed": done.bytes, "left": _stored(registry), "live_set": sum(live.values())}
    _print("1,000 versions, the last 20 kept", ["what", "measured"], [[k, f"{v:,.0f}"] for k, v in facts.items()])
    assert facts["left"] == facts["live_set"] == stored - facts["planned_bytes"]
    return facts


def deletion(folder: Path) -> list[dict[str, Any]]:
    """The last version that holds 100,000 components is deleted, then collected: rows and milliseconds, both databases."""
    from dataset_registry.catalog import Catalog, migrate

    rows = []
    with servers.postgresql(durable=True) as url:
        migrate.upgrade(Catalog(url))
        for database, catalog in (("SQLite", f"sqlite:///{folder}/catalog.sqlite"), ("PostgreSQL", url)):
            with Registry.open(catalog=catalog, store=str(folder / database)) as registry:
                dataset = registry.create_dataset("large")
                with dataset.draft() as draft:
                    for i in range(100_000):
                        draft.add(f"part-{i:06}", f"{i % 1000}".encode())
                version = draft.version
                dataset.commit({"other": b"1"}, parents=())
                with dataset.draft() as draft:
                    draft.clear()
                    draft.add("small", b"1")
                dataset.create_branch("new", "main")
                before = _rows(registry)
                plan = registry.expire(Policy((Rule(last=1),)), dry_run=True)
                _, milliseconds = _timed(lambda plan=plan: registry.apply(plan))
                gone = before - _rows(registry)
                collected, collect_ms = _timed(lambda: registry.collect(older_than=timedelta(0)))
                rows.append(
                    {
                        "database": database,
                        "components": version.component_count,
                        "rows_deleted": gone,
                        "delete_ms": milliseconds,
                        "files_collected": collected.files,
                        "collect_ms": collect_ms,
                    }
                )
    _print(
        "The last holder of 100,000 components",
        list(rows[0]),
        [[f"{v:,.0f}" if k != "database" else v for k, v in r.items()] for r in rows],
    )
    return rows


def compression(folder: Path) -> list[dict[str, Any]]:
    """CSV and JSON as they are and compressed: bytes, and that every way of reading gives the same."""
    lines = [(i, f"carrier {i % 17}", i * 37 % 1440, i / 7) for i in range(200_000)]
    csv = b"id,name,minute,x\n" + b"".join(f"{a},{b},{c},{d:.3f}\n".encode() for a, b, c, d in lines)
    rows = b"".join(json.dumps({"id": a, "name": b, "minute": c, "x": d}).encode() + b"\n" for a, b, c, d in lines)
    found = []
    with Registry.open(folder / "plain") as plain, Registry.open(folder / "packed", compression="zstd") as packed:
        for name, content in (("csv", csv), ("json", rows)):
            read, timings = [], []
            for registry in (plain, packed):
                with registry.draft(name) as draft:
                    _, commit_ms = _timed(
                        lambda draft=draft, name=name, content=content: draft.add("data", BytesIO(content), format=name)
                    )
                version = draft.version
                with version.open() as stream:
                    read.append((stream.read(), version.to_arrow(), version.paths()[0].read_bytes(), version.digest))
                timings.append(commit_ms)
            assert read[0][0] == read[1][0] == read[0][2] == read[1][2] == content
            assert read[0][1].equals(read[1][1])
            assert read[0][3] == read[1][3]
            sizes = [
                registry.file(version.components[0].content_hash or "").stored_size for registry in (plain, packed)
            ]
            found.append({"format": name, "content": len(content), "plain": sizes[0], "zstd": sizes[1]})
    _print(
        "CSV and JSON with zstd; open(), to_arrow(), paths() and the digest are the same",
        ["format", "bytes", "stored plain", "stored with zstd", "share"],
        [
            [r["format"], f"{r['content']:,}", f"{r['plain']:,}", f"{r['zstd']:,}", f"{r['zstd'] / r['content']:.0%}"]
            for r in found
        ],
    )
    return found


def _stored(registry: Registry) -> int:
    return sum(found.size for found in registry.access.store.list())


def _rows(registry: Registry) -> int:
    from sqlalchemy import func, select

    from dataset_registry.catalog.tables import metadata

    with registry.access.catalog.read() as tx:
        return sum(int(tx.execute(select(func.count()).select_from(t)).scalar_one()) for t in metadata.tables.values())


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = perf_counter()
    result = work()
    return result, (perf_counter() - start) * 1000


def _print(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column != columns[0] else "left")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


PARTS: dict[str, Callable[[Path], Any]] = {
    "large": large,
    "many": many,
    "retention": retention,
    "deletion": deletion,
    "compression": compression,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--in"]:
        large_in(*sys.argv[2:])
    elif sys.argv[1:2] == ["--out"]:
        large_out(*sys.argv[2:])
    else:
        main(sys.argv[1:])
