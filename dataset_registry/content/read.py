"""Reading versions from any source of contents: components, schemas, bytes, tables, files in a folder."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import chain
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast
from uuid import uuid4

from dataset_registry.content.contents import Contents
from dataset_registry.errors import InputError, NotFound, StorageError
from dataset_registry.model.manifest import component_label
from dataset_registry.model.names import component_name, suggestion
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.reading import kind_of
from dataset_registry.model.records import ComponentRecord, FileRecord, PartRecord, VersionFile, VersionRecord
from dataset_registry.model.schema import ColumnStatistics, Schema
from dataset_registry.tabular import formats

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    from dataset_registry.tabular import parquet
    from dataset_registry.tabular.whole import LazyTable, WholeTable


def components(contents: Contents, version: VersionRecord, names: Sequence[str] | None = None) -> list[ComponentRecord]:
    """The components of a version in order; only those of `names` when given."""
    return contents.components(version, None if names is None else [component_name(name) for name in names])


def schema(contents: Contents, version: VersionRecord) -> Schema:
    """The captured schemas of all components."""
    return Schema({component_label(name, index): captured for name, index, captured in contents.schemas(version)})


def component(contents: Contents, version: VersionRecord, name: str | None, index: int = 0) -> ComponentRecord:
    """One component; without a name, the only one or the one called `data`. Raises `NotFound`, `InputError`."""
    name = None if name is None else component_name(name)
    found = components(contents, version, None if name is None else [name])
    if name is None:
        found = [c for c in found if c.name == "data"] or found
        if len({c.name for c in found}) > 1:
            raise InputError(
                f"{_address(version)} has several components: {_listed(found)}. Name one of them.",
                version=version.number,
            )
    for candidate in found:
        if candidate.index == index:
            return candidate
    raise _no_component(contents, version, name, index)


def _no_component(contents: Contents, version: VersionRecord, name: str | None, index: int = 0) -> NotFound:
    listed = _listed(components(contents, version))
    wanted = f" {name!r}{f' with index {index}' if index else ''}; it has: {listed}" if name and listed else "s"
    return NotFound(f"{_address(version)} has no component{wanted}.", component=name)


def _named(contents: Contents, version: VersionRecord, names: Sequence[str] | None) -> list[ComponentRecord]:
    """All components, or those with these names. Raises `NotFound` for a name without components."""
    found = components(contents, version, names)
    there = {component.name for component in found}
    if missing := [name for name in names or () if component_name(name) not in there]:
        raise _no_component(contents, version, component_name(missing[0]))
    return found


def open_bytes(contents: Contents, version: VersionRecord, name: str | None, index: int = 0) -> BinaryIO:
    """A stream over a component's bytes. Raises `InputError` for a table of several parts."""
    found = component(contents, version, name, index)
    (objects,) = contents.data_files(version, [found])
    if len(objects) > 1:
        raise InputError(
            f"{found.name!r} is a table in {len(objects)} Parquet files: read it with to_arrow(), or its parts from uris()."
        )
    return contents.open(version, objects[0])


def paths(contents: Contents, version: VersionRecord, found: Sequence[ComponentRecord]) -> list[Path]:
    """Local, read-only files with the bytes of components, a table's parts in order. Nothing is copied in a folder store."""
    stored = [file for objects in contents.data_files(version, found) for file in objects]

    fetch = partial(contents.fetch, version)
    with ThreadPoolExecutor(contents.transfers, "dataset-registry-fetch") as pool:
        return list(pool.map(fetch, stored) if len(stored) > 1 else map(fetch, stored))


def uris(contents: Contents, version: VersionRecord, name: str | None) -> list[str]:
    """The addresses of a version's stored files (of one component when `name` is given), for other engines."""
    found = _named(contents, version, None if name is None else [name])
    stored = [file for objects in contents.data_files(version, found) for file in objects]
    return [contents.uri(file) for file in stored]


def table(
    contents: Contents,
    version: VersionRecord,
    names: Sequence[str] | None,
    *,
    columns: Sequence[str] | None = None,
    filter: "ds.Expression | None" = None,
    sheet: str | None = None,
    parts: Sequence[int] | None = None,
    with_labels: bool = False,
) -> "pa.Table":
    """Components as one Arrow table, in the order of `names` and of their indexes, with the types their writer had.

    `names` None means the whole version when all its tables can be one. `parts` are the numbers of those to read (see
    `table_parts`). `with_labels` adds to `columns` those that are the row labels of a pandas frame. Raises `InputError`.
    """
    from dataset_registry.tabular import pandas_frames, writer

    has_rows = parts is None or len(parts) > 0
    found = tables(contents, version, names)
    source, whole = _source(contents, version, found, sheet, filter, parts if has_rows else [0])
    wanted = _wanted(columns, source.schema.names) if columns is not None else None
    if wanted is not None and with_labels:
        wanted = pandas_frames.with_labels(wanted, whole.writer)
    if not has_rows:  # the columns alone: no part is read for them
        empty = source.schema.empty_table()
        return writer.restored(empty if wanted is None else empty.select(wanted), whole.writer)
    return writer.restored(source.to_table(columns=wanted, filter=filter), whole.writer)


def table_parts(
    contents: Contents, version: VersionRecord, names: Sequence[str] | None, filter: "ds.Expression | None" = None
) -> list[PartRecord]:
    """The files that `table` reads, in the order of their rows, without those whose statistics contradict a filter."""
    from dataset_registry.tabular import parquet

    found = tables(contents, version, names)
    listed = list(_parts(contents, version, found))
    records = [PartRecord(n, component.name, component.index, file.size) for n, (component, file) in enumerate(listed)]
    if filter is None or any(component.format != "parquet" for component in found) or len(listed) < 2:
        return records
    whole = _whole(contents, version, found)
    files = [file for _, file in listed]
    asked = parquet.possible(_sources(contents, version, files), whole.plain, filter)
    return [record for record, is_possible in zip(records, asked, strict=True) if is_possible]


def column_digests(contents: Contents, version: VersionRecord, names: Sequence[str] | None) -> dict[str, str]:
    """A digest of the content of each column of components, or of all tables. Columns without one, as of delivered files, are
    read."""
    from dataset_registry.tabular import column_digests as digests

    found = _named(contents, version, names)
    captured = {(name, index): schema for name, index, schema in contents.schemas(version, names)}
    parts: dict[str, list[tuple[str, str, str]]] = {}
    for component in found:
        label = component_label(component.name, component.index)
        for table in (
            captured[component.name, component.index].tables if (component.name, component.index) in captured else ()
        ):
            known = {name: facts.digest for name, facts in table.statistics.items() if facts.digest is not None}
            if missing := [column.name for column in table.columns if column.name not in known]:
                source, _ = _source(contents, version, [component], table.name)
                known |= digests.digests_of_stream(source, missing)
            for column in table.columns:
                parts.setdefault(column.name, []).append(
                    (f"{label}/{table.name or ''}", column.type, known[column.name])
                )
    return {name: digests.content_digest(own) for name, own in parts.items()}


def _wanted(columns: Sequence[str], there: Sequence[str]) -> list[str]:
    """Check the columns to read. Raises `InputError` for unknown and duplicate columns."""
    if isinstance(columns, str) or any(not isinstance(name, str) for name in columns):
        raise InputError(
            f"columns is a list of column names, such as [{there[0] if there else 'id'!r}], not {columns!r}."
        )
    for at, name in enumerate(columns):
        if name not in there:
            raise InputError(f"The table has no column {name!r}. {suggestion(name, there)}", column=name)
        if name in columns[:at]:
            raise InputError(f"Duplicate column {name!r} in columns. Remove one.", column=name)
    return list(columns)


def scan(contents: Contents, version: VersionRecord, names: Sequence[str] | None) -> "ds.Dataset":
    """A lazy Arrow dataset over the stored Parquet files; nothing is copied. Raises `InputError` for other formats."""
    from dataset_registry.tabular import parquet

    found = tables(contents, version, names)
    _refuse_other_formats(version, found)
    files = [file for _, file in _parts(contents, version, found)]
    return parquet.scan(_sources(contents, version, files), schema=_whole(contents, version, found).plain)


def lazily(contents: Contents, version: VersionRecord, names: Sequence[str] | None) -> "LazyTable":
    """The stored Parquet files behind components, to be read by another library. Raises `InputError` for other formats."""
    found = tables(contents, version, names)
    _refuse_other_formats(version, found)
    whole = _whole(contents, version, found)
    objects = contents.data_files(version, found)
    fetched = iter(paths(contents, version, found))
    return whole.lazy([[next(fetched) for _ in files] for files in objects])


def checkout(
    contents: Contents, version: VersionRecord, folder: Path, names: Sequence[str] | None, progress: Progress = silent
) -> list[Path]:
    """Write copies of a version's components as files into a folder. Returns their paths.

    A component whose name is a relative path, such as `cats/1.png`, becomes that file. A file that exists already is not
    overwritten. Raises `NotFound` for a name without components, `InputError`, `StorageError`.
    """
    found = _named(contents, version, names)
    objects = contents.data_files(version, found)
    targets = [
        folder / name
        for name in _file_names([(c, i) for c, f in zip(found, objects, strict=True) for i in range(len(f))])
    ]
    if taken := [target for target in targets if target.exists()]:
        raise InputError(f"{taken[0]} exists already. Check out into an empty folder.", path=str(taken[0]))
    sources = list(chain.from_iterable(objects))
    done, total = 0, sum(source.size for source in sources)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, target in zip(sources, targets, strict=True):
            if target.parent != folder:
                target.parent.mkdir(parents=True, exist_ok=True)
                if folder.resolve() not in target.parent.resolve().parents:
                    raise InputError(
                        f"{target.parent} is outside of {folder}. Check out into an empty folder.", path=str(target)
                    )
            partial = target.with_name(f".{uuid4().hex}.partial")
            try:
                with contents.open(version, source) as stream, partial.open("xb") as output:
                    while block := stream.read(1 << 20):
                        output.write(block)
                        done += len(block)
                        progress(f"writing {target.name}", done, total)
                partial.rename(target)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return targets


def files(contents: Contents, version: VersionRecord) -> list[VersionFile]:
    """The stored files of a version, in order, under their paths."""
    found = components(contents, version)
    names = _file_names([(component, 0) for component in found])
    listed: list[VersionFile] = []
    for component, name, stored in zip(found, names, contents.data_files(version, found), strict=True):
        paths = [name]
        if len(stored) > 1:
            paths = [f"{name}/{i:05}-{str(file.content_hash)[:12]}.parquet" for i, file in enumerate(stored)]
        is_part = len(stored) > 1
        listed += (
            VersionFile(p, component.name, component.index, f, is_part) for p, f in zip(paths, stored, strict=True)
        )
    return listed


def open_file(contents: Contents, version: VersionRecord, file: FileRecord) -> BinaryIO:
    """A stream over the content of a stored file, with random access."""
    source = contents.source(version, file)
    found = source if isinstance(source, Path) else source()
    return found.open("rb") if isinstance(found, Path) else cast(BinaryIO, found)


# --- from components to files --------------------------------------------------------------------------------------


def _source(
    contents: Contents,
    version: VersionRecord,
    found: Sequence[ComponentRecord],
    sheet: str | None = None,
    filter: "ds.Expression | None" = None,
    parts: Sequence[int] | None = None,
) -> "tuple[ds.Dataset, WholeTable]":
    """Components as one table to be read, or some of its parts."""
    from dataset_registry.tabular import parquet

    whole = _whole(contents, version, found, sheet)
    listed = list(_parts(contents, version, found))
    is_ours = all(file.id != component.file_id for component, file in listed)
    first = None
    if parts is not None:
        first = None if is_ours else listed[0][1]  # the table has the columns of the first of delivered files
        listed = [listed[number] for number in _numbers(parts, len(listed), version)]
    if all(component.format == "parquet" for component in found):
        files = [file for _, file in listed]
        sources = _sources(contents, version, files, is_pruned=filter is not None)
        like = None if first is None else _sources(contents, version, [first])[0]
        found_rows = parquet.scan(sources, schema=whole.plain, filter=filter, like=like, has_fast_texts=is_ours)
        return found_rows, whole
    members = [(component.name, component.index) for component in found]
    fetched = [(members.index((c.name, c.index)), contents.fetch(version, file)) for c, file in listed]
    return whole.gathered(fetched), whole


def _parts(
    contents: Contents, version: VersionRecord, found: Sequence[ComponentRecord]
) -> Iterator[tuple[ComponentRecord, FileRecord]]:
    """The stored files of components, in order, each with its component."""
    for component, files in zip(found, contents.data_files(version, found), strict=True):
        yield from ((component, file) for file in files)


def _numbers(parts: Sequence[int], count: int, version: VersionRecord) -> list[int]:
    """The numbers of parts to read. Raises `InputError` for one that is not there."""
    for number in parts:
        if not 0 <= number < count:
            raise InputError(
                f"{_address(version)} has no part {number}: its table has {count}, from 0 to {count - 1}. List them with "
                "table_parts().",
                part=number,
            )
    return list(parts)


def _sources(
    contents: Contents, version: VersionRecord, stored: Sequence[FileRecord], *, is_pruned: bool = True
) -> "list[parquet.Source]":
    """The stored Parquet files to scan, with their statistics where these can rule some of them out."""
    from dataset_registry.tabular import parquet

    is_pruned = is_pruned and len(stored) > 1
    facts = cache(partial(contents.facts, version, stored))

    def statistics(file: FileRecord) -> Mapping[str, ColumnStatistics]:
        return facts()[file.id].statistics if is_pruned and file.id in facts() else {}

    return [parquet.Source(contents.source(version, file), partial(statistics, file)) for file in stored]


def _whole(
    contents: Contents, version: VersionRecord, found: Sequence[ComponentRecord], sheet: str | None = None
) -> "WholeTable":
    """Combine components to one table. Raises `InputError` if they cannot be combined."""
    from dataset_registry.tabular.whole import WholeTable

    names = sorted({c.name for c in found})
    is_alike = len(found) == 1 or contents.schema_count(version, names) <= 1
    if is_alike and all(c.format == "parquet" for c in found):
        captured = next((schema for _, _, schema in contents.schemas(version, [found[0].name])), None)
        return WholeTable.alike(captured)
    by_key = {(name, index): schema for name, index, schema in contents.schemas(version, names)}
    labels = [component_label(c.name, c.index) for c in found]
    if missing := [label for c, label in zip(found, labels, strict=True) if (c.name, c.index) not in by_key]:
        raise InputError(
            f"{missing[0]!r} of {_address(version)} has no captured columns: read it with open() or checkout()."
        )
    return WholeTable.of([(label, by_key[c.name, c.index]) for c, label in zip(found, labels, strict=True)], sheet)


def _refuse_other_formats(version: VersionRecord, found: Sequence[ComponentRecord]) -> None:
    if other := [c for c in found if c.format != "parquet"]:
        raise InputError(
            f"{other[0].name!r} of {_address(version)} is stored as {other[0].format}: only Parquet is read lazily. "
            "Use to_arrow()."
        )


def tables(contents: Contents, version: VersionRecord, names: Sequence[str] | None) -> list[ComponentRecord]:
    """The components that are read as one table: those with these names, in this order, or all tables of the version. Raises
    `NotFound`, `InputError` where there is none, or several that cannot be one."""
    found = _named(contents, version, names)
    if names is not None:
        place = {component_name(name): at for at, name in enumerate(names)}
        found.sort(key=lambda c: (place[c.name], c.index))
    tabular = [c for c in found if kind_of(c.format) in formats.TABULAR]
    if not tabular:
        listed = _listed(found)
        raise InputError(
            f"{_address(version)} has no tables, only plain files: {listed or 'none'}. Use open() or checkout()."
        )
    if names is None and len({c.name for c in tabular}) > 1:
        tables = [table for _, _, schema in contents.schemas(version) for table in schema.tables]
        if len({frozenset(c.name for c in table.columns) for table in tables if table.columns}) > 1:
            raise InputError(
                f"{_address(version)} has several tables, with different columns: {_listed(tabular)}. Name one: "
                f"component={tabular[0].name!r}."
            )
    return tabular


def _file_names(files: Sequence[tuple[ComponentRecord, int]]) -> list[str]:
    """A relative path for each part of components: their names where these are such paths, else names made safe. Where two
    would be the same, or one a folder of the other, get a part of the component's hash."""
    names = [_path(component, part) or _file_name(component, part) for component, part in files]
    counts = Counter(map(_on_disk, names))
    folders = {_on_disk(str(parent)) for name in names for parent in PurePosixPath(name).parents}
    return [
        name
        if counts[_on_disk(name)] == 1 and _on_disk(name) not in folders
        else _file_name(component, part, mark=True)
        for name, (component, part) in zip(names, files, strict=True)
    ]


def _on_disk(name: str) -> str:
    """A name as file systems compare it: Windows and macOS ignore letter case."""
    return name.casefold() if sys.platform in ("win32", "darwin") else name


def _path(found: ComponentRecord, part: int) -> str | None:
    """The name of a component as a relative path with the suffix of its format; None where it is no path to be trusted."""
    segments = found.name.split("/")
    if any(segment in ("", ".", "..") or "\\" in segment or len(segment.encode()) > 200 for segment in segments):
        return None
    if any(segment.casefold() == ".git" for segment in segments) or (os.name == "nt" and not found.name.isalnum()):
        return None  # a repository of git runs what lies in it
    numbers = "".join(f"-{number}" for number in (found.index, part) if number)
    stem, suffix = os.path.splitext(found.name)
    if suffix and formats.is_suffix_of(suffix, kind_of(found.format)):
        return f"{stem}{numbers}{suffix}"
    return f"{found.name}{numbers}{formats.usual_suffix(kind_of(found.format))}"


def _file_name(found: ComponentRecord, part: int, *, mark: bool = False) -> str:
    """The component's own name made safe and short, its index and part, its format."""
    safe = "".join(character if character.isalnum() or character in "._+=-" else "_" for character in found.name)
    suffix = formats.usual_suffix(kind_of(found.format))
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
