"""Read options: formats that say how a file is read, and captures by another rule beside those that versions have.

A format may be longer than 50 characters from here on (SQLite never minded), and the same content of the same format can have
been captured by two rules: each version keeps the schema, and the statistics, that it was captured with.
"""

import sqlalchemy as sa
from alembic import op

from dataset_registry.catalog.losses import discard_versions, lose

revision = "0014"
down_revision = "0013"

DEPENDENT_VIEWS = {
    "dataset_version_files": """
        SELECT v.version_id, e.file_id, e.component_type, e.component_name, e.component_index, e.metadata,
               e.schema_id, e.format
        FROM version_index_pages v
        JOIN manifest_index_entries i ON i.index_page_id = v.index_page_id
        JOIN manifest_entries e ON e.page_id = i.page_id
    """,
    "dataset_schema_versions": """
        SELECT d.id, d.dataset_version_id, s.schema_json, d.created_at
        FROM (
            SELECT DISTINCT s.id, f.version_id AS dataset_version_id, s.digest, s.created_at
            FROM dataset_version_files f JOIN schemas s ON s.id = f.schema_id
        ) d JOIN schemas s ON s.id = d.id
    """,
}
VERSIONS = """
    SELECT d.name || '@v' || v.version_number AS version, v.*, c.component_name, c.component_index, c.format
    FROM dataset_version_files c
    JOIN dataset_versions v ON v.id = c.version_id JOIN datasets d ON d.id = v.dataset_id
    WHERE {condition} ORDER BY d.name, v.version_number, c.component_name
"""
LONG = "length(c.format) > 50"
TWICE = """
    EXISTS (
        SELECT 1 FROM file_captures x WHERE x.file_id = c.file_id AND x.format = c.format
        GROUP BY x.file_id, x.format HAVING count(*) > 1
    )
"""


def upgrade() -> None:
    alter_formats(sa.Text())
    with op.batch_alter_table("file_captures", recreate="always" if is_sqlite() else "auto") as batch:
        batch.drop_constraint("pk_file_captures", type_="primary")
        batch.create_primary_key("pk_file_captures", ["file_id", "format", "schema_id"])


def downgrade() -> None:
    for what, condition in (
        ("formats of more than 50 characters, with their read options", LONG),
        ("two captures", TWICE),
    ):
        lose(revision, f"versions whose components have {what}", VERSIONS.format(condition=condition))
        discard_versions(revision, f"v.id IN (SELECT c.version_id FROM dataset_version_files c WHERE {condition})")
    op.execute(
        "DELETE FROM file_captures WHERE schema_id > (SELECT min(x.schema_id) FROM file_captures x "
        "WHERE x.file_id = file_captures.file_id AND x.format = file_captures.format)"
    )
    op.execute("DELETE FROM file_captures WHERE length(format) > 50")  # of files that no version has
    with op.batch_alter_table("file_captures", recreate="always" if is_sqlite() else "auto") as batch:
        batch.drop_constraint("pk_file_captures", type_="primary")
        batch.create_primary_key("pk_file_captures", ["file_id", "format"])
    alter_formats(sa.String(50))


def is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def alter_formats(type: sa.types.TypeEngine[str]) -> None:
    """Give formats another type; SQLite keeps any text in the one that they have."""
    if is_sqlite():
        return
    for view in reversed(DEPENDENT_VIEWS):
        op.execute(f"DROP VIEW {view}")
    for table in ("manifest_entries", "file_captures"):
        op.alter_column(table, "format", type_=type)
    for view, query in DEPENDENT_VIEWS.items():
        op.execute(f"CREATE VIEW {view} AS {query}")
