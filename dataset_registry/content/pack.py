"""Packing: planning how the new contents of a commit are stored, as objects, as recipes, or together in a pack.

The rules (docs/design/recipes.md):

* A part of a table, or a file, is compared with its parent (the component of the same name and index in the previous
  version). If that contains at least an eighth of its bytes as chunks, it is stored as ranges: of existing objects, and
  of a pack with the new bytes.
* Sixteen or more small files of one commit are ranges of one pack.
* Everything else is an object of its own.

All new bytes of one commit go into one pack (after `_PACK` bytes into the next).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from dataset_registry.access import Access
from dataset_registry.catalog import files, manifests
from dataset_registry.content.capture import chunks_of_parquet
from dataset_registry.content.change import Change
from dataset_registry.content.source import local_file, opened
from dataset_registry.content.stage import Staged
from dataset_registry.errors import RegistryError
from dataset_registry.model.chunks import (
    MANY,
    NEW,
    PACK,
    SMALL,
    Chunk,
    ChunkIndex,
    FileFacts,
    Range,
    digest,
    joined,
    pays,
    recipe,
    worth_trying,
)
from dataset_registry.model.reading import kind_of
from dataset_registry.model.records import ComponentRecord, FileRecord, Head
from dataset_registry.store import Spool, Spooled, fastcdc_chunks
from dataset_registry.tabular import formats

_PACK = 512 << 20
_BLOCK = 1 << 20
_LEAST = 1 << 20
"""Files below this size are not compared with their parent."""


@dataclass(slots=True)
class PackPlan:
    """The plan for contents that are stored as ranges of existing objects and of new packs. `facts` are the facts of
    files that were computed on the way."""

    recipes: dict[str, tuple[Range, ...]] = field(default_factory=dict)
    packs: dict[str, Spooled] = field(default_factory=dict)
    facts: dict[str, FileFacts] = field(default_factory=dict)

    @property
    def objects(self) -> set[str]:
        """The contents whose objects the recipes reference, without the packs."""
        return {part.object for ranges in self.recipes.values() for part in ranges} - self.packs.keys()


def plan_packs(access: Access, spool: Spool, change: Change, base: Head | None, missing: Sequence[str]) -> PackPlan:
    """Plan the storage of the new contents of a change. `base` is the version that the writer has read."""
    contents = change.contents()
    wanted = set(missing)
    spooled = {h: file for h, file in contents.files.items() if h in wanted and not file.borrowed}
    found = PackPlan()
    library = ChunkIndex()
    chunks = {h: f.chunks for h, f in contents.facts.items() if h in spooled and f.chunks}
    if base is not None:
        for candidate, before in _pairs(access, change, base, spooled):
            _compare(access, spool, candidate, before, library, chunks, found)
    runs: list[tuple[str, list[Range]]] = []
    for content_hash, known in chunks.items():
        made = recipe(known, library)
        if pays(made, spooled[content_hash].size):
            runs.append((content_hash, list(made.ranges)))
            if content_hash in found.facts:
                found.facts[content_hash] = replace(found.facts[content_hash], alone=0)
    laid = {content_hash for content_hash, _ in runs}
    small = [
        file
        for file in spooled.values()
        if file.size <= SMALL
        and file.content_hash not in laid
        and not _is_compressed(access, contents.formats[file.content_hash])
    ]
    if len(small) >= MANY:
        runs += [(file.content_hash, [Range(NEW, 0, file.size)] if file.size else []) for file in small]
    _pack(spool, spooled, runs, found)
    return found


def _is_compressed(access: Access, format: str) -> bool:
    """Whether files of a format are compressed; those are not stored as ranges."""
    return access.compression is not None and kind_of(format) in formats.COMPRESSIBLE


@dataclass(frozen=True, slots=True)
class _Before:
    """The files, or parts of tables, that the previous version has for the changed components."""

    stored: Sequence[FileRecord]
    facts: Mapping[int, FileFacts]


def _pairs(
    access: Access, change: Change, base: Head, spooled: Mapping[str, Spooled]
) -> Iterator[tuple[Staged, _Before]]:
    """The contents of a change with their parents, with which they may share chunks."""
    wanted = {
        key: component.staged
        for key, component in change.put.items()
        if any(file.content_hash in spooled for file in component.staged.spooled)
        and (component.staged.parts is not None or component.staged.size >= _LEAST)
    }
    if not wanted:
        return
    with access.catalog.read() as tx:
        there: dict[tuple[str, int], ComponentRecord] = {
            (c.name, c.index): c
            for c in manifests.components(tx, base.id, sorted({name for name, _ in wanted}))
            if (c.name, c.index) in wanted
        }
        stored = files.objects_of(tx, [c.file_id for c in there.values()])
        facts = files.facts_of(tx, [file.id for listed in stored.values() for file in listed])
    for key, component in there.items():
        yield wanted[key], _Before(stored.get(component.file_id, ()), facts)


def _compare(
    access: Access,
    spool: Spool,
    staged: Staged,
    before: _Before,
    library: ChunkIndex,
    chunks: dict[str, tuple[Chunk, ...]],
    found: PackPlan,
) -> None:
    """Add the parents to the chunk index, and compute the chunks of a new file."""
    usable = [
        f for f in before.stored if f.damage is None and f.compression_type is None and (f.object_key or f.extents)
    ]
    if staged.parts is None:
        (file,) = staged.spooled
        known = before.facts.get(usable[0].id, FileFacts()) if len(usable) == 1 else FileFacts()
        if len(usable) != 1 or _is_compressed(access, staged.format):
            return
        if not worth_trying(known.alone):
            found.facts[file.content_hash] = FileFacts(alone=known.alone + 1)
            return
        mine = _chunks(access, spool.path(file), file.size, staged.format)
        chunks[file.content_hash] = mine
        found.facts[file.content_hash] = FileFacts(mine, alone=known.alone + 1)
        theirs = known.chunks or _stored_chunks(access, usable[0], staged.format)
        library.add(theirs, ranges_of(usable[0]))
        return
    kept = {part.content_hash for part in staged.parts}
    for part in usable:
        if part.content_hash not in kept and (facts := before.facts.get(part.id)) is not None:
            library.add(facts.chunks, ranges_of(part))


def ranges_of(file: FileRecord) -> tuple[Range, ...]:
    """The ranges of a stored file: of its own object, or those of its recipe."""
    if file.extents:
        return tuple(Range(e.object_hash, e.offset, e.length) for e in file.extents)
    return (Range(str(file.content_hash), 0, file.size),)


def _chunks(access: Access, path: Path, size: int, format: str) -> tuple[Chunk, ...]:
    if format == "parquet":
        return chunks_of_parquet(access, path)
    with path.open("rb", buffering=0) as stream:
        return _chunk_stream(stream, size)


def _stored_chunks(access: Access, file: FileRecord, format: str) -> tuple[Chunk, ...]:
    """Compute the chunks of a stored file that has none yet. None if it cannot be read; it is then not compared."""
    try:
        if format == "parquet":
            return chunks_of_parquet(access, local_file(access, file))
        with opened(access, file) as stream:
            return _chunk_stream(stream, file.size)
    except RegistryError:
        return ()


def _chunk_stream(stream: BinaryIO, size: int) -> tuple[Chunk, ...]:
    return tuple(Chunk(len(chunk), digest(chunk)) for chunk in fastcdc_chunks(stream, size))


def _pack(
    spool: Spool, spooled: Mapping[str, Spooled], runs: Sequence[tuple[str, list[Range]]], found: PackPlan
) -> None:
    """Copy the new bytes into packs, and point the recipes at them."""
    batch: list[tuple[str, list[Range]]] = []
    size = 0
    for content_hash, ranges in runs:
        batch.append((content_hash, ranges))
        size += sum(part.length for part in ranges if part.object == NEW)
        if size >= _PACK:
            _pack_once(spool, spooled, batch, found)
            batch, size = [], 0
    if batch:
        _pack_once(spool, spooled, batch, found)


def _pack_once(
    spool: Spool, spooled: Mapping[str, Spooled], runs: Sequence[tuple[str, list[Range]]], found: PackPlan
) -> None:
    head = pack_head()
    name, at = "", len(head)
    if any(part.object == NEW for _, ranges in runs for part in ranges):
        pack = spool.write(lambda target: _copy(head, spooled, runs, target))
        name = pack.content_hash
        found.packs[name] = pack
    for content_hash, ranges in runs:
        placed = []
        for part in ranges:
            if part.object == NEW:
                placed.append(Range(name, at, part.length))
                at += part.length
            else:
                placed.append(part)
        found.recipes[content_hash] = tuple(joined(placed))


def pack_head() -> bytes:
    """The header of a new pack."""
    return PACK.format(uuid4().hex).encode()


def _copy(
    head: bytes, spooled: Mapping[str, Spooled], runs: Sequence[tuple[str, list[Range]]], target: BinaryIO
) -> None:
    small = [memoryview(head)]  # what is in memory is written some at a time
    size = 0
    for content_hash, ranges in runs:
        source = spooled[content_hash].source
        new = [part for part in ranges if part.object == NEW]
        if isinstance(source, bytes):
            small += (memoryview(source)[part.offset : part.offset + part.length] for part in new)
            size += len(source)
            if size < _BLOCK:
                continue
        target.write(b"".join(small))
        small, size = [], 0
        if not isinstance(source, bytes):
            with source.open("rb", buffering=0) as stream:
                for part in new:
                    stream.seek(part.offset)
                    _copy_run(stream.read, part.length, target)
    target.write(b"".join(small))


def _copy_run(read: Callable[[int], bytes], length: int, target: BinaryIO) -> None:
    while length:
        block = read(min(length, _BLOCK))
        assert block, "a spooled file stays as long as it is"
        target.write(block)
        length -= len(block)
