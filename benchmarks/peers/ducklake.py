"""DuckLake: a catalog in a DuckDB file, and Parquet files beside it."""

import itertools
from functools import cache
from importlib.metadata import version
from pathlib import Path

import duckdb
import duckdb_extension_ducklake
import pyarrow.parquet as pq

FACTS = {"versions": {name: version(name) for name in ("duckdb", "duckdb-extension-ducklake")}}
_counter = itertools.count()


@cache
def _open(folder):
    Path(folder).mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    connection.execute(f"LOAD '{next(Path(duckdb_extension_ducklake.__file__).parent.rglob('*.duckdb_extension'))}'")
    connection.execute(f"ATTACH 'ducklake:{folder}/catalog.ducklake' AS lake (DATA_PATH '{folder}/data')")
    connection.execute("USE lake")
    connection.execute("SET enable_progress_bar = false")
    return connection


def store(folder, file):
    """A Parquet file, read and written as a table."""
    connection = _open(folder)
    yield
    connection.execute(f"CREATE TABLE t AS FROM read_parquet('{file}')")
    yield


def again(folder, file):
    """The same rows in place of the same rows."""
    connection = _open(folder)
    yield
    connection.execute(f"CREATE OR REPLACE TABLE t AS FROM read_parquet('{file}')")
    yield


def commit(folder):
    """One row more."""
    connection = _open(folder)
    connection.execute("CREATE TABLE IF NOT EXISTS t (value BIGINT)")
    value = next(_counter)
    yield
    connection.execute(f"INSERT INTO t VALUES ({value})")
    yield


def log(folder, count):
    """The newest snapshots."""
    columns = "snapshot_id, snapshot_time::VARCHAR, changes::VARCHAR, author, commit_message"
    connection = _open(folder)
    yield
    found = connection.execute(
        f"SELECT {columns} FROM ducklake_snapshots('lake') ORDER BY snapshot_id DESC LIMIT {count}"
    ).fetchall()
    yield {"versions": len(found)}


def write(folder, table):
    """An Arrow table in memory."""
    content = pq.read_table(table)
    connection = _open(folder)
    yield
    connection.execute("CREATE TABLE t AS FROM content")
    yield {"rows": content.num_rows}


def read(folder):
    """The table, whole."""
    connection = _open(folder)
    yield
    found = connection.execute("FROM t").to_arrow_table()
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Two columns of some rows."""
    connection = _open(folder)
    yield
    found = connection.execute(f"SELECT {', '.join(columns)} FROM t WHERE {column} > {above}").to_arrow_table()
    yield {"rows": found.num_rows}


def change(folder, kind, whole, rows, keys):
    """Rows updated by their keys, rows appended; otherwise everything in place of everything."""
    connection = _open(folder)
    same = " AND ".join(f"t.{key} = r.{key}" for key in keys)
    columns = [name for name in pq.read_schema(rows).names if name not in keys]
    values = ", ".join(f"{name} = r.{name}" for name in columns)
    yield
    if kind == "scatter":
        connection.execute(f"UPDATE t SET {values} FROM read_parquet('{rows}') r WHERE {same}")
    elif kind == "append":
        connection.execute(f"INSERT INTO t FROM read_parquet('{rows}')")
    else:
        connection.execute(f"CREATE OR REPLACE TABLE t AS FROM read_parquet('{whole}')")
    yield
