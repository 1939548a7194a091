"""Spreadsheets: every sheet as a table, with limits on the size of sheets."""

import re
import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataset_registry.errors import InputError, UnreadableFile
from dataset_registry.model.extras import require
from dataset_registry.model.reading import NONE, ReadOptions

MOST_CELLS = 64_000_000
MOST_BYTES = 2 << 30
"""Limits of a workbook: cells in the range of a sheet, and uncompressed bytes."""


def read(path: Path, options: ReadOptions = NONE) -> dict[str, tuple[pa.Table, list[str]]]:
    """Every sheet of a spreadsheet by name, or the one that the options name, each with notes on how it was read.

    Needs the extra `excel`. Raises `UnreadableFile`, `InputError` (no such sheet).
    """
    require("fastexcel", "excel", "A spreadsheet")
    import fastexcel

    try:
        has_booleans = _look_into(path)
        book = fastexcel.read_excel(str(path))
        names = book.sheet_names
        if options.sheet is not None and options.sheet not in names:
            raise InputError(
                f"The spreadsheet has no sheet {options.sheet!r}, but: {', '.join(names)}.", sheet=options.sheet
            )
        return {
            name: _sheet(book, name, options, has_booleans=has_booleans)
            for name in names
            if options.sheet in (None, name)
        }
    except (fastexcel.FastExcelError, zipfile.BadZipFile) as error:
        raise UnreadableFile(
            f"This is not a spreadsheet that can be read ({_first_line(error)}). Save it as .xlsx again, or commit "
            "it with format='binary'."
        ) from error


def _sheet(book: Any, sheet: str, options: ReadOptions, *, has_booleans: bool) -> tuple[pa.Table, list[str]]:
    """One sheet. All rows decide a column's type: by default late texts in a column of numbers silently become null."""
    header = options.header is not False
    rows: dict[str, Any] = {"header_row": 0 if header else None, "skip_rows": None, "schema_sample_rows": None}
    if options.skip_rows:
        rows |= {"header_row": options.skip_rows} if header else {"skip_rows": options.skip_rows}
    loaded = book.load_sheet(sheet, **rows)
    batch, errors = loaded.to_arrow_with_errors()
    if errors is not None:
        _refuse_errors(sheet, errors.errors, options)
    if options.skip_rows and not batch.num_columns:
        raise UnreadableFile(
            f"The sheet {sheet!r} has nothing behind its first {options.skip_rows:,} rows. Give a smaller skip_rows."
        )
    notes: list[str] = []
    names = [f"column_{i}" for i in range(1, batch.num_columns + 1)]
    if header and batch.num_columns:
        names = _names(book, sheet, options.skip_rows or 0, batch, notes)

    def again(positions: Sequence[int], dtype: str) -> dict[int, pa.Array]:
        """Some columns, all of them read as one type; a cell that has no value in it is null."""
        if not positions:
            return {}
        dtypes = dict.fromkeys(positions, dtype)
        found = book.load_sheet(sheet, **rows, use_columns=list(positions), dtypes=dtypes).to_arrow_with_errors()[0]
        return dict(zip(positions, found.columns, strict=True))

    columns = list(batch.columns)
    if has_booleans:
        for i, texts in again([i for i, c in enumerate(columns) if _is_number(c.type)], "string").items():
            if pc.any(pc.is_in(texts, pa.array(["true", "false"]))).as_py():
                columns[i] = texts  # the reader gives booleans among numbers as 1 and 0
    of_text = [i for i, c in enumerate(columns) if pa.types.is_string(c.type) and c.null_count < len(c)]
    for i, numbers in again(of_text, "float").items():  # it writes numbers among texts with nine digits
        pairs = zip(columns[i].to_pylist(), numbers.to_pylist(), strict=True)
        columns[i] = pa.array([_number_text(text, number) for text, number in pairs], pa.string())
    return pa.table(dict(zip(names, map(_times, columns), strict=True))), notes


def _refuse_errors(sheet: str, errors: Sequence[Any], options: ReadOptions) -> None:
    """Raise `UnreadableFile` for cells with errors: they have no value, and null is another thing."""
    for error in errors:
        found = re.search(r"Error\((\w+)\)", error.detail)
        text = _ERRORS.get(found[1], found[1]) if found else error.detail
        if text in (options.null_values or ()):
            continue
        row, column = error.position
        raise UnreadableFile(
            f"The cell in row {row + 1}, column {column + 1} of the sheet {sheet!r} has no value ({text}). Fix the file, or take "
            f"such cells for null with read={{'null_values': [{text!r}]}}, or commit it with format='binary'."
        )


_ERRORS = {
    "Div0": "#DIV/0!",
    "NA": "#N/A",
    "Name": "#NAME?",
    "Null": "#NULL!",
    "Num": "#NUM!",
    "Ref": "#REF!",
    "Value": "#VALUE!",
    "GettingData": "#GETTING_DATA",
}


def _names(book: Any, sheet: str, header_row: int, batch: pa.RecordBatch, notes: list[str]) -> list[str]:
    """The names of a sheet's columns, as they are in the file. Raises `UnreadableFile`."""
    first = book.load_sheet(
        sheet, header_row=None, skip_rows=header_row or None, n_rows=1, dtypes="string"
    ).to_arrow()  # without skip_rows it begins where the sheet has its first cell, as the table does
    given = [column[0].as_py() if len(column) else None for column in first.columns]
    given += [None] * (batch.num_columns - len(given))
    unnamed = [i for i, name in enumerate(given[: batch.num_columns]) if not name]
    filled = [i for i in unnamed if batch.column(i).null_count < batch.num_rows]
    if filled and batch.num_columns - len(unnamed) == 1 and given[0]:
        raise UnreadableFile(
            f"The first row of the sheet {sheet!r} has one text ({next(filter(None, given))[:60]!r}) and the table "
            f"{batch.num_columns} columns: is it a title? Skip what stands above the header with read={{'skip_rows': …}}, or "
            "commit the file with format='binary'."
        )
    names = [name or f"column_{i}" for i, name in enumerate(given[: batch.num_columns], 1)]
    if unnamed:
        notes.append(
            f"Columns without a name are called by their position: {', '.join(names[i] for i in unnamed[:10])}."
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        where = ", ".join(str(i) for i, name in enumerate(names, 1) if name == twice[0])
        raise UnreadableFile(
            f"Columns {where} of the sheet {sheet!r} have the same name, {twice[0]!r}. Rename them in the file, or commit it "
            "with format='binary'."
        )
    return names


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _number_text(text: str | None, number: float | None) -> str | None:
    if text is None or number is None:
        return text
    try:
        return text if float(text) == number else repr(number)
    except ValueError:  # a date or a boolean, which the reader can give as a number too
        return text


_FIRST_DAY = datetime(1900, 1, 1)


def _times(column: pa.Array) -> pa.Array:
    """A column of moments before the first day that a spreadsheet knows: times of day. With later ones among them, texts."""
    if not pa.types.is_timestamp(column.type) or column.null_count == len(column):
        return column
    first, last = (bound.as_py() for bound in pc.min_max(column).values())
    if first >= _FIRST_DAY:
        return column
    if last < _FIRST_DAY:
        return column.cast(pa.time32("ms"))
    mixed = [moment and str(moment if moment >= _FIRST_DAY else moment.time()) for moment in column.to_pylist()]
    return pa.array(mixed, pa.string())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


_UNCOMPUTED = re.compile(
    rb'<(?:\w+:)?c (?![^>]{0,200}t="str")[^>]{0,200}?r="([A-Z]{1,3}[0-9]{1,7})"[^>]{0,200}>'
    rb"<(?:\w+:)?f(?:\s[^>]{0,200})?(?:/>|>[^<]{0,9000}</(?:\w+:)?f>)(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?</(?:\w+:)?c>"
)
"""A cell with a formula and no value: that of a text formula may be empty."""
_BOOLEAN = re.compile(rb'<(?:\w+:)?c [^>]{0,200}?t="b"')
_OVERLAP = 16 << 10
"""What blocks of a sheet overlap by: more than the longest formula."""
_CELL = re.compile(rb'<(?:\w+:)?c [^>]{0,200}?r="([A-Z]{1,3})([0-9]{1,7})"')


def _look_into(path: Path) -> bool:
    """Whether a workbook has booleans. One that cannot be a table is refused: `UnreadableFile`.

    That is one whose cells lie so far apart that a table of them would not fit into memory (a file of 4 KB with one cell at
    XFD1048576 makes a reader ask for 549 GB, and the process ends), and one whose formulas were never computed, of which a
    reader makes nulls. Other formats than .xlsx are not looked into.
    """
    has_booleans = False
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
            raise UnreadableFile(
                f"The spreadsheet unpacks to more than {MOST_BYTES >> 30} GB. Commit it with format='binary' to store "
                "it unchanged."
            )
        for entry in archive.infolist():
            if re.fullmatch(r"xl/worksheets/[^/]+\.xml", entry.filename):
                rows, columns, booleans = _extent(archive, entry)
                has_booleans = has_booleans or booleans
                if rows * columns > MOST_CELLS:
                    raise UnreadableFile(
                        f"A sheet of the spreadsheet spans {rows:,} rows and {columns:,} columns, and at most {MOST_CELLS:,} "
                        "cells are read. Delete the stray cell that lies far out, or commit it with format='binary'."
                    )

    return has_booleans


def _extent(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[int, int, bool]:
    """The last row and the last column that a cell of a sheet has, and whether one has a boolean.

    Raises `UnreadableFile` for a formula without a value.
    """
    rows = columns = 0
    has_booleans = False
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
            has_booleans = has_booleans or _BOOLEAN.search(text) is not None
            if found := _UNCOMPUTED.search(text):
                raise UnreadableFile(
                    f"The cell {found[1].decode()} has a formula without a value: the program that wrote "
                    "the file did not compute it. Open it in a spreadsheet program and save it, or use format='binary'."
                )
            tail = text[-_OVERLAP:]
    return rows, columns, has_booleans


def read_sniffed(path: Path, sheet: str) -> pa.Table:
    """A sheet as it was read before its names and numbers were looked after: for what was captured then."""
    import fastexcel

    book = fastexcel.read_excel(str(path))
    return pa.Table.from_batches([book.load_sheet(sheet, schema_sample_rows=None).to_arrow()])
