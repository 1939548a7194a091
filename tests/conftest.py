"""Fixtures: real registries, on SQLite and on PostgreSQL, each test its own; the servers are shared by a session."""

import gc
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlalchemy.util import LRUCache

from dataset_registry import Dataset, Registry
from dataset_registry.catalog import Catalog, engine, migrate
from tests import fresh, servers, serving, warm

DATABASES = ("sqlite", "postgresql")

# The processes that tests start import the package: none of them should compile it again, whatever the environment says.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
_TOKEN = re.compile(r"dr_[A-Za-z0-9_-]{43}")
_numbers = count(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
    """Fail every test in whose log or standard error a token appears, whatever it is about."""
    report = yield
    if _TOKEN.search(report.capstderr + report.caplog) is not None:
        report.outcome = "failed"
        report.longrepr = "A token stands in the log of this test."
    return report


class _Compiled(LRUCache[Any, Any]):
    """Statements that were compiled, for every catalog of this process: each has an engine and a dialect of its own."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__((key[0].name, *key[1:]))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__((key[0].name, *key[1:]), value)

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((key[0].name, *key[1:]), default)


_compiled = _Compiled(4000)
_create_engine = engine.create_engine


def _engine_that_shares(*arguments: Any, **options: Any) -> Engine:
    made = _create_engine(*arguments, **options)
    made.update_execution_options(compiled_cache=_compiled)
    return made


engine.create_engine = _engine_that_shares
_revisions: dict[str | None, ScriptDirectory] = {}
_read_revisions = ScriptDirectory.from_config


def _revisions_that_were_read(config: Config) -> ScriptDirectory:
    """The revisions of a folder, read once: Alembic runs all their files before each step."""
    place = config.get_main_option("script_location")
    if place not in _revisions:
        _revisions[place] = _read_revisions(config)
    return _revisions[place]


ScriptDirectory.from_config = _revisions_that_were_read  # type: ignore[method-assign]
warm.share_commands()


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look at it after every test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _contents_in_the_catalog(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests about objects of the store, and about older revisions, use small contents; they have objects then."""
    if request.node.get_closest_marker("objects") is not None or "migrations" in request.node.path.parts:
        monkeypatch.setenv("DATASET_REGISTRY_INLINE_BYTES", "0")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[servers.PostgreSQL]:
    """A PostgreSQL server of this session, with a database `template_registry` that has a catalog."""
    with servers.killable_postgresql() as server:
        servers.create_database(server.url, "template_registry", "template1")
        template = Catalog(_address(server.url, "template_registry"))
        migrate.upgrade(template)
        template.close()
        yield server


@pytest.fixture(scope="session")
def postgresql_url(postgresql_server: servers.PostgreSQL) -> str:
    """The URL of this session's PostgreSQL server."""
    return postgresql_server.url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server of this session: the URL of its bucket."""
    with servers.s3() as url:
        yield url


@pytest.fixture
def s3_url(s3_server: str, tmp_path: Path) -> str:
    """The URL of an empty store in an S3 bucket, with a cache of its own."""
    bucket, _, options = s3_server.partition("?")
    return f"{bucket}/registry-{uuid4().hex}?{options}&cache={tmp_path / 'cache'}"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite catalog to copy: migrating anew would take longer than most tests."""
    path = tmp_path_factory.mktemp("template") / "catalog.sqlite"
    fresh.catalog(path)
    return path


@pytest.fixture(params=DATABASES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, on each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.sqlite'}"
    return _database(request, f"empty_{next(_numbers)}", "template1")


@pytest.fixture(params=DATABASES)
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a catalog at the newest revision, on each kind of database."""
    return _catalog(request, request.param, tmp_path)


@pytest.fixture
def sqlite_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a SQLite catalog at the newest revision, for what has nothing to do with the database."""
    return _catalog(request, "sqlite", tmp_path)


@pytest.fixture
def postgresql_catalog(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a PostgreSQL catalog at the newest revision, for races that need two transactions at once."""
    return _catalog(request, "postgresql", tmp_path)


@pytest.fixture
def registry(catalog_url: str, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry, on each kind of database, with a folder for a store."""
    with Registry.open(catalog=catalog_url, store=str(tmp_path / "store"), actor="alice") as opened:
        yield opened


@pytest.fixture
def embedded(sqlite_url: str, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry on SQLite."""
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store"), actor="alice") as opened:
        yield opened


@pytest.fixture(params=["sqlite-folder", "postgresql-s3"])
def owned(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry as its owner opens it, on SQLite with a folder and on PostgreSQL with S3."""
    database, store = request.param.split("-")
    location = request.getfixturevalue("s3_url") if store == "s3" else str(tmp_path / "store")
    with Registry.open(catalog=_catalog(request, database, tmp_path), store=location) as opened:
        yield opened


@pytest.fixture
def served(sqlite_url: str, tmp_path: Path) -> Iterator[serving.Served]:
    """A server over an empty registry on SQLite, in a thread."""
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store")) as found:
        yield found


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a `dataset-registry` that starts at once."""
    with warm.commands(tmp_path_factory.mktemp("warm")) as found:
        yield found


@pytest.fixture
def flights(registry: Registry) -> Dataset:
    """An empty dataset, on each kind of database."""
    return registry.create_dataset("raw/flights")


@pytest.fixture
def rows(registry: Registry) -> Callable[..., SimpleNamespace]:
    """How many rows each table of the registry's catalog has: `rows().files`; to see that nothing was left behind."""
    from sqlalchemy import func, select

    from dataset_registry.catalog.tables import metadata

    def count_rows() -> SimpleNamespace:
        with registry.access.catalog.read() as tx:
            return SimpleNamespace(
                **{t.name: tx.execute(select(func.count()).select_from(t)).scalar() for t in metadata.tables.values()}
            )

    return count_rows


def _catalog(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> str:
    if kind == "sqlite":
        path = tmp_path / "catalog.sqlite"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    return _database(request, f"registry_{next(_numbers)}", "template_registry")


def _database(request: pytest.FixtureRequest, name: str, template: str) -> str:
    """The URL of a database on this session's server, for as long as the fixture that asks for it."""
    url = request.getfixturevalue("postgresql_url")
    servers.create_database(url, name, template)
    request.addfinalizer(lambda: servers.drop_database(url, name))
    return _address(url, name)


def _address(server: str, name: str) -> str:
    return server.rpartition("/")[0].replace("postgresql://", "postgresql+psycopg://") + f"/{name}"
