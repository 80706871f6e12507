"""DeepCTR-Torch's MMOE and PLE, with Adam: the body of its `fit`, on batches in memory."""

from collections.abc import Sequence

import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import MMOE, PLE
from torch.nn import functional

from benchmarks.yardstick import Batch, Clock, Request, Size, contend


def train(request: Request, size: Size, batches: Sequence[Batch], clock: Clock) -> float:
    torch.set_num_threads(2)
    columns = [SparseFeat(f"s{n}", size.vocabulary, embedding_dim=size.width) for n in range(size.sparse)]
    columns += [DenseFeat(f"d{n}", 1) for n in range(size.dense)]
    common = {
        "expert_dnn_hidden_units": size.expert_units, "tower_dnn_hidden_units": size.tower_units,
        "task_types": ["binary"] * size.tasks, "task_names": [f"t{n}" for n in range(size.tasks)],
        "l2_reg_linear": 0, "l2_reg_embedding": 0, "device": "cpu",
    }
    if request.model == "mmoe":
        model = MMOE(columns, num_experts=size.experts, **common)
    else:
        # Version 0.3.0 makes `specific_expert_num` shared experts and looks for `shared_expert_num`, so this one fails.
        model = PLE(columns, shared_expert_num=size.experts, specific_expert_num=size.task_experts, num_levels=1,
                    **common)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    # Its input is one matrix of floats, in which columns stand as in `feature_index`.
    place = {name: start for name, (start, _) in model.feature_index.items()}
    rows = []
    for ids, numbers, labels in batches:
        x = torch.zeros(size.batch, len(place))
        for prefix, matrix in (("s", ids), ("d", numbers)):
            for n in range(matrix.shape[1]):
                x[:, place[f"{prefix}{n}"]] = torch.from_numpy(matrix[:, n]).float()
        rows.append((x, torch.from_numpy(labels)))
    step = 0
    while True:
        x, labels = rows[step % len(rows)]
        predicted = model(x).squeeze()
        optimizer.zero_grad()
        loss = sum(functional.binary_cross_entropy(predicted[:, n], labels[:, n], reduction="sum")
                   for n in range(size.tasks))
        (loss + model.get_regularization_loss() + model.aux_loss).backward()
        optimizer.step()
        step += 1
        if clock.tick(1):
            return float(loss)


if __name__ == "__main__":
    contend(train)
