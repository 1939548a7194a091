"""What physics allows: hash the bytes once, copy them, write once what has to survive. No bookkeeping at all."""

import hashlib
import os
import sqlite3
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import monotonic

import pyarrow.dataset as ds
import pyarrow.parquet as pq

FACTS = {"versions": {"pyarrow": __import__("pyarrow").__version__, "sqlite": sqlite3.sqlite_version}}


def store(folder, file):
    """SHA-256 over the file."""
    yield
    with open(file, "rb") as stream:
        hashlib.file_digest(stream, "sha256").hexdigest()
    yield


again = untouched = store


def many(folder, files):
    """SHA-256 over every file."""
    paths = sorted(Path(files).iterdir())
    yield
    for path in paths:
        hashlib.sha256(path.read_bytes()).hexdigest()
    yield


many_again = many


def checkout(folder, files, target):
    """`cp -r`."""
    yield
    subprocess.run(["cp", "-r", files, target], check=True)
    yield


@cache
def _log(folder):
    Path(folder).mkdir(parents=True, exist_ok=True)
    return os.open(Path(folder) / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def commit(folder):
    """One write that is on the disk when it is over."""
    log = _log(folder)
    yield
    os.write(log, b"x" * 100)
    os.fdatasync(log)
    yield


def write(folder, table):
    """One default Parquet file, not synced."""
    content = pq.read_table(table)
    Path(folder).mkdir(parents=True, exist_ok=True)
    yield
    pq.write_table(content, Path(folder) / "table.parquet")
    yield


def read(folder):
    """The raw file, whole."""
    yield
    found = pq.read_table(Path(folder) / "table.parquet")
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Two columns of the raw file, of some rows."""
    yield
    found = pq.read_table(Path(folder) / "table.parquet", columns=columns, filters=ds.field(column) > above)
    yield {"rows": found.num_rows}


def client(folder, branch, seconds):
    """Raw inserts into SQLite, each durable."""
    raw = sqlite3.connect(f"{folder}.sqlite", isolation_level=None, timeout=60)
    while True:
        with suppress(sqlite3.OperationalError):  # of those who begin at the same time, one makes it
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE IF NOT EXISTS t (a)"):
                raw.execute(statement)
            break
    done, until = 0, monotonic() + seconds
    yield
    while monotonic() < until:
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("INSERT INTO t VALUES (?)", (done,))
        raw.execute("COMMIT")
        done += 1
    yield {"commits": done}
