"""Trust: inputs are identified by their version, not by a name; readers hold versions for a limited time; the registry knows its
store, and whether it is frozen; the name of a deleted tag is refused to branches, too."""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import lose

revision = "0015"
down_revision = "0014"

SQLITE = """
    CREATE TRIGGER tags_are_not_reused BEFORE INSERT ON dataset_pointers WHEN {condition} EXISTS (
        SELECT 1 FROM retired_tags r WHERE r.dataset_id = NEW.dataset_id AND r.pointer_name = NEW.pointer_name)
    BEGIN SELECT RAISE(ABORT, 'the name of a deleted tag is not reused'); END
"""
POSTGRESQL = """
    CREATE OR REPLACE FUNCTION guard_tags() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN
            RAISE EXCEPTION 'tags are immutable';
        ELSIF TG_OP = 'UPDATE' THEN
            IF OLD.is_tag OR NEW.is_tag THEN RAISE EXCEPTION 'tags are immutable'; END IF;
            RETURN NEW;
        ELSIF TG_OP = 'INSERT' THEN
            IF {condition} EXISTS (SELECT 1 FROM retired_tags r
                WHERE r.dataset_id = NEW.dataset_id AND r.pointer_name = NEW.pointer_name) THEN
                RAISE EXCEPTION 'the name of a deleted tag is not reused';
            END IF;
            RETURN NEW;
        END IF;
        IF OLD.is_tag THEN
            INSERT INTO retired_tags (dataset_id, pointer_name) VALUES (OLD.dataset_id, OLD.pointer_name)
            ON CONFLICT DO NOTHING;
        END IF;
        RETURN OLD;
    END $$
"""


def upgrade() -> None:
    guard_names("")
    if not sa.inspect(op.get_bind()).has_table("registry_settings"):
        op.create_table(
            "registry_settings",
            sa.Column("name", sa.String(50), nullable=False),
            sa.Column("value", sa.Text, nullable=False),
            sa.Column("updated_at", sa.DateTime, nullable=False, server_default=sa.text("CURRENT_TIMESTAMP")),
            sa.PrimaryKeyConstraint("name", name="pk_registry_settings"),
        )
    op.add_column("production_inputs", sa.Column("dataset_id", sa.Integer))
    op.add_column("production_inputs", sa.Column("version_uuid", sa.Uuid))
    with op.batch_alter_table("version_reads") as batch:
        batch.add_column(sa.Column("reader_id", sa.Integer))
        batch.add_column(sa.Column("first_read_at", sa.DateTime))
        batch.create_foreign_key("fk_version_reads_reader_id", "users", ["reader_id"], ["id"])
    op.create_index("idx_version_reads_reader_id", "version_reads", ["reader_id"])
    op.create_index("idx_production_inputs_version_uuid", "production_inputs", ["version_uuid"])
    for column, source in (("dataset_id", "dataset_id"), ("version_uuid", "uuid")):
        op.execute(
            f"UPDATE production_inputs SET {column} = "
            f"(SELECT v.{source} FROM dataset_versions v WHERE v.id = production_inputs.version_id) "
            "WHERE version_id IS NOT NULL"
        )


LOST = {
    "notes of readers": "SELECT run_id, version_id, reader_id, read_at, first_read_at FROM version_reads "
    "WHERE reader_id IS NOT NULL ORDER BY run_id, version_id",
    "datasets of inputs whose versions are gone": "SELECT dataset_name, production_id, position, dataset_id, version_uuid "
    "FROM production_inputs WHERE version_id IS NULL AND (dataset_id IS NOT NULL OR version_uuid IS NOT NULL) "
    "ORDER BY production_id, position",
}


def downgrade() -> None:
    for what, query in LOST.items():
        lose(revision, what, query)
    if not op.get_bind().execute(sa.text("SELECT count(*) FROM registry_settings")).scalar():
        op.drop_table("registry_settings")  # one that knows its store stays, for when the catalog comes back
    op.drop_index("idx_version_reads_reader_id", "version_reads")
    with op.batch_alter_table("version_reads") as batch:
        batch.drop_constraint("fk_version_reads_reader_id", type_="foreignkey")
        batch.drop_column("first_read_at")
        batch.drop_column("reader_id")
    op.drop_index("idx_production_inputs_version_uuid", "production_inputs")
    op.drop_column("production_inputs", "version_uuid")
    op.drop_column("production_inputs", "dataset_id")
    guard_names("NEW.is_tag AND")


def guard_names(condition: str) -> None:
    """Refuse the names of deleted tags to pointers of this kind."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER tags_are_not_reused")
        op.execute(SQLITE.format(condition=condition))
    else:
        op.execute(POSTGRESQL.format(condition=condition))
