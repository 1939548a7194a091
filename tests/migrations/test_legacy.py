"""A populated baseline: recognised, upgraded, readable, adopted."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sqlalchemy.exc import DBAPIError

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.catalog.engine import HEAD
from dataset_registry.errors import NotAdopted, RegistryError, StorageError
from dataset_registry.model.manifest import Entry, build
from dataset_registry.store import FolderStore
from tests.migrations import support
from tests.migrations.conftest import Adopted, Legacy, Small
from tests.migrations.support import File

SUFFIXES = {"csv": ".csv", "json": ".json", "parquet": ".parquet", "binary": ".txt"}


# --- upgraded, not adopted -----------------------------------------------------------------------------------------


def test_a_database_without_a_revision_is_recognised_as_the_baseline_and_upgraded(legacy: Legacy) -> None:
    catalog = Catalog(legacy.url)
    try:
        assert catalog.revision() == HEAD
        migrate.check(catalog)
        assert len(support.query(catalog, "SELECT 1 FROM datasets")) == 21
        assert len(support.query(catalog, "SELECT 1 FROM files")) == len(legacy.baseline.files)
        assert len(support.query(catalog, "SELECT 1 FROM dataset_versions")) == len([*legacy.baseline.every_version()])
        names = {row[0] for row in support.query(catalog, "SELECT DISTINCT component_name FROM dataset_version_files")}
        assert names == {"data"}
    finally:
        catalog.close()


def test_the_baseline_has_what_legacy_catalogs_have(upgraded: Legacy) -> None:
    """What the other tests rest on: inline and under paths, each format, shared files, duplicates, gaps."""
    files = upgraded.baseline.files.values()
    assert {(file.path is None, file.format) for file in files} == {
        (inline, format) for inline in (True, False) for format in SUFFIXES
    }
    assert len({file.hash for file in files}) < len(files)
    assert max(Counter(file.id for _, _, file in upgraded.baseline.every_version()).values()) > 2
    assert any(max(numbers) > len(numbers) for numbers in upgraded.baseline.versions.values())


def test_every_legacy_version_reads_byte_for_byte_before_adoption(
    old: Registry, legacy: Legacy, tmp_path: Path
) -> None:
    for name, number, file in legacy.baseline.every_version():
        version = old.dataset(name).version(f"v{number}")
        assert support.content(version) == file.data, version
        (path,) = version.checkout(tmp_path / f"{name}@{number}")
        assert path.read_bytes() == file.data
        assert version.digest is None
    assert old.dataset("raw/empty").tree() == []


def test_legacy_versions_become_a_linear_history_on_main(old: Registry, legacy: Legacy) -> None:
    for name, versions in legacy.baseline.versions.items():
        dataset = old.dataset(name)
        numbers = sorted(versions)
        log = dataset.log("main")
        assert [version.number for version in log] == numbers[::-1]
        assert [version.parents for version in log] == [(n,) for n in numbers[-2::-1]] + [()]
        assert [version.depth for version in log] == list(range(len(numbers)))[::-1]
        assert [branch.name for branch in dataset.branches()] == ["main"]
        assert dataset.version(f"main~{len(numbers) - 1}").number == numbers[0]
        assert dataset.version(f"v{numbers[0]}").created_by == ("ada" if int(name[-2:]) % 2 else None)
    assert old.dataset("raw/empty").branches() == []


def test_a_commit_to_a_dataset_that_was_not_adopted_is_refused(old: Registry) -> None:
    dataset = old.dataset("raw/set_00")
    before = dataset.version().number

    with pytest.raises(NotAdopted, match=r"registry\.adopt") as refusal:
        dataset.commit({"data": b"new"})
    assert refusal.value.code == "not_adopted"
    with pytest.raises(NotAdopted):
        dataset.commit({"more": b"new"})
    assert dataset.version().number == before


def test_a_dataset_without_versions_and_a_new_one_take_commits_before_adoption(old: Registry) -> None:
    assert old.dataset("raw/empty").commit({"data": b"first"}).number == 1
    version = old.create_dataset("new").commit({"data": b"first"})
    assert support.content(version) == b"first"


# --- adopted -------------------------------------------------------------------------------------------------------


def test_every_byte_is_in_the_store_under_its_hash_after_adoption(adopted: Adopted) -> None:
    rows = support.query(
        adopted.catalog,
        "SELECT content_hash, file_size, object_key, storage_type, file_data, file_path FROM files",
    )
    by_hash = {file.hash: file for file in adopted.baseline.files.values()}
    assert {row[0] for row in rows} == by_hash.keys()
    store = adopted.registry.access.store
    for content_hash, size, key, storage_type, data, path in rows:
        assert data is None
        assert (storage_type == "store") == (path is None), "a file that had a path keeps it"
        with store.open(key) as stream:
            stored = stream.read()
        assert stored == by_hash[content_hash].data
        assert hashlib.sha256(stored).hexdigest() == content_hash
        assert size == len(stored)
    assert {entry.key for entry in store.list()} == {row[2] for row in rows}
    assert support.query(adopted.catalog, "SELECT count(*) FROM uploads") == [(0,)]


def test_duplicates_are_one_file_with_the_right_count_after_adoption(adopted: Adopted) -> None:
    expected = Counter(file.hash for _, _, file in adopted.baseline.every_version())
    unused = {file.hash for file in adopted.baseline.files.values()} - expected.keys()
    counts = dict(support.query(adopted.catalog, "SELECT content_hash, reference_count FROM file_info"))
    assert counts == {**expected, **dict.fromkeys(unused, 0)}
    assert max(expected.values()) >= 5
    for content_hash, count in expected.items():
        assert adopted.registry.file(content_hash).reference_count == count
    hashes = {file.hash for file in adopted.baseline.files.values()}
    adoption = adopted.adoption
    assert (adoption.files, adoption.duplicates) == (
        len(adopted.baseline.files),
        len(adopted.baseline.files) - len(hashes),
    )
    assert adoption.bytes == sum({file.hash: len(file.data) for file in adopted.baseline.files.values()}.values())
    assert adoption.versions == len([*adopted.baseline.every_version()])
    assert adoption.failed == {}


def test_every_version_reads_byte_for_byte_after_adoption(adopted: Adopted, tmp_path: Path) -> None:
    for name, number, file in adopted.baseline.every_version():
        version = adopted.registry.dataset(name).version(f"v{number}")
        assert support.content(version) == file.data, version
        (path,) = version.checkout(tmp_path / f"{name}@{number}")
        assert path.read_bytes() == file.data
        assert path.suffix == {"binary": ""}.get(file.format, f".{file.format}")
        if file.format == "parquet":
            assert version.to_arrow().equals(pq.read_table(io.BytesIO(file.data)))


def test_digests_and_formats_are_those_of_the_same_content_committed_anew(adopted: Adopted, tmp_path: Path) -> None:
    fresh: dict[tuple[str, str], object] = {}
    with Registry.open(tmp_path / "fresh") as registry:
        for name, number, file in adopted.baseline.every_version():
            version = adopted.registry.dataset(name).version(f"v{number}")
            assert [component.format for component in version.components] == [file.format], version
            assert version.digest == build([Entry("data", 0, "data", file.hash, file.format)]).digest
            key = (file.hash, file.format)
            if key not in fresh:
                path = tmp_path / f"content{SUFFIXES[file.format]}"
                path.write_bytes(file.data)
                fresh[key] = registry.create_dataset(f"d{len(fresh)}").commit({"data": path})
            same = fresh[key]
            assert (version.digest, version.schema) == (same.digest, same.schema)  # type: ignore[attr-defined]
            assert bool(version.schema.components) == (file.format != "binary")


def test_digests_of_pages_are_filled_in_by_adoption(adopted: Adopted) -> None:
    for table in ("manifest_pages", "manifest_index_pages", "dataset_versions"):
        assert support.query(adopted.catalog, f"SELECT count(*) FROM {table} WHERE digest IS NULL") == [(0,)], table


def test_history_is_the_same_after_adoption(adopted: Adopted) -> None:
    for name, versions in adopted.baseline.versions.items():
        numbers = sorted(versions)
        log = adopted.registry.dataset(name).log()
        assert [(v.number, v.depth) for v in log] == [(n, i) for i, n in enumerate(numbers)][::-1]


def test_a_second_adoption_does_nothing(adopted: Adopted) -> None:
    again = adopted.again
    assert (again.files, again.duplicates, again.bytes, again.versions, again.failed) == (0, 0, 0, 0, {})


def test_legacy_datasets_take_commits_after_adoption(small: Small) -> None:
    data = support.csv_bytes(4)
    for name in ("a", "b"):
        file = support.add_file(small.catalog, File(data, "csv", "csv"))
        support.add_dataset(small.catalog, name, {2: file, 5: support.add_file(small.catalog, File(b"x", "binary"))})
    with small.upgrade() as registry:
        assert registry.adopt().files == 4
        dataset = registry.dataset("a")
        version = dataset.commit({"more": b"new"}, message="after")
        assert (version.number, version.parents, version.depth) == (6, (5,), 2)
        assert support.content(version, "more") == b"new"
        assert support.content(version, "data") == b"x"
        assert dataset.commit({"data": b"x"}).number == 6, "the content it has makes no new version"
        with dataset.draft() as draft:
            draft.add("data", data, format="csv")
        assert registry.file(hashlib.sha256(data).hexdigest()).reference_count == 3


def test_a_missing_legacy_file_is_reported_and_everything_else_is_adopted(small: Small) -> None:
    folder = small.folder / "old"
    gone = support.add_file(small.catalog, File(support.csv_bytes(1), "csv", "csv", folder / "gone.csv"))
    there = support.add_file(small.catalog, File(support.csv_bytes(2), "csv", "csv", folder / "there.csv"))
    inline = support.add_file(small.catalog, File(b"inline", "binary"))
    support.add_dataset(small.catalog, "a", {1: gone, 2: there})
    support.add_dataset(small.catalog, "b", {1: inline})
    (folder / "gone.csv").rename(folder / "moved.csv")
    with small.upgrade() as registry:
        with pytest.raises(StorageError, match=r"gone\.csv"):
            registry.dataset("a").version("v1").open()
        adoption = registry.adopt()
        assert adoption.failed.keys() == {gone.id}
        assert "gone.csv" in adoption.failed[gone.id] or "No such file" in adoption.failed[gone.id]
        assert (adoption.files, adoption.versions) == (2, 2)
        assert registry.dataset("a").version("v1").digest is None
        assert registry.dataset("a").version("v2").digest is not None
        assert support.content(registry.dataset("a").version("v2")) == there.data
        assert registry.dataset("b").commit({"data": b"next"}).number == 2
        assert registry.adopt().failed.keys() == {gone.id}

        (folder / "moved.csv").rename(folder / "gone.csv")
        again = registry.adopt()
        assert (again.files, again.versions, again.failed) == (1, 1, {})
        version = registry.dataset("a").version("v1")
        assert version.digest == build([Entry("data", 0, "data", gone.hash, "csv")]).digest
        assert support.content(version) == gone.data
        assert registry.dataset("a").commit({"data": b"next"}).number == 3


class _Killed(BaseException):
    """Not an error of the package: nothing may catch it."""


class _DyingStore(FolderStore):
    """A folder that dies in the k-th put, before or after the bytes are there."""

    def __init__(self, location: Path, dies_at: int, after: bool) -> None:
        super().__init__(location)
        self.left = dies_at
        self.after = after

    def put(self, key: str, source: Path | bytes) -> int:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise _Killed
        kept = super().put(key, source)
        if self.left == 0:
            raise _Killed
        return kept


@pytest.mark.parametrize(("dies_at", "after"), [(1, False), (3, True), (5, False)])
def test_an_adoption_that_was_killed_half_way_is_finished_by_the_next(small: Small, dies_at: int, after: bool) -> None:
    baseline = support.fill_baseline(small.catalog, small.folder / "old", datasets=3)
    small.upgrade().close()
    url = small.catalog.url.render_as_string(hide_password=False)
    store = small.folder / "store"
    with Registry.open(catalog=url, store=_DyingStore(store, dies_at, after), actor="ada") as registry:
        with pytest.raises(_Killed):
            registry.adopt()
        for name, number, file in baseline.every_version():
            assert support.content(registry.dataset(name).version(f"v{number}")) == file.data
    with Registry.open(catalog=url, store=str(store), actor="ada") as registry:
        adoption = registry.adopt()
        assert adoption.failed == {}
        assert adoption.versions == len([*baseline.every_version()])
        assert registry.adopt().files == 0
        for name, number, file in baseline.every_version():
            version = registry.dataset(name).version(f"v{number}")
            assert support.content(version) == file.data
            assert version.digest == build([Entry("data", 0, "data", file.hash, file.format)]).digest
        expected = Counter(file.hash for _, _, file in baseline.every_version())
        counts = dict(support.query(small.catalog, "SELECT content_hash, reference_count FROM file_info"))
        assert {h: n for h, n in counts.items() if n} == expected
        stored = {entry.key for entry in registry.access.store.list()}
        named = {row[0] for row in support.query(small.catalog, "SELECT object_key FROM files")}
        held = {row[0] for row in support.query(small.catalog, "SELECT object_key FROM uploads")}
        assert named <= stored
        assert stored - named <= held, "what no file names has a hold that a collection finds"
        assert len(held) == 1


# --- what legacy catalogs may have besides -------------------------------------------------------------------------


def test_permissions_on_duplicates_are_kept_once(small: Small) -> None:
    user = support.insert(small.catalog, "users", username="eve")
    files = [support.add_file(small.catalog, File(b"same", "binary")) for _ in range(3)]
    for i, file in enumerate(files):
        support.add_dataset(small.catalog, f"d{i}", {1: file})
    with small.upgrade() as registry:
        for file, kinds in zip(files, (("read",), ("read", "write"), ("read", "write")), strict=True):
            for kind in kinds:
                support.insert(
                    small.catalog,
                    "permissions",
                    resource_type="file",
                    resource_id=file.id,
                    user_id=user,
                    permission_type=kind,
                    granted_by=user,
                )
        support.insert(
            small.catalog,
            "permissions",
            resource_type="dataset",
            resource_id=files[1].id,
            user_id=user,
            permission_type="admin",
            granted_by=user,
        )
        assert registry.adopt().duplicates == 2
    rows = support.query(
        small.catalog, "SELECT resource_type, resource_id, permission_type FROM permissions ORDER BY permission_type"
    )
    assert rows == [("dataset", files[1].id, "admin"), ("file", files[0].id, "read"), ("file", files[0].id, "write")]


@pytest.mark.parametrize("declared_first", [True, False])
def test_one_content_declared_as_two_formats_is_adopted_as_what_each_version_says(
    small: Small, declared_first: bool
) -> None:
    data = support.csv_bytes(5)
    table = support.add_file(small.catalog, File(data, "csv", "csv")) if declared_first else None
    plain = support.add_file(small.catalog, File(data, "binary", "text/plain"))
    table = table or support.add_file(small.catalog, File(data, "csv", "csv"))
    support.add_dataset(small.catalog, "table", {1: table})
    support.add_dataset(small.catalog, "plain", {1: plain})
    with small.upgrade() as registry:
        assert registry.adopt().duplicates == 1
        for name, format in (("table", "csv"), ("plain", "binary")):
            version = registry.dataset(name).version("v1")
            assert version.components[0].format == format, name
            assert version.digest == build([Entry("data", 0, "data", table.hash, format)]).digest
            assert bool(version.schema.components) == (format == "csv")


def test_adoption_of_content_that_is_committed_already_leaves_the_committed_versions_alone(small: Small) -> None:
    data = support.csv_bytes(6)
    support.add_dataset(small.catalog, "old", {1: support.add_file(small.catalog, File(data, "binary", "text/plain"))})
    with small.upgrade() as registry:
        (small.folder / "new.csv").write_bytes(data)
        before = registry.create_dataset("new").commit({"data": small.folder / "new.csv"})
        format, schema = before.components[0].format, before.schema
        assert (format, bool(schema.components)) == ("csv", True)
        assert registry.adopt().duplicates == 1

        after = registry.dataset("new").version("v1")
        assert (after.components[0].format, after.schema) == (format, schema)
        entries = [Entry(c.name, c.index, c.type, c.content_hash, c.format) for c in after.components]
        assert build(entries).digest == after.digest, "the digest is that of the components"


def test_a_late_adoption_leaves_versions_alone_that_have_their_digest(small: Small) -> None:
    data = support.csv_bytes(6)
    path = small.folder / "late.txt"
    support.add_dataset(small.catalog, "early", {1: support.add_file(small.catalog, File(data, "csv", "csv"))})
    support.add_dataset(small.catalog, "late", {1: support.add_file(small.catalog, File(data, "binary", None, path))})
    path.unlink()
    with small.upgrade() as registry:
        assert len(registry.adopt().failed) == 1
        path.write_bytes(data)
        assert registry.adopt().failed == {}

        for name in ("early", "late"):
            version = registry.dataset(name).version("v1")
            entries = [Entry(c.name, c.index, c.type, c.content_hash, c.format) for c in version.components]
            assert build(entries).digest == version.digest, name
        assert registry.dataset("early").version("v1").components[0].format == "csv"


def test_the_declared_type_or_the_first_bytes_tell_the_format_where_a_path_does_not(small: Small) -> None:
    cases = [
        ("csv", "17", "csv"),
        ("text/csv; charset=utf-8", None, "csv"),
        ("CSV", None, "csv"),
        (".csv", None, "csv"),
        ("application/vnd.apache.parquet", None, "parquet"),
        (None, "blob", "parquet"),
        ("binary", "18", "parquet"),
    ]
    expected = {}
    for i, (file_type, name, format) in enumerate(cases):
        data = support.csv_bytes(i) if format == "csv" else support.parquet_bytes(i)
        path = None if name is None else small.folder / "old" / name
        expected[f"d{i}"] = (file_type, name, format)
        support.add_dataset(
            small.catalog, f"d{i}", {1: support.add_file(small.catalog, File(data, format, file_type, path))}
        )
    with small.upgrade() as registry:
        registry.adopt()
        found = {
            name: (file_type, path, registry.dataset(name).version("v1").components[0].format)
            for name, (file_type, path, _) in expected.items()
        }
    assert found == expected


def test_bytes_that_are_not_what_their_type_says_are_adopted_as_plain_bytes(small: Small) -> None:
    for i, (data, file_type) in enumerate([(b"", "csv"), (b"PAR1 no", "parquet"), (b"{", "json"), (b"", None)]):
        support.add_dataset(
            small.catalog, f"d{i}", {1: support.add_file(small.catalog, File(data, "binary", file_type))}
        )
    with small.upgrade() as registry:
        assert registry.adopt().failed == {}
        for i, data in enumerate([b"", b"PAR1 no", b"{", b""]):
            version = registry.dataset(f"d{i}").version("v1")
            assert support.content(version) == data
            assert [c.format for c in version.components] == ["binary"]
            assert version.digest == build([Entry("data", 0, "data", hashlib.sha256(data).hexdigest())]).digest


def test_a_file_under_a_path_reads_whatever_its_storage_type_is_called(small: Small) -> None:
    expected = {}
    for name in ("filesystem", "file", "local", "store"):
        path = small.folder / "old" / f"{name}.bin"
        file = support.add_file(small.catalog, File(name.encode(), "binary", None, path), storage_type=name)
        support.add_dataset(small.catalog, name, {1: file})
        expected[name] = name.encode()

    def read(registry: Registry) -> dict[str, bytes | str]:
        found: dict[str, bytes | str] = {}
        for name in expected:
            try:
                found[name] = support.content(registry.dataset(name).version("v1"))
            except RegistryError as error:
                found[name] = str(error)
        return found

    with small.upgrade() as registry:
        assert read(registry) == expected
        assert registry.adopt().failed == {}
        assert read(registry) == expected


def test_a_legacy_file_that_has_neither_bytes_nor_a_path_is_reported_and_not_taken_for_an_empty_one(
    small: Small,
) -> None:
    number = support.insert(small.catalog, "files", storage_type="database", file_size=12)
    support.add_dataset(small.catalog, "a", {1: File(b"", "binary", id=number)})
    with small.upgrade() as registry:
        assert registry.adopt().failed.keys() == {number}


def test_a_legacy_dataset_is_read_by_the_name_it_has(small: Small) -> None:
    file = support.add_file(small.catalog, File(b"x", "binary"))
    support.add_dataset(small.catalog, "Sales 2023 (final)", {1: file})
    with small.upgrade() as registry:
        assert [dataset.name for dataset in registry.datasets()] == ["Sales 2023 (final)"]
        assert support.content(registry.datasets()[0].version("v1")) == b"x"
        assert support.content(registry.dataset("Sales 2023 (final)").version("v1")) == b"x"


_HAND_MADE = """
CREATE TABLE users ({id}, username VARCHAR(255) NOT NULL UNIQUE, email VARCHAR(255),
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE datasets ({id}, name VARCHAR(255) NOT NULL UNIQUE, description TEXT,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE files ({id}, storage_type VARCHAR(50) NOT NULL, file_type VARCHAR(50), mime_type VARCHAR(255),
    file_data {bytes}, file_path TEXT, file_size BIGINT NOT NULL,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE dataset_versions ({id}, dataset_id INT NOT NULL REFERENCES datasets(id), version_number INT NOT NULL,
    file_id INT NOT NULL REFERENCES files(id), ingestion_timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    last_updated_timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, uploaded_by INT REFERENCES users(id),
    UNIQUE (dataset_id, version_number))
"""


def test_a_baseline_whose_constraints_have_the_databases_own_names_is_upgraded(
    catalog: Catalog, tmp_path: Path
) -> None:
    """Written as original-ddl.sql is: references inline and without a name."""
    kinds = (
        {"id": "id INTEGER PRIMARY KEY", "bytes": "BLOB"}
        if catalog.is_sqlite
        else {"id": "id SERIAL PRIMARY KEY", "bytes": "BYTEA"}
    )
    if not catalog.is_sqlite:
        support.execute(catalog, f"CREATE SCHEMA {catalog.schema}")
    for statement in _HAND_MADE.format(**kinds).split(";"):
        support.execute(catalog, statement)
    file = support.add_file(catalog, File(support.csv_bytes(2), "csv", "csv"))
    support.add_dataset(catalog, "a", {1: file, 4: file})
    migrate.upgrade(catalog)

    url = catalog.url.render_as_string(hide_password=False)
    with Registry.open(catalog=url, store=str(tmp_path / "store"), actor="ada") as registry:
        assert support.content(registry.dataset("a").version("v4")) == file.data
        assert registry.adopt().failed == {}
        assert registry.dataset("a").commit({"data": b"x"}).number == 5
        assert "file_id" not in support.columns(catalog, "dataset_versions")
        with pytest.raises(DBAPIError):  # references still hold
            support.execute(catalog, "DELETE FROM datasets")
