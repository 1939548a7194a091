"""The write protocol: holds, trash, the counter of version numbers, the creator of a dataset, registry-wide branches."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

NOW = sa.text("CURRENT_TIMESTAMP")


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.Uuid),
        sa.Column("content_hash", sa.CHAR(64), nullable=False),
        sa.Column("object_key", sa.String(97)),
        sa.Column("expires_at", sa.DateTime, nullable=False),
        sa.UniqueConstraint("object_key", name="uq_uploads_object_key"),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
    )
    op.create_index("idx_uploads_content_hash", "uploads", ["content_hash"])
    op.create_table(
        "trash",
        sa.Column("object_key", sa.String(97)),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("object_key", name="pk_trash"),
    )
    op.create_table(
        "registry_branches",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.UniqueConstraint("name", name="uq_registry_branches_name"),
        sa.PrimaryKeyConstraint("id", name="pk_registry_branches"),
    )
    with op.batch_alter_table("datasets", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("created_by", sa.Integer))
        batch.add_column(sa.Column("last_version_number", sa.Integer, nullable=False, server_default=sa.text("0")))
        batch.create_foreign_key("fk_datasets_created_by", "users", ["created_by"], ["id"])
    op.execute(
        """
        UPDATE datasets SET
            last_version_number = COALESCE(
                (SELECT max(v.version_number) FROM dataset_versions v WHERE v.dataset_id = datasets.id), 0),
            created_by = (
                SELECT v.uploaded_by FROM dataset_versions v WHERE v.dataset_id = datasets.id
                ORDER BY v.version_number LIMIT 1)
        """
    )


def downgrade() -> None:
    with op.batch_alter_table("datasets", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_constraint("fk_datasets_created_by", type_="foreignkey")
        batch.drop_column("last_version_number")
        batch.drop_column("created_by")
    for table in ("registry_branches", "trash", "uploads"):
        op.drop_table(table)
