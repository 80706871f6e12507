"""The schema that is proposed for other people's logs: feedback and its masks, ids, clocks, missing values, sides."""

import datetime
import re
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines.engines import connect
from pipelines.features.point_in_time import COUNTERS
from pipelines.from_logs import Roles, convert, propose
from pipelines.logs.log_files import open_log
from pipelines.suggestion import log_sample
from pipelines.suggestion.column_names import feedback, is_event_id, is_id, is_request_id, is_spent, task_name, words
from pipelines.suggestion.suggest import suggest
from tests.support import shop
from tests.support.builders import command

ROWS, USERS, ITEMS = 3000, 150, 100
DAY = 86_400_000
START = 20_000 * DAY  # 2024-10-04
rng = np.random.default_rng(0)
u, v = rng.integers(0, USERS, ROWS), rng.integers(0, ITEMS, ROWS)
ts = START + np.sort(rng.integers(0, 3 * DAY, ROWS))
chance = rng.random(ROWS)
click = rng.random(ROWS) < 0.3
cart = click & (rng.random(ROWS) < 0.4)
buy = cart & (rng.random(ROWS) < 0.5)


def save(path, columns):
    """A log of columns, which may be arrays or lists with None, as the ending says."""
    table = pa.table({name: pa.array(list(values)) for name, values in columns.items()})
    if path.suffix == ".csv":
        pc.write_csv(table, path, pc.WriteOptions(quoting_style="needed"))
    else:
        pq.write_table(table, path)
    return path


def proposed(path, time="ts", user="uid", item="vid", random=""):
    with connect("duckdb", path.parent / "out") as engine:
        schema, why = suggest(engine, open_log(engine, [path]), time, user, item, random)
    assert pbtxt.loads(pbtxt.dumps(schema)) == schema
    return schema, why


def found(tmp_path, ending=".parquet", **columns):
    """The proposal for a log of these columns beside time, user, item and click."""
    columns = {"ts": ts, "uid": u, "vid": v, "click": click} | columns
    schema, why = proposed(save(tmp_path / f"log{ending}", columns))
    assert set(why) == set(columns) - {"ts"} | {f.name for f in schema.features}
    return schema, why


def converted(tmp_path, ending=".parquet", **columns):
    """The same, and every row of the log can be converted with it."""
    schema, why = found(tmp_path, ending, **columns)
    statistics = convert(str(tmp_path / f"log{ending}"), schema, Roles("ts", "uid", "vid"), str(tmp_path / "out"))
    assert sum(day["rows"] for day in statistics["days"].values()) == ROWS
    return schema, why


def tasks(schema):
    return {t.label: (t.mask, t.negative) for t in schema.tasks}


def features(schema):
    """The proposed features that are columns of the log."""
    return {f.name: f for f in schema.features if f not in COUNTERS}


def texts(values):
    return [str(value) for value in values]


def some(values, share=0.1):
    """The values, of which a share is missing."""
    return [None if c < share else value for c, value in zip(chance, np.asarray(values).tolist(), strict=True)]


# Names.

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


# The shop.

@pytest.mark.parametrize("random", ["", "explored"])
def test_the_shops_log(tmp_path, random):
    made = shop.make(20_000, 4)
    pattern = made.write(tmp_path / "shop", 1)
    with connect("duckdb", tmp_path / "out") as engine:
        log = open_log(engine, sorted((tmp_path / "shop").iterdir()))
        schema, why = suggest(engine, log, "shown_at", "visitor", "sku", random)
    assert tasks(schema) == {
        "click": ("", False), "add_to_cart": ("click", False), "purchase": ("add_to_cart", False),
        "return_item": ("purchase", True)}
    assert {name: f.side for name, f in features(schema).items()} == {
        "hour": "context", "visitor": "user", "sku": "item", "brand": "item", "category": "item", "price": "item",
        "device": "context", "slot": "context"}
    assert not features(schema)["hour"].is_numeric and features(schema)["price"].is_numeric
    missing = made.log.column("stars").null_count
    reasons = {"request_id": "the id of a request", "session_id": "the id of a request or a session",
               "ship_date": "of type DATE", "stars": f"{missing:,} of 20,000 rows have no number; fill the column",
               "explored": "the column of --random" if random else "--random=explored if it marks random exposures"}
    for name, reason in reasons.items():
        assert why[name].startswith("left out: ") and reason in why[name]
    ones = made.log.column("purchase").to_numpy().sum()
    assert f"a task: {ones:,} of 20,000 rows are 1" in why["purchase"] and "mask add_to_cart" in why["purchase"]
    convert(pattern, schema, Roles("shown_at", "visitor", "sku", random), str(tmp_path / "out"))


def test_the_command_on_a_news_sites_csv(tmp_path):
    sections = np.array(["politics", "sport", "life"])
    published = (ts[0] - v * DAY) // 1000
    path = save(tmp_path / "log.csv", {
        "eventTime": [datetime.datetime.fromtimestamp(t / 1000, datetime.UTC).isoformat() for t in ts],
        "userId": [f"u{k}" for k in u], "articleId": [f"a{k}" for k in v], "sessionId": [f"s{k}" for k in u],
        "requestId": [str(uuid.UUID(int=int(k))) for k in range(ROWS)], "articleSection": some(sections[v % 3], 0.01),
        "publishedAt": published, "hasVideo": v % 4 == 0, "isSubscriber": u % 3 == 0, "weekday": ts // DAY % 7,
        "timeOfDay": [f"{t // 3_600_000 % 24:02d}:{t // 60_000 % 60:02d}" for t in ts],
        "isClicked": click, "isShared": (click & (chance < 0.5)).astype(int),
        "dwellTime": np.where(click, chance * 90, 0.0), "ageDays": (ts / 1000 - published) / 86_400,
    })
    flags = [f"--logs={path}", "--time=eventTime", "--user=userId", "--item=articleId",
             f"--schema={tmp_path / 'my.pbtxt'}"]
    done = command("pipelines.from_logs", *flags, "--suggest_schema")
    assert done.returncode == 0, done.stderr
    for line in ("sessionId: left out: ", "requestId: left out: ", "publishedAt: left out: a date or time such as 1",
                 "timeOfDay: left out: a time of day such as 23:", "isClicked: a task: ", "dwellTime: a target"):
        assert f"\n{line}" in done.stdout
    schema = pbtxt.loads((tmp_path / "my.pbtxt").read_text())
    assert tasks(schema) == {"isClicked": ("", False), "isShared": ("isClicked", False)}
    assert {name: f.side for name, f in features(schema).items()} == {
        "userId": "user", "articleId": "item", "articleSection": "item", "hasVideo": "item", "isSubscriber": "user",
        "weekday": "context", "ageDays": "context"}
    done = command("pipelines.from_logs", *flags, f"--out={tmp_path / 'out'}")
    assert done.returncode == 0 and "3,000 rows of 3 splits" in done.stdout, done.stderr


# Masks.

def test_the_mask_is_the_nearest_feedback_that_lies_around_it(tmp_path):
    odd = np.flatnonzero(~cart)[:3]  # bought without the cart: of about 180
    bought = buy.copy()
    bought[odd] = True
    skip = ~click & (chance < 0.2)
    schema, why = converted(tmp_path, add_to_cart=cart, checkout_flag=buy, purchase=bought, skip=skip)
    assert tasks(schema) == {"click": ("", False), "add_to_cart": ("click", False), "purchase": ("add_to_cart", False),
                             "checkout_flag": ("add_to_cart", False), "skip": ("", True)}
    assert f"mask add_to_cart, which is 1 in {buy.sum() / bought.sum():.1%} of them, and the other 3 do not count" in \
        why["purchase"]
    assert not {"checkout_flag", "purchase"} & features(schema).keys()


def test_what_names_no_feedback_is_it_where_it_follows_feedback(tmp_path):
    schema, _ = found(tmp_path, upsell=buy, full_screen=chance < 0.3, rare=click & (np.cumsum(click) < 6),
                      on_offer=v % 5 == 0, mostly=click & (chance < 0.4) | (chance > 0.99))
    assert tasks(schema) == {"click": ("", False), "upsell": ("click", False)}
    assert features(schema).keys() == {"uid", "vid", "full_screen", "rare", "on_offer", "mostly"}


def test_columns_of_the_same_rows_do_not_mask_each_other_and_keep_their_names(tmp_path):
    schema, _ = found(tmp_path, clicked=click, view=click | (chance < 0.002))
    assert {t.name: (t.label, t.mask) for t in schema.tasks} == {
        "click": ("click", ""), "clicked": ("clicked", ""), "view": ("view", "")}
    # Feedback in nearly all rows tells nothing.
    schema, _ = found(tmp_path, shown=chance > 0.04, view=chance > 0.04, like=buy & (chance > 0.04))
    assert tasks(schema)["like"] == ("click", False)


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_a_label_may_be_missing_where_its_mask_is_0(tmp_path, ending):
    purchase = [bool(b) if c else None for b, c in zip(buy, click, strict=True)]
    refund = [bool(x < 0.5) if b else None for x, b in zip(chance, buy, strict=True)]
    like = some(chance < 0.3)
    schema, why = converted(tmp_path, ending, add_to_cart=cart, purchase=purchase, refund=refund, like=like)
    assert tasks(schema) == {"click": ("", False), "add_to_cart": ("click", False), "purchase": ("add_to_cart", False),
                             "refund": ("purchase", True)}
    assert f"left out: {sum(chance < 0.1):,} of 3,000 rows have no 0 or 1; fill the column" in why["like"]


def test_a_state_of_the_user_or_item_is_an_attribute_by_its_values(tmp_path):
    schema, why = converted(tmp_path, is_subscribed=u % 3 == 0, video_download=v % 4 == 0, downloaded=chance < 0.1)
    assert tasks(schema) == {"click": ("", False), "downloaded": ("", False)}
    assert {n: features(schema)[n].side for n in ("is_subscribed", "video_download")} == {
        "is_subscribed": "user", "video_download": "item"}
    assert "an attribute, though named as feedback" in why["video_download"]


def test_feedback_that_is_not_0_and_1_is_named(tmp_path):
    shared = ["yes" if x < 0.2 else "no" for x in chance]
    _, why = found(tmp_path, shared=shared)
    assert why["shared"].endswith("must be 0 and 1 or true and false. Received: ['yes', 'no']")
    path = save(tmp_path / "log.csv", {"ts": ts, "uid": u, "vid": v, "shared": shared})
    with pytest.raises(UserError, match="must have feedback.*'shared' is left out: .*Received.*by hand otherwise"):
        proposed(path)


# Left out.

@pytest.mark.parametrize(("name", "values"), [
    ("rid", [f"{k:08x}" for k in rng.permutation(ROWS)]), ("snowflake", 2**60 + rng.permutation(ROWS)),
    ("comment_text", [f"text {k}" for k in range(ROWS)]), ("Unnamed: 0", np.arange(ROWS)),
    ("basket", [f"{a}/{b}" for a, b in zip(u, ts // (DAY // 8), strict=True)]), ("impressionId", v),
    ("search_id", [f"q{k // 3}" for k in range(ROWS)]), ("SESSION_KEY", texts(u)), ("session", u // 2),
])
def test_ids_of_requests_and_sessions_are_left_out(tmp_path, name, values):
    schema, why = found(tmp_path, **{name: values})
    assert name not in features(schema) and why[name].startswith("left out: ")


@pytest.mark.parametrize(("name", "values", "side"), [
    ("author_id", v % 30, "item"), ("campaign_id", rng.integers(0, 30, ROWS), "context"), ("event_id", v % 7, "item"),
    ("title", [f"title {k}" for k in v], "item"), ("brand_id", some([f"{k % 40}.0" for k in v], 0.01), "item"),
    ("query", [f"query {k}" for k in rng.integers(0, 900, ROWS)], "context"),
])
def test_other_ids_and_texts_are_features(tmp_path, name, values, side):
    schema, _ = converted(tmp_path, ".csv", **{name: values})
    assert features(schema)[name].side == side and not features(schema)[name].is_numeric


def test_names_of_ids():
    assert [is_id(n) for n in ("author_id", "authorid", "uuid", "bid", "is_paid", "ids")] == [1, 1, 1, 0, 0, 1]
    assert [is_request_id(n) for n in ("traceId", "sessionid", "req_token", "author_id", "request_country")] == [
        1, 1, 1, 0, 0]
    assert is_event_id("order_id") and not is_event_id("brand_id")


def iso(form):
    return [datetime.datetime.fromtimestamp(t / 1000, datetime.UTC).strftime(form) for t in ts]


@pytest.mark.parametrize(("name", "values", "reason"), [
    ("date", [int(d) for d in iso("%Y%m%d")], "a date or time such as 20241006"), ("day", iso("%Y-%m-%d"), "a date"),
    ("d", iso("%d.%m.%Y"), "a date"), ("created", iso("%b %d, %Y"), "a date"), ("ymdh", iso("%Y%m%d%H"), "a date"),
    ("log_s", ts // 1000, "a date"), ("log_ms", ts, "a date"), ("log_us", ts * 1000.0, "a date"), ("ts2", ts, "a date"),
    ("period", [202410] * ROWS, "a date"), ("updated_ts", v * 1000, "a date"),
    ("hourmin", [int(h) for h in iso("%H%M")], "a time of day such as 9.*cut it to the hour"),
    ("at", iso("%H:%M:%S"), "a time of day such as 23:59"), ("minute_of_day", ts // 60_000 % 1440, "a time of day"),
])
@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_dates_and_clocks_are_left_out(tmp_path, ending, name, values, reason):
    schema, why = found(tmp_path, ending, **{name: values})
    assert name not in features(schema)
    assert re.match(f"left out: {reason}", why[name]), why[name]


def test_a_time_of_day_or_date_as_a_type_is_left_out(tmp_path):
    dates = [datetime.date(2024, 10, 4)] * ROWS
    _, why = found(tmp_path, day=dates, at=[datetime.time(1, 2)] * ROWS, moment=ts.astype("M8[ms]"))
    assert all(why[n].startswith("left out: of type ") for n in ("day", "at", "moment"))


@pytest.mark.parametrize(("name", "values", "numeric"), [
    ("hour", ts // 3_600_000 % 24, False), ("weekday", ts // DAY % 7, False), ("month", v % 12 + 1, False),
    ("dow", np.array(["mon", "tue", "wed"])[v % 3], False), ("release_year", 1980 + v % 40, True),
    ("duration_ms", v * 977 + 10**9, True), ("age_days", chance * 1000, True), ("load_time_ms", v * 7 + 200, True),
    ("length_text", [f"{k % 5}-{k % 7}" for k in v], False), ("likes", v * 10**7 + 10**9, True),
])
def test_small_integers_and_lengths_are_features(tmp_path, name, values, numeric):
    schema, _ = converted(tmp_path, ".csv", **{name: values})
    assert features(schema)[name].is_numeric == numeric


# Missing numbers.

@pytest.mark.parametrize(("ending", "hole"), [
    (".parquet", None), (".parquet", float("nan")), (".parquet", float("inf")), (".csv", None), (".csv", "NA"),
    (".csv", "null")])
def test_numbers_that_rows_lack_are_counted_at_once(tmp_path, monkeypatch, ending, hole):
    monkeypatch.setattr(log_sample, "ROWS", 500)
    values = [hole if c < 0.08 else str(c * 5) if isinstance(hole, str) else c * 5 for c in chance.tolist()]
    columns = dict.fromkeys(("stars", "watch_time", "clicks_before"), values)
    schema, why = converted(tmp_path, ending, **columns)
    for name in columns:
        assert why[name].startswith(f"left out: {sum(chance < 0.08):,} of 3,000 rows have no number")
    assert not schema.targets and not features(schema).keys() & columns.keys()


def test_a_category_may_lack_values_which_are_counted(tmp_path):
    schema, why = converted(tmp_path, ".csv", age=some(20 + u % 50), kind=some([f"{k % 3}.0" for k in v]),
                        level=["NA" if c < 0.1 else str(k % 5) for c, k in zip(chance, u, strict=True)])
    assert {n: (features(schema)[n].dtype, features(schema)[n].side) for n in ("age", "kind", "level")} == {
        "age": ("int", "user"), "kind": ("int", "item"), "level": ("string", "user")}
    assert f"{sum(chance < 0.1):,} of 3,000 rows have none" in why["age"]


def test_the_range_of_a_number_is_that_of_the_whole_log(tmp_path, monkeypatch):
    monkeypatch.setattr(log_sample, "ROWS", 500)
    ratio = chance / 2
    ratio[ROWS // 2] = 1.5
    schema, _ = converted(tmp_path, share=ratio)
    assert features(schema)["share"].transform == ""


def test_users_that_are_missing_are_counted(tmp_path):
    path = save(tmp_path / "log.csv", {"ts": ts, "uid": some(u), "vid": v, "click": click})
    _, why = proposed(path)
    assert f"{sum(chance < 0.1):,} of 3,000 rows have none, and --on_bad_row=skip leaves them out" in why["uid"]


# Sides.

@pytest.mark.parametrize(("name", "values", "side"), [
    ("brand", some([f"brand {k % 40}" for k in v], 0.01), "item"),
    ("price", np.where(ts > START + 2 * DAY, 1.1, 1.0) * (v % 3 == 0) + v + 0.5, "item"),
    ("city", ["away" if c < 0.05 else f"city {k % 30}" for c, k in zip(chance, u, strict=True)], "user"),
    ("device", (u + (chance < 0.25)) % 2, "context"), ("nearly_always", (chance > 0.01) * 1, "context"),
    ("constant", np.ones(ROWS, int), "context"), ("is_rare_brand", (v == 7) * 1, "item"),
])
def test_a_column_belongs_to_whom_it_depends_on(tmp_path, name, values, side):
    schema, _ = found(tmp_path, **{name: values})
    assert features(schema)[name].side == side


@pytest.mark.parametrize("side", ["user", "item"])
def test_what_users_and_items_both_decide_is_of_the_fewer(tmp_path, side):
    few, many = u % 20, (u % 20) * 10 + v % 10  # each of the many is met by one of the few
    columns = {"ts": ts, "click": click, "uid": few if side == "user" else many, "vid": many if side == "user" else few,
               "kind": few % 7, "other": many % 11}
    schema, _ = proposed(save(tmp_path / "log.parquet", columns))
    assert features(schema)["kind"].side == side != features(schema)["other"].side


# Keys and counters.

def test_ids_are_hashed_where_rows_have_their_own(tmp_path):
    schema, _ = found(tmp_path, uid=np.arange(ROWS) % 2000 + 10**12)
    assert schema.features[0].hashed and schema.features[0].size >= 8000 and not schema.features[0].min_count


@pytest.mark.parametrize("time", ["", None])
def test_a_log_without_times_has_no_key_of_time_and_no_counters(tmp_path, time):
    schema, _ = proposed(save(tmp_path / "log.csv", {"uid": u, "vid": v, "click": click}), time)
    assert schema.keys == {"user": "uid", "item": "vid"} and {f.name for f in schema.features} == {"uid", "vid"}


def test_counters_are_proposed_for_text_ids_and_feedback_in_the_past(tmp_path):
    schema, _ = converted(tmp_path, uid=[f"u{k}" for k in u], vid=[f"v{k}" for k in v], isLiked=buy)
    assert {"user_clicks", "video_like_rate", "user_impressions"} <= {f.name for f in schema.features}


@pytest.mark.parametrize(("name", "values", "counters"), [
    ("like", np.where(chance < 0.5, "Y", "N"), False), ("video_id", v, False), ("tab", v + 500, False),
    ("topic", v + 0.5, False), ("play_s", np.where(chance < 0.1, np.nan, chance), False),
    ("play_s", some(chance), True), ("like", some(chance < 0.2), True), ("tab", texts(v % 3), True),
    ("topic", v % 5, True),
])
def test_no_counters_where_a_column_that_they_read_is_another(tmp_path, name, values, counters):
    schema, why = converted(tmp_path, **{name: values})
    assert ("user_clicks" in {f.name for f in schema.features}) == counters
    assert why[name].endswith("counters would read it, so none are proposed") != counters


def test_a_flag_that_only_follows_feedback_says_so(tmp_path):
    """Its name is none of feedback: whoever reads the proposal decides whether it is known before."""
    flag = click * (np.arange(ROWS) % 7 == 0)
    schema, why = found(tmp_path, gift_wrap=flag)
    assert tasks(schema)["gift_wrap"] == ("click", False)
    assert "its name is none of feedback: remove it if it is known before the exposure" in why["gift_wrap"]
    assert "none of feedback" not in why["click"]


@pytest.mark.parametrize("column", ["price", "brand"])
def test_no_schema_is_proposed_by_a_column_that_is_no_time(tmp_path, column):
    columns = {"ts": ts, "uid": u, "vid": v, "click": click, "price": np.linspace(1, 90, ROWS),
               "brand": texts(v % 5)}
    path = save(tmp_path / "log.parquet", columns)
    with pytest.raises(UserError, match=f"column '{column}' must be a time from 2000.*Received: .*lack one"):
        propose(str(path), Roles(column, "uid", "vid"), tmp_path / "s")


def test_ids_need_more_rows_than_other_values(tmp_path):
    many = [f"m{i % 200}" for i in range(ROWS)]
    schema, _ = found(tmp_path, maker_id=many, maker=many)
    assert [features(schema)[n].min_count for n in ("maker_id", "maker")] == [100, 10]
