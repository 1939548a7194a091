"""Branches and tags: every dataset gets the branch `main` at its newest version; tags are immutable by trigger.

A tag may be deleted; the trigger then retires its name, and another one refuses a tag of a retired name.
"""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import lose

revision = "0006"
down_revision = "0005"

NOW = sa.text("CURRENT_TIMESTAMP")

SQLITE = [
    """
    CREATE TRIGGER tags_do_not_move BEFORE UPDATE ON dataset_pointers WHEN OLD.is_tag OR NEW.is_tag
    BEGIN SELECT RAISE(ABORT, 'tags are immutable'); END
    """,
    # INSERT OR REPLACE would get around the two other triggers.
    """
    CREATE TRIGGER tags_are_not_overwritten BEFORE UPDATE ON dataset_pointers
    WHEN EXISTS (SELECT 1 FROM dataset_pointers p WHERE p.is_tag AND p.id <> OLD.id AND (
        p.id = NEW.id OR (p.dataset_id = NEW.dataset_id AND p.pointer_name = NEW.pointer_name)))
    BEGIN SELECT RAISE(ABORT, 'tags are immutable'); END
    """,
    """
    CREATE TRIGGER tags_are_not_replaced BEFORE INSERT ON dataset_pointers
    WHEN EXISTS (SELECT 1 FROM dataset_pointers p WHERE p.is_tag AND (
        p.id = NEW.id OR (p.dataset_id = NEW.dataset_id AND p.pointer_name = NEW.pointer_name)))
    BEGIN SELECT RAISE(ABORT, 'tags are immutable'); END
    """,
    """
    CREATE TRIGGER tags_are_not_reused BEFORE INSERT ON dataset_pointers WHEN NEW.is_tag AND EXISTS (
        SELECT 1 FROM retired_tags r WHERE r.dataset_id = NEW.dataset_id AND r.pointer_name = NEW.pointer_name)
    BEGIN SELECT RAISE(ABORT, 'the name of a deleted tag is not reused'); END
    """,
    """
    CREATE TRIGGER tags_retire AFTER DELETE ON dataset_pointers WHEN OLD.is_tag
    BEGIN INSERT OR IGNORE INTO retired_tags (dataset_id, pointer_name) VALUES (OLD.dataset_id, OLD.pointer_name); END
    """,
]

POSTGRESQL = [
    """
    CREATE FUNCTION guard_tags() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN
            RAISE EXCEPTION 'tags are immutable';
        ELSIF TG_OP = 'UPDATE' THEN
            IF OLD.is_tag OR NEW.is_tag THEN RAISE EXCEPTION 'tags are immutable'; END IF;
            RETURN NEW;
        ELSIF TG_OP = 'INSERT' THEN
            IF NEW.is_tag AND EXISTS (SELECT 1 FROM retired_tags r
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
    """,
    "CREATE TRIGGER guard_tags BEFORE INSERT OR UPDATE OR DELETE ON dataset_pointers FOR EACH ROW EXECUTE FUNCTION guard_tags()",
    "CREATE TRIGGER guard_all_tags BEFORE TRUNCATE ON dataset_pointers EXECUTE FUNCTION guard_tags()",
    "ALTER TABLE dataset_pointers ENABLE ALWAYS TRIGGER guard_tags",
    "ALTER TABLE dataset_pointers ENABLE ALWAYS TRIGGER guard_all_tags",
]


POINTERS = """
    SELECT d.name || '@' || p.pointer_name AS pointer, v.version_number, p.* FROM dataset_pointers p
    JOIN datasets d ON d.id = p.dataset_id JOIN dataset_versions v ON v.id = p.dataset_version_id
    WHERE p.is_tag OR p.pointer_name <> 'main' OR v.version_number <> (
        SELECT max(n.version_number) FROM dataset_versions n WHERE n.dataset_id = p.dataset_id)
    ORDER BY d.name, p.pointer_name
"""
RETIRED = """
    SELECT d.name || '@' || r.pointer_name AS pointer, r.* FROM retired_tags r JOIN datasets d ON d.id = r.dataset_id
    ORDER BY d.name, r.pointer_name
"""


def upgrade() -> None:
    op.create_table(
        "dataset_pointers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "dataset_id",
            sa.Integer,
            sa.ForeignKey("datasets.id", name="fk_dataset_pointers_dataset_id"),
            nullable=False,
        ),
        sa.Column("pointer_name", sa.String(255), nullable=False),
        sa.Column(
            "dataset_version_id",
            sa.Integer,
            sa.ForeignKey("dataset_versions.id", name="fk_dataset_pointers_dataset_version_id"),
            nullable=False,
        ),
        sa.Column("is_tag", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.Column("updated_at", sa.DateTime, nullable=False, server_default=NOW),
        # Where a registry-wide branch started in this dataset (our addition).
        sa.Column(
            "base_version_id",
            sa.Integer,
            sa.ForeignKey("dataset_versions.id", name="fk_dataset_pointers_base_version_id"),
        ),
        sa.UniqueConstraint("dataset_id", "pointer_name", name="uq_dataset_pointers_dataset_id_pointer_name"),
        sa.PrimaryKeyConstraint("id", name="pk_dataset_pointers"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_pointers_dataset", "dataset_pointers", ["dataset_id"])
    op.create_index("idx_dataset_pointers_dataset_version_id", "dataset_pointers", ["dataset_version_id"])
    op.create_index("idx_dataset_pointers_base_version_id", "dataset_pointers", ["base_version_id"])
    op.create_index("idx_dataset_pointers_pointer_name", "dataset_pointers", ["pointer_name"])
    op.create_table(
        "retired_tags",
        sa.Column("dataset_id", sa.Integer, autoincrement=False),
        sa.Column("pointer_name", sa.String(255)),
        sa.PrimaryKeyConstraint("dataset_id", "pointer_name", name="pk_retired_tags"),
    )
    op.execute(
        """
        INSERT INTO dataset_pointers (dataset_id, pointer_name, dataset_version_id)
        SELECT v.dataset_id, 'main', v.id FROM dataset_versions v
        WHERE v.version_number = (SELECT max(n.version_number) FROM dataset_versions n WHERE n.dataset_id = v.dataset_id)
        """
    )
    create_tag_triggers()


def downgrade() -> None:
    lose(revision, "branches and tags beside a main at the newest version", POINTERS)
    lose(revision, "names of deleted tags, which must not be reused", RETIRED)
    drop_tag_triggers()
    op.drop_table("dataset_pointers")
    op.drop_table("retired_tags")


def create_tag_triggers() -> None:
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(statement)


def drop_tag_triggers() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for name in (
            "tags_do_not_move",
            "tags_are_not_overwritten",
            "tags_are_not_replaced",
            "tags_are_not_reused",
            "tags_retire",
        ):
            op.execute(f"DROP TRIGGER {name}")
    else:
        op.execute("DROP TRIGGER guard_tags ON dataset_pointers")
        op.execute("DROP TRIGGER guard_all_tags ON dataset_pointers")
        op.execute("DROP FUNCTION guard_tags()")
