"""A log of two days, the second with more of everything, and yesterday's models of it."""

import dataclasses
import random
import shutil

from dlen_cam2 import data
from dlen_cam2.config import Config, TrainConfig
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from dlen_cam2.training import jobs, model_directory, passes
from pipelines.from_logs import Roles, convert
from tests.support.balancing import step_rule
from tests.support.builders import branches, flat
from tests.support.logs import DAY, START, write

DAYS = ("20220425", "20220426")
NEW = ("price", "shop", "liked")
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
        Feature("shelf", "int", "item", "content", size=5, width=2),
        Feature("shop", "string", "item", "content", min_count=1, width=3),
        Feature("ctr", "float", "item", "statistical", transform="logit"),
    ),
    (Task("click"), Task("like", mask="shown"), Task("hate", negative=True)),
)
# Columns of the embedded row, by hand. Yesterday: active, city, uid, seen | ctr, shelf, vid | seen x vid. Today:
# active, city, uid, liked, seen | price, ctr, shelf, shop, vid | liked x vid, seen x vid.
KEPT = [*range(0, 7), *range(11, 15), *range(16, 19), *range(22, 26), *range(30, 34)]
ADDED = [*range(7, 11), 15, *range(19, 22), *range(26, 30)]
OLD_TASKS = ("click", "hate")


def written(directory):
    """A data set of two days; the second has values that the first has not."""
    rng = random.Random(0)
    rows = []
    for i in range(400):
        day = i // 200
        vids = range(3 * day, 8 + 3 * day)
        rows.append({
            "ts": START + day * DAY + i, "uid": rng.randrange(9), "vid": rng.choice(vids),
            "seen": rng.sample(range(12), rng.randrange(4)), "liked": rng.sample(range(12), rng.randrange(3)),
            "active": rng.random() + day, "city": rng.choice(["Bonn", "Rom", ""] + ["Ulm", "Köln"] * day),
            "shelf": rng.randrange(5 + 3 * day), "shop": rng.choice("abc"), "price": 9 * rng.random(),
            "ctr": rng.random(), "click": rng.randrange(2), "like": int(rng.random() < 0.3),
            "hate": int(rng.random() < 0.2), "shown": rng.randrange(2),
        })
    write(directory / "log.jsonl", rows)
    convert(str(directory / "log.jsonl"), SCHEMA, Roles("ts", "uid", "vid"), str(directory / "data"))
    return directory / "data"


def config(trunk="mmoe", head="logistic", tasks=OLD_TASKS, without=NEW, causal=None, rule="fixed", **model):
    sizes = {"experts": 2, "task_experts": 1, "units": (6,), "tower_units": (4,), "latent_units": (4,)}
    return Config(
        "small",
        flat(trunk, head=head, tasks=tasks, without=without, causal=causal, **(sizes | model)),
        TrainConfig(batch_size=32, bootstrap=0, learning_rate=0.02, step_rule=step_rule(rule)),
    )


def cam2(**values):
    sizes = {"statistic": "ctr", "units": 6, "blocks": 1, "embedding": 4, "interests": 3, "conformity_weight": 2.0}
    return branches(**(sizes | values))


def trained(log, directory, *arguments, **values):
    """Yesterday's model."""
    job = jobs.start(config(*arguments, **values), log, DAYS[:1])
    passes.fit(job, DAYS[:1])
    directory.mkdir()
    model_directory.save(directory, job.config, job.schema, job.fitted, job.checkpoint, job.days)
    return job


def copied(log, directory, change):
    """The data set with each feature as `change` gives it."""
    shutil.copytree(log, directory)
    schema = pbtxt.load(directory)
    pbtxt.save(dataclasses.replace(schema, features=tuple(map(change, schema.features))), directory)
    return directory


def outputs(job, log):
    """{output: numbers} of the second day's rows, by the job's own indexing."""
    (features, _), = data.read(log, job.schema, DAYS[1:], 1000)
    return {name: value.numpy() for name, value in job.network(features).items()}


def weight(job, name):
    return next(v for v in job.network.weights if v.name == f"{name}:0").numpy()


def slot(job, name):
    optimizers = job.ranker.optimizer.optimizers
    return next(v for o in optimizers for v in o.variables if v.name == f"{name}:0").numpy()
