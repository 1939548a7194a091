"""Column types and functions that SQLite and PostgreSQL spell differently."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Integer, String, Text, literal
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

Id = Integer
"""Row ids, as the original catalog has them."""

Json = JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
"""JSON for queries. JSON under a digest is stored as text instead: JSONB changes `1e22` and `-0.0`."""

Format = String(50).with_variant(Text(), "postgresql")
"""The format of a component, with its read options: of any length, which SQLite never minded."""

Bytewise = Text(collation="BINARY").with_variant(Text(collation="C"), "postgresql")
"""Text ordered by its UTF-8 bytes."""


EARLIEST, LATEST = datetime(1, 1, 2), datetime(9999, 12, 30)
"""The values for timestamps out of Python's range in legacy catalogs, such as `infinity`, years before 1, and invalid
texts. The rows are not changed. (One day from the limits, so that they can be shown in any time zone.)"""


class _SQLiteMoment(sqlite.DATETIME):
    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        parse = super().result_processor(dialect, coltype)

        def process(value: Any) -> datetime | None:
            try:
                return parse(value) if parse is not None else value
            except (ValueError, TypeError):
                return EARLIEST

        return process


class Timestamp(TypeDecorator[datetime]):
    """A timestamp, stored as UTC without a zone (the original columns are TIMESTAMP), read with the zone UTC."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        moment: Any = _SQLiteMoment if dialect.name == "sqlite" else DateTime
        return dialect.type_descriptor(moment())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        process = super().result_processor(dialect, coltype)
        if dialect.name != "sqlite":
            return process

        def parse(value: Any) -> datetime | None:
            try:
                return None if value is None else datetime.fromisoformat(value + "+00:00")  # what this package wrote
            except (ValueError, TypeError):
                return process(value)  # type: ignore[misc]  # a decorator always has a processor

        return parse


class utc_now(FunctionElement[datetime]):  # noqa: N801 - an SQL function, named like one
    """Now, by the database's clock; `seconds` later when given."""

    type = Timestamp()
    inherit_cache = True

    def __init__(self, seconds: int | None = None) -> None:
        super().__init__(*(() if seconds is None else (literal(seconds),)))


@compiles(utc_now, "sqlite")
def _sqlite_now(element: utc_now, compiler: Any, **options: Any) -> str:
    later = "".join(f", {compiler.process(seconds, **options)} || ' seconds'" for seconds in element.clauses)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now'{later}) || '000')"


@compiles(utc_now, "postgresql")
def _postgresql_now(element: utc_now, compiler: Any, **options: Any) -> str:
    later = "".join(f" + make_interval(secs => {compiler.process(seconds, **options)})" for seconds in element.clauses)
    return f"(clock_timestamp() AT TIME ZONE 'utc'{later})"
