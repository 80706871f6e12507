-- KuaiRand's official files -> exposures, as kuairand.py describes them.
-- DuckDB and Spark SQL both run this text; pipelines/engines/__init__.py says what it keeps to.
--
-- In:  log, users_file, videos_file: the CSV files as they are; prior: what users watched before the log, one row an
--          exposure (may be empty).
-- Out: exposures
--
-- An exposure that stands twice in the log, equal in every column, is one exposure. (Others are reported again with
-- another date or hourmin; they are kept, and counted in statistics.json.)
CREATE TABLE distinct_log AS SELECT DISTINCT * FROM log;

CREATE TABLE exposures AS
SELECT
    l.user_id,
    l.video_id,
    -- The log's own days. date follows the clock of the report: for 1% of the rows, around midnight, it is the day
    -- after that of time_ms. Features follow time_ms.
    CASE l.is_rand WHEN 1 THEN l.date || '_random' ELSE l.date END AS split,
    l.time_ms,
    -- Beijing time (UTC+8). Not hourmin: for a sixth of the rows it is later than time_ms, and these have longer
    -- plays, so it seems to be stamped when the feedback is reported.
    CAST(floor((l.time_ms + 28800000) % 86400000 / 3600000e0) AS BIGINT) AS hour,
    l.tab,

    -- Feedback: labels of this row, and of later rows' counters.
    l.is_click AS click,
    l.long_view,
    l.is_like AS "like",
    l.is_profile_enter AS profile_enter,
    l.is_comment AS comment,
    l.is_follow AS follow,
    l.is_forward AS forward,
    l.is_hate AS hate,
    l.play_time_ms / 1000e0 AS play_s,

    -- The video, as it is known before it is shown.
    l.duration_ms / 1000e0 AS duration_s,
    coalesce(v.author_id, -1) AS author_id,
    coalesce(CAST(v.author_id AS STRING), '') AS author,
    coalesce(v.video_type, '') AS video_type,
    coalesce(v.upload_type, '') AS upload_type,
    coalesce(CAST(v.music_type AS BIGINT), -1) AS music_type,
    coalesce(v.server_height / nullif(v.server_width, 0), 0) AS aspect_ratio,
    -- Upload dates are Beijing dates (UTC+8).
    greatest(coalesce((l.time_ms + 28800000) / 86400000e0 - unix_date(v.upload_dt), 0), 0) AS video_age_days,
    split(v.tag, ',') AS tags,
    coalesce(split_part(v.tag, ',', 1), '') AS topic,

    -- The user.
    coalesce(u.user_active_degree, '') AS user_active_degree,
    coalesce(u.follow_user_num_range, '') AS follow_user_num_range,
    coalesce(u.fans_user_num_range, '') AS fans_user_num_range,
    coalesce(u.friend_user_num_range, '') AS friend_user_num_range,
    coalesce(u.register_days_range, '') AS register_days_range,
    coalesce(u.follow_user_num, 0) AS follow_user_num,
    coalesce(u.fans_user_num, 0) AS fans_user_num,
    coalesce(u.friend_user_num, 0) AS friend_user_num,
    coalesce(u.register_days, 0) AS register_days,
    coalesce(u.is_live_streamer, -1) AS is_live_streamer,
    coalesce(u.is_video_author, -1) AS is_video_author,
    coalesce(CAST(u.onehot_feat0 AS BIGINT), -1) AS onehot_feat0,
    coalesce(CAST(u.onehot_feat1 AS BIGINT), -1) AS onehot_feat1,
    coalesce(CAST(u.onehot_feat2 AS BIGINT), -1) AS onehot_feat2,
    coalesce(CAST(u.onehot_feat3 AS BIGINT), -1) AS onehot_feat3,
    coalesce(CAST(u.onehot_feat4 AS BIGINT), -1) AS onehot_feat4,
    coalesce(CAST(u.onehot_feat5 AS BIGINT), -1) AS onehot_feat5,
    coalesce(CAST(u.onehot_feat6 AS BIGINT), -1) AS onehot_feat6,
    coalesce(CAST(u.onehot_feat7 AS BIGINT), -1) AS onehot_feat7,
    coalesce(CAST(u.onehot_feat8 AS BIGINT), -1) AS onehot_feat8,
    coalesce(CAST(u.onehot_feat9 AS BIGINT), -1) AS onehot_feat9,
    coalesce(CAST(u.onehot_feat10 AS BIGINT), -1) AS onehot_feat10,
    coalesce(CAST(u.onehot_feat11 AS BIGINT), -1) AS onehot_feat11,
    coalesce(CAST(u.onehot_feat12 AS BIGINT), -1) AS onehot_feat12,
    coalesce(CAST(u.onehot_feat13 AS BIGINT), -1) AS onehot_feat13,
    coalesce(CAST(u.onehot_feat14 AS BIGINT), -1) AS onehot_feat14,
    coalesce(CAST(u.onehot_feat15 AS BIGINT), -1) AS onehot_feat15,
    coalesce(CAST(u.onehot_feat16 AS BIGINT), -1) AS onehot_feat16,
    coalesce(CAST(u.onehot_feat17 AS BIGINT), -1) AS onehot_feat17
FROM distinct_log AS l
LEFT JOIN videos_file AS v ON v.video_id = l.video_id
LEFT JOIN users_file AS u ON u.user_id = l.user_id
UNION ALL
-- What a user watched before the log. A user's count only if they end before the user's first exposure here: with
-- the full set's earlier log files at hand they would stand twice. (Users without any exposure here still count for
-- their videos, so that nothing depends on whether an exposure is yet to come.)
SELECT
    p.user_id, p.video_id, NULL, p.time_ms, NULL, NULL,
    NULL, p.long_view, p."like", NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, coalesce(v.author_id, -1), NULL, NULL, NULL, NULL, NULL, NULL, NULL, coalesce(split_part(v.tag, ',', 1), ''),
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM prior AS p
LEFT JOIN (SELECT user_id, min(time_ms) AS first_ms FROM log GROUP BY user_id) AS f ON f.user_id = p.user_id
LEFT JOIN videos_file AS v ON v.video_id = p.video_id
WHERE f.first_ms IS NULL OR p.last_time_ms < f.first_ms;

DROP TABLE distinct_log;
