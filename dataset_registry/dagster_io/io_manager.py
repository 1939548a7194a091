"""The IO manager: every output becomes a version on the run's branch, every input is read from an exact version."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import dagster as dg
from pydantic import Field, field_validator, model_validator

from dataset_registry.dagster_io import branches, engine_tables, handlers, memoization, metadata, partitions
from dataset_registry.dagster_io.column_lineage import OutputLineage
from dataset_registry.dagster_io.resource import DatasetRegistryResource, known_settings
from dataset_registry.dagster_io.steps import note_loaded, note_read, provenance_of, step_of
from dataset_registry.dataset import Draft
from dataset_registry.errors import InputError, NotFound, UnsupportedType
from dataset_registry.model.names import RUNS
from dataset_registry.model.partitions import METADATA_KEY, component_of, local_name, partition_key
from dataset_registry.model.records import CommitResult, ComponentRecord, InputVersion
from dataset_registry.model.texts import shown
from dataset_registry.tabular.formats import is_table, library_of
from dataset_registry.version import Version

PARTITION_EXPRESSION = "partition_expr"
ALLOW_MISSING = "allow_missing_partitions"


class DatasetRegistryIOManager(dg.ConfigurableIOManager):
    """Stores outputs as versions of datasets and loads inputs from them.

    The dataset of an asset is `prefix` and its key joined by slashes; the metadata `registry/dataset` sets another one.
    Assets return Arrow tables and readers, pandas and polars frames, LazyFrames, DuckDB relations, a `Path` (any file),
    or a dict of those (several components); inputs are loaded as the type they are annotated with.
    Asset metadata: `registry/key` lists the columns that identify the rows of its tables, `registry/write_mode` says what
    becomes of the rows that are there (`overwrite`, `append`, `upsert`), `registry/read` has the read options of the files
    that it returns. Input metadata: `registry/ref` ("v3") reads any version, tag or branch instead of the run's branch,
    `columns` limits the columns, `allow_missing_partitions` loads the existing partitions.
    """

    registry: dg.ResourceDependency[DatasetRegistryResource]
    prefix: str = Field(default="", description="A prefix of all dataset names, such as 'analytics/'.")
    # Empty and not None: the launchpad shows settings that have a value.
    branch: str | None = Field(
        default="",
        description="The branch of one run, chosen in the launchpad: a name or a template. A run tag takes precedence.",
    )
    default_load_type: str = Field(
        default="pyarrow",
        description="The type of inputs without an annotation: pyarrow, pandas, polars, duckdb, or 'as stored' (pandas "
        "if pandas wrote it, polars if polars did).",
    )

    @model_validator(mode="before")
    @classmethod
    def _known_settings(cls, values: Any) -> Any:
        """Raise `ValueError` for an unknown setting, and without a registry."""
        if isinstance(values, Mapping) and values.get("registry") is None:
            raise ValueError(f"{cls.__name__} needs a registry: {cls.__name__}(registry=DatasetRegistryResource(…)).")
        return known_settings(cls, values)

    @field_validator("branch")
    @classmethod
    def _known_placeholders(cls, value: str | None) -> str | None:
        """Raise `InputError` for an unknown placeholder."""
        return value and branches.check_template(value)

    @field_validator("default_load_type")
    @classmethod
    def _known_load_type(cls, value: str) -> str:
        """Raise `ValueError` for an unknown default type."""
        known = (handlers.AS_STORED, *handlers.LOAD_TYPES)
        if value not in known:
            raise ValueError(f"{value!r} is not a default_load_type. Use one of: {', '.join(map(repr, known))}.")
        return value

    # --- output ----------------------------------------------------------------------------------------------------

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Commit an output; it replaces the previous content of the asset or of its partition."""
        if obj is None:
            raise UnsupportedType(
                f"{_output_name(context)} returned None, which cannot be stored. Return the data, or annotate the "
                "asset with '-> None' so that Dagster does not pass its output to the IO manager."
            )
        step = step_of(context)
        branch = self.branch_for(step)
        _check_assets(step, self.prefix)
        keys = _keys(context) or []
        name = self._dataset_of(context)
        metadata.check_keys(context.definition_metadata, _output_name(context))
        key = context.asset_key if context.has_asset_key else None
        provenance = provenance_of(step, key, keys, memoization.memo_digest(step, key))
        if memoization.is_memoized(context.definition_metadata) and not memoization.is_wrapped(step):
            context.log.warning(f"{metadata.MEMOIZE_KEY} takes effect in assets that went through describe_assets(…)")
        lineage = OutputLineage(context, step, self.registry, self.prefix, obj)
        becomes_partitioned = bool(keys) and self._was_unpartitioned(name, branch)
        if becomes_partitioned:
            context.log.info(f"{name} was not partitioned before: its components without a partition are removed")
        fallback = self.registry.fallback_of(name, branch)
        draft = self.registry.registry.draft(
            name,
            branch,
            description=_description(context),
            message=_message(context, keys),
            overwrite=True,
            fallback=fallback,
            provenance=lineage.recorded(provenance),
        )
        with ExitStack() as until, draft:
            if becomes_partitioned:
                draft.clear()
            self._fill(draft, context, keys, obj, (f"{name}@{branch}", fallback), until)
        result = draft.result
        context.add_output_metadata(lineage.shown())
        if isinstance(obj, memoization.Reused):
            context.add_output_metadata(memoization.reuse_facts(obj))
        self._report(context, step, result, branch=branch, keys=keys, inputs=provenance.inputs)
        context.log.info(
            f"{name}@v{result.version.number} on {branch}: "
            + (
                "unchanged, no new version"
                if result.unchanged
                else f"{result.new_bytes:,} new of {result.total_bytes:,} bytes"
            )
        )

    def branch_for(self, step: Any) -> str:
        """The branch of a running step; outside of a run that of the resource."""
        tags, run_id = (step.run_tags, step.run_id) if step else ({}, None)
        return self.registry.branch_of(tags, run_id, self.branch or None)

    def _was_unpartitioned(self, name: str, branch: str) -> bool:
        """Whether the dataset was last written without partitions."""
        try:
            dataset = self.registry.registry.dataset(name)
            version, _ = self.registry.version_on(dataset, branch, pinned=False)
        except NotFound:
            return False
        made = version.productions
        return bool(made and made[-1].provenance.run_id) and made[-1].provenance.partition is None

    def _fill(
        self,
        draft: Draft,
        context: dg.OutputContext,
        keys: Sequence[str],
        obj: Any,
        target: tuple[str, str | None],
        until: ExitStack,
    ) -> None:
        columns, read = _row_key(context), metadata.value(context.definition_metadata, metadata.READ_KEY)
        what = _output_name(context)
        mode = metadata.write_mode(context.definition_metadata, what)
        if isinstance(obj, memoization.Reused):
            for key in keys:
                draft.clear_partition(partition_key(key))
            if not keys:
                draft.clear()
            memoization.restore(draft, obj)
            return

        def add(component: str, value: Any, facts: Mapping[str, object]) -> None:
            if facts and mode != "overwrite":
                raise InputError(
                    f"{what} returned several components for a partition, which the write mode {mode!r} does not support. "
                    "Return one table for each partition."
                )
            if engine_tables.engine_of(value) is not None:
                if mode != "overwrite":
                    raise InputError(
                        f"{what} returned a {type(value).__name__} of {library_of(value)}, which the write mode {mode!r} does "
                        "not support. Return the new rows as an Arrow, pandas or polars table."
                    )
                engine_tables.add(
                    draft,
                    component,
                    value,
                    address=target[0],
                    fallback=target[1],
                    key=columns,
                    facts=facts,
                    connection=self.registry.connection,
                    until=until,
                )
            elif mode == "append":
                draft.append(component, value, key=columns)
            elif mode == "upsert":
                draft.upsert(component, value, key=columns)
            elif is_table(value):
                draft.add(component, value, metadata=facts, key=columns)
            else:
                draft.add(component, value, metadata=facts, read=read)

        if not keys:
            if mode == "overwrite":
                draft.clear()
            for name, value in _components(obj, what).items():
                add(name or "data", value, {})
            return
        values: Mapping[str, Any] = {keys[0]: obj}
        if len(keys) > 1:
            given = {str(key).lower(): value for key, value in context.definition_metadata.items()}
            expression = given.get(PARTITION_EXPRESSION)
            values = partitions.split(obj, keys, context.asset_partitions_def, expression)
        partitions.refuse_meeting_keys(list(values), what)
        for raw in sorted(values):
            key = partition_key(raw)
            if mode == "overwrite":
                draft.clear_partition(key)
            for name, value in _components(values[raw], what).items():
                component, facts = component_of(key, name)
                add(component, value, facts)

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
        tracked = self.registry.tracked_branch
        side = self.registry.registry.dataset(result.version.dataset) if branch != tracked else None
        head = branches.version_of(side, tracked) if side is not None else None
        own = (
            metadata.per_partition(result, keys) if len(keys) > 1 and step is not None and context.has_asset_key else {}
        )
        pages = self.registry.pages
        found = metadata.materialization(
            result, branch=branch, inputs=inputs, schema_changes=changes, partitions=keys, pages=pages
        )
        if side is not None:
            found = metadata.of_side_run(branch, tracked, head, pages) | found
        found |= metadata.addresses(result.version.dataset, self.registry)
        for name in {name for facts in own.values() for name in facts}:
            found.pop(name, None)  # each partition's event has its own
        context.add_output_metadata(found)
        for key, facts in own.items():
            step.add_asset_metadata(facts, asset_key=context.asset_key, partition_key=key)
        if step is None or not context.has_asset_key or step.has_data_version(context.asset_key):
            return
        # For partitions the digest of their own entries: another partition's write must not make a downstream stale.
        digest = result.digest_written if keys else result.version.digest
        if side is not None:
            branches.keep_tracked(step, context.asset_key, keys, side, head, f"{branch}/{digest}")
            return
        step.set_data_version(context.asset_key, dg.DataVersion(str(digest)))

    # --- input -----------------------------------------------------------------------------------------------------

    def load_input(self, context: dg.InputContext) -> Any:
        """Load an input from the head of the run's branch, or from the input's `registry/ref`."""
        step = step_of(context)
        branch = self.branch_for(step)
        _check_assets(step, self.prefix)
        name = self._dataset_of(context)
        definition = context.definition_metadata or {}
        metadata.check_keys(definition, f"The input {context.name!r}" if context.has_input_name else "The input")
        wanted = handlers.understood(_annotated(context))
        loader = handlers.Loader(wanted, self.default_load_type, _columns(definition), self.registry.connection)
        keys = _keys(context)
        asked = metadata.value(definition, metadata.REF_KEY)
        ref = branch if asked is None else str(asked)
        may_miss = _may_miss(definition) or wanted.is_optional
        try:
            dataset = self.registry.registry.dataset(name)
            version, fallback = self.registry.version_on(dataset, ref, pinned=asked is not None)
        except NotFound as error:
            if keys is not None and (not keys or (may_miss and wanted.is_mapping)):
                return loader.nothing(None)
            if wanted.is_optional:
                return None
            raise _not_materialized(context, error, ref) from error
        if keys is not None and not keys:
            return loader.nothing(version)
        if step is not None:
            read = InputVersion(
                dataset=dataset.name,
                version=version.number,
                digest=version.digest,
                ref=ref,
                # A `Version` gives access to all of it.
                components=() if Version in wanted.kinds else tuple(keys or ()),
                fallback=fallback,
                label=context.name if context.has_input_name else None,
                uuid=version.record.uuid,
            )
            note_read(step, context.log, version, read)
        where = f" from {fallback} (no branch {ref} here)" if fallback else ""
        context.log.info(f"Loading {version}{where}")
        metadata.show_read(context, version, ref=ref, fallback=fallback)
        load = _load_whole if keys is None else partial(_load_partitions, keys=keys, may_miss=may_miss)
        value = load(version, loader)
        if step is not None:
            note_loaded(step, context.name if context.has_input_name else dataset.name, value)
        return value

    def _dataset_of(self, context: dg.OutputContext | dg.InputContext) -> str:
        if context.has_asset_key:
            upstream = context if isinstance(context, dg.OutputContext) else context.upstream_output
            definition = dict(upstream.definition_metadata or {}) if upstream is not None else {}
            if isinstance(context, dg.InputContext):
                definition |= context.definition_metadata or {}
            return self.prefix + metadata.dataset_name(context.asset_key, definition)
        output = context if isinstance(context, dg.OutputContext) else context.upstream_output
        assert output is not None, "an input that is no asset comes from an output"
        if (named := metadata.value(output.definition_metadata, metadata.DATASET_KEY)) is not None:
            return self.prefix + str(named)
        safe = ("".join(c if c.isalnum() or c in "_.-" else "_" for c in part) for part in output.get_identifier())
        return self.prefix + RUNS + "/".join(safe)


def _load_whole(version: Version, loader: handlers.Loader) -> Any:
    names = list(dict.fromkeys(component.name for component in version.components))
    if loader.wanted.is_mapping:
        return {name: loader.load(version, [name]) for name in names}
    is_table = not any(kind in (Version, Path, bytes) for kind in loader.wanted.kinds)
    columns = {frozenset(c.name for c in table.columns) for table in version.schema.tables().values()}
    if len(names) > 1 and is_table and len(columns) != 1:
        raise InputError(
            f"{version} has several components with different columns: {', '.join(names[:10])}. Annotate the input as "
            "dict[str, …] to load each by its name.",
        )
    return loader.load(version, names)


def _load_partitions(version: Version, loader: handlers.Loader, *, keys: Sequence[str], may_miss: bool) -> Any:
    wanted = {key: partition_key(key) for key in keys}
    by_partition: dict[str, list[ComponentRecord]] = {partition: [] for partition in wanted.values()}
    for component in version.components:
        owner = str(component.metadata.get(METADATA_KEY, component.name))
        if owner in by_partition:
            by_partition[owner].append(component)
    missing = [key for key, partition in wanted.items() if not by_partition[partition]]
    found = {key: by_partition[partition] for key, partition in wanted.items() if by_partition[partition]}
    if not found and loader.wanted.is_optional and not loader.wanted.is_mapping:
        return None
    if (missing and not may_miss) or (not found and not loader.wanted.is_mapping):
        listed = ", ".join(missing[:10]) + (" …" if len(missing) > 10 else "")
        raise NotFound(
            f"{version} has no partition {listed}. Materialize it first, or load all with "
            f'metadata={{"{ALLOW_MISSING}": True}} on the input.',
            partitions=missing,
        )
    if not loader.wanted.is_mapping:
        return loader.load(version, [c.name for components in found.values() for c in components])
    if len(keys) != 1:
        return {key: loader.load(version, [c.name for c in components]) for key, components in found.items()}
    return {local_name(c.name, wanted[keys[0]]): loader.load(version, [c.name]) for c in found.get(keys[0], [])}


def _keys(context: dg.OutputContext | dg.InputContext) -> list[str] | None:
    """The partitions of an output (none: it has none) or of an input (None: it has none), in the order of their definition."""
    if isinstance(context, dg.InputContext) and (key := _partition_of_check(context)) is not None:
        return [key]
    if context.has_asset_partitions:
        keys = list(context.asset_partition_keys)
        return partitions.in_order(keys, context.asset_partitions_def, _instance(context))
    return [] if isinstance(context, dg.OutputContext) else None


def _partition_of_check(context: dg.InputContext) -> str | None:
    """The partition of an asset check in a run of one partition (Dagster passes all partitions)."""
    step = step_of(context)
    if step is None or not context.has_asset_key or not step.has_partition_key:
        return None
    if step.assets_def is None or step.assets_def.keys or not step.assets_def.check_keys:
        return None
    layer = step.job_def.asset_layer
    if not layer.has(context.asset_key) or (definition := layer.get(context.asset_key).partitions_def) is None:
        return None
    key = str(step.partition_key)
    return key if partitions.has_key(definition, key, step.instance) else None


def _instance(context: dg.OutputContext | dg.InputContext) -> Any:
    step = step_of(context)
    return step.instance if step is not None else None


def _check_assets(step: Any, prefix: str) -> None:
    """Check once per code location that no two assets have the same dataset. Raises `InputError`."""
    if step is None or step.job_def in _checked:
        return
    graph = step.job_def.asset_layer.asset_graph
    stored: dict[str, dict[dg.AssetKey, Mapping[str, Any]]] = {}
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        manager = node.assets_def.get_io_manager_key_for_asset_key(key)
        if isinstance(step.job_def.resource_defs.get(manager), dg.IOManagerDefinition) and _is_ours(step, manager):
            stored.setdefault(manager, {})[key] = node.metadata
    for assets in stored.values():
        metadata.check_names(assets, prefix)
    _checked.add(step.job_def)


def _is_ours(step: Any, manager: str) -> bool:
    return isinstance(getattr(step.resources, manager, None), DatasetRegistryIOManager)


_checked: "WeakSet[Any]" = WeakSet()


def _not_materialized(context: dg.InputContext, error: NotFound, ref: str) -> NotFound:
    """The error for an input that was not materialized, in Dagster terms."""
    if not context.has_asset_key:
        return error
    key = context.asset_key.to_user_string()
    if metadata.value(context.definition_metadata or {}, metadata.REF_KEY) is not None:
        return NotFound(
            f"The asset {key!r} has no version {ref!r}, given by the metadata {metadata.REF_KEY} of this input. Use an "
            "existing version, branch or tag.",
            **error.fields,
        )
    return NotFound(
        f"The asset {key!r} has not been materialized to this registry, on {ref!r} or the fallback branch. Materialize it first, "
        f"or annotate the input as Optional[…] to get None until then. ({error})",
        **error.fields,
    )


def _row_key(context: dg.OutputContext) -> list[str]:
    """The columns that identify the rows of an asset's tables, as its metadata `registry/key` names them."""
    named: Any = metadata.value(context.definition_metadata, metadata.ROW_KEY) or ()
    return [named] if isinstance(named, str) else [str(name) for name in named]


def _columns(definition: Mapping[str, Any]) -> list[str] | None:
    """The columns to load, by the metadata of an input."""
    named: Any = metadata.value(definition, metadata.COLUMNS_KEY)
    if named is None:
        return None
    return [named] if isinstance(named, str) else [str(name) for name in named]


def _may_miss(definition: Mapping[str, Any]) -> bool:
    return bool(metadata.value(definition, ALLOW_MISSING) or metadata.value(definition, f"registry/{ALLOW_MISSING}"))


def _annotated(context: dg.InputContext) -> Any:
    """The annotated type of an input, None when there is none (as in a unit test's context)."""
    try:
        return context.dagster_type.typing_type
    except dg.DagsterInvariantViolationError:
        return None


def _components(value: Any, what: str) -> dict[str | None, Any]:
    """An output's components by name; None is the name of the only one. Raises `UnsupportedType`, `InputError`."""
    if not isinstance(value, Mapping):
        return {None: handlers.checked_output(value, what)}
    if not value:
        raise InputError(f"{what} returned an empty dict. Return at least one component.")
    found: dict[str | None, Any] = {}
    for name, part in value.items():
        if str(name) in found:
            raise InputError(f"{what} returned two components called {str(name)!r}. Give them different names.")
        found[str(name)] = handlers.checked_output(part, f"{what}, component {str(name)!r},")
    return found


def _description(context: dg.OutputContext) -> str | None:
    if not context.has_asset_key:
        return f"Output of {context.step_key}"
    step = step_of(context)
    if step is None or step.assets_def is None:
        return None
    spec = step.assets_def.specs_by_key.get(context.asset_key)
    # Docstrings may contain control characters that descriptions may not: they must not fail a run.
    return shown(spec.description, lines=True) if spec and spec.description is not None else None


def _message(context: dg.OutputContext, keys: Sequence[str]) -> str:
    what = context.asset_key.to_user_string() if context.has_asset_key else context.step_key
    partition = f" [{keys[0]}]" if len(keys) == 1 else f" [{keys[0]} … {keys[-1]}]" if keys else ""
    return f"Materialize {what}{partition}"


def _output_name(context: dg.OutputContext) -> str:
    return context.asset_key.to_user_string() if context.has_asset_key else f"The output {context.name!r}"
