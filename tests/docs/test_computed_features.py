"""Every snippet of a schema in docs/concepts/computed_features.md loads, and computes what the page says."""

import re

import pytest

from dlen_cam2.schema import pbtxt
from dlen_cam2.schema.computed import KINDS
from dlen_cam2.schema.computed_tags import COMPUTED, KNOWN
from pipelines.from_logs import Roles, convert
from tests.support.builders import ROOT
from tests.support.logs import START, read_all, write

PAGE = (ROOT / "docs" / "concepts" / "computed_features.md").read_text(encoding="utf-8")
SHOP, NEWS = PAGE.split("\n## A news site\n")
MINUTE, HOUR = 60_000, 3_600_000


def schema_of(part):
    """The schema that all snippets of a part of the page make together."""
    blocks = re.findall(r"^```text\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
    return pbtxt.loads("".join(block for block in blocks if "feature {" in block))


def converted(tmp_path, schema, rows, *columns):
    write(tmp_path / "log.csv", rows)
    convert(str(tmp_path / "log.csv"), schema, Roles("ts", *columns), str(tmp_path / "out"))
    return read_all(tmp_path / "out")


def shown(at, category, brand, vid, click=0, bought=None, paid=None, uid="ann"):
    return {"ts": START + at, "uid": uid, "vid": vid, "category": category, "brand": brand, "price": 10.0,
            "click": click, "purchase": int(bought is not None), "paid": paid,
            "bought_at": None if bought is None else START + bought}


def test_the_features_of_a_shop(tmp_path):
    """A purchase counts when it has come: two hours after its exposure."""
    rows = [
        shown(0, "shoes", "a", "v1", 1, 2 * HOUR, 50.0), shown(10 * MINUTE, "shoes", "a", "v2", 1),
        shown(HOUR, "hats", "b", "v3"), shown(3 * HOUR, "shoes", "a", "v1"),
        shown(3 * HOUR, "shoes", "a", "v4", uid="bob"), shown(60 * HOUR, "hats", "b", "v1"),
    ]
    schema = schema_of(SHOP)
    assert schema.known["purchase"].within == 24 * 3600
    # The last row is younger than the attribution window, and is left out.
    first, second, third, fourth, bob = converted(tmp_path, schema, rows, "uid", "vid")
    month = pytest.approx(2_592_000)
    assert [row["s_since_purchase_in_category"] for row in (first, second, third, fourth, bob)] == [
        month, month, month, 3600, month]
    base = 1 / 50  # one more exposure at the start's rate, before the first hour has passed
    assert second["brand_purchase_rate"] == pytest.approx(50 * base / (1 + 50))
    base = (1 + 1) / (3 + 50)
    of_brand = (1 + 50 * base) / (2 + 50)
    assert fourth["brand_purchase_rate"] == bob["brand_purchase_rate"] == pytest.approx(of_brand)
    assert fourth["uid_brand_purchase_rate"] == pytest.approx((1 + 10 * of_brand) / (2 + 10))
    assert bob["uid_brand_purchase_rate"] == pytest.approx(of_brand)
    assert fourth["vid_purchases_per_click"] == pytest.approx((1 + 20 * 2 / (2 + 10)) / (1 + 20))
    assert [row["viewed"] for row in (first, second, third, fourth)] == [[], ["v1"], ["v2", "v1"], ["v2", "v1"]]
    assert [row["bought_category"] for row in (third, fourth, bob)] == ["", "shoes", ""]
    assert [row["spent_7d"] for row in (third, fourth)] == [0, 50] and fourth["clicked_price"] == 10
    assert [row["session_exposures"] for row in (first, second, third)] == [0, 1, 0]
    assert [row["exposures_10m"] for row in (first, second, third)] == [0, 1, 0]  # just ten minutes earlier counts
    assert [row["categories_1h"] for row in (first, second, third)] == [0, 1, 1]
    assert [row["same_category"] for row in (first, second, third, fourth)] == [0, 1, 0, 1]


def test_the_features_of_a_news_site(tmp_path):
    """A reader stays for 100 seconds: after 60 of them, how long is not known."""
    def read(at, article, section, click=0, dwell=0.0):
        return {"ts": START + at * 1000, "reader": 7, "article": article, "section": section, "length_s": 200.0,
                "click": click, "dwell": dwell}

    rows = [read(0, 1, "sport", 1, 100.0), read(60, 2, "sport"), read(101, 1, "sport"), read(102, 1, "arts")]
    first, second, third, fourth = converted(tmp_path, schema_of(NEWS), rows, "reader", "article")
    assert [row["reader_dwell"] for row in (first, second, third)] == [30, 30, 100]
    assert [row["reader_section_dwell"] for row in (third, fourth)] == [100, 30]
    assert [row["article_read_share"] for row in (first, second)] == pytest.approx([0.3, 0.3])
    assert third["article_read_share"] == pytest.approx((100 + 600 * 0.3) / (200 + 600))
    assert fourth["article_read_share"] == pytest.approx((100 + 600 * 0.3) / (400 + 600))


def test_the_page_names_every_kind_and_every_tag():
    kinds = re.findall(r"^\| `computed:(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(kinds) == sorted(KINDS)
    table = PAGE.partition("\n## Tags\n")[2].partition("\n## Windows\n")[0]
    tags = re.findall(r"^\| `(\w+):` \|", table, re.MULTILINE)
    assert tuple(tags) == ("computed", "by", "of", "value", "among", "over", "strength", "prior", "start", "missing")
    assert set(tags) == set(COMPUTED) and all(f"`{name}:" in PAGE for name in KNOWN)
