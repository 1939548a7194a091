"""Cherry-picks and reverts of random changes, beside merges and the changes themselves."""

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dataset_registry import Dataset, Registry
from dataset_registry.errors import MergeConflict

CELLS = ("a", "b")
Rows = Mapping[int, Mapping[str, int]]
Change = Mapping[int, Mapping[str, None] | None]
"""The cells that change, by the key of their row; None deletes the row. A row that is not there is inserted."""

NUMBERS = count()
SETTINGS = settings(
    deadline=None,
    max_examples=int(os.environ.get("MERGE_EXAMPLES", "12")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.open(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def changes(keys: st.SearchStrategy[int]) -> st.SearchStrategy[Change]:
    cells = st.sets(st.sampled_from(CELLS), min_size=1).map(dict.fromkeys)
    return st.dictionaries(keys, cells | st.none(), max_size=4)


KEYS = st.integers(0, 7)
START: Rows = {key: dict.fromkeys(CELLS, -key) for key in range(5)}


def changed(rows: Rows, change: Change) -> Rows:
    """Rows after a change, whose values no row had before."""
    after = dict(rows)
    for key, cells in change.items():
        if cells is None:
            after.pop(key, None)
        else:
            after[key] = {**rows.get(key, dict.fromkeys(CELLS, -1)), **{cell: next(NUMBERS) for cell in cells}}
    return after


def table(rows: Rows) -> pa.Table:
    listed = sorted(rows)
    columns = {cell: pa.array([rows[key][cell] for key in listed], pa.int64()) for cell in CELLS}
    return pa.table({"id": pa.array(listed, pa.int64()), **columns})


def started(registry: Registry) -> Dataset:
    dataset = registry.create_dataset(f"random-{next(NUMBERS)}")
    dataset.commit({"data": table(START)}, key="id")
    return dataset


def rows_on(dataset: Dataset, ref: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dataset.version(ref).to_arrow().to_pylist()
    return found


def without_conflict(verb: Callable[[], object]) -> None:
    """Do this, or leave the example."""
    try:
        verb()
    except MergeConflict:
        assume(False)


@SETTINGS
@given(st.lists(changes(KEYS), max_size=3), st.lists(changes(KEYS), min_size=1, max_size=3))
def test_to_cherry_pick_every_version_is_to_merge(registry: Registry, ours: list[Change], theirs: list[Change]) -> None:
    dataset = started(registry)
    for branch, side in (("main", ours), ("pr", theirs)):
        rows = START
        dataset.create_branch("pr" if branch == "main" else "picked")
        for change in side:
            rows = changed(rows, change)
            dataset.commit({"data": table(rows)}, branch=branch)
    dataset.move_branch("picked", "main")
    without_conflict(lambda: dataset.merge("pr"))
    for back in reversed(range(len(dataset.log("pr")) - 1)):
        without_conflict(lambda back=back: dataset.cherry_pick(f"pr~{back}", "picked"))  # type: ignore[misc]
    assert rows_on(dataset, "picked") == rows_on(dataset, "main")


@SETTINGS
@given(changes(KEYS.map(lambda key: key * 2)), st.lists(changes(KEYS.map(lambda key: key * 2 + 1)), max_size=3))
def test_a_revert_undoes_one_change_and_keeps_later_ones(
    registry: Registry, undone: Change, later: list[Change]
) -> None:
    dataset = started(registry)
    rows = changed(START, undone)
    assume(rows != START)
    version = dataset.commit({"data": table(rows)})
    kept = START
    for change in later:
        values = changed(rows, change)
        kept = {**{k: r for k, r in kept.items() if k not in change}, **{k: values[k] for k in change if k in values}}
        rows = values
        dataset.commit({"data": table(rows)})
    dataset.revert(f"v{version.number}")
    assert rows_on(dataset, "main") == table(kept).to_pylist()
    dataset.revert("main")
    assert rows_on(dataset, "main") == table(rows).to_pylist(), "to revert a revert brings the change back"
