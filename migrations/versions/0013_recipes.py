"""Recipes: files that are kept as ranges of stored objects, and objects that were assembled of them for other engines.

The view `file_info` counts a recipe as a reference of each file whose object it has ranges of.
"""

import sqlalchemy as sa
from alembic import op

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


def downgrade() -> None:
    query = sa.text("SELECT id, content_hash FROM files WHERE form = 'ranges' ORDER BY id")
    if recipes := op.get_bind().execute(query).all():
        named = ", ".join(f"{file_id} ({content_hash[:12]})" for file_id, content_hash in recipes[:10])
        raise RuntimeError(
            f"Revision 0012 has no place for {len(recipes)} files that are kept as ranges of objects: {named}. Stay at revision "
            "0013, or copy the registry with the package that has revision 0012."
        )
    op.execute("DROP VIEW file_info")
    op.execute(f"CREATE VIEW file_info AS {BEFORE} AS reference_count FROM files f")
    op.drop_table("assembled_files")
    op.drop_table("file_ranges")
