"""The publish job, the sensor that requests it for runs that end, and the sensor that follows a branch."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import dagster as dg
from dagster._core.event_api import RunStatusChangeEventType, RunStatusChangeRecordsFilter

from dataset_registry.dagster_io import branches as branching
from dataset_registry.dagster_io import metadata
from dataset_registry.dagster_io.publishing import SettledRun, moved_events, publish_run, settle_run
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.dataset import Dataset
from dataset_registry.errors import ConflictError, NotFound, RegistryError
from dataset_registry.model.names import several
from dataset_registry.model.partitions import partition_key
from dataset_registry.version import Version

_ENDS: tuple[RunStatusChangeEventType, ...] = (
    dg.DagsterEventType.RUN_SUCCESS,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_CANCELED,
)


# --- publishing runs ---------------------------------------------------------------------------------------------------


class PublishConfig(dg.Config):
    """A run to publish. `into` is the branch to publish into, by default the tracked branch."""

    run_id: str
    into: str | None = None
    allow_moved_inputs: bool = False


def build_publish_job(*, name: str = "registry_publish", resource_key: str = "registry") -> dg.JobDefinition:
    """A job that publishes a run: `{"ops": {"<name>_op": {"config": {"run_id": "…"}}}}`.

    The job fails if the run may not be published, and nothing is published then.
    """

    @dg.op(name=f"{name}_op", required_resource_keys={resource_key}, out=dg.Out(dg.Nothing))
    def publish(context: dg.OpExecutionContext, config: PublishConfig) -> None:
        resource: DatasetRegistryResource = getattr(context.resources, resource_key)
        done = publish_run(
            config.run_id,
            instance=context.instance,
            registry=resource,
            into=config.into,
            allow_moved_inputs=config.allow_moved_inputs,
        )
        for head in done.heads:
            context.log.info(f"{head} is published")
        context.add_output_metadata(
            {
                "registry/published": ", ".join(map(str, done.heads)) or "nothing: it is up to date",
                "registry/run": config.run_id,
            }
        )

    @dg.job(name=name, description="Publishes what a run wrote to its branch, if the run and its checks succeeded.")
    def publish_job() -> None:
        publish()

    return publish_job


def build_publish_sensor(
    *,
    job: dg.JobDefinition,
    branches: str | Sequence[str] = "run/*",
    name: str = "registry_publish_sensor",
    minimum_interval_seconds: int | None = None,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    resource_key: str = "registry",
) -> dg.SensorDefinition:
    """A sensor that settles every run that ends, and requests `job` (see `build_publish_job`) for each run that succeeded, has no
    red blocking check, and wrote to a branch that matches `branches`.

    Each run is handled once. Runs that ended before the sensor was started are not.
    """
    patterns = several(branches)

    @dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        description=f"Publishes runs on {', '.join(patterns)} that succeeded, with green blocking checks.",
    )
    def publish_sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        resource: DatasetRegistryResource = getattr(context.resources, resource_key)
        cursor: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
        requested = 0
        for storage_id, kind, run_id in ended_runs(context.instance, cursor):
            try:
                settled = settle_run(run_id, instance=context.instance, registry=resource)
            except NotFound:
                settled = None
            if settled is not None and _may_publish(settled, patterns, resource):
                config = dg.RunConfig(ops={f"{job.name}_op": PublishConfig(run_id=run_id)})
                requested += 1
                yield dg.RunRequest(run_key=f"{name}:{run_id}", run_config=config)
            cursor[kind] = max(storage_id, cursor.get(kind, 0))
        context.update_cursor(json.dumps(cursor))
        if not requested:
            yield dg.SkipReason("No run to publish has ended.")

    return publish_sensor


def ended_runs(instance: dg.DagsterInstance, cursor: dict[str, int]) -> list[tuple[int, str, str]]:
    """The ends of runs since the cursor: storage id, kind, run. Without one, the cursor is set to the newest."""
    found = []
    for kind in _ENDS:
        if kind.value not in cursor:
            newest = instance.fetch_run_status_changes(kind, limit=1).records
            cursor[kind.value] = newest[0].storage_id if newest else 0
            continue
        wanted = RunStatusChangeRecordsFilter(kind, after_storage_id=cursor[kind.value])
        for record in instance.fetch_run_status_changes(wanted, limit=100, ascending=True).records:
            found.append((record.storage_id, kind.value, record.run_id))
    return sorted(found)


def _may_publish(settled: SettledRun, patterns: Sequence[str], registry: DatasetRegistryResource) -> bool:
    tracked = registry.tracked_branch
    wrote = {
        branch: names
        for branch, names in settled.wrote.items()
        if branch != tracked and any(fnmatchcase(branch, pattern) for pattern in patterns)
    }
    if not settled.succeeded or not wrote:
        return False
    try:
        return not any(
            registry.registry.dataset(name).version(branch).taints for branch, names in wrote.items() for name in names
        )
    except (NotFound, ConflictError):
        return False


# --- following a branch ------------------------------------------------------------------------------------------------


def build_branch_sensor(
    *,
    datasets: str | Sequence[str] = "*",
    job: Any = None,
    name: str = "registry_branch_sensor",
    prefix: str = "",
    minimum_interval_seconds: int | None = None,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    resource_key: str = "registry",
) -> dg.SensorDefinition:
    """A sensor that reports a materialization for each asset whose dataset got other content on the tracked branch in a way that
    Dagster does not see: a commit over REST or the command line, a merge, another instance.

    With `job`, it also requests a run of the job for each such change. `datasets` are patterns of names, `prefix` is that of the
    IO manager. Events and cursor are written together, so that no change is lost or repeated; of several changes of one dataset
    between two ticks, the last one counts.
    """
    patterns = several(datasets)

    @dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        description=f"Reports what changed in {', '.join(patterns)} outside of Dagster.",
    )
    def branch_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        resource: DatasetRegistryResource = getattr(context.resources, resource_key)
        assert context.repository_def is not None, "a sensor of a code location"
        keys = metadata.assets_of(context.repository_def.asset_graph, prefix)
        seen: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
        events: list[dg.AssetMaterialization] = []
        requests = []
        for dataset in resource.registry.datasets():
            key = keys.get(dataset.name)
            if key is None or not any(fnmatchcase(dataset.name, pattern) for pattern in patterns):
                continue
            head = branching.version_of(dataset, resource.tracked_branch)
            if head is None or seen.get(dataset.name) == head.number:
                continue
            found = moved_events(key, head, instance=context.instance, registry=resource)
            events += found
            if found and job is not None:
                requests.append(dg.RunRequest(run_key=f"{name}:{dataset.name}@v{head.number}"))
            seen[dataset.name] = head.number
        return dg.SensorResult(run_requests=requests, asset_events=events, cursor=json.dumps(seen))

    return branch_sensor


# --- wiping ------------------------------------------------------------------------------------------------------------


def build_wipe_sensor(
    *,
    datasets: str | Sequence[str],
    name: str = "registry_wipe_sensor",
    prefix: str = "",
    io_manager_key: str = "io_manager",
    minimum_interval_seconds: int | None = None,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    resource_key: str = "registry",
) -> dg.SensorDefinition:
    """A sensor that wipes the data of assets, or of partitions, that were wiped in Dagster: the tracked branch gets a version
    without them. Earlier versions keep the data until they expire.

    `datasets` are patterns of the names whose data is wiped, of assets that the IO manager stores; other data is kept. What was
    written since the wipe is left alone. Each wipe is handled once; those before the sensor was started are not.
    """
    patterns = several(datasets)

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        description=f"Wipes the data of {', '.join(patterns)} that is wiped in Dagster.",
    )
    def wipe_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        resource: DatasetRegistryResource = getattr(context.resources, resource_key)
        assert context.repository_def is not None, "a sensor of a code location"
        if context.cursor is None:
            newest = _wipes(context.instance, None, limit=1, ascending=False)
            context.update_cursor(str(newest[0].storage_id if newest else 0))
            return dg.SkipReason("Nothing was wiped.")
        keys = _stored_assets(context.repository_def.asset_graph, prefix, io_manager_key)
        done = []
        for record in _wipes(context.instance, int(context.cursor)):
            event = record.event_log_entry.dagster_event
            assert event is not None, "an event of Dagster"
            dataset = keys.get(event.asset_key)
            if dataset is not None and any(fnmatchcase(dataset, pattern) for pattern in patterns):
                at = datetime.fromtimestamp(record.timestamp, UTC)
                done += _wiped(resource, dataset, list(event.asset_wiped_data.partition_keys or ()), at)
            context.update_cursor(str(record.storage_id))
        return dg.SkipReason("; ".join(done) or "Nothing was wiped.")

    return wipe_sensor


def _stored_assets(graph: Any, prefix: str, io_manager_key: str) -> dict[dg.AssetKey, str]:
    """The datasets of the assets that an IO manager stores."""
    return {
        key: prefix + metadata.dataset_name(key, graph.get(key).metadata)
        for key in graph.materializable_asset_keys
        if graph.get(key).assets_def.get_io_manager_key_for_asset_key(key) == io_manager_key
    }


def _wipes(
    instance: dg.DagsterInstance, after: int | None, *, limit: int = 1000, ascending: bool = True
) -> Sequence[Any]:
    """The events of wiped assets."""
    wanted = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_WIPED, after_cursor=after)
    return instance.event_log_storage.get_event_records(wanted, limit=limit, ascending=ascending)


def _wiped(resource: DatasetRegistryResource, name: str, partitions: Sequence[str], at: datetime) -> list[str]:
    """Commit a version without content, or without partitions. Returns what the sensor says of it, if it did anything."""
    branch = resource.tracked_branch
    try:
        dataset = resource.registry.dataset(name)
        head = dataset.version(branch)
        asked: Sequence[str | None] = partitions or [None]
        gone = [key for key in asked if not _is_written_since(dataset, head, key, at)]
        if not gone or not head.component_count:
            return []
        what = f"partitions {', '.join(map(str, gone[:5]))}" if partitions else "all content"
        with resource.registry.draft(name, branch, message=f"Wiped in Dagster: {what}", overwrite=True) as draft:
            for key in gone:
                if key is None:
                    draft.clear()
                else:
                    draft.clear_partition(partition_key(key))
    except NotFound:
        return []
    except RegistryError as error:  # such as a protected branch: the next wipe is handled all the same
        return [f"{name} was not wiped: {error}"]
    return [] if draft.result.unchanged else [f"Wiped: {name}"]


def _is_written_since(dataset: Dataset, head: Version, partition: str | None, at: datetime) -> bool:
    """Whether a dataset, or one of its partitions, was written after a moment, also if that changed nothing."""
    later = [made for made in head.productions if made.created_at > at]
    if partition is None:
        return head.created_at > at or bool(later)
    if any(made.provenance.partition in (None, partition) for made in later):
        return True
    before = next((version for version in dataset.log(f"v{head.number}") if version.created_at <= at), None)
    return branching.digest_of(before, [partition]) != branching.digest_of(head, [partition])
