"""The pieces of work, and the rounds in which everybody does them."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks import data, peers
from benchmarks.peers import Participant, Running

CLIENTS = 8
PATIENCE = 600.0
"""Seconds until a participant that does not answer is taken for dead."""

WHOLE_FILES = ("dvc-api", "dvc-data", "git-lfs", "oxen")
"""Those to whom every change is a new file: 100 % of the bytes, which takes no quick run to find out."""

Ask = tuple[str, str, Mapping[str, Any]]
"""Under which label an answer is kept, the work, and its arguments."""


@dataclass(slots=True)
class Field:
    """A run: who takes part, and what was measured."""

    home: Path
    quick: bool
    rounds: int
    scale: float
    participants: dict[str, Participant] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By label, then by participant: a list of answers, one a round, or the reason why there is none."""


# --- who takes part ------------------------------------------------------------------------------------------------


def register_files(field: Field, chosen: Mapping[str, Participant], until: ExitStack) -> None:
    """Start those who are not running yet, and end those who are not among the chosen."""
    if field.participants == chosen:
        return
    stop_all(field)
    field.participants = dict(chosen)
    for name, participant in chosen.items():
        if not participant.installed:
            field.absent[name] = "not installed"
            continue
        if "BENCHMARK_POSTGRESQL" in participant.variables and "BENCHMARK_SERVER" not in field.variables:
            from tests.servers import postgresql

            field.variables["BENCHMARK_SERVER"] = until.enter_context(postgresql(durable=True))
    started = {name: _start(field, name) for name, participant in chosen.items() if participant.installed}
    for name, running in started.items():
        try:
            field.running[name] = peers.ready(running, chosen[name])
            field.versions.setdefault(name, {}).update(running.versions)
        except RuntimeError as error:
            field.absent[name] = str(error)


def _start(field: Field, name: str) -> Running:
    home = field.home / name.replace(" ", "-").replace(",", "")
    home.mkdir(parents=True, exist_ok=True)
    variables = field.variables | {"BENCHMARK_HOME": str(home)}
    return peers.start(name, field.participants[name], data.CACHE / "logs", variables)


def stop_all(field: Field) -> None:
    """End everybody."""
    for running in field.running.values():
        peers.stop(running)
    field.running.clear()


def _folder(field: Field, name: str, work: str) -> Path:
    return field.home / name.replace(" ", "-").replace(",", "") / work / "repository"


# --- rounds --------------------------------------------------------------------------------------------------------


def rounds(
    field: Field,
    work: str,
    asks: Sequence[Ask],
    *,
    count: int,
    fresh: bool = True,
    warm_up: bool = True,
    without: Collection[str] = (),
) -> None:
    """Ask everybody for the same, one after the other, and all over again; the first time does not count.

    Each round has repositories of its own, when they are to be `fresh`. Who syncs does not pay for what others have left to
    be written. Memory counts from the warm-up on: later rounds find what the first has left. Who fails is not asked again,
    and who has taken all the time that a run has for one of many has no further rounds, be it after the warm-up.
    """
    first: dict[tuple[str, str], dict[str, Any]] = {}
    taken: Counter[str] = Counter()
    allowed = 1.0 if field.quick else 120.0
    for number in range(-1 if warm_up else 0, count):
        where = f"{work}-{number}" if fresh else work
        slow = {name for name, seconds in taken.items() if seconds > allowed}
        for label, action, arguments in asks:
            for name in _in_turn(field, action, number, slow.union(without)):
                kept = field.measured.setdefault(label, {}).setdefault(name, [])
                if isinstance(kept, list):
                    if field.participants[name].durable:
                        os.sync()
                    given = {key: _given(value, number) for key, value in arguments.items()}
                    answer = _ask(field, name, action, _folder(field, name, where), given)
                    taken[name] += answer.get("seconds", 0)
                    if "failed" in answer:
                        field.measured[label][name] = answer["failed"]
                    elif number < 0:
                        first[label, name] = answer
                    else:
                        earlier = first.get((label, name), answer)
                        kept.append(answer | {"above_mb": max(answer["above_mb"], earlier["above_mb"])})
        if fresh:
            for name in field.running:
                shutil.rmtree(_folder(field, name, where).parent, ignore_errors=True)
    for (label, name), answer in first.items():
        field.measured[label][name] = field.measured[label][name] or [answer]


def _in_turn(field: Field, action: str, number: int = 0, without: Collection[str] = ()) -> list[str]:
    """Who can do it, every round beginning with another."""
    able = [name for name, running in field.running.items() if action in running.works and name not in without]
    first = number % len(able) if able else 0
    return able[first:] + able[:first]


def _given(value: Any, number: int) -> Any:
    return value(number) if callable(value) else value


def _ask(field: Field, name: str, action: str, folder: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    given = {key: str(folder.parent / "out") if value is OUT else value for key, value in arguments.items()}
    answer = peers.ask(field.running[name], action, PATIENCE, folder=str(folder), **given)
    shutil.rmtree(folder.parent / "out", ignore_errors=True)
    if field.running[name].process.poll() is not None:
        del field.running[name]
        with suppress(RuntimeError):
            field.running[name] = peers.ready(_start(field, name), field.participants[name])
    return answer


OUT = object()
"""The argument that stands for a folder that does not exist yet."""


# --- the pieces of work --------------------------------------------------------------------------------------------


def store(field: Field) -> None:
    """A file that nobody has seen, then its content at another path, then the same path again."""
    source = data.lineitem(field.scale).path()
    asks: list[Ask] = [
        ("store", "store", {"file": str(source)}),
        ("again", "again", {"file": str(data.copied(source))}),
        ("untouched", "untouched", {"file": str(source)}),
    ]
    rounds(field, "store", asks, count=field.rounds)


def many(field: Field) -> None:
    """Small files: into the repository, again, and out."""
    files = data.small_files(200 if field.quick else 5000)
    asks: list[Ask] = [
        ("many", "many", {"files": str(files)}),
        ("many again", "many_again", {"files": str(data.copied(files))}),
        ("checkout", "checkout", {"files": str(files), "target": OUT}),
    ]
    rounds(field, "many", asks, count=field.rounds)


def commits(field: Field) -> None:
    """Tiny commits on a history that grows, and branches, tags and the log of it."""
    within = 2.5 if field.quick else 60.0
    versions: dict[str, int] = dict.fromkeys(_in_turn(field, "commit"), 0)
    count = field.rounds * (2 if field.quick else 4)
    for level in (100, 300) if field.quick else (100, 1000, 10_000):
        for name in list(versions):
            missing = {"count": level - versions[name], "within": within}
            answer = _ask(field, name, "grow", _folder(field, name, "commits"), missing)
            versions[name] = level
            if "failed" in answer:
                del versions[name]
                field.measured.setdefault(f"commit at {level}", {})[name] = answer["failed"]
        asks: list[Ask] = [(f"commit at {level}", "commit", {})]
        if level == (100 if field.quick else 1000):
            asks += [
                ("branch", "branch", {"name": lambda number: f"branch-{number + 1}"}),
                ("tag", "tag", {"name": lambda number: f"tag-{number + 1}"}),
                ("log", "log", {"count": level}),
            ]
        rounds(field, "commits", asks, count=count, fresh=False, without=field.running.keys() - versions.keys())
        versions = {name: found + count + 1 for name, found in versions.items()}


def everywhere(field: Field) -> None:
    """A branch of all datasets of a registry at once; only we have that."""
    rounds(
        field,
        "everywhere",
        [("everywhere", "everywhere", {"count": 100 if field.quick else 10_000})],
        count=1,
        warm_up=False,
    )


def tables(field: Field) -> None:
    """A table in memory: written, read back whole, and two columns of some of its rows."""
    table = data.lineitem(field.scale)
    column, above = table.filter
    asks: list[Ask] = [
        ("write", "write", {"table": str(table.path())}),
        ("read", "read", {}),
        ("read filtered", "read_filtered", {"columns": list(table.columns), "column": column, "above": above}),
    ]
    rounds(field, "tables", asks, count=field.rounds)
    field.measured["default file"] = {peers.LIMIT: [{"bytes": table.path().stat().st_size}]}


def changes(field: Field) -> None:
    """Tables of which 1 % changed: the bytes that are new in the repository. They are the same every time.

    Not on the smallest data: a table has to be of several chunks and groups of rows.
    """
    sets = {"lineitem": data.lineitem(max(field.scale, 0.1))} | ({} if field.quick else {"flights": data.flights()})
    for name, table in sets.items():
        for change in data.CHANGES:
            whole = table.path(change)
            arguments = {"kind": change, "whole": str(whole), "rows": str(table.path(f"{change}-rows"))}
            asks: list[Ask] = [
                (f"before {name} {change}", "write", {"table": str(table.path())}),
                (f"{name} {change}", "change", arguments | {"keys": list(table.keys)}),
            ]
            unable = field.running.keys() - set(_in_turn(field, "change"))
            unable |= set(WHOLE_FILES) if field.quick else set()
            rounds(field, f"changes-{name}-{change}", asks, count=1, warm_up=False, without=unable)
            del field.measured[f"before {name} {change}"]
            for answers in field.measured[f"{name} {change}"].values():
                if isinstance(answers, list):
                    answers[0]["whole_bytes"] = whole.stat().st_size


def clients(field: Field) -> None:
    """Commits a second of 8 client processes, each on a branch of its own and then all on one."""
    seconds = 1.0 if field.quick else 5.0
    for name in _in_turn(field, "client"):
        crowd = [_start(field, name) for _ in range(CLIENTS)]
        try:
            for running in crowd:
                peers.ready(running, field.participants[name])
            for label, own in (("clients, own branches", True), ("clients, one branch", False)):
                kept = field.measured.setdefault(label, {})
                kept[name] = found = []
                folder = _folder(field, name, f"clients-{own}")
                if "failed" in (begun := _ask(field, name, "commit", folder, {})):
                    kept[name] = begun["failed"]
                    continue
                for number in range(0 if field.quick else -1, 1 if field.quick else field.rounds):
                    total = _together(crowd, folder, own, seconds)
                    if isinstance(total, str):
                        kept[name] = total
                        break
                    if number >= 0:
                        found.append({"per_second": total / seconds})
        except RuntimeError as error:
            field.measured.setdefault("clients, own branches", {})[name] = str(error)
        finally:
            for running in crowd:
                peers.stop(running)


def _together(crowd: Sequence[Running], folder: Path, own: bool, seconds: float) -> int | str:
    """How many commits all of them made, or why they did not."""
    for running in crowd:
        branch = f"b-{uuid4().hex[:12]}" if own else None
        peers.send(running, "client", folder=str(folder), branch=branch, seconds=seconds)
    answers = [peers.receive(running, 60 + 10 * seconds) for running in crowd]
    failed = next((answer["failed"] for answer in answers if "failed" in answer), None)
    return failed or sum(answer["commits"] for answer in answers)


def dagster(field: Field) -> None:
    """A step with a tiny output, one with a whole table, and one that loads it. The first of a folder only opens it."""
    table = str(data.lineitem(field.scale).path())
    asks: list[Ask] = [
        ("step, first", "tiny", {"number": 0}),
        ("step, tiny", "tiny", {"number": 1}),
        ("step, large", "large", {"table": table}),
        ("step, load", "load", {}),
    ]
    rounds(field, "dagster", asks, count=field.rounds)


WORKS: dict[str, Callable[[Field], None]] = {
    "store": store,
    "many": many,
    "commits": commits,
    "everywhere": everywhere,
    "tables": tables,
    "changes": changes,
    "clients": clients,
    "dagster": dagster,
}
