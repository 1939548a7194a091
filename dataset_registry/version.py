"""The public interface of versions: immutable records, and methods that read their content."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dataset_registry.content import read
from dataset_registry.content.contents import Contents
from dataset_registry.model.checks import CheckResult, NewCheck, Severity, Taint, checked
from dataset_registry.model.column_lineage import LINEAGE_FACT, ColumnLineage, lineage_from_json
from dataset_registry.model.extras import require
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.records import (
    ComponentRecord,
    PartRecord,
    Production,
    Provenance,
    VersionFile,
    VersionRecord,
)
from dataset_registry.model.schema import ComponentSchema, Schema

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars
    import pyarrow
    import pyarrow.dataset

Components = str | Sequence[str] | None
"""The components to read: one name, several names, or None for all tables of the version as one."""


class Version(ABC):
    """One version of a dataset. It is immutable."""

    _components: tuple[ComponentRecord, ...] | None = None
    _schema: Schema | None = None

    def __init__(self, record: VersionRecord, contents: Contents) -> None:
        self.record = record
        self._contents = contents

    @property
    def id(self) -> int:
        """The id of the version, unique in the registry (used by REST and the tables of the catalog)."""
        return self.record.id

    @property
    def dataset(self) -> str:
        """The name the dataset had when this version was looked up."""
        return self.record.dataset

    @property
    def number(self) -> int:
        """1, 2, 3 … within the dataset; never reused."""
        return self.record.number

    @property
    def digest(self) -> str | None:
        """The Merkle root of the manifest, 64 hexadecimal digits; None for a legacy version not adopted yet."""
        return self.record.digest

    @property
    def depth(self) -> int:
        """Steps from the first version of its history: 0, or one more than its deepest parent."""
        return self.record.depth

    @property
    def parents(self) -> tuple[int, ...]:
        """The version numbers of its parents, the first parent first."""
        return self.record.parents

    @property
    def message(self) -> str | None:
        """The version message."""
        return self.record.message

    @property
    def created_at(self) -> datetime:
        """When it was committed, in UTC."""
        return self.record.created_at

    @property
    def created_by(self) -> str | None:
        """Who committed it."""
        return self.record.created_by

    @property
    def component_count(self) -> int:
        """The number of components."""
        return self.record.component_count

    @property
    def components(self) -> tuple[ComponentRecord, ...]:
        """Its components, sorted by name and index."""
        if self._components is None:  # not a cached_property: until Python 3.12 all instances share its lock
            self._components = tuple(read.components(self._contents, self.record))
        return self._components

    def components_named(self, names: Sequence[str]) -> tuple[ComponentRecord, ...]:
        """Its components with these names."""
        return tuple(read.components(self._contents, self.record, names))

    @property
    def schema(self) -> Schema:
        """The captured columns and statistics of its components."""
        if self._schema is None:
            self._schema = read.schema(self._contents, self.record)
        return self._schema

    def captured(self, components: Components = None) -> list[tuple[str, int, ComponentSchema]]:
        """The captured schemas as (name, index, schema); `schema` has the same by label."""
        return self._contents.schemas(self.record, _names(components))

    def column_digests(self, components: Components = None) -> dict[str, str]:
        """A digest of the content of each column, by its name: equal in two versions if the type, the values and their order are
        equal, whatever became of the other columns and of the parts of the table.

        Of several tables (partitions, sheets), a column's digest is that of all that have it. It detects changes, it does not
        prove equality: it is a checksum of 64 bits. Columns of files that were delivered as files are read for this. Raises
        `NotFound` for an unknown component.
        """
        return read.column_digests(self._contents, self.record, _names(components))

    @property
    def provenance(self) -> Provenance:
        """The origin of its content, recorded by the production that created it."""
        productions = self.productions
        return productions[0].provenance if productions else Provenance()

    @property
    @abstractmethod
    def productions(self) -> list[Production]:
        """All recorded productions of this content, oldest first; the later ones left it unchanged."""

    @property
    def column_lineage(self) -> ColumnLineage:
        """The sources of each column, as recorded by the newest production that knows them; empty if none does."""
        found = [made.provenance.metadata.get(LINEAGE_FACT) for made in self.productions]
        return lineage_from_json(next((lineage for lineage in reversed(found) if lineage), None))

    @property
    @abstractmethod
    def consumers(self) -> list[tuple[str, int]]:
        """Dataset and number of every version that was produced from this one."""

    # --- checks ----------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def checks(self) -> list[CheckResult]:
        """The results of checks on this version, oldest first. Of several by one check, the last one counts."""

    @property
    @abstractmethod
    def taints(self) -> list[Taint]:
        """Why its content may not reach a protected branch: a failed run or a blocking check that failed, on this version or on
        one whose content it has."""

    def record_check(
        self,
        name: str,
        passed: bool,
        *,
        blocking: bool = False,
        severity: Severity = "error",
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        partition: str | None = None,
        run_id: str | None = None,
    ) -> CheckResult:
        """Record the result of a check on this version, or on one partition of it.

        If a blocking check fails with the severity `error`, the version is tainted: its content cannot reach a protected branch,
        until the same check passes on it, or `Dataset.absolve`. Raises `InputError`, `NotFound` (no such partition).
        """
        facts = metadata or {}
        check = NewCheck(name, passed, blocking, severity, description, facts, partition, run_id)
        return self._record_check(checked(check))

    @abstractmethod
    def _record_check(self, check: NewCheck) -> CheckResult: ...

    @abstractmethod
    def note_read(self, run_id: str) -> None:
        """Record that a pipeline run reads this version, which protects it from expiry while the run may be running.

        The IO manager calls this. Raises `NotFound` if the version was deleted.
        """

    # --- tables ----------------------------------------------------------------------------------------------------

    def to_arrow(
        self,
        component: Components = None,
        *,
        columns: Sequence[str] | None = None,
        filter: "pyarrow.dataset.Expression | None" = None,
        sheet: str | None = None,
        parts: Sequence[int] | None = None,
    ) -> "pyarrow.Table":
        """Read the version as one Arrow table: all its tables if their columns have the same names, or the named
        components in the given order.

        `columns` and `filter` (an expression of `pyarrow.dataset.field`) are pushed down into Parquet; `sheet` selects
        the sheet of a spreadsheet; `parts` are the numbers of those to read (see `table_parts`). Raises `InputError` if the
        tables cannot be read as one, `NotFound`.
        """
        names = _names(component)
        return read.table(self._contents, self.record, names, columns=columns, filter=filter, sheet=sheet, parts=parts)

    def table_parts(
        self, component: Components = None, *, filter: "pyarrow.dataset.Expression | None" = None
    ) -> list[PartRecord]:
        """The stored files that `to_arrow` reads, in the order of their rows, so that several processes read a table together.

        With a `filter` without the files that have no such rows, as far as statistics tell. Raises as `to_arrow`.
        """
        return read.table_parts(self._contents, self.record, _names(component), filter)

    def to_pandas(self, component: Components = None, **options: Any) -> "pandas.DataFrame":
        """Like `to_arrow`, as a pandas frame, with the categories and the index of the committed frame."""
        require("pandas", "pandas", "to_pandas()")
        from dataset_registry.tabular import pandas_frames

        names = _names(component)
        return pandas_frames.to_pandas(read.table(self._contents, self.record, names, with_labels=True, **options))

    def to_polars(self, component: Components = None, **options: Any) -> "polars.DataFrame":
        """Like `to_arrow`, as a polars frame."""
        require("polars", "polars", "to_polars()")
        from dataset_registry.tabular import polars_frames

        return polars_frames.to_polars(self.to_arrow(component, **options))

    def lazy(self, component: Components = None) -> "polars.LazyFrame":
        """A polars LazyFrame over the stored Parquet files, which reads only what a query needs."""
        require("polars", "polars", "lazy()")
        return read.lazily(self._contents, self.record, _names(component)).to_polars()

    def scan(self, component: Components = None) -> "pyarrow.dataset.Dataset":
        """A lazy Arrow dataset over the stored Parquet files; nothing is copied."""
        return read.scan(self._contents, self.record, _names(component))

    def to_duckdb(
        self, component: Components = None, *, connection: "duckdb.DuckDBPyConnection | None" = None
    ) -> "duckdb.DuckDBPyRelation":
        """A DuckDB relation over the stored Parquet files, on `connection` or DuckDB's default one."""
        return read.lazily(self._contents, self.record, _names(component)).to_duckdb(connection)

    # --- bytes -----------------------------------------------------------------------------------------------------

    def open(self, component: str | None = None, *, index: int = 0) -> BinaryIO:
        """Open a component as a stream of the committed bytes. Raises `NotFound`."""
        return read.open_bytes(self._contents, self.record, component, index)

    def paths(self, component: str | None = None) -> list[Path]:
        """Local, read-only files with the content of its components; in a folder store, the stored files themselves."""
        return read.paths(self._contents, self.record, read.components(self._contents, self.record, _names(component)))

    def files(self) -> list[VersionFile]:
        """Its stored files under the paths that `checkout` gives them; a table in several parts is a folder of these."""
        return read.files(self._contents, self.record)

    def open_file(self, file: VersionFile) -> BinaryIO:
        """Open one of `files` as a stream with random access."""
        return read.open_file(self._contents, self.record, file.file)

    def uris(self, component: str | None = None) -> list[str]:
        """The URIs of its stored files, for other engines; those of a table are Parquet files."""
        return read.uris(self._contents, self.record, component)

    def checkout(self, folder: str | Path, *, component: Components = None, progress: Progress = silent) -> list[Path]:
        """Write its components as files into a folder. Returns their paths. The files are copies."""
        return read.checkout(self._contents, self.record, Path(folder).expanduser(), _names(component), progress)

    def __str__(self) -> str:
        return f"{self.dataset}@v{self.number}"

    def __repr__(self) -> str:
        return f"<Version {self} {(self.digest or 'not adopted')[:8]}>"


def _names(component: Components) -> list[str] | None:
    if component is None:
        return None
    return [component] if isinstance(component, str) else list(component)
