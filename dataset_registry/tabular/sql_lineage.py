"""The lineage of columns through an SQL statement: which columns of which tables the values of each output column come from.

What a column is compared with, filtered or grouped by does not count: the values come from elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope, traverse_scope
from sqlglot.schema import MappingSchema

from dataset_registry.errors import InputError
from dataset_registry.model.column_lineage import ColumnLineage, ColumnSource

SCAN_OF_PYTHON = "__duckdb_source"
"""How DuckDB calls what it scans of this process, in the SQL of a relation."""

MOST_COLUMNS = 5_000
"""Columns of the tables of a query, all together: qualifying names takes longer than it is worth beyond that."""


def lineage_of(
    sql: str,
    tables: Mapping[str, Sequence[str]],
    *,
    dialect: str = "duckdb",
    files: Mapping[str, str] | None = None,
) -> ColumnLineage:
    """The sources of each output column of a query in order, by its name as the dialect folds it: in DuckDB in lower case.

    `tables` are the columns of the tables that it may read, by name (`orders`, or `schema.orders`); `files` are the names of
    tables by the paths of files that it reads instead. Columns of other tables are left out. Raises `InputError` for SQL that
    cannot be parsed or understood, and for more than `MOST_COLUMNS` columns.
    """
    try:
        query = _query(sqlglot.parse_one(sql, dialect=dialect))
        used = _with_tables(
            query,
            {name.casefold(): name for name in tables},
            {path: name for path, name in (files or {}).items() if name in tables},
        )
        if sum(len(tables[name]) for name in used.values()) > MOST_COLUMNS:
            raise InputError(f"The tables of this SQL have more than {MOST_COLUMNS} columns.")
        known = {own: {column.casefold(): column for column in tables[name]} for own, name in used.items()}
        schema = MappingSchema(
            {own: dict.fromkeys(columns, "unknown") for own, columns in known.items()}, dialect=dialect
        )
        qualified = qualify(query, schema=schema, dialect=dialect, validate_qualify_columns=False, identify=False)
        scope = build_scope(qualified)
        if scope is None:
            raise InputError("This statement is no query.")
        return {
            name: tuple(dict.fromkeys(ColumnSource(used[table], known[table][column]) for table, column in found))
            for name, found in _Trace(known).of(scope).items()
            if name != "*"
        }
    except InputError:
        raise
    except Exception as error:  # a parser of another project, on SQL that anyone may write
        raise InputError(f"The columns of this SQL cannot be traced: {str(error).partition(chr(10))[0]}") from error


_Found = dict[str, list[tuple[str, str]]]
"""Of each output column the tables and columns."""


class _Trace:
    """Follows columns through the scopes of a query, each scope once."""

    def __init__(self, known: Mapping[str, Mapping[str, str]]) -> None:
        self._known = known
        self._done: dict[int, _Found] = {}

    def of(self, scope: Scope) -> _Found:
        """The sources of each output column of a scope."""
        if id(scope) not in self._done:
            self._done[id(scope)] = {}  # a recursive common table expression refers to itself
            self._done[id(scope)] = self._union(scope) if scope.set_operation_scopes else self._select(scope)
        return self._done[id(scope)]

    def _union(self, scope: Scope) -> _Found:
        left, right = (self.of(part) for part in scope.set_operation_scopes)
        if scope.expression.args.get("by_name"):
            return {name: [*left.get(name, ()), *right.get(name, ())] for name in {**left, **right}}
        others = [*right.values(), *([[]] * len(left))]
        return {name: [*found, *others[position]] for position, (name, found) in enumerate(left.items())}

    def _select(self, scope: Scope) -> _Found:
        if not isinstance(scope.expression, exp.Selectable):
            return {}
        return {
            projection.alias_or_name: list(dict.fromkeys(self._sources(scope, projection)))
            for projection in scope.expression.selects
        }

    def _sources(self, scope: Scope, node: exp.Expr) -> Iterator[tuple[str, str]]:
        """The sources of an expression; of a subquery in it those of its own columns."""
        inner = {id(sub.expression): sub for sub in scope.subquery_scopes}
        if (sub := inner.get(id(node))) is not None:
            for found in self.of(sub).values():
                yield from found
            return
        if isinstance(node, exp.Column):
            source = scope.sources.get(node.table)
            if isinstance(source, Scope):
                yield from self.of(source).get(node.name, ())
            elif isinstance(source, exp.Table) and node.name.casefold() in self._known.get(source.name, {}):
                yield source.name, node.name.casefold()
        for child in node.iter_expressions():
            yield from self._sources(scope, child)


def tables_of(sql: str, *, dialect: str = "duckdb") -> list[str]:
    """The tables that a query reads, as they are written (`schema.table`), in order. Raises `InputError` for other SQL."""
    found: dict[str, str] = {}
    for table in _tables(_parsed(sql, dialect)):
        found.setdefault(_qualified(table).casefold(), _qualified(table))
    return list(found.values())


def renamed_tables(sql: str, names: Mapping[str, str], *, dialect: str = "duckdb") -> str:
    """The query with other names of tables, old to new."""
    query = _parsed(sql, dialect)
    folded = {name.casefold(): new for name, new in names.items()}
    for table in _tables(query):
        if (name := folded.get(_qualified(table).casefold())) is not None:
            _rename(table, name)
    for column in query.find_all(exp.Column):
        if column.args.get("db"):  # schema.table.column: the table has its own name as an alias now
            column.set("db", None)
            column.set("catalog", None)
    return query.sql(dialect=dialect)


def _rename(table: exp.Table, name: str) -> None:
    """Give a table another name; what else the query says of it stays. It is called as before in the query."""
    if not table.alias and not table.args.get("pivots"):
        before = table.name
        table.set("alias", exp.TableAlias(this=exp.to_identifier(before, quoted=True)))
    table.set("this", exp.to_identifier(name))
    for part in ("db", "catalog"):
        table.set(part, None)


def _parsed(sql: str, dialect: str) -> exp.Expr:
    try:
        return _query(sqlglot.parse_one(sql, dialect=dialect))
    except SqlglotError as error:
        raise InputError(f"This is not a query: {str(error).splitlines()[0]}") from error


def _tables(query: exp.Expr) -> list[exp.Table]:
    """The references to tables, in the order of the query, without those to common table expressions and functions."""
    real = {
        id(source)
        for scope in traverse_scope(query)
        for source in scope.sources.values()
        if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier)
    }
    return [table for table in query.find_all(exp.Table, bfs=False) if id(table) in real]


def _qualified(table: exp.Table) -> str:
    return ".".join(part.name for part in table.parts)


def _query(statement: exp.Expr) -> exp.Expr:
    """The query of a statement: of CREATE TABLE … AS and INSERT INTO … what they write."""
    if isinstance(statement, exp.Query):
        return statement
    inner = statement.args.get("expression")
    if isinstance(statement, exp.Create | exp.Insert) and isinstance(inner, exp.Query):
        return inner
    raise InputError(f"This statement is no query: {statement.key.upper()}.")


def _with_tables(query: exp.Expr, known: Mapping[str, str], files: Mapping[str, str]) -> dict[str, str]:
    """Give each known table that a query reads a name of its own, in place of names, files and objects of Python. Returns the
    tables by these names."""
    for cte in list(query.find_all(exp.CTE)):
        is_scan = any(table.name.startswith(SCAN_OF_PYTHON) for table in cte.this.find_all(exp.Table))
        if is_scan and cte.alias.casefold() in known:
            cte.pop()
    for clause in list(query.find_all(exp.With)):
        if not clause.expressions:
            clause.pop()
    used: dict[str, str] = {}

    def take(table: exp.Table, name: str) -> None:
        own = f"__table_{len(used)}"
        used[own] = name
        _rename(table, own)

    for table in list(query.find_all(exp.Table)):
        if isinstance(table.this, exp.Identifier):
            continue
        paths = [text.this for text in table.this.find_all(exp.Literal) if text.is_string]
        names = {files[path] for path in paths if path in files}
        if len(names) == 1:
            take(table, names.pop())
    for table in _tables(query):
        name = known.get(_qualified(table).casefold()) or known.get(table.name.casefold())
        if name is not None and table.name not in used:
            take(table, name)
    for column in query.find_all(exp.Column):
        if column.args.get("db"):
            column.set("db", None)
            column.set("catalog", None)
    return used
