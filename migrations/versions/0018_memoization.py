"""What a production was computed from besides its inputs, so that a run which would compute the same finds it."""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import lose

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("productions", sa.Column("memo_digest", sa.CHAR(64)))
    op.create_index("idx_productions_memo_digest", "productions", ["memo_digest"])


LOST = "SELECT id, memo_digest FROM productions WHERE memo_digest IS NOT NULL ORDER BY id"


def downgrade() -> None:
    lose(revision, "digests of memoized productions", LOST)
    op.drop_index("idx_productions_memo_digest", "productions")
    op.drop_column("productions", "memo_digest")
