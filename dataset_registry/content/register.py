"""Registering: inserting the rows of uploaded contents, in the transaction that references them.

Step 4 of docs/design/write-protocol.md: everything is looked up again under locks.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dataset_registry.catalog import Transaction, captures, files, manifests
from dataset_registry.catalog.files import Known, LookUp, NewFile
from dataset_registry.catalog.recipes import add_ranges
from dataset_registry.content.change import OVERLAY, Change
from dataset_registry.content.pack import PackPlan
from dataset_registry.content.upload import BytesGone, Upload
from dataset_registry.errors import InputError
from dataset_registry.model.chunks import FileFacts, Range
from dataset_registry.model.manifest import ComponentKey, Entry, Manifest, schema_digest, with_new_entries
from dataset_registry.model.reading import kind_of
from dataset_registry.model.records import ComponentRecord
from dataset_registry.tabular.formats import BINARY


def register_files(
    tx: Transaction,
    objects: Sequence[NewFile],
    recipes: Sequence[tuple[NewFile, Sequence[Range]]],
    known: Mapping[str, Known],
    damaged: Collection[str],
    file_id: int | None = None,
) -> dict[str, int]:
    """Insert the rows of files with an object or bytes, and of recipes with their ranges. Returns the ids of these and of
    all `known` files. `file_id` is a reserved id for the only new one.

    `known` and `damaged` are the results of this transaction's look-up. Raises `BytesGone` if a recipe would reference
    an object that was deleted or became a recipe itself, or if content was damaged in the meantime that has no new object.
    """
    named = {part.object for _, ranges in recipes for part in ranges}
    if not named <= known.keys() | {file.content_hash for file in objects if file.kept is not None}:
        raise BytesGone
    if not all(known[h].is_plain for h in named & known.keys()) or any(f.content_hash in damaged for f, _ in recipes):
        raise BytesGone
    if any(file.content_hash in damaged for file in objects if file.kept is None):
        raise BytesGone
    ids = {content_hash: file.id for content_hash, file in known.items()} | files.add(tx, objects, damaged, file_id)
    ids |= files.add(tx, [file for file, _ in recipes])
    add_ranges(
        tx,
        (
            (ids[file.content_hash], position, ids[part.object], part.offset, part.length)
            for file, ranges in recipes
            for position, part in enumerate(ranges)
        ),
    )
    return ids


_FORMAT_LENGTH = 50
"""The length of the column `files.file_type`."""


@dataclass(frozen=True, slots=True)
class RegisteredFiles:
    """The registered contents of a change: file ids by hash, schema ids by component, digests of new schemas."""

    files: dict[str, int]
    schemas: dict[ComponentKey, int]
    new_schemas: dict[int, str]


def look_up(tx: Transaction, change: Change, plan: PackPlan) -> LookUp:
    """The look-up of the contents of a change, to register it."""
    contents = change.contents()
    return LookUp(tx, {*contents.files, *plan.objects}, contents.tables, for_new=True)


def register_change(
    tx: Transaction, change: Change, plan: PackPlan, upload: Upload, asked: LookUp
) -> tuple[RegisteredFiles, int]:
    """Insert the missing rows of files in the order of their hashes, with their captures.

    Also counts the new bytes. Unneeded keys are moved to the trash. Raises `BytesGone`.
    """
    contents = change.contents()
    facts = {**contents.facts, **plan.facts}
    known, damaged = asked.known()
    new = sorted(content_hash for content_hash in contents.files if content_hash not in known)
    recipes = {content_hash: plan.recipes[content_hash] for content_hash in new if content_hash in plan.recipes}
    packs = sorted(plan.packs.keys() & {part.object for ranges in recipes.values() for part in ranges})
    objects = [content_hash for content_hash in new if content_hash not in recipes]
    if lost := [h for h in objects if h not in upload.stored and h not in upload.inline]:
        raise BytesGone(lost)
    upload.discard(tx, upload.stored.keys() - {*objects, *packs})

    def file(content_hash: str) -> files.NewFile:
        format = contents.formats[content_hash]  # of the file: its entry may have read options, too
        format = format if len(format) <= _FORMAT_LENGTH else kind_of(format)
        size = contents.files[content_hash].size
        kept, data = upload.stored.get(content_hash), upload.inline.get(content_hash)
        return files.NewFile(content_hash, size, format, kept, facts.get(content_hash, FileFacts()), data=data)

    wholes = [file(content_hash) for content_hash in objects]
    wholes += [files.NewFile(h, plan.packs[h].size, BINARY, upload.stored[h], form="pack") for h in packs]
    ids = register_files(
        tx,
        wholes,
        [(file(content_hash), ranges) for content_hash, ranges in recipes.items()],
        known,
        damaged,
        asked.new_id(),
    )
    for content_hash in sorted(contents.tables.keys() - known.keys()):
        table = contents.tables[content_hash]
        ids[content_hash] = files.add_table(
            tx, content_hash, table.size, table.format, [(ids[p.content_hash], p.rows) for p in table.parts or ()]
        )
    return RegisteredFiles(ids, *_register_schemas(tx, change, ids)), sum(file.size for file in wholes)


def _register_schemas(
    tx: Transaction, change: Change, ids: Mapping[str, int]
) -> tuple[dict[ComponentKey, int], dict[int, str]]:
    """Insert the captures of a change. Returns the ids of schemas by component, and the digests of new ones."""
    schemas: dict[ComponentKey, int] = {}
    by_digest: dict[str, int] = {}
    new: dict[int, str] = {}
    found = []
    for key, component in change.put.items():
        if (schema := component.staged.schema) is None:
            continue
        snapshot = schema.to_json()
        digest = schema_digest(snapshot)
        if digest not in by_digest:
            by_digest[digest], is_new = captures.schema_id(tx, digest, snapshot)
            if is_new:
                new[by_digest[digest]] = digest
        schemas[key] = by_digest[digest]
        file_id = ids[component.staged.content_hash]
        found.append((file_id, component.staged.format, schemas[key], schema.statistics_to_json()))
    captures.record_captures(tx, found)
    return schemas, new


def is_captured_anew(tx: Transaction, change: Change, version_id: int) -> bool:
    """Whether a component of the change has another schema than in a version: other writer types, another key, or
    another capture rule. (The digest covers only the values.)"""
    captured = {key: c.staged.schema.to_json() for key, c in change.put.items() if c.staged.schema is not None}
    if not captured:
        return False
    before = {
        (name, index): s.to_json()
        for name, index, s in manifests.schemas_of(tx, version_id, sorted({n for n, _ in captured}))
    }
    return any(before.get(key) != snapshot for key, snapshot in captured.items())


def with_files(manifest: Manifest, entered: RegisteredFiles) -> Manifest:
    """Set the row ids of files and schemas in the new entries of a manifest."""

    def with_file(e: Entry) -> Entry:
        if e.file_id:
            return e
        file_id, schema_id = entered.files[e.content_hash], entered.schemas.get(e.key)
        return Entry(e.name, e.index, e.type, e.content_hash, e.format, e.metadata, file_id, schema_id)

    return with_new_entries(manifest, with_file)


def overlay_of(change: Change, entered: RegisteredFiles) -> int | None:
    """The overlay file of a change. Raises `InputError` for several."""
    overlays = [c.staged.content_hash for c in change.put.values() if c.type == OVERLAY]
    if len(overlays) > 1:
        raise InputError("A version can have only one overlay. Commit the others as separate versions.")
    return entered.files[overlays[0]] if overlays else None


def written_by(change: Change, entered: RegisteredFiles) -> list[ComponentRecord]:
    """The components that a change sets, in order."""
    return [
        ComponentRecord(
            *key,
            c.type,
            c.staged.content_hash,
            c.staged.size,
            c.staged.format,
            entered.files[c.staged.content_hash],
            c.metadata,
        )
        for key, c in sorted(change.put.items())
    ]
