"""The same matrix on PostgreSQL, in Python: all that is refused, and all that only reads."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from dataset_registry import Registry
from dataset_registry.catalog.tables import metadata
from dataset_registry.errors import RegistryError
from tests.permissions.operations import OPERATIONS
from tests.permissions.subjects import DATASET, OWNER, PERSONS
from tests.permissions.world import World, built

SOME = [s for s in PERSONS if s.name in ("stranger", "group writer", "prefix keeper", "file reader", "disabled")]


@pytest.fixture
def world(postgresql_catalog: str, tmp_path: Path) -> Iterator[World]:
    with built(postgresql_catalog, tmp_path, serve=False) as found:
        yield found


def rows(registry: Registry) -> Counter[str]:
    """How many rows each table has."""
    with registry.access.catalog.read() as tx:
        counts = {
            t.name: tx.execute(select(func.count()).select_from(t)).scalar_one() for t in metadata.tables.values()
        }
    return Counter(counts)


@pytest.mark.objects
def test_on_postgresql_everybody_may_do_what_was_granted_and_nothing_else(world: World) -> None:
    wrong: list[str] = []
    count = 0
    with world.opened(OWNER) as owner:
        for subject in SOME:
            world.subject = subject
            before = rows(owner)
            with world.opened(subject) as registry:
                for operation in OPERATIONS:
                    expected = operation.need.verdict(subject)
                    # What changes something is asked of those who may not. What one does with one's own: test_attacks.py.
                    skipped = operation.changes and expected is None
                    own = subject.disabled and operation.name.startswith(("make a token", "revoke one's own"))
                    if operation.python is None or skipped or own or operation.name == "copy":
                        continue
                    count += 1
                    found = None
                    try:
                        shown = repr(operation.python(registry, world))
                    except RegistryError as error:
                        found = type(error)
                    if found is not expected:
                        wrong.append(f"{subject.name}: {operation.name}: {found}")
                    elif operation.name == "list datasets" and found is None:
                        assert (DATASET in shown) == bool(subject.on(DATASET))
            assert rows(owner) == before, subject.name
    print(f"\nthe matrix on PostgreSQL: {count} cells")
    assert not wrong
    assert count > 400


def test_on_postgresql_what_was_granted_can_be_done(world: World) -> None:
    with world.opened(next(s for s in PERSONS if s.name == "group writer")) as registry:
        world.at(registry).commit({"extra": b"1"})
        world.at(registry).create_branch("mine", "v1")
        world.at(registry).move_branch("mine", "v2")
        world.at(registry).delete_branch("mine")
    with world.opened(next(s for s in PERSONS if s.name == "prefix keeper")) as registry:
        registry.create_dataset("raw/new").rename("raw/newer")
        registry.grant("somebody", "write", DATASET)
        registry.protect("raw/", "main", allow=["group-writer"])
        world.at(registry).delete()
    with world.opened(next(s for s in PERSONS if s.name == "administrator")) as registry:
        registry.create_user("eve", role="administrator")
        registry.create_branch("pr-2")
        registry.apply(world.collection)
