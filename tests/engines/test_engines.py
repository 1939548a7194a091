"""Tables read by the engines of clusters: Dask, Ray, and Spark's protocol as Sail speaks it."""

import datetime as dt
import decimal
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from dataset_registry import Registry, Version
from dataset_registry.embedded.dataset import EmbeddedVersion
from dataset_registry.engines import dask as dask_engine
from dataset_registry.engines.scans import TableScan, in_groups
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.records import PartRecord
from tests.engines.clusters import local_ray, local_spark

ROWS = 30_000


def table(rows: int = ROWS) -> pa.Table:
    """Rows of every kind of type that an engine might take for another one, in several parts."""
    moments = [1_700_000_000_123_456 + 61_000_000 * i for i in range(rows)]
    return pa.table(
        {
            "id": range(rows),
            "text": [f"{i % 977:0300}" for i in range(rows)],
            "utc": pa.array(moments, pa.timestamp("us", "UTC")),
            "there": pa.array(moments, pa.timestamp("us", "Europe/Berlin")),
            "local": pa.array(moments, pa.timestamp("us")),
            "unsigned": pa.array([i * 100_000 for i in range(rows)], pa.uint32()),
            "price": pa.array([decimal.Decimal(i) / 100 for i in range(rows)], pa.decimal128(12, 2)),
            "list": [[i, None] if i % 3 else None for i in range(rows)],
            "struct": [{"a": i, "b": str(i)} for i in range(rows)],
            "day": pa.array([i % 20_000 for i in range(rows)], pa.date32()),
            "share": [float("nan") if i % 5 == 0 else i / 7 for i in range(rows)],
            "maybe": [None if i % 2 else i for i in range(rows)],
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry whose table has several parts under a tag, whose head has ten rows, and with a table for each of two days."""
    found = tmp_path_factory.mktemp("registry")
    with Registry.open(found, actor="alice") as registry:
        dataset = registry.create_dataset("raw/flights")
        dataset.commit({"data": table()})
        dataset.create_tag("1.0")
        dataset.commit({"data": table().slice(0, 10)})
        daily = registry.create_dataset("raw/daily")
        daily.commit({day: table().slice(i * 100, 100) for i, day in enumerate(["2026-01-01", "2026-01-02"])})
    return found


@pytest.fixture
def version(folder: Path) -> Iterator[Version]:
    with Registry.open(folder) as registry:
        yield registry.version("raw/flights@1.0")


def options(folder: Path) -> dict[str, Any]:
    return {"location": str(folder)}


def test_a_partition_of_dask_is_a_part(folder: Path, version: Version) -> None:
    frame = dask_engine.read_table("raw/flights@1.0", **options(folder))
    assert frame.npartitions == len(version.table_parts()) > 3
    whole = version.to_pandas().astype({"maybe": "Int64"})
    pd.testing.assert_frame_equal(frame.compute().reset_index(drop=True), whole)
    assert frame["id"].sum().compute() == sum(range(ROWS))
    assert list(frame.dtypes) == list(whole.dtypes)
    assert len(dask_engine.read_table("raw/flights@main", **options(folder))) == 10
    both = dask_engine.read_table("raw/daily", **options(folder))
    assert both.compute()["id"].to_list() == list(range(200))
    one = dask_engine.read_table("raw/daily", "2026-01-02", columns=["id"], **options(folder))
    assert one.compute()["id"].to_list() == list(range(100, 200))


def test_dask_reads_the_columns_that_it_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = Version.to_pandas
    monkeypatch.setattr(
        Version,
        "to_pandas",
        lambda self, *given, **named: asked.append(named["columns"]) or real(self, *given, **named),
    )
    frame = dask_engine.read_table("raw/flights@1.0", **options(folder))
    asked.clear()
    assert frame[["id", "maybe"]].max().compute().to_list() == [ROWS - 1, ROWS - 2]
    assert asked
    assert all(list(columns) == ["id", "maybe"] for columns in asked)


def test_parts_that_have_no_such_rows_are_no_partitions(folder: Path) -> None:
    last = dask_engine.read_table("raw/flights@1.0", filter=ds.field("id") >= ROWS - 5, **options(folder))
    assert last.npartitions == 1
    assert last.compute()["id"].to_list() == list(range(ROWS - 5, ROWS))
    none = dask_engine.read_table("raw/flights@1.0", filter=ds.field("id") < 0, **options(folder))
    assert (len(none), list(none.columns)) == (0, table(1).column_names)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of Dask with pandas 3.1
def test_dask_reads_through_the_file_system_too(folder: Path, version: Version) -> None:
    frame = dd.read_parquet("registry://raw/flights@1.0/data.parquet", columns=["id"], storage_options=options(folder))
    assert frame["id"].sum().compute() == sum(range(ROWS))


def test_a_scan_stays_with_its_version_and_is_a_small_value(folder: Path) -> None:
    scan = TableScan.of("raw/flights@1.0", columns=["id"], filter=ds.field("id") > 3, options=options(folder))
    assert scan.schema.names == ["id"]
    copied = pickle.loads(pickle.dumps(scan))
    assert len(pickle.dumps(scan)) < 2_000
    assert copied.read([0]).equals(scan.read([0]))
    with pytest.raises(NotFound, match="no branch"):
        TableScan.of("raw/flights@nowhere", options=options(folder))
    with pytest.raises(InputError, match=r"Unknown option 'folder' of the registry\. Use: location, catalog"):
        TableScan.of("raw/flights", options={"folder": str(folder)})


def test_the_run_that_reads_is_recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[tuple[str, str]] = []
    monkeypatch.setattr(EmbeddedVersion, "note_read", lambda self, run_id: noted.append((str(self), run_id)))
    dask_engine.read_table("raw/flights@1.0", run_id="run-7", **options(folder)).compute()
    assert noted == [("raw/flights@v1", "run-7")]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_runs_of_parts_are_of_about_the_same_size(count: int) -> None:
    parts = [PartRecord(i, "data", 0, 1 + i % 4) for i in range(20)]
    groups = in_groups(parts, count)
    assert [part for group in groups for part in group] == parts
    assert len(groups) <= count
    assert all(groups)
    total = sum(part.size for part in parts)
    assert all(sum(part.size for part in group) <= total / count + 4 for group in groups)
    assert in_groups([], count) == []


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A registry to write to."""
    Registry.open(tmp_path / "target").close()
    return tmp_path / "target"


def written(target: Path, name: str = "raw/copy") -> Version:
    """The version that was written, when nothing else is left."""
    with Registry.open(target) as registry:
        assert [dataset.name for dataset in registry.datasets()] == [name]
        return registry.version(name)


def test_dask_writes_one_version(folder: Path, target: Path, version: Version) -> None:
    frame = dask_engine.read_table("raw/flights@1.0", **options(folder))
    with pytest.raises(InputError, match=r"their columns differ .*decimal128\(4, 2\)"):
        dask_engine.write_table(frame, "raw/copy", **options(target))
    schema = version.to_arrow(parts=[]).schema
    made = dask_engine.write_table(
        frame, "raw/copy@main", key="id", message="by Dask", schema=schema, **options(target)
    )
    assert (made.number, made.message) == (1, "by Dask")
    found = written(target)
    assert found.to_arrow().drop_columns("share").equals(version.to_arrow().drop_columns("share"))
    assert found.to_arrow()["share"].to_pandas().equals(version.to_arrow()["share"].to_pandas())
    dask_engine.write_table(frame[["id"]].partitions[:1], "raw/more", mode="append", **options(target))
    with Registry.open(target) as registry:
        rows = registry.version("raw/more").to_arrow()
    dask_engine.write_table(frame[["id"]].partitions[:1], "raw/more", mode="append", **options(target))
    with Registry.open(target) as registry:
        assert registry.version("raw/more").to_arrow().equals(pa.concat_tables([rows, rows]))
    with pytest.raises(ZeroDivisionError):
        dask_engine.write_table(
            frame.map_partitions(lambda part: part if len(part) < 0 else 1 / 0, meta=frame),
            "raw/copy",
            **options(target),
        )
    with Registry.open(target) as registry:
        assert [dataset.name for dataset in registry.datasets()] == ["raw/copy", "raw/more"]
        assert registry.version("raw/copy").number == 1


# --- Ray ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with local_ray() as found:
        yield found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray by itself
def test_ray_reads_a_table_in_tasks(ray: Any, folder: Path, version: Version) -> None:
    from dataset_registry.engines.ray import read_table

    found = read_table("raw/flights@1.0", override_num_blocks=4, **options(folder))
    assert found.schema().names == version.to_arrow(parts=[]).column_names
    rows = pa.concat_tables(ray.get(found.to_arrow_refs()))
    assert rows.schema.equals(version.to_arrow(parts=[]).schema)
    pd.testing.assert_frame_equal(rows.sort_by("id").to_pandas(), version.to_arrow().to_pandas())
    last = read_table("raw/flights@1.0", filter=ds.field("id") >= ROWS - 5, columns=["id"], **options(folder))
    assert [row["id"] for row in last.take_all()] == list(range(ROWS - 5, ROWS))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray by itself
def test_ray_writes_one_version(ray: Any, folder: Path, target: Path, version: Version) -> None:
    from dataset_registry.engines.ray import read_table, write_table

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    found = read_table("raw/flights@1.0", override_num_blocks=4, **options(folder))
    made = write_table(found, "raw/copy", key="id", **options(target))
    assert made.number == 1
    pd.testing.assert_frame_equal(written(target).to_arrow().to_pandas(), version.to_arrow().to_pandas())

    def failing(table: pa.Table) -> pa.Table:
        raise ZeroDivisionError

    with pytest.raises(ray.exceptions.RayTaskError, match="ZeroDivisionError"):
        write_table(found.map_batches(failing, batch_format="pyarrow"), "raw/copy", **options(target))
    assert written(target).number == 1


# --- Spark -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with local_spark() as session:
        from dataset_registry.engines.spark import RegistryDataSource

        session.conf.set("spark.sql.session.timeZone", "UTC")
        session.dataSource.register(RegistryDataSource)
        yield session


def test_spark_reads_a_table(spark: Any, folder: Path, version: Version) -> None:
    frame = spark.read.format("dataset_registry").option("ref", "raw/flights@1.0").options(**options(folder)).load()
    found = frame.orderBy("id").toArrow()
    whole = version.to_arrow()
    assert found.column_names == whole.column_names
    for name in ("id", "text", "utc", "local", "price", "list", "struct", "day", "maybe"):
        assert found[name].to_pylist() == whole[name].to_pylist(), name
    assert found["unsigned"].to_pylist() == whole["unsigned"].to_pylist()
    assert found["there"].cast(pa.int64()).equals(whole["there"].cast(pa.int64()))
    assert found["share"].fill_null(-1).to_pandas().equals(whole["share"].to_pandas())
    assert frame.filter(f"id >= {ROWS - 5}").count() == 5
    pruned = (
        spark.read.format("dataset_registry").option("prune", "true").options(**options(folder)).load("raw/flights@1.0")
    )
    assert pruned.filter(f"id >= {ROWS - 5}").count() == 5
    assert frame.filter("there > '2026-01-01'").count() == frame.filter("utc > '2026-01-01'").count()


def test_spark_reads_some_columns_of_a_component(spark: Any, folder: Path) -> None:
    asked = spark.read.format("dataset_registry").option("columns", "id, day").option("component", "2026-01-02")
    found = asked.options(**options(folder)).load("raw/daily")
    assert found.columns == ["id", "day"]
    assert sorted(row.id for row in found.collect()) == list(range(100, 200))
    with pytest.raises(Exception, match=r"Add .option\(.ref., .raw/flights@main.\)"):
        spark.read.format("dataset_registry").options(**options(folder)).load().collect()


def test_spark_writes_one_version(spark: Any, folder: Path, target: Path, version: Version) -> None:
    frame = spark.read.format("dataset_registry").option("ref", "raw/flights@1.0").options(**options(folder)).load()
    frame = frame.coalesce(1)  # Sail refuses what several tasks wrote
    write = frame.write.format("dataset_registry").option("key", "id").option("message", "by Spark")
    write.mode("overwrite").options(**options(target)).save("raw/copy@main")
    found = written(target)
    assert (found.number, found.message, found.schema.tables()["data"].key) == (1, "by Spark", ("id",))
    rows = found.to_arrow().sort_by("id")  # Sail puts partitions together as they come
    assert rows["id"].to_pylist() == list(range(ROWS))
    assert rows["list"].to_pylist() == version.to_arrow()["list"].to_pylist()
    frame.filter("id < 3").coalesce(1).write.format("dataset_registry").mode("append").options(**options(target)).save(
        "raw/copy@main"
    )
    assert sorted(written(target).to_arrow()["id"].to_pylist()[-3:]) == [0, 1, 2]


def test_filters_of_spark_prune_parts_where_both_compare_alike(folder: Path) -> None:
    pytest.importorskip("pyspark")
    from pyspark.sql import datasource

    from dataset_registry.engines.spark import PruningReader

    everything = TableScan.of("raw/flights@1.0", options=options(folder))
    last = datasource.GreaterThanOrEqual(("id",), ROWS - 5)
    day = datasource.EqualTo(("day",), dt.date(2200, 1, 1))
    for filters, count in [
        ([last], 1),
        ([datasource.EqualTo(("id",), 3)], 1),
        ([datasource.In(("id",), (3, ROWS - 1))], 2),
        ([day], 0),
        ([datasource.LessThan(("share",), 0.0)], len(everything.parts())),
        ([datasource.EqualTo(("struct", "a"), 3)], len(everything.parts())),
        ([last, datasource.LessThanOrEqual(("id",), 3)], 0),
    ]:
        reader = PruningReader(everything)
        assert list(reader.pushFilters(filters)) == filters
        assert len(reader.partitions()) == count, filters
