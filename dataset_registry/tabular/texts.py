"""Columns of text as a table with proven types: what CSV files and the strings of JSON files have in common."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from math import isnan
from typing import Any

import duckdb
import pyarrow as pa

from dataset_registry.errors import InputError, UnreadableFile
from dataset_registry.model.names import suggestion
from dataset_registry.model.schema import CAPTURE_RULE, Column, ColumnStatistics, TableSchema
from dataset_registry.tabular import proof
from dataset_registry.tabular.arrow import columns_of, scalar
from dataset_registry.tabular.proof import Kind
from dataset_registry.tabular.sandbox import literal

_GUESS_VALUES = 200_000
_GUESS_ROWS = 1000
_COLUMNS_AT_ONCE = 64
"""Columns whose types are searched for in one pass: each has a dozen of conditions."""
_FACTS_AT_ONCE = 256
"""Columns whose facts are counted in one pass: what a query takes grows faster than its expressions."""
_NESTED = ("struct", "list", "map", "array", "union", "json")

_Facts = tuple[int, int, Any, Any]
"""Of one column: values that contradict its type, values that are not null, the smallest, the largest."""


class Texts:
    """Rows in SQL: `source` with the columns c0, c1, c2 …, which have `names`.

    `ladders` are the types that a column of text may have; a column without one is read with the type that it has already.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        source: str,
        names: Sequence[str],
        ladders: Sequence[Sequence[Kind] | None],
        *,
        types: Mapping[str, str] | None,
        date_format: str | None,
        decimal: str = ".",
        empty_is_null: bool = False,
    ) -> None:
        self._connection = connection
        self._source = source
        self._names = names
        self._decimal = decimal
        self._empty_is_null = empty_is_null
        own = (
            [proof.formatted("TIMESTAMP" if proof.has_time(date_format) else "DATE", date_format)]
            if date_format
            else []
        )
        self._has_own = bool(own)
        self._ladders = [None if ladder is None else (*own, *ladder) for ladder in ladders]
        self._declared = _declared(names, types or {}, date_format)
        if odd := [names[i] for i in self._declared if ladders[i] is None]:
            raise InputError(
                f"read={{'types': …}} gives a type to {odd[0]!r}, which is nested: only columns of texts and numbers are given "
                "one.",
                column=odd[0],
            )

    def capture(self, dialect: Mapping[str, Any], notes: Sequence[str] = ()) -> TableSchema:
        """The table that they are, its types proven. Raises `UnreadableFile` (a declared type that does not hold)."""
        kinds: dict[int, Kind | None] = self._guesses()
        rows, facts = self._facts(kinds)
        for i, (wrong, *_) in facts.items():
            if wrong and i in self._declared:
                self._refuse(i, self._declared[i])
        again = [i for i in range(len(self._names)) if i not in facts or facts[i][0]]
        for start in range(0, len(again), _COLUMNS_AT_ONCE):
            chosen = self._choose(again[start : start + _COLUMNS_AT_ONCE])
            kinds |= chosen
            facts |= self._facts(chosen)[1]
        ordered = [kinds[i] for i in range(len(self._names))]
        statistics = {
            name: ColumnStatistics(rows - facts[i][1], scalar(facts[i][2]), scalar(facts[i][3]))
            for i, name in enumerate(self._names)
        }
        source = {"rule": CAPTURE_RULE, **dialect, "kinds": [kind.to_json() if kind else None for kind in ordered]}
        return TableSchema(None, self._columns(ordered), rows, statistics, source=source, notes=tuple(notes))

    def _guesses(self) -> dict[int, Kind | None]:
        """What columns seem to be by their first rows; nothing of those that do not tell."""
        limit = min(_GUESS_ROWS, max(20, _GUESS_VALUES // max(len(self._names), 1)))
        rows = self._connection.sql(f"FROM {self._source} LIMIT {limit}").fetchall()
        columns = list(zip(*rows, strict=True)) or [()] * len(self._names)
        found: dict[int, Kind | None] = {}
        for i, ladder in enumerate(self._ladders):
            if i in self._declared or ladder is None:
                found[i] = self._declared.get(i)
            elif not (self._has_own or self._decimal != ".") and (kind := proof.guess(columns[i], ladder)) is not None:
                found[i] = kind
        return found

    def _facts(self, kinds: Mapping[int, Kind | None]) -> tuple[int, dict[int, _Facts]]:
        """The number of rows, and the facts of columns under these kinds, in one pass for many columns at a time."""
        rows, facts = 0, dict[int, _Facts]()
        types = self._connection.sql(f"FROM {self._source} LIMIT 0").types
        for start in range(0, max(len(kinds), 1), _FACTS_AT_ONCE):
            some = dict(itertools.islice(kinds.items(), start, start + _FACTS_AT_ONCE))
            rows, found = self._some_facts(some, types)
            facts |= found
        return rows, facts

    def _some_facts(self, kinds: Mapping[int, Kind | None], types: Sequence[Any]) -> tuple[int, dict[int, _Facts]]:
        wanted = ["count(*)"]
        for i, kind in kinds.items():
            if kind is not None:
                text, value = self._text(i, kind), self._value(i, kind)
                wanted += [
                    f"count_if({text} IS NOT NULL AND NOT {kind.proof(text)})",
                    f"count({text})",
                    f"min({value})",
                    f"max({value})",
                ]
            else:
                bounds = ["NULL", "NULL"] if types[i].id in _NESTED else [f"min(c{i})", f"max(c{i})"]
                wanted += ["0", f"count(c{i})", *bounds]
        (row,) = self._connection.sql(f"SELECT {', '.join(wanted)} FROM {self._source}").fetchall()
        facts: dict[int, _Facts] = {i: tuple(row[1 + 4 * n : 5 + 4 * n]) for n, i in enumerate(kinds)}
        for i, (wrong, count, _, high) in facts.items():
            if isinstance(high, float) and isnan(high):  # bounds are those of the numbers
                value = self._value(i, kinds[i])
                bounds_of = f"SELECT min(v), max(v) FROM (SELECT {value} v FROM {self._source}) WHERE NOT isnan(v)"
                facts[i] = (wrong, count, *self._connection.sql(bounds_of).fetchall()[0])
        return int(row[0]), facts

    def _choose(self, columns: Sequence[int]) -> dict[int, Kind | None]:
        """The kinds of columns that the first rows do not tell, by all of them."""
        wanted: list[str] = []
        spans: dict[int, tuple[int, int]] = {}
        for i in columns:
            parts = proof.evidence(self._text_of(i), self._ladders[i] or ())
            spans[i] = (len(wanted), len(wanted) + len(parts))
            wanted += parts
        (row,) = self._connection.sql(f"SELECT {', '.join(wanted)} FROM {self._source}").fetchall()
        return {i: proof.choose(self._ladders[i] or (), row[first:last]) for i, (first, last) in spans.items()}

    def _text_of(self, i: int) -> Callable[[Kind], str]:
        return lambda kind: self._text(i, kind)

    def _text(self, i: int, kind: Kind) -> str:
        return _text(f"c{i}", kind, self._decimal, empty_is_null=self._empty_is_null)

    def _value(self, i: int, kind: Kind | None) -> str:
        return kind.value(self._text(i, kind)) if kind else f"c{i}"

    def _columns(self, kinds: Sequence[Kind | None]) -> tuple[Column, ...]:
        values = ", ".join(f"{self._value(i, kind)} AS c{i}" for i, kind in enumerate(kinds))
        schema = self._connection.sql(f"SELECT {values} FROM {self._source} LIMIT 0").to_arrow_table().schema
        return columns_of(pa.schema([f.with_name(name) for f, name in zip(schema, self._names, strict=True)]))

    def _refuse(self, i: int, kind: Kind) -> None:
        """Raise `UnreadableFile` with the first value that a declared type has no place for."""
        numbered = f"SELECT row_number() OVER () AS n, c{i} FROM {self._source}"
        text = self._text(i, kind)
        wrong = f"SELECT n, c{i} FROM ({numbered}) WHERE {text} IS NOT NULL AND NOT {kind.proof(text)} LIMIT 1"
        number, value = self._connection.sql(wrong).fetchall()[0]
        raise UnreadableFile(
            f"Column {self._names[i]!r}: {value[:60]!r} in row {number:,} does not fit {kind.type}, the type that "
            "read={'types': …} gives it. Give the column a type that fits all of its values ('string' does), or fix the file.",
            column=self._names[i],
        )


def read_texts(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    table: TableSchema,
    *,
    decimal: str = ".",
    empty_is_null: bool = False,
) -> pa.Table:
    """Rows in SQL (with the columns c0, c1, c2 …) as a table with the types that were captured."""
    kinds = [None if value is None else proof.captured(value) for value in (table.source or {})["kinds"]]
    listed = ", ".join(
        f"{kind.value(_text(f'c{i}', kind, decimal, empty_is_null=empty_is_null)) if kind else f'c{i}'} AS c{i}"
        for i, kind in enumerate(kinds)
    )
    found = connection.sql(f"SELECT {listed} FROM {source}").to_arrow_table()
    return found.rename_columns([column.name for column in table.columns])


def _text(column: str, kind: Kind, decimal: str, *, empty_is_null: bool) -> str:
    """The SQL of a column's text for a kind. An empty text of a CSV file is a value of text alone."""
    if kind.type == "VARCHAR":
        return column
    text = f"nullif({column}, '')" if empty_is_null else column
    if decimal != "." and kind.is_fractional:
        text = f"replace(replace({text}, '.', '?'), {literal(decimal)}, '.')"
    return text


def _declared(names: Sequence[str], types: Mapping[str, str], date_format: str | None) -> dict[int, Kind]:
    """The kinds that a user declared, by position. Raises `InputError` for a column that is not there."""
    found: dict[int, Kind] = {}
    for name, type in types.items():
        if name not in names:
            raise InputError(
                f"read={{'types': …}} names the column {name!r}, which the file does not have. {suggestion(name, names)}",
                column=name,
            )
        found[list(names).index(name)] = proof.declared(name, type, date_format)
    return found
