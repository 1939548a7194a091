"""Rows that are appended, upserted and deleted: only the parts in which they fall are new."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import InputError, NotFound
from tests.contracts.scenarios import error_of, everywhere

MANY = 120_000


def numbered(count: int = MANY) -> pa.Table:
    """A table that is sorted by its key, in several parts."""
    random = np.random.default_rng(7)
    return pa.table({"id": np.arange(count) * 2, **{name: random.random(count) for name in ("a", "b", "c", "d", "e")}})


def whole(registry: Registry, prefix: str, base: pa.Table, table: pa.Table) -> str | None:
    """The content hash of a table that is committed as a whole, as the second version of its dataset."""
    dataset = registry.create_dataset(f"{prefix}whole-{table.num_rows}")
    dataset.commit({"data": base}, key="id")
    return dataset.commit({"data": table}).components[0].content_hash


@everywhere
def test_rows_are_upserted_in_order_and_their_parts_alone_are_new(
    any_registry: Registry, flights: Dataset, prefix: str
) -> None:
    base = numbered()
    flights.commit({"data": base}, key="id")
    rows = pa.table({"id": [10, 11], **{name: [1.0, 2.0] for name in "abcde"}})
    version = flights.upsert(rows, message="two rows")
    table = version.to_arrow()
    assert table.num_rows == MANY + 1
    assert table.slice(5, 2).to_pydict() == rows.to_pydict()
    assert table.slice(7).equals(base.slice(6))
    parts = flights.diff("main~1", "main").parts["data"]
    assert parts.added == 1
    assert parts.shared >= 2
    assert version.components[0].content_hash == whole(any_registry, prefix, base, table)
    assert version.message == "two rows"
    assert version.schema.tables()["data"].rows == MANY + 1
    assert flights.upsert(rows) == version, "nothing changed"


@everywhere
def test_rows_are_appended_and_deleted(any_registry: Registry, flights: Dataset, prefix: str) -> None:
    base = numbered()
    flights.commit({"data": base}, key="id")
    version = flights.append(pa.table({"id": [-1], **{name: [0.5] for name in "abcde"}}))
    assert version.to_arrow().column("id")[-1].as_py() == -1
    version = flights.delete_rows(where="id BETWEEN 100 AND 198")
    assert version.to_arrow().num_rows == MANY + 1 - 50
    version = flights.delete_rows(pa.table({"id": [-1, 0, 12345]}))
    table = version.to_arrow()
    assert table.num_rows == MANY - 51
    assert version.components[0].content_hash == whole(any_registry, prefix, base, table)
    assert [v.number for v in flights.log()] == [4, 3, 2, 1]


@everywhere
def test_a_delivered_file_is_upserted_and_columns_that_it_lacks_stay(flights: Dataset, tmp_path: Path) -> None:
    flights.commit({"data": pa.table({"id": [1, 2], "a": [1.0, 2.0], "b": ["x", "y"]})}, key="id")
    file = tmp_path / "more.csv"
    file.write_text("id,a\n2,20.5\n3,30.5\n")
    version = flights.upsert(file)
    assert version.to_arrow().to_pydict() == {"id": [1, 2, 3], "a": [1.0, 20.5, 30.5], "b": ["x", "y", None]}


@everywhere
def test_the_first_rows_create_the_table_with_its_key(flights: Dataset) -> None:
    version = flights.upsert(pa.table({"id": [2, 1], "v": ["b", "a"]}), key="id")
    assert version.schema.tables()["data"].key == ("id",)
    assert flights.upsert(pa.table({"id": [1], "v": ["c"]})).to_arrow().to_pydict() == {"id": [2, 1], "v": ["b", "c"]}
    other = flights.append(pa.table({"n": [1]}), "other")
    assert flights.append(pa.table({"n": [1]}), "other").to_arrow("other").num_rows == 2
    assert other.schema.tables()["other"].key == ()


@everywhere
def test_rows_that_do_not_fit_are_refused_and_nothing_changes(flights: Dataset) -> None:
    table = pa.table({"id": [1, 2], "a": [1.0, 2.0]})
    version = flights.commit({"data": table, "plain": table, "file": b"text"}, key="id")
    wrong = {
        "already": lambda: flights.append(pa.table({"id": [2], "a": [0.0]})),
        "not unique": lambda: flights.upsert(pa.table({"id": [5, 5], "a": [0.0, 0.0]})),
        "no column 'id'": lambda: flights.upsert(pa.table({"a": [0.0]})),
        "column 'price'": lambda: flights.append(pa.table({"id": [9], "price": [0.0]})),
        "it is string": lambda: flights.upsert(pa.table({"id": ["9"], "a": [0.0]})),
        "not of the type int64": lambda: flights.upsert(pa.table({"id": [9.5], "a": [0.0]})),
        "Invalid condition": lambda: flights.delete_rows(where="price < 0"),
        "stored as it was delivered": lambda: flights.append(table, "file"),
        "key of 'data' is": lambda: flights.upsert(table, key="a"),
    }
    for message, attempt in wrong.items():
        error = error_of(attempt)
        assert isinstance(error, InputError)
        assert message in str(error)
    assert isinstance(error_of(lambda: flights.delete_rows(table, "nothing")), NotFound)
    with pytest.raises(InputError, match="Pass either rows"):
        flights.delete_rows()
    assert flights.version() == version


@everywhere
def test_rows_are_added_to_what_another_writer_committed_in_the_meantime(flights: Dataset) -> None:
    flights.commit({"data": pa.table({"id": [1], "a": [1.0]})}, key="id")
    with flights.draft() as draft:
        draft.upsert("data", pa.table({"id": [2], "a": [2.0]}))
        flights.append(pa.table({"id": [3], "a": [3.0]}))
    assert sorted(draft.version.to_arrow().column("id").to_pylist()) == [1, 2, 3]
    assert draft.version.parents == (2,)


def test_a_table_without_a_key_has_equal_rows_deleted_together(flights: Dataset) -> None:
    flights.commit({"data": pa.table({"n": [1, 2, 1, None], "t": ["a", "b", "a", None]})})
    flights.append(pa.table({"n": [1], "t": ["a"]}))
    version = flights.delete_rows(pa.table({"n": [1], "t": ["a"]}))
    assert version.to_arrow().to_pydict() == {"n": [2, None], "t": ["b", None]}
    assert flights.delete_rows(pa.table({"n": pa.array([None], pa.int64())})).to_arrow().num_rows == 1
    assert "has no key" in str(error_of(lambda: flights.upsert(pa.table({"n": [1], "t": ["z"]}))))
