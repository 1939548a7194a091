"""Waiting for what must come, on a machine of any speed: tests count events, not seconds."""

import os
from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

SAFETY = float(os.environ.get("TEST_SAFETY_SECONDS", "600"))
"""Seconds after which a test that waits in vain ends. No test passes or fails by being quicker than that."""
_Found = TypeVar("_Found")


def until(condition: Callable[[], _Found], *, what: str | Callable[[], str] = "it") -> _Found:
    """Wait until a condition holds; what it returned. `what` is what ought to have happened."""
    end, pause = monotonic() + SAFETY, 0.002
    while not (found := condition()):
        assert monotonic() < end, f"this never came to be: {what if isinstance(what, str) else what()}"
        sleep(pause)
        pause = min(0.05, pause * 1.5)
    return found
