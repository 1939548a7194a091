"""A downgrade that would lose data names the rows, and leaves the catalog as it was."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.catalog import migrate
from dataset_registry.catalog.engine import HEAD
from dataset_registry.errors import DowngradeRefused
from tests.migrations import support


def _several_components(registry: Registry, folder: Path) -> str:
    dataset = registry.create_dataset("raw/several")
    dataset.commit({"data": b"one"})
    dataset.commit({"more": b"two"})
    return r"raw/several@v2"


def _another_name(registry: Registry, folder: Path) -> str:
    registry.create_dataset("raw/named").commit({"report": b"one"})
    return r"raw/named@v1"


def _no_component(registry: Registry, folder: Path) -> str:
    dataset = registry.create_dataset("raw/none")
    dataset.commit({"data": b"one"})
    with dataset.draft() as draft:
        draft.remove("data")
    return r"raw/none@v2"


def _another_index(registry: Registry, folder: Path) -> str:
    dataset = registry.create_dataset("raw/index")
    with dataset.draft() as draft:
        draft.add("data", b"one", index=3)
    return r"raw/index@v1"


def _metadata(registry: Registry, folder: Path) -> str:
    dataset = registry.create_dataset("raw/noted")
    with dataset.draft() as draft:
        draft.add("data", b"1", metadata={"source": "by hand"})
    return r"raw/noted@v1"


def _table_in_parts(registry: Registry, folder: Path) -> str:
    registry.create_dataset("raw/table").commit({"data": pa.table({"x": [1, 2]})})
    return r"raw/table@v1"


def _two_parents(registry: Registry, folder: Path) -> str:
    dataset = registry.create_dataset("raw/merged")
    dataset.commit({"data": b"one"})
    dataset.create_branch("dev")
    dataset.commit({"data": b"two"}, branch="dev")
    dataset.commit({"data": b"three"})
    dataset.commit({"data": b"four"}, parents=["main", "dev"])
    return r"raw/merged@v4"


def _read_options(registry: Registry, folder: Path) -> str:
    (folder / "codes.csv").write_text("zip;name\n02134;x\n")
    read = {"delimiter": ";", "types": {"zip": "string", "name": "string"}}
    registry.create_dataset("raw/codes").commit({"data": folder / "codes.csv"}, read=read)
    return r"raw/codes@v1"


def _captured_by_two_rules(registry: Registry, folder: Path) -> str:
    (folder / "codes.csv").write_text("zip\n02134\n")
    registry.create_dataset("raw/twice").commit({"data": folder / "codes.csv"})
    catalog = registry.access.catalog
    schema = support.insert(catalog, "schemas", digest="5c" * 32, schema_json='{"format": "csv", "tables": []}')
    support.execute(
        catalog,
        "INSERT INTO file_captures (file_id, format, schema_id, statistics_json) "
        "SELECT file_id, format, :schema, '[]' FROM file_captures WHERE format = 'csv'",
        {"schema": schema},
    )
    return r"raw/twice@v1"


@pytest.mark.parametrize(
    ("make", "revision"),
    [
        (_several_components, "0004"),
        (_several_components, "0001"),
        (_another_name, "0004"),
        (_no_component, "0004"),
        (_another_index, "0004"),
        (_metadata, "0004"),
        (_table_in_parts, "0007"),
        (_table_in_parts, "0001"),
        (_two_parents, "0007"),
        (_read_options, "0013"),
        (_captured_by_two_rules, "0013"),
    ],
)
def test_a_downgrade_that_would_lose_data_names_the_versions_and_changes_nothing(
    registry: Registry, tmp_path: Path, make: Callable[[Registry, Path], str], revision: str
) -> None:
    named = make(registry, tmp_path)
    registry.create_dataset("raw/plain").commit({"data": b"plain"})
    catalog = registry.access.catalog
    before = support.snapshot(catalog)

    with pytest.raises(DowngradeRefused, match=named) as refusal:
        migrate.downgrade(catalog, revision)
    general = ("have everywhere", "productions of")  # what every version has
    kinds = [line for line in str(refusal.value).splitlines() if named in line and not any(g in line for g in general)]
    assert kinds
    assert not any("raw/plain" in line or "raw/merged@v3" in line for line in kinds)
    assert catalog.revision() == HEAD
    assert support.snapshot(catalog) == before
    migrate.check(catalog)
    assert support.content(registry.dataset("raw/plain").version()) == b"plain"
    assert registry.dataset("raw/plain").commit({"data": b"next"}).number == 2
    for component in registry.version(named).components:
        assert component.content_hash


def test_what_is_kept_as_one_file_named_data_goes_down_to_the_baseline_and_comes_back(registry: Registry) -> None:
    dataset = registry.create_dataset("raw/plain")
    for content in (b"one", b"two", b"one"):
        dataset.commit({"data": content})
    digests = [version.digest for version in dataset.log()]
    catalog = registry.access.catalog
    support.go_down(catalog, "0002")
    assert [row[0] for row in support.query(catalog, "SELECT reference_count FROM files ORDER BY id")] == [2, 1]
    migrate.upgrade(catalog)

    dataset = registry.dataset("raw/plain")
    assert [version.digest for version in dataset.log()] == digests
    assert [support.content(version) for version in dataset.log()] == [b"one", b"two", b"one"]
    assert dataset.commit({"data": b"four"}).number == 4


def test_many_refused_versions_are_counted_and_the_first_are_named(registry: Registry) -> None:
    dataset = registry.create_dataset("raw/many")
    for number in range(23):
        dataset.commit({"other": b"%d" % number})

    with pytest.raises(DowngradeRefused, match=r"\(23\): raw/many@v1, .*raw/many@v20 and 3 more") as refusal:
        migrate.downgrade(registry.access.catalog, "0004")
    assert "raw/many@v21" not in str(refusal.value)
