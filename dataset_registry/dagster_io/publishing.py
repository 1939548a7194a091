"""Publishing runs: results of checks are recorded on versions; what a run wrote moves to the tracked branch whole, or not."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    INPUT_DATA_VERSION_TAG_PREFIX,
    INPUT_EVENT_POINTER_TAG_PREFIX,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.metadata import normalize_metadata

from dataset_registry.dagster_io import branches, metadata
from dataset_registry.dagster_io.branches import ROOT_RUN_TAG, TRACKED_VERSION, VERSION_NUMBER
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.errors import ConflictError, NotFound, Tainted
from dataset_registry.model.checks import CheckResult, Taint, newest_of_each
from dataset_registry.model.partitions import METADATA_KEY
from dataset_registry.model.records import Production
from dataset_registry.registry import Registry
from dataset_registry.version import Version

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SettledRun:
    """How a run ended, as the registry knows it: the branches that it wrote to with the datasets, the results of its checks, and
    its taints."""

    run_id: str
    succeeded: bool
    wrote: Mapping[str, Sequence[str]]
    checks: Sequence[CheckResult] = ()
    taints: Sequence[Taint] = ()


# --- settling ----------------------------------------------------------------------------------------------------------


def settle_run(run_id: str, *, instance: dg.DagsterInstance, registry: DatasetRegistryResource) -> SettledRun:
    """Record the results of a run's asset checks on the versions that they judged, and how the run ended.

    When a re-execution succeeds, the attempts before it are not tainted any longer. To settle a run again changes nothing.
    Raises `NotFound` for an unknown run, `ConflictError` for one that is not finished.
    """
    run = instance.get_run_by_id(run_id)
    if run is None:
        raise NotFound(f"The Dagster instance has no run {run_id!r}.", run=run_id)
    if not run.is_finished:
        raise ConflictError(f"The run {run_id} is not finished. Publish it when it is.", run=run_id)
    succeeded = run.status is dg.DagsterRunStatus.SUCCESS
    checks = list(_record_checks(run_id, instance, registry.registry))
    wrote: dict[str, list[str]] = {}
    taints: list[Taint] = []
    for attempt in _attempts(run, instance) if succeeded else [run_id]:
        try:
            found = registry.registry.run(attempt)
        except NotFound:
            continue
        for version in found.wrote:
            if version.branch is not None and version.dataset not in wrote.setdefault(version.branch, []):
                wrote[version.branch].append(version.dataset)
        taints += registry.registry.finish_run(attempt, succeeded=succeeded)
    return SettledRun(run_id, succeeded, wrote, checks, taints)


def _attempts(run: dg.DagsterRun, instance: dg.DagsterInstance) -> list[str]:
    """The ids of a run and of the attempts before it, the first one first."""
    root = run.tags.get(ROOT_RUN_TAG)
    if root is None:
        return [run.run_id]
    again = instance.get_runs(dg.RunsFilter(tags={ROOT_RUN_TAG: root}))
    ended = [other.run_id for other in again if other.is_finished and other.run_id != run.run_id]
    return [root, *reversed(ended), run.run_id]


def _record_checks(run_id: str, instance: dg.DagsterInstance, registry: Registry) -> Iterator[CheckResult]:
    """Record the results of a run's asset checks that are not recorded yet."""
    kinds = {
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.LOADED_INPUT,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    }
    written: dict[tuple[dg.AssetKey, str | None], str] = {}
    loaded: dict[tuple[str | None, str], str] = {}
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.dagster_event
        if event is None:
            continue
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            made = event.step_materialization_data.materialization
            if (address := _address(made.metadata)) is not None:
                written[made.asset_key, made.partition] = written[made.asset_key, None] = address
        elif event.event_type is dg.DagsterEventType.LOADED_INPUT:
            read = metadata.value(event.event_specific_data.metadata, metadata.VERSION)  # type: ignore[union-attr]
            if read is not None:
                loaded[event.step_key, str(read).rpartition("@")[0]] = str(read)
        else:
            found = event.asset_check_evaluation_data
            version = _judged(found, event.step_key, written, loaded, instance, registry)
            if version is not None and (result := _record(version, found, run_id)) is not None:
                yield result


def _judged(
    found: dg.AssetCheckEvaluation,
    step: str | None,
    written: Mapping[tuple[dg.AssetKey, str | None], str],
    loaded: Mapping[tuple[str | None, str], str],
    instance: dg.DagsterInstance,
    registry: Registry,
) -> Version | None:
    """The version that a check judged: what its step loaded, else what the run wrote, else what was the last materialization."""
    target = _target(found, instance)
    name = target.rpartition("@")[0] if target else None
    own = written.get((found.asset_key, found.partition)) or written.get((found.asset_key, None))
    if name is None and own is not None:
        name = own.rpartition("@")[0]
    said = metadata.value(found.metadata, metadata.VERSION)  # checks of ours say what they read
    address = str(said) if said else loaded.get((step, name or ""), own or target)
    if address is None:
        return None
    try:
        return registry.version(address)
    except NotFound:
        _log.warning("The version %s, which the check %s judged, is gone", address, found.check_name)
        return None


def _target(found: dg.AssetCheckEvaluation, instance: dg.DagsterInstance) -> str | None:
    """The version of the materialization that Dagster says was checked."""
    if found.target_materialization_data is None:
        return None
    storage_id = found.target_materialization_data.storage_id
    wanted = dg.AssetRecordsFilter(asset_key=found.asset_key, storage_ids=[storage_id])
    for record in instance.fetch_materializations(wanted, limit=1).records:
        if record.asset_materialization is not None:
            return _address(record.asset_materialization.metadata)
    return None


def _address(facts: Mapping[str, Any]) -> str | None:
    """The version that a materialization is about, as `<dataset>@v<number>`."""
    name, number = metadata.value(facts, metadata.TABLE_NAME), metadata.value(facts, VERSION_NUMBER)
    return None if name is None or number is None else f"{name}@v{number}"


def _record(version: Version, found: dg.AssetCheckEvaluation, run_id: str) -> CheckResult | None:
    """Record a result, unless it is recorded already."""
    for known in version.checks:
        if (known.name, known.partition, known.run_id) == (found.check_name, found.partition, run_id):
            return None
    facts = {key: _plain(value.value) for key, value in found.metadata.items()}
    return version.record_check(
        found.check_name,
        bool(found.passed),
        blocking=bool(found.blocking),
        severity="warn" if found.severity is dg.AssetCheckSeverity.WARN else "error",
        description=found.description,
        metadata=facts,
        partition=found.partition,
        run_id=run_id,
    )


def _plain(value: Any) -> Any:
    """A value of Dagster metadata as JSON, or as text."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)


# --- publishing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """What was published: the run as it was settled, the new heads, and the assets whose materializations were reported."""

    run: SettledRun
    heads: Sequence[Version] = ()
    reported: Sequence[dg.AssetKey] = ()


def publish_run(
    run_id: str,
    *,
    instance: dg.DagsterInstance,
    registry: DatasetRegistryResource,
    into: str | None = None,
    allow_moved_inputs: bool = False,
) -> PublishedRun:
    """Publish what a run wrote: merge its branch into the tracked branch (or `into`), in one transaction for all of its datasets.

    The run is settled first. Dagster is told of the new content of the tracked branch, once. It may be repeated after it was
    interrupted. Raises `Tainted` if the run failed or a blocking check did, `MergeConflict`, and `ConflictError` if the target
    moved under an input that a version was built from; then nothing is published.
    """
    settled = settle_run(run_id, instance=instance, registry=registry)
    target = into or registry.tracked_branch
    wrote = {branch: names for branch, names in settled.wrote.items() if branch != target}
    if not settled.succeeded and settled.wrote:
        listed = ", ".join(name for names in settled.wrote.values() for name in names)
        raise Tainted(f"The run {run_id} did not succeed: nothing of it was published ({listed}).", run=run_id)
    heads = [
        head
        for branch, names in wrote.items()
        for head in registry.registry.publish(branch, target, datasets=names, allow_moved_inputs=allow_moved_inputs)
    ]
    names = list(dict.fromkeys(name for found in wrote.values() for name in found))
    reported = []
    if target == registry.tracked_branch:
        reported = report_moves(names, instance=instance, registry=registry)
        report_checks(names, instance=instance, registry=registry)
    return PublishedRun(settled, heads, reported)


def report_moves(
    datasets: Sequence[str], *, instance: dg.DagsterInstance, registry: DatasetRegistryResource
) -> list[dg.AssetKey]:
    """Report a materialization for each asset whose dataset has other content on the tracked branch than Dagster knows.

    Assets are known by the versions that they made. Returns those that were reported, inputs before what was built from them.
    """
    tracked = registry.tracked_branch
    found: dict[dg.AssetKey, tuple[Version, Production]] = {}
    for name in datasets:
        version = branches.version_of(registry.registry.dataset(name), tracked)
        made = _production(registry.registry, version) if version is not None else None
        if version is not None and made is not None and made.provenance.asset_key is not None:
            found[dg.AssetKey.from_user_string(made.provenance.asset_key)] = (version, made)
    reported = []
    for key in _inputs_first(found):
        events = moved_events(key, found[key][0], instance=instance, registry=registry)
        for event in events:
            instance.report_runless_asset_event(event)
        if events:
            reported.append(key)
    return reported


def _production(registry: Registry, version: Version) -> Production | None:
    """The newest production of a version by an asset; for a merge, that of what was merged."""
    dataset = registry.dataset(version.dataset)
    for candidate in (version, *(dataset.version(f"v{number}") for number in reversed(version.parents))):
        for made in reversed(candidate.productions):
            if made.provenance.asset_key is not None:
                return made
        if len(version.parents) < 2:
            break
    return None


def _inputs_first(found: Mapping[dg.AssetKey, tuple[Version, Production]]) -> list[dg.AssetKey]:
    """The assets in an order in which none comes before one of its inputs."""
    by_dataset = {version.dataset: key for key, (version, _) in found.items()}
    ordered: list[dg.AssetKey] = []
    waiting = dict.fromkeys(found)
    while waiting:
        ready = [
            key
            for key in waiting
            if not any(
                by_dataset.get(r.dataset) in waiting and by_dataset[r.dataset] != key for r in _reads(found, key)
            )
        ]
        for key in ready or list(waiting):  # a cycle cannot be, unless datasets were renamed
            ordered.append(key)
            del waiting[key]
    return ordered


def _reads(found: Mapping[dg.AssetKey, tuple[Version, Production]], key: dg.AssetKey) -> Sequence[Any]:
    return found[key][1].provenance.inputs


def moved_events(
    key: dg.AssetKey, version: Version, *, instance: dg.DagsterInstance, registry: DatasetRegistryResource
) -> list[dg.AssetMaterialization]:
    """The materializations to report of an asset whose dataset is at this version on the tracked branch: of the asset, or of each
    partition whose content Dagster does not know."""
    return list(_events(key, version, instance, registry))


def _events(
    key: dg.AssetKey, version: Version, instance: dg.DagsterInstance, registry: DatasetRegistryResource
) -> Iterator[dg.AssetMaterialization]:
    made, tracked = _production(registry.registry, version), registry.tracked_branch
    own = {str(c.metadata.get(METADATA_KEY, c.name)) for c in version.components}
    dataset = registry.registry.dataset(version.dataset)
    is_partitioned = made.provenance.partition is not None if made else bool(instance.get_materialized_partitions(key))
    partitions: list[list[str]] = [[key] for key in sorted(own)] if is_partitioned else [[]]
    said: dict[str | None, dict[str, Any]] | None = None
    for partition in partitions:
        last = branches.last_event(instance, key, partition)
        tags: Mapping[str, str] = (last.event_log_entry.tags or {}) if last else {}
        digest = branches.digest_of(version, partition)
        if digest is None or tags.get(DATA_VERSION_TAG) == digest:
            continue
        if last is not None and branches.is_about(last, dataset, version, partition):
            continue
        if said is None:
            said = _said(key, made.provenance.run_id, instance) if made and made.provenance.run_id else {}
        yield dg.AssetMaterialization(
            asset_key=key,
            partition=partition[0] if partition else None,
            description=f"{version} on {tracked}",
            metadata=_facts(partition, version, said, registry),
            tags={**(_tags(tags, made, instance, registry) if made else _kept(tags)), DATA_VERSION_TAG: digest},
        )


def _facts(
    partition: Sequence[str],
    version: Version,
    said: Mapping[str | None, Mapping[str, Any]],
    registry: DatasetRegistryResource,
) -> dict[str, Any]:
    """What the run that made the content said of it, and the version on the tracked branch."""
    own = metadata.of_version(version, registry.tracked_branch, registry.pages)
    if partition:  # its rows and bytes are those of all partitions
        own = {name: value for name, value in own.items() if name.startswith("registry/")}
    of_run = said.get(partition[0] if partition else None, {})
    return {**of_run, **own, **metadata.addresses(version.dataset, registry)}


def _said(key: dg.AssetKey, run_id: str, instance: dg.DagsterInstance) -> dict[str | None, dict[str, Any]]:
    """The metadata of the materializations of an asset in a run, by partition, without what is true of that run only."""
    found = {}
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.asset_materialization
        if event is not None and event.asset_key == key:
            facts = {name: value for name, value in event.metadata.items() if name not in _OF_A_SIDE_RUN}
            found[event.partition] = facts
    return found


_OF_A_SIDE_RUN = (metadata.SIDE_RUN, TRACKED_VERSION, metadata.REUSED)


def report_checks(
    datasets: Sequence[str], *, instance: dg.DagsterInstance, registry: DatasetRegistryResource
) -> list[dg.AssetCheckKey]:
    """Report the recorded results of checks of each dataset on the tracked branch, as evaluations of the last materialization.

    Results of partitions, and those that Dagster has, are left out. Returns the checks that were reported.
    """
    reported = []
    for name in datasets:
        version = branches.version_of(registry.registry.dataset(name), registry.tracked_branch)
        made = _production(registry.registry, version) if version is not None else None
        if version is None or made is None or made.provenance.asset_key is None:
            continue
        asset = dg.AssetKey.from_user_string(made.provenance.asset_key)
        # Dagster stores one evaluation of a partition that no run made, and refuses another: those of whole assets are reported.
        for check in newest_of_each(check for check in version.checks if check.partition is None):
            target = branches.last_event(instance, asset, [])
            key = dg.AssetCheckKey(asset, check.name)
            if target is None or _is_evaluated(key, target.storage_id, instance):
                continue
            instance.report_runless_asset_event(_evaluation(key, check, target))
            reported.append(key)
    return reported


def _is_evaluated(key: dg.AssetCheckKey, storage_id: int, instance: dg.DagsterInstance) -> bool:
    """Whether Dagster knows a result of a check for a materialization."""
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=20):
        found = record.evaluation
        # A check that is planned has no evaluation yet.
        if not isinstance(found, dg.AssetCheckEvaluation):
            continue
        target = found.target_materialization_data
        if target is not None and target.storage_id == storage_id:
            return True
    return False


def _evaluation(key: dg.AssetCheckKey, check: CheckResult, target: Any) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=check.passed,
        metadata=normalize_metadata(dict(check.metadata), allow_invalid=True),
        target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
            storage_id=target.storage_id, run_id=target.run_id, timestamp=target.timestamp
        ),
        severity=dg.AssetCheckSeverity.WARN if check.severity == "warn" else dg.AssetCheckSeverity.ERROR,
        description=check.description,
        blocking=check.is_blocking,
    )


def _kept(known: Mapping[str, str]) -> dict[str, str]:
    """The provenance of the event before, for a version that no asset made."""
    kinds = (CODE_VERSION_TAG, INPUT_DATA_VERSION_TAG_PREFIX, INPUT_EVENT_POINTER_TAG_PREFIX)
    return {tag: text for tag, text in known.items() if tag.startswith(kinds)}


def _tags(
    known: Mapping[str, str], made: Production, instance: dg.DagsterInstance, registry: DatasetRegistryResource
) -> dict[str, str]:
    """The provenance of an event: inputs are current where the version was built from what the tracked branch has, else not."""
    behind = set()
    for read in made.provenance.inputs:
        head = branches.version_of(registry.registry.dataset(read.dataset), registry.tracked_branch)
        if head is None or head.digest != read.digest:
            origin = _production(registry.registry, head) if head is not None and not read.components else None
            behind.add(origin.provenance.asset_key if origin else None)
    found = {CODE_VERSION_TAG: made.provenance.code_version or made.provenance.run_id or "unknown"}
    for tag in known:
        if not tag.startswith(INPUT_DATA_VERSION_TAG_PREFIX):
            continue
        parent = dg.AssetKey.from_user_string(tag.split("/", maxsplit=2)[-1])
        record = instance.get_latest_data_version_record(parent)
        current = (record.event_log_entry.tags or {}).get(DATA_VERSION_TAG) if record else None
        is_behind = parent.to_user_string() in behind or current is None
        found[get_input_data_version_tag(parent)] = branches.CHANGED if is_behind else str(current)
        found[get_input_event_pointer_tag(parent)] = (
            NULL_EVENT_POINTER if record is None or is_behind else str(record.storage_id)
        )
    return found
