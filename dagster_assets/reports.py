"""What people read."""

import base64
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import dagster as dg
import polars as pl

from dagster_assets.analytics import carrier_delays


@dg.asset(
    key_prefix="reports",
    group_name="reports",
    kinds={"matplotlib"},
    ins={"delays": dg.AssetIn(key=carrier_delays.key)},
    code_version="1",
    description="The punctuality report: a chart of late departures by carrier, and the table behind it.",
)
def punctuality(context: dg.AssetExecutionContext, delays: pl.DataFrame) -> dict[str, Any]:
    ranked = delays.sort("late_share", "carrier", descending=[True, False])
    chart = Path(mkdtemp()) / "punctuality.png"
    _draw(ranked, chart)
    image = base64.b64encode(chart.read_bytes()).decode()
    context.add_output_metadata({"chart": dg.MetadataValue.md(f"![late departures](data:image/png;base64,{image})")})
    return {"chart": chart, "table": ranked}


def _draw(ranked: pl.DataFrame, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    names = ranked["carrier_name"].to_list()[::-1]
    axes.barh(names, [share * 100 for share in ranked["late_share"].to_list()[::-1]], color="#3d6fb6")
    axes.set_xlabel("late departures, percent")
    axes.set_title("Late departures from New York City, 2013")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80, metadata={"Software": None})
