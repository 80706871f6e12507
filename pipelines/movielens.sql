-- MovieLens ratings -> exposures: one row per rating, with what is known of the user and the movie. DuckDB and Spark SQL.
--
-- In:  ratings: user_id, movie_id, rating, timestamp (seconds since 1970), each without nulls
--      users: user_id, gender, age, occupation, zip; movies: movie_id, release_year, genres (list, never null)
--      All that rated or are rated are there; other nulls are unknown values.
-- Out: exposures: split and the columns that movielens.py lists, but for those that are computed
CREATE TABLE exposures AS
WITH dated AS (
    SELECT *, DATE '1970-01-01' + CAST(floor(timestamp / 86400e0) AS INT) AS date FROM ratings
)
SELECT
    -- Months, UTC.
    CAST(year(r.date) * 100 + month(r.date) AS STRING) AS split,
    r.timestamp * 1000 AS time_ms,
    r.user_id,
    r.movie_id,
    r.rating,
    CASE WHEN r.rating >= 4 THEN 1 ELSE 0 END AS "like",
    CASE WHEN r.rating = 5 THEN 1 ELSE 0 END AS favourite,
    CASE WHEN r.rating <= 2 THEN 1 ELSE 0 END AS dislike,

    -- The user. Ages by the code of MovieLens-1M, the lower end of a range (1: under 18), which it leaves as it is.
    coalesce(u.gender, '') AS gender,
    CASE
        WHEN u.age >= 56 THEN 56
        WHEN u.age >= 50 THEN 50
        WHEN u.age >= 45 THEN 45
        WHEN u.age >= 35 THEN 35
        WHEN u.age >= 25 THEN 25
        WHEN u.age >= 18 THEN 18
        WHEN u.age >= 0 THEN 1
        ELSE -1
    END AS age,
    coalesce(u.occupation, '') AS occupation,
    -- The first digit is a region of the US; whole codes are all but as many as users.
    coalesce(substring(u.zip, 1, 1), '') AS zip_region,

    -- The movie.
    coalesce(m.release_year, -1) AS release_year,
    m.genres,

    -- The moment, UTC; weekday 0 is Monday (1970-01-01 was a Thursday).
    CAST(floor(r.timestamp % 86400 / 3600e0) AS INT) AS hour,
    (CAST(floor(r.timestamp / 86400e0) AS INT) + 3) % 7 AS weekday
FROM dated AS r
JOIN users AS u ON u.user_id = r.user_id
JOIN movies AS m ON m.movie_id = r.movie_id;
