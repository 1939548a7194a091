"""Resolving names and refs, inside a transaction."""

import difflib
import re
from itertools import islice

from dataset_registry.access import Access, level_on, readable
from dataset_registry.catalog import Transaction, datasets, pointers, versions
from dataset_registry.errors import InvalidRef, NotFound
from dataset_registry.model import history
from dataset_registry.model.actors import NOTHING
from dataset_registry.model.names import Ref, parse_ref
from dataset_registry.model.records import DatasetRecord, Head, VersionRecord

_ODD_NUMBER = re.compile(r"v-?[0-9]{1,9}")
"""Version numbers of legacy catalogs: 0 and below. A branch with such a name takes precedence."""


_SUGGESTED_FROM = 1000
"""Maximum number of names among which a similar one is searched."""


def dataset(access: Access, tx: Transaction, name: str) -> DatasetRecord:
    """The dataset of this name, which the actor may at least read. Raises `NotFound`."""
    found = datasets.find(tx, name)
    if found is None or level_on(access, tx, found.id) == NOTHING:
        raise no_dataset(access, tx, name)
    return found


def no_dataset(access: Access, tx: Transaction, name: str) -> NotFound:
    """The error for an unknown or hidden dataset name. It suggests only names that the actor can read."""
    readable_ones = datasets.all_of(tx, "", readable(access, tx))
    names = [found.name for found in islice(readable_ones, _SUGGESTED_FROM)]
    near = difflib.get_close_matches(name, names, 1)
    step = f"Did you mean {near[0]!r}? " if near else f"Create it with registry.create_dataset({name!r}). "
    return NotFound(f"No dataset {name!r}. {step}List datasets with registry.datasets().", dataset=name)


def version(tx: Transaction, dataset: DatasetRecord, ref: str | Ref) -> VersionRecord:
    """The version that a ref names. Raises `InvalidRef`, `NotFound`."""
    parsed = ref if isinstance(ref, Ref) else parse_ref(ref)
    found = _start(tx, dataset, parsed)
    for sign, count in parsed.steps:
        number: int | None
        if sign == "~":
            number = history.first_parent(found.number, count, versions.below(tx, dataset.id, found.number))
        elif count == 0:
            number = found.number
        else:
            number = found.parents[count - 1] if count <= len(found.parents) else None
        before = versions.by_number(tx, dataset.id, number) if number is not None else None
        if before is None:
            raise NotFound(
                f"{dataset.name}@{parsed} goes back further than the history: v{found.number} has no such ancestor. "
                f"List versions with log({parsed.start!r}).",
                dataset=dataset.name,
                ref=str(parsed),
            )
        found = before
    return found


def shared_head(tx: Transaction, dataset: DatasetRecord, ref: str) -> Head:
    """The version that a ref names, locked against deletion: for the name of a branch or tag one look-up. Raises as `version`
    does."""
    parsed = parse_ref(ref)
    if parsed.kind != "number" and not parsed.steps and not parsed.could_be_digest:
        found = versions.head(tx, dataset.id, parsed.start, share=True)
        if found is not None:
            return found
    named = version(tx, dataset, parsed)
    if not versions.share(tx, [named.id]):
        raise NotFound(f"v{named.number} of {dataset.name} was deleted in the meantime.", version=named.number)
    return named.as_head


def _start(tx: Transaction, dataset: DatasetRecord, ref: Ref) -> VersionRecord:
    if ref.kind == "number":
        found = versions.by_number(tx, dataset.id, ref.number)
        if found is None:
            raise NotFound(
                f"{dataset.name} has no version {ref.start}. List versions with tree().",
                dataset=dataset.name,
                ref=ref.text,
            )
        return found
    pointer = pointers.find(tx, dataset.id, ref.start)
    candidates = versions.by_digest(tx, dataset.id, ref.start) if ref.could_be_digest else []
    if pointer is not None and candidates:
        kind = "tag" if pointer.is_tag else "branch"
        raise InvalidRef(
            f"{ref.start!r} is a {kind} of {dataset.name} at v{pointer.version_number}, and begins the digest of "
            f"v{candidates[0].number}. Give the number of the version, or rename the {kind}.",
            ref=ref.text,
        )
    if pointer is not None:
        named = versions.by_id(tx, pointer.version_id)
        if named is None:  # between the two statements the pointer moved on, and what it named was deleted
            return _start(tx, dataset, ref)
        return named
    if len(candidates) > 1:
        raise InvalidRef(
            f"{ref.start!r} begins the digests of several versions of {dataset.name}: "
            f"{', '.join(f'v{v.number} ({(v.digest or str())[:16]})' for v in candidates[:5])}. Give more digits.",
            ref=ref.text,
        )
    if candidates:
        return candidates[0]
    if _ODD_NUMBER.fullmatch(ref.start) and (odd := versions.by_number(tx, dataset.id, int(ref.start[1:]))) is not None:
        return odd
    raise NotFound(
        f"{dataset.name} has no branch, tag or digest {ref.start!r}. {what_there_is(tx, dataset, ref.start)}",
        dataset=dataset.name,
        ref=ref.text,
    )


def what_there_is(tx: Transaction, dataset: DatasetRecord, wanted: str) -> str:
    """The hint for an unknown ref: a similar branch or tag, all of them, or how to list versions."""
    names = [pointer.name for pointer in pointers.all_of(tx, dataset.id)]
    if near := difflib.get_close_matches(wanted, names, 1):
        return f"Did you mean {near[0]!r}?"
    if names:
        return f"It has: {', '.join(names[:20])}."
    count = datasets.version_count(tx, dataset.id)
    if count == 0:
        return "Nothing was committed to it yet."
    return (
        f"It has {count} version{'' if count == 1 else 's'} that no branch or tag reaches. List them with tree(), in a shell "
        f"with: dataset-registry log {dataset.name} --all. Then create a branch at one of them."
    )
