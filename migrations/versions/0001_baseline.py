"""The baseline: the catalog that existing users have.

Where its tables exist already, `dataset-registry db upgrade` records this revision without running it.
"""

import sqlalchemy as sa
from alembic import context, op

from dataset_registry.catalog.losses import lose
from dataset_registry.errors import MigrationRefused

revision = "0001"
down_revision = None

NOW = sa.text("CURRENT_TIMESTAMP")


def upgrade() -> None:
    if sa.inspect(op.get_bind()).has_table("dataset_versions"):
        raise MigrationRefused(
            "The database has the tables of an existing catalog. Take it over with: dataset-registry db upgrade"
        )
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("username", sa.String(255), nullable=False),
        sa.Column("email", sa.String(255)),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.UniqueConstraint("username", name="uq_users_username"),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.UniqueConstraint("name", name="uq_datasets_name"),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "files",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("storage_type", sa.String(50), nullable=False),
        sa.Column("file_type", sa.String(50)),
        sa.Column("mime_type", sa.String(255)),
        sa.Column("file_data", sa.LargeBinary),
        sa.Column("file_path", sa.Text),
        sa.Column("file_size", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "dataset_versions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "dataset_id",
            sa.Integer,
            sa.ForeignKey("datasets.id", name="fk_dataset_versions_dataset_id"),
            nullable=False,
        ),
        sa.Column("version_number", sa.Integer, nullable=False),
        sa.Column("file_id", sa.Integer, sa.ForeignKey("files.id", name="fk_dataset_versions_file_id"), nullable=False),
        sa.Column("ingestion_timestamp", sa.DateTime, nullable=False, server_default=NOW),
        sa.Column("last_updated_timestamp", sa.DateTime, nullable=False, server_default=NOW),
        sa.Column("uploaded_by", sa.Integer, sa.ForeignKey("users.id", name="fk_dataset_versions_uploaded_by")),
        sa.UniqueConstraint("dataset_id", "version_number", name="uq_dataset_versions_dataset_id_version_number"),
        sa.PrimaryKeyConstraint("id", name="pk_dataset_versions"),
        sqlite_autoincrement=True,
    )


LOST = {
    "versions": "SELECT d.name || '@v' || v.version_number AS version, v.* FROM dataset_versions v "
    "JOIN datasets d ON d.id = v.dataset_id ORDER BY d.name, v.version_number",
    "files": "SELECT 'file ' || f.id AS file, f.* FROM files f ORDER BY f.id",
    "datasets": "SELECT name, id, description, created_at FROM datasets ORDER BY id",
    "users": "SELECT username, id, email, created_at FROM users ORDER BY id",
}


def downgrade() -> None:
    if context.config.attributes.get("taken_over"):
        return  # its tables were there before this package, and stay
    for what, query in LOST.items():
        lose(revision, what, query)
    for table in ("dataset_versions", "files", "datasets", "users"):
        op.drop_table(table)
