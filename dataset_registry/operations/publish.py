"""Publishing: the branches of many datasets are merged, and all pointers move in one transaction, or none."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from uuid import UUID, uuid4

from dataset_registry.access import Access, authorize_move, level_on, readable
from dataset_registry.catalog import Transaction, datasets, pointers, productions, versions
from dataset_registry.content.pack import PackPlan
from dataset_registry.content.upload import BytesGone, Upload
from dataset_registry.content.workplace import Workplace, workplace
from dataset_registry.errors import BranchMoved, ConflictError, MergeConflict, NotFound, RetryLater
from dataset_registry.model.actors import level
from dataset_registry.model.merge_plans import MergeOptions
from dataset_registry.model.names import pointer_name
from dataset_registry.model.publishing import MovedInput, PublishPlan
from dataset_registry.model.records import DatasetRecord, VersionRecord
from dataset_registry.operations import audit, commit, gates, merge
from dataset_registry.operations.merge import Merge
from dataset_registry.store import Spool

_ATTEMPTS = 5
"""How often a publication is planned if a branch moves during it."""


def plan(access: Access, branch: str, into: str, names: Sequence[str] | None, options: MergeOptions) -> PublishPlan:
    """The plan of publishing a branch: a merge for each dataset in which it has versions that the target lacks.

    Nothing is changed. Raises `NotFound` if no dataset has the branch.
    """
    with workplace(access) as work:
        found = _planned(access, work, branch, into, names, options, writes=False)
    return _plan_of(access, branch, into, found)


def publish(
    access: Access,
    branch: str,
    into: str,
    names: Sequence[str] | None,
    options: MergeOptions,
    *,
    allow_moved_inputs: bool = False,
    finish: "Finish | None" = None,
) -> tuple[PublishPlan, list[VersionRecord]]:
    """Merge a branch into another in all of its datasets, in one transaction. Returns the plan and the new heads.

    `finish` is what a review does in the same transaction: with it, branches move that take a review.
    Raises `MergeConflict` for conflicts in any dataset; `ConflictError` if the target moved under an input of a version that
    would be published; `NotFound`, `PermissionDenied`, `BranchMoved`. Then nothing is changed.
    """
    for attempt in range(_ATTEMPTS):
        with workplace(access) as work:
            found = _planned(access, work, branch, into, names, options, writes=True, is_reviewed=finish is not None)
            planned = _plan_of(access, branch, into, found)
            _refuse(planned, allow_moved_inputs=allow_moved_inputs)
            try:
                return planned, apply_merges(access, work.spool, found, branch, options.message, "publish", finish)
            except (BranchMoved, BytesGone):
                if attempt == _ATTEMPTS - 1:
                    raise
    raise RetryLater("The branches moved repeatedly during the publication. Try again.")


def _planned(
    access: Access,
    work: Workplace,
    branch: str,
    into: str,
    names: Sequence[str] | None,
    options: MergeOptions,
    *,
    writes: bool,
    is_reviewed: bool = False,
) -> list[tuple[DatasetRecord, Merge]]:
    """The merges of the datasets that have the branch, without those that are up to date; in the order of their ids."""
    pointer_name(branch), pointer_name(into)
    with access.catalog.read() as tx:
        among = list(datasets.all_of(tx, "", readable(access, tx)))
        heads = pointers.of_each(tx, [dataset.id for dataset in among])
    there = [d for d in among if any(p.name == branch and not p.is_tag for p in heads.get(d.id, ()))]
    chosen = [d for d in there if names is None or any(fnmatchcase(d.name, pattern) for pattern in names)]
    if not there or (names is not None and not chosen):
        what = f"among {', '.join(names)}" if names is not None and there else ""
        raise NotFound(f"No dataset {what} has a branch {branch!r}.".replace("  ", " "), branch=branch)
    found = []
    for dataset in sorted(chosen, key=lambda d: d.id):
        made = merge.planned(
            access, work, dataset, "merge", branch, into, options, writes=writes, is_reviewed=is_reviewed
        )
        if made.plan.outcome != "up to date":
            found.append((dataset, made))
    return found


def _plan_of(access: Access, branch: str, into: str, found: Sequence[tuple[DatasetRecord, Merge]]) -> PublishPlan:
    plans = {dataset.id: made.plan for dataset, made in found}
    moved = []
    with access.catalog.read() as tx:
        reads = productions.reads_of(tx, [p.theirs.id for p in plans.values()])
        for dataset_id, plan in plans.items():
            for read in reads.get(plan.theirs.id, ()):
                if read.dataset_id is None or read.dataset_id == dataset_id:
                    continue
                if level_on(access, tx, read.dataset_id) < level("read"):
                    continue
                other = plans.get(read.dataset_id)
                head: int | None = None
                if other is not None:
                    if other.outcome == "fast-forward" and other.theirs.id == read.version_id:
                        continue
                    head = other.theirs.number if other.outcome == "fast-forward" else None
                else:
                    now = versions.head(tx, read.dataset_id, into)
                    if now is None or now.id == read.version_id:
                        continue
                    if read.version_id is not None:
                        was = versions.by_id(tx, read.version_id)
                        if was is not None and was.digest == now.digest:
                            continue
                    head = now.number
                moved.append(MovedInput(plan.dataset, plan.theirs.number, read.dataset, read.number, head))
    return PublishPlan(branch, into, tuple(made.plan for _, made in found), tuple(moved))


def _refuse(plan: PublishPlan, *, allow_moved_inputs: bool) -> None:
    """Raise `MergeConflict` or `ConflictError` for a plan that cannot be carried out."""
    if plan.conflicts:
        listed = "; ".join(f"{p.dataset}: {p.conflicts[0]}" for p in plan.conflicts[:5])
        raise MergeConflict(
            f"{plan.branch!r} cannot be published into {plan.into!r} without a decision. {listed}. Nothing was changed. Merge "
            "these datasets one by one, or pass a strategy: ours, theirs, union or newest.",
            branch=plan.branch,
            datasets=[p.dataset for p in plan.conflicts],
        )
    if plan.moved and not allow_moved_inputs:
        raise ConflictError(
            f"{plan.branch!r} was not published: {'; '.join(map(str, plan.moved[:5]))}. Run the pipeline again on "
            f"{plan.branch!r}, or publish it as it is with allow_moved_inputs=True.",
            branch=plan.branch,
            datasets=sorted({moved.input for moved in plan.moved}),
        )


Finish = Callable[[Transaction, Sequence[tuple[DatasetRecord, Merge]], Sequence[VersionRecord]], None]
"""What is done at the end of the transaction of a publication: it gets the merges and the new heads."""


def apply_merges(
    access: Access,
    spool: Spool,
    found: Sequence[tuple[DatasetRecord, Merge]],
    ref: str,
    message: str | None,
    action: str,
    finish: Finish | None = None,
) -> list[VersionRecord]:
    """Carry out merges of several datasets in one transaction. Returns the new heads. Raises `BranchMoved`, `BytesGone`."""
    if not found and finish is None:
        return []
    stored: list[tuple[DatasetRecord, Merge, UUID, PackPlan, Upload]] = []
    for dataset, made in found:
        contents = PackPlan(), Upload()
        if made.plan.outcome == "merge":
            options = merge.commit_options(made, ref, message)
            contents = commit.upload_contents(access, spool, dataset, made.change, options, is_careful=True)
        stored.append((dataset, made, uuid4(), *contents))

    def work(tx: Transaction) -> list[VersionRecord]:
        heads = []
        for dataset, made, uuid, plan, upload in stored:
            if made.plan.outcome == "merge":
                options = merge.commit_options(made, ref, message)
                heads.append(commit.commit_in(access, dataset, made.change, options, uuid, plan, upload, tx).version)
            else:
                heads.append(_move(access, tx, dataset, made, is_reviewed=finish is not None))
            if action == "publish":  # into any branch, protected or not
                before = made.plan.ours.id if made.plan.ours else None
                gates.guard(tx, dataset, made.plan.branch, heads[-1].id, before, always=True)
        names = [dataset.name for dataset, *_ in stored]
        audit.note(access, tx, action, ref=ref, datasets=names)
        if finish is not None:
            finish(tx, [(dataset, made) for dataset, made, *_ in stored], heads)
        return heads

    return access.catalog.write(work)


def _move(access: Access, tx: Transaction, dataset: DatasetRecord, made: Merge, *, is_reviewed: bool) -> VersionRecord:
    """Move a branch forward, if it is where the plan found it."""
    plan = made.plan
    authorize_move(access, tx, dataset.id, plan.branch, is_reviewed=is_reviewed)
    pointers.lock(tx, dataset.id, plan.branch)
    head = versions.head(tx, dataset.id, plan.branch)
    if (head.id if head else None) != (plan.ours.id if plan.ours else None):
        raise BranchMoved(
            f"{dataset.name}@{plan.branch} moved in the meantime. Nothing was published; try again.",
            dataset=dataset.name,
            branch=plan.branch,
        )
    if not versions.share(tx, [plan.theirs.id]):
        raise NotFound(f"v{plan.theirs.number} of {dataset.name} was deleted in the meantime.", dataset=dataset.name)
    if head is None:
        pointers.create(tx, dataset.id, plan.branch, plan.theirs.id, is_tag=False)
    else:
        pointers.move(tx, dataset.id, plan.branch, plan.theirs.id)
    audit.note(
        access,
        tx,
        "branch.move" if head else "branch.create",
        (dataset.id, dataset.name),
        ref=plan.branch,
        before=f"v{head.number}" if head else None,
        after=f"v{plan.theirs.number}",
    )
    return plan.theirs
