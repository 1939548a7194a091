"""Who on this machine may read and write the files of a registry: its owner, and the group of a folder that is shared.

New folders have the mode 0700 and new files 0600, independent of the umask. A folder that was created with the setgid
bit before the registry (`mkdir -m 2770 registry`) is shared: new files in it get the folder's permissions for the
group, and its read permissions for others. An existing registry keeps its permissions.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_INHERITED = stat.S_ISGID | 0o075
"""Mode bits that are inherited from a folder: only the owner and the group may write."""

_DECISIVE = ("objects", "cache")
"""The folders of a store whose mode determines how it is shared."""


def shared_bits(root: Path) -> int:
    """The group and other mode bits of new folders in a store; 0 if it is private."""
    for name in _DECISIVE:
        with suppress(FileNotFoundError):
            return (root / name).stat().st_mode & _INHERITED
    with suppress(FileNotFoundError):
        mode = root.stat().st_mode
        return mode & _INHERITED if mode & stat.S_ISGID else 0
    return 0


def bits_beside(file: Path) -> int:
    """The group and other mode bits of new files beside a file: those of the file, if it exists."""
    with suppress(FileNotFoundError):
        return file.stat().st_mode & _INHERITED
    return shared_bits(file.parent)


def make_folder(path: Path, bits: int) -> None:
    """Create a folder and its missing parents."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_folder(path.parent, bits)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:  # created by another process at the same time
        if not path.is_dir():
            raise
    else:
        if bits:
            path.chmod(0o700 | bits)


def open_or_create(path: Path, bits: int) -> int:
    """A descriptor to read and write a file with; it is created where there is none."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR)
    _share(path, bits)
    return descriptor


def new_file(path: Path, bits: int = 0, *, buffering: int = -1) -> BinaryIO:
    """A new file to write to. Raises `FileExistsError`."""
    file = open(path, "xb", buffering=buffering, opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
    _share(path, bits)
    return file


def read_only(bits: int) -> int:
    """The mode of a file that is complete."""
    return 0o400 | bits & 0o044


def _share(path: Path, bits: int) -> None:
    if bits & 0o066:
        path.chmod(0o600 | bits & 0o066)
