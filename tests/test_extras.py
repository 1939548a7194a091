"""What needs a library that is not installed says so at once, in one line with the command to run."""

import sys
from pathlib import Path

import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.errors import InputError
from tests.cli.test_commands import run

INSTALL = "which is not installed. Run: pip install 'dataset-registry[{}]'"


@pytest.mark.parametrize(
    ("module", "extra", "options"),
    [
        ("psycopg", "postgres", ["--catalog", "postgresql://host/db", "--store", "store"]),
        ("obstore", "s3", ["--catalog", "sqlite:///c.sqlite", "--store", "s3://bucket/prefix"]),
        ("httpx", "remote", ["-r", "https://registry.example.com", "--token", "dr_x"]),
    ],
)
@pytest.mark.parametrize("command", ["init", "status", "put"])
def test_a_missing_library_is_told_when_the_registry_is_opened(
    module: str,
    extra: str,
    options: list[str],
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("a\n1\n")
    monkeypatch.setitem(sys.modules, module, None)
    given = [command, "d/x", "x.csv", "--create"] if command == "put" else [command]
    given = given if command != "init" or module != "httpx" else ["status"]
    assert run(monkeypatch, *given, *options) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: ")
    assert f"{module}, {INSTALL.format(extra)}" in said
    assert not (tmp_path / "c.sqlite").exists()


def test_a_missing_server_is_told_before_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Registry.open(tmp_path / "r").close()
    for name in [name for name in sys.modules if name.startswith("dataset_registry.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert run(monkeypatch, "serve", "-r", str(tmp_path / "r")) == 1
    assert f"fastapi, {INSTALL.format('server')}" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["pandas", "polars"])
def test_a_frame_of_a_missing_library_is_refused_before_anything_is_read(
    module: str, embedded: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = embedded.create_dataset("d").commit({"data": pa.table({"a": [1]})})
    monkeypatch.setattr(type(version), "to_arrow", lambda *_, **__: pytest.fail("it was read"))
    monkeypatch.setitem(sys.modules, module, None)
    reads = [version.to_pandas] if module == "pandas" else [version.to_polars, version.lazy]
    for read in reads:
        with pytest.raises(InputError, match=r"is not installed\. Run: pip install") as found:
            read()
        assert found.value.fields == {"extra": module}


def test_a_spreadsheet_without_its_library_is_refused_with_the_command(
    embedded: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.xlsx").write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(
        InputError, match=r"fastexcel, which is not installed\. Run: pip install 'dataset-registry\[excel\]'"
    ):
        embedded.create_dataset("d").commit({"data": tmp_path / "x.xlsx"})
