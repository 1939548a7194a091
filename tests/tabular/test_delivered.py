"""Delivered files are read as what they say: a type is proven over every value, and what is not recognised is refused."""

import io
import json
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_registry import Dataset, Registry, Version
from dataset_registry.errors import InputError, UnreadableFile
from dataset_registry.model.schema import ColumnStatistics


@pytest.fixture
def dataset(embedded: Registry) -> Dataset:
    return embedded.create_dataset("raw/delivered")


@pytest.fixture
def deliver(dataset: Dataset, tmp_path: Path) -> Callable[..., Version]:
    """The version after a file of this name and content was committed."""

    def delivered(name: str, content: str | bytes, **read: Any) -> Version:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return dataset.commit({"data": path}, read=read or None)

    return delivered


def column(version: Version, name: str = "x") -> tuple[str, list[Any]]:
    table = version.to_arrow()
    assert version.to_pandas().shape == (table.num_rows, table.num_columns)
    assert version.to_polars().columns == table.column_names
    captured = {c.name: c.type for c in version.schema.tables()["data"].columns}
    assert captured[name] == str(table.schema.field(name).type)
    return captured[name], table[name].to_pylist()


MANY = 30_000


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1"] * MANY + ["1.5"], "double"),
        (["12345"] * MANY + ["02134"], "string"),
        (["2024-01-31"] * MANY + ["2024-01-31 12:30:00"], "string"),
        (["1" * 40], "string"),
        (["9223372036854775808", "1"], "uint64"),
        (["18446744073709551616", "-1"], "decimal128(38, 0)"),
        (["NO", "YES"], "string"),
        (["t", "f"], "string"),
        (["0x1F", "0x20"], "string"),
        (["1E5", "2E10"], "string"),
        (["1E5", "123"], "string"),
        (["1.5e-7", "2.0"], "double"),
        (["10-12-14", "11-12-14"], "string"),
        (["+5", "6"], "string"),
        (["-0", "1"], "string"),
        (["1,5", "2"], "string"),
        (["1_000", "2"], "string"),
        (["0.1", "0.12345678901234567890"], "decimal128(20, 19)"),
        (["0." + "1" * 60, "1.0"], "string"),
        (["1e400", "1.5"], "string"),
        (["true", "false"], "bool"),
        (["True", "False"], "string"),
        (["2024-02-30", "2024-02-28"], "string"),
        (["2024-1-5", "2024-01-06"], "string"),
        (["2024-01-05T10:00:00", "2024-01-06 11:00:00.5"], "timestamp[us]"),
        (["2024-01-05T10:00:00Z", "2024-01-06T11:00:00+02:00"], "timestamp[us, tz=UTC]"),
        (["2024-01-05T10:00:00Z", "2024-01-06T11:00:00"], "string"),
        (["2024-01-05 10:00:00.123456789", "2024-01-06 11:00:00"], "timestamp[ns]"),
        (["24:00:00", "10:00:00"], "string"),
        (["10:30:00", "23:59:59.5"], "time64[us]"),
        (["10:30", "02:15"], "string"),
        (["0000-01-01", "2024-01-01"], "string"),
        ([" 1", "2"], "string"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[0][:20]}…{value[-1][:30]}",
)
def test_a_column_has_a_type_that_says_what_every_text_says(
    deliver: Callable[..., Version], values: list[str], kind: str
) -> None:
    text = "x,n\n" + "".join(f'"{value}",1\n' for value in values)
    found, given = column(deliver("f.csv", text))
    assert found == kind
    if kind == "string":
        assert given == values


def test_bounds_are_those_of_the_whole_file(deliver: Callable[..., Version]) -> None:
    version = deliver("f.csv", "x\n" + "2024-01-31\n" * MANY + "2024-02-01\n")
    assert version.schema.tables()["data"].statistics["x"] == ColumnStatistics(0, "2024-01-31", "2024-02-01")
    assert deliver("f.csv", "x\n1.5\nNaN\n-inf\n").schema.tables()["data"].statistics["x"] == ColumnStatistics(
        0, "-inf", 1.5
    )


def test_null_is_the_empty_field_and_a_quoted_one_is_a_text(deliver: Callable[..., Version]) -> None:
    version = deliver("f.csv", 'x,y\n1,\n"",""\n3,a\n')
    assert column(version, "x") == ("int64", [1, None, 3])
    assert column(version, "y") == ("string", [None, "", "a"])
    assert version.schema.tables()["data"].statistics["y"].null_count == 1


def test_lines_of_json_are_read_to_the_last(deliver: Callable[..., Version]) -> None:
    lines = [{"x": "2024-01-01"}, {"x": "2024-01-02"}, {"x": "2024-01-03"}, {"x": "2024-01-04 10:00:00"}]
    found = column(deliver("f.ndjson", "\n".join(map(json.dumps, lines))))
    assert found == ("string", [line["x"] for line in lines])
    assert column(deliver("f.ndjson", '{"x": "2024-01-01"}\n{"x": null}\n'))[0] == "date32[day]"
    assert column(deliver("f.ndjson", '{"x": "1"}\n{"x": "02"}\n')) == ("string", ["1", "02"])


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ('{"x": %s}' % ("1" * 40), "string", ["1" * 40]),
        ('{"x": 18446744073709551615}', "uint64", [(1 << 64) - 1]),
        ('{"x": 1}\n{"x": -1}', "int64", [1, -1]),
        ('{"x": 0.1}\n{"x": 0.12345678901234567890}', "decimal128(20, 19)", None),
        ('{"x": 0.30000000000000004}', "double", [0.30000000000000004]),
        ('{"x": 1}\n{"x": "a"}', "string", ["1", '"a"']),
        ('{"x": {"y": 0.12345678901234567890}}', "struct<y: string>", [{"y": "0.12345678901234567890"}]),
        ('{"x": [1, %s]}' % ("9" * 30), "list<element: string>", [["1", "9" * 30]]),
        ('{"x": {"A": 1, "a": 2}}', "string", ['{"A":1,"a":2}']),
        ('{"x": true}\n{"x": null}', "bool", [True, None]),
        ('{"x": {}}', "string", ["{}"]),
    ],
)
def test_no_digit_of_a_json_number_is_lost(
    deliver: Callable[..., Version], text: str, kind: str, values: list[Any] | None
) -> None:
    found, given = column(deliver("f.json", text))
    assert found == kind
    if values is not None:
        assert given == values


def test_names_are_those_of_the_file(deliver: Callable[..., Version]) -> None:
    version = deliver("f.csv", "ID,id,a.b, c,,é\n1,2,3,4,5,6\n")
    assert version.to_arrow().column_names == ["ID", "id", "a.b", " c", "column_5", "é"]
    assert version.to_arrow().to_pylist()[0]["ID"] == 1
    assert "column_5" in version.schema.tables()["data"].notes[0]
    assert deliver("f.json", '{"ID": 1, "id": 2, "": 3}').to_arrow().to_pylist() == [{"ID": 1, "id": 2, "column_3": 3}]


def test_two_columns_of_one_name_are_refused_with_their_positions(deliver: Callable[..., Version]) -> None:
    with pytest.raises(UnreadableFile, match=r"'a' in columns 1, 3"):
        deliver("f.csv", "a,b,a\n1,2,3\n")
    with pytest.raises(UnreadableFile, match="duplicate key"):
        deliver("f.json", '{"a": 1, "a": 2}')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Report of May\n\nid,name\n1,a\n2,b\n", r"read=\{'skip_rows': 1\}"),
        ("# made by hand\nid,name\n1,a\n2,b\n", r"read=\{'comment': '#'\}"),
        ("# id,name,x\nid,name,x\n1,a,2\n", r"comment, or the header.*read=\{'comment': '#'\}"),
        ("a,b,c\n1,2,3\n4,5\n6,7,8\n", "Line: 3"),
        ('a,b\n1,"x\n2,y\n', "a quote is not closed"),
        ("a,b\n1,\xff\n".encode("latin-1"), r"read=\{'encoding': 'latin-1'\}"),
        ("a,b\n1,2\n".encode("utf-16"), r"read=\{'encoding': 'utf-16'\}"),
    ],
)
def test_what_stands_on_top_is_never_read_as_a_table(
    deliver: Callable[..., Version], text: str | bytes, words: str
) -> None:
    with pytest.raises(UnreadableFile, match=words):
        deliver("f.csv", text)


def test_a_line_that_names_the_separator_is_recognised(deliver: Callable[..., Version]) -> None:
    assert deliver("f.csv", "sep=;\na;b\n1;2\n").to_arrow().to_pylist() == [{"a": 1, "b": 2}]


def test_long_cells_large_objects_and_mixed_newlines_are_read(deliver: Callable[..., Version]) -> None:
    long = "x" * 3_000_000
    assert deliver("f.csv", f'x,y\n1,"{long}"\n2,z\n').to_arrow()["y"].to_pylist() == [long, "z"]
    assert deliver("f.json", json.dumps({"x": long * 6})).to_arrow()["x"].to_pylist() == [long * 6]
    mixed = deliver("f.csv", b'x,y\n1,a\r\n2,"b\r\nc"\n3,d\r')
    assert mixed.to_arrow().to_pylist() == [{"x": 1, "y": "a"}, {"x": 2, "y": "b\r\nc"}, {"x": 3, "y": "d"}]


@pytest.mark.parametrize(
    ("read", "text", "row"),
    [
        ({"types": {"zip": "string"}}, "zip\n2134\n", {"zip": "2134"}),
        ({"types": {"n": "int32"}}, "n\n007\n", {"n": 7}),
        ({"types": {"n": "decimal128(10, 2)"}}, "n\n1.5\n", {"n": Decimal("1.50")}),
        ({"types": {"ok": "bool"}}, "ok\nyes\n", {"ok": True}),
        ({"delimiter": "~"}, "a~b\n1~2\n", {"a": 1, "b": 2}),
        ({"header": False}, "a,b\n", {"column_1": "a", "column_2": "b"}),
        ({"header": True}, "2023,2024\n1,2\n", {"2023": 1, "2024": 2}),
        ({"skip_rows": 2}, "title\nnote\na,b\n1,2\n", {"a": 1, "b": 2}),
        ({"comment": "#"}, "#x\na,b\n1,2#3\n# y,z\n", {"a": 1, "b": "2#3"}),
        ({"encoding": "cp1252"}, "a\n€\n".encode("cp1252"), {"a": "€"}),
        ({"encoding": "utf-16"}, "a\n日本\n".encode("utf-16"), {"a": "日本"}),
        ({"decimal": ",", "delimiter": ";"}, "a;b\n1,5;x\n", {"a": 1.5, "b": "x"}),
        ({"null_values": ["NA", "-"]}, "a,b\nNA,1\n", {"a": None, "b": 1}),
        ({"date_format": "%d.%m.%Y"}, "a\n31.12.2024\n", {"a": __import__("datetime").date(2024, 12, 31)}),
        ({"quote": ""}, 'a,b\n5" pipe,1\n', {"a": '5" pipe', "b": 1}),
        ({"comment": "#"}, "# made\n\n# by hand\na,b\n1,2\n", {"a": 1, "b": 2}),
        ({"comment": "#"}, 'a,b\n5" x,1\n# a note\n6,2\n', {"a": '5" x', "b": 1}),
        ({"comment": "#"}, 'a,b\n"say ""\n# no comment",1\n', {"a": 'say "\n# no comment', "b": 1}),
        ({"skip_rows": 2}, 'a title with a "\n\na,b\n1,2\n', {"a": 1, "b": 2}),
        ({"types": {"a": "float"}}, "a\n0.1\n", {"a": pa.scalar(0.1, pa.float32()).as_py()}),
        ({"types": {"a": "double"}}, "a\n+1.50e2\n", {"a": 150.0}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_read_options_say_what_the_file_does_not(
    deliver: Callable[..., Version], read: dict[str, Any], text: str | bytes, row: dict[str, Any]
) -> None:
    version = deliver("f.csv", text, **read)
    assert version.to_arrow().to_pylist()[0] == row
    assert version.to_polars().to_dicts()[0] == row


def test_read_options_belong_to_the_format_and_hold_on(deliver: Callable[..., Version], dataset: Dataset) -> None:
    first = deliver("f.csv", "zip;n\n02134;1\n", delimiter=";", types={"zip": "string"})
    assert first.components[0].format == 'csv; {"delimiter":";","types":{"zip":"string"}}'
    second = deliver("f.csv", "zip;n\n11111;1\n")
    assert second.to_arrow().to_pylist() == [{"zip": "11111", "n": 1}]
    assert second.components[0].format == first.components[0].format
    with pytest.raises(InputError, match=r"which the file does not have.*options of the previous version.*read=\{\}"):
        deliver("f.csv", "code;n\n1;1\n")
    dropped = dataset.commit({"data": b"zip,n\n11111,1\n"}, read={"format": "csv"})
    assert dropped.to_arrow().schema.field("zip").type == pa.int64()
    assert dropped.components[0].format == "csv"


@pytest.mark.parametrize(
    ("read", "words"),
    [
        ({"delimeter": ";"}, "Did you mean 'delimiter'"),
        ({"delimiter": ";;"}, "must be one character"),
        ({"encoding": "klingon"}, "name of a codec"),
        ({"types": {"x": "int65"}}, "'int65' is not a type for the column 'x'"),
        ({"types": {"y": "int64"}}, r"names the column 'y'.*It has: 'x'"),
        ({"skip_rows": -1}, "a number of lines"),
        ({"sheet": "a"}, "is for excel files"),
        ({"header": "yes"}, "true or false"),
        ({"null_values": 5}, "a list of texts"),
        ({"date_format": "%H:%M"}, "with year, month and day"),
        ({"date_format": "%m/%d"}, "with year, month and day"),
        ({"date_format": "%Y-%m-%d %I:%M"}, "with year, month and day"),
        ({"date_format": "%Y-%m-%dT%H:%M%z"}, "without time zones"),
        ({"date_format": "%c"}, "locale formats"),
        ({"date_format": "%Y-%m-%d %H:%M", "types": {"x": "date32"}}, r"it is read as timestamp\[us\]"),
        ({"date_format": "%Y-%m-%d", "types": {"x": "timestamp[us, tz=UTC]"}}, "it is read as date32 or timestamp"),
    ],
)
def test_an_option_that_does_not_fit_is_an_error_that_says_which_would(
    deliver: Callable[..., Version], read: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        deliver("f.csv", "x\n1\n", **read)


def test_a_declared_type_that_does_not_hold_is_refused_with_the_value_and_its_row(
    deliver: Callable[..., Version],
) -> None:
    with pytest.raises(UnreadableFile, match=r"Column 'x': '1\.5' in row 3.*'string' does"):
        deliver("f.csv", "x\n1\n2\n1.5\n", types={"x": "int64"})
    for text, type in (
        ("1.239", "decimal128(10, 2)"),
        ("0.12345678901234567890", "double"),
        ("0.123456789", "float"),
    ):
        with pytest.raises(UnreadableFile, match=f"'{text}' in row 1"):
            deliver("f.csv", f"x\n{text}\n", types={"x": type})


def test_options_that_made_columns_are_not_carried_to_a_file_of_one(deliver: Callable[..., Version]) -> None:
    deliver("f.csv", "a;b\n1;2\n", delimiter=";")
    with pytest.raises(UnreadableFile, match=r"one column, 'a,b', and the previous version has more.*read=\{\}"):
        deliver("f.csv", "a,b\n1,2\n")
    with pytest.raises(UnreadableFile, match=r"says 'sep=,'.*another delimiter"):
        deliver("f.csv", "sep=,\na,b\n1,2\n", delimiter=";")


def test_a_table_of_thousands_of_columns_is_read(deliver: Callable[..., Version]) -> None:
    names = [f"c{i}" for i in range(600)]
    version = deliver("f.csv", f"{','.join(names)}\n{','.join(map(str, range(600)))}\n")
    assert version.to_arrow().to_pylist() == [dict(zip(names, range(600), strict=True))]


LONG = "0.12345678901234567891"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (b'\xef\xbb\xbf[{"a":1}]', [{"a": 1}]),
        ('{"a":{"x":1,"y":2}}\n{"a":{"y":3,"x":4}}\n', [{"a": {"x": 1, "y": 2}}, {"a": {"x": 4, "y": 3}}]),
        (f'{{"a":{LONG}}}\nnull\n', [{"a": Decimal(LONG)}, {"a": None}]),
        (f"{LONG}\n1.5\n", [{"json": Decimal(LONG)}, {"json": Decimal("1.5")}]),
    ],
    ids=["byte order mark", "keys in another order", "null among rewritten rows", "number at the start"],
)
def test_json_is_read_as_it_stands(
    deliver: Callable[..., Version], text: str | bytes, rows: list[dict[str, Any]]
) -> None:
    assert deliver("f.json", text).to_arrow().to_pylist() == rows


def test_json_below_32_levels_is_text_with_all_digits(deliver: Callable[..., Version]) -> None:
    (value,) = deliver("f.json", '{"a":' + '{"b":' * 40 + LONG + "}" * 41).to_arrow()["a"].to_pylist()
    while isinstance(value, dict):
        value = value["b"]
    assert value == '{"b":' * 9 + LONG + "}" * 9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}\n{}\n", "have no keys"),
        ('{"a":' + "[" * 5000 + "]" * 5000 + "}", "nests values to a depth"),
        ('{"":1,"column_1":2}', "key without a name, which is the column column_1"),
    ],
)
def test_json_that_is_no_table_is_refused(deliver: Callable[..., Version], text: str, words: str) -> None:
    with pytest.raises(UnreadableFile, match=words):
        deliver("f.json", text)


def test_a_spreadsheet_keeps_durations_digits_times_and_names(dataset: Dataset, tmp_path: Path) -> None:
    import datetime as dt

    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["lasts", "mixed", "at", None, "ID", "id"])
    sheet.append([dt.timedelta(hours=30, minutes=5), 1 / 3, dt.time(10, 30), 1, 1, 2])
    sheet.append([dt.timedelta(seconds=5), "text", dt.time(0, 0, 1), 2, 3, 4])
    book.save(tmp_path / "f.xlsx")
    version = dataset.commit({"data": tmp_path / "f.xlsx"})
    table = version.to_arrow()
    assert table.column_names == ["lasts", "mixed", "at", "column_4", "ID", "id"]
    assert table["lasts"].to_pylist() == [dt.timedelta(hours=30, minutes=5), dt.timedelta(seconds=5)]
    assert table["mixed"].to_pylist() == [repr(1 / 3), "text"]
    assert table["at"].to_pylist() == [dt.time(10, 30), dt.time(0, 0, 1)]
    statistics = version.schema.tables()["data/Sheet"].statistics
    assert statistics["lasts"] == ColumnStatistics(0, "PT5S", "PT108300S")


def sheet_of(path: Path, rows: list[list[Any]], first_row: int = 1) -> Path:
    """A spreadsheet with these rows, as a program that computes nothing writes it."""
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for i, row in enumerate(rows, first_row):
        for j, value in enumerate(row, 1):
            sheet.cell(i, j, value)
    book.save(path)
    return path


def test_a_sheet_is_read_from_its_first_cell_and_nothing_in_it_becomes_another(
    dataset: Dataset, tmp_path: Path
) -> None:
    import datetime as dt

    rows = [["a", "b", "c"], [1, True, dt.time(1, 2, 3)], [True, False, dt.datetime(2020, 1, 1)]]
    table = dataset.commit({"data": sheet_of(tmp_path / "f.xlsx", rows, first_row=3)}).to_arrow()
    assert table.to_pylist() == [
        {"a": "1", "b": True, "c": "01:02:03"},
        {"a": "true", "b": False, "c": "2020-01-01 00:00:00"},
    ]


@pytest.mark.parametrize(
    ("rows", "read", "words"),
    [
        ([["a", "b"], [1, "=A2+1"]], {}, "cell B2 has a formula without a value"),
        ([["Report", None], [None, None], ["a", "b"], [1, 2]], {}, r"is it a title\?.*skip_rows"),
        ([["a"], [1]], {"skip_rows": 50}, "nothing behind its first 50 rows"),
    ],
)
def test_a_sheet_that_would_lose_values_is_refused(
    dataset: Dataset, tmp_path: Path, rows: list[list[Any]], read: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnreadableFile, match=words):
        dataset.commit({"data": sheet_of(tmp_path / "f.xlsx", rows)}, read=read)


def test_a_cell_with_an_error_is_refused_unless_it_is_null(dataset: Dataset, tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["x"])
    sheet.append([1])
    sheet.append(["#N/A"])
    sheet["A3"].data_type = "e"
    book.save(tmp_path / "f.xlsx")
    with pytest.raises(UnreadableFile, match=r"row 3, column 1.*#N/A.*null_values"):
        dataset.commit({"data": tmp_path / "f.xlsx"})
    version = dataset.commit({"data": tmp_path / "f.xlsx"}, read={"null_values": ["#N/A"]})
    assert version.to_arrow()["x"].to_pylist() == [1, None]


def test_one_sheet_of_a_spreadsheet_may_be_the_table(dataset: Dataset, tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "f.xlsx") as book:
        pd.DataFrame({"a": [1]}).to_excel(book, sheet_name="one", index=False)
        pd.DataFrame({"b": [2]}).to_excel(book, sheet_name="two", index=False)
    version = dataset.commit({"data": tmp_path / "f.xlsx"}, read={"sheet": "two"})
    assert version.to_arrow().column_names == ["b"]
    with pytest.raises(InputError, match="no sheet 'three'"):
        dataset.commit({"other": tmp_path / "f.xlsx"}, read={"sheet": "three"})


def test_timestamps_that_spark_wrote_are_read_by_every_reader(dataset: Dataset, tmp_path: Path) -> None:
    import datetime as dt

    moments = [dt.datetime(2024, 1, 1, 12), dt.datetime(9999, 12, 31, 23, 59, 59)]
    pq.write_table(
        pa.table({"t": pa.array(moments, pa.timestamp("us"))}),
        tmp_path / "f.parquet",
        use_deprecated_int96_timestamps=True,
    )
    version = dataset.commit({"data": tmp_path / "f.parquet"})
    assert version.to_arrow()["t"].to_pylist() == moments
    assert version.scan().to_table()["t"].to_pylist() == moments
    assert version.to_polars()["t"].to_list() == moments
    assert [row[0] for row in version.to_duckdb().fetchall()] == moments
    assert version.to_pandas()["t"].dt.to_pydatetime().tolist() == moments
    assert version.lazy().collect()["t"].to_list() == moments


def test_bounds_of_a_struct_are_not_those_of_a_column_of_that_name(dataset: Dataset) -> None:
    table = pa.table({"a": [{"b": 100}, {"b": 200}], "a.b": [1, 2]})
    statistics = dataset.commit({"data": table}).schema.tables()["data"].statistics
    assert statistics["a.b"] == ColumnStatistics(0, 1, 2)


def test_a_file_captured_by_an_earlier_rule_is_read_as_it_was(dataset: Dataset, tmp_path: Path) -> None:
    """The capture of revision 0013, as its code wrote it: NO and 02134 were taken for a boolean and a number."""
    path = tmp_path / "f.csv"
    path.write_text("flag,zip\nNO,02134\nYES,12345\n")
    version = dataset.commit({"data": path})
    assert version.to_arrow().to_pylist()[0] == {"flag": "NO", "zip": "02134"}
    catalog = dataset.access.catalog
    old = {
        "format": "csv",
        "tables": [
            {"name": None, "columns": [
                {"name": "flag", "type": "bool", "nullable": True}, {"name": "zip", "type": "int64", "nullable": True},
            ]}
        ],
    }  # fmt: skip

    def to_old(tx: Any) -> None:
        from sqlalchemy import text

        tx.execute(
            text("UPDATE schemas SET schema_json = :old, digest = :digest"),
            {"old": json.dumps(old), "digest": "0" * 64},
        )

    catalog.write(to_old)
    again = dataset.version()
    assert again.to_arrow().schema.field("zip").type == pa.int64()
    assert again.to_arrow().to_pylist()[0]["zip"] == 2134
    assert again.schema.tables()["data"].source is None, "the catalog says which rule captured what"
    anew = dataset.commit({"data": path}, message="captured by the rule that holds now")
    assert anew.number == 2
    assert anew.digest == again.digest
    assert anew.to_arrow().to_pylist()[0]["zip"] == "02134"
    assert anew.schema.tables()["data"].source["rule"] == "proven/1"  # type: ignore[index]
    assert dataset.version("v1").to_arrow().to_pylist()[0]["zip"] == 2134


def test_a_zip_is_no_table(deliver: Callable[..., Version]) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.csv", "a\n1\n")
    with pytest.raises(UnreadableFile):
        deliver("f.csv", sink.getvalue())


def test_what_is_read_lazily_and_eagerly_from_parquet_agrees_with_polars_own_reader(dataset: Dataset) -> None:
    frame = pl.DataFrame({"id": [1, 2], "name": ["a", None]})
    version = dataset.commit({"data": frame})
    assert version.lazy().collect().equals(frame)
    assert pl.read_parquet(version.paths()[0]).equals(frame)
