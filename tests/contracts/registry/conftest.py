"""Registries for the scenarios: embedded, on PostgreSQL and S3, and over REST.

Most scenarios share one registry of each way and have datasets of their own in it; those about maintenance have an empty one.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.remote import contents as remote_contents
from tests.conftest import _catalog
from tests.contracts.scenarios import (
    REST_ON_SERVERS,
    WAYS,
    Way,
    reached,
    s3_store,
)

_prefixes = count(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of downloads that goes with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("downloads")
        patch.setattr(remote_contents, "cache_folder", lambda: folder)
        yield


def place_of(request: pytest.FixtureRequest, kind: str, folder: Path) -> tuple[str, str]:
    on_servers = "postgresql" in kind
    catalog = _catalog(request, "postgresql" if on_servers else "sqlite", folder)
    return catalog, s3_store(request.getfixturevalue("s3_server"), folder) if on_servers else str(folder / "store")


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """A registry that the scenarios of a way share; `pytest_generate_tests` says which ways."""
    kind = request.param
    with reached(kind, *place_of(request, kind, tmp_path_factory.mktemp("registry"))) as way:
        yield way


@pytest.fixture
def way(shared: Way, request: pytest.FixtureRequest) -> Way:
    """A registry that the scenarios of a way share."""
    return shared


@pytest.fixture
def any_registry(way: Way) -> Registry:
    """The same, as a registry: every caller is an administrator."""
    return way.registry


@pytest.fixture(params=WAYS)
def alone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    """An empty registry of this scenario alone."""
    with reached(request.param, *place_of(request, request.param, tmp_path)) as way:
        yield way


@pytest.fixture
def prefix() -> str:
    """What the names of a scenario's datasets begin with."""
    return f"s{next(_prefixes)}/"


@pytest.fixture
def flights(any_registry: Registry, prefix: str) -> Dataset:
    """An empty dataset."""
    return any_registry.create_dataset(f"{prefix}flights")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All scenarios run over three ways; those that say so on REST over PostgreSQL and S3 too."""
    if "shared" in metafunc.fixturenames:
        everywhere = getattr(metafunc.function, "everywhere", False)
        metafunc.parametrize("shared", [*WAYS, REST_ON_SERVERS] if everywhere else WAYS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def rest(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Way]:
    """A server on SQLite and a folder, for what goes wrong on the way to it."""
    with reached("rest", *place_of(request, "rest", tmp_path_factory.mktemp("wired"))) as way:
        yield way
