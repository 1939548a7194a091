"""Reviews of branches: a branch beside its target over all datasets, comments, verdicts, and the merge.

An approval is of exact versions: it counts for a dataset while the branch is at the version that was approved. Where a
protection takes approvals or checks, the target can only move to that version, so what lands is what was approved.
docs/design/reviews.md has the rules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dataset_registry.access import Access, authorize_move, is_administrator, level_on, readable
from dataset_registry.catalog import Transaction, datasets, grants, overview, pointers, reviews, users, versions
from dataset_registry.catalog.grants import Barrier
from dataset_registry.catalog.reviews import ReviewedHead
from dataset_registry.errors import AlreadyExists, ConflictError, InputError, NotFound, PermissionDenied
from dataset_registry.model import history
from dataset_registry.model.actors import level
from dataset_registry.model.merge_plans import MergeOptions
from dataset_registry.model.names import pointer_name
from dataset_registry.model.records import DatasetRecord, VersionRecord
from dataset_registry.model.reviews import (
    EVENT_KINDS,
    REVIEW_STATES,
    EventKind,
    Review,
    ReviewDetails,
    ReviewedDataset,
    ReviewState,
    Verdict,
    review_text,
    review_title,
    seen_digest,
    standing_verdicts,
)
from dataset_registry.operations import audit, gates, publish
from dataset_registry.operations.merge import Merge

_PAGE = 500
"""Versions per query of a walk."""


def create(access: Access, branch: str, target: str, title: str, description: str | None) -> Review:
    """Create a review of a branch, which is to be merged into a target in all datasets that have it.

    Raises `NotFound` (no dataset has the branch), `AlreadyExists` (an open one of the same branch and target), `InputError`,
    `PermissionDenied` (it takes `write` on one of the datasets).
    """
    branch, target, title = pointer_name(branch), pointer_name(target), review_title(title)
    description = review_text(description, "description")
    if branch == target:
        raise InputError(f"A review is of a branch and another one, not of {branch!r} and itself.", branch=branch)

    def work(tx: Transaction) -> Review:
        heads = _heads(access, tx, branch)
        if not any(level_on(access, tx, dataset_id) >= level("write") for dataset_id in heads):
            raise PermissionDenied(
                f"{access.actor.name} may not write to any dataset with the branch {branch!r}. Ask someone who may to create "
                "the review.",
                branch=branch,
            )
        for other in reviews.all_of(tx, readable(access, tx), state="open", branch=branch):
            if other.target == target:
                raise AlreadyExists(f"The review #{other.id} of {branch!r} is open already.", review=other.id)
        if any(pointer.is_tag for pointer in pointers.named(tx, list(heads), target)):
            raise InputError(f"{target!r} is a tag in a dataset of this branch, and tags never move.", branch=target)
        review_id = reviews.create(tx, branch, target, title, description, access.user_id(tx), heads)
        audit.note(access, tx, "review.create", ref=branch, after=target, review=review_id)
        return _get(access, tx, review_id)

    return access.catalog.write(work)


def list_all(
    access: Access,
    *,
    state: str | None = None,
    branch: str | None = None,
    before: int | None = None,
    limit: int | None = None,
) -> list[Review]:
    """The reviews of datasets that the actor may read, newest first. Raises `InputError` for an unknown state."""
    if state is not None and state not in REVIEW_STATES:
        raise InputError(f"Invalid state of a review {state!r}. Use one of: {', '.join(REVIEW_STATES)}.", state=state)
    wanted: ReviewState | None = state
    with access.catalog.read() as tx:
        return reviews.all_of(tx, readable(access, tx), state=wanted, branch=branch, before=before, limit=limit)


def details(access: Access, review_id: int) -> ReviewDetails:
    """A review with its datasets, as far as the actor may read them, comments and verdicts. Raises `NotFound`."""
    with access.catalog.snapshot() as tx:
        review = _get(access, tx, review_id)
        found = reviews.events_of(tx, review_id)
        verdicts = [verdict for _, verdict in found]
        if review.state == "open":
            state = _Standing(access, tx, review, verdicts)
            listed = [state.of(dataset_id) for dataset_id in state.heads]
            current: dict[int, int | None] = {dataset_id: head.id for dataset_id, head in state.heads.items()}
        else:
            over = reviews.datasets_of(tx, review_id)
            listed = _merged(access, tx, over)
            current = {dataset_id: head.head_id for dataset_id, (_, head) in over.items()}
        events = [
            event if not verdict.heads else replace(event, is_current=_is_current(verdict, current))
            for event, verdict in found
        ]
    return ReviewDetails(review, tuple(sorted(listed, key=lambda d: d.dataset)), tuple(events))


def _is_current(verdict: Verdict, heads: Mapping[int, int | None]) -> bool:
    return all(heads[dataset_id] == head for dataset_id, head in verdict.heads.items() if dataset_id in heads)


def _merged(access: Access, tx: Transaction, found: Mapping[int, tuple[str, ReviewedHead]]) -> list[ReviewedDataset]:
    among = readable(access, tx)
    allowed = None if among is None else {record.id for record in datasets.all_of(tx, "", among)}
    return [
        ReviewedDataset(name, head.before, head.after)
        for dataset_id, (name, head) in found.items()
        if allowed is None or dataset_id in allowed
    ]


def add_event(access: Access, review_id: int, kind: str, body: str | None, *, seen: str | None = None) -> ReviewDetails:
    """Add a comment or a verdict. A verdict is about the datasets whose target the actor may move, at their current heads.

    `seen` is that of the `ReviewDetails` that one has looked at. Raises `NotFound`, `ConflictError` (the review is over, or the
    branch is not what was seen), `InputError`, `PermissionDenied` (nothing that the actor may judge).
    """
    if kind not in EVENT_KINDS:
        raise InputError(f"Invalid kind {kind!r}. Use one of: {', '.join(EVENT_KINDS)}.", kind=kind)
    given: EventKind = kind
    text = review_text(body, "comment")
    if given == "comment" and text is None:
        raise InputError("A comment has a text.")

    def work(tx: Transaction) -> None:
        review = _open(access, tx, review_id)
        _refuse_read_only(access)
        judged = {}
        if given != "comment":
            heads = _heads(access, tx, review.branch)
            _refuse_unseen(review, heads, seen)
            for dataset_id, head in heads.items():
                if _may_move(access, tx, dataset_id, review.target):
                    judged[dataset_id] = head.id
            if not judged:
                raise PermissionDenied(
                    f"{access.actor.name} may not move {review.target!r} in any dataset of this review, and so cannot judge it. "
                    "Comment instead.",
                    review=review_id,
                )
        reviews.add_event(tx, review_id, given, text, judged, access.user_id(tx))
        audit.note(
            access, tx, f"review.{given}", ref=review.branch, review=review_id, heads=sorted(judged.values()) or None
        )

    access.catalog.write(work)
    return details(access, review_id)


def close(access: Access, review_id: int) -> Review:
    """Close a review without merging it: for its author, and for who may move the target in one of its datasets.

    Raises `NotFound`, `ConflictError` (it is over), `PermissionDenied`.
    """

    def work(tx: Transaction) -> Review:
        review = _open(access, tx, review_id)
        mine = review.created_by == access.actor.name or is_administrator(access, tx)
        heads = overview.branch_heads(tx, None, review.branch)
        listed = dict.fromkeys(reviews.datasets_of(tx, review_id), ReviewedHead())
        if not mine and not any(_may_move(access, tx, dataset_id, review.target) for dataset_id in {*listed, *heads}):
            raise PermissionDenied(f"Only its author, and who may merge it, can close the review #{review_id}.")
        listed |= {dataset_id: ReviewedHead(None, head.number, head.id) for dataset_id, head in heads.items()}
        reviews.set_datasets(tx, review_id, listed)
        reviews.close(tx, review_id, "closed", access.user_id(tx))
        audit.note(access, tx, "review.close", ref=review.branch, review=review_id)
        return _get(access, tx, review_id)

    return access.catalog.write(work)


def merge(
    access: Access,
    review_id: int,
    options: MergeOptions,
    *,
    allow_moved_inputs: bool = False,
    seen: str | None = None,
) -> tuple[Review, list[VersionRecord]]:
    """Merge a review: its branch into the target in all of its datasets, in one transaction. Returns the new heads.

    `seen` is that of the `ReviewDetails` that one has looked at. Raises as `publish.publish`; `ConflictError` if something is
    missing (approvals, checks, or the target moved in a dataset whose protection takes a review), if there is nothing to merge,
    if the branch is not what was seen, or if the review is over; `PermissionDenied` if it has datasets that the actor may not
    read. Then nothing is changed.
    """
    known = details(access, review_id)
    review = known.review
    if review.state != "open":
        raise _over(review_id)
    if known.missing:
        raise _missing(review_id, known.missing)
    if not known.has_changes:
        raise _nothing_to_merge(review)

    def finish(tx: Transaction, merged: Sequence[tuple[DatasetRecord, Merge]], heads: Sequence[VersionRecord]) -> None:
        if reviews.lock(tx, review_id) != "open":
            raise _over(review_id)
        branch_heads = overview.branch_heads(tx, None, review.branch)
        if hidden := branch_heads.keys() - overview.branch_heads(tx, readable(access, tx), review.branch).keys():
            raise PermissionDenied(
                f"The review #{review_id} has datasets that {access.actor.name} may not read. Ask someone who may to merge it.",
                review=review_id,
                datasets=len(hidden),
            )
        if not merged:
            raise _nothing_to_merge(review)
        found = {**branch_heads, **{dataset.id: made.plan.theirs for dataset, made in merged}}
        _refuse_unseen(review, found, seen)
        verdicts = [verdict for _, verdict in reviews.events_of(tx, review_id)]
        missing = []
        numbers = dict.fromkeys(reviews.datasets_of(tx, review_id), ReviewedHead())
        numbers |= {d: ReviewedHead(head.number, head.number, head.id) for d, head in branch_heads.items()}
        for (dataset, made), head in zip(merged, heads, strict=True):
            barrier = _barrier(access, tx, dataset.id, dataset.name, review.target)
            ours = made.plan.ours.number if made.plan.ours else None
            state = _reviewed(tx, review, verdicts, dataset, made.plan.theirs, ours, barrier)
            missing += [f"{dataset.name}: {reason}" for reason in state.missing]
            if barrier.takes_review and made.plan.outcome != "fast-forward":
                missing.append(f"{dataset.name}: {_behind(review)}")
            numbers[dataset.id] = ReviewedHead(ours, head.number, made.plan.theirs.id)
        if missing:
            raise _missing(review_id, missing)
        reviews.set_datasets(tx, review_id, numbers)
        reviews.close(tx, review_id, "merged", access.user_id(tx))
        audit.note(access, tx, "review.merge", ref=review.branch, after=review.target, review=review_id)

    message = options.message or f"Merge the review #{review_id}: {review.title}"
    _, heads = publish.publish(
        access,
        review.branch,
        review.target,
        None,
        replace(options, message=message),
        allow_moved_inputs=allow_moved_inputs,
        finish=finish,
    )
    with access.catalog.read() as tx:
        return _get(access, tx, review_id), heads


# --- what is missing -----------------------------------------------------------------------------------------------------


class _Standing:
    """The state of an open review: the heads of its branch, and what is missing in each dataset."""

    def __init__(self, access: Access, tx: Transaction, review: Review, verdicts: Sequence[Verdict]) -> None:
        self._access, self._tx, self._review, self._verdicts = access, tx, review, verdicts
        among = readable(access, tx)
        self.heads = overview.branch_heads(tx, among, review.branch)
        self._targets = overview.branch_heads(tx, among, review.target)

    def of(self, dataset_id: int) -> ReviewedDataset:
        """The state of a dataset."""
        tx, review, head = self._tx, self._review, self.heads[dataset_id]
        target = self._targets.get(dataset_id)
        dataset = datasets.get(tx, dataset_id)
        barrier = _barrier(self._access, tx, dataset_id, dataset.name, review.target)
        if target is not None and target.id == head.id:
            return ReviewedDataset(dataset.name, target.number, head.number)
        before = target.number if target else None
        found = _reviewed(tx, review, self._verdicts, dataset, head, before, barrier)
        is_behind = before is not None and not _is_ancestor(tx, dataset_id, before, head.number)
        missing = list(found.missing)
        if is_behind and barrier.takes_review:
            missing.append(_behind(review))
        missing += [str(taint) for taint in gates.on(tx, dataset_id, head.id)]
        return replace(found, before=before, is_behind=is_behind, missing=tuple(dict.fromkeys(missing)))


def _reviewed(
    tx: Transaction,
    review: Review,
    verdicts: Sequence[Verdict],
    dataset: DatasetRecord,
    head: VersionRecord,
    before: int | None,
    barrier: Barrier,
) -> ReviewedDataset:
    """Who approves and rejects a head of a dataset, and what its protection still takes; `before` is the number of the target."""
    excluded = {review.created_by, *_authors(tx, head, before)} if verdicts else set()
    approved, rejected = (
        [name for name in names if _may_judge(tx, name, dataset, review.target)]
        for names in standing_verdicts(verdicts, dataset.id, head.id, excluded)
    )
    missing = []
    if len(approved) < barrier.required_approvals:
        missing.append(f"{len(approved)} of {barrier.required_approvals} approvals of v{head.number}")
    missing += [f"rejected by {name}" for name in rejected]
    if barrier.requires_checks:
        counts = overview.check_counts(tx, [head.id]).get(head.id)
        if counts is None:
            missing.append(f"no check was recorded on v{head.number}")
        elif counts.failed:
            missing.append(f"{counts.failed} checks of v{head.number} failed")
    return ReviewedDataset(
        dataset.name,
        None,
        head.number,
        False,
        barrier.required_approvals,
        barrier.requires_checks,
        tuple(approved),
        tuple(rejected),
        tuple(missing),
    )


def _authors(tx: Transaction, head: VersionRecord, before: int | None) -> set[str | None]:
    """Who committed the versions that the branch has and the target lacks."""
    walk = history.ancestors(before, versions.below(tx, head.dataset_id, before)) if before is not None else ()
    known = {node.number for node in walk}
    own = history.ancestors(head.number, versions.down(tx, head.dataset_id, head.number, _PAGE))
    return {version.created_by for version in own if version.number not in known}


def _refuse_unseen(review: Review, heads: Mapping[int, VersionRecord], seen: str | None) -> None:
    """Raise `ConflictError` if the branch is not what was seen."""
    if seen is not None and seen != seen_digest((head.dataset, head.number) for head in heads.values()):
        raise ConflictError(
            f"The branch {review.branch!r} moved since you looked at the review #{review.id}. Look at it again.",
            review=review.id,
        )


def _refuse_read_only(access: Access) -> None:
    """Raise `PermissionDenied` for a token that may only read."""
    token = access.actor.token
    if token is not None and level(token.permission) < level("write"):
        raise PermissionDenied("The token in use may only read. Use another token.")


def _nothing_to_merge(review: Review) -> ConflictError:
    return ConflictError(
        f"The review #{review.id} has nothing to merge: {review.target!r} has everything of {review.branch!r}. Close it.",
        review=review.id,
    )


def _behind(review: Review) -> str:
    return f"{review.target!r} moved since {review.branch!r} left it: merge it into the branch, and have that approved"


def _barrier(access: Access, tx: Transaction, dataset_id: int, name: str, target: str) -> Barrier:
    return grants.barrier(tx, users.find_id(tx, access.actor.name) or 0, dataset_id, name, target)


def _is_ancestor(tx: Transaction, dataset_id: int, older: int, newer: int) -> bool:
    walk = history.ancestors(newer, versions.below(tx, dataset_id, newer))
    return older == newer or any(node.number == older for node in walk)


def _may_judge(tx: Transaction, name: str, dataset: DatasetRecord, target: str) -> bool:
    """Whether a user may still move the target of a dataset, by grants and protections."""
    standing = grants.standing(tx, name, dataset.id)
    if standing is None or standing.role is None:
        return not users.any_managed(tx)
    if standing.is_disabled:
        return False
    if standing.role == "administrator" or standing.level >= level("admin"):
        return True
    is_allowed = grants.barrier(tx, standing.user_id, dataset.id, dataset.name, target).is_allowed
    return standing.level >= level("write") and is_allowed


def _may_move(access: Access, tx: Transaction, dataset_id: int, target: str) -> bool:
    try:
        authorize_move(access, tx, dataset_id, target, is_reviewed=True)
    except (PermissionDenied, NotFound):
        return False
    return True


def _heads(access: Access, tx: Transaction, branch: str) -> dict[int, VersionRecord]:
    """The heads of a branch by dataset, as far as the actor may read them. Raises `NotFound` if there are none."""
    found = overview.branch_heads(tx, readable(access, tx), branch)
    if not found:
        raise NotFound(f"No dataset has a branch {branch!r}.", branch=branch)
    return found


def _get(access: Access, tx: Transaction, review_id: int) -> Review:
    found = reviews.find(tx, review_id, readable(access, tx))
    if found is None:
        raise NotFound(f"No review #{review_id}. List them with registry.reviews().", review=review_id)
    return found


def _open(access: Access, tx: Transaction, review_id: int) -> Review:
    review = _get(access, tx, review_id)
    if review.state != "open":
        raise _over(review_id)
    return review


def _missing(review_id: int, missing: Sequence[str]) -> ConflictError:
    return ConflictError(
        f"The review #{review_id} was not merged. {'; '.join(missing[:10])}.", review=review_id, missing=list(missing)
    )


def _over(review_id: int) -> ConflictError:
    return ConflictError(f"The review #{review_id} is merged or closed. Create another one.", review=review_id)
