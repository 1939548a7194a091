"""Oxen, by its Python library: a work tree, and whole files in a store beside it. It never syncs what it writes."""

import itertools
import os
import shutil
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq

os.environ["HOME"] = os.environ["BENCHMARK_HOME"]

import oxen  # it looks for its settings at home
from oxen.user import config_user

config_user("benchmark", "benchmark@example.com")
FACTS = {"versions": {"oxenai": version("oxenai")}}
_counter = itertools.count()


@cache
def _open(folder):
    Path(folder).mkdir(parents=True)
    repository = oxen.Repo(folder)
    repository.init()
    return repository


def _add(folder, source, name):
    """Copied into the work tree beforehand, then added and committed."""
    repository = _open(folder)
    target = Path(folder) / name
    (shutil.copytree if Path(source).is_dir() else shutil.copyfile)(source, target)
    yield
    repository.add(str(target))
    repository.commit("version")
    yield


def store(folder, file):
    """A file."""
    return _add(folder, file, "data.parquet")


def again(folder, file):
    """The same content under another name."""
    return _add(folder, file, "again.parquet")


def untouched(folder, file):
    """The same path."""
    repository = _open(folder)
    yield
    repository.add(str(Path(folder) / "data.parquet"))
    yield


def many(folder, files):
    """A folder of files."""
    return _add(folder, files, "files")


def many_again(folder, files):
    """The same files under another name."""
    return _add(folder, files, "again")


def checkout(folder, files, target):
    """The folder, after it was gone."""
    repository = _open(folder)
    shutil.rmtree(Path(folder) / "files")
    yield
    repository.restore(str(Path(folder) / "files"))
    yield


def commit(folder):
    """A small file."""
    repository = _open(folder)
    target = Path(folder) / "small.bin"
    target.write_text(f"content {next(_counter)}")
    yield
    repository.add(str(target))
    repository.commit("version")
    yield


def branch(folder, name):
    """A branch at the head, which is checked out with it."""
    repository = _open(folder)
    yield
    repository.checkout(name, create=True)
    yield
    repository.checkout("main")


def log(folder, count):
    """The log."""
    repository = _open(folder)
    yield
    found = repository.log()[:count]
    yield {"versions": len(found)}


def write(folder, table):
    """The Parquet file of a table."""
    return _add(folder, table, "data.parquet")


def read(folder, **options):
    """The file in the work tree, restored from the store."""
    repository = _open(folder)
    path = Path(folder) / "data.parquet"
    path.unlink()
    yield
    repository.restore(str(path))
    found = pq.read_table(path, **options)
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Restored, then two columns read."""
    return read(folder, columns=columns, filters=ds.field(column) > above)


def change(folder, kind, whole, rows, keys):
    """The changed file."""
    return _add(folder, whole, "data.parquet")
