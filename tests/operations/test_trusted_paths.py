"""Paths that look as they did when they were read last are not read again, for those who ask for that."""

import os
from pathlib import Path
from time import time

import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import RetryLater
from dataset_registry.store import Spool
from tests.operations.support import NOW, object_of, objects

CONTENT = os.urandom(200_000)


@pytest.fixture
def dataset(embedded: Registry) -> Dataset:
    return embedded.create_dataset("raw/flights")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "data.bin"
    made.write_bytes(CONTENT)
    _look_old(made)
    return made


def _look_old(path: Path) -> None:
    os.utime(path, (time() - 60, time() - 60))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that were read."""
    found: list[Path] = []
    real = Spool.copy

    def copy(self: Spool, source: object) -> object:
        if isinstance(source, str | Path):
            found.append(Path(source))
        return real(self, source)  # type: ignore[arg-type]

    monkeypatch.setattr(Spool, "copy", copy)
    return found


def test_an_untouched_path_is_read_once(dataset: Dataset, path: Path, reads: list[Path]) -> None:
    first = dataset.commit({"data": path}, trust_stat=True)
    again = dataset.commit({"data": path, "other": path}, trust_stat=True)
    assert reads == [path]
    assert {c.content_hash for c in again.components} == {first.components[0].content_hash}
    dataset.commit({"data": path})
    assert reads == [path, path]  # nobody asked


@pytest.mark.parametrize("touch", ["content", "size", "times"])
def test_a_touched_path_is_read_again(dataset: Dataset, path: Path, reads: list[Path], touch: str) -> None:
    dataset.commit({"data": path}, trust_stat=True)
    changed = {"content": CONTENT[::-1], "size": CONTENT + b"!", "times": CONTENT}[touch]
    path.write_bytes(changed)
    version = dataset.commit({"data": path}, trust_stat=True)
    assert reads == [path, path]
    assert version.open().read() == changed


def test_a_file_that_was_written_just_now_is_not_remembered(dataset: Dataset, path: Path, reads: list[Path]) -> None:
    path.write_bytes(CONTENT)
    for _ in range(2):
        dataset.commit({"data": path}, trust_stat=True)
    assert reads == [path, path]


def test_content_that_was_collected_is_read_and_stored_again(
    dataset: Dataset, embedded: Registry, path: Path, reads: list[Path]
) -> None:
    dataset.commit({"data": path}, trust_stat=True)
    dataset.delete()
    embedded.collect(older_than=NOW)
    assert objects(embedded) == {}
    version = embedded.create_dataset("again").commit({"data": path}, trust_stat=True)
    assert version.open().read() == CONTENT
    assert reads == [path, path]


def test_content_that_goes_before_the_commit_is_copied_and_the_file_left_alone(
    dataset: Dataset, embedded: Registry, path: Path
) -> None:
    dataset.commit({"data": path}, trust_stat=True)
    mode = path.stat().st_mode
    other = embedded.create_dataset("other")
    with other.draft(trust_stat=True) as draft:
        draft.add("data", path)
        dataset.delete()
        embedded.collect(older_than=NOW)
    version = other.version()
    assert version.open().read() == CONTENT
    stored = object_of(embedded, version.components[0].content_hash or "")
    assert (stored.stat().st_ino, path.stat().st_mode) != (path.stat().st_ino, None)
    assert path.stat().st_mode == mode
    path.write_bytes(b"changed")
    assert version.open().read() == CONTENT


def test_a_file_that_changed_after_it_was_trusted_is_not_taken_for_what_it_was(
    dataset: Dataset, embedded: Registry, path: Path
) -> None:
    dataset.commit({"data": path}, trust_stat=True)
    other = embedded.create_dataset("other")
    with pytest.raises(RetryLater, match="changed while it was committed"), other.draft(trust_stat=True) as draft:
        draft.add("data", path)
        dataset.delete()
        embedded.collect(older_than=NOW)
        path.write_bytes(b"changed")
    assert other.tree() == []
