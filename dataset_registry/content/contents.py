"""Where what a version holds comes from, as any registry has it: its components, schemas and bytes."""

from collections.abc import Callable, Mapping, Sequence
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, Protocol

from dataset_registry.model.chunks import FileFacts
from dataset_registry.model.records import ComponentRecord, FileRecord, VersionRecord
from dataset_registry.model.schema import ComponentSchema


class Contents(Protocol):
    """What versions hold. Every method raises `NotFound` when the version was deleted in the meantime."""

    transfers: int
    """How many files are worth fetching at once."""

    def components(self, version: VersionRecord, names: Sequence[str] | None = None) -> list[ComponentRecord]:
        """The components of a version in order; only those of `names` when given."""

    def schemas(
        self, version: VersionRecord, names: Sequence[str] | None = None
    ) -> list[tuple[str, int, ComponentSchema]]:
        """What was captured of the components that have columns, by name and index."""

    def schema_count(self, version: VersionRecord, names: Sequence[str]) -> int:
        """How many different schemas the components of these names have."""

    def data_files(self, version: VersionRecord, found: Sequence[ComponentRecord]) -> list[list[FileRecord]]:
        """For each component the files to read: one, or the parts of a table in order."""

    def facts(self, version: VersionRecord, found: Sequence[FileRecord]) -> Mapping[int, FileFacts]:
        """What is known of files without opening them, by id; of some nothing."""

    def source(self, version: VersionRecord, file: FileRecord) -> Path | Callable[[], Path | RawIOBase]:
        """Where the content of a stored file can be read at random: a local file, or what opens it when it is read."""

    def fetch(self, version: VersionRecord, file: FileRecord) -> Path:
        """A local, read-only file with the content of a stored one."""

    def open(self, version: VersionRecord | None, file: FileRecord) -> BinaryIO:
        """A stream over the content of a stored file, checked against its hash while it is read."""

    def uri(self, file: FileRecord) -> str:
        """The address of a stored file, for other engines."""
