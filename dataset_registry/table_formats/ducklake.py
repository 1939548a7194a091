"""Datasets as a DuckLake catalog: a DuckDB database with the metadata of tables, over the files in the store.

Versions of all datasets are snapshots of one catalog, in the order of their commits. https://ducklake.select/docs/stable/specification
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import NAMESPACE_OID, uuid4, uuid5

import duckdb
import pyarrow as pa

from dataset_registry.content.source import CatalogContents
from dataset_registry.content.whole import as_objects
from dataset_registry.embedded import EmbeddedRegistry
from dataset_registry.embedded.dataset import EmbeddedDataset, EmbeddedVersion
from dataset_registry.errors import InputError, NotFound, StorageError
from dataset_registry.model.names import MAIN
from dataset_registry.operations.datasets import by_id
from dataset_registry.registry import Registry
from dataset_registry.table_formats import keeping
from dataset_registry.table_formats.keeping import as_name, keep_only
from dataset_registry.table_formats.published import ParquetFile, PublishedTable, not_embedded
from dataset_registry.tabular.convert import is_list
from dataset_registry.tabular.parquet import typed_bounds

_FORMAT = "1.0"
_IDENTITY = "registry_lake"
_STORAGE = "v1.4.0"
"""The oldest release of DuckDB that reads the file; DuckLake 1.0 needs a newer one."""

_TYPES = {
    pa.bool_(): "boolean",
    pa.int8(): "int8",
    pa.int16(): "int16",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.uint8(): "uint8",
    pa.uint16(): "uint16",
    pa.uint32(): "uint32",
    pa.uint64(): "uint64",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.date32(): "date",
    pa.time64("us"): "time",
    pa.timestamp("ms"): "timestamp_ms",
    pa.timestamp("us"): "timestamp",
    pa.timestamp("ns"): "timestamp_ns",
    pa.string(): "varchar",
    pa.binary(): "blob",
}
_BOUNDED = (pa.types.is_integer, pa.types.is_string, pa.types.is_date, pa.types.is_decimal)
"""Types whose bounds DuckLake reads from their text."""
_NESTED = ("struct", "list", "map")


@dataclass(frozen=True, slots=True)
class Lake:
    """What an export wrote: numbers of tables, snapshots and files.

    `written` are the bytes of files that had no object of their own; `left_out` are the datasets without a table that DuckLake
    reads, each with the reason.
    """

    tables: int
    snapshots: int
    files: int
    written: int
    left_out: Mapping[str, str]


def export_ducklake(
    registry: Registry,
    path: str | Path,
    *,
    prefix: str = "",
    branch: str = MAIN,
    versions: int = 1,
    keep: bool = True,
) -> Lake:
    """Write a DuckLake catalog of the datasets under a prefix: `ATTACH 'ducklake:…' (READ_ONLY)` reads them from the store.

    A dataset `raw/flights` is the table `raw.flights`, one without a slash is in `main`. The newest `versions` of a branch are
    snapshots, which `AT (VERSION => …)` and `AT (TIMESTAMP => …)` read. The file is replaced: export again after commits.
    With `keep` the versions get tags `ducklake/<file>-<id>/v<number>`, so that their files stay; the next export to the file
    deletes those that it does not need any more.

    Raises `InputError` for a remote registry, or for a file that is no such catalog, `PermissionDenied`, `StorageError`.
    """
    if not isinstance(registry, EmbeddedRegistry):
        raise not_embedded()
    target = Path(path).expanduser().absolute()
    lake = _Identity.of(target)
    left_out: dict[str, str] = {}
    chains: dict[int, list[_State]] = {}
    for dataset in registry.datasets(prefix=prefix):
        assert isinstance(dataset, EmbeddedDataset)
        try:
            newest, *older = _history(dataset, branch, versions)
            chains[dataset.id] = [_State.of(dataset, newest)]
        except (InputError, NotFound) as error:
            left_out[dataset.name] = str(error)
            continue
        with suppress(InputError):  # the history begins after a version that DuckLake cannot read
            chains[dataset.id].extend(_State.of(dataset, version) for version in older)
    for name, reason in _ambiguous([chain[0].dataset.name for chain in chains.values()]).items():
        left_out[name] = reason
    chains = {number: chain for number, chain in chains.items() if chain[0].dataset.name not in left_out}
    tags: dict[int, list[str]] = {number: [] for number in {*chains, *lake.datasets}}
    prefix_of_tags = f"ducklake/{as_name(target.stem)}-{lake.id[:8]}"
    if keep:
        for number, chain in chains.items():
            tags[number] = [keeping.keep(state.dataset, prefix_of_tags, state.version.number) for state in chain]
    written = sum(
        as_objects(registry.access, [file.file for file in state.table.files])
        for chain in chains.values()
        for state in chain
    )
    if written:
        chains = {n: [_State.of(state.dataset, state.version) for state in chain] for n, chain in chains.items()}
    made = _Catalog(_in_order(chains.values()), _Identity(lake.id, [*chains]), f"{target.parent}/")
    _write(target, made.rows)
    for number, wanted in tags.items():
        with suppress(NotFound):  # deleted since the last export
            keep_only(EmbeddedDataset(registry.access, by_id(registry.access, number)), prefix_of_tags, wanted)
    return Lake(made.tables, made.snapshots, made.files, written, left_out)


def _in_order(chains: Iterable[Sequence["_State"]]) -> list[tuple[datetime, "_State"]]:
    """The versions of all datasets in the order of their commits; those of one in its own, whatever the clocks said."""
    found: list[tuple[datetime, _State]] = []
    for chain in chains:
        moment = datetime.fromtimestamp(0, UTC)
        for state in reversed(chain):
            moment = max(moment, state.version.created_at)
            found.append((moment, state))
    return sorted(found, key=lambda one: (one[0], one[1].dataset.id))  # the order of a dataset stays: sorting is stable


_TAKEN = ("information_schema", "pg_catalog", "temp", "system")


def _ambiguous(names: Sequence[str]) -> dict[str, str]:
    """The datasets whose tables DuckDB, which ignores letter case, takes for others or for its own, each with the reason."""
    tables: dict[str, list[str]] = {}
    schemas: dict[str, set[str]] = {"main": {"main"}}
    for name in names:
        schema, table = _home(name)
        tables.setdefault(f"{schema}/{table}".casefold(), []).append(name)
        schemas.setdefault(schema.casefold(), set()).add(schema)
    found = {
        name: f"DuckDB takes {' and '.join(alike)} for one table."
        for alike in tables.values()
        if len(alike) > 1
        for name in alike
    }
    for name in names:
        schema = _home(name)[0]
        if schema.casefold() in _TAKEN:
            found[name] = f"The schema {schema!r} is one of DuckDB's own."
        elif len(schemas[schema.casefold()]) > 1:
            found.setdefault(name, f"DuckDB takes {' and '.join(sorted(schemas[schema.casefold()]))} for one schema.")
    return found


@dataclass(frozen=True, slots=True)
class _Identity:
    """The id of a catalog, by which its tags are known, and the ids of its datasets."""

    id: str
    datasets: Sequence[int]

    @classmethod
    def of(cls, target: Path) -> "_Identity":
        """That of an existing catalog, or a new one. Raises `InputError` for another file."""
        if not target.exists():
            return cls(uuid4().hex, [])
        try:
            with duckdb.connect(target, read_only=True) as connection:
                rows = connection.execute(f"SELECT value FROM ducklake_metadata WHERE key = '{_IDENTITY}'").fetchall()
            identity, _, datasets = rows[0][0].partition(" ")
            return cls(identity, [int(number) for number in datasets.split()])
        except (duckdb.Error, IndexError, ValueError) as error:
            raise InputError(
                f"{target} is no DuckLake catalog of a registry, and is not overwritten. Choose another file.",
                path=str(target),
            ) from error


@dataclass(frozen=True, slots=True)
class _State:
    """The table of a dataset in a version."""

    dataset: EmbeddedDataset
    version: EmbeddedVersion
    table: PublishedTable

    @classmethod
    def of(cls, dataset: EmbeddedDataset, version: EmbeddedVersion) -> "_State":
        """Raises `InputError` if DuckLake cannot read it."""
        table = PublishedTable(CatalogContents(version.access), version.record)
        list(_columns(table.schema))
        table.refuse_odd_files()
        return cls(dataset, version, table)


def _history(dataset: EmbeddedDataset, branch: str, count: int) -> list[EmbeddedVersion]:
    """The newest versions of a branch by first parents."""
    found = [dataset.version(branch)]
    while len(found) < count and found[-1].parents:
        try:
            found.append(dataset.version(f"v{found[-1].parents[0]}"))
        except NotFound:
            break
    return found


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _runs(
    states: Sequence[tuple[int, Mapping[_Key, _Value]]],
) -> Iterator[tuple[_Key, _Value, int, int | None]]:
    """What was there from which snapshot on, and until which one (None: it still is)."""
    there: dict[_Key, tuple[_Value, int]] = {}
    for snapshot, state in states:
        for key, (value, begun) in list(there.items()):
            if key not in state or state[key] != value:
                yield key, value, begun, snapshot
                del there[key]
        for key, value in state.items():
            there.setdefault(key, (value, snapshot))
    for key, (value, begun) in there.items():
        yield key, value, begun, None


class _Catalog:
    """The rows of a catalog."""

    def __init__(self, ordered: Sequence[tuple[datetime, _State]], lake: _Identity, data_path: str) -> None:
        self.rows: dict[str, list[Sequence[Any]]] = defaultdict(list)
        self._ids = count(1)
        self._file_ids = count(1)
        schemas = {"main": 0}
        by_dataset: dict[int, list[tuple[int, _State]]] = {}
        self._snapshot(0, datetime.fromtimestamp(0, UTC), 'created_schema:"main"', None, None, None)
        for snapshot, (moment, state) in enumerate(ordered, 1):
            mine = by_dataset.setdefault(state.dataset.id, [])
            record = state.version.record
            what = f"altered_table:{state.dataset.id}" if mine else f"created_table:{_quoted(state.dataset.name)}"
            told = str(state.version)
            self._snapshot(snapshot, moment, what, record.created_by, record.message or told, told)
            mine.append((snapshot, state))
        for mine in by_dataset.values():
            schema, _ = _home(mine[0][1].dataset.name)
            if schema not in schemas:
                schemas[schema] = next(self._ids)
        for schema, number in schemas.items():
            self.rows["schema"].append([number, _uuid(f"schema {schema}"), 0, None, schema, f"{schema}/", True])
        for mine in by_dataset.values():
            self._add_table(mine, schemas)
        self.tables, self.snapshots, self.files = len(by_dataset), len(ordered), next(self._file_ids) - 1
        facts = {"version": _FORMAT, "created_by": "dataset_registry", "data_path": data_path, "encrypted": "false"}
        facts[_IDENTITY] = " ".join([lake.id, *map(str, lake.datasets)])
        self.rows["metadata"] = [[name, value, None, None] for name, value in facts.items()]
        last = next(self._ids)
        self.rows["snapshot"] = [[*row[:3], last, self.files + 1] for row in self.rows["snapshot"]]

    def _snapshot(
        self, number: int, moment: datetime, what: str, author: str | None, message: str | None, version: str | None
    ) -> None:
        self.rows["snapshot"].append([number, moment, number, 0, 0])
        self.rows["snapshot_changes"].append([number, what, author, message, version])

    def _add_table(self, states: Sequence[tuple[int, _State]], schemas: Mapping[str, int]) -> None:
        first, state = states[0]
        schema, name = _home(state.dataset.name)
        table = next(self._ids)
        identity = _uuid(f"{state.dataset.record.created_at.isoformat()} {state.dataset.id}")
        self.rows["table"].append([table, identity, first, None, schemas[schema], name, f"{name}/", True])
        columns = [(snapshot, _columns(state.table.schema)) for snapshot, state in states]
        ids: dict[tuple[tuple[str, ...], str], int] = {}
        for _, found in columns:
            for path, (kind, _) in found.items():
                ids.setdefault((path, kind), len(ids) + 1)
        for path, (kind, position), begin, end in sorted(_runs(columns), key=lambda run: run[2]):
            parent = ids[path[:-1], _kind_at(columns, begin, path[:-1])] if len(path) > 1 else None
            default = "" if kind in _NESTED else "literal"
            row = [ids[path, kind], begin, end, table, position, path[-1], kind, None, "NULL", True, parent, default]
            self.rows["column"].append([*row, "duckdb"])
        self.rows["schema_versions"] += [[snapshot, snapshot, table] for snapshot, _ in states]
        self._add_files(table, states, columns, ids)

    def _add_files(
        self,
        table: int,
        states: Sequence[tuple[int, _State]],
        columns: Sequence[tuple[int, Mapping[tuple[str, ...], tuple[str, int]]]],
        ids: Mapping[tuple[tuple[str, ...], str], int],
    ) -> None:
        mappings: dict[tuple[tuple[tuple[str, ...], str], ...], int] = {}
        listed: list[tuple[int, dict[str, _Placed]]] = []
        for (snapshot, state), (_, found) in zip(states, columns, strict=True):
            shape = tuple((path, kind) for path, (kind, _) in found.items())
            if shape not in mappings:
                mappings[shape] = next(self._ids)
                self._add_mapping(mappings[shape], table, shape, ids)
            mapped = mappings[shape]
            listed.append((snapshot, {f.name: _Placed(mapped, f, state.table.schema) for f in state.table.files}))
        contents = CatalogContents(states[0][1].version.access)
        next_row = size = rows = 0
        for _, placed, begin, end in _runs(listed):
            number, file = next(self._file_ids), placed.file
            address = contents.uri(file.file)
            row = [
                number,
                table,
                begin,
                end,
                number,
                address,
                False,
                "parquet",
                file.rows,
                file.file.size,
                None,
                next_row,
            ]
            self.rows["data_file"].append([*row, None, None, placed.mapping, None])
            self.rows["file_column_stats"] += _statistics(number, table, file, placed.schema, ids)
            next_row += file.rows
            if end is None:
                rows, size = rows + file.rows, size + file.file.size
        self.rows["table_stats"].append([table, rows, next_row, size])

    def _add_mapping(
        self,
        number: int,
        table: int,
        shape: Sequence[tuple[tuple[str, ...], str]],
        ids: Mapping[tuple[tuple[str, ...], str], int],
    ) -> None:
        self.rows["column_mapping"].append([number, table, "map_by_name"])
        places = {path: at for at, (path, _) in enumerate(shape)}
        kinds = dict(shape)
        for at, (path, kind) in enumerate(shape):
            is_item = len(path) > 1 and kinds[path[:-1]] == "list"
            source = "list" if is_item else path[-1]
            parent = places[path[:-1]] if len(path) > 1 else None
            self.rows["name_mapping"].append([number, at, source, ids[path, kind], parent, False])


class _Placed(NamedTuple):
    """A file in a table, with the mapping of its names."""

    mapping: int
    file: ParquetFile
    schema: pa.Schema


def _kind_at(
    columns: Sequence[tuple[int, Mapping[tuple[str, ...], tuple[str, int]]]], snapshot: int, path: tuple[str, ...]
) -> str:
    return next(found[path][0] for number, found in columns if number == snapshot)


def _columns(schema: pa.Schema) -> dict[tuple[str, ...], tuple[str, int]]:
    """The type and the position of each column and nested field by its path. Raises `InputError`."""
    found: dict[tuple[str, ...], tuple[str, int]] = {}
    folded: dict[tuple[str, ...], tuple[str, ...]] = {}
    for column in schema:
        for path, kind in _fields((column.name,), column.type):
            found[path] = (kind, len(found) + 1)
            same = folded.setdefault(tuple(name.casefold() for name in path), path)
            if same != path:
                raise InputError(
                    f"The columns {'.'.join(same)!r} and {'.'.join(path)!r} differ in letter case only, which DuckDB ignores. "
                    "Rename one.",
                    column=path[0],
                )
    return found


def _fields(path: tuple[str, ...], kind: pa.DataType) -> Iterator[tuple[tuple[str, ...], str]]:
    if (known := _TYPES.get(kind)) is not None:
        yield path, known
    elif pa.types.is_decimal128(kind) and 0 <= kind.scale <= kind.precision:
        yield path, f"decimal({kind.precision},{kind.scale})"
    elif pa.types.is_timestamp(kind) and kind.tz is not None and kind.unit in ("ms", "us"):
        yield path, "timestamptz"
    elif pa.types.is_fixed_size_binary(kind):
        yield path, "blob"
    elif pa.types.is_struct(kind) and kind.num_fields:
        yield path, "struct"
        for at in range(kind.num_fields):
            yield from _fields((*path, kind.field(at).name), kind.field(at).type)
    elif pa.types.is_map(kind):
        yield path, "map"
        yield from _fields((*path, "key"), kind.key_type)
        yield from _fields((*path, "value"), kind.item_type)
    elif is_list(kind) or pa.types.is_fixed_size_list(kind):
        yield path, "list"
        yield from _fields((*path, "element"), kind.value_type)
    else:
        raise InputError(
            f"Column {'.'.join(path)!r} has the type {kind}, which DuckLake does not have. Commit it with another type.",
            column=path[0],
        )


def _statistics(
    number: int,
    table: int,
    file: ParquetFile,
    schema: pa.Schema,
    ids: Mapping[tuple[tuple[str, ...], str], int],
) -> Iterator[list[Any]]:
    """The statistics of the columns of a file."""
    for column in schema:
        known = file.statistics.get(column.name)
        if known is None or known.null_count is None or not any(is_kind(column.type) for is_kind in _BOUNDED):
            continue
        bounds = typed_bounds(known, column.type)
        least, most = (None, None) if bounds is None else (str(bound.as_py()) for bound in bounds)
        ((_, kind),) = _fields((column.name,), column.type)
        column_id = ids[(column.name,), kind]
        yield [number, table, column_id, None, file.rows - known.null_count, known.null_count, least, most, None, None]


def _home(name: str) -> tuple[str, str]:
    """The schema and the name of the table of a dataset."""
    schema, slash, table = name.rpartition("/")
    return (schema, table) if slash else ("main", name)


def _quoted(name: str) -> str:
    schema, table = _home(name)
    return f'"{schema}"."{table}"'


def _uuid(text: str) -> str:
    return str(uuid5(NAMESPACE_OID, text))


def _write(target: Path, rows: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    """Write the database and put it in place. Raises `StorageError`."""
    partial = target.with_name(f".{uuid4().hex}.partial")
    try:
        with duckdb.connect() as connection:
            connection.execute(
                f"ATTACH '{str(partial).replace(chr(39), chr(39) * 2)}' AS lake (STORAGE_VERSION '{_STORAGE}')"
            )
            connection.execute("USE lake")
            connection.execute(files(__package__).joinpath("ducklake.sql").read_text())
            for name, found in rows.items():
                marks = ", ".join("?" * len(found[0]))
                connection.executemany(f"INSERT INTO ducklake_{name} VALUES ({marks})", found)
            connection.execute("USE memory")
            connection.execute("DETACH lake")
        partial.replace(target)
    except (OSError, duckdb.IOException) as error:
        raise StorageError(f"{target} cannot be written: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)
