"""Trust: the name of a deleted tag is refused to branches, too."""

from alembic import op

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


def downgrade() -> None:
    guard_names("NEW.is_tag AND")


def guard_names(condition: str) -> None:
    """Refuse the names of deleted tags to pointers of this kind."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER tags_are_not_reused")
        op.execute(SQLITE.format(condition=condition))
    else:
        op.execute(POSTGRESQL.format(condition=condition))
