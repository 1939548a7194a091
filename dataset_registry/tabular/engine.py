"""DuckDB as an engine for joins of Arrow data, out of core."""

from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow as pa

from dataset_registry.tabular.sandbox import literal

_MEMORY = "1GB"
"""Memory of an engine; beyond it, it writes to its work folder."""


class Engine:
    """A private DuckDB that reads Arrow alone. It is opened for its first query; `work` is a folder for what does not fit into
    memory."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._connection: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def query(self, sql: str, **tables: Any) -> pa.Table:
        """The result of a query over these tables or streams."""
        connection = self._opened()
        for name, table in tables.items():
            connection.register(name, table)
        try:
            return connection.sql(sql).to_arrow_table()
        finally:
            for name in tables:
                connection.unregister(name)

    def matching(self, table: pa.Table, condition: str, column: str) -> pa.Array:
        """The values of a column in the rows for which a condition is true. Raises `ValueError` for what is no condition.

        The condition is one expression over the columns: it cannot name the table, or any other.
        """
        relation = self._opened().from_arrow(table)
        if [str(kind) for kind in relation.project(condition).types] != ["BOOLEAN"]:
            raise ValueError("it is not true or false")
        return relation.filter(condition).to_arrow_table().column(column).combine_chunks()

    def _opened(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = duckdb.connect(":memory:")
            for setting, value in (
                ("autoinstall_known_extensions", "false"),
                ("autoload_known_extensions", "false"),
                ("python_enable_replacements", "false"),
                ("enable_progress_bar", "false"),
                ("preserve_insertion_order", "false"),
                ("memory_limit", f"'{_MEMORY}'"),
                ("temp_directory", literal(str(self._work))),
                ("enable_external_access", "false"),
                ("lock_configuration", "true"),
            ):
                self._connection.execute(f"SET {setting} = {value}")
        return self._connection
