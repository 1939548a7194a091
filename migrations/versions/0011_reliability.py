"""Reliability: compressed objects, damaged files, late objects, copied versions, and what runs are reading."""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import discard_files, discard_versions, lose

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("files", sa.Column("stored_size", sa.BigInteger))
    op.add_column("files", sa.Column("damage", sa.Text))
    op.add_column("trash", sa.Column("keep_until", sa.DateTime))
    op.add_column("dataset_versions", sa.Column("origin", sa.Text))
    op.create_table(
        "version_reads",
        sa.Column("run_id", sa.String(255)),
        sa.Column("version_id", sa.Integer, sa.ForeignKey("dataset_versions.id", name="fk_version_reads_version_id")),
        sa.Column("read_at", sa.DateTime, nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.PrimaryKeyConstraint("run_id", "version_id", name="pk_version_reads"),
    )
    op.create_index("idx_version_reads_version_id", "version_reads", ["version_id"])


COMPRESSED = """
    SELECT c.version_id FROM dataset_version_files c JOIN files f ON f.id = c.file_id WHERE f.stored_size IS NOT NULL
    UNION SELECT c.version_id FROM dataset_version_files c JOIN file_parts p ON p.file_id = c.file_id
    JOIN files f ON f.id = p.part_id WHERE f.stored_size IS NOT NULL
"""
VERSIONS = f"""
    SELECT d.name || '@v' || v.version_number AS version, v.* FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
    WHERE v.id IN ({COMPRESSED}) ORDER BY d.name, v.version_number
"""
LOST = {
    "compressed files": "SELECT 'file ' || id AS file, content_hash, object_key, compression_type, file_size, stored_size "
    "FROM files WHERE stored_size IS NOT NULL ORDER BY id",
    "marks of damaged files": "SELECT 'file ' || id AS file, content_hash, damage FROM files WHERE damage IS NOT NULL "
    "ORDER BY id",
    "origins of copied versions": "SELECT d.name || '@v' || v.version_number AS version, v.origin FROM dataset_versions v "
    "JOIN datasets d ON d.id = v.dataset_id WHERE v.origin IS NOT NULL ORDER BY d.name, v.version_number",
    "notes of what runs are reading": "SELECT run_id, version_id, read_at FROM version_reads ORDER BY run_id, version_id",
    "dates until which objects stay in the trash": "SELECT object_key, keep_until FROM trash "
    "WHERE keep_until IS NOT NULL ORDER BY object_key",
}


def downgrade() -> None:
    lose(
        revision,
        "versions with compressed files (a copy without compression keeps them: dataset-registry copy)",
        VERSIONS,
    )
    discard_versions(revision, f"v.id IN ({COMPRESSED})")
    for what, query in LOST.items():
        lose(revision, what, query)
    discard_files(revision, "SELECT id FROM files WHERE stored_size IS NOT NULL")
    op.drop_table("version_reads")
    op.drop_column("dataset_versions", "origin")
    op.drop_column("trash", "keep_until")
    op.drop_column("files", "damage")
    op.drop_column("files", "stored_size")
