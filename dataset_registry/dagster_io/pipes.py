"""What a process that Dagster Pipes starts is given, so that it opens the registry on the branch of the run."""

from typing import Any

import dagster as dg

from dataset_registry.dagster_io import branches, metadata
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.dagster_io.steps import step_of
from dataset_registry.errors import NotFound
from dataset_registry.pipes import EXTRA, PLACES


def arguments(context: Any, registry: DatasetRegistryResource, prefix: str) -> dict[str, Any]:
    """The arguments `env` and `extras` of a client of Pipes. The event of a side run will say what the tracked branch has."""
    step = step_of(context)
    branch, tracked = registry.branch_of(step.run_tags, step.run_id), registry.tracked_branch
    specs = step.assets_def.specs_by_key if step.assets_def is not None else {}
    partitions = list(context.partition_keys) if context.has_partition_key or context.has_partition_key_range else []
    if branch != tracked:
        for key, spec in specs.items():
            _keep_tracked(step, key, partitions, registry, prefix + metadata.dataset_name(key, spec.metadata), branch)
    session = {
        "branch": branch,
        "fallbacks": list(dict.fromkeys(name for name in (tracked, registry.fallback_branch) if name != branch)),
        "tracked": tracked,
        "partitions": partitions,
        "step": step.step.key,
        "code_versions": {key.to_user_string(): spec.code_version for key, spec in specs.items()},
    }
    places = registry.places()
    # Empty where nothing is set, so that the process does not take a variable of this one instead.
    return {
        "env": {variable: places.get(name, "") for name, variable in PLACES.items()},
        "extras": {EXTRA: session},
    }


def _keep_tracked(
    step: Any, key: dg.AssetKey, partitions: list[str], registry: DatasetRegistryResource, name: str, branch: str
) -> None:
    otherwise = f"{branch}/{step.run_id}"
    try:
        dataset = registry.registry.dataset(name)
    except NotFound:
        step.set_data_version(key, dg.DataVersion(otherwise))
        return
    head = branches.version_of(dataset, registry.tracked_branch)
    branches.keep_tracked(step, key, partitions, dataset, head, otherwise)
