"""Adoption trusts nothing: neither where a row says that bytes are, nor how many, nor what is under a path."""

import os
from pathlib import Path

import pytest

from dataset_registry.errors import CorruptionError, NotFound, StorageError
from tests.migrations import support
from tests.migrations.conftest import Small

# --- inline bytes and a path -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage_type", "inline_wins"),
    [("database", True), ("DB", True), ("inline", True), ("filesystem", False), ("local", False), ("s3-ish", True)],
)
def test_of_inline_bytes_and_a_path_the_one_is_read_that_the_row_means(
    small: Small, storage_type: str, inline_wins: bool
) -> None:
    path = small.folder / "x.bin"
    path.write_bytes(b"under the path")
    inline = b"inline"
    size = len(inline) if inline_wins else len(b"under the path")
    number = support.add_file_row(
        small.catalog, "a", storage_type=storage_type, file_data=inline, file_path=str(path), file_size=size
    )
    expected, other = (inline, b"under the path") if inline_wins else (b"under the path", inline)
    with small.upgrade() as registry:
        assert support.content(registry.version("a")) == expected
        done = registry.adopt()
        assert (done.files, list(done.differences)) == (1, [number])
        assert "a@v1" in done.differences[number]
        assert support.content(registry.version("a")) == expected
        assert path.read_bytes() == b"under the path"
        left = support.query(small.catalog, "SELECT file_data, file_path FROM files")[0]
        assert other in (bytes(left[0] or b""), Path(left[1]).read_bytes()), "both are there still"


def test_the_name_that_an_upload_had_is_no_path(small: Small) -> None:
    support.add_file_row(small.catalog, "a", file_data=b"inline", file_path="report.csv", file_size=6)
    with small.upgrade() as registry:
        assert support.content(registry.version("a")) == b"inline"
        done = registry.adopt()
        assert (done.files, done.failed, done.differences) == (1, {}, {})
        assert support.content(registry.version("a")) == b"inline"
        assert support.query(small.catalog, "SELECT file_data FROM files") == [(None,)], "proven, and in the store"


def test_bytes_beside_a_duplicate_do_not_go(small: Small) -> None:
    path = small.folder / "x.bin"
    path.write_bytes(b"same")
    support.add_file_row(small.catalog, "a", file_data=b"same", file_size=4)
    number = support.add_file_row(
        small.catalog, "b", storage_type="file", file_data=b"else", file_path=str(path), file_size=4
    )
    with small.upgrade() as registry:
        done = registry.adopt()
        assert list(done.failed) == [number]
        assert support.query(small.catalog, "SELECT count(*) FROM files WHERE file_data IS NOT NULL") == [(1,)]


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"123", b"123456789"])
def test_a_file_of_another_size_is_reported_and_adopted_only_when_told(small: Small, content: bytes) -> None:
    path = small.folder / "x.bin"
    path.write_bytes(content)
    number = support.add_file_row(small.catalog, "raw/a", storage_type="filesystem", file_path=str(path), file_size=5)
    with small.upgrade() as registry:
        plan = registry.adopt(dry_run=True)
        done = registry.adopt()
        for said in (plan.unreadable[number], done.failed[number]):
            for words in ("raw/a@v1", str(path), f"{len(content)} bytes", "says 5", "--any-size"):
                assert words in said
        assert (done.files, registry.version("raw/a").digest) == (0, None)
        assert registry.adopt(any_size=True).files == 1
        assert support.content(registry.version("raw/a")) == content


# --- what is no file -------------------------------------------------------------------------------------------------


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [a_pipe, a_link_to_a_device, a_loop, nothing, Path.mkdir])
def test_what_is_no_regular_file_is_named_and_opened_by_nobody(small: Small, make: object) -> None:
    path = small.folder / "x.bin"
    make(path)  # type: ignore[operator]
    number = support.add_file_row(small.catalog, "raw/a", storage_type="filesystem", file_path=str(path), file_size=5)
    support.add_file_row(small.catalog, "raw/b", file_data=b"fine", file_size=4)
    with small.upgrade() as registry:
        with pytest.raises(StorageError, match=r"x\.bin"):
            support.content(registry.version("raw/a"))
        plan = registry.adopt(dry_run=True)
        done = registry.adopt()
        assert done.files == 1, "the rest"
        for said in (plan.unreadable, done.failed):
            assert list(said) == [number]
            for words in ("raw/a@v1", str(path), f"--give-up {number}"):
                assert words in said[number]


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "~nobody/x", "file:///etc/passwd", "-", ""])
def test_paths_that_are_none_fail_as_others_do(small: Small, path: str) -> None:
    if "\0" in path and not small.catalog.is_sqlite:
        pytest.skip("PostgreSQL has no such text")
    support.add_file_row(small.catalog, "a", storage_type="filesystem", file_path=path, file_size=5)
    with small.upgrade() as registry:
        assert len(registry.adopt(dry_run=True).unreadable) == 1
        assert len(registry.adopt().failed) == 1


# --- what is lost for good -------------------------------------------------------------------------------------------


def test_a_lost_file_is_given_up_and_its_dataset_goes_on(small: Small) -> None:
    gone = support.add_file_row(
        small.catalog, "raw/a", storage_type="filesystem", file_path=str(small.folder / "gone"), file_size=5
    )
    there = support.insert(small.catalog, "files", storage_type="database", file_data=b"there", file_size=5)
    dataset = support.query(small.catalog, "SELECT id FROM datasets")[0][0]
    support.insert(small.catalog, "dataset_versions", dataset_id=dataset, version_number=2, file_id=there)
    with small.upgrade() as registry:
        with pytest.raises(NotFound, match="4711"):
            registry.adopt(give_up=[4711])
        done = registry.adopt(give_up=[gone])
        assert (done.files, done.given_up, done.failed) == (1, 1, {})
        flights = registry.dataset("raw/a")
        with pytest.raises(CorruptionError, match="given up by ada"):
            support.content(flights.version("v1"))
        assert support.content(flights.version("v2")) == b"there"
        assert flights.commit({"data": b"new"}).number == 3
        assert registry.adopt(dry_run=True).paths == 0
        assert registry.verify().damage == ()
        assert "adopt.give-up" in {entry.action for entry in registry.audit()}
        assert registry.collect().files == 0


def test_a_file_that_can_be_read_is_not_given_up(small: Small) -> None:
    number = support.add_file_row(small.catalog, "a", file_data=b"fine", file_size=4)
    with small.upgrade() as registry:
        assert registry.adopt(give_up=[number]).given_up == 0
        assert support.content(registry.version("a")) == b"fine"
