"""Reviews of branches, and protected branches that take approvals and checks."""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import lose
from dataset_registry.catalog.types import Id, Json

revision = "0019"
down_revision = "0018"

NOW = sa.text("CURRENT_TIMESTAMP")


def upgrade() -> None:
    op.create_table(
        "reviews",
        sa.Column("id", Id, nullable=False),
        sa.Column("branch", sa.String(255), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("closed_at", sa.DateTime),
        sa.Column("closed_by", Id),
        sa.PrimaryKeyConstraint("id", name="pk_reviews"),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name="fk_reviews_created_by"),
        sa.ForeignKeyConstraint(["closed_by"], ["users.id"], name="fk_reviews_closed_by"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_reviews_state", "reviews", ["state"])
    op.create_index("idx_reviews_branch", "reviews", ["branch"])
    op.create_table(
        "review_datasets",
        sa.Column("review_id", Id, nullable=False),
        sa.Column("dataset_id", Id, nullable=False),
        sa.Column("before_number", sa.Integer),
        sa.Column("after_number", sa.Integer),
        sa.Column("head_id", sa.Integer),
        sa.PrimaryKeyConstraint("review_id", "dataset_id", name="pk_review_datasets"),
        sa.ForeignKeyConstraint(["review_id"], ["reviews.id"], name="fk_review_datasets_review_id"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_review_datasets_dataset_id"),
    )
    op.create_index("idx_review_datasets_dataset_id", "review_datasets", ["dataset_id"])
    op.create_table(
        "review_events",
        sa.Column("id", Id, nullable=False),
        sa.Column("review_id", Id, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("body", sa.Text),
        sa.Column("heads", Json),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.Column("created_by", Id, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_review_events"),
        sa.ForeignKeyConstraint(["review_id"], ["reviews.id"], name="fk_review_events_review_id"),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name="fk_review_events_created_by"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_review_events_review_id", "review_events", ["review_id"])
    op.add_column(
        "protected_branches", sa.Column("required_approvals", sa.Integer, nullable=False, server_default=sa.text("0"))
    )
    op.add_column(
        "protected_branches", sa.Column("requires_checks", sa.Boolean, nullable=False, server_default=sa.text("false"))
    )


LOST = {
    "reviews": "SELECT * FROM reviews ORDER BY id",
    "datasets of reviews": "SELECT * FROM review_datasets ORDER BY review_id, dataset_id",
    "comments and approvals of reviews": "SELECT * FROM review_events ORDER BY id",
    "protected branches that take approvals or checks": "SELECT * FROM protected_branches WHERE required_approvals > 0 "
    "OR requires_checks ORDER BY id",
}


def downgrade() -> None:
    for what, query in LOST.items():
        lose(revision, what, query)
    for table in ("review_events", "review_datasets", "reviews"):
        op.drop_table(table)
    op.drop_column("protected_branches", "requires_checks")
    op.drop_column("protected_branches", "required_approvals")
