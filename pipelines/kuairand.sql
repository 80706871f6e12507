-- KuaiRand's official files -> exposures, the input of point_in_time.sql.
--
-- In:  log, users, videos: the CSV files as they are; prior: user_history_before_*.csv (may be empty)
-- Out: table exposures
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
    (l.time_ms // 3600000 + 8) % 24 AS hour,
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
    l.play_time_ms / 1000.0 AS play_s,

    -- The video, as it is known before it is shown.
    l.duration_ms / 1000.0 AS duration_s,
    coalesce(v.author_id, -1) AS author_id,
    coalesce(CAST(v.author_id AS VARCHAR), '') AS author,
    coalesce(v.video_type, '') AS video_type,
    coalesce(v.upload_type, '') AS upload_type,
    coalesce(CAST(v.music_type AS BIGINT), -1) AS music_type,
    coalesce(v.server_height / nullif(v.server_width, 0), 0) AS aspect_ratio,
    -- Upload dates are Beijing dates (UTC+8).
    greatest(coalesce(l.time_ms / 86400000.0 + 8 / 24.0 - date_diff('day', DATE '1970-01-01', v.upload_dt), 0), 0)
        AS video_age_days,
    coalesce(string_split(v.tag, ','), []) AS tags,
    coalesce(string_split(v.tag, ',')[1], '') AS topic,

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
-- An exposure that stands twice, equal in every column, is one exposure. (Others are reported again with another
-- date or hourmin; they are kept, and counted in statistics.json.)
FROM (SELECT DISTINCT * FROM log) AS l
LEFT JOIN videos AS v USING (video_id)
LEFT JOIN users AS u USING (user_id);

-- What a user watched before the log, as older exposures: their times are not known, only that they end at
-- last_time_ms, so they stand one millisecond apart before it. Of their feedback only long views and likes are
-- known. A user's count only if they end before the user's first exposure here: with the full set's earlier log
-- files at hand they would stand twice. (Users without any exposure here still count for their videos, so that
-- nothing depends on whether an exposure is yet to come.) Approximations: the list does not say which showing of
-- a repeated video was viewed long or liked, so all of them count as such; and up to 50 events stand in one moment,
-- which the last-hour counters of a first exposure within the hour see.
INSERT INTO exposures BY NAME
WITH past AS (
    SELECT
        p.user_id,
        CAST(string_split(p.watch_seq, ' ') AS BIGINT[]) AS watched,
        CAST(string_split(nullif(p.long_watch_seq, ''), ' ') AS BIGINT[]) AS long_viewed,
        CAST(string_split(nullif(p.like_seq, ''), ' ') AS BIGINT[]) AS liked,
        p.last_time_ms
    FROM prior AS p
    LEFT JOIN (SELECT user_id, min(time_ms) AS first_ms FROM log GROUP BY user_id) AS f USING (user_id)
    WHERE p.watch_seq <> '' AND (f.first_ms IS NULL OR p.last_time_ms < f.first_ms)
),
events AS (
    SELECT *, unnest(watched) AS video_id, generate_subscripts(watched, 1) - len(watched) AS back
    FROM past
)
SELECT
    e.user_id,
    e.video_id,
    e.last_time_ms + e.back AS time_ms,
    coalesce(v.author_id, -1) AS author_id,
    coalesce(string_split(v.tag, ',')[1], '') AS topic,
    CAST(coalesce(list_contains(e.long_viewed, e.video_id), false) AS BIGINT) AS long_view,
    CAST(coalesce(list_contains(e.liked, e.video_id), false) AS BIGINT) AS "like"
FROM events AS e
LEFT JOIN videos AS v USING (video_id);
