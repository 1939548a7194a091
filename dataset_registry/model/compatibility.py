"""Whether the columns of a table are compatible with those before, by a policy."""

from collections.abc import Sequence
from typing import Literal, get_args

from dataset_registry.errors import InputError
from dataset_registry.model.schema import Column, holds

Compatibility = Literal["backward", "forward", "full", "exact"]
POLICIES: tuple[Compatibility, ...] = get_args(Compatibility)


def checked_policy(text: str) -> Compatibility:
    """The same text. Raises `InputError` for an unknown policy."""
    for policy in POLICIES:
        if text == policy:
            return policy
    raise InputError(f"{text!r} is not a compatibility policy. Use one of: {', '.join(POLICIES)}.", policy=text)


def incompatibilities(before: Sequence[Column], after: Sequence[Column], policy: Compatibility) -> list[str]:
    """What a policy forbids of a change of columns; empty if it is compatible.

    The names are those of schema registries. `backward`: code for the new columns reads the old data, so that new columns are
    nullable and types are only widened. `forward`: code for the old columns reads the new data, so that no column is dropped
    and no type is widened. `full`: both. `exact`: nothing changed, the order included.
    """
    if policy == "exact":
        if list(before) == list(after):
            return []
        return _reads(before, after) + _reads(after, before, old=False) or ["columns have another order or nullability"]
    found = []
    if policy in ("backward", "full"):
        found += _reads(before, after)
    if policy in ("forward", "full"):
        found += _reads(after, before, old=False)
    return list(dict.fromkeys(found))


def _reads(data: Sequence[Column], code: Sequence[Column], *, old: bool = True) -> list[str]:
    """Why code for some columns cannot read data with others. `old` says that the data is the old one."""
    there = {column.name: column for column in data}
    found = []
    for column in code:
        mine = there.get(column.name)
        if mine is None:
            if old and not column.nullable:
                found.append(f"{column.name} was added and is not nullable")
            elif not old:
                found.append(f"{column.name} was dropped")
        elif not holds(mine, column):
            change = (mine.type, column.type) if old else (column.type, mine.type)
            found.append(f"{column.name} was {change[0]} and is {change[1]}")
        elif mine.nullable and not column.nullable:
            found.append(f"{column.name} {'is not nullable any longer' if old else 'became nullable'}")
    return found
