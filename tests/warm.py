"""`dataset-registry` for tests that run many commands, without the second that a Python with all libraries takes to start.

A process that has everything loaded waits at a socket; the `dataset-registry` on the path of a test is a small script that
passes it the command line, the environment and its three streams. The process forks for each command: what runs is the real
command line, in a process of its own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from time import sleep

import typer.main

_PACKAGES = tuple(
    f"dataset_registry.{name}"
    for name in ("catalog", "cli", "content", "embedded", "model", "operations", "remote", "store", "tabular", "wire")
)
_LIBRARIES = (
    "obstore.store",
    "psycopg",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "rich.table",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
)

_CLIENT = """#!{python} -IS
import array, json, os, socket, sys
with socket.socket(socket.AF_UNIX) as there:
    if there.connect_ex({address!r}):
        sys.exit("the process that commands are forked from is gone")
    message = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    fds = array.array("i", [0, 1, 2])
    there.sendmsg([len(message).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    there.sendall(message)
    code = there.recv(1)
sys.exit(code[0] if code else 1)
"""


@contextmanager
def commands(folder: Path) -> Iterator[Path]:
    """A folder for the front of a path, with a quick `dataset-registry` in it."""
    address = str(folder / "warm")
    with subprocess.Popen([sys.executable, "-m", "tests.warm", address], cwd=Path(__file__).parents[1]) as process:
        while not Path(address).exists():
            assert process.poll() is None, "the process that commands are forked from did not start"
            sleep(0.02)
        script = folder / "bin" / "dataset-registry"
        script.parent.mkdir()
        script.write_text(_CLIENT.format(python=sys.executable, address=address))
        script.chmod(0o755)
        try:
            yield script.parent
        finally:
            process.kill()


def main(address: str) -> None:
    """Wait for commands, and fork for each."""
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        while True:
            there, _ = listener.accept()
            with there:
                if os.fork() == 0:
                    listener.close()
                    there.send(bytes([_run(there)]))
                    os._exit(0)


def share_commands() -> None:
    """Let the commands be built once in this process, and not for every command line: that takes longer than most commands."""
    typer.main.get_command = cache(typer.main.get_command)  # type: ignore[assignment]


def _load() -> None:
    """Import what commands import as late as they can. Nothing may run: a fork has no threads of the process before it."""
    share_commands()
    typer.main.get_command(import_module("dataset_registry.cli").app)
    for name in (*_PACKAGES, *_LIBRARIES):
        package = import_module(name)
        for found in iter_modules(package.__path__, f"{name}.") if name in _PACKAGES else ():
            import_module(found.name)


def _run(there: socket.socket) -> int:
    size, fds, _, _ = socket.recv_fds(there, 8, 3)
    message = b""
    while len(message) < int.from_bytes(size, "big"):
        message += there.recv(1 << 16)
    arguments, folder, environment = json.loads(message)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(fds):
        os.dup2(descriptor, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["dataset-registry", *arguments]
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    from dataset_registry import cli

    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code
        return code if isinstance(code, int) else int(code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    main(sys.argv[1])
