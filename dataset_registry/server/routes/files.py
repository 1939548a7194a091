"""Files and what is in them: looking them up, downloading, uploading, committing."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.types import Receive, Scope, Send

from dataset_registry.errors import InputError, RangeNotSatisfiable
from dataset_registry.model.names import dataset_name as checked_name
from dataset_registry.model.names import pointer_name
from dataset_registry.model.records import DatasetRecord, FileRecord, NewDataset
from dataset_registry.operations import commit as commit_operations
from dataset_registry.operations import datasets, read, stored
from dataset_registry.operations.access import Access
from dataset_registry.operations.contents import CatalogContents
from dataset_registry.operations.put import hold_for_upload
from dataset_registry.server import commits, paging
from dataset_registry.server.asking import Asking, Here, Idempotent, commit_seed
from dataset_registry.server.paging import Cursor, Limit
from dataset_registry.server.routes.datasets import That, There
from dataset_registry.server.uploads import Upload, Uploads
from dataset_registry.wire import (
    MOST_IDS,
    CommitIn,
    CommitShape,
    ComponentIn,
    ComponentShape,
    ContentIn,
    CountShape,
    DatasetShape,
    FileShape,
    HashesIn,
    HashesShape,
    HeadShape,
    NamedCommitIn,
    ObjectsShape,
    Page,
    UploadIn,
    UploadShape,
)

router = APIRouter(route_class=Idempotent)

FileId = Annotated[int, Path(ge=-MOST_IDS, le=MOST_IDS, description="The id of a file.")]
UploadId = Annotated[str, Path(min_length=1, max_length=100, description="The id of an upload.")]
_BLOCK = 1 << 20
_FORM_TEXTS = 8
"""Texts of a form: the commit, or message, branch and the like."""
_ONE_PUT = 5 << 30
"""What S3 takes in one PUT."""
_DIRECT_FOR = timedelta(hours=1)


def uploads_of(request: Request) -> Uploads:
    """The uploads of this server."""
    found: Uploads = request.app.state.uploads
    return found


Growing = Annotated[Uploads, Depends(uploads_of)]


# --- files ---------------------------------------------------------------------------------------------------------


@router.get("/files", tags=["files"])
def list_files(
    here: Here,
    access: Asking,
    content_hash: Annotated[str | None, Query(max_length=10_000, description="The beginning of a SHA-256.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[FileShape]:
    """The files that you may read, oldest first; or the one with a hash (one you may not read is a 404, as an unknown one)."""
    if content_hash is not None:
        return Page(items=[FileShape.of(here.file(content_hash))])
    found = list(stored.list_all(access, paging.number(cursor) or 0, limit + 1))
    return paging.page(found, limit, FileShape.of, lambda record: record.id)


@router.get("/files/{file_id}", tags=["files"])
def get_file(file_id: FileId, access: Asking) -> FileShape:
    """A file, with its hash and how many versions name it."""
    return FileShape.of(stored.by_id(access, file_id))


@router.get("/files/{file_id}/objects", tags=["files"])
def objects(file_id: FileId, access: Asking) -> ObjectsShape:
    """The files to read for a file: itself, or the parts of a table in order."""
    return ObjectsShape(file_id=file_id, objects=[FileShape.of(found) for found in stored.objects(access, file_id)])


_DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    206: {
        "description": "A range of the bytes",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "You have it"},
    416: {"description": "There are no such bytes"},
}
_Range = Annotated[
    str | None, Header(alias="Range", max_length=100, description="`bytes=0-99`, `bytes=100-`, `bytes=-100`")
]
_IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", max_length=10_000)]


@router.get("/files/{file_id}/content", tags=["files"], response_class=StreamingResponse, responses=_DOWNLOAD)
def download_file(
    file_id: FileId, access: Asking, wanted: _Range = None, if_none_match: _IfNoneMatch = None
) -> Response:
    """The bytes of a file. Its ETag is its hash."""
    return _download(access, stored.objects(access, file_id), wanted, if_none_match)


@router.get("/datasets/{dataset_id}/versions/{version_id}/components", tags=["versions"])
def components(
    that: That,
    name: Annotated[list[str] | None, Query(max_length=1000, description="Only these.")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Page[ComponentShape]:
    """The components of a version, in order of name and index."""
    found = that.components if name is None else that.components_named(name)
    return paging.slice_of(found, cursor, limit, ComponentShape.of)


@router.get("/datasets/{dataset_id}/versions/{version_id}/objects", tags=["versions"])
def component_objects(
    that: That,
    access: Asking,
    name: Annotated[list[str] | None, Query(max_length=1000, description="Only of these components.")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Page[ObjectsShape]:
    """For each component the files to read, by the id of its file."""
    found = that.components if name is None else that.components_named(name)
    start = paging.number(cursor) or 0
    wanted = found[start : start + limit]
    listed = CatalogContents(access).objects(that.record, wanted)
    items = [
        ObjectsShape(file_id=component.file_id, objects=[FileShape.of(file) for file in files])
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
    that: That,
    access: Asking,
    component: Annotated[str | None, Query(max_length=1000, description="Its name, where there are several.")] = None,
    index: Annotated[int, Query(ge=0, le=MOST_IDS)] = 0,
    wanted: _Range = None,
    if_none_match: _IfNoneMatch = None,
) -> Response:
    """The bytes of a component, exactly those that were committed."""
    contents = CatalogContents(access)
    found = read.component(contents, that.record, component, index)
    (listed,) = contents.objects(that.record, [found])
    return _download(access, listed, wanted, if_none_match)


def _download(access: Access, found: Sequence[FileRecord], wanted: str | None, if_none_match: str | None) -> Response:
    if len(found) != 1:
        raise InputError(f"This is a table in {len(found)} Parquet files: download each (see its objects).")
    file = found[0]
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    headers["Content-Disposition"] = "attachment"
    if file.content_hash is not None:
        headers["ETag"] = f'"{file.content_hash}"'
        known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
        if headers["ETag"] in known or known == ["*"]:
            return Response(None, 304, headers)
    start, stop = _range(wanted, file.size)
    stream = CatalogContents(access).open(None, file)
    status = 200
    if (start, stop) != (0, file.size):
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    headers["Content-Length"] = str(stop - start)
    return _Download(stream, _blocks(stream, start, stop), status, headers)


class _Download(StreamingResponse):
    """The bytes of a file, which is closed however the answer ends."""

    def __init__(self, stream: BinaryIO, blocks: Iterator[bytes], status: int, headers: dict[str, str]) -> None:
        super().__init__(blocks, status, headers, "application/octet-stream")
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()


def _range(wanted: str | None, size: int) -> tuple[int, int]:
    """First byte and the one after the last, of a header with one range; of any other, all of them (RFC 9110, 14.2)."""
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


def _blocks(stream: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    if start:
        stream.seek(start)
    left = stop - start
    while left and (block := stream.read(min(left, _BLOCK))):
        left -= len(block)
        if not left:
            stream.read(1)  # the end of a whole file is where its hash is compared
        yield block


# --- uploads -------------------------------------------------------------------------------------------------------


@router.post("/contents/known", tags=["uploads"])
def known(access: Asking, body: HashesIn) -> HashesShape:
    """Which of these contents need no upload, because they are stored and you may read them."""
    return HashesShape(known=sorted(stored.known(access, body.hashes)))


def _upload(uploads: Uploads, upload: Upload) -> UploadShape:
    return UploadShape(
        upload_id=upload.id,
        offset=uploads.offset(upload),
        file_size=upload.file_size,
        content_hash=upload.content_hash,
        expires_at=uploads.expires_at(upload),
    )


@router.post("/uploads", status_code=201, tags=["uploads"])
def begin_upload(request: Request, access: Asking, uploads: Growing, body: UploadIn) -> UploadShape:
    """Begin an upload that can be gone on with after a broken connection: PATCH its bytes, then commit it.

    With `direct`, `file_size` and `content_hash`, a server whose store can do it answers with an `upload_url`: PUT the content
    there instead, within the hour. It is read and checked before it counts.
    """
    url = key = None
    direct = body.direct and request.app.state.settings.direct_uploads and (body.file_size or 0) <= _ONE_PUT
    if direct and body.content_hash is not None and body.file_size is not None:
        key = hold_for_upload(access, body.content_hash)
        url = access.store.upload_url(key, _DIRECT_FOR)
    upload = uploads.begin(access.actor.name, body.file_size, body.content_hash, key if url else None)
    return _upload(uploads, upload).model_copy(update={"upload_url": url})


@router.get("/uploads/{upload_id}", tags=["uploads"])
def get_upload(upload_id: UploadId, access: Asking, uploads: Growing) -> UploadShape:
    """Where an upload stands."""
    return _upload(uploads, uploads.get(access.actor.name, upload_id))


@router.patch(
    "/uploads/{upload_id}",
    tags=["uploads"],
    openapi_extra={
        "requestBody": {
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            "required": True,
        }
    },
)
async def append_upload(
    request: Request,
    upload_id: UploadId,
    access: Asking,
    uploads: Growing,
    offset: Annotated[int, Header(alias="Upload-Offset", ge=0, le=2**46, description="Where the body belongs.")],
) -> UploadShape:
    """Append bytes to an upload, at the offset where it stands. What arrived before a connection broke stays."""
    upload = uploads.get(access.actor.name, upload_id)
    await uploads.append(upload, offset, request.stream())
    return _upload(uploads, upload)


@router.delete("/uploads/{upload_id}", tags=["uploads"])
def end_upload(upload_id: UploadId, access: Asking, uploads: Growing) -> CountShape:
    """Forget an upload."""
    uploads.end(uploads.get(access.actor.name, upload_id))
    return CountShape(count=1)


# --- commits -------------------------------------------------------------------------------------------------------

_FORM = {
    "type": "object",
    "properties": {
        "commit": {"type": "string", "description": "The commit as JSON; its contents name `part`s of this form."},
        "message": {"type": "string"},
        "branch": {"type": "string"},
        "component_type": {"type": "string", "enum": ["data", "metadata", "schema", "overlay"]},
    },
    "additionalProperties": {"type": "string", "format": "binary"},
}


def _bodies(name: str) -> dict[str, Any]:
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}},
                "multipart/form-data": {"schema": _FORM},
            },
        }
    }


@asynccontextmanager
async def _received(request: Request, kind: type[CommitIn]) -> AsyncIterator[tuple[CommitIn, dict[str, UploadFile]]]:
    """The commit of a request, and the files that came with it, which are gone afterwards."""
    settings = request.app.state.settings
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        yield _parsed(kind, await request.body()), {}
        return
    async with request.form(
        max_files=settings.max_form_files, max_fields=_FORM_TEXTS, max_part_size=settings.max_json_bytes // _FORM_TEXTS
    ) as form:
        given = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
        files = dict(given)
        if len(files) < len(given):
            raise InputError("Two files of this form have the same name. Give each component a name of its own.")
        yield _parsed(kind, _commit_of(form, files)), files


def _commit_of(form: FormData, files: dict[str, UploadFile]) -> bytes | dict[str, Any]:
    texts = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    if (given := texts.pop("commit", None)) is not None:
        return given.encode(errors="surrogatepass")
    kind = texts.pop("component_type", "data")
    components = [
        {"component_name": name, "component_type": kind, "content": {"part": name}, "file_name": file.filename or name}
        for name, file in files.items()
    ]
    return {**texts, "components": components, "replaced": list(files)}


def _parsed(kind: type[CommitIn], given: bytes | dict[str, Any]) -> CommitIn:
    try:
        return kind.model_validate(given) if isinstance(given, dict) else kind.model_validate_json(given)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_context=False, include_url=False)) from error


async def _commit(
    request: Request, access: Access, dataset: DatasetRecord | NewDataset, body: CommitIn, files: dict[str, UploadFile]
) -> CommitShape:
    sources = commits.Sources(access, request.app.state.uploads, files)
    return CommitShape.of(await run_in_threadpool(commits.commit, sources, dataset, body, commit_seed(request)))


@router.post("/datasets/{dataset_id}/versions", status_code=201, tags=["versions"], openapi_extra=_bodies("CommitIn"))
async def commit(request: Request, there: There, access: Asking) -> CommitShape:
    """Make a version of a dataset: JSON whose contents were uploaded before, or a form with the files themselves.

    In a form without `commit`, every file is the component of its field's name: `curl -F data=@flights.csv -F message=July`.
    """
    async with _received(request, CommitIn) as (body, files):
        return await _commit(request, access, there.record, body, files)


@router.get("/head", tags=["versions"])
def head(
    access: Asking,
    dataset_id: Annotated[int | None, Query(ge=-MOST_IDS, le=MOST_IDS)] = None,
    dataset_name: Annotated[str | None, Query(max_length=10_000)] = None,
    branch: Annotated[str, Query(max_length=10_000)] = "main",
    fallback: Annotated[str | None, Query(max_length=10_000)] = None,
) -> HeadShape:
    """What a commit to a branch would start from, for who may make one: its `base_version_id`."""
    if (dataset_id is None) == (dataset_name is None):
        raise InputError("Say which dataset: its dataset_id or its dataset_name, one of them.")
    found: DatasetRecord | NewDataset
    if dataset_id is not None:
        found = datasets.by_id(access, dataset_id)
    else:
        found = datasets.find_or_new(access, str(dataset_name), None)
    start = commit_operations.head(
        access, found, pointer_name(branch), pointer_name(fallback) if fallback is not None else None
    )
    return HeadShape(
        dataset=DatasetShape.of(found) if isinstance(found, DatasetRecord) else None,
        version_id=start.id if start else None,
        version_number=start.number if start else None,
        digest=start.digest if start else None,
    )


@router.post("/commits", status_code=201, tags=["versions"], openapi_extra=_bodies("NamedCommitIn"))
async def commit_by_name(request: Request, access: Asking) -> CommitShape:
    """The same by the dataset's name; a dataset that is not there is made with its first version."""
    async with _received(request, NamedCommitIn) as (body, files):
        assert isinstance(body, NamedCommitIn), "parsed as one"
        name = checked_name(body.dataset_name)
        dataset = await run_in_threadpool(datasets.find_or_new, access, name, body.description)
        return await _commit(request, access, dataset, body, files)


SHAPES = (CommitIn, NamedCommitIn, ComponentIn, ContentIn)
"""Shapes that only the two forms of a commit name: the description of the API has to be told of them."""
