"""The drawings of histories and lineages."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_registry.model.column_lineage import ColumnSource
from dataset_registry.model.overview import Lineage, LineageNode
from dataset_registry.server.pages.graphs import (
    LANE_WIDTH,
    ROW_HEIGHT,
    bars,
    drawn_columns,
    drawn_lineage,
    lanes,
    plot,
    sparkline,
)

History = list[tuple[int, tuple[int, ...]]]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Versions, newest first, each with up to three older parents."""
    count = draw(st.integers(1, 14))
    found = []
    for number in range(count, 0, -1):
        parents = st.lists(st.integers(1, number - 1), max_size=3, unique=True) if number > 1 else st.just([])
        found.append((number, tuple(draw(parents))))
    return found


def ends(path: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a path begins and ends."""
    start, _, rest = path[1:].partition("V" if "V" in path else "C")
    x, y = map(int, start.split())
    return (x, y), (x, int(rest)) if "V" in path else tuple(map(int, rest.split()[-2:]))  # type: ignore[return-value]


def reached(history: History, above: list[tuple[int, int]] | None = None) -> set[tuple[int, int]]:
    """The edges that the drawing of a history shows: from each node down the paths to the nodes where they end."""
    rows, _ = lanes(history, above or [])
    middle, found = ROW_HEIGHT // 2, set()
    for at, (number, _) in enumerate(history):
        waiting = [(at, (rows[at].x, middle))]
        while waiting:
            row, point = waiting.pop()
            for path, _ in rows[row].paths:
                start, end = ends(path)
                if start != point:
                    continue
                if end[1] == ROW_HEIGHT:
                    if row + 1 < len(rows):
                        waiting.append((row + 1, (end[0], 0)))
                else:
                    found.add((number, history[row][0]))
    return found


@given(histories())
def test_the_lanes_connect_each_version_with_its_parents_and_nothing_else(history: History) -> None:
    wanted = {(number, parent) for number, parents in history for parent in parents}
    # Two edges into one version may share a lane from where they meet.
    shown = reached(history)
    assert wanted <= shown
    assert {parent for _, parent in shown} == {parent for _, parent in wanted}
    rows, width = lanes(history)
    assert all(0 < row.x < width for row in rows)
    assert [row.is_merge for row in rows] == [len(parents) > 1 for _, parents in history]


@given(histories(), st.data())
def test_a_later_page_begins_with_the_lanes_of_the_page_before(history: History, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(history) - 1))
    page = history[at:]
    above = [(number, parent) for number, parents in history[:at] for parent in parents if parent <= page[0][0]]
    rows, _ = lanes(page, above)
    for _, parent in above:
        row = rows[[number for number, _ in page].index(parent)]
        assert any(ends(path)[1] == (row.x, ROW_HEIGHT // 2) for path, _ in row.paths)


def test_a_line_of_versions_is_one_lane() -> None:
    rows, width = lanes([(3, (2,)), (2, (1,)), (1, ())])
    assert {row.node for row in rows} == {0}
    assert width == 2 * LANE_WIDTH


def test_a_lineage_stands_in_columns_from_inputs_to_outputs() -> None:
    nodes = [
        LineageNode(("a", 1), 0),
        LineageNode(("raw", 1), -1),
        LineageNode(("other", 2), -1),
        LineageNode(("b", 1), 1),
    ]
    edges = [(("raw", 1), ("a", 1)), (("other", 2), ("a", 1)), (("a", 1), ("b", 1)), (("raw", 1), ("other", 2))]
    drawing = drawn_lineage(Lineage(nodes, edges))
    x = {box.node.place[0]: box.x for box in drawing.boxes}
    assert x["raw"] == x["other"] < x["a"] < x["b"]
    assert len({(box.x, box.y) for box in drawing.boxes}) == 4
    assert len(drawing.paths) == 4
    assert all(box.x + 200 <= drawing.width and box.y + 40 <= drawing.height for box in drawing.boxes)


def test_sparklines_and_plots_show_what_changed() -> None:
    bars = sparkline({date(2026, 11, 30): 4, date(2026, 11, 1): 1, date(2025, 1, 1): 9}, 30, date(2026, 11, 30))
    assert [(x, y + height) for x, y, height in bars] == [(0, 24), (116, 24)]
    assert bars[1][2] > bars[0][2]
    assert plot([]) is None
    assert plot([(5, "v1")]) is None
    assert plot([(500, "v1"), (501, "v2")]) is None
    found = plot([(0, "v1"), (10, "v2")])
    assert found is not None
    assert (found.low, found.high, [text for *_, text in found.points]) == (0, 10, ["v1", "v2"])


@pytest.mark.parametrize("count", [2, 60])
def test_a_plot_stays_in_its_box(count: int) -> None:
    found = plot([(i * 1e12, str(i)) for i in range(count)])
    assert found is not None
    assert all(0 <= x <= 600 and 0 <= y <= 120 for x, y, _ in found.points)


def test_columns_stand_beside_the_columns_that_they_were_made_from() -> None:
    lineage = {
        "total": (ColumnSource("orders", "price"), ColumnSource("orders", "count"), ColumnSource("orders", "price")),
        "price": (ColumnSource("orders", "price"),),
        "constant": (),
    }
    drawing = drawn_columns(lineage)
    assert [(box.dataset, box.column) for box in drawing.boxes] == [
        ("orders", "price"),
        ("orders", "count"),
        (None, "total"),
        (None, "price"),
    ]
    assert [name for _, name in drawing.paths] == ["total", "total", "price"]
    assert all(box.x + 200 <= drawing.width and box.y + 40 <= drawing.height for box in drawing.boxes)
    assert drawn_columns({}).paths == []


def test_the_bars_of_a_histogram_stand_on_one_line() -> None:
    assert bars([4, 0, 1000, 1]) == [(0, 17, 1), (10, 0, 18), (15, 17, 1)]
