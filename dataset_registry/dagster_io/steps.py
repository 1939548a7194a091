"""What a running step has read, and what its versions record of it."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg

from dataset_registry.errors import RegistryFrozen, RetryLater, StorageError
from dataset_registry.model.records import InputVersion, Provenance
from dataset_registry.version import Version

_reads: "WeakKeyDictionary[Any, list[InputVersion]]" = WeakKeyDictionary()
"""What each running step has loaded so far: its outputs record these as their inputs."""


def step_of(context: Any) -> Any:
    """The running step of a context of an op, an asset, an input or an output; None outside of a run."""
    if isinstance(context, dg.AssetExecutionContext | dg.AssetCheckExecutionContext):
        context = context.op_execution_context
    if isinstance(context, dg.OpExecutionContext):
        return context.get_step_execution_context()
    try:
        return context.step_context
    except dg.DagsterInvariantViolationError:
        return None


def note_read(step: Any, log: Any, version: Version, read: InputVersion) -> None:
    """Record that a step reads a version: for its outputs, and to protect it from expiry while the run may be running."""
    _reads.setdefault(step, []).append(read)
    try:
        version.note_read(step.run_id)
    except (StorageError, RegistryFrozen, RetryLater) as error:
        log.warning(f"{version} is read without protection from expiry: {error}")


def reads_of(step: Any) -> tuple[InputVersion, ...]:
    """What a step has read so far."""
    return tuple(_reads.get(step, ()))


def provenance_of(
    step: Any, asset_key: dg.AssetKey | None, keys: Sequence[str] = (), memo_digest: str | None = None
) -> Provenance:
    """The provenance of what a step writes, for some partitions."""
    if step is None:
        return Provenance()
    spec = step.assets_def.specs_by_key.get(asset_key) if step.assets_def is not None and asset_key else None
    return Provenance(
        run_id=step.run_id,
        step=step.step.key,
        asset_key=asset_key.to_user_string() if asset_key else None,
        partition=", ".join(keys[:3]) + (f" … {keys[-1]} ({len(keys)})" if len(keys) > 3 else "") if keys else None,
        code_version=spec.code_version if spec else None,
        inputs=reads_of(step),
        metadata={"job": step.job_name},
        memo_digest=memo_digest,
    )
