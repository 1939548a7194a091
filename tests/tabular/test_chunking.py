"""Cutting by content: the same rows are cut alike whoever brings them, and a change of a few rows is a change of few parts."""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_registry import Dataset, Registry
from dataset_registry.errors import InputError
from dataset_registry.model.parts import ChunkingRule
from dataset_registry.tabular import chunking, parquet

# --- the format cut/1 ----------------------------------------------------------------------------------------------

NULL = 15737752625579782142
VECTORS: list[tuple[pa.Array, list[int]]] = [
    (pa.array([0, 1, -1, None], pa.int64()), [12935080325729570654, 17405687883870564846, 13665441387248026780, NULL]),
    (
        pa.array([0.0, 1.5, float("nan"), None], pa.float64()),
        [12935080325729570654, 12901533603265050757, 1651714246691313187, NULL],
    ),
    (
        pa.array(["", "a", "exactly8", "longer than eight bytes", "ümläut", None]),
        [
            12935080325729570654,
            8712723386720681359,
            1694627540438832427,
            6712988664580573358,
            15239758717480482004,
            NULL,
        ],
    ),
    (pa.array([b"", b"\x00\xff", None]), [12935080325729570654, 10022112914586131691, NULL]),
    (pa.array([True, False, None]), [17405687883870564846, 12935080325729570654, NULL]),
    (pa.array([dt.date(1970, 1, 2), None]), [17405687883870564846, NULL]),
    (pa.array([dt.datetime(2026, 11, 26, 13, 5, 0, 1), None], pa.timestamp("us")), [14840392660294737888, NULL]),
    (
        pa.array([Decimal("1.10"), Decimal("-99999999.99"), None], pa.decimal128(18, 2)),
        [198909207826661335, 9005147634738322914, NULL],
    ),
    (
        pa.array([[1, 2], [], None, [3]], pa.list_(pa.int64())),
        [9212995016960566552, 18385035034070138188, NULL, 9093573768091266949],
    ),
    (
        pa.array(
            [{"x": 1, "y": "a"}, {"x": None, "y": None}, None], pa.struct([("x", pa.int64()), ("y", pa.string())])
        ),
        [16234775178652064678, 18012252035841619643, NULL],
    ),
    (
        pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        [5610233899583677920, 16459147987232886956, NULL],
    ),
    (pa.array([[1, 2], [3, 4], None], pa.list_(pa.int16(), 2)), [14992981611421925741, 11733482749561853732, NULL]),
    (pa.array([None, None], pa.null()), [NULL, NULL]),
]


def hashes(values: pa.Array) -> list[int]:
    return [int(found) for found in chunking.row_hashes(pa.table({"x": values}), ["x"])]


@pytest.mark.parametrize(("values", "expected"), VECTORS, ids=[str(values.type) for values, _ in VECTORS])
def test_the_hash_of_each_type_is_the_one_it_was(values: pa.Array, expected: list[int]) -> None:
    assert hashes(values) == expected
    assert hashes(pa.concat_arrays([values, values]).slice(1, len(values) - 1)) == expected[1:]


def test_the_hash_of_a_row_is_over_its_columns_in_order() -> None:
    table = pa.table({"x": [1, 2], "y": [2, 1]})
    assert [int(h) for h in chunking.row_hashes(table, ["x", "y"])] == [122451777613484041, 2040907284762374833]
    assert list(chunking.row_hashes(table, ["x", "y"])) != list(chunking.row_hashes(table, ["y", "x"]))


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (pa.array([1, -2, None], pa.int8()), pa.array([1, -2, None], pa.int64())),
        (pa.array([1, 200, None], pa.uint8()), pa.array([1, 200, None], pa.uint64())),
        (pa.array([1.5, -0.25, None], pa.float32()), pa.array([1.5, -0.25, None], pa.float64())),
        (pa.array(["a", None]), pa.array([b"a", None])),
    ],
)
def test_a_wider_type_of_the_same_values_moves_no_border(narrow: pa.Array, wide: pa.Array) -> None:
    assert hashes(narrow) == hashes(wide)


def test_what_lies_under_a_null_is_not_looked_at() -> None:
    mask = pa.py_buffer(b"\x01")
    for kind, data in ((pa.int64(), np.array([1, 99])), (pa.string(), None)):
        if data is not None:
            dirty = pa.Array.from_buffers(kind, 2, [mask, pa.py_buffer(data.tobytes())])
            assert hashes(dirty) == hashes(pa.array([1, None], kind))
        else:
            offsets = pa.py_buffer(np.array([0, 1, 4], np.int32).tobytes())
            dirty = pa.Array.from_buffers(kind, 2, [mask, offsets, pa.py_buffer(b"adirt")])
            assert hashes(dirty) == hashes(pa.array(["a", None]))


# --- where parts end -----------------------------------------------------------------------------------------------

COLUMNS = {
    "id": st.integers(-(2**62), 2**62),
    "name": st.text(max_size=12) | st.none(),
    "price": st.floats(allow_nan=False),
}
CUT = ChunkingRule(("id", "name", "price"), 8)


def parts_of(tables: list[pa.Table], cut: ChunkingRule) -> list[pa.Table]:
    return list(chunking.split(((table, chunking.cut_points(table, cut)) for table in tables), cut))


SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string()), ("price", pa.float64())])
ROWS = st.lists(st.fixed_dictionaries(COLUMNS), min_size=1, max_size=120)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.lists(st.integers(0, 120), max_size=6), st.sampled_from([1, 2]))
def test_rows_are_cut_alike_in_whatever_batches_they_come(rows: list[dict[str, Any]], at: list[int], form: int) -> None:
    table = pa.Table.from_pylist(rows, SCHEMA)
    edges = sorted({0, *[min(i, len(rows)) for i in at], len(rows)})
    chunks = [table.slice(a, b - a) for a, b in pairwise(edges)]
    cut = replace(CUT, form=form)
    whole = parts_of([table], cut)
    assert parts_of(chunks, cut) == whole
    assert pa.concat_tables(whole) == table
    assert all((1 if form == 1 else 4) <= part.num_rows <= 32 for part in whole[:-1])


def ends_of(rows: int, seed: int, cut: ChunkingRule = CUT, *, replaced: slice = slice(0)) -> list[int]:
    """Where the parts of random rows end, some of which are replaced."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, 1 << 62, rows)
    ids[replaced] = random.integers(0, 1 << 62, len(ids[replaced]))
    table = pa.table({"id": ids})
    return list(accumulate(part.num_rows for part in parts_of([table], replace(cut, columns=("id",)))))


@pytest.mark.parametrize("seed", range(20))
def test_a_changed_row_moves_ends_around_it_only(seed: int) -> None:
    before, after = ends_of(5_000, seed), ends_of(5_000, seed, replaced=slice(2_000, 2_007))
    moved = set(before) ^ set(after)
    assert all(2_000 - CUT.rows // 2 <= end <= 2_007 + CUT.rows // 2 for end in moved)


def test_parts_are_of_like_sizes() -> None:
    sizes = np.diff([0, *ends_of(100_000, 7)])
    assert CUT.rows * 0.9 < sizes.mean() < CUT.rows * 1.3
    assert sizes.std() < 0.5 * sizes.mean()


def test_rows_that_are_all_alike_are_cut_by_their_number() -> None:
    table = pa.table({"id": [1] * 100})
    for form in (1, 2, 3):
        sizes = [part.num_rows for part in parts_of([table], ChunkingRule(("id",), 8, form=form))]
        assert sizes == [32, 32, 32, 4]


@pytest.mark.parametrize("form", [1, 2, 3])
def test_wide_rows_make_short_parts(form: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "_WIDEST", 1000)
    table = pa.table({"id": range(40), "text": ["x" * 300] * 20 + ["y"] * 10 + ["z" * 3000] * 10})
    cut = ChunkingRule(("id",), 1 << 20, form=form)
    expected = [part.num_rows for part in parts_of([table], cut)]
    assert expected[:3] == [3, 3, 3]
    assert expected[-3:] == [1, 1, 1]
    assert [part.num_rows for part in parts_of([table.slice(i, 1) for i in range(40)], cut)] == expected


def test_small_tables_are_cut_finer_and_large_ones_by_what_their_rows_take() -> None:
    narrow = pa.table({"x": np.arange(1 << 21)})
    assert chunking.rule(narrow.slice(0, 1000), is_whole=True, columns=["x"]).rows == 1 << 17
    assert chunking.rule(narrow, is_whole=False, columns=["x"]).rows == 1 << 20
    wide = pa.table({"x": ["w" * 120_000] * 50})
    assert chunking.rule(wide, is_whole=True, columns=["x"]).rows == 1 << 4
    assert not chunking.enough(narrow)


# --- through the registry ------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(embedded: Registry) -> Dataset:
    return embedded.create_dataset("raw/flights")


@pytest.fixture
def _fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few dozen rows."""
    monkeypatch.setattr(chunking, "LEAST_ROWS", 64)
    monkeypatch.setattr(chunking, "PART_BYTES", 16 << 10)


def table_of(rows: int, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    return pa.table(
        {
            "id": np.arange(rows),
            "carrier": random.choice(["UA", "B6", "DL"], rows),
            "delay": random.normal(size=rows),
            "note": [f"note {i}" for i in random.integers(0, 1 << 40, rows)],
        }
    )


def insert(table: pa.Table, at: int, rows: int) -> pa.Table:
    new = table_of(rows, seed=9).set_column(0, "id", pa.array(np.arange(rows) + 10_000_000))
    return pa.concat_tables([table.slice(0, at), new, table.slice(at)])


@pytest.mark.usefixtures("_fine")
@pytest.mark.parametrize("key", [["id"], []])
def test_rows_that_are_put_in_are_few_new_parts(dataset: Dataset, key: list[str]) -> None:
    table = table_of(20_000)
    dataset.commit({"data": table}, key=key)
    changed = insert(table, 2_011, 37)
    version = dataset.commit({"data": changed})
    assert version.to_arrow() == changed
    parts = dataset.diff("v1", "v2").parts["data"]
    assert parts.shared > 50
    assert parts.added <= 4
    assert parts.added_rows - parts.removed_rows == 37


@pytest.mark.usefixtures("_fine")
def test_the_key_and_the_cut_are_kept_through_the_history(dataset: Dataset) -> None:
    table = table_of(5_000)
    dataset.commit({"data": table}, key=["id"])
    wider = table.append_column("extra", pa.array(np.arange(5_000.0)))
    version = dataset.commit({"data": wider})
    schema = version.schema.tables()["data"]
    assert schema.key == ("id",)
    assert schema.cut is not None
    assert schema.cut.columns == ("id",)
    assert rows_of(version) == rows_of(dataset.version("v1"))
    narrower = dataset.commit({"data": wider.drop_columns(["id"])})
    assert narrower.schema.tables()["data"].key == ()
    assert narrower.to_arrow() == wider.drop_columns(["id"])


def rows_of(version: Any) -> list[int]:
    import pyarrow.parquet as pq

    return [pq.read_metadata(path).num_rows for path in version.paths()]


@pytest.mark.usefixtures("_fine")
def test_without_a_key_the_columns_of_the_first_version_cut(dataset: Dataset) -> None:
    table = table_of(5_000)
    first = dataset.commit({"data": table})
    second = dataset.commit({"data": table.append_column("extra", pa.array(np.arange(5_000.0)))})
    assert rows_of(first) == rows_of(second)


@pytest.mark.usefixtures("_fine")
def test_a_small_table_that_grew_large_is_cut_anew_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "MANY", 8)
    dataset.commit({"data": table_of(100)}, key=["id"])
    rows = []
    large = table_of(20_000)
    for table in (table_of(2_000), large, insert(large, 11, 10)):
        version = dataset.commit({"data": table})
        cut = version.schema.tables()["data"].cut
        assert cut is not None
        rows.append(cut.rows)
    assert rows == [64, 256, 256]
    assert dataset.diff("v3", "v4").parts["data"].shared > 30


def test_a_table_without_a_key_is_cut_by_the_columns_that_tell_rows_apart() -> None:
    random = np.random.default_rng(3)
    table = pa.table(
        {
            "kind": random.choice(["a", "b"], 9_000),
            "long": [f"{i:0100}" for i in range(9_000)],
            "id": np.arange(9_000),
            "at": random.integers(0, 1 << 40, 9_000),
            "many": [[i] for i in range(9_000)],
            "nothing": pa.nulls(9_000),
        }
    )
    assert chunking.telling_columns(table) == ["long", "id", "at"]
    assert chunking.telling_columns(table.drop_columns(["long"])) == ["kind", "id", "at", "many", "nothing"]
    assert chunking.telling_columns(table.slice(0, 0)) == table.schema.names


EDITS: dict[str, Callable[[Dataset, np.random.Generator], object]] = {
    "append": lambda dataset, random: dataset.append(
        table_of(40, 5).set_column(0, "id", ids(random, 40, int(random.integers(10**6, 10**12))))
    ),
    "upsert": lambda dataset, random: dataset.upsert(table_of(60, 6).set_column(0, "id", ids(random, 60, 0))),
    "upsert of a few columns": lambda dataset, random: dataset.upsert(
        pa.table({"id": ids(random, 60, 0), "delay": np.zeros(60)})
    ),
    "delete": lambda dataset, random: dataset.delete_rows(pa.table({"id": ids(random, 60, 0)})),
    "delete of a range": lambda dataset, random: dataset.delete_rows(where="id BETWEEN 1000 AND 1400 OR id = 2000"),
}


def ids(random: np.random.Generator, count: int, start: int) -> pa.Array:
    """Keys of rows, some of them in one place and others anywhere."""
    near = start + int(random.integers(0, 5_100)) + np.arange(count // 2)
    return pa.array(np.unique(np.concatenate([near, start + random.choice(5_000, count, replace=False)]))[:count])


@pytest.mark.usefixtures("_fine")
@pytest.mark.parametrize("form", [1, 2, 3])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_table_has_the_parts_of_the_whole_one(
    edit: str, form: int, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = chunking.rule
    monkeypatch.setattr(chunking, "rule", lambda *given, **named: replace(real(*given, **named), form=form))
    dataset.commit({"data": table_of(5_000)}, key=["id"])
    for seed in range(6):
        EDITS[edit](dataset, np.random.default_rng(seed))
        edited = dataset.version()
        dataset.create_branch(f"again/{seed}", "v1")
        whole = dataset.commit({"data": edited.to_arrow()}, branch=f"again/{seed}")
        assert rows_of(whole) == rows_of(edited)
        assert whole.digest == edited.digest


@pytest.mark.usefixtures("_fine")
def test_a_table_of_an_older_form_keeps_it(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    real = chunking.rule
    with monkeypatch.context() as older:
        older.setattr(chunking, "rule", lambda *given, **named: replace(real(*given, **named), form=1))
        first = dataset.commit({"data": table_of(5_000)}, key=["id"])
    second = dataset.commit({"data": insert(table_of(5_000), 2_000, 5)})
    assert dataset.diff("v1", "v2").parts["data"].added <= 2
    forms = [version.schema.tables()["data"].cut.form for version in (first, second)]  # type: ignore[union-attr]
    assert forms == [1, 1]
    as_stored = {"columns": ["id"], "rows": 64, "parts": 70}
    assert ChunkingRule.from_json(as_stored).to_json() == as_stored


def test_a_key_that_the_table_does_not_have_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"'nr', which is not a column of the table. It has: id, carrier"):
        dataset.commit({"data": table_of(10)}, key=["nr"])
    with pytest.raises(InputError, match="A key needs a table, but no table is committed"):
        dataset.commit({"data": b"bytes"}, key=["id"])
    with pytest.raises(InputError, match="'data' is a file, but a key is for tables"), dataset.draft() as draft:
        draft.add("data", b"bytes", key=["id"])
    assert dataset.commit({"data": table_of(10), "readme": b"bytes"}, key=["id"]).schema.tables()["data"].key == ("id",)


def _pandas(table: pa.Table) -> Any:
    return table.to_pandas()


def _batches(size: int) -> Callable[[pa.Table], pa.RecordBatchReader]:
    return lambda table: pa.RecordBatchReader.from_batches(table.schema, table.to_batches(size))


def _generator(table: pa.Table) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        yield from table.to_batches(777)

    return pa.RecordBatchReader.from_batches(table.schema, batches())


def test_the_same_data_is_the_same_version_whoever_brings_it(
    embedded: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "LEAST_ROWS", 64)
    monkeypatch.setattr(chunking, "PART_BYTES", 16 << 10)
    table = table_of(3_000)
    ways: dict[str, Callable[[pa.Table], Any]] = {
        "arrow": lambda t: t,
        "chunked": lambda t: pa.Table.from_batches(t.to_batches(100)),
        "pandas": _pandas,
        "pandas with Arrow types": lambda t: t.to_pandas(types_mapper=pd.ArrowDtype),
        "polars": pl.from_arrow,
        "lazy polars": lambda t: pl.from_arrow(t).lazy(),  # type: ignore[union-attr]
        "batches of 1": _batches(1),
        "batches of 1,000": _batches(1_000),
        "batches of all": _batches(1 << 20),
        "generator": _generator,
        "large strings": lambda t: t.cast(
            pa.schema([t.field(0), ("carrier", pa.large_string()), t.field(2), ("note", pa.large_string())])
        ),
        "dictionary": lambda t: t.set_column(1, "carrier", t.column("carrier").dictionary_encode()),
    }
    digests = {
        name: embedded.create_dataset(name.replace(" ", "-").replace(",", "")).commit({"data": way(table)}).digest
        for name, way in ways.items()
    }
    assert len(set(digests.values())) == 1, digests


def test_one_row_group_a_part_and_the_same_bytes_each_time() -> None:
    table = table_of(1_000)
    kept: list[bytes] = []
    for _ in range(2):
        written, schema = parquet.write_parts(
            table.to_reader(), table.schema, lambda data, facts: kept.append(bytes(data))
        )
        assert [facts.rows for _, facts in written] == [1_000]
        assert sum(written[0][1].chunks) == len(kept[-1])
        assert schema.rows == 1_000
    assert kept[0] == kept[1]
