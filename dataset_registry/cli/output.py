"""Output of commands: text, tables, JSON, sizes, times, progress, confirmations.

Messages, names of files, columns and tokens, and responses of a server are untrusted. Only this module prints them,
with control characters escaped.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataset_registry.errors import InputError
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.texts import is_control, shown

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn

    from dataset_registry.version import Version

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def first_line(text: str | None) -> str:
    """The first line of a message or a description, marked if there are more."""
    first, _, rest = (text or "").strip().partition("\n")
    return first.rstrip() + (" …" if rest else "")


def say(text: object, *, lines: bool = False, err: bool = False) -> None:
    """Print a text on one line; with `lines`, keep its line breaks."""
    typer.echo(shown(text, lines=lines), err=err)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show a progress bar on a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.progress import MofNCompleteColumn

    with _bars(MofNCompleteColumn()) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(shown(what), total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


@contextmanager
def transferring(what: str) -> Iterator[Progress]:
    """Show a progress bar of bytes with the speed on a terminal; before the first bytes, the current step."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.progress import DownloadColumn, TransferSpeedColumn

    with _bars(DownloadColumn(), TransferSpeedColumn()) as bars:
        task = bars.add_task(shown(what), total=None)

        def show(what: str, done: int, total: int | None) -> None:
            bars.update(task, description=shown(what), completed=done, total=total)

        yield show


def _bars(*measures: "ProgressColumn") -> "Bars":
    """Progress bars on standard error: a description, the bar, these measures, the remaining time."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *measures, TimeRemainingColumn())
    return Bars(*columns, console=Console(stderr=True), transient=True)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner on a terminal, for work of unknown length."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(shown(what))):
        yield


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table with right-aligned numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[position], int) for row in rows)
        table.add_column(shown(column), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else "" if cell is None else shown(cell) for cell in row))
    Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 120).print(table)


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair per line."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        if value not in (None, ""):
            say(f"{name:<{width}}  " + str(value).replace("\n", f"\n{'':<{width}}  "), lines=True)


def print_json(value: Any) -> None:
    """Print JSON, as in a REST response."""
    typer.echo(json_text(_plain(value), indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON with letters of any script unescaped, and control characters escaped."""
    text = json.dumps(value, indent=indent, default=str, ensure_ascii=False)
    return re.sub(
        "[\x7f-\U0010ffff]", lambda found: _json_escaped(found[0]) if is_control(found[0]) else found[0], text
    )


def _json_escaped(character: str) -> str:
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def _plain(value: Any) -> Any:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def confirmed(question: str, *, yes: bool, otherwise: str = "") -> bool:
    """Ask for confirmation. Raises `InputError` without a terminal; `otherwise` is added to its next step."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError(f"{question} No terminal to ask: pass --yes to do it{otherwise}.")
    return typer.confirm(shown(question))


def count_of(count: int, what: str) -> str:
    """A count of things: `1 version`, `2 versions`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Bytes in the unit that reads best: `20 bytes`, `1.5 kB`."""
    from rich.filesize import decimal

    return decimal(count)


def age(at: datetime | None) -> str:
    """The time since a moment, in its largest unit: `3d`, `5h`, `12m`, `0m`."""
    if at is None:
        return ""
    seconds = max(0, int((datetime.now(UTC) - at.astimezone(UTC)).total_seconds()))
    for unit, length in (("y", 365 * 86400), ("d", 86400), ("h", 3600)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds // 60}m"


def moment(at: datetime | None) -> str:
    """A moment to the minute, in UTC."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def print_checks(version: "Version") -> None:
    """Print the results of checks on a version, and its taints."""
    for check in version.checks:
        say(f"{'+' if check.passed else '!'} {check}")
    for taint in version.taints:
        say(f"! tainted by {taint}")
