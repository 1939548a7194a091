"""Results of checks on versions, and taints: the reasons why a version may not reach a protected branch."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from dataset_registry.errors import InputError
from dataset_registry.model.manifest import ComponentKey, canonical_json, is_nested_deeper
from dataset_registry.model.names import free_text, single_line

Severity = Literal["error", "warn"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
MAX_CHECK_NAME = 255


@dataclass(frozen=True, slots=True)
class NewCheck:
    """A result of a check to record on a version.

    `partition` is the partition that was checked, None for the whole version. A result that failed taints the version if the
    check `is_blocking` and the severity is `error`.
    """

    name: str
    passed: bool
    is_blocking: bool = False
    severity: Severity = "error"
    description: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    partition: str | None = None
    run_id: str | None = None

    @property
    def taints(self) -> bool:
        """Whether the result taints the version."""
        return not self.passed and self.is_blocking and self.severity == "error"

    @property
    def label(self) -> str:
        """The name of the check, with the partition that was checked."""
        return self.name if self.partition is None else f"{self.name}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class CheckResult(NewCheck):
    """A recorded result: the number of the version that was checked, when and by whom."""

    version: int = 0
    created_at: datetime = datetime.min
    created_by: str | None = None

    def __str__(self) -> str:
        state = "passed" if self.passed else f"failed ({self.severity}{', blocking' if self.is_blocking else ''})"
        return f"{self.label} {state}" + (f": {self.description}" if self.description else "")


@dataclass(frozen=True, slots=True)
class Taint:
    """Why the content of a version may not reach a protected branch: its run failed, or a blocking check did.

    `version` is the version that was made so; versions that have its content share the taint until it is absolved.
    """

    id: int
    dataset: str
    version: int
    reason: str
    created_at: datetime
    created_by: str | None = None

    def __str__(self) -> str:
        return f"v{self.version}: {self.reason}"


def newest_of_each(results: Iterable[CheckResult]) -> list[CheckResult]:
    """The newest result of each check and partition, of results in their order."""
    return list({check.label: check for check in results}.values())


def checked(check: NewCheck) -> NewCheck:
    """The same result. Raises `InputError` for an invalid name, text, severity or metadata."""
    if not check.name or len(check.name) > MAX_CHECK_NAME:
        raise InputError(f"The name of a check has 1 to {MAX_CHECK_NAME} characters, not {len(check.name)}.")
    single_line(check.name, "check")
    single_line(check.run_id or "", "run")
    single_line(check.partition or "", "partition")
    free_text(check.description or "", "description")
    if check.severity not in SEVERITIES:
        raise InputError(f"{check.severity!r} is not a severity of a check. Use one of: {', '.join(SEVERITIES)}.")
    if is_nested_deeper(dict(check.metadata)):
        raise InputError("The metadata of a check is nested too deeply. Flatten it.")
    try:
        canonical_json(dict(check.metadata))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"The metadata of a check must be a JSON object: {error}.") from error
    return check


def carried(
    tainted: Collection[ComponentKey],
    changed: Collection[ComponentKey],
    edited: Collection[ComponentKey] = (),
    *,
    is_first_parent: bool,
) -> set[ComponentKey]:
    """The tainted components of a version, by those of one that it was made from.

    `changed` are the components in which it differs from its first parent, `edited` those of them that were made from the
    parent's rows. From its first parent it has what it did not replace; from the others (merged, picked, restored) what it
    changed.
    """
    taken = {*tainted} - {*changed} if is_first_parent else {*tainted} & {*changed}
    return taken | ({*tainted} & {*edited})
