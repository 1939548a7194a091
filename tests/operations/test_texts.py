"""Texts that people write: both databases take the same ones, and refuse the same ones with the same error."""

from collections.abc import Callable

import pyarrow as pa
import pytest

from dataset_registry import Dataset, Provenance, Registry
from dataset_registry.embedded import EmbeddedRegistry
from dataset_registry.errors import InputError, InvalidName, NotFound
from dataset_registry.model.records import InputVersion

CONTROLS = ["\0", "\x07", "\x08", "\x1b[31m", "\r", "\x7f", "\x9b31m", "\udc80"]


def _commit(**provenance: object) -> Callable[[Dataset, str], object]:
    def commit(dataset: Dataset, text: str) -> object:
        given = {name: value(text) if callable(value) else value for name, value in provenance.items()}
        return dataset.commit({"data": b"x"}, provenance=Provenance(**given))

    return commit


REFUSALS: dict[str, Callable[[Dataset, str], object]] = {
    "message": lambda d, text: d.commit({"data": b"x"}, message=text),
    "reason": lambda d, text: EmbeddedRegistry(d.access).freeze(text),
    "description": lambda d, text: d.update(description=text),
    "run": _commit(run_id=str),
    "step": _commit(step=str),
    "asset key": _commit(asset_key=str),
    "partition": _commit(partition=str),
    "code version": _commit(code_version=str),
    "input": _commit(inputs=lambda text: [InputVersion("raw/flights", 1, None, "main", (), None, text)]),
    "components read": _commit(inputs=lambda text: [InputVersion("raw/flights", 1, None, "main", (text,))]),
}


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
@pytest.mark.parametrize("where", REFUSALS)
def test_control_characters_are_refused(embedded: Registry, where: str, control: str) -> None:
    flights = embedded.create_dataset("raw/flights")
    with pytest.raises(InputError, match=r"contains the control character U\+"):
        REFUSALS[where](flights, f"a{control}b")
    assert flights.tree() == []
    assert flights.description is None


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_control_characters_are_refused_of_what_creates_something(embedded: Registry, control: str) -> None:
    registry = embedded
    registry.create_user("alice", role="administrator")
    registry.create_user("bob")
    text = f"a{control}b"
    for call in (
        lambda: registry.create_dataset("raw/costs", description=text),
        lambda: registry.draft("raw/costs", description=text),
        lambda: registry.create_token("bob", name=text),
    ):
        with pytest.raises(InputError, match=r"character U\+"):
            call()
    assert registry.datasets() == []
    assert registry.tokens("bob") == []


def test_a_message_has_lines_tabs_and_any_script(flights: Dataset) -> None:
    flights.commit({"data": b"x"}, message="July\r\n\n\t* שלום \u202bעולם\u202c 👩‍👩‍👧\n")
    assert flights.version().message == "July\n\n\t* שלום \u202bעולם\u202c 👩‍👩‍👧\n"


def test_the_name_of_a_token_is_printable(registry: Registry) -> None:
    registry.create_user("alice", role="administrator")
    registry.create_user("bob")
    assert registry.create_token("bob", name="Bob's laptop, näher").token.name == "Bob's laptop, näher"
    for name in ("", "x" * 256, "\u202eevil", " x", "a\nb"):
        with pytest.raises(InvalidName):
            registry.create_token("bob", name=name)


@pytest.mark.parametrize("text", ["a\0", "a\udc80"], ids=ascii)
def test_what_no_database_stores_is_not_found(registry: Registry, flights: Dataset, text: str) -> None:
    for call in (
        lambda: registry.dataset(text),
        lambda: registry.tokens(text),
        lambda: registry.grant(text, "read", "raw/flights"),
        lambda: registry.grants(user=text),
        lambda: registry.audit(actor=text),
        lambda: registry.audit(action=text),
        lambda: registry.audit(dataset=text),
        lambda: registry.delete_branch(text),
        lambda: flights.version(text),
    ):
        with pytest.raises((InputError, NotFound)) as caught:
            call()
        assert "The database refuses" not in str(caught.value)


def test_a_column_may_be_called_anything(flights: Dataset) -> None:
    names = ["a\0b", "\0", "a\\u0000b", "a\\\0", "\x1b[31m", "\u202e"]
    flights.commit({"data": pa.table({name: ["\0"] for name in names}), "more": b'{"a\\u0000b": "\\u0000"}'})
    flights.commit({"x": b"x"}, provenance=Provenance(metadata={"a\0": ["\0", "\\u0000"]}))
    version = flights.version()
    assert [column.name for column in version.schema.components["data"].tables[0].columns] == names
    assert version.to_arrow("data").column_names == names
    assert version.provenance.metadata == {"a\0": ["\0", "\\u0000"]}
    assert flights.commit({"data": pa.table({name: ["\0"] for name in names})}) == version
