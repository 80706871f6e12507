"""DeepCTR's MMOE and PLE, on TensorFlow, with Adam."""

from collections.abc import Sequence

from deepctr.feature_column import DenseFeat, SparseFeat
from deepctr.models import MMOE, PLE

from benchmarks.contenders.keras import fit
from benchmarks.yardstick import Batch, Clock, Request, Size, contend


def train(request: Request, size: Size, batches: Sequence[Batch], clock: Clock) -> float:
    columns = [SparseFeat(f"s{n}", size.vocabulary, embedding_dim=size.width) for n in range(size.sparse)]
    columns += [DenseFeat(f"d{n}", 1) for n in range(size.dense)]
    tasks = [f"t{n}" for n in range(size.tasks)]
    common = {
        "expert_dnn_hidden_units": size.expert_units, "tower_dnn_hidden_units": size.tower_units,
        "task_types": ["binary"] * size.tasks, "task_names": tasks, "l2_reg_embedding": 0,
    }
    if request.model == "mmoe":
        model = MMOE(columns, num_experts=size.experts, **common)
    else:
        model = PLE(columns, shared_expert_num=size.experts, specific_expert_num=size.task_experts, num_levels=1,
                    **common)
    model.compile("adam", "binary_crossentropy")
    rows = [
        ({**{f"s{n}": column for n, column in enumerate(ids.T)}, **{f"d{n}": c for n, c in enumerate(numbers.T)}},
         tuple(labels.T))
        for ids, numbers, labels in batches
    ]
    return fit(model, rows, clock)


if __name__ == "__main__":
    contend(train)
