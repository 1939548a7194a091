"""Scheduled tags: every tick names the heads, once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dataset_registry import Dataset
from dataset_registry.dagster_io import build_tag_schedule
from dataset_registry.errors import InputError, InvalidName
from tests.dagster_io.conftest import World

HOUR = timedelta(hours=1)
START = datetime.now(UTC).replace(microsecond=0) - HOUR
"""Due an hour ago: whatever a test tags is tagged after it, and before a tick that is an hour from now."""


class Clock:
    """Ticks of one schedule on one registry."""

    def __init__(self, world: World, **options: Any) -> None:
        self.world = world
        self.schedule = build_tag_schedule(**({"template": "nightly"} | options))

    def request(self, due: datetime = START) -> dg.RunRequest:
        context = dg.build_schedule_context(instance=self.world.instance, scheduled_execution_time=due)
        found = self.schedule.evaluate_tick(context).run_requests
        assert found is not None
        (request,) = found
        return request

    def run(self, config: Any) -> dg.ExecuteInProcessResult:
        definitions = dg.Definitions(schedules=[self.schedule], resources=self.world.resources())
        job = definitions.resolve_job_def(self.schedule.job_name)
        return job.execute_in_process(run_config=config, instance=self.world.instance)

    def tick(self, due: datetime = START) -> dg.ExecuteInProcessResult:
        return self.run(self.request(due).run_config)


@pytest.fixture
def flights(world: World) -> Dataset:
    dataset = world.registry.create_dataset("raw/flights")
    grow(dataset)
    return dataset


def grow(dataset: Dataset, **options: Any) -> None:
    dataset.commit({"data": pa.table({"n": [len(dataset.tree())]})}, **options)


def tags(dataset: Dataset) -> dict[str, int]:
    return {tag.name: tag.version_number for tag in dataset.tags()}


def test_a_tick_tags_the_heads_with_the_date_it_was_due(world: World, flights: Dataset) -> None:
    grow(flights)
    grow(world.registry.create_dataset("clean/flights"))
    due = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
    clock = Clock(world, template="nightly-{date}-{time}-{branch}")
    assert clock.tick(due).success
    assert tags(flights) == {"nightly-2026-11-24-0630-main": 2}
    assert tags(world.registry.dataset("clean/flights")) == {"nightly-2026-11-24-0630-main": 1}
    request = clock.request(due)
    assert request.run_key == "registry_tags:2026-11-24T06:30:00+00:00"
    assert request.tags["registry/tag"] == "nightly-2026-11-24-0630-main"


def test_the_date_is_that_of_the_schedules_timezone(world: World, flights: Dataset) -> None:
    clock = Clock(world, template="nightly-{date}", execution_timezone="Pacific/Auckland")
    clock.tick(datetime(2026, 11, 24, 18, 0, tzinfo=UTC).astimezone(_auckland()))
    assert tags(flights) == {"nightly-2026-11-25": 1}


def _auckland() -> Any:
    from zoneinfo import ZoneInfo

    return ZoneInfo("Pacific/Auckland")


def test_only_datasets_that_match_a_pattern_are_tagged(world: World, flights: Dataset) -> None:
    for name in ("raw/planes", "clean/flights", "reports/daily"):
        grow(world.registry.create_dataset(name))
    Clock(world, datasets=["raw/*", "clean/f*"]).tick()
    assert [d.name for d in world.registry.datasets() if d.tags()] == ["clean/flights", "raw/flights", "raw/planes"]


def test_the_same_tick_again_tags_nothing_even_when_the_branch_moved_in_between(world: World, flights: Dataset) -> None:
    clock = Clock(world)
    clock.tick()
    grow(flights)
    assert clock.tick().success
    assert tags(flights) == {"nightly": 1}


def test_a_later_tick_with_the_same_name_gets_the_number_of_its_version(world: World, flights: Dataset) -> None:
    clock = Clock(world)
    clock.tick()
    grow(flights)
    later = START + 2 * HOUR
    clock.tick(later)
    assert tags(flights) == {"nightly": 1, "nightly.v2": 2}
    clock.tick(later)
    assert tags(flights) == {"nightly": 1, "nightly.v2": 2}


def test_a_later_tick_finds_the_tag_good_when_the_head_is_still_the_same(world: World, flights: Dataset) -> None:
    clock = Clock(world)
    clock.tick()
    clock.tick(START + 2 * HOUR)
    assert tags(flights) == {"nightly": 1}


def test_a_name_that_somebody_else_gave_to_an_older_version_is_left_to_them(world: World, flights: Dataset) -> None:
    flights.create_tag("nightly", "v1")
    grow(flights)
    Clock(world).tick(START + 2 * HOUR)
    assert tags(flights) == {"nightly": 1, "nightly.v2": 2}


def test_a_name_that_is_a_branch_is_left_alone_and_does_not_stop_the_others(world: World, flights: Dataset) -> None:
    flights.create_branch("nightly", "v1")
    other = world.registry.create_dataset("raw/planes")
    grow(other)
    assert Clock(world).tick().success
    assert tags(flights) == {"nightly.v1": 1}
    assert tags(other) == {"nightly": 1}


def test_the_name_of_a_deleted_tag_is_not_given_again(world: World, flights: Dataset) -> None:
    clock = Clock(world)
    clock.tick()
    flights.delete_tag("nightly")
    clock.tick()
    assert tags(flights) == {"nightly.v1": 1}


def test_a_dataset_whose_names_were_all_deleted_is_not_counted_as_tagged(world: World, flights: Dataset) -> None:
    clock = Clock(world)
    for name in ("nightly", "nightly.v1"):
        clock.tick()
        flights.delete_tag(name)
    assert _tagged(clock.tick()) == 0
    assert tags(flights) == {}


def test_datasets_without_the_branch_are_left_out(world: World, flights: Dataset) -> None:
    flights.create_branch("production", "v1")
    other = world.registry.create_dataset("raw/planes")
    grow(other)
    empty = world.registry.create_dataset("raw/empty")
    result = Clock(world, branch="production").tick()
    assert tags(flights) == {"nightly": 1}
    assert tags(other) == tags(empty) == {}
    assert _tagged(result) == 1


def _tagged(result: dg.ExecuteInProcessResult) -> int:
    """How many datasets a run says it tagged."""
    outputs = [e.step_output_data for e in result.all_node_events if e.event_type_value == "STEP_OUTPUT"]
    return outputs[0].metadata["registry/tagged"].value


@pytest.mark.parametrize("tick", [None, "", "2026-11-24T06:00:00", "2026-11-24T06:00:00+01:00"])
def test_a_run_by_hand_needs_no_tick_and_takes_any_iso_moment(world: World, flights: Dataset, tick: str | None) -> None:
    clock = Clock(world, template="by-hand")
    config = {} if tick is None else {"ops": {"registry_tags_op": {"config": {"tick": tick}}}}
    assert clock.run(config).success
    assert clock.run(config).success, "and once more, where the tag is there already"
    assert tags(flights) == {"by-hand": 1}


@pytest.mark.parametrize("template", ["nightly {date}", "v1", "-{date}", "a..b", "", "{date}/"])
def test_a_template_that_gives_no_name_fails_where_it_is_written(template: str) -> None:
    with pytest.raises(InvalidName):
        build_tag_schedule(template=template)


@pytest.mark.parametrize("template", ["nightly-{run}", "nightly-{", "nightly-{}", "{date:%Q}"])
def test_a_template_with_unknown_parts_fails_where_it_is_written_and_says_what_there_is(template: str) -> None:
    with pytest.raises(InputError, match=r"\{date\}.*\{time\}.*\{branch\}"):
        build_tag_schedule(template=template)


def test_two_schedules_and_another_resource_key_live_side_by_side(world: World, flights: Dataset) -> None:
    nightly = build_tag_schedule(name="nightly", template="nightly")
    weekly = build_tag_schedule(name="weekly", template="weekly", cron_schedule="0 6 * * 1", resource_key="other")
    definitions = dg.Definitions(
        schedules=[nightly, weekly], resources={"registry": world.resource, "other": world.resource}
    )
    for schedule in (nightly, weekly):
        assert definitions.resolve_job_def(schedule.job_name).execute_in_process(instance=world.instance).success
    assert tags(flights) == {"nightly": 1, "weekly": 1}
