"""Home, search, branches over all datasets, and runs."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dataset_registry.model.names import MAIN
from dataset_registry.operations import overview
from dataset_registry.operations.overview import ACTIVITY_DAYS
from dataset_registry.server.pages import graphs
from dataset_registry.server.pages.base import AccessDep, RegistryDep
from dataset_registry.server.pages.rendering import page

router = APIRouter(include_in_schema=False)

_PAGE = 50
_LONGEST = 255
_SPARK_WIDTH = 4 * ACTIVITY_DAYS


@router.get("/")
@router.get("/datasets")
def home(request: Request, access: AccessDep, prefix: str = "", q: str = "", after: str = "") -> Response:
    """The datasets by name, with their heads."""
    prefix, q = prefix[:_LONGEST], q[:_LONGEST]
    found = overview.dataset_summaries(access, prefix=prefix, text=q.strip(), after=after, limit=_PAGE + 1)
    today = datetime.now(UTC).date()
    rows = [(summary, graphs.sparkline(summary.activity, ACTIVITY_DAYS, today)) for summary in found[:_PAGE]]
    number, versions, stored = overview.totals(access)
    is_first = not (prefix or q or after)
    return page(
        request,
        "home.html",
        rows=rows,
        spark_width=_SPARK_WIDTH,
        following=found[_PAGE - 1].dataset.name if len(found) > _PAGE else None,
        prefix=prefix,
        q=q,
        after=after,
        datasets=number,
        versions=versions,
        stored=stored,
        branches=overview.branches(access)[:8] if is_first else [],
        runs=overview.recent_runs(access)[:8] if is_first else [],
    )


@router.get("/search")
def search(request: Request, access: AccessDep, q: str = "") -> Response:
    """What a text is found in."""
    return page(request, "search.html", q=q, hits=overview.search(access, q[:200]))


@router.get("/branches")
def branches(request: Request, access: AccessDep) -> Response:
    """The branches over all datasets."""
    return page(request, "branches.html", branches=overview.branches(access))


@router.get("/branches/{name:path}")
def branch(request: Request, access: AccessDep, registry: RegistryDep, name: str, target: str = MAIN) -> Response:
    """A branch over all datasets, beside another."""
    places = overview.branch_places(access, name, target)
    torn = registry.consistent(name).torn
    return page(request, "branch.html", name=name, target=target, places=places, torn=torn)


@router.get("/runs/{run_id:path}")
def run(request: Request, registry: RegistryDep, run_id: str) -> Response:
    """All that a run read and wrote."""
    found = registry.run(run_id)
    return page(request, "run.html", run=found, dagster=dagster_url(request, run_id))


def dagster_url(request: Request, run_id: str | None) -> str | None:
    """The address of a run in Dagster's web server, if the settings have that of the server."""
    base = request.app.state.settings.dagster_url
    return None if base is None or run_id is None else f"{base.rstrip('/')}/runs/{run_id}"
