"""Contents in the catalog: small files are stored in the transaction of their commit, and are read, checked, copied, collected
and moved to the store like every other."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_registry import Registry
from dataset_registry.content import inline
from dataset_registry.errors import CorruptionError, InputError
from dataset_registry.store import FolderStore
from tests.operations.support import ask, assert_exact, content, objects

SMALL, LARGE = b"x" * inline.LARGEST, b"x" * (inline.LARGEST + 1)
TABLE = pa.table({"id": [1, 2, 3], "name": ["a", None, "c"]})


def forms(registry: Registry) -> dict[str, int]:
    """The number of files of each form."""
    return dict(ask(registry, "SELECT form, count(*) FROM files GROUP BY form"))


def in_catalog(registry: Registry) -> list[int]:
    """The sizes of the contents in the catalog."""
    return sorted(ask(registry, "SELECT length(data) FROM inline_contents"))


def spoil(registry: Registry, data: bytes) -> None:
    """Replace the contents in the catalog."""
    registry.access.catalog.write(
        lambda tx: tx.exec_driver_sql("UPDATE inline_contents SET data = " + _literal(registry, data))
    )


def _literal(registry: Registry, data: bytes) -> str:
    return f"X'{data.hex()}'" if registry.access.catalog.is_sqlite else f"'\\x{data.hex()}'"


def test_small_contents_are_in_the_catalog_and_have_no_object(registry: Registry) -> None:
    dataset = registry.create_dataset("raw/prices")
    dataset.commit({"small": SMALL, "empty": b"", "table": TABLE})
    assert objects(registry) == {}
    assert forms(registry) == {"inline": 3, "parts": 1}
    dataset.commit({"large": LARGE})
    assert list(objects(registry).values()) == [len(LARGE)]
    assert_exact(registry)


def test_contents_in_the_catalog_are_read_by_every_way(registry: Registry, tmp_path: Path) -> None:
    dataset = registry.create_dataset("raw/prices")
    found = dataset.commit({"small": b"some bytes", "table": TABLE})
    assert content(dataset)["small.0"] == b"some bytes"
    assert found.to_arrow("table") == TABLE
    assert found.to_arrow("table", columns=["name"]) == TABLE.select(["name"])
    assert found.scan("table").count_rows() == 3
    assert found.to_duckdb("table").fetchall() == [(1, "a"), (2, None), (3, "c")]
    assert [path.read_bytes() for path in found.paths("small")] == [b"some bytes"]
    (address,) = found.uris("small")
    assert Path(address.removeprefix("file://")).read_bytes() == b"some bytes"
    assert sorted(path.name for path in found.checkout(tmp_path / "out")) == ["small", "table.parquet"]
    with registry.open_file(hashlib.sha256(b"some bytes").hexdigest()) as stream:
        assert stream.read() == b"some bytes"


def test_reads_can_be_verified_first(sqlite_url: str, tmp_path: Path) -> None:
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store"), verify_reads=True) as registry:
        dataset = registry.create_dataset("raw/prices")
        dataset.commit({"table": TABLE})
        assert dataset.version("main").to_arrow() == TABLE


def test_one_transaction_without_a_hold_is_the_commit(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = registry.create_dataset("raw/prices")
    dataset.commit({"a": b"1"})
    write, transactions = registry.access.catalog.write, []

    def counted(*args: object, **options: object) -> object:
        transactions.append(options)
        return write(*args, **options)  # type: ignore[arg-type] # the same

    monkeypatch.setattr(registry.access.catalog, "write", counted)
    monkeypatch.setattr(FolderStore, "put", lambda *_: pytest.fail("an object was stored"))
    dataset.commit({"a": b"2"})
    assert transactions == [{}]
    assert not ask(registry, "SELECT id FROM uploads")


def test_equal_contents_are_stored_once_wherever_they_are(registry: Registry) -> None:
    first, second = registry.create_dataset("a"), registry.create_dataset("b")
    first.commit({"x": b"same"})
    second.commit({"y": b"same", "z": b"same"})
    assert in_catalog(registry) == [4]
    assert registry.file(hashlib.sha256(b"same").hexdigest()).reference_count == 3


def test_more_than_a_commit_stores_in_the_catalog_goes_to_the_store(registry: Registry) -> None:
    dataset = registry.create_dataset("raw/prices")
    dataset.commit({f"{i}": bytes([i]) * inline.LARGEST for i in range(4)})
    assert forms(registry) == {"inline": 4}
    dataset.commit({f"{i}": bytes([i]) * inline.LARGEST for i in range(10, 15)})
    assert forms(registry) == {"inline": 4, "whole": 5}
    dataset.commit({f"n{i}": bytes([100, i]) * 4000 for i in range(30)})
    assert forms(registry) == {"inline": 4, "whole": 5, "ranges": 30, "pack": 1}
    assert registry.verify(deep=True).findings == ()


def test_a_collection_deletes_the_contents_of_deleted_versions(registry: Registry) -> None:
    registry.create_dataset("kept").commit({"a": b"both", "b": b"kept"})
    gone = registry.create_dataset("gone")
    gone.commit({"a": b"both", "c": b"gone alone", "t": TABLE})
    gone.delete()
    plan = registry.collect(older_than=timedelta(0), dry_run=True)
    (part,) = {file.bytes for file in plan.files if file.form == "inline"} - {len(b"gone alone")}
    assert plan.bytes == len(b"gone alone") + part
    done = registry.collect(older_than=timedelta(0))
    assert (done.files, done.bytes, done.objects) == (3, plan.bytes, 0)
    assert in_catalog(registry) == [4, 4]
    assert registry.verify(deep=True).findings == ()


def test_a_changed_content_is_found_and_never_given_out(registry: Registry) -> None:
    dataset = registry.create_dataset("raw/prices")
    dataset.commit({"data": b"true"})
    spoil(registry, b"fake")
    with pytest.raises(CorruptionError, match="does not match its hash"):
        dataset.version("main").open("data")
    with pytest.raises(CorruptionError):
        dataset.version("main").paths()
    assert registry.verify().findings == ()
    found = registry.verify(deep=True, repair=True)
    assert [finding.kind for finding in found.findings] == ["content"]
    with pytest.raises(CorruptionError, match="quarantine"):
        dataset.version("main").open("data")


@pytest.mark.parametrize("statement", ["DELETE FROM inline_contents", "UPDATE files SET form = 'whole'"])
def test_contents_that_are_not_where_they_belong_are_found(statement: str, registry: Registry) -> None:
    registry.create_dataset("raw/prices").commit({"data": b"true"})
    registry.access.catalog.write(lambda tx: tx.exec_driver_sql(statement))
    kinds = {finding.kind for finding in registry.verify().findings}
    assert "form" in kinds


def test_a_content_in_quarantine_heals_when_it_is_committed_again(registry: Registry) -> None:
    dataset = registry.create_dataset("raw/prices")
    dataset.commit({"data": b"true"})
    spoil(registry, b"fake")
    registry.verify(deep=True, repair=True)
    registry.create_dataset("other").commit({"data": b"true"})
    assert dataset.version("main").open("data").read() == b"true"
    assert forms(registry) == {"whole": 1}
    assert in_catalog(registry) == []
    assert registry.verify(deep=True).findings == ()


def test_a_content_that_was_restored_leaves_its_quarantine(registry: Registry) -> None:
    dataset = registry.create_dataset("raw/prices")
    dataset.commit({"data": b"true"})
    spoil(registry, b"fake")
    registry.verify(deep=True, repair=True)
    spoil(registry, b"true")
    assert [finding.repaired for finding in registry.verify(repair=True).findings] == [True]
    assert dataset.version("main").open("data").read() == b"true"


def test_a_collection_moves_many_contents_into_a_pack(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = registry.create_dataset("raw/prices")
    for i in range(3):
        dataset.commit({"data": b"%d" % i * 100, "empty": b"", "t": TABLE})
    version, reader = dataset.version("v1"), dataset.version("v1").open("data")
    registry.collect()
    assert forms(registry)["inline"] == 5
    monkeypatch.setattr(inline, "MANY", 200)
    registry.collect()
    assert forms(registry) == {"pack": 1, "parts": 1, "ranges": 5}
    assert in_catalog(registry) == []
    assert [content(dataset, f"v{i}")["data.0"] for i in (1, 2, 3)] == [b"0" * 100, b"1" * 100, b"2" * 100]
    assert version.to_arrow("t") == TABLE
    assert reader.read() == b"0" * 100
    assert registry.verify(deep=True).findings == ()
    dataset.commit({"data": b"0" * 100, "more": b"1"})
    assert forms(registry)["inline"] == 1


def test_a_registry_that_stores_none_in_the_catalog_moves_all_of_them(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store")) as registry:
        registry.create_dataset("raw/prices").commit({"data": b"1"})
    monkeypatch.setenv("DATASET_REGISTRY_INLINE_BYTES", "0")
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store")) as registry:
        dataset = registry.dataset("raw/prices")
        dataset.commit({"data": b"2"})
        assert forms(registry) == {"inline": 1, "whole": 1}
        registry.collect()
        assert forms(registry) == {"pack": 1, "ranges": 1, "whole": 1}
        assert content(dataset, "v1") == {"data.0": b"1"}


def test_a_content_in_quarantine_stays_in_the_catalog(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = registry.create_dataset("raw/prices")
    dataset.commit({"data": b"true"})
    spoil(registry, b"fake")
    registry.verify(deep=True, repair=True)
    monkeypatch.setattr(inline, "MANY", 0)
    dataset.commit({"other": b"1"})
    registry.collect()
    assert forms(registry) == {"inline": 1, "pack": 1, "ranges": 1}


@pytest.mark.parametrize("text", ["-1", "many", "1e3", str(inline.MOST + 1), "٣"])
def test_a_size_that_is_none_is_refused(
    text: str, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASET_REGISTRY_INLINE_BYTES", text)
    with pytest.raises(InputError, match="no number of bytes from 0 to 65536"):
        Registry.open(catalog=sqlite_url, store=str(tmp_path / "store"))


def test_a_content_that_was_collected_during_the_commit_is_stored_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = registry.create_dataset("raw/prices")
    other = registry.create_dataset("other")
    other.commit({"data": LARGE, "small": b"known"})
    other.delete()
    real, calls = inline.chosen, []

    def collected_when_it_was_found(*args: object) -> dict[str, bytes]:
        found = real(*args)  # type: ignore[arg-type] # the same
        calls.append(found)
        if len(calls) == 2:  # after the look-up, before the transaction
            registry.collect(older_than=timedelta(0))
        return found

    monkeypatch.setattr(inline, "chosen", collected_when_it_was_found)
    dataset.commit({"data": LARGE, "small": b"known", "new": b"new"})
    assert len(calls) == 3
    assert content(dataset) == {"data.0": LARGE, "small.0": b"known", "new.0": b"new"}
    assert registry.verify(deep=True).findings == ()


def test_a_copy_has_them_in_its_catalog(registry: Registry, beside: Callable[[], Registry]) -> None:
    dataset = registry.create_dataset("raw/prices")
    dataset.commit({"data": b"1", "large": LARGE, "t": TABLE})
    target = beside()
    done = registry.copy_to(target)
    assert (done.files, forms(target)) == (3, {"inline": 2, "parts": 1, "whole": 1})
    assert content(target.dataset("raw/prices")) == content(dataset)
    assert target.verify(deep=True).findings == ()
    assert registry.copy_to(target).files == 0


def test_a_changed_content_is_not_copied(registry: Registry, beside: Callable[[], Registry]) -> None:
    registry.create_dataset("raw/prices").commit({"data": b"true"})
    spoil(registry, b"fake")
    with pytest.raises(CorruptionError):
        registry.copy_to(beside())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    commits=st.lists(st.dictionaries(st.sampled_from("abc"), st.binary(max_size=3), min_size=1), min_size=1, max_size=5)
)
def test_any_contents_are_read_as_they_were_committed(embedded: Registry, commits: list[dict[str, bytes]]) -> None:
    name = f"d{len(embedded.datasets())}"
    dataset, expected = embedded.create_dataset(name), {}
    for values in commits:
        dataset.commit(dict(values))
        expected |= {f"{key}.0": value for key, value in values.items()}
        assert content(dataset) == expected
