"""A registry with somebody of every kind, to ask everything of; and back to how it was after each change."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pyarrow as pa

from dataset_registry import Dataset, Registry, Version
from dataset_registry.embedded.dataset import EmbeddedDataset, EmbeddedVersion
from dataset_registry.model.actors import PERMISSIONS
from dataset_registry.model.maintenance import CollectPlan, SweepPlan, Unreferenced
from dataset_registry.model.records import InputVersion, Provenance, StoredObject
from dataset_registry.model.retention import Policy, Rule
from tests import serving
from tests.permissions.subjects import DATASET, FOREIGN, OWNER, PERSONS, PREFIX, TOKENS, Subject
from tests.waiting import SAFETY

POLICY = Policy((Rule(DATASET, "*", last=1),))


@dataclass
class World:
    """What the operations of the matrix are about; see `built`."""

    catalog: str
    store: str
    folder: Path
    facts: SimpleNamespace
    served: serving.Served | None = None
    secrets: dict[str, str] = field(default_factory=dict)
    subject: Subject = OWNER

    def __getattr__(self, name: str) -> Any:
        return getattr(self.facts, name)

    @property
    def own_token(self) -> int:
        """A token of whoever asks, to be revoked."""
        return int(self.facts.own_tokens[self.subject.user or "somebody"])

    @property
    def own_upload(self) -> str:
        return str(self.facts.uploads[self.subject.user])

    def opened(self, subject: Subject) -> Registry:
        return Registry.open(catalog=self.catalog, store=self.store, actor=subject.user)

    def client(self, subject: Subject) -> httpx.Client:
        assert self.served is not None
        headers = {"Authorization": f"Bearer {self.secrets[subject.name]}"}
        return httpx.Client(base_url=self.served.url + "/v1/", headers=headers, timeout=SAFETY, verify=False)

    def at(self, registry: Registry) -> Dataset:
        """The dataset, as somebody holds it who looked it up when it was allowed to."""
        return EmbeddedDataset(registry.access, self.facts.record)

    def v(self, registry: Registry, number: int = 2) -> Version:
        return EmbeddedVersion(registry.access, self.facts.versions[number])


@contextmanager
def built(catalog: str, folder: Path, *, serve: bool = True) -> Iterator[World]:
    """A world in an empty catalog."""
    store = str(folder / "store")
    with Registry.open(catalog=catalog, store=store) as owner:
        facts = _facts(owner, folder)
    world = World(catalog, store, folder, facts)
    if not serve:
        yield world
        return
    with serving.in_thread(catalog=catalog, store=store, seal_seconds=0) as served:
        world.served = served
        served.owner.update_user("disabled", disabled=False)
        for subject in (*PERSONS, *TOKENS):
            made = served.owner.create_token(
                subject.user, name=subject.name, permission=PERMISSIONS[subject.cap - 1], prefix=subject.scope
            )
            world.secrets[subject.name] = made.secret
            with world.client(subject) as client:  # its use is noted now, and not in the middle of the matrix
                assert client.get("whoami").json()["user"] == subject.user
                if subject.user not in facts.uploads:
                    begun = client.post("uploads", json={})
                    assert (begun.status_code == 201) == subject.writes_somewhere
                    facts.uploads[subject.user] = begun.json().get("upload_id", "0" * 32)
        with served.http("somebody") as client:
            facts.foreign_upload = client.post("uploads", json={}).json()["upload_id"]
        served.owner.update_user("disabled", disabled=True)
        yield world


def _facts(owner: Registry, folder: Path) -> SimpleNamespace:
    owner.create_user("boss", role="administrator")
    owner.create_user("somebody")
    for person in PERSONS:
        owner.create_user(str(person.user), role=person.role)
    flights = owner.create_dataset(DATASET, description="Departures")
    with flights.draft(message="July") as draft:
        draft.add("data", b"id,delay\n1,5\n", format="csv")
    made = Provenance(run_id="run-2")
    flights.commit({"table": pa.table({"id": [1, 2]})}, message="With a table", provenance=made)
    for branch, ref in (("dev", "v2"), ("gone", "v2"), ("spare", "v1"), ("release", "v2")):
        flights.create_branch(branch, ref)
    flights.commit({"data": b"other"}, branch="dev")
    for text in (b"this one expires", b"nothing names this one"):
        flights.commit({"data": text}, branch="gone")
    flights.delete_branch("gone")
    for branch, rows in (("left", [1, 2, 2]), ("right", [1, 2, 2, 2])):
        flights.create_branch(branch, "v2")
        flights.commit({"table": pa.table({"id": rows})}, branch=branch)
    flights.version("right").record_check("rows", False, blocking=True)
    for tag in ("july", "spare-tag"):
        flights.create_tag(tag, "v1")
    owner.protect(DATASET, "release")
    owner.create_review("dev", title="Other data")
    owner.protect(PREFIX, "frozen")
    made_from = InputVersion(DATASET, 2, flights.version("v2").digest, "main")
    prices = owner.create_dataset(FOREIGN)
    prices.commit({"data": b"1,2"}, provenance=Provenance(run_id="run-1", inputs=(made_from,)))
    owner.create_branch("pr-1", "main")

    versions = {version.number: version.record for version in flights.tree()}
    file = owner.file(str(flights.version("v1").components[0].content_hash))
    for level, word in enumerate(("reader", "writer", "keeper"), 1):
        owner.create_user(f"{word}s", kind="group", members=[f"group-{word}"])
        owner.grant(f"{word}s", PERMISSIONS[level - 1], DATASET)
    for person in PERSONS:
        for level, name in ((person.dataset, DATASET), (person.foreign, FOREIGN), (person.prefix, PREFIX)):
            if level:
                owner.grant(str(person.user), PERMISSIONS[level - 1], name)
        if person.file:
            owner.grant(str(person.user), PERMISSIONS[person.file - 1], file=file.content_hash)
    for where in ({"name": DATASET}, {"name": PREFIX}, {"file": file.content_hash}):
        owner.grant("somebody", "read", **where)
    owner.create_user("crew", kind="group")
    own = {name: owner.create_token(name).token.id for name in (*(p.user for p in PERSONS), "somebody")}
    foreign_token = owner.create_token("boss").token.id
    owner.update_user("disabled", disabled=True)

    sample = folder / "sample.bin"
    sample.write_bytes(b"a sample")
    resolved, rows_file = folder / "resolved.csv", folder / "rows.csv"
    resolved.write_text("id,take\n2,theirs\n")
    rows_file.write_text("id\n7\n")
    unknown = StoredObject("f" * 64 + "." + "0" * 32, 1, 0.0)
    return SimpleNamespace(
        record=flights.record,
        id=flights.id,
        versions=versions,
        ids={number: record.id for number, record in versions.items()},
        tainted=flights.version("right").id,
        file=file,
        hash=file.content_hash,
        own_tokens=own,
        foreign_token=foreign_token,
        uploads={},
        resolved=str(resolved),
        rows_file=str(rows_file),
        sample=sample,
        elsewhere=folder / "copy",
        out=folder / "out",
        expiry=owner.expire(POLICY, dry_run=True, live_runs=()),
        collection=CollectPlan((Unreferenced(file.id, str(file.content_hash), file.size, "whole"),), 0, 0),
        sweep=SweepPlan((unknown,), 100, 1000, None),
    )


class Template:
    """What a SQLite catalog looked like; the way back there while others have it open."""

    def __init__(self, path: Path) -> None:
        self._live = sqlite3.connect(path)
        self._memory = sqlite3.connect(":memory:")
        self._live.backup(self._memory)
        self._before = self._digest(self._memory)

    def mark(self) -> int:
        """Another number after any change that another committed."""
        return int(self._live.execute("PRAGMA data_version").fetchone()[0])

    def differs(self) -> bool:
        """Whether any row is another one; that a token was used does not count."""
        return self._digest(self._live) != self._before

    def restore(self) -> None:
        self._memory.backup(self._live)

    def close(self) -> None:
        self._live.close()
        self._memory.close()

    @staticmethod
    def _digest(connection: sqlite3.Connection) -> str:
        hasher = hashlib.sha256()
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        for (name,) in names:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            wanted = ", ".join(f'"{column}"' for column in columns if column != "last_used_at")
            hasher.update(repr((name, sorted(map(repr, connection.execute(f"SELECT {wanted} FROM {name}"))))).encode())
        return hasher.hexdigest()
