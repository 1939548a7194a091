"""Expiring versions: what stays whatever a policy says, what becomes of the history, and what is free afterwards."""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import text

from dataset_registry import Dataset, Provenance, Registry
from dataset_registry.catalog import Transaction
from dataset_registry.catalog import versions as version_rows
from dataset_registry.errors import NotFound
from dataset_registry.model.records import InputVersion, VersionRecord
from dataset_registry.model.retention import Policy, Rule
from tests.chunking import every
from tests.operations.support import LAST, NOW, age, age_runs, ask, assert_exact, content, live, objects, write
from tests.waiting import SAFETY, until

pytestmark = pytest.mark.objects


def grow(dataset: Dataset, count: int, start: int = 0, **options: object) -> None:
    for i in range(start, start + count):
        dataset.commit({"data": f"{dataset.name} {i}".encode()}, **options)  # type: ignore[arg-type]


def left(dataset: Dataset) -> dict[int, tuple[int, ...]]:
    return {version.number: version.parents for version in dataset.tree()}


def read_from(dataset: Dataset, ref: str) -> InputVersion:
    version = dataset.version(ref)
    return InputVersion(dataset.name, version.number, version.digest, ref)


# --- what stays ----------------------------------------------------------------------------------------------------


def test_heads_tags_and_bases_of_registry_wide_branches_stay(flights: Dataset, registry: Registry) -> None:
    grow(flights, 4)
    registry.create_branch("x")
    grow(flights, 2, start=4)
    flights.commit({"data": b"x1"}, branch="x")
    flights.commit({"data": b"x2"}, branch="x")
    flights.create_tag("release", "v2")
    plan = registry.expire(LAST, dry_run=True)
    (found,) = plan.datasets
    assert found.kept == {2: "tag release", 4: "base of x", 6: "head of main", 8: "head of x"}
    assert [version.number for version in found.expiring] == [1, 3, 5, 7]
    assert left(flights).keys() == set(range(1, 9))
    assert registry.apply(plan).versions == 4
    assert left(flights) == {2: (), 4: (2,), 6: (4,), 8: (4,)}
    assert [b.name for b in flights.branches() if b.base == 4] == ["x"]
    assert registry.verify(deep=True).clean


def test_a_branch_without_a_rule_and_a_dataset_without_one_keep_everything(
    flights: Dataset, registry: Registry
) -> None:
    grow(flights, 3)
    flights.create_branch("dev", "v2")
    grow(flights, 2, start=10, branch="dev")
    other = registry.create_dataset("clean/flights")
    grow(other, 3)
    policy = Policy((Rule(datasets="raw/*", branches="main", last=1),))
    (found,) = registry.expire(policy, dry_run=True).datasets
    assert found.expiring == ()
    assert found.kept[1] == "on dev, for which there is no rule"
    registry.expire(Policy((Rule(datasets="raw/*", branches="dev", last=1),)))
    assert left(flights) == {1: (), 2: (1,), 3: (2,), 5: (2,)}  # main has no rule: 1 to 3 stay for it
    assert left(other).keys() == {1, 2, 3}


def test_the_first_rule_for_a_branch_decides_alone(flights: Dataset, registry: Registry) -> None:
    grow(flights, 5)
    registry.expire(Policy((Rule(branches="main", last=2), Rule(last=4))))
    assert left(flights).keys() == {4, 5}


def test_versions_on_no_branch_are_judged_as_one_more_history(flights: Dataset, registry: Registry) -> None:
    grow(flights, 2)
    flights.create_branch("dev")
    grow(flights, 4, start=10, branch="dev")
    flights.create_tag("tagged", "v4")
    flights.delete_branch("dev")
    (found,) = registry.expire(Policy((Rule(branches="main", last=5),)), dry_run=True).datasets
    assert found.expiring == ()
    assert found.kept[6] == "on no branch, for which there is no rule"
    registry.expire(Policy((Rule(branches="main", last=5), Rule(last=1))))
    assert left(flights) == {1: (), 2: (1,), 4: (2,), 6: (4,)}


def test_dates_of_versions_decide(flights: Dataset, registry: Registry) -> None:
    grow(flights, 4)
    write(registry, "UPDATE dataset_versions SET ingestion_timestamp = '2020-01-01 10:00:00' WHERE version_number < 3")
    write(registry, "UPDATE dataset_versions SET ingestion_timestamp = '2019-12-31 23:59:59' WHERE version_number = 1")
    (found,) = registry.expire(Policy((Rule(younger_than=timedelta(days=1)),)), dry_run=True).datasets
    assert [version.number for version in found.expiring] == [1, 2]
    (found,) = registry.expire(Policy((Rule(yearly=2),)), dry_run=True).datasets
    assert [version.number for version in found.expiring] == [1, 3]


def test_what_a_run_read_or_wrote_lately_stays_with_what_it_was_made_from(registry: Registry) -> None:
    source, target = registry.create_dataset("source"), registry.create_dataset("target")
    grow(source, 4)
    source.version("v1").note_read("reader")
    source.version("v1").note_read("reader")
    inputs = (read_from(source, "v2"),)
    grow(target, 1, provenance=Provenance(run_id="writer", inputs=inputs))
    grow(target, 1, start=1, provenance=Provenance(step="by hand", inputs=(read_from(source, "v3"),)))
    grow(target, 1, start=2)
    reasons = {found.dataset.name: dict(found.kept) for found in registry.expire(LAST, dry_run=True).datasets}
    used = "read or written by a run"
    assert reasons == {"source": {1: used, 2: used, 4: "head of main"}, "target": {1: used, 3: "head of main"}}
    age_runs(registry)
    assert registry.expire(LAST, dry_run=True).versions == 5  # all but the two heads
    assert registry.expire(LAST, dry_run=True, live_runs=["another"]).versions == 5
    assert registry.expire(LAST, dry_run=True, live_runs=["reader"]).versions == 4
    assert registry.expire(LAST, live_runs=["reader", "writer"]).versions == 2
    assert (left(source), left(target)) == ({1: (), 2: (1,), 4: (2,)}, {1: (), 3: (1,)})
    assert target.version("v1").provenance.inputs == inputs
    assert registry.expire(LAST).versions == 3
    assert (left(source), left(target)) == ({4: ()}, {3: ()})


def test_a_run_that_reads_just_now_is_running_whatever_the_list_says(flights: Dataset, registry: Registry) -> None:
    grow(flights, 3)
    flights.version("v1").note_read("new")
    assert registry.expire(LAST, live_runs=[]).versions == 1
    assert left(flights).keys() == {1, 3}


def test_an_unchanged_production_by_a_run_counts_as_written(flights: Dataset, registry: Registry) -> None:
    grow(flights, 1)
    flights.create_branch("dev")
    dev = flights.commit({"data": b"raw/flights 0"}, branch="dev", provenance=Provenance(run_id="again"))
    assert dev.number == 1
    grow(flights, 1, start=1)
    grow(flights, 1, start=2, branch="dev")
    age_runs(registry)
    assert registry.expire(LAST, live_runs=["again"]).versions == 0
    assert registry.expire(LAST).versions == 1


def test_with_keep_inputs_what_kept_versions_come_from_stays_through_any_number_of_steps(registry: Registry) -> None:
    names = ["a", "b", "c", "d"]
    sets = {name: registry.create_dataset(name) for name in names}
    grow(sets["a"], 3)
    for before, name in itertools.pairwise(names):
        for i in (1, 2, 3):
            made = Provenance(inputs=(read_from(sets[before], f"v{i}"),))
            grow(sets[name], 1, start=i, provenance=made)
    sets["d"].create_tag("model", "v2")
    policy = Policy((Rule(last=1),), keep_inputs=True)
    plan = registry.expire(policy, dry_run=True)
    assert {found.dataset.name: sorted(found.kept) for found in plan.datasets} == {key: [2, 3] for key in names}
    assert plan.datasets[0].kept[2] == "a kept version was made from it"
    only_a = Policy((Rule(datasets="a", last=1),), keep_inputs=True)
    assert (
        registry.expire(only_a, dry_run=True).versions == 0
    )  # b to d have no rule: all of them stays, and so its inputs
    registry.apply(plan)
    assert registry.expire(policy).versions == 0
    assert [v.provenance.inputs[0].version for v in (sets["d"].version("model"), sets["c"].version("v2"))] == [2, 2]
    assert sets["a"].version("v2").consumers == [("b", 2)]


def test_a_cycle_of_inputs_keeps_nothing_by_itself(registry: Registry) -> None:
    one, two = registry.create_dataset("one"), registry.create_dataset("two")
    grow(one, 1)
    grow(two, 1, provenance=Provenance(inputs=(read_from(one, "v1"),)))
    one.commit({"data": b"one 0"}, provenance=Provenance(inputs=(read_from(two, "v1"),)))
    grow(one, 1, start=1)
    grow(two, 1, start=1)
    assert registry.expire(Policy((Rule(last=1),), keep_inputs=True)).versions == 2


# --- the history ---------------------------------------------------------------------------------------------------


def test_middle_versions_go_and_their_children_are_spliced(flights: Dataset, registry: Registry) -> None:
    grow(flights, 3)
    flights.create_branch("dev", "v2")
    grow(flights, 2, start=10, branch="dev")  # 4, 5
    grow(flights, 2, start=3)  # 6, 7
    merge = flights.commit({"data": b"merged"}, parents=["main", "dev"])  # 8
    grow(flights, 2, start=20)  # 9, 10
    grow(flights, 1, start=30, branch="dev")  # 11
    assert merge.parents == (7, 5)
    for tag in ("v1", "v3", "v8"):
        flights.create_tag(f"tag-{tag}", tag)
    before = {n: content(flights, f"v{n}") for n in (1, 3, 8, 10, 11)}
    digests = {n: flights.version(f"v{n}").digest for n in before}
    assert registry.expire(LAST).versions == 6
    assert left(flights) == {1: (), 3: (1,), 8: (3, 1), 10: (8,), 11: (1,)}
    assert [v.number for v in flights.log()] == [10, 8, 3, 1]
    assert [v.number for v in flights.log("dev")] == [11, 1]
    assert [v.number for v in flights.merge_bases("main", "dev")] == [1]
    assert flights.version("main~1").number == 8
    assert flights.version("v8^2").number == 1
    assert [v.number for v in flights.children("v1")] == [3, 8, 11]
    assert {n: content(flights, f"v{n}") for n in before} == before
    assert {n: flights.version(f"v{n}").digest for n in before} == digests
    for gone in ("v2", "v4", "v9"):
        with pytest.raises(NotFound):
            flights.version(gone)
    made = flights.commit({"data": b"next"})
    assert (made.number, made.parents) == (12, (10,))
    assert registry.verify(deep=True).clean


def test_a_second_parent_becomes_the_first_where_the_first_line_ends(flights: Dataset, registry: Registry) -> None:
    grow(flights, 1)
    flights.create_branch("dev")
    grow(flights, 1, start=1)
    grow(flights, 1, start=10, branch="dev")
    flights.create_tag("kept", "dev")
    flights.commit({"data": b"merged"}, parents=["main", "dev"])
    flights.delete_branch("dev")
    registry.expire(LAST)
    assert left(flights) == {3: (), 4: (3,)}
    assert ask(registry, "SELECT count(*) FROM version_parents") == [0]


def test_depths_stay_as_they_were_and_still_grow_along_the_history(flights: Dataset, registry: Registry) -> None:
    grow(flights, 5)
    flights.create_tag("t", "v3")
    registry.expire(LAST)
    assert {v.number: v.depth for v in flights.tree()} == {3: 2, 5: 4}


def test_a_random_history_stays_who_comes_from_whom(flights: Dataset, registry: Registry) -> None:
    chance = random.Random(7)
    grow(flights, 1)
    branches = ["main"]
    for i in range(40):
        branch = chance.choice(branches)
        match chance.randrange(4):
            case 0 if len(branches) < 4:
                branches.append(f"b{i}")
                flights.create_branch(f"b{i}", branch)
            case 1 if (other := chance.choice(branches)) != branch and _head(flights, other) != _head(flights, branch):
                flights.commit({"data": f"m{i}".encode()}, branch=branch, parents=[branch, other])
            case _:
                grow(flights, 1, start=i + 1, branch=branch)
    for number in chance.sample(sorted(left(flights)), 5):
        flights.create_tag(f"t{number}", f"v{number}")
    before = left(flights)
    registry.expire(Policy((Rule(branches="main", last=2), Rule(last=1))))
    after = left(flights)
    assert len(after) < len(before) / 2
    for number in after:
        assert _ancestors(after, number) == _ancestors(before, number) & after.keys()
    assert registry.verify(deep=True).clean
    registry.collect(older_than=NOW)
    assert_exact(registry)


def _head(dataset: Dataset, branch: str) -> int:
    return dataset.version(branch).number


def _ancestors(parents: dict[int, tuple[int, ...]], number: int) -> set[int]:
    found: set[int] = set()
    wanted = [number]
    while wanted:
        if (at := wanted.pop()) not in found:
            found.add(at)
            wanted += parents[at]
    return found


# --- between plan and apply ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        (lambda d: d.create_tag("late", "v2"), {2}),
        (lambda d: d.create_branch("late", "v2"), {2}),
        (lambda d: d.move_branch("main", "v2"), {2}),
        (lambda d: d.version("v2").note_read("late"), {2}),
        (lambda d: d.version("v2").note_read("late") or d.version("v3").note_read("late"), {2, 3}),
    ],
    ids=["tag", "branch", "moved", "read", "reads"],
)
def test_a_version_that_came_to_be_needed_since_the_plan_stays(
    flights: Dataset, registry: Registry, change: Callable[[Dataset], object], stays: set[int]
) -> None:
    grow(flights, 5)
    plan = registry.expire(LAST, dry_run=True)
    change(flights)
    done = registry.apply(plan)
    assert (done.versions, done.kept) == (4 - len(stays), len(stays))
    assert left(flights).keys() == stays | {5}
    assert registry.verify(deep=True).clean


def test_a_version_that_a_run_was_made_from_since_the_plan_stays(registry: Registry) -> None:
    source = registry.create_dataset("source")
    grow(source, 3)
    plan = registry.expire(LAST, dry_run=True)
    grow(registry.create_dataset("t"), 1, provenance=Provenance(run_id="r", inputs=(read_from(source, "v1"),)))
    assert registry.apply(plan).versions == 1
    assert left(source) == {1: (), 3: (1,)}


def test_a_new_child_of_a_version_is_spliced_when_nothing_else_needs_its_parent(
    flights: Dataset, registry: Registry
) -> None:
    grow(flights, 3)
    plan = registry.expire(LAST, dry_run=True)
    flights.create_branch("late", "v2")
    grow(flights, 1, start=10, branch="late")  # v4 below v2, which no pointer names now
    flights.commit({"data": b"merge"}, parents=["main", "v1"])
    assert registry.apply(plan).versions == 2
    assert left(flights) == {3: (), 4: (), 5: (3,)}
    assert content(flights, "late") == {"data.0": b"raw/flights 10"}
    assert registry.verify(deep=True).clean


def test_an_input_of_a_version_that_was_made_since_the_plan_stays_with_keep_inputs(registry: Registry) -> None:
    source = registry.create_dataset("source")
    grow(source, 3)
    plan = registry.expire(Policy((Rule(last=1),), keep_inputs=True), dry_run=True)
    grow(registry.create_dataset("t"), 1, provenance=Provenance(inputs=(read_from(source, "v1"),)))
    registry.apply(plan)
    assert left(source).keys() == {1, 3}


def test_a_plan_is_applied_twice_and_after_its_versions_and_datasets_are_gone(registry: Registry) -> None:
    one, two = registry.create_dataset("one"), registry.create_dataset("two")
    grow(one, 3)
    grow(two, 3)
    plan = registry.expire(LAST, dry_run=True)
    two.delete()
    one.rename("renamed")
    assert (registry.apply(plan).versions, registry.apply(plan).kept) == (2, 4)
    assert left(one) == {3: ()}


def test_a_plan_and_its_application_take_the_same_list_of_runs(flights: Dataset, registry: Registry) -> None:
    grow(flights, 3, provenance=Provenance(run_id="over"))
    age_runs(registry, 12)
    assert registry.expire(LAST, dry_run=True).versions == 0
    plan = registry.expire(LAST, dry_run=True, live_runs=[])
    assert plan.versions == 2
    assert registry.apply(plan).versions == 0  # nobody said which runs there are: those of the last day count
    assert registry.apply(plan, live_runs=[]).versions == 2


def test_a_walk_back_is_whole_while_versions_expire(
    flights: Dataset, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A history is read in pages; between two of them an expiry may splice the first page's last version."""
    grow(flights, 40)
    flights.create_tag("first", "v1")
    down = version_rows.down

    def slowly(tx: Transaction, dataset_id: int, number: int, page: int) -> Iterator[VersionRecord]:
        for i, version in enumerate(down(tx, dataset_id, number, page=7)):
            if i == 10:
                registry.expire(LAST)
            yield version

    monkeypatch.setattr(version_rows, "down", slowly)
    assert [v.number for v in flights.log()] in (list(range(40, 0, -1)), [40, 1])
    monkeypatch.undo()
    assert [v.number for v in flights.log()] == [40, 1]


def test_expiries_and_commits_and_readers_at_the_same_time(flights: Dataset, registry: Registry) -> None:
    grow(flights, 1)
    registry.create_branch("x")
    over = threading.Event()
    failures: list[BaseException] = []
    done: Counter[threading.Thread] = Counter()

    def go(work: Callable[[int], object]) -> threading.Thread:
        def loop() -> None:
            i = 0
            try:
                while not over.is_set():
                    i += 1
                    work(i)
                    done[threading.current_thread()] += 1
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=loop)
        thread.start()
        return thread

    threads = [
        go(lambda i: flights.commit({"data": f"m{i}".encode()})),
        go(lambda i: flights.commit({"data": f"x{i}".encode()}, branch="x")),
        go(lambda i: registry.expire(Policy((Rule(last=2),)))),
        go(lambda i: registry.expire(LAST)),
        go(lambda i: registry.collect(older_than=NOW)),
    ]
    until(lambda: failures or min(done[thread] for thread in threads) >= 4, what="each of them was at it four times")
    over.set()
    for thread in threads:
        thread.join(SAFETY)
    assert failures == []
    registry.expire(LAST)
    base = {b.base for b in flights.branches()} - {None}
    assert left(flights).keys() == {b.version_number for b in flights.branches()} | base
    assert registry.verify(deep=True).clean
    registry.collect(older_than=NOW)
    assert_exact(registry)


# --- bytes ---------------------------------------------------------------------------------------------------------


def frees_what_it_says(registry: Registry, policy: Policy = LAST) -> int:
    """Expire and collect; the plan's bytes, which are those that went."""
    registry.collect(older_than=NOW)
    before = sum(objects(registry).values())
    plan = registry.expire(policy, dry_run=True)
    registry.apply(plan)
    assert sum(objects(registry).values()) == before
    got = registry.collect(older_than=NOW)
    after = objects(registry)
    assert (got.bytes, before - sum(after.values())) == (plan.bytes, plan.bytes)
    assert_exact(registry)
    assert registry.verify(deep=True).clean
    return plan.bytes


def test_a_plan_says_the_bytes_that_a_collection_then_frees(flights: Dataset, registry: Registry) -> None:
    other = registry.create_dataset("other")
    flights.commit({"a": b"aaaa", "b": b"only in v1", "shared": b"s" * 100})
    other.commit({"x": b"aaaa"})
    flights.commit({"a": b"changed", "b": b"bb"})
    flights.commit({"a": b"again!!", "b": b"only in v1"})  # the content of v1 once more: it stays
    assert frees_what_it_says(registry) == len(b"changed") + len(b"bb")


def test_pages_that_versions_share_keep_their_files(flights: Dataset, registry: Registry) -> None:
    flights.commit({f"c{i:04}": f"{i}".encode() * 3 for i in range(600)})
    for i in range(6):
        flights.commit({f"c{100 * i:04}": f"changed {i}".encode()})
        flights.commit({f"c{100 * i + 1:04}": b"the same everywhere"})
    assert frees_what_it_says(registry) == len("0" * 3) + sum(
        len(f"{n}" * 3) for i in range(6) for n in (100 * i, 100 * i + 1) if n
    )


def _parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables in parts of 100 rows."""
    monkeypatch.setattr("dataset_registry.tabular.chunking.split", every(100))


def test_parts_that_tables_share_stay_as_long_as_one_of_them(
    flights: Dataset, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _parts(monkeypatch)
    for rows in (100, 250, 350):
        flights.commit({"data": pa.table({"x": range(rows)})})
    other = registry.create_dataset("other")
    other.commit({"copy": pa.table({"x": range(100)})})
    assert ask(registry, "SELECT count(*) FROM file_parts") == [1 + 3 + 4]
    freed = frees_what_it_says(registry)
    assert freed > 0  # the last part of 250 rows: all others are parts of 350
    assert flights.version().to_arrow()["x"].to_pylist() == list(range(350))
    other.delete()
    registry.collect(older_than=NOW)
    assert_exact(registry)
    assert flights.version().to_arrow().num_rows == 350


def test_a_part_that_a_dying_version_also_names_itself_is_counted(flights: Dataset, registry: Registry) -> None:
    flights.commit({"t": pa.table({"x": range(100)})})
    flights.commit({"t": b"x", "p": flights.version().paths("t")[0]})
    with flights.draft() as draft:
        draft.remove("p")
    assert frees_what_it_says(registry) > 0


def test_a_part_that_a_living_version_names_itself_is_not_counted(flights: Dataset, registry: Registry) -> None:
    flights.commit({"t": pa.table({"x": range(100)})})
    part = flights.version().paths("t")[0]
    with flights.draft() as draft:
        draft.remove("t")
        draft.add("p", part, format="parquet")
    assert frees_what_it_says(registry) == 0
    assert flights.version().to_arrow("p").num_rows == 100


def test_compressed_files_count_as_they_are_stored(catalog_url: str, tmp_path: Path) -> None:
    with Registry.open(catalog=catalog_url, store=str(tmp_path / "store"), compression="zstd") as registry:
        flights = registry.create_dataset("flights")
        for i in range(3):
            path = tmp_path / f"{i}.csv"
            path.write_text("a,b\n" + f"{i},constant text that repeats\n" * 500)
            flights.commit({"data": path})
        sizes = [file.stored_size for file in registry.files()]
        assert all(file.compression_type == "zstd" and file.stored_size < file.size for file in registry.files())
        assert frees_what_it_says(registry) == sum(sizes[:2])


def test_overlays_of_versions_count_too(flights: Dataset, registry: Registry) -> None:
    grow(flights, 1)
    with flights.draft() as draft:
        draft.add("delta", b"an overlay", type="overlay")
    with flights.draft() as draft:
        draft.remove("delta")
    with flights.draft() as draft:
        draft.add("delta", b"another overlay!", type="overlay")
    grow(flights, 1, start=1)  # carries `delta` over; its own overlay is none
    assert frees_what_it_says(registry) == len(b"an overlay") + len(b"raw/flights 0")
    assert content(flights)["delta.0"] == b"another overlay!"


def test_an_overlay_that_another_version_names_as_plain_data_stays(flights: Dataset, registry: Registry) -> None:
    with flights.draft() as draft:
        draft.add("delta", b"twice used", type="overlay")
    with flights.draft() as draft:
        draft.remove("delta")
        draft.add("data", b"twice used")
    assert frees_what_it_says(registry) == 0


def test_counts_go_down_with_versions_and_bytes_with_the_last(registry: Registry) -> None:
    one, two = registry.create_dataset("one"), registry.create_dataset("two")
    digest = str(one.commit({"a": b"shared"}).components[0].content_hash)
    two.commit({"b": b"shared"})
    for dataset in (one, two):
        dataset.commit({"a": b"other", "b": b"other"})

    def count() -> int | None:
        return registry.file(digest).reference_count

    assert count() == 2
    registry.expire(Policy((Rule(datasets="one", last=1),)))
    registry.collect(older_than=NOW)
    assert count() == 1
    registry.expire(LAST)
    assert count() == 0
    assert [key for key in objects(registry) if key.startswith(digest)]
    registry.collect(older_than=NOW)
    with pytest.raises(NotFound):
        registry.file(digest)
    assert not [key for key in objects(registry) if key.startswith(digest)]
    assert_exact(registry)


def test_a_version_of_three_files_that_goes_lowers_each_count(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b"1", "b": b"2", "c": b"3"})
    flights.commit({"a": b"1", "b": b"new", "c": b"3", "d": b"3"})
    names = {c.content_hash: c.name for ref in ("v1", "v2") for c in flights.version(ref).components if c.name != "d"}
    before = {(names[f.content_hash], f.size): f.reference_count for f in registry.files()}
    assert before == {("a", 1): 2, ("b", 1): 1, ("c", 1): 3, ("b", 3): 1}
    registry.expire(LAST)
    after = {(names[f.content_hash], f.size): f.reference_count for f in registry.files()}
    assert after == {("a", 1): 1, ("b", 1): 0, ("c", 1): 2, ("b", 3): 1}


def test_a_hundred_versions_with_daily_and_weekly_rules(flights: Dataset, registry: Registry) -> None:
    _many(registry, flights, 100)


@pytest.mark.long
def test_a_thousand_versions_with_daily_and_weekly_rules(embedded: Registry) -> None:
    _many(embedded, embedded.create_dataset("raw/flights"), 1000)


def _many(registry: Registry, dataset: Dataset, count: int) -> None:
    """Versions over `count` / 4 days, four a day, with contents that some of them share."""
    for i in range(count):
        dataset.commit({"a": f"a{i % 50}".encode(), "b": f"b{i}".encode() * 7, "c": f"{i // 10}".encode() * 100})
    made = ask(registry, "SELECT id FROM dataset_versions ORDER BY id")
    moments = [
        {"id": version_id, "at": str(datetime(2026, 1, 1, 6 * (i % 4)) + timedelta(days=i // 4))}
        for i, version_id in enumerate(made)
    ]
    update = text("UPDATE dataset_versions SET ingestion_timestamp = :at WHERE id = :id")
    if not registry.access.catalog.is_sqlite:
        update = text("UPDATE dataset_versions SET ingestion_timestamp = CAST(:at AS timestamp) WHERE id = :id")
    registry.access.catalog.write(lambda tx: tx.execute(update, moments))
    policy = Policy((Rule(last=3, daily=7, weekly=5, monthly=3),))
    dataset.create_tag("kept", "v2")
    needed, _ = live(registry)
    assert sum(needed.values()) == sum(objects(registry).values())
    frees_what_it_says(registry, policy)
    numbers = sorted(left(dataset))
    # The last three, the last of each of seven days, one of each week and month before that, and the tag.
    assert numbers[0] == 2
    assert set(numbers) >= {count, count - 1, count - 2} | {count - 4 * i for i in range(7)}
    assert len(numbers) <= 1 + 3 + 6 + 5 + 3
    assert [v.number for v in dataset.log()] == numbers[::-1]
    assert sum(live(registry)[0].values()) == sum(objects(registry).values())


def test_ages_are_the_database_s(flights: Dataset, registry: Registry) -> None:
    grow(flights, 2)
    registry.expire(LAST)
    assert registry.collect(older_than=timedelta(hours=1)).files == 0
    age(registry, 2, "files.created_at")
    assert registry.collect(older_than=timedelta(hours=1)).files == 1


def test_what_passed_between_the_steps_of_runs_goes_with_its_dataset_once_the_run_is_over(registry: Registry) -> None:
    policy = Policy((Rule("runs/*", younger_than=timedelta(0), heads=True),))
    registry.create_dataset("raw/kept").commit({"data": b"kept"})
    for run in ("over", "live", "tagged"):
        with registry.draft(f"runs/{run}/step/result") as draft:
            draft.add("data", run.encode())
            draft.provenance = Provenance(run_id=run)
    registry.dataset("runs/tagged/step/result").create_tag("kept")
    age(registry, 48, "dataset_versions.ingestion_timestamp")
    age_runs(registry)
    plan = registry.expire(policy, dry_run=True, live_runs=["live"])
    assert {found.dataset.name: len(found.expiring) for found in plan.datasets if found.expiring} == {
        "runs/over/step/result": 1
    }
    done = registry.apply(plan, live_runs=["live"])
    assert done.versions == 1
    assert [dataset.name for dataset in registry.datasets()] == [
        "raw/kept",
        "runs/live/step/result",
        "runs/tagged/step/result",
    ]
    assert registry.collect(older_than=timedelta(0)).files >= 1
    assert registry.verify().clean


def test_a_dataset_that_got_another_version_since_the_plan_stays(registry: Registry) -> None:
    dataset = registry.create_dataset("runs/a/b")
    dataset.commit({"data": b"1"})
    age(registry, 48, "dataset_versions.ingestion_timestamp")
    age_runs(registry)
    plan = registry.expire(Policy((Rule("runs/*", younger_than=timedelta(0), heads=True),)), dry_run=True, live_runs=[])
    dataset.commit({"data": b"2"})
    assert registry.apply(plan, live_runs=[]).versions == 0
    assert len(dataset.tree()) == 2


def test_heads_stay_where_a_rule_does_not_say_otherwise(registry: Registry) -> None:
    registry.create_dataset("runs/a/b").commit({"data": b"1"})
    age(registry, 48, "dataset_versions.ingestion_timestamp")
    age_runs(registry)
    assert (
        registry.expire(Policy((Rule("runs/*", younger_than=timedelta(0)),)), dry_run=True, live_runs=[]).versions == 0
    )
