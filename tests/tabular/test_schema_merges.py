"""Merges of columns, after the named cases of Dolt's `schema_merge_test.go`: its facts, in both directions.

Left out are cases about what our tables lack: collations, defaults, secondary indexes, check constraints; and about tables that
are dropped (a component that one side removed and the other changed is `delete/modify`; see the contract tests).
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_registry.model.schema import TableSchema
from dataset_registry.tabular.arrow import columns_of
from dataset_registry.tabular.edits import stream_edited
from dataset_registry.tabular.engine import Engine
from dataset_registry.tabular.rows import TablePart
from dataset_registry.tabular.table_merge import TableVersion, merge_tables

CONFLICT = "conflict"
TYPES = {"": pa.int64(), "t": pa.string(), "!": pa.int64(), "f": pa.float64()}

Rows = list[tuple[Any, ...]]
State = tuple[str, Rows]
"""Columns as words (`a` an integer, `a:t` a text, `a:!` an integer that is not null), the key before `|`; and rows."""

E: Rows = []

CASES: dict[str, tuple[State, State, State, State | str]] = {
    "nothing changes": (("id |", [(1,)]), ("id |", [(1,)]), ("id |", [(1,)]), ("id |", [(1,)])),
    # one side adds a column
    "added with a value": (("id |", [(1,)]), ("id | a", [(1, 2)]), ("id |", [(1,)]), ("id | a", [(1, 2)])),
    "added with null": (("id |", [(1,)]), ("id | a", [(1, None)]), ("id |", [(1,)]), ("id | a", [(1, None)])),
    "added before another": (("id | b", [(1, 3)]), ("id | a b", [(1, 2, 3)]), ("id | b", [(1, 3)]), ("id | a b", [(1, 2, 3)])),
    "added beside a change": (("id | b", [(1, 3)]), ("id | a b", [(1, 2, 3)]), ("id | b", [(1, 4)]), ("id | a b", [(1, 2, 4)])),
    "added beside a change to null": (
        ("id | b", [(1, 3)]), ("id | a b", [(1, 2, 3)]), ("id | b", [(1, None)]), ("id | a b", [(1, 2, None)])),
    "added beside a change from null": (
        ("id | b", [(1, None)]), ("id | a b", [(1, 2, None)]), ("id | b", [(1, 3)]), ("id | a b", [(1, 2, 3)])),
    "added with null beside null": (
        ("id | b", [(1, None)]), ("id | a b", [(1, None, None)]), ("id | b", [(1, None)]), ("id | a b", [(1, None, None)])),
    "added with null beside a change": (
        ("id | b", [(1, 3)]), ("id | a b", [(1, None, 3)]), ("id | b", [(1, 4)]), ("id | a b", [(1, None, 4)])),
    # one side drops a column
    "dropped": (("id | b a", [(1, 2, 3)]), ("id | b", [(1, 2)]), ("id | b a", [(1, 2, 3)]), ("id | b", [(1, 2)])),
    "dropped, set to null": (("id | b a", [(1, 2, 3)]), ("id | b", [(1, 2)]), ("id | b a", [(1, 2, None)]), CONFLICT),
    "dropped, set to null, another changed": (
        ("id | b a", [(1, 2, 3)]), ("id | b", [(1, 2)]), ("id | b a", [(1, 3, None)]), CONFLICT),
    "dropped as null, set": (("id | b a", [(1, 2, None)]), ("id | b", [(1, 2)]), ("id | b a", [(1, 2, 3)]), CONFLICT),
    "dropped as null with a change, set": (
        ("id | b a", [(1, 2, None)]), ("id | b", [(1, 3)]), ("id | b a", [(1, 2, 3)]), CONFLICT),
    "dropped, changed": (("id | b a", [(1, 2, 3)]), ("id | b", [(1, 2)]), ("id | b a", [(1, 2, 4)]), CONFLICT),
    "dropped, a row deleted": (
        ("id | b a", [(1, 2, 3), (4, 5, 6)]), ("id | b", [(1, 2), (4, 5)]), ("id | b a", [(1, 2, 3)]), ("id | b", [(1, 2)])),
    "dropped before another": (("id | a b", [(1, 2, 3)]), ("id | b", [(1, 3)]), ("id | a b", [(1, 2, 3)]), ("id | b", [(1, 3)])),
    "dropped before another, set to null": (
        ("id | a b", [(1, 2, 3)]), ("id | b", [(1, 3)]), ("id | a b", [(1, None, 3)]), CONFLICT),
    "dropped before another, set": (("id | a b", [(1, None, 3)]), ("id | b", [(1, 4)]), ("id | a b", [(1, 2, 3)]), CONFLICT),
    "dropped before another, changed": (("id | a b", [(1, 2, 3)]), ("id | b", [(1, 3)]), ("id | a b", [(1, 4, 3)]), CONFLICT),
    # both change columns
    "two columns added": (("id |", [(1,)]), ("id | a", [(1, 2)]), ("id | b", [(1, 3)]), ("id | a b", [(1, 2, 3)])),
    "two columns dropped": (("id | a b", [(1, 2, 3)]), ("id | a", [(1, 2)]), ("id | b", [(1, 3)]), ("id |", [(1,)])),
    "one column added by both, null": (
        ("id | b", [(1, 2)]), ("id | b a", [(1, 2, None)]), ("id | b a", [(1, 2, None)]), ("id | b a", [(1, 2, None)])),
    "one column added by both, null and a value": (
        ("id | b", [(1, 2)]), ("id | b a", [(1, 2, None)]), ("id | b a", [(1, 2, 3)]), CONFLICT),
    "one column added by both, null and a value, another changed alike": (
        ("id | b", [(1, 2)]), ("id | b a", [(1, 3, None)]), ("id | b a", [(1, 3, 4)]), CONFLICT),
    "one column added by both before another": (
        ("id | a", [(1, 2)]), ("id | b a", [(1, None, 2)]), ("id | b a", [(1, None, 2)]), ("id | b a", [(1, None, 2)])),
    "one column added by both before another, null and a value": (
        ("id | a", [(1, 2)]), ("id | b a", [(1, None, 2)]), ("id | b a", [(1, 3, 2)]), CONFLICT),
    "one column dropped by both": (("id | a", [(1, 2)]), ("id |", [(1,)]), ("id |", [(1,)]), ("id |", [(1,)])),
    "one column dropped by both, a row added": (("id | a", E), ("id |", [(1,)]), ("id |", [(1,)]), ("id |", [(1,)])),
    "one added by both, others dropped": (
        ("id | a b", [(1, 2, 3)]), ("id | b c", [(1, 3, 4)]), ("id | a c", [(1, 2, 4)]), ("id | c", [(1, 4)])),
    "one dropped by both, others added": (
        ("id | a", [(1, 2)]), ("id | b", [(1, 3)]), ("id | c", [(1, 4)]), ("id | b c", [(1, 3, 4)])),
    # columns and rows
    "column added, row inserted": (
        ("id |", [(1,)]), ("id | a", [(1, 2)]), ("id |", [(1,), (11,)]), ("id | a", [(1, 2), (11, None)])),
    "column dropped, row inserted": (
        ("id | a", [(1, 2)]), ("id |", [(1,)]), ("id | a", [(1, 2), (11, 22)]), ("id |", [(1,), (11,)])),
    "columns added, rows inserted": (
        ("id |", [(1,)]), ("id | a", [(1, 2), (12, 22)]), ("id | b", [(1, 3), (13, 33)]),
        ("id | a b", [(1, 2, 3), (12, 22, None), (13, None, 33)])),
    "columns dropped, rows inserted": (
        ("id | a b", [(1, 2, 3)]), ("id | a", [(1, 2), (12, 22)]), ("id | b", [(1, 3), (13, 33)]),
        ("id |", [(1,), (12,), (13,)])),
    "one column added by both, rows inserted": (
        ("id |", [(1,)]), ("id | a", [(1, None), (12, 22)]), ("id | a", [(1, None), (13, 33)]),
        ("id | a", [(1, None), (12, 22), (13, 33)])),
    "one column dropped by both, rows inserted": (
        ("id | a", [(1, 2)]), ("id |", [(1,), (12,)]), ("id |", [(1,), (13,)]), ("id |", [(1,), (12,), (13,)])),
    "columns dropped, the same row inserted": (
        ("id | a b", [(1, 2, 3)]), ("id | a", [(1, 2), (12, 22)]), ("id | b", [(1, 3), (12, 33)]), ("id |", [(1,), (12,)])),
    "a column dropped for another, and changed": (
        ("id | c a", [(1, 1, 2)]), ("id | c a", [(1, 1, 3)]), ("id | c b", [(1, 2, 2)]), CONFLICT),
    "a column dropped for another": (
        ("id | c a", [(1, 1, 2)]), ("id | c a", [(1, 1, 2)]), ("id | c b", [(1, 2, 2)]), ("id | c b", [(1, 2, 2)])),
    "a column dropped for one of another type": (
        ("id | c a", [(1, 1, 2)]), ("id | c a", [(1, 1, 2)]), ("id | c b:t", [(1, 1, "x")]), ("id | c b:t", [(1, 1, "x")])),
    # not null
    "a column not null added to no rows": (("id |", E), ("id | a:!", E), ("id |", E), ("id | a:!", E)),
    "a column made not null": (
        ("id | a", [(1, 1)]), ("id | a:!", [(1, 1)]), ("id | a", [(1, 1), (2, 2)]), ("id | a:!", [(1, 1), (2, 2)])),
    # types
    "a type changed": (
        ("id | a b", [(1, 2, 3)]), ("id | a:t b", [(1, "2", 3)]), ("id | a b", [(1, 2, 3)]), ("id | a:t b", [(1, "2", 3)])),
    "two types changed": (
        ("id | a b", [(1, 2, 3)]), ("id | a:t b", [(1, "2", 3)]), ("id | a b:t", [(1, 2, "3")]),
        ("id | a:t b:t", [(1, "2", "3")])),
    "one type changed by both": (
        ("id | a b", [(1, 2, 3)]), ("id | a:t b", [(1, "2", 3)]), ("id | a:t b", [(1, "2", 3)]), ("id | a:t b", [(1, "2", 3)])),
    "a type changed, its values changed there": (
        ("id | a", [(1, 2)]), ("id | a:t", [(1, "2")]), ("id | a", [(1, 3)]), CONFLICT),
    "a type changed, a row inserted there": (
        ("id | a", [(1, 2)]), ("id | a:t", [(1, "2")]), ("id | a", [(1, 2), (2, 3)]), CONFLICT),
    "a type changed by both, otherwise": (
        ("id | a", [(1, 2)]), ("id | a:t", [(1, "2")]), ("id | a:f", [(1, 2.5)]), CONFLICT),
    # rows beside an unchanged column
    "the same row inserted by both": (
        ("id | a:t", E), ("id | a:t", [(1, "x")]), ("id | a:t", [(1, "x")]), ("id | a:t", [(1, "x")])),
    "a row inserted by both, otherwise": (("id | a:t", E), ("id | a:t", [(1, "x")]), ("id | a:t", [(1, "y")]), CONFLICT),
    "a row deleted, a column added": (("id |", [(1,)]), ("id |", E), ("id | a", [(1, None)]), ("id | a", E)),
    "a row deleted and changed": (("id | a", [(1, 2)]), ("id | a", E), ("id | a", [(1, 3)]), CONFLICT),
    "two cells of a row": (
        ("id | a b", [(1, 1, 1)]), ("id | a b", [(1, 1, 2)]), ("id | a b", [(1, 2, 1)]), ("id | a b", [(1, 2, 2)])),
    # keys
    "a column joins the key": (
        ("a | b:t c:f", [(1, "2", 3.0)]), ("a b:t | c:f", [(1, "2", 3.0)]), ("a | b:t c:f", [(1, "2", 3.0)]),
        ("a b:t | c:f", [(1, "2", 3.0)])),
    "a column leaves the key": (
        ("a b:t | c:f", [(1, "2", 3.0)]), ("a | b:t c:f", [(1, "2", 3.0)]), ("a b:t | c:f", [(1, "2", 3.0)]),
        ("a | b:t c:f", [(1, "2", 3.0)])),
    "a column leaves the key on both sides": (
        ("a b:t | c:f", [(1, "2", 3.0)]), ("a | b:t c:f", [(1, "2", 3.0)]), ("a | b:t c:f", [(1, "2", 3.0)]),
        ("a | b:t c:f", [(1, "2", 3.0)])),
    "the key goes": (
        ("a | b:t", [(1, "2")]), ("| a b:t", [(1, "2")]), ("a | b:t", [(1, "2")]), ("| a b:t", [(1, "2")])),
    "the keys become others": (("a b |", [(1, 2)]), ("a | b", [(1, 2)]), ("b | a", [(2, 1)]), CONFLICT),
}  # fmt: skip


def stored(state: State, folder: Path) -> TableVersion:
    key, _, rest = state[0].partition("|")
    words = [*key.split(), *rest.split()]
    pairs = [(name, kind) for name, _, kind in (word.partition(":") for word in words)]
    schema = pa.schema([pa.field(name, TYPES[kind], nullable=kind != "!") for name, kind in pairs])
    columns = list(zip(*state[1], strict=True)) if state[1] else [[] for _ in pairs]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
    path = folder / f"{len(list(folder.iterdir()))}.parquet"
    pq.write_table(table, path)
    names = tuple(word.partition(":")[0] for word in key.split())
    part = TablePart(sha256(path.read_bytes()).hexdigest(), table.num_rows, lambda: path)
    return TableVersion(("data", 0), [part], TableSchema(None, columns_of(schema), table.num_rows, key=names))


@pytest.mark.parametrize("flipped", [False, True], ids=["", "flipped"])
@pytest.mark.parametrize("name", CASES)
def test_columns_merge_as_in_dolt(name: str, flipped: bool, tmp_path: Path) -> None:
    base, left, right, expected = CASES[name]
    sides = (base, right, left) if flipped else (base, left, right)
    tables = tuple(stored(state, tmp_path) for state in sides)
    with Engine(tmp_path) as engine:
        found = merge_tables(tables, lambda kind, component, column: None, engine)  # type: ignore[arg-type]
        if expected == CONFLICT:
            assert found.conflicts
            return
        assert not found.conflicts, [str(conflict) for conflict in found.conflicts]
        assert found.sides is not None
        merged = stream_edited(found.sides.ours, found.edits).read_all()
    assert not isinstance(expected, str)
    wanted = stored(expected, tmp_path)
    assert {(c.name, c.type, c.nullable) for c in columns_of(merged.schema)} == {
        (c.name, c.type, c.nullable) for c in wanted.schema.columns
    }
    assert found.schema.key == wanted.schema.key
    rows = wanted.own_rows().part(0).select(merged.column_names).to_pylist()
    assert sorted(map(str, merged.to_pylist())) == sorted(map(str, rows))
