"""Fixtures for the tests of the server: clients that get closed, and a server over a full registry."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import serving
from tests.server.support import Prepared, prepare
from tests.waiting import SAFETY

Client = Callable[..., httpx.Client]


@pytest.fixture
def clients() -> Iterator[Client]:
    """Plain HTTP clients of a server as a user, below `/v1/`: `clients(served, "bob")`; without a user, without a token."""
    with ExitStack() as stack:

        def client(served: serving.Served, user: str | None = "admin", **options: Any) -> httpx.Client:
            if user is None:
                return stack.enter_context(httpx.Client(base_url=served.url + "/v1/", timeout=SAFETY))
            return stack.enter_context(served.http(user, **options))

        yield client


@pytest.fixture
def http(served: serving.Served, clients: Client) -> httpx.Client:
    """An administrator's client of `served`."""
    return clients(served)


@pytest.fixture(scope="session")
def _prepared(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prepared]:
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copy(sqlite_template, folder / "catalog.sqlite")
    with serving.in_thread(**_place(folder), seal_seconds=0.0) as served:
        return folder, prepare(served, datasets=12)


def _place(folder: Path) -> dict[str, str]:
    return {"catalog": f"sqlite:///{folder / 'catalog.sqlite'}", "store": str(folder / "store")}


@pytest.fixture
def full(_prepared: tuple[Path, Prepared], tmp_path: Path) -> Iterator[tuple[serving.Served, Prepared]]:
    """A server over a registry that has something of everything; it seals nothing by itself."""
    folder, prepared = _prepared
    shutil.copytree(folder / "store", tmp_path / "store")
    shutil.copy(folder / "catalog.sqlite", tmp_path)
    with serving.in_thread(**_place(tmp_path), seal_seconds=0.0, body_seconds=30.0) as served:
        yield served, deepcopy(prepared)


@pytest.fixture
def process(sqlite_url: str, tmp_path: Path) -> Iterator[serving.Served]:
    """A server as users start it, over an empty registry on SQLite."""
    with serving.in_process(catalog=sqlite_url, store=str(tmp_path / "store"), log=tmp_path / "log") as found:
        yield found
