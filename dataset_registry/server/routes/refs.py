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
def pointers(dataset: DatasetDep) -> Page[PointerResponse]:
    """The branches and tags of a dataset."""
    return Page(items=[PointerResponse.of(pointer) for pointer in [*dataset.branches(), *dataset.tags()]])


@router.get("/datasets/{dataset_id}/branches", tags=["branches and tags"])
def branches(dataset: DatasetDep) -> Page[PointerResponse]:
    """The branches of a dataset, by name."""
    return Page(items=[PointerResponse.of(pointer) for pointer in dataset.branches()])


@router.post("/datasets/{dataset_id}/branches", status_code=201, tags=["branches and tags"])
def create_branch(dataset: DatasetDep, body: PointerRequest, response: Response) -> PointerResponse:
    """Create a branch at a ref."""
    return _tagged(response, dataset.create_branch(body.pointer_name, body.ref))


@router.get("/datasets/{dataset_id}/branches/{name:path}", tags=["branches and tags"])
def get_branch(dataset: DatasetDep, name: BranchName, response: Response) -> PointerResponse:
    """A branch, with the ETag for `If-Match`."""
    return _tagged(response, dataset.branch(name))


@router.patch("/datasets/{dataset_id}/branches/{name:path}", tags=["branches and tags"])
def move_branch(
    dataset: DatasetDep, name: BranchName, body: MoveRequest, response: Response, if_match: IfMatch = None
) -> PointerResponse:
    """Move a branch to another version; with `If-Match` or `expect`, only if it is at that one."""
    expect = body.expect
    if if_match is not None and if_match != "*":
        now = dataset.branch(name)
        if if_match.removeprefix("W/") != _etag(now):
            raise PreconditionFailed(
                f"{dataset.name}@{name} is at v{now.version_number}, not at {if_match}. Look at what happened, then try again.",
                branch=name,
            )
        expect = expect or f"v{now.version_number}"
    try:
        return _tagged(response, dataset.move_branch(name, body.ref, expect=expect))
    except BranchMoved as error:
        if if_match is None:
            raise
        raise PreconditionFailed(str(error), branch=name) from error


@router.delete("/datasets/{dataset_id}/branches/{name:path}", tags=["branches and tags"])
def delete_branch(dataset: DatasetDep, name: BranchName) -> CountResponse:
    """Delete a branch; its versions stay."""
    dataset.delete_branch(name)
    return CountResponse(count=1)


@router.get("/datasets/{dataset_id}/tags", tags=["branches and tags"])
def tags(dataset: DatasetDep) -> Page[PointerResponse]:
    """The tags of a dataset, by name."""
    return Page(items=[PointerResponse.of(pointer) for pointer in dataset.tags()])


@router.post("/datasets/{dataset_id}/tags", status_code=201, tags=["branches and tags"])
def create_tag(dataset: DatasetDep, body: PointerRequest, response: Response) -> PointerResponse:
    """Create a tag. Tags never move."""
    return _tagged(response, dataset.create_tag(body.pointer_name, body.ref))


@router.get("/datasets/{dataset_id}/tags/{name:path}", tags=["branches and tags"])
def get_tag(dataset: DatasetDep, name: BranchName, response: Response) -> PointerResponse:
    """A tag."""
    found = dataset.branch(name)
    if not found.is_tag:
        raise NotFound(f"{dataset.name} has no tag {name!r}, which is a branch. See /branches/{name}.", tag=name)
    return _tagged(response, found)


@router.delete("/datasets/{dataset_id}/tags/{name:path}", tags=["branches and tags"])
def delete_tag(dataset: DatasetDep, name: BranchName) -> CountResponse:
    """Delete a tag; its name cannot be reused."""
    dataset.delete_tag(name)
    return CountResponse(count=1)


@router.get("/branches", tags=["registry"])
def registry_branches(registry: RegistryDep) -> Page[RegistryBranchResponse]:
    """List the branches over all datasets, for administrators."""
    return Page(items=[RegistryBranchResponse.of(branch) for branch in registry.branches()])


@router.post("/branches", status_code=201, tags=["registry"])
def create_registry_branch(registry: RegistryDep, body: RegistryBranchRequest) -> CountResponse:
    """Create a branch in every dataset that has the branch `source`, in one transaction. Returns their number."""
    return CountResponse(count=registry.create_branch(body.name, body.source))


@router.delete("/branches/{name:path}", tags=["registry"])
def delete_registry_branch(registry: RegistryDep, name: BranchName) -> CountResponse:
    """Delete a branch over all datasets. Returns their number."""
    return CountResponse(count=registry.delete_branch(name))
