"""The command line: what it prints, and what it says of mistakes."""

import sys

import pytest

from dataset_registry import cli


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
        (["db", "upgrade"], "no tables -> 0011"),
        (["db", "current"], "0011"),
        (["db", "check"], "as this package expects it"),
        (["db", "downgrade", "base"], "0011 -> no tables"),
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
