"""Looking into files of strangers: in a process of its own, with limits of memory and time, that can be lost.

A spreadsheet of 5 kB can ask for 549 GB, a compressed page can unfold without end. The process is forked from one that has
the libraries loaded and has seen no file yet; what it found comes back as JSON, never as a pickle.
"""

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dataset_registry.errors import RegistryError, UnreadableFile
from dataset_registry.model.schema import ComponentSchema

MEMORY = 3 << 30
"""Bytes of address space that a look may take; DuckDB and Arrow reserve more than they use."""

SECONDS = 25
"""How long a look may take, by the clock and by the processor."""

_MESSAGE = 64 << 20


def capture(path: Path, format: str) -> ComponentSchema | None:
    """As `capture.capture`, apart. Raises `UnreadableFile` also where the limits did not suffice."""
    return _looked({"paths": [str(path)], "format": format})[0]


def capture_table(paths: Sequence[Path], user_types: str | None) -> tuple[ComponentSchema, list[int]]:
    """As `parquet.capture_table`, apart."""
    names = [str(path) for path in paths]
    schema, rows = _looked({"paths": names, "format": "parquet", "user_types": user_types, "table": True})
    assert schema is not None, "a table has a schema"
    return schema, rows


def _looked(job: Mapping[str, Any]) -> tuple[ComponentSchema | None, list[int]]:
    context = _context()
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_look, args=(there, json.dumps(job), MEMORY, SECONDS), daemon=True)
    process.start()
    there.close()
    try:
        answer = None
        if here.poll(SECONDS):
            with suppress(EOFError, OSError):
                answer = here.recv_bytes(_MESSAGE)
    finally:
        here.close()
        process.kill()
        process.join()
        process.close()
    if answer is None:
        raise UnreadableFile(
            f"The {job['format']} file takes more than {MEMORY >> 30} GB of memory or {SECONDS} seconds to look into. Deliver it "
            "in a simpler form (Parquet, say), or commit it with format='binary' to keep it as it is."
        )
    found = json.loads(answer)
    if "error" in found:
        raise UnreadableFile(found["error"])
    schema = ComponentSchema.from_json(found["schema"], found["statistics"]) if found["schema"] else None
    return schema, found["rows"]


@cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, "dataset_registry.tabular.capture", "fastexcel"])
    return context


def _look(answer: Connection, job_text: str, memory: int, seconds: int) -> None:
    """What the process does: limit itself, look, answer."""
    import os
    import resource

    import duckdb

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)  # what libraries say when they give up is no line of our log
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from dataset_registry.tabular import capture as looking
    from dataset_registry.tabular import parquet

    job = json.loads(job_text)
    paths = [Path(path) for path in job["paths"]]
    try:
        found: ComponentSchema | None
        rows: list[int] = []
        if job.get("table"):
            found, rows = parquet.capture_table(paths, job["user_types"])
        else:
            found = looking.capture(paths[0], job["format"])
        schema = found.to_json() if found else None
        message: dict[str, Any] = {
            "schema": schema,
            "statistics": found.statistics_to_json() if found else [],
            "rows": rows,
        }
    except RegistryError as error:
        message = {"error": str(error)}
    except (MemoryError, duckdb.OutOfMemoryException):
        return
    except Exception as error:  # whatever a library makes of such a file: this process is for that
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]
        message = {
            "error": f"The {job['format']} file cannot be read ({reason}). Mend it, or commit it with format='binary' to keep "
            "it as it is."
        }
    answer.send_bytes(json.dumps(message).encode())
