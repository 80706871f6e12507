"""Values that give a label away in few rows."""

import re

import numpy as np
import pytest

from dlen_cam2.schema import Feature, Schema, Task
from pipelines import check
from pipelines.checks import leaks
from pipelines.checks.coded_column import Coded
from pipelines.checks.pure_values import PURE, Pure, Spread, pure
from pipelines.writer.stored_rows import Column
from tests.support.checked_sets import HOSTILE, ROWS, faults, statuses, tables, write

pytestmark = pytest.mark.usefixtures("unread")


def few(flags, share=0.15):
    """Which rows: some of those that have a flag."""
    return (flags == 1) & (np.random.default_rng(1).random(len(flags)) < share)


@pytest.mark.parametrize("name, values, words", [
    (HOSTILE, lambda c, x: few(c["click"]) * 1.0, "= 1 in"),
    ("count", lambda c, x: few(c["click"]) * (0.5 + x), "> 0 in"),
    (HOSTILE, lambda c, x: np.where(few(c["click"]), -9 - x, x), "< 0."),
    ("city", lambda c, x: np.where(few(c["click"]), "c", "a").tolist(), "= 'c' in"),
    ("city", lambda c, x: [f"code {int(99 * v)}" * int(k) for k, v in zip(few(c["click"]), x, strict=True)],
     "other than '' in"),
    ("seen", lambda c, x: [[8, 8, *row[:1]] if k else [v % 8 for v in row] for k, row in zip(
        few(c["click"]), c["seen"], strict=True)], "with 8 in"),
    ("seen", lambda c, x: [[int(9 * v)] * int(k) for k, v in zip(few(c["click"]), x, strict=True)], "not empty in"),
])
def test_a_leak_of_low_coverage_fails(tmp_path, name, values, words):
    columns, rows = tables(), 0
    for c in columns.values():
        c[name] = values(c, np.random.default_rng(2).random(ROWS))
        rows += int(few(c["click"]).sum())
    report = check.check(write(tmp_path / "set", columns))
    assert report.failed and statuses(report) == {"leak suspects": "FAIL"}
    assert f"{name!r} {words}" in faults(report, "leak suspects")
    assert f"{rows} rows ({rows / 1800:.1%}), 100.0% of them positives of 'click' (" in faults(report, "leak suspects")


def test_a_leak_of_low_coverage_in_a_sample_space(tmp_path):
    columns = tables()
    for c in columns.values():
        c["city"] = np.where(few(c["share"] * c["click"], 0.5) | few(1 - c["click"]), "c", "a").tolist()
    report = check.check(write(tmp_path / "set", columns))
    assert re.search(
        r"'city' = 'c' in \d\d rows \([0-9.]+%\), 100.0% of them positives of 'share' \([0-9.]+% in all rows where "
        r"'click' is 1\)$", faults(report, "leak suspects"))


def told(values, labels, users=None, dtype="float"):
    """What `pure` says of a feature."""
    rows = len(labels)
    values = np.array([v.encode() for v in values], object) if dtype == "string" else np.asarray(values)
    feature = Feature("x", dtype, "user", "content") if dtype == "float" else Feature(
        "x", dtype, "user", "content", size=9, hashed=True, width=2)
    sample = {"u": Column(np.arange(rows) % 50 if users is None else users), "i": Column(np.arange(rows) % 70)}
    spread = Spread(Schema("s", (), (), (), {"user": "u", "item": "i"}), sample)
    return pure(feature, Coded(Column(values)), Task("t"), np.asarray(labels), np.ones(rows, bool), spread)


@pytest.mark.parametrize("rate, rows, hits, expected", [
    (0.2, 19, 19, False), (0.2, 20, 20, True), (0.2, 30, 29, False), (0.2, 50, 49, True), (0.01, 20, 20, True),
    (0.001, 20, 20, True), (0.45, 22, 22, False), (0.45, 28, 28, True), (0.6, 40, 40, False), (0.6, 50, 50, True),
    (0.7, 2000, 2000, False),
])
def test_how_many_rows_make_a_leak(rate, rows, hits, expected):
    # Of the 7 candidates of a flag (two values, the rest, four tails) the bound of n in n rows is (.001 / 7)^(1 / n):
    # .642, .669 and .729 for 20, 22 and 28 rows. Three times the odds of .2 and .45 are .75 and 2.45, so .429 and .711.
    total = max(8000, int(40 / rate))
    labels, flag = np.zeros(total, int), np.zeros(total)
    labels[: int(rate * total)] = 1
    labels = np.random.default_rng(0).permutation(labels)
    flag[np.flatnonzero(labels)[:hits]] = flag[np.flatnonzero(labels == 0)[: rows - hits]] = 1
    assert (told(flag, labels) is not None) is expected


def test_habits_and_good_features_are_no_leaks():
    rng = np.random.default_rng(0)
    users = rng.integers(0, 60, 20_000)
    labels = (rng.random(20_000) < np.where(users < 8, 1.0, 0.2)).astype(int)  # eight who click whatever they see
    assert told(users, labels, users, "int") is None
    assert told([f"city {u % 60}" for u in users], labels, users, "string") is None
    assert told([f"city {u % 60}" for u in users], labels, np.arange(20_000), "string") is not None
    crowd = np.where(users < 8, rng.integers(0, 40, 20_000), 40 + users)  # as if they were forty
    assert told(few(users < 8, 0.5) * 1.0, labels, crowd) is None and told(few(labels) * 1.0, labels, crowd) is not None
    x = rng.normal(size=20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(1 - 3 * x))).astype(int)
    top = labels[np.argsort(-x)[:1000]].mean()
    assert top >= PURE and told(x, labels) is None and told(np.minimum(x, 1.6), labels) is None
    # Nobody is married at 14, and 83% are at 19: a steep end, but no edge.
    ages = np.repeat(np.arange(60), 400)
    married = (rng.random(len(ages)) < np.clip((ages - 14) / 6, 0, 0.9)).astype(int)
    assert told(ages.astype(float), 1 - married) is None
    assert told(ages.astype(float), np.where(ages < 15, 1, few(1 - married))) is not None
    # A page on which whatever is shown counts as clicked, but on which little is shown.
    labels = np.arange(60_000) % 9 < 4
    page = (labels & (np.arange(60_000) < 120)) * 1.0
    assert page.sum() > 50 and told(page, labels * 1) is None and told(page[:10_000], labels[:10_000] * 1) is not None
    # Exact amounts have rates of their own: one of many is no category.
    amounts = np.where(rng.random(20_000) < 0.01, 777.0, np.floor(1000 * rng.random(20_000)))
    assert told(amounts, ((amounts == 777) | few(np.ones(20_000))).astype(int)) is None


def test_few_negatives_are_told_and_many_are_not():
    rng = np.random.default_rng(0)
    for rate, expected in ((0.2, False), (0.7, True)):
        labels = (rng.random(20_000) < rate).astype(int)
        skipped = few(1 - labels)
        found = told(skipped * 1.0, labels)
        assert (found is not None) is expected
    assert f"= 1 in {skipped.sum():,} rows" in found.text and "100.0% of them negatives of 't' (29.9%" in found.text


def test_a_leak_is_told_of_the_task_that_it_covers_most_and_all_are_named():
    click, buy, flag = (Pure("x", Task(name), "= 1", 0, 30, 9000, 1.0, base, covered, True)
                        for name, base, covered in (("click", 0.2, 0.1), ("buy", 0.0004, 0.4), ("cart", 0.1, 0.2)))
    other = Pure("y", Task("click", mask="seen"), "> 0", 2, 30, 9000, 0.99, 0.2, 0.3, True)
    assert leaks.faults({"click": {"x": 0.9, "z": 0.96}, "buy": {"z": 0.97}}, [click, other, buy, flag], 0.95) == [
        "'z' alone has AUC 0.9700 for 'buy', AUC 0.9600 for 'click'",
        "'x' = 1 in 30 rows (0.3%), 100.0% of them positives of 'buy' (0.04% in all rows), and of 'cart', 'click'",
        "'y' > 0 (and 2 other values like it) in 30 rows (0.3%), 99.0% of them positives of 'click' (20.0% in all rows "
        "where 'seen' is 1)",
    ]
    assert leaks.faults({"click": {"x": 0.96}}, [buy, click], 0.95) == ["'x' alone has AUC 0.9600 for 'click'"]
