"""Reads tables of a server with DuckDB 1.5, deltalake, polars and pyarrow, in the environment of readers, without the registry.

Gets the server's address, a token and tasks as JSON on standard input: `{"reader", "dataset", "ref", "file"}`. Each table is
written as an Arrow file; a failure as a text.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
from deltalake import DeltaTable


def connect(url: str, token: str) -> duckdb.DuckDBPyConnection:
    """A connection with the extensions, the catalog `registry` and credentials for the bucket."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for name in ("httpfs", "avro", "iceberg", "delta", "ducklake"):
        folder = Path(next(iter(importlib.import_module(f"duckdb_extension_{name}").__path__)))
        connection.execute(f"LOAD '{next(folder.rglob('*.duckdb_extension'))}'")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"ATTACH 'registry' AS registry (TYPE iceberg, ENDPOINT '{url}/iceberg', TOKEN '{token}')")
    connection.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID 'registry', SECRET 'registry', SESSION_TOKEN '{token}', ENDPOINT "
        f"'{url.removeprefix('http://')}', USE_SSL false, URL_STYLE 'path', REGION 'us-east-1')"
    )
    return connection


class Readers:
    """Each method reads the table of a dataset at a ref."""

    def __init__(self, url: str, token: str) -> None:
        self.duckdb = connect(url, token)
        self.options = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "registry",
            "AWS_SECRET_ACCESS_KEY": "registry",
            "AWS_SESSION_TOKEN": token,
            "AWS_REGION": "us-east-1",
        }
        self.s3 = pyarrow.fs.S3FileSystem(
            access_key="registry",
            secret_key="registry",
            session_token=token,
            endpoint_override=url.removeprefix("http://"),
            scheme="http",
            region="us-east-1",
        )

    def duckdb_catalog(self, dataset: str, ref: str) -> pa.Table:
        """DuckDB through the REST catalog; versions by `AT`."""
        namespace, _, name = dataset.rpartition("/")
        table = f'registry."{namespace or "default"}"."{name}'
        if ref[0] == "v" and ref[1:].isdigit():
            return self._query(f'SELECT * FROM {table}" AT (VERSION => {ref[1:]})')
        return self._query(f'SELECT * FROM {table}@{ref}"' if ref != "main" else f'SELECT * FROM {table}"')

    def duckdb_iceberg_scan(self, dataset: str, ref: str) -> pa.Table:
        """DuckDB's function, with the address of table metadata."""
        number = {"raw/kinds": 1, "raw/times": 2, "raw/days": 3}[dataset]
        return self._query(f"SELECT * FROM iceberg_scan('s3://registry/iceberg/{number}/-/{ref}.metadata.json')")

    def duckdb_parquet(self, dataset: str, ref: str) -> pa.Table:
        """DuckDB on the stored files."""
        return self._query(f"SELECT * FROM read_parquet('s3://registry/datasets/{dataset}@{ref}/**/*.parquet')")

    def duckdb_delta_scan(self, dataset: str, ref: str) -> pa.Table:
        """DuckDB's function for Delta."""
        return self._query(f"SELECT * FROM delta_scan('s3://registry/delta/{dataset}@{ref}')")

    def ducklake(self, dataset: str, ref: str) -> pa.Table:
        """DuckDB's extension for DuckLake; `ref` is the path of a catalog, and behind a `#` a snapshot."""
        path, _, snapshot = ref.partition("#")
        at = f" AT (VERSION => {snapshot})" if snapshot else ""
        schema, _, name = dataset.rpartition("/")
        self.duckdb.execute(f"ATTACH 'ducklake:{path}' AS lake (READ_ONLY)")
        try:
            return self._query(f'SELECT * FROM lake."{schema or "main"}"."{name}"{at}')
        finally:
            self.duckdb.execute("DETACH lake")

    def ducklake_snapshots(self, dataset: str, ref: str) -> pa.Table:
        """The snapshots of a catalog."""
        self.duckdb.execute(f"ATTACH 'ducklake:{ref}' AS lake (READ_ONLY)")
        try:
            return self._query("SELECT snapshot_id, author, commit_message, commit_extra_info FROM lake.snapshots()")
        finally:
            self.duckdb.execute("DETACH lake")

    def ducklake_tables(self, dataset: str, ref: str) -> pa.Table:
        """The tables of a catalog."""
        self.duckdb.execute(f"ATTACH 'ducklake:{ref}' AS lake (READ_ONLY)")
        try:
            return self._query(
                "SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = 'lake' ORDER BY ALL"
            )
        finally:
            self.duckdb.execute("DETACH lake")

    def deltalake(self, dataset: str, ref: str) -> pa.Table:
        """delta-rs."""
        table = DeltaTable(f"s3://registry/delta/{dataset}@{ref}", storage_options=self.options)
        return table.to_pyarrow_table(
            filesystem=pyarrow.fs.SubTreeFileSystem(f"registry/delta/{dataset}@{ref}", self.s3)
        )

    def delta_folder(self, dataset: str, ref: str) -> pa.Table:
        """delta-rs on a folder; behind a `#` a version."""
        path, _, version = ref.partition("#")
        return DeltaTable(path, version=int(version) if version else None).to_pyarrow_table()

    def delta_folder_duckdb(self, dataset: str, ref: str) -> pa.Table:
        """DuckDB's function for Delta on a folder."""
        return self._query(f"SELECT * FROM delta_scan('{ref}')")

    def polars_delta(self, dataset: str, ref: str) -> pa.Table:
        """polars, which takes the log from delta-rs and reads the files itself."""
        found = pl.scan_delta(f"s3://registry/delta/{dataset}@{ref}", storage_options=self.options)
        return found.collect().to_arrow()

    def pyarrow(self, dataset: str, ref: str) -> pa.Table:
        """Arrow's own S3, which lists the files."""
        return ds.dataset(f"registry/datasets/{dataset}@{ref}", filesystem=self.s3, format="parquet").to_table()

    def _query(self, text: str) -> pa.Table:
        found = self.duckdb.execute(text).arrow()
        return found.read_all() if isinstance(found, pa.RecordBatchReader) else found


def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    readers = Readers(asked["url"], asked["token"])
    for task in asked["tasks"]:
        path = Path(task["file"])
        read: Callable[[str, str], pa.Table] = getattr(readers, task["reader"])
        try:
            table = read(task["dataset"], task["ref"])
        except Exception as error:
            path.with_suffix(".error").write_text(f"{type(error).__name__}: {error}")
            continue
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)


if __name__ == "__main__":
    main()
