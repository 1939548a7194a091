"""Tables as Parquet parts: the same rows are the same bytes, independent of library and batches.

A table is split into one or more parts by content (see `chunking`); each is one row group, written from one combined chunk
with plain types. Every part is a Parquet file that any engine reads. A newer pyarrow may write other bytes for the same
rows: its version stands in each file (`created_by`).
"""

import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from io import IOBase
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from dataset_registry.errors import CorruptionError, InputError, UnreadableFile, UnsupportedType
from dataset_registry.model.chunks import PartFacts
from dataset_registry.model.parts import ChunkingRule
from dataset_registry.model.schema import Column, ColumnStatistics, ComponentSchema, TableSchema
from dataset_registry.tabular import chunking, column_digests, encodings, writer
from dataset_registry.tabular.arrow import columns_of, counted, plain_batches, plain_schema, scalar

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Kept = TypeVar("_Kept")
_GATHERED = 1 << 16
"""Rows that are chunked at a time if they come in small batches."""
_PIECE = 8 << 10
"""Column chunks smaller than this are merged with their neighbours."""
_WRITERS = min(4, os.cpu_count() or 1)

INT96_UNIT = "us"
"""What timestamps are read as that Spark wrote in its old way: as nanoseconds, the year 9999 is 1816."""


def write_parts(
    reader: pa.RecordBatchReader,
    writer_schema: pa.Schema,
    keep: Callable[[memoryview, PartFacts], _Kept],
    *,
    key: Sequence[str] = (),
    previous: ChunkingRule | None = None,
    is_piece: bool = False,
) -> tuple[list[tuple[_Kept, PartFacts]], TableSchema]:
    """Write a stream as parts cut by content: what `keep` made of the bytes of each, in order, and the table's schema.

    `writer_schema` is what the stream's writer had (see `writer`). Parts are written by several threads, which call `keep`. Holds
    a few parts in memory. The rows are cut as the version before was (`previous`), else by `key`, else by all columns; a piece of
    a larger table as that one. Raises `UnsupportedType`, `InputError` (no such key).
    """
    schema = plain_schema(reader.schema)
    if missing := [name for name in key if name not in schema.names]:
        raise InputError(
            f"The key names {', '.join(map(repr, missing))}, which is not a column of the table. It has: "
            f"{', '.join(schema.names)}.",
            key=list(key),
        )
    categories = writer.Categories(writer_schema)
    tables = _gathered(plain_batches(reader, schema, categories))
    cut, tables = _cut(tables, schema, tuple(key), previous, is_piece=is_piece)
    write = partial(_write_part, schema, keep, cut.form)
    with ThreadPoolExecutor(_WRITERS, "dataset-registry-parts") as pool:
        hit = _ahead(pool, lambda table: (table, chunking.cut_points(table, cut)), tables)
        written = list(_ahead(pool, write, chunking.split(hit, cut))) or [write(schema.empty_table())]
    rows = sum(part.rows for _, part, _ in written)
    statistics = _Known.of([known for _, _, known in written]).statistics()
    types = writer.kept(writer_schema, schema, categories)
    table = TableSchema(None, columns_of(schema), rows, statistics, types, tuple(key), replace(cut, parts=len(written)))
    return [(kept, part) for kept, part, _ in written], table


def write_each(
    items: Iterable[int | pa.Table], schema: pa.Schema, keep: Callable[[memoryview, PartFacts], _Kept], form: int
) -> Iterator[int | tuple[_Kept, PartFacts]]:
    """Write each table as one part, by several threads: what `keep` made of its bytes, with its facts. Numbers stay. `form` is
    that of the chunking rule."""

    def write(item: int | pa.Table) -> int | tuple[_Kept, PartFacts]:
        return item if isinstance(item, int) else _write_part(schema, keep, form, item)[:2]

    with ThreadPoolExecutor(_WRITERS, "dataset-registry-parts") as pool:
        yield from _ahead(pool, write, items)


def combined_statistics(columns: Sequence[Column], parts: Sequence[PartFacts]) -> dict[str, ColumnStatistics]:
    """The statistics of a table from those of its parts. Bounds that do not compare as they are stored are left out."""
    found: dict[str, ColumnStatistics] = {}
    for column in columns:
        if any(column.name not in part.statistics for part in parts):
            continue
        nulls, lows, highs = 0, [], []
        is_known = not column.type.startswith(("decimal", "duration"))
        for part in parts:
            known = part.statistics[column.name]
            nulls = -1 if known.null_count is None or nulls < 0 else nulls + known.null_count
            if known.min is not None and known.max is not None:
                lows.append(known.min)
                highs.append(known.max)
            elif known.null_count != part.rows:
                is_known = False
        is_known = is_known and bool(lows) and len({type(bound) is str for bound in (*lows, *highs)}) == 1
        digests = [part.statistics[column.name].digest for part in parts]
        found[column.name] = ColumnStatistics(
            None if nulls < 0 else nulls,
            min(lows) if is_known else None,
            max(highs) if is_known else None,
            column_digests.combined(digests),
        )
    return found


def _write_part(
    schema: pa.Schema, keep: Callable[[memoryview, PartFacts], _Kept], form: int, table: pa.Table
) -> tuple[_Kept, PartFacts, "_Known"]:
    sink = pa.BufferOutputStream()
    try:
        with pq.ParquetWriter(sink, schema, **encodings.options(table, form)) as writer:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, OSError) as error:
        columns = [name for i, name in enumerate(schema.names) if not _is_writable(table.select([i]), schema.field(i))]
        named = ", ".join(f"{name!r} ({schema.field(name).type})" for name in columns[:10]) or "the column it names"
        raise UnsupportedType(
            f"Parquet cannot hold this table: {error}. Convert {named} to another type.", columns=columns
        ) from error
    data = sink.getvalue()
    footer = pq.read_metadata(pa.BufferReader(data))
    facts, known = _facts(footer, data.size, column_digests.digests_of(table))
    return keep(memoryview(data), facts), facts, known


def _is_writable(column: pa.Table, field: pa.Field) -> bool:
    """Whether Parquet can hold a table of this column."""
    try:
        with pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])) as writer:
            writer.write_table(column)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, OSError):
        return False
    return True


def _cut(
    tables: Iterator[pa.Table],
    schema: pa.Schema,
    key: Sequence[str],
    previous: ChunkingRule | None,
    *,
    is_piece: bool,
) -> tuple[ChunkingRule, Iterator[pa.Table]]:
    """The chunking rule of a table, and all of its rows: those read to determine it, then the others."""
    kept = chunking.kept(previous, schema.names) if previous else None
    if kept is not None and (kept.parts <= chunking.MANY or is_piece):
        return kept, tables
    seen = [schema.empty_table()]
    is_whole = True
    for table in tables:
        seen.append(table)
        if chunking.enough(pa.concat_tables(seen)):
            is_whole = False
            break
    head = pa.concat_tables(seen)
    columns = kept.columns if kept else key or chunking.telling_columns(head)
    fresh = chunking.rule(head, is_whole=is_whole and not is_piece, columns=columns)
    return kept if kept and fresh.rows <= 2 * kept.rows else fresh, chain(_drained(seen), tables)


def rule_of_pieces(head: pa.Table, key: Sequence[str]) -> ChunkingRule:
    """The chunking rule of a large table that begins with these rows, for its pieces: 65,536 rows say enough."""
    schema = plain_schema(head.schema)
    categories = writer.Categories(head.schema)
    plain = pa.concat_tables([schema.empty_table(), *plain_batches(head.to_reader(), schema, categories)])
    return chunking.rule(plain, is_whole=False, columns=key or chunking.telling_columns(plain))


def _drained(tables: list[pa.Table]) -> Iterator[pa.Table]:
    """The tables of a list, which drops each."""
    tables.reverse()
    while tables:
        yield tables.pop()


def _gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The rows in tables that are worth a task each."""
    pending: list[pa.Table] = []
    count = 0
    for table in tables:
        pending.append(table)
        count += table.num_rows
        if count >= _GATHERED:
            yield pa.concat_tables(pending)
            pending, count = [], 0
    if count:
        yield pa.concat_tables(pending)


def _ahead(pool: ThreadPoolExecutor, do: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """What `do` makes of items, in order, a few of them ahead of the consumer."""
    waiting: deque[Future[_Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(do, item))
            if len(waiting) > _WRITERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _facts(footer: pq.FileMetaData, size: int, digests: Mapping[str, str] | None = None) -> tuple[PartFacts, "_Known"]:
    """The facts of a Parquet file of `size` bytes with this footer, and what is known of its columns."""
    known = _Known()
    known.add(footer)
    known.add_digests(digests or {})
    return PartFacts(footer.num_rows, known.statistics(), tuple(_chunks(footer, size))), known


def _chunks(footer: pq.FileMetaData, size: int) -> Iterator[int]:
    """The lengths of a file's pieces: column chunks, small ones together, then what is behind them."""
    start = 0
    for group in range(footer.num_row_groups):
        row_group = footer.row_group(group)
        for index in range(row_group.num_columns):
            chunk = row_group.column(index)
            first = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                first = min(first, chunk.dictionary_page_offset)
            end = first + chunk.total_compressed_size
            if start + _PIECE <= end <= size:
                yield end - start
                start = end
    if start < size:
        yield size - start


Opener = Callable[[], Path | IOBase]
"""Opens a stored file when it is read: its path, or a stream with random access where it has none."""


@dataclass(frozen=True, slots=True)
class Source:
    """A stored Parquet file to scan: its location, and a function that looks up what is known of its columns."""

    place: Path | Opener
    statistics: Callable[[], Mapping[str, ColumnStatistics]] = dict


def scan(
    sources: Sequence[Source],
    *,
    schema: pa.Schema | None = None,
    filter: ds.Expression | None = None,
    like: Source | None = None,
    has_fast_texts: bool = False,
) -> ds.Dataset:
    """A lazy Arrow dataset over Parquet files, in order; nothing is copied or read yet but the footer of the first.

    Files whose statistics contradict a filter are never opened; with a `filter` only its columns are looked at for that.
    With a `schema` files are brought to its columns: a missing one is null, a narrower type is widened. Else all have those
    of the first, or of `like`. `has_fast_texts` is for files of the registry's own of which no more is asked than the rows with
    this `filter`: texts behind dictionaries are read as these and cast batch by batch, which is faster than what Arrow does for
    texts, but prunes nothing by them.
    """
    places = [source.place for source in sources]
    stored = pa.fs.PyFileSystem(_Stored(places))
    local = pa.fs.LocalFileSystem()

    def fragment(index: int, columns: Sequence[pa.Field] = (), texts: tuple[str, ...] = ()) -> ds.Fragment:
        place = places[index]
        path, files = (str(place), local) if isinstance(place, Path) else (str(index), stored)

        def make() -> ds.Fragment:
            return _format(texts).make_fragment(path, files, _known(sources[index], columns))

        return _fragments.of(place, {f.name for f in columns}, texts, make) if isinstance(place, Path) else make()

    is_alike = schema is None
    first = fragment(0)
    try:
        if schema is None:
            schema = scan([like]).schema if like is not None else first.physical_schema
        texts = _repeated_texts(first) if has_fast_texts else ()
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptionError(
            f"A stored file that is part of a table cannot be read as Parquet: {_first_line(error)}. Run: dataset-registry "
            "verify --deep"
        ) from error
    asked = "" if filter is None else str(filter)
    is_by_place = "FieldPath" in asked
    texts = tuple(
        name for name in texts if name not in asked and not is_by_place and schema.field(name).type == pa.string()
    )
    looks_at_all = filter is None or is_by_place
    wanted = [f for f in schema if looks_at_all or f.name in asked] if len(sources) > 1 and is_alike else []
    fragments = [fragment(index, wanted, texts) for index in range(len(sources))]
    return ds.FileSystemDataset(fragments, schema, _format(()), local)


def possible(sources: Sequence[Source], schema: pa.Schema | None, filter: ds.Expression) -> list[bool]:
    """For each file whether it may have rows for a filter, by its statistics. With a `schema`, files are not judged."""
    if schema is not None:
        return [True] * len(sources)
    columns = scan(sources[:1]).schema
    wanted = [column for column in columns if column.name in str(filter)]
    local = pa.fs.LocalFileSystem()

    def is_possible(source: Source) -> bool:
        judged = _format(()).make_fragment("", local, _known(source, wanted))
        return any(True for _ in ds.FileSystemDataset([judged], columns, _format(()), local).get_fragments(filter))

    return [is_possible(source) for source in sources]


_LEAST_TEXTS = 1 << 12


def _repeated_texts(fragment: ds.Fragment) -> tuple[str, ...]:
    """The text columns of a file, unless it is small, of which all values are in a dictionary."""
    footer = fragment.metadata
    if not footer.num_row_groups or footer.row_group(0).num_rows < _LEAST_TEXTS:
        return ()
    group = footer.row_group(0)
    names = {f.name for f in fragment.physical_schema if f.type == pa.string()}
    columns = [group.column(index) for index in range(group.num_columns)]
    # A plain text has its length in four bytes, a place in a dictionary has at most 17 bits.
    return tuple(
        column.path_in_schema
        for column in columns
        if column.path_in_schema in names
        and column.has_dictionary_page
        and column.total_uncompressed_size < 3 * column.num_values
    )


@lru_cache(64)
def _format(texts: tuple[str, ...]) -> ds.ParquetFileFormat:
    """How files are read, these columns as dictionaries."""
    options = ds.ParquetReadOptions(dictionary_columns=texts, coerce_int96_timestamp_unit=INT96_UNIT)
    return ds.ParquetFileFormat(read_options=options)


class _Fragments:
    """Files that were read lately, whose footers need not be read again, by path, size and time of change, and by the columns
    that are read as dictionaries; each with the columns whose statistics it knows."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], tuple[Set[str], ds.Fragment]] = OrderedDict()
        self._lock = Lock()

    def of(self, path: Path, columns: Set[str], texts: tuple[str, ...], make: Callable[[], ds.Fragment]) -> ds.Fragment:
        """The fragment of a file that was made before, if it was read whole or knows the statistics of these columns; else one
        made now."""
        try:
            found = path.stat()
        except OSError:
            return make()
        key = (str(path), found.st_size, found.st_mtime_ns, texts)
        with self._lock:
            known, fragment = self._kept.pop(key, (None, None))
            if known is None or (known and not known >= columns):
                known, fragment = columns, make()
            self._kept[key] = known, fragment
            if len(self._kept) > _MOST_FRAGMENTS:
                self._kept.popitem(last=False)
        return fragment


_MOST_FRAGMENTS = 2_000
"""Some 20 KB each, with the footer of 17 columns."""
_fragments = _Fragments()


def _known(source: Source, fields: Sequence[pa.Field]) -> ds.Expression | None:
    """What the statistics of a file say of all its rows. Of floating-point numbers nothing: no bounds hold for NaN."""
    found: ds.Expression | None = None
    statistics = source.statistics() if fields else {}
    for column in fields:
        known = statistics.get(column.name)
        bounds = typed_bounds(known, column.type) if known is not None and known.null_count is not None else None
        if known is None or bounds is None:
            continue
        here = ds.field(column.name)
        says = (here >= bounds[0]) & (here <= bounds[1])
        if known.null_count:
            says = says | here.is_null()
        found = says if found is None else found & says
    return found


def typed_bounds(known: ColumnStatistics, kind: pa.DataType) -> tuple[pa.Scalar, pa.Scalar] | None:
    """Smallest and largest value in the type of the column, None where there are none that compare as Arrow does.

    (Nanoseconds are more than the statistics keep.)
    """
    inexact = (
        pa.types.is_floating(kind) or pa.types.is_time(kind) or (pa.types.is_timestamp(kind) and kind.unit == "ns")
    )
    if known.min is None or known.max is None or inexact:
        return None
    try:
        return pa.scalar(known.min).cast(kind), pa.scalar(known.max).cast(kind)
    except (pa.ArrowException, OverflowError):
        return None


class _Stored(pa.fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """Files named 0, 1, 2 …, opened when read."""

    def __init__(self, places: Sequence[Path | Opener]) -> None:
        self._places = places

    def open_input_file(self, path: str) -> pa.NativeFile:
        place = self._places[int(path)]
        found = place if isinstance(place, Path) else place()
        return pa.memory_map(str(found)) if isinstance(found, Path) else pa.PythonFile(found, mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)

    def get_type_name(self) -> str:
        return "dataset-registry"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[pa.fs.FileInfo]:
        return [pa.fs.FileInfo(path, pa.fs.FileType.File) for path in paths]

    def _refuse(self, *_: object) -> Any:
        raise NotImplementedError("stored files are read, and nothing else")

    get_file_info_selector = create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _refuse
    delete_file = move = copy_file = open_output_stream = open_append_stream = _refuse


def row_count(path: Path) -> int:
    """The rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def capture(path: Path) -> TableSchema:
    """The schema and statistics of a Parquet file, from its footer. Raises `UnreadableFile`."""
    try:
        file = pq.ParquetFile(path, coerce_int96_timestamp_unit=INT96_UNIT)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UnreadableFile(
            f"This is not a whole Parquet file ({_first_line(error)}). It may be truncated. "
            "Export it again, or commit it with format='binary'."
        ) from error
    with file:
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise UnreadableFile(
                "Columns of this Parquet file have the same name. Rename them, or commit it with format='binary'."
            )
        known = _Known()
        known.add(file.metadata)
        return TableSchema(None, columns_of(file.schema_arrow), file.metadata.num_rows, known.statistics())


def capture_table(paths: Sequence[Path], types: str | None) -> tuple[ComponentSchema, list[PartFacts]]:
    """The schema of a table in several Parquet files, and the facts of each, from their footers; `types` as in `TableSchema`.

    Raises `UnreadableFile` for a file that is no Parquet, or has other columns than the first.
    """
    found = [capture(path) for path in paths]
    if any(table.columns != found[0].columns for table in found):
        raise UnreadableFile(
            "The parts of this table have different columns. Send parts that were written as one table."
        )
    facts = [_facts(pq.read_metadata(path), path.stat().st_size) for path in paths]
    parts = [part for part, _ in facts]
    statistics = _Known.of([known for _, known in facts]).statistics()
    schema = TableSchema(None, found[0].columns, sum(part.rows for part in parts), statistics, types)
    try:
        writer.restored(pq.read_schema(paths[0]).empty_table(), writer.schema_of(schema.user_types))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UnreadableFile(f"The types that came with this table do not fit it: {_first_line(error)}.") from error
    return ComponentSchema("parquet", (schema,)), parts


class _Known:
    """Column statistics gathered from footers, row group by row group, and digests of columns, part by part in order."""

    def __init__(self) -> None:
        self._columns: dict[str, dict[str, Any]] = {}
        self._digests: dict[str, list[str | None]] = {}
        self._parts = 0

    def add_digests(self, digests: Mapping[str, str]) -> None:
        """Add the digests of the columns of the next part; none if they are not known."""
        for name in {*self._digests, *digests}:
            self._digests.setdefault(name, [None] * self._parts).append(digests.get(name))
        self._parts += 1

    @classmethod
    def of(cls, parts: "Iterable[_Known]") -> "_Known":
        """The merged statistics of several files."""
        found = cls()
        for part in parts:
            found.add_digests({name: digest for name, digest in part.digests().items() if digest})
            for name, theirs in part._columns.items():
                known = found._column(name)
                known["low"] += theirs["low"]
                known["high"] += theirs["high"]
                known["bounds"] &= theirs["bounds"]
                known["kind"] = known["kind"] or theirs["kind"]
                none = known["nulls"] is None or theirs["nulls"] is None
                known["nulls"] = None if none else known["nulls"] + theirs["nulls"]
        return found

    def _column(self, name: str) -> dict[str, Any]:
        return self._columns.setdefault(name, {"nulls": 0, "low": [], "high": [], "bounds": True, "kind": None})

    def add(self, footer: pq.FileMetaData) -> None:
        fields = footer.schema.to_arrow_schema()
        for index in range(footer.num_columns):
            leaf = footer.schema.column(index)
            if leaf.path != leaf.name or leaf.max_repetition_level or leaf.max_definition_level > 1:
                continue  # inside a nested column
            kind = fields.field(leaf.name).type
            known = self._column(leaf.name)
            known["kind"] = kind
            for group in range(footer.num_row_groups):
                row_group = footer.row_group(group)
                if row_group.num_rows:
                    _add_chunk(known, kind, row_group.column(index), row_group.num_rows)

    def statistics(self) -> dict[str, ColumnStatistics]:
        found = {
            name: ColumnStatistics(
                facts["nulls"],
                _bound(min(facts["low"]), facts["kind"]) if facts["bounds"] and facts["low"] else None,
                _bound(max(facts["high"]), facts["kind"]) if facts["bounds"] and facts["high"] else None,
            )
            for name, facts in self._columns.items()
        }
        for name, digest in self.digests().items():
            found[name] = replace(found.get(name, ColumnStatistics()), digest=digest)
        return found

    def digests(self) -> dict[str, str | None]:
        """The digests of columns, None where that of a part is not known."""
        return {name: column_digests.combined(digests) for name, digests in self._digests.items()}


def _add_chunk(known: dict[str, Any], kind: pa.DataType, chunk: pq.ColumnChunkMetaData, rows: int) -> None:
    """Add what the footer says of one column of a row group to what is known of the column."""
    statistics = chunk.statistics
    if pa.types.is_null(kind):
        known["nulls"] += rows
    elif statistics is None or not statistics.has_null_count or known["nulls"] is None:
        known["nulls"] = None
    else:
        known["nulls"] += statistics.null_count
    if (bounds := _bounds(statistics, kind)) is not None:
        known["low"].append(bounds[0])
        known["high"].append(bounds[1])
    elif statistics is None or statistics.null_count != rows:
        known["bounds"] = False  # a group whose bounds are not known: neither are the column's


def _is_counted(kind: pa.DataType) -> bool:
    """Whether the bounds of a type are read as counts of its unit: as Python's moments they would lose digits or the unit."""
    return bool(
        pa.types.is_duration(kind) or ((pa.types.is_time(kind) or pa.types.is_timestamp(kind)) and kind.unit == "ns")
    )


def _bounds(statistics: Any, kind: pa.DataType) -> tuple[Any, Any] | None:
    """The smallest and largest value, None where the footer has none, or Python has no such value (the year 10,000)."""
    try:
        if statistics is None or not statistics.has_min_max:
            return None
        if _is_counted(kind):
            return statistics.min_raw, statistics.max_raw
        return statistics.min, statistics.max
    except (OverflowError, ValueError, UnicodeDecodeError):
        return None


def _bound(value: Any, kind: pa.DataType) -> Any:
    return counted(value, kind) if _is_counted(kind) and isinstance(value, int) else scalar(value)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
