"""Small contents in the catalog: files of the form `inline`, and the table of their bytes."""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import discard_files, discard_versions, lose
from dataset_registry.catalog.types import Id

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_table(
        "inline_contents",
        sa.Column("file_id", Id, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("file_id", name="pk_inline_contents"),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name="fk_inline_contents_file_id"),
    )


INLINE_IN = """
    SELECT c.version_id FROM dataset_version_files c JOIN files f ON f.id = c.file_id WHERE f.form = 'inline'
    UNION SELECT c.version_id FROM dataset_version_files c JOIN file_parts p ON p.file_id = c.file_id
    JOIN files f ON f.id = p.part_id WHERE f.form = 'inline'
"""
VERSIONS = f"""
    SELECT d.name || '@v' || v.version_number AS version, v.* FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
    WHERE v.id IN ({INLINE_IN}) ORDER BY d.name, v.version_number
"""
MOVE_FIRST = "versions with contents in the catalog (with DATASET_REGISTRY_INLINE_BYTES=0, collect moves them out)"
CONTENTS = """
    SELECT 'file ' || f.id AS file, f.content_hash, c.data FROM files f JOIN inline_contents c ON c.file_id = f.id ORDER BY f.id
"""


ASSEMBLED = """
    SELECT a.object_key, a.file_id, a.expires_at FROM assembled_files a JOIN files f ON f.id = a.file_id
    WHERE f.form = 'inline' ORDER BY a.object_key
"""


def downgrade() -> None:
    lose(revision, MOVE_FIRST, VERSIONS)
    lose(revision, "contents in the catalog", CONTENTS)
    lose(revision, "assembled objects of them, which stay in the store", ASSEMBLED)
    discard_versions(revision, f"v.id IN ({INLINE_IN})")
    op.execute("DELETE FROM inline_contents")
    op.execute("DELETE FROM assembled_files WHERE file_id IN (SELECT id FROM files WHERE form = 'inline')")
    discard_files(revision, "SELECT id FROM files WHERE form = 'inline'")
    op.drop_table("inline_contents")
