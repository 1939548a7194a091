"""Merging: planning a three-way merge, and committing it. docs/design/merging.md has the rules.

A plan reads what differs. A merge plans, writes the merged tables to a spool, and commits them as a version with two parents,
if the branch is still where the plan found it; else it is planned anew.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dataset_registry.access import Access, authorize, authorize_commit, authorize_move, readable
from dataset_registry.catalog import Transaction, files, productions, versions
from dataset_registry.content.change import Change, StagedComponent
from dataset_registry.content.workplace import Workplace, workplace
from dataset_registry.errors import BranchMoved, InputError, MergeConflict, NotFound
from dataset_registry.model import merge as rules
from dataset_registry.model.chunks import FileFacts
from dataset_registry.model.commits import CommitOptions
from dataset_registry.model.manifest import ComponentKey, Entry, component_label
from dataset_registry.model.merge import Conflict
from dataset_registry.model.merge_plans import (
    Action,
    Impact,
    MergedComponent,
    MergeKind,
    MergeOptions,
    MergePlan,
    Outcome,
)
from dataset_registry.model.names import pointer_name
from dataset_registry.model.records import DatasetRecord, VersionRecord
from dataset_registry.model.schema import TableSchema, widens
from dataset_registry.model.strategies import Choose, Side, chooser
from dataset_registry.operations import commit as commits
from dataset_registry.operations import refs, resolve
from dataset_registry.operations.snapshots import Snapshot, merge_bases, three
from dataset_registry.store import Spool

if TYPE_CHECKING:
    from dataset_registry.content.tables import StoredTable
    from dataset_registry.tabular.table_merge import TableMerge

_ATTEMPTS = 5
"""How often a merge is planned if the branch moves during it."""


@dataclass(slots=True)
class Merge:
    """A planned merge: the plan, the change of ours that carries it out, and the merged tables."""

    plan: MergePlan
    message: str | None = None
    """The message of a version with one parent: of a cherry-pick or a revert."""
    source: int | None = None
    """The id of the version that a cherry-pick takes, or that a revert restores."""
    change: Change = field(default_factory=Change)
    tables: dict[ComponentKey, "TableMerge"] = field(default_factory=dict)
    components: list[MergedComponent] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


def plan(
    access: Access, dataset: DatasetRecord, how: MergeKind, ref: str, branch: str, options: MergeOptions
) -> MergePlan:
    """The plan of a merge of a ref into a branch. Nothing is changed. Raises `NotFound`, `InvalidRef`, `InputError`."""
    with workplace(access) as work:
        return planned(access, work, dataset, how, ref, branch, options, writes=False).plan


def conflicts(
    access: Access, dataset: DatasetRecord, how: MergeKind, ref: str, branch: str, component: str, options: MergeOptions
) -> Any:
    """The rows in conflict of one component, as an Arrow table. Raises `NotFound` if it has none."""
    from dataset_registry.tabular.conflicts import conflict_table

    with workplace(access) as work:
        found = planned(access, work, dataset, how, ref, branch, options, writes=False)
        for key, table in found.tables.items():
            if component_label(*key) == component and table.sides is not None and table.rows:
                return conflict_table(table.sides, table.rows)
    if any(component_label(c.component, c.index) == component for c in found.plan.conflicts):
        raise NotFound(
            f"The conflict of {component!r} is not about rows. Resolve it with a strategy: ours or theirs.",
            component=component,
        )
    raise NotFound(f"{component!r} has no rows in conflict in this merge.", component=component)


def merge(
    access: Access, dataset: DatasetRecord, how: MergeKind, ref: str, branch: str, options: MergeOptions
) -> tuple[MergePlan, VersionRecord]:
    """Merge a ref into a branch; or apply the changes of one version to it, or undo them. Returns the plan and the new head.

    Raises `MergeConflict` for conflicts that are left, `NotFound`, `InvalidRef`, `InputError`, `BranchMoved`.
    """
    for attempt in range(_ATTEMPTS):
        with workplace(access) as work:
            found = planned(access, work, dataset, how, ref, branch, options, writes=True)
            try:
                return found.plan, _applied(access, work.spool, dataset, ref, found, options)
            except BranchMoved:
                if attempt == _ATTEMPTS - 1:
                    raise
    raise AssertionError("the last attempt returns or raises")


def refuse_conflicts(plan: MergePlan) -> None:
    """Raise `MergeConflict` if a plan has conflicts."""
    if not plan.conflicts:
        return
    listed = "; ".join(map(str, plan.conflicts[:5])) + ("; …" if len(plan.conflicts) > 5 else "")
    step = (
        f"List the rows with conflicts('v{plan.theirs.number}', '{plan.branch}'), and resolve"
        if plan.has_rows
        else "Resolve"
    )
    raise MergeConflict(
        f"{plan.dataset}: v{plan.theirs.number} cannot be merged into {plan.branch!r} without a decision. {listed}. Nothing was "
        f"changed. {step} them with a strategy (ours, theirs, union, newest)"
        + (" or by handing the rows back." if plan.has_rows else "."),
        dataset=plan.dataset,
        branch=plan.branch,
        plan=plan.id,
        conflicts=[
            {
                "kind": c.kind,
                "component": c.component,
                "index": c.index,
                "column": c.column,
                "rows": c.rows,
                "reason": c.reason,
            }
            for c in plan.conflicts
        ],
    )


def _applied(
    access: Access, spool: Spool, dataset: DatasetRecord, ref: str, found: Merge, options: MergeOptions
) -> VersionRecord:
    """Carry out a plan. Returns the new head of the branch. Raises `MergeConflict`, `BranchMoved`."""
    plan = found.plan
    refuse_conflicts(plan)
    if plan.outcome == "up to date":
        with access.catalog.read() as tx:
            return resolve.version(tx, dataset, plan.branch)
    if plan.outcome == "fast-forward":
        if plan.ours is None:
            refs.create(access, dataset, plan.branch, f"v{plan.theirs.number}", is_tag=False)
        else:
            refs.move(access, dataset, plan.branch, f"v{plan.theirs.number}", expect=f"v{plan.ours.number}")
        return plan.theirs
    return commits.commit(access, spool, dataset, found.change, commit_options(found, ref, options.message)).version


def commit_options(found: Merge, ref: str, message: str | None = None) -> CommitOptions:
    """The options of the commit of a merge, at the branch as the plan found it."""
    plan = found.plan
    assert plan.ours is not None, "a merge has two sides"
    options = CommitOptions(plan.branch, base=plan.ours, edited=list(found.tables))
    if found.message is not None:
        return replace(
            options,
            message=message or found.message,
            parent=plan.ours,
            sources=() if found.source is None else (found.source,),
        )
    parents = f"v{plan.ours.number}", f"v{plan.theirs.number}"
    return replace(options, message=message or f"Merge {ref} into {plan.branch}", parents=parents)


def planned(
    access: Access,
    work: Workplace,
    dataset: DatasetRecord,
    how: MergeKind,
    ref: str,
    branch: str,
    options: MergeOptions,
    *,
    writes: bool,
    is_reviewed: bool = False,
) -> Merge:
    """Plan a merge. With `writes`, it is prepared to be carried out. Raises as `merge`, but for conflicts."""
    pointer_name(branch)
    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", dataset.id)
        if writes:
            authorize_move(access, tx, dataset.id, branch, is_reviewed=is_reviewed)
        version = resolve.version(tx, dataset, ref)
        ours = _head(tx, dataset, branch)
        outcome: Outcome = "merge"
        if how != "merge":
            ours = resolve.version(tx, dataset, branch)
            parent = versions.by_number(tx, dataset.id, version.parents[0]) if version.parents else None
            base, theirs = (parent, version) if how == "cherry-pick" else (version, parent)
            bases = [base] if base else []
        elif ours is None:
            _refuse_unused(options.resolutions)
            return Merge(MergePlan(dataset.name, branch, None, version, (), "fast-forward"))
        else:
            theirs = version
            bases = merge_bases(tx, dataset, ours, version)
            outcome = _outcome(ours, version, bases, options)
    plan = MergePlan(dataset.name, branch, ours.as_head, version, tuple(base.number for base in bases), outcome)
    if outcome == "up to date":
        return Merge(plan)
    newest: Side = "theirs" if version.created_at > ours.created_at else "ours"
    sides = three(access, work, bases, ours, theirs)
    found = planned_change(access, work, plan, sides, options, newest, writes=writes)
    found.plan = replace(found.plan, impact=_impact(access, dataset, found.plan))
    if how == "merge":
        return found
    found.source = theirs.id if theirs is not None else None
    found.message = (
        (version.message or f"Apply v{version.number}") if how == "cherry-pick" else f"Revert v{version.number}"
    )
    if not found.plan.components and not found.plan.conflicts:
        found.plan = replace(found.plan, outcome="up to date")
    return found


def _outcome(
    ours: VersionRecord, theirs: VersionRecord, bases: Sequence[VersionRecord], options: MergeOptions
) -> Outcome:
    numbers = [base.number for base in bases]
    if theirs.number in numbers:
        return "up to date"
    return "fast-forward" if ours.number in numbers and options.fast_forward else "merge"


def _head(tx: Transaction, dataset: DatasetRecord, branch: str) -> VersionRecord | None:
    """The head of a branch, None for a new one. Raises `InputError` for a tag."""
    found = versions.head(tx, dataset.id, branch)
    if found is not None and found.is_tag:
        raise InputError(
            f"{branch!r} is a tag of {dataset.name}, and tags do not move. Merge into a branch.", branch=branch
        )
    return versions.by_id(tx, found.id) if found is not None else None


def planned_change(
    access: Access,
    work: Workplace,
    plan: MergePlan,
    sides: tuple[Snapshot, Snapshot, Snapshot],
    options: MergeOptions,
    newest: Side = "theirs",
    *,
    writes: bool,
) -> Merge:
    """Decide every component that theirs changed. With `writes`, merged tables are written to the spool."""
    from dataset_registry.content.tables import stage_merged
    from dataset_registry.tabular.table_merge import merge_tables

    choose = chooser(options.strategies, newest)
    found = Merge(plan)
    with access.catalog.read() as tx:
        opened = _decided(access, tx, found, sides, choose, writes=writes and plan.outcome == "merge")
    unused = dict(options.resolutions)
    for key, tables, facts in opened:
        label = component_label(*key)
        by_key = options.plan in (None, plan.id)
        table = merge_tables(tables, choose, work.engine, unused.pop(label, None), by_key=by_key)
        found.tables[key] = table
        found.conflicts += table.conflicts
        if table.edits or table.is_rewritten or table.conflicts:
            lost = lost_columns(tables[1].schema, table.schema)
            found.components.append(MergedComponent(*key, "merged", *table.edits.counts, *lost))
        if writes and not table.conflicts:
            _put(
                found.change,
                sides[1].entries[key],
                sides[2].entries[key],
                stage_merged(access, work.spool, tables[1], table, facts),
            )
    _refuse_unused(unused)
    components = tuple(sorted(found.components, key=lambda c: (c.name, c.index)))
    found.plan = replace(plan, components=components)
    if found.conflicts and plan.outcome == "merge":
        found.plan = replace(found.plan, outcome="conflicts", conflicts=tuple(found.conflicts))
    return found


def _refuse_unused(resolutions: Mapping[str, object]) -> None:
    """Raise `InputError` for resolutions that no conflict needs."""
    for label in resolutions:
        raise InputError(
            f"There are resolutions for {label!r}, which has no rows in conflict in this merge.", component=label
        )


_Opened = list[tuple[ComponentKey, "tuple[StoredTable | None, StoredTable, StoredTable]", Mapping[int, FileFacts]]]


def _decided(
    access: Access,
    tx: Transaction,
    found: Merge,
    sides: tuple[Snapshot, Snapshot, Snapshot],
    choose: Choose,
    *,
    writes: bool,
) -> _Opened:
    """Take whole components and note conflicts. Returns the tables to merge by rows, with the facts of ours' files."""
    base, ours, theirs = sides
    opened: _Opened = []
    for key, decided in rules.merge_components(base.entries, ours.entries, theirs.entries).items():
        decision = decided
        if decision == "rows":
            before, mine, other = (side.table(access, tx, key) for side in sides)
            if mine is not None and other is not None:
                facts = files.facts_of(tx, [file.id for file in mine.files])
                opened.append((key, (before, mine, other), facts))
                continue
            decision = "both changed"
        choice: str | None = decision
        if decision in ("both changed", "delete/modify"):
            choice = choose(decision, key[0], None)
            if choice == "union" and decision == "delete/modify":
                choice = "ours" if key in ours.entries else "theirs"
        if choice == "theirs":
            action: Action = "added" if key not in ours.entries else "replaced" if key in theirs.entries else "removed"
            lost = _lost_by_replacement(access, tx, key, ours, theirs) if action == "replaced" else ((), ())
            found.components.append(MergedComponent(*key, action, 0, 0, 0, *lost))
            if writes:
                _take(access, tx, found.change, key, theirs)
        elif choice != "ours":
            found.conflicts.append(_conflict(key, decision, sides))
    return opened


def lost_columns(before: TableSchema, after: TableSchema) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of a table that another one lacks, and those whose type there does not hold all of their values."""
    there = {column.name: column for column in after.columns}
    dropped = tuple(column.name for column in before.columns if column.name not in there)
    kept = [column for column in before.columns if column.name in there]
    return dropped, tuple(c.name for c in kept if not widens(c.type, there[c.name].type))


def _lost_by_replacement(
    access: Access, tx: Transaction, key: ComponentKey, ours: Snapshot, theirs: Snapshot
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of a component that the one in its place lacks or has with another type."""
    if ours.entries[key].schema_id == theirs.entries[key].schema_id:
        return (), ()
    before, after = ours.table(access, tx, key), theirs.table(access, tx, key)
    return lost_columns(before.schema, after.schema) if before is not None and after is not None else ((), ())


def _impact(access: Access, dataset: DatasetRecord, plan: MergePlan) -> tuple[Impact, ...]:
    """The heads of the branch that may read what a merge drops or retypes."""
    losing = [c for c in plan.components if c.dropped or c.retyped or c.action == "removed"]
    if not losing:
        return ()
    with access.catalog.read() as tx:
        heads = productions.heads_built_from(tx, dataset.id, plan.branch, readable(access, tx))
    return tuple(
        Impact(name, number, component_label(c.name, c.index), (*c.dropped, *c.retyped))
        for name, number, read in heads
        for c in losing
        if not read or c.name in read
    )


def _put(change: Change, ours: Entry, theirs: Entry, staged: Any) -> None:
    metadata = json.loads(ours.metadata or theirs.metadata or "{}")
    change.add(ours.name, ours.index, StagedComponent(staged, ours.type, metadata))


def _take(access: Access, tx: Transaction, change: Change, key: ComponentKey, theirs: Snapshot) -> None:
    """Take a component from theirs, or remove it."""
    from dataset_registry.content.tables import staged_as_stored

    entry = theirs.entries.get(key)
    if entry is None:
        change.remove(*key)
        return
    assert theirs.version_id is not None, "a version has its components"
    _put(change, entry, entry, staged_as_stored(access, tx, theirs.version_id, entry))


def _conflict(key: ComponentKey, kind: Any, sides: Sequence[Snapshot]) -> Conflict:
    states = [None if (e := side.entries.get(key)) is None else e.content_hash[:12] for side in sides]
    formats = {side.entries[key].format for side in sides if key in side.entries}
    reason = (
        "" if kind != "both changed" else f"only tables are merged by rows, and this is {', '.join(sorted(formats))}"
    )
    return Conflict(kind, *key, None, 0, states[0], states[1], states[2], reason)


def planned_revert(
    access: Access,
    work: Workplace,
    dataset: DatasetRecord,
    span: tuple[VersionRecord, VersionRecord],
    branch: str,
    run_id: str,
    options: MergeOptions,
    *,
    writes: bool,
) -> Merge:
    """Plan to undo a span of versions of a branch, from the first to the last. Raises as `merge`, but for conflicts."""
    first, last = span
    with access.catalog.snapshot() as tx:
        if writes:
            authorize_commit(access, tx, dataset, branch)
        ours = resolve.version(tx, dataset, branch)
        before = versions.by_number(tx, dataset.id, first.parents[0]) if first.parents else None
    plan = MergePlan(dataset.name, branch, ours.as_head, last, (last.number,), "merge")
    sides = three(access, work, [last], ours, before)
    found = planned_change(access, work, plan, sides, options, writes=writes)
    found.message = f"Revert run {run_id}"
    found.source = before.id if before is not None else None
    if not found.plan.components and not found.plan.conflicts:
        found.plan = replace(found.plan, outcome="up to date")
    return found
