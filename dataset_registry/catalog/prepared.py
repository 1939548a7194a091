"""Statements of hot paths: compiled once for each kind of database, and run on its driver.

Of a small statement SQLAlchemy takes 35 µs and SQLite 6. A `Prepared` statement is written in Core like every other, compiles to
the same text, and uses the same types; what it leaves out is between the two: looking up what was compiled, result objects,
and rows with names. Its rows are tuples.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

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

    def all(self, tx: Connection, values: Mapping[str, Any]) -> list[_Row]:
        """Run it. Returns all rows."""
        compiled = self._of(tx)
        rows: list[_Row] = on_driver(tx, compiled.text, _given(compiled, values), lambda cursor: cursor.fetchall())
        if not compiled.conversions or not rows:
            return rows
        columns: list[Iterable[Any]] = list(zip(*rows, strict=True))
        for place, convert in compiled.conversions:
            columns[place] = map(convert, columns[place])
        return list(zip(*columns, strict=True))

    def first(self, tx: Connection, values: Mapping[str, Any]) -> _Row | None:
        """Run it. Returns the first row, or None."""
        rows = self.all(tx, values)
        return rows[0] if rows else None

    def one(self, tx: Connection, values: Mapping[str, Any]) -> _Row:
        """Run it. Returns the only row."""
        (row,) = self.all(tx, values)
        return row

    def run(self, tx: Connection, values: Mapping[str, Any]) -> int:
        """Run it. Returns the number of changed rows."""
        compiled = self._of(tx)
        count: int = on_driver(tx, compiled.text, _given(compiled, values), lambda cursor: cursor.rowcount)
        return count

    def _of(self, tx: Connection) -> _Compiled:
        dialect = tx.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _compile(self._statement, self._keys, dialect)
        return compiled


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
    connection: Any = tx.connection.driver_connection
    for note in tx.dispatch.before_cursor_execute:
        note(tx, None, text, given, None, False)
    try:
        return result(connection.cursor().executemany(text, given) if many else connection.execute(text, given))
    except tx.dialect.loaded_dbapi.Error as error:
        raise error_of(tx, text, error) from error


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
