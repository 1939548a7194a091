"""Drawings as SVG geometry: the lanes of a history, a lineage in columns, sparklines and plots. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from dataset_registry.model.column_lineage import ColumnLineage
from dataset_registry.model.overview import Lineage, LineageNode

# --- history -------------------------------------------------------------------------------------------------------------

LANE_WIDTH = 16
ROW_HEIGHT = 44
_COLORS = 6


@dataclass(frozen=True, slots=True)
class LaneRow:
    """One row of a history: the column of its node, and the paths through the row with their colors."""

    node: int
    color: int
    paths: tuple[tuple[str, int], ...]
    is_merge: bool = False

    @property
    def x(self) -> int:
        """The horizontal position of the node."""
        return _x(self.node)


def lanes(
    versions: Sequence[tuple[int, Sequence[int]]], above: Sequence[tuple[int, int]] = ()
) -> tuple[list[LaneRow], int]:
    """The rows of a history, and its width in pixels.

    `versions` are numbers with their parents, newest first; `above` are edges from newer versions on earlier pages into this
    one, as pairs of a child and a parent.
    """
    open_lanes: list[int | None] = list(dict.fromkeys(parent for _, parent in above))
    widest, rows = len(open_lanes), []
    for number, parents in versions:
        before = list(open_lanes)
        node = open_lanes.index(number) if number in open_lanes else _free(open_lanes)
        paths = []
        for lane, expected in enumerate(before):
            if expected == number:
                paths.append((_curve(lane, 0, node, ROW_HEIGHT // 2), lane % _COLORS))
                open_lanes[lane] = None
            elif expected is not None:
                paths.append((f"M{_x(lane)} 0V{ROW_HEIGHT}", lane % _COLORS))
        open_lanes[node] = None
        for position, parent in enumerate(parents):
            if parent in open_lanes:
                lane = open_lanes.index(parent)
            else:
                lane = node if position == 0 else _free(open_lanes)
                open_lanes[lane] = parent
            paths.append((_curve(node, ROW_HEIGHT // 2, lane, ROW_HEIGHT), lane % _COLORS))
        widest = max(widest, len(open_lanes))
        while open_lanes and open_lanes[-1] is None:
            open_lanes.pop()
        rows.append(LaneRow(node, node % _COLORS, tuple(paths), len(parents) > 1))
    return rows, LANE_WIDTH * (widest + 1)


def _free(open_lanes: list[int | None]) -> int:
    """The first free lane; a new one if all are taken."""
    if None not in open_lanes:
        open_lanes.append(None)
    return open_lanes.index(None)


def _x(lane: int) -> int:
    return LANE_WIDTH * lane + LANE_WIDTH


def _curve(start: int, top: int, end: int, bottom: int) -> str:
    a, b, middle = _x(start), _x(end), (top + bottom) // 2
    return f"M{a} {top}V{bottom}" if a == b else f"M{a} {top}C{a} {middle} {b} {middle} {b} {bottom}"


# --- lineage -------------------------------------------------------------------------------------------------------------

BOX_WIDTH, BOX_HEIGHT = 200, 40
_COLUMN, _LINE = 250, 56
_MARGIN = 12


@dataclass(frozen=True, slots=True)
class Box:
    """A version in a drawn lineage."""

    node: LineageNode
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawn lineage: its size, the boxes, and the paths of the edges."""

    width: int
    height: int
    boxes: Sequence[Box]
    paths: Sequence[str]


def drawn_lineage(lineage: Lineage) -> Drawing:
    """A lineage in columns: inputs on the left of what was produced from them."""
    columns: dict[int, list[LineageNode]] = {}
    for node in lineage.nodes:
        columns.setdefault(node.distance, []).append(node)
    first = min(columns)
    tallest = max(map(len, columns.values()))
    boxes = {}
    for distance, nodes in columns.items():
        top = _MARGIN + (tallest - len(nodes)) * _LINE // 2
        for line, node in enumerate(nodes):
            boxes[node.place] = Box(node, _MARGIN + (distance - first) * _COLUMN, top + line * _LINE)
    paths = []
    for source, target in lineage.edges:
        a, b = boxes[source], boxes[target]
        if a.x == b.x:
            x, bend = a.x + BOX_WIDTH, a.x + BOX_WIDTH + 30
            start, end = a.y + BOX_HEIGHT // 2, b.y + BOX_HEIGHT // 2
            paths.append(f"M{x} {start}C{bend} {start} {bend} {end} {x} {end}")
            continue
        paths.append(_edge(a, b))
    width = 2 * _MARGIN + (max(columns) - first) * _COLUMN + BOX_WIDTH
    return Drawing(width, 2 * _MARGIN + (tallest - 1) * _LINE + BOX_HEIGHT, list(boxes.values()), paths)


@dataclass(frozen=True, slots=True)
class ColumnBox:
    """A column in a drawn column lineage; `dataset` is None for a column of the version itself."""

    dataset: str | None
    column: str
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class ColumnDrawing:
    """A drawn column lineage: its size, the boxes, and the paths of the edges, each with the column that it leads to."""

    width: int
    height: int
    boxes: Sequence[ColumnBox]
    paths: Sequence[tuple[str, str]]


def drawn_columns(lineage: ColumnLineage, most: int = 60) -> ColumnDrawing:
    """Columns of inputs on the left, the first `most` columns made from them on the right."""
    made = [name for name, sources in lineage.items() if sources][:most]
    sources = list(dict.fromkeys((s.dataset, s.column) for name in made for s in lineage[name]))
    line, gap = BOX_HEIGHT + 8, _COLUMN + 60
    tallest = max(len(made), len(sources), 1)
    inputs = {
        source: ColumnBox(*source, _MARGIN, _MARGIN + (tallest - len(sources)) * line // 2 + at * line)
        for at, source in enumerate(sources)
    }
    outputs = {
        name: ColumnBox(None, name, _MARGIN + gap, _MARGIN + (tallest - len(made)) * line // 2 + at * line)
        for at, name in enumerate(made)
    }
    paths = [
        (_edge(inputs[(s.dataset, s.column)], outputs[name]), name)
        for name in made
        for s in dict.fromkeys(lineage[name])
    ]
    height = 2 * _MARGIN + (tallest - 1) * line + BOX_HEIGHT
    return ColumnDrawing(2 * _MARGIN + gap + BOX_WIDTH, height, [*inputs.values(), *outputs.values()], paths)


def _edge(a: Box | ColumnBox, b: Box | ColumnBox) -> str:
    """A curve from the right side of a box to the left side of another."""
    x1, y1, x2, y2 = a.x + BOX_WIDTH, a.y + BOX_HEIGHT // 2, b.x, b.y + BOX_HEIGHT // 2
    middle = (x1 + x2) // 2
    return f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"


# --- plots ---------------------------------------------------------------------------------------------------------------


def sparkline(activity: Mapping[date, int], days: int, today: date) -> list[tuple[int, int, int]]:
    """The bars of a sparkline, 4 pixels a day and 24 high: x, y and height of each day with a value."""
    most = max(activity.values(), default=0)
    bars = []
    for position in range(days):
        count = activity.get(today - timedelta(days=days - 1 - position), 0)
        if count:
            height = max(2, round(22 * count / most))
            bars.append((4 * position, 24 - height, height))
    return bars


def bars(counts: Sequence[int]) -> list[tuple[int, int, int]]:
    """The bars of a histogram, 5 pixels each and 18 high: x, y and height of each range that has values."""
    most = max(counts)
    heights = [max(1, round(18 * count / most)) if count else 0 for count in counts]
    return [(5 * position, 18 - height, height) for position, height in enumerate(heights) if height]


@dataclass(frozen=True, slots=True)
class Plot:
    """A line in a box of 600 × 120 pixels: its path, its points as (x, y, text), and the lowest and highest value."""

    path: str
    points: Sequence[tuple[float, float, str]]
    low: float
    high: float


def plot(values: Sequence[tuple[float, str]]) -> Plot | None:
    """A line through values, from left to right; None if they hardly differ. The axis begins at 0."""
    if not values or max(values)[0] - min(values)[0] <= max(values)[0] / 100:
        return None
    high = max(value for value, _ in values) or 1
    step = 580 / (len(values) - 1)
    points = [
        (round(10 + step * i, 1), round(110 - 100 * value / high, 1), text) for i, (value, text) in enumerate(values)
    ]
    path = "M" + "L".join(f"{x} {y}" for x, y, _ in points)
    return Plot(path, points, min(value for value, _ in values), high)
