"""Look-up and download of files."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from dataset_registry.access import Access
from dataset_registry.content import read
from dataset_registry.content.source import CatalogContents
from dataset_registry.errors import InputError, RangeNotSatisfiable
from dataset_registry.model.records import FileRecord
from dataset_registry.operations import files
from dataset_registry.server import paging
from dataset_registry.server.auth import AccessDep, Idempotent, RegistryDep
from dataset_registry.server.paging import Cursor, Limit
from dataset_registry.server.routes.datasets import VersionDep
from dataset_registry.wire.base import MOST_IDS, Page
from dataset_registry.wire.datasets import ComponentResponse
from dataset_registry.wire.files import DataFilesResponse, FileResponse

router = APIRouter(route_class=Idempotent)

FileId = Annotated[int, Path(ge=-MOST_IDS, le=MOST_IDS, description="The id of a file.")]
_BLOCK = 1 << 20


@router.get("/files", tags=["files"])
def list_files(
    registry: RegistryDep,
    access: AccessDep,
    content_hash: Annotated[str | None, Query(max_length=10_000, description="The first digits of a SHA-256.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[FileResponse]:
    """List the files that you can read, oldest first; or the one with a hash. Unknown and unreadable files are a 404."""
    if content_hash is not None:
        return Page(items=[FileResponse.of(registry.file(content_hash))])
    found = list(files.list_all(access, paging.number(cursor) or 0, limit + 1))
    return paging.page(found, limit, FileResponse.of, lambda record: record.id)


@router.get("/files/{file_id}", tags=["files"])
def get_file(file_id: FileId, access: AccessDep) -> FileResponse:
    """A file with its hash and reference count."""
    return FileResponse.of(files.by_id(access, file_id))


@router.get("/files/{file_id}/data-files", tags=["files"])
def data_files(file_id: FileId, access: AccessDep) -> DataFilesResponse:
    """The files to read for a file: itself, or the parts of a table in order."""
    return DataFilesResponse(
        file_id=file_id, data_files=[FileResponse.of(found) for found in files.data_files(access, file_id)]
    )


_DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    206: {
        "description": "A range of the bytes",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "Not modified"},
    416: {"description": "Range not satisfiable"},
}
_Range = Annotated[
    str | None, Header(alias="Range", max_length=100, description="`bytes=0-99`, `bytes=100-`, `bytes=-100`")
]
_IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", max_length=10_000)]


@router.get("/files/{file_id}/content", tags=["files"], response_class=StreamingResponse, responses=_DOWNLOAD)
def download_file(
    file_id: FileId, access: AccessDep, wanted: _Range = None, if_none_match: _IfNoneMatch = None
) -> Response:
    """The bytes of a file. Its ETag is its hash."""
    return file_response(access, files.data_files(access, file_id), wanted, if_none_match)


@router.get("/datasets/{dataset_id}/versions/{version_id}/components", tags=["versions"])
def components(
    version: VersionDep,
    name: Annotated[list[str] | None, Query(max_length=1000, description="Only these.")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Page[ComponentResponse]:
    """The components of a version, in order of name and index."""
    found = version.components if name is None else version.components_named(name)
    return paging.slice_of(found, cursor, limit, ComponentResponse.of)


@router.get("/datasets/{dataset_id}/versions/{version_id}/data-files", tags=["versions"])
def component_objects(
    version: VersionDep,
    access: AccessDep,
    name: Annotated[list[str] | None, Query(max_length=1000, description="Only of these components.")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Page[DataFilesResponse]:
    """For each component the files to read, by the id of its file."""
    found = version.components if name is None else version.components_named(name)
    start = paging.number(cursor) or 0
    wanted = found[start : start + limit]
    listed = CatalogContents(access).data_files(version.record, wanted)
    items = [
        DataFilesResponse(file_id=component.file_id, data_files=[FileResponse.of(file) for file in files])
        for component, files in zip(wanted, listed, strict=True)
    ]
    return Page(items=items, next_cursor=paging.encode(start + limit) if start + limit < len(found) else None)


@router.get(
    "/datasets/{dataset_id}/versions/{version_id}/content",
    tags=["versions"],
    response_class=StreamingResponse,
    responses=_DOWNLOAD,
)
def download_component(
    version: VersionDep,
    access: AccessDep,
    component: Annotated[str | None, Query(max_length=1000, description="Its name, where there are several.")] = None,
    index: Annotated[int, Query(ge=0, le=MOST_IDS)] = 0,
    wanted: _Range = None,
    if_none_match: _IfNoneMatch = None,
) -> Response:
    """The bytes of a component, exactly as committed."""
    contents = CatalogContents(access)
    found = read.component(contents, version.record, component, index)
    (listed,) = contents.data_files(version.record, [found])
    return file_response(access, listed, wanted, if_none_match)


def file_response(
    access: Access, found: Sequence[FileRecord], wanted: str | None, if_none_match: str | None
) -> Response:
    """The bytes of a stored file, or a range of them. Raises `InputError` for a table of several files."""
    if len(found) != 1:
        raise InputError(f"This is a table in {len(found)} Parquet files: download each (see its data files).")
    file = found[0]
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    headers["Content-Disposition"] = "attachment"
    if file.content_hash is not None:
        headers["ETag"] = f'"{file.content_hash}"'
        known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
        if headers["ETag"] in known or known == ["*"]:
            return Response(None, 304, headers)
    start, stop = byte_range(wanted, file.size)
    stream = CatalogContents(access).open(None, file)
    status = 200
    if (start, stop) != (0, file.size):
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    headers["Content-Length"] = str(stop - start)
    return Download(stream, blocks(stream, start, stop), status, headers)


class Download(StreamingResponse):
    """A response that streams a file and always closes it."""

    def __init__(self, stream: BinaryIO, blocks: Iterator[bytes], status: int, headers: dict[str, str]) -> None:
        super().__init__(blocks, status, headers, "application/octet-stream")
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()


def byte_range(wanted: str | None, size: int) -> tuple[int, int]:
    """The start and the end of a header with one range; the whole file for any other header (RFC 9110, 14.2)."""
    if wanted is None or not wanted.startswith("bytes=") or "," in wanted:
        return 0, size
    first, dash, last = wanted.removeprefix("bytes=").partition("-")
    if (
        not dash
        or not all(text == "" or (text.isascii() and text.isdigit()) for text in (first, last))
        or first + last == ""
    ):
        return 0, size
    start, stop = (int(first), int(last) + 1 if last else size) if first else (max(size - int(last), 0), size)
    if start >= size or start >= stop:
        raise RangeNotSatisfiable(f"The file has {size:,} bytes; {wanted!r} is outside of it.", size=size)
    return start, min(stop, size)


def blocks(stream: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """The bytes of a stream from one position to another."""
    if start:
        stream.seek(start)
    left = stop - start
    while left and (block := stream.read(min(left, _BLOCK))):
        left -= len(block)
        if not left:
            stream.read(1)  # the end of a whole file is where its hash is compared
        yield block
