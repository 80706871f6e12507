"""The Python API for notebooks and scripts: open a data set; fit, evaluate, query and export a model.

    import dlen_cam2 as dc

    data = dc.open("quickstart/data")
    model = dc.Model(trunk=dc.MMOE(experts=4), head=dc.DLEN(), epochs=2)
    model.fit(data, "20240101..20240107")
    print(model.evaluate(data, "20240108"))
    print(model.predict(data.rows("20240108", 3)))
    model.export("served/ranker")

The commands run the same code, but also write checkpoints: after a kill, only `dlen_cam2 train` can resume.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2 import config as config_module
from dlen_cam2 import data, evaluation, serving
from dlen_cam2.config import Config, ModelConfig, TrainConfig, replaced
from dlen_cam2.evaluation import report
from dlen_cam2.parts import elsewhere
from dlen_cam2.schema import Feature, Schema, pbtxt
from dlen_cam2.serving import request_log
from dlen_cam2.serving.signatures import Server
from dlen_cam2.training import jobs, model_directory, passes
from dlen_cam2.training.jobs import Job
from dlen_cam2.training.model_directory import TrainedModel
from dlen_cam2.training.plan import Position, Stage, plan
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import staged, write_json

Rows = Mapping[str, Any]


class Dataset:
    """A data set that a pipeline wrote.

    Args:
        directory: the directory that the pipeline wrote.

    Attributes:
        schema: the columns of the data set.

    Raises:
        UserError: the directory holds no data set.
    """

    def __init__(self, directory: str | os.PathLike):
        self.directory = os.fspath(directory)
        self.schema: Schema = pbtxt.load(directory)
        self._statistics = data.statistics(directory)

    @property
    def days(self) -> list[str]:
        """The names of the days and other splits."""
        return list(self._statistics["days"])

    def parse(self, days: str | Sequence[str]) -> list[str]:
        """Turn days as a command takes them ("20240101..20240107", "a,b"), or a list, into a list of split names.

        Raises:
            UserError: a day is not in the data set.
        """
        return data.parse_days(days if isinstance(days, str) else ",".join(days), self.days)

    def rows(self, day: str, count: int = 5) -> dict[str, np.ndarray]:
        """The raw features of a day's first rows, {column: (N,) or (N, L)}, in the form that `Model.predict` takes."""
        self.parse([day])
        return dict(request_log.first_rows(self.directory, day, self.schema, count))

    def __repr__(self) -> str:
        schema, rows = self.schema, sum(day["rows"] for day in self._statistics["days"].values())
        return (f"Dataset({self.directory!r}: {rows:,} rows of {len(self.days)} splits {self.days[0]}.."
                f"{self.days[-1]}, {len(schema.features)} features, tasks {', '.join(schema.task_names)})")


class Metrics(dict):
    """Metrics as in `metrics.json`, `{split: {task: {metric: value}}}`, which are printed as tables."""

    def __str__(self) -> str:
        return report.table(self)

    def _repr_markdown_(self) -> str:
        return str(self)


class Model:
    """A multi-task ranker.

    Args:
        config: the configuration of an experiment; None: the defaults.
        **values: changes to `config`: parts (`trunk=PLE(levels=2)`, `head="dlen"`), and fields of `ModelConfig` and
            `TrainConfig` by name (`tower_units=(32,)`, `epochs=2`).

    Example:
        >>> model = Model(trunk="ple", epochs=2)
        >>> model.config.model.trunk.levels, model.config.train.epochs
        (2, 2)

    Raises:
        UserError: a name is not a field, or a value breaks a rule.
    """

    def __init__(self, config: Config | None = None, **values: Any):
        sections = {field.name: name for name, cls in (("model", ModelConfig), ("train", TrainConfig))
                    for field in dataclasses.fields(cls)}
        if config is not None and not isinstance(config, Config):
            raise UserError("a model's configuration must be a Config, such as Config(model=ModelConfig(…)). "
                            f"Received: {config!r:.200}.")
        if unknown := sorted(set(values) - set(sections)):
            raise UserError(f"a model has no field {unknown}. Known: {sorted(sections)}.{elsewhere(Config, unknown)}")
        self.config = replaced(config or Config(), {f"{sections[name]}.{name}": v for name, v in values.items()})
        self._job: Job | None = None
        self._trained: TrainedModel | None = None

    @classmethod
    def load(cls, directory: str | os.PathLike) -> "Model":
        """Load a model that `save` or `dlen_cam2 train` wrote, to evaluate it, predict with it or export it.

        Raises:
            UserError: the directory holds no model, or another version of this package wrote it.
        """
        trained = model_directory.load(directory)
        model = cls(trained.config)
        model._trained = trained
        return model

    @property
    def trained(self) -> TrainedModel:
        """The network together with its fitted states. Raises `UserError` before `fit`."""
        if self._trained is None:
            raise UserError("the model must be fitted first: model.fit(data, days). Received: a model that is not "
                            "fitted.")
        return self._trained

    @property
    def network(self) -> tf.keras.Model:
        """The Keras model, which maps `{group: {feature: index}}` to the outputs that `trained.read_out` reads."""
        return self.trained.network

    def fit(
        self, dataset: Dataset, days: str | Sequence[str], callbacks: Sequence[tf.keras.callbacks.Callback] = ()
    ) -> "Model":
        """Train on `days`, print the progress and return the model.

        The first call fits vocabularies, moments and positive rates on these days. A later call continues from the
        weights and trains as `config.train.daily` says, like `dlen_cam2 train --continue_from`.

        Raises:
            UserError: a day is missing or was already trained on, or the model was loaded (use `--continue_from`).
        """
        chosen = dataset.parse(days)
        if self._job is None:
            if self._trained is not None:
                raise UserError("only a model that was fitted here has the optimizer state that fit needs: continue a "
                                "loaded one with dlen_cam2 train --continue_from=DIR. Received: a loaded model.")
            self._job = jobs.start(self.config, dataset.directory, chosen)
            stages = plan(self.config.train, chosen)
        else:
            if again := [day for day in chosen if day in self._job.days]:
                raise UserError(f"each day may be trained on only once. Received again: {again}.")
            stages = [Stage((day,), daily=True) for day in chosen]
        job = self._job
        job.data_dir, job.position = dataset.directory, Position()
        for _ in passes.passes(job, stages, callbacks):
            pass
        job.refresh()
        self._trained = TrainedModel(self.config, job.schema, job.fitted, job.scored, list(job.days))
        for made in ("_score", "_server"):  # of the weights before
            self.__dict__.pop(made, None)
        return self

    def evaluate(self, dataset: Dataset, days: str | Sequence[str], bootstrap: int = 200) -> Metrics:
        """Compute exact metrics of every task on each of the days, with intervals from `bootstrap` resamples of users.

        Raises:
            UserError: a day is not in the data set, or the model was trained on it.
        """
        trained, chosen = self.trained, dataset.parse(days)
        if seen := [day for day in chosen if day in trained.days]:
            raise UserError(
                f"a model must be measured on days that it was not trained on. Received: {seen}; trained on: "
                f"{trained.days}.")
        return Metrics({
            day: evaluation.evaluate(
                evaluation.predict(self._score, trained.schema, dataset.directory, day), trained.schema, bootstrap)
            for day in chosen
        })

    @functools.cached_property
    def _score(self) -> evaluation.Score:
        return evaluation.scorer(self.trained.network, self.trained.read_out)

    @functools.cached_property
    def _server(self) -> Server:
        return Server(self.trained)

    def predict(self, rows: Rows) -> dict[str, np.ndarray]:
        """Score raw rows: {name: (N,)}, the scores of an exported model, "fused" among them.

        Args:
            rows: {column: N values}, a pandas data frame or an Arrow table, with a column for each feature. A row of a
                list feature is a list. Ids, texts and lists may be None (unknown). Other columns are ignored.

        Raises:
            UserError: a feature has no column, or the values of a column have the wrong type.
        """
        schema = self.trained.schema
        if not (isinstance(rows, Mapping) or hasattr(rows, "columns")):
            raise UserError("rows must be columns, {name: values}, a pandas data frame or an Arrow table. "
                            f"Received: {type(rows).__name__}.")
        named = {name: rows[name] for name in getattr(rows, "column_names", rows)}
        if missing := [f.name for f in schema.features if f.name not in named]:
            raise UserError(f"rows must have a column for each feature. Received: none for {missing}.")
        columns = {f.name: _column(f, named[f.name]) for f in schema.features}
        if len({len(column) for column in columns.values()}) > 1:
            raise UserError("columns must have the same length. Received: "
                            f"{ {name: len(column) for name, column in columns.items()} }.")
        try:
            scores = self._server.score_raw(**{name: tf.constant(column) for name, column in columns.items()})
        except tf.errors.InvalidArgumentError as error:
            raise UserError(str(error.message)) from error
        return {name: values.numpy() for name, values in scores.items()}

    def export(self, output: str | os.PathLike, **options: Any) -> pathlib.Path:
        """Write `output/<version>/` for TensorFlow Serving; for the options, see `dlen_cam2.serving.export.export`."""
        return serving.export(self.trained, output, **options)

    def save(self, directory: str | os.PathLike) -> None:
        """Write a model directory that the commands `evaluate`, `export` and `train --continue_from` take.

        Raises:
            UserError: the model was loaded, or the directory holds something else.
        """
        if self._job is None:
            raise UserError("only a model that was fitted here can be saved. Received: a new or a loaded model.")
        job = self._job
        with staged(directory, model_directory.CONFIG) as stage:
            model_directory.save(stage, self.config, job.schema, job.fitted, job.checkpoint, job.days)
            write_json(stage / model_directory.METRICS, {})

    def __repr__(self) -> str:
        parts = [part for part in config_module.as_dict(self.config.model).values() if isinstance(part, dict)]
        state = f"trained on {', '.join(self._trained.days)}" if self._trained else "not fitted"
        return f"Model({', '.join(part['kind'] for part in parts)}; {state})"


def open(directory: str | os.PathLike) -> Dataset:
    """Open the data set in a directory. Raises `UserError` if there is none."""
    return Dataset(directory)


def load(directory: str | os.PathLike) -> Model:
    """Load the model in a directory, see `Model.load`."""
    return Model.load(directory)


def _column(feature: Feature, values: Any) -> np.ndarray:
    """A feature's values as a server takes them: (N,), or (N, max_length) for a list, padded with -1 or "".

    Raises:
        UserError: the values are not of the feature's type.
    """
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        raise UserError(f"column {feature.name!r} must have a value for each row; write a single row as [value]. "
                        f"Received: {values!r}.")
    values = values.to_pylist() if hasattr(values, "to_pylist") else list(values)  # Arrow's own, or any other
    kind: Any = {"int": np.int64, "float": np.float32, "string": object}[feature.dtype]
    missing = {"int": -1, "string": b""}.get(feature.dtype)

    def typed(value: Any) -> Any:
        if value is None and missing is not None:
            return missing
        if feature.dtype == "string":
            if not isinstance(value, str | bytes):
                raise TypeError
            return value if isinstance(value, bytes) else value.encode()
        if isinstance(value, str | bytes | bool) or value is None or (feature.dtype == "int" and value != int(value)):
            raise TypeError
        return kind(value)

    try:
        if not feature.is_list:
            return np.array([typed(value) for value in values], kind)
        cut = [[typed(v) for v in (value if value is not None else ())[: feature.max_length]] for value in values]
        return np.array([row + [missing] * (feature.max_length - len(row)) for row in cut], kind).reshape(
            len(cut), feature.max_length)
    except (TypeError, ValueError, OverflowError) as error:
        rule = f"{feature.dtype}s" + (", a list in each row" if feature.is_list else "")
        raise UserError(f"column {feature.name!r} must hold {rule}. Received: {values[:3]!r:.200}.") from error
