"""Drafts."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import (
    CommitConflict,
    InputError,
    InvalidName,
    NotFound,
    Tainted,
    UnreadableFile,
)
from dataset_registry.model.partitions import component_of
from dataset_registry.model.records import Provenance
from tests.contracts.scenarios import (
    Way,
    error_of,
    everywhere,
    heads,
    keys,
    read,
    sha256,
)


@everywhere
def test_an_exception_leaves_nothing_behind(flights: Dataset, any_registry: Registry) -> None:
    data = os.urandom(2 << 20)
    with pytest.raises(ZeroDivisionError), flights.draft() as draft:
        draft.add("large", data)
        draft.add("data", pa.table({"a": [1]}))
        raise ZeroDivisionError
    assert flights.tree() == flights.branches() == []
    assert isinstance(error_of(lambda: any_registry.file(sha256(data))), NotFound)
    assert isinstance(error_of(lambda: draft.result), InputError)


def test_a_second_try_of_a_draft_starts_from_nothing(flights: Dataset) -> None:
    draft = flights.draft()
    with pytest.raises(ZeroDivisionError), draft:
        draft.add("first", b"try")
        raise ZeroDivisionError
    with draft:
        draft.add("second", b"try")
    assert keys(draft.version) == [("second", 0, "data")]


def test_a_draft_is_committed_once(flights: Dataset) -> None:
    with flights.draft() as draft:
        draft.add("data", b"1")
    assert type(error_of(draft.__enter__)) is InputError


def test_a_dataset_is_made_with_its_first_version_or_not_at_all(any_registry: Registry, prefix: str) -> None:
    name = f"{prefix}made/on/commit"
    with pytest.raises(ZeroDivisionError), any_registry.draft(name) as draft:
        draft.add("data", b"1")
        raise ZeroDivisionError

    def commit_nonsense() -> None:
        with any_registry.draft(name) as draft:
            draft.add("data", b"not a table", format="parquet")

    assert type(error_of(commit_nonsense)) is UnreadableFile
    assert isinstance(error_of(lambda: any_registry.dataset(name)), NotFound)
    with any_registry.draft(name, "dev", description="At last", message="First") as draft:
        draft.add("data", b"1")
    assert any_registry.dataset(name).description == "At last"
    assert heads(any_registry.dataset(name)) == {"dev": 1}
    with any_registry.draft(name, "dev") as draft:
        draft.add("data", b"2")
    assert draft.version.parents == (1,)


def test_a_component_that_changed_since_the_draft_began_is_a_conflict(flights: Dataset, way: Way) -> None:
    other = way.user("admin").dataset(flights.name)
    flights.commit({"a": b"1", "b": b"1"})

    def late(**options: object) -> object:
        with flights.draft(**options) as draft:
            other.commit({"a": os.urandom(8)})
            draft.add("a", b"mine")
        return draft.version

    error = error_of(late)
    assert (type(error), error.code) == (CommitConflict, "commit_conflict")
    assert (error.fields["components"], error.fields["branch"], error.fields["head"]) == (["a"], "main", 2)
    assert late(overwrite=True).parents == (3,)
    with flights.draft() as draft:
        other.commit({"b": b"theirs"})
        draft.add("a", b"ours")
    assert (read(draft.version, "a"), read(draft.version, "b")) == (b"ours", b"theirs")


def test_a_branch_that_a_dataset_lacks_starts_from_the_fallback(flights: Dataset) -> None:
    flights.commit({"a": b"1", "b": b"1"})
    made = flights.commit({"a": b"2"}, branch="run", fallback="main")
    assert (made.parents, keys(made)) == ((1,), [("a", 0, "data"), ("b", 0, "data")])
    assert heads(flights) == {"main": 1, "run": 2}
    same = flights.commit({"a": b"1"}, branch="other", fallback="main")
    assert same.number == 1
    assert heads(flights)["other"] == 1
    error = error_of(lambda: flights.commit({"a": b"3"}, branch="nowhere"))
    assert (type(error), error.fields["branch"]) == (NotFound, "nowhere")


def test_a_draft_takes_changes_inside_its_block_only_and_needs_some(flights: Dataset) -> None:
    draft = flights.draft()
    for call in (lambda: draft.add("a", b"1"), lambda: draft.result, lambda: draft.version):
        assert type(error_of(call)) is InputError

    def commit_nothing() -> None:
        with flights.draft():
            pass

    assert type(error_of(commit_nothing)) is InputError
    with draft:
        for wrong in (
            lambda: draft.add("a", b"", index=-1),
            lambda: draft.add("a", b"", type="nonsense"),
            lambda: draft.add("a", b"", format="nonsense"),
            lambda: draft.add("a", b"", read={"encoding": "latin-1"}),
            lambda: draft.add("a", b"", metadata={"a": object()}),
            lambda: draft.replace("a", []),
        ):
            assert type(error_of(wrong)) is InputError
        draft.add("good", b"1")
    assert keys(draft.version) == [("good", 0, "data")]


def test_a_partition_loses_what_it_is_not_given_again_and_no_other_does(flights: Dataset) -> None:
    def write(key: str, **parts: bytes) -> None:
        with flights.draft(overwrite=True) as draft:
            draft.clear_partition(key)
            for name, value in parts.items():
                component, facts = component_of(key, name)
                draft.add(component, value, metadata=facts)

    write("2024/01", a=b"1", b=b"2")
    write("2024/02", a=b"3")
    write("2024/01", c=b"4")
    assert {c.name: c.metadata["partition"] for c in flights.version().components} == {
        "2024/01//c": "2024/01",
        "2024/02//a": "2024/02",
    }
    error = error_of(lambda: flights.draft().clear_partition("a//b"))
    assert type(error) is InvalidName


# --- content of other versions -------------------------------------------------------------------------------------


@everywhere
def test_a_component_of_an_earlier_version_is_restored_without_its_bytes(flights: Dataset, tmp_path: Path) -> None:
    csv = tmp_path / "notes.csv"
    csv.write_text("a;b\n1;x\n")
    table = pa.table({"id": range(5000), "kind": pa.array(["a", "b"] * 2500).dictionary_encode()})
    with flights.draft() as draft:
        draft.add("data", table, key="id", metadata={"origin": "x"})
        draft.add("notes", csv, read={"delimiter": ";"})
        draft.add("raw", b"bytes")
    first = draft.version
    flights.commit({"data": table.slice(7), "notes": b"other", "raw": b"others"})
    with flights.draft() as draft:
        for name in ("data", "notes", "raw"):
            draft.restore(first, name)
    assert draft.version.digest == first.digest
    assert draft.version.number == first.number + 2
    assert draft.result.new_bytes == 0
    assert draft.version.to_arrow("data").equals(first.to_arrow("data"))
    assert draft.version.to_arrow("notes").to_pylist() == [{"a": 1, "b": "x"}]
    assert [c.metadata for c in draft.version.components] == [c.metadata for c in first.components]
    assert draft.version.schema == first.schema


@everywhere
def test_what_cannot_be_restored_is_refused(flights: Dataset, any_registry: Registry) -> None:
    first = flights.commit({"data": pa.table({"n": [1]})})
    other = any_registry.create_dataset("raw/other").commit({"data": pa.table({"n": [1]})})
    with flights.draft() as draft:
        with pytest.raises(InputError, match="version of another dataset"):
            draft.restore(other, "data")
        with pytest.raises(NotFound, match="no component 'rows'"):
            draft.restore(first, "rows")
        draft.add("data", pa.table({"n": [2]}))
        with pytest.raises(InputError, match="already sets"):
            draft.restore(first, "data")


@everywhere
def test_productions_are_found_by_their_memo_digest_newest_first(flights: Dataset) -> None:
    for number, digest in enumerate(("a" * 64, "b" * 64, "a" * 64)):
        provenance = Provenance(run_id=f"run-{number}", memo_digest=digest)
        flights.commit({"data": pa.table({"n": [number]})}, provenance=provenance)
    found = flights.memoized("a" * 64)
    assert [(p.version, p.provenance.run_id) for p in found] == [(3, "run-2"), (1, "run-0")]
    assert [p.version for p in flights.memoized("a" * 64, limit=1)] == [3]
    assert flights.memoized("c" * 64) == []


@everywhere
def test_tainted_content_is_not_restored_to_a_protected_branch(flights: Dataset, any_registry: Registry) -> None:
    flights.commit({"data": pa.table({"n": [0]})})
    flights.create_branch("exp")
    wrong = flights.commit({"data": pa.table({"n": [666]})}, branch="exp")
    wrong.record_check("rows", passed=False, blocking=True)
    any_registry.protect(flights.name, "main")
    with pytest.raises(Tainted), flights.draft() as draft:
        draft.restore(wrong, "data")
    assert flights.version().to_arrow()["n"].to_pylist() == [0]
    with flights.draft("other", fallback="main") as draft:
        draft.restore(wrong, "data")
    assert draft.version.taints


@everywhere
def test_a_version_of_another_registry_is_not_restored(flights: Dataset, tmp_path: Path) -> None:
    flights.commit({"data": pa.table({"n": [1]})})
    with Registry.open(tmp_path / "elsewhere") as other:
        for name in ("raw/a", "raw/b", flights.name):
            foreign = other.create_dataset(name).commit({"data": pa.table({"n": [2]})})
            with pytest.raises((InputError, NotFound)), flights.draft() as draft:
                draft.restore(foreign, "data")
    assert flights.version().number == 1
