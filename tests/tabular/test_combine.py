"""Tables that become one, and frames that come back: the same columns, types and labels by every reader."""

import datetime as dt
import logging
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_registry import Dataset, Registry, Version
from dataset_registry.errors import InputError, UnsupportedType


@pytest.fixture
def dataset(embedded: Registry) -> Dataset:
    return embedded.create_dataset("raw/tables")


def everywhere(version: Version, names: list[str] | None = None) -> pa.Table:
    """The rows by `to_arrow`; every other reader has to agree."""
    table = version.to_arrow(names)
    rows = table.to_pylist()
    assert version.scan(names).to_table().to_pylist() == rows
    assert version.to_polars(names).to_dicts() == rows
    assert version.lazy(names).collect().equals(version.to_polars(names))
    assert version.lazy(names).collect().schema == version.to_polars(names).schema
    assert version.to_duckdb(names).to_arrow_table().to_pylist() == rows
    return table


def ints(values: list[int | None], kind: pa.DataType) -> pa.Table:
    return pa.table({"x": pa.array(values, kind)})


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (ints([1], pa.int8()), ints([300], pa.int16()), pa.int16()),
        (ints([1], pa.int32()), pa.table({"x": [1.5]}), pa.float64()),
        (ints([1 << 53], pa.int64()), pa.table({"x": [1.5]}), pa.float64()),
        (ints([1], pa.uint32()), ints([-1], pa.int32()), pa.int64()),
        (ints([1], pa.uint64()), ints([-1], pa.int64()), pa.int64()),
        (ints([1 << 63], pa.uint64()), ints([1], pa.int64()), pa.uint64()),
        (ints([], pa.int32()), pa.table({"x": ["a"]}), pa.string()),
        (ints([None], pa.int32()), pa.table({"x": ["a"]}), pa.string()),
        (pa.table({"x": pa.nulls(1)}), pa.table({"x": [True]}), pa.bool_()),
        (
            pa.table({"x": pa.array([], pa.float64())}),
            pa.table({"x": pa.array([0], pa.timestamp("us"))}),
            pa.timestamp("us"),
        ),
        (
            pa.table({"x": pa.array([1], pa.decimal128(5, 1))}),
            pa.table({"x": pa.array([1], pa.decimal128(6, 3))}),
            pa.decimal128(7, 3),
        ),
        (
            pa.table({"x": pa.array([1], pa.timestamp("ms"))}),
            pa.table({"x": pa.array([1], pa.timestamp("us"))}),
            pa.timestamp("us"),
        ),
        (
            pa.table({"x": [{"a": 1}]}),
            pa.table({"x": [{"a": 1, "b": "y"}]}),
            pa.struct([("a", pa.int64()), ("b", pa.string())]),
        ),
        (pa.table({"x": [[1]]}), pa.table({"x": pa.array([[1]], pa.list_(pa.int8()))}), pa.list_(pa.int64())),
    ],
    ids=lambda value: str(value) if isinstance(value, pa.DataType) else "",
)
def test_types_are_widened_where_no_value_changes(
    dataset: Dataset, first: pa.Table, second: pa.Table, kind: pa.DataType
) -> None:
    version = dataset.commit({"1": first, "2": second})
    assert everywhere(version).schema.field("x").type == kind


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ints([(1 << 53) + 1], pa.int64()), pa.table({"x": [1.5]})),
        (ints([1 << 63], pa.uint64()), ints([-1], pa.int64())),
        (pa.table({"x": [1]}), pa.table({"x": ["1"]})),
        (pa.table({"x": pa.array([0], pa.date32())}), pa.table({"x": pa.array([0], pa.timestamp("us"))})),
        (pa.table({"x": pa.array([0], pa.timestamp("us", "UTC"))}), pa.table({"x": pa.array([0], pa.timestamp("us"))})),
        (pa.table({"x": pa.array([1 << 60], pa.timestamp("us"))}), pa.table({"x": pa.array([0], pa.timestamp("ns"))})),
        (pa.table({"x": [True]}), pa.table({"x": [1]})),
    ],
    ids=["beyond 2^53", "unsigned and signed", "text", "date and moment", "zoned and not", "years", "boolean"],
)
def test_types_that_do_not_fit_are_an_error_that_names_both(
    dataset: Dataset, first: pa.Table, second: pa.Table
) -> None:
    version = dataset.commit({"one": first, "two": second})
    for read in (version.to_arrow, version.lazy, version.scan, version.to_duckdb, version.to_pandas):
        with pytest.raises(
            InputError, match=r"one and two cannot be combined: the column 'x' is .* in the first and .* in the second"
        ):
            read()


def test_ordered_categories_with_an_order_in_common_stay_ordered(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    def sizes(values: list[str], order: list[str]) -> pd.DataFrame:
        return pd.DataFrame({"size": pd.Categorical(values, categories=order, ordered=True)})

    version = dataset.commit({"1": sizes(["low"], ["low", "high"]), "2": sizes(["mid"], ["low", "mid", "high"])})
    found = version.to_pandas()["size"]
    assert found.cat.ordered
    assert list(found.cat.categories) == ["low", "mid", "high"]
    other = dataset.commit({"1": sizes(["a"], ["a", "b"]), "2": sizes(["b"], ["b", "a"])})
    with caplog.at_level(logging.WARNING):
        found = other.to_pandas()["size"]
    assert not found.cat.ordered
    assert sorted(found.cat.categories) == ["a", "b"]
    assert "the orders of the categories conflict" in caplog.text


def test_one_frame_in_partitions_is_the_same_frame(dataset: Dataset) -> None:
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, (1 << 53) + 1, 4], dtype="Int64"),
            "ok": pd.array([True, None, False, True], dtype="boolean"),
            "c": pd.Categorical(["b", "a", "b", "a"], categories=["b", "a", "z"], ordered=True),
        },
        index=pd.Index(["w", "x", "y", "z"], name="key"),
    )
    frame.attrs["source"] = "by hand"
    whole = dataset.commit({"data": frame}).to_pandas()
    pd.testing.assert_frame_equal(whole, frame)
    assert whole.attrs == frame.attrs
    with dataset.draft() as draft:
        draft.clear()
        draft.add("1", frame.iloc[:2])
        draft.add("2", frame.iloc[2:])
    pd.testing.assert_frame_equal(dataset.version().to_pandas(), frame)
    pd.testing.assert_frame_equal(dataset.version("v1").to_pandas(columns=["n"]), frame[["n"]])


def test_an_unnamed_integer_index_is_dropped_and_said(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"x": [1, 2, 3, 4]})
    with caplog.at_level(logging.INFO):
        version = dataset.commit({"1": frame[frame.x > 2], "2": frame})
    assert version.to_arrow().column_names == ["x"]
    assert caplog.text.count("unnamed integer index") == 1
    kept = dataset.commit({"1": frame.set_index(pd.Index(["a", "b", "c", "d"])), "2": frame.rename_axis("id")})
    assert kept.to_arrow("1").column_names == ["x", "__index_level_0__"]
    assert kept.to_arrow("2").column_names == ["x", "id"]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame([[1, 2]], columns=[0, 1]),
        pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", "y"])),
        pd.DataFrame([[1, 2]], columns=pd.Index(["a", "b"], name="names")),
        pd.DataFrame({"c": pd.Categorical([f"{i}" for i in range(1500)], ordered=True)}),
        pd.DataFrame({"k": pd.Categorical(["a", "b"]), "v": [1, 2]}).pivot_table(
            columns="k", values="v", observed=False
        ),
        pd.DataFrame({"lists": [[1, 2], None], "texts": ["a", None]}),
        pd.DataFrame({"lists": [[1.5, 2.0], []], "nested": [[["a"]], None]}),
        pd.DataFrame([[1, 2]]),
        pd.DataFrame(
            {"embedding": [np.arange(3, dtype="f4"), np.ones(3, "f4")], "ids": [np.arange(2), np.ones(1, int)]}
        ),
    ],
    ids=[
        *("integer labels", "column MultiIndex", "columns.name", "1,500 categories", "pivot", "lists"),
        *("lists of floats and lists", "RangeIndex of labels", "arrays"),
    ],
)
def test_labels_and_dtypes_of_a_frame_come_back(dataset: Dataset, frame: pd.DataFrame) -> None:
    found = dataset.commit({"data": frame}).to_pandas()
    pd.testing.assert_frame_equal(found, frame)
    assert type(found.columns) is type(frame.columns)
    assert [type(value) for value in found.iloc[0]] == [type(value) for value in frame.iloc[0]]


@pytest.mark.parametrize(
    "values",
    [
        [dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 5)],
        [dt.time(1), dt.time(1, tzinfo=dt.UTC)],
        [Decimal("-0"), Decimal("1.5")],
        [Decimal("NaN"), Decimal("1.5")],
    ],
    ids=["day and moment", "zoned time", "signed zero", "decimal NaN"],
)
def test_objects_that_arrow_would_give_back_as_others_are_refused(dataset: Dataset, values: list[Any]) -> None:
    with pytest.raises(UnsupportedType, match=r"Column 'x': the .* in row . is not what Arrow makes of it"):
        dataset.commit({"data": pd.DataFrame({"x": pd.Series(values, dtype=object)})})


@pytest.mark.parametrize("attrs", [{1: "a"}, {"a": (1, 2)}, {"a": {1, 2}}], ids=["key", "tuple", "set"])
def test_attrs_that_json_has_not_are_refused(dataset: Dataset, attrs: dict[Any, Any]) -> None:
    frame = pd.DataFrame({"x": [1]})
    frame.attrs = attrs
    with pytest.raises(UnsupportedType, match="attrs of this frame"):
        dataset.commit({"data": frame})


def test_frames_that_become_one_keep_the_attrs_that_all_have(dataset: Dataset) -> None:
    frames = {}
    for n in (1, 2):
        frames[str(n)] = pd.DataFrame({"x": [n]})
        frames[str(n)].attrs = {"source": "sensor", "day": n}
    assert dataset.commit(frames).to_pandas().attrs == {"source": "sensor"}


def test_frames_with_labels_that_only_look_alike_do_not_become_one(dataset: Dataset) -> None:
    version = dataset.commit({"1": pd.DataFrame({0: [1]}), "2": pd.DataFrame({"0": [1]})})
    with pytest.raises(InputError, match="column labels of one are texts and those of another are not"):
        version.to_pandas()


def test_enums_that_become_one_have_the_categories_of_both_and_no_value_is_lost(dataset: Dataset) -> None:
    first = pl.DataFrame({"x": pl.Series(["a"], dtype=pl.Enum(["a", "c;1"]))})
    second = pl.DataFrame({"x": pl.Series(["é"], dtype=pl.Enum(["a", "é", "c;1"]))})
    other = pl.DataFrame({"x": pl.Series(["c;1"], dtype=pl.Enum(["c;1", "a"]))})
    version = dataset.commit({"1": first, "2": second, "3": other})
    one = version.to_polars(["1", "2"])
    assert one["x"].to_list() == ["a", "é"]
    assert one.schema["x"] == pl.Enum(["a", "é", "c;1"])
    for names in (["1", "3"], ["1", "2"], ["1", "2", "3"]):
        assert everywhere(version, names)["x"].null_count == 0


def test_decimals_of_38_digits_become_one_by_their_values(dataset: Dataset) -> None:
    first, second = (pa.table({"x": pa.array([Decimal("1.5")], pa.decimal128(38, scale))}) for scale in (1, 2))
    table = everywhere(dataset.commit({"1": first, "2": second}))
    assert pa.types.is_decimal128(table.schema.field("x").type)


def test_a_table_without_columns_adds_nothing(dataset: Dataset) -> None:
    assert everywhere(dataset.commit({"1": pa.table({}), "2": pa.table({"x": [1]})}), ["1", "2"]).num_rows == 1


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["z"], "no column 'z'. It has: 'day', 'town'"),
        (["twon"], "Did you mean 'town'"),
        (["day", "day"], "Duplicate column 'day'"),
        ("day", "a list of column names"),
        ([0], "a list of column names"),
    ],
)
def test_columns_that_a_table_has_not_are_an_error(dataset: Dataset, columns: Any, words: str) -> None:
    version = dataset.commit({"data": pa.table({"day": [1], "town": ["a"]})})
    with pytest.raises(InputError, match=words):
        version.to_arrow(columns=columns)


def test_polars_types_come_back_lazily_and_eagerly(dataset: Dataset) -> None:
    frame = pl.DataFrame(
        {
            "e": pl.Series(["a", "b"], dtype=pl.Enum(["b", "a", "c"])),
            "c": pl.Series(["x", "y"], dtype=pl.Categorical),
            "i": pl.Series([1 << 100, None], dtype=pl.Int128),
            "l": pl.Series([["a"], []], dtype=pl.List(pl.Enum(["a", "z"]))),
            "w": pl.Series([[1 << 100, None], None], dtype=pl.List(pl.Int128)),
            "s": pl.Series([{"a": 1, "b": "x"}, None], dtype=pl.Struct({"a": pl.UInt128, "b": pl.String})),
            "p": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int128, 2)),
        }
    )
    version = dataset.commit({"data": frame})
    for found in (version.to_polars(), version.lazy().collect(), version.to_polars(columns=frame.columns)):
        assert found.schema == frame.schema
        assert found.equals(frame)


class Metres(pl.BaseExtension):
    """An extension type of polars, as a user may register one."""

    def __init__(self, name: str = "test.metres", storage: Any = pl.Int64, metadata: str | None = None) -> None:
        super().__init__(name, storage, metadata)


def test_extension_types_of_polars_come_back_where_they_are_registered(dataset: Dataset) -> None:
    pl.register_extension_type("test.metres", Metres)
    try:
        frame = pl.DataFrame({"x": [1, 2]}).with_columns(pl.col("x").ext.to(Metres()))
        frame = frame.with_columns(pl.concat_list("x").alias("l"), pl.struct("x").alias("s"))
        version = dataset.commit({"data": frame})
        for found in (version.to_polars(), version.lazy().collect()):
            assert found.schema == frame.schema
            assert found.equals(frame)
    finally:
        pl.unregister_extension_type("test.metres")
    assert version.to_polars()["x"].to_list() == [1, 2]
    assert version.to_polars().schema["x"] == pl.Int64


def test_arrow_types_and_metadata_come_back(dataset: Dataset) -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.uuid(), metadata={"unit": "none"}),
            pa.field("text", pa.large_string()),
            pa.field("view", pa.string_view()),
            pa.field("views", pa.list_view(pa.int8())),
            pa.field("day", pa.date64()),
        ],
        metadata={"made": "by hand"},
    )
    table = pa.table([[b"0123456789abcdef"], ["a"], ["b"], [[1, 2]], [0]], schema=schema)
    found = dataset.commit({"data": table}).to_arrow()
    assert found.schema.equals(schema, check_metadata=True)
    assert found.equals(table)


def test_the_same_values_of_another_type_are_another_version_with_the_same_digest(dataset: Dataset) -> None:
    first = dataset.commit({"data": pa.table({"x": ["a", "b"]})})
    second = dataset.commit({"data": pa.table({"x": pa.array(["a", "b"]).dictionary_encode()})})
    assert (second.number, second.digest) == (2, first.digest)
    assert pa.types.is_dictionary(dataset.version().to_arrow().schema.field("x").type)
    assert dataset.commit({"data": pa.table({"x": pa.array(["a", "b"]).dictionary_encode()})}).number == 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pl.DataFrame({"x": pl.Series([object()], dtype=pl.Object)}), "Python objects"),
        (pd.DataFrame({"x": [{"a": 1}, {"b": 2}]}), "is not what Arrow makes of it"),
        (pd.DataFrame({"x": [{1, 2}]}), "is not what Arrow makes of it|cannot become"),
        (pa.table({"x": pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int8()))}), "duplicate keys"),
        (
            pa.table({"x": pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))}),
            "UTF8",
        ),
        (pd.DataFrame({"x": pd.arrays.SparseArray([0, 1])}), "Sparse|sparse"),
        (pd.Series([1]), "to_frame"),
    ],
    ids=["polars objects", "dicts of other keys", "sets", "equal keys", "not UTF-8", "sparse", "a series"],
)
def test_what_no_reader_could_give_back_is_refused(dataset: Dataset, value: Any, words: str) -> None:
    with pytest.raises(UnsupportedType, match=words):
        dataset.commit({"data": value})
    assert dataset.tree() == []


def test_integers_with_nulls_beyond_two_to_the_53_stay_integers_in_pandas(dataset: Dataset) -> None:
    version = dataset.commit({"data": pa.table({"id": pa.array([(1 << 53) + 1, None]), "small": pa.array([1, None])})})
    frame = version.to_pandas()
    assert str(frame["id"].dtype) == "Int64"
    assert frame["id"][0] == (1 << 53) + 1
    assert frame["small"].dtype == np.float64


def test_zones_with_an_offset_are_read_by_polars_as_the_same_instants(dataset: Dataset) -> None:
    moments = pd.DataFrame({"t": pd.to_datetime(["2024-01-01 12:00"]).tz_localize("+05:30")})
    version = dataset.commit({"data": moments})
    assert str(version.to_pandas()["t"].dtype).endswith("UTC+05:30]")
    assert str(version.to_polars()["t"][0]) == "2024-01-01 06:30:00+00:00"
    assert version.lazy().collect()["t"][0] == version.to_polars()["t"][0]


_VALUES = {
    pa.int64(): st.integers(-(1 << 63), (1 << 63) - 1),
    pa.float64(): st.floats(),
    pa.string(): st.text(st.characters(exclude_categories=["Cs"])),
    pa.bool_(): st.booleans(),
    pa.large_string(): st.text("aé日", max_size=3),
    pa.list_(pa.int8()): st.lists(st.integers(-128, 127), max_size=3),
    pa.dictionary(pa.int8(), pa.string()): st.sampled_from(["a", "b"]),
    pa.timestamp("us", "Europe/Berlin"): st.integers(-62135510400000000, 253370764800000000),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    kinds = draw(st.lists(st.sampled_from(list(_VALUES)), min_size=1, max_size=5))
    rows = draw(st.integers(0, 6))
    columns = [pa.array(draw(st.lists(st.none() | _VALUES[k], min_size=rows, max_size=rows)), k) for k in kinds]
    return pa.table(columns, [f"c{i}" for i in range(len(kinds))])


def test_any_table_comes_back_as_it_was(embedded: Registry) -> None:
    dataset = embedded.create_dataset("raw/any")

    @settings(max_examples=150, deadline=None)
    @given(tables())
    def check(table: pa.Table) -> None:
        version = dataset.commit({"data": table})
        found = version.to_arrow()
        assert found.schema.equals(table.schema)
        assert repr(found.to_pylist()) == repr(table.to_pylist())
        assert repr(version.scan().to_table().to_pylist()) == repr(table.to_pylist())
        assert repr(version.to_polars().to_dicts()) == repr(version.lazy().collect().to_dicts())

    check()
