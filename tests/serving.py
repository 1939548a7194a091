"""Servers for tests: in a thread of the test's process (quick), or as the process that users start (for killing it)."""

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import routing

from dataset_registry import Registry
from dataset_registry.server.app import create_app
from dataset_registry.server.settings import Settings
from tests.waiting import SAFETY, until


def _share_routes() -> None:
    """Let the routes of a module be analysed once, and not for every server: that is most of what a server costs a test.

    What FastAPI makes of a route depends on the route and on where it is included; the server is asked for at each request.
    """
    contexts = getattr(routing, "_EffectiveRouteContext", None)
    if contexts is None:  # another FastAPI
        return
    made: dict[tuple[int, str], Any] = {}
    make = contexts.from_api_route

    def shared(*, original_route: Any, include_context: Any) -> Any:
        if "<locals>" in original_route.endpoint.__qualname__:
            return make(original_route=original_route, include_context=include_context)
        key = (id(original_route), include_context.prefix)
        if key not in made:
            made[key] = make(original_route=original_route, include_context=include_context)
        return made[key]

    contexts.from_api_route = shared


_share_routes()
# No server of a test has TLS: a client need not read the certificates of all authorities, which takes longer than most requests.
ssl.create_default_context = cache(ssl.create_default_context)


class _Server(uvicorn.Server):
    """A server that looks more often whether it should stop: many tests are shorter than the time between two looks."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(0.01)


@dataclass
class Served:
    """A server: its address, and a registry of its owner to look at and to make users with, past all doors."""

    url: str
    owner: Registry
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    clients: list[Registry] = field(default_factory=list)

    def token(self, user: str, **options: object) -> str:
        """The secret of a new token of a user, made if there is none."""
        if user not in {found.name for found in self.owner.users()}:
            self.owner.create_user(user)
        return self.owner.create_token(user, **options).secret  # type: ignore[arg-type]

    def registry(self, user: str = "admin", **options: object) -> Registry:
        """The registry over REST as a user; `admin` is an administrator."""
        if user == "admin" and user not in {found.name for found in self.owner.users()}:
            self.owner.create_user(user, role="administrator")
        opened = Registry.open(self.url, token=self.token(user, **options))
        self.clients.append(opened)
        return opened

    def http(self, user: str = "admin", **options: object) -> httpx.Client:
        """Plain HTTP as a user, below `/v1/`."""
        if user == "admin" and user not in {found.name for found in self.owner.users()}:
            self.owner.create_user(user, role="administrator")
        headers = {"Authorization": f"Bearer {self.token(user, **options)}"}
        return httpx.Client(base_url=self.url + "/v1/", headers=headers, timeout=SAFETY)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.owner.close()


@contextmanager
def in_thread(*, catalog: str, store: str, **settings: object) -> Iterator[Served]:
    """A server in a thread of this process."""
    app = create_app(Settings(catalog=catalog, store=store, **settings))  # type: ignore[arg-type]
    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, name="rest", daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started, "the server did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    served = Served(f"http://127.0.0.1:{port}", Registry.open(catalog=catalog, store=store))
    try:
        yield served
    finally:
        served.close()
        server.should_exit = True
        thread.join(SAFETY)
        assert not thread.is_alive(), "the server did not stop"


@contextmanager
def in_process(*, catalog: str, store: str, log: Path, **environment: str) -> Iterator[Served]:
    """A server as users start it; `environment` are settings in capitals (`CONCURRENCY="4"`)."""
    port = _free_port()
    command = [sys.executable, "-c", "from dataset_registry.cli import main; main()"]
    command += ["serve", "--catalog", catalog, "--store", store, "--port", str(port)]
    given = {f"DATASET_REGISTRY_{name}": value for name, value in environment.items()}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **given}, stderr=output, stdout=output)
    served = Served(f"http://127.0.0.1:{port}", Registry.open(catalog=catalog, store=store), process, log)
    try:
        _wait(served, process)
        yield served
    finally:
        served.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(SAFETY)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(served: Served, process: subprocess.Popen[bytes]) -> None:
    def ready() -> bool:
        assert process.poll() is None, served.log and served.log.read_text()
        try:
            return httpx.get(served.url + "/ready", timeout=SAFETY).status_code == 200
        except httpx.TransportError:
            return False

    until(ready, what="the server answered")


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
