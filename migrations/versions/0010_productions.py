"""Productions: every act of producing a version, with the exact versions it read."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from dataset_registry.catalog.losses import lose

revision = "0010"
down_revision = "0009"

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


PRODUCTIONS = """
    SELECT d.name || '@v' || v.version_number AS version, p.* FROM productions p JOIN dataset_versions v ON v.id = p.version_id
    JOIN datasets d ON d.id = v.dataset_id ORDER BY p.id
"""
INPUTS = """
    SELECT d.name || '@v' || v.version_number AS version, i.*
    FROM production_inputs i JOIN productions p ON p.id = i.production_id
    JOIN dataset_versions v ON v.id = p.version_id JOIN datasets d ON d.id = v.dataset_id ORDER BY i.production_id, i.position
"""


def upgrade() -> None:
    op.create_table(
        "productions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "version_id",
            sa.Integer,
            sa.ForeignKey("dataset_versions.id", name="fk_productions_version_id"),
            nullable=False,
        ),
        sa.Column("branch", sa.String(255)),
        sa.Column("unchanged", sa.Boolean, nullable=False),
        sa.Column("run_id", sa.String(255)),
        sa.Column("step", sa.Text),
        sa.Column("asset_key", sa.Text),
        sa.Column("partition_key", sa.Text),
        sa.Column("code_version", sa.String(255)),
        sa.Column("metadata", JSON),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.Column("created_by", sa.Integer, sa.ForeignKey("users.id", name="fk_productions_created_by")),
        sa.PrimaryKeyConstraint("id", name="pk_productions"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_productions_version_id", "productions", ["version_id"])
    op.create_index("idx_productions_run", "productions", ["run_id"])
    op.create_table(
        "production_inputs",
        sa.Column(
            "production_id", sa.Integer, sa.ForeignKey("productions.id", name="fk_production_inputs_production_id")
        ),
        sa.Column("position", sa.Integer),
        sa.Column("label", sa.String(255)),
        sa.Column("dataset_name", sa.String(255), nullable=False),
        sa.Column("version_number", sa.Integer, nullable=False),
        sa.Column("digest", sa.CHAR(64)),
        sa.Column("ref", sa.String(255), nullable=False),
        sa.Column("fallback", sa.String(255)),
        sa.Column("components", JSON, nullable=False),
        sa.Column(
            "version_id",
            sa.Integer,
            sa.ForeignKey("dataset_versions.id", name="fk_production_inputs_version_id", ondelete="SET NULL"),
        ),
        sa.PrimaryKeyConstraint("production_id", "position", name="pk_production_inputs"),
    )
    op.create_index("idx_production_inputs_version_id", "production_inputs", ["version_id"])


def downgrade() -> None:
    lose(revision, "productions of versions", PRODUCTIONS)
    lose(revision, "inputs of productions", INPUTS)
    op.drop_table("production_inputs")
    op.drop_table("productions")
