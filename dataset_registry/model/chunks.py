"""Pieces of files: what of a new file its parent has already, and how the rest is kept. Pure decisions.

A *piece* is a run of bytes between two borders: of a Parquet file those of its column chunks, of others those that their
content makes (FastCDC). A *recipe* is a file that is kept as ranges of stored objects, in order, instead of as an object of
its own. docs/design/recipes.md has the rules and what they were measured to save.
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
"""A recipe has to save at least one byte in this many."""
_COLUMNS = 64
"""Columns of a part whose statistics are kept in the catalog, the first ones."""


PACK = "dataset_registry pack/1 {}\n"
"""How a pack begins: with its format and a text of its own, so that it is never the same bytes as any file."""

_INTERNAL_HEADINGS = (b"dataset_registry parts/1\n", b"dataset_registry pack/1 ")


def has_internal_heading(start: bytes) -> bool:
    """Whether content begins like a pack or the list of a table's parts: a file with the same bytes would have the same hash."""
    return start.startswith(_INTERNAL_HEADINGS)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of bytes of a file: how many, and the first half of their SHA-256."""

    length: int
    digest: str


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What the footer of a Parquet file says: its rows, what is known of its columns, and in how many bytes each the file
    falls into pieces, the borders of which are those of column chunks."""

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
    """What the catalog keeps of a file beside its hash: its pieces, and of a Parquet part the statistics of its columns.

    `alone` counts the versions of it in a row that shared nothing with the one before.
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
            value["columns"] = {name: [known.null_count, known.min, known.max] for name, known in shown}
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
    """A run of bytes of a stored object, which is named by the hash of the file that it was put for."""

    object: str
    offset: int
    length: int


def digest(data: bytes | memoryview) -> str:
    """The digest of a piece."""
    return hashlib.sha256(data).hexdigest()[:32]


def cut(ranges: Sequence[Range], offset: int, length: int) -> Iterator[Range]:
    """The ranges that are this run of bytes of what `ranges` are together."""
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
    """The ranges with those made one that lie behind one another in one object."""
    found: list[Range] = []
    for part in ranges:
        last = found[-1] if found else None
        if last is not None and (last.object, last.offset + last.length) == (part.object, part.offset):
            found[-1] = Range(last.object, last.offset, last.length + part.length)
        else:
            found.append(part)
    return found


class ChunkIndex:
    """Where the pieces of files that are stored lie: the parents of what is about to be stored."""

    def __init__(self) -> None:
        self._places: dict[Chunk, tuple[Sequence[Range], int]] = {}

    def add(self, chunks: Sequence[Chunk], ranges: Sequence[Range]) -> None:
        """Add a file by its pieces and the ranges that it is kept as."""
        offset = 0
        for piece in chunks:
            self._places.setdefault(piece, (ranges, offset))
            offset += piece.length

    def find(self, piece: Chunk) -> list[Range] | None:
        """The ranges that hold a piece, None where it is new."""
        if piece not in self._places:
            return None
        ranges, offset = self._places[piece]
        return list(cut(ranges, offset, piece.length))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a file is to be kept: ranges of objects, of which those of `NEW` are runs of its own bytes that are still to be
    put somewhere. `known` are the bytes that are stored already."""

    ranges: tuple[Range, ...]
    known: int


NEW = ""
"""The object of ranges that are the file's own bytes."""


def recipe(chunks: Sequence[Chunk], library: ChunkIndex) -> Recipe:
    """A file in terms of what a library has."""
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
    """Whether a file of this size is better kept as a recipe than as an object of its own."""
    return made.known * _PAYS >= size


def worth_trying(alone: int) -> bool:
    """Whether to look for pieces that a file shares with the version before, after this many in a row that shared nothing:
    after 0, 1, 2, 4, 8 …, so that data that never repeats is hardly ever compared."""
    return alone & (alone - 1) == 0
