"""Names and refs, parsed and checked once, where they enter.

No name ever becomes a path: files are stored under their digest. The rules here keep names readable, unambiguous
inside a ref (`raw/flights@main~2`) and free of characters that look like something else.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from dataset_registry.errors import InputError, InvalidName, InvalidRef

_DATASET_SEGMENT = re.compile(r"\w[\w.+=-]*")
_POINTER = re.compile(r"\w[\w.+=/-]*")
_USER = re.compile(r"\w[\w.+@-]*")
_VERSION_NUMBER = re.compile(r"v([1-9][0-9]{0,17})")
_DIGEST_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_STEPS = re.compile(r"([~^])([0-9]{0,9})")

LOST_AND_FOUND = "lost+found"
"""The dataset for content that a repair rescues from the store."""
RUNS = "runs/"
"""The prefix of datasets with the outputs of ops."""

MAX_DATASET_NAME = 255
MAX_POINTER_NAME = 255
MAX_COMPONENT_NAME = 512
MAX_USER_NAME = 255
MAX_TOKEN_NAME = 255


def dataset_name(text: str) -> str:
    """Check and normalise (NFC) the name of a dataset: segments of letters, digits, `_ . + = -`, joined by `/`.

    Raises `InvalidName`.
    """
    name = _normalised(text, "dataset", MAX_DATASET_NAME)
    for segment in name.split("/"):
        if not _DATASET_SEGMENT.fullmatch(segment):
            raise InvalidName(
                f"{text!r} cannot be the name of a dataset: {segment!r} must start with a letter, a digit or '_' and "
                "continue with letters, digits, '_', '.', '+', '=' or '-'. Choose a name like 'raw/flights'.",
                name=text,
            )
    return name


def pointer_name(text: str) -> str:
    """Check and normalise the name of a branch or a tag.

    Names that are another form of ref (`v6`, a full digest) are refused. Raises `InvalidName`.
    """
    name = _normalised(text, "branch or tag", MAX_POINTER_NAME)
    if not _POINTER.fullmatch(name) or ".." in name or "//" in name or name.endswith(("/", ".")):
        raise InvalidName(
            f"{text!r} cannot be the name of a branch or tag: use letters, digits and '_ . + = - /', "
            "starting with a letter, a digit or '_'. Choose a name like 'dev' or 'release-2026.11'.",
            name=text,
        )
    if _VERSION_NUMBER.fullmatch(name) or re.fullmatch(r"[0-9a-f]{64}", name):
        raise InvalidName(
            f"{text!r} cannot be the name of a branch or tag: it means a version by its number or digest. "
            f"Choose another, like 'release-{name[:12]}'.",
            name=text,
        )
    return name


def new_pointer_name(text: str) -> str:
    """Check the name of a branch or a tag that is to be created: a name that could be the first digits of a digest is refused,
    too. Raises `InvalidName`.
    """
    name = pointer_name(text)
    if _DIGEST_PREFIX.fullmatch(name):
        raise InvalidName(
            f"{text!r} cannot be the name of a branch or tag: 4 or more of the characters 0-9 and a-f are the first digits of a "
            f"version's digest. Choose another, like 'release-{name[:12]}'.",
            name=text,
        )
    return name


def is_reserved(name: str) -> bool:
    """Whether a dataset name or a prefix is reserved for administrators."""
    return name == LOST_AND_FOUND or name.startswith((LOST_AND_FOUND + "/", RUNS))


def component_name(text: str) -> str:
    """Check and normalise the name of a component: any printable text (partition keys are component names).

    Raises `InvalidName`.
    """
    return _normalised(text, "component", MAX_COMPONENT_NAME, joiners=True)


def user_name(text: str) -> str:
    """Check and normalise the name of a user, a service or a group: letters, digits, `_ . + @ -`. Raises `InvalidName`."""
    name = _normalised(text, "user", MAX_USER_NAME)
    if not _USER.fullmatch(name):
        raise InvalidName(
            f"{text!r} cannot be the name of a user: use letters, digits and '_ . + @ -', starting with a letter, a digit or "
            "'_'. Choose a name like 'alice' or 'ingest@nightly'.",
            name=text,
        )
    return name


def token_name(text: str) -> str:
    """Check and normalise the name of a token: any printable text. Raises `InvalidName`."""
    return _normalised(text, "token", MAX_TOKEN_NAME, joiners=True)


def name_prefix(text: str) -> str:
    """Check a prefix of dataset names: empty for all of them, or a name that may end in `/`."""
    if text:
        dataset_name(text.removesuffix("/"))
    return unicodedata.normalize("NFC", text)


def free_text(text: str, what: str) -> str:
    """Check a message or a description: any text; of control characters only line ends and tabs. Line ends become `\\n`.

    PostgreSQL stores no NUL, and no database a surrogate: both refuse the same texts. Raises `InputError`.
    """
    return _without_controls(text.replace("\r\n", "\n"), what, allowed="\n\t")


def single_line(text: str, what: str) -> str:
    """Check a text of one line that names something outside of the registry, such as a run. Raises `InputError`."""
    return _without_controls(text, what, allowed="")


def _without_controls(text: object, what: str, *, allowed: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"The {what} must be a text, not {text!r}.")
    if text.isprintable():
        return text
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in allowed:
            raise InputError(
                f"The {what} {text[:40]!r} contains the control character U+{ord(character):04X}. Remove it.", text=text
            )
    return text


_JOINERS = "\u200c\u200d"
"""Zero-width joiners of Persian and Indic scripts and of emoji, which are allowed within words."""


def _normalised(text: object, what: str, limit: int, *, joiners: bool = False) -> str:
    if not isinstance(text, str) or not text:
        raise InvalidName(f"The name of a {what} must be a text that is not empty, not {text!r}.", name=text)
    if text.isascii() and text.isprintable() and len(text) <= limit and text[0] != " " != text[-1]:
        return text
    name = unicodedata.normalize("NFC", text)
    if len(name.encode("utf-8", errors="surrogatepass")) > limit:
        raise InvalidName(
            f"The name of a {what} may have {limit} bytes, {text[:40]!r}… has more. Shorten it.", name=text
        )
    for position, character in enumerate(name):
        if joiners and character in _JOINERS and _joins(name, position):
            continue
        # Cc, Cf (bidi marks, zero-width), Cs, Co, Cn, line and paragraph separators: invisible, or not text at all.
        if unicodedata.category(character)[0] == "C" or unicodedata.category(character) in ("Zl", "Zp"):
            raise InvalidName(
                f"{text!r} cannot be the name of a {what}: it contains the invisible character "
                f"U+{ord(character):04X}. Remove it.",
                name=text,
            )
    if name != name.strip():
        raise InvalidName(
            f"{text!r} cannot be the name of a {what}: it begins or ends with a space. Remove it.", name=text
        )
    return name


def _joins(name: str, position: int) -> bool:
    """Whether the character at a position is between two non-ASCII characters, where joiners are meaningful."""
    around = name[position - 1 : position] + name[position + 1 : position + 2]
    return len(around) == 2 and not any(c.isascii() or c in _JOINERS for c in around)


@dataclass(frozen=True, slots=True)
class Ref:
    """A parsed ref: a start and steps back from it.

    `kind` is how `start` is looked up: `number` (`v6`), else `name` (a branch or tag, then a digest prefix).
    `steps` are those of git: (`~`, n) goes n times to the first parent, (`^`, n) to the n-th parent.
    """

    text: str
    kind: Literal["number", "name"]
    start: str
    steps: tuple[tuple[Literal["~", "^"], int], ...] = ()

    @property
    def number(self) -> int:
        return int(self.start[1:])

    @property
    def could_be_digest(self) -> bool:
        return bool(_DIGEST_PREFIX.fullmatch(self.start))

    def __str__(self) -> str:
        return self.text


def parse_ref(text: str) -> Ref:
    """Parse `main`, `v6`, `nightly-2026-11-24`, `main~2`, `main^2`, `3fa9c1`.

    Raises `InvalidRef` for a text that cannot be a ref in any catalog.
    """
    if not isinstance(text, str) or not text:
        raise InvalidRef(f"Not a ref: {text!r}. Use a text such as 'main' or 'v3'.", ref=text)
    start = re.split(r"[~^]", text, maxsplit=1)[0]
    tail = text[len(start) :]
    matched = "".join(match.group(0) for match in _STEPS.finditer(tail))
    if matched != tail or not start:
        raise InvalidRef(
            f"{text!r} is not a ref. Use a branch or tag, a version number like 'v3', at least 4 digits of a digest, "
            "and '~2' or '^2' behind any of them.",
            ref=text,
        )
    steps = tuple((sign, int(count) if count else 1) for sign, count in _STEPS.findall(tail))
    if _VERSION_NUMBER.fullmatch(start):
        return Ref(text, "number", start, steps)
    try:
        return Ref(text, "name", pointer_name(start), steps)
    except InvalidName as error:
        if re.fullmatch(r"[0-9a-f]{64}", start):
            return Ref(text, "name", start, steps)
        raise InvalidRef(
            f"{text!r} is not a ref. Use a branch or tag, a version number like 'v3', or at least 4 digits of a digest.",
            ref=text,
        ) from error


_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?:@(.*))?', re.DOTALL)


def split_address(text: str) -> tuple[str, str | None]:
    """Split `raw/flights@main~2` into the name of the dataset and the ref (None when there is no `@`).

    Datasets of legacy catalogs may have names that are not allowed for new ones: quote these, as in
    `"my data@set"@v1` (with `\\` before `"` and `\\`). Raises `InvalidName` for a quotation that does not end.
    """
    if text.startswith('"'):
        quoted = _QUOTED.fullmatch(text)
        if quoted is None:
            raise InvalidName(f'{text!r} is not an address: write a quoted name like "my data set"@main.', name=text)
        return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), quoted[2]
    name, at, ref = text.partition("@")
    with suppress(InvalidName):  # who looks it up says so, if there is none
        name = dataset_name(name)
    return name, (ref if at else None)


def several(given: str | Iterable[str]) -> tuple[str, ...]:
    """A tuple of texts; a single text becomes one item, not its characters."""
    return (given,) if isinstance(given, str) else tuple(given)


def suggestion(name: str, there: Sequence[str]) -> str:
    """The hint for an unknown name: the most similar one, or a list of all names."""
    near = difflib.get_close_matches(name, there, 1)
    return f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(map(repr, there[:20]))}."


MAIN = "main"
"""The default branch."""
DATA = "data"
"""The default name of a component: that of a dataset with one table."""
