"""Connections and transactions, on SQLite and on PostgreSQL.

SQLite: WAL, `synchronous=FULL`, foreign keys on, one engine for reads (deferred) and one for writes
(`BEGIN IMMEDIATE`), and a file lock around writes that makes writers queue instead of poll (8 processes: worst wait
0.3 s instead of 6 s). PostgreSQL: psycopg 3, a schema of our own, READ COMMITTED.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property, partial
from pathlib import Path
from random import random
from time import monotonic, sleep
from typing import Any, TypeVar
from urllib.parse import unquote
from weakref import WeakSet, finalize

from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    event,
    exc,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import QueuePool

from dataset_registry import modes
from dataset_registry.catalog.driver_errors import Interrupted, is_temporary, translated, unusable
from dataset_registry.catalog.postgresql import (
    PLANNING,
    TIMEOUTS,
    check_idle,
    escaped_schema,
    json_with_nul,
    json_without_nul,
    read_any_moment,
    waiting_cursor,
)
from dataset_registry.catalog.prepared import error_of, on_driver, pipelined, send_changes
from dataset_registry.catalog.rows import Transaction
from dataset_registry.catalog.sqlite import (
    BUSY_SECONDS,
    SQLITE_OPTIONS,
    configure_sqlite,
    connect_read_only,
    has_log,
    is_read_only,
    sqlite_url,
    sync_log,
)
from dataset_registry.catalog.tables import metadata
from dataset_registry.errors import (
    CatalogOutdated,
    InputError,
    RegistryError,
    RegistryFrozen,
    RetryLater,
    StorageError,
)
from dataset_registry.model.addresses import HIDDEN, has_secrets, hide, is_harmless, redacted
from dataset_registry.model.extras import missing, require

try:
    import fcntl
except ImportError:  # Windows: writers wait in SQLite's own busy handler
    fcntl = None  # type: ignore[assignment]  # where there is no such module


HEAD = "0020"
"""The newest revision in migrations/versions/, kept here so that opening a catalog does not import Alembic (0.6 s)."""

REVISION_TABLE = "dataset_registry_revision"
"""Alembic's version table; a name of its own keeps it apart from Dagster's `alembic_version` in any schema."""

SCHEMA = "dataset_registry"
"""The PostgreSQL schema of the catalog, apart from Dagster's tables; `?schema=` in the URL names another."""

SPARE_BYTES = 1 << 18
"""Bytes reserved beside a SQLite catalog, to be freed when the disk is full."""


_log = logging.getLogger(__name__)

_ATTEMPTS = 8
_Result = TypeVar("_Result")


FROZEN_SECONDS = 2.0
"""Maximum seconds that a process may still write after another one has frozen the registry."""


class Catalog:
    """A catalog by its URL: `sqlite:///…/catalog.sqlite` or `postgresql+psycopg://…`. Connects on first use."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except (exc.ArgumentError, ValueError) as error:
            shown = (
                redacted(url) if "://" in url else HIDDEN
            )  # such as the words of a connection for libpq, password and all
            raise InputError(
                f"The catalog {shown!r} is not a URL. Pass one like sqlite:///registry/catalog.sqlite or "
                "postgresql+psycopg://user:password@host/database.",
                url=shown,
            ) from (None if has_secrets(url) else error)
        if parsed.drivername == "sqlite" and parsed.database:  # SQLAlchemy 2.0 takes its escapes as they are
            parsed = parsed.set(database=unquote(url.partition("///")[2].partition("?")[0]))
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
            raise InputError(
                f"A catalog lives in SQLite or PostgreSQL, not in {parsed.drivername!r}: give a URL like "
                "sqlite:///registry/catalog.sqlite or postgresql+psycopg://user:password@host/database.",
                url=redacted(url),
            )
        if parsed.drivername == "sqlite" and not parsed.database:
            raise InputError("A catalog in SQLite needs a file: sqlite:///folder/catalog.sqlite.", url=redacted(url))
        if parsed.drivername == "sqlite" and (unknown := parsed.query.keys() - SQLITE_OPTIONS):
            raise InputError(
                f"A catalog in SQLite has no option {sorted(unknown)[0]!r}. Remove it from the URL.", url=redacted(url)
            )
        if parsed.drivername == "postgresql+psycopg":
            require("psycopg", "postgres", "A catalog in PostgreSQL")
        self._given = url
        self.schema = str(parsed.query.get("schema", SCHEMA))
        hidden = [name for name in parsed.query if not is_harmless(name)]
        # They reach the driver beside the URL: what SQLAlchemy shows of an engine hides a password, and no parameter.
        self._parameters = {name: _last(parsed.query[name]) for name in hidden}
        self.url: URL = parsed.difference_update_query(["schema", *hidden])
        self.is_sqlite = parsed.drivername == "sqlite"
        self._lock = threading.Lock()
        self._lock_file: finalize[..., Catalog] | None = None
        self._lock_descriptor = -1
        self._sqlite_connections: set[Any] = set()
        self._is_frozen, self._looked_at = False, 0.0
        self._synced_log = 0  # the inode of a write-ahead log whose folder was synced
        self.user_ids: dict[str, int] = {}
        """Ids of users that are committed: they never change."""
        _open_catalogs.add(self)

    @property
    def address(self) -> str:
        """The URL without its secrets."""
        if self.is_sqlite:
            return sqlite_url(Path(self.url.database or ""))
        url = self.url if self.schema == SCHEMA else self.url.update_query_dict({"schema": self.schema})
        return redacted(url.update_query_dict(self._parameters).render_as_string(hide_password=False))

    def hide(self, text: str) -> str:
        """A text of the driver without the secrets of the URL."""
        return hide(text, self._given, self.url.render_as_string(hide_password=False))

    def cause(self, error: BaseException) -> BaseException | None:
        """The driver error as a cause, or None if its text contains a secret that a traceback would show."""
        return error if self.hide(str(error)) == str(error) else None

    @cached_property
    def path(self) -> Path:
        """The file of a SQLite catalog."""
        return Path(self.url.database or "").absolute()

    def close(self) -> None:
        """Close all connections. The next use reconnects."""
        for name in ("reader", "writer"):
            if (engine := self.__dict__.pop(name, None)) is not None:
                engine.dispose()
        with self._lock:  # not while another thread writes
            self._close_lock_file()

    def forget_connections(self) -> None:
        """Drop connections and locks in a forked child, where they belong to the parent."""
        for name in ("reader", "writer"):
            if (engine := self.__dict__.pop(name, None)) is not None:
                engine.dispose(close=False)
        for connection in list(self._sqlite_connections):
            connection.close()  # SQLite keeps its locks per process: one that stays open would answer for the parent's
        self._sqlite_connections.clear()
        self._close_lock_file()
        self._lock = threading.Lock()

    def _close_lock_file(self) -> None:
        if self._lock_file is not None:
            self._lock_file()
            self._lock_file = None

    @cached_property
    def reader(self) -> Engine:
        if self.is_sqlite:
            return self._engine("BEGIN")
        # READ COMMITTED has no snapshot that outlives a statement: reads lose nothing without BEGIN and ROLLBACK.
        return self.writer.execution_options(isolation_level="AUTOCOMMIT")

    @cached_property
    def writer(self) -> Engine:
        return self._engine("BEGIN IMMEDIATE")

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction for reading."""
        with translated(self), self.reader.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """A read transaction with a snapshot of its first statement. It does not block writers."""
        # SQLite's readers have one snapshot anyway; READ COMMITTED has one a statement.
        engine = self.reader if self.is_sqlite else self.writer.execution_options(isolation_level="REPEATABLE READ")
        with translated(self), engine.connect() as connection:
            yield connection

    def write(
        self, work: Callable[[Transaction], _Result], *, durable: bool = True, while_frozen: bool = False
    ) -> _Result:
        """Run `work` in one transaction, and retry it after a conflict.

        A transaction that is not `durable` is not synced: a crash of the machine may undo it, a crash of the process
        cannot.

        All work checks before it writes, so an integrity error means that another transaction interfered: the second
        run sees its changes and reports the conflict. Deadlocks, serialization failures and connections that break
        before the commit are retried, too. Raises `RetryLater` if that persists, or if a connection breaks during the
        commit, whose outcome is then unknown. Raises `RegistryFrozen` on a frozen registry, unless `while_frozen`.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with translated(self):
                    with self.queued():
                        syncs_later = self.is_sqlite and durable and has_log(self.path)
                        durable_now = durable and not syncs_later
                        result = self._attempt(work, durable=durable_now, while_frozen=while_frozen)
                    if syncs_later:
                        self._sync()
                    return result
            except (exc.IntegrityError, Interrupted) as error:
                if attempt == _ATTEMPTS - 1:
                    raise RetryLater(
                        str(error)
                        if isinstance(error, Interrupted) and str(error)
                        else f"Conflicts with other writers in {_ATTEMPTS} attempts. Try again.",
                    ) from error
                _log.info("A transaction conflicted with another one; attempt %d of %d", attempt + 2, _ATTEMPTS)
                sleep(random() * 0.02 * 2**attempt)
        raise AssertionError("unreachable")

    def _attempt(self, work: Callable[[Transaction], _Result], *, durable: bool, while_frozen: bool) -> _Result:
        try:
            connection = self.writer.connect()
        except exc.OperationalError as error:
            if self.is_sqlite or not is_temporary(error):
                raise
            raise Interrupted(unusable(self, error)) from self.cause(error)
        with connection, self._sending(connection, durable=durable):
            try:
                connection.begin()
                if not durable and not self.is_sqlite:
                    on_driver(connection, "SET LOCAL synchronous_commit = off", ())
                if while_frozen:
                    self._looked_at = 0.0  # what it is about to change
                else:
                    self._refuse_frozen(connection)
                result = work(connection)
                send_changes(connection)
            except exc.DBAPIError as error:
                if error.connection_invalidated:
                    raise Interrupted(unusable(self, error)) from self.cause(error)
                raise
            connection.commit()
        return result

    def _sending(self, connection: Connection, *, durable: bool) -> AbstractContextManager[None]:
        """How a transaction for writing is sent to the database."""
        if not self.is_sqlite:
            return pipelined(connection)
        return nullcontext() if durable else _hasty(connection)

    def _sync(self) -> None:
        """Make durable what was committed to SQLite.

        It is done when the lock is free: other writers need not wait for the disk, and one sync serves all that have committed
        before it. Raises `StorageError`.
        """
        try:
            self._synced_log = sync_log(self.path, self._synced_log)
        except OSError as error:
            raise StorageError(
                f"The catalog {self.address} could not be synced: {error.strerror}. The last commit is there, and may be lost if "
                "the machine fails. Fix the disk, then check it with: dataset-registry log"
            ) from error

    def _refuse_frozen(self, tx: Transaction) -> None:
        """Raise `RegistryFrozen` if the registry is frozen. Checked only from time to time, to keep commits fast."""
        if not self._is_frozen and monotonic() - self._looked_at < FROZEN_SECONDS:
            return
        found = tx.exec_driver_sql("SELECT value FROM registry_settings WHERE name = 'frozen'").scalar()
        self._looked_at, self._is_frozen = monotonic(), found is not None
        if found is not None:
            why = json.loads(found)
            raise RegistryFrozen(
                f"The registry is read-only since {why['at'][:16]}: {why['reason']} ({why['by']}). Reads continue. "
                "An administrator ends it with: dataset-registry unfreeze",
                reason=why["reason"],
                by=why["by"],
            )

    def write_to_free(self, work: Callable[[Transaction], _Result]) -> _Result:
        """Like `write`, for deletions: on a full disk it frees the reserved space first."""
        try:
            return self.write(work)
        except StorageError:
            if not self.give_spare():
                raise
            return self.write(work)

    def analyze(self) -> None:
        """Measure the tables after many rows were inserted, so that queries are planned for them. PostgreSQL does so by itself
        some minutes later, so a failure is left alone; SQLite's plans do not depend on it."""
        if not self.is_sqlite:
            with suppress(RegistryError), translated(self), self.reader.connect() as connection:
                connection.exec_driver_sql(f"ANALYZE {', '.join(metadata.tables)}")

    def revision(self) -> str | None:
        """The revision the catalog has, None for a database without one."""
        if self.is_sqlite and not self.path.exists():
            return None
        with self.read() as tx:
            if not self.has_table(tx, REVISION_TABLE):
                return None
            return tx.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).scalar()

    def keep_spare(self) -> None:
        """Reserve space beside a SQLite catalog: on a full disk, opening it and deleting rows need some."""
        if self.is_sqlite and not (spare := Path(f"{self.path}.spare")).exists():
            with suppress(OSError), modes.new_file(spare, modes.bits_beside(self.path)) as file:
                file.write(bytes(SPARE_BYTES))

    def give_spare(self) -> bool:
        """Free the reserved space. Returns whether there was any."""
        if not self.is_sqlite:
            return False
        try:
            os.unlink(f"{self.path}.spare")
        except OSError:
            return False
        return True

    def outdated(self, found: str | None) -> CatalogOutdated:
        """The error for a catalog with another revision than this package, with the next step."""
        if found is not None and found > HEAD:
            return CatalogOutdated(
                f"The catalog {self.address} has revision {found}, this package knows {HEAD}: it was upgraded by a "
                "newer version of dataset-registry. Install that version.",
                found=found,
                wanted=HEAD,
            )
        return CatalogOutdated(
            f"The catalog {self.address} has {f'revision {found}' if found else 'no tables yet'}, this package "
            f"needs {HEAD}. Run: dataset-registry db upgrade --catalog {self._to_paste()}",
            found=found,
            wanted=HEAD,
        )

    def _to_paste(self) -> str:
        """The URL as a command argument, or a placeholder if it contains secrets."""
        return "URL (with its password)" if HIDDEN in self.address else f"'{self.address}'"

    def has_table(self, tx: Transaction, name: str) -> bool:
        """Whether the catalog's schema has a table of this name."""
        if self.is_sqlite:
            query = text("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name")
            return tx.execute(query, {"name": name}).scalar() is not None
        query = text("SELECT to_regclass(quote_ident(:schema) || '.' || quote_ident(:name)) IS NOT NULL")
        return bool(tx.execute(query, {"schema": self.schema, "name": name}).scalar())

    @contextmanager
    def queued(self) -> Iterator[None]:
        """Wait for the lock to write to a SQLite catalog."""
        if not self.is_sqlite or fcntl is None:
            yield
            return
        with self._lock:
            if self._lock_file is None:  # kept open: opening it would be a good part of a small commit
                try:
                    bits = modes.bits_beside(self.path)
                    modes.make_folder(self.path.parent, bits)
                    if not self.path.exists():  # SQLite gives its other files the mode of this one
                        os.close(modes.open_or_create(self.path, bits))
                    self._lock_descriptor = modes.open_or_create(Path(f"{self.path}.lock"), bits)
                except OSError as error:
                    raise StorageError(
                        f"The catalog {self.address} cannot be written to: {error.strerror}. Nothing was committed; free "
                        "space or fix the permissions, then try again."
                    ) from error
                self._lock_file = finalize(self, os.close, self._lock_descriptor)
            fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_descriptor, fcntl.LOCK_UN)

    def _engine(self, begin: str) -> Engine:
        if not self.is_sqlite:
            ours = f"-csearch_path={escaped_schema(self.schema)} -ctimezone=UTC {PLANNING} {TIMEOUTS}"
            options = f"{self._parameters.get('options', '')} {ours}".strip()  # the last of two settings holds
            try:
                engine = create_engine(
                    self.url,
                    connect_args={
                        "application_name": "dataset_registry",
                        **self._parameters,
                        "options": options,
                        "cursor_factory": waiting_cursor(),
                    },
                    json_serializer=json_without_nul,
                    json_deserializer=json_with_nul,
                    pool_size=8,
                    max_overflow=24,
                )
            except ImportError as error:  # it is there, and lacks its own libraries
                raise missing("psycopg", "postgres", "A catalog in PostgreSQL") from error
            event.listen(engine, "connect", read_any_moment)
            event.listen(engine, "checkin", lambda connection, record: record.info.update(used=monotonic()))
            event.listen(engine, "checkout", check_idle)
            event.listen(engine, "before_cursor_execute", lambda connection, *_: send_changes(connection))
        elif is_read_only(self.path):
            engine = create_engine(self.url, creator=partial(connect_read_only, self.path), poolclass=QueuePool)
        else:
            engine = create_engine(self.url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})
            event.listen(engine, "connect", configure_sqlite)
        if self.is_sqlite:
            event.listen(engine, "connect", lambda connection, record: self._sqlite_connections.add(connection))
            event.listen(engine, "close", lambda connection, record: self._sqlite_connections.discard(connection))
            event.listen(engine, "begin", lambda connection: _begin(connection, begin))
        return engine

    def __reduce__(self) -> tuple[type["Catalog"], tuple[str]]:
        return Catalog, (self._given,)


_open_catalogs: "WeakSet[Catalog]" = WeakSet()


def _begin(connection: Connection, statement: str) -> None:
    """Begin a transaction of SQLite."""
    raw: Any = connection.connection.driver_connection
    try:
        raw.execute(statement)
    except connection.dialect.loaded_dbapi.Error as error:
        raise error_of(connection, statement, error) from error


@contextmanager
def _hasty(connection: Connection) -> Iterator[None]:
    """Commit in SQLite without a sync: a setting of the connection, outside of a transaction."""
    raw: Any = connection.connection.driver_connection
    raw.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        connection.rollback()
        raw.execute("PRAGMA synchronous=FULL")


def _last(value: str | tuple[str, ...]) -> str:
    """The value of a parameter, the last of those that are given."""
    return value if isinstance(value, str) else value[-1]


def _after_fork() -> None:
    for catalog in _open_catalogs:
        catalog.forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
