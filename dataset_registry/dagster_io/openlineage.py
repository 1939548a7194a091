"""OpenLineage: what runs read and wrote, as events for other catalogs of lineage (https://openlineage.io/spec/2-0-2).

Each step of a run is a run of its own whose parent is the run of the Dagster job. Its datasets are those of the registry, by
their names in a namespace, which is the registry's location; a version is the facet `version`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import dagster as dg

from dataset_registry import __version__
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.dagster_io.sensors import ended_runs
from dataset_registry.errors import NotFound
from dataset_registry.model.extras import require
from dataset_registry.model.records import InputVersion, Production
from dataset_registry.model.schema import Column
from dataset_registry.registry import Registry
from dataset_registry.version import Version

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

PRODUCER = f"pkg:pypi/dataset-registry@{__version__}"
_NAMESPACE = UUID("3a5bd0a2-6c6e-5a0e-9d54-0d0a6d3c0b63")
"""Of the ids of steps, and of runs whose id is no UUID."""

Times = Mapping[str, tuple[datetime | None, datetime | None]]
"""When steps started and ended."""


def openlineage_events(
    run_id: str,
    *,
    registry: Registry,
    succeeded: bool = True,
    namespace: str = "dagster",
    dataset_namespace: str = "dataset-registry",
    times: Times | None = None,
) -> "list[RunEvent]":
    """The events of a run: for each step that wrote versions a START, and a COMPLETE or FAIL.

    The outputs have the facets `schema`, `version`, `columnLineage`, `storage` and `outputStatistics`; the inputs have `schema`,
    `version`, `inputStatistics`, and of the results of checks `dataQualityAssertions`. `namespace` is that of jobs. Raises
    `NotFound` if the run wrote nothing.
    """
    require("openlineage", "lineage", "openlineage_events()")
    steps: dict[str, list[tuple[Version, Production]]] = {}
    for wrote in registry.run(run_id).wrote:
        version = registry.dataset(wrote.dataset).version(f"v{wrote.version}")
        for production in version.productions:
            if production.provenance.run_id == run_id:
                steps.setdefault(production.provenance.step or "run", []).append((version, production))
    found = []
    for step, made in steps.items():
        start, end = (times or {}).get(step, (None, None))
        moments = [production.created_at for _, production in made]
        described = _Step(registry, run_id, step, made, namespace, dataset_namespace)
        found.append(described.event("START", start or min(moments)))
        found.append(described.event("COMPLETE" if succeeded else "FAIL", end or max(moments)))
    return found


class _Step:
    """A step of a run and its versions."""

    def __init__(
        self,
        registry: Registry,
        run_id: str,
        step: str,
        made: Sequence[tuple[Version, Production]],
        namespace: str,
        dataset_namespace: str,
    ) -> None:
        self._registry = registry
        self._run = run_id
        self._step = step
        self._made = made
        self._namespace = namespace
        self._datasets = dataset_namespace

    def event(self, kind: str, at: datetime) -> "RunEvent":
        """An event; what was read and written is in that of the end."""
        from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import job_type_job, parent_run, processing_engine_run

        job = str(self._made[0][1].provenance.metadata.get("job", self._step))
        facets = {
            "parent": parent_run.ParentRunFacet(
                parent_run.Run(_uuid(self._run)), parent_run.Job(self._namespace, job), producer=PRODUCER
            ),
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                dg.__version__, "Dagster", __version__, producer=PRODUCER
            ),
        }
        is_end = kind != "START"
        reads = {(read.dataset, read.version): read for _, made in self._made for read in made.provenance.inputs}
        return RunEvent(
            eventTime=at.replace(tzinfo=at.tzinfo or UTC).isoformat(),
            eventType=RunState[kind],
            producer=PRODUCER,
            run=Run(str(uuid5(_NAMESPACE, f"{self._run}/{self._step}")), facets),
            job=Job(
                self._namespace,
                f"{job}.{self._step}",
                {"jobType": job_type_job.JobTypeJobFacet("BATCH", "DAGSTER", "OP", producer=PRODUCER)},
            ),
            inputs=[self._input(read) for read in reads.values()] if is_end else [],
            outputs=[self._output(version) for version, _ in self._made] if is_end else [],
        )

    def _input(self, read: InputVersion) -> "InputDataset":
        from openlineage.client.event_v2 import InputDataset
        from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality
        from openlineage.client.facet_v2 import input_statistics_input_dataset as statistics

        try:
            version = self._registry.dataset(read.dataset).version(f"v{read.version}")
        except NotFound:
            return InputDataset(self._datasets, read.dataset, facets=_version_facet(read.version))
        facets: dict[str, Any] = {
            "inputStatistics": statistics.InputStatisticsInputDatasetFacet(**_counts(version), producer=PRODUCER)
        }
        if checks := version.checks:
            facets["dataQualityAssertions"] = quality.DataQualityAssertionsDatasetFacet(
                [
                    quality.Assertion(check.name, check.passed, severity=check.severity, name=check.label)
                    for check in checks
                ],
                producer=PRODUCER,
            )
        return InputDataset(self._datasets, read.dataset, facets, facets=_facets(version))

    def _output(self, version: Version) -> "OutputDataset":
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.facet_v2 import column_lineage_dataset as lineage
        from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

        facets = _facets(version)
        if found := version.column_lineage:
            facets["columnLineage"] = lineage.ColumnLineageDatasetFacet(
                {
                    column: lineage.Fields([lineage.InputField(self._datasets, s.dataset, s.column) for s in sources])
                    for column, sources in found.items()
                },
                producer=PRODUCER,
            )
        counts = statistics.OutputStatisticsOutputDatasetFacet(**_counts(version), producer=PRODUCER)
        return OutputDataset(self._datasets, version.dataset, {"outputStatistics": counts}, facets=facets)


def _facets(version: Version) -> dict[str, Any]:
    from openlineage.client.facet_v2 import schema_dataset, storage_dataset

    facets = _version_facet(version.number)
    if columns := version.schema.columns:
        facets["schema"] = schema_dataset.SchemaDatasetFacet([*map(_field, columns)], producer=PRODUCER)
    formats = {component.format.partition(";")[0] for component in version.components}
    facets["storage"] = storage_dataset.StorageDatasetFacet(
        "dataset-registry", formats.pop() if len(formats) == 1 else None, producer=PRODUCER
    )
    return facets


def _version_facet(number: int) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(f"v{number}", producer=PRODUCER)}


def _field(column: Column) -> Any:
    from openlineage.client.facet_v2 import schema_dataset

    return schema_dataset.SchemaDatasetFacetFields(column.name, column.type, fields=[*map(_field, column.fields)])


def _counts(version: Version) -> dict[str, int | None]:
    return {
        "rowCount": version.schema.rows,
        "size": sum(component.size for component in version.components),
        "fileCount": version.component_count,
    }


def _uuid(run_id: str) -> str:
    try:
        return str(UUID(run_id))
    except ValueError:
        return str(uuid5(_NAMESPACE, run_id))


# --- emitting ----------------------------------------------------------------------------------------------------------


def build_openlineage_sensor(
    *,
    client: "OpenLineageClient | None" = None,
    namespace: str = "dagster",
    dataset_namespace: str | None = None,
    name: str = "registry_openlineage_sensor",
    minimum_interval_seconds: int | None = None,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
    resource_key: str = "registry",
) -> dg.SensorDefinition:
    """A sensor that emits the events of each run that ends and wrote to the registry (see `openlineage_events`).

    Without a `client`, it is configured as OpenLineage documents it: `OPENLINEAGE_URL`, or the file that `OPENLINEAGE_CONFIG`
    names. `dataset_namespace` is the location of the registry by default. If the receiver fails, the events are emitted again by
    the next tick.
    """
    require("openlineage", "lineage", "build_openlineage_sensor()")

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        description="Emits OpenLineage events of what runs read and wrote.",
    )
    def openlineage_sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.SkipReason]:
        from openlineage.client import OpenLineageClient

        resource: DatasetRegistryResource = getattr(context.resources, resource_key)
        receiver = client or OpenLineageClient()
        cursor: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
        emitted = 0
        for storage_id, kind, run_id in ended_runs(context.instance, cursor):
            try:
                events = openlineage_events(
                    run_id,
                    registry=resource.registry,
                    succeeded=kind == dg.DagsterEventType.RUN_SUCCESS.value,
                    namespace=namespace,
                    dataset_namespace=dataset_namespace or resource.location,
                    times=_times(context.instance, run_id),
                )
            except NotFound:  # it wrote nothing, or what it wrote was deleted
                events = []
            for event in events:
                receiver.emit(event)
            emitted += len(events)
            cursor[kind] = max(storage_id, cursor.get(kind, 0))
            context.update_cursor(json.dumps(cursor))
        context.update_cursor(json.dumps(cursor))
        yield dg.SkipReason(f"{emitted} events" if emitted else "No run that wrote to the registry has ended.")

    return openlineage_sensor


def _times(instance: dg.DagsterInstance, run_id: str) -> Times:
    def moment(seconds: float | None) -> datetime | None:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    return {
        stats.step_key: (moment(stats.start_time), moment(stats.end_time))
        for stats in instance.get_run_step_stats(run_id)
    }
