"""Each part of the write protocol taken out, in the one order of events that it is there for.

The real code comes through; the mutant is caught, and every test prints how. Foreign keys hide the holes that most mutants
make: they refuse, and the transaction runs again. So those are looked at twice, with the keys and without.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from dataset_registry import Dataset, Registry
from dataset_registry.catalog import engine, holds, manifests
from dataset_registry.catalog.tables import manifest_index_pages
from dataset_registry.errors import CorruptionError, RetryLater
from dataset_registry.operations import commit, commit_base
from dataset_registry.store import FolderStore
from tests.faults.crashing import wrong_bytes
from tests.faults.mutants import FOREIGN_KEYS, apply, drop_foreign_key
from tests.waiting import SAFETY, until

pytestmark = pytest.mark.objects

AT_ONCE = timedelta(0)
_contents = count(1)


@pytest.fixture
def concurrent(postgresql_catalog: str, tmp_path: Path) -> Iterator[Registry]:
    """A registry whose transactions really run at once: SQLite's writers queue."""
    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path / "store"), actor="alice") as opened:
        yield opened


def _forgotten(dataset: Dataset) -> bytes:
    """A content that is stored, and that are no longer referenced."""
    content = f"content {next(_contents)}".encode()
    if not dataset.tree():
        dataset.commit({"a": b"first"})
    dataset.create_branch("side")
    number = dataset.commit({"a": content}, branch="side").number
    dataset.delete_branch("side")
    dataset.delete_version(f"v{number}")
    return content


def _read(dataset: Dataset) -> bytes:
    with dataset.version().open("a") as stream:
        return stream.read()


def _connect(url: str) -> "psycopg.Connection[Any]":
    return psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True)


def _somebody_waits_for_a_lock(url: str) -> Callable[[], bool]:
    connection = _connect(url)

    def look() -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        row = connection.execute(query).fetchone()
        return bool(row and row[0])

    look.close = connection.close  # type: ignore[attr-defined]
    return look


# --- the key -------------------------------------------------------------------------------------------------------


def test_a_key_that_is_made_of_the_hash_alone_is_deleted_under_the_next_writer(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = registry.create_dataset("d")

    def a_collector_sleeps_while_content_comes_back() -> bool:
        content = _forgotten(dataset)
        asleep, awake = threading.Event(), threading.Event()
        real_delete = FolderStore.delete

        def delete(self: FolderStore, key: str) -> None:
            asleep.set()
            assert awake.wait(SAFETY)
            real_delete(self, key)

        with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
            patch.setattr(FolderStore, "delete", delete)
            collecting = pool.submit(registry.collect, older_than=AT_ONCE)
            assert asleep.wait(SAFETY)
            dataset.commit({"a": content})
            awake.set()
            collecting.result()
        return _read(dataset) == content

    assert a_collector_sleeps_while_content_comes_back()
    with monkeypatch.context() as mutated:
        apply("hash-as-key", mutated.setattr)
        with pytest.raises(CorruptionError, match="is missing from the store") as caught:
            a_collector_sleeps_while_content_comes_back()
    print(f"hash as key: an acknowledged commit cannot be read: {caught.value}")


# --- collecting ----------------------------------------------------------------------------------------------------

_LOOK = re.compile(r"SELECT files\.id\s+FROM files\s+WHERE (?=.*FOR UPDATE SKIP LOCKED)", re.DOTALL)


@pytest.fixture
def collector_stops_after_its_snapshot(
    concurrent: Registry, postgresql_catalog: str
) -> Iterator[Callable[[Callable[[], object]], Any]]:
    """Collects, and does something else in the middle: when the statement that locks has its snapshot, but no row yet.

    The statement is given a condition that waits for a lock, and PostgreSQL evaluates it first.
    """

    def stop(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:
        wait = "(SELECT pg_advisory_xact_lock_shared(7)::text) IS NOT NULL AND "
        return _LOOK.sub(lambda found: found[0] + wait, statement), parameters

    def collect(between: Callable[[], object]) -> Any:
        waits = _somebody_waits_for_a_lock(postgresql_catalog)
        with _connect(postgresql_catalog) as gate, ThreadPoolExecutor(1) as pool:
            gate.execute("SELECT pg_advisory_lock(7)")
            collecting = pool.submit(concurrent.collect, older_than=AT_ONCE)
            until(waits)
            between()
            gate.execute("SELECT pg_advisory_unlock(7)")
            waits.close()  # type: ignore[attr-defined]
            return collecting.result()

    writer = concurrent.access.catalog.writer
    event.listen(writer, "before_cursor_execute", stop, retval=True)
    yield collect
    event.remove(writer, "before_cursor_execute", stop)


def test_a_collection_that_looks_and_deletes_in_one_statement_takes_what_was_named_meanwhile(
    concurrent: Registry,
    postgresql_catalog: str,
    collector_stops_after_its_snapshot: Callable[[Callable[[], object]], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = concurrent.create_dataset("d")

    def content_is_held() -> int:
        content_hash = hashlib.sha256(_forgotten(dataset)).hexdigest()
        hold = lambda: concurrent.access.catalog.write(lambda tx: holds.hold(tx, {content_hash: None}))  # noqa: E731
        return int(collector_stops_after_its_snapshot(hold).kept)

    def content_is_committed() -> str | None:
        content = _forgotten(dataset)
        collector_stops_after_its_snapshot(lambda: dataset.commit({"a": content}))
        return wrong_bytes(dataset.version())

    assert content_is_held() == 1
    assert content_is_committed() is None
    with monkeypatch.context() as mutated:
        apply("one-statement", mutated.setattr)
        assert content_is_held() == 0
        assert content_is_committed() is None  # but for the foreign key alone
        drop_foreign_key(postgresql_catalog, *FOREIGN_KEYS["one-statement"])
        problem = content_is_committed()
        assert problem == "has 0 components instead of 1"
    assert content_is_committed() is None  # the real code needs no foreign key for this
    print(f"one statement: what is held is collected; without foreign keys, an acknowledged version {problem}")


def test_a_collection_that_does_not_look_again_takes_what_was_named_since_its_plan(
    concurrent: Registry, postgresql_catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = concurrent.create_dataset("d")

    def content_is_committed_after_the_plan() -> str | None:
        content = _forgotten(dataset)
        plan = concurrent.collect(older_than=AT_ONCE, dry_run=True)
        dataset.commit({"a": content})
        concurrent.apply(plan)
        return wrong_bytes(dataset.version())

    assert content_is_committed_after_the_plan() is None
    drop_foreign_key(postgresql_catalog, *FOREIGN_KEYS["no-second-look"])
    assert content_is_committed_after_the_plan() is None
    with monkeypatch.context() as mutated:
        apply("no-second-look", mutated.setattr)
        problem = content_is_committed_after_the_plan()
    assert problem == "has 0 components instead of 1"
    print(f"no foreign key and no second look: an acknowledged version {problem}")


# --- committing ----------------------------------------------------------------------------------------------------


def test_commits_that_do_not_lock_their_branch_lose_one_another(
    concurrent: Registry, postgresql_catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_commits_read_the_head_at_once(name: str) -> tuple[list[int], set[str]]:
        dataset = concurrent.create_dataset(name)
        dataset.commit({"a": b"first"})
        real_parents = commit_base.parents_of
        arrived = threading.Semaphore(0)
        waits = _somebody_waits_for_a_lock(postgresql_catalog)

        def meet(*arguments: Any) -> Any:
            """Both have read the head now; or the other one waits until this one is through."""
            arrived.release()
            until(lambda: arrived._value == 2 or waits())  # type: ignore[attr-defined]
            return real_parents(*arguments)

        with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
            patch.setattr(commit_base, "parents_of", meet)
            list(pool.map(lambda component: dataset.commit({component: b"new"}), ("b", "c")))
        waits.close()  # type: ignore[attr-defined]
        return [v.number for v in dataset.log()], {c.name for c in dataset.version().components}

    assert two_commits_read_the_head_at_once("real") == ([3, 2, 1], {"a", "b", "c"})
    with monkeypatch.context() as mutated:
        apply("no-pointer-lock", mutated.setattr)
        log, components = two_commits_read_the_head_at_once("mutant")
    assert log == [3, 1]
    assert components in ({"a", "b"}, {"a", "c"})
    print(f"no lock on the pointer: both commits were acknowledged, main has the versions {log} and {components}")


def test_content_that_is_named_without_a_hold_is_gone_when_the_commit_comes(
    concurrent: Registry, postgresql_catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = concurrent.create_dataset("d")

    def a_collection_comes_between_each_time() -> tuple[int, str | None]:
        content, real_upload = _forgotten(dataset), commit.upload_contents
        attempts = count(1)

        def upload(*arguments: Any, **options: Any) -> Any:
            held = real_upload(*arguments, **options)
            concurrent.collect(older_than=AT_ONCE)
            concurrent.sweep(older_than=AT_ONCE, max_share=1)
            next(attempts)
            return held

        with monkeypatch.context() as patch:
            patch.setattr(commit, "upload_contents", upload)
            version = dataset.commit({"a": content})
        return next(attempts) - 1, wrong_bytes(version)

    assert a_collection_comes_between_each_time() == (2, None)  # the first, hopeful one; then one with a hold
    with monkeypatch.context() as mutated:
        apply("no-holds", mutated.setattr)
        mutated.setattr(engine, "_ATTEMPTS", 3)
        with pytest.raises(RetryLater) as caught:
            a_collection_comes_between_each_time()
        drop_foreign_key(postgresql_catalog, *FOREIGN_KEYS["no-holds"])
        _, problem = a_collection_comes_between_each_time()
    assert problem == "has 0 components instead of 1"
    assert a_collection_comes_between_each_time() == (2, None)  # the real code needs no foreign key for this
    print(f"no holds: {caught.value} Without foreign keys, an acknowledged version {problem}")


def test_pages_that_are_found_by_their_digest_are_gone_when_the_commit_comes(
    concurrent: Registry, postgresql_catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = count(1)

    def the_other_version_of_a_page_is_deleted() -> tuple[int, str | None]:
        """How often the commit's transaction ran, and what is wrong with the version."""
        other = concurrent.create_dataset(f"other{next(numbers)}")
        dataset = concurrent.create_dataset(f"d{next(numbers)}")
        other.commit({"z": b"first"})
        content = f"content {next(numbers)}".encode()
        draft = other.draft("side", fallback="main")
        with draft:
            draft.clear()
            draft.add("a", content)
        other.delete_branch("side")
        real_insert = manifests._insert_page
        runs = 0

        def insert_page(tx: Any, table: Any, page: Any) -> int:
            nonlocal runs
            if table is manifest_index_pages:  # its pages are there now, or found
                runs += 1
                if runs == 1:
                    other.delete_version(f"v{draft.version.number}")
            return real_insert(tx, table, page)

        with monkeypatch.context() as patch:
            patch.setattr(manifests, "_insert_page", insert_page)
            version = dataset.commit({"a": content})
        return runs, wrong_bytes(version)

    assert the_other_version_of_a_page_is_deleted() == (1, None)
    with monkeypatch.context() as mutated:
        apply("pages-by-digest", mutated.setattr)
        assert the_other_version_of_a_page_is_deleted() == (2, None)  # the foreign key refused, and it ran again
        drop_foreign_key(postgresql_catalog, *FOREIGN_KEYS["pages-by-digest"])
        runs, problem = the_other_version_of_a_page_is_deleted()
    assert (runs, problem) == (1, "has 0 components instead of 1")
    assert the_other_version_of_a_page_is_deleted() == (1, None)  # the real code needs no foreign key for this
    print(f"pages by digest: runs again under a foreign key; without it, an acknowledged version {problem}")
