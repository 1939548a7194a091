"""Texts that others wrote: as a terminal and as Markdown show them."""

import json
import unicodedata
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dataset_registry.model.texts import as_code, in_markdown, shown


def controls(text: str) -> list[str]:
    return [ascii(c) for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain – Zürich\u00a0שלום 🛫", "plain – Zürich\u00a0שלום 🛫"),
        ("می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),
        ("a\nb\tc\r\n", r"a\nb\tc\r\n"),
        ("\0\x1b\x9b\u200e\u2028\udc80\U000e0041", r"\x00\x1b\x9b\u200e\u2028\udc80\U000e0041"),
    ],
)
def test_a_character_that_cannot_be_seen_is_an_escape(text: str, seen: str) -> None:
    assert shown(text) == seen


@given(st.text(st.characters(exclude_characters="\u200c\u200d")))
def test_no_text_controls_a_terminal(text: str) -> None:
    assert controls(shown(text)) == []
    assert controls(shown(text, lines=True).replace("\n", "").replace("\t", "")) == []


@pytest.mark.parametrize("value", [1, -2.5, "ann", "2013-01-01 05:00:00", datetime(2013, 1, 1), True, "a b"])
def test_a_plain_value_is_not_marked_in_markdown(value: object) -> None:
    assert in_markdown(value) == str(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("<script>alert(1)</script>", "`<script>alert(1)</script>`"),
        ("[x](https://e.example)", "`[x](https://e.example)`"),
        ("WWW.e.example", "`WWW.e.example`"),
        ("a|b", "`a|b`"),
        ("`a``b`", "``` `a``b` ```"),
        ("a\n\n# b", r"`a\n\n# b`"),
        ("x" * 100, "x" * 79 + "…"),
    ],
)
def test_what_would_be_markup_is_code_in_markdown(value: str, text: str) -> None:
    assert in_markdown(value) in (text, f"`{text}`")


@given(st.text(st.sampled_from("`<a>[]()!*_\\|&;~#:/.www \n"), min_size=1, max_size=30))
def test_no_text_is_markup(text: str) -> None:
    (paragraph, inline, end) = MarkdownIt("commonmark").parse(
        f"from {in_markdown(text)} to {as_code(shown(text))}; 1 nulls"
    )
    assert (paragraph.type, end.type) == ("paragraph_open", "paragraph_close")
    assert {child.type for child in inline.children or ()} <= {"text", "code_inline"}
    assert json.loads(json.dumps(inline.content)) == inline.content
    (code,) = [child.content for child in inline.children or () if child.type == "code_inline"][-1:]
    assert code == shown(text) or (text.isspace() and code.strip() == "")
