"""Tables as lists of parts: the digest of a table is the digest of its canonical list, format `parts/1`."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = "parts/1"


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file of a table: its SHA-256, its size in bytes, its rows."""

    content_hash: str
    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the parts of a table end (see `tabular.cutting`): the columns that are looked at, how many rows apart, a power
    of two, and how many parts that made. Columns and rows stay the same through the history of a table, so that what did not
    change stays the same parts."""

    columns: tuple[str, ...]
    rows: int
    parts: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "rows": self.rows, "parts": self.parts}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Cut":
        return cls(tuple(value["columns"]), value["rows"], value["parts"])


@dataclass(frozen=True, slots=True)
class PartsDiff:
    """What two versions of a table have in common, in parts and in their rows: parts with the same hash are the same rows, so
    that only the others can differ."""

    shared: int
    shared_rows: int
    removed: int
    removed_rows: int
    added: int
    added_rows: int


def parts_digest(parts: Sequence[Part]) -> str:
    """The `content_hash` of a table: SHA-256 over the format's name and one `hash size` line a part, in order."""
    lines = [f"dataset_registry {FORMAT}\n", *(f"{part.content_hash} {part.size}\n" for part in parts)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
