"""What the hot paths cost, counted and not timed: statements, instructions of SQLite's virtual machine, files that are opened.

A number here is what a change may not make worse by accident. Whoever makes it worse on purpose raises it, and says why.
"""

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from sqlalchemy import event

from dataset_registry import Dataset, Policy, Registry, Rule
from dataset_registry.tabular import chunking


@pytest.fixture
def dataset(embedded: Registry) -> Dataset:
    made = embedded.create_dataset("raw/flights")
    made.commit({f"c{i}": b"%d" % i for i in range(10)})
    return made


def statements(registry: Registry, work: Callable[[], object]) -> list[str]:
    """The statements that a piece of work sends to the database, without those that begin and end transactions."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    catalog = registry.access.catalog
    for engine in (catalog.reader, catalog.writer):
        event.listen(engine, "before_cursor_execute", note)
    work()
    for engine in (catalog.reader, catalog.writer):
        event.remove(engine, "before_cursor_execute", note)
    return seen


def instructions(registry: Registry, work: Callable[[], object]) -> int:
    """The instructions of SQLite's virtual machine that a piece of work takes."""
    seen = itertools.count()
    connections = list(registry.access.catalog._sqlite_connections)
    for connection in connections:
        connection.set_progress_handler(lambda: next(seen) and 0, 1)
    work()
    for connection in connections:
        connection.set_progress_handler(None, 1)
    return next(seen)


def grow(dataset: Dataset, versions: int) -> None:
    for i in range(versions):
        dataset.commit({"c3": b"grown %d" % i})


def test_a_small_commit_is_few_statements_however_long_the_history(dataset: Dataset, embedded: Registry) -> None:
    turns = itertools.count()

    def commit() -> None:
        dataset.commit({"c1": b"turn %d" % next(turns)})

    commit()
    few, cost = len(statements(embedded, commit)), instructions(embedded, commit)
    assert few <= 22  # 5 of them ask who alice is, and what she may
    assert cost <= 2200
    grow(dataset, 200)
    assert len(statements(embedded, commit)) == few
    assert instructions(embedded, commit) <= cost * 1.2


def test_a_branch_and_a_tag_are_few_statements(dataset: Dataset, embedded: Registry) -> None:
    dataset.create_branch("first")
    whose = 4  # statements ask who alice is, and what she may
    assert len(statements(embedded, lambda: dataset.create_branch("second"))) <= 6 + whose
    assert len(statements(embedded, lambda: dataset.create_tag("third"))) <= 5 + whose


def test_a_small_commit_to_postgresql_is_few_statements_and_fewer_round_trips(
    postgresql_catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[str] = []
    real = psycopg.Connection.wait

    def wait(connection: Any, work: Any, *given: Any, **named: Any) -> Any:
        waits.append(work.__name__)
        return real(connection, work, *given, **named)

    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path / "store")) as registry:
        dataset = registry.create_dataset("raw/flights")
        grow(dataset, 20)
        assert len(statements(registry, lambda: grow(dataset, 1))) <= 11
        monkeypatch.setattr(psycopg.Connection, "wait", wait)
        dataset.commit({"c3": b"another"})
    # The head before, then the transaction: base and contents, the number, the commit, the end of the pipeline.
    assert [waits.count(name) for name in ("_sync_gen", "_commit_gen", "_exit_gen")] == [3, 1, 1]


def test_sqlite_looks_everything_up_by_index(dataset: Dataset, embedded: Registry) -> None:
    turns = itertools.count()

    def work() -> None:
        dataset.commit({"c1": b"turn %d" % next(turns)})
        dataset.create_branch(f"branch-{next(turns)}")
        dataset.create_tag(f"tag-{next(turns)}")
        dataset.log(limit=20)
        dataset.version("main~1").open("c3").read()
        dataset.diff("main~1", "main")

    work()
    asked: dict[str, Any] = {}
    reader = embedded.access.catalog.reader
    for engine in (embedded.access.catalog.writer, reader):
        event.listen(engine, "before_cursor_execute", lambda c, cursor, text, given, *_: asked.update({text: given}))
    work()
    reads = {text: given for text, given in asked.items() if text.startswith(("SELECT", "UPDATE", "DELETE"))}
    with reader.connect() as connection:
        plans = {
            text: [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given)]
            for text, given in reads.items()
        }
    assert len(plans) > 20
    scans = {line for plan in plans.values() for line in plan if line.startswith("SCAN")}
    # Whether there are any users, and the folders of a name: a handful of rows.
    assert scans <= {"SCAN CONSTANT ROW", "SCAN users", "SCAN name_prefixes"}


def test_postgresql_looks_everything_up_by_index_though_its_plans_are_of_when_the_catalog_was_small(
    postgresql_catalog: str, tmp_path: Path
) -> None:
    with Registry.open(catalog=postgresql_catalog, store=str(tmp_path / "store")) as registry:
        dataset = registry.create_dataset("raw/flights")
        grow(dataset, 50)

        def scanned() -> dict[str, int]:
            reader = registry.access.catalog.reader
            with ExitStack() as held, reader.connect() as connection:
                for _ in range(reader.pool.checkedin()):  # each backend counts for itself, and tells when it likes
                    held.enter_context(reader.connect()).exec_driver_sql("SELECT pg_stat_force_next_flush()")
                connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
                rows = connection.exec_driver_sql(
                    "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE seq_tup_read > 0"
                )
                return {name: count for name, count in rows if name != "dataset_registry_revision"}

        before = scanned()
        grow(dataset, 20)
        dataset.log(limit=20)
        dataset.version("v3").open("c3").read()
        assert scanned() == before


def test_a_plan_of_an_expiry_is_few_statements_however_many_datasets_and_branches(embedded: Registry) -> None:
    def plan() -> None:
        assert embedded.expire(Policy((Rule(last=1),)), dry_run=True).versions == len(list(embedded.datasets()))

    def fill(count: int) -> None:
        for i in range(count):
            made = embedded.create_dataset(f"raw/{count}-{i}")
            grow(made, 2)
            made.create_branch("dev")

    fill(1)
    few = len(statements(embedded, plan))
    fill(20)
    assert len(statements(embedded, plan)) == few <= 16


def test_a_commit_of_what_is_there_already_writes_nothing_but_its_version(dataset: Dataset, embedded: Registry) -> None:
    dataset.commit({"c1": b"5"})
    sent = statements(embedded, lambda: dataset.commit({"c1": b"6"}))
    assert not [
        statement for statement in sent if "INSERT INTO files" in statement or "INSERT INTO uploads" in statement
    ]
    assert statements(embedded, lambda: dataset.commit({"c1": b"6"}))[-1].startswith(
        "SELECT"
    )  # unchanged: nothing at all


@pytest.mark.parametrize("what", ["branch", "tag"])
def test_a_pointer_costs_the_same_in_a_long_history(dataset: Dataset, embedded: Registry, what: str) -> None:
    turns = itertools.count()

    def point() -> None:
        make = dataset.create_branch if what == "branch" else dataset.create_tag
        make(f"{what}-{next(turns)}")

    point()
    few, cost = len(statements(embedded, point)), instructions(embedded, point)
    assert few <= 10  # one of them looks for tainted versions
    assert cost <= 600
    grow(dataset, 200)
    assert instructions(embedded, point) <= cost * 1.2


def test_a_page_of_history_costs_its_rows(dataset: Dataset, embedded: Registry) -> None:
    grow(dataset, 300)
    assert len(statements(embedded, lambda: dataset.log(limit=100))) <= 5
    hundred = instructions(embedded, lambda: dataset.log(limit=100))
    assert hundred <= 60 * 100
    grow(dataset, 300)
    assert instructions(embedded, lambda: dataset.log(limit=100)) <= hundred * 1.2


def test_one_component_of_many_is_found_without_the_others(embedded: Registry) -> None:
    few, many = embedded.create_dataset("few"), embedded.create_dataset("many")
    few.commit({f"c{i:04}": b"x" for i in range(10)})
    many.commit({f"c{i:04}": b"x" for i in range(3000)})
    costs = [instructions(embedded, lambda d=d: d.version().open("c0005").read()) for d in (few, many)]
    assert costs[1] <= costs[0] * 4
    changes = [instructions(embedded, lambda d=d: d.commit({"c0005": b"y"})) for d in (few, many)]
    assert changes[1] <= changes[0] * 6  # a page of up to 256 entries is written anew


def test_comparing_tables_looks_at_their_lists_and_opens_nothing(
    embedded: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "LEAST_ROWS", 64)
    monkeypatch.setattr(chunking, "PART_BYTES", 16 << 10)
    table = pa.table({"id": np.arange(20_000), "x": np.random.default_rng(0).random(20_000)})
    dataset = embedded.create_dataset("t")
    dataset.commit({"data": table}, key=["id"])
    dataset.commit({"data": pa.concat_tables([table.slice(0, 999), table.slice(1_000)])})
    opened = _opened(monkeypatch)
    parts = dataset.diff("v1", "v2").parts["data"]
    assert (parts.removed, parts.added) == (1, 1)
    assert parts.shared > 15
    assert opened == []
    small = ds.field("id") < 50
    assert dataset.version().to_arrow(filter=small).num_rows == 50
    assert len(set(opened)) <= 1


def _opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The stored Parquet files that are opened by Arrow from now on."""
    from dataset_registry.tabular import parquet

    found: list[Path] = []
    real = parquet.pa.memory_map

    def note(path: str, *arguments: Any) -> Any:
        found.append(Path(path))
        return real(path, *arguments)

    monkeypatch.setattr(parquet.pa, "memory_map", note)
    return found
