"""Expiry, collection, sweep, verification, adoption."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest

from dataset_registry import Policy, Registry, Rule
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.errors import (
    CorruptionError,
    InputError,
    NotAdopted,
    NotFound,
    SweepRefused,
)
from dataset_registry.store import new_key
from tests.conftest import _database
from tests.contracts.scenarios import (
    WAYS,
    Way,
    error_of,
    numbers,
    reached,
    read,
    s3_store,
    sha256,
)
from tests.migrations import support
from tests.migrations.conftest import Legacy
from tests.operations.support import age

NOW = timedelta(0)
LAST = Policy((Rule(last=1),))


def test_an_expiry_does_what_its_plan_says_and_keeps_what_is_needed(alone: Way) -> None:
    dataset = alone.registry.create_dataset("raw/flights")
    for number in range(6):
        dataset.commit({"data": b"%d" % number})
    dataset.create_tag("kept", "v1")
    dataset.version("v2").note_read("run-1")
    plan = alone.registry.expire(LAST, dry_run=True, live_runs=["run-1"])
    assert plan.versions == 3
    (found,) = plan.datasets
    assert [version.number for version in found.expiring] == [3, 4, 5]
    assert set(found.kept) == {1, 2, 6}
    assert [version.parents for version in found.expiring] == [(2,), (3,), (4,)]
    assert numbers(dataset.tree()) == [6, 5, 4, 3, 2, 1]
    assert plan.summary()[0][:3] == ("raw/flights", 3, 3)
    dataset.create_branch("needed", "v4")
    done = alone.registry.apply(plan, live_runs=["run-1"])
    assert (done.versions, done.kept) == (2, 1)
    assert numbers(dataset.tree()) == [6, 4, 2, 1]
    assert alone.registry.expire(Policy((Rule(datasets="other/*", last=1),)), live_runs=()).versions == 0
    dataset.delete_branch("needed")
    assert alone.registry.expire(LAST, live_runs=()).versions == 1
    assert [v.number for v in dataset.tree()] == [6, 2, 1]


def test_what_running_pipelines_read_is_kept(alone: Way) -> None:
    dataset = alone.registry.create_dataset("raw/flights")
    for number in range(3):
        dataset.commit({"data": b"%d" % number})
    dataset.version("v1").note_read("a long run")
    version = dataset.version("v2")
    assert set(alone.registry.expire(LAST, dry_run=True).datasets[0].kept) == {1, 3}
    age(alone.owner, 48, "version_reads.read_at")
    assert set(alone.registry.expire(LAST, dry_run=True).datasets[0].kept) == {3}
    assert set(alone.registry.expire(LAST, dry_run=True, live_runs={"a long run"}).datasets[0].kept) == {1, 3}
    assert alone.registry.expire(LAST, live_runs=["a long run"]).versions == 1
    assert type(error_of(lambda: version.note_read("too late"))) is NotFound


def test_a_collection_does_what_its_plan_says_but_for_what_came_to_be_needed(alone: Way) -> None:
    dataset = alone.registry.create_dataset("raw/flights")
    dataset.commit({"a": b"first", "data": pa.table({"n": [1]})})
    dataset.delete()
    plan = alone.registry.collect(older_than=NOW, dry_run=True)
    assert (len(plan.files), plan.expired_holds, plan.trashed) == (3, 0, 0)
    assert sorted(file.form == "parts" for file in plan.files) == [False, False, True]
    assert plan.bytes > 5
    assert len(list(alone.registry.files())) == 3
    alone.registry.create_dataset("other").commit({"again": b"first"})
    done = alone.registry.apply(plan)
    assert (done.files, done.kept) == (2, 1)
    assert read(alone.registry.version("other")) == b"first"
    assert alone.registry.collect(older_than=NOW).files == 0


@pytest.mark.objects
def test_a_sweep_removes_objects_that_the_catalog_does_not_know(alone: Way) -> None:
    alone.registry.create_dataset("raw/flights").commit({"data": b"known"})
    unknown = new_key(sha256(b"unknown"))
    alone.objects().put(unknown, b"unknown")
    assert alone.registry.sweep(dry_run=True).objects == (), "it is younger than a day"
    error = error_of(lambda: alone.registry.sweep(older_than=NOW))
    assert (type(error), error.code) == (SweepRefused, "sweep_refused")
    plan = alone.registry.sweep(older_than=NOW, max_share=1, dry_run=True)
    assert ([o.key for o in plan.objects], plan.bytes, plan.listed, plan.suspicion) == ([unknown], 7, 2, None)
    done = alone.registry.apply(plan)
    assert (done.objects, done.bytes) == (1, 7)
    assert [o.key[:64] for o in alone.objects().list()] == [sha256(b"known")]


@pytest.mark.objects
def test_a_verification_finds_what_was_lost_and_heals_when_the_content_comes_again(alone: Way) -> None:
    dataset = alone.registry.create_dataset("raw/flights")
    version = dataset.commit({"good": b"good", "lost": b"lost"})
    sound = alone.registry.verify(deep=True)
    assert (sound.clean, sound.findings, sound.files, sound.bytes_read) == (True, (), 2, 8)
    assert alone.registry.verify(deep=(1, 7)).bytes_read <= 8
    alone.objects().delete(str(alone.owner.file(sha256(b"lost")).object_key))
    found = alone.registry.verify()
    assert [(f.kind, f.repaired) for f in found.findings] == [("missing", False)]
    assert found.damage == found.findings
    assert "raw/flights@v1" in found.findings[0].what
    alone.registry.verify(repair=True)
    error = error_of(lambda: read(version, "lost"))
    assert (type(error), error.code) == (CorruptionError, "corruption")
    dataset.commit({"lost": b"lost"}, message="Heals")
    assert read(version, "lost") == b"lost"
    assert alone.registry.verify(deep=True).damage == ()


@pytest.fixture(scope="module")
def legacy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Legacy]:
    """The baseline of a few datasets, migrated and not adopted, on a kind of database: made once, and copied."""
    made: dict[str, Legacy] = {}
    folder = tmp_path_factory.mktemp("legacy")

    def copied(kind: str) -> Legacy:
        if kind not in made:
            postgresql = _database(request, _fresh(), "template1") if kind != "sqlite" else ""
            catalog = Catalog(postgresql or f"sqlite:///{folder / 'legacy.sqlite'}")
            support.create_baseline(catalog)
            baseline = support.fill_baseline(catalog, folder / kind, datasets=4)
            migrate.upgrade(catalog)
            catalog.close()
            made[kind] = Legacy(kind, catalog.url.render_as_string(hide_password=False), baseline)
        found = made[kind]
        if kind != "sqlite":
            template = found.url.rpartition("/")[2]
            return replace(found, url=_database(request, _fresh(), template))
        target = tmp_path_factory.mktemp("copied") / "legacy.sqlite"
        shutil.copy(found.url.removeprefix("sqlite:///"), target)
        return replace(found, url=f"sqlite:///{target}")

    return copied


def _fresh() -> str:
    return f"contract_{uuid4().hex}"


@pytest.mark.parametrize("kind", WAYS)
def test_a_legacy_catalog_is_read_adopted_and_then_written(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, legacy: Callable[[str], Legacy]
) -> None:
    on_servers = "postgresql" in kind
    found = legacy("postgresql" if on_servers else "sqlite")
    store = s3_store(request.getfixturevalue("s3_server"), tmp_path) if on_servers else str(tmp_path / "store")
    with reached(kind, found.url, store) as way:
        _adopt(way.registry, found.baseline, tmp_path)


def _adopt(registry: Registry, baseline: support.Baseline, folder: Path) -> None:
    assert len(registry.datasets(prefix="raw/set_")) == 4
    for name, number, file in baseline.every_version():
        version = registry.dataset(name).version(f"v{number}")
        assert (version.digest, read(version)) == (None, file.data)
        (path,) = version.checkout(folder / f"before {name}@{number}")
        assert path.read_bytes() == file.data
    dataset = registry.dataset("raw/set_00")
    assert type(error_of(lambda: dataset.commit({"data": b"new"}))) is NotAdopted
    plan = registry.adopt(dry_run=True)
    assert plan.inline + plan.paths == len(baseline.files)
    assert plan.unreadable == {}
    done = registry.adopt()
    assert (done.failed, done.versions) == ({}, len([*baseline.every_version()]))
    assert done.files == len(baseline.files)
    for name, number, file in baseline.every_version():
        version = registry.dataset(name).version(f"v{number}")
        assert len(str(version.digest)) == 64
        assert (read(version), version.components[0].format) == (file.data, file.format)
    head = dataset.version()
    made = dataset.commit({"more": pa.table({"n": [1]})})
    assert (made.parents, [c.name for c in made.components]) == ((head.number,), ["data", "more"])
    assert registry.verify(deep=True).clean


@pytest.mark.parametrize("kind", ["embedded", "rest"])
def test_the_bytes_of_a_legacy_version_are_no_local_file_before_adoption(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, legacy: Callable[[str], Legacy]
) -> None:
    with reached(kind, legacy("sqlite").url, str(tmp_path / "store")) as way:
        version = way.registry.version("raw/set_00@v1")
        for call in (version.paths, version.uris):
            error = error_of(call)
            assert type(error) is InputError
            assert "adopt" in str(error)
