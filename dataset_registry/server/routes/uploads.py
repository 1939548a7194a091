"""Resumable uploads, and contents that need no upload."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request, Response

from dataset_registry.access import authorize_some_write
from dataset_registry.content import stored
from dataset_registry.content.upload import hold_for_upload
from dataset_registry.server.auth import AccessDep, Idempotent
from dataset_registry.server.uploads import Uploads, UploadSession
from dataset_registry.wire.base import CountResponse
from dataset_registry.wire.files import HashesRequest, HashesResponse, UploadRequest, UploadResponse

router = APIRouter(route_class=Idempotent)
appending = APIRouter()
"""A repeated append has the wrong offset, so it needs no key and no buffering."""

UploadId = Annotated[str, Path(min_length=1, max_length=100, description="The id of an upload.")]
_ONE_PUT = 5 << 30
"""The maximum size of one PUT to S3."""
_DIRECT_FOR = timedelta(hours=1)


def uploads_of(request: Request) -> Uploads:
    """The uploads of this server."""
    found: Uploads = request.app.state.uploads
    return found


UploadsDep = Annotated[Uploads, Depends(uploads_of)]


@router.post("/contents/known", tags=["uploads"])
def known(access: AccessDep, body: HashesRequest) -> HashesResponse:
    """The contents that need no upload: they are stored, and you can read them."""
    return HashesResponse(known=sorted(stored.known(access, body.hashes)))


def _upload(uploads: Uploads, upload: UploadSession) -> UploadResponse:
    return UploadResponse(
        upload_id=upload.id,
        offset=uploads.offset(upload),
        file_size=upload.file_size,
        content_hash=upload.content_hash,
        expires_at=uploads.expires_at(upload),
    )


@router.post("/uploads", status_code=201, tags=["uploads"])
def begin_upload(
    request: Request, response: Response, access: AccessDep, uploads: UploadsDep, body: UploadRequest
) -> UploadResponse:
    """Begin an upload that can be resumed after a broken connection: PATCH its bytes, then commit it.

    With `direct`, `file_size` and `content_hash`, a server whose store can do it answers with an `upload_url`: PUT the content
    there instead, within the hour, with that Content-Length. It is read and checked before it is used.

    Bytes that were announced or received count against a quota, of the user and of the server, until they are committed or the
    upload expires.
    """
    with access.catalog.read() as tx:
        authorize_some_write(access, tx)
    uploads.check_quota(access.actor.name, body.file_size or 0)
    url = key = None
    direct = body.direct and request.app.state.settings.direct_uploads and (body.file_size or 0) <= _ONE_PUT
    if direct and body.content_hash is not None and body.file_size is not None:
        key = hold_for_upload(access, body.content_hash)
        url = access.store.upload_url(key, body.file_size, _DIRECT_FOR)
    if url is not None:  # it permits writing to the store: it is not remembered for an Idempotency-Key either
        response.headers["Cache-Control"] = "no-store"
    upload = uploads.begin(access.actor.name, body.file_size, body.content_hash, key if url else None)
    return _upload(uploads, upload).model_copy(update={"upload_url": url})


@router.get("/uploads/{upload_id}", tags=["uploads"])
def get_upload(upload_id: UploadId, access: AccessDep, uploads: UploadsDep) -> UploadResponse:
    """The offset of an upload."""
    return _upload(uploads, uploads.get(access.actor.name, upload_id))


@appending.patch(
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
    access: AccessDep,
    uploads: UploadsDep,
    offset: Annotated[int, Header(alias="Upload-Offset", ge=0, le=2**46, description="The offset of the body.")],
) -> UploadResponse:
    """Append bytes at the upload's offset. Bytes that arrived before a broken connection are kept."""
    upload = uploads.get(access.actor.name, upload_id)
    await uploads.append(upload, offset, request.stream())
    return _upload(uploads, upload)


@router.delete("/uploads/{upload_id}", tags=["uploads"])
def end_upload(upload_id: UploadId, access: AccessDep, uploads: UploadsDep) -> CountResponse:
    """Delete an upload."""
    uploads.end(uploads.get(access.actor.name, upload_id))
    return CountResponse(count=1)
