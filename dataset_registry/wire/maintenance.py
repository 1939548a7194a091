"""The audit log and maintenance: plans and results."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from dataset_registry.model.audit import AuditEntry
from dataset_registry.model.maintenance import (
    Adoption,
    AdoptionPlan,
    Collected,
    CollectPlan,
    DatasetExpiry,
    Dated,
    Expired,
    ExpirePlan,
    SweepPlan,
    Unreferenced,
)
from dataset_registry.model.records import FileForm, StoredObject
from dataset_registry.wire.base import MOST_IDS, Hash, Mapped, Name, RequestModel, ResponseModel
from dataset_registry.wire.datasets import DatasetResponse


class AuditResponse(ResponseModel):
    id: int
    at: datetime | None
    actor: str
    interface: str
    action: str
    dataset_id: int | None
    dataset: str | None
    ref: str | None
    before: str | None
    after: str | None
    token_id: int | None
    details: dict[str, Any]
    entry_hash: str

    @classmethod
    def of(cls, entry: AuditEntry, carried: str | None = None) -> "AuditResponse":
        return cls(
            id=entry.id,
            at=entry.at,
            actor=entry.actor,
            interface=entry.interface,
            action=entry.action,
            dataset_id=entry.dataset_id,
            dataset=entry.dataset,
            ref=entry.ref,
            before=entry.before,
            after=entry.after,
            token_id=entry.token_id,
            details=dict(entry.details),
            entry_hash=entry.hash() if carried is None else carried,
        )

    def entry(self) -> AuditEntry:
        return AuditEntry(
            actor=self.actor,
            interface=self.interface,
            action=self.action,
            dataset_id=self.dataset_id,
            dataset=self.dataset,
            ref=self.ref,
            before=self.before,
            after=self.after,
            token_id=self.token_id,
            details=self.details,
            at=self.at,
            id=self.id,
        )


Seconds = Annotated[int, Field(ge=0, le=36500 * 86400)]
Runs = Annotated[list[Name], Field(max_length=100_000)]


class RuleRequest(RequestModel):
    """What a retention policy keeps of the branches that match, as `dataset_registry.Rule`."""

    datasets: Name = "*"
    branches: Name = "*"
    last: int = Field(default=0, ge=0, le=MOST_IDS)
    younger_than_seconds: Seconds | None = None
    hourly: int = Field(default=0, ge=0, le=100_000)
    daily: int = Field(default=0, ge=0, le=100_000)
    weekly: int = Field(default=0, ge=0, le=100_000)
    monthly: int = Field(default=0, ge=0, le=100_000)
    yearly: int = Field(default=0, ge=0, le=100_000)
    heads: bool = False


class ExpireRequest(RequestModel):
    """A policy to plan by. `live_runs` are the ids of unfinished pipeline runs; omitted, all runs of the last day."""

    rules: list[RuleRequest] = Field(min_length=1, max_length=1000)
    keep_inputs: bool = False
    live_runs: Runs | None = None


class CollectRequest(RequestModel):
    older_than_seconds: Seconds = 86400


class SweepRequest(RequestModel):
    older_than_seconds: Seconds = 86400
    max_share: float = Field(default=0.0, ge=0.0, le=1.0)


class VerifyRequest(RequestModel):
    """`share` [n, t] reads the content of the n-th of t shares of the files; [1, 1] reads all."""

    share: tuple[Annotated[int, Field(ge=1, le=10_000)], Annotated[int, Field(ge=1, le=10_000)]] | None = None
    repair: bool = False
    older_than_seconds: Seconds = 86400


Id = Annotated[int, Field(ge=1, le=MOST_IDS)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class DatedResponse(Mapped[Dated]):
    id: Id
    number: Id
    created_at: datetime
    parents: list[Id]


class DatasetExpiryResponse(Mapped[DatasetExpiry]):
    dataset: DatasetResponse
    kept: dict[int, str]
    expiring: list[DatedResponse]


class ExpirePlanResponse(Mapped[ExpirePlan]):
    """The versions that a policy does not keep; `kept` has the reasons of the others by version number."""

    datasets: list[DatasetExpiryResponse]
    bytes: Count
    keep_inputs: bool = False


class ExpireApplyRequest(RequestModel):
    plan: ExpirePlanResponse
    live_runs: Runs | None = None


class ExpiredResponse(Mapped[Expired]):
    versions: int
    kept: int


class UnreferencedResponse(Mapped[Unreferenced]):
    id: Id
    content_hash: Hash
    bytes: Count
    form: FileForm


class CollectPlanResponse(Mapped[CollectPlan]):
    """Unreferenced files, holds that ran out, objects in the trash."""

    files: list[UnreferencedResponse]
    expired_holds: Count
    trashed: Count


class ObjectResponse(Mapped[StoredObject]):
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}\.[0-9a-f]{32}$")]
    size: Count
    modified: float


class SweepPlanResponse(Mapped[SweepPlan]):
    """Objects unknown to the catalog. A plan with a `suspicion` is not applied."""

    objects: list[ObjectResponse]
    listed: Count
    listed_bytes: Count
    suspicion: str | None


class CollectedResponse(Mapped[Collected]):
    files: int
    kept: int
    objects: int
    bytes: int


class AdoptRequest(RequestModel):
    """`any_size` adopts files whose size differs from the catalog; unreadable files in `give_up` are declared lost."""

    any_size: bool = False
    give_up: list[int] = Field(default_factory=list, max_length=100_000)


class AdoptionResponse(Mapped[Adoption]):
    files: int
    duplicates: int
    bytes: int
    versions: int
    failed: dict[int, str]
    differences: dict[int, str] = Field(default_factory=dict)
    given_up: int = 0


class AdoptionPlanResponse(Mapped[AdoptionPlan]):
    inline: int
    paths: int
    bytes: int
    unreadable: dict[int, str]


class AuditCheckResponse(ResponseModel):
    """`digest` is that of the newest seal; `problems` describe the tampering."""

    entries: int
    sealed: int
    digest: str
    problems: list[str]


class FindingResponse(ResponseModel):
    kind: str
    what: str
    repaired: bool
    repair: str
    is_damage: bool


class VerificationResponse(ResponseModel):
    files: int
    bytes_read: int
    waiting: int
    findings: list[FindingResponse]
