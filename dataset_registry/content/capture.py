"""Capturing the schemas of files; known captures are looked up."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dataset_registry.access import Access
from dataset_registry.catalog import captures
from dataset_registry.content import stored
from dataset_registry.content.stage import Staged, chunks_of_file, staged_table
from dataset_registry.model.chunks import Chunk
from dataset_registry.model.parts import ChunkingRule
from dataset_registry.model.schema import ComponentSchema, is_current
from dataset_registry.store import RemoteBytes, Spool, Spooled, StatCache


def trusted(access: Access, spool: Spool, path: Path) -> Spooled:
    """Spool a file without reading it if its stat has not changed since the last read and its content is stored."""
    seen = StatCache(access.store.scratch)
    found = seen.find(path)
    if found is not None and stored.known(access, [found[0]]):
        return Spooled(*found, path, borrowed=True)
    before = path.stat()
    spooled = spool.copy(path)
    seen.note(path, before, spooled)
    return spooled


Captures = Mapping[tuple[str, str], Sequence[tuple[Mapping[str, Any], Any]]]
"""Captured schemas with statistics by hash and format, newest first."""


def captures_of(access: Access, hashes: Sequence[str]) -> Captures:
    """The existing captures of these contents, in one transaction."""
    with access.catalog.read() as tx:
        return captures.captures_by_hash(tx, hashes)


def captured(
    access: Access, spool: Spool, spooled: Spooled, format: str, known: Captures | None = None
) -> ComponentSchema | None:
    """Capture the schema of a file. Known content is not read again: it is looked up in `known`, else in the catalog.
    Files of untrusted clients are captured in a separate process."""
    before = captures_of(access, [spooled.content_hash]) if known is None else known
    captures = (ComponentSchema.from_json(*capture) for capture in before.get((spooled.content_hash, format), ()))
    if found := next(filter(is_current, captures), None):
        return found
    from dataset_registry.tabular import capture, isolated

    read = isolated.capture if access.is_guarded else capture.capture
    return read(spool.path(spooled), format)


def stage_parts(
    access: Access,
    spool: Spool,
    parts: Sequence[Spooled],
    user_types: str | None,
    key: Sequence[str] = (),
    cut: ChunkingRule | None = None,
    *,
    library: str | None = None,
) -> Staged:
    """Stage a table that comes as Parquet files with the same columns, in order. Raises `UnreadableFile`."""
    from dataset_registry.tabular import isolated, parquet

    with ThreadPoolExecutor(access.store.transfers, "dataset-registry-footers") as pool:
        paths = list(pool.map(partial(_footer, spool), parts))
    read = isolated.capture_table if access.is_guarded else parquet.capture_table
    schema, found = read(paths, user_types)
    cut = replace(cut, parts=len(parts)) if cut is not None else None
    schema = replace(schema, tables=(replace(schema.tables[0], key=tuple(key), cut=cut, library=library),))
    written = [
        (spooled, facts, () if isinstance(spooled.place, RemoteBytes) else chunks_of_file(path, facts.chunks))
        for spooled, path, facts in zip(parts, paths, found, strict=True)
    ]
    return staged_table(schema, written)


def _footer(spool: Spool, part: Spooled) -> Path:
    """A file with the footer of a Parquet file; of a stored one, only its last bytes are read."""
    if not isinstance(part.place, RemoteBytes):
        return spool.path(part)
    end = part.place.tail(min(_FOOTER, part.size))
    length = int.from_bytes(end[-8:-4], "little") + 8  # https://parquet.apache.org/docs/file-format
    if length > _LARGEST_FOOTER:
        return spool.path(part)
    return spool.end(part.size, end if length <= len(end) else part.place.tail(min(length, part.size)))


_FOOTER = 1 << 16
"""Bytes at the end of a Parquet file that usually contain its footer."""


_LARGEST_FOOTER = 64 << 20


def chunks_of_parquet(access: Access, path: Path) -> tuple[Chunk, ...]:
    """The chunks of a Parquet file: its column chunks. Raises `UnreadableFile`."""
    from dataset_registry.tabular import isolated, parquet

    read = isolated.capture_table if access.is_guarded else parquet.capture_table
    _, (facts,) = read([path], None)
    return chunks_of_file(path, facts.chunks)
