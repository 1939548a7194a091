"""Very many small things at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_MANY = 256
"""Components from which on it is worth it."""


@contextmanager
def gc_paused(count: int) -> Iterator[None]:
    """Work on this many components without Python looking through the whole process for cycles every few thousand of them.

    What a large commit makes stays until it is done, and is in no cycle: looking for some is a quarter of its time. One such
    work at a time holds the collector off, so that it has its turn between them. (Mercurial does so where it reads manifests.)
    """
    if count < _MANY or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
