"""The history of versions as a drawing, in the manner of `git log --graph` and `jj log`."""

from collections.abc import Iterable, Iterator, Sequence


def draw(nodes: Iterable[tuple[int, Sequence[int], str]]) -> Iterator[str]:
    """Lines for versions (number, parents, text), of which no parent comes before its child.

    Each line of history has a column; where a version has several children their columns join above it (`├─╯`), where it has
    several parents new columns begin below it (`├─╮`).
    """
    columns: list[int | None] = []
    for number, parents, text in nodes:
        mine = [at for at, waiting in enumerate(columns) if waiting == number]
        at = mine[0] if mine else _free(columns)
        for other in reversed(mine[1:]):
            yield _joint(columns, at, other, "╯")
            columns[other] = None
        columns[at] = number
        _trim(columns)
        yield f"{_row(columns, {at: '●'})}  {text}".rstrip()
        columns[at] = parents[0] if parents else None
        for parent in parents[1:]:
            new = _free(columns, after=at)
            columns[new] = parent
            yield _joint(columns, at, new, "╮")
        _trim(columns)


def _free(columns: list[int | None], after: int = -1) -> int:
    """The first column that nothing waits in, behind `after`; it is there from now on."""
    for at in range(after + 1, len(columns)):
        if columns[at] is None:
            return at
    columns.append(None)
    return len(columns) - 1


def _trim(columns: list[int | None]) -> None:
    while columns and columns[-1] is None:
        columns.pop()


def _row(columns: Sequence[int | None], marks: dict[int, str]) -> str:
    cells = [marks.get(at, " " if waiting is None else "│") for at, waiting in enumerate(columns)]
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
