"""The code location `dagster_assets`: `dagster dev -w workspace.yaml` or `dg dev`.

Where things are: the environment variables `DATASET_REGISTRY_CATALOG` and `DATASET_REGISTRY_STORE` for a registry on
PostgreSQL; else everything is in the folder `.demo` of the checkout (`DATASET_REGISTRY_DEMO` names another).
"""

import os
from pathlib import Path

import dagster as dg

from dagster_assets import analytics, clean, raw, reports
from dagster_assets.deliveries import Deliveries
from dataset_registry.dagster_io import (
    DatasetRegistryIOManager,
    DatasetRegistryResource,
    build_tag_schedule,
    describe_assets,
)

HOME = Path(os.environ.get("DATASET_REGISTRY_DEMO") or Path(__file__).parent.parent / ".demo").absolute()

if catalog := os.environ.get("DATASET_REGISTRY_CATALOG"):
    registry = DatasetRegistryResource(
        catalog=catalog, store=os.environ.get("DATASET_REGISTRY_STORE") or str(HOME / "registry")
    )
else:
    registry = DatasetRegistryResource(path=str(HOME / "registry"))

nightly_tags = build_tag_schedule(
    name="nightly_tags",
    cron_schedule="0 6 * * *",
    datasets=["clean/*", "analytics/*", "reports/*"],
    template="nightly-{date}",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

defs = dg.Definitions(
    assets=describe_assets(dg.load_assets_from_modules([raw, clean, analytics, reports]), registry=registry),
    asset_checks=dg.load_asset_checks_from_modules([analytics, clean]),
    schedules=[nightly_tags],
    resources={
        "registry": registry,
        "io_manager": DatasetRegistryIOManager(registry=registry),
        "deliveries": Deliveries(folder=str(HOME / "deliveries")),
    },
)
