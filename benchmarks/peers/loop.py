"""What runs in the environment of a participant: `python -P loop.py <script>` answers requests with what they took.

One JSON line asks for one piece of work: `{"work": "store", "folder": "…", …}`. The function of that name in the script does
it. It is a generator: what it does before its first `yield` is preparation, what it does up to its second is measured, and
the second may yield further facts. A participant has no function for what it cannot do.

Only the standard library is imported here: environments hold nothing but the peer, and its memory is the peer's.
"""

import contextlib
import gc
import inspect
import json
import os
import resource
import runpy
import sys
import traceback
from pathlib import Path
from time import perf_counter
from typing import Any

TOO_SLOW = "too slow"


def main(script: str) -> None:
    """Answer one line with one line until the requests end."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes where errors go
    try:
        works: dict[str, Any] = runpy.run_path(script, run_name="participant")
        able = [name for name, work in works.items() if inspect.isfunction(work)]
        print(json.dumps({"works": able, **works.get("FACTS", {})}), file=answers)
    except BaseException as error:
        print(json.dumps({"failed": _reason(error)}), file=answers)
        return
    for line in sys.stdin:
        request = json.loads(line)
        work = request.pop("work")
        print(json.dumps(_grow(works, **request) if work == "grow" else _answer(works[work], request)), file=answers)


def _answer(work: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        steps = work(**arguments)
        next(steps)
        gc.collect()
        stored = usage(arguments["folder"])
        before = _start_of_peak()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = perf_counter()
        facts = next(steps)
        seconds = perf_counter() - begun
        peak = _status("VmHWM")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        with contextlib.suppress(StopIteration):
            next(steps)  # what tidies up
    except BaseException as error:
        traceback.print_exc()
        return {"failed": _reason(error)}
    started = after.ru_utime + after.ru_stime > children.ru_utime + children.ru_stime
    child = after.ru_maxrss if started else 0  # the largest so far, at most; all of it is for this
    above = max(peak - before, child)
    return {
        "seconds": seconds,
        "peak_mb": max(peak, child) // 1024,
        "above_mb": above // 1024,
        "new_bytes": usage(arguments["folder"]) - stored,
        **(facts or {}),
    }


def usage(folder: str) -> int:
    """What the files of a folder take on the disk, in bytes; what has two names counts twice."""
    found = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                found += os.lstat(os.path.join(root, name)).st_blocks * 512
    return found


def _grow(works: dict[str, Any], folder: str, count: int, within: float) -> dict[str, Any]:
    """Commit until there are this many versions more, unless that would take too long."""
    begun = perf_counter()
    for done in range(count):
        taken = perf_counter() - begun
        if taken > within or (done == 4 and taken / 3 * count > 2 * within):
            return {"failed": f"{TOO_SLOW}: {count} versions would take {taken / max(done - 1, 1) * count:,.0f} s"}
        try:
            for _ in works["commit"](folder=folder):
                pass
        except Exception as error:  # of whatever peer: it is the answer
            traceback.print_exc()
            return {"failed": _reason(error)}
        if not done:
            begun = perf_counter()  # the first one opens what has to be opened
    return {"seconds": perf_counter() - begun}


def _start_of_peak() -> int:
    """Let the OS forget the peak of the memory so far; what is in memory now, in KB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


if __name__ == "__main__":
    main(sys.argv[1])
