"""Many at once: processes on one branch, clients on many, deletions and tags in each other's way."""

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dataset_registry import Registry
from dataset_registry.errors import (
    AlreadyExists,
    BranchMoved,
    CommitConflict,
    InUse,
    NotFound,
    RegistryError,
    TagImmutable,
)
from tests.waiting import SAFETY

PROCESSES, COMMITS = 4, 50


def _commit_many(catalog: str, store: str, worker: int, commits: int) -> None:
    with Registry.open(catalog=catalog, store=store) as registry:
        dataset = registry.dataset("shared")
        for i in range(commits):
            dataset.commit({f"worker-{worker}": f"{worker} {i}".encode()})


def _processes(
    target: Callable[..., None], arguments: Sequence[tuple[object, ...]], method: str = "forkserver"
) -> None:
    context = multiprocessing.get_context(
        method
    )  # a fork server's are processes of their own, and need not import anew
    if method == "forkserver":
        context.set_forkserver_preload([__name__, "psycopg", "dataset_registry.catalog.migrate"])
    running = [context.Process(target=target, args=arguments_of) for arguments_of in arguments]
    for process in running:
        process.start()
    for process in running:
        process.join(SAFETY)
    assert [process.exitcode for process in running] == [0] * len(running)


def test_processes_committing_to_one_branch_make_one_line_and_lose_nothing(
    registry: Registry, catalog_url: str, tmp_path: Path
) -> None:
    shared = registry.create_dataset("shared")
    shared.commit({"base": b"0"})
    _processes(_commit_many, [(catalog_url, str(tmp_path / "store"), n, COMMITS) for n in range(PROCESSES)])
    log = shared.log()
    assert len(log) == PROCESSES * COMMITS + 1
    assert [v.parents for v in log] == [(n,) for n in range(PROCESSES * COMMITS, 0, -1)] + [()]
    last = shared.version()
    assert last.component_count == PROCESSES + 1
    for worker in range(PROCESSES):
        with last.open(f"worker-{worker}") as stream:
            assert stream.read() == f"{worker} {COMMITS - 1}".encode()


def test_processes_creating_one_registry_all_open_it(tmp_path: Path) -> None:
    _processes(_create, [(str(tmp_path / "new"), n) for n in range(4)], "spawn")
    with Registry.open(tmp_path / "new") as registry:
        assert [d.name for d in registry.datasets()] == ["d0", "d1", "d2", "d3"]


def _create(folder: str, worker: int) -> None:
    with Registry.open(folder) as registry:
        registry.create_dataset(f"d{worker}").commit({"data": b"same"})


def test_of_many_writers_of_one_component_each_is_told_or_lands(registry: Registry) -> None:
    dataset = registry.create_dataset("shared")
    dataset.commit({"a": b"start"})

    def write(n: int) -> bool:
        try:
            dataset.commit({"a": f"{n}".encode()})
        except CommitConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        landed = sum(pool.map(write, range(40)))
    assert 1 <= landed <= 40
    assert len(dataset.log()) == landed + 1


def test_of_many_compare_and_swaps_one_wins(registry: Registry) -> None:
    dataset = registry.create_dataset("shared")
    for i in range(10):
        dataset.commit({"a": f"{i}".encode()})
    dataset.create_branch("dev", "v1")

    def move(n: int) -> bool:
        try:
            dataset.move_branch("dev", f"v{n}", expect="v1")
        except BranchMoved:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(move, range(2, 11))) == 1


def test_one_of_many_makes_the_dataset_the_branch_or_the_tag(registry: Registry) -> None:
    def made(work: Callable[[], object]) -> bool:
        try:
            work()
        except (AlreadyExists, TagImmutable):
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: made(lambda: registry.create_dataset("d")), range(16))) == 1
        dataset = registry.dataset("d")
        dataset.commit({"a": b"1"})
        assert sum(pool.map(lambda _: made(lambda: dataset.create_tag("t")), range(16))) == 1
        assert sum(pool.map(lambda _: made(lambda: registry.create_branch("b")), range(16))) == 1


def test_the_same_new_content_committed_by_many_is_stored_once(registry: Registry) -> None:
    datasets = [registry.create_dataset(f"d{n}") for n in range(16)]
    content = b"x" * 100_000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda d: d.commit({"data": content}), datasets))
    (only,) = registry.files()
    assert only.reference_count == 16


def test_tags_never_end_on_a_deleted_version(registry: Registry) -> None:
    dataset = registry.create_dataset("d")
    dataset.commit({"a": b"0"})
    for i in range(1, 13):
        dataset.create_branch(f"b{i}", "v1")
        dataset.commit({"a": f"{i}".encode()}, branch=f"b{i}")
        dataset.delete_branch(f"b{i}")

    def attempt(work: Callable[[], object]) -> str:
        try:
            work()
        except (InUse, NotFound) as error:
            return error.code
        except RegistryError as error:  # anything else would be a race that got through
            return f"unexpected {error!r}"
        return "done"

    def race(n: int) -> list[str]:
        works = [lambda: dataset.create_tag(f"t{n}", f"v{n}"), lambda: dataset.delete_version(f"v{n}")]
        with ThreadPoolExecutor(2) as pair:
            return list(pair.map(attempt, works))

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(race, range(2, 14)))
    assert all(sorted(outcome) in (["done", "in_use"], ["done", "not_found"]) for outcome in outcomes), outcomes
    for tag in dataset.tags():
        assert len(dataset.version(tag.name).components) == 1


def test_deletions_that_share_pages_leave_none_behind(registry: Registry, rows: Callable[[], object]) -> None:
    dataset = registry.create_dataset("d")
    dataset.commit({f"c{i}": b"x" for i in range(200)})
    before = rows()
    for n in range(8):
        dataset.create_branch(f"b{n}", "v1")
        dataset.commit({"c1": f"{n // 2}".encode()}, branch=f"b{n}")
        dataset.delete_branch(f"b{n}")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: dataset.delete_version(f"v{n}"), range(2, 10)))
    after = rows()
    for table in ("manifest_pages", "manifest_entries", "manifest_index_pages", "manifest_index_entries"):
        assert getattr(after, table) == getattr(before, table), table


def test_what_a_forked_child_commits_outlives_the_parents_closing(
    embedded: Registry, sqlite_url: str, tmp_path: Path
) -> None:
    """SQLite keeps locks per process: a handle inherited and left open made the child's own locks void."""
    dataset = embedded.create_dataset("d")
    dataset.commit({"a": b"1"})
    context = multiprocessing.get_context("fork")
    first, closed, done = context.Event(), context.Event(), context.Event()

    def child() -> None:
        dataset.commit({"a": b"2"})
        first.set()
        closed.wait(SAFETY)
        dataset.commit({"a": b"3"})
        done.set()

    process = context.Process(target=child)
    process.start()
    assert first.wait(SAFETY)
    embedded.close()
    closed.set()
    assert done.wait(SAFETY)
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store")) as other:
        assert other.dataset("d").version().number == 3
    process.join(SAFETY)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_opens_connections_of_its_own(registry: Registry) -> None:
    dataset = registry.create_dataset("d")
    dataset.commit({"a": b"1"})
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: dataset.commit({"b": b"2"}))
    child.start()
    child.join(SAFETY)
    assert child.exitcode == 0
    assert dataset.commit({"c": b"3"}).number == 3
