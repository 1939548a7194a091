"""`python -m benchmarks.pages`: tables and charts of the documentation, from the newest results of each benchmark.

A table stands between `<!-- name -->` and `<!-- /name -->`; what has no result yet stays as it is.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.changes import TARGETS
from benchmarks.charts import charts
from benchmarks.data import CHANGES
from benchmarks.peers import PARTICIPANTS

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
Found = Mapping[str, Any]


def main() -> None:
    """Write the tables of the pages again."""
    for name, (benchmark, render) in PARTS.items():
        results = sorted(RESULTS.glob(f"*-{benchmark}.json"))
        if results:
            found = json.loads(results[-1].read_text())
            if benchmark == "field":  # each piece of work from the newest run that had it
                for older in map(json.loads, map(Path.read_text, results[-2::-1])):
                    found |= {name: older[name] | found[name] for name in ("measured", "participants")}
            page = DOCS / ("query-plans.md" if name == "plans" else "performance.md")
            page.write_text(_between(page.read_text(), name, "\n".join(render(found))))
            if name == "field":
                charts(found, DOCS / "charts")


def _between(text: str, name: str, content: str) -> str:
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    assert pattern.search(text), f"the page has no place for {name}"
    return pattern.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", text)


def _table(headings: Sequence[str], rows: Iterator[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|" + "---|" * len(headings)
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |"


def _plain(text: str) -> str:
    """Without the markup of rich."""
    return re.sub(r"\[/?[a-z ]*\]", "", text).replace("*", "\\*")


def _field(found: Found) -> Iterator[str]:
    rows = (
        [*map(_plain, cells), "<br>".join(f"{t}: **{v}**" for t, v in zip(targets, verdicts, strict=True))]
        for cells, targets, verdicts in tables.lines(found)
    )
    return _table((*tables.HEADINGS, "target"), rows)


def _new_bytes(found: Found) -> Iterator[str]:
    def rows() -> Iterator[Sequence[object]]:
        for name in ("lineitem", "flights"):
            for who in PARTICIPANTS:
                figures = [tables.percent(f"{name} {change}")(found, who) for change in CHANGES]
                if any(figure is not None for figure in figures):
                    yield [name, who, *("-" if figure is None else f"{figure:.1f}" for figure in figures)]

    return _table(("table", "who", *CHANGES), rows())


def _changes(found: Found) -> Iterator[str]:
    def rows() -> Iterator[Sequence[object]]:
        for row in found["rows"]:
            cells = (f"{row[c]['of a default file']} ({row[c]['parts touched']})" for c in CHANGES)
            key = "declared" if row["key"] else "none"
            yield [
                row["table"],
                key,
                row.get("stored as", row.get("kept as")),
                f"{row['size']} x",
                f"{row['write']} x",
                *cells,
            ]
        yield ["target", "", "", "≤ 1.05 x", "≤ 1.25 x", *(f"≤ {target:g}" for target in TARGETS.values())]

    return _table(("table", "key", "stored as", "size", "write", *CHANGES), rows())


def _reads(found: Found) -> Iterator[str]:
    rows = ([r["read"], r["kept as"], f"{r['raw s']} s", f"{r['ours s']} s", f"{r['x']} x"] for r in found["reads"])
    return _table(("read", "stored as", "raw file", "ours", ""), rows)


def _engines(found: Found) -> Iterator[str]:
    rows = (
        [e["engine"], f"{e['ours']['rows']:,}", f"{e['raw']['seconds']:.3f} s", f"{e['ours']['seconds']:.3f} s"]
        for e in found["engines"]
        if "error" not in e
    )
    return _table(("engine", "rows", "raw file", "`uris()` of the recipes"), rows)


def _stream(found: Found) -> Iterator[str]:
    yield (
        f"{found['arrow_gb']:g} GB of Arrow in {found['seconds']:g} s ({found['gb_per_second']:g} GB/s), "
        f"{found['rows']:,} rows in {found['parts']:,} parts of {found['stored_gb']:g} GB together, with at most "
        f"{found['peak_rss_mb']:,} MB of memory, of which {found['reading_alone_rss_mb']:,} MB are the reading of the source."
    )


def _growth(found: Found) -> Iterator[str]:
    names = list(found["levels"][0]["ms"])
    by_catalog = {c: [row for row in found["levels"] if row["catalog"] == c] for c in ("SQLite", "PostgreSQL")}

    def rows() -> Iterator[Sequence[object]]:
        for name in names:
            cells: list[object] = [name]
            for catalog, levels in by_catalog.items():
                cells.append(" → ".join(f"{row['ms'][name]:.2f}" for row in levels))
                cells.append(f"{found['exponents'][catalog][name]:+.2f}")
            yield cells

    sizes = ", ".join(f"{row['entries']:,}" for row in by_catalog["SQLite"])
    last = by_catalog["SQLite"][-1]
    largest = f"{last['datasets']:,} datasets and {last['versions']:,} versions"
    yield f"Milliseconds in catalogs of {sizes} entries; the largest has {largest}."
    yield ""
    yield from _table(("operation", "SQLite", "exponent", "PostgreSQL", "exponent"), rows())


def _row_bytes(found: Found) -> Iterator[str]:
    rows = (
        (name, f"{kept['rows']:,}", f"{kept['bytes']:.0f}")
        for name, kept in found["bytes of a row"].items()
        if kept["rows"]
    )
    return _table(("table", "rows", "bytes of a row, with its indexes"), rows)


def _scale(found: Found) -> Iterator[str]:
    names = [name for name, value in found["costs"][0].items() if isinstance(value, dict)]
    rows = (
        [c["catalog"], f"{c['versions']:,}", f"{c['components']:,}"]
        + [f"{c[name]['ms']:.2f} ms ({c[name]['touched']:,})" for name in names]
        for c in found["costs"]
    )
    return _table(("catalog", "versions", "components", *names), rows)


def _plans(found: Found) -> Iterator[str]:
    rows = ([p["catalog"], p["work"], p["statement"], f"`{p['plan']}`"] for p in found["plans"] if p["plan"])
    return _table(("catalog", "work", "statement", "plan"), rows)


def _counts(found: Found) -> Iterator[str]:
    before = json.loads(sorted(RESULTS.glob("*-counts-before.json"))[-1].read_text())
    names = list(next(iter(found.values())))
    rows = (
        [work, *(f"{before[work][name]:g} → {counted[name]:g}" if name in counted else "" for name in names)]
        for work, counted in found.items()
    )
    return _table(("operation", *names), rows)


PARTS: Mapping[str, tuple[str, Callable[[Found], Iterator[str]]]] = {
    "field": ("field", _field),
    "new-bytes": ("field", _new_bytes),
    "counts": ("counts", _counts),
    "changes": ("changes", _changes),
    "reads": ("engines", _reads),
    "engines": ("engines", _engines),
    "stream": ("stream", _stream),
    "scale": ("scale", _scale),
    "growth": ("growth", _growth),
    "row-bytes": ("growth", _row_bytes),
    "plans": ("plans", _plans),
}
"""By the name of the place in the page: the benchmark, and what makes Markdown of its result."""

if __name__ == "__main__":
    sys.exit(main())
