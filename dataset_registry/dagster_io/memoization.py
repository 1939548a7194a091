"""Memoization: an asset that would be computed from the same code, inputs and configuration is not computed again.

An asset opts in with the metadata `registry/memoize`. `describe_assets` wraps its op: before the body runs, the registry is asked
for a version that a run of the same code produced from the same configuration and from inputs with the same content; then that
content is committed to the branch of the run, and the body does not run.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg
from dagster._core.definitions.data_version import DEFAULT_DATA_VERSION, NULL_DATA_VERSION, UNKNOWN_DATA_VERSION
from dagster._core.definitions.op_definition import OpDefinition
from dagster._core.definitions.output import OutputDefinition
from dagster._core.execution.plan.compute_generator import create_op_compute_wrapper
from dagster._core.execution.plan.execute_step import _get_input_provenance_data
from pydantic import BaseModel

from dataset_registry.dagster_io import metadata
from dataset_registry.dagster_io.branches import digest_of, version_of, version_read
from dataset_registry.dagster_io.resource import RECOMPUTE_TAG, DatasetRegistryResource
from dataset_registry.dagster_io.steps import (
    MEMO_READS,
    BodyRead,
    carry_read,
    note_body_read,
    reads_of,
    step_of,
)
from dataset_registry.errors import InputError, NotFound, PermissionDenied
from dataset_registry.model.manifest import canonical_json
from dataset_registry.model.partitions import belongs, partition_key
from dataset_registry.model.records import ComponentRecord, InputVersion, Production
from dataset_registry.version import Version

_memo_digests: "WeakKeyDictionary[Any, dict[dg.AssetKey, str]]" = WeakKeyDictionary()
"""What each running step may be memoized under, by its assets."""


@dataclass(frozen=True, slots=True)
class Reused:
    """An output in place of what the body of an asset returns: components of an earlier version."""

    version: Version
    components: tuple[ComponentRecord, ...]
    production: Production

    def __str__(self) -> str:
        run = self.production.provenance.run_id
        return f"{self.version} of run {run}" if run else str(self.version)


def is_memoized(definition: Mapping[str, Any] | None) -> bool:
    """Whether an asset opts in, by its metadata."""
    return bool(metadata.value(definition, metadata.MEMOIZE_KEY))


def memo_digest(step: Any, key: dg.AssetKey | None) -> str | None:
    """What an output of a running step may be found by later; None if it is not memoized."""
    return _memo_digests.get(step, {}).get(key) if step is not None and key is not None else None


def is_wrapped(step: Any) -> bool:
    """Whether a running step has looked for what it may reuse."""
    return step in _memo_digests


# --- definitions -------------------------------------------------------------------------------------------------------


def memoized(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The same assets, computed only where no earlier version can be reused; unchanged if they do not opt in.

    Raises `InputError` for assets that cannot be memoized.
    """
    opted = [spec for spec in asset.specs if is_memoized(spec.metadata)]
    if not opted:
        return asset
    what = f"The asset {opted[0].key.to_user_string()!r} has {metadata.MEMOIZE_KEY}, "
    if len(opted) < len(asset.keys):
        raise InputError(what + "but not all assets that are computed with it have. Give it to all of them.")
    if any(spec.code_version is None for spec in opted):
        raise InputError(what + "but no code_version. Set one, and change it with the code: results are reused by it.")
    if any(metadata.write_mode(spec.metadata, what) != "overwrite" for spec in opted):
        raise InputError(what + f"which goes with the {metadata.MODE_KEY} 'overwrite' only.")
    if not isinstance(asset.node_def, OpDefinition):
        raise InputError(what + "but is a graph. Give it to assets of one op.")
    if asset.check_keys:
        raise InputError(what + "but yields results of checks itself. Define them with @asset_check instead.")
    return dg.AssetsDefinition.dagster_internal_init(**{**asset.get_attributes_dict(), "node_def": _wrapped(asset.op)})


def _wrapped(op: OpDefinition) -> OpDefinition:
    """The same op, whose body runs only if nothing can be reused."""
    body: Any = create_op_compute_wrapper(op) if op.is_from_decorator() else op.compute_fn

    def compute(context: Any, inputs: Any) -> Any:
        step = step_of(context)
        is_partitioned = context.has_partition_key or context.has_partition_key_range
        found = _reusable(step, sorted(context.partition_keys) if is_partitioned else [])
        if found is None:
            return body(context, inputs)
        for key, reused in found.items():
            context.log.info(f"{key.to_user_string()} is reused from {reused}: same code, inputs and configuration")
        names = {key: name for name, key in step.assets_def.keys_by_output_name.items()}
        return iter([dg.Output(reused, output_name=names[key]) for key, reused in found.items()])

    made = copy.copy(op)
    made._compute_fn = compute
    made._output_defs = [_or_reused(output) for output in op.output_defs]
    made._output_dict = {output.name: output for output in made._output_defs}
    return made


def _or_reused(output: OutputDefinition) -> OutputDefinition:
    made = copy.copy(output)
    made._dagster_type = _or_reused_type(output.dagster_type)
    return made


class _OrReused(dg.DagsterType):
    """A type of values, or of what is reused in their place."""

    def __init__(self, inner: dg.DagsterType) -> None:
        self._inner = inner
        super().__init__(
            type_check_fn=lambda context, value: isinstance(value, Reused) or inner.type_check(context, value),
            key=f"reusable {inner.key}",
            kind=inner.kind,
            typing_type=inner.typing_type,
            description=inner.description,
            required_resource_keys=set(inner.required_resource_keys),
        )

    @property
    def display_name(self) -> str:
        return self._inner.display_name


_or_reused_type = cache(_OrReused)

# --- at run time -------------------------------------------------------------------------------------------------------


def _reusable(step: Any, partitions: Sequence[str]) -> dict[dg.AssetKey, Reused] | None:
    """What the outputs of a step may be taken from, None if any of them must be computed."""
    wanted = {key: _digest(step, key, partitions) for key in step.assets_def.keys}
    known = {key: digest for key, digest in wanted.items() if digest is not None}
    _memo_digests[step] = known
    if len(known) < len(wanted) or RECOMPUTE_TAG in step.run_tags:
        return None
    found = {}
    for key, digest in known.items():
        if (reused := _find(step, key, digest, partitions)) is None:
            return None
        found[key] = reused
    for reused in found.values():
        _carry_reads(step, reused)
    return found


def _carry_reads(step: Any, reused: Reused) -> None:
    """Record what the body had read, as if it had run: it is part of the lineage, and of what a later run compares."""
    for asked in _body_reads(reused.production):
        note_body_read(step, asked)
    for read in reused.production.provenance.inputs:
        if read.label is None:
            carry_read(step, read)


def _manager(step: Any, key: dg.AssetKey) -> Any:
    """The IO manager of an asset, if it is the registry's; else None."""
    layer = step.job_def.asset_layer
    if not layer.has(key) or layer.get(key).assets_def is None:
        return None
    name = layer.get(key).assets_def.get_io_manager_key_for_asset_key(key)
    found = getattr(step.resources, name, None)
    return found if isinstance(getattr(found, "registry", None), DatasetRegistryResource) else None


def _digest(step: Any, key: dg.AssetKey, partitions: Sequence[str]) -> str | None:
    """What an output is computed from besides the inputs that the registry loads: the asset, its code and partitions, the
    configuration, other dependencies. None if that is not known."""
    if _manager(step, key) is None:
        return None
    spec = step.assets_def.specs_by_key[key]
    others = _dependencies(step, key)
    resources = _resources(step)
    if others is None or resources is None:
        return None
    described = {
        "asset": key.to_user_string(),
        "code": spec.code_version,
        "partitions": list(partitions),
        "config": step.op_config,
        "resources": resources,
        "dependencies": others,
        "inputs": {name: _settings(definition.metadata) for name, definition in step.op_def.input_dict.items()},
        "output": _settings(spec.metadata),
    }
    try:
        return hashlib.sha256(b"memo/1\n" + canonical_json(described).encode()).hexdigest()
    except (TypeError, ValueError) as error:
        step.log.info(f"{key.to_user_string()} is computed: its configuration is not JSON ({error})")
        return None


def _settings(facts: Mapping[str, Any] | None) -> dict[str, str]:
    """The metadata that say what is read and how it is stored."""
    return {
        name: str(metadata.value(facts, name))
        for name in sorted(facts or {})
        if name.startswith("registry/") or name in (metadata.COLUMNS_KEY, "partition_expr", "allow_missing_partitions")
    }


def _dependencies(step: Any, key: dg.AssetKey) -> dict[str, str] | None:
    """The content of the dependencies that the registry did not load for this step; None if that of one is not known."""
    loaded = {read.dataset for read in reads_of(step) if read.label is not None}
    names = {parent: name for name, parent in step.assets_def.keys_by_input_name.items()}
    others: dict[str, str] = {}
    for parent, event in _get_input_provenance_data(key, step).items():
        if parent in step.assets_def.keys:
            continue
        node = step.job_def.asset_layer.get(parent)
        source, content = _manager(step, parent), None
        # An input that is not loaded here was loaded by another IO manager, whatever the registry has under the name.
        definition = step.op_def.input_dict.get(names.get(parent, ""))
        is_input = definition is not None and not definition.dagster_type.is_nothing
        if source is not None:
            name = source.prefix + metadata.dataset_name(parent, node.metadata)
            if name in loaded:
                continue
            content = None if is_input else _head_digest(source, step, name)
        if content is None and event["data_version"] not in _UNKNOWN and node.partitions_def is None:
            content = event["data_version"].value
        if content is None:
            step.log.info(f"{key.to_user_string()} is computed: the version of {parent.to_user_string()} is not known")
            return None
        others[parent.to_user_string()] = content
    return others


_UNKNOWN = (DEFAULT_DATA_VERSION, NULL_DATA_VERSION, UNKNOWN_DATA_VERSION)


def _resources(step: Any) -> dict[str, Any] | None:
    """The configuration of the resources of an op, with those inside of them; None if that of one is not known."""
    found: dict[str, Any] = {}
    for name in sorted(step.op_def.required_resource_keys):
        resource = getattr(step.resources, name, None)
        if isinstance(resource, DatasetRegistryResource) or isinstance(
            getattr(resource, "registry", None), DatasetRegistryResource
        ):
            continue
        given = step.resolved_run_config.resources.get(name)
        config = getattr(given, "config", None)
        if isinstance(resource, BaseModel):
            found[name] = [config, resource.model_dump(mode="json")]
        elif config:
            found[name] = config
        else:
            step.log.info(f"The configuration of the resource {name!r} is not known: nothing is reused")
            return None
    return found


def _head_digest(manager: Any, step: Any, name: str) -> str | None:
    try:
        dataset = manager.registry.registry.dataset(name)
        version, _ = manager.registry.version_on(dataset, manager.branch_for(step))
    except NotFound:
        return None
    found: str | None = version.digest
    return found


def _find(step: Any, key: dg.AssetKey, digest: str, partitions: Sequence[str]) -> Reused | None:
    """An earlier version of an asset that was produced from the same, newest first."""
    manager = _manager(step, key)
    registry = manager.registry.registry
    spec = step.assets_def.specs_by_key[key]
    try:
        dataset = registry.dataset(manager.prefix + metadata.dataset_name(key, spec.metadata))
    except NotFound:
        return None
    keys = [partition_key(name) for name in partitions]
    for production in dataset.memoized(digest):
        version = version_of(dataset, f"v{production.version}")
        if version is None or version.taints or not _has_same_inputs(step, manager, production):
            continue
        own = tuple(
            c for c in version.components if not keys or any(belongs(c.name, c.metadata, name) for name in keys)
        )
        if own:
            return Reused(version, own, production)
    return None


def _has_same_inputs(step: Any, manager: Any, production: Production) -> bool:
    """Whether a production read the content that this step reads: the inputs that are loaded for it, and what its body asked
    for, which is looked up again."""
    now = {read.label: read for read in reads_of(step) if read.label is not None}
    then = {read.label: read for read in production.provenance.inputs if read.label is not None}
    if set(now) != set(then):
        return False
    for label, read in then.items():
        current = now[label]
        if (current.dataset, current.components) != (read.dataset, read.components) or not _is_same(
            manager, current, read
        ):
            return False
    branch = manager.branch_for(step)
    return all(_found_now(manager, branch, asked) == asked.digest for asked in _body_reads(production))


def _body_reads(production: Production) -> list[BodyRead]:
    return [BodyRead(*asked) for asked in production.provenance.metadata.get(MEMO_READS, ())]


def _found_now(manager: Any, branch: str, asked: BodyRead) -> str | None:
    """The digest that a body would get that asks again, None if it would find nothing."""
    try:
        dataset = manager.registry.registry.dataset(asked.dataset)
        version, _ = manager.registry.version_on(dataset, asked.ref or branch, pinned=asked.ref is not None)
    except (NotFound, PermissionDenied):
        return None
    found: str | None = version.digest
    return found


def _is_same(manager: Any, now: InputVersion, then: InputVersion) -> bool:
    """Whether two reads of a dataset read the same content: the whole versions, or their partitions."""
    if now.digest is not None and now.digest == then.digest:
        return True
    if not now.components:
        return False
    one, two = (digest_of(version_read(manager.registry, read), now.components) for read in (now, then))
    return one is not None and one == two


def reuse_facts(reused: Reused) -> dict[str, Any]:
    """The metadata of a materialization that was reused."""
    return {
        metadata.REUSED: dg.MetadataValue.md(
            f"**v{reused.version.number}** of run `{reused.production.provenance.run_id or 'unknown'}`: same code, inputs and "
            "configuration"
        )
    }


def restore(draft: Any, reused: Reused) -> None:
    """Set the components of an output that is reused."""
    for component in reused.components:
        draft.restore(reused.version, component.name, index=component.index)
