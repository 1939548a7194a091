"""Backup, more commits, restore of the older database over the newer store: nothing of the content is lost."""

import shutil
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import inspect

from dataset_registry import Registry
from dataset_registry.errors import SweepRefused
from dataset_registry.operations.lost_found import LOST_AND_FOUND
from tests import servers
from tests.chunking import every
from tests.operations.support import (
    LAST,
    NOW,
    age,
    age_objects,
    assert_exact,
    content,
    object_of,
    objects,
    sweep_surplus,
)

pytestmark = pytest.mark.objects

_numbers = count(1)
CSV = b"a,b\n" + b"1,the same again and again\n" * 200

Restore = Callable[[], Registry]


@pytest.fixture
def backed_up(catalog_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Registry], Restore]:
    """Back a registry's catalog up; what it gives restores that over the same store."""

    def back_up(registry: Registry) -> Restore:
        registry.close()
        url = _copy_of(catalog_url, tmp_path)

        def restore() -> Registry:
            registry.close()
            restored = url
            if url.startswith("sqlite"):  # the file goes back to where it was, without the log of what came after it
                path = registry.access.catalog.path
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                shutil.copy(url.removeprefix("sqlite:///"), path)
                restored = catalog_url
            access = registry.access
            opened = Registry.open(catalog=restored, store=access.store, actor="bob", compression=access.compression)
            request.addfinalizer(opened.close)
            return opened

        return restore

    return back_up


def _copy_of(url: str, tmp_path: Path) -> str:
    if url.startswith("sqlite"):
        target = tmp_path / "backup.sqlite"
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        connection.execute("VACUUM INTO ?", (str(target),))
        connection.close()
        return f"sqlite:///{target}"
    server, _, name = url.replace("+psycopg", "").rpartition("/")
    backup = f"backup_{next(_numbers)}_{name}"
    servers.create_database(f"{server}/postgres", backup, name)
    return f"{url.rpartition('/')[0]}/{backup}"


def test_the_way_out_of_an_older_catalog_loses_nothing(
    catalog_url: str, tmp_path: Path, backed_up: Callable[[Registry], Restore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset_registry.tabular.chunking.split", every(100))
    registry = Registry.open(catalog=catalog_url, store=str(tmp_path / "store"), actor="alice", compression="zstd")
    table = pa.table({"x": range(250)})
    flights = registry.create_dataset("raw/flights")
    flights.commit({"old": b"old", "t": pa.table({"x": range(100)})})
    restore = backed_up(registry)
    with flights.draft() as draft:
        draft.add("new", b"newer than the backup")
        draft.add("csv", CSV, format="csv")
        draft.add("t", table)
        draft.add("empty", b"")
    late = registry.create_dataset("late")
    late.commit({"a": b"in a dataset that the backup does not have", "b": b"old"})
    assert registry.verify(deep=True, older_than=NOW).clean
    before = objects(registry)
    wanted = {**content(flights), **content(late)}
    assert len(before) == 2 + 3 + 2 + 1

    restored = restore()
    old = restored.dataset("raw/flights")
    assert [v.number for v in old.tree()] == [1]
    with pytest.raises(SweepRefused, match="older backup"):
        restored.sweep(older_than=NOW)
    assert restored.collect(older_than=NOW).objects == 0
    (finding,) = restored.verify(older_than=NOW, deep=True).findings
    assert (finding.kind, len(finding.objects)) == ("unknown-objects", 6)
    assert "lost+found" in finding.repair
    assert objects(restored) == before

    repaired = restored.verify(repair=True, older_than=NOW)
    assert [(f.kind, f.repaired) for f in repaired.findings] == [("unknown-objects", True)]
    assert objects(restored).keys() > before.keys()  # another registry may have them, too
    sweep_surplus(restored)
    before = objects(restored)
    assert restored.verify(deep=True, older_than=NOW).findings == ()
    found = restored.dataset(LOST_AND_FOUND)
    assert len(found.version().components) == 6
    assert CSV in content(found).values()
    assert {b"", b"newer than the backup"} <= set(content(found).values())
    assert {c.name: c.content_hash for c in found.version().components} == {
        c.name: c.name for c in found.version().components
    }
    assert restored.collect(older_than=NOW).objects == 0
    assert restored.sweep(older_than=NOW).objects == 0
    assert objects(restored) == before
    assert_exact(restored)

    with old.draft() as draft:
        draft.add("new", b"newer than the backup")
        draft.add("csv", CSV, format="csv")
        draft.add("t", table)
        draft.add("empty", b"")
    assert (draft.result.new_bytes, draft.result.version.number) == (0, 2)
    again = restored.draft("late")
    with again:
        again.add("a", b"in a dataset that the backup does not have")
        again.add("b", b"old")
    assert again.result.new_bytes == 0
    assert {**content(old), **content(restored.dataset("late"))} == wanted
    assert old.version().to_arrow("t") == table
    assert old.version().to_arrow("csv").num_rows == 200

    found.delete()  # what it held is named by where it belongs now
    restored.collect(older_than=NOW)
    assert objects(restored) == before
    assert_exact(restored)
    assert restored.verify(deep=True, older_than=NOW).findings == ()


def test_a_small_and_new_part_of_a_large_store_is_not_swept_either(
    catalog_url: str, tmp_path: Path, backed_up: Callable[[Registry], Restore]
) -> None:
    registry = Registry.open(catalog=catalog_url, store=str(tmp_path / "store"))
    flights = registry.create_dataset("raw/flights")
    flights.commit({f"c{i:03}": f"{i:05}".encode() for i in range(120)})
    rows = ("files.created_at", "dataset_versions.ingestion_timestamp", "dataset_pointers.updated_at")
    age(registry, 50, *rows, "productions.created_at")
    age_objects(registry, 50)
    restore = backed_up(registry)
    flights.commit({"c000": b"newer"})
    age_objects(registry, 30, [key for key in objects(registry) if object_of_is_new(registry, key)])
    restored = restore()
    with pytest.raises(SweepRefused, match="1 of 121 objects"):
        restored.sweep()
    (finding,) = restored.verify().findings
    assert (finding.kind, len(finding.objects)) == ("unknown-objects", 1)
    assert restored.verify(repair=True).clean
    assert content(restored.dataset(LOST_AND_FOUND)).popitem()[1] == b"newer"
    assert restored.sweep(older_than=NOW, max_share=1).objects == 1
    assert_exact(restored)


def object_of_is_new(registry: Registry, key: str) -> bool:
    from time import time

    path = registry.access.store.path(key)
    assert path is not None
    return time() - path.stat().st_mtime < 3600


def test_a_commit_after_the_restoration_does_not_give_the_lost_content_to_a_sweep(
    catalog_url: str, tmp_path: Path, backed_up: Callable[[Registry], Restore]
) -> None:
    """A pipeline goes on at once after a restoration; the sweep comes with its schedule, a day later."""
    registry = Registry.open(catalog=catalog_url, store=str(tmp_path / "store"))
    flights = registry.create_dataset("raw/flights")
    flights.commit({f"c{i:03}": f"{i:05}".encode() for i in range(120)})
    restore = backed_up(registry)
    flights.commit({"c000": b"newer"})
    age_objects(registry, 30)
    restored = restore()
    restored.dataset("raw/flights").commit({"c001": b"the pipeline goes on"})
    with pytest.raises(SweepRefused):
        restored.sweep(older_than=timedelta(days=1))


def test_what_a_collection_took_after_the_backup_is_missing_and_heals(
    catalog_url: str, tmp_path: Path, backed_up: Callable[[Registry], Restore]
) -> None:
    registry = Registry.open(catalog=catalog_url, store=str(tmp_path / "store"))
    flights = registry.create_dataset("raw/flights")
    flights.commit({"a": b"collected later", "b": b"kept"})
    restore = backed_up(registry)
    flights.commit({"a": b"newer"})
    registry.expire(LAST)
    assert registry.collect(older_than=NOW).files == 1
    restored = restore()
    kinds = sorted((f.kind, f.repaired) for f in restored.verify(older_than=NOW).findings)
    assert kinds == [("missing", False), ("unknown-objects", False)]
    kinds = sorted((f.kind, f.repaired) for f in restored.verify(older_than=NOW, repair=True).findings)
    assert kinds == [("missing", False), ("unknown-objects", True)]
    old = restored.dataset("raw/flights")
    assert old.version().paths("b")[0].read_bytes() == b"kept"
    restored.create_dataset("again").commit({"a": b"collected later"})
    restored.collect(older_than=NOW)
    sweep_surplus(restored)
    assert restored.verify(deep=True, older_than=NOW).findings == ()
    assert content(old) == {"a.0": b"collected later", "b.0": b"kept"}
    assert_exact(restored)


def test_a_damaged_object_among_the_unknown_ones_is_not_rescued_and_not_lost_sight_of(
    catalog_url: str, tmp_path: Path, backed_up: Callable[[Registry], Restore]
) -> None:
    registry = Registry.open(catalog=catalog_url, store=str(tmp_path / "store"))
    flights = registry.create_dataset("raw/flights")
    flights.commit({"a": b"old"})
    restore = backed_up(registry)
    flights.commit({"a": b"good", "b": b"damaged"})
    bad = flights.version().components[1].content_hash
    path = object_of(registry, str(bad))
    path.chmod(0o644)
    path.write_bytes(b"DAMAGED")
    restored = restore()
    restored.verify(repair=True, older_than=NOW)
    assert list(content(restored.dataset(LOST_AND_FOUND)).values()) == [b"good"]
    (finding,) = restored.verify(older_than=NOW).findings
    assert finding.kind == "unknown-objects"
    assert path.name in [found.key for found in finding.objects]
    assert path.exists()


def test_rescuing_twice_and_in_pieces_adds_to_lost_and_found(
    catalog_url: str, tmp_path: Path, backed_up: Callable[[Registry], Restore]
) -> None:
    registry = Registry.open(catalog=catalog_url, store=str(tmp_path / "store"))
    flights = registry.create_dataset("raw/flights")
    flights.commit({"a": b"old"})
    restore = backed_up(registry)
    flights.commit({"a": b"one"})
    (first,) = [key for key in objects(registry) if object_of(registry, key[:64]).read_bytes() == b"one"]
    flights.commit({"a": b"two"})
    age_objects(registry, 30, [first])
    restored = restore()
    restored.verify(repair=True)
    assert set(content(restored.dataset(LOST_AND_FOUND)).values()) == {b"one"}
    restored.verify(repair=True, older_than=NOW)
    assert set(content(restored.dataset(LOST_AND_FOUND)).values()) == {b"one", b"two"}
    sweep_surplus(restored)
    assert restored.verify(repair=True, older_than=NOW).findings == ()
    assert [v.number for v in restored.dataset(LOST_AND_FOUND).log()] == [2, 1]
    assert_exact(restored)


def test_a_dump_that_was_restored_without_its_constraints_is_found(registry: Registry) -> None:
    flights = registry.create_dataset("flights")
    flights.commit({"data": b"1"})
    flights.create_tag("first", "main")
    catalog = registry.access.catalog
    with catalog.queued(), catalog.writer.connect() as connection:
        if catalog.is_sqlite:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            connection.exec_driver_sql("PRAGMA legacy_alter_table=ON")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        views = inspect(connection).get_view_names()
        for view in views:
            connection.exec_driver_sql(f"DROP VIEW IF EXISTS {view} {'' if catalog.is_sqlite else 'CASCADE'}")
        for table in inspect(connection).get_table_names():
            connection.exec_driver_sql(f"CREATE TABLE restored_{table} AS SELECT * FROM {table}")
            connection.exec_driver_sql(f"DROP TABLE {table} {'' if catalog.is_sqlite else 'CASCADE'}")
            connection.exec_driver_sql(f"ALTER TABLE restored_{table} RENAME TO {table}")
        connection.commit()
    catalog.close()
    found = registry.verify().findings
    text = "\n".join(finding.what for finding in found if finding.kind == "structure")
    for words in (
        "dataset_versions has lost its primary key",
        "dataset_pointers has lost its reference",
        "the view dataset_version_files is missing",
    ):
        assert words in text
    assert len(text.splitlines()) > 50
