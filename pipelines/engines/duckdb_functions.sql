-- Functions of Spark SQL that the pipelines' SQL uses and DuckDB does not have, so that both run one text.
CREATE OR REPLACE MACRO unix_date(day) AS CAST(day - DATE '1970-01-01' AS BIGINT);
CREATE OR REPLACE MACRO array_size(list) AS len(list);
