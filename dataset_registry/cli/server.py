"""The command that runs a server."""

from typing import Annotated

import typer

from dataset_registry.cli import target
from dataset_registry.cli.target import AnyCatalog, AnyStore, Folder
from dataset_registry.errors import InputError
from dataset_registry.model.extras import missing

app = typer.Typer()


@app.command()
def serve(
    context: typer.Context,
    registry: Folder = None,
    catalog: AnyCatalog = None,
    store: AnyStore = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8600,
    compress: Annotated[bool, typer.Option("--compress", help="Compress new CSV and JSON files.")] = False,
) -> None:
    """Serve a registry over REST until SIGTERM or Ctrl-C; running requests are finished first.

    Limits come from the environment (DATASET_REGISTRY_CONCURRENCY, …). The server speaks HTTP: put a proxy that
    terminates TLS in front of it if other machines can reach it.
    """
    try:
        from dataset_registry.server.app import serve as run
        from dataset_registry.server.settings import Settings
    except ImportError as error:
        raise missing(error.name or "libraries", "server", "A server") from error
    where = target.chosen(context, {"registry": registry, "catalog": catalog, "store": store})
    if where["registry"] is None and (where["catalog"] is None or where["store"] is None):
        raise InputError("No registry given: pass --registry FOLDER, or --catalog and --store.")
    settings = Settings(
        folder=where["registry"],
        catalog=where["catalog"],
        store=where["store"],
        compression="zstd" if compress else None,
    )
    run(settings, host, port)
