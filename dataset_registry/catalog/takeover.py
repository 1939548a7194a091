"""Taking over a hand-made catalog: finding it, converting it to the baseline that the migrations expect, and keeping
foreign objects.

Hand-made baselines have harmless differences (names of constraints, TEXT for VARCHAR, extra columns and indexes) and
relevant ones: missing keys and references, text columns that are too short, timestamps with a time zone.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, DateTime, Integer, LargeBinary, String, exc, inspect, text
from sqlalchemy.types import TypeDecorator

from dataset_registry.catalog.engine import Catalog
from dataset_registry.catalog.structure import GUARDS
from dataset_registry.catalog.tables import metadata
from dataset_registry.errors import MigrationRefused

BASELINE = ("users", "datasets", "files", "dataset_versions")
_UNIQUE = {"users": ("username",), "datasets": ("name",), "dataset_versions": ("dataset_id", "version_number")}
_REFERENCES = {
    "dataset_versions": (("dataset_id", "datasets", True), ("file_id", "files", True), ("uploaded_by", "users", False))
}
_TEXTS = {
    "users": {"username": 255, "email": 255},
    "datasets": {"name": 255},
    "files": {"storage_type": 50, "file_type": 50, "mime_type": 255},
}
_MOMENTS = {
    "users": ("created_at",),
    "datasets": ("created_at",),
    "files": ("created_at",),
    "dataset_versions": ("ingestion_timestamp", "last_updated_timestamp"),
}
_NAMED = 10
_VIEWS = frozenset(("dataset_version_files", "dataset_schema_versions", "file_info"))


def elsewhere(catalog: Catalog, connection: Connection) -> str | None:
    """The schema of a PostgreSQL database that has a baseline, where that of the catalog has none."""
    if catalog.is_sqlite:
        return None
    query = text(
        "SELECT table_schema FROM information_schema.tables WHERE table_name IN ('users', 'datasets', 'files', "
        "'dataset_versions') AND table_schema <> :ours GROUP BY table_schema HAVING count(*) = 4 "
        "ORDER BY table_schema = 'public' DESC, table_schema LIMIT 1"
    )
    found = connection.execute(query, {"ours": catalog.schema}).scalar()
    return None if found is None else str(found)


def conform(connection: Connection) -> None:
    """Convert a hand-made baseline to the one of the first revision, as far as necessary.

    Raises `MigrationRefused` with the rows that prevent it: dangling references, duplicate names.
    """
    there = set(inspect(connection).get_table_names())
    if missing := [table for table in BASELINE if table not in there]:
        raise MigrationRefused(
            f"This looks like an existing catalog without the tables {', '.join(missing)}. Create them, or use another "
            "database.",
            tables=missing,
        )
    _refuse_taken_names(connection, there)
    for table, columns in _UNIQUE.items():
        _refuse_rows(connection, f"{table} with the same {', '.join(columns)}", _twice(table, columns))
    for table, references in _REFERENCES.items():
        for column, target, _ in references:
            _refuse_rows(
                connection, f"{table} whose {column} is not a row of {target}", _orphans(table, column, target)
            )
    connection.execute(text("UPDATE files SET file_size = COALESCE(length(file_data), -1) WHERE file_size IS NULL"))
    if connection.dialect.name == "postgresql":
        _conform_postgresql(connection)
        return
    for table, columns in _UNIQUE.items():
        if columns not in _unique_keys(connection, table):
            named = f"uq_{table}_{'_'.join(columns)}"
            connection.exec_driver_sql(f"CREATE UNIQUE INDEX {named} ON {table} ({', '.join(columns)})")


def _unique_keys(connection: Connection, table: str) -> set[tuple[str, ...]]:
    found = inspect(connection)
    keys = {tuple(key["column_names"]) for key in found.get_unique_constraints(table)}
    return keys | {tuple(map(str, index["column_names"])) for index in found.get_indexes(table) if index["unique"]}


_OURS = {
    "users": {"kind", "role", "disabled_at"},
    "datasets": {"created_by", "last_version_number"},
    "files": {
        *(
            "content_hash",
            "reference_count",
            "compression_type",
            "metadata",
            "facts",
            "form",
            "object_key",
            "stored_size",
        ),
        "damage",
    },
    "dataset_versions": {
        *("parent_version_id", "message", "overlay_file_id", "uuid", "depth", "digest", "component_count", "origin"),
    },
}
"""Columns that revisions add to the baseline's tables."""
_LOST = re.compile(r"\b(CHECK|COLLATE|GENERATED|WITHOUT\s+ROWID)\b", re.IGNORECASE)
"""Clauses that SQLite tables lose when they are rebuilt."""


def _refuse_taken_names(connection: Connection, there: set[str]) -> None:
    """Raise `MigrationRefused` for tables and columns that are called like those that revisions add, and for constraints that
    tables lose when they are rebuilt."""
    found = inspect(connection)
    taken = sorted((there | set(found.get_view_names())) & ((set(metadata.tables) | _VIEWS) - set(BASELINE)))
    for table in BASELINE:
        names = {column["name"] for column in found.get_columns(table)}
        taken += [f"{table}.{name}" for name in sorted(names & _OURS[table])]
    if taken:
        raise MigrationRefused(
            f"The existing catalog has tables or columns with names that the registry needs: {', '.join(taken)}. Nothing was "
            "changed. Rename them, then run the same command again.",
            taken=taken,
        )
    if connection.dialect.name != "sqlite":
        return
    query = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name IN ('datasets', 'files', 'dataset_versions')"
    )
    for table, sql in connection.execute(text(query)):
        if lost := _LOST.search(sql):
            raise MigrationRefused(
                f"The table {table!r} has {lost[1].upper()} in its definition, which would be lost: SQLite's tables are rebuilt. "
                "Nothing was changed. Define the table without it, then run the same command again.",
                table=table,
            )


def _twice(table: str, columns: tuple[str, ...]) -> str:
    named = ", ".join(columns)
    return f"SELECT {named}, count(*) FROM {table} GROUP BY {named} HAVING count(*) > 1 ORDER BY {named}"


def _orphans(table: str, column: str, target: str) -> str:
    dangling = f"{column} IS NOT NULL AND {column} NOT IN (SELECT id FROM {target})"
    return f"SELECT id, {column} FROM {table} WHERE {dangling} ORDER BY id"


def _refuse_rows(connection: Connection, what: str, query: str) -> None:
    rows = [tuple(row) for row in connection.execute(text(query))]
    if rows:
        named = ", ".join(map(str, rows[:_NAMED]))
        raise MigrationRefused(
            f"The existing catalog has {len(rows):,} rows of {what}: {named}. Nothing was changed. Fix these rows, then run the "
            "same command again.",
            rows=len(rows),
        )


def _conform_postgresql(connection: Connection) -> None:
    """Widen what is narrow, drop time zones (of moments in UTC), add the keys and references that are missing, and give those
    that are there the names that the migrations know."""
    found = inspect(connection)
    run = connection.exec_driver_sql
    for table, lengths in _TEXTS.items():
        kinds = {column["name"]: column["type"] for column in found.get_columns(table)}
        for name, length in lengths.items():
            narrow = getattr(kinds.get(name), "length", None)
            if name not in kinds:
                run(f"ALTER TABLE {table} ADD COLUMN {name} VARCHAR({length})")
            elif narrow is not None and narrow < length:
                run(f"ALTER TABLE {table} ALTER COLUMN {name} TYPE VARCHAR({length})")
    for table, names in _MOMENTS.items():
        kinds = {column["name"]: column["type"] for column in found.get_columns(table)}
        for name in names:
            if getattr(kinds.get(name), "timezone", False):
                run(f"ALTER TABLE {table} ALTER COLUMN {name} TYPE TIMESTAMP USING {name} AT TIME ZONE 'UTC'")
    for table, columns in _UNIQUE.items():
        wanted = f"uq_{table}_{'_'.join(columns)}"
        named = [key["name"] for key in found.get_unique_constraints(table) if tuple(key["column_names"]) == columns]
        if not named:
            run(f"ALTER TABLE {table} ADD CONSTRAINT {wanted} UNIQUE ({', '.join(columns)})")
        elif wanted not in named:
            run(f'ALTER TABLE {table} RENAME CONSTRAINT "{named[0]}" TO {wanted}')
    for table, references in _REFERENCES.items():
        for column, target, _ in references:
            wanted = f"fk_{table}_{column}"
            named = [key["name"] for key in found.get_foreign_keys(table) if key["constrained_columns"] == [column]]
            if not named:
                run(f"ALTER TABLE {table} ADD CONSTRAINT {wanted} FOREIGN KEY ({column}) REFERENCES {target} (id)")
            elif wanted not in named:
                run(f'ALTER TABLE {table} RENAME CONSTRAINT "{named[0]}" TO {wanted}')


def is_as_good(tx: Connection, kind: str, table: str, found: Any, wanted: Any) -> bool:
    """Whether a differently declared column of a baseline table is equivalent."""
    if table not in BASELINE:
        return False
    if kind == "modify_type":  # SQLite keeps any value of any declared type
        return tx.dialect.name == "sqlite" or _is_wide(
            found, wanted.impl if isinstance(wanted, TypeDecorator) else wanted
        )
    return kind == "modify_nullable"  # a looser column: what we write has a value


def _is_wide(found: Any, wanted: Any) -> bool:
    if isinstance(found, String) and isinstance(wanted, String):
        return found.length is None or (wanted.length is not None and found.length >= wanted.length)
    same = (Integer, LargeBinary, DateTime)
    return any(isinstance(found, one) and isinstance(wanted, one) for one in same) and not getattr(
        found, "timezone", False
    )


# --- what is not ours ------------------------------------------------------------------------------------------------


@contextmanager
def foreign_objects_kept(connection: Connection) -> Iterator[None]:
    """Take views, triggers and indexes of others out of the way of a migration of SQLite, which rebuilds tables, and create them
    again after it. Raises `MigrationRefused` with the name of one that the new tables cannot have."""
    if connection.dialect.name != "sqlite":
        yield  # PostgreSQL names what depends on what it changes, and refuses
        return
    ours = _VIEWS | frozenset(GUARDS["sqlite"]) | _our_indexes()
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type IN ('view', 'trigger', 'index') AND sql IS NOT NULL"
    foreign = [row for row in connection.execute(text(f"{query} ORDER BY rowid")) if _is_foreign(row, ours)]
    for kind, name, _, _ in reversed(foreign):
        connection.exec_driver_sql(f"DROP {kind} IF EXISTS {_quoted(name)}")
    yield
    for kind, name, table, sql in foreign:
        try:
            _refuse_gone_columns(kind, name, table, sql)
            connection.exec_driver_sql(sql)
            if kind == "view":
                connection.exec_driver_sql(f"SELECT 1 FROM {_quoted(name)} LIMIT 0")
        except exc.DBAPIError as error:
            if kind == "index" and "no such" in str(error.orig):
                continue  # it goes with its column, as on PostgreSQL
            raise MigrationRefused(
                f"The {kind} {name!r} on {table} cannot be kept: {error.orig}. Nothing was changed. Drop it, run the same "
                "command again, and create it anew for the new tables.",
                name=name,
            ) from error


def _is_foreign(row: Any, ours: frozenset[str]) -> bool:
    kind, name, table, _ = row
    if name in ours:
        return False
    if kind != "index":  # a trigger on a table of others may touch ours
        return True
    return table.lower() in {*metadata.tables, *BASELINE, *_VIEWS}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_GONE = re.compile(
    r"\b(?:NEW|OLD)\s*\.\s*\"?(file_id|reference_count)\b|\bOF\s+[^;]*?\b(file_id|reference_count)\b", re.IGNORECASE
)


def _refuse_gone_columns(kind: str, name: str, table: str, sql: str) -> None:
    """Raise `MigrationRefused` for a trigger that reads a column that is gone: SQLite notices only when it fires."""
    if kind == "trigger" and table.lower() in ("dataset_versions", "files") and (gone := _GONE.search(sql)):
        raise MigrationRefused(
            f"The trigger {name!r} on {table} cannot be kept: it reads {gone[1] or gone[2]}, which is removed. Nothing "
            "was changed. Drop it, run the same command again, and create it anew for the new tables.",
            name=name,
        )


def _our_indexes() -> frozenset[str]:
    """The names of our indexes, also those of tables that became views."""
    named = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    return frozenset(named | {"idx_version_files_version", "idx_schema_versions_dataset"})
