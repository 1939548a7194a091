"""History: versions, the history of a ref, the tree, children, merge bases, lineage.

A walk reads the history in several statements, so it needs one snapshot: an expiry in between would cut it short.
"""

from dataclasses import replace
from itertools import islice

from dataset_registry.access import Access, authorize, readable
from dataset_registry.catalog import Transaction, datasets, productions, versions
from dataset_registry.catalog.grants import Readable
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model import history
from dataset_registry.model.column_lineage import LINEAGE_FACT, lineage_from_json, lineage_to_json
from dataset_registry.model.names import parse_ref
from dataset_registry.model.records import DatasetRecord, Production, VersionRecord
from dataset_registry.operations import resolve

_PAGE = 1000
"""Maximum number of versions per query of a walk."""


def version(access: Access, dataset: DatasetRecord, ref: str) -> VersionRecord:
    """The version that a ref names. Raises `InvalidRef`, `NotFound`."""
    with access.catalog.snapshot() if parse_ref(ref).steps else access.catalog.read() as tx:
        authorize(access, tx, "read", dataset.id)
        return resolve.version(tx, dataset, ref)


def version_by_id(access: Access, dataset: DatasetRecord, version_id: int) -> VersionRecord:
    """The version of a dataset with this id. Raises `NotFound`."""
    with access.catalog.read() as tx:
        authorize(access, tx, "read", dataset.id)
        found = versions.by_id(tx, version_id)
    if found is None or found.dataset_id != dataset.id:
        raise NotFound(f"{dataset.name} has no version with the id {version_id}. List versions with tree().")
    return found


def log(
    access: Access, dataset: DatasetRecord, ref: str, limit: int | None, before: int | None = None
) -> list[VersionRecord]:
    """The version a ref names and everything it came from, newest first, at most `limit` of them, with numbers below `before`."""
    if limit is not None and limit < 0:
        raise InputError(f"A limit is 0 or more, not {limit}.", limit=limit)
    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", dataset.id)
        start = resolve.version(tx, dataset, ref)
        page = min(limit or _PAGE, _PAGE)
        walk = history.ancestors(start.number, versions.down(tx, dataset.id, start.number, page))
        walk = (version for version in walk if before is None or version.number < before)
        return list(islice(walk, limit))


def tree(
    access: Access, dataset: DatasetRecord, *, before: int | None = None, limit: int | None = None
) -> list[VersionRecord]:
    """Every version of a dataset, newest first; the tree is in their parents. Or a page: those with numbers below `before`."""
    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", dataset.id)
        return versions.all_of(tx, dataset.id, before=before, limit=limit)


def children(access: Access, dataset: DatasetRecord, ref: str) -> list[VersionRecord]:
    """The children of a version, oldest first."""
    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", dataset.id)
        return versions.children(tx, resolve.version(tx, dataset, ref).id)


def merge_bases(access: Access, dataset: DatasetRecord, left: str, right: str) -> list[VersionRecord]:
    """The best common ancestors of two refs, newest first: one, several after criss-cross merges, or none."""
    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", dataset.id)
        a, b = resolve.version(tx, dataset, left).number, resolve.version(tx, dataset, right).number
        return versions.numbered(tx, dataset.id, history.merge_bases(a, b, versions.below(tx, dataset.id, max(a, b))))


MOST_MEMOIZED = 100


def memoized(access: Access, dataset: DatasetRecord, digest: str, limit: int) -> list[Production]:
    """The productions of a dataset with this memo digest, newest first, at most `MOST_MEMOIZED`."""
    if not 1 <= limit <= MOST_MEMOIZED:
        raise InputError(f"A limit is 1 to {MOST_MEMOIZED}, not {limit}.", limit=limit)
    with access.catalog.read() as tx:
        authorize(access, tx, "read", dataset.id)
        among = readable(access, tx)
        return _visible(tx, productions.with_memo(tx, dataset.id, digest, limit, among), among)


def productions_of(access: Access, version: VersionRecord) -> list[Production]:
    """The productions of a version, oldest first: the first one created it, later ones left it unchanged."""
    with access.catalog.read() as tx:
        authorize(access, tx, "read", version.dataset_id)
        return visible_productions(access, tx, version)


def visible_productions(access: Access, tx: Transaction, version: VersionRecord) -> list[Production]:
    """The productions of a version, with the inputs and the sources of columns that the actor may read: others are left out."""
    among = readable(access, tx)
    return _visible(tx, productions.of_version(tx, version.id, among), among)


def _visible(tx: Transaction, found: list[Production], among: Readable) -> list[Production]:
    lineages = [lineage_from_json(made.provenance.metadata.get(LINEAGE_FACT)) for made in found]
    if among is None or not any(lineages):
        return found
    names = {source.dataset for lineage in lineages for sources in lineage.values() for source in sources}
    allowed = datasets.readable_names(tx, names, among)
    shown = []
    for made, lineage in zip(found, lineages, strict=True):
        if lineage:
            kept = {name: [s for s in sources if s.dataset in allowed] for name, sources in lineage.items()}
            metadata = {**made.provenance.metadata, LINEAGE_FACT: lineage_to_json(kept)}
            made = replace(made, provenance=replace(made.provenance, metadata=metadata))  # noqa: PLW2901 - the visible part
        shown.append(made)
    return shown


def consumers(access: Access, version: VersionRecord) -> list[tuple[str, int]]:
    """Dataset and number of every version that was made from this one."""
    with access.catalog.read() as tx:
        authorize(access, tx, "read", version.dataset_id)
        return productions.consumers(tx, version.id, readable(access, tx))
