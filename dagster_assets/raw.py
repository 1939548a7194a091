"""Sources: each delivered file as it came. Airports and airlines come in one workbook, which is stored once."""

from pathlib import Path

import dagster as dg

from dagster_assets.deliveries import Deliveries


@dg.asset(
    key_prefix="raw",
    group_name="raw",
    kinds={"csv"},
    description="Every departure from New York City's airports in 2013, as the airports report it (CSV).",
)
def flights(deliveries: Deliveries) -> Path:
    return deliveries.path("flights.csv")


@dg.asset(
    key_prefix="raw",
    group_name="raw",
    kinds={"excel"},
    description="Airports with their coordinates: the sheet `airports` of the partner desk's workbook (Excel).",
)
def airports(deliveries: Deliveries) -> Path:
    return deliveries.path("partners.xlsx")


@dg.asset(
    key_prefix="raw",
    group_name="raw",
    kinds={"excel"},
    description="Names of the carriers: the sheet `airlines` of the same workbook (Excel).",
)
def airlines(deliveries: Deliveries) -> Path:
    return deliveries.path("partners.xlsx")


@dg.asset(
    key_prefix="raw",
    group_name="raw",
    kinds={"json"},
    description="The planes by tail number, from the FAA's registry (JSON lines).",
)
def planes(deliveries: Deliveries) -> Path:
    return deliveries.path("planes.json")


@dg.asset(
    key_prefix="raw",
    group_name="raw",
    kinds={"parquet"},
    description="Hourly weather at the three airports (Parquet).",
)
def weather(deliveries: Deliveries) -> Path:
    return deliveries.path("weather.parquet")
