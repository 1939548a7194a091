"""A pipeline whose registry is a server: the same resource and IO manager, with an address and a token."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from dataset_registry import Registry, Version
from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource, publish_run
from dataset_registry.errors import NotAuthenticated, PermissionDenied
from dataset_registry.model.records import InputVersion
from dataset_registry.remote import contents as remote_contents
from tests import serving
from tests.dagster_io.conftest import BRANCH, data_version, refused, shown

DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-05")


class Remote:
    """Real runs, in this process, with a registry on a server."""

    def __init__(self, served: serving.Served, instance: dg.DagsterInstance) -> None:
        self.served, self.instance = served, instance
        self.resource = self.as_user("pipeline")

    def as_user(self, user: str, **token: Any) -> DatasetRegistryResource:
        return DatasetRegistryResource(path=self.served.url, token=self.served.token(user, **token))

    @property
    def registry(self) -> Registry:
        return self.resource.registry

    def materialize(
        self,
        assets: list[Any],
        *select: str,
        partition: str | None = None,
        branch: str | None = None,
        resource: DatasetRegistryResource | None = None,
    ) -> dg.ExecuteInProcessResult:
        registry = resource or self.resource
        return dg.materialize(
            assets,
            selection=list(select) or None,
            partition_key=partition,
            instance=self.instance,
            tags={BRANCH: branch} if branch else None,
            resources={"io_manager": DatasetRegistryIOManager(registry=registry), "registry": registry},
        )


@pytest.fixture
def remote(
    sqlite_template: Path, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Remote]:
    monkeypatch.setattr(remote_contents, "cache_folder", lambda: tmp_path / "downloads")
    shutil.copy(sqlite_template, tmp_path / "catalog.sqlite")
    place = {"catalog": f"sqlite:///{tmp_path / 'catalog.sqlite'}", "store": str(tmp_path / "store")}
    with serving.in_thread(**place) as served:
        world = Remote(served, instance)
        yield world
        world.registry.close()


@dg.asset(code_version="3")
def orders() -> pl.DataFrame:
    """What was ordered."""
    return pl.DataFrame({"id": [1, 2, 3], "amount": [10.0, 20.0, 5.0]})


@dg.asset
def large_orders(orders: pl.LazyFrame) -> pl.LazyFrame:
    return orders.filter(pl.col("amount") >= 10)


@dg.asset(partitions_def=DAYS)
def daily(context: dg.AssetExecutionContext) -> pa.Table:
    return pa.table({"day": [context.partition_key], "n": [int(context.partition_key[-2:])]})


@dg.asset(partitions_def=DAYS)
def doubled(daily: pd.DataFrame) -> pd.DataFrame:
    return daily.assign(n=daily["n"] * 2)


@dg.asset
def total(daily: dict[str, pa.Table]) -> pa.Table:
    return pa.table({"days": [len(daily)], "n": [sum(table["n"][0].as_py() for table in daily.values())]})


def test_two_assets_become_versions_on_the_server_with_their_lineage(remote: Remote) -> None:
    result = remote.materialize([orders, large_orders])
    version = remote.registry.version("large_orders")
    assert version.to_polars()["id"].to_list() == [1, 2]
    assert (version.number, version.created_by) == (1, "pipeline")
    source = remote.registry.version("orders")
    used = InputVersion("orders", 1, source.digest, "main", label="orders")
    assert list(version.provenance.inputs) == [used]
    assert version.provenance.run_id == result.run_id
    assert source.provenance.code_version == "3"
    assert source.consumers == [("large_orders", 1)]
    assert remote.registry.dataset("orders").description == "What was ordered."
    facts = shown(result, "large_orders")
    assert facts["registry/version"].startswith(f"**[v1]({remote.served.url}/datasets/large_orders@v1)**")
    assert data_version(result, "orders") == source.digest
    assert {entry.interface for entry in remote.served.owner.audit(action="commit")} == {"rest"}


def test_an_unchanged_rerun_makes_no_version_and_is_on_record(remote: Remote) -> None:
    first = remote.materialize([orders, large_orders])
    second = remote.materialize([orders, large_orders])
    assert [v.number for v in remote.registry.dataset("orders").tree()] == [1]
    assert data_version(first, "large_orders") == data_version(second, "large_orders")
    productions = remote.registry.version("large_orders").productions
    assert [(p.unchanged, p.provenance.run_id) for p in productions] == [(False, first.run_id), (True, second.run_id)]


def test_partitions_are_written_one_by_one_and_read_together(remote: Remote) -> None:
    for day in ("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"):
        remote.materialize([daily, doubled], partition=day)
    version = remote.registry.version("doubled")
    assert [c.name for c in version.components] == [f"2024-01-0{day}" for day in (1, 2, 3, 4)]
    assert version.to_arrow()["n"].to_pylist() == [2, 4, 6, 8]
    assert version.number == 4
    remote.materialize([daily, total], "total")
    assert remote.registry.version("total").to_arrow().to_pylist() == [{"days": 4, "n": 10}]
    again = remote.materialize([daily, doubled], partition="2024-01-02")
    assert remote.registry.version("doubled").number == 4
    assert shown(again, "doubled", "2024-01-02")["dagster/partition_row_count"] == 1


def test_a_run_on_a_branch_reads_from_main_what_the_branch_does_not_have(remote: Remote) -> None:
    remote.materialize([orders])
    remote.materialize([orders, large_orders], "large_orders", branch="pr/12")
    dataset = remote.registry.dataset("large_orders")
    assert {branch.name: branch.version_number for branch in dataset.branches()} == {"pr/12": 1}
    (used,) = dataset.version("pr/12").provenance.inputs
    assert (used.ref, used.fallback, used.version) == ("pr/12", "main", 1)


def test_files_and_several_components_come_back_as_they_were_returned(remote: Remote, tmp_path: Path) -> None:
    seen: list[Any] = []

    @dg.asset
    def files() -> dict[str, Any]:
        path = tmp_path / "prices.csv"
        path.write_text("id,price\n1,9.99\n")
        return {"prices": path, "table": pa.table({"n": [1]})}

    @dg.asset
    def look(files: Version) -> None:
        with files.open("prices") as stream:
            seen.append((stream.read(), files.to_arrow("table").to_pydict()))

    remote.materialize([files, look])
    assert seen == [(b"id,price\n1,9.99\n", {"n": [1]})]


def test_a_token_comes_from_the_environment_and_may_do_what_its_user_may(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASET_REGISTRY_TOKEN", remote.served.token("nightly"))
    secret = DatasetRegistryResource(path=remote.served.url, token=dg.EnvVar("DATASET_REGISTRY_TOKEN"))
    assert remote.materialize([orders], resource=secret).success
    assert remote.served.owner.version("orders").created_by == "nightly"
    reader = remote.as_user("nightly", permission="read")
    with refused(PermissionDenied, "orders"):
        remote.materialize([orders], resource=reader)
    with refused(NotAuthenticated, "token"):
        remote.materialize([orders], resource=DatasetRegistryResource(path=remote.served.url, token="dr_unknown"))


def test_runs_on_two_branches_at_once_do_not_get_in_each_others_way(remote: Remote) -> None:
    for branch in ("one", "two", "one"):
        remote.materialize([orders, large_orders], branch=branch)
    dataset = remote.registry.dataset("orders")
    assert {branch.name: branch.version_number for branch in dataset.branches()} == {"one": 1, "two": 2}


def test_side_runs_are_published_over_rest(remote: Remote) -> None:
    @dg.asset_check(asset=orders, blocking=True)
    def positive(orders: pl.DataFrame) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=bool((orders["amount"] > 0).all()))

    result = remote.materialize([orders, large_orders, positive], branch="run/{run_id}")
    done = publish_run(result.run_id, instance=remote.instance, registry=remote.resource)
    assert [head.dataset for head in done.heads] == ["orders", "large_orders"]
    assert [check.name for check in remote.registry.version("orders@main").checks] == ["positive"]
