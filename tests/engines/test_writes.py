"""One version of a table, written by several processes."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.engines.scans import TableScan
from dataset_registry.engines.writes import Piece, TableWrite
from dataset_registry.errors import ConflictError, InputError, NotFound
from dataset_registry.tabular import chunking
from tests.conftest import _catalog
from tests.contracts.scenarios import s3_store
from tests.serving import Served
from tests.tabular.test_chunking import table_of


@pytest.fixture(autouse=True)
def _fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few dozen rows."""
    monkeypatch.setattr(chunking, "LEAST_ROWS", 64)
    monkeypatch.setattr(chunking, "PART_BYTES", 16 << 10)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def dataset(registry: Registry) -> Dataset:
    return registry.create_dataset("raw/flights")


def begun(tmp_path: Path, address: str = "raw/flights", **options: Any) -> TableWrite:
    return TableWrite.begin(address, options={"location": str(tmp_path / "registry")}, **options)


def split(table: pa.Table, ends: list[int]) -> list[pa.Table]:
    return [table.slice(a, b - a) for a, b in zip([0, *ends], [*ends, table.num_rows], strict=True)]


@pytest.mark.parametrize("key", [(), ("id",)])
@pytest.mark.parametrize("ends", [[], [2_500], [1, 2, 4_999], [1_000, 1_010, 1_500, 3_000], [0, 700, 700, 5_000]])
def test_pieces_are_one_version_with_the_parts_of_the_whole_table(
    ends: list[int], key: tuple[str, ...], dataset: Dataset, registry: Registry, tmp_path: Path
) -> None:
    table = table_of(5_000)
    write = begun(tmp_path, key=key, head=table)
    pieces = [pickle.loads(pickle.dumps(write)).write(piece) for piece in split(table, ends)]
    version = write.commit(pieces)
    assert version.to_arrow().equals(table)
    assert version.number == 1
    whole = registry.create_dataset("raw/whole").commit({"data": table}, key=key)
    assert version.digest == whole.digest
    found, wanted = (v.schema.tables()["data"] for v in (version, whole))
    assert (found.rows, found.statistics, found.cut, found.key) == (
        wanted.rows,
        wanted.statistics,
        wanted.cut,
        wanted.key,
    )
    assert [d.name for d in registry.datasets()] == ["raw/flights", "raw/whole"]
    assert registry.verify().findings == ()


def test_pieces_are_one_version_over_rest(served: Served) -> None:
    served.owner.create_user("alice", role="administrator")
    options = {"location": served.url, "token": served.token("alice")}
    table = table_of(5_000)
    write = TableWrite.begin("raw/flights", key="id", options=options)
    pieces = [pickle.loads(pickle.dumps(write)).write(piece) for piece in split(table, [1_000, 1_010, 3_000])]
    version = write.commit(pieces)
    assert version.to_arrow().equals(table)
    whole = served.owner.create_dataset("raw/whole").commit({"data": table}, key="id")
    found = served.owner.dataset("raw/flights").version()
    assert found.digest == whole.digest
    ours, theirs = (v.schema.tables()["data"] for v in (found, whole))
    assert (ours.rows, ours.cut, ours.key) == (theirs.rows, theirs.cut, theirs.key)
    more = TableWrite.begin("raw/flights", mode="append", options=options)
    more.commit([more.write(table_of(100, seed=3))])
    assert served.owner.dataset("raw/flights").version().to_arrow().num_rows == 5_100
    assert [d.name for d in served.owner.datasets()] == ["raw/flights", "raw/whole"]
    assert served.owner.verify().findings == ()


def test_pieces_are_one_version_on_postgresql_and_s3(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    catalog = _catalog(request, "postgresql", tmp_path)
    store = s3_store(request.getfixturevalue("s3_server"), tmp_path)
    table = table_of(5_000)
    write = TableWrite.begin("raw/flights", key="id", options={"catalog": catalog, "store": store})
    pieces = [write.write(piece) for piece in split(table, [1_000, 1_010, 3_000])]
    version = write.commit(pieces)
    assert version.to_arrow().equals(table)
    with Registry.open(catalog=catalog, store=store) as registry:
        assert registry.create_dataset("raw/whole").commit({"data": table}, key="id").digest == version.digest
        assert [d.name for d in registry.datasets()] == ["raw/flights", "raw/whole"]
        scan = TableScan.of("raw/flights", options={"catalog": catalog, "store": store})
        assert pa.concat_tables(scan.read([part.number]) for part in scan.parts()).equals(table)


def test_the_same_pieces_are_split_by_the_rule_of_each_write(registry: Registry, tmp_path: Path) -> None:
    table = table_of(900)
    digests = []
    for _ in range(3):  # the first as a new table, then as that table is split
        write = begun(tmp_path, key="id")
        digests.append(write.commit([write.write(piece) for piece in split(table, [50, 400])]).digest)
    assert set(digests) == {registry.create_dataset("raw/whole").commit({"data": table}, key="id").digest}


def test_a_second_write_shares_the_parts_of_the_first(dataset: Dataset, tmp_path: Path) -> None:
    table = table_of(5_000)
    dataset.commit({"data": table}, key="id")
    changed = pa.concat_tables([table.slice(0, 2_000), table_of(10, seed=4), table.slice(2_000)])
    write = begun(tmp_path, message="ten more")
    version = write.commit([write.write(piece) for piece in split(changed, [1_000, 3_000])])
    assert (version.number, version.message) == (2, "ten more")
    assert dataset.diff("v1", "v2").parts["data"].added <= 3
    assert version.digest == dataset.commit({"data": changed}, branch="main").digest


def test_rows_are_appended(dataset: Dataset, tmp_path: Path) -> None:
    table = table_of(4_000)
    first = begun(tmp_path, mode="append")
    first.commit([first.write(table.slice(0, 1_000))])
    second = begun(tmp_path, mode="append")
    version = second.commit([second.write(table.slice(1_000, 1_500)), second.write(table.slice(2_500))])
    assert version.to_arrow().equals(table)
    assert dataset.diff("v1", "v2").parts["data"].removed <= 2


def test_a_task_that_fails_or_is_repeated_adds_nothing(dataset: Dataset, registry: Registry, tmp_path: Path) -> None:
    table = table_of(3_000)
    write = begun(tmp_path)

    def failing() -> Iterator[pa.RecordBatch]:
        yield from table.slice(0, 500).to_batches()
        raise RuntimeError("the machine is gone")

    with pytest.raises(RuntimeError, match="gone"):
        write.write(failing())
    write.write(table.slice(0, 1_000))
    pieces = [write.write(table.slice(0, 1_000)), write.write(table.slice(1_000))]
    assert write.commit(pieces).to_arrow().equals(table)
    assert len(registry.datasets()) == 1
    assert registry.verify().findings == ()


def test_nothing_changes_before_the_commit(dataset: Dataset, registry: Registry, tmp_path: Path) -> None:
    dataset.commit({"data": table_of(100)})
    write = begun(tmp_path)
    piece = write.write(table_of(200))
    assert dataset.version().number == 1
    with pytest.raises(NotFound, match="has no component"):
        write.commit([piece, Piece("0" * 32, 5)])
    assert dataset.version().number == 1
    write.abort()
    write.abort()
    assert [d.name for d in registry.datasets()] == ["raw/flights"]


def test_what_cannot_be_written_to_is_refused_at_the_start(
    dataset: Dataset, registry: Registry, tmp_path: Path
) -> None:
    dataset.commit({"data": table_of(10)})
    for address in ("raw/flights@dev", "raw/flights@v1", "raw/flights@main~1"):
        with pytest.raises(InputError):
            begun(tmp_path, address)
    assert [d.name for d in registry.datasets()] == ["raw/flights"]


def test_after_a_conflict_it_can_be_tried_again(dataset: Dataset, registry: Registry, tmp_path: Path) -> None:
    dataset.commit({"data": table_of(10)})
    write = begun(tmp_path)
    piece = write.write(table_of(200))
    real = TableWrite.add_to

    def overtaken(self: TableWrite, *given: Any) -> None:
        real(self, *given)
        dataset.commit({"data": table_of(20)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TableWrite, "add_to", overtaken)
        with pytest.raises(ConflictError):
            write.commit([piece])
    assert write.commit([piece]).to_arrow().num_rows == 200
    assert [d.name for d in registry.datasets()] == ["raw/flights"]


def test_a_small_new_table_is_split_as_one_process_splits_it(registry: Registry, tmp_path: Path) -> None:
    table = table_of(600)
    write = begun(tmp_path, key="id")
    version = write.commit([write.write(piece) for piece in split(table, [100, 350])])
    assert version.digest == registry.create_dataset("raw/whole").commit({"data": table}, key="id").digest


def test_a_dataset_that_does_not_exist_is_created_by_the_commit(registry: Registry, tmp_path: Path) -> None:
    write = begun(tmp_path, "raw/new@main")
    assert [d.name for d in registry.datasets()] == [write.staging]
    assert "raw/new@main that is not finished" in str(registry.datasets()[0].description)
    assert write.commit([write.write(table_of(10))]).dataset == "raw/new"


def test_empty_pieces_count_only_where_there_is_no_other(dataset: Dataset, tmp_path: Path) -> None:
    write = begun(tmp_path)
    empty, full = write.write(table_of(0)), write.write(iter(table_of(10).to_batches()))
    assert write.commit([empty, full, empty]).to_arrow().equals(table_of(10))
    write = begun(tmp_path)
    assert write.commit([write.write(iter([]), table_of(0).schema)]).to_arrow().num_rows == 0
    write = begun(tmp_path)
    with pytest.raises(InputError, match="No task wrote a piece"):
        write.commit([])
    with pytest.raises(InputError, match="needs a schema"):
        begun(tmp_path).write(iter([]))
    with pytest.raises(InputError, match="Invalid mode 'upsert'"):
        begun(tmp_path, mode="upsert")


def test_without_a_key_and_a_head_all_rows_are_there_too(dataset: Dataset, tmp_path: Path) -> None:
    table = table_of(3_000)
    write = begun(tmp_path)
    version = write.commit([write.write(piece) for piece in split(table, [1_000, 2_000])])
    assert version.to_arrow().equals(table)


def test_pieces_of_other_types_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    write = begun(tmp_path)
    pieces = [write.write(pa.table({"id": [1]})), write.write(pa.table({"id": ["a"]}))]
    with pytest.raises(InputError, match=r"cannot be one table: their columns differ .*int64.*string"):
        write.commit(pieces)


def test_tables_of_versions_are_put_together_without_their_bytes(dataset: Dataset, registry: Registry) -> None:
    first = dataset.commit({"data": table_of(2_000)})
    other = registry.create_dataset("raw/other").commit({"x": table_of(2_000, seed=3)})
    with dataset.draft() as draft:
        draft.concatenate("both", [(first, "data"), (other, "x"), (first, "data")], key="id")
    expected = np.concatenate([np.arange(2_000)] * 3)
    assert draft.version.to_arrow("both")["id"].to_numpy().tolist() == expected.tolist()
    assert draft.version.schema.tables()["both"].key == ("id",)
    with dataset.draft() as draft, pytest.raises(InputError, match="is not stored as a table: its format is binary"):
        draft.add("text", b"hello")
        text = registry.create_dataset("raw/text").commit({"data": b"hello"})
        draft.concatenate("x", [(text, "data")])
