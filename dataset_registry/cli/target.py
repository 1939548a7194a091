"""Which registry a command is about, and as whom: options that every such command has."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dataset_registry.cli.output import say
from dataset_registry.errors import InputError, RegistryError
from dataset_registry.model.texts import shown

if TYPE_CHECKING:
    from dataset_registry.registry import Registry


FOLDER_VARIABLE = "DATASET_REGISTRY"
CATALOG_VARIABLE = "DATASET_REGISTRY_CATALOG"
STORE_VARIABLE = "DATASET_REGISTRY_STORE"
ACTOR_VARIABLE = "DATASET_REGISTRY_ACTOR"
TOKEN_VARIABLE = "DATASET_REGISTRY_TOKEN"  # noqa: S105 - the name of a variable

PANEL = "Which registry"
WHICH = "Say which registry: --registry FOLDER (or the https:// address of a server), or --catalog and --store."

Folder = Annotated[
    str | None,
    typer.Option(
        "--registry",
        "-r",
        envvar=FOLDER_VARIABLE,
        help="The folder of an embedded registry, or the https:// address of a server.",
        rich_help_panel=PANEL,
    ),
]
AnyCatalog = Annotated[
    str | None,
    typer.Option("--catalog", envvar=CATALOG_VARIABLE, help="The catalog's URL, with --store.", rich_help_panel=PANEL),
]
AnyStore = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar=STORE_VARIABLE,
        help="The store: a folder, s3://bucket/prefix, gs://… or az://…",
        rich_help_panel=PANEL,
    ),
]
As = Annotated[
    str | None,
    typer.Option(
        "--as",
        envvar=ACTOR_VARIABLE,
        help="Act as this user, with its permissions. Default: the registry's owner.",
        rich_help_panel=PANEL,
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar=TOKEN_VARIABLE,
        help="The API token for a server. Prefer the environment variable: command lines are visible to others.",
        rich_help_panel=PANEL,
        show_envvar=True,
    ),
]
CatalogOption = Annotated[
    str,
    typer.Option(
        "--catalog",
        envvar=CATALOG_VARIABLE,
        help="The catalog's URL: postgresql+psycopg://user:password@host/database or sqlite:///folder/catalog.sqlite.",
    ),
]

Create = Annotated[bool, typer.Option("--create", help="Create the registry if there is none.", rich_help_panel=PANEL)]
"""A command with a parameter `create` of this type creates the registry that it is about (see `here`)."""

_OPTIONS = {"registry": Folder, "catalog": AnyCatalog, "store": AnyStore, "acting_as": As, "token": Token}
_Command = TypeVar("_Command", bound=Callable[..., None])


@contextmanager
def opened(
    registry: str | None,
    catalog: str | None,
    store: str | None,
    acting_as: str | None = None,
    token: str | None = None,
    *,
    otherwise: str = WHICH,
    compress: bool = False,
    create: bool = False,
) -> Iterator["Registry"]:
    """The registry that the options name. Raises `InputError` when they name none, `NotFound` when it is not there: a command
    creates one only where that is what it is for."""
    from dataset_registry.registry import Registry

    if registry is None and (catalog is None or store is None):
        raise InputError(otherwise)
    with Registry.open(
        registry,
        catalog=catalog,
        store=store,
        actor=acting_as,
        token=token,
        compression="zstd" if compress else None,
        interface="cli",
        create=create,
    ) as found:
        yield found


_WHERE = ("registry", "catalog", "store")


def chosen(context: typer.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the options, without what the environment says of the registry where the command line says it.

    The environment often names production; a `-r backup` that left half of it in force would reach for production's data.
    """
    by_hand = [name for name in _WHERE if _is_by_hand(context, name)]
    return {
        name: None if by_hand and name in _WHERE and name not in by_hand else value for name, value in given.items()
    }


def _is_by_hand(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def here(command: _Command) -> _Command:
    """Give a command the options that say which registry it is about; its first parameter is that registry, opened.

    A command with a parameter `create` creates the registry when that is true.
    """

    @wraps(command)
    def opening(*arguments: Any, context: typer.Context, **given: Any) -> None:
        place = chosen(context, {name: given.pop(name) for name in _OPTIONS})
        with opened(**place, create=given.pop("create", False)) as registry:
            if not given.get("as_json"):
                _show_frozen(registry)
            command(registry, *arguments, **given)

    own = list(inspect.signature(command).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [parameter.replace(kind=keyword) for parameter in own]
    parameters += [inspect.Parameter("context", keyword, annotation=typer.Context)]
    parameters += [inspect.Parameter(n, keyword, default=None, annotation=a) for n, a in _OPTIONS.items()]
    opening.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    opening.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return opening  # type: ignore[return-value]


def _show_frozen(registry: "Registry") -> None:
    """Say on standard error that nothing can be written, and why."""
    with suppress(RegistryError):  # the command itself says what is wrong
        if (found := registry.frozen) is not None:
            say(f"Read-only since {found.at:%Y-%m-%d %H:%M}: {found.reason} ({found.by})", err=True)


# --- completing names in the shell ---------------------------------------------------------------------------------


def complete_dataset(context: typer.Context, incomplete: str) -> list[str]:
    """The names of datasets with this prefix."""
    with _quietly(context) as registry:
        return [] if registry is None else _beginning(incomplete, [d.name for d in registry.datasets()])


def complete_address(context: typer.Context, incomplete: str) -> list[str]:
    """Datasets, and behind an `@` their branches and tags."""
    name, at, ref = incomplete.partition("@")
    if not at:
        return complete_dataset(context, incomplete)
    with _quietly(context) as registry:
        if registry is None:
            return []
        dataset = registry.dataset(name)
        refs = [pointer.name for pointer in [*dataset.branches(), *dataset.tags()]]
        return [f"{name}@{found}" for found in _beginning(ref, refs)]


def complete_ref(context: typer.Context, incomplete: str) -> list[str]:
    """The branches and tags of the dataset that the command line names before."""
    name = str(context.params.get("dataset") or "").partition("@")[0]
    with _quietly(context) as registry:
        if registry is None or not name:
            return []
        dataset = registry.dataset(name)
        refs = [pointer.name for pointer in [*dataset.branches(), *dataset.tags()]]
        return _beginning(incomplete, refs)


def _beginning(start: str, names: list[str]) -> list[str]:
    """The names with this prefix; a name that the terminal would not show as it is, is not completed."""
    return [name for name in names if name.startswith(start) and shown(name) == name]


@contextmanager
def _quietly(context: typer.Context) -> Iterator["Registry | None"]:
    """The registry of a command line that is still being typed; None where there is none."""
    place = chosen(context, {name: context.params.get(name) for name in _OPTIONS})
    folder, catalog, store, acting_as, token = place.values()
    if folder is None and (catalog is None or store is None):
        yield None
        return
    with opened(folder, catalog, store, acting_as, token) as registry:
        yield registry
