"""Opening a catalog: checking or upgrading its revision."""

from dataset_registry.catalog.engine import HEAD, Catalog
from dataset_registry.errors import StorageError


def make_ready(catalog: Catalog) -> None:
    """Make sure that a catalog has the newest revision: a SQLite catalog is created or upgraded in place.

    Raises `CatalogOutdated` for a PostgreSQL catalog, which is upgraded by an explicit command.
    """
    try:
        found = catalog.revision()
    except StorageError:
        if not catalog.give_spare():
            raise
        found = catalog.revision()
    if found == HEAD:
        return
    if not catalog.is_sqlite or (found is not None and found > HEAD):
        raise catalog.outdated(found)
    from dataset_registry.catalog.migrate import upgrade

    upgrade(catalog)
    catalog.keep_spare()
