"""Reading what a version holds: components, schema, bytes, tables, files in a folder."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import SEEK_SET, BufferedReader, BytesIO, RawIOBase
from itertools import chain
from pathlib import Path, PurePath
from shutil import copyfileobj
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from uuid import uuid4

from dataset_registry.catalog import files, manifests, versions
from dataset_registry.errors import CorruptionError, InputError, NotFound, StorageError
from dataset_registry.model.manifest import component_label
from dataset_registry.model.names import component_name
from dataset_registry.model.records import ComponentRecord, FileRecord, VersionRecord
from dataset_registry.model.schema import ComponentSchema, Schema
from dataset_registry.operations.access import Access, authorize
from dataset_registry.tabular import arrow, capture, formats, parquet

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

_Result = TypeVar("_Result")


def components(access: Access, version: VersionRecord, names: Sequence[str] | None = None) -> list[ComponentRecord]:
    """The components of a version in order; only those of `names` when given."""
    names = None if names is None else [component_name(name) for name in names]
    with access.catalog.read() as tx:
        authorize(access, tx, "read", version.dataset_id)
        found = list(manifests.components(tx, version.id, names))
        if not found and version.component_count and versions.by_id(tx, version.id) is None:
            raise _deleted(version)
        return found


def schema(access: Access, version: VersionRecord) -> Schema:
    """What was captured of every component that has columns."""
    with access.catalog.read() as tx:
        authorize(access, tx, "read", version.dataset_id)
        found: dict[str, ComponentSchema] = {}
        for name, index, captured in manifests.schemas_of(tx, version.id):
            found[component_label(name, index)] = captured
        return Schema(found)


def component(access: Access, version: VersionRecord, name: str | None, index: int = 0) -> ComponentRecord:
    """One component; without a name, the only one or the one called `data`. Raises `NotFound`, `InputError`."""
    name = None if name is None else component_name(name)
    found = components(access, version, None if name is None else [name])
    if name is None:
        found = [c for c in found if c.name == "data"] or found
        if len({c.name for c in found}) > 1:
            raise InputError(
                f"{_address(version)} has several components: {_listed(found)}. Say which one.", version=version.number
            )
    for candidate in found:
        if candidate.index == index:
            return candidate
    listed = _listed(components(access, version))
    raise NotFound(
        f"{_address(version)} has no component {name or 'at all'!r}{f' with index {index}' if index else ''}; it has: "
        f"{listed or 'none'}.",
        component=name,
    )


def open_bytes(access: Access, version: VersionRecord, name: str | None, index: int = 0) -> BinaryIO:
    """A stream over a component's bytes. Raises `InputError` for a table of several parts."""
    found = component(access, version, name, index)
    (objects,) = _objects(access, version, [found])
    if len(objects) > 1:
        raise InputError(
            f"{found.name!r} is a table in {len(objects)} Parquet files: read it with to_arrow(), or its parts from uris()."
        )
    return _open(access, version, objects[0])


def open_file(access: Access, objects: Sequence[FileRecord]) -> BinaryIO:
    """A stream over a stored file that the actor was seen to be allowed to read. Raises `InputError` for several parts."""
    if len(objects) != 1:
        raise InputError("This file is a table in several Parquet files: read each by its own hash.")
    return _open(access, None, objects[0])


def paths(access: Access, version: VersionRecord, found: Sequence[ComponentRecord]) -> list[Path]:
    """Local, read-only files with the bytes of components, a table's parts in order. Nothing is copied in a folder store."""
    stored = [file for objects in _objects(access, version, found) for file in objects]

    def fetch(file: FileRecord) -> Path:
        return _read(access, version, file, lambda f: access.copies.fetch(_key(f), f.compression_type))

    with ThreadPoolExecutor(access.store.transfers, "dataset-registry-fetch") as pool:
        return list(pool.map(fetch, stored) if len(stored) > 1 else map(fetch, stored))


def uris(access: Access, version: VersionRecord, name: str | None) -> list[str]:
    """The addresses of a version's stored files (of one component when `name` is given), for other engines."""
    found = components(access, version, None if name is None else [name])
    if name is not None and not found:
        component(access, version, name)
    stored = [file for objects in _objects(access, version, found) for file in objects]
    return [access.copies.uri(_key(file), file.compression_type) for file in stored]


def table(
    access: Access,
    version: VersionRecord,
    names: Sequence[str] | None,
    *,
    columns: Sequence[str] | None = None,
    filter: "ds.Expression | None" = None,
    sheet: str | None = None,
) -> "pa.Table":
    """Components as one Arrow table, in order of name and index, with the types their writer had.

    `names` None means the whole version when all its tables have the same columns. Raises `InputError`.
    """
    found = _tables(access, version, names)
    if all(c.format == "parquet" for c in found):
        source = _scan(access, version, found)
    else:
        source = capture.dataset([(paths(access, version, [c]), c.format) for c in found], sheet)
    result = source.to_table(columns=list(columns) if columns is not None else None, filter=filter)
    captured = _captured(access, version, found)
    return arrow.with_user_types(result, captured.tables[0] if captured else None)


def scan(access: Access, version: VersionRecord, names: Sequence[str] | None) -> "ds.Dataset":
    """A lazy Arrow dataset over the stored Parquet files; nothing is copied. Raises `InputError` for other formats."""
    return _scan(access, version, _tables(access, version, names))


def parquet_files(access: Access, version: VersionRecord, names: Sequence[str] | None) -> tuple[list[Path], bool]:
    """The stored Parquet files behind components, in order, and whether all have the same columns.

    Raises `InputError` for other formats.
    """
    found = _tables(access, version, names)
    return _files(access, version, found), _alike(access, version, found)


def checkout(access: Access, version: VersionRecord, folder: Path, names: Sequence[str] | None) -> list[Path]:
    """Write a version's components as files into a folder: copies, free to change. Their paths.

    A file that exists already is not overwritten. Raises `InputError`, `StorageError`.
    """
    found = components(access, version, names)
    objects = _objects(access, version, found)
    targets = [
        folder / name
        for name in _file_names([(c, i) for c, f in zip(found, objects, strict=True) for i in range(len(f))])
    ]
    if taken := [target for target in targets if target.exists()]:
        raise InputError(f"{taken[0]} exists already. Check out into an empty folder.", path=str(taken[0]))
    sources = chain.from_iterable(objects)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, target in zip(sources, targets, strict=True):
            partial = target.with_name(f".{uuid4().hex}.partial")
            try:
                with _open(access, version, source) as stream, partial.open("xb") as output:
                    copyfileobj(stream, output, 1 << 20)
                partial.rename(target)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return targets


# --- from components to bytes --------------------------------------------------------------------------------------


def _objects(access: Access, version: VersionRecord, found: Sequence[ComponentRecord]) -> list[list[FileRecord]]:
    """For each component the files to read: one, or the parts of a table in order."""
    with access.catalog.read() as tx:
        known = files.objects_of(tx, [c.file_id for c in found])
    if any(c.file_id not in known for c in found):
        raise _deleted(version)
    return [known[c.file_id] for c in found]


def _key(file: FileRecord) -> str:
    if file.damage is not None:
        raise CorruptionError(
            f"The file {(file.content_hash or '')[:12]} is in quarantine: {file.damage}. Restore its object from a backup of "
            "the store and run: dataset-registry verify --repair. Or commit the same content again: that heals it.",
            hash=file.content_hash,
        )
    if file.object_key is None:
        raise InputError(
            "This version comes from a legacy catalog, and its bytes are not in the store yet: open() and checkout() read "
            "it. Run registry.adopt() first.",
        )
    return file.object_key


def _read(
    access: Access, version: VersionRecord | None, file: FileRecord, read: Callable[[FileRecord], _Result]
) -> _Result:
    """Read a stored file. When its bytes are gone the catalog is asked again: the version may have been deleted and its
    files collected in the meantime, or the file may have been healed."""
    try:
        return read(file)
    except CorruptionError:
        with access.catalog.read() as tx:
            now = files.get_many(tx, [file.id]).get(file.id)
        if now is None:
            raise _deleted(version) from None
        if now.object_key == file.object_key:
            raise
        return read(now)


def _deleted(version: VersionRecord | None) -> NotFound:
    if version is None:
        return NotFound("This file was deleted while it was read.")
    return NotFound(f"{_address(version)} was deleted while it was read.", version=version.number)


def _open(access: Access, version: VersionRecord | None, file: FileRecord) -> BinaryIO:
    """A stream over a stored file, or over a legacy one where it still is."""
    if file.object_key is not None:
        stream = _read(access, version, file, lambda f: access.copies.open(_key(f), f.compression_type))
        return cast(BinaryIO, BufferedReader(_Checked(stream, str(file.content_hash)), 1 << 20))
    if file.legacy_path is not None:
        try:
            return Path(file.legacy_path).open("rb")
        except OSError as error:
            raise StorageError(f"The legacy file {file.legacy_path} cannot be read: {error.strerror}.") from error
    with access.catalog.read() as tx:
        return BytesIO(files.legacy_bytes(tx, file.id))


class _Checked(RawIOBase):
    """A stream that knows the hash of what it should give: whoever reads it from its start to its end has checked it."""

    def __init__(self, stream: BinaryIO, content_hash: str) -> None:
        self._stream, self._content_hash = stream, content_hash
        self._hasher, self._hashed, self._at = hashlib.sha256(), 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._at = self._stream.seek(offset, whence)
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        if self._at == self._hashed:
            self._hasher.update(memoryview(buffer)[:count])
            self._hashed += count
            if count == 0 and self._hasher.hexdigest() != self._content_hash:
                raise CorruptionError(
                    f"The file {self._content_hash[:12]} was not read as what it is named after. Read it again; if that "
                    "does not help, run: dataset-registry verify --deep",
                    hash=self._content_hash,
                )
        self._at += count
        return int(count)

    def close(self) -> None:
        super().close()
        self._stream.close()


def _scan(access: Access, version: VersionRecord, found: Sequence[ComponentRecord]) -> "ds.Dataset":
    return parquet.scan(_files(access, version, found), alike=_alike(access, version, found))


def _files(access: Access, version: VersionRecord, found: Sequence[ComponentRecord]) -> list[Path]:
    _refuse_other_formats(version, found)
    return paths(access, version, found)


def _alike(access: Access, version: VersionRecord, found: Sequence[ComponentRecord]) -> bool:
    if len(found) == 1:
        return True
    with access.catalog.read() as tx:
        return manifests.schema_count(tx, version.id, sorted({c.name for c in found})) <= 1


def _refuse_other_formats(version: VersionRecord, found: Sequence[ComponentRecord]) -> None:
    if other := [c for c in found if c.format != "parquet"]:
        raise InputError(
            f"{other[0].name!r} of {_address(version)} is stored as {other[0].format}: only Parquet is read lazily. "
            "Use to_arrow()."
        )


def _tables(access: Access, version: VersionRecord, names: Sequence[str] | None) -> list[ComponentRecord]:
    names = None if names is None else [component_name(name) for name in names]
    found = components(access, version, names)
    if names is not None and (missing := [name for name in names if name not in {c.name for c in found}]):
        component(access, version, missing[0])
    if names is None and any(c.name == "data" for c in found):
        found = [c for c in found if c.name == "data"]
    tabular = [c for c in found if formats.kind_of(c.format) in formats.TABULAR]
    if not tabular:
        listed = _listed(found)
        raise InputError(
            f"{_address(version)} has no tables, only plain files: {listed or 'none'}. Use open() or checkout()."
        )
    if names is None and len({c.name for c in tabular}) > 1:
        with access.catalog.read() as tx:
            different = {tuple(t.columns for t in s.tables) for _, _, s in manifests.schemas_of(tx, version.id)}
        if len(different) > 1:
            raise InputError(
                f"The tables of {_address(version)} have different columns: {_listed(tabular)}. Say which one: "
                f"component={tabular[0].name!r}."
            )
    return tabular


def _captured(access: Access, version: VersionRecord, found: Sequence[ComponentRecord]) -> ComponentSchema | None:
    with access.catalog.read() as tx:
        return next((s for _, _, s in manifests.schemas_of(tx, version.id, [found[0].name])), None)


def _file_names(files: Sequence[tuple[ComponentRecord, int]]) -> list[str]:
    """A file name for each part of components; where two would be the same, a piece of the component's hash tells them apart."""
    names = [_file_name(component, part) for component, part in files]
    counts = Counter(name.casefold() for name in names)
    return [
        name if counts[name.casefold()] == 1 else _file_name(component, part, mark=True)
        for name, (component, part) in zip(names, files, strict=True)
    ]


def _file_name(found: ComponentRecord, part: int, *, mark: bool = False) -> str:
    """The component's own name made safe and short, its index and part, its format."""
    safe = "".join(character if character.isalnum() or character in "._+=-" else "_" for character in found.name)
    suffix = {"parquet": ".parquet", "csv": ".csv", "json": ".json", "excel": ".xlsx"}.get(
        formats.kind_of(found.format), ""
    )
    if found.format == "excel" and PurePath(safe).suffix.lower() in (".xls", ".xlsm", ".xlsb", ".ods"):
        suffix = PurePath(safe).suffix
    stem = safe.removesuffix(suffix).lstrip(".") or "component"
    while len(stem.encode()) > 200:
        stem = stem[:-1]
    numbers = "".join(f"-{number}" for number in (found.index, part) if number)
    told = hashlib.sha256(f"{found.name}\0{found.index}\0{part}".encode()).hexdigest()[:8] if mark else ""
    return f"{stem}{numbers}{'~' + told if told else ''}{suffix}"


def _listed(found: Sequence[ComponentRecord]) -> str:
    names = list(dict.fromkeys(c.name for c in found))
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _address(version: VersionRecord) -> str:
    return f"{version.dataset}@v{version.number}"
