"""Walks over the version graph, as pure functions over iterables of nodes.

A parent always has a smaller number than its child, so going down the numbers of a dataset is a topological order;
every walk here is one descending scan that stops as soon as it may.
"""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Node:
    """A version in the graph: its number and the numbers of its parents."""

    number: int
    parents: tuple[int, ...]


class Numbered(Protocol):
    """A version with its parents: a `Node` or a full record."""

    @property
    def number(self) -> int: ...
    @property
    def parents(self) -> tuple[int, ...]: ...


_Version = TypeVar("_Version", bound=Numbered)


def ancestors(start: int, descending: Iterable[_Version]) -> Iterator[_Version]:
    """`start` and its ancestors, newest first. `descending` yields the nodes from `start` downwards."""
    wanted = {start}
    for node in descending:
        if node.number in wanted:
            wanted.discard(node.number)
            wanted.update(node.parents)
            yield node
        if not wanted:
            return


def reached_from(starts: Sequence[int], descending: Iterable[Numbered]) -> dict[int, int]:
    """For each version, the starts that reach it as bits: bit i for `starts[i]`. Versions without one may be missing.

    One scan for any number of starts. `descending` yields all versions, newest first.
    """
    reached: dict[int, int] = defaultdict(int)
    for index, start in enumerate(starts):
        reached[start] |= 1 << index
    for node in descending:
        if histories := reached.get(node.number):
            for parent in node.parents:
                reached[parent] |= histories
    return reached


def only_reached_from(start: int, others: Sequence[int], descending: Iterable[Numbered]) -> int:
    """How many versions `start` reaches, itself included, that none of the others does. `descending` is as above."""
    return sum(histories == 1 for histories in reached_from([start, *others], descending).values())


def first_parent(start: int, steps: int, descending: Iterable[Node]) -> int | None:
    """The number of the version `steps` first-parent steps before `start`, None when the history is shorter."""
    at: int | None = start
    if steps == 0:
        return at
    for node in descending:
        if node.number == at:
            at = node.parents[0] if node.parents else None
            steps -= 1
            if at is None or steps == 0:
                return at
    return None


def merge_bases(left: int, right: int, descending: Iterable[Node]) -> list[int]:
    """The best common ancestors of two versions: those that are no ancestor of another one, newest first.

    One in most histories, several after criss-cross merges, none when the histories are unrelated. `descending`
    yields the nodes from the larger of the two downwards. This is git's paint-down (`commit-reach.c`).
    """
    from_left, from_right, stale = 1, 2, 4
    paint = {left: from_left}
    paint[right] = paint.get(right, 0) | from_right
    bases: list[int] = []
    for node in descending:
        flags = paint.pop(node.number, 0)
        if flags == from_left | from_right:
            bases.append(node.number)
            flags |= stale
        if flags:
            for parent in node.parents:
                paint[parent] = paint.get(parent, 0) | flags
        if all(flags & stale for flags in paint.values()):
            break
    return bases


def splice(version: int, parents: Mapping[int, tuple[int, ...]], removed: Container[int]) -> tuple[int, ...]:
    """The parents of a version after other versions are removed: the nearest kept ancestors along every path, in order.

    `parents` has the parents of the version and of all removed versions.
    """
    found: dict[int, None] = {}
    seen: set[int] = set()
    waiting = list(reversed(parents[version]))
    while waiting:
        at = waiting.pop()
        if at not in removed:
            found[at] = None
        elif at not in seen:
            seen.add(at)
            waiting.extend(reversed(parents[at]))
    return tuple(found)
