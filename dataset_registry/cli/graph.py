"""Draw the history of versions as a graph, like `git log --graph` and `jj log`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence


def draw(nodes: Iterable[tuple[int, Sequence[int], str]]) -> Iterator[str]:
    """Lines for versions (number, parents, text), of which no parent comes before its child.

    Each line of history has a column. Where a version has several parents, new columns begin below it (`├─╮`); columns that
    lead to the same version join at once (`├─╯`). The first version of a history ends its column, and a gap follows where
    another history continues in that column.

    As in `git log --graph`, the versions of one line of history follow each other: a version is drawn right after its
    children, not where its number puts it. So the drawing is as wide as lines of history overlap, not as many as there are.
    """
    columns: list[int | None] = []
    ended: int | None = None
    for number, parents, text in _by_line(nodes):
        if number in columns:
            at = columns.index(number)
        else:
            at = _free(columns)
            if at == ended:
                yield _row(columns).rstrip()
        columns[at] = number
        yield f"{_row(columns, at)}  {text}".rstrip()
        ended = None if parents else at
        columns[at] = parents[0] if parents else None
        for parent in parents[1:]:
            new = _free(columns, after=at)
            columns[new] = parent
            yield _joint(columns, at, new, "╮")
        for parent in parents:
            left, *others = (column for column, awaited in enumerate(columns) if awaited == parent)
            for right in reversed(others):
                yield _joint(columns, left, right, "╯")
                columns[right] = None
        _trim(columns)


def _by_line(nodes: Iterable[tuple[int, Sequence[int], str]]) -> Iterator[tuple[int, Sequence[int], str]]:
    """Sort versions so that every child comes before its parents and each line of history is contiguous where possible.

    A depth-first walk: a version waits until all of its children are drawn.
    """
    known = {node[0]: node for node in nodes}
    children: dict[int, list[int]] = defaultdict(list)
    for number, parents, _ in known.values():
        for parent in parents:
            children[parent].append(number)
    for awaited in children.values():
        awaited.reverse()  # the newest child is taken first, from the end
    waiting = list(reversed(known))
    drawn: set[int] = set()
    while waiting:
        number = waiting[-1]
        missing = children[number]
        while missing and missing[-1] in drawn:
            missing.pop()
        if missing:
            waiting.append(missing[-1])
            continue
        waiting.pop()
        if number not in drawn:
            drawn.add(number)
            yield known[number]
            waiting.extend(parent for parent in known[number][1] if parent in known)


def _free(columns: list[int | None], after: int = -1) -> int:
    """The first free column after `after`, which is created if needed."""
    for at in range(after + 1, len(columns)):
        if columns[at] is None:
            return at
    columns.append(None)
    return len(columns) - 1


def _trim(columns: list[int | None]) -> None:
    while columns and columns[-1] is None:
        columns.pop()


def _row(columns: Sequence[int | None], mark: int | None = None) -> str:
    """A line of the columns, with the version in one of them."""
    cells = ["●" if at == mark else " " if waiting is None else "│" for at, waiting in enumerate(columns)]
    return " ".join(cells)


def _joint(columns: Sequence[int | None], left: int, right: int, corner: str) -> str:
    """A line that joins two columns, across those between them."""
    cells = []
    for at, waiting in enumerate(columns):
        if at == left:
            cells.append("├─")
        elif at == right:
            cells.append(corner + " ")
        elif left < at < right:
            cells.append("──" if waiting is None else "┼─")
        else:
            cells.append("  " if waiting is None else "│ ")
    return "".join(cells).rstrip()
