-- A day's exposures and the counters of the days before -> table rows: the day's exposures with point-in-time features.
-- DuckDB and Spark SQL both run this text; pipelines/engines/__init__.py says what it keeps to.
--
-- In:  shown: the exposures of the day. It has split, time_ms, user_id, video_id, author_id, topic, tab, duration_s, play_s,
--          and the feedback click, long_view, "like", profile_enter (0 or 1); further columns pass through.
--      today: those columns of shown but split (new = 1), and of earlier exposures that are as recent (new = 0).
--          Exposures from before the log have click, profile_enter, play_s and tab where they are known, else NULL;
--          long_view and "like" are always known.
--      users, videos, authors, user_tabs, user_topics, user_authors, user_videos, totals, recent: what snapshot.sql keeps
--          of all exposures that are older than those of today.
-- Out: rows: the columns of shown, and those that point_in_time.py lists.
--
-- First the counters of the moments of today, from a few narrow columns, then the rows: what else an exposure has does
-- not pass through a dozen windows. A moment is all that counters depend on: time, user, video, author, topic and tab.
--
-- Strictly earlier: every window is ordered by time_ms and framed RANGE … 1 PRECEDING, which leaves out the row
-- itself and all rows of the same millisecond. The base rates towards which rates are smoothed come from earlier
-- hours, so no window runs over the whole log at once. Nothing looks at a whole day.
CREATE TABLE counted AS
WITH kept AS (
    SELECT user_id, count(*) AS watched, sum(long_view) AS long_viewed, sum("like") AS liked
    FROM recent
    GROUP BY user_id
),
-- Doubles that hold integers: their sums are exact in any order. Seconds become whole milliseconds.
moments AS (
    SELECT
        new, time_ms, user_id, video_id, author_id, topic, tab,
        CAST(count(*) AS DOUBLE) AS impressions,
        CAST(count(click) AS DOUBLE) AS logged,
        CAST(coalesce(sum(click), 0) AS DOUBLE) AS clicks,
        CAST(sum(long_view) AS DOUBLE) AS long_views,
        CAST(sum("like") AS DOUBLE) AS likes,
        CAST(coalesce(sum(profile_enter), 0) AS DOUBLE) AS profile_enters,
        coalesce(sum(CASE WHEN play_s IS NOT NULL THEN floor(least(play_s, duration_s) * 1000e0 + 0.5e0) END), 0)
            AS play_ms,
        coalesce(sum(CASE WHEN play_s IS NOT NULL THEN floor(duration_s * 1000e0 + 0.5e0) END), 0) AS offered_ms
    FROM today
    GROUP BY new, time_ms, user_id, video_id, author_id, topic, tab
),
windows AS (
    SELECT
        t.new, t.time_ms, t.user_id, t.video_id, t.author_id, t.topic, t.tab,
        coalesce(sum(t.impressions) OVER of_user, 0) AS user_impressions,
        coalesce(sum(t.logged) OVER of_user, 0) AS user_logged,
        coalesce(sum(t.clicks) OVER of_user, 0) AS user_clicks,
        coalesce(sum(t.long_views) OVER of_user, 0) AS user_long_views,
        coalesce(sum(t.likes) OVER of_user, 0) AS user_likes,
        coalesce(sum(t.profile_enters) OVER of_user, 0) AS user_profile_enters,
        coalesce(sum(t.play_ms) OVER of_user, 0) AS user_play_ms,
        coalesce(sum(t.offered_ms) OVER of_user, 0) AS user_offered_ms,
        max(t.time_ms) OVER of_user AS last_ms,
        coalesce(sum(t.impressions) OVER of_user_hour, 0) AS user_hour_impressions,
        coalesce(sum(t.long_views) OVER of_user_hour, 0) AS user_hour_long_views,

        coalesce(sum(t.impressions) OVER of_video, 0) AS video_impressions,
        coalesce(sum(t.logged) OVER of_video, 0) AS video_logged,
        coalesce(sum(t.clicks) OVER of_video, 0) AS video_clicks,
        coalesce(sum(t.long_views) OVER of_video, 0) AS video_long_views,
        coalesce(sum(t.likes) OVER of_video, 0) AS video_likes,
        coalesce(sum(t.profile_enters) OVER of_video, 0) AS video_profile_enters,
        coalesce(sum(t.play_ms) OVER of_video, 0) AS video_play_ms,
        coalesce(sum(t.offered_ms) OVER of_video, 0) AS video_offered_ms,

        coalesce(sum(t.impressions) OVER of_author, 0) AS author_impressions,
        coalesce(sum(t.logged) OVER of_author, 0) AS author_logged,
        coalesce(sum(t.clicks) OVER of_author, 0) AS author_clicks,
        coalesce(sum(t.long_views) OVER of_author, 0) AS author_long_views,
        coalesce(sum(t.likes) OVER of_author, 0) AS author_likes,
        coalesce(sum(t.profile_enters) OVER of_author, 0) AS author_profile_enters,

        coalesce(sum(t.logged) OVER of_user_tab, 0) AS user_tab_logged,
        coalesce(sum(t.clicks) OVER of_user_tab, 0) AS user_tab_clicks,
        coalesce(sum(t.long_views) OVER of_user_tab, 0) AS user_tab_long_views,
        coalesce(sum(t.likes) OVER of_user_tab, 0) AS user_tab_likes,

        coalesce(sum(t.impressions) OVER of_user_topic, 0) AS user_topic_impressions,
        coalesce(sum(t.logged) OVER of_user_topic, 0) AS user_topic_logged,
        coalesce(sum(t.clicks) OVER of_user_topic, 0) AS user_topic_clicks,
        coalesce(sum(t.long_views) OVER of_user_topic, 0) AS user_topic_long_views,
        coalesce(sum(t.likes) OVER of_user_topic, 0) AS user_topic_likes,

        coalesce(sum(t.impressions) OVER of_user_author, 0) AS user_author_impressions,
        coalesce(sum(t.long_views) OVER of_user_author, 0) AS user_author_long_views,

        coalesce(sum(t.impressions) OVER of_user_video, 0) AS user_video_impressions
    FROM moments AS t
    WINDOW
        of_user AS (PARTITION BY t.user_id ORDER BY t.time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_user_hour AS (PARTITION BY t.user_id ORDER BY t.time_ms RANGE BETWEEN 3600000 PRECEDING AND 1 PRECEDING),
        of_video AS (PARTITION BY t.video_id ORDER BY t.time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_author AS (PARTITION BY t.author_id ORDER BY t.time_ms RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_user_tab AS (PARTITION BY t.user_id, t.tab ORDER BY t.time_ms
            RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_user_topic AS (PARTITION BY t.user_id, t.topic ORDER BY t.time_ms
            RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_user_author AS (PARTITION BY t.user_id, t.author_id ORDER BY t.time_ms
            RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        of_user_video AS (PARTITION BY t.user_id, t.video_id ORDER BY t.time_ms
            RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
-- What is older comes to the windows last: a window carries all columns of its rows.
SELECT
    t.time_ms, t.user_id, t.video_id, t.author_id, t.topic, t.tab,
    coalesce(k.watched, 0) + t.user_impressions AS watched_number,
    coalesce(k.long_viewed, 0) + t.user_long_views AS long_viewed_number,
    coalesce(k.liked, 0) + t.user_likes AS liked_number,

    coalesce(u.impressions, 0) + t.user_impressions AS user_impressions,
    coalesce(u.logged, 0) + t.user_logged AS user_logged,
    coalesce(u.clicks, 0) + t.user_clicks AS user_clicks,
    coalesce(u.long_views, 0) + t.user_long_views AS user_long_views,
    coalesce(u.likes, 0) + t.user_likes AS user_likes,
    coalesce(u.profile_enters, 0) + t.user_profile_enters AS user_profile_enters,
    coalesce(u.play_ms, 0) + t.user_play_ms AS user_play_ms,
    coalesce(u.offered_ms, 0) + t.user_offered_ms AS user_offered_ms,
    coalesce(t.time_ms - coalesce(t.last_ms, u.last_ms), 864000000) / 1000e0 AS user_idle_s,
    t.user_hour_impressions,
    t.user_hour_long_views,

    coalesce(v.impressions, 0) + t.video_impressions AS video_impressions,
    coalesce(v.logged, 0) + t.video_logged AS video_logged,
    coalesce(v.clicks, 0) + t.video_clicks AS video_clicks,
    coalesce(v.long_views, 0) + t.video_long_views AS video_long_views,
    coalesce(v.likes, 0) + t.video_likes AS video_likes,
    coalesce(v.profile_enters, 0) + t.video_profile_enters AS video_profile_enters,
    coalesce(v.play_ms, 0) + t.video_play_ms AS video_play_ms,
    coalesce(v.offered_ms, 0) + t.video_offered_ms AS video_offered_ms,

    coalesce(a.impressions, 0) + t.author_impressions AS author_impressions,
    coalesce(a.logged, 0) + t.author_logged AS author_logged,
    coalesce(a.clicks, 0) + t.author_clicks AS author_clicks,
    coalesce(a.long_views, 0) + t.author_long_views AS author_long_views,
    coalesce(a.likes, 0) + t.author_likes AS author_likes,
    coalesce(a.profile_enters, 0) + t.author_profile_enters AS author_profile_enters,

    coalesce(ut.logged, 0) + t.user_tab_logged AS user_tab_logged,
    coalesce(ut.clicks, 0) + t.user_tab_clicks AS user_tab_clicks,
    coalesce(ut.long_views, 0) + t.user_tab_long_views AS user_tab_long_views,
    coalesce(ut.likes, 0) + t.user_tab_likes AS user_tab_likes,

    coalesce(uo.impressions, 0) + t.user_topic_impressions AS user_topic_impressions,
    coalesce(uo.logged, 0) + t.user_topic_logged AS user_topic_logged,
    coalesce(uo.clicks, 0) + t.user_topic_clicks AS user_topic_clicks,
    coalesce(uo.long_views, 0) + t.user_topic_long_views AS user_topic_long_views,
    coalesce(uo.likes, 0) + t.user_topic_likes AS user_topic_likes,

    coalesce(ua.impressions, 0) + t.user_author_impressions AS user_author_impressions,
    coalesce(ua.long_views, 0) + t.user_author_long_views AS user_author_long_views,

    coalesce(uv.impressions, 0) + t.user_video_impressions AS user_video_impressions
FROM windows AS t
LEFT JOIN kept AS k ON k.user_id = t.user_id
LEFT JOIN users AS u ON u.user_id = t.user_id
LEFT JOIN videos AS v ON v.video_id = t.video_id
LEFT JOIN authors AS a ON a.author_id = t.author_id
LEFT JOIN user_tabs AS ut ON ut.user_id = t.user_id AND ut.tab = t.tab
LEFT JOIN user_topics AS uo ON uo.user_id = t.user_id AND uo.topic = t.topic
LEFT JOIN user_authors AS ua ON ua.user_id = t.user_id AND ua.author_id = t.author_id
LEFT JOIN user_videos AS uv ON uv.user_id = t.user_id AND uv.video_id = t.video_id
WHERE t.new = 1;

CREATE TABLE rows AS
WITH hours AS (
    SELECT
        time_ms - time_ms % 3600000 AS hour_ms,
        count(click) AS impressions,
        count(long_view) AS views,
        sum(click) AS clicks,
        sum(long_view) AS long_views,
        sum("like") AS likes,
        sum(profile_enter) AS profile_enters
    FROM today
    GROUP BY time_ms - time_ms % 3600000
),
base AS (
    SELECT
        hour_ms,
        (t.clicks + coalesce(sum(h.clicks) OVER earlier, 0) + 1)
            / (t.impressions + coalesce(sum(h.impressions) OVER earlier, 0) + 2) AS click_base,
        (t.long_views + coalesce(sum(h.long_views) OVER earlier, 0) + 1)
            / (t.views + coalesce(sum(h.views) OVER earlier, 0) + 2) AS long_view_base,
        (t.likes + coalesce(sum(h.likes) OVER earlier, 0) + 1)
            / (t.views + coalesce(sum(h.views) OVER earlier, 0) + 20) AS like_base,
        (t.profile_enters + coalesce(sum(h.profile_enters) OVER earlier, 0) + 1)
            / (t.impressions + coalesce(sum(h.impressions) OVER earlier, 0) + 20) AS profile_enter_base
    FROM hours AS h
    CROSS JOIN totals AS t
    WINDOW earlier AS (ORDER BY hour_ms ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
-- A user's exposures, numbered from the oldest that is known, each with the 20 videos up to and including it, newest
-- first. An exposure after which n of them were seen finds its history at number n.
seen AS (
    SELECT user_id, time_ms, video_id, long_view, "like" FROM recent
    UNION ALL
    SELECT user_id, time_ms, video_id, long_view, "like" FROM today
),
watched AS (
    SELECT
        user_id,
        count(*) OVER (PARTITION BY user_id ORDER BY time_ms DESC, video_id DESC
            ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS number,
        array_agg(video_id) OVER (PARTITION BY user_id ORDER BY time_ms DESC, video_id DESC
            ROWS BETWEEN CURRENT ROW AND 19 FOLLOWING) AS videos
    FROM seen
),
long_viewed AS (
    SELECT
        user_id,
        count(*) OVER (PARTITION BY user_id ORDER BY time_ms DESC, video_id DESC
            ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS number,
        array_agg(video_id) OVER (PARTITION BY user_id ORDER BY time_ms DESC, video_id DESC
            ROWS BETWEEN CURRENT ROW AND 19 FOLLOWING) AS videos
    FROM seen
    WHERE long_view = 1
),
liked AS (
    SELECT
        user_id,
        count(*) OVER (PARTITION BY user_id ORDER BY time_ms DESC, video_id DESC
            ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS number,
        array_agg(video_id) OVER (PARTITION BY user_id ORDER BY time_ms DESC, video_id DESC
            ROWS BETWEEN CURRENT ROW AND 19 FOLLOWING) AS videos
    FROM seen
    WHERE "like" = 1
),
-- A rate of n impressions is smoothed by k more at the rate it is expected to have: the base rate, or, for the
-- user within a tab or topic, the user's own.
rated AS (
    SELECT
        c.*,
        (user_clicks + 10 * click_base) / (user_logged + 10) AS user_click_rate,
        (user_long_views + 10 * long_view_base) / (user_impressions + 10) AS user_long_view_rate,
        (user_likes + 30 * like_base) / (user_impressions + 30) AS user_like_rate,
        (user_profile_enters + 30 * profile_enter_base) / (user_logged + 30) AS user_profile_enter_rate,
        (user_play_ms + 30000) / (user_offered_ms + 100000) AS user_play_ratio,
        (video_clicks + 20 * click_base) / (video_logged + 20) AS video_click_rate,
        (video_long_views + 20 * long_view_base) / (video_impressions + 20) AS video_long_view_rate,
        (video_likes + 50 * like_base) / (video_impressions + 50) AS video_like_rate,
        (video_profile_enters + 50 * profile_enter_base) / (video_logged + 50) AS video_profile_enter_rate,
        (video_play_ms + 150000) / (video_offered_ms + 500000) AS video_play_ratio,
        (author_clicks + 20 * click_base) / (author_logged + 20) AS author_click_rate,
        (author_long_views + 20 * long_view_base) / (author_impressions + 20) AS author_long_view_rate,
        (author_likes + 50 * like_base) / (author_impressions + 50) AS author_like_rate,
        (author_profile_enters + 50 * profile_enter_base) / (author_logged + 50) AS author_profile_enter_rate
    FROM counted AS c
    JOIN base AS b ON b.hour_ms = c.time_ms - c.time_ms % 3600000
)
SELECT
    t.*,
    r.* EXCEPT (time_ms, user_id, video_id, author_id, topic, tab),
    w.videos AS watched,
    lv.videos AS long_viewed,
    li.videos AS liked,
    (user_tab_clicks + 5 * user_click_rate) / (user_tab_logged + 5) AS user_tab_click_rate,
    (user_tab_long_views + 5 * user_long_view_rate) / (user_tab_logged + 5) AS user_tab_long_view_rate,
    (user_tab_likes + 20 * user_like_rate) / (user_tab_logged + 20) AS user_tab_like_rate,
    (user_topic_clicks + 3 * user_click_rate) / (user_topic_logged + 3) AS user_topic_click_rate,
    (user_topic_long_views + 3 * user_long_view_rate) / (user_topic_impressions + 3) AS user_topic_long_view_rate,
    (user_topic_likes + 10 * user_like_rate) / (user_topic_impressions + 10) AS user_topic_like_rate
FROM shown AS t
JOIN rated AS r ON r.user_id = t.user_id AND r.time_ms = t.time_ms AND r.video_id = t.video_id
    AND r.author_id = t.author_id AND r.topic = t.topic AND r.tab = t.tab
LEFT JOIN watched AS w ON w.user_id = r.user_id AND w.number = r.watched_number
LEFT JOIN long_viewed AS lv ON lv.user_id = r.user_id AND lv.number = r.long_viewed_number
LEFT JOIN liked AS li ON li.user_id = r.user_id AND li.number = r.liked_number;

DROP TABLE counted;
