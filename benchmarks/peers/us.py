"""dataset_registry by its public API: SQLite and a folder, or PostgreSQL and a folder, with fsync or without.

Without fsync is an experiment of this benchmark, to compare with peers that never sync; the registry has no such switch.
"""

import hashlib
import itertools
import os
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dataset_registry import Registry

FACTS = {"versions": {name: version(name) for name in ("dataset-registry", "pyarrow", "duckdb", "sqlalchemy")}}
_counter = itertools.count()

if os.environ.get("BENCHMARK_DURABLE") == "no":
    os.fsync = os.fdatasync = lambda descriptor: None


@cache
def _open(folder):
    if not os.environ.get("BENCHMARK_POSTGRESQL"):
        return Registry.open(folder)
    return Registry.open(catalog=_database(folder), store=folder)


def _database(folder):
    """A database of its own for a folder, on the server of this run."""
    import psycopg

    from dataset_registry.catalog import Catalog, migrate

    server, name = os.environ["BENCHMARK_SERVER"], f"b{hashlib.sha256(folder.encode()).hexdigest()[:16]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(1)")
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            connection.execute(f'CREATE DATABASE "{name}"')
        url = f"{server.rpartition('/')[0]}/{name}"
        catalog = Catalog(url)
        migrate.upgrade(catalog)
        catalog.close()
    return url


@cache
def _dataset(folder, name="data"):
    registry = _open(folder)
    known = {dataset.name for dataset in registry.datasets(prefix=name)}
    return registry.dataset(name) if name in known else registry.create_dataset(name)


def store(folder, file):
    """A path in, a version out."""
    dataset = _dataset(folder)
    yield
    dataset.commit({"data": Path(file)})
    yield


def again(folder, file):
    """The same content for another dataset."""
    dataset = _dataset(folder, "again")
    yield
    dataset.commit({"data": Path(file)})
    yield


def untouched(folder, file):
    """The same path for the same dataset, by those who trust its size and times."""
    dataset = _dataset(folder)
    dataset.commit({"data": Path(file)}, trust_stat=True)
    yield
    dataset.commit({"data": Path(file)}, trust_stat=True)
    yield


def many(folder, files):
    """Every file as a component of one version."""
    dataset = _dataset(folder)
    paths = {path.name: path for path in sorted(Path(files).iterdir())}
    yield
    dataset.commit(paths)
    yield


def many_again(folder, files):
    """The same contents for another dataset."""
    dataset = _dataset(folder, "again")
    paths = {path.name: path for path in sorted(Path(files).iterdir())}
    yield
    dataset.commit(paths)
    yield


def checkout(folder, files, target):
    """All components as files."""
    version = _dataset(folder).version()
    yield
    version.checkout(target)
    yield


def commit(folder):
    """A few bytes."""
    dataset = _dataset(folder)
    content = f"content {next(_counter)}".encode()
    yield
    dataset.commit({"data": content})
    yield


def branch(folder, name):
    """A branch at the head."""
    dataset = _dataset(folder)
    yield
    dataset.create_branch(name)
    yield


def tag(folder, name):
    """A tag at the head."""
    dataset = _dataset(folder)
    yield
    dataset.create_tag(name)
    yield


def log(folder, count):
    """The newest versions."""
    dataset = _dataset(folder)
    yield
    found = dataset.log(limit=count)
    yield {"versions": len(found)}


def write(folder, table):
    """An Arrow table in memory, committed."""
    content = pq.read_table(table)
    dataset = _dataset(folder)
    yield
    dataset.commit({"data": content})
    yield


def read(folder):
    """The head as an Arrow table."""
    dataset = _dataset(folder)
    yield
    found = dataset.version().to_arrow()
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Two columns of some rows of the head."""
    dataset = _dataset(folder)
    yield
    found = dataset.version().to_arrow(columns=columns, filter=ds.field(column) > above)
    yield {"rows": found.num_rows}


def change(folder, kind, whole, rows, keys):
    """The changed table, committed whole: what is new is found by the registry."""
    content = pq.read_table(whole)
    dataset = _dataset(folder)
    yield
    dataset.commit({"data": content})
    yield


def everywhere(folder, count):
    """A branch of the whole registry, of many datasets."""
    registry = _open(folder)
    for i in range(count):
        registry.create_dataset(f"many/{i}").commit({"data": b"same"})
    yield
    registry.create_branch("everywhere")
    yield


def client(folder, branch, seconds):
    """Commits of a component of one's own, on a branch of one's own or all on one branch."""
    dataset = _dataset(folder)
    component = uuid4().hex
    done, until = 0, monotonic() + seconds
    yield
    while monotonic() < until:
        dataset.commit({component: uuid4().bytes}, branch=branch or "main", fallback="main")
        done += 1
    yield {"commits": done}
