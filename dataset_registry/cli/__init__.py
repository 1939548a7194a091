"""The command line: parses options, calls one method of a registry, prints the result.

Exit codes: 1 invalid input or environment, 2 invalid usage, 3 damage found, 4 not found, 5 conflict or temporary
failure (try again), 6 permission denied.
"""

import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dataset_registry import __version__, errors
from dataset_registry.cli import (
    checks,
    datasets,
    db,
    exports,
    history,
    maintenance,
    merges,
    publishing,
    refs,
    reviews,
    server,
    transfer,
    users,
)
from dataset_registry.cli.output import say
from dataset_registry.model.next_steps import spelled

EXIT_CODES: dict[type[errors.RegistryError], int] = {
    errors.RegistryError: 1,
    errors.NotFound: 4,
    errors.ConflictError: 5,
    errors.RetryLater: 5,
    errors.PermissionDenied: 6,
    errors.NotAuthenticated: 6,
}
"""The exit code of each class of error; other classes have that of their base class."""

ELSEWHERE = {
    "add": "put",
    "commit": "put",
    "import": "put",
    "cat": "get --to -",
    "pull": "copy",
    "push": "copy",
    "clone": "copy",
    "reset": "branch move",
    "switch": "branch",
    "gc": "collect",
    "prune": "collect",
    "fsck": "verify",
    "blame": "lineage",
    "help": "--help",
}
"""What other tools call a command, and the command here."""


class _Commands(TyperGroup):
    """Commands with a hint for those of git, DVC and lakeFS that have another name here."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and (here := ELSEWHERE.get(args[0])):
            ctx.fail(f"No command {args[0]!r}. Use: dataset-registry {here}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="git for the datasets that a Dagster pipeline materializes.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"dataset-registry {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The options of the command line itself."""


for _commands in (
    datasets.app,
    transfer.app,
    history.app,
    merges.app,
    publishing.app,
    checks.app,
    users.app,
    maintenance.app,
    server.app,
):
    app.registered_commands += _commands.registered_commands
for _name, _group in (
    ("dataset", datasets.dataset_app),
    ("version", history.version_app),
    ("branch", refs.branch_app),
    ("tag", refs.tag_app),
    ("registry-branch", refs.everywhere_app),
    ("file", transfer.file_app),
    ("user", users.user_app),
    ("token", users.token_app),
    ("grant", users.grant_app),
    ("protect", users.protect_app),
    ("review", reviews.review_app),
    ("audit", users.audit_app),
    ("export", exports.app),
    ("db", db.app),
):
    app.add_typer(_group, name=_name)


def exit_code(error: errors.RegistryError) -> int:
    """The exit code of an error."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def main() -> None:
    """Run the command line; an error that a user can act on is printed without a traceback, as JSON under `--json`."""
    arguments = sys.argv[1:]
    as_json = "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)
    try:
        raise SystemExit(app(standalone_mode=not as_json))
    except errors.RegistryError as error:
        if os.environ.get("DATASET_REGISTRY_DEBUG"):
            say(traceback.format_exc(), lines=True, err=True)
        _print_error(error.code, spelled(str(error), "shell", error.fields), error.fields, as_json=as_json)
        raise SystemExit(exit_code(error)) from None
    except BrokenPipeError:  # the reader of standard output closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except typer.Abort:
        _print_error("aborted", "Aborted.", {}, as_json=as_json)
        raise SystemExit(1) from None
    except Exception as error:
        if not hasattr(error, "format_message"):  # no mistake in the command line, which typer prints as text only
            say(traceback.format_exc(), lines=True, err=True)  # Python and rich print what is in an error as it is
            raise SystemExit(1) from None
        _print_error("usage", error.format_message(), {}, as_json=as_json)
        raise SystemExit(getattr(error, "exit_code", 2)) from None


def _print_error(code: str, message: str, fields: Mapping[str, object], *, as_json: bool) -> None:
    """Print an error on standard error: a line, or a JSON object with the error's stable code and its values."""
    if not as_json:
        say(f"error: {message}", lines=True, err=True)
        return
    found = {"error": {"code": code, "message": message, "fields": fields}}
    say(json.dumps(found, default=str, ensure_ascii=True), err=True)
