"""Statements of hot paths: compiled once for each kind of database, and run on its driver.

Of a small statement SQLAlchemy takes 35 µs and SQLite 6. A `Prepared` statement is written in Core like every other, compiles to
the same text, and uses the same types; what it leaves out is between the two: looking up what was compiled, result objects,
and rows with names. Its rows are tuples.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import (
    Connection,
    Dialect,
    Insert,
    Select,
    Table,
    Update,
    exc,
    insert,
)
from sqlalchemy.types import TypeEngine

_Row = tuple[Any, ...]
_Convert = Callable[[Any], Any]


class _Compiled(NamedTuple):
    """A statement as text, its parameters in order (name, default, conversion), and the conversions of columns by position."""

    text: str
    parameters: Sequence[tuple[str, Any, _Convert | None]]
    conversions: Sequence[tuple[int, _Convert]]
    by_position: bool


_Statement = Select[Any] | Insert | Update


class Prepared:
    """A statement of Core to run often, with parameters by name. `keys` are the columns of an insert, its parameters."""

    def __init__(self, statement: _Statement, keys: Sequence[str] | None = None) -> None:
        self._statement, self._keys = statement, keys
        self._compiled: dict[str, _Compiled] = {}

    def ask(self, tx: Connection, values: Mapping[str, Any]) -> Callable[[], list[_Row]]:
        """Run it. Returns what has all rows, or waits for them: those of several statements take one round trip (see
        `pipelined`)."""
        compiled = self._of(tx)
        given = _given(compiled, values)
        if not is_pipelined(tx):
            rows = on_driver(tx, compiled.text, given, lambda cursor: cursor.fetchall())
            return lambda: _converted(compiled, rows)
        cursor = on_driver(tx, compiled.text, given, lambda cursor: cursor)

        def wait() -> list[_Row]:
            with _errors(tx, compiled.text):
                cursor.wait()
                return _converted(compiled, cursor.fetchall())

        return wait

    def all(self, tx: Connection, values: Mapping[str, Any]) -> list[_Row]:
        """Run it. Returns all rows."""
        return self.ask(tx, values)()

    def first(self, tx: Connection, values: Mapping[str, Any]) -> _Row | None:
        """Run it. Returns the first row, or None."""
        rows = self.all(tx, values)
        return rows[0] if rows else None

    def one(self, tx: Connection, values: Mapping[str, Any]) -> _Row:
        """Run it. Returns the only row."""
        (row,) = self.all(tx, values)
        return row

    def run(self, tx: Connection, values: Mapping[str, Any]) -> None:
        """Run it. On PostgreSQL an error may appear with the next rows only, or at the commit (see `pipelined`)."""
        compiled = self._of(tx)
        given = _given(compiled, values)
        if isinstance(self._statement, Select):  # for its locks
            on_driver(tx, compiled.text, given)
        else:
            change(tx, str(self._statement.table), compiled.text, given)

    def _of(self, tx: Connection) -> _Compiled:
        dialect = tx.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _compile(self._statement, self._keys, dialect)
        return compiled


def _converted(compiled: _Compiled, rows: list[_Row]) -> list[_Row]:
    """The rows of the driver, with the values of the statement's types."""
    if not compiled.conversions or not rows:
        return rows
    columns: list[Iterable[Any]] = list(zip(*rows, strict=True))
    for place, convert in compiled.conversions:
        columns[place] = map(convert, columns[place])
    return list(zip(*columns, strict=True))


def _given(compiled: _Compiled, values: Mapping[str, Any]) -> Sequence[Any] | Mapping[str, Any]:
    """The values as the driver takes them."""
    given = [
        values.get(name, default) if convert is None else convert(values.get(name, default))
        for name, default, convert in compiled.parameters
    ]
    return (
        tuple(given)
        if compiled.by_position
        else dict(zip((name for name, _, _ in compiled.parameters), given, strict=True))
    )


_WAITING = "changes that wait"
_MOST_WAITING = 32

pipelines: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()
"""The pipelines of connections that have one, for their cursors."""


@contextmanager
def pipelined(tx: Connection) -> Iterator[None]:
    """Send the statements of a transaction on PostgreSQL in few round trips.

    Statements do not wait for the answer to the one before, until one is asked for its rows (libpq's pipeline mode), and
    changes without rows wait until then, or until the commit, and become one statement. Errors appear then.

    Answers come with a sync: without one the server does not know that the transaction waits for its client, and would not end
    one that hangs (`postgresql.IDLE_SECONDS`).
    """
    connection: Any = tx.connection.driver_connection
    info, error = tx.info, tx.dialect.loaded_dbapi.Error
    info[_WAITING] = []
    is_done = False
    try:
        with connection.pipeline() as pipeline:
            pipelines[connection] = pipeline
            try:
                yield
                is_done = True
            except BaseException:
                with suppress(error):  # of the statements after the one that failed
                    pipeline.sync()
                with suppress(error):  # SQLAlchemy takes a commit that failed for the end of the transaction
                    connection.rollback()
                raise
    except error:
        if not is_done:  # else the connection broke after the commit was acknowledged
            raise
    finally:
        info.pop(_WAITING, None)
        pipelines.pop(connection, None)


def is_pipelined(tx: Connection) -> bool:
    """Whether this transaction is."""
    return _WAITING in tx.info


def change(tx: Connection, table: str, text: str, given: Mapping[str, Any] | Sequence[Any]) -> None:
    """Run an insert or an update of a table on the driver, or let it wait for others (see `pipelined`)."""
    waiting: list[tuple[str, str, Mapping[str, Any]]] | None = tx.info.get(_WAITING)
    if waiting is None or not isinstance(given, Mapping):
        on_driver(tx, text, given)
        return
    # The parts of one statement do not see each other: an update may need the rows, or change what an insert runs into.
    if len(waiting) >= _MOST_WAITING or any(
        other == table and (text.startswith("UPDATE") or before.startswith("UPDATE")) for other, before, _ in waiting
    ):
        send_changes(tx)
    waiting.append((table, text, given))


def send_changes(tx: Connection) -> None:
    """Run the changes that wait, as one statement."""
    if waiting := tx.info.get(_WAITING):
        texts = tuple(text for _, text, _ in waiting)
        given = {f"{name}_{at}": value for at, (_, _, values) in enumerate(waiting) for name, value in values.items()}
        waiting.clear()
        on_driver(tx, _together(texts), given)


@lru_cache(1024)
def _together(texts: tuple[str, ...]) -> str:
    """One statement that makes independent changes; the parameters of the n-th have `_n` behind their names."""
    renamed = [_PARAMETER.sub(rf"%(\1_{at})s", text) for at, text in enumerate(texts)]
    parts = ", ".join(f"change_{at} AS ({text})" for at, text in enumerate(renamed[:-1]))
    return f"WITH {parts} {renamed[-1]}" if parts else renamed[-1]


_PARAMETER = re.compile(r"%\((\w+)\)s")


def on_driver(
    tx: Connection,
    text: str,
    given: Sequence[Any] | Mapping[str, Any],
    result: Callable[[Any], Any] = lambda cursor: None,
    *,
    many: bool = False,
) -> Any:
    """Run a text on the driver, in its own style of parameters; with `many`, once for each of these. Returns the `result` of the
    driver's cursor. Raises what SQLAlchemy raises."""
    if not tx.in_transaction():
        tx.begin()
    send_changes(tx)
    connection: Any = tx.connection.driver_connection
    for note in tx.dispatch.before_cursor_execute:
        note(tx, None, text, given, None, False)
    with _errors(tx, text):
        return result(connection.cursor().executemany(text, given) if many else connection.execute(text, given))


class _errors:  # noqa: N801 - used like a function; a class is twice as fast
    """Raise what SQLAlchemy raises for the errors of the driver."""

    __slots__ = ("_text", "_tx")

    def __init__(self, tx: Connection, text: str) -> None:
        self._tx, self._text = tx, text

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and isinstance(error, self._tx.dialect.loaded_dbapi.Error):
            raise error_of(self._tx, self._text, error) from error


def error_of(tx: Connection, text: str, error: Any) -> exc.DBAPIError:
    """The error of SQLAlchemy for one of the driver; a connection that is broken is given up."""
    is_broken = tx.dialect.is_disconnect(error, tx.connection.driver_connection, None)
    if is_broken:
        tx.invalidate(error)
    made = exc.DBAPIError.instance(
        text,
        None,
        error,
        tx.dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=is_broken,
        dialect=tx.dialect,
    )
    assert isinstance(made, exc.DBAPIError), "an error of the driver"
    return made


def _compile(statement: _Statement, keys: Sequence[str] | None, dialect: Dialect) -> _Compiled:
    compiled: Any = statement.compile(dialect=dialect, column_keys=None if keys is None else list(keys))
    assert not compiled.post_compile_params, "of one text and a fixed number of parameters"
    names = compiled.positiontup if compiled.positional else list(compiled.binds)
    parameters = [
        (name, compiled.binds[name].effective_value, _to_driver(compiled.binds[name].type, dialect)) for name in names
    ]
    columns = enumerate(_from_driver(column.type, dialect) for column in compiled._result_columns)
    conversions = [(place, convert) for place, convert in columns if convert is not None]
    return _Compiled(compiled.string, parameters, conversions, bool(compiled.positional))


def _to_driver(kind: TypeEngine[Any], dialect: Dialect) -> _Convert | None:
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _from_driver(kind: TypeEngine[Any], dialect: Dialect) -> _Convert | None:
    return kind.dialect_impl(dialect).result_processor(dialect, None)


@cache
def inserting(table: Table, keys: tuple[str, ...], returning: tuple[str, ...] = ()) -> Prepared:
    """The statement that inserts a row with these columns, and returns some."""
    return Prepared(insert(table).returning(*(table.c[name] for name in returning)), keys)
