-- Any log -> exposures; DuckDB only.
--
-- In:  typed: the schema's columns that the log has, cast to their types; time_ms; split; broken: the first rule that the
--          row breaks, or null
-- Out: exposures: the rows that break none, each once

CREATE TABLE exposures AS
SELECT DISTINCT * EXCLUDE (broken)
FROM typed
WHERE broken IS NULL;
