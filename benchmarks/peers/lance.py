"""Lance. It never syncs what it writes."""

import itertools
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from time import monotonic

import lance
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

FACTS = {"versions": {name: version(name) for name in ("pylance", "pyarrow")}}
_counter = itertools.count()
_datasets = {}


@cache
def _row(value):
    return pa.table({"value": [value]})


def store(folder, file):
    """A Parquet file, read and written as a dataset."""
    yield
    lance.write_dataset(ds.dataset(file).scanner(), folder)
    yield


def again(folder, file):
    """The same rows in place of the same rows."""
    yield
    lance.write_dataset(ds.dataset(file).scanner(), folder, mode="overwrite")
    yield


def commit(folder):
    """One row more."""
    row = pa.table({"value": [next(_counter)]})
    if folder not in _datasets:
        _datasets[folder] = lance.write_dataset(row, folder)
    yield
    _datasets[folder] = lance.write_dataset(row, _datasets[folder], mode="append")
    yield


def branch(folder, name):
    """A branch at the newest version."""
    dataset = lance.dataset(folder)
    yield
    dataset.create_branch(name)
    yield


def tag(folder, name):
    """A tag at the newest version."""
    dataset = lance.dataset(folder)
    newest = dataset.version
    yield
    dataset.tags.create(name, newest)
    yield


def log(folder, count):
    """All versions."""
    yield
    found = lance.dataset(folder).versions()[-count:]
    yield {"versions": len(found)}


def write(folder, table):
    """An Arrow table in memory."""
    content = pq.read_table(table)
    yield
    lance.write_dataset(content, folder)
    yield


def read(folder):
    """The dataset, whole."""
    yield
    found = lance.dataset(folder).to_table()
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Two columns of some rows."""
    yield
    found = lance.dataset(folder).to_table(columns=columns, filter=f"{column} > {above}")
    yield {"rows": found.num_rows}


def change(folder, kind, whole, rows, keys):
    """Rows updated by their keys, rows appended, a column added; otherwise everything in place of everything."""
    content = pq.read_table(rows if kind in ("scatter", "append", "addcol") else whole)
    dataset = lance.dataset(folder)
    yield
    if kind == "scatter":
        dataset.merge_insert(keys).when_matched_update_all().execute(content)
    elif kind == "append":
        lance.write_dataset(content, dataset, mode="append")
    elif kind == "addcol":
        dataset.add_columns(content.to_reader())
    else:
        lance.write_dataset(content, dataset, mode="overwrite")
    yield


def client(folder, branch, seconds):
    """Appends to one dataset, to a branch of one's own or to `main`. The library tries again by itself."""
    dataset, done, until = lance.dataset(folder), 0, monotonic() + seconds
    yield
    while branch and monotonic() < until:
        with suppress(OSError):
            dataset = dataset.create_branch(branch)
            break
    while monotonic() < until:
        with suppress(OSError):
            dataset = lance.write_dataset(_row(done), dataset, mode="append")
            done += 1
    yield {"commits": done}
