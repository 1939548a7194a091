"""Versions in the table formats of other engines (Iceberg, Delta, DuckLake): their metadata, over the stored Parquet files."""
