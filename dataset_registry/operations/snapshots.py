"""The three versions of a merge, and their components; a base with several ancestors is merged first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import uuid4

from dataset_registry.access import Access
from dataset_registry.catalog import Transaction, files, manifests, versions
from dataset_registry.content.workplace import Workplace
from dataset_registry.model import history
from dataset_registry.model.manifest import ComponentKey, Entry
from dataset_registry.model.merge import Decision, merge_components
from dataset_registry.model.records import DatasetRecord, VersionRecord

if TYPE_CHECKING:
    from dataset_registry.content.tables import StoredTable


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The components of a version, or of the merge of several: `tables` are those that are stored nowhere."""

    version_id: int | None
    entries: Mapping[ComponentKey, Entry]
    tables: Mapping[ComponentKey, "StoredTable"] = field(default_factory=dict)

    def table(self, access: Access, tx: Transaction, key: ComponentKey) -> "StoredTable | None":
        """The table in a component, if it is one; a spreadsheet of several sheets is not."""
        from dataset_registry.content.tables import stored_tables

        if key in self.tables:
            return self.tables[key]
        if self.version_id is None or key not in self.entries:
            return None
        found = stored_tables(access, tx, self.version_id, self.entries[key])
        return next(iter(found.values())) if len(found) == 1 else None


EMPTY = Snapshot(None, {})


def snapshot(tx: Transaction, version: VersionRecord | None) -> Snapshot:
    """All components of a version; none for None."""
    if version is None:
        return EMPTY
    return Snapshot(version.id, {entry.key: entry for entry in manifests.StoredManifest(tx, version.id).since("")})


def three(
    access: Access,
    work: Workplace,
    bases: Sequence[VersionRecord],
    ours: VersionRecord | None,
    theirs: VersionRecord | None,
) -> tuple[Snapshot, Snapshot, Snapshot]:
    """The base, ours and theirs, with the components that differ between base and theirs."""
    if len(bases) == 1 and theirs is not None and ours is not None:
        with access.catalog.read() as tx:
            before, after = manifests.changed_entries(tx, bases[0].id, theirs.id)
            stored = manifests.StoredManifest(tx, ours.id)
            names = sorted({entry.name for entry in (*before, *after)})
            mine = [entry for name in names for entry in stored.named(name)]
        return _of(bases[0], before), _of(ours, mine), _of(theirs, after)
    with access.catalog.read() as tx:
        base = snapshot(tx, bases[0] if bases else None)
        sides = snapshot(tx, ours), snapshot(tx, theirs)
    for other in bases[1:]:
        base = _merged(access, work, bases[0], base, other)
    return base, *sides


def _of(version: VersionRecord, entries: Iterable[Entry]) -> Snapshot:
    return Snapshot(version.id, {entry.key: entry for entry in entries})


def merge_bases(
    tx: Transaction, dataset: DatasetRecord, left: VersionRecord, right: VersionRecord
) -> list[VersionRecord]:
    """The best common ancestors of two versions, newest first."""
    newest = max(left.number, right.number)
    numbers = history.merge_bases(left.number, right.number, versions.below(tx, dataset.id, newest))
    return versions.numbered(tx, dataset.id, numbers)


def _merged(access: Access, work: Workplace, first: VersionRecord, one: Snapshot, other: VersionRecord) -> Snapshot:
    """The virtual base of two ancestors. What is in conflict between them is unknown: it equals neither side."""
    dataset = DatasetRecord(first.dataset_id, first.dataset, None, first.created_at, None)
    with access.catalog.snapshot() as tx:
        above = merge_bases(tx, dataset, first, other)
        theirs = snapshot(tx, other)
        base = snapshot(tx, above[0] if above else None)
    for further in above[1:]:
        base = _merged(access, work, above[0], base, further)
    entries, tables = dict(one.entries), dict(one.tables)
    for key, decision in merge_components(base.entries, one.entries, theirs.entries).items():
        merged = _merged_component(access, work, key, decision, (base, one, theirs))
        if merged is None:
            entries.pop(key, None)
            continue
        entries[key], table = merged
        if table is not None:
            tables[key] = table
    return Snapshot(one.version_id, entries, tables)


def _merged_component(
    access: Access,
    work: Workplace,
    key: ComponentKey,
    decision: Decision,
    sides: tuple[Snapshot, Snapshot, Snapshot],
) -> "tuple[Entry, StoredTable | None] | None":
    from dataset_registry.content.tables import of_staged, stage_merged
    from dataset_registry.tabular.table_merge import merge_tables

    with access.catalog.read() as tx:
        base, one, theirs = (side.table(access, tx, key) for side in sides)
        facts = files.facts_of(tx, [file.id for file in one.files]) if one else {}
    if decision == "theirs":
        entry = sides[2].entries.get(key)
        return None if entry is None else (entry, theirs)
    known = sides[1].entries.get(key) or sides[2].entries[key]
    unknown = replace(known, content_hash=f"unknown {uuid4().hex}")
    if decision != "rows" or one is None or theirs is None:
        return unknown, None
    merged = merge_tables((base, one, theirs), lambda kind, component, column: None, work.engine)
    if merged.sides is None:
        return unknown, None
    staged = stage_merged(access, work.spool, one, merged.without_conflicts(), facts)
    return replace(known, content_hash=staged.content_hash, schema_id=None), replace(
        of_staged(work.spool, key, staged), unknown=merged.unknown_keys()
    )
