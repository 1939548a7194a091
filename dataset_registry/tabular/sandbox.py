"""DuckDB restricted to one untrusted file, with a locked configuration."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb


@contextmanager
def sandbox(path: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A private connection that may touch `path` only. `allowed_paths` grants writing too: run fixed SQL on it.

    The name of the file must be one of ours (a spool or an object): DuckDB expands globs in names.
    """
    connection = duckdb.connect(":memory:")
    try:
        for setting, value in (
            ("autoinstall_known_extensions", "false"),
            ("autoload_known_extensions", "false"),
            ("allow_community_extensions", "false"),
            ("python_enable_replacements", "false"),
            ("enable_progress_bar", "false"),
            ("memory_limit", "'4GB'"),
            ("TimeZone", "'UTC'"),
            ("allowed_paths", f"[{literal(str(path))}]" if path else "[]"),
            ("enable_external_access", "false"),
            ("lock_configuration", "true"),
        ):
            connection.execute(f"SET {setting} = {value}")
        yield connection
    finally:
        connection.close()


def literal(value: str) -> str:
    """A text as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
