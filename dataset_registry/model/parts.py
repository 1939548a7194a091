"""Tables as lists of parts: the digest of a table is the digest of its canonical list, format `parts/1`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

FORMAT = "parts/1"


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file of a table: its SHA-256, its size in bytes, its rows."""

    content_hash: str
    size: int
    rows: int


def parts_digest(parts: Sequence[Part]) -> str:
    """The `content_hash` of a table: SHA-256 over the format's name and one `hash size` line a part, in order."""
    lines = [f"dataset_registry {FORMAT}\n", *(f"{part.content_hash} {part.size}\n" for part in parts)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
