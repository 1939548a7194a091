"""Random access to files that are stored as ranges of objects, without assembling them."""

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from io import RawIOBase
from itertools import accumulate
from typing import Any, Protocol

from dataset_registry.errors import CorruptionError

Run = tuple[str, int, int]
"""A run of bytes of an object: its key, its offset, its length."""


class Readable(Protocol):
    """The part of a store that reads runs of bytes."""

    def read(self, key: str, offset: int, length: int) -> bytes: ...


class Ranges(RawIOBase):
    """A stream over concatenated runs of bytes of objects. Raises the errors of the store's `read`.

    If an object is missing, `again` returns the current runs: the bytes may have been repacked during the read.
    """

    def __init__(self, store: Readable, runs: Sequence[Run], again: Callable[[], Sequence[Run]] | None = None) -> None:
        self._store, self._again = store, again
        self._go_on_with(runs)
        self.size = self._ends[-1] if runs else 0
        self._at = 0

    def _go_on_with(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._ends = list(accumulate(length for _, _, length in runs))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence])
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = self.size - self._at if size is None or size < 0 else min(size, self.size - self._at)
        found: list[bytes] = []
        while left > 0:
            found.append(self._next(left))
            left -= len(found[-1])
        return found[0] if len(found) == 1 else b"".join(found)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _next(self, most: int) -> bytes:
        """Read up to this many bytes of the current run."""
        while True:
            index = bisect_right(self._ends, self._at)
            key, offset, length = self._runs[index]
            into = self._at - (self._ends[index] - length)
            try:
                data = self._store.read(key, offset + into, min(length - into, most))
            except CorruptionError:
                now = self._again() if self._again else self._runs
                if now == self._runs:
                    raise
                self._go_on_with(now)
                continue
            self._at += len(data)
            return data
