"""What hungry clients cost others: `python -m benchmarks.hungry [SECONDS]`.

A server as users start it, on SQLite and a folder. A normal reader and a look at `/health` are timed first on an idle server,
then beside each kind of hungry client, which has a process of its own: 64 receivers that do not take a large answer, 64 senders
of a byte every two seconds, four that send 30 MB of nested JSON again and again, and all of them at once. Printed are
percentiles, refusals of the reader, and the server's memory.
"""

import multiprocessing
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx

from tests import serving

NESTED = b'{"dataset_name":"a","components":' + b"[" * 15_000_000 + b"]" * 15_000_000 + b"}"
WIDE = b'{"dataset_name":"a","components":[' + b"{}," * 600_000 + b"{}]}"


@dataclass(frozen=True)
class Table:
    """What hungry clients need to know: the server, tokens of a member and of a guest, a large file."""

    url: str
    member: str
    guest: str
    file: int


def main(seconds: float) -> None:
    """Measure, and print a line for each kind."""
    with TemporaryDirectory() as folder:
        place = {"catalog": f"sqlite:///{folder}/catalog.sqlite", "store": f"{folder}/store"}
        with serving.in_process(**place, log=Path(folder) / "log") as served:
            dataset = served.owner.create_dataset("data")
            dataset.commit({"large": bytes(256 << 20), "small": b"x" * 10_000})
            for user in ("reader", "member", "guest"):
                served.owner.create_user(user, role="guest" if user == "guest" else "member")
                served.owner.grant(user, "read", "data")
            files = {c.name: c.file_id for c in dataset.version().components}
            table = Table(served.url, served.token("member"), served.token("guest"), files["large"])
            print(f"{'beside':<34}{'reads':>7}{'p50 ms':>9}{'p99 ms':>9}{'refused':>9}{'health p99':>12}{'MB':>6}")
            for kind, hungry in {
                "nobody": (),
                **{name: (name,) for name in HUNGRY},
                "all of them": tuple(HUNGRY),
            }.items():
                _measure(served, kind, hungry, table, files["small"], seconds)


def _measure(
    served: serving.Served, kind: str, hungry: tuple[str, ...], table: Table, file: int, seconds: float
) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_eat, args=(name, table), daemon=True) for name in hungry]
    for process in processes:
        process.start()
    time.sleep(2)
    reads: list[float] = []
    health: list[float] = []
    refused = 0
    end = time.monotonic() + seconds
    with served.http("reader") as http, httpx.Client(timeout=120) as plain:
        while time.monotonic() < end:
            begun = time.monotonic()
            answer = http.get(f"files/{file}/content")
            reads.append(time.monotonic() - begun)
            refused += answer.status_code != 200
            begun = time.monotonic()
            plain.get(served.url + "/health").raise_for_status()
            health.append(time.monotonic() - begun)
            time.sleep(0.01)
    for process in processes:
        process.kill()
        process.join()
    assert served.process is not None
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) >> 10
    print(
        f"{kind:<34}{len(reads):>7}{_share(reads, 0.5):>9.1f}{_share(reads, 0.99):>9.1f}{refused:>9}"
        f"{_share(health, 0.99):>12.1f}{peak:>6}",
        flush=True,
    )


def _share(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] * 1000


# --- the hungry ----------------------------------------------------------------------------------------------------


def _eat(kind: str, table: Table) -> None:
    count, eat = HUNGRY[kind]
    for _ in range(count):
        threading.Thread(target=_again, args=(eat, table), daemon=True).start()
    threading.Event().wait()


def _again(eat: Callable[[Table], None], table: Table) -> None:
    while True:
        with suppress(OSError, httpx.TransportError):
            eat(table)
        time.sleep(0.5)


@contextmanager
def _connection(table: Table, line: str, headers: Mapping[str, str]) -> Iterator[socket.socket]:
    parts = urlsplit(table.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((parts.hostname or "", parts.port or 0))
        lines = [line, f"Host: {parts.netloc}", f"Authorization: Bearer {table.member}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        yield connection


def _stall(table: Table) -> None:
    with _connection(table, f"GET /v1/files/{table.file}/content HTTP/1.1", {}) as connection:
        while connection.recv(16):  # a few bytes now and then
            time.sleep(2)


def _drip(table: Table) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": "900000"}
    with _connection(table, "POST /v1/datasets HTTP/1.1", headers) as connection:
        while True:
            connection.sendall(b" ")
            time.sleep(2)


def _send(token: str, body: bytes, table: Table) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with httpx.Client(timeout=120) as http:
        http.post(table.url + "/v1/commits", content=body, headers=headers)


HUNGRY: dict[str, tuple[int, Callable[[Table], None]]] = {
    "64 stalled receivers": (64, _stall),
    "64 slow senders": (64, _drip),
    "4 x 30 MB of nested JSON (guest)": (4, lambda table: _send(table.guest, NESTED, table)),
    "4 x JSON within limits (member)": (4, lambda table: _send(table.member, WIDE, table)),
}


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
