"""Commands that write the metadata of table formats over stored files: export iceberg, delta, ducklake."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dataset_registry.cli import target
from dataset_registry.cli.output import count_of, say, size, working
from dataset_registry.cli.target import here
from dataset_registry.model.extras import require
from dataset_registry.model.names import MAIN

if TYPE_CHECKING:
    from dataset_registry.registry import Registry

app = typer.Typer(help="Make versions readable as tables of Iceberg, Delta or DuckLake, without copying them.")

Address = Annotated[
    str, typer.Argument(metavar="DS[@REF]", help="A dataset, at main or a ref.", autocompletion=target.complete_address)
]
Component = Annotated[str | None, typer.Option("--component", help="The table of a version with several tables.")]
Keep = Annotated[
    bool, typer.Option("--keep/--no-keep", help="Tag the versions, so that the registry keeps their files.")
]


@app.command()
@here
def iceberg(
    registry: "Registry",
    address: Address,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="The table in the catalog, such as raw.flights.")],
    to: Annotated[str, typer.Option("--to", help="The name of a catalog in pyiceberg's configuration.")],
    component: Component = None,
    keep: Keep = True,
) -> None:
    """Make a version the current snapshot of a table in an Iceberg catalog, which is created if needed."""
    require("pyiceberg", "iceberg", "export iceberg")
    from pyiceberg.catalog import load_catalog

    from dataset_registry.table_formats.iceberg_export import export_iceberg

    with working(f"exporting {address}"):
        done = export_iceberg(registry.version(address), load_catalog(to), table, component=component, keep=keep)
    told = (
        f"snapshot {done.snapshot_id}: {count_of(done.added, 'file')} added, {done.removed} removed, {done.kept} kept"
    )
    say(told + (f"; {size(done.written)} stored as objects" if done.written else ""))


@app.command()
@here
def delta(
    registry: "Registry",
    address: Address,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="On the file system of the store.")],
    component: Component = None,
) -> None:
    """Make a version the newest version of a Delta table in a folder, over hard links to the stored files."""
    from dataset_registry.table_formats.delta import export_delta

    with working(f"exporting {address}"):
        done = export_delta(registry.version(address), folder, component=component)
    say(f"version {done.version}: {count_of(done.added, 'file')} added, {done.removed} removed, {done.kept} kept")


@app.command()
@here
def ducklake(
    registry: "Registry",
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The catalog to write; an existing one is replaced.")],
    prefix: Annotated[str, typer.Option("--prefix", help="Only the datasets under this prefix.")] = "",
    branch: Annotated[str, typer.Option("--branch", "-b", help="The branch to read.")] = MAIN,
    versions: Annotated[int, typer.Option("--versions", help="Newest versions of each dataset.", min=1)] = 1,
    keep: Keep = True,
) -> None:
    """Write a DuckLake catalog of datasets, for `ATTACH 'ducklake:FILE' (READ_ONLY)`."""
    from dataset_registry.table_formats.ducklake import export_ducklake

    with working(f"writing {path}"):
        done = export_ducklake(registry, path, prefix=prefix, branch=branch, versions=versions, keep=keep)
    for name, reason in done.left_out.items():
        say(f"! {name} is left out: {reason}")
    say(f"{count_of(done.tables, 'table')}, {count_of(done.snapshots, 'snapshot')}, {count_of(done.files, 'file')}")
