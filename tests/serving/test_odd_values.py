"""No skew on real rows, and nothing that a client sends makes a score infinite."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import data, evaluation, serving
from dlen_cam2.config import Config, TrainConfig
from dlen_cam2.serving import request_log, versions
from dlen_cam2.training import model_directory
from pipelines import kuairand
from tests.support.builders import flat, tiny_schema, train, trained_model
from tests.support.jobs import SIZES
from tests.support.kuairand_slice import REAL, some_users
from tests.support.requests import as_tensors, of_one_user

pytestmark = pytest.mark.slow


# === No skew, and nothing that a client sends makes a score infinite ===
@pytest.mark.skipif(not REAL.is_dir(), reason="the real logs of ../shared/data/kuairand_pure are not there")
def test_ten_thousand_rows_of_a_real_day_score_as_in_training(tmp_path):
    train_day, day = "20220504", "20220505"
    source = some_users(tmp_path / "in", (train_day, day), 1)
    kuairand.convert(source, str(tmp_path / "data"))
    sizes = {**SIZES, "features": ()}  # all of them
    config = Config("real", flat("mmoe", head="dlen", tasks=("click", "long_view"), **sizes),
                    TrainConfig(bootstrap=0, batch_size=4096))
    train(config, tmp_path / "data", tmp_path / "model", train_day, day)
    model = model_directory.load(tmp_path / "model")
    score = evaluation.scorer(model.network, model.read_out)
    wanted = evaluation.predict(score, model.schema, tmp_path / "data", day).serving
    rows = request_log.first_rows(tmp_path / "data", day, model.schema, 10_000)
    assert len(rows["user_id"]) == 10_000
    loaded = versions.load(serving.export(model, tmp_path / "served"))
    records = [r.numpy() for r in tf.data.TFRecordDataset(list(data.shards(tmp_path / "data", [day]).paths))]
    for found in (
        loaded.run("raw", {f.name: rows[f.name] for f in model.schema.features}),
        loaded.run("serving_default", {"examples": records[:10_000]}),
    ):
        for name, values in wanted.items():
            np.testing.assert_allclose(found[name], values[:10_000], rtol=0, atol=1e-5, err_msg=name)


ODD = {
    "user_id": [10**15, -1, -(2**63), 2**63 - 1],
    "history": [[-1, -1, -1], [2**63 - 1, 5, -1], [10**12, 10**12, 10**12], [0, 1, 2]],
    "video_id": [2**62, -5, 8, 9],
    "author": ["Ω≈ç√∫", "", "\U0001f600" * 1000, "nul\0inside"],
    "phone": ["\ud7ff", "x" * 100_000, "", "日本語"],
    "active_days": [3.4e38, -3.4e38, 1e-45, np.inf],
    "ctr": [-np.inf, np.inf, 3.4e38, -1e30],
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """`tiny(trunk, head)` is a version of a model of the tiny schema, which is exported once."""
    home = tmp_path_factory.mktemp("tiny")

    @functools.cache
    def version(trunk, head):
        model, _ = trained_model(home / f"{trunk}_{head}", trunk=trunk, head=head)
        return versions.load(serving.export(model, home / f"{trunk}_{head}_served"))

    return version


@pytest.mark.parametrize("head", ["logistic", "dlen"])
@pytest.mark.parametrize("trunk", ["mmoe", "ple"])
def test_odd_values_have_finite_scores(tiny, trunk, head):
    loaded = tiny(trunk, head)
    columns = {
        f.name: np.array(ODD[f.name], {"int": np.int64, "float": np.float32, "string": object}[f.dtype])
        for f in tiny_schema().features
    }
    requests = {
        "raw": columns, "rank": of_one_user(tiny_schema(), columns),
        "serving_default": {"examples": request_log.examples(tiny_schema(), columns)},
    }
    found = {signature: loaded.run(signature, sent) for signature, sent in requests.items()}
    for scores in found.values():
        assert all(np.isfinite(values).all() for values in scores.values())
    for name, values in found["raw"].items():
        np.testing.assert_allclose(found["serving_default"][name], values, rtol=1e-5, atol=1e-30, err_msg=name)
    empty = {**columns, "history": np.zeros((4, 0), np.int64)}  # shorter than the model's, and longer
    long = {**columns, "history": np.full((4, 50), 10**12)}
    for sent in (empty, long):
        assert all(np.isfinite(values).all() for values in loaded.run("raw", sent).values())


@pytest.mark.parametrize("signature", ["raw", "rank", "serving_default"])
def test_a_number_that_is_none_is_named(tiny, signature):
    columns = request_log.synthetic(tiny_schema(), 4)
    columns["ctr"][2] = np.nan
    sent = {"raw": columns, "rank": of_one_user(tiny_schema(), columns),
            "serving_default": {"examples": request_log.examples(tiny_schema(), columns)}}[signature]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"features ctr must be numbers. Received: NaN"):
        tiny("mmoe", "logistic").run(signature, sent)


def test_a_missing_number_is_named_and_a_missing_id_is_unknown(served, signatures, rows):
    schema = model_directory.load(served[1]).schema
    example = tf.train.Example.FromString(request_log.examples(schema, {n: c[:1] for n, c in rows.items()})[0])
    for name in ("user_id", "watched"):
        if name in example.features.feature:
            del example.features.feature[name]
    scores = signatures["serving_default"](tf.constant([example.SerializeToString()]))
    first = {f.name: rows[f.name][:1] for f in schema.features}
    first |= {"user_id": np.array([-1]), "watched": np.full_like(first["watched"], -1)}
    for name, values in signatures["raw"](**as_tensors(schema, first)).items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5)
    del example.features.feature["duration_s"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="duration_s"):
        signatures["serving_default"](tf.constant([example.SerializeToString()]))
