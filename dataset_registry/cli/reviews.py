"""Commands about reviews of branches."""

from typing import TYPE_CHECKING, Annotated

import typer

from dataset_registry.cli import merges, publishing, target
from dataset_registry.cli.arguments import Message
from dataset_registry.cli.output import AsJson, count_of, moment, print_facts, print_json, print_table, say, working
from dataset_registry.cli.target import here
from dataset_registry.model.names import MAIN

if TYPE_CHECKING:
    from dataset_registry.model.reviews import ReviewDetails
    from dataset_registry.registry import Registry

review_app = typer.Typer(no_args_is_help=True, help="Reviews: branches that are to be merged, comments, approvals.")

ReviewId = Annotated[int, typer.Argument(metavar="REVIEW", help="The number of a review.")]
Comment = Annotated[str | None, typer.Option("--comment", "-m", help="A comment.")]


@review_app.command("create")
@here
def create(
    registry: "Registry",
    branch: Annotated[str, typer.Argument(help="The branch to review.", autocompletion=target.complete_ref)],
    title: Annotated[str, typer.Option("--title", "-t", help="What it changes, in a line.")],
    into: merges.Into = MAIN,
    description: Annotated[str | None, typer.Option("--description", "-d", help="What it changes, and why.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a review of a branch, which is to be merged into another one in all datasets that have it."""
    from dataset_registry.wire.reviews import ReviewResponse

    found = registry.create_review(branch, into, title=title, description=description)
    if as_json:
        print_json(ReviewResponse.of(found))
    else:
        say(f"Created the review {found}")
        if registry.location.startswith(("https://", "http://")):
            say(f"{registry.location.rstrip('/')}/reviews/{found.id}")


@review_app.command("list")
@here
def list_reviews(
    registry: "Registry",
    every: Annotated[bool, typer.Option("--all", help="Also those that are merged or closed.")] = False,
    as_json: AsJson = False,
) -> None:
    """List open reviews, newest first."""
    from dataset_registry.wire.reviews import ReviewResponse

    found = registry.reviews(state=None if every else "open")
    if as_json:
        print_json([ReviewResponse.of(review) for review in found])
        return
    rows = [[f"#{r.id}", r.state, r.branch, r.target, r.title, r.created_by, moment(r.created_at)] for r in found]
    print_table(["review", "state", "branch", "into", "title", "author", "created"], rows)


@review_app.command("show")
@here
def show(registry: "Registry", review_id: ReviewId, as_json: AsJson = False) -> None:
    """Show a review: its datasets, what is missing, comments and verdicts."""
    _print(registry.review(review_id), as_json)


@review_app.command("comment")
@here
def comment(
    registry: "Registry",
    review_id: ReviewId,
    text: Annotated[str, typer.Argument(help="The comment.")],
    as_json: AsJson = False,
) -> None:
    """Add a comment to a review."""
    _print(registry.comment_review(review_id, text), as_json)


@review_app.command("approve")
@here
def approve(registry: "Registry", review_id: ReviewId, text: Comment = None, as_json: AsJson = False) -> None:
    """Approve what the branch of a review is at now. The approval does not count any longer where the branch moves."""
    _print(registry.approve_review(review_id, text), as_json)


@review_app.command("reject")
@here
def reject(registry: "Registry", review_id: ReviewId, text: Comment = None, as_json: AsJson = False) -> None:
    """Reject what the branch of a review is at now."""
    _print(registry.reject_review(review_id, text), as_json)


@review_app.command("close")
@here
def close(registry: "Registry", review_id: ReviewId) -> None:
    """Close a review without merging it."""
    say(f"Closed the review {registry.close_review(review_id)}")


@review_app.command("merge")
@here
def merge(
    registry: "Registry",
    review_id: ReviewId,
    strategy: merges.Strategy = None,
    allow_moved_inputs: Annotated[
        bool, typer.Option("--allow-moved-inputs", help="Publish versions whose inputs are not those of the target.")
    ] = False,
    message: Message = None,
    as_json: AsJson = False,
) -> None:
    """Merge a review: publish its branch in all of its datasets, in one transaction, if nothing is missing."""
    into = registry.review(review_id).review.target
    with working(f"merging the review #{review_id}"):
        heads = registry.merge_review(
            review_id, strategy=strategy or "fail", allow_moved_inputs=allow_moved_inputs, message=message
        )
    publishing.print_heads(heads, into, as_json)


def _print(found: "ReviewDetails", as_json: bool) -> None:
    from dataset_registry.wire.reviews import ReviewDetailsResponse

    if as_json:
        print_json(ReviewDetailsResponse.of(found))
        return
    review = found.review
    print_facts(
        [
            ("review", f"#{review.id}"),
            ("title", review.title),
            ("branch", f"{review.branch} into {review.target}"),
            ("state", review.state),
            ("author", f"{review.created_by}, {moment(review.created_at)}"),
        ]
    )
    if review.description:
        say(review.description, lines=True)
    for dataset in found.datasets:
        before = f"v{dataset.before}" if dataset.before else "new"
        say(f"{dataset.dataset}: {before} → v{dataset.after}")
        for reason in dataset.missing:
            say(f"  ! {reason}")
    for event in found.events:
        what = {"comment": "commented", "approve": "approved", "reject": "rejected"}[event.kind]
        old = "" if event.is_current else ", before the branch moved"
        say(f"{event.created_by} {what} {moment(event.created_at)}{old}" + (f": {event.body}" if event.body else ""))
    if review.state == "open":
        say("ready to merge" if found.is_mergeable else f"{count_of(len(found.missing), 'requirement')} missing")
