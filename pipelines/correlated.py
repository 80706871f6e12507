"""Simulate two tasks of known correlation: `python -m pipelines.correlated --output=DIR --correlation=0.5`.

These are the synthetic data of MMOE (Ma et al., 2018, section 3.2) and PLE (Tang et al., 2020, section 4.4). With
orthogonal unit vectors u1, u2:

    w1 = c u1,  w2 = c (p u1 + sqrt(1 - p²) u2)
    y_k = w_k·x + Σ_{i<=m} sin(α_i w_k·x + β_i) + ε,   x ~ N(0, I), ε ~ N(0, .01), α, β ~ N(0, 1)

CERTAIN: the equations; p is the cosine of the weights, and the labels' correlation is monotone in it. REPORTED (PLE):
c = 1, m = 10, α, β ~ N(0, 1), 512 columns, 1.4 million rows. DESIGN: ε's .01 is read as its variance. The defaults
are 32 columns and far fewer rows, so that an experiment takes minutes. Since our tasks are binary, the label of task k
is whether y_k is above its median over all rows. The last fifth of the rows is the split `test`.
"""

import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
from absl import flags

from dlen_cam2.schema import Feature, Schema, Task
from dlen_cam2.utils import commands
from dlen_cam2.utils.errors import UserError
from pipelines import options
from pipelines.options import Options
from pipelines.writer.dataset import write_dataset

FLAGS = flags.FLAGS
TASKS = ("first", "second")
_TERMS = 10
_NOISE = 0.01**0.5


def draw(correlation: float, rows: int, columns: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw x (rows, columns) and y (rows, 2), before thresholds.

    Raises:
        UserError: the correlation is not in [-1, 1], or there are fewer than two columns.
    """
    if not -1 <= correlation <= 1:
        raise UserError(f"--correlation must be in [-1, 1]. Received: {correlation}.")
    if columns < 2:
        raise UserError(f"--columns must be at least 2, for two orthogonal vectors. Received: {columns}.")
    rng = np.random.default_rng(seed)
    u1, u2 = np.linalg.qr(rng.normal(size=(columns, 2)))[0].T
    weights = np.stack([u1, correlation * u1 + (1 - correlation**2) ** 0.5 * u2])
    alpha, beta = rng.normal(size=(2, _TERMS))
    x = rng.normal(size=(rows, columns))
    projected = x @ weights.T
    waves = np.sin(projected[:, :, None] * alpha + beta).sum(axis=2)
    return x, projected + waves + _NOISE * rng.normal(size=projected.shape)


def write(
    output: str | pathlib.Path, correlation: float, rows: int, columns: int = 32, seed: int = 0,
    how: Options = Options(),  # noqa: B008
) -> dict[str, Any]:
    """Draw and write a data set with the splits `train` and `test`; returns its statistics."""
    x, y = draw(correlation, rows, columns, seed)
    names = [f"x{i}" for i in range(columns)]
    table = pa.table({
        **{name: x[:, i].astype(np.float32) for i, name in enumerate(names)},
        **{task: (y[:, k] > np.median(y[:, k])).astype(np.int64) for k, task in enumerate(TASKS)},
    })
    schema = Schema(
        "correlated", tuple(Feature(name, "float", "user", "content") for name in names), tuple(map(Task, TASKS))
    )
    first = rows - rows // 5
    splits = [("train", table.slice(0, first)), ("test", table.slice(first))]
    source = {"pipeline": "correlated", "correlation": correlation, "rows": rows, "columns": columns, "seed": seed}
    return write_dataset(output, schema, splits, source, form=how.form, train_days="train")


def define_flags() -> None:
    flags.DEFINE_float("correlation", 0.5, "p, the cosine of the two tasks' weights, from -1 to 1.")
    flags.DEFINE_integer("rows", 50_000, "Number of rows; the last fifth is the split `test`.", lower_bound=100)
    flags.DEFINE_integer("columns", 32, "Number of columns of x; at least 2.")
    flags.DEFINE_integer("seed", 0, "Seed of all random numbers.", lower_bound=0)
    options.define_flags(point_in_time=False)


def main() -> None:
    statistics = write(FLAGS.output, FLAGS.correlation, FLAGS.rows, FLAGS.columns, FLAGS.seed, options.from_flags())
    options.finish(statistics)


if __name__ == "__main__":
    commands.run(main, define_flags)
