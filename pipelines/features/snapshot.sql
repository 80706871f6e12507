-- A day is over: move its exposures, but for those of the last 24 hours, into the counters.
-- DuckDB and Spark SQL both run this text; pipelines/engines/__init__.py says what it keeps to.
--
-- In:  today, and the counters, as in point_in_time.sql.
-- Out: new_boundary: from_ms: exposures before it are counted, later ones are in new_tail. It is a full hour, because base
--          rates count by hours.
--      new_tail: the exposures of the last 24 hours, one by one: a later day may hold exposures that are as old.
--      new_users, new_videos, new_authors, new_user_tabs, new_user_topics, new_user_authors, new_user_videos, new_totals:
--          the counters.
--      new_recent: of each user the last 20 exposures before the boundary, and the last 20 long viewed, and liked.
CREATE TABLE new_boundary AS
SELECT max(time_ms) - 86400000 - (max(time_ms) - 86400000) % 3600000 AS from_ms
FROM today;

CREATE TABLE passed AS
SELECT
    t.user_id, t.video_id, t.author_id, t.topic, t.tab, t.time_ms, t.click, t.long_view, t."like", t.profile_enter,
    CASE WHEN play_s IS NOT NULL THEN CAST(floor(least(play_s, duration_s) * 1000e0 + 0.5e0) AS BIGINT) END AS play_ms,
    CASE WHEN play_s IS NOT NULL THEN CAST(floor(duration_s * 1000e0 + 0.5e0) AS BIGINT) END AS offered_ms
FROM today AS t
CROSS JOIN new_boundary AS b
WHERE t.time_ms < b.from_ms;

CREATE TABLE new_tail AS
SELECT t.*
FROM today AS t
CROSS JOIN new_boundary AS b
WHERE t.time_ms >= b.from_ms;

CREATE TABLE new_totals AS
SELECT
    CAST(sum(impressions) AS BIGINT) AS impressions, CAST(sum(views) AS BIGINT) AS views,
    CAST(sum(clicks) AS BIGINT) AS clicks, CAST(sum(long_views) AS BIGINT) AS long_views,
    CAST(sum(likes) AS BIGINT) AS likes, CAST(sum(profile_enters) AS BIGINT) AS profile_enters
FROM (
    SELECT impressions, views, clicks, long_views, likes, profile_enters FROM totals
    UNION ALL
    SELECT count(click), count(long_view), coalesce(sum(click), 0), coalesce(sum(long_view), 0),
        coalesce(sum("like"), 0), coalesce(sum(profile_enter), 0)
    FROM passed
) AS parts;

CREATE TABLE new_users AS
SELECT
    user_id, CAST(sum(impressions) AS BIGINT) AS impressions, CAST(sum(logged) AS BIGINT) AS logged,
    CAST(sum(clicks) AS BIGINT) AS clicks, CAST(sum(long_views) AS BIGINT) AS long_views,
    CAST(sum(likes) AS BIGINT) AS likes, CAST(sum(profile_enters) AS BIGINT) AS profile_enters,
    CAST(sum(play_ms) AS BIGINT) AS play_ms, CAST(sum(offered_ms) AS BIGINT) AS offered_ms, max(last_ms) AS last_ms
FROM (
    SELECT user_id, impressions, logged, clicks, long_views, likes, profile_enters, play_ms, offered_ms, last_ms
    FROM users
    UNION ALL
    SELECT user_id, count(*), count(click), coalesce(sum(click), 0), sum(long_view), sum("like"),
        coalesce(sum(profile_enter), 0), coalesce(sum(play_ms), 0), coalesce(sum(offered_ms), 0), max(time_ms)
    FROM passed
    GROUP BY user_id
) AS parts
GROUP BY user_id;

CREATE TABLE new_videos AS
SELECT
    video_id, CAST(sum(impressions) AS BIGINT) AS impressions, CAST(sum(logged) AS BIGINT) AS logged,
    CAST(sum(clicks) AS BIGINT) AS clicks, CAST(sum(long_views) AS BIGINT) AS long_views,
    CAST(sum(likes) AS BIGINT) AS likes, CAST(sum(profile_enters) AS BIGINT) AS profile_enters,
    CAST(sum(play_ms) AS BIGINT) AS play_ms, CAST(sum(offered_ms) AS BIGINT) AS offered_ms
FROM (
    SELECT video_id, impressions, logged, clicks, long_views, likes, profile_enters, play_ms, offered_ms FROM videos
    UNION ALL
    SELECT video_id, count(*), count(click), coalesce(sum(click), 0), sum(long_view), sum("like"),
        coalesce(sum(profile_enter), 0), coalesce(sum(play_ms), 0), coalesce(sum(offered_ms), 0)
    FROM passed
    GROUP BY video_id
) AS parts
GROUP BY video_id;

CREATE TABLE new_authors AS
SELECT
    author_id, CAST(sum(impressions) AS BIGINT) AS impressions, CAST(sum(logged) AS BIGINT) AS logged,
    CAST(sum(clicks) AS BIGINT) AS clicks, CAST(sum(long_views) AS BIGINT) AS long_views,
    CAST(sum(likes) AS BIGINT) AS likes, CAST(sum(profile_enters) AS BIGINT) AS profile_enters
FROM (
    SELECT author_id, impressions, logged, clicks, long_views, likes, profile_enters FROM authors
    UNION ALL
    SELECT author_id, count(*), count(click), coalesce(sum(click), 0), sum(long_view), sum("like"),
        coalesce(sum(profile_enter), 0)
    FROM passed
    GROUP BY author_id
) AS parts
GROUP BY author_id;

CREATE TABLE new_user_tabs AS
SELECT
    user_id, tab, CAST(sum(logged) AS BIGINT) AS logged, CAST(sum(clicks) AS BIGINT) AS clicks,
    CAST(sum(long_views) AS BIGINT) AS long_views, CAST(sum(likes) AS BIGINT) AS likes
FROM (
    SELECT user_id, tab, logged, clicks, long_views, likes FROM user_tabs
    UNION ALL
    SELECT user_id, tab, count(click), coalesce(sum(click), 0), sum(long_view), sum("like")
    FROM passed
    WHERE tab IS NOT NULL
    GROUP BY user_id, tab
) AS parts
GROUP BY user_id, tab;

CREATE TABLE new_user_topics AS
SELECT
    user_id, topic, CAST(sum(impressions) AS BIGINT) AS impressions, CAST(sum(logged) AS BIGINT) AS logged,
    CAST(sum(clicks) AS BIGINT) AS clicks, CAST(sum(long_views) AS BIGINT) AS long_views,
    CAST(sum(likes) AS BIGINT) AS likes
FROM (
    SELECT user_id, topic, impressions, logged, clicks, long_views, likes FROM user_topics
    UNION ALL
    SELECT user_id, topic, count(*), count(click), coalesce(sum(click), 0), sum(long_view), sum("like")
    FROM passed
    GROUP BY user_id, topic
) AS parts
GROUP BY user_id, topic;

CREATE TABLE new_user_authors AS
SELECT user_id, author_id, CAST(sum(impressions) AS BIGINT) AS impressions, CAST(sum(long_views) AS BIGINT) AS long_views
FROM (
    SELECT user_id, author_id, impressions, long_views FROM user_authors
    UNION ALL
    SELECT user_id, author_id, count(*), sum(long_view) FROM passed GROUP BY user_id, author_id
) AS parts
GROUP BY user_id, author_id;

CREATE TABLE new_user_videos AS
SELECT user_id, video_id, CAST(sum(impressions) AS BIGINT) AS impressions
FROM (
    SELECT user_id, video_id, impressions FROM user_videos
    UNION ALL
    SELECT user_id, video_id, count(*) FROM passed GROUP BY user_id, video_id
) AS parts
GROUP BY user_id, video_id;

-- Only users who have new ones change.
CREATE TABLE new_recent AS
SELECT r.user_id, r.time_ms, r.video_id, r.long_view, r."like"
FROM recent AS r
LEFT JOIN (SELECT DISTINCT user_id FROM passed) AS p ON p.user_id = r.user_id
WHERE p.user_id IS NULL
UNION ALL
SELECT user_id, time_ms, video_id, long_view, "like"
FROM (
    SELECT
        user_id, time_ms, video_id, long_view, "like",
        row_number() OVER (PARTITION BY user_id ORDER BY time_ms DESC, video_id DESC) AS place,
        row_number() OVER (PARTITION BY user_id, long_view ORDER BY time_ms DESC, video_id DESC) AS long_view_place,
        row_number() OVER (PARTITION BY user_id, "like" ORDER BY time_ms DESC, video_id DESC) AS like_place
    FROM (
        SELECT r.user_id, r.time_ms, r.video_id, r.long_view, r."like"
        FROM recent AS r
        JOIN (SELECT DISTINCT user_id FROM passed) AS p ON p.user_id = r.user_id
        UNION ALL
        SELECT user_id, time_ms, video_id, long_view, "like" FROM passed
    ) AS parts
) AS placed
WHERE place <= 20 OR (long_view = 1 AND long_view_place <= 20) OR ("like" = 1 AND like_place <= 20);

DROP TABLE passed;
