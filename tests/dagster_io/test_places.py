"""Where a resource's relative paths are, whatever directory its process works in, and what its log says of that."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource, describe_assets


@dg.asset
def numbers() -> pa.Table:
    return pa.table({"n": [1, 2]})


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance that keeps what is logged."""
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def logged(resource: DatasetRegistryResource, instance: dg.DagsterInstance) -> list[str]:
    """What the log of a run that uses the resource says of registries."""
    resources = {"registry": resource, "io_manager": DatasetRegistryIOManager(registry=resource)}
    run = dg.materialize([numbers], resources=resources, instance=instance)
    resource.registry.close()
    records = instance.all_logs(run.run_id)
    return [record.user_message for record in records if record.user_message.startswith("Registry: ")]


def test_a_relative_path_is_below_dagster_home_from_every_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    home, here, there = (tmp_path / name for name in ("home", "here", "there"))
    for folder in (home, here, there):
        folder.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    for number, folder in enumerate((here, there), 1):
        monkeypatch.chdir(folder)
        said = logged(DatasetRegistryResource(path="registry"), instance)
        assert f"Registry: {home}/registry{' (new)' if number == 1 else ''}" in said
        assert list(folder.iterdir()) == []
    with Registry.open(home / "registry") as registry:
        assert len(registry.version("numbers").productions) == 2


def test_without_dagster_home_a_relative_path_is_below_the_working_directory_and_logged_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    said = logged(DatasetRegistryResource(path="registry"), instance)
    assert set(said) == {f"Registry: {tmp_path}/registry (new)"}


@pytest.mark.parametrize("given", ["text", "environment"])
def test_a_relative_catalog_and_store_are_below_dagster_home_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance, given: str
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("PLACE", "store")
    monkeypatch.chdir(here)
    store = "store" if given == "text" else dg.EnvVar("PLACE")
    resource = DatasetRegistryResource(catalog="sqlite:///c.sqlite", store=store)
    assert set(logged(resource, instance)) == {f"Registry: sqlite:///{home}/c.sqlite + {home}/store"}
    assert {path.name for path in home.iterdir()} >= {"c.sqlite", "store"}
    assert list(here.iterdir()) == []
    (asset,) = describe_assets([numbers], registry=resource)
    assert asset.metadata_by_key[numbers.key]["dagster/uri"] == f"{home}/store#numbers"


def test_an_absolute_place_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    assert DatasetRegistryResource(path="/srv/registry").location == "/srv/registry"
    assert DatasetRegistryResource(path="https://host").location == "https://host"
    assert DatasetRegistryResource(path="~/registry").location == str(Path("~/registry").expanduser())
    options = DatasetRegistryResource(catalog="postgresql://host/db", store="s3://bucket/prefix?region=us")
    assert options.location == "s3://bucket/prefix?region=us"
    assert DatasetRegistryResource(path=dg.EnvVar("NOT_SET_ANYWHERE")).location == ""
