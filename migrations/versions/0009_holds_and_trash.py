"""The write protocol: holds, trash, the counter of version numbers, the creator of a dataset, registry-wide branches."""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import lose

revision = "0009"
down_revision = "0008"

NOW = sa.text("CURRENT_TIMESTAMP")


LOST = {
    "uploads under way": "SELECT content_hash, object_key, expires_at FROM uploads ORDER BY content_hash",
    "objects in the trash, which stay in the store": "SELECT object_key, created_at FROM trash ORDER BY object_key",
    "registry-wide branches": "SELECT name, source, created_at FROM registry_branches ORDER BY id",
    "creators of datasets": """
        SELECT d.name, u.username FROM datasets d JOIN users u ON u.id = d.created_by WHERE d.created_by <> COALESCE((
            SELECT v.uploaded_by FROM dataset_versions v WHERE v.dataset_id = d.id ORDER BY v.version_number LIMIT 1), 0)
        ORDER BY d.name
    """,
    "counters of version numbers, of which the last are deleted": """
        SELECT d.name, d.last_version_number FROM datasets d WHERE d.last_version_number <> COALESCE(
            (SELECT max(v.version_number) FROM dataset_versions v WHERE v.dataset_id = d.id), 0)
        ORDER BY d.name
    """,
}


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
    for what, query in LOST.items():
        lose(revision, what, query)
    with op.batch_alter_table("datasets", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_constraint("fk_datasets_created_by", type_="foreignkey")
        batch.drop_column("last_version_number")
        batch.drop_column("created_by")
    for table in ("registry_branches", "trash", "uploads"):
        op.drop_table(table)
