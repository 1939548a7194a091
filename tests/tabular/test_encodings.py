"""How the columns of parts are encoded, and that every reader gets the values back."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.tabular import encodings

ROWS = 60_000
RANDOM = np.random.default_rng(5)
WHOLE_NUMBERS: dict[str, pa.DataType] = {
    str(kind): kind
    for kind in (
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(
            pa.date32(),
            pa.time32("ms"),
            pa.time64("us"),
            pa.timestamp("us"),
            pa.timestamp("ns", "UTC"),
            pa.duration("us"),
        ),
    )
}
SHAPES = ["ascending", "random", "extremes", "one value", "nulls", "few"]


@pytest.fixture
def dataset(embedded: Registry) -> Dataset:
    return embedded.create_dataset("raw/flights")


def stored(table: pa.Table, form: int = 3) -> pa.Buffer:
    """A part with the rows of a table."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **encodings.options(table, form)) as writer:
        writer.write_table(table, row_group_size=table.num_rows)
    return sink.getvalue()


def columns_of(part: pa.Buffer) -> dict[str, Any]:
    """What the footer of a part says of its columns."""
    group = pq.read_metadata(pa.BufferReader(part)).row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    return {column.path_in_schema: column for column in columns}


def mixed(rows: int = ROWS) -> pa.Table:
    return pa.table(
        {
            "few": RANDOM.choice(["UA", "B6", "DL"], rows),
            "some": RANDOM.choice(RANDOM.integers(0, 1 << 50, 40), rows),
            "id": np.arange(rows),
            "when": pa.array(RANDOM.integers(0, 1 << 45, rows), pa.timestamp("us")),
            "hash": RANDOM.integers(-(1 << 63), (1 << 63) - 1, rows),
            "text": [f"note {i}" for i in RANDOM.integers(0, 1 << 40, rows)],
            "price": np.round(RANDOM.gamma(2, 20_000, rows), 2),
            "noise": RANDOM.normal(size=rows),
            "inner": [{"a.b": i, "c": [i]} for i in range(rows)],
            "a.b": np.zeros(rows),
        }
    )


def test_columns_of_few_values_have_dictionaries_and_others_have_none() -> None:
    for form in (2, 3):
        found = {path for path, column in columns_of(stored(mixed(), form)).items() if column.has_dictionary_page}
        assert found == {"few", "some", "inner.a.b", "inner.c.list.element", "a.b"}


def test_whole_numbers_and_moments_are_packed_differences_where_that_is_smaller() -> None:
    found = columns_of(stored(mixed()))
    packed = {path for path, column in found.items() if "DELTA_BINARY_PACKED" in column.encodings}
    assert packed == {"id", "when"}
    older = columns_of(stored(mixed(), form=2))
    assert not any("DELTA_BINARY_PACKED" in column.encodings for column in older.values())
    assert all(found[path].total_compressed_size < older[path].total_compressed_size for path in packed)


def test_what_compression_would_not_make_smaller_is_not_compressed() -> None:
    found = columns_of(stored(mixed()))
    assert {path for path, column in found.items() if column.compression == "UNCOMPRESSED"} == {"when", "noise"}
    assert found["price"].compression == found["id"].compression == "ZSTD"


def test_the_encodings_of_a_small_table_are_not_judged() -> None:
    found = columns_of(stored(mixed(1_000)))
    assert not any("DELTA_BINARY_PACKED" in column.encodings for column in found.values())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", WHOLE_NUMBERS)
def test_every_reader_gets_whole_numbers_and_moments_back(name: str, shape: str, dataset: Dataset) -> None:
    kind = WHOLE_NUMBERS[name]
    integer = kind if pa.types.is_integer(kind) else pa.int32() if kind.bit_width == 32 else pa.int64()
    table = pa.table({"x": numbers(shape, integer, kind).view(kind), "row": np.arange(5_000)})
    version = dataset.commit({"data": table})
    assert version.to_arrow().equals(table)
    assert pq.read_table(version.paths()[0])["x"].cast(kind).equals(table["x"])
    assert pl.read_parquet(version.paths()[0])["x"].to_arrow().cast(kind).equals(table["x"].combine_chunks())
    if not pa.types.is_duration(kind):  # DuckDB reads a duration as a number
        found = duckdb.sql(f"SELECT x FROM read_parquet('{version.paths()[0]}') ORDER BY row").to_arrow_table()
        assert found["x"].cast(kind).equals(table["x"])


def numbers(shape: str, integer: pa.DataType, kind: pa.DataType) -> pa.Array:
    """5,000 integers that are values of `kind`: the width of the type, or what a time of day has."""
    bits = integer.bit_width
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    if pa.types.is_unsigned_integer(integer):
        low, high = 0, (1 << bits) - 1
    if pa.types.is_time(kind):
        low, high = 0, 86_399_999 if bits == 32 else 86_399_999_999
    elif pa.types.is_date(kind):
        low, high = -700_000, 2_900_000
    elif pa.types.is_temporal(kind):
        low, high = -(1 << 60) // 10, (1 << 60) // 10
    random = np.random.default_rng(7)
    drawn = [low + int(value) % (high - low + 1) for value in random.integers(0, (1 << 63) - 1, 5_000)]
    found: list[int | None] = {
        "ascending": sorted(drawn),
        "random": drawn,
        "extremes": [low if value % 2 else high for value in drawn],
        "one value": [high] * 5_000,
        "nulls": [None if value % 3 else value for value in drawn],
        "few": [drawn[value % 7] for value in drawn],
    }[shape]
    return pa.array(found, integer)


def test_texts_behind_dictionaries_are_read_as_the_texts_they_are(dataset: Dataset) -> None:
    table = mixed().append_column("gaps", pa.array(["a", None, "ö", ""] * (ROWS // 4)))
    version = dataset.commit({"data": table})
    assert version.to_arrow().equals(table)
    assert version.to_arrow(columns=["gaps", "id"]).equals(table.select(["gaps", "id"]))
    chosen = version.to_arrow(columns=["few", "gaps"], filter=(ds.field("gaps") == "ö") & (ds.field("id") > 9))
    mask = pc.and_kleene(pc.equal(table["gaps"], "ö"), pc.greater(table["id"], 9))
    assert chosen.equals(table.filter(mask).select(["few", "gaps"]))
    assert version.to_arrow(filter=ds.field("few") == "none").num_rows == 0
    assert version.scan().to_table().equals(table)


def test_columns_whose_paths_in_the_file_are_the_same_are_stored(dataset: Dataset) -> None:
    rows = 5_000
    table = pa.table(
        {
            "a": [{"b": i} for i in range(rows)],
            "a.b": range(rows),
            "l": [[str(i)] for i in range(rows)],
            "l.list.element": range(rows),
        }
    )
    version = dataset.commit({"data": table})
    assert version.to_arrow().equals(table)
    assert version.to_arrow(columns=["a.b", "l.list.element"]).equals(table.select(["a.b", "l.list.element"]))


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_delivered_files_with_other_encodings_are_read_beside_tables(
    encoding: str, dataset: Dataset, tmp_path: Path
) -> None:
    table = pa.table({"s": [f"t{i % 7}" for i in range(5_000)], "k": range(5_000)})
    other = pa.table({"s": [f"u{i}" for i in range(5_000)], "k": range(5_000)})
    encoded = {"use_dictionary": False, "column_encoding": {"s": encoding}}
    pq.write_table(other, tmp_path / "z.parquet", **encoded)
    with pq.ParquetWriter(tmp_path / "y.parquet", table.schema, use_dictionary=["s"]) as writer:
        writer.write_table(table)
    version = dataset.commit({"m": table, "z": tmp_path / "z.parquet", "y": tmp_path / "y.parquet"})
    for names in (["m", "z"], ["z", "m"], ["y", "z"], ["z"], ["m", "y", "z"]):
        wholes = [other if name == "z" else table for name in names]
        assert version.to_arrow(names).equals(pa.concat_tables(wholes))


def test_parts_have_the_types_of_the_whole(dataset: Dataset, tmp_path: Path) -> None:
    few = [f"t{i % 7}" for i in range(5_000)]
    pq.write_table(pa.table({"s": pa.array(few).dictionary_encode(), "k": range(5_000)}), tmp_path / "y.parquet")
    version = dataset.commit({"m": pa.table({"s": few, "k": range(5_000)}), "z": tmp_path / "y.parquet"})
    for names in (["m", "z"], ["z", "m"]):
        whole = version.to_arrow(names)
        pieces = [version.to_arrow(names, parts=[part.number]) for part in version.table_parts(names)]
        assert pa.concat_tables(pieces).equals(whole)
        assert version.to_arrow(names, parts=[1, 0]).schema == version.to_arrow(names, parts=[]).schema == whole.schema


def test_a_filter_names_a_column_by_its_place(dataset: Dataset) -> None:
    version = dataset.commit({"a": pa.table({"id": range(60_000), "text": [f"{i:0200}" for i in range(60_000)]})})
    assert version.table_parts(filter=pc.field(0) >= 59_999)[-1].number == len(version.table_parts()) - 1
    assert version.to_arrow(filter=pc.field(1) == "0" * 200)["id"].to_pylist() == [0]


def test_a_filtered_read_after_a_whole_one_prunes_as_before(dataset: Dataset) -> None:
    version = dataset.commit({"data": mixed()})
    version.to_arrow()
    for above in (ROWS - 5, ROWS // 2, 5):
        assert version.to_arrow(columns=["id"], filter=ds.field("id") >= above).num_rows == ROWS - above
    assert version.to_arrow(columns=["id"], filter=ds.field("when").is_null()).num_rows == 0


def test_parts_whose_statistics_contradict_a_filter_are_not_listed(dataset: Dataset) -> None:
    version = dataset.commit({"a": pa.table({"id": range(60_000), "text": [f"{i:0200}" for i in range(60_000)]})})
    everything = version.table_parts()
    assert len(version.table_parts(filter=ds.field("id") >= 59_999)) == 1 < len(everything)
    assert len(version.table_parts(filter=ds.field("text") == "0" * 200)) == 1
    assert version.table_parts(filter=ds.field("id") < 0) == []
