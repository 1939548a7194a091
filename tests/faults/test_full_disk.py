"""A disk that is full: what was asked says so, what was there is there, and with room again all goes on as if nothing was.

The disk is a real one, a few megabytes of tmpfs. Mounting it takes root (or sudo without a password): run the tests so, or
inside `unshare --map-root-user --mount`.
"""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import func, select, text

from dataset_registry import Registry
from dataset_registry.catalog.tables import metadata
from dataset_registry.errors import StorageError
from dataset_registry.operations import commit as commits
from dataset_registry.store import FolderStore
from tests.faults.faulty import FaultyStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux mounts a disk of a few megabytes so easily")

NOW = timedelta(0)
SIZE = 8 << 20
OLD = {"large": Random(1).randbytes(1_000_000), "small": b"old"}
NEW = {"large": Random(2).randbytes(1_500_000), "small": b"new"}


class Disk:
    """A small file system of its own, and a file that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        self._lock = threading.Lock()

    def fill(self, leave: int = 0) -> None:
        """Take all that is free, up to `leave` bytes."""
        with self._lock, self._filler.open("ab") as stream:  # several threads store at once
            facts = os.statvfs(self.folder)
            free = facts.f_bavail * facts.f_frsize - leave
            if free > 0:
                os.posix_fallocate(stream.fileno(), stream.tell(), free)
            assert os.statvfs(self.folder).f_bavail * facts.f_frsize <= leave

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    _as_root("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=1777", "tmpfs", folder)
    try:
        yield Disk(folder)
    finally:
        _as_root("umount", "--lazy", folder)


def _as_root(*command: str | Path) -> None:
    """Run a command that needs root; a machine without the right to do so fails the test, and is told what it needs."""
    for attempt in (command, ("sudo", "-n", *command)):
        try:
            done = subprocess.run(attempt, capture_output=True, check=False, text=True)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return
    pytest.fail(f"{command[0]}: {done.stderr}. Run as root, or: unshare --map-root-user --mount pytest {__file__}")


# --- a commit ------------------------------------------------------------------------------------------------------


def _places(where: str, disk: Disk, tmp_path: Path) -> dict[str, str]:
    catalog, store = tmp_path / "catalog.sqlite", tmp_path / "store"
    if where in ("both", "catalog"):
        catalog = disk.folder / "catalog.sqlite"
    if where in ("both", "store"):
        store = disk.folder / "store"
    return {"catalog": f"sqlite:///{catalog}", "store": str(store)}


def _rows(registry: Registry) -> Counter[str]:
    """How many rows each table has, apart from those that announce or discard objects."""
    with registry.access.catalog.read() as tx:
        return Counter(
            {
                table.name: tx.execute(select(func.count()).select_from(table)).scalar_one()
                for table in metadata.tables.values()
                if table.name not in ("uploads", "trash")
            }
        )


def _contents(registry: Registry) -> dict[int, dict[str, bytes]]:
    return {
        v.number: {c.name: v.paths(c.name)[0].read_bytes() for c in v.components} for v in registry.dataset("d").tree()
    }


def _announced(registry: Registry) -> set[str]:
    with registry.access.catalog.read() as tx:
        return set(tx.execute(text("SELECT object_key FROM uploads UNION SELECT object_key FROM trash")).scalars())


def _clean_up(registry: Registry) -> None:
    """What is done a day later; then no findings."""
    access = registry.access
    access.catalog.write(lambda tx: tx.execute(text("UPDATE uploads SET expires_at = '2020-01-01'")))
    registry.collect(older_than=NOW)
    registry.sweep(older_than=NOW, max_share=1)
    access.store.tidy(0)
    assert registry.verify(deep=True, older_than=NOW).findings == ()
    assert {found.key for found in access.store.list()} == {f.object_key for f in registry.files() if f.object_key}
    assert list((access.store.scratch / "spool").rglob("*")) == []


def _before(owner: Any, name: str, work: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Do something just before a function is called."""
    original = getattr(owner, name)

    def first(*arguments: Any, **options: Any) -> Any:
        work()
        return original(*arguments, **options)

    patch.setattr(owner, name, first)


SPOOLING, HOLDING, STORING, COMMITTING = "spooling", "holding", "storing", "committing"


@pytest.mark.objects
@pytest.mark.parametrize(
    ("where", "step"),
    [
        *(("both", step) for step in (SPOOLING, HOLDING, STORING, COMMITTING)),
        *(("store", step) for step in (SPOOLING, STORING)),
        *(("catalog", step) for step in (HOLDING, COMMITTING)),
    ],
)
def test_a_disk_that_fills_up_in_the_middle_of_a_commit_leaves_nothing_half_written(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, step: str
) -> None:
    with Registry.open(**_places(where, disk, tmp_path)) as registry:
        dataset = registry.create_dataset("d")
        dataset.commit(OLD)
        rows, stored = _rows(registry), {found.key for found in registry.access.store.list()}
        if step == SPOOLING:
            disk.fill(leave=500_000)
        with monkeypatch.context() as patch:
            if step == HOLDING:
                _before(commits, "upload_contents", disk.fill, patch)
            elif step == STORING:  # what is large is there already, and only linked; what is small is written now
                _before(FolderStore, "put", disk.fill, patch)
            elif step == COMMITTING:
                _before(commits, "commit_in", disk.fill, patch)
            with pytest.raises(StorageError, match=r"(?i)(no space left|disk is full).*Nothing was committed"):
                dataset.commit(NEW)
        assert _contents(registry) == {1: OLD}
        assert _rows(registry) == rows
        assert {found.key for found in registry.access.store.list()} <= stored | _announced(registry)
        spools = (registry.access.store.scratch / "spool").rglob("*")
        assert [path for path in spools if path.is_file()] == []
        with pytest.raises(StorageError):  # as long as it is full, it says so
            dataset.commit(NEW)
        disk.free()
        assert dataset.commit(NEW).number == 2
        assert _contents(registry) == {1: OLD, 2: NEW}
        _clean_up(registry)
        assert _contents(registry) == {1: OLD, 2: NEW}


@pytest.mark.parametrize("room", range(0, 400_000, 50_000))
def test_a_commit_with_any_room_left_is_made_whole_or_not_at_all(disk: Disk, tmp_path: Path, room: int) -> None:
    new = {**NEW, "large": NEW["large"][:100_000]}
    with Registry.open(**_places("both", disk, tmp_path)) as registry:
        dataset = registry.create_dataset("d")
        dataset.commit(OLD)
        disk.fill(leave=room)
        try:
            dataset.commit(new)
        except StorageError:
            assert _contents(registry) == {1: OLD}
        assert _contents(registry) in ({1: OLD}, {1: OLD, 2: new})
        disk.free()
        dataset.commit(new)
        _clean_up(registry)
        assert _contents(registry) == {1: OLD, 2: new}


@pytest.mark.parametrize(
    "where",
    ["store", "catalog"],
)
def test_what_a_full_disk_says_names_the_next_step(disk: Disk, tmp_path: Path, where: str) -> None:
    with Registry.open(**_places(where, disk, tmp_path)) as registry:
        dataset = registry.create_dataset("d")
        disk.fill()
        with pytest.raises(StorageError, match="free space"):
            dataset.commit(NEW)


def test_a_table_that_does_not_fit_says_so(disk: Disk, tmp_path: Path) -> None:
    table = pa.table({"a": _floats()})
    with Registry.open(**_places("store", disk, tmp_path)) as registry:
        dataset = registry.create_dataset("d")
        disk.fill(leave=500_000)
        with pytest.raises(StorageError, match=r"No space left.*free space"):
            dataset.commit({"data": table})
        disk.free()
        assert dataset.commit({"data": table}).to_arrow().equals(table)
        _clean_up(registry)


def _floats() -> list[float]:
    random = Random(3)
    return [random.random() for _ in range(200_000)]


# --- spools and copies on a disk of their own ----------------------------------------------------------------------


def test_a_full_disk_under_spools_stops_commits_and_a_full_disk_under_copies_stops_what_needs_one(
    disk: Disk, tmp_path: Path, sqlite_url: str
) -> None:
    store = FaultyStore(FolderStore(tmp_path / "store"), {})  # like an object store: no local files
    store.scratch = disk.folder / "scratch"
    with Registry.open(catalog=sqlite_url, store=store) as registry:
        dataset = registry.create_dataset("d")
        version = dataset.commit(OLD)
        registry.access.copies.close()
        disk.fill(leave=500_000)
        with pytest.raises(StorageError, match=r"could not be spooled: No space left.*free space"):
            dataset.commit(NEW)
        with pytest.raises(StorageError, match=r"copy for reading.*No space left.*free space"):
            version.paths("large")
        with version.open("large") as stream:  # needs no copy
            assert stream.read() == OLD["large"]
        assert [path for path in store.scratch.rglob("*") if path.is_file() and path.stat().st_size] == []
        disk.free()
        assert version.paths("large")[0].read_bytes() == OLD["large"]
        dataset.commit(NEW)
        _clean_up(registry)


@pytest.mark.parametrize("read", ["paths", "commit"])
def test_a_disk_without_room_for_another_file_says_so(
    disk: Disk, tmp_path: Path, sqlite_url: str, read: str, request: pytest.FixtureRequest
) -> None:
    """A disk has a number of files, too."""
    store = FaultyStore(FolderStore(tmp_path / "store"), {})
    store.scratch = disk.folder / "scratch"
    with Registry.open(catalog=sqlite_url, store=store) as registry:
        version = registry.create_dataset("d").commit(OLD)
        used = os.statvfs(disk.folder)
        _as_root("mount", "-o", f"remount,nr_inodes={used.f_files - used.f_ffree}", disk.folder)
        with pytest.raises(StorageError, match=r"No space left.*free space"):
            version.paths("large") if read == "paths" else registry.dataset("d").commit(NEW)


# --- reading and making room ---------------------------------------------------------------------------------------


def test_a_registry_on_a_full_disk_is_read_by_who_has_it_open(disk: Disk, tmp_path: Path) -> None:
    with Registry.open(**_places("both", disk, tmp_path)) as registry:
        registry.create_dataset("d").commit(OLD)
        disk.fill()
        assert _contents(registry) == {1: OLD}
        assert registry.verify(deep=True, older_than=NOW).findings == ()


ROOM = 40 << 10
"""What SQLite wants for the memory that its readers share."""


@pytest.mark.parametrize(
    "room",
    [ROOM, 0],
)
def test_a_registry_on_a_full_disk_is_opened_and_read(disk: Disk, tmp_path: Path, room: int) -> None:
    places = _places("both", disk, tmp_path)
    with Registry.open(**places) as registry:
        registry.create_dataset("d").commit(OLD)
    disk.fill(leave=room)
    with Registry.open(**places) as registry:
        assert _contents(registry) == {1: OLD}


@pytest.mark.parametrize("fresh", [False, True], ids=["that is open", "opened anew"])
@pytest.mark.parametrize(
    "room",
    [
        128 << 10,
        0,
    ],
)
def test_a_collection_makes_room_on_a_full_disk(disk: Disk, tmp_path: Path, room: int, fresh: bool) -> None:
    places = _places("both", disk, tmp_path)
    with Registry.open(**places) as registry:
        dataset = registry.create_dataset("d")
        dataset.commit(OLD)
        registry.create_dataset("gone").commit(NEW)
        registry.dataset("gone").delete()
        if fresh:
            registry.close()
        disk.fill(leave=room)
        with Registry.open(**places) if fresh else nullcontext(registry) as found:
            assert found.collect(older_than=NOW).bytes == sum(map(len, NEW.values()))
            assert found.dataset("d").commit({"small": b"new"}).number == 2
            assert _contents(found) == {1: OLD, 2: {**OLD, "small": b"new"}}
            disk.free()
            _clean_up(found)


def test_a_collection_that_a_full_disk_stops_says_so_and_is_finished_when_there_is_room(
    disk: Disk, tmp_path: Path
) -> None:
    with Registry.open(**_places("both", disk, tmp_path)) as registry:
        dataset = registry.create_dataset("d")
        dataset.commit(OLD)
        registry.create_dataset("gone").commit(NEW)
        registry.dataset("gone").delete()
        disk.fill()
        try:
            registry.collect(older_than=NOW)
        except StorageError as error:
            assert "disk is full" in str(error)  # noqa: PT017 - it may as well succeed
        assert _contents(registry) == {1: OLD}
        disk.free()
        registry.collect(older_than=NOW)
        _clean_up(registry)
        assert _contents(registry) == {1: OLD}
