"""Several files per version: the file of a version becomes its component `data`.

The key is wider than the original design's (version_id, file_id): two components may share one file.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from dataset_registry.catalog.losses import discard_versions, lose

revision = "0005"
down_revision = "0004"

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


EMPTY = "NOT EXISTS (SELECT 1 FROM dataset_version_files f WHERE f.version_id = v.id)"
VERSIONS = f"""
    SELECT d.name || '@v' || v.version_number AS version, v.* FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
    WHERE {EMPTY} ORDER BY d.name, v.version_number
"""
# The file that a version keeps: that of its component `data`, else of the first one.
FIRST = """
    SELECT f.file_id FROM dataset_version_files f WHERE f.version_id = {version}
    ORDER BY CASE WHEN f.component_name = 'data' THEN 0 ELSE 1 END, f.component_name, f.component_index LIMIT 1
"""
COMPONENTS = """
    SELECT d.name || '@v' || v.version_number AS version, f.* FROM dataset_version_files f
    JOIN dataset_versions v ON v.id = f.version_id JOIN datasets d ON d.id = v.dataset_id
    WHERE f.component_name <> 'data' OR f.component_type <> 'data' OR f.component_index <> 0 OR f.metadata IS NOT NULL
    ORDER BY d.name, v.version_number, f.component_name, f.component_index
"""


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
    lose(revision, "versions without a component", VERSIONS)
    discard_versions(revision, EMPTY)
    lose(revision, "components that are not a version's only one, 'data' without metadata", COMPONENTS)
    with op.batch_alter_table("dataset_versions", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("file_id", sa.Integer))
    op.execute(f"UPDATE dataset_versions SET file_id = ({FIRST.format(version='dataset_versions.id')})")
    with op.batch_alter_table("dataset_versions", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.alter_column("file_id", existing_type=sa.Integer, nullable=False)
        batch.create_foreign_key("fk_dataset_versions_file_id", "files", ["file_id"], ["id"])
    op.drop_table("dataset_version_files")
