"""The engines that run the pipelines' SQL: DuckDB in this process, or Spark (the extra `spark`, which needs Java).

Both run the same SQL, which uses only what they share: tables created by `CREATE TABLE name AS`, functions under
Spark's names (`duckdb_functions.sql` defines those that DuckDB lacks), division of integers only as doubles ("1000e0"),
and sums of integers only, so that no order of summation can change a result.
"""

from pipelines.engines.connection import ENGINES, connect
from pipelines.engines.engine import Engine, literal, quoted
from pipelines.engines.errors import brief

__all__ = ["ENGINES", "Engine", "brief", "connect", "literal", "quoted"]
