"""Resumable uploads: bytes that arrive with several requests, until a commit references them.

Their owner can resume them after a broken connection, after a restart of the server, and at another server over the same store
(see `upload_files`).
"""

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from threading import Lock
from time import monotonic

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from dataset_registry.errors import ConflictError, InputError, NotFound, PayloadTooLarge
from dataset_registry.server.upload_files import BucketFiles, FolderFiles, UploadFiles, wrong_offset
from dataset_registry.store import Spool, Spooled, Store
from dataset_registry.store.spool import storage_error

_COUNTED_FOR = 5.0
"""Seconds after which the uploads of other servers are counted again before one begins."""


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


def files_of(store: Store) -> UploadFiles:
    """Where the uploads of the servers over a store are: in its bucket, or in its folder."""
    named = store.named("uploads")
    return FolderFiles(store.scratch) if named is None else BucketFiles(named)


class Uploads:
    """The uploads of the servers over a store.

    The quota is counted in memory, and again from what is stored, for the uploads of other servers.
    """

    def __init__(self, files: UploadFiles, *, quota: Quota, hours: float) -> None:
        self._files = files
        self._quota, self._seconds = quota, hours * 3600
        self._writing: set[str] = set()
        self._lock = Lock()
        self._counting = Lock()
        self._beginning: set[str] = set()
        self._sessions: dict[str, UploadSession] = {}
        self._counted: dict[str, tuple[str, int]] = {}
        self._forms: dict[str, tuple[str, int]] = {}
        self._counted_at = -inf  # when the first upload begins: a server starts while its store does not answer

    def begin(
        self, user: str, file_size: int | None, content_hash: str | None, key: str | None = None
    ) -> UploadSession:
        """Begin an upload of a user. Raises `PayloadTooLarge`, `StorageError`."""
        upload = UploadSession(secrets.token_hex(16), user, file_size, content_hash, key)
        if monotonic() - self._counted_at > _COUNTED_FOR:
            self._recount()
        with self._lock:
            self.check_quota(user, file_size or 0)
            self._counted[upload.id] = (user, file_size or 0)
            self._beginning.add(upload.id)
        try:
            self._files.begin(upload.id, json.dumps(asdict(upload)).encode())
        except OSError as error:
            raise storage_error(error, "The upload could not be begun") from error
        finally:
            self._beginning.discard(upload.id)
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
                found = UploadSession(**json.loads(self._files.facts(upload_id)))
        if found is None or found.user != user:
            raise _gone(upload_id)
        return found

    def offset(self, upload: UploadSession) -> int:
        """The number of received bytes. Raises `NotFound` if the upload was committed or deleted in the meantime."""
        try:
            return self._files.offset(upload.id)
        except FileNotFoundError:
            raise _gone(upload.id) from None

    def expires_at(self, upload: UploadSession) -> datetime:
        """When it expires, unless it is resumed."""
        try:
            modified = self._files.changed_at(upload.id)
        except FileNotFoundError:
            raise _gone(upload.id) from None
        return datetime.fromtimestamp(modified, UTC) + timedelta(seconds=self._seconds)

    async def append(self, upload: UploadSession, offset: int, body: AsyncIterator[bytes]) -> int:
        """Append a body at `offset`, which must be where the upload stands; where it stands now.

        What came before a connection broke stays. Raises `ConflictError`, `PayloadTooLarge`, `StorageError`.
        """
        with self._exclusively(upload):
            there = await run_in_threadpool(self.offset, upload)
            if offset != there:
                raise wrong_offset(there, offset)
            most = upload.file_size if upload.file_size is not None else self._quota.most
            pending: list[bytes] = []
            size = 0
            try:
                with self._files.writing(upload.id, offset) as write:
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
                            if size >= self._files.block:
                                gathered, pending, size = pending, [], 0
                                await run_in_threadpool(write, gathered)
                    except ClientDisconnect:
                        pass  # the client resumes from what is there
                    finally:
                        await run_in_threadpool(write, pending)
            except FileNotFoundError:
                raise _gone(upload.id) from None
            return await run_in_threadpool(self.offset, upload)

    def spooled(self, upload: UploadSession, spool: Spool) -> Spooled:
        """The whole content. Raises `InputError` while some of it is missing."""
        there = self.offset(upload)
        if upload.file_size is not None and there != upload.file_size:
            raise InputError(
                f"The upload {upload.id} has {there:,} of {upload.file_size:,} bytes: send the rest first.",
                offset=there,
            )
        return self._files.spooled(upload.id, spool, is_complete=upload.file_size is not None)

    def end(self, upload: UploadSession) -> None:
        """Delete an upload that was committed or abandoned."""
        self._counted.pop(upload.id, None)
        self._files.end(upload.id)

    def tidy(self) -> None:
        """Delete abandoned uploads and recount the quota."""
        self._files.tidy(self._seconds)
        self._recount()

    def _recount(self) -> None:
        with self._counting:
            with self._lock:
                before = self._counted.keys() - self._beginning
            found = self._under_way()
            with self._lock:  # what began in the meantime counts, too
                begun = {upload: count for upload, count in self._counted.items() if upload not in before}
                self._counted, self._counted_at = begun | found, monotonic()

    def _under_way(self) -> dict[str, tuple[str, int]]:
        """The owner and the counted bytes (announced or received) of each upload."""
        found: dict[str, tuple[str, int]] = {}
        sessions: dict[str, UploadSession] = {}
        for upload_id, received in self._files.received().items():
            with suppress(OSError, ValueError):
                upload = self._sessions.get(upload_id) or UploadSession(**json.loads(self._files.facts(upload_id)))
                sessions[upload_id] = upload
                found[upload.id] = (upload.user, max(upload.file_size or 0, received))
        self._sessions = sessions
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


def _gone(upload_id: str) -> NotFound:
    return NotFound("No such upload: unknown, committed or expired. Begin one with POST /v1/uploads.", upload=upload_id)
