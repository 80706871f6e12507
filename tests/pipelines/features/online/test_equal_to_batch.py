"""The online features are those of the pipeline, bit for bit."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlen_cam2.utils.errors import UserError
from tests.pipelines.features.test_computed_features import COMPUTED, EVERY, LOGS
from tests.support import computed, exposures, online

FEEDS = [name for name, log in exposures.LOGS.items() if len(online.days(log(), exposures.day_of)) > 1]


def play_days(replay, directory, log, day_of, after=None):
    """Each day from the snapshot of the day before."""
    days, played = online.days(log, day_of), {}
    for before, day in zip(days, days[1:], strict=False):
        with online.opened(directory, before) as features:
            played |= replay.play(features, [e for e in log if day_of(e) == day])
    return played


def many_days(name, directory):
    """A log of many days, how to find an exposure's day, the pipeline's features, and who replays it."""
    if name == "shop":
        log, schema = LOGS["many days"](), computed.schema_of(EVERY)
        wanted = online.data_set(directory, schema, lambda snapshots: computed.compute(log, schema, snapshots))
        return log, computed.day_of, wanted, online.shop(schema)
    log = exposures.LOGS["many days"]()
    wanted = online.data_set(directory, online.FEED, lambda snapshots: online.compute_feed(log, snapshots))
    return log, exposures.day_of, wanted, online.feed()


@pytest.mark.parametrize("name", LOGS)
def test_a_day_that_is_played_gives_the_rows_of_the_pipeline(name, tmp_path):
    """Served features are those that the model was trained on."""
    log, schema = LOGS[name](), computed.schema_of(EVERY)
    wanted = online.data_set(tmp_path, schema, lambda snapshots: computed.compute(log, schema, snapshots))
    replay = online.shop(schema)
    played = play_days(replay, tmp_path, log, computed.day_of)
    assert online.differences(played, wanted) == []
    assert len(played) > 40 and replay.early > 10


@pytest.mark.parametrize(("name", "schema"), [
    *((name, online.FEED) for name in FEEDS), ("days", exposures.SCHEMA), ("days with ties", exposures.SCHEMA)])
def test_a_day_of_the_feed_gives_the_rows_of_the_pipeline(name, schema, tmp_path):
    """The features of KuaiRand and of the simulator; days overlap by hours, and older feedback is partly unknown.

    Feedback is known after the play or, with the second schema, at once.
    """
    log = exposures.LOGS[name]()
    wanted = online.data_set(tmp_path, schema, lambda snapshots: online.compute_feed(log, snapshots, schema))
    played = play_days(online.feed(schema), tmp_path, log, exposures.day_of)
    assert online.differences(played, wanted) == []
    assert played


@pytest.mark.parametrize("compact", [False, True], ids=["never compacted", "compacted at every tenth moment"])
@pytest.mark.parametrize("name", ["shop", "feed"])
def test_days_that_follow_each_other_need_no_new_snapshot(name, compact, tmp_path):
    """The state goes on for days, with feedback of a day before and exposures that come hours late."""
    log, day_of, wanted, replay = many_days(name, tmp_path)
    days, played = online.days(log, day_of), {}
    with online.opened(tmp_path, days[0]) as features:
        for day in days[1:]:
            played |= replay.play(features, [e for e in log if day_of(e) == day],
                                  lambda n, features=features: compact and n % 10 == 9 and features.compact())
    assert online.differences(played, wanted) == []
    assert len(played) > 100


def test_feedback_that_will_never_be_known_is_given_as_none_with_the_exposure(tmp_path):
    """A rate counts an exposure from its time on, unless nothing will be known of it."""
    rng, log = np.random.default_rng(0), exposures.LOGS["days"]()
    for e in log:
        if rng.random() < 0.3:
            e |= dict.fromkeys(online.UNKNOWN)
    wanted = online.data_set(tmp_path, online.FEED, lambda snapshots: online.compute_feed(log, snapshots))
    played = play_days(online.feed(), tmp_path, log, exposures.day_of)
    assert online.differences(played, wanted) == [] and len(played) > 100


def test_a_time_that_is_missing_in_some_rows_counts_where_it_is_there(tmp_path):
    """The log lacks some prices and dwell times, as numbers that only features read may be lacking."""
    rng, log = np.random.default_rng(0), LOGS["plain"]()
    for e in log:
        if rng.random() < 0.3:
            e |= {"price": None} | ({"dwell": None} if rng.random() < 0.5 else {})
    schema, unknown = computed.schema_of(EVERY), ("price", "dwell")
    wanted = online.data_set(
        tmp_path, schema, lambda snapshots: computed.compute(log, schema, snapshots, unknown=unknown))
    played = play_days(online.shop(schema), tmp_path, log, computed.day_of)
    assert online.differences(played, wanted) == [] and len(played) > 40


@pytest.mark.parametrize("name", ["shop", "feed"])
def test_feedback_that_is_told_days_after_it_was_known_counts_from_when_it_was_known(name, tmp_path):
    """Reports fail, and come when the counters have been compacted; the days after that are as if they had not."""
    log, day_of, wanted, replay = many_days(name, tmp_path)
    first, *days = online.days(log, day_of)
    played = {}
    with online.opened(tmp_path, first) as features:
        seen = replay.play(features, [e for e in log if day_of(e) in days[:4]],
                           lambda n: n == -1 and features.compact(), hold=True)
        for day in days[4:]:
            played |= replay.play(features, [e for e in log if day_of(e) == day])
    assert online.differences(seen, wanted)  # of course
    assert online.differences(played, wanted) == [] and len(played) > 30


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(COMPUTED, min_size=1, max_size=4), st.integers(0, 99))
def test_any_features_of_any_log(tmp_path_factory, features, seed):
    log = [e | {"tab": e["tab"] or 0} for e in computed.random_log(seed, rows=40, moments=12)]
    schema = computed.schema_of({f"f{n}": c for n, c in enumerate(features)})
    schema, directory = dataclasses.replace(schema, text_keys=("who",)), tmp_path_factory.mktemp("any")
    try:
        wanted = online.data_set(directory, schema, lambda snapshots: computed.compute(log, schema, snapshots))
    except UserError as error:  # some combinations are refused
        assume("must be of events that are known at" not in str(error))
        raise
    played = play_days(online.shop(schema, seed), directory, log, computed.day_of)
    assert online.differences(played, wanted) == []


def test_float32_is_what_the_data_set_holds(tmp_path):
    """The default type is that of the shards and of the signature `rank`."""
    log, schema = LOGS["plain"](), computed.schema_of(EVERY)
    online.data_set(tmp_path, schema, lambda snapshots: computed.compute(log, schema, snapshots))
    e = next(e for e in log if computed.day_of(e) == "d1")
    wide, narrow = (online.shop(schema).ask(online.opened(tmp_path, "d0", dtype=dtype), e)
                    for dtype in (np.float64, np.float32))
    for f in schema.features:
        if f.computed and f.is_numeric:
            assert narrow[f.name].dtype == np.float32 and narrow[f.name] == np.float32(wide[f.name])
