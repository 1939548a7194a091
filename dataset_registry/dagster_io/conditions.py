"""Automation conditions that follow the content of inputs in the registry, whole or by the columns that are loaded."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dataset_registry.dagster_io import metadata
from dataset_registry.dagster_io.branches import digest_of, version_of
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.errors import NotFound
from dataset_registry.model.partitions import partition_key
from dataset_registry.version import Version


def inputs_changed(registry: DatasetRegistryResource, *, prefix: str = "") -> "InputsChanged":
    """A condition that is true for an asset when the content of its inputs changed on the tracked branch.

    An input with the metadata `columns` counts by these columns, one with `registry/ref` at that ref, and of a partitioned
    input the partitions that the mapping names. It is true in the tick that sees the change, and the first time if the asset was
    computed from other content, or never. Runs that produce the same content, and runs on other branches, do not make it true.
    `prefix` is that of the IO manager.

    Dagster evaluates conditions that are not its own in the code location: add a
    `dg.AutomationConditionSensorDefinition(…, use_user_code_server=True)` to the definitions.
    """
    return InputsChanged(registry, prefix)


class InputsChanged(dg.AutomationCondition):  # type: ignore[type-arg]
    """See `inputs_changed`."""

    def __init__(self, registry: DatasetRegistryResource, prefix: str = "") -> None:
        self._registry = registry
        self._prefix = prefix

    @property
    def name(self) -> str:
        return "inputs_changed"

    @property
    def description(self) -> str:
        return "The content of an input changed on the tracked branch of the registry"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:  # type: ignore[type-arg]
        """The partitions of the asset, or the asset, whose inputs changed since the last evaluation."""
        heads = self._heads(context)
        before = json.loads(context.cursor) if context.cursor else None
        digests = {parent.to_user_string(): head.digest for parent, head in heads.items()}
        if not heads or (before is not None and before["heads"] == digests):
            return dg.AutomationResult(context, context.get_empty_subset(), cursor=context.cursor)
        if context.partitions_def is None:
            now = {"": self._content(context, heads, None)}
            then = before["content"] if before is not None else {"": self._read_last(context, heads)}
        else:
            keys = context.candidate_subset.expensively_compute_partition_keys()
            now = {key: self._content(context, heads, key) for key in sorted(keys)}
            then = before["content"] if before is not None else now
        changed = {key for key, content in now.items() if content is not None and then.get(key) != content}
        if not changed:
            found = context.get_empty_subset()
        elif context.partitions_def is None:
            found = context.candidate_subset
        else:
            found = context.asset_graph_view.get_subset_from_partition_keys(
                context.key, context.partitions_def, changed
            )
        return dg.AutomationResult(context, found, cursor=json.dumps({"heads": digests, "content": now}))

    def _heads(self, context: Any) -> dict[dg.AssetKey, Version]:
        """The version of each input that is a dataset; none at all if one that should be there is not."""
        found: dict[dg.AssetKey, Version] = {}
        for parent in sorted(context.asset_graph.get(context.key).parent_keys):
            ref = metadata.value(self._input(context, parent), metadata.REF_KEY)
            try:
                dataset = self._registry.registry.dataset(self._dataset(context, parent))
                found[parent], _ = self._registry.version_on(dataset, ref or self._registry.tracked_branch)
            except NotFound:
                if context.asset_graph.get(parent).is_materializable:
                    return {}
        return found

    def _dataset(self, context: Any, key: dg.AssetKey) -> str:
        return self._prefix + metadata.dataset_name(key, context.asset_graph.get(key).metadata)

    def _input(self, context: Any, parent: dg.AssetKey) -> Mapping[str, Any]:
        """The metadata of the input that loads an asset."""
        asset = context.asset_graph.get(context.key).assets_def
        names = [name for name, key in asset.node_keys_by_input_name.items() if key == parent]
        return asset.node_def.input_dict[names[0]].metadata or {} if names else {}

    def _content(self, context: Any, heads: Mapping[dg.AssetKey, Version], partition: str | None) -> Any:
        """What identifies the content of the inputs of a partition, or of the whole asset; None if it is not there yet."""
        found = {}
        for parent, head in heads.items():
            content = self._of(context, parent, head, self._partitions(context, parent, partition))
            if content is None:
                return None
            found[parent.to_user_string()] = content
        return found

    def _partitions(self, context: Any, parent: dg.AssetKey, partition: str | None) -> Sequence[str]:
        """The partitions of an input that a partition of the asset, or all of it, is made from; none of an unpartitioned one."""
        if context.asset_graph.get(parent).partitions_def is None or partition is None:
            return ()
        view = context.asset_graph_view
        own = view.get_subset_from_partition_keys(context.key, context.partitions_def, {partition})
        return sorted(view.compute_parent_subset(parent, own).expensively_compute_partition_keys())

    def _of(self, context: Any, parent: dg.AssetKey, version: Version, partitions: Sequence[str]) -> Any:
        """The digest of an input, or those of the columns that are loaded."""
        columns: Any = metadata.value(self._input(context, parent), metadata.COLUMNS_KEY)
        if columns is None:
            return digest_of(version, partitions)
        names = [partition_key(key) for key in partitions] or None
        try:
            digests = version.column_digests(names)
        except NotFound:
            return None
        return {name: digests.get(name) for name in ([columns] if isinstance(columns, str) else columns)}

    def _read_last(self, context: Any, heads: Mapping[dg.AssetKey, Version]) -> Any:
        """What the asset was last computed from on the tracked branch, as `_content`; None if never."""
        try:
            dataset = self._registry.registry.dataset(self._dataset(context, context.key))
            version, _ = self._registry.version_on(dataset, self._registry.tracked_branch)
        except NotFound:
            return None
        reads = {read.dataset: read for made in version.productions for read in made.provenance.inputs}
        found = {}
        for parent, head in heads.items():
            read = reads.get(head.dataset)
            then = version_of(self._registry.registry.dataset(head.dataset), f"v{read.version}") if read else head
            found[parent.to_user_string()] = None if then is None else self._of(context, parent, then, ())
        return found
