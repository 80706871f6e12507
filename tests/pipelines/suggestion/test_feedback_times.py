"""The time of a purchase is found by its values, in any form of a time."""

import datetime

import numpy as np
import pytest

from dlen_cam2.schema import Known
from tests.support.proposals import START, buy, click, converted, found, ts

later = ts + np.where(buy, 5_400_000, 0)
ALWAYS = np.ones(len(ts), bool)


def moment(t):
    return datetime.datetime.fromtimestamp(t / 1000, datetime.UTC)


FORMS = {"milliseconds": int, "text": lambda t: moment(t).isoformat(), "timestamp": moment}


def where(labels, times, form="milliseconds"):
    return [FORMS[form](t) if label else None for label, t in zip(labels.tolist(), times.tolist(), strict=True)]


@pytest.mark.parametrize("form", FORMS)
def test_the_time_of_a_purchase_is_known_at_and_its_last_outcome_is_not_proposed(tmp_path, form):
    schema, why = converted(tmp_path, ts=where(ALWAYS, ts, form), buy=buy, paid=where(buy, later, form))
    assert schema.known == {"buy": Known(at="paid")}
    assert why["paid"] == "the time at which buy is known (known_at)" and why["buy"].endswith("it is known at paid")
    assert "taken to be known right after the exposure" in why["click"]
    assert "uid_last_buy" not in {f.name for f in schema.features} and "uid_last_click" in why


def test_what_follows_a_purchase_is_known_no_earlier(tmp_path):
    back = buy & (np.arange(len(ts)) % 3 == 0)
    schema, why = converted(tmp_path, buy=buy, returned=back, paid=where(buy, later))
    assert schema.known == {"buy": Known(at="paid")} and "uid_last_return" not in {f.name for f in schema.features}
    assert "taken to be known at paid, or at a later time" in why["returned"]


def test_of_several_labels_it_is_the_one_that_agrees(tmp_path):
    schema, _ = found(tmp_path, buy=buy, at=where(click, ts + 1))
    assert schema.known == {"click": Known(at="at")}


@pytest.mark.parametrize("times", [
    where(buy, np.where(np.arange(len(ts)) == np.flatnonzero(buy)[0], START, later) - 1),  # one is before its exposure
    [None if k == np.flatnonzero(buy)[0] else t for k, t in enumerate(where(buy, later))],  # one is missing
    where(ALWAYS, ts + 1),  # all have one
])
def test_what_is_no_time_of_the_feedback_stays_left_out(tmp_path, times):
    schema, why = found(tmp_path, buy=buy, at=times)
    assert "buy" not in schema.known and why["at"].startswith("left out: it is a date or time")
