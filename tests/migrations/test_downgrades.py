"""Downgrades: what would be lost is named and kept, or exported and lost when an operator says so; the rest stays."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import text

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.catalog.engine import HEAD, REVISION_TABLE
from dataset_registry.cli import exit_code, main
from dataset_registry.cli.target import CATALOG_VARIABLE
from dataset_registry.errors import DowngradeRefused, InputError
from tests.migrations import support
from tests.migrations.conftest import Legacy, Small

# What a catalog filled by `support.populate` at each revision loses when it goes back from there: the kinds, and how many rows.
POPULATED = {
    "0002": {"hashes, compression and metadata of files": 1},
    "0003": {"messages and overlays of versions": 1},
    "0004": {"schema snapshots of versions": 3},
    "0006": {
        "branches and tags beside a main at the newest version": 2,
        "names of deleted tags, which must not be reused": 1,
    },
    "0007": {"grants": 2},
    "0008": {"ids that versions have everywhere": 1},
    "0009": {
        "uploads under way": 1,
        "objects in the trash, which stay in the store": 1,
        "registry-wide branches": 1,
    },
    "0010": {"productions of versions": 1, "inputs of productions": 1},
    "0011": {"marks of damaged files": 1, "notes of what runs are reading": 1},
    "0012": {
        "members of groups": 1,
        "tokens, which open nothing any longer": 1,
        "answers to requests that may be repeated": 1,
    },
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("revision", POPULATED)
def test_what_a_revision_added_is_named_and_kept_or_exported_and_lost(
    catalog: Catalog, tmp_path: Path, revision: str
) -> None:
    before_it = support.REVISIONS[support.REVISIONS.index(revision) - 1]
    support.create_baseline(catalog)
    support.fill_baseline(catalog, tmp_path / "files", datasets=4)
    migrate.upgrade(catalog, before_it)
    before = support.snapshot(catalog)
    migrate.upgrade(catalog, revision)
    support.populate(catalog, revision)
    filled = support.snapshot(catalog)

    with pytest.raises(DowngradeRefused) as refusal:
        migrate.downgrade(catalog, before_it)
    losses = refusal.value.fields["losses"]
    assert {loss["what"]: loss["rows"] for loss in losses} == POPULATED[revision]  # type: ignore[attr-defined]
    assert f"--discard {before_it}" in str(refusal.value)
    assert (catalog.revision(), support.snapshot(catalog)) == (revision, filled)

    export = tmp_path / "losses.jsonl"
    migrate.downgrade(catalog, before_it, discard=before_it, export=export)
    assert catalog.revision() == before_it
    assert support.snapshot(catalog) == before
    exported = [row["what"] for row in lines(export)]
    assert {what: exported.count(what) for what in exported} == POPULATED[revision]


@pytest.mark.parametrize("discard", ["0001", "head", "", "0003 "])
def test_another_revision_than_that_of_the_downgrade_discards_nothing(registry: Registry, discard: str) -> None:
    registry.create_dataset("a").commit({"data": b"1"})
    with pytest.raises(DowngradeRefused):
        migrate.downgrade(registry.access.catalog, "0003", discard=discard)
    assert registry.access.catalog.revision() == HEAD


def test_nothing_is_lost_while_the_export_cannot_be_written(registry: Registry, tmp_path: Path) -> None:
    registry.create_dataset("a").commit({"data": b"1"})
    catalog = registry.access.catalog
    before = support.snapshot(catalog)
    taken = tmp_path / "taken.jsonl"
    taken.write_text("mine")
    for export in (taken, tmp_path / "no folder" / "losses.jsonl"):
        with pytest.raises(InputError, match="Nothing was changed"):
            migrate.downgrade(catalog, "0001", discard="0001", export=export)
    assert taken.read_text() == "mine"
    assert (catalog.revision(), support.snapshot(catalog)) == (HEAD, before)


def test_everything_that_is_lost_on_the_way_is_named_at_once(registry: Registry) -> None:
    dataset = registry.create_dataset("raw/flights")
    dataset.commit({"data": b"1"}, message="July")
    dataset.commit({"table": pa.table({"x": [1, 2]})})
    dataset.create_tag("final", "v1")
    with pytest.raises(DowngradeRefused) as refusal:
        migrate.downgrade(registry.access.catalog, "0001")
    found = {loss["revision"] for loss in refusal.value.fields["losses"]}  # type: ignore[attr-defined]
    assert found >= {"0002", "0003", "0006", "0008", "0010"}
    assert len(str(refusal.value).splitlines()) < 30


def test_versions_that_an_older_revision_cannot_hold_go_and_their_children_stay(
    registry: Registry, tmp_path: Path
) -> None:
    dataset = registry.create_dataset("raw/flights")
    dataset.commit({"data": b"1"})
    dataset.commit({"data": pa.table({"x": [1, 2]})})
    dataset.create_branch("table", "main")
    dataset.create_tag("t", "main")
    dataset.commit({"data": b"3"})
    catalog = registry.access.catalog
    export = tmp_path / "losses.jsonl"
    migrate.downgrade(catalog, "0007", discard="0007", export=export)
    versions = "SELECT version_number, parent_version_id FROM dataset_versions ORDER BY version_number"
    (first, none), (third, parent) = support.query(catalog, versions)
    assert (first, none, third) == (1, None, 3)
    assert parent == support.query(catalog, "SELECT id FROM dataset_versions WHERE version_number = 1")[0][0]
    pointers = "SELECT p.pointer_name, v.version_number FROM dataset_pointers p JOIN dataset_versions v"
    assert support.query(catalog, f"{pointers} ON v.id = p.dataset_version_id ORDER BY 1") == [
        ("main", 3),
        ("table", 1),
    ]
    assert {"raw/flights@v2"} == {
        row["row"]["version"] for row in lines(export) if "tables that are stored" in row["what"]
    }
    migrate.upgrade(catalog)
    migrate.check(catalog)
    assert [v.number for v in registry.dataset("raw/flights").log()] == [3, 1]
    assert registry.verify(deep=True).damage == ()


def test_compressed_files_and_recipes_are_lost_with_the_versions_that_have_them(
    catalog_url: str, tmp_path: Path
) -> None:
    text_of_many_lines = b"id,n\n" + b"1,5\n" * 20_000
    path = tmp_path / "x.csv"
    path.write_bytes(text_of_many_lines)
    with Registry.open(catalog=catalog_url, store=str(tmp_path / "store"), compression="zstd") as registry:
        dataset = registry.create_dataset("raw/flights")
        dataset.commit({"data": b"1"})
        dataset.commit({"csv": path})
        catalog = registry.access.catalog
        with pytest.raises(DowngradeRefused, match="compressed files"):
            migrate.downgrade(catalog, "0010")
        support.go_down(catalog, "0010")
        migrate.upgrade(catalog)
        assert [v.number for v in registry.dataset("raw/flights").log()] == [1]


def test_a_catalog_that_was_taken_over_is_given_back_as_it_was(legacy: Legacy) -> None:
    catalog = Catalog(legacy.url)
    before = support.snapshot(catalog)
    foreign = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)"
    support.execute(catalog, foreign)
    support.execute(catalog, "INSERT INTO notes (id, text) VALUES (1, 'ours')")
    migrate.downgrade(catalog, "base")
    assert support.tables(catalog) == {"users", "datasets", "files", "dataset_versions", "notes"}
    assert support.query(catalog, "SELECT text FROM notes") == [("ours",)]
    support.execute(catalog, "DROP TABLE notes")
    migrate.upgrade(catalog)
    assert support.snapshot(catalog) == before
    catalog.close()


def test_an_adopted_file_has_its_own_path_back_and_its_object_again_after_an_upgrade(small: Small) -> None:
    path = small.folder / "old" / "x.csv"
    file = support.add_file(small.catalog, support.File(b"id\n1\n", "csv", "csv", path), storage_type="local disk")
    support.add_dataset(small.catalog, "a", {1: file})
    with small.upgrade() as registry:
        assert registry.adopt().files == 1
        row = "SELECT storage_type, file_path FROM files"
        support.go_down(small.catalog, "0001")
        assert support.query(small.catalog, row) == [("local disk", str(path))]
        migrate.upgrade(small.catalog)
        registry.adopt()
        assert support.content(registry.version("a")) == b"id\n1\n"
        support.go_down(small.catalog, "0007")
        assert support.query(small.catalog, row) == [("local disk", str(path))]
        path.unlink()
        migrate.upgrade(small.catalog)
        assert support.content(registry.version("a")) == b"id\n1\n"
        assert registry.verify(deep=True).damage == ()


def test_the_command_says_each_refusal_in_a_few_lines(
    embedded: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CATALOG_VARIABLE, embedded.access.catalog.url.render_as_string())
    embedded.create_dataset("a").commit({"data": b"1"}, message="July")

    def command(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["dataset-registry", "db", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert int(ended.value.code or 0) == code, printed
        assert "Traceback" not in printed.err
        return printed.out + printed.err

    refused = exit_code(DowngradeRefused(""))
    assert "--discard 0001" in command("downgrade", "0001", code=refused)
    assert "must repeat" in command("downgrade", "0001", "--discard", "0002", code=refused)
    assert "No revision" in command("downgrade", "0099", code=refused)
    assert "No revision" in command("upgrade", "nonsense", code=refused)
    assert "nothing to downgrade" in command("downgrade", HEAD, code=refused)
    assert "which is newer than 0003" in command("upgrade", "0003", code=refused)
    said = command("downgrade", "0001", "--discard", "0001")
    assert "messages and overlays of versions (1): a@v1" in said
    (export,) = tmp_path.glob("dataset-registry-losses-*.jsonl")
    assert str(export.name) in said
    assert export.stat().st_mode & 0o077 == 0
    command("upgrade")


def test_a_newer_catalog_is_not_told_to_upgrade(catalog: Catalog) -> None:
    migrate.upgrade(catalog)
    support.execute(catalog, f"UPDATE {REVISION_TABLE} SET version_num = '9999'")
    for call in (migrate.upgrade, migrate.check, lambda c: migrate.downgrade(c, "0001", discard="0001")):
        with pytest.raises(Exception, match="Install that version"):
            call(catalog)


def test_alembic_alone_does_not_lose_anything_either(registry: Registry) -> None:
    from alembic import command

    registry.create_dataset("a").commit({"data": b"1"})
    with pytest.raises(DowngradeRefused), migrate._migration(registry.access.catalog) as (_, config):
        command.downgrade(config, "0009")
    assert registry.version("a").provenance is not None


def test_a_table_that_others_depend_on_is_named_in_one_line(catalog: Catalog) -> None:
    migrate.upgrade(catalog)
    if catalog.is_sqlite:
        pytest.skip("SQLite drops a table under a view")
    support.execute(catalog, "CREATE VIEW report AS SELECT count(*) AS n FROM permissions")
    with pytest.raises(InputError, match="report") as refusal:
        support.go_down(catalog, "0006")
    assert len(str(refusal.value).splitlines()) == 1
    assert catalog.revision() == HEAD
    with catalog.writer.begin() as connection:
        connection.execute(text("DROP VIEW report"))
