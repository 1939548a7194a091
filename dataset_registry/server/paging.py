"""Paging of lists by a limit and an opaque cursor."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from dataset_registry.errors import InputError
from dataset_registry.wire.base import Page

_Record = TypeVar("_Record")
_Item = TypeVar("_Item")

Limit = Annotated[int, Query(ge=1, le=1000, description="Maximum number of items of a page.")]
Cursor = Annotated[str | None, Query(max_length=2000, description="`next_cursor` of the previous page.")]


def encode(position: str | int) -> str:
    """A position as a cursor."""
    return base64.urlsafe_b64encode(str(position).encode()).decode()


def decode(cursor: str | None) -> str | None:
    """The position of a cursor. Raises `InputError`."""
    if cursor is None:
        return None
    try:
        return base64.b64decode(cursor.encode(), b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise _bad(cursor) from error


def number(cursor: str | None) -> int | None:
    """The position of a cursor that is a number. Raises `InputError`."""
    text = decode(cursor)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _bad(str(cursor))
    return int(text)


def _bad(cursor: str) -> InputError:
    return InputError(f"Invalid cursor {cursor!r}: expected next_cursor of the previous page.", cursor=cursor)


def page(
    found: Sequence[_Record],
    limit: int,
    shape: Callable[[_Record], _Item],
    position: Callable[[_Record], str | int],
) -> Page[_Item]:
    """A page of `limit` records; one record more means that there is another page."""
    items = [shape(record) for record in found[:limit]]
    more = encode(position(found[limit - 1])) if len(found) > limit else None
    return Page(items=items, next_cursor=more)


def slice_of(
    found: Sequence[_Record], cursor: str | None, limit: int, shape: Callable[[_Record], _Item]
) -> Page[_Item]:
    """A page of a whole list that does not change."""
    start = number(cursor) or 0
    items = [shape(record) for record in found[start : start + limit]]
    return Page(items=items, next_cursor=encode(start + limit) if start + limit < len(found) else None)
