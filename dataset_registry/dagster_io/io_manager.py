"""The IO manager: every output becomes a version on the run's branch, every input is read from an exact version."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg
from pydantic import Field

from dataset_registry.dagster_io import handlers, metadata, partitions
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.dataset import Dataset, Draft
from dataset_registry.errors import InputError, NotFound, UnsupportedType
from dataset_registry.model.partitions import METADATA_KEY, component_of, local_name, partition_key
from dataset_registry.model.records import CommitResult, ComponentRecord, InputVersion, Provenance
from dataset_registry.tabular.formats import is_table
from dataset_registry.version import Version

PARTITION_EXPRESSION = "partition_expr"
ALLOW_MISSING = "registry/allow_missing_partitions"
ROW_KEY = "registry/key"

_reads: "WeakKeyDictionary[Any, list[InputVersion]]" = WeakKeyDictionary()
"""What each running step has loaded so far: its outputs record these as their inputs."""


class DatasetRegistryIOManager(dg.ConfigurableIOManager):
    """Stores outputs as versions of datasets and loads inputs from them.

    The dataset of an asset is its key joined by slashes, behind `prefix`; the metadata `registry/dataset` names another.
    Assets return Arrow tables and readers, pandas and polars frames, LazyFrames, DuckDB relations, a `Path` (any file),
    or a dict of those (several components); inputs are loaded as the type they are annotated with.
    The asset metadata `registry/key` names the columns that tell the rows of its tables apart.
    `AssetIn(metadata={"registry/ref": "v3"})` reads any version, tag or branch instead of the run's branch.
    """

    registry: dg.ResourceDependency[DatasetRegistryResource]
    prefix: str = Field(default="", description="Put before the names of all datasets, such as 'analytics/'.")

    # --- output ----------------------------------------------------------------------------------------------------

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Commit an output as a blind write: it replaces what the asset, or its partition, held before."""
        if obj is None:
            raise UnsupportedType(
                f"{_output_name(context)} returned None, and there is nothing to store. Return the data, or annotate the "
                "asset with '-> None' so that Dagster does not hand its output to the IO manager."
            )
        step = _step(context)
        branch = self.registry.branch_of(step.run_tags if step else None)
        keys = _keys(context)
        name = self._dataset_of(context)
        provenance = _provenance(context, step, keys)
        draft = self.registry.registry.draft(
            name,
            branch,
            description=_description(context),
            message=_message(context, keys),
            overwrite=True,
            fallback=self.registry.fallback_branch,
            provenance=provenance,
        )
        with draft:
            self._fill(draft, context, keys, obj)
        result = draft.result
        self._report(context, step, result, branch=branch, keys=keys, inputs=provenance.inputs)
        context.log.info(
            f"{name}@v{result.version.number} on {branch}: "
            + (
                "unchanged, no new version"
                if result.unchanged
                else f"{result.new_bytes:,} new of {result.total_bytes:,} bytes"
            )
        )

    def _fill(self, draft: Draft, context: dg.OutputContext, keys: Sequence[str], obj: Any) -> None:
        columns = _row_key(context)
        if not keys:
            draft.clear()
            for name, value in _components(obj).items():
                draft.add(name or "data", value, key=columns if is_table(value) else ())
            return
        values: Mapping[str, Any] = {keys[0]: obj}
        if len(keys) > 1:
            expression = context.definition_metadata.get(PARTITION_EXPRESSION)
            values = partitions.split(obj, keys, context.asset_partitions_def, expression)
        for raw in sorted(values):
            key = partition_key(raw)
            draft.clear_partition(key)
            for name, value in _components(values[raw]).items():
                component, facts = component_of(key, name)
                draft.add(component, value, metadata=facts, key=columns if is_table(value) else ())

    def _report(
        self,
        context: dg.OutputContext,
        step: Any,
        result: CommitResult,
        *,
        branch: str,
        keys: Sequence[str],
        inputs: Sequence[InputVersion],
    ) -> None:
        changes = {}
        if not result.unchanged and result.version.parents:
            dataset = self.registry.registry.dataset(result.version.dataset)
            changes = dataset.diff(f"v{result.version.parents[0]}", f"v{result.version.number}").schema
        context.add_output_metadata(
            metadata.materialization(result, branch=branch, inputs=inputs, schema_changes=changes, partitions=keys)
        )
        rows = metadata.partition_rows(result, [partition_key(key) for key in keys])
        if len(keys) == 1 and rows:
            context.add_output_metadata({"dagster/partition_row_count": next(iter(rows.values()))})
        elif step is not None and context.has_asset_key:
            for key in keys:
                if (count := rows.get(partition_key(key))) is not None:
                    step.add_asset_metadata(
                        {"dagster/partition_row_count": count}, asset_key=context.asset_key, partition_key=key
                    )
        if step is None or not context.has_asset_key or step.has_data_version(context.asset_key):
            return
        # For partitions the digest of their own entries: another partition's write must not make a downstream stale.
        digest = result.digest_written if keys else result.version.digest
        step.set_data_version(context.asset_key, dg.DataVersion(str(digest)))

    # --- input -----------------------------------------------------------------------------------------------------

    def load_input(self, context: dg.InputContext) -> Any:
        """Load an input from the version that the run's branch, or the input's `registry/ref`, names now."""
        step = _step(context)
        branch = self.registry.branch_of(step.run_tags if step else None)
        name = self._dataset_of(context)
        kind = _annotated(context)
        keys = _keys(context)
        asked = (context.definition_metadata or {}).get(metadata.REF_KEY)
        ref = branch if asked is None else str(asked)
        try:
            dataset = self.registry.registry.dataset(name)
            version, fallback = self._version(dataset, ref, pinned=asked is not None)
        except NotFound:
            if context.has_asset_partitions and _may_miss(context) and handlers.mapping_value(kind)[0]:
                return {}
            raise
        if step is not None:
            version.note_read(step.run_id)
            _reads.setdefault(step, []).append(
                InputVersion(
                    dataset=dataset.name,
                    version=version.number,
                    digest=version.digest,
                    ref=ref,
                    components=tuple(keys),
                    fallback=fallback,
                    label=context.name if context.has_input_name else None,
                )
            )
        where = f" (read from {fallback}, which {name} has instead)" if fallback else ""
        context.log.info(f"Loading {version}{where}")
        if context.has_asset_partitions:
            return _load_partitions(version, keys, kind, may_miss=_may_miss(context))
        return _load_whole(version, kind)

    def _version(self, dataset: Dataset, ref: str, *, pinned: bool) -> tuple[Version, str | None]:
        """The version of a ref, and the branch that it was read from instead when the dataset lacks the one asked for."""
        try:
            return dataset.version(ref), None
        except NotFound:
            if pinned or ref == self.registry.fallback_branch:
                raise
            return dataset.version(self.registry.fallback_branch), self.registry.fallback_branch

    def _dataset_of(self, context: dg.OutputContext | dg.InputContext) -> str:
        if context.has_asset_key:
            upstream = context if isinstance(context, dg.OutputContext) else context.upstream_output
            definition = dict(upstream.definition_metadata or {}) if upstream is not None else {}
            if isinstance(context, dg.InputContext):
                definition |= context.definition_metadata or {}
            return self.prefix + metadata.dataset_name(context.asset_key, definition)
        output = context if isinstance(context, dg.OutputContext) else context.upstream_output
        assert output is not None, "an input that is no asset comes from an output"
        safe = ("".join(c if c.isalnum() or c in "_.-" else "_" for c in part) for part in output.get_identifier())
        return self.prefix + "/".join(["runs", *safe])


def _load_whole(version: Version, kind: Any) -> Any:
    as_mapping, kind = handlers.mapping_value(kind)
    load = handlers.loader(kind)
    names = list(dict.fromkeys(component.name for component in version.components))
    if as_mapping:
        return {name: load(version, [name]) for name in names}
    if len(names) > 1 and kind not in (Version, Path, bytes) and len(version.schema.distinct()) != 1:
        raise InputError(
            f"{version} has several components, and they are not alike: {', '.join(names[:10])}. Annotate the input as "
            "dict[str, …] to load each by its name.",
        )
    return load(version, names)


def _load_partitions(version: Version, keys: Sequence[str], kind: Any, *, may_miss: bool) -> Any:
    wanted = {key: partition_key(key) for key in keys}
    by_partition: dict[str, list[ComponentRecord]] = {partition: [] for partition in wanted.values()}
    for component in version.components:
        owner = str(component.metadata.get(METADATA_KEY, component.name))
        if owner in by_partition:
            by_partition[owner].append(component)
    missing = [key for key, partition in wanted.items() if not by_partition[partition]]
    as_mapping, inner = handlers.mapping_value(kind)
    found = {key: by_partition[partition] for key, partition in wanted.items() if by_partition[partition]}
    if (missing and not may_miss) or (not found and not as_mapping):
        listed = ", ".join(missing[:10]) + (" …" if len(missing) > 10 else "") if missing else "that the input asks for"
        raise NotFound(
            f"{version} has no partition {listed}. Materialize it first, or load what there is with "
            f'metadata={{"{ALLOW_MISSING}": True}} on the input.',
            partitions=missing,
        )
    load = handlers.loader(inner)
    if not as_mapping:
        return load(version, [c.name for components in found.values() for c in components])
    if len(keys) != 1:
        return {key: load(version, [c.name for c in components]) for key, components in found.items()}
    return {local_name(c.name, wanted[keys[0]]): load(version, [c.name]) for c in found.get(keys[0], [])}


def _keys(context: dg.OutputContext | dg.InputContext) -> list[str]:
    """The partitions of an output or an input, in order; Dagster hands them over in none."""
    return sorted(context.asset_partition_keys) if context.has_asset_partitions else []


def _row_key(context: dg.OutputContext) -> list[str]:
    """The columns that tell the rows of an asset's tables apart, as its metadata `registry/key` names them."""
    named: Any = context.definition_metadata.get(ROW_KEY) or ()
    named = getattr(named, "value", named)
    return [named] if isinstance(named, str) else [str(name) for name in named]


def _may_miss(context: dg.InputContext) -> bool:
    return bool((context.definition_metadata or {}).get(ALLOW_MISSING))


def _annotated(context: dg.InputContext) -> Any:
    """The annotated type of an input, None when there is none (as in a unit test's context)."""
    try:
        return context.dagster_type.typing_type
    except dg.DagsterInvariantViolationError:
        return None


def _components(value: Any) -> dict[str | None, Any]:
    """An output's components by name; None is the name of the only one."""
    if not isinstance(value, Mapping):
        return {None: Path(value) if isinstance(value, str) else value}
    if not value:
        raise InputError("The asset returned an empty dict. Return at least one component.")
    return {str(name): part for name, part in value.items()}


def _description(context: dg.OutputContext) -> str | None:
    if not context.has_asset_key:
        return f"Output of {context.step_key}"
    step = _step(context)
    if step is None or step.assets_def is None:
        return None
    spec = step.assets_def.specs_by_key.get(context.asset_key)
    return spec.description if spec else None


def _provenance(context: dg.OutputContext, step: Any, keys: Sequence[str]) -> Provenance:
    if step is None:
        return Provenance()
    asset_key = context.asset_key if context.has_asset_key else None
    spec = step.assets_def.specs_by_key.get(asset_key) if step.assets_def is not None and asset_key else None
    return Provenance(
        run_id=context.run_id,
        step=context.step_key,
        asset_key=asset_key.to_user_string() if asset_key else None,
        partition=", ".join(keys[:3]) + (f" … {keys[-1]} ({len(keys)})" if len(keys) > 3 else "") if keys else None,
        code_version=spec.code_version if spec else None,
        inputs=tuple(_reads.get(step, ())),
        metadata={"job": step.job_name},
    )


def _message(context: dg.OutputContext, keys: Sequence[str]) -> str:
    what = context.asset_key.to_user_string() if context.has_asset_key else context.step_key
    partition = f" [{keys[0]}]" if len(keys) == 1 else f" [{keys[0]} … {keys[-1]}]" if keys else ""
    return f"Materialize {what}{partition}"


def _output_name(context: dg.OutputContext) -> str:
    return context.asset_key.to_user_string() if context.has_asset_key else f"The output {context.name!r}"


def _step(context: dg.OutputContext | dg.InputContext) -> Any:
    """The running step, None in unit tests and when an asset's value is loaded outside of a run."""
    try:
        return context.step_context
    except dg.DagsterInvariantViolationError:
        return None
