"""Several components in one version."""

import os
from pathlib import Path

import pyarrow as pa

from dataset_registry import Dataset, Registry
from dataset_registry.errors import (
    InputError,
    InvalidName,
    NotFound,
    UnsupportedType,
)
from tests.contracts.scenarios import (
    error_of,
    everywhere,
    keys,
    numbers,
    read,
    sha256,
)


def test_a_version_has_components_with_names_indexes_types_and_metadata(flights: Dataset) -> None:
    facts = {"rows": 3, "nested": {"a": [1, 2.5, None, True]}, "größe": "100 %", "big": 2**53 + 1}
    with flights.draft(message="All kinds") as draft:
        draft.add("part", b"b", index=1)
        draft.add("part", b"a", index=0)
        draft.add("about", b"{}", type="metadata", format="json", metadata=facts)
        draft.add("shape", b"s", type="schema")
        draft.add("patch", b"o", type="overlay", index=7)
    expected = [
        *[("about", 0, "metadata"), ("part", 0, "data"), ("part", 1, "data"), ("patch", 7, "overlay")],
        ("shape", 0, "schema"),
    ]
    version = flights.version()
    assert keys(version) == keys(draft.version) == expected
    assert [(c.name, c.index, c.type) for c in draft.result.written] == expected
    assert draft.result.written == version.components
    assert [dict(c.metadata) for c in version.components] == [facts, {}, {}, {}, {}]
    assert [c.size for c in version.components] == [2, 1, 1, 1, 1]
    assert [c.index for c in version.components_named(["part"])] == [0, 1]
    assert version.components_named([]) == version.components_named(["other"]) == ()
    assert version.record.overlay_file_id == version.components[3].file_id
    assert (read(version, "part", 1), read(version, "patch", 7)) == (b"b", b"o")
    assert isinstance(error_of(lambda: read(version, "part", 2)), NotFound)
    assert isinstance(error_of(lambda: read(version)), InputError)


def test_what_a_commit_does_not_name_carries_over(flights: Dataset) -> None:
    flights.commit({"a": b"1", "b": b"2", "list": [b"x", b"y", b"z"]})
    second = flights.commit({"b": b"3"})
    assert [(c.name, c.index, read(second, c.name, c.index)) for c in second.components] == [
        *[("a", 0, b"1"), ("b", 0, b"3")],
        *[("list", 0, b"x"), ("list", 1, b"y"), ("list", 2, b"z")],
    ]
    third = flights.commit({"list": [b"only"]})
    assert keys(third) == [("a", 0, "data"), ("b", 0, "data"), ("list", 0, "data")]
    with flights.draft() as draft:
        draft.clear()
        draft.add("fresh", b"start")
    assert keys(draft.version) == [("fresh", 0, "data")]


def test_components_are_removed_whole_or_by_index(flights: Dataset) -> None:
    flights.commit({"list": [b"x", b"y", b"z"], "a": b"1"})
    with flights.draft() as draft:
        draft.remove("list", index=1)
    assert [c.index for c in draft.version.components_named(["list"])] == [0, 2]
    with flights.draft() as draft:
        draft.add("new", b"1")
        draft.remove("new")
        draft.remove("list")
    assert keys(draft.version) == [("a", 0, "data")]

    def remove(name: str, index: int | None = None) -> None:
        with flights.draft() as draft:
            draft.remove(name, index=index)

    for call in (lambda: remove("list"), lambda: remove("a", 3)):
        error = error_of(call)
        assert (type(error), error.fields["component"]) == (NotFound, "list" if "list" in str(error) else "a")
    assert flights.version().number == 3


@everywhere
def test_content_equal_to_the_head_makes_no_version(flights: Dataset) -> None:
    table = pa.table({"a": [1, 2]})
    with flights.draft() as draft:
        draft.add("data", table)
        draft.add("note", b"n", metadata={"k": 1})
    assert (draft.result.unchanged, draft.result.new_bytes) == (False, draft.result.total_bytes)
    first = draft.version
    with flights.draft(message="Again") as draft:
        draft.add("note", b"n", metadata={"k": 1})
        draft.add("data", table)
    assert (draft.result.unchanged, draft.result.new_bytes) == (True, 0)
    assert draft.result.total_bytes > 0
    assert draft.version == first
    assert draft.version.message is None
    assert [(c.name, c.index) for c in draft.result.written] == [("data", 0), ("note", 0)]
    assert set(draft.result.schemas) == {("data", 0)}
    with flights.draft() as draft:
        draft.add("note", b"n", metadata={"k": 2})
    assert draft.version.number == 2, "metadata is content"


_PRINTABLE = ["a/b/c", "größe.csv", "100%", "%2F..%2f", "with space", "a?b=c&d#e", "日本語", "[x];{y}|'\"", "..", "."]
_PRINTABLE += ["//", "+", "a\\b"]


@everywhere
def test_a_component_may_have_any_printable_name(flights: Dataset, tmp_path: Path) -> None:
    flights.commit({name: name.encode() for name in _PRINTABLE} | {"other": b"else"})
    version = flights.version()
    assert [c.name for c in version.components] == sorted([*_PRINTABLE, "other"])
    for number, name in enumerate(_PRINTABLE):
        assert [c.name for c in version.components_named([name])] == [name]
        assert read(version, name) == name.encode()
        (path,) = version.checkout(tmp_path / f"{number}", component=name)
        assert path.read_bytes() == name.encode()
        assert tmp_path / f"{number}" in path.parents
    assert len(version.checkout(tmp_path / "all")) == len(_PRINTABLE) + 1
    everything = [path for path in (tmp_path / "all").rglob("*") if path.is_file()]
    assert len(everything) == len(_PRINTABLE) + 1
    with flights.draft() as draft:
        for name in _PRINTABLE:
            draft.remove(name)
    assert keys(draft.version) == [("other", 0, "data")]


def test_names_that_could_be_taken_for_another_are_refused(flights: Dataset, any_registry: Registry) -> None:
    flights.commit({"data": b"1"})
    for call in (
        lambda: flights.commit({" x": b""}),
        lambda: flights.commit({"a\nb": b""}),
        lambda: flights.commit({"x" * 513: b""}),
        lambda: flights.create_branch("v7"),
        lambda: flights.create_branch("a b"),
        lambda: flights.create_tag("a..b"),
        lambda: any_registry.create_dataset("a//b"),
        lambda: any_registry.create_dataset("../x"),
        lambda: flights.rename("has space"),
    ):
        error = error_of(call)
        assert (type(error), error.code) == (InvalidName, "invalid_name"), error


@everywhere
def test_empty_files_and_tables_without_rows_are_kept_as_they_are(flights: Dataset, any_registry: Registry) -> None:
    empty = pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.string())})
    version = flights.commit({"nothing": b"", "data": empty})
    assert read(version, "nothing") == b""
    assert version.components_named(["nothing"])[0].size == 0
    assert version.paths("nothing")[0].read_bytes() == b""
    with any_registry.open_file(sha256(b"")) as stream:
        assert stream.read() == b""
    assert version.to_arrow().equals(empty)
    assert version.schema.components["data"].tables[0].rows == 0
    assert version.to_pandas().shape == (0, 2)
    assert version.lazy().collect().height == 0
    assert list(version.scan().to_batches()) == [] or version.scan().count_rows() == 0


@everywhere
def test_five_megabytes_arrive_whole_and_are_stored_once(
    flights: Dataset, any_registry: Registry, tmp_path: Path
) -> None:
    data = os.urandom(5 << 20)
    (tmp_path / "large.bin").write_bytes(data)
    with flights.draft() as draft:
        draft.add("large", tmp_path / "large.bin")
    assert (draft.result.new_bytes, draft.version.components[0].content_hash) == (len(data), sha256(data))
    with flights.draft() as draft:
        draft.add("copy", data)
    assert draft.result.new_bytes == 0
    with draft.version.open("copy") as stream:
        stream.seek(4 << 20)
        assert stream.read(100) == data[4 << 20 :][:100]
        stream.seek(-10, os.SEEK_END)
        assert stream.read() == data[-10:]
        stream.seek(0)
        assert stream.read() == data
    assert draft.version.paths("large")[0].read_bytes() == data
    assert any_registry.file(sha256(data)).reference_count == 3


def test_three_hundred_components_make_one_version(flights: Dataset) -> None:
    with flights.draft() as draft:
        for number in range(300):
            draft.add(f"part {number:03}", b"%d" % number, metadata={"n": number})
    version = flights.version()
    assert (version.component_count, len(version.components), draft.result.total_bytes) == (300, 300, 790)
    assert [c.metadata["n"] for c in version.components] == list(range(300))
    some = [f"part {number:03}" for number in range(0, 300, 3)]
    assert [c.name for c in version.components_named(some)] == some
    assert read(version, "part 217") == b"217"
    changed = flights.commit({"part 100": b"changed"})
    assert changed.component_count == 300
    assert flights.diff("v1", "v2").components.changed == (("part 100", 0),)


def test_content_comes_from_paths_bytes_and_streams(flights: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a,b\n1,2\n")
    with path.open("rb") as stream:
        version = flights.commit({"path": path, "text": str(path), "bytes": bytearray(b"x"), "stream": stream})
    assert {c.name: c.format for c in version.components} == {
        "bytes": "binary",
        "path": "csv",
        "stream": "binary",
        "text": "csv",
    }
    assert version.component_count == 4
    assert read(version, "stream") == read(version, "path") == path.read_bytes()
    for value, kind in (
        (object(), UnsupportedType),
        (None, UnsupportedType),
        ({"a": 1}, UnsupportedType),
        (tmp_path / "not there", InputError),
        (tmp_path, InputError),
    ):
        assert type(error_of(lambda value=value: flights.commit({"data": value}))) is kind
    assert numbers(flights.tree()) == [1]
