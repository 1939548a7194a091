"""What is inside the bytes: formats, schemas, tables. The only home of DuckDB and Arrow; knows no dataset and no store."""
