"""Tables of versions as Dask frames: a partition is a stored part, read by the worker that has it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dataset_registry.engines.scans import TableScan
from dataset_registry.model.extras import require

if TYPE_CHECKING:
    import dask.dataframe
    import pandas
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
    import dask
    import dask.dataframe as dd

    scan = TableScan.of(address, component, columns=columns, filter=filter, run_id=run_id, options=options)
    read = _Read(scan)
    numbers = [part.number for part in scan.parts()]
    with dask.config.set({"dataframe.convert-string": False}):  # which makes texts of lists, dates and decimals
        if not numbers:
            return dd.from_pandas(read(None), npartitions=1)
        return dd.from_map(read, numbers, meta=read(None), label="dataset-registry", enforce_metadata=False)


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
