"""Commands about branches and tags."""

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from dataset_registry.cli import target
from dataset_registry.cli.arguments import DatasetName
from dataset_registry.cli.output import AsJson, Yes, confirmed, count_of, moment, print_json, print_table, say
from dataset_registry.cli.target import here
from dataset_registry.errors import InputError
from dataset_registry.model.history import only_reached_from
from dataset_registry.model.names import MAIN
from dataset_registry.model.records import PointerRecord

if TYPE_CHECKING:
    from dataset_registry.dataset import Dataset
    from dataset_registry.registry import Registry


class ListByDefault(TyperGroup):
    """A group whose command `list` is the default: `branch raw/flights` lists the branches of raw/flights."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_typo = bool(args) and bool(get_close_matches(args[0], self.commands))
        if args and "--help" not in args and not is_typo and self.commands.keys().isdisjoint(args):
            args = ["list", *args]
        return super().parse_args(ctx, args)


branch_app = typer.Typer(cls=ListByDefault, no_args_is_help=True, help="List, create, move and delete branches.")
tag_app = typer.Typer(cls=ListByDefault, no_args_is_help=True, help="List, create and delete tags, which never move.")
everywhere_app = typer.Typer(no_args_is_help=True, help="Registry-wide branches, which span all datasets.")

Ref = Annotated[str, typer.Argument(help="A branch, a tag, v3, a digest …", autocompletion=target.complete_ref)]
NotHere = Annotated[str | None, typer.Argument(hidden=True)]
"""The name of a new branch or tag, where git and DVC take one."""
Name = Annotated[str, typer.Argument(autocompletion=target.complete_ref)]


@branch_app.command("list")
@here
def list_branches(registry: "Registry", dataset: DatasetName, name: NotHere = None, as_json: AsJson = False) -> None:
    """List the branches of a dataset."""
    if name is not None:
        raise InputError(f"To create the branch: dataset-registry branch create {dataset} {name}")
    _list(registry.dataset(dataset).branches(), as_json)


@branch_app.command("create")
@here
def create_branch(
    registry: "Registry", dataset: DatasetName, name: Name, ref: Ref = MAIN, as_json: AsJson = False
) -> None:
    """Create a branch at a version."""
    _say(dataset, registry.dataset(dataset).create_branch(name, ref), as_json)


@branch_app.command("move")
@here
def move_branch(
    registry: "Registry",
    dataset: DatasetName,
    name: Name,
    ref: Ref,
    expect: Annotated[str | None, typer.Option("--expect", help="Only if the branch is at this version.")] = None,
    as_json: AsJson = False,
) -> None:
    """Move a branch to another version: an older one to roll back, a newer one to publish."""
    _say(dataset, registry.dataset(dataset).move_branch(name, ref, expect=expect), as_json)


@branch_app.command("delete")
@here
def delete_branch(registry: "Registry", dataset: DatasetName, name: Name, yes: Yes = False) -> None:
    """Delete a branch; its versions stay. Asks for main, and if versions become unreachable."""
    found = registry.dataset(dataset)
    alone = _reached_alone(found, found.branch(name))
    question = f"Delete the branch {dataset}@{name}?"
    if alone:
        question += f" Then {_on_no_branch(alone)}."
    if (name == MAIN or alone) and not confirmed(question, yes=yes):
        return
    found.delete_branch(name)
    _say_deleted(dataset, name, alone)


@tag_app.command("list")
@here
def list_tags(registry: "Registry", dataset: DatasetName, name: NotHere = None, as_json: AsJson = False) -> None:
    """List the tags of a dataset."""
    if name is not None:
        raise InputError(f"To create the tag: dataset-registry tag create {dataset} {name}")
    _list(registry.dataset(dataset).tags(), as_json)


@tag_app.command("create")
@here
def create_tag(
    registry: "Registry", dataset: DatasetName, name: Name, ref: Ref = MAIN, as_json: AsJson = False
) -> None:
    """Create a tag. Tags never move."""
    _say(dataset, registry.dataset(dataset).create_tag(name, ref), as_json)


@tag_app.command("delete")
@here
def delete_tag(registry: "Registry", dataset: DatasetName, name: Name, yes: Yes = False) -> None:
    """Delete a tag. Its name cannot be reused."""
    found = registry.dataset(dataset)
    alone = _reached_alone(found, found.branch(name))  # which finds tags too
    question = f"Delete the tag {dataset}@{name}? Its name cannot be reused."
    if alone:
        question += f" And {_on_no_branch(alone)} then."
    if not confirmed(question, yes=yes):
        return
    found.delete_tag(name)
    _say_deleted(dataset, name, alone)


def _reached_alone(dataset: "Dataset", pointer: PointerRecord) -> int:
    """The number of versions that only this branch or tag reaches."""
    others = [p.version_number for p in [*dataset.branches(), *dataset.tags()] if p.name != pointer.name]
    return only_reached_from(pointer.version_number, others, dataset.tree())


def _on_no_branch(count: int) -> str:
    return f"{count_of(count, 'version')} {'is' if count == 1 else 'are'} reached by no branch or tag"


def _say_deleted(dataset: str, name: str, alone: int) -> None:
    hint = f"; {_on_no_branch(alone)}: dataset-registry log {dataset} --all" if alone else ""
    say(f"Deleted {dataset}@{name}{hint}")


@everywhere_app.command("list")
@here
def list_everywhere(registry: "Registry", as_json: AsJson = False) -> None:
    """List the branches over all datasets."""
    from dataset_registry.wire.datasets import RegistryBranchResponse

    found = registry.branches()
    if as_json:
        print_json([RegistryBranchResponse.of(branch) for branch in found])
        return
    print_table(["branch", "from", "created"], [[b.name, b.source, moment(b.created_at)] for b in found])


@everywhere_app.command("create")
@here
def create_everywhere(registry: "Registry", name: Name, source: Annotated[str, typer.Argument()] = MAIN) -> None:
    """Create a branch in every dataset that has the branch SOURCE."""
    say(f"Created {name} in {count_of(registry.create_branch(name, source), 'dataset')}")


@everywhere_app.command("delete")
@here
def delete_everywhere(registry: "Registry", name: Name, yes: Yes = False) -> None:
    """Delete a branch over all datasets; versions stay. Asks if versions become unreachable."""
    pointers = ((d, p) for d in registry.datasets() for p in d.branches() if p.name == name)
    alone = 0 if yes else sum(_reached_alone(dataset, pointer) for dataset, pointer in pointers)
    question = f"Delete the branch {name} over all datasets? Then {_on_no_branch(alone)}."
    if alone and not confirmed(question, yes=yes):
        return
    say(f"Deleted {name} in {count_of(registry.delete_branch(name), 'dataset')}")


def _say(dataset: str, pointer: PointerRecord, as_json: bool) -> None:
    from dataset_registry.wire.datasets import PointerResponse

    if as_json:
        print_json(PointerResponse.of(pointer))
    else:
        kind = "tag" if pointer.is_tag else "branch"
        say(f"{kind} {dataset}@{pointer.name} is at v{pointer.version_number}")


def _list(found: list[PointerRecord], as_json: bool) -> None:
    from dataset_registry.wire.datasets import PointerResponse

    if as_json:
        print_json([PointerResponse.of(pointer) for pointer in found])
        return
    rows = [[p.name, f"v{p.version_number}", (p.digest or "")[:8], moment(p.updated_at)] for p in found]
    print_table(["name", "version", "digest", "since"], rows)
