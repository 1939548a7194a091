"""Summaries over many datasets and versions, on both databases: what pages show."""

from collections.abc import Sequence

import pyarrow as pa
import pytest

from dataset_registry import InputVersion, Provenance, Registry
from dataset_registry.access import Access
from dataset_registry.operations import overview
from dataset_registry.version import Version
from tests.operations.test_costs import statements


@pytest.fixture
def access(registry: Registry) -> Access:
    return registry.access  # type: ignore[attr-defined, no-any-return]


def put(
    registry: Registry, name: str, reads: Sequence[Version] = (), rows: int = 2, **lineage: list[list[str]]
) -> Version:
    inputs = tuple(InputVersion(v.dataset, v.number, v.digest, "main", uuid=v.record.uuid) for v in reads)
    facts = {"column_lineage": lineage} if lineage else {}
    with registry.draft(name, provenance=Provenance(run_id=f"run-{name}", inputs=inputs, metadata=facts)) as draft:
        draft.add("data", pa.table({"id": list(range(rows))}), key="id")
    return draft.version


def test_a_list_of_datasets_has_their_heads_sizes_and_checks(registry: Registry, access: Access) -> None:
    first = put(registry, "raw/flights")
    first.record_check("rows", False)
    first.record_check("rows", True)
    first.record_check("gaps", False)
    registry.create_dataset("raw/empty", description="100% new_")
    registry.create_dataset("side/only").commit({"x": b"123"}, branch="dev")
    found = {summary.dataset.name: summary for summary in overview.dataset_summaries(access)}
    assert list(found) == ["raw/empty", "raw/flights", "side/only"]
    flights = found["raw/flights"]
    assert flights.head is not None
    assert (flights.branch, flights.head.number, flights.checks.passed, flights.checks.failed) == ("main", 1, 1, 1)
    assert flights.measure is not None
    assert (flights.measure.rows, flights.measure.bytes) == (2, first.components[0].size)
    assert sum(flights.activity.values()) == 1
    assert found["raw/empty"].head is None
    side = found["side/only"]
    assert side.measure is not None
    assert (side.branch, side.measure.rows, side.measure.bytes) == (None, None, 3)

    def names(**options: str) -> list[str]:
        return [summary.dataset.name for summary in overview.dataset_summaries(access, **options)]  # type: ignore[arg-type]

    assert names(prefix="raw/") == ["raw/empty", "raw/flights"]
    assert names(after="raw/empty") == ["raw/flights", "side/only"]
    assert names(text="100% NEW_") == ["raw/empty"]
    assert names(text="_") == ["raw/empty"], "a wildcard of the database is a character"
    assert overview.totals(access)[:2] == (3, 2)


def test_new_bytes_are_those_that_the_parent_does_not_have(registry: Registry, access: Access) -> None:
    dataset = registry.create_dataset("files")
    dataset.commit({"a": b"12345", "b": b"123"})
    dataset.commit({"a": b"1234567"})
    dataset.commit({"c": b"123"})
    table = pa.table({"id": list(range(5000)), "x": [i * 7 % 1000 for i in range(5000)]})
    dataset.commit({"t": table}, key="id")
    found = overview.history_page(access, dataset.record, None, 10)
    assert [found.new_bytes[version.id] for version in reversed(found.versions)][:3] == [8, 7, 3]
    size = dataset.version().components_named(["t"])[0].size
    assert found.new_bytes[found.versions[0].id] == size
    assert (found.total, found.following) == (4, None)
    page = overview.history_page(access, dataset.record, 3, 1)
    assert [version.number for version in page.versions] == [2]
    assert (page.following, page.above) == (2, [(3, 2)])


def test_the_versions_that_changed_columns_are_found(registry: Registry, access: Access) -> None:
    dataset = registry.create_dataset("table")
    for columns in ({"a": [1]}, {"a": [2]}, {"a": [2], "b": [1]}, {"a": [3], "b": [1]}, {"a": ["x"], "b": [1]}):
        dataset.commit({"data": pa.table(columns)})
    dataset.commit({"other": pa.table({"z": [1]})})
    tree = [version.record for version in dataset.tree()]
    assert [version.number for version in overview.schema_steps(access, dataset.record, tree)] == [5, 3, 1]


def test_components_are_read_page_by_page(registry: Registry, access: Access) -> None:
    dataset = registry.create_dataset("files")
    dataset.commit({f"part/{i:04}": b"%d" % i for i in range(700)})
    version = dataset.version()
    for start, limit in ((0, 5), (250, 300), (698, 10), (700, 5)):
        found = overview.component_page(access, version.record, start, limit)
        assert found == list(version.components[start : start + limit])


def test_a_search_finds_names_columns_messages_refs_digests_and_runs(registry: Registry, access: Access) -> None:
    version = put(registry, "raw/flights")
    dataset = registry.dataset("raw/flights")
    dataset.create_tag("release-1")
    dataset.create_branch("pr-7")
    dataset.commit({"data": pa.table({"departure_delay": [1]})}, message="Delays, not 100% sure")

    def hits(text: str) -> set[tuple[str, str, str | None]]:
        return {(hit.kind, hit.dataset, hit.ref) for hit in overview.search(access, text)}

    assert hits("light") >= {("dataset", "raw/flights", None)}
    assert hits("DEPARTURE") == {("column", "raw/flights", "main")}
    assert hits("100%") == {("version", "raw/flights", "v2")}
    assert hits("release") == {("tag", "raw/flights", "release-1")}
    assert hits("pr-7") == {("branch", "raw/flights", "pr-7")}
    assert hits(str(version.digest)[:10]) == {("version", "raw/flights", "v1")}
    assert hits("run-raw") == {("run", "raw/flights", None)}
    assert hits("%") == {("version", "raw/flights", "v2")}
    assert hits("  ") == hits("\0") == set()


def test_a_lineage_goes_up_and_down_and_says_what_it_left_out(registry: Registry, access: Access) -> None:
    raw = put(registry, "raw")
    clean = put(registry, "clean", [raw])
    for i in range(5):
        put(registry, f"report/{i}", [clean])
    found = overview.lineage(access, clean.record)
    assert {(node.place, node.distance) for node in found.nodes} == {
        (("clean", 1), 0),
        (("raw", 1), -1),
        *((((f"report/{i}"), 1), 1) for i in range(5)),
    }
    assert (("raw", 1), ("clean", 1)) in found.edges
    assert len(found.edges) == 6
    few = overview.lineage(access, clean.record, most=2)
    assert (len(few.nodes), few.more_downstream, few.more_upstream) == (4, 3, 0)
    near = overview.lineage(access, raw.record, steps=1)
    assert ([node.place for node in near.nodes], near.more_downstream) == ([("raw", 1), ("clean", 1)], 5)


def test_the_readers_of_a_column_are_found_through_the_lineage_of_columns(registry: Registry, access: Access) -> None:
    raw = put(registry, "raw")
    total = put(registry, "total", [raw], sum=[["raw", "price"], ["raw", "tax"]], day=[["raw", "day"]])
    put(registry, "chart", [total], height=[["total", "sum"]], when=[["total", "day"]])
    put(registry, "unknown", [total])
    put(registry, "other", [raw], title=[["raw", "title"]])
    found = overview.column_impact(access, raw.record, "price")
    assert {(r.dataset, tuple(r.columns) if r.columns is not None else None) for r in found} == {
        ("total", ("sum",)),
        ("chart", ("height",)),
        ("unknown", None),
    }
    assert overview.column_impact(access, raw.record, "nothing") == []


def test_a_branch_is_shown_over_all_datasets(registry: Registry, access: Access) -> None:
    for name in ("a", "b", "c"):
        put(registry, name)
    for name in ("a", "b"):
        registry.dataset(name).create_branch("pr-1")
    registry.dataset("a").commit({"x": b"1"}, branch="pr-1")
    registry.create_dataset("n").commit({"x": b"1"}, branch="pr-1")
    (found,) = overview.branches(access)
    assert (found.name, found.datasets, found.ahead) == ("pr-1", 3, 2)
    places = overview.branch_places(access, "pr-1")
    assert [(p.dataset, p.head.number, p.target.number if p.target else None) for p in places] == [
        ("a", 2, 1),
        ("b", 1, 1),
        ("n", 1, None),
    ]


def test_pages_take_as_many_statements_for_many_datasets_as_for_few(embedded: Registry) -> None:
    access = embedded.access  # type: ignore[attr-defined]

    def work() -> None:
        overview.dataset_summaries(access)
        overview.branches(access)
        overview.search(access, "raw")

    put(embedded, "raw/0")
    few = len(statements(embedded, work))
    for i in range(1, 20):
        put(embedded, f"raw/{i}")
    assert len(statements(embedded, work)) == few <= 20


def test_a_history_takes_as_many_statements_for_many_versions_as_for_few(embedded: Registry) -> None:
    access = embedded.access  # type: ignore[attr-defined]
    dataset = embedded.create_dataset("raw")
    dataset.commit({"x": b"0"})
    few = len(statements(embedded, lambda: overview.history_page(access, dataset.record, None, 50)))
    for i in range(1, 40):
        dataset.commit({"x": b"%d" % i})
    assert len(statements(embedded, lambda: overview.history_page(access, dataset.record, None, 50))) == few <= 12


def test_facts_are_there_when_the_memory_of_them_is_emptied(
    embedded: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = embedded.access  # type: ignore[attr-defined]
    monkeypatch.setattr(overview, "_KNOWN_VERSIONS", 0)
    found = [put(embedded, name).record for name in ("a", "b")]
    assert set(overview.measures(access, found[:1])) == {found[0].id}
    assert set(overview.measures(access, found)) == {version.id for version in found}
