"""Registries that need not be migrated from nothing: that takes longer than most tests."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from dataset_registry.catalog import Catalog
from dataset_registry.catalog.opening import make_ready


@cache
def _migrated() -> bytes:
    """The file of a SQLite catalog at the newest revision, made once in this process."""
    with TemporaryDirectory() as folder:
        catalog = Catalog(f"sqlite:///{folder}/catalog.sqlite")
        make_ready(catalog)
        catalog.close()
        return Path(folder, "catalog.sqlite").read_bytes()


def catalog(path: Path) -> str:
    """Put a SQLite catalog there that has the newest revision and no rows; its URL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_migrated())
    return f"sqlite:///{path}"


def folder(path: Path) -> Path:
    """The folder of an empty registry."""
    catalog(path / "catalog.sqlite")
    return path
