"""Staging: whatever a user hands in becomes spooled files with digests, a format and a schema. Nothing is stored yet."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from dataset_registry.access import Access
from dataset_registry.catalog import files
from dataset_registry.content import stored
from dataset_registry.errors import InputError, UnreadableFile, UnsupportedType
from dataset_registry.model.chunks import Chunk, FileFacts, PartFacts, digest, has_internal_heading
from dataset_registry.model.parts import TABLE, ChunkingRule, Part, parts_digest
from dataset_registry.model.reading import TEXTUAL, kind_of, options_of, read_options, with_options
from dataset_registry.model.schema import ComponentSchema, TableSchema, is_current
from dataset_registry.store import RemoteBytes, Spool, Spooled, StatCache
from dataset_registry.tabular import formats

Capture = Callable[[Spool, Spooled, str], ComponentSchema | None]
"""Finds the schema of a spooled file of a format, None where it has none."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A component's content, ready to be stored: one spooled file, or the parts of a table in order.

    `content_hash` is that of the file, or of the list of parts.
    """

    content_hash: str
    size: int
    format: str
    schema: ComponentSchema | None
    spooled: tuple[Spooled, ...]
    parts: tuple[Part, ...] | None = None
    facts: Mapping[str, FileFacts] = field(default_factory=dict)
    """What the catalog keeps of the spooled files, by hash, beside these."""


def stage(
    look: Capture,
    spool: Spool,
    value: Any,
    *,
    name: str,
    format: str | None = None,
    read: Mapping[str, Any] | None = None,
    key: Sequence[str] = (),
    previous: Callable[[], ComponentSchema | None] = lambda: None,
    known: Callable[[Path], Spooled | None] | None = None,
) -> Staged:
    """Spool a path, bytes, a stream or a table. `name` is what errors call it; `look` finds the schema of a file.

    `read` are read options (see `model.reading`), None for those of the version before. `key` are the columns that tell a
    table's rows apart, `previous` is what was captured of the component in the version before: its key and its read options
    hold on, and the parts end where they ended then. `known` tells of a path what it holds, where it need not be read.

    Raises `UnsupportedType`, `UnreadableFile`, `InputError` (a path that is not there), `StorageError`.
    """
    if value is None:
        raise UnsupportedType(
            f"The component {name!r} is None. Hand in a table, a path, bytes or a stream; remove a component with "
            f"draft.remove({name!r})."
        )
    if formats.is_table(value):
        if format not in (None, "parquet"):
            raise InputError(
                f"A table is stored as Parquet, not as {format!r}. Write the file yourself and hand in its path."
            )
        if read:
            raise InputError(f"{name!r} is a table, and read options are for files: leave read={dict(read)!r} out.")
        before = previous()
        return _stage_table(spool, value, tuple(key), before.tables[0] if before and before.tables else None)
    if key:
        raise InputError(f"{name!r} is a file, and a key is for tables: read it into a table first.", key=list(key))
    if isinstance(value, str | Path):
        path = os.path.expanduser(value)
        spooled = _spooled_path(spool, path, known)
        return stage_file(look, spool, spooled, os.path.basename(path), format, read, previous)
    if isinstance(value, bytes | bytearray | memoryview):
        return stage_file(look, spool, spool.copy(BytesIO(value)), None, format, read, previous)
    if callable(getattr(value, "read", None)):
        return stage_file(look, spool, spool.copy(_binary(value)), None, format, read, previous)
    raise UnsupportedType(
        f"The component {name!r} is a {type(value).__module__}.{type(value).__qualname__}, which the registry does not "
        "store. Hand in an Arrow table or reader, a pandas or polars frame, a DuckDB relation, a path, bytes or a binary "
        "stream. (Objects are never pickled: a pickle runs code when it is read.)",
        type=type(value).__qualname__,
    )


def _spooled_path(spool: Spool, path: str, known: Callable[[Path], Spooled | None] | None) -> Spooled:
    """Spool a file of the user's; a commit may have very many of them."""
    if not os.path.isfile(path):
        what = (
            "is a folder, not a file: add its files one by one"
            if os.path.isdir(path)
            else "does not exist: check the path"
        )
        raise InputError(f"{path} {what}.", path=path)
    return (known(Path(path)) if known else None) or spool.copy(path)


def _binary(stream: BinaryIO) -> BinaryIO:
    if isinstance(stream.read(0), str):
        raise UnsupportedType("The stream gives text. Open it in binary mode: open(path, 'rb').")
    return stream


def stage_file(
    look: Capture,
    spool: Spool,
    spooled: Spooled,
    name: str | None,
    format: str | None,
    read: Mapping[str, Any] | None = None,
    previous: Callable[[], ComponentSchema | None] = lambda: None,
) -> Staged:
    """Stage a file that is spooled. `name` is what it was called: it may tell the format. `read` and `previous` as in `stage`."""
    options, named = read_options(read)
    format = format or named
    # Content that is stored already, and stays where it is, was looked at when it came.
    start = b"" if isinstance(spooled.place, RemoteBytes) else spool.start(spooled)
    if has_internal_heading(start):
        raise InputError(
            "The file begins like a list of a table's parts or a pack, which the registry writes itself, and cannot be stored as "
            "it is. Compress it, or put a line before it."
        )
    kind = formats.format_of(format, name, start)
    before = previous() if read is None and kind in TEXTUAL else None
    if before is not None and kind_of(before.format) == kind:
        options = options_of(before.format)
    carried = before if options and before is not None else None
    full = with_options(kind, options)
    try:
        schema = look(spool, spooled, full) if kind != formats.BINARY else None
        if carried and schema and _widths(schema) == [1] and max(_widths(carried)) > 1:
            raise UnreadableFile(
                f"The file is read as one column, {schema.tables[0].columns[0].name[:60]!r}, and the version before has more."
            )
    except (InputError, UnreadableFile) as error:
        if carried is None:
            raise
        raise type(error)(
            f"{error} (It was read with the options of the version before, {options.to_json()}. Give others with read={{…}}, or "
            "none with read={}.)",
            **error.fields,
        ) from error
    return Staged(spooled.content_hash, spooled.size, full, schema, (spooled,))


def _widths(schema: ComponentSchema) -> list[int]:
    """The number of columns of each table."""
    return [len(table.columns) for table in schema.tables]


def trusted(access: Access, spool: Spool, path: Path) -> Spooled:
    """A file that need not be read when it looks as it did when it was read last, and what it held then is stored still."""
    seen = StatCache(access.store.scratch)
    found = seen.find(path)
    if found is not None and stored.known(access, [found[0]]):
        return Spooled(*found, path, borrowed=True)
    before = path.stat()
    spooled = spool.copy(path)
    seen.note(path, before, spooled)
    return spooled


Captures = Mapping[tuple[str, str], Sequence[tuple[Mapping[str, Any], Any]]]
"""What was captured of contents, by hash and format: schema snapshots with their statistics, the newest first."""


def captures_of(access: Access, hashes: Sequence[str]) -> Captures:
    """What was captured of these contents before, in one transaction."""
    with access.catalog.read() as tx:
        return files.captures_by_hash(tx, hashes)


def captured(
    access: Access, spool: Spool, spooled: Spooled, format: str, known: Captures | None = None
) -> ComponentSchema | None:
    """The schema of a file. Content that was read before is not read again, as `known` says of many or the catalog of one;
    files of strangers are read apart."""
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
        (spooled, facts, () if isinstance(spooled.place, RemoteBytes) else _chunks_of_file(path, facts.chunks))
        for spooled, path, facts in zip(parts, paths, found, strict=True)
    ]
    return _table(schema, written)


def _footer(spool: Spool, part: Spooled) -> Path:
    """A file with the footer of a Parquet file, and of one that is stored already with nothing else."""
    if not isinstance(part.place, RemoteBytes):
        return spool.path(part)
    end = part.place.tail(min(_FOOTER, part.size))
    length = int.from_bytes(end[-8:-4], "little") + 8  # https://parquet.apache.org/docs/file-format
    if length > _LARGEST_FOOTER:
        return spool.path(part)
    return spool.end(part.size, end if length <= len(end) else part.place.tail(min(length, part.size)))


_FOOTER = 1 << 16
"""Bytes at the end of a Parquet file that have its footer, as a rule."""
_LARGEST_FOOTER = 64 << 20


def _stage_table(spool: Spool, value: Any, key: Sequence[str], previous: TableSchema | None) -> Staged:
    from dataset_registry.tabular import arrow, parquet

    def keep(data: memoryview, facts: PartFacts) -> tuple[Spooled, tuple[Chunk, ...]]:
        return spool.keep(data), _chunks(data, facts.chunks)

    reader, writer_schema = arrow.reader_of(value)
    if not key and previous and set(previous.key) <= set(reader.schema.names):
        key = previous.key
    written, table = parquet.write_parts(
        reader,
        writer_schema,
        keep,
        key=key,
        previous=previous.cut if previous else None,
    )
    table = replace(table, library=formats.library_of(value))
    return _table(ComponentSchema("parquet", (table,)), [(spooled, facts, p) for (spooled, p), facts in written])


def _table(schema: ComponentSchema, written: Sequence[tuple[Spooled, PartFacts, tuple[Chunk, ...]]]) -> Staged:
    parts = tuple(Part(spooled.content_hash, spooled.size, facts.rows) for spooled, facts, _ in written)
    return Staged(
        parts_digest(parts),
        sum(part.size for part in parts),
        TABLE,
        schema,
        tuple(spooled for spooled, _, _ in written),
        parts,
        {spooled.content_hash: FileFacts(chunks, facts.statistics) for spooled, facts, chunks in written},
    )


def _chunks(data: memoryview, lengths: Sequence[int]) -> tuple[Chunk, ...]:
    ends = list(accumulate(lengths))
    return tuple(Chunk(n, digest(data[end - n : end])) for n, end in zip(lengths, ends, strict=True))


def chunks_of_parquet(access: Access, path: Path) -> tuple[Chunk, ...]:
    """The pieces of a Parquet file: its column chunks. Raises `UnreadableFile`."""
    from dataset_registry.tabular import isolated, parquet

    read = isolated.capture_table if access.is_guarded else parquet.capture_table
    _, (facts,) = read([path], None)
    return _chunks_of_file(path, facts.chunks)


def _chunks_of_file(path: Path, lengths: Sequence[int]) -> tuple[Chunk, ...]:
    with path.open("rb", buffering=0) as stream:
        return tuple(Chunk(length, digest(stream.read(length))) for length in lengths)
