"""Read options: formats that say how a file is read, and captures by another rule beside those that versions have.

A format may be longer than 50 characters from here on (SQLite never minded), and the same content of the same format can have
been captured by two rules: each version keeps the schema, and the statistics, that it was captured with.
"""

import sqlalchemy as sa
from alembic import op

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
LONG = "SELECT DISTINCT format FROM {table} WHERE length(format) > 50 ORDER BY format"
TWICE = """
    SELECT f.content_hash, c.format FROM file_captures c JOIN files f ON f.id = c.file_id
    GROUP BY f.content_hash, c.format HAVING count(*) > 1 ORDER BY f.content_hash
"""


def upgrade() -> None:
    alter_formats(sa.Text())
    with op.batch_alter_table("file_captures", recreate="always" if is_sqlite() else "auto") as batch:
        batch.drop_constraint("pk_file_captures", type_="primary")
        batch.create_primary_key("pk_file_captures", ["file_id", "format", "schema_id"])


def downgrade() -> None:
    connection = op.get_bind()
    long = {
        row[0]
        for table in ("manifest_entries", "file_captures")
        for row in connection.execute(sa.text(LONG.format(table=table)))
    }
    if long:
        refuse(f"{len(long)} formats with read options of more than 50 characters: {', '.join(sorted(long)[:5])}")
    if twice := connection.execute(sa.text(TWICE)).all():
        named = ", ".join(f"{content_hash[:12]} as {format}" for content_hash, format in twice[:10])
        refuse(f"{len(twice)} files that were captured by two rules: {named}")
    with op.batch_alter_table("file_captures", recreate="always" if is_sqlite() else "auto") as batch:
        batch.drop_constraint("pk_file_captures", type_="primary")
        batch.create_primary_key("pk_file_captures", ["file_id", "format"])
    alter_formats(sa.String(50))


def refuse(what: str) -> None:
    raise RuntimeError(
        f"Revision 0013 has no place for {what}. Stay at revision 0014, or delete the versions that have them first."
    )


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
