"""The tables of the catalog at its newest revision, and the views over them.

Names come from the original design; migrations/versions/ is how an existing catalog gets here, and `alembic check`
holds the two together. Every reference is a RESTRICT foreign key with an index behind it: a row that something names
cannot be deleted by any path.
"""

from typing import Any

from sqlalchemy import (
    CHAR,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from dataset_registry.catalog.types import Bytewise, Format, Id, Json, Timestamp, utc_now

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "idx_%(table_name)s_%(column_0_N_name)s",
    }
)

_NOW = text("CURRENT_TIMESTAMP")
# `sqlite_autoincrement`: ids are not reused. `sqlite_with_rowid=False`: the rows of a page
# lie together, and a new page dirties one tree instead of two.

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("username", String(255), nullable=False, unique=True),
    Column("email", String(255)),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    # Neither a kind nor a role: a name that signed something, before anybody made a user of it.
    Column("kind", String(20)),
    Column("role", String(20)),
    Column("disabled_at", Timestamp),
    sqlite_autoincrement=True,
)

# What is about the registry as a whole: see catalog/settings.py.
registry_settings = Table(
    "registry_settings",
    metadata,
    Column("name", String(50), primary_key=True),
    Column("value", Text, nullable=False),
    Column("updated_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("description", Text),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("created_by", Id, ForeignKey(users.c.id)),
    # Counts up with every version and never down: numbers are not reused.
    Column("last_version_number", Integer, nullable=False, server_default=text("0")),
    sqlite_autoincrement=True,
)

files = Table(
    "files",
    metadata,
    Column("id", Id, primary_key=True),
    Column("storage_type", String(50), nullable=False),  # 'store'; legacy: 'database', 'filesystem'
    Column("file_type", String(50)),
    Column("mime_type", String(255)),
    Column("file_data", LargeBinary),
    Column("file_path", Text),
    Column("file_size", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("content_hash", CHAR(64)),
    Column("compression_type", String(50)),
    Column("facts", Json),
    Column("form", String(20), nullable=False, server_default=text("'whole'")),
    Column("object_key", String(97), unique=True),
    Column("stored_size", BigInteger),  # bytes of the object, where it is compressed
    Column("damage", Text),  # what a verification found: bytes that are missing or wrong are not live
    Index("idx_files_content_hash", "content_hash", unique=True),
    sqlite_autoincrement=True,
)

file_parts = Table(
    "file_parts",
    metadata,
    Column("file_id", Id, ForeignKey(files.c.id), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("part_id", Id, ForeignKey(files.c.id), nullable=False, index=True),
    Column("row_count", Integer, nullable=False),
)

# The bytes of small files, which have no object.
inline_contents = Table(
    "inline_contents",
    metadata,
    Column("file_id", Id, ForeignKey(files.c.id), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

# A recipe: a file that is these ranges of other files' objects, in order.
file_ranges = Table(
    "file_ranges",
    metadata,
    Column("file_id", Id, ForeignKey(files.c.id), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("object_id", Id, ForeignKey(files.c.id), nullable=False, index=True),
    Column("object_offset", BigInteger, nullable=False),
    Column("byte_count", BigInteger, nullable=False),
)

# Objects that recipes were assembled into, for engines that read objects only, until they are due to go.
assembled_files = Table(
    "assembled_files",
    metadata,
    Column("file_id", Id, ForeignKey(files.c.id), primary_key=True),
    Column("object_key", String(97), nullable=False, unique=True),
    Column("expires_at", Timestamp, nullable=False),
)

schemas = Table(
    "schemas",
    metadata,
    Column("id", Id, primary_key=True),
    Column("digest", CHAR(64), nullable=False, unique=True),
    Column("schema_json", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    sqlite_autoincrement=True,
)

# What one reading of a file's bytes under a format found, so that known content is never read again.
file_captures = Table(
    "file_captures",
    metadata,
    Column("file_id", Id, ForeignKey(files.c.id), primary_key=True),
    Column("format", Format, primary_key=True),
    # In the key: versions that were captured by an earlier rule keep what was captured of them.
    Column("schema_id", Id, ForeignKey(schemas.c.id), primary_key=True, index=True),
    Column("statistics_json", Json, nullable=False),
)

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("dataset_id", Id, ForeignKey(datasets.c.id), nullable=False),
    Column("version_number", Integer, nullable=False),
    Column("ingestion_timestamp", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("last_updated_timestamp", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("uploaded_by", Id, ForeignKey(users.c.id)),
    Column("parent_version_id", Id, ForeignKey("dataset_versions.id")),
    Column("message", Text),
    Column("overlay_file_id", Id, ForeignKey(files.c.id), index=True),
    Column("uuid", Uuid, unique=True),
    Column("depth", Integer, nullable=False, server_default=text("0")),
    Column("digest", CHAR(64)),  # NULL: a legacy version that was not adopted yet
    Column("component_count", Integer, nullable=False, server_default=text("0")),
    Column("origin", Text),  # the registry that a version was copied from
    UniqueConstraint("dataset_id", "version_number"),
    Index("idx_dataset_versions_parent", "parent_version_id"),
    Index("idx_dataset_versions_digest", "dataset_id", "digest"),
    sqlite_autoincrement=True,
)

# The second and further parents of a merge; the first is dataset_versions.parent_version_id.
version_parents = Table(
    "version_parents",
    metadata,
    Column("version_id", Id, ForeignKey(dataset_versions.c.id), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("parent_id", Id, ForeignKey(dataset_versions.c.id), nullable=False, index=True),
)


def _page_columns() -> list[Column[Any]]:
    return [
        Column("id", Id, primary_key=True),
        Column("digest", CHAR(64)),  # NULL below a legacy version that was not adopted yet
        Column("entry_count", Integer, nullable=False),
        Column("last_name", Bytewise, nullable=False),
        Column("last_index", Integer, nullable=False),
    ]


manifest_pages = Table("manifest_pages", metadata, *_page_columns(), sqlite_autoincrement=True)

manifest_entries = Table(
    "manifest_entries",
    metadata,
    Column("page_id", Id, ForeignKey(manifest_pages.c.id), primary_key=True),
    Column("component_name", Bytewise, primary_key=True),
    Column("component_index", Integer, primary_key=True),
    Column("component_type", String(50), nullable=False),
    Column("file_id", Id, ForeignKey(files.c.id), nullable=False, index=True),
    Column("schema_id", Id, ForeignKey(schemas.c.id)),
    Column("format", Format, nullable=False),
    Column("metadata", Text),  # canonical JSON; text, because the digest is over it
    # Most entries of a dataset of plain files have none: they need no place in the index.
    Index(
        "idx_manifest_entries_schema_id",
        "schema_id",
        sqlite_where=text("schema_id IS NOT NULL"),
        postgresql_where=text("schema_id IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

manifest_index_pages = Table("manifest_index_pages", metadata, *_page_columns(), sqlite_autoincrement=True)

manifest_index_entries = Table(
    "manifest_index_entries",
    metadata,
    Column("index_page_id", Id, ForeignKey(manifest_index_pages.c.id), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("page_id", Id, ForeignKey(manifest_pages.c.id), nullable=False, index=True),
    sqlite_with_rowid=False,
)

version_index_pages = Table(
    "version_index_pages",
    metadata,
    Column("version_id", Id, ForeignKey(dataset_versions.c.id), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("index_page_id", Id, ForeignKey(manifest_index_pages.c.id), nullable=False, index=True),
    sqlite_with_rowid=False,
)

dataset_pointers = Table(
    "dataset_pointers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("dataset_id", Id, ForeignKey(datasets.c.id), nullable=False),
    Column("pointer_name", String(255), nullable=False),
    Column("dataset_version_id", Id, ForeignKey(dataset_versions.c.id), nullable=False, index=True),
    Column("is_tag", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("updated_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    # Where a registry-wide branch started in this dataset: publishing moves the pointers that left their base.
    Column("base_version_id", Id, ForeignKey(dataset_versions.c.id), index=True),
    UniqueConstraint("dataset_id", "pointer_name"),
    Index("idx_pointers_dataset", "dataset_id"),
    Index("idx_dataset_pointers_pointer_name", "pointer_name"),
    sqlite_autoincrement=True,
)

# Filled by the trigger that sees a tag go; the trigger that sees one come looks here.
retired_tags = Table(
    "retired_tags",
    metadata,
    Column("dataset_id", Id, primary_key=True, autoincrement=False),
    Column("pointer_name", String(255), primary_key=True),
)

registry_branches = Table(
    "registry_branches",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("source", String(255), nullable=False),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
)

permissions = Table(
    "permissions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("resource_type", String(50), nullable=False),
    Column("resource_id", Integer, nullable=False),
    Column("user_id", Id, ForeignKey(users.c.id), nullable=False, index=True),  # a group is a row of `users` too
    Column("permission_type", String(20), nullable=False),
    Column("granted_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("granted_by", Id, ForeignKey(users.c.id), nullable=False),
    UniqueConstraint("resource_type", "resource_id", "user_id", "permission_type", name="uq_permissions_grant"),
    Index("idx_permissions_lookup", "resource_type", "resource_id", "user_id"),
    sqlite_autoincrement=True,
)

# What `permissions` and `protected_branches` name by id where they are about all datasets whose name starts so.
name_prefixes = Table(
    "name_prefixes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("prefix", String(255), nullable=False, unique=True),
    sqlite_autoincrement=True,
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", Id, ForeignKey(users.c.id), primary_key=True),
    Column("user_id", Id, ForeignKey(users.c.id), primary_key=True, index=True),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", Id, ForeignKey(users.c.id), nullable=False, index=True),
    Column("name", String(255), nullable=False),
    Column("token_hash", CHAR(64), nullable=False, unique=True),
    Column("permission_type", String(20), nullable=False),
    Column("prefix", String(255), nullable=False, server_default=text("''")),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("expires_at", Timestamp),
    Column("revoked_at", Timestamp),
    Column("last_used_at", Timestamp),
    Column("made_with", Id, ForeignKey("tokens.id"), index=True),  # revoked with it
    sqlite_autoincrement=True,
)

protected_branches = Table(
    "protected_branches",
    metadata,
    Column("id", Id, primary_key=True),
    Column("resource_type", String(50), nullable=False),
    Column("resource_id", Integer, nullable=False),
    Column("branch_name", String(255), nullable=False),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("created_by", Id, ForeignKey(users.c.id), nullable=False),
    # With one of these, the branch moves by the merge of a review only.
    Column("required_approvals", Integer, nullable=False, server_default=text("0")),
    Column("requires_checks", Boolean, nullable=False, server_default=text("false")),
    UniqueConstraint("resource_type", "resource_id", "branch_name", name="uq_protected_branches_branch"),
    sqlite_autoincrement=True,
)

protected_branch_users = Table(
    "protected_branch_users",
    metadata,
    Column("protection_id", Id, ForeignKey(protected_branches.c.id), primary_key=True),
    Column("user_id", Id, ForeignKey(users.c.id), primary_key=True, index=True),
)

# What was answered to requests that carried a key, so that one that is sent again is not done again.
answered_requests = Table(
    "answered_requests",
    metadata,
    Column("user_id", Id, ForeignKey(users.c.id), primary_key=True),
    Column("request_key", String(255), primary_key=True),
    Column("fingerprint", CHAR(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("answer", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
)

# Append-only by trigger, as are its seals. It names datasets and tokens by id without a reference: it outlives them.
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Timestamp, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("door", String(20), nullable=False),
    Column("token_id", Integer),
    Column("action", String(50), nullable=False),
    Column("dataset_id", Integer, index=True),
    Column("dataset_name", String(255)),
    Column("ref_name", String(255)),
    Column("before", Text),
    Column("after", Text),
    Column("details", Text),  # canonical JSON: the hash is over it
    Column("entry_hash", CHAR(64), nullable=False),
    sqlite_autoincrement=True,
)

audit_seals = Table(
    "audit_seals",
    metadata,
    Column("id", Id, primary_key=True),
    Column("first_id", Integer, nullable=False, unique=True),
    Column("last_id", Integer, nullable=False),
    Column("entry_count", Integer, nullable=False),
    Column("digest", CHAR(64), nullable=False),
    Column("sealed_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    sqlite_autoincrement=True,
)

# Holds: who is about to name these bytes. A hold on content that is stored already has no key of its own.
uploads = Table(
    "uploads",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("content_hash", CHAR(64), nullable=False, index=True),
    Column("object_key", String(97), unique=True),
    Column("expires_at", Timestamp, nullable=False),
)

# Objects that no row names any more and whose bytes are still to be deleted. Those of a writer whose hold ran out may come
# late: until `keep_until` they are deleted again and again.
trash = Table(
    "trash",
    metadata,
    Column("object_key", String(97), primary_key=True),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("keep_until", Timestamp),
)

productions = Table(
    "productions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("version_id", Id, ForeignKey(dataset_versions.c.id), nullable=False, index=True),
    Column("branch", String(255)),
    Column("unchanged", Boolean, nullable=False),
    Column("run_id", String(255)),
    Column("step", Text),
    Column("asset_key", Text),
    Column("partition_key", Text),
    Column("code_version", String(255)),
    Column("metadata", Json),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("created_by", Id, ForeignKey(users.c.id)),
    Column("memo_digest", CHAR(64), index=True),
    Index("idx_productions_run", "run_id"),
    sqlite_autoincrement=True,
)

# The facts of an input are copied: lineage outlives the version it names, which `version_id` then loses.
production_inputs = Table(
    "production_inputs",
    metadata,
    Column("production_id", Id, ForeignKey(productions.c.id), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("label", String(255)),
    Column("dataset_name", String(255), nullable=False),
    Column("version_number", Integer, nullable=False),
    Column("digest", CHAR(64)),
    Column("ref", String(255), nullable=False),
    Column("fallback", String(255)),
    Column("components", Json, nullable=False),
    Column("version_id", Id, ForeignKey(dataset_versions.c.id, ondelete="SET NULL"), index=True),
    # What the input was, whatever its dataset is called now, and where a version is copied to: without a reference, as above.
    Column("dataset_id", Integer),
    Column("version_uuid", Uuid, index=True),
)

# What runs read and may still be reading: an expiry leaves it alone.
version_reads = Table(
    "version_reads",
    metadata,
    Column("run_id", String(255), primary_key=True),
    Column("version_id", Id, ForeignKey(dataset_versions.c.id), primary_key=True, index=True),
    Column("read_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    # Of a reader who may not write: who it is, and when it first read the version. Its reads hold the version for a limited time.
    Column("reader_id", Id, ForeignKey(users.c.id), index=True),
    Column("first_read_at", Timestamp),
)

# Results of checks on versions: of the newest of each check it counts whether it passed.
version_checks = Table(
    "version_checks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("version_id", Id, ForeignKey(dataset_versions.c.id), nullable=False, index=True),
    Column("name", String(255), nullable=False),
    Column("partition_key", Text),
    Column("passed", Boolean, nullable=False),
    Column("is_blocking", Boolean, nullable=False),
    Column("severity", String(20), nullable=False),
    Column("description", Text),
    Column("metadata", Json),
    Column("run_id", String(255)),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("created_by", Id, ForeignKey(users.c.id)),
    sqlite_autoincrement=True,
)

# Why the content of a version may not reach a protected branch; `source` is a run or a check.
version_taints = Table(
    "version_taints",
    metadata,
    Column("id", Id, primary_key=True),
    Column("version_id", Id, ForeignKey(dataset_versions.c.id), nullable=False),
    Column("dataset_id", Id, ForeignKey(datasets.c.id), nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("partition_key", Text),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("created_by", Id, ForeignKey(users.c.id)),
    Column("absolved_at", Timestamp),
    Column("absolved_by", Id, ForeignKey(users.c.id)),
    Column("absolved_because", Text),
    UniqueConstraint("version_id", "source"),
    sqlite_autoincrement=True,
)

# What content was made from, where the parents do not say it: versions that were picked or restored, and components whose rows
# were edited instead of replaced.
version_sources = Table(
    "version_sources",
    metadata,
    Column("version_id", Id, ForeignKey(dataset_versions.c.id), primary_key=True),
    Column("source_id", Id, ForeignKey(dataset_versions.c.id), primary_key=True, index=True),
    Column("edited", Json),
)

# Reviews of branches over all datasets.
reviews = Table(
    "reviews",
    metadata,
    Column("id", Id, primary_key=True),
    Column("branch", String(255), nullable=False, index=True),
    Column("target", String(255), nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text),
    Column("state", String(20), nullable=False, index=True),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("created_by", Id, ForeignKey(users.c.id), nullable=False),
    Column("closed_at", Timestamp),
    Column("closed_by", Id, ForeignKey(users.c.id)),
    sqlite_autoincrement=True,
)

# The datasets of a review; once it is over, the numbers of the versions that the target was at before and after, and the id of
# the version that the branch was at: without references, as versions may be deleted.
review_datasets = Table(
    "review_datasets",
    metadata,
    Column("review_id", Id, ForeignKey(reviews.c.id), primary_key=True),
    Column("dataset_id", Id, ForeignKey(datasets.c.id), primary_key=True, index=True),
    Column("before_number", Integer),
    Column("after_number", Integer),
    Column("head_id", Integer),
)

# Comments and verdicts. A verdict is about the heads that the branch had in the datasets that its author may judge.
review_events = Table(
    "review_events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("review_id", Id, ForeignKey(reviews.c.id), nullable=False, index=True),
    Column("kind", String(20), nullable=False),
    Column("body", Text),
    Column("heads", Json),
    Column("created_at", Timestamp, nullable=False, default=utc_now(), server_default=_NOW),
    Column("created_by", Id, ForeignKey(users.c.id), nullable=False),
    sqlite_autoincrement=True,
)

# Views, created by the migrations and described here for queries; `alembic check` does not look at them.
views = MetaData()

dataset_version_files = Table(
    "dataset_version_files",
    views,
    Column("version_id", Id),
    Column("file_id", Id),
    Column("component_type", String(50)),
    Column("component_name", Bytewise),
    Column("component_index", Integer),
    Column("metadata", Text),
    Column("schema_id", Id),
    Column("format", Format),
)

file_info = Table(
    "file_info",
    views,
    Column("id", Id),
    Column("content_hash", CHAR(64)),
    Column("file_size", BigInteger),
    Column("form", String(20)),
    Column("compression_type", String(50)),
    Column("reference_count", Integer),
)
