"""A candidate against the live version."""

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2.serving import request_log, version_comparison, versions
from dlen_cam2.utils.errors import UserError
from tests.support.builders import command
from tests.support.saved_models import log, save


# A candidate against the live version.
def compared(live, candidate):
    before, after = (version_comparison.Replay({"click": np.array(scores)}, []) for scores in (live, candidate))
    return version_comparison.compare(before, after)


def test_drift_by_hand():
    d = compared([0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.3, 0.5])["click"]
    assert (d.live, d.candidate) == pytest.approx((0.25, 0.275))
    assert d.drift == pytest.approx(0.1)
    assert (d.mean_difference, d.max_difference) == pytest.approx((0.075, 0.1))
    assert d.moved == 0.25  # 0.1 -> 0.2; 0.2 -> 0.1 is just half, up to rounding
    assert d.agreement == pytest.approx(1 - 6 * 2 / (4 * 15))  # ranks 1234 and 2134: Spearman, d² = 1 + 1
    assert d.broken == 0


def test_scores_that_are_not_finite_or_all_alike():
    d = compared([1.0, 2.0, 3.0], [np.nan, 2.0, np.inf])["click"]
    assert (d.broken, d.live, d.candidate) == (2, 2.0, 2.0)
    assert compared([1.0, 2.0], [np.nan, np.nan])["click"].broken == 2
    assert compared([1.0, 2.0], [1.5, 1.5])["click"].agreement == 0.0
    assert compared([1.0, 1.0 + 1e-9], [1.0, 2.0])["click"].agreement is None
    assert compared([0.0, 0.0], [0.0, 0.0])["click"].drift == 0.0
    assert compared([0.0, 0.0], [0.0, 0.1])["click"].drift == np.inf


def test_limits():
    fine = compared([1.0, 2.0, 3.0], [1.5, 3.0, 4.5])
    assert version_comparison.failures(fine, 0.5, 1.0) == []
    assert version_comparison.failures(fine, 0.49, 0) == ["click drifted by +50.0%, more than 49%"]
    assert version_comparison.failures({"fused": fine["click"]}, 0.49, 0) == []  # its level means nothing
    turned = compared([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    assert version_comparison.failures({"fused": turned["click"]}, 1, 0.7) == [
        "fused orders rows with an agreement of -1.000, less than 0.7"
    ]
    assert version_comparison.failures(compared([1.0, 2.0], [np.nan, 2.0]), 1, 0) == ["click is not finite for 1 rows"]


def test_overlap_of_the_first_ten():
    def replay(*orders):
        return version_comparison.Replay({}, [np.array(o) for o in orders])

    first = list(range(20))
    assert version_comparison.overlap(replay(first), replay(first[:7] + [17, 18, 19])) == 0.7
    assert version_comparison.overlap(replay(first, first), replay(first[::-1], first)) == 0.5
    assert version_comparison.overlap(replay([1, 0]), replay([0, 1])) is None  # ten of two are all


def test_replay_against_known_scores(tmp_path):
    save(tmp_path / "1", lambda x: 2 * x)
    live = versions.load(tmp_path / "1")
    requests = [log("raw", x=[1.0, 2.0]), log("rank", user=[10.0], x=[1.0, 3.0, 2.0])]
    answers = version_comparison.replay(live, requests, "live")
    assert answers.scores["click"].tolist() == [2, 4, 12, 16, 14]
    assert [order.tolist() for order in answers.orders] == [[1, 2, 0]]
    for request, message in (
        (log("other", x=[1.0]), r"must be for a signature of live, one of \['rank', 'raw'\]. Received: 'other'"),
        (log("", x=[1.0]), "Received: 'serving_default'"), (log("raw", y=[1.0]), r"Received: .*\['x', 'y'\]"),
        (log("raw", x=[[1.0]]), r"request 0 \(raw\) cannot be answered by live"),
    ):
        with pytest.raises(UserError, match=message):
            version_comparison.replay(live, [request], "live")


def test_changes_of_signatures(tmp_path, saved):
    save(tmp_path / "more", extra=["like"])
    save(tmp_path / "wide", dtype=tf.float64)
    live, more, wide = (versions.load(v).signatures for v in (saved, tmp_path / "more", tmp_path / "wide"))
    assert version_comparison.changes(live, live) == version_comparison.changes(live, more) == []
    assert version_comparison.changes(more, live) == ["raw: output like is missing"]
    assert version_comparison.changes(live, {"raw": live["raw"]}) == ["signature rank is missing"]
    assert "raw: input x is float64 (None,) instead of float32 (None,)" in version_comparison.changes(live, wide)
    assert version_comparison.changes({"s": live["raw"]}, {"s": live["rank"]}) == ["s: input user is new"]
    other = type(live["raw"]).FromString(live["raw"].SerializeToString())
    other.method_name = "tensorflow/serving/regress"
    assert version_comparison.changes({"s": live["raw"]}, {"s": other}) == [
        "s: method tensorflow/serving/regress instead of tensorflow/serving/predict"
    ]


# The commands.
def test_verify_command(tmp_path, drawn):
    save(tmp_path / "1")
    save(tmp_path / "2", lambda x: 1.2 * x)
    save(tmp_path / "3", lambda x: -x)
    rows = np.linspace(0.1, 0.9, 20)
    request_log.write(tmp_path / "1" / request_log.WARM_UP, [log("raw", x=rows), log("rank", user=[0.0], x=rows)])
    flags = [f"--live={tmp_path}/1", f"--candidate={tmp_path}/2", f"--output={tmp_path}/out"]
    done = command("dlen_cam2.cli.compare_versions", *flags)
    assert done.returncode == 0, done.stderr[-2000:]
    row = "| click | 0.5 | 0.6 | +20.0% | 0.1 | 0.18 | 0.0% | 1.0000 | 0 |"
    assert row in done.stdout and "agree on 100.0% of" in done.stdout and "is fit" in done.stdout
    assert row in (tmp_path / "out" / "verify.md").read_text()
    assert (tmp_path / "out" / "verify.png").read_bytes().startswith(b"\x89PNG")
    done = command("dlen_cam2.cli.compare_versions", f"--live={tmp_path}/1", f"--candidate={tmp_path}/3")
    assert done.returncode == 1 and "| click | 0.5 | -0.5 | -200.0% |" in done.stdout
    assert done.stderr.splitlines()[-1].endswith("3 fails: click drifted by -200.0%, more than 50%.")
    done = command("dlen_cam2.cli.compare_versions", f"--live={tmp_path}/1", f"--candidate={tmp_path}/4")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "holds no SavedModel" in done.stderr
