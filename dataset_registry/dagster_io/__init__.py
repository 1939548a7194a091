"""Dagster on the registry: a resource, an IO manager, schedules. Knows Dagster and the registry's public surface."""

from dagster._core.libraries import DagsterLibraryRegistry

import dataset_registry
from dataset_registry.dagster_io.asset_checks import (
    build_drift_checks,
    build_freshness_checks,
    build_key_checks,
    build_reference_checks,
    build_row_count_checks,
    build_schema_checks,
)
from dataset_registry.dagster_io.conditions import inputs_changed
from dataset_registry.dagster_io.definitions import describe_assets
from dataset_registry.dagster_io.factories import build_observable_assets, build_observation_job, build_sql_asset
from dataset_registry.dagster_io.io_manager import DatasetRegistryIOManager
from dataset_registry.dagster_io.openlineage import build_openlineage_sensor, openlineage_events
from dataset_registry.dagster_io.publishing import (
    PublishedRun,
    SettledRun,
    publish_run,
    report_moves,
    settle_run,
)
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.dagster_io.schedules import (
    build_branch_schedule,
    build_collect_schedule,
    build_retention_schedule,
    build_tag_schedule,
    build_verify_schedule,
)
from dataset_registry.dagster_io.sensors import (
    build_branch_sensor,
    build_publish_job,
    build_publish_sensor,
    build_wipe_sensor,
)

__all__ = [
    "DatasetRegistryIOManager",
    "DatasetRegistryResource",
    "PublishedRun",
    "SettledRun",
    "build_branch_schedule",
    "build_branch_sensor",
    "build_collect_schedule",
    "build_drift_checks",
    "build_freshness_checks",
    "build_key_checks",
    "build_observable_assets",
    "build_observation_job",
    "build_openlineage_sensor",
    "build_publish_job",
    "build_publish_sensor",
    "build_reference_checks",
    "build_retention_schedule",
    "build_row_count_checks",
    "build_schema_checks",
    "build_sql_asset",
    "build_tag_schedule",
    "build_verify_schedule",
    "build_wipe_sensor",
    "describe_assets",
    "inputs_changed",
    "openlineage_events",
    "publish_run",
    "report_moves",
    "settle_run",
]

DagsterLibraryRegistry.register("dataset-registry", dataset_registry.__version__, is_dagster_package=False)
