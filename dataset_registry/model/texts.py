"""Escaping of untrusted texts for a terminal and for Markdown."""

import re
import unicodedata

_JOINERS = "\u200c\u200d"
"""Zero-width characters inside of words and emoji: component names may have them."""

_PLAIN = re.compile(r"[A-Za-z0-9 .:+-]*")
"""What means nothing in Markdown inside of a line, but for addresses that begin with `www.`."""


def is_control(character: str) -> bool:
    """Whether a character controls a terminal."""
    # Cc: C0 and C1 controls. Cf: bidirectional overrides, zero-width characters. Cs: bytes of file names that are not UTF-8.
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS


def shown(text: object, *, lines: bool = False) -> str:
    """A text for people: control, bidirectional and invisible characters as escapes such as `\\x1b`.

    With `lines`, line ends and tabs stay what they are.
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    if lines:
        plain = plain.replace("\r\n", "\n")
    return "".join(
        character.encode("unicode_escape").decode()
        if is_control(character) and not (lines and character in "\n\t")
        else character
        for character in plain
    )


def in_markdown(value: object, *, limit: int = 80) -> str:
    """A value inside of a line of Markdown: as code where it would be markup, a link or HTML otherwise."""
    text = shown(value)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text if _PLAIN.fullmatch(text) and "www." not in text.lower() else as_code(text)


def as_code(text: str) -> str:
    """A text of one line as code in Markdown, whatever backticks it has."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    padding = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{padding}{text}{padding}{fence}"
