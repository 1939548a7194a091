"""Where what a version holds comes from, as any registry has it: its components, schemas and bytes."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from io import SEEK_SET, BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from dataset_registry.errors import CorruptionError
from dataset_registry.model.chunks import FileFacts
from dataset_registry.model.records import ComponentRecord, FileRecord, VersionRecord
from dataset_registry.model.schema import ComponentSchema


class Contents(Protocol):
    """What versions hold. Every method raises `NotFound` when the version was deleted meanwhile."""

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

    def objects(self, version: VersionRecord, found: Sequence[ComponentRecord]) -> list[list[FileRecord]]:
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


def checked(stream: BinaryIO, content_hash: str) -> BinaryIO:
    """A stream that raises `CorruptionError` at its end when what it gave does not have this hash."""
    return cast(BinaryIO, BufferedReader(_Checked(stream, content_hash), 1 << 20))


class _Checked(RawIOBase):
    """A stream that knows the hash of what it should give: whoever reads it from its start to its end has checked it."""

    def __init__(self, stream: BinaryIO, content_hash: str) -> None:
        self._stream, self._content_hash = stream, content_hash
        self._hasher, self._hashed, self._at = hashlib.sha256(), 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._at = self._stream.seek(offset, whence)
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        if self._at == self._hashed:
            self._hasher.update(memoryview(buffer)[:count])
            self._hashed += count
            if count == 0 and self._hasher.hexdigest() != self._content_hash:
                raise CorruptionError(
                    f"The file {self._content_hash[:12]} was not read as what it is named after. Read it again; if that "
                    "does not help, run: dataset-registry verify --deep",
                    hash=self._content_hash,
                )
        self._at += count
        return int(count)

    def close(self) -> None:
        super().close()
        self._stream.close()
