"""Row diffs, merges, cherry-picks and reverts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import InputError, MergeConflict, NotFound
from dataset_registry.model.diff import RowSummary
from dataset_registry.model.records import InputVersion, Provenance
from tests.contracts.scenarios import error_of, everywhere

BASE = {"id": [1, 2, 3], "a": [1, 2, 3], "b": ["x", "y", "z"]}


def table(**columns: object) -> pa.Table:
    return pa.table({**BASE, **columns})


@pytest.fixture
def forked(flights: Dataset) -> Dataset:
    """A dataset with a table and a file on main, and a branch that starts there."""
    flights.commit({"data": table(), "notes": b"first"}, key="id")
    flights.create_branch("pr")
    return flights


@everywhere
def test_changes_of_both_sides_are_merged_cell_by_cell(forked: Dataset) -> None:
    forked.commit({"data": table(a=[10, 2, 3])})
    wider = pa.table({"id": [1, 2, 3, 4], "a": [1, 2, 30, 4], "b": ["x", "Y", "z", "w"], "c": [None, 1.5, None, 2.0]})
    forked.commit({"data": wider, "more": b"new"}, branch="pr")
    plan = forked.plan_merge("pr")
    assert plan.outcome == "merge"
    assert plan.bases == (1,)
    assert [(c.name, c.action) for c in plan.components] == [("data", "merged"), ("more", "added")]
    assert plan.rows == (1, 0, 2)
    head = forked.merge("pr", message="both")
    assert head.parents == (2, 3)
    assert head.message == "both"
    assert head.to_arrow("data").to_pydict() == {
        "id": [1, 2, 3, 4],
        "a": [10, 2, 30, 4],
        "b": ["x", "Y", "z", "w"],
        "c": [None, 1.5, None, 2.0],
    }
    assert [c.name for c in head.components] == ["data", "more", "notes"]
    assert head.schema.tables()["data"].key == ("id",)
    assert forked.merge("pr") == head, "merging again does nothing"
    assert forked.plan_merge("pr").outcome == "up to date"


@everywhere
def test_a_branch_that_is_behind_moves_forward(forked: Dataset) -> None:
    version = forked.commit({"data": table(a=[7, 7, 7])}, branch="pr")
    assert forked.plan_merge("pr").outcome == "fast-forward"
    assert forked.merge("pr") == version
    assert forked.version("main") == version
    assert forked.merge("main", into="fresh") == version, "a new branch starts there"
    later = forked.commit({"data": table(a=[8, 8, 8])}, branch="pr")
    made = forked.merge("pr", fast_forward=False)
    assert made.parents == (version.number, later.number)
    assert made.digest == later.digest


@everywhere
def test_conflicts_are_listed_and_resolved_by_rows_that_are_handed_back(forked: Dataset, tmp_path: Path) -> None:
    forked.commit({"data": table(a=[10, 20, 3])})
    forked.commit({"data": table(a=[11, 21, 3])}, branch="pr")
    error = error_of(lambda: forked.merge("pr"))
    assert isinstance(error, MergeConflict)
    plan = forked.plan_merge("pr")
    assert plan.outcome == "conflicts"
    (conflict,) = plan.conflicts
    assert (conflict.kind, conflict.component, conflict.column, conflict.rows) == ("both changed", "data", "a", 2)
    assert forked.version("main").number == 2, "nothing was changed"
    rows = forked.conflicts("pr")
    assert rows.select(["kind", "columns", "id", "base_a", "ours_a", "theirs_a"]).to_pylist() == [
        {"kind": "both changed", "columns": "a", "id": 1, "base_a": 1, "ours_a": 10, "theirs_a": 11},
        {"kind": "both changed", "columns": "a", "id": 2, "base_a": 2, "ours_a": 20, "theirs_a": 21},
    ]
    partly = rows.slice(0, 1).set_column(rows.schema.get_field_index("take"), "take", pa.array(["theirs"]))
    left = error_of(lambda: forked.merge("pr", resolutions={"data": partly}, plan=plan.id))
    assert "1 row" in str(left)
    # As a file, edited by hand: one side for the first row, a value of its own for the second.
    file = tmp_path / "conflicts.csv"
    taken = pa.table({"id": [1, 2], "take": ["theirs", None], "a": [None, 99]})
    pa.csv.write_csv(taken, file)
    head = forked.merge("pr", resolutions={"data": file}, plan=plan.id)
    assert head.to_arrow("data").to_pydict() == table(a=[11, 99, 3]).to_pydict()


@everywhere
def test_resolutions_of_a_branch_that_moved_hold_where_their_values_are_unchanged(forked: Dataset) -> None:
    forked.commit({"data": table(a=[10, 20, 3])})
    forked.commit({"data": table(a=[11, 21, 3])}, branch="pr")
    plan = forked.plan_merge("pr")
    rows = forked.conflicts("pr")
    chosen = rows.set_column(rows.schema.get_field_index("take"), "take", pa.array(["theirs", "theirs"]))
    forked.commit({"data": table(a=[10, 22, 3], b=["x", "y", "new"])})
    error = error_of(lambda: forked.merge("pr", resolutions={"data": chosen}, plan=plan.id))
    assert isinstance(error, MergeConflict)
    assert error.fields["conflicts"][0]["rows"] == 1  # type: ignore[index]
    again = forked.conflicts("pr")
    fresh = again.set_column(again.schema.get_field_index("take"), "take", pa.array(["theirs", "ours"]))
    head = forked.merge("pr", resolutions={"data": fresh}, plan=forked.plan_merge("pr").id)
    assert head.to_arrow("data").to_pydict() == table(a=[11, 22, 3], b=["x", "y", "new"]).to_pydict()


@everywhere
def test_strategies_decide_by_component_column_and_kind(forked: Dataset) -> None:
    forked.commit({"data": table(a=[10, 2, 3], b=["X", "y", "z"]), "notes": b"ours"})
    forked.commit({"data": table(a=[11, 2, 3], b=["XX", "y", "z"]), "notes": b"theirs"}, branch="pr")
    assert {c.component for c in forked.plan_merge("pr").conflicts} == {"data", "notes"}
    left = forked.plan_merge("pr", strategy=["theirs", "fail:component=data,column=b"])
    assert [(c.component, c.column) for c in left.conflicts] == [("data", "b")]
    head = forked.merge("pr", strategy=["theirs", "ours:component=data,column=b"])
    assert head.to_arrow("data").slice(0, 1).to_pydict() == {"id": [1], "a": [11], "b": ["X"]}
    with head.open("notes") as stream:
        assert stream.read() == b"theirs"
    assert "Unknown strategy" in str(error_of(lambda: forked.merge("pr", strategy="mine")))
    assert "Invalid strategy" in str(error_of(lambda: forked.merge("pr", strategy="ours:where=x")))


@everywhere
def test_one_version_is_applied_to_another_branch_and_undone(forked: Dataset) -> None:
    forked.commit({"data": table(a=[1, 2, 30])}, branch="pr", message="thirty")
    forked.commit({"data": table(a=[1, 2, 30], b=["x", "y", "last"])}, branch="pr")
    head = forked.cherry_pick("pr~1")
    assert head.to_arrow("data").to_pydict() == table(a=[1, 2, 30]).to_pydict()
    assert (head.message, head.parents) == ("thirty", (1,))
    assert forked.plan_merge("pr~1", how="cherry-pick").outcome == "up to date"
    assert forked.cherry_pick("pr~1") == head
    forked.commit({"data": table(a=[1, 20, 30])})
    undone = forked.revert("v4")
    assert undone.to_arrow("data").to_pydict() == table(a=[1, 20, 3]).to_pydict()
    assert undone.message == "Revert v4"
    first = forked.revert("v1", strategy="theirs")
    assert first.components == ()


@everywhere
def test_a_criss_cross_history_has_a_merged_base(forked: Dataset) -> None:
    forked.commit({"data": table(a=[10, 2, 3])})
    forked.commit({"data": table(a=[1, 20, 3])}, branch="pr")
    forked.create_branch("old-main", "main")
    forked.merge("pr", fast_forward=False)
    forked.merge("old-main", into="pr", fast_forward=False)
    assert len(forked.merge_bases("main", "pr")) == 2
    forked.commit({"data": table(a=[10, 20, 30])})
    forked.commit({"data": table(a=[11, 20, 3])}, branch="pr")
    head = forked.merge("pr")
    assert head.to_arrow("data").to_pydict() == table(a=[11, 20, 30]).to_pydict()


@everywhere
def test_the_rows_that_differ_are_counted_and_listed(forked: Dataset) -> None:
    forked.commit({"data": pa.table({"id": [1, 3, 4], "a": [1, 30, 4], "b": ["x", "Z", None]}), "plain": b"bytes"})
    found = forked.diff_summary("main~1", "main")
    assert found == {"data": RowSummary(1, 1, 1, 1, {"a": 1, "b": 1}, ("id",))}
    rows = forked.diff_rows("main~1", "main").read_all()
    assert rows.to_pylist() == [
        {"change": "removed", "id": 2, "before_a": 2, "after_a": None, "before_b": "y", "after_b": None},
        {"change": "changed", "id": 3, "before_a": 3, "after_a": 30, "before_b": "z", "after_b": "Z"},
        {"change": "added", "id": 4, "before_a": None, "after_a": 4, "before_b": None, "after_b": None},
    ]
    assert forked.diff_rows("main~1", "main", limit=1).read_all().num_rows == 1
    assert forked.diff_summary("main", "main") == {}
    by_a = forked.diff_rows("main~1", "main", "data", key="a").read_all()
    assert by_a.column("change").to_pylist().count("removed") == 2
    assert isinstance(error_of(lambda: forked.diff_rows("main~1", "main", "nothing").read_all()), NotFound)
    assert isinstance(error_of(lambda: forked.diff_rows("main~1", "main", key="zz").read_all()), InputError)


@everywhere
def test_delivered_files_and_versions_of_two_datasets_are_compared_as_tables(
    any_registry: Registry, flights: Dataset, prefix: str, tmp_path: Path
) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("id,price\n1,1.5\n2,2.5\n")
    flights.commit({"prices": file})
    file.write_text("id,price\n1,1.5\n2,9.5\n2,9.5\n")
    flights.commit({"prices": file})
    assert flights.diff_summary("main~1", "main") == {"prices": RowSummary(2, 1, 0, 1)}
    other = any_registry.create_dataset(f"{prefix}other")
    other.commit({"prices": pa.table({"id": [1, 2], "price": [1.5, 2.5]})}, key="id")
    summary = flights.diff_summary("main~1", f"{prefix}other@main")
    assert summary == {"prices": RowSummary(0, 0, 0, 2, {}, ("id",))}


@everywhere
def test_files_that_both_sides_changed_conflict_as_a_whole(forked: Dataset) -> None:
    forked.commit({"notes": b"ours"})
    with forked.draft("pr") as draft:
        draft.remove("notes")
    (conflict,) = forked.plan_merge("pr").conflicts
    assert (conflict.kind, conflict.component, conflict.rows) == ("delete/modify", "notes", 0)
    assert "not about rows" in str(error_of(lambda: forked.conflicts("pr", component="notes")))
    assert [c.name for c in forked.merge("pr", strategy="union").components] == ["data", "notes"]


@everywhere
def test_a_merge_into_a_tag_or_of_nothing_is_refused(forked: Dataset) -> None:
    forked.create_tag("v1.0")
    assert "tags do not move" in str(error_of(lambda: forked.merge("pr", into="v1.0")))
    assert isinstance(error_of(lambda: forked.merge("nothing")), NotFound)


@everywhere
def test_a_renamed_column_is_the_same_column_in_a_merge(forked: Dataset) -> None:
    renamed = pa.table({"id": [1, 2, 3], "amount": [1, 2, 3], "b": ["x", "y", "z"]})
    forked.commit({"data": renamed})
    assert [c.id for c in forked.version().schema.tables()["data"].columns] == ["id", "a", "b"], (
        "the values are unchanged"
    )
    forked.commit({"data": table(a=[1, 2, 30])}, branch="pr")
    head = forked.merge("pr")
    assert head.to_arrow("data").to_pydict() == {"id": [1, 2, 3], "amount": [1, 2, 30], "b": ["x", "y", "z"]}
    declared = pa.table({"id": [1, 2, 3], "amount": [10, 20, 30], "label": ["X", "Y", "Z"]})
    forked.commit({"data": declared}, renames={"b": "label"})
    assert [c.id for c in forked.version().schema.tables()["data"].columns] == ["id", "a", "b"], "kept, and declared"
    forked.commit({"data": table(a=[1, 2, 30], b=["x", "y", "zz"])}, branch="pr")
    assert [str(c) for c in forked.plan_merge("pr").conflicts] == ["data.label: both changed in 1 row (in label)"]
    again = pa.table({"id": [1], "amount": [1], "label": ["x"], "b": ["new"]})
    forked.commit({"data": again})
    assert [c.id for c in forked.version().schema.tables()["data"].columns] == ["id", "a", "b", "b#2"]
    error = error_of(lambda: forked.commit({"data": again}, renames={"nothing": "label"}))
    assert "does not fit" in str(error)


@everywhere
def test_a_column_with_other_values_at_the_same_place_is_another_column(forked: Dataset) -> None:
    forked.commit({"data": pa.table({"id": [1, 2, 3], "other": [3, 2, 1], "b": ["x", "y", "z"]})})
    assert [c.id for c in forked.version().schema.tables()["data"].columns] == ["id", "other", "b"]
    forked.commit({"data": table(a=[1, 2, 30])}, branch="pr")
    assert [c.kind for c in forked.plan_merge("pr").conflicts] == ["drop/modify"]
    kept = forked.merge("pr", strategy="theirs")
    assert kept.to_arrow("data").to_pydict() == {
        "id": [1, 2, 3],
        "a": [1, 2, 30],
        "other": [3, 2, 1],
        "b": ["x", "y", "z"],
    }


@everywhere
def test_types_that_widen_are_merged_and_others_conflict(forked: Dataset) -> None:
    forked.commit({"data": table(a=pa.array([1, 2, 3], pa.int64()))})
    narrow = pa.table({"id": [1, 2, 3], "a": pa.array([1, 2, 3], pa.int16()), "b": ["x", "y", "z"]})
    forked.create_branch("narrow", "v1")
    forked.commit({"data": narrow}, branch="narrow")
    forked.create_branch("wide", "narrow")
    forked.commit({"data": narrow.set_column(1, "a", pa.array([1, 2, 30], pa.int16()))}, branch="narrow")
    forked.commit({"data": narrow.set_column(1, "a", pa.array([1.5, 2.0, 3.0]))}, branch="wide")
    head = forked.merge("narrow", into="wide")
    assert head.to_arrow("data").column("a").to_pylist() == [1.5, 2.0, 30.0]
    forked.create_branch("text", "v1")
    forked.create_branch("real", "v1")
    forked.commit({"data": table(a=["1", "2", "3"])}, branch="text")
    forked.commit({"data": table(a=[1.5, 2.0, 3.0])}, branch="real")
    (conflict,) = forked.plan_merge("real", into="text").conflicts
    assert (conflict.kind, conflict.column) == ("column type", "a")
    assert forked.merge("real", into="text", strategy="ours").to_arrow("data").column("a").to_pylist() == [
        "1",
        "2",
        "3",
    ]


@everywhere
def test_a_column_made_not_null_conflicts_with_nulls_of_the_other_side(forked: Dataset) -> None:
    strict = pa.schema([("id", pa.int64()), pa.field("a", pa.int64(), nullable=False), ("b", pa.string())])
    forked.commit({"data": table().cast(strict)})
    forked.commit({"data": table(a=[1, None, 3])}, branch="pr")
    (conflict,) = forked.plan_merge("pr").conflicts
    assert (conflict.kind, conflict.column, conflict.rows) == ("constraint", "a", 1)
    forked.commit({"data": table(a=[1, 20, 3])}, branch="pr")
    head = forked.merge("pr")
    assert head.to_arrow("data").column("a").to_pylist() == [1, 20, 3]
    assert not head.schema.tables()["data"].columns[1].nullable


@everywhere
def test_a_plan_names_the_heads_that_may_read_what_a_merge_drops(
    any_registry: Registry, forked: Dataset, prefix: str
) -> None:
    read = forked.version()
    inputs = (InputVersion(read.dataset, 1, read.digest, "main", ("data",), uuid=read.record.uuid),)
    with any_registry.draft(f"{prefix}report", provenance=Provenance(inputs=inputs)) as draft:
        draft.add("data", b"made from it")
    forked.commit({"data": pa.table({"id": [1, 2, 3], "a": ["1", "2", "3"]})}, branch="pr")
    plan = forked.plan_merge("pr")
    assert [(c.dropped, c.retyped) for c in plan.components] == [(("b",), ("a",))]
    assert [str(impact) for impact in plan.impact] == [f"{prefix}report@v1 may read the columns b, a of 'data'"]
    with forked.draft("pr") as draft:
        draft.remove("notes")
    assert forked.plan_merge("pr").impact == plan.impact, "the notes were not read"


@everywhere
def test_rows_in_conflict_between_two_common_ancestors_are_unknown_and_conflict_if_touched(forked: Dataset) -> None:
    forked.commit({"data": table(a=[10, 20, 3])})
    forked.commit({"data": table(a=[11, 21, 3])}, branch="pr")
    forked.create_branch("old-main", "main")
    forked.merge("pr", strategy="ours")
    forked.merge("old-main", into="pr", strategy="ours")
    assert len(forked.merge_bases("main", "pr")) == 2
    rows = forked.conflicts("main", into="pr").select(["kind", "id"]).to_pylist()
    assert rows == [{"kind": "both added", "id": 1}, {"kind": "both added", "id": 2}]
    forked.delete_rows(where="id = 1")
    forked.upsert(pa.table({"id": [2], "a": [21]}))
    plan = forked.plan_merge("main", into="pr")
    assert [str(c) for c in plan.conflicts] == ["data: delete/modify in 1 row"], "row 2 is alike now"
    assert forked.merge("main", into="pr", strategy="theirs").to_arrow("data").column("id").to_pylist() == [2, 3]
