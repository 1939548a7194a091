"""Contents of versions over REST. Files are downloaded into a local cache and checked against their hashes."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from io import BufferedReader, RawIOBase
from pathlib import Path
from time import sleep
from typing import Any, BinaryIO, cast
from urllib.parse import quote, urlsplit

import httpx

from dataset_registry.errors import CorruptionError, InputError, RetryLater, StorageError
from dataset_registry.model.chunks import FileFacts
from dataset_registry.model.records import ComponentRecord, FileRecord, StoredObject, VersionRecord, content_hash_of
from dataset_registry.model.schema import ComponentSchema
from dataset_registry.remote.client import Client
from dataset_registry.store import Cache, Store, cache_folder
from dataset_registry.store.checked import checked
from dataset_registry.wire.datasets import ComponentResponse, SchemaResponse
from dataset_registry.wire.files import DataFilesResponse

_log = logging.getLogger(__name__)

_FEW = 50
"""Maximum number of names in one query."""
_LONG = 4000
"""Bytes of a query that every server and proxy accepts."""
_GOING_ON = 3
"""How often a download resumes after a broken connection."""
_KEY_TAIL = "." + "0" * 32


class ServedContents:
    """The contents of versions on a server."""

    transfers = 8

    def __init__(self, client: Client) -> None:
        self._client = client
        self._store = _ServedFiles(client)
        self.copies = Cache(self._store)

    @property
    def scratch(self) -> Path:
        """A folder on this machine for spools and copies."""
        return self._store.scratch

    def components(self, version: VersionRecord, names: Sequence[str] | None = None) -> list[ComponentRecord]:
        found = self._client.pages(f"{_path(version)}/components", ComponentResponse, name=_few(names))
        records = (shape.value() for shape in found)
        return [record for record in records if names is None or record.name in names]

    def schemas(
        self, version: VersionRecord, names: Sequence[str] | None = None
    ) -> list[tuple[str, int, ComponentSchema]]:
        path = f"datasets/{version.dataset_id}/schema/{version.id}"
        found = self._client.get(path, SchemaResponse, component=_few(names))
        return [c.captured() for c in found.components if names is None or c.component_name in names]

    def schema_count(self, version: VersionRecord, names: Sequence[str]) -> int:
        return len({str(captured.to_json()) for _, _, captured in self.schemas(version, names)})

    def data_files(self, version: VersionRecord, found: Sequence[ComponentRecord]) -> list[list[FileRecord]]:
        names = sorted({component.name for component in found})
        listed = self._client.pages(f"{_path(version)}/data-files", DataFilesResponse, name=_few(names))
        known = {shape.file_id: [file.value() for file in shape.data_files] for shape in listed}
        for files in known.values():
            self._store.ids.update((str(file.content_hash), file.id) for file in files)
        return [known[component.file_id] for component in found]

    def facts(self, version: VersionRecord, found: Sequence[FileRecord]) -> Mapping[int, FileFacts]:
        return {}

    def source(self, version: VersionRecord, file: FileRecord) -> Callable[[], Path]:
        return lambda: self.fetch(version, file)

    def fetch(self, version: VersionRecord, file: FileRecord) -> Path:
        return self.copies.fetch(_key(file))

    def open(self, version: VersionRecord | None, file: FileRecord) -> BinaryIO:
        stream = _ServedFile(self._client, file.id, file.size)
        if file.content_hash is None:
            return cast(BinaryIO, BufferedReader(stream, 1 << 20))
        return checked(cast(BinaryIO, BufferedReader(stream, 1 << 20)), file.content_hash)

    def uri(self, file: FileRecord) -> str:
        return self.copies.fetch(_key(file)).as_uri()


def _path(version: VersionRecord) -> str:
    return f"datasets/{version.dataset_id}/versions/{version.id}"


def _few(names: Sequence[str] | None) -> list[str] | None:
    if names is None or len(names) > _FEW or sum(len(quote(name)) for name in names) > _LONG:
        return None
    return list(names)


def _key(file: FileRecord) -> str:
    if file.content_hash is None:
        raise InputError(
            "This version comes from a legacy catalog, and its bytes are not in the store yet: open() and checkout() read it. "
            "Ask an administrator to run: dataset-registry adopt"
        )
    return file.content_hash + _KEY_TAIL


class _ServedFiles:
    """The files of a server as a read-only store, from which the local cache is filled."""

    transfers = 8

    def __init__(self, client: Client) -> None:
        self._client = client
        self.location = client.url
        parts = urlsplit(client.url)
        self.scratch = cache_folder() / parts.scheme / parts.netloc.replace(":", "_") / parts.path.strip("/")
        self.ids: dict[str, int] = {}

    def path(self, key: str) -> None:
        """None: files of a server are not local."""

    def open(self, key: str) -> BinaryIO:
        return cast(BinaryIO, BufferedReader(_ServedFile(self._client, self.ids[content_hash_of(key)], None), 1 << 20))

    def read(self, key: str, offset: int, length: int) -> bytes:
        raise self._read_only()

    def uri(self, key: str) -> str:
        return f"{self.location}/v1/files/{self.ids[content_hash_of(key)]}/content"

    def upload_url(self, key: str, size: int, lasts: timedelta) -> None:
        """None: uploads to a server use REST."""

    def named(self, folder: str) -> None:
        return None

    def identity(self) -> None:
        """None: the server checks its own store."""

    def claim(self, identity: str) -> str:
        raise self._read_only()

    def put(self, key: str, source: Path | bytes) -> int:
        raise self._read_only()

    def take(self, key: str, source: Store, source_key: str) -> bool:
        return False

    def size(self, key: str) -> int | None:
        raise self._read_only()

    def delete(self, key: str) -> None:
        raise self._read_only()

    def list(self) -> Iterator[StoredObject]:
        raise self._read_only()

    def tidy(self, older_than: float) -> int:
        return 0

    def _read_only(self) -> StorageError:
        return StorageError(f"The store behind {self.location} cannot be changed directly. Use the REST interface.")


class _ServedFile(RawIOBase):
    """A stream over a file of a server: sequential reads use one request, a seek starts another."""

    def __init__(self, client: Client, file_id: int, size: int | None) -> None:
        self._client, self._file_id, self._size = client, file_id, size
        self._at = 0
        self._broken = 0
        self._context: Any = None
        self._chunks: Iterator[bytes] | None = None
        self._rest = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._size is not None

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._at, self._size or 0)[whence]
        if base + offset != self._at:
            self._stop()
            self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            if self._size is not None and self._at >= self._size:
                self._stop()
                return 0
            try:
                self._begin()
                piece = next(cast(Iterator[bytes], self._chunks), None)
            except (RetryLater, httpx.TransportError) as error:
                self._stop()
                self._broken += 1
                if self._broken > _GOING_ON:
                    if isinstance(error, RetryLater):
                        raise
                    raise CorruptionError(
                        f"The file {self._file_id} of {self._client.url} breaks off repeatedly at {self._at:,} bytes. "
                        "Ask an administrator to run: dataset-registry verify --deep",
                        file_id=self._file_id,
                    ) from None
                _log.info("The download of file %d broke off at %d bytes; it resumes", self._file_id, self._at)
                sleep(0.05 * 2**self._broken)
                continue
            if piece is None:
                self._stop()
                if self._size is not None and self._at < self._size:
                    raise CorruptionError(
                        f"The file {self._file_id} of {self._client.url} ended at {self._at:,} of {self._size:,} bytes. Read "
                        "it again.",
                        file_id=self._file_id,
                    )
                return 0
            self._rest = piece
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._at += count
        return count

    def _begin(self) -> None:
        if self._chunks is not None:
            return
        context = self._client.stream(f"files/{self._file_id}/content", self._at)
        response: httpx.Response = context.__enter__()
        self._context, self._chunks = context, response.iter_bytes(1 << 20)
        if self._size is None:
            self._size = self._at + int(response.headers["Content-Length"])

    def _stop(self) -> None:
        if self._context is not None:
            cast(Any, self._chunks).close()
            self._context.__exit__(None, None, None)
        self._context, self._chunks, self._rest = None, None, b""

    def close(self) -> None:
        self._stop()
        super().close()
