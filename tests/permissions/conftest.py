"""One world for all of the matrix: what was changed is taken back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_registry import Registry
from dataset_registry.catalog import engine
from tests import serving
from tests.permissions.world import Template, World, built


@pytest.fixture(scope="session")
def world(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world on SQLite, served."""
    folder = tmp_path_factory.mktemp("permissions")
    catalog = folder / "catalog.sqlite"
    catalog.write_bytes(sqlite_template.read_bytes())
    with built(f"sqlite:///{catalog}", folder) as found:
        yield found


@pytest.fixture(scope="session")
def template(world: World) -> Iterator[Template]:
    """What the world looked like."""
    found = Template(Path(world.catalog.removeprefix("sqlite:///")))
    yield found
    found.close()


@pytest.fixture
def owner(sqlite_url: str, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry on SQLite, as its owner."""
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture(scope="session")
def _server(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Served]:
    folder = tmp_path_factory.mktemp("served")
    catalog = folder / "catalog.sqlite"
    catalog.write_bytes(sqlite_template.read_bytes())
    with serving.in_thread(catalog=f"sqlite:///{catalog}", store=str(folder / "store"), seal_seconds=0) as found:
        yield found


@pytest.fixture
def served(_server: serving.Served) -> Iterator[serving.Served]:
    """A server over an empty registry: one for all tests, whose catalog is emptied behind its back."""
    empty = Template(Path(str(_server.owner.access.catalog.path)))
    yield _server
    empty.restore()
    empty.close()
    for catalog in engine._open_catalogs:
        catalog.user_ids.clear()
