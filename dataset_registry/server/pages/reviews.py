"""Pages of reviews: the list, a new one, the review with its changes, conflicts, conversation and merge."""

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import RedirectResponse, Response

from dataset_registry.embedded import EmbeddedRegistry
from dataset_registry.embedded.dataset import EmbeddedDataset
from dataset_registry.errors import ConflictError, InputError, MergeConflict, NotFound, RegistryError
from dataset_registry.model.checks import newest_of_each
from dataset_registry.model.merge_plans import MergePlan
from dataset_registry.model.names import MAIN
from dataset_registry.model.next_steps import spelled
from dataset_registry.model.reviews import ReviewDetails
from dataset_registry.operations import overview
from dataset_registry.server.limits import one_at_work
from dataset_registry.server.pages.base import AccessDep, FormDep, RegistryDep, whole
from dataset_registry.server.pages.rendering import page
from dataset_registry.wire.base import MOST_IDS

router = APIRouter(include_in_schema=False)

ReviewId = Annotated[int, Path(ge=1, le=MOST_IDS)]

_PAGE = 50
_CONFLICT_ROWS = 100
_TAKES = ("ours", "theirs", "base", "drop")


@router.get("/reviews")
def reviews(request: Request, registry: RegistryDep, state: str = "open") -> Response:
    """The reviews in a state, newest first."""
    found = registry.reviews(state=None if state == "all" else state)  # type: ignore[arg-type] # checked there
    return page(request, "reviews.html", reviews=found[:500], state=state)


@router.get("/reviews/new")
def new_review(request: Request, access: AccessDep, branch: str = "", target: str = MAIN) -> Response:
    """The form of a new review."""
    branches = [found.name for found in overview.branches(access)]
    return page(request, "review_new.html", branches=branches, branch=branch, target=target)


@router.post("/reviews/new")
def create_review(registry: RegistryDep, form: FormDep) -> Response:
    """Create a review."""
    made = registry.create_review(
        form.get("branch", ""),
        form.get("target") or MAIN,
        title=form.get("title", ""),
        description=form.get("description") or None,
    )
    return RedirectResponse(f"/reviews/{made.id}", 303)


@router.get("/reviews/{review_id}")
def review(request: Request, registry: RegistryDep, review_id: ReviewId) -> Response:
    """A review."""
    return _page(request, registry, registry.review(review_id))


def _page(
    request: Request, registry: EmbeddedRegistry, found: ReviewDetails, problem: str | None = None, status: int = 200
) -> Response:
    plans: dict[str, MergePlan] = {}
    moved: list[str] = []
    if found.review.state == "open":
        with one_at_work(request):
            try:
                plan = registry.plan_publish(found.review.branch, found.review.target)
                plans = {made.dataset: made for made in plan.merges}
                moved = [str(item) for item in plan.moved]
            except (NotFound, InputError, ConflictError) as error:
                problem = problem or _said(error)
    schemas: dict[str, Any] = {}
    checks: dict[str, Any] = {}
    for item in found.datasets[:_PAGE]:
        with suppress(NotFound):  # versions of a review that is over may be deleted
            dataset = registry.dataset(item.dataset)
            if item.after:
                version = dataset.version(f"v{item.after}")
                checks[item.dataset] = newest_of_each(version.checks)
            if item.before and item.after and item.before != item.after:
                schemas[item.dataset] = dataset.diff(f"v{item.before}", f"v{item.after}").schema
    return page(
        request,
        "review.html",
        status=status,
        found=found,
        plans=plans,
        moved=moved,
        schemas=schemas,
        checks=checks,
        problem=problem,
    )


@router.post("/reviews/{review_id}")
def act(request: Request, registry: RegistryDep, review_id: ReviewId, form: FormDep) -> Response:
    """Comment, approve, reject, close or merge."""
    comment = form.get("comment") or None
    try:
        match form.get("action"):
            case "comment":
                registry.comment_review(review_id, comment or "")
            case "approve":
                registry.approve_review(review_id, comment, seen=form.get("seen"))
            case "reject":
                registry.reject_review(review_id, comment, seen=form.get("seen"))
            case "close":
                registry.close_review(review_id)
            case "merge":
                with one_at_work(request):
                    registry.merge_review(
                        review_id,
                        allow_moved_inputs=form.get("allow_moved_inputs") == "on",
                        seen=form.get("seen"),
                    )
            case other:
                raise InputError(f"Unknown action {other!r}.")
    except (ConflictError, InputError) as error:
        return _page(request, registry, registry.review(review_id), _said(error), 409)
    return RedirectResponse(f"/reviews/{review_id}", 303)


def _said(error: RegistryError) -> str:
    return spelled(str(error), "shell", error.fields)


# --- conflicts -----------------------------------------------------------------------------------------------------------


@router.get("/reviews/{review_id}/resolve")
def conflicts(
    request: Request, registry: RegistryDep, review_id: ReviewId, dataset: str, component: str = ""
) -> Response:
    """The conflicts of a dataset: by rule, and row by row."""
    return _conflicts_page(request, registry, review_id, dataset, component)


def _to_resolve(registry: EmbeddedRegistry, review_id: int, name: str) -> tuple[ReviewDetails, EmbeddedDataset]:
    """An open review and a dataset of it. Raises `NotFound`, `ConflictError`."""
    found = registry.review(review_id)
    if found.review.state != "open":
        raise ConflictError(f"The review #{review_id} is merged or closed.", review=review_id)
    if name not in [item.dataset for item in found.datasets]:
        raise NotFound(f"The review #{review_id} has no dataset {name!r}.", dataset=name)
    return found, registry.dataset(name)


def _conflicts_page(
    request: Request, registry: EmbeddedRegistry, review_id: int, name: str, component: str, problem: str | None = None
) -> Response:
    from dataset_registry.tabular.encoded import json_value

    found, dataset = _to_resolve(registry, review_id, name)
    with one_at_work(request):
        # The target is merged into the branch: `ours` is the branch, `theirs` the target.
        plan = dataset.plan_merge(found.review.target, into=found.review.branch)
        rows: list[dict[str, Any]] = []
        names: list[str] = []
        total = 0
        listed = list(dict.fromkeys(c.component for c in plan.conflicts if c.rows))
        chosen = component or (listed[0] if listed else "")
        if chosen:
            table = dataset.conflicts(found.review.target, found.review.branch, chosen)
            total, names = table.num_rows, table.column_names
            rows = [
                {other: json_value(value) for other, value in row.items()} | {"absent": _absent(row)}
                for row in table.slice(0, _CONFLICT_ROWS).to_pylist()
            ]
    values = list(dict.fromkeys(other.partition("_")[2] for other in names if other.startswith("base_")))
    keys = [
        other
        for other in names
        if other not in ("kind", "columns", "take") and not other.startswith(("base_", "ours_", "theirs_"))
    ]
    return page(
        request,
        "review_conflicts.html",
        status=200 if problem is None else 409,
        found=found,
        dataset=dataset,
        plan=plan,
        component=chosen,
        components=listed,
        rows=rows,
        total=total,
        keys=keys,
        values=values,
        takes=_TAKES,
        most=_CONFLICT_ROWS,
        problem=problem,
    )


def _absent(row: dict[str, Any]) -> list[str]:
    """The sides of a conflict that have no such row."""
    if row["kind"] == "both added":
        return ["base"]
    sides = ("ours", "theirs") if row["kind"] == "delete/modify" else ()
    return [side for side in sides if all(row[name] is None for name in row if name.startswith(side + "_"))]


@router.post("/reviews/{review_id}/resolve")
def resolve(request: Request, registry: RegistryDep, review_id: ReviewId, form: FormDep) -> Response:
    """Merge the target into the branch with the decisions of the form."""
    name, component = form.get("dataset", ""), form.get("component", "")
    found, dataset = _to_resolve(registry, review_id, name)
    review = found.review
    message = f"Merge {review.target} into {review.branch} for the review #{review_id}"
    options: dict[str, Any] = {"message": message}
    if (strategy := form.get("strategy")) is not None:
        options["strategy"] = strategy
    else:
        taken = {whole({"row": key[4:]}, "row", 0): take for key, take in form.items() if key.startswith("row-")}
        table = dataset.conflicts(review.target, review.branch, component)
        from dataset_registry.tabular.encoded import with_takes

        options |= {
            "resolutions": {component: with_takes(table, taken)},
            "plan": form.get("plan"),
        }
    try:
        with one_at_work(request):
            dataset.merge(review.target, review.branch, **options)
    except (MergeConflict, ConflictError, InputError) as error:
        return _conflicts_page(request, registry, review_id, name, component, _said(error))
    return RedirectResponse(f"/reviews/{review_id}", 303)
