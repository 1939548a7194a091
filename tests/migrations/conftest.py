"""Databases of this folder: made once, and copied for the tests that change them."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.model.maintenance import Adoption
from tests import servers
from tests.conftest import DATABASES
from tests.migrations import support

_numbers = count(1)

NewUrl = Callable[[str], str]


@pytest.fixture(scope="session")
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewUrl:
    """Make a database without tables, for fixtures that outlive a test; `empty_url` is the same for one test."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('migrations') / 'catalog.sqlite'}"
        return _create(request.getfixturevalue("postgresql_url"), None)

    return make


def _create(server: str, template: str | None) -> str:
    name = f"migrations_{next(_numbers)}"
    servers.create_database(server, name, template or "template1")
    return server.rpartition("/")[0].replace("postgresql://", "postgresql+psycopg://") + f"/{name}"


@dataclass(frozen=True)
class Legacy:
    """A baseline catalog and what is in it."""

    kind: str
    url: str
    baseline: support.Baseline


@pytest.fixture(scope="session", params=DATABASES)
def upgraded(request: pytest.FixtureRequest, new_url: NewUrl, tmp_path_factory: pytest.TempPathFactory) -> Legacy:
    """A baseline of 20 datasets without a revision table, upgraded to head. For reading only."""
    catalog = Catalog(new_url(request.param))
    support.create_baseline(catalog)
    baseline = support.fill_baseline(catalog, tmp_path_factory.mktemp("legacy files"))
    migrate.upgrade(catalog)
    catalog.close()
    return Legacy(request.param, catalog.url.render_as_string(hide_password=False), baseline)


@pytest.fixture
def legacy(upgraded: Legacy, request: pytest.FixtureRequest, tmp_path: Path) -> Legacy:
    """A copy of `upgraded` to change."""
    return Legacy(upgraded.kind, copy(upgraded, request, tmp_path), upgraded.baseline)


def copy(source: Legacy, request: pytest.FixtureRequest, folder: Path) -> str:
    """A copy of a catalog that nobody has open; its URL."""
    if source.kind == "sqlite":
        target = folder / "legacy.sqlite"
        shutil.copy(source.url.removeprefix("sqlite:///"), target)
        return f"sqlite:///{target}"
    return _create(request.getfixturevalue("postgresql_url"), source.url.rpartition("/")[2])


@pytest.fixture
def old(legacy: Legacy, tmp_path: Path) -> Iterator[Registry]:
    """The upgraded registry that was not adopted yet."""
    with Registry.open(catalog=legacy.url, store=str(tmp_path / "store"), actor="ada") as registry:
        yield registry


@dataclass(frozen=True)
class Adopted:
    """A legacy catalog after its adoption, and what that said."""

    registry: Registry
    catalog: Catalog
    baseline: support.Baseline
    adoption: Adoption
    again: Adoption


@pytest.fixture(scope="session")
def adopted(
    upgraded: Legacy, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Adopted]:
    """The 20 datasets, adopted, and adopted once more. For reading only."""
    folder = tmp_path_factory.mktemp("adopted")
    url = copy(upgraded, request, folder)
    with Registry.open(catalog=url, store=str(folder / "store"), actor="ada") as registry:
        catalog = Catalog(url)
        adoption = registry.adopt()
        rows = support.snapshot(catalog)
        again = registry.adopt()
        assert support.snapshot(catalog) == rows, "a second adoption changes no row"
        yield Adopted(registry, catalog, upgraded.baseline, adoption, again)
        catalog.close()


@dataclass(frozen=True)
class Small:
    """A baseline to fill by hand: `upgrade()` brings it to head and opens it."""

    catalog: Catalog
    folder: Path

    def upgrade(self) -> Registry:
        migrate.upgrade(self.catalog)
        url = self.catalog.url.render_as_string(hide_password=False)
        return Registry.open(catalog=url, store=str(self.folder / "store"), actor="ada")


@pytest.fixture
def catalog(empty_url: str) -> Iterator[Catalog]:
    """A database without tables, as a catalog, on each kind of database."""
    opened = Catalog(empty_url)
    yield opened
    opened.close()


@pytest.fixture
def small(empty_url: str, tmp_path: Path) -> Iterator[Small]:
    """An empty baseline catalog without a revision table."""
    catalog = Catalog(empty_url)
    support.create_baseline(catalog)
    yield Small(catalog, tmp_path)
    catalog.close()
