"""What the registry does, one verb a module: plain functions over a catalog and a store. Knows no Dagster and no web."""
