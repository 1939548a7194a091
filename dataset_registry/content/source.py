"""The contents of versions in a catalog and its store: components, schemas and bytes.

`read` decides what to read (components, files, tables), for any source of contents.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BufferedReader, BytesIO, IOBase
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from dataset_registry.access import Access, authorize
from dataset_registry.catalog import Transaction, files, holds, manifests, recipes, versions
from dataset_registry.content import legacy
from dataset_registry.errors import CorruptionError, InputError, NotFound, RetryLater
from dataset_registry.model.chunks import FileFacts
from dataset_registry.model.parts import TABLE
from dataset_registry.model.records import ComponentRecord, DataFile, FileRecord, VersionRecord
from dataset_registry.model.schema import ComponentSchema
from dataset_registry.store import Ranges, new_key
from dataset_registry.store.checked import checked

_Result = TypeVar("_Result")


class CatalogContents:
    """The contents of versions in a catalog and its store."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self.transfers = access.store.transfers

    def components(self, version: VersionRecord, names: Sequence[str] | None = None) -> list[ComponentRecord]:
        with self._access.catalog.read() as tx:
            authorize(self._access, tx, "read", version.dataset_id)
            found = list(manifests.components(tx, version.id, names))
            if not found and version.component_count and versions.by_id(tx, version.id) is None:
                raise deleted(version)
            return found

    def schemas(
        self, version: VersionRecord, names: Sequence[str] | None = None
    ) -> list[tuple[str, int, ComponentSchema]]:
        with self._access.catalog.read() as tx:
            authorize(self._access, tx, "read", version.dataset_id)
            return list(manifests.schemas_of(tx, version.id, names))

    def schema_count(self, version: VersionRecord, names: Sequence[str]) -> int:
        with self._access.catalog.read() as tx:
            authorize(self._access, tx, "read", version.dataset_id)
            return manifests.schema_count(tx, version.id, names)

    def data_files(self, version: VersionRecord, found: Sequence[ComponentRecord]) -> list[list[FileRecord]]:
        with self._access.catalog.read() as tx:
            known = files.objects_of(tx, [c.file_id for c in found])
        if any(c.file_id not in known for c in found):
            raise deleted(version)
        for component in found:
            stored = known[component.file_id]
            if component.format != TABLE and not is_file(component, stored):
                raise CorruptionError(
                    f"{component.name!r} of {version.dataset}@v{version.number} is a {component.format} file whose hash is that "
                    "of a table's list of parts. It cannot be read. Ask an administrator to run: dataset-registry verify",
                    hash=component.content_hash,
                )
        return [known[c.file_id] for c in found]

    def files_with_facts(self, version: VersionRecord, found: Sequence[ComponentRecord]) -> list[list[DataFile]]:
        """As `data_files`, with the rows of a table's parts and the statistics of their columns."""
        listed = self.data_files(version, found)
        with self._access.catalog.read() as tx:
            tables = files.parts_of(
                tx, [c.file_id for c, stored in zip(found, listed, strict=True) if not is_file(c, stored)]
            )
            facts = files.facts_of(tx, [file.id for stored in listed for file in stored])
        rows = {(table, at): count for table, parts in tables.items() for at, (_, count) in enumerate(parts)}
        nothing = FileFacts()
        return [
            [
                DataFile(file, rows.get((component.file_id, at)), facts.get(file.id, nothing).statistics)
                for at, file in enumerate(stored)
            ]
            for component, stored in zip(found, listed, strict=True)
        ]

    def facts(self, version: VersionRecord, found: Sequence[FileRecord]) -> Mapping[int, FileFacts]:
        with self._access.catalog.read() as tx:
            return files.facts_of(tx, [file.id for file in found])

    def source(self, version: VersionRecord, file: FileRecord) -> Path | Callable[[], Path | IOBase]:
        if self._access.verifies_reads:
            return lambda: self.fetch(version, file)
        if file.form in ASSEMBLED_FORMS:
            return lambda: self._read(version, file, lambda f: _at_random(self._access, f))
        if file.compression_type is None and (path := self._read(version, file, self._here)) is not None:
            return path
        return lambda: self.fetch(version, file)

    def _here(self, file: FileRecord) -> Path | None:
        return self._access.store.path(_key(file))

    def at_random(self, file: FileRecord) -> BinaryIO:
        """A stream over the content of a stored file with random access, which reads no other bytes where that is possible."""
        if file.form == "inline":
            return self.open(None, file)
        if file.compression_type is not None or self._access.verifies_reads:
            return self.fetch(None, file).open("rb")
        _key(file)  # raises where it is damaged
        return cast(BinaryIO, _ranges(self._access, file))

    def fetch(self, version: VersionRecord | None, file: FileRecord) -> Path:
        return self._read(version, file, lambda f: local_file(self._access, f))

    def tail(self, file: FileRecord, count: int) -> bytes:
        """The last bytes of a stored file, and no others where it is stored as it is."""
        if file.form == "inline":
            return self.open(None, file).read()[-count:]
        if file.compression_type is not None or self._access.verifies_reads:
            return self.fetch(None, file).read_bytes()[-count:]

        def read(file: FileRecord) -> bytes:
            stream = _ranges(self._access, file)
            stream.seek(file.size - count)
            return stream.read()

        return self._read(None, file, read)

    def open(self, version: VersionRecord | None, file: FileRecord) -> BinaryIO:
        if file.form == "inline":
            return self._read(version, file, lambda f: opened(self._access, f))
        if file.object_key is not None or file.form == "ranges":
            stream = self._read(version, file, lambda f: opened(self._access, f))
            return checked(stream, str(file.content_hash))
        if file.damage is not None:
            _key(file)  # raises
        return legacy.opened(self._access, file.id)

    def uri(self, file: FileRecord) -> str:
        return _uri(self._access, file)

    def _read(self, version: VersionRecord | None, file: FileRecord, read: Callable[[FileRecord], _Result]) -> _Result:
        """Read a stored file. If its bytes are missing, look it up again: the version may have been deleted and its
        files collected in the meantime, or the file may have been repaired."""
        try:
            return read(file)
        except CorruptionError:
            with self._access.catalog.read() as tx:
                now = files.get_many(tx, [file.id]).get(file.id)
            if now is None:
                raise deleted(version) from None
            if (now.object_key, now.extents) == (file.object_key, file.extents):
                raise
            return read(now)


def is_file(component: ComponentRecord, stored: Sequence[FileRecord]) -> bool:
    """Whether a component is one stored file, and not a table's list of parts."""
    return [file.id for file in stored] == [component.file_id]


def deleted(version: VersionRecord | None) -> NotFound:
    """The error for a version that was deleted in the meantime."""
    what = f"{version.dataset}@v{version.number}" if version is not None else "This file"
    return NotFound(f"{what} was deleted while it was read.", version=version.number if version else None)


def local_file(access: Access, file: FileRecord) -> Path:
    """A local, read-only file with the content of a stored one: the object itself if it is local, else a copy."""
    recipe = partial(opened, access, file) if file.form in ASSEMBLED_FORMS else None
    path = access.copies.fetch(_key(file), file.compression_type, recipe, is_small=file.form == "inline")
    if access.verifies_reads:
        with checked(path.open("rb"), str(file.content_hash)) as stream:
            while stream.read(_RUN):
                pass
    return path


def _at_random(access: Access, file: FileRecord) -> Path | IOBase:
    """Random access to content that is no object, without assembling it if its objects can be read in place."""
    key = _key(file)
    if file.form == "inline":
        return BytesIO(inline_bytes(access, file))
    if any(access.store.path(extent.key) is None for extent in file.extents):
        return access.copies.fetch(key, None, partial(opened, access, file))
    return _ranges(access, file)


def opened(access: Access, file: FileRecord) -> BinaryIO:
    """A stream over the content of a stored file. Raises `CorruptionError`."""
    key = _key(file)
    if file.form == "inline":
        return BytesIO(inline_bytes(access, file))
    if file.form == "ranges":
        return cast(BinaryIO, BufferedReader(_ranges(access, file), _RUN))
    return access.copies.open(key, file.compression_type)


def inline_bytes(access: Access, file: FileRecord) -> bytes:
    """The bytes of a file in the catalog, checked. Raises `CorruptionError`."""
    with access.catalog.read() as tx:
        data = files.inline_bytes(tx, file.id)
    if data is None or hashlib.sha256(data).hexdigest() != file.content_hash:
        raise CorruptionError(
            f"The content {str(file.content_hash)[:12]} in the catalog is missing or does not match its hash. Run: "
            "dataset-registry verify --deep",
            hash=file.content_hash,
        )
    return data


def _ranges(access: Access, file: FileRecord) -> Ranges:
    def now() -> list[tuple[str, int, int]]:
        with access.catalog.read() as tx:
            found = files.get_many(tx, [file.id]).get(file.id)
        if found is None:
            raise deleted(None)
        return _runs(found)

    return Ranges(access.store, _runs(file), now)


def _uri(access: Access, file: FileRecord) -> str:
    if file.form not in ASSEMBLED_FORMS:
        return access.copies.uri(_key(file), file.compression_type)
    with access.catalog.read() as tx:
        key = recipes.assembled(tx, file.id)
    return access.store.uri(key or _assemble(access, file))


def _assemble(access: Access, file: FileRecord) -> str:
    """The key of an object with the content of a file that has none of its own; it is assembled if needed. A collection
    removes it when its lease has expired."""
    there = access.catalog.write(lambda tx: recipes.renew_lease(tx, file.id))
    if there is not None:
        return there
    return store_object(access, file, lambda tx, key: recipes.lease(tx, file.id, key))


def store_object(access: Access, file: FileRecord, enter: Callable[[Transaction, str], _Result | None]) -> _Result:
    """Store the content of a file as an object, and record it with `enter`, which is given its key.

    Raises `NotFound` if `enter` returns None because the file was deleted, `RetryLater`, `StorageError`.
    """
    path = local_file(access, file)
    key = new_key(str(file.content_hash))
    held = list(access.catalog.write(lambda tx: holds.hold(tx, {str(file.content_hash): key})).values())
    access.store.put(key, path)

    def record(tx: Transaction) -> _Result | None:
        if not holds.release(tx, held):
            raise RetryLater(f"The file {str(file.content_hash)[:12]} took too long to assemble. Try again.")
        return enter(tx, key)

    recorded = access.catalog.write(record)
    if recorded is None:
        raise deleted(None)
    return recorded


def _runs(file: FileRecord) -> list[tuple[str, int, int]]:
    if file.form != "ranges":
        return [(_key(file), 0, file.size)]
    return [(extent.key, extent.offset, extent.length) for extent in file.extents]


_RUN = 4 << 20
"""Bytes of ranges that are read at a time."""


_ASSEMBLED = "." + "0" * 32
"""The suffix of the keys of assembled files in the cache, which no object has."""
ASSEMBLED_FORMS = ("ranges", "inline")
"""The forms of files that have no object of their own."""


def _key(file: FileRecord) -> str:
    if file.damage is not None:
        raise CorruptionError(
            f"The file {(file.content_hash or '')[:12]} is in quarantine: {file.damage}. Restore its object from a backup of "
            "the store and run: dataset-registry verify --repair. Or commit the same content again, which repairs it.",
            hash=file.content_hash,
        )
    if file.form in ASSEMBLED_FORMS:
        return f"{file.content_hash}{_ASSEMBLED}"
    if file.object_key is None:
        raise InputError(
            "This version comes from a legacy catalog, and its bytes are not in the store yet: open() and checkout() read "
            "it. Run registry.adopt() first.",
        )
    return file.object_key
