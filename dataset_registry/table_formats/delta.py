"""A version as a Delta table: its schema and a transaction log with one commit, over the stored Parquet files.

Delta numbers its versions from 0 without gaps, so each version of a dataset is a table of its own, with the version 0.
https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pyarrow as pa

from dataset_registry.content.source import CatalogContents
from dataset_registry.embedded.dataset import EmbeddedVersion
from dataset_registry.errors import InputError
from dataset_registry.model.records import DatasetRecord, VersionRecord
from dataset_registry.table_formats.published import ParquetFile, PublishedTable
from dataset_registry.tabular.convert import is_list

_TYPES = {
    pa.bool_(): "boolean",
    pa.int8(): "byte",
    pa.int16(): "short",
    pa.int32(): "integer",
    pa.int64(): "long",
    pa.uint8(): "short",
    pa.uint16(): "integer",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.date32(): "date",
    pa.string(): "string",
    pa.binary(): "binary",
}
_WITHOUT_ZONE = "timestamp_ntz"
_COUNTED = (pa.types.is_integer, pa.types.is_string, pa.types.is_date)
"""Types whose bounds JSON holds exactly."""


def table_of(version: EmbeddedVersion) -> PublishedTable:
    """The table of a version. Raises `InputError`."""
    return PublishedTable(CatalogContents(version.access), version.record)


def log_of(dataset: DatasetRecord, version: VersionRecord, table: PublishedTable) -> bytes:
    """The commit 0 of the transaction log. Files are named by their hash, in the folder of the table.

    Raises `InputError` for a column that Delta has no type for.
    """
    moment = _milliseconds(version.created_at)
    schema = json.dumps({"type": "struct", "fields": [_field(column) for column in table.schema]})
    operation = {"operation": "registry commit", "operationParameters": {"version": str(version.number)}}
    identity = uuid5(NAMESPACE_OID, f"{dataset.created_at.isoformat()} {dataset.id} {version.number}")
    lines: list[dict[str, Any]] = [
        {"commitInfo": {"timestamp": moment, **operation, "engineInfo": "dataset_registry"}},
        {"protocol": _protocol(_WITHOUT_ZONE in schema)},
        {
            "metaData": {
                "id": str(identity),
                "name": dataset.name,
                "format": {"provider": "parquet", "options": {}},
                "schemaString": schema,
                "partitionColumns": [],
                "configuration": {},
                "createdTime": moment,
            }
        },
        *({"add": add_action(file, table.schema, moment)} for file in table.files),
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def add_action(file: ParquetFile, columns: pa.Schema, moment: int) -> dict[str, Any]:
    """The action that adds a file."""
    return {
        "path": file.name,
        "partitionValues": {},
        "size": file.file.size,
        "modificationTime": moment,
        "dataChange": True,
        "stats": json.dumps(_statistics(file, columns)),
    }


def _protocol(has_moments_without_zone: bool) -> Mapping[str, Any]:
    if not has_moments_without_zone:
        return {"minReaderVersion": 1, "minWriterVersion": 2}
    features = ["timestampNtz"]
    return {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}


def _field(field: pa.Field) -> dict[str, Any]:
    return {"name": field.name, "type": _type(field.name, field.type), "nullable": True, "metadata": {}}


def _type(name: str, kind: pa.DataType) -> Any:
    if (found := _TYPES.get(kind)) is not None:
        return found
    if pa.types.is_decimal128(kind) and 0 <= kind.scale <= kind.precision:
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind) and kind.unit in ("ms", "us"):
        return "timestamp" if kind.tz is not None else _WITHOUT_ZONE
    if pa.types.is_struct(kind) and kind.num_fields:
        return {"type": "struct", "fields": [_field(kind.field(at)) for at in range(kind.num_fields)]}
    if pa.types.is_map(kind):
        key, value = _type(name, kind.key_type), _type(name, kind.item_type)
        return {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": True}
    if is_list(kind) or pa.types.is_fixed_size_list(kind):
        return {"type": "array", "elementType": _type(name, kind.value_type), "containsNull": True}
    raise InputError(
        f"Column {name!r} has the type {kind}, which Delta does not have. Commit it with another type: timestamps with "
        "microseconds, uint32 as int64, uint64 as decimal128(20, 0), times as text.",
        column=name,
    )


def _statistics(file: ParquetFile, columns: pa.Schema) -> dict[str, Any]:
    known = [(column, file.statistics[column.name]) for column in columns if column.name in file.statistics]
    bounded = [(column.name, facts) for column, facts in known if any(is_kind(column.type) for is_kind in _COUNTED)]
    return {
        "numRecords": file.rows,
        "minValues": {name: facts.min for name, facts in bounded if facts.min is not None},
        "maxValues": {name: facts.max for name, facts in bounded if facts.max is not None},
        "nullCount": {column.name: facts.null_count for column, facts in known if facts.null_count is not None},
    }


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
