"""The interface to the contents of versions: components, schemas and bytes."""

from collections.abc import Callable, Mapping, Sequence
from io import IOBase
from pathlib import Path
from typing import BinaryIO, Protocol

from dataset_registry.model.chunks import FileFacts
from dataset_registry.model.records import ComponentRecord, FileRecord, VersionRecord
from dataset_registry.model.schema import ComponentSchema


class Contents(Protocol):
    """The contents of versions. Every method raises `NotFound` if the version was deleted in the meantime."""

    transfers: int
    """Maximum number of files to fetch concurrently."""

    def components(self, version: VersionRecord, names: Sequence[str] | None = None) -> list[ComponentRecord]:
        """The components of a version in order; only those of `names` when given."""

    def schemas(
        self, version: VersionRecord, names: Sequence[str] | None = None
    ) -> list[tuple[str, int, ComponentSchema]]:
        """The captured schemas of components, by name and index."""

    def schema_count(self, version: VersionRecord, names: Sequence[str]) -> int:
        """The number of different schemas of the components with these names."""

    def data_files(self, version: VersionRecord, found: Sequence[ComponentRecord]) -> list[list[FileRecord]]:
        """For each component the files to read: one, or the parts of a table in order."""

    def facts(self, version: VersionRecord, found: Sequence[FileRecord]) -> Mapping[int, FileFacts]:
        """Known facts of files by id, without opening them; files without facts are missing."""

    def source(self, version: VersionRecord, file: FileRecord) -> Path | Callable[[], Path | IOBase]:
        """A random-access source of a stored file: a local path, or a function that opens it."""

    def fetch(self, version: VersionRecord, file: FileRecord) -> Path:
        """A local, read-only file with the content of a stored one."""

    def open(self, version: VersionRecord | None, file: FileRecord) -> BinaryIO:
        """A stream over the content of a stored file, checked against its hash while it is read."""

    def uri(self, file: FileRecord) -> str:
        """The address of a stored file, for other engines."""
