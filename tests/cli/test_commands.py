"""The command line: what it prints, and what it says of mistakes."""

import io
import json
import re
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import typer

from dataset_registry import Registry, cli
from dataset_registry.cli import maintenance, output, target
from tests.serving import Served


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dataset-registry", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_catalog_is_upgraded_checked_and_taken_back(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(target.CATALOG_VARIABLE, empty_url)
    for arguments, words in (
        (["db", "current"], "no tables yet"),
        (["db", "upgrade"], "no tables -> 0020"),
        (["db", "current"], "0020"),
        (["db", "check"], "as this package expects it"),
        (["db", "downgrade", "base"], "0020 -> no tables"),
    ):
        assert run(monkeypatch, *arguments) == 0
        printed = capsys.readouterr().out
        assert words in printed
        assert "password" not in printed


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["db", "current", "--catalog", "mysql://host/db"], "a catalog lives in SQLite or PostgreSQL", 1),
        (["db", "upgrade", "--catalog", "postgresql://nobody@127.0.0.1:1/none"], "cannot be used now", 5),
        (["db", "check", "--catalog", "sqlite:////nowhere/at/all.sqlite"], "no tables yet", 1),
        (["status", "-r", "http://127.0.0.1:1"], "No token for", 1),
        (["status", "-r", "http://127.0.0.1:1", "--token", "dr_x"], "does not answer", 5),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str, code: int
) -> None:
    monkeypatch.setattr("dataset_registry.remote.client.sleep", lambda seconds: None)
    assert run(monkeypatch, *arguments) == code
    printed = capsys.readouterr()
    assert words.lower() in printed.err.lower()
    assert printed.err.startswith("error: ")
    assert "Traceback" not in printed.err + printed.out


# --- which registry ------------------------------------------------------------------------------------------------

EMPTY = ("expire", "--keep-last", "1", "--yes"), ("collect", "--yes"), ("datasets",), ("adopt",), ("audit", "list")


@pytest.mark.parametrize("named", ["folder", "catalog"])
@pytest.mark.parametrize("command", [("status",), ("verify", "--deep"), ("put", "d/x", "x.csv"), ("serve",), *EMPTY])
def test_a_mistyped_registry_is_an_error_and_creates_nothing(
    command: tuple[str, ...],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("a\n1\n")
    where = ["-r", "shopp"] if named == "folder" else ["--catalog", "sqlite:///shopp/c.sqlite", "--store", "shopp"]
    assert run(monkeypatch, *command, *where) == 4
    assert capsys.readouterr().err == (
        "error: No registry at shopp. Create one with: dataset-registry init -r shopp\n"
        if named == "folder"
        else "error: No registry at sqlite:///shopp/c.sqlite. Create one with: dataset-registry init --catalog "
        "'sqlite:///shopp/c.sqlite' --store …\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv"]


def test_init_creates_a_registry_and_so_does_put_when_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("a\n1\n")
    for options in (["a"], ["-r", "b"], ["--catalog", "sqlite:///c.sqlite", "--store", "c"]):
        assert run(monkeypatch, "init", *options) == 0
        assert "Created a registry in" in capsys.readouterr().out
        assert run(monkeypatch, "init", *options) == 0
        assert "exists already" in capsys.readouterr().out
    assert run(monkeypatch, "put", "-r", "d", "d/x", "x.csv", "--create") == 0
    assert "d/x@v1" in capsys.readouterr().out
    assert run(monkeypatch, "init") == 1
    assert "No registry given" in capsys.readouterr().err


def test_a_store_that_cannot_be_opened_leaves_no_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "init", "--catalog", f"sqlite:///{tmp_path}/c.sqlite", "--store", "s4://bucket") == 1
    assert "s3://" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("named", ["folder", "catalog"])
@pytest.mark.parametrize("environment", ["folder", "catalog", "both"])
def test_a_registry_given_by_hand_wins_over_the_environment(
    folder: str,
    environment: str,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Registry.open(tmp_path / "backup").close()
    if environment in ("folder", "both"):
        monkeypatch.setenv(target.FOLDER_VARIABLE, folder)
    if environment in ("catalog", "both"):
        monkeypatch.setenv(target.CATALOG_VARIABLE, f"sqlite:///{folder}/catalog.sqlite")
        monkeypatch.setenv(target.STORE_VARIABLE, folder)
    where = ["-r", str(tmp_path / "backup")]
    if named == "catalog":
        where = ["--catalog", f"sqlite:///{tmp_path}/backup/catalog.sqlite", "--store", str(tmp_path / "backup")]
    for command in (["status", "--json"], ["verify", "--deep", "--json"]):
        assert run(monkeypatch, *command, *where) == 0
        assert json.loads(capsys.readouterr().out)["files"] == 0
    assert run(monkeypatch, "dataset", "delete", "raw/flights", "--yes", *where) == 4
    assert len(versions(folder)) == 10


def test_half_a_registry_by_hand_is_not_completed_from_the_environment(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(target.CATALOG_VARIABLE, f"sqlite:///{folder}/catalog.sqlite")
    monkeypatch.setenv(target.STORE_VARIABLE, folder)
    assert run(monkeypatch, "collect", "--sweep", "--yes", "--catalog", "sqlite:///other.sqlite") == 1
    assert "No registry given" in capsys.readouterr().err
    assert run(monkeypatch, "db", "bind", "--yes", "--catalog", "sqlite:///other.sqlite") == 1
    assert "Pass both" in capsys.readouterr().err


# --- errors as JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["show", "raw/none"], "not_found", 4),
        (["log", "raw/flights@none"], "not_found", 4),
        (["branch", "create", "raw/flights", "v1"], "invalid_name", 1),
        (["expire"], "invalid_input", 1),
        (["expire", "--keep-last", "1"], "invalid_input", 1),
        (["status", "--nothing"], "usage", 2),
        (["log"], "usage", 2),
        (["branch", "move", "raw/flights", "main", "v1", "--expect", "v2"], "branch_moved", 5),
    ],
)
def test_errors_are_json_on_request_with_the_same_exit_codes(
    folder: str,
    arguments: list[str],
    code: str,
    exit_code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(target.FOLDER_VARIABLE, folder)
    assert run(monkeypatch, *arguments) == exit_code
    text = capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--json") == exit_code
    (error,) = json.loads(capsys.readouterr().err).values()
    assert sorted(error) == ["code", "fields", "message"]
    assert error["code"] == code
    if code != "usage":
        assert text == f"error: {error['message']}\n"


def test_an_argument_that_looks_like_the_option_asks_for_nothing(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "show", "-r", folder, "--", "--json") == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.fixture(scope="module")
def ten_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with ten versions of one dataset, to copy."""
    path = tmp_path_factory.mktemp("ten") / "registry"
    with pytest.MonkeyPatch.context() as patch, ExitStack() as opened:
        patch.setenv("DATASET_REGISTRY_INLINE_BYTES", "0")  # objects can be counted
        registry = opened.enter_context(Registry.open(path))
        flights = registry.create_dataset("raw/flights")
        for day in range(10):
            flights.commit({"data": b"day %d " % day * 100})
    return path


@pytest.fixture
def folder(ten_versions: Path, tmp_path: Path) -> str:
    """A registry with ten versions of one dataset."""
    return str(shutil.copytree(ten_versions, tmp_path / "registry"))


def versions(folder: str) -> list[int]:
    with Registry.open(folder) as registry:
        return [version.number for version in registry.dataset("raw/flights").tree()]


def test_nothing_is_removed_when_there_is_nobody_to_ask(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Registry.open(folder) as registry:
        flights = registry.dataset("raw/flights")
        flights.move_branch("main", "v9")
        flights.delete_version("v10")
    for command in (["expire", "--keep-last", "1"], ["collect", "--older-than", "0"]):
        assert run(monkeypatch, *command, "-r", folder) == 1
        printed = capsys.readouterr()
        assert "--yes" in printed.err
        assert "--dry-run" in printed.err
    assert len(versions(folder)) == 9
    assert len(list(Path(folder).glob("objects/*/*"))) == 10


def test_a_no_at_the_prompt_removes_nothing_and_a_yes_does(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, left in ((False, 10), (True, 2)):
        monkeypatch.setattr(output.typer, "confirm", lambda question, answer=answer: answer)
        assert run(monkeypatch, "expire", "-r", folder, "--keep-last", "2") == 0
        assert len(versions(folder)) == left
    assert "8 versions deleted" in capsys.readouterr().out


def test_plans_and_results_are_json_on_request(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(target.FOLDER_VARIABLE, folder)

    def printed(*arguments: str) -> dict[str, Any]:
        assert run(monkeypatch, *arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    plan = printed("expire", "--keep-last", "2", "--keep-younger-than", "0", "--keep-hourly", "1", "--yes")
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
    assert run(monkeypatch, "verify", "-r", folder) == maintenance.DAMAGED
    printed = capsys.readouterr().out
    assert "missing: the file" in printed
    assert "repair missing" in printed


def test_a_copy_with_a_note_says_it(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "copy", "-r", folder, "--to", str(tmp_path / "other"), "--create", "--ref", "nightly") == 0
    printed = capsys.readouterr()
    assert "has none of nightly" in printed.err
    assert "0 versions copied" in printed.out


def test_a_component_that_does_not_exist_is_an_error_however_it_is_asked_for(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["get", "--to", str(tmp_path / "out")], ["get", "--to", "-"], ["schema"], ["schema", "--json"]):
        assert run(monkeypatch, command[0], "-r", folder, "raw/flights", "nope", *command[1:]) == 4
        printed = capsys.readouterr()
        assert "raw/flights@v10 has no component 'nope'" in printed.err
        assert "has: 'data'" in printed.err
        assert not printed.out
    assert not (tmp_path / "out").exists()


def test_a_checkout_into_a_folder_named_like_a_ref_is_refused(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "checkout", "-r", folder, "raw/flights", "v1") == 1
    assert "dataset-registry checkout raw/flights@v1" in capsys.readouterr().err
    assert not Path("v1").exists()
    assert run(monkeypatch, "checkout", "-r", folder, "raw/flights", "./v1") == 0
    assert list(Path("v1").iterdir())


@pytest.mark.parametrize("command", [["ls", "-r"], ["init"], ["copy", "-r", "{folder}", "--create", "--to"]])
def test_a_file_is_no_registry(
    folder: str, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "items.csv").write_text("id\n1\n")
    assert run(monkeypatch, *[part.format(folder=folder) for part in command], str(tmp_path / "items.csv")) == 1
    assert "items.csv is a file. Pass the folder of a registry." in capsys.readouterr().err
    assert (tmp_path / "items.csv").read_text() == "id\n1\n"


@pytest.mark.parametrize(
    ("arguments", "compared"),
    [
        (["raw/flights", "v1..v2"], "v1 -> v2"),
        (["raw/flights@v1..v2"], "v1 -> v2"),
        (["raw/flights", "v1.."], "v1 -> v10"),
        (["raw/flights", "..v3"], "v10 -> v3"),
        (["raw/flights", "main...side"], "v3 -> v11"),
        (["raw/flights", "side...main"], "v3 -> v10"),
        (["raw/flights", "main..side"], "v10 -> v11"),
    ],
)
def test_ranges_of_a_diff_are_those_of_git(
    folder: str,
    arguments: list[str],
    compared: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Registry.open(folder) as registry:
        flights = registry.dataset("raw/flights")
        flights.create_branch("side", "v3")
        assert flights.commit({"side": b"x"}, branch="side").number == 11
    assert run(monkeypatch, "diff", "-r", folder, *arguments) == 0
    assert f"raw/flights {compared}\n" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_a_branch_or_tag_is_created_by_its_own_command(
    folder: str, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, kind, "-r", folder, "raw/flights", "new") == 1
    assert f"dataset-registry {kind} create raw/flights new" in capsys.readouterr().err


@pytest.mark.parametrize(("theirs", "ours"), list(cli.ELSEWHERE.items()))
def test_a_command_of_another_tool_is_answered_with_ours(
    theirs: str, ours: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, theirs) == 2
    assert ours in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, ours.split(maxsplit=1)[0], "--help") == 0


def test_a_collection_without_anything_to_remove_does_not_ask(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "collect", "-r", folder) == 0


def test_a_mistyped_target_of_a_copy_creates_nothing(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "bakcup"
    for options in (
        ["--to", str(target)],
        ["--to-catalog", f"sqlite:///{target}/catalog.sqlite", "--to-store", str(target)],
    ):
        assert run(monkeypatch, "copy", "-r", folder, *options) == 4
        assert "dataset-registry init" in capsys.readouterr().err
        assert not target.exists()
    assert run(monkeypatch, "copy", "-r", folder, "--to", str(target), "--create") == 0
    assert target.is_dir()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify"], "No registry given"),
        (["copy", "-r", "{folder}"], "No target given"),
        (["copy", "-r", "{folder}", "--to", "{folder}"], "prefix of its own"),
        (["expire", "-r", "{folder}"], "must keep something"),
        (["expire", "-r", "{folder}", "--keep-younger-than", "soon"], "Invalid duration"),
        (["expire", "-r", "{folder}", "--policy", "{folder}/none.toml"], "cannot be read"),
        (["collect", "-r", "{folder}", "--older-than", "1y"], "Invalid duration"),
        (["verify", "-r", "{folder}", "--share", "8/7"], "Invalid share"),
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


# --- data ----------------------------------------------------------------------------------------------------------


class Shell:
    """A user at a prompt, in a registry of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self._monkeypatch, self._captured = folder, monkeypatch, capfd
        monkeypatch.setenv(target.FOLDER_VARIABLE, str(folder / "registry"))
        monkeypatch.chdir(folder)

    def __call__(self, *arguments: str, code: int = 0, given: bytes | None = None) -> str:
        """What a command prints; its errors too when it has to fail."""
        if given is not None:
            self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        assert run(self._monkeypatch, *arguments) == code
        printed = self._captured.readouterr()
        assert "Traceback" not in printed.err
        return printed.out if code == 0 else printed.out + printed.err

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def shell(
    sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Shell:
    found = Shell(tmp_path, monkeypatch, capfd)
    (tmp_path / "registry").mkdir()
    shutil.copy(sqlite_template, tmp_path / "registry" / "catalog.sqlite")
    (tmp_path / "july.csv").write_text("id,name\n1,a\n2,b\n")
    (tmp_path / "codes.csv").write_text("code\nAA\n")
    found("init", "registry")
    return found


def test_files_go_in_and_come_out_again(shell: Shell) -> None:
    assert "raw/flights@v1 on main" in shell("put", "raw/flights", "july.csv", "-m", "July")
    assert "unchanged" in shell("put", "raw/flights", "july.csv")
    assert "raw/flights@v2" in shell("put", "raw/flights", "airports=codes.csv")
    assert shell("get", "raw/flights", "data", "-o", "-") == "id,name\n1,a\n2,b\n"
    assert shell("get", "raw/flights", "airports") == "code\nAA\n", "a pipe gets the bytes"
    assert len(shell("get", "raw/flights@v2", "-o", "out").splitlines()) == 2
    assert (shell.folder / "out" / "airports.csv").read_text() == "code\nAA\n"
    assert "exists already" in shell("get", "raw/flights@v2", "-o", "out", code=1)


def test_standard_input_is_a_component(shell: Shell) -> None:
    shell("put", "raw/piped", "-", "--format", "csv", given=b"x,y\n1,2\n")
    found = shell.json("schema", "raw/piped")
    assert [c["name"] for c in found["components"][0]["schema_json"]["tables"][0]["columns"]] == ["x", "y"]


def test_several_files_are_components_by_their_names(shell: Shell) -> None:
    shell("put", "raw/both", "july.csv", "codes.csv", "--type", "metadata")
    found = shell.json("show", "raw/both")["components"]
    assert [(c["component_name"], c["component_type"]) for c in found] == [
        ("codes.csv", "metadata"),
        ("july.csv", "metadata"),
    ]


def test_a_version_is_shown_with_what_it_holds(shell: Shell) -> None:
    shell("put", "raw/flights", "july.csv", "-m", "July")
    printed = shell("show", "raw/flights")
    assert "raw/flights@v1" in printed
    assert "July" in printed
    assert re.search(r"data\s+data\s+csv\s+2\s+16 bytes", printed)
    assert re.search(r"id\s+int64\s+0\s+1\s+2", shell("schema", "raw/flights"))


def test_what_changed_is_told_by_component_and_column(shell: Shell) -> None:
    shell("put", "raw/flights", "july.csv")
    (shell.folder / "august.csv").write_text("id,name,delay\n1,a,5\n")
    shell("put", "raw/flights", "data=august.csv", "airports=codes.csv")
    printed = shell("diff", "raw/flights", "v1")
    assert "raw/flights v1 -> v2" in printed
    assert "+ airports" in printed
    assert "~ data" in printed
    assert "+ delay: int64" in printed
    assert shell("diff", "raw/flights", "v1", "v1").endswith("no difference\n")
    assert shell.json("diff", "raw/flights", "v1")["added"] == [{"component_name": "airports", "component_index": 0}]


def test_a_branched_history_is_drawn(shell: Shell) -> None:
    shell("put", "raw/flights", "july.csv", "-m", "July")
    shell("branch", "create", "raw/flights", "dev")
    shell("put", "raw/flights", "codes.csv", "-m", "on main")
    shell("put", "raw/flights", "codes.csv", "-b", "dev", "-m", "on dev", "--type", "metadata")
    shell("tag", "create", "raw/flights", "first", "v1")
    lines = [re.sub(r" [0-9a-f]{8}| ·.*", "", line) for line in shell("log", "raw/flights", "--all").splitlines()]
    assert lines == [
        "●  v3 (dev) on dev",
        "│ ●  v2 (main) on main",
        "├─╯",
        "●  v1 (tag: first) July",
    ]
    assert [v["version_number"] for v in shell.json("log", "raw/flights@dev")] == [3, 1]


def test_branches_and_tags_are_made_moved_and_listed(shell: Shell) -> None:
    shell("put", "raw/flights", "july.csv")
    shell("put", "raw/flights", "data=codes.csv")
    assert shell.json("branch", "create", "raw/flights", "dev", "v1")["version_number"] == 1
    assert "not at v2 as expected" in shell("branch", "move", "raw/flights", "dev", "v2", "--expect", "v2", code=5)
    assert "dev is at v2" in shell("branch", "move", "raw/flights", "dev", "v2", "--expect", "v1")
    assert [b["pointer_name"] for b in shell.json("branch", "list", "raw/flights")] == ["dev", "main"]
    shell("branch", "delete", "raw/flights", "dev")
    shell("tag", "create", "raw/flights", "v1.0")
    shell("tag", "delete", "raw/flights", "v1.0", "--yes")
    assert "cannot be reused" in shell("tag", "create", "raw/flights", "v1.0", code=1)
    assert "Created pr-1 in 1 dataset" in shell("registry-branch", "create", "pr-1")
    assert [b["name"] for b in shell.json("registry-branch", "list")] == ["pr-1"]
    assert "Deleted pr-1 in 1" in shell("registry-branch", "delete", "pr-1")


def test_a_branch_that_protects_history_does_not_vanish_by_one_word(shell: Shell) -> None:
    for content in ("1", "2", "3"):
        (shell.folder / "f.csv").write_text(f"a\n{content}\n")
        shell("put", "raw/d", "data=f.csv")
    shell("branch", "create", "raw/d", "same", "v3")
    shell("branch", "create", "raw/d", "early", "v1")
    shell("branch", "delete", "raw/d", "early")  # main reaches all of it
    refused = shell("branch", "delete", "raw/d", "main", code=1)
    assert "Delete the branch raw/d@main? No terminal to ask: pass --yes" in refused
    shell("branch", "delete", "raw/d", "same")
    refused = shell("branch", "delete", "raw/d", "main", code=1)
    assert "Then 3 versions are reached by no branch or tag." in refused
    shell("tag", "create", "raw/d", "july", "v2")
    assert "Then 1 version is reached by no branch or tag." in shell("branch", "delete", "raw/d", "main", code=1)
    assert "1 version is reached by no branch or tag" in shell("branch", "delete", "raw/d", "main", "--yes")
    refused = shell("tag", "delete", "raw/d", "july", code=1)
    assert "Its name cannot be reused. And 2 versions are reached by no branch or tag then." in refused
    shell("tag", "delete", "raw/d", "july", "--yes")
    for command in (("show", "raw/d"), ("log", "raw/d"), ("get", "raw/d"), ("diff", "raw/d", "v1")):
        said = shell(*command, code=4)
        assert "It has 3 versions that no branch or tag reaches." in said
        assert "dataset-registry log raw/d --all" in said
    assert "dataset-registry branch create raw/d main v3" in shell("put", "raw/d", "data=july.csv", code=4)
    assert len(shell.json("log", "raw/d", "--all")) == 3
    shell("branch", "create", "raw/d", "main", "v3")
    assert "raw/d@v3" in shell("show", "raw/d")


def test_a_branch_over_all_datasets_that_protects_history_is_asked_about(shell: Shell) -> None:
    for name in ("raw/a", "raw/b"):
        shell("put", name, "july.csv")
    shell("registry-branch", "create", "pr-1")
    shell("put", "raw/a", "data=codes.csv", "-b", "pr-1")
    assert "Then 1 version is reached by no branch or tag." in shell("registry-branch", "delete", "pr-1", code=1)
    assert "Deleted pr-1 in 2" in shell("registry-branch", "delete", "pr-1", "--yes")


def test_a_deleted_branch_is_told_from_a_dataset_without_versions(shell: Shell) -> None:
    shell("dataset", "create", "raw/new")
    assert "Nothing was committed to it yet." in shell("show", "raw/new", code=4)


def test_datasets_and_versions_are_made_changed_and_deleted(shell: Shell) -> None:
    shell("dataset", "create", "raw/a", "-d", "one")
    shell("dataset", "describe", "raw/a", "two")
    shell("dataset", "rename", "raw/a", "raw/b")
    assert [(d["name"], d["description"]) for d in shell.json("datasets", "raw/")] == [("raw/b", "two")]
    for name in ("july.csv", "data=codes.csv"):
        shell("put", "raw/b", name)
    assert [v["version_number"] for v in shell.json("version", "children", "raw/b@v1")] == [2]
    assert "point at it" in shell("version", "delete", "raw/b@v1", "--yes", code=1)
    assert "No terminal to ask" in shell("dataset", "delete", "raw/b", code=1)
    assert "Deleted raw/b with 2 versions" in shell("dataset", "delete", "raw/b", "--yes")
    assert "No dataset 'raw/b'" in shell("show", "raw/b", code=4)


def test_files_are_found_by_their_hash(shell: Shell) -> None:
    shell("put", "raw/flights", "july.csv")
    (found,) = shell.json("file", "list")
    assert found["reference_count"] == 1
    assert shell.json("file", "show", found["content_hash"][:12]) == found
    assert shell("file", "get", found["content_hash"]) == "id,name\n1,a\n2,b\n"


def test_users_act_with_their_permissions(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("put", "raw/flights", "july.csv")
    shell("user", "create", "bob")
    shell("user", "create", "crew", "--kind", "group", "--member", "bob")
    monkeypatch.setenv(target.ACTOR_VARIABLE, "bob")
    assert "No dataset" in shell("show", "raw/flights", code=4)
    monkeypatch.delenv(target.ACTOR_VARIABLE)
    assert "Granted crew read on raw/" in shell("grant", "add", "crew", "read", "raw/")
    monkeypatch.setenv(target.ACTOR_VARIABLE, "bob")
    assert "bob" in shell("whoami")
    assert "raw/flights@v1" in shell("show", "raw/flights")
    assert "this requires write" in shell("put", "raw/flights", "codes.csv", code=6)
    monkeypatch.delenv(target.ACTOR_VARIABLE)
    shell("protect", "add", "raw/", "main", "--allow", "crew")
    assert shell.json("protect", "list", "raw/flights")[0]["allowed"] == ["crew"]
    shell("protect", "remove", "raw/", "main")
    shell("grant", "revoke", "crew", "raw/")
    assert shell.json("grant", "list") == []
    assert "administrator" in shell("user", "update", "bob", "--role", "administrator")
    assert [u["name"] for u in shell.json("user", "list")] == ["bob", "crew"]


def test_a_secret_stands_alone_on_standard_output(shell: Shell) -> None:
    shell("user", "create", "bob")
    assert re.fullmatch(r"dr_[A-Za-z0-9_-]{43}\n", shell("token", "create", "bob", "--lasts", "30d"))
    (found,) = shell.json("token", "list", "bob")
    assert "secret" not in found
    assert "Revoked" in shell("token", "revoke", str(found["id"]))
    assert "revoked" in shell("token", "list")


def test_who_did_what_is_listed_exported_and_checked(shell: Shell) -> None:
    shell("put", "raw/flights", "july.csv")
    assert [(e["action"], e["interface"]) for e in shell.json("audit", "list")] == [
        ("commit", "cli"),
        ("dataset.create", "cli"),
    ]
    assert "2 entries sealed" in shell("audit", "seal")
    exported = [json.loads(line) for line in shell("audit", "export").splitlines()]
    assert [e["action"] for e in exported] == ["dataset.create", "commit"]
    assert "no tampering found" in shell("audit", "check")


def test_a_served_registry_is_used_like_a_folder(served: Served, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    served.owner.create_user("admin", role="administrator")
    monkeypatch.setenv(target.FOLDER_VARIABLE, served.url)
    monkeypatch.setenv(target.TOKEN_VARIABLE, served.token("admin"))
    assert "raw/flights@v1" in shell("put", "raw/flights", "july.csv")
    assert shell("get", "raw/flights") == "id,name\n1,a\n2,b\n"
    assert "admin" in shell("status")
    assert "no findings" in shell("verify", "--deep")
    monkeypatch.setenv(target.TOKEN_VARIABLE, "dr_wrong")
    assert "Invalid token" in shell("status", code=6)


def test_every_command_has_help_that_says_what_it_does(shell: Shell) -> None:
    pending: list[tuple[list[str], Any]] = [([], typer.main.get_command(cli.app))]
    seen = 0
    while pending:
        path, command = pending.pop()
        if hasattr(command, "commands"):
            pending += [([*path, name], inner) for name, inner in command.commands.items()]
            continue
        assert command.help, path
        assert "Usage:" in shell(*path, "--help")
        seen += 1
    assert seen > 45


def test_names_and_refs_are_completed_in_the_shell(shell: Shell) -> None:
    shell("put", "raw/flights", "july.csv")
    shell("tag", "create", "raw/flights", "nightly")
    context = typer.Context(typer.main.get_command(cli.app))
    context.params = {"registry": str(shell.folder / "registry"), "dataset": "raw/flights"}
    assert target.complete_dataset(context, "ra") == ["raw/flights"]
    assert target.complete_address(context, "raw/flights@n") == ["raw/flights@nightly"]
    assert target.complete_ref(context, "") == ["main", "nightly"]
    context.params = {}
    assert target.complete_address(context, "raw") == []
