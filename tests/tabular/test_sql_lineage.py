"""The lineage of columns through SQL: 40 statements, with what another implementation (openlineage-sql) says of them."""

from pathlib import Path
from typing import NamedTuple

import duckdb
import openlineage_sql
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_registry.errors import InputError
from dataset_registry.model.column_lineage import ColumnLineage
from dataset_registry.tabular.sql_lineage import lineage_of, renamed_tables, tables_of

TABLES = {
    "orders": ["id", "customer_id", "price", "quantity", "ordered_at", "region"],
    "customers": ["id", "name", "country", "vip"],
    "returns": ["order_id", "amount"],
}


class Case(NamedTuple):
    """A statement and its lineage: of each column the sources, as `table.column`. `other` says why the other one differs."""

    sql: str
    expected: dict[str, str]
    other: str = ""


STAR = "it does not know the columns of a table"
BARE = "it does not know which table a column without a prefix is of"
NAME = "it does not see the alias of a subquery"
NAMES = "it does not see names of columns behind the name of a common table expression"
CASE = "it takes names in another letter case for others"
STRUCT = "it does not look into a struct"
UNION = "it keeps the names of each part of a UNION apart"

CASES = {
    "a column": Case("SELECT id FROM orders", {"id": "orders.id"}),
    "an alias": Case("SELECT id AS number FROM orders", {"number": "orders.id"}),
    "an expression": Case("SELECT price * quantity AS total FROM orders", {"total": "orders.price orders.quantity"}),
    "a constant": Case("SELECT 1 AS one, id FROM orders", {"one": "", "id": "orders.id"}),
    "all columns": Case("SELECT * FROM customers", {c: f"customers.{c}" for c in TABLES["customers"]}, STAR),
    "all columns but one": Case(
        "SELECT * EXCLUDE (vip) FROM customers", {c: f"customers.{c}" for c in ("id", "name", "country")}, STAR
    ),
    "one column replaced": Case(
        "SELECT * REPLACE (upper(name) AS name) FROM customers",
        {c: f"customers.{c}" for c in TABLES["customers"]},
        STAR,
    ),
    "a join": Case(
        "SELECT o.id, c.name FROM orders o JOIN customers c ON o.customer_id = c.id",
        {"id": "orders.id", "name": "customers.name"},
    ),
    "a join without prefixes": Case(
        "SELECT price, name FROM orders JOIN customers ON customer_id = customers.id",
        {"price": "orders.price", "name": "customers.name"},
        BARE,
    ),
    "an outer join": Case(
        "SELECT o.id, r.amount FROM orders o LEFT JOIN returns r ON r.order_id = o.id",
        {"id": "orders.id", "amount": "returns.amount"},
    ),
    "a join with USING": Case(
        "SELECT id, price, name FROM orders JOIN customers USING (id)",
        {"id": "orders.id customers.id", "price": "orders.price", "name": "customers.name"},
        BARE,
    ),
    "a cross join": Case(
        "SELECT o.price, c.country FROM orders o, customers c",
        {"price": "orders.price", "country": "customers.country"},
    ),
    "a self join": Case(
        "SELECT a.price - b.price AS change FROM orders a JOIN orders b ON a.id = b.id + 1",
        {"change": "orders.price"},
    ),
    "a filter": Case("SELECT id FROM orders WHERE price > 10", {"id": "orders.id"}),
    "groups": Case(
        "SELECT region, sum(price) AS total FROM orders GROUP BY region",
        {"region": "orders.region", "total": "orders.price"},
    ),
    "groups by position": Case(
        "SELECT region, count(*) AS n FROM orders GROUP BY 1", {"region": "orders.region", "n": ""}
    ),
    "a filter of groups": Case(
        "SELECT region, max(price) AS most FROM orders GROUP BY region HAVING min(quantity) > 1",
        {"region": "orders.region", "most": "orders.price"},
    ),
    "distinct rows": Case("SELECT DISTINCT country FROM customers", {"country": "customers.country"}),
    "a limit": Case("SELECT name FROM customers ORDER BY id DESC LIMIT 3", {"name": "customers.name"}),
    "a subquery": Case("SELECT t FROM (SELECT price AS t FROM orders) x", {"t": "orders.price"}),
    "a nested subquery": Case(
        "SELECT s + 1 AS u FROM (SELECT t * 2 AS s FROM (SELECT price AS t FROM orders) a) b", {"u": "orders.price"}
    ),
    "a scalar subquery": Case(
        "SELECT id, (SELECT max(amount) FROM returns) AS most FROM orders",
        {"id": "orders.id", "most": "returns.amount"},
        NAME,
    ),
    "a common table expression": Case(
        "WITH big AS (SELECT id, price FROM orders WHERE price > 5) SELECT id, price FROM big",
        {"id": "orders.id", "price": "orders.price"},
    ),
    "two common table expressions": Case(
        "WITH a AS (SELECT id, price AS p FROM orders), b AS (SELECT id, p + 1 AS q FROM a) SELECT q FROM b",
        {"q": "orders.price"},
    ),
    "a common table expression with names": Case(
        "WITH a(x, y) AS (SELECT id, price FROM orders) SELECT y FROM a", {"y": "orders.price"}, NAMES
    ),
    "a common table expression named as a table": Case(
        "WITH customers AS (SELECT id, region AS name FROM orders) SELECT name FROM customers",
        {"name": "orders.region"},
    ),
    "a union": Case("SELECT id FROM orders UNION ALL SELECT id FROM customers", {"id": "orders.id customers.id"}),
    "a union with other names": Case(
        "SELECT price AS v FROM orders UNION SELECT amount FROM returns", {"v": "orders.price returns.amount"}, UNION
    ),
    "a window": Case(
        "SELECT id, sum(price) OVER () AS total FROM orders", {"id": "orders.id", "total": "orders.price"}
    ),
    "a case": Case(
        "SELECT CASE WHEN true THEN name ELSE country END AS label FROM customers",
        {"label": "customers.name customers.country"},
    ),
    "coalesce": Case(
        "SELECT coalesce(r.amount, o.price) AS v FROM orders o LEFT JOIN returns r ON r.order_id = o.id",
        {"v": "returns.amount orders.price"},
    ),
    "a cast": Case("SELECT CAST(price AS VARCHAR) AS price FROM orders", {"price": "orders.price"}),
    "a short cast": Case("SELECT price::INT AS price FROM orders", {"price": "orders.price"}),
    "a function of dates": Case(
        "SELECT date_trunc('day', ordered_at) AS day FROM orders", {"day": "orders.ordered_at"}
    ),
    "texts joined": Case(
        "SELECT name || ' (' || country || ')' AS label FROM customers", {"label": "customers.name customers.country"}
    ),
    "quoted names": Case('SELECT "price" AS "The Price" FROM "orders"', {"The Price": "orders.price"}),
    "other letter case": Case("SELECT ID, Price FROM ORDERS", {"ID": "orders.id", "Price": "orders.price"}, CASE),
    "a struct": Case("SELECT {'a': id, 'b': price} AS pair FROM orders", {"pair": "orders.id orders.price"}, STRUCT),
    "a table that is created": Case(
        "CREATE TABLE t AS SELECT id, price AS p FROM orders", {"id": "orders.id", "p": "orders.price"}
    ),
    "rows that are inserted": Case(
        "INSERT INTO t SELECT name, country FROM customers",
        {"name": "customers.name", "country": "customers.country"},
    ),
}


def test_there_are_forty_statements() -> None:
    assert len(CASES) == 40


@pytest.mark.parametrize("name", CASES)
def test_a_statement_has_the_lineage(name: str) -> None:
    case = CASES[name]
    found = lineage_of(case.sql, TABLES)
    assert {column.casefold(): {f"{s.dataset}.{s.column}" for s in sources} for column, sources in found.items()} == {
        column.casefold(): set(sources.split()) for column, sources in case.expected.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_the_other_implementation_agrees_or_the_difference_is_explained(name: str) -> None:
    case = CASES[name]
    parsed = openlineage_sql.parse([case.sql], "duckdb")
    theirs = {}
    for entry in parsed.column_lineage if parsed is not None else ():
        theirs[entry.descendant.name] = {
            f"{source.origin.name if source.origin else '?'}.{source.name}" for source in entry.lineage
        }
    ours = {column: set(sources.split()) for column, sources in case.expected.items() if sources}
    assert (theirs == ours) != bool(case.other), theirs


# --- relations of DuckDB ---------------------------------------------------------------------------------------------


def _sources(found: ColumnLineage) -> dict[str, list[str]]:
    return {column: [f"{s.dataset}.{s.column}" for s in sources] for column, sources in found.items()}


def test_files_and_objects_of_python_that_a_relation_scans_are_tables(tmp_path: Path) -> None:
    path = tmp_path / "part 1's.parquet"
    pq.write_table(pa.table({"id": [1], "price": [2]}), path)
    orders = duckdb.sql(f"FROM read_parquet(['{str(path).replace(chr(39), chr(39) * 2)}'])")
    customers = pa.table({"id": [1], "name": ["a"]})
    joined = duckdb.sql("SELECT o.price * 2 AS p, c.name FROM orders o JOIN customers c USING (id)")
    tables = {"orders": ["id", "price"], "customers": ["id", "name"]}
    found = lineage_of(joined.sql_query(), tables, files={str(path): "orders"})
    assert _sources(found) == {"p": ["orders.price"], "name": ["customers.name"]}
    filtered = orders.filter("id > 0").aggregate("sum(price) AS total")
    assert _sources(lineage_of(filtered.sql_query(), tables, files={str(path): "orders"})) == {
        "total": ["orders.price"]
    }
    assert customers.num_rows == 1


def test_tables_that_are_not_known_are_left_out() -> None:
    found = lineage_of("SELECT o.id, x.y FROM orders o JOIN other x ON x.id = o.id", TABLES)
    assert _sources(found) == {"id": ["orders.id"], "y": []}


@pytest.mark.parametrize(
    "sql", ["", "SELEC id FROM orders", "DROP TABLE orders", "SELECT (", "UPDATE orders SET id = 1"]
)
def test_what_is_no_query_is_refused(sql: str) -> None:
    with pytest.raises(InputError):
        lineage_of(sql, TABLES)


@pytest.mark.parametrize(
    ("sql", "tables", "renamed"),
    [
        ("SELECT * FROM orders PIVOT (sum(price) FOR region IN ('x'))", ["orders"], "input_0 PIVOT("),
        ("SELECT * FROM orders UNPIVOT (v FOR k IN (price, quantity))", ["orders"], "input_0 UNPIVOT("),
        ("SELECT * FROM orders TABLESAMPLE reservoir(1 ROWS)", ["orders"], "TABLESAMPLE"),
        ("SELECT x FROM orders AS o(x)", ["orders"], "input_0 AS o(x)"),
        ("SELECT raw.orders.id FROM raw.orders", ["raw.orders"], 'SELECT orders.id FROM input_0 AS "orders"'),
        ("WITH orders AS (SELECT * FROM orders) SELECT * FROM orders", ["orders"], 'FROM input_0 AS "orders")'),
        ("SELECT * FROM orders, Orders o", ["orders"], "input_0 AS o"),
        ("SELECT * FROM (orders JOIN customers ON true)", ["orders", "customers"], "JOIN input_1"),
    ],
)
def test_a_table_is_renamed_and_the_rest_of_the_query_stays(sql: str, tables: list[str], renamed: str) -> None:
    assert tables_of(sql) == tables
    assert renamed in renamed_tables(sql, {table: f"input_{i}" for i, table in enumerate(tables)})


def test_many_columns_are_traced_at_once() -> None:
    columns = [f"c{i}" for i in range(600)]
    found = lineage_of("WITH a AS (SELECT * FROM wide), b AS (SELECT * FROM a) SELECT * FROM b", {"wide": columns})
    assert found == {column: (("wide", column),) for column in columns}
    with pytest.raises(InputError, match="more than 5000 columns"):
        lineage_of("SELECT * FROM wide", {"wide": [f"c{i}" for i in range(5001)]})
