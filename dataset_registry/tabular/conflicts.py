"""Row conflicts as tables, and the resolutions that are handed back in such a table."""

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from dataset_registry.errors import InputError
from dataset_registry.tabular import convert
from dataset_registry.tabular.comparable import is_flat
from dataset_registry.tabular.row_diff import Cells, unequal
from dataset_registry.tabular.row_merge import Resolve, Resolved, RowConflicts, unresolved
from dataset_registry.tabular.row_places import Sides, equal_rows
from dataset_registry.tabular.rows import Positions

TAKE = ("ours", "theirs", "base", "drop", "union")


def conflict_table(sides: Sides, found: RowConflicts) -> pa.Table:
    """The rows in conflict, one line each.

    `kind`; `columns`, those with different values; the key's columns; of every other column the values `base_…`, `ours_…` and
    `theirs_…`; and an empty `take` to fill in: `ours`, `theirs`, `base` or `drop`. Without a key, the row's columns and its
    counts: `base_count`, `ours_count`, `theirs_count`.
    """
    names: list[str] = []
    columns: list[pa.ChunkedArray | pa.Array] = []

    def add(name: str, values: pa.ChunkedArray | pa.Array) -> None:
        names.append(free_name(name, names))
        columns.append(values)

    add("kind", pa.array(found.kind.tolist(), pa.string()))
    if found.counts is not None:
        rows = coalesced(sides, found, sides.ours.schema.names)
        for name in rows.column_names:
            add(name, rows.column(name))
        for index, side in enumerate(("base", "ours", "theirs")):
            add(f"{side}_count", pa.array(found.counts[:, index]))
    else:
        masks = list(found.cells.items())
        listed = [", ".join(name for name, mask in masks if mask[at]) for at in range(len(found))]
        add("columns", pa.array(listed, pa.string()))
        keys = coalesced(sides, found, sides.key)
        for name in sides.key:
            add(name, keys.column(name))
        taken = {
            "base": sides.base.take(found.base),
            "ours": sides.ours.take(found.ours),
            "theirs": sides.theirs.take(found.theirs),
        }
        for name in sides.columns:
            for side, rows in taken.items():
                add(f"{side}_{name}", rows.column(name))
    add("take", pa.nulls(len(found), pa.string()))
    return pa.table(columns, names=names)


def coalesced(sides: Sides, found: RowConflicts, columns: Sequence[str]) -> pa.Table:
    """Columns of the rows in conflict, from a side that has the row."""
    pieces, order = [], []
    left = np.ones(len(found), bool)
    for rows, positions in ((sides.ours, found.ours), (sides.theirs, found.theirs), (sides.base, found.base)):
        here = np.flatnonzero(left & (positions >= 0))
        left[here] = False
        pieces.append(rows.take(positions[here], list(columns)))
        order.append(here)
    whole = np.concatenate(order)
    back = np.empty(len(whole), np.int64)
    back[whole] = np.arange(len(whole))
    return pa.concat_tables(pieces).take(pa.array(back))


def free_name(name: str, taken: Collection[str]) -> str:
    """A name that is not taken: the given one, or with underscores behind it."""
    while name in taken:
        name += "_"
    return name


def resolver(sides: Sides, given: pa.Table | None, *, by_key: bool) -> Resolve:
    """Finds the resolutions of conflicts in a table like that of `conflict_table`.

    A row resolves the conflict with its key, if the values `base_…`, `ours_…` and `theirs_…` that it names are still the same;
    with `by_key`, also if it names none. It takes a side (`take`), or the values in columns that have the names of the table's.
    """
    if given is None:
        return unresolved
    key = list(sides.key) or sides.ours.schema.names
    if missing := [name for name in key if name not in given.column_names]:
        raise InputError(
            f"The resolutions have no column {missing[0]!r}: they need the columns {', '.join(key)}, and take.",
            column=missing[0],
        )
    take = given.column("take").cast(pa.string()).to_pylist() if "take" in given.column_names else [None] * len(given)
    if wrong := [choice for choice in take if choice and choice not in TAKE]:
        raise InputError(
            f"Unknown resolution {wrong[0]!r} in the column take. Use one of: {', '.join(TAKE)}.", take=wrong[0]
        )
    keys = _cast(sides, given.select(key), {name: name for name in key})
    own = [name for name in sides.columns if name in given.column_names] if sides.key else []
    values = _cast(sides, given.select(own), {name: name for name in own}) if own else None

    def resolve(found: RowConflicts) -> Resolved:
        here, there = equal_rows(coalesced(sides, found, key), keys, sides.engine)
        fits = _fits(sides, found, here, given, there, by_key=by_key)
        here, there = here[fits], there[fits]
        chosen = np.full(len(found), "", dtype="<U8")
        row = np.full(len(found), -1, np.int64)
        for at, number in zip(here.tolist(), there.tolist(), strict=True):
            if take[number]:
                chosen[at] = take[number]
            elif values is not None:
                chosen[at], row[at] = "row", at
        table = None
        if values is not None and (chosen == "row").any():
            table = _rows(sides, found, here, values.take(pa.array(there)))
        return Resolved(chosen, row, table, own)

    return resolve


def _cast(sides: Sides, given: pa.Table, names: dict[str, str]) -> pa.Table:
    """Columns with the types of the table. Raises `InputError`."""
    columns = []
    for name, own in names.items():
        kind = sides.ours.schema.field(own).type
        try:
            columns.append(convert.column(given.column(name), kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(f"The column {name!r} of the resolutions is not {kind}: {error}.", column=name) from error
    return pa.table(columns, names=list(names))


def _fits(
    sides: Sides, found: RowConflicts, here: Positions, given: pa.Table, there: Positions, *, by_key: bool
) -> Cells:
    """Whether conflicts still have the values that their resolutions name."""
    fits = np.ones(len(here), bool)
    has_values = False
    for side, rows, positions in (
        ("base", sides.base, found.base),
        ("ours", sides.ours, found.ours),
        ("theirs", sides.theirs, found.theirs),
    ):
        names = {f"{side}_{name}": name for name in sides.columns if f"{side}_{name}" in given.column_names}
        if not names:
            continue
        has_values = True
        named = _cast(sides, given.select(list(names)), names).take(pa.array(there))
        now = rows.take(positions[here], list(names.values()))
        for name, own in names.items():
            one, other = named.column(name).combine_chunks(), now.column(own).combine_chunks()
            if is_flat(one.type):
                fits &= ~unequal(one, other)
            else:
                fits &= np.array([a == b for a, b in zip(one.to_pylist(), other.to_pylist(), strict=True)], bool)
    return fits if has_values or by_key else np.zeros(len(here), bool)


def _rows(sides: Sides, found: RowConflicts, here: Positions, values: pa.Table) -> pa.Table:
    """For each conflict a whole row: that of a side that has it, with the values that were given."""
    names = sides.ours.schema.names
    whole = coalesced(sides, found, names)
    where = np.arange(len(found))
    where[here] = len(found) + np.arange(len(here))
    for name in values.column_names:
        index = whole.schema.get_field_index(name)
        column = pa.chunked_array([*whole.column(index).chunks, *values.column(name).chunks], whole.column(index).type)
        whole = whole.set_column(index, whole.schema.field(index), column.take(pa.array(where)))
    return whole
