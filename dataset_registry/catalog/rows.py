"""Rows: ids and values for statements, in batches."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import ARRAY, Connection, Integer, Select, Table, cast, func, literal, select

from dataset_registry.catalog.prepared import change, inserting, on_driver

Transaction = Connection
"""An open transaction: the first argument of every function of this package. Opaque to other packages."""


_Value = TypeVar("_Value")


def id_rows(tx: Transaction, ids: Collection[int]) -> Select[tuple[int]]:
    """Ids as rows of one column `id`, passed as one parameter."""
    if tx.dialect.name == "sqlite":
        values = func.json_each(json.dumps(sorted(ids))).table_valued("value")
        return select(cast(values.c.value, Integer).label("id"))
    return select(func.unnest(literal(sorted(ids), ARRAY(Integer))).label("id"))


def batches(values: Sequence[_Value], size: int = 500) -> Iterator[Sequence[_Value]]:
    """Split values into batches that fit into one statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def insert_row(tx: Transaction, table: Table, row: Mapping[str, object], id: int | None = None) -> int:
    """Insert one row, with this id if it is known already; its id."""
    if id is None:
        return int(inserting(table, tuple(row), ("id",)).one(tx, row)[0])
    inserting(table, ("id", *row)).run(tx, {"id": id, **row})
    return id


_SPARE = 32
"""Ids that a connection reserves at a time."""


def spare_id(tx: Transaction, table: Table) -> int | None:
    """An id for a new row of a table whose ids have no order that matters. None on SQLite, where it costs nothing to be told.

    On PostgreSQL a connection reserves some at a time, like a sequence with a cache: an insert need not be waited for.
    """
    if tx.dialect.name == "sqlite":
        return None
    spare: list[int] = tx.info.setdefault(table.name, [])
    if not spare:
        query = f"SELECT nextval(pg_get_serial_sequence('{table.name}', 'id')) FROM generate_series(1, {_SPARE})"
        spare += (found for (found,) in on_driver(tx, query, (), lambda cursor: cursor.fetchall()))
    return spare.pop()


def insert_rows(tx: Transaction, table: Table, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
    """Insert many rows of plain values (texts and integers), straight through the driver.

    Uses SQLite's executemany and PostgreSQL's unnest: SQLAlchemy would take most of the time of a large commit.
    """
    if not rows:
        return
    into = f"INSERT INTO {table.name} ({', '.join(columns)})"
    if tx.dialect.name == "sqlite":
        text = f"{into} VALUES ({', '.join('?' * len(columns))})"
        on_driver(tx, text, rows[0] if len(rows) == 1 else rows, many=len(rows) > 1)
        return
    kinds = {name: "bigint" if isinstance(table.c[name].type, Integer) else "text" for name in columns}
    arrays = ", ".join(f"%({name})s::{kind}[]" for name, kind in kinds.items())
    given = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
    change(tx, table.name, f"{into} SELECT * FROM unnest({arrays})", given)
