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
    if branch != tracked:
        partitions = list(context.partition_keys) if context.has_partition_key else []
        for key, spec in specs.items():
            _keep_tracked(step, key, partitions, registry, prefix + metadata.dataset_name(key, spec.metadata), branch)
    session = {
        "branch": branch,
        "fallbacks": list(dict.fromkeys(name for name in (tracked, registry.fallback_branch) if name != branch)),
        "is_tracked": branch == tracked,
        "step": step.step.key,
        "code_versions": {key.to_user_string(): spec.code_version for key, spec in specs.items()},
    }
    return {"env": {PLACES[name]: value for name, value in registry.places().items()}, "extras": {EXTRA: session}}


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
