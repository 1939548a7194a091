"""Commands about the catalog's tables."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from dataset_registry.cli.output import Yes, confirmed, progress, say
from dataset_registry.cli.target import STORE_VARIABLE, CatalogOption, chosen
from dataset_registry.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Show and change the revision of the catalog's tables.")


@app.command()
def current(catalog: CatalogOption) -> None:
    """Show the revision of the catalog."""
    from dataset_registry.catalog import Catalog

    with closing(Catalog(catalog)) as opened:
        say(opened.revision() or "no tables yet")


@app.command()
def upgrade(
    catalog: CatalogOption,
    revision: Annotated[str, typer.Argument(help="The revision to go to.")] = "head",
    beside: Annotated[
        bool, typer.Option("--beside", help="Create an empty catalog although another schema has one.")
    ] = False,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the statements instead: the upgrade runs and is rolled back.")
    ] = False,
) -> None:
    """Create the catalog's tables, or bring them to the newest revision, in one transaction."""
    from dataset_registry.catalog import Catalog, migrate

    with closing(Catalog(catalog)) as opened:
        before = opened.revision()
        if sql:
            for statement in migrate.statements(opened, revision, beside=beside):
                say(statement)
            return
        with progress() as bars:
            migrate.upgrade(opened, revision, beside=beside, progress=bars)
        say(f"{opened.address}: {before or 'no tables'} -> {opened.revision()}")


@app.command()
def downgrade(
    catalog: CatalogOption,
    revision: Annotated[str, typer.Argument(help="The revision to go back to, or 'base' for the database before.")],
    discard: Annotated[
        str | None, typer.Option(metavar="REVISION", help="Repeat the revision to discard data that it cannot store.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="The file to which lost rows are written first, as lines of JSON.")
    ] = None,
) -> None:
    """Downgrade the tables to an older revision. Refuses, and lists the rows, if data would be lost."""
    from dataset_registry.catalog import Catalog, migrate

    if discard is not None and discard != revision:
        raise InputError(f"--discard must repeat the target revision: expected {revision}, got {discard}.")
    export = export or migrate.export_path()
    with closing(Catalog(catalog)) as opened:
        before = opened.revision()
        lost = migrate.downgrade(opened, revision, discard=discard, export=export)
        for loss in lost:
            say(f"lost: {loss}")
        if lost:
            say(f"the lost rows are in {export}")
        say(f"{opened.address}: {before or 'no tables'} -> {opened.revision() or 'no tables'}")


@app.command()
def bind(
    context: typer.Context,
    catalog: CatalogOption,
    store: Annotated[str, typer.Option("--store", envvar=STORE_VARIABLE, help="The store of the catalog.")],
    yes: Yes = False,
) -> None:
    """Bind the catalog to a store with another id or without one, after a restore or a move of the store.

    A registry refuses to open with a store that is not its own. Check first that no other registry uses the store.
    """
    from dataset_registry.embedded import rebound

    if None in chosen(context, {"catalog": catalog, "store": store}).values():
        raise InputError("Pass both --catalog and --store: the one from the environment belongs to another registry.")
    if confirmed("Bind the catalog to this store?", yes=yes):
        say(f"bound to the store {rebound(catalog, store)}")


@app.command()
def check(catalog: CatalogOption) -> None:
    """Compare the database with the tables of this package (`alembic check`)."""
    from dataset_registry.catalog import Catalog, migrate

    with closing(Catalog(catalog)) as opened:
        migrate.check(opened)
        say(f"{opened.address}: revision {opened.revision()}, as this package expects it")
