"""Census-Income, ple trunk, logistic head: 4 shared experts, 2 of each task's own of one layer.

dlen_cam2 train --config=census_ple --data_dir=DIR --model_dir=DIR \
    --train_days=train --eval_days=test

DESIGN: the sizes. Where only the test file is at hand, --train_days=validation.
"""

from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models import PLE, Logistic


def get_config() -> Config:
    return Config(
        name="census_ple",
        model=ModelConfig(trunk=PLE(experts=4, task_experts=2, units=(64,)), head=Logistic(), tower_units=(16,)),
        train=TrainConfig(epochs=3, batch_size=512),
    )
