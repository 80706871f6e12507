"""LightGBM on the features that the networks see, one model a task: what do the networks buy?"""

import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.config import Config
from dlen_cam2.experiments.cells import Arrays
from dlen_cam2.experiments.rows import Log, kept
from dlen_cam2.labels.kind import targets
from dlen_cam2.schema import Schema
from dlen_cam2.utils.errors import UserError

# DESIGN: chosen once on KuaiRand; a row of 200 trees and no search.
ROUNDS = 200
PARAMETERS = {
    "objective": "binary", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 200, "feature_fraction": 0.5,
    "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 10.0, "verbosity": -1,
    # With these the trees do not depend on the number of threads.
    "deterministic": True, "force_row_wise": True,
}


def library() -> ModuleType:
    """LightGBM.

    Raises:
        UserError: it is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise UserError(
            "the boosted trees of a table need LightGBM: pip install 'dlen_cam2[experiments]'. Received: "
            f"no module {error.name!r}."
        ) from error
    return lightgbm


def train(config: Config, log: Log) -> Arrays:
    """A cell: `config.train.seed`, and which tasks and features there are, are all that trees take of `config`.

    DESIGN: of a list the trees see the first value and the length.
    """
    lightgbm = library()
    schema = log.schema(config)
    x, y, mask = _table(log.data_dir, schema, log.train)
    start = time.monotonic()
    models = []
    for k in range(len(schema.tasks)):
        rows = mask[:, k] == 1
        parameters = PARAMETERS | {"seed": config.train.seed}
        models.append(lightgbm.train(parameters, lightgbm.Dataset(x[rows], y[rows, k]), ROUNDS))
    seconds = time.monotonic() - start

    def score(features: Any, labels: Any) -> tuple[Any, ...]:
        table = columns(features, schema)
        predicted = np.stack([model.predict(table) for model in models], axis=1)
        return *targets(labels, schema), tf.constant(predicted, tf.float32), (), {}, {}

    return kept(
        log.predictions(score, schema), parameters=np.nan, flops=np.nan, rows_per_second=len(x) / seconds
    )


def columns(features: Mapping[str, Mapping[str, tf.Tensor]], schema: Schema) -> np.ndarray:
    """(rows, columns): numbers as they are, categories as integers, of a list the first value and the length."""
    found = []
    for group, members in schema.groups.items():
        for feature in members:
            values = features[group][feature.name].numpy()
            found += [values[:, 0], (values >= 0).sum(axis=1)] if feature.is_list else [values]
    return np.stack(found, axis=1).astype(np.float64)


def _table(directory: str, schema: Schema, days: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns, labels (rows, T) and masks (rows, T) of the training days."""
    parts = []
    for features, labels in data.read(directory, schema, days, 8192):
        parts.append((columns(features, schema), *(t.numpy() for t in targets(labels, schema))))
    x, y, mask = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return x, y, mask
