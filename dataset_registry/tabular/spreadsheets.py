"""Spreadsheets: every sheet as a table, and no file that would take all memory with one cell."""

import re
import zipfile
from pathlib import Path

import pyarrow as pa

from dataset_registry.errors import InputError, UnreadableFile

MOST_CELLS = 64_000_000
MOST_BYTES = 2 << 30
"""What a workbook may declare: cells between its first and last one, and bytes when unpacked."""


def read(path: Path) -> dict[str, pa.Table]:
    """Every sheet of a spreadsheet by name. Needs the extra `excel`. Raises `UnreadableFile`."""
    try:
        import fastexcel
    except ImportError as error:
        raise InputError(
            "Reading spreadsheets needs the extra 'excel': pip install 'dataset-registry[excel]'."
        ) from error
    try:
        _refuse_bombs(path)
        book = fastexcel.read_excel(str(path))
        # All rows decide a column's type: by default late texts in a column of numbers silently become null.
        return {
            name: pa.Table.from_batches([book.load_sheet(name, schema_sample_rows=None).to_arrow()])
            for name in book.sheet_names
        }
    except (fastexcel.FastExcelError, zipfile.BadZipFile) as error:
        raise UnreadableFile(
            f"This is not a spreadsheet that can be read ({_first_line(error)}). Save it as .xlsx again, or commit "
            "it with format='binary'."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


_CELL = re.compile(rb'<(?:\w+:)?c [^>]*?r="([A-Z]{1,3})([0-9]{1,7})"')


def _refuse_bombs(path: Path) -> None:
    """Refuse a workbook whose cells lie so far apart that a table of them would not fit into memory.

    A file of 4 KB with one cell at XFD1048576 makes a reader ask for 549 GB, and the process ends. Other formats than
    .xlsx are not looked into. Raises `UnreadableFile`.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
            raise UnreadableFile(
                f"The spreadsheet unpacks to more than {MOST_BYTES >> 30} GB. Commit it with format='binary' to keep it as it is."
            )
        for entry in archive.infolist():
            if re.fullmatch(r"xl/worksheets/[^/]+\.xml", entry.filename):
                rows, columns = _extent(archive, entry)
                if rows * columns > MOST_CELLS:
                    raise UnreadableFile(
                        f"A sheet of the spreadsheet spans {rows:,} rows and {columns:,} columns, and at most {MOST_CELLS:,} "
                        "cells are read. Delete the stray cell that lies far out, or commit it with format='binary'."
                    )


def _extent(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """The last row and the last column that a cell of a sheet has."""
    rows = columns = 0
    tail = b""
    with archive.open(entry) as stream:
        while block := stream.read(1 << 20):
            text = tail + block
            for column, row in _CELL.findall(text):
                rows = max(rows, int(row))
                number = 0
                for letter in column:
                    number = number * 26 + letter - 64
                columns = max(columns, number)
            tail = text[-200:]
    return rows, columns
