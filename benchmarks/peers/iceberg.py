"""Apache Iceberg by pyiceberg, with a SQLite catalog. Its data files are not synced."""

import itertools
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import monotonic

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NamespaceAlreadyExistsError
from pyiceberg.expressions import GreaterThan

FACTS = {"versions": {name: version(name) for name in ("pyiceberg", "pyarrow")}}
_counter = itertools.count()


@cache
def _open(folder):
    Path(folder).mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog("catalog", uri=f"sqlite:///{folder}/catalog.sqlite", warehouse=f"file://{folder}")
    with suppress(NamespaceAlreadyExistsError):
        catalog.create_namespace("n")
    return catalog


@cache
def _table(folder, schema):
    catalog = _open(folder)
    return catalog.load_table("n.t") if catalog.table_exists("n.t") else catalog.create_table("n.t", schema)


def _existing(folder):
    return _open(folder).load_table("n.t")


def store(folder, file):
    """A Parquet file, read and written as a table."""
    table = _table(folder, pq.read_schema(file))
    yield
    table.append(pq.read_table(file))
    yield


def again(folder, file):
    """The same rows in place of the same rows."""
    table = _existing(folder)
    yield
    table.overwrite(pq.read_table(file))
    yield


def commit(folder):
    """One row more."""
    row = pa.table({"value": [next(_counter)]})
    table = _table(folder, row.schema)
    yield
    table.append(row)
    yield


def branch(folder, name):
    """A branch at the newest snapshot."""
    table = _existing(folder)
    yield
    table.manage_snapshots().create_branch(table.current_snapshot().snapshot_id, name).commit()
    yield


def tag(folder, name):
    """A tag at the newest snapshot."""
    table = _existing(folder)
    yield
    table.manage_snapshots().create_tag(table.current_snapshot().snapshot_id, name).commit()
    yield


def log(folder, count):
    """The newest snapshots, from the catalog."""
    yield
    found = _existing(folder).snapshots()[-count:]
    yield {"versions": len(found)}


def write(folder, table):
    """An Arrow table in memory."""
    content = pq.read_table(table)
    target = _table(folder, content.schema)
    yield
    target.append(content)
    yield


def read(folder):
    """The table, whole."""
    yield
    found = _existing(folder).scan().to_arrow()
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Two columns of some rows."""
    yield
    found = _existing(folder).scan(GreaterThan(column, above), selected_fields=tuple(columns)).to_arrow()
    yield {"rows": found.num_rows}


def change(folder, kind, whole, rows, keys):
    """Rows appended; otherwise everything in place of everything."""
    content = pq.read_table(rows if kind == "append" else whole)
    table = _existing(folder)
    yield
    if kind == "addcol":
        with table.update_schema() as update:
            update.union_by_name(content.schema)
        table = _existing(folder)
    table.append(content) if kind == "append" else table.overwrite(content)
    yield


def client(folder, branch, seconds):
    """Appends to one table, to a branch of one's own or to `main`, again after every conflict."""
    row = pa.table({"value": [1]})
    table = _table(folder, row.schema)
    done, until, fresh = 0, monotonic() + seconds, True
    yield
    while monotonic() < until:
        try:
            if fresh:
                table, fresh = _existing(folder), False
            if branch and branch not in table.refs():
                table.manage_snapshots().create_branch(table.current_snapshot().snapshot_id, branch).commit()
            table.append(row, branch=branch or "main")
            done += 1
        except (CommitFailedException, ValueError):  # it says either of a snapshot that is not the newest any more
            fresh = True
    yield {"commits": done}
