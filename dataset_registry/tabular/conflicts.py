"""Row conflicts as tables, and the resolutions that are handed back in such a table."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dataset_registry.errors import InputError
from dataset_registry.tabular import convert
from dataset_registry.tabular.comparable import is_flat
from dataset_registry.tabular.row_diff import Cells, unequal
from dataset_registry.tabular.row_merge import Resolve, Resolved, RowConflicts, unresolved
from dataset_registry.tabular.row_places import Sides, equal_rows, repeated
from dataset_registry.tabular.rows import Positions

TAKE = ("ours", "theirs", "base", "drop", "union")


@dataclass(frozen=True, slots=True)
class Names:
    """What the columns of a conflict table are called: those of the key, the values of each side by (side, column), and the
    columns in which values to take are handed back. Names that the table's columns share with others get underscores behind."""

    key: Mapping[str, str]
    sides: Mapping[tuple[str, str], str]
    values: Mapping[str, str]

    @classmethod
    def of(cls, sides: Sides) -> "Names":
        """The names for a table."""
        taken = {"kind", "columns", "take", *(f"{side}_count" for side in SIDES)}
        key: dict[str, str] = {}
        for name in sides.key or sides.ours.schema.names:
            key[name] = free_name(name, taken)
            taken.add(key[name])
        found: dict[tuple[str, str], str] = {}
        values: dict[str, str] = {}
        for name in sides.columns if sides.key else ():
            for side in SIDES:
                found[side, name] = free_name(f"{side}_{name}", taken)
                taken.add(found[side, name])
        for name in sides.columns if sides.key else ():
            values[name] = free_name(name, taken)
            taken.add(values[name])
        return cls(key, found, values)


SIDES = ("base", "ours", "theirs")


def conflict_table(sides: Sides, found: RowConflicts) -> pa.Table:
    """The rows in conflict, one line each.

    `kind`; `columns`, those with different values; the key's columns; of every other column the values `base_…`, `ours_…` and
    `theirs_…`; and an empty `take` to fill in: `ours`, `theirs`, `base`, `drop` or `union`. Without a key, the row's columns and
    its counts: `base_count`, `ours_count`, `theirs_count`.
    """
    called = Names.of(sides)
    columns: dict[str, pa.ChunkedArray | pa.Array] = {"kind": pa.array(found.kind.tolist(), pa.string())}
    keys = coalesced(sides, found, list(called.key))
    if found.counts is not None:
        columns |= {shown: keys.column(name) for name, shown in called.key.items()}
        columns |= {f"{side}_count": pa.array(found.counts[:, index]) for index, side in enumerate(SIDES)}
    else:
        masks = list(found.cells.items())
        listed = [", ".join(name for name, mask in masks if mask[at]) for at in range(len(found))]
        columns["columns"] = pa.array(listed, pa.string())
        columns |= {shown: keys.column(name) for name, shown in called.key.items()}
        taken = {
            "base": sides.base.take(found.base),
            "ours": sides.ours.take(found.ours),
            "theirs": sides.theirs.take(found.theirs),
        }
        columns |= {shown: taken[side].column(name) for (side, name), shown in called.sides.items()}
    columns["take"] = pa.nulls(len(found), pa.string())
    return pa.table(columns)


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
    with `by_key`, also if it names none. It takes a side (`take`), or the values in columns that have the names of the table's,
    which must be all that are in conflict. Raises `InputError` for a table that does not fit.
    """
    if given is None:
        return unresolved
    called = Names.of(sides)
    if missing := [shown for shown in called.key.values() if shown not in given.column_names]:
        raise InputError(
            f"The resolutions have no column {missing[0]!r}: they need the columns {', '.join(called.key.values())}, and take."
        )
    take = _takes(given)
    keys = _cast(sides, given, called.key)
    if len(more := repeated(keys, sides.engine)):
        row = ", ".join(f"{name}={value!r}" for name, value in keys.slice(more[0], 1).to_pylist()[0].items())
        raise InputError(f"The resolutions have two lines for the row {row}. Keep one of them.")
    own = [name for name, shown in called.values.items() if shown in given.column_names]
    values = _cast(sides, given, {name: called.values[name] for name in own}) if own else None
    named = {
        side: _cast(sides, given, columns)
        for side in SIDES
        if (
            columns := {n: shown for (s, n), shown in called.sides.items() if s == side and shown in given.column_names}
        )
    }

    def resolve(found: RowConflicts) -> Resolved:
        here, there = equal_rows(coalesced(sides, found, list(called.key)), keys, sides.engine)
        fits = _fits(sides, found, here, named, there) if named else np.full(len(here), by_key)
        here, there = here[fits], there[fits]
        is_given = np.ones(len(found), bool)
        for name, mask in found.cells.items():
            is_given &= ~mask | (name in own)
        chosen = np.full(len(found), "", dtype="<U8")
        row = np.full(len(found), -1, np.int64)
        for at, number in zip(here.tolist(), there.tolist(), strict=True):
            if take[number]:
                chosen[at] = take[number]
            elif values is not None and is_given[at]:
                chosen[at], row[at] = "row", at
        table = None
        if values is not None and (chosen == "row").any():
            table = _rows(sides, found, here, values.take(pa.array(there)))
        return Resolved(chosen, row, table, own)

    return resolve


def _takes(given: pa.Table) -> list[str | None]:
    """The choices in the column `take`. Raises `InputError` for an unknown one."""
    if "take" not in given.column_names:
        return [None] * given.num_rows
    found: list[str | None] = given.column("take").to_pylist()
    if wrong := [choice for choice in found if choice and choice not in TAKE]:
        raise InputError(
            f"Unknown resolution {wrong[0]!r} in the column take. Use one of: {', '.join(TAKE)}.", take=str(wrong[0])
        )
    return found


def _cast(sides: Sides, given: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Columns, by what they are called, with the types of the table. Raises `InputError`."""
    columns = []
    for own, shown in names.items():
        kind = sides.ours.schema.field(own).type
        try:
            columns.append(convert.column(given.column(shown), kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(f"The column {shown!r} of the resolutions is not {kind}: {error}.") from error
    return pa.table(columns, names=list(names))


def _fits(sides: Sides, found: RowConflicts, here: Positions, named: Mapping[str, pa.Table], there: Positions) -> Cells:
    """Whether conflicts still have the values that their resolutions name."""
    fits = np.ones(len(here), bool)
    for side, rows, positions in (
        ("base", sides.base, found.base),
        ("ours", sides.ours, found.ours),
        ("theirs", sides.theirs, found.theirs),
    ):
        if side not in named:
            continue
        then = named[side].take(pa.array(there))
        now = rows.take(positions[here], then.column_names)
        for name in then.column_names:
            one, other = then.column(name).combine_chunks(), now.column(name).combine_chunks()
            if is_flat(one.type):
                fits &= ~unequal(one, other)
            else:
                fits &= np.array([a == b for a, b in zip(one.to_pylist(), other.to_pylist(), strict=True)], bool)
    return fits


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
