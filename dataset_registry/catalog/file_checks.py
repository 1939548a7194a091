"""Files as a verification needs them: in order, by key, with their damage."""

from collections.abc import Sequence

from sqlalchemy import exists, func, or_, select, union, update

from dataset_registry.catalog import recipes
from dataset_registry.catalog.files import COLUMNS, HAS_BYTES, STORED, get_many, record_of
from dataset_registry.catalog.rows import Transaction, batches
from dataset_registry.catalog.tables import (
    dataset_version_files,
    dataset_versions,
    datasets,
    file_captures,
    file_parts,
    file_ranges,
    files,
    manifest_entries,
    schemas,
)
from dataset_registry.model.records import FileRecord
from dataset_registry.model.schema import ComponentSchema


def by_keys(tx: Transaction, keys: Sequence[str]) -> dict[str, FileRecord]:
    """The files whose objects have these keys, by key."""
    found: dict[str, FileRecord] = {}
    for chunk in batches(keys):
        rows = tx.execute(STORED.where(files.c.object_key.in_(chunk)))
        found.update((row.object_key, record_of(row)) for row in rows)
    return found


def stored_after(tx: Transaction, after: int, limit: int) -> list[FileRecord]:
    """The files that have an object, or ranges of objects, from the row after this one on."""
    query = select(*COLUMNS).where(HAS_BYTES, files.c.id > after).order_by(files.c.id).limit(limit)
    return recipes.with_extents(tx, [record_of(row) for row in tx.execute(query)])


def posing_as(tx: Transaction, format: str) -> list[FileRecord]:
    """The stored files that components read in a format, and that were first stored in another one."""
    entry = manifest_entries
    named = exists().where(entry.c.file_id == files.c.id, entry.c.format == format)
    query = select(*COLUMNS).where(HAS_BYTES, files.c.file_type != format, files.c.damage.is_(None), named)
    return recipes.with_extents(tx, [record_of(row) for row in tx.execute(query.order_by(files.c.id))])


def captured_after(tx: Transaction, after: int, limit: int) -> list[tuple[FileRecord, ComponentSchema]]:
    """Up to `limit` files of which something was captured, from the row after this one on, each with every capture of it."""
    ids = select(file_captures.c.file_id).distinct().where(file_captures.c.file_id > after)
    chosen = list(tx.execute(ids.order_by(file_captures.c.file_id).limit(limit)).scalars())
    query = (
        select(file_captures.c.file_id, schemas.c.schema_json, file_captures.c.statistics_json)
        .join(schemas, schemas.c.id == file_captures.c.schema_id)
        .where(file_captures.c.file_id.in_(chosen))
        .order_by(file_captures.c.file_id, file_captures.c.format, file_captures.c.schema_id)
    )
    known = get_many(tx, chosen)
    return [(known[row[0]], ComponentSchema.from_json(row[1], row[2])) for row in tx.execute(query)]


def stored_count(tx: Transaction) -> int:
    """The number of files with an object, or with ranges of objects."""
    return int(tx.execute(select(func.count()).select_from(files).where(HAS_BYTES)).scalar_one())


def waiting_count(tx: Transaction) -> int:
    """The number of legacy files that are not adopted yet."""
    return int(tx.execute(select(func.count()).select_from(files).where(files.c.content_hash.is_(None))).scalar_one())


def set_damage(tx: Transaction, file_id: int, key: str | None, damage: str | None) -> bool:
    """Put a file into quarantine, or take it out, together with the recipes that reference its object. Returns False if
    it has another object by now (None: a recipe has none), or was deleted."""
    statement = update(files).where(files.c.id == file_id, files.c.object_key == key).values(damage=damage)
    if not tx.execute(statement).rowcount:
        return False
    if damage is None:
        recipes.release(tx, [file_id])
    else:  # what has ranges of it is no better
        theirs = select(file_ranges.c.file_id).where(file_ranges.c.object_id == file_id)
        tx.execute(update(files).where(files.c.id.in_(theirs)).values(damage=damage))
    return True


def damaged_hashes(tx: Transaction) -> set[str]:
    """The content hashes of the files in quarantine."""
    return set(tx.execute(select(files.c.content_hash).where(files.c.damage.is_not(None))).scalars())


def users_of(tx: Transaction, file_id: int, limit: int = 5) -> list[str]:
    """Some of the versions that reference a file, as `name@vN`, newest first: directly, by a table with it as a part,
    or by a recipe."""
    of_it = select(file_ranges.c.file_id).where(file_ranges.c.object_id == file_id)
    in_tables = or_(file_parts.c.part_id == file_id, file_parts.c.part_id.in_(of_it))
    owners = union(of_it, select(file_parts.c.file_id).where(in_tables))
    query = (
        select(datasets.c.name, dataset_versions.c.version_number, dataset_versions.c.id)
        .distinct()
        .join(dataset_versions, dataset_versions.c.dataset_id == datasets.c.id)
        .join(dataset_version_files, dataset_version_files.c.version_id == dataset_versions.c.id)
        .where(or_(dataset_version_files.c.file_id == file_id, dataset_version_files.c.file_id.in_(owners)))
        .order_by(dataset_versions.c.id.desc())
        .limit(limit)
    )
    return [f"{name}@v{number}" for name, number, _ in tx.execute(query)]
