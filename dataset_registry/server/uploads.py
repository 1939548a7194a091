"""Resumable uploads: files that grow with each request, until a commit references them.

An upload is a file with a metadata file in the scratch folder of the server. Its owner can resume it after a broken
connection and after a restart of the server. Several servers behind one address need a shared scratch folder, or a
proxy that always sends a client to the same server.
"""

import json
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from io import FileIO
from pathlib import Path
from threading import Lock
from time import time
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from dataset_registry import modes
from dataset_registry.errors import ConflictError, InputError, NotFound, PayloadTooLarge
from dataset_registry.store.spool import storage_error

_BLOCK = 1 << 20
_NEWBORN = 60.0
"""Maximum seconds between the creation of the two files of an upload."""


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An upload, its owner and announced properties. With a `key`, the content is uploaded directly to the store."""

    id: str
    user: str
    file_size: int | None
    content_hash: str | None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of open uploads: bytes per upload, bytes and number per user, bytes in total."""

    most: int
    user_bytes: int
    all_bytes: int
    user_uploads: int


class Uploads:
    """The uploads of one server.

    The quota is counted in memory and recounted from the folder by `tidy`, which also finds the uploads of other
    servers that share the folder.
    """

    def __init__(self, scratch: Path, *, quota: Quota, hours: float) -> None:
        self._folder = scratch / "uploads"
        self._quota, self._seconds = quota, hours * 3600
        self._writing: set[str] = set()
        self._lock = Lock()
        self._counted: dict[str, tuple[str, int]] = self._under_way()
        self._forms: dict[str, tuple[str, int]] = {}

    def begin(
        self, user: str, file_size: int | None, content_hash: str | None, key: str | None = None
    ) -> UploadSession:
        """Begin an upload of a user. Raises `PayloadTooLarge`, `StorageError`."""
        upload = UploadSession(secrets.token_hex(16), user, file_size, content_hash, key)
        with self._lock:
            self.check_quota(user, file_size or 0)
            self._counted[upload.id] = (user, file_size or 0)
        try:
            bits = modes.shared_bits(self._folder.parent)
            modes.make_folder(self._folder, bits)
            with modes.new_file(self._facts(upload.id), bits) as facts:
                facts.write(json.dumps(asdict(upload)).encode())
            modes.new_file(self._data(upload.id), bits).close()
        except OSError as error:
            raise storage_error(error, "The upload could not be begun") from error
        return upload

    def check_quota(self, user: str, size: int) -> None:
        """Raise `PayloadTooLarge` if an upload of this many bytes would exceed the quota."""
        quota = self._quota
        if size > quota.most:
            raise PayloadTooLarge(f"The limit for a file is {quota.most:,} bytes.", most=quota.most)
        under_way = [*list(self._counted.values()), *list(self._forms.values())]
        mine = [count for owner, count in under_way if owner == user]
        if len(mine) >= quota.user_uploads or sum(mine) + size > quota.user_bytes:
            raise PayloadTooLarge(
                f"{user} has {len(mine):,} uploads of {sum(mine):,} bytes under way; {quota.user_uploads:,} of "
                f"{quota.user_bytes:,} bytes are allowed. Commit or delete some of them (DELETE /v1/uploads/ID) first.",
                most=quota.user_bytes,
            )
        if sum(count for _, count in under_way) + size > quota.all_bytes:
            raise PayloadTooLarge(
                f"The open uploads of this server reach the limit of {quota.all_bytes:,} bytes. Try again later.",
                most=quota.all_bytes,
            )

    @contextmanager
    def receiving(self, user: str, size: int) -> Iterator[None]:
        """Count a form of this many bytes against the quota while it is received and committed. Raises `PayloadTooLarge`."""
        form = secrets.token_hex(16)
        with self._lock:
            self.check_quota(user, size)
            self._forms[form] = (user, size)
        try:
            yield
        finally:
            del self._forms[form]

    def _grow(self, upload: UploadSession, there: int) -> None:
        """Count the received bytes of an upload without an announced size. Raises `PayloadTooLarge`."""
        with self._lock:
            counted = self._counted.get(upload.id, (upload.user, 0))[1]
            if there > counted:
                self.check_quota(upload.user, there - counted)
                self._counted[upload.id] = (upload.user, there)

    def get(self, user: str, upload_id: str) -> UploadSession:
        """A user's upload. Raises `NotFound`, also for those of others."""
        found = None
        if upload_id.isalnum() and upload_id.isascii():
            with suppress(OSError, ValueError):
                found = UploadSession(**json.loads(self._facts(upload_id).read_text()))
        if found is None or found.user != user or not self._data(upload_id).exists():
            raise _gone(upload_id)
        return found

    def offset(self, upload: UploadSession) -> int:
        """The number of received bytes. Raises `NotFound` if the upload was committed or deleted in the meantime."""
        try:
            return self._data(upload.id).stat().st_size
        except FileNotFoundError:
            raise _gone(upload.id) from None

    def expires_at(self, upload: UploadSession) -> datetime:
        """When it expires, unless it is resumed."""
        try:
            modified = self._data(upload.id).stat().st_mtime
        except FileNotFoundError:
            raise _gone(upload.id) from None
        return datetime.fromtimestamp(modified, UTC) + timedelta(seconds=self._seconds)

    async def append(self, upload: UploadSession, offset: int, body: AsyncIterator[bytes]) -> int:
        """Append a body at `offset`, which must be where the upload stands; where it stands now.

        What came before a connection broke stays. Raises `ConflictError`, `PayloadTooLarge`, `StorageError`.
        """
        with self._exclusively(upload):
            there = self.offset(upload)
            if offset != there:
                raise ConflictError(
                    f"The offset of the upload is {there}, not {offset}. Resume from there.", offset=there
                )
            most = upload.file_size if upload.file_size is not None else self._quota.most
            pending: list[bytes] = []
            size = 0
            with self._opened(upload) as file:
                try:
                    async for piece in body:
                        if there + len(piece) > most:
                            raise PayloadTooLarge(
                                f"This upload was announced with {most:,} bytes, and more came. Begin another one.",
                                most=most,
                            )
                        there += len(piece)
                        self._grow(upload, there)
                        pending.append(piece)
                        size += len(piece)
                        if size >= _BLOCK:
                            await run_in_threadpool(_write, file, pending)
                            size = 0
                except ClientDisconnect:
                    pass  # the client resumes from what is there
                finally:
                    await run_in_threadpool(_write, file, pending)
            return self.offset(upload)

    def _opened(self, upload: UploadSession) -> FileIO:
        """The file of an upload, to append to. Raises `NotFound`, `ConflictError` for one that a commit has taken."""
        try:
            return self._data(upload.id).open("ab", buffering=0)
        except FileNotFoundError:
            raise _gone(upload.id) from None
        except PermissionError:
            raise ConflictError("The upload is complete, and was committed: nothing can be added.") from None

    def path(self, upload: UploadSession) -> Path:
        """The whole content. Raises `InputError` while some of it is missing."""
        there = self.offset(upload)
        if upload.file_size is not None and there != upload.file_size:
            raise InputError(
                f"The upload {upload.id} has {there:,} of {upload.file_size:,} bytes: send the rest first.",
                offset=there,
            )
        data = self._data(upload.id)
        if upload.file_size is not None:
            # Nothing comes any more: the store may link it instead of copying it.
            data.chmod(modes.read_only(modes.shared_bits(self._folder.parent)))
        return data

    def end(self, upload: UploadSession) -> None:
        """Delete an upload that was committed or abandoned."""
        self._counted.pop(upload.id, None)
        self._data(upload.id).unlink(missing_ok=True)
        self._facts(upload.id).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete abandoned uploads and recount the quota."""
        for data in self._folder.glob("*.data"):
            with suppress(OSError):
                if time() - data.stat().st_mtime > self._seconds:
                    data.unlink()
        for facts in self._folder.glob("*.json"):
            with suppress(OSError):
                if not facts.with_suffix(".data").exists() and time() - facts.stat().st_mtime > _NEWBORN:
                    facts.unlink()

        with self._lock:
            self._counted = self._under_way()

    def _under_way(self) -> dict[str, tuple[str, int]]:
        """The owner and the counted bytes (announced or received) of each upload in the folder."""
        found: dict[str, tuple[str, int]] = {}
        for facts in self._folder.glob("*.json"):
            with suppress(OSError, ValueError):
                upload = UploadSession(**json.loads(facts.read_text()))
                found[upload.id] = (upload.user, max(upload.file_size or 0, self.offset(upload)))
        return found

    @contextmanager
    def _exclusively(self, upload: UploadSession) -> Iterator[None]:
        if upload.id in self._writing:
            raise ConflictError("Another request is writing to this upload. Ask for its offset, then resume.")
        self._writing.add(upload.id)
        try:
            yield
        finally:
            self._writing.discard(upload.id)

    def _data(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.data"

    def _facts(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.json"


def _gone(upload_id: str) -> NotFound:
    return NotFound("No such upload: unknown, committed or expired. Begin one with POST /v1/uploads.", upload=upload_id)


def _write(file: BinaryIO, pending: list[bytes]) -> None:
    try:
        while pending:
            rest = memoryview(pending[0])
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
            pending.pop(0)
    except OSError as error:
        raise storage_error(error, "The upload could not be written") from error
