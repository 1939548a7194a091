"""The table of a version as a list of Parquet files with their rows and statistics, for the metadata of a table format."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_registry.content import read
from dataset_registry.content.source import CatalogContents, is_file
from dataset_registry.errors import InputError
from dataset_registry.model.manifest import component_label
from dataset_registry.model.records import ComponentRecord, FileRecord, VersionRecord
from dataset_registry.model.schema import Column, ColumnStatistics, ComponentSchema
from dataset_registry.tabular.arrow import type_of
from dataset_registry.tabular.whole import WholeTable

_FIELD_ID = b"PARQUET:field_id"


def not_embedded() -> InputError:
    """The error for an export from a registry whose store is not here."""
    return InputError(
        "Only a registry that is opened with its store exports files: use Registry.open(catalog=…, store=…)."
    )


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A stored Parquet file of a table: its rows, and the statistics of its columns as far as they are known."""

    file: FileRecord
    rows: int
    statistics: Mapping[str, ColumnStatistics]
    repeat: int = 0
    """How often the same file precedes it in the table."""

    @property
    def content_hash(self) -> str:
        """The SHA-256 of its content."""
        return str(self.file.content_hash)

    @property
    def name(self) -> str:
        """A name of its own in the table: readers take files of one name for one file."""
        return f"{self.content_hash}{f'-{self.repeat}' if self.repeat else ''}.parquet"


class PublishedTable:
    """The components of a version that are read as one table, in Parquet files.

    `names` are those of the components, None for all tables of the version. Raises `InputError` if they cannot be one table, or
    are not stored as Parquet, `NotFound`.
    """

    def __init__(self, contents: CatalogContents, version: VersionRecord, names: Sequence[str] | None = None) -> None:
        self._contents, self.version = contents, version
        self._found = read.tables(contents, version, names)
        for component in self._found:
            if component.format != "parquet":
                raise InputError(
                    f"{component_label(component.name, component.index)!r} of {version.dataset}@v{version.number} is stored as "
                    f"{component.format}. Table formats take Parquet only: commit it as a table, with Version.to_arrow().",
                    version=version.number,
                )
        captured = {(name, index): schema for name, index, schema in contents.schemas(version, self._names())}
        self._captured = [captured.get((found.name, found.index)) for found in self._found]

    def _names(self) -> list[str]:
        return sorted({component.name for component in self._found})

    @cached_property
    def schema(self) -> pa.Schema:
        """The stored columns of the table, without metadata. Those of one component may be narrower, or missing.

        Raises `InputError` where a component has a type that readers do not widen.
        """
        members = []
        for component, captured in zip(self._found, self._captured, strict=True):
            label = component_label(component.name, component.index)
            if captured is None:
                raise InputError(f"{label!r} of {self._address()} has no captured columns. Commit it as a table.")
            members.append((label, captured))
        if len({captured.tables[0].columns for _, captured in members}) == 1:
            return _schema_of(members[0][1].tables[0].columns)
        whole = WholeTable.of(members).plain
        assert whole is not None
        for label, captured in members:
            for column in captured.tables[0].columns:
                wide = whole.field(column.name).type
                if not _is_widened_by_readers(narrow := type_of(column), wide):
                    raise InputError(
                        f"{label!r} of {self._address()} has {column.name!r} as {narrow}, the whole table as {wide}: readers of "
                        f"table formats do not convert this. Commit {label!r} again with {wide}.",
                        component=label,
                        column=column.name,
                    )
        return whole

    def refuse_odd_files(self) -> None:
        """Raise `InputError` if a file that was committed as a file has what other readers read differently."""
        for component, stored in zip(self._found, self._contents.data_files(self.version, self._found), strict=True):
            if is_file(component, stored):
                self._delivered(component, None, stored[0])

    @cached_property
    def files(self) -> list[ParquetFile]:
        """The files, in the order of their rows. Raises `InputError` as `refuse_odd_files`."""
        listed = []
        stored = self._contents.files_with_facts(self.version, self._found)
        for component, captured, found in zip(self._found, self._captured, stored, strict=True):
            for data in found:
                if data.rows is None:
                    listed.append(self._delivered(component, captured, data.file))
                else:
                    listed.append(ParquetFile(data.file, data.rows, data.statistics))
        seen: Counter[str] = Counter()
        for at, parquet in enumerate(listed):
            if count := seen[parquet.content_hash]:
                listed[at] = replace(parquet, repeat=count)
            seen[parquet.content_hash] += 1
        return listed

    def _delivered(self, component: ComponentRecord, captured: ComponentSchema | None, file: FileRecord) -> ParquetFile:
        """A Parquet file that was committed as a file. Raises `InputError` for what other readers read differently."""
        with self._contents.at_random(file) as stream, pq.ParquetFile(stream) as parquet:
            self._refuse(component, parquet)
            rows = parquet.metadata.num_rows
        return ParquetFile(file, rows, {} if captured is None else captured.tables[0].statistics)

    def _refuse(self, component: ComponentRecord, parquet: pq.ParquetFile) -> None:
        stored = parquet.schema
        old = [column.name for column in map(stored.column, range(len(stored))) if column.physical_type == "INT96"]
        odd = [found for found in parquet.schema_arrow if not _is_read_alike(found.type)]
        reason = None
        if any(_FIELD_ID in (found.metadata or {}) for found in parquet.schema_arrow):
            reason = "has the field ids of another table, by which readers would mix up its columns"
        elif old:
            reason = f"has {old[0]!r} as INT96, which readers take for other moments"
        elif odd:
            reason = f"has {odd[0].name!r} as {odd[0].type}, which not every reader knows"
        elif len(self._found) > 1 and (
            coded := [f.name for f in parquet.schema_arrow if pa.types.is_dictionary(f.type)]
        ):
            reason = f"has {coded[0]!r} as categories, which readers do not put together with texts"
        if reason is not None:
            label = component_label(component.name, component.index)
            raise InputError(
                f"{label!r} of {self._address()} is a file that {reason}. Commit it as a table, with Version.to_arrow().",
                version=self.version.number,
            )

    def _address(self) -> str:
        return f"{self.version.dataset}@v{self.version.number}"


def _is_read_alike(kind: pa.DataType) -> bool:
    """Whether a type that an Arrow writer noted in a file is none that other readers lack."""
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return False
    if pa.types.is_decimal(kind):
        return bool(pa.types.is_decimal128(kind))
    return (
        all(_is_read_alike(kind.field(at).type) for at in range(kind.num_fields)) if pa.types.is_nested(kind) else True
    )


def _schema_of(columns: Sequence[Column]) -> pa.Schema:
    return pa.schema([pa.field(column.name, type_of(column)) for column in columns])


def _is_widened_by_readers(narrow: pa.DataType, wide: pa.DataType) -> bool:
    """Whether readers of Iceberg and Delta read the one type as the other: what their formats call type promotion."""
    if narrow == wide:
        return True
    if pa.types.is_signed_integer(narrow) and pa.types.is_signed_integer(wide):
        return bool(narrow.bit_width < wide.bit_width)
    if pa.types.is_decimal(narrow) and pa.types.is_decimal(wide):
        return bool(narrow.scale == wide.scale and narrow.precision <= wide.precision)
    return bool(narrow == pa.float32() and wide == pa.float64())
