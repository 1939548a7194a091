"""Results of checks on versions, taints, and what content was made from."""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import lose
from dataset_registry.catalog.types import Id, Json

revision = "0017"
down_revision = "0016"

NOW = sa.text("CURRENT_TIMESTAMP")


def upgrade() -> None:
    op.create_table(
        "version_checks",
        sa.Column("id", Id, nullable=False),
        version("version_id"),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("partition_key", sa.Text),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("is_blocking", sa.Boolean, nullable=False),
        sa.Column("severity", sa.String(20), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("metadata", Json),
        sa.Column("run_id", sa.String(255)),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.Column("created_by", Id),
        sa.PrimaryKeyConstraint("id", name="pk_version_checks"),
        *keys("version_checks", version_id="dataset_versions", created_by="users"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_version_checks_version_id", "version_checks", ["version_id"])
    op.create_table(
        "version_taints",
        sa.Column("id", Id, nullable=False),
        version("version_id"),
        sa.Column("dataset_id", Id, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("partition_key", sa.Text),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.Column("created_by", Id),
        sa.Column("absolved_at", sa.DateTime),
        sa.Column("absolved_by", Id),
        sa.Column("absolved_because", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_version_taints"),
        sa.UniqueConstraint("version_id", "source", name="uq_version_taints_version_id_source"),
        *keys(
            "version_taints",
            version_id="dataset_versions",
            dataset_id="datasets",
            created_by="users",
            absolved_by="users",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_version_taints_dataset_id", "version_taints", ["dataset_id"])
    op.create_table(
        "version_sources",
        version("version_id"),
        version("source_id"),
        sa.Column("edited", Json),
        sa.PrimaryKeyConstraint("version_id", "source_id", name="pk_version_sources"),
        *keys("version_sources", version_id="dataset_versions", source_id="dataset_versions"),
    )
    op.create_index("idx_version_sources_source_id", "version_sources", ["source_id"])


LOST = {
    "results of checks": "SELECT * FROM version_checks ORDER BY id",
    "taints": "SELECT * FROM version_taints ORDER BY id",
    "sources of content": "SELECT * FROM version_sources ORDER BY version_id, source_id",
}


def downgrade() -> None:
    for what, query in LOST.items():
        lose(revision, what, query)
    for table in ("version_checks", "version_taints", "version_sources"):
        op.drop_table(table)


def version(name: str) -> sa.Column[int]:
    return sa.Column(name, Id, nullable=False)


def keys(table: str, **references: str) -> list[sa.ForeignKeyConstraint]:
    return [
        sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}")
        for column, other in references.items()
    ]
