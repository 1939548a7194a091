"""`python -m benchmarks.field`: us, the peers and the physical limit, in one run.

Everybody does the same piece of work in turn, round by round, after a warm-up; figures are medians, ratios to the limit are
taken within a round. Absolute times do not travel between machines: only what one run says of all of them counts.

Peers are those that `python -m benchmarks.peers install` has installed. `--quick` takes small data and few rounds.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks import data, tables, works
from benchmarks.peers import LIMIT, PARTICIPANTS, STEPS
from benchmarks.works import Field

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str]) -> int:
    """Measure, print, and keep the result in `benchmarks/results/<date>-field.json`."""
    options = _options(arguments)
    home = data.CACHE / "field"
    shutil.rmtree(home, ignore_errors=True)
    field = Field(home, quick=options.quick, rounds=options.rounds or (3 if options.quick else 5), scale=options.scale)
    wanted = {LIMIT, *(name for name in PARTICIPANTS if name.startswith("us")), *(options.peers or PARTICIPANTS)}
    with ExitStack() as open_until_the_end:
        open_until_the_end.callback(works.stop_all, field)
        try:
            for name in options.work or works.WORKS:
                group = STEPS if name == "dagster" else PARTICIPANTS
                chosen = {who: what for who, what in group.items() if group is STEPS or who in wanted}
                works.register_files(field, chosen, open_until_the_end)
                begun = monotonic()
                works.WORKS[name](field)
                print(f"{name}: {monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("stopped: what follows is what was measured until then", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    result = _result(field)
    tables.show(result)
    _keep(result, data.CACHE / "field-quick.json" if options.quick else RESULTS / f"{result['date'][:10]}-field.json")
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.field", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, few rounds: a first look in three minutes")
    parser.add_argument("--peers", type=_names(PARTICIPANTS), help=f"of {', '.join(PARTICIPANTS)}; all by default")
    parser.add_argument("--work", type=_names(works.WORKS), help=f"of {', '.join(works.WORKS)}; all by default")
    parser.add_argument("--rounds", type=int, help="how often everybody does each piece of work")
    parser.add_argument("--scale", type=float, help="of TPC-H: 1 is 6 million rows")
    options = parser.parse_args(arguments)
    options.scale = options.scale or (0.05 if options.quick else 1.0)
    return options


def _names(known: Any) -> Any:
    def parse(text: str) -> list[str]:
        names: list[str] = []
        for part in text.split(","):  # names may have commas themselves: "us, PostgreSQL"
            joined = f"{names[-1]},{part}" if names else part
            if names and any(name.startswith(joined) for name in known):
                names[-1] = joined
            else:
                names.append(part)
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


def _result(field: Field) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": field.quick,
        "rounds": field.rounds,
        "scale": field.scale,
        "machine": _machine(field.home.parent),
        "participants": {
            name: {"durable": (PARTICIPANTS | STEPS)[name].durable, "versions": versions}
            for name, versions in field.versions.items()
        },
        "absent": {name: why for name, why in field.absent.items() if name not in field.versions},
        "measured": field.measured,
    }


def _machine(folder: Path) -> dict[str, Any]:
    fields = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    names = [value.strip() for key, _, value in fields if key.strip() == "model name"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    kind = subprocess.run(["df", "--output=fstype", folder], check=False, capture_output=True, text=True).stdout
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "file_system": kind.split()[-1],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _keep(result: dict[str, Any], target: Path) -> None:
    """Beside what another run of the day measured, when this one did not measure it."""
    if target.exists():
        before = json.loads(target.read_text())
        result = result | {key: before.get(key, {}) | result[key] for key in ("participants", "measured")}
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nkept in {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
