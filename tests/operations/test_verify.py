"""Verification: each kind of damage is found, called by its name and nothing else, and repaired where that is safe."""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.catalog import holds
from dataset_registry.errors import CorruptionError, InputError, RetryLater
from dataset_registry.model.verification import LEFTOVERS, REPAIRS, Verification
from dataset_registry.operations.verify import parse_share
from dataset_registry.store import FolderStore, new_key
from dataset_registry.store.checked import content_digest
from tests.operations.support import (
    LAST,
    NOW,
    age,
    age_objects,
    ask,
    assert_exact,
    content,
    digest_of,
    flip,
    object_of,
    objects,
    rewrite,
    sweep_surplus,
    write,
)
from tests.waiting import SAFETY

pytestmark = pytest.mark.objects

HASH = hashlib.sha256(b"two").hexdigest()


@pytest.fixture
def full(registry: Registry) -> Dataset:
    """A registry with something of everything, see `fill`; its dataset."""
    return fill(registry)


def fill(registry: Registry) -> Dataset:
    """v1 to v3 of a dataset, with a table in v2 and v3 and a file of its own in each; another dataset beside it."""
    flights = registry.create_dataset("raw/flights")
    flights.commit({"a": b"one"})
    flights.commit({"a": b"two", "t": pa.table({"x": [1, 2, 3]})})
    flights.commit({"a": b"three"})
    registry.create_dataset("other").commit({"a": b"other"})
    return flights


def found(verification: Verification) -> list[tuple[str, bool]]:
    return [(finding.kind, finding.repaired) for finding in verification.findings]


def only(registry: Registry, kind: str, **options: object) -> str:
    """The text of the one finding that there is."""
    verification = registry.verify(**options)  # type: ignore[arg-type]
    assert found(verification) == [(kind, False)]
    (finding,) = verification.findings
    assert not verification.clean
    assert finding.repair == REPAIRS[kind]
    assert finding.is_leftover == (kind in LEFTOVERS)
    assert verification.damage == (() if finding.is_leftover else (finding,))
    return finding.what


def repairs(registry: Registry, *kinds: str, **options: object) -> None:
    repaired = registry.verify(repair=True, **options)  # type: ignore[arg-type]
    assert found(repaired) == [(kind, True) for kind in kinds]
    assert repaired.clean
    assert repaired.damage == ()
    if "unknown-objects" in kinds:
        sweep_surplus(registry)
    again = registry.verify(deep=True, older_than=NOW)
    assert found(again) == []


def stays(registry: Registry, kind: str) -> None:
    """A repair does not touch it."""
    assert found(registry.verify(repair=True)) == [(kind, False)]
    assert found(registry.verify()) == [(kind, False)]


def unchecked(registry: Registry, *statements: str) -> None:
    """Change rows without foreign keys, as a damaged database or an administrator would."""
    catalog = registry.access.catalog
    engine = catalog.writer
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        if catalog.is_sqlite:
            raw.execute("ROLLBACK") if raw.in_transaction else None
            raw.execute("PRAGMA foreign_keys=OFF")
        else:
            raw.rollback()
            raw.execute("SET session_replication_role = replica")
        for statement in statements:
            raw.execute(statement)
        if catalog.is_sqlite:
            raw.commit()
            raw.execute("PRAGMA foreign_keys=ON")
        else:
            raw.execute("SET session_replication_role = DEFAULT")
            raw.commit()


def test_a_sound_registry_is_clean(full: Dataset, registry: Registry) -> None:
    shallow, deep = registry.verify(older_than=NOW), registry.verify(deep=True, older_than=NOW)
    for verification in (shallow, deep):
        assert (verification.findings, verification.clean, verification.damage) == ((), True, ())
        assert (verification.files, verification.waiting) == (5, 0)
    assert (shallow.bytes_read, deep.bytes_read) == (0, sum(objects(registry).values()))
    assert registry.verify(repair=True, deep=True, older_than=NOW).findings == ()


# --- the catalog ---------------------------------------------------------------------------------------------------


def test_a_row_that_names_nothing_is_a_reference(embedded: Registry) -> None:
    dataset = embedded.create_dataset("d")
    dataset.commit({"a": b"1"})
    dataset.create_tag("t")
    unchecked(embedded, "UPDATE dataset_pointers SET base_version_id = 77 WHERE is_tag = 0")
    what = only(embedded, "reference")
    assert "dataset_pointers" in what
    assert "dataset_versions" in what
    stays(embedded, "reference")


def test_a_damaged_sqlite_file_is_found(embedded: Registry) -> None:
    dataset = embedded.create_dataset("d")
    for i in range(3):
        dataset.commit({"a": f"{i}".encode()})
    # An index that lacks a row: quick_check looks at pages, the unique index at its rows.
    catalog = embedded.access.catalog
    with catalog.writer.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("ROLLBACK") if raw.in_transaction else None
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trash'").fetchone()[0]
        size = raw.execute("PRAGMA page_size").fetchone()[0]
    embedded.close()
    with catalog.path.open("r+b") as stream:
        stream.seek((root - 1) * size)
        stream.write(b"\xff" * 64)
    verification = embedded.verify()
    assert {finding.kind for finding in verification.findings} >= {"database"}
    assert not verification.clean


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE manifest_pages SET digest = '{zero}' WHERE id = {page}",
        "UPDATE manifest_pages SET last_name = 'zzz' WHERE id = {page}",
        "UPDATE manifest_pages SET last_index = 9 WHERE id = {page}",
        "UPDATE manifest_entries SET format = 'csv' WHERE page_id = {page} AND component_name = 'a'",
        "UPDATE manifest_entries SET component_type = 'metadata' WHERE page_id = {page} AND component_name = 'a'",
        "UPDATE manifest_entries SET metadata = '{{}}' WHERE page_id = {page} AND component_name = 'a'",
        "UPDATE manifest_entries SET component_index = 3 WHERE page_id = {page} AND component_name = 'a'",
        "UPDATE manifest_entries SET file_id = {other} WHERE page_id = {page} AND component_name = 'a'",
    ],
)
def test_a_page_that_does_not_hold_what_its_digest_is_over(embedded: Registry, statement: str) -> None:
    registry = embedded
    fill(registry)
    page = ask(registry, "SELECT page_id FROM manifest_entries WHERE component_name = 't' ORDER BY page_id")[0]
    other = ask(registry, "SELECT max(id) FROM files")[0]
    write(registry, statement.format(page=page, other=other, zero="0" * 64))
    verification = registry.verify()
    assert ("page", False) in found(verification)
    # A page's own digest is part of the index page above it: that does not agree any more either.
    assert {finding.kind for finding in verification.findings} == {"page"}
    assert verification.findings[0].what == f"page {page} (raw/flights@v2) does not match its digest"
    assert len(verification.findings) == (2 if "SET digest" in statement else 1)
    assert found(registry.verify(repair=True)) == found(verification)


def test_a_page_without_an_entry_that_it_should_have(full: Dataset, registry: Registry) -> None:
    write(registry, "DELETE FROM manifest_entries WHERE component_name = 't' AND page_id = (SELECT max(page_id) FROM "
          "manifest_entries WHERE component_name = 't')")  # fmt: skip
    assert only(registry, "page").startswith("page ")
    stays(registry, "page")


def test_a_damaged_page_is_called_by_a_version_that_has_it(full: Dataset, registry: Registry) -> None:
    write(registry, "UPDATE manifest_entries SET format = 'csv' WHERE component_name = 'a'")
    assert all("raw/flights@v" in f.what or "other@v" in f.what for f in registry.verify().findings)


def test_an_index_page_that_does_not_hold_what_its_digest_is_over(full: Dataset, registry: Registry) -> None:
    page = ask(registry, "SELECT max(id) FROM manifest_index_pages")[0]
    write(registry, "UPDATE manifest_index_pages SET entry_count = entry_count + 1 WHERE id = :page", page=page)
    kinds = found(registry.verify())
    assert kinds == [("page", False), ("manifest", False)]  # the version's count is that of its index pages
    assert found(registry.verify(repair=True)) == kinds


def test_a_version_that_does_not_hold_what_its_digest_is_over(full: Dataset, registry: Registry) -> None:
    write(registry, "UPDATE dataset_versions SET digest = :d WHERE version_number = 2", d="0" * 64)
    assert only(registry, "manifest") == "raw/flights@v2 does not match its digest"
    stays(registry, "manifest")


def test_a_version_whose_count_is_wrong(full: Dataset, registry: Registry) -> None:
    write(registry, "UPDATE dataset_versions SET component_count = 9 WHERE version_number = 3")
    assert only(registry, "manifest") == "raw/flights@v3 does not match its digest"


def test_a_version_that_lost_its_pages(full: Dataset, registry: Registry) -> None:
    write(registry, "DELETE FROM version_index_pages WHERE version_id = (SELECT id FROM dataset_versions WHERE "
          "version_number = 3)")  # fmt: skip
    kinds = found(registry.verify())
    assert kinds == [("unnamed-index-page", False), ("manifest", False)]
    registry.verify(repair=True)
    assert found(registry.verify()) == [("manifest", False)]


@pytest.mark.parametrize(
    ("statement", "version"),
    [
        ("UPDATE dataset_versions SET parent_version_id = {v3} WHERE id = {v2}", "raw/flights@v2"),
        ("UPDATE dataset_versions SET parent_version_id = {v2} WHERE id = {v2}", "raw/flights@v2"),
        ("UPDATE dataset_versions SET parent_version_id = {other} WHERE id = {v3}", "raw/flights@v3"),
        ("INSERT INTO version_parents (version_id, position, parent_id) VALUES ({v2}, 1, {v3})", "raw/flights@v2"),
        ("UPDATE dataset_versions SET depth = 0 WHERE id = {v2}", "raw/flights@v2"),
    ],
)
def test_a_parent_that_does_not_come_before_its_child(embedded: Registry, statement: str, version: str) -> None:
    registry, full = embedded, fill(embedded)
    ids = {f"v{v.number}": v.id for v in full.tree()} | {"other": registry.dataset("other").version().id}
    write(registry, statement.format(**ids))
    assert only(registry, "graph") == f"{version} has a parent that does not come before it"
    stays(registry, "graph")


def test_a_pointer_out_of_its_dataset(full: Dataset, registry: Registry) -> None:
    full.create_branch("dev")
    other = registry.dataset("other").version().id
    write(registry, "UPDATE dataset_pointers SET dataset_version_id = :v WHERE pointer_name = 'dev'", v=other)
    assert only(registry, "pointer") == "'dev' of raw/flights references a version of another dataset"
    stays(registry, "pointer")
    full.delete_branch("dev")
    assert registry.verify(deep=True).clean


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE file_parts SET part_id = (SELECT min(id) FROM files)",
        "DELETE FROM file_parts",
        "UPDATE files SET file_size = file_size + 1 WHERE form = 'parts'",
    ],
)
def test_a_table_that_does_not_have_its_parts(embedded: Registry, statement: str) -> None:
    registry, full = embedded, fill(embedded)
    table = digest_of(full, "t")
    write(registry, statement)
    assert only(registry, "table").startswith(f"the table {table[:12]}")
    stays(registry, "table")


def test_a_damaged_table_is_called_by_a_version_that_has_it(full: Dataset, registry: Registry) -> None:
    write(registry, "DELETE FROM file_parts")
    assert "raw/flights@v3" in only(registry, "table")


def test_a_stored_file_without_an_object(full: Dataset, registry: Registry) -> None:
    write(registry, "UPDATE files SET object_key = NULL WHERE content_hash = :h", h=HASH)
    verification = registry.verify(older_than=timedelta(days=1))
    assert found(verification) == [("file", False)]
    assert HASH[:12] in verification.findings[0].what
    stays(registry, "file")


def test_committing_the_same_content_heals_a_file_without_an_object(full: Dataset, registry: Registry) -> None:
    write(registry, "UPDATE files SET object_key = NULL WHERE content_hash = :h", h=HASH)
    registry.create_dataset("again").commit({"a": b"two"})
    assert "file" not in [kind for kind, _ in found(registry.verify())]


def test_a_counter_that_lags_is_set_right(full: Dataset, registry: Registry) -> None:
    write(registry, "UPDATE datasets SET last_version_number = 1 WHERE name = 'raw/flights'")
    assert only(registry, "counter") == "raw/flights would assign a version number twice"
    repairs(registry, "counter")
    assert full.commit({"a": b"four"}).number == 4


def test_a_page_that_nothing_names_is_dropped(full: Dataset, registry: Registry) -> None:
    write(registry, "INSERT INTO manifest_pages (digest, entry_count, last_name, last_index) VALUES (:d, 1, 'x', 0)",
          d="0" * 64)  # fmt: skip
    page = ask(registry, f"SELECT id FROM manifest_pages WHERE digest = '{'0' * 64}'")[0]
    file_id = ask(registry, f"SELECT id FROM files WHERE content_hash = '{HASH}'")[0]
    write(registry, "INSERT INTO manifest_entries (page_id, component_name, component_index, component_type, file_id, "
          "format) VALUES (:page, 'x', 0, 'data', :file, 'binary')", page=page, file=file_id)  # fmt: skip
    assert only(registry, "unnamed-page") == f"no version references page {page}"
    repairs(registry, "unnamed-page")


def test_an_index_page_that_nothing_names_is_dropped_with_the_pages_that_only_it_names(
    full: Dataset, registry: Registry
) -> None:
    before = [ask(registry, f"SELECT count(*) FROM manifest_{what}")[0] for what in ("index_pages", "pages", "entries")]
    made = full.commit({"b": b"four"})
    full.move_branch("main", "v3")
    index = ask(registry, f"SELECT index_page_id FROM version_index_pages WHERE version_id = {made.id}")[0]
    for table, column in (
        ("productions", "version_id"),
        ("version_index_pages", "version_id"),
        ("dataset_versions", "id"),
    ):
        write(registry, f"DELETE FROM {table} WHERE {column} = :v", v=made.id)
    assert only(registry, "unnamed-index-page") == f"no version references index page {index}"
    repairs(registry, "unnamed-index-page")
    after = [ask(registry, f"SELECT count(*) FROM manifest_{what}")[0] for what in ("index_pages", "pages", "entries")]
    assert after == before
    registry.collect(older_than=NOW)
    assert_exact(registry)


def test_holds_that_ran_out_and_trash_are_litter(full: Dataset, registry: Registry) -> None:
    registry.access.catalog.write(lambda tx: holds.hold(tx, {"0" * 64: None, HASH: None}))
    assert registry.verify().clean
    age(registry, 1, "uploads.expires_at")
    assert only(registry, "expired-hold") == "2 holds of dead writers"
    repairs(registry, "expired-hold")
    write(registry, "INSERT INTO trash (object_key) VALUES (:k)", k=new_key("0" * 64))
    assert only(registry, "trash") == "1 objects whose bytes are still to be deleted"
    repairs(registry, "trash")
    assert_exact(registry)


# --- the store -----------------------------------------------------------------------------------------------------


def test_a_missing_object_is_quarantined(full: Dataset, registry: Registry) -> None:
    object_of(registry, HASH).unlink()
    assert only(registry, "missing") == f"the file {HASH[:12]} (raw/flights@v2) has lost its object"
    assert found(registry.verify(deep=True)) == [("missing", False)]
    assert found(registry.verify(repair=True)) == [("missing", False)]
    what = only(registry, "quarantined", deep=True)
    assert what == f"the file {HASH[:12]} (raw/flights@v2) is in quarantine: its object is missing"
    stays(registry, "quarantined")


def test_a_truncated_or_longer_object_is_quarantined(full: Dataset, registry: Registry) -> None:
    rewrite(object_of(registry, HASH), b"tw")
    assert only(registry, "size", deep=True) == f"the file {HASH[:12]} (raw/flights@v2) has 2 bytes instead of 3"
    rewrite(object_of(registry, HASH), b"twoo")
    assert only(registry, "size") == f"the file {HASH[:12]} (raw/flights@v2) has 4 bytes instead of 3"
    assert found(registry.verify(repair=True)) == [("size", False)]
    assert only(registry, "quarantined").endswith("its object has another size")


def test_changed_content_is_found_by_reading_it_and_quarantined(full: Dataset, registry: Registry) -> None:
    rewrite(object_of(registry, HASH), b"TWO")
    assert registry.verify().clean
    what = only(registry, "content", deep=True)
    assert what.startswith(f"the file {HASH[:12]} (raw/flights@v2) has other content, SHA-256 ")
    assert found(registry.verify(deep=True, repair=True)) == [("content", False)]
    assert only(registry, "quarantined", deep=True).endswith("its bytes have changed")


def test_a_damaged_part_is_called_by_the_versions_of_its_table(full: Dataset, registry: Registry) -> None:
    full.version().paths("t")[0].unlink()
    assert "(raw/flights@v3, raw/flights@v2) has lost its object" in only(registry, "missing")


class Sulking(FolderStore):
    """A folder that does not answer for some keys."""

    unanswered = ""

    def open(self, key: str):  # type: ignore[no-untyped-def]
        if self.unanswered and key.startswith(self.unanswered):
            raise RetryLater("The store does not answer. Try again.")
        return super().open(key)


def test_a_store_that_does_not_answer_is_no_damage(catalog_url: str, tmp_path: Path) -> None:
    store = Sulking(tmp_path / "store")
    with Registry.open(catalog=catalog_url, store=store) as registry:
        registry.create_dataset("d").commit({"a": b"two", "b": b"b"})
        store.unanswered = HASH
        what = only(registry, "unreadable", deep=True)
        assert what.startswith(f"the file {HASH[:12]} (d@v1) could not be read: The store does not answer")
        store.unanswered = ""
        assert registry.verify(deep=True).clean


def test_a_store_that_does_not_answer_is_not_mended_by_a_repair(sqlite_url: str, tmp_path: Path) -> None:
    store = Sulking(tmp_path / "store")
    with Registry.open(catalog=sqlite_url, store=store) as registry:
        registry.create_dataset("d").commit({"a": b"two"})
        store.unanswered = HASH
        assert found(registry.verify(deep=True, repair=True)) == [("unreadable", False)]


def test_an_unknown_object_counts_once_it_is_a_day_old(flights: Dataset, registry: Registry) -> None:
    flights.commit({f"c{i}": f"{i:04}".encode() for i in range(100)})
    key = new_key(HASH)
    registry.access.store.put(key, b"two")
    assert registry.verify().clean
    age_objects(registry, 25, [key])
    assert only(registry, "unknown-objects") == "1 of 101 objects (1.0% of the store) are unknown to the catalog"
    repairs(registry, "unknown-objects")
    assert_exact(registry)


def test_many_unknown_objects_are_taken_into_lost_and_found(full: Dataset, registry: Registry) -> None:
    kept = content(full)
    for data in (b"lost", b"found"):
        registry.access.store.put(new_key(hashlib.sha256(data).hexdigest()), data)
    what = only(registry, "unknown-objects", older_than=NOW)
    assert what == "2 of 7 objects (28.6% of the store) are unknown to the catalog"
    repairs(registry, "unknown-objects", older_than=NOW)
    rescued = content(registry.dataset("lost+found"))
    assert sorted(rescued.values()) == [b"found", b"lost"]
    assert content(full) == kept
    assert_exact(registry)


def test_unknown_objects_that_are_not_what_they_are_named_after_are_left_alone(
    full: Dataset, registry: Registry
) -> None:
    good, bad = new_key(HASH.replace("b", "a", 1)), new_key("0" * 64)
    for key in (good, bad):
        registry.access.store.put(key, b"something else")
    assert found(registry.verify(repair=True, older_than=NOW)) == [("unknown-objects", False)]
    assert {good, bad} <= objects(registry).keys()
    assert [d.name for d in registry.datasets()] == ["other", "raw/flights"]


def test_content_that_the_catalog_has_already_is_not_rescued_again(full: Dataset, registry: Registry) -> None:
    registry.access.store.put(new_key(HASH), b"two")
    registry.verify(repair=True, older_than=NOW)
    assert [d.name for d in registry.datasets()] == ["other", "raw/flights"]
    assert registry.sweep(older_than=NOW, max_share=1).objects == 1
    assert_exact(registry)


def test_rescued_content_heals_a_file_in_quarantine(full: Dataset, registry: Registry) -> None:
    """The catalog is older than the healing: it has the file in quarantine, and the store has its new object."""
    object_of(registry, HASH).unlink()
    registry.verify(repair=True)
    registry.access.store.put(new_key(HASH), b"two")
    registry.verify(repair=True, older_than=NOW)
    assert content(full, "v2")["a.0"] == b"two"
    registry.collect(older_than=NOW)
    sweep_surplus(registry)
    assert registry.verify(deep=True, older_than=NOW).clean


# --- quarantine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(full: Dataset, registry: Registry) -> Dataset:
    """`full`, with the content of v2's `a` in quarantine."""
    rewrite(object_of(registry, HASH), b"TWO")
    registry.verify(deep=True, repair=True)
    return full


def test_reading_a_quarantined_file_says_what_to_do(damaged: Dataset, tmp_path: Path) -> None:
    version = damaged.version("v2")
    for read in (
        lambda: version.open("a"),
        lambda: version.paths("a"),
        lambda: version.uris("a"),
        lambda: version.checkout(tmp_path / "out", component="a"),
    ):
        with pytest.raises(CorruptionError, match=r"quarantine: its bytes have changed\. Restore its object"):
            read()
    assert version.to_arrow("t").num_rows == 3
    assert content(damaged, "v1") == {"a.0": b"one"}


def test_committing_the_same_content_heals_all_versions(damaged: Dataset, registry: Registry) -> None:
    again = registry.create_dataset("again")
    with again.draft() as draft:
        draft.add("b", b"two")
    assert draft.result.new_bytes == 3
    assert content(again)["b.0"] == content(damaged, "v2")["a.0"] == b"two"
    assert registry.file(HASH).reference_count == 2
    registry.collect(older_than=NOW)
    assert_exact(registry)
    assert registry.verify(deep=True, older_than=NOW).clean


def test_committing_the_same_content_once_more_to_the_same_branch_heals_it(
    damaged: Dataset, registry: Registry
) -> None:
    damaged.move_branch("main", "v2")
    with damaged.draft() as draft:
        draft.add("a", b"two")
    assert draft.result.unchanged
    assert content(damaged, "v2")["a.0"] == b"two"
    registry.collect(older_than=NOW)
    assert registry.verify(deep=True, older_than=NOW).clean


def test_committing_the_same_table_once_more_heals_its_parts(full: Dataset, registry: Registry) -> None:
    table = full.version().to_arrow("t")
    full.version().paths("t")[0].unlink()
    registry.verify(repair=True)
    full.commit({"t": table})
    assert full.version().to_arrow("t") == table


def test_a_table_whose_part_is_in_quarantine_heals_with_another_version(full: Dataset, registry: Registry) -> None:
    table = full.version().to_arrow("t")
    full.version().paths("t")[0].unlink()
    registry.verify(repair=True)
    with pytest.raises(CorruptionError, match="quarantine"):
        full.version().to_arrow("t")
    full.commit({"t": table, "a": b"four"})
    assert full.version("v2").to_arrow("t") == table
    registry.collect(older_than=NOW)
    assert_exact(registry)
    assert registry.verify(deep=True, older_than=NOW).clean


def test_nothing_new_comes_to_rest_on_a_quarantined_file(damaged: Dataset, registry: Registry) -> None:
    key = registry.file(HASH).object_key
    registry.create_dataset("again").commit({"b": b"two"})
    assert registry.file(HASH).object_key != key
    assert ask(registry, "SELECT object_key FROM trash") == [key]


def test_a_restored_object_is_released(damaged: Dataset, registry: Registry) -> None:
    path = object_of(registry, HASH)
    assert found(registry.verify(repair=True)) == [("quarantined", False)]
    rewrite(path, b"two")
    assert found(registry.verify()) == [("quarantined", False)]
    repairs(registry, "quarantined")
    assert content(damaged, "v2")["a.0"] == b"two"


def test_an_object_that_came_back_after_it_was_missing_is_released(full: Dataset, registry: Registry) -> None:
    path = object_of(registry, HASH)
    aside = path.rename(path.parent / "aside")
    registry.verify(repair=True)
    aside.rename(path)
    repairs(registry, "quarantined")


def test_a_missing_file_is_only_healed_by_a_commit_once_it_is_in_quarantine(full: Dataset, registry: Registry) -> None:
    object_of(registry, HASH).unlink()
    registry.create_dataset("early").commit({"b": b"two"})  # nobody knows yet that it is missing
    assert found(registry.verify(repair=True)) == [("missing", False)]
    registry.create_dataset("late").commit({"b": b"two", "c": b"c"})
    registry.collect(older_than=NOW)
    assert registry.verify(deep=True).clean
    assert content(registry.dataset("early"))["b.0"] == b"two"


# --- reading everything --------------------------------------------------------------------------------------------


def test_shares_together_read_every_byte_once(flights: Dataset, registry: Registry) -> None:
    flights.commit({f"c{i}": f"{i:04}".encode() * (1 + i) for i in range(60)})
    whole = registry.verify(deep=True).bytes_read
    shares = [registry.verify(deep=(n, 3)).bytes_read for n in (1, 2, 3)]
    assert sum(shares) == whole == sum(objects(registry).values())
    assert min(shares) > 0
    rewrite(object_of(registry, digest_of(flights, "c1")), b"XXXX" * 2)
    assert sum(len(registry.verify(deep=(n, 3)).findings) for n in (1, 2, 3)) == 1


def test_shares_are_read_from_text() -> None:
    assert (parse_share("1/1"), parse_share("2/7")) == ((1, 1), (2, 7))
    for text in ("", "0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5", "1.5/3"):
        with pytest.raises(InputError, match=r"Invalid share .*: expected one like 2/7"):
            parse_share(text)


@pytest.mark.parametrize("share", [(0, 3), (4, 3), (-1, 2), (1, 0)])
def test_a_share_that_does_not_exist_is_refused(embedded: Registry, share: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="share"):
        embedded.verify(deep=share)


def test_every_flipped_bit_is_found(embedded: Registry, tmp_path: Path) -> None:
    dataset = embedded.create_dataset("d")
    dataset.commit({"a": b"some bytes", "t": pa.table({"x": [1, 2, 3]})})
    for path in (object_of(embedded, digest_of(dataset, "a")), dataset.version().paths("t")[0]):
        bits = path.stat().st_size * 8
        for bit in {0, bits - 1, *range(3, bits, max(1, bits // 12))}:
            flip(path, bit)
            verification = embedded.verify(deep=True)
            assert found(verification) == [("content", False)], (path, bit)
            flip(path, bit)
    assert embedded.verify(deep=True).clean


def test_every_flipped_bit_of_a_compressed_file_is_found_or_changes_nothing(sqlite_url: str, tmp_path: Path) -> None:
    with Registry.open(catalog=sqlite_url, store=str(tmp_path / "store"), compression="zstd") as registry:
        dataset = registry.create_dataset("d")
        source = tmp_path / "a.csv"
        source.write_text("a,b\n" + "1,constant\n" * 300)
        dataset.commit({"a": source})
        path = object_of(registry, digest_of(dataset, "a"))
        assert path.stat().st_size < 100
        whole, key, plain = path.read_bytes(), path.name, digest_of(dataset, "a")
        harmless = []
        for bit in range(len(whole) * 8):
            flip(path, bit)
            try:
                good = content_digest(registry.access.copies.open(key, "zstd")) == (plain, source.stat().st_size)
            except CorruptionError:
                good = False
            if good:
                assert content(dataset)["a.0"] == source.read_bytes()
                harmless.append(bit)
            elif bit % 50 == 0:
                assert found(registry.verify(deep=True)) == [("content", False)], bit
            rewrite(path, whole)
        assert len(harmless) < 8, harmless  # some bits of a frame's header say nothing
        # What is truncated or follows the frame is a matter of size, and found without reading.
        rewrite(path, whole[:-1])
        assert found(registry.verify()) == [("size", False)]
        rewrite(path, whole + b"\0")
        assert found(registry.verify(deep=True)) == [("size", False)]
        rewrite(path, whole)
        assert registry.verify(deep=True).clean


def test_an_empty_file_is_verified_too(flights: Dataset, registry: Registry) -> None:
    flights.commit({"a": b""})
    assert registry.verify(deep=True).clean
    rewrite(object_of(registry, digest_of(flights, "a")), b"x")
    only(registry, "size")


# --- beside others -------------------------------------------------------------------------------------------------


def test_a_verification_beside_writers_finds_nothing_that_is_not_there(flights: Dataset, registry: Registry) -> None:
    _beside(flights, registry, timedelta(days=1))


def test_a_verification_of_young_objects_beside_writers_finds_nothing_that_is_not_there(
    flights: Dataset, registry: Registry
) -> None:
    _beside(flights, registry, NOW)


def _beside(dataset: Dataset, registry: Registry, older_than: timedelta) -> None:
    dataset.commit({f"k{i}": f"kept {i}".encode() for i in range(20)})
    over = threading.Event()
    errors: list[BaseException] = []
    done: Counter[str] = Counter()

    def loop(work: Callable[[int], object]) -> threading.Thread:
        def run() -> None:
            i = 0
            try:
                while not over.is_set():
                    work(i := i + 1)
                    done[threading.current_thread().name] += 1
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def clean(i: int) -> None:
        registry.expire(LAST)
        registry.collect(older_than=NOW)

    threads = [
        loop(lambda i: dataset.commit({"a": f"a{i}".encode(), "t": pa.table({"x": [i]})})),
        loop(clean),
    ]
    findings = []
    rounds = 0
    try:
        while not errors and (rounds < 4 or min(done[thread.name] for thread in threads) < 4):
            rounds += 1
            findings += registry.verify(deep=rounds % 2 == 0, older_than=older_than).findings
    finally:
        over.set()
        for thread in threads:
            thread.join(SAFETY)
    assert errors == []
    assert rounds > 2
    # What a collection is just about to delete is in the trash, and says so.
    assert [finding.what for finding in findings if finding.kind != "trash"] == []
    registry.collect(older_than=NOW)
    assert registry.verify(deep=True, older_than=NOW).findings == ()


def test_repairing_beside_writers_harms_nothing(flights: Dataset, registry: Registry) -> None:
    over = threading.Event()
    errors: list[BaseException] = []

    def commit() -> None:
        i = 0
        try:
            while not over.is_set():
                i += 1
                flights.commit({"a": f"a{i}".encode(), "b": f"b{i % 3}".encode()})
                registry.expire(LAST)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=commit)
    thread.start()
    try:
        for _ in range(6):
            registry.verify(deep=True, repair=True, older_than=NOW)
            registry.collect(older_than=NOW)
    finally:
        over.set()
        thread.join(SAFETY)
    assert errors == []
    assert "lost+found" not in [d.name for d in registry.datasets()]
    assert content(flights)
    registry.collect(older_than=NOW)
    assert registry.verify(deep=True, older_than=NOW).findings == ()


# --- legacy --------------------------------------------------------------------------------------------------------


def test_legacy_files_that_wait_are_counted_and_no_findings(full: Dataset, registry: Registry) -> None:
    for data in ("inline", "more"):
        write(
            registry,
            "INSERT INTO files (storage_type, file_type, file_data, file_size) VALUES ('database', 'csv', :data, 3)",
            data=data.encode(),
        )
    verification = registry.verify(deep=True, repair=True)
    assert (verification.findings, verification.waiting, verification.files) == ((), 2, 5)
    assert registry.collect(older_than=NOW).files == 0
    assert ask(registry, "SELECT count(*) FROM files WHERE storage_type = 'database'") == [2]
