"""Random CSV and NDJSON files: what is read as typed, written back by the rule, is the text that was delivered."""

import json
import random
import re
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataset_registry.tabular import capture

_DAYS = ["2024-01-31", "1999-12-01", "0001-01-01", "9999-12-31"]
_CLOCKS = ["00:00:00", "23:59:59", "10:30:15.5", "10:30:15.123456"]
Make = Callable[[random.Random], str]

TEXTS: dict[str, Make] = {
    "integers": lambda r: str(r.randint(-(10**6), 10**6)),
    "large integers": lambda r: str(r.randint(0, 1 << 64)),
    "larger integers": lambda r: str(r.randint(-(10**40), 10**40)),
    "identifiers": lambda r: f"{r.randint(0, 99999):05}",
    "floats": lambda r: repr(r.uniform(-1e6, 1e6)),
    "prices": lambda r: f"{r.uniform(0, 1000):.2f}",
    "long floats": lambda r: f"{r.random():.25f}",
    "exponents": lambda r: repr(r.uniform(1, 10) * 10 ** r.randint(-300, 300)),
    "codes like 1E5": lambda r: f"{r.randint(1, 9)}E{r.randint(1, 9)}",
    "dates": lambda r: r.choice(_DAYS),
    "moments": lambda r: f"{r.choice(_DAYS[:2])}{r.choice(' T')}{r.choice(_CLOCKS)}",
    "instants": lambda r: f"{r.choice(_DAYS[:2])}T{r.choice(_CLOCKS)}{r.choice(['Z', '+02:00', '-0330'])}",
    "times": lambda r: r.choice(_CLOCKS),
    "booleans": lambda r: r.choice(["true", "false"]),
    "almost booleans": lambda r: r.choice(["True", "false", "NO", "t"]),
    "specials": lambda r: r.choice(["NaN", "inf", "1.5"]),
    "words": lambda r: r.choice(
        ["", "a", "a,b", 'say "x"', "line\nline", " ", "é日", "NULL", "NA", "-", "0x1F", "10-12-14"]
    ),
}


def column(r: random.Random, rows: int) -> list[str | None]:
    """Texts of one kind, with nulls; sometimes one of another kind, somewhere."""
    make = TEXTS[r.choice(list(TEXTS))]
    values: list[str | None] = [None if r.random() < 0.1 else make(r) for _ in range(rows)]
    if rows and r.random() < 0.3:
        values[r.randrange(rows)] = TEXTS[r.choice(list(TEXTS))](r)
    return values


def is_said(value: Any, text: str, kind: pa.DataType) -> bool:
    """Whether a value of a type says what a text says."""
    if pa.types.is_string(kind):
        return bool(value == text)
    if pa.types.is_boolean(kind):
        return text == str(value).lower()
    if pa.types.is_integer(kind):
        return text == str(value)
    if pa.types.is_floating(kind):
        if re.fullmatch("-?(inf|NaN)", text):
            return str(value).lower() == text.lower()
        return Decimal(text) == Decimal(repr(value)) and (text[0] == "-") == (repr(value)[0] == "-")
    if pa.types.is_decimal(kind):
        return Decimal(text) == value
    if pa.types.is_date(kind):
        return text == value.isoformat() and isinstance(value, date)
    if pa.types.is_time(kind):
        return time.fromisoformat(text) == value
    if pa.types.is_timestamp(kind):
        said = datetime.fromisoformat(text)
        return said == value and (said.tzinfo is None) == (kind.tz is None)
    return False


def quoted(value: str | None, r: random.Random) -> str:
    if value is None:
        return ""
    must = value == "" or any(c in value for c in ',"\n\r')
    return '"' + value.replace('"', '""') + '"' if must or r.random() < 0.2 else value


def wrong_in_csv(seed: int, path: Path) -> list[str]:
    r = random.Random(seed)
    rows, width = r.choice([1, 3, 40, 1500]), r.randint(2, 5)
    columns = [column(r, rows) for _ in range(width)]
    newline = r.choice(["\n", "\r\n"])
    lines = [",".join(f"c{i}" for i in range(width))]
    lines += [",".join(quoted(c[row], r) for c in columns) for row in range(rows)]
    path.write_bytes((newline.join(lines) + r.choice(["", newline])).encode())
    return differences(path, "csv", [(f"c{i}", c) for i, c in enumerate(columns)])


def wrong_in_json(seed: int, path: Path) -> list[str]:
    r = random.Random(seed)
    rows, width = r.choice([1, 3, 40, 1500]), r.randint(1, 5)
    columns = [(f"c{i}", column(r, rows)) for i in range(width)]
    numbers = {
        name
        for name, values in columns
        if all(v is None or re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", v) for v in values)
    }
    with path.open("w") as output:
        for row in range(rows):
            fields = (
                f"{json.dumps(name)}: {'null' if v is None else v if name in numbers else json.dumps(v)}"
                for name, values in columns
                if (v := values[row]) is not None or r.random() < 0.5 or row == 0
            )
            output.write("{" + ", ".join(fields) + "}\n")
    return differences(path, "json", columns)


def differences(path: Path, format: str, columns: list[tuple[str, list[str | None]]]) -> list[str]:
    schema = capture.capture(path, format)
    assert schema is not None
    table = capture.read(path, schema)
    (captured,) = schema.tables
    found = []
    for name, texts in columns:
        kind = table.schema.field(name).type
        if str(kind) != next(c.type for c in captured.columns if c.name == name):
            found.append(f"{name} was captured as another type than {kind}")
        values = table[name].to_pylist()
        for text, value in zip(texts, values, strict=True):
            is_null = text is None or (text == "" and not pa.types.is_string(kind))
            if is_null != (value is None) or (not is_null and not is_said(value, str(text), kind)):
                found.append(f"{path.name}: {name} {kind}: {text!r} became {value!r}")
                break
        if captured.statistics[name].null_count != table[name].null_count:
            found.append(f"{name} has {table[name].null_count} nulls, captured {captured.statistics[name]}")
    return found


def run(count: int, folder: Path, first: int = 0) -> None:
    wrong: list[str] = []
    for seed in range(first, first + count // 2):
        wrong += wrong_in_csv(seed, folder / f"{seed}.csv")
        wrong += wrong_in_json(seed, folder / f"{seed}.json")
    print(f"{count} random files: {len(wrong)} differences")
    assert wrong == []


@pytest.mark.parametrize("first", [0, 10_000])
def test_what_is_read_as_typed_says_what_was_delivered(tmp_path: Path, first: int) -> None:
    run(30, tmp_path, first)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_what_is_read_as_typed_says_what_was_delivered_in_a_thousand_files(tmp_path: Path) -> None:
    run(1000, tmp_path, 20_000)
