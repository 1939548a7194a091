"""Comparing schemas: every difference, and who can read whom."""

import pytest

from dataset_registry.model.schema import Column, ColumnStatistics, ComponentSchema, TableSchema, compare, widens


def table(*columns: Column, **statistics: ColumnStatistics) -> TableSchema:
    return TableSchema(None, columns, statistics=statistics)


ID = Column("id", "int64", nullable=False)
NAME = Column("name", "string")


def test_equal_tables_have_no_differences_and_read_each_other() -> None:
    found = compare(table(ID, NAME), table(ID, NAME))
    assert not found
    assert found.full


@pytest.mark.parametrize(
    ("before", "after", "changes", "backward", "forward"),
    [
        (table(ID), table(ID, NAME), ["+ name: string"], True, True),
        (table(ID, NAME), table(ID), ["- name: string"], True, True),
        (table(NAME), table(NAME, ID), ["+ id: int64"], False, True),
        (table(NAME, ID), table(NAME), ["- id: int64"], True, False),
        (table(Column("a", "int32")), table(Column("a", "int64")), ["~ a: int32 → int64 (type changed)"], True, False),
        (
            table(Column("a", "string")),
            table(Column("a", "int64")),
            ["~ a: string → int64 (type changed)"],
            False,
            False,
        ),
        (table(ID), table(Column("id", "int64")), ["~ id: not null → nullable (nullability changed)"], True, False),
        (table(ID, NAME), table(NAME, ID), ["~ columns: id, name → name, id (reordered)"], True, True),
    ],
)
def test_each_kind_of_change_is_named_and_judged(
    before: TableSchema, after: TableSchema, changes: list[str], backward: bool, forward: bool
) -> None:
    found = compare(before, after)
    assert [str(change) for change in found.changes] == changes
    assert (found.backward, found.forward) == (backward, forward)


def test_changes_inside_nested_columns_are_named_by_their_path() -> None:
    def point(*fields: Column) -> TableSchema:
        inner = ", ".join(f"{f.name}: {f.type}" for f in fields)
        return table(Column("place", f"struct<{inner}>", fields=fields))

    found = compare(
        point(Column("x", "int32"), Column("y", "int32")), point(Column("x", "int64"), Column("z", "int32"))
    )
    assert [str(c) for c in found.changes] == [
        "- place.y: int32",
        "~ place.x: int32 → int64 (type changed)",
        "+ place.z: int32",
    ]


def test_a_column_with_the_same_values_under_another_name_is_probably_renamed() -> None:
    facts = ColumnStatistics(0, 1, 99)
    before = table(Column("a", "int64"), Column("old", "int64"), a=ColumnStatistics(0, 5, 6), old=facts)
    after = table(Column("new", "int64"), Column("a", "int64"), a=ColumnStatistics(0, 5, 6), new=facts)
    assert "? old → new (probably renamed)" in map(str, compare(before, after).changes)


def test_a_column_of_the_same_type_at_the_same_place_is_probably_renamed() -> None:
    found = compare(table(ID, Column("a", "string")), table(ID, Column("b", "string")))
    assert [str(c) for c in found.changes] == ["- a: string", "+ b: string", "? a → b (probably renamed)"]


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [("int8", "int64"), ("uint8", "int16"), ("float", "double"), ("int32", "double"), ("null", "string")],
)
def test_a_type_widens_where_every_value_fits(narrow: str, wide: str) -> None:
    assert widens(narrow, wide)
    assert not widens(wide, narrow)


def test_a_schema_survives_json() -> None:
    nested = Column("m", "map<string, int32>", fields=(Column("key", "string", False), Column("value", "int32")))
    known = ComponentSchema(
        "excel", (TableSchema("sheet", (ID, nested), 3, {"id": ColumnStatistics(0, 1, 3)}, "AAAA"),)
    )
    assert ComponentSchema.from_json(known.to_json(), known.statistics_to_json()) == known
