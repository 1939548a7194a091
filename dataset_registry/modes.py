"""Who on this machine may read and write the files of a registry: its owner, and the group of a folder that is shared.

New folders have the mode 0700 and new files 0600, whatever the umask is. A folder that was created with the setgid bit before
the registry (`mkdir -m 2770 registry`) is shared: what is new in it has the folder's bits for the group, and for others those
for reading. A registry that exists keeps the bits that it has.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_INHERITED = stat.S_ISGID | 0o075
"""What is inherited from a folder: only the owner and the group ever write."""

_DECISIVE = ("objects", "cache")
"""The folders of a store that say how it is shared, once they exist."""


def shared_bits(root: Path) -> int:
    """The bits beside the owner's that new folders below the root of a store have; 0 in a private one."""
    for name in _DECISIVE:
        with suppress(FileNotFoundError):
            return (root / name).stat().st_mode & _INHERITED
    with suppress(FileNotFoundError):
        mode = root.stat().st_mode
        return mode & _INHERITED if mode & stat.S_ISGID else 0
    return 0


def bits_beside(file: Path) -> int:
    """The bits beside the owner's of what is new beside a file: those of the file, when it exists."""
    with suppress(FileNotFoundError):
        return file.stat().st_mode & _INHERITED
    return shared_bits(file.parent)


def make_folder(path: Path, bits: int) -> None:
    """Make a folder, and those above it, where they do not exist."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_folder(path.parent, bits)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:  # another process was as fast
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
