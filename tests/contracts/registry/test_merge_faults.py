"""What an attack on merges, diffs and row edits found: values that changed in silence, and tracebacks."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from dataset_registry import Dataset
from dataset_registry.errors import InputError, MergeConflict
from tests.contracts.scenarios import error_of, everywhere


def start(dataset: Dataset, table: Any, key: str | Sequence[str] = "id") -> Dataset:
    dataset.commit({"data": table}, key=key)
    dataset.create_branch("pr")
    return dataset


def rows(dataset: Dataset, ref: str = "main") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dataset.version(ref).to_arrow("data").to_pylist()
    return found


def test_a_struct_and_a_column_called_like_its_field_are_two_columns(flights: Dataset) -> None:
    table = pa.table({"id": [1, 2], "a": [{"b": 1}, {"b": 2}], "a.b": [7, 8]})
    start(flights, table)
    flights.commit({"data": table.set_column(1, "a", pa.array([{"b": 1}, {"b": 99}]))}, branch="pr")
    assert flights.diff_summary("main", "pr")["data"].cells == {"a": 1}


@everywhere
def test_a_condition_sees_the_columns_as_they_are_called(flights: Dataset) -> None:
    start(flights, pa.table({"id": [1, 2, 3], "Position": [2, 1, 0]}))
    assert [row["id"] for row in flights.delete_rows(where="id = 1").to_arrow().to_pylist()] == [2, 3]
    for where in ("id = (SELECT max(id) FROM part)", "false) UNION ALL (SELECT 77", "5", "id", "id = 2; DROP TABLE x"):
        assert "Invalid condition" in str(error_of(lambda where=where: flights.delete_rows(where=where)))
    assert len(rows(flights)) == 2


def test_names_that_differ_by_case_only_are_refused_in_conditions(flights: Dataset) -> None:
    start(flights, pa.table({"id": [1, 2], "A": [1, 0], "a": [0, 1]}))
    assert "differ in case only" in str(error_of(lambda: flights.delete_rows(where='"a" = 1')))
    assert flights.delete_rows(pa.table({"a": [1]})).to_arrow().column("id").to_pylist() == [1]


@everywhere
@pytest.mark.parametrize("name", ["kind", "columns", "take", "ours_x", "base_x"])
def test_columns_called_like_those_of_a_conflict_table_are_told_apart(flights: Dataset, name: str) -> None:
    start(flights, pa.table({"id": [1], name: ["b"], "x": ["b"]}))
    flights.upsert(pa.table({"id": [1], name: ["o"], "x": ["o"]}))
    flights.upsert(pa.table({"id": [1], name: ["t"], "x": ["t"]}), branch="pr")
    table = flights.conflicts("pr")
    assert isinstance(error_of(lambda: flights.merge("pr", resolutions={"data": table})), MergeConflict)
    filled = table.set_column(table.schema.get_field_index("take"), "take", pa.array(["theirs"]))
    flights.merge("pr", resolutions={"data": filled})
    assert rows(flights) == [{"id": 1, name: "t", "x": "t"}]


def test_a_column_called_change_is_in_a_diff(flights: Dataset) -> None:
    start(flights, pa.table({"id": [1], "change": ["x"], "y": [1]}))
    flights.upsert(pa.table({"id": [1], "change": ["z"]}), branch="pr")
    (row,) = flights.diff_rows("main", "pr").read_all().to_pylist()
    assert (row["before_change"], row["after_change"]) == ("x", "z")


def test_a_struct_field_that_one_side_dropped_and_the_other_changed_conflicts(flights: Dataset) -> None:
    def table(*values: dict[str, int]) -> pa.Table:
        return pa.table({"id": [1, 2], "x": pa.array(values)})

    start(flights, table({"a": 1, "b": 1}, {"a": 2, "b": 2}))
    flights.commit({"data": table({"a": 1, "b": 99}, {"a": 2, "b": 2})})
    flights.commit({"data": table({"a": 1}, {"a": 2})}, branch="pr")
    assert [c.kind for c in flights.plan_merge("pr").conflicts] == ["column type"]


def test_without_a_key_a_dropped_or_retyped_column_conflicts_with_changed_rows(flights: Dataset) -> None:
    start(flights, pa.table({"a": [1, 2], "x": [1, 2]}), key=())
    flights.commit({"data": pa.table({"a": [1, 2, 3], "x": [1, 99, 5]})})
    flights.commit({"data": pa.table({"a": [1, 2], "x": ["p", "q"]})}, branch="pr")
    assert [c.kind for c in flights.plan_merge("pr").conflicts] == ["column type"]
    flights.commit({"data": pa.table({"a": [1, 2]})}, branch="pr")
    assert [c.kind for c in flights.plan_merge("pr").conflicts] == ["drop/modify"]


CHANGED: dict[str, tuple[pa.Array, pa.Array]] = {
    "another length of list": (pa.array([[1, 2]], pa.list_(pa.int64(), 2)), pa.array([[1, 2, 3]])),
    "a field more": (pa.array([{"a": 1}]), pa.array([{"a": 1, "b": 2}])),
    "a field less": (pa.array([{"a": 1, "b": 2}]), pa.array([{"a": 1}])),
    "another field": (pa.array([{"a": 1}]), pa.array([{"c": 1}])),
    "a float too large": (pa.array([1.0], pa.float32()), pa.array([1e300])),
    "a float too exact": (pa.array([1.0], pa.float32()), pa.array([0.1])),
    "a time of day": (pa.array([datetime(2020, 1, 1)]).cast(pa.date32()), pa.array([datetime(2020, 1, 2, 5)])),
    "more digits": (pa.array([Decimal("1.15")]), pa.array([1.159])),
    "a number for a boolean": (pa.array([True]), pa.array([7])),
    "a number for a moment": (pa.array([datetime(2020, 1, 1)]), pa.array([7])),
    "a moment for a number": (pa.array([1]), pa.array([datetime(2020, 1, 1)])),
    "an instant for a moment": (
        pa.array([datetime(2020, 1, 1)]), pa.array([datetime(2020, 1, 1)], pa.timestamp("us", "Asia/Tokyo"))),
    "texts in a list of numbers": (pa.array([[1]]), pa.array([["1"]])),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_values_that_would_change_are_refused_in_row_edits(flights: Dataset, name: str) -> None:
    have, given = CHANGED[name]
    start(flights, pa.table({"id": [1], "x": have}))
    more = pa.table({"id": [2], "x": given})
    assert isinstance(error_of(lambda: flights.append(more)), InputError)
    assert isinstance(error_of(lambda: flights.upsert(more)), InputError)
    assert len(rows(flights)) == 1


def test_numbers_that_a_type_holds_are_taken(flights: Dataset) -> None:
    start(flights, pa.table({"id": [1], "x": [1.5], "n": [1]}))
    flights.append(pa.table({"id": pa.array([2], pa.int8()), "x": pa.array([2], pa.int32()), "n": [3.0]}))
    assert rows(flights)[1] == {"id": 2, "x": 2.0, "n": 3}


def test_new_values_of_an_enum_are_read_back(flights: Dataset) -> None:
    def frame(ids: list[int], values: list[str], kinds: list[str]) -> pl.DataFrame:
        return pl.DataFrame({"id": ids, "c": pl.Series(values, dtype=pl.Enum(kinds))})

    start(flights, frame([1, 2], ["lo", "hi"], ["lo", "hi"]))
    version = flights.append(frame([3], ["mid"], ["lo", "hi", "mid"]))
    assert version.to_polars("data")["c"].to_list() == ["lo", "hi", "mid"]
    flights.append(frame([4], ["top"], ["lo", "hi", "top"]), branch="pr")
    assert sorted(flights.merge("pr").to_polars("data")["c"].to_list()) == ["hi", "lo", "mid", "top"]


def test_resolutions_restore_and_keep_what_they_say(flights: Dataset) -> None:
    start(flights, pa.table({"x": ["a", "a", "a", "b"]}), key=())
    flights.commit({"data": pa.table({"x": ["a", "b"]})})
    flights.commit({"data": pa.table({"x": ["b"]})}, branch="pr")
    flights.merge("pr", resolutions={"data": [{"x": "a", "take": "base"}]})
    assert sorted(row["x"] for row in rows(flights)) == ["a", "a", "a", "b"]


def test_a_union_keeps_a_row_that_one_side_deleted(flights: Dataset) -> None:
    start(flights, pa.table({"id": [1, 2], "x": [1, 2]}))
    flights.delete_rows(pa.table({"id": [1]}))
    flights.upsert(pa.table({"id": [1], "x": [3]}), branch="pr")
    flights.merge("pr", resolutions={"data": [{"id": 1, "take": "union"}]})
    assert {"id": 1, "x": 3} in rows(flights)


def test_a_resolution_of_one_cell_leaves_the_other_in_conflict(flights: Dataset) -> None:
    start(flights, pa.table({"id": [1], "a": [0], "b": [0]}))
    flights.upsert(pa.table({"id": [1], "a": [1], "b": [1]}))
    flights.upsert(pa.table({"id": [1], "a": [2], "b": [2]}), branch="pr")
    error_of(lambda: flights.merge("pr", resolutions={"data": pa.table({"id": [1], "a": [5]})}))
    flights.merge("pr", resolutions={"data": pa.table({"id": [1], "a": [5], "b": [6]})})
    assert rows(flights) == [{"id": 1, "a": 5, "b": 6}]


@everywhere
def test_resolutions_that_do_not_fit_are_input_errors(flights: Dataset) -> None:
    start(flights, pa.table({"id": [1], "x": [0]}))
    flights.upsert(pa.table({"id": [1], "x": [1]}))
    flights.upsert(pa.table({"id": [1], "x": [2]}), branch="pr")
    twice = [{"id": 1, "take": "theirs"}, {"id": 1, "take": "ours"}]
    for wrong in ([{"id": 1, "x": "abc"}], [], [{"id": 1, "take": ["x"]}], [{"id": 1, "take": "mine"}], twice):
        found = error_of(lambda wrong=wrong: flights.merge("pr", resolutions={"data": wrong}))
        assert isinstance(found, InputError), wrong
    one = {"data": [{"id": 1, "take": "theirs"}]}
    assert "no rows in conflict" in str(error_of(lambda: flights.merge("pr", "new", resolutions=one)))


def test_renames_that_are_not_names_by_name_are_refused(flights: Dataset) -> None:
    start(flights, pa.table({"id": [1], "x": [0], "z": [0]}))
    wrong: list[Any] = [["x"], {"x": 1}, {"x": ["y"]}, "x", {"x": "y", "z": "y"}]
    table = pa.table({"id": [1], "y": [0]})
    for renames in wrong:
        error = error_of(lambda renames=renames: flights.commit({"data": table}, renames=renames))
        assert "renames takes a dict" in str(error)


def test_a_draft_edits_rows_of_a_component_alone(flights: Dataset) -> None:
    start(flights, pa.table({"id": [1], "x": [1]}))
    more = pa.table({"id": [5], "x": [5]})
    with flights.draft() as draft:
        draft.append("data", more)
        for call in (lambda: draft.remove("data"), draft.clear, lambda: draft.add("data", more)):
            assert "already changes" in str(error_of(call))
    with flights.draft() as draft:
        draft.remove("data")
        assert "already changes" in str(error_of(lambda: draft.append("data", more)))


@everywhere
def test_keys_of_every_kind_are_upserted(flights: Dataset, prefix: str) -> None:
    strict = pa.schema([pa.field("id", pa.int64(), nullable=False)])
    start(flights, pa.table({"id": [1]}, schema=strict))
    assert [row["id"] for row in flights.append(pa.table({"id": [2]})).to_arrow().to_pylist()] == [1, 2]


@pytest.mark.parametrize(
    ("have", "given", "order"),
    [
        (pa.array(["a", "b", "d"]), pa.array([None, "c"]), None),
        (
            pa.array([Decimal("-1.5"), Decimal("2.5")], pa.decimal256(50, 2)),
            pa.array([Decimal("-0.5")], pa.decimal256(50, 2)),
            None,
        ),
        (pa.array([1.0, 2.0, 3.0]), pa.array([1.5]), [1.0, 1.5, 2.0, 3.0]),
        (pa.array([1, 5, 9], pa.timestamp("ns")), pa.array([7], pa.timestamp("ns")), None),
        (pa.array([2**53, 2**53 + 2, 2**53 + 6]), pa.array([2**53 + 1, 2**53 + 3]), [2**53 + i for i in (0, 1, 2, 3, 6)]),
    ],
)  # fmt: skip
def test_rows_are_upserted_under_keys_of_other_types(
    flights: Dataset, have: pa.Array, given: pa.Array, order: list[Any] | None
) -> None:
    start(flights, pa.table({"k": have}), key="k")
    version = flights.upsert(pa.table({"k": given}))
    assert version.to_arrow().num_rows == len(have) + len(given)
    if order is not None:
        assert version.to_arrow().column("k").to_pylist() == order


def test_a_retyped_column_of_the_key_conflicts(flights: Dataset) -> None:
    start(flights, pa.table({"a": [1, 2], "x": [1, 2]}), key="a")
    flights.upsert(pa.table({"a": [2, 3], "x": [5, 6]}))
    flights.commit({"data": pa.table({"a": ["1", "2"], "x": [1, 2]})}, branch="pr")
    assert [(c.kind, c.column) for c in flights.plan_merge("pr").conflicts] == [("column type", "a")]


def test_nulls_for_columns_that_are_not_null_are_refused_with_their_name(flights: Dataset) -> None:
    strict = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("x", pa.int64(), nullable=False)])
    start(flights, pa.table({"id": [1], "x": [1]}, schema=strict))
    assert "null in 'x'" in str(
        error_of(lambda: flights.append(pa.table({"id": [2], "x": pa.array([None], pa.int64())})))
    )
