"""The options that select the registry and the user of a command."""

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
WHICH = (
    "No registry given. Pass --registry FOLDER (or the https:// address of a server), or --catalog and --store; "
    "or set DATASET_REGISTRY."
)

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
"""A command with a parameter `create` of this type can create its registry (see `here`)."""

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
    """Open the registry that the options select.

    Raises `InputError` if they select none, `NotFound` if it does not exist.
    """
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
    """The values of the options; if the command line selects a registry, the environment variables for it are ignored.

    The environment often selects production: combined with `-r backup`, half of it would still access production.
    """
    by_hand = [name for name in _WHERE if _is_by_hand(context, name)]
    return {
        name: None if by_hand and name in _WHERE and name not in by_hand else value for name, value in given.items()
    }


def _is_by_hand(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def here(command: _Command) -> _Command:
    """Add the options that select a registry to a command; its first parameter is the opened registry.

    A command with a parameter `create` creates the registry if that is true.
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
    """Print on standard error that the registry is read-only, with the reason."""
    with suppress(RegistryError):  # the command itself says what is wrong
        if (found := registry.frozen) is not None:
            say(f"Read-only since {found.at:%Y-%m-%d %H:%M}: {found.reason} ({found.by})", err=True)


# --- completing names in the shell ---------------------------------------------------------------------------------


def complete_dataset(context: typer.Context, incomplete: str) -> list[str]:
    """The names of datasets with this prefix."""
    with _quietly(context) as registry:
        return [] if registry is None else _beginning(incomplete, [d.name for d in registry.datasets()])


def complete_address(context: typer.Context, incomplete: str) -> list[str]:
    """Datasets, and after an `@` their branches and tags."""
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
    """The branches and tags of the dataset earlier in the command line."""
    name = str(context.params.get("dataset") or "").partition("@")[0]
    with _quietly(context) as registry:
        if registry is None or not name:
            return []
        dataset = registry.dataset(name)
        refs = [pointer.name for pointer in [*dataset.branches(), *dataset.tags()]]
        return _beginning(incomplete, refs)


def _beginning(start: str, names: list[str]) -> list[str]:
    """The names with this prefix, without names that the terminal would not show unchanged."""
    return [name for name in names if name.startswith(start) and shown(name) == name]


@contextmanager
def _quietly(context: typer.Context) -> Iterator["Registry | None"]:
    """The registry of an incomplete command line, None if there is none."""
    place = chosen(context, {name: context.params.get(name) for name in _OPTIONS})
    folder, catalog, store, acting_as, token = place.values()
    if folder is None and (catalog is None or store is None):
        yield None
        return
    with opened(folder, catalog, store, acting_as, token) as registry:
        yield registry
