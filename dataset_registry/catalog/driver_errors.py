"""The database's errors as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import exc

from dataset_registry.errors import CatalogRefused, CorruptionError, InputError, RetryLater, StorageError

if TYPE_CHECKING:
    from dataset_registry.catalog.engine import Catalog


class Interrupted(Exception):
    """PostgreSQL aborted this transaction (40P01, 40001), or the connection broke before its commit."""


def is_temporary(error: exc.DBAPIError) -> bool:
    """Whether a connection may succeed later: the server is starting, stopping, full, or unreachable."""
    state = getattr(error.orig, "sqlstate", None) or ""
    return not state.startswith(("28", "3D", "42")) and "password authentication failed" not in str(error.orig)


def unusable(catalog: "Catalog", error: exc.DBAPIError) -> str:
    return f"The catalog {catalog.address} cannot be used now: {catalog.hide(str(error.orig).strip())}. Try again."


_UNWRITABLE = frozenset(("25006", "53100"))
"""Errors of PostgreSQL for writes to a read-only database (such as a standby) or a full disk."""


_UNWRITABLE_SQLITE = ("disk is full", "readonly database", "disk I/O error")


@contextmanager
def translated(catalog: "Catalog") -> Iterator[None]:
    """The database's errors as ours."""
    try:
        yield
    except exc.IntegrityError:
        raise
    except exc.TimeoutError as error:
        raise RetryLater(f"All connections to the catalog {catalog.address} are in use. Try again.") from error
    except UnicodeEncodeError as error:
        raise InputError(f"Invalid Unicode in a text of this call: {error.object!r}. Write it in UTF-8.") from error
    except exc.DBAPIError as error:
        reason, cause = catalog.hide(str(error.orig)), catalog.cause(error)
        state = getattr(error.orig, "sqlstate", None)
        if state in ("40P01", "40001"):
            raise Interrupted from cause
        if state in _UNWRITABLE or any(words in reason for words in _UNWRITABLE_SQLITE):
            raise StorageError(
                f"The catalog {catalog.address} cannot be written to: {reason.strip()}. Nothing was committed; free space or fix "
                "the permissions, then try again."
            ) from cause
        if "malformed" in reason or "not a database" in reason:
            raise CorruptionError(
                f"The catalog {catalog.address} is damaged: {reason}. Restore it from a backup (docs/operations.md)."
            ) from cause
        if isinstance(error, exc.DataError):
            raise InputError(
                f"The database refuses a value of this call: {reason.strip()}. Shorten or fix it."
            ) from cause
        is_refused_option = isinstance(error, exc.ProgrammingError) and error.statement is None
        if is_refused_option or not is_temporary(error):
            raise CatalogRefused(
                f"The catalog {catalog.address} cannot be opened: {reason.strip()}. Fix its URL or its grants."
            ) from cause
        if isinstance(error, exc.OperationalError):
            raise RetryLater(unusable(catalog, error)) from cause
        raise
