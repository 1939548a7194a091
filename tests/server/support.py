"""What the tests of the server share: a registry with something of everything, and eyes for its processes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from os import sysconf
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pyarrow as pa

from tests import serving
from tests.waiting import SAFETY

PROBLEM = "application/problem+json"


@dataclass
class Prepared:
    """What is in a prepared registry, by id."""

    datasets: list[int] = field(default_factory=list)
    versions: dict[int, list[int]] = field(default_factory=dict)
    files: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)


def prepare(served: serving.Served, datasets: int = 6) -> Prepared:
    """Fill a registry: datasets, versions on two branches, tags, users, tokens, grants, protections, files, uploads."""
    made = Prepared()
    owner = served.owner
    for user in ("alice", "bob", "carol"):
        owner.create_user(user)
    owner.create_user("team", kind="group", members=["alice", "bob"])
    made.tokens = [owner.create_token("bob", name=f"spare-{n}").token.id for n in range(datasets)]
    for n in range(datasets):
        dataset = owner.create_dataset(f"raw/d{n}", description=f"Dataset {n}")
        with dataset.draft(message="first") as draft:
            draft.add("data", b"id,delay\n1,%d\n2,0\n" % n, format="csv")
            draft.add("notes", b"notes %d" % n)
        dataset.create_branch("dev", "v1")
        dataset.commit({"data": pa.table({"id": [1, 2, n], "s": ["a", None, "c"]})}, message="second")
        dataset.commit({"data": b"id\n%d\n" % n}, message="on dev", branch="dev")
        dataset.create_tag("july", "v1")
        dataset.create_branch("spare", "v2")
        made.datasets.append(dataset.id)
        made.versions[dataset.id] = [version.id for version in dataset.tree()]
    owner.grant("alice", "write", "raw/d0")
    owner.grant("team", "read", "raw/")
    owner.protect("raw/d0", "main", allow=["alice"])
    owner.create_branch("pr-1", "main")
    for file in owner.files():
        made.files.append(file.id)
        if file.content_hash:
            made.hashes.append(file.content_hash)
    with served.http() as http:
        for _ in range(4):
            made.uploads.append(http.post("uploads", json={}).json()["upload_id"])
    return made


def problem(response: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem of a refused request, after a look at everything that each of them has."""
    assert response.status_code == status, (response.status_code, response.text[:500])
    assert response.headers["content-type"] == PROBLEM
    found: dict[str, Any] = response.json()
    assert found["status"] == status
    assert found["detail"].strip()
    assert found["title"]
    assert found["instance"] == response.headers["x-request-id"]
    if code is not None:
        assert found["code"] == code, found
    return found


def commit_file(
    http: httpx.Client, data: bytes, *, dataset: str = "raw/d", name: str = "data.bin", **component: Any
) -> httpx.Response:
    """Commit a file by the name of its dataset, as one form."""
    wanted = {
        "dataset_name": dataset,
        "overwrite": True,
        "components": [{"component_name": "data", "content": {"part": "f"}, "file_name": name} | component],
    }
    return http.post(
        f"commits?dataset_name={dataset}",
        files={"f": ("f", data)},
        data={"commit": json.dumps(wanted)},
        timeout=SAFETY,
    )


def high_water(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def processor_seconds(pid: int) -> float:
    """What a server and its workers, those that are gone too, have had of the processor."""
    found = 0.0
    for one in (pid, *_descendants(pid)):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            found += sum(map(int, fields[11:15])) / sysconf("SC_CLK_TCK")
    return found


@contextmanager
def watched(pid: int) -> Iterator[Mapping[str, int]]:
    """The most memory that a server and any one of its children have in the meantime: `{"server": …, "worker": …}`."""
    found = {"server": 0, "worker": 0}
    done = Event()

    def look() -> None:
        while True:
            with suppress(OSError):
                found["server"] = max(found["server"], _resident(pid))
                for child in _descendants(pid):
                    with suppress(OSError):
                        found["worker"] = max(found["worker"], high_water(child))
            if done.wait(0.1):
                return

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * sysconf("SC_PAGE_SIZE")


def _descendants(pid: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, IndexError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]
