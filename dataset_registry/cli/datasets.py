"""Commands about a registry and its datasets."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataset_registry.cli import target
from dataset_registry.cli.arguments import DatasetName
from dataset_registry.cli.output import (
    AsJson,
    Yes,
    age,
    confirmed,
    count_of,
    first_line,
    print_facts,
    print_json,
    print_table,
    say,
    size,
)
from dataset_registry.cli.target import here
from dataset_registry.errors import NotFound
from dataset_registry.model.names import MAIN

if TYPE_CHECKING:
    from dataset_registry.dataset import Dataset
    from dataset_registry.registry import Registry


app = typer.Typer()
dataset_app = typer.Typer(no_args_is_help=True, help="Create, describe, rename and delete datasets.")


@app.command()
def init(
    context: typer.Context,
    folder: Annotated[
        str | None, typer.Argument(help="A new or empty folder; or pass -r, or --catalog and --store.")
    ] = None,
    registry: target.Folder = None,
    catalog: target.AnyCatalog = None,
    store: target.AnyStore = None,
) -> None:
    """Create a registry in a folder, or from a catalog and a store. An existing registry is left unchanged."""
    where: dict[str, Any] = {"registry": registry, "catalog": catalog, "store": store}
    where = target.chosen(context, where) if folder is None else {"registry": folder, "catalog": None, "store": None}
    try:
        with target.opened(**where) as found:
            say(f"A registry exists already in {where['registry'] or found.location}")
    except NotFound:
        with target.opened(**where, create=True) as found:
            say(f"Created a registry in {where['registry'] or found.location}")


@app.command()
@here
def status(registry: "Registry", as_json: AsJson = False) -> None:
    """Show the registry's location, the current user, and its size."""
    found = registry.datasets()
    count = total = stored = 0
    for file in registry.files():
        stored += file.stored_size
        if file.form not in ("parts", "pack"):  # a table is its parts, and a pack is of no use by itself
            count, total = count + 1, total + file.size
    if as_json:
        frozen = registry.frozen
        print_json(
            {
                "location": registry.location,
                "frozen": asdict(frozen) if frozen else None,
                "actor": registry.actor,
                "datasets": len(found),
                "files": count,
                "bytes": total,
                "stored_bytes": stored,
            }
        )
        return
    print_facts(
        [
            ("registry", registry.location),
            ("user", registry.actor),
            ("datasets", len(found)),
            ("files", f"{count:,}"),
        ]
    )
    print_facts([("content", size(total)), ("stored", size(stored))])


@app.command()
@here
def datasets(
    registry: "Registry",
    prefix: Annotated[str, typer.Argument(help="Only names with this prefix.")] = "",
    names: Annotated[bool, typer.Option("--names", "-1", help="Print names only, one per line.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the datasets that you can read, with head, rows, size and age."""
    from dataset_registry.wire.datasets import DatasetResponse

    found = registry.datasets(prefix=prefix)
    if as_json:
        print_json([DatasetResponse.of(dataset.record) for dataset in found])
    elif names:
        for dataset in found:
            say(dataset.name)
    else:
        columns = ["name", "head", "rows", "size", "age", "description"]
        print_table(columns, [_listed(dataset) for dataset in found])


def _listed(dataset: "Dataset") -> list[Any]:
    """The row of a dataset: its head on main, else its newest version."""
    try:
        head = dataset.version(MAIN)
    except NotFound:
        newest = dataset.tree()[:1]
        if not newest:
            return [dataset.name, "", "", "", age(dataset.record.created_at), first_line(dataset.description)]
        head = newest[0]
    counts = [table.rows for _, _, captured in head.captured() for table in captured.tables]
    rows = f"{sum(filter(None, counts)):,}" if counts and None not in counts else ""
    total = size(sum(component.size for component in head.components))
    return [dataset.name, f"v{head.number}", rows, total, age(head.created_at), first_line(dataset.description)]


app.command("ls", hidden=True)(datasets)
app.command("list", hidden=True)(datasets)


# --- one dataset ---------------------------------------------------------------------------------------------------


@dataset_app.command("create")
@here
def create_dataset(
    registry: "Registry",
    name: Annotated[str, typer.Argument(help="A path like raw/flights.")],
    description: Annotated[str | None, typer.Option("--description", "-d")] = None,
    as_json: AsJson = False,
) -> None:
    """Create an empty dataset. You become its admin."""
    _say(registry.create_dataset(name, description=description), "Created", as_json)


@dataset_app.command("describe")
@here
def describe(
    registry: "Registry",
    dataset: DatasetName,
    description: Annotated[str, typer.Argument()],
    as_json: AsJson = False,
) -> None:
    """Change the description."""
    found = registry.dataset(dataset)
    found.update(description=description)
    _say(found, "Updated", as_json)


@dataset_app.command("rename")
@here
def rename(
    registry: "Registry",
    dataset: DatasetName,
    name: Annotated[str, typer.Argument(help="The new name.")],
    as_json: AsJson = False,
) -> None:
    """Change the name; versions, branches and tags stay."""
    found = registry.dataset(dataset)
    found.rename(name)
    _say(found, f"Renamed {dataset} to", as_json)


@dataset_app.command("delete")
@here
def delete_dataset(registry: "Registry", dataset: DatasetName, yes: Yes = False) -> None:
    """Delete a dataset with all its versions. The next collect deletes its files, unless they are referenced elsewhere."""
    found = registry.dataset(dataset)
    count = len(found.tree())
    if confirmed(f"Delete {dataset} with {count_of(count, 'version')}?", yes=yes):
        say(f"Deleted {dataset} with {count_of(found.delete(), 'version')}")


def _say(dataset: "Dataset", what: str, as_json: bool) -> None:
    from dataset_registry.wire.datasets import DatasetResponse

    if as_json:
        print_json(DatasetResponse.of(dataset.record))
    else:
        say(f"{what} {dataset.name}")
