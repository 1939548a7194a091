"""Tables of versions as Ray datasets: read tasks read some of the stored parts each; and datasets of Ray as versions."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from ray.data import read_datasource
from ray.data.block import BlockAccessor, BlockMetadata
from ray.data.datasource import Datasink, Datasource, ReadTask

from dataset_registry.engines.scans import TableScan, in_groups
from dataset_registry.engines.writes import Mode, Piece, TableWrite
from dataset_registry.version import Version

if TYPE_CHECKING:
    import pyarrow.dataset as ds
    from ray.data import Dataset as RayDataset


def read_table(
    address: str,
    component: str | Sequence[str] | None = None,
    *,
    columns: Sequence[str] | None = None,
    filter: "ds.Expression | None" = None,
    run_id: str | None = None,
    override_num_blocks: int | None = None,
    **options: Any,
) -> "RayDataset":
    """The table at an address such as `raw/flights@main` as a Ray dataset. The branch is resolved now.

    `filter` is an expression of `pyarrow.dataset.field`: parts whose statistics contradict it are not read. `options` as for
    `dataset_registry.engines.dask.read_table`. Raises as `Version.to_arrow`.
    """
    scan = TableScan.of(address, component, columns=columns, filter=filter, run_id=run_id, options=options)
    return of_scan(scan, override_num_blocks)


def of_scan(scan: TableScan, override_num_blocks: int | None = None) -> "RayDataset":
    """A table as a Ray dataset."""
    return read_datasource(RegistryDatasource(scan), override_num_blocks=override_num_blocks)


def write_table(
    dataset: "RayDataset",
    address: str,
    component: str = "data",
    *,
    mode: Mode = "overwrite",
    key: str | Sequence[str] = (),
    message: str | None = None,
    **options: Any,
) -> Version:
    """Commit a Ray dataset as one version of a table at an address such as `raw/flights@main`, written by Ray's tasks.

    `mode` is `overwrite` or `append`; `key` and `message` as for `Dataset.commit`; `options` as for `read_table`. The rows are in
    the order of the tasks, which is that of the dataset with `execution_options.preserve_order`. If a task fails for good,
    nothing is committed. Raises as `TableWrite.begin` and `TableWrite.commit`.
    """
    write = TableWrite.begin(address, component, mode=mode, key=key, message=message, options=options)
    with write.aborted_on_error():
        return write.commit(pieces_of(dataset, write))


def pieces_of(dataset: "RayDataset", write: TableWrite) -> list[Piece]:
    """Write the rows of a Ray dataset, in its tasks."""
    sink = RegistryDatasink(write)
    dataset.write_datasink(sink)
    return sink.pieces


class RegistryDatasink(Datasink[tuple[int, Piece]]):  # type: ignore[misc]  # ray's types are partial
    """Writes pieces of a table in tasks. `pieces` are those of the tasks that succeeded, in their order."""

    def __init__(self, write: TableWrite) -> None:
        self._write = write
        self.pieces: list[Piece] = []

    @property
    def min_bytes_per_write(self) -> int:
        """A task writes some parts, so that few rows are written again where pieces meet."""
        return 128 << 20

    def write(self, blocks: "Iterable[Any]", ctx: Any) -> tuple[int, Piece] | None:
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        tables = [table for table in tables if table.num_columns]
        return (ctx.task_idx, self._write.write(pa.concat_tables(tables))) if tables else None

    def on_write_complete(self, write_result: Any) -> None:
        written: dict[int, Piece] = dict(filter(None, write_result.write_returns))
        self.pieces = [written[place] for place in sorted(written)]


class RegistryDatasource(Datasource):  # type: ignore[misc]  # ray's types are partial
    """A table of a version."""

    def __init__(self, scan: TableScan) -> None:
        super().__init__()
        self._scan = scan
        self._parts = scan.parts()

    def get_name(self) -> str:
        return "DatasetRegistry"

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(part.size for part in self._parts)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Tasks for runs of neighbouring parts. (Ray keeps their order with `execution_options.preserve_order`.)"""
        schema = self._scan.schema
        tasks = []
        for group in in_groups(self._parts, parallelism):
            known = BlockMetadata(
                num_rows=None, size_bytes=sum(p.size for p in group), input_files=None, exec_stats=None
            )
            read = partial(_read, self._scan, [part.number for part in group])
            tasks.append(ReadTask(read, known, schema=schema, per_task_row_limit=per_task_row_limit))
        return tasks


def _read(scan: TableScan, numbers: Sequence[int]) -> Iterator[pa.Table]:
    for number in numbers:
        yield scan.read([number])
