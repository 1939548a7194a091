"""Cleaned tables: one type and one meaning for every column."""

import dagster as dg
import polars as pl

from dagster_assets.lineage import column_lineage
from dataset_registry import Version

_FLIGHT_COLUMNS = ("carrier", "flight", "tailnum", "origin", "dest", "dep_delay", "arr_delay", "air_time", "distance")


@dg.asset(
    key=["clean", "flights"],
    group_name="clean",
    kinds={"polars", "parquet"},
    ins={"flights": dg.AssetIn(key=["raw", "flights"])},
    code_version="1",
    description="Flights with one scheduled departure time, delays in minutes, and whether they were cancelled.",
)
def clean_flights(context: dg.AssetExecutionContext, flights: pl.DataFrame) -> pl.DataFrame:
    context.add_output_metadata(
        column_lineage(
            {name: [("raw/flights", name)] for name in _FLIGHT_COLUMNS}
            | {
                "scheduled_departure": [("raw/flights", name) for name in ("year", "month", "day", "hour", "minute")],
                "cancelled": [("raw/flights", "dep_time")],
            }
        )
    )
    departure = pl.datetime("year", "month", "day", "hour", "minute")
    return flights.select(
        departure.alias("scheduled_departure"), *_FLIGHT_COLUMNS, pl.col("dep_time").is_null().alias("cancelled")
    )


@dg.asset(
    key=["clean", "partners"],
    group_name="clean",
    kinds={"polars", "parquet"},
    ins={
        "airports": dg.AssetIn(key=["raw", "airports"]),
        "airlines": dg.AssetIn(key=["raw", "airlines"]),
    },
    code_version="1",
    description="Partners in two tables: airports by FAA code, carriers by their two letters.",
)
def clean_partners(airports: Version, airlines: Version) -> dict[str, pl.DataFrame]:
    return {
        "airports": airports.to_polars(sheet="airports").select("faa", "name", "lat", "lon", "tzone"),
        "airlines": airlines.to_polars(sheet="airlines").select("carrier", "name"),
    }


@dg.asset(
    key=["clean", "weather"],
    group_name="clean",
    kinds={"polars", "parquet"},
    ins={"weather": dg.AssetIn(key=["raw", "weather"])},
    code_version="1",
    description="Hourly weather in metric units.",
)
def clean_weather(context: dg.AssetExecutionContext, weather: pl.LazyFrame) -> pl.LazyFrame:
    context.add_output_metadata(
        column_lineage(
            {
                "origin": [("raw/weather", "origin")],
                "hour": [("raw/weather", name) for name in ("year", "month", "day", "hour")],
                "temperature": [("raw/weather", "temp")],
                "wind_speed": [("raw/weather", "wind_speed")],
                "precipitation": [("raw/weather", "precip")],
                "visibility": [("raw/weather", "visib")],
            }
        )
    )
    return weather.select(
        "origin",
        pl.datetime("year", "month", "day", "hour").alias("hour"),
        ((pl.col("temp") - 32) * 5 / 9).round(1).alias("temperature"),
        (pl.col("wind_speed") * 1.609344).round(1).alias("wind_speed"),
        (pl.col("precip") * 25.4).round(2).alias("precipitation"),
        (pl.col("visib") * 1.609344).round(1).alias("visibility"),
    )


@dg.asset_check(
    asset=clean_flights, description="No plane leaves one airport for the same one, and delays are credible."
)
def flights_are_credible(clean_flights: pl.DataFrame) -> dg.AssetCheckResult:
    circular = clean_flights.filter(pl.col("origin") == pl.col("dest")).height
    worst = clean_flights["dep_delay"].max()
    return dg.AssetCheckResult(
        passed=circular <= 1 and isinstance(worst, int | float) and worst < 24 * 60,
        metadata={"circular_flights": circular, "longest_delay_minutes": float(str(worst))},
    )
