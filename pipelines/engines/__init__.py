"""What runs the pipelines' SQL: DuckDB in this process, or Spark (the extra `spark`, needs Java).

Both run the same text. It stays within what they share: tables made by `CREATE TABLE name AS`, functions by Spark's
names (`duckdb_functions.sql` defines those that DuckDB lacks), integers that are divided only as doubles ("1000e0"),
sums of integers only, so that no order of summation can change a result.
"""

from pipelines.engines.connection import ENGINES, connect
from pipelines.engines.engine import Engine, literal, quoted
from pipelines.engines.errors import brief

__all__ = ["ENGINES", "Engine", "brief", "connect", "literal", "quoted"]
