"""Files that strangers could send: each is small, and not what it seems."""

import gzip
import io
import os
import pickle
import random
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

MB = 1 << 20


# --- spreadsheets --------------------------------------------------------------------------------------------------


@cache
def workbook() -> bytes:
    """A spreadsheet with one cell."""
    book = openpyxl.Workbook()
    book.active["A1"] = 1
    return _saved(book)


def far_cell() -> bytes:
    """One cell, in the last row and the last column there are."""
    book = openpyxl.Workbook()
    book.active["XFD1048576"] = 1
    return _saved(book)


def _saved(book: openpyxl.Workbook) -> bytes:
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def sheet(change: Callable[[bytes], bytes]) -> bytes:
    """The spreadsheet with another text for its sheet."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook())) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, change(data) if entry.filename.endswith("sheet1.xml") else data)
    return file.getvalue()


def far_cell_in_single_quotes() -> bytes:
    """The far cell, written as a quick look would not see it."""
    row = b"<row r='1048576'><c r='XFD1048576'><v>1</v></c></row></sheetData>"
    return sheet(lambda xml: xml.replace(b"</sheetData>", row))


def unfolding_sheet(size: int) -> bytes:
    """A sheet that is mostly blanks, and says how many."""
    return sheet(lambda xml: xml.replace(b"</sheetData>", b" " * size + b"</sheetData>"))


def undeclared_sheet(size: int) -> bytes:
    """A sheet that is mostly blanks, and says that it is small."""
    data = bytearray(unfolding_sheet(size))
    for magic, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        for match in re.finditer(magic, bytes(data)):
            field = match.start() + at
            if int.from_bytes(data[field : field + 4], "little") > size:
                data[field : field + 4] = struct.pack("<I", 500)
    return bytes(data)


def encrypted_sheet() -> bytes:
    """A spreadsheet whose entries say that they are encrypted."""
    data = bytearray(workbook())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for match in re.finditer(magic, bytes(data)):
            data[match.start() + at] |= 1
    return bytes(data)


def entities() -> bytes:
    """A billion laughs, in a sheet."""
    kinds = b"".join(b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 10))
    head = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "ha">' + kinds + b"]>"
    return sheet(lambda xml: head + xml[xml.index(b"<worksheet") :].replace(b"<v>1</v>", b"<v>&e9;</v>"))


# --- Parquet -------------------------------------------------------------------------------------------------------


def parquet(table: pa.Table, **options: object) -> bytes:
    """A table as Parquet."""
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


@cache
def good_parquet() -> bytes:
    """Three rows."""
    return parquet(pa.table({"a": [1, 2, 3], "s": ["a", "b", "c"]}))


def footer(data: bytes) -> tuple[int, int]:
    """Where the footer of a Parquet file is."""
    length = int.from_bytes(data[-8:-4], "little")
    return len(data) - 8 - length, len(data) - 8


def scrambled_footer(seed: int) -> bytes:
    """Eight bytes of the footer are others."""
    data, chance = bytearray(good_parquet()), random.Random(seed)
    for _ in range(8):
        data[chance.randrange(*footer(bytes(data)))] = chance.randrange(256)
    return bytes(data)


def bad_thrift() -> bytes:
    """A footer that is noise."""
    data = bytearray(good_parquet())
    start, stop = footer(bytes(data))
    data[start:stop] = os.urandom(stop - start)
    return bytes(data)


def long_footer() -> bytes:
    """A footer that says it has 2 GB."""
    return good_parquet()[:-8] + struct.pack("<I", 0x7FFFFFFF) + b"PAR1"


def many_equal_values(millions: int, *, statistics: bool) -> bytes:
    """Rows without end, all of them the same: run lengths in a few hundred bytes."""
    file = io.BytesIO()
    batch = pa.table({"a": pa.repeat(pa.scalar(7, pa.int64()), 10**6)})
    with pq.ParquetWriter(file, batch.schema, compression="snappy", write_statistics=statistics) as writer:
        group = pa.concat_tables([batch] * min(millions, 50))
        for _ in range(max(1, millions // 50)):
            writer.write_table(group, row_group_size=50 * 10**6)
    return file.getvalue()


def one_long_value(size: int) -> bytes:
    """A page with one value of zeros, without statistics."""
    return parquet(
        pa.table({"a": pa.array([bytes(size)], pa.large_binary())}),
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
    )


def many_columns(count: int) -> bytes:
    """A table of one row and very many columns."""
    return parquet(pa.table({f"c{n}": [n] for n in range(count)}))


def deep_columns(depth: int) -> bytes:
    """A column in a column in a column …"""
    kind: pa.DataType = pa.int8()
    for _ in range(depth):
        kind = pa.struct([("x", kind)])
    return parquet(pa.table({"a": pa.nulls(1, kind)}))


# --- others --------------------------------------------------------------------------------------------------------


def wide_csv(columns: int) -> bytes:
    """One row of very many columns."""
    return (",".join(f"c{n}" for n in range(columns)) + "\n" + ",".join("1" * columns) + "\n").encode()


def deep_json(levels: int) -> bytes:
    """A list in a list in a list …"""
    return b"[" * levels + b"]" * levels


def gzip_bomb(size: int) -> bytes:
    """Very much of nothing."""
    return gzip.compress(bytes(size), 9)


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/a-pickle-ran",)


def pickled() -> bytes:
    """A pickle that would run a command."""
    return pickle.dumps(_Runs())


def link_in_zip() -> bytes:
    """A zip with a symbolic link to /etc/passwd, and a way out of any folder."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("xl/workbook.xml")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../../../tmp/out-of-the-folder", "x")
    return file.getvalue()


def link_in_tar() -> bytes:
    """A tar with the same."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("../../out"))
    return file.getvalue()


def polyglot() -> bytes:
    """Parquet by its first bytes, a page by its middle, a zip by its end."""
    return b"PAR1" + b"<script>alert(1)</script>" + workbook()
