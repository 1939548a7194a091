"""Declaring which columns come from which."""

from collections.abc import Mapping, Sequence

import dagster as dg


def column_lineage(columns: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, dg.TableColumnLineage]:
    """The metadata that declares it: for each column the (asset, column) pairs it is made of, an asset as `raw/flights`."""
    return {
        "dagster/column_lineage": dg.TableColumnLineage(
            {
                column: [dg.TableColumnDep(dg.AssetKey(asset.split("/")), source) for asset, source in sources]
                for column, sources in columns.items()
            }
        )
    }
