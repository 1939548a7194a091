"""Previews of components: a page of the rows of a table, the beginning of a text, an image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dataset_registry.access import Access
from dataset_registry.catalog import files
from dataset_registry.content import read
from dataset_registry.content.source import CatalogContents
from dataset_registry.errors import InputError
from dataset_registry.model.parts import TABLE
from dataset_registry.model.reading import kind_of
from dataset_registry.model.records import ComponentRecord, FileRecord, VersionRecord
from dataset_registry.model.schema import ComponentSchema

if TYPE_CHECKING:
    from dataset_registry.tabular.preview import Preview, PreviewQuery

MOST_DELIVERED_BYTES = 64 << 20
"""Delivered files up to this size are previewed as tables; larger ones as text."""
MOST_SEARCHED_BYTES = 4 << 30
"""Tables up to this size are filtered and sorted."""
TEXT_BYTES = 64 << 10
"""The beginning of a text that is shown."""
MOST_IMAGE_BYTES = 32 << 20

View = Literal["table", "image", "text", "bytes"]
"""How a component is shown."""

_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


@dataclass(frozen=True, slots=True)
class Viewed:
    """A component with the way to show it: the captured schema of a table, the beginning of a text, the type of an image."""

    component: ComponentRecord
    view: View
    schema: ComponentSchema | None = None
    text: str = ""
    is_cut: bool = False
    media_type: str | None = None


def viewed(access: Access, version: VersionRecord, name: str | None, index: int = 0) -> Viewed:
    """A component, and how to show it. Raises `NotFound`, `InputError` for several components without a name."""
    contents = CatalogContents(access)
    found = read.component(contents, version, name, index)
    schema = _schema(contents, version, found)
    if schema is not None and schema.tables and (found.format == TABLE or found.size <= MOST_DELIVERED_BYTES):
        return Viewed(found, "table", schema)
    (stored,) = contents.data_files(version, [found])
    with contents.open(version, stored[0]) as stream:
        start = stream.read(TEXT_BYTES + 1)
    if (media_type := image_type(start)) is not None and found.size <= MOST_IMAGE_BYTES:
        return Viewed(found, "image", media_type=media_type)
    is_cut = len(start) > TEXT_BYTES
    if b"\0" not in start:
        try:
            text = start[:TEXT_BYTES].decode()
        except UnicodeDecodeError as error:
            text = start[: error.start].decode() if is_cut and error.start > TEXT_BYTES - 4 else ""
        if text or not start:
            return Viewed(found, "text", text=text, is_cut=is_cut)
    return Viewed(found, "bytes", text=_hex(start[:256]), is_cut=found.size > 256)


def image_type(start: bytes) -> str | None:
    """The media type of an image that browsers show safely, by its first bytes. SVG is not among them: it can have scripts."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _IMAGES if start.startswith(magic)), None)


def _hex(start: bytes) -> str:
    lines = []
    for at in range(0, len(start), 16):
        row = start[at : at + 16]
        readable = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:08x}  {row.hex(' '):<47}  {readable}")
    return "\n".join(lines)


def _schema(contents: CatalogContents, version: VersionRecord, component: ComponentRecord) -> ComponentSchema | None:
    captured = contents.schemas(version, [component.name])
    return next((schema for _, index, schema in captured if index == component.index), None)


def rows(
    access: Access, version: VersionRecord, component: ComponentRecord, sheet: str | None, query: "PreviewQuery"
) -> "Preview":
    """A page of the rows of a table. Files that clients sent are read in a worker process with limits.

    Raises `InputError`, `NotFound`, `UnreadableFile`, `RetryLater`.
    """
    from dataset_registry.tabular import isolated
    from dataset_registry.tabular.preview import PreviewSource, preview

    contents = CatalogContents(access)
    (stored,) = contents.data_files(version, [component])
    schema = _schema(contents, version, component)
    if schema is None or not schema.tables:
        raise InputError(f"The component {component.name!r} has no table to preview. Download it.")
    is_table = kind_of(component.format) == TABLE
    counts = _counts(access, component, schema)
    if query.filter_column is None and query.sort is None:
        first, last, skipped = _covering(counts, query.offset, query.limit + 1)
        stored, counts, query = stored[first:last], counts[first:last], replace(query, offset=query.offset - skipped)
    elif sum(file.size for file in stored) > MOST_SEARCHED_BYTES:
        raise InputError("The table is too large to be filtered or sorted here. Load it with DuckDB or polars.")
    source = PreviewSource(_fetched(contents, version, stored), counts, None if is_table else schema, sheet)
    return isolated.preview(source, query) if access.is_guarded else preview(source, query)


def _fetched(contents: CatalogContents, version: VersionRecord, stored: Sequence[FileRecord]) -> list[Path]:
    return [contents.fetch(version, file) for file in stored]


def _counts(access: Access, component: ComponentRecord, schema: ComponentSchema) -> list[int]:
    with access.catalog.read() as tx:
        listed = files.parts_of(tx, [component.file_id]).get(component.file_id)
    return [schema.rows or 0] if listed is None else [count for _, count in listed]


def _covering(counts: Sequence[int], offset: int, limit: int) -> tuple[int, int, int]:
    """The range of files that have these rows, and the rows before the first of them."""
    ends = list(accumulate(counts))
    first = next((i for i, end in enumerate(ends) if end > offset), len(counts) - 1)
    last = next((i for i, end in enumerate(ends) if end >= offset + limit), len(counts) - 1)
    return first, last + 1, ends[first] - counts[first]
