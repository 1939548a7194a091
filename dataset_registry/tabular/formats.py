"""The format of a file: by the caller, else by its name, else by its first bytes."""

import os

from dataset_registry.errors import InputError

BINARY = "binary"
"""Any bytes: stored as they are, without a schema."""

_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".xlsb": "excel",
    ".xls": "excel",
    ".ods": "excel",
}
FORMATS = (*dict.fromkeys(_SUFFIXES.values()), BINARY)
TABULAR = FORMATS[:-1]
COMPRESSIBLE = ("csv", "json")
"""Formats that have no compression of their own."""


def is_suffix_of(suffix: str, format: str) -> bool:
    """Whether files of a format may have this suffix; of plain bytes, any that is no other format's."""
    return _SUFFIXES.get(suffix.lower(), BINARY) == format


def usual_suffix(format: str) -> str:
    """The suffix of files of a format, none for plain bytes."""
    return next((suffix for suffix, named in _SUFFIXES.items() if named == format), "")


def is_table(value: object) -> bool:
    """Whether a value is a table of any library: it speaks Arrow's C stream, or is a polars LazyFrame."""
    return hasattr(value, "__arrow_c_stream__") or is_lazy_frame(value)


def is_lazy_frame(value: object) -> bool:
    """Whether a value is a polars LazyFrame."""
    return type(value).__name__ == "LazyFrame" and library_of(value) == "polars"


def library_of(value: object) -> str:
    """The library that a value's type is of, which is not imported for asking."""
    return type(value).__module__.partition(".")[0]


def format_of(given: str | None, name: str | None, start: bytes) -> str:
    """The format of content that begins with `start` and that the caller called `name`.

    Raises `InputError` for an unknown `given`.
    """
    if given is not None:
        if given not in FORMATS:
            raise InputError(f"{given!r} is not a format. Use one of: {', '.join(FORMATS)}.", format=given)
        return given
    if name:
        return _SUFFIXES.get(os.path.splitext(name)[1].lower(), BINARY)
    return "parquet" if start.startswith(b"PAR1") else BINARY
