"""File formats, schemas and tables. The only user of DuckDB and Arrow; independent of datasets and stores."""
