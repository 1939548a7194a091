"""JSON files: arrays or lines of objects. The structure is merged from all objects, and numbers keep all of their
digits.

DuckDB parses the objects. It reads numbers with a fraction as doubles, so numbers with more digits than a double keeps are
looked for in the text of the file; where there are some, the objects are rewritten with these numbers as texts before they
are read. What was found is the `source` of the captured table; reading follows it.
"""

import codecs
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dataset_registry.errors import UnreadableFile
from dataset_registry.model.reading import ReadOptions
from dataset_registry.model.schema import CAPTURE_RULE, TableSchema
from dataset_registry.tabular import delimited, proof
from dataset_registry.tabular.proof import Kind
from dataset_registry.tabular.sandbox import identifier, literal, sandbox
from dataset_registry.tabular.texts import Texts, read_texts

_OBJECT_BYTES = 16 << 20
"""DuckDB's own limit of an object; larger ones make it look again with the size of the file for a limit."""
_LARGEST_OBJECT = 1 << 30
_ORDERED = 1000
"""Objects whose keys give the order of the columns; keys that come later stand behind, by name."""
_ROWS = 1000
_LONG_NUMBER = r"(?:^|[:,\[\s])-?[0-9](?:[0-9.]{15}|[0-9.]*[eE][+-]?[0-9])"
"""What a number looks like that may have more digits than a double keeps, or not fit 64 bits."""
_MOMENTS = (proof.DATE, proof.TIMESTAMP, proof.TIMESTAMPTZ, proof.TIMESTAMP_NS, proof.TIME)
"""What strings may be: a string of digits is a string."""
_VALUES = "json"
"""The column of a file whose values are not objects."""
_NUMBERS = (proof.BIGINT, proof.UBIGINT, proof.INTEGERS, proof.DOUBLE)

Structure = Any
"""What a value looks like: the name of a DuckDB type; a dict of structures by key; a list of one structure."""
Place = tuple[str, ...]
"""Keys down to a value; `[]` stands for the elements of a list."""


def capture(path: Path, options: ReadOptions) -> TableSchema:
    """The columns, types and statistics of a JSON file. Raises `UnreadableFile`, `InputError` (an option that does not fit)."""
    size = _OBJECT_BYTES
    while True:
        try:
            return _capture(path, options, size)
        except (RecursionError, pa.ArrowInvalid) as error:
            raise UnreadableFile(
                "The json file nests values to a depth that cannot be read. Commit it with format='binary' to store it unchanged."
            ) from error
        except duckdb.Error as error:
            if "maximum_object_size" not in str(error) or size > _OBJECT_BYTES:
                raise _unreadable(error) from error
            size = min(2 * path.stat().st_size + 1024, _LARGEST_OBJECT)


def read(path: Path, table: TableSchema) -> pa.Table:
    """The rows of a captured file, with the types and names that were captured. Raises `UnreadableFile`."""
    source = table.source or {}
    names = [str(key) for key in source["keys"]]
    if not names:
        return pa.table({})
    places = [tuple(place) for place in source.get("texts", ())]
    with (
        _utf8(path, source["encoding"]) as plain,
        _rewritten(plain, names, places, source) as file,
        sandbox(file) as here,
    ):
        keys = [f"c{i}" for i in range(len(names))] if source["rewritten"] else names
        try:
            return read_texts(here, _typed(file, keys, source["reads"], source["object_bytes"]), table)
        except duckdb.Error as error:
            raise _unreadable(error) from error


def _capture(path: Path, options: ReadOptions, size: int) -> TableSchema:
    encoding = options.encoding or "utf-8"
    with _utf8(path, encoding) as plain:
        with sandbox(plain) as connection:
            structure, has_long = _structure(connection, _objects(plain, size))
            is_wrapped = not isinstance(structure, dict)
            if is_wrapped:  # values that are not objects are the column `json`
                structure = {_VALUES: structure}
            asked = [
                (key,)
                for key, type in (options.types or {}).items()
                if _is_text(type) and structure.get(key) == "DOUBLE"
            ]
            long = _long_numbers(connection, _objects(plain, size), structure, is_wrapped) if has_long else ()
            places = list(dict.fromkeys((*asked, *long)))
            if not structure and len(connection.sql(f"FROM {_objects(plain, size)} LIMIT 2").fetchall()) > 1:
                raise UnreadableFile(
                    "The objects of the json file have no keys, so there are no columns. Export it again, or commit it with "
                    "format='binary' to store it unchanged."
                )
        names = list(structure)
        notes = [] if "" not in names else [f"A key without a name is the column column_{names.index('') + 1}."]
        columns = [name or f"column_{i}" for i, name in enumerate(names, 1)]
        if len(set(columns)) < len(columns):
            raise UnreadableFile(
                f"The json file has a key without a name, which is the column column_{names.index('') + 1}, and a key of that "
                "name. Rename one, or commit the file with format='binary' to store it unchanged."
            )
        folded = {name.casefold() for name in names}
        source: dict[str, Any] = {
            "encoding": encoding,
            "wrapped": is_wrapped,
            "object_bytes": size,
            "keys": names,
            "texts": [list(place) for place in places],
            "rewritten": is_wrapped or bool(places) or len(folded) < len(names) or "" in folded,
        }
        for place in places:
            structure = _with_text(structure, place)
        source["reads"] = [_type(inner) for inner in structure.values()]
        if not names:
            return TableSchema(None, (), 0, {}, source={"rule": CAPTURE_RULE, **source, "kinds": []})
        ladders: list[Sequence[Kind] | None] = [
            _NUMBERS if (name,) in places else _MOMENTS if inner == "VARCHAR" else None
            for name, inner in structure.items()
        ]
        declared = options.types or {}
        for i, name in enumerate(names):  # a declared type is read from the text
            if name in declared and ladders[i] is None and not isinstance(structure[name], dict | list):
                source["reads"][i], ladders[i] = "VARCHAR", ()
        with _rewritten(plain, names, places, source) as file, sandbox(file) as connection:
            keys = [f"c{i}" for i in range(len(names))] if source["rewritten"] else names
            rows = _typed(file, keys, source["reads"], size)
            texts = Texts(connection, rows, columns, ladders, types=options.types, date_format=options.date_format)
            return texts.capture(source, notes)


def _is_text(type: str) -> bool:
    return type.strip().lower() in ("string", "str", "text", "utf8")


def _objects(path: Path, size: int) -> str:
    """The objects of a file as SQL, each with its text as `json`."""
    return f"read_json_objects({literal(str(path))}, format='auto', maximum_object_size={size})"


def _typed(path: Path, keys: Sequence[str], reads: Sequence[str], size: int) -> str:
    """The objects of a file as SQL with the columns c0, c1, c2 …, of these types."""
    columns = ", ".join(f"{literal(key)}: {literal(type)}" for key, type in zip(keys, reads, strict=True))
    named = ", ".join(f"{identifier(key)} AS c{i}" for i, key in enumerate(keys))
    return (
        f"(SELECT {named} FROM read_json({literal(str(path))}, format='auto', records=true, maximum_object_size={size}, "
        f"columns={{{columns}}}))"
    )


# --- structure ---------------------------------------------------------------------------------------------------------


def _structure(connection: duckdb.DuckDBPyConnection, objects: str) -> tuple[Structure, bool]:
    """What all objects look like together, and whether one may have a long number.

    Rows that look like the first ones down to their characters are of the same structure: only others are looked into, which
    costs DuckDB several times what reading them does.
    """
    first = connection.sql(f"SELECT json_structure(json) FROM {objects} LIMIT {_ORDERED}").fetchall()
    found: Structure = None
    for (text,) in dict.fromkeys(first):
        found = _merged(found, _of_row(text))
    pattern = _row_pattern(found) if len(first) == _ORDERED else None
    others = f" WHERE NOT regexp_full_match(json::VARCHAR, {literal(pattern)})" if pattern else ""
    every = (
        f"SELECT json_structure(json) s, bool_or(regexp_matches(json::VARCHAR, '{_LONG_NUMBER}')) FROM {objects}{others} "
        "GROUP BY s"
    )
    has_long = False
    for text, is_long in sorted(connection.sql(every).fetchall()):
        found = _merged(found, _of_row(text))
        has_long = has_long or is_long
    return ({} if found is None else found), has_long


_SHORT_VALUES = {
    "VARCHAR": r'"(?:[^"\\]|\\.)*"',
    "BOOLEAN": "true|false",
    "DOUBLE": "-?[0-9.]{1,15}",
    "NULL": "null",
    **dict.fromkeys(("UBIGINT", "BIGINT", "HUGEINT"), "-?[0-9]{1,15}"),
}
"""What values of a type look like whose numbers are exact: of 15 digits at most, without an exponent."""


def _row_pattern(structure: Structure) -> str | None:
    """The regular expression of rows that have all keys of a structure, in their order; None for nested ones."""
    if not isinstance(structure, dict) or not structure:
        return None
    fields = []
    for key, type in structure.items():
        value = _SHORT_VALUES.get(type) if isinstance(type, str) else None
        if value is None or "\\" in key or "\0" in key:
            return None
        fields.append(rf"\Q{json.dumps(key, ensure_ascii=False)}\E: ?(?:{value}|null)")
    return r"\{" + ", ?".join(fields) + r"\}"


_DEEPEST = 32
"""Levels of nested values that have a type; what lies deeper is JSON text."""


def _of_row(text: str) -> Structure:
    """The structure of one row. An object without keys DuckDB calls JSON, as it has no struct of no fields."""
    found = json.loads(text)
    return {} if found == "JSON" else _shallow(found, _DEEPEST)


def _shallow(structure: Structure, levels: int) -> Structure:
    if isinstance(structure, str):
        return structure
    if not levels:
        return "JSON"
    if isinstance(structure, list):
        return [_shallow(inner, levels - 1) for inner in structure]
    return {key: _shallow(inner, levels - 1) for key, inner in structure.items()}


_INTEGERS = ("UBIGINT", "BIGINT", "HUGEINT")


def _merged(left: Structure, right: Structure) -> Structure:
    """The structure that has both: a key is in some objects, a null is of any type, what does not agree is JSON text."""
    if left is None or left == "NULL":
        return right
    if right in ("NULL", left):  # the same with the keys in another order: that of the first holds
        return left
    if isinstance(left, dict) and isinstance(right, dict):
        return {key: _merged(left.get(key), right.get(key, left.get(key))) for key in {**left, **right}}
    if isinstance(left, list) and isinstance(right, list):
        inner = [*left, *right]
        return [_merged(inner[0], inner[1])] if len(inner) == 2 else inner
    if left in _INTEGERS and right in _INTEGERS:
        return "BIGINT"
    if {left, right} <= {*_INTEGERS, "DOUBLE"} if isinstance(left, str) and isinstance(right, str) else False:
        return "DOUBLE"
    return "JSON"


def _type(structure: Structure) -> str:
    """The DuckDB type that values of a structure are read as."""
    if isinstance(structure, list):
        return f"{_type(structure[0] if structure else 'NULL')}[]"
    if isinstance(structure, dict):
        folded = {key.casefold() for key in structure}
        if not structure or len(folded) < len(structure) or "" in folded:
            return "JSON"  # a struct of DuckDB has no such fields: the text is kept
        return f"STRUCT({', '.join(f'{identifier(key)} {_type(inner)}' for key, inner in structure.items())})"
    if structure in _INTEGERS:
        return "BIGINT"
    return "VARCHAR" if structure == "NULL" else str(structure)


def _with_text(structure: Structure, place: Place) -> Structure:
    """The structure with a text at a place."""
    if not place:
        return "VARCHAR"
    if isinstance(structure, list):
        return [_with_text(structure[0], place[1:])]
    return {key: _with_text(inner, place[1:]) if key == place[0] else inner for key, inner in structure.items()}


# --- numbers with many digits ------------------------------------------------------------------------------------------


class _Number(str):
    """A number as it stands in the file."""


def _loads(text: str) -> Any:
    return json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=_Number)


def _long_numbers(
    connection: duckdb.DuckDBPyConnection, objects: str, structure: Structure, is_wrapped: bool
) -> list[Place]:
    """The places of numbers that DuckDB's types would change, in order."""
    rows = f"SELECT json::VARCHAR FROM {objects} WHERE regexp_matches(json::VARCHAR, '{_LONG_NUMBER}')"
    found: dict[Place, None] = {}
    for text in _texts(connection, rows):
        _find_long({_VALUES: _loads(text)} if is_wrapped else _loads(text) or {}, structure, (), found)
    return list(found)


def _find_long(value: Any, structure: Structure, place: Place, found: dict[Place, None]) -> None:
    if place in found:
        return
    if isinstance(structure, str) or _type(structure) == "JSON":
        if _changes(value, structure):
            found[place] = None
    elif isinstance(value, dict):
        for key, inner in value.items():
            _find_long(inner, structure[key], (*place, key), found)
    elif isinstance(value, list):
        for inner in value:
            _find_long(inner, structure[0], (*place, "[]"), found)


def _changes(value: Any, type: Structure) -> bool:
    """Whether a value is not what it was when it is read with this type."""
    if isinstance(value, dict):
        return any(_changes(inner, "DOUBLE") for inner in value.values())
    if isinstance(value, list):
        return any(_changes(inner, "DOUBLE") for inner in value)
    if not isinstance(value, _Number) or value.lstrip("-") in ("NaN", "Infinity"):
        return False
    if type in _INTEGERS:
        return not -(1 << 63) <= int(value) < 1 << 63
    return _significant(value) != _significant(repr(float(value)))


def _significant(number: str) -> str:
    """The digits of a number that matter."""
    return re.split("[eE]", number)[0].replace(".", "").lstrip("-+0").rstrip("0")


def _texts(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[str]:
    """The one column of a query, row by row."""
    cursor = connection.execute(query)
    while batch := cursor.fetchmany(_ROWS):
        yield from (text for (text,) in batch)


@contextmanager
def _rewritten(path: Path, names: Sequence[str], places: Sequence[Place], source: Mapping[str, Any]) -> Iterator[Path]:
    """The file with texts at these places and the keys c0, c1, c2 …; itself where nothing is to be rewritten."""
    if not source["rewritten"]:
        yield path
        return
    keys = {name: f"c{i}" for i, name in enumerate(names)}
    objects = _objects(path, source["object_bytes"])
    with tempfile.TemporaryDirectory(prefix="dataset-registry-") as folder:
        target = Path(folder) / "rewritten"
        with sandbox(path) as connection, target.open("w", encoding="utf-8") as output:
            for text in _texts(connection, f"SELECT json::VARCHAR FROM {objects}"):
                value = {_VALUES: _loads(text)} if source["wrapped"] else _loads(text) or {}
                for place in places:
                    value = _put_text(value, place)
                output.write(_dumps({keys[key]: inner for key, inner in value.items()}) + "\n")
        yield target


def _put_text(value: Any, place: Place) -> Any:
    """The value with its JSON text, or the text of its number, at a place."""
    if not place:
        return None if value is None else str(value) if isinstance(value, _Number) else _dumps(value)
    if isinstance(value, list):
        return [_put_text(inner, place[1:]) for inner in value]
    if isinstance(value, dict) and place[0] in value:
        return {**value, place[0]: _put_text(value[place[0]], place[1:])}
    return value


def _dumps(value: Any) -> str:
    """A value as JSON, its numbers as they stood in the file."""
    if isinstance(value, _Number):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_dumps(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dumps, value)) + "]"
    return json.dumps(value)


# --- the file as DuckDB can read it ------------------------------------------------------------------------------------


@contextmanager
def _utf8(path: Path, encoding: str) -> Iterator[Path]:
    with path.open("rb") as stream:
        if encoding == "utf-8" and stream.read(3) == codecs.BOM_UTF8:
            encoding = "utf-8-sig"
    with delimited.prepared(path, delimited.Dialect(encoding=encoding)) as plain:
        yield plain


def _unreadable(error: duckdb.Error) -> UnreadableFile:
    text = str(error)
    if isinstance(error, duckdb.OutOfMemoryException):
        return UnreadableFile(
            "The json file takes more memory to capture than the limit: check its objects. Export it in a simpler "
            "format (Parquet, say), or commit it with format='binary' to store it unchanged."
        )
    reason = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    reason = re.sub(r"( in| when sniffing)? file \".*?\",?", "", reason.removeprefix("Invalid Input Error: ")).rstrip(
        ". "
    )
    hint = (
        " If it is not UTF-8, say what it is: read={'encoding': 'latin-1'}."
        if "unicode" in text.lower() or "utf" in text.lower()
        else ""
    )
    return UnreadableFile(
        f"The json file cannot be read as a table ({reason}).{hint} Fix it, or commit it with format='binary' to store "
        "it unchanged."
    )
