"""Dying at a step: a forked child runs an operation and is gone, without any tidying up, at its n-th effect.

Effects are what the world can see of an operation: every SQL statement about to be executed, every COMMIT about to
happen and just happened, and every change of the file system below the registry's folder.
"""

import os
import pickle
import shutil
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

from dataset_registry import Registry
from dataset_registry.catalog import engine
from dataset_registry.errors import CorruptionError
from dataset_registry.tabular import chunking
from dataset_registry.version import Version
from tests import servers
from tests.chunking import every

DEATH = 9
"""The exit code of a child that died where it was told to."""

_numbers = count(1)


# --- places --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a registry is: a folder with its store, and with its catalog unless `server` names a PostgreSQL database."""

    folder: Path
    server: str | None = None
    template: Path | None = None
    """A SQLite catalog to begin with."""

    @property
    def catalog(self) -> str:
        return self.server or f"sqlite:///{self.folder / 'catalog.sqlite'}"

    def open(self) -> Registry:
        return Registry.open(catalog=self.catalog, store=str(self.folder), actor="alice")

    def begin(self) -> None:
        """Put the catalog there that `template` names: to migrate one for each operation would take longer than most."""
        if self.server is None and self.template is not None:
            self.folder.mkdir()
            shutil.copy(self.template, self.folder / "catalog.sqlite")

    @contextmanager
    def copy(self) -> Iterator["Place"]:
        """A copy to break. Nobody may have the original open."""
        number = next(_numbers)
        folder = self.folder.with_name(f"{self.folder.name}-{number}")
        if self.folder.exists():
            shutil.copytree(self.folder, folder)
        server = self.server
        if server is not None:
            server = create_database(server, f"exit_{os.getpid()}_{number}", server.rpartition("/")[2])
        try:
            yield replace(self, folder=folder, server=server)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if server is not None:
                servers.drop_database(_administration(server), server.rpartition("/")[2])


def create_database(server: str, name: str, template: str = "template0") -> str:
    """Make a database on the server of a URL; its URL."""
    servers.create_database(_administration(server), name, template)
    return f"{server.rpartition('/')[0]}/{name}"


def _administration(server: str) -> str:
    return server.rpartition("/")[0].replace("postgresql+psycopg://", "postgresql://") + "/postgres"


def contents(registry: Registry) -> dict[str, Any]:
    """All that a user can see: by dataset the versions with the hashes of their bytes, and what branches and tags name."""
    return {
        dataset.name: {
            "versions": {v.number: (v.parents, v.message, _hashes(v)) for v in dataset.tree()},
            "pointers": {p.name: (p.version_number, p.is_tag) for p in (*dataset.branches(), *dataset.tags())},
        }
        for dataset in registry.datasets()
    }


def _hashes(version: Version) -> Any:
    names = tuple((c.name, c.index) for c in version.components)
    try:
        if version.digest is None:  # a legacy version has no objects yet
            return names, tuple(_hash_of(version, *name) for name in names)
        return names, tuple(sha256(path.read_bytes()).hexdigest() for path in version.paths())
    except CorruptionError as error:
        return names, error.code


def _hash_of(version: Version, name: str, index: int) -> str:
    with version.open(name, index=index) as stream:
        return sha256(stream.read()).hexdigest()


# --- children ------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a fork of this process, which has no registry open."""
    died, result = _forked(lambda pipe: work())
    assert not died
    return result


def dies_at(point: int | None, work: Callable[[], object], folder: Path) -> tuple[str | None, int]:
    """Run `work` in a child that is gone before its effect number `point`.

    Which effect that was, and how many there were; None when the child came to the end.
    """

    def counted(pipe: int) -> int:
        effects = _Effects(folder, point, pipe)
        effects.install()
        work()
        return effects.total()

    died, result = _forked(counted)
    return (str(result), point or 0) if died else (None, int(result))


def _forked(work: Callable[[int], Any]) -> tuple[bool, Any]:
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads; none of ours holds a lock here
        child = os.fork()
    if child == 0:
        _be_child(write, work)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == DEATH:
        return True, told.decode()
    assert code == 0, told.decode()
    return False, pickle.loads(told)


def _be_child(write: int, work: Callable[[int], Any]) -> None:
    sys.settrace(None)  # coverage would slow it down, and never hear of what it saw
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        chunking.split = every(200)  # a table of a few hundred rows has several parts
        told, code = pickle.dumps(work(write)), 0
    except BaseException:
        told, code = traceback.format_exc().encode(), 1
    while told:
        told = told[os.write(write, told) :]
    os._exit(code)


class _Effects:
    """Counts the effects of what runs in this process, and ends the process before one of them."""

    def __init__(self, folder: Path, fatal: int | None, pipe: int) -> None:
        self._folder = str(folder)
        self._fatal = fatal
        self._pipe = pipe
        self._numbers = count(1)

    def __call__(self, what: str) -> None:
        if next(self._numbers) == self._fatal:
            os.write(self._pipe, what.encode())
            os._exit(DEATH)

    def total(self) -> int:
        return next(self._numbers) - 1

    def install(self) -> None:
        """Never undone: the process is a child that ends with the operation."""
        sys.addaudithook(self._audit)
        fsync, do_commit, configure = os.fsync, DefaultDialect.do_commit, engine.configure_sqlite

        def counted_fsync(descriptor: int) -> None:
            self("fsync")
            fsync(descriptor)

        def counted_commit(dialect: DefaultDialect, connection: Any) -> None:
            self("before COMMIT")
            do_commit(dialect, connection)
            self("after COMMIT")

        def counted_settings(connection: Any, record: object) -> None:
            connection.set_trace_callback(self)  # these run below SQLAlchemy; the first of them makes the file
            configure(connection, record)
            connection.set_trace_callback(None)

        def counted_statement(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            self(f"SQL: {statement[:200]}")

        os.fsync = counted_fsync
        DefaultDialect.do_commit = counted_commit  # type: ignore[method-assign]
        engine.configure_sqlite = counted_settings
        event.listen(Engine, "before_cursor_execute", counted_statement)

    def _audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            path, _, flags = arguments
            if not isinstance(path, str | bytes | os.PathLike) or not flags & _WRITING:
                return
        elif name in _CHANGES:
            path = arguments[1] if name in ("os.rename", "os.link") else arguments[0]
        else:
            return
        path = os.fsdecode(path)
        if path.startswith(self._folder) or not os.path.isabs(path):  # rmtree names what it removes by its last part
            self(f"{name} {path}")


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = (
    *("os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.utime"),
)
