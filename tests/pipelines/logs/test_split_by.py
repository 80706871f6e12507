"""Logs without times go to train and test by user, item, label or a column of theirs."""

import collections
import random

import pytest

from dlen_cam2.data import manifest
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines.features.feed import COUNTERS
from pipelines.from_logs import Roles, convert
from pipelines.logs.split_by import SplitBy
from pipelines.options import Options
from tests.support.builders import command
from tests.support.logs import read, write

SCHEMA = Schema(
    "reader", (Feature("who", "string", "user", "content", size=64, hashed=True, width=2),
               Feature("page", "string", "item", "content", min_count=1, width=2)),
    (Task("open"), Task("subscribe", mask="open")),
)


def log(count=400, seed=0):
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        opened = int(rng.random() < 0.4)
        rows.append({"who": f"w{rng.randrange(60)}", "page": f"p{rng.randrange(30)}", "open": opened,
                     "subscribe": int(opened and rng.random() < 0.3), "split": rng.choice(["train", "test"])})
    return rows


def divided(tmp_path, rows, by, schema=SCHEMA, **how):
    write(tmp_path / "log.csv", rows)
    convert(str(tmp_path / "log.csv"), schema, Roles("", "who", "page", split_by=by), str(tmp_path / "out"), **how)
    return {split: read(tmp_path / "out", split) for split in manifest.statistics(tmp_path / "out")["days"]}


def plain(rows):
    return collections.Counter(tuple(sorted((n, v) for n, v in row.items() if n != "split")) for row in rows)


@pytest.mark.parametrize("way", ["user", "item", "label", "split"])
def test_each_row_is_in_one_split_whatever_the_order_of_the_file(tmp_path, way):
    rows = log()
    found = divided(tmp_path, rows, SplitBy(way))
    assert set(found) == {"train", "test"}
    assert plain(found["train"] + found["test"]) == plain(rows)
    before = {split: [row.items() for row in part] for split, part in found.items()}
    random.Random(1).shuffle(rows)
    assert {s: [r.items() for r in part] for s, part in divided(tmp_path, rows, SplitBy(way)).items()} == before
    assert pbtxt.load(tmp_path / "out").keys == {"user": "who", "item": "page"}
    assert manifest.statistics(tmp_path / "out")["vocabularies_of"] == ["train"]


@pytest.mark.parametrize(("way", "key"), [("user", "who"), ("item", "page")])
def test_users_or_items_are_held_out_and_stay_when_the_log_grows(tmp_path, way, key):
    keys = []
    for count in (400, 900):
        found = divided(tmp_path, log(count), SplitBy(way, test_share=0.3))
        train, test = ({row[key] for row in found[split]} for split in ("train", "test"))
        assert not train & test and 0.1 < len(test) / len(train | test) < 0.5
        keys.append((train, test))
    assert keys[0][0] <= keys[1][0] and keys[0][1] <= keys[1][1]


def test_each_combination_of_labels_gives_its_share(tmp_path):
    found = divided(tmp_path, log(), SplitBy("label", test_share=0.25))
    counts = {split: collections.Counter((r["open"], r["subscribe"]) for r in part) for split, part in found.items()}
    for labels, total in (counts["train"] + counts["test"]).items():
        assert counts["test"][labels] == int(0.25 * total + 0.5)


def test_the_column_of_the_log_says_it(tmp_path):
    rows = [row | {"part": ("train", "validation", "test")[i % 3]} for i, row in enumerate(log())]
    found = divided(tmp_path, rows, SplitBy("split", "part"))
    assert {split: plain(part) for split, part in found.items()} == {
        split: plain([{n: v for n, v in r.items() if n != "part"} for r in rows if r["part"] == split])
        for split in ("train", "validation", "test")}


def test_rows_that_are_equal_all_count(tmp_path):
    rows = log(50) * 2
    found = divided(tmp_path, rows, SplitBy("user"))
    assert sum(map(len, found.values())) == 100


@pytest.mark.parametrize(("change", "message"), [
    ({"by": SplitBy("split", "none")}, "has no column 'none'"),
    ({"by": SplitBy("split", "page")}, "column 'page' must be one of train, validation, test. Received: p"),
    ({"by": SplitBy("user", test_share=1e-9)}, "--split_by=user must leave rows in test.*Received: {'train': 400}"),
    ({"how": Options(since="20250101")}, "--since needs a log with times"),
    ({"schema": Schema("r", (*SCHEMA.features, *COUNTERS[:1]), SCHEMA.tasks)},
     r"computed features need a log with times.*pass --time. Received: \['user_impressions'\]"),
])
def test_what_cannot_be_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        divided(tmp_path, log(), **({"by": SplitBy("user")} | change))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("flags", "message"), [
    ([], r"error: either --time must name the column of the time of exposure, or, for a log without times, "
         r"--split_by=user\|item\|label\|split must be given. Received: neither."),
    (["--time=ts", "--split_by=user"], "Received: --time=ts and --split_by=user."),
    (["--split_by=user", "--test_share=2"], "--test_share must be above 0 and below 1. Received: 2.0"),
    (["--split_by=day"], "--split_by=day: value should be one of <user|item|label|split>"),
])
@pytest.mark.parametrize("suggest", [False, True])
def test_one_message_says_what_is_missing(tmp_path, flags, message, suggest):
    import re

    done = command("pipelines.from_logs", f"--logs={tmp_path}/*.csv", "--user=who", "--item=page", *flags,
                   *(["--suggest_schema"] if suggest else [f"--schema={tmp_path}/s", f"--out={tmp_path}/out"]))
    assert done.returncode and re.search(message.replace("<user|item|label|split>", "<user.item.label.split>"),
                                         done.stderr), done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr


def test_one_user_in_several_spellings_is_in_one_split(tmp_path):
    rng = random.Random(3)
    rows = [{"who": rng.choice([f"{u}", f"{u}.0", f"0{u}"]), "page": "p", "open": 1, "subscribe": 0}
            for u in range(40) for _ in range(6)]
    numbers = Schema("r", (Feature("who", "int", "user", "content", size=64, hashed=True, width=2),), SCHEMA.tasks)
    found = divided(tmp_path, rows, SplitBy("user", test_share=0.5), numbers)
    assert not {row["who"] for row in found["train"]} & {row["who"] for row in found["test"]}
