"""Merges of random tables against those of doltlite: the same result, or the same conflicts.

`DOLTLITE_CASES=10000` runs more of them.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_registry.model.merge import merge_cell
from dataset_registry.model.schema import Column, TableSchema
from dataset_registry.tabular.arrow import columns_of
from dataset_registry.tabular.edits import stream_edited
from dataset_registry.tabular.engine import Engine
from dataset_registry.tabular.rows import TablePart
from dataset_registry.tabular.table_merge import TableVersion, merge_tables

CASES = int(os.environ.get("DOLTLITE_CASES", "80"))
TYPES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "INT": (pa.int64(), [0, 1, 2, None]),
    "TEXT": (pa.string(), ["", "a", "ü", None]),
    "REAL": (pa.float64(), [0.5, 1.5, -2.25, None]),
}


@dataclass
class Table:
    """A table as a list of columns (their ids, names and types) and rows by key; and the statements that made it."""

    columns: dict[str, tuple[str, str]]
    rows: dict[int, dict[str, Any]]
    statements: list[tuple[str, list[Any]]] = field(default_factory=list)

    def copy(self) -> "Table":
        return Table(dict(self.columns), {key: dict(row) for key, row in self.rows.items()})

    def do(self, statement: str, *values: Any) -> None:
        self.statements.append((statement, list(values)))

    def name(self, column: str) -> str:
        return self.columns[column][0]

    def insert(self, key: int, values: dict[str, Any]) -> None:
        self.rows[key] = values
        names = ["id", *(self.name(column) for column in values)]
        marks = ", ".join("?" * len(names))
        self.do(f"INSERT INTO t ({', '.join(names)}) VALUES ({marks})", key, *values.values())

    def update(self, key: int, column: str, value: Any) -> None:
        self.rows[key][column] = value
        self.do(f"UPDATE t SET {self.name(column)} = ? WHERE id = ?", value, key)

    def delete(self, key: int) -> None:
        del self.rows[key]
        self.do("DELETE FROM t WHERE id = ?", key)

    def add(self, column: str, type: str) -> None:
        self.columns[column] = (column, type)
        for row in self.rows.values():
            row[column] = None
        self.do(f"ALTER TABLE t ADD COLUMN {column} {type}")

    def drop(self, column: str) -> None:
        self.do(f"ALTER TABLE t DROP COLUMN {self.name(column)}")
        del self.columns[column]
        for row in self.rows.values():
            del row[column]

    def rename(self, column: str, name: str) -> None:
        self.do(f"ALTER TABLE t RENAME COLUMN {self.name(column)} TO {name}")
        self.columns[column] = (name, self.columns[column][1])

    def stored(self, folder: Path) -> TableVersion:
        keys = sorted(self.rows)
        fields = [pa.field("id", pa.int64())]
        arrays = [pa.array(keys, pa.int64())]
        for column, (name, type) in self.columns.items():
            fields.append(pa.field(name, TYPES[type][0]))
            arrays.append(pa.array([self.rows[key][column] for key in keys], TYPES[type][0]))
        table = pa.table(arrays, schema=pa.schema(fields))
        path = folder / f"{sha256(os.urandom(8)).hexdigest()}.parquet"
        pq.write_table(table, path)
        ids = {name: column for column, (name, _) in self.columns.items()}
        columns = tuple(
            Column(c.name, c.type, c.nullable, c.fields, ids.get(c.name) if ids.get(c.name) != c.name else None)
            for c in columns_of(table.schema)
        )
        part = TablePart(sha256(path.read_bytes()).hexdigest(), table.num_rows, lambda: path)
        return TableVersion(("data", 0), [part], TableSchema(None, columns, table.num_rows, key=("id",)))


def case(random: random.Random) -> tuple[Table, Table, Table]:
    """A base table and two versions of it."""
    base = Table({}, {})
    for index in range(random.randint(1, 6)):
        base.columns[f"c{index}"] = (f"c{index}", random.choice(list(TYPES)))
    listed = "".join(f", {name} {type}" for name, type in base.columns.values())
    base.do(f"CREATE TABLE t (id INTEGER PRIMARY KEY{listed})")
    for key in range(random.randint(0, 6)):
        base.insert(key, {c: random.choice(TYPES[type][1]) for c, (_, type) in base.columns.items()})
    sides = []
    for side in ("ours", "theirs"):
        table = base.copy()
        for _ in range(random.randint(0, 5)):
            change(random, table, side)
        sides.append(table)
    return base, sides[0], sides[1]


def change(random: random.Random, table: Table, side: str) -> None:
    keys, columns = list(table.rows), list(table.columns)
    kind = random.choices(["update", "insert", "delete", "add", "drop", "rename"], [8, 4, 3, 1, 1, 1])[0]
    if kind == "update" and keys and columns:
        column = random.choice(columns)
        table.update(random.choice(keys), column, random.choice(TYPES[table.columns[column][1]][1]))
    elif kind == "insert":
        key = random.choice([k for k in range(12) if k not in table.rows])
        table.insert(key, {c: random.choice(TYPES[type][1]) for c, (_, type) in table.columns.items()})
    elif kind == "delete" and keys:
        table.delete(random.choice(keys))
    elif kind == "add":
        name = random.choice([f"{side}1", f"{side}2", "new1"])
        if name not in columns and name not in [n for n, _ in table.columns.values()]:
            table.add(name, "INT" if name == "new1" else random.choice(list(TYPES)))
    elif kind == "drop" and len(columns) > 1:
        table.drop(random.choice(columns))
    elif kind == "rename" and columns:
        column = random.choice(columns)
        name = random.choice([f"{side}_renamed", "renamed"])
        if name not in [n for n, _ in table.columns.values()]:
            table.rename(column, name)


def ours_of(tables: tuple[Table, Table, Table], folder: Path, engine: Engine) -> dict[str, Any]:
    """The result of our merge, in the form of the oracle's."""
    base, ours, theirs = (table.stored(folder) for table in tables)
    found = merge_tables((base, ours, theirs), lambda kind, component, column: None, engine)
    if found.sides is None or any(c.kind in ("drop/modify", "column name", "column type") for c in found.conflicts):
        return {"error": "; ".join(sorted({c.kind for c in found.conflicts}))}
    table = stream_edited(found.sides.ours, found.edits).read_all()
    rows = sorted(tuple(row.values()) for row in table.to_pylist()) if table.num_columns == 1 else None
    listed = rows if rows is not None else sorted((tuple(r.values()) for r in table.to_pylist()), key=lambda r: r[0])
    conflicts: list[int] = []
    if found.rows is not None and len(found.rows):
        from dataset_registry.tabular.conflicts import coalesced

        conflicts = sorted(coalesced(found.sides, found.rows, ["id"]).column(0).to_pylist())
    return {"columns": table.column_names, "rows": listed, "conflicts": conflicts}


@pytest.fixture(scope="module")
def oracle() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.properties.doltlite_oracle"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def asked(oracle: subprocess.Popen[str], tables: tuple[Table, Table, Table]) -> dict[str, Any]:
    assert oracle.stdin is not None
    assert oracle.stdout is not None
    request = dict(zip(("base", "ours", "theirs"), (table.statements for table in tables), strict=True))
    oracle.stdin.write(json.dumps(request) + "\n")
    oracle.stdin.flush()
    found: dict[str, Any] = json.loads(oracle.stdout.readline())
    return found


def explained(tables: tuple[Table, Table, Table], mine: dict[str, Any], other: dict[str, Any]) -> str | None:
    """Why the results differ, where a rule of docs/design/merging.md or a fault of the oracle says so; None if nothing does."""
    base, ours, theirs = tables
    renamed = [{c for c, (name, _) in side.columns.items() if name != c} for side in (ours, theirs)]
    dropped = [base.columns.keys() - side.columns.keys() for side in (ours, theirs)]
    if mine.get("error") == "column name" and any(renamed):
        return "renames: it keeps one name of two, where the rule is a conflict"
    if dropped[0] & renamed[1] or dropped[1] & renamed[0]:
        return "a column renamed here and dropped there: it keeps the column without its values"
    if mine.get("error") == "drop/modify":
        return "a column dropped here and edited there: it drops the edits"
    if other.get("error", "").startswith("cannot merge: ") and "ambiguous" in other["error"]:
        return "a column dropped beside others that changed: it takes that for a rename, and refuses"
    if dropped[1] and "error" not in other and by_name(other) == _own(ours):
        return "both sides changed columns alike, and theirs dropped one: it ignores theirs"
    if "error" in mine or "error" in other or set(mine["columns"]) != set(other["columns"]):
        return None
    changed = [renamed[i] or side.columns.keys() - base.columns.keys() for i, side in enumerate((ours, theirs))]
    if any(dropped) and (all(dropped) or any(changed)):
        return "a column dropped beside others that changed: it takes values of one column for those of another"
    more = set(mine["conflicts"]) - set(other["conflicts"])
    if more and set(other["conflicts"]) <= set(mine["conflicts"]) and all(_only_new_cells(tables, key) for key in more):
        return "a row deleted here, with a value in a new column there: it drops the value"
    return None


def _own(table: Table) -> dict[int, dict[str, Any]]:
    return {key: {"id": key, **{table.name(c): v for c, v in row.items()}} for key, row in table.rows.items()}


def _only_new_cells(tables: tuple[Table, Table, Table], key: int) -> bool:
    """Whether one side deleted a row in which the other one changed only columns that the base lacks."""
    base, ours, theirs = tables
    kept = ours if key in ours.rows else theirs
    if key not in base.rows or (key in ours.rows) == (key in theirs.rows):
        return False
    shared = base.columns.keys() & kept.columns.keys()
    return all(base.rows[key][c] == kept.rows[key][c] for c in shared)


def by_rule(tables: tuple[Table, Table, Table]) -> tuple[dict[int, dict[str, Any]], set[int]]:
    """The rows of a merge whose columns have no conflict, and the keys in conflict: each cell by the rule of a cell."""
    base, ours, theirs = tables
    there = [side.columns.keys() for side in tables]
    columns = [c for c in {**ours.columns, **theirs.columns} if (c in there[1] and c in there[2]) or c not in there[0]]
    names = {c: _merged_name(tables, c) for c in columns}
    rows: dict[int, dict[str, Any]] = {}
    conflicts = set()
    for key in {*base.rows, *ours.rows, *theirs.rows}:
        cells = [
            None if key not in side.rows else [side.rows[key].get(column) for column in columns] for side in tables
        ]
        b, o, t = cells
        if b is not None and o is not None and t is not None:
            # A column that both added has no cell in the base.
            added = [c in there[1] and c in there[2] and c not in there[0] for c in columns]
            was = [object() if is_added else value for is_added, value in zip(added, b, strict=True)]
            sides = [merge_cell(*values) for values in zip(was, o, t, strict=True)]
            row: list[Any] | None = [t[i] if side == "theirs" else o[i] for i, side in enumerate(sides)]
            if None in sides:
                conflicts.add(key)
        elif (side := merge_cell(b, o, t)) is not None:
            row = {"ours": o, "theirs": t}[side]
        else:
            row = o
            conflicts.add(key)
        if row is not None:
            rows[key] = {"id": key, **{names[c]: value for c, value in zip(columns, row, strict=True)}}
    return rows, conflicts


def _merged_name(tables: tuple[Table, Table, Table], column: str) -> str:
    known = [side.columns[column][0] for side in tables[1:] if column in side.columns]
    return next((name for name in known if name != column), known[0])


def by_name(found: dict[str, Any]) -> dict[int, dict[str, Any]]:
    at = found["columns"].index("id")
    return {row[at]: dict(zip(found["columns"], row, strict=True)) for row in found["rows"]}


def alike(mine: dict[str, Any], other: dict[str, Any]) -> bool:
    if "error" in mine or "error" in other:
        return "error" in mine and bool("error" in other or other["conflicts"])
    if mine["conflicts"] != other["conflicts"] or set(mine["columns"]) != set(other["columns"]):
        return False
    left, right = by_name(mine), by_name(other)
    for key in mine["conflicts"]:
        left.pop(key, None)
        right.pop(key, None)
    return left == right


def test_random_merges_are_those_of_doltlite(oracle: subprocess.Popen[str], tmp_path: Path) -> None:
    reasons: Counter[str] = Counter()
    differences = []
    with Engine(tmp_path) as engine:
        if "no such function" in asked(oracle, case(random.Random(0))).get("error", ""):
            pytest.skip("this Python has SQLite built in, so doltlite cannot take its place")
        for seed in range(CASES):
            tables = case(random.Random(seed))
            mine, other = ours_of(tables, tmp_path, engine), asked(oracle, tables)
            for path in tmp_path.glob("*.parquet"):
                path.unlink()
            if "error" not in mine:
                rows, conflicts = by_rule(tables)
                assert (by_name(mine), set(mine["conflicts"])) == (rows, conflicts), seed
            if alike(mine, other):
                reasons["conflict" if mine.get("error") or mine.get("conflicts") else "equal"] += 1
            elif (reason := explained(tables, mine, other)) is not None:
                reasons[reason] += 1
            else:
                differences.append((seed, [t.statements for t in tables], mine, other))
    print(f"\n{CASES} merges beside doltlite: {dict(reasons)}, {len(differences)} unexplained differences")
    assert not differences, ([seed for seed, *_ in differences], differences[0])
