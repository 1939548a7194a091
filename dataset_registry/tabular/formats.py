"""Which format a file has: by what the caller says, else by its name, else by its first bytes."""

from pathlib import PurePath

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


def format_of(given: str | None, name: str | None, start: bytes) -> str:
    """The format of content that begins with `start` and that the caller called `name`.

    Raises `InputError` for an unknown `given`.
    """
    if given is not None:
        if given not in FORMATS:
            raise InputError(f"{given!r} is not a format. Use one of: {', '.join(FORMATS)}.", format=given)
        return given
    if name:
        return _SUFFIXES.get(PurePath(name).suffix.lower(), BINARY)
    return "parquet" if start.startswith(b"PAR1") else BINARY
