"""How long work tells what it is at; the interfaces show it: a bar on the command line, log lines under Dagster."""

from typing import Protocol


class Progress(Protocol):
    """Called again and again while something long is done."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """`done` of `total` (None: unknown) of what is being done, in words."""


def silent(what: str, done: int, total: int | None) -> None:
    """Reports nothing."""
