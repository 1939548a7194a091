"""Rows that are appended to a stored table, upserted into it, or deleted from it, as edits of the parts that they fall in."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.errors import InputError
from dataset_registry.model.schema import ColumnStatistics
from dataset_registry.tabular.comparable import is_flat
from dataset_registry.tabular.conflicts import free_name
from dataset_registry.tabular.edits import AT_END, AT_START, Edits, Insert, Update
from dataset_registry.tabular.engine import Engine
from dataset_registry.tabular.parquet import typed_bounds
from dataset_registry.tabular.row_diff import (
    Cells,
    Increasing,
    comparable_stream,
    differing_cells,
    refuse_duplicates,
    sortable,
)
from dataset_registry.tabular.row_places import locate
from dataset_registry.tabular.rows import Positions, Rows

Statistics = Sequence[Mapping[str, ColumnStatistics]]
"""The column statistics of the parts of a table; empty where they are unknown."""


def append(rows: Rows, given: Rows, key: Sequence[str], statistics: Statistics, engine: Engine) -> Edits:
    """Rows behind the last one. Raises `InputError` for a key that is there already."""
    if key:
        refuse_given_duplicates(given, key, engine)
        there = _matching(rows, given, key, statistics, engine)
        if (taken := np.flatnonzero(there >= 0)).size:
            first = given.take(_positions(given)[taken[:3]], key).to_pylist()
            shown = "; ".join(", ".join(f"{name}={row[name]!r}" for name in key) for row in first)
            raise InputError(
                f"{taken.size:,} of the rows have a key that the table has already: {shown}. Use upsert to replace them.",
                key=list(key),
            )
    positions = _positions(given)
    return Edits(inserts=[Insert(np.full(len(positions), AT_END), given, positions)])


def upsert(
    rows: Rows, given: Rows, key: Sequence[str], statistics: Statistics, engine: Engine, columns: Sequence[str]
) -> Edits:
    """Rows that replace those with the same key, or are inserted: in order if the table is sorted by its key, else behind the
    last row. `columns` are those that are given; the others of a replaced row stay."""
    refuse_given_duplicates(given, key, engine)
    there = _matching(rows, given, key, statistics, engine)
    positions = _positions(given)
    updates = []
    found = np.flatnonzero(there >= 0)
    if len(found):
        names = [name for name in columns if name not in key]
        cells = differing_cells(rows, there[found], given, positions[found], names)
        changed = np.logical_or.reduce([np.zeros(len(found), bool), *cells.values()])
        masks = {name: mask[changed] for name, mask in cells.items()}
        updates = [Update(there[found][changed], given, positions[found][changed], masks)] if changed.any() else []
    new = positions[there < 0]
    return Edits(updates=updates, inserts=_in_order(rows, given, new, key, statistics, engine) if len(new) else [])


def delete(rows: Rows, given: Rows, key: Sequence[str], statistics: Statistics, engine: Engine) -> Edits:
    """Without the rows that have the same values in these columns as one of the given rows."""
    if not key:
        raise InputError("The rows to delete have no columns. Pass a table with their keys.")
    candidates = _candidates(rows, given, key, statistics)
    if not candidates:
        return Edits()
    on = " AND ".join(f"t.c{i} IS NOT DISTINCT FROM g.c{i}" for i in range(len(key)))
    found = engine.query(
        f"SELECT t.pos FROM there t WHERE EXISTS (SELECT 1 FROM given g WHERE {on}) ORDER BY 1",
        there=comparable_stream(rows, key, candidates),
        given=comparable_stream(given, key, range(len(given.parts))),
    )
    return Edits(removed=found.column(0).to_numpy())


def delete_where(rows: Rows, where: str, engine: Engine) -> Edits:
    """Without the rows for which an SQL expression is true. Raises `InputError` for an invalid one."""
    names = [name for name in rows.schema.names if not pa.types.is_decimal256(rows.schema.field(name).type)]
    folded = [name.casefold() for name in names]
    if len(set(folded)) < len(folded):
        raise InputError(
            "Columns of this table have names that differ in case only, which SQL does not distinguish. Delete rows by a table "
            "with their keys."
        )
    position = free_name("row_position", folded)
    removed = []
    for start, table in rows.batches(names):
        numbered = table.append_column(position, pa.array(np.arange(start, start + table.num_rows)))
        try:
            found = engine.matching(numbered, where, position)
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("duckdb", "_duckdb") and not isinstance(
                error, ValueError
            ):
                raise
            reason = str(error).splitlines()[0].rstrip(".!")
            raise InputError(
                f"Invalid condition {where!r}: {reason}. Write an SQL expression over the columns, such as 'price < 0'.",
                where=where,
            ) from error
        removed.append(np.sort(found.to_numpy()))
    return Edits(removed=np.concatenate([np.empty(0, np.int64), *removed]))


def _positions(rows: Rows) -> Positions:
    """The positions of all rows."""
    return np.concatenate(
        [np.empty(0, np.int64), *(np.arange(p.rows, dtype=np.int64) + (at << 32) for at, p in enumerate(rows.parts))]
    )


def refuse_given_duplicates(given: Rows, key: Sequence[str], engine: Engine) -> None:
    """Raise `InputError` if two of the given rows have the same key."""
    check = Increasing(len(key))
    for _, table in given.batches(key):
        check.look([column.combine_chunks() for column in table.columns])
    if not check.holds:
        refuse_duplicates(engine, given, key, range(len(given.parts)))


def _matching(rows: Rows, given: Rows, key: Sequence[str], statistics: Statistics, engine: Engine) -> Positions:
    """For each given row the position of the row with its key, -1 for none."""
    wanted = given.take(_positions(given), key)
    return locate(wanted, rows, _candidates(rows, given, key, statistics), engine)


def _candidates(rows: Rows, given: Rows, key: Sequence[str], statistics: Statistics) -> list[int]:
    """The parts that may have one of the given keys, by the statistics of the key's columns."""
    found = list(range(len(rows.parts)))
    for name in key:
        kind = rows.schema.field(name).type
        wanted = pa.chunked_array([c for _, t in given.batches([name]) for c in t.column(0).chunks], kind)
        if not is_flat(kind) or wanted.null_count or not len(wanted):
            continue
        ordered = wanted.combine_chunks().sort()
        kept = []
        for at in found:
            known = statistics[at].get(name) if at < len(statistics) else None
            bounds = typed_bounds(known, kind) if known is not None else None
            if bounds is None or _reaches(ordered, *bounds):
                kept.append(at)
        found = kept
    return found


def _reaches(ordered: pa.Array, low: pa.Scalar, high: pa.Scalar) -> bool:
    """Whether a sorted array has a value between two bounds."""
    try:
        first = pc.search_sorted(ordered, low).as_py()
        return first < len(ordered) and bool(pc.less_equal(ordered[first], high).as_py())
    except pa.ArrowNotImplementedError:
        return True


def _in_order(
    rows: Rows, given: Rows, new: Positions, key: Sequence[str], statistics: Statistics, engine: Engine
) -> list[Insert]:
    """Inserts at their places among the rows of a table that is sorted by its key, else behind the last row."""
    behind = [Insert(np.full(len(new), AT_END), given, new)]
    keys = given.take(new, key)
    if any(sortable(column.combine_chunks()) is None or column.null_count for column in keys.columns):
        return behind
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in key]).to_numpy().astype(np.int64)
    new, keys = new[order], keys.take(pa.array(order))
    starts = _starts(rows, key[0], statistics)
    parts = np.zeros(len(new), np.int64) if len(rows.parts) == 1 else None
    if starts is not None:
        parts = np.searchsorted(starts, _sorted_values(keys.column(0)), side="right") - 1
    if parts is None:
        places = _places_of(rows, range(len(rows.parts)), keys, engine)
        return behind if places is None else [Insert(places, given, new)]
    after = np.full(len(new), AT_START)
    for part in np.unique(parts[parts >= 0]).tolist():
        here = np.flatnonzero(parts == part)
        places = _places_of(rows, [part], keys.take(pa.array(here)), engine)
        if places is None:
            return behind
        after[here] = np.where(places == AT_START, (part << 32) - 1 if part else AT_START, places)
    return [Insert(after, given, new)]


def _places_of(rows: Rows, parts: Sequence[int], keys: pa.Table, engine: Engine) -> Positions | None:
    """For sorted keys the position of the row of some parts that each comes behind, `AT_START` for none; None if the parts are
    not sorted."""
    check = Increasing(keys.num_columns)
    tables, positions = [], []
    for start, table in rows.batches(keys.column_names, set(parts)):
        values = [sortable(column.combine_chunks()) for column in table.columns]
        if any(each is None for each in values):
            return None
        check.look(values)
        tables.append(table)
        positions.append(np.arange(start, start + table.num_rows))
    if not check.holds:
        return None
    if not tables:
        return np.full(keys.num_rows, AT_START)
    there, at = pa.concat_tables(tables), np.concatenate(positions)
    places = _places(there, keys, engine)
    return np.where(places >= 0, at[places], AT_START)


def _starts(rows: Rows, name: str, statistics: Statistics) -> Cells | None:
    """The smallest value of each part, if the parts follow one another in the order of this column."""
    kind = rows.schema.field(name).type
    bounds = [
        typed_bounds(known, kind) if at < len(statistics) and (known := statistics[at].get(name)) is not None else None
        for at in range(len(rows.parts))
    ]
    if not bounds or any(pair is None for pair in bounds):
        return None
    lows = _sorted_values(pa.chunked_array([pa.array([b[0].as_py() for b in bounds if b], kind)]))
    highs = _sorted_values(pa.chunked_array([pa.array([b[1].as_py() for b in bounds if b], kind)]))
    return lows if bool((highs[:-1] < lows[1:]).all()) else None


def _sorted_values(values: pa.ChunkedArray) -> Cells:
    """Values as numpy compares them: numbers, or objects."""
    found = sortable(values.combine_chunks())
    assert found is not None, "checked"
    plain: Cells = found.to_numpy(zero_copy_only=False)
    return plain


def _places(part: pa.Table, keys: pa.Table, engine: Engine) -> Positions:
    """For sorted keys the number of the row of a sorted part that each comes behind; -1 before the first."""
    if part.num_columns == 1:
        places: Positions = np.searchsorted(_sorted_values(part.column(0)), _sorted_values(keys.column(0))) - 1
        return places
    both = pa.concat_tables([part, keys])
    columns = [sortable(column.combine_chunks()) for column in both.columns]
    number = np.concatenate([np.arange(part.num_rows), np.full(keys.num_rows, -1)])
    names = [f"c{i}" for i in range(len(columns))]
    table = pa.table(
        [pa.array(number), pa.array(np.arange(both.num_rows)), *columns], names=["place", "number", *names]
    )
    window = f"ORDER BY {', '.join(names)} ROWS UNBOUNDED PRECEDING"
    found = engine.query(f"SELECT number, max(place) OVER ({window}) AS behind FROM both_sides", both_sides=table)
    behind = np.empty(both.num_rows, np.int64)
    behind[found.column(0).to_numpy()] = found.column(1).to_numpy()
    return behind[part.num_rows :]
