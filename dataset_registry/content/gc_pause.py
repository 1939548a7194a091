"""Pausing Python's garbage collector for large commits."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_MANY = 256
"""Minimum number of components for a pause."""


@contextmanager
def gc_paused(count: int) -> Iterator[None]:
    """Pause the garbage collector while this many components are processed.

    The objects of a large commit live until its end and form no cycles; searching for cycles is a quarter of its time.
    Only one commit at a time pauses the collector, so that it runs between them. (Mercurial does the same when it reads
    manifests.)
    """
    if count < _MANY or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
