"""Tables of versions as Dask frames: a partition is a stored part, read by the worker that has it; and frames as versions."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dataset_registry.engines.scans import TableScan
from dataset_registry.engines.writes import Mode, Piece, TableWrite
from dataset_registry.model.extras import require
from dataset_registry.version import Version

if TYPE_CHECKING:
    import dask.dataframe
    import pandas
    import pyarrow as pa
    import pyarrow.dataset as ds


def read_table(
    address: str,
    component: str | Sequence[str] | None = None,
    *,
    columns: Sequence[str] | None = None,
    filter: "ds.Expression | None" = None,
    run_id: str | None = None,
    **options: Any,
) -> "dask.dataframe.DataFrame":
    """The table at an address such as `raw/flights@main` as a Dask frame. The branch is resolved now.

    Columns that are selected later are pushed down. Whole numbers and truth values of a column with nulls have pandas' nullable
    types, so that all partitions have the same. `filter` is an expression of `pyarrow.dataset.field`: parts whose statistics
    contradict it are no partitions. `options` say where the registry is, for this process and the workers: `location`, or
    `catalog` and `store`, `actor`, `token`; what is not given comes from the environment of each. Raises as `Version.to_arrow`.
    """
    require("dask", "dask", "read_table()")
    return of_scan(TableScan.of(address, component, columns=columns, filter=filter, run_id=run_id, options=options))


def of_scan(scan: TableScan) -> "dask.dataframe.DataFrame":
    """A table as a Dask frame."""
    import dask
    import dask.dataframe as dd

    read = _Read(scan)
    numbers = [part.number for part in scan.parts()]
    with dask.config.set({"dataframe.convert-string": False}):  # which makes texts of lists, dates and decimals
        if not numbers:
            return dd.from_pandas(read(None), npartitions=1)
        return dd.from_map(read, numbers, meta=read(None), label="dataset-registry", enforce_metadata=False)


def write_table(
    frame: "dask.dataframe.DataFrame",
    address: str,
    component: str = "data",
    *,
    mode: Mode = "overwrite",
    key: str | Sequence[str] = (),
    message: str | None = None,
    schema: "pa.Schema | None" = None,
    **options: Any,
) -> Version:
    """Commit a Dask frame as one version of a table at an address such as `raw/flights@main`; each partition is written by the
    worker that has it.

    `mode` is `overwrite` or `append`; `key` and `message` as for `Dataset.commit`; `options` as for `read_table`. `schema` has
    the types of columns of Python objects, such as decimals, which otherwise are those of the values of each partition. If a
    partition fails, nothing is committed. Raises as `TableWrite.begin` and `TableWrite.commit`.
    """
    require("dask", "dask", "write_table()")
    write = TableWrite.begin(address, component, mode=mode, key=key, message=message, options=options)
    with write.aborted_on_error():
        return write.commit(pieces_of(frame, write, schema))


def pieces_of(
    frame: "dask.dataframe.DataFrame", write: TableWrite, schema: "pa.Schema | None" = None
) -> Sequence[Piece]:
    """Write the partitions of a Dask frame, in its workers."""
    import dask

    task = partial(_write, write, schema)
    pieces: Sequence[Piece] = dask.compute(*(dask.delayed(task)(part) for part in frame.to_delayed()))
    return pieces


def _write(write: TableWrite, schema: "pa.Schema | None", part: "pandas.DataFrame") -> Piece:
    import pandas as pd
    import pyarrow as pa

    # An unnamed integer index is not data; as a range it would differ in each partition.
    has_labels = part.index.name is not None or not pd.api.types.is_integer_dtype(part.index.dtype)
    return write.write(pa.Table.from_pandas(part, schema=schema, preserve_index=has_labels if schema is None else None))


class _Read:
    """Reads a partition in a worker. Dask passes the columns that it needs."""

    def __init__(self, scan: TableScan) -> None:
        self._scan = scan
        self._with_nulls = {
            column.name
            for _, _, captured in scan.version.captured(scan.names)
            for table in captured.tables
            for column in table.columns
            if column.name not in table.statistics or table.statistics[column.name].null_count != 0
        }

    def __call__(self, number: int | None, columns: Sequence[str] | None = None) -> "pandas.DataFrame":
        import pandas as pd
        import pyarrow as pa

        scan = self._scan if columns is None else self._scan.of_columns(columns)
        parts = [] if number is None else [number]
        frame = scan.version.to_pandas(scan.names, columns=scan.columns, filter=scan.filter, parts=parts)
        nullable = {
            pa.from_numpy_dtype(dtype.numpy_dtype): dtype
            for dtype in (
                *(pd.Int8Dtype(), pd.Int16Dtype(), pd.Int32Dtype(), pd.Int64Dtype()),
                *(pd.UInt8Dtype(), pd.UInt16Dtype(), pd.UInt32Dtype(), pd.UInt64Dtype()),
                pd.BooleanDtype(),
            )
        }
        plain = [name for name in frame.columns if name in self._with_nulls and frame[name].dtype.kind in "iufbO"]
        wanted = [name for name in plain if not pd.api.types.is_extension_array_dtype(frame[name].dtype)]
        if wanted:
            table = scan.of_columns(wanted).read(parts)
            for name in wanted:
                if table[name].type in nullable:
                    frame[name] = table[name].to_pandas(types_mapper=nullable.get).array
        return frame
