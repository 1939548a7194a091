"""Tables as lists of parts: the digest of a table is the digest of its canonical list, format `parts/2`.

A table and a file share the column `content_hash`, so a table's digest must be one that no file can have. The SHA-256 of the
list (`parts/1`, up to release 0.1) does not ensure this: a file with that text has the same hash. BLAKE2b-256 does: a
file whose SHA-256 equals it would be a preimage of SHA-256.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = "parts/2"
LEGACY_FORMAT = "parts/1"
TABLE = "parquet"
"""The format of a component that is a table. A component of another format never reads a table's parts."""


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file of a table: its SHA-256, its size in bytes, its rows."""

    content_hash: str
    size: int
    rows: int


RULE = 3
"""The newest form of a chunking rule."""


@dataclass(frozen=True, slots=True)
class ChunkingRule:
    """Where the parts of a table end (see `tabular.chunking`): the columns of the row hash, the average number of rows
    (a power of two), and the resulting number of parts. Columns and rows stay the same through the history of a table,
    so that unchanged rows stay in the same parts. So does its form, 1 to 3: which rows end parts, and how values are encoded.
    """

    columns: tuple[str, ...]
    rows: int
    parts: int = 0
    form: int = RULE

    def to_json(self) -> dict[str, Any]:
        form = {} if self.form == 1 else {"form": self.form}
        return {"columns": list(self.columns), "rows": self.rows, "parts": self.parts, **form}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ChunkingRule":
        return cls(tuple(value["columns"]), value["rows"], value["parts"], value.get("form", 1))


@dataclass(frozen=True, slots=True)
class PartsDiff:
    """The shared, added and removed parts of two versions of a table, with their rows. Parts with the same hash have
    the same rows."""

    shared: int
    shared_rows: int
    removed: int
    removed_rows: int
    added: int
    added_rows: int


def parts_digest(parts: Sequence[Part]) -> str:
    """The `content_hash` of a table: BLAKE2b-256, personalized with the format, over one `hash size` line a part, in order."""
    return hashlib.blake2b(_lines(parts), digest_size=32, person=FORMAT.encode()).hexdigest()


def legacy_parts_digest(parts: Sequence[Part]) -> str:
    """The `content_hash` that a table had in format `parts/1`, and keeps: the SHA-256 of a text that lists the parts."""
    return hashlib.sha256(f"dataset_registry {LEGACY_FORMAT}\n".encode() + _lines(parts)).hexdigest()


def _lines(parts: Sequence[Part]) -> bytes:
    return "".join(f"{part.content_hash} {part.size}\n" for part in parts).encode()
