"""Permissions on datasets and files."""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import lose

revision = "0007"
down_revision = "0006"


LOST = """
    SELECT u.username, p.* FROM permissions p JOIN users u ON u.id = p.user_id ORDER BY p.id
"""


def upgrade() -> None:
    op.create_table(
        "permissions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("resource_type", sa.String(50), nullable=False),
        sa.Column("resource_id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", name="fk_permissions_user_id"), nullable=False),
        sa.Column("permission_type", sa.String(20), nullable=False),
        sa.Column("granted_at", sa.DateTime, nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.Column(
            "granted_by", sa.Integer, sa.ForeignKey("users.id", name="fk_permissions_granted_by"), nullable=False
        ),
        sa.UniqueConstraint(
            "resource_type",
            "resource_id",
            "user_id",
            "permission_type",
            name="uq_permissions_grant",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_permissions"),
    )
    op.create_index("idx_permissions_lookup", "permissions", ["resource_type", "resource_id", "user_id"])


def downgrade() -> None:
    lose(revision, "grants", LOST)
    op.drop_table("permissions")
