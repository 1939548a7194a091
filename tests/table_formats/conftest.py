"""A server over tables of many types, and the readers of other projects."""

import datetime as dt
import fcntl
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import count
from pathlib import Path
from shutil import copy

import pyarrow as pa
import pytest

from tests import serving
from tests.waiting import SAFETY

ROOT = Path(__file__).parent.parent.parent
ROWS = 2000
MANY = 60_000
Read = Callable[[Sequence[tuple[str, str, str]]], list[pa.Table | str]]


def kinds(rows: int = ROWS) -> pa.Table:
    """Values of every type that Iceberg and Delta both have, sorted by `id`."""
    numbers = range(rows)
    day = dt.date(2026, 1, 1)
    moment = dt.datetime(2026, 3, 29, 0, 30, 0, 123456)

    def some(value: object, n: int) -> object:
        return None if n % 7 == 3 else value

    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "tiny": pa.array([some(n % 200 - 100, n) for n in numbers], pa.int8()),
            "short": pa.array([n % 60000 - 30000 for n in numbers], pa.int16()),
            "int": pa.array([n * 700_000 - (1 << 31) for n in numbers], pa.int32()),
            "u8": pa.array([n % 256 for n in numbers], pa.uint8()),
            "u16": pa.array([65_535 - n for n in numbers], pa.uint16()),
            "real": pa.array([n / 3 for n in numbers], pa.float32()),
            "double": pa.array([[n / 7, float("inf"), float("nan"), -0.0][n % 4] for n in numbers], pa.float64()),
            "yes": pa.array([some(n % 2 == 0, n) for n in numbers]),
            "price": pa.array([Decimal(n * 10**12 + n) / 1000 for n in numbers], pa.decimal128(38, 3)),
            "day": pa.array([dt.date(1, 1, 1), dt.date(9999, 12, 31), *[day + dt.timedelta(n) for n in numbers[2:]]]),
            "local": pa.array([moment + dt.timedelta(microseconds=n) for n in numbers], pa.timestamp("us")),
            "second": pa.array(
                [moment.replace(microsecond=0) + dt.timedelta(hours=n) for n in numbers], pa.timestamp("s")
            ),
            "instant": pa.array([moment + dt.timedelta(hours=n) for n in numbers], pa.timestamp("us", "UTC")),
            "text": pa.array([some(["", "Zürich", "日本", "a" * 300, "'\";\n"][n % 5], n) for n in numbers]),
            "bytes": pa.array([some(bytes([n % 256, 0]), n) for n in numbers], pa.binary()),
            "list": pa.array([some([n, None] if n % 5 else [], n) for n in numbers], pa.list_(pa.int32())),
            "struct": pa.array([{"x": n, "in": {"y": [f"{n}"], "z": some(n, n)}} for n in numbers]),
            "map": pa.array([[(f"k{n}", n / 2)] if n % 3 else [] for n in numbers], pa.map_(pa.string(), pa.float64())),
            "With space": pa.array([f"{n}" for n in numbers]),
            "größe": pa.array(numbers, pa.int32()),
        }
    )


@pytest.fixture(scope="session")
def tables(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Served]:
    """A server over `raw/kinds` (versions, a branch, a tag), `raw/times`, `raw/days` (partitions), `raw/many` (in many parts),
    `plain`, `raw/csv` and `raw/several`; `reader` may read all but `secret/table`."""
    folder = tmp_path_factory.mktemp("tables")
    copy(sqlite_template, folder / "catalog.sqlite")
    catalog = f"sqlite:///{folder / 'catalog.sqlite'}"
    with serving.in_thread(catalog=catalog, store=str(folder / "store")) as served:
        registry = served.owner
        first = kinds()
        found = registry.create_dataset("raw/kinds", description="many types")
        found.commit({"data": first}, key="id", message="first")
        found.create_tag("1.0")
        found.commit({"data": pa.concat_tables([first.slice(0, 100), first.slice(101)])}, key="id", message="one less")
        found.commit({"data": first.append_column("later", pa.array([1.5] * ROWS))}, key="id", message="a column more")
        found.create_branch("dev", "v1")
        found.commit({"data": first.slice(0, 10).drop_columns(["tiny"])}, key="id", branch="dev")
        times = {"time": pa.array([dt.time(1, 2, 3, n) for n in range(9)], pa.time64("us")), "id": range(9)}
        fixed = pa.array([bytes([n] * 16) for n in range(9)], pa.binary(16))
        zoned = pa.array([dt.datetime(2026, 1, n + 1) for n in range(9)], pa.timestamp("us", "Europe/Berlin"))
        pair = pa.array([[n, n + 1] for n in range(9)], pa.list_(pa.int16(), 2))
        times |= {"fixed": fixed, "zoned": zoned, "pair": pair}
        registry.create_dataset("raw/times").commit({"data": pa.table(times)})
        days = {f"2026-01-{day:02}": pa.table({"id": [day, day + 40], "day": [day] * 2}) for day in range(1, 21)}
        narrow = pa.table({"id": pa.array([21], pa.int32()), "day": [21]})
        registry.create_dataset("raw/days").commit({**days, "2026-01-21": narrow})
        many = pa.table({"id": range(MANY), "text": [f"{n % 977:0200}" for n in range(MANY)]})
        large = registry.create_dataset("raw/many")
        large.commit({"data": many}, key="id")
        large.delete_rows(where="id = 20000")
        registry.create_dataset("plain").commit({"data": pa.table({"id": [7, 8]})})
        (folder / "one.csv").write_text("id,name\n1,a\n")
        registry.create_dataset("raw/csv").commit({"data": folder / "one.csv"})
        several = {"orders": pa.table({"id": [1, 2]}), "lines": pa.table({"order": [1], "text": ["x"]})}
        registry.create_dataset("raw/several").commit(several)
        registry.create_dataset("secret/table").commit({"data": pa.table({"id": [42]})})
        registry.create_user("reader")
        for name in ("raw/kinds", "raw/times", "raw/days", "raw/many", "plain", "raw/csv", "raw/several"):
            registry.grant("reader", "read", name)
        yield served


@pytest.fixture(scope="session")
def read(tables: serving.Served, tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Reads (reader, dataset, ref) with readers of an environment of their own; an error is its text."""
    python = _environment()
    folder = tmp_path_factory.mktemp("read")
    token = tables.token("reader", permission="read")
    numbers = count()

    def found(tasks: Sequence[tuple[str, str, str]]) -> list[pa.Table | str]:
        names = ("reader", "dataset", "ref")
        asked = [dict(zip(names, task, strict=True), file=str(folder / f"{next(numbers)}.arrow")) for task in tasks]
        given = json.dumps({"url": tables.url, "token": token, "tasks": asked})
        script = Path(__file__).with_name("read_with.py")
        subprocess.run([python, script], input=given, text=True, check=True, timeout=SAFETY)
        answers: list[pa.Table | str] = []
        for task in asked:
            path = Path(task["file"])
            if path.exists():
                with pa.memory_map(str(path)) as source:
                    answers.append(pa.ipc.open_file(source).read_all())
            else:
                answers.append(path.with_suffix(".error").read_text())
        return answers

    return found


def _environment() -> Path:
    """The Python of the readers. `make test` has made it; else it is made here, by one process."""
    folder = ROOT / ".cache"
    folder.mkdir(exist_ok=True)
    with (folder / "readers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "--silent", ".cache/readers/.ready"], cwd=ROOT, check=True)
    return folder / "readers" / "bin" / "python"
