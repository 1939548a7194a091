"""Versions as snapshots of Apache Iceberg tables: schemas, table metadata, manifests.

A snapshot's id and sequence number are the number of the version. Columns have the ids that `field_id` computes from their names,
and the stored files name columns, so the table has a name mapping. Nothing is stored: the same versions have the same metadata
on every server. https://iceberg.apache.org/spec/
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import pyarrow as pa
from pyiceberg import types as iceberg
from pyiceberg.conversions import to_bytes
from pyiceberg.io import InputFile, OutputFile
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record

from dataset_registry.errors import InputError
from dataset_registry.model.records import DatasetRecord, VersionRecord
from dataset_registry.table_formats.published import ParquetFile
from dataset_registry.tabular.convert import is_list
from dataset_registry.tabular.parquet import typed_bounds

_MOST_ID = 1 << 30
"""Field ids are below this: those near 2^31 are reserved."""

_TYPES = {
    pa.bool_(): iceberg.BooleanType(),
    pa.int8(): iceberg.IntegerType(),
    pa.int16(): iceberg.IntegerType(),
    pa.int32(): iceberg.IntegerType(),
    pa.int64(): iceberg.LongType(),
    pa.uint8(): iceberg.IntegerType(),
    pa.uint16(): iceberg.IntegerType(),
    pa.float32(): iceberg.FloatType(),
    pa.float64(): iceberg.DoubleType(),
    pa.date32(): iceberg.DateType(),
    pa.time64("us"): iceberg.TimeType(),
    pa.timestamp("ms"): iceberg.TimestampType(),
    pa.timestamp("us"): iceberg.TimestampType(),
    pa.string(): iceberg.StringType(),
    pa.binary(): iceberg.BinaryType(),
}


def field_id(path: Sequence[str]) -> int:
    """The id of a column, from its names from the outermost on: it stays the same in every version."""
    digest = hashlib.blake2b("\0".join(path).encode(), digest_size=4).digest()
    return int.from_bytes(digest) % (_MOST_ID - 1) + 1


def schema_of(columns: pa.Schema) -> Schema:
    """The Iceberg schema for stored columns. Raises `InputError` for a column that Iceberg has no type for."""
    fields = [_field((column.name,), column.type) for column in columns]
    names: dict[int | str, tuple[str, ...]] = {}
    for path, found in _walk(fields):
        for identity in (found.field_id, ".".join(path)):
            if names.setdefault(identity, path) != path:
                one, other = (" in ".join(map(repr, reversed(place))) for place in (names[identity], path))
                raise InputError(
                    f"Iceberg takes the columns {one} and {other} for the same one. Rename one.", column=path[0]
                )
    return Schema(*fields)


def paths_of(schema: Schema) -> list[tuple[str, ...]]:
    """The columns, fields of structs, items of lists, keys and values of maps, each by its names from the outermost on."""
    return [path for path, _ in _walk(schema.fields)]


def irreconcilable(one: Schema, other: Schema) -> list[str]:
    """The columns of both schemas of which neither has a type that the other's widens to, each with the two types."""
    types = {path: found.field_type for path, found in _walk(other.fields)}
    return [
        f"{'.'.join(path)!r} as {found.field_type} and as {types[path]}"
        for path, found in _walk(one.fields)
        if path in types
        and not (_is_promoted(found.field_type, types[path]) or _is_promoted(types[path], found.field_type))
    ]


def _is_promoted(narrow: iceberg.IcebergType, wide: iceberg.IcebergType) -> bool:
    """Whether a type is the other, or one that the specification lets a table widen to it."""
    if isinstance(narrow, iceberg.DecimalType) and isinstance(wide, iceberg.DecimalType):
        return narrow.scale == wide.scale and narrow.precision <= wide.precision
    if isinstance(narrow, iceberg.PrimitiveType) or isinstance(wide, iceberg.PrimitiveType):
        pairs = ((iceberg.IntegerType, iceberg.LongType), (iceberg.FloatType, iceberg.DoubleType))
        return narrow == wide or (type(narrow), type(wide)) in pairs
    return type(narrow) is type(wide)


def _field(path: tuple[str, ...], kind: pa.DataType) -> iceberg.NestedField:
    return iceberg.NestedField(field_id(path), path[-1], _type(path, kind), required=False)


def _type(path: tuple[str, ...], kind: pa.DataType) -> iceberg.IcebergType:
    if (found := _TYPES.get(kind)) is not None:
        return found
    if pa.types.is_decimal128(kind) and 0 <= kind.scale <= kind.precision:
        return iceberg.DecimalType(kind.precision, kind.scale)
    if pa.types.is_timestamp(kind) and kind.unit in ("ms", "us"):
        return iceberg.TimestamptzType()
    if pa.types.is_fixed_size_binary(kind):
        return iceberg.FixedType(kind.byte_width)
    if pa.types.is_struct(kind) and kind.num_fields:
        fields = [kind.field(at) for at in range(kind.num_fields)]
        return iceberg.StructType(*(_field((*path, field.name), field.type) for field in fields))
    if pa.types.is_map(kind):
        key, value = (*path, "key"), (*path, "value")
        return iceberg.MapType(
            field_id(key),
            _type(key, kind.key_type),
            field_id(value),
            _type(value, kind.item_type),
            value_required=False,
        )
    if is_list(kind) or pa.types.is_fixed_size_list(kind):
        item = (*path, "element")
        return iceberg.ListType(field_id(item), _type(item, kind.value_type), element_required=False)
    raise InputError(
        f"Column {'.'.join(path)!r} has the type {kind}, which Iceberg does not have. {_way_out(kind)}", column=path[0]
    )


def _way_out(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        return "Commit it with microseconds, such as timestamp('us')."
    if pa.types.is_unsigned_integer(kind):  # pyiceberg's filters take the 32 bits of uint32 for a signed integer
        return "Commit it as int64." if pa.types.is_uint32(kind) else "Commit it as int64 or decimal128(20, 0)."
    if pa.types.is_null(kind):
        return "Give it a type, even if it has no values yet."
    return "Commit it with another type, or leave it out of the table that is published."


def _walk(
    fields: Iterable[iceberg.NestedField], above: tuple[str, ...] = ()
) -> Iterable[tuple[tuple[str, ...], iceberg.NestedField]]:
    """Columns and what is nested in them, each with its names from the outermost on."""
    for found in fields:
        yield (*above, found.name), found
        yield from _walk(_fields_of(found.field_type), (*above, found.name))


def _fields_of(kind: iceberg.IcebergType) -> Sequence[iceberg.NestedField]:
    if isinstance(kind, iceberg.StructType):
        return kind.fields
    if isinstance(kind, iceberg.ListType):
        return [kind.element_field]
    return [kind.key_field, kind.value_field] if isinstance(kind, iceberg.MapType) else []


# --- table metadata ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A version as a snapshot: its schema, and the address of its manifest list."""

    version: VersionRecord
    schema: Schema
    manifest_list: str


def table_uuid(dataset: DatasetRecord, component: str | None) -> UUID:
    """The identity of the table of a dataset, or of one of its components; another one if it is created again."""
    return uuid5(NAMESPACE_OID, f"{dataset.created_at.isoformat()} {dataset.id} {component or ''}")


def table_metadata(
    dataset: DatasetRecord,
    component: str | None,
    location: str,
    snapshots: Sequence[Snapshot],
    refs: Mapping[str, tuple[int, bool]],
    current: int,
) -> dict[str, Any]:
    """The metadata of a table (format version 2). `snapshots` are in order of their numbers; `refs` are names, each
    with the number of a version and whether it is a tag; `current` is the number of the current version."""
    schemas: list[Schema] = []
    ids: dict[str, int] = {}
    schema_ids: dict[int, int] = {}
    for snapshot in snapshots:
        number = schema_ids[snapshot.version.number] = ids.setdefault(str(snapshot.schema), len(schemas))
        if number == len(schemas):
            schemas.append(snapshot.schema.model_copy(update={"schema_id": len(schemas)}))
    by_number = {snapshot.version.number: snapshot for snapshot in snapshots}
    moments = _moments(snapshots)
    log = list(_first_parents(by_number, current))[::-1]
    return {
        "format-version": 2,
        "table-uuid": str(table_uuid(dataset, component)),
        "location": location,
        "last-sequence-number": max(by_number),
        "last-updated-ms": moments[max(by_number)],
        "last-column-id": max(schema.highest_field_id for schema in schemas),
        "current-schema-id": schema_ids[current],
        "schemas": [schema.model_dump() for schema in schemas],
        "default-spec-id": 0,
        "partition-specs": [{"spec-id": 0, "fields": []}],
        "last-partition-id": 999,
        "default-sort-order-id": 0,
        "sort-orders": [{"order-id": 0, "fields": []}],
        "properties": {
            "gc.enabled": "false",  # the files belong to the registry
            "schema.name-mapping.default": name_mapping(schemas),
            **({} if dataset.description is None else {"comment": dataset.description}),
        },
        "current-snapshot-id": current,
        "refs": {
            name: {"snapshot-id": number, "type": "tag" if is_tag else "branch"}
            for name, (number, is_tag) in refs.items()
        },
        "snapshots": [
            _snapshot(snapshot, schema_ids[snapshot.version.number], moments, by_number) for snapshot in snapshots
        ],
        "snapshot-log": [{"snapshot-id": number, "timestamp-ms": moments[number]} for number in log],
        "metadata-log": [],
    }


def _moments(snapshots: Sequence[Snapshot]) -> dict[int, int]:
    """Milliseconds at which versions were committed; none is before one with a smaller number, as readers require."""
    found: dict[int, int] = {}
    latest = 0
    for snapshot in snapshots:
        latest = max(latest, _milliseconds(snapshot.version.created_at))
        found[snapshot.version.number] = latest
    return found


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _first_parents(by_number: Mapping[int, Snapshot], number: int) -> Iterable[int]:
    while number in by_number:
        yield number
        parents = by_number[number].version.parents
        number = parents[0] if parents else 0


def _snapshot(
    snapshot: Snapshot, schema_id: int, moments: Mapping[int, int], there: Mapping[int, Snapshot]
) -> dict[str, Any]:
    version = snapshot.version
    parent = {"parent-snapshot-id": version.parents[0]} if version.parents and version.parents[0] in there else {}
    told = {
        "registry.message": version.message,
        "registry.digest": version.digest,
        "registry.author": version.created_by,
    }
    return {
        "snapshot-id": version.number,
        **parent,
        "sequence-number": version.number,
        "timestamp-ms": moments[version.number],
        "manifest-list": snapshot.manifest_list,
        "schema-id": schema_id,
        "summary": {
            "operation": "overwrite" if version.parents else "append",
            **{name: text for name, text in told.items() if text is not None},
        },
    }


def name_mapping(schemas: Sequence[Schema]) -> str:
    """The ids by name of all columns of all schemas, as JSON, for schemas in which a name always has the same id."""
    root: dict[str, _Mapped] = {}
    for schema in schemas:
        for path, found in _walk(schema.fields):
            level = root
            for name in path[:-1]:
                level = level[name].fields
            level.setdefault(path[-1], _Mapped(found.field_id))
    return json.dumps(_mapping(root))


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A name in a mapping: its id, and the names within it."""

    id: int
    fields: dict[str, "_Mapped"] = field(default_factory=dict)


def _mapping(level: Mapping[str, _Mapped]) -> list[dict[str, Any]]:
    return [
        {"field-id": found.id, "names": [name], **({"fields": _mapping(found.fields)} if found.fields else {})}
        for name, found in level.items()
    ]


# --- manifests -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Manifests:
    """The manifest list of a version, and its manifests by their addresses."""

    listed: bytes
    files: Mapping[str, bytes]


def manifests(
    number: int,
    files: Sequence[ParquetFile],
    columns: pa.Schema,
    parent: tuple[int, Sequence[ParquetFile]] | None,
    address_of: Mapping[str, str],
    data: str,
) -> Manifests:
    """The manifests of a version with these files: what differs from its first `parent` (its number and files), and the rest.

    `address_of` are the addresses of the manifests `changes` and `existing` and of the `list`; the address of a stored file is
    `data` and its name.
    """
    schema = schema_of(columns)
    described = DataFiles(schema, columns, lambda file: data + file.name)
    before = {file.name for file in parent[1]} if parent else set()
    now = {file.name for file in files}
    added = [_entry(ManifestEntryStatus.ADDED, described.of(file), number) for file in files if file.name not in before]
    existing = [
        _entry(ManifestEntryStatus.EXISTING, described.of(file), parent[0])
        for file in files
        if parent is not None and file.name in before
    ]
    deleted = [
        _entry(ManifestEntryStatus.DELETED, described.of(file), number, parent[0])
        for file in (parent[1] if parent else ())
        if parent is not None and file.name not in now
    ]
    written: dict[str, bytes] = {}
    listed: list[ManifestFile] = []
    for name, entries in (("changes", [*added, *deleted]), ("existing", existing)):
        if entries:
            target = _Memory(address_of[name])
            with write_manifest(2, UNPARTITIONED_PARTITION_SPEC, schema, target, number, "null") as writer:
                for entry in entries:
                    writer.add_entry(entry)
            listed.append(writer.to_manifest_file())
            written[target.location] = target.content()
    target = _Memory(address_of["list"])
    with write_manifest_list(2, target, number, parent[0] if parent else None, number, "null") as lists:
        lists.add_manifests(listed)
    return Manifests(target.content(), written)


def _entry(status: ManifestEntryStatus, described: DataFile, number: int, sequence: int | None = None) -> ManifestEntry:
    """An entry of a snapshot; `sequence` is the snapshot that added the file, by default the same."""
    known = None if status is ManifestEntryStatus.ADDED else sequence or number
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=number,
        sequence_number=known,
        file_sequence_number=known,
        data_file=described,
    )


class DataFiles:
    """Makes the descriptions of stored files for a table with this Iceberg schema and these stored columns; `address_of` are the
    addresses of the files."""

    def __init__(self, schema: Schema, columns: pa.Schema, address_of: Callable[[ParquetFile], str]) -> None:
        self._address_of = address_of
        by_name = {field.name: field for field in schema.fields}
        fields = [(column, by_name[column.name]) for column in columns]
        self._columns = [
            (column.name, column.type, field.field_id, field.field_type)
            for column, field in fields
            if isinstance(field.field_type, iceberg.PrimitiveType)
        ]

    def of(self, file: ParquetFile) -> DataFile:
        """The description of a file."""
        nulls, lower, upper = {}, {}, {}
        for name, kind, number, target in self._columns:
            known = file.statistics.get(name)
            if known is None:
                continue
            if known.null_count is not None:
                nulls[number] = known.null_count
            if (bounds := typed_bounds(known, kind)) is not None:
                lower[number], upper[number] = (to_bytes(target, _value(bound)) for bound in bounds)
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self._address_of(file),
            file_format=FileFormat.PARQUET,
            partition=Record(),
            record_count=file.rows,
            file_size_in_bytes=file.file.size,
            value_counts=dict.fromkeys(nulls, file.rows),
            null_value_counts=nulls,
            lower_bounds=lower,
            upper_bounds=upper,
        )


def _value(bound: pa.Scalar) -> Any:
    """A bound as pyiceberg takes it: days and microseconds as whole numbers."""
    if pa.types.is_date32(bound.type):
        return bound.value
    if pa.types.is_timestamp(bound.type):
        return bound.cast(pa.timestamp("us", bound.type.tz)).value
    return bound.as_py()


class _Memory(OutputFile):
    """A file in memory. Its content is the same whenever it is written: the marker between blocks of an Avro file, which is
    random, becomes a digest of the rest."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._stream = _Kept()

    def content(self) -> bytes:
        """What was written."""
        written = self._stream.getvalue()
        marker = written[-_MARKER:]  # the last block ends with it, as the header does
        return written.replace(marker, hashlib.sha256(written.replace(marker, b"")).digest()[:_MARKER])

    def __len__(self) -> int:
        return len(self._stream.getvalue())

    def exists(self) -> bool:
        return False

    def to_input_file(self) -> InputFile:
        raise NotImplementedError

    def create(self, overwrite: bool = False) -> Any:
        return self._stream


_MARKER = 16


class _Kept(io.BytesIO):
    """Bytes that remain after closing."""

    def close(self) -> None:
        pass
