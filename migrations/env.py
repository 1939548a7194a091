"""How Alembic reaches the catalog: over the connection that `dataset_registry.catalog.migrate` opened; or, for `alembic` itself,
over one to the catalog of `-x catalog=URL` or the environment (see alembic.ini)."""

import os
from contextlib import closing

from alembic import context
from sqlalchemy import Connection

from dataset_registry.catalog import Catalog, migrate
from dataset_registry.catalog.engine import REVISION_TABLE
from dataset_registry.catalog.tables import metadata
from dataset_registry.errors import InputError


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=REVISION_TABLE,
        compare_type=True,
        render_as_batch=True,
    )
    context.run_migrations()


if context.is_offline_mode():
    raise InputError(
        "Revisions read rows, so there is no script without a database. Print the statements for yours with: dataset-registry db "
        "upgrade --sql"
    )
if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    url = context.get_x_argument(as_dictionary=True).get("catalog") or os.environ.get("DATASET_REGISTRY_CATALOG")
    if not url:
        raise InputError("No catalog given: pass -x catalog=URL, or set DATASET_REGISTRY_CATALOG.")
    with closing(Catalog(url)) as catalog, migrate.connected(catalog) as connection:
        run(connection)
