"""One value for several partitions: a table is split by the asset's `partition_expr`, a mapping is taken by its keys."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.errors import InputError
from dataset_registry.tabular.arrow import plain_table
from dataset_registry.tabular.formats import is_table


def split(value: Any, keys: Sequence[str], partitions: dg.PartitionsDefinition, expression: Any) -> dict[str, Any]:
    """The value of each partition of a run that covers several. Raises `InputError`."""
    if isinstance(value, Mapping):
        given = {str(key) for key in value}
        if given != set(keys):
            raise InputError(
                f"The run covers {len(keys)} partitions, and the asset returned a dict of others: "
                f"{_listed('missing', set(keys) - given)}{_listed('unexpected', given - set(keys))}"
                "Return one value for each of context.partition_keys."
            )
        return {str(key): part for key, part in value.items()}
    if not is_table(value):
        raise InputError(
            f"The run covers {len(keys)} partitions, and the asset returned one {type(value).__name__}. Return a dict with "
            "one value for each of context.partition_keys."
        )
    if expression is None:
        raise InputError(
            f"The run covers {len(keys)} partitions, and the asset returned one table. Say which column tells them apart, "
            'with metadata={"partition_expr": "column"} on the asset, or return a dict with one value for each of '
            "context.partition_keys."
        )
    table = plain_table(value)
    parts = {key: table.filter(_mask(table, key, partitions, expression)) for key in keys}
    found = sum(part.num_rows for part in parts.values())
    if found != table.num_rows:
        raise InputError(
            f"{table.num_rows - found} of {table.num_rows} rows belong to none of the run's {len(keys)} partitions by "
            f"{expression!r}. Return only rows of context.partition_keys."
        )
    return parts


def _mask(table: pa.Table, key: str, partitions: dg.PartitionsDefinition, expression: Any) -> pa.ChunkedArray:
    """Which rows are of a partition."""
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        dimensions = {dimension.name for dimension in partitions.partitions_defs}
        if not isinstance(expression, Mapping) or set(expression) != dimensions:
            raise InputError(
                "The partition_expr of a multi-partitioned asset is a dict from each dimension "
                f"({', '.join(sorted(dimensions))}) to its column, not {expression!r}."
            )
        keys = partitions.get_partition_key_from_str(key).keys_by_dimension
        masks = [
            _mask(table, keys[dimension.name], dimension.partitions_def, expression[dimension.name])
            for dimension in partitions.partitions_defs
        ]
        mask = masks[0]
        for other in masks[1:]:
            mask = pc.and_(mask, other)
        return mask
    if expression not in table.column_names:
        raise InputError(
            f"The partition_expr {expression!r} is no column of the table; it has: {', '.join(table.column_names[:20])}.",
            column=expression,
        )
    column = table[expression]
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        column = _moments(column, expression)
        window = partitions.time_window_for_partition_key(key)
        start, end = (_moment(moment, column.type) for moment in (window.start, window.end))
        return pc.and_kleene(pc.greater_equal(column, start), pc.less(column, end))
    return pc.equal(column.cast(pa.string()), key)


def _moments(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column of moments as one that has an order in time. Raises `InputError` for other columns."""
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        return column
    if pa.types.is_string(column.type):
        for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
            with suppress(pa.ArrowInvalid):
                return column.cast(kind)
    raise InputError(
        f"A partition_expr over time needs a column of dates, timestamps or ISO 8601 texts; {name!r} is {column.type}.",
        column=name,
    )


def _moment(moment: datetime, kind: pa.DataType) -> pa.Scalar:
    """The edge of a time window, in the type of the column it is compared with."""
    if pa.types.is_date(kind):
        return pa.scalar(date(moment.year, moment.month, moment.day), kind)
    return pa.scalar(moment if kind.tz else moment.replace(tzinfo=None), kind)


def _listed(what: str, keys: set[str]) -> str:
    return f"{what} {', '.join(sorted(keys)[:10])}. " if keys else ""
