"""Tables in every library."""

from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dataset_registry import Dataset
from dataset_registry.errors import (
    InputError,
    NotFound,
)
from tests.contracts.scenarios import (
    error_of,
    everywhere,
    read,
)


@everywhere
def test_an_arrow_table_is_read_back_in_every_form(flights: Dataset, tmp_path: Path) -> None:
    table = pa.table({"id": list(range(100)), "name": [f"n{i % 7}" for i in range(100)]})
    flights.commit({"data": table})
    version = flights.version()
    assert version.components[0].format == "parquet"
    assert version.to_arrow().equals(table)
    assert version.to_arrow("data", columns=["name"]).equals(table.select(["name"]))
    wanted = (ds.field("id") >= 10) & (ds.field("id") < 13)
    assert version.to_arrow(filter=wanted, columns=["id"]).to_pydict() == {"id": [10, 11, 12]}
    assert version.to_pandas(columns=["id"], filter=wanted)["id"].tolist() == [10, 11, 12]
    assert version.to_polars().equals(pl.from_arrow(table))
    assert version.lazy().filter(pl.col("id") > 97).collect()["id"].to_list() == [98, 99]
    assert version.scan().count_rows() == 100
    assert version.scan().to_table(filter=wanted).num_rows == 3
    with duckdb.connect() as connection:
        assert version.to_duckdb(connection=connection).aggregate("sum(id)").fetchall() == [(4950,)]
    (path,) = version.paths()
    assert pq.read_table(path).equals(table)
    (uri,) = version.uris("data")
    assert uri.startswith(("file://", "s3://", "http"))
    (copy,) = version.checkout(tmp_path / "out")
    assert copy.name == "data.parquet"
    assert copy.read_bytes() == path.read_bytes() == read(version)


def test_a_pandas_frame_comes_back_with_its_categories_and_its_index(flights: Dataset) -> None:
    frame = pd.DataFrame(
        {"kind": pd.Categorical(["b", "a", "b"], categories=["b", "a", "c"]), "at": pd.date_range("2024", periods=3)},
        index=pd.Index([10, 20, 30], name="key"),
    )
    version = flights.commit({"data": frame})
    pd.testing.assert_frame_equal(version.to_pandas(), frame)
    pd.testing.assert_frame_equal(flights.version().to_pandas("data"), frame)
    assert list(version.to_pandas(columns=["kind"])["kind"].cat.categories) == ["b", "a", "c"]
    assert version.schema.components["data"].tables[0].user_types


def test_polars_frames_readers_and_relations_are_tables(flights: Dataset) -> None:
    frame = pl.DataFrame({"n": [1, 2, 3], "e": pl.Series(["x", "y", "x"], dtype=pl.Categorical)})
    table = pa.table({"n": [1, 2, 3]})
    with duckdb.connect() as connection:
        version = flights.commit(
            {
                "polars": frame,
                "lazy": frame.lazy().filter(pl.col("n") > 1),
                "reader": table.to_reader(max_chunksize=1),
                "relation": connection.sql("SELECT range AS n FROM range(5)"),
            }
        )
    assert version.to_polars("polars")["e"].cast(pl.String).to_list() == ["x", "y", "x"]
    assert version.to_polars("lazy")["n"].to_list() == [2, 3]
    assert version.to_arrow("reader").equals(table)
    assert version.to_arrow("relation").column("n").to_pylist() == [0, 1, 2, 3, 4]
    assert isinstance(error_of(version.to_arrow), InputError), "they have different columns"


def test_components_with_the_same_columns_are_one_table(flights: Dataset) -> None:
    parts = [pa.table({"day": [f"2024-01-0{day}"], "n": [day]}) for day in (1, 2, 3)]
    version = flights.commit({f"2024-01-0{day + 1}": part for day, part in enumerate(parts)})
    assert version.to_arrow().equals(pa.concat_tables(parts))
    assert version.to_arrow(["2024-01-01", "2024-01-03"]).column("n").to_pylist() == [1, 3]
    assert version.lazy().select(pl.col("n").sum()).collect().item() == 6
    assert len(version.paths()) == len(version.uris()) == 3
    assert isinstance(error_of(lambda: version.to_arrow("2024-01-09")), NotFound)
    csv = flights.commit({"list": [b"plain"], "2024-01-01": b"plain"})
    assert isinstance(error_of(lambda: csv.lazy("list")), InputError)


def test_a_checkout_never_overwrites(flights: Dataset, tmp_path: Path) -> None:
    version = flights.commit({"data": b"1", "b": b"2"})
    assert sorted(path.name for path in version.checkout(tmp_path)) == ["b", "data"]
    (tmp_path / "b").unlink()
    assert type(error_of(lambda: version.checkout(tmp_path))) is InputError
    assert not (tmp_path / "b").exists()


@everywhere
def test_a_large_table_and_a_delivered_file_are_read_as_one(flights: Dataset, tmp_path: Path) -> None:
    table = pa.table({"id": range(60_000), "name": [f"{i % 977:0200}" for i in range(60_000)]})
    delivered = tmp_path / "more.csv"
    delivered.write_text("id,name\n-1,late\n")
    version = flights.commit({"a": table, "b": delivered})
    assert len(version.paths("a")) > 1
    assert version.to_arrow().num_rows == 60_001
    assert version.to_arrow().slice(0, 60_000).equals(table)
    assert version.to_arrow(["b", "a"])["id"].to_pylist()[:3] == [-1, 0, 1]


@everywhere
def test_a_table_is_read_part_by_part(flights: Dataset, tmp_path: Path) -> None:
    table = pa.table({"id": range(60_000), "name": [f"{i % 977:0200}" for i in range(60_000)]})
    version = flights.commit({"a": table})
    parts = version.table_parts()
    assert len(parts) == len(version.paths("a"))
    assert [(part.number, part.component, part.index) for part in parts] == [(i, "a", 0) for i in range(len(parts))]
    assert sum(part.size for part in parts) == sum(path.stat().st_size for path in version.paths("a"))
    assert pa.concat_tables(version.to_arrow(parts=[part.number]) for part in parts).equals(table)
    assert version.to_arrow(parts=[1, 0], columns=["id"])["id"][0].as_py() > 0
    assert version.to_arrow(parts=[]).num_rows == 0
    assert version.to_arrow(parts=[]).schema.equals(table.schema)
    wanted = ds.field("id") >= 59_999
    assert version.to_arrow(parts=[len(parts) - 1], filter=wanted).num_rows == 1
    assert version.table_parts(filter=wanted)[-1] == parts[-1]
    error = error_of(lambda: version.to_arrow(parts=[len(parts)]))
    assert f"has no part {len(parts)}: its table has {len(parts)}, from 0 to {len(parts) - 1}" in str(error)
    delivered = tmp_path / "more.csv"
    delivered.write_text("id,name\n-1,late\n")
    both = flights.commit({"a": table, "b": delivered})
    numbers = [part.number for part in both.table_parts()]
    assert len(numbers) == len(parts) + 1
    assert pa.concat_tables(both.to_arrow(parts=[number]) for number in numbers).equals(both.to_arrow())
