"""Tainted values do not reach a protected branch, whatever is merged, picked, reverted, forked, moved, edited or published.

Every value is written once, so that a leak is seen in the data: a value of a tainted version that a protected branch has and
never had before. Values that an older version has are not counted: it may have reached the branch on its own.
"""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from dataset_registry import Registry
from dataset_registry.errors import MergeConflict, NotFound, RegistryError, Tainted
from dataset_registry.model.records import Provenance
from tests import fresh

NAME = "data/set"
BRANCHES = ("main", "a", "b", "release")
PROTECTED = ("main", "release")
FREE = st.sampled_from(("a", "b"))
ANY = st.sampled_from(BRANCHES)
COMPONENTS = st.sampled_from(("x", "y"))
KEYS = st.integers(0, 2)


class Branches(RuleBasedStateMachine):
    """A dataset of two tables, two free and two protected branches."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.registry = Registry.open(fresh.folder(Path(self.folder.name) / "registry"))
        self.dataset = self.registry.create_dataset(NAME)
        self.values = count()
        self.runs = count()
        self.tainted: dict[int, set[int]] = {}
        self.refusals = 0
        with self.dataset.draft("main") as draft:
            for component in ("x", "y"):
                draft.add(component, self.table(), key="id")
        for name in BRANCHES[1:]:
            self.dataset.create_branch(name)
        for name in PROTECTED:
            self.registry.protect(NAME, name)
        self.seen = {name: self.values_on(name) for name in PROTECTED}

    def teardown(self) -> None:
        self.registry.close()
        self.folder.cleanup()

    def table(self) -> pa.Table:
        return pa.table({"id": [0, 1, 2], "v": [next(self.values) for _ in range(3)]})

    def values_on(self, ref: str) -> set[int]:
        version = self.dataset.version(ref)
        return {value for c in version.components for value in version.to_arrow(c.name)["v"].to_pylist()}

    def attempt(self, verb: Callable[[], object]) -> None:
        """Do something, and look at the protected branches before and after it."""
        try:
            verb()
        except Tainted:
            self.refusals += 1
        except (MergeConflict, NotFound):
            pass
        tainted = {value for values in self.tainted.values() for value in values}
        for name, before in self.seen.items():
            now = self.values_on(name)
            assert not (now - before) & tainted, f"{name} has tainted values"
            self.seen[name] = before | now

    def taint(self, ref: str, taints: list[int]) -> None:
        number = self.dataset.version(ref).number
        older = {value for v in self.dataset.tree() if v.number < number for value in self.values_on(f"v{v.number}")}
        for taint in taints:
            self.tainted[taint] = self.values_on(ref) - older

    # --- what makes content ---

    @rule(branch=FREE, component=COMPONENTS, fails=st.booleans())
    def write(self, branch: str, component: str, fails: bool) -> None:
        """A run that replaces a table, and may fail later."""
        run = f"run-{next(self.runs)}"
        with self.dataset.draft(branch, provenance=Provenance(run_id=run), overwrite=True) as draft:
            draft.add(component, self.table(), key="id")
        if fails:
            found = self.registry.finish_run(run, succeeded=False)
            self.taint(branch, [taint.id for taint in found])

    @rule(branch=ANY, component=COMPONENTS, key=KEYS)
    def edit(self, branch: str, component: str, key: int) -> None:
        """A row is replaced, and the others stay."""
        rows = pa.table({"id": [key], "v": [next(self.values)]})
        self.attempt(lambda: self.dataset.upsert(rows, component=component, branch=branch, key="id"))

    @rule(branch=FREE)
    def check(self, branch: str) -> None:
        """A blocking check fails."""
        version = self.dataset.version(branch)
        before = {taint.id for taint in version.taints}
        version.record_check("good", False, blocking=True)
        self.taint(branch, [taint.id for taint in version.taints if taint.id not in before])

    @rule(branch=FREE)
    def absolve(self, branch: str) -> None:
        try:
            found = self.dataset.absolve(branch, "it is fine")
        except RegistryError:
            return
        for taint in found:
            self.tainted.pop(taint.id, None)

    # --- what moves content ---

    @rule(source=ANY, into=ANY, fast_forward=st.booleans())
    def merge(self, source: str, into: str, fast_forward: bool) -> None:
        if source != into:
            self.attempt(lambda: self.dataset.merge(source, into=into, fast_forward=fast_forward, strategy="theirs"))

    @rule(source=ANY, into=ANY)
    def pick(self, source: str, into: str) -> None:
        if source != into:
            self.attempt(lambda: self.dataset.cherry_pick(source, into, strategy="theirs"))

    @rule(branch=ANY, back=st.integers(0, 3))
    def revert(self, branch: str, back: int) -> None:
        self.attempt(lambda: self.dataset.revert(f"{branch}~{back}", branch, strategy="theirs"))

    @rule(branch=ANY, source=ANY, back=st.integers(0, 2))
    def move(self, branch: str, source: str, back: int) -> None:
        self.attempt(lambda: self.dataset.move_branch(branch, f"{source}~{back}"))

    @rule(source=ANY, into=ANY)
    def publish(self, source: str, into: str) -> None:
        if source != into:
            self.attempt(lambda: self.registry.publish(source, into, strategy="theirs", allow_moved_inputs=True))

    @rule(branch=st.sampled_from(PROTECTED), source=FREE)
    def start_again(self, branch: str, source: str) -> None:
        """A protected branch is deleted, and created at another version."""
        self.dataset.delete_branch(branch)
        try:
            self.dataset.create_branch(branch, source)
        except Tainted:
            self.refusals += 1
            with self.dataset.draft(branch, fallback=source, overwrite=True) as draft:
                for component in ("x", "y"):
                    draft.add(component, self.table(), key="id")
        tainted = {value for values in self.tainted.values() for value in values}
        assert not (self.values_on(branch) - self.seen[branch]) & tainted
        self.seen[branch] |= self.values_on(branch)


TestBranches = Branches.TestCase
TestBranches.settings = settings(
    max_examples=int(os.environ.get("TAINT_EXAMPLES", "8")), stateful_step_count=25, deadline=None
)
