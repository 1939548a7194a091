"""The database: rows in, model values out. The only user of SQLAlchemy; handles digests, not bytes."""

from dataset_registry.catalog.engine import Catalog
from dataset_registry.catalog.rows import Transaction
from dataset_registry.catalog.sqlite import sqlite_url

__all__ = ["Catalog", "Transaction", "sqlite_url"]
