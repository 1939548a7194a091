"""Row diffs and merges."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from dataset_registry.model.merge_plans import MergeOptions
from dataset_registry.operations import merge as merging
from dataset_registry.server.auth import AccessDep, Idempotent
from dataset_registry.server.limits import table_work
from dataset_registry.server.routes.datasets import DatasetDep, Ref
from dataset_registry.tabular.encoded import STREAMS, encoded, table_from
from dataset_registry.wire.datasets import VersionResponse
from dataset_registry.wire.merges import (
    ConflictRowsRequest,
    MergePlanResponse,
    MergeRequest,
    MergeResponse,
    RowSummariesResponse,
    RowSummaryResponse,
    options_of,
)

router = APIRouter(route_class=Idempotent, dependencies=[Depends(table_work)])

Format = Annotated[Literal["json", "csv", "arrow", "parquet"], Query(description="The format of the rows.")]
Component = Annotated[str | None, Query(max_length=10_000, description="A component. Default: all that changed.")]
Key = Annotated[list[str] | None, Query(max_length=1000, description="The columns to compare by.")]

_ROWS: dict[int | str, dict[str, Any]] = {
    200: {"content": {media.partition(";")[0]: {} for media in STREAMS.values()}, "description": "Rows."}
}


@router.get("/datasets/{dataset_id}/compare/summary", tags=["versions"])
def summary(dataset: DatasetDep, before: Ref, after: Ref, component: Component = None) -> RowSummariesResponse:
    """Count the rows and cells that differ between two refs, for each table that changed."""
    found = dataset.diff_summary(before, after, component)
    return RowSummariesResponse(tables={label: RowSummaryResponse.of(rows) for label, rows in found.items()})


@router.get("/datasets/{dataset_id}/compare/rows", tags=["versions"], response_class=StreamingResponse, responses=_ROWS)
def rows(
    dataset: DatasetDep,
    before: Ref,
    after: Ref,
    component: Component = None,
    index: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    sheet: Annotated[str | None, Query(max_length=1000)] = None,
    key: Key = None,
    limit: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    format: Format = "json",
) -> StreamingResponse:
    """Stream the rows of a table that differ between two refs: `change`, the key, and `before_…` and `after_…` of the other
    columns. As JSON lines, CSV, an Arrow stream or Parquet."""
    found = dataset.diff_rows(before, after, component, index=index, sheet=sheet, key=key or (), limit=limit)
    return _stream(encoded(found, format), format)


@router.post("/datasets/{dataset_id}/merges/plan", tags=["merges"])
def plan_merge(dataset: DatasetDep, access: AccessDep, request: MergeRequest) -> MergePlanResponse:
    """Plan a merge: the components and rows that it would change, and its conflicts. Nothing is changed."""
    found = merging.plan(access, dataset.record, request.how, request.ref, request.branch, _options(request))
    return MergePlanResponse.of(found)


@router.post("/datasets/{dataset_id}/merges", tags=["merges"], status_code=201)
def merge(dataset: DatasetDep, access: AccessDep, request: MergeRequest) -> MergeResponse:
    """Merge a ref into a branch. 409 with the code `merge_conflict` for conflicts that are left."""
    found, head = merging.merge(access, dataset.record, request.how, request.ref, request.branch, _options(request))
    return MergeResponse(merge=MergePlanResponse.of(found), version=VersionResponse.of(head))


@router.post(
    "/datasets/{dataset_id}/merges/conflicts", tags=["merges"], response_class=StreamingResponse, responses=_ROWS
)
def conflicts(
    dataset: DatasetDep, access: AccessDep, request: ConflictRowsRequest, format: Format = "json"
) -> StreamingResponse:
    """Stream the rows of a component that are in conflict in a merge. Fill in `take`, and send them back as resolutions."""
    options = _options(request)
    found = merging.conflicts(
        access, dataset.record, request.how, request.ref, request.branch, request.component, options
    )
    return _stream(encoded(found.to_reader(), format), format)


def _options(request: MergeRequest) -> MergeOptions:
    return options_of(request, {component: table_from(rows) for component, rows in request.resolutions.items()})


def _stream(pieces: Iterator[bytes], format: str) -> StreamingResponse:
    return StreamingResponse(pieces, media_type=STREAMS[format])
