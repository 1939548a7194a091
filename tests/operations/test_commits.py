"""Commits: what they carry over, what they count, what they refuse, and what they never leave half done."""

import errno
import gc
import io
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from sqlalchemy import Connection, event

from dataset_registry import Dataset, Draft, Provenance, Registry
from dataset_registry.catalog import Transaction, engine, files, manifests
from dataset_registry.catalog.sqlite import sync_log
from dataset_registry.errors import (
    BranchMoved,
    CommitConflict,
    InputError,
    InvalidName,
    NotFound,
    StorageError,
    UnsupportedType,
)

Rows = Callable[[], SimpleNamespace]


def content(dataset: Dataset, ref: str = "main") -> dict[tuple[str, int], bytes]:
    version = dataset.version(ref)
    found = {}
    for c in version.components:
        with version.open(c.name, index=c.index) as stream:
            found[c.name, c.index] = stream.read()
    return found


def test_versions_are_numbered_from_one_and_know_their_parents(flights: Dataset) -> None:
    first = flights.commit({"data": b"1"}, message="July")
    second = flights.commit({"data": b"2"})
    assert (first.number, first.depth, first.parents, first.message, first.created_by) == (1, 0, (), "July", "alice")
    assert (second.number, second.depth, second.parents) == (2, 1, (1,))
    assert flights.version() == second
    assert first.created_at.tzinfo is not None


def test_components_that_a_commit_does_not_name_carry_over(flights: Dataset) -> None:
    flights.commit({"a": b"1", "b": b"2"})
    flights.commit({"b": b"3", "c": b"4"})
    with flights.draft() as draft:
        draft.remove("a")
        draft.add("c", b"5", index=1)
    assert content(flights) == {("b", 0): b"3", ("c", 0): b"4", ("c", 1): b"5"}
    assert content(flights, "v1") == {("a", 0): b"1", ("b", 0): b"2"}


def test_a_list_becomes_indexed_components_and_replaces_all_of_them(flights: Dataset) -> None:
    flights.commit({"data": [b"0", b"1", b"2"], "other": b"x"})
    flights.commit({"data": [b"0", b"9"]})
    assert content(flights) == {("data", 0): b"0", ("data", 1): b"9", ("other", 0): b"x"}


def test_a_component_has_a_type_and_metadata(flights: Dataset) -> None:
    with flights.draft() as draft:
        draft.add("readme", b"# Flights", type="metadata", metadata={"language": "en", "weight": 1e22})
    (component,) = flights.version().components
    assert (component.type, component.metadata, component.format) == (
        "metadata",
        {"language": "en", "weight": 1e22},
        "binary",
    )


def test_unchanged_content_makes_no_version_and_stores_nothing(flights: Dataset, rows: Rows) -> None:
    first = flights.commit({"data": b"1", "more": b"2"})
    before = rows()
    again = flights.commit({"more": b"2"})
    assert again == first
    assert rows() == before


def test_an_unchanged_commit_that_says_where_it_comes_from_is_a_second_production(flights: Dataset) -> None:
    flights.commit({"data": b"1"}, provenance=Provenance(run_id="one"))
    flights.commit({"data": b"1"}, provenance=Provenance(run_id="two"))
    productions = flights.version("v1").productions
    assert [(p.provenance.run_id, p.unchanged) for p in productions] == [("one", False), ("two", True)]
    assert len(flights.tree()) == 1


def test_the_same_bytes_under_another_format_are_a_change(flights: Dataset) -> None:
    flights.commit({"data": b"a,b\n1,2\n"})
    with flights.draft() as draft:
        draft.add("data", b"a,b\n1,2\n", format="csv")
    assert flights.version().number == 2
    assert [c.name for c in flights.version().schema.columns] == ["a", "b"]


def test_one_file_in_two_datasets_is_stored_once_and_counted_twice(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b"a,b\n1,2\n")
    one, two = registry.create_dataset("one"), registry.create_dataset("two")
    digest = str(one.commit({"data": path}).components[0].content_hash)
    two.commit({"data": path})
    assert len(list(registry.files())) == 1
    assert registry.file(digest).reference_count == 2
    two.commit({"data": b"gone"})
    two.create_branch("old", "v1")
    two.delete_branch("old")
    one.delete()
    assert registry.file(digest).reference_count == 1


@pytest.mark.objects
def test_counts_follow_versions_components_and_parts(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"same", "b": b"same"})
    digest = str(flights.version().components[0].content_hash)
    assert registry.file(digest).reference_count == 2
    flights.commit({"c": b"same"})
    assert registry.file(digest).reference_count == 5
    flights.commit({"t": pa.table({"x": [1]})})
    forms = {file.form: file.reference_count for file in registry.files() if file.content_hash != digest}
    assert forms == {"parts": 1, "whole": 1}
    flights.move_branch("main", "v2")
    flights.delete_version("v3")
    assert registry.file(digest).reference_count == 5


def test_a_draft_commits_on_a_clean_exit_only(flights: Dataset, rows: Rows) -> None:
    before = rows()
    with pytest.raises(KeyError), flights.draft() as draft:
        draft.add("data", b"1")
        raise KeyError
    assert rows() == before
    with pytest.raises(InputError, match="inside its with block"):
        draft.add("data", b"1")
    with pytest.raises(InputError, match="was not committed"):
        _ = draft.version


def test_nothing_to_commit_is_said(flights: Dataset) -> None:
    with pytest.raises(InputError, match="nothing to commit"), flights.draft():
        pass


def test_a_draft_can_clear_what_was_there(flights: Dataset) -> None:
    flights.commit({"a": b"1", "b": b"2"})
    with flights.draft() as draft:
        draft.clear()
        draft.add("c", b"3")
    assert content(flights) == {("c", 0): b"3"}


def test_removing_what_is_not_there_is_refused(flights: Dataset) -> None:
    flights.commit({"a": [b"1", b"2"]})
    for arguments in ({"name": "b"}, {"name": "a", "index": 7}):
        with pytest.raises(NotFound, match="could be removed"), flights.draft() as draft:
            draft.remove(**arguments)  # type: ignore[arg-type]
    with flights.draft() as draft:
        draft.remove("a", index=0)
    assert content(flights) == {("a", 1): b"2"}


def test_disjoint_changes_made_at_once_both_land(flights: Dataset) -> None:
    flights.commit({"a": b"1", "b": b"1"})
    with flights.draft() as mine:
        mine.add("a", b"2")
        flights.commit({"b": b"2"})
    assert content(flights) == {("a", 0): b"2", ("b", 0): b"2"}
    assert [v.number for v in flights.log()] == [3, 2, 1]


def test_the_same_component_changed_at_once_is_a_conflict_unless_overwritten(flights: Dataset, rows: Rows) -> None:
    flights.commit({"a": b"1"})
    with pytest.raises(CommitConflict, match=r"'a'.*v2.*overwrite=True") as caught, flights.draft() as mine:
        mine.add("a", b"mine")
        flights.commit({"a": b"theirs"})
        before = rows()
    assert caught.value.fields["components"] == ["a"]
    assert content(flights) == {("a", 0): b"theirs"}
    assert rows().dataset_versions == before.dataset_versions
    with flights.draft(overwrite=True) as mine:
        mine.add("a", b"mine")
        flights.commit({"a": b"theirs again"})
    assert content(flights) == {("a", 0): b"mine"}


def test_two_first_commits_at_once_conflict_where_they_touch(flights: Dataset) -> None:
    with flights.draft() as mine:
        mine.add("a", b"mine")
        flights.commit({"b": b"theirs"})
    assert content(flights) == {("a", 0): b"mine", ("b", 0): b"theirs"}


def test_a_branch_from_an_old_version_starts_with_it(flights: Dataset) -> None:
    for i in range(4):
        flights.commit({"data": str(i).encode()})
    flights.create_branch("dev", "v2")
    made = flights.commit({"data": b"dev"}, branch="dev")
    assert (made.number, made.parents, made.depth) == (5, (2,), 2)
    assert [v.number for v in flights.children("v2")] == [3, 5]
    assert {v.number: v.parents for v in flights.tree()} == {1: (), 2: (1,), 3: (2,), 4: (3,), 5: (2,)}
    assert [v.number for v in flights.log("dev")] == [5, 2, 1]


def test_a_branch_that_is_not_there_is_made_on_purpose_or_from_a_fallback(flights: Dataset) -> None:
    flights.commit({"a": b"1", "b": b"1"})
    with pytest.raises(NotFound, match="create_branch"):
        flights.commit({"a": b"2"}, branch="dev")
    made = flights.commit({"a": b"2"}, branch="dev", fallback="main")
    assert made.parents == (1,)
    assert content(flights, "dev") == {("a", 0): b"2", ("b", 0): b"1"}
    assert content(flights, "main") == {("a", 0): b"1", ("b", 0): b"1"}


def test_a_first_commit_may_be_on_any_branch(flights: Dataset) -> None:
    flights.commit({"a": b"1"}, branch="dev", fallback="main")
    assert [b.name for b in flights.branches()] == ["dev"]


def test_an_unchanged_first_write_on_a_branch_pins_what_it_saw(flights: Dataset) -> None:
    flights.commit({"a": b"1"})
    assert flights.commit({"a": b"1"}, branch="dev", fallback="main").number == 1
    flights.commit({"a": b"2"})
    assert flights.version("dev").number == 1


def test_two_parents_make_a_version_even_of_equal_content(flights: Dataset) -> None:
    flights.commit({"a": b"1"})
    flights.create_branch("dev")
    flights.commit({"b": b"2"}, branch="dev")
    flights.commit({"c": b"3"})
    merged = flights.commit({"b": b"2"}, parents=["main", "dev"], message="Merge dev")
    assert (merged.parents, merged.depth) == ((3, 2), 2)
    assert content(flights) == {("a", 0): b"1", ("b", 0): b"2", ("c", 0): b"3"}
    again = flights.commit({}, parents=["main", "dev"])
    assert (again.number, again.parents, again.digest) == (5, (4, 2), merged.digest)
    assert [v.number for v in flights.children("v2")] == [4, 5]


def test_the_first_parent_must_be_the_branchs_head(flights: Dataset) -> None:
    flights.commit({"a": b"1"})
    flights.commit({"a": b"2"})
    with pytest.raises(BranchMoved, match="v2, not v1"):
        flights.commit({"a": b"3"}, parents=["v1", "main"])
    with pytest.raises(InputError, match="differ"):
        flights.commit({"a": b"3"}, parents=["main", "v2"])


def test_tags_are_not_committed_to(flights: Dataset) -> None:
    flights.commit({"a": b"1"})
    flights.create_tag("release")
    with pytest.raises(InputError, match="tags do not move"):
        flights.commit({"a": b"2"}, branch="release")


def test_an_overlay_is_stored_counted_and_listed_like_any_component(flights: Dataset, registry: Registry) -> None:
    flights.commit({"data": pa.table({"id": [1, 2]})})
    with flights.draft() as draft:
        draft.add("changes", pa.table({"id": [2]}), type="overlay")
    version = flights.version()
    overlay = next(c for c in version.components if c.type == "overlay")
    assert version.record.overlay_file_id == overlay.file_id
    assert registry.file(str(overlay.content_hash)).reference_count == 1
    with pytest.raises(InputError, match="only one overlay"), flights.draft() as draft:
        draft.add("x", b"1", type="overlay")
        draft.add("y", b"2", type="overlay")


@pytest.mark.parametrize("wrap", [bytes, bytearray, io.BytesIO, memoryview])
def test_bytes_come_in_any_way(flights: Dataset, wrap: Callable[[bytes], object]) -> None:
    flights.commit({"data": wrap(b"bytes")})
    assert content(flights) == {("data", 0): b"bytes"}


def test_a_stream_and_a_path_and_bytes_of_the_same_content_are_one_file(
    flights: Dataset, registry: Registry, tmp_path: Path
) -> None:
    data = b"x" * 300_000
    (tmp_path / "f.bin").write_bytes(data)
    flights.commit({"a": data, "b": io.BytesIO(data), "c": tmp_path / "f.bin", "d": str(tmp_path / "f.bin")})
    (only,) = registry.files()
    assert (only.size, only.reference_count) == (300_000, 4)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, UnsupportedType),
        (object(), UnsupportedType),
        ({"a": 1}, UnsupportedType),
        (io.StringIO("text"), UnsupportedType),
        ("/nowhere/at/all.csv", InputError),
        (Path("/tmp"), InputError),
        (pa.table([[1], [2]], names=["a", "a"]), UnsupportedType),
    ],
)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(
    flights: Dataset, rows: Rows, value: object, error: type[Exception]
) -> None:
    before = rows()
    with pytest.raises(error):
        flights.commit({"data": value})
    assert rows() == before


def test_bad_component_facts_are_refused(flights: Dataset) -> None:
    for facts in (
        {"type": "table"},
        {"metadata": {"x": float("nan")}},
        {"metadata": {"x": object()}},
        {"format": "xml"},
    ):
        with pytest.raises(InputError), flights.draft() as draft:
            draft.add("data", b"1", **facts)  # type: ignore[arg-type]
    with pytest.raises(InvalidName), flights.draft() as draft:
        draft.add("a\0b", b"1")


def test_a_draft_of_a_new_dataset_makes_it_with_its_first_version_or_not_at_all(registry: Registry) -> None:
    with pytest.raises(UnsupportedType), registry.draft("new/one", description="made together") as draft:
        draft.add("data", None)
    assert registry.datasets() == []
    with registry.draft("new/one", description="made together") as draft:
        draft.add("data", b"1")
    (dataset,) = registry.datasets()
    assert (dataset.name, dataset.description, dataset.version().number) == ("new/one", "made together", 1)


@pytest.mark.objects
def test_known_content_collected_between_look_and_commit_is_stored_again(
    flights: Dataset, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector is simulated: between two looks the file is gone, and comes back under the third."""
    look = files.LookUp.known
    answers = iter([True, False])

    def collected(asked: files.LookUp) -> tuple[dict[str, files.Known], set[str]]:
        return look(asked) if next(answers, True) else ({}, set())

    flights.commit({"a": b"content"})
    before = sum(1 for _ in registry.files())
    monkeypatch.setattr(files.LookUp, "known", collected)
    flights.commit({"b": b"content"})
    assert next(answers, None) is None
    assert content(flights)["b", 0] == b"content"
    assert sum(1 for _ in registry.files()) == before


@pytest.mark.objects
def test_a_hold_does_not_wait_for_the_disk_and_everything_else_does(
    flights: Dataset, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = registry.access.catalog
    seen: list[str] = []

    def note(connection: Connection) -> None:
        waits = not catalog.is_sqlite and connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        seen.append("durable commit" if waits else "commit")

    def noted(path: Path, known: int) -> int:
        seen[-1] = f"durable {seen[-1]}"
        return sync_log(path, known)

    event.listen(catalog.writer, "commit", note)
    monkeypatch.setattr(engine, "sync_log", noted)
    flights.commit({"a": b"new content"})
    assert seen == ["commit", "durable commit"]

    def refused(tx: Transaction) -> None:
        raise InputError("no")

    with pytest.raises(InputError):
        catalog.write(refused, durable=False)
    seen.clear()
    flights.create_branch("next")
    assert seen == ["durable commit"]


def test_others_commit_while_one_waits_for_the_disk(
    embedded: Registry, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = embedded.create_dataset("raw/flights")
    dataset.commit({"a": b"1"})
    waiting: list[str] = []
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store")) as other:
        other.dataset("raw/flights").commit({"a": b"2"})

        def sync(path: Path, known: int) -> int:
            if not waiting:
                waiting.append("here")
                other.dataset("raw/flights").commit({"b": b"in the meantime"})
            return sync_log(path, known)

        monkeypatch.setattr(engine, "sync_log", sync)
        made = dataset.commit({"a": b"3"})
        assert dataset.version("main").number == made.number + 1
        assert content(dataset) == {("a", 0): b"3", ("b", 0): b"in the meantime"}


def test_a_commit_whose_log_cannot_be_synced_says_so(embedded: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = embedded.create_dataset("raw/flights")
    dataset.commit({"a": b"1"})

    def broken(path: Path, known: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="may be lost if the machine fails"):
        patch.setattr(engine, "sync_log", broken)
        dataset.commit({"a": b"2"})
    assert content(dataset) == {("a", 0): b"2"}


def test_the_log_is_synced_with_its_folder_when_it_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "catalog.sqlite", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    assert sync_log(path, 7) == 7
    (tmp_path / "catalog.sqlite-wal").write_bytes(b"log")
    inode = sync_log(path, 7)
    assert synced == [tmp_path.stat().st_ino]
    assert sync_log(path, inode) == inode
    assert len(synced) == 1


def test_very_many_components_at_once_leave_the_garbage_collector_as_it_was(flights: Dataset) -> None:
    seen: set[bool] = set()

    class Watching(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            seen.add(gc.isenabled())
            return super().read(size)

    flights.commit({"few": Watching(b"content")})
    assert seen == {True}
    seen.clear()
    flights.commit({f"c{i}": Watching(b"%d" % i) for i in range(300)})
    assert seen == {False}
    assert gc.isenabled()
    with pytest.raises(InputError):
        flights.commit({f"c{i}": Path("/nowhere") for i in range(300)})
    assert gc.isenabled()


@pytest.mark.objects
def test_a_store_that_fails_leaves_no_version(flights: Dataset, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space left")

    flights.commit({"a": b"1"})
    before = rows()
    monkeypatch.setattr(type(flights.access.store), "put", full)
    with pytest.raises(StorageError):
        flights.commit({"a": b"2"})
    after = rows()
    after.uploads = before.uploads  # the hold runs out by itself
    assert after == before
    assert content(flights) == {("a", 0): b"1"}


STEPS: dict[str, tuple[Callable[[Draft], object], dict[tuple[str, int], bytes]]] = {
    "remove, add": (lambda d: (d.remove("x"), d.add("x", b"n")), {("x", 0): b"n"}),
    "remove one, add another": (
        lambda d: (d.remove("x", index=2), d.add("x", b"n")),
        {("x", 0): b"n", ("x", 1): b"1"},
    ),
    "remove one, add it back": (
        lambda d: (d.remove("x", index=2), d.add("x", b"n", index=2)),
        {("x", 0): b"0", ("x", 1): b"1", ("x", 2): b"n"},
    ),
    "replace twice": (lambda d: (d.replace("x", [b"a", b"b", b"c"]), d.replace("x", [b"d"])), {("x", 0): b"d"}),
    "replace after remove": (lambda d: (d.remove("x"), d.replace("x", [b"d"])), {("x", 0): b"d"}),
    "add, remove": (
        lambda d: (d.add("y", b"n"), d.remove("y"), d.add("z", b"z")),
        {("x", 0): b"0", ("x", 1): b"1", ("x", 2): b"2", ("z", 0): b"z"},
    ),
    "add over, remove": (lambda d: (d.add("x", b"n"), d.remove("x"), d.add("z", b"z")), {("z", 0): b"z"}),
}


@pytest.mark.parametrize("name", STEPS)
def test_what_a_draft_says_last_is_what_it_means(flights: Dataset, name: str) -> None:
    steps, expected = STEPS[name]
    flights.commit({"x": [b"0", b"1", b"2"]})
    with flights.draft() as draft:
        steps(draft)
    assert content(flights) == expected


@pytest.mark.parametrize("index", [-1, True, 1 << 31, "0", 1.0])
def test_an_index_is_a_small_whole_number(flights: Dataset, index: object) -> None:
    with pytest.raises(InputError, match="index"), flights.draft() as draft:
        draft.add("x", b"1", index=index)  # type: ignore[arg-type]


def test_a_draft_commits_once(flights: Dataset) -> None:
    draft = flights.draft()
    with draft:
        draft.add("x", b"1")
    with pytest.raises(InputError, match="was committed"), draft:
        draft.add("x", b"2")


def test_names_that_look_alike_are_one(flights: Dataset) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    flights.commit({decomposed: b"1"}, branch=decomposed)
    assert [branch.name for branch in flights.branches()] == [composed]
    with flights.version(decomposed).open(decomposed) as stream:
        assert stream.read() == b"1"
    flights.move_branch(decomposed, "v1")
    flights.commit({"a": b"1"}, branch="other", fallback=decomposed)
    flights.delete_branch(decomposed)


def test_a_text_that_the_database_does_not_take_is_said_so(flights: Dataset, registry: Registry) -> None:
    long = Provenance(run_id="x" * 300)
    if "postgresql" in registry.location:  # SQLite takes it
        with pytest.raises(InputError, match="Shorten"):
            flights.commit({"a": b"1"}, provenance=long)
    table = pa.table({"s": ["a\0b", "z" * 5000]})
    assert flights.commit({"t": table}).schema.tables()["t"].statistics["s"].max is None
    assert flights.version().to_arrow("t") == table


def test_many_components_are_asked_for_at_once(registry: Registry) -> None:
    dataset = registry.create_dataset("many")
    dataset.commit({"a": pa.table({"x": [1]}), "b": pa.table({"x": [2]})})
    names = ["a", "b"]
    with registry.access.catalog.read() as tx:
        found = list(manifests.schemas_of(tx, dataset.version().id, [*names, *(f"c{i}" for i in range(70_000))]))
    assert [name for name, _, _ in found] == names


def test_numbers_are_not_given_again_after_a_deletion(flights: Dataset) -> None:
    flights.commit({"a": b"1"})
    flights.commit({"a": b"2"})
    flights.move_branch("main", "v1")
    flights.delete_version("v2")
    assert flights.commit({"a": b"3"}).number == 3
