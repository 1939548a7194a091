"""Lineage against a plain dictionary: renames, new datasets of old names, copies, expiries and retries in any order.

The model knows versions by their UUIDs and datasets by a number of its own: what a version was made from never changes, however
its dataset is called, wherever it is copied to, and whatever expires around it.
"""

from datetime import timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dataset_registry import Registry, Version
from dataset_registry.content.change import Change, staged_component
from dataset_registry.content.stage import stage
from dataset_registry.embedded import rebound
from dataset_registry.model.commits import CommitOptions, RequestKey
from dataset_registry.model.records import InputVersion, Provenance
from dataset_registry.model.retention import Policy, Rule
from dataset_registry.operations import commit as commits
from dataset_registry.store import Spool
from tests import fresh
from tests.operations.support import age_runs

NAMES = ("a", "b", "c", "d")
names = st.sampled_from(NAMES)
_contents = count(1)


class LineageMachine(RuleBasedStateMachine):
    """A registry and its copy. `made_from` are the inputs of each version, `of` the dataset of each, by UUID."""

    catalog: str
    copy_catalog: str

    @initialize()
    def begin(self) -> None:
        self.folders = TemporaryDirectory(), TemporaryDirectory()
        self.registry, self.copy = (
            self._opened(url, folder)
            for url, folder in zip((self.catalog, self.copy_catalog), self.folders, strict=True)
        )
        self.names: dict[int, str] = {}  # what each dataset of ours is called, by its id
        self.made_from: dict[UUID, tuple[UUID, ...]] = {}
        self.of: dict[UUID, int] = {}
        self.copied: set[UUID] = set()

    def _opened(self, url: str, folder: TemporaryDirectory[str]) -> Registry:
        if "{path}" in url:
            url = fresh.catalog(Path(url.format(path=folder.name).removeprefix("sqlite:///")))
        rebound(url, folder.name)
        registry = Registry.open(catalog=url, store=folder.name)
        for left in registry.datasets():
            left.delete()
        registry.collect(older_than=timedelta(0))
        return registry

    def teardown(self) -> None:
        if not hasattr(self, "registry"):
            return
        try:
            assert self.registry.verify().damage == ()
            assert self.registry.check_audit().problems == ()
            assert self.copy.check_audit().problems == ()
        finally:
            self.registry.close()
            self.copy.close()
            for folder in self.folders:
                folder.cleanup()

    def versions(self, registry: Registry) -> dict[UUID, Version]:
        return {v.record.uuid: v for d in registry.datasets() for v in d.tree() if v.record.uuid}

    @rule(name=names, data=st.data(), retried=st.booleans())
    def commits(self, name: str, data: st.DataObject, retried: bool) -> None:
        there = self.versions(self.registry)
        # In an order that a replay has too: ids are drawn at random.
        known = sorted(there, key=lambda uuid: (there[uuid].dataset, there[uuid].number))
        chosen = data.draw(st.lists(st.sampled_from(known), max_size=2, unique=True)) if there else []
        inputs = tuple(
            InputVersion(v.dataset, v.number, v.digest, "main", uuid=v.record.uuid) for v in map(there.get, chosen) if v
        )
        dataset = self.registry.dataset(name) if name in self.names.values() else self.registry.create_dataset(name)
        self.names[dataset.id] = name
        access = self.registry.access
        with Spool(access.store.scratch) as spool:
            content = stage(lambda *given: None, spool, b"%d" % next(_contents), name="data")
            change = Change()
            change.add("data", 0, staged_component(content, "data", {}))
            key = uuid4().hex
            options = CommitOptions(
                overwrite=True,
                provenance=Provenance(f"run-{key}", inputs=inputs),
                request=RequestKey(key, "0" * 64),
            )
            made = [commits.commit(access, spool, dataset.record, change, options) for _ in range(1 + retried)]
        (uuid,) = {result.version.uuid for result in made}
        assert uuid is not None
        self.made_from[uuid] = tuple(chosen)
        self.of[uuid] = dataset.id

    @precondition(lambda self: self.names)
    @rule(data=st.data(), name=names)
    def renames(self, data: st.DataObject, name: str) -> None:
        if name in self.names.values():
            return
        dataset_id = data.draw(st.sampled_from(sorted(self.names)))
        if any(d.name == name for d in self.copy.datasets()):
            return  # there another history has the name: a copy would refuse
        self.registry.dataset(self.names[dataset_id]).rename(name)
        for dataset in self.copy.datasets():
            if dataset.name == self.names[dataset_id]:
                dataset.rename(name)
        self.names[dataset_id] = name

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def copies(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.names.values())), min_size=1, unique=True))
        self.registry.copy_to(self.copy, datasets=chosen)
        self.copied |= {uuid for uuid, v in self.versions(self.registry).items() if v.dataset in chosen}

    @precondition(lambda self: self.made_from)
    @rule(where=st.sampled_from(["registry", "copy"]))
    def expires(self, where: str) -> None:
        registry: Registry = getattr(self, where)
        age_runs(registry)
        before = self.versions(registry)
        registry.expire(Policy((Rule(last=1),), keep_inputs=True), live_runs=[])
        kept = self.versions(registry).keys()
        for uuid in kept:
            for made_from in self.made_from[uuid]:
                assert made_from in kept or made_from not in before, "an input of what was kept is gone"
        if where == "copy":
            self.copied &= kept

    @invariant()
    def lineage_is_what_it_was(self) -> None:
        if not hasattr(self, "registry"):
            return
        for registry in (self.registry, self.copy):
            there = self.versions(registry)
            for uuid, version in there.items():
                found = [read for p in version.productions[:1] for read in p.provenance.inputs]
                assert tuple(read.uuid for read in found) == self.made_from[uuid]
                for read in found:
                    assert read.uuid is not None
                    if read.uuid in there:
                        assert (read.dataset, read.version) == (there[read.uuid].dataset, there[read.uuid].number)
                makes = {(v.dataset, v.number) for u, v in there.items() if uuid in self.made_from[u]}
                assert set(version.consumers) == makes


def _run(catalog: str, copy: str, examples: int, steps: int) -> None:
    machine = type("Machine", (LineageMachine,), {"catalog": catalog, "copy_catalog": copy})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_lineage_survives_renames_copies_expiries_and_retries(catalog_url: str) -> None:
    _run(catalog_url, "sqlite:///{path}/copy.sqlite", examples=4, steps=14)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_lineage_survives_renames_copies_expiries_and_retries_for_long(catalog_url: str) -> None:
    _run(catalog_url, "sqlite:///{path}/copy.sqlite", examples=150, steps=40)
