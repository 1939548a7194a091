"""Makes TPC-H's lineitem with the dbgen of DuckDB, in the environment that has it: `python tpch.py <scale> <target>`.

Decimals become float64, 5 % of the comments and 2 % of the taxes null, and a timestamp with microseconds is a 17th column:
data as pipelines have it.
"""

import sys
from pathlib import Path

import duckdb
import duckdb_extension_tpch
import pyarrow.parquet as pq

QUERY = """
SELECT
    * REPLACE (
        l_quantity::DOUBLE AS l_quantity,
        l_extendedprice::DOUBLE AS l_extendedprice,
        l_discount::DOUBLE AS l_discount,
        CASE WHEN hash(l_orderkey, l_linenumber, 1) % 50 = 0 THEN NULL ELSE l_tax::DOUBLE END AS l_tax,
        CASE WHEN hash(l_orderkey, l_linenumber, 2) % 20 = 0 THEN NULL ELSE l_comment END AS l_comment
    ),
    l_shipdate::TIMESTAMP + to_microseconds((hash(l_orderkey, l_linenumber, 3) % 86400000000)::BIGINT) AS l_shipped_at
FROM lineitem
ORDER BY l_orderkey, l_linenumber
"""


def main(scale: float, target: str) -> None:
    """Write one Parquet file as pyarrow does when nothing is asked of it."""
    extension = next(Path(duckdb_extension_tpch.__file__).parent.rglob("*.duckdb_extension"))
    connection = duckdb.connect()
    connection.execute(f"LOAD '{extension}'")
    connection.execute(f"CALL dbgen(sf={scale})")
    pq.write_table(connection.sql(QUERY).to_arrow_table(), target)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
