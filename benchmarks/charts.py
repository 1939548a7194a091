"""Charts of a run, as SVG: `charts(result, folder)`."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.data import CHANGES
from benchmarks.peers import LIMIT, PARTICIPANTS
from benchmarks.tables import NEW_BYTES, US, middle, percent, ratio

Result = Mapping[str, Any]
OURS, THEIRS, PHYSICS = "#0f766e", "#cbd5e1", "#b91c1c"
TEXT = "#334155"
SETTINGS = {
    "svg.hashsalt": "field",  # the same result gives the same file
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": THEIRS,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}


def charts(result: Result, folder: Path) -> list[Path]:
    """Draw what the result has the figures for: `store.svg`, `commits.svg`, `new-bytes.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with mpl.rc_context(SETTINGS):
        for name, draw in (("store", _store), ("commits", _commits), ("new-bytes", _new_bytes)):
            figure = Figure(figsize=(8, 4.2), layout="constrained")
            if draw(result, figure.subplots()):
                target = folder / f"{name}.svg"
                figure.savefig(target, metadata={"Date": None})
                drawn.append(target)
    return drawn


def _store(result: Result, axes: Axes) -> bool:
    """Everybody's time for a new file, over hashing it once."""
    found = _found(result, ratio("store"))
    if len(found) < 2:
        return False
    found.pop(LIMIT, None)
    names = sorted(found, key=lambda name: -found[name])
    bars = axes.barh(names, [found[name] for name in names], color=[_color(name) for name in names])
    axes.bar_label(bars, [f"{found[name]:.1f}" for name in names], padding=3)
    axes.axvline(1, color=PHYSICS, linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(0.9, 1.6 * max(found.values()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_title("Storing a new file, times hashing it once (red); * does not sync", loc="left")
    axes.set_yticks(range(len(names)), [_marked(result, name) for name in names])
    axes.tick_params(axis="y", length=0)
    return True


def _commits(result: Result, axes: Axes) -> bool:
    """Milliseconds of a tiny commit, by how many versions there are."""
    levels = [n for n in (100, 300, 1000, 10_000) if f"commit at {n}" in result["measured"]]
    if not levels:
        return False
    for name in [who for who in PARTICIPANTS if who in result["participants"]]:
        points = [(n, middle(f"commit at {n}", unit=0.001)(result, name)) for n in levels]
        known = [(n, ms) for n, ms in points if ms is not None]
        if known:
            numbers, milliseconds = zip(*known, strict=True)
            ours = name.startswith(US)
            color = PHYSICS if name == LIMIT else OURS if ours else "#94a3b8"
            axes.plot(numbers, milliseconds, marker="o", color=color, linewidth=2.5 if ours else 1.2, markersize=4)
            axes.annotate(
                _marked(result, name), (numbers[-1], milliseconds[-1]), (6, -3), textcoords="offset points", color=color
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(80, levels[-1] * 3)
    axes.set_xticks(levels, [f"{n:,}" for n in levels])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.set_xlabel("versions there are")
    axes.set_title("A tiny commit, milliseconds; one synced write in red; * does not sync", loc="left")
    return True


def _new_bytes(result: Result, axes: Axes) -> bool:
    """Percent of a table that is new when 1 % of its rows change: a square for everybody and each change."""
    figures = {change: _found(result, percent(f"lineitem {change}")) for change in CHANGES}
    names = [name for name in PARTICIPANTS if any(name in found for found in figures.values())]
    if not names:
        return False
    cells = [[figures[change].get(name, float("nan")) for change in CHANGES] for name in names]
    axes.imshow([[min(value, 100) for value in row] for row in cells], cmap="GnBu", vmin=-10, vmax=130, aspect="auto")
    for y, row in enumerate(cells):
        for x, value in enumerate(row):
            if not isnan(value):
                met = names[y] == US and value <= NEW_BYTES[CHANGES[x]]
                text = f"{value:.1f}" if value < 10 else f"{value:.0f}"
                color = "white" if value > 60 else TEXT
                axes.text(x, y, text, ha="center", va="center", color=color, weight="bold" if met else "normal")
    axes.set_xticks(range(len(CHANGES)), [f"{change}\n(target {NEW_BYTES[change]:g})" for change in CHANGES])
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("New bytes when 1 % of the rows change, percent of the table", loc="left")
    return True


def _found(result: Result, figure: Any) -> dict[str, float]:
    """Everybody's figure, of those who have one."""
    all_figures = {name: figure(result, name) for name in PARTICIPANTS if name in result["participants"]}
    return {name: value for name, value in all_figures.items() if value is not None}


def _color(name: str) -> str:
    return OURS if name.startswith(US) else THEIRS


def _marked(result: Result, name: str) -> str:
    return name if name == LIMIT or result["participants"][name]["durable"] else f"{name} *"
