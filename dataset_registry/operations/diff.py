"""Comparing the components and schemas of two versions. The cost depends on the size of the difference."""

from collections.abc import Sequence

from dataset_registry.access import Access, authorize
from dataset_registry.catalog import Transaction, files, manifests
from dataset_registry.model.diff import ComponentDiff, Diff
from dataset_registry.model.manifest import ComponentKey, component_label
from dataset_registry.model.records import DatasetRecord, VersionRecord
from dataset_registry.model.schema import SchemaDiff, TableSchema, compare
from dataset_registry.operations import resolve


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
