"""How Alembic reaches the catalog: over the connection that `dataset_registry.catalog.migrate` opened."""

from alembic import context

from dataset_registry.catalog.engine import REVISION_TABLE
from dataset_registry.catalog.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=REVISION_TABLE,
    compare_type=True,
    render_as_batch=True,
)
context.run_migrations()
