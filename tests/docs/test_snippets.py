"""Every snippet of the documentation runs, and prints what it says."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tests.engines.clusters import local_ray
from tests.serving import Served

SERVER = "https://registry.example.com"
ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_PYTHON = [page for page in PAGES if "```python" in page.read_text()]
WITH_CONSOLE = [page for page in PAGES if "```console" in page.read_text()]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def says(printed: str, expected: str) -> bool:
    """Whether the output has the expected lines, in order; `…` stands for anything, and columns may be as wide as they are."""
    printed, expected = (re.sub("[ \t]+", " ", text) for text in (printed, expected))
    pattern = ".*".join(
        ".*".join(re.escape(piece) for piece in line.split("…")) for line in expected.strip().splitlines()
    )
    return re.search(pattern, printed, flags=re.DOTALL) is not None


@pytest.fixture
def _ray() -> Iterator[None]:
    with local_ray():
        yield


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "docs"}
    if page.name == "engines.md":
        monkeypatch.setenv("DATASET_REGISTRY", str(tmp_path / "registry"))  # which it sets; for Ray's workers
        request.getfixturevalue("_ray")
    if page.name == "operations.md":
        url = request.getfixturevalue("sqlite_url")
        names["CATALOG"] = url
        page_text = page.read_text()
        assert 'store="/srv/registry"' in page_text
    server: Served | None = (
        request.getfixturevalue("served") if any(SERVER in b for b in blocks(page, "python")) else None
    )
    if server is not None:
        server.owner.create_user("alice", role="administrator")
        monkeypatch.setenv("DATASET_REGISTRY_TOKEN", server.token("alice"))
    for _ in range(2 if page.name in ("README.md", "guides.md") else 1):  # those are pasted twice
        printed = StringIO()
        with redirect_stdout(printed):
            for block in blocks(page, "python"):
                block = block.replace("/srv/registry", str(tmp_path / "srv"))  # noqa: PLW2901
                block = block.replace(SERVER, server.url) if server is not None else block  # noqa: PLW2901
                exec(compile(block, name(page), "exec"), names if page.name != "README.md" else {"__name__": "docs"})
        if page.name == "README.md":
            expected = re.findall(r"```python\n[^`]*```\n\n```text\n(.*?)```", page.read_text(), flags=re.DOTALL)
            assert len(expected) == 2
            assert says(printed.getvalue(), "".join(expected)), printed.getvalue()


@pytest.mark.parametrize("page", WITH_CONSOLE, ids=name)
def test_the_commands_of_a_page_print_what_it_says(
    page: Path, tmp_path: Path, quick: Path, request: pytest.FixtureRequest
) -> None:
    path = os.pathsep.join([str(quick), str(Path(sys.executable).parent), os.environ["PATH"]])
    text = "\n".join(blocks(page, "console"))
    if SERVER in text:
        served: Served = request.getfixturevalue("served")
        served.owner.create_user("alice", role="administrator")
        served.owner.create_user("bob")
        text = text.replace(SERVER, served.url).replace("$ALICE", served.token("alice"))
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, flags=re.MULTILINE):
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": path},
        )
        assert done.returncode == 0, done.stderr
        assert says(done.stdout, expected), f"{command}\n{done.stdout}\nis not\n{expected}"


def test_the_pages_link_to_what_is_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{name(page)} links to {target}"
