"""The operations of the registry: plain functions over a catalog and a store, independent of Dagster and HTTP."""
