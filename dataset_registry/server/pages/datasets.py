"""Pages of datasets, versions and comparisons, under `/datasets/`.

An address is that of the other interfaces, with a view behind `/-/`: `/datasets/raw/flights@main/-/preview`.
Two refs are compared at `/datasets/raw/flights/compare/v3...main`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from dataset_registry.access import Access
from dataset_registry.content import preview as previews
from dataset_registry.content.source import CatalogContents
from dataset_registry.embedded import EmbeddedRegistry
from dataset_registry.embedded.dataset import EmbeddedDataset, EmbeddedVersion
from dataset_registry.errors import InputError, NotFound, PermissionDenied
from dataset_registry.model.manifest import component_label
from dataset_registry.model.names import MAIN, split_address
from dataset_registry.model.schema import ComponentSchema, TableSchema
from dataset_registry.operations import history, overview
from dataset_registry.server.limits import one_at_work
from dataset_registry.server.pages import graphs
from dataset_registry.server.pages.base import FormDep, RegistryDep, whole
from dataset_registry.server.pages.home import dagster_url
from dataset_registry.server.pages.rendering import HEADERS, dataset_url, page

router = APIRouter(include_in_schema=False)

_HISTORY = 50
_COMPONENTS = 200
_TABLES = 20
_COLUMNS = 200
_PREVIEW_COLUMNS = 40
_PREVIEW_ROWS = 50
_DIFF_ROWS = 200
_INLINE_ROWS = 500_000
"""Rows of changed parts up to which a comparison shows the rows at once."""
_SCHEMA_STEPS = 200
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Address:
    """An address with the view behind `/-/`: a dataset, a version of it, or two refs to compare."""

    name: str
    ref: str | None
    compared: tuple[str, str] | None
    tail: str


def _parsed(path: str) -> _Address:
    address, _, tail = path.partition("/-/")
    name, separator, refs = address.partition("/compare/")
    if separator and "..." in refs:
        before, _, after = refs.partition("...")
        return _Address(split_address(name)[0], None, (before or MAIN, after or MAIN), tail)
    name, ref = split_address(address)
    return _Address(name, ref, None, tail)


@router.get("/datasets/{path:path}")
def show(request: Request, registry: RegistryDep, path: str) -> Response:
    """The page of an address."""
    address = _parsed(path)
    dataset = registry.dataset(address.name)
    if address.compared is not None:
        pages: dict[str, Any] = {"": _comparison, "rows": _compared_rows}
        return _chosen(pages, address)(request, dataset, *address.compared)
    if address.ref is None:
        pages = {"": _history, "schema": _schema_history, "settings": _settings}
        return _chosen(pages, address)(request, registry, dataset)
    version = dataset.version(address.ref or MAIN)
    pages = {
        "": _version,
        "preview": _preview,
        "components": _components,
        "lineage": _lineage,
        "download": _download,
        "image": _image,
    }
    return _chosen(pages, address)(request, dataset, version, address.ref or MAIN)


def _chosen(pages: dict[str, Any], address: _Address) -> Callable[..., Response]:
    if address.tail not in pages:
        raise NotFound(f"There is no page {address.tail!r} here. There are: {', '.join(filter(None, pages))}.")
    chosen: Callable[..., Response] = pages[address.tail]
    return chosen


# --- a dataset -----------------------------------------------------------------------------------------------------------


def _history(request: Request, registry: EmbeddedRegistry, dataset: EmbeddedDataset) -> Response:
    access, before = dataset.access, whole(request.query_params, "before", 0) or None
    found = overview.HistoryPage(access, dataset.record, before, _HISTORY)
    pointers = [*dataset.branches(), *dataset.tags()]
    refs: dict[int, list[Any]] = {}
    for pointer in pointers:
        refs.setdefault(pointer.version_number, []).append(pointer)
    rows, width = graphs.lanes([(v.number, v.parents) for v in found.versions], found.above)
    ref = next((p.name for p in pointers if p.name == MAIN), None) or (pointers[0].name if pointers else None)
    sizes = overview.sizes(access, dataset.record, ref) if ref is not None and before is None else []
    return page(
        request,
        "dataset.html",
        dataset=dataset,
        history=found,
        rows=list(zip(found.versions, rows, strict=True)),
        width=width,
        refs=refs,
        pointers=pointers,
        ref=ref,
        bytes_plot=graphs.plot([(m.bytes, f"v{number}") for number, _, m in sizes]),
        rows_plot=graphs.plot([(m.rows, f"v{number}") for number, _, m in sizes if m.rows is not None]),
        tab="history",
        before=before,
    )


def _schema_history(request: Request, registry: EmbeddedRegistry, dataset: EmbeddedDataset) -> Response:
    ref = request.query_params.get("ref", MAIN)
    steps = list(_schema_steps(dataset, ref))
    return page(request, "schema_history.html", dataset=dataset, steps=steps, ref=ref, tab="schema", most=_SCHEMA_STEPS)


def _schema_steps(dataset: EmbeddedDataset, ref: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The versions in the history of a ref that changed columns, newest first, each with the changes by table."""
    found = history.log(dataset.access, dataset.record, ref, _SCHEMA_STEPS)
    for version in found:
        if not version.parents:
            yield version, {}
            continue
        diff = dataset.diff(f"v{version.parents[0]}", f"v{version.number}")
        changes = {label: change for label, change in diff.schema.items() if change.changes}
        if changes:
            yield version, changes


def _settings(request: Request, registry: EmbeddedRegistry, dataset: EmbeddedDataset) -> Response:
    try:
        grants, entries = registry.grants(dataset.name), registry.audit(dataset=dataset.name, limit=20)
    except PermissionDenied:
        grants, entries = None, None
    return page(
        request,
        "settings.html",
        dataset=dataset,
        branches=dataset.branches(),
        tags=dataset.tags(),
        protections=registry.protections(dataset.name),
        grants=grants,
        entries=entries,
        tab="settings",
    )


# --- a version -----------------------------------------------------------------------------------------------------------


def _shared(dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str, tab: str) -> dict[str, Any]:
    """What every page of a version shows."""
    pointers = [p for p in [*dataset.branches(), *dataset.tags()] if p.version_number == version.number]
    return {"dataset": dataset, "version": version, "ref": ref, "pointers": pointers, "tab": tab}


def _version(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
    access = dataset.access
    components, following = _component_page(version, 0)
    names = list(dict.fromkeys(c.name for c in components))[:_TABLES]
    tables = list(_tables(version.captured(names)))
    parent = version.parents[0] if version.parents else None
    productions = version.productions
    return page(
        request,
        "version.html",
        **_shared(dataset, version, ref, "overview"),
        measure=overview.measures(access, [version.record])[version.id],
        components=components[:12],
        has_more_components=len(components) > 12 or following is not None,
        tables=[(label, table, list(_column_rows(table))) for label, table in tables[:_TABLES]],
        diff=dataset.diff(f"v{parent}", f"v{version.number}") if parent is not None else None,
        productions=productions,
        runs=[(made, dagster_url(request, made.provenance.run_id)) for made in productions],
        consumers=version.consumers,
        checks=list({check.label: check for check in version.checks}.values()),
        taints=version.taints,
        most_columns=_COLUMNS,
        label=component_label,
        server=str(request.base_url).rstrip("/"),
    )


def _component_page(version: EmbeddedVersion, start: int) -> tuple[Sequence[Any], int | None]:
    """A page of components, and the position of the next page."""
    found = overview.component_page(version.access, version.record, start, _COMPONENTS)
    return found, start + _COMPONENTS if start + _COMPONENTS < version.component_count else None


def _tables(captured: Sequence[tuple[str, int, ComponentSchema]]) -> Iterator[tuple[str, TableSchema]]:
    for name, index, schema in captured:
        for table in schema.tables:
            label = component_label(name, index)
            yield label if table.name is None else f"{label}/{table.name}", table


def _column_rows(table: TableSchema) -> Iterator[tuple[Any, Any, float | None]]:
    """Each column with its statistics and its share of nulls."""
    for column in table.columns[:_COLUMNS]:
        facts = table.statistics.get(column.name)
        share = facts.null_count / table.rows if facts and facts.null_count is not None and table.rows else None
        yield column, facts, share


def _components(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
    start = whole(request.query_params, "start", 0)
    components, following = _component_page(version, start)
    return page(
        request,
        "components.html",
        **_shared(dataset, version, ref, "components"),
        components=components,
        start=start,
        following=following,
        label=component_label,
    )


def _preview(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
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
    first = whole(query, "column", 0)
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
        problem=problem,
        names=names,
        first=first,
        query=asked,
        kept=kept,
        operators=OPERATORS,
        step=_PREVIEW_ROWS,
        column_step=_PREVIEW_COLUMNS,
    )


def _lineage(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
    steps = min(whole(request.query_params, "steps", 3), 10)
    found = overview.lineage(dataset.access, version.record, steps=steps)
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
        rebuilds=[node for node in found.nodes if node.distance > 0],
    )


def _download(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
    viewed, part = _component_of(request, version), whole(request.query_params, "part", 0)
    contents = CatalogContents(dataset.access)
    (stored,) = contents.data_files(version.record, [viewed])
    if part >= len(stored):
        raise NotFound(f"{viewed.name!r} has {len(stored)} files. There is none with the position {part}.")
    name = viewed.name.rsplit("/", 1)[-1] + ("" if len(stored) == 1 else f".{part}")
    if viewed.format == "parquet" and not name.endswith(".parquet"):
        name += ".parquet"
    headers = {
        **HEADERS,
        "Content-Length": str(stored[part].size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return StreamingResponse(
        _blocks(dataset.access, stored[part]), headers=headers, media_type="application/octet-stream"
    )


def _blocks(access: Access, file: Any) -> Iterator[bytes]:
    with CatalogContents(access).open(None, file) as stream:
        while block := stream.read(_BLOCK):
            yield block


def _component_of(request: Request, version: EmbeddedVersion) -> Any:
    from dataset_registry.content import read

    name = request.query_params.get("component") or None
    return read.component(
        CatalogContents(version.access), version.record, name, whole(request.query_params, "index", 0)
    )


def _image(request: Request, dataset: EmbeddedDataset, version: EmbeddedVersion, ref: str) -> Response:
    name, index = request.query_params.get("component") or None, whole(request.query_params, "index", 0)
    viewed = previews.viewed(dataset.access, version.record, name, index)
    if viewed.media_type is None:
        raise InputError("This component is not an image of a type that is shown. Download it.")
    with version.open(viewed.component.name, index=index) as stream:
        content = stream.read()
    headers = {**HEADERS, "Content-Security-Policy": "default-src 'none'; sandbox"}
    return Response(content, headers=headers, media_type=viewed.media_type)


# --- comparisons ---------------------------------------------------------------------------------------------------------


def _comparison(request: Request, dataset: EmbeddedDataset, before: str, after: str) -> Response:
    if "@" in before or "@" in after:
        return _compared_rows(request, dataset, before, after)
    diff = dataset.diff(before, after)
    old, new = EmbeddedVersion(dataset.access, diff.before), EmbeddedVersion(dataset.access, diff.after)
    changed = [component_label(*key) for key in diff.components.changed][:_TABLES]
    names = [name for name, _ in diff.components.changed][:_TABLES]
    tables = [dict(_tables(version.captured(names))) if names else {} for version in (old, new)]
    sides = [
        (label, tables[0].get(label), tables[1].get(label), diff.schema.get(label), diff.parts.get(label))
        for label in dict.fromkeys([*tables[0], *tables[1]])
        if label in changed or label.partition("/")[0] in changed
    ]
    moved = sum(parts.added_rows + parts.removed_rows for parts in diff.parts.values())
    shown = None
    if sides and moved <= _INLINE_ROWS and len(sides) == 1:
        shown = _row_changes(request, dataset, before, after, sides[0][0])
    return page(
        request,
        "compare.html",
        dataset=dataset,
        before=before,
        after=after,
        old=old,
        new=new,
        diff=diff,
        sides=[(*side, list(_side_by_side(side[1], side[2]))) for side in sides],
        rows=shown,
        label=component_label,
        images=list(_images(old, new, diff)),
    )


def _images(old: EmbeddedVersion, new: EmbeddedVersion, diff: Any) -> Iterator[tuple[str, str | None, str | None, int]]:
    """Changed components that look like images, by their names."""
    endings = (".png", ".jpg", ".jpeg", ".gif", ".webp")
    for name, index in [*diff.components.changed, *diff.components.added, *diff.components.removed][:50]:
        if name.lower().endswith(endings):
            is_old = (name, index) not in diff.components.added
            is_new = (name, index) not in diff.components.removed
            yield name, name if is_old else None, name if is_new else None, index


def _side_by_side(old: TableSchema | None, new: TableSchema | None) -> Iterator[tuple[str, Any, Any, Any, Any, bool]]:
    """Each column of two tables with its types and statistics on both sides, and whether they differ."""
    was = {column.name: column for column in old.columns} if old else {}
    now = {column.name: column for column in new.columns} if new else {}
    for name in list(dict.fromkeys([*now, *was]))[:_COLUMNS]:
        before, after = old.statistics.get(name) if old else None, new.statistics.get(name) if new else None
        a, b = was.get(name), now.get(name)
        differs = (a and a.type) != (b and b.type) or before != after
        digests = before is not None and after is not None and before.digest != after.digest
        yield name, a, b, before, after, bool(differs or digests)


def _compared_rows(request: Request, dataset: EmbeddedDataset, before: str, after: str) -> Response:
    component = request.query_params.get("component") or None
    found = _row_changes(request, dataset, before, after, component)
    is_part = request.headers.get("x-part") == "rows"
    return page(
        request,
        "row_changes.html" if is_part else "compare_rows.html",
        dataset=dataset,
        before=before,
        after=after,
        rows=found,
        component=component,
    )


def _row_changes(
    request: Request, dataset: EmbeddedDataset, before: str, after: str, component: str | None
) -> dict[str, Any]:
    """The rows of a table that differ: counts, changed cells by column, and the first rows, those of a column or a key only."""
    from dataset_registry.tabular.encoded import json_value

    query = request.query_params
    column, key = query.get("changed") or None, query.get("key") or None
    name, sheet, index = _table_of(dataset, before, after, component)
    with one_at_work(request):
        summary = dataset.diff_summary(before, after, component=name)
        with dataset.diff_rows(before, after, name, index=index, sheet=sheet) as reader:
            rows: list[dict[str, Any]] = []
            looked_at = 0
            keys = _keys(summary)
            for batch in reader:
                for row in batch.to_pylist():
                    looked_at += 1
                    if _is_wanted(row, column, key, keys) and len(rows) < _DIFF_ROWS:
                        rows.append(row)
                if len(rows) >= _DIFF_ROWS or looked_at > _INLINE_ROWS:
                    break
            names = list(reader.schema.names)
    has_sides = any(other.startswith(("before_", "after_")) for other in names)
    columns = list(dict.fromkeys(other.partition("_")[2] for other in names if other.startswith(("before_", "after_"))))
    return {
        "summary": summary,
        "rows": [{other: _cell(json_value(value)) for other, value in row.items()} for row in rows],
        "columns": columns if has_sides else [other for other in names if other != "change"],
        "key_columns": [other for other in names if other != "change" and not other.startswith(("before_", "after_"))]
        if has_sides
        else [],
        "has_sides": has_sides,
        "is_cut": len(rows) >= _DIFF_ROWS or looked_at > _INLINE_ROWS,
        "component": component,
        "changed": column,
        "key": key,
    }


def _table_of(
    dataset: EmbeddedDataset, before: str, after: str, label: str | None
) -> tuple[str | None, str | None, int]:
    """The component, sheet and index of the label of a table."""
    if label is None:
        return None, None, 0
    if "@" not in before + after:
        diff = dataset.diff(before, after)
        for name, index in [*diff.components.changed, *diff.components.added, *diff.components.removed]:
            own = component_label(name, index)
            if label == own or label.startswith(own + "/"):
                return name, label.removeprefix(own + "/") if label != own else None, index
    return label, None, 0


def _keys(summary: Any) -> Sequence[str]:
    return next((counts.key for counts in summary.values()), ())


def _is_wanted(row: dict[str, Any], column: str | None, key: str | None, keys: Sequence[str]) -> bool:
    if column is not None and f"before_{column}" in row and row[f"before_{column}"] == row[f"after_{column}"]:
        return False
    return key is None or any(key.casefold() in str(row.get(name)).casefold() for name in keys or row)


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= 200 else text[:199] + "…"


# --- changes -------------------------------------------------------------------------------------------------------------


@router.post("/datasets/{path:path}")
def change(request: Request, registry: RegistryDep, path: str, form: FormDep) -> Response:
    """A change that a form asks for: a tag, a branch, a revert, an absolution. Shows the page of what it changed."""
    address = _parsed(path)
    dataset = registry.dataset(address.name)
    ref = address.ref or MAIN
    match address.tail:
        case "tag":
            dataset.create_tag(form.get("name", ""), ref)
            target = dataset_url(dataset.name, form.get("name", ""))
        case "branch":
            dataset.create_branch(form.get("name", ""), ref)
            target = dataset_url(dataset.name, form.get("name", ""))
        case "revert":
            made = dataset.revert(ref, form.get("branch") or MAIN, message=form.get("message") or None)
            target = dataset_url(dataset.name, f"v{made.number}")
        case "absolve":
            dataset.absolve(ref, form.get("because", ""))
            target = dataset_url(dataset.name, ref)
        case _:
            raise NotFound(f"There is no form {address.tail!r}.")
    return RedirectResponse(target, 303)
