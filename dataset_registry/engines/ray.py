"""Tables of versions as Ray datasets: read tasks read some of the stored parts each."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ray.data import read_datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from dataset_registry.engines.scans import TableScan, in_groups

if TYPE_CHECKING:
    import pyarrow as pa
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
    return read_datasource(RegistryDatasource(scan), override_num_blocks=override_num_blocks)


class RegistryDatasource(Datasource):  # type: ignore[misc]  # ray's types are partial
    """A table of a version."""

    def __init__(self, scan: TableScan) -> None:
        super().__init__()
        self._scan = scan

    def get_name(self) -> str:
        return "DatasetRegistry"

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(part.size for part in self._scan.parts())

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Tasks for runs of neighbouring parts. (Ray keeps their order with `execution_options.preserve_order`.)"""
        schema = self._scan.schema
        tasks = []
        for group in in_groups(self._scan.parts(), parallelism):
            known = BlockMetadata(
                num_rows=None, size_bytes=sum(p.size for p in group), input_files=None, exec_stats=None
            )
            read = partial(_read, self._scan, [part.number for part in group])
            tasks.append(ReadTask(read, known, schema=schema, per_task_row_limit=per_task_row_limit))
        return tasks


def _read(scan: TableScan, numbers: Sequence[int]) -> "Iterator[pa.Table]":
    for number in numbers:
        yield scan.read([number])
