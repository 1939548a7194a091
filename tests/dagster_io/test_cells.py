"""Every type × kind of partitions × number of partitions × write mode × backend: what is written is what is read.

The default run takes some cells on SQLite and a folder, each type, kind, number and mode among them; the long one takes all,
there and on PostgreSQL and S3.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pytest

from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource
from tests.dagster_io.conftest import RANGE_END, RANGE_START, quiet_instance

Row = tuple[int, int]
Rows = Sequence[Row]

COLORS = dg.StaticPartitionsDefinition(["blue", "green", "red", "white"])
PARTITIONS: Mapping[str, dg.PartitionsDefinition | None] = {  # type: ignore[type-arg]
    "none": None,
    "static": COLORS,
    "daily": dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-05"),
    "multi": dg.MultiPartitionsDefinition(
        {"color": COLORS, "size": dg.StaticPartitionsDefinition(["l"])},
    ),
    "dynamic": dg.DynamicPartitionsDefinition(name="cells"),
}
KEYS = {
    "static": ["blue", "green", "red", "white"],
    "daily": [f"2026-01-0{day}" for day in range(1, 5)],
    "multi": [f"{color}|l" for color in ("blue", "green", "red", "white")],
    "dynamic": ["a", "b", "c", "d"],
}
SPANS = {"one": slice(1, 2), "range": slice(1, 3), "all": slice(0, 4)}
MODES = ("overwrite", "append", "upsert")


def _arrow(rows: Rows) -> pa.Table:
    return pa.table({"id": pa.array([i for i, _ in rows], pa.int64()), "v": pa.array([v for _, v in rows], pa.int64())})


def _csv(rows: Rows, folder: Path) -> Path:
    path = folder / f"{len(list(folder.glob('*.csv')))}.csv"
    pyarrow.csv.write_csv(_arrow(rows), path)
    return path


class Kind(NamedTuple):
    """A type that assets return and load: how it is made of rows, its annotation, and how it is read."""

    make: Callable[[Rows, Path], Any]
    annotation: Any
    read: Callable[[Any], pa.Table]


TYPES = {
    "arrow": Kind(lambda rows, _: _arrow(rows), pa.Table, lambda value: value),
    "reader": Kind(lambda rows, _: _arrow(rows).to_reader(), pa.RecordBatchReader, lambda value: value.read_all()),
    "pandas": Kind(lambda rows, _: _arrow(rows).to_pandas(), pd.DataFrame, pa.Table.from_pandas),
    "polars": Kind(lambda rows, _: pl.from_arrow(_arrow(rows)), pl.DataFrame, lambda value: value.to_arrow()),
    "lazy": Kind(
        lambda rows, _: pl.DataFrame(_arrow(rows)).lazy(), pl.LazyFrame, lambda value: value.collect().to_arrow()
    ),
    "duckdb": Kind(
        lambda rows, _: duckdb.from_arrow(_arrow(rows)), duckdb.DuckDBPyRelation, lambda value: value.to_arrow_table()
    ),
    "file": Kind(_csv, pa.Table, lambda value: value),
    "components": Kind(lambda rows, _: {"left": _arrow(rows), "right": _arrow(rows)}, pa.Table, lambda value: value),
}


class Cell(NamedTuple):
    """One cell of the matrix."""

    type: str
    partitions: str
    span: str
    mode: str


CELLS = [
    Cell(*cell)
    for cell in product(TYPES, PARTITIONS, SPANS, MODES)
    # An asset without partitions has one span; rows are edited in one table of a partition.
    if (cell[1] != "none" or cell[2] == "one")
    and (cell[0] != "components" or cell[1] == "none" or cell[3] == "overwrite")
]
FEW = CELLS[::17]


def written(before: dict[int, int], rows: Rows, mode: str) -> dict[int, int]:
    """The rows of a table after a write."""
    return dict(rows) if mode == "overwrite" else {**before, **dict(rows)}


def check(cell: Cell, name: str, resources: Mapping[str, Any], instance: dg.DagsterInstance, folder: Path) -> None:
    """Write twice, the second time other rows, and read it: each partition by itself, all together."""
    kind, definition = TYPES[cell.type], PARTITIONS[cell.partitions]
    keys = KEYS[cell.partitions][SPANS[cell.span]] if definition is not None else [""]
    content: dict[str, dict[int, int]] = {key: {} for key in keys}
    seen: list[pa.Table] = []

    def rows_of(key: str, turn: int) -> Rows:
        start = 100 * keys.index(key)
        # The second write has one row of the first again, unless rows are appended.
        first = start + (10 if cell.mode == "append" and turn else turn)
        return [(first, turn), (first + 1, turn + 7)]

    options: dict[str, Any] = {"partitions_def": definition} if definition is not None else {}

    @dg.asset(name=name, metadata={"registry/write_mode": cell.mode, "registry/key": "id"}, **options)
    def source(context: dg.AssetExecutionContext):
        mine = list(context.partition_keys) if definition is not None else [""]
        values = {key: kind.make(rows_of(key, turn), folder) for key in mine}
        return values if len(values) > 1 else values[mine[0]]

    def same(source):  # type: ignore[no-untyped-def]
        seen.append(source)

    def every(source):  # type: ignore[no-untyped-def]
        seen.append(source)

    several = len(keys) > 1
    for function, is_mapping in ((same, several), (every, definition is not None)):
        loaded: Any = dict[str, kind.annotation] if is_mapping or cell.type == "components" else kind.annotation  # type: ignore[name-defined]
        function.__annotations__ = {"source": loaded, "return": None}
    whole = dg.AssetIn(name, metadata={"allow_missing_partitions": True})
    assets = [
        source,
        dg.asset(name=f"{name}_same", ins={"source": dg.AssetIn(name)}, **options)(same),
        dg.asset(name=f"{name}_every", ins={"source": whole})(every),
    ]
    if definition is None:
        run: dict[str, Any] = {}
    elif several:
        run = {"tags": {RANGE_START: keys[0], RANGE_END: keys[-1]}}
    else:
        run = {"partition_key": keys[0]}

    for turn in (0, 1):
        for key in keys:
            content[key] = written(content[key], rows_of(key, turn), cell.mode)
        dg.materialize(assets, selection=[source], instance=instance, resources=resources, **run)
        dg.materialize(assets, selection=[assets[1]], instance=instance, resources=resources, **run)
        dg.materialize(assets, selection=[assets[2]], instance=instance, resources=resources)
        for value, is_mapping in zip(seen, (several, definition is not None), strict=True):
            tables = value if is_mapping else {keys[0]: value["left"] if cell.type == "components" else value}
            found = {
                key: dict(zip(*kind.read(table).select(["id", "v"]).to_pydict().values(), strict=True))
                for key, table in tables.items()
            }
            assert found == content, (cell, turn)
        seen.clear()


@pytest.fixture
def instance() -> Any:
    with quiet_instance() as opened:
        opened.add_dynamic_partitions("cells", KEYS["dynamic"])
        yield opened


def _check_all(cells: Sequence[Cell], registry: DatasetRegistryResource, instance: Any, folder: Path) -> None:
    resources = {"io_manager": DatasetRegistryIOManager(registry=registry), "registry": registry}
    wrong = {}
    for number, cell in enumerate(cells):
        try:
            check(cell, f"cell_{number}", resources, instance, folder)
        except Exception as error:
            wrong[cell] = repr(error)[:300]
    print(f"{len(cells)} cells, {len(wrong)} wrong")
    registry.registry.close()
    assert not wrong


@pytest.mark.parametrize("which", ["few", pytest.param("all", marks=pytest.mark.long)])
def test_what_a_cell_writes_is_what_it_reads(which: str, instance: Any, tmp_path: Path) -> None:
    registry = DatasetRegistryResource(path=str(tmp_path / "registry"), actor="alice")
    _check_all(FEW if which == "few" else CELLS, registry, instance, tmp_path)


@pytest.mark.long
def test_what_a_cell_writes_is_what_it_reads_on_postgresql_and_s3(
    postgresql_catalog: str, s3_url: str, instance: Any, tmp_path: Path
) -> None:
    registry = DatasetRegistryResource(catalog=postgresql_catalog, store=s3_url, actor="alice")
    _check_all(CELLS, registry, instance, tmp_path)
