"""Warm start across schema growth: yesterday's model trains on with today's new values, features and tasks.

DESIGN, all of it: no paper of ours says how a ranker that is trained daily takes in a new column. The rules:

- Everything that yesterday's model fitted stays: vocabulary order, moments, positive rates (hence DLEN's caps), and the
  fitted states of parts (CAM2's threshold). New columns and values are fitted on today's days.
- Every axis of every variable is a sequence of named segments, which its layer declares. A place that both networks
  have keeps its values, including its optimizer slots; every other place starts as in a new network, except that:
- the row of a new value in an embedding table starts as a copy of the row that yesterday's model read for it ("missing
  or unknown", or its oov bucket);
- the weights from a new input column into networks that already existed start at 0.

Growing therefore changes no prediction of yesterday's tasks, with one exception: a new task adds experts to the shared
gates of a PLE with several levels. These are softmaxes without bias, and no initial weights leave them unchanged.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.config import Config, as_dict
from dlen_cam2.data.preprocessing import Indexer
from dlen_cam2.layers import Dropout
from dlen_cam2.layers.axes import Axis, axes_of, of_tasks
from dlen_cam2.models import network_parts
from dlen_cam2.schema import Feature, Schema, Task, pbtxt
from dlen_cam2.training import jobs, model_directory
from dlen_cam2.training.distribution import Place
from dlen_cam2.training.jobs import Job
from dlen_cam2.utils import console
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.markdown import markdown

# What of config.model may differ from yesterday's.
GROWS = ("tasks", "features", "without", "task_weights", "task_loss", "trunk_groups")
_OF_TASK = ("label", "mask", "negative", "kind")
_OF_TABLE = ("dtype", "width", "hashed", "oov_buckets", "has_vocabulary")
_OF_FEATURE = ("dtype", "table", "is_list", "transform")

Rows = list[list[str]]


def resume(
    config: Config, data_dir: str | os.PathLike, directory: str | os.PathLike, days: Sequence[str],
    on_bad_record: str = "fail", place: Place | None = None,
) -> Job:
    """Load the model in `directory`, grow it to the schema of `data_dir`, and return it ready for further training.

    A markdown table shows what was copied, grown, initialised and dropped.

    Args:
        config: its `model` must be yesterday's except for `GROWS`; its `train` is today's.
        data_dir: the data set.
        directory: yesterday's model.
        days: the days on which new values, features and tasks are fitted.
        on_bad_record, place: see `dlen_cam2.training.jobs.start`.

    Raises:
        UserError: there is no model, something changed that weights cannot follow, or a layer does not declare the axes
            of its weights.
    """
    place = place or Place()
    if place.asynchronous:
        raise UserError("--grow needs weights that are not sharded. Received: --strategy=parameter_server.")
    if config.model.tables != "gather":
        raise UserError(f"--grow needs config.model.tables='gather'. Received: {config.model.tables!r}.")
    previous = model_directory.load(directory)
    before, now = (as_dict(c.model) for c in (previous.config, config))
    if different := [key for key in now if now[key] != before[key] and key not in GROWS]:
        raise UserError(
            f"config.model must equal the one of {directory}, whose weights are continued, except for "
            f"{', '.join(GROWS)}. Received: different {different}: {[now[key] for key in different]} in place of "
            f"{[before[key] for key in different]}."
        )
    schema = _schema(config, data_dir, previous.schema, days)
    fitted = previous.fitted
    for part in network_parts(config.model):
        part.check_grown(previous.schema, schema, pbtxt.load(data_dir).features, fitted)
    schema = jobs.with_columns(config, schema, fitted)
    # Yesterday's job first: both seed the generators, and today's must be the last, as in `warm_start.resume`.
    old = jobs.assemble(previous.config, data_dir, previous.schema, fitted, on_bad_record, Place())
    model_directory.restore(directory, old.checkpoint)
    job = jobs.assemble(config, data_dir, schema, fitted, on_bad_record, place)
    rows = [*_of_schema(previous.schema, schema), *_transfer(old, job)]
    job.days += previous.days
    if place.chief:
        console.page(markdown(["", "yesterday", "today", "what happened", "new"], rows))
    return job


def _schema(config: Config, data_dir: str | os.PathLike, before: Schema, days: Sequence[str]) -> Schema:
    """Today's schema, with the fitted state of yesterday's."""
    if not sum(data.statistics(data_dir)["days"].get(day, {"rows": 0})["rows"] for day in days):
        raise UserError(f"the training days must have rows. Received: none on {','.join(days)!r}.")
    model = config.model
    selected = pbtxt.load(data_dir).select(model.tasks, model.features, model.without)
    _comparable(before, selected)
    now = data.fit(data_dir, selected, days)
    tables, features, tasks = _tables(before), {f.name: f for f in before.features}, {t.name: t for t in before.tasks}
    vocabularies: dict[str, tuple[Any, ...]] = {}

    def grown(feature: Feature) -> Feature:
        if feature.is_numeric:
            known = features.get(feature.name, feature)
            return dataclasses.replace(feature, mean=known.mean, std=known.std)
        if feature.table not in tables:
            return feature
        old = tables[feature.table]
        if feature.table not in vocabularies:
            vocabularies[feature.table] = tuple(dict.fromkeys((*old.vocabulary, *feature.vocabulary)))
        return dataclasses.replace(feature, size=max(old.size, feature.size), vocabulary=vocabularies[feature.table])

    def fitted(task: Task) -> Task:
        known = tasks.get(task.name, task)
        return dataclasses.replace(task, positive_rate=known.positive_rate, mean=known.mean, std=known.std)

    kept = dataclasses.replace(now, features=tuple(map(grown, now.features)), tasks=tuple(map(fitted, now.tasks)))
    return jobs.weighed(model, kept)


def _tables(schema: Schema) -> dict[str, Feature]:
    """One feature of each table."""
    return {f.table: f for f in schema.features if not f.is_numeric}


def _comparable(before: Schema, now: Schema) -> None:
    """Raise `UserError` if a feature, a table or a task changed."""
    wrong = []

    def compare(what: str, old: Feature | Task | None, new: Feature | Task, keys: Sequence[str]) -> None:
        for key in keys if old is not None else ():
            if getattr(old, key) != getattr(new, key):
                wrong.append(f"{what} {key}={getattr(new, key)!r} in place of {getattr(old, key)!r}")

    features, tasks = {f.name: f for f in before.features}, {t.name: t for t in before.tasks}
    for feature in now.features:
        compare(f"feature {feature.name!r}", features.get(feature.name), feature, _OF_FEATURE)
    for table, feature in _tables(now).items():
        keys = (*_OF_TABLE, "size") if feature.hashed else _OF_TABLE
        compare(f"table {table!r}", _tables(before).get(table), feature, keys)
    for task in now.tasks:
        compare(f"task {task.name!r}", tasks.get(task.name), task, _OF_TASK)
    if wrong:
        raise UserError(
            f"a feature of yesterday's model must keep its {', '.join(_OF_FEATURE)}, a table its "
            f"{', '.join(_OF_TABLE)} (and size, if hashed), and a task its {', '.join(_OF_TASK)}, or get a new name. "
            f"Received: {'; '.join(wrong)}."
        )


def _transfer(old: Job, job: Job) -> Rows:
    """Copy to `job` the weights and state of `old` where both have a place for it; return the rows of the report."""
    before, now = (axes_of(each.network, of_tasks(each.schema.task_names)) for each in (old, job))
    places = {name: [axis.places(was) for axis, was in zip(now[name], before[name], strict=True)]
              for name in now if name in before}
    weights, report = {v.name: v for v in old.network.weights}, []
    with job.place.strategy.scope():
        for variable in job.network.weights:
            name, shape = variable.name, _shape(variable)
            if name not in weights:
                report.append([name[:-2], "", shape, "initialised", ""])
                continue
            source, value = np.array(weights[name].numpy()), np.array(variable.numpy())
            _copy(source, value, places[name])
            for n, axis in enumerate(now[name]):
                if axis.what == "inputs":
                    value[np.ix_(*(np.flatnonzero((p >= 0) != (m == n)) for m, p in enumerate(places[name])))] = 0.0
                elif axis.what == "rows":
                    origins = _origins(before[name][n], axis, _tables(old.schema), _tables(job.schema))
                    rows = np.flatnonzero(origins >= 0)
                    value[rows] = source[origins[rows]]
            variable.assign(value)
            report.append([name[:-2], _shape(source), shape, *_what_happened(before[name], now[name], places[name])])
        _transfer_optimizer(old, job, places)
    report += [[name[:-2], _shape(v), "", "dropped", ""] for name, v in weights.items() if name not in now]
    report.append(["optimizer", f"step {old.step:,}", f"step {job.step:,}", "slots follow their weights", ""])
    for was, layer in zip(_of_type(old.network, Dropout), _of_type(job.network, Dropout), strict=True):
        model_directory.copy_weights(was, layer)  # the state of its generator, which is no weight
    return [*report, *_transfer_balancer(old, job)]


def _shape(array: Any) -> str:
    return "x".join(map(str, array.shape))


def _copy(source: np.ndarray, value: np.ndarray, places: Sequence[np.ndarray]) -> None:
    """Copy the values of `source` at `places` into `value`."""
    kept = [np.flatnonzero(p >= 0) for p in places]
    value[np.ix_(*kept)] = source[np.ix_(*(p[k] for p, k in zip(places, kept, strict=True)))]


def _what_happened(before: Sequence[Axis], now: Sequence[Axis], places: Sequence[np.ndarray]) -> tuple[str, str]:
    """What happened, "copied", "grown", "cut" or "grown, cut", and by how much along which axis."""
    parts, words = [], set()
    for axis, was, at in zip(now, before, places, strict=True):
        gone = len(was) - int(np.sum(at >= 0))
        for sign, count, word in (("+", int(np.sum(at < 0)), "grown"), ("-", gone, "cut")):
            if count:
                parts.append(f"{sign}{count:,} {axis.what}")
                words.add(word)
    return ", ".join(sorted(words, reverse=True)) or "copied", ", ".join(parts)


def _transfer_optimizer(old: Job, job: Job, places: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Transfer the optimizer slots with the places of their variables, and the step count; other slots are fresh."""
    slots = {v.name: v for optimizer in old.ranker.optimizer.optimizers for v in optimizer.variables}
    for optimizer in job.ranker.optimizer.optimizers:
        optimizer.iterations.assign(old.step)
        for slot in optimizer.variables:
            name = slot.name.partition("/")[2]  # "m/towers/bias_0:0"
            if slot.name in slots and name in places:
                value = np.array(slot.numpy())
                _copy(np.array(slots[slot.name].numpy()), value, places[name])
                slot.assign(value)


def _transfer_balancer(old: Job, job: Job) -> Rows:
    """Copy the balancer's state, which belongs to certain tasks and weights, if these are the same; else start anew."""
    was, balancer = old.ranker.balancer, job.ranker.balancer
    if was is None and balancer is None:
        return []
    names, shapes = zip(*(
        ("", None) if b is None else (type(b).__name__, [v.shape for v in b.variables]) for b in (was, balancer)
    ), strict=True)
    same = names[0] == names[1] and shapes[0] == shapes[1] and old.schema.task_names == job.schema.task_names
    if same:
        model_directory.copy_weights(was, balancer)
    return [["balancer", *names, "copied" if same else "initialised" if balancer else "dropped", ""]]


def _of_schema(before: Schema, now: Schema) -> Rows:
    """The rows of the report about tasks, features and tables that differ."""
    rows = []
    names = [(s.task_names, tuple(f.name for f in s.features)) for s in (before, now)]
    for what, had, has in zip(("task", "feature"), *names, strict=True):
        rows += [[f"{what} {name}", "", "yes", "initialised", ""] for name in has if name not in had]
        rows += [[f"{what} {name}", "yes", "", "dropped", ""] for name in had if name not in has]
    tables = _tables(before)
    for table, feature in _tables(now).items():
        if table in tables and (had := tables[table].known) != (has := feature.known):
            rows.append([f"table {table}", f"{had:,} values", f"{has:,} values", "grown", f"+{has - had:,} values"])
    return rows


def _of_type(network: tf.keras.Model, kind: type) -> list[Any]:
    return [layer for layer in network.layers if isinstance(layer, kind)]


def _origins(before: Axis, now: Axis, old: Mapping[str, Feature], new: Mapping[str, Feature]) -> np.ndarray:
    """For each row of a new value in an existing table, the row that yesterday's model read for it; else -1."""
    origins, at = np.full(len(now), -1), before.starts()
    for key, (start, has) in now.starts().items():
        table, kind = key
        if kind != "known" or key not in at or at[key][1] >= has:
            continue
        first, had = at[key]
        feature = dataclasses.replace(old[table], max_length=1)
        values = new[table].vocabulary[had:] if feature.has_vocabulary else np.arange(had, has)
        raw = {feature.name: tf.constant(values, tf.string if feature.dtype == "string" else tf.int64)}
        rows = Indexer(Schema("", (feature,), ()))(raw)[feature.group][feature.name].numpy()
        origins[start + had : start + has] = first - 1 + rows  # the table's row 0 is the one before the known ones
    return origins
