"""What is imported when: nobody waits for libraries that the work at hand does not need."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "sqlalchemy",
    "alembic",
    "pyarrow",
    "duckdb",
    "numpy",
    "pandas",
    "polars",
    "pydantic",
    "dagster",
    "obstore",
    "httpx",
}


def imported(code: str, folder: Path) -> set[str]:
    """The heavy libraries that a fresh interpreter has imported after this code."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    return HEAVY & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import dataset_registry", set()),
        ("import dataset_registry.cli", set()),
        ("from dataset_registry import Registry", set()),
        ("import dataset_registry.embedded", {"sqlalchemy"}),
        ("import dataset_registry.remote", {"httpx", "pydantic"}),
        ("import dataset_registry.dagster_io", {"dagster", "pyarrow", "numpy", "pydantic"}),
        ("from dataset_registry import Policy, Provenance, RegistryError", set()),
    ],
)
def test_an_import_brings_what_it_needs(code: str, expected: set[str], tmp_path: Path) -> None:
    assert imported(code, tmp_path) == expected


def test_plain_bytes_go_in_and_out_without_the_libraries_of_tables(sqlite_url: str, tmp_path: Path) -> None:
    code = f"""
from dataset_registry import Registry
with Registry.open(catalog={sqlite_url!r}, store="store") as registry:
    version = registry.create_dataset("d").commit({{"a": b"bytes"}})
    assert version.open("a").read() == b"bytes"
    registry.dataset("d").log()
"""
    assert imported(code, tmp_path) == {"sqlalchemy"}


def test_the_public_names_are_all_there() -> None:
    import dataset_registry

    assert set(dataset_registry.__all__) <= set(dir(dataset_registry))
    assert all(hasattr(dataset_registry, name) for name in dataset_registry.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = dataset_registry.Nothing
