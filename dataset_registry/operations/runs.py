"""Runs as units: what a run wrote and read, taking it out of a branch, and whether the heads of a branch belong together."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from dataset_registry.access import Access, readable
from dataset_registry.catalog import Transaction, datasets, productions, versions
from dataset_registry.content.upload import BytesGone
from dataset_registry.content.workplace import Workplace, workplace
from dataset_registry.errors import BranchMoved, ConflictError, InputError, MergeConflict, NotFound
from dataset_registry.model import history
from dataset_registry.model.merge_plans import MergeOptions
from dataset_registry.model.names import MAIN, pointer_name, single_line
from dataset_registry.model.publishing import Consistency, Place, RevertPlan, Run, RunVersion, Torn, impossible
from dataset_registry.model.records import DatasetRecord, Head, VersionRecord
from dataset_registry.operations import merge, publish, resolve
from dataset_registry.operations.merge import Merge

_ATTEMPTS = 5
"""How often a run is taken out if a branch moves during it."""


def run(access: Access, run_id: str) -> Run:
    """The versions that a run wrote and read, of datasets that the actor may read. Raises `NotFound`."""
    single_line(run_id, "run")
    with access.catalog.read() as tx:
        made = productions.of_run(tx, run_id, readable(access, tx))
        names = {dataset_id: datasets.get(tx, dataset_id).name for dataset_id in {d for d, _, _ in made}}
    if not made:
        raise NotFound(f"No version was written by a run {run_id!r}. List runs with version.productions.", run=run_id)
    wrote = [RunVersion(names[d], p.version, p.branch, p.unchanged) for d, _, p in made]
    read = dict.fromkeys(RunVersion(i.dataset, i.version) for _, _, p in made for i in p.provenance.inputs)
    return Run(run_id, tuple(wrote), tuple(read))


# --- taking a run out --------------------------------------------------------------------------------------------------


def plan_revert(access: Access, run_id: str, branch: str, options: MergeOptions) -> RevertPlan:
    """The plan of undoing what a run wrote to a branch. Nothing is changed. Raises `NotFound`, `InputError`."""
    with workplace(access) as work:
        return _planned(access, work, run_id, branch, options, writes=False)[0]


def revert(
    access: Access, run_id: str, branch: str, options: MergeOptions, *, force: bool = False
) -> tuple[RevertPlan, list[VersionRecord]]:
    """Undo what a run wrote to a branch, in all of its datasets, in one transaction. Returns the plan and the new heads.

    Raises `ConflictError` if versions on the branch were built from its versions (unless `force`), `MergeConflict` if later
    versions changed the same rows, `NotFound`, `InputError`.
    """
    for attempt in range(_ATTEMPTS):
        with workplace(access) as work:
            plan, found = _planned(access, work, run_id, branch, options, writes=True)
            _refuse(plan, force=force)
            changed = [(dataset, made) for dataset, made in found if made.plan.outcome == "merge"]
            try:
                return plan, publish.apply_merges(access, work.spool, changed, run_id, options.message, "run.revert")
            except (BranchMoved, BytesGone):
                if attempt == _ATTEMPTS - 1:
                    raise
    raise AssertionError("the last attempt returns or raises")


def _planned(
    access: Access, work: Workplace, run_id: str, branch: str, options: MergeOptions, *, writes: bool
) -> tuple[RevertPlan, list[tuple[DatasetRecord, Merge]]]:
    pointer_name(branch)
    run(access, run_id)
    with access.catalog.snapshot() as tx:
        written = _written(access, tx, run_id, branch)
        if not written:
            raise NotFound(f"The run {run_id!r} wrote no version to {branch!r}.", run=run_id, branch=branch)
        built_on = _built_on(access, tx, branch, [v for _, found in written for v in found])
    found = []
    for dataset, mine in written:
        made = merge.planned_revert(access, work, dataset, (mine[0], mine[-1]), branch, run_id, options, writes=writes)
        found.append((dataset, made))
    return RevertPlan(run_id, branch, tuple(made.plan for _, made in found), tuple(built_on)), found


def _written(
    access: Access, tx: Transaction, run_id: str, branch: str
) -> list[tuple[DatasetRecord, list[VersionRecord]]]:
    """The versions that a run created on a branch, by dataset, oldest first. Raises `InputError` if others are between."""
    versions_of: dict[int, list[VersionRecord]] = {}
    for dataset_id, version_id, production in productions.of_run(tx, run_id, readable(access, tx)):
        version = versions.by_id(tx, version_id)
        if version is not None and not production.unchanged:
            versions_of.setdefault(dataset_id, []).append(version)
    found = []
    for dataset_id, made in sorted(versions_of.items()):
        dataset = datasets.get(tx, dataset_id)
        head = versions.head(tx, dataset_id, branch)
        if head is None:
            continue
        there = _ancestors(tx, dataset_id, head.number)
        mine = sorted((v for v in made if v.number in there), key=lambda v: v.number)
        for before, after in pairwise(mine):
            if after.parents[:1] != (before.number,):
                raise InputError(
                    f"Between v{before.number} and v{after.number} of {dataset.name}, which the run {run_id!r} wrote, are "
                    "versions of others. Revert its versions one by one: dataset.revert().",
                    dataset=dataset.name,
                )
        if mine:
            found.append((dataset, mine))
    return found


def _built_on(access: Access, tx: Transaction, branch: str, mine: Sequence[VersionRecord]) -> list[tuple[str, int]]:
    """The versions on the branch that were built from these, and are not among them."""
    own = {(version.dataset, version.number) for version in mine}
    found = {
        consumer for version in mine for consumer in productions.consumers(tx, version.id, readable(access, tx))
    } - own
    return sorted((name, number) for name, number in found if _is_on(access, tx, name, number, branch))


def _is_on(access: Access, tx: Transaction, name: str, number: int, branch: str) -> bool:
    dataset = resolve.dataset(access, tx, name)
    head = versions.head(tx, dataset.id, branch)
    return head is not None and number in _ancestors(tx, dataset.id, head.number)


def _ancestors(tx: Transaction, dataset_id: int, number: int) -> set[int]:
    """The numbers of a version and its ancestors."""
    return {node.number for node in history.ancestors(number, versions.below(tx, dataset_id, number))}


def _refuse(plan: RevertPlan, *, force: bool) -> None:
    if plan.built_on and not force:
        listed = ", ".join(f"{name}@v{number}" for name, number in plan.built_on[:10])
        raise ConflictError(
            f"Versions of {plan.branch!r} were built from what the run {plan.run!r} wrote: {listed}. Revert their runs first, or "
            "revert it all the same with force=True.",
            run=plan.run,
            versions=[f"{name}@v{number}" for name, number in plan.built_on],
        )
    if conflicts := [p for p in plan.merges if p.conflicts]:
        listed = "; ".join(f"{p.dataset}: {p.conflicts[0]}" for p in conflicts[:5])
        raise MergeConflict(
            f"Later versions changed what the run {plan.run!r} wrote: {listed}. Nothing was changed. Pass a strategy: theirs "
            "undoes the run there, too; ours keeps the later values.",
            run=plan.run,
            datasets=[p.dataset for p in conflicts],
        )


# --- whether heads belong together -------------------------------------------------------------------------------------


def consistency(access: Access, branch: str) -> Consistency:
    """The heads of a branch that no sequence of runs could have made together, with the input that is to blame.

    A head's inputs must be heads or ancestors of the heads of their datasets on the branch (where a dataset lacks it, of main),
    and there must be an order in which each version read the newest inputs that there were.
    """
    pointer_name(branch)
    with access.catalog.snapshot() as tx:
        records = {d.id: d for d in datasets.all_of(tx, "", readable(access, tx))}
        heads = {dataset_id: head for dataset_id in records if (head := _head(tx, dataset_id, branch)) is not None}
        own = {dataset_id for dataset_id in heads if versions.head(tx, dataset_id, branch) is not None}
        if not own:
            raise NotFound(f"No dataset has a branch {branch!r}.", branch=branch)
        inputs, found = _closure(tx, records, heads, own)
        ancestors = {place: _ancestors(tx, *place) for place in inputs}
    for place, source in impossible(inputs, ancestors):
        reason = "and no sequence of runs reads that beside the other heads"
        found.append(Torn(records[place[0]].name, place[1], records[source[0]].name, source[1], reason))
    return Consistency(branch, tuple(sorted(found, key=lambda t: (t.dataset, t.version, t.input))))


def _head(tx: Transaction, dataset_id: int, branch: str) -> Head | None:
    return versions.head(tx, dataset_id, branch) or versions.head(tx, dataset_id, MAIN)


def _closure(
    tx: Transaction, records: Mapping[int, DatasetRecord], heads: Mapping[int, Head], own: Collection[int]
) -> tuple[dict[Place, list[Place]], list[Torn]]:
    """The inputs of the heads and of what they were built from; and the inputs that are not in the history of a head."""
    inputs: dict[Place, list[Place]] = {}
    found: list[Torn] = []
    reachable = {dataset_id: _ancestors(tx, dataset_id, head.number) for dataset_id, head in heads.items()}
    waiting = [(dataset_id, heads[dataset_id].id, heads[dataset_id].number) for dataset_id in own]
    while waiting:
        reads = productions.reads_of(tx, [version_id for _, version_id, _ in waiting])
        following = []
        for dataset_id, version_id, number in waiting:
            place = (dataset_id, number)
            if place in inputs:
                continue
            inputs[place] = []
            made = reads.get(version_id, []) or _reads_of_parents(tx, dataset_id, number)
            for read in made:
                if read.dataset_id is None or read.dataset_id not in records or read.dataset_id == dataset_id:
                    continue
                reason = None
                if read.version_id is None:
                    reason = "which was deleted"
                elif read.dataset_id not in heads:
                    reason = "which is on no such branch"
                elif read.number not in reachable[read.dataset_id]:
                    reason = f"which is not in the history of v{heads[read.dataset_id].number}, the head"
                if reason is not None:
                    found.append(Torn(records[dataset_id].name, number, read.dataset, read.number, reason))
                    continue
                assert read.version_id is not None, "checked"
                inputs[place].append((read.dataset_id, read.number))
                following.append((read.dataset_id, read.version_id, read.number))
        waiting = following
    return inputs, found


def _reads_of_parents(tx: Transaction, dataset_id: int, number: int) -> list[productions.LinkedRead]:
    """The inputs of the parents of a merge, which has none of its own."""
    version = versions.by_number(tx, dataset_id, number)
    if version is None or len(version.parents) < 2:
        return []
    parents = versions.numbered(tx, dataset_id, version.parents)
    reads = productions.reads_of(tx, [parent.id for parent in parents])
    return list(dict.fromkeys(read for parent in parents for read in reads.get(parent.id, [])))
