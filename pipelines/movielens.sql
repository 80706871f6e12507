-- MovieLens ratings -> table rows: one row per rating, with point-in-time features. DuckDB and Spark SQL.
--
-- In:  ratings: user_id, movie_id, rating, timestamp (seconds since 1970), each without nulls
--      users: user_id, gender, age, occupation, zip; movies: movie_id, release_year, genres (list, never null)
--      All that rated or are rated are there; other nulls are unknown values.
-- Out: rows: split and the columns that movielens.py lists
--
-- Strictly earlier: every window is ordered by timestamp and framed RANGE ... 1 PRECEDING, which leaves out the rating
-- itself and all ratings of the same second; users often give several in one. The base rate towards which rates are
-- smoothed comes from earlier days, so no window runs over all ratings at once.
CREATE TABLE rows AS
WITH dated AS (
    SELECT
        user_id,
        movie_id,
        rating,
        timestamp,
        CAST(floor(timestamp / 86400e0) AS INT) AS day,
        CASE WHEN rating >= 4 THEN 1 ELSE 0 END AS "like",
        CASE WHEN rating = 5 THEN 1 ELSE 0 END AS favourite,
        CASE WHEN rating <= 2 THEN 1 ELSE 0 END AS dislike
    FROM ratings
),
days AS (
    SELECT day, count(*) AS ratings, sum("like") AS likes
    FROM dated
    GROUP BY day
),
base AS (
    SELECT
        day,
        (coalesce(sum(likes) OVER earlier, 0) + 1) / (coalesce(sum(ratings) OVER earlier, 0) + 2e0) AS like_base
    FROM days
    WINDOW earlier AS (ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
counted AS (
    SELECT
        *,
        DATE '1970-01-01' + day AS date,
        count(*)                       OVER of_user AS user_ratings,
        coalesce(sum("like")           OVER of_user, 0) AS user_likes,
        -- Without an earlier rating as after ten days.
        coalesce(timestamp - max(timestamp) OVER of_user, 864000) AS user_idle_s,
        count(*)                       OVER of_movie AS movie_ratings,
        coalesce(sum("like")           OVER of_movie, 0) AS movie_likes
    FROM dated
    WINDOW
        of_user AS (PARTITION BY user_id ORDER BY timestamp RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_movie AS (PARTITION BY movie_id ORDER BY timestamp RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT
    -- Months, UTC.
    CAST(year(c.date) * 100 + month(c.date) AS STRING) AS split,
    c.timestamp,
    c.user_id,
    c.movie_id,
    c.rating,
    c."like",
    c.favourite,
    c.dislike,

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
    c.user_ratings,
    (c.user_likes + 10 * b.like_base) / (c.user_ratings + 10e0) AS user_like_rate,
    c.user_idle_s,

    -- The movie.
    coalesce(m.release_year, -1) AS release_year,
    m.genres,
    c.movie_ratings,
    (c.movie_likes + 20 * b.like_base) / (c.movie_ratings + 20e0) AS movie_like_rate,

    -- The moment, UTC; weekday 0 is Monday (1970-01-01 was a Thursday).
    CAST(floor(c.timestamp % 86400 / 3600e0) AS INT) AS hour,
    (c.day + 3) % 7 AS weekday
FROM counted AS c
JOIN base AS b ON b.day = c.day
JOIN users AS u ON u.user_id = c.user_id
JOIN movies AS m ON m.movie_id = c.movie_id;
