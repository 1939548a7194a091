"""Rows: ids and values for statements, in batches."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import ARRAY, Connection, Integer, Select, Table, cast, func, literal, select

from dataset_registry.catalog.prepared import inserting, on_driver

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


def insert_row(tx: Transaction, table: Table, row: Mapping[str, object]) -> int:
    """Insert one row; its new id."""
    return int(inserting(table, tuple(row), ("id",)).one(tx, row)[0])


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
    kinds = (table.c[name].type for name in columns)
    arrays = ", ".join(f"%s::{'bigint' if isinstance(kind, Integer) else 'text'}[]" for kind in kinds)
    on_driver(tx, f"{into} SELECT * FROM unnest({arrays})", tuple(map(list, zip(*rows, strict=True))))
