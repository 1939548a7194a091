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
