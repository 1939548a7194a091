"""Partitions: each is a part of the version, written and read on its own."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from dataset_registry.errors import InputError, NotFound, UnsupportedType
from tests.dagster_io.conftest import World, materialized, refused

DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-06")
COLORS = dg.StaticPartitionsDefinition(["red", "green", "blue"])
GRID = dg.MultiPartitionsDefinition({"day": DAYS, "color": COLORS})


def keyed(partitions: dg.PartitionsDefinition, **options: Any) -> dg.AssetsDefinition:
    """An asset whose partitions each hold one row: the partition's key."""

    @dg.asset(partitions_def=partitions, **options)
    def source(context: dg.AssetExecutionContext):
        return pa.table({"key": [context.partition_key]})

    return source


def returning(value: Any, partitions: dg.PartitionsDefinition = COLORS, **options: Any) -> dg.AssetsDefinition:
    """An asset that returns what it is given, for all partitions of a run at once."""

    @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run(), **options)
    def source(context: dg.AssetExecutionContext):
        return value(context) if callable(value) else value

    return source


def components(world: World, address: str = "source") -> list[str]:
    return [component.name for component in world.version(address).components]


def keys_of(world: World, *names: str) -> list[str]:
    return world.version("source").to_arrow(list(names) or None)["key"].to_pylist()


# --- one partition -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("partitions", "keys"),
    [
        (COLORS, ["blue", "red"]),
        (DAYS, ["2024-01-01", "2024-01-05"]),
        (GRID, ["green|2024-01-01", "red|2024-01-01"]),
        (dg.HourlyPartitionsDefinition(start_date="2024-01-01-00:00"), ["2024-01-01-00:00", "2024-01-01-13:00"]),
    ],
    ids=["static", "daily", "multi", "hourly"],
)
def test_each_partition_is_a_component_named_by_its_key(
    world: World, partitions: dg.PartitionsDefinition, keys: Sequence[str]
) -> None:
    source = keyed(partitions)
    for key in reversed(keys):
        world.materialize([source], partition=key)
    assert components(world) == keys
    assert [keys_of(world, key) for key in keys] == [[key] for key in keys]
    assert world.version("source").number == 2


def test_a_dynamic_partition_is_written_and_read(fresh: World) -> None:
    fresh.instance.add_dynamic_partitions("customers", ["acme"])
    customers = dg.DynamicPartitionsDefinition(name="customers")
    seen: list[str] = []

    @dg.asset(partitions_def=customers)
    def sink(source: pa.Table) -> None:
        seen.extend(source["key"].to_pylist())

    source = keyed(customers)
    fresh.materialize([source, sink], partition="acme")
    fresh.instance.add_dynamic_partitions("customers", ["brown & sons"])
    fresh.materialize([source, sink], partition="brown & sons")
    assert components(fresh) == ["acme", "brown & sons"]
    assert seen == ["acme", "brown & sons"]


def test_keys_with_slashes_and_spaces_and_keys_that_begin_others_stay_apart(world: World) -> None:
    keys = ["a", "a/b", "a b", "ab", "ä/ö|c"]
    partitions = dg.StaticPartitionsDefinition(keys)
    source = keyed(partitions)
    seen: dict[str, list[str]] = {}

    @dg.asset(partitions_def=partitions)
    def sink(context: dg.AssetExecutionContext, source: pa.Table) -> None:
        seen[context.partition_key] = source["key"].to_pylist()

    for key in keys:
        world.materialize([source], partition=key)
    world.materialize([source], partition="a")
    for key in keys:
        world.materialize([source, sink], "sink", partition=key)
    assert seen == {key: [key] for key in keys}
    assert world.version("source").number == len(keys), "the second 'a' was unchanged and took nothing along"


def test_a_partition_of_components_and_a_partition_named_like_one_of_them_stay_apart(world: World) -> None:
    """Partition `a` has a component `b`; partition `a/b` is something else."""
    partitions = dg.StaticPartitionsDefinition(["a", "a/b"])

    @dg.asset(partitions_def=partitions)
    def source(context: dg.AssetExecutionContext):
        if context.partition_key == "a":
            return {"b": pa.table({"key": ["b of a"]}), "c": pa.table({"key": ["c of a"]})}
        return pa.table({"key": ["a/b"]})

    seen: dict[str, Any] = {}

    @dg.asset(partitions_def=partitions)
    def sink(context: dg.AssetExecutionContext, source: dict[str, pa.Table]) -> None:
        seen[context.partition_key] = {name: table["key"].to_pylist() for name, table in source.items()}

    world.materialize([source], partition="a")
    world.materialize([source], partition="a/b")
    world.materialize([source, sink], "sink", partition="a")
    world.materialize([source, sink], "sink", partition="a/b")
    assert seen["a"] == {"b": ["b of a"], "c": ["c of a"]}
    assert list(seen["a/b"].values()) == [["a/b"]]


def test_a_partition_that_was_never_written_is_missing_even_where_another_has_a_component_of_that_name(
    world: World,
) -> None:
    partitions = dg.StaticPartitionsDefinition(["a", "a/b"])

    @dg.asset(partitions_def=partitions)
    def source():
        return {"b": pa.table({"key": ["b of a"]})}

    @dg.asset(partitions_def=partitions)
    def sink(source: pa.Table) -> None: ...

    world.materialize([source], partition="a")
    with refused(NotFound, "no partition a/b"):
        world.materialize([source, sink], "sink", partition="a/b")


def test_a_key_in_another_unicode_form_is_found_again_and_shrinks(world: World) -> None:
    """A key typed on a Mac: the umlaut is two characters; names of components are normalised to one."""
    key = "mu\u0308nchen"
    partitions = dg.StaticPartitionsDefinition([key])
    values = iter([{"x": pa.table({"n": [1]}), "y": pa.table({"n": [2]})}, {"x": pa.table({"n": [3]})}])
    seen: list[Any] = []

    @dg.asset(partitions_def=partitions)
    def source():
        return next(values)

    @dg.asset(partitions_def=partitions)
    def sink(source: dict[str, pa.Table]) -> None:
        seen.append({name: table["n"].to_pylist() for name, table in source.items()})

    world.materialize([source, sink], partition=key)
    world.materialize([source, sink], partition=key)
    assert seen == [{"x": [1], "y": [2]}, {"x": [3]}]
    assert world.version("source").component_count == 1


def test_writing_one_partition_again_replaces_only_that_one(world: World) -> None:
    counts = iter([1, 1, 2])

    @dg.asset(partitions_def=COLORS)
    def source(context: dg.AssetExecutionContext):
        return pa.table({"key": [context.partition_key] * next(counts)})

    for key in ("red", "green", "red"):
        world.materialize([source], partition=key)
    before, after = world.version("source@v2"), world.version("source")
    assert after.number == 3
    assert [c.name for c in after.components] == ["green", "red"]
    assert after.components[0] == before.components[0]
    assert after.to_arrow("red").num_rows == 2
    assert world.version("source@v2").to_arrow("red").num_rows == 1


def test_a_partition_of_several_components_shrinks_and_leaves_its_neighbours_alone(world: World) -> None:
    one = pa.table({"n": [1]})
    values = iter([{"x": one, "y": one, "deep/z": one}, {"x": one, "y": one}, {"x": one}, one, {"w": one}])

    @dg.asset(partitions_def=COLORS)
    def source():
        return next(values)

    expected = [
        ("red", ["red//deep/z", "red//x", "red//y"]),
        ("green", ["green//x", "green//y", "red//deep/z", "red//x", "red//y"]),
        ("red", ["green//x", "green//y", "red//x"]),
        ("red", ["green//x", "green//y", "red"]),
        ("red", ["green//x", "green//y", "red//w"]),
    ]
    for key, names in expected:
        world.materialize([source], partition=key)
        assert components(world) == names


def test_a_partition_may_be_a_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "red.bin").write_bytes(b"red")
    seen: list[bytes] = []

    @dg.asset(partitions_def=COLORS)
    def source() -> Path:
        return tmp_path / "red.bin"

    @dg.asset(partitions_def=COLORS)
    def sink(source: Path) -> None:
        seen.append(source.read_bytes())

    world.materialize([source, sink], partition="red")
    assert seen == [b"red"]


# --- several partitions in one run ---------------------------------------------------------------------------------


def test_a_single_run_over_a_dict_makes_one_version(world: World) -> None:
    source = returning(lambda context: {key: pa.table({"key": [key]}) for key in context.partition_keys})
    result = world.materialize([source], span=("red", "blue"))
    assert components(world) == ["blue", "green", "red"]
    assert [keys_of(world, key) for key in ("blue", "green", "red")] == [["blue"], ["green"], ["red"]]
    assert [v.number for v in world.registry.dataset("source").tree()] == [1]
    assert sorted(e.partition or "" for e in result.get_asset_materialization_events()) == ["blue", "green", "red"]
    assert world.version("source").provenance.partition == "red, green, blue", "in the order of their definition"
    assert world.version("source").message == "Materialize source [red … blue]"


def test_a_single_run_leaves_partitions_outside_of_it_alone(world: World) -> None:
    source = returning(
        lambda context: {k: pa.table({"key": [k], "run": [context.run.run_id]}) for k in context.partition_keys}
    )
    world.materialize([source], span=("red", "blue"))
    before = {c.name: c.content_hash for c in world.version("source").components}
    world.materialize([source], span=("red", "green"))
    after = {c.name: c.content_hash for c in world.version("source").components}
    assert {name for name in after if after[name] != before[name]} == {"red", "green"}
    assert after.keys() == before.keys()


def test_a_single_run_over_dicts_of_components(world: World) -> None:
    one = pa.table({"n": [1]})
    source = returning(lambda context: {key: {"x": one, "y": one} for key in context.partition_keys})
    world.materialize([source], span=("red", "green"))
    assert components(world) == ["green//x", "green//y", "red//x", "red//y"]


DAY_VALUES = [date(2024, 1, day) for day in (1, 2, 2, 3)]
MIDNIGHT = [datetime(2024, 1, day) for day in (1, 2, 2, 3)]
LATE = [moment + timedelta(hours=23, minutes=59) for moment in MIDNIGHT]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(DAY_VALUES, pa.date32()),
        pa.array(DAY_VALUES, pa.date64()),
        pa.array(MIDNIGHT, pa.timestamp("us")),
        pa.array(LATE, pa.timestamp("ns")),
        pa.array(LATE, pa.timestamp("s")),
        pa.array([m.replace(tzinfo=UTC) for m in LATE], pa.timestamp("ms", tz="UTC")),
        pa.array([m.replace(tzinfo=UTC) for m in LATE], pa.timestamp("us", tz="+00:00")),
        pa.array([d.isoformat() for d in DAY_VALUES], pa.string()),
        pa.array([d.isoformat() for d in DAY_VALUES], pa.large_string()),
        pa.array([m.isoformat(sep=" ") for m in LATE], pa.string()),
        pa.array([m.isoformat(sep="T") for m in LATE], pa.string()),
        pa.array([m.isoformat(sep="T") for m in MIDNIGHT], pa.string()),
    ],
    ids=[
        *(
            "date32",
            "date64",
            "timestamp at midnight",
            "timestamp ns",
            "timestamp s",
            "timestamp UTC",
            "timestamp +00:00",
        ),
        *("text date", "large text date", "text with space", "text with T", "text with T at midnight"),
    ],
)
def test_one_table_is_split_into_days_by_the_column_of_partition_expr(world: World, column: pa.Array) -> None:
    table = pa.table({"day": column, "n": [1, 2, 3, 4]})
    source = returning(table, DAYS, metadata={"partition_expr": "day"})
    world.materialize([source], span=("2024-01-01", "2024-01-03"))
    found = {key: world.version("source").to_arrow(key)["n"].to_pylist() for key in components(world)}
    assert found == {"2024-01-01": [1], "2024-01-02": [2, 3], "2024-01-03": [4]}


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t,
        lambda t: t.set_column(0, "color", t["color"].dictionary_encode()),
        lambda t: t.to_reader(max_chunksize=1),
        lambda t: t.to_pandas(),
        pl.from_arrow,
        lambda t: pl.from_arrow(t).lazy(),
    ],
    ids=["arrow", "categories", "reader", "pandas", "polars", "lazy"],
)
def test_one_table_of_any_library_is_split_by_a_static_column(world: World, make: Callable[[pa.Table], Any]) -> None:
    table = pa.table({"color": ["red", "green", "red"], "n": [1, 2, 3]})
    source = returning(make(table), metadata={"partition_expr": "color"})
    world.materialize([source], span=("red", "blue"))
    version = world.version("source")
    assert {key: version.to_arrow(key)["n"].to_pylist() for key in components(world)} == {
        "blue": [],
        "green": [2],
        "red": [1, 3],
    }
    assert version.to_arrow("blue").schema.names == ["color", "n"], (
        "a partition without rows is there, with its columns"
    )


def test_a_frame_that_is_split_keeps_its_labels_dtypes_and_attrs(world: World) -> None:
    frame = pd.DataFrame(
        {"color": pd.Categorical(["red", "green"], ["red", "green", "blue"])}, index=pd.Index(["a", "b"], name="id")
    )
    frame.attrs = {"source": "sensor"}
    world.materialize([returning(frame, metadata={"partition_expr": "color"})], span=("red", "blue"))
    found = world.version("source").to_pandas("green")
    pd.testing.assert_frame_equal(found, frame.loc[["b"]])
    assert found.attrs == frame.attrs


def test_static_keys_may_be_numbers_in_the_column(world: World) -> None:
    source = returning(
        pa.table({"year": [2024, 2023, 2024]}),
        dg.StaticPartitionsDefinition(["2023", "2024"]),
        metadata={"partition_expr": "year"},
    )
    world.materialize([source], span=("2023", "2024"))
    assert [world.version("source").to_arrow(key).num_rows for key in ("2023", "2024")] == [1, 2]


def test_one_table_is_split_over_two_dimensions_by_a_dict(world: World) -> None:
    @dg.asset(
        partitions_def=GRID,
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"partition_expr": {"day": "on", "color": "shade"}},
    )
    def source():
        return pa.table(
            {"on": [date(2024, 1, 1)] * 3, "shade": ["red", "green", "red"], "n": [1, 2, 3]},
        )

    world.materialize([source], span=("red|2024-01-01", "green|2024-01-01"))
    version = world.version("source")
    assert {c.name: version.to_arrow(c.name)["n"].to_pylist() for c in version.components} == {
        "green|2024-01-01": [2],
        "red|2024-01-01": [1, 3],
    }


@pytest.mark.parametrize("expression", ["day", {"day": "on"}, {"day": "on", "colour": "shade"}])
def test_a_partition_expr_that_does_not_fit_two_dimensions_is_a_clear_error(world: World, expression: Any) -> None:
    source = returning(
        pa.table({"on": [date(2024, 1, 1)], "shade": ["red"]}), GRID, metadata={"partition_expr": expression}
    )
    with refused(InputError, "partition_expr of a multi-partitioned asset is a dict|color"):
        world.materialize([source], span=("red|2024-01-01", "green|2024-01-01"))


def test_windows_of_another_timezone_cut_at_their_own_midnight(world: World) -> None:
    days = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-04", timezone="America/New_York")
    moments = [datetime(2024, 1, 2, 4, 59, tzinfo=UTC), datetime(2024, 1, 2, 5, 0, tzinfo=UTC)]
    table = pa.table({"at": pa.array(moments, pa.timestamp("us", tz="UTC"))})
    world.materialize([returning(table, days, metadata={"partition_expr": "at"})], span=("2024-01-01", "2024-01-02"))
    version = world.version("source")
    assert {c.name: version.to_arrow(c.name)["at"].to_pylist() for c in version.components} == {
        "2024-01-01": moments[:1],
        "2024-01-02": moments[1:],
    }


@pytest.mark.parametrize("separator", [" ", "T"])
def test_hours_are_told_apart_in_iso_texts_of_either_form(world: World, separator: str) -> None:
    hours = dg.HourlyPartitionsDefinition(start_date="2024-01-01-00:00", end_date="2024-01-02-00:00")
    texts = [f"2024-01-01{separator}{hour}:30:00" for hour in (22, 23)]
    source = returning(pa.table({"at": texts}), hours, metadata={"partition_expr": "at"})
    world.materialize([source], span=("2024-01-01-22:00", "2024-01-01-23:00"))
    version = world.version("source")
    assert [version.to_arrow(c.name)["at"].to_pylist() for c in version.components] == [[text] for text in texts]


def test_without_partition_expr_one_table_for_several_partitions_is_a_clear_error(world: World) -> None:
    with refused(InputError, 'covers 3 partitions.*one table.*metadata={"partition_expr": "column"}'):
        world.materialize([returning(pa.table({"n": [1]}))], span=("red", "blue"))
    assert world.registry.datasets() == []


def test_a_partition_expr_that_is_no_column_is_a_clear_error(world: World) -> None:
    source = returning(pa.table({"n": [1]}), metadata={"partition_expr": "color"})
    with refused(InputError, "'color' is not a column of the table; it has: n"):
        world.materialize([source], span=("red", "blue"))


def test_a_column_that_is_no_time_cannot_split_into_days(world: World) -> None:
    source = returning(pa.table({"day": [1.5]}), DAYS, metadata={"partition_expr": "day"})
    with refused(InputError, "dates, timestamps or ISO 8601 texts; .day. is double"):
        world.materialize([source], span=("2024-01-01", "2024-01-02"))


@pytest.mark.parametrize("stray", [date(2024, 1, 3), date(2023, 12, 31), None], ids=["after", "before", "null"])
def test_rows_outside_of_the_runs_partitions_are_refused(world: World, stray: date | None) -> None:
    table = pa.table({"day": pa.array([date(2024, 1, 1), stray], pa.date32())})
    with refused(InputError, "1 of 2 rows belong to none of the run's 2 partitions"):
        world.materialize(
            [returning(table, DAYS, metadata={"partition_expr": "day"})], span=("2024-01-01", "2024-01-02")
        )
    assert world.registry.datasets() == []


@pytest.mark.parametrize("stray", ["yellow", None])
def test_rows_of_an_unknown_static_key_are_refused(world: World, stray: str | None) -> None:
    source = returning(pa.table({"color": ["red", stray]}), metadata={"partition_expr": "color"})
    with refused(InputError, "1 of 2 rows belong to none"):
        world.materialize([source], span=("red", "green"))


def test_a_dict_without_some_keys_or_with_others_is_a_clear_error(world: World) -> None:
    one = pa.table({"n": [1]})
    with refused(InputError, "missing blue, green. unexpected yellow. "):
        world.materialize([returning({"red": one, "yellow": one})], span=("red", "blue"))
    assert world.registry.datasets() == []


def test_a_value_that_is_no_table_is_a_clear_error_for_several_partitions(world: World) -> None:
    with refused(InputError, "one PosixPath.*Return a dict"):
        world.materialize([returning(Path(__file__))], span=("red", "blue"))


def test_nothing_is_kept_when_one_partition_of_a_run_is_refused(world: World) -> None:
    source = returning(lambda c: {k: pa.table({"k": [k]}) if k != "blue" else object() for k in c.partition_keys})
    with refused(UnsupportedType, "does not store"):
        world.materialize([source], span=("red", "blue"))
    assert world.registry.datasets() == []
    assert list(world.registry.files()) == []


def test_a_single_run_of_one_partition_takes_the_value_for_that_partition(world: World) -> None:
    source = returning(pa.table({"n": [1]}))
    world.materialize([source], span=("red", "red"))
    assert components(world) == ["red"]


# --- loading -------------------------------------------------------------------------------------------------------


def consumer(kind: Any, seen: list[Any], *, metadata: dict[str, Any] | None = None, **options: Any) -> Any:
    def sink(source):
        seen.append(source)

    sink.__annotations__ = {"source": kind, "return": None}
    mapping = options.pop("mapping", None)
    return dg.asset(sink, ins={"source": dg.AssetIn(partition_mapping=mapping, metadata=metadata)}, **options)


@pytest.mark.parametrize("kind", [pa.Table, pd.DataFrame, pl.DataFrame, pl.LazyFrame])
def test_all_partitions_load_as_one_table_in_the_order_of_their_keys(world: World, kind: type) -> None:
    source, seen = keyed(DAYS), []
    for day in (3, 1, 5, 2, 4):
        world.materialize([source], partition=f"2024-01-0{day}")
    world.materialize([source, consumer(kind, seen)], "sink")
    value = seen[0].collect() if kind is pl.LazyFrame else seen[0]
    assert list(value["key"].to_pylist() if kind is pa.Table else value["key"]) == DAYS.get_partition_keys()


def test_all_partitions_load_as_a_dict_by_key(world: World) -> None:
    source, seen = keyed(COLORS), []
    for key in ("red", "green", "blue"):
        world.materialize([source], partition=key)
    world.materialize([source, consumer(dict[str, pl.DataFrame], seen)], "sink")
    assert {key: frame["key"].to_list() for key, frame in seen[0].items()} == {k: [k] for k in ("red", "green", "blue")}


def test_a_range_of_partitions_loads_as_one_table_in_order(world: World) -> None:
    source, seen = keyed(DAYS), []
    for day in (1, 2, 3):
        world.materialize([source], partition=f"2024-01-0{day}")
    window = dg.TimeWindowPartitionMapping(start_offset=-2)
    world.materialize(
        [source, consumer(pa.Table, seen, partitions_def=DAYS, mapping=window)], "sink", partition="2024-01-03"
    )
    assert seen[0]["key"].to_pylist() == ["2024-01-01", "2024-01-02", "2024-01-03"]


def test_a_run_over_a_span_loads_the_same_span_of_its_upstream(world: World) -> None:
    source, seen = keyed(DAYS), []
    for day in (1, 2, 3):
        world.materialize([source], partition=f"2024-01-0{day}")
    sink = consumer(dict[str, pa.Table], seen, partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    world.materialize([source, sink], "sink", span=("2024-01-02", "2024-01-03"))
    assert {key: table["key"].to_pylist() for key, table in seen[0].items()} == {
        "2024-01-02": ["2024-01-02"],
        "2024-01-03": ["2024-01-03"],
    }


def test_a_missing_partition_is_an_error_that_names_it(world: World) -> None:
    source, seen = keyed(COLORS), []
    world.materialize([source], partition="red")
    with refused(NotFound, "source@v1 has no partition green, blue.*allow_missing_partitions"):
        world.materialize([source, consumer(pa.Table, seen)], "sink")


def test_missing_partitions_may_be_allowed(world: World) -> None:
    source, seen, found = keyed(COLORS), [], []
    world.materialize([source], partition="red")
    allowed = {"registry/allow_missing_partitions": True}
    world.materialize([source, consumer(pa.Table, seen, metadata=allowed)], "sink")
    world.materialize([source, consumer(dict[str, pa.Table], found, metadata=allowed)], "sink")
    assert seen[0]["key"].to_pylist() == ["red"]
    assert list(found[0]) == ["red"]


@pytest.mark.parametrize("kind", [dict[str, pa.Table], pa.Table], ids=["dict", "table"])
def test_when_all_partitions_are_missing_a_dict_is_empty_and_a_table_is_an_error(world: World, kind: Any) -> None:
    source, seen = keyed(COLORS), []
    world.materialize([source], partition="red")
    sink = consumer(kind, seen, metadata={"registry/allow_missing_partitions": True}, partitions_def=COLORS)
    if kind is pa.Table:
        with refused(NotFound, "no partition green"):
            world.materialize([source, sink], "sink", partition="green")
    else:
        world.materialize([source, sink], "sink", partition="green")
        assert seen == [{}]


@pytest.mark.parametrize("kind", [pa.Table, pd.DataFrame, pl.DataFrame, pl.LazyFrame])
def test_partitions_whose_columns_differ_load_together_with_nulls(world: World, kind: type) -> None:
    tables = {"red": pa.table({"a": [1]}), "green": pa.table({"a": [2], "b": ["x"]}), "blue": pa.table({"b": ["y"]})}

    @dg.asset(partitions_def=COLORS)
    def source(context: dg.AssetExecutionContext):
        return tables[context.partition_key]

    seen: list[Any] = []
    for key in tables:
        world.materialize([source], partition=key)
    world.materialize([source, consumer(kind, seen)], "sink")
    value = seen[0].collect() if kind is pl.LazyFrame else seen[0]
    frame = pl.from_pandas(value) if kind is pd.DataFrame else pl.DataFrame(value)
    assert sorted(frame.columns) == ["a", "b"]
    assert [None if a is None else int(a) for a in frame["a"]] == [1, 2, None]  # red, green, blue
    assert frame["b"].to_list() == [None, "x", "y"]


def test_a_column_that_became_wider_is_loaded_in_the_wider_type(world: World) -> None:
    tables = {"red": pa.table({"n": pa.array([1], pa.int32())}), "green": pa.table({"n": pa.array([2.5])})}

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(list(tables)))
    def source(context: dg.AssetExecutionContext):
        return tables[context.partition_key]

    seen: list[Any] = []
    for key in tables:
        world.materialize([source], partition=key)
    world.materialize([source, consumer(pl.LazyFrame, seen)], "sink")
    world.materialize([source, consumer(pa.Table, seen)], "sink")
    assert seen[0].collect()["n"].to_list() == [1.0, 2.5]
    assert seen[1]["n"].to_pylist() == [1.0, 2.5]


def test_partitions_that_are_csv_files_load_as_one_table(world: World, tmp_path: Path) -> None:
    days = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-03")

    @dg.asset(partitions_def=days)
    def source(context: dg.AssetExecutionContext) -> Path:
        path = tmp_path / f"{context.partition_key}.csv"
        path.write_text(f"key\nd{context.partition_key}\n")
        return path

    seen: list[Any] = []
    for key in days.get_partition_keys():
        world.materialize([source], partition=key)
    world.materialize([source, consumer(pl.DataFrame, seen)], "sink")
    assert seen[0]["key"].to_list() == [f"d{key}" for key in days.get_partition_keys()]


def running_total() -> dg.AssetsDefinition:
    before = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
    allowed = {"registry/allow_missing_partitions": True}

    @dg.asset(partitions_def=DAYS, ins={"total": dg.AssetIn(partition_mapping=before, metadata=allowed)})
    def total(total: dict[str, pa.Table]) -> pa.Table:
        return pa.table({"n": [1 + sum(table["n"][0].as_py() for table in total.values())]})

    return total


@pytest.mark.parametrize("first", [1, 2], ids=["first partition", "second partition"])
def test_an_asset_that_depends_on_its_own_past_can_start_where_there_is_none(world: World, first: int) -> None:
    total = running_total()
    for day in (first, first + 1):
        world.materialize([total], partition=f"2024-01-0{day}")
    assert world.version("total").to_arrow(f"2024-01-0{first + 1}")["n"].to_pylist() == [2]


def test_the_first_partition_of_an_asset_that_depends_on_its_past_reads_nothing_when_it_runs_again(
    world: World,
) -> None:
    total = running_total()
    dataset = world.registry.create_dataset("total")
    dataset.commit({f"2024-01-0{day}": pa.table({"n": [100]}) for day in (1, 2)})
    world.materialize([total], partition="2024-01-01")
    assert dataset.version().to_arrow("2024-01-01")["n"].to_pylist() == [1]


def test_a_value_loaded_outside_of_a_run_has_the_partition_asked_for_or_all(fresh: World) -> None:
    partitions = dg.StaticPartitionsDefinition(["data", "red"])  # 'data' is also what a lone component is called
    source = keyed(partitions)
    definitions = dg.Definitions(assets=[source], resources=fresh.resources())
    for key in ("data", "red"):
        fresh.materialize([source], partition=key)

    def load(**options: Any) -> list[str]:
        table = definitions.load_asset_value("source", python_type=pa.Table, instance=fresh.instance, **options)
        return table["key"].to_pylist()

    assert load(partition_key="red") == ["red"]
    assert load(partition_key="data") == ["data"]
    assert load() == ["data", "red"]


def test_a_materialization_says_which_partition_it_is(world: World) -> None:
    result = world.materialize([keyed(COLORS)], partition="red")
    assert materialized(result, "source").partition == "red"
    made = world.version("source")
    assert made.provenance.partition == "red"
    assert made.message == "Materialize source [red]"
