"""Walks over the version graph, against brute force."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_registry.model.history import Node, ancestors, first_parent, merge_bases, reached_from

Graph = dict[int, tuple[int, ...]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph: Graph = {1: ()}
    for number in range(2, draw(st.integers(2, 24))):
        parents = draw(st.lists(st.integers(1, number - 1), unique=True, max_size=3))
        graph[number] = tuple(parents)
    return graph


def below(graph: Graph, number: int) -> list[Node]:
    return [Node(n, graph[n]) for n in sorted(graph, reverse=True) if n <= number]


def reachable(graph: Graph, start: int) -> set[int]:
    found, wanted = set(), [start]
    while wanted:
        if (number := wanted.pop()) not in found:
            found.add(number)
            wanted += graph[number]
    return found


@settings(deadline=None)
@given(graphs(), st.data())
def test_merge_bases_are_the_common_ancestors_that_no_other_one_comes_from(graph: Graph, data: st.DataObject) -> None:
    left, right = (data.draw(st.sampled_from(sorted(graph))) for _ in range(2))
    common = reachable(graph, left) & reachable(graph, right)
    best = {a for a in common if not any(a in reachable(graph, b) for b in common if b != a)}
    assert merge_bases(left, right, below(graph, max(left, right))) == sorted(best, reverse=True)


@settings(deadline=None)
@given(graphs(), st.data())
def test_history_is_all_that_a_version_came_from_newest_first(graph: Graph, data: st.DataObject) -> None:
    start = data.draw(st.sampled_from(sorted(graph)))
    assert [n.number for n in ancestors(start, below(graph, start))] == sorted(reachable(graph, start), reverse=True)


@settings(deadline=None)
@given(graphs(), st.data())
def test_the_histories_of_several_versions_are_found_in_one_scan(graph: Graph, data: st.DataObject) -> None:
    starts = data.draw(st.lists(st.sampled_from(sorted(graph)), max_size=5))
    histories = reached_from(starts, below(graph, max(graph)))
    for index, start in enumerate(starts):
        assert {number for number in graph if histories.get(number, 0) >> index & 1} == reachable(graph, start)


def test_a_criss_cross_has_two_merge_bases() -> None:
    graph: Graph = {1: (), 2: (1,), 3: (1,), 4: (2, 3), 5: (3, 2)}
    assert merge_bases(4, 5, below(graph, 5)) == [3, 2]


def test_unrelated_histories_have_no_merge_base() -> None:
    assert merge_bases(1, 2, below({1: (), 2: ()}, 2)) == []


def test_steps_back_follow_the_first_parent_and_end_where_history_does() -> None:
    graph: Graph = {1: (), 2: (), 3: (1,), 4: (3, 2)}
    assert first_parent(4, 0, below(graph, 4)) == 4
    assert first_parent(4, 2, below(graph, 4)) == 1
    assert first_parent(4, 3, below(graph, 4)) is None


def test_a_walk_stops_when_it_has_what_it_needs() -> None:
    def endless() -> "list[Node]":
        yield Node(9, (8,))  # type: ignore[misc]
        yield Node(8, ())  # type: ignore[misc]
        raise AssertionError("read on")

    assert [n.number for n in ancestors(9, endless())] == [9, 8]
