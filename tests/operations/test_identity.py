"""Lineage is about versions, whatever their datasets are called by now: after renames, in copies, for expiries and readers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from dataset_registry import Registry, Version
from dataset_registry.errors import NotFound
from dataset_registry.model.records import InputVersion, Provenance
from dataset_registry.model.retention import Policy, Rule
from tests import fresh
from tests.operations.support import age, age_runs, write
from tests.permissions.support import acting

LAST = Policy((Rule(last=1),), keep_inputs=True)


def read(version: Version) -> InputVersion:
    return InputVersion(version.dataset, version.number, version.digest, "main", uuid=version.record.uuid)


@pytest.fixture
def line(owned: Registry) -> Registry:
    """`report` was made from version 1 of a dataset that is `old` by now; the name `source` belongs to another one."""
    source = owned.create_dataset("source")
    first = source.commit({"data": b"1"})
    owned.create_dataset("report").commit({"data": b"r"}, provenance=Provenance("run", inputs=(read(first),)))
    source.commit({"data": b"2"})
    source.rename("old")
    owned.create_dataset("source").commit({"data": b"1"})
    return owned


@pytest.fixture
def copied(line: Registry, tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(fresh.folder(tmp_path / "copy")) as target:
        line.copy_to(target)
        yield target


def inputs(registry: Registry) -> list[tuple[str, int]]:
    return [(i.dataset, i.version) for i in registry.version("report").provenance.inputs]


def test_inputs_are_shown_under_the_names_that_they_have_now(line: Registry) -> None:
    assert inputs(line) == [("old", 1)]
    assert line.version("old@v1").consumers == [("report", 1)]
    assert line.version("source").consumers == []


def test_a_copy_keeps_the_edges_of_renamed_datasets(copied: Registry) -> None:
    assert inputs(copied) == [("old", 1)]
    assert copied.version("old@v1").consumers == [("report", 1)]
    assert copied.version("source").consumers == []


def test_a_copy_in_several_steps_keeps_them_too(line: Registry, tmp_path: Path) -> None:
    with Registry.open(fresh.folder(tmp_path / "copy")) as target:
        for name in ("report", "source", "old"):
            line.copy_to(target, datasets=[name])
        assert inputs(target) == [("old", 1)]
        assert target.version("old@v1").consumers == [("report", 1)]


def test_a_rename_after_the_copy_began_does_not_misdirect_it(line: Registry, tmp_path: Path) -> None:
    with Registry.open(fresh.folder(tmp_path / "copy")) as target:
        line.copy_to(target, datasets=["old"])
        target.dataset("old").rename("older")
        line.copy_to(target, datasets=["report"])
        assert inputs(target) == [("older", 1)]


def test_an_expiry_keeps_the_inputs_of_what_it_keeps(line: Registry, copied: Registry) -> None:
    for registry in (line, copied):
        age_runs(registry)
        plan = registry.expire(LAST, dry_run=True, live_runs=[])
        assert [(d.dataset.name, [v.number for v in d.expiring]) for d in plan.datasets if d.expiring] == []
        registry.apply(plan, live_runs=[])
        assert registry.version("old@v1").number == 1


def test_readers_see_the_inputs_that_they_may_read_and_no_others(line: Registry) -> None:
    line.create_user("bob")
    line.grant("bob", "read", "report")
    line.grant("bob", "read", "source")
    with acting(line, "bob") as bob:
        assert inputs(bob) == []  # `source` is another dataset than the one that was read
    line.revoke("bob", "source")
    line.grant("bob", "read", "old")
    with acting(line, "bob") as bob:
        assert inputs(bob) == [("old", 1)]


def test_an_input_that_expired_is_shown_to_who_may_read_its_dataset(line: Registry) -> None:
    age_runs(line)
    line.expire(Policy((Rule(datasets="old", last=1),)), live_runs=[])
    with pytest.raises(NotFound):
        line.version("old@v1")
    line.create_user("bob")
    line.grant("bob", "read", "report")
    line.grant("bob", "read", "source")
    with acting(line, "bob") as bob:
        assert inputs(bob) == []
        line.grant("bob", "read", "old")
        assert inputs(bob) == [("old", 1)]
    assert inputs(line) == [("old", 1)]


def test_a_commit_links_what_was_read_though_it_was_renamed_meanwhile(owned: Registry) -> None:
    source = owned.create_dataset("source")
    made_from = read(source.commit({"data": b"1"}))
    source.rename("old")
    owned.create_dataset("source").commit({"data": b"1"})
    owned.create_dataset("report").commit({"data": b"r"}, provenance=Provenance("run", inputs=(made_from,)))
    assert inputs(owned) == [("old", 1)]


# --- what a copy takes from its source ------------------------------------------------------------------------------


def test_a_copy_by_somebody_who_is_no_administrator_signs_itself(line: Registry, tmp_path: Path) -> None:
    with Registry.open(fresh.folder(tmp_path / "forged")) as source:
        with Registry.open(tmp_path / "forged", actor="alice") as alice:
            alice.create_dataset("mine").commit(
                {"data": b"x"}, provenance=Provenance("r", inputs=(read(line.version("old@v1")),))
            )
        made = source.version("mine")
        assert made.created_by == "alice"
        line.create_user("eve")
        line.create_user("alice")
        with acting(line, "eve") as eve:
            notes = source.copy_to(eve).notes
    copy = line.version("mine")
    assert (copy.digest, copy.created_by) == (made.digest, "eve")
    assert copy.created_at > made.created_at
    assert [production.created_by for production in copy.productions] == ["eve"]
    assert any("authors and dates of the source are not kept" in note for note in notes)
    assert line.version("old@v1").consumers == [("report", 1)]


def test_a_copy_by_an_administrator_keeps_authors_and_dates(line: Registry, copied: Registry) -> None:
    for name in ("old@v1", "report"):
        original, copy = line.version(name), copied.version(name)
        assert (copy.created_by, copy.created_at) == (original.created_by, original.created_at)


# --- how long a reader holds a version ------------------------------------------------------------------------------

HEADS = Policy((Rule(datasets="public", last=1),))


@pytest.fixture
def public(owned: Registry) -> Registry:
    """A dataset of which `eve` may read the first version, which is due to expire, and `bob` write."""
    dataset = owned.create_dataset("public")
    dataset.commit({"data": b"1"})
    dataset.commit({"data": b"2"})
    for user, permission in (("eve", "read"), ("bob", "write")):
        owned.create_user(user)
        owned.grant(user, permission, "public")
    return owned


def is_held(registry: Registry) -> bool:
    return registry.expire(HEADS, dry_run=True).versions == 0


@pytest.mark.parametrize(("user", "days", "held"), [("eve", 0, True), ("eve", 8, False), ("bob", 8, True)])
def test_a_reader_holds_a_version_for_a_week_and_a_writer_as_long_as_it_reads(
    public: Registry, user: str, days: int, held: bool
) -> None:
    with acting(public, user) as reader:
        for run in range(3):  # a run a day, each under a new name
            reader.version("public@v1").note_read(f"run-{run}")
            age(public, 24 * days / 3, "version_reads.read_at")
            shift(public, days / 3, "version_reads.first_read_at")
        reader.version("public@v1").note_read("run-now")
    assert is_held(public) == held


@pytest.mark.parametrize(("days", "held"), [(0, True), (8, False)])
def test_an_input_that_is_named_again_and_again_does_not_hold_a_version_either(
    public: Registry, days: int, held: bool
) -> None:
    with acting(public, "eve") as eve:
        mine, made_from = eve.create_dataset("mine"), read(eve.version("public@v1"))
        mine.commit({"data": b"1"}, provenance=Provenance("run-1", inputs=(made_from,)))
        age(public, 24 * days, "productions.created_at")
        mine.commit({"data": b"2"}, provenance=Provenance("run-2", inputs=(made_from,)))
    assert is_held(public) == held


def shift(registry: Registry, days: float, column: str) -> None:
    """Let the moments of a column lie this many days further back."""
    table, _, name = column.partition(".")
    moved = (
        f"strftime('%Y-%m-%d %H:%M:%f', {name}, '-{days} days') || '000'"
        if registry.access.catalog.is_sqlite
        else f"{name} - make_interval(secs => {days * 86400})"
    )
    write(registry, f"UPDATE {table} SET {name} = {moved} WHERE {name} IS NOT NULL")


def test_an_input_of_an_unknown_dataset_is_told_only_to_those_who_may_read_everything(line: Registry) -> None:
    """Such as one that expired before a catalog was upgraded: by its name it would be another dataset's version."""
    forget = text("UPDATE production_inputs SET dataset_id = NULL, version_id = NULL, version_uuid = NULL")
    line.access.catalog.write(lambda tx: tx.execute(forget))
    line.create_user("bob")
    line.grant("bob", "read", "report")
    line.grant("bob", "read", "source")
    assert inputs(line) == [("source", 1)]
    with acting(line, "bob") as bob:
        assert inputs(bob) == []
