"""Staging: whatever a user hands in becomes spooled files with digests, a format and a schema. Nothing is stored yet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from dataset_registry.catalog import files
from dataset_registry.errors import InputError, UnsupportedType
from dataset_registry.model.parts import Part, parts_digest
from dataset_registry.model.schema import ComponentSchema
from dataset_registry.operations.access import Access
from dataset_registry.store import Spool, Spooled
from dataset_registry.tabular import apart, arrow, capture, formats, parquet

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


def stage(
    look: Capture, spool: Spool, value: Any, *, name: str, format: str | None = None, encoding: str | None = None
) -> Staged:
    """Spool a path, bytes, a stream or a table. `name` is what errors call it; `look` finds the schema of a file.

    Raises `UnsupportedType`, `UnreadableFile`, `InputError` (a path that is not there), `StorageError`.
    """
    if value is None:
        raise UnsupportedType(
            f"The component {name!r} is None. Hand in a table, a path, bytes or a stream; remove a component with "
            f"draft.remove({name!r})."
        )
    if arrow.is_table(value):
        if format not in (None, "parquet"):
            raise InputError(
                f"A table is stored as Parquet, not as {format!r}. Write the file yourself and hand in its path."
            )
        return _stage_table(spool, value)
    if isinstance(value, str | Path):
        path = Path(value).expanduser()
        if not path.is_file():
            what = (
                "is a folder, not a file: add its files one by one"
                if path.is_dir()
                else "does not exist: check the path"
            )
            raise InputError(f"{path} {what}.", path=str(path))
        return stage_file(look, spool, spool.copy(path), path.name, format, encoding)
    if isinstance(value, bytes | bytearray | memoryview):
        return stage_file(look, spool, spool.copy(BytesIO(value)), None, format, encoding)
    if callable(getattr(value, "read", None)):
        return stage_file(look, spool, spool.copy(_binary(value)), None, format, encoding)
    raise UnsupportedType(
        f"The component {name!r} is a {type(value).__module__}.{type(value).__qualname__}, which the registry does not "
        "store. Hand in an Arrow table or reader, a pandas or polars frame, a DuckDB relation, a path, bytes or a binary "
        "stream. (Objects are never pickled: a pickle runs code when it is read.)",
        type=type(value).__qualname__,
    )


def _binary(stream: BinaryIO) -> BinaryIO:
    if isinstance(stream.read(0), str):
        raise UnsupportedType("The stream gives text. Open it in binary mode: open(path, 'rb').")
    return stream


def stage_file(
    look: Capture, spool: Spool, spooled: Spooled, name: str | None, format: str | None, encoding: str | None
) -> Staged:
    """Stage a file that is spooled. `name` is what it was called: it may tell the format."""
    kind = formats.with_encoding(formats.format_of(format, name, spool.start(spooled)), encoding)
    schema = None
    if kind != formats.BINARY:
        schema = look(spool, spooled, kind)
    return Staged(spooled.content_hash, spooled.size, kind, schema, (spooled,))


def captured(access: Access, spool: Spool, spooled: Spooled, format: str) -> ComponentSchema | None:
    """The schema of a file. Content that was read before is not read again; files of strangers are read apart."""
    with access.catalog.read() as tx:
        file = files.find(tx, spooled.content_hash)
        found = files.captured(tx, file.id, format) if file else None
    if found:
        return ComponentSchema.from_json(*found)
    read = apart.capture if access.is_guarded else capture.capture
    return read(spool.path(spooled), format)


def stage_parts(access: Access, spool: Spool, parts: Sequence[Spooled], user_types: str | None) -> Staged:
    """Stage a table that comes as Parquet files with the same columns, in order. Raises `UnreadableFile`."""
    paths = [spool.path(part) for part in parts]
    read = apart.capture_table if access.is_guarded else parquet.capture_table
    schema, rows = read(paths, user_types)
    listed = tuple(Part(file.content_hash, file.size, count) for file, count in zip(parts, rows, strict=True))
    return Staged(parts_digest(listed), sum(p.size for p in listed), "parquet", schema, tuple(parts), listed)


def _stage_table(spool: Spool, value: Any) -> Staged:
    spooled: list[Spooled] = []

    def write_part(fill: Callable[[BinaryIO], object]) -> Path:
        spooled.append(spool.write(fill))
        return spool.path(spooled[-1])

    rows, table = parquet.write_parts(arrow.reader_of(value), write_part)
    parts = tuple(Part(file.content_hash, file.size, count) for file, count in zip(spooled, rows, strict=True))
    schema = ComponentSchema("parquet", (table,))
    return Staged(parts_digest(parts), sum(p.size for p in parts), "parquet", schema, tuple(spooled), parts)
