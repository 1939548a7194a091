"""A store that fails in every way it can: no commit rests on bytes that nobody verified, and every failure says what it is."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from random import Random
from shutil import rmtree
from typing import BinaryIO

import pyarrow as pa
import pytest
from sqlalchemy import text

from dataset_registry import Registry
from dataset_registry.dataset import Dataset
from dataset_registry.errors import CorruptionError, InUse, RegistryError, RetryLater, StorageError
from dataset_registry.store import FolderStore, ObjectStore, Store
from dataset_registry.version import Version
from tests.contracts import test_store as contract
from tests.faults.faulty import FAULTS, FaultyStore, proxy

pytestmark = pytest.mark.objects

NOW = timedelta(0)
SMALL, LARGE = b"small content", bytes(range(256)) * 400
CONTENT = {"small": SMALL, "large": LARGE}


def _read(version: Version, component: str) -> bytes:
    """A component by way of a local copy, which is checked against the hash."""
    try:
        return version.paths(component)[0].read_bytes()
    finally:
        version.access.copies.close()


def _hash(data: bytes) -> str:
    return sha256(data).hexdigest()


def _clean_up(registry: Registry) -> None:
    """What is done a day later."""
    registry.access.catalog.write(lambda tx: tx.execute(text("UPDATE uploads SET expires_at = '2020-01-01'")))
    registry.collect(older_than=NOW)
    registry.sweep(older_than=NOW, max_share=1)


# --- a thousand operations -----------------------------------------------------------------------------------------


class World:
    """A registry on a faulty store, beside a plain dictionary of what it acknowledged."""

    def __init__(self, registry: Registry, store: FaultyStore, seed: int) -> None:
        self.registry, self.store, self.random = registry, store, Random(seed)
        self.versions: dict[tuple[str, int], dict[str, bytes]] = {}
        self.branches: dict[tuple[str, str], int] = {}
        self.known: list[bytes] = []
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._names = count()
        for name in ("a", "b", "c"):
            with store.off():
                self._acknowledge(
                    registry.create_dataset(name).commit({"x": name.encode()}), "main", {"x": name.encode()}
                )

    def step(self) -> None:
        works = {self.commit: 9, self.read: 6, self.delete: 2, self.branch: 2, self.move: 1, self.collect: 1}
        work = self.random.choices(list(works), list(works.values()))[0]()
        before = self.store.happened.copy()
        self.done[work.__name__] += 1
        try:
            work()
        except RegistryError as error:
            kinds = {kind for kind, n in (self.store.happened - before).items() if n}
            self.errors[f"{work.__name__}: {type(error).__name__}"] += 1
            if type(error) not in {FAULTS[kind] for kind in kinds} | {CorruptionError}:
                raise AssertionError(f"of {kinds}: {error!r}") from error
            with self.store.off():
                try:
                    work()  # as it was told to
                except CorruptionError as again:  # of a fault that stays: the bytes are wrong where they are
                    if again.fields.get("key") not in self.store.damaged:
                        raise

    def dataset(self) -> Dataset:
        return self.registry.dataset(self.random.choice("abc"))

    def commit(self) -> Callable[[], None]:
        dataset, branch = self.registry.dataset((key := self.random.choice(list(self.branches)))[0]), key[1]
        change = {name: self.content() for name in self.random.sample("xyzuvw", self.random.randint(1, 3))}

        def commit() -> None:
            self._acknowledge(dataset.commit(change, branch=branch), branch, change)

        return commit

    def content(self) -> bytes:
        if self.known and self.random.random() < 0.3:
            return self.random.choice(self.known)
        size = self.random.choice((0, 1, 100, 5_000, 70_000, 200_000))
        self.known.append(self.random.randbytes(size))
        return self.known[-1]

    def _acknowledge(self, made: Version, branch: str, change: dict[str, bytes]) -> None:
        """Note a version that a commit returned."""
        head = self.branches.get((made.dataset, branch))
        self.versions[made.dataset, made.number] = {**self.versions.get((made.dataset, head or 0), {}), **change}
        self.branches[made.dataset, branch] = made.number

    def read(self) -> Callable[[], None]:
        (name, number), wanted = self.random.choice(list(self.versions.items()))
        version = self.registry.dataset(name).version(f"v{number}")
        component = self.random.choice(list(wanted))

        def read() -> None:
            assert _read(version, component) == wanted[component]

        return read

    def delete(self) -> Callable[[], None]:
        name = self.random.choice("abc")
        tree = self.registry.dataset(name).tree()
        needed = {n for v in tree for n in v.parents} | {n for (d, _), n in self.branches.items() if d == name}
        number = self.random.choice([v.number for v in tree if v.number not in needed] or [tree[0].number])

        def delete() -> None:
            try:
                self.registry.dataset(name).delete_version(f"v{number}")
            except InUse:
                return
            del self.versions[name, number]

        return delete

    def branch(self) -> Callable[[], None]:
        name, number = self.random.choice(list(self.versions))

        def branch() -> None:
            new = f"branch-{next(self._names)}"
            self.registry.dataset(name).create_branch(new, f"v{number}")
            self.branches[name, new] = number
            old = [key for key in self.branches if key[0] == name and key[1] != "main"]
            if len(old) > 3:
                self.registry.dataset(name).delete_branch(old[0][1])
                del self.branches[old[0]]

        return branch

    def move(self) -> Callable[[], None]:
        name, number = self.random.choice(list(self.versions))
        branch = self.random.choice([branch for dataset, branch in self.branches if dataset == name])

        def move() -> None:
            self.registry.dataset(name).move_branch(branch, f"v{number}")
            self.branches[name, branch] = number

        return move

    def collect(self) -> Callable[[], None]:
        def collect() -> None:
            _clean_up(self.registry)

        return collect

    def check(self) -> int:
        """Everything that was acknowledged is there and nothing else, or is on the list of a verification; how much that is."""
        with self.store.off():
            _clean_up(self.registry)
            there = {(v.dataset, v.number) for d in self.registry.datasets() for v in d.tree()}
            assert there == self.versions.keys()
            damaged = {
                file.content_hash: self.store.damaged[file.object_key]
                for file in self.registry.files()
                if file.object_key in self.store.damaged
            }
            touched = self._touched(damaged)
            assert self._read_all(damaged) == touched
            found = self.registry.verify(deep=True, repair=True, older_than=NOW).findings
            kinds = {"size": "short", "content": "flipped"}
            assert {f.file.content_hash: kinds[f.kind] for f in found if f.file} == damaged
            assert len(found) == len(damaged)
            # What is in quarantine now is healed by whoever commits it again.
            by_hash = {_hash(data): data for data in self.known}
            healing = self.registry.create_dataset("healing")
            for content_hash in damaged:
                healing.commit({"data": by_hash[content_hash]})
            _clean_up(self.registry)
            assert self.registry.verify(deep=True, older_than=NOW).findings == ()
            assert self._read_all({}) == 0
            return touched

    def _touched(self, damaged: Mapping[str, str]) -> int:
        return sum(_hash(data) in damaged for wanted in self.versions.values() for data in wanted.values())

    def _read_all(self, damaged: Mapping[str, str]) -> int:
        """Read every component of every version; how many are known to be damaged, and say so."""
        touched = 0
        for (name, number), wanted in self.versions.items():
            version = self.registry.dataset(name).version(f"v{number}")
            assert [c.name for c in version.components] == sorted(wanted)
            for component, data in wanted.items():
                if _hash(data) in damaged:
                    touched += 1
                    with pytest.raises(CorruptionError):
                        _read(version, component)
                else:
                    with version.open(component) as stream:
                        assert stream.read() == data
        return touched


def _thousand(store: Store, catalog: str, operations: int, seed: int) -> None:
    faulty = FaultyStore(store, dict.fromkeys(FAULTS, 0.1), seed)
    with Registry.open(catalog=catalog, store=faulty, actor="alice") as registry:
        world = World(registry, faulty, seed)
        for _ in range(operations):
            world.step()
        touched = world.check()
        print(
            f"{operations} operations: {dict(world.done)}, errors {dict(world.errors)}, faults {dict(faulty.happened)}"
        )
        print(f"{len(world.versions)} versions are left; {touched} components rest on bytes that the store changed")
        assert set(faulty.happened) == set(FAULTS)
        assert operations < 1_000 or min(faulty.happened.values()) > 0


def test_operations_on_a_store_that_fails_lose_nothing(sqlite_url: str, tmp_path: Path) -> None:
    _thousand(FolderStore(tmp_path / "store"), sqlite_url, 250, seed=1)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_operations_lose_nothing_whatever_the_faults(sqlite_url: str, tmp_path: Path, seed: int) -> None:
    _thousand(FolderStore(tmp_path / "store"), sqlite_url, 1_000, seed)


@pytest.mark.parametrize("operations", [60, pytest.param(1_000, marks=pytest.mark.long)])
def test_operations_on_an_object_store_that_fails_lose_nothing(sqlite_url: str, s3_url: str, operations: int) -> None:
    _thousand(ObjectStore(s3_url), sqlite_url, operations, seed=2)


# --- what the user sees of each kind -------------------------------------------------------------------------------


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyStore:
    return FaultyStore(FolderStore(tmp_path / "store"), {})


@pytest.fixture
def registry(sqlite_url: str, faulty: FaultyStore) -> Iterator[Registry]:
    with Registry.open(catalog=sqlite_url, store=faulty, actor="alice") as opened:
        yield opened


LOUD = {
    "unavailable": (RetryLater, r"503 Slow Down\. Nothing was committed; try again"),
    "timeout before": (RetryLater, r"timed out\. Nothing was committed; try again"),
    "timeout after": (RetryLater, r"timed out\. Nothing was committed; try again"),
    "full": (StorageError, r"No space left on device\. Nothing was committed; free space"),
}


@pytest.mark.parametrize("kind", LOUD)
def test_a_commit_that_the_store_refuses_says_so_and_works_later(
    registry: Registry, faulty: FaultyStore, kind: str
) -> None:
    dataset = registry.create_dataset("d")
    dataset.commit({"before": b"1"})
    error, message = LOUD[kind]
    faulty.rates = {kind: 1.0}
    with pytest.raises(error, match=message):
        dataset.commit(CONTENT)
    faulty.rates = {}
    assert [v.number for v in dataset.tree()] == [1]
    made = dataset.commit(CONTENT)
    assert (made.number, _read(made, "small"), _read(made, "large")) == (2, SMALL, LARGE)
    _clean_up(registry)
    assert registry.verify(deep=True, older_than=NOW).findings == ()
    assert {found.key for found in faulty.list()} == {file.object_key for file in registry.files()}


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_store_that_keeps_less_than_it_was_given_is_found_out_before_the_commit(
    registry: Registry, faulty: FaultyStore, content: bytes
) -> None:
    dataset = registry.create_dataset("d")
    faulty.rates = {"short write": 1.0}
    with pytest.raises(StorageError, match=r"stored .* of .*try again"):
        dataset.commit({"data": content})
    faulty.rates = {}
    assert _read(dataset.commit({"data": content}), "data") == content
    _clean_up(registry)
    assert registry.verify(deep=True, older_than=NOW).findings == ()


@pytest.mark.parametrize("kind", ["flipped write", "short write"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_bytes_that_the_store_changed_are_found_by_a_verification_and_healed_by_a_commit(
    registry: Registry, faulty: FaultyStore, kind: str, content: bytes
) -> None:
    dataset = registry.create_dataset("d")
    dataset.commit({"good": b"good"})
    faulty.rates = {kind: 1.0}
    try:
        version = dataset.commit({"data": content})
    except StorageError:
        assert kind == "short write"
        return
    faulty.rates = {}
    with pytest.raises(CorruptionError, match=r"SHA-256|dataset-registry verify"):
        _read(version, "data")
    (finding,) = registry.verify(deep=True, repair=True, older_than=NOW).findings
    assert (finding.kind, finding.file.content_hash) == ("content" if "flipped" in kind else "size", _hash(content))
    with pytest.raises(CorruptionError, match="quarantine"):
        _read(version, "data")
    dataset.commit({"again": content})
    assert _read(version, "data") == content
    _clean_up(registry)
    assert registry.verify(deep=True, older_than=NOW).findings == ()


READS: dict[str, Callable[[Version, Path], object]] = {
    "paths": lambda version, folder: _read(version, "large"),
    "open": lambda version, folder: _stream(version, "large"),
    "checkout": lambda version, folder: version.checkout(folder / "out")[0].read_bytes(),
    "to_arrow": lambda version, folder: version.to_arrow("table"),
}


def _forget_copies(registry: Registry) -> None:
    registry.access.copies.close()
    rmtree(registry.access.store.scratch / "cache", ignore_errors=True)


def _stream(version: Version, component: str) -> bytes:
    with version.open(component) as stream:
        return stream.read()


@pytest.mark.parametrize("way", READS)
@pytest.mark.parametrize("kind", ["unavailable", "timeout before"])
def test_a_read_that_the_store_does_not_answer_says_to_try_again(
    registry: Registry, faulty: FaultyStore, kind: str, way: str, tmp_path: Path
) -> None:
    version = registry.create_dataset("d").commit({"large": LARGE, "table": pa.table({"a": [1, 2]})})
    expected = READS[way](version, tmp_path / "1")
    _forget_copies(registry)
    faulty.rates = {kind: 1.0}
    with pytest.raises(RetryLater, match="try again"):
        READS[way](version, tmp_path / "2")
    faulty.rates = {}
    assert READS[way](version, tmp_path / "2") == expected


@pytest.mark.parametrize("way", ["paths", "to_arrow", "open", "checkout"])
@pytest.mark.parametrize("kind", ["short read", "flipped read"])
def test_a_read_never_gives_other_bytes_than_were_committed(
    registry: Registry, faulty: FaultyStore, kind: str, way: str, tmp_path: Path
) -> None:
    version = registry.create_dataset("d").commit({"large": LARGE, "table": pa.table({"a": [1, 2]})})
    expected = READS[way](version, tmp_path / "1")
    _forget_copies(registry)
    faulty.rates = {kind: 1.0}
    with pytest.raises(CorruptionError):
        READS[way](version, tmp_path / "2")
    faulty.rates = {}
    assert READS[way](version, tmp_path / "2") == expected


@pytest.mark.parametrize("kind", ["unavailable", "timeout before", "timeout after", "no delete"])
def test_a_collection_that_the_store_refuses_is_finished_by_the_next_one(
    registry: Registry, faulty: FaultyStore, kind: str
) -> None:
    registry.create_dataset("kept").commit({"data": b"kept"})
    registry.create_dataset("d").commit(CONTENT)
    registry.dataset("d").delete()
    faulty.rates = {kind: 1.0}
    with pytest.raises(FAULTS[kind] or AssertionError):
        registry.collect(older_than=NOW)
    faulty.rates = {}
    (left,) = registry.verify(older_than=NOW).findings
    assert (left.kind, left.is_leftover) == ("trash", True)
    assert registry.collect(older_than=NOW).objects == 2
    assert registry.verify(deep=True, older_than=NOW).findings == ()
    assert [found.size for found in faulty.list()] == [4]


@pytest.mark.parametrize("kind", ["unavailable", "timeout before"])
def test_a_verification_whose_store_does_not_answer_says_so_and_quarantines_nothing(
    registry: Registry, faulty: FaultyStore, kind: str
) -> None:
    version = registry.create_dataset("d").commit(CONTENT)
    faulty.rates = {kind: 1.0}
    with pytest.raises(RetryLater):
        registry.verify(deep=True, repair=True, older_than=NOW)
    faulty.rates = {}
    assert _read(version, "large") == LARGE


def test_a_verification_looks_again_before_it_quarantines_a_file(
    registry: Registry, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.create_dataset("d").commit(CONTENT)
    opened, reads = faulty.open, count()

    def once(key: str) -> BinaryIO:
        faulty.rates = {"flipped read": 1.0} if next(reads) == 0 else {}
        return opened(key)

    monkeypatch.setattr(faulty, "open", once)
    assert registry.verify(deep=True, repair=True, older_than=NOW).findings == ()
    assert _read(version, "small") == SMALL


# --- faults between here and the server ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 9))])
@pytest.mark.parametrize("size", [1_000, 20_000_000], ids=["small", "in parts"])
def test_what_happens_on_the_way_to_the_object_store_is_tried_again(
    sqlite_url: str, s3_url: str, tmp_path: Path, size: int, seed: int
) -> None:
    """503, connections that break in the middle of a body either way, and answers that take their time."""
    data = Random(size).randbytes(size)
    with proxy(s3_url, tmp_path, seed) as (url, faults), Registry.open(catalog=sqlite_url, store=url) as registry:
        dataset = registry.create_dataset("d")
        version = dataset.commit({"data": data, **{f"c{i}": b"%d" % i for i in range(8)}})
        with version.open("data") as stream:
            assert stream.read() == data
        assert _read(version, "data") == data
        assert [path.read_bytes() for i in range(8) for path in version.paths(f"c{i}")] == [b"%d" % i for i in range(8)]
        dataset.delete()
        assert registry.collect(older_than=NOW).objects == 9
        print(f"{size} bytes: {dict(faults)}")
        assert sum(faults.values()) - faults["passed"] > 3


@pytest.mark.parametrize("seed", [1])
def test_a_connection_that_breaks_while_objects_are_deleted_is_tried_again(
    sqlite_url: str, s3_url: str, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset_registry.content.pack.MANY", 1 << 30)  # an object each
    with (
        proxy(s3_url, tmp_path, seed, cut_posts=True) as (url, _),
        Registry.open(catalog=sqlite_url, store=url) as registry,
    ):
        registry.create_dataset("d").commit({f"c{i}": b"%d" % i for i in range(20)})
        registry.dataset("d").delete()
        assert registry.collect(older_than=NOW).objects == 20


# --- no faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "promise",
    [
        contract.test_an_absent_key_says_that_the_object_is_missing,
        contract.test_an_object_moves_between_keys_of_like_stores_without_passing_through,
        contract.test_deleting_can_be_repeated,
        contract.test_stored_files_cannot_be_written_to,
        contract.test_many_threads_put_at_once_and_nothing_is_lost,
    ],
)
def test_without_faults_the_wrapper_is_a_store(faulty: FaultyStore, promise: Callable[[Store], None]) -> None:
    promise(faulty)


def test_without_faults_what_was_put_is_there_whole(faulty: FaultyStore) -> None:
    contract.test_what_was_put_is_there_whole_in_every_way_to_read_it(faulty, b"content")
