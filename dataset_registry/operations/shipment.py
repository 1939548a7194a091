"""Copying one version: its files are transferred under holds, then one transaction creates it in the other registry."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from dataset_registry.access import (
    Access,
    authorize,
    is_administrator,
    readable,
)
from dataset_registry.catalog import (
    Transaction,
    captures,
    datasets,
    files,
    holds,
    manifests,
    productions,
    users,
    versions,
)
from dataset_registry.catalog.productions import LinkedInput
from dataset_registry.content.pack import ranges_of
from dataset_registry.content.register import register_files
from dataset_registry.content.source import inline_bytes, opened
from dataset_registry.content.upload import BytesGone, SpooledContent, Upload, upload
from dataset_registry.errors import AlreadyExists, CorruptionError, RetryLater
from dataset_registry.model.chunks import FileFacts
from dataset_registry.model.maintenance import Copied
from dataset_registry.model.manifest import ComponentKey, Entry, build, rewrite
from dataset_registry.model.records import (
    DatasetRecord,
    FileForm,
    FileRecord,
    Head,
    InputVersion,
    Production,
    StoredBytes,
    VersionRecord,
)
from dataset_registry.operations import audit
from dataset_registry.operations.history import visible_productions
from dataset_registry.store import Spool, Spooled
from dataset_registry.store.checked import content_digest

_BATCH = 500
"""Number of files that are held, transferred and registered together."""


def refuse_another(record: DatasetRecord, version: VersionRecord, there: VersionRecord) -> None:
    if version.uuid != there.uuid or version.digest != there.digest:
        raise AlreadyExists(
            f"The other registry has a {record.name}@v{there.number} of its own, which is another version. Rename one of the "
            "two datasets, then copy again.",
            dataset=record.name,
            version=version.number,
        )


@dataclass(frozen=True, slots=True)
class _Shipment:
    """What a version adds to its first parent, with the files, schemas and productions that belong to it."""

    version: VersionRecord
    origin: str
    edits: Mapping[ComponentKey, Entry | None]
    whole: Mapping[str, FileRecord]
    tables: Mapping[str, tuple[FileRecord, Sequence[tuple[FileRecord, int]]]]
    facts: Mapping[str, FileFacts]
    overlay: str | None
    schemas: Mapping[int, tuple[str, Mapping[str, object]]]
    captures: Sequence[tuple[str, str, int, object]]
    productions: Sequence[Production]


def copy_version(source: Access, target: Access, dataset: DatasetRecord, version: VersionRecord, done: Copied) -> None:
    with source.catalog.snapshot() as tx:
        now = versions.by_id(tx, version.id)  # an expiry may have given it other parents since, or taken it
        shipment = _pack(source, tx, now) if now else None
    if shipment is None:
        done.notes.append(f"{version.dataset}@v{version.number} was deleted while it was copied")
        return
    for _ in range(4):
        holds = _bring(source, target, dataset, shipment, done)
        try:
            done.versions += target.catalog.write(partial(_unpack, target, dataset, shipment, holds))
        except BytesGone:
            continue
        return
    raise RetryLater("The files of the copy were collected repeatedly during the commit. Try again.")


def _pack(source: Access, tx: Transaction, version: VersionRecord) -> _Shipment:
    first = versions.by_number(tx, version.dataset_id, version.parents[0]) if version.parents else None
    if first is not None:
        before, after = manifests.changed_entries(tx, first.id, version.id)
    else:
        before, after = [], list(manifests.StoredManifest(tx, version.id).since(""))
    edits: dict[ComponentKey, Entry | None] = {entry.key: None for entry in before}
    edits.update((entry.key, entry) for entry in after)
    ids = list({entry.file_id for entry in after} | ({version.overlay_file_id} if version.overlay_file_id else set()))
    known = files.get_many(tx, ids)
    parts = files.parts_of(tx, [file.id for file in known.values() if file.form == "parts"])
    whole = [file for file in known.values() if file.form != "parts"]
    whole += [part for listed in parts.values() for part, _ in listed]
    facts = files.facts_of(tx, [file.id for file in whole])
    captured = captures.captures_of(tx, list(known))
    schema_ids = {e.schema_id for e in after if e.schema_id} | {schema_id for _, _, schema_id, _ in captured}
    return _Shipment(
        version,
        source.catalog.address,
        edits,
        {str(file.content_hash): file for file in whole},
        {str(f.content_hash): (f, parts.get(f.id, [])) for f in known.values() if f.form == "parts"},
        {str(f.content_hash): facts[f.id] for f in whole if f.id in facts},
        known[version.overlay_file_id].content_hash if version.overlay_file_id else None,
        captures.schemas_by_id(tx, sorted(schema_ids)),
        [(str(known[i].content_hash), format, schema, statistics) for i, format, schema, statistics in captured],
        visible_productions(source, tx, version),
    )


def _bring(source: Access, target: Access, dataset: DatasetRecord, shipment: _Shipment, done: Copied) -> list[UUID]:
    """Transfer and register the files that the target lacks.

    Returns the holds that protect them until the version references them.
    """
    kept: list[UUID] = []
    hashes = sorted(shipment.whole)
    for start in range(0, len(hashes), _BATCH):
        batch = [shipment.whole[content_hash] for content_hash in hashes[start : start + _BATCH]]
        objects, recipes = _kinds(source, target, batch)
        with Spool(target.store.scratch) as spool:
            contents = {str(file.content_hash): _SourceFile(source, file, spool) for file in objects}
            with target.catalog.read() as tx:
                authorize(target, tx, "admin", dataset.id)
                known, damaged = files.look_up(tx, list(contents))
            small = {
                content_hash: inline_bytes(source, found.file)
                for content_hash, found in contents.items()
                if found.file.form == "inline"
                and found.size <= target.inline_bytes
                and content_hash not in known
                and content_hash not in damaged
            }
            others = {content_hash: found for content_hash, found in contents.items() if content_hash not in small}
            held = replace(upload(target, others, known), inline=small)
            kept += target.catalog.write(partial(_register, shipment.facts, batch, objects, recipes, held))
        done.files += len(held.stored) + len(held.inline)
        done.bytes += sum(stored.size for stored in held.stored.values()) + sum(map(len, held.inline.values()))
    return kept


def _kinds(source: Access, target: Access, batch: Sequence[FileRecord]) -> tuple[list[FileRecord], list[FileRecord]]:
    """The files to transfer as objects, and those that the target can store as recipes of these: if the target has no
    damaged copy to repair, and the objects of the recipe are, or become, plain objects there."""
    with source.catalog.read() as tx:
        ids = sorted({extent.object_id for file in batch for extent in file.extents})
        holders = files.get_many(tx, ids)
    with target.catalog.read() as tx:
        names = [str(file.content_hash) for file in (*batch, *holders.values())]
        known, damaged = files.look_up(tx, names)
    objects, recipes = [], []
    for file in batch:
        if not file.extents:
            objects.append(file)
        elif file.content_hash in known:
            continue
        elif file.content_hash not in damaged and all(
            extent.object_hash not in known or known[extent.object_hash].is_plain for extent in file.extents
        ):
            recipes.append(file)
        else:
            objects.append(file)
    needed = {extent.object_id for file in recipes for extent in file.extents}
    return [*objects, *(holders[i] for i in sorted(needed & holders.keys()))], recipes


def _register(
    facts: Mapping[str, FileFacts],
    batch: Sequence[FileRecord],
    objects: Sequence[FileRecord],
    recipes: Sequence[FileRecord],
    held: Upload,
    tx: Transaction,
) -> list[UUID]:
    held.release(tx)
    hashes = [str(file.content_hash) for file in (*batch, *objects)]
    known, damaged = files.look_up(tx, hashes)
    new = {h: f for f in objects if (h := str(f.content_hash)) not in known and (h in held.stored or h in held.inline)}
    held.discard(tx, held.stored.keys() - new.keys())

    def file(found: FileRecord, kept: StoredBytes | None = None) -> files.NewFile:
        content_hash = str(found.content_hash)
        form: FileForm = "pack" if found.form == "pack" else "whole"
        known_of = facts.get(content_hash, FileFacts())
        data = held.inline.get(content_hash)
        return files.NewFile(content_hash, found.size, str(found.format), kept, known_of, form, data)

    missing = [(file(recipe), ranges_of(recipe)) for recipe in recipes if recipe.content_hash not in known]
    register_files(tx, [file(found, held.stored.get(h)) for h, found in sorted(new.items())], missing, known, damaged)
    return list(holds.hold(tx, dict.fromkeys(str(file.content_hash) for file in batch)).values())


@dataclass(frozen=True, slots=True)
class _SourceFile:
    """A file of the registry that is copied."""

    source: Access
    file: FileRecord
    spool: Spool

    @property
    def size(self) -> int:
        return self.file.size

    def store(self, access: Access, key: str) -> StoredBytes:
        """Store the content under a key of the target, by the shortest way that checks it."""
        file, source, content_hash = self.file, self.source, str(self.file.content_hash)
        if file.object_key is None and not file.extents and file.form != "inline":
            raise CorruptionError(
                f"The file {content_hash[:12]} of the registry that is copied is lost: {file.damage}. Delete the versions that "
                "have it, or copy other datasets.",
                hash=content_hash,
            )
        source_key = str(file.object_key)
        path = None
        if file.compression_type is None and file.object_key is not None:
            path = source.store.path(source_key)
            if path is None and access.store.take(key, source.store, source_key):  # within one bucket the server copies
                _refuse_other_content(content_hash, content_digest(access.copies.open(key))[0])
                return StoredBytes(key, file.stored_size)
        spooled = self.spool.share(path) if path is not None else _stream(source, self.spool, file)
        _refuse_other_content(content_hash, spooled.content_hash)
        return SpooledContent(spooled, str(file.format), self.spool).store(access, key)


def _refuse_other_content(content_hash: str, found: str) -> None:
    if found != content_hash:
        raise CorruptionError(
            f"The file {content_hash[:12]} of the registry that is copied does not match its hash. Run there: "
            "dataset-registry verify --deep",
            hash=content_hash,
        )


def _stream(source: Access, spool: Spool, file: FileRecord) -> Spooled:
    with opened(source, file) as stream:
        return spool.copy(stream)


def _unpack(target: Access, dataset: DatasetRecord, shipment: _Shipment, holds: Sequence[UUID], tx: Transaction) -> int:
    """The transaction that creates the version. Returns 1, or 0 if another process created it in the meantime."""
    version = shipment.version
    authorize(target, tx, "admin", dataset.id)
    keeps_authors = is_administrator(target, tx)
    place = datasets.take_number(tx, dataset.id, version.number, version.created_at if keeps_authors else None)
    Upload(holds).release(tx)
    there = versions.by_number(tx, dataset.id, version.number)
    if there is not None:
        refuse_another(dataset, version, there)
        return 0
    among = readable(target, tx)
    author = version.created_by if keeps_authors else target.actor.name
    parents = list(_parents(tx, dataset, version))
    ids = _register_tables(tx, shipment)
    entered = {old: captures.schema_id(tx, digest, snapshot) for old, (digest, snapshot) in shipment.schemas.items()}
    schema_ids = {old: schema for old, (schema, _) in entered.items()}
    captures.record_captures(
        tx,
        [(ids[h], format, schema_ids[s], statistics) for h, format, s, statistics in shipment.captures],
    )
    before = manifests.StoredManifest(tx, parents[0].id) if parents else None
    edits = {
        key: e and replace(e, file_id=ids[e.content_hash], schema_id=schema_ids[e.schema_id] if e.schema_id else None)
        for key, e in shipment.edits.items()
    }
    if before is None:
        after = build(entry for entry in edits.values() if entry is not None)
    else:
        after = rewrite(before.manifest, edits, before.pages, before.entries)
    if after.digest != version.digest:
        raise CorruptionError(
            f"{version.dataset}@v{version.number} does not match its digest. Verify the source registry: "
            "dataset-registry verify",
            version=version.number,
        )
    made = versions.insert_version(
        tx,
        uuid=version.uuid,
        dataset=dataset,
        place=place,
        digest=after.digest,
        parents=parents,
        message=version.message,
        author=(_user(tx, author), author),
        component_count=after.count,
        overlay_file_id=ids[shipment.overlay] if shipment.overlay else None,
        origin=shipment.origin if keeps_authors else None,
    )
    manifests.store(tx, made.id, after)
    for production in shipment.productions:
        inputs = production.provenance.inputs
        productions.record(
            tx,
            version_id=made.id,
            branch=production.branch,
            unchanged=production.unchanged,
            user_id=_user(tx, production.created_by if keeps_authors else author),
            provenance=production.provenance,
            inputs=[productions.find_input(tx, read, among) or _to_come(read, keeps_authors) for read in inputs],
            created_at=production.created_at if keeps_authors else None,
        )
    audit.note(
        target,
        tx,
        "copy",
        (dataset.id, dataset.name),
        after=f"v{made.number}",
        origin=shipment.origin,
        schemas={str(schema): shipment.schemas[old][0] for old, (schema, is_new) in entered.items() if is_new} or None,
        **audit.facts_of(made),
    )
    return 1


def _to_come(read: InputVersion, keeps_authors: bool) -> LinkedInput | None:
    """An input that may be copied later: an administrator's copy links it then."""
    return LinkedInput(None, None, read.uuid) if keeps_authors and read.uuid is not None else None


def _parents(tx: Transaction, dataset: DatasetRecord, version: VersionRecord) -> Iterator[Head]:
    for number in version.parents:
        parent = versions.by_number(tx, dataset.id, number)
        if parent is None or not versions.share(tx, [parent.id]):
            raise RetryLater(f"v{number} of {dataset.name} was deleted from the copy while it was made. Copy again.")
        yield parent.as_head


def _register_tables(tx: Transaction, shipment: _Shipment) -> dict[str, int]:
    """The ids of all files of a version by hash, its tables entered."""
    known, _ = files.look_up(tx, shipment.whole, shipment.tables)
    ids = {content_hash: file.id for content_hash, file in known.items()}
    if not shipment.whole.keys() <= ids.keys():
        raise BytesGone
    for content_hash, (table, parts) in sorted(shipment.tables.items()):
        if content_hash not in ids:
            rows = [(ids[str(part.content_hash)], count) for part, count in parts]
            ids[content_hash] = files.add_table(tx, content_hash, table.size, str(table.format), rows)
    return ids


def _user(tx: Transaction, username: str | None) -> int | None:
    if username is None:
        return None
    return users.find_id(tx, username) or users.sign(tx, username)
