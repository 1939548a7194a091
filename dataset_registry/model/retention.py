"""Which versions a retention policy keeps: pure decisions over the histories of branches.

The rules are restic's and borg's (`--keep-last`, `--keep-daily`, …): a version stays when any of them keeps it.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from dataset_registry.errors import InputError


@dataclass(frozen=True, slots=True)
class Rule:
    """What is kept of the history of some branches of some datasets.

    `datasets` and `branches` are patterns (`raw/*`, `release-?`; `*` matches slashes too).

    - `last` keeps the versions with the highest numbers: those that `log -n` lists. Their timestamps do not matter.
    - `younger_than` keeps the versions whose timestamp is at most this old, and those with a timestamp in the future.
    - `hourly`, `daily`, `weekly`, `monthly` and `yearly` keep the newest version of each of the newest N hours (days,
      …, in UTC) that have a version. The newest version is the one with the latest timestamp, and of equal timestamps the
      one with the highest number.

    Timestamps need not be in the order of the numbers: clocks differ and are set back, and copies keep their timestamps.
    The periods go by timestamp, as in restic. `last` goes by number, unlike restic's: a clock that is set back cannot make
    the versions just committed the first to expire, and the last steps of a history can always be undone.

    With `heads`, heads of branches expire too, and a dataset without kept versions is deleted. This is for the outputs
    of ops: `Rule("runs/*", younger_than=timedelta(days=1), heads=True)`.
    """

    datasets: str = "*"
    branches: str = "*"
    last: int = 0
    younger_than: timedelta | None = None
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    heads: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.datasets, str) and isinstance(self.branches, str)):
            raise InputError("The datasets and branches of a rule must be patterns like 'raw/*'.")
        counts = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        if any(type(count) is not int or count < 0 for count in counts):
            raise InputError(
                "The counts of a rule (last, hourly, daily, weekly, monthly, yearly) must be whole numbers, 0 or more."
            )
        if self.younger_than is not None and (
            not isinstance(self.younger_than, timedelta) or self.younger_than < timedelta(0)
        ):
            raise InputError("younger_than must be a duration of 0 or more: timedelta(days=30), or 30d in a file.")
        if not isinstance(self.heads, bool):
            raise InputError("heads of a rule must be true or false.")
        if not any(counts) and self.younger_than is None:
            raise InputError(
                "A rule must keep something: give last, younger_than, hourly, daily, weekly, monthly or yearly."
            )

    def applies_to(self, dataset: str, branch: str) -> bool:
        """Whether the rule applies to this branch of this dataset."""
        return fnmatchcase(dataset, self.datasets) and fnmatchcase(branch, self.branches)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules, of which the first that applies to a branch decides; a branch without one keeps all its history.

    Tags, versions that a running pipeline has read or written, and the heads of branches (unless a rule has `heads`)
    never expire. With `keep_inputs`, the inputs of kept versions are kept too, transitively. Versions that no branch
    reaches are treated as one more history, by the first rule for their dataset and all branches.
    """

    rules: tuple[Rule, ...]
    keep_inputs: bool = False

    def concerns(self, dataset: str) -> bool:
        """Whether any rule applies to this dataset."""
        return any(fnmatchcase(dataset, rule.datasets) for rule in self.rules)

    def rule_for(self, dataset: str, branch: str) -> Rule | None:
        """The rule for a branch of a dataset."""
        return next((rule for rule in self.rules if rule.applies_to(dataset, branch)), None)

    def rule_for_rest(self, dataset: str) -> Rule | None:
        """The rule for versions that are on no branch."""
        return next((rule for rule in self.rules if rule.branches == "*" and rule.applies_to(dataset, "")), None)

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> "Policy":
        """A policy as a TOML or JSON file has it: `keep_inputs`, and a list `rule` of tables with the fields of `Rule`,
        `younger_than` as text (`30d`, `12h`, `2w`). Raises `InputError`."""
        if not isinstance(value, Mapping):
            raise InputError("A policy must be a table with a list of [[rule]].")
        rules = value.get("rule", [])
        if not isinstance(value.get("keep_inputs", False), bool):
            raise InputError("keep_inputs of a policy must be true or false.")
        if not isinstance(rules, list) or not rules:
            raise InputError("A policy needs at least one [[rule]].")
        if unknown := set(value) - {"rule", "keep_inputs"}:
            raise InputError(f"Unknown key {sorted(unknown)[0]!r} of a policy. Use: rule, keep_inputs.")
        return cls(tuple(map(_rule, rules)), bool(value.get("keep_inputs", False)))


@dataclass(frozen=True, slots=True)
class Moment:
    """A version as retention sees it: its number and when it was created."""

    number: int
    created_at: datetime


def kept(rule: Rule, history: Iterable[Moment], now: datetime) -> dict[int, str]:
    """The versions of a history, in any order, that a rule keeps, by number, each with the reason."""
    versions = list(history)
    only = dict.fromkeys((version.number for version in versions), 1)
    return {number: reason for number, (_, reason) in kept_in_each([rule], versions, only, now).items()}


def kept_in_each(
    rules: Sequence[Rule | None], versions: Iterable[Moment], histories: Mapping[int, int], now: datetime
) -> dict[int, tuple[int, str]]:
    """What rules keep of many histories: by version number the first history that keeps it, as an index, and the reason.

    `rules[i]` decides on history i; without a rule a history keeps all its versions, with an empty reason. `histories` has
    for each version number the histories it is in, as bits. The versions, in any order, are scanned a few times, however
    many histories share them.
    """
    by_number = sorted(versions, key=lambda version: version.number, reverse=True)
    # The sort is stable: of two versions with one timestamp, the higher number is the newer one.
    by_time = sorted(by_number, key=lambda version: version.created_at, reverse=True)
    claims: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for number, keeping in _young(rules, by_time, histories, now):
        claims[number].append(("younger_than", keeping))
    for name, period_of in _PERIODS.items():
        counts = [0 if rule is None else getattr(rule, name) for rule in rules]
        newest_first = by_number if name == "last" else by_time
        for number, keeping in _newest_of_periods(counts, newest_first, histories, period_of):
            claims[number].append((name, keeping))
    if without_rule := _bits(rule is None for rule in rules):
        for version in by_number:
            if keeping := histories[version.number] & without_rule:
                claims[version.number].append(("", keeping))
    found = {}
    for number, claimed in claims.items():
        first = min(_lowest(keeping) for _, keeping in claimed)
        rule = rules[first]
        reasons = [] if rule is None else [_reason(rule, name) for name, keeping in claimed if keeping >> first & 1]
        found[number] = (first, ", ".join(reasons))
    return found


_PERIODS: Mapping[str, Callable[[Moment], object]] = {
    # Each version is a period of its own.
    "last": lambda version: version.number,
    "yearly": lambda version: version.created_at.year,
    "monthly": lambda version: (version.created_at.year, version.created_at.month),
    "weekly": lambda version: version.created_at.isocalendar()[:2],
    "daily": lambda version: version.created_at.date(),
    "hourly": lambda version: (version.created_at.date(), version.created_at.hour),
}


def _newest_of_periods(
    counts: Sequence[int],
    newest_first: Iterable[Moment],
    histories: Mapping[int, int],
    period_of: Callable[[Moment], object],
) -> Iterator[tuple[int, int]]:
    """The first version of each of the first `counts[i]` periods of history i: numbers, with the histories as bits.

    The versions of a period follow each other. The scan ends when no history wants another period.
    """
    left = list(counts)
    unfinished = _bits(map(bool, left))
    period: object = None
    waiting = 0
    for version in newest_first:
        if not unfinished:
            return
        if (current := period_of(version)) != period:
            period, waiting = current, unfinished
        keeping = waiting & histories[version.number]
        if keeping:
            yield version.number, keeping
        waiting ^= keeping
        while keeping:
            index = _lowest(keeping)
            keeping ^= 1 << index
            left[index] -= 1
            if not left[index]:
                unfinished ^= 1 << index


def _young(
    rules: Sequence[Rule | None], newest_first: Sequence[Moment], histories: Mapping[int, int], now: datetime
) -> Iterator[tuple[int, int]]:
    """The versions that `younger_than` keeps: numbers, with the histories as bits."""
    ages = [None if rule is None else rule.younger_than for rule in rules]
    for age in {age for age in ages if age is not None}:
        with_age = _bits(other == age for other in ages)
        for version in newest_first:
            if now - version.created_at > age:
                break
            if keeping := histories[version.number] & with_age:
                yield version.number, keeping


def _reason(rule: Rule, name: str) -> str:
    if name == "last":
        return f"one of the last {rule.last}"
    if name == "younger_than" and rule.younger_than is not None:
        return f"younger than {duration_text(rule.younger_than)}"
    return name


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << index for index, flag in enumerate(flags) if flag)


def _lowest(bits: int) -> int:
    """The index of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1


_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_duration(text: str) -> timedelta:
    """A duration like `30d`, `12h`, `90m`, `2w`; `0` is none. Raises `InputError`."""
    if text.strip() == "0":
        return timedelta(0)
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip())
    if not found:
        raise InputError(f"Invalid duration {text!r}: expected one like 30d, 12h, 90m or 2w.")
    return int(found[1]) * _UNITS[found[2]]


def duration_text(duration: timedelta) -> str:
    """A duration as `parse_duration` reads it, in its largest whole unit."""
    if not duration:
        return "0"
    for unit, length in reversed(_UNITS.items()):
        if not duration % length:
            return f"{duration // length}{unit}"
    return str(duration)


def _rule(value: object) -> Rule:
    names = [field.name for field in fields(Rule)]
    if not isinstance(value, Mapping):
        raise InputError("Each [[rule]] of a policy must be a table.")
    if unknown := set(value) - set(names):
        raise InputError(f"A rule has no {sorted(unknown)[0]!r}; it has: {', '.join(names)}.")
    settings = dict(value)
    if isinstance(age := settings.get("younger_than"), str):
        settings["younger_than"] = parse_duration(age)
    return Rule(**settings)
