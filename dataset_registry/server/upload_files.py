"""Where the bytes of uploads are until a commit takes them: files of a folder, or objects in the bucket of the store.

Servers that share the folder, or the bucket, resume each other's uploads.
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO, RawIOBase
from pathlib import Path
from time import time
from typing import Any, BinaryIO, Protocol, cast

try:
    import fcntl
except ImportError:  # where there is no such module
    fcntl = None  # type: ignore[assignment]

from dataset_registry import modes
from dataset_registry.errors import ConflictError
from dataset_registry.store import Spool, Spooled
from dataset_registry.store.named import NamedObjects
from dataset_registry.store.spool import storage_error

Write = Callable[[Sequence[bytes]], None]
_NEWBORN = 60.0
"""Maximum seconds between the creation of the two files of an upload."""
_TAKEN = "Another request is writing to this upload. Ask for its offset, then resume."


class UploadFiles(Protocol):
    """The facts and the bytes of uploads by their ids. Methods raise `FileNotFoundError` for one that is not there."""

    block: int
    """Bytes to gather before they are written."""

    def begin(self, upload: str, facts: bytes) -> None:
        """Add an upload without bytes."""

    def facts(self, upload: str) -> bytes:
        """What `begin` was given."""

    def received(self) -> Mapping[str, int]:
        """All uploads, with the bytes that have arrived."""

    def offset(self, upload: str) -> int:
        """How many bytes have arrived."""

    def changed_at(self, upload: str) -> float:
        """When something last arrived, in seconds since 1970."""

    def writing(self, upload: str, offset: int) -> Any:
        """A context with a function that appends at this offset. Raises `ConflictError` if another request writes."""

    def spooled(self, upload: str, spool: Spool, *, is_complete: bool) -> Spooled:
        """The bytes that have arrived; if all have, the upload is closed."""

    def end(self, upload: str) -> None:
        """Delete an upload."""

    def tidy(self, seconds: float) -> None:
        """Delete uploads to which nothing has come for so long."""


class FolderFiles:
    """Two files for each upload: its facts, and its bytes, to which each request appends."""

    block = 1 << 20

    def __init__(self, scratch: Path) -> None:
        self._folder = scratch / "uploads"

    def begin(self, upload: str, facts: bytes) -> None:
        bits = modes.shared_bits(self._folder.parent)
        modes.make_folder(self._folder, bits)
        with modes.new_file(self._facts(upload), bits) as file:
            file.write(facts)
        modes.new_file(self._data(upload), bits).close()

    def facts(self, upload: str) -> bytes:
        self.offset(upload)
        return self._facts(upload).read_bytes()

    def received(self) -> Mapping[str, int]:
        found = {}
        for facts in self._folder.glob("*.json"):
            with suppress(FileNotFoundError):
                found[facts.stem] = self.offset(facts.stem)
        return found

    def offset(self, upload: str) -> int:
        return self._data(upload).stat().st_size

    def changed_at(self, upload: str) -> float:
        return self._data(upload).stat().st_mtime

    @contextmanager
    def writing(self, upload: str, offset: int) -> Iterator[Write]:
        try:
            file: FileIO = self._data(upload).open("ab", buffering=0)
        except PermissionError:
            raise ConflictError("The upload is complete, and was committed: nothing can be added.") from None
        with file:
            if fcntl is not None:  # against other servers, too
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ConflictError(_TAKEN) from None
            if (there := os.fstat(file.fileno()).st_size) != offset:  # another server wrote just now
                raise wrong_offset(there, offset)
            yield lambda pieces: _write(file, list(pieces))

    def spooled(self, upload: str, spool: Spool, *, is_complete: bool) -> Spooled:
        data = self._data(upload)
        if is_complete:  # nothing comes any more: the store may link it instead of copying it
            data.chmod(modes.read_only(modes.shared_bits(self._folder.parent)))
        return spool.share(data)

    def end(self, upload: str) -> None:
        self._data(upload).unlink(missing_ok=True)
        self._facts(upload).unlink(missing_ok=True)

    def tidy(self, seconds: float) -> None:
        for data in self._folder.glob("*.data"):
            with suppress(OSError):
                if time() - data.stat().st_mtime > seconds:
                    data.unlink()
        for facts in self._folder.glob("*.json"):
            with suppress(OSError):
                if not facts.with_suffix(".data").exists() and time() - facts.stat().st_mtime > _NEWBORN:
                    facts.unlink()

    def _data(self, upload: str) -> Path:
        return self._folder / f"{upload}.data"

    def _facts(self, upload: str) -> Path:
        return self._folder / f"{upload}.json"


class BucketFiles:
    """Objects for each upload: its facts, and pieces that are named by their offset.

    A piece is written only if there is none at its offset, so of several servers that append to an upload one wins.
    """

    block = 8 << 20

    def __init__(self, objects: NamedObjects) -> None:
        self._objects = objects

    def begin(self, upload: str, facts: bytes) -> None:
        self._objects.add(f"{upload}/facts", facts)

    def facts(self, upload: str) -> bytes:
        found = self._objects.read(f"{upload}/facts")
        if found is None:
            raise FileNotFoundError(upload)
        return found

    def received(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for there in self._objects.list():
            upload, _, name = there.name.partition("/")
            found[upload] = found.get(upload, 0) + (there.size if name != "facts" else 0)
        return found

    def offset(self, upload: str) -> int:
        return sum(size for _, size in self._pieces(upload))

    def changed_at(self, upload: str) -> float:
        found = [there.modified for there in self._objects.list(f"{upload}/")]
        if not found:
            raise FileNotFoundError(upload)
        return max(found)

    @contextmanager
    def writing(self, upload: str, offset: int) -> Iterator[Write]:
        def write(pieces: Sequence[bytes]) -> None:
            nonlocal offset
            content = b"".join(pieces)
            if not content:
                return
            if not self._objects.add(f"{upload}/{offset:020}", content):
                raise ConflictError(_TAKEN)
            offset += len(content)

        yield write

    def spooled(self, upload: str, spool: Spool, *, is_complete: bool) -> Spooled:
        names = [f"{upload}/{offset:020}" for offset, _ in self._pieces(upload)]
        return spool.copy(cast(BinaryIO, io.BufferedReader(_Joined(self._objects, names), self.block)))

    def end(self, upload: str) -> None:
        for found in self._objects.list(f"{upload}/"):
            if not found.name.endswith("/facts"):
                self._objects.remove(found.name)
        self._objects.remove(f"{upload}/facts")  # last: until then the upload is there, and can be deleted again

    def tidy(self, seconds: float) -> None:
        latest: dict[str, float] = {}
        for found in self._objects.list():
            upload = found.name.partition("/")[0]
            latest[upload] = max(latest.get(upload, 0.0), found.modified)
        for upload, modified in latest.items():
            if time() - modified > seconds:
                self.end(upload)

    def _pieces(self, upload: str) -> list[tuple[int, int]]:
        """The offset and size of each piece, without gaps. Raises `FileNotFoundError`."""
        found = sorted(self._objects.list(f"{upload}/"))
        if not any(there.name.endswith("/facts") for there in found):
            raise FileNotFoundError(upload)
        pieces: list[tuple[int, int]] = []
        end = 0
        for there in found:
            name = there.name.rpartition("/")[2]
            if name.isdigit() and int(name) == end:
                pieces.append((end, there.size))
                end += there.size
        return pieces


class _Joined(RawIOBase):
    """A stream over named objects, one after the other."""

    def __init__(self, objects: NamedObjects, names: Sequence[str]) -> None:
        self._objects, self._names, self._left = objects, list(names), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left and self._names:
            name = self._names.pop(0)
            content = self._objects.read(name)
            if content is None:
                raise FileNotFoundError(name)
            self._left = memoryview(content)
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def wrong_offset(there: int, offset: int) -> ConflictError:
    """The error for bytes that belong elsewhere."""
    return ConflictError(f"The offset of the upload is {there}, not {offset}. Resume from there.", offset=there)


def _write(file: FileIO, pieces: list[bytes]) -> None:
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
    except OSError as error:
        raise storage_error(error, "The upload could not be written") from error
