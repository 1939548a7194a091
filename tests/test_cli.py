"""The command line: what it prints, and what it says of mistakes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dataset_registry import Registry, cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dataset-registry", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_catalog_is_upgraded_checked_and_taken_back(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(cli.CATALOG_VARIABLE, empty_url)
    for arguments, words in (
        (["db", "current"], "no tables yet"),
        (["db", "upgrade"], "no tables -> 0012"),
        (["db", "current"], "0012"),
        (["db", "check"], "as this package expects it"),
        (["db", "downgrade", "base"], "0012 -> no tables"),
    ):
        assert run(monkeypatch, *arguments) == 0
        printed = capsys.readouterr().out
        assert words in printed
        assert "password" not in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["db", "current", "--catalog", "mysql://host/db"], "a catalog lives in SQLite or PostgreSQL"),
        (["db", "upgrade", "--catalog", "postgresql://nobody@127.0.0.1:1/none"], "cannot be used now"),
        (["db", "check", "--catalog", "sqlite:////nowhere/at/all.sqlite"], "no tables yet"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run(monkeypatch, *arguments) == 1
    printed = capsys.readouterr()
    assert words.lower() in printed.err.lower()
    assert printed.err.startswith("error: ")
    assert "Traceback" not in printed.err + printed.out


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A registry with ten versions of one dataset."""
    with Registry.open(tmp_path / "registry") as registry:
        flights = registry.create_dataset("raw/flights")
        for day in range(10):
            flights.commit({"data": b"day %d " % day * 100})
    return str(tmp_path / "registry")


def versions(folder: str) -> list[int]:
    with Registry.open(folder) as registry:
        return [version.number for version in registry.dataset("raw/flights").tree()]


def test_nothing_is_removed_when_there_is_nobody_to_ask(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["expire", "--keep-last", "1"], ["collect", "--older-than", "0"]):
        assert run(monkeypatch, *command, "-r", folder) == 1
        printed = capsys.readouterr()
        assert "--yes" in printed.err
        assert "--dry-run" in printed.err
    assert len(versions(folder)) == 10


def test_a_no_at_the_prompt_removes_nothing_and_a_yes_does(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, left in ((False, 10), (True, 2)):
        monkeypatch.setattr(cli.typer, "confirm", lambda question, answer=answer: answer)
        assert run(monkeypatch, "expire", "-r", folder, "--keep-last", "2") == 0
        assert len(versions(folder)) == left
    assert "8 versions deleted" in capsys.readouterr().out


def test_plans_and_results_are_json_on_request(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(cli.FOLDER_VARIABLE, folder)

    def printed(*arguments: str) -> dict[str, Any]:
        assert run(monkeypatch, *arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    plan = printed("expire", "--keep-last", "2", "--keep-younger-than", "0", "--yes")
    assert plan["datasets"]["raw/flights"]["expire"] == list(range(1, 9))
    assert plan["datasets"]["raw/flights"]["keep"]["10"] == "head of main"
    found = printed("collect", "--older-than", "0", "--sweep", "--yes")
    assert (found["files"], found["unknown_objects"]) == (8, 0)
    assert printed("verify", "--share", "1/1") == {"files": 2, "bytes_read": 1200, "waiting": 0, "findings": []}
    assert printed("adopt", "--dry-run") == {"inline": 0, "paths": 0, "bytes": 0, "unreadable": {}}
    assert printed("adopt")["files"] == 0


def test_damage_has_an_exit_code_of_its_own(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    next(Path(folder).glob("objects/*/*")).unlink()
    assert run(monkeypatch, "verify", "-r", folder) == cli.DAMAGED
    printed = capsys.readouterr().out
    assert "missing: the file" in printed
    assert "what to do about missing" in printed


def test_a_copy_with_a_note_says_it(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "copy", "-r", folder, "--to", str(tmp_path / "other"), "--ref", "nightly") == 0
    printed = capsys.readouterr()
    assert "has none of nightly" in printed.err
    assert "0 versions copied" in printed.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify"], "Say which registry"),
        (["copy", "-r", "{folder}"], "Say where to copy to"),
        (["copy", "-r", "{folder}", "--to", "{folder}"], "prefix of its own"),
        (["copy", "-r", "{folder}", "--to", "{folder}-2", "--dataset", "none*"], "No dataset matches none*"),
        (["expire", "-r", "{folder}"], "must keep something"),
        (["expire", "-r", "{folder}", "--keep-younger-than", "soon"], "no duration"),
        (["expire", "-r", "{folder}", "--policy", "{folder}/none.toml"], "cannot be read"),
        (["collect", "-r", "{folder}", "--older-than", "1y"], "no duration"),
        (["verify", "-r", "{folder}", "--share", "8/7"], "no share"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    folder: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    assert run(monkeypatch, *(argument.replace("{folder}", folder) for argument in arguments)) == 1
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.startswith("error: ")
