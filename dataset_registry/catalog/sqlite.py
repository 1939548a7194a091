"""Connections to SQLite: WAL, `synchronous=FULL`, foreign keys on; and syncing its write-ahead log."""

import os
import sqlite3
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

BUSY_SECONDS = 30
"""How long SQLite waits for another writer in seconds."""


SQLITE_OPTIONS = frozenset(
    (
        "schema",
        "uri",
        "mode",
        "cache",
        "immutable",
        "nolock",
        "vfs",
        "timeout",
        "check_same_thread",
        "cached_statements",
    )
)
"""Parameters that the URL of a SQLite catalog may have."""


def sqlite_url(path: Path) -> str:
    """The URL of a catalog in a file, whatever characters its name has."""
    return "sqlite:///" + quote(str(path), safe="/ ")


def is_read_only(path: Path) -> bool:
    """Whether a SQLite catalog is on a disk, or in a folder, that cannot be written to."""
    return path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection to a catalog that cannot be written to. SQLite's readers want to write, too (the index of the write-ahead
    log): where there is no such log, there are no other writers either, and they can do without."""
    wal = Path(f"{path}-wal")
    is_closed = not wal.exists() or wal.stat().st_size == 0
    address = f"file:{quote(str(path))}?mode=ro{'&immutable=1' if is_closed else ''}"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)
    connection.isolation_level = None
    return connection


def configure_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # transactions begin where our "begin" listener says, DDL included
    cursor = connection.cursor()
    _use_wal(cursor)
    for setting in ("synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _use_wal(cursor: Any) -> None:
    """Set the journal mode. On a new catalog SQLite does not wait for another process that sets it: it fails, as locked."""
    deadline = monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or monotonic() > deadline:
                raise
            sleep(0.01)


def has_log(path: Path) -> bool:
    """Whether a catalog has a write-ahead log: it does while a connection is open that has written."""
    return os.path.exists(f"{path}-wal")


def sync_log(path: Path, known: int) -> int:
    """Sync the write-ahead log of a catalog, and its folder if the log is not the `known` inode. Returns its inode.

    A log that is gone was synced: the last connection moved its content to the database when it was closed.
    """
    try:
        descriptor = os.open(f"{path}-wal", os.O_RDWR)
    except FileNotFoundError:
        return known
    try:
        _sync_data(descriptor)
        inode = os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)
    if inode != known and os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return inode


_sync_data = getattr(os, "fdatasync", os.fsync)
"""Sync the content of a file, and of its metadata what reading it takes."""
