"""The columns that features are computed from may have any name: also that of a table of ours, or of a column in it."""

import random

import pytest

from dlen_cam2.schema import Computed, Feature, Schema, Task
from dlen_cam2.utils.errors import UserError
from pipelines.from_logs import Roles, convert
from tests.support.logs import START, read_all, write

rng = random.Random(0)
LOG = [{"ts": START + i * 60_000, "uid": rng.randrange(4), "vid": rng.randrange(6), "brand": rng.randrange(3),
        "click": (c := rng.randrange(2)), "buy": c * rng.randrange(2), "price": rng.random() * 9,
        "paid": rng.random() * 9, "note": i} for i in range(80)]
ROLES = Roles("ts", "uid", "vid")


def declared(key):
    """A feature of every kind that is counted by `key`, or of its values."""
    return {
        "count": Computed("count", (key,)), "clicks": Computed("count", (key,), of="click"),
        "age": Computed("age", (key,), of="click"), "sum": Computed("sum", (key,), value="price"),
        "mean": Computed("mean", (key,), value="price", over="last 3"),
        "distinct": Computed("distinct", (key,), value="vid"), "last": Computed("last", (key,), value="price"),
        "rate": Computed("rate", ("uid", key), of="click", prior="0.3"), "base": Computed("rate", (key,), of="click"),
        "same": Computed("same", ("uid",), value=key, over="last 2"), "two hours": Computed("count", (key,), over="2h"),
        "session": Computed("count", (key,), over="session 30m"),
        "sums": Computed("sum", (key,), value="price", over="1d"),
        "values": Computed("distinct", (key,), value="vid", over="6h"),
        "brands": Computed("distinct", ("uid",), value=key), "brands of 3": Computed(
            "distinct", ("uid",), value=key, over="last 3"),
    }


def features(tmp_path, computed, **names):
    """The computed features of the log, whose columns have other names, by row."""
    schema = Schema("s", (
        Feature("note", "int", "item", "content", size=99, width=2),
        *(Feature(f"of {name}", "float", "context", "statistical", computed=c) for name, c in computed.items())),
        (Task("click"), Task(names.get("buy", "buy"))))
    write(tmp_path / "log.parquet", [{names.get(n, n): value for n, value in row.items()} for row in LOG], {})
    convert(str(tmp_path / "log.parquet"), schema, ROLES, str(tmp_path / "out"))
    return {row["note"]: {name: row[f"of {name}"] for name in computed} for row in read_all(tmp_path / "out")}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    return features(tmp_path_factory.mktemp("plain"), declared("brand"))


@pytest.mark.parametrize("key", [
    "exposures", "n_exposures", "n_click", "N_Click", "last_n_click", "sum_price_n_exposures", "sum_3_price",
    "n_3_price", "new_vid_n_exposures", "values_vid_n_exposures", "n_exposures_7200000", "number", "number_0", "before",
    "at_start", "begins", "of_day", "kept", "place", "hour_ms", "value_vid", "value_price", "row", "today", "computed",
    "time_ms", "order", "größe (m²)", "it's", "a.b", "a;b",
])
def test_a_key_of_any_name_gives_the_same_features(tmp_path, wanted, key):
    found = features(tmp_path, declared(key), brand=key)
    different = {name: note for note, row in wanted.items() for name in row if found[note][name] != row[name]}
    assert len(found) == len(LOG) and not different


@pytest.mark.parametrize("key", ["split", "broken", "__row", "__key"])
def test_a_key_of_a_name_that_is_reserved_is_named(tmp_path, key):
    with pytest.raises(UserError, match=f"'{key}'.*Received|Received: .*'{key}'"):
        features(tmp_path, declared(key), brand=key)


def test_rates_of_columns_whose_names_run_together_are_apart(tmp_path):
    """buy of gift_price, and buy_gift of price, written one after the other, are the same text."""
    both = {"a": Computed("rate", ("uid",), of="click", value="gift_price", among="paid", prior="0.5"),
            "b": Computed("rate", ("uid",), of="click_gift", value="price", among="paid", prior="0.5")}
    log = [row | {"gift_price": row["paid"] / 2, "click_gift": row["buy"]} for row in LOG]
    write(tmp_path / "log.parquet", log, {})
    found = []
    for names in (["a"], ["b"], ["a", "b"]):
        made = [Feature(n, "float", "user", "statistical", computed=both[n]) for n in names]
        schema = Schema("s", (Feature("note", "int", "item", "content", size=99, width=2), *made),
                        (Task("click"), Task("click_gift")))
        convert(str(tmp_path / "log.parquet"), schema, ROLES, str(tmp_path / "out"))
        found.append([[row[n] for n in names] for row in read_all(tmp_path / "out")])
    alone = [[*a, *b] for a, b in zip(found[0], found[1], strict=True)]
    assert found[2] == alone and any(a != b for a, b in alone)


def test_features_whose_names_differ_in_case_are_apart_or_refused(tmp_path):
    """SQL takes their names for one; the schema does not."""
    made = {"clicks": Computed("count", ("uid",), of="click"), "Clicks": Computed("count", ("vid",), of="click")}
    try:
        found = features(tmp_path, made)
    except UserError as error:
        assert "clicks" in str(error) and "Received" in str(error)
        return
    for row in LOG:
        before = [r for r in LOG if r["ts"] < row["ts"] and r["click"]]
        assert found[row["note"]] == {"clicks": sum(r["uid"] == row["uid"] for r in before),
                                      "Clicks": sum(r["vid"] == row["vid"] for r in before)}
