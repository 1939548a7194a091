"""Recipes: files that are kept as ranges of stored objects, and objects that were assembled of them for other engines.

The view `file_info` counts a recipe as a reference of each file whose object it has ranges of.
"""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import discard_files, discard_versions, lose

revision = "0013"
down_revision = "0012"

BEFORE = """
    SELECT f.id, f.content_hash, f.file_size, f.form, f.compression_type, (
               SELECT count(*) FROM manifest_entries e
               JOIN manifest_index_entries i ON i.page_id = e.page_id
               JOIN version_index_pages v ON v.index_page_id = i.index_page_id
               WHERE e.file_id = f.id
           ) + (SELECT count(*) FROM file_parts p WHERE p.part_id = f.id)
"""
RECIPES = "(SELECT count(DISTINCT r.file_id) FROM file_ranges r WHERE r.object_id = f.id)"


def upgrade() -> None:
    op.create_table(
        "file_ranges",
        sa.Column("file_id", sa.Integer, sa.ForeignKey("files.id", name="fk_file_ranges_file_id")),
        sa.Column("position", sa.Integer),
        sa.Column("object_id", sa.Integer, sa.ForeignKey("files.id", name="fk_file_ranges_object_id"), nullable=False),
        sa.Column("object_offset", sa.BigInteger, nullable=False),
        sa.Column("byte_count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("file_id", "position", name="pk_file_ranges"),
    )
    op.create_index("idx_file_ranges_object_id", "file_ranges", ["object_id"])
    op.create_table(
        "assembled_files",
        sa.Column("file_id", sa.Integer, sa.ForeignKey("files.id", name="fk_assembled_files_file_id")),
        sa.Column("object_key", sa.String(97), nullable=False),
        sa.Column("expires_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("file_id", name="pk_assembled_files"),
        sa.UniqueConstraint("object_key", name="uq_assembled_files_object_key"),
    )
    op.execute("DROP VIEW file_info")
    op.execute(f"CREATE VIEW file_info AS {BEFORE} + {RECIPES} AS reference_count FROM files f")


RECIPES_OF = """
    SELECT c.version_id FROM dataset_version_files c JOIN files f ON f.id = c.file_id WHERE f.form IN ('ranges', 'pack')
    UNION SELECT c.version_id FROM dataset_version_files c JOIN file_parts p ON p.file_id = c.file_id
    JOIN files f ON f.id = p.part_id WHERE f.form IN ('ranges', 'pack')
"""
VERSIONS = f"""
    SELECT d.name || '@v' || v.version_number AS version, v.* FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
    WHERE v.id IN ({RECIPES_OF}) ORDER BY d.name, v.version_number
"""
LOST = {
    "files that are stored as ranges of objects": "SELECT 'file ' || f.id AS file, f.content_hash, r.position, "
    "o.object_key, r.object_offset, r.byte_count FROM files f JOIN file_ranges r ON r.file_id = f.id "
    "JOIN files o ON o.id = r.object_id ORDER BY f.id, r.position",
    "assembled objects, which stay in the store": "SELECT object_key, file_id, expires_at FROM assembled_files "
    "ORDER BY object_key",
}


def downgrade() -> None:
    lose(revision, "versions with files that are stored as ranges of objects", VERSIONS)
    for what, query in LOST.items():
        lose(revision, what, query)
    discard_versions(revision, f"v.id IN ({RECIPES_OF})")
    op.execute("DELETE FROM file_ranges")
    op.execute("DELETE FROM assembled_files")
    discard_files(revision, "SELECT id FROM files WHERE form IN ('ranges', 'pack')")
    op.execute("DROP VIEW file_info")
    op.execute(f"CREATE VIEW file_info AS {BEFORE} AS reference_count FROM files f")
    op.drop_table("assembled_files")
    op.drop_table("file_ranges")
