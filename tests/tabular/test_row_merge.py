"""Rows merge by the rules of docs/design/merging.md: compared with a merge of single rows in plain Python."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_registry.errors import InputError
from dataset_registry.model.merge import merge_cell, merge_count
from dataset_registry.model.strategies import chooser, strategies_of
from dataset_registry.tabular.edits import Edits, stream_edited
from dataset_registry.tabular.engine import Engine
from dataset_registry.tabular.row_diff import row_changes
from dataset_registry.tabular.row_merge import MergedRows, Sides, merge_rows
from dataset_registry.tabular.rows import Rows, TablePart

SCHEMA = pa.schema([("id", pa.int64()), ("a", pa.int64()), ("b", pa.string()), ("c", pa.float64())])
Row = tuple[Any, ...]
ENGINE = Engine(Path(gettempdir()))
"""Shared: to open one takes longer than to merge."""


def rows_of(table: pa.Table, folder: Path, size: int = 3) -> Rows:
    """A table that is stored in parts of a few rows."""
    parts = []
    for start in range(0, max(table.num_rows, 1), size):
        piece = table.slice(start, size)
        path = folder / f"{len(list(folder.iterdir()))}.parquet"
        pq.write_table(piece, path)
        parts.append(TablePart(sha256(path.read_bytes()).hexdigest(), piece.num_rows, lambda path=path: path))
    return Rows(parts, table.schema, {name: name for name in table.schema.names})


def table_of(rows: Sequence[Row], schema: pa.Schema = SCHEMA) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [[] for _ in schema]
    return pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )


def rows_in(table: pa.Table) -> list[Row]:
    return [tuple(row.values()) for row in table.to_pylist()]


def merge(
    base: pa.Table, ours: pa.Table, theirs: pa.Table, key: Sequence[str], folder: Path, strategy: str = "fail"
) -> tuple[MergedRows, pa.Table]:
    files = folder / "files"
    files.mkdir(exist_ok=True)
    sides = Sides(*(rows_of(table, files) for table in (base, ours, theirs)), key, ENGINE)
    found = merge_rows(sides, "data", chooser(strategies_of(strategy), "theirs"))
    return found, stream_edited(sides.ours, found.edits).read_all()


# --- the oracle --------------------------------------------------------------------------------------------------------


def by_rule(base: Sequence[Row], ours: Sequence[Row], theirs: Sequence[Row]) -> tuple[dict[Any, Row], set[Any]]:
    """Merge rows whose first value is their key. Returns the rows by key, those in conflict as in ours, and the conflicts."""
    sides = [{row[0]: tuple(map(_form, row)) for row in rows} for rows in (base, ours, theirs)]
    merged: dict[Any, Row] = {}
    conflicts = set()
    for key in {*sides[0], *sides[1], *sides[2]}:
        b, o, t = (side.get(key) for side in sides)
        if merge_cell(b, o, t) is not None:
            row = {"ours": o, "theirs": t}[merge_cell(b, o, t) or ""]
        elif b is None or o is None or t is None:
            conflicts.add(key)
            row = o
        else:
            cells = [merge_cell(*values) for values in zip(b, o, t, strict=True)]
            if None in cells:
                conflicts.add(key)
            row = tuple(t[i] if side == "theirs" else o[i] for i, side in enumerate(cells))
        if row is not None:
            merged[key] = row
    return merged, conflicts


def _form(value: Any) -> Any:
    """A value that equals itself as the rules say: NaN is NaN, and -0.0 is not 0.0."""
    return repr(value) if isinstance(value, float) else value


def formed(table: pa.Table) -> dict[Any, Row]:
    return {row[0]: tuple(map(_form, row)) for row in rows_in(table)}


VALUES = st.tuples(
    st.integers(0, 3) | st.none(),
    st.sampled_from(["x", "y", "", None]),
    st.sampled_from([0.0, -0.0, float("nan"), 1.5, None]),
)
KEYED = st.dictionaries(st.integers(0, 14), VALUES, max_size=12).map(lambda d: [(k, *v) for k, v in d.items()])


@st.composite
def versions(draw: Callable[..., Any]) -> tuple[list[Row], list[Row], list[Row]]:
    """A table and two versions of it, sorted or not."""
    base = draw(KEYED)
    order: Callable[[list[Row]], list[Row]] = sorted if draw(st.booleans()) else list  # type: ignore[assignment]
    sides = []
    for _ in range(2):
        rows = {row[0]: row for row in base}
        for key in draw(st.lists(st.integers(0, 14), max_size=5)):
            rows.pop(key, None)
        for key, values in draw(st.dictionaries(st.integers(0, 14), VALUES, max_size=5)).items():
            rows[key] = (key, *values)
        sides.append(by_id(rows.values()) if order is sorted else list(rows.values()))
    return by_id(base) if order is sorted else base, sides[0], sides[1]


def by_id(rows: Any) -> list[Row]:
    return sorted(rows, key=lambda row: row[0])


RELAXED = settings(
    deadline=None,
    max_examples=int(os.environ.get("MERGE_EXAMPLES", "12")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@RELAXED
@given(versions())
def test_rows_with_a_key_merge_cell_by_cell(tmp_path_factory: pytest.TempPathFactory, versions: Any) -> None:
    folder = tmp_path_factory.mktemp("merge")
    base, ours, theirs = versions
    tables = [table_of(rows) for rows in versions]
    found, result = merge(*tables, ["id"], folder)
    expected, conflicts = by_rule(base, ours, theirs)
    assert formed(result) == expected
    assert result.num_rows == len(expected)
    assert len(found.conflicts) == len(conflicts)
    if all(rows == by_id(rows) for rows in versions):
        ids = result.column("id").to_pylist()
        assert ids == sorted(ids), str([[row[0] for row in rows] for rows in versions])


@RELAXED
@given(versions(), st.sampled_from(["ours", "theirs"]))
def test_a_strategy_leaves_no_conflict(tmp_path_factory: pytest.TempPathFactory, versions: Any, strategy: str) -> None:
    base, ours, theirs = versions
    found, result = merge(*map(table_of, versions), ["id"], tmp_path_factory.mktemp("merge"), strategy)
    expected, conflicts = by_rule(base, ours, theirs)
    assert not len(found.conflicts)
    sides = {"ours": formed(table_of(ours)), "theirs": formed(table_of(theirs))}
    form_of = formed(table_of(base))
    for key in conflicts:
        b, o, t = form_of.get(key), sides["ours"].get(key), sides["theirs"].get(key)
        if b is not None and o is not None and t is not None:
            want = {"ours": o, "theirs": t}[strategy]
            expected[key] = tuple(
                {"ours": o[i], "theirs": t[i], None: want[i]}[merge_cell(b[i], o[i], t[i])] for i in range(len(b))
            )
        elif (chosen := sides[strategy].get(key)) is None:
            expected.pop(key, None)
        else:
            expected[key] = chosen
    assert formed(result) == expected


@RELAXED
@given(versions())
def test_merges_are_symmetric_up_to_the_order(tmp_path_factory: pytest.TempPathFactory, versions: Any) -> None:
    base, ours, theirs = map(table_of, versions)
    one, result = merge(base, ours, theirs, ["id"], tmp_path_factory.mktemp("one"))
    other, turned = merge(base, theirs, ours, ["id"], tmp_path_factory.mktemp("other"))
    assert len(one.conflicts) == len(other.conflicts)
    if not len(one.conflicts):
        assert formed(result) == formed(turned)
    _, same = merge(base, base, ours, ["id"], tmp_path_factory.mktemp("base"))
    assert formed(same) == formed(ours)
    _, twice = merge(base, ours, ours, ["id"], tmp_path_factory.mktemp("twice"))
    assert rows_in(twice).__repr__() == rows_in(ours).__repr__()


FEW = st.tuples(st.integers(0, 3) | st.none(), st.sampled_from([0.0, -0.0, float("nan")]))
BAG = pa.schema([("a", pa.int64()), ("c", pa.float64())])


@RELAXED
@given(st.lists(FEW, max_size=10), st.lists(FEW, max_size=10), st.lists(FEW, max_size=10))
def test_rows_without_a_key_merge_as_multisets(
    tmp_path_factory: pytest.TempPathFactory, base: list[Row], ours: list[Row], theirs: list[Row]
) -> None:
    tables = [table_of(rows, BAG) for rows in (base, ours, theirs)]
    found, result = merge(*tables, [], tmp_path_factory.mktemp("bag"))
    counts = [Counter(tuple(map(_form, row)) for row in rows) for rows in (base, ours, theirs)]
    expected: Counter[Row] = Counter()
    conflicts = 0
    for row in {*counts[0], *counts[1], *counts[2]}:
        number = merge_count(*(side[row] for side in counts))
        conflicts += number is None
        expected[row] = counts[1][row] if number is None else number
    assert Counter(tuple(map(_form, row)) for row in rows_in(result)) == +expected
    assert len(found.conflicts) == conflicts
    for strategy, pick in (("ours", 1), ("theirs", 2), ("union", None)):
        resolved, chosen = merge(*tables, [], tmp_path_factory.mktemp(strategy), strategy)
        for row in {*counts[0], *counts[1], *counts[2]}:
            three = [side[row] for side in counts]
            if merge_count(*three) is None:
                expected[row] = three[pick] if pick else max(three[1:])
        assert Counter(tuple(map(_form, row)) for row in rows_in(chosen)) == +expected
        assert not len(resolved.conflicts)


@RELAXED
@given(versions())
def test_a_diff_lists_what_was_added_removed_and_changed(
    tmp_path_factory: pytest.TempPathFactory, versions: Any
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    before, after = (rows_of(table_of(rows), folder) for rows in versions[:2])
    found = row_changes(before, after, ["id"], ENGINE)
    old, new = formed(table_of(versions[0])), formed(table_of(versions[1]))
    assert int(found.added.sum()) == len(new.keys() - old.keys())
    assert int(found.removed.sum()) == len(old.keys() - new.keys())
    both = old.keys() & new.keys()
    assert int(found.changed.sum()) == sum(old[key] != new[key] for key in both)
    for index, name in enumerate(["a", "b", "c"], 1):
        assert int(found.cells[name].sum()) == sum(old[key][index] != new[key][index] for key in both)
    taken = formed(after.take(found.after[~found.removed]))
    assert taken == {key: new[key] for key in new if old.get(key) != new[key]}


def test_a_key_that_is_not_unique_is_refused_with_the_first_duplicates(tmp_path: Path) -> None:
    base = table_of([(1, 1, "x", 0.0)])
    twice = table_of([(1, 1, "x", 0.0), (1, 2, "y", 0.0)])
    with pytest.raises(InputError, match=r"key \(id\) is not unique: several rows have id=1"):
        merge(base, twice, table_of([(1, 5, "x", 0.0)]), ["id"], tmp_path)


NESTED: Mapping[str, tuple[pa.DataType, Sequence[Any]]] = {
    "list": (pa.list_(pa.float64()), [[1.0, float("nan")], [], None, [None]]),
    "struct": (pa.struct([("x", pa.int8()), ("y", pa.string())]), [{"x": 1, "y": "a"}, {"x": None, "y": None}, None]),
    "map": (pa.map_(pa.string(), pa.int64()), [[("k", 1)], [], None, [("k", None)]]),
    "nanoseconds": (pa.timestamp("ns", "UTC"), [1, 2, None]),
    "wide decimals": (pa.decimal256(70, 2), [None, 10**40, 10**40 + 1]),
    "bytes": (pa.binary(), [b"", b"\x00", None]),
    "fixed lists": (pa.list_(pa.int32(), 2), [[1, 2], [1, None], None]),
    "booleans": (pa.bool_(), [True, False, None]),
    "unsigned": (pa.uint64(), [0, 2**64 - 1, None]),
}


@pytest.mark.parametrize("kind", NESTED)
def test_values_of_every_type_are_compared_as_a_whole(kind: str, tmp_path: Path) -> None:
    type_, values = NESTED[kind]
    schema = pa.schema([("id", pa.int64()), ("v", type_)])
    for before in values:
        for after in values:
            one, other = ([(1, value), (2, values[0])] for value in (before, after))
            tables = [table_of(rows, schema) for rows in (one, other, one)]
            found, result = merge(*tables, ["id"], tmp_path)
            assert result.equals(tables[1]) or repr(rows_in(result)) == repr(rows_in(tables[1]))
            changes = row_changes(*(rows_of(table, tmp_path / "files") for table in tables[:2]), ["id"], ENGINE)
            assert len(changes) == (repr(before) != repr(after)), (before, after)
            assert not len(found.conflicts)


def test_inserted_rows_stay_behind_the_row_that_they_followed(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.string()), ("v", pa.int64())])
    base = table_of([("z", 1), ("m", 2), ("a", 3)], schema)
    ours = table_of([("z", 1), ("m", 5), ("a", 3), ("q", 7)], schema)
    theirs = table_of([("first", 0), ("z", 1), ("y", 9), ("x", 9), ("m", 2), ("a", 3)], schema)
    _, result = merge(base, ours, theirs, ["id"], tmp_path)
    assert [row[0] for row in rows_in(result)] == ["first", "z", "y", "x", "m", "a", "q"]


def test_tables_without_rows_merge(tmp_path: Path) -> None:
    empty, one, other = table_of([]), table_of([(1, 1, "x", 0.0)]), table_of([(2, 1, "x", 0.0)])
    assert formed(merge(empty, one, other, ["id"], tmp_path)[1]).keys() == {1, 2}
    assert merge(one, empty, one, ["id"], tmp_path)[1].num_rows == 0
    assert merge(one, one, empty, ["id"], tmp_path)[1].num_rows == 0
    assert not Edits()
    assert len(np.array([])) == 0
