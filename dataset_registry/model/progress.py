"""Progress of long operations, shown as a bar on the command line and as log lines in Dagster."""

from typing import Protocol


class Progress(Protocol):
    """A callback for the progress of a long operation."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Report `done` of `total` (None: unknown) of the step `what`."""


def silent(what: str, done: int, total: int | None) -> None:
    """Reports nothing."""
