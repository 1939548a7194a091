"""Digests of columns depend on the values and their order, and on nothing else."""

import sqlite3
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_registry import Dataset, Registry
from dataset_registry.tabular.column_digests import combined, digest_of

COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "integers": (pa.int64(), [1, None, -3, 2**62]),
    "small": (pa.uint8(), [1, None, 3, 255]),
    "floats": (pa.float64(), [1.5, None, float("nan"), -0.0]),
    "booleans": (pa.bool_(), [True, None, False, True]),
    "texts": (pa.string(), ["a", None, "", "ünï"]),
    "bytes": (pa.binary(), [b"a", None, b"", b"\0\0"]),
    "fixed": (pa.binary(3), [b"abc", None, b"\0\0\0", b"xyz"]),
    "decimals": (pa.decimal128(20, 2), [Decimal("1.50"), None, Decimal("-2.00"), Decimal("0.00")]),
    "dates": (pa.date32(), [date(2026, 1, 1), None, date(1, 1, 1), date(9999, 12, 31)]),
    "moments": (pa.timestamp("us", "UTC"), [datetime(2026, 1, 1), None, datetime(1970, 1, 1), datetime(2030, 1, 1)]),
    "times": (pa.time64("us"), [time(1, 2), None, time(0), time(23, 59)]),
    "durations": (pa.duration("ms"), [timedelta(1), None, timedelta(0), timedelta(-1)]),
    "nulls": (pa.null(), [None, None, None, None]),
    "lists": (pa.list_(pa.int32()), [[1, 2], None, [], [None, 3]]),
    "fixed lists": (pa.list_(pa.float32(), 2), [[1, 2], None, [3, None], [0, 0]]),
    "structs": (
        pa.struct([("x", pa.int64()), ("y", pa.string())]),
        [{"x": 1, "y": "a"}, None, {}, {"x": None, "y": ""}],
    ),
    "maps": (pa.map_(pa.string(), pa.int64()), [[("a", 1)], None, [], [("b", None), ("c", 2)]]),
    "nested": (pa.list_(pa.struct([("t", pa.list_(pa.string()))])), [[{"t": ["a"]}], None, [{"t": None}, None], []]),
}


def _column(name: str) -> pa.Array:
    kind, values = COLUMNS[name]
    return pa.array(values, kind)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_digest_does_not_depend_on_where_the_rows_are_divided(name: str) -> None:
    values = _column(name)
    whole = digest_of(pa.chunked_array([values]))
    for at in range(len(values) + 1):
        pieces = [digest_of(pa.chunked_array([piece])) for piece in (values.slice(0, at), values.slice(at))]
        assert combined(pieces) == whole
        assert digest_of(pa.chunked_array([values.slice(0, at), values.slice(at)])) == whole


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "nulls"])
def test_every_change_of_a_value_of_the_order_or_of_a_null_changes_the_digest(name: str) -> None:
    kind, values = COLUMNS[name]
    others = [
        values[::-1],
        [*values, None],
        values[:-1],
        [values[2], *values[1:]],
        [None, *values[1:]],
        [values[0]] * 4,
    ]
    found = [digest_of(pa.chunked_array([pa.array(other, kind)])) for other in (values, *others)]
    assert len(set(found)) == len(found)


def test_values_under_a_null_do_not_count() -> None:
    data = pa.array([1, 7, 3], pa.int64()).buffers()[1]
    other = pa.array([1, 8, 3], pa.int64()).buffers()[1]
    valid = pa.py_buffer(b"\x05")
    one, two = (pa.Array.from_buffers(pa.int64(), 3, [valid, buffer]) for buffer in (data, other))
    assert digest_of(pa.chunked_array([one])) == digest_of(pa.chunked_array([two]))


def test_moving_a_character_from_one_text_to_the_next_changes_the_digest() -> None:
    one, two = (digest_of(pa.chunked_array([pa.array(texts)])) for texts in (["ab", "c"], ["a", "bc"]))
    assert one != two


def test_the_checksum_is_the_published_one() -> None:
    # "123456789" is the check value of CRC-64/NVME in the catalogue of parametrised CRC algorithms.
    (_, lengths, data) = digest_of(pa.chunked_array([pa.array(["123456789"])])).split(" ")
    assert data == "ae8b14860a799888:9"
    assert lengths.endswith(":4")


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_column_in_any_batches_has_one_digest(data: st.DataObject) -> None:
    element = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
    kind, values = data.draw(
        st.sampled_from(
            [
                (pa.int64(), st.lists(element)),
                (pa.string(), st.lists(st.one_of(st.none(), st.text()))),
                (pa.list_(pa.int64()), st.lists(st.one_of(st.none(), st.lists(element)))),
            ]
        )
    )
    rows = data.draw(values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    pieces = [pa.array(rows[a:b], kind) for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    assert digest_of(pa.chunked_array(pieces)) == digest_of(pa.chunked_array([pa.array(rows, kind)]))


# --- of versions -------------------------------------------------------------------------------------------------------


def _table(rows: int = 60_000) -> pa.Table:
    return pa.table(
        {
            "id": range(rows),
            "price": [float(i % 97) for i in range(rows)],
            "name": [f"name-{i % 1000}" for i in range(rows)],
            "tags": [[i % 3] for i in range(rows)],
        }
    )


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def dataset(local: Registry) -> Dataset:
    return local.create_dataset("raw/prices")


def test_a_changed_column_leaves_the_digests_of_the_others(dataset: Dataset) -> None:
    table = _table()
    before = dataset.commit({"data": table}).column_digests()
    changed = table.set_column(1, "price", pa.array([float(i % 89) for i in range(table.num_rows)]))
    after = dataset.commit({"data": changed}).column_digests()
    assert {name for name in before if before[name] != after[name]} == {"price"}


def test_edits_merges_and_a_whole_rewrite_come_to_the_same_digests(dataset: Dataset, local: Registry) -> None:
    table = _table()
    dataset.commit({"data": table}, key="id")
    upserted = dataset.upsert(pa.table({"id": [30_000], "price": [1e6]}))
    prices = table.column("price").to_pylist()
    prices[30_000] = 1e6
    whole = table.set_column(1, "price", pa.array(prices))
    expected = local.create_dataset("whole").commit({"data": whole}).column_digests()
    assert upserted.column_digests() == expected
    assert all(facts.digest for facts in upserted.schema.tables()["data"].statistics.values())


def test_a_file_and_a_frame_with_the_same_values_have_the_same_digests(
    dataset: Dataset, local: Registry, tmp_path: Any
) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("id,name\n1,a\n2,b\n")
    delivered = dataset.commit({"data": path})
    given = local.create_dataset("given").commit({"data": pa.table({"id": [1, 2], "name": ["a", "b"]})})
    assert delivered.column_digests() == given.column_digests()


def test_the_digest_of_partitions_is_of_all_of_them(dataset: Dataset) -> None:
    first = dataset.commit({"2026-01": pa.table({"x": [1]}), "2026-02": pa.table({"x": [2], "y": ["a"]})})
    second = dataset.commit({"2026-02": pa.table({"x": [2], "y": ["b"]})})
    assert first.column_digests()["x"] == second.column_digests()["x"]
    assert first.column_digests()["y"] != second.column_digests()["y"]
    assert first.column_digests("2026-01") == second.column_digests("2026-01")


def test_the_type_counts(dataset: Dataset) -> None:
    one = dataset.commit({"data": pa.table({"x": pa.array([1], pa.int64())})}).column_digests()
    two = dataset.commit({"data": pa.table({"x": pa.array([1], pa.uint64())})}).column_digests()
    assert one != two


def test_an_edited_digest_is_found_by_a_deep_verification(dataset: Dataset, local: Registry, tmp_path: Path) -> None:
    dataset.commit({"data": _table(10)})
    assert local.verify(deep=True).findings == ()
    with sqlite3.connect(tmp_path / "registry" / "catalog.sqlite") as catalog:
        catalog.execute("UPDATE file_captures SET statistics_json = replace(statistics_json, ':80', ':81')")
    assert [finding.kind for finding in local.verify(deep=True).findings] == ["capture"]
