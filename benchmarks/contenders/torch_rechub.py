"""torch-rechub's MMOE and PLE, with Adam, by its own trainer."""

from collections.abc import Iterator, Sequence

import torch
from torch_rechub.basic.features import DenseFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE, PLE
from torch_rechub.trainers import MTLTrainer

from benchmarks.yardstick import Batch, Clock, Request, Size, contend


class _Loader:
    """Batches in memory, over and over, until the clock says stop."""

    def __init__(self, batches: Sequence[Batch], clock: Clock):
        self._batches = [
            ({**{f"s{n}": torch.from_numpy(c.copy()) for n, c in enumerate(ids.T)},
              **{f"d{n}": torch.from_numpy(c.copy()) for n, c in enumerate(numbers.T)}}, torch.from_numpy(labels))
            for ids, numbers, labels in batches
        ]
        self._clock = clock

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        yield self._batches[0]
        step = 0
        while not self._clock.tick(1):  # asked for the next batch: the step before is done
            step += 1
            yield self._batches[step % len(self._batches)]


def train(request: Request, size: Size, batches: Sequence[Batch], clock: Clock) -> float:
    torch.set_num_threads(2)
    features = [SparseFeature(f"s{n}", size.vocabulary, embed_dim=size.width) for n in range(size.sparse)]
    features += [DenseFeature(f"d{n}") for n in range(size.dense)]
    types = ["classification"] * size.tasks
    expert, towers = {"dims": list(size.expert_units)}, [{"dims": list(size.tower_units)}] * size.tasks
    if request.model == "mmoe":
        model = MMOE(features, types, size.experts, expert, towers)
    else:
        model = PLE(features, types, 1, size.task_experts, size.experts, expert, towers)
    trainer = MTLTrainer(model, types, optimizer_params={"lr": 1e-3, "weight_decay": 0}, n_epoch=1)
    losses = trainer.train_one_epoch(_Loader(batches, clock))
    return float(sum(losses)) if losses is not None else float("nan")


if __name__ == "__main__":
    contend(train)
