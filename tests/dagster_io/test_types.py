"""Types: what an asset may return, and what each annotation loads it as."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Optional

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pandas.testing import assert_frame_equal
from polars.testing import assert_frame_equal as assert_polars_equal

from dataset_registry import Version
from dataset_registry.errors import InputError, UnsupportedType
from tests.dagster_io.conftest import World, refused

ROWS = {"id": [1, 2, 3], "name": ["ann", None, "eve"], "day": [date(2024, 1, 1), date(2024, 1, 2), None]}
TABLE = pa.table(ROWS)


def _relation() -> duckdb.DuckDBPyRelation:
    return duckdb.from_arrow(TABLE)


OUTPUTS = {
    "an Arrow table": lambda: TABLE,
    "an Arrow reader": lambda: TABLE.to_reader(max_chunksize=2),
    "a pandas frame": TABLE.to_pandas,
    "a polars frame": lambda: pl.DataFrame(ROWS),
    "a LazyFrame": lambda: pl.LazyFrame(ROWS),
    "a DuckDB relation": _relation,
}
"""The same three rows, as every library has them."""


# --- in and out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_every_kind_of_table_is_loaded_as_every_annotated_type(world: World, make: Any) -> None:
    seen: dict[str, Any] = {}

    @dg.asset
    def source():
        return make()

    @dg.asset
    def as_table(source: pa.Table) -> None:
        seen["table"] = source

    @dg.asset
    def as_reader(source: pa.RecordBatchReader) -> None:
        seen["reader"] = type(source), source.read_all()

    @dg.asset
    def as_dataset(source: ds.Dataset) -> None:
        seen["dataset"] = source.to_table()

    @dg.asset
    def as_pandas(source: pd.DataFrame) -> None:
        seen["pandas"] = source

    @dg.asset
    def as_polars(source: pl.DataFrame) -> None:
        seen["polars"] = source

    @dg.asset
    def as_lazy(source: pl.LazyFrame) -> None:
        seen["lazy"] = type(source), source.collect()

    @dg.asset
    def as_relation(source: duckdb.DuckDBPyRelation) -> None:
        seen["relation"] = type(source), source.fetchall()

    @dg.asset
    def as_version(source: Version) -> None:
        seen["version"] = source

    world.materialize([source, as_table, as_reader, as_dataset, as_pandas, as_polars, as_lazy, as_relation, as_version])
    assert seen["table"].equals(TABLE)
    assert seen["reader"] == (pa.RecordBatchReader, TABLE)
    assert seen["dataset"].equals(TABLE)
    assert_frame_equal(seen["pandas"], TABLE.to_pandas())
    assert_polars_equal(seen["polars"], pl.DataFrame(ROWS))
    assert seen["lazy"][0] is pl.LazyFrame
    assert_polars_equal(seen["lazy"][1], pl.DataFrame(ROWS))
    assert seen["relation"] == (duckdb.DuckDBPyRelation, list(zip(*ROWS.values(), strict=True)))
    assert isinstance(seen["version"], Version)
    assert str(seen["version"]) == "source@v1"


def test_equal_tables_of_all_libraries_have_one_digest_and_are_stored_once(world: World) -> None:
    rows = {
        "id": [1, 2, None],
        "name": ["ann", None, "eve"],
        "price": [Decimal("1.50"), None, Decimal("2.25")],
        "at": [datetime(2024, 1, 1, 12, tzinfo=UTC), None, datetime(2024, 1, 2, tzinfo=UTC)],
        "ok": [True, None, False],
    }
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("name", pa.string()),
            ("price", pa.decimal128(10, 2)),
            ("at", pa.timestamp("us", tz="UTC")),
            ("ok", pa.bool_()),
        ]
    )
    table = pa.table(rows, schema)

    def make(name, value):
        @dg.asset(name=name)
        def table_asset():
            return value

        return table_asset

    values = {
        "arrow": table,
        "reader": table.to_reader(max_chunksize=1),
        "pandas": table.to_pandas(types_mapper=pd.ArrowDtype),
        "polars": pl.from_arrow(table),
        "lazy": pl.from_arrow(table).lazy(),
        "duckdb": duckdb.connect().execute("SET TimeZone = 'UTC'").from_arrow(table),
    }
    world.materialize([make(name, value) for name, value in values.items()])
    digests = {name: world.version(name).digest for name in values}
    assert len(set(digests.values())) == 1, digests
    assert len(list(world.registry.files())) == 2, "one Parquet file, and the table that it is"


def test_a_pandas_frame_returns_with_its_categories_its_named_index_and_its_nulls(world: World) -> None:
    frame = pd.DataFrame(
        {
            "size": pd.Categorical(["low", "high", None], categories=["low", "high"]),
            "count": pd.array([1, None, 3], dtype="Int64"),
            "text": ["a", None, "c"],
        },
        index=pd.Index(["x", "y", "z"], name="key"),
    )
    found = world.received(frame, pd.DataFrame)
    assert found.index.equals(frame.index)
    assert found.index.name == "key"
    assert list(found["size"].cat.categories) == ["low", "high"]
    assert found["size"].isna().tolist() == [False, False, True]
    assert found["count"].tolist()[0::2] == [1, 3]
    assert found["count"].isna().tolist() == [False, True, False]
    assert found["text"].isna().tolist() == [False, True, False]


def test_ordered_pandas_categories_keep_their_order(world: World) -> None:
    sizes = pd.Categorical(["high", "low"], categories=["low", "middle", "high"], ordered=True)
    found = world.received(pd.DataFrame({"size": sizes}), pd.DataFrame)["size"]
    assert found.cat.ordered
    assert found.min() == "low"
    assert found.max() == "high"


def test_a_pandas_frame_with_two_index_levels_returns_with_both(world: World) -> None:
    frame = pd.DataFrame(
        {"value": [1.0, 2.0]}, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["left", "right"])
    )
    assert_frame_equal(world.received(frame, pd.DataFrame), frame)


def test_the_unnamed_integer_index_of_a_filtered_frame_is_not_data(world: World) -> None:
    frame = pd.DataFrame({"value": [1, 2, 3, 4]})
    frame = frame[frame["value"].isin([1, 2, 4])]
    assert_frame_equal(world.received(frame, pd.DataFrame), frame.reset_index(drop=True))


def test_a_named_range_index_is_content_another_range_is_another_version(world: World) -> None:
    starts = iter([10, 20])

    @dg.asset
    def source():
        start = next(starts)
        return pd.DataFrame({"value": [1, 2]}, index=pd.RangeIndex(start, start + 2, name="id"))

    world.materialize([source])
    world.materialize([source])
    assert list(world.version("source").to_pandas().index) == [20, 21]


def test_polars_categories_come_back_as_categories(world: World) -> None:
    frame = pl.DataFrame({"size": ["low", "high", None]}, schema={"size": pl.Categorical})
    found = world.received(frame, pl.DataFrame)
    assert isinstance(found.schema["size"], pl.Categorical)
    assert found["size"].to_list() == ["low", "high", None]


def test_nested_columns_go_in_and_come_back(world: World) -> None:
    frame = pl.DataFrame({"tags": [["a", "b"], [], None], "point": [{"x": 1, "y": None}, {"x": 2, "y": 3.5}, None]})
    assert_polars_equal(world.received(frame, pl.DataFrame), frame)


def test_a_table_without_rows_keeps_its_columns(world: World) -> None:
    found = world.received(TABLE.slice(0, 0), pa.Table)
    assert found.num_rows == 0
    assert found.schema.equals(TABLE.schema)


# --- lazy ----------------------------------------------------------------------------------------------------------


@pytest.mark.objects
def test_a_lazy_frame_reads_the_stored_files_where_they_are(world: World) -> None:
    frame = world.received(TABLE, pl.LazyFrame)
    (stored,) = world.version("source").paths()
    assert world.is_stored(stored)
    assert isinstance(frame, pl.LazyFrame)
    assert str(stored) in frame.explain()
    stored.unlink()
    with pytest.raises((OSError, pl.exceptions.PolarsError)):
        frame.collect()


def test_a_relation_reads_the_stored_files_where_they_are(world: World) -> None:
    relation = world.received(TABLE, duckdb.DuckDBPyRelation)
    (stored,) = world.version("source").paths()
    assert str(stored) in relation.sql_query()
    stored.unlink()
    with pytest.raises(duckdb.Error):
        relation.fetchall()


@pytest.mark.objects
def test_an_arrow_dataset_reads_the_stored_files_where_they_are(world: World) -> None:
    dataset = world.received(TABLE, ds.Dataset)
    assert all(world.is_stored(file) for file in dataset.files)
    assert dataset.files == [str(path) for path in world.version("source").paths()]


@pytest.mark.objects
def test_a_path_is_the_stored_file_itself(world: World, tmp_path: Path) -> None:
    delivered = tmp_path / "model.bin"
    delivered.write_bytes(b"\x00weights\xff")
    found = world.received(delivered, Path)
    assert world.is_stored(found)
    assert found.read_bytes() == b"\x00weights\xff"
    assert world.version("source").components[0].format == "binary"


# --- files and components ------------------------------------------------------------------------------------------


def test_a_delivered_file_is_stored_as_it_is_and_still_loads_as_a_table(world: World, tmp_path: Path) -> None:
    delivered = tmp_path / "people.csv"
    delivered.write_text("id;name\r\n1;ann\r\n2;eve\r\n")
    seen: dict[str, Any] = {}

    @dg.asset
    def source() -> Path:
        return delivered

    @dg.asset
    def as_bytes(source: bytes) -> None:
        seen["bytes"] = source

    @dg.asset
    def as_table(source: pa.Table) -> None:
        seen["table"] = source

    @dg.asset
    def as_path(source: Path) -> None:
        seen["path"] = source.read_bytes().decode()

    world.materialize([source, as_bytes, as_table, as_path])
    assert seen["bytes"] == delivered.read_bytes()
    assert seen["table"].to_pydict() == {"id": [1, 2], "name": ["ann", "eve"]}
    assert seen["path"] == "id;name\r\n1;ann\r\n2;eve\r\n"


def test_text_is_neither_a_path_nor_stored_as_text(world: World, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with refused(UnsupportedType, r"source returned a str.*return Path\(.*value\.encode\(\)"):
        world.received(str(tmp_path / "note.txt"), bytes)
    assert world.registry.datasets() == []


def test_an_unannotated_input_is_an_arrow_table_or_the_path_of_a_plain_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    assert world.received(pl.DataFrame(ROWS)).equals(TABLE)
    found = world.received(tmp_path / "note.txt")
    assert isinstance(found, Path)
    assert found.read_text() == "hello"


def test_a_dict_becomes_components_and_is_loaded_as_a_dict_of_any_type(world: World, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    @dg.asset
    def source():
        return {"people": pl.DataFrame(ROWS), "cities": pd.DataFrame({"city": ["Rome"]})}

    @dg.asset
    def tables(source: dict[str, pa.Table]) -> None:
        seen["tables"] = source

    @dg.asset
    def lazy(source: Mapping[str, pl.LazyFrame]) -> None:
        seen["lazy"] = source

    @dg.asset
    def plain(source: dict) -> None:
        seen["plain"] = source

    world.materialize([source, tables, lazy, plain])
    assert [c.name for c in world.version("source").components] == ["cities", "people"]
    assert {name: table.num_rows for name, table in seen["tables"].items()} == {"cities": 1, "people": 3}
    assert {name: type(frame) for name, frame in seen["lazy"].items()} == {
        "cities": pl.LazyFrame,
        "people": pl.LazyFrame,
    }
    assert {name: type(table) for name, table in seen["plain"].items()} == {"cities": pa.Table, "people": pa.Table}


def test_a_dict_of_tables_and_files_loads_each_as_what_it_is(world: World, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    found = world.received({"model": tmp_path / "model.bin", "scores": TABLE}, dict[str, Any])
    assert found["model"].read_bytes() == b"weights"
    assert found["scores"].equals(TABLE)


def test_a_component_that_the_next_run_does_not_return_is_gone(world: World) -> None:
    values = iter([{"a": TABLE, "b": TABLE}, {"a": TABLE}])

    @dg.asset
    def source():
        return next(values)

    world.materialize([source])
    world.materialize([source])
    assert [c.name for c in world.version("source").components] == ["a"]
    assert [c.name for c in world.version("source@v1").components] == ["a", "b"]


def test_different_tables_are_not_silently_mixed_into_one(world: World) -> None:
    with refused(InputError, r"different columns: cities, people\. Annotate the input as dict"):
        world.received({"people": TABLE, "cities": pa.table({"city": ["Rome"]})}, pl.DataFrame)


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [set, Optional[set], set | None])  # noqa: UP045
def test_an_unsupported_annotation_is_an_error_that_lists_what_can_be_loaded(world: World, kind: Any) -> None:
    with refused(UnsupportedType, r"cannot be loaded as .*pyarrow\.Table.*polars\.LazyFrame.*dict\[str"):
        world.received(TABLE, kind)


def test_an_unsupported_annotation_inside_a_dict_is_an_error(world: World) -> None:
    with refused(UnsupportedType, "cannot be loaded as"):
        world.received({"a": TABLE}, dict[str, set])


@pytest.mark.parametrize("value", [42, object(), ["a", "b"], {"part": 4.5}], ids=["int", "object", "list", "in a dict"])
def test_an_unsupported_value_is_an_error_that_says_what_to_return(world: World, value: Any) -> None:
    with refused(
        UnsupportedType, r"registry does not store.*Arrow table.*never pickled|import pyarrow as pa\n.*return table"
    ):
        world.received(value)
    assert world.registry.datasets() == []


def test_an_empty_dict_is_an_error(world: World) -> None:
    with refused(InputError, "empty dict"):
        world.received({})


def test_a_path_that_is_not_there_or_is_a_folder_is_an_error(world: World, tmp_path: Path) -> None:
    with refused(InputError, "does not exist"):
        world.received(tmp_path / "missing.csv")
    with refused(InputError, "is a folder"):
        world.received(tmp_path)


def test_several_files_do_not_load_as_one_path(world: World, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    with refused(InputError, r"2 files.*dict\[str, Path\]"):
        world.received({"a": tmp_path / "a.bin", "b": tmp_path / "a.bin"}, Path)


def test_none_is_an_error_that_says_how_to_annotate(world: World) -> None:
    with refused(UnsupportedType, r"source returned None.*'-> None'"):
        world.received(None)
    assert world.registry.datasets() == []


def test_an_asset_annotated_as_none_is_left_alone(world: World) -> None:
    @dg.asset
    def side_effect() -> None:
        return None

    assert world.materialize([side_effect]).success
    assert world.registry.datasets() == []


def test_a_missing_upstream_is_an_error_that_names_it(world: World) -> None:
    from dataset_registry.errors import NotFound

    @dg.asset
    def source():
        return TABLE

    @dg.asset
    def sink(source: pa.Table) -> None: ...

    with refused(NotFound, "'source'"):
        world.materialize([source, sink], "sink")


# --- other definitions ---------------------------------------------------------------------------------------------


def test_each_output_of_a_multi_asset_is_a_dataset_of_its_own(world: World) -> None:
    @dg.multi_asset(
        outs={
            "left": dg.AssetOut(key=["pair", "left"], description="The left one"),
            "right": dg.AssetOut(key=["pair", "right"]),
        }
    )
    def pair():
        return TABLE, pl.DataFrame({"x": [1]})

    seen = []

    @dg.asset(ins={"left": dg.AssetIn(key=["pair", "left"]), "right": dg.AssetIn(key=["pair", "right"])})
    def sink(left: pa.Table, right: pl.DataFrame) -> None:
        seen.append((left, right))

    world.materialize([pair, sink])
    ((left, right),) = seen
    assert left.equals(TABLE)
    assert right["x"].to_list() == [1]
    assert [d.name for d in world.registry.datasets()] == ["pair/left", "pair/right"]
    assert world.registry.dataset("pair/left").description == "The left one"


def test_a_graph_asset_passes_data_between_its_steps_through_the_registry(world: World) -> None:
    @dg.op
    def rows():
        return TABLE

    @dg.op
    def only_first(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.head(1)

    @dg.graph_asset
    def first():
        return only_first(rows())

    result = world.materialize([first])
    assert world.version("first").to_polars()["id"].to_list() == [1]
    assert [i.dataset for i in world.version("first").provenance.inputs] == [f"runs/{result.run_id}/first.rows/result"]


def test_ops_of_a_job_pass_data_between_steps_and_runs_do_not_mix(world: World) -> None:
    seen: list[Any] = []
    rows = iter([TABLE, TABLE.slice(0, 1)])

    @dg.op
    def extract():
        return next(rows)

    @dg.op(out={"low": dg.Out(), "high": dg.Out()})
    def split(table: pd.DataFrame):
        return table[table["id"] < 2], table[table["id"] >= 2]

    @dg.op
    def load(low: pl.DataFrame, high: pa.Table) -> None:
        seen.append((low.height, high.num_rows))

    @dg.job(resource_defs=world.resources())
    def etl():
        load(*split(extract()))

    first = etl.execute_in_process(instance=world.instance)
    etl.execute_in_process(instance=world.instance)
    assert seen == [(1, 2), (1, 0)]
    names = [d.name for d in world.registry.datasets(prefix=f"runs/{first.run_id}/")]
    assert [name.split("/", 2)[2] for name in names] == ["extract/result", "split/high", "split/low"]


@pytest.mark.parametrize("kind", [None, list, list[pa.Table]], ids=["unannotated", "list", "list of tables"])
def test_dynamic_outputs_are_stored_by_their_mapping_keys_and_gathered_as_a_list(world: World, kind: Any) -> None:
    seen: list[int] = []

    @dg.op(out=dg.DynamicOut())
    def fan_out():
        for key, rows in (("one", 1), ("two", 2)):
            yield dg.DynamicOutput(TABLE.slice(0, rows), mapping_key=key)

    @dg.op
    def count(rows: pa.Table) -> pa.Table:
        return pa.table({"n": [rows.num_rows]})

    def gather(counts):
        seen.extend(table["n"][0].as_py() for table in counts)

    gather.__annotations__ = {"return": None} | ({} if kind is None else {"counts": kind})
    gathered = dg.op(gather)

    @dg.job(resource_defs=world.resources())
    def etl():
        gathered(fan_out().map(count).collect())

    etl.execute_in_process(instance=world.instance)
    assert sorted(seen) == [1, 2]


def test_the_datasets_name_is_the_asset_key_behind_the_prefix_or_what_its_metadata_says(world: World) -> None:
    seen: list[int] = []

    @dg.asset(key=["raw", "people"])
    def people():
        return TABLE

    @dg.asset(metadata={"registry/dataset": "elsewhere/towns"})
    def towns():
        return TABLE.slice(0, 2)

    @dg.asset(ins={"people": dg.AssetIn(key=["raw", "people"])})
    def sink(people: pa.Table, towns: pa.Table) -> None:
        seen.extend((people.num_rows, towns.num_rows))

    world.materialize([people, towns, sink], prefix="team/")
    assert [d.name for d in world.registry.datasets()] == ["team/elsewhere/towns", "team/raw/people"]
    assert seen == [3, 2]


def test_an_external_asset_is_read_from_the_dataset_that_somebody_else_committed(world: World) -> None:
    world.registry.create_dataset("vendor/prices").commit({"data": TABLE})
    seen: list[int] = []

    @dg.asset
    def sink(prices: pa.Table) -> None:
        seen.append(prices.num_rows)

    world.materialize([dg.AssetSpec("prices", metadata={"registry/dataset": "vendor/prices"}), sink], "sink")
    assert seen == [3]
