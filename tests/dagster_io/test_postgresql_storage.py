"""An unmodified Dagster keeps its own storage in the registry's PostgreSQL database."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import polars as pl
import pytest
import sqlalchemy

from dataset_registry import Registry
from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource

DELIVERED = Path(__file__).parent.parent.parent / "deploy" / "postgresql" / "dagster.yaml"
NAMES = {"hostname": "HOST", "port": "PORT", "db_name": "DB", "username": "USER", "password": "PASSWORD"}
PLAIN = "storage:\n  postgres:\n    postgres_db:\n" + "".join(
    f"      {option}:\n        env: DAGSTER_POSTGRES_{name}\n" for option, name in NAMES.items()
)
FAILS_ON_2_1 = pytest.mark.xfail(
    not sqlalchemy.__version__.startswith("2.0."),
    reason="dagster #33958: SQLAlchemy 2.1 reads a URL without a driver as psycopg 3",
    strict=True,
)


@dg.asset
def orders() -> pl.DataFrame:
    return pl.DataFrame({"id": [1, 2, 3], "amount": [10.0, 20.0, 5.0]})


@dg.asset
def large_orders(orders: pl.LazyFrame) -> pl.LazyFrame:
    return orders.filter(pl.col("amount") >= 10)


@pytest.fixture
def instance(
    postgresql_catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], dg.DagsterInstance]]:
    """Opens the instance of a dagster.yaml, on the database of the catalog."""
    parts = urlsplit(postgresql_catalog)
    values = (parts.hostname, str(parts.port), parts.path[1:], parts.username, parts.password)
    for name, value in zip(NAMES.values(), values, strict=True):
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", str(value))
    opened: list[dg.DagsterInstance] = []

    def open_instance(configuration: str) -> dg.DagsterInstance:
        (tmp_path / "dagster.yaml").write_text(configuration)
        opened.append(dg.DagsterInstance.from_config(str(tmp_path)))
        return opened[-1]

    yield open_instance
    for found in opened:
        found.dispose()


@pytest.mark.parametrize(
    "configuration",
    [
        pytest.param(DELIVERED.read_text(), id="delivered"),
        pytest.param(PLAIN + "telemetry:\n  enabled: false\n", id="plain", marks=FAILS_ON_2_1),
    ],
)
def test_dagster_and_the_registry_share_a_database(
    configuration: str, instance: Callable[[str], dg.DagsterInstance], postgresql_catalog: str, tmp_path: Path
) -> None:
    resource = DatasetRegistryResource(catalog=postgresql_catalog, store=str(tmp_path / "store"), actor="alice")
    resources = {"registry": resource, "io_manager": DatasetRegistryIOManager(registry=resource)}
    opened = instance(configuration)
    for _ in range(2):
        assert dg.materialize([orders, large_orders], instance=opened, resources=resources).success
    event = opened.get_latest_materialization_event(dg.AssetKey("large_orders"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["registry/version_number"].value == 1
    assert len(opened.get_runs()) == 2
    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path / "store"), actor="alice") as registry:
        version = registry.version("large_orders")
        assert version.number == 1
        assert version.to_polars()["id"].to_list() == [1, 2]
        assert [str(read.dataset) for read in version.provenance.inputs] == ["orders"]


def test_a_catalog_url_may_go_without_a_driver(postgresql_catalog: str, tmp_path: Path) -> None:
    url = postgresql_catalog.replace("+psycopg", "")
    with Registry.open(catalog=url, store=str(tmp_path / "store"), actor="alice") as registry:
        assert list(registry.datasets()) == []
