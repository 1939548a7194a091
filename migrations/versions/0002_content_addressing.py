"""Content addressing on files.

Bytes are not read here: a legacy file gets its hash from the adoption step, which is given the store.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from dataset_registry.catalog.losses import lose

revision = "0002"
down_revision = "0001"

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


LOST = """
    SELECT 'file ' || id AS file, content_hash, compression_type, metadata, storage_type, file_path FROM files
    WHERE content_hash IS NOT NULL OR compression_type IS NOT NULL OR metadata IS NOT NULL ORDER BY id
"""


def upgrade() -> None:
    op.add_column("files", sa.Column("content_hash", sa.CHAR(64)))
    op.add_column("files", sa.Column("reference_count", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.add_column("files", sa.Column("compression_type", sa.String(50)))
    op.add_column("files", sa.Column("metadata", JSON))
    op.create_index("idx_files_content_hash", "files", ["content_hash"], unique=True)
    op.execute(
        """
        UPDATE files SET reference_count = counted.versions
        FROM (SELECT file_id, count(*) AS versions FROM dataset_versions GROUP BY file_id) AS counted
        WHERE counted.file_id = files.id
        """
    )


def downgrade() -> None:
    lose(revision, "hashes, compression and metadata of files", LOST)
    op.drop_index("idx_files_content_hash", "files")
    for column in ("metadata", "compression_type", "reference_count", "content_hash"):
        op.drop_column("files", column)
