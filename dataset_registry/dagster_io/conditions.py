"""Automation conditions that follow the content of inputs in the registry, whole or by the columns that are loaded."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dataset_registry.dagster_io import metadata
from dataset_registry.dagster_io.branches import digest_of, version_read
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.errors import NotFound
from dataset_registry.model.partitions import belongs, partition_key
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
        candidates = context.candidate_subset
        if candidates.is_empty:  # what changes now is seen when there are candidates again
            return dg.AutomationResult(context, context.get_empty_subset(), cursor=context.cursor)
        heads = self._heads(context)
        before = json.loads(context.cursor) if context.cursor else None
        digests = {parent.to_user_string(): head.digest for parent, head in heads.items()}
        if not heads or (before is not None and before["heads"] == digests):
            return dg.AutomationResult(context, context.get_empty_subset(), cursor=context.cursor)
        is_whole = True
        if context.partitions_def is None:
            now = {"": self._content(context, heads, candidates)}
            then = before["content"] if before is not None else {"": self._read_last(context, heads, candidates)}
        else:
            view, key = context.asset_graph_view, context.key
            keys = candidates.expensively_compute_partition_keys()
            is_whole = candidates.size == view.get_full_subset(key=key).size
            now = {
                name: self._content(
                    context, heads, view.get_subset_from_partition_keys(key, context.partitions_def, {name})
                )
                for name in sorted(keys)
            }
            then = before["content"] if before is not None else self._computed(context, now)
        changed = {name for name, content in now.items() if content is not None and then.get(name) != content}
        found = context.get_empty_subset()
        if changed and context.partitions_def is None:
            found = candidates
        elif changed and context.partitions_def is not None:
            found = context.asset_graph_view.get_subset_from_partition_keys(
                context.key, context.partitions_def, changed
            )
        known = {**(before["content"] if before is not None else {}), **now}
        # Partitions that were not looked at may have changed, too.
        seen = digests if is_whole else None
        return dg.AutomationResult(context, found, cursor=json.dumps({"heads": seen, "content": known}))

    def _asset(self, context: Any) -> dg.AssetKey:
        """The asset, or that of a check."""
        key = context.key
        found: dg.AssetKey = key.asset_key if isinstance(key, dg.AssetCheckKey) else key
        return found

    def _parents(self, context: Any) -> list[dg.AssetKey]:
        if isinstance(context.key, dg.AssetCheckKey):
            return [context.key.asset_key]
        return sorted(parent for parent in context.asset_graph.get(context.key).parent_keys if parent != context.key)

    def _heads(self, context: Any) -> dict[dg.AssetKey, Version]:
        """The version of each input that is a dataset; none at all if one that should be there is not."""
        found: dict[dg.AssetKey, Version] = {}
        for parent in self._parents(context):
            ref = metadata.value(self._input(context, parent), metadata.REF_KEY)
            try:
                dataset = self._registry.registry.dataset(self._dataset(context, parent))
                found[parent], _ = self._registry.version_on(dataset, ref or self._registry.tracked_branch)
            except NotFound:
                if self._is_stored(context, parent):
                    return {}
        return found

    def _is_stored(self, context: Any, parent: dg.AssetKey) -> bool:
        """Whether an input has the IO manager of the asset, so that it will be a dataset once it is materialized."""
        node, own = context.asset_graph.get(parent), context.asset_graph.get(self._asset(context))
        if not node.is_materializable:
            return False
        managers = {n.assets_def.get_io_manager_key_for_asset_key(n.key) for n in (node, own)}
        return len(managers) == 1

    def _dataset(self, context: Any, key: dg.AssetKey) -> str:
        return self._prefix + metadata.dataset_name(key, context.asset_graph.get(key).metadata)

    def _input(self, context: Any, parent: dg.AssetKey) -> Mapping[str, Any]:
        """The metadata of the input that loads an asset."""
        if isinstance(context.key, dg.AssetCheckKey):
            return {}
        asset = context.asset_graph.get(context.key).assets_def
        names = [name for name, key in asset.node_keys_by_input_name.items() if key == parent]
        return asset.node_def.input_dict[names[0]].metadata or {} if names else {}

    def _content(self, context: Any, heads: Mapping[dg.AssetKey, Version], subset: Any) -> Any:
        """What identifies the content of the inputs of a subset; None if it is not there yet."""
        found = {}
        for parent, head in heads.items():
            content = self._of(context, parent, head, self._partitions(context, parent, subset))
            if content is None:
                return None
            found[parent.to_user_string()] = content
        return found

    def _partitions(self, context: Any, parent: dg.AssetKey, subset: Any) -> Sequence[str]:
        """The partitions of an input that a subset is made from; none for all, and of an unpartitioned one."""
        if context.asset_graph.get(parent).partitions_def is None or isinstance(context.key, dg.AssetCheckKey):
            return ()
        view = context.asset_graph_view
        found = view.compute_parent_subset(parent, subset)
        if found.size == view.get_full_subset(key=parent).size:
            return ()
        return sorted(found.expensively_compute_partition_keys())

    def _of(self, context: Any, parent: dg.AssetKey, version: Version, partitions: Sequence[str]) -> Any:
        """The digest of an input, or those of the columns that are loaded."""
        columns: Any = metadata.value(self._input(context, parent), metadata.COLUMNS_KEY)
        if columns is None:
            return digest_of(version, partitions)
        keys = [partition_key(key) for key in partitions]
        names = [c.name for c in version.components if any(belongs(c.name, c.metadata, key) for key in keys)]
        if keys and not names:
            return None
        digests = version.column_digests(sorted(set(names)) or None)
        return {name: digests.get(name) for name in ([columns] if isinstance(columns, str) else columns)}

    def _own(self, context: Any) -> Version | None:
        """The version of the asset on the tracked branch."""
        try:
            dataset = self._registry.registry.dataset(self._dataset(context, self._asset(context)))
            return self._registry.version_on(dataset, self._registry.tracked_branch)[0]
        except NotFound:
            return None

    def _computed(self, context: Any, now: Mapping[str, Any]) -> dict[str, Any]:
        """The content of the inputs of partitions that were computed already: they are taken to be up to date."""
        own = self._own(context)
        return {name: content for name, content in now.items() if digest_of(own, [name]) is not None}

    def _read_last(self, context: Any, heads: Mapping[dg.AssetKey, Version], subset: Any) -> Any:
        """What the asset was last computed from on the tracked branch, as `_content`; None if never."""
        own = self._own(context)
        if own is None:
            return None
        dataset = self._registry.registry.dataset(own.dataset)
        productions = next((made for v in dataset.log(f"v{own.number}", limit=20) if (made := v.productions)), [])
        reads = {read.dataset: read for made in productions for read in made.provenance.inputs}
        found = {}
        for parent, head in heads.items():
            read = reads.get(head.dataset)
            then = version_read(self._registry, read) if read else head
            partitions = self._partitions(context, parent, subset)
            found[parent.to_user_string()] = None if then is None else self._of(context, parent, then, partitions)
        return found
