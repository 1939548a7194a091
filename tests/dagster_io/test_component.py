"""The component for `dg`: listed, scaffolded, and loaded from the YAML of the guide."""

import os
import re
import subprocess
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import yaml
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing import create_defs_folder_sandbox

from dataset_registry.dagster_io.components import DatasetRegistryComponent
from dataset_registry.registry import Registry

GUIDE = Path(__file__).parents[2] / "docs" / "dagster.md"


def of_the_guide(**attributes: Any) -> dict[str, Any]:
    (text,) = re.findall(r"```yaml\n(type: .*?)```", GUIDE.read_text(), re.DOTALL)
    found: dict[str, Any] = yaml.safe_load(text)
    found["attributes"] |= attributes
    return found


@dg.asset
def orders() -> pa.Table:
    return pa.table({"n": [1, 2]})


def test_dg_finds_the_component() -> None:
    modules = [found.value for found in entry_points(group="dagster_dg_cli.registry_modules")]
    assert DatasetRegistryComponent.__module__ in modules


def test_what_is_scaffolded_loads_and_has_the_resources() -> None:
    with create_defs_folder_sandbox() as sandbox:
        sandbox.scaffold_component(DatasetRegistryComponent, defs_path="registry")
        with sandbox.build_all_defs() as defs:
            assert set(defs.resources or {}) == {"registry", "io_manager"}
            assert not defs.schedules
            assert not defs.sensors


def test_the_yaml_of_the_guide_materializes_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY", str(tmp_path / "registry"))
    body = of_the_guide(path="{{ env.REGISTRY }}", branch="run/{run_id}")
    with create_defs_folder_sandbox() as sandbox:
        sandbox.scaffold_component(DatasetRegistryComponent, defs_path="registry", defs_yaml_contents=body)
        with sandbox.build_all_defs() as loaded:
            defs = dg.Definitions.merge(loaded, dg.Definitions(assets=[orders]))
            repository = defs.get_repository_def()
            assert {found.name for found in repository.schedule_defs} == {
                "registry_tags",
                "registry_retention",
                "registry_branches",
            }
            sensors = {found.name for found in repository.sensor_defs}
            assert sensors == {"registry_publish_sensor", "registry_branch_sensor"}
            result = defs.get_implicit_global_asset_job_def().execute_in_process()
    with Registry.open(tmp_path / "registry") as registry:
        (branch,) = registry.dataset("orders").branches()
        assert branch.name == f"run/{result.run_id}"


@pytest.mark.parametrize(
    ("attributes", "match"),
    [
        ({"pth": "x"}, "pth"),
        ({"retention": {"rules": [{"lst": 1}]}}, "lst"),
        ({"branch": "run/{run}"}, "unknown placeholder {run}"),
    ],
)
def test_a_mistake_in_the_yaml_is_named(attributes: dict[str, Any], match: str) -> None:
    body = of_the_guide(**attributes)
    with create_defs_folder_sandbox() as sandbox:
        sandbox.scaffold_component(DatasetRegistryComponent, defs_path="registry", defs_yaml_contents=body)
        with pytest.raises(ComponentTreeException) as caught, sandbox.build_all_defs() as defs:
            defs.get_repository_def()
    assert match in "".join(traceback.format_exception(caught.value))


PROJECT = {
    "pyproject.toml": """
        [project]
        name = "shop"
        version = "0.1.0"

        [tool.dg]
        directory_type = "project"

        [tool.dg.project]
        root_module = "shop"
    """,
    "src/shop/__init__.py": "",
    "src/shop/definitions.py": """
        from pathlib import Path

        from dagster import definitions, load_from_defs_folder


        @definitions
        def defs():
            return load_from_defs_folder(path_within_project=Path(__file__).parent)
    """,
    "src/shop/defs/orders.py": """
        import dagster as dg
        import pyarrow as pa


        @dg.asset
        def orders() -> pa.Table:
            return pa.table({"n": [1, 2]})
    """,
}


@pytest.mark.long
def test_a_project_elsewhere_lists_scaffolds_checks_and_materializes_with_the_commands_of_dg(tmp_path: Path) -> None:
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(dedent(text))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")

    def run(*command: str) -> str:
        place = {"PYTHONPATH": "src", "DAGSTER_HOME": str(tmp_path / "home"), "REGISTRY": str(tmp_path / "registry")}
        done = subprocess.run(
            [Path(sys.executable).parent / "dg", *command],
            cwd=tmp_path,
            env={**os.environ, **place, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    component = f"{DatasetRegistryComponent.__module__}.{DatasetRegistryComponent.__name__}"
    assert component in re.sub(r"[\s│]+", "", run("list", "components"))
    run("scaffold", "defs", component, "registry")
    written = tmp_path / "src" / "shop" / "defs" / "registry" / "defs.yaml"
    assert yaml.safe_load(written.read_text()) == {"type": component, "attributes": {}}
    written.write_text(yaml.safe_dump({"type": component, "attributes": {"path": "{{ env.REGISTRY }}"}}))
    assert "validated successfully" in run("check", "yaml")
    assert "loaded successfully" in run("check", "defs")
    assert "io_manager" in run("list", "defs")
    assert "RUN_SUCCESS" in run("launch", "--assets", "orders")
    with Registry.open(tmp_path / "registry", create=False) as registry:
        assert registry.version("orders").provenance.asset_key == "orders"
