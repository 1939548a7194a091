"""Branches and tags: of a dataset, and branches over all of them."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Response

from dataset_registry.errors import BranchMoved, NotFound, PreconditionFailed
from dataset_registry.model.records import PointerRecord
from dataset_registry.server.auth import Idempotent, RegistryDep
from dataset_registry.server.routes.datasets import DatasetDep
from dataset_registry.wire.base import CountResponse, Page
from dataset_registry.wire.datasets import (
    MoveRequest,
    PointerRequest,
    PointerResponse,
    RegistryBranchRequest,
    RegistryBranchResponse,
)

router = APIRouter(route_class=Idempotent)

BranchName = Annotated[str, Path(min_length=1, max_length=1000, description="The name of a branch or a tag.")]
IfMatch = Annotated[
    str | None, Header(alias="If-Match", max_length=200, description='The expected ETag of the branch: `"v5"`.')
]


def _etag(pointer: PointerRecord) -> str:
    return f'"v{pointer.version_number}"'


def _tagged(response: Response, pointer: PointerRecord) -> PointerResponse:
    response.headers["ETag"] = _etag(pointer)
    return PointerResponse.of(pointer)


@router.get("/datasets/{dataset_id}/pointers", tags=["branches and tags"])
def pointers(there: DatasetDep) -> Page[PointerResponse]:
    """The branches and tags of a dataset."""
    return Page(items=[PointerResponse.of(pointer) for pointer in [*there.branches(), *there.tags()]])


@router.get("/datasets/{dataset_id}/branches", tags=["branches and tags"])
def branches(there: DatasetDep) -> Page[PointerResponse]:
    """The branches of a dataset, by name."""
    return Page(items=[PointerResponse.of(pointer) for pointer in there.branches()])


@router.post("/datasets/{dataset_id}/branches", status_code=201, tags=["branches and tags"])
def create_branch(there: DatasetDep, body: PointerRequest, response: Response) -> PointerResponse:
    """Create a branch at a ref."""
    return _tagged(response, there.create_branch(body.pointer_name, body.ref))


@router.get("/datasets/{dataset_id}/branches/{name:path}", tags=["branches and tags"])
def get_branch(there: DatasetDep, name: BranchName, response: Response) -> PointerResponse:
    """A branch, with the ETag for `If-Match`."""
    return _tagged(response, there.branch(name))


@router.patch("/datasets/{dataset_id}/branches/{name:path}", tags=["branches and tags"])
def move_branch(
    there: DatasetDep, name: BranchName, body: MoveRequest, response: Response, if_match: IfMatch = None
) -> PointerResponse:
    """Move a branch to another version; with `If-Match` or `expect`, only if it is at that one."""
    expect = body.expect
    if if_match is not None and if_match != "*":
        now = there.branch(name)
        if if_match.removeprefix("W/") != _etag(now):
            raise PreconditionFailed(
                f"{there.name}@{name} is at v{now.version_number}, not at {if_match}. Look at what happened, then try again.",
                branch=name,
            )
        expect = expect or f"v{now.version_number}"
    try:
        return _tagged(response, there.move_branch(name, body.ref, expect=expect))
    except BranchMoved as error:
        if if_match is None:
            raise
        raise PreconditionFailed(str(error), branch=name) from error


@router.delete("/datasets/{dataset_id}/branches/{name:path}", tags=["branches and tags"])
def delete_branch(there: DatasetDep, name: BranchName) -> CountResponse:
    """Delete a branch; its versions stay."""
    there.delete_branch(name)
    return CountResponse(count=1)


@router.get("/datasets/{dataset_id}/tags", tags=["branches and tags"])
def tags(there: DatasetDep) -> Page[PointerResponse]:
    """The tags of a dataset, by name."""
    return Page(items=[PointerResponse.of(pointer) for pointer in there.tags()])


@router.post("/datasets/{dataset_id}/tags", status_code=201, tags=["branches and tags"])
def create_tag(there: DatasetDep, body: PointerRequest, response: Response) -> PointerResponse:
    """Create a tag. Tags never move."""
    return _tagged(response, there.create_tag(body.pointer_name, body.ref))


@router.get("/datasets/{dataset_id}/tags/{name:path}", tags=["branches and tags"])
def get_tag(there: DatasetDep, name: BranchName, response: Response) -> PointerResponse:
    """A tag."""
    found = there.branch(name)
    if not found.is_tag:
        raise NotFound(f"{there.name} has no tag {name!r}, which is a branch. See /branches/{name}.", tag=name)
    return _tagged(response, found)


@router.delete("/datasets/{dataset_id}/tags/{name:path}", tags=["branches and tags"])
def delete_tag(there: DatasetDep, name: BranchName) -> CountResponse:
    """Delete a tag; its name cannot be reused."""
    there.delete_tag(name)
    return CountResponse(count=1)


@router.get("/branches", tags=["registry"])
def registry_branches(here: RegistryDep) -> Page[RegistryBranchResponse]:
    """List the branches over all datasets, for administrators."""
    return Page(items=[RegistryBranchResponse.of(branch) for branch in here.branches()])


@router.post("/branches", status_code=201, tags=["registry"])
def create_registry_branch(here: RegistryDep, body: RegistryBranchRequest) -> CountResponse:
    """Create a branch in every dataset that has the branch `source`, in one transaction. Returns their number."""
    return CountResponse(count=here.create_branch(body.name, body.source))


@router.delete("/branches/{name:path}", tags=["registry"])
def delete_registry_branch(here: RegistryDep, name: BranchName) -> CountResponse:
    """Delete a branch over all datasets. Returns their number."""
    return CountResponse(count=here.delete_branch(name))
