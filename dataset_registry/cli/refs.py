"""Commands about branches and tags."""

from typing import TYPE_CHECKING, Annotated

import typer

from dataset_registry.cli import place
from dataset_registry.cli.data import DatasetName
from dataset_registry.cli.output import AsJson, moment, print_json, print_table, say
from dataset_registry.cli.place import here
from dataset_registry.model.records import PointerRecord

if TYPE_CHECKING:
    from dataset_registry.registry import Registry


branch_app = typer.Typer(no_args_is_help=True, help="Branches: pointers that move.")
tag_app = typer.Typer(no_args_is_help=True, help="Tags: pointers that never move.")
everywhere_app = typer.Typer(no_args_is_help=True, help="Branches over all datasets at once.")

Ref = Annotated[str, typer.Argument(help="A branch, a tag, v3, a digest …", autocompletion=place.complete_ref)]
Name = Annotated[str, typer.Argument(autocompletion=place.complete_ref)]


@branch_app.command("list")
@here
def list_branches(registry: "Registry", dataset: DatasetName, as_json: AsJson = False) -> None:
    """The branches of a dataset."""
    _list(registry.dataset(dataset).branches(), as_json)


@branch_app.command("create")
@here
def create_branch(
    registry: "Registry", dataset: DatasetName, name: Name, ref: Ref = "main", as_json: AsJson = False
) -> None:
    """Start a branch at a version."""
    _say(dataset, registry.dataset(dataset).create_branch(name, ref), as_json)


@branch_app.command("move")
@here
def move_branch(
    registry: "Registry",
    dataset: DatasetName,
    name: Name,
    ref: Ref,
    expect: Annotated[str | None, typer.Option("--expect", help="Only if it names this version now.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let a branch name another version: back to roll back, on to publish."""
    _say(dataset, registry.dataset(dataset).move_branch(name, ref, expect=expect), as_json)


@branch_app.command("delete")
@here
def delete_branch(registry: "Registry", dataset: DatasetName, name: Name) -> None:
    """Delete a branch; its versions stay."""
    registry.dataset(dataset).delete_branch(name)
    say(f"{dataset}@{name} deleted")


@tag_app.command("list")
@here
def list_tags(registry: "Registry", dataset: DatasetName, as_json: AsJson = False) -> None:
    """The tags of a dataset."""
    _list(registry.dataset(dataset).tags(), as_json)


@tag_app.command("create")
@here
def create_tag(
    registry: "Registry", dataset: DatasetName, name: Name, ref: Ref = "main", as_json: AsJson = False
) -> None:
    """Name a version for ever."""
    _say(dataset, registry.dataset(dataset).create_tag(name, ref), as_json)


@tag_app.command("delete")
@here
def delete_tag(registry: "Registry", dataset: DatasetName, name: Name) -> None:
    """Delete a tag; its name cannot be reused."""
    registry.dataset(dataset).delete_tag(name)
    say(f"{dataset}@{name} deleted")


@everywhere_app.command("list")
@here
def list_everywhere(registry: "Registry", as_json: AsJson = False) -> None:
    """The branches over all datasets."""
    from dataset_registry.wire.datasets import RegistryBranchShape

    found = registry.branches()
    if as_json:
        print_json([RegistryBranchShape.of(branch) for branch in found])
        return
    print_table(["branch", "from", "made"], [[b.name, b.source, moment(b.created_at)] for b in found])


@everywhere_app.command("create")
@here
def create_everywhere(registry: "Registry", name: Name, source: Annotated[str, typer.Argument()] = "main") -> None:
    """Branch every dataset that has the branch SOURCE, at once."""
    say(f"{name} made in {registry.create_branch(name, source)} datasets")


@everywhere_app.command("delete")
@here
def delete_everywhere(registry: "Registry", name: Name) -> None:
    """Delete a branch over all datasets; versions stay."""
    say(f"{name} deleted in {registry.delete_branch(name)} datasets")


def _say(dataset: str, pointer: PointerRecord, as_json: bool) -> None:
    from dataset_registry.wire.datasets import PointerShape

    if as_json:
        print_json(PointerShape.of(pointer))
    else:
        kind = "tag" if pointer.is_tag else "branch"
        say(f"{kind} {dataset}@{pointer.name} is at v{pointer.version_number}")


def _list(found: list[PointerRecord], as_json: bool) -> None:
    from dataset_registry.wire.datasets import PointerShape

    if as_json:
        print_json([PointerShape.of(pointer) for pointer in found])
        return
    rows = [[p.name, f"v{p.version_number}", (p.digest or "")[:8], moment(p.updated_at)] for p in found]
    print_table(["name", "version", "digest", "since"], rows)
