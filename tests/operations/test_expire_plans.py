"""What an expiry keeps, against a plain reading of the rules: branch by branch, period by period, each walk on its own."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_registry.model.maintenance import Dated
from dataset_registry.model.records import DatasetRecord, PointerRecord
from dataset_registry.model.retention import Policy, Rule, duration_text
from dataset_registry.operations.expire import _judge
from tests.model.test_history import Graph, graphs, reachable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DATASET = DatasetRecord(1, "raw/flights", None, NOW, None)


def reasons_of(rule: Rule, history: Sequence[Dated]) -> dict[int, str]:
    """The versions that a rule keeps, each with its reasons."""
    found: dict[int, list[str]] = {}
    numbers = sorted((version.number for version in history), reverse=True)
    for version in history:
        if rule.younger_than is not None and version.created_at >= NOW - rule.younger_than:
            found.setdefault(version.number, []).append(f"younger than {duration_text(rule.younger_than)}")
    for number in numbers[: rule.last]:
        found.setdefault(number, []).append(f"one of the last {rule.last}")
    for name, length in (
        ("yearly", "%Y"),
        ("monthly", "%Y %m"),
        ("weekly", "%G %V"),
        ("daily", "%x"),
        ("hourly", "%x %H"),
    ):
        newest: dict[str, Dated] = {}
        for version in history:
            period = version.created_at.strftime(length)
            newest[period] = max(newest.get(period, version), version, key=lambda v: (v.created_at, v.number))
        ordered = sorted(newest.values(), key=lambda v: v.created_at, reverse=True)
        for version in ordered[: getattr(rule, name)]:
            found.setdefault(version.number, []).append(name)
    return {number: ", ".join(reasons) for number, reasons in found.items()}


def judged_one_by_one(
    versions: Sequence[Dated], pointers: Sequence[PointerRecord], policy: Policy
) -> tuple[dict[int, str], dict[int, str]]:
    """The reasons to keep versions, and the heads that stay only where anything else does."""
    graph: Graph = {version.number: version.parents for version in versions}
    reasons: dict[int, str] = {}
    heads: dict[int, str] = {}
    on_a_branch: set[int] = set()
    for pointer in pointers:
        rule = policy.rule_for(DATASET.name, pointer.name)
        if pointer.is_tag:
            reasons[pointer.version_number] = f"tag {pointer.name}"
        elif rule is not None and rule.heads:
            heads[pointer.version_number] = f"head of {pointer.name}"
        else:
            reasons[pointer.version_number] = f"head of {pointer.name}"
    for pointer in pointers:
        if pointer.base is not None:
            reasons.setdefault(pointer.base, f"base of {pointer.name}")
    histories: list[tuple[str, Rule | None, set[int]]] = []
    for pointer in pointers:
        if not pointer.is_tag:
            reached = reachable(graph, pointer.version_number)
            on_a_branch |= reached
            histories.append((f"on {pointer.name}", policy.rule_for(DATASET.name, pointer.name), reached))
    histories.append(("on no branch", policy.rule_for_rest(DATASET.name), set(graph) - on_a_branch))
    for where, rule, reached in histories:
        history = [version for version in versions if version.number in reached]
        everything = dict.fromkeys(reached, f"{where}, for which there is no rule")
        for number, reason in (everything if rule is None else reasons_of(rule, history)).items():
            reasons.setdefault(number, reason)
    return reasons, heads


counts = st.integers(0, 4)
rules = st.builds(
    lambda branches, last, age, periods, heads: Rule(
        "*", branches, last, timedelta(days=age) if age else None, *periods, heads=heads
    ),
    st.sampled_from(["*", "a*", "b", "c*"]),
    st.integers(1, 4),
    st.integers(0, 40),
    st.tuples(counts, counts, counts, counts, counts),
    st.booleans(),
)


@settings(deadline=None, max_examples=300)
@given(graphs(), st.data(), st.lists(rules, min_size=1, max_size=3))
def test_a_plan_keeps_what_each_rule_keeps_of_each_history(
    graph: Graph, data: st.DataObject, rules: list[Rule]
) -> None:
    moments = st.datetimes(datetime(2025, 11, 1), datetime(2026, 3, 2), timezones=st.just(UTC))
    few = st.sampled_from(data.draw(st.lists(moments, min_size=1, max_size=8)))
    versions = [Dated(n, n, data.draw(few | moments), graph[n]) for n in sorted(graph, reverse=True)]
    numbers = st.sampled_from(sorted(graph))
    names = ["a", "ab", "b", "c", "d"][: data.draw(st.integers(0, 5))]
    pointers = [
        PointerRecord(name, False, 0, data.draw(numbers), None, NOW, data.draw(st.none() | numbers)) for name in names
    ]
    pointers += [
        PointerRecord(name, True, 0, data.draw(numbers), None, NOW, None)
        for name in ["t", "u"][: data.draw(st.integers(0, 2))]
    ]
    policy = Policy(tuple(rules))
    judged = _judge(DATASET, versions, pointers, policy, NOW)
    assert (judged.reasons, judged.heads) == judged_one_by_one(versions, pointers, policy)
