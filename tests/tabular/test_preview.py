"""Previews of tables: pages, filters and orders, beside DuckDB; and how values are shown."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_registry.errors import InputError
from dataset_registry.tabular import capture, isolated
from dataset_registry.tabular.preview import BINS, OPERATORS, PreviewQuery, PreviewSource, histogram, preview

ROWS = pa.table(
    {
        "id": pa.array(range(1000), pa.int64()),
        "n": pa.array([None if i % 7 == 0 else (i * 37) % 101 for i in range(1000)], pa.int32()),
        "x": [((i * 91) % 503) / 4 for i in range(1000)],
        "text": [f"name-{(i * 17) % 50}" for i in range(1000)],
        "day": [date(2026, 1, 1) + timedelta(days=(i * 13) % 300) for i in range(1000)],
    }
)
SQL = {"≠": "<>", "≤": "<=", "≥": ">="}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> PreviewSource:
    """The rows in three files with small row groups."""
    folder = tmp_path_factory.mktemp("parts")
    cuts = [(0, 300), (300, 350), (650, 350)]
    paths = [folder / f"{start}.parquet" for start, _ in cuts]
    for path, (start, count) in zip(paths, cuts, strict=True):
        pq.write_table(ROWS.slice(start, count), path, row_group_size=64)
    return PreviewSource(paths, [count for _, count in cuts])


@pytest.mark.parametrize(("offset", "limit"), [(0, 50), (290, 30), (640, 360), (995, 50), (1000, 5), (5000, 5)])
def test_a_page_has_the_rows_in_their_stored_order(offset: int, limit: int, parts: PreviewSource) -> None:
    found = preview(parts, PreviewQuery(columns=["id"], offset=offset, limit=limit))
    assert [row[0] for row in found.rows] == [str(i) for i in range(1000)][offset : offset + limit]
    assert found.has_more == (offset + limit < 1000)
    assert not found.is_partial


queries = st.fixed_dictionaries(
    {
        "filter": st.sampled_from(
            [None, ("n", "50"), ("x", "30.25"), ("text", "name-7"), ("day", "2026-05-05"), ("text", "me-1")]
        ),
        "operator": st.sampled_from(OPERATORS),
        "sort": st.sampled_from([None, "n", "x", "text", "day"]),
        "down": st.booleans(),
        "offset": st.sampled_from([0, 7, 300]),
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(queries)
def test_filters_and_orders_are_those_of_duckdb(parts: PreviewSource, query: dict[str, Any]) -> None:
    column, value = query["filter"] or (None, "")
    if query["operator"] == "contains" and column not in (None, "text"):
        return
    found = preview(
        parts,
        PreviewQuery(["id"], column, query["operator"], value, query["sort"], query["down"], query["offset"], 40),
    )
    rows = ROWS  # noqa: F841 - DuckDB reads it by its name
    where = ""
    if column is not None:
        test = {
            "contains": f"contains({column}, '{value}')",
            "is null": f"{column} IS NULL",
            "is not null": f"{column} IS NOT NULL",
        }.get(query["operator"], f"{column} {SQL.get(query['operator'], query['operator'])} '{value}'")
        where = f"WHERE {test}"
    order = f"{query['sort']} {'DESC' if query['down'] else 'ASC'} NULLS LAST, id" if query["sort"] else "id"
    wanted = duckdb.sql(f"SELECT id FROM rows {where} ORDER BY {order} LIMIT 41 OFFSET {query['offset']}").fetchall()
    assert [row[0] for row in found.rows] == [str(row[0]) for row in wanted[:40]]
    assert found.has_more == (len(wanted) > 40)


def test_values_are_shown_as_texts_that_are_not_too_long(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 30, 12, 30, tzinfo=UTC)
    values = {
        "null": pa.nulls(1, pa.int64()),
        "number": [1.5],
        "decimal": [Decimal("1.50")],
        "flag": [True],
        "moment": [moment],
        "nanoseconds": pa.array([1], pa.timestamp("ns")),
        "time": [time(12, 30)],
        "bytes": [b"\x00\xff"],
        "list": [[1, None]],
        "record": [{"a": 1, "b": "x"}],
        "long": ["x" * 3_000_000],
    }
    pq.write_table(pa.table(values), tmp_path / "values.parquet")
    found = preview(PreviewSource([tmp_path / "values.parquet"], [1]), PreviewQuery())
    shown = dict(zip(found.columns, found.rows[0], strict=True))
    assert shown.pop("long") == "x" * 199 + "…"
    assert shown == {
        "null": None,
        "number": "1.5",
        "decimal": "1.50",
        "flag": "true",
        "moment": "2026-11-30 12:30:00+00:00",
        "nanoseconds": "1970-01-01 00:00:00.000000001",
        "time": "12:30:00",
        "bytes": "0x00ff",
        "list": "[1, null]",
        "record": "{a: 1, b: 'x'}",
    }


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (PreviewQuery(columns=["idd"]), "Did you mean 'id'"),
        (PreviewQuery(filter_column="nothing"), "no column 'nothing'"),
        (PreviewQuery(filter_column="n", operator="drop"), "Unknown operator"),
        (PreviewQuery(filter_column="n", operator="=", value="many"), "'many' is not a value of the column 'n'"),
        (PreviewQuery(filter_column="x", operator="contains", value="1", offset=9_999), "first 10,000 rows"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(query: PreviewQuery, said: str, parts: PreviewSource) -> None:
    with pytest.raises(InputError, match=said):
        preview(parts, query)


def test_delivered_files_are_read_as_they_were_captured_in_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "zip.csv"
    path.write_text("zip,count\n02134,2\n10001,1\n")
    schema = capture.capture(path, "csv")
    query = PreviewQuery(sort="count")
    source = PreviewSource([path], [2], schema)
    assert preview(source, query).rows == [["10001", "1"], ["02134", "2"]]
    assert isolated.preview(source, query) == preview(source, query)
    with pytest.raises(InputError, match="no column"):
        isolated.preview(source, PreviewQuery(sort="nothing"))


def test_a_page_has_the_distribution_of_its_numbers_and_dates(parts: PreviewSource) -> None:
    found = preview(parts, PreviewQuery(offset=64, limit=10))
    shown = dict(zip(found.columns, found.distributions, strict=True))
    assert shown["id"] == [4] * BINS
    assert found.sampled == 64
    assert shown["n"] is not None
    assert sum(shown["n"]) == sum(value is not None for value in ROWS["n"].slice(64, 64).to_pylist())
    assert shown["day"] is not None
    assert sum(shown["day"]) == 64
    assert shown["text"] is None
    assert preview(parts, PreviewQuery(filter_column="id", operator=">", value="5")).distributions == []


@pytest.mark.parametrize(
    "values",
    [
        pa.array([], pa.int64()),
        pa.array([None, None], pa.float64()),
        pa.array([1.0, 1.0]),
        pa.array([float("nan"), float("inf"), -float("inf"), 2.0]),
        pa.array(["a"]),
        pa.array([True, False]),
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([Decimal(1), Decimal(2)]),
        pa.nulls(3),
        pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    ],
)
def test_there_is_no_distribution_of_other_or_equal_values(values: pa.Array) -> None:
    assert histogram(pa.chunked_array([values])) is None


@pytest.mark.parametrize(
    "values",
    [
        pa.array([-(2**63), 2**63 - 1]),
        pa.array([0, 2**64 - 1], pa.uint64()),
        pa.array([-1.7e308, 1.7e308]),
        pa.array([5e-324, 0.0]),
        pa.array([1, 2], pa.float16()),
        pa.array([0, 2**31 - 1], pa.date32()),
        pa.array([0, 1], pa.date64()).cast(pa.date64()),
        pa.array([0, 86_399], pa.time32("s")),
        pa.array([0, 1], pa.time64("ns")),
        pa.array([-(2**63), 1], pa.timestamp("ns", "UTC")),
        pa.array([1, 2], pa.duration("us")),
    ],
)
def test_values_of_any_size_have_a_distribution(values: pa.Array) -> None:
    found = histogram(pa.chunked_array([values]))
    assert found is None or sum(found) == len(values)
    assert found or pa.types.is_date64(values.type)
