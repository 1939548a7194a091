"""Tables of versions in Spark 4, and in engines that speak its protocol (Sail).

```python
from dataset_registry.engines.spark import RegistryDataSource

spark.dataSource.register(RegistryDataSource)
flights = spark.read.format("dataset_registry").option("ref", "raw/flights@main").load()
flights.write.format("dataset_registry").mode("overwrite").option("ref", "raw/copy@main").save()
```
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from pyspark import TaskContext
from pyspark.sql import SparkSession, datasource
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from dataset_registry.engines.scans import TableScan
from dataset_registry.engines.writes import Piece, TableWrite
from dataset_registry.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyspark.sql import DataFrame

FORMAT = "dataset_registry"
_CONNECTION = ("location", "catalog", "store", "actor", "token")


class RegistryDataSource(datasource.DataSource):  # type: ignore[misc]  # pyspark's types are partial
    """A table of a version as a Spark frame; a partition is a stored part. And a frame as one version of a table, written by the
    executors: mode `overwrite` or `append`.

    Options: `ref`, an address such as `raw/flights@main`, resolved once by the driver; `component`; to read `columns`, separated
    by commas, `run_id`, the run that is recorded as reading the version, and `prune`, which is `true` for a session that has
    `spark.sql.python.filterPushdown.enabled` (without it, Spark refuses such a reader); to write `key`, separated by commas, and
    `message`; and where the registry is: `location`, or `catalog` and `store`, `actor`, `token`. What is not given of the latter
    comes from the environment of the driver and of each executor.
    """

    @classmethod
    def name(cls) -> str:
        return FORMAT

    def schema(self) -> StructType:
        return from_arrow_schema(_widened(self._scan().schema), prefer_timestamp_ntz=True)

    def reader(self, schema: StructType) -> "RegistryReader":
        given, _, _ = self._given()
        is_pruned = given.get("prune", "").lower() == "true"
        return PruningReader(self._scan()) if is_pruned else RegistryReader(self._scan())

    def writer(self, schema: StructType, overwrite: bool) -> "RegistryWriter":
        given, address, options = self._given()
        write = TableWrite.begin(
            address,
            given.get("component", "data"),
            mode="overwrite" if overwrite else "append",
            key=_names(given.get("key")) or (),
            message=given.get("message"),
            options=options,
        )
        return RegistryWriter(write)

    def _scan(self) -> TableScan:
        given, address, options = self._given()
        components = json.loads(given["components"]) if "components" in given else given.get("component")
        columns = _names(given.get("columns"))
        return TableScan.of(address, components, columns=columns, run_id=given.get("run_id"), options=options)

    def _given(self) -> tuple[dict[str, str], str, dict[str, str]]:
        """The options, the address in them, and those that say where the registry is."""
        given = {name.lower(): value for name, value in self.options.items()}
        address = given.get("ref") or given.get("path")
        if not address:
            raise InputError('No table given. Add .option("ref", "raw/flights@main").')
        return given, address, {name: given[name] for name in _CONNECTION if name in given}


class _Part(datasource.InputPartition):  # type: ignore[misc]
    """The number of a part."""


class RegistryReader(datasource.DataSourceReader):  # type: ignore[misc]
    """Reads parts in the executors."""

    def __init__(self, scan: TableScan) -> None:
        self._scan = scan
        self._schema = _widened(scan.schema)

    def partitions(self) -> list[datasource.InputPartition]:
        return [_Part(part.number) for part in self._scan.parts()]

    def read(self, partition: datasource.InputPartition) -> "Iterator[pa.RecordBatch]":
        table = self._scan.read([partition.value], is_filtered=False)
        yield from table.cast(self._schema).to_batches()


class PruningReader(RegistryReader):
    """Reads those parts in which there may be rows for the filters of a query."""

    def pushFilters(self, filters: list[Any]) -> Iterable[Any]:  # noqa: N802 - the name that Spark calls
        """Prune parts by what their statistics know. Spark evaluates every filter again, by its own rules of comparison."""
        schema = self._scan.schema
        for found in filters:
            expression = _expression(found, schema)
            if expression is not None:
                self._scan = self._scan.with_filter(expression)
            yield found


def of_scan(scan: TableScan) -> "DataFrame":
    """A table as a frame of the active Spark session. Raises `InputError` if there is none."""
    session = SparkSession.getActiveSession()
    if session is None:
        raise InputError(
            "No active Spark session. Create one with SparkSession.builder.getOrCreate() before the input is loaded."
        )
    session.dataSource.register(RegistryDataSource)
    given = {name: value for name, value in asdict(scan.connection).items() if value is not None}
    given["ref"] = f"{scan.version.dataset}@v{scan.number}"
    given |= {
        name: json.dumps(getattr(scan, name)) for name in ("components", "columns") if getattr(scan, name) is not None
    }
    return session.read.format(FORMAT).options(**given).load()


def pieces_of(frame: "DataFrame", write: TableWrite) -> list[Piece]:
    """Write the partitions of a Spark frame, in its tasks."""
    task = partial(_write_partition, write)
    rows = frame.mapInArrow(task, "place int, component string, rows long").collect()
    return [Piece(row.component, row.rows) for row in sorted(rows, key=lambda row: row.place)]


def _piece(write: TableWrite, batches: "Iterator[pa.RecordBatch]") -> Piece | None:
    """Write the batches of a task, None if there are none."""
    first = next(batches, None)
    return None if first is None else write.write(chain([first], batches))


def _write_partition(write: TableWrite, batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    piece = _piece(write, batches)
    if piece is None:
        return
    context = TaskContext.get()
    place = 0 if context is None else context.partitionId()
    schema = pa.schema([("place", pa.int32()), ("component", pa.string()), ("rows", pa.int64())])
    yield pa.RecordBatch.from_pylist([{"place": place, "component": piece.component, "rows": piece.rows}], schema)


@dataclass
class _Written(datasource.WriterCommitMessage):  # type: ignore[misc]
    """What a task wrote; None if it had no rows."""

    piece: Piece | None


class RegistryWriter(datasource.DataSourceArrowWriter):  # type: ignore[misc]
    """Writes a piece in each task; the driver commits them."""

    def __init__(self, write: TableWrite) -> None:
        self._write = write

    def write(self, iterator: "Iterator[pa.RecordBatch]") -> _Written:
        return _Written(_piece(self._write, iterator))

    def commit(self, messages: list[Any]) -> None:
        self._write.commit([message.piece for message in messages if message is not None and message.piece is not None])

    def abort(self, messages: list[Any]) -> None:
        self._write.abort()


def _names(text: str | None) -> list[str] | None:
    """Names that are separated by commas, or a list of them in JSON."""
    if text and text.startswith("["):
        return [str(name) for name in json.loads(text)]
    return [name.strip() for name in text.split(",")] if text else None


def _expression(found: Any, schema: "pa.Schema") -> "ds.Expression | None":
    """A filter of Spark as one of Arrow, None where they may differ: NaN is the largest number in Spark, for example."""
    import pyarrow.dataset as ds

    path: tuple[str, ...] = getattr(found, "attribute", ())
    value: Any = getattr(found, "value", None)
    values = value if isinstance(value, tuple | list) else [value]
    if len(path) != 1 or path[0] not in schema.names or not _compare_alike(schema.field(path[0]).type, values):
        return None
    column = ds.field(path[0])
    match type(found).__name__:
        case "EqualTo":
            return column == value
        case "GreaterThan":
            return column > value
        case "GreaterThanOrEqual":
            return column >= value
        case "LessThan":
            return column < value
        case "LessThanOrEqual":
            return column <= value
        case "In":
            return column.isin(values)
    return None


def _compare_alike(kind: "pa.DataType", values: Sequence[Any]) -> bool:
    """Whether Spark and Arrow compare a column of this type with such values in the same way."""
    import pyarrow as pa

    wanted: type | None = None
    if pa.types.is_integer(kind):
        wanted = int
    elif pa.types.is_string(kind):
        wanted = str
    elif pa.types.is_date(kind):
        wanted = date
    return wanted is not None and bool(values) and all(type(value) is wanted for value in values)


def _widened(schema: "pa.Schema") -> "pa.Schema":
    """The schema with the types that Spark has: unsigned numbers as wider ones, moments in microseconds, in UTC if they have a
    zone, no dictionaries. A value that such a type does not have is an error when it is read."""
    import pyarrow as pa

    return pa.schema([pa.field(field.name, _widened_type(field.type), field.nullable) for field in schema])


def _widened_type(kind: "pa.DataType") -> "pa.DataType":
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _widened_type(kind.value_type)
    unsigned = {
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.decimal128(20),
    }
    if kind in unsigned:
        return unsigned[kind]
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_duration(kind):
        return pa.duration("us")
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_date64(kind):
        return pa.date32()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(pa.field("element", _widened_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _widened_type(f.type), f.nullable) for f in kind])
    if pa.types.is_map(kind):
        return pa.map_(_widened_type(kind.key_type), _widened_type(kind.item_type))
    return kind
