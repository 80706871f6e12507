"""Search for the weights of a `Fusion` that serve a goal best, by ranking a day of logs again and again."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf
from scipy.optimize import differential_evolution
from scipy.stats import qmc

from dlen_cam2.evaluation import Predictions
from dlen_cam2.schema import Schema, Task
from dlen_cam2.serving.fusion import P_UP, Fusion, usual_range
from dlen_cam2.utils import console
from dlen_cam2.utils.errors import UserError

MEASURES = ("ndcg", "rate")
_DEPTH = 20.0  # a product's weights are scaled so that no row of the day lies below exp(-20): float32 ends at exp(-87)


@dataclasses.dataclass(frozen=True)
class Goal:
    """A number that says how good a ranking is: the `measure` ("ndcg" or "rate", see `Day`) of a task."""

    measure: str
    task: str

    @classmethod
    def parse(cls, text: str, schema: Schema) -> "Goal":
        """Parse a goal such as "ndcg/long_view"; its task must be in the schema. Raises `UserError` quoting it."""
        measure, _, task = text.strip().partition("/")
        number = task in [t.name for t in schema.tasks if t.is_number]
        if number and measure == "ndcg":
            raise UserError(f"the goal of a task that is a number must be its rate, the mean over the first ranks: "
                            f"rate/{task}. Received: {text!r}.")
        if measure not in MEASURES or task not in schema.task_names:
            raise UserError(f"a goal must be one of {MEASURES}, '/', and one of the tasks {schema.task_names}. "
                            f"Received: {text!r}.")
        return cls(measure, task)

    def __str__(self) -> str:
        return f"{self.measure}/{self.task}"


@dataclasses.dataclass(frozen=True)
class Constraint:
    """A constraint `goal <= bound` or `goal >= bound`; a bound of None is the goal's value under the baseline."""

    goal: Goal
    sign: str
    bound: float | None

    @classmethod
    def parse(cls, text: str, schema: Schema) -> "Constraint":
        """Parse a constraint such as "rate/hate<=baseline" or "ndcg/like>=0.3". Raises `UserError` quoting it."""
        found = re.fullmatch(r"\s*([^<>=]+)(<=|>=)\s*(baseline|\d*\.?\d+)\s*", text)
        if not found:
            raise UserError("a constraint must be a goal, <= or >=, and a number or the word baseline, such as "
                            f"'rate/hate<=baseline'. Received: {text!r}.")
        goal, sign, bound = found.groups()
        return cls(Goal.parse(goal, schema), sign, None if bound == "baseline" else float(bound))

    def violation(self, value: float, baseline: float) -> float:
        """By how much `value` violates the constraint, or 0; `baseline` is the goal's value under the baseline."""
        over = value - (baseline if self.bound is None else self.bound)
        return max(0.0, over if self.sign == "<=" else -over)

    def __str__(self) -> str:
        return f"{self.goal} {self.sign} {'baseline' if self.bound is None else self.bound}"


class Day:
    """The exposures of a day, which are ranked again for each user by a fused score, best first.

    Rows of equal score keep the order of the log. With y_r the label (0 outside the task's sample space) at rank r =
    1, 2, … of the user's rows, and n the number of these rows, a goal is the mean over users of

        ndcg = Σ_{r <= top} y_r / log2(1 + r) / (the most that it can be),  over users with a positive and a negative
        rate = Σ_{r <= top} y_r / min(top, n),                              over all users

    (Järvelin and Kekäläinen 2002, with gains of 0 and 1). A regression task has only the rate: the mean of its label in
    the first ranks. Only exposures are ranked: the log does not tell what another ranking would have shown.

    Args:
        predictions: the rows of the day.
        schema: the schema of the model.
        goals: the goals to measure.
        top: number of ranks that count.

    Raises:
        UserError: the day has no rows, the schema names no user, or a goal is undefined or the same in every order.
    """

    def __init__(self, predictions: Predictions, schema: Schema, goals: Sequence[Goal], top: int):
        if not len(predictions.labels):
            raise UserError("a day must have rows to be ranked. Received: none.")
        if "user" not in predictions.keys:
            raise UserError(f"the schema must have a user key, by which rows are ranked. Received: {schema.keys}.")
        self.goals = list(goals)
        self.negative = [task.name for task in schema.tasks if task.negative]
        given = {**predictions.serving, **predictions.causes}
        self.scores = {name: tf.constant(values, tf.float32) for name, values in given.items()}
        self.ranges = {task.name: _range(given[task.name], task) for task in schema.tasks if task.is_number}
        self._users = predictions.users
        rows = np.bincount(self._users)
        self._starts = np.cumsum(rows) - rows
        rank = 1 + np.arange(len(self._users)) - np.repeat(self._starts, rows)
        shown = rank <= top
        gains = {"ndcg": shown / np.log2(1 + rank), "rate": shown / np.repeat(np.minimum(top, rows), rows)}
        labels = predictions.labels * predictions.mask
        self._labels = [labels[:, schema.task_names.index(goal.task)] for goal in self.goals]
        self._gains = [gains[goal.measure] for goal in self.goals]
        each = zip(self.goals, self._labels, self._gains, strict=True)
        self._most = [self._ideal(goal, labels, gains, rows, top) for goal, labels, gains in each]

    def _ideal(self, goal: Goal, labels: np.ndarray, gains: np.ndarray, rows: np.ndarray, top: int) -> np.ndarray:
        """The divisor of each user's sum, (users,); NaN for a user who does not count."""
        of_user = labels[np.argsort(self._users, kind="stable")]
        least, most = (each(of_user, self._starts) for each in (np.minimum.reduceat, np.maximum.reduceat))
        mixed = least < most
        if goal.measure == "rate":
            if not (mixed & (rows > top)).any():
                raise UserError(f"{goal} needs a user with more than top={top} rows who has a positive and a negative "
                                f"of {goal.task!r}, else every order has the same value. Received: none.")
            return np.ones(len(rows))
        if not mixed.any():
            raise UserError(f"{goal} needs a user who has a positive and a negative of {goal.task!r}. Received: none.")
        return np.where(mixed, self._sums(labels, gains, self._order(labels)), np.nan)

    def _order(self, score: np.ndarray) -> np.ndarray:
        return np.lexsort((-score, self._users))

    def _sums(self, labels: np.ndarray, gains: np.ndarray, order: np.ndarray) -> np.ndarray:
        return np.add.reduceat(labels[order] * gains, self._starts)

    def by_user(self, fusion: Fusion) -> np.ndarray:
        """Each user's contribution to each goal's mean, (goals, users); NaN where the user does not count."""
        order = self._order(fusion(self.scores, self.negative).numpy())
        each = zip(self._labels, self._gains, self._most, strict=True)
        return np.stack([self._sums(labels, gains, order) / most for labels, gains, most in each])

    def measure(self, fusion: Fusion) -> dict[Goal, float]:
        """The value of every goal."""
        return dict(zip(self.goals, map(float, np.nanmean(self.by_user(fusion), axis=1)), strict=True))


class Space:
    """Maps numbers in [0, 1] to fusions: a weight for each score and, if the model has P(UP), its power and floor.

    DESIGN: weights are in units of one over the standard deviation of what they multiply, log q (product) or q (sum),
    so that a step moves the ranking equally for every score: q of "hate" hardly differs from 1. The floor is at most
    the median of P(UP). A product ranks the same if all its exponents are multiplied, so they are scaled to fit
    float32; the weights of a sum add up to 1. All numbers have four digits.

    Args:
        day: the exposures of the day.
        form: "product" or "sum".
        names: the scores that get weights.

    Raises:
        UserError: the day lacks a score.
    """

    def __init__(self, day: Day, form: str, names: Sequence[str]):
        self._ranges = {name: limits for name, limits in day.ranges.items() if name in names}
        Fusion(form, dict.fromkeys(names, 1.0), ranges=self._ranges).checked(list(day.scores), day.ranges)
        self.form = form
        self.names = list(names)
        # The product of one score with weight 1 is its q.
        q = [Fusion("product", {name: 1.0}, ranges=self._ranges)(day.scores, day.negative).numpy() for name in names]
        latent = day.scores[P_UP].numpy() if P_UP in day.scores else None
        self._highest = 0.0 if latent is None else float(np.median(latent))
        if form == "product":
            q = [np.log(values) for values in (q if latent is None else [*q, latent])]
        self._units = np.array([1 / (np.std(values) or 1.0) for values in q])
        self._lowest = np.array([values.min() for values in q])
        self.size = len(names) + 2 * (latent is not None)

    def __call__(self, x: np.ndarray) -> Fusion:
        """The fusion at the point `x`, (size,)."""
        exponents = x[: len(self._units)] * self._units
        if self.form == "product":
            exponents = exponents * (_DEPTH / max(-(exponents @ self._lowest), 1e-5))
            power = exponents[len(self.names):]
        else:
            exponents = exponents / exponents.sum()
            power = 2 * x[len(self.names): -1]
        weights = dict(zip(self.names, map(_rounded, exponents), strict=False))
        if self.size == len(self.names):
            return Fusion(self.form, weights, ranges=self._ranges)
        return Fusion(self.form, weights, _rounded(power[0]), _rounded(x[-1] * self._highest), self._ranges)


def _range(predictions: np.ndarray, task: Task) -> tuple[float, float]:
    """DESIGN: from 0, or the day's smallest value if that is less, to the largest, so that seconds count as seconds."""
    low, high = min(0.0, float(predictions.min())), max(0.0, float(predictions.max()))
    return (low, high) if low < high else usual_range(task)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


@dataclasses.dataclass(frozen=True)
class Trial:
    """A fusion, the value of every goal under it, and its total violation of the constraints."""

    fusion: Fusion
    values: Mapping[Goal, float]
    violation: float


def search(
    day: Day, space: Space, baseline: Fusion, maximize: Goal, constraints: Collection[Constraint],
    trials: int, seed: int = 0,
) -> tuple[Trial, list[Trial]]:
    """Find the best fusion that satisfies the constraints on the day; return it and all trials, the baseline first.

    NDCG and rates are step functions of the weights and have no gradient, so the search uses differential evolution
    (Storn and Price 1997) from Sobol points. A fusion that satisfies the constraints beats one that does not; of two
    that do not, the one with the smaller violation wins (Deb 2000). The search shows its progress.

    Args:
        day: the exposures to rank.
        space: the fusions to search.
        baseline: the fusion to compare with, the first of the trials.
        maximize: the goal to maximize.
        constraints: the constraints to satisfy.
        trials: the largest number of fusions to try.
        seed: seed of the random numbers.

    Raises:
        UserError: no trial satisfies the constraints; the message names the smallest violation.
    """
    reference = day.measure(baseline)

    def tried(fusion: Fusion, values: Mapping[Goal, float]) -> Trial:
        return Trial(fusion, values, sum(c.violation(values[c.goal], reference[c.goal]) for c in constraints))

    done = [tried(baseline, reference)]
    best = done[0]

    def loss(trial: Trial) -> float:
        return trial.violation or -trial.values[maximize]

    def attempt(x: np.ndarray) -> float:
        nonlocal best
        fusion = space(x)
        done.append(tried(fusion, day.measure(fusion)))
        best = min(best, done[-1], key=loss)
        progress.update(len(done), described(best))
        return loss(done[-1])

    points = qmc.Sobol(space.size, seed=seed).random_base2(int(np.ceil(np.log2(8 * space.size))))
    passes = max(trials // len(points), 2)
    with console.Progress(f"search for {maximize}", 1 + passes * len(points), "fusions", done=1) as progress:
        differential_evolution(
            attempt, [(1e-4, 1.0)] * space.size, init=np.maximum(points, 1e-4), polish=False, seed=seed, tol=0,
            maxiter=passes - 1,
        )
    if best.violation:
        raise UserError(f"none of the {len(done):,} fusions that were tried keeps {', '.join(map(str, constraints))}. "
                        f"The nearest: {described(best)}.")
    return best, done


def described(trial: Trial) -> str:
    """The values of a trial as text, such as "ndcg/long_view 0.6123, rate/hate 0.0012"."""
    return ", ".join(f"{goal} {value:.4f}" for goal, value in trial.values.items())
