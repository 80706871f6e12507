"""What is proposed to be computed from any log: by which keys, of which feedback, over which time."""

import re

import numpy as np
import pytest

from dlen_cam2.schema import Computed, Feature, Task, pbtxt
from pipelines.from_logs import Roles, convert
from pipelines.suggestion.propose_computed import costs, propose_computed
from tests.support import shop
from tests.support.logs import read_all
from tests.support.proposals import (
    ROWS,
    chance,
    click,
    computed,
    converted,
    found,
    proposed,
    save,
    some,
    texts,
    ts,
    u,
    v,
)

TASKS = (Task("click"), Task("cart", label="added"), Task("buy", mask="click"), Task("stars", kind="regression"))
LABELS = {"cart": "added"}
RATES = {"click": 0.2, "added": 0.06, "buy": 0.01}
VALUES = {"who": 900, "what": 100, "seller": 51, "brand": 50, "shelf": 12, "category": 8, "colour": 3, "kind": 1,
          "device": 3, "query": 400, "hour": 24, "slot": 20, "city": 7}


def ids(name, side, **how):
    return Feature(name, "string", side, "content", **{"min_count": 1, "width": 2} | how)


FEATURES = (ids("who", "user"), ids("city", "user"), ids("what", "item"),
            *(ids(name, "item") for name in ("colour", "kind", "seller", "brand", "category", "shelf")),
            ids("tags", "item", max_length=4), Feature("price", "float", "item", "content"),
            *(ids(name, "context") for name in ("device", "query", "hour", "slot")))


def propose(features=FEATURES, tasks=TASKS, **how):
    made, why = propose_computed(features, tasks, RATES, VALUES | {"tags": 9, "price": 60}, "who", "what", (), **how)
    assert list(why) == [f.name for f in made] and all(reason.startswith("computed: ") for reason in why.values())
    return {f.name: f for f in made}


def declared(**how):
    return {name: f.computed for name, f in propose(**how).items()}


# === Which keys, of what, over what ===

def test_is_counted_by_the_columns_of_the_item_with_the_most_values_but_not_by_almost_the_item():
    keys = {c.by for c in declared().values()}
    assert keys == {("who",), ("what",), ("brand",), ("shelf",), ("category",), ("who", "what"), ("who", "brand"),
                    ("who", "shelf"), ("who", "category"), ("who", "device"), ("who", "hour")}
    # Of few items, a column of two values is one by which is counted.
    made, _ = propose_computed((ids("a", "item"), ids("b", "item")), TASKS[:1], RATES,
                               {"who": 9, "what": 3, "a": 2, "b": 3}, "who", "what", ())
    assert {f.computed.by for f in made} == {("who",), ("what",), ("a",), ("who", "what"), ("who", "a")}


def test_every_task_has_a_rate_for_the_user_the_item_and_what_it_shares():
    made = declared()
    for key in ("who", "what", "brand", "shelf", "category"):
        assert made[f"{key}_exposures"] == Computed("count", (key,))
        assert made[f"{key}_click_rate"] == Computed("rate", (key,), of="click", strength=10, start=0.5)
        assert made[f"{key}_cart_rate"] == Computed("rate", (key,), of="added", strength=10, start=0.5)
        assert made[f"{key}_buy_rate"] == Computed("rate", (key,), of="buy", strength=30, start=0.05)
    assert not [name for name in made if "stars" in name]  # a number has no rate


def test_the_user_with_each_key_has_rates_of_what_is_often_and_the_age_of_what_is_rare():
    made = declared()
    for key in ("what", "brand", "shelf", "category", "device", "hour"):
        by = ("who", key)
        assert made[f"who_{key}_exposures"] == Computed("count", by)
        for often in ("click", "cart"):
            assert made[f"who_{key}_{often}_rate"] == Computed(
                "rate", by, of=LABELS.get(often, often), strength=10, prior=f"who_{often}_rate")
            assert f"who_{key}_{often}_age" not in made
        assert f"who_{key}_buy_rate" not in made
        # Since the last purchase in the category; on a device it says nothing.
        of_item = key not in ("device", "hour")
        assert made.get(f"who_{key}_buy_age") == (Computed("age", by, of="buy") if of_item else None)


def test_the_session_is_told_by_the_two_tasks_that_are_most_often_positive():
    made = declared(tasks=TASKS[::-1])
    for window in ("10m", "1h", "1d"):
        assert made[f"who_exposures_{window}"] == Computed("count", ("who",), over=window)
        for task in ("click", "cart"):
            assert made[f"who_{task}_{window}"] == Computed("count", ("who",), of=LABELS.get(task, task), over=window)
    assert made["who_session_exposures"] == Computed("count", ("who",), over="session 30m")
    for task in ("click", "cart"):
        assert made[f"who_last_{task}"] == Computed("last", ("who",), value=LABELS.get(task, task))
        for last in (3, 10):
            assert made[f"who_{task}_of_{last}"] == Computed(
                "mean", ("who",), value=LABELS.get(task, task), over=f"last {last}")
    assert not {"who_last_buy", "who_buy_of_3", "who_buy_10m"} & made.keys()
    for task in ("click", "cart", "buy"):
        assert made[f"who_{task}_age"] == Computed("age", ("who",), of=LABELS.get(task, task))
    assert made["who_age"] == Computed("age", ("who",))


def test_whether_the_user_has_just_seen_the_same_is_asked_of_the_columns_of_the_item():
    made = declared()
    same = {name: c for name, c in made.items() if c.kind == "same"}
    assert same == {f"who_same_{key}_{n}": Computed("same", ("who",), value=key, over=f"last {n}")
                    for key in ("brand", "shelf", "category") for n in (1, 3)}


def test_feedback_that_comes_at_a_time_of_its_own_has_no_last_outcome():
    """Whether the last exposure will be bought is not known yet; what has been bought is."""
    made = declared(known_at=("click", "buy"))
    assert not {"who_last_click", "who_click_of_3", "who_click_of_10"} & made.keys()
    assert {"who_last_cart", "who_cart_of_3", "who_click_10m", "who_click_rate", "who_click_age"} <= made.keys()


def test_a_feature_is_of_the_side_of_its_key_and_read_as_what_it_is():
    for name, f in propose().items():
        c = f.computed
        side = "context" if len(c.by) > 1 or c.kind == "same" else "user" if c.by == ("who",) else "item"
        assert f.side == side, name
        assert (f.dtype, f.cause) == ("float", "statistical")
        assert f.transform == {"rate": "logit", "count": "log1p", "age": "log1p"}.get(c.kind, ""), name


def test_what_it_costs_is_said():
    made = list(propose().values())
    pairs = {(f.computed.by, f.computed.over) for f in made}
    assert costs(made).startswith(f"{len(made)} computed features, by 11 keys and {len(pairs)} pairs of key and window")


# === Names ===

def test_a_name_that_a_column_has_is_not_taken_and_what_is_smoothed_towards_it_follows():
    taken = {"who_click_rate": "float", "who_brand_exposures": "string", "brand_exposures": "float"}
    own = [Feature(n, "float", "user", "statistical") if t == "float" else ids(n, "context") for n, t in taken.items()]
    made, why = propose_computed((*FEATURES, *own), TASKS, RATES, VALUES | dict.fromkeys((*taken, "tags", "price"), 99),
                                 "who", "what", taken)
    names = {f.name for f in made}
    assert len(names) == len(made) == len(propose()) == len(why) and not names & taken.keys()
    rates = {f.name for f in made if f.computed.kind == "rate"}
    priors = {f.computed.prior for f in made if f.computed.prior}
    assert priors <= rates, priors - rates


@pytest.mark.parametrize(("name", "values"), [
    ("uid_click_rate", (u % 97) / 97),  # a feature of the user
    ("uid_click_rate", chance * 3),  # a feature of the context
    ("uid_age", some(chance * 5)),  # left out, since it lacks values
    ("uid_age", ts),  # left out, since it is a time
    ("uid_exposures", [[0.5, 1.0]] * ROWS),  # left out, since it is of no type that a feature has
    ("vid_exposures", np.ones(ROWS, int)), ("uid_click_1h", click & (chance < 0.5)),  # a task
    ("uid_last_click", v % 5), ("UID_exposures", chance * 3), ("uid_vid_exposures", v % 20),
])
def test_names_never_clash_with_columns_of_the_log(tmp_path, name, values):
    schema, _ = converted(tmp_path, **{name: values})
    assert name not in computed(schema)
    assert {"uid_click_age", "vid_click_rate"} <= computed(schema).keys()


def test_a_name_like_those_of_our_own_columns_is_no_key(tmp_path):
    schema, _ = converted(tmp_path, __brand=v % 30)
    assert "__brand" in {f.name for f in schema.features}
    assert "__brand" not in {column for c in computed(schema).values() for column in c.by}


@pytest.mark.parametrize("name", [
    "size, colour", " brand ", "a:b", "größe (m²)", "it's", "select", "n_click", "number",
    "before", "value_vid", "computed"])
def test_a_key_of_any_name_comes_back_from_a_file_and_converts(tmp_path, name):
    """Names of the tables and their columns are ours; the log may have them, too."""
    (tmp_path / "other").mkdir()
    schema, _ = converted(tmp_path, **{name: v % 30})
    converted(tmp_path / "other", brand=v % 30)
    assert (name,) in {c.by for c in computed(schema).values()}
    rows, wanted = (read_all(directory / "out") for directory in (tmp_path, tmp_path / "other"))
    for row, like in zip(rows, wanted, strict=True):
        assert [row[n] for n in schema.columns] == list(like.values())


@pytest.mark.parametrize("values", [chance * 500, some(chance * 500)])
def test_a_task_may_have_the_name_of_another_column(tmp_path, values):
    """The task of `is_click` is called click; what the log calls click is not what is counted."""
    path = save(tmp_path / "log.parquet", {"ts": ts, "uid": u, "vid": v, "is_click": click, "click": values})
    schema, _ = proposed(path)
    convert(str(path), schema, Roles("ts", "uid", "vid"), str(tmp_path / "out"))
    last = {}
    for row in read_all(tmp_path / "out"):
        assert row["uid_last_click"] == last.get(row["uid"], 0)
        last[row["uid"]] = row["is_click"]


# === Whole logs ===

@pytest.mark.slow
def test_a_shops_proposal_converts(tmp_path):
    made = shop.make(20_000, 4)
    pattern = made.write(tmp_path / "shop", 1)
    schema, why = proposed(tmp_path / "shop" / "part-0.parquet", "shown_at", "visitor", "sku", "explored")
    declared = computed(schema)
    assert {c.by for c in declared.values()} == {
        ("visitor",), ("sku",), ("brand",), ("category",), ("visitor", "sku"), ("visitor", "brand"),
        ("visitor", "category"), ("visitor", "device"), ("visitor", "hour")}
    rates = {task: made.log.column(task).to_numpy().mean() for task in shop.TASKS}
    assert rates["add_to_cart"] > 0.05 > rates["return_item"]
    for task, rate in rates.items():
        assert {f"{key}_{task}_rate" for key in ("visitor", "sku", "brand", "category")} <= declared.keys()
        assert (f"visitor_category_{task}_age" in declared) == (rate < 0.05) != (
            f"visitor_category_{task}_rate" in declared)
    assert {"visitor_last_click", "visitor_add_to_cart_of_3", "visitor_click_10m"} <= declared.keys()
    assert "visitor_last_return_item" not in declared
    assert set(why) >= declared.keys()
    pbtxt.save(schema, tmp_path)
    assert pbtxt.load(tmp_path) == schema
    convert(pattern, schema, Roles("shown_at", "visitor", "sku", "explored"), str(tmp_path / "out"))
    assert {len(row) for row in read_all(tmp_path / "out")} == {len(schema.columns)}
    last = {}
    for row in sorted(read_all(tmp_path / "out"), key=lambda row: row["shown_at"]):  # all times differ, or nearly all
        if row["visitor"] in last and row["shown_at"] > last[row["visitor"]]["shown_at"]:
            assert row["visitor_last_click"] == last[row["visitor"]]["click"]
        last[row["visitor"]] = row


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_a_news_log_with_one_task_and_dwell_time(tmp_path, ending):
    log = {"at": ts, "reader": texts(u), "article": [f"a{k}" for k in v], "section": some(texts(v % 9), 0.01),
           "topic": texts(v % 40), "platform": texts((chance * 3).astype(int)), "opened": click,
           "dwellTime": np.where(click, chance * 90, 0.0)}
    path = save(tmp_path / f"log{ending}", log)
    schema, why = proposed(path, "at", "reader", "article")
    assert schema.targets == ("dwellTime",) and [t.name for t in schema.tasks] == ["open"]
    declared = computed(schema)
    assert {c.by for c in declared.values()} == {
        ("reader",), ("article",), ("section",), ("topic",), ("reader", "article"), ("reader", "section"),
        ("reader", "topic"), ("reader", "platform")}
    assert {"reader_open_rate", "reader_last_open", "reader_open_of_10", "reader_section_open_rate",
            "reader_same_topic_1"} <= declared.keys()
    assert not [n for n, c in declared.items() if "dwellTime" in c.columns] and set(why) > declared.keys()
    convert(str(path), schema, Roles("at", "reader", "article"), str(tmp_path / "out"))
    rows = read_all(tmp_path / "out")
    assert len(rows) == ROWS and {row["reader_last_open"] for row in rows} == {0.0, 1.0}
    seen = [row for row in rows if row["reader"] == "7"]
    assert [row["reader_exposures"] for row in seen] == list(range(len(seen)))


def test_a_log_without_other_columns_has_a_proposal_that_converts(tmp_path):
    schema, why = converted(tmp_path)
    assert {c.by for c in computed(schema).values()} == {("uid",), ("vid",), ("uid", "vid")}
    assert all(re.match("computed: ", why[name]) for name in computed(schema))


def test_what_is_proposed_may_be_left_out_one_by_one(tmp_path):
    """But for rates that others are smoothed towards, whose absence is said."""
    schema, _ = found(tmp_path, brand=v % 30)
    for name in ("uid_exposures", "brand_click_rate", "uid_brand_click_rate", "uid_last_click", "brand"):
        convert(str(tmp_path / "log.parquet"), schema.select(without=[name]), Roles("ts", "uid", "vid"),
                str(tmp_path / "out"))
        assert name not in read_all(tmp_path / "out")[0]
