-- exposures -> one row per exposure with point-in-time features.
--
-- In:  exposures: user_id, video_id, author_id, topic, tab, time_ms, split, duration_s, play_s, and the feedback
--          click, long_view, "like", profile_enter (0 or 1); further columns pass through
--      prior_history: user_id and the lists watched, long_viewed, liked of earlier video ids, newest first
-- Out: table rows: exposures.* and the columns listed in point_in_time.py.
--
-- Strictly earlier: every window is ordered by time_ms and framed RANGE … 1 PRECEDING, which leaves out the
-- row itself and all rows of the same millisecond. Nothing here looks at a whole day or at the whole log.
CREATE TABLE rows AS
WITH counted AS (
    SELECT
        *,
        -- All feedback so far: the base rates towards which the rates below are smoothed.
        count(*)           OVER everyone AS all_impressions,
        sum(click)         OVER everyone AS all_clicks,
        sum(long_view)     OVER everyone AS all_long_views,
        sum("like")        OVER everyone AS all_likes,
        sum(profile_enter) OVER everyone AS all_profile_enters,

        count(*)           OVER of_user AS user_impressions,
        sum(click)         OVER of_user AS user_clicks,
        sum(long_view)     OVER of_user AS user_long_views,
        sum("like")        OVER of_user AS user_likes,
        sum(profile_enter) OVER of_user AS user_profile_enters,

        count(*)           OVER of_video AS video_impressions,
        sum(click)         OVER of_video AS video_clicks,
        sum(long_view)     OVER of_video AS video_long_views,
        sum("like")        OVER of_video AS video_likes,
        sum(profile_enter) OVER of_video AS video_profile_enters,

        -- Newest first; point_in_time.py gives the length that is kept.
        list(video_id ORDER BY time_ms DESC, video_id) OVER of_user AS watched,
        list(video_id ORDER BY time_ms DESC, video_id) FILTER (WHERE long_view = 1) OVER of_user AS long_viewed,
        list(video_id ORDER BY time_ms DESC, video_id) FILTER (WHERE "like" = 1) OVER of_user AS liked
    FROM exposures
    WINDOW
        everyone AS (ORDER BY time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_user  AS (PARTITION BY user_id ORDER BY time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_video AS (PARTITION BY video_id ORDER BY time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
based AS (
    SELECT
        *,
        (coalesce(all_clicks, 0) + 0.5) / (all_impressions + 1) AS click_base,
        (coalesce(all_long_views, 0) + 0.5) / (all_impressions + 1) AS long_view_base,
        (coalesce(all_likes, 0) + 0.5) / (all_impressions + 1) AS like_base,
        (coalesce(all_profile_enters, 0) + 0.5) / (all_impressions + 1) AS profile_enter_base
    FROM counted
)
SELECT
    c.* REPLACE (
        coalesce(user_clicks, 0) AS user_clicks,
        coalesce(user_long_views, 0) AS user_long_views,
        coalesce(user_likes, 0) AS user_likes,
        coalesce(user_profile_enters, 0) AS user_profile_enters,
        coalesce(video_clicks, 0) AS video_clicks,
        coalesce(video_long_views, 0) AS video_long_views,
        coalesce(video_likes, 0) AS video_likes,
        coalesce(video_profile_enters, 0) AS video_profile_enters,
        list_concat(coalesce(c.watched, []), coalesce(p.watched, []))[:20] AS watched,
        list_concat(coalesce(c.long_viewed, []), coalesce(p.long_viewed, []))[:20] AS long_viewed,
        list_concat(coalesce(c.liked, []), coalesce(p.liked, []))[:20] AS liked
    ),
    (coalesce(user_clicks, 0) + 10 * click_base) / (user_impressions + 10) AS user_click_rate,
    (coalesce(user_long_views, 0) + 10 * long_view_base) / (user_impressions + 10) AS user_long_view_rate,
    (coalesce(user_likes, 0) + 10 * like_base) / (user_impressions + 10) AS user_like_rate,
    (coalesce(user_profile_enters, 0) + 10 * profile_enter_base) / (user_impressions + 10) AS user_profile_enter_rate,
    (coalesce(video_clicks, 0) + 20 * click_base) / (video_impressions + 20) AS video_click_rate,
    (coalesce(video_long_views, 0) + 20 * long_view_base) / (video_impressions + 20) AS video_long_view_rate,
    (coalesce(video_likes, 0) + 20 * like_base) / (video_impressions + 20) AS video_like_rate,
    (coalesce(video_profile_enters, 0) + 20 * profile_enter_base) / (video_impressions + 20) AS video_profile_enter_rate
FROM based AS c
LEFT JOIN prior_history AS p USING (user_id)
