"""A served gallery, clients that are signed in, and a real browser."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dataset_registry import Registry
from tests import serving
from tests.pages.gallery import fill
from tests.waiting import SAFETY

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@pytest.fixture(scope="session")
def gallery(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Served]:
    """A server over a gallery, with users: admin, writer and reader of `raw/` and `clean/`, and a guest. It is shared: tests
    change nothing that others look at."""
    folder = tmp_path_factory.mktemp("gallery")
    shutil.copy(sqlite_template, folder / "catalog.sqlite")
    place = {"catalog": f"sqlite:///{folder / 'catalog.sqlite'}", "store": str(folder / "store")}
    with Registry.open(**place) as owner:
        fill(owner, folder / "files")
        owner.create_user("admin", role="administrator")
        for name, permission in (("writer", "write"), ("reader", "read"), ("guest", None)):
            owner.create_user(name, role="guest")
            for prefix in ("raw/", "clean/") if permission else ():
                owner.grant(name, permission, prefix)  # type: ignore[arg-type]
    with serving.in_thread(**place, seal_seconds=0.0) as served:
        yield served


Client = Callable[..., httpx.Client]


@pytest.fixture(scope="session")
def signed_in(gallery: serving.Served) -> Iterator[Client]:
    """Clients of the pages, signed in as a user of the gallery: `signed_in("reader")`."""
    made: dict[str, httpx.Client] = {}

    def client(user: str) -> httpx.Client:
        if user not in made:
            made[user] = sign_in(gallery, user)
        return made[user]

    yield client
    for found in made.values():
        found.close()


def sign_in(served: serving.Served, user: str) -> httpx.Client:
    """A client with a session of its own."""
    client = httpx.Client(base_url=served.url, timeout=SAFETY)
    answer = client.post("/sign-in", data={"token": served.token(user)})
    assert answer.status_code == 303, answer.text
    return client


def form_key(client: httpx.Client) -> str:
    """The hidden field of the forms of a session."""
    return client.get("/").text.partition('name="form_key" value="')[2].partition('"')[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium (`make browser` installs it). Of one module: while it is open, its thread has a running event loop."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield launched
        launched.close()
