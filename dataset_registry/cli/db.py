"""Commands about the catalog's tables."""

from contextlib import closing
from typing import Annotated

import typer

from dataset_registry.cli.place import CatalogOption

app = typer.Typer(no_args_is_help=True, help="The catalog's tables: which revision they have, and how to change it.")


@app.command()
def current(catalog: CatalogOption) -> None:
    """Print the revision that the catalog has."""
    from dataset_registry.catalog import Catalog

    with closing(Catalog(catalog)) as opened:
        typer.echo(opened.revision() or "no tables yet")


@app.command()
def upgrade(
    catalog: CatalogOption,
    revision: Annotated[str, typer.Argument(help="The revision to go to.")] = "head",
) -> None:
    """Create the catalog's tables, or bring them to the newest revision, in one transaction."""
    from dataset_registry.catalog import Catalog, migrate

    with closing(Catalog(catalog)) as opened:
        before = opened.revision()
        migrate.upgrade(opened, revision)
        typer.echo(f"{opened.address}: {before or 'no tables'} -> {opened.revision()}")


@app.command()
def downgrade(
    catalog: CatalogOption,
    revision: Annotated[str, typer.Argument(help="The revision to go back to, or 'base' for an empty database.")],
) -> None:
    """Take the tables back to an older revision. Refuses, naming the rows, where that would lose data."""
    from dataset_registry.catalog import Catalog, migrate

    with closing(Catalog(catalog)) as opened:
        before = opened.revision()
        migrate.downgrade(opened, revision)
        typer.echo(f"{opened.address}: {before or 'no tables'} -> {opened.revision() or 'no tables'}")


@app.command()
def check(catalog: CatalogOption) -> None:
    """Compare the database with the tables that this package expects (`alembic check`)."""
    from dataset_registry.catalog import Catalog, migrate

    with closing(Catalog(catalog)) as opened:
        migrate.check(opened)
        typer.echo(f"{opened.address}: revision {opened.revision()}, as this package expects it")
