"""The calls of the online features: what they take and return, and what they refuse."""

import dataclasses
import threading

import numpy as np
import pytest

from dlen_cam2.schema import Computed, Known, pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines.features.online import OnlineFeatures
from tests.pipelines.features.test_computed_features import EVERY, LOGS
from tests.support import computed, exposures, online

NOW = computed.START + 40 * computed.HOUR
SHOWN = {"who": "u", "what": 3, "ts": NOW, "brand": "b", "tab": 1}
CANDIDATES = {"what": [3, 4], "brand": ["b", ""]}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shop")
    schema = dataclasses.replace(computed.schema_of(EVERY), known=computed.KNOWN | {
        "buy": Known(at="bought_at", within=3600)})
    online.data_set(directory, schema, lambda snapshots: computed.compute(LOGS["plain"](), schema, snapshots))
    return directory


@pytest.fixture
def features(shop):
    return OnlineFeatures.open(shop, "d0")


def of(features, name, after=1, who="u"):
    """A feature of the two candidates, so many milliseconds after `NOW`."""
    return features.features(who, CANDIDATES, {"tab": 1}, NOW + after)[name].tolist()


def test_columns_are_as_a_served_model_wants_them(tmp_path):
    """A user's have one row, an item's one for each candidate, and lists are padded."""
    log = exposures.LOGS["days"]()
    online.data_set(tmp_path, online.FEED, lambda snapshots: online.compute_feed(log, snapshots))
    with OnlineFeatures.open(tmp_path) as features:
        assert features.day == "d3" and set(features.feedback_columns) == {*exposures.FEEDBACK, "play_s"}
        videos = {"video_id": np.arange(5), "author_id": np.array([0, 1, -1, 0, 1]), "topic": [*"abab", ""]}
        found = features.features(np.int64(1), videos | {"duration_s": np.ones(5)}, {"tab": 1})
    assert set(found) == {f.name for f in online.FEED.features if f.computed}
    for f in online.FEED.features:
        if f.computed:
            rows = {"user": [1], "item": [5], "context": [1, 5]}[f.side]
            values = found[f.name]
            assert len(values) in rows and values.shape[1:] == ((20,) if f.is_list else ())
            assert values.dtype == (np.int64 if f.is_list else np.float32)
    assert found["watched"].max() >= 0 and found["watched"].min() >= -1
    assert found["user_same_video_of_10"].shape == (5,) and found["user_tab_click_rate"].shape == (1,)


def test_feedback_is_not_seen_before_it_is_known(features):
    """It may be given early; a feature at its very millisecond does not see it, either."""
    number = features.update(SHOWN)
    before = of(features, "clicks_1h")[0]
    features.feedback(number, {"click": 1, "dwell": 2.0})
    assert [of(features, "clicks_1h", after)[0] for after in (1, 2000)] == [before, before]
    assert of(features, "clicks_1h", 2001)[0] == before + 1
    assert of(features, "clicks_1h", 1999)[0] == before  # the clock may go back


def test_there_may_be_no_candidates(features):
    """A filter may have left none."""
    found = features.features("u", {"what": [], "brand": np.array([], object)}, {"tab": 1}, NOW)
    assert found["exposures"].shape == (1,) and found["buy_rate"].shape == found["last_bought"].shape == (0,)


def test_an_exposure_is_not_seen_at_its_own_millisecond(features):
    before = of(features, "exposures", 0)
    features.update(SHOWN)
    assert of(features, "exposures", 0) == before and of(features, "exposures", 1) == [before[0] + 1]


def test_feedback_names_its_exposure_by_number_or_by_columns(features):
    """Of equal exposures, the first without such feedback gets it; further columns tell them apart."""
    other = SHOWN | {"tab": 0}
    for shown in (SHOWN, other, SHOWN):
        features.update(shown)
    of_tab, rate = of(features, "clicks_1h")[0], of(features, "click_rate")
    features.feedback({c: SHOWN[c] for c in ("who", "what", "ts")} | {"tab": 0}, {"click": 1, "dwell": 0.0})
    features.feedback(SHOWN, {"click": 1, "dwell": 0.0})
    features.feedback(SHOWN, {"click": 0, "dwell": 0.0})
    assert of(features, "clicks_1h")[0] == of_tab + 2 and of(features, "click_rate") != rate
    features.feedback(SHOWN, {"click": 0, "dwell": 0.0})  # told again
    with pytest.raises(UserError, match="feedback must not change. Received: 'click' = 1, after 0 before"):
        features.feedback(SHOWN, {"click": 1, "dwell": 0.0})


def test_the_time_at_which_feedback_is_known_may_be_given_in_place_of_its_column(features):
    number, before = features.update(SHOWN), of(features, "buys")[0]
    features.feedback(number, {"buy": 1, "price": 3.0}, known=NOW + 5000)
    assert of(features, "buys", 5000)[0] == before and of(features, "buys", 5001)[0] == before + 1


def test_feedback_that_comes_too_late_for_its_label_counts_as_none(features):
    """The log says so, too: within=3600."""
    number, before = features.update(SHOWN), of(features, "buys")[0]
    late = NOW + 3_600_001
    features.feedback(number, {"buy": 1, "price": 3.0, "bought_at": late})
    assert of(features, "buys", 2 * computed.HOUR)[0] == before


@pytest.mark.parametrize(("call", "message"), [
    (lambda f: f.update(SHOWN | {"colour": 1}),
     r"an exposure must have columns of the schema and the log only. Received: \['colour'\]"),
    (lambda f: f.update({c: v for c, v in SHOWN.items() if c != "brand"}), "must have the column 'brand'. Received"),
    (lambda f: f.update(SHOWN | {"tab": None}), "column 'tab' must have a value in every exposure. Received: None"),
    (lambda f: f.update(SHOWN | {"what": "x"}), "column 'what' must be an integer. Received: 'x'"),
    (lambda f: f.update(SHOWN | {"dwell": float("nan"), "click": 0}), "column 'dwell' must be a finite number. Rec"),
    (lambda f: f.update(SHOWN | {"ts": computed.START - 90 * computed.HOUR}),
     r"column 'ts' must be at most 23 hours before the newest exposure of the snapshot, since counters before "
     r"time_ms=\d+ are closed. Received: \d+"),
    (lambda f: f.update(SHOWN | {"ts": NOW * 1000}), "'ts' must be milliseconds since 1970, before the year 2100. Rec"),
    (lambda f: f.update(SHOWN | {"exposures": 1.0}), r"Received: \['exposures'\]"),
    (lambda f: f.features("u", CANDIDATES, {"tab": 1}, 0), "now must be at most 23 hours before the newest"),
    (lambda f: f.features("u", CANDIDATES), "the candidates or the context must have the column 'tab'. Received"),
    (lambda f: f.features("u", {"brand": ["a"]}, {"tab": 1}), "candidates must have the column 'what'. Received"),
    (lambda f: f.features("u", CANDIDATES | {"tab": [1]}), "column 'tab' must have a value for each of the 2 cand"),
    (lambda f: f.features("u", CANDIDATES, {"tab": 1, "brand": "a"}), r"Received as both: \['brand'\]"),
    (lambda f: f.features("u", CANDIDATES | {"x": [1, 2]}, {"tab": 1}), r"candidates must have columns .*\['x'\]"),
    (lambda f: f.features("u", CANDIDATES | {"brand": ["a", None]}, {"tab": 1}), "'brand' must have a value. Rec"),
    (lambda f: f.features("u", CANDIDATES | {"what": [1.5, 2]}, {"tab": 1}), "'what' must be an integer. Received: 1"),
    (lambda f: f.features("u", CANDIDATES | {"what": [[1], [2]]}, {"tab": 1}), r"Received: shape \(2, 1\)"),
    (lambda f: f.features(7, CANDIDATES, {"tab": 1}), "column 'who' must be a text. Received: 7"),
    (lambda f: f.feedback(SHOWN, {"click": 1, "dwell": 1.0}),
     "feedback must be for an exposure of the last 7 days that was given to update. Received: {'who': 'u'"),
    (lambda f: f.feedback(10**9, {"click": 1, "dwell": 1.0}), "Received: 1000000000"),
    (lambda f: f.feedback({"who": "u"}, {"click": 1}), "feedback must name the column 'what' of its exposure"),
    (lambda f: f.feedback(f.update(SHOWN), {"click": 1}),
     "feedback 'click' must come with the column 'dwell', or known=MILLISECONDS, which say when it is known"),
    (lambda f: f.feedback(f.update(SHOWN), {"clicks": 1}), r"feedback must have columns .*Received: \['clicks'\]"),
])
def test_what_cannot_be_used_is_refused_in_one_line_and_changes_nothing(call, message, features):
    before = of(features, "exposures")
    with pytest.raises(UserError, match=message) as caught:
        call(features)
    assert "\n" not in str(caught.value)
    assert of(features, "exposures") in (before, [before[0] + 1])  # feedback, too, may follow an exposure


def test_a_snapshot_must_be_there_and_of_the_schema(shop, tmp_path):
    with pytest.raises(UserError, match="is not a data set"):
        OnlineFeatures.open(tmp_path)
    schema = pbtxt.load(shop)
    pbtxt.save(schema, tmp_path)
    with pytest.raises(UserError, match="snapshots must have a snapshot: .*Received: none"):
        OnlineFeatures.open(tmp_path)
    (tmp_path / "snapshots").symlink_to(shop / "snapshots")
    with pytest.raises(UserError, match="must have a snapshot of the day. Received: day 'd7'. Known: d0, d1, d2"):
        OnlineFeatures.open(tmp_path, "d7")
    pbtxt.save(computed.schema_of(EVERY | {"more": Computed("count", ("what",))}), tmp_path)
    with pytest.raises(UserError, match="d2 must be a snapshot of the features that the schema declares"):
        OnlineFeatures.open(tmp_path)
    pbtxt.save(computed.schema_of(EVERY | {"more": Computed("sum", ("what",), value="weight")}), tmp_path)
    with pytest.raises(UserError, match="d2 must be a snapshot of the schema's features. Received: .*'weight'"):
        OnlineFeatures.open(tmp_path)


def test_exposures_wait_for_feedback_as_long_as_asked(shop):
    """Then they are forgotten, so that memory does not grow."""
    for days, there in ((20.0, True), (0.5, False)):
        features = OnlineFeatures.open(shop, "d0", feedback_days=days)
        number = features.update(SHOWN | {"ts": NOW - 10 * computed.HOUR})
        features.update(SHOWN | {"ts": NOW + 9 * computed.DAY})  # no window is as long
        features.compact()
        if there:
            features.feedback(number, {"click": 1, "dwell": 1.0})
        else:
            with pytest.raises(UserError, match="an exposure of the last 0.5 days"):
                features.feedback(number, {"click": 1, "dwell": 1.0})


def test_threads_may_share_the_features(features):
    """A server answers from several threads; no update may be lost."""
    before = of(features, "exposures", 500)[0]

    def work(n):
        for k in range(50):
            features.feedback(features.update(SHOWN | {"ts": NOW + 4 * k + n}), {"click": 1, "dwell": 0.0})
            of(features, "click_rate", 4 * k + n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert of(features, "exposures", 500)[0] == before + 200
