"""Reviews of branches, their comments and verdicts."""

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field

from dataset_registry.model.reviews import Review, ReviewDetails, ReviewedDataset, ReviewEvent
from dataset_registry.wire.base import Mapped, Name, RequestModel, Text, Word
from dataset_registry.wire.merges import StrategyRequest

StateText = Literal["open", "merged", "closed"]


class ReviewRequest(RequestModel):
    """A branch to be merged into another one, in all datasets that have it."""

    branch: Name
    into: Name = "main"
    title: Text
    description: Text | None = None


class ReviewEventRequest(RequestModel):
    """A comment, or a verdict about what the branch is at now; with `seen`, that of the review that was looked at, 409 if the
    branch moved since."""

    kind: Literal["comment", "approve", "reject"]
    comment: Text | None = None
    seen: Word | None = None


class MergeReviewRequest(RequestModel):
    """How to merge a review: as a publication; `seen` as for verdicts."""

    strategies: list[StrategyRequest] = Field(default_factory=list, max_length=1000)
    allow_moved_inputs: bool = False
    message: Text | None = None
    seen: Word | None = None


class ReviewResponse(Mapped[Review]):
    """A review: `branch` is to be merged into `target`."""

    id: int
    branch: str
    target: str
    title: str
    description: str | None
    state: StateText
    created_at: datetime
    created_by: str
    closed_at: datetime | None
    closed_by: str | None


class ReviewEventResponse(Mapped[ReviewEvent]):
    """A comment or a verdict; a verdict is not current any longer if the branch moved since."""

    attributes: ClassVar = {"comment": "body"}

    id: int
    kind: Literal["comment", "approve", "reject"]
    comment: str | None
    created_at: datetime
    created_by: str
    is_current: bool


class ReviewedDatasetResponse(Mapped[ReviewedDataset]):
    """A dataset of a review: the version numbers of the target and the branch, and what is missing before it can be merged."""

    attributes: ClassVar = {"dataset_name": "dataset"}

    dataset_name: str
    before: int | None
    after: int | None
    is_behind: bool
    required_approvals: int
    requires_checks: bool
    approved_by: list[str]
    rejected_by: list[str]
    missing: list[str]


class ReviewDetailsResponse(Mapped[ReviewDetails]):
    """A review with its datasets, comments and verdicts. `seen` makes verdicts and a merge about these versions."""

    review: ReviewResponse
    datasets: list[ReviewedDatasetResponse]
    events: list[ReviewEventResponse]
    seen: str = ""

    def value(self) -> ReviewDetails:
        """The value of the JSON object; it computes `seen` itself."""
        datasets, events = (tuple(found.value() for found in listed) for listed in (self.datasets, self.events))
        return ReviewDetails(self.review.value(), datasets, events)  # type: ignore[arg-type] # of two kinds
