"""Types of text columns: a type is a claim about every value, and it is proven before it is captured.

A column of text gets a type other than `string` only if every value that is not null says in that type exactly what its text
says. So an identifier with a leading zero stays text, and so does a number with more digits than its type keeps. Proofs are
SQL conditions over one column, for one pass of DuckDB over the whole file. Which type is worth proving is guessed from the
first rows.
The rule has a name, `model.schema.CAPTURE_RULE`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataset_registry.errors import InputError
from dataset_registry.tabular.sandbox import literal

Sql = Callable[[str], str]
"""SQL over the SQL of a text that is not null and not empty."""

_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]"
_INTEGER = "0|-?[1-9][0-9]"
_PLAIN = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?|-?\.[0-9]+"
_SIGNED_ZERO = r"-0*(\.0*)?"
_SPECIAL = ("NaN", "nan", "inf", "-inf", "Infinity", "-Infinity")
_SHORT = 15
"""A number of this many characters has no more significant digits than a double keeps."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type that a column of text may have: its name in DuckDB, the proof for one value, and the value."""

    type: str
    proof: Sql
    value: Sql
    date_format: str | None = None

    @property
    def is_fractional(self) -> bool:
        """Whether its texts have a decimal mark."""
        return self.type in ("DOUBLE", "FLOAT") or self.type.startswith("DECIMAL")

    def to_json(self) -> str | dict[str, str]:
        """The kind as a captured schema has it."""
        return {"type": self.type, "format": self.date_format} if self.date_format else self.type


def captured(value: str | Mapping[str, str]) -> Kind:
    """The kind of a captured schema. It converts, and proves nothing any more."""
    type = value if isinstance(value, str) else value["type"]
    assert _SQL_TYPE.fullmatch(type), "the type of a captured schema is one of ours"
    if not isinstance(value, str):
        return formatted(type, value["format"])
    return VARCHAR if type == "VARCHAR" else Kind(type, VARCHAR.proof, lambda x: f"CAST({x} AS {type})")


_SQL_TYPE = re.compile(r"[A-Z_ ]+[0-9]*(?:\([0-9]+,[0-9]+\))?")


def _matches(pattern: str) -> Sql:
    return lambda x: f"regexp_full_match({x}, {literal(pattern)})"


def _cast(type: str) -> Sql:
    return lambda x: f"TRY_CAST({x} AS {type})"


def _casts(type: str, pattern: str, also: str = "") -> Kind:
    """Texts of a pattern that have a value in the type."""

    def proof(x: str) -> str:
        return f"({_matches(pattern)(x)} AND {_cast(type)(x)} IS NOT NULL{also.format(x=x)})"

    return Kind(type, proof, _cast(type))


def _digits(x: str) -> str:
    """The significant digits of a number, as text."""
    return f"rtrim(ltrim(replace(split_part(lower({x}), 'e', 1), '.', ''), '-+0'), '0')"


def _keeps_digits(x: str, type: str, pattern: str) -> str:
    """Whether a number of a pattern has no more digits than a floating-point type keeps, or is none of the numbers."""
    read = _digits(f"CAST(TRY_CAST({x} AS {type}) AS VARCHAR)")
    special = ", ".join(map(literal, _SPECIAL))
    return f"(coalesce({_matches(pattern)(x)} AND {_digits(x)} = {read}, false) OR {x} IN ({special}))"


def _double_proof(x: str) -> str:
    exact = _keeps_digits(x, "DOUBLE", f"({_PLAIN})([eE][+-]?[0-9]+)?")
    return f"CASE WHEN strlen({x}) <= {_SHORT} AND {_matches(_PLAIN)(x)} THEN true ELSE {exact} END"


_YEAR_ONE = " AND {x} >= '0001'"
BOOLEAN = Kind("BOOLEAN", lambda x: f"({x} IN ('true', 'false'))", lambda x: f"({x} = 'true')")
BIGINT = Kind("BIGINT", lambda x: f"coalesce(CAST(TRY_CAST({x} AS BIGINT) AS VARCHAR) = {x}, false)", _cast("BIGINT"))
UBIGINT = _casts("UBIGINT", "0|[1-9][0-9]{0,19}")
INTEGERS = _casts("DECIMAL(38,0)", _INTEGER + "{0,37}")
DATE = _casts("DATE", _DAY, _YEAR_ONE)
TIMESTAMP = _casts("TIMESTAMP", rf"{_DAY}[T ]{_CLOCK}(:[0-5][0-9](\.[0-9]{{1,6}}0*)?)?", _YEAR_ONE)
TIMESTAMPTZ = _casts(
    "TIMESTAMP WITH TIME ZONE",
    rf"{_DAY}[T ]{_CLOCK}(:[0-5][0-9](\.[0-9]{{1,6}}0*)?)?(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)",
    " AND {x} >= '0001-01-02' AND {x} < '9999-12-31'",
)
TIMESTAMP_NS = _casts("TIMESTAMP_NS", rf"{_DAY}[T ]{_CLOCK}:[0-5][0-9](\.[0-9]{{1,9}}0*)?", _YEAR_ONE)
TIME = _casts("TIME", rf"{_CLOCK}:[0-5][0-9](\.[0-9]{{1,6}})?")
DOUBLE = Kind("DOUBLE", _double_proof, _cast("DOUBLE"))
VARCHAR = Kind("VARCHAR", lambda x: "true", lambda x: x)
LADDER = (BOOLEAN, BIGINT, UBIGINT, INTEGERS, DATE, TIMESTAMP, TIMESTAMPTZ, TIMESTAMP_NS, TIME, DOUBLE)
"""From the narrowest to the widest; behind them come decimals, and text."""


def decimal_kind(precision: int, scale: int) -> Kind:
    """Decimals of this many digits. A zero with a sign is none: the sign would go."""
    return _casts(
        f"DECIMAL({precision},{scale})", _PLAIN, f" AND NOT regexp_full_match({{x}}, {literal(_SIGNED_ZERO)})"
    )


def formatted(type: str, pattern: str) -> Kind:
    """Dates or timestamps of a strptime format: those that the format writes just as they stand."""
    parsed = f"TRY_STRPTIME({{x}}, {literal(pattern)})"

    def proof(x: str) -> str:
        moment = parsed.format(x=x)
        return f"coalesce(STRFTIME({moment}, {literal(pattern)}) = {x}, false)"

    return Kind(type, proof, lambda x: f"CAST({parsed.format(x=x)} AS {type})", pattern)


def has_time(date_format: str) -> bool:
    """Whether a strptime format says a time of day."""
    return re.search(r"%-?[HIMSfgn]", date_format) is not None


# --- guessing, and choosing when a guess was wrong ---------------------------------------------------------------------

_GUESSES: Sequence[tuple[Kind, re.Pattern[str]]] = [
    (BOOLEAN, re.compile("true|false")),
    (BIGINT, re.compile(_INTEGER + "{0,18}")),
    (DATE, re.compile(_DAY)),
    (TIMESTAMP, re.compile(_DAY + "[T ][0-9:.]+")),
    (TIMESTAMPTZ, re.compile(_DAY + "[T ][0-9:.]+(Z|[+-][0-9:]+)")),
    (TIME, re.compile(r"[0-9:.]{8,}")),
    (DOUBLE, re.compile(rf"({_PLAIN})([eE][+-]?[0-9]+)?|{'|'.join(_SPECIAL)}")),
]


def guess(values: Sequence[str | None], ladder: Sequence[Kind]) -> Kind | None:
    """What a column seems to be, of the kinds of a ladder, by its first values; None when they do not tell."""
    seen = [value for value in values if value]
    if not seen:
        return None
    for kind, pattern in _GUESSES:
        if kind in ladder and all(pattern.fullmatch(value) for value in seen):
            return kind if kind is not DOUBLE or any(_is_clearly_a_number(value) for value in seen) else None
    return VARCHAR


def _is_clearly_a_number(text: str) -> bool:
    return "." in text or "e+" in text.lower() or "e-" in text.lower()


CLEARLY_NUMBERS = r"\.|[eE][+-]"
"""What one value at least of a column of doubles has: `1E5` alone may be a code."""


def evidence(text: Callable[[Kind], str], kinds: Sequence[Kind]) -> list[str]:
    """Aggregates over a column that say which of `kinds` hold for all values, and what `choose` needs besides. `text` gives
    the SQL of its text for a kind."""
    x = text(DOUBLE)
    plain = f"regexp_full_match({x}, {literal(_PLAIN)}) AND NOT regexp_full_match({x}, {literal(_SIGNED_ZERO)})"
    return [
        *(f"bool_and(CASE WHEN {text(kind)} IS NOT NULL THEN {kind.proof(text(kind))} END)" for kind in kinds),
        f"bool_or(regexp_matches({x}, {literal(CLEARLY_NUMBERS)}))",
        f"bool_and({plain})",
        f"max(strlen(ltrim(split_part({x}, '.', 1), '-')))",
        f"max(strlen(rtrim(split_part({x}, '.', 2), '0')))",
    ]


def choose(kinds: Sequence[Kind], found: Sequence[Any]) -> Kind:
    """The first of `kinds` that holds for all values of a column by its `evidence`, else decimals, else text."""
    *holds, is_number, is_plain, whole, fraction = found
    for kind, all_of_it in zip(kinds, holds, strict=True):
        if all_of_it and (kind is not DOUBLE or is_number):
            return kind
    if is_plain and is_number and whole + fraction <= 38:
        return decimal_kind(max(whole + fraction, 1), fraction)
    return VARCHAR


# --- types that a user declares ------------------------------------------------------------------------------------------

_DECLARED: Mapping[str, str] = {
    "bool": "BOOLEAN",
    "boolean": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "int": "BIGINT",
    "integer": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float": "FLOAT",
    "float32": "FLOAT",
    "double": "DOUBLE",
    "float64": "DOUBLE",
    "date": "DATE",
    "date32": "DATE",
    "date32[day]": "DATE",
    "time": "TIME",
    "time64[us]": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamp[s]": "TIMESTAMP_S",
    "timestamp[ms]": "TIMESTAMP_MS",
    "timestamp[us]": "TIMESTAMP",
    "timestamp[ns]": "TIMESTAMP_NS",
    "timestamp[us, tz=utc]": "TIMESTAMP WITH TIME ZONE",
    "string": "VARCHAR",
    "str": "VARCHAR",
    "text": "VARCHAR",
    "utf8": "VARCHAR",
}
_DECIMAL = re.compile(r"decimal(?:128)?\(\s*([0-9]{1,2})\s*,\s*([0-9]{1,2})\s*\)")


def declared(name: str, type: str, date_format: str | None) -> Kind:
    """A type as a user names it. Lossy conversions are no part of it. Raises `InputError`."""
    wanted = type.strip().lower()
    if (found := _DECIMAL.fullmatch(wanted)) and 1 <= int(found[1]) <= 38 and int(found[2]) <= int(found[1]):
        scale = int(found[2])
        return _casts(
            f"DECIMAL({found[1]},{scale})",
            r"[+-]?[0-9]*\.?[0-9]+",
            f" AND strlen(rtrim(split_part({{x}}, '.', 2), '0')) <= {scale}",
        )
    sql = _DECLARED.get(wanted)
    if sql is None:
        raise InputError(
            f"{type!r} is not a type for the column {name!r}. Use one of: string, bool, int8 to int64, uint8 to uint64, float, "
            "double, decimal128(p, s), date32, time64[us], timestamp[us], timestamp[us, tz=UTC].",
            column=name,
        )
    if sql == "VARCHAR":
        return VARCHAR
    if date_format and (sql == "DATE" or sql.startswith("TIMESTAMP")):
        if sql not in ("DATE", "TIMESTAMP") or (sql == "DATE" and has_time(date_format)):
            raise InputError(
                f"The column {name!r} cannot be {type} and have the date_format {date_format!r}: it is read as "
                f"{'timestamp[us]' if has_time(date_format) else 'date32 or timestamp[us]'}.",
                column=name,
            )
        return formatted(sql, date_format)
    if sql == "BOOLEAN":
        return _casts(sql, "(?i:true|false|t|f|yes|no|y|n|0|1)")
    if "INT" in sql:
        return _casts(sql, "[+-]?[0-9]+")
    if sql == "DATE":
        return DATE
    if sql in ("TIMESTAMP_S", "TIMESTAMP_MS"):
        digits = 0 if sql.endswith("_S") else 3
        return _casts(sql, rf"{_DAY}([T ]{_CLOCK}(:[0-5][0-9](\.[0-9]{{0,{digits}}}0*)?)?)?")
    if sql.startswith("TIMESTAMP"):
        wider = {"TIMESTAMP_NS": TIMESTAMP_NS, "TIMESTAMP WITH TIME ZONE": TIMESTAMPTZ}.get(sql, TIMESTAMP)
        return Kind(sql, lambda x: f"({wider.proof(x)} OR {DATE.proof(x)})", wider.value)
    if sql == "TIME":
        return _casts(sql, rf"{_CLOCK}(:[0-5][0-9](\.[0-9]{{1,6}})?)?")
    number = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
    return Kind(sql, lambda x: _keeps_digits(x, sql, number), _cast(sql))
