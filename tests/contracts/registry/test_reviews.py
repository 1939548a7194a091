"""Reviews: a branch over all datasets, verdicts about exact versions, and protected branches that move by reviews only."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import AlreadyExists, ConflictError, InputError, NotFound, PermissionDenied, Tainted
from dataset_registry.model.reviews import ReviewedDataset
from dataset_registry.version import Version
from tests.contracts.scenarios import Way, error_of, everywhere


def put(dataset: Dataset, branch: str, *values: int) -> Version:
    return dataset.commit(
        {"data": pa.table({"id": list(range(len(values))), "v": list(values)})}, key="id", branch=branch
    )


@dataclass
class Team:
    """An author and a reviewer, who may write two datasets; a branch of both; and the administrator."""

    admin: Registry
    author: Registry
    reviewer: Registry
    names: tuple[str, str]
    branch: str

    def of(self, registry: Registry, at: int = 0) -> Dataset:
        return registry.dataset(self.names[at])

    def heads(self, branch: str = "main") -> list[int]:
        return [self.of(self.admin, at).version(branch).number for at in (0, 1)]

    def review(self) -> int:
        return self.author.create_review(self.branch, title="More rows", description="as\nwanted").id

    def dataset_of(self, review_id: int, at: int = 0) -> ReviewedDataset:
        return next(d for d in self.admin.review(review_id).datasets if d.dataset == self.names[at])


@pytest.fixture
def team(way: Way, prefix: str) -> Team:
    short = prefix.strip("/")
    author, reviewer = way.user(f"{short}-author"), way.user(f"{short}-reviewer")
    names = f"{prefix}raw", f"{prefix}clean"
    branch = f"{short}-change"
    for name in names:
        dataset = way.registry.create_dataset(name)
        put(dataset, "main", 1, 2)
        for user in (author, reviewer):
            way.registry.grant(user.actor, "write", name)
        dataset.create_branch(branch)
        put(author.dataset(name), branch, 1, 2, 3)
    return Team(way.registry, author, reviewer, names, branch)


def refused(verb: Callable[[], object], kind: type[Exception] = ConflictError) -> str:
    error = error_of(verb)
    assert type(error) is kind, repr(error)
    return str(error)


@everywhere
def test_a_review_merges_a_branch_in_all_datasets_at_once(team: Team) -> None:
    review_id = team.review()
    found = team.reviewer.review(review_id)
    review = found.review
    assert (review.branch, review.target, review.title, review.state) == (team.branch, "main", "More rows", "open")
    assert (review.description, review.created_by, review.closed_at) == ("as\nwanted", team.author.actor, None)
    assert [(d.dataset, d.before, d.after, d.missing) for d in found.datasets] == [
        (name, 1, 2, ()) for name in sorted(team.names)
    ]
    assert found.is_mergeable
    assert str(review) == f"#{review_id} More rows ({team.branch} into main, open)"
    assert [r.id for r in team.reviewer.reviews(state="open", branch=team.branch)] == [review_id]
    heads = team.reviewer.merge_review(review_id)
    assert sorted(head.dataset for head in heads) == sorted(team.names)
    assert team.heads() == [2, 2]
    after = team.author.review(review_id)
    assert (after.review.state, after.review.closed_by) == ("merged", team.reviewer.actor)
    assert [(d.before, d.after) for d in after.datasets] == [(1, 2), (1, 2)]
    assert team.author.reviews(state="open", branch=team.branch) == []
    assert "merged or closed" in refused(lambda: team.reviewer.merge_review(review_id))
    assert "merged or closed" in refused(lambda: team.reviewer.comment_review(review_id, "late"))


@everywhere
def test_a_conversation_is_kept_and_a_rejection_holds_the_merge_until_it_is_withdrawn(team: Team) -> None:
    review_id = team.review()
    team.reviewer.comment_review(review_id, "Why 3?\nReally?")
    found = team.reviewer.reject_review(review_id, "no")
    assert [(e.kind, e.body, e.created_by) for e in found.events] == [
        ("comment", "Why 3?\nReally?", team.reviewer.actor),
        ("reject", "no", team.reviewer.actor),
    ]
    assert f"rejected by {team.reviewer.actor}" in refused(lambda: team.author.merge_review(review_id))
    assert team.heads() == [1, 1]
    team.reviewer.approve_review(review_id)
    assert team.dataset_of(review_id).approved_by == (team.reviewer.actor,)
    team.author.merge_review(review_id)
    assert team.heads() == [2, 2]


@everywhere
def test_a_branch_that_takes_approvals_moves_by_reviews_only(team: Team) -> None:
    made = team.admin.protect(team.names[0], "main", allow=[team.author.actor, team.reviewer.actor], approvals=1)
    assert (made.required_approvals, made.requires_checks) == (1, False)
    admin, author = team.of(team.admin), team.of(team.author)
    ways: list[Callable[[], object]] = [
        lambda: put(author, "main", 9),
        lambda: put(admin, "main", 9),
        lambda: admin.merge(team.branch),
        lambda: admin.cherry_pick(team.branch),
        lambda: admin.revert("main"),
        lambda: admin.move_branch("main", team.branch),
        lambda: admin.delete_branch("main"),
        lambda: admin.append(pa.table({"id": [7], "v": [7]})),
        lambda: team.admin.publish(team.branch),
    ]
    for verb in ways:
        assert "moves by reviews only" in refused(verb, PermissionDenied)
    review_id = team.review()
    missing = f"{team.names[0]}: 0 of 1 approvals of v2"
    assert team.author.review(review_id).missing == [missing]
    assert missing in refused(lambda: team.admin.merge_review(review_id))
    team.author.approve_review(review_id)
    assert team.author.review(review_id).missing == [missing], "an author's own approval does not count"
    team.reviewer.approve_review(review_id)
    assert team.author.review(review_id).missing == []
    put(team.of(team.author), team.branch, 1, 2, 3, 4)
    found = team.author.review(review_id)
    assert found.missing == [f"{team.names[0]}: 0 of 1 approvals of v3"], "it was an approval of v2"
    assert [event.is_current for event in found.events] == [False, False]
    team.reviewer.approve_review(review_id)
    team.author.merge_review(review_id)
    assert team.heads() == [3, 2]


@everywhere
def test_what_lands_is_what_was_approved(team: Team) -> None:
    review_id = team.review()
    put(team.of(team.admin), "main", 5, 2)
    team.admin.protect(team.names[0], "main", allow=[team.reviewer.actor], approvals=1)
    team.reviewer.approve_review(review_id)
    state = team.dataset_of(review_id)
    assert state.is_behind
    assert "'main' moved since" in state.missing[0]
    assert "'main' moved since" in refused(lambda: team.reviewer.merge_review(review_id))
    team.of(team.author).merge("main", into=team.branch)
    assert "0 of 1 approvals" in refused(lambda: team.reviewer.merge_review(review_id))
    team.reviewer.approve_review(review_id)
    team.reviewer.merge_review(review_id)
    assert team.of(team.admin).version().to_arrow()["v"].to_pylist() == [5, 2, 3]


@everywhere
def test_an_approval_counts_while_its_author_may_still_move_the_target(team: Team) -> None:
    team.admin.protect(team.names[0], "main", allow=[team.reviewer.actor], approvals=1)
    review_id = team.review()
    assert "cannot judge it" not in refused(lambda: team.reviewer.comment_review(review_id, " "), InputError)
    team.reviewer.approve_review(review_id)
    assert team.dataset_of(review_id).approved_by == (team.reviewer.actor,)
    team.admin.revoke(team.reviewer.actor, team.names[0])
    assert team.dataset_of(review_id).approved_by == ()
    assert "0 of 1 approvals" in refused(lambda: team.admin.merge_review(review_id))


@everywhere
def test_checks_must_be_there_and_green_where_a_branch_takes_them(team: Team) -> None:
    team.admin.protect(team.names[0], "main", checks=True)
    review_id = team.review()
    head = team.of(team.author).version(team.branch)
    assert team.dataset_of(review_id).missing == ("no check was recorded on v2",)
    head.record_check("rows", False)
    assert team.dataset_of(review_id).missing == ("1 checks of v2 failed",)
    head.record_check("rows", True)
    team.admin.merge_review(review_id)
    assert team.heads() == [2, 2]


@everywhere
def test_tainted_content_is_named_and_not_merged(team: Team) -> None:
    review_id = team.review()
    team.of(team.author).version(team.branch).record_check("rows", False, blocking=True)
    assert team.dataset_of(review_id).missing == ("v2: the check rows failed on v2",)
    assert type(error_of(lambda: team.admin.merge_review(review_id))) in (ConflictError, Tainted)
    assert team.heads() == [1, 1]


@everywhere
def test_reviews_show_the_datasets_that_one_may_read(team: Team, way: Way, prefix: str) -> None:
    review_id = team.review()
    guest = way.user(f"{prefix.strip('/')}-guest", role="guest")
    assert guest.reviews(branch=team.branch) == []
    assert type(error_of(lambda: guest.review(review_id))) is NotFound
    for verb in (guest.approve_review, guest.close_review, guest.merge_review):
        assert type(error_of(lambda verb=verb: verb(review_id))) is NotFound
    way.registry.grant(guest.actor, "read", team.names[1])
    assert [d.dataset for d in guest.review(review_id).datasets] == [team.names[1]]
    assert "cannot judge" in refused(lambda: guest.approve_review(review_id), PermissionDenied)
    assert "close" in refused(lambda: guest.close_review(review_id), PermissionDenied)
    guest.comment_review(review_id, "looks good")
    assert type(error_of(lambda: guest.create_review(team.branch, "other", title="mine"))) is PermissionDenied


@everywhere
def test_reviews_that_make_no_sense_are_refused(team: Team) -> None:
    branch = team.branch
    assert type(error_of(lambda: team.author.create_review(branch + "x", title="t"))) is NotFound
    assert type(error_of(lambda: team.author.create_review(branch, branch, title="t"))) is InputError
    for title in ("", " ", "two\nlines", "x" * 300):
        assert isinstance(error_of(lambda title=title: team.author.create_review(branch, title=title)), InputError)
    review_id = team.review()
    assert type(error_of(team.review)) is AlreadyExists
    team.author.close_review(review_id)
    assert team.author.review(review_id).review.state == "closed"
    assert team.review() > review_id
    assert type(error_of(lambda: team.author.review(2**31 - 1))) is NotFound
    error = error_of(lambda: team.author.reviews(state="new"))  # type: ignore[arg-type]
    assert isinstance(error, InputError)


def test_a_deleted_dataset_leaves_its_reviews(team: Team) -> None:
    review_id = team.review()
    team.author.merge_review(review_id)
    team.of(team.admin).delete()
    assert [d.dataset for d in team.admin.review(review_id).datasets] == [team.names[1]]


# --- what an attack found ------------------------------------------------------------------------------------------------


@everywhere
def test_a_rename_does_not_lead_around_a_review(team: Team, way: Way, prefix: str) -> None:
    way.registry.protect(f"{prefix}kept/", "main", approvals=1)
    way.registry.grant(team.author.actor, "write", f"{prefix}kept/")
    outside = team.author.create_dataset(f"{prefix}free")
    put(outside, "main", 2)
    assert "moves by reviews" in refused(lambda: outside.rename(f"{prefix}kept/free"), PermissionDenied)
    assert outside.name == f"{prefix}free"


@everywhere
def test_a_review_is_merged_whole_or_not_at_all(team: Team, way: Way, prefix: str) -> None:
    third = way.user(f"{prefix.strip('/')}-third", role="guest")
    way.registry.grant(third.actor, "write", team.names[0])
    review_id = team.review()
    assert "may not read" in refused(lambda: third.merge_review(review_id), PermissionDenied)
    assert (team.heads(), team.admin.review(review_id).review.state) == ([1, 1], "open")


@everywhere
def test_a_review_without_changes_is_not_merged(team: Team) -> None:
    review_id = team.review()
    for at in (0, 1):
        team.of(team.author, at).merge(team.branch)
    assert not team.author.review(review_id).is_mergeable
    assert "nothing to merge" in refused(lambda: team.author.merge_review(review_id))
    assert team.author.review(review_id).review.state == "open"


@everywhere
def test_datasets_that_are_up_to_date_stay_in_the_record(team: Team) -> None:
    review_id = team.review()
    team.of(team.author, 1).merge(team.branch)
    team.author.merge_review(review_id)
    assert [(d.before, d.after) for d in team.author.review(review_id).datasets] == [(2, 2), (1, 2)]


@everywhere
def test_a_verdict_is_about_what_was_seen(team: Team) -> None:
    review_id = team.review()
    seen = team.reviewer.review(review_id).seen
    put(team.of(team.author), team.branch, 6, 6, 6)
    for verb in (team.reviewer.approve_review, team.reviewer.reject_review, team.reviewer.merge_review):
        assert "moved since you looked" in refused(lambda verb=verb: verb(review_id, seen=seen))
    assert team.reviewer.review(review_id).events == ()
    team.reviewer.approve_review(review_id, seen=team.reviewer.review(review_id).seen)


@everywhere
def test_who_committed_a_version_that_the_branch_brings_does_not_approve_it(team: Team) -> None:
    team.admin.protect(team.names[0], "main", approvals=1)
    put(team.of(team.reviewer), team.branch, 1, 2, 3, 4)
    put(team.of(team.admin), team.branch, 1, 2, 3, 4, 5)
    review_id = team.review()
    team.reviewer.approve_review(review_id)
    assert team.dataset_of(review_id).approved_by == ()


@everywhere
def test_a_rejection_lapses_with_the_right_to_judge(team: Team) -> None:
    review_id = team.review()
    team.reviewer.reject_review(review_id)
    assert team.author.review(review_id).missing
    for name in team.names:
        team.admin.revoke(team.reviewer.actor, name)
    assert team.author.review(review_id).missing == []


@everywhere
def test_a_verdict_about_an_earlier_version_is_told_after_the_merge_too(team: Team) -> None:
    review_id = team.review()
    team.reviewer.approve_review(review_id)
    put(team.of(team.author), team.branch, 1, 2, 3, 4)
    team.reviewer.approve_review(review_id)
    team.author.merge_review(review_id)
    assert [event.is_current for event in team.author.review(review_id).events] == [False, True]


@everywhere
def test_a_review_is_that_of_everyone_whose_datasets_have_the_branch(team: Team, way: Way, prefix: str) -> None:
    other = way.user(f"{prefix.strip('/')}-other")
    way.registry.grant(other.actor, "write", f"{prefix}others/")
    put(other.create_dataset(f"{prefix}others/x"), team.branch, 1)
    foreign = other.create_review(team.branch, title="Mine").id
    assert type(error_of(team.review)) is AlreadyExists
    assert {d.dataset for d in team.author.review(foreign).datasets} == {*team.names}
    team.author.close_review(foreign)
    assert team.review() > foreign


@everywhere
def test_a_tag_is_no_target(team: Team) -> None:
    team.of(team.admin).create_tag("fixed", "v1")
    assert "is a tag" in refused(lambda: team.author.create_review(team.branch, "fixed", title="t"), InputError)


@everywhere
def test_a_token_that_may_only_read_says_nothing(team: Team, way: Way) -> None:
    review_id = team.review()
    if way.is_rest:
        reader = way.user(team.reviewer.actor, permission="read")
        assert "only read" in refused(lambda: reader.comment_review(review_id, "hello"), PermissionDenied)


@everywhere
def test_registry_wide_branches_do_not_lead_around_a_review(team: Team, prefix: str) -> None:
    branch = f"{prefix.strip('/')}-prod"
    team.admin.protect(prefix, branch, approvals=1)
    assert "moves by reviews" in refused(lambda: team.admin.create_branch(branch, team.branch), PermissionDenied)
    assert branch not in [found.name for found in team.of(team.admin).branches()]


def test_a_copy_does_not_lead_around_a_review(team: Team, way: Way, tmp_path: Path) -> None:
    if way.is_rest:
        return
    with Registry.open(tmp_path / "copy") as copy:
        way.owner.copy_to(copy, datasets=team.names[0])
        put(copy.dataset(team.names[0]), "main", 6, 6)
        team.admin.protect(team.names[0], "main", approvals=1)
        done = copy.copy_to(team.admin, datasets=team.names[0])
    assert any("moves by reviews" in note for note in done.notes)
    assert team.heads() == [1, 1]
