"""The registry against a plain dictionary: whatever is done in whatever order, both say the same."""

import hashlib
from collections import Counter
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

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
from sqlalchemy import text

from dataset_registry import Registry
from dataset_registry.errors import AlreadyExists, InUse, NotFound, TagImmutable
from dataset_registry.model.manifest import Entry, build

names = st.sampled_from(["a", "b", "c", "a/b", "ä"])
values = st.sampled_from([b"0", b"1", b"2"])
branches = st.sampled_from(["main", "dev", "x"])
tags = st.sampled_from(["t1", "t2"])

_numbers = count(1)


class RegistryMachine(RuleBasedStateMachine):
    """One dataset; `content` is what each version holds, `heads` and `tags` what names it."""

    catalog: str

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        url = self.catalog.format(path=Path(self.folder.name))
        self.registry = Registry.open(catalog=url, store=self.folder.name)
        self.dataset = self.registry.create_dataset(f"machine/d{next(_numbers)}")
        self.content: dict[int, dict[str, bytes]] = {}
        self.parents: dict[int, tuple[int, ...]] = {}
        self.heads: dict[str, int] = {}
        self.tags: dict[str, int] = {}
        self.retired: set[str] = set()
        self.last = 0

    def teardown(self) -> None:
        if hasattr(self, "dataset"):
            self.dataset.delete()
            self.registry.close()
            self.folder.cleanup()

    @rule(branch=branches, changes=st.dictionaries(names, values, min_size=1, max_size=3))
    def commit(self, branch: str, changes: dict[str, bytes]) -> None:
        if branch not in self.heads and self.content:
            with pytest.raises(NotFound):
                self.dataset.commit(changes, branch=branch)
            return
        head = self.heads.get(branch)
        after = {**self.content.get(head or 0, {}), **changes}
        made = self.dataset.commit(changes, branch=branch)
        self._landed(branch, made.number, after, () if head is None else (head,))

    @precondition(lambda self: self.heads)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        branch = data.draw(st.sampled_from(sorted(self.heads)))
        held = self.content[self.heads[branch]]
        name = data.draw(names)
        draft = self.dataset.draft(branch)
        if name not in held:
            with pytest.raises(NotFound), draft:
                draft.remove(name)
            return
        with draft:
            draft.remove(name)
        self._landed(branch, draft.version.number, {k: v for k, v in held.items() if k != name}, (self.heads[branch],))

    @precondition(lambda self: len(set(self.heads.values())) > 1)
    @rule(data=st.data(), changes=st.dictionaries(names, values, max_size=2))
    def merge(self, data: st.DataObject, changes: dict[str, bytes]) -> None:
        branch = data.draw(st.sampled_from(sorted(self.heads)))
        other = data.draw(st.sampled_from(sorted(b for b, n in self.heads.items() if n != self.heads[branch])))
        parents = (self.heads[branch], self.heads[other])
        made = self.dataset.commit(changes, branch=branch, parents=[branch, other])
        self._landed(branch, made.number, {**self.content[parents[0]], **changes}, parents)

    def _landed(self, branch: str, number: int, after: dict[str, bytes], parents: tuple[int, ...]) -> None:
        if len(parents) == 1 and self.content[parents[0]] == after:
            assert number == parents[0]
            return
        self.last += 1
        assert number == self.last
        self.content[number], self.parents[number], self.heads[branch] = after, parents, number

    @precondition(lambda self: self.content)
    @rule(name=branches, data=st.data())
    def create_branch(self, name: str, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.content)))
        if name in self.heads:
            with pytest.raises(AlreadyExists):
                self.dataset.create_branch(name, f"v{number}")
        else:
            self.dataset.create_branch(name, f"v{number}")
            self.heads[name] = number

    @precondition(lambda self: self.content)
    @rule(name=branches, data=st.data())
    def move_branch(self, name: str, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.content)))
        if name in self.heads:
            self.dataset.move_branch(name, f"v{number}", expect=f"v{self.heads[name]}")
            self.heads[name] = number
        else:
            with pytest.raises(NotFound):
                self.dataset.move_branch(name, f"v{number}")

    @precondition(lambda self: len(self.heads) > 1)
    @rule(data=st.data())
    def delete_branch(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.heads)))
        self.dataset.delete_branch(name)
        del self.heads[name]

    @precondition(lambda self: self.content)
    @rule(name=tags, data=st.data())
    def create_tag(self, name: str, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.content)))
        if name in self.tags or name in self.retired:
            with pytest.raises(TagImmutable):
                self.dataset.create_tag(name, f"v{number}")
        else:
            self.dataset.create_tag(name, f"v{number}")
            self.tags[name] = number

    @precondition(lambda self: self.tags)
    @rule(data=st.data())
    def delete_tag(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.tags)))
        self.dataset.delete_tag(name)
        del self.tags[name]
        self.retired.add(name)

    @precondition(lambda self: self.content)
    @rule(data=st.data())
    def delete_version(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.content)))
        named = number in (*self.heads.values(), *self.tags.values())
        if named or any(number in parents for parents in self.parents.values()):
            with pytest.raises(InUse):
                self.dataset.delete_version(f"v{number}")
        else:
            self.dataset.delete_version(f"v{number}")
            del self.content[number], self.parents[number]

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "dataset"):
            return
        tree = {version.number: version for version in self.dataset.tree()}
        assert {number: version.parents for number, version in tree.items()} == self.parents
        assert {b.name: b.version_number for b in self.dataset.branches()} == self.heads
        assert {t.name: t.version_number for t in self.dataset.tags()} == self.tags
        for number, version in tree.items():
            held = {name: hashlib.sha256(value).hexdigest() for name, value in self.content[number].items()}
            assert {c.name: c.content_hash for c in version.components} == held
            assert version.digest == build(Entry(name, 0, "data", digest) for name, digest in held.items()).digest
            assert version.component_count == len(held)

    @invariant()
    def counts_are_exact_and_pages_have_owners(self) -> None:
        if not hasattr(self, "dataset"):
            return
        counts = Counter(hashlib.sha256(v).hexdigest() for held in self.content.values() for v in held.values())
        assert {f.content_hash: f.reference_count for f in self.registry.files() if f.reference_count} == dict(counts)
        with self.registry._access.catalog.read() as tx:
            orphans = [
                tx.execute(
                    text(f"SELECT count(*) FROM {table} WHERE id NOT IN (SELECT {column} FROM {owner})")
                ).scalar()
                for table, column, owner in (
                    ("manifest_pages", "page_id", "manifest_index_entries"),
                    ("manifest_index_pages", "index_page_id", "version_index_pages"),
                )
            ]
            assert orphans == [0, 0]
            assert tx.execute(text("SELECT count(*) FROM uploads")).scalar() == 0

    def ancestors(self, number: int) -> set[int]:
        found, wanted = set(), [number]
        while wanted:
            if (at := wanted.pop()) not in found:
                found.add(at)
                wanted += self.parents[at]
        return found

    @precondition(lambda self: self.content)
    @rule(data=st.data())
    def walks_agree(self, data: st.DataObject) -> None:
        left, right = (data.draw(st.sampled_from(sorted(self.content))) for _ in range(2))
        found = [v.number for v in self.dataset.merge_bases(f"v{left}", f"v{right}")]
        common = self.ancestors(left) & self.ancestors(right)
        best = {a for a in common if not any(a in self.ancestors(b) for b in common if b != a)}
        assert found == sorted(best, reverse=True)
        assert self.dataset.log(f"v{left}")[0].number == left


def _run(catalog_url: str, examples: int, steps: int) -> None:
    machine = type("Machine", (RegistryMachine,), {"catalog": catalog_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_registry_does_what_a_dictionary_would(catalog_url: str) -> None:
    _run(catalog_url, examples=8, steps=30)


@pytest.mark.long
def test_a_registry_does_what_a_dictionary_would_for_long(catalog_url: str) -> None:
    _run(catalog_url, examples=150, steps=60)
