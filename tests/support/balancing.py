"""What tests of step rules share: gradients by hand, and small rankers that take a step."""

import dataclasses

import numpy as np
import tensorflow as tf

from dlen_cam2 import parts
from dlen_cam2.config import TrainConfig
from dlen_cam2.models import ReadOut, build
from dlen_cam2.schema import Task
from dlen_cam2.training.optimizers import composite
from dlen_cam2.training.step import Ranker
from tests.support.builders import tiny_batch, tiny_config, tiny_schema

METHODS = [method for method in parts.classes("step_rule") if method != "fixed"]
ALL = np.ones(1, np.float32)
# Two tables, one of which two features share, and a number: where a graph takes long, as for XLA or two replicas.
FEW = tiny_schema().select(features=["user_id", "history", "video_id", "ctr"])


def rows(indices, values, size=9):
    values = tf.constant(values, tf.float32)
    return tf.IndexedSlices(values, tf.constant(indices, tf.int64), tf.constant([size, values.shape[1]]))


def combined(method, *gradients):
    """What `method` makes of one list of gradients for each task, and of those of the other losses."""
    tensors = [
        [g if g is None or isinstance(g, tf.IndexedSlices) else tf.constant(g, tf.float32) for g in each]
        for each in gradients
    ]
    found = method.combine(tensors, tf.ones(len(gradients)), [])
    return [None if g is None else tf.convert_to_tensor(g).numpy() for g in found]


def step_rule(name, **values):
    """A rule by its name, with those values that it has."""
    made = parts.make("step_rule", name)
    own = [field.name for field in dataclasses.fields(made)]
    return dataclasses.replace(made, **{key: value for key, value in values.items() if key in own})


def make(rule="fixed", schema=None, optimizer=None, jit=False, eagerly=False, clip_norm=0.0, **model):
    """A ranker with a rule, which may be its name. `eagerly` is quicker for fewer steps than about ten."""
    schema = schema or tiny_schema()
    tf.keras.utils.set_random_seed(4)
    config = tiny_config(**model).model
    network = build(config, schema)
    if optimizer is None:
        optimizer = composite(network, TrainConfig(embedding_learning_rate=0.1, learning_rate=0.02))
    else:
        optimizer.build(network.trainable_variables)  # in its first step, it would have TensorFlow trace that twice
    rule = step_rule(rule) if isinstance(rule, str) else rule
    balancer, train = rule(schema, network, optimizer), TrainConfig(clip_norm=clip_norm)
    ranker = Ranker(network, ReadOut(config, schema), balancer=balancer, train=train)
    ranker.compile(optimizer=optimizer, jit_compile=jit, run_eagerly=eagerly)
    return ranker


def few(rows, seed=0, schema=FEW):
    """`tiny_batch` with the features of `schema` alone."""
    features, labels = tiny_batch(rows, seed)
    return {group: {f.name: features[group][f.name] for f in found} for group, found in schema.groups.items()}, labels


def steps(ranker, seeds):
    batches = [tf.data.Dataset.from_tensors(few(8, seed, ranker.schema)) for seed in seeds]
    return [ranker.fit(batch, verbose=0).history["loss"][0] for batch in batches]


def moved(ranker, batch=None):
    """How far one step moves each weight, by its name."""
    before = ranker.network.get_weights()
    ranker.fit(tf.data.Dataset.from_tensors(batch or tiny_batch()), verbose=0)
    after = ranker.network.get_weights()
    return {v.name: a - b for v, a, b in zip(ranker.network.weights, after, before, strict=True)}


def same_tasks(opposed=False):
    """A ranker whose two tasks have equal towers and read-outs, and equal or opposed labels; and a batch."""
    # Opposed gradients of one length would add up to nearly 0, with and without surgery.
    tasks = (Task("one", positive_rate=0.5), Task("two", positive_rate=0.5, weight=0.5 if opposed else 1.0))
    schema = dataclasses.replace(tiny_schema(), tasks=tasks)

    def ranker(method):
        made = make(method, schema, tf.keras.optimizers.SGD(0.1), eagerly=True, trunk="shared_bottom",
                    embedding_l2=0.1)
        for v in made.network.trainable_variables:
            if v.name.startswith(("towers", "logits")):
                v.assign(tf.repeat(tf.abs(v[:1]), 2, axis=0))  # no unit of a tower is dead
        return made

    features, labels = tiny_batch()
    return ranker, (features, {"one": labels["click"], "two": 1 - labels["click"] if opposed else labels["click"]})
