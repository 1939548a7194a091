"""Versions as Delta tables: their columns and transaction logs, over the stored Parquet files.

Delta numbers its versions from 0 without gaps. So at a server each version of a dataset is a table of its own, with the
version 0; in a folder each export is a version.
https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from time import time
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5

import pyarrow as pa

from dataset_registry.content.source import CatalogContents
from dataset_registry.embedded.dataset import EmbeddedVersion
from dataset_registry.errors import InputError, RetryLater
from dataset_registry.model.records import DatasetRecord, VersionRecord
from dataset_registry.operations.datasets import by_id
from dataset_registry.store.spool import storage_error
from dataset_registry.table_formats.published import ParquetFile, PublishedTable, not_embedded
from dataset_registry.tabular.convert import is_list
from dataset_registry.version import Version

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
_ENGINE = "dataset_registry"
_LOG_FOLDER = "_delta_log"
_WITHOUT_ZONE = "timestamp_ntz"
_COUNTED = (pa.types.is_integer, pa.types.is_string, pa.types.is_date)
"""Types whose bounds JSON holds exactly."""


def table_of(version: EmbeddedVersion) -> PublishedTable:
    """The table of a version. Raises `InputError`."""
    return PublishedTable(CatalogContents(version.access), version.record)


def log_of(dataset: DatasetRecord, version: VersionRecord, table: PublishedTable) -> bytes:
    """The commit 0 of a transaction log with one version. Files have their names in the folder of the table.

    Raises `InputError` for a column that Delta has no type for.
    """
    moment = _milliseconds(version.created_at)
    actions = [_commit_info(version, moment), *_schema_actions(dataset, table.schema)]
    return _lines([*actions, *(_add(file, table.schema, moment) for file in table.files)])


def _commit_info(version: VersionRecord, moment: int) -> dict[str, Any]:
    parameters = {"dataset": version.dataset, "version": str(version.number), "digest": str(version.digest)}
    return {
        "commitInfo": {
            "timestamp": moment,
            "operation": "registry export",
            "operationParameters": parameters,
            "engineInfo": _ENGINE,
        }
    }


def _schema_actions(dataset: DatasetRecord, columns: pa.Schema, component: str | None = None) -> list[dict[str, Any]]:
    """The protocol and the columns of the table. Raises `InputError` for what Delta does not have."""
    names = [column.name.casefold() for column in columns]
    if twice := [column.name for column in columns if names.count(column.name.casefold()) > 1]:
        raise InputError(
            f"The columns {', '.join(map(repr, twice))} differ in letter case only, which Delta ignores. Rename one.",
            column=twice[0],
        )
    schema = json.dumps({"type": "struct", "fields": [_field(column) for column in columns]})
    identity = uuid5(NAMESPACE_OID, f"{dataset.created_at.isoformat()} {dataset.id} {component or ''}")
    return [
        {"protocol": _protocol(_WITHOUT_ZONE in schema)},
        {
            "metaData": {
                "id": str(identity),
                "name": dataset.name,
                "format": {"provider": "parquet", "options": {}},
                "schemaString": schema,
                "partitionColumns": [],
                "configuration": {},
                "createdTime": _milliseconds(dataset.created_at),
            }
        },
    ]


def _lines(actions: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(action) + "\n" for action in actions).encode()


def _add(file: ParquetFile, columns: pa.Schema, moment: int) -> dict[str, Any]:
    return {
        "add": {
            "path": file.name,
            "partitionValues": {},
            "size": file.file.size,
            "modificationTime": moment,
            "dataChange": True,
            "stats": json.dumps(_statistics(file, columns)),
        }
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


# --- in a folder ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeltaExport:
    """What an export did: the version of the Delta table, and numbers of files, `kept` those that it had before."""

    version: int
    added: int
    removed: int
    kept: int


def export_delta(version: Version, folder: str | Path, *, component: str | None = None) -> DeltaExport:
    """Make a version the newest version of a Delta table in a folder: a commit of its log, over hard links to stored files.

    The folder must be on the file system of the store. Nothing is copied, and a file stays as long as one of its links: the
    registry can delete its versions, and `VACUUM` the links. The table must be changed by exports of this dataset only.

    Raises `InputError` for types that Delta does not have, for a table that was changed by others, and for a registry without
    files on this machine; `StorageError`.
    """
    if not isinstance(version, EmbeddedVersion):
        raise not_embedded()
    contents = CatalogContents(version.access)
    table = PublishedTable(contents, version.record, None if component is None else [component])
    dataset = by_id(version.access, version.record.dataset_id)
    columns = _schema_actions(dataset, table.schema, component)
    target = Path(folder).expanduser().absolute()
    log = _Log.read(target, version.dataset, columns[1]["metaData"]["id"])
    names = {file.name for file in table.files}
    added = [file for file in table.files if file.name not in log.files]
    removed = sorted(log.files - names)
    result = DeltaExport(log.next, len(added), len(removed), len(names) - len(added))
    moment = max(int(time() * 1000), log.moment)
    is_new_schema = log.columns != columns[1]["metaData"]["schemaString"]
    actions = [_commit_info(version.record, moment), *(columns if is_new_schema else [])]
    actions += [{"remove": {"path": name, "deletionTimestamp": moment, "dataChange": True}} for name in removed]
    actions += [_add(file, table.schema, moment) for file in added]
    try:
        (target / _LOG_FOLDER).mkdir(parents=True, exist_ok=True)
        for file in table.files:
            if file in added or not (target / file.name).exists():
                _link(contents.fetch(version.record, file.file), target / file.name)
        if not added and not removed and not is_new_schema and log.next:
            return replace(result, version=log.next - 1)
        log.commit(_lines(actions))
    except OSError as error:
        raise storage_error(error, f"{target} could not be written") from error
    return result


def _link(stored: Path, target: Path) -> None:
    """A second name for a stored file. Raises `InputError` on another file system."""
    partial = target.with_name(f".{uuid4().hex}.partial")
    try:
        os.link(stored, partial)
        partial.replace(target)  # whatever was there under this name
        partial.unlink(missing_ok=True)  # where both were one file already
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP):
            raise
        raise InputError(
            f"{target.parent} is not on the file system of {stored}, where a stored file can have a second name. Choose a folder "
            "beside the store, or read the table from a server, as s3://registry/delta/<dataset>@<ref>.",
            path=str(target.parent),
        ) from error


@dataclass(frozen=True, slots=True)
class _Log:
    """The log of a table: its folder, the next version, the names of its files, its columns, when it was last written."""

    folder: Path
    next: int = 0
    files: frozenset[str] = frozenset()
    columns: str | None = None
    moment: int = 0

    @classmethod
    def read(cls, table: Path, dataset: str, identity: str) -> "_Log":
        """The log of a table that exports of this dataset and component made. Raises `InputError` for another one."""
        files: set[str] = set()
        columns = None
        moment = 0
        paths = sorted((table / _LOG_FOLDER).glob("*.json"))
        for at, path in enumerate(paths):
            try:
                actions = [json.loads(line) for line in path.read_text().splitlines() if line]
                info = next(action["commitInfo"] for action in actions if "commitInfo" in action)
                made = {action["metaData"]["id"] for action in actions if "metaData" in action}
                is_ours = info["engineInfo"] == _ENGINE and path.name == f"{at:020}.json" and made <= {identity}
                moment = info["timestamp"]
            except (ValueError, KeyError, TypeError, StopIteration):
                is_ours = False
            if not is_ours:
                raise InputError(
                    f"The Delta table {table} was made or changed by others ({path.name}). Export {dataset} to a new folder.",
                    path=str(table),
                )
            files -= {action["remove"]["path"] for action in actions if "remove" in action}
            files |= {action["add"]["path"] for action in actions if "add" in action}
            columns = next((a["metaData"]["schemaString"] for a in actions if "metaData" in a), columns)
        return cls(table / _LOG_FOLDER, len(paths), frozenset(files), columns, moment)

    def commit(self, content: bytes) -> None:
        """Write the next version. Raises `RetryLater` if another export just did."""
        partial = self.folder / f".{uuid4().hex}.partial"
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(partial, self.folder / f"{self.next:020}.json")
        except FileExistsError:
            raise RetryLater(
                f"Another export wrote version {self.next} of {self.folder.parent} just now. Try again."
            ) from None
        finally:
            partial.unlink(missing_ok=True)
