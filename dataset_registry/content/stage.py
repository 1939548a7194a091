"""Staging: submitted content becomes spooled files with digests, a format and a schema. Nothing is stored yet."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from dataset_registry.errors import InputError, UnreadableFile, UnsupportedType
from dataset_registry.model.chunks import Chunk, FileFacts, PartFacts, digest, has_internal_heading
from dataset_registry.model.parts import TABLE, Part, parts_digest
from dataset_registry.model.reading import TEXTUAL, kind_of, options_of, read_options, with_options
from dataset_registry.model.schema import ComponentSchema, Renames, TableSchema, carried_ids
from dataset_registry.store import RemoteBytes, Spool, Spooled
from dataset_registry.tabular import formats

Capture = Callable[[Spool, Spooled, str], ComponentSchema | None]
"""A function that captures the schema of a spooled file in a format; None if it has none."""


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
    """The facts of the spooled files by hash."""
    likely: Renames = ()
    """Renames of columns that are likely: they are taken if the values are unchanged."""


def stage(
    look: Capture,
    spool: Spool,
    value: Any,
    *,
    name: str,
    format: str | None = None,
    read: Mapping[str, Any] | None = None,
    key: Sequence[str] = (),
    renames: Mapping[str, str] | None = None,
    previous: Callable[[], ComponentSchema | None] = lambda: None,
    known: Callable[[Path], Spooled | None] | None = None,
    is_piece: bool = False,
) -> Staged:
    """Spool a path, bytes, a stream or a table. `name` is used in errors; `look` captures the schema of a file.

    `read` are read options (see `model.reading`), None for those of the previous version. `key` are the columns that
    identify the rows of a table, and `renames` its renamed columns, old to new. `previous` is the captured schema in the
    previous version, from which the key, the read options, the chunking rule and the ids of columns are kept. `known` returns
    the content of a path that need not be read. `is_piece` is for a table that becomes a part of a larger one.

    Raises `UnsupportedType`, `UnreadableFile`, `InputError` (a path that is not there), `StorageError`.
    """
    if value is None:
        raise UnsupportedType(
            f"The component {name!r} is None. Pass a table, a path, bytes or a stream; remove a component with "
            f"draft.remove({name!r})."
        )
    if formats.is_table(value):
        if format not in (None, "parquet"):
            raise InputError(
                f"A table is stored as Parquet, not as {format!r}. Write the file yourself and pass its path."
            )
        if read:
            raise InputError(f"{name!r} is a table, but read options are for files. Remove read={dict(read)!r}.")
        before = previous()
        table = before.tables[0] if before and before.tables else None
        return with_ids(_stage_table(spool, value, tuple(key), table, is_piece=is_piece), table, renames or {})
    if renames:
        raise InputError(f"{name!r} is a file, but renames are for tables. Read it into a table first.")
    if key:
        raise InputError(f"{name!r} is a file, but a key is for tables. Read it into a table first.", key=list(key))
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
        "store. Pass an Arrow table or reader, a pandas or polars frame, a DuckDB relation, a path, bytes or a binary "
        "stream. (Objects are never pickled: a pickle runs code when it is read.)",
        type=type(value).__qualname__,
    )


def _spooled_path(spool: Spool, path: str, known: Callable[[Path], Spooled | None] | None) -> Spooled:
    """Spool a file of the user; a commit may have very many of them."""
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
        raise UnsupportedType("The stream is in text mode. Open it in binary mode: open(path, 'rb').")
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
            "The file begins like an internal file of the registry (a list of parts or a pack) and cannot be stored. "
            "Compress it, or insert a line at its beginning."
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
                f"The file is read as one column, {schema.tables[0].columns[0].name[:60]!r}, and the previous version has more."
            )
    except (InputError, UnreadableFile) as error:
        if carried is None:
            raise
        raise type(error)(
            f"{error} (It was read with the options of the previous version, {options.to_json()}. Set others with read={{…}}, "
            "or remove them with read={}.)",
            **error.fields,
        ) from error
    return Staged(spooled.content_hash, spooled.size, full, schema, (spooled,))


def _widths(schema: ComponentSchema) -> list[int]:
    """The number of columns of each table."""
    return [len(table.columns) for table in schema.tables]


def _stage_table(
    spool: Spool, value: Any, key: Sequence[str], previous: TableSchema | None, *, is_piece: bool
) -> Staged:
    from dataset_registry.tabular import arrow, parquet

    reader, writer_schema = arrow.reader_of(value)
    if not key and previous and set(previous.key) <= set(reader.schema.names):
        key = previous.key
    written, table = parquet.write_parts(
        reader,
        writer_schema,
        partial(keep_part, spool),
        key=key,
        previous=previous.cut if previous else None,
        is_piece=is_piece,
    )
    table = replace(table, library=formats.library_of(value))
    return staged_table(ComponentSchema("parquet", (table,)), [(spooled, facts, p) for (spooled, p), facts in written])


def with_ids(staged: Staged, previous: TableSchema | None, renames: Mapping[str, str]) -> Staged:
    """A table whose columns have the ids of those of its previous version. Raises `InputError` for a rename that does not fit."""
    if staged.schema is None or previous is None:
        if renames:
            raise InputError(
                "There is no previous version of this table whose columns could be renamed. Leave out renames."
            )
        return staged
    (table,) = staged.schema.tables
    columns, likely = carried_ids(table.columns, previous, renames)
    schema = replace(staged.schema, tables=(replace(table, columns=columns),))
    return replace(staged, schema=schema, likely=likely if table.rows == previous.rows else ())


def with_key(staged: Staged, key: Sequence[str]) -> Staged:
    """A table with these columns as its key. Raises `InputError` for one that it does not have."""
    if staged.schema is None:
        return staged
    (table,) = staged.schema.tables
    if missing := sorted(set(key) - {column.name for column in table.columns}):
        raise InputError(
            f"The key names {', '.join(map(repr, missing))}, which is not a column of the table.", key=list(key)
        )
    return replace(staged, schema=replace(staged.schema, tables=(replace(table, key=tuple(key)),)))


def staged_table(schema: ComponentSchema, written: Sequence[tuple[Spooled, PartFacts, tuple[Chunk, ...]]]) -> Staged:
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


def keep_part(spool: Spool, data: memoryview, facts: PartFacts) -> tuple[Spooled, tuple[Chunk, ...]]:
    """Spool a part that was written, with its chunks."""
    return spool.keep(data), chunks_of(data, facts.chunks)


def chunks_of(data: memoryview, lengths: Sequence[int]) -> tuple[Chunk, ...]:
    """The chunks of these lengths of a file."""
    ends = list(accumulate(lengths))
    return tuple(Chunk(n, digest(data[end - n : end])) for n, end in zip(lengths, ends, strict=True))


def chunks_of_file(path: Path, lengths: Sequence[int]) -> tuple[Chunk, ...]:
    with path.open("rb", buffering=0) as stream:
        return tuple(Chunk(length, digest(stream.read(length))) for length in lengths)
