"""What a file says of itself: schemas and statistics per format, and clear words for files that are not what they say."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import InputError, RegistryError, UnreadableFile, UnsupportedType
from dataset_registry.model.schema import ColumnStatistics, TableSchema

Rows = Callable[[], SimpleNamespace]


@pytest.fixture
def dataset(embedded: Registry) -> Dataset:
    return embedded.create_dataset("raw/flights")


@pytest.fixture
def capture(dataset: Dataset, tmp_path: Path) -> Callable[..., TableSchema]:
    """The schema captured of a file with this name and content."""

    def captured(name: str, content: str | bytes, **facts: Any) -> TableSchema:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        with dataset.draft() as draft:
            draft.add("data", path, **facts)
        return dataset.version().schema.tables()["data"]

    return captured


def types(table: TableSchema) -> dict[str, str]:
    return {column.name: column.type for column in table.columns}


def test_a_csv_is_captured_with_types_nulls_and_bounds(capture: Callable[..., TableSchema]) -> None:
    table = capture("f.csv", 'id,name,day,x\n1,"a, b",2024-01-31,1.5\n2,,2023-12-01,\n')
    assert types(table) == {"id": "int64", "name": "string", "day": "date32[day]", "x": "double"}
    assert table.rows == 2
    assert table.statistics == {
        "id": ColumnStatistics(0, 1, 2),
        "name": ColumnStatistics(1, "a, b", "a, b"),
        "day": ColumnStatistics(0, "2023-12-01", "2024-01-31"),
        "x": ColumnStatistics(1, 1.5, 1.5),
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a;b\n1;2\n", {"a": "int64", "b": "int64"}),
        ("a\tb\n1\t2\n", {"a": "int64", "b": "int64"}),
        ("a|b\n1|2\n", {"a": "int64", "b": "int64"}),
        ("only\nx\n", {"only": "string"}),
        ("a,b\n", {"a": "string", "b": "string"}),
        ('a,"b ""quoted"""\n1,2\n', {"a": "int64", 'b "quoted"': "int64"}),
        ("a,b\r\n1,2\r\n", {"a": "int64", "b": "int64"}),
        ("ä,日\n1,é\n", {"ä": "int64", "日": "string"}),
        ("\ufeffa,b\n1,2\n", {"a": "int64", "b": "int64"}),
    ],
)
def test_csv_dialects_are_recognised(
    capture: Callable[..., TableSchema], content: str, expected: dict[str, str]
) -> None:
    assert types(capture("f.csv", content)) == expected


def test_a_value_late_in_a_csv_decides_the_type_too(capture: Callable[..., TableSchema], dataset: Dataset) -> None:
    table = capture("f.csv", "a,b\n" + "".join(f"{i},{i}\n" for i in range(30_000)) + "late,1\n")
    assert types(table) == {"a": "string", "b": "int64"}
    assert table.rows == 30_001
    assert dataset.version().to_arrow()["a"][-1].as_py() == "late"


def test_no_row_of_a_csv_is_taken_for_a_comment(capture: Callable[..., TableSchema]) -> None:
    assert capture("f.csv", "a,b\n1,2\n#3,4\n5,6\n").rows == 3


def test_a_key_late_in_a_json_file_is_a_column(capture: Callable[..., TableSchema]) -> None:
    table = capture("f.json", '{"a": 1}\n' * 30_000 + '{"a": 2, "new": 5}\n')
    assert types(table) == {"a": "int64", "new": "int64"}
    assert table.rows == 30_001


def test_what_was_read_in_one_encoding_is_not_known_in_another(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes("n\u00e4me\nx\n".encode())
    with dataset.draft() as draft:
        draft.add("data", path, read={"encoding": "latin-1"})
    assert [c.name for c in dataset.version().schema.columns] == ["n\u00c3\u00a4me"]
    dataset.commit({"data": path}, read={})
    assert (
        [c.name for c in dataset.version().schema.columns] == dataset.version().to_arrow().column_names == ["n\u00e4me"]
    )


def test_moments_beyond_pythons_last_year_are_kept(dataset: Dataset, tmp_path: Path) -> None:
    table = pa.table({"d": pa.array([0, 4_000_000], pa.int32()).cast(pa.date32()), "n": [1, 2]})
    version = dataset.commit({"data": table})
    assert version.schema.tables()["data"].statistics["d"] == ColumnStatistics(0, None, None)
    pq.write_table(table, tmp_path / "f.parquet")
    assert dataset.commit({"file": tmp_path / "f.parquet"}).schema.tables()["file"].statistics["n"].max == 2


def test_a_spreadsheet_with_one_cell_far_out_is_refused_and_the_process_lives(dataset: Dataset, tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active["A1"] = "here"  # type: ignore[index]
    book.active["XFD1048576"] = "there"  # type: ignore[index]
    book.save(tmp_path / "bomb.xlsx")
    with pytest.raises(UnreadableFile, match=r"1,048,576 rows and 16,384 columns.*format='binary'"):
        dataset.commit({"data": tmp_path / "bomb.xlsx"})


def test_a_file_of_too_many_columns_is_refused_soon(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text(",".join(f"c{i}" for i in range(5000)) + "\n")
    with pytest.raises(UnreadableFile, match="5,000 columns"):
        dataset.commit({"data": tmp_path / "f.csv"})


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_csv_in_another_encoding_is_read_when_it_is_named(
    capture: Callable[..., TableSchema], dataset: Dataset, encoding: str
) -> None:
    content = "name,city\nJörg,Köln\n".encode(encoding)
    with pytest.raises(UnreadableFile, match=f"read={{'encoding': '{encoding}'}}"):
        capture("f.csv", content)
    table = capture("f.csv", content, read={"encoding": encoding})
    assert table.statistics["city"].min == "Köln"
    assert dataset.version().to_arrow().to_pylist() == [{"name": "Jörg", "city": "Köln"}]
    assert dataset.version().components[0].format == f"csv; charset={encoding}"


def test_json_is_captured_with_nested_types(capture: Callable[..., TableSchema]) -> None:
    table = capture("f.json", '{"id": 1, "place": {"x": 1.5, "tags": ["a"]}}\n{"id": null}\n')
    assert types(table)["place"] == "struct<x: double, tags: list<element: string>>"
    assert table.statistics["id"] == ColumnStatistics(1, 1, 1)
    assert types(capture("array.json", '[{"a": 1}, {"a": 2}]')) == {"a": "int64"}


def test_parquet_is_captured_with_nested_types_nullability_and_bounds(dataset: Dataset, tmp_path: Path) -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("s", pa.struct([pa.field("a", pa.int32()), pa.field("b", pa.list_(pa.string()))])),
            pa.field("m", pa.map_(pa.string(), pa.int32())),
            pa.field("d", pa.decimal256(40, 2)),
            pa.field("t", pa.timestamp("us", "UTC")),
            pa.field("c", pa.dictionary(pa.int8(), pa.string())),
        ]
    )
    row = {"id": 7, "s": {"a": 1, "b": ["x"]}, "m": [("k", 1)], "d": None, "t": 0, "c": "red"}
    pq.write_table(pa.Table.from_pylist([row], schema=schema), tmp_path / "f.parquet")
    table = dataset.commit({"data": tmp_path / "f.parquet"}).schema.tables()["data"]
    assert types(table) == {
        "id": "int64",
        "s": "struct<a: int32, b: list<element: string>>",
        "m": "map<string, int32>",
        "d": "decimal256(40, 2)",
        "t": "timestamp[us, tz=UTC]",
        "c": "string",
    }
    assert [column.nullable for column in table.columns] == [False, True, True, True, True, True]
    assert table.statistics["id"] == ColumnStatistics(0, 7, 7)
    assert table.statistics["t"].min == "1970-01-01T00:00:00+00:00"
    assert table.statistics["d"].null_count == 1


def test_every_sheet_of_a_spreadsheet_is_captured(dataset: Dataset, tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "f.xlsx") as book:
        pd.DataFrame({"code": [*range(2000), "late text"], "n": range(2001)}).to_excel(
            book, sheet_name="codes", index=False
        )
        pd.DataFrame({"when": [pd.Timestamp("2024-01-31 12:00")]}).to_excel(book, sheet_name="dates", index=False)
    tables = dataset.commit({"book": tmp_path / "f.xlsx"}).schema.tables()
    assert types(tables["book/codes"]) == {"code": "string", "n": "double"}
    assert tables["book/codes"].statistics["code"] == ColumnStatistics(0, "0", "late text")
    assert tables["book/codes"].rows == 2001
    assert types(tables["book/dates"])["when"].startswith("timestamp")


def test_known_content_is_not_captured_again(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.csv"
    path.write_text("a\n1\n")
    first = dataset.commit({"one": path})
    monkeypatch.setattr("dataset_registry.tabular.capture.capture", lambda *_: pytest.fail("read again"))
    second = dataset.commit({"two": path})
    assert second.schema.components["two"] == first.schema.components["one"]


BAD = {
    "empty.csv": (b"", "empty"),
    "empty.parquet": (b"", "empty"),
    "empty.json": (b"", "empty"),
    "empty.xlsx": (b"", "empty"),
    "ragged.csv": (b"a,b,c\n1,2,3\n4,5\n6,7,8,9\n", "Line: 3, expected number of columns: 3 found: 2"),
    "ragged-late.csv": (b"a,b\n" + b"1,2\n" * 25_000 + b"1,2,3\n", "Line: 25002"),
    "latin.csv": ("name\nJörg\n".encode("latin-1"), "read={'encoding': 'latin-1'}"),
    "noise.csv": (bytes(range(256)) * 20, "csv file"),
    "truncated.parquet": (b"PAR1" + b"\0" * 500, "not a whole Parquet file"),
    "text.parquet": (b"just text", "not a whole Parquet file"),
    "text.xlsx": (b"just text", "not a spreadsheet"),
    "zip.xlsx": (b"PK\x03\x04" + b"\0" * 100, "not a spreadsheet"),
    "cut.json": (b'{"a": [', "Malformed JSON"),
    "text.json": (b"just text", "json file cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_not_what_it_says_is_refused_with_the_next_step_and_leaves_nothing(
    dataset: Dataset, tmp_path: Path, name: str
) -> None:
    content, words = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableFile) as caught:
        dataset.commit({"data": path})
    message = str(caught.value)
    assert words in message
    assert "format='binary'" in message or "'encoding':" in message
    assert dataset.tree() == []
    assert not list((tmp_path / "store").rglob("*.*"))
    with dataset.draft() as draft:  # and the way out that the message names works
        draft.add("data", path, format="binary")
    with dataset.version().open() as stream:
        assert stream.read() == content


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([pa.scalar((1, 2, 3), pa.month_day_nano_interval())]), "Parquet has no type"),
        (pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]), "Parquet has no type"),
    ],
)
def test_a_table_that_parquet_cannot_hold_is_refused(dataset: Dataset, column: pa.Array, words: str) -> None:
    with pytest.raises(UnsupportedType, match=f"Column 'odd'.*{words}"):
        dataset.commit({"data": pa.table({"odd": column})})
    assert dataset.tree() == []


def test_a_pandas_frame_of_mixed_objects_is_refused(dataset: Dataset) -> None:
    with pytest.raises(UnsupportedType, match="one type"):
        dataset.commit({"data": pd.DataFrame({"a": [1, "x", object()]})})


def test_a_hostile_file_name_reaches_nothing(dataset: Dataset, tmp_path: Path) -> None:
    """DuckDB expands globs and follows lists in names: it must see only ours."""
    (tmp_path / "other.csv").write_text("secret\n1\n")
    for name in ("*.csv", "[ab].csv", "x'; DROP TABLE t; --.csv", "a\nb.csv"):
        path = tmp_path / name
        path.write_text("mine\n1\n")
        dataset.commit({"data": path})
        assert [column.name for column in dataset.version().schema.columns] == ["mine"]


def test_duckdb_reads_the_one_file_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    import duckdb

    from dataset_registry.tabular.sandbox import sandbox

    mine, other = tmp_path / "1", tmp_path / "2"
    mine.write_text("a\n1\n")
    other.write_text("b\n2\n")
    with sandbox(mine) as connection:
        assert connection.sql(f"FROM read_csv('{mine}')").fetchall() == [(1,)]
        for statement in (
            f"FROM read_csv('{other}')",
            "FROM read_text('/etc/passwd')",
            f"COPY (SELECT 1) TO '{tmp_path / 'written'}'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
            f"SET allowed_paths = ['{other}']",
            f"ATTACH '{tmp_path / 'db'}'",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(statement)


def test_an_unknown_format_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="parquet, csv, json, excel, binary"), dataset.draft() as draft:
        draft.add("data", b"1", format="xml")


def test_every_error_has_a_stable_code() -> None:
    def tree(kind: type[RegistryError]) -> list[type[RegistryError]]:
        return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]

    codes = [kind.code for kind in tree(RegistryError)]
    assert len(set(codes)) == len(codes)
    assert set(codes) >= {"invalid_name", "invalid_ref", "unreadable_file", "tag_immutable", "branch_moved", "conflict"}
