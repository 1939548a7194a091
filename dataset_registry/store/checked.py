"""Streams that check their content against its hash."""

import hashlib
from io import SEEK_SET, BufferedReader, RawIOBase
from typing import Any, BinaryIO, cast

from dataset_registry.errors import CorruptionError

_BLOCK = 1 << 20


def checked(stream: BinaryIO, content_hash: str) -> BinaryIO:
    """A stream that raises `CorruptionError` at its end if its content does not have this hash."""
    return cast(BinaryIO, BufferedReader(_Checked(stream, content_hash), 1 << 20))


class _Checked(RawIOBase):
    """A stream with the expected hash of its content, checked when it is read from start to end."""

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
                    f"The file {self._content_hash[:12]} does not match its hash. Read it again; if it "
                    "persists, run: dataset-registry verify --deep",
                    hash=self._content_hash,
                )
        self._at += count
        return int(count)

    def close(self) -> None:
        super().close()
        self._stream.close()


def content_digest(content: BinaryIO) -> tuple[str, int]:
    """The SHA-256 and the size of content, which is read to its end and closed."""
    hasher, size = hashlib.sha256(), 0
    with content as stream:
        while block := stream.read(_BLOCK):
            hasher.update(block)
            size += len(block)
    return hasher.hexdigest(), size
