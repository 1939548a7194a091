"""Delta Lake, by delta-rs. It never syncs what it writes."""

import itertools
from functools import cache
from importlib.metadata import version
from time import monotonic

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

FACTS = {"versions": {name: version(name) for name in ("deltalake", "pyarrow")}}
_counter = itertools.count()
_open = cache(DeltaTable)


def store(folder, file):
    """A Parquet file, read and written as a table."""
    yield
    write_deltalake(folder, pq.read_table(file))
    yield


def again(folder, file):
    """The same rows in place of the same rows."""
    yield
    write_deltalake(folder, pq.read_table(file), mode="overwrite")
    yield


def commit(folder):
    """One row more."""
    row = pa.table({"value": [next(_counter)]})
    try:
        _open(folder)
    except Exception:  # no table yet: its class has changed its name between versions
        write_deltalake(folder, row)
        _open(folder)
    yield
    write_deltalake(_open(folder), row, mode="append")
    yield


def log(folder, count):
    """The newest versions, with what made them."""
    yield
    found = DeltaTable(folder).history(count)
    yield {"versions": len(found)}


def write(folder, table):
    """An Arrow table in memory."""
    content = pq.read_table(table)
    yield
    write_deltalake(folder, content)
    yield


def read(folder):
    """The table, whole."""
    yield
    found = DeltaTable(folder).to_pyarrow_table()
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Two columns of some rows."""
    yield
    found = DeltaTable(folder).to_pyarrow_dataset().to_table(columns=columns, filter=ds.field(column) > above)
    yield {"rows": found.num_rows}


def change(folder, kind, whole, rows, keys):
    """Rows appended; otherwise all files written again, as an update or merge of scattered rows does too."""
    content = pq.read_table(rows if kind == "append" else whole)
    yield
    if kind == "append":
        write_deltalake(folder, content, mode="append")
    else:
        write_deltalake(folder, content, mode="overwrite", schema_mode="overwrite")
    yield


def client(folder, branch, seconds):
    """Appends to one table; there are no branches. The library tries again by itself."""
    if branch:
        raise NotImplementedError("no branches")
    row = pa.table({"value": [1]})
    done, until = 0, monotonic() + seconds
    yield
    while monotonic() < until:
        write_deltalake(folder, row, mode="append")
        done += 1
    yield {"commits": done}
