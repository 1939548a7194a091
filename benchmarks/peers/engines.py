"""What engines that know nothing of us make of the addresses of a version: how many rows, and the sum of a column.

Reads a JSON line {"uris": […], "raw": "…", "column": "…"} and writes one line for each engine.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit


def duckdb(paths: Sequence[str], column: str) -> tuple[int, float]:
    import duckdb

    found = duckdb.execute(f"SELECT count(*), sum({column}) FROM read_parquet(?)", [list(paths)]).fetchone()
    assert found is not None
    return found


def polars(paths: Sequence[str], column: str) -> tuple[int, float]:
    import polars as pl

    return pl.scan_parquet(list(paths)).select(pl.len(), pl.col(column).sum()).collect().row(0)


def pandas(paths: Sequence[str], column: str) -> tuple[int, float]:
    import pandas as pd

    frame = pd.concat([pd.read_parquet(path, columns=[column]) for path in paths])
    return len(frame), frame[column].sum()


def dask(paths: Sequence[str], column: str) -> tuple[int, float]:
    import dask.dataframe as dd

    frame = dd.read_parquet(list(paths), columns=[column])
    return len(frame), frame[column].sum().compute()


@cache
def _spark() -> Any:
    from pyspark.sql import SparkSession

    local = {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
    session = SparkSession.builder.master("local[2]").config(map=local).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def pyspark(paths: Sequence[str], column: str) -> tuple[int, float]:
    from pyspark.sql import functions

    row = _spark().read.parquet(*paths).agg(functions.count("*"), functions.sum(column)).first()
    return row[0], row[1]


ENGINES: dict[str, Callable[[Sequence[str], str], tuple[int, float]]] = {
    "DuckDB": duckdb,
    "polars": polars,
    "pandas": pandas,
    "Dask": dask,
    "PySpark": pyspark,
}


def main() -> None:
    """Answer the one question on standard input."""
    asked = json.loads(sys.stdin.readline())
    paths = [unquote(urlsplit(uri).path) for uri in asked["uris"]]
    for name, read in ENGINES.items():
        answer: dict[str, Any] = {"engine": name}
        try:
            for what, files in (("raw", [asked["raw"]]), ("ours", paths)):
                read(files, asked["column"])
                started = time.perf_counter()
                rows, total = read(files, asked["column"])
                answer[what] = {"rows": rows, "sum": float(total), "seconds": time.perf_counter() - started}
        except Exception as error:  # of whatever engine: it is the answer
            answer["error"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        print(json.dumps(answer), flush=True)
    assert "dataset_registry" not in sys.modules


if __name__ == "__main__":
    main()
