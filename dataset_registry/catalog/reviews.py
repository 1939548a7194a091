"""Rows about reviews: their datasets, comments and verdicts."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, and_, delete, exists, insert, or_, select, update

from dataset_registry.catalog.grants import Readable
from dataset_registry.catalog.rows import Transaction, insert_row
from dataset_registry.catalog.tables import dataset_pointers, datasets, review_datasets, review_events, reviews, users
from dataset_registry.catalog.types import utc_now
from dataset_registry.model.reviews import EventKind, Review, ReviewEvent, ReviewState, Verdict

_R, _D, _E, _P = reviews, review_datasets, review_events, dataset_pointers
_closer = users.alias("closer")

_SELECT = (
    select(
        _R.c.id,
        _R.c.branch,
        _R.c.target,
        _R.c.title,
        _R.c.description,
        _R.c.state,
        _R.c.created_at,
        users.c.username,
        _R.c.closed_at,
        _closer.c.username,
    )
    .join(users, users.c.id == _R.c.created_by)
    .outerjoin(_closer, _closer.c.id == _R.c.closed_by)
)


def find(tx: Transaction, review_id: int, among: Readable = None) -> Review | None:
    """The review with this id, if one of its datasets is `among` these."""
    row = tx.execute(_visible(_SELECT.where(_R.c.id == review_id), among)).one_or_none()
    return _review(row) if row else None


def all_of(
    tx: Transaction,
    among: Readable,
    *,
    state: ReviewState | None = None,
    branch: str | None = None,
    before: int | None = None,
    limit: int | None = None,
) -> list[Review]:
    """The reviews with a dataset `among` these, newest first, with ids below `before`."""
    query = _visible(_SELECT, among).order_by(_R.c.id.desc()).limit(limit)
    for column, wanted in ((_R.c.state, state), (_R.c.branch, branch)):
        query = query if wanted is None else query.where(column == wanted)
    return [_review(row) for row in tx.execute(query if before is None else query.where(_R.c.id < before))]


def _visible(query, among: Readable):  # type: ignore[no-untyped-def] # a query of any columns
    """With one of its datasets among these: those that it began with, and of an open one those that have its branch now."""
    if among is None:
        return query
    listed = exists().where(_D.c.review_id == _R.c.id, _D.c.dataset_id.in_(among))
    has_branch = exists().where(_P.c.pointer_name == _R.c.branch, ~_P.c.is_tag, _P.c.dataset_id.in_(among))
    return query.where(or_(listed, and_(_R.c.state == "open", has_branch)))


def _review(row: Row[Any]) -> Review:
    return Review(*row)


def create(
    tx: Transaction, branch: str, target: str, title: str, description: str | None, user_id: int, ids: Collection[int]
) -> int:
    """Insert an open review of datasets. Returns its id."""
    row = {"branch": branch, "target": target, "title": title, "description": description, "state": "open"}
    review_id = insert_row(tx, _R, {**row, "created_by": user_id})
    set_datasets(tx, review_id, dict.fromkeys(ids, ReviewedHead()))
    return review_id


class ReviewedHead(NamedTuple):
    """A dataset of a review that is over: the numbers of the target before and after, and the id of the head of the branch."""

    before: int | None = None
    after: int | None = None
    head_id: int | None = None


def set_datasets(tx: Transaction, review_id: int, found: Mapping[int, ReviewedHead]) -> None:
    """Replace the datasets of a review."""
    tx.execute(delete(_D).where(_D.c.review_id == review_id))
    rows = [
        {
            "review_id": review_id,
            "dataset_id": dataset_id,
            "before_number": head.before,
            "after_number": head.after,
            "head_id": head.head_id,
        }
        for dataset_id, head in sorted(found.items())
    ]
    if rows:
        tx.execute(insert(_D), rows)


def datasets_of(tx: Transaction, review_id: int) -> dict[int, tuple[str, ReviewedHead]]:
    """By id the name of each dataset of a review, and what is known of it once the review is over."""
    query = (
        select(_D.c.dataset_id, datasets.c.name, _D.c.before_number, _D.c.after_number, _D.c.head_id)
        .join(datasets, datasets.c.id == _D.c.dataset_id)
        .where(_D.c.review_id == review_id)
    )
    return {row[0]: (row[1], ReviewedHead(*row[2:])) for row in tx.execute(query)}


def lock(tx: Transaction, review_id: int) -> ReviewState | None:
    """Lock a review until the transaction ends. Returns its state, None if there is none."""
    query = select(_R.c.state).where(_R.c.id == review_id).with_for_update()
    return tx.execute(query).scalar()


def close(tx: Transaction, review_id: int, state: ReviewState, user_id: int) -> None:
    """Set the state of a review that is over."""
    values = {"state": state, "closed_at": utc_now(), "closed_by": user_id}
    tx.execute(update(_R).where(_R.c.id == review_id).values(values))


def add_event(
    tx: Transaction, review_id: int, kind: EventKind, body: str | None, heads: Mapping[int, int], user_id: int
) -> None:
    """Insert a comment or a verdict about heads, by the id of the dataset."""
    row = {
        "review_id": review_id,
        "kind": kind,
        "body": body,
        "heads": {str(dataset_id): version_id for dataset_id, version_id in heads.items()} or None,
        "created_by": user_id,
    }
    tx.execute(insert(_E), row)


def events_of(tx: Transaction, review_id: int) -> list[tuple[ReviewEvent, Verdict]]:
    """The comments and verdicts of a review, oldest first."""
    query = (
        select(_E.c.id, _E.c.kind, _E.c.body, _E.c.created_at, users.c.username, _E.c.heads)
        .join(users, users.c.id == _E.c.created_by)
        .where(_E.c.review_id == review_id)
        .order_by(_E.c.id)
    )
    return [
        (
            ReviewEvent(event_id, kind, body, when, author),
            Verdict(kind, author, {int(dataset_id): head for dataset_id, head in (heads or {}).items()}),
        )
        for event_id, kind, body, when, author, heads in tx.execute(query)
    ]


def forget_datasets(tx: Transaction, dataset_ids: Sequence[int]) -> None:
    """Remove deleted datasets from reviews."""
    tx.execute(delete(_D).where(_D.c.dataset_id.in_(dataset_ids)))
