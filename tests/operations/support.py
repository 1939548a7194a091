"""What the tests of keeping house share: looking below the doors, ageing rows, damaging objects."""

import os
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from dataset_registry import Dataset, Registry
from dataset_registry.model.records import FileRecord
from dataset_registry.model.retention import Policy, Rule

NOW = timedelta(0)
LAST = Policy((Rule(last=1),))


def write(registry: Registry, statement: str, **parameters: object) -> int:
    """Change the catalog behind the registry's back; how many rows that were."""
    return int(registry.access.catalog.write(lambda tx: tx.execute(text(statement), parameters).rowcount))


def ask(registry: Registry, statement: str, **parameters: object) -> list[Any]:
    """The rows of a query of the catalog; of one column their values."""
    with registry.access.catalog.read() as tx:
        rows = tx.execute(text(statement), parameters).all()
    return [row[0] if len(row) == 1 else tuple(row) for row in rows]


def ago(registry: Registry, hours: float) -> str:
    """A moment so long ago, by the database's clock, as SQL."""
    if registry.access.catalog.is_sqlite:
        return f"strftime('%Y-%m-%d %H:%M:%f', 'now', '{-hours:+} hours') || '000'"
    return f"(clock_timestamp() AT TIME ZONE 'utc' - make_interval(secs => {hours * 3600}))"


def age(registry: Registry, hours: float, *columns: str) -> None:
    """Let rows look so old: all those of `table.column`."""
    for column in columns:
        table, _, name = column.partition(".")
        write(registry, f"UPDATE {table} SET {name} = {ago(registry, hours)}")


def age_runs(registry: Registry, hours: float = 48) -> None:
    """Let everything that runs did look so old."""
    age(registry, hours, "productions.created_at", "version_reads.read_at")


def objects(registry: Registry) -> dict[str, int]:
    """The size of every object in the store, by key."""
    return {found.key: found.size for found in registry.access.store.list()}


def live(registry: Registry) -> tuple[dict[str, int], Counter[str]]:
    """What must be in the store and how often each content is named, from nothing but what the versions list."""
    stored = {file.id: file for file in registry.files()}
    parts: dict[int, list[int]] = {}
    for owner, part in ask(registry, "SELECT file_id, part_id FROM file_parts ORDER BY file_id, position"):
        parts.setdefault(owner, []).append(part)
    needed: dict[str, int] = {}
    counts: Counter[str] = Counter()
    tables: set[int] = set()

    def need(file: FileRecord) -> None:
        if file.form == "parts":
            tables.add(file.id)
        elif file.form != "inline":
            needed[str(file.object_key)] = file.stored_size

    for dataset in registry.datasets():
        for version in dataset.tree():
            for component in version.components:
                counts[str(component.content_hash)] += 1
                need(stored[component.file_id])
    for table in tables:
        for part in parts[table]:
            counts[str(stored[part].content_hash)] += 1
            need(stored[part])
    return needed, counts


def assert_exact(registry: Registry) -> None:
    """That the store has what versions name and nothing else, and that every count is right."""
    needed, counts = live(registry)
    assert objects(registry) == needed
    assert {file.content_hash: file.reference_count for file in registry.files()} == dict(counts)


def content(dataset: Dataset, ref: str = "main") -> dict[str, bytes]:
    """The bytes of a version's components, a table's as those of its parts."""
    version = dataset.version(ref)
    return {
        f"{c.name}.{c.index}": b"".join(
            path.read_bytes() for path in (version.paths(c.name) if c.format == "parquet" else [])
        )
        or _read(version.open(c.name, index=c.index))
        for c in version.components
    }


def _read(stream: Any) -> bytes:
    with stream:
        return bytes(stream.read())


def digest_of(dataset: Dataset, name: str, ref: str = "main") -> str:
    """The hash of a version's component."""
    return next(str(c.content_hash) for c in dataset.version(ref).components if c.name == name)


def object_of(registry: Registry, content_hash: str) -> Path:
    """Where a file's bytes are, in a folder store."""
    path = registry.access.store.path(str(registry.file(content_hash).object_key))
    assert path is not None
    return path


def rewrite(path: Path, data: bytes) -> None:
    """Put other bytes into an object."""
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def flip(path: Path, bit: int) -> None:
    """Flip one bit of an object."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    rewrite(path, bytes(data))


def age_objects(registry: Registry, hours: float, keys: Iterable[str] | None = None) -> None:
    """Let objects of a folder store look so old."""
    for key in objects(registry) if keys is None else keys:
        path = registry.access.store.path(key)
        assert path is not None
        at = path.stat().st_mtime - hours * 3600
        os.utime(path, (at, at))


def sweep_surplus(registry: Registry) -> None:
    """Remove the objects whose content was rescued: a repair leaves them, for they may be another registry's."""
    assert {finding.kind for finding in registry.verify(older_than=NOW).findings} == {"surplus-objects"}
    registry.sweep(older_than=NOW, max_share=1)
