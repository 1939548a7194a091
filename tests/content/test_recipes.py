"""Recipes and packs: files that are kept as ranges of objects are files like any other, to readers and to housekeeping."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dataset_registry import Dataset, Registry, Version
from dataset_registry.content import pack
from dataset_registry.errors import CorruptionError
from dataset_registry.model.chunks import Chunk, ChunkIndex, Range, cut, joined, pays, recipe, worth_trying
from dataset_registry.store import Ranges
from dataset_registry.tabular import chunking
from tests.operations.support import NOW, age, ask, content, flip, objects

pytestmark = pytest.mark.objects

ROWS = 40_000
HEAD = len(pack.pack_head())


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few thousand rows, pieces of one small column each."""
    monkeypatch.setattr(chunking, "PART_BYTES", 1 << 18)
    monkeypatch.setattr("dataset_registry.tabular.parquet._PIECE", 1 << 10)
    monkeypatch.setattr(pack, "_LEAST", 1 << 16)


def table_of(rows: int = ROWS, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    return pa.table(
        {"id": np.arange(rows), **{f"c{i}": random.integers(0, 1 << 40, rows) for i in range(6)}, "x": np.zeros(rows)}
    )


def pq_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def scatter(table: pa.Table) -> pa.Table:
    """The table with one value in a hundred of one column changed."""
    values = table.column("c3").to_numpy().copy()
    values[::100] += 1
    return table.set_column(table.schema.get_field_index("c3"), "c3", pa.array(values))


def stored(registry: Registry) -> int:
    return sum(objects(registry).values())


def forms(registry: Registry, version: Version) -> set[str]:
    found = version._contents.data_files(version.record, version.components)
    return {file.form for listed in found for file in listed}


@pytest.fixture
def flights(registry: Registry) -> Dataset:
    return registry.create_dataset("raw/flights")


# --- decisions -----------------------------------------------------------------------------------------------------


def test_a_file_is_what_a_library_has_of_it_and_its_own_bytes() -> None:
    library = ChunkIndex()
    library.add([Chunk(10, "a"), Chunk(20, "b"), Chunk(5, "c")], [Range("x", 100, 25), Range("y", 0, 10)])
    made = recipe([Chunk(7, "new"), Chunk(20, "b"), Chunk(5, "c"), Chunk(1, "end")], library)
    assert made.ranges == (Range("", 0, 7), Range("x", 110, 15), Range("y", 0, 10), Range("", 32, 1))
    assert made.known == 25
    assert pays(made, 33)
    assert not pays(recipe([Chunk(300, "new"), Chunk(20, "b")], library), 320)


def test_ranges_of_ranges_are_ranges_of_objects() -> None:
    ranges = [Range("x", 5, 10), Range("y", 0, 10), Range("x", 40, 10)]
    assert list(cut(ranges, 8, 14)) == [Range("x", 13, 2), Range("y", 0, 10), Range("x", 40, 2)]
    assert list(cut(ranges, 0, 30)) == ranges
    assert joined([Range("x", 0, 5), Range("x", 5, 5), Range("x", 11, 1)]) == [Range("x", 0, 10), Range("x", 11, 1)]


def test_data_that_never_repeats_is_compared_ever_more_rarely() -> None:
    assert [n for n in range(20) if worth_trying(n)] == [0, 1, 2, 4, 8, 16]


# --- what is stored, and what readers get --------------------------------------------------------------------------


def test_values_that_change_in_one_column_cost_that_column(registry: Registry, flights: Dataset) -> None:
    table = table_of()
    first = flights.commit({"data": table}, key=["id"])
    whole = stored(registry)
    changed = scatter(table)
    with flights.draft() as draft:
        draft.add("data", changed)
    assert draft.result.new_bytes == stored(registry) - whole
    assert draft.result.new_bytes < whole * 0.25
    version = draft.version
    assert forms(registry, version) == {"ranges"}
    assert version.to_arrow() == changed
    assert first.to_arrow() == table
    small = ds.field("id") < 100
    assert version.to_arrow(columns=["c3"], filter=small) == changed.slice(0, 100).select(["c3"])
    assert version.scan().count_rows() == ROWS
    assert version.to_polars().height == version.lazy().collect().height == len(version.to_duckdb()) == ROWS
    assert [pq.read_metadata(path).num_rows for path in version.paths()] == [
        pq.read_metadata(path).num_rows for path in first.paths()
    ]
    assert registry.verify(deep=True).clean


def test_a_new_column_costs_the_column(registry: Registry, flights: Dataset) -> None:
    table = table_of()
    flights.commit({"data": table}, key=["id"])
    whole = stored(registry)
    wider = table.append_column("extra", pa.array(np.random.default_rng(5).random(ROWS)))
    version = flights.commit({"data": wider})
    assert stored(registry) - whole < ROWS * 8 * 1.1 + whole * 0.06
    again = flights.commit({"data": scatter(wider)})  # ranges of what are ranges already
    assert version.to_arrow() == wider
    assert again.to_arrow() == scatter(wider)
    assert registry.verify(deep=True).clean


def lines(count: int = 20_000) -> list[str]:
    random = Random(1)
    return [f"{i},{random.random()},{random.randrange(1 << 40)}" for i in range(count)]


def test_a_line_that_is_put_into_a_csv_file_costs_a_few_chunks(
    registry: Registry, flights: Dataset, tmp_path: Path
) -> None:
    text = lines()
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["a,b,c", *text]))
    flights.commit({"data": path})
    whole = stored(registry)
    path.write_text("\n".join(["a,b,c", *text[:777], "1,2,3", *text[777:]]))
    version = flights.commit({"data": path})
    assert stored(registry) - whole < whole * 0.35
    assert forms(registry, version) == {"ranges"}
    with version.open() as stream:
        assert stream.read() == path.read_bytes()
    (copy,) = version.checkout(tmp_path / "out")
    assert copy.read_bytes() == path.read_bytes()
    assert version.to_arrow().num_rows == 20_001
    path.write_text("\n".join(["a,b,c", *text[:777], "1,2,3", *text[777:], "4,5,6"]))
    third = flights.commit({"data": path})
    assert content(flights)["data.0"] == path.read_bytes()
    assert forms(registry, third) == {"ranges"}
    assert registry.verify(deep=True).clean


def test_a_parquet_file_that_somebody_hands_in_shares_its_column_chunks(
    registry: Registry, flights: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    for n, table in enumerate((table_of(), scatter(table_of()))):
        pq.write_table(table, path, compression="none", use_dictionary=False)
        version = flights.commit({"data": path})
        if n == 0:
            whole = stored(registry)
    assert stored(registry) - whole < whole * 0.25
    assert forms(registry, version) == {"ranges"}
    assert version.paths()[0].read_bytes() == path.read_bytes()


def test_files_that_share_nothing_stay_objects(registry: Registry, flights: Dataset) -> None:
    random = Random(0)
    compared = []
    for _ in range(6):
        version = flights.commit({"noise": random.randbytes(100_000)})
        assert forms(registry, version) == {"whole"}
        (file,) = version._contents.data_files(version.record, version.components)[0]
        compared.append(bool(version._contents.facts(version.record, [file]).get(file.id, pack.FileFacts()).chunks))
    assert compared == [False, True, True, True, False, True]


def many(random: Random, count: int = 40) -> dict[str, bytes]:
    return {f"f{i}": random.randbytes(200 + i) for i in range(count)}


def test_many_small_files_are_one_object(registry: Registry, flights: Dataset) -> None:
    files = many(Random(0))
    version = flights.commit({**files, "empty": b""})
    assert len(objects(registry)) == 1
    assert {c.name: version.open(c.name).read() for c in version.components} == {**files, "empty": b""}
    counts = {form: [f.reference_count for f in registry.files() if f.form == form] for form in ("ranges", "pack")}
    assert counts == {"ranges": [1] * 41, "pack": [40]}  # nothing of it is nothing
    assert sum(file.stored_size for file in registry.files()) == stored(registry)
    assert registry.file(version.components[3].content_hash or "").stored_size == 0
    other = registry.create_dataset("other").commit({"same": files["f7"]})
    assert len(objects(registry)) == 1
    assert registry.file(other.components[0].content_hash or "").reference_count == 2
    assert registry.verify(deep=True).clean


def test_files_that_are_to_be_compressed_are_not_packed(sqlite_url: str, tmp_path: Path) -> None:
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store"), compression="zstd") as registry:
        with registry.create_dataset("d").draft() as draft:
            for i in range(20):
                draft.add(f"f{i}", f"a,b\n{i},1\n".encode() + b"1,1\n" * 500, format="csv")
        assert len(objects(registry)) == 20


# --- other engines -------------------------------------------------------------------------------------------------


def addresses(version: Version) -> list[Path]:
    return [Path(urlsplit(uri).path) for uri in version.uris()]


def test_the_uris_of_a_recipe_are_files_that_stay_for_a_day(registry: Registry, flights: Dataset) -> None:
    flights.commit({"data": table_of()}, key=["id"])
    changed = scatter(table_of())
    version = flights.commit({"data": changed})
    paths = addresses(version)
    assert pa.concat_tables([pq.read_table(path) for path in paths]) == changed
    assert addresses(version) == paths
    registry.collect(older_than=NOW)
    assert all(path.exists() for path in paths)
    assert registry.verify(older_than=NOW).clean
    age(registry, 24 * 3, "assembled_files.expires_at")
    registry.collect(older_than=NOW)
    assert not any(path.exists() for path in paths)
    assert version.to_arrow() == changed
    assert ask(registry, "SELECT count(*) FROM assembled_files") == [0]


def test_somebody_who_was_faster_put_it_together_for_both(registry: Registry, flights: Dataset) -> None:
    from dataset_registry.catalog import recipes

    flights.commit({"data": table_of()}, key=["id"])
    version = flights.commit({"data": scatter(table_of())})
    (paths,) = version._contents.data_files(version.record, version.components)
    first = version._contents.uri(paths[0])
    mine = f"{paths[0].content_hash}.{'e' * 32}"
    theirs = registry.access.catalog.write(lambda tx: recipes.lease(tx, paths[0].id, mine))
    assert first.endswith(str(theirs))
    assert ask(registry, "SELECT object_key FROM trash") == [mine]
    assert registry.access.catalog.write(lambda tx: recipes.lease(tx, 10**6, f"{'a' * 64}.{'e' * 32}")) is None


def test_recipes_are_the_same_on_s3(sqlite_url: str, s3_url: str) -> None:
    with Registry.open(catalog=sqlite_url, store=s3_url) as registry:
        flights = registry.create_dataset("raw/flights")
        table, files = table_of(), many(Random(0))
        flights.commit({"data": table, **files}, key=["id"])
        version = flights.commit({"data": scatter(table)})
        assert version.to_arrow(["data"]) == scatter(table)
        assert version.open("f5").read() == files["f5"]
        assert all(uri.startswith("s3://") for uri in version.uris("data"))
        before = len(objects(registry))
        assert version.uris("data") == version.uris("data")
        assert len(objects(registry)) == before
        assert registry.verify(deep=True, older_than=NOW).clean


# --- housekeeping --------------------------------------------------------------------------------------------------


def test_what_a_recipe_names_outlives_the_version_that_stored_it(registry: Registry, flights: Dataset) -> None:
    flights.commit({"data": table_of()}, key=["id"])
    changed = scatter(table_of())
    flights.commit({"data": changed})
    copy = registry.create_dataset("copy").commit({"data": changed})
    before = stored(registry)
    flights.delete()
    plan = registry.collect(older_than=NOW, dry_run=True)
    done = registry.collect(older_than=NOW)
    assert [file.id for file in plan.files] != []
    assert done.files == len(plan.files)
    assert copy.to_arrow() == changed
    assert stored(registry) <= before
    assert registry.verify(deep=True, older_than=NOW).clean
    registry.dataset("copy").delete()
    registry.collect(older_than=NOW)
    assert objects(registry) == {}
    assert ask(registry, "SELECT count(*) FROM files") == [0]


def test_a_pack_of_which_little_is_left_is_packed_anew(registry: Registry, flights: Dataset) -> None:
    random = Random(0)
    files = {f"f{i}": random.randbytes(200_000) for i in range(20)}
    flights.commit(files)
    with flights.draft() as draft:
        for i in range(1, 20):
            draft.remove(f"f{i}")
    kept = registry.create_dataset("kept").commit({"a": files["f0"], "b": files["f13"], "c": files["f14"]})
    flights.delete()
    registry.collect(older_than=NOW)  # copies
    registry.collect(older_than=NOW)  # and lets go
    assert stored(registry) == 600_000 + HEAD
    assert [kept.open(name).read() for name in "abc"] == [files["f0"], files["f13"], files["f14"]]
    assert registry.verify(deep=True, older_than=NOW).clean


def test_what_many_recipes_have_of_an_object_counts_once(
    registry: Registry, flights: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataset_registry.catalog import collection
    from dataset_registry.model.retention import Policy, Rule

    monkeypatch.setattr(collection, "_WORTHWHILE", 1 << 10)
    table = table_of()
    flights.commit({"data": table}, key=["id"])
    for seed in range(1, 31):
        kept = table.column("c5")
        table = table_of(seed=seed)
        table = table.set_column(table.schema.get_field_index("c5"), "c5", kept)
        flights.commit({"data": table})
    age(registry, 48, "dataset_versions.ingestion_timestamp")
    registry.apply(registry.expire(Policy((Rule(last=25),)), dry_run=True))
    registry.collect(older_than=NOW)
    before = stored(registry)
    registry.collect(older_than=NOW)
    assert before - stored(registry) > 0.5 * len(pq_bytes(table_of()))
    assert flights.version().to_arrow() == table
    assert registry.verify(deep=True, older_than=NOW).clean


def test_an_object_that_is_lost_does_not_keep_others_from_being_packed_anew(registry: Registry) -> None:
    random = Random(0)
    kept = {}
    for name in ("lost", "sound"):
        files = {f"f{i}": random.randbytes(200_000) for i in range(20)}
        registry.create_dataset(name).commit(files)
        kept[name] = registry.create_dataset(f"kept/{name}").commit({"a": files["f0"]})
        registry.dataset(name).delete()
    (key, _) = ask(registry, "SELECT object_key FROM files WHERE form = 'pack' ORDER BY id")
    registry.access.store.delete(key)
    registry.collect(older_than=NOW)
    registry.collect(older_than=NOW)
    assert stored(registry) == 200_000 + HEAD
    assert len(kept["sound"].open("a").read()) == 200_000
    with pytest.raises(CorruptionError):
        kept["lost"].open("a").read()


def test_a_reader_does_not_notice_that_what_it_reads_was_packed_anew(registry: Registry, flights: Dataset) -> None:
    random = Random(0)
    files = {f"f{i}": random.randbytes(200_000) for i in range(20)}
    flights.commit(files)
    kept = registry.create_dataset("kept").commit({"a": files["f0"]})
    (file,) = kept._contents.data_files(kept.record, kept.components)[0]
    flights.delete()
    registry.collect(older_than=NOW)
    registry.collect(older_than=NOW)
    assert kept._contents.open(kept.record, file).read() == files["f0"]
    assert kept._contents.fetch(kept.record, file).read_bytes() == files["f0"]


def test_an_object_that_somebody_is_about_to_name_is_not_packed_anew(registry: Registry, flights: Dataset) -> None:
    from dataset_registry.catalog import holds

    random = Random(0)
    files = {f"f{i}": random.randbytes(200_000) for i in range(20)}
    flights.commit(files)
    registry.create_dataset("kept").commit({"a": files["f0"]})
    flights.delete()
    registry.collect(older_than=NOW, dry_run=True)
    (pack,) = ask(registry, "SELECT content_hash FROM files WHERE form = 'pack'")
    held = list(registry.access.catalog.write(lambda tx: holds.hold(tx, {pack: None})).values())
    registry.collect(older_than=NOW)
    assert ask(registry, "SELECT count(*) FROM files WHERE form = 'pack'") == [1]
    registry.access.catalog.write(lambda tx: holds.release(tx, held))
    registry.collect(older_than=NOW)
    registry.collect(older_than=NOW)
    assert stored(registry) == 200_000 + HEAD


def test_a_damaged_object_takes_what_has_ranges_of_it_into_quarantine_and_back(
    registry: Registry, flights: Dataset
) -> None:
    files = many(Random(0))
    version = flights.commit(files)
    (pack,) = (registry.access.store.path(key) for key in objects(registry))
    assert pack is not None
    flip(pack, 8 * 300)
    with pytest.raises(CorruptionError):
        for name in files:
            version.open(name).read()
    verification = registry.verify(deep=True, repair=True)
    assert {finding.kind for finding in verification.damage} == {"content"}
    with pytest.raises(CorruptionError, match="quarantine"):
        version.open("f30").read()
    flip(pack, 8 * 300)
    assert registry.verify(deep=True, repair=True).clean
    assert {c.name: version.open(c.name).read() for c in version.components} == files


def test_content_of_a_damaged_pack_heals_when_it_is_committed_again(registry: Registry, flights: Dataset) -> None:
    files = many(Random(0))
    version = flights.commit(files)
    (pack,) = (registry.access.store.path(key) for key in objects(registry))
    assert pack is not None
    pack.unlink()
    assert not registry.verify(repair=True).clean
    registry.create_dataset("again").commit(files)
    assert {c.name: version.open(c.name).read() for c in version.components} == files
    registry.collect(older_than=NOW)
    assert registry.verify(deep=True, older_than=NOW).clean


def test_ranges_may_lie_far_into_a_large_object(registry: Registry, flights: Dataset) -> None:
    from dataset_registry.catalog import recipes

    flights.commit({"a": b"1", "b": b"2"})
    one, two = ask(registry, "SELECT id FROM files ORDER BY id")
    registry.access.catalog.write(lambda tx: recipes.add_ranges(tx, [(one, 0, two, 5 << 30, 6 << 30)]))
    assert ask(registry, "SELECT object_offset + byte_count FROM file_ranges") == [11 << 30]


def test_a_recipe_that_does_not_add_up_is_found(registry: Registry, flights: Dataset) -> None:
    from tests.operations.support import write

    flights.commit(many(Random(0)))
    write(
        registry,
        "UPDATE file_ranges SET byte_count = byte_count - 1 WHERE file_id = (SELECT min(file_id) FROM file_ranges)",
    )
    assert "recipe" in {finding.kind for finding in registry.verify().findings}


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "other") as opened:
        yield opened


def test_a_copy_moves_what_differs_and_keeps_recipes(registry: Registry, flights: Dataset, other: Registry) -> None:
    table, files = table_of(), many(Random(0))
    flights.commit({"data": table, **files}, key=["id"])
    registry.copy_to(other)
    changed = scatter(table)
    flights.commit({"data": changed})
    done = registry.copy_to(other)
    assert done.bytes < stored(registry) * 0.25
    there = other.dataset("raw/flights").version()
    assert forms(other, there) == {"ranges"}
    assert there.to_arrow(["data"]) == changed
    assert there.open("f3").read() == files["f3"]
    assert stored(other) == stored(registry)
    assert other.verify(deep=True, older_than=NOW).clean
    assert other.dataset("raw/flights").diff("v1", "v2").parts == flights.diff("v1", "v2").parts
    assert other.dataset("raw/flights").commit({"data": scatter(changed)}).to_arrow(["data"]) == scatter(changed)


def test_a_copy_of_the_last_version_alone_brings_what_its_recipes_name(
    registry: Registry, flights: Dataset, other: Registry
) -> None:
    flights.commit({"data": table_of()}, key=["id"])
    changed = scatter(table_of())
    registry.create_dataset("last").commit({"data": changed})
    flights.commit({"data": changed})
    registry.copy_to(other, datasets=["last"])
    assert other.dataset("last").version().to_arrow() == changed
    assert other.verify(deep=True, older_than=NOW).clean


def test_a_copy_to_where_an_object_is_ranges_brings_the_content(
    registry: Registry, flights: Dataset, other: Registry
) -> None:
    """What the source keeps as an object, the target may have as a recipe: nothing may become a range of that."""
    first, second, third = table_of(), scatter(table_of()), table_of().set_column(4, "c3", pa.array(np.arange(ROWS)))
    there = other.create_dataset("there")
    there.commit({"data": first}, key=["id"])
    there.commit({"data": second})
    flights.commit({"data": second}, key=["id"])
    flights.commit({"data": third})
    assert forms(registry, flights.version()) == {"ranges"}
    registry.copy_to(other)
    assert other.dataset("raw/flights").version("v1").to_arrow() == second
    assert other.dataset("raw/flights").version("v2").to_arrow() == third
    assert other.verify(deep=True, older_than=NOW).clean


def test_a_copy_heals_what_is_damaged_where_it_goes(registry: Registry, flights: Dataset, other: Registry) -> None:
    flights.commit({"data": table_of()}, key=["id"])
    changed = scatter(table_of())
    flights.commit({"data": changed})
    there = other.create_dataset("there")
    there.commit({"data": table_of()}, key=["id"])
    there.commit({"data": changed})
    for key in objects(other):
        path = other.access.store.path(key)
        assert path is not None
        path.unlink()
    assert not other.verify(repair=True).clean
    registry.copy_to(other)
    assert other.dataset("raw/flights").version().to_arrow() == changed
    assert there.version().to_arrow() == changed
    other.collect(older_than=NOW)
    assert other.verify(deep=True, older_than=NOW).clean


def test_expiry_says_how_many_bytes_it_frees_of_recipes(registry: Registry, flights: Dataset) -> None:
    from dataset_registry.model.retention import Policy, Rule

    table = table_of()
    for _ in range(3):
        flights.commit({"data": table}, key=["id"])
        table = scatter(table)
    random = Random(1)
    for n in range(2):
        flights.commit(many(random), overwrite=True, message=str(n))
    age(registry, 48, "dataset_versions.ingestion_timestamp")
    plan = registry.expire(Policy((Rule(last=1),)), dry_run=True)
    before = stored(registry)
    registry.apply(plan)
    registry.collect(older_than=NOW)
    assert before - stored(registry) == plan.bytes
    assert registry.verify(deep=True, older_than=NOW).clean


# --- reading at random ---------------------------------------------------------------------------------------------


def test_ranges_read_like_the_file_that_they_are() -> None:
    class Store:
        def read(self, key: str, offset: int, length: int) -> bytes:
            return {"x": b"abcdefghij", "y": b"0123456789"}[key][offset : offset + length]

    stream = Ranges(Store(), [("x", 2, 3), ("y", 0, 10), ("x", 9, 1)])
    assert stream.read() == b"cde0123456789j"
    assert (stream.seek(-2, 2), stream.read(5), stream.tell()) == (12, b"9j", 14)
    assert (stream.seek(2), stream.read(3), stream.seek(1, 1), stream.read(2)) == (2, b"e01", 6, b"34")
    assert Ranges(Store(), []).read() == b""


def test_a_filter_finds_what_it_finds_without_statistics(registry: Registry, flights: Dataset) -> None:
    """For every type whose bounds rule out parts, and for those whose bounds must not."""
    rows = 20_000
    moments = np.arange(rows, dtype="int64")
    nan = np.where(np.arange(rows) % 4_000 == 7, np.nan, 1.0)
    table = pa.table(
        {
            "int": pa.array(moments % 977, pa.int32(), mask=moments % 13 == 0),
            "unsigned": pa.array(moments.astype("uint64") + (1 << 63)),
            "float": pa.array(nan),
            "text": pa.array([f"{i:06}" * (60 if i == 19_000 else 1) for i in range(rows)]),
            "day": pa.array(moments // 100, pa.int32()).cast(pa.date32()),
            "ns": pa.array(moments * 1_001, pa.timestamp("ns")),
            "us": pa.array(moments, pa.timestamp("us", "UTC")),
            "decimal": pa.array(moments, pa.int64()).cast(pa.decimal128(20, 0)),
            "flag": pa.array(moments > 15_000),
            "nothing": pa.nulls(rows, pa.int64()),
        }
    )
    version = flights.commit({"data": table})
    assert len(version.paths()) > 3
    f = ds.field
    for condition in (
        f("int") > 970,
        f("int").is_null(),
        f("unsigned") == pa.scalar((1 << 63) + 19_999, pa.uint64()),
        f("float") < 0.5,
        f("text") >= "018999",
        f("day") == pa.scalar(199, pa.int32()).cast(pa.date32()),
        f("ns") == pa.scalar(19_999 * 1_001, pa.timestamp("ns")),
        f("us") > pa.scalar(19_990, pa.timestamp("us", "UTC")),
        f("decimal") > pa.scalar(19_990, pa.int64()).cast(pa.decimal128(20, 0)),
        f("flag") & (f("int") == 5),
        f("nothing").is_valid(),
        f("nothing").is_null() & (f("int") == 1),
    ):
        expected = table.filter(condition).drop_columns(["float"])  # NaN is not equal to itself
        assert version.to_arrow(filter=condition).drop_columns(["float"]) == expected, condition
        assert version.scan().to_table(filter=condition).drop_columns(["float"]) == expected, condition


def test_parts_that_a_filter_rules_out_are_not_opened(registry: Registry, flights: Dataset) -> None:
    version = flights.commit({"data": table_of()}, key=["id"])
    for path in version.paths()[1:]:
        path.chmod(0o600)
        path.write_bytes(b"no Parquet at all")
    first = pq.read_metadata(version.paths()[0]).num_rows
    found = version.to_arrow(filter=ds.field("id") < first)
    assert found.num_rows == first
    assert timedelta(0) == NOW
