"""CSV files: the dialect is detected once, and the types are proven over the whole file.

Dialect and types are the `source` of the captured table, which readers use. Rows are parsed by DuckDB, strictly.
The head of the file alone is parsed by Python's `csv` module, to recognise the dialect.
"""

import codecs
import csv
import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from dataset_registry.errors import UnreadableFile
from dataset_registry.model.reading import ReadOptions
from dataset_registry.model.schema import TableSchema
from dataset_registry.tabular.proof import LADDER
from dataset_registry.tabular.sandbox import literal, sandbox
from dataset_registry.tabular.texts import Texts, read_texts

MOST_COLUMNS = 4096
_DELIMITERS = ",;\t|"
_HEAD_BYTES = 1 << 20
_HEAD_ROWS = 1000
_BLOCK = 1 << 20
_LINE_BYTES = 2_000_000
"""DuckDB's own limit of a line; a longer one makes it look again with the size of the file for a limit."""
_LONGEST_LINE = 512 << 20


@dataclass(frozen=True, slots=True)
class Dialect:
    """The dialect of a CSV file: all that a reader needs in addition to the types."""

    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    skip_rows: int = 0
    comment: str = ""
    encoding: str = "utf-8"
    decimal: str = "."
    null_values: tuple[str, ...] = ()
    mixed_newlines: bool = False
    line_bytes: int = _LINE_BYTES

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"null_values": [*self.null_values]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Dialect":
        known = {field.name: value[field.name] for field in fields(cls) if field.name in value}
        return cls(**known | {"null_values": tuple(value.get("null_values", ()))})


def capture(path: Path, options: ReadOptions) -> TableSchema:
    """The columns, types and statistics of a CSV file. Raises `UnreadableFile`, `InputError` (an option that does not fit)."""
    dialect, names, notes = _recognise(path, options)
    if len(names) > MOST_COLUMNS:
        raise UnreadableFile(
            f"The file has {len(names):,} columns; the limit is {MOST_COLUMNS:,}. Is its delimiter "
            f"{dialect.delimiter!r}? If not, set it with read={{'delimiter': …}}, or commit the file with format='binary'."
        )
    while True:
        with prepared(path, dialect) as file, sandbox(file) as connection:
            rows = _source(file, dialect, len(names))
            try:
                texts = Texts(
                    connection,
                    rows,
                    names,
                    [LADDER] * len(names),
                    types=options.types,
                    date_format=options.date_format,
                    decimal=dialect.decimal,
                    empty_is_null=True,
                )
                return texts.capture(dialect.to_json(), notes)
            except duckdb.Error as error:
                dialect = _remedy(error, dialect, path)


def read(path: Path, table: TableSchema) -> pa.Table:
    """The rows of a captured file, with the types and names that were captured. Raises `UnreadableFile`."""
    source = table.source or {}
    dialect = Dialect.from_json(source)
    with prepared(path, dialect) as file, sandbox(file) as connection:
        rows = _source(file, dialect, len(table.columns))
        try:
            return read_texts(connection, rows, table, decimal=dialect.decimal, empty_is_null=True)
        except duckdb.Error as error:
            raise _unreadable(error, dialect) from error


def _source(path: Path, dialect: Dialect, count: int) -> str:
    """The rows of a prepared file as SQL: columns of text c0, c1, c2 …"""
    nulls = ", ".join(map(literal, dict.fromkeys(("", *dialect.null_values))))
    columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(count))
    # A buffer holds some lines at least; in files of usual lines DuckDB's own size of 16 lines serves.
    buffer = "" if dialect.line_bytes == _LINE_BYTES else f", buffer_size={2 * dialect.line_bytes}"
    return (
        f"read_csv({literal(str(path))}, auto_detect=false, delim={literal(dialect.delimiter)}, "
        f"quote={literal(dialect.quote)}, escape={literal(dialect.quote)}, comment='', header={dialect.header}, skip=0, "
        f"nullstr=[{nulls}], allow_quoted_nulls=false, max_line_size={dialect.line_bytes}{buffer}, columns={{{columns}}})"
    )


# --- what the file says of itself --------------------------------------------------------------------------------------


def _recognise(path: Path, options: ReadOptions) -> tuple[Dialect, list[str], list[str]]:
    """The dialect of a file, the names of its columns, and what a user should know of how they were found."""
    encoding = options.encoding or "utf-8"
    head, is_whole = _head(path, encoding)
    text, skip = _without_lines(head, options.skip_rows or 0)
    delimiter = options.delimiter
    if found := re.match(r"sep=(.)(\r\n|\r|\n|$)", text):  # what Excel writes, and reads
        if delimiter not in (None, found[1]):
            raise UnreadableFile(
                f"The first line of the file says {found[0].strip()!r}, and read={{'delimiter': {delimiter!r}}} another "
                "delimiter. Leave the option out, or skip the line with read={'skip_rows': 1}."
            )
        delimiter = found[1]
        skip, text = skip + 1, text[found.end() :]
    while blank := re.match(_BLANK, text):
        skip, text = skip + 1, text[blank.end() :]
    comment = options.comment or ""
    if comment:
        text = "".join(line for line in _LINES.split(text) if not line.startswith(comment))
    quote = '"' if options.quote is None else options.quote
    if delimiter is None:
        delimiter = _delimiter(text, quote, is_whole=is_whole)
    records = [record for record in _records(text, delimiter, quote, is_whole=is_whole) if record]
    if not records:
        raise UnreadableFile(
            "The csv file has no rows and columns. Export it again, or commit it with format='binary' to store it unchanged."
        )
    if options.skip_rows is None and not comment:
        _refuse_preamble(records, delimiter, skip, is_comment_meant=options.comment is not None)
    first, notes = records[0], []
    header = options.header
    if header is None:
        header = not all(_VALUE.fullmatch(cell) for cell in first if cell) or not any(first)
        if not header:
            notes.append(
                "The first row contains values, so it is read as data. If it is the header, pass read={'header': True}."
            )
    dialect = Dialect(
        delimiter, quote, header, skip, comment, encoding, options.decimal or ".", options.null_values or ()
    )
    return dialect, _names(first, header=header, notes=notes), notes


_BLANK = r"[ \t]*(\r\n|\r|\n)"
_LINES = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")
_LONGEST_NAME = 4096
_VALUE = re.compile(r"[-+]?[0-9][0-9.,:TZ+-]*([eE][+-]?[0-9]+)?|true|false")


def _names(first: Sequence[str], *, header: bool, notes: list[str]) -> list[str]:
    """The names of the columns, as they are in the file. Raises `UnreadableFile` for names that occur twice."""
    if header and (longest := max(map(len, first))) > _LONGEST_NAME:
        raise UnreadableFile(
            f"The first row of the csv file has a name of {longest:,} characters, and a column's has at most {_LONGEST_NAME:,}. "
            "If it is not a header, pass read={'header': False}, or commit the file with format='binary'."
        )
    names = [name if header and name else f"column_{position}" for position, name in enumerate(first, 1)]
    if header and (unnamed := [name for name, given in zip(names, first, strict=True) if not given]):
        notes.append(f"Columns without a name are called by their position: {', '.join(unnamed[:10])}.")
    counts = Counter(names)
    if twice := [name for name in counts if counts[name] > 1]:
        where = "; ".join(
            f"{name!r} in columns {', '.join(str(i) for i, n in enumerate(names, 1) if n == name)}"
            for name in twice[:5]
        )
        raise UnreadableFile(
            f"Columns of this csv file have the same name: {where}. Rename them in the file, or read its header as data with "
            "read={'header': False}, or commit it with format='binary'."
        )
    return names


def _head(path: Path, encoding: str) -> tuple[str, bool]:
    """The beginning of a file as text, at least two lines of it, and whether that is all."""
    size = path.stat().st_size
    length = _HEAD_BYTES
    while True:
        with path.open("rb") as stream:
            data = stream.read(length)
        is_whole = len(data) == size
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            text = decoder.decode(data, is_whole)
        except UnicodeError as error:
            raise _wrong_encoding(encoding, data, error) from error
        if "\0" in text[:1000] and data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise _wrong_encoding(encoding, data, None)
        if is_whole or length >= _LONGEST_LINE or len(re.findall(r"\r\n|\r|\n", text[:-1])) > 1:
            return text.removeprefix("\ufeff"), is_whole
        length *= 8


def _without_lines(text: str, count: int) -> tuple[str, int]:
    """The text behind its first lines."""
    for done in range(count):
        found = re.search(r"\r\n|\r|\n", text)
        if found is None:
            raise UnreadableFile(
                f"The file has {done + 1} lines in its first part, and skip_rows={count} leaves nothing of it. Give a smaller "
                "number."
            )
        text = text[found.end() :]
    return text, count


def _records(text: str, delimiter: str, quote: str, *, is_whole: bool) -> list[list[str]]:
    """The first rows of a text; none behind one that is not well-formed, which the reading of the whole file reports."""
    options: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    rows: list[list[str]] = []
    limit = csv.field_size_limit(len(text) + 1)
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, **options):
            rows.append(row)
            if len(rows) > _HEAD_ROWS:
                break
    except csv.Error:
        is_whole = True  # what was read is read
    finally:
        csv.field_size_limit(limit)
    return rows if is_whole or len(rows) < 2 else rows[:-1]


def _delimiter(text: str, quote: str, *, is_whole: bool) -> str:
    """What separates the fields of most rows; a character that does not occur where there is one column."""
    best = (0.0, 0, "")
    for delimiter in _DELIMITERS:
        records = [row for row in _records(text, delimiter, quote, is_whole=is_whole) if row]
        if not records:
            continue
        counts = Counter(map(len, records))
        usual, often = max(counts.items(), key=lambda found: (found[1], found[0]))
        share = often / len(records)
        is_likely = share > 0.5 or (share == 0.5 and len(records[0]) == usual)
        if usual > 1 and is_likely and (share, usual) > best[:2]:
            best = (share, usual, delimiter)
    if best[2]:
        return best[2]
    first = re.split(r"[\r\n]", text, maxsplit=1)[0]
    in_header = max(_DELIMITERS, key=first.count)
    if in_header in first:  # rows of different lengths: reading them with it says which
        return in_header
    return next((delimiter for delimiter in (*_DELIMITERS, "\x1f") if delimiter not in text), "\x1f")


def _refuse_preamble(records: Sequence[Sequence[str]], delimiter: str, skip: int, *, is_comment_meant: bool) -> None:
    """Raise `UnreadableFile` where what stands on top is no header: a title, notes, comments."""
    counts = [len(record) for record in records]
    usual = Counter(counts).most_common(1)[0][0]
    before = next(i for i, count in enumerate(counts) if count == usual)
    if usual > 1 and before and all(count == usual for count in counts[before:]):
        what = "line has" if before == 1 else f"{before} lines have"
        comment = ", or read={'comment': '#'} if they are comments" if records[0][0].startswith("#") else ""
        raise UnreadableFile(
            f"The first {what} {counts[0]} of {usual} columns ({delimiter.join(records[0])[:60]!r}): is this a preamble? Skip it "
            f"with read={{'skip_rows': {skip + before}}}{comment}, name another delimiter with read={{'delimiter': …}}, or "
            "commit the file with format='binary' to store it unchanged."
        )
    if re.match(r"#\s", records[0][0]) and not is_comment_meant:
        raise UnreadableFile(
            f"The first line begins with '#' ({delimiter.join(records[0])[:60]!r}): is it a comment, or the header? Skip "
            "comments with read={'comment': '#'}, or keep the line as the header with read={'comment': ''}."
        )


# --- the file as DuckDB can read it ------------------------------------------------------------------------------------


def _is_prepared(dialect: Dialect) -> bool:
    is_utf8 = codecs.lookup(dialect.encoding).name in ("utf-8", "ascii")
    return dialect.mixed_newlines or bool(dialect.comment) or bool(dialect.skip_rows) or not is_utf8


@contextmanager
def prepared(path: Path, dialect: Dialect) -> Iterator[Path]:
    """The file as UTF-8, without comments and lines to skip, with newlines of one kind; itself where it is that.

    Raises `UnreadableFile`.
    """
    if not _is_prepared(dialect):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="dataset-registry-") as folder:
        target = Path(folder) / "prepared"
        with path.open("rb") as source, target.open("wb") as output:
            try:
                for block in _lines_of(_decoded(source, dialect), dialect):
                    output.write(block.encode())
            except UnicodeError as error:
                raise _wrong_encoding(dialect.encoding, b"", error) from error
        yield target


def _decoded(source: BinaryIO, dialect: Dialect) -> Iterator[str]:
    """The text of a file in blocks, without a byte order mark."""
    decoder = codecs.getincrementaldecoder(dialect.encoding)()
    is_first = True
    while True:
        data = source.read(_BLOCK)
        text = decoder.decode(data, not data)
        if is_first and text:
            text, is_first = text.removeprefix("\ufeff"), False
        yield text
        if not data:
            return


def _lines_of(blocks: Iterator[str], dialect: Dialect) -> Iterator[str]:
    """The lines of a text in blocks: the first ones left out, comments too, ends of lines made `\\n`; but not within quotes."""
    if not dialect.mixed_newlines and not dialect.comment and not dialect.skip_rows:
        yield from blocks
        return
    left = dialect.skip_rows
    is_head, within = True, False
    rest = ""
    for block in blocks:
        if not left and not dialect.mixed_newlines and not dialect.comment:
            yield rest + block
            rest = ""
            continue
        is_last = not block
        lines = _LINES.split(rest + block)
        rest = "" if is_last else lines.pop()
        if not is_last and lines and lines[-1].endswith("\r"):
            rest = lines.pop() + rest  # its \n may be in the next block
        kept = []
        for line in lines:
            if left and line:
                left -= 1
                continue
            if not within and dialect.comment and line.startswith(dialect.comment):
                continue
            if is_head and re.fullmatch(_BLANK, line):
                continue
            is_head = False
            within = _ends_within_quotes(line, dialect, within=within)
            kept.append(line if within else re.sub(r"\r\n$|\r$", "\n", line))
        yield "".join(kept)


def _ends_within_quotes(line: str, dialect: Dialect, *, within: bool) -> bool:
    """Whether the field at the end of a line continues in the next one. A quote opens a field at its beginning only."""
    quote, position = dialect.quote, 0
    if not quote or quote not in line:
        return within
    while True:
        if within or line.startswith(quote, position):
            at = line.find(quote, position if within else position + 1)
            while at >= 0 and line.startswith(quote, at + 1):  # a doubled quote is a character
                at = line.find(quote, at + 2)
            if at < 0:
                return True
            within, position = False, at + 1
        at = line.find(dialect.delimiter, position)
        if at < 0:
            return False
        position = at + 1


def _remedy(error: duckdb.Error, dialect: Dialect, path: Path) -> Dialect:
    """How to read a file that could not be read, where that may help. Raises `UnreadableFile` with the reason otherwise."""
    text = str(error)
    if "aximum line size" in text and dialect.line_bytes == _LINE_BYTES:
        return replace(dialect, line_bytes=min(path.stat().st_size * 2 + 1024, _LONGEST_LINE))
    if "invalid state" in text and not dialect.mixed_newlines:
        return replace(dialect, mixed_newlines=True)
    raise _unreadable(error, dialect) from error


def _wrong_encoding(encoding: str, data: bytes, error: UnicodeError | None) -> UnreadableFile:
    named = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}.get(data[:2])
    reason = f" ({error.reason} at byte {error.start:,})" if isinstance(error, UnicodeDecodeError) else ""
    hint = (
        f"It begins with the byte order mark of {named}: say read={{'encoding': {named!r}}}."
        if named
        else "Say what it is encoded in, for example read={'encoding': 'latin-1'} or read={'encoding': 'cp1252'}."
    )
    return UnreadableFile(f"The csv file is not encoded in {encoding}{reason}. {hint}")


def _unreadable(error: duckdb.Error, dialect: Dialect) -> UnreadableFile:
    text = str(error)
    if isinstance(error, duckdb.OutOfMemoryException):
        return UnreadableFile(
            "The csv file takes more memory to capture than the limit: check its delimiter and line ends. "
            "Export it in a simpler format (Parquet, say), or commit it with format='binary' to store it unchanged."
        )
    if "not utf-8" in text or "unicode" in text.lower():
        return _wrong_encoding(dialect.encoding, b"", None)
    reason = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    reason = re.sub(r"( in| when sniffing)? file \".*?\"", "", reason.removeprefix("Invalid Input Error: ")).rstrip(".")
    wrong = next((f", {line.strip().lower()}" for line in text.splitlines() if "Number of Columns" in line), "")
    if "unterminated quote" in text:
        wrong = ", a quote is not closed; if quotes are plain characters here, pass read={'quote': ''}"
    if "aximum line size" in text:
        reason = f"a line has more than {dialect.line_bytes:,} bytes"
    return UnreadableFile(
        f"The csv file cannot be read as a table ({reason}{wrong}). Fix it, or commit it with format='binary' to store "
        "it unchanged."
    )
