"""What the routes of pages share: the visitor, the registry, forms, and paging."""

from typing import Annotated, Any

from fastapi import Depends, Request

from dataset_registry.access import Access
from dataset_registry.embedded import EmbeddedRegistry
from dataset_registry.errors import InputError, PermissionDenied
from dataset_registry.server.pages.sessions import Visitor


def visitor_of(request: Request) -> Visitor:
    """The visitor of a page."""
    visitor: Visitor = request.state.visitor
    return visitor


def access_of(request: Request) -> Access:
    """The access of the visitor."""
    return visitor_of(request).access


def registry_of(request: Request) -> EmbeddedRegistry:
    """The registry, opened as the visitor."""
    return EmbeddedRegistry(visitor_of(request).access)


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form of this session; of fields with several values, the last one. Raises `PermissionDenied`."""
    async with request.form(max_files=0, max_fields=200) as form:
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
    if fields.pop("form_key", None) != visitor_of(request).form_key:
        raise PermissionDenied("The form is not of this session. Open the page again, and send it again.")
    return fields


VisitorDep = Annotated[Visitor, Depends(visitor_of)]
AccessDep = Annotated[Access, Depends(access_of)]
RegistryDep = Annotated[EmbeddedRegistry, Depends(registry_of)]
FormDep = Annotated[dict[str, str], Depends(form_of)]


def whole(query: Any, name: str, default: int) -> int:
    """A whole number of a query. Raises `InputError`."""
    text = query.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"{name} is a whole number, not {text!r}.")
    return int(text)
