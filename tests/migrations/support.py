"""Catalogs as they were at earlier revisions, filled by plain SQL: what existing users have."""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import inspect, text

from dataset_registry.catalog import Catalog, migrate
from dataset_registry.catalog.engine import REVISION_TABLE
from dataset_registry.catalog.losses import Loss
from dataset_registry.version import Version

REVISIONS = tuple(sorted(path.name[:4] for path in (migrate.scripts() / "versions").glob("[0-9]*.py")))


# --- plain SQL -----------------------------------------------------------------------------------------------------


def execute(catalog: Catalog, statement: str, rows: dict[str, Any] | Sequence[dict[str, Any]] = ()) -> None:
    """Run one statement (for each of the rows) and commit."""
    with catalog.queued(), catalog.writer.begin() as connection:
        connection.execute(text(statement), rows or None)


def query(catalog: Catalog, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with catalog.reader.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement), values)]


def insert(catalog: Catalog, table: str, **row: Any) -> int:
    """Insert a row; its id."""
    statement = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)}) RETURNING id"
    with catalog.queued(), catalog.writer.begin() as connection:
        return int(connection.execute(text(statement), row).scalar_one())


def tables(catalog: Catalog) -> set[str]:
    with catalog.reader.connect() as connection:
        return set(inspect(connection).get_table_names())


def views(catalog: Catalog) -> set[str]:
    with catalog.reader.connect() as connection:
        return set(inspect(connection).get_view_names())


def columns(catalog: Catalog, table: str) -> set[str]:
    with catalog.reader.connect() as connection:
        return {column["name"] for column in inspect(connection).get_columns(table)}


def indexes(catalog: Catalog, table: str) -> dict[str, bool]:
    """The indexes of a table, and whether each is unique."""
    with catalog.reader.connect() as connection:
        return {str(i["name"]): bool(i["unique"]) for i in inspect(connection).get_indexes(table)}


def go_down(catalog: Catalog, revision: str) -> list[Loss]:
    """Take a catalog back, whatever that loses; what it lost."""
    with TemporaryDirectory() as folder:
        return migrate.downgrade(catalog, revision, discard=revision, export=Path(folder) / "losses.jsonl")


Rows = dict[str, list[dict[str, Any]]]

_CLOCK = {"created_at", "updated_at", "granted_at"}
_BASELINE = ("users", "datasets", "files", "dataset_versions")


def snapshot(catalog: Catalog) -> Rows:
    """Every row of every table. Moments that a migration sets by the clock are left out: they differ by nature."""
    found: Rows = {}
    with catalog.reader.connect() as connection:
        for table in sorted(set(inspect(connection).get_table_names()) - {REVISION_TABLE}):
            rows = [dict(row._mapping) for row in connection.execute(text(f'SELECT * FROM "{table}"'))]
            if table not in _BASELINE:
                rows = [{name: value for name, value in row.items() if name not in _CLOCK} for row in rows]
            found[table] = sorted(rows, key=repr)
    return found


def kept(before: Rows, after: Rows) -> Rows:
    """The rows of `after` in the tables and columns of `before`: to compare with it."""
    return {
        table: sorted(({name: row[name] for name in rows[0]} for row in after[table]), key=repr)
        if rows
        else after[table]
        for table, rows in before.items()
    }


def content(version: Version, component: str | None = None, index: int = 0) -> bytes:
    """The bytes of a component by the public way."""
    with version.open(component, index=index) as stream:
        return stream.read()


# --- the baseline --------------------------------------------------------------------------------------------------


def csv_bytes(seed: int, rows: int = 12) -> bytes:
    return b"id,name,amount\n" + b"".join(b"%d,name %d,%d.5\n" % (i, i * seed, seed) for i in range(rows))


def json_bytes(seed: int) -> bytes:
    return json.dumps([{"id": i, "city": f"city {seed}"} for i in range(5)]).encode()


def parquet_bytes(seed: int) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2, seed], "label": ["a", None, str(seed)]}), stream)
    return stream.getvalue()


def text_bytes(seed: int) -> bytes:
    return f"Notes of the year {seed}: Größe, ja.\r\n".encode() + bytes(range(256))


@dataclass(frozen=True)
class File:
    """A file of the baseline. `format` is what the registry should take it for once it is adopted."""

    data: bytes
    format: str
    file_type: str | None = None
    path: Path | None = None
    id: int = 0

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class Baseline:
    """What was put into a baseline catalog: versions by dataset and number, and all files by id."""

    versions: dict[str, dict[int, File]] = field(default_factory=dict)
    files: dict[int, File] = field(default_factory=dict)

    def every_version(self) -> Iterable[tuple[str, int, File]]:
        for dataset, versions in self.versions.items():
            for number, file in sorted(versions.items()):
                yield dataset, number, file


def create_baseline(catalog: Catalog) -> None:
    """The baseline's tables, without a revision table: a database that existed before this package."""
    migrate.upgrade(catalog, "0001")
    execute(catalog, f"DROP TABLE {REVISION_TABLE}")


def add_file(catalog: Catalog, file: File, storage_type: str | None = None) -> File:
    """Insert a file: under its path when it has one, else inline."""
    if file.path is not None:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.path.write_bytes(file.data)
    number = insert(
        catalog,
        "files",
        storage_type=storage_type or ("database" if file.path is None else "filesystem"),
        file_type=file.file_type,
        file_data=file.data if file.path is None else None,
        file_path=str(file.path) if file.path is not None else None,
        file_size=len(file.data),
    )
    return File(file.data, file.format, file.file_type, file.path, number)


def add_dataset(
    catalog: Catalog, name: str, versions: dict[int, File], baseline: Baseline | None = None, user: int | None = None
) -> int:
    """Insert a dataset with versions, the newest row first: the order of ids says nothing about numbers."""
    dataset = insert(catalog, "datasets", name=name, description=f"about {name}")
    for number in sorted(versions, reverse=True):
        insert(
            catalog,
            "dataset_versions",
            dataset_id=dataset,
            version_number=number,
            file_id=versions[number].id,
            uploaded_by=user,
        )
    if baseline is not None:
        baseline.versions[name] = dict(versions)
    return dataset


def add_file_row(catalog: Catalog, name: str, **values: Any) -> int:
    """Insert a file with these columns, and a dataset of one version that has it; the file's id. No size given: unknown."""
    number = insert(catalog, "files", **{"storage_type": "database", "file_size": -1, **values})
    add_dataset(catalog, name, {1: File(b"", "binary", id=number)})
    return number


# (content, file_type, suffix of a path; None: inline, format after adoption)
_KINDS = (
    (csv_bytes, "csv", None, "csv"),
    (csv_bytes, "text/csv", None, "csv"),
    (csv_bytes, "csv", ".csv", "csv"),
    (csv_bytes, None, ".csv", "csv"),
    (json_bytes, "json", None, "json"),
    (json_bytes, "application/json", ".json", "json"),
    (parquet_bytes, "parquet", None, "parquet"),
    (parquet_bytes, None, None, "parquet"),
    (parquet_bytes, None, ".parquet", "parquet"),
    (text_bytes, "text/plain", None, "binary"),
    (text_bytes, None, ".txt", "binary"),
    (text_bytes, None, None, "binary"),
)
_NUMBERS = ((1, 2, 3), (1, 3, 7), (1, 2), (1, 10, 11, 40))


def fill_baseline(catalog: Catalog, folder: Path, datasets: int = 20) -> Baseline:
    """Datasets with gaps in their numbers, files inline and under paths, duplicates and files that versions share."""
    baseline = Baseline()
    user = insert(catalog, "users", username="ada", email="ada@example.org")
    insert(catalog, "users", username="idle")
    added = 0

    def new(kind: int, seed: int) -> File:
        nonlocal added
        added += 1
        content, file_type, suffix, format = _KINDS[kind % len(_KINDS)]
        path = None if suffix is None else folder / f"file {added}{suffix}"
        file = add_file(catalog, File(content(seed), format, file_type, path))
        baseline.files[file.id] = file
        return file

    shared = new(0, 1)
    for i in range(datasets):
        numbers = _NUMBERS[i % len(_NUMBERS)]
        versions = {number: new(i + j, i * 100 + number) for j, number in enumerate(numbers)}
        if i % 4 == 1:
            versions[numbers[-1]] = versions[numbers[0]]  # one file, named by two versions of a dataset
        if i % 5 == 0:
            versions[numbers[1]] = shared  # one file, named by versions of several datasets
        if i % 3 == 2:
            versions[numbers[1]] = new(0 if i % 2 else 2, 7)  # the same bytes again and again, in a file of their own
        add_dataset(catalog, f"raw/set_{i:02}", versions, baseline, user if i % 2 else None)
    insert(catalog, "datasets", name="raw/empty")
    return baseline


# --- a baseline by hand ----------------------------------------------------------------------------------------------

HAND_MADE_TABLES = """
CREATE TABLE users (id {id}, username VARCHAR(100) UNIQUE NOT NULL, email TEXT, created_at TIMESTAMP DEFAULT {now});
CREATE TABLE datasets (id {id}, name TEXT NOT NULL UNIQUE, description TEXT, created_at TIMESTAMP DEFAULT {now});
CREATE TABLE files (id {id}, storage_type VARCHAR(20) NOT NULL, file_type VARCHAR(20), mime_type VARCHAR(100),
    file_data {bytes}, file_path TEXT, file_size BIGINT, created_at TIMESTAMP NOT NULL DEFAULT {now});
CREATE TABLE dataset_versions (id {id}, dataset_id INT NOT NULL REFERENCES datasets(id), version_number INT NOT NULL,
    file_id INT NOT NULL REFERENCES files(id), ingestion_timestamp TIMESTAMP NOT NULL DEFAULT {now},
    last_updated_timestamp TIMESTAMP NOT NULL DEFAULT {now}, uploaded_by INT REFERENCES users(id));
"""


def run_script(catalog: Catalog, script: str, folder: Path = Path()) -> None:
    """Run the statements of a script, with the words of the database filled in."""
    words = {
        "id": "INTEGER PRIMARY KEY" if catalog.is_sqlite else "SERIAL PRIMARY KEY",
        "now": "CURRENT_TIMESTAMP",
        "bytes": "BLOB" if catalog.is_sqlite else "BYTEA",
        "ab": "x'6162'" if catalog.is_sqlite else "'\\x6162'",
        "folder": folder,
        "newline": "\n",
    }
    filled = script.format_map(words) if "{" in script else script
    with catalog.queued(), catalog.writer.begin() as connection:
        parts = [filled] if "BEGIN" in filled else filled.split(";")
        for statement in parts:
            if statement.strip():
                connection.execute(text(statement.replace(":00", r"\:00")))


def create_hand_made_tables(catalog: Catalog) -> None:
    """The baseline's tables as others declared them, in the schema of the catalog."""
    if not catalog.is_sqlite:
        execute(catalog, "CREATE SCHEMA dataset_registry")
    run_script(catalog, HAND_MADE_TABLES)


# --- rows of the later tables --------------------------------------------------------------------------------------


def populate(catalog: Catalog, revision: str) -> None:
    """Rows for what a revision added, of the kinds that a downgrade does not refuse."""
    ids = [row[0] for row in query(catalog, "SELECT id FROM dataset_versions ORDER BY id")]
    user = query(catalog, "SELECT min(id) FROM users")[0][0]
    dataset = query(catalog, "SELECT min(id) FROM datasets")[0][0]
    file = query(catalog, "SELECT min(id) FROM files")[0][0]
    if revision == "0002":
        execute(
            catalog,
            "UPDATE files SET content_hash = :hash, compression_type = 'zstd', metadata = '{\"rows\": 3}' WHERE id = :id",
            {"hash": "c0ffee" + "0" * 58, "id": file},
        )
    elif revision == "0003":
        execute(
            catalog,
            "UPDATE dataset_versions SET message = 'first', overlay_file_id = :file WHERE id = :id",
            {"file": file, "id": ids[0]},
        )
    elif revision == "0004":
        for version, column in zip(ids[:3], ("a", "b", "a"), strict=True):
            schema = json.dumps({"format": "csv", "columns": [column]})
            insert(catalog, "dataset_schema_versions", dataset_version_id=version, schema_json=schema)
    elif revision == "0006":
        for name, is_tag in (("release", True), ("gone", True), ("dev", False)):
            insert(
                catalog,
                "dataset_pointers",
                dataset_id=dataset,
                pointer_name=name,
                dataset_version_id=ids[0],
                is_tag=is_tag,
                base_version_id=None if is_tag else ids[0],
            )
        execute(catalog, "DELETE FROM dataset_pointers WHERE pointer_name = 'gone'")
    elif revision == "0007":
        for kind, number in (("dataset", dataset), ("file", file)):
            insert(
                catalog,
                "permissions",
                resource_type=kind,
                resource_id=number,
                user_id=user,
                permission_type="read",
                granted_by=user,
            )
    elif revision == "0008":
        schema = insert(catalog, "schemas", digest="5c" * 32, schema_json='{"format": "json"}')
        execute(
            catalog,
            "INSERT INTO file_captures (file_id, format, schema_id, statistics_json) VALUES (:file, 'json', :schema, '[]')",
            {"file": file, "schema": schema},
        )
        execute(catalog, "UPDATE dataset_versions SET uuid = :uuid WHERE id = :id", {"uuid": "ab" * 16, "id": ids[0]})
    elif revision == "0009":
        execute(
            catalog,
            "INSERT INTO uploads (id, content_hash, object_key, expires_at) VALUES (:id, :hash, :key, CURRENT_TIMESTAMP)",
            {"id": "cd" * 16, "hash": "e" * 64, "key": "e" * 64 + "." + "f" * 32},
        )
        execute(catalog, "INSERT INTO trash (object_key) VALUES (:key)", {"key": "a" * 64 + "." + "f" * 32})
        insert(catalog, "registry_branches", name="dev", source="main")
    elif revision == "0010":
        production = insert(
            catalog, "productions", version_id=ids[0], branch="main", unchanged=False, run_id="r1", created_by=user
        )
        execute(
            catalog,
            "INSERT INTO production_inputs (production_id, position, dataset_name, version_number, ref, components, version_id)"
            " VALUES (:id, 0, 'raw/set_00', 1, 'main', '[]', :version)",
            {"id": production, "version": ids[1]},
        )
    elif revision == "0011":
        execute(catalog, "UPDATE files SET damage = 'gone' WHERE id = :id", {"id": file})
        execute(catalog, "INSERT INTO version_reads (run_id, version_id) VALUES ('r1', :version)", {"version": ids[0]})
    elif revision == "0012":
        insert(catalog, "tokens", user_id=user, name="old", token_hash="a" * 64, permission_type="read")
        insert(catalog, "name_prefixes", prefix="raw/")
        execute(
            catalog,
            "INSERT INTO answered_requests (user_id, request_key, fingerprint, status, answer)"
            " VALUES (:user, 'k', 'f', 201, '{}')",
            {"user": user},
        )
        members = "INSERT INTO group_members (group_id, user_id) VALUES (:user, :user)"
        execute(catalog, members, {"user": user})
    elif revision == "0013":
        leased = "INSERT INTO assembled_files (file_id, object_key, expires_at) VALUES (:id, 'k', CURRENT_TIMESTAMP)"
        execute(catalog, leased, {"id": file})
        ranges = "INSERT INTO file_ranges (file_id, position, object_id, object_offset, byte_count) VALUES (:id, 0, :id, 0, 1)"
        execute(catalog, ranges, {"id": file})
    elif revision == "0017":
        checked = {"version_id": ids[0], "name": "rows", "passed": False, "is_blocking": True, "severity": "error"}
        insert(catalog, "version_checks", **checked, created_by=user)
        insert(
            catalog, "version_taints", version_id=ids[0], dataset_id=dataset, source="check:rows@v1", reason="it failed"
        )
        sources = "INSERT INTO version_sources (version_id, source_id, edited) VALUES (:one, :other, '[]')"
        execute(catalog, sources, {"one": ids[1], "other": ids[0]})
    elif revision == "0018":
        execute(catalog, "UPDATE productions SET memo_digest = :digest WHERE run_id = 'r1'", {"digest": "e" * 64})
    elif revision == "0019":
        review = insert(catalog, "reviews", branch="dev", target="main", title="t", state="open", created_by=user)
        of = "INSERT INTO review_datasets (review_id, dataset_id) VALUES (:review, :dataset)"
        execute(catalog, of, {"review": review, "dataset": dataset})
        insert(catalog, "review_events", review_id=review, kind="comment", body="why", created_by=user)
    elif revision == "0020":
        small = insert(catalog, "files", storage_type="store", file_size=1, content_hash="f" * 64, form="inline")
        execute(catalog, "INSERT INTO inline_contents (file_id, data) VALUES (:id, :data)", {"id": small, "data": b"1"})
        leased = "INSERT INTO assembled_files (file_id, object_key, expires_at) VALUES (:id, 's', CURRENT_TIMESTAMP)"
        execute(catalog, leased, {"id": small})
