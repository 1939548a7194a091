"""Compression of objects with zstd, if a sample shrinks enough. Digests always cover the uncompressed content."""

import sys
from pathlib import Path
from typing import BinaryIO, Literal, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from dataset_registry.errors import CorruptionError, InputError
from dataset_registry.store.spool import Spool, Spooled

Compression = Literal["zstd"]

_SAMPLE = 1 << 18
_PAYS = 0.75
"""Maximum compressed share of a sample; above it, compression does not save enough."""
_WORTHWHILE = 1 << 10
"""Files below this size take one disk block either way."""


def parse_compression(text: str | None) -> Compression | None:
    """The compression of this name. Raises `InputError`."""
    if text in (None, "zstd"):
        return cast(Compression | None, text)
    raise InputError(f"Unsupported compression {text!r}. Use 'zstd', or None.", compression=text)


def compress(spool: Spool, content: Spooled) -> Spooled | None:
    """Spool the content as one zstd frame, or return None if that saves too little.

    The hash stays that of the content.
    """
    if content.size < _WORTHWHILE or not _pays(content):
        return None
    if isinstance(content.source, bytes):
        packed = zstd.compress(content.source)
        return Spooled(content.content_hash, len(packed), packed)
    with content.source.open("rb", buffering=0) as plain:
        frame = spool.write(lambda target: _pump(plain, target))
    return Spooled(content.content_hash, frame.size, frame.source)


def decompressed(stream: BinaryIO, compression: str | None) -> BinaryIO:
    """The content of an object's stream. Raises `CorruptionError` for a compression that this version does not know."""
    if compression is None:
        return stream
    if compression != "zstd":
        stream.close()
        raise CorruptionError(
            f"The catalog says that an object is compressed with {compression!r}, which this version of dataset-registry "
            "does not know. Install the version that wrote it."
        )
    return cast(BinaryIO, _Decompressed(stream))


class _Decompressed(zstd.ZstdFile):
    """A decompressing stream that closes its source and raises `CorruptionError` for a broken frame."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream, "rb")
        self._under = stream

    def readinto(self, buffer: object) -> int:
        with _broken():
            return super().readinto(buffer)  # type: ignore[arg-type]

    def read(self, size: int | None = -1) -> bytes:
        with _broken():
            return super().read(size)

    def read1(self, size: int | None = -1) -> bytes:
        with _broken():
            return super().read1(size)

    def close(self) -> None:
        super().close()
        self._under.close()


class _broken:  # noqa: N801 - a context manager, called like a function
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, zstd.ZstdError | EOFError):
            raise CorruptionError(f"A compressed object is damaged: {error}. Run: dataset-registry verify") from error


def _pays(content: Spooled) -> bool:
    return len(zstd.compress(_sample(content.source))) <= _PAYS * min(content.size, _SAMPLE)


def _sample(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:_SAMPLE]
    with source.open("rb") as stream:
        return stream.read(_SAMPLE)


def _pump(plain: BinaryIO, target: BinaryIO) -> None:
    packer = zstd.ZstdCompressor()
    while block := plain.read(1 << 20):
        target.write(packer.compress(block))
    target.write(packer.flush())
