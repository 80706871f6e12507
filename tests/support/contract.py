"""What every part of a model must do, whoever wrote it: the contract, over a small log of every kind of column."""

import dataclasses
import json
import random

import numpy as np
import tensorflow as tf

from dlen_cam2 import data, parts
from dlen_cam2.config import Config, ModelConfig, TrainConfig, as_dict, check, load, save
from dlen_cam2.configs import spaces
from dlen_cam2.layers.axes import axes_of, of_tasks, shared_weights
from dlen_cam2.models import build
from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.serving.signatures import Server
from dlen_cam2.training import grow, jobs, model_directory, passes
from pipelines.from_logs import Roles, convert
from tests.support.logs import DAY, START, write

# Kinds of parts that a network is built of, and those of which each network has one.
NETWORK = ("trunk", "head", "causal", "encoder", "transfer")
NEEDED = ("trunk", "head", "encoder")
DAYS = ("20220425", "20220426")
# Yesterday's model knows neither of these.
NEW = ("price", "liked")
SCHEMA = Schema(
    "log",
    (
        Feature("active", "float", "user", "statistical"),
        Feature("uid", "int", "user", "content", size=16, hashed=True, width=4),
        Feature("price", "float", "item", "content", transform="log1p"),
        Feature("liked", "int", "user", "content", min_count=1, oov_buckets=3, width=4, table="vid", max_length=2),
        Feature("seen", "int", "user", "content", min_count=1, oov_buckets=3, width=4, table="vid", max_length=3),
        Feature("vid", "int", "item", "content", min_count=1, oov_buckets=3, width=4),
        Feature("city", "string", "user", "content", min_count=1, width=2),
        Feature("ctr", "float", "item", "statistical", transform="logit"),
    ),
    (Task("click"), Task("buy", mask="click"), Task("hate", negative=True), Task("watch", kind="regression")),
)
# What of a part's defaults is made small, so that a test is quick.
SMALL = {"units": (8, 6), "latent_units": (5,), "experts": 3, "task_experts": 2, "blocks": 1, "embedding": 4}



def log(directory):
    """Two days; the second has values that the first has not."""
    rng, rows = random.Random(0), []
    for i in range(240):
        day, click = i // 120, rng.randrange(2)
        rows.append({
            "ts": START + day * DAY + i, "uid": rng.randrange(9), "vid": rng.choice(range(3 * day, 8 + 3 * day)),
            "seen": rng.sample(range(12), rng.randrange(4)), "liked": rng.sample(range(12), rng.randrange(3)),
            "active": rng.random() + day, "city": rng.choice(["Bonn", "Rom", ""] + ["Ulm"] * day),
            "price": 9 * rng.random(), "ctr": rng.random(), "click": click, "buy": int(click and rng.random() < 0.4),
            "hate": int(rng.random() < 0.2), "watch": 30 * rng.random() * click,
        })
    write(directory / "log.jsonl", rows)
    convert(str(directory / "log.jsonl"), SCHEMA, Roles("ts", "uid", "vid"), str(directory / "data"))
    return directory / "data"


def small(kind, name):
    """The part with its default values, small where it has sizes that others have, too."""
    made = parts.make(kind, name)
    fields = {field.name for field in dataclasses.fields(made)}
    return dataclasses.replace(made, **{
        key: value for key, value in SMALL.items() if key in fields and type(getattr(made, key)) is type(value)
    })


def config(*chosen, **values):
    """A small model of the parts that are given, and defaults."""
    held = {"trunk": small("trunk", "mmoe"), **{part.kind: part for part in chosen}}
    rule = held.pop("step_rule", parts.make("step_rule", "fixed"))
    return Config("contract", ModelConfig(tower_units=(4,), **(held | values)),
                  TrainConfig(batch_size=40, bootstrap=0, learning_rate=0.01, step_rule=rule))


def outputs(job, day):
    features, _ = next(iter(data.read(job.data_dir, job.schema, [day], 64)))
    return {name: value.numpy() for name, value in job.network(features).items()}


def a_life(settings, log, directory):
    """Fitted, trained, stored, read, served, grown; each step checked. Returns the job."""
    job = jobs.start(settings, log, DAYS[:1])
    before = {weight.name: weight.numpy() for weight in job.network.trainable_weights}
    passes.fit(job, DAYS[:1])
    still = [w.name for w in job.network.trainable_weights if np.array_equal(w.numpy(), before[w.name])]
    assert not still, f"no gradient reached {still}"
    found = outputs(job, DAYS[1])
    assert all(np.isfinite(values).all() for values in found.values())

    directory.mkdir()
    model_directory.save(directory, job.config, job.schema, job.fitted, job.checkpoint, job.days)
    read = model_directory.load(directory)
    assert read.config == job.config
    again = read.network(next(iter(data.read(log, read.schema, [DAYS[1]], 64)))[0])
    for name, values in found.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)

    ranks_as_rows(Server(read), log)
    assert set(axes_of(job.network, of_tasks(job.schema.task_names))) == {w.name for w in job.network.weights}
    assert len(shared_weights(job.network)) == len(job.network.trainable_weights)

    larger = dataclasses.replace(settings, model=dataclasses.replace(settings.model, without=()))
    grown = grow.resume(larger, log, directory, DAYS[1:])
    for name, values in outputs(grown, DAYS[1]).items():
        if values.shape == found[name].shape:
            np.testing.assert_allclose(values, found[name], atol=1e-5, err_msg=name)
    return job


def ranks_as_rows(server, log):
    """One user's candidates score as the same rows one by one."""
    schema = server.schema
    rows = next(iter(data.raw_columns(data.shards(log, [DAYS[1]]), schema, [f.name for f in schema.features])))
    rows = {name: column.numpy()[:7] for name, column in data.padded(rows, schema).items()}
    users = {f.name for f in schema.features if f.side == "user"}
    rows = {name: np.repeat(column[:1], 7, axis=0) if name in users else column for name, column in rows.items()}
    one_by_one = server.score_raw(**{name: tf.constant(column) for name, column in rows.items()})
    of_request = server.rank(**{
        name: tf.constant(column[:1] if name in users else column) for name, column in rows.items()
    })
    for name, values in one_by_one.items():
        np.testing.assert_allclose(of_request[name], values, rtol=2e-5, atol=1e-6, err_msg=name)


def is_a_configuration(part, tmp_path):
    """It is checked, written, read, and says what may be tried of it."""
    settings = config(part)
    check(settings)
    save(settings, tmp_path / "config.json")
    assert load(tmp_path / "config.json") == settings
    section = settings.train if part.kind == "step_rule" else settings.model
    assert json.loads(json.dumps(as_dict(getattr(section, part.kind))))["kind"] == part.name
    assert part.kind in spaces.sections(settings)
    assert type(part).__doc__ and len(type(part).__doc__) > 40


def builds_with(part, schema, kinds=NETWORK):
    """With every part of every other kind, or of those `kinds`."""
    for kind in kinds:
        for name in parts.classes(kind) if kind != part.kind else ():
            settings = config(part, small(kind, name))
            network = build(settings.model, schema)
            assert network.output_shape
