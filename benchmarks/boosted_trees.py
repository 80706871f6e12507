"""python -m benchmarks.boosted_trees --data_dir=DIR --train_days=A..B --eval_days=C: LightGBM on the same features.

One model per task on what the networks see: numeric columns as they are, categorical ones as integers, of a
list its first value and its length. It shows what the networks buy. Prints a table of the mean over seeds.
"""

import lightgbm
import numpy as np
from absl import flags

from dlen_cam2 import cli, data, schema_pbtxt
from dlen_cam2.metrics import auc, normalized_entropy
from dlen_cam2.schema import Schema

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
_TRAIN_DAYS = flags.DEFINE_string("train_days", None, "Days to train on.", required=True)
_EVAL_DAYS = flags.DEFINE_string("eval_days", None, "Days to measure on, together.", required=True)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 200, "Trees of a model.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 2, "Threads of LightGBM.", lower_bound=1)


def load(directory: str, schema: Schema, days: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Features (N, F) as float64 and labels by task."""
    blocks, labels = [], {task.name: [] for task in schema.tasks}
    for features, batch in data.read(directory, schema, days, 8192):
        columns = []
        for group in schema.groups:
            for feature in schema.groups[group]:
                values = features[group][feature.name].numpy()
                columns += [values[:, 0], (values >= 0).sum(axis=1)] if feature.is_list else [values]
        blocks.append(np.stack(columns, axis=1).astype(np.float64))
        for task in schema.tasks:
            labels[task.name].append(batch[task.label].numpy())
    return np.concatenate(blocks), {name: np.concatenate(parts) for name, parts in labels.items()}


def main() -> None:
    schema = schema_pbtxt.load(_DATA_DIR.value)
    known = list(data.statistics(_DATA_DIR.value)["days"])
    train_x, train_y = load(_DATA_DIR.value, schema, data.parse_days(_TRAIN_DAYS.value, known))
    test_x, test_y = load(_DATA_DIR.value, schema, data.parse_days(_EVAL_DAYS.value, known))
    print(f"LightGBM, {_ROUNDS.value} trees, {train_x.shape[1]} columns, mean (spread) over {_SEEDS.value} seeds")
    print("| task | positives | AUC | NE |\n|---|---|---|---|", flush=True)
    for task in schema.task_names:
        aucs, entropies = [], []
        for seed in range(_SEEDS.value):
            parameters = {
                "objective": "binary", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 200,
                "feature_fraction": 0.5, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 10.0,
                "seed": seed, "num_threads": _THREADS.value, "verbosity": -1,
            }
            model = lightgbm.train(parameters, lightgbm.Dataset(train_x, train_y[task]), _ROUNDS.value)
            predicted = np.asarray(model.predict(test_x))
            aucs.append(auc(test_y[task], predicted))
            entropies.append(normalized_entropy(test_y[task], predicted))
        cells = [
            "undefined" if None in values else f"{np.mean(values):.4f} ({np.ptp(values):.4f})"
            for values in (aucs, entropies)
        ]
        print(f"| {task} | {int(test_y[task].sum()):,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    cli.run(main)
