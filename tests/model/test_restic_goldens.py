"""What restic keeps of its own test snapshots, policy by policy, and what a rule with the same settings keeps of them.

The facts are restic's (`internal/data/snapshot_policy_test.go` and its 40 golden files), written down as ranks. The number of a
golden here is the number of its file there.
"""

from datetime import UTC, datetime, timedelta

import pytest

from dataset_registry.model.retention import Moment, Rule, kept

_EARLY = "8 10 12 13 13.1 15 18 20 21 22"
_LATE = "1 2 5 6 8 9 10 11 20 22"
_DAYS = {"09": _LATE, "08": _EARLY, "10": _LATE, "11": _EARLY}
"""Days of months with a snapshot at 10:20:30, `.1` a tenth of a second later; the months in the order of restic's list."""

_JANUARY = (
    "01 01:02:03, 01 01:03:03, 01 07:08:03, 03 07:02:03, 04 10:23:03, 04 11:23:03, 04 12:23:03, 04 12:24:03, 04 12:28:03, "
    "04 12:30:03, 04 16:23:03, 05 09:02:03, 06 08:02:03, 07 10:02:03, 08 20:02:03, 09 21:02:03, 12 21:02:03, 12 21:08:03, "
    "18 12:02:03"
)


def _snapshots() -> list[datetime]:
    """The timestamps in the order of restic's list, which is not their order in time."""
    texts = []
    for year in ("2014", "2015"):
        for month, days in _DAYS.items():
            for day in days.split():
                whole, _, tenth = day.partition(".")
                # Five snapshots have this timestamp.
                times = 5 if (year, month, day) == ("2015", "10", "22") else 1
                texts += [f"{year}-{month}-{whole:0>2} 10:20:30.{tenth or 0}00000"] * times
    texts += [f"2016-01-{text}" for text in _JANUARY.split(", ")]
    return [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in texts]


SNAPSHOTS = _snapshots()
NEWEST_FIRST = sorted(SNAPSHOTS, reverse=True)
_ALL = 1_000
"""More than there are: restic's -1."""

GOLDENS = {
    1: (Rule(last=10), "0-9"),
    2: (Rule(last=15), "0-14"),
    3: (Rule(last=99), "0-98"),
    4: (Rule(last=200), "0-102"),
    5: (Rule(hourly=20), "0-1 3-9 13-17 19-24"),
    6: (Rule(daily=3), "0-1 3"),
    7: (Rule(daily=10), "0-1 3-8 15-16"),
    8: (Rule(daily=30), "0-1 3-8 15-16 19-24 26-29 34-43"),
    9: (Rule(last=5, daily=5), "0-5"),
    10: (Rule(last=2, daily=10), "0-1 3-8 15-16"),
    11: (Rule(weekly=2), "0-1"),
    12: (Rule(weekly=4), "0-1 3 15"),
    13: (Rule(daily=3, weekly=4), "0-1 3 15"),
    14: (Rule(monthly=6), "0 19 29 43 53 63"),
    15: (Rule(daily=2, weekly=2, monthly=6), "0-1 19 29 43 53 63"),
    16: (Rule(yearly=10), "0 19 63 102"),
    17: (Rule(daily=7, weekly=2, monthly=3, yearly=10), "0-1 3-7 19 29 63 102"),
    21: (Rule(younger_than=timedelta(days=1)), "0"),
    22: (Rule(younger_than=timedelta(days=2)), "0"),
    23: (Rule(younger_than=timedelta(days=7)), "0-2"),
    # restic counts months and years back in the calendar; these are the days and hours that this comes to here.
    24: (Rule(younger_than=timedelta(days=31)), "0-18"),
    25: (Rule(younger_than=timedelta(days=45)), "0-18"),
    26: (Rule(younger_than=timedelta(days=397)), "0-62"),
    27: (Rule(younger_than=timedelta(days=13, hours=23)), "0-8"),
    28: (Rule(younger_than=timedelta(days=61, hours=2)), "0-22"),
    29: (Rule(younger_than=timedelta(days=429, hours=3)), "0-67"),
    36: (Rule(last=_ALL), "0-102"),
    37: (Rule(last=_ALL, hourly=_ALL), "0-102"),
    38: (Rule(hourly=_ALL), "0-1 3-9 13-17 19-24 26-29 34-58 60-68 70-98 100-102"),
    39: (Rule(daily=3, weekly=2, monthly=_ALL, yearly=_ALL), "0-1 3 19 29 43 53 63 73 83 93 102"),
}
"""By number of the golden: the rule, and the ranks of what restic keeps, from 0, the newest snapshot."""

_OLDEST = (
    "restic also keeps the oldest snapshot of all while a period has counts left. RegistryDep a rule keeps the newest version of "
    "each period and no other: what it keeps is what it says."
)
DIFFERENT = {16: _OLDEST, 17: _OLDEST, 39: _OLDEST}
"""Goldens from which a rule differs: it keeps all of it but the oldest snapshot."""

_TAGS = "snapshots are chosen by restic's tags, which are labels of snapshots; a tag here is a name that always keeps its version"
_WITHIN = "--keep-within-hourly and its kin limit periods by age; a rule limits them by number"
WITHOUT_A_RULE = {
    0: "a policy without any setting: a Rule must keep something",
    **dict.fromkeys((18, 19, 20), _TAGS),
    **dict.fromkeys((30, 31, 32, 33, 34, 35), _WITHIN),
}


def _ranks(text: str) -> list[int]:
    spans = [part.partition("-") for part in text.split()]
    return [rank for first, _, last in spans for rank in range(int(first), int(last or first) + 1)]


def _kept(rule: Rule, numbered: list[datetime]) -> list[datetime]:
    """The timestamps that a rule keeps of versions numbered from 0 in this order, newest first."""
    history = [Moment(number, made) for number, made in enumerate(numbered)]
    return sorted((numbered[number] for number in kept(rule, history, NEWEST_FIRST[0])), reverse=True)


def _expected(golden: int) -> list[datetime]:
    ranks = _ranks(GOLDENS[golden][1])
    if golden in DIFFERENT:
        assert ranks.pop() == len(SNAPSHOTS) - 1
    return [NEWEST_FIRST[rank] for rank in ranks]


def test_every_golden_of_restic_is_stated_or_has_a_reason_not_to_be() -> None:
    assert len(SNAPSHOTS) == 103
    assert sorted([*GOLDENS, *WITHOUT_A_RULE]) == list(range(40))


@pytest.mark.parametrize("golden", GOLDENS)
def test_a_rule_keeps_what_restic_keeps(golden: int) -> None:
    assert _kept(GOLDENS[golden][0], sorted(SNAPSHOTS)) == _expected(golden)


@pytest.mark.parametrize("golden", sorted(set(GOLDENS) - {3}))
def test_a_rule_keeps_what_restic_keeps_also_where_numbers_are_not_in_the_order_of_time(golden: int) -> None:
    """Not golden 3, the one in which `last` reaches back to what is out of order: `last` goes by number here."""
    assert _kept(GOLDENS[golden][0], SNAPSHOTS) == _expected(golden)
