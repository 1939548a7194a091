"""Users with roles, groups, tokens, grants on name prefixes, protected branches, and the audit log.

A user without a role is a name that signed something, as all users were so far. `permissions` stays as it is: a group is a
row of `users`, a prefix has a row of its own. The audit log is append-only by trigger.
"""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import lose

revision = "0012"
down_revision = "0011"

NOW = sa.text("CURRENT_TIMESTAMP")
_APPEND_ONLY = ("audit_log", "audit_seals")


def upgrade() -> None:
    op.add_column("users", sa.Column("kind", sa.String(20)))
    op.add_column("users", sa.Column("role", sa.String(20)))
    op.add_column("users", sa.Column("disabled_at", sa.DateTime))
    op.create_index("idx_permissions_user_id", "permissions", ["user_id"])
    op.create_table(
        "group_members",
        sa.Column("group_id", sa.Integer, sa.ForeignKey("users.id", name="fk_group_members_group_id")),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", name="fk_group_members_user_id")),
        sa.PrimaryKeyConstraint("group_id", "user_id", name="pk_group_members"),
    )
    op.create_index("idx_group_members_user_id", "group_members", ["user_id"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", name="fk_tokens_user_id"), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("token_hash", sa.CHAR(64), nullable=False),
        sa.Column("permission_type", sa.String(20), nullable=False),
        sa.Column("prefix", sa.String(255), nullable=False, server_default=sa.text("''")),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.Column("expires_at", sa.DateTime),
        sa.Column("revoked_at", sa.DateTime),
        sa.Column("last_used_at", sa.DateTime),
        sa.Column("made_with", sa.Integer, sa.ForeignKey("tokens.id", name="fk_tokens_made_with")),
        sa.UniqueConstraint("token_hash", name="uq_tokens_token_hash"),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_tokens_user_id", "tokens", ["user_id"])
    op.create_index("idx_tokens_made_with", "tokens", ["made_with"])
    op.create_table(
        "name_prefixes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("prefix", sa.String(255), nullable=False),
        sa.UniqueConstraint("prefix", name="uq_name_prefixes_prefix"),
        sa.PrimaryKeyConstraint("id", name="pk_name_prefixes"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "protected_branches",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("resource_type", sa.String(50), nullable=False),
        sa.Column("resource_id", sa.Integer, nullable=False),
        sa.Column("branch_name", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.Column(
            "created_by", sa.Integer, sa.ForeignKey("users.id", name="fk_protected_branches_created_by"), nullable=False
        ),
        sa.UniqueConstraint("resource_type", "resource_id", "branch_name", name="uq_protected_branches_branch"),
        sa.PrimaryKeyConstraint("id", name="pk_protected_branches"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "protected_branch_users",
        sa.Column(
            "protection_id",
            sa.Integer,
            sa.ForeignKey("protected_branches.id", name="fk_protected_branch_users_protection_id"),
        ),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", name="fk_protected_branch_users_user_id")),
        sa.PrimaryKeyConstraint("protection_id", "user_id", name="pk_protected_branch_users"),
    )
    op.create_index("idx_protected_branch_users_user_id", "protected_branch_users", ["user_id"])
    op.create_table(
        "answered_requests",
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", name="fk_answered_requests_user_id")),
        sa.Column("request_key", sa.String(255)),
        sa.Column("fingerprint", sa.CHAR(64), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("user_id", "request_key", name="pk_answered_requests"),
    )
    if not sa.inspect(op.get_bind()).has_table("audit_log"):
        _create_audit_log()


LOST = {
    "users with a role, and groups": "SELECT username, kind, role, disabled_at FROM users "
    "WHERE kind IS NOT NULL OR role IS NOT NULL OR disabled_at IS NOT NULL ORDER BY id",
    "members of groups": "SELECT g.username AS group_name, u.username FROM group_members m "
    "JOIN users g ON g.id = m.group_id JOIN users u ON u.id = m.user_id ORDER BY g.username, u.username",
    "grants on prefixes or to groups": "SELECT u.username, n.prefix, p.* FROM permissions p "
    "LEFT JOIN users u ON u.id = p.user_id LEFT JOIN name_prefixes n ON n.id = p.resource_id AND p.resource_type = 'prefix' "
    "WHERE p.resource_type = 'prefix' OR u.kind = 'group' ORDER BY p.id",
    "tokens, which open nothing any longer": "SELECT u.username, t.* FROM tokens t "
    "JOIN users u ON u.id = t.user_id ORDER BY t.id",
    "protected branches": "SELECT p.branch_name, n.prefix, p.* FROM protected_branches p "
    "LEFT JOIN name_prefixes n ON n.id = p.resource_id AND p.resource_type = 'prefix' ORDER BY p.id",
    "those who may move protected branches": "SELECT u.username, p.* FROM protected_branch_users p "
    "JOIN users u ON u.id = p.user_id ORDER BY p.protection_id, p.user_id",
    "answers to requests that may be repeated": "SELECT a.request_key, a.* FROM answered_requests a "
    "ORDER BY a.created_at",
}


def downgrade() -> None:
    connection = op.get_bind()
    for what, query in LOST.items():
        lose(revision, what, query)
    op.execute(
        "DELETE FROM permissions WHERE resource_type = 'prefix' OR user_id IN (SELECT id FROM users WHERE kind = 'group')"
    )
    if not connection.execute(sa.text("SELECT count(*) FROM audit_log")).scalar():
        _drop_audit_log()  # a log that says something stays where it is, for when the catalog comes back
    for table in (
        "answered_requests",
        "protected_branch_users",
        "protected_branches",
        "name_prefixes",
        "tokens",
        "group_members",
    ):
        op.drop_table(table)
    op.drop_index("idx_permissions_user_id", "permissions")
    for column in ("disabled_at", "role", "kind"):
        op.drop_column("users", column)


def _create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("door", sa.String(20), nullable=False),
        sa.Column("token_id", sa.Integer),
        sa.Column("action", sa.String(50), nullable=False),
        sa.Column("dataset_id", sa.Integer),
        sa.Column("dataset_name", sa.String(255)),
        sa.Column("ref_name", sa.String(255)),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.Column("details", sa.Text),
        sa.Column("entry_hash", sa.CHAR(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_audit_log_dataset_id", "audit_log", ["dataset_id"])
    op.create_table(
        "audit_seals",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("first_id", sa.Integer, nullable=False),
        sa.Column("last_id", sa.Integer, nullable=False),
        sa.Column("entry_count", sa.Integer, nullable=False),
        sa.Column("digest", sa.CHAR(64), nullable=False),
        sa.Column("sealed_at", sa.DateTime, nullable=False, server_default=NOW),
        sa.UniqueConstraint("first_id", name="uq_audit_seals_first_id"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_seals"),
        sqlite_autoincrement=True,
    )
    if op.get_bind().dialect.name == "sqlite":
        for table in _APPEND_ONLY:
            refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            op.execute(f"CREATE TRIGGER {table}_update BEFORE UPDATE ON {table} {refuse}")
            op.execute(f"CREATE TRIGGER {table}_delete BEFORE DELETE ON {table} {refuse}")
            # INSERT OR REPLACE would get around the other two, by any unique column.
            same = "id = NEW.id OR first_id = NEW.first_id" if table == "audit_seals" else "id = NEW.id"
            there = f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})"
            op.execute(f"CREATE TRIGGER {table}_replace BEFORE INSERT ON {table} {there} {refuse}")
        return
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; END $$
        """
    )
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_change BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(f"CREATE TRIGGER {table}_truncate BEFORE TRUNCATE ON {table} EXECUTE FUNCTION refuse_change()")
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_change")
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_truncate")


def _drop_audit_log() -> None:
    for table in _APPEND_ONLY:
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change()")
