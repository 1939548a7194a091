"""Reads that no sequence of runs could have made, against all sequences that there are."""

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_registry.model.publishing import Place, impossible

Inputs = dict[Place, list[Place]]


@st.composite
def reads(draw: st.DrawFn) -> Inputs:
    """Up to six versions of three datasets in linear histories, each with inputs of other datasets."""
    counts = draw(st.tuples(*[st.integers(1, 2)] * 3))
    places = [(dataset, number) for dataset, count in enumerate(counts) for number in range(1, count + 1)]
    found: Inputs = {}
    for place in places:
        others = [other for other in places if other[0] != place[0]]
        found[place] = draw(st.lists(st.sampled_from(others), max_size=2, unique=True))
    return found


def is_possible(inputs: Inputs) -> bool:
    """Whether the versions can be made in some order, each from the newest versions of its inputs at that time."""
    for order in permutations(inputs):
        made: dict[int, int] = {}
        for place in order:
            is_next = place[1] == made.get(place[0], 0) + 1
            if not is_next or any(made.get(source[0]) != source[1] for source in inputs[place]):
                break
            made[place[0]] = place[1]
        else:
            return True
    return False


@settings(max_examples=400, deadline=None)
@given(reads())
def test_reads_are_impossible_exactly_where_no_order_of_runs_makes_them(inputs: Inputs) -> None:
    ancestors = {place: range(1, place[1] + 1) for place in inputs}
    assert (not impossible(inputs, ancestors)) == is_possible(inputs), inputs


def test_the_reads_of_a_diamond_whose_sides_saw_different_sources_are_named() -> None:
    raw1, raw2, left, right, top = (0, 1), (0, 2), (1, 1), (2, 1), (3, 1)
    inputs: Inputs = {raw1: [], raw2: [], left: [raw1], right: [raw2], top: [left, right]}
    ancestors = {place: range(1, place[1] + 1) for place in inputs}
    assert impossible(inputs, ancestors) == [], "left ran before raw changed, right after"
    inputs[top] = [left, right, raw1]
    assert (top, raw1) in impossible(inputs, ancestors)
