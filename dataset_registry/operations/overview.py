"""Summaries over many datasets and versions, as far as the actor may read them: for pages."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from weakref import WeakKeyDictionary

from dataset_registry.access import Access, authorize, is_administrator, readable
from dataset_registry.catalog import Catalog, Transaction, datasets, files, manifests, overview, versions
from dataset_registry.catalog.grants import Readable
from dataset_registry.errors import NotFound
from dataset_registry.model.column_lineage import ColumnLineage
from dataset_registry.model.names import MAIN, pointer_name
from dataset_registry.model.overview import (
    BranchPlace,
    BranchSummary,
    CheckCounts,
    ColumnReader,
    DatasetSummary,
    HistoryPage,
    Lineage,
    LineageNode,
    LineagePlace,
    Measure,
    RunSummary,
    SearchHit,
)
from dataset_registry.model.records import ComponentRecord, DatasetRecord, VersionRecord
from dataset_registry.operations import resolve

ACTIVITY_DAYS = 30
"""The days of `DatasetSummary.activity`."""
_KNOWN_VERSIONS = 50_000
"""Versions of which facts are kept in memory: they never change."""

_Fact = TypeVar("_Fact")
_measures: "WeakKeyDictionary[Catalog, dict[int, Measure]]" = WeakKeyDictionary()
_new_bytes: "WeakKeyDictionary[Catalog, dict[int, int]]" = WeakKeyDictionary()


def dataset_summaries(
    access: Access, *, prefix: str = "", text: str = "", after: str = "", limit: int = 50
) -> list[DatasetSummary]:
    """The datasets after a name, by name, with their heads: those under a prefix whose name or description has a text."""
    if "\0" in prefix + text + after:  # PostgreSQL fails to look for it
        return []
    with access.catalog.read() as tx:
        found = overview.datasets_page(tx, readable(access, tx), prefix=prefix, text=text, after=after, limit=limit)
        heads = overview.heads(tx, [record.id for record in found])
        ids = [head.id for _, head in heads.values()]
        measures, checks = _measured(access, tx, ids), overview.check_counts(tx, ids)
        activity = overview.activity(tx, [record.id for record in found], ACTIVITY_DAYS)
    summaries = []
    for record in found:
        branch, head = heads.get(record.id, (None, None))
        counts = checks.get(head.id, CheckCounts()) if head else CheckCounts()
        measure = measures[head.id] if head else None
        summaries.append(DatasetSummary(record, branch, head, measure, counts, activity.get(record.id, {})))
    return summaries


def totals(access: Access) -> tuple[int, int, int | None]:
    """The number of datasets and of versions that the actor may read; for administrators the stored bytes."""
    with access.catalog.read() as tx:
        number, of_versions = overview.counts(tx, readable(access, tx))
        return number, of_versions, overview.stored_bytes(tx) if is_administrator(access, tx) else None


def branches(access: Access) -> list[BranchSummary]:
    """The branches other than `main` over all datasets, the one that moved last first."""
    with access.catalog.read() as tx:
        return overview.branches(tx, readable(access, tx))


def branch_places(access: Access, branch: str, target: str = MAIN) -> list[BranchPlace]:
    """Where a branch is in each dataset that has it, by name, beside the target. Raises `NotFound`."""
    pointer_name(branch), pointer_name(target)
    with access.catalog.read() as tx:
        among = readable(access, tx)
        heads, targets = overview.branch_heads(tx, among, branch), overview.branch_heads(tx, among, target)
    if not heads:
        raise NotFound(f"No dataset has a branch {branch!r}.", branch=branch)
    places = [BranchPlace(head.dataset, head, targets.get(dataset_id)) for dataset_id, head in heads.items()]
    return sorted(places, key=lambda place: place.dataset)


def recent_runs(access: Access) -> list[RunSummary]:
    """The runs that wrote versions last."""
    with access.catalog.read() as tx:
        return overview.recent_runs(tx, readable(access, tx))


def search(access: Access, text: str, limit: int = 20) -> list[SearchHit]:
    """Datasets, columns, messages, branches, tags, digests and runs with a text: at most `limit` of each kind."""
    if not text.strip() or "\0" in text:
        return []
    with access.catalog.read() as tx:
        return overview.search(tx, readable(access, tx), text.strip(), limit)


# --- versions ------------------------------------------------------------------------------------------------------------


def measures(access: Access, found: Sequence[VersionRecord]) -> dict[int, Measure]:
    """The bytes and rows of versions, which the actor may read, by their ids."""
    with access.catalog.read() as tx:
        return _measured(access, tx, [version.id for version in found])


def component_page(access: Access, version: VersionRecord, start: int, limit: int) -> list[ComponentRecord]:
    """The components of a version from a position on, in order."""
    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", version.dataset_id)
        entries = manifests.StoredManifest(tx, version.id).slice(start, limit)
        stored = files.get_many(tx, [entry.file_id for entry in entries if entry.file_id is not None])
    return [
        ComponentRecord(
            entry.name,
            entry.index,
            entry.type,
            entry.content_hash or None,
            stored[entry.file_id].size,
            entry.format,
            entry.file_id,
            json.loads(entry.metadata) if entry.metadata else {},
        )
        for entry in entries
        if entry.file_id is not None
    ]


def _measured(access: Access, tx: Transaction, ids: Sequence[int]) -> dict[int, Measure]:
    return _remembered(_measures, access, ids, lambda missing: overview.measures(tx, missing))


def _remembered(
    memory: "WeakKeyDictionary[Catalog, dict[int, _Fact]]",
    access: Access,
    ids: Sequence[int],
    ask: Callable[[Sequence[int]], Mapping[int, _Fact]],
) -> dict[int, _Fact]:
    """A fact of each version, which never changes; `ask` is for those that are not in memory."""
    known = memory.setdefault(access.catalog, {})
    if missing := [version_id for version_id in ids if version_id not in known]:
        if len(known) > _KNOWN_VERSIONS:
            known.clear()
            missing = list(ids)
        known |= ask(missing)
    return {version_id: known[version_id] for version_id in ids}


def history_page(access: Access, dataset: DatasetRecord, before: int | None, limit: int) -> HistoryPage:
    """A page of the versions of a dataset, newest first, with numbers below `before`."""
    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", dataset.id)
        found = versions.all_of(tx, dataset.id, before=before, limit=limit + 1)
        shown = found[:limit]
        ids = [version.id for version in shown]
        return HistoryPage(
            versions=shown,
            following=shown[-1].number if len(found) > limit else None,
            total=datasets.version_count(tx, dataset.id),
            runs=overview.runs_of(tx, ids),
            checks=overview.check_counts(tx, ids),
            new_bytes=_remembered(_new_bytes, access, ids, lambda missing: overview.new_bytes(tx, missing)),
            above=overview.edges_over(tx, dataset.id, shown[0].number) if before and shown else (),
        )


def schema_steps(access: Access, dataset: DatasetRecord, found: Sequence[VersionRecord]) -> list[VersionRecord]:
    """Those of these versions of a dataset that changed the schema of a component, and those without a parent."""
    with access.catalog.read() as tx:
        authorize(access, tx, "read", dataset.id)
        changed = overview.with_other_schemas(tx, [version.id for version in found])
    return [version for version in found if version.id in changed or not version.parents]


def sizes(access: Access, dataset: DatasetRecord, ref: str, limit: int = 60) -> list[tuple[int, datetime, Measure]]:
    """Number, time and measure of the newest versions in the history of a ref, oldest first."""
    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", dataset.id)
        head = resolve.version(tx, dataset, ref)
        found = [head]
        wanted: dict[int, VersionRecord] = {
            version.number: version for version in versions.all_of(tx, dataset.id, before=head.number, limit=4 * limit)
        }
        while len(found) < limit and found[-1].parents and found[-1].parents[0] in wanted:
            found.append(wanted[found[-1].parents[0]])
        measured = _measured(access, tx, [version.id for version in found])
    return [(version.number, version.created_at, measured[version.id]) for version in reversed(found)]


# --- lineage -------------------------------------------------------------------------------------------------------------


def lineage(access: Access, version: VersionRecord, *, steps: int = 4, most: int = 40) -> Lineage:
    """The versions that a version was produced from, and those that were produced from it, up to some steps away and at most
    `most` on each side, as far as the actor may read them."""
    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", version.dataset_id)
        among = readable(access, tx)
        start: LineagePlace = (version.dataset, version.number)
        nodes: dict[LineagePlace, LineageNode] = {start: LineageNode(start, 0)}
        edges: dict[tuple[LineagePlace, LineagePlace], None] = {}
        more = {-1: 0, 1: 0}
        for direction in (-1, 1):
            frontier, left = {version.id: start}, most
            for distance in range(1, steps + 1):
                following: dict[int, LineagePlace] = {}
                for near, version_id, place in _neighbours(tx, frontier, direction, among):
                    if place not in nodes:
                        if not left:
                            more[direction] += 1
                            continue
                        left -= 1
                        nodes[place] = LineageNode(place, direction * distance, version_id is not None)
                        if version_id is not None:
                            following[version_id] = place
                    if place != near:
                        edges[(place, near) if direction < 0 else (near, place)] = None
                frontier = following
            if frontier:
                more[direction] += len({place for _, _, place in _neighbours(tx, frontier, direction, among)})
    return Lineage(tuple(nodes.values()), tuple(edges), more[-1], more[1])


def _neighbours(
    tx: Transaction, frontier: Mapping[int, LineagePlace], direction: int, among: Readable
) -> list[tuple[LineagePlace, int | None, LineagePlace]]:
    """The versions one step upstream (-1) or downstream (1) of others: which of those, the id (None for a version that is gone),
    and the place."""
    if not frontier:
        return []
    links = (overview.inputs_of if direction < 0 else overview.outputs_of)(tx, list(frontier), among)
    pairs = [(link.output, link.input, link) if direction < 0 else (link.input, link.output, link) for link in links]
    there = overview.by_ids(tx, {other for _, other, _ in pairs if other is not None})
    found: list[tuple[LineagePlace, int | None, LineagePlace]] = []
    for near, other, link in pairs:
        record = there.get(other) if other is not None else None
        place = (record.dataset, record.number) if record else (link.dataset, link.number)
        if near is not None:
            found.append((frontier[near], record.id if record else None, place))
    return found


def column_impact(access: Access, version: VersionRecord, column: str, most: int = 100) -> list[ColumnReader]:
    """The versions downstream that were made from a column of a version, by the column lineage that was recorded; those without
    one may have been. Nearest first, as far as the actor may read them, at most `most`."""
    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", version.dataset_id)
        among = readable(access, tx)
        frontier: dict[int, tuple[str, frozenset[str] | None]] = {version.id: (version.dataset, frozenset((column,)))}
        found: dict[int, ColumnReader] = {}
        while frontier and len(found) < most:
            links = overview.outputs_of(tx, list(frontier), among)
            there = overview.by_ids(tx, {link.output for link in links})
            lineages = overview.column_lineages(tx, list(there))
            following: dict[int, tuple[str, frozenset[str] | None]] = {}
            for link in links:
                record = there.get(link.output)
                if record is None or record.id in found or link.input is None:
                    continue
                name, columns = frontier[link.input]
                made = _made_from(lineages.get(record.id), name, columns)
                if made is None or made:
                    found[record.id] = ColumnReader(
                        record.dataset, record.number, None if made is None else sorted(made)
                    )
                    following[record.id] = (record.dataset, made)
            frontier = following
    return list(found.values())[:most]


def _made_from(lineage: ColumnLineage | None, dataset: str, columns: frozenset[str] | None) -> frozenset[str] | None:
    """The columns that were made from columns of a dataset; None if it is not known."""
    if not lineage or columns is None:
        return None
    wanted = {(dataset, column) for column in columns}
    return frozenset(name for name, sources in lineage.items() if wanted.intersection(map(tuple, sources)))
