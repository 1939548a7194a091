"""Branches and tags: of a dataset, and branches over all of them."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Response

from dataset_registry.errors import BranchMoved, NotFound, PreconditionFailed
from dataset_registry.model.records import PointerRecord
from dataset_registry.server.asking import Here, Idempotent
from dataset_registry.server.routes.datasets import There
from dataset_registry.wire.datasets import MoveIn, PointerIn, PointerShape, RegistryBranchIn, RegistryBranchShape
from dataset_registry.wire.shapes import CountShape, Page

router = APIRouter(route_class=Idempotent)

BranchName = Annotated[str, Path(min_length=1, max_length=1000, description="The name of a branch or a tag.")]
IfMatch = Annotated[
    str | None, Header(alias="If-Match", max_length=200, description='The ETag that the branch had: `"v5"`.')
]


def _etag(pointer: PointerRecord) -> str:
    return f'"v{pointer.version_number}"'


def _tagged(response: Response, pointer: PointerRecord) -> PointerShape:
    response.headers["ETag"] = _etag(pointer)
    return PointerShape.of(pointer)


@router.get("/datasets/{dataset_id}/pointers", tags=["branches and tags"])
def pointers(there: There) -> Page[PointerShape]:
    """The branches and tags of a dataset."""
    return Page(items=[PointerShape.of(pointer) for pointer in [*there.branches(), *there.tags()]])


@router.get("/datasets/{dataset_id}/branches", tags=["branches and tags"])
def branches(there: There) -> Page[PointerShape]:
    """The branches of a dataset, by name."""
    return Page(items=[PointerShape.of(pointer) for pointer in there.branches()])


@router.post("/datasets/{dataset_id}/branches", status_code=201, tags=["branches and tags"])
def create_branch(there: There, body: PointerIn, response: Response) -> PointerShape:
    """Start a branch at the version that a ref names."""
    return _tagged(response, there.create_branch(body.pointer_name, body.ref))


@router.get("/datasets/{dataset_id}/branches/{name:path}", tags=["branches and tags"])
def get_branch(there: There, name: BranchName, response: Response) -> PointerShape:
    """A branch; its ETag is what `If-Match` takes."""
    return _tagged(response, there.branch(name))


@router.patch("/datasets/{dataset_id}/branches/{name:path}", tags=["branches and tags"])
def move_branch(
    there: There, name: BranchName, body: MoveIn, response: Response, if_match: IfMatch = None
) -> PointerShape:
    """Let a branch name another version; with `If-Match` or `expect`, only if it names that one now."""
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
def delete_branch(there: There, name: BranchName) -> CountShape:
    """Delete a branch; its versions stay."""
    there.delete_branch(name)
    return CountShape(count=1)


@router.get("/datasets/{dataset_id}/tags", tags=["branches and tags"])
def tags(there: There) -> Page[PointerShape]:
    """The tags of a dataset, by name."""
    return Page(items=[PointerShape.of(pointer) for pointer in there.tags()])


@router.post("/datasets/{dataset_id}/tags", status_code=201, tags=["branches and tags"])
def create_tag(there: There, body: PointerIn, response: Response) -> PointerShape:
    """Name a version for ever."""
    return _tagged(response, there.create_tag(body.pointer_name, body.ref))


@router.get("/datasets/{dataset_id}/tags/{name:path}", tags=["branches and tags"])
def get_tag(there: There, name: BranchName, response: Response) -> PointerShape:
    """A tag."""
    found = there.branch(name)
    if not found.is_tag:
        raise NotFound(f"{there.name} has no tag {name!r}, which is a branch. See /branches/{name}.", tag=name)
    return _tagged(response, found)


@router.delete("/datasets/{dataset_id}/tags/{name:path}", tags=["branches and tags"])
def delete_tag(there: There, name: BranchName) -> CountShape:
    """Delete a tag; its name cannot be reused."""
    there.delete_tag(name)
    return CountShape(count=1)


@router.get("/branches", tags=["registry"])
def registry_branches(here: Here) -> Page[RegistryBranchShape]:
    """The branches over all datasets, for administrators."""
    return Page(items=[RegistryBranchShape.of(branch) for branch in here.branches()])


@router.post("/branches", status_code=201, tags=["registry"])
def create_registry_branch(here: Here, body: RegistryBranchIn) -> CountShape:
    """Branch every dataset that has the branch `source`, at once; how many those are."""
    return CountShape(count=here.create_branch(body.name, body.source))


@router.delete("/branches/{name:path}", tags=["registry"])
def delete_registry_branch(here: Here, name: BranchName) -> CountShape:
    """Delete a branch over all datasets; how many those were."""
    return CountShape(count=here.delete_branch(name))
