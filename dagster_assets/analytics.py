"""What the cleaned tables say together."""

import dagster as dg
import polars as pl

from dagster_assets.clean import clean_flights, clean_partners, clean_weather
from dagster_assets.lineage import column_lineage

MONTHS = dg.MonthlyPartitionsDefinition(start_date="2013-01-01", end_date="2014-01-01")


@dg.asset(
    key_prefix="analytics",
    group_name="analytics",
    kinds={"polars", "parquet"},
    ins={
        "flights": dg.AssetIn(key=clean_flights.key),
        "partners": dg.AssetIn(key=clean_partners.key),
        "weather": dg.AssetIn(key=clean_weather.key),
        "planes": dg.AssetIn(key=["raw", "planes"]),
    },
    code_version="1",
    description="Every flight with its carrier's name, its destination's name, its plane and the weather at departure.",
)
def flights_enriched(
    context: dg.AssetExecutionContext,
    flights: pl.LazyFrame,
    partners: dict[str, pl.DataFrame],
    weather: pl.LazyFrame,
    planes: pl.DataFrame,
) -> pl.LazyFrame:
    own = (
        "scheduled_departure",
        "carrier",
        "flight",
        "tailnum",
        "origin",
        "dest",
        "dep_delay",
        "arr_delay",
        "cancelled",
    )
    context.add_output_metadata(
        column_lineage(
            {name: [("clean/flights", name)] for name in own}
            | {
                "carrier_name": [("clean/partners", "name")],
                "destination": [("clean/partners", "name")],
                "plane_built": [("raw/planes", "year")],
                "seats": [("raw/planes", "seats")],
                "wind_speed": [("clean/weather", "wind_speed")],
                "visibility": [("clean/weather", "visibility")],
            }
        )
    )
    carriers = partners["airlines"].lazy().rename({"name": "carrier_name"})
    destinations = partners["airports"].lazy().select(dest="faa", destination="name")
    fleet = planes.lazy().select("tailnum", plane_built="year", seats="seats")
    hours = weather.select("origin", "hour", "wind_speed", "visibility").unique(
        ["origin", "hour"], keep="first", maintain_order=True
    )
    return (
        flights.select(*own, hour=pl.col("scheduled_departure").dt.truncate("1h"))
        .join(carriers, on="carrier", how="left", maintain_order="left")
        .join(destinations, on="dest", how="left", maintain_order="left")
        .join(fleet, on="tailnum", how="left", maintain_order="left")
        .join(hours, on=["origin", "hour"], how="left", maintain_order="left")
        .drop("hour")
    )


class DelayConfig(dg.Config):
    """When a departure counts as late."""

    late_after_minutes: int = 15


@dg.asset(
    key_prefix="analytics",
    group_name="analytics",
    kinds={"polars", "parquet"},
    ins={"flights": dg.AssetIn(key=flights_enriched.key)},
    code_version="1",
    description="For each carrier: flights, cancellations, late departures and the average delay in minutes.",
)
def carrier_delays(context: dg.AssetExecutionContext, config: DelayConfig, flights: pl.LazyFrame) -> pl.LazyFrame:
    context.add_output_metadata({"late_after_minutes": config.late_after_minutes})
    late = pl.col("dep_delay") > config.late_after_minutes
    return (
        flights.group_by("carrier", "carrier_name")
        .agg(
            flights=pl.len(),
            cancelled=pl.col("cancelled").sum(),
            late_share=late.mean().round(4),
            average_delay=pl.col("dep_delay").mean().round(2),
        )
        .sort("carrier")
    )


@dg.asset_check(
    asset=carrier_delays,
    blocking=True,
    description="Not more than half of a carrier's departures are late: else the limit is wrong, not the carrier.",
)
def late_shares_are_credible(carrier_delays: pl.DataFrame) -> dg.AssetCheckResult:
    most = float(str(carrier_delays["late_share"].max()))
    worst = carrier_delays.filter(pl.col("late_share") > 0.5)
    return dg.AssetCheckResult(
        passed=not worst.height, metadata={"expected": "0.5 or less", "got": most, "carriers": worst.height}
    )


@dg.asset(
    key_prefix="analytics",
    group_name="analytics",
    kinds={"polars", "parquet"},
    ins={"flights": dg.AssetIn(key=flights_enriched.key)},
    partitions_def=MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    metadata={"partition_expr": "day"},
    code_version="1",
    description="For each day and airport: departures, cancellations and the average delay. One partition a month.",
)
def daily_departures(context: dg.AssetExecutionContext, flights: pl.LazyFrame) -> pl.LazyFrame:
    window = context.partition_time_window
    day = pl.col("scheduled_departure").dt.date()
    return (
        flights.filter(day.is_between(window.start.date(), window.end.date(), closed="left"))
        .group_by(day.alias("day"), "origin")
        .agg(
            departures=pl.len(),
            cancelled=pl.col("cancelled").sum(),
            average_delay=pl.col("dep_delay").mean().round(2),
        )
        .sort("day", "origin")
    )
