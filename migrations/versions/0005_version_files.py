"""Several files per version: the file of a version becomes its component `data`.

The key is wider than the original design's (version_id, file_id): two components may share one file.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "dataset_version_files",
        sa.Column(
            "version_id", sa.Integer, sa.ForeignKey("dataset_versions.id", name="fk_dataset_version_files_version_id")
        ),
        sa.Column(
            "file_id", sa.Integer, sa.ForeignKey("files.id", name="fk_dataset_version_files_file_id"), nullable=False
        ),
        sa.Column("component_type", sa.String(50), nullable=False),
        sa.Column("component_name", sa.Text, nullable=False),
        sa.Column("component_index", sa.Integer, nullable=False),
        sa.Column("metadata", JSON),
        sa.PrimaryKeyConstraint("version_id", "component_name", "component_index", name="pk_dataset_version_files"),
    )
    op.create_index("idx_version_files_version", "dataset_version_files", ["version_id"])
    op.execute(
        """
        INSERT INTO dataset_version_files (version_id, file_id, component_type, component_name, component_index)
        SELECT id, file_id, 'data', 'data', 0 FROM dataset_versions
        """
    )
    with op.batch_alter_table("dataset_versions", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_column("file_id")  # and its foreign key with it, whatever the existing catalog calls that


def downgrade() -> None:
    lost = (
        op.get_bind()
        .execute(
            sa.text(
                """
                SELECT d.name, v.version_number, count(f.file_id)
                FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
                LEFT JOIN dataset_version_files f ON f.version_id = v.id
                GROUP BY d.name, v.version_number, v.id
                HAVING count(f.file_id) <> 1 OR min(f.component_name) <> 'data' OR min(f.component_type) <> 'data'
                    OR min(f.component_index) <> 0 OR count(f.metadata) > 0
                ORDER BY d.name, v.version_number
                """
            )
        )
        .all()
    )
    if lost:
        named = ", ".join(f"{name}@v{number} ({count} components)" for name, number, count in lost[:20])
        raise RuntimeError(
            f"Revision 0004 keeps one file per version, named 'data'; this would lose components of {len(lost)} versions: "
            f"{named}. Delete those versions, or stay at revision 0005."
        )
    with op.batch_alter_table("dataset_versions", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("file_id", sa.Integer))
    op.execute(
        "UPDATE dataset_versions SET file_id = "
        "(SELECT f.file_id FROM dataset_version_files f WHERE f.version_id = dataset_versions.id)"
    )
    with op.batch_alter_table("dataset_versions", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.alter_column("file_id", existing_type=sa.Integer, nullable=False)
        batch.create_foreign_key("fk_dataset_versions_file_id", "files", ["file_id"], ["id"])
    op.drop_table("dataset_version_files")
