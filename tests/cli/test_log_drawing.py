"""Drawings of histories say which version came from which: each is read back by its strokes alone."""

from collections.abc import Iterable
from random import Random

import pytest

from dataset_registry.cli import graph

Graph = dict[int, list[int]]

_UP = frozenset("│├╯┼●")
_DOWN = frozenset("│├╮┼●")


def draw(history: Graph) -> list[str]:
    newest_first = sorted(history.items(), reverse=True)
    return list(graph.draw((number, parents, str(number)) for number, parents in newest_first))


def read_back(lines: Iterable[str]) -> Graph:
    """Each version with the versions that its lines lead down to, as a reader sees it who knows nothing but the strokes.

    A stroke that leads down goes on where the sign right below has a stroke up. Lines cross in `┼`. From `├` a line goes on
    down; at the other end of its stroke `╮` begins a further line of the same version, and `╯` is a line that joins it.
    """
    parents: Graph = {}
    # By position the versions whose lines come down there.
    above: dict[int, list[int]] = {}
    for line in lines:
        drawing = line.rstrip("0123456789")
        below: dict[int, list[int]] = {}
        for position, sign in enumerate(drawing):
            arriving = above.get(position, []) if sign in _UP else []
            assert arriving or sign not in _UP - {"●"}, f"a line from nowhere in {line!r}"
            if sign == "●":
                number = int(line[len(drawing) :])
                parents[number] = []
                for child in arriving:
                    parents[child].append(number)
                below[position] = [number]
            elif sign == "╮":
                left = drawing.rindex("├", 0, position)
                below[position] = list(below[left])
            elif sign == "╯":
                left = drawing.rindex("├", 0, position)
                below[left] = below[left] + arriving
            elif sign in _DOWN:
                below[position] = arriving
        above = below
    return parents


def as_sets(history: Graph) -> dict[int, list[int]]:
    return {number: sorted(parents) for number, parents in history.items()}


def random_history(random: Random, root_share: float) -> Graph:
    history: Graph = {1: []}
    for number in range(2, random.randint(3, 16)):
        count = 0 if random.random() < root_share else random.choice((1, 1, 1, 2, 2, 3))
        history[number] = random.sample(range(1, number), min(count, number - 1))
    return history


@pytest.mark.parametrize("count", [500, pytest.param(4_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("root_share", [0.0, 0.25])
def test_a_drawing_has_the_edges_of_its_history_and_no_others(root_share: float, count: int) -> None:
    random = Random(1)
    histories = [random_history(random, root_share) for _ in range(count)]
    misread = [history for history in histories if as_sets(read_back(draw(history))) != as_sets(history)]
    assert not misread, misread[0]


@pytest.mark.parametrize(
    ("history", "drawing"),
    [
        ({}, []),
        ({2: [1], 1: []}, ["●  2", "●  1"]),
        ({4: [2, 3], 3: [1], 2: [1], 1: []}, ["●  4", "├─╮", "│ ●  3", "● │  2", "├─╯", "●  1"]),
        ({5: [2], 4: [3], 3: [1], 2: [1], 1: []}, ["●  5", "●  2", "│ ●  4", "│ ●  3", "├─╯", "●  1"]),
        # A parent that is not among the versions: the line goes on below.
        ({3: [2], 2: [1]}, ["●  3", "●  2"]),
        # Two histories.
        ({4: [2], 3: [1], 2: [], 1: []}, ["●  4", "●  2", "", "●  3", "●  1"]),
        # A root above another head, beside a line that goes on: 4 leads to 2 in the first column.
        (
            {6: [2, 3], 5: [1], 4: [2], 3: [], 2: [1], 1: []},
            ["●  6", "├─╮", "│ ●  3", "│", "│ ●  4", "├─╯", "●  2", "│ ●  5", "├─╯", "●  1"],
        ),
    ],
)
def test_drawings(history: Graph, drawing: list[str]) -> None:
    assert draw(history) == drawing


def test_branches_that_do_not_overlap_share_a_column() -> None:
    """100 versions, and a branch of one version from each of 40, committed after all of them."""
    history: Graph = {number: [number - 1] if number > 1 else [] for number in range(1, 101)}
    history |= {100 + fork: [fork] for fork in range(1, 41)}
    assert max(map(len, draw(history))) == len("│ ●  140")
    assert as_sets(read_back(draw(history))) == as_sets(history)
