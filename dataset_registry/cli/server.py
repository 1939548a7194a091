"""The commands that run a server."""

import socket
import threading
import webbrowser
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from dataset_registry.cli import target
from dataset_registry.cli.output import say
from dataset_registry.cli.target import AnyCatalog, AnyStore, Folder
from dataset_registry.errors import InputError
from dataset_registry.model.extras import missing

if TYPE_CHECKING:
    from dataset_registry.server.settings import Settings

app = typer.Typer()


@app.command()
def serve(
    context: typer.Context,
    registry: Folder = None,
    catalog: AnyCatalog = None,
    store: AnyStore = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8600,
    workers: Annotated[
        int, typer.Option(help="Processes that share the port. SIGHUP replaces them one by one.", min=1, max=256)
    ] = 1,
    compress: Annotated[bool, typer.Option("--compress", help="Compress new CSV and JSON files.")] = False,
) -> None:
    """Serve a registry over REST until SIGTERM or Ctrl-C; running requests are finished first.

    Limits come from the environment (DATASET_REGISTRY_CONCURRENCY, …). The server speaks HTTP: put a proxy that
    terminates TLS in front of it if other machines can reach it.
    """
    settings = _settings(context, registry, catalog, store, compression="zstd" if compress else None)
    from dataset_registry.server.app import serve as run

    run(settings, host, port, workers=workers)


@app.command()
def ui(
    context: typer.Context,
    page: Annotated[str, typer.Argument(help="The page to open, such as /datasets/raw/flights@main.")] = "/",
    registry: Folder = None,
    catalog: AnyCatalog = None,
    store: AnyStore = None,
    port: Annotated[int, typer.Option(help="The port to listen on; any free one if it is taken.")] = 8601,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
) -> None:
    """Open the pages of a registry in the browser: history, comparisons, lineage, reviews.

    They are for you alone: served on this machine only, at an address with a key. They act as the owner of the registry.
    Ctrl-C stops it. A server of a team has the same pages (see `serve`).
    """
    settings = _settings(context, registry, catalog, store)
    from dataset_registry.server.app import serve as run
    from dataset_registry.server.pages.sessions import LocalOwner

    owner = LocalOwner()
    with socket.socket() as listening:
        try:
            listening.bind((_LOOPBACK, port))
        except OSError:
            listening.bind((_LOOPBACK, 0))
        own_port = listening.getsockname()[1]
        following = f"&next={quote(page)}" if page != "/" else ""
        address = f"http://{_LOOPBACK}:{own_port}/sign-in?key={owner.key}{following}"
        say(f"The pages are at {address}")
        if browser:
            threading.Timer(_SECONDS_TO_START, webbrowser.open, (address,)).start()
        run(settings, _LOOPBACK, own_port, owner, listening)


_LOOPBACK = "127.0.0.1"
_SECONDS_TO_START = 1.0
"""Seconds until the browser is opened: the socket listens by then."""


def _settings(
    context: typer.Context,
    registry: str | None,
    catalog: str | None,
    store: str | None,
    compression: str | None = None,
) -> "Settings":
    """The settings of a server for the registry that the options select. Raises `InputError`."""
    try:
        import dataset_registry.server.app  # noqa: F401 - what it needs is there
        from dataset_registry.server.settings import Settings
    except ImportError as error:
        raise missing(error.name or "libraries", "server", "A server") from error
    where = target.chosen(context, {"registry": registry, "catalog": catalog, "store": store})
    if where["registry"] is None and (where["catalog"] is None or where["store"] is None):
        raise InputError("No registry given: pass --registry FOLDER, or --catalog and --store.")
    return Settings(folder=where["registry"], catalog=where["catalog"], store=where["store"], compression=compression)
