"""A cache of hashes of local files by size, times and inode, for callers who trust that such a file has not changed.
Git's index and DVC's state do the same.

A file that was changed within two seconds before it was read is not cached: it may have changed again within the same
tick.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from time import time_ns

from dataset_registry import modes
from dataset_registry.store.spool import Spooled

_FRESH = 2_000_000_000


class StatCache:
    """The cache of one machine, in a folder that its processes share."""

    def __init__(self, scratch: Path) -> None:
        self._path = scratch / "seen.sqlite"

    def find(self, path: Path) -> tuple[str, int] | None:
        """The cached hash and size of a file, None if it may have changed or is unknown."""
        if not self._path.exists():
            return None
        query = "SELECT content_hash FROM seen WHERE path = ? AND facts = ?"
        facts = path.stat()
        with closing(self._connect()) as connection:
            row = connection.execute(query, (_name(path), _facts(facts))).fetchone()
        return (row[0], facts.st_size) if row else None

    def note(self, path: Path, before: os.stat_result, spooled: Spooled) -> None:
        """Cache the hash of a file; `before` is its stat before it was read."""
        facts = path.stat()
        if _facts(facts) != _facts(before) or time_ns() - facts.st_mtime_ns < _FRESH or spooled.size != facts.st_size:
            return
        row = (_name(path), _facts(facts), spooled.content_hash)
        with closing(self._connect()) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", row)

    def _connect(self) -> sqlite3.Connection:
        bits = modes.shared_bits(self._path.parent)
        modes.make_folder(self._path.parent, bits)
        os.close(modes.open_or_create(self._path, bits))
        connection = sqlite3.connect(self._path, timeout=10)
        connection.execute("CREATE TABLE IF NOT EXISTS seen (path TEXT PRIMARY KEY, facts TEXT, content_hash TEXT)")
        return connection


def _name(path: Path) -> str:
    return os.fsdecode(os.path.abspath(path))


def _facts(facts: os.stat_result) -> str:
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino} {facts.st_dev}"
