"""Versions exported as Delta tables in a folder: a log over hard links to stored files."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import InputError, RetryLater
from dataset_registry.table_formats import delta
from dataset_registry.table_formats.delta import DeltaExport, export_delta
from tests.serving import Served
from tests.table_formats.conftest import MANY, Read, kinds
from tests.table_formats.test_readers import assert_equal


@pytest.fixture
def many(embedded: Registry) -> Dataset:
    """A dataset with a table in many parts."""
    found = embedded.create_dataset("raw/many")
    table = pa.table({"id": range(MANY), "text": [f"{n % 977:0200}" for n in range(MANY)]})
    found.commit({"data": table}, key="id")
    return found


def test_each_export_is_a_version_that_keeps_the_files_it_shares(many: Dataset, read: Read, tmp_path: Path) -> None:
    folder = tmp_path / "delta"
    first = export_delta(many.version(), folder)
    many.delete_rows(where="id = 20000")
    second = export_delta(many.version(), folder)
    assert first == DeltaExport(0, first.added, 0, 0)
    assert second == DeltaExport(1, 1, 1, first.added - 1)
    assert export_delta(many.version(), folder) == DeltaExport(1, 0, 0, first.added)
    newest, oldest, by_duckdb = read(
        [
            ("delta_folder", "", str(folder)),
            ("delta_folder", "", f"{folder}#0"),
            ("delta_folder_duckdb", "", str(folder)),
        ]
    )
    assert_equal(oldest, many.version("v1").to_arrow().sort_by("id"))
    for found in (newest, by_duckdb):
        assert_equal(found, many.version("v2").to_arrow().sort_by("id"))


@pytest.mark.objects
def test_the_files_are_those_of_the_store_and_survive_it(embedded: Registry, read: Read, tmp_path: Path) -> None:
    table = kinds(500)
    dataset = embedded.create_dataset("raw/kinds")
    dataset.commit({"data": table}, key="id")
    export_delta(dataset.version(), tmp_path / "delta")
    (part,) = (tmp_path / "delta").glob("*.parquet")
    assert part.stat().st_nlink > 1
    dataset.delete()
    (found,) = read([("delta_folder", "", str(tmp_path / "delta"))])
    assert_equal(found, table)


def test_columns_may_change(embedded: Registry, read: Read, tmp_path: Path) -> None:
    dataset = embedded.create_dataset("raw/changing")
    tables = [
        pa.table({"id": [1], "a": ["x"]}),
        pa.table({"id": [1, 2], "a": pa.array([1, 2], pa.int32())}),
        pa.table({"id": [1], "a": ["x"]}),
    ]
    for table in tables:
        export_delta(dataset.commit({"data": table}), tmp_path / "delta")
    found = read([("delta_folder", "", f"{tmp_path / 'delta'}#{n}") for n in range(3)])
    for read_back, table in zip(found, tables, strict=True):
        assert_equal(read_back, table)


def test_a_table_of_others_is_not_touched(many: Dataset, embedded: Registry, tmp_path: Path) -> None:
    export_delta(many.version(), tmp_path / "delta")
    other = embedded.create_dataset("raw/other").commit({"data": pa.table({"id": [1]})})
    with pytest.raises(InputError, match="made or changed by others"):
        export_delta(other, tmp_path / "delta")
    log = tmp_path / "delta" / "_delta_log"
    (log / f"{1:020}.json").write_text(json.dumps({"commitInfo": {"engineInfo": "another"}}))
    many.delete_rows(where="id = 20000")
    with pytest.raises(InputError, match="made or changed by others"):
        export_delta(many.version(), tmp_path / "delta")


def test_of_two_exports_at_once_one_tries_again(many: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_delta(many.version(), tmp_path / "delta")
    many.delete_rows(where="id = 20000")
    identity = delta._schema_actions(many.record, pa.schema([]))[1]["metaData"]["id"]
    stale = delta._Log.read(tmp_path / "delta", "raw/many", identity)
    export_delta(many.version(), tmp_path / "delta")
    monkeypatch.setattr(delta._Log, "read", lambda *_: stale)
    with pytest.raises(RetryLater):
        export_delta(many.version(), tmp_path / "delta")
    assert len(list((tmp_path / "delta" / "_delta_log").iterdir())) == 2


@pytest.mark.objects
def test_a_folder_on_another_file_system_is_refused(
    many: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(InputError, match="not on the file system"):
        export_delta(many.version(), tmp_path / "delta")
    assert not list((tmp_path / "delta" / "_delta_log").iterdir())


def test_a_type_that_delta_lacks_is_refused_before_anything_is_written(embedded: Registry, tmp_path: Path) -> None:
    version = embedded.create_dataset("raw/x").commit({"data": pa.table({"n": pa.array([1], pa.uint64())})})
    with pytest.raises(InputError, match="which Delta does not have"):
        export_delta(version, tmp_path / "delta")
    assert not (tmp_path / "delta").exists()


def test_a_remote_registry_exports_nothing(served: Served, tmp_path: Path) -> None:
    served.owner.create_dataset("raw/x").commit({"data": pa.table({"id": [1]})})
    with pytest.raises(InputError, match="opened with its store"):
        export_delta(served.registry().version("raw/x"), tmp_path / "delta")


def test_a_file_that_is_missing_or_another_one_is_linked_again(many: Dataset, read: Read, tmp_path: Path) -> None:
    folder = tmp_path / "delta"
    first, *_ = (file.content_hash for file in many.version().files())
    folder.mkdir()
    (folder / f"{first}.parquet").write_bytes(b"garbage")
    export_delta(many.version(), folder)
    (found,) = read([("delta_folder", "", str(folder))])
    assert_equal(found, many.version().to_arrow().sort_by("id"))
    (folder / f"{first}.parquet").unlink()
    assert export_delta(many.version(), folder).added == 0
    (found,) = read([("delta_folder", "", str(folder))])
    assert_equal(found, many.version().to_arrow().sort_by("id"))


def test_what_is_removed_is_removed_now(many: Dataset, tmp_path: Path) -> None:
    """Not when an exported version was committed: VACUUM deletes by this moment."""
    export_delta(many.version(), tmp_path / "delta")
    many.delete_rows(where="id = 20000")
    export_delta(many.version(), tmp_path / "delta")
    export_delta(many.version("v1"), tmp_path / "delta")
    logs = sorted((tmp_path / "delta" / "_delta_log").glob("*.json"))
    moments = [json.loads(log.read_text().splitlines()[0])["commitInfo"]["timestamp"] for log in logs]
    assert moments == sorted(moments)
    actions = [json.loads(line) for line in logs[2].read_text().splitlines()]
    (removed,) = (action["remove"] for action in actions if "remove" in action)
    assert removed["deletionTimestamp"] == moments[2] >= moments[1]


def test_a_dataset_that_was_created_again_is_another_table(embedded: Registry, tmp_path: Path) -> None:
    first = embedded.create_dataset("raw/x")
    export_delta(first.commit({"data": pa.table({"id": [1]})}), tmp_path / "delta")
    first.delete()
    again = embedded.create_dataset("raw/x").commit({"data": pa.table({"id": [2]})})
    with pytest.raises(InputError, match="made or changed by others"):
        export_delta(again, tmp_path / "delta")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"commitInfo": {"engineInfo": "dataset_registry"}}'])
def test_a_log_that_is_not_ours_is_an_error_of_ours(content: str, many: Dataset, tmp_path: Path) -> None:
    (tmp_path / "delta" / "_delta_log").mkdir(parents=True)
    (tmp_path / "delta" / "_delta_log" / f"{0:020}.json").write_text(content)
    with pytest.raises(InputError, match="made or changed by others"):
        export_delta(many.version(), tmp_path / "delta")


def test_columns_that_differ_in_letter_case_only_are_refused(embedded: Registry, tmp_path: Path) -> None:
    version = embedded.create_dataset("raw/x").commit({"data": pa.table({"A": [1], "a": [2]})})
    with pytest.raises(InputError, match="differ in letter case only"):
        export_delta(version, tmp_path / "delta")
