"""Runs, failures, forks, publications and reverts of a small pipeline: heads are consistent exactly when runs made them."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dataset_registry import Registry
from dataset_registry.errors import ConflictError, MergeConflict, NotFound
from dataset_registry.model.records import InputVersion, Provenance
from tests import fresh

READS = {"raw": (), "clean": ("raw",), "report": ("clean", "raw")}
BRANCHES = ("main", "pr")


class Pipeline(RuleBasedStateMachine):
    """A pipeline of three datasets on two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.registry = Registry.open(fresh.folder(Path(self.folder.name) / "registry"))
        self.runs: list[str] = []
        self.torn = dict.fromkeys(BRANCHES, False)
        self.step(list(READS), "main")
        for name in READS:
            self.registry.dataset(name).create_branch("pr")

    def teardown(self) -> None:
        self.registry.close()
        self.folder.cleanup()

    def step(self, names: list[str], branch: str) -> None:
        """A run that writes these datasets, each from the heads of the branch."""
        run = f"run-{len(self.runs)}"
        for name in names:
            heads = [self.registry.dataset(source).version(branch) for source in READS[name]]
            inputs = tuple(InputVersion(v.dataset, v.number, v.digest, branch, uuid=v.record.uuid) for v in heads)
            table = pa.table({"id": [0, 1], "v": [len(self.runs), 0]})
            with self.registry.draft(name, branch, provenance=Provenance(run_id=run, inputs=inputs)) as draft:
                draft.add("data", table, key="id")
        self.runs.append(run)

    @rule(branch=st.sampled_from(BRANCHES), count=st.integers(1, 3))
    def run(self, branch: str, count: int) -> None:
        """A run, which may fail after its first datasets."""
        self.step(list(READS)[:count], branch)
        if count == 3:
            self.torn[branch] = False

    @rule(branch=st.sampled_from(BRANCHES), name=st.sampled_from(["clean", "report"]))
    def rerun(self, branch: str, name: str) -> None:
        self.step([name], branch)

    @rule()
    def publish(self) -> None:
        """A publication makes main what the branch is, or is refused."""
        try:
            self.registry.publish("pr")
        except (MergeConflict, ConflictError):
            return
        self.torn["main"] = self.torn["main"] or self.torn["pr"]

    @precondition(lambda self: len(self.runs) > 1)
    @rule(data=st.data(), branch=st.sampled_from(BRANCHES))
    def revert(self, data: st.DataObject, branch: str) -> None:
        """A run on which nothing was built goes without a trace in what else there is."""
        run = data.draw(st.sampled_from(self.runs[1:]))
        before = {name: self.registry.dataset(name).version(branch).to_arrow() for name in READS}
        try:
            heads = self.registry.revert_run(run, branch)
        except (ConflictError, NotFound):
            after = {name: self.registry.dataset(name).version(branch).to_arrow() for name in READS}
            assert before == after, "refused, so nothing changed"
            return
        for head in heads:
            assert head.message == f"Revert run {run}"

    @invariant()
    def heads_that_runs_made_are_consistent(self) -> None:
        for branch in BRANCHES:
            found = self.registry.consistent(branch)
            assert bool(found) or self.torn[branch], (branch, [str(torn) for torn in found.torn])


TestPipeline = Pipeline.TestCase
TestPipeline.settings = settings(max_examples=6, stateful_step_count=12, deadline=None)
