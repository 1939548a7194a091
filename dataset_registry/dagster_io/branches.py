"""The branch of a run, and what Dagster is told of a run on another branch than the tracked one.

Dagster has one history for each asset. An instance follows one branch of the registry in it, the *tracked* branch; a run on
another branch is a *side run*. The events of a side run carry the data version and the provenance that the tracked branch has,
so that no asset becomes stale or fresh by them.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.execution.context.data_version_cache import InputAssetVersionInfo

from dataset_registry.dataset import Dataset
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.names import pointer_name, suggestion
from dataset_registry.model.partitions import belongs, partition_key
from dataset_registry.model.records import ComponentRecord, InputVersion, components_digest
from dataset_registry.version import Version

VERSION_NUMBER = "registry/version_number"
TRACKED_VERSION = "registry/tracked_version"
"""Metadata of a side run's event: the number of the version that the tracked branch had, 0 for none."""

GIT_VARIABLES = (
    "DAGSTER_CLOUD_GIT_BRANCH",
    "GITHUB_HEAD_REF",
    "GITHUB_REF_NAME",
    "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME",
    "CI_COMMIT_REF_NAME",
    "BUILDKITE_BRANCH",
    "CIRCLE_BRANCH",
    "BITBUCKET_BRANCH",
    "BUILD_SOURCEBRANCHNAME",
)
"""The variables in which Dagster+ and build services have the git branch; the first that is set counts."""

ROOT_RUN_TAG = "dagster/root_run_id"
"""Dagster's tag on a re-execution: the id of the first run."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS = ("run_id", "git_branch", "env:NAME")


# --- names -------------------------------------------------------------------------------------------------------------


def check_template(template: str) -> str:
    """The same template. Raises `InputError` for an unknown placeholder."""
    for name in _PLACEHOLDER.findall(template):
        if name not in ("run_id", "git_branch") and not re.fullmatch(r"env:\w+", name):
            near = suggestion(name, list(_PLACEHOLDERS))
            raise InputError(
                f"The branch {template!r} has the unknown placeholder {{{name}}}. {near} Placeholders are {{run_id}}, "
                "{git_branch} and {env:NAME}.".replace("  ", " "),
                branch=template,
            )
    return template


def is_per_run(template: str) -> bool:
    """Whether every run has a branch of its own."""
    return "{run_id}" in template


def expand(template: str, run_id: str | None, tags: Mapping[str, str]) -> str:
    """The branch that a template names. Characters that names do not have become `-`.

    `{run_id}` is the id of the run, for a re-execution that of its first attempt; `{env:NAME}` an environment variable;
    `{git_branch}` the git branch by the variables of Dagster+ and build services. Raises `InputError` where a value is missing.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "run_id":
            found = tags.get(ROOT_RUN_TAG) or run_id
            missing = "there is no run here"
        elif name == "git_branch":
            found = next((text for variable in GIT_VARIABLES if (text := os.environ.get(variable))), None)
            missing = f"none of these variables is set: {', '.join(GIT_VARIABLES)}"
        else:
            variable = name.removeprefix("env:")
            found = os.environ.get(variable)
            missing = f"the environment variable {variable} is not set"
        if not found:
            raise InputError(f"The branch {template!r} cannot be filled in: {missing}.", branch=template)
        return _as_name(found)

    check_template(template)
    if not _PLACEHOLDER.search(template):
        return template
    return pointer_name(_PLACEHOLDER.sub(value, template))


def _as_name(text: str) -> str:
    """A text with only the characters that the name of a branch may have."""
    return re.sub(r"(?<=[/.])[/.]+|[^\w.+=/-]", "-", text.strip()).strip("/.-") or "-"


# --- side runs ---------------------------------------------------------------------------------------------------------


def version_of(dataset: Dataset, ref: str) -> Version | None:
    """The version of a ref, None without one."""
    try:
        return dataset.version(ref)
    except NotFound:
        return None


def version_read(registry: Any, read: InputVersion) -> Version | None:
    """The version that a recorded input is, None if it is gone. `registry` is the resource."""
    try:
        found: Version = registry.registry.dataset(read.dataset).version(f"v{read.version}")
    except NotFound:
        return None
    is_other = read.uuid is not None and found.record.uuid is not None and found.record.uuid != read.uuid
    return None if is_other or found.digest != read.digest else found


def keep_tracked(
    step: Any, key: dg.AssetKey, partitions: Sequence[str], dataset: Dataset, head: Version | None, otherwise: str
) -> None:
    """Make the next event of an asset say what is true of the tracked branch, whose head this is.

    The data version is that of the tracked branch, `otherwise` if it has none; the versions of the inputs are those of the event
    before. If the code version has changed since then, the inputs are reported as changed, so that the asset remains stale.
    """
    last = last_event(step.instance, key, partitions)
    data_version = digest_of(head, partitions)
    if last is not None and head is not None and is_about(last, dataset, head, partitions):
        data_version = (last.event_log_entry.tags or {})[DATA_VERSION_TAG]  # whatever the event called that content
    step.set_data_version(key, dg.DataVersion(data_version or otherwise))
    if last is None:
        return
    tags = last.event_log_entry.tags or {}
    node = step.job_def.asset_layer.get(key)
    has_new_code = node.code_version not in (None, tags.get(CODE_VERSION_TAG))
    for parent in node.parent_keys:
        version = tags.get(get_input_data_version_tag(parent))
        pointer = tags.get(get_input_event_pointer_tag(parent), NULL_EVENT_POINTER)
        storage_id = None if pointer == NULL_EVENT_POINTER else int(pointer)
        known = InputAssetVersionInfo(
            storage_id=storage_id,  # type: ignore[arg-type]  # Dagster reads None as "no event"
            event_type=dg.DagsterEventType.ASSET_MATERIALIZATION,
            data_version=None if version is None else dg.DataVersion(version),
            run_id=last.run_id,
            timestamp=last.timestamp,
        )
        if version is None or has_new_code:
            known = replace(known, storage_id=0, data_version=dg.DataVersion(CHANGED))
        step.input_asset_records[parent] = known


CHANGED = "changed"
"""A data version that no asset has."""


def last_event(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]) -> Any:
    """The last materialization of an asset, of the first of some partitions; None without one that has a data version."""
    found = instance.get_latest_data_version_record(key, partition_key=partitions[0] if partitions else None)
    has_version = found is not None and DATA_VERSION_TAG in (found.event_log_entry.tags or {})
    return found if has_version else None


def is_about(event: Any, dataset: Dataset, head: Version, partitions: Sequence[str]) -> bool:
    """Whether an event said of the tracked branch that it has the content of this head, in some partitions or in all."""
    told = event.asset_materialization.metadata if event.asset_materialization else {}
    number = (told.get(TRACKED_VERSION) or told.get(VERSION_NUMBER) or dg.IntMetadataValue(0)).value
    if number == head.number:
        return True
    before = version_of(dataset, f"v{number}") if number else None
    return before is not None and digest_of(before, partitions) == digest_of(head, partitions)


def digest_of(version: Version | None, partitions: Sequence[str]) -> str | None:
    """The digest of a version, or of its components for some partitions; None if it lacks them."""
    if version is None or not partitions:
        return None if version is None else version.digest
    keys = [partition_key(key) for key in partitions]
    own: Sequence[ComponentRecord] = version.components_named(keys)
    if len({c.name for c in own}) < len(keys):  # the others have several components, or none
        own = [c for c in version.components if any(belongs(c.name, c.metadata, key) for key in keys)]
    return components_digest(own) if own else None
