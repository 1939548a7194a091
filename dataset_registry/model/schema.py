"""Schemas: the captured columns of components, and the differences between two captures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal

from dataset_registry.errors import InputError
from dataset_registry.model.parts import ChunkingRule
from dataset_registry.model.reading import TEXTUAL, kind_of


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `type` is Arrow's name for the type (`int64`, `decimal128(18, 2)`, `list<item: string>`).

    `fields` are the members of a struct, the item of a list, the key and value of a map; else empty. `origin` is the id
    of a column that was renamed: its first name, or that with a suffix where another column has it.
    """

    name: str
    type: str
    nullable: bool = True
    fields: tuple["Column", ...] = ()
    origin: str | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """The id of the column, which stays the same through renames."""
        return self.origin or self.name

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"name": self.name, "type": self.type, "nullable": self.nullable}
        if self.fields:
            value["fields"] = [child.to_json() for child in self.fields]
        if self.origin:
            value["origin"] = self.origin
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Column":
        fields = tuple(map(cls.from_json, value.get("fields", ())))
        return cls(value["name"], value["type"], value["nullable"], fields, value.get("origin"))


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """Statistics of a column: the number of nulls, the minimum and the maximum as JSON scalars (ISO 8601 for times).

    None means unknown (nested types have no order, binary values are not stored). `digest` is that of the column's content
    (see `tabular.column_digests`), if it was computed when the table was written.
    """

    null_count: int | None = None
    min: Any = None
    max: Any = None
    digest: str | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        value = {"null_count": self.null_count, "min": self.min, "max": self.max}
        return value if self.digest is None else {**value, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One table inside a file: its columns, and (facts of the bytes) its rows and column statistics.

    `name` is the sheet of a spreadsheet, else None. `user_types` is the base64 Arrow schema of the writer's table if it
    has more than the stored one (dictionaries, a pandas index); it is restored on reading. `key` are the columns that
    identify its rows, if declared; `cut` is the chunking rule of its parts, if any. `source` is how a delivered file is
    read: the `rule` of the capture, the dialect, the proven types; None for older captures and for Parquet. `notes` are
    remarks on the capture for users. `library` is the library of the committed frame.
    """

    name: str | None
    columns: tuple[Column, ...]
    rows: int | None = None
    statistics: Mapping[str, ColumnStatistics] = field(default_factory=dict)
    user_types: str | None = None
    key: tuple[str, ...] = ()
    cut: ChunkingRule | None = None
    source: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    library: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The snapshot: columns alone, without rows and statistics, which belong to the file."""
        value: dict[str, Any] = {"name": self.name, "columns": [column.to_json() for column in self.columns]}
        if self.user_types:
            value["user_types"] = self.user_types
        if self.key:
            value["key"] = list(self.key)
        if self.source:
            value["source"] = dict(self.source)
        return value

    def statistics_to_json(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "rows": self.rows,
            "columns": {name: s.to_json() for name, s in self.statistics.items()},
        }
        if self.cut is not None:
            facts["cut"] = self.cut.to_json()
        if self.notes:
            facts["notes"] = list(self.notes)
        if self.library:
            facts["library"] = self.library
        return facts

    @classmethod
    def from_json(cls, snapshot: Mapping[str, Any], statistics: Mapping[str, Any] | None = None) -> "TableSchema":
        facts = statistics or {}
        return cls(
            snapshot["name"],
            tuple(map(Column.from_json, snapshot["columns"])),
            facts.get("rows"),
            {name: ColumnStatistics(**value) for name, value in facts.get("columns", {}).items()},
            snapshot.get("user_types"),
            tuple(snapshot.get("key", ())),
            ChunkingRule.from_json(facts["cut"]) if "cut" in facts else None,
            snapshot.get("source"),
            tuple(facts.get("notes", ())),
            facts.get("library"),
        )


Renames = tuple[tuple[str, str], ...]
"""Renames of columns: pairs of a column before and one after."""


def carried_ids(
    columns: Sequence[Column], previous: TableSchema, renames: Mapping[str, str]
) -> tuple[tuple[Column, ...], Renames]:
    """The columns of a table with the ids of those of its previous version: by name, or as `renames` (old to new) says.

    Also returns renames that are likely, by type, position and statistics. Raises `InputError` for a rename that does not fit.
    """
    is_named = isinstance(renames, Mapping) and all(isinstance(name, str) for pair in renames.items() for name in pair)
    if not is_named or len({*renames.values()}) < len(renames):
        raise InputError(
            "renames takes a dict of column names, old to new, like {'price': 'amount'}, each of them once."
        )
    old, new = {c.name: c for c in previous.columns}, {c.name for c in columns}
    for was, now in renames.items():
        if was not in old or now not in new or was in new or now in old:
            raise InputError(
                f"The rename of {was!r} to {now!r} does not fit: the previous version must have {was!r} and not {now!r}, and "
                "this one the reverse.",
                column=now,
            )
    ids = {name: column.id for name, column in old.items() if name in new}
    ids |= {now: old[was].id for was, now in renames.items()}
    found = []
    for column in columns:
        known = ids.get(column.name)
        if known is None and column.name in ids.values():  # a renamed column has this id
            known = next(f"{column.name}#{i}" for i in count(2) if f"{column.name}#{i}" not in ids.values())
        found.append(replace(column, origin=known if known not in (None, column.name) else None))
    likely = []
    for at, column in enumerate(columns):
        was_there = previous.columns[at] if at < len(previous.columns) else None
        if was_there is None or column.name in ids or was_there.name in new or was_there.name in renames:
            continue
        if (was_there.type, was_there.fields) == (column.type, column.fields):
            likely.append((was_there.name, column.name))
    return tuple(found), tuple(likely)


def renamed(columns: Sequence[Column], previous: TableSchema, renames: Renames) -> tuple[Column, ...]:
    """Columns with the ids of columns of the previous version that they are."""
    ids = {now: next(c.id for c in previous.columns if c.name == was) for was, now in renames}
    return tuple(replace(c, origin=ids[c.name]) if c.name in ids else c for c in columns)


@dataclass(frozen=True, slots=True)
class ComponentSchema:
    """The schema of one component: its format and its tables (several for a spreadsheet, none for plain bytes)."""

    format: str
    tables: tuple[TableSchema, ...]

    def to_json(self) -> dict[str, Any]:
        return {"format": self.format, "tables": [table.to_json() for table in self.tables]}

    def statistics_to_json(self) -> list[dict[str, Any]]:
        return [table.statistics_to_json() for table in self.tables]

    @classmethod
    def from_json(cls, snapshot: Mapping[str, Any], statistics: Sequence[Mapping[str, Any]] = ()) -> "ComponentSchema":
        facts = [*statistics, *[None] * len(snapshot["tables"])]
        return cls(snapshot["format"], tuple(map(TableSchema.from_json, snapshot["tables"], facts)))

    @property
    def rows(self) -> int | None:
        known = [table.rows for table in self.tables if table.rows is not None]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema of a version: for each named component the tables in it.

    Components that share a name (indexed ones) share a line; so do, in `distinct`, components with equal columns.
    """

    components: Mapping[str, ComponentSchema]

    def tables(self) -> dict[str, TableSchema]:
        """Every table by its label: the component's name, with `/sheet` behind it for a spreadsheet."""
        return {
            name if table.name is None else f"{name}/{table.name}": table
            for name, component in self.components.items()
            for table in component.tables
        }

    def distinct(self) -> dict[tuple[Column, ...], list[str]]:
        """The different column lists of the version, each with the labels of the tables that have it."""
        groups: dict[tuple[Column, ...], list[str]] = {}
        for label, table in self.tables().items():
            groups.setdefault(table.columns, []).append(label)
        return groups

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of all tables, in order of first appearance: the whole answer where they agree."""
        found: dict[str, Column] = {}
        for columns in self.distinct():
            for column in columns:
                found.setdefault(column.name, column)
        return tuple(found.values())

    @property
    def rows(self) -> int | None:
        known = [c.rows for c in self.components.values() if c.rows is not None]
        return sum(known) if known else None


CAPTURE_RULE = "proven/1"
"""The rule by which types of text are captured (`tabular.proof`). It stands in the `source` of what was captured by it."""


def is_current(schema: ComponentSchema) -> bool:
    """Whether a capture was made by the current rule. Existing versions keep their older captures."""
    if kind_of(schema.format) not in TEXTUAL:
        return True
    return all((table.source or {}).get("rule") == CAPTURE_RULE for table in schema.tables)


ChangeKind = Literal["added", "removed", "type changed", "nullability changed", "reordered", "renamed"]


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """One difference. `column` is a dotted path into nested columns; `before` and `after` are what changed.

    A `renamed` change is a guess: it is listed in addition to the removal and the addition that it explains.
    """

    kind: ChangeKind
    column: str
    before: str | None = None
    after: str | None = None

    def __str__(self) -> str:
        match self.kind:
            case "added":
                return f"+ {self.column}: {self.after}"
            case "removed":
                return f"- {self.column}: {self.before}"
            case "renamed":
                return f"? {self.before} → {self.after} (probably renamed)"
            case _:
                return f"~ {self.column}: {self.before} → {self.after} ({self.kind})"


@dataclass(frozen=True, slots=True)
class SchemaDiff:
    """What changed from one table schema to another, and who can still read whom.

    The terms are those of Confluent's Schema Registry: `backward` means that a reader who expects the new columns
    can read the old data, `forward` that a reader who expects the old columns can read the new data.
    """

    changes: tuple[ColumnChange, ...]
    backward: bool
    forward: bool

    @property
    def full(self) -> bool:
        return self.backward and self.forward

    def __bool__(self) -> bool:
        return bool(self.changes)


def compare(before: TableSchema, after: TableSchema) -> SchemaDiff:
    """Every difference between two tables, nested fields included, and the compatibility of the whole."""
    changes: list[ColumnChange] = []
    readable = _compare(before.columns, after.columns, "", changes)
    changes += _renames(before, after)
    return SchemaDiff(tuple(changes), *readable)


def _compare(
    before: Sequence[Column], after: Sequence[Column], path: str, changes: list[ColumnChange]
) -> tuple[bool, bool]:
    old, new = {c.name: c for c in before}, {c.name: c for c in after}
    backward = forward = True
    for name, column in old.items():
        if name not in new:
            changes.append(ColumnChange("removed", path + name, column.type))
            forward = forward and column.nullable
    for name, column in new.items():
        if name not in old:
            changes.append(ColumnChange("added", path + name, None, column.type))
            backward = backward and column.nullable
            continue
        was = old[name]
        if was.type != column.type:
            if was.fields and column.fields and _shape(was) == _shape(column):
                inner = _compare(was.fields, column.fields, f"{path}{name}.", changes)
                backward, forward = backward and inner[0], forward and inner[1]
            else:
                changes.append(ColumnChange("type changed", path + name, was.type, column.type))
                backward = backward and widens(was.type, column.type)
                forward = forward and widens(column.type, was.type)
        if was.nullable != column.nullable:
            changes.append(ColumnChange("nullability changed", path + name, _null(was), _null(column)))
            backward = backward and column.nullable
            forward = forward and was.nullable
    common_before = [c.name for c in before if c.name in new]
    common_after = [c.name for c in after if c.name in old]
    if common_before != common_after:
        changes.append(
            ColumnChange("reordered", path.rstrip(".") or "columns", ", ".join(common_before), ", ".join(common_after))
        )
    return backward, forward


def _renames(before: TableSchema, after: TableSchema) -> Iterator[ColumnChange]:
    """Pairs of a removed and an added column with the same type and the same values, or at the same position."""
    old_names, new_names = {c.name for c in before.columns}, {c.name for c in after.columns}
    removed = [(i, c) for i, c in enumerate(before.columns) if c.name not in new_names]
    added = [(i, c) for i, c in enumerate(after.columns) if c.name not in old_names]
    for i, gone in removed:
        same_type = [(j, c) for j, c in added if (c.type, c.fields) == (gone.type, gone.fields)]
        facts = before.statistics.get(gone.name)
        likely = [c for _, c in same_type if facts and facts.min is not None and after.statistics.get(c.name) == facts]
        likely = likely or [c for j, c in same_type if i == j]
        if likely:
            added = [(j, c) for j, c in added if c is not likely[0]]
            yield ColumnChange("renamed", gone.name, gone.name, likely[0].name)


_INTEGERS = ("int8", "int16", "int32", "int64")
_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
_FLOATS = ("halffloat", "float", "double")


def widens(narrow: str, wide: str) -> bool:
    """Whether every value of `narrow` can be read as `wide` without loss."""
    for chain in (_INTEGERS, _UNSIGNED, _FLOATS, ("date32[day]", "date64[ms]"), ("null", wide)):
        if narrow in chain and wide in chain:
            return chain.index(narrow) <= chain.index(wide)
    if narrow in _UNSIGNED and wide in _INTEGERS:
        return _UNSIGNED.index(narrow) < _INTEGERS.index(wide)
    if narrow in (*_INTEGERS[:3], *_UNSIGNED[:3]) and wide == "double":
        return True
    return narrow == wide


def holds(narrow: Column, wide: Column) -> bool:
    """Whether every value of one column has a place in another: the fields of a struct in fields of the same names."""
    if not narrow.fields or not wide.fields:
        return widens(narrow.type, wide.type)
    if _shape(narrow) != _shape(wide):
        return False
    if narrow.type.startswith("fixed_size_list") and narrow.type.rpartition("[")[2] != wide.type.rpartition("[")[2]:
        return False
    if not narrow.type.startswith("struct"):
        return all(holds(one, other) for one, other in zip(narrow.fields, wide.fields, strict=True))
    there = {field.name: field for field in wide.fields}
    return all(field.name in there and holds(field, there[field.name]) for field in narrow.fields)


def has_fields_of(column: Column, other: Column) -> bool:
    """Whether the structs in a nested column have all fields of those in another."""
    if not other.fields or not column.fields:
        return not other.fields or not column.type.startswith("struct")
    if not other.type.startswith("struct"):
        return all(has_fields_of(one, two) for one, two in zip(column.fields, other.fields, strict=False))
    there = {field.name: field for field in column.fields}
    return all(field.name in there and has_fields_of(there[field.name], field) for field in other.fields)


def _shape(column: Column) -> str:
    return column.type.split("<", 1)[0]


def _null(column: Column) -> str:
    return "nullable" if column.nullable else "not null"
