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

FLAGS = flags.FLAGS


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


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Data set that a pipeline wrote.", required=True)
    flags.DEFINE_string("train_days", None, "Days to train on.", required=True)
    flags.DEFINE_string("eval_days", None, "Days to measure on, together.", required=True)
    flags.DEFINE_integer("seeds", 3, "Seeds.", lower_bound=1)
    flags.DEFINE_integer("rounds", 200, "Trees of a model.", lower_bound=1)
    flags.DEFINE_integer("threads", 2, "Threads of LightGBM.", lower_bound=1)


def main() -> None:
    schema = schema_pbtxt.load(FLAGS.data_dir)
    known = list(data.statistics(FLAGS.data_dir)["days"])
    train_x, train_y = load(FLAGS.data_dir, schema, data.parse_days(FLAGS.train_days, known))
    test_x, test_y = load(FLAGS.data_dir, schema, data.parse_days(FLAGS.eval_days, known))
    print(f"LightGBM, {FLAGS.rounds} trees, {train_x.shape[1]} columns, mean (spread) over {FLAGS.seeds} seeds")
    print("| task | positives | AUC | NE |\n|---|---|---|---|", flush=True)
    for task in schema.task_names:
        aucs, entropies = [], []
        for seed in range(FLAGS.seeds):
            parameters = {
                "objective": "binary", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 200,
                "feature_fraction": 0.5, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 10.0,
                "seed": seed, "num_threads": FLAGS.threads, "verbosity": -1,
            }
            model = lightgbm.train(parameters, lightgbm.Dataset(train_x, train_y[task]), FLAGS.rounds)
            predicted = np.asarray(model.predict(test_x))
            aucs.append(auc(test_y[task], predicted))
            entropies.append(normalized_entropy(test_y[task], predicted))
        cells = [
            "undefined" if None in values else f"{np.mean(values):.4f} ({np.ptp(values):.4f})"
            for values in (aucs, entropies)
        ]
        print(f"| {task} | {int(test_y[task].sum()):,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    cli.run(main, define_flags)
