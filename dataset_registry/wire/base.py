"""Base classes of the JSON models: field types, pages, problems."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dataset_registry.errors import RegistryError

_Item = TypeVar("_Item")
_Value = TypeVar("_Value")

MOST_IDS = 2**31 - 1
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=100_000, pattern=r"^[^\x00]*$")]
Word = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
Name = Annotated[str, Field(max_length=10_000)]
"""A name or a ref; `model.names` checks it and raises its own errors."""


class ResponseModel(BaseModel):
    """A response of a server. Unknown fields, as from a newer server, are ignored."""

    model_config = ConfigDict(frozen=True)


class RequestModel(BaseModel):
    """A request of a client. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Mapped(ResponseModel, Generic[_Value]):
    """A JSON object with the fields of a model value, mapped once for both directions.

    `attributes` has the attribute of the value for each field whose name differs on the wire.
    """

    attributes: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def of(cls, value: _Value) -> Self:
        """The JSON object of a value."""
        return cls.model_validate(value)

    @model_validator(mode="before")
    @classmethod
    def _from_value(cls, data: Any) -> Any:
        """Accept a model value in place of its JSON object."""
        if isinstance(data, dict) or not (is_dataclass(data) or hasattr(data, "_fields")):
            return data
        return {name: getattr(data, cls.attributes.get(name, name)) for name in cls.model_fields}

    def value(self) -> _Value:
        """The value of the JSON object."""
        fields = type(self).model_fields
        found = {self.attributes.get(name, name): _value_of(getattr(self, name)) for name in fields}
        kind: type[_Value] = _kind_of(type(self))
        return kind(**found)


def _value_of(found: Any) -> Any:
    if isinstance(found, Mapped):
        return found.value()
    if isinstance(found, list):
        return tuple(map(_value_of, found))
    if isinstance(found, dict) and any(isinstance(item, Mapped) for item in found.values()):
        return {name: _value_of(item) for name, item in found.items()}
    return found


@cache
def _kind_of(mapped: type[Mapped[Any]]) -> Any:
    """The model class that a JSON class maps."""
    arguments = (base.__pydantic_generic_metadata__["args"] for base in mapped.__mro__ if issubclass(base, BaseModel))
    return next(found[0] for found in arguments if found)


class Page(BaseModel, Generic[_Item]):
    """A page of a list. `next_cursor` is the cursor of the next page, null on the last one."""

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
    """The number of affected datasets, versions or entries."""

    count: int


def errors_by_code() -> dict[str, type[RegistryError]]:
    """Every class of error by its code, so that the client raises the error of the server."""
    found: dict[str, type[RegistryError]] = {}
    pending: list[type[RegistryError]] = [RegistryError]
    while pending:
        kind = pending.pop()
        found[kind.code] = kind
        pending += kind.__subclasses__()
    return found
