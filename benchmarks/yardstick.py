"""The yardstick: the network and the rows that every contender trains on. NumPy alone, for peers import it."""

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of the rows and of the networks: MMOE of `experts`, PLE of one level with `experts` shared ones.

    Attributes:
        tasks: binary tasks.
        sparse: single-valued features, each with a table of `vocabulary` rows of `width`.
        dense: numbers of a row.
        batch: rows of a step.
        experts: shared experts; PLE has `task_experts` of each task's own as well.
        expert_units, tower_units: layer sizes.
    """

    tasks: int = 5
    sparse: int = 20
    vocabulary: int = 100_000
    width: int = 16
    dense: int = 10
    batch: int = 4096
    experts: int = 5
    task_experts: int = 2
    expert_units: tuple[int, ...] = (256, 128, 64)
    tower_units: tuple[int, ...] = (64,)

    def flop(self, model: str) -> int:
        """Floating-point operations of the matrix products of a row, forward and backward.

        Backward are two products of the size of the forward one, of the inputs' and of the weights' gradients; sums,
        activations, look-ups and the optimizer are left out.
        """
        x = self.sparse * self.width + self.dense
        ple = model == "ple"
        experts = self.experts + self.tasks * self.task_experts * ple
        seen = self.experts + self.task_experts * ple  # by a gate
        widths = (x, *self.expert_units)
        towers = (self.expert_units[-1], *self.tower_units, 1)
        products = experts * sum(a * b for a, b in zip(widths, widths[1:], strict=False))
        products += self.tasks * (x * seen + seen * self.expert_units[-1])
        products += self.tasks * sum(a * b for a, b in zip(towers, towers[1:], strict=False))
        return 3 * 2 * products


SIZES = {
    "yardstick": Size(),
    "quick": Size(vocabulary=1000, batch=512, expert_units=(64, 32)),
}
MODELS = ("mmoe", "ple")


@dataclasses.dataclass(frozen=True)
class Request:
    """What a contender's process is to do; JSON on its command line.

    Attributes:
        model: "mmoe" or "ple".
        size: name of a size.
        seconds: how long to time, after the warm-up.
        options: of the contender.
        changes: fields of the size to change.
    """

    model: str
    size: str
    seconds: float = 10.0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def sizes(self) -> Size:
        return dataclasses.replace(SIZES[self.size], **self.changes)


Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def batches(size: Size, count: int = 8, seed: int = 0) -> list[Batch]:
    """Batches of (ids (B, sparse) int64, numbers (B, dense) float32, labels (B, tasks) float32).

    Ids are uniform over the vocabulary, the hardest case for an optimizer of rows. The labels' logits are linear in the
    numbers, so that there is something to learn.
    """
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(size.dense, size.tasks))
    found = []
    for _ in range(count):
        ids = rng.integers(0, size.vocabulary, (size.batch, size.sparse))
        numbers = rng.normal(size=(size.batch, size.dense)).astype(np.float32)
        chances = 1 / (1 + np.exp(1 - numbers @ weights))
        found.append((ids, numbers, (rng.random(chances.shape) < chances).astype(np.float32)))
    return found


class Clock:
    """Times steps once those of the warm-up are over, until it has run for long enough.

    Args:
        seconds: how long to time.
        warm: seconds and steps, both of which must pass before.
    """

    def __init__(self, seconds: float, warm: tuple[float, int] = (3.0, 8)):
        self._seconds, self._warm = seconds, warm
        self._done, self._begun = 0, time.perf_counter()
        self._from: tuple[int, float] | None = None
        self._ticks: list[tuple[int, float]] = []

    def tick(self, steps: int) -> bool:
        """So many more steps are done, now. Returns whether it has run for long enough."""
        now = time.perf_counter()
        self._done += steps
        if self._from is None:
            if now - self._begun >= self._warm[0] and self._done >= self._warm[1]:
                self._from = self._done, now
            return False
        self._ticks.append((self._done, now))
        return now - self._from[1] >= self._seconds

    @property
    def steps_per_second(self) -> float:
        assert self._from is not None and self._ticks, "the clock has not been running"
        steps, now = self._ticks[-1]
        return (steps - self._from[0]) / (now - self._from[1])


def contend(train: Callable[[Request, Size, Sequence[Batch], Clock], float]) -> None:
    """The main of a contender: `train` until the clock says stop; it returns the last loss. Prints JSON."""
    request = Request(**json.loads(sys.argv[1]))
    size, clock = request.sizes, Clock(request.seconds)
    loss = train(request, size, batches(size), clock)
    print(json.dumps({
        "rows_per_second": size.batch * clock.steps_per_second, "loss": loss,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))
