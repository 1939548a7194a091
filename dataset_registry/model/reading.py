"""Read options: how to read a delivered file, where the file itself does not specify it.

They are part of a component's format, so of its digest: the same bytes read in two ways are two contents. A format is
written like a media type, `csv; {"delimiter":";"}`, with canonical JSON behind the kind.
"""

import codecs
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from dataset_registry.errors import InputError
from dataset_registry.model.manifest import canonical_json

_CHARSET = re.compile(r"; charset=([A-Za-z0-9_.:-]{1,30})")
_OF_CSV = frozenset(("delimiter", "quote", "header", "skip_rows", "comment", "decimal", "null_values"))
_OF_TEXT = frozenset(("types", "encoding", "date_format"))
_ALLOWED: Mapping[str, frozenset[str]] = {
    "csv": _OF_CSV | _OF_TEXT,
    "json": _OF_TEXT,
    "excel": frozenset(("sheet", "header", "skip_rows", "null_values")),
}
TEXTUAL = frozenset(_ALLOWED)
"""Formats without column types: types are detected, and read options can set them."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a delivered file is to be read. None means: as the file itself tells.

    `types` gives the type of columns by name (`string`, `int64`, `double`, `decimal128(10, 2)`, `date32`, `timestamp[us]`,
    `timestamp[us, tz=UTC]`, `time64[us]`, `bool`); the others are found. `header` says whether the first row has the names,
    `skip_rows` how many lines stand before it. `comment` begins a comment ("" for none), `quote` quotes a field ("" for
    none). `decimal` is "." or ",". `null_values` mean null, beside the empty unquoted field (of a spreadsheet: errors such
    as `#N/A`). `date_format` (strptime) is that of dates and timestamps. `sheet` is the one sheet of a spreadsheet to read.
    """

    types: Mapping[str, str] | None = None
    delimiter: str | None = None
    header: bool | None = None
    skip_rows: int | None = None
    comment: str | None = None
    quote: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    null_values: tuple[str, ...] | None = None
    date_format: str | None = None
    sheet: str | None = None

    def __bool__(self) -> bool:
        return self != NONE

    def to_json(self) -> dict[str, Any]:
        """The options that are set, by name."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: dict(value) if name == "types" else list(value) if name == "null_values" else value
            for name, value in given.items()
            if value is not None
        }


NONE = ReadOptions()
OPTIONS = tuple(field.name for field in fields(ReadOptions))


def read_options(given: Mapping[str, Any] | None) -> tuple[ReadOptions, str | None]:
    """Parse the options of a user, and the `format` among them. Raises `InputError`."""
    if given is None:
        return NONE, None
    if not isinstance(given, Mapping):
        raise InputError(
            f"read is a dict such as {{'delimiter': ';'}}, not {given!r}. Its keys: format, {', '.join(OPTIONS)}."
        )
    values = dict(given)
    format = values.pop("format", None)
    if format is not None and not isinstance(format, str):
        raise InputError(f"The read option 'format' must be a text, not {format!r}.", option="format")
    for name, value in values.items():
        if name not in OPTIONS:
            near = difflib.get_close_matches(str(name), OPTIONS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"{name!r} is not a read option.{hint} The options are: format, {', '.join(OPTIONS)}.", option=str(name)
            )
        _check(name, value)
    values = {name: value for name, value in values.items() if value is not None}
    if "types" in values:
        values["types"] = dict(sorted(values["types"].items()))
    if "null_values" in values:
        values["null_values"] = tuple(values["null_values"])
    return ReadOptions(**values), format


def _check(name: str, value: Any) -> None:
    """Raise `InputError` for a value that an option cannot have."""
    expected = None
    match name, value:
        case _, None:
            pass
        case "types", _:
            if not (isinstance(value, Mapping) and all(isinstance(v, str) for kv in value.items() for v in kv)):
                expected = "a dict of column names and types, such as {'zip': 'string'}"
        case "null_values", _:
            if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(v, str) for v in value):
                expected = "a list of texts, such as ['NA', '-']"
        case "header", _:
            if not isinstance(value, bool):
                expected = "true or false"
        case "skip_rows", _:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
                expected = "a number of lines, 0 or more"
        case (("delimiter" | "quote" | "comment"), _):
            shortest = 1 if name == "delimiter" else 0
            if not isinstance(value, str) or not shortest <= len(value) <= 1 or value in ("\n", "\r", "\0"):
                expected = "one character" + ("" if shortest else ', or "" for none')
        case "decimal", _:
            if value not in (".", ","):
                expected = "'.' or ','"
        case "encoding", _:
            if not _is_text_encoding(value):
                expected = "the name of a codec of Python, such as 'cp1252', 'latin-1' or 'utf-16'"
        case "date_format", _:
            if not isinstance(value, str) or not _says_a_day(value):
                expected = (
                    "a strptime format with year, month and day, and with the hour if it has minutes, such as '%d.%m.%Y' or "
                    "'%Y-%m-%d %H:%M:%S', without time zones, nanoseconds and locale formats"
                )
        case _:
            if not isinstance(value, str) or not value:
                expected = "a text"
    if expected:
        raise InputError(f"The read option {name!r} must be {expected}, not {value!r}.", option=name)


def _says_a_day(date_format: str) -> bool:
    """Whether a strptime format is complete: it has year, month and day."""
    found = re.findall(r"%-?.?", date_format)
    said = {directive[-1] for directive in found}
    is_day = bool(said & set("Yy")) and ((bool(said & set("mbB")) and "d" in said) or "j" in said)
    is_hour = "H" in said or {"I", "p"} <= said
    is_half = bool(said & set("Ip")) and not {"I", "p"} <= said
    return said <= set("aAdbBmyYHIpMSfgj%") and is_day and not is_half and (is_hour or not said & set("MSfg"))


def _is_text_encoding(name: object) -> bool:
    try:
        return isinstance(name, str) and bool(codecs.lookup(name)._is_text_encoding)
    except (LookupError, ValueError):
        return False


# --- formats as they stand in a manifest -----------------------------------------------------------------------------


def with_options(kind: str, options: ReadOptions) -> str:
    """Add read options to a format. Raises `InputError` for an option that the format does not have."""
    if not options:
        return kind
    given = options.to_json()
    if other := sorted(given.keys() - _ALLOWED.get(kind, frozenset())):
        fits = sorted(name for name, allowed in _ALLOWED.items() if other[0] in allowed)
        raise InputError(
            f"The read option {other[0]!r} is for {' and '.join(fits)} files, and this is read as {kind}. Remove it, or give "
            f"the format with it: read={{'format': {fits[0]!r}}}.",
            option=other[0],
        )
    if given.keys() == {"encoding"} and kind == "csv" and len(given["encoding"]) <= 30:
        return f"{kind}; charset={given['encoding']}"  # as it was written before there were other options
    return f"{kind}; {canonical_json(given)}"


def kind_of(format: str) -> str:
    """The format without its options."""
    return format.partition(";")[0]


def options_of(format: str) -> ReadOptions:
    """The read options of a format."""
    if found := _CHARSET.search(format):
        return ReadOptions(encoding=found[1])
    text = format.partition("; ")[2]
    return read_options(json.loads(text))[0] if text else NONE
