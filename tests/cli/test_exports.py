"""The commands that export versions as tables of other formats."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import typer.testing
from pyiceberg.catalog import load_catalog

from dataset_registry import Registry, cli


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with a table and a note, as the registry of the command line."""
    with Registry.open(tmp_path / "registry") as registry:
        registry.create_dataset("raw/sales").commit({"data": pa.table({"id": [1, 2]})})
        registry.create_dataset("raw/notes").commit({"notes.txt": b"hello"})
    monkeypatch.setenv("DATASET_REGISTRY", str(tmp_path / "registry"))
    return tmp_path


def _run(*words: str) -> str:
    done = typer.testing.CliRunner().invoke(cli.app, ["export", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_version_is_exported_to_a_catalog_of_pyiceberg_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"URI": f"sqlite:///{folder}/lake.db", "TYPE": "sql", "WAREHOUSE": f"file://{folder}/warehouse"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__MINE__{name}", value)
    command = [
        sys.executable,
        "-c",
        "from dataset_registry.cli import main; main()",
        "export",
        "iceberg",
    ]  # pyiceberg reads
    command += ["raw/sales", "raw.sales", "--to", "mine"]  # its settings when it is imported
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 file added, 0 removed, 0 kept" in done.stdout
    properties = {"type": "sql", "uri": settings["URI"], "warehouse": settings["WAREHOUSE"]}
    assert load_catalog("mine", **properties).load_table("raw.sales").scan().to_arrow()["id"].to_pylist() == [1, 2]


def test_a_version_is_exported_to_a_folder_as_a_delta_table(folder: Path) -> None:
    assert _run("delta", "raw/sales@v1", str(folder / "delta")) == "version 0: 1 file added, 0 removed, 0 kept\n"
    assert (folder / "delta" / "_delta_log" / "00000000000000000000.json").exists()


def test_a_ducklake_catalog_says_what_it_leaves_out(folder: Path) -> None:
    told = _run("ducklake", str(folder / "lake.ducklake"), "--prefix", "raw/")
    assert "! raw/notes is left out: " in told
    assert "1 table, 1 snapshot, 1 file" in told
    assert (folder / "lake.ducklake").exists()
