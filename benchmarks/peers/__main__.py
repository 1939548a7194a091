"""`python -m benchmarks.peers install [name …]`: make the environments of the peers; `list` says which are there.

Python packages come from hashed, compiled requirements; Debian's are unpacked into a folder, so that nothing outside of
`.cache/peers` changes. `compile [name …]` resolves the requirements again from what `WANTED` says.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import DEBIAN, ENVIRONMENTS, REQUIREMENTS

WANTED = {
    "ducklake": ("duckdb==1.5.5", "duckdb-extension-ducklake==1.5.5", "duckdb-extension-tpch==1.5.5", "pyarrow"),
    "delta": ("deltalake", "pyarrow"),
    "iceberg": ("pyiceberg[pyarrow,sql-sqlite]",),
    "lance": ("pylance", "pyarrow"),
    "icechunk": ("icechunk", "pyarrow", "zarr"),
    "dvc": ("dvc", "pyarrow"),
    "oxen": ("oxenai", "pyarrow"),
    "engines": ("dask[dataframe]", "duckdb", "pandas", "polars", "pyarrow", "pyspark"),
    "xet": ("hf-xet", "pyarrow"),
    "dagster": (
        *("dagster", "dagster-deltalake", "dagster-duckdb-pandas", "dagster-iceberg"),
        *("pyarrow", "pyiceberg[pyarrow,sql-sqlite]"),
    ),
}
"""What each environment of Python packages is for. `ducklake` also generates the data."""


def main(arguments: list[str]) -> int:
    """Install, compile or list."""
    what, *names = arguments or ["list"]
    known = [*WANTED, *DEBIAN]
    if what not in ("install", "compile", "list") or not set(names) <= set(known):
        print(f"python -m benchmarks.peers install|compile|list [{'|'.join(known)}]")
        return 2
    failed = []
    for name in names or known:
        if what == "list":
            print(f"{name:10} {'installed' if (ENVIRONMENTS / name / '.ready').exists() else '-'}")
        elif what == "install" or name in WANTED:
            try:
                _install(name) if what == "install" else _compile(name)
                print(f"{name:10} {what}: done")
            except (OSError, subprocess.CalledProcessError) as error:
                failed.append(name)
                reason = getattr(error, "stderr", None) or str(error)
                print(f"{name:10} {what}: failed\n{reason.strip()[-600:]}")
    return 1 if failed else 0


def _install(name: str) -> None:
    folder = ENVIRONMENTS / name
    if (folder / ".ready").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if name in DEBIAN:
        _unpack(folder, DEBIAN[name])
    else:
        _run("uv", "venv", "--quiet", "--python", sys.executable, str(folder))
        requirements = str(REQUIREMENTS / f"{name}.txt")
        _run("uv", "pip", "install", "--require-hashes", "-r", requirements, VIRTUAL_ENV=str(folder))
    (folder / ".ready").touch()


def _unpack(folder: Path, packages: tuple[str, ...]) -> None:
    """Download packages and unpack them. What Debian has them depend on beyond these is there on any of its systems."""
    folder.mkdir()
    try:
        _run("apt-get", "download", *packages, cwd=folder)
    except subprocess.CalledProcessError:  # the lists of packages are not there or old
        _run("apt-get", "update")
        _run("apt-get", "download", *packages, cwd=folder)
    for package in folder.glob("*.deb"):
        _run("dpkg", "-x", str(package), str(folder))
        package.unlink()


def _compile(name: str) -> None:
    target = REQUIREMENTS / f"{name}.txt"
    _run(
        *("uv", "pip", "compile", "-", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header"),
        *("--upgrade", "--quiet", "-o", str(target)),
        given="\n".join(WANTED[name]),
    )


def _run(program: str, *arguments: str, cwd: Path | None = None, given: str | None = None, **variables: str) -> None:
    beside = Path(sys.executable).parent / program
    subprocess.run(
        [beside if beside.exists() else program, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=cwd,
        input=given,
        env=os.environ | variables,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
