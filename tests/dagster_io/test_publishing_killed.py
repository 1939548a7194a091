"""A publication that is killed between any two of its steps: nothing is half-published, and the next one finishes it.

A step is a statement to the catalog, the end of a transaction, or an event that is reported to Dagster. (Dagster itself stores an
event in several transactions; a death between those is not ours to survive.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Connection, Engine, event

from tests.dagster_io.conftest import World
from tests.dagster_io.test_publishing import NAMES, Chain
from tests.dagster_io.test_side_runs import FRESH


class Killed(BaseException):
    """The process dies here."""


class Steps:
    """Counts steps, and dies before one of them."""

    def __init__(self, last: int | None = None) -> None:
        self.count = 0
        self.last = last

    def __call__(self, connection: Connection, *_: Any) -> None:
        if "catalog.sqlite" in str(connection.engine.url):
            self.take()

    def take(self) -> None:
        self.count += 1
        if self.last is not None and self.count > self.last:
            raise Killed

    @contextmanager
    def counted(self, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        report = instance.report_runless_asset_event

        def reported(asset_event: Any) -> None:
            self.take()
            report(asset_event)

        names = ("before_cursor_execute", "commit")
        with monkeypatch.context() as patched:
            patched.setattr(instance, "report_runless_asset_event", reported)
            for name in names:
                event.listen(Engine, name, self)
            try:
                yield
            finally:
                for name in names:
                    event.remove(Engine, name, self)


def newest(world: World) -> dict[str, int]:
    """The storage id of the last materialization of each asset."""
    return {
        name: world.instance.fetch_materializations(dg.AssetKey(name), limit=1).records[0].storage_id for name in NAMES
    }


def reported_since(world: World, known: dict[str, int]) -> dict[str, int]:
    """How many materializations of each asset were reported since."""
    found = {}
    for name, after in known.items():
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(name), after_storage_id=after)
        found[name] = len(world.instance.fetch_materializations(wanted, limit=10).records)
    return found


def publish_and_die(chain: Chain, last: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Publish a new run, die after `last` steps, and publish it again. Returns whether it died."""
    chain.value += 1
    result = chain.run()
    before, known = chain.heads(), newest(chain.world)
    steps, died = Steps(last), False
    with steps.counted(chain.world.instance, monkeypatch):
        try:
            chain.publish(result.run_id)
        except Killed:
            died = True
            catalog = chain.world.registry.access.catalog  # type: ignore[attr-defined]
            for engine in (catalog.reader, catalog.writer):  # a process that dies takes its connections with it
                engine.dispose()
    moved = [now != then for now, then in zip(chain.heads(), before, strict=True)]
    assert len(set(moved)) == 1, f"half-published after {last} steps: {moved}"
    chain.publish(result.run_id)
    for name in NAMES:
        assert chain.world.version(name).to_arrow()["n"].to_pylist() == [chain.value]
    assert reported_since(chain.world, known) == dict.fromkeys(NAMES, 1)
    assert chain.statuses() == [FRESH] * 5
    return died


@pytest.fixture
def chain(fresh: World) -> Chain:
    made = Chain(fresh)
    assert made.run(branch=None).success
    return made


def number_of_steps(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> int:
    chain.value += 1
    result = chain.run()
    steps = Steps()
    with steps.counted(chain.world.instance, monkeypatch):
        chain.publish(result.run_id)
    assert steps.count > 50
    return steps.count


def test_a_publication_that_dies_at_some_steps_is_whole_or_not_at_all(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = number_of_steps(chain, monkeypatch)
    assert all(publish_and_die(chain, last, monkeypatch) for last in range(3, count - 1, count // 8))


@pytest.mark.long
def test_a_publication_that_dies_at_any_step_is_whole_or_not_at_all(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = number_of_steps(chain, monkeypatch)
    died = sum(publish_and_die(chain, last, monkeypatch) for last in range(count))
    print(f"{died} of {count} steps")
    assert died >= count - 5
