"""The registry against a plain dictionary: whatever is done in whatever order, both say the same."""

import hashlib
from collections import Counter
from datetime import timedelta
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
from dataset_registry.embedded import rebound
from dataset_registry.errors import AlreadyExists, CorruptionError, InUse, NotFound, TagImmutable
from dataset_registry.model.manifest import Entry, build
from dataset_registry.model.retention import Policy, Rule
from dataset_registry.store import new_key

names = st.sampled_from(["a", "b", "c", "a/b", "ä"])
values = st.sampled_from([b"0", b"1" * 20_000, b"2"])  # in the catalog, and in the store
branches = st.sampled_from(["main", "dev", "x"])
tags = st.sampled_from(["t1", "t2"])

_numbers = count(1)
STEPS: Counter[str] = Counter()
"""How often each rule ran in this session: printed by the long run."""

NOW = timedelta(0)


class RegistryMachine(RuleBasedStateMachine):
    """One dataset; `content` is what each version holds, `heads` and `tags` what names it."""

    catalog: str

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        url = self.catalog.format(path=Path(self.folder.name))
        rebound(url, self.folder.name)  # examples share a catalog
        self.registry = Registry.open(catalog=url, store=self.folder.name)
        for left in self.registry.datasets():  # by an example that failed: they share a catalog
            left.delete()
        self.registry.collect(older_than=NOW)
        self.dataset = self.registry.create_dataset(f"machine/d{next(_numbers)}")
        self.other = self.registry.create_dataset(f"{self.dataset.name}-other")
        self.others: list[dict[str, bytes]] = []
        self.damaged: set[bytes] = set()
        self.strays: dict[str, bytes] = {}
        self.content: dict[int, dict[str, bytes]] = {}
        self.parents: dict[int, tuple[int, ...]] = {}
        self.heads: dict[str, int] = {}
        self.tags: dict[str, int] = {}
        self.retired: set[str] = set()
        self.last = 0

    def teardown(self) -> None:
        if hasattr(self, "dataset"):
            self.heal_everything()
            for key in self.strays:
                self.registry.access.store.delete(key)
            self.strays.clear()
            self.registry.collect(older_than=NOW)
            assert self.registry.verify(deep=True, older_than=NOW).findings == ()
            self.only_what_is_named_is_stored()
            self.dataset.delete()
            self.other.delete()
            self.registry.collect(older_than=NOW)
            assert self.stored() == {}
            assert list(self.registry.files()) == []
            self.registry.close()
            self.folder.cleanup()

    @rule(branch=branches, changes=st.dictionaries(names, values, min_size=1, max_size=3))
    def commit(self, branch: str, changes: dict[str, bytes]) -> None:
        if branch not in self.heads and self.content:
            with pytest.raises(NotFound):
                self.dataset.commit(changes, branch=branch)
            return
        head = self.heads.get(branch)
        STEPS["commit"] += 1
        after = {**self.content.get(head or 0, {}), **changes}
        made = self.dataset.commit(changes, branch=branch)
        self.damaged -= set(changes.values())
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
        STEPS["merge"] += 1
        made = self.dataset.commit(changes, branch=branch, parents=[branch, other])
        self.damaged -= set(changes.values())
        self._landed(branch, made.number, {**self.content[parents[0]], **changes}, parents)

    def _landed(self, branch: str, number: int, after: dict[str, bytes], parents: tuple[int, ...]) -> None:
        if len(parents) == 1 and self.content[parents[0]] == after:
            assert number == parents[0]
            return
        self.last += 1
        assert number == self.last
        self.content[number], self.parents[number], self.heads[branch] = after, parents, number

    # --- maintenance ---------------------------------------------------------------------------------------------------

    def live(self) -> Counter[bytes]:
        """How often each content is named."""
        return Counter(value for held in (*self.content.values(), *self.others) for value in held.values())

    def stored(self) -> dict[str, int]:
        return {found.key: found.size for found in self.registry.access.store.list()}

    def only_what_is_named_is_stored(self) -> None:
        """After a collection: the files and objects of what versions name, less lost objects, and what never was ours."""
        known = {f.content_hash: f.object_key for f in self.registry.files()}
        assert known.keys() == {hashlib.sha256(value).hexdigest() for value in self.live()}
        lost = {hashlib.sha256(value).hexdigest() for value in self.damaged}
        expected = {key for digest, key in known.items() if key and digest not in lost} | self.strays.keys()
        assert self.stored().keys() == expected

    def heal_everything(self) -> None:
        if self.damaged:
            self.others.append({f"heal{i}": value for i, value in enumerate(sorted(self.damaged))})
            draft = self.other.draft()
            with draft:
                draft.clear()
                for name, value in self.others[-1].items():
                    draft.add(name, value)
                draft.add("number", f"n{len(self.others)}".encode())
            self.others[-1]["number"] = f"n{len(self.others)}".encode()
            self.damaged.clear()

    @precondition(lambda self: self.content and len(self.others) < 5)
    @rule(changes=st.dictionaries(names, values, min_size=1, max_size=2))
    def commit_to_another_dataset(self, changes: dict[str, bytes]) -> None:
        STEPS["commit_to_another_dataset"] += 1
        before = self.others[-1] if self.others else {}
        after = {**before, **changes, "number": f"n{len(self.others) + 1}".encode()}
        made = self.other.commit({**changes, "number": after["number"]})
        self.others.append(after)
        self.damaged -= set(changes.values())
        assert made.number == len(self.others)

    @precondition(lambda self: self.content)
    @rule(
        last=st.integers(1, 3),
        main_only=st.booleans(),
        late=st.sampled_from(["nothing", "tag", "branch", "read"]),
        data=st.data(),
    )
    def expire(self, last: int, main_only: bool, late: str, data: st.DataObject) -> None:
        STEPS["expire"] += 1
        name = self.dataset.name
        rules = (Rule(datasets=name, branches="main" if main_only else "*", last=last),)
        keep = {*self.heads.values(), *self.tags.values()}
        reached: set[int] = set()
        for branch, head in self.heads.items():
            line = sorted(self.ancestors(head), reverse=True)
            reached.update(line)
            keep.update(line if main_only and branch != "main" else line[:last])
        rest = sorted(self.content.keys() - reached, reverse=True)
        keep.update(rest if main_only else rest[:last])
        plan = self.registry.expire(Policy(rules), dry_run=True)
        (found,) = plan.datasets
        assert found.kept.keys() == keep
        going = sorted(self.content.keys() - keep)
        assert [version.number for version in found.expiring] == going
        if late != "nothing" and going:
            saved = data.draw(st.sampled_from(going))
            if late == "read":
                self.dataset.version(f"v{saved}").note_read("run")
                keep.add(saved)
            elif late == "tag":
                free = [t for t in ("t1", "t2") if t not in self.tags and t not in self.retired]
                if free:
                    self.dataset.create_tag(free[0], f"v{saved}")
                    self.tags[free[0]] = saved
                    keep.add(saved)
            elif "x" not in self.heads:
                self.dataset.create_branch("x", f"v{saved}")
                self.heads["x"] = saved
                keep.add(saved)
        removed = self.content.keys() - keep
        done = self.registry.apply(plan)
        assert (done.versions, done.kept) == (len(removed), len(going) - len(removed))
        self.registry.access.catalog.write(lambda tx: tx.execute(text("DELETE FROM version_reads")))
        for number in sorted(keep):
            self.parents[number] = self.nearest(number, removed)
        for number in removed:
            del self.content[number], self.parents[number]

    def nearest(self, number: int, removed: set[int]) -> tuple[int, ...]:
        """The parents of a version, each removed one replaced by its own parents, in place, each once."""
        found: list[int] = []
        for parent in self.parents[number]:
            found += self.nearest(parent, removed) if parent in removed else [parent]
        return tuple(dict.fromkeys(found))

    @precondition(lambda self: self.content)
    @rule()
    def collect(self) -> None:
        STEPS["collect"] += 1
        named = self.live()
        plan = self.registry.collect(older_than=NOW, dry_run=True)
        free = {f.content_hash for f in self.registry.files() if not f.reference_count}
        assert {file.content_hash for file in plan.files} == free
        assert not free & {hashlib.sha256(value).hexdigest() for value in named}
        done = self.registry.apply(plan)
        assert done.files == len(free)
        self.damaged &= named.keys()
        self.only_what_is_named_is_stored()

    @precondition(lambda self: self.content)
    @rule(value=st.sampled_from([b"stray", b"0"]))
    def stray(self, value: bytes) -> None:
        STEPS["stray"] += 1
        key = new_key(hashlib.sha256(value).hexdigest())
        self.registry.access.store.put(key, value)
        self.strays[key] = value

    @precondition(lambda self: self.strays)
    @rule()
    def sweep(self) -> None:
        STEPS["sweep"] += 1
        lost = self.damaged
        done = self.registry.sweep(older_than=NOW, max_share=1)
        gone = {key for key, value in self.strays.items() if value not in lost}
        assert done.objects == len(gone)
        for key in gone:
            del self.strays[key]
        assert self.registry.sweep(older_than=NOW, max_share=1).objects == 0

    @precondition(lambda self: self.content)
    @rule(data=st.data())
    def lose_an_object(self, data: st.DataObject) -> None:
        stored = {file.content_hash for file in self.registry.files() if file.object_key is not None}
        found = [
            value
            for value in sorted(self.live())
            if value not in self.damaged and hashlib.sha256(value).hexdigest() in stored and not self.strays
        ]
        if not found:
            return
        STEPS["lose_an_object"] += 1
        value = data.draw(st.sampled_from(found))
        file = self.registry.file(hashlib.sha256(value).hexdigest())
        self.registry.access.store.delete(str(file.object_key))
        kinds = {f.kind for f in self.registry.verify(repair=True).findings} - {"trash"}  # what healed left there
        assert kinds == {"missing"} | ({"quarantined"} if self.damaged else set())
        self.damaged.add(value)

    @precondition(lambda self: self.damaged)
    @rule()
    def heal(self) -> None:
        STEPS["heal"] += 1
        self.heal_everything()

    @precondition(lambda self: self.content)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        STEPS["read"] += 1
        number = data.draw(st.sampled_from(sorted(self.content)))
        version = self.dataset.version(f"v{number}")
        for name, value in self.content[number].items():
            if value in self.damaged:
                with pytest.raises(CorruptionError, match="quarantine"):
                    version.open(name)
            else:
                with version.open(name) as stream:
                    assert stream.read() == value

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
        counts = {hashlib.sha256(value).hexdigest(): times for value, times in self.live().items()}
        assert {f.content_hash: f.reference_count for f in self.registry.files() if f.reference_count} == counts
        with self.registry.access.catalog.read() as tx:
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
@pytest.mark.timeout(3600)
def test_a_registry_does_what_a_dictionary_would_for_long(catalog_url: str) -> None:
    STEPS.clear()
    _run(catalog_url, examples=150, steps=60)
    print(f"{catalog_url.partition(':')[0]}: {sum(STEPS.values())} steps of these kinds: {dict(STEPS)}")
