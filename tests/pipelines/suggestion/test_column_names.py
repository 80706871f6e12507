"""What names say."""

import pytest

from pipelines.suggestion.column_names import feedback, is_event_id, is_id, is_request_id, is_spent, task_name, words


@pytest.mark.parametrize(("name", "task"), [
    ("click", "click"), ("is_click", "click"), ("isClicked", "click"), ("Clicked", "click"), ("clicks", "click"),
    ("is_liked", "like"), ("likes", "like"), ("purchased", "purchase"), ("bought", "buy"), ("ordered", "order"),
    ("viewed", "view"), ("saved", "save"), ("shared", "share"), ("applied", "apply"), ("was_opened", "open"),
    ("add_to_cart", "add_to_cart"), ("addToCart", "add_to_cart"), ("Add-to cart", "add_to_cart"), ("cart", "cart"),
    ("addtocart", "add_to_cart"), ("added_to_playlist", "added_to_playlist"), ("playlist_add", "playlist_add"),
    ("long_view", "long_view"), ("longView", "long_view"), ("is_profile_enter", "profile_enter"),
    ("watch_complete", "watch_complete"), ("didSignUp", "sign_up"), ("thumbsUp", "thumbs_up"),
    ("clicked_item", "clicked_item"), ("item_click", "item_click"), ("video_like", "video_like"),
    ("post_share", "post_share"), ("purchase_flag", "purchase_flag"), ("click_label", "click_label"),
    ("y_purchase", "y_purchase"), ("label", "label"), ("target", "target"), ("label_2", "label_2"),
    ("purchase_within_7d", "purchase_within_7_d"), ("follow_user", "follow_user"), ("user_liked", "user_liked"),
])
def test_feedback_by_its_words(name, task):
    assert feedback(name) is not None and not feedback(name).negative
    assert task_name(name) == task


@pytest.mark.parametrize("name", [
    "return_item", "returned", "item_returned", "refund", "cancelled", "unsubscribe", "not_interested", "skipped",
    "hide", "isNotInterested", "thumbs_down", "thumbsDown", "dislike", "hate", "report", "dismissed",
    "removed_from_cart", "blocked", "bounce", "complaint", "rejected", "hidden",
])
def test_feedback_that_shows_dislike(name):
    assert feedback(name).negative


@pytest.mark.parametrize("name", [
    "is_video", "has_video", "is_live", "is_new", "is_returning_customer", "returning_user", "like_count_known",
    "is_purchasable", "is_download_allowed", "comment_enabled", "share_button", "is_click_bait", "like_cnt",
    "click_rate", "likeCount", "is_ad", "ads", "is_open", "book", "return_policy", "return_customer", "free_return",
    "bought_before", "can_comment", "is_trending", "is_following", "auto_play", "liked_by_friends", "is_first_order",
    "last_click", "flag", "is_weekend", "label_smoothed_price", "private_label_brand", "explored", "is_paid",
    "user", "is_", "7", "_",
])
def test_what_is_no_feedback_by_its_words(name):
    assert feedback(name) is None


@pytest.mark.parametrize(("name", "sure"), [
    ("click", True), ("is_liked", True), ("add_to_cart", True), ("not_interested", True), ("is_subscribed", False),
    ("installed", False), ("opened", False), ("video_download", False), ("has_comments", False), ("install", True),
])
def test_a_name_may_be_that_of_a_state_or_an_attribute(name, sure):
    assert feedback(name).sure == sure


def test_words():
    assert words("addToCart") == words("add_to_cart") == words("Add-To cart") == ["add", "to", "cart"]
    assert words("IS_CLICK") == words("isClick") == ["is", "click"]
    assert words("HTTPCode7d") == ["http", "code", "7", "d"]


@pytest.mark.parametrize(("name", "spent"), [
    ("dwellTime", True), ("ms_played", True), ("time_on_page", True), ("timeSpent", True), ("listened_seconds", True),
    ("watch_ratio", True), ("playtime", True), ("dwell", True), ("user_play_ratio", False), ("video_duration", False),
    ("avg_watch_time", False), ("time_since_last_view", False), ("views", False), ("duration_ms", False),
])
def test_time_that_was_spent(name, spent):
    assert is_spent(name) == spent


def test_names_of_ids():
    assert [is_id(n) for n in ("author_id", "authorid", "uuid", "bid", "is_paid", "ids")] == [1, 1, 1, 0, 0, 1]
    assert [is_request_id(n) for n in ("traceId", "sessionid", "req_token", "author_id", "request_country")] == [
        1, 1, 1, 0, 0]
    assert is_event_id("order_id") and not is_event_id("brand_id")
