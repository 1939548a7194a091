"""Reading versions: tables in every library, lazily and without a copy; bytes; files in a folder."""

import datetime
import decimal
import hashlib
import io
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import CorruptionError, InputError, NotFound
from tests.chunking import every

pytestmark = pytest.mark.objects

TABLE = pa.table({"id": [1, 2, 3], "name": ["a", None, "c"], "x": [1.5, 2.5, None]})


@pytest.fixture
def dataset(embedded: Registry) -> Dataset:
    return embedded.create_dataset("raw/flights")


def test_a_table_comes_back_in_every_library(dataset: Dataset) -> None:
    version = dataset.commit({"data": TABLE})
    assert version.to_arrow() == TABLE
    assert version.to_polars().equals(pl.from_arrow(TABLE))
    pd.testing.assert_frame_equal(version.to_pandas(), TABLE.to_pandas())
    assert version.lazy().collect().equals(pl.from_arrow(TABLE))
    assert version.scan().to_table() == TABLE
    assert version.to_duckdb().fetchall() == [(1, "a", 1.5), (2, None, 2.5), (3, "c", None)]


def test_columns_and_rows_are_chosen_before_they_are_read(dataset: Dataset) -> None:
    version = dataset.commit({"data": TABLE})
    assert version.to_arrow(columns=["x"], filter=ds.field("id") > 1) == pa.table({"x": [2.5, None]})


def test_lazy_reads_go_to_the_stored_files(dataset: Dataset, tmp_path: Path) -> None:
    version = dataset.commit({"data": TABLE})
    (stored,) = version.paths()
    assert tmp_path / "store" / "objects" in stored.parents
    assert version.scan().files == [str(stored)]
    assert version.uris() == [stored.as_uri()]
    assert str(stored) in version.lazy().explain(optimized=False)


def test_the_same_table_from_every_library_has_one_digest(dataset: Dataset) -> None:
    frames = {
        "arrow": TABLE,
        "large": TABLE.cast(pa.schema([("id", pa.int64()), ("name", pa.large_string()), ("x", pa.float64())])),
        "pandas": TABLE.to_pandas(),
        "polars": pl.from_arrow(TABLE),
        "lazy": pl.from_arrow(TABLE).lazy(),  # type: ignore[union-attr]
        "duckdb": duckdb.from_arrow(TABLE),
        "reader": pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches(max_chunksize=1)),
        "chunked": pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)]),
        "dictionary": TABLE.set_column(1, "name", TABLE["name"].dictionary_encode()),
    }
    for frame in frames.values():
        dataset.commit({"data": frame})
    assert len({v.digest for v in dataset.tree()}) == 1


def test_types_that_the_stored_table_lacks_come_back(dataset: Dataset) -> None:
    frame = pd.DataFrame(
        {"c": pd.Categorical(["x", "y", "x"], ordered=True), "n": [1, 2, 3]}, index=pd.Index([10, 20, 30], name="key")
    )
    pd.testing.assert_frame_equal(dataset.commit({"data": frame}).to_pandas(), frame)
    categories = pl.DataFrame({"c": pl.Series(["b", "a"], dtype=pl.Categorical)})
    version = dataset.commit({"data": categories})
    assert version.to_polars().schema == categories.schema
    assert pq.read_schema(version.paths()[0]).field("c").type == pa.string()


def test_nested_and_exact_types_survive(dataset: Dataset) -> None:
    table = pa.table(
        {
            "s": pa.array([{"a": 1, "b": "x"}, None], pa.struct([("a", pa.int32()), ("b", pa.string())])),
            "l": pa.array([[1, 2], []], pa.list_(pa.int64())),
            "m": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
            "d": pa.array([decimal.Decimal("1.10"), None], pa.decimal128(20, 2)),
            "t": pa.array([datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), None], pa.timestamp("us", "UTC")),
            "day": pa.array([datetime.date(2024, 1, 1), None], pa.date32()),
            "b": pa.array([b"\0\1", None], pa.binary()),
            "u": pa.array([2**64 - 1, None], pa.uint64()),
            "f": pa.array([float("nan"), -0.0]),
        }
    )
    version = dataset.commit({"data": table})
    read = version.to_arrow()
    assert read.schema.field("t").type == pa.timestamp("us", "UTC")
    assert read.drop_columns("f").to_pylist() == table.drop_columns("f").to_pylist()
    names = {column.name: column.type for column in version.schema.columns}
    assert names["d"] == "decimal128(20, 2)"
    assert names["s"] == "struct<a: int32, b: string>"
    assert [field.name for field in version.schema.columns[2].fields] == ["key", "value"]


def test_tables_larger_than_a_part_are_several_files_and_one_component(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset_registry.tabular.chunking.split", every(200))
    table = pa.table({"n": range(1050)})
    version = dataset.commit({"data": pa.RecordBatchReader.from_batches(table.schema, table.to_batches(33))})
    assert [pq.read_metadata(path).num_rows for path in version.paths()] == [200] * 5 + [50]
    assert len(version.components) == 1
    assert version.to_arrow() == table
    assert version.schema.rows == 1050
    assert version.schema.tables()["data"].statistics["n"].max == 1049
    with pytest.raises(InputError, match="6 Parquet files"):
        version.open()
    longer = pa.concat_tables([table, pa.table({"n": range(1050, 1100)})])
    with dataset.draft() as draft:
        draft.add("data", longer)
    assert draft.result.new_bytes == version.access.store.size(str(_last_key(dataset)))


def _last_key(dataset: Dataset) -> str:
    return dataset.version().paths()[-1].name


def test_an_empty_table_keeps_its_columns(dataset: Dataset) -> None:
    version = dataset.commit({"data": TABLE.slice(0, 0)})
    assert version.to_arrow() == TABLE.slice(0, 0)
    assert version.schema.rows == 0


def test_files_are_read_as_tables_by_their_format(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("id,name\n1,a\n2,\n")
    (tmp_path / "f.json").write_text('{"id": 1, "tags": ["x"]}\n{"id": 2}\n')
    with pd.ExcelWriter(tmp_path / "f.xlsx") as book:
        pd.DataFrame({"a": [1]}).to_excel(book, sheet_name="one", index=False)
        pd.DataFrame({"b": ["x"]}).to_excel(book, sheet_name="two", index=False)
    version = dataset.commit({"csv": tmp_path / "f.csv", "json": tmp_path / "f.json", "book": tmp_path / "f.xlsx"})
    assert version.to_arrow("csv").to_pylist() == [{"id": 1, "name": "a"}, {"id": 2, "name": None}]
    assert version.to_polars("json")["tags"].to_list() == [["x"], None]
    assert version.to_arrow("book", sheet="two").to_pylist() == [{"b": "x"}]
    assert set(version.schema.tables()) == {"csv", "json", "book/one", "book/two"}
    for arguments, words in (
        ({"component": "book"}, "several sheets: one, two"),
        ({"component": "book", "sheet": "three"}, "no sheet 'three'"),
        ({}, "different columns"),
    ):
        with pytest.raises(InputError, match=words):
            version.to_arrow(**arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="only Parquet is read lazily"):
        version.scan("csv")


def test_components_with_the_same_columns_are_one_table(dataset: Dataset) -> None:
    version = dataset.commit({"b": TABLE.slice(1), "a": TABLE.slice(0, 1)})
    assert version.to_arrow() == TABLE
    assert version.to_arrow(["b"]) == TABLE.slice(1)


def test_components_whose_columns_differ_are_one_table_when_asked_by_name(dataset: Dataset) -> None:
    version = dataset.commit({"a": pa.table({"x": pa.array([1], pa.int32())}), "b": pa.table({"x": [2], "y": ["new"]})})
    wanted = [{"x": 1, "y": None}, {"x": 2, "y": "new"}]
    assert version.to_arrow(["a", "b"]).to_pylist() == wanted
    assert version.lazy(["a", "b"]).collect().to_dicts() == wanted
    assert version.to_duckdb(["a", "b"]).order("x").fetchall() == [(1, None), (2, "new")]


def test_plain_files_are_opened_and_checked_out(dataset: Dataset, tmp_path: Path) -> None:
    version = dataset.commit({"readme": b"# hi", "data": TABLE, "sub/../x": b"odd", "list": [b"0", b"1"]})
    with version.open("readme") as stream:
        assert stream.read() == b"# hi"
    paths = version.checkout(tmp_path / "out")
    assert sorted(path.name for path in paths) == ["data.parquet", "list", "list-1", "readme", "sub_.._x"]
    assert all(path.parent == tmp_path / "out" for path in paths)
    (tmp_path / "out" / "readme").write_bytes(b"mine to change")
    with pytest.raises(InputError, match="exists already"):
        version.checkout(tmp_path / "out")


def test_no_two_components_are_checked_out_as_one_file(dataset: Dataset, tmp_path: Path) -> None:
    components = {"a/b": b"1", "a_b": b"2", "A_B": b"3", "c": [b"4", b"5"], "c-1": b"6", "x" * 400: b"7", "...": b"8"}
    version = dataset.commit(components)
    paths = version.checkout(tmp_path / "out")
    assert len(set(paths)) == len(list((tmp_path / "out").iterdir())) == 8
    assert sorted(path.read_bytes() for path in paths) == [str(n).encode() for n in range(1, 9)]


def test_parts_with_categories_of_their_own_are_read_together(dataset: Dataset) -> None:
    """Each part's categories fit the writer's index type, all of them together do not."""
    frames = [pd.DataFrame({"c": pd.Categorical([f"{p}{i}" for i in range(100)])}) for p in "ab"]
    read = dataset.commit({"1": frames[0], "2": frames[1]}).to_pandas()
    assert read["c"].astype(str).tolist() == [f"{p}{i}" for p in "ab" for i in range(100)]


def test_tables_that_cannot_become_one_are_said_so(dataset: Dataset, tmp_path: Path) -> None:
    for name, text in (("1.csv", "a\n1\n"), ("2.csv", "a\nx\n")):
        (tmp_path / name).write_text(text)
    version = dataset.commit({"one": tmp_path / "1.csv", "two": tmp_path / "2.csv"})
    with pytest.raises(InputError, match="cannot be combined"):
        version.to_arrow(["one", "two"])


def test_a_registry_may_be_in_a_folder_of_any_name(tmp_path: Path) -> None:
    for name in ("reg?x=1", "a b%20c", "ü#1"):
        with Registry.open(tmp_path / name) as registry:
            registry.create_dataset("d").commit({"a": b"1"})
        assert {path.name for path in (tmp_path / name).iterdir()} >= {"catalog.sqlite", "objects"}
    assert len(list(tmp_path.iterdir())) == 3


def test_components_that_are_not_there_are_named(dataset: Dataset) -> None:
    version = dataset.commit({"a": b"1", "b": b"2"})
    with pytest.raises(NotFound, match="it has: 'a', 'b'"):
        version.open("c")
    with pytest.raises(InputError, match="several components"):
        version.open()
    with pytest.raises(InputError, match="no tables, only plain files"):
        version.to_arrow()
    with pytest.raises(NotFound, match="index 3"):
        version.open("a", index=3)


def test_a_missing_object_is_said_to_be_missing(dataset: Dataset) -> None:
    version = dataset.commit({"data": TABLE})
    version.paths()[0].unlink()
    with pytest.raises(CorruptionError, match="missing from the store"):
        version.to_arrow()


def test_versions_of_two_openings_are_told_apart_by_what_they_name(dataset: Dataset) -> None:
    version = dataset.commit({"data": io.BytesIO(b"1")})
    assert str(version) == "raw/flights@v1"
    assert repr(version).startswith("<Version raw/flights@v1 ")
    assert {version, dataset.version("v1")} == {version}
    assert version.component_count == 1
    assert version.id > 0


def test_no_component_hides_the_others(dataset: Dataset) -> None:
    version = dataset.commit({"data": pa.table({"x": [1]}), "more": pa.table({"y": [2]})})
    for read in (version.to_arrow, version.to_pandas, version.to_polars, version.lazy, version.scan, version.to_duckdb):
        with pytest.raises(InputError, match="several tables, with different columns: 'data', 'more'"):
            read()
    alike = dataset.commit({"more": pa.table({"x": [2]})})
    assert alike.to_arrow()["x"].to_pylist() == [1, 2]
    assert alike.to_arrow(["more", "data"])["x"].to_pylist() == [2, 1], "in the order that is asked for"


def test_a_component_is_set_once_in_a_draft_unless_it_says_replace(dataset: Dataset) -> None:
    with dataset.draft() as draft:
        draft.add("a", b"1")
        with pytest.raises(InputError, match=r"already sets the component 'a'.*replace=True"):
            draft.add("a", b"2")
        draft.add("a", b"3", replace=True)
        draft.add("a", b"4", index=1)
    with dataset.version().open("a") as stream:
        assert stream.read() == b"3"


def test_reads_trust_the_store_unless_they_are_asked_to_verify(embedded: Registry) -> None:
    content = b"id,n\n" + b"1,5\n" * 1000
    embedded.create_dataset("flights").commit({"csv": content, "table": pa.table({"x": range(1000)})})
    access = embedded.access
    (key,) = (found.key for found in access.store.list() if found.key.startswith(hashlib.sha256(content).hexdigest()))
    wrong = content.replace(b"5", b"6")
    access.store.delete(key)
    access.store.put(key, wrong)
    catalog = access.catalog.url.render_as_string(hide_password=False)
    assert embedded.version("flights").paths("csv")[0].read_bytes() == wrong
    with Registry.open(catalog=catalog, store=access.store, verify_reads=True) as verifying:
        for read in (lambda v: v.open("csv").read(), lambda v: v.paths("csv")):
            with pytest.raises(CorruptionError):
                read(verifying.version("flights"))
        assert verifying.version("flights").to_arrow("table").num_rows == 1000


def test_a_lazy_frame_of_what_expired_and_was_collected_fails_loudly(embedded: Registry) -> None:
    dataset = embedded.create_dataset("raw/flights")
    dataset.commit({"data": TABLE})
    lazy = dataset.version().lazy()
    assert lazy.collect().height == 3
    dataset.delete()
    embedded.collect(older_than=datetime.timedelta(0))
    with pytest.raises(FileNotFoundError):
        lazy.collect()
    with pytest.raises(NotFound):
        embedded.version("raw/flights")
