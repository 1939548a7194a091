"""What all shapes share: the words they are made of, pages, problems."""

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from dataset_registry.errors import RegistryError

_Item = TypeVar("_Item")

MOST_IDS = 2**31 - 1
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=100_000, pattern=r"^[^\x00]*$")]
Word = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
Name = Annotated[str, Field(max_length=10_000)]
"""A name or a ref: whether it is one, the rules of names say, in their own words."""


class ResponseModel(BaseModel):
    """A JSON object that a server answers with. What a newer one says beyond these fields is passed over."""

    model_config = ConfigDict(frozen=True)


class RequestModel(BaseModel):
    """A JSON object that a client sends; what it has beyond its fields is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(BaseModel, Generic[_Item]):
    """A page of a list. `next_cursor` asks for the next one; there is none after null."""

    items: list[_Item]
    next_cursor: str | None = None


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable; `detail` says what to do next."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict)


class CountResponse(ResponseModel):
    """How many datasets, versions or entries that was about."""

    count: int


def errors_by_code() -> dict[str, type[RegistryError]]:
    """Every class of error by its code, to raise on one side what was raised on the other."""
    found: dict[str, type[RegistryError]] = {}
    pending: list[type[RegistryError]] = [RegistryError]
    while pending:
        kind = pending.pop()
        found[kind.code] = kind
        pending += kind.__subclasses__()
    return found
