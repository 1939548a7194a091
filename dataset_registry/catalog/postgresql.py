"""Connections to PostgreSQL: settings, JSON with NUL, moments that Python has no value for."""

import json
import re
from datetime import datetime
from time import monotonic
from typing import Any

from sqlalchemy import exc

from dataset_registry.catalog.types import EARLIEST, LATEST

_IDLE = 3.0
"""Seconds after which a pooled connection is looked at before it is used."""


PLANNING = "-crandom_page_cost=1.1"
"""What statements look up is in memory, as a rule, or on a disk without a head. With PostgreSQL's default of 4 a plan that was
made while the catalog was small, and is kept as long as the connection, reads whole tables later on."""


LOCK_SECONDS = 30
"""How long a statement waits for a lock on PostgreSQL, as `BUSY_SECONDS` on SQLite."""


IDLE_SECONDS = 120
"""How long a transaction may do nothing on PostgreSQL before it is ended: a client that hangs holds its locks no longer."""


TIMEOUTS = f"-clock_timeout={LOCK_SECONDS}s -cidle_in_transaction_session_timeout={IDLE_SECONDS}s"


_NUL_IN_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


_NUL_SIGN = "\ufdd0"
"""What PostgreSQL stores for the character NUL, which JSONB does not take: columns may be called anything. No text has this
character, which Unicode keeps for uses such as this one."""


def json_without_nul(value: object) -> str:
    text = json.dumps(value)
    return _NUL_IN_JSON.sub(r"\1\\ufdd0", text) if "\\u0000" in text else text


def json_with_nul(data: str | bytes) -> Any:
    text = data if isinstance(data, str) else data.decode()
    return json.loads(text.replace(_NUL_SIGN, "\\u0000"))


def escaped_schema(schema: str) -> str:
    """A schema's name as an identifier, escaped for libpq's options."""
    quoted = '"' + schema.replace('"', '""') + '"'
    return quoted.replace("\\", "\\\\").replace(" ", "\\ ")


def read_any_moment(connection: Any, record: object) -> None:
    """Let psycopg read moments that Python has no value for, as `types.EARLIEST` and `LATEST`."""
    from psycopg.errors import DataError
    from psycopg.types.datetime import TimestampLoader

    class Loader(TimestampLoader):
        def load(self, data: Any) -> datetime:
            try:
                return super().load(data)
            except DataError:
                text = bytes(data)
                return EARLIEST if text.startswith(b"-") or text.endswith(b"BC") else LATEST

    connection.adapters.register_loader("timestamp", Loader)


def check_idle(connection: Any, record: Any, proxy: object) -> None:
    """Whether a connection that lay idle is alive still: a server that was restarted has closed it."""
    if monotonic() - record.info.get("used", monotonic()) > _IDLE:
        try:
            connection.execute("SELECT 1")
            connection.rollback()
        except Exception as error:
            raise exc.DisconnectionError from error
