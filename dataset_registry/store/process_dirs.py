"""Folders that belong to one process and are removed after its end.

The owner locks a file inside. The operating system releases the lock with the process, so that the next cleanup
recognises the folder as abandoned.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import time
from weakref import finalize

from dataset_registry import modes

_LOCK = ".lock"
_NEWBORN = 60.0
"""A folder younger than this many seconds may not be locked yet."""


class ProcessDir:
    """A new folder at `path` below `parent`, for this process only."""

    def __init__(self, parent: Path, prefix: str) -> None:
        modes.make_folder(parent, modes.shared_bits(parent.parent))
        self.path = Path(mkdtemp(dir=parent, prefix=prefix))
        descriptor = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        try_lock(descriptor)
        self._close = finalize(self, _remove, self.path, descriptor, os.getpid())

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        self._close()


def abandoned(parent: Path, prefix: str, older_than: float = _NEWBORN) -> Iterator[Path]:
    """The private folders below `parent` whose owners are gone, at least `older_than` seconds old."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(FileNotFoundError, PermissionError):  # of another user, in a shared folder
            if time() - folder.stat().st_mtime >= older_than and not _held(folder):
                yield folder


def try_lock(descriptor: int) -> bool:
    """Lock a file until its descriptor is closed; False when another process has it locked."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # Windows cannot tell: there nothing is ever taken for abandoned
        return False
    return True


def _held(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:  # its owner died before it came to the lock
        return False
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path, descriptor: int, owner: int) -> None:
    if os.getpid() == owner:  # a forked child has a copy of this object, and the folder is not its own
        rmtree(folder, ignore_errors=True)
    os.close(descriptor)
