"""Who takes part: us, the peers and the physical limit, each a script that runs in an environment of its own.

`python -m benchmarks.peers install [name …]` makes the environments, under `.cache/peers/<name>`.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

SCRIPTS = Path(__file__).parent
REQUIREMENTS = SCRIPTS / "requirements"
HOME = SCRIPTS.parents[1]
ENVIRONMENTS = HOME / ".cache" / "peers"
OURS = "ours"

DEBIAN = {
    "restic": ("restic",),
    "borg": ("borgbackup", "python3-msgpack", "python3-packaging", "python3-pkg-resources"),
    "git-lfs": ("git-lfs",),
    "java": ("openjdk-17-jre-headless",),
}
"""Environments that are Debian packages, unpacked and not installed."""


@dataclass(frozen=True, slots=True)
class Participant:
    """A script, the environment it runs in, and whether what it answers for survives the loss of power.

    `durable` is what the code of the participant says (no fsync, no durability), not an experiment.
    """

    script: str
    environment: str
    durable: bool
    variables: Mapping[str, str] = field(default_factory=dict)
    only: frozenset[str] = frozenset()
    """The works it is asked for, when that is not all it can."""

    @property
    def python(self) -> Path:
        """The interpreter of its environment. Debian's tools are started by ours."""
        if self.environment == OURS or self.environment in DEBIAN:
            return Path(sys.executable)
        return ENVIRONMENTS / self.environment / "bin" / "python"

    @property
    def installed(self) -> bool:
        """Whether its environment was made."""
        return self.environment == OURS or (ENVIRONMENTS / self.environment / ".ready").exists()


LIMIT = "limit"
PARTICIPANTS = {
    LIMIT: Participant("limit", OURS, durable=False),
    "us": Participant("us", OURS, durable=True),
    "us, no fsync": Participant(
        *("us", OURS),
        durable=False,
        variables={"BENCHMARK_DURABLE": "no"},
        only=frozenset(("store", "again", "untouched", "many", "many_again", "write")),
    ),
    "us, PostgreSQL": Participant(
        *("us", OURS),
        durable=True,
        variables={"BENCHMARK_POSTGRESQL": "yes"},
        only=frozenset(("commit", "branch", "tag", "log", "everywhere", "client")),
    ),
    "dvc": Participant("dvc_cli", "dvc", durable=False),
    "dvc-api": Participant("dvc_api", "dvc", durable=False),
    "dvc-data": Participant("dvc_data", "dvc", durable=False),
    "oxen": Participant("oxen", "oxen", durable=False),
    "git-lfs": Participant("git_lfs", "git-lfs", durable=False),
    "xet": Participant("xet", "xet", durable=False),
    "borg": Participant("borg", "borg", durable=True),
    "restic": Participant("restic", "restic", durable=True),
    "delta": Participant("delta", "delta", durable=False),
    "iceberg": Participant("iceberg", "iceberg", durable=False),
    "lance": Participant("lance", "lance", durable=False),
    "icechunk": Participant("icechunk", "icechunk", durable=False),
    "ducklake": Participant("ducklake", "ducklake", durable=False),
}

STEPS = {
    "Dagster alone": Participant("steps", OURS, durable=False, variables={"BENCHMARK_STEP": "alone"}),
    "us": Participant("steps", OURS, durable=True, variables={"BENCHMARK_STEP": "us"}),
    "filesystem": Participant("steps", OURS, durable=False, variables={"BENCHMARK_STEP": "filesystem"}),
    "dagster-deltalake": Participant("steps", "dagster", durable=False, variables={"BENCHMARK_STEP": "deltalake"}),
    "dagster-iceberg": Participant("steps", "dagster", durable=False, variables={"BENCHMARK_STEP": "iceberg"}),
    "dagster-duckdb-pandas": Participant("steps", "dagster", durable=True, variables={"BENCHMARK_STEP": "duckdb"}),
}
"""IO managers. Each runs a step of Dagster, from the Dagster of its own environment."""


@dataclass(slots=True)
class Running:
    """A participant's process, and what it says of itself when it is ready."""

    process: "subprocess.Popen[str]"
    works: frozenset[str] = frozenset()
    versions: Mapping[str, str] = field(default_factory=dict)


def start(name: str, participant: Participant, logs: Path, variables: Mapping[str, str]) -> Running:
    """Start a participant, which is not `ready` yet. What it prints goes into `<logs>/<name>.log`."""
    path = os.pathsep.join(str(ENVIRONMENTS / participant.environment / part) for part in ("bin", "usr/bin"))
    environment = os.environ | {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
    if participant.environment == OURS:
        environment["PYTHONPATH"] = str(HOME)
    environment |= {"BENCHMARK_ENVIRONMENT": str(ENVIRONMENTS / participant.environment)}
    environment |= dict(participant.variables) | dict(variables)
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            [participant.python, "-P", SCRIPTS / "loop.py", SCRIPTS / f"{participant.script}.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,
        )
    return Running(process)


def ready(running: Running, participant: Participant) -> Running:
    """Wait until a participant takes requests. Raises `RuntimeError` when it does not start."""
    answer = receive(running, 120)
    if "failed" in answer:
        stop(running)
        raise RuntimeError(answer["failed"])
    works = frozenset(answer["works"])
    running.works = works & participant.only if participant.only else works
    running.versions = answer.get("versions", {})
    return running


def ask(running: Running, work: str, timeout: float, **arguments: Any) -> dict[str, Any]:
    """Let a participant do a piece of work: its answer, with `failed` and the reason when there is none."""
    try:
        send(running, work, **arguments)
        return receive(running, timeout)
    except BrokenPipeError:
        return {"failed": "its process died"}


def send(running: Running, work: str, **arguments: Any) -> None:
    """Hand over a request without waiting for the answer."""
    assert running.process.stdin is not None
    running.process.stdin.write(json.dumps({"work": work, **arguments}) + "\n")
    running.process.stdin.flush()


def receive(running: Running, timeout: float) -> dict[str, Any]:
    """The next answer. A participant that takes longer is stopped."""
    assert running.process.stdout is not None
    until = monotonic() + timeout
    ready, _, _ = select.select([running.process.stdout], [], [], max(until - monotonic(), 0))
    if not ready:
        stop(running)
        return {"failed": f"no answer within {timeout:.0f} s"}
    line = running.process.stdout.readline()
    return json.loads(line) if line else {"failed": "its process died"}


def stop(running: Running) -> None:
    """End a participant, and what it started: they are a process group of their own. It has nothing to lose."""
    with suppress(ProcessLookupError):
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait(30)
    for stream in (running.process.stdin, running.process.stdout):
        with suppress(BrokenPipeError):
            stream.close()  # type: ignore[union-attr]  # both are pipes
