"""The lineage of columns through an SQL statement: which columns of which tables the values of each output column come from.

What a column is compared with, filtered or grouped by does not count: the values come from elsewhere.
"""

from collections.abc import Iterable, Mapping, Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage
from sqlglot.schema import MappingSchema

from dataset_registry.errors import InputError
from dataset_registry.model.column_lineage import ColumnLineage, ColumnSource

SCAN_OF_PYTHON = "__duckdb_source"
"""How DuckDB calls what it scans of this process, in the SQL of a relation."""


def lineage_of(
    sql: str,
    tables: Mapping[str, Sequence[str]],
    *,
    dialect: str = "duckdb",
    files: Mapping[str, str] | None = None,
) -> ColumnLineage:
    """The sources of each output column of a query, by its name as the dialect folds it: in DuckDB in lower case.

    `tables` are the columns of the tables that it may read, by name; `files` are the names of tables by the paths of files that
    it reads instead. Columns of other tables are left out. Raises `InputError` for SQL that cannot be parsed or understood.
    """
    known = {name.casefold(): name for name in tables}
    columns = {name.casefold(): {column.casefold(): column for column in listed} for name, listed in tables.items()}
    try:
        query = _query(sqlglot.parse_one(sql, dialect=dialect))
        query = _with_tables(query, known, {path: name.casefold() for path, name in (files or {}).items()})
        schema = MappingSchema(
            {name: dict.fromkeys(listed, "unknown") for name, listed in columns.items()}, dialect=dialect
        )
        nodes = lineage(None, query, schema=schema, dialect=dialect)
    except (SqlglotError, ValueError, RecursionError) as error:
        raise InputError(f"The columns of this SQL cannot be traced: {str(error).splitlines()[0]}") from error
    return {name: tuple(dict.fromkeys(_sources(node, known, columns))) for name, node in nodes.items() if name != "*"}


def tables_of(sql: str, *, dialect: str = "duckdb") -> list[str]:
    """The tables that a query reads, as they are written (`schema.table`), in order. Raises `InputError` for other SQL."""
    found = [_qualified(table) for table in _tables(_parsed(sql, dialect))]
    return list(dict.fromkeys(found))


def renamed_tables(sql: str, names: Mapping[str, str], *, dialect: str = "duckdb") -> str:
    """The query with other names of tables, old to new."""
    query = _parsed(sql, dialect)
    for table in _tables(query):
        if (name := names.get(_qualified(table))) is not None:
            table.replace(exp.to_table(name, alias=table.alias or table.name))
    return query.sql(dialect=dialect)


def _parsed(sql: str, dialect: str) -> exp.Expr:
    try:
        return _query(sqlglot.parse_one(sql, dialect=dialect))
    except SqlglotError as error:
        raise InputError(f"This is not a query: {str(error).splitlines()[0]}") from error


def _tables(query: exp.Expr) -> list[exp.Table]:
    """The references to tables, without those to common table expressions and functions."""
    own = {cte.alias.casefold() for cte in query.find_all(exp.CTE)}
    return [
        table
        for table in query.find_all(exp.Table, bfs=False)
        if isinstance(table.this, exp.Identifier) and (table.db or table.name.casefold() not in own)
    ]


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


def _with_tables(query: exp.Expr, known: Mapping[str, str], files: Mapping[str, str]) -> exp.Expr:
    """The query with names of tables in place of what DuckDB scans: files, and objects of Python."""
    for cte in list(query.find_all(exp.CTE)):
        is_scan = any(table.name.startswith(SCAN_OF_PYTHON) for table in cte.this.find_all(exp.Table))
        if is_scan and cte.alias.casefold() in known:
            cte.pop()
    for clause in list(query.find_all(exp.With)):
        if not clause.expressions:
            clause.pop()

    def named(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Table) or isinstance(node.this, exp.Identifier):
            return node
        paths = [text.this for text in node.this.find_all(exp.Literal) if text.is_string]
        names = {files[path] for path in paths if path in files}
        return exp.to_table(names.pop(), alias=node.alias or None) if len(names) == 1 else node

    return query.transform(named)


def _sources(node: Node, known: Mapping[str, str], columns: Mapping[str, Mapping[str, str]]) -> Iterable[ColumnSource]:
    for leaf in node.walk():
        table = leaf.expression
        if leaf.downstream or not isinstance(table, exp.Table):
            continue
        name, column = table.name.casefold(), exp.to_column(leaf.name).name.casefold()
        if name in known and column in columns[name]:
            yield ColumnSource(known[name], columns[name][column])
