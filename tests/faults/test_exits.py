"""Exit at every step: whatever an operation was doing when its process ended, the next one opens, reads and repeats."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import text

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, holds, migrate
from dataset_registry.errors import NotFound
from dataset_registry.model.retention import Policy, Rule
from dataset_registry.store import new_key
from tests.faults.exits import Place, contents, create_database, dies_at, in_child
from tests.migrations import support

NOW = timedelta(0)


def _bytes(seed: int, size: int) -> bytes:
    return Random(seed).randbytes(size)


def _table(seed: int, rows: int) -> pa.Table:
    return pa.table({"id": range(rows), "value": [i * seed for i in range(rows)]})


def _sql(registry: Registry, statement: str, **values: object) -> None:
    registry.access.catalog.write(lambda tx: tx.execute(text(statement), values))


# --- what is there before ------------------------------------------------------------------------------------------


def _fill(place: Place) -> None:
    """Two datasets that share content: a branch, a tag, a version that nothing references, tables in several parts."""
    place.begin()
    with place.open() as registry:
        a, b = registry.create_dataset("raw/a"), registry.create_dataset("raw/b")
        a.commit({"small": b"1", "large": _bytes(1, 70_000), "table": _table(1, 500)}, message="first")
        a.commit({"small": b"2"})
        a.create_tag("t")
        a.create_branch("dev", "v1")
        a.commit({"large": _bytes(2, 70_000), "table": _table(2, 300)}, branch="dev")
        a.delete_branch("dev")
        a.commit({"small": b"4"})
        b.commit({"shared": _bytes(1, 70_000), "own": b"b1"})
        b.commit({"own": b"b2", "table": _table(3, 250)})
        b.commit({"own": b"b3", "table": _table(1, 500)})


def _fill_and_drop(place: Place) -> None:
    """Unreferenced files, in the catalog and outside of it."""
    _fill(place)
    with place.open() as registry:
        registry.dataset("raw/a").delete_version("v3")
        registry.dataset("raw/b").delete()
        _litter(registry, unknown=0)


def _litter(registry: Registry, unknown: int) -> None:
    """What writers that died leave behind: a hold with its bytes and one without, trash, objects that nothing knows."""
    store, catalog = registry.access.store, registry.access.catalog
    hashes = [f"{n:064x}" for n in range(3 + unknown)]
    keys = [new_key(content_hash) for content_hash in hashes]
    for key in (keys[0], *keys[2:]):
        store.put(key, b"left")
    catalog.write(lambda tx: holds.hold(tx, {hashes[0]: keys[0], hashes[1]: keys[1]}))
    catalog.write(lambda tx: holds.discard(tx, [keys[2]]))
    _let_holds_expire(registry)


def _fill_and_litter(place: Place) -> None:
    place.begin()
    with place.open() as registry:  # one object among this many is no reason to be suspicious
        registry.create_dataset("many").commit({f"c{i}": b"content %d" % i for i in range(60)})
        _litter(registry, unknown=1)
        page = "INSERT INTO {} (id, digest, entry_count, last_name, last_index) VALUES (4711, :digest, 0, 'x', 0)"
        for table in ("manifest_pages", "manifest_index_pages"):
            _sql(registry, page.format(table), digest="d" * 64)
        _sql(registry, "UPDATE datasets SET last_version_number = 0")


def _fill_and_strew(place: Place) -> None:
    _fill(place)
    with place.open() as registry:
        _litter(registry, unknown=4)


def _fill_and_forget(place: Place) -> None:
    """A catalog that is older than its store: content that only the store has."""
    _fill(place)
    with place.open() as registry:
        for seed in (7, 8):
            data = _bytes(seed, 2_000)
            registry.access.store.put(new_key(_hash(data)), data)


def _hash(data: bytes) -> str:
    return sha256(data).hexdigest()


def _keyed(**cells: int) -> pa.Table:
    values = {int(name[1:]): value for name, value in cells.items()}
    return pa.table({"id": range(300), "value": [values.get(i, i) for i in range(300)], "other": range(300)})


def _fill_and_fork(place: Place) -> None:
    """A branch over two datasets: in one it is merged with what main has changed, in the other it moves forward."""
    place.begin()
    with place.open() as registry:
        for name in ("raw/merged", "raw/forward"):
            registry.create_dataset(name).commit({"data": _keyed()}, key="id")
            registry.dataset(name).create_branch("pr")
            registry.dataset(name).commit({"data": _keyed(r5=50)}, branch="pr")
        registry.dataset("raw/merged").commit({"data": _keyed(r7=70)})


DAMAGED = {"wrong": b"will be wrong", "missing": b"will be missing", "back": b"went and came back"}


def _fill_and_damage(place: Place) -> None:
    """A file with other bytes than it should have, one that is missing, and one in quarantine whose bytes are back."""
    _fill(place)
    with place.open() as registry:
        for name, data in DAMAGED.items():
            registry.create_dataset(name).commit({"data": data})
        path = registry.dataset("wrong").version().paths()[0]
        path.chmod(0o644)
        path.write_bytes(DAMAGED["wrong"][::-1])
        path.chmod(0o444)
        registry.dataset("missing").version().paths()[0].unlink()
        _sql(registry, "UPDATE files SET damage = 'gone' WHERE content_hash = :hash", hash=_hash(DAMAGED["back"]))


def _fill_baseline(place: Place) -> None:
    """A catalog from before this package: no revision, bytes inline and under paths."""
    place.folder.mkdir(exist_ok=True)
    catalog = Catalog(place.catalog)
    support.create_baseline(catalog)
    # The legacy files are beside the registry, and the copies of the catalog name the same ones.
    support.fill_baseline(catalog, place.folder.with_name("legacy files"), datasets=2)
    catalog.close()


def _fill_before_last(place: Place) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATASET_REGISTRY_INLINE_BYTES", "0")  # which it knows nothing of
        _fill(place)
    catalog = Catalog(place.catalog)
    migrate.downgrade(catalog, support.REVISIONS[-2])
    catalog.close()


def _fill_legacy(place: Place) -> None:
    _fill_baseline(place)
    _upgrade(place)


# --- what is done --------------------------------------------------------------------------------------------------


def _write(registry: Registry) -> None:
    change = {"small": b"5", "large": _bytes(5, 70_000), "table": _table(5, 500), "known": _bytes(2, 70_000)}
    registry.dataset("raw/a").commit(change, message="written")


def _create(place: Place) -> None:
    with place.open() as registry, registry.draft("first") as draft:
        draft.add("data", b"1")


def _upgrade(place: Place) -> None:
    catalog = Catalog(place.catalog)
    migrate.upgrade(catalog)
    catalog.close()


def _commit_again(registry: Registry) -> None:
    """What heals: the same content once more."""
    for name, data in DAMAGED.items():
        registry.dataset("raw/a").commit({name: data})


def _adopt(registry: Registry) -> None:
    assert not registry.adopt().failed


@dataclass(frozen=True)
class Operation:
    """An operation and the registry it is tried on: `run` on an open registry, or `make` where none can be opened yet."""

    prepare: Callable[[Place], object]
    run: Callable[[Registry], object] = lambda registry: None
    make: Callable[[Place], object] | None = None
    repair: Callable[[Registry], object] = lambda registry: None
    """Makes a registry whole that the operation alone does not."""
    done: tuple[type[Exception], ...] = ()
    """What the operation says when it is repeated after it was done."""
    is_whole: bool = False
    """Whether it changes all of its datasets, or none."""

    def __call__(self, place: Place) -> None:
        if self.make is not None:
            self.make(place)
        else:
            with place.open() as registry:
                self.run(registry)


OPERATIONS = {
    "create": Operation(lambda place: None, make=_create),
    "write": Operation(_fill, _write),
    "upsert": Operation(_fill_and_fork, lambda r: r.dataset("raw/forward").upsert(_keyed(r9=90).slice(9, 1))),
    "publish": Operation(_fill_and_fork, lambda r: r.publish("pr"), is_whole=True),
    "delete a version": Operation(_fill, lambda r: r.dataset("raw/a").delete_version("v3"), done=(NotFound,)),
    "delete a dataset": Operation(_fill, lambda r: r.dataset("raw/b").delete(), done=(NotFound,)),
    "expire": Operation(_fill, lambda r: r.expire(Policy((Rule(last=1),)))),
    "collect": Operation(_fill_and_drop, lambda r: r.collect(older_than=NOW)),
    "sweep": Operation(_fill_and_strew, lambda r: r.sweep(older_than=NOW, max_share=1)),
    "verify with litter": Operation(_fill_and_litter, lambda r: r.verify(deep=True, repair=True, older_than=NOW)),
    "verify with unknown content": Operation(_fill_and_forget, lambda r: r.verify(repair=True, older_than=NOW)),
    "verify with damage": Operation(
        _fill_and_damage, lambda r: r.verify(deep=True, repair=True, older_than=NOW), repair=_commit_again
    ),
    "migrate the baseline": Operation(_fill_baseline, make=_upgrade),
    "migrate from the last but one": Operation(_fill_before_last, make=_upgrade),
    "adopt": Operation(_fill_legacy, _adopt),
}
ON_POSTGRESQL = ("write", "publish", "delete a version", "delete a dataset", "collect", "migrate the baseline")


# --- what must be true after a death -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """An operation on a registry to copy, with what a user sees of it before the operation, after it, and at the end."""

    name: str
    operation: Operation
    place: Place
    before: dict[str, Any]
    after: dict[str, Any]
    final: dict[str, Any]
    effects: int


def _prepare(name: str, place: Place) -> Prepared:
    operation = OPERATIONS[name]
    _rehearse(operation, place)
    in_child(lambda: operation.prepare(place))
    before: dict[str, Any] | None = None
    if operation.make is None:
        with place.copy() as copy:
            before = in_child(lambda: _seen(copy))
    with place.copy() as copy:
        _, effects = dies_at(None, lambda: operation(copy), copy.folder)
        after, final = in_child(lambda: _seen_and_finished(operation, copy))
    if before is None:  # who opens it first makes it, or migrates it
        before = {} if name == "create" else after
    return Prepared(name, operation, place, before, after, final, effects)


def _rehearse(operation: Operation, place: Place) -> None:
    """Do it once in this process, elsewhere: what that imports and compiles, all the children need not."""
    with place.copy() as copy:
        operation.prepare(copy)
        operation(copy)
        _seen_and_finished(operation, copy)


def _seen(place: Place) -> dict[str, Any]:
    with place.open() as registry:
        return contents(registry)


def _seen_and_finished(operation: Operation, place: Place) -> tuple[dict[str, Any], dict[str, Any]]:
    with place.open() as registry:
        return contents(registry), _finish(operation, place, registry)


def _finish(operation: Operation, place: Place, registry: Registry) -> dict[str, Any]:
    """Mend and clean up; what a user sees then. Nothing may be left of what died, in the catalog or in the store."""
    operation.repair(registry)
    _let_holds_expire(registry)
    registry.collect(older_than=NOW)
    registry.sweep(older_than=NOW, max_share=1)
    store, catalog = registry.access.store, registry.access.catalog
    store.tidy(0)
    found = registry.verify(deep=True, older_than=NOW)
    assert not found.findings, found.findings
    with catalog.read() as tx:
        keys = {row[0] for row in tx.execute(text("SELECT object_key FROM files WHERE object_key IS NOT NULL"))}
        left = [
            tx.execute(text(f"SELECT count(*) FROM {table}")).scalar()
            for table in ("uploads", "trash WHERE keep_until IS NULL")
        ]
    assert left == [0, 0]
    assert {stored.key for stored in store.list()} == keys
    objects = [path for path in (place.folder / "objects").rglob("*") if path.is_file()]
    assert {path.name for path in objects} == keys
    assert all(path.stat().st_mode & 0o222 == 0 for path in objects)
    assert list((place.folder / "spool").rglob("*")) == []
    return contents(registry)


def _let_holds_expire(registry: Registry) -> None:
    _sql(registry, "UPDATE uploads SET expires_at = '2020-01-01 00:00:00'")


def _recovers(prepared: Prepared, place: Place) -> None:
    """What the next process finds, without anybody's help."""
    operation = prepared.operation
    if place.server is not None and operation.make is not None:  # opening does not migrate a PostgreSQL catalog
        operation.make(place)
    with place.open() as registry:
        now = contents(registry)
        assert not operation.is_whole or now in (prepared.before, prepared.after), "all of its datasets, or none"
        for dataset in {*prepared.before, *prepared.after, *now}:
            allowed = (prepared.before.get(dataset), prepared.after.get(dataset))
            assert now.get(dataset) in allowed, f"{dataset}: {now.get(dataset)} is neither of {allowed}"
        if operation.make is None:
            try:
                operation.run(registry)
            except operation.done:
                assert now == prepared.after, "what says that it is done is done"
    if operation.make is not None:
        operation.make(place)
    with place.open() as registry:
        assert contents(registry) == prepared.after
        assert _finish(operation, place, registry) == prepared.final


def _try(prepared: Prepared, every: int, first: int = 1) -> int:
    """Die at every n-th effect until the operation comes to its end; how many times that was."""
    point, tried = first, 0
    while True:
        with prepared.place.copy() as place:
            effect, _ = dies_at(point, lambda: prepared.operation(place), place.folder)
            try:
                in_child(lambda: _recovers(prepared, place))
            except AssertionError as error:
                raise AssertionError(f"{prepared.name}, died at {point}, before {effect}: {error}") from error
        if effect is None:
            break
        point, tried = point + every, tried + 1
    on = "PostgreSQL" if prepared.place.server else "SQLite"
    print(f"{prepared.name} on {on}: died at {tried} of {prepared.effects} effects, every {every}")
    return tried


_NAMES = list(OPERATIONS)
SAMPLE = 3
"""Steps of each operation that the short run tries."""


def _sample(prepared: Prepared) -> None:
    every = max(1, prepared.effects // SAMPLE)
    assert _try(prepared, every, first=Random(prepared.name).randint(1, every)) >= min(SAMPLE, prepared.effects) - 1


@pytest.mark.parametrize("name", _NAMES)
def test_an_operation_that_dies_at_a_step_leaves_nothing_that_needs_help(
    name: str, tmp_path: Path, sqlite_template: Path
) -> None:
    _sample(_prepare(name, Place(tmp_path / "registry", template=sqlite_template)))


@pytest.mark.parametrize("name", ON_POSTGRESQL)
def test_an_operation_on_postgresql_that_dies_at_a_step_leaves_nothing_that_needs_help(
    name: str, on_server: Place
) -> None:
    _sample(_prepare(name, on_server))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", _NAMES)
def test_an_operation_that_dies_at_any_step_leaves_nothing_that_needs_help(
    name: str, tmp_path: Path, sqlite_template: Path
) -> None:
    prepared = _prepare(name, Place(tmp_path / "registry", template=sqlite_template))
    assert _try(prepared, every=1) >= prepared.effects - 5  # threads that delete do not always take the same steps


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ON_POSTGRESQL)
def test_an_operation_on_postgresql_that_dies_at_any_step_leaves_nothing_that_needs_help(
    name: str, on_server: Place
) -> None:
    prepared = _prepare(name, on_server)
    every = 4 if prepared.effects > 200 else 1  # a database for each step: several hundred would take minutes
    assert _try(prepared, every) >= prepared.effects // every - 5


_numbers = count(1)


@pytest.fixture
def on_server(request: pytest.FixtureRequest, postgresql_url: str, tmp_path: Path) -> Place:
    """A place with a PostgreSQL database: empty for what begins below the newest revision."""
    server = postgresql_url.replace("postgresql://", "postgresql+psycopg://")
    empty = OPERATIONS[request.node.callspec.params["name"]].prepare is _fill_baseline
    name = f"exits_{next(_numbers)}"
    return Place(tmp_path / "registry", create_database(server, name, "template0" if empty else "template_registry"))
