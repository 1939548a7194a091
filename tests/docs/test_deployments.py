"""The files in deploy/ are valid, and their commands and settings exist."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.testing
import yaml

from dataset_registry import cli
from dataset_registry.cli import target
from dataset_registry.server.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("Dockerfile")])
VARIABLES = {f"DATASET_REGISTRY_{name.upper()}" for name in Settings.model_fields} | {
    value for name, value in vars(target).items() if name.endswith("_VARIABLE")
}


def values(found: Any) -> Iterator[Any]:
    """Every mapping and list of a YAML document."""
    if isinstance(found, dict | list):
        yield found
        for value in found.values() if isinstance(found, dict) else found:
            yield from values(value)


def commands(path: Path) -> list[list[str]]:
    """The commands of ours in a file."""
    if path.name == "Dockerfile":
        lines = [line.removeprefix("CMD ") for line in path.read_text().splitlines() if line.startswith("CMD ")]
        return [yaml.safe_load(line) for line in lines]
    documents = list(yaml.safe_load_all(path.read_text()))
    return [f for d in documents for f in values(d) if isinstance(f, list) and f[:1] == ["dataset-registry"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_file_is_valid_and_its_commands_exist(path: Path) -> None:
    for command in commands(path):
        options = [part for part in command[1:] if part.startswith("--")]
        names = command[1 : next((i for i, part in enumerate(command) if part.startswith("--")), len(command))]
        shown = typer.testing.CliRunner().invoke(cli.app, [*names, "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, shown.output
        assert all(option in shown.output for option in options)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_variable_of_ours_is_a_setting(path: Path) -> None:
    named = {word.strip(" ':\"") for word in path.read_text().split() if word.startswith("DATASET_REGISTRY_")}
    assert {name.partition("=")[0].rstrip(":") for name in named} <= VARIABLES


def test_the_image_installs_extras_that_exist() -> None:
    import tomllib

    extras = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    line = next(line for line in (DEPLOY / "docker" / "Dockerfile").read_text().splitlines() if "/src[" in line)
    assert set(line.partition("[")[2].partition("]")[0].split(",")) <= extras.keys()
