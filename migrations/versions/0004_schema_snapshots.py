"""Schema snapshots of versions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from dataset_registry.catalog.losses import lose

revision = "0004"
down_revision = "0003"

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


LOST = """
    SELECT d.name || '@v' || v.version_number AS version, s.id, s.schema_json, s.created_at FROM dataset_schema_versions s
    JOIN dataset_versions v ON v.id = s.dataset_version_id JOIN datasets d ON d.id = v.dataset_id
    ORDER BY d.name, v.version_number, s.id
"""


def upgrade() -> None:
    op.create_table(
        "dataset_schema_versions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "dataset_version_id",
            sa.Integer,
            sa.ForeignKey("dataset_versions.id", name="fk_dataset_schema_versions_dataset_version_id"),
            nullable=False,
        ),
        sa.Column("schema_json", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.PrimaryKeyConstraint("id", name="pk_dataset_schema_versions"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_schema_versions_dataset", "dataset_schema_versions", ["dataset_version_id"])


def downgrade() -> None:
    lose(revision, "schema snapshots of versions", LOST)
    op.drop_table("dataset_schema_versions")
