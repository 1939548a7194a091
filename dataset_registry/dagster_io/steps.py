"""What a running step has read, and what its versions record of it."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import dagster as dg

from dataset_registry.errors import RegistryFrozen, RetryLater, StorageError
from dataset_registry.model.records import InputVersion, Provenance
from dataset_registry.version import Version

MEMO_READS = "memo_reads"
"""The metadata of the provenance of what may be reused: what the body read besides its inputs, as `BodyRead`s."""

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


def carry_read(step: Any, read: InputVersion) -> None:
    """Record an input that an earlier run read for the content that this step takes over."""
    _reads.setdefault(step, []).append(read)


def reads_of(step: Any) -> tuple[InputVersion, ...]:
    """What a step has read so far."""
    return tuple(_reads.get(step, ()))


_files: "WeakKeyDictionary[Any, dict[str, str]]" = WeakKeyDictionary()
"""The files of the DuckDB relations that each running step has loaded, with the names of the inputs or datasets."""


def query_of(value: Any) -> str | None:
    """The SQL of a DuckDB relation; None of another value."""
    query = getattr(value, "sql_query", None)
    return str(query()) if callable(query) else None


def note_loaded(step: Any, name: str, value: Any) -> None:
    """Record what a step has loaded under a name: for the lineage of columns, the files of relations."""
    query = query_of(value)
    if query is not None:
        paths = re.findall(r"'((?:[^']|'')*)'", query)
        _files.setdefault(step, {}).update({path.replace("''", "'"): name for path in paths})


def files_of(step: Any) -> dict[str, str]:
    """The files of the relations that a step has loaded, with the names that they were loaded under."""
    return _files.get(step, {}) if step is not None else {}


_body_reads: "WeakKeyDictionary[Any, list[BodyRead]]" = WeakKeyDictionary()


class BodyRead(NamedTuple):
    """What the body of a step asked for: the dataset, the ref (None: the branch of the run), and the digest that it got, None if
    there was none."""

    dataset: str
    ref: str | None
    digest: str | None


def note_body_read(step: Any, read: BodyRead) -> None:
    """Record that the body of a step read a dataset, or did not find it."""
    _body_reads.setdefault(step, []).append(read)


def body_reads_of(step: Any) -> list[BodyRead]:
    """What the body of a step has asked for so far."""
    return _body_reads.get(step, [])


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
        metadata={"job": step.job_name, **({MEMO_READS: [*map(list, body_reads_of(step))]} if memo_digest else {})},
        memo_digest=memo_digest,
    )
