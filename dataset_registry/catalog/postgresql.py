"""Connections to PostgreSQL: settings, JSON with NUL, timestamps out of Python's range."""

import json
import re
from datetime import datetime
from time import monotonic
from typing import Any

from sqlalchemy import exc

from dataset_registry.catalog.prepared import pipelines
from dataset_registry.catalog.types import EARLIEST, LATEST

_IDLE = 3.0
"""Idle seconds after which a pooled connection is checked before it is used."""


PLANNING = "-crandom_page_cost=1.1"
"""Look-ups are usually served from memory or an SSD. With PostgreSQL's default of 4, plans that are cached while the
catalog is small scan whole tables later."""


LOCK_SECONDS = 30
"""How long a statement waits for a lock on PostgreSQL, as `BUSY_SECONDS` on SQLite."""


IDLE_SECONDS = 120
"""Maximum idle seconds of a transaction on PostgreSQL, so that a hanging client does not keep its locks."""


TIMEOUTS = f"-clock_timeout={LOCK_SECONDS}s -cidle_in_transaction_session_timeout={IDLE_SECONDS}s"


_NUL_IN_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


_NUL_SIGN = "\ufdd0"
"""The replacement for the character NUL, which JSONB does not support but names of columns may contain. It is a Unicode
noncharacter, which no text contains."""


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
    """Read timestamps out of Python's range as `types.EARLIEST` and `LATEST`."""
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


def waiting_cursor() -> type[Any]:
    """The cursors of connections that are `pipelined`: SQLAlchemy asks them at once what their answer looks like, so they wait
    for it."""
    from psycopg import Cursor

    class WaitingCursor(Cursor[Any]):
        @property
        def description(self) -> Any:
            self.wait()
            return super().description

        @property
        def rowcount(self) -> int:
            self.wait()
            return super().rowcount

        def wait(self) -> None:
            if self.pgresult is None and (pipeline := pipelines.get(self.connection)) is not None:
                pipeline.sync()

    return WaitingCursor


def check_idle(connection: Any, record: Any, proxy: object) -> None:
    """Check that an idle connection is still open: a restarted server has closed it."""
    if monotonic() - record.info.get("used", monotonic()) > _IDLE:
        try:
            connection.execute("SELECT 1")
            connection.rollback()
        except Exception as error:
            raise exc.DisconnectionError from error
