"""Rows about stored files: look-ups by content, facts, insertion, and damage."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Row, and_, bindparam, case, delete, exists, func, insert, or_, select, update

from dataset_registry.catalog import holds, recipes
from dataset_registry.catalog.grants import Readable
from dataset_registry.catalog.prepared import Prepared, is_pipelined
from dataset_registry.catalog.rows import Transaction, batches, insert_row
from dataset_registry.catalog.tables import (
    dataset_version_files,
    dataset_versions,
    file_info,
    file_parts,
    file_ranges,
    files,
    inline_contents,
)
from dataset_registry.errors import CorruptionError
from dataset_registry.model.chunks import FileFacts
from dataset_registry.model.parts import PartsDiff
from dataset_registry.model.records import FileForm, FileRecord, StoredBytes

COLUMNS = (
    files.c.id,
    files.c.content_hash,
    files.c.file_size,
    files.c.form,
    files.c.object_key,
    files.c.file_type,
    files.c.compression_type,
    files.c.created_at,
    files.c.stored_size,
    files.c.damage,
)
LIVE = and_(
    files.c.damage.is_(None),
    or_(files.c.object_key.is_not(None), *(files.c.form == form for form in ("parts", "ranges", "inline"))),
)
"""The condition that a file is stored and not known to be damaged."""
STORED_SIZE = case(
    (files.c.form == "inline", files.c.file_size),
    (files.c.object_key.is_(None), 0),
    else_=func.coalesce(files.c.stored_size, files.c.file_size),
)
"""The bytes that a file takes in the store or in the catalog; those of a table or a recipe are counted with its objects."""

_BY_HASH = select(*COLUMNS).where(files.c.content_hash == bindparam("hash"), LIVE)
_BY_IDS = select(*COLUMNS).where(files.c.id.in_(bindparam("ids", expanding=True)))


def find(tx: Transaction, content_hash: str) -> FileRecord | None:
    """The undamaged file with this content, or None."""
    row = tx.execute(_BY_HASH, {"hash": content_hash}).one_or_none()
    return record_of(row) if row else None


OF_HASHES = files.c.content_hash.in_(bindparam("hashes", expanding=True))
_BY_HASHES = select(*COLUMNS).where(OF_HASHES, LIVE)


def find_many(tx: Transaction, hashes: Sequence[str]) -> dict[str, FileRecord]:
    """The undamaged files with these contents, by hash."""
    rows = (row for chunk in batches(hashes) for row in tx.execute(_BY_HASHES, {"hashes": chunk}))
    return {row.content_hash: record_of(row) for row in rows}


class Known(NamedTuple):
    """A stored content: its file, and whether it is a plain object, which recipes may reference."""

    id: int
    is_plain: bool


_PLAIN = and_(files.c.object_key.is_not(None), files.c.compression_type.is_(None))
_KNOWN = select(files.c.content_hash, files.c.form == "parts", LIVE, files.c.id, _PLAIN)
_ONE_KNOWN = Prepared(_KNOWN.where(files.c.content_hash == bindparam("hash")))
_MANY_KNOWN = _KNOWN.where(OF_HASHES)


class LookUp:
    """The look-up of contents, sent before its answer is needed: with other statements it is one round trip to PostgreSQL (see
    `prepared.pipelined`)."""

    def __init__(
        self, tx: Transaction, hashes: Iterable[str], tables: Collection[str] = (), *, for_new: bool = False
    ) -> None:
        """Look up files with these hashes and `tables`. With `for_new` an id is reserved, where that costs nothing."""
        self._tx, self.hashes, self._tables = tx, [*hashes, *tables], tables
        is_sent = len(self.hashes) == 1 and is_pipelined(tx)
        self._answer = _ONE_KNOWN.ask(tx, {"hash": self.hashes[0]}) if is_sent else None
        self._id = _NEW_ID.ask(tx, {}) if is_sent and for_new else None

    def known(self) -> tuple[dict[str, Known], set[str]]:
        """The stored contents by hash, and the damaged ones.

        Raises `CorruptionError` if a file has the hash of a table, or a table that of a file (see docs/design/digests.md).
        """
        known: dict[str, Known] = {}
        damaged: set[str] = set()
        for content_hash, is_table, live, file_id, plain in self._rows():
            if is_table != (content_hash in self._tables):
                stored, wanted = ("table", "file") if is_table else ("file", "table")
                raise CorruptionError(
                    f"Content hash {content_hash[:12]} belongs to a stored {stored}, not to a {wanted}: one of the two was "
                    "forged. Nothing was written. Ask an administrator to run: dataset-registry verify",
                    hash=content_hash,
                )
            if live:
                known[content_hash] = Known(file_id, bool(plain))
            else:
                damaged.add(content_hash)
        return known, damaged

    def _rows(self) -> Iterator[Any]:
        if self._answer is not None:
            yield from self._answer()
        elif len(self.hashes) == 1:
            yield from _ONE_KNOWN.all(self._tx, {"hash": self.hashes[0]})
        else:
            for chunk in batches(self.hashes):
                yield from self._tx.execute(_MANY_KNOWN, {"hashes": chunk}).all()

    def new_id(self) -> int | None:
        """The id for the file, if one was reserved."""
        return self._id()[0][0] if self._id else None


_NEW_ID = Prepared(select(func.nextval(func.pg_get_serial_sequence(files.name, "id"))))


def look_up(tx: Transaction, hashes: Iterable[str], tables: Collection[str] = ()) -> tuple[dict[str, Known], set[str]]:
    """As `LookUp.known`."""
    return LookUp(tx, hashes, tables).known()


def get_many(tx: Transaction, ids: Iterable[int]) -> dict[int, FileRecord]:
    """Files by id, those that exist."""
    wanted = list(ids)
    found: dict[int, FileRecord] = {}
    for chunk in batches(wanted):
        rows = tx.execute(_BY_IDS, {"ids": chunk})
        found.update((row.id, record_of(row)) for row in rows)
    return dict(zip(found, recipes.with_extents(tx, list(found.values())), strict=True))


def objects_of(tx: Transaction, ids: Sequence[int]) -> dict[int, list[FileRecord]]:
    """What to read for each file: itself, or the parts of a table in order. Files that are gone are missing."""
    found: dict[int, list[FileRecord]] = {}
    known = get_many(tx, ids)
    tables = parts_of(tx, [file.id for file in known.values() if file.form == "parts"])
    for file in known.values():
        found[file.id] = [part for part, _ in tables.get(file.id, ())] if file.form == "parts" else [file]
    return found


def parts_of(tx: Transaction, ids: Sequence[int]) -> dict[int, list[tuple[FileRecord, int]]]:
    """The parts of tables in order, each with its rows, by the table's id."""
    found: dict[int, list[tuple[FileRecord, int]]] = {}
    query = select(*COLUMNS, file_parts.c.file_id, file_parts.c.row_count).join(
        file_parts, file_parts.c.part_id == files.c.id
    )
    for chunk in batches(ids):
        rows = query.where(file_parts.c.file_id.in_(chunk))
        for row in tx.execute(rows.order_by(file_parts.c.file_id, file_parts.c.position)):
            found.setdefault(row.file_id, []).append((record_of(row), row.row_count))
    listed = recipes.with_extents(tx, [part for parts in found.values() for part, _ in parts])
    whole = iter(listed)
    return {table: [(next(whole), rows) for _, rows in parts] for table, parts in found.items()}


def compare_parts(tx: Transaction, before: int, after: int) -> PartsDiff:
    """Compare the lists of parts of two tables, by their ids."""

    def among(mine: int, other: int) -> dict[bool, tuple[int, int]]:
        theirs = file_parts.alias("theirs")
        shared = exists().where(theirs.c.file_id == other, theirs.c.part_id == file_parts.c.part_id)
        query = (
            select(shared.label("shared"), func.count(), func.sum(file_parts.c.row_count))
            .where(file_parts.c.file_id == mine)
            .group_by("shared")
        )
        return {bool(is_shared): (count, int(rows)) for is_shared, count, rows in tx.execute(query)}

    gone, came = among(before, after), among(after, before)
    return PartsDiff(*came.get(True, (0, 0)), *gone.get(False, (0, 0)), *came.get(False, (0, 0)))


def facts_of(tx: Transaction, ids: Sequence[int]) -> dict[int, FileFacts]:
    """The facts of files by id."""
    found: dict[int, FileFacts] = {}
    for chunk in batches(ids):
        query = select(files.c.id, files.c.facts).where(files.c.id.in_(chunk), files.c.facts.is_not(None))
        found.update((file_id, FileFacts.from_json(value)) for file_id, value in tx.execute(query))
    return found


_INLINE = Prepared(select(inline_contents.c.data).where(inline_contents.c.file_id == bindparam("file")))


def inline_bytes(tx: Transaction, file_id: int) -> bytes | None:
    """The bytes of a file of the form `inline`; None if it has another form by now, or was deleted."""
    row = _INLINE.first(tx, {"file": file_id})
    return None if row is None else bytes(row[0])


def legacy_bytes(tx: Transaction, file_id: int) -> bytes:
    """The inline bytes of a legacy file."""
    data = tx.execute(select(files.c.file_data).where(files.c.id == file_id)).scalar()
    if data is None:
        raise CorruptionError(f"The legacy file {file_id} has neither bytes in the catalog nor a path.", file=file_id)
    return data.encode() if isinstance(data, str) else bytes(data)  # SQLite keeps a text in any column


def with_prefix(tx: Transaction, prefix: str, limit: int = 2) -> list[FileRecord]:
    """Files whose hash starts with `prefix`."""
    upper = prefix + "g"  # the next text after every hexadecimal continuation
    query = select(*COLUMNS).where(files.c.content_hash >= prefix, files.c.content_hash < upper)
    rows = tx.execute(query.order_by(files.c.content_hash).limit(limit))
    return recipes.with_extents(tx, [record_of(row) for row in rows])


def page(tx: Transaction, after: int, limit: int, among: Readable = None) -> list[FileRecord]:
    """Files from the one after this id on, oldest first, packs included; only those `among` these ids."""
    query = select(*COLUMNS).where(files.c.id > after).order_by(files.c.id).limit(limit)
    query = query if among is None else query.where(files.c.id.in_(among))
    return [record_of(row) for row in tx.execute(query)]


def reference_counts(tx: Transaction, ids: Sequence[int], among: Readable = None) -> dict[int, int]:
    """The reference counts of files: by components of versions, overlays and parts of tables; only those of datasets in
    `among`. Unreferenced files may be missing."""
    found: dict[int, int] = defaultdict(int)
    if among is None:
        for chunk in batches(ids):
            query = select(file_info.c.id, file_info.c.reference_count).where(file_info.c.id.in_(chunk))
            found.update((row[0], row[1]) for row in tx.execute(query))
        return found
    theirs = dataset_versions.c.dataset_id.in_(among)
    entry, overlay, part = dataset_version_files.c.file_id, dataset_versions.c.overlay_file_id, file_parts.c.part_id
    for chunk in batches(ids):
        for query in (
            select(entry, func.count())
            .join(dataset_versions, dataset_versions.c.id == dataset_version_files.c.version_id)
            .where(entry.in_(chunk), theirs)
            .group_by(entry),
            select(overlay, func.count()).where(overlay.in_(chunk), theirs).group_by(overlay),
            select(part, func.count(func.distinct(file_parts.c.file_id)))
            .join(dataset_version_files, dataset_version_files.c.file_id == file_parts.c.file_id)
            .join(dataset_versions, dataset_versions.c.id == dataset_version_files.c.version_id)
            .where(part.in_(chunk), theirs)
            .group_by(part),
        ):
            for file_id, count in tx.execute(query):
                found[file_id] += count
    return found


# --- captures ------------------------------------------------------------------------------------------------------


# --- entering ------------------------------------------------------------------------------------------------------


_ADD = insert(files).returning(files.c.content_hash, files.c.id)
_ADD_INLINE = Prepared(insert(inline_contents), ("file_id", "data"))
_FEW = 4
"""Files up to which single inserts are faster than one statement for all."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to insert: its object, or its bytes (neither for a recipe, see `add_ranges`), and its facts."""

    content_hash: str
    size: int
    format: str
    kept: StoredBytes | None
    facts: FileFacts = field(default_factory=FileFacts)
    form: FileForm = "whole"
    data: bytes | None = None

    @property
    def form_of_row(self) -> FileForm:
        """How it is stored: `form` is that of an object."""
        return "inline" if self.data is not None else self.form if self.kept is not None else "ranges"


def add(
    tx: Transaction, new: Sequence[NewFile], damaged: Collection[str] = (), file_id: int | None = None
) -> dict[str, int]:
    """Insert stored files. Returns their ids by hash. Files with `damaged` contents are repaired: they must have
    objects, not ranges, because recipes may reference them. `file_id` is a reserved id for the only file.

    The caller has checked, in this transaction, that no undamaged file has these contents.
    """
    if not new:
        return {}
    healing = {f.content_hash: f.kept for f in new if f.content_hash in damaged and f.kept is not None}
    found = heal(tx, healing) if healing else {}
    missing = [_row(file) for file in new if file.content_hash not in found]
    if len(missing) <= _FEW:
        for row in missing:
            found[str(row["content_hash"])] = insert_row(tx, files, row, file_id if len(missing) == 1 else None)
    else:
        found.update({row[0]: row[1] for row in tx.execute(_ADD, missing)})
    for file in new:
        if file.data is not None:
            _ADD_INLINE.run(tx, {"file_id": found[file.content_hash], "data": file.data})
    return found


def _row(file: NewFile) -> dict[str, object]:
    return {
        "storage_type": "store",
        "file_type": file.format,
        "file_size": file.size,
        "content_hash": file.content_hash,
        "facts": file.facts.to_json() or None,
        **_kept(file.kept, file.size, file.form_of_row),
    }


def _kept(stored: StoredBytes | None, size: int, form: FileForm) -> dict[str, object]:
    """The columns about the object of a file, which is missing for bytes in the catalog and for recipes."""
    return {
        "form": form,
        "object_key": stored.key if stored else None,
        "compression_type": stored.compression if stored else None,
        "stored_size": stored.size if stored and stored.size != size else None,
    }


_DAMAGED = (
    select(files.c.id, files.c.content_hash, files.c.object_key, files.c.file_size)
    .where(files.c.content_hash.in_(bindparam("hashes", expanding=True)), ~LIVE)
    .order_by(files.c.id)
    .with_for_update()
)


def heal(tx: Transaction, stored: Mapping[str, StoredBytes]) -> dict[str, int]:
    """Repair damaged files with newly stored objects. Returns their ids by hash. Their old objects are moved to the
    trash, and recipes that reference them are repaired, too."""
    healed: dict[str, int] = {}
    hashes = list(stored)
    for chunk in batches(hashes):
        for file_id, content_hash, key, size in tx.execute(_DAMAGED, {"hashes": chunk}).all():
            tx.execute(delete(file_ranges).where(file_ranges.c.file_id == file_id))
            tx.execute(delete(inline_contents).where(inline_contents.c.file_id == file_id))
            kept = _kept(stored[content_hash], size, "whole")
            tx.execute(update(files).where(files.c.id == file_id).values(damage=None, **kept))
            holds.discard(tx, [key] if key else [])
            healed[content_hash] = file_id
    recipes.release(tx, list(healed.values()))
    return healed


def make_whole(tx: Transaction, file_id: int, key: str) -> bool | None:
    """Make a file the object with this key; its ranges, or its bytes in the catalog, are deleted.

    Returns False if it has an object already (the new one is moved to the trash), None if it was deleted.
    """
    locked = select(files.c.form, files.c.file_size).where(files.c.id == file_id, LIVE).with_for_update()
    row = tx.execute(locked).one_or_none()
    if row is None or row.form not in ("ranges", "inline"):
        holds.discard(tx, [key])
        return None if row is None else False
    tx.execute(delete(file_ranges).where(file_ranges.c.file_id == file_id))
    tx.execute(delete(inline_contents).where(inline_contents.c.file_id == file_id))
    kept = _kept(StoredBytes(key, row.file_size), row.file_size, "whole")
    tx.execute(update(files).where(files.c.id == file_id).values(kept))
    return True


def add_table(tx: Transaction, content_hash: str, size: int, format: str, parts: Sequence[tuple[int, int]]) -> int:
    """Insert a table made of parts, given as (file id, rows) in order; its id."""
    row = {
        "storage_type": "store",
        "file_type": format,
        "file_size": size,
        "content_hash": content_hash,
        "object_key": None,
        "form": "parts",
    }
    file_id = insert_row(tx, files, row)
    tx.execute(
        insert(file_parts),
        [
            {"file_id": file_id, "position": position, "part_id": part, "row_count": rows}
            for position, (part, rows) in enumerate(parts)
        ],
    )
    return file_id


def record_of(row: Row[Any]) -> FileRecord:
    return FileRecord(
        id=row.id,
        content_hash=row.content_hash,
        size=row.file_size,
        form=row.form,
        object_key=row.object_key,
        format=row.file_type,
        compression_type=row.compression_type,
        created_at=row.created_at,
        stored_size=0
        if row.form in ("parts", "ranges")
        else row.file_size
        if row.stored_size is None
        else row.stored_size,
        damage=row.damage,
    )


# --- verification --------------------------------------------------------------------------------------------------

HAS_BYTES = or_(files.c.object_key.is_not(None), files.c.form.in_(("ranges", "inline")))
STORED = select(*COLUMNS).where(files.c.object_key.is_not(None))
