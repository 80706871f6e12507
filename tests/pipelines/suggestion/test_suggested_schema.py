"""A schema by every rule of `suggest`, of logs in every format."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines.from_logs import convert
from tests.support.logs import ROLES, proposed, varied, write


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_the_schema_that_is_proposed(tmp_path, ending):
    rows = varied()
    path = write(tmp_path / f"log{ending}", rows, {"tags": pa.list_(pa.string()), "empty": pa.string()})
    schema, why = proposed(path)
    assert {t.name: (t.label, t.negative) for t in schema.tasks} == {
        "click": ("is_click", False), "skip": ("skip", True)}
    assert schema.targets == ("watch_time",)
    assert schema.keys == {"user": "uid", "item": "vid", "time": "ts"}
    found = {f.name: f for f in schema.features}
    assert {n: (f.dtype, f.side, f.cause) for n, f in found.items() if not f.computed} == {
        "uid": ("int", "user", "content"), "vid": ("int", "item", "content"), "city": ("string", "user", "content"),
        "age": ("int", "user", "content"), "fans_count": ("float", "user", "statistical"),
        "category": ("string", "item", "content"), "item_ctr": ("float", "item", "statistical"),
        "price": ("float", "item", "content"), "balance": ("float", "user", "content"),
        "tags": ("string", "item", "content"),
        "hour": ("int", "context", "context"), "flag": ("int", "context", "context"),
    }
    assert {n: f.transform for n, f in found.items() if n in ("fans_count", "item_ctr", "price", "balance")} == {
        "fans_count": "log1p", "item_ctr": "logit", "price": "log1p", "balance": ""}
    assert "left out: by its name it is the id of a request or a session" in why["session"]
    assert not found["city"].hashed and found["city"].min_count == 1
    assert (found["tags"].max_length, found["city"].max_length) == (2, 1)
    recent = [f"uid_{what}_{window}" for what in ("exposures", "click", "skip") for window in ("10m", "1h", "1d")]
    of_last = [f"uid_{what}" for task in ("click", "skip")
               for what in (f"last_{task}", f"{task}_of_3", f"{task}_of_10", f"{task}_age")]
    by = ["uid", "vid", "category", "uid_vid", "uid_category", "uid_flag", "uid_hour"]
    counted = [f"{key}_{what}" for key in by for what in ("exposures", "click_rate", "skip_rate")]
    others = ["uid_age", "uid_session_exposures", "uid_same_category_1", "uid_same_category_3"]
    wanted = {*recent, *of_last, *counted, *others}
    assert {n for n, f in found.items() if f.computed} == wanted
    assert {n: found[n].side for n in wanted} == {n: "context" if n.startswith(
        ("uid_vid", "uid_category", "uid_flag", "uid_hour", "uid_same")) else "user" if n.startswith("uid") else "item"
        for n in wanted}
    assert {(found[n].dtype, found[n].cause) for n in wanted} == {("float", "statistical")}
    assert all(why[n].startswith("computed: ") for n in wanted)
    assert set(why) == set(rows[0]) - {"ts"} | (set(found) - set(rows[0])) and "left out" in why["empty"]
    assert pbtxt.loads(pbtxt.dumps(schema)) == schema
    statistics = convert(str(path), schema, ROLES, str(tmp_path / "out"))
    assert sum(day["rows"] for day in statistics["days"].values()) == 1500


@pytest.mark.parametrize("name", ["play_time", "play_time_ms", "play_s", "watch_ms", "dwell_time_s", "stay_seconds"])
def test_time_that_was_spent_is_proposed_as_a_target(tmp_path, name):
    rows = [{n: row[n] for n in ("ts", "uid", "vid", "is_click")} | {name: row["watch_time"]} for row in varied(50)]
    schema, why = proposed(write(tmp_path / "log.csv", rows))
    assert schema.targets == (name,)
    assert why[name] == ("a target: the time spent; the tags task:NAME and kind:regression make it a task; taken to be "
                         "known right after the exposure, else add known_at or known_after")


@pytest.mark.parametrize(("names", "message"), [
    (["ts", "uid", "vid", "city"], "must have feedback.*Received columns: .*'city'"),
    (["ts", "uid", "is_click"], "has no column 'vid'. Received columns"),
    (["ts", "uid", "vid", "is_click"], "must have rows. Received: none"),
])
def test_no_schema_is_proposed_without_feedback_keys_or_rows(tmp_path, names, message):
    types = {n: pa.int64() for n in names} | {"city": pa.string()}
    rows = [{n: row[n] for n in names} for row in varied(5)]
    path = write(tmp_path / "log.parquet", rows, types)
    if "rows" in message:
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(UserError, match=message):
        proposed(path)


def test_what_is_no_feature_is_left_out_of_the_proposal_with_the_reason(tmp_path):
    rows = [
        {n: row[n] for n in ("ts", "uid", "vid", "is_click")}
        | {"is_rand": row["flag"], "floats": [0.5, 1.0], "object": {"a": i}, "split": "x", "duration_s": float(i % 9),
           "empty": None}
        for i, row in enumerate(varied(50))
    ]
    reasons = {"is_rand": "--random=is_rand", "floats": "a list of decimals", "object": "object|STRUCT",
               "split": "its name is reserved", "empty": "no values"}
    for ending in (".parquet", ".jsonl"):
        path = write(tmp_path / f"log{ending}", rows, {"empty": pa.string()})
        schema, why = proposed(path)
        names = {f.name: f for f in schema.features}
        assert not names.keys() & reasons.keys() and names["duration_s"].dtype == "int"
        for name, reason in reasons.items():
            assert re.search(f"left out: .*({reason})", why[name]), why[name]
        convert(str(path), schema, ROLES, str(tmp_path / "out"))
    for lists in (lambda v: f"[{', '.join(v)}]", str):
        names = ("ts", "uid", "vid", "is_click", "tags")
        given = [{n: row[n] for n in names} | {"duration_s": "NA"} for row in varied(50)]
        schema, why = proposed(write(tmp_path / "log.csv", given, lists=lists))
        assert re.search(r'left out: it holds lists not in JSON, such as \["a", "b"\]. Received: \[.?t\d', why["tags"])
        assert {f.name: f.dtype for f in schema.features}["duration_s"] == "string"
        convert(str(tmp_path / "log.csv"), schema, ROLES, str(tmp_path / "out"))
