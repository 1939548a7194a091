"""Folders on the command line: what is put in comes back as the same files, and nothing is kept or lost silently."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dataset_registry import Registry
from dataset_registry.cli import app
from dataset_registry.errors import RegistryError


class Shell:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = folder / "registry"

    def run(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, [*arguments[:1], "-r", str(self.registry), *arguments[1:]])
        if code and isinstance(result.exception, RegistryError):
            return str(result.exception)
        if result.exit_code != code:
            raise AssertionError(f"{arguments}: {result.exit_code}\n{result.output}\n{result.exception!r}")
        return result.output

    def components(self, address: str) -> list[str]:
        with Registry.open(self.registry) as registry:
            return [component.name for component in registry.version(address).components]


@pytest.fixture
def shell(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    found = Shell(tmp_path)
    found.registry.mkdir()
    shutil.copy(sqlite_template, found.registry / "catalog.sqlite")
    Registry.open(found.registry).close()
    return found


def same(left: Path, right: Path) -> bool:
    """Whether two folders have the same files."""
    return subprocess.run(["diff", "-r", str(left), str(right)], capture_output=True, check=False).returncode == 0


def test_a_folder_of_2000_images_is_put_changed_and_synced(shell: Shell) -> None:
    photos = shell.folder / "photos"
    for i in range(2000):
        path = photos / f"class {i % 20}" / f"{i // 100:02}" / f"image ({i}).PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x89PNG" + i.to_bytes(4, "big") * 20)
    shell.run("put", "raw/photos", "photos")
    assert len(shell.components("raw/photos")) == 2000
    (photos / "class 0" / "00" / "image (0).PNG").write_bytes(b"edited")
    (photos / "class 1" / "00" / "image (1).PNG").unlink()
    (photos / "new" / "one.png").parent.mkdir()
    (photos / "new" / "one.png").write_bytes(b"added")
    said = shell.run("put", "raw/photos", "photos", "--sync")
    assert "11 bytes new of" in said
    with Registry.open(shell.registry) as registry:
        changes = registry.dataset("raw/photos").diff("v1", "v2").components
    assert changes.added == (("new/one.png", 0),)
    assert changes.removed == (("class 1/00/image (1).PNG", 0),)
    assert changes.changed == (("class 0/00/image (0).PNG", 0),)
    shell.run("get", "raw/photos", "--to", "back")
    assert same(photos, shell.folder / "back")
    assert "unchanged" in shell.run("put", "raw/photos", "photos", "--sync")


def test_files_of_one_name_in_two_folders_are_two_components(shell: Shell) -> None:
    for name in ("a/f.csv", "b/f.csv", "cat.png", "cat.json"):
        path = shell.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x\n1\n" if name.endswith("csv") else '{"x": 1}')
    shell.run("put", "raw/files", "a/f.csv", "b/f.csv")
    assert shell.components("raw/files") == ["a/f.csv", "b/f.csv"]
    shell.run("put", "raw/cats", "cat.png", "cat.json")
    assert shell.components("raw/cats") == ["cat.json", "cat.png"]
    shell.run("put", "raw/one", "cat.png")
    assert shell.components("raw/one") == ["data"]
    shell.run("put", "raw/absolute", str(shell.folder / "a" / "f.csv"), str(shell.folder / "b" / "f.csv"))
    assert shell.components("raw/absolute") == ["a/f.csv", "b/f.csv"]
    said = shell.run("put", "raw/twice", "x=cat.png", "x=cat.json", code=1)
    assert "would both be the component 'x'" in said
    shell.run("get", "raw/files", "--to", "back")
    assert (shell.folder / "back" / "b" / "f.csv").read_text() == "x\n1\n"


def test_components_are_removed_by_name_or_by_folder(shell: Shell) -> None:
    for name in ("t/a.txt", "t/b/1.txt", "t/b/2.txt"):
        (shell.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shell.folder / name).write_text(name)
    shell.run("put", "raw/t", "t")
    assert "removed 2 components" in shell.run("rm", "raw/t", "b/")
    assert shell.components("raw/t") == ["a.txt"]
    assert "no component" in shell.run("rm", "raw/t", "gone", code=1)
    assert shell.components("raw/t@v1") == ["a.txt", "b/1.txt", "b/2.txt"]


def test_a_folder_does_not_bring_its_repository_nor_lead_out_of_where_it_is_written(shell: Shell) -> None:
    (shell.folder / "t" / ".git").mkdir(parents=True)
    (shell.folder / "t" / ".git" / "config").write_text("[core]")
    (shell.folder / "t" / ".hidden").write_text("kept")
    assert ".git is left out" in shell.run("put", "raw/t", "t")
    assert shell.components("raw/t") == [".hidden"]
    with Registry.open(shell.registry) as registry:
        hostile = registry.create_dataset("raw/hostile")
        names = ["../x", "a/../../x", ".git/hooks/post-checkout", "link/x", "a", "a/b", "C:\\x"]
        hostile.commit({name: name.encode() for name in names})
        (shell.folder / "out").mkdir()
        paths = hostile.version().checkout(shell.folder / "safe")
        assert all((shell.folder / "safe") in path.resolve().parents for path in paths)
        assert not (shell.folder / "safe" / ".git").exists()
        assert len({path.read_bytes() for path in paths}) == len(names)
        (shell.folder / "linked").mkdir()
        os.symlink(shell.folder / "out", shell.folder / "linked" / "link")
        assert shell.run("get", "raw/hostile", "--to", str(shell.folder / "linked"), code=1)
    assert list((shell.folder / "out").iterdir()) == []


def test_read_options_on_the_command_line_are_those_of_python(shell: Shell) -> None:
    (shell.folder / "codes.csv").write_text(
        "made by hand\nzip;price;when\n02134;1,5;31.12.2024\nNA;2;\n", encoding="utf-16"
    )
    options = ("types.zip=string", "delimiter=;", "skip_rows=1", "encoding=utf-16", "decimal=,", "null_values=NA,-")
    reads = [part for option in (*options, "date_format=%d.%m.%Y") for part in ("--read", option)]
    shell.run("put", "raw/codes", "codes.csv", *reads)
    with Registry.open(shell.registry) as registry:
        table = registry.version("raw/codes").to_arrow()
    assert table["zip"].to_pylist() == ["02134", None]
    assert table["price"].to_pylist() == [1.5, 2.0]
    assert str(table["when"][0]) == "2024-12-31"
    assert "Did you mean 'delimiter'" in shell.run("put", "raw/codes", "codes.csv", "--read", "delimeter=;", code=1)
    shutil.copy(shell.folder / "codes.csv", shell.folder / "again.csv")
    assert "unchanged" in shell.run("put", "raw/codes", "again.csv"), "the options hold on"


def test_the_command_says_what_was_made_of_columns_without_a_name(shell: Shell) -> None:
    (shell.folder / "f.csv").write_text("a,\n1,2\n")
    command = [
        str(Path(sys.executable).parent / "dataset-registry"),
        "put",
        "-r",
        str(shell.registry),
        "raw/f",
        "f.csv",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=shell.folder)
    assert "called by their position: column_2" in said.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file systems here do not tell letter case apart")
def test_names_that_differ_in_letter_case_come_back_as_they_were(shell: Shell) -> None:
    folder = shell.folder / "cases"
    (folder / "Sub").mkdir(parents=True)
    for name in ("a.txt", "A.txt", "sub", "Sub/b.txt"):
        (folder / name).write_text(name)
    shell.run("put", "raw/cases", "cases")
    shell.run("get", "raw/cases", "--to", "back")
    assert same(folder, shell.folder / "back")


def test_what_a_folder_has_that_is_not_stored_is_said(shell: Shell) -> None:
    folder = shell.folder / "folder"
    (folder / "empty").mkdir(parents=True)
    (folder / "cafe\u0301.txt").write_text("a name as macOS writes it")
    (folder / "link").symlink_to(folder / "empty")
    said = shell.run("put", "raw/said", "folder")
    assert f"{Path('folder', 'empty')} is empty, and left out" in said
    assert f"{Path('folder', 'link')} is a link to a folder, and left out" in said
    assert r"'cafe\u0301.txt' is stored as 'caf\xe9.txt'" in said
    assert shell.components("raw/said") == ["caf\u00e9.txt"]


def test_a_file_that_cannot_be_read_is_named(shell: Shell) -> None:
    (shell.folder / "good.csv").write_text("a\n1\n")
    (shell.folder / "bad.csv").write_text("a,b\n1,2\n3\n")
    assert shell.run("put", "raw/files", "good.csv", "bad.csv", code=1).startswith(
        "bad.csv: The csv file cannot be read"
    )
