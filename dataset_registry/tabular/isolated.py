"""Capturing untrusted files in worker processes with memory and time limits.

A spreadsheet of 5 kB can request 549 GB, a compressed page can expand without a limit. Each of a few workers is forked
from a process that has loaded the libraries but read no file; a worker that fails is replaced. Results are returned as
JSON, never as a pickle.
"""

import json
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_registry.errors import InputError, RegistryError, RetryLater, UnreadableFile
from dataset_registry.model.chunks import PartFacts
from dataset_registry.model.schema import ComponentSchema

if TYPE_CHECKING:
    from dataset_registry.tabular.preview import Preview, PreviewQuery, PreviewSource

MEMORY = 4 << 30
"""Maximum address space of a worker in bytes: DuckDB and Arrow reserve 2 GB before they use any."""

SECONDS = 25
"""Maximum seconds of a capture, in wall-clock and in processor time."""

COLUMNS = 16_384
"""Maximum number of columns of an untrusted table."""

AT_ONCE = 4
"""Maximum number of workers."""

_JOBS = 100
"""A worker is replaced after this many captures."""
_MESSAGE = 64 << 20
_WAIT = 60.0


def capture(path: Path, format: str) -> ComponentSchema | None:
    """Like `capture.capture`, in a worker. Raises `UnreadableFile` also if the limits are exceeded, `RetryLater`."""
    return _looked({"paths": [str(path)], "format": format})[0]


def capture_table(paths: Sequence[Path], user_types: str | None) -> tuple[ComponentSchema, list[PartFacts]]:
    """Like `parquet.capture_table`, in a worker."""
    names = [str(path) for path in paths]
    schema, parts = _looked({"paths": names, "format": "parquet", "user_types": user_types, "table": True})
    assert schema is not None, "a table has a schema"
    return schema, parts


def preview(source: "PreviewSource", query: "PreviewQuery") -> "Preview":
    """Like `preview.preview`, in a worker. Raises `InputError`, `UnreadableFile`, `RetryLater`."""
    from dataset_registry.tabular.preview import Preview

    schema = source.schema
    job = {
        "preview": asdict(query),
        "format": schema.format if schema else "parquet",
        "paths": [str(path) for path in source.paths],
        "counts": list(source.counts),
        "schema": schema.to_json() if schema else None,
        "sheet": source.sheet,
    }
    found = _answered(job)
    if "invalid" in found:
        raise InputError(found["invalid"])
    return Preview(**found["preview"])


def _looked(job: Mapping[str, Any]) -> tuple[ComponentSchema | None, list[PartFacts]]:
    found = _answered(job)
    schema = ComponentSchema.from_json(found["schema"], found["statistics"]) if found["schema"] else None
    return schema, [PartFacts.from_json(part) for part in found["parts"]]


def _answered(job: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of a worker. Raises `UnreadableFile`, `RetryLater`."""
    request = json.dumps(job).encode()
    with _worker() as worker:
        was_fresh = worker.is_fresh
        answer = worker.ask(request)
    if answer is None and not was_fresh:  # what it kept of other files may have been in the way
        with _worker(fresh=True) as worker:
            answer = worker.ask(request)
    if answer is None:
        if "preview" in job:
            raise UnreadableFile(
                f"The preview takes more than {MEMORY >> 30} GB of memory or {SECONDS} seconds. Load the table instead."
            )
        raise UnreadableFile(
            f"The {job['format']} file takes more than {MEMORY >> 30} GB of memory or {SECONDS} seconds to capture: "
            "check its delimiter and line ends. Export it in a simpler format (Parquet, say), or commit it with "
            "format='binary' to store it unchanged."
        )
    found: dict[str, Any] = json.loads(answer)
    if "error" in found:
        raise UnreadableFile(found["error"])
    return found


class _Worker:
    """A worker process that captures one file after another."""

    def __init__(self) -> None:
        context = _context()
        self._here, there = context.Pipe()
        self._process = context.Process(target=_work, args=(there, MEMORY, SECONDS), daemon=True)
        self._process.start()
        there.close()
        self._left = _JOBS
        self.is_alive = True

    @property
    def is_fresh(self) -> bool:
        """Whether it has not captured a file yet."""
        return self._left == _JOBS

    def ask(self, job: bytes) -> bytes | None:
        """The result of a job, None if the worker failed."""
        self._left -= 1
        answer = None
        with suppress(EOFError, OSError):
            self._here.send_bytes(job)
            if self._here.poll(SECONDS):
                answer = self._here.recv_bytes(_MESSAGE)
        if not answer or not self._left:
            self.stop()
        return answer or None

    def stop(self) -> None:
        """Terminate the process."""
        self.is_alive = False
        self._here.close()
        self._process.kill()
        self._process.join()
        self._process.close()


class _Workers:
    """The pool of workers: the idle ones, and the number that may still be started."""

    def __init__(self) -> None:
        self.idle: list[_Worker] = []
        self.slots = threading.BoundedSemaphore(AT_ONCE)


_workers = _Workers()


@contextmanager
def _worker(*, fresh: bool = False) -> Iterator[_Worker]:
    """A worker for one job. Raises `RetryLater` if all are busy for too long."""
    workers = _workers
    if not workers.slots.acquire(timeout=_WAIT):
        raise RetryLater("Too many files are being captured. Try again in a moment.")
    try:
        worker = workers.idle.pop() if workers.idle and not fresh else _Worker()
        try:
            yield worker
        except BaseException:
            worker.stop()
            raise
        if worker.is_alive:
            workers.idle.append(worker)
    finally:
        workers.slots.release()


if hasattr(os, "register_at_fork"):  # in a child, the workers and who waits for them are the parent's
    os.register_at_fork(after_in_child=_workers.__init__)  # type: ignore[misc]


@cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, "dataset_registry.tabular.capture", "fastexcel"])
    return context


# --- in the worker -------------------------------------------------------------------------------------------------


def _work(conversation: Connection, memory: int, seconds: int) -> None:
    """The main loop of a worker: set limits, then capture and answer until the input ends."""
    import resource

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)  # what libraries say when they give up is no line of our log
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            job = json.loads(conversation.recv_bytes())
        except EOFError:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        allowed = int(used.ru_utime + used.ru_stime) + 2 * seconds
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))
        answer = _look(job)
        if answer is None:
            return
        conversation.send_bytes(json.dumps(answer).encode())


def _look(job: Mapping[str, Any]) -> dict[str, Any] | None:
    """The capture of a file or the error; None if the limits were exceeded."""
    import duckdb

    from dataset_registry.tabular import capture as looking
    from dataset_registry.tabular import parquet

    paths = [Path(path) for path in job["paths"]]
    parts: list[PartFacts] = []
    found: ComponentSchema | None
    try:
        if "preview" in job:
            return _preview(job, paths)
        if job.get("table"):
            found, parts = parquet.capture_table(paths, job["user_types"])
        else:
            found = looking.capture(paths[0], job["format"])
    except RegistryError as error:
        return None if isinstance(error.__cause__, duckdb.OutOfMemoryException) else {"error": str(error)}
    except (MemoryError, duckdb.OutOfMemoryException):
        return None
    except Exception as error:  # whatever a library makes of such a file: this process is for that
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]
        return {
            "error": f"The {job['format']} file cannot be read ({reason}). Fix it, or commit it with format='binary' to "
            "store it unchanged."
        }
    if found is not None and any(len(table.columns) > COLUMNS for table in found.tables):
        return {
            "error": f"The {job['format']} file has more than {COLUMNS:,} columns. Commit it with format='binary' instead."
        }
    if found is None:
        return {"schema": None, "statistics": [], "parts": []}
    listed = [part.to_json() for part in parts]
    return {"schema": found.to_json(), "statistics": found.statistics_to_json(), "parts": listed}


def _preview(job: Mapping[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    from dataset_registry.tabular.preview import PreviewQuery, PreviewSource, preview

    schema = ComponentSchema.from_json(job["schema"]) if job["schema"] else None
    try:
        found = preview(PreviewSource(paths, job["counts"], schema, job["sheet"]), PreviewQuery(**job["preview"]))
    except InputError as error:
        return {"invalid": str(error)}
    return {"preview": found.to_json()}
