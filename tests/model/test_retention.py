"""Retention rules, policies from files, durations, and splicing versions out of a history."""

import json
import tomllib
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_registry.errors import InputError
from dataset_registry.model.history import splice
from dataset_registry.model.retention import Moment, Policy, Rule, duration_text, kept, kept_in_each, parse_duration
from tests.model.test_history import Graph, graphs, reachable

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def history(*moments: datetime) -> list[Moment]:
    """Versions made at these moments, numbered from the oldest; newest first, as retention wants them."""
    ordered = sorted(moments)
    return [Moment(number, moment) for number, moment in reversed(list(enumerate(ordered, 1)))]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def numbers(rule: Rule, moments: list[Moment]) -> set[int]:
    return set(kept(rule, moments, NOW))


# --- rules ---------------------------------------------------------------------------------------------------------


def test_the_last_versions_are_kept() -> None:
    moments = history(*(NOW - timedelta(hours=i) for i in range(5)))
    assert kept(Rule(last=2), moments, NOW) == {5: "one of the last 2", 4: "one of the last 2"}
    assert numbers(Rule(last=9), moments) == {1, 2, 3, 4, 5}
    assert kept(Rule(last=1), [], NOW) == {}


def test_versions_of_the_time_just_past_are_kept_and_so_are_those_of_a_clock_that_runs_ahead() -> None:
    age = timedelta(days=1)
    moments = history(NOW + timedelta(minutes=5), NOW, NOW - age, NOW - age - timedelta(microseconds=1))
    assert kept(Rule(younger_than=age), moments, NOW) == dict.fromkeys((4, 3, 2), "younger than 1d")


def test_days_end_at_midnight_in_utc() -> None:
    moments = history(at("2026-11-23T23:59:59"), at("2026-11-24T00:00:00"), at("2026-11-24T11:00:00"))
    assert kept(Rule(daily=1), moments, NOW) == {3: "daily"}
    assert kept(Rule(daily=2), moments, NOW) == {3: "daily", 1: "daily"}


def test_a_day_without_a_version_does_not_use_up_a_day() -> None:
    moments = history(at("2026-01-01T10:00"), at("2026-06-01T10:00"), at("2026-06-01T11:00"), at("2026-11-24T10:00"))
    assert numbers(Rule(daily=2), moments) == {4, 3}
    assert numbers(Rule(daily=3), moments) == {4, 3, 1}


def test_weeks_are_iso_weeks_also_where_the_year_ends() -> None:
    # 2026-12-28 is a Monday of week 53 of 2026, and 2027-01-03 its Sunday; 2027-01-04 begins week 1 of 2027.
    week = history(at("2026-12-27T23:59"), at("2026-12-28T00:00"), at("2027-01-03T23:59"), at("2027-01-04T00:00"))
    assert numbers(Rule(weekly=1), week) == {4}
    assert numbers(Rule(weekly=2), week) == {4, 3}
    assert numbers(Rule(weekly=3), week) == {4, 3, 1}
    # 2024-12-30 belongs to week 1 of 2025: another year's week 1 is another week.
    assert numbers(Rule(weekly=9), history(at("2024-01-02T00:00"), at("2024-12-30T00:00"))) == {1, 2}


def test_months_and_years_end_where_calendars_say() -> None:
    moments = history(at("2024-12-31T23:59:59"), at("2025-01-01T00:00"), at("2025-11-30T00:00"), at("2026-11-01T00:00"))
    assert numbers(Rule(monthly=9), moments) == {1, 2, 3, 4}  # November of two years is two months
    assert numbers(Rule(yearly=1), moments) == {4}
    assert numbers(Rule(yearly=2), moments) == {4, 3}
    assert numbers(Rule(yearly=3), moments) == {4, 3, 1}


def test_every_reason_is_named() -> None:
    rule = Rule(last=1, younger_than=timedelta(weeks=2), daily=1, weekly=1, monthly=1, yearly=1)
    (reason,) = kept(rule, history(NOW), NOW).values()
    assert reason == "younger than 2w, one of the last 1, yearly, monthly, weekly, daily"


moments = st.lists(st.datetimes(datetime(2023, 12, 1), datetime(2027, 2, 1), timezones=st.just(UTC)), max_size=40)


@settings(deadline=None)
@given(moments, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_a_rule_keeps_the_newest_of_each_of_the_newest_periods(
    made: list[datetime], daily: int, weekly: int, monthly: int, yearly: int
) -> None:
    found = history(*made)
    expected: set[int] = {found[0].number} if found else set()
    for wanted, period in (
        (daily, lambda d: d),
        (weekly, lambda d: d - timedelta(days=d.weekday())),
        (monthly, lambda d: d.replace(day=1)),
        (yearly, lambda d: date(d.year, 1, 1)),
    ):
        newest: dict[date, int] = {}
        for moment in found:
            newest.setdefault(period(moment.created_at.date()), moment.number)
        expected |= {newest[day] for day in sorted(newest, reverse=True)[:wanted]}
    rule = Rule(last=1, daily=daily, weekly=weekly, monthly=monthly, yearly=yearly)
    assert numbers(rule, found) == expected


def test_a_day_counts_once_when_timestamps_are_not_in_the_order_of_numbers() -> None:
    # The clock was set back between versions 2 and 3: the days are 24, 23, 24, 23.
    days = [at("2026-11-23T10:00"), at("2026-11-24T10:00"), at("2026-11-23T11:00"), at("2026-11-24T09:00")]
    history = [Moment(number, moment) for number, moment in reversed(list(enumerate(days, 1)))]
    assert kept(Rule(daily=2), history, NOW) == {2: "daily", 3: "daily"}
    older = Moment(5, at("2026-11-20T10:00"))
    assert kept(Rule(daily=3), [older, *history], NOW) == {2: "daily", 3: "daily", 5: "daily"}
    assert kept(Rule(daily=1), [older, *history], NOW) == {2: "daily"}


def test_of_equal_timestamps_the_highest_number_is_the_newest() -> None:
    assert numbers(Rule(daily=1), [Moment(1, NOW), Moment(3, NOW), Moment(2, NOW)]) == {3}


def test_the_last_versions_are_those_with_the_highest_numbers_whatever_their_timestamps() -> None:
    history = [Moment(number, NOW - timedelta(days=number)) for number in range(1, 6)]
    assert numbers(Rule(last=2), history) == {4, 5}


@settings(deadline=None)
@given(
    st.lists(st.datetimes(datetime(2026, 10, 20), datetime(2026, 11, 24), timezones=st.just(UTC))), st.integers(1, 9)
)
def test_the_newest_days_are_kept_in_whatever_order_versions_were_numbered(made: list[datetime], daily: int) -> None:
    history = [Moment(number, moment) for number, moment in reversed(list(enumerate(made, 1)))]
    days = [made[number - 1].date() for number in kept(Rule(daily=daily), history, NOW)]
    assert sorted(days, reverse=True) == sorted(set(map(datetime.date, made)), reverse=True)[:daily]


@settings(deadline=None)
@given(moments, st.randoms(use_true_random=False), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_the_order_of_numbers_does_not_change_which_timestamps_the_periods_keep(
    made: list[datetime], random: Random, daily: int, monthly: int, yearly: int
) -> None:
    rule = Rule(younger_than=timedelta(days=30), daily=daily, monthly=monthly, yearly=yearly)
    shuffled = random.sample(made, len(made))
    ordered = {version.number: version.created_at for version in history(*made)}
    expected = sorted(ordered[number] for number in numbers(rule, history(*made)))
    found = numbers(rule, [Moment(number, moment) for number, moment in enumerate(shuffled)])
    assert sorted(shuffled[number] for number in found) == expected


class Counted(dict[int, int]):
    """Counts how often a version is looked at."""

    looks = 0

    def __getitem__(self, number: int) -> int:
        self.looks += 1
        return super().__getitem__(number)


def looks(rule: Rule, versions: int, branches: int) -> int:
    """How often a rule looks at versions, one an hour, of this many branches that have all of them."""
    found = history(*(NOW - timedelta(hours=hour) for hour in range(versions)))
    histories = Counted.fromkeys((version.number for version in found), (1 << branches) - 1)
    assert isinstance(histories, Counted)
    kept_in_each([rule] * branches, found, histories, NOW)
    return histories.looks


def test_branches_that_share_a_history_are_judged_in_one_scan_of_it() -> None:
    never_satisfied = Rule(
        last=1, younger_than=timedelta(days=99), hourly=999, daily=99, weekly=99, monthly=99, yearly=99
    )
    assert looks(never_satisfied, 500, branches=1) == looks(never_satisfied, 500, branches=200) <= 7 * 500


def test_a_scan_ends_where_the_rule_is_satisfied() -> None:
    assert looks(Rule(last=5), 500, branches=200) == 5
    assert looks(Rule(daily=3), 500, branches=200) == 13 + 24 + 1  # NOW is at noon: 13 versions today
    assert looks(Rule(younger_than=timedelta(hours=9)), 500, branches=200) == 10


def test_a_rule_must_keep_something_and_counts_from_zero() -> None:
    with pytest.raises(InputError, match="must keep something: give last"):
        Rule()
    with pytest.raises(InputError, match="0 or more"):
        Rule(last=-1)
    with pytest.raises(InputError, match="0 or more"):
        Rule(daily=1.5)  # type: ignore[arg-type]


# --- policies ------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_applies_decides_and_a_branch_without_one_has_none() -> None:
    first, second = Rule(datasets="raw/*", branches="main", last=1), Rule(datasets="raw/*", branches="*", last=2)
    policy = Policy((first, second))
    assert policy.rule_for("raw/flights", "main") is first
    assert policy.rule_for("raw/deep/er", "main") is first
    assert policy.rule_for("raw/flights", "dev") is second
    assert policy.rule_for("clean/flights", "main") is None
    assert policy.concerns("raw/x")
    assert not policy.concerns("raw")


def test_what_is_on_no_branch_is_judged_by_the_first_rule_for_all_branches_of_its_dataset() -> None:
    main, other, every = Rule(branches="main", last=1), Rule(datasets="x", last=2), Rule(last=3)
    policy = Policy((main, other, every))
    assert policy.rule_for_rest("x") is other
    assert policy.rule_for_rest("y") is every
    assert Policy((main, Rule(branches="rel*", last=1))).rule_for_rest("x") is None
    assert Policy((Rule(branches="**", last=1),)).rule_for_rest("x") is None


@pytest.mark.parametrize(
    ("pattern", "name", "applies"),
    [
        ("*", "a/b/c", True),
        ("raw/*", "raw/a/b", True),
        ("raw/*", "raw", False),
        ("raw/?", "raw/ab", False),
        ("r[ab]w", "rbw", True),
        ("Raw", "raw", False),
        ("flüge", "flüge", True),
    ],
)
def test_patterns_are_those_of_shells_and_mind_case(pattern: str, name: str, applies: bool) -> None:
    assert Rule(datasets=pattern, last=1).applies_to(name, "main") is applies
    assert Rule(branches=pattern, last=1).applies_to("x", name) is applies


TOML = """
keep_inputs = true

[[rule]]
datasets = "raw/*"
branches = "main"
last = 3
younger_than = "30d"

[[rule]]
daily = 7
weekly = 4
monthly = 12
yearly = 2
"""


def test_a_policy_comes_from_toml_and_json_alike() -> None:
    value = tomllib.loads(TOML)
    policy = Policy.from_mapping(value)
    assert policy == Policy(
        (
            Rule("raw/*", "main", last=3, younger_than=timedelta(days=30)),
            Rule(daily=7, weekly=4, monthly=12, yearly=2),
        ),
        keep_inputs=True,
    )
    assert Policy.from_mapping(json.loads(json.dumps(value))) == policy
    assert Policy.from_mapping({"rule": [{"younger_than": timedelta(hours=1)}]}).rules[0].younger_than is not None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, r"at least one \[\[rule\]\]"),
        ({"rule": []}, r"at least one \[\[rule\]\]"),
        ({"rule": {"last": 1}}, r"at least one \[\[rule\]\]"),
        ({"rule": ["last"]}, "must be a table"),
        ({"rule": [{"last": 1}], "rules": []}, "Use: rule, keep_inputs"),
        ({"rule": [{"keep_last": 1}]}, "it has: datasets, branches, last"),
        ({"rule": [{}]}, "must keep something"),
        ({"rule": [{"last": 0}]}, "must keep something"),
        ({"rule": [{"last": -1}]}, "0 or more"),
        ({"rule": [{"last": "3"}]}, "0 or more"),
        ({"rule": [{"daily": 1.5}]}, "0 or more"),
        ({"rule": [{"younger_than": "1y"}]}, "expected one like 30d"),
        ({"rule": [{"younger_than": ""}]}, "expected one like 30d"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_with_what_to_do(value: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Policy.from_mapping(value)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"rule": [{"last": True}]},
        {"rule": [{"last": 1, "datasets": 5}]},
        {"rule": [{"last": 1, "branches": ["main"]}]},
        {"rule": [{"younger_than": 5}]},
        {"rule": [{"younger_than": -timedelta(days=1)}]},
        {"rule": [{"last": 1}], "keep_inputs": "no"},
    ],
)
def test_a_policy_with_a_value_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(InputError):
        Policy.from_mapping(value)


# --- durations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0", timedelta(0)),
        ("90m", timedelta(minutes=90)),
        (" 12h ", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
        ("0d", timedelta(0)),
    ],
)
def test_durations_are_a_number_and_a_unit(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "d", "1", "-1d", "1.5d", "1 d", "1y", "1D", "1d2h", "1234567d", "30d\n30d"])
def test_a_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"Invalid duration .*: expected one like"):
        parse_duration(text)


@given(st.integers(1, 999_999), st.sampled_from("mhdw"))
def test_a_duration_is_written_as_it_is_read(number: int, unit: str) -> None:
    duration = parse_duration(f"{number}{unit}")
    assert parse_duration(duration_text(duration)) == duration


def test_no_duration_is_written_as_it_is_read() -> None:
    assert parse_duration(duration_text(timedelta(0))) == timedelta(0)


# --- splicing ------------------------------------------------------------------------------------------------------


def spliced(graph: Graph, removed: set[int]) -> Graph:
    return {number: splice(number, graph, removed) for number in graph if number not in removed}


@settings(deadline=None, max_examples=200)
@given(graphs(), st.data())
def test_splicing_keeps_who_comes_from_whom_exactly(graph: Graph, data: st.DataObject) -> None:
    removed = set(data.draw(st.lists(st.sampled_from(sorted(graph)), unique=True)))
    after = spliced(graph, removed)
    for number in after:
        assert reachable(after, number) == reachable(graph, number) - removed
        assert len(set(after[number])) == len(after[number])
        assert all(parent < number for parent in after[number])


@settings(deadline=None, max_examples=200)
@given(graphs(), st.data())
def test_splicing_in_two_steps_is_splicing_in_one(graph: Graph, data: st.DataObject) -> None:
    """An expiry removes some hundred versions a transaction: where it is cut must not matter to who comes from whom."""
    removed = data.draw(st.lists(st.sampled_from(sorted(graph)), unique=True))
    cut = data.draw(st.integers(0, len(removed)))
    first, then = set(removed[:cut]), set(removed[cut:])
    assert spliced(spliced(graph, first), then) == spliced(graph, set(removed))


def test_the_first_parent_still_leads() -> None:
    graph: Graph = {1: (), 2: (1,), 3: (), 4: (3,), 5: (4, 2)}
    assert splice(5, graph, {4}) == (3, 2)
    assert splice(5, graph, {2}) == (4, 1)
    assert splice(5, graph, {4, 3}) == (2,)
    assert splice(5, graph, {2, 3}) == (4, 1)
    assert splice(5, graph, {1, 2, 3, 4}) == ()


def test_two_paths_to_one_version_are_one_parent() -> None:
    graph: Graph = {1: (), 2: (1,), 3: (1,), 4: (2, 3)}
    assert splice(4, graph, {2, 3}) == (1,)
    assert splice(4, graph, {3}) == (2, 1)


def test_a_long_line_is_spliced_without_recursion() -> None:
    graph: Graph = {1: (), **{number: (number - 1,) for number in range(2, 20_000)}}
    assert splice(19_999, graph, set(range(2, 19_999))) == (1,)
