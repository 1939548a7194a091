"""Connections and transactions, on SQLite and on PostgreSQL.

SQLite: WAL, `synchronous=FULL`, foreign keys on, one engine for reads (deferred) and one for writes
(`BEGIN IMMEDIATE`), and a file lock around writes that makes writers queue instead of poll (8 processes: worst wait
0.3 s instead of 6 s). PostgreSQL: psycopg 3, a schema of our own, READ COMMITTED.
"""

import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from functools import cache, cached_property, partial
from pathlib import Path
from random import random
from time import monotonic, sleep
from typing import Any, TypeVar
from urllib.parse import quote, unquote
from weakref import WeakSet, finalize

from sqlalchemy import (
    ARRAY,
    Connection,
    Engine,
    Integer,
    Select,
    Table,
    cast,
    create_engine,
    event,
    exc,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import QueuePool

from dataset_registry import modes
from dataset_registry.catalog.types import EARLIEST, LATEST
from dataset_registry.errors import (
    CatalogOutdated,
    CatalogRefused,
    CorruptionError,
    InputError,
    RegistryFrozen,
    RetryLater,
    StorageError,
)
from dataset_registry.model.addresses import HIDDEN, has_secrets, hide, is_harmless, redacted
from dataset_registry.model.extras import missing, require

try:
    import fcntl
except ImportError:  # Windows: writers wait in SQLite's own busy handler
    fcntl = None  # type: ignore[assignment]

Transaction = Connection
"""An open transaction: what every function of this package takes first. Opaque above this floor."""

_BUSY_SECONDS = 30
"""How long SQLite waits for another writer, where it waits."""

HEAD = "0016"
"""The newest revision in migrations/versions/, kept here so that opening a catalog does not import Alembic (0.6 s)."""

REVISION_TABLE = "dataset_registry_revision"
"""Alembic's version table; a name of its own keeps it apart from Dagster's `alembic_version` in any schema."""

SCHEMA = "dataset_registry"
"""The PostgreSQL schema of the catalog, apart from Dagster's tables; `?schema=` in the URL names another."""

_SPARE = 1 << 18
"""Bytes that are kept beside a SQLite catalog, to be given up when the disk is full."""

_SQLITE_OPTIONS = frozenset(
    (
        "schema",
        "uri",
        "mode",
        "cache",
        "immutable",
        "nolock",
        "vfs",
        "timeout",
        "check_same_thread",
        "cached_statements",
    )
)
"""Parameters that the URL of a SQLite catalog may have."""

_ATTEMPTS = 8
_IDLE = 3.0
"""Seconds after which a pooled connection is looked at before it is used."""
_Result = TypeVar("_Result")
_Value = TypeVar("_Value")


def sqlite_url(path: Path) -> str:
    """The URL of a catalog in a file, whatever characters its name has."""
    return "sqlite:///" + quote(str(path), safe="/ ")


_PLANNING = "-crandom_page_cost=1.1"
"""What statements look up is in memory, as a rule, or on a disk without a head. With PostgreSQL's default of 4 a plan that was
made while the catalog was small, and is kept as long as the connection, reads whole tables later on."""


LOCK_SECONDS = 30
"""How long a statement waits for a lock on PostgreSQL, as `_BUSY_SECONDS` on SQLite."""
IDLE_SECONDS = 120
"""How long a transaction may do nothing on PostgreSQL before it is ended: a client that hangs holds its locks no longer."""
FROZEN_SECONDS = 2.0
"""How long a process may still write after the registry was frozen by another one."""
_PATIENCE = f"-clock_timeout={LOCK_SECONDS}s -cidle_in_transaction_session_timeout={IDLE_SECONDS}s"


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
                f"The catalog {shown!r} is not a URL. Give one like sqlite:///registry/catalog.sqlite or "
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
        if parsed.drivername == "sqlite" and (unknown := parsed.query.keys() - _SQLITE_OPTIONS):
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
        """An error of the driver as the cause of ours: none when its text has a secret, which a traceback would show."""
        return error if self.hide(str(error)) == str(error) else None

    @property
    def path(self) -> Path:
        """The file of a SQLite catalog."""
        return Path(self.url.database or "").absolute()

    def close(self) -> None:
        """Give back every connection. The catalog connects again when it is used again."""
        for name in ("reader", "writer"):
            if (engine := self.__dict__.pop(name, None)) is not None:
                engine.dispose()
        with self._lock:  # not under the feet of a thread that writes
            self._close_lock_file()

    def forget_connections(self) -> None:
        """After a fork, in the child: what is open belongs to the parent, the locks too."""
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
        with _translated(self), self.reader.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """A transaction for reading in which everything stays as it was at its first statement. It keeps no writer out."""
        # SQLite's readers have one snapshot anyway; READ COMMITTED has one a statement.
        engine = self.reader if self.is_sqlite else self.writer.execution_options(isolation_level="REPEATABLE READ")
        with _translated(self), engine.connect() as connection:
            yield connection

    def write(
        self, work: Callable[[Transaction], _Result], *, durable: bool = True, while_frozen: bool = False
    ) -> _Result:
        """Run `work` in one transaction, and again after a conflict. One that is not `durable` need not be on the
        disk when it is done: the machine's end may undo it, that of a process cannot.

        Everything that writes checks before it writes, so an integrity error means that another transaction changed
        the answer in the meantime: the second run sees the change and says what it means. Deadlocks, serialization
        failures and connections that break before the commit likewise. Raises `RetryLater` when that persists, and when
        a connection breaks during the commit: whether it went through is unknown. Raises `RegistryFrozen` for work that
        is not done `while_frozen`.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with _translated(self), self.queued():
                    return self._attempt(work, durable=durable, while_frozen=while_frozen)
            except (exc.IntegrityError, _Interrupted) as error:
                if attempt == _ATTEMPTS - 1:
                    raise RetryLater(
                        str(error)
                        if isinstance(error, _Interrupted) and str(error)
                        else f"The catalog was changed by others {_ATTEMPTS} times while this was tried. Try again.",
                    ) from error
                sleep(random() * 0.02 * 2**attempt)
        raise AssertionError("unreachable")

    def _attempt(self, work: Callable[[Transaction], _Result], *, durable: bool, while_frozen: bool) -> _Result:
        try:
            connection = self.writer.connect()
        except exc.OperationalError as error:
            if self.is_sqlite or not _passing(error):
                raise
            raise _Interrupted(_unusable(self, error)) from self.cause(error)
        with connection, _hasty(connection) if self.is_sqlite and not durable else nullcontext():
            try:
                connection.begin()
                if not durable and not self.is_sqlite:
                    connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                if while_frozen:
                    self._looked_at = 0.0  # what it is about to change
                else:
                    self._refuse_frozen(connection)
                result = work(connection)
            except exc.DBAPIError as error:
                if error.connection_invalidated:
                    raise _Interrupted(_unusable(self, error)) from self.cause(error)
                raise
            connection.commit()
        return result

    def _refuse_frozen(self, tx: Transaction) -> None:
        """Raise `RegistryFrozen` while the registry is. Looked at now and then: each commit would pay for it."""
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
        """As `write`, of what deletes: on a full disk that takes room before it makes any, and gets the spare room."""
        try:
            return self.write(work)
        except StorageError:
            if not self.give_spare():
                raise
            return self.write(work)

    def revision(self) -> str | None:
        """The revision the catalog has, None for a database without one."""
        if self.is_sqlite and not self.path.exists():
            return None
        with self.read() as tx:
            if not self.has_table(tx, REVISION_TABLE):
                return None
            return tx.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).scalar()

    def ready(self) -> None:
        """Make sure that the catalog has the newest revision: a SQLite catalog is created or upgraded in place.

        Raises `CatalogOutdated` for a PostgreSQL catalog, which is upgraded by an explicit command.
        """
        try:
            found = self.revision()
        except StorageError:
            if not self.give_spare():
                raise
            found = self.revision()
        if found == HEAD:
            return
        if not self.is_sqlite or (found is not None and found > HEAD):
            raise self.outdated(found)
        from dataset_registry.catalog.migrate import upgrade

        upgrade(self)
        self.keep_spare()

    def keep_spare(self) -> None:
        """Keep some room beside a SQLite catalog for a full disk: opening it and deleting rows both take a little."""
        if self.is_sqlite and not (spare := Path(f"{self.path}.spare")).exists():
            with suppress(OSError), modes.new_file(spare, modes.bits_beside(self.path)) as file:
                file.write(bytes(_SPARE))

    def give_spare(self) -> bool:
        """Give that room back to the disk; whether there was any."""
        if not self.is_sqlite:
            return False
        try:
            os.unlink(f"{self.path}.spare")
        except OSError:
            return False
        return True

    def outdated(self, found: str | None) -> CatalogOutdated:
        """The error for a catalog that has another revision than this package wants; it says what to do."""
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
        """The URL as an argument of a command, or what to put there where it has secrets."""
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
        """Wait for the turn to write to a SQLite catalog."""
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
            ours = f"-csearch_path={_option(self.schema)} -ctimezone=UTC {_PLANNING} {_PATIENCE}"
            options = f"{self._parameters.get('options', '')} {ours}".strip()  # the last of two settings holds
            try:
                engine = create_engine(
                    self.url,
                    connect_args={
                        "application_name": "dataset_registry",
                        **self._parameters,
                        "options": options,
                    },
                    json_serializer=_json_without_nul,
                    json_deserializer=_json_with_nul,
                    pool_size=8,
                    max_overflow=24,
                )
            except ImportError as error:  # it is there, and lacks its own libraries
                raise missing("psycopg", "postgres", "A catalog in PostgreSQL") from error
            event.listen(engine, "connect", _read_any_moment)
            event.listen(engine, "checkin", lambda connection, record: record.info.update(used=monotonic()))
            event.listen(engine, "checkout", _look_at_idle)
        elif _is_read_only(self.path):
            engine = create_engine(self.url, creator=partial(_connect_read_only, self.path), poolclass=QueuePool)
        else:
            engine = create_engine(self.url, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False})
            event.listen(engine, "connect", _configure_sqlite)
        if self.is_sqlite:
            event.listen(engine, "connect", lambda connection, record: self._sqlite_connections.add(connection))
            event.listen(engine, "close", lambda connection, record: self._sqlite_connections.discard(connection))
            event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def __reduce__(self) -> tuple[type["Catalog"], tuple[str]]:
        return Catalog, (self._given,)


_open_catalogs: "WeakSet[Catalog]" = WeakSet()


@contextmanager
def _hasty(connection: Connection) -> Iterator[None]:
    """Let SQLite commit without waiting for the disk: a setting of the connection, and not inside of a transaction."""
    raw: Any = connection.connection.driver_connection
    raw.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        connection.rollback()
        raw.execute("PRAGMA synchronous=FULL")


def id_rows(tx: Transaction, ids: Collection[int]) -> Select[tuple[int]]:
    """Ids as rows of one column `id`, in one parameter however many they are."""
    if tx.dialect.name == "sqlite":
        values = func.json_each(json.dumps(sorted(ids))).table_valued("value")
        return select(cast(values.c.value, Integer).label("id"))
    return select(func.unnest(literal(sorted(ids), ARRAY(Integer))).label("id"))


def batches(values: Sequence[_Value], size: int = 500) -> Iterator[Sequence[_Value]]:
    """Values, as many at a time as one statement takes."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


_insert = cache(insert)


def insert_row(tx: Transaction, table: Table, row: Mapping[str, object]) -> int:
    """Insert one row; its new id."""
    key = tx.execute(_insert(table), row).inserted_primary_key
    assert key is not None, "every table that is inserted into this way has an id"
    return int(key[0])


def insert_rows(tx: Transaction, table: Table, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
    """Insert many rows of plain values (texts and integers), straight through the driver.

    SQLite's executemany and PostgreSQL's unnest: what lies between them and us is most of a large commit.
    """
    if not rows:
        return
    into = f"INSERT INTO {table.name} ({', '.join(columns)})"
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql(f"{into} VALUES ({', '.join('?' * len(columns))})", list(rows))
        return
    kinds = (table.c[name].type for name in columns)
    arrays = ", ".join(f"%s::{'bigint' if isinstance(kind, Integer) else 'text'}[]" for kind in kinds)
    tx.exec_driver_sql(f"{into} SELECT * FROM unnest({arrays})", tuple(map(list, zip(*rows, strict=True))))


_NUL_IN_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_NUL_SIGN = "\ufdd0"
"""What PostgreSQL stores for the character NUL, which JSONB does not take: columns may be called anything. No text has this
character, which Unicode keeps for uses such as this one."""


def _json_without_nul(value: object) -> str:
    text = json.dumps(value)
    return _NUL_IN_JSON.sub(r"\1\\ufdd0", text) if "\\u0000" in text else text


def _json_with_nul(data: str | bytes) -> Any:
    text = data if isinstance(data, str) else data.decode()
    return json.loads(text.replace(_NUL_SIGN, "\\u0000"))


def _option(schema: str) -> str:
    """A schema's name as an identifier, escaped for libpq's options."""
    quoted = '"' + schema.replace('"', '""') + '"'
    return quoted.replace("\\", "\\\\").replace(" ", "\\ ")


def _last(value: str | tuple[str, ...]) -> str:
    """The value of a parameter, the last of those that are given."""
    return value if isinstance(value, str) else value[-1]


class _Interrupted(Exception):
    """PostgreSQL chose this transaction to give way (40P01, 40001), or went away before its commit."""


def _passing(error: exc.DBAPIError) -> bool:
    """Whether a server that refuses a connection may take one soon: it is starting, stopping, full, or not there."""
    state = getattr(error.orig, "sqlstate", None) or ""
    return not state.startswith(("28", "3D", "42")) and "password authentication failed" not in str(error.orig)


def _unusable(catalog: Catalog, error: exc.DBAPIError) -> str:
    return f"The catalog {catalog.address} cannot be used now: {catalog.hide(str(error.orig).strip())}. Try again."


def _read_any_moment(connection: Any, record: object) -> None:
    """Let psycopg read moments that Python has no value for, as `types.EARLIEST` and `LATEST`."""
    from psycopg.errors import DataError
    from psycopg.types.datetime import TimestampLoader

    class Loader(TimestampLoader):
        def load(self, data: Any) -> datetime:
            try:
                return super().load(data)
            except DataError:
                text = bytes(data)
                return EARLIEST if text.startswith(b"-") or text.endswith(b"BC") else LATEST

    connection.adapters.register_loader("timestamp", Loader)


def _look_at_idle(connection: Any, record: Any, proxy: object) -> None:
    """Whether a connection that lay idle is alive still: a server that was restarted has closed it."""
    if monotonic() - record.info.get("used", monotonic()) > _IDLE:
        try:
            connection.execute("SELECT 1")
            connection.rollback()
        except Exception as error:
            raise exc.DisconnectionError from error


_UNWRITABLE = frozenset(("25006", "53100"))
"""What PostgreSQL answers to a write where nothing can be written: a read-only transaction (a standby, or so configured), a full
disk."""
_UNWRITABLE_SQLITE = ("disk is full", "readonly database", "disk I/O error")


@contextmanager
def _translated(catalog: Catalog) -> Iterator[None]:
    """The database's errors as ours."""
    try:
        yield
    except exc.IntegrityError:
        raise
    except exc.TimeoutError as error:
        raise RetryLater(f"All connections to the catalog {catalog.address} are in use. Try again.") from error
    except UnicodeEncodeError as error:
        raise InputError(f"Invalid Unicode in a text of this call: {error.object!r}. Write it in UTF-8.") from error
    except exc.DBAPIError as error:
        reason, cause = catalog.hide(str(error.orig)), catalog.cause(error)
        state = getattr(error.orig, "sqlstate", None)
        if state in ("40P01", "40001"):
            raise _Interrupted from cause
        if state in _UNWRITABLE or any(words in reason for words in _UNWRITABLE_SQLITE):
            raise StorageError(
                f"The catalog {catalog.address} cannot be written to: {reason.strip()}. Nothing was committed; free space or fix "
                "the permissions, then try again."
            ) from cause
        if "malformed" in reason or "not a database" in reason:
            raise CorruptionError(
                f"The catalog {catalog.address} is damaged: {reason}. Restore it from a backup (docs/operations.md)."
            ) from cause
        if isinstance(error, exc.DataError):
            raise InputError(
                f"The database does not take a value of this call: {reason.strip()}. Shorten or fix it."
            ) from cause
        is_refused_option = isinstance(error, exc.ProgrammingError) and error.statement is None
        if is_refused_option or not _passing(error):
            raise CatalogRefused(
                f"The catalog {catalog.address} cannot be opened: {reason.strip()}. Fix its URL or its grants."
            ) from cause
        if isinstance(error, exc.OperationalError):
            raise RetryLater(_unusable(catalog, error)) from cause
        raise


def _is_read_only(path: Path) -> bool:
    """Whether a SQLite catalog is on a disk, or in a folder, that cannot be written to."""
    return path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection to a catalog that cannot be written to. SQLite's readers want to write, too (the index of the write-ahead
    log): where there is no such log, there are no other writers either, and they can do without."""
    wal = Path(f"{path}-wal")
    is_closed = not wal.exists() or wal.stat().st_size == 0
    address = f"file:{quote(str(path))}?mode=ro{'&immutable=1' if is_closed else ''}"
    connection = sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)
    connection.isolation_level = None
    return connection


def _configure_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # transactions begin where our "begin" listener says, DDL included
    cursor = connection.cursor()
    _use_wal(cursor)
    for setting in ("synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _use_wal(cursor: Any) -> None:
    """Set the journal mode. On a new catalog SQLite does not wait for another process that sets it: it fails, as locked."""
    deadline = monotonic() + _BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or monotonic() > deadline:
                raise
            sleep(0.01)


def _after_fork() -> None:
    for catalog in _open_catalogs:
        catalog.forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
