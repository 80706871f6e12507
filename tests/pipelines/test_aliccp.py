"""Ali-CCP's official text format -> a data set; generated files."""

import math

import pytest
import tensorflow_datasets as tfds

from dlen_cam2.data import manifest
from dlen_cam2.schema import pbtxt
from dlen_cam2.utils.errors import UserError
from pipelines import aliccp
from tests.support.builders import command

SKELETON, COMMON = "sample_skeleton_train.csv", "common_features_train.csv"


def features(*entries):
    """feature_num,feature_list of (field, id, value)."""
    return f"{len(entries)}," + "\x01".join(f"{field}\x02{i}\x03{value}" for field, i, value in entries)


def item(i, *more):
    return features(("205", i, 1.0), ("206", 61, 1.0), ("301", 3, 1.0), *more)


def generate():
    """Lines by file. The sample ids are not in order; three rows contradict themselves."""
    past = [("109_14", 500 + k, v) for k, v in enumerate((0.5, "2.5", 1.5, 2.5))]
    past += [("110_14", 600 + k, k / 10) for k in range(25)]
    lines = {
        COMMON: [
            "cc," + features(("101", 13, 1.0)),
            "aa," + features(("101", 11, 1.0), ("121", 21, 1.0), ("127", 27, 1.0), ("127_14", 700, "1e-1"), *past),
            "bb," + features(("101", 12, 1.0), ("124", 2, 1), ("150_14", 800, 1.0)),
        ],
        SKELETON: [
            "7,1,1,aa," + item(
                70, ("210", 9, 1.0), ("210", 8, 1.0), ("508", 5, 2.30259), ("853", 4, 0.7), ("853", 3, 1.5)),
            "3,0,1,aa," + item(30),
            "5,1,0,bb," + item(50, ("216", 16, 1.0), ("207", 17, 1.0)),
            "4,0,0,cc,0,",
            *(f"{100 + k},{k % 2},0,{'abc'[k % 3] * 2}," + item(1000 + k) for k in range(20)),
            "9,0,1,cc," + item(90),
        ],
        "common_features_test.csv": ["aa," + features(("101", 99, 1.0))],
        "sample_skeleton_test.csv": ["7,0,0,aa," + item(71), "8,0,1,aa," + item(81)],
    }
    return lines


def write(directory, lines):
    directory.mkdir(exist_ok=True)
    for name, content in lines.items():
        (directory / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    return directory


def read(output, split):
    return list(tfds.builder_from_directory(str(output)).as_dataset(split=split).as_numpy_iterator())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("aliccp")
    output = directory / "out"
    statistics = aliccp.convert(write(directory / "in", generate()), str(output))
    return output, statistics


def test_rows_hold_what_the_files_say_in_their_order(made):
    output, _ = made
    rows = read(output, "train")
    assert [r["item_id"] for r in rows] == [70, 50, -1, *range(1000, 1020)]
    first = {name: v.tolist() for name, v in rows[0].items()}
    assert first == {
        "click": 1, "conversion": 1, "user_id": 11, "profile": 21, "profile_group": -1, "gender": -1, "age": -1,
        "consumption_1": -1, "consumption_2": 27, "occupation": -1, "geography": -1,
        "past_categories": [501, 503, 502, 500], "past_shops": list(range(624, 604, -1)), "past_brands": [700],
        "past_intentions": [], "item_id": 70, "category": 61, "shop": -1, "brand": -1, "intentions": [9, 8],
        "position": 3, "category_match": 5, "shop_match": -1, "brand_match": -1, "intention_match": [4, 3],
        "category_strength": pytest.approx(math.log(10), abs=1e-5), "shop_strength": 0, "brand_strength": 0,
        "intention_strength": 1.5,
    }
    second, third = rows[1], rows[2]
    assert (second["user_id"], second["gender"], second["brand"], second["shop"]) == (12, 2, 16, 17)
    assert (third["user_id"], third["category"], third["click"], third["intentions"].tolist()) == (13, -1, 0, [])
    assert [(r["click"], r["user_id"]) for r in rows[3:7]] == [(0, 11), (1, 12), (0, 13), (1, 11)]
    # The test's common feature "aa" is another than the training's.
    assert [(r["item_id"], r["user_id"]) for r in read(output, "test")] == [(71, 99)]


def test_contradictions_are_counted_and_conversions_are_among_clicks(made):
    _, statistics = made
    assert statistics["source"] == {
        "pipeline": "aliccp", "rows_read": {"train": 25, "test": 2}, "contradictions_dropped": 3}
    assert {split: s["rows"] for split, s in statistics["days"].items()} == {"train": 23, "test": 1}
    tasks = statistics["days"]["train"]["tasks"]
    assert tasks == {"click": {"rows": 23, "positives": 12}, "conversion": {"rows": 12, "positives": 1}}


def test_vocabularies_hold_what_ten_training_rows_hold(made):
    output, _ = made
    schema = pbtxt.load(output)
    known = {f.name: f.vocabulary for f in schema.features if f.has_vocabulary}
    # Of 23 rows, category 61 and position 3 stand in 22, no user in more than 8.
    assert known["category"] == (61,) and known["position"] == (3,) and known["user_id"] == ()
    assert dict(schema.keys) == {"user": "user_id", "item": "item_id"}


@pytest.mark.parametrize("rows", [1, 4])
def test_slices_change_nothing(made, tmp_path, monkeypatch, rows):
    output, statistics = made
    monkeypatch.setattr(aliccp, "_SLICE", rows)
    assert aliccp.convert(write(tmp_path / "in", generate()), str(tmp_path / "out")) == statistics
    for split in aliccp.SPLITS:
        assert manifest.read_manifest(tmp_path / "out", split) == manifest.read_manifest(output, split)


def line(name, index, change):
    def edit(directory, lines):
        content = list(lines[name])
        content[index] = change(content[index])
        write(directory, {name: content})
    return edit


def raw(name, change):
    return lambda directory, lines: (directory / name).write_bytes(change((directory / name).read_bytes()))


ENTRY = r"each entry of feature_list must be FIELD \\x02 ID \\x03 VALUE"
BAD = {
    "missing file": (
        lambda d, _: (d / COMMON).unlink(),
        r"in must hold the files \['common_features_train.csv'.*Received: a directory without \['common"),
    "no directory": (
        lambda d, _: [p.unlink() for p in d.iterdir()] and d.rmdir(), "Received: a directory without"),
    "cut off in the list": (
        raw(SKELETON, lambda b: b[:-10]),
        rf"{SKELETON}, sample '9' \(row 25.*: {ENTRY}.*Received: '0",
    ),
    "cut off in the fields": (
        line(SKELETON, 2, lambda t: "5,1,0"),
        rf"in/{SKELETON} must be UTF-8 text.*Received: .*Line: 3",
    ),
    "field too many": (line(COMMON, 1, lambda t: t + ",x"), rf"in/{COMMON} must be UTF-8 text.*Received: .*Line: 2"),
    "tabs": (
        raw(SKELETON, lambda b: b.replace(b",", b"\t")),
        rf"in/{SKELETON} must be .*separated by commas. Received",
    ),
    "not UTF-8": (raw(COMMON, lambda b: b[:60] + b"\xff" + b[61:]), rf"in/{COMMON} must be UTF-8 text"),
    "no \\x02": (
        line(SKELETON, 2, lambda t: t.replace("206\x02", "206")),
        rf"{SKELETON}, sample '5' \(row 3 of the split\): {ENTRY}.*Received: '1,0,bb,5,205"),
    "no \\x03": (line(SKELETON, 2, lambda t: t.replace("\x031.0", "", 1)), rf"sample '5'.*{ENTRY}.*Received: "),
    "text for an id": (line(SKELETON, 2, lambda t: t.replace("\x0250\x03", "\x02fifty\x03")), rf"sample '5'.*{ENTRY}"),
    "decimal id": (line(COMMON, 2, lambda t: t.replace("\x0212\x03", "\x021.5\x03")),
                   rf"{COMMON}, common_feature_index 'bb' \(row 3 of the split\): {ENTRY}.*Received: '3,101"),
    "id beyond 64 bits": (
        line(SKELETON, 2, lambda t: t.replace("\x0250\x03", f"\x02{2**64}\x03")),
        rf"sample '5'.*{ENTRY}",
    ),
    "text for a value": (line(COMMON, 2, lambda t: t.replace("\x031.0", "\x03nan")), rf"index 'bb'.*{ENTRY}"),
    "feature_num": (
        line(SKELETON, 3, lambda t: "4,0,0,cc,1,"),
        r"sample '4'.*: feature_num must be the number of entries of feature_list. Received: '0,0,cc,1,'"),
    "feature_num of common": (
        line(COMMON, 0, lambda t: t.replace("cc,1", "cc,2")), r"index 'cc'.*: feature_num must be the number.*'2,101"),
    "feature_num that is none": (
        line(COMMON, 0, lambda t: t.replace("cc,1", "cc,x")),
        "feature_num must be an integer",
    ),
    "sample id": (
        line(SKELETON, 4, lambda t: t.replace("100", "1x", 1)),
        "sample '1x'.*: sample_id must be an integer",
    ),
    "click": (
        line(SKELETON, 0, lambda t: t.replace("7,1", "7,2", 1)),
        "sample '7'.*: click must be 0 or 1. Received: '2,1,aa",
    ),
    "no conversion": (
        line(SKELETON, 0, lambda t: t.replace("7,1,1", "7,1,", 1)),
        "sample '7'.*: conversion must be 0 or 1",
    ),
    "no common features": (
        line(SKELETON, 2, lambda t: t.replace("bb", "zz")),
        rf"{SKELETON}, sample '5' \(row 3 .*: its common_feature_index must be in .* of the split. Received: 'zz'"),
    "common features twice": (
        lambda d, lines: write(d, {COMMON: lines[COMMON] + lines[COMMON][2:]}),
        r"common_feature_index 'bb' \(row 4 .*: each common_feature_index may have one row. Received: 'bb'"),
    "no index": (line(COMMON, 0, lambda t: t[2:]), "common_feature_index must not be empty"),
    "no samples": (
        lambda d, _: [write(d, {f"sample_skeleton_{split}.csv": []}) for split in aliccp.SPLITS], "there must be rows"),
    "foreign output": (
        lambda d, _: write(d.parent / "out", {"mine.csv": ["a"]}), r"out is not empty.*Received.*mine\.csv"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_leaves_nothing(tmp_path, case):
    edit, message = BAD[case]
    lines = generate()
    source = write(tmp_path / "in", lines)
    edit(source, lines)
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"(?s){message}") as error:
        aliccp.convert(source, str(tmp_path / "out"))
    assert len(str(error.value)) < 1500 and ("Received" in str(error.value) or case == "no samples")
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_command_line_reports_one_error(tmp_path):
    source = write(tmp_path / "in", generate())
    (source / SKELETON).unlink()
    done = command("pipelines.aliccp", f"--input={source}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert [text for text in done.stderr.splitlines() if text.startswith("error: ")] == done.stderr.splitlines()[-1:]
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
