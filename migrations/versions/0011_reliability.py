"""Reliability: compressed objects, damaged files, late objects, copied versions, and what runs are reading."""

import sqlalchemy as sa
from alembic import op

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


def downgrade() -> None:
    compressed = op.get_bind().execute(
        sa.text("SELECT content_hash FROM files WHERE stored_size IS NOT NULL ORDER BY id")
    )
    if lost := [row[0] for row in compressed]:
        raise RuntimeError(
            f"Revision 0010 cannot read compressed files, of which there are {len(lost)}: "
            f"{', '.join(hash[:12] for hash in lost[:20])}. Copy the registry without compression first "
            "(dataset-registry copy), or stay at revision 0011."
        )
    op.drop_table("version_reads")
    op.drop_column("dataset_versions", "origin")
    op.drop_column("trash", "keep_until")
    op.drop_column("files", "damage")
    op.drop_column("files", "stored_size")
