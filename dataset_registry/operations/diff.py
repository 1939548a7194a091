"""Comparing the components and schemas of two versions. The cost depends on the size of the difference."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from dataset_registry.access import Access, authorize
from dataset_registry.catalog import Transaction, files, manifests
from dataset_registry.content.workplace import workplace
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.diff import ComponentDiff, Diff, RowSummary
from dataset_registry.model.manifest import ComponentKey, Entry, component_label
from dataset_registry.model.names import MAIN, component_name, split_address
from dataset_registry.model.records import DatasetRecord, VersionRecord
from dataset_registry.model.schema import SchemaDiff, TableSchema, compare
from dataset_registry.operations import resolve

if TYPE_CHECKING:
    from dataset_registry.content.tables import StoredTable


def diff(access: Access, dataset: DatasetRecord, before: str, after: str) -> Diff:
    """What changed from one ref to another. Raises `InvalidRef`, `NotFound`."""
    with access.catalog.read() as tx:
        authorize(access, tx, "read", dataset.id)
        old, new = resolve.version(tx, dataset, before), resolve.version(tx, dataset, after)
        left, right = ({entry.key: entry for entry in side} for side in manifests.changed_entries(tx, old.id, new.id))
        found = ComponentDiff(
            added=tuple(key for key in right if key not in left),
            removed=tuple(key for key in left if key not in right),
            changed=tuple(key for key in right if key in left and right[key] != left[key]),
        )
        tables = [_tables(tx, version, found.changed) for version in (old, new)]
        parts = {
            component_label(*key): files.compare_parts(tx, left[key].file_id, right[key].file_id)
            for key in found.changed
            if left[key].format == right[key].format == "parquet"
        }
        return Diff(old, new, found, _schema_diffs(*tables), {k: p for k, p in parts.items() if p.added or p.removed})


def summary(
    access: Access, dataset: DatasetRecord, before: str, after: str, component: str | None = None
) -> dict[str, RowSummary]:
    """The rows that differ from one ref to another, counted for each table that changed, or for one component.

    A ref may be one of another dataset (`raw/flights@main`). Nothing is read where hashes answer. Raises `NotFound`,
    `InputError`.
    """
    from dataset_registry.tabular.table_diff import compare_tables

    with access.catalog.read() as tx:
        old, new = (_version(access, tx, dataset, ref) for ref in (before, after))
        left, right = ({entry.key: entry for entry in side} for side in manifests.changed_entries(tx, old.id, new.id))
        pairs: _Pairs = {}
        for key in sorted({*left, *right}):
            if left.get(key) != right.get(key) and component in (None, key[0], component_label(*key)):
                pairs |= _sheets(access, tx, key, (old, left.get(key)), (new, right.get(key)))
    with workplace(access) as work:
        return {label: compare_tables(was, now, work.engine).summary for label, (was, now) in pairs.items()}


def rows(
    access: Access,
    dataset: DatasetRecord,
    before: str,
    after: str,
    component: str | None = None,
    *,
    index: int = 0,
    sheet: str | None = None,
    key: Sequence[str] = (),
    limit: int | None = None,
) -> Any:
    """The rows of a table that differ from one ref to another, as a stream of Arrow record batches (see `TableDiff.reader`).

    Without a component, that of the only table that changed. `key` are the columns to compare by, by default the declared key.
    Raises `NotFound`, `InputError`.
    """
    from dataset_registry.tabular.table_diff import compare_tables, kept_open

    with access.catalog.read() as tx:
        old, new = (_version(access, tx, dataset, ref) for ref in (before, after))
        entries = [_entries(tx, old, new, component, index), _entries(tx, new, old, component, index)]
        keys = sorted({*entries[0], *entries[1]})
        pairs: _Pairs = {}
        for at in keys:
            pairs |= _sheets(access, tx, at, (old, entries[0].get(at)), (new, entries[1].get(at)))
        if sheet is not None:
            pairs = {label: pair for label, pair in pairs.items() if label.endswith(f"/{sheet}")}
        was, now = _only(pairs, dataset, component)
    with ExitStack() as stack:
        work = stack.enter_context(workplace(access))
        found = compare_tables(was, now, work.engine, key)
        return kept_open(found.reader(limit), stack.pop_all())


_Pairs = dict[str, "tuple[StoredTable | None, StoredTable | None]"]
"""Tables before and after, by label."""


def _version(access: Access, tx: Transaction, dataset: DatasetRecord, ref: str) -> VersionRecord:
    """The version of a ref, which may be one of another dataset."""
    name, other = split_address(ref) if "@" in ref else (None, None)
    found = dataset if name is None else resolve.dataset(access, tx, name)
    authorize(access, tx, "read", found.id)
    return resolve.version(tx, found, ref if name is None else other or MAIN)


def _entries(
    tx: Transaction, version: VersionRecord, other: VersionRecord, component: str | None, index: int
) -> dict[ComponentKey, Entry]:
    """The components of a version that are compared with another: one, or those that differ."""
    if component is None:
        return {entry.key: entry for entry in manifests.changed_entries(tx, version.id, other.id)[0]}
    name = component_name(component)
    return {e.key: e for e in manifests.StoredManifest(tx, version.id).named(name) if e.key == (name, index)}


def _sheets(
    access: Access,
    tx: Transaction,
    key: ComponentKey,
    before: tuple[VersionRecord, Entry | None],
    after: tuple[VersionRecord, Entry | None],
) -> _Pairs:
    """The tables of a component in two versions, by label."""
    from dataset_registry.content.tables import stored_tables

    old, new = (
        {} if entry is None else stored_tables(access, tx, version.id, entry) for version, entry in (before, after)
    )
    label = component_label(*key)
    return {
        label if sheet is None else f"{label}/{sheet}": (old.get(sheet), new.get(sheet))
        for sheet in dict.fromkeys([*new, *old])
    }


def _only(
    pairs: _Pairs, dataset: DatasetRecord, component: str | None
) -> "tuple[StoredTable | None, StoredTable | None]":
    """The only pair of tables, or the only one that differs. Raises `NotFound`, `InputError`."""
    if not pairs:
        what = f"no table {component!r}" if component else "no table that differs between these versions"
        raise NotFound(f"{dataset.name} has {what}. List what changed with diff().", component=component)
    differing = {
        label: pair
        for label, pair in pairs.items()
        if [part.id for table in pair[:1] if table for part in table.parts]
        != [part.id for table in pair[1:] if table for part in table.parts]
    }
    found = differing if len(pairs) > 1 else pairs
    if len(found) > 1:
        raise InputError(f"Several tables differ: {', '.join(found)}. Name one of them.", dataset=dataset.name)
    return next(iter((found or pairs).values()))


def _tables(tx: Transaction, version: VersionRecord, keys: Sequence[ComponentKey]) -> dict[str, TableSchema]:
    """The tables of components that both versions have (of one that came or went, all columns did)."""
    found: dict[str, TableSchema] = {}
    for name, index, captured in manifests.schemas_of(tx, version.id, sorted({key[0] for key in keys})):
        if (name, index) in keys:
            label = component_label(name, index)
            found.update((label if t.name is None else f"{label}/{t.name}", t) for t in captured.tables)
    return found


def _schema_diffs(before: dict[str, TableSchema], after: dict[str, TableSchema]) -> dict[str, SchemaDiff]:
    empty = TableSchema(None, ())
    diffs = {label: compare(before.get(label, empty), after.get(label, empty)) for label in sorted({*before, *after})}
    return {label: found for label, found in diffs.items() if found}
