"""Summaries over many rows, set-wise: for pages that show many datasets and versions at once. Reads only."""

import json
from collections import defaultdict
from collections.abc import Collection
from datetime import date
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    Select,
    Subquery,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    or_,
    select,
)

from dataset_registry.catalog import versions
from dataset_registry.catalog.files import STORED_SIZE
from dataset_registry.catalog.grants import Readable
from dataset_registry.catalog.rows import Transaction, id_rows
from dataset_registry.catalog.tables import (
    dataset_pointers,
    dataset_version_files,
    dataset_versions,
    datasets,
    file_captures,
    file_parts,
    files,
    manifest_entries,
    manifest_index_entries,
    production_inputs,
    productions,
    schemas,
    users,
    version_checks,
    version_index_pages,
    version_parents,
)
from dataset_registry.catalog.types import utc_now
from dataset_registry.model.column_lineage import LINEAGE_FACT, ColumnLineage, lineage_from_json
from dataset_registry.model.names import MAIN
from dataset_registry.model.overview import BranchSummary, CheckCounts, Measure, RunSummary, SearchHit
from dataset_registry.model.records import DatasetRecord, VersionRecord

_V, _D, _P = dataset_versions, datasets, dataset_pointers
_COUNTED_COMPONENTS = 5000
"""Rows are counted of versions with at most this many components."""
_SHEETS = 16
"""Sheets of a spreadsheet that are counted."""


def _among(column: ColumnElement[int], among: Readable) -> list[ColumnElement[bool]]:
    return [] if among is None else [column.in_(among)]


def _by_bytes(tx: Transaction, column: ColumnElement[str]) -> ColumnElement[str]:
    """A name, ordered by its UTF-8 bytes."""
    return column.collate("BINARY" if tx.dialect.name == "sqlite" else "C")


# --- datasets ------------------------------------------------------------------------------------------------------------


def datasets_page(
    tx: Transaction, among: Readable, *, prefix: str, text: str, after: str, limit: int
) -> list[DatasetRecord]:
    """The datasets after a name, by name: those under a prefix whose name or description has a text."""
    name = _by_bytes(tx, _D.c.name)
    query = (
        select(_D.c.id, _D.c.name, _D.c.description, _D.c.created_at, users.c.username)
        .select_from(_D.outerjoin(users, users.c.id == _D.c.created_by))
        .where(*_among(_D.c.id, among))
        .order_by(name)
        .limit(limit)
    )
    if prefix:
        query = query.where(func.substr(_D.c.name, 1, len(prefix)) == prefix)
    if after:
        query = query.where(name > after)
    if text:
        query = query.where(
            or_(_D.c.name.icontains(text, autoescape=True), _D.c.description.icontains(text, autoescape=True))
        )
    return [DatasetRecord(*row) for row in tx.execute(query)]


def counts(tx: Transaction, among: Readable) -> tuple[int, int]:
    """The number of datasets and of versions."""
    number = tx.execute(select(func.count()).select_from(_D).where(*_among(_D.c.id, among))).scalar_one()
    of_versions = select(func.count()).select_from(_V).where(*_among(_V.c.dataset_id, among))
    return int(number), int(tx.execute(of_versions).scalar_one())


def stored_bytes(tx: Transaction) -> int:
    """The bytes of all stored contents."""
    return int(tx.execute(select(func.coalesce(func.sum(STORED_SIZE), 0))).scalar_one())


def heads(tx: Transaction, dataset_ids: Collection[int]) -> dict[int, tuple[str | None, VersionRecord]]:
    """By dataset the head of `main`, or the newest version (then the branch is None)."""
    query = select(_P.c.dataset_id, _P.c.dataset_version_id).where(
        _P.c.pointer_name == MAIN, ~_P.c.is_tag, _P.c.dataset_id.in_(id_rows(tx, dataset_ids))
    )
    wanted: dict[int, tuple[str | None, int]] = {d: (MAIN, v) for d, v in tx.execute(query)}
    if others := [d for d in dataset_ids if d not in wanted]:
        newest = (
            select(_V.c.dataset_id, func.max(_V.c.id))
            .where(_V.c.dataset_id.in_(id_rows(tx, others)))
            .group_by(_V.c.dataset_id)
        )
        wanted |= {d: (None, v) for d, v in tx.execute(newest)}
    records = by_ids(tx, [version_id for _, version_id in wanted.values()])
    return {d: (branch, records[v]) for d, (branch, v) in wanted.items() if v in records}


def by_ids(tx: Transaction, version_ids: Collection[int]) -> dict[int, VersionRecord]:
    """Versions by their ids."""
    return {record.id: record for record in versions.with_ids(tx, version_ids)}


def activity(tx: Transaction, dataset_ids: Collection[int], days: int) -> dict[int, dict[date, int]]:
    """The number of versions of each dataset by day, of the last days."""
    day = func.date(_V.c.ingestion_timestamp)
    query = (
        select(_V.c.dataset_id, cast(day, Text), func.count())
        .where(_V.c.dataset_id.in_(id_rows(tx, dataset_ids)), _V.c.ingestion_timestamp > utc_now(-days * 24 * 60 * 60))
        .group_by(_V.c.dataset_id, day)
    )
    found: dict[int, dict[date, int]] = defaultdict(dict)
    for dataset_id, when, count in tx.execute(query):
        found[dataset_id][date.fromisoformat(when)] = count
    return found


# --- versions ------------------------------------------------------------------------------------------------------------


def measures(tx: Transaction, version_ids: Collection[int]) -> dict[int, Measure]:
    """The bytes and rows of versions."""
    f = dataset_version_files
    size = (
        select(f.c.version_id, func.sum(files.c.file_size))
        .join(files, files.c.id == f.c.file_id)
        .where(f.c.version_id.in_(id_rows(tx, version_ids)))
        .group_by(f.c.version_id)
    )
    sizes = {version_id: int(total or 0) for version_id, total in tx.execute(size)}
    counted = select(_V.c.id).where(_V.c.id.in_(id_rows(tx, version_ids)), _V.c.component_count <= _COUNTED_COMPONENTS)
    table = [file_captures.c.statistics_json[i]["rows"].as_integer() for i in range(_SHEETS)]
    of_sheets = sum((func.coalesce(rows, 0) for rows in table[1:]), func.coalesce(table[0], 0))
    query = (
        select(f.c.version_id, func.sum(case((f.c.format.startswith("excel"), of_sheets), else_=table[0])))
        .join(
            file_captures,
            and_(
                file_captures.c.file_id == f.c.file_id,
                file_captures.c.format == f.c.format,
                file_captures.c.schema_id == f.c.schema_id,
            ),
        )
        .where(f.c.version_id.in_(counted))
        .group_by(f.c.version_id)
    )
    rows = {version_id: None if count is None else int(count) for version_id, count in tx.execute(query)}
    return {version_id: Measure(sizes.get(version_id, 0), rows.get(version_id)) for version_id in version_ids}


def _changed_entries(tx: Transaction, version_ids: Collection[int]) -> Subquery:
    """The entries of versions on manifest pages that their first parents do not have, each with the file and the schema that the
    parent has for the same component."""
    mine, parents = version_index_pages.alias(), version_index_pages.alias()
    own, theirs = manifest_index_entries.alias(), manifest_index_entries.alias()
    known_page = (
        exists()
        .where(parents.c.version_id == _V.c.parent_version_id, parents.c.index_page_id == theirs.c.index_page_id)
        .where(theirs.c.page_id == own.c.page_id)
    )
    entry, page = manifest_entries.alias(), manifest_index_entries.alias()

    def of_parent(column: ColumnElement[int]) -> ScalarSelect[int]:
        return (
            select(column)
            .select_from(entry)
            .join(page, page.c.page_id == entry.c.page_id)
            .join(parents, parents.c.index_page_id == page.c.index_page_id)
            .where(parents.c.version_id == _V.c.parent_version_id)
            .where(entry.c.component_name == manifest_entries.c.component_name)
            .where(entry.c.component_index == manifest_entries.c.component_index)
            .correlate(_V, manifest_entries)
            .limit(1)
            .scalar_subquery()
        )

    return (
        select(
            _V.c.id.label("version"),
            manifest_entries.c.file_id.label("file"),
            manifest_entries.c.schema_id.label("schema"),
            of_parent(entry.c.file_id).label("was"),
            of_parent(entry.c.schema_id).label("was_schema"),
        )
        .select_from(_V)
        .join(mine, mine.c.version_id == _V.c.id)
        .join(own, own.c.index_page_id == mine.c.index_page_id)
        .join(manifest_entries, manifest_entries.c.page_id == own.c.page_id)
        .where(_V.c.id.in_(id_rows(tx, version_ids)), ~known_page)
        .subquery()
    )


def with_other_schemas(tx: Transaction, version_ids: Collection[int]) -> set[int]:
    """Those of these versions in which a component has another schema than in the first parent."""
    changed = _changed_entries(tx, version_ids)
    return set(tx.execute(select(changed.c.version).where(changed.c.schema != changed.c.was_schema)).scalars())


def new_bytes(tx: Transaction, version_ids: Collection[int]) -> dict[int, int]:
    """For each version the bytes of its content that its first parent does not have: of tables, those of new parts."""
    changed = _changed_entries(tx, version_ids)
    is_new = or_(changed.c.was.is_(None), changed.c.was != changed.c.file)
    found: dict[int, int] = dict.fromkeys(version_ids, 0)
    whole = (
        select(changed.c.version, func.sum(files.c.file_size))
        .join(files, files.c.id == changed.c.file)
        .where(is_new, files.c.form != "parts")
        .group_by(changed.c.version)
    )
    for version_id, size in tx.execute(whole):
        found[version_id] += int(size)
    part, before = files.alias(), file_parts.alias()
    known = exists().where(before.c.file_id == changed.c.was, before.c.part_id == file_parts.c.part_id)
    of_parts = (
        select(changed.c.version, func.sum(part.c.file_size))
        .join(file_parts, file_parts.c.file_id == changed.c.file)
        .join(part, part.c.id == file_parts.c.part_id)
        .where(is_new, ~known)
        .group_by(changed.c.version)
    )
    for version_id, size in tx.execute(of_parts):
        found[version_id] += int(size)
    return found


def check_counts(tx: Transaction, version_ids: Collection[int]) -> dict[int, CheckCounts]:
    """How many checks of each version passed and failed, by the newest result of each check."""
    newest = (
        select(func.max(version_checks.c.id))
        .where(version_checks.c.version_id.in_(id_rows(tx, version_ids)))
        .group_by(version_checks.c.version_id, version_checks.c.name, version_checks.c.partition_key)
    )
    passed = func.sum(case((version_checks.c.passed, 1), else_=0))
    query = (
        select(version_checks.c.version_id, passed, func.count())
        .where(version_checks.c.id.in_(newest))
        .group_by(version_checks.c.version_id)
    )
    return {version_id: CheckCounts(int(good), int(all_ - good)) for version_id, good, all_ in tx.execute(query)}


def runs_of(tx: Transaction, version_ids: Collection[int]) -> dict[int, str]:
    """The run that created each version, if a run did."""
    first = (
        select(func.min(productions.c.id))
        .where(productions.c.version_id.in_(id_rows(tx, version_ids)))
        .group_by(productions.c.version_id)
    )
    query = select(productions.c.version_id, productions.c.run_id).where(productions.c.id.in_(first))
    return {version_id: run_id for version_id, run_id in tx.execute(query) if run_id is not None}


def edges_over(tx: Transaction, dataset_id: int, number: int) -> list[tuple[int, int]]:
    """The pairs of a child with a number above `number` and a parent with this number or one below, newest child first."""
    parent = dataset_versions.alias("parent")
    first = (
        select(_V.c.version_number, parent.c.version_number)
        .join(parent, parent.c.id == _V.c.parent_version_id)
        .where(_V.c.dataset_id == dataset_id, _V.c.version_number > number, parent.c.version_number <= number)
    )
    further = (
        select(_V.c.version_number, parent.c.version_number)
        .join(version_parents, version_parents.c.version_id == _V.c.id)
        .join(parent, parent.c.id == version_parents.c.parent_id)
        .where(_V.c.dataset_id == dataset_id, _V.c.version_number > number, parent.c.version_number <= number)
    )
    return sorted(((int(a), int(b)) for query in (first, further) for a, b in tx.execute(query)), reverse=True)


# --- branches and runs ---------------------------------------------------------------------------------------------------


def branches(tx: Transaction, among: Readable, limit: int = 200) -> list[BranchSummary]:
    """The branches other than `main` over all datasets, the one that moved last first."""
    main = dataset_pointers.alias("main")
    ahead = func.sum(case((or_(main.c.id.is_(None), main.c.dataset_version_id != _P.c.dataset_version_id), 1), else_=0))
    query = (
        select(_P.c.pointer_name, func.count(), ahead, func.max(_P.c.updated_at))
        .select_from(
            _P.outerjoin(main, and_(main.c.dataset_id == _P.c.dataset_id, main.c.pointer_name == MAIN, ~main.c.is_tag))
        )
        .where(~_P.c.is_tag, _P.c.pointer_name != MAIN, *_among(_P.c.dataset_id, among))
        .group_by(_P.c.pointer_name)
        .order_by(func.max(_P.c.updated_at).desc(), _P.c.pointer_name)
        .limit(limit)
    )
    return [BranchSummary(name, int(n), int(moved), when) for name, n, moved, when in tx.execute(query)]


def branch_heads(tx: Transaction, among: Readable, branch: str) -> dict[int, VersionRecord]:
    """The head of a branch in each dataset that has it, by dataset."""
    query = select(_P.c.dataset_version_id).where(
        _P.c.pointer_name == branch, ~_P.c.is_tag, *_among(_P.c.dataset_id, among)
    )
    found = by_ids(tx, list(tx.execute(query).scalars()))
    return {record.dataset_id: record for record in found.values()}


def recent_runs(tx: Transaction, among: Readable, limit: int = 10) -> list[RunSummary]:
    """The runs that wrote versions last."""
    last = func.max(productions.c.created_at)
    query = (
        select(
            productions.c.run_id,
            func.count(productions.c.version_id.distinct()),
            func.count(_V.c.dataset_id.distinct()),
            last,
        )
        .join(_V, _V.c.id == productions.c.version_id)
        .where(
            productions.c.run_id.is_not(None),
            productions.c.id > select(func.coalesce(func.max(productions.c.id), 0) - 2000).scalar_subquery(),
            *_among(_V.c.dataset_id, among),
        )
        .group_by(productions.c.run_id)
        .order_by(func.max(productions.c.id).desc())
        .limit(limit)
    )
    return [RunSummary(run_id, int(n), int(d), when) for run_id, n, d, when in tx.execute(query)]


# --- lineage -------------------------------------------------------------------------------------------------------------


class Link(NamedTuple):
    """A version and one of its inputs: their ids (None for an input that is gone), and the input as it was named."""

    output: int
    input: int | None
    dataset: str
    number: int


def _links() -> Select[tuple[int, int | None, str, int]]:
    return (
        select(
            productions.c.version_id,
            production_inputs.c.version_id,
            production_inputs.c.dataset_name,
            production_inputs.c.version_number,
        )
        .join(productions, productions.c.id == production_inputs.c.production_id)
        .distinct()
    )


def inputs_of(tx: Transaction, version_ids: Collection[int], among: Readable) -> list[Link]:
    """The inputs of versions. Those of datasets not `among` these are left out."""
    query = _links().where(productions.c.version_id.in_(id_rows(tx, version_ids)))
    if among is not None:
        query = query.where(production_inputs.c.dataset_id.in_(among))
    return [Link(*row) for row in tx.execute(query)]


def outputs_of(tx: Transaction, version_ids: Collection[int], among: Readable) -> list[Link]:
    """The versions that were produced from versions, of datasets `among` these."""
    query = _links().join(_V, _V.c.id == productions.c.version_id)
    query = query.where(production_inputs.c.version_id.in_(id_rows(tx, version_ids)), *_among(_V.c.dataset_id, among))
    return [Link(*row) for row in tx.execute(query)]


def column_lineages(tx: Transaction, version_ids: Collection[int]) -> dict[int, ColumnLineage]:
    """The column lineage of versions, by the newest production that recorded one."""
    query = (
        select(productions.c.version_id, productions.c.metadata)
        .where(productions.c.version_id.in_(id_rows(tx, version_ids)), productions.c.metadata.is_not(None))
        .order_by(productions.c.id)
    )
    found = {version_id: lineage_from_json(facts.get(LINEAGE_FACT)) for version_id, facts in tx.execute(query)}
    return {version_id: lineage for version_id, lineage in found.items() if lineage}


# --- search --------------------------------------------------------------------------------------------------------------


def search(tx: Transaction, among: Readable, text: str, limit: int) -> list[SearchHit]:
    """Datasets, columns of current heads, messages, branches, tags, digests and runs with a text."""
    found = [
        SearchHit("dataset", d.name, d.name)
        for d in datasets_page(tx, among, prefix="", text=text, after="", limit=limit)
    ]
    found += _columns(tx, among, text, limit)
    named = (
        select(_P.c.pointer_name, _P.c.is_tag, _D.c.name)
        .join(_D, _D.c.id == _P.c.dataset_id)
        .where(_P.c.pointer_name.icontains(text, autoescape=True), *_among(_P.c.dataset_id, among))
        .order_by(_P.c.pointer_name, _D.c.name)
        .limit(limit)
    )
    for name, is_tag, dataset in tx.execute(named):
        if name != MAIN:
            found.append(SearchHit("tag" if is_tag else "branch", name, dataset, name))
    messages = (
        select(_V.c.message, _D.c.name, _V.c.version_number)
        .join(_D, _D.c.id == _V.c.dataset_id)
        .where(_V.c.message.icontains(text, autoescape=True), *_among(_V.c.dataset_id, among))
        .order_by(_V.c.id.desc())
        .limit(limit)
    )
    found += [SearchHit("version", message, name, f"v{number}") for message, name, number in tx.execute(messages)]
    if len(text) >= 4 and all(digit in "0123456789abcdef" for digit in text):
        digests = (
            select(_V.c.digest, _D.c.name, _V.c.version_number)
            .join(_D, _D.c.id == _V.c.dataset_id)
            .where(_V.c.digest >= text, _V.c.digest < text + "g", *_among(_V.c.dataset_id, among))
            .limit(limit)
        )
        found += [SearchHit("version", digest, name, f"v{number}") for digest, name, number in tx.execute(digests)]
    runs = (
        select(productions.c.run_id, func.min(_D.c.name))
        .join(_V, _V.c.id == productions.c.version_id)
        .join(_D, _D.c.id == _V.c.dataset_id)
        .where(productions.c.run_id.startswith(text, autoescape=True), *_among(_V.c.dataset_id, among))
        .group_by(productions.c.run_id)
        .limit(limit)
    )
    return found + [SearchHit("run", run_id, name) for run_id, name in tx.execute(runs)]


def _columns(tx: Transaction, among: Readable, text: str, limit: int) -> list[SearchHit]:
    """The columns with a text in the name, of heads of `main`."""
    stored = cast(schemas.c.schema_json, Text)
    spelled = {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}  # as databases write JSON
    query = select(schemas.c.id, schemas.c.schema_json).where(
        or_(*(stored.icontains(spelling, autoescape=True) for spelling in sorted(spelled)))
    )
    with_column: dict[int, list[str]] = {}
    for schema_id, snapshot in tx.execute(query.order_by(schemas.c.id.desc()).limit(20 * limit)):
        names = [
            column["name"]
            for table in snapshot["tables"]
            for column in table["columns"]
            if text.casefold() in column["name"].casefold()
        ]
        if names:
            with_column[schema_id] = list(dict.fromkeys(names))[:3]
    if not with_column:
        return []
    f = dataset_version_files
    used = (
        select(_D.c.name, f.c.schema_id)
        .distinct()
        .join(_P, and_(_P.c.dataset_id == _D.c.id, _P.c.pointer_name == MAIN, ~_P.c.is_tag))
        .join(f, f.c.version_id == _P.c.dataset_version_id)
        .where(f.c.schema_id.in_(id_rows(tx, with_column)), *_among(_D.c.id, among))
        .order_by(_D.c.name)
        .limit(limit)
    )
    hits = {
        SearchHit("column", name, dataset, MAIN): None for dataset, sid in tx.execute(used) for name in with_column[sid]
    }
    return list(hits)
