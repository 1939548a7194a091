"""Chunks of files: which chunks of a new file are stored already, and how the others are stored. Pure functions.

A *chunk* is a run of bytes between two cut points: the column chunks of a Parquet file, content-defined chunks
(FastCDC) of other files. A *recipe* is a file that is stored as ranges of objects, in order, instead of as an object of
its own. docs/design/recipes.md has the rules and the measurements.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataset_registry.model.schema import ColumnStatistics

SMALL = 256 << 10
"""Files up to this many bytes are packed together, where there are `MANY` of them at once."""
MANY = 16
_PAYS = 8
"""A recipe must reuse at least one byte in this many."""
_COLUMNS = 64
"""Maximum number of columns of a part whose statistics are stored in the catalog."""


PACK = "dataset_registry pack/1 {}\n"
"""The header of a pack: its format and a unique text, so that a pack never equals a file."""

_INTERNAL_HEADINGS = (b"dataset_registry parts/1\n", b"dataset_registry pack/1 ")


def has_internal_heading(start: bytes) -> bool:
    """Whether content begins like a pack or the list of a table's parts: a file with the same bytes would have the same hash."""
    return start.startswith(_INTERNAL_HEADINGS)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of a file: its length and the first half of its SHA-256."""

    length: int
    digest: str


@dataclass(frozen=True, slots=True)
class PartFacts:
    """The facts in the footer of a Parquet file: the number of rows, the column statistics, and the lengths of its
    chunks, which end at the borders of column chunks."""

    rows: int
    statistics: Mapping[str, ColumnStatistics]
    chunks: tuple[int, ...]

    def to_json(self) -> list[Any]:
        return [self.rows, {name: known.to_json() for name, known in self.statistics.items()}, self.chunks]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> "PartFacts":
        rows, statistics, chunks = value
        return cls(rows, {name: ColumnStatistics(**known) for name, known in statistics.items()}, tuple(chunks))


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Computed facts of a file in the catalog: its chunks, and the column statistics of a Parquet part.

    `alone` is the number of consecutive versions that shared no chunk with the previous one.
    """

    chunks: tuple[Chunk, ...] = ()
    statistics: Mapping[str, ColumnStatistics] = field(default_factory=dict)
    alone: int = 0

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {}
        if self.chunks:
            value["pieces"] = [[piece.length, piece.digest] for piece in self.chunks]
        if self.statistics:
            shown = list(self.statistics.items())[:_COLUMNS]
            value["columns"] = {name: [*known.to_json().values()] for name, known in shown}
        if self.alone:
            value["alone"] = self.alone
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> "FileFacts":
        value = value or {}
        return cls(
            tuple(Chunk(*piece) for piece in value.get("pieces", ())),
            {name: ColumnStatistics(*known) for name, known in value.get("columns", {}).items()},
            value.get("alone", 0),
        )


@dataclass(frozen=True, slots=True)
class Range:
    """A run of bytes of a stored object, which is identified by the content hash of its file."""

    object: str
    offset: int
    length: int


def digest(data: bytes | memoryview) -> str:
    """The digest of a chunk."""
    return hashlib.sha256(data).hexdigest()[:32]


def cut(ranges: Sequence[Range], offset: int, length: int) -> Iterator[Range]:
    """The ranges of a run of bytes within the concatenated `ranges`."""
    for part in ranges:
        if length <= 0:
            return
        if offset < part.length:
            taken = min(part.length - offset, length)
            yield Range(part.object, part.offset + offset, taken)
            offset, length = 0, length - taken
        else:
            offset -= part.length


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Merge ranges that are adjacent in the same object."""
    found: list[Range] = []
    for part in ranges:
        last = found[-1] if found else None
        if last is not None and (last.object, last.offset + last.length) == (part.object, part.offset):
            found[-1] = Range(last.object, last.offset, last.length + part.length)
        else:
            found.append(part)
    return found


class ChunkIndex:
    """An index of the stored chunks of parent files."""

    def __init__(self) -> None:
        self._places: dict[Chunk, tuple[Sequence[Range], int]] = {}

    def add(self, chunks: Sequence[Chunk], ranges: Sequence[Range]) -> None:
        """Add a file by its chunks and the ranges that it is stored as."""
        offset = 0
        for piece in chunks:
            self._places.setdefault(piece, (ranges, offset))
            offset += piece.length

    def find(self, piece: Chunk) -> list[Range] | None:
        """The ranges of a chunk, None if it is new."""
        if piece not in self._places:
            return None
        ranges, offset = self._places[piece]
        return list(cut(ranges, offset, piece.length))


@dataclass(frozen=True, slots=True)
class Recipe:
    """A plan to store a file as ranges of objects. Ranges of `NEW` are runs of its own bytes that are not stored yet;
    `known` is the number of stored bytes."""

    ranges: tuple[Range, ...]
    known: int


NEW = ""
"""The pseudo object of ranges that are new bytes of the file."""


def recipe(chunks: Sequence[Chunk], library: ChunkIndex) -> Recipe:
    """Express a file as ranges by looking up its chunks."""
    found: list[Range] = []
    offset = known = 0
    for piece in chunks:
        there = library.find(piece)
        if there is None:
            found.append(Range(NEW, offset, piece.length))
        else:
            found += there
            known += piece.length
        offset += piece.length
    return Recipe(tuple(joined(found)), known)


def pays(made: Recipe, size: int) -> bool:
    """Whether storing a file of this size as a recipe saves enough."""
    return made.known * _PAYS >= size


def worth_trying(alone: int) -> bool:
    """Whether to compare a file with its previous version, after this many consecutive versions that shared nothing:
    after 0, 1, 2, 4, 8 …, so that data that never repeats is rarely compared."""
    return alone & (alone - 1) == 0
