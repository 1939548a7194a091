"""The rules of docs/merging.md, one case for each row of its tables in each form that a table can have.

`MERGE_EXAMPLES=1` runs them with more types of values.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_registry.model.manifest import Entry
from dataset_registry.model.merge import Decision, merge_component
from dataset_registry.model.schema import TableSchema
from dataset_registry.tabular.arrow import columns_of
from dataset_registry.tabular.edits import stream_edited
from dataset_registry.tabular.engine import Engine
from dataset_registry.tabular.rows import TablePart
from dataset_registry.tabular.table_merge import TableVersion, merge_tables

ENGINE = Engine(Path(gettempdir()))
"""Shared: to open one takes longer than to merge."""

# --- the forms of a table ----------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A type, and three different values of it."""

    type: pa.DataType
    values: tuple[Any, Any, Any]


KINDS = {
    "numbers": Kind(pa.int64(), (1, 2, 3)),
    "a null before": Kind(pa.string(), (None, "x", "y")),
    "a null after": Kind(pa.string(), ("x", None, "y")),
    "NaN before": Kind(pa.float64(), (float("nan"), 0.5, 1.5)),
    "NaN after": Kind(pa.float64(), (0.5, float("nan"), 1.5)),
    "signed zeros": Kind(pa.float64(), (0.0, -0.0, 1.0)),
    "nested": Kind(
        pa.list_(pa.struct([("x", pa.float64())])),
        ([{"x": 1.0}, None], [{"x": float("nan")}, None], []),
    ),
    "structs": Kind(
        pa.struct([("a", pa.int8()), ("b", pa.string())]), ({"a": 1, "b": None}, {"a": None, "b": None}, None)
    ),
    "moments": Kind(pa.timestamp("ns", "UTC"), (1, 2, None)),
}
SOME_KINDS = list(KINDS) if "MERGE_EXAMPLES" in os.environ else ["numbers", "a null after", "NaN before", "nested"]
ORDERS: dict[str, Sequence[int]] = {"sorted": (1, 2, 3, 4, 5, 6), "unsorted": (5, 2, 6, 1, 4, 3)}


@dataclass(frozen=True)
class Field:
    """A column: its type, its values by row, its id where that is not its name, and whether it may be null."""

    type: pa.DataType
    values: Sequence[Any]
    id: str | None = None
    nullable: bool = True


Table = dict[str, Field]


def arrow(table: Table) -> pa.Table:
    schema = pa.schema([pa.field(name, field.type, field.nullable) for name, field in table.items()])
    return pa.table([pa.array(field.values, field.type) for field in table.values()], schema=schema)


def read_back(table: Table) -> pa.Table:
    """A table as Parquet returns it."""
    pq.write_table(arrow(table), file := BytesIO())
    return pq.read_table(file)


def stored(table: Table, key: Sequence[str], folder: Path) -> TableVersion:
    """A table in parts of two rows."""
    whole = arrow(table)
    parts = []
    for start in range(0, max(whole.num_rows, 1), 2):
        piece = whole.slice(start, 2)
        path = folder / f"{len(list(folder.iterdir()))}.parquet"
        pq.write_table(piece, path)
        parts.append(TablePart(sha256(path.read_bytes()).hexdigest(), piece.num_rows, lambda path=path: path))
    columns = tuple(replace(column, origin=table[column.name].id) for column in columns_of(whole.schema))
    return TableVersion(("data", 0), parts, TableSchema(None, columns, whole.num_rows, key=tuple(key)))


class Merged(NamedTuple):
    """A result: its columns with their types, its rows as texts, and the kinds of its conflicts."""

    columns: list[tuple[str, str]]
    rows: list[str]
    conflicts: set[str]


def merge(base: Table, ours: Table, theirs: Table, key: Sequence[str], folder: Path) -> Merged:
    sides = tuple(stored(table, key, folder) for table in (base, ours, theirs))
    found = merge_tables(sides, lambda kind, component, column: None, ENGINE)  # type: ignore[arg-type]
    conflicts = {conflict.kind for conflict in found.conflicts}
    if found.rows is not None and len(found.rows):
        conflicts |= set(found.rows.kind)
    if found.sides is None:
        return Merged([], [], conflicts)
    return listed(stream_edited(found.sides.ours, found.edits).read_all(), conflicts)


def listed(table: pa.Table, conflicts: Collection[str] = ()) -> Merged:
    rows = [repr(tuple(row.values())) for row in table.to_pylist()]
    return Merged([(field.name, str(field.type)) for field in table.schema], rows, set(conflicts))


# --- rows with a key ---------------------------------------------------------------------------------------------------

Rows = dict[int, tuple[Any, Any]]
"""Rows by their key: two cells each."""


def keyed(rows: Rows, kind: Kind, order: Sequence[int]) -> Table:
    keys = [key for key in order if key in rows]
    columns = [[rows[key][cell] for key in keys] for cell in (0, 1)]
    return {"id": Field(pa.int64(), keys), "a": Field(kind.type, columns[0]), "b": Field(kind.type, columns[1])}


class RowRule(NamedTuple):
    """What each side makes of row 2, given three different values; None deletes it. The result, or the kind of a conflict."""

    base: Callable[[Any, Any, Any], tuple[Any, Any] | None]
    ours: Callable[[Any, Any, Any], tuple[Any, Any] | None]
    theirs: Callable[[Any, Any, Any], tuple[Any, Any] | None]
    result: Callable[[Any, Any, Any], tuple[Any, Any] | None] | str


def no(*values: Any) -> None:
    """No row."""


ROW_RULES = {
    "a row that only one side inserted is inserted": RowRule(
        no, no, lambda x, y, z: (x, y), lambda x, y, z: (x, y)),
    "a row that both inserted alike is inserted once": RowRule(
        no, lambda x, y, z: (x, y), lambda x, y, z: (x, y), lambda x, y, z: (x, y)),
    "a row that both inserted with different values is a conflict": RowRule(
        no, lambda x, y, z: (x, y), lambda x, y, z: (x, z), "both added"),
    "a row that only one side updated is updated": RowRule(
        lambda x, y, z: (x, x), lambda x, y, z: (x, x), lambda x, y, z: (y, z), lambda x, y, z: (y, z)),
    "a row of which each side updated another cell has both": RowRule(
        lambda x, y, z: (x, x), lambda x, y, z: (y, x), lambda x, y, z: (x, z), lambda x, y, z: (y, z)),
    "a cell that both updated alike is updated once": RowRule(
        lambda x, y, z: (x, x), lambda x, y, z: (y, x), lambda x, y, z: (y, z), lambda x, y, z: (y, z)),
    "a cell that both updated to different values is a conflict": RowRule(
        lambda x, y, z: (x, x), lambda x, y, z: (y, x), lambda x, y, z: (z, x), "both changed"),
    "a row that only one side deleted is deleted": RowRule(
        lambda x, y, z: (x, y), lambda x, y, z: (x, y), no, no),
    "a row that both deleted is deleted": RowRule(lambda x, y, z: (x, y), no, no, no),
    "a row that one side deleted and the other updated is a conflict": RowRule(
        lambda x, y, z: (x, x), no, lambda x, y, z: (x, y), "delete/modify"),
    "an update that was taken back is no change": RowRule(
        lambda x, y, z: (x, y), lambda x, y, z: (x, y), lambda x, y, z: (x, y), lambda x, y, z: (x, y)),
}  # fmt: skip


@pytest.mark.parametrize("alone", [False, True], ids=["among others", "alone"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", SOME_KINDS)
@pytest.mark.parametrize("rule", ROW_RULES)
def test_rows_with_a_key(rule: str, kind: str, order: str, alone: bool, tmp_path: Path) -> None:
    """In both directions. Row 2 of six, or the only row, so that sides of the merge are empty."""
    *sides, result = ROW_RULES[rule]
    values = KINDS[kind].values
    others: Rows = {} if alone else dict.fromkeys((1, 3, 4, 5, 6), (values[0], values[1]))

    def rows(row: tuple[Any, Any] | None) -> Rows:
        return {**others, 2: row} if row else others

    base, ours, theirs = (keyed(rows(side(*values)), KINDS[kind], ORDERS[order]) for side in sides)
    for left, right in ((ours, theirs), (theirs, ours)):
        merged = merge(base, left, right, ["id"], tmp_path)
        if isinstance(result, str):
            assert merged.conflicts == {result}
            continue
        wanted = keyed(rows(result(*values)), KINDS[kind], ORDERS[order])
        whole = listed(read_back(wanted))
        assert merged.conflicts == set()
        assert merged.columns == whole.columns
        assert Counter(merged.rows) == Counter(whole.rows)
        if order == "sorted":
            assert merged.rows == whole.rows


# --- rows without a key ------------------------------------------------------------------------------------------------

COUNT_RULES: dict[str, tuple[int, int, int, int | None]] = {
    "a row that only one side added is added": (0, 0, 1, 1),
    "a row that both added as often is added once": (0, 2, 2, 2),
    "a row that both added, but not as often, is a conflict": (0, 1, 2, None),
    "a duplicate that one side added is added": (1, 2, 1, 2),
    "a duplicate that one side removed is removed": (2, 2, 1, 1),
    "all of several that one side removed are removed": (3, 0, 3, 0),
    "what both removed is removed once": (2, 1, 1, 1),
    "a number that both changed differently is a conflict": (2, 1, 3, None),
    "added here and removed there is a conflict": (1, 2, 0, None),
}


@pytest.mark.parametrize("alone", [False, True], ids=["among others", "alone"])
@pytest.mark.parametrize("kind", SOME_KINDS)
@pytest.mark.parametrize("rule", COUNT_RULES)
def test_rows_without_a_key(rule: str, kind: str, alone: bool, tmp_path: Path) -> None:
    """In both directions. A row that a table has so many times, among others or alone."""
    row, other, third = KINDS[kind].values

    def table(count: int) -> Table:
        values = [row] * count if alone else [third, *[row] * count, other, other]
        return {"v": Field(KINDS[kind].type, values)}

    base, ours, theirs, result = COUNT_RULES[rule]
    for left, right in ((ours, theirs), (theirs, ours)):
        merged = merge(table(base), table(left), table(right), [], tmp_path)
        if result is None:
            assert merged.conflicts == {"row count"}
        else:
            whole = listed(read_back(table(result)))
            assert merged.conflicts == set()
            assert Counter(merged.rows) == Counter(whole.rows)


# --- columns -----------------------------------------------------------------------------------------------------------

IDS = [5, 2, 1]
X, W = ([1, 2, 3], [7, 8, 9])
INT, WIDE, WIDER, TEXT = pa.int16(), pa.int32(), pa.int64(), pa.string()


def of(**fields: Field) -> Table:
    return fields


def x(values: Sequence[Any] = X, type: pa.DataType = INT, id: str | None = None, nullable: bool = True) -> Field:
    return Field(type, values, id, nullable)


class ColumnRule(NamedTuple):
    """The columns beside `id` on each side; the columns of the result, or the kind of a conflict."""

    base: Table
    ours: Table
    theirs: Table
    result: Table | str


CHANGED = [1, 20, 3]
COLUMN_RULES = {
    "added by one side": ColumnRule(of(a=x()), of(a=x()), of(a=x(), b=x(W)), of(a=x(), b=x(W))),
    "added behind its left neighbour": ColumnRule(
        of(a=x(), c=x()), of(a=x(), c=x()), of(a=x(), b=x(W), c=x()), of(a=x(), b=x(W), c=x())),
    "added by both, alike": ColumnRule(of(a=x()), of(a=x(), b=x(W)), of(a=x(), b=x(W)), of(a=x(), b=x(W))),
    "added by both, with other types": ColumnRule(
        of(a=x()), of(a=x(), b=x(W)), of(a=x(), b=x(["x", "y", "z"], TEXT)), "column type"),
    "added by each, different columns": ColumnRule(
        of(a=x()), of(a=x(), b=x(W)), of(a=x(), c=x(W)), of(a=x(), b=x(W), c=x(W))),
    "dropped": ColumnRule(of(a=x(), b=x()), of(a=x()), of(a=x(), b=x()), of(a=x())),
    "dropped by both": ColumnRule(of(a=x(), b=x()), of(a=x()), of(a=x()), of(a=x())),
    "dropped, and changed": ColumnRule(of(a=x(), b=x()), of(a=x()), of(a=x(), b=x(CHANGED)), "drop/modify"),
    "dropped, and widened": ColumnRule(of(a=x(), b=x()), of(a=x()), of(a=x(), b=x(type=WIDE)), "drop/modify"),
    "dropped, and renamed": ColumnRule(of(a=x(), b=x()), of(a=x()), of(a=x(), c=x(id="b")), "drop/modify"),
    "renamed": ColumnRule(of(b=x()), of(c=x(id="b")), of(b=x()), of(c=x(id="b"))),
    "renamed, and changed": ColumnRule(of(b=x()), of(c=x(id="b")), of(b=x(CHANGED)), of(c=x(CHANGED, id="b"))),
    "renamed alike": ColumnRule(of(b=x()), of(c=x(id="b")), of(c=x(id="b")), of(c=x(id="b"))),
    "renamed otherwise": ColumnRule(of(b=x()), of(c=x(id="b")), of(d=x(id="b")), "column name"),
    "renamed to a name that the other side added": ColumnRule(
        of(b=x()), of(c=x(id="b")), of(b=x(), c=x(W)), "column name"),
    "widened": ColumnRule(of(b=x()), of(b=x(type=WIDE)), of(b=x()), of(b=x(type=WIDE))),
    "widened, and changed": ColumnRule(of(b=x()), of(b=x(type=WIDE)), of(b=x(CHANGED)), of(b=x(CHANGED, WIDE))),
    "widened by both, one more": ColumnRule(of(b=x()), of(b=x(type=WIDE)), of(b=x(type=WIDER)), of(b=x(type=WIDER))),
    "retyped by both": ColumnRule(of(b=x()), of(b=x(["1", "2", "3"], TEXT)), of(b=x(type=pa.date32())), "column type"),
    "retyped, and changed": ColumnRule(of(b=x()), of(b=x(["1", "2", "3"], TEXT)), of(b=x(CHANGED)), "column type"),
    "reordered by one side": ColumnRule(of(a=x(), b=x(W)), of(a=x(), b=x(W)), of(b=x(W), a=x()), of(b=x(W), a=x())),
    "made not null": ColumnRule(of(b=x()), of(b=x(nullable=False)), of(b=x()), of(b=x(nullable=False))),
    "made not null, and given nulls": ColumnRule(
        of(b=x()), of(b=x(nullable=False)), of(b=x([1, None, 3])), "constraint"),
    "made nullable, and given nulls": ColumnRule(
        of(b=x(nullable=False)), of(b=x([1, None, 3])), of(b=x(nullable=False)), of(b=x([1, None, 3]))),
}  # fmt: skip
OF_VALUES = {"dropped, and changed", "retyped, and changed", "made not null, and given nulls"}
"""Conflicts about values, which tables without rows do not have."""


@pytest.mark.parametrize("form", ["key", "key, sorted", "no key", "no rows"])
@pytest.mark.parametrize("rule", COLUMN_RULES)
def test_columns(rule: str, form: str, tmp_path: Path) -> None:
    """In both directions, with a key and without one, with rows and without."""
    ids = sorted(IDS) if form == "key, sorted" else IDS
    count = 0 if form == "no rows" else len(ids)
    key = () if form == "no key" else ("id",)

    def table(columns: Table) -> Table:
        cut = {name: replace(field, values=field.values[:count]) for name, field in columns.items()}
        return {"id": Field(pa.int64(), ids[:count]), **cut}

    base, ours, theirs, result = COLUMN_RULES[rule]
    for left, right in ((ours, theirs), (theirs, ours)):
        merged = merge(table(base), table(left), table(right), key, tmp_path)
        if isinstance(result, str):
            assert merged.conflicts == ({result} if count or rule not in OF_VALUES else set())
            continue
        whole = listed(read_back(table(result)))
        assert merged.conflicts == set()
        assert sorted(merged.columns) == sorted(whole.columns)
        if "each" not in rule:
            assert merged.columns == whole.columns
            assert Counter(merged.rows) == Counter(whole.rows)


# --- components --------------------------------------------------------------------------------------------------------

OLD, NEW, OTHER = (Entry("data", 0, "data", digit * 64, "parquet", None) for digit in "123")
CSV, TEXTS = (replace(entry, format=format) for entry, format in ((NEW, "csv"), (OTHER, "binary")))

COMPONENT_RULES: dict[str, tuple[Entry | None, Entry | None, Entry | None, Decision]] = {
    "unchanged": (OLD, OLD, OLD, "ours"),
    "changed by ours": (OLD, NEW, OLD, "ours"),
    "changed by theirs": (OLD, OLD, NEW, "theirs"),
    "changed by both, alike": (OLD, NEW, NEW, "ours"),
    "added by ours": (None, NEW, None, "ours"),
    "added by theirs": (None, None, NEW, "theirs"),
    "added by both, alike": (None, NEW, NEW, "ours"),
    "added by both, two tables": (None, NEW, OTHER, "rows"),
    "removed by ours": (OLD, None, OLD, "ours"),
    "removed by theirs": (OLD, OLD, None, "theirs"),
    "removed by both": (OLD, None, None, "ours"),
    "removed by ours, changed by theirs": (OLD, None, NEW, "delete/modify"),
    "changed by ours, removed by theirs": (OLD, NEW, None, "delete/modify"),
    "changed by both, two tables": (OLD, NEW, OTHER, "rows"),
    "changed by both, a delivered file": (OLD, CSV, OTHER, "both changed"),
    "changed by both, a plain file": (OLD, NEW, TEXTS, "both changed"),
}


@pytest.mark.parametrize("rule", COMPONENT_RULES)
def test_components(rule: str) -> None:
    base, ours, theirs, decision = COMPONENT_RULES[rule]
    assert merge_component(base, ours, theirs) == decision
