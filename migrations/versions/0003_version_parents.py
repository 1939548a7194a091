"""Parents, messages and overlays on versions: what was a list of numbers becomes a linear history."""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import lose

revision = "0003"
down_revision = "0002"


TEXTS = """
    SELECT d.name || '@v' || v.version_number AS version, v.message, v.overlay_file_id
    FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
    WHERE v.message IS NOT NULL OR v.overlay_file_id IS NOT NULL ORDER BY d.name, v.version_number
"""
PARENTS = """
    SELECT * FROM (
        SELECT d.name || '@v' || v.version_number AS version, v.parent_version_id, (
                   SELECT p.id FROM dataset_versions p
                   WHERE p.dataset_id = v.dataset_id AND p.version_number < v.version_number
                   ORDER BY p.version_number DESC LIMIT 1
               ) AS version_before
        FROM dataset_versions v JOIN datasets d ON d.id = v.dataset_id
    ) found WHERE COALESCE(parent_version_id, 0) <> COALESCE(version_before, 0) ORDER BY version
"""


def upgrade() -> None:
    with op.batch_alter_table("dataset_versions", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("parent_version_id", sa.Integer))
        batch.add_column(sa.Column("message", sa.Text))
        batch.add_column(sa.Column("overlay_file_id", sa.Integer))
        batch.create_foreign_key(
            "fk_dataset_versions_parent_version_id", "dataset_versions", ["parent_version_id"], ["id"]
        )
        batch.create_foreign_key("fk_dataset_versions_overlay_file_id", "files", ["overlay_file_id"], ["id"])
        batch.create_index("idx_dataset_versions_parent", ["parent_version_id"])
    op.execute(
        """
        UPDATE dataset_versions SET parent_version_id = (
            SELECT p.id FROM dataset_versions p
            WHERE p.dataset_id = dataset_versions.dataset_id AND p.version_number < dataset_versions.version_number
            ORDER BY p.version_number DESC LIMIT 1
        )
        """
    )


def downgrade() -> None:
    lose(revision, "messages and overlays of versions", TEXTS)
    lose(revision, "parents of versions that are not the version before", PARENTS)
    with op.batch_alter_table("dataset_versions", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_constraint("fk_dataset_versions_parent_version_id", type_="foreignkey")
        batch.drop_constraint("fk_dataset_versions_overlay_file_id", type_="foreignkey")
        batch.drop_index("idx_dataset_versions_parent")
        for column in ("overlay_file_id", "message", "parent_version_id"):
            batch.drop_column(column)
