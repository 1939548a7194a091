"""Digests of columns: whether the content of a column changed, whatever became of the others (format `column/1`).

A column is a few streams of bytes: which of its values are null, the bits of the values, for texts and lists their lengths. Each
stream has a CRC-64/NVME and a length, written `<16 hexadecimal digits>:<bytes>`, separated by spaces. The checksum of two pieces
together follows from those of the pieces (`combine_crc64nvme`), so that a table has the digests that its parts add up to, however
it is divided, and an edit of one part reads no other.

It is a checksum: two contents differ by accident in one of 2⁶⁴ cases without being noticed, and someone who wants to can make
them equal. It decides what is computed again, never what is stored or who may read.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from awscrt.checksums import combine_crc64nvme, crc64nvme

from dataset_registry.errors import UnreadableFile
from dataset_registry.tabular import convert
from dataset_registry.tabular.arrow import plain_schema, plain_table

_ZEROS = np.zeros(1 << 20, np.uint8)
"""What no null among this many values looks like."""


def digests_of(table: pa.Table) -> dict[str, str]:
    """The digest of each column of a table with plain types."""
    return {name: digest_of(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def digest_of(column: pa.ChunkedArray) -> str:
    """The digest of a column with a plain type."""
    chunks = column.chunks or [pa.array([], column.type)]
    return reduce(_joined, [_text(_streams(chunk)) for chunk in chunks])


def combined(digests: Sequence[str | None]) -> str | None:
    """The digest of pieces of a column together, in order; None if that of a piece is not known, or there are none."""
    known = [digest for digest in digests if digest is not None]
    return reduce(_joined, known) if known and len(known) == len(digests) else None


def digests_of_stream(source: ds.Dataset, columns: Sequence[str]) -> dict[str, str]:
    """The digests of some columns of a stored table, which is read batch by batch. Raises `UnreadableFile`."""
    schema = pa.schema([source.schema.field(name) for name in columns])
    found = digests_of(plain_schema(schema).empty_table())
    try:
        for batch in source.to_batches(columns=list(columns)):
            more = digests_of(plain_table(pa.Table.from_batches([batch])))
            found = {name: _joined(found[name], more[name]) for name in columns}
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(f"A stored table cannot be read: {str(error).partition(chr(10))[0]}.") from error
    return found


def content_digest(tables: Sequence[tuple[str, str, str]]) -> str:
    """A digest of fixed length of a column of tables: of each its label, the type of the column, and its digest."""
    return hashlib.sha256(json.dumps(["column/1", *tables]).encode()).hexdigest()


def _text(streams: Iterable[tuple[int, int]]) -> str:
    return " ".join(f"{checksum:016x}:{length}" for checksum, length in streams)


def _joined(first: str, second: str) -> str:
    pairs = zip(_parsed(first), _parsed(second), strict=True)
    return _text((combine_crc64nvme(one, two, length), before + length) for (one, before), (two, length) in pairs)


def _parsed(digest: str) -> Iterator[tuple[int, int]]:
    for stream in digest.split(" "):
        checksum, _, length = stream.partition(":")
        yield int(checksum, 16), int(length)


def _streams(values: pa.Array) -> Iterator[tuple[int, int]]:
    """The checksum and the length of each stream of an array: as many for every array of a type."""
    kind = values.type
    yield _checksum(_nulls(values))
    if pa.types.is_null(kind):
        return
    if pa.types.is_struct(kind):
        for field in values.flatten():  # which makes the fields of a null struct null
            yield from _streams(field)
    elif pa.types.is_map(kind) or convert.is_list(kind):
        there = values.drop_null() if values.null_count else values
        if not pa.types.is_fixed_size_list(kind):
            yield _checksum(np.diff(there.offsets.to_numpy(zero_copy_only=False)).astype("<i8"))
        for inner in _elements(there):
            yield from _streams(inner)
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        yield from _of_texts(values.drop_null() if values.null_count else values)
    else:
        yield _checksum(_bits(values.drop_null() if values.null_count else values))


def _nulls(values: pa.Array) -> np.ndarray:
    """A byte for each value: 1 for null."""
    if not values.null_count:
        return _ZEROS[: len(values)] if len(values) <= len(_ZEROS) else np.zeros(len(values), np.uint8)
    found: np.ndarray = pc.is_null(values).cast(pa.uint8()).to_numpy(zero_copy_only=False)
    return found


def _elements(lists: pa.Array) -> Sequence[pa.Array]:
    """The elements of lists without nulls; of maps the keys and the items."""
    kind = lists.type
    if pa.types.is_fixed_size_list(kind):
        return [lists.values.slice(lists.offset * kind.list_size, len(lists) * kind.list_size)]
    first, last = lists.offsets[0].as_py(), lists.offsets[-1].as_py()
    found = [lists.keys, lists.items] if pa.types.is_map(kind) else [lists.values]
    return [inner.slice(first, last - first) for inner in found]


def _of_texts(values: pa.Array) -> Iterator[tuple[int, int]]:
    """The lengths and the bytes of texts without nulls."""
    _, offsets, data = values.buffers()
    if offsets is None or not len(values):
        yield from ((0, 0), (0, 0))
        return
    ends = np.frombuffer(offsets, "<i4")[values.offset : values.offset + len(values) + 1]
    yield _checksum(np.diff(ends))
    yield _checksum(np.frombuffer(data, np.uint8)[ends[0] : ends[-1]] if data is not None else _ZEROS[:0])


def _bits(values: pa.Array) -> np.ndarray:
    """The bits of values of a fixed width without nulls; a byte for each boolean."""
    kind = values.type
    if pa.types.is_boolean(kind):
        found: np.ndarray = values.cast(pa.uint8()).to_numpy(zero_copy_only=False)
        return found
    width = kind.bit_width // 8
    data = values.buffers()[1]
    if data is None:
        return _ZEROS[:0]
    return np.frombuffer(data, np.uint8)[values.offset * width : (values.offset + len(values)) * width]


def _checksum(data: np.ndarray) -> tuple[int, int]:
    return int(crc64nvme(np.ascontiguousarray(data).view(np.uint8).data)) if data.nbytes else 0, data.nbytes
