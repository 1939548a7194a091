"""Pages of comparisons: two refs side by side, and the rows that differ."""

from collections.abc import Iterator
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from dataset_registry.embedded import EmbeddedRegistry
from dataset_registry.embedded.dataset import EmbeddedDataset, EmbeddedVersion
from dataset_registry.model.diff import ComponentDiff, Diff
from dataset_registry.model.manifest import component_label
from dataset_registry.model.schema import TableSchema, compare
from dataset_registry.server.limits import one_at_work
from dataset_registry.server.pages.rendering import page
from dataset_registry.server.pages.versions import MOST_COLUMNS, MOST_TABLES, tables_of

_DIFF_ROWS = 200
_INLINE_ROWS = 500_000
"""Rows of changed parts up to which a comparison shows the rows at once."""


def comparison(request: Request, dataset: EmbeddedDataset, before: str, after: str) -> Response:
    """Two versions side by side."""
    diff = _across(dataset, before, after) if "@" in before or "@" in after else dataset.diff(before, after)
    old, new = EmbeddedVersion(dataset.access, diff.before), EmbeddedVersion(dataset.access, diff.after)
    changed = [component_label(*key) for key in diff.components.changed][:MOST_TABLES]
    names = [name for name, _ in diff.components.changed][:MOST_TABLES]
    tables = [tables_of(version.captured(names)) if names else {} for version in (old, new)]
    sides = [
        (label, tables[0].get(label), tables[1].get(label), diff.schema.get(label), diff.parts.get(label))
        for label in dict.fromkeys([*tables[0], *tables[1]])
        if label in changed or any(label.startswith(name + "/") for name in changed)
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


def _across(dataset: EmbeddedDataset, before: str, after: str) -> Diff:
    """The differences between versions of two datasets: of the components that both have, those with other content."""
    registry = EmbeddedRegistry(dataset.access)
    old, new = (registry.version(ref) if "@" in ref else dataset.version(ref) for ref in (before, after))
    left, right = ({(c.name, c.index): c.content_hash for c in version.components} for version in (old, new))
    common = [key for key in right if key in left and left[key] != right[key]]
    names = [name for name, _ in common][:MOST_TABLES]
    tables = [tables_of(version.captured(names)) if names else {} for version in (old, new)]
    schemas = {label: compare(tables[0][label], table) for label, table in tables[1].items() if label in tables[0]}
    found = ComponentDiff(
        tuple(key for key in right if key not in left), tuple(key for key in left if key not in right), tuple(common)
    )
    return Diff(old.record, new.record, found, {label: change for label, change in schemas.items() if change.changes})


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
    for name in list(dict.fromkeys([*now, *was]))[:MOST_COLUMNS]:
        before, after = old.statistics.get(name) if old else None, new.statistics.get(name) if new else None
        a, b = was.get(name), now.get(name)
        differs = (a and a.type) != (b and b.type) or before != after
        digests = before is not None and after is not None and before.digest != after.digest
        yield name, a, b, before, after, bool(differs or digests)


def rows(request: Request, dataset: EmbeddedDataset, before: str, after: str) -> Response:
    """The rows of a table that differ."""
    component = request.query_params.get("component") or None
    found = _row_changes(request, dataset, before, after, component)
    return page(request, "compare_rows.html", dataset=dataset, before=before, after=after, rows=found)


def _row_changes(
    request: Request, dataset: EmbeddedDataset, before: str, after: str, component: str | None
) -> dict[str, Any]:
    """The rows of a table that differ: counts, changed cells by column, and the first rows, those of a column or a key only."""
    from dataset_registry.tabular.row_page import row_page

    changed, key = request.query_params.get("changed") or None, request.query_params.get("key") or None
    name, sheet, index = _table_of(dataset, before, after, component)
    with one_at_work(request):
        summary = dataset.diff_summary(before, after, component=name)
        with dataset.diff_rows(before, after, name, index=index, sheet=sheet) as reader:
            found = row_page(reader, changed=changed, text=key, limit=_DIFF_ROWS, most=_INLINE_ROWS)
    return {"summary": summary, "page": found, "component": component, "changed": changed, "key": key}


def _table_of(
    dataset: EmbeddedDataset, before: str, after: str, label: str | None
) -> tuple[str | None, str | None, int]:
    """The component, sheet and index of the label of a table."""
    if label is None:
        return None, None, 0
    if "@" not in before + after:
        diff = dataset.diff(before, after)
        keys = [*diff.components.changed, *diff.components.added, *diff.components.removed]
        own = {component_label(*key): key for key in keys}
        if label in own:
            return own[label][0], None, own[label][1]
        for name in sorted(own, key=len, reverse=True):
            if label.startswith(name + "/"):
                return own[name][0], label.removeprefix(name + "/"), own[name][1]
    return label, None, 0
