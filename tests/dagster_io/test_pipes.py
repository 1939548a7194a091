"""Dagster Pipes: another process reads and commits, and Dagster and the registry know."""

import sys
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.data_version import StaleStatus

from dataset_registry.dagster_io import DatasetRegistryResource
from dataset_registry.errors import InputError
from dataset_registry.pipes import open_registry
from tests.dagster_io.conftest import World, data_version, shown
from tests.dagster_io.test_side_runs import statuses

SCRIPT = """
    from dagster_pipes import open_dagster_pipes

    from dataset_registry.pipes import open_registry

    with open_dagster_pipes() as pipes, open_registry(pipes) as registry:
        numbers = registry.version("numbers").to_arrow()
        registry.commit("doubled", numbers.append_column("twice", [[2 * n.as_py() for n in numbers["n"]]]), key="n")
"""


@dg.asset
def numbers():
    return pa.table({"n": [1, 2]})


@pytest.fixture
def doubled(tmp_path: Path) -> dg.AssetsDefinition:
    script = tmp_path / "double.py"
    script.write_text(dedent(SCRIPT))

    @dg.asset(deps=[numbers], code_version="7")
    def doubled(context: dg.AssetExecutionContext, registry: DatasetRegistryResource):
        client = dg.PipesSubprocessClient()
        return client.run(
            context=context, command=[sys.executable, str(script)], **registry.for_pipes(context)
        ).get_materialize_result()

    return doubled


def test_an_external_process_commits_with_the_lineage_of_the_run(fresh: World, doubled: Any) -> None:
    result = fresh.materialize([numbers, doubled])
    version = fresh.version("doubled")
    assert version.to_arrow()["twice"].to_pylist() == [2, 4]
    made = version.provenance
    assert (made.run_id, made.step, made.asset_key, made.code_version) == (result.run_id, "doubled", "doubled", "7")
    assert [(read.dataset, read.version, read.ref) for read in made.inputs] == [("numbers", 1, "main")]
    assert data_version(result, "doubled") == version.digest
    facts = shown(result, "doubled")
    assert (facts["registry/version_number"], facts["registry/branch"], facts["dagster/row_count"]) == (1, "main", 2)
    assert fresh.registry.run(result.run_id).read[0].dataset == "numbers"


def test_a_side_run_of_an_external_process_stays_on_its_branch(fresh: World, doubled: Any) -> None:
    assets = [numbers, doubled]
    fresh.materialize(assets)
    fresh.registry.dataset("numbers").commit({"data": pa.table({"n": [5]})}, branch="exp", fallback="main")
    result = fresh.materialize(assets, "doubled", branch="exp")
    version = fresh.version("doubled@exp")
    assert version.to_arrow()["twice"].to_pylist() == [10]
    assert [(read.ref, read.fallback) for read in version.provenance.inputs] == [("exp", None)]
    assert fresh.version("doubled").number == 1
    assert data_version(result, "doubled") == fresh.version("doubled").digest
    definitions = dg.Definitions(assets=assets, resources=fresh.resources())
    assert statuses(fresh.instance, definitions, ["numbers", "doubled"]) == [StaleStatus.FRESH, StaleStatus.FRESH]


def test_no_secret_travels_in_the_extras(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setenv("PLACE", "postgresql+psycopg://me:hunter2@localhost/catalog")

    @dg.asset
    def asset(context: dg.AssetExecutionContext, remote: DatasetRegistryResource):
        seen.update(remote.for_pipes(context))
        return dg.MaterializeResult()

    remote = DatasetRegistryResource(catalog=dg.EnvVar("PLACE"), store=str(fresh.folder))
    dg.materialize([asset], instance=fresh.instance, resources={**fresh.resources(), "remote": remote})
    assert "hunter2" not in str(seen["extras"])
    assert seen["env"]["DATASET_REGISTRY_CATALOG"].endswith("/catalog")


def test_a_process_without_a_session_is_told_what_to_pass() -> None:
    with pytest.raises(InputError, match="for_pipes"):
        open_registry(SimpleNamespace(extras={}))  # type: ignore[arg-type]
