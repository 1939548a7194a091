"""Texts that others wrote reach a terminal as text: no message, name or error controls it."""

import ast
import json
import shutil
import sqlite3
import sys
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from dataset_registry import Registry, cli
from dataset_registry.cli import output
from dataset_registry.cli.output import first_line, json_text
from dataset_registry.embedded import EmbeddedRegistry
from dataset_registry.errors import InputError

HOSTILE = "\x1b[31mred\x1b]52;c;cm0=\x07\x9b2J\x08\x08\rhidden\u202etxt.exe\u2066\ufeff\x85\x7f[red]x[/red][link=file:///x]y[/link]:smile:"
"""A colour, the clipboard, the C1 form of a clear screen, backspaces, an overwritten line, reversed text, and rich's markup."""
SEEN = r"\x1b[31mred\x1b]52;c;cm0=\x07\x9b2J\x08\x08\rhidden\u202etxt.exe\u2066\ufeff\x85\x7f[red]x[/red][link=file:///x]y[/link]:smile:"
MARKUP = "[red]x[/red][link=file:///x]y[/link]:smile:[/nothing]"
"""What a component may be called."""


def controls(text: str) -> list[str]:
    return [ascii(c) for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dataset-registry", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def folder(hostile: Path, tmp_path: Path) -> str:
    """A copy of the hostile registry."""
    return str(shutil.copytree(hostile, tmp_path / "registry"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with hostile texts wherever an older version of this package took them, and where they are allowed."""
    path = tmp_path_factory.mktemp("hostile")
    table = pa.table({HOSTILE: [HOSTILE, "b"], "n": [1, 2]})
    with Registry.open(path) as registry:
        registry.create_user("alice", role="administrator")
        registry.create_user("team", kind="group", members=["alice"])
        registry.create_token("alice", name="laptop")
        flights = registry.create_dataset("raw/flights", description="d")
        flights.commit({"data": table, MARKUP: b"a,b\n1,2\n"}, message="m")
        flights.commit({"data": pa.table({HOSTILE: [1, 2]}), MARKUP: b"3", "new" + MARKUP: b"x"}, message="m")
        flights.create_branch("dev", "v1")
        flights.create_tag("t", "v1")
        registry.create_branch("everywhere")
        registry.grant("alice", "read", "raw/flights")
        registry.protect("raw/flights", "main", allow=["team"])
        registry.dataset("raw/flights").update(description="changed")
    with sqlite3.connect(path / "catalog.sqlite") as connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            connection.execute(f'DROP TRIGGER "{name}"')
        for statement in (
            "UPDATE dataset_versions SET message = :text || char(10) || :text",
            "UPDATE datasets SET description = :text || char(10) || :text",
            "UPDATE users SET username = 'u' || :text WHERE username = 'alice'",
            "UPDATE tokens SET name = :text",
            "UPDATE dataset_pointers SET pointer_name = :text WHERE pointer_name = 'dev'",
            "UPDATE dataset_pointers SET pointer_name = 't' || :text WHERE is_tag",
            "UPDATE registry_branches SET name = :text, source = :text",
            "UPDATE protected_branches SET branch_name = :text",
            "UPDATE productions SET run_id = :text",
            "UPDATE audit_log SET before = :text, after = :text, actor = :text, ref_name = :text",
        ):
            connection.execute(statement, {"text": HOSTILE})
    connection.close()
    return path


COMMANDS = [
    ["status"],
    ["datasets"],
    ["log", "raw/flights"],
    ["log", "raw/flights", "--all"],
    ["show", "raw/flights"],
    ["show", "raw/flights@v1"],
    ["schema", "raw/flights"],
    ["schema", "raw/flights@v1", "data"],
    ["diff", "raw/flights", "v1", "v2"],
    ["version", "children", "raw/flights@v1"],
    ["version", "merge-base", "raw/flights", "v1", "v2"],
    ["version", "consumers", "raw/flights@v1"],
    ["branch", "list", "raw/flights"],
    ["tag", "list", "raw/flights"],
    ["registry-branch", "list"],
    ["user", "list"],
    ["token", "list"],
    ["grant", "list"],
    ["protect", "list"],
    ["audit", "list"],
    ["audit", "check"],
    ["file", "list"],
    ["expire", "--keep-last", "1", "--dry-run"],
    ["collect", "--dry-run"],
    ["verify"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_command_prints_a_control_character(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    for more in ([], ["--json"]):
        code = run(monkeypatch, *arguments, "-r", folder, *more)
        assert code in (0, 3)
        printed = capsys.readouterr()
        assert controls(printed.out + printed.err) == []
        if more:
            json.loads(printed.out)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["log", HOSTILE], 1),
        (["log", f"raw/flights@{HOSTILE}"], 1),
        (["diff", "raw/flights", HOSTILE], 1),
        (["get", "raw/flights", HOSTILE, "--to", "-"], 1),
        (["branch", "create", "raw/flights", HOSTILE], 1),
        (["branch", "delete", "raw/flights", HOSTILE], 1),
        (["tag", "create", "raw/flights", HOSTILE], 1),
        (["user", "create", HOSTILE], 1),
        (["token", "create", HOSTILE], 4),
        (["token", "create", "alice", "--name", HOSTILE], 1),
        (["grant", "add", HOSTILE, "read", "/"], 4),
        (["protect", "add", "raw/flights", HOSTILE], 1),
        (["rm", "raw/flights", HOSTILE], 1),
        (["put", "raw/flights", f"{HOSTILE}=nothing.csv"], 1),
        (["put", "raw/flights", "-m", HOSTILE, "data=catalog.csv"], 1),
        (["dataset", "create", HOSTILE], 1),
        (["dataset", "describe", "raw/flights", HOSTILE], 1),
        (["expire", "--policy", HOSTILE], 1),
        (["status", "-r", f"https://127.0.0.1:1/{HOSTILE}"], 1),
    ],
    ids=lambda value: value[0] + str(len(value)) if isinstance(value, list) else "",
)
def test_no_error_prints_a_control_character(
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("catalog.csv").write_text("a\n1\n")
    monkeypatch.setenv("DATASET_REGISTRY", folder)
    assert run(monkeypatch, *arguments) == code
    printed = capsys.readouterr()
    assert controls(printed.out + printed.err) == []
    assert printed.err.startswith("error: ")


def test_what_is_printed_says_which_characters_there_are(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATASET_REGISTRY", folder)

    def printed(*arguments: str) -> str:
        assert run(monkeypatch, *arguments) == 0
        return capsys.readouterr().out

    assert f"message  {SEEN}\n         {SEEN}\n" in printed("show", "raw/flights@v1")
    assert f") {SEEN} … · " in printed("log", "raw/flights@v1")
    assert f"~ {MARKUP}" in printed("diff", "raw/flights", "v1", "v2")
    assert MARKUP in printed("show", "raw/flights@v1")
    assert json.loads(printed("show", "raw/flights@v1", "--json"))["version"]["message"] == f"{HOSTILE}\n{HOSTILE}"
    for line in printed("audit", "export").splitlines():
        assert controls(line) == []
        assert json.loads(line)["after"] == HOSTILE


def test_files_and_columns_with_hostile_names_are_shown_as_text(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATASET_REGISTRY", folder)
    evil = tmp_path / "evil\x1b[31m\n\u202e"
    evil.mkdir()
    (evil / "link").symlink_to(tmp_path)
    (evil / "empty").mkdir()
    (evil / ".git").mkdir()
    assert run(monkeypatch, "put", "raw/x", str(evil)) == 1
    pq.write_table(pa.table({HOSTILE: [1]}), evil / "a.parquet")
    (evil / "b.csv").write_bytes(b"a,b\n1\n1,2,3\n")
    for name in ("a.parquet", "b.csv", "link", "nothing"):
        run(monkeypatch, "put", "raw/x", f"data={evil / name}")
    run(monkeypatch, "put", "raw/x", str(evil))
    assert run(monkeypatch, "get", "raw/flights", "--to", str(evil / "out")) == 0
    printed = capsys.readouterr()
    assert controls(printed.out + printed.err) == []
    assert r"evil\x1b[31m\n\u202e" in printed.err
    assert r"evil\x1b[31m\n\u202e" in printed.out


def test_questions_signs_of_life_and_bars_are_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(output.typer, "confirm", lambda question: asked.append(question) or True)
    assert output.confirmed(f"Delete {HOSTILE}?", yes=False)
    assert asked == [f"Delete {SEEN}?"]

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with output.working(f"committing to {HOSTILE}"):
        pass
    with output.progress() as bars:
        bars(f"copying {HOSTILE}", 1, 2)
    drawn = capsys.readouterr().err
    assert f"committing to {SEEN}" in drawn
    assert f"copying {SEEN}" in drawn


def test_an_unforeseen_error_is_printed_as_text(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(HOSTILE)

    monkeypatch.setattr(EmbeddedRegistry, "datasets", fail)
    assert run(monkeypatch, "datasets", "-r", folder) == 1
    printed = capsys.readouterr()
    assert controls(printed.out + printed.err) == []
    assert f"ValueError: {SEEN}" in printed.err
    assert "Traceback" in printed.err


def test_the_reason_of_a_freeze_is_printed_as_text(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Registry.open(folder) as registry:
        registry.freeze("migration")
    with sqlite3.connect(f"{folder}/catalog.sqlite") as connection:
        text = json.dumps({"reason": HOSTILE, "by": HOSTILE, "at": "2026-01-01T00:00:00+00:00"})
        changed = connection.execute("UPDATE registry_settings SET value = ? WHERE value LIKE '%migration%'", [text])
        assert changed.rowcount == 1
    connection.close()
    for arguments, code in ((["status"], 0), (["dataset", "create", "raw/x"], 1)):
        assert run(monkeypatch, *arguments, "-r", folder) == code
        printed = capsys.readouterr()
        assert controls(printed.out + printed.err) == []
        assert SEEN in printed.err


def test_an_error_of_several_lines_has_them(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InputError(f"one\r\ntwo\t{HOSTILE}")

    monkeypatch.setattr(EmbeddedRegistry, "datasets", fail)
    assert run(monkeypatch, "datasets", "-r", folder) == 1
    assert capsys.readouterr().err == f"error: one\ntwo\t{SEEN}\n"
    monkeypatch.setenv("DATASET_REGISTRY_DEBUG", "1")
    assert run(monkeypatch, "datasets", "-r", folder) == 1
    printed = capsys.readouterr().err.replace("\t", "")
    assert printed.startswith("Traceback")
    assert controls(printed) == []


def test_the_shell_completes_no_name_that_would_control_it(folder: str) -> None:
    context = typer.Context(typer.main.get_command(cli.app))
    context.params = dict.fromkeys(cli.target._OPTIONS) | {"registry": folder, "dataset": "raw/flights"}
    assert cli.target.complete_ref(context, "") == ["everywhere", "main"]
    assert cli.target.complete_address(context, "raw/flights@") == ["raw/flights@everywhere", "raw/flights@main"]
    assert cli.target.complete_dataset(context, "") == ["raw/flights"]


def test_json_is_what_it_was_without_characters_that_control_a_terminal() -> None:
    text = "\0\x7f\x9b\u202e\u2028\udc80\U000e0041 Zürich שלום 👩\u200d🚀"
    assert json.loads(json_text({text: [text]})) == {text: [text]}
    assert controls(json_text(text).replace("\u200d", "")) == []
    assert "Zürich שלום" in json_text(text)


def test_a_message_of_several_lines_is_its_first_one_where_there_is_room_for_one() -> None:
    assert first_line(None) == ""
    assert first_line("one") == "one"
    assert first_line("\n one \r\n\r\ntwo\n") == "one …"
    assert first_line("one\n") == "one"


def test_the_command_line_prints_in_one_place() -> None:
    folder = Path(cli.__file__).parent
    for path in folder.glob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            assert path.name == "output.py" or called not in (
                "print",
                "typer.echo",
                "typer.secho",
                "sys.stdout.write",
            ), path
