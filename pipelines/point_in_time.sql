-- exposures -> table rows: one row per exposure of the log, with point-in-time features.
--
-- In:  exposures: split, time_ms, user_id, video_id, author_id, topic, tab, duration_s, play_s, and the feedback
--          click, long_view, "like", profile_enter (0 or 1); further columns pass through.
--          Rows whose split is NULL are older exposures: they feed counters and histories and are not kept; their
--          click, profile_enter and play_s are NULL where unknown. long_view and "like" are known for every row.
-- Out: rows: exposures.* and the columns that point_in_time.py lists.
--
-- Strictly earlier: every window is ordered by time_ms and framed RANGE … 1 PRECEDING, which leaves out the row
-- itself and all rows of the same millisecond. The base rates towards which rates are smoothed come from earlier
-- hours, so no window runs over the whole log at once. Nothing looks at a whole day.
CREATE TABLE rows AS
WITH hours AS (
    SELECT
        time_ms // 3600000 AS time_hour,
        count(click) AS impressions,
        count(long_view) AS views,
        sum(click) AS clicks,
        sum(long_view) AS long_views,
        sum("like") AS likes,
        sum(profile_enter) AS profile_enters
    FROM exposures
    GROUP BY time_hour
),
base AS (
    SELECT
        time_hour,
        (coalesce(sum(clicks) OVER earlier, 0) + 1) / (coalesce(sum(impressions) OVER earlier, 0) + 2) AS click_base,
        (coalesce(sum(long_views) OVER earlier, 0) + 1) / (coalesce(sum(views) OVER earlier, 0) + 2) AS long_view_base,
        (coalesce(sum(likes) OVER earlier, 0) + 1) / (coalesce(sum(views) OVER earlier, 0) + 20) AS like_base,
        (coalesce(sum(profile_enters) OVER earlier, 0) + 1) / (coalesce(sum(impressions) OVER earlier, 0) + 20)
            AS profile_enter_base
    FROM hours
    WINDOW earlier AS (ORDER BY time_hour ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
-- A user's exposures of one millisecond as one entry, so that histories do not depend on the order of ties.
moments AS (
    SELECT
        user_id,
        time_ms,
        list(video_id ORDER BY video_id) AS watched,
        list(video_id ORDER BY video_id) FILTER (WHERE long_view = 1) AS long_viewed,
        list(video_id ORDER BY video_id) FILTER (WHERE "like" = 1) AS liked
    FROM exposures
    GROUP BY user_id, time_ms
),
histories AS (
    SELECT
        user_id,
        time_ms,
        list_reverse(coalesce(flatten(list(watched) OVER earlier)[-20:], [])) AS watched,
        list_reverse(coalesce(flatten(list(long_viewed) FILTER (WHERE long_viewed IS NOT NULL) OVER earlier)[-20:], []))
            AS long_viewed,
        list_reverse(coalesce(flatten(list(liked) FILTER (WHERE liked IS NOT NULL) OVER earlier)[-20:], [])) AS liked
    FROM moments
    WINDOW earlier AS (PARTITION BY user_id ORDER BY time_ms ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
counted AS (
    SELECT
        *,
        time_ms // 3600000 AS time_hour,

        count(*)                               OVER of_user AS user_impressions,
        count(click)                           OVER of_user AS user_logged,
        coalesce(sum(click)                    OVER of_user, 0) AS user_clicks,
        coalesce(sum(long_view)                OVER of_user, 0) AS user_long_views,
        coalesce(sum("like")                   OVER of_user, 0) AS user_likes,
        coalesce(sum(profile_enter)            OVER of_user, 0) AS user_profile_enters,
        coalesce(sum(least(play_s, duration_s)) OVER of_user, 0) AS user_play_s,
        coalesce(sum(CASE WHEN play_s IS NOT NULL THEN duration_s END) OVER of_user, 0) AS user_offered_s,
        coalesce(time_ms - max(time_ms)        OVER of_user, 864000000) / 1000.0 AS user_idle_s,
        count(*)                               OVER of_user_hour AS user_hour_impressions,
        coalesce(sum(long_view)                OVER of_user_hour, 0) AS user_hour_long_views,

        count(*)                               OVER of_video AS video_impressions,
        count(click)                           OVER of_video AS video_logged,
        coalesce(sum(click)                    OVER of_video, 0) AS video_clicks,
        coalesce(sum(long_view)                OVER of_video, 0) AS video_long_views,
        coalesce(sum("like")                   OVER of_video, 0) AS video_likes,
        coalesce(sum(profile_enter)            OVER of_video, 0) AS video_profile_enters,
        coalesce(sum(least(play_s, duration_s)) OVER of_video, 0) AS video_play_s,
        coalesce(sum(CASE WHEN play_s IS NOT NULL THEN duration_s END) OVER of_video, 0) AS video_offered_s,

        count(*)                               OVER of_author AS author_impressions,
        count(click)                           OVER of_author AS author_logged,
        coalesce(sum(click)                    OVER of_author, 0) AS author_clicks,
        coalesce(sum(long_view)                OVER of_author, 0) AS author_long_views,
        coalesce(sum("like")                   OVER of_author, 0) AS author_likes,
        coalesce(sum(profile_enter)            OVER of_author, 0) AS author_profile_enters,

        count(click)                           OVER of_user_tab AS user_tab_logged,
        coalesce(sum(click)                    OVER of_user_tab, 0) AS user_tab_clicks,
        coalesce(sum(long_view)                OVER of_user_tab, 0) AS user_tab_long_views,
        coalesce(sum("like")                   OVER of_user_tab, 0) AS user_tab_likes,

        count(*)                               OVER of_user_topic AS user_topic_impressions,
        count(click)                           OVER of_user_topic AS user_topic_logged,
        coalesce(sum(click)                    OVER of_user_topic, 0) AS user_topic_clicks,
        coalesce(sum(long_view)                OVER of_user_topic, 0) AS user_topic_long_views,
        coalesce(sum("like")                   OVER of_user_topic, 0) AS user_topic_likes,

        count(*)                               OVER of_user_author AS user_author_impressions,
        coalesce(sum(long_view)                OVER of_user_author, 0) AS user_author_long_views,

        count(*)                               OVER of_user_video AS user_video_impressions
    FROM exposures
    WINDOW
        of_user AS (PARTITION BY user_id ORDER BY time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_user_hour AS (PARTITION BY user_id ORDER BY time_ms RANGE BETWEEN 3600000 PRECEDING AND 1 PRECEDING),
        of_video AS (PARTITION BY video_id ORDER BY time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_author AS (PARTITION BY author_id ORDER BY time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_user_tab AS (PARTITION BY user_id, tab ORDER BY time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_user_topic AS (PARTITION BY user_id, topic ORDER BY time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_user_author AS (PARTITION BY user_id, author_id ORDER BY time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_user_video AS (PARTITION BY user_id, video_id ORDER BY time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
-- A rate of n impressions is smoothed by k more at the rate it is expected to have: the base rate, or, for the
-- user within a tab or topic, the user's own.
rated AS (
    SELECT
        *,
        (user_clicks + 10 * click_base) / (user_logged + 10) AS user_click_rate,
        (user_long_views + 10 * long_view_base) / (user_impressions + 10) AS user_long_view_rate,
        (user_likes + 30 * like_base) / (user_impressions + 30) AS user_like_rate,
        (user_profile_enters + 30 * profile_enter_base) / (user_logged + 30) AS user_profile_enter_rate,
        (user_play_s + 30) / (user_offered_s + 100) AS user_play_ratio,
        (video_clicks + 20 * click_base) / (video_logged + 20) AS video_click_rate,
        (video_long_views + 20 * long_view_base) / (video_impressions + 20) AS video_long_view_rate,
        (video_likes + 50 * like_base) / (video_impressions + 50) AS video_like_rate,
        (video_profile_enters + 50 * profile_enter_base) / (video_logged + 50) AS video_profile_enter_rate,
        (video_play_s + 150) / (video_offered_s + 500) AS video_play_ratio,
        (author_clicks + 20 * click_base) / (author_logged + 20) AS author_click_rate,
        (author_long_views + 20 * long_view_base) / (author_impressions + 20) AS author_long_view_rate,
        (author_likes + 50 * like_base) / (author_impressions + 50) AS author_like_rate,
        (author_profile_enters + 50 * profile_enter_base) / (author_logged + 50) AS author_profile_enter_rate
    FROM counted
    JOIN base USING (time_hour)
)
SELECT
    r.* EXCLUDE (time_hour, click_base, long_view_base, like_base, profile_enter_base),
    h.watched,
    h.long_viewed,
    h.liked,
    (user_tab_clicks + 5 * user_click_rate) / (user_tab_logged + 5) AS user_tab_click_rate,
    (user_tab_long_views + 5 * user_long_view_rate) / (user_tab_logged + 5) AS user_tab_long_view_rate,
    (user_tab_likes + 20 * user_like_rate) / (user_tab_logged + 20) AS user_tab_like_rate,
    (user_topic_clicks + 3 * user_click_rate) / (user_topic_logged + 3) AS user_topic_click_rate,
    (user_topic_long_views + 3 * user_long_view_rate) / (user_topic_impressions + 3) AS user_topic_long_view_rate,
    (user_topic_likes + 10 * user_like_rate) / (user_topic_impressions + 10) AS user_topic_like_rate
FROM rated AS r
JOIN histories AS h USING (user_id, time_ms)
WHERE split IS NOT NULL
