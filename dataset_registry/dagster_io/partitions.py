"""One value for several partitions: a table is split by the asset's `partition_expr`, a mapping is taken by its keys."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from dagster._check import CheckError

from dataset_registry.errors import InputError, InvalidName
from dataset_registry.model.partitions import partition_key
from dataset_registry.tabular.arrow import plain_table
from dataset_registry.tabular.formats import is_lazy_frame, is_table, library_of


def split(value: Any, keys: Sequence[str], partitions: dg.PartitionsDefinition, expression: Any) -> dict[str, Any]:
    """The value of each partition of a run that covers several. Raises `InputError`."""
    if isinstance(value, Mapping):
        given = {str(key) for key in value}
        if given != set(keys):
            raise InputError(
                f"The run covers {len(keys)} partitions, but the asset returned a dict with other keys: "
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
            f"The run covers {len(keys)} partitions, but the asset returned one table. Set the column "
            "that identifies the partition "
            'with metadata={"partition_expr": "column"} on the asset, or return a dict with one value for each of '
            "context.partition_keys."
        )
    if isinstance(value, pa.RecordBatchReader):
        value = value.read_all()
    elif is_lazy_frame(value):
        value = value.collect()
    table = plain_table(value)
    masks = {key: pc.fill_null(_mask(table, key, partitions, expression), False) for key in keys}
    found = sum(pc.sum(mask).as_py() or 0 for mask in masks.values())
    if found != table.num_rows:
        raise InputError(
            f"{table.num_rows - found} of {table.num_rows} rows belong to none of the run's {len(keys)} partitions by "
            f"{expression!r}. Return only rows of context.partition_keys."
        )
    return {key: _rows(value, table, mask) for key, mask in masks.items()}


def _rows(value: Any, table: pa.Table, mask: pa.ChunkedArray) -> Any:
    """Rows of a table in its own library, with its index and categories."""
    match library_of(value):
        case "pandas":
            rows = value[mask.to_numpy()]
            return rows.reset_index(drop=True) if type(value.index).__name__ == "RangeIndex" else rows
        case "polars":
            import polars

            return value.filter(polars.Series(mask.to_pylist(), dtype=polars.Boolean))
        case "pyarrow" if isinstance(value, pa.Table):
            return value.filter(mask)
    return table.filter(mask)


def in_order(keys: Sequence[str], definition: Any, instance: Any) -> list[str]:
    """Sort partition keys in the order of their definition; Dagster passes them unordered."""
    if len(keys) < 2 or definition is None:
        return list(keys)
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return sorted(keys, key=lambda key: definition.time_window_for_partition_key(key).start)
    if isinstance(definition, dg.MultiPartitionsDefinition):
        dimensions = definition.partitions_defs
        found = {
            d.name: {definition.get_partition_key_from_str(k).keys_by_dimension[d.name] for k in keys}
            for d in dimensions
        }
        places = {
            d.name: {key: at for at, key in enumerate(in_order(sorted(found[d.name]), d.partitions_def, instance))}
            for d in dimensions
        }

        def place(key: str) -> tuple[int, ...]:
            parts = definition.get_partition_key_from_str(key).keys_by_dimension
            return tuple(places[d.name][parts[d.name]] for d in dimensions)

        return sorted(keys, key=place)
    with suppress(CheckError, dg.DagsterInvariantViolationError):
        known = {key: at for at, key in enumerate(definition.get_partition_keys(dynamic_partitions_store=instance))}
        return sorted(keys, key=lambda key: (known.get(key, len(known)), key))
    return sorted(keys)


def has_key(definition: Any, key: str, instance: Any) -> bool:
    """Whether a definition has a partition key. Dynamic partitions are looked up in the instance."""
    with suppress(CheckError, dg.DagsterInvariantViolationError, ValueError):
        if isinstance(definition, dg.MultiPartitionsDefinition):
            parts = definition.get_partition_key_from_str(key).keys_by_dimension
            return all(has_key(d.partitions_def, parts[d.name], instance) for d in definition.partitions_defs)
        if isinstance(definition, dg.DynamicPartitionsDefinition) and definition.partition_fn is None:
            return bool(instance.has_dynamic_partition(definition.name, key))
        return bool(definition.has_partition_key(key))
    return False


def refuse_meeting_keys(keys: Sequence[str], what: str) -> None:
    """Raise `InvalidName` for an invalid component name, and for keys that are equal after normalisation."""
    owners: dict[str, str] = {}
    for key in keys:
        try:
            name = partition_key(key)
        except InvalidName as error:
            raise InvalidName(f"{what} has the partition {key!r}: {error}", **error.fields) from error
        if (other := owners.setdefault(name, key)) != key:
            raise InvalidName(
                f"{what} has the partitions {other!r} and {key!r}, which are the same text in Unicode's normal form. Rename one."
            )


def _column(table: pa.Table, name: str) -> str:
    """The column with this name, else the one that differs only in case. Raises `InputError`."""
    if name in table.column_names:
        return name
    found = [column for column in table.column_names if column.casefold() == str(name).casefold()]
    if len(found) != 1:
        raise InputError(
            f"The partition_expr {name!r} is not a column of the table; it has: {', '.join(table.column_names[:20])}.",
            column=name,
        )
    return str(found[0])


def _mask(table: pa.Table, key: str, partitions: dg.PartitionsDefinition, expression: Any) -> pa.ChunkedArray:
    """The mask of the rows of a partition."""
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
    column = table[_column(table, expression)]
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        column = _moments(column, expression)
        window = partitions.time_window_for_partition_key(key)
        start, end = (_moment(moment, column.type) for moment in (window.start, window.end))
        return pc.and_kleene(pc.greater_equal(column, start), pc.less(column, end))
    return pc.equal(column.cast(pa.string()), key)


def _moments(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Convert a column to timestamps or dates. Raises `InputError` for other types."""
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
