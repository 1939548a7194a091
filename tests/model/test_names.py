"""Names and refs: what is accepted, what is refused, and that nothing unreadable gets through."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_registry.errors import InvalidName, InvalidRef
from dataset_registry.model.names import (
    component_name,
    dataset_name,
    name_prefix,
    parse_ref,
    pointer_name,
    split_address,
)

BAD_DATASETS = [
    *(
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "..",
        "a/../b",
        ".hidden",
        "a/.b",
        "a b",
        "a@b",
        "a~b",
        "a^b",
        "a:b",
        "a%2eb",
        "a\\b",
    ),
    *("a\0b", "a\nb", "a\u202eb", "a\u200bb", "-a", "a*", "x" * 256, "\ud800"),
]
BAD_POINTERS = [
    "",
    "v1",
    "v42",
    "a..b",
    "a b",
    "a~1",
    "a^",
    "a@b",
    "/a",
    "a/",
    "a//b",
    "a.",
    "-x",
    "a\u202eb",
    "f" * 64,
]


@pytest.mark.parametrize("name", BAD_DATASETS)
def test_a_bad_dataset_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        dataset_name(name)


@pytest.mark.parametrize(
    "name", ["a", "raw/flights", "Überblick/Größe", "日本/東京", "a.b+c=d-e_f", "2024", "CON", "nul.txt"]
)
def test_a_good_dataset_name_is_kept(name: str) -> None:
    assert dataset_name(name) == name


def test_names_are_normalised_so_that_equal_looking_ones_are_equal() -> None:
    decomposed = unicodedata.normalize("NFD", "Größe")
    assert decomposed != "Größe"
    assert dataset_name(decomposed) == pointer_name(decomposed) == component_name(decomposed) == "Größe"


@pytest.mark.parametrize("name", BAD_POINTERS)
def test_a_bad_branch_or_tag_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        pointer_name(name)


@pytest.mark.parametrize("name", ["main", "v1.0", "release/2026-11", "nightly-2026-11-24", "pr-12", "abcdef", "v0"])
def test_a_good_branch_or_tag_name_is_kept(name: str) -> None:
    assert pointer_name(name) == name


@pytest.mark.parametrize("name", ["2024-01-01", "a|b", "a/b", "with space", "x" * 512, "ä%2e", "../up"])
def test_a_component_may_have_any_printable_name(name: str) -> None:
    assert component_name(name) == name


@pytest.mark.parametrize("name", ["", " a", "a ", "a\0", "a\tb", "x" * 513, "\u202e", None, 3])
def test_a_component_name_that_cannot_be_seen_is_refused(name: object) -> None:
    with pytest.raises(InvalidName):
        component_name(name)  # type: ignore[arg-type]


@given(st.text())
def test_no_accepted_dataset_name_leaves_its_place(text: str) -> None:
    try:
        name = dataset_name(text)
    except InvalidName:
        return
    assert not set(name) & set('\0\\:*?"<>|%@~^ \n')
    assert all(segment not in ("", ".", "..") for segment in name.split("/"))


@pytest.mark.parametrize(
    ("text", "kind", "start", "steps"),
    [
        ("main", "name", "main", ()),
        ("v6", "number", "v6", ()),
        ("main~2", "name", "main", (("~", 2),)),
        ("v6~", "number", "v6", (("~", 1),)),
        ("main^2~3", "name", "main", (("^", 2), ("~", 3))),
        ("3fa9c1", "name", "3fa9c1", ()),
        ("f" * 64, "name", "f" * 64, ()),
        ("release/1.0", "name", "release/1.0", ()),
    ],
)
def test_a_ref_is_a_start_and_steps(text: str, kind: str, start: str, steps: tuple[tuple[str, int], ...]) -> None:
    ref = parse_ref(text)
    assert (ref.kind, ref.start, ref.steps) == (kind, start, steps)


@pytest.mark.parametrize("text", ["", "~2", "main~x", "main~2x", "a b", "main~~^^z", "..", None])
def test_what_is_no_ref_is_refused(text: object) -> None:
    with pytest.raises(InvalidRef):
        parse_ref(text)  # type: ignore[arg-type]


def test_an_address_is_a_dataset_and_a_ref() -> None:
    assert split_address("raw/flights@main~2") == ("raw/flights", "main~2")
    assert split_address("raw/flights") == ("raw/flights", None)


def test_a_prefix_is_a_name_that_may_end_in_a_slash() -> None:
    assert name_prefix("") == ""
    assert name_prefix("raw/") == "raw/"
    with pytest.raises(InvalidName):
        name_prefix("raw//")
