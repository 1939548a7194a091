"""Stored files over the S3 protocol, read-only: the bucket `registry`, with the token of the registry as session token.

- `data/<sha256>.parquet` is a stored file, `datasets/<name>@<ref>/<path>` a file of a version;
- `iceberg/…` are the metadata of Iceberg tables, `delta/<name>@<ref>/` is a version as a Delta table.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from io import BytesIO
from threading import Lock
from typing import Annotated, BinaryIO
from urllib.parse import unquote

from cachetools import LRUCache
from fastapi import APIRouter, Header, Query, Request, Response
from markupsafe import escape

from dataset_registry.access import Access
from dataset_registry.content.source import CatalogContents
from dataset_registry.embedded.dataset import EmbeddedDataset, EmbeddedVersion
from dataset_registry.errors import NotFound
from dataset_registry.model.extras import require
from dataset_registry.model.records import FileRecord
from dataset_registry.operations import datasets, files
from dataset_registry.server import paging
from dataset_registry.server.auth import AccessDep
from dataset_registry.server.protocols import BUCKET, S3
from dataset_registry.server.routes.files import Download, blocks, byte_range

router = APIRouter(prefix=S3.rstrip("/"), include_in_schema=False)

_DATA = re.compile(r"(?:iceberg/[0-9]{1,18}/[^/]+/)?data/([0-9a-f]{64})(?:-[0-9]{1,9})?\.parquet")
_ICEBERG = re.compile(r"iceberg/([0-9]{1,18})/([^/]+)/([^/]+)")
_OF_A_VERSION = re.compile(r"(datasets|delta)/(.+?)@([^/]+)/(.*)", re.DOTALL)
_RANGE = re.compile(r"bytes=([0-9]+-[0-9]*|-[0-9]+)")
_LOG = "_delta_log/00000000000000000000.json"
_MOST_KEYS = 1000


@dataclass(frozen=True, slots=True)
class _Object:
    """An object of the bucket: a stored file, or metadata that are made for this request."""

    key: str
    size: int
    etag: str
    moment: datetime
    content: FileRecord | bytes


@router.api_route("/{key:path}", methods=["GET", "HEAD"])
def get_object(
    key: str,
    request: Request,
    access: AccessDep,
    wanted: Annotated[str | None, Header(alias="Range", max_length=100)] = None,
    prefix: Annotated[str, Query(max_length=10_000)] = "",
    delimiter: Annotated[str, Query(max_length=1)] = "",
    start_after: Annotated[str, Query(alias="start-after", max_length=10_000)] = "",
    continuation: Annotated[str | None, Query(alias="continuation-token", max_length=20_000)] = None,
    most: Annotated[int, Query(alias="max-keys", ge=0)] = _MOST_KEYS,
) -> Response:
    """The bytes of an object, or a list of objects."""
    if key == "":
        if "location" in request.query_params:
            return _xml('<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>')
        after = paging.decode(continuation) or start_after or request.query_params.get("marker", "")
        return _list(access, prefix, delimiter, after, min(most, _MOST_KEYS))
    found = _find(access, key)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{found.etag}"',
        "Last-Modified": format_datetime(found.moment, usegmt=True),
        "Content-Type": "application/octet-stream",
    }
    start, stop = byte_range(wanted, found.size)
    status = 200
    if wanted is not None and _RANGE.fullmatch(wanted):  # also if it is the whole object: clients of S3 insist on it
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.size}"
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(None, status, headers)
    stream = _open(access, found)
    return Download(stream, blocks(stream, start, stop), status, headers)


@router.get("")
def list_objects(request: Request, access: AccessDep) -> Response:
    """The bucket, by clients that leave out the slash behind its name."""
    values = request.query_params
    return get_object(
        "",
        request,
        access,
        None,
        values.get("prefix", ""),
        values.get("delimiter", ""),
        values.get("start-after", ""),
        values.get("continuation-token"),
        int(most) if (most := values.get("max-keys", "")).isdecimal() else _MOST_KEYS,
    )


def _open(access: Access, found: _Object) -> BinaryIO:
    if isinstance(found.content, bytes):
        return BytesIO(found.content)
    return CatalogContents(access).at_random(found.content)


# --- what is there -------------------------------------------------------------------------------------------------


def _find(access: Access, key: str) -> _Object:
    """The object with this key. Raises `NotFound`, also where the caller may not read it."""
    if (data := _DATA.fullmatch(key)) is not None:
        return _stored(key, files.exactly(access, data[1]))
    if (of_table := _ICEBERG.fullmatch(key)) is not None:
        require("pyiceberg", "iceberg", "the Iceberg catalog")
        from dataset_registry.table_formats.iceberg_tables import IcebergTable

        dataset = EmbeddedDataset(access, datasets.by_id(access, int(of_table[1])))
        return _made(key, IcebergTable.at(dataset, of_table[2]).file(of_table[3]), dataset.record.created_at)
    if (of_version := _OF_A_VERSION.fullmatch(key)) is not None:
        tree, root = _tree(access, *of_version.groups()[:3])
        content = tree.objects.get(key.removeprefix(root))
        if isinstance(content, int) and (file := files.of_versions(access, [content]).get(content)) is not None:
            return _stored(key, file)
        if isinstance(content, bytes):
            return _made(key, content, tree.moment)
    raise NotFound(f"No object {key!r} in the bucket {BUCKET}.", key=key)


@dataclass(frozen=True, slots=True)
class _Tree:
    """The objects of a version by their paths: the ids of files, or what was made of its metadata."""

    objects: Mapping[str, int | bytes]
    moment: datetime


_lock = Lock()
_trees: LRUCache[tuple[object, ...], _Tree] = LRUCache(1 << 18, getsizeof=lambda tree: len(tree.objects))
"""What a version has does not change; who may read it is checked by looking it up."""


def _tree(access: Access, kind: str, name: str, ref: str) -> tuple[_Tree, str]:
    """The objects of a version, and the beginning of their keys. Raises `NotFound`, `InputError`."""
    dataset = EmbeddedDataset(access, datasets.get(access, name))
    version = dataset.version(unquote(ref))
    key = (access.catalog, version.id, kind)
    with _lock:
        found = _trees.get(key)
    if found is None:
        found = _Tree(_objects(dataset, version, kind), version.created_at)
        if len(found.objects) < _trees.maxsize:
            with _lock:
                _trees[key] = found
    return found, f"{kind}/{name}@{ref}/"


def _objects(dataset: EmbeddedDataset, version: EmbeddedVersion, kind: str) -> dict[str, int | bytes]:
    """In the order of their paths, as they are listed."""
    if kind == "datasets":
        return dict(sorted((file.path, file.file.id) for file in version.files()))
    from dataset_registry.table_formats import delta

    table = delta.table_of(version)
    objects: dict[str, int | bytes] = {parquet.name: parquet.file.id for parquet in table.files}
    objects[_LOG] = delta.log_of(dataset.record, version.record, table)
    return dict(sorted(objects.items()))


def _stored(key: str, file: FileRecord) -> _Object:
    return _Object(key, file.size, str(file.content_hash), file.created_at, file)


def _made(key: str, content: bytes, moment: datetime) -> _Object:
    return _Object(key, len(content), hashlib.sha256(content).hexdigest(), moment, content)


# --- lists ---------------------------------------------------------------------------------------------------------


def _list(access: Access, prefix: str, delimiter: str, after: str, most: int) -> Response:
    """The objects of a version whose keys begin with a prefix; without a version in it, none."""
    of_version = _OF_A_VERSION.fullmatch(prefix if "/" in prefix.partition("@")[2] else prefix + "/")
    if of_version is None:
        return _page(prefix, most, [], [], None)
    tree, root = _tree(access, *of_version.groups()[:3])
    keys: list[str] = []
    folders: dict[str, None] = {}
    last = None
    for key in (root + path for path in tree.objects):
        folder = _folder(key, prefix, delimiter)
        if not key.startswith(prefix) or key <= after or (folder and folder <= after) or folder in folders:
            continue
        if len(keys) + len(folders) == most:
            if not most:
                break
            last = max([*keys[-1:], *list(folders)[-1:]], default=after)
            break
        if folder:
            folders[folder] = None
        else:
            keys.append(key)
    contents = [(key, tree.objects[key.removeprefix(root)]) for key in keys]
    records = files.of_versions(access, [content for _, content in contents if isinstance(content, int)])
    found = [
        _stored(key, records[content]) if isinstance(content, int) else _made(key, content, tree.moment)
        for key, content in contents
        if isinstance(content, bytes) or content in records
    ]
    return _page(prefix, most, found, list(folders), last)


def _page(prefix: str, most: int, found: Sequence[_Object], folders: Sequence[str], last: str | None) -> Response:
    """A page of a list; the next one begins after `last`."""
    contents = "".join(
        f"<Contents><Key>{escape(one.key)}</Key><LastModified>{one.moment:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
        f"<ETag>&quot;{one.etag}&quot;</ETag><Size>{one.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for one in found
    )
    common = "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders)
    shown = escape(prefix) if prefix.isprintable() else ""
    again = ""
    if last is not None:  # for the first and the second form of lists
        again = f"<NextContinuationToken>{paging.encode(last)}</NextContinuationToken><NextMarker>{escape(last)}</NextMarker>"
    return _xml(
        f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{BUCKET}</Name>'
        f"<Prefix>{shown}</Prefix><KeyCount>{len(found) + len(folders)}</KeyCount><MaxKeys>{most}</MaxKeys>"
        f"<IsTruncated>{'false' if last is None else 'true'}</IsTruncated>{again}{contents}{common}</ListBucketResult>"
    )


def _folder(key: str, prefix: str, delimiter: str) -> str | None:
    """The part of a key up to the next delimiter behind a prefix."""
    if not delimiter:
        return None
    head, found, _ = key.removeprefix(prefix).partition(delimiter)
    return prefix + head + found if found else None


def _xml(body: str) -> Response:
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>\n{body}', media_type="application/xml")
