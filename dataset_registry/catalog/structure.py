"""Checks of the keys, references, indexes, views and triggers that protect the rows of a catalog, which a partly
restored dump or a change by the owner of the database may lack.
"""

import hashlib
import re
from collections.abc import Iterator

from sqlalchemy import ForeignKeyConstraint, Inspector, Table, UniqueConstraint, inspect, text

from dataset_registry.catalog.rows import Transaction
from dataset_registry.catalog.tables import metadata, views

GUARDS = {
    "sqlite": {
        "audit_log_delete": "e42f152e5bbb3128",
        "audit_log_replace": "598505df73c95488",
        "audit_log_update": "4bd58cf30bdca490",
        "audit_seals_delete": "42646765a2c43c4f",
        "audit_seals_replace": "588f88e942715f80",
        "audit_seals_update": "8686104792f7e31f",
        "tags_are_not_overwritten": "08de73a26e472cac",
        "tags_are_not_replaced": "719b4c13fc69a4ed",
        "tags_are_not_reused": "94b28f420e6ab6e5",
        "tags_do_not_move": "dec29a0a9d2c0b79",
        "tags_retire": "512f31c1dee7341a",
    },
    "postgresql": {
        "audit_log_change": "bc1f0c990156c128",
        "audit_log_truncate": "6bf34950ea649c1b",
        "audit_seals_change": "3c16d5c33f45bd60",
        "audit_seals_truncate": "35971db225ec92cc",
        "guard_all_tags": "305126b90576cdfa",
        "guard_tags": "16831ce28a6801c7",
    },
}
"""The triggers of each database, with the beginning of the SHA-256 of their definitions: a trigger of the same name may have
been replaced by one that does nothing. `tests/operations/test_tampering.py` compares them with a new catalog."""

_SQLITE_TRIGGERS = text("SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'")
_POSTGRESQL_TRIGGERS = text("""
    SELECT t.tgname, c.relname, pg_get_triggerdef(t.oid) || ' ' || p.prosrc, t.tgenabled
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND n.nspname = current_schema()
""")


def problems(tx: Transaction) -> Iterator[str]:
    """Missing or changed objects, one sentence each."""
    found = inspect(tx)
    there = set(found.get_table_names())
    for table in metadata.sorted_tables:
        if table.name in there:
            yield from _of_table(found, table)
        else:
            yield f"the table {table.name} is missing"
    seen = set(found.get_view_names())
    yield from (f"the view {view} is missing" for view in views.tables if view not in seen)
    yield from _of_guards(tx)


def _of_table(found: Inspector, table: Table) -> Iterator[str]:
    keys = found.get_pk_constraint(table.name)["constrained_columns"]
    wanted = [column.name for column in table.primary_key.columns]
    if set(keys) != set(wanted):
        yield f"the table {table.name} has lost its primary key ({', '.join(wanted)})"
    references = {
        (tuple(key["constrained_columns"]), key["referred_table"]) for key in found.get_foreign_keys(table.name)
    }
    for constraint in table.constraints:
        if isinstance(constraint, ForeignKeyConstraint):
            columns, target = tuple(constraint.column_keys), constraint.elements[0].column.table.name
            if (columns, target) not in references:
                yield f"the table {table.name} has lost its reference {', '.join(columns)} to {target}"
    indexes = found.get_indexes(table.name)
    unique = {frozenset(key["column_names"]) for key in found.get_unique_constraints(table.name)}
    unique |= {frozenset(filter(None, index["column_names"])) for index in indexes if index["unique"]}
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint) and frozenset(constraint.columns.keys()) not in unique:
            yield f"the table {table.name} has lost its unique key ({', '.join(constraint.columns.keys())})"
    names = {index["name"] for index in indexes}
    for index in table.indexes:
        if index.name not in names:
            yield f"the table {table.name} has lost its index {index.name}"


def _of_guards(tx: Transaction) -> Iterator[str]:
    there = guards(tx)
    for name, digest in GUARDS[tx.dialect.name].items():
        if name not in there:
            yield f"the trigger {name} is missing: it kept the audit log, or tags, from being changed"
        elif there[name] == DISABLED:
            yield f"the trigger {name} is disabled: it kept the audit log, or tags, from being changed"
        elif there[name] != digest:
            yield f"the trigger {name} was replaced by another one of its name"


DISABLED = "disabled"


def guards(tx: Transaction) -> dict[str, str]:
    """The triggers of the catalog's tables, each with the beginning of the digest of its definition, or `DISABLED`."""
    if tx.dialect.name == "sqlite":
        return {name: _digest(sql) for name, table, sql in tx.execute(_SQLITE_TRIGGERS) if table in metadata.tables}
    schema = str(tx.exec_driver_sql("SELECT current_schema()").scalar())
    return {
        name: _digest(sql.replace(f"{schema}.", "").replace(f'"{schema}".', "")) if enabled == "A" else DISABLED
        for name, table, sql, enabled in tx.execute(_POSTGRESQL_TRIGGERS)
        if table in metadata.tables
    }


def _digest(sql: str) -> str:
    return hashlib.sha256(re.sub(r"\s+", " ", sql).strip().encode()).hexdigest()[:16]
