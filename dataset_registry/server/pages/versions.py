"""Pages of a version: overview, preview, components, lineage, downloads."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response

from dataset_registry.content import preview as previews
from dataset_registry.content import read
from dataset_registry.content.source import CatalogContents
from dataset_registry.embedded.dataset import EmbeddedDataset, EmbeddedVersion
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.checks import newest_of_each
from dataset_registry.model.manifest import component_label
from dataset_registry.model.records import ComponentRecord, Production
from dataset_registry.model.schema import ComponentSchema, Schema, TableSchema
from dataset_registry.operations import overview as overviews
from dataset_registry.server.limits import one_at_work
from dataset_registry.server.pages import graphs
from dataset_registry.server.pages.base import whole
from dataset_registry.server.pages.home import dagster_url
from dataset_registry.server.pages.rendering import HEADERS, page
from dataset_registry.server.routes.files import file_response

MOST_TABLES = 20
"""Tables of a version that are shown with their columns."""
MOST_PRODUCTIONS = 10
"""Productions of a version that are shown."""
MOST_COLUMNS = 200
"""Columns of a table that are shown."""
_COMPONENTS = 200
_PREVIEW_COLUMNS = 40
_PREVIEW_ROWS = 50
_SANDBOXED = {**HEADERS, "Content-Security-Policy": "default-src 'none'; sandbox"}
"""The headers of stored content."""


def _shared(dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str, tab: str) -> dict[str, Any]:
    """What every page of a version shows."""
    pointers = [p for p in [*dataset.branches(), *dataset.tags()] if p.version_number == version.number]
    return {"dataset": dataset, "version": version, "ref": ref, "pointers": pointers, "tab": tab}


def overview(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
    """The version at a glance: columns, changes, checks, provenance."""
    access = dataset.access
    listed, following = _component_page(version, 0)
    parent = version.parents[0] if version.parents else None
    productions = version.productions
    return page(
        request,
        "version.html",
        **_shared(dataset, version, ref, "overview"),
        measure=overviews.measures(access, [version.record])[version.id],
        components=listed[:12],
        has_more_components=len(listed) > 12 or following is not None,
        tables=[(label, table, list(_column_rows(table))) for label, table in shown_tables(version, listed).items()],
        diff=dataset.diff(f"v{parent}", f"v{version.number}") if parent is not None else None,
        productions=len(productions),
        runs=[(made, dagster_url(request, made.provenance.run_id)) for made in _some(productions)],
        consumers=version.consumers,
        checks=newest_of_each(version.checks),
        taints=version.taints,
        most_columns=MOST_COLUMNS,
        label=component_label,
    )


def _some(productions: Sequence[Production]) -> Sequence[Production]:
    """The first production, which created the version, and the newest ones."""
    return (
        productions if len(productions) <= MOST_PRODUCTIONS else [productions[0], *productions[1 - MOST_PRODUCTIONS :]]
    )


def _component_page(version: EmbeddedVersion, start: int) -> tuple[Sequence[Any], int | None]:
    """A page of components, and the position of the next page."""
    found = overviews.component_page(version.access, version.record, start, _COMPONENTS)
    return found, start + _COMPONENTS if start + _COMPONENTS < version.component_count else None


def first_tables(version: EmbeddedVersion) -> dict[str, TableSchema]:
    """The first tables of a version, by label."""
    return shown_tables(version, _component_page(version, 0)[0])


def shown_tables(version: EmbeddedVersion, listed: Sequence[ComponentRecord]) -> dict[str, TableSchema]:
    """The first tables among components of a version, by label."""
    names = list(dict.fromkeys(c.name for c in listed))[:MOST_TABLES]
    return dict(list(tables_of(version.captured(names)).items())[:MOST_TABLES])


def tables_of(captured: Sequence[tuple[str, int, ComponentSchema]]) -> dict[str, TableSchema]:
    """The tables of captured components, by label."""
    return Schema({component_label(name, index): schema for name, index, schema in captured}).tables()


def _column_rows(table: TableSchema) -> Iterator[tuple[Any, Any, float | None]]:
    """Each column with its statistics and its share of nulls."""
    for column in table.columns[:MOST_COLUMNS]:
        facts = table.statistics.get(column.name)
        share = facts.null_count / table.rows if facts and facts.null_count is not None and table.rows else None
        yield column, facts, share


def components(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
    """The components, page by page."""
    start = whole(request.query_params, "start", 0)
    listed, following = _component_page(version, start)
    return page(
        request,
        "components.html",
        **_shared(dataset, version, ref, "components"),
        components=listed,
        start=start,
        following=following,
        label=component_label,
    )


def preview(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
    """A component: rows of a table, a text, an image, bytes."""
    from dataset_registry.tabular.preview import OPERATORS, PreviewQuery

    query, access = request.query_params, dataset.access
    name, index = query.get("component") or None, whole(query, "index", 0)
    shared = _shared(dataset, version, ref, "preview")
    choices, _ = _component_page(version, 0)
    if name is None:
        names = [component.name for component in choices]
        name = "data" if "data" in names else names[0] if names else None
    if name is None:
        return page(request, "preview.html", **shared, viewed=None)
    viewed = previews.viewed(access, version.record, name, index)
    if viewed.view != "table":
        return page(request, "preview.html", **shared, viewed=viewed, choices=choices, label=component_label)
    assert viewed.schema is not None, "of a table"
    sheets = [table.name for table in viewed.schema.tables]
    sheet = query.get("sheet") if query.get("sheet") in sheets else sheets[0]
    table = viewed.schema.tables[sheets.index(sheet)]
    names = [column.name for column in table.columns]
    first = min(whole(query, "column", 0), max(len(names) - 1, 0))
    asked = PreviewQuery(
        columns=names[first : first + _PREVIEW_COLUMNS],
        filter_column=query.get("filter") or None,
        operator=query.get("operator", "="),
        value=query.get("value", "")[:1000],
        sort=query.get("sort") or None,
        is_descending=query.get("order") == "descending",
        offset=whole(query, "row", 0),
        limit=_PREVIEW_ROWS,
    )
    with one_at_work(request):
        found, problem = None, None
        try:
            found = previews.rows(access, version.record, viewed.component, sheet, asked)
        except InputError as error:
            problem = str(error)
    kept = {key: value for key, value in query.items() if key not in ("row", "column")}
    return page(
        request,
        "preview.html",
        status=200 if problem is None else 422,
        **shared,
        viewed=viewed,
        choices=choices,
        label=component_label,
        table=table,
        sheets=sheets,
        sheet=sheet,
        preview=found,
        bars={at: graphs.bars(counts) for at, counts in enumerate(found.distributions) if counts} if found else {},
        problem=problem,
        names=names,
        first=first,
        query=asked,
        kept=kept,
        operators=OPERATORS,
        step=_PREVIEW_ROWS,
        column_step=_PREVIEW_COLUMNS,
    )


def lineage(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
    """What the version was made from, and what was made from it."""
    steps = min(whole(request.query_params, "steps", 3), 10)
    found = overviews.lineage(dataset.access, version.record, steps=steps)
    column = request.query_params.get("column") or None
    return page(
        request,
        "lineage.html",
        **_shared(dataset, version, ref, "lineage"),
        lineage=found,
        drawing=graphs.drawn_lineage(found),
        steps=steps,
        column=column,
        column_lineage=version.column_lineage,
        columns_drawing=graphs.drawn_columns(version.column_lineage),
        impact=overviews.column_impact(dataset.access, version.record, column) if column else [],
        names=[found.name for found in version.schema.columns[:MOST_COLUMNS]]
        if version.component_count <= _COMPONENTS
        else [],
        rebuilds=[node for node in found.nodes if node.distance > 0],
    )


def download(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
    """A stored file of a component, as it was committed."""
    viewed, part = _component_of(request, version), whole(request.query_params, "part", 0)
    contents = CatalogContents(dataset.access)
    (stored,) = contents.data_files(version.record, [viewed])
    if part >= len(stored):
        raise NotFound(f"{viewed.name!r} has {len(stored)} files. There is none with the position {part}.")
    name = viewed.name.rsplit("/", 1)[-1] + ("" if len(stored) == 1 else f".{part}")
    if viewed.format == "parquet" and not name.endswith(".parquet"):
        name += ".parquet"
    response = file_response(dataset.access, [stored[part]], request.headers.get("range"), None)
    response.headers.update(_SANDBOXED)
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return response


def _component_of(request: Request, version: EmbeddedVersion) -> Any:
    name = request.query_params.get("component") or None
    return read.component(
        CatalogContents(version.access), version.record, name, whole(request.query_params, "index", 0)
    )


def image(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
    """An image of a component, for a preview."""
    name, index = request.query_params.get("component") or None, whole(request.query_params, "index", 0)
    viewed = previews.viewed(dataset.access, version.record, name, index)
    if viewed.media_type is None:
        raise InputError("This component is not an image of a type that is shown. Download it.")
    with version.open(viewed.component.name, index=index) as stream:
        content = stream.read()
    return Response(content, headers=_SANDBOXED, media_type=viewed.media_type)
