"""Commits: JSON whose contents were uploaded before, or a form with the files themselves."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from dataset_registry.access import Access, authorize, authorize_some_write
from dataset_registry.errors import InputError, PayloadTooLarge
from dataset_registry.model.names import dataset_name as checked_name
from dataset_registry.model.names import pointer_name
from dataset_registry.model.records import DatasetRecord, NewDataset
from dataset_registry.operations import datasets
from dataset_registry.operations.commit_base import head as head_of
from dataset_registry.server import commits
from dataset_registry.server.auth import AccessDep, Keyed, request_key
from dataset_registry.server.routes.datasets import DatasetDep, DatasetId
from dataset_registry.wire.base import MOST_IDS
from dataset_registry.wire.commits import (
    MOST_COMPONENTS,
    CommitRequest,
    CommitResponse,
    ComponentRequest,
    ContentRequest,
    HeadResponse,
    NamedCommitRequest,
)
from dataset_registry.wire.datasets import DatasetResponse

router = APIRouter(route_class=Keyed)

_FORM_TEXTS = 8
"""Texts of a form: the commit, or message, branch and the like."""


_FORM = {
    "type": "object",
    "properties": {
        "commit": {"type": "string", "description": "The commit as JSON; its contents name `part`s of this form."},
        "message": {"type": "string"},
        "branch": {"type": "string"},
        "component_type": {"type": "string", "enum": ["data", "metadata", "schema", "overlay"]},
        "component_types": {"type": "string", "description": "The types of files by their fields' names, as JSON."},
        "read": {"type": "string", "description": "The read options of the files, as JSON."},
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


DatasetName = Annotated[
    str | None,
    Query(
        max_length=10_000,
        description="The dataset's name. Required for a form: permission is checked before files are received.",
    ),
]


def writer(request: Request, access: AccessDep, dataset_name: DatasetName = None) -> Access:
    """The access of a caller who may write to the dataset that the URL names, or to some dataset for a body without files.
    Checked before the body is received."""
    if dataset_name is None and _is_form(request):
        raise InputError(
            "A commit with files is checked before its files are received: name the dataset in the URL, as in "
            "POST /v1/commits?dataset_name=raw/flights"
        )
    found = None if dataset_name is None else datasets.find_or_new(access, dataset_name, None)
    with access.catalog.read() as tx:
        if isinstance(found, DatasetRecord):
            authorize(access, tx, "write", found.id)
        elif found is None:
            authorize_some_write(access, tx)
    return access


def writer_of(dataset_id: DatasetId, access: AccessDep) -> Access:
    """The access of a caller who may write to the dataset of the path. Checked before the body is received."""
    with access.catalog.read() as tx:
        authorize(access, tx, "write", dataset_id)
    return access


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


@asynccontextmanager
async def _received(
    request: Request, access: Access, kind: type[CommitRequest], name: str | None = None
) -> AsyncIterator[tuple[CommitRequest, dict[str, UploadFile]]]:
    """The commit of a request, and the files that came with it, which are deleted afterwards. `name` is that of the dataset,
    where the URL says it."""
    if not _is_form(request):
        yield await run_in_threadpool(_parsed, kind, await request.body(), name), {}
        return
    settings = request.app.state.settings
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else settings.max_form_bytes
    with request.app.state.uploads.receiving(access.actor.name, size):
        async with request.form(
            max_files=settings.max_form_files,
            max_fields=_FORM_TEXTS,
            max_part_size=settings.max_json_bytes // _FORM_TEXTS,
        ) as form:
            given = [(part, value) for part, value in form.multi_items() if isinstance(value, UploadFile)]
            files = dict(given)
            if len(files) < len(given):
                raise InputError("Two files of this form have the same name. Give each component a name of its own.")
            yield await run_in_threadpool(_parsed, kind, _commit_of(form, files), name), files


def _commit_of(form: FormData, files: dict[str, UploadFile]) -> bytes | dict[str, Any]:
    texts = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    if (given := texts.pop("commit", None)) is not None:
        return given.encode(errors="surrogatepass")
    if not files:
        raise InputError(
            "This form has no files. Add each as a field of its component's name, as in: -F data=@flights.csv; or describe the "
            "commit in a field 'commit', as JSON."
        )
    facts: dict[str, Any] = {}
    if "read" in texts:
        facts["read"] = _json("read", texts.pop("read"), '{"delimiter": ";"}')
    one_type = texts.pop("component_type", "data")
    types = _json("component_types", texts.pop("component_types", "{}"), '{"data": "data", "notes": "metadata"}')
    if not isinstance(types, dict) or (unknown := sorted(map(str, types.keys() - files.keys()))):
        named = f" It names {unknown[0]!r}, and no file of the form is called so." if isinstance(types, dict) else ""
        raise InputError(f"The field 'component_types' gives files of the form their types.{named}")
    components = [
        {
            "component_name": name,
            "component_type": types.get(name, one_type),
            "content": {"part": name},
            "file_name": file.filename or name,
            **facts,
        }
        for name, file in files.items()
    ]
    return {**texts, "components": components, "replaced": list(files)}


def _json(field: str, text: str, example: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"The field {field!r} of the form is not JSON ({error}). Write it like {example}.") from error


_MOST_VALUES = 2_000_000
"""Maximum number of JSON values in a commit: 100,000 components with some metadata each."""
_TOGETHER = 500
"""Components that are validated at a time. Validation blocks other threads, so other requests run in between."""
_COMPONENTS = TypeAdapter(list[ComponentRequest])


def _parsed(kind: type[CommitRequest], given: bytes | dict[str, Any], name: str | None) -> CommitRequest:
    value = _loaded(given) if isinstance(given, bytes) else given
    if name is not None and isinstance(value, dict) and value.setdefault("dataset_name", name) != name:
        raise InputError(
            f"The URL names the dataset {name!r}, the commit another one: {value['dataset_name']!r}. Name one dataset."
        )
    try:
        return kind.model_validate(_with_components(value))
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_context=False, include_url=False)) from error


def _loaded(body: bytes) -> Any:
    """Parse the JSON of a body after checking the number of its values."""
    if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise PayloadTooLarge(
            f"The JSON of a commit has more than {_MOST_VALUES:,} values. Commit fewer components at once.",
            most=_MOST_VALUES,
        )
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"The body is not JSON: {reason}. See /docs for what this request takes.") from error


def _with_components(value: Any) -> Any:
    """The value with its components validated, some at a time."""
    if not isinstance(value, dict) or not isinstance(value.get("components"), list):
        return value
    components, validated = value["components"][: MOST_COMPONENTS + 1], []
    for start in range(0, len(components), _TOGETHER):
        try:
            validated += _COMPONENTS.validate_python(components[start : start + _TOGETHER])
        except ValidationError as error:
            found = error.errors(include_context=False, include_url=False)
            for problem in found:
                position, *rest = problem["loc"]
                problem["loc"] = ("components", start + int(position), *rest)
            raise RequestValidationError(found) from error
    return {**value, "components": validated}


async def _commit(
    request: Request,
    access: Access,
    dataset: DatasetRecord | NewDataset,
    body: CommitRequest,
    files: dict[str, UploadFile],
) -> CommitResponse:
    sources = commits.Sources(access, request.app.state.uploads, files)

    def work() -> CommitResponse:
        key = request_key(request, lambda: commits.described(sources, body))
        return CommitResponse.of(commits.commit(sources, dataset, body, key))

    return await run_in_threadpool(work)


@router.post(
    "/datasets/{dataset_id}/versions", status_code=201, tags=["versions"], openapi_extra=_bodies("CommitRequest")
)
async def commit(
    request: Request, dataset: DatasetDep, access: Annotated[Access, Depends(writer_of)]
) -> CommitResponse:
    """Commit a version: JSON whose contents were uploaded before, or a form with the files.

    In a form without `commit`, every file is the component of its field's name: `curl -F data=@flights.csv -F message=July`.
    """
    async with _received(request, access, CommitRequest) as (body, files):
        return await _commit(request, access, dataset.record, body, files)


@router.get("/head", tags=["versions"])
def head(
    access: AccessDep,
    dataset_id: Annotated[int | None, Query(ge=-MOST_IDS, le=MOST_IDS)] = None,
    dataset_name: Annotated[str | None, Query(max_length=10_000)] = None,
    branch: Annotated[str, Query(max_length=10_000)] = "main",
    fallback: Annotated[str | None, Query(max_length=10_000)] = None,
) -> HeadResponse:
    """The version that a commit to a branch would start from: its `base_version_id`."""
    if (dataset_id is None) == (dataset_name is None):
        raise InputError("No dataset given: expected either dataset_id or dataset_name.")
    found: DatasetRecord | NewDataset
    if dataset_id is not None:
        found = datasets.by_id(access, dataset_id)
    else:
        found = datasets.find_or_new(access, str(dataset_name), None)
    start = head_of(access, found, pointer_name(branch), pointer_name(fallback) if fallback is not None else None)
    return HeadResponse(
        dataset=DatasetResponse.of(found) if isinstance(found, DatasetRecord) else None,
        version_id=start.id if start else None,
        version_number=start.number if start else None,
        digest=start.digest if start else None,
    )


@router.post("/commits", status_code=201, tags=["versions"], openapi_extra=_bodies("NamedCommitRequest"))
async def commit_by_name(
    request: Request, access: Annotated[Access, Depends(writer)], dataset_name: DatasetName = None
) -> CommitResponse:
    """Commit by the dataset's name; a new dataset is created with its first version.

    A form names its dataset in the URL: `curl -F data=@flights.csv '…/v1/commits?dataset_name=raw/flights'`.
    """
    async with _received(request, access, NamedCommitRequest, dataset_name) as (body, files):
        assert isinstance(body, NamedCommitRequest), "parsed as one"
        name = checked_name(body.dataset_name)
        dataset = await run_in_threadpool(datasets.find_or_new, access, name, body.description)
        return await _commit(request, access, dataset, body, files)


SHAPES = (CommitRequest, NamedCommitRequest, ComponentRequest, ContentRequest)
"""Models that only commit bodies reference, added to the API description explicitly."""
