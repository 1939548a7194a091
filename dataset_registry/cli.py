"""The command line: reads its options, calls one function, prints. Nothing here decides anything."""

import os
from contextlib import closing
from typing import Annotated

import typer

from dataset_registry.catalog import Catalog
from dataset_registry.errors import RegistryError

CATALOG_VARIABLE = "DATASET_REGISTRY_CATALOG"

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="git for the datasets that a Dagster pipeline materializes."
)
db = typer.Typer(no_args_is_help=True, help="The catalog's tables: which revision they have, and how to change it.")
app.add_typer(db, name="db")

CatalogOption = Annotated[
    str,
    typer.Option(
        "--catalog",
        envvar=CATALOG_VARIABLE,
        help="The catalog's URL: postgresql+psycopg://user:password@host/database or sqlite:///folder/catalog.sqlite.",
    ),
]


@app.callback()
def root() -> None:
    """Keeps the group a group while it has one command."""


@db.command()
def current(catalog: CatalogOption) -> None:
    """Print the revision that the catalog has."""
    with closing(Catalog(catalog)) as opened:
        typer.echo(opened.revision() or "no tables yet")


@db.command()
def upgrade(
    catalog: CatalogOption,
    revision: Annotated[str, typer.Argument(help="The revision to go to.")] = "head",
) -> None:
    """Create the catalog's tables, or bring them to the newest revision, in one transaction."""
    from dataset_registry.catalog import migrate

    with closing(Catalog(catalog)) as opened:
        before = opened.revision()
        migrate.upgrade(opened, revision)
        typer.echo(f"{opened.address}: {before or 'no tables'} -> {opened.revision()}")


@db.command()
def downgrade(
    catalog: CatalogOption,
    revision: Annotated[str, typer.Argument(help="The revision to go back to, or 'base' for an empty database.")],
) -> None:
    """Take the tables back to an older revision. Refuses, naming the rows, where that would lose data."""
    from dataset_registry.catalog import migrate

    with closing(Catalog(catalog)) as opened:
        before = opened.revision()
        migrate.downgrade(opened, revision)
        typer.echo(f"{opened.address}: {before or 'no tables'} -> {opened.revision() or 'no tables'}")


@db.command()
def check(catalog: CatalogOption) -> None:
    """Compare the database with the tables that this package expects (`alembic check`)."""
    from dataset_registry.catalog import migrate

    with closing(Catalog(catalog)) as opened:
        migrate.check(opened)
        typer.echo(f"{opened.address}: revision {opened.revision()}, as this package expects it")


def main() -> None:
    """Run the command line; an error that a user can act on is printed without a traceback."""
    try:
        app()
    except RegistryError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from (error if os.environ.get("DATASET_REGISTRY_DEBUG") else None)
