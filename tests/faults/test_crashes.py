"""Writers and collectors that are killed and stopped at any moment, and a database server that dies under them.

Afterwards everything that was acknowledged is there and readable, and nothing else is. By hand, for longer or with a
mutant that must not survive: CRASH_COMMITS=5000 CRASH_MUTANT=… pytest -m '' -s -k name tests/faults/test_crashes.py
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from heapq import heappop, heappush
from pathlib import Path
from time import monotonic, sleep, time

import pytest
from sqlalchemy import false, func, select

from dataset_registry import Registry
from dataset_registry.catalog.tables import file_ranges, trash, uploads
from dataset_registry.catalog.tables import files as stored_files
from dataset_registry.errors import RegistryError
from tests import servers
from tests.faults import crashing, mutants
from tests.faults.crashing import DATASETS, Job, as_line, entries, wrong_bytes
from tests.waiting import SAFETY

PAIRS = ("sqlite+folder", "postgresql+folder", "postgresql+s3")
HOLD_SECONDS = 1


@pytest.mark.parametrize("pair", ["sqlite+folder", "postgresql+s3"])
def test_a_few_kills_and_stops_lose_nothing(pair: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    _crash(pair, request, tmp_path, Enough(commits=60, kills=5, stops=7, server_kills=1), writers=4, collectors=1)


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("pair", PAIRS)
def test_many_kills_and_stops_lose_nothing(pair: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    commits = int(os.environ.get("CRASH_COMMITS", "1000"))
    enough = Enough(commits=commits, kills=commits // 12, stops=commits // 8, server_kills=2)
    _crash(pair, request, tmp_path, enough, writers=8, collectors=2)


@dataclass(frozen=True)
class Enough:
    """How much must have happened before the workers may stop, however long that takes."""

    commits: int
    kills: int
    stops: int
    server_kills: int

    def is_done(self, work: Counter[str], harm: Counter[str]) -> bool:
        wanted = (self.commits, self.kills, self.stops, self.server_kills, 3, 2)
        found = (
            work["commit"],
            harm["killed"],
            harm["stopped"],
            harm["server killed"],
            work["collected"],
            work["swept"],
        )
        return all(have >= want for have, want in zip(found, wanted, strict=True))


def _crash(
    pair: str, request: pytest.FixtureRequest, tmp_path: Path, enough: Enough, *, writers: int, collectors: int
) -> None:
    database, _, kind = pair.partition("+")
    server = request.getfixturevalue("postgresql_server") if database == "postgresql" else None
    catalog = request.getfixturevalue(f"{database}_catalog" if server else "sqlite_url")
    store = request.getfixturevalue("s3_url") if kind == "s3" else str(tmp_path / "store")
    journals = tmp_path / "journals"
    journals.mkdir()
    with Registry.open(catalog=catalog, store=store) as registry:
        for name in DATASETS:
            registry.create_dataset(name).commit({"a": b"start"})
    mutant = os.environ.get("CRASH_MUTANT")
    if server and mutant in mutants.FOREIGN_KEYS:
        mutants.drop_foreign_key(catalog, *mutants.FOREIGN_KEYS[mutant])
    with _nursery() as nursery:
        over = tmp_path / "over"
        jobs = [
            Job(role, f"{role}-{n}", catalog, store, str(journals), str(over), HOLD_SECONDS, mutant)
            for role, count in (("writer", writers), ("collector", collectors))
            for n in range(count)
        ]
        done = _torment(nursery, jobs, journals, enough, server)
        over.touch()
    report = _examine(catalog, store, journals)
    print(f"\n{pair}: {report.summary(done)}")
    assert not report.problems, "\n".join([f"{len(report.problems)} problems", *report.problems[:20]])
    assert report.counts["commit"] >= len(jobs)
    assert report.counts["must be there"]
    assert all((report.counts["collected"], report.counts["swept"], done["killed"], done["stopped"]))


# --- tormenting ----------------------------------------------------------------------------------------------------


@dataclass
class Nursery:
    """What forks the workers: see `crashing.nursery`."""

    process: "subprocess.Popen[str]"

    def start(self, job: Job) -> int:
        """Start a worker; its process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(as_line(job))
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@contextmanager
def _nursery() -> Iterator[Nursery]:
    process = subprocess.Popen(
        [sys.executable, "-m", crashing.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with process:  # the end of its input is the end of the workers
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Nursery(process)
    assert process.returncode == 0


class _Work:
    """How many lines of each kind the journals have by now."""

    def __init__(self, journals: Path) -> None:
        self._journals, self._read, self.done = journals, Counter[Path](), Counter[str]()

    def look(self) -> int:
        """Count what is new; how many lines there are in all."""
        for path in self._journals.glob("*.jsonl"):
            with path.open("rb") as journal:
                journal.seek(self._read[path])
                whole, end, _ = journal.read().rpartition(b"\n")
            self._read[path] += len(whole + end)
            self.done.update(json.loads(line)["kind"] for line in whole.split(b"\n") if line)
        return self.done.total()


def _torment(
    nursery: Nursery, jobs: list[Job], journals: Path, enough: Enough, server: servers.PostgreSQL | None
) -> Counter[str]:
    """Kill and stop workers at random, and the server now and then, until enough was done and suffered; how often each.

    The next blow comes when the workers have got on by a few steps: so a busy machine suffers as many as an idle one.
    """
    harm: Counter[str] = Counter()
    if server is None:
        enough = replace(enough, server_kills=0)
    running = {nursery.start(job): job for job in jobs}
    work, waking = _Work(journals), list[tuple[float, int]]()
    due, end = 0, monotonic() + SAFETY * max(1, enough.commits // 100)
    while not enough.is_done(work.done, harm):
        assert monotonic() < end, f"they do not get on: {work.done}, {harm}"
        sleep(random.uniform(0.02, 0.1))
        while waking and waking[0][0] <= time():
            os.kill(heappop(waking)[1], signal.SIGCONT)
        if (lines := work.look()) < due:
            continue
        due = lines + random.randint(1, 12)
        if work.done["commit"] * (enough.server_kills + 1) > enough.commits * (harm["server killed"] + 1) and (
            server is not None and harm["server killed"] < enough.server_kills
        ):
            server.kill()
            sleep(random.uniform(0, 0.3))
            server.restart()
            harm["server killed"] += 1
        pid = random.choice(list(running))
        if random.random() < 0.4:
            os.kill(pid, signal.SIGKILL)
            job = running.pop(pid)
            running[nursery.start(job)] = job
            harm["killed"] += 1
        else:
            os.kill(pid, signal.SIGSTOP)
            heappush(waking, (time() + random.uniform(0.05, 1.5), pid))
            harm["stopped"] += 1
    return harm


# --- what must be true afterwards ----------------------------------------------------------------------------------


@dataclass
class Report:
    """What the journals say, and what is not as they say."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, what: str) -> None:
        """Note a problem."""
        self.found[kind] += 1
        self.problems.append(f"{kind}: {what}")

    def summary(self, done: Counter[str]) -> str:
        """The one line that says it all."""
        c = self.counts
        there = f"{c['must be there']} of {c['versions']} versions must be there"
        others = f"{c['deleted']} deletions, {c['expired']} expiries, {c['read']} reads"
        work = f"{c['commit']} acknowledged commits ({there}), {others}"
        kills = f"{done['killed']} kills, {done['stopped']} stops, {done['server killed']} postmaster kills"
        cleaning = f"{c['collected']} collections ({c['files taken']} files), {c['swept']} sweeps ({c['swept objects']} objects)"
        problems = ", ".join(f"{self.found[k]} {k}" for k in ("lost", "missing reads", "drift", "orphans", "findings"))
        refused = ", ".join(f"{n} {kind}" for kind, n in sorted(c.items()) if kind.startswith("refused: "))
        return (
            f"{work}, {c['put again']} put again; {kills}; {cleaning}, {c['verified']} verifications; {problems}, "
            f"{self.found['violations']} violations ({refused.replace('refused: ', '')})"
        )


def _examine(catalog: str, store: str, journals: Path) -> Report:
    report = Report()
    acknowledged: dict[tuple[str, int], list[dict[str, object]]] = defaultdict(list)
    perhaps, surely = set(), set()
    for entry in entries(journals):
        report.counts[entry["kind"]] += 1
        match entry["kind"]:
            case "commit":
                acknowledged[entry["dataset"], entry["number"]].append(entry)
            case "deleting":
                perhaps.update(map(tuple, entry["versions"]))
            case "deleted":
                surely.add((entry["dataset"], entry["number"]))
            case "collected":
                report.counts["files taken"] += entry["files"]
            case "swept":
                report.counts["swept objects"] += entry["objects"]
            case "refused":
                report.counts[f"refused: {entry['code']}"] += 1
            case "violation":
                report.add("violations", entry["what"])
    with Registry.open(catalog=catalog, store=store) as registry:
        _look_for_what_was_acknowledged(registry, acknowledged, perhaps, surely, report)
        sleep(HOLD_SECONDS + 0.1)
        while registry.collect(older_than=timedelta(0)).objects:  # one packs anew, the next takes what that freed
            pass
        registry.sweep(older_than=timedelta(0), max_share=1)
        _look_for_leftovers(registry, report)
        for finding in registry.verify(deep=True, older_than=timedelta(0)).findings:
            report.add("findings", f"{finding.kind}: {finding.what}")
    return report


def _look_for_what_was_acknowledged(
    registry: Registry,
    acknowledged: dict[tuple[str, int], list[dict[str, object]]],
    perhaps: set[tuple[str, int]],
    surely: set[tuple[str, int]],
    report: Report,
) -> None:
    there = {(d.name, v.number): v for d in registry.datasets() for v in d.tree()}
    on_main = {(name, v.number) for name in DATASETS for v in registry.dataset(name).log()}
    report.counts["versions"] = len(acknowledged)
    report.counts["must be there"] = len(acknowledged.keys() - perhaps)
    for at, commits in acknowledged.items():
        if at not in there:
            if at not in perhaps:
                report.add("lost", f"{at} was acknowledged and is not there")
            continue
        version = there[at]
        held = {c.name: c.content_hash for c in version.components}
        for commit in commits:
            if (str(version.record.uuid), version.digest) != (commit["uuid"], commit["digest"]):
                report.add("lost", f"{at} is not the version that was acknowledged")
            if not commit["components"].items() <= held.items():
                report.add("lost", f"{at} does not hold what was acknowledged: {held}, {commit}")
            # Nobody moves or deletes main, and an expiry gives children their grandparents.
            if commit["branch"] == "main" and at not in on_main:
                report.add("lost", f"{at} was committed to main, and main does not come from it")
    for at in surely & there.keys():
        report.add("lost", f"the deletion of {at} was acknowledged, and it is there")
    for at, version in there.items():
        try:
            problem = wrong_bytes(version)
        except RegistryError as error:
            problem = repr(error)
        if problem:
            report.add("missing reads", f"{at} {problem}")


def _look_for_leftovers(registry: Registry, report: Report) -> None:
    """After a collection and a sweep there is what versions name, and nothing else."""
    files = list(registry.files())
    objects = {found.key for found in registry.access.store.list()}
    holder = stored_files.alias()
    ranges = select(file_ranges.c.file_id, holder.c.content_hash, holder.c.object_key).distinct()
    with registry.access.catalog.read() as tx:
        recipes = tx.execute(ranges.join(holder, holder.c.id == file_ranges.c.object_id)).all()
    for key in objects ^ ({file.object_key for file in files} - {None} | {row.object_key for row in recipes}):
        report.add("orphans", f"{key} is {'only in the store' if key in objects else 'not in the store'}")
    with registry.access.catalog.read() as tx:
        for table, waited_for in ((trash, trash.c.keep_until.is_not(None)), (uploads, false())):
            if left := tx.execute(select(func.count()).select_from(table).where(~waited_for)).scalar():
                report.add("orphans", f"{left} rows of {table.name}")
    named = Counter(c.content_hash for d in registry.datasets() for v in d.tree() for c in v.components)
    named.update(row.content_hash for row in recipes)
    for file in files:
        if file.reference_count != named[file.content_hash] or not file.reference_count:
            report.add(
                "drift", f"{file.content_hash} is counted {file.reference_count}, named {named[file.content_hash]}"
            )
    registry.access.store.tidy(0)
    scratch = registry.access.store.scratch / "spool"
    if scratch.exists() and (left := list(scratch.iterdir())):
        report.add("orphans", f"spools of dead writers: {left}")
