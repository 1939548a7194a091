"""Reviews of branches."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from dataset_registry.model.merge_plans import MergeOptions
from dataset_registry.operations import reviews
from dataset_registry.server import paging
from dataset_registry.server.auth import AccessDep, Idempotent
from dataset_registry.server.limits import table_work
from dataset_registry.server.paging import Cursor, Limit
from dataset_registry.wire.base import MOST_IDS, Page
from dataset_registry.wire.datasets import VersionResponse
from dataset_registry.wire.merges import HeadsResponse, strategies_of
from dataset_registry.wire.reviews import (
    MergeReviewRequest,
    ReviewDetailsResponse,
    ReviewEventRequest,
    ReviewRequest,
    ReviewResponse,
    StateText,
)

router = APIRouter(route_class=Idempotent, tags=["reviews"])

ReviewId = Annotated[int, Path(ge=-MOST_IDS, le=MOST_IDS, description="The id of a review.")]


@router.get("/reviews")
def list_reviews(
    access: AccessDep,
    state: StateText | None = None,
    branch: Annotated[str | None, Query(max_length=10_000)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[ReviewResponse]:
    """The reviews of datasets that you can read, newest first."""
    before = paging.number(cursor)
    found = reviews.list_all(access, state=state, branch=branch, before=before, limit=limit + 1)
    return paging.page(found, limit, ReviewResponse.of, lambda review: review.id)


@router.post("/reviews", status_code=201)
def create_review(access: AccessDep, request: ReviewRequest) -> ReviewResponse:
    """Create a review of a branch, which is to be merged into another one in all datasets that have it."""
    found = reviews.create(access, request.branch, request.into, request.title, request.description)
    return ReviewResponse.of(found)


@router.get("/reviews/{review_id}")
def get_review(access: AccessDep, review_id: ReviewId) -> ReviewDetailsResponse:
    """A review with its datasets and what is missing in each, its comments and verdicts."""
    return ReviewDetailsResponse.of(reviews.details(access, review_id))


@router.post("/reviews/{review_id}/events", status_code=201)
def add_review_event(access: AccessDep, review_id: ReviewId, request: ReviewEventRequest) -> ReviewDetailsResponse:
    """Comment, approve or reject. A verdict is about what the branch is at now."""
    return ReviewDetailsResponse.of(
        reviews.add_event(access, review_id, request.kind, request.comment, seen=request.seen)
    )


@router.post("/reviews/{review_id}/close", status_code=201)
def close_review(access: AccessDep, review_id: ReviewId) -> ReviewResponse:
    """Close a review without merging it."""
    return ReviewResponse.of(reviews.close(access, review_id))


@router.post("/reviews/{review_id}/merge", status_code=201, dependencies=[Depends(table_work)])
def merge_review(access: AccessDep, review_id: ReviewId, request: MergeReviewRequest) -> HeadsResponse:
    """Merge a review, all datasets in one transaction. 409 if approvals or checks are missing, or for conflicts."""
    options = MergeOptions(strategies_of(request.strategies), message=request.message)
    _, heads = reviews.merge(
        access, review_id, options, allow_moved_inputs=request.allow_moved_inputs, seen=request.seen
    )
    return HeadsResponse(versions=[VersionResponse.of(head) for head in heads])
