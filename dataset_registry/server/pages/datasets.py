"""Pages of datasets, versions and comparisons, under `/datasets/`.

An address is that of the other interfaces, with a view behind `/-/`: `/datasets/raw/flights@main/-/preview`.
Two refs are compared at `/datasets/raw/flights/compare/v3...main`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from dataset_registry.embedded import EmbeddedRegistry
from dataset_registry.embedded.dataset import EmbeddedDataset
from dataset_registry.errors import NotFound, PermissionDenied
from dataset_registry.model.names import MAIN, split_address
from dataset_registry.model.pages import dataset_path
from dataset_registry.model.schema import TableSchema
from dataset_registry.operations import history, overview
from dataset_registry.server.pages import comparisons, graphs, versions
from dataset_registry.server.pages.base import FormDep, RegistryDep, whole
from dataset_registry.server.pages.rendering import page

router = APIRouter(include_in_schema=False)

_HISTORY = 50
_SCHEMA_STEPS = 200
_SHOWN_STEPS = 30


@dataclass(frozen=True, slots=True)
class _Address:
    """An address with the view behind `/-/`: a dataset, a version of it, or two refs to compare."""

    name: str
    ref: str | None
    compared: tuple[str, str] | None
    tail: str


_VIEWS = {
    "",
    "schema",
    "settings",
    "preview",
    "components",
    "lineage",
    "download",
    "image",
    "rows",
    "tag",
    "branch",
    "revert",
    "absolve",
}
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def _parsed(path: str) -> _Address:
    quoted = _QUOTED.match(path)
    start = quoted[0] if quoted else ""
    rest = path[len(start) :]
    address, separator, view = rest.rpartition("/-/")
    # The name of a branch may have the separator, too.
    is_view = bool(separator) and (view in _VIEWS or "@" not in address)
    address, view = (address, view) if is_view else (rest, "")
    name, comparison, refs = address.partition("/compare/")
    if comparison and "..." in refs:
        before, _, after = refs.partition("...")
        return _Address(split_address(start + name)[0], None, (before or MAIN, after or MAIN), view)
    name, ref = split_address(start + address)
    return _Address(name, ref, None, view)


@router.get("/datasets/{path:path}")
def show(request: Request, registry: RegistryDep, path: str) -> Response:
    """The page of an address."""
    address = _parsed(path)
    dataset = registry.dataset(address.name)
    if address.compared is not None:
        pages: dict[str, Any] = {"": comparisons.comparison, "rows": comparisons.rows}
        return _chosen(pages, address)(request, dataset, *address.compared)
    if address.ref is None:
        pages = {"": _history, "schema": _schema_history, "settings": _settings}
        return _chosen(pages, address)(request, registry, dataset)
    version = dataset.version(address.ref or MAIN)
    pages = {
        "": versions.overview,
        "preview": versions.preview,
        "components": versions.components,
        "lineage": versions.lineage,
        "download": versions.download,
        "image": versions.image,
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
    found = overview.history_page(access, dataset.record, before, _HISTORY)
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


def _schema_steps(dataset: EmbeddedDataset, ref: str) -> Iterator[tuple[Any, dict[str, Any], dict[str, TableSchema]]]:
    """The versions in the history of a ref that changed columns, newest first: each with the changes by table, the first version
    with its tables."""
    found = history.log(dataset.access, dataset.record, ref, _SCHEMA_STEPS)
    for version in overview.schema_steps(dataset.access, dataset.record, found)[:_SHOWN_STEPS]:
        if not version.parents:
            yield version, {}, versions.first_tables(dataset.version(f"v{version.number}"))
            continue
        diff = dataset.diff(f"v{version.parents[0]}", f"v{version.number}")
        changes = {label: change for label, change in diff.schema.items() if change.changes}
        if changes:
            yield version, changes, {}


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
            target = dataset_path(dataset.name, form.get("name", ""))
        case "branch":
            dataset.create_branch(form.get("name", ""), ref)
            target = dataset_path(dataset.name, form.get("name", ""))
        case "revert":
            made = dataset.revert(ref, form.get("branch") or MAIN, message=form.get("message") or None)
            target = dataset_path(dataset.name, f"v{made.number}")
        case "absolve":
            dataset.absolve(ref, form.get("because", ""))
            target = dataset_path(dataset.name, ref)
        case _:
            raise NotFound(f"There is no form {address.tail!r}.")
    return RedirectResponse(target, 303)
