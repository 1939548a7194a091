"""A store in an object store: S3, Google Cloud Storage or Azure, through obstore.

obstore retries with backoff what may be retried (5xx, dropped connections, timeouts of reads), sends a SHA-256 with every
request that S3 then checks, and streams large files in parts. It does not survive a fork.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BufferedReader, RawIOBase
from pathlib import Path
from random import random
from time import sleep
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import parse_qsl, quote, urlsplit

from dataset_registry.errors import CorruptionError, InputError, RetryLater, StorageError
from dataset_registry.model.addresses import has_secrets, has_user, hide, is_harmless, redacted
from dataset_registry.model.extras import require
from dataset_registry.model.records import StoredObject
from dataset_registry.store.cache import CACHE_BYTES, cache_folder
from dataset_registry.store.named import NamedObjects
from dataset_registry.store.protocol import IDENTITY, KEY, Store, checked_key, cut_short, missing
from dataset_registry.store.signing import Credentials, signed_url
from dataset_registry.store.spool import tidy

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ObjectStore as Client

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")

_PART = 8 << 20
_PARTS = 10_000
"""S3 takes no more parts than this in one upload."""
_IN_FLIGHT = 3
"""Concurrent parts of one upload; with `_PART` this bounds its memory."""
_COPYABLE = 5 * 2**30
"""The largest object that S3 copies in one request."""
_READ = 4 << 20
_log = logging.getLogger(__name__)

_ATTEMPTS = 3


_process: int | None = None
"""The process that first used obstore: its threads do not exist in a forked child, which would wait for them permanently."""


class ObjectStore:
    """Objects under `<prefix>/objects/<first two digits>/<key>` of a bucket.

    `location` is `s3://bucket/prefix`, `gs://…` or `az://…`. What follows a `?` are options of obstore (`endpoint`,
    `region`, …) and two of ours: `cache`, the folder for local copies and spools (`~/.cache/dataset-registry`), and
    `cache_bytes`, what it may hold. Credentials come from the environment as every S3 tool reads them, or from `config`.
    """

    transfers = 16

    def __init__(self, location: str, *, config: Mapping[str, str] | None = None) -> None:
        require("obstore", "s3", f"The store {redacted(location)}")
        try:
            parts = urlsplit(location)
        except ValueError as error:
            raise InputError(
                f"{redacted(location)!r} is not an address: expected s3://bucket/prefix.", location=redacted(location)
            ) from (None if has_secrets(location) else error)
        if has_user(location):
            raise InputError(
                f"The address of the store {redacted(location)} contains a user. Remove it: credentials "
                "come from the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
                location=redacted(location),
            )
        options = dict(parse_qsl(parts.query))
        cache = options.pop("cache", str(cache_folder()))
        self.cache_bytes = _bytes(options.pop("cache_bytes", str(CACHE_BYTES)))
        self.location = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        if not parts.netloc:
            raise InputError(
                f"{redacted(location)!r} has no bucket: expected s3://bucket/prefix.", location=redacted(location)
            )
        self.scratch = Path(cache).expanduser().absolute() / parts.scheme / parts.netloc / parts.path.strip("/")
        self._prefix = parts.path.strip("/")
        self._bucket = f"{parts.scheme}://{parts.netloc}"
        self._arguments = (location, dict(config or {}))
        self._config = {**options, **(config or {})}
        self._opened: Client | None = None

    @property
    def client(self) -> "Client":
        """The client of obstore, opened in this process."""
        global _process
        if _process not in (None, os.getpid()):
            raise InputError(
                f"{self.location} was in use when this process was forked, and its connections do not work after a fork. Start "
                "processes with multiprocessing's 'spawn' or 'forkserver'."
            )
        if self._opened is None:
            self._opened, _process = self._open_client(), os.getpid()
        return self._opened

    def _open_client(self, retries: int = 8, retry_seconds: int = 120) -> "Client":
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        config: dict[str, Any] = dict(self._config)
        endpoint = config.get("endpoint") or config.get("aws_endpoint") or os.environ.get("AWS_ENDPOINT_URL") or ""
        if self._bucket.startswith("s3"):
            config.setdefault("checksum_algorithm", "SHA256")
        try:
            client: Client = cast(Any, from_url)(  # which options there are depends on the URL
                self._bucket,
                config=config,
                client_options={
                    "allow_http": str(endpoint).startswith("http://"),
                    "connect_timeout": timedelta(seconds=10),
                    "read_timeout": timedelta(seconds=60),
                    "timeout": timedelta(minutes=30),
                },
                retry_config={
                    "max_retries": retries,
                    "retry_timeout": timedelta(seconds=retry_seconds),
                    "backoff": {"init_backoff": timedelta(milliseconds=300)},
                },
            )
        except (BaseError, ValueError, TypeError) as error:
            raise InputError(f"The store {self.location} cannot be opened: {self._reason(error)}.") from self._cause(
                error
            )
        return client

    def _reason(self, error: BaseException) -> str:
        """The first line of an error, without secrets; obstore appends its internal details."""
        return self._hide(str(error)).strip().split("\n", maxsplit=1)[0].rstrip(".")

    def _cause(self, error: BaseException) -> BaseException | None:
        """The obstore error as a cause, or None if its text contains a secret that a traceback would show."""
        return error if self._hide(str(error)) == str(error) else None

    def _hide(self, text: str) -> str:
        location, config = self._arguments
        for name, value in config.items():
            text = text if is_harmless(name) else hide(text, f"s3://_?_={quote(value, safe='')}")
        return hide(text, location)

    def put(self, key: str, source: Path | bytes) -> int:
        import obstore

        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        whole = size <= _PART
        with self.errors(key):
            _again(
                lambda: obstore.put(
                    self.client,
                    self._path(key),
                    source,
                    use_multipart=not whole,
                    chunk_size=max(_PART, -(-size // _PARTS)),
                    max_concurrency=_IN_FLIGHT,
                )
            )
        # The server has checked the SHA-256 of each request, but not of the assembled object: check its size.
        return size if whole and self._bucket.startswith("s3") else self.size(key) or 0

    def take(self, key: str, source: Store, source_key: str) -> bool:
        import obstore

        if not isinstance(source, ObjectStore) or (source._bucket, source._config) != (self._bucket, self._config):
            return False
        size = source.size(source_key)
        if size is None:
            raise missing(source_key, source.location)
        if size > _COPYABLE:
            return False
        with self.errors(key):
            obstore.copy(self.client, source._path(source_key), self._path(key))
        return self.size(key) == size

    def path(self, key: str) -> None:
        checked_key(key)

    def open(self, key: str) -> BinaryIO:
        size, chunks = self.stream(key)
        return BufferedReader(_Reader(self, key, size, chunks), _READ)

    def read(self, key: str, offset: int, length: int) -> bytes:
        import obstore

        with self.errors(key):
            data = bytes(obstore.get_range(self.client, self._path(key), start=offset, length=length))
        if len(data) != length:
            raise cut_short(key, self.location)
        return data

    def size(self, key: str) -> int | None:
        import obstore

        try:
            with self.errors(key):
                return int(obstore.head(self.client, self._path(key))["size"])
        except CorruptionError:
            return None

    def uri(self, key: str) -> str:
        return f"{self._bucket}/{self._path(key)}"

    def upload_url(self, key: str, size: int, lasts: timedelta) -> str | None:
        import obstore

        credentials = self._credentials()
        if credentials is None:  # of another kind: a signature of the size takes the secret itself
            return None
        with self.errors(key):
            address = str(obstore.sign(cast(Any, self.client), "PUT", self._path(key), lasts)).partition("?")[0]
        return signed_url("PUT", address, {"content-length": str(size)}, credentials, datetime.now(UTC), lasts)

    def _credentials(self) -> Credentials | None:
        """The keys from the configuration or the environment, or None."""
        if not self._bucket.startswith("s3"):
            return None
        found: dict[str, str | None] = {}
        for name in ("access_key_id", "secret_access_key", "region", "session_token"):
            given = self._config.get(name) or self._config.get(f"aws_{name}")
            found[name] = given or os.environ.get(f"AWS_{name.upper()}")
        key_id, secret = found["access_key_id"], found["secret_access_key"]
        if key_id is None or secret is None:
            return None
        return Credentials(key_id, secret, found["region"] or "us-east-1", found["session_token"])

    def delete(self, key: str) -> None:
        import obstore

        try:
            with self.errors(key):
                _again(lambda: obstore.delete(self.client, self._path(key)))
        except CorruptionError:
            return

    def list(self) -> Iterator[StoredObject]:
        import obstore

        with self.errors(None):
            for page in obstore.list(self.client, self._path(None), chunk_size=1000):
                for found in page:
                    if KEY.fullmatch(name := found["path"].rpartition("/")[2]):
                        yield StoredObject(name, found["size"], found["last_modified"].timestamp())

    def named(self, folder: str) -> NamedObjects:
        return NamedObjects(self, folder)

    def path_beside(self, name: str) -> str:
        """The path of a named object in the bucket."""
        return f"{self._prefix}/{name}" if self._prefix else name

    def identity(self) -> str | None:
        import obstore

        _ = self.client  # for the process that it belongs to
        quick = self._open_client(
            retries=2, retry_seconds=5
        )  # it is asked at every opening: a store that is down is accepted
        try:
            with self.errors(None):
                return bytes(obstore.get(quick, self._identity_path).bytes()).decode().strip() or None
        except CorruptionError:
            return None

    def claim(self, identity: str) -> str:
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError

        with self.errors(None):
            try:
                obstore.put(self.client, self._identity_path, identity.encode(), mode="create", use_multipart=False)
            except AlreadyExistsError:
                pass
            except NotSupportedError:  # a store without conditional writes: the last one of several stays
                obstore.put(self.client, self._identity_path, identity.encode(), use_multipart=False)
        return self.identity() or identity

    @property
    def _identity_path(self) -> str:
        return self.path_beside(IDENTITY)

    def tidy(self, older_than: float) -> int:
        return tidy(self.scratch, older_than)

    def stream(self, key: str, start: int = 0) -> tuple[int, Iterator[bytes]]:
        """Start a request.

        Returns the size of the object, and its bytes from `start` on in blocks of a few megabytes.
        """
        import obstore

        with self.errors(key):
            options = {"range": {"offset": start}} if start else None
            found = obstore.get(self.client, self._path(key), options=cast(Any, options))
            return int(found.meta["size"]), self._chunks(key, found)

    def _chunks(self, key: str, found: "GetResult") -> Iterator[bytes]:
        with self.errors(key):
            yield from found.stream(min_chunk_size=_READ)

    def _path(self, key: str | None) -> str:
        folder = f"{self._prefix}/objects" if self._prefix else "objects"
        return folder if key is None else f"{folder}/{checked_key(key)[:2]}/{key}"

    @contextmanager
    def errors(self, key: str | None) -> Iterator[None]:
        """A context that converts errors of obstore."""
        from obstore import exceptions

        try:
            yield
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            raise missing(key or "", self.location) from self._cause(error)
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise StorageError(
                f"{self.location} refused: {self._reason(error)}. Check the credentials and their permissions on the bucket.",
                key=key,
            ) from self._cause(error)
        except exceptions.BaseError as error:
            raise RetryLater(
                f"{self.location} failed after retries: {self._reason(error)}. Nothing was committed; try again.",
                key=key,
            ) from self._cause(error)

    def __reduce__(self) -> tuple[Any, ...]:
        location, config = self._arguments
        return _reopen, (location, config)


def _reopen(location: str, config: dict[str, str]) -> ObjectStore:
    return ObjectStore(location, config=config)


def _again(request: Callable[[], object]) -> None:
    """Retry a request whose connection broke: obstore does not retry a POST (deletion, start of a multipart upload),
    and these are harmless to repeat."""
    from obstore.exceptions import GenericError

    for attempt in range(_ATTEMPTS):
        try:
            request()
        except GenericError:
            if attempt == _ATTEMPTS - 1:
                raise
            _log.info("A request to the object store failed; attempt %d of %d", attempt + 2, _ATTEMPTS)
            sleep(random() * 0.3 * 2**attempt)
        else:
            return


class _Reader(RawIOBase):
    """An object as a file: sequential reads use one request, a seek starts another."""

    def __init__(self, store: ObjectStore, key: str, size: int, chunks: Iterator[bytes]) -> None:
        self._store, self._key, self._size = store, key, size
        self._at = 0
        self._chunks: Iterator[bytes] | None = chunks
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        target = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if target != self._at:
            self._at, self._chunks, self._piece = max(0, target), None, memoryview(b"")
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._size:
            return 0
        if not self._piece:
            if self._chunks is None:
                _, self._chunks = self._store.stream(self._key, self._at)
            piece = next(self._chunks, None)
            if piece is None:
                raise RetryLater(
                    f"{self._store.location} ended the object {self._key} after {self._at} of {self._size} bytes. Try again.",
                    key=self._key,
                )
            self._piece = memoryview(piece).cast("B")
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._piece))
        view[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        self._at += count
        return count


def _bytes(text: str) -> int:
    """Parse a number of bytes, such as 500MB or 10GiB."""
    units = {
        "KB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "TB": 10**12,
        "KIB": 2**10,
        "MIB": 2**20,
        "GIB": 2**30,
        "TIB": 2**40,
    }
    number, unit = text.strip().upper(), 1
    for suffix, factor in units.items():
        if number.endswith(suffix):
            number, unit = number.removesuffix(suffix), factor
            break
    try:
        return int(float(number) * unit)
    except ValueError:
        raise InputError(f"Invalid number of bytes {text!r}: expected one like 500MB or 10GiB.") from None
