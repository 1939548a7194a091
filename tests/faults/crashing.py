"""The processes of the crash test: writers and collectors that die at any moment, and what they promised before.

A nursery imports everything once and forks a worker for each line that it reads: whoever is killed is back at once.
Each worker journals, line by line and before anything else happens, what the registry acknowledged, what it is about to
delete, and what went wrong. Nothing of it waits in a buffer: a killed process has said all that it knew.
"""

import hashlib
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from time import sleep
from typing import Any

from sqlalchemy import bindparam, insert, update

from dataset_registry import Dataset, Registry, Version
from dataset_registry.catalog import collection, holds
from dataset_registry.catalog.tables import uploads
from dataset_registry.catalog.types import utc_now
from dataset_registry.content import pack
from dataset_registry.errors import (
    AlreadyExists,
    ConflictError,
    CorruptionError,
    InputError,
    InUse,
    NotFound,
    RetryLater,
    TagImmutable,
)
from dataset_registry.model.retention import Policy, Rule
from dataset_registry.operations import commit
from tests.faults import mutants

KEPT = "kept"
"""A dataset of which no version is ever deleted: all that was acknowledged must be there. Its contents are its own."""
DATASETS = (KEPT, "d1", "d2")
SCRATCH = "scratch"
"""A dataset that is made and deleted again all the time."""
SIDE_BRANCHES = ("dev", "exp")
COMPONENTS = ("a", "b", "c")
POOL = [f"content {n} ".encode() * (1 + n % 5 * 40) for n in range(80)]
"""Few contents and few living versions: they are collected and made again all the time."""
LARGE = random.Random(0).randbytes(400_000)
FINE = (AlreadyExists, ConflictError, InUse, NotFound, RetryLater, TagImmutable)
"""What the registry may answer when others are at work."""


@dataclass(frozen=True)
class Job:
    """What a worker is to do and where; it goes on until there is a file `over`."""

    role: str
    name: str
    catalog: str
    store: str
    journals: str
    over: str
    hold_seconds: int
    mutant: str | None = None


class Journal:
    """An append-only file of JSON lines, each one write of the operating system."""

    def __init__(self, job: Job) -> None:
        path = Path(job.journals) / f"{job.name}-{os.getpid()}.jsonl"
        self._descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, kind: str, **facts: object) -> None:
        os.write(self._descriptor, (json.dumps({"kind": kind, **facts}) + "\n").encode())

    def violation(self, what: str) -> None:
        self.write("violation", what=what)


def entries(folder: Path) -> Iterator[dict[str, Any]]:
    """Every line of every journal; of a line that was truncated its writer knew nothing yet."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            with suppress(json.JSONDecodeError):
                if line:
                    yield json.loads(line)


# --- what workers do -----------------------------------------------------------------------------------------------


def work(job: Job) -> None:
    """Do the job until it is over, whatever comes; what must not come is journalled."""
    random.seed()  # a fork inherits the dice
    holds.HOLD_SECONDS = job.hold_seconds
    holds._HOLD = insert(uploads).values(expires_at=utc_now(job.hold_seconds))
    holds._RENEW = update(uploads).where(uploads.c.id == bindparam("hold")).values(expires_at=utc_now(job.hold_seconds))
    # Everything that can be a recipe or in a pack is one, and what can be packed anew is.
    pack.MANY, pack._LEAST, collection._WORTHWHILE = 2, 1 << 12, 1
    if job.mutant:
        mutants.apply(job.mutant)
    journal = Journal(job)
    _journal_what_is_put_again(journal)
    while not os.path.exists(job.over):
        try:
            with Registry.open(catalog=job.catalog, store=job.store, actor=job.name) as registry:
                step = (Writer if job.role == "writer" else Collector)(registry, journal).step
                while not os.path.exists(job.over):
                    try:
                        step()
                    except FINE as error:
                        journal.write("refused", code=error.code, why=str(error))
                        if isinstance(error, RetryLater):
                            sleep(0.05)
        except RetryLater:  # while the server is away a registry cannot even be opened
            sleep(0.05)
        except Exception:
            journal.violation(traceback.format_exc())
            sleep(0.2)


def _journal_what_is_put_again(journal: Journal) -> None:
    real_upload = commit.upload_contents

    def upload(*arguments: Any, is_careful: bool) -> Any:
        if is_careful:
            journal.write("put again")
        return real_upload(*arguments, is_careful=is_careful)

    commit.upload_contents = upload


class Collector:
    """Collects and sweeps without any age guard; now and then verifies, too."""

    def __init__(self, registry: Registry, journal: Journal) -> None:
        self._registry, self._journal = registry, journal
        self._round = 0

    def step(self) -> None:
        self._round += 1
        collected = self._registry.collect(older_than=timedelta(0))
        self._journal.write("collected", files=collected.files, kept=collected.kept, objects=collected.objects)
        swept = self._registry.sweep(older_than=timedelta(0), max_share=1)
        self._journal.write("swept", objects=swept.objects)
        if self._round % 10 == 0:
            for finding in self._registry.verify(deep=True).damage:
                self._journal.violation(f"a verification beside the writers found: {finding.kind}: {finding.what}")
            self._journal.write("verified")


class Writer:
    """Commits, reads, branches, tags and deletes at random."""

    def __init__(self, registry: Registry, journal: Journal) -> None:
        self._registry, self._journal = registry, journal
        self._actions = {
            self._commit: 60,
            self._read: 20,
            self._branch: 6,
            self._branch_everywhere: 1,
            self._tag: 5,
            self._delete_version: 8,
            self._expire: 10,
            self._make_and_delete_a_dataset: 2,
        }

    def step(self) -> None:
        (action,) = random.choices(list(self._actions), list(self._actions.values()))
        action()

    def _dataset(self) -> Dataset:
        return self._registry.dataset(random.choice(DATASETS))

    def _any_version(self, dataset: Dataset) -> str:
        return f"v{random.choice(dataset.tree()).number}"

    def _commit(self) -> None:
        dataset = self._dataset()
        branch = "main" if random.random() < 0.6 else random.choice(SIDE_BRANCHES)
        names = random.sample(COMPONENTS, random.randint(1, 2))
        values = {name: random.randbytes(100) if dataset.name == KEPT else random.choice(POOL) for name in names}
        if random.random() < 0.05:  # above 64 KiB content is spooled in a file, and linked into place
            values[random.choice(COMPONENTS)] = random.randbytes(random.randint(70_000, 200_000))
        elif random.random() < 0.15:  # most of it is what the version before has, piece by piece
            at = random.randrange(len(LARGE))
            values["large"] = LARGE[:at] + random.randbytes(50) + LARGE[at:]
        parents = [branch, self._any_version(dataset)] if random.random() < 0.03 else []
        with suppress(InputError if parents else ()):  # the other parent may have become the head
            self._acknowledged(
                dataset.commit(
                    values, branch=branch, parents=parents, fallback="main", overwrite=random.random() < 0.7
                ),
                branch,
                values,
            )

    def _acknowledged(self, version: Version, branch: str, values: dict[str, bytes]) -> None:
        self._journal.write(
            "commit",
            dataset=version.dataset,
            number=version.number,
            uuid=str(version.record.uuid),
            digest=version.digest,
            branch=branch,
            components={name: hashlib.sha256(value).hexdigest() for name, value in values.items()},
        )

    def _read(self) -> None:
        dataset = self._dataset()
        version = dataset.version("main" if random.random() < 0.5 else self._any_version(dataset))
        self._journal.write("read")
        try:
            problem = wrong_bytes(version, paths=random.random() < 0.3)
        except (NotFound, CorruptionError) as error:
            problem = repr(error)
            late = isinstance(error, CorruptionError)
        else:
            late = False
        if problem is None:
            return
        with suppress(NotFound):
            dataset.version(f"v{version.number}")
            self._journal.violation(f"{version} is there, and {problem}")
            return
        if late:  # whoever reads what is deleted in the meantime must be told so
            self._journal.violation(f"{version} was deleted while it was read, but the answer was: {problem}")

    def _branch(self) -> None:
        dataset, name = self._dataset(), random.choice(SIDE_BRANCHES)
        match random.randrange(3):
            case 0:
                dataset.create_branch(name, self._any_version(dataset))
            case 1:
                dataset.move_branch(name, self._any_version(dataset))
            case 2:
                dataset.delete_branch(name)

    def _branch_everywhere(self) -> None:
        if random.random() < 0.5:
            self._registry.create_branch("everywhere")
        else:
            self._registry.delete_branch("everywhere")

    def _tag(self) -> None:
        dataset = self._dataset()
        tags = dataset.tags()
        if len(tags) < 2:
            dataset.create_tag(f"t{random.randrange(1 << 30)}", self._any_version(dataset))
        else:
            dataset.delete_tag(random.choice(tags).name)

    def _delete_version(self) -> None:
        dataset = self._registry.dataset(random.choice([name for name in DATASETS if name != KEPT]))
        number = random.choice(dataset.tree()).number
        self._journal.write("deleting", versions=[[dataset.name, number]])
        dataset.delete_version(f"v{number}")
        self._journal.write("deleted", dataset=dataset.name, number=number)

    def _expire(self) -> None:
        plan = self._registry.expire(Policy((Rule(datasets="d?", last=random.randint(1, 3)),)), dry_run=True)
        self._journal.write(
            "deleting", versions=[[d.dataset.name, v.number] for d in plan.datasets for v in d.expiring]
        )
        self._journal.write("expired", versions=self._registry.apply(plan).versions)

    def _make_and_delete_a_dataset(self) -> None:
        with self._registry.draft(SCRATCH) as draft:
            draft.add("a", random.choice(POOL))
        with suppress(InUse):
            self._registry.dataset(SCRATCH).delete()


def wrong_bytes(version: Version, *, paths: bool = False) -> str | None:
    """What is wrong with what a version holds, read whole; None when nothing is."""
    components = version.components
    if len(components) != version.component_count:
        return f"has {len(components)} components instead of {version.component_count}"
    for component in components:
        if paths:
            try:
                found = version.paths(component.name)
                if len(found) != 1:
                    return f"has {len(found)} files for {component.name}"
                data = found[0].read_bytes()
            except FileNotFoundError as error:  # a folder's own files, which a collection takes away
                return repr(error)
        else:
            with version.open(component.name, index=component.index) as stream:
                data = stream.read()
        if hashlib.sha256(data).hexdigest() != component.content_hash:
            return f"{component.name} has other bytes: {data[:40]!r}"
    return None


# --- the nursery ---------------------------------------------------------------------------------------------------


def nursery() -> None:
    """Fork a worker for each job on standard input and say its process id; at the end of the input they all go.

    The dead are not buried before that: an id that is no zombie's could be given to another, and be killed.
    """
    for module in (
        "obstore",
        "psycopg",
        "sqlalchemy.dialects.postgresql.psycopg",
        "sqlalchemy.dialects.sqlite.pysqlite",
    ):
        import_module(module)
    born = []
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.close(0)
            work(Job(**json.loads(line)))
            os._exit(0)
        born.append(pid)
        print(pid, flush=True)
    for pid in born:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def as_line(job: Job) -> str:
    """A job as the nursery reads it."""
    return json.dumps(asdict(job)) + "\n"


if __name__ == "__main__":
    nursery()
