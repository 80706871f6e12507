"""The schema that is proposed for other people's logs: the shop's, masks, sides, keys and what is computed."""

import datetime
import uuid

import numpy as np
import pytest

from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines.engines import connect
from pipelines.from_logs import Roles, convert, propose
from pipelines.logs.log_files import open_log
from pipelines.suggestion.suggest import suggest
from tests.support import shop
from tests.support.builders import command
from tests.support.proposals import (
    DAY,
    ROWS,
    START,
    buy,
    cart,
    chance,
    click,
    computed,
    converted,
    features,
    found,
    proposed,
    save,
    some,
    tasks,
    texts,
    ts,
    u,
    v,
)


@pytest.mark.slow
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
    assert f"a task: {ones:,} of 20,000 rows are 1" in why["purchase"] and "mask is add_to_cart" in why["purchase"]
    convert(pattern, schema, Roles("shown_at", "visitor", "sku", random), str(tmp_path / "out"))


@pytest.mark.slow
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
    for line in ("sessionId: left out: ", "requestId: left out: ", "publishedAt: left out: it is a date or time such",
                 "timeOfDay: left out: it is a time of day such as 23:", "isClicked: a task: ", "dwellTime: a target"):
        assert f"\n{line}" in done.stdout
    schema = pbtxt.loads((tmp_path / "my.pbtxt").read_text())
    assert tasks(schema) == {"isClicked": ("", False), "isShared": ("isClicked", False)}
    assert {name: f.side for name, f in features(schema).items()} == {
        "userId": "user", "articleId": "item", "articleSection": "item", "hasVideo": "item", "isSubscriber": "user",
        "weekday": "context", "ageDays": "context"}
    done = command("pipelines.from_logs", *flags, f"--out={tmp_path / 'out'}")
    assert done.returncode == 0 and "3,000 rows in 3 splits" in done.stdout, done.stderr


def test_the_mask_is_the_nearest_feedback_that_lies_around_it(tmp_path):
    odd = np.flatnonzero(~cart)[:3]  # bought without the cart: of about 180
    bought = buy.copy()
    bought[odd] = True
    skip = ~click & (chance < 0.2)
    schema, why = converted(tmp_path, add_to_cart=cart, checkout_flag=buy, purchase=bought, skip=skip)
    assert tasks(schema) == {"click": ("", False), "add_to_cart": ("click", False), "purchase": ("add_to_cart", False),
                             "checkout_flag": ("add_to_cart", False), "skip": ("", True)}
    inside = f"its mask is add_to_cart, which is 1 in {buy.sum() / bought.sum():.1%} of these rows"
    assert f"{inside}, and the other 3 do not count" in why["purchase"]
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
    assert "an attribute, although its name is of feedback" in why["video_download"]


def test_feedback_that_is_not_0_and_1_is_named(tmp_path):
    shared = ["yes" if x < 0.2 else "no" for x in chance]
    _, why = found(tmp_path, shared=shared)
    assert why["shared"].endswith("must be 0 and 1 or true and false. Received: ['yes', 'no']")
    path = save(tmp_path / "log.csv", {"ts": ts, "uid": u, "vid": v, "shared": shared})
    with pytest.raises(UserError, match="'shared' is left out: .*Received.*Otherwise write the schema by hand"):
        proposed(path)


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


def test_ids_are_hashed_where_rows_have_their_own(tmp_path):
    schema, _ = found(tmp_path, uid=np.arange(ROWS) % 2000 + 10**12)
    assert schema.features[0].hashed and schema.features[0].size >= 8000 and not schema.features[0].min_count


@pytest.mark.parametrize("time", ["", None])
def test_a_log_without_times_has_no_key_of_time_and_no_computed_features(tmp_path, time):
    schema, _ = proposed(save(tmp_path / "log.csv", {"uid": u, "vid": v, "click": click}), time)
    assert schema.keys == {"user": "uid", "item": "vid"} and {f.name for f in schema.features} == {"uid", "vid"}


def test_features_are_computed_for_text_ids_and_feedback_in_the_past(tmp_path):
    schema, _ = converted(tmp_path, uid=[f"u{k}" for k in u], vid=[f"v{k}" for k in v], isLiked=buy)
    assert {"uid_click_rate", "vid_like_rate", "uid_exposures"} <= computed(schema).keys()
    assert computed(schema)["uid_like_age"].of == "isLiked" and tasks(schema)["isLiked"] == ("click", False)


# Names that once had a meaning of their own; whether the column is left out, and whether it becomes a key.
@pytest.mark.parametrize(("name", "values", "left_out", "key"), [
    ("like", np.where(chance < 0.5, "Y", "N"), True, False), ("video_id", v, False, False),
    ("tab", v + 500, False, False), ("topic", v + 0.5, False, False),
    ("play_s", np.where(chance < 0.1, np.nan, chance), True, False), ("play_s", some(chance), True, False),
    ("like", some(chance < 0.2), True, False), ("tab", texts(v % 3), False, True), ("topic", v % 5, False, True),
])
def test_no_feature_is_computed_by_the_name_of_a_column(tmp_path, name, values, left_out, key):
    schema, why = converted(tmp_path, **{name: values})
    assert {"uid_exposures", "uid_click_rate", "vid_click_rate"} <= computed(schema).keys()
    assert why[name].startswith("left out: ") == left_out
    assert any(name in c.columns for c in computed(schema).values()) == key


def test_a_flag_that_only_follows_feedback_says_so(tmp_path):
    """Its name is none of feedback: whoever reads the proposal decides whether it is known before."""
    flag = click * (np.arange(ROWS) % 7 == 0)
    schema, why = found(tmp_path, gift_wrap=flag)
    assert tasks(schema)["gift_wrap"] == ("click", False)
    assert "its name is not of feedback: remove it if it is known before the exposure" in why["gift_wrap"]
    assert "not of feedback" not in why["click"]


@pytest.mark.parametrize("column", ["price", "brand"])
def test_no_schema_is_proposed_by_a_column_that_is_no_time(tmp_path, column):
    columns = {"ts": ts, "uid": u, "vid": v, "click": click, "price": np.linspace(1, 90, ROWS),
               "brand": texts(v % 5)}
    path = save(tmp_path / "log.parquet", columns)
    with pytest.raises(UserError, match=f"column '{column}' must be a time from 2000.*Received: .*have no such time"):
        propose(str(path), Roles(column, "uid", "vid"), tmp_path / "s")


def test_ids_need_more_rows_than_other_values(tmp_path):
    many = [f"m{i % 200}" for i in range(ROWS)]
    schema, _ = found(tmp_path, maker_id=many, maker=many)
    assert [features(schema)[n].min_count for n in ("maker_id", "maker")] == [100, 10]
