"""Facts of files, and ids of grants that are not given again.

What `files.metadata` holds is computed from the content (where a table can be cut), so it is called `facts`. A file is shared by
all who committed the same bytes: what one of them says of it is not the others' to read, and belongs to the component's metadata.
"""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.execute("ALTER TABLE files RENAME COLUMN metadata TO facts")
    rebuild_permissions(autoincrement=True)


def downgrade() -> None:
    rebuild_permissions(autoincrement=False)
    op.execute("ALTER TABLE files RENAME COLUMN facts TO metadata")


def rebuild_permissions(*, autoincrement: bool) -> None:
    """SQLite gives the id of a deleted row again, unless its table says otherwise; PostgreSQL never does."""
    if op.get_bind().dialect.name == "sqlite":
        kept = {"sqlite_autoincrement": True} if autoincrement else {}
        with op.batch_alter_table("permissions", recreate="always", table_kwargs=kept):
            pass
