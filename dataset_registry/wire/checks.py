"""Results of checks on versions, and taints."""

from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import Field

from dataset_registry.model.checks import CheckResult, NewCheck, Taint
from dataset_registry.wire.base import Mapped, RequestModel, ResponseModel, Text, Word


class CheckRequest(Mapped[NewCheck]):
    """The result of a check. One that failed taints the version if the check is `blocking` and the severity is `error`."""

    model_config = RequestModel.model_config
    attributes: ClassVar = {"blocking": "is_blocking"}

    name: Word
    passed: bool
    blocking: bool = False
    severity: Literal["error", "warn"] = "error"
    description: Text | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    partition: Word | None = None
    run_id: Word | None = None


class CheckResponse(Mapped[CheckResult]):
    """A recorded result of a check."""

    attributes: ClassVar = {"blocking": "is_blocking", "version_number": "version"}

    name: str
    passed: bool
    blocking: bool
    severity: Literal["error", "warn"]
    description: str | None
    metadata: dict[str, Any]
    partition: str | None
    run_id: str | None
    version_number: int
    created_at: datetime
    created_by: str | None


class TaintResponse(Mapped[Taint]):
    """Why the content of a version may not reach a protected branch; `version_number` is the version that was made so."""

    attributes: ClassVar = {"dataset_name": "dataset", "version_number": "version"}

    id: int
    dataset_name: str
    version_number: int
    reason: str
    created_at: datetime
    created_by: str | None


class TaintsResponse(ResponseModel):
    """Taints that are open, or that were closed."""

    taints: list[TaintResponse]


class AbsolveRequest(RequestModel):
    """The reason why the content of a version may reach protected branches all the same."""

    because: Text


class FinishRunRequest(RequestModel):
    """How a run ended."""

    run_id: Word
    succeeded: bool
