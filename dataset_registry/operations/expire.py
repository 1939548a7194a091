"""Expiring: deleting the versions that no rule of a policy keeps, also from the middle of histories.

A plan is made first, then applied: versions that are needed by then are kept.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from dataset_registry.access import Access, administer, authorize, level_on
from dataset_registry.catalog import Transaction, datasets, manifests, pointers, retention, taints, versions
from dataset_registry.errors import NotFound
from dataset_registry.model.actors import level
from dataset_registry.model.history import reached_from
from dataset_registry.model.maintenance import DatasetExpiry, Dated, Expired, ExpirePlan
from dataset_registry.model.names import single_line
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.records import DatasetRecord, PointerRecord, VersionRecord
from dataset_registry.model.retention import Moment, Policy, kept_in_each
from dataset_registry.operations import audit, gates
from dataset_registry.operations.datasets import remove as remove_dataset

IN_USE_SECONDS = 24 * 3600
"""How long a run counts as running when no list of live runs is given."""

_JUST_NOW = 3600
"""A run that read or wrote within this many seconds counts as running even when a list of runs does not have it."""

_CHUNK = 200
"""Maximum number of versions that one transaction deletes."""


@dataclass(slots=True)
class _Judged:
    """A dataset during planning: its versions, and the reasons to keep some of them."""

    dataset: DatasetRecord
    versions: list[Dated]
    reasons: dict[int, str] = field(default_factory=dict)
    heads: dict[int, str] = field(default_factory=dict)
    """Heads of branches that are kept only if another version of the dataset is."""

    def keep_heads(self) -> None:
        """Keep the heads of a dataset that is not deleted."""
        if self.reasons:
            self.reasons = {**self.heads, **self.reasons}

    def expiring(self) -> list[Dated]:
        return [version for version in self.versions if version.number not in self.reasons]


def plan(
    access: Access,
    policy: Policy,
    *,
    live_runs: Collection[str] | None = None,
    now: datetime | None = None,
) -> ExpirePlan:
    """Plan an expiry by a policy, now or at a given time. Changes nothing.

    `live_runs` are the ids of unfinished pipeline runs, whose inputs and outputs are kept; without it, all runs of the
    last day count as unfinished.
    """
    now = now or datetime.now(UTC)
    with access.catalog.snapshot() as tx:
        administer(access, tx)
        records = [record for record in datasets.all_of(tx, "") if policy.concerns(record.name)]
        ids = [record.id for record in records]
        found_in, named_in = retention.dated(tx, ids), pointers.of_each(tx, ids)
        judged = [
            _judge(record, found_in.get(record.id, []), named_in.get(record.id, []), policy, now) for record in records
        ]
        used = retention.in_use(tx, live_runs, IN_USE_SECONDS, _JUST_NOW)
        with_taints = taints.datasets_with(tx)
        for found in judged:
            found.reasons.update((v.number, "read or written by a run") for v in found.expiring() if v.id in used)
            if found.dataset.id not in with_taints:
                continue
            tainted = gates.needed(tx, found.dataset.id, {v.id for v in found.versions})
            found.reasons.update(
                (v.number, "tainted, and others have its content") for v in found.expiring() if v.id in tainted
            )
        for found in judged:
            found.keep_heads()
        if policy.keep_inputs:
            _keep_inputs(judged, retention.consumption(tx))
            for found in judged:
                found.keep_heads()
        dying = [version.id for found in judged for version in found.expiring()]
        return ExpirePlan(
            tuple(DatasetExpiry(found.dataset, found.reasons, tuple(reversed(found.expiring()))) for found in judged),
            retention.bytes_only_in(tx, dying) if dying else 0,
            policy.keep_inputs,
        )


def _judge(
    record: DatasetRecord, found: list[Dated], named: Sequence[PointerRecord], policy: Policy, now: datetime
) -> _Judged:
    """Apply the rules to the history of each branch, and to versions on no branch, in one scan of the versions.

    A pointer at a version takes precedence over a rule as the reason; of several branches, the first one.
    """
    branches = [pointer for pointer in named if not pointer.is_tag]
    rules = [policy.rule_for(record.name, branch.name) for branch in branches]
    reached = reached_from([branch.version_number for branch in branches], found)
    on_no_branch = 1 << len(branches)
    histories = {version.number: reached.get(version.number, on_no_branch) for version in found}
    places = [f"on {branch.name}" for branch in branches] + ["on no branch"]
    moments = [Moment(version.number, version.created_at) for version in found]
    kept = kept_in_each([*rules, policy.rule_for_rest(record.name)], moments, histories, now)
    reasons = {
        number: reason or f"{places[history]}, for which there is no rule" for number, (history, reason) in kept.items()
    }
    heads: dict[int, str] = {}
    reasons |= {p.base: f"base of {p.name}" for p in reversed(named) if p.base is not None}
    for branch, rule in zip(branches, rules, strict=True):
        named_by = heads if rule is not None and rule.heads else reasons
        named_by[branch.version_number] = f"head of {branch.name}"
    reasons |= {pointer.version_number: f"tag {pointer.name}" for pointer in named if pointer.is_tag}
    return _Judged(record, found, reasons, heads)


def _keep_inputs(judged: Sequence[_Judged], consumption: Sequence[tuple[int, int]]) -> None:
    """Keep the inputs of kept versions, transitively."""
    dying = {version.id: (found, version) for found in judged for version in found.expiring()}
    consumers: dict[int, set[int]] = {}
    for consumer, made_from in consumption:
        if made_from in dying:
            consumers.setdefault(made_from, set()).add(consumer)
    changed = True
    while changed:
        saved = [made_from for made_from, by in consumers.items() if any(c not in dying for c in by)]
        changed = bool(saved)
        for version_id in saved:
            found, version = dying.pop(version_id)
            del consumers[version_id]
            found.reasons[version.number] = "a kept version was made from it"


def apply(
    access: Access, planned: ExpirePlan, *, live_runs: Collection[str] | None = None, progress: Progress = silent
) -> Expired:
    """Delete the versions of a plan, except those that a branch, a tag or a run uses by now.

    Their children become children of the nearest kept ancestor.
    """
    with access.catalog.read() as tx:
        administer(access, tx)
    deleted = 0
    dying = frozenset(version.id for found in planned.datasets for version in found.expiring)
    for found in planned.datasets:
        ids = [version.id for version in found.expiring]
        if ids and not found.kept:
            deleted += access.catalog.write_to_free(partial(_delete_dataset, access, found.dataset, ids, live_runs))
            continue
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            work = partial(_delete, access, found.dataset, chunk, live_runs, dying if planned.keep_inputs else None)
            deleted += access.catalog.write_to_free(work)
            progress(f"expiring versions of {found.dataset.name}", start + len(chunk), len(ids))
    return Expired(deleted, planned.versions - deleted)


def _delete(
    access: Access,
    dataset: DatasetRecord,
    ids: Sequence[int],
    live_runs: Collection[str] | None,
    dying: Collection[int] | None,
    tx: Transaction,
) -> int:
    administer(access, tx)
    there = retention.lock(tx, dataset.id, ids)
    dataset = datasets.by_id(tx, dataset.id) or dataset
    # Statements of their own, after the lock: a transaction that came to point at one of them has committed by now.
    needed = retention.pointed_at(tx, there) | retention.in_use(tx, live_runs, IN_USE_SECONDS, _JUST_NOW)
    needed |= gates.needed(tx, dataset.id, there)
    if dying is not None:
        needed |= retention.needed_as_inputs(tx, there, dying)
    gone = [version_id for version_id in there if version_id not in needed]
    if gone:
        retention.splice_out(tx, gone)
        manifests.drop(tx, gone)
        versions.remove(tx, gone)
        audit.note(access, tx, "expire", (dataset.id, dataset.name), versions=len(gone))
    return len(gone)


def _delete_dataset(
    access: Access, dataset: DatasetRecord, ids: Sequence[int], live_runs: Collection[str] | None, tx: Transaction
) -> int:
    """Delete a dataset without kept versions, unless it has a new version or tag, or a run uses it."""
    administer(access, tx)
    datasets.lock(tx, dataset.id)
    there = set(versions.ids_of(tx, dataset.id))
    is_tagged = any(pointer.is_tag for pointer in pointers.all_of(tx, dataset.id))
    if is_tagged or there != set(ids) or there & retention.in_use(tx, live_runs, IN_USE_SECONDS, _JUST_NOW):
        return 0
    return remove_dataset(access, tx, dataset)


# --- what runs use -------------------------------------------------------------------------------------------------

_NOTED_FOR = 3600
"""Seconds between two records of the same read."""


def note_read(access: Access, version: VersionRecord, run_id: str) -> None:
    """Record that a pipeline run reads a version, which protects it from expiry. With read permission only, the
    protection ends a week after the actor's first read. Raises `NotFound` if the version was deleted."""
    single_line(run_id, "run_id")
    with access.catalog.read() as tx:
        authorize(access, tx, "read", version.dataset_id)
        if retention.was_read_lately(tx, run_id, version.id, _NOTED_FOR):
            return

    def work(tx: Transaction) -> None:
        if versions.by_id(tx, version.id) is None or not versions.share(tx, [version.id]):
            raise NotFound(
                f"v{version.number} of {version.dataset} was deleted in the meantime. Resolve the branch again.",
                version=version.number,
            )
        may_write = level_on(access, tx, version.dataset_id) >= level("write")
        retention.note_read(tx, run_id, version.id, None if may_write else access.user_id(tx))

    access.catalog.write(work)
